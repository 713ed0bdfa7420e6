"""Paint material of the shape of a published study: its classes, image size, hospitals and their roles. No patient is shown.

    python tests/painted_studies.py huang2020 --out data/huang2020 [--patients 4] [--images 2]

With it a published study's configuration runs whole where the study's own images cannot be had:

    snakemake --cores 2 --configfile resources/studies/huang2020.yaml

The cohort table comes last: where it stands, the rest is whole.

huang2020
    Smear fields of 1920 x 1200 px of three hospitals, all for development; healthy, AML, ALL, CML.
bt5153
    Single cells of 250 x 250 px in 21 types, without patient ids, one source for development.
aamds2022
    Smear fields of a bank of smears (development) and of a hospital (external); AA, MDS, AML.
wang2022
    Whole slides, pyramidal TIFF at .1 micrometres a pixel, of 129 patients (development) and 30 of a second hospital
    (external), whose files do not say how large their pixels are; AML, CML, ALL, CLL, MM.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from painted_slides import FIELD, write_slide  # noqa: E402

from marrowflow.cli import progress  # noqa: E402
from marrowflow.demo.hospitals import HOSPITALS, Hospital  # noqa: E402
from marrowflow.demo.smear import Patient, draw_patient, paint_field  # noqa: E402
from marrowflow.files import write_table, written_whole  # noqa: E402

STUDIES = ("huang2020", "bt5153", "aamds2022", "wang2022")

# The 21 types of the published cells: the painter's kind that stands in, its size and its depth of stain.
MARROW_TYPES: dict[str, tuple[str, float, float]] = {
    "ABE": ("eosinophil", 1.15, 1.2),
    "ART": ("basophil", 0.55, 0.6),
    "BAS": ("basophil", 1.0, 1.0),
    "BLA": ("myeloblast", 1.0, 1.0),
    "EBO": ("lymphocyte", 0.85, 1.35),
    "EOS": ("eosinophil", 1.0, 1.0),
    "FGC": ("neutrophil", 1.25, 0.7),
    "HAC": ("lymphoblast", 1.1, 0.7),
    "KSC": ("lymphocyte", 1.2, 0.5),
    "LYI": ("lymphoblast", 0.9, 1.2),
    "LYT": ("lymphocyte", 1.0, 1.0),
    "MMZ": ("metamyelocyte", 1.0, 1.0),
    "MON": ("monocyte", 1.0, 1.0),
    "MYB": ("myelocyte", 1.0, 1.0),
    "NGB": ("band", 1.0, 1.0),
    "NGS": ("neutrophil", 1.0, 1.0),
    "NIF": ("monocyte", 0.7, 0.5),
    "OTH": ("promyelocyte", 1.3, 0.6),
    "PEB": ("lymphoblast", 1.25, 1.35),
    "PLM": ("lymphocyte", 1.25, 1.15),
    "PMO": ("promyelocyte", 1.0, 1.0),
}

# What the painter's leukaemias make of aplastic anaemia and of myelodysplasia: few cells and no blasts, and some blasts.
_AA = {"lymphocyte": 80.0, "neutrophil": 12.0, "monocyte": 8.0}
_MDS = {"neutrophil": 30.0, "band": 20.0, "myelocyte": 20.0, "promyelocyte": 15.0, "monocyte": 15.0}


def paint(study: str, out: Path, patients: int | None = None, images: int | None = None) -> Path:
    """Write ``out/<cohort>/{manifest.csv,images/}`` and last ``out/cohorts.tsv``; return the table.

    Parameters
    ----------
    study
        One of `STUDIES`.
    out
        Where the study goes. Under the project, its cohort table names manifests relative to the project.
    patients
        Of each class and hospital; cells of each type for bt5153, which knows no patients.
    images
        Of each patient; of wang2022, whose patients have a slide each, fields of `FIELD` pixels along a slide's longer side.
    """
    table = out / "cohorts.tsv"
    table.unlink(missing_ok=True)
    painters = {"huang2020": _huang, "bt5153": _bt5153, "aamds2022": _aamds, "wang2022": _wang}
    cohorts = painters[study](out, patients, images)
    for cohort in cohorts:
        cohort["manifest"] = _named(out / cohort["cohort"] / "manifest.csv")
        cohort["source"] = "painted by this project"
    columns = ["cohort", "role", "manifest", "hospital", "source"]
    with written_whole(table) as beside:
        pd.DataFrame(cohorts, columns=columns).to_csv(beside, sep="\t", index=False)
    return table


# --- the three studies -----------------------------------------------------------------------------


def _huang(out: Path, patients: int | None, images: int | None) -> list[dict[str, str]]:
    cohorts = []
    for name, base in (("first", "alpha"), ("second", "beta"), ("third", "gamma")):
        camera = dataclasses.replace(HOSPITALS[base], name=name, width=1920, height=1200, resolution=12.0)
        people = [
            (label, draw_patient(label, _generator(name, label, number)))
            for label in ("healthy", "AML", "ALL", "CML")
            for number in range(patients or 9)
        ]
        _write_cohort(out / name, camera, people, images or 12)
        cohorts.append({"cohort": name, "role": "development", "hospital": f"Painted hospital, {name}"})
    return cohorts


def _bt5153(out: Path, patients: int | None, images: int | None) -> list[dict[str, str]]:
    if images is not None:
        raise ValueError("bt5153 knows no patients: say the number of cells of each type as patients")
    camera = dataclasses.replace(HOSPITALS["alpha"], name="marrow", width=250, height=250, resolution=10.0)
    people = []
    for label, (kind, size, stain) in MARROW_TYPES.items():
        for number in range(patients or 60):
            chance = _generator("marrow", label, number)
            cell = Patient(
                # A field of this label holds few cells beside the one that is painted first.
                label="healthy",
                mixture={kind: 1.0},
                size=size * float(np.exp(chance.normal(0, 0.05))),
                stain=stain * float(np.exp(chance.normal(0, 0.09))),
                blast_shift=0.0,
                pallor=0.5,
            )
            people.append((label, cell))
    _write_cohort(out / "marrow", camera, people, 1, patient_ids=False)
    return [{"cohort": "marrow", "role": "development", "hospital": "Painted marrow cells"}]


def _aamds(out: Path, patients: int | None, images: int | None) -> list[dict[str, str]]:
    cohorts = []
    for name, base, role, usual in (
        ("bank", "alpha", "development", {"MDS": 32, "AA": 26, "AML": 57}),
        ("hospital", "delta", "external", {"MDS": 214, "AA": 115, "AML": 103}),
    ):
        camera = dataclasses.replace(HOSPITALS[base], name=name, width=640, height=480, resolution=6.0)
        people = []
        for label, number in usual.items():
            for i in range(patients or number):
                people.append((label, _with_disease(label, _generator(name, label, i))))
        _write_cohort(out / name, camera, people, images or 1)
        cohorts.append({"cohort": name, "role": role, "hospital": f"Painted {name}"})
    return cohorts


def _with_disease(label: str, chance: np.random.Generator) -> Patient:
    """Draw a patient with aplastic anaemia, myelodysplasia or acute myeloid leukaemia."""
    if label == "AML":
        return draw_patient("AML", chance)
    weights = _AA if label == "AA" else _MDS
    shares = chance.dirichlet(0.3 * np.array(list(weights.values())))
    mixture = dict(zip(weights, shares.tolist(), strict=True))
    if label == "MDS":
        blasts = float(chance.uniform(0.05, 0.19))
        mixture = {kind: share * (1 - blasts) for kind, share in mixture.items()} | {"myeloblast": blasts}
    like = draw_patient("healthy" if label == "AA" else "CML", chance)
    return dataclasses.replace(like, mixture=mixture)


def _wang(out: Path, patients: int | None, images: int | None) -> list[dict[str, str]]:
    across = images or 12
    cohorts = []
    for name, base, role, usual in (
        ("first", "alpha", "development", {"AML": 45, "CML": 16, "ALL": 25, "CLL": 23, "MM": 20}),
        ("second", "delta", "external", {"AML": 10, "CML": 4, "ALL": 6, "CLL": 6, "MM": 4}),
    ):
        camera = dataclasses.replace(HOSPITALS[base], name=name, width=FIELD, height=FIELD, resolution=10.0)
        people = [
            (label, _with_lymphoma(label, _generator(name, label, i)))
            for label, number in usual.items()
            for i in range(patients or number)
        ]
        folder = out / name
        (folder / "slides").mkdir(parents=True, exist_ok=True)
        (folder / "manifest.csv").unlink(missing_ok=True)
        rows = []
        order = _generator(name, "order").permutation(len(people))
        for number, place in enumerate(progress(order, f"paint {name}", len(people), "slides"), start=1):
            label, patient = people[place]
            image = f"slides/P{number:04d}.tif"
            stated = 0.1 if role == "development" else None
            write_slide(folder / image, camera, patient, _generator(name, image), across, stated)
            own = {"image": image, "patient_id": f"P{number:04d}", "label": label, "scanner": camera.scanner}
            rows.append(own | {"reference": "painted"} | ({} if stated else {"mpp": "0.1"}))
        write_table(folder / "manifest.csv", pd.DataFrame(rows))
        cohorts.append({"cohort": name, "role": role, "hospital": f"Painted hospital, {name}"})
    return cohorts


def _with_lymphoma(label: str, chance: np.random.Generator) -> Patient:
    """Draw a patient with leukaemia, or with myeloma: large lymphocytes stand in for plasma cells."""
    if label not in ("CLL", "MM"):
        return draw_patient(label, chance)
    shares = chance.dirichlet(0.3 * np.array([85.0, 10.0, 5.0]))
    mixture = dict(zip(("lymphocyte", "neutrophil", "monocyte"), shares.tolist(), strict=True))
    like = draw_patient("healthy", chance)
    grown = 1.25 if label == "MM" else 0.9
    return dataclasses.replace(like, mixture=mixture, size=like.size * grown)


# --- rows and files --------------------------------------------------------------------------------


def _write_cohort(
    folder: Path, camera: Hospital, people: list[tuple[str, Patient]], images: int, patient_ids: bool = True
) -> None:
    manifest = folder / "manifest.csv"
    manifest.unlink(missing_ok=True)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    order = _generator(camera.name, "order").permutation(len(people))
    rows = []
    for number, position, field in progress(_fields(order, images), f"paint {camera.name}", unit="images"):
        label, patient = people[position]
        image = f"images/P{number:04d}_{field}.jpg"
        picture = paint_field(camera, patient, _generator(camera.name, image))
        encoded = cv2.imencode(
            ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90]
        )[1]
        (folder / image).write_bytes(encoded.tobytes())
        rows.append({"image": image, "patient_id": f"P{number:04d}", "label": label} | _known_of(camera))
    table = pd.DataFrame(rows)
    write_table(manifest, table if patient_ids else table.drop(columns="patient_id"))


def _fields(order: np.ndarray, images: int) -> list[tuple[int, int, int]]:
    """Return a running number, the person's place in the list and the number of the field, for every picture."""
    return [(n, int(place), i) for n, place in enumerate(order, start=1) for i in range(1, images + 1)]


def _known_of(camera: Hospital) -> dict[str, str]:
    return {
        "magnification": "100x",
        "mpp": f"{1 / camera.resolution:.3f}",
        "scanner": camera.scanner,
        "reference": "painted",
    }


def _named(path: Path) -> str:
    """Return a path as the cohort table names it: relative to the project where it lies in it."""
    whole = path.resolve()
    return whole.relative_to(ROOT).as_posix() if whole.is_relative_to(ROOT) else whole.as_posix()


def _generator(*names: object) -> np.random.Generator:
    """Return a generator that depends on names only, so that no picture's chance hangs on another's."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def main() -> None:
    """Paint one study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", type=Path, required=True, help="folder for cohorts.tsv and the hospitals")
    parser.add_argument(
        "--patients", type=int, help="of each class and hospital (bt5153: cells of each type)"
    )
    parser.add_argument("--images", type=int, help="of each patient")
    args = parser.parse_args()
    print(f"cohort table: {paint(args.study, args.out, args.patients, args.images)}")


if __name__ == "__main__":
    main()
