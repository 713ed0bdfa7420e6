"""Paint one demo hospital: a folder of smear fields with a manifest beside them.

Everything is a function of the hospital's recipe (`hospitals.HOSPITALS`): the same bytes every time,
on any number of threads. Among sound pictures each hospital holds the troubles that a real folder
has (`_plant`), so that the demo's flow diagram has something to count.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from marrowflow.cli import progress, step_parser
from marrowflow.config import Section, read_options
from marrowflow.demo.hospitals import CLASSES, DIAGNOSES, HOSPITALS, Hospital
from marrowflow.demo.smear import Patient, draw_patient, paint_field
from marrowflow.files import write_table

Picture = NDArray[np.uint8]

# Share of patients whose diagnosis a painted reader misses, and of those for whom there is no clear answer.
READERS = {"consultant": (0.08, 0.05), "resident": (0.25, 0.05)}

_FIRST_DAY = datetime.date(2023, 1, 9)
_BURDENS = ((0.35, "low"), (0.65, "intermediate"), (1.0, "high"))


class Options(Section):
    """Painting has no options: a recipe is a constant, so that everyone's demo is the same."""


@dataclass
class _File:
    """One picture of the folder: its manifest row and how its bytes come about."""

    row: dict[str, str]
    patient: Patient
    suffix: str = ".jpg"
    grey: bool = False
    deep: bool = False
    """16 bits a sample."""
    truncated: bool = False
    copy_of: _File | None = None
    gain: float | None = None
    """A copy is decoded, brightened by this factor and encoded anew; None copies the bytes."""

    @property
    def name(self) -> str:
        """The picture's name without suffix: the key of its chance."""
        return self.row["image"].rpartition(".")[0]


def paint_hospital(hospital: Hospital, out: Path) -> pd.DataFrame:
    """Write ``out/images/*``, the readers' ``out/<reader>.csv`` and, last, ``out/manifest.csv``; return the manifest.

    Parameters
    ----------
    hospital
        A recipe of `hospitals.HOSPITALS`.
    out
        The hospital's folder; pictures that are there already are written over.

    Returns
    -------
    DataFrame
        One row a picture, columns as in the manifest contract; all text.
    """
    manifest = out / "manifest.csv"
    manifest.unlink(missing_ok=True)
    (out / "images").mkdir(parents=True, exist_ok=True)
    files = _plant(_plan(hospital))
    for file in progress(files, f"paint {hospital.name}", unit="images"):
        (out / file.row["image"]).write_bytes(_encoded(file, hospital))
    table = pd.DataFrame([file.row for file in files])
    for reader in READERS:
        write_table(out / f"{reader}.csv", _read(hospital, reader, files))
    write_table(manifest, table)
    return table


def main(argv: Sequence[str]) -> None:
    """Run the step ``demo.paint``."""
    parser = step_parser("demo.paint", "Paint a demo hospital's smears and write its manifest.")
    parser.add_argument("--hospital", required=True, choices=sorted(HOSPITALS), help="whose recipe to paint")
    parser.add_argument("--out", required=True, type=Path, help="folder for manifest.csv and images/")
    arguments = parser.parse_args(argv)
    read_options(Options, arguments.options)
    paint_hospital(HOSPITALS[arguments.hospital], arguments.out)


# --- who is in the folder --------------------------------------------------------------------------


def _plan(hospital: Hospital) -> list[_File]:
    """Return all pictures of a hospital, ordered by patient; the ids say nothing about the class."""
    labels = [label for label in CLASSES for _ in range(hospital.patients)]
    order = _generator(hospital.name, "order").permutation(len(labels))
    files = []
    for number, position in enumerate(order, start=1):
        patient_id, label = f"P{number:03d}", labels[position]
        rng = _generator(hospital.name, patient_id)
        patient = draw_patient(label, rng)
        row = _record(hospital, patient_id, patient, rng)
        files += [
            _File({"image": f"images/{patient_id}_{i}.jpg"} | row | {"slide_id": f"{patient_id}-S{1 + i // 3}"}, patient)
            for i in range(1, hospital.images + 1)
        ]  # fmt: skip
    return files


def _record(
    hospital: Hospital, patient_id: str, patient: Patient, rng: np.random.Generator
) -> dict[str, str]:
    """Return what the manifest says about a patient."""
    diagnosis = DIAGNOSES[patient.label]
    taken = _FIRST_DAY + datetime.timedelta(days=int(rng.integers(0, 540)))
    answered = taken + datetime.timedelta(days=int(rng.integers(1, 15)))
    burden = next(name for most, name in _BURDENS if patient.burden <= most)
    return {
        "patient_id": patient_id,
        "label": patient.label,
        "slide_id": "",
        "age": str(int(np.clip(rng.normal(*diagnosis.age), 2, 91))),
        "sex": str(rng.choice(["female", "male"])),
        "magnification": "100x",
        "mpp": f"{1 / hospital.resolution:.3f}",
        "scanner": hospital.scanner,
        "severity": "" if patient.label == "healthy" else f"{burden} burden",
        "index_date": taken.isoformat(),
        "reference_date": answered.isoformat(),
        "eligible": "yes",
        "reference": diagnosis.reference,
    }


