"""Where a score can be operated: sensitivity at a specificity and the reverse, partial AUC, the ROC curve's band.

Each resample has cut-offs of its own. A cut-off is a score that occurs in it, or none (nothing is positive). Positives and
negatives in the order of their scores are cumulated once a resample, all metrics are read off the cumulated counts.

================================  ======================================================================
``sensitivity_at_specificity``    largest sensitivity of a cut-off whose specificity is at least ``at``
``specificity_at_sensitivity``    largest specificity of a cut-off whose sensitivity is at least ``at``
``partial_area``                  area A under the ROC curve between specificity ``at`` and 1
``partial_auc``                   ½ (1 + (A - f²/2) / (f - f²/2)), f = 1 - ``at``: ½ is chance, 1 perfect
                                  (McClish 1989, Med Decis Making 9:190)
``tpr_at_fpr``                    height of the ROC curve above the false positive rate ``at``
================================  ======================================================================

The curve joins its points by straight lines, as tied scores ask for and as it is drawn. The first two never lie between points.

Whether a rate reaches a level is decided in integers, a level of .9 being 9/10: rounding bars no cut-off that is exactly at it.

The intervals of all but the areas are percentile intervals. They are quantiles of one side's scores carried over to the
other side: steps, whose leave-one-out values do not tell how they vary (Efron and Tibshirani 1993, An Introduction to the
Bootstrap, section 11.6), so that BCa lacks its acceleration. `OperatingPoints.influence` is 0 for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any, Literal

import numpy as np

from marrowflow.statistics.metrics import ratio
from marrowflow.statistics.ranking import Ranking
from marrowflow.statistics.tallies import in_portions

Key = tuple[str, str, float]
"""(metric, class, level)."""

BAND = tuple(k / 100 for k in range(101))
"""False positive rates of the ROC curve's band."""


