"""The contour crop: squares known by construction, pixel counts by another library, hand-drawn masks of real cells."""

from pathlib import Path

import cv2
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from marrowflow.config import ColourRecipe
from marrowflow.images.colour import correct
from marrowflow.images.crop import NO_CONTOUR, Square, _enclosed, central_square, contour_crop, stained

ZHENG = Path(__file__).parents[4] / "shared" / "data" / "wbc_zheng"
GLASS, PURPLE = (232, 226, 214), (96, 48, 130)


def smear(height: int = 90, width: int = 120) -> np.ndarray:
    """Clear glass with a little noise, and pale red cells that are no cells to crop."""
    image = np.full((height, width, 3), GLASS, np.uint8)
    noise = np.random.default_rng(0).integers(-3, 4, image.shape)
    return (image + noise).astype(np.uint8)


def test_square_of_the_most_central_cell():
    image = smear()
    image[30:60, 50:70] = PURPLE  # 30 × 20 pixels, centre (60, 45): the image's own
    image[10:30, 80:110] = PURPLE  # larger box, further off
    assert central_square(image, 100) == Square(left=45, top=30, side=30)
    cropped, flag = contour_crop(image, 100)
    np.testing.assert_array_equal(cropped, image[30:60, 45:75])
    assert flag == "" and cropped.flags.c_contiguous


@pytest.mark.parametrize(("min_contour", "side"), [(9, 3), (10, 20)])
def test_dust_is_passed_over(min_contour, side):
    image = smear()
    image[44:47, 59:62] = PURPLE  # 9 pixels at the very centre
    image[10:30, 10:30] = PURPLE
    assert central_square(image, min_contour).side == side


def test_a_ring_encloses_what_is_within_it():
    image = smear()
    image[30:60, 40:70] = PURPLE
    image[31:59, 41:69] = GLASS  # 116 pixels of ring, 900 with what they enclose
    assert central_square(image, 900) == Square(40, 30, 30)
    assert central_square(image, 901) is None


def test_square_is_moved_inside_the_image():
    image = smear()
    image[20:80, 0:10] = PURPLE  # 60 × 10 pixels at the left edge
    assert central_square(image, 100) == Square(0, 20, 60)
    np.testing.assert_array_equal(contour_crop(image, 100)[0], image[20:80, :60])


def test_square_larger_than_the_image_repeats_its_edges():
    image = smear(40, 120)
    image[10:30, 20:100] = PURPLE
    cropped, flag = contour_crop(image, 100)
    assert (cropped.shape, flag) == ((80, 80, 3), "")
    np.testing.assert_array_equal(cropped[20:60], image[:, 20:100])
    assert (cropped[:20] == image[0, 20:100]).all() and (cropped[60:] == image[-1, 20:100]).all()


@pytest.mark.parametrize("dust", [0, 2])
def test_image_without_a_contour_stays_whole(dust):
    image = np.full((40, 50, 3), GLASS, np.uint8)
    image[20 : 20 + dust, 20:30] = PURPLE
    whole, flag = contour_crop(image, 100)
    assert whole is image and flag == NO_CONTOUR == "no contour"


@pytest.mark.parametrize("level", [0, 4, 255])
def test_a_flat_image_shows_nothing(level):
    assert not stained(np.full((30, 40, 3), level, np.uint8)).any()


@settings(deadline=None, max_examples=60)
@given(mask=arrays(np.uint8, (14, 17), elements=st.sampled_from([0, 0, 1])))
def test_enclosed_pixels_agree_with_filled_components(mask):
    filled = ndimage.binary_fill_holes(
        mask
    )  # a hole's pixels touch by their sides, a component's by corners too
    components, number = ndimage.label(filled, np.ones((3, 3)))
    expected = sorted(np.bincount(components.ravel())[1:]) if number else []
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    assert sorted(map(_enclosed, contours)) == expected


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), height=st.integers(12, 70), width=st.integers(12, 70))
def test_square_is_within_the_image_or_covers_it(seed, height, width):
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 3)
    square = central_square(image, 5)
    assert square is not None
    for start, length in ((square.left, width), (square.top, height)):
        inside = start >= 0 and start + square.side <= length
        assert inside if square.side <= length else start <= 0 and start + square.side >= length
    assert contour_crop(image, 5)[0].shape == (square.side, square.side, 3)


