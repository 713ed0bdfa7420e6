"""Resamples of patients, and intervals from their replicates.

Patients are drawn with replacement, with all their rows. A replicate in which a metric is undefined
is dropped for that metric and counted; it is never scored 0. One in which a ratio is infinite is larger than all others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import ndtr, ndtri

from marrowflow.cli import progress
from marrowflow.config import Accuracy

MOST_UNDEFINED = 0.05
"""An interval is suppressed where more than this share of the replicates is undefined."""

# What is equal in exact arithmetic, such as a difference of two shares, counts as equal. Metrics are of the order of 1.
_ROUNDING = 1e-12

# Weights drawn at a time: 8 MB of integers.
_ENTRIES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Interval:
    """An interval and the name of the method that gave it, as in ``metrics.csv``."""

    method: str
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrapped:
    """Intervals from replicates; `problem` says why one is missing, or is empty."""

    intervals: list[Interval]
    undefined: int
    problem: str = ""


class Statistic(Protocol):
    """Numbers that can be had of the sample and of any resample of its patients, each under a key of its own."""

    def estimates(self) -> dict[Any, float]:
        """Return each number of the sample itself; NaN where undefined."""

    def values(self, weights: np.ndarray) -> dict[Any, np.ndarray]:
        """Return each number [resamples] for patients' counts [resamples, patients]; NaN where undefined."""

    def influence(self) -> dict[Any, np.ndarray]:
        """Return each patient's pull on each number, float64 [patients]; see `bootstrap_intervals`."""


def resample(
    statistics: Sequence[Statistic],
    wanted: Collection[Hashable],
    n_patients: int,
    settings: Accuracy,
    what: str,
) -> dict[Any, Bootstrapped]:
    """Bootstrap the ``wanted`` numbers of all ``statistics``, on the same resamples.

    Parameters
    ----------
    statistics
        No two of them may share a key.
    wanted
        Keys of numbers that are defined in the sample and have patients enough.
    n_patients
        Patients of the sample.
    settings
        Confidence, replicates and seed.
    what
        Names the progress bar.
    """
    replicates = replicate(statistics, wanted, n_patients, settings, what)
    found = {}
    for statistic in statistics if replicates else ():
        estimates = {k: v for k, v in statistic.estimates().items() if k in replicates}
        influence = statistic.influence() if estimates else {}
        for key, estimate in estimates.items():
            values = replicates.pop(key)
            found[key] = bootstrap_intervals(estimate, values, influence[key], settings.confidence)
    return found


def replicate(
    statistics: Sequence[Statistic],
    wanted: Collection[Hashable],
    n_patients: int,
    settings: Accuracy,
    what: str,
) -> dict[Any, np.ndarray]:
    """Return the replicates [resamples] of the ``wanted`` numbers; arguments are those of `resample`."""
    keys = set(wanted)
    measured = [(s, [k for k in s.estimates() if k in keys]) for s in statistics] if keys else []
    values: dict[Any, list[np.ndarray]] = {key: [] for _, own in measured for key in own}
    if not values:
        return {}
    chunks = draw_weights(n_patients, settings.replicates, settings.seed)
    total = math.ceil(settings.replicates / _rows_at_once(n_patients))
    for weights in progress(chunks, what, total, unit="chunks"):
        for statistic, own in measured:
            drawn = statistic.values(weights) if own else {}
            for key in own:
                values[key].append(drawn[key])
    return {key: np.concatenate(values.pop(key)) for key in list(values)}


