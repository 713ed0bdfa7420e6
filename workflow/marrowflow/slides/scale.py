"""How large a pixel of a slide is: by its file or by the manifest, never by a guess.

A magnification is read as a size of pixels on the specimen, 10 / magnification micrometres: 1 µm at 10×, .25 µm at 40×,
.1 µm at 100×, so that slides of different scanners are seen alike whatever their objectives were.
"""

from __future__ import annotations

import math

from marrowflow.slides.slide import Slide

TOLERANCE = 0.02
"""Share by which two statements of one size may differ: scanners state two to four digits."""
PLAUSIBLE = (0.02, 20.0)
"""Micrometres a pixel that a microscope's camera can have. Other numbers are a printer's: 72 dots an inch are 353 µm."""


class Unscaled(Exception):
    """The size of a slide's pixels is not known, or stated twice in different ways; the message is a sentence."""


def micrometres_a_pixel(slide: Slide, stated: float) -> float:
    """Return the size of a pixel of the finest level.

    Parameters
    ----------
    slide
        The open slide.
    stated
        The manifest's column ``mpp``; NaN where it says nothing.

    Raises
    ------
    Unscaled
        Neither says it, both say different sizes, or the file's pixels are not square.
    """
    found = _of_file(slide)
    if math.isnan(stated):
        if found is None:
            raise Unscaled(
                "the file does not say how large its pixels are; give micrometres a pixel in column 'mpp'"
            )
        return found
    if not PLAUSIBLE[0] <= stated <= PLAUSIBLE[1]:
        raise Unscaled(
            f"column 'mpp' says {stated:g} µm a pixel, which no microscope has; correct it, in micrometres"
        )
    if found is not None and not _alike(found, stated):
        raise Unscaled(
            f"the file says {found:g} µm a pixel, column 'mpp' {stated:g}; empty the cell, or correct whichever is wrong"
        )
    return stated if found is None else found


def _of_file(slide: Slide) -> float | None:
    if slide.mpp is None or not all(PLAUSIBLE[0] <= size <= PLAUSIBLE[1] for size in slide.mpp):
        return None
    across, down = slide.mpp
    if not _alike(across, down):
        raise Unscaled(
            f"the file says that a pixel is {across:g} µm wide and {down:g} µm high; only square pixels are read: save the "
            "slide anew with square ones"
        )
    return (across + down) / 2


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(one, other)
