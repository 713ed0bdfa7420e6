"""From a prediction table to the units that are counted: cases, or patients.

Every unit has a truth, an answer of the index test (or none, with a status) and a patient. The two
units of analysis differ in nothing else, so all that follows is written once.

A patient is a ``patient_id`` of one cohort: equal numbers of two hospitals are two people.

The class of a patient:

- with one answered case: that case's ``predicted``;
- with several, where ``predicted`` has the largest probability in every answered row of the table: the class
  with the largest mean probability;
- with several otherwise (labels only, or classes called by another rule than the largest probability, which a
  mean of probabilities would not know): the majority of ``predicted``, the first in the order of classes where tied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from marrowflow.config import Unit
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.predictions import (
    ENDPOINT,
    INCONCLUSIVE,
    MISSING,
    NO_REFERENCE,
    PROBABILITY,
    STATUSES,
    Predictions,
)


@dataclass(frozen=True)
class Units:
    """All units of one index test, those without a truth or an answer among them.

    Attributes
    ----------
    unit
        What a row is.
    classes
        Class names in their order.
    table
        Columns ``patient_id``, ``cohort``, ``truth`` (a class, missing or inconclusive), ``predicted`` (a
        class, or empty), ``status`` and ``cases`` (number of cases with an answer behind the row).
    probabilities
        Float64 [rows, classes], or None where only labels were given.
    endpoints
        Float64 [rows] by the endpoint's name: its own probability, where the index test has one.
    tied_votes
        Patients whose majority vote was tied; the first of the tied classes was taken.
    other_rule
        Answered rows whose predicted class has not the largest probability, where patients are counted.
    voted
        Patients with several cases whose class is a majority vote because of `other_rule`.
    """

    unit: Unit
    classes: list[str]
    table: pd.DataFrame
    probabilities: np.ndarray | None
    endpoints: dict[str, np.ndarray] = field(default_factory=dict)
    tied_votes: int = 0
    other_rule: int = 0
    voted: int = 0

    @property
    def countable(self) -> np.ndarray:
        """Bool [rows]: has a class as truth and an answer of the index test."""
        return (~self.table["truth"].isin(NO_REFERENCE) & self.table["status"].eq("ok")).to_numpy()

    def score(self, endpoint: str, positive: Sequence[str]) -> np.ndarray | None:
        """Return an endpoint's score, float64 [rows]: its own probability, else the sum of its positive classes'; or None."""
        if endpoint in self.endpoints:
            return self.endpoints[endpoint]
        if self.probabilities is None:
            return None
        return self.probabilities[:, [self.classes.index(c) for c in positive]].sum(axis=1)


@dataclass(frozen=True)
class Sample:
    """The units that can be counted: with a truth and an answer.

    Attributes
    ----------
    unit, classes
        As in `Units`.
    patient
        Int64 [units], 0..`n_patients` - 1.
    truth, predicted
        Int64 [units]: index into `classes`.
    probabilities
        Float64 [units, classes] or None.
    n_patients, n_cases
        Patients, and cases behind the units.
    """

    unit: Unit
    classes: list[str]
    patient: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None
    n_patients: int
    n_cases: int

    @property
    def one_case_clusters(self) -> bool:
        """True where no patient has more than one unit."""
        return len(self.patient) == self.n_patients


def select_index_test(predictions: Predictions, name: str | None) -> pd.DataFrame:
    """Return the rows of one index test; raise `UserError` where that leaves a choice, or nothing."""
    table = predictions.table
    found = sorted(table["index_test"].unique())
    if name is None and len(found) > 1:
        raise UserError(
            f"the table holds {len(found)} index tests ({', '.join(found)}): choose one with --index-test NAME"
        )
    if name is not None and name not in found:
        raise UserError(f"the table holds no index test {name!r}; it holds: {', '.join(found)}")
    return table if name is None else table[table["index_test"] == name].reset_index(drop=True)


def gather_units(table: pd.DataFrame, classes: Sequence[str], unit: Unit) -> Units:
    """Return the cases of a checked prediction table, or its patients.

    A patient's probabilities, an endpoint's own too, are the mean over the cases with an answer; its class is as the
    module says.
    A table without ``cohort`` is of one cohort.

    Raises
    ------
    UserError
        A patient's cases have different truths, so that the patient has none.
    """
    columns = [PROBABILITY + c for c in classes]
    probabilities = table[columns].to_numpy(np.float64) if set(columns) <= set(table) else None
    endpoints = {
        c.removeprefix(ENDPOINT): table[c].to_numpy(np.float64) for c in table if c.startswith(ENDPOINT)
    }
    if "cohort" not in table:
        table = table.assign(cohort="")
    if unit == "case":
        rows = table[["patient_id", "cohort", "truth", "predicted", "status"]].copy()
        rows["cases"] = (table["status"] == "ok").astype(np.int64)
        return Units("case", list(classes), rows.reset_index(drop=True), probabilities, endpoints)
    return _gather_patients(table, list(classes), probabilities, endpoints)


def countable(units: Units) -> Sample:
    """Return the units with a class as truth and an answer of the index test."""
    table, kept = units.table, units.countable
    codes, first = people(table[kept])
    place = {name: i for i, name in enumerate(units.classes)}
    return Sample(
        unit=units.unit,
        classes=units.classes,
        patient=codes,
        truth=table["truth"][kept].map(place).to_numpy(np.int64),
        predicted=table["predicted"][kept].map(place).to_numpy(np.int64),
        probabilities=None if units.probabilities is None else units.probabilities[kept],
        n_patients=len(first),
        n_cases=int(table["cases"][kept].sum()),
    )


def people(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's person, int64 [rows] from 0 in the order of cohorts and ids, and the person's first row [people].

    The order of the rows does not number the people, so that it does not decide what a seed draws.
    """
    codes = table.groupby(["cohort", "patient_id"], sort=True).ngroup().to_numpy(np.int64)
    return codes, np.unique(codes, return_index=True)[1]


