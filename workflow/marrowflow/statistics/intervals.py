"""Closed-form intervals: proportions of clustered rows, exact and score intervals, AUC.

Proportions of rows that cluster in patients get Wilson's interval on the effective number of rows
with a t quantile: near 100 %, where the bootstrap has too few failures to draw from, it keeps its coverage.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

from marrowflow.statistics.bootstrap import Interval


def wilson(successes: float, n: float, confidence: float) -> Interval:
    """Return Wilson's score interval for independent rows (Wilson 1927, JASA 22:209)."""
    return Interval("wilson", *_score_limits(successes / n, n, norm.ppf((1 + confidence) / 2)))


def clopper_pearson(successes: int, n: int, confidence: float) -> Interval:
    """Return the exact interval for independent rows (Clopper and Pearson 1934, Biometrika 26:404)."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, n - successes + 1) if successes > 0 else 0.0
    high = beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return Interval("clopper_pearson", float(low), float(high))


def wilson_clustered(numerators: np.ndarray, denominators: np.ndarray, confidence: float) -> Interval | None:
    """Return Wilson's interval on the effective number of rows, with a t quantile.

    Parameters
    ----------
    numerators, denominators
        Float64 [patients]: the patients' counts; patients with denominator 0 count only in the variance's I/(I-1).
    confidence
        Coverage.

    Returns
    -------
    Interval or None
        None where fewer than two patients have a denominator.

    Notes
    -----
    n_eff = n / deff; deff is the ratio estimator's variance (Rao and Scott 1992, Biometrics 48:577) over the binomial
    one, no less than 1. At 0 % and 100 % both vanish, and deff is taken as Σm²/Σm: rows of a patient
    are taken to be all alike. Degrees of freedom: patients with a denominator, less one.
    """
    n, with_rows = denominators.sum(), int((denominators > 0).sum())
    if with_rows < 2:
        return None
    share = numerators.sum() / n
    if 0 < share < 1:
        deff = max(1.0, ratio_variance(numerators, denominators) / (share * (1 - share) / n))
    else:
        deff = (denominators**2).sum() / n
    quantile = t.ppf((1 + confidence) / 2, with_rows - 1)
    return Interval("wilson_neff", *_score_limits(share, n / deff, quantile))


def ratio_variance(numerators: np.ndarray, denominators: np.ndarray) -> float:
    """Return the variance of Σ numerators / Σ denominators over patients [patients], all of them counting as I in I/(I-1)."""
    patients, n = len(numerators), denominators.sum()
    residuals = numerators - numerators.sum() / n * denominators
    return float(patients / (patients - 1) * (residuals**2).sum() / n**2)


def auc_logit(auc: float, variance: float, confidence: float) -> Interval | None:
    """Return the interval of an AUC from its clustered variance on the logit scale; None at 0, 1 or without a variance."""
    if not 0 < auc < 1 or not variance > 0:
        return None
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(variance) / (auc * (1 - auc))
    return Interval("obuchowski_logit", float(expit(logit(auc) - half)), float(expit(logit(auc) + half)))


def auc_delong(auc: float, variance: float, confidence: float) -> Interval | None:
    """Return the symmetric interval of DeLong et al. 1988 for one row a patient, cut at 0 and 1; None without a variance."""
    if not variance > 0:
        return None
    half = norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    return Interval("delong", float(max(0.0, auc - half)), float(min(1.0, auc + half)))


def _score_limits(share: float, n: float, quantile: float) -> tuple[float, float]:
    square = quantile**2 / n
    middle = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * np.sqrt(share * (1 - share) / n + square / (4 * n))
    # Rounding must not move a limit that is exactly at the edge.
    low = 0.0 if share == 0 else max(0.0, middle - half)
    high = 1.0 if share == 1 else min(1.0, middle + half)
    return float(low), float(high)
