"""Intake from a manifest to an inventory, on images painted here and on real ones."""

import errno
import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from marrowflow.__main__ import main as marrowflow
from marrowflow.cohorts.intake import COLUMNS, Options, make_inventory
from marrowflow.cohorts.manifest import RESERVED
from marrowflow.config import Intake
from marrowflow.errors import UserError

PBC = Path(__file__).parents[4] / "shared" / "data" / "pbc"


def cell(seed: int, side: int = 80) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (side, side, 3))
    blurred = cv2.GaussianBlur(noise, (0, 0), side / 12)
    return np.clip(128 + 50 * blurred / blurred.std(), 0, 255).astype(np.uint8)


@pytest.fixture
def site(tmp_path):
    """Six rows: two good cells, a near copy, an ineligible one, a cut JPEG, a tiny one without reference."""
    cv2.imwrite(str(tmp_path / "a.png"), cell(0))
    cv2.imwrite(str(tmp_path / "b.jpg"), cell(1))
    cv2.imwrite(str(tmp_path / "a_copy.jpg"), cell(0), [cv2.IMWRITE_JPEG_QUALITY, 80])
    cv2.imwrite(str(tmp_path / "c.png"), cell(2)[..., 0])
    cv2.imwrite(str(tmp_path / "tiny.png"), cell(3, 20))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:-500])
    (tmp_path / "manifest.csv").write_text(
        "image,label,eligible,reference,stain\n"
        "a.png,AML,yes,,g\nb.jpg,ALL,,flow,g\na_copy.jpg,AML,,,g\n"
        "c.png,AML,under 18,,g\ncut.jpg,ALL,,,g\ntiny.png,,,missing,g\n"
    )
    return tmp_path


def take(site: Path, threads: int = 1, **intake) -> pd.DataFrame:
    options = Options(classes=["AML", "ALL"], intake=Intake(**intake))
    return make_inventory("site", site / "manifest.csv", options, threads=threads)


def test_the_inventory_row_by_row(site):
    table = take(site)
    assert table["case_id"].tolist() == [f"site/{image}" for image in table["image"]]
    assert table["reason"].tolist() == [
        "", "", "", "not eligible: under 18", "unreadable: truncated", "too small: a side under 32 px",
    ]  # fmt: skip
    assert (table["status"] == "included").tolist() == [True] * 3 + [False] * 3
    assert table["reference_status"].tolist() == ["ok"] * 5 + ["missing"]
    assert table["label"].tolist() == ["AML", "ALL", "AML", "AML", "ALL", ""]
    assert table["stain"].tolist() == ["g"] * 6
    assert table["width"].tolist() == [80, 80, 80, 80, 0, 20]
    assert table["channels"].tolist() == [3, 3, 3, 1, 0, 3]
    for row in table.itertuples():
        data = (site / row.image).read_bytes()
        assert (row.sha256, row.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    unreadable = table.iloc[4]
    assert unreadable["phash"] == "" and unreadable["thumb"] == b"" and np.isnan(unreadable["focus"])


def test_surrogate_patients_are_duplicate_clusters(site):
    table = take(site)
    first = hashlib.sha256((site / "a.png").read_bytes()).hexdigest()[:12]
    assert table["patient_id"][0] == table["patient_id"][2] == f"site/surrogate_{first}"
    assert table["patient_id"].nunique() == 5
    assert set(table["patient_source"]) == {"surrogate"}


def test_patients_of_the_manifest(site):
    path = site / "manifest.csv"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([lines[0] + ",patient_id", *(f"{line},P{i // 2}" for i, line in enumerate(lines[1:]))])
    )
    table = take(site)
    assert table["patient_id"].tolist() == [f"site/P{i // 2}" for i in range(6)]
    assert set(table["patient_source"]) == {"manifest"}


def test_columns_and_types(site):
    table = take(site)
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert {name: str(table[name].dtype) for name in COLUMNS} == COLUMNS
    assert {*COLUMNS, "unreadable"} - {"image", "patient_id", "label"} == set(RESERVED)


def test_stop_names_every_unreadable_file(site):
    with pytest.raises(UserError, match=r"1 of 6 images cannot be read.*\n.*cut.jpg: truncated"):
        take(site, on_unreadable="stop")


def test_stop_does_not_mind_ineligible_files(site):
    (site / "cut.jpg").write_bytes((site / "b.jpg").read_bytes())
    (site / "c.png").write_bytes(b"")
    assert take(site, on_unreadable="stop")["reason"][3] == "not eligible: under 18"


