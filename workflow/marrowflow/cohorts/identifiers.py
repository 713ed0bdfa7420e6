"""Column names that look as if they identified a person, in the languages of the hospitals at hand.

A guess from the name alone: it stops what was left in by mistake, it does not anonymise. Words are
listed without accents, as `_words` leaves them.
"""

from __future__ import annotations

import re
import unicodedata

# A word of these identifies wherever it stands in a column's name.
_ALWAYS = {
    "a person's name": """
        surname firstname lastname forename fullname patientname givenname familyname maidenname middlename
        initials vorname nachname familienname geburtsname patientenname prenom apellido apellidos cognome
        sobrenome voornaam achternaam fornavn efternavn fornamn efternamn imie nazwisko familiya imya
    """,
    "a birth date": """
        dob birth birthdate birthday birthdatum geburtsdatum geburtstag geboren naissance nacimiento nascita
        nascimento geboortedatum fodselsdato fodelsedatum urodzenia
    """,
    "a record number": """
        mrn ssn nhs nhsnumber aktenzeichen patientennummer fallnummer versichertennummer krankenkassennummer
        sozialversicherungsnummer nss nhc dni nie nif cpf bsn pesel cpr personnummer aadhaar passport
    """,
    "an address or a contact": """
        postcode zipcode zip plz street strasse anschrift phone telephone telefon telefono mobile handy fax
        email mail wohnort
    """,
}

# A word of these identifies when every other word of the name is one of _PERSONAL: `patient_name`, not `scanner_name`.
_OF_A_PERSON = {
    "a person's name": "name names nom noms nome nombre naam navn namn nazwa",
    "an address or a contact": "address adresse direccion indirizzo endereco adres",
}
_PERSONAL = """
    patient patients person subject first last family given full middle maiden legal of the du de del des
    paziente paciente patienten home postal ip
"""

# Two words, one of each set, in any order: `record_number`, `numero_dossier`.
_RECORDS = "record chart insurance security secu securite dossier historia clinica fiscale hospital"
_NUMBERS = "number no nr num nummer numero codice social"


def identifying_kind(column: str) -> str | None:
    """Return what a column's name says it holds of a person (such as "a birth date"), or None.

    ``patient_id`` and its like are pseudonyms, which every study needs: they pass.
    """
    words = _words(column)
    spellings = {*words, "".join(words)}
    for kind, listed in _ALWAYS.items():
        if spellings & set(listed.split()):
            return kind
    for kind, listed in _OF_A_PERSON.items():
        found = spellings & set(listed.split())
        if found and set(words) <= found | set(_PERSONAL.split()):
            return kind
    if all(set(words) & set(listed.split()) for listed in (_RECORDS, _NUMBERS)):
        return "a record number"
    return None


def _words(column: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", column)
    plain = "".join(c for c in unicodedata.normalize("NFKD", apart) if not unicodedata.combining(c))
    return re.findall(r"[a-z]+", plain.replace("ø", "o").casefold())