def test_threshold_is_otsus():
    # Otsu 1979: the level that makes the variance between the two sides largest, on the green channel alone.
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 40, 3), np.uint8)
    image[..., 1] = np.clip(
        np.where(rng.random((40, 40)) < 0.3, 70, 190) + rng.normal(0, 25, (40, 40)), 0, 255
    )
    green = image[..., 1].astype(float)

    def between(level: int) -> float:
        low, high = green[green <= level], green[green > level]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(range(int(green.min()), int(green.max())), key=between)
    np.testing.assert_array_equal(stained(image) == 255, green <= best)


@pytest.mark.parametrize(
    "method",
    [
        {"method": "none"},
        {"method": "reflection_median"},
        {"method": "reflection_median", "order": "fast"},
        {"method": "reinhard"},
        {"method": "macenko"},
    ],
)
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_each_method_works_on_the_crop(method, fit):
    image = smear()
    image[25:65, 40:80] = PURPLE
    image[35:50, 50:72] = (180, 90, 110)
    image[:10] = 255  # glare, which must not become the white point
    square = np.ascontiguousarray(image[25:65, 40:80])
    found, flag = correct(image, ColourRecipe(crop="contour", **method), 32, fit)
    expected, expected_flag = correct(square, ColourRecipe(**method), 32, fit)
    np.testing.assert_array_equal(found, expected)
    assert flag == expected_flag
    assert (found != correct(image, ColourRecipe(**method), 32, fit)[0]).any()


def test_both_reasons_are_in_the_flag():
    recipe = ColourRecipe(method="reflection_median", crop="contour")
    black, flag = correct(np.full((30, 40, 3), 4, np.uint8), recipe, 20, "stretch")
    assert flag == "no contour; almost black"
    assert black.shape == (20, 20, 3)


PLANES = {
    "green": lambda image: image[..., 1],
    "grey": lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
    "saturation": lambda image: 255 - cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1],
}


@pytest.mark.real
@pytest.mark.parametrize(
    ("cohort", "plane", "cell", "nucleus"),
    [
        ("tecom", "green", 0.97, 0.98),
        ("cellavision_blog", "green", 0.91, 0.97),
        ("tecom", "grey", 0.96, 0.98),
        ("cellavision_blog", "grey", 0.90, 0.96),
        ("tecom", "saturation", 0.78, 0.64),
        ("cellavision_blog", "saturation", 0.72, 0.89),
    ],
)
def test_square_holds_the_hand_drawn_cell(cohort, plane, cell, nucleus):
    """The figures of the module's docstring: mean share of the cell's pixels, share of images with the whole nucleus."""
    if not ZHENG.is_dir():
        pytest.skip(f"{ZHENG} is missing")
    manifest = pd.read_csv(ZHENG / "manifest.csv")
    held, whole_nucleus = [], []
    for row in manifest[manifest["cohort"] == cohort].itertuples():
        image = cv2.cvtColor(cv2.imread(str(ZHENG / row.image_path)), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(ZHENG / row.mask_path), cv2.IMREAD_GRAYSCALE)  # 255 nucleus, 128 cytoplasm
        square = central_square(cv2.merge([PLANES[plane](image)] * 3), 100)
        assert square is not None
        left, top, side = square
        part = mask[max(top, 0) : top + side, max(left, 0) : left + side]
        held.append((part > 0).sum() / (mask > 0).sum())
        whole_nucleus.append((part == 255).sum() >= 0.99 * (mask == 255).sum())
    assert np.mean(held) == pytest.approx(cell, abs=0.005)
    assert np.mean(whole_nucleus) == pytest.approx(nucleus, abs=0.005)
