"""Files that are either whole or absent, and their checksums.

A killed job must not leave something that looks complete: everything is written beside its
final name, flushed to disk and renamed. Renaming within one folder is atomic on POSIX.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.errors import UserError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    The temporary name keeps the suffix, because image and table writers look at it.
    On any exception the temporary file is removed and ``path`` stays as it was. Raises `UserError` where the folder
    cannot be made or written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another folder") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(
            f"{path} cannot be written (no permission): choose another folder, or ask for the right"
        )
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        with beside.open("rb") as handle:
            os.fsync(handle.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as its suffix says (.parquet or .csv), without the index, whole or not at all."""
    with written_whole(path) as beside:
        if path.suffix == ".parquet":
            table.to_parquet(beside, index=False)
        elif path.suffix == ".csv":
            table.to_csv(beside, index=False)
        else:
            raise ValueError(f"no table format for {path.suffix!r}: {path}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
