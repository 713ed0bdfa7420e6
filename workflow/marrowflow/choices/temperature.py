"""Recalibration of probabilities by a temperature.

One number is fitted on development predictions and applied unchanged to every hospital. The order
of a case's classes stays as it is, so the predicted class never changes.

Probabilities that share a sum of 1 (softmax) are scaled together. Those of yes/no questions (one-vs-rest, an endpoint with
a head of its own) are each scaled on their logit: a yes/no question is a softmax of two, p and 1 - p.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

log = logging.getLogger(__name__)

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures outside this range are not fitted: on separable data the log loss falls without end."""

# A probability of 0 (underflow of float32) counts as this, so that its logarithm is finite.
_LEAST = 1e-12


def fit_temperature(probabilities: ArrayLike, truth: ArrayLike) -> float:
    """Return the temperature that minimises the log loss of ``probabilities ** (1 / T)``, renormalised.

    Parameters
    ----------
    probabilities
        Array [cases, classes]; each row sums to 1.
    truth
        Integers [cases]: the column of the true class.

    Returns
    -------
    float
        T in `COLDEST`..`HOTTEST`; above 1 the probabilities were too extreme.

    Raises
    ------
    ValueError
        No case, or shapes and class numbers that do not fit.

    Notes
    -----
    Guo et al. 2017, On calibration of modern neural networks, section 4.2. A softmax's logarithms
    are its logits up to a constant a row, so probabilities serve as well as logits. The loss is
    convex in 1/T, so its minimum is the root of its derivative.
    """
    z, y = _logits(probabilities), np.asarray(truth, dtype=np.int64)
    if y.shape != (len(z),) or not len(z):
        raise ValueError(
            f"needs one true class a case and at least one case; got shapes {z.shape}, {y.shape}"
        )
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise ValueError(f"true classes must be 0..{z.shape[1] - 1}; found {y.min()}..{y.max()}")
    true = z[np.arange(len(y)), y]

    def slope(inverse: float) -> float:
        return float(np.mean((softmax(inverse * z, axis=1) * z).sum(axis=1) - true))

    if slope(1 / COLDEST) <= 0:
        log.warning("temperature: the log loss still falls at %g; it is kept there", COLDEST)
        return COLDEST
    if slope(1 / HOTTEST) >= 0:
        log.warning("temperature: the log loss still falls at %g; it is kept there", HOTTEST)
        return HOTTEST
    return 1.0 / float(brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-12))


def apply_temperature(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """Return ``probabilities ** (1 / temperature)`` with each row of [cases, classes] summing to 1 (float64)."""
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0, not {temperature!r}")
    scaled = _logits(probabilities) / temperature
    return np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))


def fit_logit_temperature(probabilities: ArrayLike, truth: ArrayLike) -> float:
    """Return the temperature that minimises the mean log loss of ``sigmoid(logit(p) / T)`` over yes/no questions.

    Parameters
    ----------
    probabilities
        Array of any shape, such as [cases] or [cases, classes]: one T for all.
    truth
        Bool, of the same shape: the answer is yes.

    Returns
    -------
    float
        As for `fit_temperature`.

    Raises
    ------
    ValueError
        No question, or shapes that differ.
    """
    y = np.asarray(truth, dtype=bool)
    pairs = _with_complements(probabilities)
    if y.shape != pairs.shape[:-1]:
        raise ValueError(f"needs one truth a probability; got shapes {pairs.shape[:-1]}, {y.shape}")
    return fit_temperature(pairs.reshape(-1, 2), y.ravel())


def apply_logit_temperature(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """Return ``sigmoid(logit(p) / temperature)`` (float64) of probabilities of any shape."""
    pairs = _with_complements(probabilities)
    return apply_temperature(pairs.reshape(-1, 2), temperature)[:, 1].reshape(pairs.shape[:-1])


def _with_complements(probabilities: ArrayLike) -> np.ndarray:
    """Return 1 - p and p, float64 [..., 2]."""
    p = np.asarray(probabilities, dtype=np.float64)
    return np.stack([1 - p, p], axis=-1)


def _logits(probabilities: ArrayLike) -> np.ndarray:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not np.isfinite(p).all() or (p < 0).any():
        raise ValueError("probabilities must be an array [cases, classes] of finite numbers from 0 on")
    return np.log(np.maximum(p, _LEAST))
