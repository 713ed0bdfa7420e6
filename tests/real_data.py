"""Lay out the real smears of ../shared/data as a study of ours: a cohort table, manifests, images, weights.

    python tests/real_data.py wbc_sites --shared ../shared/data --out data/wbc_sites
    python tests/real_data.py malaria --shared ../shared/data --out data/malaria [--limit-per-class 40]

Images are copied byte for byte. The cohort table comes last: where it stands, the rest is whole.

wbc_sites
    Five types of white cell from three sources; no source names its patients.
malaria
    27,558 red cells of 200 patients; ``upstream_split`` says on which side of the published split a cell
    lies: ``train``, or ``test`` for the part that was distributed as "valid" and that published figures are of.
malaria_slides
    The same cells, a slide a patient: side by side in a picture, with a mask of where a cell lies; the label is the
    patient's. ``cells.csv`` keeps what each cell is, which no step reads.
bt5153_barcelona
    2,852 blood cells of Barcelona under the names of bt5153's 21 marrow types, of which they are 11; the label map makes
    five lineages of them. 28 cells without a type of their own (immature granulocytes, neutrophils) are left out.

Weights for the studies' SqueezeNet go to ``data/weights/`` beside them.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

from marrowflow.cli import progress  # noqa: E402
from marrowflow.files import write_table, written_whole  # noqa: E402

STUDIES = ("wbc_sites", "malaria", "malaria_slides", "bt5153_barcelona")
WHITE_CELLS = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")

# Barcelona's fine labels, as the marrow types of Matek 2021 are called; a platelet is a cell of none of the lineages.
MARROW_TYPES = {
    "BA": "BAS",
    "BNE": "NGB",
    "EO": "EOS",
    "ERB": "EBO",
    "LY": "LYT",
    "MMY": "MMZ",
    "MO": "MON",
    "MY": "MYB",
    "PLATELET": "OTH",
    "PMY": "PMO",
    "SNE": "NGS",
}

CELL = 50
"""Side of a malaria cell's picture, pixels."""
_WEIGHTS = "weights/squeezenet1_1_imagenet_from_openvino_fp16.pth"
_MALARIA = "malaria_nih50"


class Reader(Protocol):
    """Returns the bytes of a file named relative to its source's folder."""

    def __call__(self, name: str, /) -> bytes: ...


def missing(study: str, shared: Path) -> list[Path]:
    """Return what a study needs of ``shared`` and does not find there."""
    needed = {
        "wbc_sites": ["pbc/manifest.csv", "wbc_zheng/manifest.csv", _WEIGHTS],
        "malaria": [f"{_MALARIA}.tar", _WEIGHTS],
        "malaria_slides": [f"{_MALARIA}.tar", _WEIGHTS],
        "bt5153_barcelona": ["pbc/manifest.csv", _WEIGHTS],
    }[study]
    return [shared / name for name in needed if not (shared / name).is_file()]


def convert(study: str, shared: Path, out: Path, limit_per_class: int | None = None) -> Path:
    """Write ``out/<cohort>/{manifest.csv,images/}``, the weights, and last ``out/cohorts.tsv``.

    Parameters
    ----------
    study
        One of `STUDIES`.
    shared
        The folder that holds the real images.
    out
        Where the study goes. Under the project, its cohort table names manifests relative to the project.
    limit_per_class
        Take at most this many images of each class from each cohort, spread evenly over the upstream order
        (which is by patient where patients are known); of malaria_slides, this many patients. None takes all.

    Returns
    -------
    Path
        The cohort table.
    """
    lacking = missing(study, shared)
    if lacking:
        raise FileNotFoundError(f"not found: {', '.join(map(str, lacking))}")
    table = out / "cohorts.tsv"
    table.unlink(missing_ok=True)
    makers = {
        "wbc_sites": _white_cells,
        "malaria": _malaria,
        "malaria_slides": _malaria_slides,
        "bt5153_barcelona": _marrow_types,
    }
    cohorts = makers[study](shared, out, limit_per_class)
    _copy(shared / _WEIGHTS, out.parent / "weights" / "squeezenet1_1.pth")
    for cohort in cohorts:
        cohort["manifest"] = _named(out / cohort["cohort"] / "manifest.csv")
    columns = ["cohort", "role", "manifest", "hospital", "source"]
    with written_whole(table) as beside:
        pd.DataFrame(cohorts, columns=columns).to_csv(beside, sep="\t", index=False)
    return table


# --- the studies -------------------------------------------------------------------------------


