"""The rows of ``comparisons.csv``: the difference of each metric between two index tests, or two samples.

Of the same units: the same resamples of patients for both, so that what they share cancels. Of different patients:
each side is resampled by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.config import Accuracy
from marrowflow.statistics.bootstrap import Bootstrapped, Interval, bootstrap_intervals, replicate
from marrowflow.statistics.evaluation import Evaluation, Key
from marrowflow.statistics.hypotheses import PValue, holm, jackknife_t, paired_proportions, rao_scott, wald
from marrowflow.statistics.intervals import difference_jackknife, difference_wald
from marrowflow.statistics.metrics import MACRO, MICRO
from marrowflow.statistics.movers import METHOD as MOVER
from marrowflow.statistics.movers import Proportion, difference_interval
from marrowflow.statistics.ranking import AucPulls
from marrowflow.statistics.rows import METRICS, Place

COMPARISON_COLUMNS = (
    "endpoint",
    "metric",
    "class",
    "unit",
    "index_test",
    "cohort",
    "against",
    "against_cohort",
    "estimate",
    "estimate_against",
    "difference",
    "low",
    "high",
    "method",
    "primary",
    "test",
    "p_value",
    "p_holm",
    "n_cases",
    "n_patients",
    "n_cases_against",
    "n_patients_against",
    "replicates",
    "undefined",
    "seed",
)

_UNTESTED = PValue("", np.nan)
_TESTED_PROPORTIONS = ("sensitivity", "specificity", "accuracy")
"""Proportions with a p-value: those whose denominators both index tests share."""


@dataclass(frozen=True)
class Measured:
    """What is compared of one index test on one sample.

    It outlives the evaluation it was taken from, whose matrices of pairs are the largest thing in memory.

    Attributes
    ----------
    index_test, cohort
        Whose answers, and whose patients.
    estimates
        Each metric of the sample; NaN where undefined.
    replicates
        Float64 [resamples] of each metric that is defined and has patients enough; may be infinite.
    pulls
        Float64 [patients]: each patient's pull on each metric; see `bootstrap_intervals`.
    too_few
        Why a metric has no clustered interval, or an empty string.
    proportions
        Numerators and denominators [patients] of the metrics that are proportions.
    aucs
        Pulls on the AUC of each yes/no question that has one, by the question's name.
    fixed
        Metrics that, or whose parts, are at 0 % or 100 %: no resample moves those.
    classes
        Names in their order.
    n_cases, n_patients
        Of the sample.
    alone
        True where no patient has more than one unit.
    """

    index_test: str
    cohort: str
    estimates: dict[Key, float]
    replicates: dict[Key, np.ndarray]
    pulls: dict[Key, np.ndarray]
    too_few: dict[Key, str]
    proportions: dict[Key, tuple[np.ndarray, np.ndarray]]
    aucs: dict[str, AucPulls]
    fixed: frozenset[Key]
    classes: list[str]
    n_cases: int
    n_patients: int
    alone: bool


def measure_side(
    evaluation: Evaluation, index_test: str, cohort: str, settings: Accuracy, what: str
) -> Measured:
    """Measure one side of a comparison and its resamples, which the seed decides; ``what`` names the progress bar."""
    sample = evaluation.sample
    estimates = evaluation.estimates()
    too_few = {key: evaluation.too_few(key) for key in estimates}
    wanted = [key for key, value in estimates.items() if not np.isnan(value) and not too_few[key]]
    proportions = {key: found for key in estimates if (found := evaluation.proportion(key)) is not None}
    return Measured(
        index_test=index_test,
        cohort=cohort,
        estimates=estimates,
        replicates=replicate([evaluation], wanted, sample.n_patients, settings, what),
        pulls=evaluation.influence() if wanted else {},
        too_few=too_few,
        proportions=proportions,
        aucs={name: r.auc_pulls() for name, r in evaluation.rankings.items() if r is not None},
        fixed=frozenset(
            key
            for key, value in estimates.items()
            if evaluation.without_spread(key, estimates) or (key in proportions and value in (0.0, 1.0))
        ),
        classes=sample.classes,
        n_cases=sample.n_cases,
        n_patients=sample.n_patients,
        alone=sample.one_case_clusters,
    )


def comparison_rows(a: Measured, b: Measured, paired: bool, place: Place, settings: Accuracy) -> pd.DataFrame:
    """Return the rows of ``a`` against ``b``, with `COMPARISON_COLUMNS`; ``p_holm`` is left to `with_holm`.

    Parameters
    ----------
    a, b
        The two sides. Paired, they are of the same units, with the same numbering of patients and the same seed;
        else of different patients, with different seeds.
    paired
        Which of the two it is.
    place
        Endpoint, unit and warnings.
    settings
        Confidence, replicates and seed.

    Notes
    -----
    Exactly one row of a metric and class is primary: of proportions `difference_interval`, of AUCs `difference_jackknife`
    (simulated, the bootstrap of their differences covers too little where patients are few), of other metrics the BCa
    interval, where BCa is undefined the percentile interval, else a row with the method ``none`` and a warning that says
    why. Its p-value is that of the jackknife's t-test for AUCs, so that the two never contradict one another, and of
    the tests for paired or unpaired counts for proportions.

    The acceleration of BCa comes from the patients' pulls on the difference: of the same patients the difference of
    the two pulls; of different patients the pulls of both sides in one list, each as empirical influence over its side's
    number of patients (several samples: Davison and Hinkley 1997, Bootstrap Methods and their Application, chapter 5).

    Beside a difference of AUCs stand interval and p-value with Obuchowski's variance, or DeLong's where every patient has one
    unit; of different patients the two variances are added.
    """
    order = {name: i for i, name in enumerate(["", MICRO, MACRO, *a.classes])}
    keys = sorted(a.estimates.keys() & b.estimates.keys(), key=lambda k: (order[k[1]], METRICS.index(k[0])))
    pair = " against ".join(s.index_test if paired else f"{s.index_test} ({s.cohort})" for s in (a, b))
    rows: list[dict[str, Any]] = []
    for key in keys:
        difference = a.estimates[key] - b.estimates[key]
        problem = "undefined: a denominator is 0 in this sample" if np.isnan(difference) else ""
        problem = problem or a.too_few[key] or b.too_few[key]
        bootstrapped = Bootstrapped([], 0)
        found: list[tuple[Interval, PValue]] = []
        beside: list[tuple[Interval, PValue]] = []
        printed_test = _UNTESTED
        if not problem:
            bootstrapped = _bootstrap(a, b, key, paired, settings.confidence)
            interval, printed_test = _printed(a, b, key, paired, settings.confidence)
            found = [(interval, printed_test)] if interval else []
            beside = _by_variance(a, b, key, paired, settings.confidence)
            problem = "" if interval else bootstrapped.problem
        found += [(i, _UNTESTED) for i in bootstrapped.intervals]
        # The test stands in the printed row, whatever interval that has.
        first = found[0][0] if found else Interval("none", np.nan, np.nan)
        found = [(first, printed_test), *found[1:], *beside]
        if problem:
            place.warn(f"{pair}: {problem}", key)
        elif key in a.fixed | b.fixed and first.method != MOVER:
            place.warn(
                f"{pair}: at 0 % or 100 % on one side, where nothing moves it: the interval is too narrow",
                key,
            )
        for i, (interval, test) in enumerate(found):
            drawn = (
                key in a.replicates
                and key in b.replicates
                and interval.method.startswith(("bootstrap", "none"))
            )
            rows.append(
                {
                    "endpoint": place.endpoint,
                    "metric": key[0],
                    "class": key[1],
                    "unit": place.unit,
                    "index_test": a.index_test,
                    "cohort": a.cohort,
                    "against": b.index_test,
                    "against_cohort": b.cohort,
                    "estimate": a.estimates[key],
                    "estimate_against": b.estimates[key],
                    "difference": difference,
                    "low": interval.low,
                    "high": interval.high,
                    "method": interval.method,
                    "primary": i == 0,
                    "test": test.name,
                    "p_value": test.p,
                    "p_holm": np.nan,
                    "n_cases": a.n_cases,
                    "n_patients": a.n_patients,
                    "n_cases_against": b.n_cases,
                    "n_patients_against": b.n_patients,
                    "replicates": settings.replicates if drawn else 0,
                    "undefined": bootstrapped.undefined if drawn else 0,
                    "seed": settings.seed,
                }
            )
    return pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))


def with_holm(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill ``p_holm`` of primary rows. A family is their p-values of one endpoint and unit: all pairs, metrics and classes."""
    printed = rows.assign(p=rows["p_value"].where(rows["primary"].astype(bool)))
    families = printed.groupby(["endpoint", "unit"], sort=False)["p"]
    return rows.assign(p_holm=families.transform(lambda p: holm(p.to_numpy())).astype(np.float64))


