"""Measurements against scipy, ImageHash and hand counts."""

import cv2
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from marrowflow.cohorts.quality import measure, perceptual_hash


def painted(seed: int, side: int = 96) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), side / 12), None, 20, 235, cv2.NORM_MINMAX)


def test_focus_is_the_variance_of_scipys_laplacian():
    pixels = painted(0)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    expected = scipy.ndimage.laplace(grey.astype(float), mode="mirror").var()
    assert measure(pixels).focus == pytest.approx(expected, rel=1e-9)


def test_focus_falls_with_blur():
    sharp = painted(1)
    assert measure(cv2.GaussianBlur(sharp, (0, 0), 3)).focus < measure(sharp).focus / 2


def test_light_by_hand():
    pixels = np.full((10, 10, 3), 100, np.uint8)
    pixels[:5] = 255
    pixels[5, 0, 1] = 255
    quality = measure(pixels)
    assert quality.saturated == pytest.approx(151 / 300)
    # Green weighs .587 (BT.601) and the luma is rounded to a whole level.
    assert quality.brightness == pytest.approx((50 * 255 + 49 * 100 + round(100 + 0.587 * 155)) / 100)


def test_thumbnail_is_the_mean_of_areas():
    pixels = np.repeat(painted(2, 64)[..., :1], 3, axis=2)
    thumb = np.frombuffer(measure(pixels).thumb, np.uint8).reshape(16, 16)
    expected = pixels[..., 0].reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(thumb - expected).max() <= 1


def test_hash_by_scipys_cosine_transform():
    grey = painted(3, 32)[..., 0]
    low = scipy.fft.dctn(grey.astype(float), type=2)[:8, :8]
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert f"{perceptual_hash(grey):064b}" == bits


@pytest.mark.parametrize("seed", range(8))
def test_hash_agrees_with_imagehash(seed):
    imagehash = pytest.importorskip("imagehash")
    grey = cv2.cvtColor(painted(seed, 150), cv2.COLOR_RGB2GRAY)
    other = int(str(imagehash.phash(Image.fromarray(grey))), 16)
    assert (perceptual_hash(grey) ^ other).bit_count() <= 4


@given(st.integers(0, 1000), st.integers(16, 200), st.integers(16, 200))
@settings(deadline=None, max_examples=30)
def test_half_of_the_bits_are_set(seed, height, width):
    grey = cv2.resize(painted(seed)[..., 0], (width, height))
    assert perceptual_hash(grey).bit_count() == 32


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (2000, 3, 3)])
def test_odd_shapes_are_measured(shape):
    quality = measure(np.full(shape, 7, np.uint8))
    assert (quality.brightness, quality.focus) == (pytest.approx(7), pytest.approx(0))
    assert quality.thumb == bytes([7]) * 256