def _white_cells(shared: Path, out: Path, limit: int | None) -> list[dict[str, str]]:
    sources = [
        ("barcelona", "development", "pbc", "barcelona_dm96", "CellaVision DM96",
         "Hospital Clínic de Barcelona", "clinical pathologists", "Acevedo 2020, doi:10.17632/snkd93bnjr.1, CC BY 4.0"),
        ("tecom", "external", "wbc_zheng", "tecom", "Motic Moticam Pro 252A on N800-D",
         "Jiangxi Tecom Science Corporation", "authors, not checked by an expert", "Zheng 2018, doi:10.1016/j.micron.2018.01.010"),
        ("cellavision", "external", "wbc_zheng", "cellavision_blog", "",
         "CellaVision blog", "authors, not checked by an expert", "Zheng 2018, doi:10.1016/j.micron.2018.01.010"),
    ]  # fmt: skip
    cohorts = []
    for cohort, role, folder, upstream, scanner, hospital, reference, source in sources:
        listed = pd.read_csv(shared / folder / "manifest.csv", dtype=str, keep_default_na=False)
        listed = listed[(listed["cohort"] == upstream) & listed["label"].isin(WHITE_CELLS)]
        listed = _spread(listed, limit)
        manifest = pd.DataFrame({"image": _flat(listed), "label": listed["label"]})
        manifest["scanner"] = scanner
        manifest["reference"] = reference
        manifest["source_path"] = listed["source_path"]
        _write_cohort(out / cohort, manifest, listed["image_path"], _from_folder(shared / folder))
        cohorts.append({"cohort": cohort, "role": role, "hospital": hospital, "source": source})
    return cohorts


def _malaria(shared: Path, out: Path, limit: int | None) -> list[dict[str, str]]:
    with _from_tar(shared / f"{_MALARIA}.tar", _MALARIA) as read:
        listed = pd.read_csv(io.BytesIO(read("manifest.csv")), dtype=str, keep_default_na=False)
        listed = _spread(listed, limit)
        manifest = pd.DataFrame({"image": _flat(listed), "patient_id": listed["patient_id"]})
        manifest["label"] = listed["label"].map({"Parasitized": "parasitised", "Uninfected": "uninfected"})
        manifest["slide_id"] = listed["slide_prefix"]
        manifest["magnification"] = "100x"
        manifest["scanner"] = "smartphone on a light microscope"
        manifest["reference"] = "expert slide reader"
        manifest["patient_status"] = listed["patient_label"]
        manifest["field_id"] = listed["field_id"]
        manifest["upstream_split"] = listed["upstream_split"].replace({"valid": "test"})
        _write_cohort(out / "nih", manifest, listed["image_path"], read)
    source = "Rajaraman 2018, doi:10.7717/peerj.4568, NLM public release, reduced to 50 px grey"
    hospital = "Chittagong Medical College Hospital"
    return [{"cohort": "nih", "role": "development", "hospital": hospital, "source": source}]


def _malaria_slides(shared: Path, out: Path, limit: int | None) -> list[dict[str, str]]:
    folder = out / "nih"
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    rows, cells = [], []
    with _from_tar(shared / f"{_MALARIA}.tar", _MALARIA) as read:
        listed = pd.read_csv(io.BytesIO(read("manifest.csv")), dtype=str, keep_default_na=False)
        patients = listed.drop_duplicates("patient_id")[["patient_id", "patient_label"]]
        patients = _spread(patients, limit, by="patient_label")
        groups = [(p, listed[listed["patient_id"] == p]) for p in patients["patient_id"]]
        for patient, own in progress(groups, "slides", unit="patients"):
            side = math.ceil(math.sqrt(len(own)))
            slide = np.zeros((side * CELL, side * CELL), np.uint8)
            mask = np.zeros_like(slide)
            for place, (name, label) in enumerate(zip(own["image_path"], own["label"], strict=True)):
                y, x = (CELL * i for i in divmod(place, side))
                picture = cv2.imdecode(np.frombuffer(read(name), np.uint8), cv2.IMREAD_GRAYSCALE)
                slide[y : y + CELL, x : x + CELL] = cv2.resize(picture, (CELL, CELL))
                mask[y : y + CELL, x : x + CELL] = 255
                cells.append(
                    {"image": f"slides/{patient}.png", "x": x, "y": y, "parasitised": label == "Parasitized"}
                )
            for file, picture in ((f"{patient}.png", slide), (f"{patient}_cells.png", mask)):
                if not cv2.imwrite(str(folder / "slides" / file), picture):
                    raise OSError(f"{folder / 'slides' / file} was not written")
            status = own["patient_label"].iloc[0]
            rows.append(
                {
                    "image": f"slides/{patient}.png",
                    "patient_id": patient,
                    "label": status.lower(),
                    # Nominal: a red cell of 7.5 µm fills about 45 of its 50 pixels.
                    "mpp": "0.1667",
                    "region": f"slides/{patient}_cells.png",
                    "reference": "expert slide reader",
                    "scanner": "smartphone on a light microscope",
                }
            )
    write_table(folder / "cells.csv", pd.DataFrame(cells))
    write_table(folder / "manifest.csv", pd.DataFrame(rows))
    source = "Rajaraman 2018, doi:10.7717/peerj.4568, NLM public release, reduced to 50 px grey"
    hospital = "Chittagong Medical College Hospital"
    return [{"cohort": "nih", "role": "development", "hospital": hospital, "source": source}]