def _plant(files: list[_File]) -> list[_File]:
    """Plant what real folders hold, at the same places in every hospital.

    A truncated file; one picture filed under two patients of a class, once byte for byte and once
    encoded anew and brighter; a 16-bit and a grey picture (sound, both); a patient each without a
    reference standard, with an inconclusive one, and not eligible.
    """
    of_class = {label: _patients(files, label) for label in CLASSES}
    of_class["healthy"][0][1].truncated = True
    of_class["CML"][1][1].copy_of = of_class["CML"][0][0]
    near = of_class["ALL"][1][2]
    near.copy_of, near.gain = of_class["ALL"][0][1], 1.05
    deep = of_class["AML"][0][2]
    deep.deep, deep.suffix = True, ".png"
    of_class["AML"][1][0].grey = True
    for file in files:
        file.row["image"] = file.row["image"].removesuffix(".jpg") + file.suffix
    for file in of_class["ALL"][-1]:
        file.row |= {"label": "", "severity": "", "reference_date": "", "reference": "missing"}
    for file in of_class["AML"][-1]:
        file.row |= {"label": "", "severity": "", "reference": "inconclusive"}
    for file in of_class["CML"][-1]:
        file.row["eligible"] = "treated before sampling"
    return files


def _patients(files: list[_File], label: str) -> list[list[_File]]:
    """Return the files of each patient of a class, patients in the order of their ids."""
    of_patient: dict[str, list[_File]] = {}
    for file in files:
        if file.patient.label == label:
            of_patient.setdefault(file.row["patient_id"], []).append(file)
    return list(of_patient.values())


# --- who has read the smears -------------------------------------------------------------------------


def _read(hospital: Hospital, reader: str, files: list[_File]) -> pd.DataFrame:
    """Return what a painted haematologist said of each patient; every picture of one was painted for one diagnosis."""
    missed, unclear = READERS[reader]
    rows = []
    for patient_id, file in {file.row["patient_id"]: file for file in files}.items():
        rng = _generator(hospital.name, reader, patient_id)
        chance, others = rng.random(), [label for label in CLASSES if label != file.patient.label]
        said = str(rng.choice(others)) if chance < missed else file.patient.label
        no_answer = missed <= chance < missed + unclear
        rows.append(
            {
                "cohort": hospital.name,
                "patient_id": patient_id,
                "predicted": "" if no_answer else said,
                "status": "indeterminate" if no_answer else "ok",
                "reason": "cells too damaged to tell" if no_answer else "",
            }
        )
    return pd.DataFrame(rows)


# --- a picture's bytes -----------------------------------------------------------------------------


def _encoded(file: _File, hospital: Hospital) -> bytes:
    """Return the bytes of a file; a function of the file's plan and the hospital alone."""
    if file.copy_of is not None:
        original = _encoded(file.copy_of, hospital)
        return original if file.gain is None else _brightened(original, file.gain, hospital.quality - 6)
    picture = paint_field(hospital, file.patient, _generator(hospital.name, file.name))
    if file.deep:
        # A 12-bit camera's samples in 16: the low bits hold what 8 bits would round away.
        low = _generator(hospital.name, file.name, "low bits").integers(0, 16, picture.shape, np.uint16)
        return _compressed(".png", picture.astype(np.uint16) * 256 + low * 16)
    encoded = _compressed(".jpg", _grey(picture) if file.grey else picture, hospital.quality)
    return encoded[: len(encoded) * 3 // 5] if file.truncated else encoded


def _brightened(encoded: bytes, gain: float, quality: int) -> bytes:
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture is not None  # it was encoded a moment ago
    return _compressed(".jpg", cv2.convertScaleAbs(picture, alpha=gain), quality)


def _grey(picture: Picture) -> Picture:
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.uint8)


def _compressed(suffix: str, picture: NDArray, quality: int = 92) -> bytes:
    """Encode an RGB or grey picture; PNG takes no quality."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 6]
    turned = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    return cv2.imencode(suffix, turned, settings)[1].tobytes()


def _generator(*names: str) -> np.random.Generator:
    """Return a generator that depends on names only, so that no picture's chance hangs on another's."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
