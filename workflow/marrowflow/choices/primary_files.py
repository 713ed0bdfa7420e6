"""Which of the files of all index tests are those of the one that is reported first.

Which one that is, is known only when a step runs: its rule gives the tables and locks of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marrowflow.choices.threshold import read_lock
from marrowflow.errors import UserError
from marrowflow.prediction_files import read_rows


def primary_files(name: str, tables: Sequence[Path], locks: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    """Return the prediction table and the content of the lock of an index test.

    Parameters
    ----------
    name
        The index test, as ``primary.json`` says.
    tables
        Final prediction tables of one set of patients, one an index test.
    locks
        ``threshold.json`` files, one an index test.

    Raises
    ------
    UserError
        No table or lock of it, or several.
    """
    holding = [path for path in tables if name in set(read_rows(path, ["index_test"])["index_test"])]
    read = [read_lock(path) for path in locks]
    locked = [lock for lock in read if lock.get("index_test") == name]
    if len(locked) != 1:
        others = ", ".join(str(lock.get("index_test")) for lock in read) or "none"
        raise UserError(
            f"{len(locked) or 'no'} lock of {name}, the primary index test, among the files given; these are of: {others}. "
            "Give one of each index test"
        )
    if len(holding) != 1:
        raise UserError(
            f"{len(holding) or 'no'} table of {name}, the primary index test, among the files given: give one of each index "
            "test, for one set of patients"
        )
    return holding[0], locked[0]
