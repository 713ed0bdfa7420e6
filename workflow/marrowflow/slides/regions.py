"""Regions that somebody drew on a slide, to be trained on within (wang2022) or looked at alone.

================  ==========================================================================================
file              what it says
================  ==========================================================================================
PNG, TIFF, …      a mask over the whole slide at any size: what is not black is inside
.geojson, .json   polygons in pixels of the finest level, as QuPath exports annotations; holes are left out
================  ==========================================================================================

Some scanners (MIRAX, Leica) say where on the glass they scanned, and QuPath counts from there: polygons are moved by the upper
left corner of those bounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from marrowflow.cohorts.decode import Unreadable, decode
from marrowflow.errors import UserError
from marrowflow.slides.slide import Slide
from marrowflow.slides.tissue import Mask

_SAME_SHAPE = 0.02


def read_region(path: Path, slide: Slide, shape: tuple[int, int], downsample: float) -> Mask:
    """Return the region that a file draws on a slide.

    Parameters
    ----------
    path
        The file.
    slide
        The slide that it belongs to.
    shape, downsample
        Rows and columns of the mask that polygons are drawn into, and how much smaller than the slide it is.

    Raises
    ------
    UserError
        A file that cannot be read, that is of another slide's shape, or that draws nothing.
    """
    if path.suffix.lower() in (".json", ".geojson"):
        mask = _polygons(path, slide.scanned_from, shape, downsample)
    else:
        mask = _picture(path, slide)
    if not mask.inside.any():
        raise UserError(
            f"{path}: no part of {slide.path.name} lies inside; draw the region, or empty the cell"
        )
    return mask


def _picture(path: Path, slide: Slide) -> Mask:
    try:
        inside = decode(path.read_bytes()).pixels.max(axis=2) > 0
    except (OSError, Unreadable) as error:
        raise UserError(f"{path}: the region mask cannot be read ({error}); save it anew, as PNG") from error
    across, down = slide.width / inside.shape[1], slide.height / inside.shape[0]
    if abs(across - down) > _SAME_SHAPE * max(across, down):
        raise UserError(
            f"{path} has {inside.shape[1]} x {inside.shape[0]} pixels, {slide.path.name} {slide.width} x {slide.height}: a mask "
            "covers the whole slide in its own proportions; export it anew"
        )
    return Mask(inside, (across + down) / 2)


def _polygons(path: Path, origin: tuple[int, int], shape: tuple[int, int], downsample: float) -> Mask:
    try:
        drawn = list(_rings(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path}: no GeoJSON of polygons ({type(error).__name__}: {error}); export the annotations anew"
        ) from error
    canvas = np.zeros(shape, np.uint8)
    for rings in drawn:
        own = np.zeros(shape, np.uint8)
        # Of one polygon the first ring is the outline and the others are holes: an even number of rings is outside.
        cv2.fillPoly(own, [np.round((ring + origin) / downsample).astype(np.int32) for ring in rings], 1)
        canvas |= own
    return Mask(canvas > 0, downsample)


def _rings(value: Any) -> Iterator[list[np.ndarray]]:
    """Yield the rings of each polygon in a GeoJSON value, [points, 2] each."""
    if isinstance(value, list):
        for one in value:
            yield from _rings(one)
        return
    kind = value["type"]
    if kind == "FeatureCollection":
        yield from _rings(value["features"])
    elif kind == "Feature":
        yield from _rings(value["geometry"])
    elif kind == "GeometryCollection":
        yield from _rings(value["geometries"])
    elif kind in ("Polygon", "MultiPolygon"):
        for rings in [value["coordinates"]] if kind == "Polygon" else value["coordinates"]:
            yield [np.asarray(ring, float)[:, :2] for ring in rings]
