"""Standardised differences: how far two groups' characteristics lie apart, whatever their units and numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# A direction in which neither group varies; the shares are known to the last digits of a double only.
_NO_VARIANCE = 1e-12


def standardised_difference(a: ArrayLike, b: ArrayLike) -> float:
    """Return the standardised difference of the means of two groups, ``a`` less ``b``.

    Parameters
    ----------
    a, b
        Numbers [values of a group]; NaN is missing and left out.

    Returns
    -------
    float
        Positive where ``a`` has the greater mean. ±inf where the means differ and neither group varies; 0 where they
        are then equal; NaN where a group has fewer than two values.

    Notes
    -----
    d = (mean a − mean b) / √((s²a + s²b) / 2) with the sample variances s² (Austin 2009, Stat Med 28:3083,
    section 3.1).
    """
    values = [np.asarray(group, dtype=np.float64) for group in (a, b)]
    x, y = (group[~np.isnan(group)] for group in values)
    if min(len(x), len(y)) < 2:
        return float("nan")
    apart, spread = float(x.mean() - y.mean()), float(np.sqrt((x.var(ddof=1) + y.var(ddof=1)) / 2))
    rounding = 1e-12 * max(np.abs(x).max(), np.abs(y).max())
    if spread > rounding:
        return apart / spread
    return 0.0 if abs(apart) <= rounding else float(np.copysign(np.inf, apart))


def standardised_difference_of_shares(counts_a: ArrayLike, counts_b: ArrayLike) -> float:
    """Return the standardised difference of two groups' shares of the same categories.

    Parameters
    ----------
    counts_a, counts_b
        Counts [categories] of the two groups, in the same order of categories.

    Returns
    -------
    float
        Never negative, and the same when the groups change places. inf where the shares differ in a direction in
        which neither group varies (such as all of one group in one category, all of the other in another); NaN where
        a group has no counts.

    Raises
    ------
    ValueError
        When the groups do not have the same number of categories, or a count is negative.

    Notes
    -----
    d = √((p − q)ᵀ S⁺ (p − q)) with the shares p and q and S the mean of their two multinomial covariances (Yang and
    Dalton 2012, SAS Global Forum, paper 335). The paper leaves one category out so that S can be inverted; the
    pseudo-inverse of the whole S gives the same number, needs no such choice, and bears categories that nobody is in.
    Of two categories it is |p − q| / √((p(1 − p) + q(1 − q)) / 2) (Austin 2009, Stat Med 28:3083, section 3.1).
    """
    a, b = np.asarray(counts_a, dtype=np.float64), np.asarray(counts_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or min(a.min(initial=0), b.min(initial=0)) < 0:
        raise ValueError("counts of two groups are of the same categories, and not negative")
    if not a.sum() or not b.sum():
        return float("nan")
    p, q = a / a.sum(), b / b.sum()
    covariance = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    variances, directions = np.linalg.eigh(covariance)
    apart = directions.T @ (p - q)
    varies = variances > _NO_VARIANCE
    if np.any(np.abs(apart[~varies]) > 1e-9):
        return float("inf")
    return float(np.sqrt(np.sum(apart[varies] ** 2 / variances[varies])))
