"""Diagnostic accuracy of a prediction table: metrics with intervals, cross-tabulation and curves.

    python -m marrowflow statistics.accuracy --predictions P.parquet --unit patient --positive AML --out DIR

writes to DIR ``metrics.csv`` (one row a metric and interval method), ``confusion.csv``,
``roc.csv``, ``pr.csv``, ``calibration.csv`` and ``warnings.csv`` (what is missing and why, what to be wary of).

Units without a truth or without an answer of the index test stand in ``confusion.csv`` and nowhere else.

Where neither the options nor probability columns name the classes, they are those that occur and the
endpoints' positive ones; what needs a class that never occurs is then undefined, and no error.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from pydantic import Field
from threadpoolctl import threadpool_limits

from marrowflow.choices.threshold import locked_threshold, read_lock
from marrowflow.cli import existing_file, step_parser
from marrowflow.config import LEAKY, Accuracy, ClassName, Endpoint, Section, Unit, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.predictions import (
    INCONCLUSIVE,
    MISSING,
    PATIENT_SOURCE,
    SURROGATE,
    Predictions,
    read_predictions,
)
from marrowflow.statistics.bootstrap import resample
from marrowflow.statistics.cases import Units, countable, gather_units, select_index_test
from marrowflow.statistics.curves import calibration_bins, pr_points, roc_points
from marrowflow.statistics.evaluation import RANKED, Evaluation, evaluate_binary, evaluate_classes
from marrowflow.statistics.rows import WARNING_COLUMNS, Place, metric_rows, resampled_metrics

CLASSES = "classes"
"""Name of the endpoint that is the classification into all classes."""

FEW_PATIENTS = 30
"""A class with fewer patients is warned of."""

_CURVES = {
    "roc": ("fpr", "tpr", "threshold"),
    "pr": ("recall", "precision", "threshold"),
    "calibration": ("bin", "n", "mean_predicted", "observed", "low", "high"),
}


class Options(Section):
    """The sections of the study that this step uses."""

    accuracy: Accuracy = Accuracy()
    classes: list[ClassName] = Field(default=[])
    """Order of the classes; empty takes the table's."""
    units: list[Unit] = Field(default=["patient", "case"], min_length=1)
    endpoints: dict[str, Endpoint] = Field(default={})


@dataclass(frozen=True)
class Tables:
    """What the step writes: one table a file, named as the files are."""

    metrics: pd.DataFrame
    confusion: pd.DataFrame
    roc: pd.DataFrame
    pr: pd.DataFrame
    calibration: pd.DataFrame
    warnings: pd.DataFrame


