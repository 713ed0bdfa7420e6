"""Column names that identify people are caught in several languages; those of a laboratory are not."""

import pytest

from marrowflow.cohorts.identifiers import identifying_kind


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("name", "a person's name"),
        ("Patient Name", "a person's name"),
        ("patientName", "a person's name"),
        ("first_name", "a person's name"),
        ("SURNAME", "a person's name"),
        ("Vorname", "a person's name"),
        ("Name des Patienten", "a person's name"),
        ("nom", "a person's name"),
        ("nom_patient", "a person's name"),
        ("prénom", "a person's name"),
        ("apellidos", "a person's name"),
        ("cognome", "a person's name"),
        ("DOB", "a birth date"),
        ("birth_date", "a birth date"),
        ("date of birth", "a birth date"),
        ("year_of_birth", "a birth date"),
        ("Geburtsdatum", "a birth date"),
        ("date_naissance", "a birth date"),
        ("fecha_nacimiento", "a birth date"),
        ("Fødselsdato", "a birth date"),
        ("MRN", "a record number"),
        ("record_number", "a record number"),
        ("medical record no.", "a record number"),
        ("social_security_number", "a record number"),
        ("numéro_dossier", "a record number"),
        ("Patientennummer", "a record number"),
        ("codice fiscale", "a record number"),
        ("address", "an address or a contact"),
        ("E-mail", "an address or a contact"),
        ("home_phone", "an address or a contact"),
    ],
)
def test_identifying(column, kind):
    assert identifying_kind(column) == kind


@pytest.mark.parametrize(
    "column",
    [
        "patient_id",
        "image",
        "label",
        "slide_id",
        "age",
        "sex",
        "scanner",
        "scanner_name",
        "stain_name",
        "file_name",
        "class_name",
        "hospital",
        "hospital_id",
        "case_number",
        "fieldNumber",
        "image_no",
        "nominal",
        "denominator",
        "renamed",
        "record",
        "reference_date",
        "mobility",
        "patient_status",
        "nombre_cellules",
        "number_of_nuclei",
        "Nr",
    ],
)
def test_harmless(column):
    assert identifying_kind(column) is None
