"""How many patients make an interval as narrow as is wanted, and how wide it will be with so many.

The interval is the one that `accuracy` prints for data that turn out as expected; see `expected_interval`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction

from scipy.special import ndtri, stdtrit

from marrowflow.statistics.bootstrap import Interval
from marrowflow.statistics.intervals import logit_limits, score_limits

PROPORTIONS = ("sensitivity", "specificity", "proportion")
"""Metrics that are planned as proportions; ``proportion`` is one of the images of all patients, such as accuracy."""

METRICS = (*PROPORTIONS, "auc")


@dataclass(frozen=True)
class Design:
    """Who is examined.

    Attributes
    ----------
    prevalence
        Share of patients with the target condition; NaN where only a ``proportion`` is planned.
    images, images_cv
        Mean number of images a patient, and their coefficient of variation (population standard deviation over mean).
    icc
        Intra-patient correlation, 0 (images of a patient are like those of others) to 1 (they are all alike).
    """

    prevalence: float = math.nan
    images: float = 1.0
    images_cv: float = 0.0
    icc: float = 0.0

    @property
    def deff(self) -> float:
        """The design effect; see `design_effect`."""
        return design_effect(self.images, self.images_cv, self.icc)

    def divide(self, patients: int) -> tuple[int, int]:
        """Return how many patients with and without the target condition are to be expected, rounded down."""
        if math.isnan(self.prevalence):
            return 0, 0
        # Of the decimal number that was typed: 3 of 10 patients at .3, where floats would make it 2.
        share = Fraction(str(self.prevalence))
        return math.floor(patients * share), math.floor(patients * (1 - share))


@dataclass(frozen=True)
class Target:
    """What is wanted of an interval: a ``half_width`` no larger, or a ``lower_limit`` no lower, than `value`."""

    kind: str
    value: float

    def is_met(self, interval: Interval | None) -> bool:
        """Return whether the interval is as good as wanted; a missing one is not."""
        if interval is None:
            return False
        if self.kind == "half_width":
            return (interval.high - interval.low) / 2 <= self.value
        return interval.low >= self.value


def design_effect(images: float, images_cv: float, icc: float) -> float:
    """Return by how much clusters of unequal size raise the variance of a mean: 1 + (m (1 + CV²) - 1) ICC.

    Eldridge, Ashby and Kerry 2006, Int J Epidemiol 35:1292. With ICC = 1 it is Σm²/Σm, the design effect that
    `wilson_clustered` takes at 0 % and 100 %.
    """
    return 1 + (images * (1 + images_cv**2) - 1) * icc


def auc_variance(auc: float, n_with: float, n_without: float) -> float:
    """Return the variance of an AUC before there are data (Hanley and McNeil 1982, Radiology 143:29, eq. 1 and 2).

    [A(1-A) + (n₁-1)(Q₁-A²) + (n₂-1)(Q₂-A²)] / (n₁n₂) with Q₁ = A/(2-A) and Q₂ = 2A²/(1+A): the scores of both groups
    are taken as negative exponential, which their paper found to be on the safe side of other distributions.
    """
    a, b = _auc_parts(auc)
    return (auc * (1 - auc) + (n_with - 1) * a + (n_without - 1) * b) / (n_with * n_without)


def expected_interval(
    metric: str, expected: float, patients: int, design: Design, confidence: float
) -> Interval | None:
    """Return the interval that will be printed if everything turns out as expected.

    Parameters
    ----------
    metric
        One of `METRICS`.
    expected
        Its value, 0..1.
    patients
        Patients in all, with and without the target condition.
    design, confidence
        Who is examined; coverage.

    Returns
    -------
    Interval or None
        None where fewer than two patients of a group that the metric needs are to be expected.

    Notes
    -----
    Proportions: `wilson_clustered` with n_eff = k m / deff of the k patients in the denominator and k - 1 degrees
    of freedom; at 0 % and 100 %, where it takes images of a patient to be alike, so does this.
    AUC: logit limits of `auc_variance` with n m / deff images in either group, and a t quantile with one degree of freedom
    less than the rarer group has patients, as `auc_jackknife` takes it: the correlation is that of the images'
    placements among those of the other group, and the same in both groups. None at 0 and 1.
    """
    n_with, n_without = design.divide(patients)
    if metric == "auc":
        if min(n_with, n_without) < 2:
            return None
        effective = design.images / design.deff
        variance = auc_variance(expected, n_with * effective, n_without * effective)
        quantile = stdtrit(min(n_with, n_without) - 1, (1 + confidence) / 2)
        limits = logit_limits(expected, variance, quantile)
        return None if limits is None else Interval("jackknife_logit", *limits)
    clusters = {"sensitivity": n_with, "specificity": n_without, "proportion": patients}[metric]
    if clusters < 2:
        return None
    icc = design.icc if 0 < expected < 1 else 1.0
    n_effective = clusters * design.images / design_effect(design.images, design.images_cv, icc)
    quantile = stdtrit(clusters - 1, (1 + confidence) / 2)
    return Interval("wilson_neff", *score_limits(expected, n_effective, quantile))


def patients_needed(metric: str, expected: float, target: Target, design: Design, confidence: float) -> int:
    """Return the smallest number of patients in all whose `expected_interval` meets the target.

    The limits close in on `expected` with every patient more, so that doubling and halving find the exact number.
    A lower limit must lie below `expected`, and a half-width above 0.
    """

    def is_enough(patients: int) -> bool:
        return target.is_met(expected_interval(metric, expected, patients, design, confidence))

    most = 2
    while not is_enough(most):
        most *= 2
    return bisect_left(range(most + 1), True, lo=most // 2, key=is_enough)


def textbook_size(
    metric: str, expected: float, target: Target, design: Design, confidence: float
) -> tuple[int, int] | None:
    """Return the number that the normal approximation gives, for comparison with published figures.

    Returns
    -------
    tuple or None
        Independent images of those that the metric needs (for an AUC, of both groups together), and patients in all with
        `Design.deff`; rounded up, each from the exact number. None for an expected 0 or 1, where the approximation has no width.

    Notes
    -----
    Proportions: z² p(1-p) / w², divided by the share of patients in the denominator (Buderer 1996, Acad Emerg Med
    3:895). AUC: the number with z² Var(A) = w² for `auc_variance`. w is the half-width, or the distance from
    the lower limit.
    """
    if expected in (0, 1):
        return None
    margin = target.value if target.kind == "half_width" else expected - target.value
    precision = (margin / ndtri((1 + confidence) / 2)) ** 2
    pi = design.prevalence
    if metric == "auc":
        # Var(A) = (c + n e) / (π (1-π) n²), solved for n.
        a, b = _auc_parts(expected)
        c, e, s = expected * (1 - expected) - a - b, pi * a + (1 - pi) * b, pi * (1 - pi) * precision
        images, share = (e + math.sqrt(e**2 + 4 * s * c)) / (2 * s), 1.0
    else:
        images = expected * (1 - expected) / precision
        share = {"sensitivity": pi, "specificity": 1 - pi, "proportion": 1.0}[metric]
    return math.ceil(images), math.ceil(images * design.deff / design.images / share)


def _auc_parts(auc: float) -> tuple[float, float]:
    """Return Q₁ - A² and Q₂ - A²."""
    return auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