def _bootstrap(a: Measured, b: Measured, key: Key, paired: bool, confidence: float) -> Bootstrapped:
    mine, theirs = a.replicates[key], b.replicates[key]
    infinite = int((np.isinf(mine) | np.isinf(theirs)).sum())
    if infinite:
        # Infinite differences lie beyond both limits, and ∞ − ∞ nowhere: to drop them would cut the tails off.
        return Bootstrapped([], 0, f"the ratio is infinite in {infinite} of {len(mine)} resamples")
    of_a, of_b = a.pulls[key], b.pulls[key]
    pulls = of_a - of_b if paired else np.concatenate([_scaled(of_a), -_scaled(of_b)])
    return bootstrap_intervals(a.estimates[key] - b.estimates[key], mine - theirs, pulls, confidence)


def _printed(
    a: Measured, b: Measured, key: Key, paired: bool, confidence: float
) -> tuple[Interval | None, PValue]:
    """Return interval and test of a difference of proportions, or of AUCs; of other metrics, or without spread, no interval."""
    if key in a.proportions:
        sides = a.proportions[key], b.proportions[key]
        return difference_interval(*sides, paired, confidence), _test_of_counts(key, *sides, paired)
    if key[0] != "auc":
        return None, _UNTESTED
    fewest = [_fewest(side, key[1]) for side in (a, b)]
    of_a, of_b = a.pulls[key], b.pulls[key]
    parts = [(of_a - of_b, min(fewest))] if paired else list(zip((of_a, of_b), fewest, strict=True))
    difference = a.estimates[key] - b.estimates[key]
    return difference_jackknife(difference, parts, confidence), jackknife_t(difference, parts)


