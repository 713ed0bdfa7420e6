"""Calibration of the networks' own probabilities, to stand beside that of the calibrated ones; nothing is fitted.

The rows are those of ``calibration`` and ``calibration_measures``, of the same units and on the same resamples, so that
nothing differs but the calibration. Their ``scores`` are `UNCALIBRATED`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.config import Accuracy, Unit
from marrowflow.errors import UserError
from marrowflow.predictions import Predictions
from marrowflow.statistics.bootstrap import resample
from marrowflow.statistics.calibration import BIASED, measure_calibration
from marrowflow.statistics.cases import gather_units
from marrowflow.statistics.curves import CURVES, curve_rows, joined
from marrowflow.statistics.endpoints import Endpoints, answers_of, evaluate
from marrowflow.statistics.evaluation import Evaluation
from marrowflow.statistics.measures import CALIBRATION_COLUMNS
from marrowflow.statistics.rows import WARNING_COLUMNS, Place, measure_rows

UNCALIBRATED = "uncalibrated"
"""What ``scores`` says of probabilities before calibration."""

BEFORE = ", before calibration"
"""Ends the warnings about them."""


def is_calibrated(lock: dict[str, Any]) -> bool:
    """Say whether a lock holds any temperature: of the classes, or of an endpoint with a probability of its own."""
    calibration = lock.get("calibration", {})
    heads = [head["temperature"] for head in calibration.get("heads", {}).values()]
    return any(temperature is not None for temperature in (calibration.get("temperature"), *heads))


def measure_uncalibrated(
    before: Predictions,
    after: Predictions,
    endpoints: Endpoints,
    units: Sequence[Unit],
    settings: Accuracy,
    lock: dict[str, Any] | None = None,
) -> dict[str, pd.DataFrame]:
    """Measure the calibration of probabilities as they were before calibration.

    Parameters
    ----------
    before, after
        One index test's answers for the same cases, in the same order; only those before are measured.
    endpoints, units, settings
        As of `accuracy.measure`.
    lock
        Where it calibrates nothing, before is after, and there are no rows.

    Returns
    -------
    dict
        ``calibration_uncalibrated``, ``calibration_measures_uncalibrated`` and ``warnings``.

    Raises
    ------
    UserError
        The two tables have not the same cases.
    """
    curves, measures, notes = [], [], list[dict[str, str]]()
    _check_same(before.table, after.table)
    for unit in units if lock is None or is_calibrated(lock) else ():
        rows = gather_units(before.table, after.classes, unit)
        for name, positive in endpoints.items():
            # The answers decide nothing here: no cut-off belongs to these probabilities.
            answers = answers_of(rows, name, positive, None)
            evaluation = evaluate(rows, answers, positive, before.one_vs_rest, Place(name, unit, []))
            place = Place(name, unit, notes)
            curves.append(curve_rows("calibration", evaluation, place, settings.confidence))
            measures.append(_measures(evaluation, place, settings))
    return {
        "calibration_uncalibrated": joined(curves, CURVES["calibration"]),
        "calibration_measures_uncalibrated": joined(measures, CALIBRATION_COLUMNS),
        "warnings": pd.DataFrame(notes, columns=list(WARNING_COLUMNS)),
    }


def _measures(evaluation: Evaluation, place: Place, settings: Accuracy) -> pd.DataFrame:
    """Return the rows of all questions of an endpoint; warn of intervals that are missing."""
    sample = evaluation.sample
    measured = measure_calibration(sample, evaluation.questions)
    estimates = {key: value for one in measured for key, value in one.estimates().items()}
    wanted = [
        key
        for key, value in estimates.items()
        if not np.isnan(value) and key[0] not in BIASED and not evaluation.too_few(key[:2])
    ]
    what = f"bootstrap {place.endpoint} {place.unit}{BEFORE}"
    resampled = resample(measured, wanted, sample.n_patients, settings, what)
    for key, value in estimates.items():
        reason = "undefined in this sample" if np.isnan(value) else ""
        if key in resampled and not resampled[key].intervals:
            reason = resampled[key].problem
        if reason and not evaluation.too_few(key[:2]):
            place.warn(reason + BEFORE, key[:2])
    table = measure_rows(estimates, {}, resampled, sample, place, settings)
    return table.assign(scores=UNCALIBRATED)


def _check_same(before: pd.DataFrame, after: pd.DataFrame) -> None:
    keys = ["cohort", "case_id", "index_test"]
    if not before[keys].equals(after[keys]):
        raise UserError(
            "--uncalibrated has not the cases of --predictions in the same order: take both of one run of "
            "learning.lock or learning.combine"
        )
