"""What a decision by the index test is worth: net benefit over thresholds, predictive values over prevalences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from marrowflow.statistics.bootstrap import Interval
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.evaluation import Evaluation, Question
from marrowflow.statistics.metrics import ratio
from marrowflow.statistics.movers import mover_ratio, wilson_parts
from marrowflow.statistics.tallies import in_portions, tally

Key = tuple[str, str, float]
"""(metric, class, threshold or prevalence)."""

THRESHOLDS = tuple(k / 100 for k in range(1, 100))
"""Threshold probabilities of the decision curve."""

PREDICTIVE_VALUES = ("ppv_at_prevalence", "npv_at_prevalence")

# Whoever treats above a probability of k % holds one true positive to be worth (100 - k)/k false ones.
_ODDS = np.array([k / (100 - k) for k in range(1, 100)])
_STEPS = len(THRESHOLDS) + 1
_PATIENTS_AT_ONCE = 4096


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of one question's probabilities, as a `Statistic` (Vickers and Elkin 2006, Med Decis Making 26:565).

    net_benefit = TP/n - FP/n · t/(1 - t), where units with a score at or above t are treated, and
    net_benefit_treat_all = n⁺/n - n⁻/n · t/(1 - t), for t in `THRESHOLDS`. To treat none is worth 0.

    Attributes
    ----------
    name
        The question's class.
    """

    name: str
    _counts: np.ndarray | csr_array = field(repr=False)
    """Float64 [patients, 2 * 100]: negatives, then positives, by the number of thresholds that they reach."""

    def estimates(self) -> dict[Key, float]:
        """Return each net benefit of the sample."""
        totals = np.asarray(self._counts.sum(axis=0)).reshape(1, -1)
        return dict(zip(self._keys(), _net_benefits(totals)[0].tolist(), strict=True))

    def values(self, weights: np.ndarray) -> dict[Key, np.ndarray]:
        """Return each net benefit [resamples] for patients' counts [resamples, patients]."""

        def measure(w: np.ndarray) -> np.ndarray:
            return _net_benefits(w.astype(np.float64) @ self._counts)

        return dict(zip(self._keys(), in_portions(weights, 2 * _STEPS, measure).T, strict=True))

    def influence(self) -> dict[Key, np.ndarray]:
        """Return each patient's linear share in n times the net benefit, float32 [patients].

        Those of treating all are multiples of one another, which `bootstrap_intervals` does not tell apart: one array
        serves all thresholds.
        """
        patients = self._counts.shape[0]
        estimates = np.array(list(self.estimates().values())[: len(THRESHOLDS)])
        totals = _reached(np.asarray(self._counts.sum(axis=0)))
        pull = np.empty((len(THRESHOLDS), patients), dtype=np.float32)
        of_all = np.empty(patients, dtype=np.float32)
        # A few patients at a time: where each row is a patient a dense table of all would be large.
        for start in range(0, patients, _PATIENTS_AT_ONCE):
            part = slice(start, start + _PATIENTS_AT_ONCE)
            tp, fp, positives, n = _reached(csr_array(self._counts[part]).toarray())
            pull[:, part] = (tp - fp * _ODDS - n * estimates).T
            of_all[part] = (positives - n * (totals[2] / totals[3]))[:, 0]
        return dict(zip(self._keys(), [*pull, *[of_all] * len(THRESHOLDS)], strict=True))

    def _keys(self) -> list[Key]:
        return [
            (metric, self.name, t) for metric in ("net_benefit", "net_benefit_treat_all") for t in THRESHOLDS
        ]


def decision_curves(sample: Sample, questions: Sequence[Question]) -> list[DecisionCurve]:
    """Return the decision curve of each question whose score is a probability; a threshold is one of probability."""
    return [
        DecisionCurve(
            question.name,
            tally(
                sample.patient,
                sample.n_patients,
                _STEPS * question.positive + np.searchsorted(THRESHOLDS, question.score, side="right"),
                2 * _STEPS,
                np.ones(len(sample.patient)),
            ),
        )
        for question in questions
        if question.score is not None and question.is_probability
    ]


