"""What a stored image looks like in numbers: mean and deviation of its pixels' lightness and colour.

They tell hospitals apart that stain, light or photograph otherwise, before and after a correction of colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

APPEARANCE = "appearance.parquet"
APPEARANCE_COLUMNS = ("L_mean", "a_mean", "b_mean", "L_sd", "a_sd", "b_sd")
"""In CIE units: L from 0 (black) to 100 (white), a from green to red, b from blue to yellow."""

_LEVELS = np.arange(256) / 255
# Light of each level of sRGB (IEC 61966-2-1). OpenCV's own way from sRGB interpolates in a coarse table and is wrong by
# up to .4 units; from light on it is right to .02, and as quick.
_LIGHT = np.where(_LEVELS <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4).astype(np.float32)


def appearance(pixels: np.ndarray) -> np.ndarray:
    """Return the mean and the standard deviation of an image's pixels in CIE 1976 L*a*b*.

    Parameters
    ----------
    pixels
        uint8 [H, W, 3], RGB, read as sRGB under its own white, D65.

    Returns
    -------
    ndarray
        float64 [6], in the order of `APPEARANCE_COLUMNS`. Deviations are those of all pixels, divided by their number.

    Notes
    -----
    L = 116 f(Y) − 16, a = 500 (f(X) − f(Y)), b = 200 (f(Y) − f(Z)), each of X, Y and Z as a share of the white's, with
    f the cube root above 216/24389 and a line below (CIE 15:2018, section 8.2.1).
    """
    mean, deviation = cv2.meanStdDev(cv2.cvtColor(cv2.LUT(pixels, _LIGHT), cv2.COLOR_LRGB2LAB))
    return np.concatenate([mean, deviation]).ravel()


def appearance_table(case_ids: Sequence[str], rows: np.ndarray) -> pd.DataFrame:
    """Return the table of a cohort: ``case_id`` and `APPEARANCE_COLUMNS` (float64), from rows [cases, 6]."""
    table = pd.DataFrame(rows, columns=list(APPEARANCE_COLUMNS))
    table.insert(0, "case_id", list(case_ids))
    return table
