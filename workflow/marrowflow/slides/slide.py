"""A slide opened for reading: any region of it, at the level that the file stores nearest to what is asked for.

=====================================  =======================================================================
file                                   read by
=====================================  =======================================================================
Aperio, Hamamatsu, Leica, MIRAX, …     OpenSlide, a region at a time
DICOM WSI (a folder's any file)        OpenSlide
tiled TIFF, pyramidal or not           OpenSlide
JPEG, PNG, BMP, plain TIFF             `marrowflow.cohorts.decode`, whole: an ordinary micrograph is a small slide
=====================================  =======================================================================

What comes out is 8-bit RGB; where a scanner left a hole, white, the colour of empty glass. Of what else a file holds
nothing is read but its size, levels, resolution, objective and maker: never its label or its photograph of the whole
glass, which show names, and no comment or serial number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import openslide

from marrowflow.cohorts.decode import Unreadable, decode

MAX_PICTURE = 1 << 30
"""Bytes of a file that is decoded whole; a larger one must be tiled."""


@dataclass(frozen=True)
class Level:
    """One resolution that a file stores.

    Attributes
    ----------
    width, height
        Pixels.
    downsample
        Pixels of the finest level for one of this one, 1 or more.
    """

    width: int
    height: int
    downsample: float


class Slide:
    """An open slide; a context manager. Its methods may be called from several threads at once.

    Parameters
    ----------
    path
        The file; of a DICOM slide any file of its series.

    Attributes
    ----------
    levels
        Finest first.
    mpp
        Micrometres a pixel of the finest level as the file states them, (across, down); None where it does not.
    objective
        Magnification of the objective as the file states it; None where it does not.
    format
        Maker of the scanner or kind of file, such as aperio, generic-tiff, JPEG.
    orientation, channels, bit_depth, frames
        As in `marrowflow.cohorts.decode.Decoded`; of scanners' files 1, 3, 8 and the number of levels.

    Raises
    ------
    Unreadable
        No slide, a damaged one, or one in a format that is not read; the message is the reason, in a few words.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._scan: openslide.OpenSlide | None = None
        self.orientation, self.channels, self.bit_depth = 1, 3, 8
        kind = _kind(self.path)
        if kind is not None:
            self._open_scan(kind)
        else:
            self._open_picture()

    @property
    def width(self) -> int:
        """Columns of the finest level, pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Rows of the finest level, pixels."""
        return self.levels[0].height

    def nearest_level(self, downsample: float) -> int:
        """Return the coarsest level that is at least as fine as asked for, within two percent; the finest if none is.

        A level's downsample is a quotient of rounded sizes, such as 2.0005 for 2.
        """
        fine = [i for i, level in enumerate(self.levels) if level.downsample <= downsample * 1.02]
        return fine[-1] if fine else 0

    def read(self, x: int, y: int, width: int, height: int, level: int = 0) -> np.ndarray:
        """Return a region as uint8 [height, width, 3], RGB; what lies outside of the slide is white.

        Parameters
        ----------
        x, y
            Its upper left corner, in pixels of the finest level.
        width, height
            Its size, in pixels of the level.
        level
            Number of the level, 0 the finest.

        Raises
        ------
        Unreadable
            The file is damaged there.
        """
        if self._scan is None:
            return _cut(self._picture, x, y, width, height)
        try:
            region = np.asarray(self._scan.read_region((x, y), level, (width, height)))
        except openslide.OpenSlideError as error:
            raise Unreadable(f"damaged at {x}, {y} ({_first_line(error)})") from error
        return _on_white(region)

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scan is not None:
            self._scan.close()

    def _open_scan(self, kind: str) -> None:
        try:
            scan = openslide.OpenSlide(self.path)
        except openslide.OpenSlideError as error:
            raise Unreadable(f"damaged {kind} ({_first_line(error)})") from error
        sizes = zip(scan.level_dimensions, scan.level_downsamples, strict=True)
        self._scan, self.format, self.frames = scan, kind, scan.level_count
        self.levels: Sequence[Level] = [Level(*size, down) for size, down in sizes]
        across, down = (scan.properties.get(f"openslide.mpp-{axis}") for axis in "xy")
        self.mpp = (_number(across), _number(down)) if _number(across) and _number(down) else None
        self.objective = _number(scan.properties.get("openslide.objective-power")) or None
        left, top = (int(_number(scan.properties.get(f"openslide.bounds-{axis}"))) for axis in "xy")
        self.scanned_from = left, top

    def _open_picture(self) -> None:
        if self.path.stat().st_size > MAX_PICTURE:
            raise Unreadable("too large to be read whole: save it as a tiled TIFF")
        found = decode(self.path.read_bytes())
        self._picture = found.pixels
        self.format, self.frames = found.format, found.frames
        self.orientation, self.channels, self.bit_depth = found.orientation, found.channels, found.bit_depth
        self.levels = [Level(found.width, found.height, 1.0)]
        # A picture's own resolution is that of a printer, seldom of a microscope.
        self.mpp = self.objective = None
        self.scanned_from = 0, 0


def read_shrunk(
    slide: Slide, x: float, y: float, span: tuple[float, float], side: tuple[int, int]
) -> np.ndarray:
    """Return a region resampled to a size: uint8 [side, side, 3], RGB.

    It is read at the nearest level that is fine enough, and averaged by area from there; enlarged bilinearly where
    the finest level is not fine enough.

    Parameters
    ----------
    slide
        The slide.
    x, y
        Upper left corner, in pixels of the finest level.
    span
        Width and height there.
    side
        Width and height that are wanted, in pixels.
    """
    number = slide.nearest_level(min(span[0] / side[0], span[1] / side[1]))
    down = slide.levels[number].downsample
    width, height = max(1, round(span[0] / down)), max(1, round(span[1] / down))
    region = slide.read(round(x), round(y), width, height, number)
    if (width, height) == side:
        return region
    shrinks = width >= side[0] and height >= side[1]
    return cv2.resize(region, side, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _kind(path: Path) -> str | None:
    """Return what OpenSlide calls a file that it reads; None where it reads none such."""
    try:
        return openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None


def _number(text: str | None) -> float:
    """Return a property as a number; 0 where it is none."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _cut(picture: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """Return a part of a picture, white where it goes beyond."""
    found = picture[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    if found.shape[:2] == (height, width):
        return found
    region = np.full((height, width, 3), 255, np.uint8)
    top, left = max(0, -y), max(0, -x)
    region[top : top + found.shape[0], left : left + found.shape[1]] = found
    return region


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """Return RGBA as RGB; where a scanner left a hole, white."""
    region = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
    # Four bytes as one number, of which alpha is the highest: told at a tenth of the time of every fourth byte.
    if rgba.view("<u4").min() >= 0xFF000000:
        return region
    # Between tiles of some scanners pixels are covered in part.
    covered = rgba[..., 3].astype(np.uint16)[..., None]
    return ((region * covered + 255 * (255 - covered) + 127) // 255).astype(np.uint8)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
