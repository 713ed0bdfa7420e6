"""The cohort table: one line a hospital, checked whole before anything runs.

The workflow reads it while it is being parsed, so this module must stay light: no pandas.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from marrowflow.cohorts.delimited import Delimited, read_delimited
from marrowflow.cohorts.places import beside, expand_shards, is_remote, url_fault
from marrowflow.config import RESERVED_COHORTS
from marrowflow.errors import UserError, enumerate_problems

COLUMNS = ("cohort", "role", "manifest", "hospital", "source")
OPTIONAL = ("shards",)
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
        Path of the manifest relative to the working directory, or its URL (s3, http, https).
    hospital
        Name printed in reports.
    source
        Where the images come from, printed in reports; may be blank.
    shards
        Names of the TAR archives beside the manifest that hold the images; none where they lie there as files.
    """

    name: str
    role: str
    manifest: str
    hospital: str
    source: str
    shards: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where a manifest on disk lies: what its images' paths start from. Empty for a remote one."""
        return "" if is_remote(self.manifest) else Path(self.manifest).parent.as_posix()

    @property
    def archives(self) -> dict[str, str]:
        """Path or URL of each archive, by its name without ``.tar``."""
        return {name.removesuffix(".tar"): beside(self.manifest, name) for name in self.shards}


def read_cohorts(path: Path) -> list[Cohort]:
    """Read the cohort table (TSV or CSV; lines that start with ``#`` are comments) in its order.

    Raises
    ------
    UserError
        With every problem found, its row, its column and what to do: missing or unknown columns, blank
        cells, malformed, reserved or repeated cohort names, unknown roles, no development cohort, URLs that cannot be
        used or would give a secret away, archives that are misspelt or missing for a remote manifest.
    """
    path = Path(path)
    table = read_delimited(path, comment="#")
    problems = _column_problems(table.header) or _row_problems(table)
    if problems:
        raise UserError(enumerate_problems(f"{path} cannot be used:", problems))
    rows = [
        {name: cell.strip() for name, cell in zip(table.header, cells, strict=True)} for cells in table.rows
    ]
    return [
        Cohort(
            row["cohort"],
            row["role"],
            row["manifest"] if is_remote(row["manifest"]) else Path(row["manifest"]).as_posix(),
            row["hospital"],
            row["source"],
            expand_shards(row.get("shards", "")),
        )
        for row in rows
    ]


def _column_problems(header: list[str]) -> list[str]:
    problems = []
    missing = [name for name in COLUMNS if name not in header]
    for name in header:
        if name not in (*COLUMNS, *OPTIONAL):
            open_names = [*missing, *(o for o in OPTIONAL if o not in header)]
            near = difflib.get_close_matches(name.casefold(), open_names, n=1, cutoff=0.5)
            remedy = f"rename it to {near[0]!r}" if near else "delete it"
            problems.append(
                f"row 1, column {name!r}: not known here; {remedy}. Known: {', '.join((*COLUMNS, *OPTIONAL))}"
            )
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
        problems += _place_problems(row["manifest"], row.get("shards", ""), line)
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


def _place_problems(manifest: str, shards: str, line: int) -> list[str]:
    problems = []
    fault = url_fault(manifest) if is_remote(manifest) else None
    if fault:
        problems.append(f"row {line}, column 'manifest': {fault}")
    elif is_remote(manifest) and not shards:
        problems.append(
            f"row {line}, column 'shards': a remote manifest's images are read from TAR archives beside it, and none is "
            "named. Pack them (python -m marrowflow cohorts.shards --manifest M --out DIR), upload what it writes, and "
            "put the line that it prints here"
        )
    try:
        expand_shards(shards)
    except ValueError as error:
        problems.append(f"row {line}, column 'shards': {error}")
    return problems


def _role_problems(role: str, line: int) -> list[str]:
    if role in ROLES:
        return []
    near = difflib.get_close_matches(role.casefold(), ROLES, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return [f"row {line}, column 'role': {role!r} is neither development nor external{hint}"]
