"""Tissue found on painted slides, and shares of masks, against brute force."""

import cv2
import numpy as np
import pytest

from marrowflow.slides.tissue import Mask, find_tissue, share_inside
from marrowflow.study_slides import Tissue

PINK = (200, 120, 170)
GLASS = (242, 241, 240)


def seen(rows=120, columns=160, noise=0.0):
    picture = np.empty((rows, columns, 3), np.float64)
    picture[:] = GLASS
    picture += np.random.default_rng(0).normal(0, noise, picture.shape)
    return picture


def as_picture(picture):
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def test_otsu_parts_the_levels_where_the_variance_between_is_largest():
    """By trying all 255 thresholds."""
    picture = seen(noise=4)
    picture[30:90, 40:120] = PINK
    picture = as_picture(picture + np.random.default_rng(1).normal(0, 6, picture.shape))
    levels = cv2.medianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1], 5).astype(float)
    best = max(
        range(255),
        key=lambda t: (
            (levels > t).mean()
            * (levels <= t).mean()
            * (levels[levels > t].mean() - levels[levels <= t].mean()) ** 2
            if (levels > t).any() and (levels <= t).any()
            else -1
        ),
    )
    found = find_tissue(picture, 16, 0.25, Tissue(min_object=0, min_hole=0))
    assert found.threshold == best
    assert (found.inside == (levels > best)).all()


@pytest.mark.parametrize("method", ["saturation", "grey"])
def test_tissue_is_where_it_was_painted(method):
    picture = seen(noise=2)
    picture[30:90, 40:120] = PINK
    found = find_tissue(as_picture(picture), 16, 0.25, Tissue(method=method))
    assert found.inside[34:86, 44:116].all()
    assert not found.inside[:26].any()
    assert not found.inside[:, :36].any()


def test_a_blank_slide_has_no_tissue_whatever_its_noise():
    for noise in (0, 1, 3):
        assert not find_tissue(as_picture(seen(noise=noise)), 16, 0.25, Tissue()).inside.any()


def test_specks_go_and_holes_close_by_their_area():
    """A pixel is (16 x .25)² = 16 µm²."""
    picture = seen()
    picture[20:100, 20:100] = PINK
    picture[50:56, 50:56] = GLASS  # 36 pixels, 576 µm²
    picture[60:80, 60:80] = GLASS  # 400 pixels, 6,400 µm²
    picture[10:16, 130:136] = PINK  # 576 µm²
    found = find_tissue(as_picture(picture), 16, 0.25, Tissue(min_object=1000, min_hole=1000))
    assert found.inside[53, 53]
    assert not found.inside[70, 70]
    assert not found.inside[13, 133]
    kept = find_tissue(as_picture(picture), 16, 0.25, Tissue(min_object=100, min_hole=100))
    assert not kept.inside[53, 53]
    assert kept.inside[13, 133]


def test_all_takes_the_whole_slide():
    assert find_tissue(as_picture(seen()), 16, 0.25, Tissue(method="all")).inside.all()


def test_shares_equal_the_count_of_a_fine_raster():
    chance = np.random.default_rng(2)
    mask = Mask(chance.random((9, 12)) < 0.5, 4.0)
    fine = np.kron(mask.inside, np.ones((40, 40)))  # ten places a pixel of the finest level
    left, top = chance.integers(-6, 40, 50), chance.integers(-6, 30, 50)
    for span in (1.0, 3.0, 7.5):
        found = share_inside(mask, left, top, span)
        for share, x, y in zip(found, left, top, strict=True):
            x0, y0 = (max(0, int(10 * v)) for v in (x, y))
            part = fine[y0 : max(0, int(10 * (y + span))), x0 : max(0, int(10 * (x + span)))]
            assert share == pytest.approx(part.sum() / (10 * span) ** 2, abs=1e-6)
