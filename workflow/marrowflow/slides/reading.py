"""Tiles read from a slide in batches, some ahead of the network, by several threads.

Neighbours in a row are read as one region: a scanner's file stores pixels in compressed squares of its own, and a square
that two tiles share is then decoded once. What is in memory is a few batches, however large the slide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise

import cv2
import numpy as np
import pandas as pd

from marrowflow.slides.slide import Slide
from marrowflow.slides.tiles import Geometry, resampled

WIDEST = 1024
"""Pixels of a level that neighbours read at once span at most: longer runs cost more memory than they save in pixels."""
_AHEAD = 3


def tile_batches(
    slide: Slide, how: Geometry, tiles: pd.DataFrame, batch: int, threads: int
) -> Iterator[np.ndarray]:
    """Yield a slide's tiles in consecutive batches: uint8 [n, size, size, 3], RGB.

    Parameters
    ----------
    slide
        The slide.
    how
        Its geometry.
    tiles
        Columns ``x`` and ``y``, in the order of `marrowflow.slides.tiles.place_tiles`.
    batch
        Tiles a batch.
    threads
        Regions read at a time.

    Raises
    ------
    Unreadable
        The file is damaged where a tile lies.
    """
    corners = tiles[["x", "y"]].to_numpy(np.int64)
    chunks = [corners[start : start + batch] for start in range(0, len(corners), batch)]
    # Regions are what is done side by side; OpenCV's own threads would only contend.
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:

        def start(chunk: np.ndarray) -> tuple[np.ndarray, list[Future[None]]]:
            pixels = np.empty((len(chunk), how.size, how.size, 3), np.uint8)
            return pixels, [pool.submit(_fill, slide, how, chunk[s], pixels[s]) for s in _strips(chunk, how)]

        following = iter(chunks)
        waiting = deque(start(chunk) for chunk in islice(following, _AHEAD))
        while waiting:
            pixels, parts = waiting.popleft()
            for part in parts:
                part.result()
            waiting.extend(start(chunk) for chunk in islice(following, 1))
            yield pixels


def _strips(corners: np.ndarray, how: Geometry) -> Sequence[slice]:
    """Divide tiles into runs of neighbours in a row, each of a tile or of at most `WIDEST` pixels."""
    x, y = corners.T
    longest = 1 + max(0, int((WIDEST - how.read) * how.downsample / how.stride))
    breaks = (np.diff(y) != 0) | (np.diff(x) > how.stride + 1)
    ends = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(corners)]
    return [
        slice(start, min(start + longest, last))
        for first, last in pairwise(ends)
        for start in range(first, last, longest)
    ]


def _fill(slide: Slide, how: Geometry, corners: np.ndarray, out: np.ndarray) -> None:
    """Read a run of neighbours into ``out``."""
    left, top = corners[0]
    # Each tile lies as many whole pixels of the level from the first as fits best: half of one off at most.
    offsets = np.round((corners[:, 0] - left) / how.downsample).astype(int)
    region = slide.read(int(left), int(top), int(offsets[-1]) + how.read, how.read, how.level)
    for place, offset in zip(out, offsets, strict=True):
        place[:] = resampled(region[:, offset : offset + how.read], how.size)
