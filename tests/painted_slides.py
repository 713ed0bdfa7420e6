"""Slides painted for tests and benchmarks: fields of a smear side by side on clear glass, as pyramidal TIFF of JPEG tiles."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from marrowflow.demo.hospitals import Hospital
from marrowflow.demo.smear import Patient, paint_field
from marrowflow.files import written_whole

FIELD = 512
"""Side of a painted field, pixels."""
GLASS = (243, 242, 240)
"""Colour of empty glass."""
_TILE = 256
_KINDS = 4


def write_slide(
    path: Path,
    camera: Hospital,
    patient: Patient,
    chance: np.random.Generator,
    across: int,
    mpp: float | None,
) -> None:
    """Paint a patient's slide: a smear of ``across`` fields by three quarters of that, with half a field of glass around.

    Only a few fields are painted and laid in turn, mirrored and turned, so that a large slide costs little more than a
    small one.
    """
    fields = [paint_field(camera, patient, chance) for _ in range(_KINDS)]
    down = max(1, round(across * 0.75))
    slide = np.empty((FIELD * (down + 1), FIELD * (across + 1), 3), np.uint8)
    slide[:] = GLASS
    for row in range(down):
        for column in range(across):
            field = np.rot90(fields[chance.integers(_KINDS)], chance.integers(4))
            if chance.integers(2):
                field = field[:, ::-1]
            top, left = FIELD // 2 + row * FIELD, FIELD // 2 + column * FIELD
            slide[top : top + FIELD, left : left + FIELD] = field
    write_pyramid(path, slide, mpp)


def write_pyramid(
    path: Path, slide: np.ndarray, mpp: float | None, downsamples: Sequence[int] = (4, 16)
) -> None:
    """Write a picture (uint8 [H, W, 3], RGB) as a tiled, pyramidal TIFF of JPEG tiles.

    Parameters
    ----------
    path
        The file.
    slide
        The finest level.
    mpp
        Micrometres a pixel, written as the TIFF's resolution; None writes 72 dots an inch, as pictures have.
    downsamples
        Of the other levels.
    """
    levels = [slide]
    for downsample in downsamples:
        size = max(1, slide.shape[1] // downsample), max(1, slide.shape[0] // downsample)
        levels.append(cv2.resize(slide, size, interpolation=cv2.INTER_AREA))
    with written_whole(path) as beside, tifffile.TiffWriter(beside, bigtiff=True) as file:
        for number, level in enumerate(levels):
            scale = slide.shape[1] / level.shape[1]
            dots = 72.0 if mpp is None else 1e4 / (mpp * scale)
            file.write(
                _tiles(level),
                shape=level.shape,
                dtype=np.uint8,
                tile=(_TILE, _TILE),
                photometric="ycbcr",
                compression="jpeg",
                subfiletype=int(number > 0),
                resolution=(dots, dots),
                resolutionunit="INCH" if mpp is None else "CENTIMETER",
                software=None,
                metadata=None,
            )


def _tiles(level: np.ndarray) -> Iterator[bytes]:
    for top in range(0, level.shape[0], _TILE):
        for left in range(0, level.shape[1], _TILE):
            tile = np.full((_TILE, _TILE, 3), 255, np.uint8)
            found = level[top : top + _TILE, left : left + _TILE]
            tile[: found.shape[0], : found.shape[1]] = found
            yield simplejpeg.encode_jpeg(tile, quality=90, colorspace="RGB", colorsubsampling="444")
