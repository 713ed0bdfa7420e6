"""Diagnostic accuracy of a prediction table: metrics with intervals, cross-tabulation and curves.

    python -m marrowflow statistics.accuracy --predictions P.parquet --unit patient --positive AML --out DIR

writes to DIR

- ``metrics.csv``: one row a metric and interval method;
- ``confusion.csv``: the cross-tabulation of all units; ``indeterminate.csv``: accuracy three ways;
- ``roc.csv``, ``roc_band.csv``, ``pr.csv``, ``calibration.csv``, ``score_histogram.csv``: curves;
- ``operating_points.csv``, ``predictive_values.csv``, ``decision.csv``, ``calibration_measures.csv``, ``differential.csv``:
  what reports print beside the metrics;
- ``warnings.csv``: what is missing and why, what to be wary of.

With ``--uncalibrated``, the same table before calibration, also ``calibration_uncalibrated.csv`` and
``calibration_measures_uncalibrated.csv``, with the columns of ``calibration.csv`` and ``calibration_measures.csv``; without
rows where the lock calibrates nothing.

Units without a truth or without an answer of the index test stand in ``confusion.csv`` and ``indeterminate.csv`` only.

The score of an endpoint is the column ``endpoint_<name>`` of its name where the table has one, else the sum of its
positive classes' probabilities.

Where neither the options nor probability columns name the classes, they are those that occur and the positive ones of
the options' endpoints; what needs a class that never occurs is then undefined, and no error. A class of ``--positive``
must occur or be declared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from marrowflow.choices.threshold import read_lock
from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Accuracy, Unit, read_options
from marrowflow.files import write_table
from marrowflow.predictions import (
    INCONCLUSIVE,
    MISSING,
    Predictions,
    read_predictions,
)
from marrowflow.statistics.bootstrap import resample
from marrowflow.statistics.cases import Units, gather_units, select_index_test
from marrowflow.statistics.curves import CURVES, curve_rows, joined
from marrowflow.statistics.differential import SHARE_COLUMNS, shares
from marrowflow.statistics.endpoints import (
    Endpoints,
    Options,
    add_question_arguments,
    answers_of,
    choose_endpoints,
    evaluate,
    has_surrogates,
    warn_of_few,
    warn_of_table,
    warn_of_votes,
    with_classes_of,
)
from marrowflow.statistics.indeterminate import three_analyses
from marrowflow.statistics.measures import TABLES, measure_beside, measure_tables
from marrowflow.statistics.rows import WARNING_COLUMNS, Place, metric_rows, resampled_metrics
from marrowflow.statistics.uncalibrated import measure_uncalibrated

_COLUMNS = {
    **CURVES,
    **TABLES,
    "differential": SHARE_COLUMNS,
}


@dataclass(frozen=True)
class Tables:
    """What the step writes: one table a file, named as the files are."""

    metrics: pd.DataFrame
    confusion: pd.DataFrame
    roc: pd.DataFrame
    pr: pd.DataFrame
    calibration: pd.DataFrame
    score_histogram: pd.DataFrame
    calibration_measures: pd.DataFrame
    decision: pd.DataFrame
    predictive_values: pd.DataFrame
    operating_points: pd.DataFrame
    roc_band: pd.DataFrame
    indeterminate: pd.DataFrame
    differential: pd.DataFrame
    warnings: pd.DataFrame


def measure(
    predictions: Predictions,
    endpoints: Endpoints,
    units: Sequence[Unit],
    settings: Accuracy,
    lock: dict[str, Any] | None = None,
    index_test: str | None = None,
) -> Tables:
    """Compute every table of the step.

    Parameters
    ----------
    predictions
        A checked prediction table.
    endpoints
        Positive classes by the endpoint's name; None stands for the classification into all classes.
    units
        Units of analysis.
    settings
        Confidence, replicates and seed.
    lock
        A ``threshold.json``: a unit is positive when its score is at or above the endpoint's cut-off. Without
        one it is positive when the predicted class is among the endpoint's positive ones, or where the endpoint has a
        probability of its own when that is .5 or more.
    index_test
        Which rows to take, where the table holds several index tests.

    Raises
    ------
    UserError
        Several index tests and no choice; an endpoint's classes not among the declared ones, or all of them;
        a patient with two truths; a lock that does not fit, or labels only beside it.
    """
    notes: list[dict[str, str]] = []
    predictions = with_classes_of(endpoints, predictions, notes)
    table = select_index_test(predictions, index_test)
    warn_of_table(predictions, table, endpoints, lock, Place("", "", notes))
    clusters = "surrogate groups" if has_surrogates(table) else "patients"
    parts: dict[str, list[pd.DataFrame]] = {f.name: [] for f in fields(Tables) if f.name != "warnings"}
    for unit in units:
        rows = gather_units(table, predictions.classes, unit)
        warn_of_votes(rows, Place("", unit, notes))
        for name, positive in endpoints.items():
            place = Place(name, unit, notes)
            answers = answers_of(rows, name, positive, lock)
            evaluation = evaluate(rows, answers, positive, predictions.one_vs_rest, place)
            warn_of_few(evaluation, positive, clusters, place)
            beside = measure_beside(evaluation, place, settings)
            resampled = resample(
                [evaluation, *beside.statistics],
                [*resampled_metrics(evaluation), *beside.resampled(evaluation)],
                evaluation.sample.n_patients,
                settings,
                f"bootstrap {name} {unit}",
            )
            for topic, rows_of in measure_tables(beside, evaluation, resampled, place, settings).items():
                parts[topic].append(rows_of)
            parts["metrics"].append(metric_rows(evaluation, resampled, place, settings))
            parts["confusion"].append(_confusion(rows, answers, positive, place))
            parts["indeterminate"].append(three_analyses(rows, answers, positive, place, settings.confidence))
            if positive is None:
                parts["differential"].append(shares(evaluation.sample, place, settings.confidence))
            for kind in CURVES:
                parts[kind].append(curve_rows(kind, evaluation, place, settings.confidence))
    whole = {name: joined(tables, _COLUMNS.get(name, ())) for name, tables in parts.items()}
    return Tables(**whole, warnings=pd.DataFrame(notes, columns=list(WARNING_COLUMNS)))


def main(argv: Sequence[str]) -> None:
    """Run the step; see the module."""
    args = _parser().parse_args(argv)
    options = read_options(Options, args.options)
    predictions = read_predictions(args.predictions, options.classes, args.index_test)
    endpoints = choose_endpoints(options, predictions.classes, args.positive)
    units = [args.unit] if args.unit else options.units
    lock = read_lock(args.lock) if args.lock else None
    # Two threads on a busy machine make products of this size many times slower than one.
    with threadpool_limits(limits=1):
        tables = vars(measure(predictions, endpoints, units, options.accuracy, lock, args.index_test))
        if args.uncalibrated:
            before = read_predictions(args.uncalibrated, predictions.classes, args.index_test)
            beside = measure_uncalibrated(before, predictions, endpoints, units, options.accuracy, lock)
            warnings = pd.concat([tables["warnings"], beside.pop("warnings")], ignore_index=True)
            tables = {**tables, **beside, "warnings": warnings}
    for name, table in tables.items():
        write_table(args.out / f"{name}.csv", table)


def _parser() -> argparse.ArgumentParser:
    parser = step_parser("statistics.accuracy", "Diagnostic accuracy of a prediction table, with intervals.")
    parser.add_argument(
        "--predictions", type=existing_file, required=True, help="prediction table (.parquet, .csv or .tsv)"
    )
    add_question_arguments(parser, "measured")
    parser.add_argument(
        "--lock",
        type=existing_file,
        help="threshold.json whose cut-offs decide; left out, the predicted class does",
    )
    parser.add_argument(
        "--uncalibrated",
        type=existing_file,
        help="the same table before calibration, whose calibration is then measured as well",
    )
    parser.add_argument("--index-test", metavar="NAME", help="needed where the table holds several")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the tables")
    return parser


def _confusion(
    rows: Units, answers: np.ndarray, positive: Sequence[str] | None, place: Place
) -> pd.DataFrame:
    """Cross-tabulate all units, those without a truth or an answer too; cells of 0 are written."""
    status = rows.table["status"].to_numpy(dtype=object)
    named = answers if positive is None else np.where(answers, "positive", "negative")
    predicted = np.where(status == "ok", named, status)
    truths = [*rows.classes, INCONCLUSIVE, MISSING]
    outcomes = [
        *(rows.classes if positive is None else ("positive", "negative")),
        "indeterminate",
        "not_done",
    ]
    counts = pd.crosstab(rows.table["truth"].to_numpy(dtype=object), predicted)
    counts = counts.reindex(index=truths, columns=outcomes, fill_value=0)
    return pd.DataFrame(
        {
            "endpoint": place.endpoint,
            "unit": place.unit,
            "truth": np.repeat(truths, len(outcomes)),
            "predicted": np.tile(outcomes, len(truths)),
            "n": counts.to_numpy().ravel(),
        }
    )
