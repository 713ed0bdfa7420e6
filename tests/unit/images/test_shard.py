"""Archives corrected one by one: the store that they make together is that of the folder, byte for byte."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from marrowflow.__main__ import main as marrowflow
from marrowflow.cohorts.measured import measure_archive
from marrowflow.cohorts.shards import pack_shards
from marrowflow.config import ColourRecipe, Images
from marrowflow.errors import UserError
from marrowflow.images.correct import Options, correct_cohort, gather_parts, pack_archive
from marrowflow.images.store import open_store

OPTIONS = Options(images=Images(size=24), recipe=ColourRecipe(method="reflection_median"))
FILES = {"pixels.npy", "index.parquet", "store.json", "appearance.parquet"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Seven images in a folder, of which one is black, one cannot be read and one is a copy."""
    folder = tmp_path / "site"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        image = cv2.resize(rng.integers(40, 230, (5, 5, 3), dtype=np.uint8), (50, 40))
        cv2.imwrite(str(folder / f"{i}.png"), image * (i != 3))
    (folder / "5.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "6.png").write_bytes(b"nothing")
    (folder / "manifest.csv").write_text("image,label\n" + "".join(f"{i}.png,x\n" for i in range(7)))
    return folder


@pytest.fixture
def packed(site: Path, tmp_path: Path):
    """Return the archives' folder, their tables, and the inventory that these make: its fifth image is excluded."""
    names = pack_shards(site / "manifest.csv", tmp_path / "packed", 3)
    tables = {name: measure_archive(tmp_path / "packed" / name, site / "manifest.csv") for name in names}
    inventory = pd.concat(tables.values(), ignore_index=True)
    inventory["case_id"] = "h/" + inventory["image"]
    inventory["status"] = ["included"] * 4 + ["excluded", "included", "excluded"]
    return tmp_path / "packed", tables, inventory


def pack_all(packed, out, options=OPTIONS, threads=1):
    folder, tables, _ = packed
    for name, table in tables.items():
        pack_archive(table, folder / name, out / name, options, threads)
    return [out / name for name in tables]


@pytest.mark.parametrize("method", ["none", "reflection_median"])
def test_the_store_is_that_of_the_folder(packed, site, tmp_path, method):
    options = Options(images=Images(size=24), recipe=ColourRecipe(method=method))
    inventory = packed[2]
    # The inventory's order counts, not the archives'.
    for turned in (inventory, inventory.iloc[::-1]):
        correct_cohort(turned, site, tmp_path / "folder", options)
        gather_parts(
            turned, pack_all(packed, tmp_path / "parts", options, threads=3), tmp_path / "store", options
        )
        assert {path.name for path in (tmp_path / "store").iterdir()} == FILES
        for name in FILES:
            assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "folder" / name).read_bytes(), name
    # The black one among them bears the correction's flag.
    assert (open_store(tmp_path / "store").index["flag"] != "").any() == (method != "none")


def test_parts_hold_every_image_once_whether_it_is_included_or_not(packed, tmp_path):
    parts = pack_all(packed, tmp_path / "parts")
    assert [len(open_store(part).index) for part in parts] == [3, 3, 0]


def test_by_the_commands_of_the_rules(packed, site, tmp_path):
    folder, tables, inventory = packed
    options = OPTIONS.model_dump_json()
    inventory.to_parquet(tmp_path / "inventory.parquet")
    stores = []
    for name, table in tables.items():
        table.to_parquet(tmp_path / "m.parquet")
        out = tmp_path / "parts" / name
        words = [
            "--measured",
            str(tmp_path / "m.parquet"),
            "--archive",
            str(folder / name),
            "--out",
            str(out),
        ]
        assert marrowflow(["images.shard", "--options", options, *words]) == 0
        stores.append(str(out / "store.json"))
    words = ["images.correct", "--options", options, "--inventory", str(tmp_path / "inventory.parquet")]
    assert marrowflow([*words, "--parts", *stores, "--out", str(tmp_path / "a")]) == 0
    assert marrowflow([*words, "--images", str(site), "--out", str(tmp_path / "b")]) == 0
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def rewrite(archive: Path, change) -> None:
    with tarfile.open(archive) as tar:
        content = {info.name: tar.extractfile(info).read() for info in tar}
    with tarfile.open(archive, "w") as tar:
        for name, data in change(content).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_an_archive_that_changed_since_it_was_measured(packed, tmp_path):
    folder, tables, _ = packed
    rewrite(folder / "manifest_0.tar", lambda content: {**content, "1.png": content["0.png"]})
    with pytest.raises(
        UserError, match=r"1\.png of .*manifest_0\.tar has changed .*--forcerun measure_shard"
    ):
        pack_archive(tables["manifest_0.tar"], folder / "manifest_0.tar", tmp_path / "part", OPTIONS)
    rewrite(folder / "manifest_0.tar", lambda content: {"0.png": content["0.png"]})
    with pytest.raises(UserError, match=r"manifest_0\.tar has changed since it was measured.*\n.*1\.png"):
        pack_archive(tables["manifest_0.tar"], folder / "manifest_0.tar", tmp_path / "part", OPTIONS)
    assert not (tmp_path / "part" / "store.json").exists()


def test_parts_that_lack_an_image_or_were_made_otherwise(packed, tmp_path):
    parts, inventory = pack_all(packed, tmp_path / "parts"), packed[2]
    with pytest.raises(UserError, match=r"1 images are not what was measured .*\n.*3\.png"):
        gather_parts(inventory, parts[:1], tmp_path / "store", OPTIONS)
    other = Options(images=Images(size=24), recipe=ColourRecipe(method="none"))
    with pytest.raises(UserError, match="made with other options"):
        gather_parts(inventory, parts, tmp_path / "store", other)
    (parts[0] / "pixels.npy").write_bytes((parts[1] / "pixels.npy").read_bytes())
    with pytest.raises(UserError, match=r"manifest_0\.tar: sha256 is"):
        gather_parts(inventory, parts, tmp_path / "store", OPTIONS)
    with pytest.raises(UserError, match="none of the 7 images is included"):
        gather_parts(inventory.assign(status="excluded"), parts, tmp_path / "store", OPTIONS)
    assert not (tmp_path / "store" / "store.json").exists()
