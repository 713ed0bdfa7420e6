"""The rows of ``metrics.csv``: each metric's estimate with every interval that may be given for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.cli import progress
from marrowflow.config import Accuracy
from marrowflow.statistics.bootstrap import Bootstrapped, Interval, bootstrap_intervals, draw_weights
from marrowflow.statistics.evaluation import Evaluation, Key
from marrowflow.statistics.intervals import (
    auc_delong,
    auc_logit,
    clopper_pearson,
    wilson,
    wilson_clustered,
)

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
WARNING_COLUMNS = ("endpoint", "metric", "class", "unit", "warning")

_METRICS = (
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
# Which interval is printed. BCa and percentile limits follow the metric through any monotone transformation,
# so those of the likelihood ratios are those of their logarithms.
_PRIMARY = {True: ("wilson_neff",), False: ("bootstrap_bca", "bootstrap_percentile")}


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


def metric_rows(evaluation: Evaluation, place: Place, settings: Accuracy) -> pd.DataFrame:
    """Return the rows of an endpoint and unit, with `METRIC_COLUMNS`.

    Exactly one row of a metric and class is primary. Where the interval that should be printed does
    not exist that row has the method ``none`` and no limits, and a warning says why.
    """
    estimates = evaluation.estimates()
    resampled = resample(evaluation, estimates, settings, f"bootstrap {place.endpoint} {place.unit}")
    order = {name: i for i, name in enumerate(["", *evaluation.sample.classes])}
    keys = sorted(estimates, key=lambda k: (order.get(k[1], len(order)), _METRICS.index(k[0])))
    rows: list[dict[str, Any]] = []
    for key in keys:
        undefined = "undefined: a denominator is 0 in this sample" if np.isnan(estimates[key]) else ""
        problem = undefined or evaluation.too_few(key)
        bootstrapped = resampled.get(key, Bootstrapped([], 0))
        found = [] if np.isnan(estimates[key]) else _intervals(evaluation, key, settings.confidence)
        found += bootstrapped.intervals
        proportion = evaluation.proportion(key)
        preferred = next(
            (m for m in _PRIMARY[proportion is not None] for i in found if i.method == m), "none"
        )
        if preferred == "none":
            found.append(Interval("none", np.nan, np.nan))
        problem = problem or bootstrapped.problem
        if problem:
            place.warn(problem, key)
        fixed = evaluation.without_spread(key, estimates)
        if fixed and preferred != "none":
            place.warn(
                f"{fixed} classes at 0 % or 100 %: their variance counts as 0, the interval is too narrow",
                key,
            )
        numerator, denominator = (s.sum() for s in proportion) if proportion else (np.nan, np.nan)
        for interval in found:
            drawn = key in resampled and interval.method.startswith(("bootstrap", "none"))
            rows.append(
                {
                    "endpoint": place.endpoint,
                    "metric": key[0],
                    "class": key[1],
                    "unit": place.unit,
                    "estimate": estimates[key],
                    "low": interval.low,
                    "high": interval.high,
                    "method": interval.method,
                    "primary": interval.method == preferred,
                    "n_cases": evaluation.sample.n_cases,
                    "n_patients": evaluation.sample.n_patients,
                    "numerator": numerator,
                    "denominator": denominator,
                    "replicates": settings.replicates if drawn else 0,
                    "undefined": bootstrapped.undefined if drawn else 0,
                    "seed": settings.seed,
                }
            )
    whole = {"numerator": "Int64", "denominator": "Int64"}
    return pd.DataFrame(rows, columns=list(METRIC_COLUMNS)).astype(whole)


def resample(
    evaluation: Evaluation, estimates: Mapping[Key, float], settings: Accuracy, what: str
) -> dict[Key, Bootstrapped]:
    """Bootstrap each metric that is defined and has patients enough; `what` names the progress bar."""
    wanted = [k for k, v in estimates.items() if not np.isnan(v) and not evaluation.too_few(k)]
    if not wanted:
        return {}
    chunks = draw_weights(evaluation.sample.n_patients, settings.replicates, settings.seed)
    values: dict[Key, list[np.ndarray]] = {key: [] for key in wanted}
    for weights in progress(chunks, what, unit="chunks"):
        drawn = evaluation.values(weights)
        for key in wanted:
            values[key].append(drawn[key])
    influence = evaluation.influence()
    return {
        key: bootstrap_intervals(
            estimates[key], np.concatenate(values[key]), influence[key], settings.confidence
        )
        for key in wanted
    }


def _intervals(evaluation: Evaluation, key: Key, confidence: float) -> list[Interval]:
    """Return the intervals in closed form that the metric has."""
    found: list[Interval | None] = []
    proportion = evaluation.proportion(key)
    clustered = not evaluation.too_few(key)
    alone = evaluation.sample.one_case_clusters
    if proportion is not None:
        if clustered:
            found.append(wilson_clustered(*proportion, confidence))
        if alone:
            x, n = (int(s.sum()) for s in proportion)
            found += [clopper_pearson(x, n, confidence), wilson(x, n, confidence)]
    ranking = evaluation.rankings.get(key[1]) if key[0] == "auc" else None
    if ranking is not None and clustered:
        auc, variance = ranking.auc_variance()
        found.append(auc_logit(auc, variance, confidence))
        if alone:
            found.append(auc_delong(auc, variance, confidence))
    return [interval for interval in found if interval is not None]
