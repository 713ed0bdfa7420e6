"""The steps of a study of slides, one after the other on painted ones: what they write, refuse, keep and do not do twice."""

import errno
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from little_slides import write, write_cohort

from marrowflow.cohorts.intake import Options as IntakeOptions
from marrowflow.cohorts.intake import make_inventory
from marrowflow.embedding_file import write_embedding
from marrowflow.errors import UserError
from marrowflow.slides import extract as extraction
from marrowflow.slides import intake, place, survey
from marrowflow.slides.bags import ABOUT, Bags
from marrowflow.slides.extract import extract, seer
from marrowflow.slides.intake import take_slides
from marrowflow.slides.regions import read_region
from marrowflow.study_slides import Extractor, Tiling, Tissue

CLASSES = ["a", "b"]
TILING = Tiling(magnification=40, size=128)
EXTRACTOR = Extractor(network="resnet18", weights="none", stage=1, batch_size=4)


def inventory_of(manifest, **settings):
    options = IntakeOptions(classes=CLASSES, intake=settings)
    return make_inventory("h", manifest, options, take=take_slides)


def placed_of(folder: Path, inventory: pd.DataFrame, images: Path, within: bool = False):
    surveyed = survey.survey(survey.Options(tissue=Tissue()), inventory, images, True, 2, folder / "pictures")
    surveyed.to_csv(folder / "tissue.csv", index=False)
    again = pd.read_csv(folder / "tissue.csv")
    return place.place(
        place.Options(tiling=TILING),
        inventory,
        images,
        again,
        folder / "pictures",
        within,
        folder / "overviews",
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three slides through intake, survey and placing."""
    folder = tmp_path_factory.mktemp("study")
    manifest = write_cohort(folder / "images", ["a", "b", "a"])
    inventory = inventory_of(manifest)
    slides, tiles = placed_of(folder, inventory, folder / "images")
    return folder, inventory, slides, tiles


def seen(study, features, state, batch=4):
    folder, inventory, slides, tiles = study
    options = extraction.Options(extractor=EXTRACTOR.model_copy(update={"batch_size": batch}), tiling=TILING)
    sees = seer(options.extractor, TILING.size, features, state, 2)
    return extract(options, inventory, folder / "images", slides, tiles, sees)


def test_the_inventory_is_that_of_images(study):
    _, inventory, _, _ = study
    assert inventory["status"].tolist() == ["included"] * 3
    assert inventory[["width", "height", "frames"]].to_numpy().tolist() == [[2048, 1536, 3]] * 3
    assert inventory["mpp"].tolist() == pytest.approx([0.25] * 3)
    assert inventory["format"].tolist() == ["generic-tiff"] * 3
    assert inventory["sha256"].nunique() == 3


def test_tiles_lie_where_tissue_was_painted(study):
    """Tissue 1,024 x 768 pixels from (256 + 128 i, 384), tiles of 128."""
    _, _, slides, tiles = study
    assert slides["tiles"].tolist() == [8 * 6] * 3
    for number, (_, own) in enumerate(tiles.groupby("case_id", sort=True)):
        assert own["x"].min() == 256 + 128 * number
        assert own["y"].agg(["min", "max"]).tolist() == [384, 1024]


def test_a_slide_whose_pixels_have_no_size_stops_the_intake_by_name(tmp_path):
    manifest = write_cohort(tmp_path, ["a", "b"])
    write(tmp_path / "s1.tif", mpp=None)
    with pytest.raises(UserError, match=r"s1\.tif: the file does not say .*column 'mpp'"):
        inventory_of(manifest)
    table = pd.read_csv(manifest).assign(mpp=["", "0.3"])
    table.to_csv(manifest, index=False)
    assert inventory_of(manifest)["mpp"].tolist() == pytest.approx([0.25, 0.3])
    pd.read_csv(manifest).assign(mpp=[0.5, 0.3]).to_csv(manifest, index=False)
    with pytest.raises(UserError, match=r"s0\.tif: the file says 0.25 µm a pixel, column 'mpp' 0.5"):
        inventory_of(manifest)


def test_damaged_slides_are_exclusions_with_a_reason(tmp_path):
    manifest = write_cohort(tmp_path, ["a", "b"])
    whole = (tmp_path / "s1.tif").read_bytes()
    (tmp_path / "s1.tif").write_bytes(whole[:2000])
    inventory = inventory_of(manifest)
    assert inventory["status"].tolist() == ["included", "excluded"]
    assert inventory["reason"].iloc[1].startswith("unreadable: ")
    with pytest.raises(UserError, match=r"s1\.tif"):
        inventory_of(manifest, on_unreadable="stop")


def test_a_slide_without_tissue_has_no_tile_and_a_reason(tmp_path):
    manifest = write_cohort(tmp_path / "images", ["a", "b"])
    write(tmp_path / "images/s1.tif", tissue=(0, 0, 1, 1))
    inventory = inventory_of(manifest)
    slides, _ = placed_of(tmp_path, inventory, tmp_path / "images")
    assert slides["tiles"].tolist() == [48, 0]
    assert slides["reason"].tolist() == ["", "no tissue"]


def test_regions_are_read_and_refused(tmp_path):
    import cv2

    manifest = write_cohort(tmp_path / "images", ["a", "b"], region=["r0.png", "r1.geojson"])
    drawn = np.zeros((192, 256), np.uint8)
    drawn[:, :64] = 255  # the left quarter: 512 pixels of the slide
    cv2.imwrite(str(tmp_path / "images/r0.png"), drawn)
    ring = [[0, 0], [512, 0], [512, 1536], [0, 1536], [0, 0]]
    (tmp_path / "images/r1.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": '
        f'{{"type": "Polygon", "coordinates": [{ring}]}}}}]}}'
    )
    inventory = inventory_of(manifest)
    slides, tiles = placed_of(tmp_path, inventory, tmp_path / "images")
    # Tiles begin at 256 and at 384: two columns of six rows lie within, and one.
    assert slides["in_region"].tolist() == [12, 6]
    assert (tiles["region"] >= 0.5).sum() == 18
    # Where only regions count, a slide whose region shows no tissue has no tile, and says that it is not the slide's fault.
    cv2.imwrite(
        str(tmp_path / "images/r0.png"), np.where(np.arange(256) < 16, 255, 0 * drawn).astype(np.uint8)
    )
    slides, tiles = placed_of(tmp_path, inventory, tmp_path / "images", within=True)
    assert slides["tiles"].tolist() == [0, 6]
    assert slides["reason"].tolist() == ["no tissue within its region", ""]
    assert len(tiles) == 6
    cv2.imwrite(str(tmp_path / "images/r0.png"), drawn[:, :128])
    with pytest.raises(UserError, match="in its own proportions"):
        placed_of(tmp_path, inventory, tmp_path / "images")
    (tmp_path / "images/r0.png").unlink()
    with pytest.raises(UserError, match=r"column 'region': 'r0\.png' does not exist"):
        inventory_of(manifest)


def test_features_are_the_networks_own(study, tmp_path):
    """Against timm's own forward pass on a tile read by hand."""
    import timm
    import torch

    folder, _, slides, tiles = study
    bags = seen(study, tmp_path / "f", tmp_path / "s")
    table = tmp_path / "bags.parquet"
    bags.to_parquet(table)
    bag = Bags([table], tmp_path / "f").of(slides["case_id"].iloc[0])
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=1).eval()
    own = tiles[tiles["case_id"] == bag.case_id]
    from marrowflow.slides.slide import Slide

    with Slide(folder / "images/s0.tif") as slide:
        pixels = np.stack([slide.read(x, y, 128, 128) for x, y in own[["x", "y"]].to_numpy()[:4]])
    mean, std = (np.array(network.pretrained_cfg[name], np.float32) for name in ("mean", "std"))
    inputs = torch.from_numpy((pixels / 255 - mean) / std).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        stem = network.maxpool(network.act1(network.bn1(network.conv1(inputs))))
        expected = network.layer1(stem).mean(dim=(2, 3))
    assert len(bag) == slides["tiles"].iloc[0]
    np.testing.assert_allclose(bag.features[:4].astype(np.float32), expected, atol=2e-3)