def _by_variance(
    a: Measured, b: Measured, key: Key, paired: bool, confidence: float
) -> list[tuple[Interval, PValue]]:
    """Return interval and test of a question's AUC from Obuchowski's or DeLong's variance; of other metrics none."""
    metric, name = key
    if metric != "auc" or name in (MACRO, MICRO):
        return []
    of_a, of_b = a.aucs[name], b.aucs[name]
    variance = of_a.minus(of_b).variance() if paired else of_a.variance() + of_b.variance()
    difference = a.estimates[key] - b.estimates[key]
    method = "delong" if a.alone and b.alone else "obuchowski"
    interval = difference_wald(method, difference, variance, confidence)
    return [(interval, wald(method, difference, variance))] if interval else []


def _test_of_counts(key: Key, of_a: Proportion, of_b: Proportion, paired: bool) -> PValue:
    """Return the test of a proportion whose denominators both index tests share; of others none."""
    if key[0] not in _TESTED_PROPORTIONS or key[1] == MICRO:
        return _UNTESTED
    return paired_proportions(of_a[0], of_b[0], of_a[1]) if paired else rao_scott(*of_a, *of_b)


def _fewest(side: Measured, name: str) -> int:
    """Return how many patients can move an AUC: those of the rarer class."""
    return min(side.aucs[n].fewest for n in (side.classes if name == MACRO else [name]))


def _scaled(pulls: np.ndarray) -> np.ndarray:
    """Return leave-one-out pulls as the sample's own empirical influence over its number of patients."""
    return pulls * (len(pulls) - 1) / len(pulls)
