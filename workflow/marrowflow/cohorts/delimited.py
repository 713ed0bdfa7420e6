"""CSV and TSV files read cell by cell, with the line that each row stands in, and all their faults at once."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from marrowflow.errors import UserError, enumerate_problems


@dataclass(frozen=True)
class Delimited:
    """The cells of a table, as text, all rows as long as the header.

    Attributes
    ----------
    header
        Column names, stripped of blanks; none empty, no two that differ only in case.
    rows
        Cells as they came; rows without any text are left out.
    lines
        For each row the number of its (last) line in the file; the first line of a file is 1.
    """

    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """Return one column's cells."""
        index = self.header.index(name)
        return [row[index] for row in self.rows]


def read_delimited(path: Path, comment: str | None = None) -> Delimited:
    """Read a UTF-8 file whose cells are separated by tabs, if its header holds one, or else by commas.

    Parameters
    ----------
    path
        The file; a byte order mark is tolerated.
    comment
        Lines that start with this text are passed over; None reads every line.

    Raises
    ------
    UserError
        No such file, another encoding, broken quotes, no rows, nameless or colliding columns,
        rows longer or shorter than the header.
    """
    text = _read_text(path)
    records = _records(path, text, comment)
    if not records:
        raise UserError(f"{path} is empty: its first line must name the columns")
    (_, header), *body = records
    header = [name.strip() for name in header]
    problems = _header_problems(header)
    for line, cells in body:
        if len(cells) != len(header):
            problems.append(
                f"row {line}: {len(cells)} cells under {len(header)} columns; "
                'a cell that holds the separator must stand in "double quotes"'
            )
    if not body:
        problems.append("no row follows the header; add one line an entry")
    if problems:
        raise UserError(enumerate_problems(f"{path} cannot be used:", problems))
    return Delimited(header, [cells for _, cells in body], [line for line, _ in body])


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file; correct the path or put the table there")
    data = path.read_bytes()
    remedy = "save the file as UTF-8 (in a spreadsheet: CSV UTF-8)"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path} is encoded as UTF-16; {remedy}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, row {line}: byte {data[error.start]:#04x} is not UTF-8, "
            f"the file is probably encoded as Windows-1252 (Latin-1); {remedy}"
        ) from error


def _records(path: Path, text: str, comment: str | None) -> list[tuple[int, list[str]]]:
    """Return (line number, cells) of every record that holds any text; the first one is the header."""
    # Comments are blanked, not cut, so that line numbers stay true.
    lines = io.StringIO(text, newline="")
    kept = ["\n" if comment and line.startswith(comment) else line for line in lines]
    first = next((line for line in kept if line.strip()), "")
    reader = csv.reader(kept, delimiter="\t" if "\t" in first else ",", strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise UserError(
            f"{path}, row {reader.line_num}: {error}; quotes must enclose a whole cell, "
            "and a quote inside a cell must be doubled"
        ) from error


def _header_problems(header: list[str]) -> list[str]:
    problems = [
        f"row 1: column {i} has no name; name it or delete it" for i, n in enumerate(header, 1) if not n
    ]
    for folded, count in Counter(name.casefold() for name in header if name).items():
        if count > 1:
            same = [name for name in header if name.casefold() == folded]
            problems.append(f"row 1: columns {same} differ only in case or not at all; rename or delete one")
    return problems
