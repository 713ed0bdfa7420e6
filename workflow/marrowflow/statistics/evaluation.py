"""One endpoint on one sample: all its metrics, of the sample and of any resample of its patients.

What adds up over patients (cells of the table, squared errors) is summed once a patient; a resample
is then a matrix product. What does not (AUC, average precision) is left to `ranking`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from marrowflow.statistics.cases import Sample
from marrowflow.statistics.metrics import (
    MACRO,
    MICRO,
    PROPORTIONS,
    binary_metrics,
    macro_means,
    multiclass_metrics,
    proportion_cells,
    ratio,
)
from marrowflow.statistics.ranking import Ranking, rank
from marrowflow.statistics.tallies import tally

Key = tuple[str, str]
"""(metric, class) as in ``metrics.csv``."""

RANKED = ("auc", "average_precision")
"""Metrics that need probabilities, beside brier."""

# Matrices of pairs of all classes together: 96 MB.
_MOST_ENTRIES = 12_000_000
# Tables of resamples, or of patients left out, at a time: 16 MB.
_ENTRIES_AT_ONCE = 1 << 21
_ONE_GROUP = {"sensitivity": ("positive",), "specificity": ("negative",)}
_NO_GROUP = ("accuracy", "ppv", "npv", "brier")


@dataclass(frozen=True)
class Question:
    """A yes/no question to a sample.

    ``name`` is its class in ``metrics.csv`` (empty for a binary endpoint); ``positive`` and ``score`` are bool and
    float64 [units]; ``is_probability`` is False where the score only ranks.
    """

    name: str
    positive: np.ndarray
    score: np.ndarray | None
    is_probability: bool = True


@dataclass(frozen=True)
class Evaluation:
    """An endpoint's counts and ranks, ready to be resampled.

    Attributes
    ----------
    sample
        What is counted.
    cells
        Float64 [patients, cells] of the 2×2 (tp, fp, fn, tn), or of the flattened k×k table, then sparse where that is smaller.
    from_cells
        Metrics of summed cells [..., cells].
    squares
        Float64 [patients], summed squared errors of the probabilities; None where Brier is not defined.
    questions
        The endpoint's yes/no questions: itself, or each class against the rest.
    rankings
        By the question's name, and of all questions in one (`MICRO`); None where one side is empty. Empty without probabilities.
    groups
        Number of patients with a unit of each truth, by the names that warnings use.
    others
        Number of patients with a unit of another class, by class; empty for a yes/no endpoint.
    """

    sample: Sample
    cells: np.ndarray | csr_array
    from_cells: Callable[[np.ndarray], dict[Key, np.ndarray]]
    squares: np.ndarray | None
    questions: list[Question]
    rankings: dict[str, Ranking | None] = field(repr=False)
    groups: dict[str, int]
    others: dict[str, int] = field(default_factory=dict)

    @property
    def is_binary(self) -> bool:
        """True for a yes/no endpoint, False for the classification into all classes."""
        return not self.questions[0].name

    def values(self, weights: np.ndarray) -> dict[Key, np.ndarray]:
        """Return each metric [resamples] for patients' counts [resamples, patients]; NaN where undefined."""
        counts = np.asarray(weights, dtype=np.float64)
        found = _joined(
            self._additive(w @ self.cells, None if self.squares is None else w @ self.squares)
            for w in self._portions(counts)
        )
        for name, ranking in self.rankings.items():
            if ranking is None:
                found["auc", name] = found["average_precision", name] = np.full(len(weights), np.nan)
            else:
                found["auc", name] = ranking.auc(weights if ranking.pairs is None else counts)
                found["average_precision", name] = ranking.average_precision(weights)
        return self._with_macro(found)

    def estimates(self) -> dict[Key, float]:
        """Return each metric of the sample itself; NaN where undefined or infinite."""
        everyone = np.ones((1, self.sample.n_patients), dtype=np.int32)
        return {key: float(_finite(value)[0]) for key, value in self.values(everyone).items()}

    def influence(self) -> dict[Key, np.ndarray]:
        """Return each patient's pull on each metric, float64 [patients]; see `bootstrap_intervals`."""
        left_out = _joined(self._without_each())
        for name, ranking in self.rankings.items():
            if ranking is not None:
                left_out["auc", name] = ranking.auc_without_each()
        pull = {key: value.mean() - value for key, value in ((k, _finite(v)) for k, v in left_out.items())}
        for name, ranking in self.rankings.items():
            if ranking is not None:
                pull["average_precision", name] = ranking.average_precision_influence()
        return self._with_macro(pull)

    def proportion(self, key: Key) -> tuple[np.ndarray, np.ndarray] | None:
        """Return each patient's numerator and denominator [patients], or None where the metric is no proportion."""
        metric, name = key
        if metric not in PROPORTIONS or name == MACRO:
            return None
        if name == MICRO or (not name and not self.is_binary):
            right = self.sample.truth == self.sample.predicted
            return _by_patient(self.sample, right), _by_patient(self.sample, np.ones(len(right)))
        cells = self.cells_of(name)
        above, below = proportion_cells(metric)
        return cells[:, above].sum(axis=1), cells[:, below].sum(axis=1)

    def mean_of(self, key: Key) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return numerators and denominators [patients] of the proportions whose mean a metric is; empty of other metrics."""
        metric, name = key
        if metric == "balanced_accuracy" and self.is_binary:
            parts = [("sensitivity", ""), ("specificity", "")]
        elif metric == "balanced_accuracy" or (name == MACRO and metric in ("sensitivity", "ppv")):
            of = "ppv" if metric == "ppv" else "sensitivity"
            parts = [(of, q.name) for q in self.questions]
        else:
            return []
        found = [self.proportion(part) for part in parts]
        return [part for part in found if part is not None]

    def cells_of(self, name: str) -> np.ndarray:
        """Return (tp, fp, fn, tn), float64 [patients, 4], of the endpoint (empty name) or of a class against the rest."""
        if not name:
            return np.asarray(self.cells)
        i = self.sample.classes.index(name)
        truth, called = self.sample.truth == i, self.sample.predicted == i
        cell = np.where(truth, np.where(called, 0, 2), np.where(called, 1, 3))
        return np.asarray(_count_cells(self.sample, cell, 4, dense=True))

    def without_spread(self, key: Key, estimates: Mapping[Key, float]) -> int:
        """Return how many classes that the metric is a mean over are at 0 % or 100 %, where no resample moves them."""
        metric, name = key
        names = [q.name for q in self.questions]
        if metric == "balanced_accuracy":
            parts = (
                [(side, "") for side in _ONE_GROUP] if self.is_binary else [("sensitivity", n) for n in names]
            )
        else:
            parts = [(metric, n) for n in names] if name == MACRO else []
        return sum(estimates[part] in (0.0, 1.0) for part in parts)

    def too_few(self, key: Key) -> str:
        """Say why no interval that resamples or groups patients can be given, or return an empty string."""
        metric, name = key
        if self.sample.n_patients < 2:
            return "no clustered interval from fewer than two patients"
        for group, patients in self._groups_needed(metric, name).items():
            if patients < 2:
                return f"no clustered interval: {patients} patients of {group}, at least two are needed"
        return ""

    def _groups_needed(self, metric: str, name: str) -> dict[str, int]:
        if metric in _NO_GROUP or name == MICRO:
            return {}
        if not name and metric in ("mcc", "kappa") and not self.is_binary:
            return {}
        if not name or name == MACRO:
            wanted: Sequence[str] = _ONE_GROUP.get(metric, ()) if self.is_binary else tuple(self.groups)
            return {g: self.groups[g] for g in wanted or self.groups}
        sides = {
            "positive": (name, self.groups[name]),
            "negative": (f"other classes than {name}", self.others[name]),
        }
        return dict(sides[side] for side in _ONE_GROUP.get(metric, ("positive", "negative")))

    def _portions(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield as many rows at a time as have tables of all cells that fit into memory."""
        step = max(1, _ENTRIES_AT_ONCE // self.cells.shape[1])
        yield from (rows[start : start + step] for start in range(0, max(1, len(rows)), step))

    def _without_each(self) -> Iterator[dict[Key, np.ndarray]]:
        total = np.asarray(self.cells.sum(axis=0))
        for some in self._portions(np.arange(self.sample.n_patients)):
            squares = None if self.squares is None else self.squares.sum() - self.squares[some]
            yield self._additive(total - csr_array(self.cells[some]).toarray(), squares)

    def _additive(self, cells: np.ndarray, squares: np.ndarray | None) -> dict[Key, np.ndarray]:
        found = self.from_cells(cells)
        return found if squares is None else found | {("brier", ""): ratio(squares, cells.sum(axis=-1))}

    def _with_macro(self, found: dict[Key, np.ndarray]) -> dict[Key, np.ndarray]:
        names = [q.name for q in self.questions if q.name]
        return found | macro_means(found, names) if names else found


def evaluate_binary(
    sample: Sample,
    positive: Sequence[str],
    decision: np.ndarray,
    is_probability: bool = True,
    own: np.ndarray | None = None,
) -> Evaluation:
    """Count a yes/no endpoint.

    Parameters
    ----------
    sample
        Units with a truth and an answer.
    positive
        Classes in which the target condition is present.
    decision
        Bool [units]: the index test is positive.
    is_probability
        False where the score only ranks, and has no Brier score.
    own
        Float64 [units]: the score, where it is a probability of the endpoint's own; left out, the sum of the positive
        classes' probabilities.
    """
    columns = [sample.classes.index(c) for c in positive]
    truth = np.isin(sample.truth, columns)
    score = own
    if own is None and sample.probabilities is not None:
        score = sample.probabilities[:, columns].sum(axis=1)
    cell = np.where(truth, np.where(decision, 0, 2), np.where(decision, 1, 3))
    squares = _by_patient(sample, (score - truth) ** 2) if score is not None and is_probability else None
    questions = [Question("", truth, score, is_probability)]
    return Evaluation(
        sample=sample,
        cells=_count_cells(sample, cell, 4, dense=True),
        from_cells=lambda cells: {(metric, ""): v for metric, v in binary_metrics(cells).items()},
        squares=squares,
        questions=questions,
        rankings=_rankings(sample, questions),
        groups={
            "positive": _patients_with(sample, truth),
            "negative": _patients_with(sample, ~truth),
        },
    )


def evaluate_classes(sample: Sample) -> Evaluation:
    """Count the classification into all classes; a unit's answer is its predicted class.

    Brier is the multi-class score, the squared errors summed over the classes (Brier 1950): 0 to 2.
    """
    classes, k = sample.classes, len(sample.classes)
    p = sample.probabilities
    squares = None if p is None else _by_patient(sample, ((p - np.eye(k)[sample.truth]) ** 2).sum(axis=1))
    questions = [
        Question(name, sample.truth == i, None if p is None else p[:, i]) for i, name in enumerate(classes)
    ]
    return Evaluation(
        sample=sample,
        cells=_count_cells(sample, sample.truth * k + sample.predicted, k * k),
        from_cells=lambda cells: multiclass_metrics(cells.reshape(*cells.shape[:-1], k, k), classes),
        squares=squares,
        questions=questions,
        rankings=_rankings(sample, questions) | ({} if p is None else _micro_ranking(sample, p)),
        groups={name: _patients_with(sample, sample.truth == i) for i, name in enumerate(classes)},
        others={name: _patients_with(sample, sample.truth != i) for i, name in enumerate(classes)},
    )


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(values), np.nan, values)


