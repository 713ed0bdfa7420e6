"""Which cases the reports show as pictures: the most confident errors, and the cases that stayed open.

Learning explains these cases and reports print them, each by the same choice, made of the prediction table and the lock alone.

Of one picture (of samples of an image that were divided: of one image) only the first case in the order is shown.

errors
    A wrong answer, the largest probability of it first, then by the case's id. With two classes and an endpoint the answer is
    the one at the locked threshold of images, else the class with the largest probability.
inconclusive
    The index test came to no result (status ``indeterminate``; these first), or the reference standard did not; the largest
    probability of the answer first, then by the case's id.
closest
    Where no case is inconclusive: the answers nearest to where they would have changed, nearest first, then by the case's
    id. That is the distance of the first endpoint's score to its locked threshold of images; without one the
    difference between the two largest class probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from marrowflow.choices.threshold import locked_threshold
from marrowflow.config import Endpoint, Unit
from marrowflow.prediction_columns import ENDPOINT, INCONCLUSIVE, NO_REFERENCE, PARENT, PROBABILITY

ERROR = "error"
KIND = "kind"
"""Column added: error, inconclusive or closest."""
IMAGE = "image"
"""Column added to a prediction table: the case whose stored picture a row answers for."""
CONFIDENCE = "confidence"
"""Column added: probability of the answer, NaN where there is none."""
ATTENTION = "attention"
"""Method of the maps of whole slides; those of images are named by their gradients."""
DISTANCE = "distance"
"""Column added to the closest: how far they are from another answer."""


@dataclass(frozen=True)
class Question:
    """What decides which answers are wrong, and which are close.

    Attributes
    ----------
    classes
        Names in the order of the study.
    endpoints
        Yes/no endpoints by name; the first one decides.
    units
        Units of analysis of the study; images have a cut-off of their own where ``case`` is among them.
    lock
        Content of the index test's ``threshold.json``.
    """

    classes: Sequence[str]
    endpoints: Mapping[str, Endpoint]
    units: Sequence[Unit]
    lock: Mapping[str, Any]


@dataclass(frozen=True)
class Cut:
    """The locked threshold of images of an endpoint."""

    endpoint: str
    threshold: float
    positive: Sequence[str]

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the endpoint's score of each row, float64: its own probability, or the sum of its classes'."""
        own = ENDPOINT + self.endpoint
        columns = [own] if own in rows else [PROBABILITY + c for c in self.positive]
        return rows[columns].to_numpy(np.float64).sum(axis=1)


@dataclass(frozen=True)
class ShownCases:
    """The cases to be shown, in their order, and what they are the first of.

    Attributes
    ----------
    errors, undecided
        Rows of the prediction table with `IMAGE` and `CONFIDENCE`, ``predicted`` being the answer that counts;
        the closest have `DISTANCE` too.
    kind
        Of the undecided cases: inconclusive or closest.
    n_answered, n_errors, n_inconclusive
        Cases with an answer and a reference, the wrong ones of these, and the inconclusive cases.
    decided_at
        The cut-off that decided which answers are wrong; None where the largest probability did.
    closest_to
        The cut-off that the closest are close to; None where it is the next class.
    """

    errors: pd.DataFrame
    undecided: pd.DataFrame
    kind: Literal["inconclusive", "closest"]
    n_answered: int
    n_errors: int
    n_inconclusive: int
    decided_at: Cut | None
    closest_to: Cut | None

    def both(self) -> pd.DataFrame:
        """Return errors and undecided cases one below the other, with a column `KIND`."""
        parts = [self.errors.assign(**{KIND: ERROR}), self.undecided.assign(**{KIND: self.kind})]
        return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def choose_cases(table: pd.DataFrame, question: Question, most: int) -> ShownCases:
    """Choose the cases that are shown.

    Parameters
    ----------
    table
        Final predictions of one index test for one set of patients.
    question
        What decides.
    most
        Images in each gallery.
    """
    cut = _cut(question)
    decides = cut if len(question.classes) == 2 else None
    answered = _answered(table[table["status"].eq("ok")], question.classes, decides)
    known = answered[~answered["truth"].isin(NO_REFERENCE)]
    errors = known[known["truth"].ne(known["predicted"])]
    unfinished = _pictured(table[table["status"].eq("indeterminate")]).assign(**{CONFIDENCE: np.nan})
    unsure = answered[answered["truth"].eq(INCONCLUSIVE)]
    kind: Literal["inconclusive", "closest"] = "inconclusive" if len(unfinished) + len(unsure) else "closest"
    if kind == "inconclusive":
        both = pd.concat([_first(unfinished, most), _first(unsure, most)], ignore_index=True)
        chosen = both.drop_duplicates(IMAGE, ignore_index=True)[:most]
    else:
        close = known.assign(**{DISTANCE: _distance(known, question.classes, cut)})
        chosen = _first(close, most, by=DISTANCE, ascending=True)
    return ShownCases(
        errors=_first(errors, most),
        undecided=chosen,
        kind=kind,
        n_answered=len(known),
        n_errors=len(errors),
        n_inconclusive=len(unfinished) + len(unsure),
        decided_at=decides,
        closest_to=cut,
    )


def _cut(question: Question) -> Cut | None:
    """Return the first endpoint's locked threshold of images; None without an endpoint or such a threshold."""
    if not question.endpoints or "case" not in question.units:
        return None
    name, endpoint = next(iter(question.endpoints.items()))
    threshold = locked_threshold(dict(question.lock), name, endpoint.positive, "case")
    return Cut(name, threshold, endpoint.positive)


def _pictured(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(**{IMAGE: rows[PARENT if PARENT in rows else "case_id"]})


def _answered(rows: pd.DataFrame, classes: Sequence[str], cut: Cut | None) -> pd.DataFrame:
    """Return cases with the answers that accuracy counts, and the probability of each."""
    rows = _pictured(rows)
    if cut is None:
        probabilities = rows[[PROBABILITY + c for c in classes]].to_numpy(np.float64)
        given = pd.Index(classes).get_indexer(rows["predicted"])
        return rows.assign(**{CONFIDENCE: probabilities[np.arange(len(rows)), given]})
    (positive,) = cut.positive
    (negative,) = (c for c in classes if c != positive)
    score = cut.score(rows)
    called = score >= cut.threshold
    answers = np.where(called, positive, negative).astype(object)
    return rows.assign(predicted=answers, **{CONFIDENCE: np.where(called, score, 1 - score)})


def _distance(rows: pd.DataFrame, classes: Sequence[str], cut: Cut | None) -> np.ndarray:
    if cut is not None:
        return np.abs(cut.score(rows) - cut.threshold)
    ordered = np.sort(rows[[PROBABILITY + c for c in classes]].to_numpy(np.float64), axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _first(rows: pd.DataFrame, most: int, by: str = CONFIDENCE, ascending: bool = False) -> pd.DataFrame:
    ordered = rows.sort_values([by, "case_id"], ascending=[ascending, True], kind="stable")
    return ordered.drop_duplicates(IMAGE)[:most].reset_index(drop=True)
