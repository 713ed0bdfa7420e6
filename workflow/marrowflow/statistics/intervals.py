"""Closed-form intervals: proportions of clustered rows, exact and score intervals, AUC, differences of these.

Proportions of rows that cluster in patients get Wilson's interval on the effective number of rows
with a t quantile: near 100 %, where the bootstrap has too few failures to draw from, it keeps its coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit

from marrowflow.statistics.bootstrap import Interval

# Patients who are all alike leave a standard error of this order.
_ROUNDING = 1e-12


def wilson(successes: float, n: float, confidence: float) -> Interval:
    """Return Wilson's score interval for independent rows (Wilson 1927, JASA 22:209)."""
    return Interval("wilson", *score_limits(successes / n, n, ndtri((1 + confidence) / 2)))


def score_limits(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return the limits at which the score test of a share of ``n`` rows, with this quantile, is critical (Wilson 1927)."""
    square = quantile**2 / n
    middle = (share + square / 2) / (1 + square)
    half = quantile / (1 + square) * np.sqrt(share * (1 - share) / n + square / (4 * n))
    # Rounding must not move a limit that is exactly at the edge.
    low = 0.0 if share == 0 else max(0.0, middle - half)
    high = 1.0 if share == 1 else min(1.0, middle + half)
    return float(low), float(high)


def clopper_pearson(successes: int, n: int, confidence: float) -> Interval:
    """Return the exact interval for independent rows (Clopper and Pearson 1934, Biometrika 26:404)."""
    tail = (1 - confidence) / 2
    low = betaincinv(successes, n - successes + 1, tail) if successes > 0 else 0.0
    high = betaincinv(successes + 1, n - successes, 1 - tail) if successes < n else 1.0
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
    n_eff = n / deff, and deff is the largest of 1, the ratio estimator's variance over the binomial one (Rao and
    Scott 1992, Biometrics 48:577), and 1 + (Σm²/Σm - 1) ρ with the intraclass correlation ρ (Saha, Miller and Wang
    2016, Int J Biostat 12(2)). The first is true whatever the clusters are like, but too small on average where few
    patients hold most rows; the second, from all pairs of rows within patients, is steadier. At 0 % and 100 % neither
    can be estimated, and ρ is taken as 1: rows of a patient are all alike.
    Degrees of freedom: patients with a denominator, less one.
    """
    n, with_rows = denominators.sum(), int((denominators > 0).sum())
    if with_rows < 2:
        return None
    quantile = stdtrit(with_rows - 1, (1 + confidence) / 2)
    effective = effective_size(numerators, denominators)
    return Interval("wilson_neff", *score_limits(numerators.sum() / n, effective, quantile))


def effective_size(numerators: np.ndarray, denominators: np.ndarray) -> float:
    """Return n_eff of `wilson_clustered`: how many independent rows a proportion of clustered ones [patients] is worth."""
    n = denominators.sum()
    share = numerators.sum() / n
    alike = (denominators**2).sum() / n
    if share in (0.0, 1.0):
        return float(n / alike)
    of_ratio = ratio_variance(numerators, denominators) / (share * (1 - share) / n)
    correlation = np.nan_to_num(intraclass_correlation(numerators, denominators))
    return float(n / max(1.0, of_ratio, 1 + (alike - 1) * correlation))


def ratio_variance(numerators: np.ndarray, denominators: np.ndarray) -> float:
    """Return the variance of Σ numerators / Σ denominators over patients [patients], all of them counting as I in I/(I-1)."""
    patients, n = len(numerators), denominators.sum()
    residuals = numerators - numerators.sum() / n * denominators
    return float(patients / (patients - 1) * (residuals**2).sum() / n**2)


def intraclass_correlation(numerators: np.ndarray, denominators: np.ndarray) -> float:
    """Return how alike yes/no rows of a patient are, by the analysis of variance.

    Arguments are those of `wilson_clustered`. May be negative; NaN where all rows are the same, where none shares its
    patient, and where fewer than two patients have rows.

    Notes
    -----
    ρ = (MSB - MSW) / (MSB + (m₀ - 1) MSW) with m₀ = (n - Σm²/n) / (I - 1) over the I patients that have rows: Ridout,
    Demétrio and Firth 1999, Biometrics 55:137, where it is among the estimators that did well for yes/no
    outcomes; m₀ for unequal m as in Donner and Koval 1980, Biometrics 36:19.
    """
    x, m = numerators[denominators > 0], denominators[denominators > 0]
    n, patients = m.sum(), len(m)
    if patients < 2 or n == patients or x.sum() in (0, n):
        return np.nan
    between = (m * (x / m - x.sum() / n) ** 2).sum() / (patients - 1)
    within = (x - x**2 / m).sum() / (n - patients)
    typical = (n - (m**2).sum() / n) / (patients - 1)
    return float((between - within) / (between + (typical - 1) * within))


def auc_jackknife(auc: float, left_out: np.ndarray, fewest: int, confidence: float) -> Interval | None:
    """Return the interval of an AUC from its leave-one-patient-out variance, on the logit scale with a t quantile.

    Parameters
    ----------
    auc
        The AUC of the sample, or a mean of several classes' AUC.
    left_out
        Float64 [patients]: the same with each patient left out.
    fewest
        Patients of the class that has the fewest; degrees of freedom are one less.
    confidence
        Coverage.

    Returns
    -------
    Interval or None
        None at 0 and 1, and where the AUC does not move or is undefined without one of the patients.

    Notes
    -----
    variance = (P - 1)/P Σ (AUC₍ₚ₎ - mean)², for U-statistics and smooth functions of them by Arvesen 1969 (Ann Math
    Stat 40:2076), for correlated ROC areas by Song 1997 (Biometrics 53:370). It sees what a patient's
    share of the pairs does to the AUC, and so is larger than Obuchowski's where a few patients hold many rows;
    with t it keeps its coverage for few clusters (MacKinnon, Nielsen and Webb 2023, J Appl Econom 38:671).
    Limits: logit AUC ± t √variance / (AUC (1 - AUC)).
    """
    patients = len(left_out)
    variance = float((patients - 1) / patients * ((left_out - left_out.mean()) ** 2).sum())
    limits = logit_limits(auc, variance, stdtrit(fewest - 1, (1 + confidence) / 2))
    return None if limits is None else Interval("jackknife_logit", *limits)


def auc_separated(
    auc: float, positives: np.ndarray, negatives: np.ndarray, confidence: float
) -> Interval | None:
    """Return the one-sided interval of an AUC of exactly 0 or 1, where no variance can be estimated; None at other values.

    Parameters
    ----------
    auc
        The AUC of the sample.
    positives, negatives
        Float64 [patients]: the patients' rows of each kind.
    confidence
        Coverage.

    Notes
    -----
    The score interval of Newcombe 2006 (Stat Med 25:559, method 5): |AUC - θ| = z √V(θ) with the variance of Hanley
    and McNeil 1982, V(θ) = θ(1 - θ) {1 + k [(1 - θ)/(2 - θ) + θ/(1 + θ)]} / (m n), k = (m + n)/2 - 1. Rows of a patient are taken
    to be all alike, as for a proportion of 100 %: m and n are the effective numbers (Σm)²/Σm² of patients.
    """
    if auc not in (0.0, 1.0):
        return None
    m, n = (rows.sum() ** 2 / (rows**2).sum() for rows in (positives, negatives))
    k, square = (m + n) / 2 - 1, ndtri((1 + confidence) / 2) ** 2

    def beyond(theta: float) -> float:
        """The equation for an AUC of 1, squared and divided by (1 - θ)."""
        return (1 - theta) * m * n - square * theta * (
            1 + k * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        )

    low = float(brentq(beyond, 0.0, 1.0))
    # V(θ) = V(1 - θ): at 0 the interval is the mirror image.
    return Interval("newcombe_neff", low, 1.0) if auc == 1 else Interval("newcombe_neff", 0.0, 1 - low)


def auc_logit(auc: float, variance: float, confidence: float) -> Interval | None:
    """Return the interval of an AUC from its clustered variance on the logit scale; None at 0, 1 or without a variance."""
    limits = logit_limits(auc, variance, ndtri((1 + confidence) / 2))
    return None if limits is None else Interval("obuchowski_logit", *limits)


def auc_delong(auc: float, variance: float, confidence: float) -> Interval | None:
    """Return the symmetric interval of DeLong et al. 1988 for one row a patient, cut at 0 and 1; None without a variance."""
    if not variance > 0:
        return None
    half = ndtri((1 + confidence) / 2) * np.sqrt(variance)
    return Interval("delong", float(max(0.0, auc - half)), float(min(1.0, auc + half)))


def difference_jackknife(
    difference: float, parts: Sequence[tuple[np.ndarray, int]], confidence: float
) -> Interval | None:
    """Return the interval of a difference of AUCs or proportions by leaving patients out, with a t quantile.

    Parameters
    ----------
    difference
        Of the sample.
    parts
        Of the same patients one part, of different patients one for either side: float64 [patients], the mean of
        the leave-one-out values less each patient's own (of one part: those of the difference), and how many
        of the patients can move it: those with rows in the denominator; of an AUC those of the rarer class.
    confidence
        Coverage.

    Returns
    -------
    Interval or None
        None without spread, where a part is undefined without one of its patients, or fewer than two can move it.

    Notes
    -----
    difference ± t √variance, cut at -1 and 1. The variance (P - 1)/P Σ (pull of patient p)² (Arvesen 1969, Ann Math
    Stat 40:2076) is added over the parts, and the degrees of freedom are Welch's (`welch_freedom`): of one part
    one less than the patients who can move it.
    """
    spread = jackknife_spread(parts)
    if spread is None:
        return None
    variance, freedom = spread
    quantile = stdtrit(freedom, (1 + confidence) / 2)
    return _difference_limits("jackknife_t", difference, quantile * np.sqrt(variance))


def jackknife_spread(parts: Sequence[tuple[np.ndarray, int]]) -> tuple[float, float] | None:
    """Return variance and degrees of freedom of `difference_jackknife`; None where there are none."""
    variances = [float((len(pulls) - 1) / len(pulls) * (pulls**2).sum()) for pulls, _ in parts]
    freedom = welch_freedom(*((v, fewest) for v, (_, fewest) in zip(variances, parts, strict=True)))
    return None if freedom is None else (math.fsum(variances), freedom)


def difference_wald(method: str, difference: float, variance: float, confidence: float) -> Interval | None:
    """Return difference ± z √variance, cut at -1 and 1; None without a variance."""
    if not variance > 0:
        return None
    return _difference_limits(method, difference, ndtri((1 + confidence) / 2) * np.sqrt(variance))


def logit_t(numerators: np.ndarray, denominators: np.ndarray, confidence: float) -> Interval | None:
    """Return the interval of a proportion from the ratio estimator's variance on the logit scale, with a t quantile.

    Arguments and degrees of freedom are those of `wilson_clustered`. None at 0 % and 100 %, where the logit is
    infinite, without spread between patients, and where fewer than two patients have a denominator.

    Notes
    -----
    logit p ± t √v / (p (1 − p)), v the variance of the ratio Σx/Σm (Cochran 1977, Sampling Techniques, section 6.3).
    """
    n, with_rows = denominators.sum(), int((denominators > 0).sum())
    if with_rows < 2:
        return None
    quantile = stdtrit(with_rows - 1, (1 + confidence) / 2)
    limits = logit_limits(numerators.sum() / n, ratio_variance(numerators, denominators), quantile)
    return None if limits is None else Interval("logit_t", *limits)


def log_robust(metric: str, cells: np.ndarray, confidence: float) -> Interval | None:
    """Return the interval of a likelihood or odds ratio on the log scale, robust to clusters.

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
        None where a cell that the ratio needs is empty, so that its logarithm is infinite, where rows cluster and
        fewer than two patients have the condition or are without it, or where nothing varies between patients.

    Notes
    -----
    The logarithm is a term of the rows with the condition less one of those without. Patient i pulls
    log(Σa/Σ(a+b)) by aᵢ/Σa − (aᵢ+bᵢ)/Σ(a+b), and log(Σa/Σb) by aᵢ/Σa − bᵢ/Σb (the delta method). The variance is
    I/(I−1) Σ (pull on the one term − pull on the other)² over the I patients, the quantile that of t with Welch's
    degrees of freedom for the two terms.

    Where every patient has one row there is nothing to be robust to: the sum of squares is then exactly
    1/a − 1/(a+b) + 1/c − 1/(c+d) for a likelihood ratio (Simel et al. 1991, J Clin Epidemiol 44:763) and the sum of the
    four 1/cell for the odds ratio (Woolf 1955, Ann Hum Genet 19:251), and the interval is theirs, with a normal quantile.
    """
    tp, fp, fn, tn = np.moveaxis(cells, -1, 0)
    terms = {
        "lr_positive": ((tp, fn), (fp, tn)),
        "lr_negative": ((fn, tp), (tn, fp)),
        "dor": ((tp, fn), (fp, tn)),
    }[metric]
    needed = [c.sum() for term in terms for c in (term if metric == "dor" else term[:1])]
    if min(needed) == 0:
        return None
    (above, up), (below, down) = (_log_term(*term, odds=metric == "dor") for term in terms)
    square = ((up - down) ** 2).sum()
    if cells.sum(axis=1).max() <= 1:
        half = ndtri((1 + confidence) / 2) * np.sqrt(square)
    else:
        freedom = welch_freedom(_spread(up, tp + fn), _spread(down, fp + tn))
        if freedom is None:
            return None
        half = stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(len(cells) / (len(cells) - 1) * square)
    if not half > 0:
        return None
    return Interval("log_robust", float(np.exp(above - below - half)), float(np.exp(above - below + half)))


def welch_freedom(*parts: tuple[float, int]) -> float | None:
    """Return the degrees of freedom of a sum of independent variances (Satterthwaite 1946, Biometrics Bulletin 2:110).

    Each part is a variance and the number of patients that it was estimated from. None where one of them rests
    on fewer than two, or all variances are 0.
    """
    if min(patients for _, patients in parts) < 2:
        return None
    below = math.fsum(variance**2 / (patients - 1) for variance, patients in parts)
    return float(math.fsum(variance for variance, _ in parts) ** 2 / below) if below > 0 else None


def _log_term(a: np.ndarray, b: np.ndarray, odds: bool) -> tuple[float, np.ndarray]:
    """Return log Σa/Σb (or the log of the share Σa/Σ(a+b)) and each patient's pull on it [patients]."""
    rest = b if odds else a + b
    return float(np.log(a.sum() / rest.sum())), a / a.sum() - rest / rest.sum()


def _spread(pull: np.ndarray, rows: np.ndarray) -> tuple[float, int]:
    """Return the variance of a sum of pulls over patients, and how many of them have rows."""
    patients = int((rows > 0).sum())
    return float(patients / max(1, patients - 1) * (pull**2).sum()), patients


def _difference_limits(method: str, difference: float, half: float) -> Interval:
    return Interval(method, float(max(-1.0, difference - half)), float(min(1.0, difference + half)))


def logit_limits(value: float, variance: float, quantile: float) -> tuple[float, float] | None:
    """Return expit(logit v ± q √variance / (v (1 − v))), or None at 0, at 1 and without a variance but for rounding."""
    if not 0 < value < 1 or not variance > _ROUNDING**2:
        return None
    half = quantile * np.sqrt(variance) / (value * (1 - value))
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))
