"""Colour: exact filters against plain ones, stain methods against algebra and published implementations."""

import math
import warnings
from fractions import Fraction
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from marrowflow.config import ColourRecipe
from marrowflow.errors import UserError
from marrowflow.images import colour
from marrowflow.images.colour import (
    adaptive_median,
    correct,
    macenko,
    macenko_target,
    perfect_reflection,
    reinhard,
    reinhard_target,
)

PBC = Path(__file__).parents[4] / "shared" / "data" / "pbc" / "images"


# The definitions, as plain as they can be written.


def plain_adaptive_median(image, max_window):
    """Gonzalez & Woods' two levels, one sample after the other."""
    image = image[..., None] if image.ndim == 2 else image
    height, width, channels = image.shape
    result = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                result[y, x, c] = plain_adaptive_sample(image, y, x, c, max_window)
    return result


def plain_adaptive_sample(image, y, x, c, max_window):
    height, width, _ = image.shape
    for window in range(3, max_window + 1, 2):
        reach = range(-(window // 2), window // 2 + 1)
        values = sorted(
            int(image[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1), c])
            for dy in reach
            for dx in reach
        )
        low, median, high = values[0], values[len(values) // 2], values[-1]
        if low < median < high:
            sample = int(image[y, x, c])
            return sample if low < sample < high else median
    return median


def plain_perfect_reflection(image, fraction):
    """Exact fractions, a sort, one pixel after the other."""
    pixels = [tuple(int(v) for v in pixel) for pixel in image.reshape(-1, 3)]
    k = math.ceil(Fraction(str(fraction)) * len(pixels))
    limit = sorted((sum(pixel) for pixel in pixels), reverse=True)[k - 1]
    brightest = [pixel for pixel in pixels if sum(pixel) >= limit]
    white = [Fraction(sum(pixel[c] for pixel in brightest), len(brightest)) for c in range(3)]
    if min(white) < 16:
        return image, "almost black"
    scaled = [
        [min(255, math.floor(pixel[c] * 255 / white[c] + Fraction(1, 2))) for c in range(3)]
        for pixel in pixels
    ]
    return np.array(scaled, np.uint8).reshape(image.shape), ""


def images(channels=((), (1,), (3,)), side=9):
    """Tiny images: random, saturated, nearly saturated, of few levels, white."""
    levels = st.sampled_from([range(256), (0, 255), (0, 1, 254, 255), (100, 101, 102), (255,)])
    sides = st.integers(1, side)
    shape = st.builds(lambda h, w, c: (h, w, *c), sides, sides, st.sampled_from(channels))
    return st.builds(lambda s, v: (s, st.sampled_from(v)), shape, levels).flatmap(
        lambda pair: arrays(np.uint8, pair[0], elements=pair[1])
    )


def painted(height, width, seed, kind):
    """Images that lead the filter through each of its branches."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = 128 + 90 * np.sin(x / 9) * np.cos(y / 11)
    if kind == "noisy":
        image = smooth + rng.normal(0, 6, smooth.shape)
    elif kind == "banded":  # few levels: medians stuck at the extremes of every window
        image = smooth // 24 * 24
    elif kind == "saturated":
        image = smooth * 2 - 60
    elif kind == "sparse":  # impulses so dense that windows of 3 and 5 fail here and there
        image = np.where(rng.random(smooth.shape) < 0.35, 255, smooth + rng.normal(0, 6, smooth.shape))
    else:
        image = rng.choice([0, 60, 255], smooth.shape, p=[0.3, 0.3, 0.4])
    return np.clip(np.stack([image, image[::-1], 0.8 * image], axis=2), 0, 255).astype(np.uint8)


class TestAdaptiveMedian:
    @settings(deadline=None, max_examples=150)
    @given(image=images(), max_window=st.sampled_from([3, 5, 7]))
    def test_is_the_plain_filter_on_small_images(self, image, max_window):
        expected = plain_adaptive_median(image, max_window).reshape(image.shape)
        np.testing.assert_array_equal(adaptive_median(image, max_window), expected)
        for share in (0, 1):  # all by whole bands; all that 3×3 leaves by gathered windows
            limits = {"_WHOLE_ABOVE": {5: share, 7: share}, "_COUNTED_ABOVE": share}
            with mock.patch.multiple(colour, **limits):
                np.testing.assert_array_equal(adaptive_median(image, max_window), expected)

    @pytest.mark.parametrize("kind", ["noisy", "banded", "saturated", "sparse", "salt and pepper"])
    def test_is_the_plain_filter_whatever_branch_is_taken(self, kind):
        image = painted(26, 30, 1, kind)
        np.testing.assert_array_equal(adaptive_median(image), plain_adaptive_median(image, 7))

    def test_painted_images_reach_every_branch(self, monkeypatch):
        taken = set()
        for name in ("_filter_whole", "_filter_gathered", "_settle_saturated"):
            method = getattr(colour._Band, name)
            monkeypatch.setattr(
                colour._Band,
                name,
                lambda band, window, n=name, m=method: (taken.add((n, window)), m(band, window))[1],
            )
        for kind in ("noisy", "banded", "saturated", "sparse", "salt and pepper"):
            adaptive_median(painted(26, 30, 1, kind))
        assert taken == {
            ("_filter_whole", 3),
            ("_filter_whole", 5),
            ("_filter_whole", 7),
            ("_filter_gathered", 5),
            ("_filter_gathered", 7),
            ("_settle_saturated", 7),
        }

    @pytest.mark.parametrize("band", [1, 2, 7])
    def test_bands_leave_no_seam(self, monkeypatch, band):
        image = painted(24, 16, 2, "sparse")
        monkeypatch.setattr(colour, "_BAND", band)
        np.testing.assert_array_equal(adaptive_median(image), plain_adaptive_median(image, 7))

    def test_by_hand(self):
        # 3×3 around the centre: 10 11 12 13 255 14 15 16 17: median 14, the impulse goes.
        image = np.array([[10, 11, 12], [13, 255, 14], [15, 16, 17]], np.uint8)
        assert adaptive_median(image, 3)[1, 1] == 14
        # With 100 there and 255 in a corner it lies strictly between: kept.
        image[1, 1], image[0, 0] = 100, 255
        assert adaptive_median(image, 3)[1, 1] == 100

    def test_an_impulse_in_one_channel_is_taken_out_of_that_channel_only(self):
        rng = np.random.default_rng(0)
        image = rng.integers(90, 110, (15, 15, 3), dtype=np.uint8)
        image[7, 7] = (255, 100, 100)
        filtered = adaptive_median(image)
        assert filtered[7, 7, 0] < 110
        np.testing.assert_array_equal(
            filtered[..., 1:], np.dstack([adaptive_median(image[..., c]) for c in (1, 2)])
        )

    @pytest.mark.real
    @pytest.mark.skipif(not PBC.is_dir(), reason=f"no real smears: {PBC}")
    def test_is_the_plain_filter_on_real_cells(self):
        for folder in sorted(PBC.iterdir())[::3]:
            image = cv2.imread(str(min(folder.iterdir())))[150:190, 150:190]
            for version in (image, perfect_reflection(image)[0]):
                np.testing.assert_array_equal(adaptive_median(version), plain_adaptive_median(version, 7))


class TestPerfectReflection:
    @settings(deadline=None, max_examples=150)
    @given(
        image=images(channels=[(3,)]),
        fraction=st.sampled_from([0.001, 0.05, 0.07, 1 / 3, 0.5, 1]),
    )
    def test_is_the_plain_form(self, image, fraction):
        expected, flag = plain_perfect_reflection(image, fraction)
        found, found_flag = perfect_reflection(image, fraction)
        assert found_flag == flag
        np.testing.assert_array_equal(found, expected)

    def test_the_brightest_pixels_become_white(self):
        image = np.full((10, 10, 3), 100, np.uint8)
        image[0, :5] = (200, 220, 240)  # 5 of 100 pixels
        corrected, flag = perfect_reflection(image)
        assert flag == ""
        assert corrected[0, 0].tolist() == [255, 255, 255]
        # 100·255/200 = 127.5, halves up; 100·255/220 = 115.9; 100·255/240 = 106.25
        assert corrected[9, 9].tolist() == [128, 116, 106]

    def test_ties_at_the_limit_all_count(self):
        image = np.full((1, 10, 3), 50, np.uint8)
        image[0, :4] = [(100, 50, 30), (50, 100, 30), (60, 60, 60), (90, 50, 40)]  # all 180
        corrected, _ = perfect_reflection(image, 0.1)  # k = 1, but four tie: white is (75, 65, 40)
        assert corrected[0, 9].tolist() == [170, 196, 255]

    def test_the_share_is_taken_as_written(self):
        # 0.07 · 100 is 7.000000000000001 in binary; the eighth pixel must not count.
        image = np.full((1, 100, 3), 20, np.uint8)
        image[0, :7], image[0, 7] = 200, 100
        assert perfect_reflection(image, 0.07)[0][0, 7].tolist() == [128] * 3

    @pytest.mark.parametrize(("level", "flag"), [(15, "almost black"), (16, "")])
    def test_an_almost_black_image_is_left_as_it_is(self, level, flag):
        image = np.full((20, 20, 3), 3, np.uint8)
        image[:, :, 2] = 1
        image[0] = (200, 200, level)  # exactly 5 %
        corrected, found = perfect_reflection(image)
        assert found == flag
        assert (corrected is image) == bool(flag)

    def test_counts_are_exact_over_many_bands(self):
        rng = np.random.default_rng(3)
        image = rng.integers(0, 256, (700, 90, 3), dtype=np.uint8)
        sums = image.sum(axis=2).ravel()
        limit = np.sort(sums)[-math.ceil(sums.size * 0.05)]
        total = image.reshape(-1, 3)[sums >= limit].astype(np.int64).sum(axis=0)
        assert colour._brightest(image, math.ceil(sums.size * 0.05)) == (
            (sums >= limit).sum(),
            total.tolist(),
        )


RGB_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])


def plain_lab(image):
    """Reinhard et al. 2001, equations 4 to 6, a line each."""
    log_l, log_m, log_s = np.log(image.reshape(-1, 3).astype(float) @ RGB_TO_LMS.T).T
    return np.stack(
        [
            (log_l + log_m + log_s) / math.sqrt(3),
            (log_l + log_m - 2 * log_s) / math.sqrt(6),
            (log_l - log_m) / math.sqrt(2),
        ]
    )


def smear(seed, tint=(1.0, 1.0, 1.0)):
    """A pale field with violet nuclei and pink cells, without black or white."""
    rng = np.random.default_rng(seed)
    kind = cv2.resize(rng.random((8, 8)).astype(np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
    image = np.full((96, 96, 3), (215.0, 205.0, 200.0))
    image[kind > 0.5] = (190, 130, 150)
    image[kind > 0.75] = (110, 60, 140)
    noisy = image * tint + rng.normal(0, 5, image.shape)
    return np.clip(noisy, 20, 235).astype(np.uint8)


class TestReinhard:
    def test_the_result_has_the_targets_mean_and_deviation(self, tmp_path):
        target, source = smear(1), smear(2, (0.85, 0.9, 1.0))
        path = str(tmp_path / "target.png")
        cv2.imwrite(path, target[..., ::-1])
        before, after, wanted = (
            plain_lab(i) for i in (source, reinhard(source, reinhard_target(path))[0], target)
        )
        assert np.abs(before.mean(axis=1) - wanted.mean(axis=1)).max() > 0.1
        # Rounding to grey levels and clipping leave this much.
        np.testing.assert_allclose(after.mean(axis=1), wanted.mean(axis=1), atol=4e-3)
        np.testing.assert_allclose(after.std(axis=1), wanted.std(axis=1), rtol=0.02)

    def test_an_image_is_its_own_target(self, tmp_path):
        image = smear(3)
        cv2.imwrite(str(tmp_path / "t.png"), image[..., ::-1])
        corrected, flag = reinhard(image, reinhard_target(str(tmp_path / "t.png")))
        assert flag == ""
        assert np.abs(corrected.astype(int) - image).max() <= 1

    def test_published_reference(self):
        # Breast H&E of Amgad et al. 2019: l of 8.741/√3 = 5.05 is a grey level of about 155.
        corrected, flag = reinhard(smear(4), reinhard_target(None))
        assert flag == ""
        np.testing.assert_allclose(
            plain_lab(np.maximum(corrected, 1)).mean(axis=1), [8.741, -0.124, 0.0445], atol=0.1
        )

    @pytest.mark.parametrize("image", [np.full((9, 9, 3), 77, np.uint8), np.zeros((9, 9, 3), np.uint8)])
    def test_a_flat_image_is_left_and_flagged(self, image):
        corrected, flag = reinhard(image, reinhard_target(None))
        assert flag == "no colour variation"
        assert corrected is image

    def test_a_grey_image_is_left_and_flagged(self):
        grey = np.repeat(smear(5)[..., :1], 3, axis=2)
        assert reinhard(grey, reinhard_target(None))[1] == "no colour variation"


HAEMATOXYLIN_EOSIN = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])


FIRST, SECOND = (0.70, 0.65, 0.29), (0.27, 0.57, 0.78)


def stained(first=FIRST, second=SECOND):
    """Two known stains in known amounts (float64 [3, 2] and [2, 4096]), and the image that they make."""
    stains = np.array([first, second])
    stains = (stains / np.linalg.norm(stains, axis=1, keepdims=True)).T
    amounts = np.stack([a.ravel() for a in np.meshgrid(*[np.linspace(0.6, 2.2, 64)] * 2)])
    amounts[:, :64] = np.outer([1, 0], np.linspace(0.6, 1.9, 64))  # the first stain alone
    amounts[:, -64:] = np.outer([0, 1], np.linspace(0.6, 1.9, 64))  # the second alone
    image = np.rint(240 * np.exp(-stains @ amounts) - 1).astype(np.uint8)
    return stains, amounts, image.T.reshape(64, 64, 3)


class TestMacenko:
    def test_finds_the_stains_that_made_the_image(self, tmp_path):
        stains, amounts, image = stained()
        cv2.imwrite(str(tmp_path / "t.png"), image[..., ::-1])
        found = macenko_target(str(tmp_path / "t.png"))
        np.testing.assert_allclose(found.stains, stains, atol=1e-3)
        np.testing.assert_allclose(found.concentrations, np.percentile(amounts, 99, axis=1), rtol=5e-3)

    def test_agrees_with_torchstain(self, tmp_path):
        # What torchstain 1.4.1 (numpy) finds on this image, where every pixel is stained.
        _, _, image = stained()
        cv2.imwrite(str(tmp_path / "t.png"), image[..., ::-1])
        found = macenko_target(str(tmp_path / "t.png"))
        np.testing.assert_allclose(
            found.stains,
            [[0.70091715, 0.26909618], [0.65120555, 0.56814744], [0.29094067, 0.77768614]],
            atol=2e-5,
        )
        np.testing.assert_allclose(found.concentrations, [2.19508309, 2.16912123], atol=1e-4)
        corrected, _ = macenko(image, macenko_target(None))
        theirs = {(5, 7): (150, 109, 149), (40, 20): (115, 63, 104), (60, 60): (66, 27, 63)}
        for (y, x), pixel in theirs.items():
            # They leave out the 1 that keeps black's logarithm finite, and cut off where we round.
            assert set(np.array(pixel) - corrected[y, x]) <= {0, 1}

    def test_result_is_the_targets_stains_in_proportion(self):
        _, amounts, image = stained()
        corrected, flag = macenko(image, macenko_target(None))
        assert flag == ""
        scaled = amounts * (np.array([1.9705, 1.0308]) / np.percentile(amounts, 99, axis=1))[:, None]
        expected = np.clip(240 * np.exp(-HAEMATOXYLIN_EOSIN @ scaled) - 1, 0, 255)
        assert np.abs(corrected.reshape(-1, 3).T - expected).max() < 2

    def test_stains_that_take_the_same_red_are_not_mixed_up(self, tmp_path):
        # Violet of nuclei and brown of red cells, as found on Giemsa smears; brown takes a
        # little less red than violet in one image and a little more in the other.
        _, _, target = stained((0.45, 0.85, 0.28), (0.43, 0.60, 0.68))
        _, _, image = stained((0.45, 0.83, 0.33), (0.47, 0.58, 0.66))
        cv2.imwrite(str(tmp_path / "t.png"), target[..., ::-1])
        corrected, _ = macenko(image, macenko_target(str(tmp_path / "t.png")))
        assert np.abs(corrected.astype(int) - target).max() <= 3

    def test_empty_glass_does_not_change_the_result(self):
        _, _, image = stained()
        on_glass = np.full((256, 64, 3), 239, np.uint8)
        on_glass[:64] = image
        np.testing.assert_array_equal(
            macenko(on_glass, macenko_target(None))[0][:64], macenko(image, macenko_target(None))[0]
        )

    def test_an_image_is_its_own_target(self, tmp_path):
        _, _, image = stained()
        cv2.imwrite(str(tmp_path / "t.png"), image[..., ::-1])
        corrected, _ = macenko(image, macenko_target(str(tmp_path / "t.png")))
        assert np.abs(corrected.astype(int) - image).max() <= 1

    def test_unstained_and_singly_stained_images_are_left_and_flagged(self):
        white = np.full((20, 20, 3), 245, np.uint8)
        assert macenko(white, macenko_target(None)) == (white, "no stained pixels")
        stains, _, _ = stained()
        single = np.rint(240 * np.exp(-np.outer(np.linspace(0.6, 2, 400), stains[:, 0])) - 1)
        single = single.astype(np.uint8).reshape(20, 20, 3)
        assert macenko(single, macenko_target(None))[1] == "a single stain"


@settings(deadline=None, max_examples=100)
@given(
    image=images(channels=[(3,)], side=24),
    method=st.sampled_from(["reinhard", "macenko", "reflection_median"]),
)
def test_no_image_makes_a_nan(image, method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns where a NaN or an infinity becomes a grey level
        corrected, flag = correct(image, ColourRecipe(method=method), 16, "stretch")
    assert corrected.shape == (16, 16, 3)
    assert corrected.dtype == np.uint8
    if flag and method != "reflection_median":
        plain, _ = correct(image, ColourRecipe(), 16, "stretch")
        np.testing.assert_array_equal(corrected, plain)


def test_an_outlier_beyond_all_exponents_becomes_white():
    image = np.full((250, 250, 3), (10, 60, 60), np.uint8)
    image[100, 100] = (255, 120, 60)  # 250 deviations from the mean: l of 160, LMS of e^93
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corrected, flag = reinhard(image, reinhard_target(None))
    assert flag == ""
    assert corrected[100, 100].tolist() == [255, 255, 255]
    assert len(np.unique(corrected.reshape(-1, 3), axis=0)) == 2


class TestTargets:
    @pytest.mark.parametrize("read", [reinhard_target, macenko_target])
    def test_missing_unreadable_and_unstained_files_are_told(self, tmp_path, read):
        with pytest.raises(UserError, match="cannot be read"):
            read(str(tmp_path / "none.png"))
        (tmp_path / "text.png").write_text("no image")
        with pytest.raises(UserError, match="no readable image"):
            read(str(tmp_path / "text.png"))
        cv2.imwrite(str(tmp_path / "white.png"), np.full((30, 30, 3), 250, np.uint8))
        with pytest.raises(UserError, match="stained smear"):
            read(str(tmp_path / "white.png"))


class TestFit:
    def test_shrinking_by_a_whole_number_is_the_mean_of_blocks(self):
        image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
        square, _ = correct(image, ColourRecipe(), 32, "stretch")
        means = image.reshape(32, 2, 32, 3, 3).mean(axis=(1, 3))
        assert np.abs(square - means).max() <= 0.5

    def test_one_side_may_shrink_while_the_other_grows(self):
        # Stripes of one pixel along the side that shrinks by 4: any interpolation between
        # two of them would alias; their mean is 100.
        image = np.zeros((16, 128, 3), np.uint8)
        image[:, ::2] = 200
        square, _ = correct(image, ColourRecipe(), 32, "stretch")
        assert set(np.unique(square)) == {100}

    def test_enlarging_does_not_overshoot(self):
        image = np.full((8, 8, 3), 40, np.uint8)
        image[:, 4:] = 200
        square, _ = correct(image, ColourRecipe(), 50, "stretch")
        assert (square.min(), square.max()) == (40, 200)

    def test_pad_repeats_the_edges(self):
        image = np.random.default_rng(1).integers(0, 256, (20, 31, 3), dtype=np.uint8)
        square, _ = correct(image, ColourRecipe(), 31, "pad")
        np.testing.assert_array_equal(square[5:25], image)
        assert (square[:5] == image[0]).all()
        assert (square[25:] == image[-1]).all()

    def test_pad_keeps_a_sliver(self):
        assert correct(np.full((1, 900, 3), 9, np.uint8), ColourRecipe(), 32, "pad")[0].shape == (32, 32, 3)

    def test_crop_takes_the_centre(self):
        image = np.random.default_rng(2).integers(0, 256, (20, 40, 3), dtype=np.uint8)
        square, _ = correct(image, ColourRecipe(), 20, "crop")
        np.testing.assert_array_equal(square, image[:, 10:30])


class TestOrder:
    def test_paper_is_reflection_median_resize(self):
        image = smear(6)
        expected = cv2.resize(
            plain_adaptive_median(plain_perfect_reflection(image, 0.2)[0], 3),
            (48, 48),
            interpolation=cv2.INTER_AREA,
        )
        recipe = ColourRecipe(method="reflection_median", fraction=0.2, max_window=3)
        np.testing.assert_array_equal(correct(image, recipe, 48, "stretch")[0], expected)

    def test_fast_is_median_resize_reflection(self):
        image = smear(7)
        shrunk = cv2.resize(plain_adaptive_median(image, 3), (48, 48), interpolation=cv2.INTER_AREA)
        recipe = ColourRecipe(method="reflection_median", max_window=3, order="fast")
        np.testing.assert_array_equal(
            correct(image, recipe, 48, "stretch")[0], plain_perfect_reflection(shrunk, 0.05)[0]
        )

    def test_padding_does_not_weigh_in_the_white_point(self):
        image = smear(8)[:40]
        image[:2] = 235  # the edge that padding repeats
        recipe = ColourRecipe(method="reflection_median", order="fast")
        padded, _ = correct(image, recipe, 96, "pad")
        expected, _ = perfect_reflection(adaptive_median(image))
        np.testing.assert_array_equal(padded[28:68], expected)

    def test_an_almost_black_image_still_loses_its_impulses(self):
        image = np.random.default_rng(9).integers(0, 5, (32, 32, 3), dtype=np.uint8)
        image[16, 16] = 255
        for order in ("paper", "fast"):
            recipe = ColourRecipe(method="reflection_median", order=order)
            corrected, flag = correct(image, recipe, 32, "stretch")
            assert flag == "almost black"
            assert corrected.max() < 5

    @pytest.mark.real
    @pytest.mark.skipif(not PBC.is_dir(), reason=f"no real smears: {PBC}")
    def test_the_orders_differ_by_about_a_grey_level_on_real_cells(self):
        differences = []
        for folder in sorted(PBC.iterdir()):
            image = cv2.imread(str(min(folder.iterdir())))[..., ::-1].copy()
            paper, fast = (
                correct(image, ColourRecipe(method="reflection_median", order=order), 224, "stretch")[0]
                for order in ("paper", "fast")
            )
            differences.append(np.abs(paper.astype(int) - fast).mean())
        assert 0 < np.mean(differences) < 2
