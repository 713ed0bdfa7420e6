"""Accuracy three ways, where the index test gave no answer or the reference standard none.

``left_out``
    Units with both, as everywhere else.
``counted_as_errors``
    A unit without an answer is no right one: it enlarges the denominators of sensitivity, specificity and accuracy. PPV
    and NPV are those of the answers given. Units without a reference stay out (the 3×2 table by
    intention to diagnose: Schuetz et al. 2012, BMJ 345:e6717).
``worst_case``
    Whatever is unknown speaks against the test. A unit without an answer gets the wrong one (false negative with the
    condition, false positive without), and an answer without a reference is a wrong answer. Units with neither stay out.

A yes/no question has the counts c[truth, answer] with truths +, −, ? and answers +, −, ∅:

=========== ================ ================== ======================================
quantity    left out         counted as errors  worst case
=========== ================ ================== ======================================
sensitivity c₊₊ / (c₊₊+c₊₋)  … + c₊∅            … + c₊∅ + c?₋
specificity c₋₋ / (c₋₊+c₋₋)  … + c₋∅            … + c₋∅ + c?₊
PPV         c₊₊ / (c₊₊+c₋₊)  as left out        … + c₋∅ + c?₊
NPV         c₋₋ / (c₋₋+c₊₋)  as left out        … + c₊∅ + c?₋
accuracy    right / answered … + c₊∅ + c₋∅      … + c₊∅ + c₋∅ + c?₊ + c?₋
=========== ================ ================== ======================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from marrowflow.predictions import NO_REFERENCE
from marrowflow.statistics.cases import Units, people
from marrowflow.statistics.metrics import PROPORTIONS
from marrowflow.statistics.rows import PROPORTION_COLUMNS, Place, proportion_row

ANALYSES = ("left_out", "counted_as_errors", "worst_case")
ANALYSIS_COLUMNS = ("endpoint", "analysis", "metric", "class", "unit", *PROPORTION_COLUMNS)

_YES, _NO, _NONE = 0, 1, 2
# Numerators: (truth, answer) pairs. Denominators: those of all analyses, then what each analysis adds.
_RIGHT = {
    "sensitivity": [(_YES, _YES)],
    "specificity": [(_NO, _NO)],
    "ppv": [(_YES, _YES)],
    "npv": [(_NO, _NO)],
    "accuracy": [(_YES, _YES), (_NO, _NO)],
}
_ANSWERED = {
    "sensitivity": [(_YES, _YES), (_YES, _NO)],
    "specificity": [(_NO, _YES), (_NO, _NO)],
    "ppv": [(_YES, _YES), (_NO, _YES)],
    "npv": [(_NO, _NO), (_YES, _NO)],
    "accuracy": [(_YES, _YES), (_YES, _NO), (_NO, _YES), (_NO, _NO)],
}
_ERRORS = {
    "sensitivity": [(_YES, _NONE)],
    "specificity": [(_NO, _NONE)],
    "ppv": [],
    "npv": [],
    "accuracy": [(_YES, _NONE), (_NO, _NONE)],
}
_WORST = {
    "sensitivity": [(_YES, _NONE), (_NONE, _NO)],
    "specificity": [(_NO, _NONE), (_NONE, _YES)],
    "ppv": [(_NO, _NONE), (_NONE, _YES)],
    "npv": [(_YES, _NONE), (_NONE, _NO)],
    "accuracy": [(_YES, _NONE), (_NO, _NONE), (_NONE, _YES), (_NONE, _NO)],
}


def three_analyses(
    units: Units, answers: np.ndarray, positive: Sequence[str] | None, place: Place, confidence: float
) -> pd.DataFrame:
    """Return sensitivity, specificity, PPV, NPV and accuracy by each of `ANALYSES`, with `ANALYSIS_COLUMNS`.

    Parameters
    ----------
    units
        All units, those without a truth or an answer too.
    answers
        Bool [units] for a yes/no endpoint, else the predicted class [units]; ignored where there was no answer.
    positive
        Positive classes of a yes/no endpoint; None for the classification into all classes, which gives the accuracy,
        and each class against the rest.
    place
        Endpoint and unit of the rows.
    confidence
        Coverage of the intervals (Wilson on the effective sample size; ``none`` where fewer than two patients count).
    """
    codes, first = people(units.table)
    rows = [
        {
            "endpoint": place.endpoint,
            "analysis": analysis,
            "metric": metric,
            "class": name,
            "unit": place.unit,
            **proportion_row(numerators, denominators, confidence),
        }
        for metric, name, analysis, numerators, denominators in _counted(
            units, answers, positive, codes, len(first)
        )
    ]
    whole = {"numerator": "int64", "denominator": "int64"}
    return pd.DataFrame(rows, columns=list(ANALYSIS_COLUMNS)).astype(whole)


def _counted(
    units: Units, answers: np.ndarray, positive: Sequence[str] | None, codes: np.ndarray, n_patients: int
) -> Iterator[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """Yield metric, class, analysis, and numerators and denominators [patients with a unit that the analysis counts]."""
    truth = units.table["truth"].to_numpy(dtype=object)
    unknown = units.table["truth"].isin(NO_REFERENCE).to_numpy()
    silent = units.table["status"].ne("ok").to_numpy()
    if positive is None:
        right = np.bincount(codes[(truth == answers) & ~unknown & ~silent], minlength=n_patients)
        placed = (~unknown & ~silent, ~unknown, ~(unknown & silent))
        for analysis, chosen in zip(ANALYSES, placed, strict=True):
            rows = np.bincount(codes[chosen], minlength=n_patients)
            yield "accuracy", "", analysis, right[rows > 0], rows[rows > 0]
    for name, condition, decision in _questions(units, answers, positive):
        t = np.where(unknown, _NONE, np.where(condition, _YES, _NO))
        a = np.where(silent, _NONE, np.where(decision, _YES, _NO))
        cells = np.bincount(codes * 9 + t * 3 + a, minlength=n_patients * 9).reshape(n_patients, 3, 3)
        for analysis, more in zip(ANALYSES, ({}, _ERRORS, _WORST), strict=True):
            of = cells[_sum(cells, _ANSWERED["accuracy"] + more.get("accuracy", [])) > 0]
            for metric in PROPORTIONS:
                below = _ANSWERED[metric] + more.get(metric, [])
                yield metric, name, analysis, _sum(of, _RIGHT[metric]), _sum(of, below)


def _questions(
    units: Units, answers: np.ndarray, positive: Sequence[str] | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the name of each yes/no question, and bool [units]: has the condition, is called positive."""
    truth = units.table["truth"]
    if positive is not None:
        yield "", truth.isin(positive).to_numpy(), answers
        return
    for name in units.classes:
        yield name, truth.eq(name).to_numpy(), answers == name


def _sum(cells: np.ndarray, chosen: list[tuple[int, int]]) -> np.ndarray:
    return np.sum([cells[:, t, a] for t, a in chosen], axis=0)
