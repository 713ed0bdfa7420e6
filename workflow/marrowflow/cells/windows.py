"""Large images in overlapping windows, and the detections of all windows as those of one image.

A field of 4,000 pixels, shrunk to a detector's 800, would lose its small cells: it is cut into windows that overlap by more
than the largest cell. A cell on a window's inner border is seen whole by its neighbour: a box that ends near such a border counts
only where no other box covers it. Of boxes that are of one cell the most certain stays, whatever its type: a cell has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 8.0
"""A box whose edge lies nearer to a border, in pixels, may be cut by it: detectors stop a few pixels short."""
_COVERED = 0.5
"""Share of a box that may be cut, from which on another box covers it."""


@dataclass(frozen=True)
class Window:
    """A part of an image, in its pixels; right and bottom are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Detections:
    """Boxes of one image, the most certain first.

    Attributes
    ----------
    boxes
        float32 [n, 4]: left, top, right, bottom, pixels.
    scores
        float32 [n], from 0 to 1.
    types
        int64 [n].
    """

    boxes: np.ndarray
    scores: np.ndarray
    types: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def windows(width: int, height: int, side: int, overlap: int) -> list[Window]:
    """Return windows that cover an image, row by row, as few as can overlap so much, and evenly laid.

    Parameters
    ----------
    width, height
        Of the image, pixels.
    side
        Of a window; an image that is not larger is one window.
    overlap
        Pixels that neighbours share at least; less than ``side``.
    """
    if not 0 <= overlap < side:
        raise ValueError(f"windows of {side} px cannot overlap by {overlap} px")
    starts = [_starts(length, side, overlap) for length in (height, width)]
    return [
        Window(left, top, min(left + side, width), min(top + side, height))
        for top in starts[0]
        for left in starts[1]
    ]


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    count = 1 + -(-(length - side) // (side - overlap))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def merged(
    found: Sequence[tuple[Window, Detections]], width: int, height: int, iou: float = 0.5
) -> Detections:
    """Return the detections of all windows of an image as its own.

    Parameters
    ----------
    found
        Each window with its detections, in the window's pixels.
    width, height
        Of the image.
    iou
        Boxes that overlap by more are of one cell.
    """
    boxes, scores, types = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    cut = [np.zeros(0, bool)]
    for window, own in found:
        moved = own.boxes.astype(np.float32) + np.array([window.left, window.top] * 2, np.float32)
        boxes.append(moved)
        scores.append(own.scores)
        types.append(own.types)
        cut.append(_cut(moved, window, width, height))
    every = Detections(np.concatenate(boxes), np.concatenate(scores), np.concatenate(types))
    perhaps = np.concatenate(cut)
    kept: list[int] = []
    # Whole ones first, each by its score.
    for i in np.lexsort((-every.scores, perhaps)):
        if not kept:
            kept.append(int(i))
            continue
        common, own_area, areas = _areas(every.boxes[i], every.boxes[kept])
        same = common > iou * (own_area + areas - common)
        if perhaps[i]:
            same |= common > _COVERED * own_area
        if not same.any():
            kept.append(int(i))
    order = sorted(kept, key=lambda i: -every.scores[i])
    return Detections(every.boxes[order], every.scores[order], every.types[order])


def _areas(one: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Return what a box has in common with others, its own area, and theirs."""
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    own = float((one[2:] - one[:2]).prod())
    return np.clip(sides, 0, None).prod(axis=1), own, (others[:, 2:] - others[:, :2]).prod(axis=1)


def _cut(boxes: np.ndarray, window: Window, width: int, height: int) -> np.ndarray:
    """Return which boxes (in the image's pixels) end near a border of their window that is none of the image: bool [n]."""
    inner = np.array([window.left > 0, window.top > 0, window.right < width, window.bottom < height])
    borders = np.array([window.left, window.top, window.right, window.bottom])
    return np.asarray(((np.abs(boxes - borders) < NEAR) & inner).any(axis=1))