def _rankings(sample: Sample, questions: list[Question]) -> dict[str, Ranking | None]:
    most = _MOST_ENTRIES // len(questions)
    return {
        q.name: rank(q.score, q.positive, sample.patient, sample.n_patients, most)
        for q in questions
        if q.score is not None
    }


def _micro_ranking(sample: Sample, probabilities: np.ndarray) -> dict[str, Ranking | None]:
    """Rank every class of every unit in one order."""
    k = probabilities.shape[1]
    asked = sample.truth[:, None] == np.arange(k)
    owner = np.repeat(sample.patient, k)
    return {MICRO: rank(probabilities.ravel(), asked.ravel(), owner, sample.n_patients, _MOST_ENTRIES // k)}


def _count_cells(
    sample: Sample, cell: np.ndarray, n_cells: int, dense: bool = False
) -> np.ndarray | csr_array:
    counts = tally(sample.patient, sample.n_patients, cell, n_cells, np.ones(len(cell)))
    return csr_array(counts).toarray() if dense else counts


def _patients_with(sample: Sample, chosen: np.ndarray) -> int:
    return int((np.bincount(sample.patient[chosen], minlength=sample.n_patients) > 0).sum())


def _joined(parts: Iterable[dict[Key, np.ndarray]]) -> dict[Key, np.ndarray]:
    found = list(parts)
    return {key: np.concatenate([part[key] for part in found]) for key in found[0]}


def _by_patient(sample: Sample, values: np.ndarray) -> np.ndarray:
    return np.bincount(sample.patient, values, minlength=sample.n_patients)
