"""Attention laid over a slide: tiles that overlap, their scores on a common scale, and the tiles looked at most and least.

A place's value is the mean over the tiles that cover it. Two scales are drawn, because each hides something:

minmax
    (score − smallest) / (largest − smallest) over the slide, as published (wang2022): one tile of large attention leaves
    all others dark.
percentile
    Share of the slide's tiles with a smaller score, ties shared: every slide is coloured alike, also one on which
    nothing stands out.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from marrowflow.slides.slide import Slide
from marrowflow.slides.tiles import Geometry, read_tile

Scale = str
MINMAX, PERCENTILE = "minmax", "percentile"


def scaled(scores: np.ndarray, scale: Scale) -> np.ndarray:
    """Return scores [n] on a scale from 0 to 1, float64; all equal ones are 0 by min and max, and .5 by percentile."""
    if scale == PERCENTILE:
        return (rankdata(scores, method="average") - 0.5) / len(scores)
    low, high = float(scores.min()), float(scores.max())
    return (scores - low) / (high - low) if high > low else np.zeros(len(scores))


def laid_out(
    values: np.ndarray, tiles: pd.DataFrame, span: float, size: tuple[int, int], side: tuple[int, int]
) -> np.ndarray:
    """Return tiles' values laid over a slide's picture: float64 [rows, columns], NaN where no tile lies.

    Parameters
    ----------
    values
        [n].
    tiles
        Columns ``x`` and ``y`` of n tiles, in pixels of the finest level.
    span
        Side of a tile there.
    size
        Width and height of the slide there.
    side
        Width and height of the picture.
    """
    across, down = side[0] / size[0], side[1] / size[1]
    total, count = np.zeros((side[1], side[0])), np.zeros((side[1], side[0]))
    for value, x, y in zip(values, tiles["x"], tiles["y"], strict=True):
        rows = slice(round(y * down), max(round(y * down) + 1, round((y + span) * down)))
        columns = slice(round(x * across), max(round(x * across) + 1, round((x + span) * across)))
        total[rows, columns] += value
        count[rows, columns] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def extremes(scores: np.ndarray, tiles: pd.DataFrame, span: float, most: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the tiles with the largest and with the smallest scores, no two of either overlapping.

    Parameters
    ----------
    scores
        [n].
    tiles
        Columns ``x`` and ``y``.
    span
        Side of a tile.
    most
        Tiles of either kind; no tile is of both.
    """
    order = np.argsort(-scores, kind="stable").tolist()
    corners = tiles[["x", "y"]].to_numpy()
    top = _apart(order, corners, span, min(most, (len(order) + 1) // 2))
    bottom = _apart([i for i in reversed(order) if i not in top], corners, span, min(most, len(order) // 2))
    return top, bottom


def strip(slide: Slide, how: Geometry, tiles: pd.DataFrame, chosen: Sequence[int], side: int) -> np.ndarray:
    """Return tiles side by side, uint8 [side, n * side, 3], RGB."""
    pictures = []
    for number in chosen:
        tile = read_tile(slide, how, int(tiles["x"].iloc[number]), int(tiles["y"].iloc[number]))
        pictures.append(cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA))
    return np.concatenate(pictures, axis=1)


def _apart(order: Sequence[int], corners: np.ndarray, span: float, most: int) -> list[int]:
    chosen: list[int] = []
    for number in order:
        if len(chosen) == most:
            break
        if all(np.abs(corners[number] - corners[other]).max() >= span - 0.5 for other in chosen):
            chosen.append(number)
    return chosen
