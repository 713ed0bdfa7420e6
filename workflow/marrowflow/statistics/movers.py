"""Intervals of functions of proportions, from the interval of each (method of variance estimates recovery, MOVER).

The limits of a sum, a mean, a difference or a ratio follow from the distances of each part's limits to its estimate, as
variances would (Zou and Donner 2008, Stat Med 27:1693). The parts' limits are those of `wilson_clustered`, which reckon
with the errors that might have been where a sample has none; so do these, where resampling or leaving patients out
finds nothing that varies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from marrowflow.statistics.bootstrap import Interval
from marrowflow.statistics.intervals import wilson_clustered

METHOD = "mover_wilson_neff"

Proportion = tuple[np.ndarray, np.ndarray]
"""Numerators and denominators, float64 [patients]."""


@dataclass(frozen=True)
class Parts:
    """Proportions with their limits, float64 [parts], and their correlations, float64 [parts, parts]."""

    estimates: np.ndarray
    low: np.ndarray
    high: np.ndarray
    correlations: np.ndarray


def wilson_parts(proportions: Sequence[Proportion], confidence: float, paired: bool = True) -> Parts | None:
    """Return the parts that the other functions put together; None where one of them has no interval.

    Parameters
    ----------
    proportions
        Two or more.
    confidence
        Coverage of the parts, and of what is made of them.
    paired
        All are of the same patients, in the same order, and correlate as their ratio estimators' residuals aₚ - p̂mₚ
        do (not at all with one at 0 % or 100 %); else they are of different patients.
    """
    found = [wilson_clustered(*proportion, confidence) for proportion in proportions]
    intervals = [interval for interval in found if interval is not None]
    if len(intervals) < len(found):
        return None
    estimates = np.array([above.sum() / below.sum() for above, below in proportions])
    correlations = np.eye(len(found))
    if paired:
        residuals = [a - p * m for p, (a, m) in zip(estimates, proportions, strict=True)]
        lengths = np.array([np.sqrt((r**2).sum()) for r in residuals])
        inner = np.array([[r @ s for s in residuals] for r in residuals])
        both = np.outer(lengths, lengths)
        correlations = np.where(both > 0, inner / np.where(both > 0, both, 1.0), np.eye(len(found)))
    return Parts(
        estimates,
        np.array([i.low for i in intervals]),
        np.array([i.high for i in intervals]),
        correlations,
    )


def mean_interval(proportions: Sequence[Proportion], confidence: float) -> Interval | None:
    """Return the interval of the mean of proportions of the same patients, such as a balanced accuracy.

    Notes
    -----
    With d the distances of the parts' lower limits, mean - √(Σᵢⱼ ρᵢⱼ dᵢ dⱼ) / k of k parts; the upper limit likewise.
    """
    parts = wilson_parts(proportions, confidence)
    if parts is None:
        return None
    mean, k = float(parts.estimates.mean()), len(parts.estimates)
    down, up = parts.estimates - parts.low, parts.high - parts.estimates
    low, high = (np.sqrt(max(0.0, d @ parts.correlations @ d)) / k for d in (down, up))
    return Interval(METHOD, float(max(0.0, mean - low)), float(min(1.0, mean + high)))


def difference_interval(
    first: Proportion, second: Proportion, paired: bool, confidence: float
) -> Interval | None:
    """Return the interval of a difference of two proportions.

    None where a proportion has no interval.

    Notes
    -----
    With the limits l and u of each part and their correlation ρ, the lower limit of p - q is
    p - q - √{(p - l_p)² - 2ρ(p - l_p)(u_q - q) + (u_q - q)²}, and the upper one mirrors it (Newcombe 1998, Stat Med
    17:2635, method 10 for pairs, and 17:873, method 10 for two samples).

    Pairs of equal counts in every patient differ in none of their units: the limits are those of 0 out of so many, on
    either side.
    """
    if paired and all(np.array_equal(x, y) for x, y in zip(first, second, strict=True)):
        nothing = wilson_clustered(np.zeros(len(first[0])), first[1], confidence)
        return None if nothing is None else Interval(METHOD, -nothing.high, nothing.high)
    parts = wilson_parts((first, second), confidence, paired)
    if parts is None:
        return None
    low, high = _difference(parts.estimates, parts.low, parts.high, parts.correlations[0, 1])
    return Interval(METHOD, max(-1.0, low), min(1.0, high))


def ratio_interval(metric: str, cells: np.ndarray, confidence: float) -> Interval | None:
    """Return the interval of a likelihood or odds ratio, from those of its two proportions.

    Parameters
    ----------
    metric
        lr_positive, lr_negative or dor.
    cells
        Float64 [patients, 4]: each patient's true positives, false positives, false negatives, true negatives.
    confidence
        Coverage.

    Returns
    -------
    Interval or None
        None where a side has fewer than two patients, or a limit is infinite.

    Notes
    -----
    Likelihood ratios by `mover_ratio`. The logarithm of the odds ratio is the difference of two logits, whose limits are
    the logits of the parts' limits.
    """
    tp, fp, fn, tn = np.moveaxis(cells, -1, 0)
    above, below = (fn, tn) if metric == "lr_negative" else (tp, fp)
    parts = wilson_parts(((above, tp + fn), (below, fp + tn)), confidence)
    if parts is None or parts.estimates.sum() == 0:
        return None
    if metric == "dor":
        with np.errstate(divide="ignore"):
            estimates, lows, highs = (logit(v) for v in (parts.estimates, parts.low, parts.high))
        if not np.isfinite([estimates, lows, highs]).all():
            return None
        low, high = np.exp(_difference(estimates, lows, highs, parts.correlations[0, 1]))
    else:
        low, high = mover_ratio(parts)
    return Interval(METHOD, float(low), float(high)) if np.isfinite(high) else None


def mover_ratio(parts: Parts) -> tuple[float, float]:
    """Return limits of the ratio of the first of two parts to the second, not both 0; the upper one may be infinite.

    Notes
    -----
    R is a limit where that of x - Ry is 0 (Zou and Donner 2008, with its term of correlation): where
    (x - Ry)² = (x - l)² - 2ρR(x - l)(u - y) + R²(u - y)², l and u being the limits of x below and of y above for the lower
    limit of R, and the other way round for the upper. Without correlation these are the limits of Donner and
    Zou 2012, Stat Methods Med Res 21:347 (MOVER-R).
    """
    (x, y), (x_low, y_low), (x_high, y_high) = parts.estimates, parts.low, parts.high
    correlation = parts.correlations[0, 1]
    # Each is a root of aR² - 2bR + c = 0, written so that neither divides by what may be 0 or change its sign.
    a, b, c, root = _quadratic(x, x - x_low, y, y_high - y, correlation)
    low = c / (b + root) if c > 0 and b + root > 0 else 0.0
    a, b, c, root = _quadratic(x, x_high - x, y, y - y_low, correlation)
    return float(low), float((b + root) / a) if a > 0 else np.inf


def _quadratic(
    x: float, of_x: float, y: float, of_y: float, correlation: float
) -> tuple[float, float, float, float]:
    """Return a, b, c of `mover_ratio` and √(b² - ac), from the estimates and the distances of their limits."""
    a, b, c = y**2 - of_y**2, x * y - correlation * of_x * of_y, x**2 - of_x**2
    return a, b, c, float(np.sqrt(max(0.0, b**2 - a * c)))


def _difference(
    estimates: np.ndarray, low: np.ndarray, high: np.ndarray, correlation: float
) -> tuple[float, float]:
    (p, q), (p_low, q_low), (p_high, q_high) = estimates, low, high

    def reach(x: float, y: float) -> float:
        return float(np.sqrt(max(0.0, x**2 - 2 * correlation * x * y + y**2)))

    return float(p - q - reach(p - p_low, q_high - q)), float(p - q + reach(p_high - p, q - q_low))