@dataclass(frozen=True)
class PredictiveValues:
    """PPV and NPV at stated prevalences by Bayes' theorem, as a `Statistic`.

    With sensitivity a, specificity b and prevalence π: PPV = aπ / (aπ + (1 - b)(1 - π)) and
    NPV = b(1 - π) / (b(1 - π) + (1 - a)π). A resample's are of its own a and b.

    At a specificity (for NPV a sensitivity) of 100 % every resample gives 1, and the bootstrap has no width; near it, it
    is too narrow. `closed_form` is not.

    Attributes
    ----------
    evaluation
        Of a yes/no endpoint, or of all classes, each then against the rest.
    prevalences
        Between 0 and 1, exclusive.
    """

    evaluation: Evaluation
    prevalences: Sequence[float]

    def estimates(self) -> dict[Key, float]:
        """Return each predictive value; NaN where sensitivity or specificity is undefined, or nobody would be called so."""
        return self._by_bayes(lambda name: self._cells[name].sum(axis=0), float)

    def values(self, weights: np.ndarray) -> dict[Key, np.ndarray]:
        """Return each predictive value [resamples] for patients' counts [resamples, patients]; NaN where undefined."""
        w = weights.astype(np.float64)
        return self._by_bayes(lambda name: w @ self._cells[name], np.asarray)

    def influence(self) -> dict[Key, np.ndarray]:
        """Return the mean of the leave-one-out values less each, float64 [patients]."""
        return self._by_bayes(
            lambda name: self._cells[name].sum(axis=0) - self._cells[name],
            lambda left_out: left_out.mean() - left_out,
        )

    def closed_form(self, key: Key, confidence: float) -> Interval | None:
        """Return the interval from those of sensitivity and specificity, or None where one of them has none.

        Notes
        -----
        PPV = 1 / (1 + R(1 - π)/π) with R = (1 - b)/a, and NPV = 1 / (1 + Rπ/(1 - π)) with R = (1 - a)/b, so that the limits
        of R are those of the predictive value. They are `mover_ratio`'s, from `wilson_clustered` limits of both parts.
        The prevalence is taken as known. The correlation of both parts, from patients who have units of
        both truths, is that of the ratio estimators' residuals; it vanishes where no patient has both, or a part is 0 or 1.
        """
        metric, name, prevalence = key
        tp, fp, fn, tn = self._cells[name].T
        if metric == "ppv_at_prevalence":
            odds, of_ratio = (1 - prevalence) / prevalence, ((fp, fp + tn), (tp, tp + fn))
        else:
            odds, of_ratio = prevalence / (1 - prevalence), ((fn, tp + fn), (tn, fp + tn))
        parts = wilson_parts(of_ratio, confidence)
        if parts is None or parts.estimates.sum() == 0:
            return None
        low, high = mover_ratio(parts)
        return Interval("mover_wilson_neff", float(1 / (1 + high * odds)), float(1 / (1 + low * odds)))

    @cached_property
    def _cells(self) -> dict[str, np.ndarray]:
        """(tp, fp, fn, tn), float64 [patients, 4], of each question."""
        return {q.name: self.evaluation.cells_of(q.name) for q in self.evaluation.questions}

    def _by_bayes(
        self, cells_of: Callable[[str], np.ndarray], measure: Callable[[np.ndarray], Any]
    ) -> dict[Key, Any]:
        found = {}
        for name in [q.name for q in self.evaluation.questions]:
            tp, fp, fn, tn = np.moveaxis(cells_of(name), -1, 0)
            a, b = ratio(tp, tp + fn), ratio(tn, fp + tn)
            for prevalence in self.prevalences:
                with_condition, without = a * prevalence, b * (1 - prevalence)
                ppv = ratio(with_condition, with_condition + (1 - b) * (1 - prevalence))
                npv = ratio(without, without + (1 - a) * prevalence)
                for metric, value in zip(PREDICTIVE_VALUES, (ppv, npv), strict=True):
                    found[metric, name, prevalence] = measure(value)
        return found


def _net_benefits(counts: np.ndarray) -> np.ndarray:
    """Return the net benefits of treating by the score and of treating all, [resamples, 2 * thresholds]."""
    tp, fp, positives, n = _reached(counts)
    return np.concatenate([ratio(tp - fp * _ODDS, n), ratio(positives - (n - positives) * _ODDS, n)], axis=1)


def _reached(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return true and false positives [..., thresholds], all positives and all units [..., 1] of counts [..., 2 * 100]."""
    sides = counts.reshape(*counts.shape[:-1], 2, _STEPS)
    at_least = np.cumsum(sides[..., ::-1], axis=-1)[..., ::-1]
    negatives, positives = at_least[..., 0, :1], at_least[..., 1, :1]
    return at_least[..., 1, 1:], at_least[..., 0, 1:], positives, positives + negatives