def measure(
    predictions: Predictions,
    endpoints: Mapping[str, Sequence[str] | None],
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
        one it is positive when the predicted class is among the endpoint's positive ones.
    index_test
        Which rows to take, where the table holds several index tests.

    Raises
    ------
    UserError
        Several index tests and no choice; an endpoint's classes not among the declared ones, or all of them;
        a patient with two truths; a lock that does not fit.
    """
    notes: list[dict[str, str]] = []
    predictions = _with_classes_of(endpoints, predictions, notes)
    table = select_index_test(predictions, index_test)
    _warn_of_table(predictions, table, lock, Place("", "", notes))
    clusters = "surrogate groups" if _has_surrogates(table) else "patients"
    parts: dict[str, list[pd.DataFrame]] = {
        name: [] for name in ("metrics", "confusion", "roc", "pr", "calibration")
    }
    for unit in units:
        rows = gather_units(table, predictions.classes, unit)
        if rows.tied_votes:
            Place("", unit, notes).warn(
                f"{rows.tied_votes} patients' majority votes were tied: the first of the tied classes was taken"
            )
        if rows.voted:
            Place("", unit, notes).warn(
                f"'predicted' is not the class with the largest probability in {rows.other_rule} rows: the class of "
                f"{rows.voted} patients with several rows is the majority of 'predicted', not the largest mean probability"
            )
        for name, positive in endpoints.items():
            place = Place(name, unit, notes)
            answers = _answers(rows, name, positive, lock)
            evaluation = _evaluate(rows, answers, positive, predictions.one_vs_rest, place)
            _warn_of_few(evaluation, positive, clusters, place)
            people = evaluation.sample.n_patients
            resampled = resample(
                [evaluation], resampled_metrics(evaluation), people, settings, f"bootstrap {name} {unit}"
            )
            parts["metrics"].append(metric_rows(evaluation, resampled, place, settings))
            parts["confusion"].append(_confusion(rows, answers, positive, place))
            for kind in _CURVES:
                parts[kind].append(_curve(kind, evaluation, place, settings.confidence))
    joined = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    return Tables(**joined, warnings=pd.DataFrame(notes, columns=list(WARNING_COLUMNS)))


def choose_endpoints(
    options: Options, classes: Sequence[str], positive: Sequence[str]
) -> dict[str, list[str] | None]:
    """Return what to measure, for `measure`.

    The endpoint that the command line's `positive` classes make; else those of the configuration, and
    the classification into all classes where there are more than two or nothing else is measured.
    """
    if positive:
        return {"+".join(positive): list(positive)}
    chosen: dict[str, list[str] | None] = {name: list(e.positive) for name, e in options.endpoints.items()}
    if CLASSES in chosen:
        raise UserError(
            f"an endpoint cannot be called {CLASSES!r}: that is the classification into all classes"
        )
    return chosen if chosen and len(classes) <= 2 else {**chosen, CLASSES: None}


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
        tables = measure(predictions, endpoints, units, options.accuracy, lock, args.index_test)
    for name, table in vars(tables).items():
        write_table(args.out / f"{name}.csv", table)


def _parser() -> argparse.ArgumentParser:
    parser = step_parser("statistics.accuracy", "Diagnostic accuracy of a prediction table, with intervals.")
    parser.add_argument(
        "--predictions", type=existing_file, required=True, help="prediction table (.parquet or .csv)"
    )
    parser.add_argument("--unit", choices=get_args(Unit), help="unit of analysis; left out, the options say")
    parser.add_argument(
        "--positive",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="classes in which the target condition is present: one yes/no endpoint, and no other, is measured",
    )
    parser.add_argument(
        "--lock",
        type=existing_file,
        help="threshold.json whose cut-offs decide; left out, the predicted class does",
    )
    parser.add_argument("--index-test", metavar="NAME", help="needed where the table holds several")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the tables")
    return parser


def _with_classes_of(
    endpoints: Mapping[str, Sequence[str] | None], predictions: Predictions, notes: list[dict[str, str]]
) -> Predictions:
    """Check the endpoints against declared classes; add their positive ones to classes that were merely seen."""
    if predictions.declared:
        _check_endpoints(endpoints, predictions.classes)
        return predictions
    classes = set(predictions.classes)
    for name, positive in endpoints.items():
        for unseen in [c for c in positive or () if c not in predictions.classes]:
            Place(name, "", notes).warn(f"class {unseen!r} stands in no row, as truth or as prediction")
        classes |= set(positive or ())
    return replace(predictions, classes=sorted(classes))


def _check_endpoints(endpoints: Mapping[str, Sequence[str] | None], classes: Sequence[str]) -> None:
    for name, positive in endpoints.items():
        unknown = [c for c in positive or () if c not in classes]
        if unknown:
            raise UserError(
                f"endpoint {name!r}: {unknown[0]!r} is no class of the prediction table; its classes: {', '.join(classes)}"
            )
        if positive is not None and set(positive) == set(classes):
            raise UserError(f"endpoint {name!r} names every class: nothing is left to be negative")


def _warn_of_table(
    predictions: Predictions, table: pd.DataFrame, lock: dict[str, Any] | None, nowhere: Place
) -> None:
    if not predictions.has_patients:
        nowhere.warn(
            "no patient_id: each row counts as its own patient; intervals are too narrow where patients have several rows"
        )
    if _has_surrogates(table):
        nowhere.warn("no patient identifiers: clusters are surrogate groups of near duplicates")
    if lock is None:
        return
    if lock.get("protocol") == "as_published":
        nowhere.warn(LEAKY)
    if not predictions.has_probabilities:
        raise UserError(
            "--lock needs probabilities, and the prediction table has labels only: leave --lock out"
        )
    tested, locked = table["index_test"].iloc[0], lock.get("index_test")
    if locked and locked != tested:
        nowhere.warn(
            f"the cut-offs were locked for index test {locked!r}; these are predictions of {tested!r}"
        )


def _has_surrogates(table: pd.DataFrame) -> bool:
    return PATIENT_SOURCE in table and bool(table[PATIENT_SOURCE].eq(SURROGATE).any())


def _warn_of_few(evaluation: Evaluation, positive: Sequence[str] | None, clusters: str, place: Place) -> None:
    for group, patients in evaluation.groups.items():
        if patients < FEW_PATIENTS:
            name = group if positive is None else ""
            place.warn(
                f"{patients} {clusters} of {group}: estimates are coarse under {FEW_PATIENTS}", ("", name)
            )


def _answers(
    rows: Units, endpoint: str, positive: Sequence[str] | None, lock: dict[str, Any] | None
) -> np.ndarray:
    """Return each unit's answer: bool for a yes/no endpoint (False without an answer), else the class."""
    if positive is None:
        return rows.table["predicted"].to_numpy(dtype=object)
    if lock is None:
        return rows.table["predicted"].isin(positive).to_numpy()
    assert rows.probabilities is not None  # _warn_of_table saw to it
    score = rows.probabilities[:, [rows.classes.index(c) for c in positive]].sum(axis=1)
    return score >= locked_threshold(lock, endpoint, positive, rows.unit)


def _evaluate(
    rows: Units, answers: np.ndarray, positive: Sequence[str] | None, one_vs_rest: bool, place: Place
) -> Evaluation:
    sample = countable(rows)
    if positive is None:
        evaluation = evaluate_classes(sample)
    else:
        sums_to_share = not one_vs_rest or len(positive) == 1
        evaluation = evaluate_binary(sample, positive, answers[rows.countable], sums_to_share)
        if rows.probabilities is not None and not sums_to_share:
            place.warn(
                "left out: one-vs-rest probabilities of several classes do not add up to one", ("brier", "")
            )
    if rows.probabilities is None:
        for metric in (*RANKED, "brier"):
            place.warn("left out: it needs probabilities, and the table has labels only", (metric, ""))
    return evaluation


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


def _curve(kind: str, evaluation: Evaluation, place: Place, confidence: float) -> pd.DataFrame:
    """Return one kind of curve for each of the endpoint's yes/no questions that has scores."""
    sample = evaluation.sample
    found = [pd.DataFrame(columns=["endpoint", "unit", "class", *_CURVES[kind]])]
    for question in evaluation.questions:
        if question.score is None or (kind == "calibration" and not question.is_probability):
            continue
        if kind == "roc":
            points = roc_points(question.score, question.positive)
        elif kind == "pr":
            points = pr_points(question.score, question.positive)
        else:
            points = calibration_bins(
                question.score, question.positive, sample.patient, sample.n_patients, confidence
            )
        points.insert(0, "endpoint", place.endpoint)
        points.insert(1, "unit", place.unit)
        points.insert(2, "class", question.name)
        found.append(points)
    filled = [points for points in found if len(points)]
    return pd.concat(filled, ignore_index=True) if filled else found[0]
