"""Temperature scaling against a general-purpose minimiser and against probabilities made too extreme on purpose."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax
from sklearn.metrics import log_loss

from marrowflow.choices.temperature import (
    COLDEST,
    apply_logit_temperature,
    apply_temperature,
    fit_logit_temperature,
    fit_temperature,
)


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


def yes_no(shape, seed):
    """Probabilities of yes/no questions, three times too sure, and their truths."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1, size=shape)
    return expit(3 * logits), rng.random(shape) < expit(logits)


@pytest.mark.parametrize("shape", [(300,), (200, 4)])
def test_the_logits_temperature_is_the_minimum_of_the_mean_log_loss(shape):
    p, y = yes_no(shape, 3)
    columns = list(zip(p.reshape(shape[0], -1).T, y.reshape(shape[0], -1).T, strict=True))

    def mean_loss(t):
        return np.mean([log_loss(truth, expit(logit(own) / t)) for own, truth in columns])

    best = minimize_scalar(mean_loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-9})
    found = fit_logit_temperature(p, y)
    assert found == pytest.approx(best.x, rel=1e-5)
    assert 2 < found < 4.5  # made three times too sure
    rescaled = apply_logit_temperature(p, found)
    assert rescaled.shape == shape
    np.testing.assert_allclose(rescaled, expit(logit(p) / found), rtol=1e-12)


def test_yes_no_probabilities_are_not_made_to_share():
    p = np.array([[0.9, 0.8, 0.05], [0.2, 0.1, 0.3]])
    cold = apply_logit_temperature(p, 0.5)
    odds = (p / (1 - p)) ** 2
    np.testing.assert_allclose(cold, odds / (1 + odds))
    np.testing.assert_allclose(apply_logit_temperature(cold, 2), p)
    assert np.isfinite(apply_logit_temperature([0.0, 1.0], 3)).all()
    with pytest.raises(ValueError, match=r"got shapes \(2, 3\), \(2,\)"):
        fit_logit_temperature(p, [True, False])
    with pytest.raises(ValueError, match="at least one case"):
        fit_logit_temperature(np.zeros((0, 3)), np.zeros((0, 3), bool))
    with pytest.raises(ValueError, match="finite numbers from 0"):
        fit_logit_temperature([1.5], [True])
