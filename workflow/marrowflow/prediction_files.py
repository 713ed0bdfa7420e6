"""Files that hold a prediction table, and everything that can be wrong with such a file before its rows are looked at.

Tables come from other programs, so a file is either read as it was meant or refused with its line: a field too many or too
few in one row would shift answers into another column, and no number after it would look odd.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from marrowflow.errors import UserError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_NAMES = {",": "commas", "\t": "tabs"}
_OTHER_SEPARATORS = {";": "';'", "\t": "a tab", ",": "a comma"}


def read_rows(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """Read a .parquet, .csv (commas) or .tsv (tabs) file; its suffix may be in capitals.

    Parameters
    ----------
    path
        The file; text is UTF-8, with or without a byte order mark.
    text
        Columns that are text, whatever they look like: an id 007 stays 007.

    Raises
    ------
    UserError
        No such file; another suffix; a damaged .parquet; text that is not UTF-8; no header, one with another separator, a
        column twice; a line with more or fewer fields than the header; a quotation mark left open.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no prediction table at {path}")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix not in _SEPARATORS:
        raise UserError(
            f"{path}: a prediction table is .parquet, .csv (commas) or .tsv (tabs), not {path.suffix!r}"
        )
    separator = _SEPARATORS[suffix]
    _check_fields(path, separator)
    try:
        # Only an empty field is missing: a class may be called NA or null.
        return pd.read_csv(
            path,
            sep=separator,
            index_col=False,
            dtype=dict.fromkeys(text, "str"),
            keep_default_na=False,
            na_values=[""],
        )
    except pd.errors.ParserError as error:
        raise UserError(f"{path} cannot be read: {error}; is a quotation mark left open?") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}): write it again, or name it as what it is"
        ) from error


def _check_fields(path: Path, separator: str) -> None:
    """Refuse a header that cannot be meant, and lines of another length: pandas would shift or fill their fields."""
    records = _records(path, separator)
    header = next(records, (0, []))[1]
    if not header:
        raise UserError(f"{path} is empty: its first line must name the columns")
    others = [name for other, name in _OTHER_SEPARATORS.items() if other != separator and other in header[0]]
    if len(header) == 1 and others:
        raise UserError(
            f"{path}: the header is one field, {header[0]!r}, that contains {others[0]}; the fields of a "
            f"{path.suffix} file are separated by {_NAMES[separator]}: save it as .csv with commas (and decimal points), "
            "or as .tsv with tabs"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise UserError(f"{path}: column {twice[0]!r} stands twice in the header: rename or delete one")
    for line, fields in records:
        if len(fields) != len(header):
            raise UserError(
                f"{path}, line {line}: number of fields is {len(fields)}, and the header names {len(header)} columns; name "
                "every column (row names too), and put a field that holds the separator in quotation marks"
            )


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the last line, fields) of every record that is not blank."""
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle, delimiter=separator)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
        except csv.Error as error:
            raise UserError(
                f"{path}, line {reader.line_num}: {error}; is a quotation mark left open?"
            ) from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {_line_not_utf8(path)}: byte {error.object[error.start]:#04x} is not UTF-8; save the file as "
                "UTF-8 (in a spreadsheet: CSV UTF-8)"
            ) from error


def _line_not_utf8(path: Path) -> int:
    """Return the number of the line; a decoding error knows its place in a buffer only."""
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    return 0
