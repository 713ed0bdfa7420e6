"""What is measured beside the metrics: calibration, net benefit, predictive values, operating points, the ROC curve's band.

Each is a `Statistic`, bootstrapped on the same resamples as the metrics, and has a table of its own with
`MEASURE_COLUMNS`. An interval is missing for the reasons for which that of a metric is; ``decision`` and ``roc_band`` have
hundreds of rows, and only the other tables' reasons are told in ``warnings.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.config import Accuracy
from marrowflow.statistics.bootstrap import Bootstrapped, Interval, Statistic
from marrowflow.statistics.calibration import (
    BIASED,
    CLIPPED_AT,
    RECALIBRATED,
    measure_calibration,
    out_of_fold_recalibrated,
)
from marrowflow.statistics.decision import PredictiveValues, decision_curves
from marrowflow.statistics.evaluation import Evaluation, Question
from marrowflow.statistics.operating import operating_points
from marrowflow.statistics.rows import MEASURE_COLUMNS, Measure, Place, measure_rows

CALIBRATION_COLUMNS = (*MEASURE_COLUMNS, "scores")
"""``scores`` is as_given or recalibrated_out_of_fold."""

TABLES = {
    "calibration_measures": CALIBRATION_COLUMNS,
    "decision": MEASURE_COLUMNS,
    "predictive_values": MEASURE_COLUMNS,
    "operating_points": MEASURE_COLUMNS,
    "roc_band": MEASURE_COLUMNS,
}
_TOLD = ("calibration_measures", "predictive_values", "operating_points")


@dataclass(frozen=True)
class Measures:
    """An endpoint's statistics, and the numbers among theirs that are wanted, by the table that they stand in.

    Attributes
    ----------
    statistics
        To be resampled together.
    estimates
        Table to number to estimate.
    closed
        Intervals in closed form; of those that have one it is printed first.
    """

    statistics: list[Statistic]
    estimates: dict[str, Mapping[Any, float]]
    closed: dict[Measure, list[Interval]]

    def resampled(self, evaluation: Evaluation) -> list[Measure]:
        """Return the numbers that are defined, have patients enough, and whose resamples scatter about them."""
        return [
            key
            for estimates in self.estimates.values()
            for key, value in estimates.items()
            if not np.isnan(value)
            and key[0]
            != "net_benefit_treat_all"  # a line to compare with: its interval would be the prevalence's
            and not evaluation.too_few(key[:2])
            and not _is_biased(key)
        ]


def measure_beside(evaluation: Evaluation, place: Place, settings: Accuracy) -> Measures:
    """Return what is measured of an endpoint beside its metrics; warn of what cannot be."""
    sample, questions = evaluation.sample, evaluation.questions
    again = list(_recalibrated(evaluation, place))
    calibrated = [
        *measure_calibration(sample, questions),
        *measure_calibration(sample, again, recalibrated=True),
    ]
    for calibration in calibrated:
        if calibration.clipped and not calibration.ending:
            place.warn(
                f"{calibration.clipped} probabilities within {CLIPPED_AT} of 0 or 1 were moved there for their logit",
                ("calibration_slope", calibration.name),
            )
    if calibrated:
        for metric in BIASED:
            place.warn("no interval: it is biased upwards, and resampling adds as much again", (metric, ""))
    values = PredictiveValues(evaluation, settings.prevalences)
    closed = {key: values.closed_form(key, settings.confidence) for key in values.estimates()}
    partial = settings.partial_auc_from
    operated = operating_points(
        {q.name: evaluation.rankings.get(q.name) for q in questions},
        sorted({*settings.at_specificity, *([] if partial is None else [partial])}),
        settings.at_sensitivity,
    )
    numbers = [(key, value) for o in operated for key, value in o.estimates().items()]
    decided = decision_curves(sample, questions)
    return Measures(
        statistics=[*calibrated, *decided, values, *operated],
        estimates={
            "calibration_measures": {k: v for c in calibrated for k, v in c.estimates().items()},
            "decision": {k: v for d in decided for k, v in d.estimates().items()},
            "predictive_values": values.estimates(),
            "operating_points": {k: v for k, v in numbers if _is_asked(k, settings)},
            "roc_band": {k: v for k, v in numbers if k[0] == "tpr_at_fpr"},
        },
        closed={key: [interval] for key, interval in closed.items() if interval is not None},
    )


def measure_tables(
    measures: Measures,
    evaluation: Evaluation,
    resampled: Mapping[Any, Bootstrapped],
    place: Place,
    settings: Accuracy,
) -> dict[str, pd.DataFrame]:
    """Return the tables of `TABLES` for an endpoint and unit; ``resampled`` is what `resample` made of `Measures.resampled`."""
    tables = {}
    for name, estimates in measures.estimates.items():
        table = measure_rows(estimates, measures.closed, resampled, evaluation.sample, place, settings)
        if name == "calibration_measures":
            again = table["metric"].str.endswith(RECALIBRATED)
            table["metric"] = table["metric"].str.removesuffix(RECALIBRATED)
            table["scores"] = np.where(again, "recalibrated_out_of_fold", "as_given")
        if name in _TOLD:
            _tell_missing(estimates, measures, evaluation, resampled, place)
        tables[name] = table
    return tables


def _recalibrated(evaluation: Evaluation, place: Place) -> Iterator[Question]:
    """Yield the questions with scores that were recalibrated out-of-fold, where that can be."""
    for question in evaluation.questions:
        if question.score is None or not question.is_probability or not len(question.score):
            continue
        score = out_of_fold_recalibrated(question.score, question.positive, evaluation.sample.patient)
        if score is None:
            place.warn(
                "no recalibration: outside some fold of patients the scores separate the classes, or one is absent",
                ("calibration_slope", question.name),
            )
        else:
            yield replace(question, score=score)


def _is_asked(key: Measure, settings: Accuracy) -> bool:
    metric, _, at = key
    if metric in ("partial_auc", "partial_area"):
        return at == settings.partial_auc_from
    return metric == "specificity_at_sensitivity" or (
        metric == "sensitivity_at_specificity" and at in settings.at_specificity
    )


def _is_biased(key: Measure) -> bool:
    return key[0].removesuffix(RECALIBRATED) in BIASED


def _tell_missing(
    estimates: Mapping[Measure, float],
    measures: Measures,
    evaluation: Evaluation,
    resampled: Mapping[Any, Bootstrapped],
    place: Place,
) -> None:
    """Warn once a metric and class, whatever the number of levels, of values or intervals that are missing."""
    told: dict[tuple[str, str, str], int] = {}
    for key, value in estimates.items():
        if _is_biased(key) or evaluation.too_few(key[:2]):
            continue  # told of all, and with the metrics
        reason = "undefined in this sample" if np.isnan(value) else ""
        if key in resampled and not resampled[key].intervals and key not in measures.closed:
            reason = resampled[key].problem
        if reason:
            metric = key[0].removesuffix(RECALIBRATED)
            reason += "" if metric == key[0] else ", after recalibration"
            place_of = (metric, key[1], reason)
            told[place_of] = told.get(place_of, 0) + 1
    for (metric, name, reason), levels in told.items():
        place.warn(f"{reason} ({levels} rows)" if levels > 1 else reason, (metric, name))
