"""What is measured on every image as it is taken in: focus, light, and two fingerprints of its content.

All of it is computed from one grey image (ITU-R BT.601 luma, 0-255), so that the whole intake of an
image stays within the time that its decoding takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

HASHED_SIDE, THUMB_SIDE = 32, 16

# Row k holds cos(π k (2n + 1) / 64), n = 0 … 31: the eight lowest frequencies of the transform.
_COSINES = np.cos(np.pi / (2 * HASHED_SIDE) * np.outer(np.arange(8), 2 * np.arange(HASHED_SIDE) + 1))


@dataclass(frozen=True)
class Quality:
    """Measurements of one image.

    Attributes
    ----------
    focus
        Variance of the Laplacian of the grey image, squared grey levels [1]_. It grows with
        magnification and contrast: a limit is a laboratory's own.
    brightness
        Mean grey level, 0 to 255.
    saturated
        Share of samples (a pixel has three) at 255, 0 to 1.
    phash
        64-bit perceptual hash (see `perceptual_hash`).
    thumb
        The grey image at 16 x 16 pixels, 256 bytes, row by row.

    References
    ----------
    .. [1] Pech-Pacheco et al. (2000), "Diatom autofocusing in brightfield microscopy", ICPR, eq. 6.
    """

    focus: float
    brightness: float
    saturated: float
    phash: int
    thumb: bytes


def measure(pixels: np.ndarray) -> Quality:
    """Measure one image (uint8 RGB, shape (height, width, 3))."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    edges = cv2.Laplacian(grey, cv2.CV_16S)
    small = _shrunk(grey)
    return Quality(
        focus=cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - cv2.mean(edges)[0] ** 2,
        brightness=cv2.mean(grey)[0],
        saturated=np.count_nonzero(pixels == 255) / pixels.size,
        phash=_hash(small),
        thumb=cv2.resize(small, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA).tobytes(),
    )


def perceptual_hash(grey: np.ndarray) -> int:
    """Return the 64-bit cosine hash of a grey image (uint8, 2-D), as ImageHash's ``phash`` defines it.

    The image is shrunk to 32 x 32 pixels and its cosine transform (type II, not normalised) taken. Each
    of the 8 x 8 lowest frequencies, row by row and highest bit first, gives a bit: is its coefficient
    above their median? ImageHash shrinks by Lanczos' filter and this by area, so that a few bits may differ.
    As half of the bits are always set, the distance of two hashes is even.
    """
    return _hash(_shrunk(grey))


def _shrunk(grey: np.ndarray) -> np.ndarray:
    """Return the image at 32 x 32 pixels; halving first costs a fifth of averaging areas at once."""
    while min(grey.shape) >= 4 * HASHED_SIDE:
        grey = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(grey, (HASHED_SIDE, HASHED_SIDE), interpolation=cv2.INTER_AREA)


def _hash(small: np.ndarray) -> int:
    low = _COSINES @ small @ _COSINES.T
    ordered = np.sort(low, axis=None)
    middle = len(ordered) // 2
    median = (ordered[middle - 1] + ordered[middle]) / 2
    return int.from_bytes(np.packbits(low > median).tobytes(), "big")
