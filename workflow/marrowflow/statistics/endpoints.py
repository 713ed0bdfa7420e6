"""The endpoints of an accuracy study: what is asked of a prediction table, and what the index test answers.

Steps that measure one index test and steps that compare several share these, so that an endpoint means the same in both.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from pydantic import Field

from marrowflow.choices.threshold import has_own_score, locked_threshold
from marrowflow.config import CLASSES, LEAKY, Accuracy, ClassName, Endpoint, Section, Unit
from marrowflow.errors import UserError
from marrowflow.predictions import ENDPOINT, PATIENT_SOURCE, SURROGATE, Predictions, nearest, same_number
from marrowflow.statistics.cases import Units, countable
from marrowflow.statistics.evaluation import RANKED, Evaluation, evaluate_binary, evaluate_classes
from marrowflow.statistics.rows import Place

FEW_PATIENTS = 30
"""A class with fewer patients is warned of."""

EVEN = 0.5
"""An endpoint's own probability is positive from here on, where no cut-off was locked."""

Endpoints = Mapping[str, Sequence[str] | None]
"""Positive classes by the endpoint's name; None stands for the classification into all classes."""


class Options(Section):
    """The sections of the study that this step uses."""

    accuracy: Accuracy = Accuracy()
    classes: list[ClassName] = Field(default=[])
    """Order of the classes; empty takes the table's."""
    units: list[Unit] = Field(default=["patient", "case"], min_length=1)
    endpoints: dict[str, Endpoint] = Field(default={})


def add_question_arguments(parser: argparse.ArgumentParser, measured: str) -> None:
    """Add the arguments that say what is asked: --unit and --positive; ``measured`` is what is done to the endpoint."""
    parser.add_argument("--unit", choices=get_args(Unit), help="unit of analysis; left out, the options say")
    parser.add_argument(
        "--positive",
        nargs="+",
        action="extend",
        default=[],
        metavar="CLASS",
        help=f"classes in which the target condition is present: one yes/no endpoint, and no other, is {measured}",
    )


def choose_endpoints(
    options: Options, classes: Sequence[str], positive: Sequence[str]
) -> dict[str, list[str] | None]:
    """Return what to measure, for `measure`.

    The endpoint that the command line's `positive` classes make; else those of the configuration, and
    the classification into all classes where there are more than two or nothing else is measured. A class that an
    endpoint names twice counts once.

    Raises
    ------
    UserError
        A class of `positive` is not among the table's: a slip would give a table of undefined numbers. An endpoint has the
        name of the classification.
    """
    if positive:
        names = list(dict.fromkeys(_as_written(name, classes) for name in positive))
        return {"+".join(names): names}
    chosen: dict[str, list[str] | None] = {
        name: list(dict.fromkeys(e.positive)) for name, e in options.endpoints.items()
    }
    if CLASSES in chosen:
        raise UserError(
            f"an endpoint cannot be called {CLASSES!r}: that is the classification into all classes"
        )
    return chosen if chosen and len(classes) <= 2 else {**chosen, CLASSES: None}


