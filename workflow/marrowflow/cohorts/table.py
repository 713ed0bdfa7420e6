"""The cohort table: one line a hospital, checked whole before anything runs.

The workflow reads it while it is being parsed, so this module must stay light: no pandas.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from marrowflow.cohorts.delimited import Delimited, read_delimited
from marrowflow.config import RESERVED_COHORTS
from marrowflow.errors import UserError, enumerate_problems

COLUMNS = ("cohort", "role", "manifest", "hospital", "source")
FILLED = ("cohort", "role", "manifest", "hospital")
ROLES = ("development", "external")


@dataclass(frozen=True)
class Cohort:
    """A hospital's images and what they are for.

    Attributes
    ----------
    name
        Identifier of letters, digits and underscores; names folders and wildcards.
    role
        ``development`` (splits, training, choices) or ``external`` (locked validation only).
    manifest
        Path of the manifest as written, relative to the working directory.
    hospital
        Name printed in reports.
    source
        Where the images come from, printed in reports; may be blank.
    """

    name: str
    role: str
    manifest: Path
    hospital: str
    source: str


def read_cohorts(path: Path) -> list[Cohort]:
    """Read the cohort table (TSV or CSV; lines that start with ``#`` are comments) in its order.

    Raises
    ------
    UserError
        With every problem found, its row, its column and what to do: missing or unknown columns, blank
        cells, malformed, reserved or repeated cohort names, unknown roles, no development cohort.
    """
    path = Path(path)
    table = read_delimited(path, comment="#")
    problems = _column_problems(table.header) or _row_problems(table)
    if problems:
        raise UserError(enumerate_problems(f"{path} cannot be used:", problems))
    cells = {name: [cell.strip() for cell in table.column(name)] for name in COLUMNS}
    return [
        Cohort(name, role, Path(manifest), hospital, source)
        for name, role, manifest, hospital, source in zip(*(cells[c] for c in COLUMNS), strict=True)
    ]


def _column_problems(header: list[str]) -> list[str]:
    problems = []
    missing = [name for name in COLUMNS if name not in header]
    for name in header:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name.casefold(), missing, n=1, cutoff=0.5)
            remedy = f"rename it to {near[0]!r}" if near else "delete it"
            problems.append(f"row 1, column {name!r}: not known here; {remedy}. Known: {', '.join(COLUMNS)}")
    problems += [
        f"row 1: column {name!r} is missing; found: {', '.join(header)} (cells are separated by tabs)"
        for name in missing
    ]
    return problems


def _row_problems(table: Delimited) -> list[str]:
    problems = []
    first_line: dict[str, int] = {}
    roles = set()
    for line, cells in zip(table.lines, table.rows, strict=True):
        row = {name: cell.strip() for name, cell in zip(table.header, cells, strict=True)}
        problems += [
            f"row {line}, column {name!r}: the cell is blank; fill it in" for name in FILLED if not row[name]
        ]
        if row["cohort"]:
            problems += _name_problems(row["cohort"], line, first_line)
        if row["role"]:
            problems += _role_problems(row["role"], line)
        roles.add(row["role"])
    if "development" not in roles:
        problems.append(
            "column 'role': no cohort is for development; training needs at least one line "
            "with role development"
        )
    return problems


def _name_problems(name: str, line: int, first_line: dict[str, int]) -> list[str]:
    place = f"row {line}, column 'cohort'"
    # Names become folders, and some file systems take 'Berlin' and 'berlin' for one.
    before = first_line.setdefault(name.casefold(), line)
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        return [f"{place}: {name!r} may hold only letters A-Z, digits and underscores; rename it"]
    if name.casefold() in RESERVED_COHORTS:
        return [f"{place}: {name!r} is reserved for a part of the results; choose another name"]
    if before != line:
        return [f"{place}: {name!r} stands in row {before} already; names must differ"]
    return []


def _role_problems(role: str, line: int) -> list[str]:
    if role in ROLES:
        return []
    near = difflib.get_close_matches(role.casefold(), ROLES, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return [f"row {line}, column 'role': {role!r} is neither development nor external{hint}"]