@dataclass(frozen=True)
class OperatingPoints:
    """Operating points of one question's score, as a `Statistic`.

    Attributes
    ----------
    name
        The question's class.
    specificities
        Levels of ``sensitivity_at_specificity``, ``partial_area`` and ``partial_auc``; 0 to 1, the last two undefined at 1.
    sensitivities
        Levels of ``specificity_at_sensitivity``, 0 to 1.
    """

    name: str
    specificities: Sequence[float]
    sensitivities: Sequence[float]
    _rows: _Rows = field(repr=False)

    def estimates(self) -> dict[Key, float]:
        """Return each metric of the sample."""
        everyone = np.ones((1, self._rows.n_patients), dtype=np.int32)
        return {key: float(value[0]) for key, value in self.values(everyone).items()}

    def values(self, weights: np.ndarray) -> dict[Key, np.ndarray]:
        """Return each metric [resamples] for patients' counts [resamples, patients]; NaN without a positive or a negative."""
        w = np.asarray(weights, dtype=np.int32)
        return self._named(
            in_portions(w, len(self._rows.positives) + len(self._rows.negatives), self._read).T
        )

    def influence(self) -> dict[Key, np.ndarray]:
        """Return the areas' derivatives by the patients' weights, float64 [patients]; 0 for all else."""
        areas = [_area_influence(self._rows, 1 - _exact(level)) for level in self.specificities]
        none = np.zeros(self._rows.n_patients)
        # A standardised area is a linear function of the area, and any scale will do.
        return self._named(
            [*[none] * len(areas), *areas, *areas, *[none] * (len(self.sensitivities) + len(BAND))]
        )

    def _named(self, numbers: Iterable[Any]) -> dict[Key, Any]:
        keys = [
            (metric, self.name, level)
            for metric, levels in (
                ("sensitivity_at_specificity", self.specificities),
                ("partial_area", self.specificities),
                ("partial_auc", self.specificities),
                ("specificity_at_sensitivity", self.sensitivities),
                ("tpr_at_fpr", BAND),
            )
            for level in levels
        ]
        return dict(zip(keys, numbers, strict=True))

    def _read(self, w: np.ndarray) -> np.ndarray:
        """Return the metrics [resamples, metrics] in the order of their keys."""
        rows, levels = self._rows, len(self.specificities)
        tp, fp = (_cumulated(w.take(side, axis=1), np.int32) for side in (rows.positives, rows.negatives))
        positives, negatives = (counts[:, -1:].astype(np.int64) for counts in (tp, fp))

        # The tied group in which the curve passes each false positive rate, and the curve's ends there.
        rates = [*(1 - _exact(level) for level in self.specificities), *map(_exact, BAND)]
        group = rows.group_of_negative[_first(fp[:, 1:], _share_of(negatives, rates), "right")]
        fp_above, fp_down, tp_above, tp_down = (
            np.take_along_axis(counts, start[group + end], axis=1).astype(np.float64)
            for counts, start in ((fp, rows.negatives_above), (tp, rows.positives_above))
            for end in (0, 1)
        )
        width = negatives * np.array([float(rate) for rate in rates])
        along = (width - fp_above) / np.where(fp_down > fp_above, fp_down - fp_above, np.inf)
        height = tp_above + along * (tp_down - tp_above)

        # Each run above the passed group adds what is between its (mean) false positives and the width.
        of_run = np.diff(tp.take(rows.run_starts, axis=1), axis=1)
        doubled = fp.take(rows.run_above, axis=1) + fp.take(rows.run_down, axis=1)
        taken = _cumulated(np.multiply(of_run, doubled, dtype=np.int64), np.int64)
        before = np.take_along_axis(taken, rows.runs_above[group[:, :levels]], axis=1) / 2
        area = (width * tp_above + along * (width - fp_above) * (tp_down - tp_above) / 2)[:, :levels] - before
        area = ratio(area, positives * negatives)
        f = np.array([float(rate) for rate in rates[:levels]])

        needed = -_share_of(-positives, [_exact(level) for level in self.sensitivities])
        end = rows.end_of_positive[_first(tp, needed, "left")]
        found = [
            ratio(tp_above[:, :levels], positives),
            area,
            (1 + ratio(area - f**2 / 2, f - f**2 / 2)) / 2,
            ratio(negatives - np.take_along_axis(fp, end, axis=1), negatives),
            ratio(height[:, levels:], positives),
        ]
        return np.where((positives == 0) | (negatives == 0), np.nan, np.concatenate(found, axis=1))


def operating_points(
    rankings: Mapping[str, Ranking | None], specificities: Sequence[float], sensitivities: Sequence[float]
) -> list[OperatingPoints]:
    """Return the operating points of each ranking of an `Evaluation`; of those without one side there are none."""
    return [
        OperatingPoints(name, specificities, sensitivities, _divide(ranking))
        for name, ranking in rankings.items()
        if ranking is not None
    ]


@dataclass(frozen=True)
class _Rows:
    """Rows of both sides by descending score, and where the groups of tied scores end in them.

    Attributes
    ----------
    positives, negatives
        Int64 [rows of the side]: patient.
    group_of_positive, group_of_negative
        Int64 [rows of the side]: number of the tied group; the negatives' with one more, behind the last group.
    positives_above, negatives_above
        Int64 [groups + 2]: rows of the side above a group; all of them for the last two.
    end_of_positive
        Int64 [positives + 1]: negatives down to the end of the group of the last of so many positives.
    run_starts
        Int64 [runs + 1]: positives above each run of those that no negative parts, and all of them.
    run_above, run_down
        Int64 [runs]: negatives above a run, and down to its end; they differ where a run is tied with negatives.
    runs_above
        Int64 [groups + 2]: runs above a group.
    """

    n_patients: int
    positives: np.ndarray
    negatives: np.ndarray
    group_of_positive: np.ndarray
    group_of_negative: np.ndarray
    positives_above: np.ndarray
    negatives_above: np.ndarray
    end_of_positive: np.ndarray
    run_starts: np.ndarray
    run_above: np.ndarray
    run_down: np.ndarray
    runs_above: np.ndarray


