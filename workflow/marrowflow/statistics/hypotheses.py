"""P-values of the difference of two index tests, on the same patients or on different ones.

Every test is two-sided and of the hypothesis that the difference is 0. Where nothing speaks for either side (no
discordant unit, no variance and no difference) the p-value is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr
from scipy.stats import binomtest, chi2, norm

from marrowflow.statistics.intervals import effective_size, jackknife_spread

FEW_DISCORDANT = 25
"""McNemar's test is exact below this many discordant units."""


@dataclass(frozen=True)
class PValue:
    """A two-sided p-value, NaN where the test does not exist, and the test's name in ``comparisons.csv``."""

    name: str
    p: float


def wald(name: str, difference: float, variance: float) -> PValue:
    """Return the z-test of a difference: difference / √variance is standard normal."""
    if difference == 0 and variance == 0:
        return PValue(name, 1.0)
    if not variance > 0:
        return PValue(name, np.nan)
    return PValue(name, float(2 * norm.sf(abs(difference) / np.sqrt(variance))))


def jackknife_t(difference: float, parts: Sequence[tuple[np.ndarray, int]]) -> PValue:
    """Return the t-test that belongs to `difference_jackknife`: p is below 5 % where its 95 % interval excludes 0."""
    spread = jackknife_spread(parts)
    if spread is None or not spread[0] > 0:
        return PValue("jackknife_t", 1.0 if difference == 0 else np.nan)
    variance, freedom = spread
    return PValue("jackknife_t", float(2 * stdtr(freedom, -abs(difference) / np.sqrt(variance))))


def mcnemar(first: int, second: int) -> PValue:
    """Test two paired proportions of independent units.

    Parameters
    ----------
    first, second
        Units that only the one, and only the other index test gets right: b and c.

    Notes
    -----
    McNemar 1947, Psychometrika 12:153. Below `FEW_DISCORDANT` discordant units the exact binomial test of b out of
    b + c with chance ½; else (b − c)² / (b + c) as χ² with one degree of freedom, without continuity correction, which
    makes the test needlessly conservative (Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91).
    """
    discordant = first + second
    if discordant == 0:
        return PValue("mcnemar_exact", 1.0)
    if discordant < FEW_DISCORDANT:
        return PValue("mcnemar_exact", float(binomtest(first, discordant, 0.5).pvalue))
    return PValue("mcnemar", float(chi2.sf((first - second) ** 2 / discordant, 1)))


def clustered_mcnemar(differences: np.ndarray, patients: int) -> PValue:
    """Test two paired proportions of units that cluster in patients.

    Parameters
    ----------
    differences
        Float64 [patients]: units of the patient that only the one index test gets right, less those that only the
        other does; 0 for patients without a unit.
    patients
        Patients with a unit: K.

    Notes
    -----
    Obuchowski 1998, Stat Med 17:1495: (p₁ − p₂)² over the ratio estimator's variance of p₁ − p₂, both taken
    about their common mean, as the hypothesis has it. The mean cancels, and (K−1)/K (Σd)² / Σd² is left
    (Yang, Sun and Hardin 2010, Biom J 52:638), a χ² with one degree of freedom. With one unit a patient that is
    McNemar's uncorrected χ² times (K−1)/K.
    """
    square = (differences**2).sum()
    if square == 0:
        return PValue("obuchowski_1998", 1.0)
    statistic = (patients - 1) / patients * differences.sum() ** 2 / square
    return PValue("obuchowski_1998", float(chi2.sf(statistic, 1)))


def paired_proportions(numerators: np.ndarray, against: np.ndarray, denominators: np.ndarray) -> PValue:
    """Test two proportions of the same units: numerators of the two index tests and common denominators [patients].

    `mcnemar` where no patient has more than one unit in the denominator, else `clustered_mcnemar`.
    """
    differences = numerators - against
    if denominators.max() <= 1:
        return mcnemar(int((differences > 0).sum()), int((differences < 0).sum()))
    return clustered_mcnemar(differences, int((denominators > 0).sum()))


def rao_scott(
    numerators: np.ndarray, denominators: np.ndarray, against: np.ndarray, denominators_against: np.ndarray
) -> PValue:
    """Test two proportions of different patients, each given by its patients' numerators and denominators [patients].

    Notes
    -----
    Pearson's χ² of the 2×2 table of successes and failures, each side's counts divided by its design effect (Rao and
    Scott 1992, Biometrics 48:577), which is that of `wilson_clustered`.
    """
    sides = [(numerators, denominators), (against, denominators_against)]
    n = np.array([effective_size(*side) for side in sides])
    shares = np.array([above.sum() / below.sum() for above, below in sides])
    common = (n * shares).sum() / n.sum()
    if common in (0.0, 1.0):
        return PValue("rao_scott", 1.0)
    statistic = (n * (shares - common) ** 2).sum() / (common * (1 - common))
    return PValue("rao_scott", float(chi2.sf(statistic, 1)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values adjusted for their number (Holm 1979, Scand J Stat 6:65); NaN is no member of the family.

    The i-th smallest of m, from 1, is multiplied by m − i + 1, and is no less than those before it and no more than 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    adjusted = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
