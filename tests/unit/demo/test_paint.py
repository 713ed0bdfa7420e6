"""What a painted hospital promises: the same bytes, sound counts, and the troubles it says it holds."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from marrowflow.demo import paint
from marrowflow.demo.hospitals import CLASSES, DIAGNOSES, HOSPITALS, KINDS
from marrowflow.errors import UserError

# Three patients a class are the fewest that hold every planted trouble in a patient of its own.
SMALL = replace(HOSPITALS["alpha"], patients=3, images=3)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("painted") / "alpha"
    paint.paint_hospital(SMALL, out)
    return out


@pytest.fixture(scope="module")
def manifest(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)


def test_the_same_bytes_on_any_number_of_threads(folder, tmp_path):
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1 if threads > 1 else 4)
        paint.paint_hospital(SMALL, tmp_path / "again")
    finally:
        cv2.setNumThreads(threads)
    assert _digests(tmp_path / "again") == _digests(folder)


def test_every_picture_of_the_manifest_is_there_and_no_other(folder, manifest):
    assert len(manifest) == 4 * 3 * 3
    assert set(manifest["image"]) == {f"images/{path.name}" for path in (folder / "images").iterdir()}
    assert manifest.groupby("patient_id").size().eq(3).all()


def test_patients_without_a_reference_and_not_eligible(manifest):
    patients = manifest.drop_duplicates("patient_id")
    assert (patients["reference"] == "missing").sum() == 1
    assert (patients["reference"] == "inconclusive").sum() == 1
    assert patients["eligible"].value_counts().to_dict() == {"yes": 11, "treated before sampling": 1}
    unknown = manifest["reference"].isin(["missing", "inconclusive"])
    assert ((manifest["label"] == "") == unknown).all()
    # The three stand in three classes, none in the healthy one.
    assert patients["label"].value_counts().to_dict() == {"": 2, "healthy": 3, "AML": 2, "ALL": 2, "CML": 3}


def test_ids_do_not_give_the_class_away(manifest):
    labels = manifest.drop_duplicates("patient_id").sort_values("patient_id")["label"]
    assert (labels != labels.shift()).sum() > len(CLASSES) + 1


def _pictures(folder: Path, manifest: pd.DataFrame) -> dict[str, Image.Image]:
    """Decode with Pillow, which (unlike OpenCV) refuses truncated files."""
    found = {}
    for name in manifest["image"]:
        picture = Image.open(io.BytesIO((folder / name).read_bytes()))
        try:
            picture.load()
        except OSError:
            continue
        found[name] = picture
    return found


def test_planted_files_are_as_another_decoder_sees_them(folder, manifest):
    pictures = _pictures(folder, manifest)
    assert len(manifest) - len(pictures) == 1
    assert [p.mode for n, p in pictures.items() if n.endswith(".jpg")].count("L") == 1
    assert all(p.size == (240, 200) for p in pictures.values())
    (deep,) = [n for n in manifest["image"] if n.endswith(".png")]
    # Pillow reads 16-bit colour as 8-bit; the header's bit depth is the 25th byte of a PNG (ISO 15948, 11.2.1).
    assert (folder / deep).read_bytes()[24] == 16
    samples = cv2.imread(str(folder / deep), cv2.IMREAD_UNCHANGED)
    assert samples.dtype == np.uint16
    assert len(np.unique(samples)) > 256


def test_one_picture_is_filed_twice_byte_for_byte_and_one_nearly(folder, manifest):
    of = manifest.set_index("image")
    digests = pd.Series({n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in of.index})
    twins = digests[digests.duplicated(keep=False)].index
    assert len(twins) == 2
    assert of.loc[twins, "patient_id"].nunique() == 2
    assert of.loc[twins, "label"].tolist() == ["CML", "CML"]

    small = {
        name: np.asarray(picture.convert("L").resize((24, 20), Image.Resampling.BOX), float).ravel()
        for name, picture in _pictures(folder, manifest).items()
        if name != twins[1]
    }
    names = list(small)
    alike = np.corrcoef(np.stack([small[name] for name in names])) - np.eye(len(names))
    first, second = sorted(np.argwhere(alike > 0.99)[0])
    assert (alike > 0.99).sum() == 2
    first, second = names[first], names[second]
    assert of.loc[first, "patient_id"] != of.loc[second, "patient_id"]
    assert abs(small[first].mean() - small[second].mean()) > 2


def test_no_manifest_stands_beside_half_a_folder(folder, tmp_path, monkeypatch):
    out = tmp_path / "cut"
    paint.paint_hospital(SMALL, out)

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(paint, "_encoded", cut)
    with pytest.raises(KeyboardInterrupt):
        paint.paint_hospital(SMALL, out)
    assert not (out / "manifest.csv").exists()


def test_options_are_refused_because_there_are_none(tmp_path):
    with pytest.raises(UserError, match="patients"):
        paint.main(["--hospital", "beta", "--out", str(tmp_path), "--options", '{"patients": 3}'])


def test_recipes_refer_to_what_exists():
    assert set(DIAGNOSES) == set(CLASSES)
    for diagnosis in DIAGNOSES.values():
        assert set(diagnosis.others) <= set(KINDS)
        assert diagnosis.blast is None or diagnosis.blast in KINDS
    # Marker cells that the haematology of the four diagnoses rests on.
    assert "lymphoblast" not in DIAGNOSES["AML"].others
    assert {"myelocyte", "basophil"} <= set(DIAGNOSES["CML"].others)
