"""Where a slide's tiles lie: a grid over the whole slide, of which those with tissue are kept.

A tile covers ``size`` pixels at the tiling's resolution, whatever the slide's own is: at level 0 it spans ``size`` ×
wanted / own micrometres a pixel. It is read at the nearest level that is at least as fine, and what is left is
resampled by area. Coordinates are kept, pixels are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from marrowflow.slides.slide import Slide
from marrowflow.slides.tissue import Mask, share_inside
from marrowflow.study_slides import Tiling

COLUMNS = {"x": "int32", "y": "int32", "tissue": "float32", "region": "float32"}
"""Of a slide's tiles, row by row: upper left corner in pixels of the finest level; share of tissue, and of the region
mask (NaN where the slide has none)."""


class TooCoarse(Exception):
    """The slide's finest level shows less than a tiling asks for; the message is the reason, in a few words."""


@dataclass(frozen=True)
class Geometry:
    """How a tiling's tiles are read from one slide.

    Attributes
    ----------
    size
        Side of a tile as the network sees it, pixels.
    span
        Its side in pixels of the finest level; seldom a whole number.
    stride
        From one tile to the next, in pixels of the finest level.
    level
        Number of the level that is read.
    downsample
        Of that level.
    read
        Side of what is read there, pixels.
    """

    size: int
    span: float
    stride: float
    level: int
    downsample: float
    read: int

    @property
    def resampled(self) -> float:
        """Pixels that are read for one that is seen, along a side; 1 where the level fits, less where it is enlarged."""
        return self.read / self.size


def geometry(slide: Slide, mpp: float, tiling: Tiling, overlap: float | None = None) -> Geometry:
    """Return how a tiling's tiles are read from a slide.

    Parameters
    ----------
    slide
        The slide.
    mpp
        Micrometres a pixel of its finest level.
    tiling
        The configuration's section.
    overlap
        In place of the tiling's own, for heat maps.

    Raises
    ------
    TooCoarse
        The finest level would have to be enlarged by more than the tiling allows.
    """
    wanted = tiling.resolution / mpp
    if wanted * tiling.max_enlargement < 1:
        raise TooCoarse(
            f"its finest level has {mpp:.3g} µm a pixel, too coarse for {tiling.resolution:.3g} µm"
        )
    level = slide.nearest_level(wanted)
    span = tiling.size * wanted
    read = max(1, round(span / slide.levels[level].downsample))
    stride = span * (1 - (tiling.overlap if overlap is None else overlap))
    return Geometry(tiling.size, span, stride, level, slide.levels[level].downsample, read)


def place_tiles(
    slide: Slide, how: Geometry, tissue: Mask, least: float, region: Mask | None = None
) -> pd.DataFrame:
    """Return a slide's tiles, those of the first row first.

    Parameters
    ----------
    slide
        The slide.
    how
        Its `geometry`.
    tissue
        Its tissue.
    least
        Share of a tile that must be tissue, 0 keeps all.
    region
        Its region mask, if it has one: its share is noted, and chooses no tile here.

    Returns
    -------
    DataFrame
        `COLUMNS`. Tiles lie within the slide whole; what is left at the right and lower edge is narrower than a stride
        and in no tile.
    """
    left, top = (_starts(side, how) for side in (slide.width, slide.height))
    y, x = (grid.ravel() for grid in np.meshgrid(top, left, indexing="ij"))
    shares = share_inside(tissue, x, y, how.span)
    kept = shares >= least if least > 0 else np.ones(len(x), bool)
    table = pd.DataFrame({"x": x[kept], "y": y[kept], "tissue": shares[kept]})
    table["region"] = np.nan if region is None else share_inside(region, x[kept], y[kept], how.span)
    return table.astype(COLUMNS)


def within_region(tiles: pd.DataFrame) -> np.ndarray:
    """Return which tiles (`COLUMNS`) lie in the slide's region by half or more: bool [n], all without one."""
    return (tiles["region"].isna() | (tiles["region"] >= 0.5)).to_numpy()


def read_tile(slide: Slide, how: Geometry, x: int, y: int) -> np.ndarray:
    """Return one tile as the network sees it: uint8 [size, size, 3], RGB."""
    return resampled(slide.read(x, y, how.read, how.read, how.level), how.size)


def resampled(region: np.ndarray, size: int) -> np.ndarray:
    """Return a square at the size that the network sees: averaged by area, or enlarged bilinearly."""
    if len(region) == size:
        return region
    how = cv2.INTER_AREA if len(region) > size else cv2.INTER_LINEAR
    return cv2.resize(region, (size, size), interpolation=how)


def _starts(side: int, how: Geometry) -> np.ndarray:
    """Return where tiles begin along a side of the slide."""
    count = int((side - how.span) / how.stride + 1e-9) + 1 if side >= how.span - 0.5 else 0
    return np.round(np.arange(count) * how.stride).astype(np.int64)


def rows_of(table: pd.DataFrame, most: int) -> Iterator[pd.DataFrame]:
    """Yield a table's rows in consecutive parts of at most so many."""
    for start in range(0, len(table), most):
        yield table.iloc[start : start + most]
