"""Patch ZCA whitening: one small convolution, fitted on training images only.

ZCA whitens by ``W = (C + eps I)^(-1/2)``, the whitening that changes its input least (Bell and
Sejnowski, 1997; Kessy, Lewin and Strimmer, 2018). For whole 256×256×3 images ``C`` has
196,608² entries, which cannot be fitted; neighbouring pixels carry nearly all of the correlation, so
``C`` is that of 7×7×3 patches instead and only the centre pixel of each whitened patch is kept. That
makes the whitening a convolution, the same at every place of the image:

    y   = convolution(x / 255 - mean, kernel)      edge pixels replicated, no kernel flip
    out = 127.5 + gain * y                         rounded and clipped to 0..255

``gain`` is one number for all channels, so that the balance between them survives. It puts three
standard deviations of the whitened training pixels at the ends of the 8-bit range, for all images alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from marrowflow.config import Augmentation
from marrowflow.errors import UserError
from marrowflow.splits.keyed import keyed_order
from marrowflow.splits.samples import TRAIN

MOST_IMAGES = 1000
"""The covariance of a patch has 147² entries: more images than this do not make it more certain."""

_PATCHES = 50_000
_MIDDLE = 127.5
_DEVIATIONS_SHOWN = 3.0


@dataclass(frozen=True)
class Whitening:
    """A fitted patch ZCA.

    Attributes
    ----------
    kernel
        float32 [3, 3, patch, patch]: output channel, input channel, row, column; applied as a
        cross-correlation, which is what ``torch.nn.functional.conv2d`` computes.
    mean
        float32 [3]: mean of the training pixels, R, G, B, on the scale 0..1.
    gain
        8-bit levels a unit of whitened output.
    """

    kernel: np.ndarray
    mean: np.ndarray
    gain: float

    @property
    def offset(self) -> float:
        """8-bit level of a whitened output of 0."""
        return _MIDDLE


def fit_whitening(
    plan: pd.DataFrame, images_of: Callable[[Sequence[str]], np.ndarray], augmentation: Augmentation
) -> Whitening | None:
    """Fit the whitening of a plan on the parents of its training samples.

    Parameters
    ----------
    plan
        Of `marrowflow.images.augment`.
    images_of
        Returns the images of cases, uint8 [cases, height, width, 3], RGB.
    augmentation
        Epsilon and seed.

    Returns
    -------
    Whitening or None
        None where the plan whitens nothing.
    """
    if not plan["whiten"].any():
        return None
    cases = fitting_cases(plan.loc[plan["partition"] == TRAIN, "case_id"], augmentation.seed)
    return fit_patch_zca(images_of(cases), augmentation.zca_epsilon, seed=augmentation.seed)


def fitting_cases(case_ids: Iterable[str], seed: int) -> list[str]:
    """Return the training cases to fit on: all, or the first `MOST_IMAGES` by keyed hash.

    ``case_ids`` may repeat (a plan's parents); their order makes no difference.
    """
    return sorted(keyed_order(set(case_ids), "whitening", seed)[:MOST_IMAGES])


def fit_patch_zca(images: np.ndarray, epsilon: float, patch: int = 7, seed: int = 0) -> Whitening:
    """Fit the whitening on patches drawn evenly from the training images.

    Parameters
    ----------
    images
        uint8 [images, height, width, 3], RGB; training images of one fold, none other.
    epsilon
        Added to the eigenvalues of the covariance of patches, on the scale 0..1 of pixels. A small one
        (1e-6 was published) amplifies directions in which training images hardly vary, and unseen ones do.
    patch
        Side of the patch in pixels, odd.
    seed
        Of the places from which patches are drawn.

    Raises
    ------
    UserError
        No image, or images smaller than a patch.
    """
    if len(images) == 0 or min(images.shape[1:3]) < patch:
        raise UserError(
            f"whitening cannot be fitted on {len(images)} images of {images.shape[2]}×{images.shape[1]} pixels: "
            f"it needs at least one image of {patch}×{patch}; set images.size higher or augmentation.plan: off"
        )
    patches = _draw_patches(images, patch, seed).astype(np.float64) / 255
    mean = patches.mean(axis=(0, 1, 2))
    flat = (patches - mean).reshape(len(patches), -1)
    matrix = zca_matrix(flat, epsilon)
    centre = 3 * (patch * patch // 2)
    rows = matrix[centre : centre + 3]
    deviation = float(np.sqrt(np.mean((flat @ rows.T) ** 2)))
    return Whitening(
        kernel=np.ascontiguousarray(rows.reshape(3, patch, patch, 3).transpose(0, 3, 1, 2), dtype=np.float32),
        mean=mean.astype(np.float32),
        gain=_MIDDLE / (_DEVIATIONS_SHOWN * deviation) if deviation > 1e-9 else 1.0,
    )


def zca_matrix(flat: np.ndarray, epsilon: float) -> np.ndarray:
    """Return ``(C + epsilon I)^(-1/2)`` of centred rows, ``C`` being their mean outer product: float64 [d, d]."""
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    return (vectors / np.sqrt(np.maximum(values, 0) + epsilon)) @ vectors.T


def apply_whitening(images: np.ndarray, whitening: Whitening) -> np.ndarray:
    """Whiten uint8 [images, height, width, 3]; return uint8 of the same shape, by the module's formula."""
    whitened = np.empty_like(images)
    for i, image in enumerate(images):
        levels = _MIDDLE + whitening.gain * whiten(image, whitening)
        whitened[i] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return whitened


def whiten(image: np.ndarray, whitening: Whitening) -> np.ndarray:
    """Return the whitened pixels of one uint8 [height, width, 3] image: float32 of the same shape, about 0."""
    channels = cv2.split(image.astype(np.float32) / np.float32(255) - whitening.mean)
    return cv2.merge([_correlate(channels, kernel) for kernel in whitening.kernel])


def _correlate(channels: Sequence[np.ndarray], kernel: np.ndarray) -> np.ndarray:
    total = np.zeros_like(channels[0])
    for channel, plane in zip(channels, kernel, strict=True):
        total += cv2.filter2D(channel, cv2.CV_32F, plane, borderType=cv2.BORDER_REPLICATE)
    return total


def _draw_patches(images: np.ndarray, patch: int, seed: int) -> np.ndarray:
    """Draw about `_PATCHES` patches, as many of each image: uint8 [patches, patch, patch, 3]."""
    number, height, width = images.shape[:3]
    each = -(-_PATCHES // number)
    generator = np.random.default_rng(seed)
    image = np.repeat(np.arange(number), each)[:, None, None]
    top = generator.integers(0, height - patch + 1, len(image))
    left = generator.integers(0, width - patch + 1, len(image))
    rows = top[:, None, None] + np.arange(patch)[None, :, None]
    columns = left[:, None, None] + np.arange(patch)[None, None, :]
    return images[image, rows, columns]
