"""Large images in overlapping windows, and the detections of all windows as those of one image.

A field of 4,000 pixels, shrunk to a detector's 800, would lose its small cells: it is cut into windows that overlap by more
than the largest cell. A cell on a window's inner border is seen whole by its neighbour: what touches such a border is left to
that one. What both see is one cell, and the more certain box stays (non-maximum suppression over all windows, type by type).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import batched_nms

_TOUCHES = 2.0
"""A box whose edge lies nearer to a border, in pixels, is taken as cut by it."""


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
        Boxes of one type that overlap by more are one cell.
    """
    boxes, scores, types = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for window, own in found:
        moved = own.boxes + np.array([window.left, window.top] * 2, np.float32)
        whole = ~_cut(moved, window, width, height)
        boxes.append(moved[whole].astype(np.float32))
        scores.append(own.scores[whole])
        types.append(own.types[whole])
    every = Detections(np.concatenate(boxes), np.concatenate(scores), np.concatenate(types))
    kept = batched_nms(*map(torch.from_numpy, (every.boxes, every.scores, every.types)), iou).numpy()
    return Detections(every.boxes[kept], every.scores[kept], every.types[kept])


def _cut(boxes: np.ndarray, window: Window, width: int, height: int) -> np.ndarray:
    """Return which boxes (in the image's pixels) touch a border of their window that is none of the image: bool [n]."""
    inner = np.array([window.left > 0, window.top > 0, window.right < width, window.bottom < height])
    borders = np.array([window.left, window.top, window.right, window.bottom])
    return ((np.abs(boxes - borders) < _TOUCHES) & inner).any(axis=1)
