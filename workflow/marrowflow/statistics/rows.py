"""The rows of ``metrics.csv``: each metric's estimate with every interval that may be given for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.config import Accuracy
from marrowflow.statistics.bootstrap import Bootstrapped, Interval
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.evaluation import Evaluation, Key
from marrowflow.statistics.intervals import (
    auc_delong,
    auc_jackknife,
    auc_logit,
    auc_separated,
    clopper_pearson,
    log_robust,
    logit_t,
    wilson,
    wilson_clustered,
)
from marrowflow.statistics.metrics import MACRO, MICRO, ratio
from marrowflow.statistics.movers import METHOD as MOVER
from marrowflow.statistics.movers import mean_interval, ratio_interval

log = logging.getLogger(__name__)

METRIC_COLUMNS = (
    "endpoint",
    "metric",
    "class",
    "unit",
    "estimate",
    "low",
    "high",
    "method",
    "primary",
    "n_cases",
    "n_patients",
    "numerator",
    "denominator",
    "replicates",
    "undefined",
    "seed",
)
MEASURE_COLUMNS = (
    "endpoint",
    "metric",
    "class",
    "at",
    "unit",
    "estimate",
    "low",
    "high",
    "method",
    "primary",
    "n_cases",
    "n_patients",
    "replicates",
    "undefined",
    "seed",
)
"""Columns of the files beside ``metrics.csv``: ``at`` is the cut-off, prevalence or level that a number is given for."""
PROPORTION_COLUMNS = ("estimate", "low", "high", "method", "numerator", "denominator", "n_patients")
"""What `proportion_row` gives."""
WARNING_COLUMNS = ("endpoint", "metric", "class", "unit", "warning")

METRICS = (
    "auc",
    "accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "mcc",
    "balanced_accuracy",
    "kappa",
    "brier",
    "average_precision",
    "lr_positive",
    "lr_negative",
    "dor",
)
"""All metrics, in the order in which they are printed."""
_RATIOS = ("lr_positive", "lr_negative", "dor")
_NO_RATIO = "no interval of this ratio: a cell of the table is empty, and a limit infinite"
_RESAMPLED = ("bootstrap_bca", "bootstrap_percentile")


Measure = tuple[str, str, float | None]
"""(metric, class, at) as in the files beside ``metrics.csv``."""


@dataclass(frozen=True)
class Place:
    """Where rows stand (endpoint and unit), and the warnings that are gathered for ``warnings.csv``."""

    endpoint: str
    unit: str
    warnings: list[dict[str, str]] = field(repr=False)

    def warn(self, warning: str, key: Key = ("", "")) -> None:
        """Note a warning about a metric and class, or about all of them, and log it."""
        metric, name = key
        self.warnings.append(
            {
                "endpoint": self.endpoint,
                "metric": metric,
                "class": name,
                "unit": self.unit,
                "warning": warning,
            }
        )
        where = " ".join(part for part in (self.endpoint, self.unit, metric, name) if part)
        log.warning("%s: %s", where or "prediction table", warning)


def metric_rows(
    evaluation: Evaluation, resampled: Mapping[Any, Bootstrapped], place: Place, settings: Accuracy
) -> pd.DataFrame:
    """Return the rows of an endpoint and unit, with `METRIC_COLUMNS`.

    Exactly one row of a metric and class is primary. Where the interval that should be printed does
    not exist that row has the method ``none`` and no limits, and a warning says why. ``resampled`` holds what
    `resample` made of `resampled_metrics`.
    """
    estimates = evaluation.estimates()
    order = {name: i for i, name in enumerate(["", MICRO, MACRO, *evaluation.sample.classes])}
    rows: list[dict[str, Any]] = []
    for key in sorted(estimates, key=lambda k: (order[k[1]], METRICS.index(k[0]))):
        undefined = "undefined: a denominator is 0 in this sample" if np.isnan(estimates[key]) else ""
        bootstrapped = resampled.get(key, Bootstrapped([], 0))
        closed = [] if undefined else _intervals(evaluation, key, settings.confidence)
        found = _in_order([*closed, *bootstrapped.intervals], _preferred(evaluation, key))
        problem = undefined or evaluation.too_few(key)
        if not problem and found[0].method in ("none", *_RESAMPLED):
            problem = _NO_RATIO if key[0] in _RATIOS else bootstrapped.problem
        if problem:
            place.warn(problem, key)
        fixed = evaluation.without_spread(key, estimates)
        if fixed and found[0].method not in ("none", MOVER):
            place.warn(
                f"{fixed} class{'' if fixed == 1 else 'es'} at 0 % or 100 %: variance counted as 0, the interval is too narrow",
                key,
            )
        proportion = evaluation.proportion(key)
        numerator, denominator = (s.sum() for s in proportion) if proportion else (np.nan, np.nan)
        rows += [
            {
                "metric": key[0],
                "class": key[1],
                "estimate": estimates[key],
                "numerator": numerator,
                "denominator": denominator,
                **row,
            }
            for row in _interval_rows(
                found, key in resampled, bootstrapped, evaluation.sample, place, settings
            )
        ]
    whole = {"numerator": "Int64", "denominator": "Int64"}
    return pd.DataFrame(rows, columns=list(METRIC_COLUMNS)).astype(whole)


def resampled_metrics(evaluation: Evaluation) -> list[Key]:
    """Return the metrics that are defined in the sample and have patients enough to be resampled."""
    return [k for k, v in evaluation.estimates().items() if not np.isnan(v) and not evaluation.too_few(k)]


def measure_rows(
    estimates: Mapping[Measure, float],
    closed: Mapping[Measure, Sequence[Interval]],
    resampled: Mapping[Any, Bootstrapped],
    sample: Sample,
    place: Place,
    settings: Accuracy,
) -> pd.DataFrame:
    """Return rows of what is measured beside the metrics, with `MEASURE_COLUMNS`.

    One row a number and interval method, the one to be printed first and primary: that in ``closed`` form where
    there is one, else BCa, else the percentile interval. The method is ``none`` where there is no interval.
    """
    rows: list[dict[str, Any]] = []
    for key, estimate in estimates.items():
        metric, name, at = key
        bootstrapped = resampled.get(key, Bootstrapped([], 0))
        in_closed_form = closed.get(key, ())
        preferred = (*(i.method for i in in_closed_form), *_RESAMPLED)
        found = _in_order([*in_closed_form, *bootstrapped.intervals], preferred)
        rows += [
            {"metric": metric, "class": name, "at": np.nan if at is None else at, "estimate": estimate, **row}
            for row in _interval_rows(found, key in resampled, bootstrapped, sample, place, settings)
        ]
    return pd.DataFrame(rows, columns=list(MEASURE_COLUMNS))


def proportion_row(numerators: np.ndarray, denominators: np.ndarray, confidence: float) -> dict[str, Any]:
    """Return estimate, interval (`wilson_clustered`, or ``none``) and counts of a proportion of patients' counts [patients]."""
    x, m = numerators.astype(np.float64), denominators.astype(np.float64)
    interval = wilson_clustered(x, m, confidence) or Interval("none", np.nan, np.nan)
    return {
        "estimate": float(ratio(x.sum(), m.sum())),
        "low": interval.low,
        "high": interval.high,
        "method": interval.method,
        "numerator": int(numerators.sum()),
        "denominator": int(denominators.sum()),
        "n_patients": len(m),
    }


