"""Sums over each patient's rows, and resamples measured a few at a time.

What adds up over rows is added up once a patient, in a table [patients, columns]; the sums of thousands of
resamples are then one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

# An entry of a sparse table costs a product about as much as this many of a dense one (measured).
_SPARSE_COST = 8
_ENTRIES_AT_ONCE = 1 << 18


def tally(
    patient: np.ndarray, n_patients: int, column: np.ndarray, n_columns: int, amount: np.ndarray
) -> np.ndarray | csr_array:
    """Add up amounts by patient and column.

    Parameters
    ----------
    patient, column
        Int64 [entries]: 0..``n_patients`` - 1 and 0..``n_columns`` - 1.
    amount
        Float64 [entries].

    Returns
    -------
    ndarray or csr_array
        Float64 [patients, columns], sparse where that makes products quicker; no larger than a few times the entries.
    """
    if n_patients * n_columns > _SPARSE_COST * len(amount):
        return coo_array((amount, (patient, column)), shape=(n_patients, n_columns)).tocsr()
    flat = np.bincount(patient * n_columns + column, amount, minlength=n_patients * n_columns)
    return flat.reshape(n_patients, n_columns)


def in_portions(rows: Any, width: int, measure: Callable[[Any], np.ndarray]) -> np.ndarray:
    """Return ``measure(rows)`` [rows, ...], as many rows at a time as leave tables [rows, ``width``] in the processor's cache.

    ``rows`` [rows, columns] are resamples' weights, or a table that `tally` returned.
    """
    step = max(1, _ENTRIES_AT_ONCE // width)
    return np.concatenate([measure(rows[start : start + step]) for start in range(0, rows.shape[0], step)])