def _marrow_types(shared: Path, out: Path, limit: int | None) -> list[dict[str, str]]:
    listed = pd.read_csv(shared / "pbc/manifest.csv", dtype=str, keep_default_na=False)
    listed["type"] = listed["fine_label"].map(MARROW_TYPES)
    listed = listed.dropna(subset=["type"])
    listed = _spread(listed, limit, by="type")
    manifest = pd.DataFrame({"image": _flat(listed), "label": listed["type"]})
    manifest["scanner"] = "CellaVision DM96"
    manifest["reference"] = "clinical pathologists"
    manifest["source_path"] = listed["source_path"]
    _write_cohort(out / "barcelona", manifest, listed["image_path"], _from_folder(shared / "pbc"))
    source = "Acevedo 2020, doi:10.17632/snkd93bnjr.1, CC BY 4.0"
    hospital = "Hospital Clínic de Barcelona"
    return [{"cohort": "barcelona", "role": "development", "hospital": hospital, "source": source}]


# --- rows and files --------------------------------------------------------------------------------


def _spread(listed: pd.DataFrame, limit: int | None, by: str = "label") -> pd.DataFrame:
    """Keep at most ``limit`` rows of each label (or type), evenly spaced in the order of the table."""
    if limit is None:
        return listed
    place = listed.groupby(by).cumcount()
    number = listed.groupby(by)[by].transform("size")
    # Row i of n is kept when i·limit/n passes a whole number: exactly min(limit, n) rows do.
    kept = (place + 1) * limit // number > place * limit // number
    return listed[kept | (number <= limit)]


def _flat(listed: pd.DataFrame) -> pd.Series:
    """Name each image ``images/<class folder>/<file>``, which is what every source has at the end of its path."""
    parts = listed["image_path"].str.rsplit("/", n=2)
    return "images/" + listed["label"].str.lower() + "/" + parts.str[-1]


def _write_cohort(folder: Path, manifest: pd.DataFrame, names: pd.Series, read: Reader) -> None:
    """Copy the images (``names`` at the source, ``manifest['image']`` here), then write the manifest."""
    pairs = list(zip(manifest["image"], names, strict=True))
    for parent in {(folder / image).parent for image, _ in pairs}:
        parent.mkdir(parents=True, exist_ok=True)
    for image, name in progress(pairs, folder.name, unit="images"):
        (folder / image).write_bytes(read(name))
    write_table(folder / "manifest.csv", manifest)


def _from_folder(folder: Path) -> Reader:
    return lambda name: (folder / name).read_bytes()


@contextmanager
def _from_tar(path: Path, folder: str) -> Iterator[Reader]:
    with tarfile.open(path) as archive:
        members = {member.name: member for member in archive}

        def read(name: str) -> bytes:
            stream = archive.extractfile(members[f"{folder}/{name}"])
            assert stream is not None, f"{name} in {path} is not a file"
            return stream.read()

        yield read


def _copy(source: Path, target: Path) -> None:
    with written_whole(target) as beside:
        shutil.copyfile(source, beside)


def _named(path: Path) -> str:
    """Return the path as the cohort table prints it: relative to the project when it lies inside."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def main(argv: list[str] | None = None) -> int:
    """Run the converter; return the exit status."""
    parser = argparse.ArgumentParser(description="Lay out the real smears as a study.")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared" / "data", help="the real images"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the study, such as data/malaria")
    parser.add_argument("--limit-per-class", type=int, help="at most this many images of a class and cohort")
    arguments = parser.parse_args(argv)
    try:
        print(convert(arguments.study, arguments.shared, arguments.out, arguments.limit_per_class))
    except FileNotFoundError as error:
        print(f"error: {error}; give the folder of the real images as --shared", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