def test_no_tile_is_seen_twice(study, tmp_path, monkeypatch):
    first = seen(study, tmp_path / "f", tmp_path / "s")
    monkeypatch.setattr(extraction, "_shard", lambda *_: pytest.fail("a tile was seen again"))
    again = seen(study, tmp_path / "f", tmp_path / "s")
    pd.testing.assert_frame_equal(first, again)


def test_another_network_tiling_or_batch_is_another_entry(study, tmp_path):
    first = seen(study, tmp_path / "f", tmp_path / "s")
    other = seen(study, tmp_path / "f", tmp_path / "s", batch=8)
    assert set(first["entry"]).isdisjoint(other["entry"])


def test_a_region_drawn_anew_is_trained_on_and_no_tile_is_seen_again(study, tmp_path, monkeypatch):
    """Tiles of the first slide begin at 256 and lie 128 apart; the region moves from their left half to their right one."""
    folder, inventory, slides, tiles = study
    tables, first = [], tiles["case_id"] == slides["case_id"].iloc[0]
    for left, right in ((0, 768), (768, 2048)):
        drawn = tiles.copy()
        drawn.loc[first, "region"] = tiles.loc[first, "x"].between(left, right - 1).astype("float32")
        bags = seen((folder, inventory, slides, drawn), tmp_path / "f", tmp_path / "s")
        bags.to_parquet(tmp_path / "bags.parquet")
        tables.append(Bags([tmp_path / "bags.parquet"], tmp_path / "f"))
        monkeypatch.setattr(extraction, "_shard", lambda *_: pytest.fail("a tile was seen again"))
    case, other = slides["case_id"].iloc[:2]
    x = tables[0].of(case).tiles["x"].to_numpy()
    assert (x[tables[0].within_region(case)] < 768).all()
    assert (x[tables[1].within_region(case)] >= 768).all()
    assert sum(len(table.within_region(case)) for table in tables) == len(x) == 48
    assert len(tables[0].within_region(other)) == 48  # it has no region
    assert tables[0].digest != tables[1].digest


