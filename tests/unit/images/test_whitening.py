import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.linalg import fractional_matrix_power
from scipy.ndimage import correlate

from marrowflow.config import Augmentation
from marrowflow.errors import UserError
from marrowflow.images.whitening import (
    MOST_IMAGES,
    Whitening,
    _draw_patches,
    apply_whitening,
    fit_patch_zca,
    fit_whitening,
    fitting_cases,
    whiten,
    zca_matrix,
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Smooth random colour images: neighbouring pixels and channels are correlated, as in a smear."""
    noise = np.random.default_rng(0).normal(size=(6, 40, 40, 3))
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-2, 3)) / 5
    noise = noise @ np.array([[1, 0.8, 0.6], [0, 0.6, 0.4], [0, 0, 0.3]])
    return np.clip(128 + 200 * noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def whitening(images) -> Whitening:
    return fit_patch_zca(images, epsilon=1e-2)


def test_matrix_is_the_inverse_square_root():
    flat = np.random.default_rng(1).normal(size=(500, 12)) @ np.random.default_rng(2).normal(size=(12, 12))
    covariance = flat.T @ flat / len(flat)
    expected = fractional_matrix_power(covariance + 0.05 * np.eye(12), -0.5)
    np.testing.assert_allclose(zca_matrix(flat, 0.05), expected, rtol=1e-8)
    # Without regularisation whitened data have the identity as covariance.
    white = flat @ zca_matrix(flat, 0.0)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(12), atol=1e-8)


def test_whitened_training_patches_have_the_identity_as_covariance(images):
    patches = _draw_patches(images, 7, 0).reshape(-1, 147) / 255
    flat = patches - patches.mean(axis=0)
    values = np.linalg.eigvalsh(flat.T @ flat / len(flat))
    for epsilon in (1e-2, 1e-9):
        white = flat @ zca_matrix(flat, epsilon)
        found = np.linalg.eigvalsh(white.T @ white / len(white))
        np.testing.assert_allclose(found, values / (values + epsilon), atol=1e-6)
    # The least eigenvalue is that of rounding to 8 bits, 1e-6: far above the second epsilon.
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(147), atol=5e-3)


def test_flat_places_turn_grey_and_edges_stay():
    # A dark disc on bright glass: within and without nothing varies, and at its rim the picture does.
    y, x = np.mgrid[:64, :64]
    radius = np.hypot(y - 31.5, x - 31.5)
    disc = np.where(radius[..., None] < 18, (90, 40, 130), (235, 228, 220))
    noise = np.random.default_rng(0).normal(0, 1, (64, 64, 3))
    image = np.clip(cv2.GaussianBlur(disc + 0.0, (0, 0), 1) + noise, 0, 255).astype(np.uint8)
    levels = apply_whitening(image[None], fit_patch_zca(image[None], 1e-3))[0].astype(float)
    flat, rim = (radius < 10) | ((radius > 26) & (radius < 30)), np.abs(radius - 18) < 2
    # They were 88 and 107 levels from the middle, in their most extreme channel.
    assert np.abs(levels[radius < 10].mean(axis=0) - 127.5).max() < 20
    assert np.abs(levels[(radius > 26) & (radius < 30)].mean(axis=0) - 127.5).max() < 20
    assert levels[rim].std() > 2 * levels[flat].std()


def test_convolution_equals_the_matrix_on_explicit_patches(images, whitening):
    white = whiten(images[0], whitening)
    padded = np.pad(images[0] / 255 - whitening.mean, ((3, 3), (3, 3), (0, 0)), mode="edge")
    for y, x in [(0, 0), (5, 9), (20, 20), (39, 0), (39, 39)]:
        patch = padded[y : y + 7, x : x + 7]
        expected = np.einsum("ocyx,yxc->o", whitening.kernel, patch)
        np.testing.assert_allclose(white[y, x], expected, atol=2e-5)


def test_convolution_agrees_with_scipy(images, whitening):
    x = images[1] / 255 - whitening.mean
    expected = np.stack(
        [
            sum(correlate(x[..., c], plane, mode="nearest") for c, plane in enumerate(kernel))
            for kernel in whitening.kernel
        ],
        axis=-1,
    )
    np.testing.assert_allclose(whiten(images[1], whitening), expected, atol=2e-5)


def test_training_pixels_come_out_white(images):
    # Little regularisation: the centre pixel's three channels, everywhere, have nearly unit covariance.
    whitening = fit_patch_zca(images, epsilon=1e-6)
    inner = np.stack([whiten(image, whitening)[3:-3, 3:-3] for image in images]).reshape(-1, 3)
    np.testing.assert_allclose(np.cov(inner.T), np.eye(3), atol=0.12)
    before = np.corrcoef((images.reshape(-1, 3) / 255).T)
    assert before[0, 1] > 0.5  # and they did not come in white


def test_output_is_in_levels_about_the_middle(images, whitening):
    levels = apply_whitening(images, whitening)
    assert levels.dtype == np.uint8 and levels.shape == images.shape
    # Three deviations reach the ends: the deviation is 127.5 / 3 = 42.5 levels (over all places and channels).
    assert abs(levels.mean() - 127.5) < 3
    assert abs(levels.std() - 42.5) < 4


def test_constant_training_images_stay_flat():
    flat = np.full((2, 9, 9, 3), (200, 120, 40), np.uint8)
    whitening = fit_patch_zca(flat, epsilon=1e-2)
    np.testing.assert_allclose(whitening.mean, np.array([200, 120, 40]) / 255, rtol=1e-6)
    # The covariance is 0: the kernel is the identity over the square root of epsilon.
    np.testing.assert_allclose(whitening.kernel[:, :, 3, 3], np.eye(3) / 0.1, atol=1e-5)
    assert set(np.unique(apply_whitening(flat, whitening))) <= {127, 128}


def test_small_epsilon_amplifies_unseen_images_more(images):
    unseen = np.random.default_rng(5).integers(0, 256, (1, 40, 40, 3), np.uint8)[0]
    size = {e: whiten(unseen, fit_patch_zca(images, e)).std() for e in (1e-6, 1e-2)}
    assert size[1e-6] > 5 * size[1e-2]


def test_fit_is_reproducible_and_reads_memory_maps(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    one, two, other = (fit_patch_zca(i, 1e-2, seed=s) for i, s in ((images, 3), (mapped, 3), (images, 4)))
    np.testing.assert_array_equal(one.kernel, two.kernel)
    assert (one.kernel != other.kernel).any()


@pytest.mark.parametrize("shape", [(0, 20, 20, 3), (2, 6, 20, 3)])
def test_too_little_to_fit_on_is_refused(shape):
    with pytest.raises(UserError, match="whitening cannot be fitted"):
        fit_patch_zca(np.zeros(shape, np.uint8), 1e-2)


def test_fitting_cases_do_not_depend_on_order_or_repeats():
    names = [f"c{i}" for i in range(3 * MOST_IMAGES)]
    chosen = fitting_cases(names, 0)
    assert len(set(chosen)) == MOST_IMAGES
    assert fitting_cases([*reversed(names), *names], 0) == chosen
    assert fitting_cases(names[:5], 1) == names[:5]


def test_a_plan_is_fitted_on_the_parents_of_its_training_samples(images):
    # Samples divided after they were made: image 1 is tested on only, image 2 on both sides.
    plan = pd.DataFrame(
        {
            "case_id": ["0", "0", "1", "2", "2"],
            "partition": ["train", "test", "test", "validation", "train"],
            "whiten": [True, False, True, True, False],
        }
    )

    def images_of(cases):
        return images[[int(case) for case in cases]]

    config = Augmentation(plan="eight", zca_epsilon=0.05, seed=3)
    found = fit_whitening(plan, images_of, config)
    np.testing.assert_array_equal(found.kernel, fit_patch_zca(images[[0, 2]], 0.05, seed=3).kernel)
    assert fit_whitening(plan[~plan["whiten"]], images_of, config) is None
