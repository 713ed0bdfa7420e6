"""Maps of attention on painted slides: which tiles they show, and what they are compared with."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from little_slides import GLASS, PINK
from mapped import CLASSES, aggregator, map_of
from painted_slides import write_pyramid
from scipy.stats import rankdata, spearmanr

from marrowflow.cohorts.intake import Options as IntakeOptions
from marrowflow.cohorts.intake import make_inventory
from marrowflow.slides import place, survey
from marrowflow.slides.explain import CONTROLS
from marrowflow.slides.extract import seer
from marrowflow.slides.intake import take_slides
from marrowflow.slides.slide import Slide
from marrowflow.study_slides import Extractor, Tiling, Tissue
from marrowflow.viewer import build as viewer

TILING = Tiling(magnification=40, size=64)
EXTRACTOR = Extractor(network="resnet18", weights="none", stage=1, batch_size=32)
FEATURES = 64


def surveyed(folder, picture, region=None):
    """Write one slide of .25 µm, and take it through intake and survey."""
    (folder / "images").mkdir()
    write_pyramid(folder / "images/s.tif", picture, 0.25)
    row = {"image": "s.tif", "patient_id": "P", "label": "a"}
    if region is not None:
        ring = [list(corner) for corner in region]
        (folder / "images/r.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
        row["region"] = "r.geojson"
    pd.DataFrame([row]).to_csv(folder / "images/manifest.csv", index=False)
    options = IntakeOptions(classes=CLASSES)
    inventory = make_inventory("h", folder / "images/manifest.csv", options, take=take_slides)
    tissue = Tissue(min_object=50)
    table = survey.survey(
        survey.Options(tissue=tissue), inventory, folder / "images", True, 1, folder / "pictures"
    )
    table.to_csv(folder / "tissue.csv", index=False)
    return inventory


def painted(left, top, right, bottom, width=1024, height=768):
    """Glass with noise of tissue's colour on a part of it."""
    slide = np.empty((height, width, 3), np.uint8)
    slide[:] = GLASS
    part = slide[top:bottom, left:right]
    part[:] = PINK
    part -= np.random.default_rng(0).integers(0, 90, part.shape[:2], dtype=np.uint8)[..., None]
    return slide


def mapped(folder, inventory, tiling=TILING, within=False):
    sees = seer(EXTRACTOR, tiling.size, folder / "features", folder / "state", 1)
    network = aggregator(FEATURES)
    return network, map_of(
        folder, inventory, "h/s.tif", tiling, EXTRACTOR, sees, network, folder / "out", within
    )


def entry_of(folder, tiles):
    (found,) = (
        path.parent
        for path in (folder / "features").rglob("features.npy")
        if len(np.load(path, mmap_mode="r")) == tiles
    )
    return torch.from_numpy(np.load(found / "features.npy")).float(), pd.read_parquet(found / "tiles.parquet")


def attention(network, features):
    with torch.no_grad():
        return network(features).attention[0].double().numpy()


def test_the_control_is_compared_tile_by_tile(tmp_path):
    """Pictures agree wherever there is no tissue: tissue on a seventh of the slide must not make all maps alike."""
    inventory = surveyed(tmp_path, painted(256, 256, 576, 576))
    network, row = mapped(tmp_path, inventory)
    features, _ = entry_of(tmp_path, row["tiles"])
    ours = attention(network, features)
    controls = []
    for seed in range(CONTROLS):
        values = attention(aggregator(FEATURES, seed), features)
        controls.append((values - values.min()) / (values.max() - values.min()))
    expected = spearmanr(rankdata(ours), rankdata(np.mean(controls, axis=0))).statistic
    assert row["correlation"] == pytest.approx(expected, abs=1e-5)


def test_a_map_shows_the_tiles_that_the_answer_came_from(tmp_path):
    """Tissue 512 x 512; where networks answer from its left half alone, so does the map."""
    corners = [(0, 0), (511, 0), (511, 767), (0, 767), (0, 0)]
    inventory = surveyed(tmp_path, painted(256, 128, 768, 640), corners)
    _, whole = mapped(tmp_path, inventory)
    _, tiles = entry_of(tmp_path, whole["tiles"])
    assert tiles["x"].max() > 600
    _, part = mapped(tmp_path, inventory, within=True)
    _, tiles = entry_of(tmp_path, part["tiles"])
    # Half of a tile of 64 at most lies beyond.
    assert 400 < tiles["x"].max() <= 512 - 32


def test_where_the_maps_grid_has_no_tile_the_tilings_own_is_drawn(tmp_path):
    """A piece of 128 px at 96 fills a tile of the grid of 32 px, and nine sixteenths of one of the map's grid of 64 px."""
    inventory = surveyed(tmp_path, painted(96, 96, 224, 224, 512, 512))
    tiling = Tiling(magnification=40, size=128, overlap=0.75, min_tissue=0.75)
    options = place.Options(tiling=tiling)
    table = pd.read_csv(tmp_path / "tissue.csv")
    images, pictures = tmp_path / "images", tmp_path / "pictures"
    _, answered = place.place(options, inventory, images, table, pictures, False, tmp_path / "o")
    assert len(answered) > 0
    _, row = mapped(tmp_path, inventory, tiling)
    assert row["tiles"] == len(answered)
    assert row["map"]


def test_a_page_reads_a_slide_without_levels_in_blocks(tmp_path, monkeypatch):
    """Level 0 of a page is one pixel: cut from the slide itself, it would ask for all of its pixels at once."""
    write_pyramid(tmp_path / "s.tif", painted(512, 512, 5000, 4000, 6144, 5120), 0.25, ())
    monkeypatch.setattr(viewer, "PIXELS", 1e6)
    asked, real = [], Slide.read

    def read(self, x, y, width, height, level=0):
        asked.append(width * height)
        return real(self, x, y, width, height, level)

    monkeypatch.setattr(Slide, "read", read)
    with Slide(tmp_path / "s.tif") as slide:
        whole = (1095, 913)
        tiles = dict(viewer._pyramid(slide, whole, 12))
    assert sum(asked) <= 1.05 * 6144 * 5120
    assert max(asked) <= 2304**2
    # 11 levels halve 1,095 pixels down to 1, tiles of 512: three by two of the finest.
    assert [name for name in tiles if name.startswith("11_")] == [
        f"11_{x}_{y}" for x in range(3) for y in range(2)
    ]
    assert [name for name in tiles if name.startswith("0_")] == ["0_0_0"]
