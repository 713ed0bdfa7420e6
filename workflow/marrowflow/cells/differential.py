"""A patient's differential count: the share of each type among the nucleated cells that count.

Cells are counted over all fields of a patient together: the mean of the fields' own shares would let a field of three cells
weigh as much as one of three hundred.

Two shares stand beside one another. The plain one is what the networks said, with Wilson's interval for so many cells. The
corrected one takes their errors into account: where M[i, j] is the share of the cells of type i that the networks call j, on
patients that they were not trained on, and q the shares that they said, it is the p with p ≥ 0 and Σp = 1 for which Mᵀp is
nearest to q (least squares). Of two types this is Rogan and Gladen's (q + sp − 1) / (se + sp − 1), cut at 0 and 1. Its
interval is that of bootstrap percentiles over the patients behind M, and over so many cells as were counted.

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

_SUM = 1e4
"""Weight of Σp = 1 among the equations, whose others are of order 1."""
COLUMNS = ("patient_id", "type", "n", "of", "share", "low", "high", "images")
"""Of a table of counts: the patient, the type, its cells, all that count, their quotient with Wilson's interval, and the images that
they lie on."""


@dataclass(frozen=True)
class Corrected:
    """Shares of types, the networks' errors taken into account.

    Attributes
    ----------
    shares, low, high
        float64 [types].
    assumed
        bool [types]: no cell of this type is among those that M was counted on, and it is taken as always recognised.
    """

    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    assumed: np.ndarray


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
    own: np.ndarray, confusions: np.ndarray, confidence: float, replicates: int, seed: int
) -> Corrected:
    """Return a patient's shares with the networks' errors taken into account.

    Parameters
    ----------
    own
        int64 [types]: the patient's cells by the type that the networks said; one at least.
    confusions
        int64 [patients, types, types]: of other patients, whom the networks were not trained on, cells by their true type
        (rows) and by what the networks said (columns).
    confidence
        Of the interval.
    replicates, seed
        Of the bootstrap.
    """
    own, confusions = np.asarray(own, np.int64), np.asarray(confusions, np.int64)
    total = int(own.sum())
    if total == 0:
        raise ValueError("a patient without a counted cell has no shares")
    chance = np.random.default_rng(seed)
    pooled = confusions.sum(axis=0)
    shares = _solved(own / total, _rates(pooled))
    patients = len(confusions)
    drawn = np.empty((replicates, len(own)))
    for i in range(replicates):
        times = (
            chance.multinomial(patients, np.full(patients, 1 / patients)) if patients else np.zeros(0, int)
        )
        rates = _rates(np.tensordot(times, confusions, axes=1), pooled)
        drawn[i] = _solved(chance.multinomial(total, own / total) / total, rates)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return Corrected(shares, low, high, pooled.sum(axis=1) == 0)


def _rates(confusion: np.ndarray, otherwise: np.ndarray | None = None) -> np.ndarray:
    """Return M: rows of shares, of a type without a cell those of ``otherwise``, or 1 for the type itself."""
    total = confusion.sum(axis=1, keepdims=True)
    instead = np.eye(len(confusion)) if otherwise is None else _rates(otherwise)
    return np.divide(confusion, total, out=instead, where=total > 0)


def _solved(said: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Return the shares p ≥ 0, Σp = 1, for which Mᵀp is nearest to what was said."""
    equations = np.vstack([rates.T, np.full(len(said), _SUM)])
    found, _ = nnls(equations, np.append(said, _SUM))
    return found / found.sum()
