"""Grids of tiles, counted by hand, and tiles read one by one against batches."""

import numpy as np
import pytest
from little_slides import MPP, write

from marrowflow.slides.reading import tile_batches
from marrowflow.slides.slide import Slide
from marrowflow.slides.tiles import TooCoarse, geometry, place_tiles, read_tile
from marrowflow.slides.tissue import Mask
from marrowflow.study_slides import Tiling


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    with Slide(write(tmp_path_factory.mktemp("slide") / "s.tif")) as opened:
        yield opened


@pytest.fixture
def everywhere():
    return Mask(np.ones((96, 128), bool), 16.0)


@pytest.mark.parametrize(
    ("magnification", "size", "overlap", "span", "level", "read", "across", "down"),
    [
        (40, 256, 0.0, 256, 0, 256, 8, 6),
        (10, 256, 0.0, 1024, 1, 256, 2, 1),
        (20, 256, 0.0, 512, 0, 512, 4, 3),
        (40, 256, 0.5, 256, 0, 256, 15, 11),
        (2.5, 64, 0.0, 1024, 2, 64, 2, 1),
        (40, 300, 0.0, 300, 0, 300, 6, 5),
    ],
)
def test_the_grid_by_hand(slide, everywhere, magnification, size, overlap, span, level, read, across, down):
    """2,048 x 1,536 pixels of .25 µm: 10 / magnification / .25 pixels of the slide for one of a tile."""
    tiling = Tiling(magnification=magnification, size=size, overlap=overlap)
    how = geometry(slide, MPP, tiling)
    assert (how.span, how.level, how.read) == (pytest.approx(span), level, read)
    tiles = place_tiles(slide, how, everywhere, 0.5)
    assert (tiles["x"].nunique(), tiles["y"].nunique(), len(tiles)) == (across, down, across * down)
    assert tiles["x"].max() + span <= 2048 + 1
    assert (tiles["tissue"] == 1).all()
    assert tiles["region"].isna().all()


def test_tiles_with_enough_tissue_are_kept(slide):
    """Tissue is the left half, and a third of the next tile's width."""
    mask = np.zeros((96, 128), bool)
    mask[:, : 64 + 5] = True
    how = geometry(slide, MPP, Tiling(magnification=40))
    for least, columns in ((0.0, 8), (0.2, 5), (5 / 16 + 0.01, 4), (1.0, 4)):
        assert place_tiles(slide, how, Mask(mask, 16.0), least)["x"].nunique() == columns


def test_the_share_of_a_region_is_noted(slide, everywhere):
    region = np.zeros((48, 64), bool)
    region[:, :32] = True
    tiles = place_tiles(
        slide, geometry(slide, MPP, Tiling(magnification=40)), everywhere, 0.5, Mask(region, 32.0)
    )
    assert (tiles.loc[tiles["x"] < 1024, "region"] == 1).all()
    assert (tiles.loc[tiles["x"] >= 1024, "region"] == 0).all()


def test_a_slide_is_not_blown_up_beyond_what_it_shows(slide):
    with pytest.raises(TooCoarse, match=r"0.25 µm a pixel, too coarse for 0.1 µm"):
        geometry(slide, MPP, Tiling(magnification=100))
    how = geometry(slide, MPP, Tiling(magnification=100, max_enlargement=2.5))
    assert (how.span, how.read) == (pytest.approx(102.4), 102)
    assert read_tile(slide, how, 600, 500).shape == (256, 256, 3)


def test_a_slide_smaller_than_a_tile_has_none(slide, everywhere):
    assert place_tiles(slide, geometry(slide, MPP, Tiling(magnification=5, size=512)), everywhere, 0.0).empty


@pytest.mark.parametrize(
    ("magnification", "overlap"), [(40, 0.0), (40, 0.5), (20, 0.0), (10, 0.25), (13, 0.0)]
)
def test_batches_hold_what_tiles_read_one_by_one_hold(slide, everywhere, magnification, overlap):
    tiling = Tiling(magnification=magnification, size=64, overlap=overlap)
    how = geometry(slide, MPP, tiling)
    tiles = place_tiles(slide, how, everywhere, 0.0)
    found = np.concatenate(list(tile_batches(slide, how, tiles, 5, 3)))
    single = np.stack([read_tile(slide, how, x, y) for x, y in tiles[["x", "y"]].to_numpy()])
    assert found.shape == single.shape
    # Where a tile begins between two pixels of the level, it may begin half of one apart.
    apart = np.abs(found.astype(int) - single)
    assert apart.mean() < 1.5
    if how.downsample == 1:
        assert apart.max() == 0


def test_the_order_of_threads_changes_nothing(slide, everywhere):
    how = geometry(slide, MPP, Tiling(magnification=40))
    tiles = place_tiles(slide, how, everywhere, 0.0)
    one, four = ([b.copy() for b in tile_batches(slide, how, tiles, 7, threads)] for threads in (1, 4))
    assert all((a == b).all() for a, b in zip(one, four, strict=True))
