"""How far two measurements of the same quantity agree, such as a differential count by networks and by hand.

Bland and Altman's limits: the mean difference and the differences between which 95 of 100 patients' lie, each with an interval.
The limits are mean ± z·SD with the standard error SD·√(1/n + z²/(2(n − 1))) and a t quantile (Bland and Altman 1999, Stat
Methods Med Res 8:135). Whether differences grow with the quantity is told by Spearman's correlation of difference and mean.

Intraclass correlation: of absolute agreement, two-way random, of one measurement, ICC(2,1) of Shrout and Fleiss 1979 (Psychol
Bull 86:420), with the interval of McGraw and Wong 1996 (Psychol Methods 1:30). It depends on how different the patients are:
the limits of agreement do not, and are what a reader should look at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import f, norm, spearmanr, t


@dataclass(frozen=True)
class Limits:
    """Bland and Altman's limits of agreement, in the unit of the measurements.

    Attributes
    ----------
    n
        Patients measured by both.
    bias, lower, upper
        Mean difference (first minus second), and limits, each with its interval: (estimate, low, high).
    trend
        Spearman's correlation of difference and mean; NaN where either does not vary.
    """

    n: int
    bias: tuple[float, float, float]
    lower: tuple[float, float, float]
    upper: tuple[float, float, float]
    trend: float


def limits_of_agreement(
    first: np.ndarray, second: np.ndarray, confidence: float = 0.95, within: float = 0.95
) -> Limits:
    """Return Bland and Altman's limits for float64 [n] of the same patients; NaN pairs are left out.

    Parameters
    ----------
    first, second
        A measurement a patient.
    confidence
        Of the intervals.
    within
        Share of differences that the limits hold.

    Raises
    ------
    ValueError
        Fewer than two patients measured by both.
    """
    first, second = _pairs(first, second)
    difference, n = first - second, len(first)
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    z, quantile = norm.ppf((1 + within) / 2), t.ppf((1 + confidence) / 2, n - 1)
    half, half_limit = quantile * sd / np.sqrt(n), quantile * sd * np.sqrt(1 / n + z**2 / (2 * (n - 1)))

    def around(value: float, by: float) -> tuple[float, float, float]:
        return float(value), float(value - by), float(value + by)

    mean = (first + second) / 2
    # Rounding is no difference.
    least = 1e-9 * max(float(np.abs(mean).max()), 1e-300)
    varies = np.ptp(difference) > least and np.ptp(mean) > least
    trend = float(spearmanr(difference, mean).statistic) if varies else float("nan")
    lower, upper = around(bias - z * sd, half_limit), around(bias + z * sd, half_limit)
    return Limits(n, around(bias, half), lower, upper, trend)


def intraclass_correlation(ratings: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return ICC(2,1) of float64 [patients, raters] with its interval: estimate, low, high.

    All are NaN where nothing varies; (1, NaN, NaN) where raters agree to the last digit, and NaN limits where they are opposed, for
    which the interval's approximation has no degrees of freedom.

    Raises
    ------
    ValueError
        Fewer than two patients or raters, or a rating that is missing.
    """
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2 or min(ratings.shape) < 2 or np.isnan(ratings).any():
        raise ValueError(
            "an intraclass correlation takes two patients and raters at least, and no missing rating"
        )
    n, k = ratings.shape
    mean = ratings.mean()
    rows, columns = ratings.mean(axis=1), ratings.mean(axis=0)
    between = k * ((rows - mean) ** 2).sum() / (n - 1)
    raters = n * ((columns - mean) ** 2).sum() / (k - 1)
    rest = ((ratings - rows[:, None] - columns + mean) ** 2).sum() / ((n - 1) * (k - 1))
    scale = 1e-18 * float((ratings**2).mean())
    between, raters, rest = (0.0 if value <= scale else float(value) for value in (between, raters, rest))
    whole = between + (k - 1) * rest + k * (raters - rest) / n
    if whole <= 0:
        return (float("nan"),) * 3
    estimate = (between - rest) / whole
    if not rest and not raters:
        return estimate, float("nan"), float("nan")
    a = k * estimate / (n * (1 - estimate))
    b = 1 + k * estimate * (n - 1) / (n * (1 - estimate))
    freedom = (a * raters + b * rest) ** 2 / (
        (a * raters) ** 2 / (k - 1) + (b * rest) ** 2 / ((n - 1) * (k - 1))
    )
    if freedom < 1:
        return estimate, float("nan"), float("nan")
    tail = (1 + confidence) / 2
    upper, lower = f.ppf(tail, n - 1, freedom), f.ppf(tail, freedom, n - 1)
    noise = k * raters + (k * n - k - n) * rest
    low = n * (between - upper * rest) / (upper * noise + n * between)
    high = n * (lower * between - rest) / (noise + n * lower * between)
    return estimate, float(low), float(high)


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    known = ~(np.isnan(first) | np.isnan(second))
    if known.sum() < 2:
        raise ValueError("limits of agreement take two patients at least that both measured")
    return first[known], second[known]