def test_nothing_left_is_an_error(site):
    with pytest.raises(UserError, match="no image is left"):
        take(site, min_side=500)


def refuse_images(monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    """Let the system refuse every image, but not the manifest, with an error number."""
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.suffix == ".csv":
            return real(path)
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(Path, "read_bytes", read)


def test_a_file_that_cannot_be_opened_is_unreadable(site, monkeypatch):
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == "b.jpg":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    row = take(site).iloc[1]
    assert row["reason"] == "unreadable: cannot be opened (Permission denied)"
    assert row["sha256"] == ""
    assert row["patient_id"] == f"site/surrogate_{hashlib.sha256(b'site/b.jpg').hexdigest()[:12]}"


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP])
def test_a_cohort_of_which_no_file_can_be_opened_stops(site, monkeypatch, reason):
    refuse_images(monkeypatch, reason)
    with pytest.raises(UserError, match=rf"no image is left.*\n.*cannot be opened \({os.strerror(reason)}\)"):
        take(site, on_unreadable="exclude")


@pytest.mark.parametrize(
    "reason",
    [errno.ENOENT, errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EMFILE, errno.ENOMEM],
)
def test_images_that_vanish_meanwhile_are_no_exclusions(site, monkeypatch, reason):
    """Of a disk that was taken away nothing can be read: the study would go on with fewer patients."""
    refuse_images(monkeypatch, reason)
    with pytest.raises(UserError, match=r"a\.png cannot be read any more .*Bring it back") as error:
        take(site, on_unreadable="exclude")
    assert "eligible" not in str(error.value)  # images of rows that are not are read too


def test_threads_change_no_byte_and_log_tells_the_counts(tmp_path, capsys, caplog):
    rows = ["image,label"]
    for number in range(100):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), cell(number, 40))
        rows.append(f"{number}.jpg,AML")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    written = []
    with caplog.at_level("INFO"):
        for threads in ("1", "4"):
            out = tmp_path / threads / "inventory.parquet"
            status = marrowflow(
                [
                    "cohorts.intake", "--options", json.dumps({"classes": ["AML", "ALL"]}), "--cohort", "site",
                    "--manifest", str(tmp_path / "manifest.csv"), "--out", str(out), "--threads", threads,
                ]
            )  # fmt: skip
            assert status == 0
            written.append(out.read_bytes())
    assert written[0] == written[1]
    assert pd.read_parquet(tmp_path / "1" / "inventory.parquet")["image"].tolist() == [
        f"{i}.jpg" for i in range(100)
    ]
    assert "site: 100 images, 100 included, 0 excluded" in caplog.text
    assert "no column patient_id" in caplog.text
    assert "100/100 images" in capsys.readouterr().out


def test_metadata_does_not_travel(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x010F], exif[0xA431], exif[0x0112] = "Secret Maker", "SERIAL-123", 6
    Image.fromarray(cell(0)[:60]).save(tmp_path / "a.jpg", exif=exif, comment=b"Jane Doe")
    (tmp_path / "manifest.csv").write_text("image,label\na.jpg,AML\n")
    table = take(tmp_path)
    text = table.drop(columns="thumb").to_json()
    assert (table["width"][0], table["height"][0], table["orientation"][0]) == (60, 80, 6)
    assert not any(secret in text for secret in ("Secret", "SERIAL", "Jane"))


@pytest.mark.real
def test_real_cells_are_read_and_kept_apart(tmp_path):
    if not PBC.is_dir():
        pytest.skip(f"{PBC} is missing")
    listed = pd.read_csv(PBC / "manifest.csv")
    listed = listed[listed["label"].isin(["basophil", "monocyte"])]
    listed = listed.groupby("label").head(60)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(listed["image_path"]):
        (tmp_path / "images" / f"{number}.jpg").write_bytes((PBC / image).read_bytes())
    manifest = pd.DataFrame(
        {"image": [f"images/{i}.jpg" for i in range(len(listed))], "label": listed["label"]}
    )
    manifest.to_csv(tmp_path / "manifest.csv", index=False)
    table = make_inventory("pbc", tmp_path / "manifest.csv", Options(classes=["basophil", "monocyte"]))
    assert (table["status"] == "included").all()
    assert table["width"].tolist() == listed["width"].tolist()
    assert table["height"].tolist() == listed["height"].tolist()
    assert table["patient_id"].nunique() == table["sha256"].nunique()
