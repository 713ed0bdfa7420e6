"""Temperature scaling against a general-purpose minimiser and against probabilities made too extreme on purpose."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from marrowflow.choices.temperature import COLDEST, apply_temperature, fit_temperature


def drawn(n, seed):
    """Probabilities, and truths that were drawn with just these chances."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(size=(n, 3)), axis=1)
    return p, (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_recovers_the_temperature_that_was_applied(factor):
    p, y = drawn(40_000, 0)
    overdone = apply_temperature(p, 1 / factor)
    assert fit_temperature(overdone, y) == pytest.approx(factor, rel=0.04)


def test_is_the_minimum_of_the_log_loss():
    p, y = drawn(300, 1)
    best = minimize_scalar(lambda t: log_loss(y, apply_temperature(p, t)), bounds=(0.1, 10), method="bounded")
    assert fit_temperature(p, y) == pytest.approx(best.x, rel=1e-4)


def test_separable_data_stop_at_the_edge_and_zeros_are_bearable():
    assert fit_temperature(np.array([[0.9, 0.1], [0.2, 0.8]]), [0, 1]) == COLDEST
    assert np.isfinite(fit_temperature(np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]]), [1, 1, 0]))


def test_keeps_the_order_of_classes_and_is_undone_by_its_inverse():
    p, _ = drawn(50, 2)
    hot = apply_temperature(p, 2.5)
    assert np.allclose(hot.sum(axis=1), 1)
    assert (hot.argsort(axis=1) == p.argsort(axis=1)).all()
    assert np.allclose(apply_temperature(hot, 1 / 2.5), p)
    assert np.allclose(hot[:, 0] / hot[:, 1], (p[:, 0] / p[:, 1]) ** 0.4)


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one true class"):
        fit_temperature(np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match=r"0\.\.1"):
        fit_temperature(np.array([[0.5, 0.5]]), [2])
    with pytest.raises(ValueError, match="above 0"):
        apply_temperature(np.array([[0.5, 0.5]]), 0)