def _in_order(found: Sequence[Interval], preferred: Sequence[str]) -> list[Interval]:
    """Put the first of the ``preferred`` methods that was found first, or else an empty interval."""
    first = next((i for m in preferred for i in found if i.method == m), Interval("none", np.nan, np.nan))
    return [first, *(i for i in found if i is not first)]


def _interval_rows(
    found: Sequence[Interval],
    drawn: bool,
    bootstrapped: Bootstrapped,
    sample: Sample,
    place: Place,
    settings: Accuracy,
) -> list[dict[str, Any]]:
    """Return what the rows of one number's intervals say of the intervals; the first is primary."""
    rows = []
    for interval in found:
        from_replicates = drawn and interval.method.startswith(("bootstrap", "none"))
        rows.append(
            {
                "endpoint": place.endpoint,
                "unit": place.unit,
                "low": interval.low,
                "high": interval.high,
                "method": interval.method,
                "primary": interval is found[0],
                "n_cases": sample.n_cases,
                "n_patients": sample.n_patients,
                "replicates": settings.replicates if from_replicates else 0,
                "undefined": bootstrapped.undefined if from_replicates else 0,
                "seed": settings.seed,
            }
        )
    return rows


def _preferred(evaluation: Evaluation, key: Key) -> tuple[str, ...]:
    """Return the methods of which the first that exists is printed."""
    if evaluation.proportion(key) is not None:
        return ("wilson_neff",)
    if key[0] == "auc":
        return ("jackknife_logit", "newcombe_neff")
    if key[0] in _RATIOS:
        # Without clusters the classical interval; with them it covers too little where patients are few.
        alone = evaluation.sample.one_case_clusters
        return ("log_robust", MOVER) if alone else (MOVER, "log_robust")
    return (MOVER, *_RESAMPLED) if evaluation.mean_of(key) else _RESAMPLED


def _intervals(evaluation: Evaluation, key: Key, confidence: float) -> list[Interval]:
    """Return the intervals in closed form that the metric has."""
    found: list[Interval | None] = []
    proportion = evaluation.proportion(key)
    clustered = not evaluation.too_few(key)
    alone = evaluation.sample.one_case_clusters
    if proportion is not None:
        if clustered:
            found.append(wilson_clustered(*proportion, confidence))
            found.append(logit_t(*proportion, confidence))
        if alone:
            x, n = (int(s.sum()) for s in proportion)
            found += [clopper_pearson(x, n, confidence), wilson(x, n, confidence)]
    if key[0] in _RATIOS and clustered:
        cells = evaluation.cells_of("")
        found += [log_robust(key[0], cells, confidence), ratio_interval(key[0], cells, confidence)]
    parts = evaluation.mean_of(key)
    if parts and clustered:
        found.append(mean_interval(parts, confidence))
    if key[0] == "auc" and clustered:
        found += _auc_intervals(evaluation, key[1], confidence)
    return [interval for interval in found if interval is not None]


def _auc_intervals(evaluation: Evaluation, name: str, confidence: float) -> list[Interval | None]:
    """Return the intervals of a question's AUC, or of the mean of all questions'."""
    names = [q.name for q in evaluation.questions] if name == MACRO else [name]
    rankings = [r for r in map(evaluation.rankings.get, names) if r is not None]
    if len(rankings) < len(names):
        return []
    estimates = [r.auc_variance() for r in rankings]
    left_out = np.mean([r.auc_without_each() for r in rankings], axis=0)
    fewest = min(r.auc_pulls().fewest for r in rankings)
    mean = float(np.mean([auc for auc, _ in estimates]))
    found = [auc_jackknife(mean, left_out, fewest, confidence)]
    if name != MACRO:
        auc, variance = estimates[0]
        found.append(auc_separated(auc, rankings[0].positives, rankings[0].negatives, confidence))
        found.append(auc_logit(auc, variance, confidence))
        # All classes of a unit in one order are as many rows of a patient.
        if evaluation.sample.one_case_clusters and name != MICRO:
            found.append(auc_delong(auc, variance, confidence))
    return found
