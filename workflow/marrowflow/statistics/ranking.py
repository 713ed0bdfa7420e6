"""AUC and average precision of thousands of resamples of patients, from one sort of the scores.

A resample of patients is a row of counts: how often each patient was drawn. The Mann–Whitney statistic
is then a quadratic form in the counts: with K[p, q] the number of pairs (positive of p, negative of q) that
the positive wins plus half of those tied, AUC = w'Kw / ((w'n⁺)(w'n⁻)). Where K would be larger than
the rows are many, and for average precision, which is no such form, each resample is one pass
over the rows in the order of their scores, with cumulated counts.

All numbers of pairs are kept doubled, as integers in float64: exact up to 2⁵³.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

# A pass costs about as much a row as a matrix product does for this many entries of K (measured).
_ENTRIES_A_ROW = 100
# Blocks of rows whose pairs are counted one by one are this many times more costly a pair than
# the matrix product is an entry (measured); balances the two parts of `_count_pairs`.
_PAIR_COST = 300
# Where patients have rows of both kinds K is square, and its two triangles are added: blocks of this many patients
# on the diagonal stay whole. From this share of all entries on it pays to make K square.
_FOLD = 128
_FOLD_FROM = 0.7
_PAIRS_AT_ONCE = 250_000
_ENTRIES_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class AucPulls:
    """How each patient moves an AUC.

    ``of_positives`` and ``of_negatives`` are float64 [patients]: the pull of the patient's positives and of its
    negatives; both sum to 0. ``with_positive``, ``with_negative`` and ``patients`` are numbers of patients.
    """

    of_positives: np.ndarray
    of_negatives: np.ndarray
    with_positive: int
    with_negative: int
    patients: int

    @property
    def fewest(self) -> int:
        """Patients of the class that has the fewest."""
        return min(self.with_positive, self.with_negative)

    def minus(self, other: AucPulls) -> AucPulls:
        """Return the pulls on the difference of two AUCs of the same rows."""
        return replace(
            self,
            of_positives=self.of_positives - other.of_positives,
            of_negatives=self.of_negatives - other.of_negatives,
        )

    def variance(self) -> float:
        """Return the variance for clustered rows; NaN where a class has fewer than two patients.

        Notes
        -----
        With aᵢ and bᵢ the pulls of patient i's positives and negatives, and I₁₀, I₀₁ and I the patients with positives,
        with negatives and with either: I₁₀/(I₁₀-1) Σaᵢ² + I₀₁/(I₀₁-1) Σbᵢ² + 2I/(I-1) Σaᵢbᵢ (Obuchowski 1997,
        Biometrics 53:567, eq. 3-6). It is a quadratic form, so that of differences of pulls is the variance of the
        difference of two correlated AUCs, the covariance included. With one row a patient the last term is 0, and
        this is DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837.
        """
        if self.fewest < 2:
            return np.nan
        return float(
            _unbiased(self.with_positive) * (self.of_positives**2).sum()
            + _unbiased(self.with_negative) * (self.of_negatives**2).sum()
            + 2 * _unbiased(self.patients) * (self.of_positives * self.of_negatives).sum()
        )


@dataclass(frozen=True)
class Ranking:
    """Scores of one yes/no question, sorted once.

    Attributes
    ----------
    positives, negatives
        Float64 [patients]: number of rows of each kind.
    won, lost, own
        Float64 [patients]: doubled pairs that the patient's positives win, that its negatives lose,
        and that are won within the patient.
    pairs
        Doubled K [patients with positives, patients with negatives], or None where passes are quicker.
    folded
        ``pairs`` is [patients, patients], what lies below its diagonal of blocks added to what lies above: the
        same quadratic form from little more than half the products.
    """

    positives: np.ndarray
    negatives: np.ndarray
    won: np.ndarray
    lost: np.ndarray
    own: np.ndarray
    pairs: np.ndarray | None
    folded: bool
    _order: _Order

    @property
    def descending(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Patient, truth (bool) and tied group of each row by descending score; the highest group is 0."""
        return self._order.patient, self._order.positive, self._order.group

    def auc(self, weights: np.ndarray) -> np.ndarray:
        """Return the AUC of each resample: `weights` are integers [resamples, patients], the result float64 [resamples].

        NaN where a resample has no positive or no negative.
        """
        if self.pairs is None:
            return self._pass_over(weights, self._order.auc)
        w = np.asarray(weights, dtype=np.float64)
        if self.folded:
            won = _quadratic_form(w, self.pairs)
        else:
            reached = w[:, self.positives > 0] @ self.pairs
            won = np.einsum("bq,bq->b", reached, w[:, self.negatives > 0])
        return _quotient(won, 2 * (w @ self.positives) * (w @ self.negatives))

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Return the average precision of each resample as `auc` does, tied scores taken as one step; NaN without a positive."""
        return self._pass_over(weights, self._order.average_precision)

    def auc_without_each(self) -> np.ndarray:
        """Return the AUC with each patient left out in turn, float64 [patients]."""
        won = self.won.sum() - self.won - self.lost + self.own
        n_positive, n_negative = self.positives.sum(), self.negatives.sum()
        return _quotient(won, 2 * (n_positive - self.positives) * (n_negative - self.negatives))

    def auc_pulls(self) -> AucPulls:
        """Return how each patient moves the AUC."""
        m, n = self.positives.sum(), self.negatives.sum()
        auc = self.won.sum() / (2 * m * n)
        return AucPulls(
            of_positives=(self.won / (2 * n) - self.positives * auc) / m,
            of_negatives=(self.lost / (2 * m) - self.negatives * auc) / n,
            with_positive=int((self.positives > 0).sum()),
            with_negative=int((self.negatives > 0).sum()),
            patients=int(((self.positives + self.negatives) > 0).sum()),
        )

    def auc_variance(self) -> tuple[float, float]:
        """Return the AUC and its variance for clustered rows; see `AucPulls.variance`."""
        auc = self.won.sum() / (2 * self.positives.sum() * self.negatives.sum())
        return float(auc), self.auc_pulls().variance()

    def average_precision_influence(self) -> np.ndarray:
        """Return how the average precision changes with each patient's weight, float64 [patients]; they sum to 0.

        The derivative of Σ w⁺ c⁺/c / n⁺, where w⁺ are the positives of a tied group and c⁺ and c the
        positives and rows down to it: a row changes its own group's term and c in all groups below.
        """
        order = self._order
        ends = np.concatenate([np.flatnonzero(np.diff(order.group)), [len(order.group) - 1]])
        down = np.cumsum(order.positive, dtype=np.float64)[ends]
        rows = ends + 1.0
        here = np.diff(down, prepend=0.0)
        below = np.cumsum((here / rows)[::-1])[::-1]
        diluted = np.cumsum((here * down / rows**2)[::-1])[::-1]
        precision = down / rows
        value = (here * precision).sum() / down[-1]
        of_row = order.positive * (precision + below - value)[order.group] - diluted[order.group]
        return np.bincount(order.patient, of_row, minlength=len(self.positives)) / down[-1]

    def _pass_over(self, weights: np.ndarray, measure: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Measure as many resamples at a time as stay in the processor's cache."""
        step = max(1, _ENTRIES_AT_ONCE // len(self._order.patient))
        w = np.asarray(weights, dtype=np.int32)
        return np.concatenate([measure(w[start : start + step]) for start in range(0, len(w), step)])


@dataclass(frozen=True)
class _Order:
    """Rows by descending score; ``group`` numbers the distinct scores from the highest on.

    For each positive row: ``place`` its row, ``rows_above`` and ``rows_down`` the rows above its tied group
    and down to the group's end, ``positives_above`` and ``positives_down`` the positives among them.
    """

    patient: np.ndarray
    positive: np.ndarray
    group: np.ndarray
    place: np.ndarray
    rows_above: np.ndarray
    rows_down: np.ndarray
    positives_above: np.ndarray
    positives_down: np.ndarray

    def auc(self, w: np.ndarray) -> np.ndarray:
        of_positive, rows, positives = self._cumulated(w)
        above = rows.take(self.rows_above, axis=1) - positives.take(self.positives_above, axis=1)
        down = rows.take(self.rows_down, axis=1) - positives.take(self.positives_down, axis=1)
        n_positive = positives[:, -1].astype(np.float64)
        n_negative = rows[:, -1] - n_positive
        lost = np.einsum("bi,bi->b", of_positive, above + down, dtype=np.float64)
        return 1 - _quotient(lost, 2 * n_positive * n_negative)

    def average_precision(self, w: np.ndarray) -> np.ndarray:
        of_positive, rows, positives = self._cumulated(w)
        down = rows.take(self.rows_down, axis=1)
        # Rows that were not drawn have weight 0, so the 0/1 that stands for their precision counts for nothing.
        precision = positives.take(self.positives_down, axis=1) / np.maximum(down, 1)
        return _quotient(np.einsum("bi,bi->b", of_positive, precision), positives[:, -1])

    def _cumulated(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        drawn = w.take(self.patient, axis=1)
        of_positive = drawn.take(self.place, axis=1)
        return of_positive, _cumulated(drawn), _cumulated(of_positive)


def rank(
    scores: np.ndarray, positive: np.ndarray, patient: np.ndarray, n_patients: int, most_entries: int
) -> Ranking | None:
    """Sort the scores of a question; None where there is no positive or no negative.

    Parameters
    ----------
    scores
        Float64 [rows]; the higher, the more positive. The direction is fixed, never chosen from the data.
    positive
        Bool [rows].
    patient
        Int64 [rows], 0..``n_patients`` - 1.
    most_entries
        The largest matrix of pairs that may be kept, in entries of 8 bytes.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if not positive.any() or positive.all():
        return None
    order = np.argsort(scores)
    ascending, y, owner = scores[order], positive[order], patient[order]
    level = np.cumsum(np.append(0, np.diff(ascending) > 0))
    positives = np.bincount(owner[y], minlength=n_patients).astype(np.float64)
    negatives = np.bincount(owner[~y], minlength=n_patients).astype(np.float64)
    has_positive, has_negative = positives > 0, negatives > 0
    entries = int(has_positive.sum()) * int(has_negative.sum())
    folded = entries > _FOLD_FROM * n_patients**2
    if folded:
        has_positive = has_negative = np.ones(n_patients, dtype=bool)
        entries = n_patients**2
    if entries <= min(most_entries, _ENTRIES_A_ROW * len(scores)):
        pairs = _count_pairs(level, y, owner, has_positive, has_negative)
        won, lost, own = _sums_of(pairs, has_positive, has_negative)
        if folded:
            _fold(pairs)
    else:
        pairs = None
        won, lost, own = _pair_sums(level, y, owner, n_patients)
    return Ranking(positives, negatives, won, lost, own, pairs, folded, _descending(level, y, owner))


def _fold(pairs: np.ndarray) -> None:
    """Add what lies below the diagonal of blocks to what lies above, in place."""
    for start in range(0, len(pairs), _FOLD):
        end = start + _FOLD
        pairs[start:end, end:] += pairs[end:, start:end].T
        pairs[end:, start:end] = 0


def _quadratic_form(w: np.ndarray, folded: np.ndarray) -> np.ndarray:
    """Return w'Kw [resamples] of each row of w [resamples, patients]."""
    total = np.zeros(len(w))
    for start in range(0, len(folded), _FOLD):
        end = start + _FOLD
        reached = w[:, start:end] @ folded[start:end, start:]
        total += np.einsum("bq,bq->b", reached, w[:, start:])
    return total


def _descending(level: np.ndarray, positive: np.ndarray, patient: np.ndarray) -> _Order:
    """Turn rows in ascending order round."""
    y, group = positive[::-1], level[-1] - level[::-1]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    ends = np.append(starts[1:], len(group))
    before = np.append(0, np.cumsum(y))
    place = np.flatnonzero(y)
    own = group[place]
    return _Order(
        patient=patient[::-1].copy(),
        positive=y,
        group=group,
        place=place,
        rows_above=starts[own],
        rows_down=ends[own],
        positives_above=before[starts[own]],
        positives_down=before[ends[own]],
    )


def _sums_of(
    pairs: np.ndarray, has_positive: np.ndarray, has_negative: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `_pair_sums` does, from the matrix of pairs."""
    won, lost, own = np.zeros((3, len(has_positive)))
    won[has_positive], lost[has_negative] = pairs.sum(axis=1), pairs.sum(axis=0)
    both = has_positive & has_negative
    own[both] = pairs[both[has_positive].nonzero()[0], both[has_negative].nonzero()[0]]
    return won, lost, own


def _pair_sums(
    level: np.ndarray, positive: np.ndarray, patient: np.ndarray, n_patients: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the doubled pairs won by each patient's positives, lost by its negatives, and won within it."""
    high, low = level[positive], level[~positive]
    of_high, of_low = patient[positive], patient[~positive]
    won = _beaten(low, high)
    lost = 2 * len(high) - _beaten(high, low)
    # Within a patient: the same comparison on a key that ranks by patient first.
    span = int(level[-1]) + 1
    within = np.sort(of_low * span + low)
    own = _beaten(within, of_high * span + high) - 2 * np.searchsorted(within, of_high * span)
    return (
        np.bincount(of_high, won, minlength=n_patients),
        np.bincount(of_low, lost, minlength=n_patients),
        np.bincount(of_high, own, minlength=n_patients),
    )


def _beaten(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return twice the number of entries below each value plus the number equal to it."""
    return np.searchsorted(ascending, values, "left") + np.searchsorted(ascending, values, "right")


def _count_pairs(
    level: np.ndarray,
    positive: np.ndarray,
    patient: np.ndarray,
    has_positive: np.ndarray,
    has_negative: np.ndarray,
) -> np.ndarray:
    """Return doubled K [patients with positives, patients with negatives] of rows in ascending order.

    The rows are cut into blocks. Pairs from different blocks come from one matrix product of the
    blocks' counts (positives here × negatives in lower blocks); pairs within a block are counted
    one by one, but for a block of one tied score, where they are all ties.
    """
    rows, columns = int(has_positive.sum()), int(has_negative.sum())
    row_of, column_of = np.cumsum(has_positive) - 1, np.cumsum(has_negative) - 1
    block, tied = _blocks(level, positive, rows * columns)
    n_blocks = len(tied)

    high, low = np.flatnonzero(positive), np.flatnonzero(~positive)
    p, q = row_of[patient[high]], column_of[patient[low]]
    pairs = _pairs_between(block[high], p, rows, block[low], q, columns, tied)

    first = np.searchsorted(block[low], np.arange(n_blocks + 1))
    opponents = np.where(tied, 0, np.diff(first))[block[high]]
    flat = pairs.reshape(-1)
    for part in _parts(opponents):
        i = np.repeat(part, opponents[part])
        offset = np.arange(len(i)) - np.repeat(np.cumsum(opponents[part]) - opponents[part], opponents[part])
        j = first[block[high[i]]] + offset
        won = 1 + np.sign(level[high[i]] - level[low[j]])
        flat += np.bincount(p[i] * columns + q[j], won, minlength=flat.size)
    return pairs


def _pairs_between(
    block_of_high: np.ndarray,
    p: np.ndarray,
    rows: int,
    block_of_low: np.ndarray,
    q: np.ndarray,
    columns: int,
    tied: np.ndarray,
) -> np.ndarray:
    """Return doubled pairs of different blocks, and of the ``tied`` ones: p and q are the patients of the high and low rows.

    A few blocks at a time, so that their tables stay small whatever the number of blocks.
    """
    pairs, lower = np.zeros((rows, columns)), np.zeros(columns)
    step = max(1, _ENTRIES_AT_ONCE // max(rows, columns))
    for start in range(0, len(tied), step):
        end = min(len(tied), start + step)
        here = _counts(block_of_high, p, start, end, rows)
        there = _counts(block_of_low, q, start, end, columns)
        down = lower + np.cumsum(there, axis=0)
        pairs += here.T @ (2 * (down - there) + there * tied[start:end, None])
        lower = down[-1]
    return pairs


def _counts(block: np.ndarray, owner: np.ndarray, start: int, end: int, n: int) -> np.ndarray:
    """Return how many rows of each owner lie in blocks ``start`` to ``end`` - 1, float64 [blocks, n]; blocks ascend."""
    inside = slice(*np.searchsorted(block, (start, end)))
    flat = np.bincount((block[inside] - start) * n + owner[inside], minlength=(end - start) * n)
    return flat.reshape(end - start, n).astype(np.float64)


def _blocks(level: np.ndarray, positive: np.ndarray, entries: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each sorted row's block, which never divides tied rows, and which blocks are one tied score."""
    n, n_positive = len(level), int(positive.sum())
    wanted = np.sqrt(_PAIR_COST * n_positive * (n - n_positive) / entries)
    size = int(np.ceil(n / max(1.0, wanted)))
    starts = np.flatnonzero(np.diff(level, prepend=-1))
    ends = np.append(starts[1:], n)
    wide = ends - starts > size
    marks = starts[np.searchsorted(starts, np.arange(0, n, size), side="right") - 1]
    cuts = np.unique(np.concatenate([marks, starts[wide], ends[wide]]))
    cuts = cuts[cuts < n]
    block = np.cumsum(np.isin(np.arange(n), cuts)) - 1
    last = np.append(cuts[1:], n) - 1
    return block, level[cuts] == level[last]


def _parts(opponents: np.ndarray) -> list[np.ndarray]:
    """Divide the positives so that each part has about `_PAIRS_AT_ONCE` pairs."""
    total = np.cumsum(opponents)
    cuts = np.searchsorted(total, np.arange(_PAIRS_AT_ONCE, total[-1], _PAIRS_AT_ONCE))
    return [part for part in np.split(np.arange(len(opponents)), cuts) if opponents[part].any()]


def _cumulated(counts: np.ndarray) -> np.ndarray:
    """Cumulate along rows, with a leading 0."""
    out = np.zeros((counts.shape[0], counts.shape[1] + 1), dtype=np.int32)
    np.cumsum(counts, axis=1, out=out[:, 1:])
    return out


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _unbiased(patients: int) -> float:
    return patients / (patients - 1)