def test_a_slide_replaced_after_its_intake_stops_the_step_that_reads_it(tmp_path):
    manifest = write_cohort(tmp_path / "images", ["a", "b"])
    inventory = inventory_of(manifest)
    slides, tiles = placed_of(tmp_path, inventory, tmp_path / "images")
    study = tmp_path, inventory, slides, tiles
    path = tmp_path / "images/s1.tif"
    whole = path.read_bytes()
    # As large, and another: its pixels are read by nobody who would notice.
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"s1\.tif has changed since its intake; .*--forcerun ingest_slides"):
        seen(study, tmp_path / "f", tmp_path / "s")
    assert len(list((tmp_path / "f").rglob(ABOUT))) == 1  # the first slide's
    path.write_bytes(whole + b" ")
    for step in (
        lambda: placed_of(tmp_path, inventory, tmp_path / "images"),
        lambda: seen(study, tmp_path / "f", tmp_path / "s"),
    ):
        with pytest.raises(
            UserError, match=rf"s1\.tif has changed since its intake: {len(whole) + 1:,} bytes, not"
        ):
            step()
    path.unlink()
    with pytest.raises(UserError, match=r"s1\.tif was readable at its intake and is not now"):
        placed_of(tmp_path, inventory, tmp_path / "images")


@pytest.mark.parametrize(
    ("number", "excludes"), [(errno.EACCES, True), (errno.EIO, False), (errno.ESTALE, False)]
)
def test_a_disks_fault_stops_the_intake_and_is_no_exclusion(tmp_path, monkeypatch, number, excludes):
    manifest = write_cohort(tmp_path, ["a", "b"])
    real = intake.checksum_of

    def fails(path):
        if path.name == "s1.tif":
            raise OSError(number, "told by the test")
        return real(path)

    monkeypatch.setattr(intake, "checksum_of", fails)
    if excludes:
        assert inventory_of(manifest)["reason"].tolist() == [
            "",
            "unreadable: cannot be opened (told by the test)",
        ]
    else:
        with pytest.raises(UserError, match=r"slide .*s1\.tif cannot be read any more \(told by the test\)"):
            inventory_of(manifest)


def test_polygons_are_counted_from_where_the_scanner_says_that_it_scanned(tmp_path):
    """QuPath crops a slide to those bounds: (0, 0) of its export is their corner."""
    ring = [[0, 0], [512, 0], [512, 256], [0, 256], [0, 0]]
    file = tmp_path / "r.geojson"
    file.write_text(f'{{"type": "Polygon", "coordinates": [{ring}]}}')
    slide = SimpleNamespace(path=tmp_path / "s.mrxs", width=2048, height=1536, scanned_from=(1024, 768))
    drawn = read_region(file, slide, (96, 128), 16).inside
    rows, columns = np.nonzero(drawn)
    # Polygons' borders are drawn too: a sixteenth of the slide's pixels, and one more.
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (64, 96, 48, 64)


def test_a_hospital_without_any_tile_has_an_embedding_without_rows(tmp_path):
    """And the shift of its features says that there are none, in place of an error."""
    write_embedding(tmp_path / "embedding.parquet", [], np.zeros(0, bool), iter(()))
    table = pd.read_parquet(tmp_path / "embedding.parquet")
    assert table.columns.tolist() == ["case_id", "trained_on"]
    assert table.empty


def test_a_job_goes_on_from_its_last_shard_and_the_features_are_the_same(study, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "SHARD", 3)
    whole = seen(study, tmp_path / "f", tmp_path / "s")
    real, done = extraction._shard, []

    def breaks(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(extraction, "_shard", breaks)
    with pytest.raises(KeyboardInterrupt):
        seen(study, tmp_path / "g", tmp_path / "t")
    assert not list((tmp_path / "g").rglob(ABOUT))
    again = []
    monkeypatch.setattr(extraction, "_shard", lambda *a: again.append(a) or real(*a))
    resumed = seen(study, tmp_path / "g", tmp_path / "t")
    # 48 tiles a slide in shards of 12, of which two were done.
    assert len(again) == 4 + 4 + 4 - 2
    pd.testing.assert_frame_equal(whole, resumed)
    assert not (tmp_path / "t").exists()


def test_features_that_are_gone_or_others_are_told(study, tmp_path):
    bags = seen(study, tmp_path / "f", tmp_path / "s")
    table = tmp_path / "bags.parquet"
    bags.to_parquet(table)
    entry = tmp_path / "f" / bags["entry"].iloc[1]
    about = (entry / ABOUT).read_text()
    (entry / ABOUT).write_text(about.replace(bags["features_sha256"].iloc[1], "0" * 64))
    with pytest.raises(UserError, match="was made anew, and otherwise"):
        Bags([table], tmp_path / "f")
    (entry / ABOUT).unlink()
    with pytest.raises(UserError, match="is not there, or not whole"):
        Bags([table], tmp_path / "f")