def draw_weights(n_patients: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Yield int32 arrays [resamples, patients]: how often each patient is drawn, ``replicates`` rows in all.

    Rows are multinomial with equal chances. They depend on the arguments only, not on how many are
    yielded at a time.
    """
    generator = np.random.default_rng(seed)
    step = _rows_at_once(n_patients)
    for start in range(0, replicates, step):
        n = min(step, replicates - start)
        drawn = generator.integers(0, n_patients, size=(n, n_patients))
        drawn += np.arange(n)[:, None] * n_patients
        counts = np.bincount(drawn.ravel(), minlength=n * n_patients)
        yield counts.reshape(n, n_patients).astype(np.int32)


def _rows_at_once(n_patients: int) -> int:
    """Return how many resamples are drawn at a time, so that memory stays bounded."""
    return max(1, _ENTRIES_AT_ONCE // n_patients)


def bootstrap_intervals(
    estimate: float, replicates: np.ndarray, influence: np.ndarray, confidence: float
) -> Bootstrapped:
    """Return the BCa and percentile intervals of a metric.

    Parameters
    ----------
    estimate
        The metric of the sample.
    replicates
        Float64 [resamples], NaN where undefined; may be infinite.
    influence
        [patients], of any precision: each patient's pull on the estimate, such as the mean of the leave-one-out
        values minus the patient's own. Only their skewness counts, so any scale will do that is not far smaller.
    confidence
        Coverage.

    Notes
    -----
    Efron 1987, Better bootstrap confidence intervals, JASA 82:171, sections 2–4. Replicates equal
    to the estimate count half towards the bias correction, because metrics of few rows are discrete.
    An interval with an infinite limit is not given, nor then another in its place; one without width is not given.
    """
    defined = np.sort(replicates[~np.isnan(replicates)])
    undefined = len(replicates) - len(defined)
    if undefined > MOST_UNDEFINED * len(replicates):
        return Bootstrapped([], undefined, f"{undefined} of {len(replicates)} replicates are undefined")
    if _is_equal(defined[0], defined[-1]):
        return Bootstrapped([], undefined, "all replicates are equal: the bootstrap has no width here")
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    shares = {"bootstrap_bca": _bca_tails(estimate, defined, influence, tails), "bootstrap_percentile": tails}
    limits = [Interval(m, *_quantiles(defined, s)) for m, s in shares.items() if s is not None]
    if np.isinf(limits[0].high):
        return Bootstrapped([], undefined, "the upper limit is infinite")
    found = [i for i in limits if np.isfinite(i.high) and not _is_equal(i.low, i.high)]
    if not found:
        return Bootstrapped([], undefined, "both limits are equal: the bootstrap has no width here")
    bca = found[0].method == "bootstrap_bca"
    problem = "" if bca else "BCa gives no interval here; the percentile interval stands"
    return Bootstrapped(found, undefined, problem)


def _is_equal(low: float, high: float) -> bool:
    """Say whether two values, the second no smaller, differ by no more than rounding."""
    return bool(low == high or high - low <= _rounding(low))


def _rounding(value: float) -> float:
    return _ROUNDING * max(1.0, abs(value))


def _quantiles(ascending: np.ndarray, shares: np.ndarray) -> list[float]:
    """Return quantiles between neighbouring replicates as numpy does, infinite where the upper neighbour is."""
    finite = int(np.isfinite(ascending).sum())
    # numpy subtracts neighbours, and infinite ones leave no number.
    values = np.quantile(np.where(np.isfinite(ascending), ascending, ascending[finite - 1]), shares)
    beyond = np.ceil(shares * (len(ascending) - 1)) >= finite
    return np.where(beyond, np.inf, values).tolist()


def _bca_tails(
    estimate: float, ascending: np.ndarray, influence: np.ndarray, tails: np.ndarray
) -> np.ndarray | None:
    """Return the quantiles that BCa reads instead of ``tails``, or None where they do not exist."""
    near = _rounding(estimate)
    below = np.searchsorted(ascending, estimate - near) + np.searchsorted(ascending, estimate + near, "right")
    share = below / (2 * len(ascending))
    finite = ascending[np.isfinite(ascending)]
    largest = float(np.abs(influence).max())
    # Pulls that are far smaller than the replicates' width differ by rounding only.
    least = _ROUNDING * max(abs(estimate), finite[-1] - finite[0])
    if not 0 < share < 1 or not np.isfinite(largest) or largest <= least:
        return None
    # At their own scale their squares and cubes cannot vanish.
    pull = influence.astype(np.float64) / largest
    bias = ndtri(share)
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    z = bias + ndtri(tails)
    stretch = 1 - acceleration * z
    if (stretch <= 0).any():
        return None
    return ndtr(bias + z / stretch)