def _divide(ranking: Ranking) -> _Rows:
    patient, positive, group = ranking.descending
    groups = int(group[-1]) + 1
    positives_above, negatives_above = (
        np.searchsorted(group[side], np.append(np.arange(groups + 1), groups))
        for side in (positive, ~positive)
    )
    above, down = negatives_above[group[positive]], negatives_above[group[positive] + 1]
    first = np.flatnonzero(np.diff(above + down, prepend=-1))
    return _Rows(
        n_patients=len(ranking.positives),
        positives=patient[positive],
        negatives=patient[~positive],
        group_of_positive=group[positive],
        group_of_negative=np.append(group[~positive], groups),
        positives_above=positives_above,
        negatives_above=negatives_above,
        end_of_positive=np.append(0, down),
        run_starts=np.append(first, len(above)),
        run_above=above[first],
        run_down=down[first],
        runs_above=np.searchsorted(first, positives_above),
    )


def _area_influence(rows: _Rows, rate: Fraction) -> np.ndarray:
    """Return the derivative of the area up to a false positive rate by the patients' weights, float64 [patients].

    P and N are positives and negatives of a tied group, p and n those above it, n⁺ and n⁻ all, f the rate, and T the height
    of the curve at f, in positives. The area times n⁺n⁻ is ΣP (fn⁻ - n - N/2) over the groups above the one in which
    the curve passes f, and P (fn⁻ - n)² / 2N in that one. A positive adds the factor of its P. A negative adds
    fT by widening fn⁻, and takes away the positives below it as far as f, which it moves to the right.
    """
    p, n = (above.astype(np.float64) for above in (rows.positives_above, rows.negatives_above))
    positives, negatives, in_group, of_negatives = p[-1], n[-1], np.diff(p)[:-1], np.diff(n)[:-1]
    p, n, f = p[:-2], n[:-2], float(rate)
    passed = rows.group_of_negative[int(rate * int(negatives))]
    width, height = f * negatives, positives
    by_positive, by_negative = width - n - of_negatives / 2, p + in_group / 2
    by_positive[passed:] = 0
    if passed < len(p):
        along = (width - n[passed]) / of_negatives[passed]
        height = p[passed] + along * in_group[passed]
        by_positive[passed] = along * (width - n[passed]) / 2
        by_negative[passed] = height - along**2 * in_group[passed] / 2
        by_negative[passed + 1 :] = height
    by_negative += (f - 1) * height
    area = in_group @ by_positive
    sides = (
        (rows.positives, by_positive[rows.group_of_positive] - area / positives),
        (rows.negatives, by_negative[rows.group_of_negative[:-1]] - area / negatives),
    )
    pull = sum(np.bincount(patient, amount, minlength=rows.n_patients) for patient, amount in sides)
    return pull / (positives * negatives)


@cache
def _exact(level: float) -> Fraction:
    """Return a level as it is written: .9 is 9/10, not the nearest number of base 2."""
    return Fraction(str(float(level)))


def _share_of(counts: np.ndarray, fractions: Sequence[Fraction]) -> np.ndarray:
    """Return int64 [resamples, fractions]: fractions of counts [resamples, 1], rounded down."""
    above = np.array([f.numerator for f in fractions], dtype=np.int64)
    return counts * above // np.array([f.denominator for f in fractions], dtype=np.int64)


def _first(ascending: np.ndarray, wanted: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """Search each row of ``ascending`` for each of its row of ``wanted``; a bisection each, for rows of one length."""
    return np.stack(
        [np.searchsorted(row, values, side) for row, values in zip(ascending, wanted, strict=True)]
    )


def _cumulated(counts: np.ndarray, dtype: type) -> np.ndarray:
    """Cumulate along rows, with a leading 0."""
    out = np.zeros((counts.shape[0], counts.shape[1] + 1), dtype=dtype)
    np.cumsum(counts, axis=1, out=out[:, 1:])
    return out
