"""A patient's differential count: the share of each type among the nucleated cells that count.

Cells are counted over all fields of a patient together: the mean of the fields' own shares would let a field of three cells
weigh as much as one of three hundred.

Two shares stand beside one another. The plain one is what the networks said, with Wilson's interval for so many cells. The
corrected one takes their errors into account: where M[i, j] is the share of the cells of type i that the networks call j, on
patients that they were not trained on, and q the shares that they said, it is the p with p ≥ 0 and Σp = 1 for which Mᵀp is
nearest to q (least squares). Of two types this is Rogan and Gladen's (q + sp − 1) / (se + sp − 1), cut at 0 and 1. Where M
does not tell two types apart, because the networks say the same of both, there is no such p, and none is given.

Its interval is that of bootstrap percentiles: over the patients behind each row of M, or over its cells where these are of fewer than
`FEWEST` patients, and over so many cells as were counted. A count of 0 would be drawn as 0 for ever: an interval is never narrower than
Wilson's limits of each plain share, corrected in the same way.

Sources: Wilson 1927, JASA 22:209; Rogan and Gladen 1978, Am J Epidemiol 107:71; for several types Hopkins and King 2010,
Am J Polit Sci 54:229.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from scipy.stats import binomtest

FEWEST = 5
"""Patients behind a row of M from which on they are drawn, and not its cells."""
_SUM = 1e4
"""Weight of Σp = 1 among the equations, whose others are of order 1."""
_LARGEST = 10.0
COLUMNS = ("patient_id", "type", "n", "of", "share", "low", "high", "images")
"""Of a table of counts: the patient, the type, its cells, all that count, their quotient with Wilson's interval, and the images that
they lie on."""


@dataclass(frozen=True)
class Corrected:
    """Shares of types, the networks' errors taken into account.

    Attributes
    ----------
    shares, low, high
        float64 [types]; NaN where `reason` is not empty.
    patients
        int64 [types]: patients behind each type's row of M. Of none the type is taken as always recognised.
    reason
        Why there are no shares; empty where there are.
    """

    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    patients: np.ndarray
    reason: str


def counts(cells: pd.DataFrame, types: Sequence[str], confidence: float) -> pd.DataFrame:
    """Count each patient's cells by type.

    Parameters
    ----------
    cells
        One row a cell that counts: ``patient_id``, ``case_id`` (its image), ``type``.
    types
        That count, in order; cells of others (red cells, smudges) are left out of the denominator too.
    confidence
        Of Wilson's interval.

    Returns
    -------
    DataFrame
        `COLUMNS`, a row for each patient with a counted cell and each type.
    """
    known = cells[cells["type"].isin(types)].reset_index(drop=True)
    table = pd.crosstab(known["patient_id"], known["type"]).reindex(columns=list(types), fill_value=0)
    images = known.groupby("patient_id")["case_id"].nunique()
    rows = []
    for patient, own in zip(table.index, table.to_numpy(), strict=True):
        of = int(own.sum())
        for name, n in zip(types, own.tolist(), strict=True):
            low, high = binomtest(n, of).proportion_ci(confidence, method="wilson")
            rows.append((patient, name, n, of, n / of, float(low), float(high), int(images[patient])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def corrected(
    own: np.ndarray,
    confusions: np.ndarray,
    types: Sequence[str],
    confidence: float,
    replicates: int,
    seed: int,
) -> Corrected:
    """Return a patient's shares with the networks' errors taken into account.

    Parameters
    ----------
    own
        int64 [types]: the patient's cells by the type that the networks said; one at least.
    confusions
        int64 [patients, types, types]: of other patients, whom the networks were not trained on, cells by their true type
        (rows) and by what the networks said (columns).
    types
        Their names, for the reason.
    confidence
        Of the interval.
    replicates, seed
        Of the bootstrap.
    """
    own, confusions = np.asarray(own, np.int64), np.asarray(confusions, np.int64)
    total = int(own.sum())
    if total == 0:
        raise ValueError("a patient without a counted cell has no shares")
    pooled, patients = confusions.sum(axis=0), (confusions.sum(axis=2) > 0).sum(axis=0)
    rates = _rates(pooled)
    if reason := _not_told_apart(rates, types):
        none = np.full(len(own), np.nan)
        return Corrected(none, none, none, patients, reason)
    said = own / total
    shares = _solved(said, rates)
    chance = np.random.default_rng(seed)
    drawn = np.empty((replicates, len(own)))
    for i in range(replicates):
        drawn[i] = _solved(
            chance.multinomial(total, said) / total, _drawn_rates(confusions, pooled, patients, chance)
        )
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    for i, n in enumerate(own.tolist()):
        limits = binomtest(n, total).proportion_ci(confidence, method="wilson")
        low[i] = min(low[i], _solved(_moved(said, i, float(limits.low)), rates)[i])
        high[i] = max(high[i], _solved(_moved(said, i, float(limits.high)), rates)[i])
    return Corrected(shares, low, high, patients, "")


def _rates(confusion: np.ndarray) -> np.ndarray:
    """Return M: rows of shares; a type without a cell is taken as always recognised."""
    total = confusion.sum(axis=1, keepdims=True)
    return np.divide(confusion, total, out=np.eye(len(confusion)), where=total > 0)


def _drawn_rates(
    confusions: np.ndarray, pooled: np.ndarray, patients: np.ndarray, chance: np.random.Generator
) -> np.ndarray:
    """Return M of a bootstrap sample: its patients drawn anew, and the cells of rows that few patients are behind."""
    number = len(confusions)
    times = chance.multinomial(number, np.full(number, 1 / number)) if number else np.zeros(0, int)
    sample = np.tensordot(times, confusions, axes=1)
    rates = _rates(np.where(sample.sum(axis=1, keepdims=True) > 0, sample, pooled))
    for i in np.flatnonzero((patients > 0) & (patients < FEWEST)):
        # Jeffreys' prior: a cell that was never mistaken in a few may be in many.
        rates[i] = chance.dirichlet(pooled[i] + 0.5)
    return rates


def _moved(said: np.ndarray, place: int, share: float) -> np.ndarray:
    """Return shares of which one is another, and the others keep their proportions."""
    rest = 1 - said[place]
    moved = (
        said * ((1 - share) / rest) if rest > 0 else np.full(len(said), (1 - share) / max(1, len(said) - 1))
    )
    moved[place] = share
    return moved


def _not_told_apart(rates: np.ndarray, types: Sequence[str]) -> str:
    """Return which types the networks do not tell apart; empty where they do.

    A type must be what is said of its own cells more than of any other type's, and no row may be a mixture of the others: then M
    can be inverted, and errors of its rates are not blown up more than `_LARGEST` times.
    """
    for i, name in enumerate(types):
        others = np.delete(rates[:, i], i)
        if len(others) and rates[i, i] <= others.max():
            j = int(np.argmax(np.where(np.arange(len(types)) == i, -1, rates[:, i])))
            return f"{name} is said of cells of {types[j]} as often as of its own"
    if np.linalg.svd(rates, compute_uv=False).min() < 1 / _LARGEST:
        return "the networks tell some types apart too seldom"
    return ""


def _solved(said: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Return the shares p ≥ 0, Σp = 1, for which Mᵀp is nearest to what was said."""
    equations = np.vstack([rates.T, np.full(len(said), _SUM)])
    found, _ = nnls(equations, np.append(said, _SUM))
    return found / found.sum()