def with_classes_of(
    endpoints: Endpoints, predictions: Predictions, notes: list[dict[str, str]]
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


def warn_of_table(
    predictions: Predictions,
    table: pd.DataFrame,
    endpoints: Endpoints,
    lock: dict[str, Any] | None,
    nowhere: Place,
) -> None:
    """Warn of what bears on every number of an index test's rows; raise `UserError` where the lock cannot be applied."""
    for note in predictions.notes:
        nowhere.warn(note)
    if not predictions.has_patients:
        nowhere.warn(
            "no patient_id: each row counts as its own patient; intervals are too narrow where patients have several rows"
        )
    if has_surrogates(table):
        nowhere.warn("no patient identifiers: clusters are surrogate groups of near duplicates")
    asked = [name for name, positive in endpoints.items() if positive is not None]
    for name in predictions.endpoints:
        if name not in asked:
            nowhere.warn(
                f"column {ENDPOINT + name!r} is not used: no endpoint of this name is asked for"
                f"{nearest(name, asked)}"
            )
    if lock is None:
        return
    if lock.get("protocol") == "as_published":
        nowhere.warn(LEAKY)
    if not predictions.has_probabilities and not predictions.endpoints:
        raise UserError(
            "--lock needs probabilities, and the prediction table has labels only: leave --lock out"
        )
    tested, locked = table["index_test"].iloc[0], lock.get("index_test")
    if locked and locked != tested:
        nowhere.warn(
            f"the cut-offs were locked for index test {locked!r}; these are predictions of {tested!r}"
        )


def warn_of_votes(rows: Units, place: Place) -> None:
    """Warn of patients whose class is a majority vote, where that is not what a reader would expect."""
    if rows.tied_votes:
        place.warn(
            f"{rows.tied_votes} patients' majority votes were tied: the first of the tied classes was taken"
        )
    if rows.voted:
        place.warn(
            f"'predicted' is not the class with the largest probability in {rows.other_rule} rows: the class of "
            f"{rows.voted} patients with several rows is the majority of 'predicted', not the largest mean probability"
        )


def has_surrogates(table: pd.DataFrame) -> bool:
    """Say whether any cluster of a prediction table is a group of near-duplicate images."""
    return PATIENT_SOURCE in table and bool(table[PATIENT_SOURCE].eq(SURROGATE).any())


def warn_of_few(evaluation: Evaluation, positive: Sequence[str] | None, clusters: str, place: Place) -> None:
    """Warn of each class with fewer than `FEW_PATIENTS`; ``clusters`` is what they are called."""
    for group, patients in evaluation.groups.items():
        if patients < FEW_PATIENTS:
            name = group if positive is None else ""
            place.warn(
                f"{patients} {clusters} of {group}: estimates are coarse under {FEW_PATIENTS}", ("", name)
            )


def answers_of(
    rows: Units, endpoint: str, positive: Sequence[str] | None, lock: dict[str, Any] | None
) -> np.ndarray:
    """Return each unit's answer: bool for a yes/no endpoint (False without an answer), else the class.

    Positive is a score at or above the locked cut-off. Without a lock it is a predicted class among the positive ones, or
    of an endpoint with a probability of its own one of `EVEN` or more.

    Raises
    ------
    UserError
        The lock cannot be applied: it has no cut-off for the endpoint, or one of another score, or there is no score.
    """
    if positive is None:
        return rows.table["predicted"].to_numpy(dtype=object)
    if lock is None:
        own = rows.endpoints.get(endpoint)
        return rows.table["predicted"].isin(positive).to_numpy() if own is None else own >= EVEN
    score = rows.score(endpoint, positive)
    if score is None:
        raise UserError(
            f"endpoint {endpoint!r}: --lock needs its probability, and the prediction table has neither p_<class> nor "
            f"{ENDPOINT + endpoint!r}: leave --lock out"
        )
    _check_score(rows, endpoint, positive, lock)
    return score >= locked_threshold(lock, endpoint, positive, rows.unit)


def evaluate(
    rows: Units, answers: np.ndarray, positive: Sequence[str] | None, one_vs_rest: bool, place: Place
) -> Evaluation:
    """Count an endpoint's units that have a truth and an answer; warn of metrics that cannot be had."""
    sample = countable(rows)
    if positive is None:
        evaluation = evaluate_classes(sample)
    else:
        own = rows.endpoints.get(place.endpoint)
        is_probability = own is not None or not one_vs_rest or len(positive) == 1
        evaluation = evaluate_binary(
            sample,
            positive,
            answers[rows.countable],
            is_probability,
            None if own is None else own[rows.countable],
        )
        if rows.probabilities is not None and not is_probability:
            place.warn(
                "left out: one-vs-rest probabilities of several classes do not add up to one", ("brier", "")
            )
    if evaluation.questions[0].score is None:
        for metric in (*RANKED, "brier"):
            place.warn("left out: it needs probabilities, and the table has labels only", (metric, ""))
    return evaluation


def _check_score(rows: Units, endpoint: str, positive: Sequence[str], lock: dict[str, Any]) -> None:
    """Refuse to cut one score where the cut-off of another was locked."""
    own = endpoint in rows.endpoints
    if own == has_own_score(lock, endpoint, positive):
        return
    summed = f"the sum of the probabilities of {', '.join(positive)}"
    locked = summed if own else "a probability of the endpoint's own"
    found = f"the column {ENDPOINT + endpoint!r}" if own else summed
    raise UserError(
        f"endpoint {endpoint!r}: its cut-off was locked for {locked}, and the score here is {found}; take lock and "
        "predictions of one index test, and call the endpoint as in the configuration (option endpoints, not --positive)"
    )


def _as_written(name: str, classes: Sequence[str]) -> str:
    """Return a class of the command line as the table has it, where 1.0 may be 1."""
    if name in classes:
        return name
    for known in classes:
        if same_number(name, known):
            return known
    raise UserError(
        f"--positive: {name!r} is no class of the prediction table{nearest(name, classes)}; its classes: "
        f"{', '.join(classes)}; a class that no row has must be declared (option classes)"
    )


def _check_endpoints(endpoints: Endpoints, classes: Sequence[str]) -> None:
    for name, positive in endpoints.items():
        unknown = [c for c in positive or () if c not in classes]
        if unknown:
            raise UserError(
                f"endpoint {name!r}: {unknown[0]!r} is no class of the prediction table; its classes: {', '.join(classes)}"
            )
        if positive is not None and set(positive) == set(classes):
            raise UserError(f"endpoint {name!r} names every class: nothing is left to be negative")
