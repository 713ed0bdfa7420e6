"""Where the tissue is: Otsu's threshold on a slide that is seen from afar (wang2022: 16 times).

Stain is colour, and empty glass has none: in saturation tissue is bright. Where a stain is grey, grey levels serve
turned round. The threshold is the one that parts the levels into two classes with the largest variance between them [1]_;
a slide on which these two differ by less than a few levels shows nothing but noise, and has no tissue.

References
----------
.. [1] Otsu (1979), "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9: 62-66.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from marrowflow.slides.slide import Slide, read_shrunk
from marrowflow.study_slides import Tissue

_BLOCK = 2048
"""Side of what is read at a time, pixels of the level that is read; three such blocks a thread are in memory."""


@dataclass(frozen=True)
class Mask:
    """A mask over a whole slide.

    Attributes
    ----------
    inside
        bool [rows, columns].
    downsample
        Pixels of the slide's finest level for one of the mask.
    threshold
        Otsu's, 0 to 255; NaN where nothing parted two classes.
    """

    inside: np.ndarray
    downsample: float
    threshold: float = float("nan")


def seen_from_afar(slide: Slide, downsample: float, threads: int = 1) -> np.ndarray:
    """Return a slide so many times smaller: uint8 [rows, columns, 3], RGB.

    It is averaged block by block from the nearest level, so that memory does not grow with the file's levels.

    Parameters
    ----------
    slide
        The slide.
    downsample
        At least 1.
    threads
        Blocks read at a time.
    """
    rows, columns = (max(1, round(side / downsample)) for side in (slide.height, slide.width))
    seen = np.empty((rows, columns, 3), np.uint8)
    level = slide.levels[slide.nearest_level(downsample)]
    # Whole pixels of what is wanted, so that the blocks' borders are those of pixels.
    side = max(1, int(_BLOCK * level.downsample / downsample))

    def fill(corner: tuple[int, int]) -> None:
        top, left = corner
        height, width = min(side, rows - top), min(side, columns - left)
        # Sizes are rounded: pixels are a hair larger or smaller than asked for.
        scale_x, scale_y = slide.width / columns, slide.height / rows
        block = read_shrunk(
            slide, left * scale_x, top * scale_y, (width * scale_x, height * scale_y), (width, height)
        )
        seen[top : top + height, left : left + width] = block

    corners = itertools.product(range(0, rows, side), range(0, columns, side))
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for _ in pool.map(fill, corners):
            pass
    return seen


def find_tissue(seen: np.ndarray, downsample: float, mpp: float, settings: Tissue) -> Mask:
    """Return where tissue is on a slide that is seen from afar.

    Parameters
    ----------
    seen
        uint8 [rows, columns, 3], RGB.
    downsample
        Of it.
    mpp
        Micrometres a pixel of the slide's finest level.
    settings
        The configuration's section; ``method: all`` takes the whole slide.
    """
    if settings.method == "all":
        return Mask(np.ones(seen.shape[:2], bool), downsample)
    levels = _levels(seen, settings.method)
    # Single pixels are dust and JPEG's noise; a median keeps edges where they are.
    levels = cv2.medianBlur(levels, 5) if min(levels.shape) >= 5 else levels
    threshold, parted = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    inside = parted > 0
    if not inside.any() or inside.all() or _contrast(levels, inside) < settings.min_contrast:
        return Mask(np.zeros(inside.shape, bool), downsample)
    pixel = (mpp * downsample) ** 2
    inside = _without_small(inside, settings.min_object / pixel, connectivity=8)
    # What touches by a corner is one object, and so parts two holes.
    inside = ~_without_small(~inside, settings.min_hole / pixel, connectivity=4)
    return Mask(inside, downsample, float(threshold))


def share_inside(mask: Mask, left: np.ndarray, top: np.ndarray, span: float) -> np.ndarray:
    """Return which share of each square lies inside a mask, float32 [n].

    Exact for squares that cut pixels of the mask: a table of sums, taken bilinearly between its knots, is the integral
    of a picture of flat pixels.

    Parameters
    ----------
    mask
        The mask.
    left, top
        Upper left corners, [n], in pixels of the slide's finest level.
    span
        Side of the squares there. What lies beyond the mask is outside.
    """
    # Whole numbers, of which 32 bits hold more than a mask has pixels: half of what float64 takes, on the largest slides a gigabyte.
    sums = np.zeros([side + 1 for side in mask.inside.shape], np.int32)
    np.cumsum(mask.inside, axis=0, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    x0, y0 = np.asarray(left) / mask.downsample, np.asarray(top) / mask.downsample
    side = span / mask.downsample
    x1, y1 = x0 + side, y0 + side
    area = _at(sums, y1, x1) - _at(sums, y0, x1) - _at(sums, y1, x0) + _at(sums, y0, x0)
    return np.clip(area / side**2, 0.0, 1.0).astype(np.float32)


def _levels(seen: np.ndarray, method: str) -> np.ndarray:
    if method == "saturation":
        return cv2.cvtColor(seen, cv2.COLOR_RGB2HSV)[..., 1]
    return 255 - cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)


def _contrast(levels: np.ndarray, inside: np.ndarray) -> float:
    """Return by how many levels the means of two classes differ."""
    return float(levels[inside].mean() - levels[~inside].mean())


def _without_small(inside: np.ndarray, smallest: float, connectivity: int) -> np.ndarray:
    """Return a mask without what is connected and covers fewer pixels."""
    count, numbers, found, _ = cv2.connectedComponentsWithStats(
        inside.astype(np.uint8), connectivity=connectivity
    )
    large = found[:count, cv2.CC_STAT_AREA] >= smallest
    large[0] = False  # what is not inside
    return large[numbers]


def _at(sums: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a table of sums between its knots, bilinearly; beyond its border it goes on as it is there."""
    y, x = np.clip(y, 0, sums.shape[0] - 1), np.clip(x, 0, sums.shape[1] - 1)
    row, column = np.minimum(y.astype(int), sums.shape[0] - 2), np.minimum(x.astype(int), sums.shape[1] - 2)
    v, u = y - row, x - column
    upper = sums[row, column] * (1 - u) + sums[row, column + 1] * u
    lower = sums[row + 1, column] * (1 - u) + sums[row + 1, column + 1] * u
    return upper * (1 - v) + lower * v
