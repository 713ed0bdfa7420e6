"""How one file of a finished study came to be: the chain of jobs up to the manifests, and whether it still holds.

    python -m marrowflow lineage --root results/demo --file accuracy/sound/lite0_frozen/raw/beta/metrics.csv

It reads ``lineage.csv`` only, so that a copy of the results is enough, and takes every checksum of the chain anew.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import pandas as pd

from marrowflow.errors import UserError
from marrowflow.files import sha256_of
from marrowflow.records.jobs import code_now

Row = Mapping[str, str]


@dataclass
class Chain:
    """The files that one file was made of, told line by line, and how many of them hold.

    Parameters
    ----------
    root
        The study's folder of results.
    rows
        Rows of its lineage.csv by file.
    project
        Folder that other paths (manifests, weights) are relative to.
    """

    root: Path
    rows: Mapping[str, Row]
    project: Path = field(default_factory=Path)
    states: Counter[str] = field(default_factory=Counter)
    """How many files are as recorded, changed, missing, or cannot be checked."""
    changed_code: set[str] = field(default_factory=set)
    """Rules whose code is another one now."""
    unknown_code: set[str] = field(default_factory=set)
    """Rules of which is not known what code they ran."""

    def lines(self, name: str) -> Iterator[str]:
        """Yield the chain of a file: itself, what made it, and, further in, what that was made from."""
        yield from self._lines(name, 0, set())

    def verdict(self) -> str:
        """Return one line on the whole chain, after its lines."""
        total = self.states.total()
        files = f"{self.states['as recorded']} of {total} files have their recorded checksum"
        others = "".join(
            f", {n} {state}" for state, n in sorted(self.states.items()) if state != "as recorded"
        )
        words = (("code changed since", self.changed_code), ("code unknown", self.unknown_code))
        code = "; ".join(f"{word}: {', '.join(sorted(rules))}" for word, rules in words if rules)
        return f"{files}{others}; {code or 'code as it was'}."

    def _lines(self, name: str, depth: int, told: set[str]) -> Iterator[str]:
        margin = "  " * depth
        if name in told:
            yield f"{margin}{unquote(name)}   (above)"
            return
        told.add(name)
        row = self.rows.get(name, {})
        yield f"{margin}{unquote(name)}   {self._state(name, row)}"
        if not row.get("rule"):
            yield f"{margin}  {row.get('note') or 'made by no job of this study'}"
            return
        yield f"{margin}  made by {row['rule']}{self._step(row)}, {row['ended'] or 'time unknown'}"
        if row["log"]:
            yield f"{margin}  options {row['options'] or 'none'}, log {row['log']}"
        made_of = row["inputs"] or self.rows.get(row["part_of"], {}).get("inputs", "")
        yield f"{margin}  made from {'nothing' if not made_of else ''}".rstrip()
        for source in made_of.split():
            yield from self._lines(source, depth + 2, told)

    def _state(self, name: str, row: Row) -> str:
        if not row.get("sha256") or row["digest_of"] in ("folder", "fetched copy"):
            state = "not checked"
        else:
            path = self._path(name)
            if path is None or not path.is_file():
                state = "missing"
            else:
                state = "as recorded" if sha256_of(path) == row["sha256"] else "CHANGED"
        self.states[state] += 1
        return f"{row['sha256'][:12]} {state}" if row.get("sha256") else state

    def _path(self, name: str) -> Path | None:
        """Return where a file lies: below the results, or else below the project."""
        places = (self.root / unquote(name), self.project / unquote(name))
        return next((place for place in places if place.exists()), None)

    def _step(self, row: Row) -> str:
        if not row["module"]:
            return ""
        now = code_now(row["module"])
        if not row["code"]:
            self.unknown_code.add(row["rule"])
            return f" ({row['module']}, code unknown)"
        if row["code"] == now:
            return f" ({row['module']}, code {now} as now)"
        self.changed_code.add(row["rule"])
        return f" ({row['module']}, code {row['code']}, NOW {now or 'no such module'})"


def read_lineage(root: Path) -> dict[str, Row]:
    """Read a study's lineage.csv, all cells as text; raise `UserError` where there is none."""
    path = root / "lineage.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing: the run's last job writes it; run `snakemake --cores 1` to its end"
        ) from error
    return {row["file"]: row for row in table.to_dict("records")}


def name_in(rows: Mapping[str, Row], root: Path, file: str) -> str:
    """Return a file's name in the lineage, given that, its path below the results, or its path from here."""
    path = Path(file)
    below = (
        path.resolve().relative_to(root.resolve()) if path.resolve().is_relative_to(root.resolve()) else path
    )
    for name in (file, quote(file, safe="/"), quote(below.as_posix(), safe="/")):
        if name in rows:
            return name
    near = [name for name in rows if Path(name).name == path.name]
    hint = (
        f"; files of that name: {', '.join(near[:5])}"
        if near
        else f"; {root / 'lineage.csv'} lists all files"
    )
    raise UserError(f"{file} is not in the lineage of {root}{hint}")


def main(argv: list[str]) -> None:
    """Print a file's chain, and whether it still holds."""
    parser = argparse.ArgumentParser(
        prog="python -m marrowflow lineage", description="Tell how a file of a finished study came to be."
    )
    parser.add_argument("--root", type=Path, required=True, help="the study's folder of results")
    parser.add_argument("--file", required=True, help="the file, by its path below that folder")
    args = parser.parse_args(argv)
    rows = read_lineage(args.root)
    chain = Chain(args.root, rows)
    for line in chain.lines(name_in(rows, args.root, args.file)):
        print(line)
    print(chain.verdict())