def _gather_patients(
    table: pd.DataFrame,
    classes: list[str],
    probabilities: np.ndarray | None,
    endpoints: dict[str, np.ndarray],
) -> Units:
    codes, first = people(table)
    patients = table[["patient_id", "cohort"]].iloc[first].reset_index(drop=True)
    done = table["status"].eq("ok").to_numpy()
    cases = np.bincount(codes[done], minlength=len(first))

    def mean(values: np.ndarray) -> np.ndarray:
        sums = [np.bincount(codes[done], column[done], minlength=len(first)) for column in values.T]
        return np.stack(sums, axis=1) / np.maximum(cases, 1)[:, None]

    called = table["predicted"].to_numpy(dtype=object)[:, None] == np.asarray(classes, dtype=object)
    votes = mean(called.astype(np.float64))
    means = None if probabilities is None else mean(probabilities)
    other_rule = 0 if probabilities is None else _not_largest(called[done], probabilities[done])
    by_vote = (cases == 1) | (probabilities is None) | (other_rule > 0)
    chosen = votes if means is None else np.where(by_vote[:, None], votes, means)
    silent = cases == 0
    best = np.asarray(classes, dtype=object)[chosen.argmax(axis=1)]
    tied = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
    rows = patients.assign(
        truth=_patient_truth(table, codes, patients["patient_id"]),
        predicted=np.where(silent, "", best),
        status=_first_of(table["status"], codes, len(first), STATUSES),
        cases=cases.astype(np.int64),
    )
    return Units(
        "patient",
        classes,
        rows,
        None if means is None else np.where(silent[:, None], np.nan, means),
        {name: np.where(silent, np.nan, mean(own[:, None])[:, 0]) for name, own in endpoints.items()},
        tied_votes=int((tied & by_vote & (cases > 0)).sum()),
        other_rule=other_rule,
        voted=int((cases > 1).sum()) if other_rule else 0,
    )


def _not_largest(own: np.ndarray, probabilities: np.ndarray) -> int:
    """Return how many rows' own class, bool [rows, classes], has less than the largest probability."""
    of_own = np.where(own, probabilities, -np.inf).max(axis=1, initial=-np.inf)
    return int((of_own < probabilities.max(axis=1, initial=-np.inf)).sum())


def _patient_truth(table: pd.DataFrame, codes: np.ndarray, patients: pd.Series) -> np.ndarray:
    truth = table["truth"]
    known = ~truth.isin(NO_REFERENCE)
    seen = truth[known].groupby(codes[known.to_numpy()]).agg(["first", "nunique"])
    conflicts = seen.index[seen["nunique"] > 1]
    if len(conflicts):
        problems = [
            f"patient {patients[i]!r}: {', '.join(sorted(set(truth[known & (codes == i)])))}"
            for i in conflicts[:20]
        ]
        raise UserError(
            enumerate_problems(
                f"{len(conflicts)} patients have cases with different truths, so a patient has no single truth "
                "(use --unit case, or units: [case] in the configuration):",
                problems,
            )
        )
    without = _first_of(truth, codes, len(patients), (INCONCLUSIVE, MISSING))
    without[seen.index.to_numpy(np.int64)] = seen["first"].to_numpy(object)
    return without


def _first_of(values: pd.Series, codes: np.ndarray, n: int, order: Sequence[str]) -> np.ndarray:
    """Return for each of ``n`` groups the first of ``order`` that occurs in it (the last if none does)."""
    rank = values.map({v: i for i, v in enumerate(order)}).fillna(len(order) - 1).to_numpy(np.int64)
    least = np.full(n, len(order) - 1, dtype=np.int64)
    np.minimum.at(least, codes, rank)
    return np.asarray(order, dtype=object)[least]
