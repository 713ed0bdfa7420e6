"""The table of where a network sees each case: ``embedding.parquet``, written a group of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from marrowflow.files import written_whole

TRAINED_ON = "trained_on"
"""Column that says whether the network was trained on the case."""

# Rows of the file that are read and held at a time: 42 MB of 1,280 features.
_GROUP = 8192


def write_embedding(path: Path, cases: Sequence[str], known: np.ndarray, parts: Iterator[np.ndarray]) -> None:
    """Write the table a group of rows at a time, so that no more than one is held.

    Parameters
    ----------
    path
        Parquet: ``case_id``, ``trained_on`` (bool), ``f0``, ``f1``, … (float32), in groups of 8,192 rows.
    cases
        Their ids.
    known
        bool [cases]: whether the network was trained on each.
    parts
        float32 [n, features] of consecutive cases.
    """
    done, held = 0, list[np.ndarray]()
    with written_whole(path) as beside:
        writer = None
        for part in parts:
            held.append(part)
            ready = sum(map(len, held))
            while ready >= _GROUP or (ready and done + ready == len(cases)):
                rows = np.concatenate(held)
                group, held = rows[:_GROUP], [rows[_GROUP:]]
                table = _table(cases, known, group, done)
                if writer is None:
                    writer = parquet.ParquetWriter(beside, table.schema)
                writer.write_table(table)
                done, ready = done + len(group), ready - len(group)
        if writer is None:
            # Nobody to tell of: a table all the same, without features, whose number only a case would tell.
            parquet.write_table(_table([], known, np.empty((0, 0), np.float32), 0), beside)
        else:
            writer.close()


def _table(cases: Sequence[str], known: np.ndarray, features: np.ndarray, start: int) -> pa.Table:
    end = start + len(features)
    columns = {"case_id": pa.array(cases[start:end], pa.string()), TRAINED_ON: pa.array(known[start:end])}
    columns |= {f"f{i}": pa.array(np.ascontiguousarray(column)) for i, column in enumerate(features.T)}
    return pa.table(columns)
