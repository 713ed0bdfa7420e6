"""The index tests that a comparison reads: which stand in which table, of which classes, with which locks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from marrowflow.choices.threshold import read_lock
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.prediction_files import read_rows
from marrowflow.predictions import Predictions, check_predictions

_UNNAMED = "index test"  # what a table without the column index_test is called


@dataclass(frozen=True)
class Subject:
    """One index test's rows of one table, and the cut-offs that were locked for it, if any."""

    predictions: Predictions
    lock: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The index test's name."""
        return str(self.predictions.table["index_test"].iloc[0])


def find_subjects(
    paths: Sequence[Path], index_test: str, against: Sequence[str] | None, unpaired: bool
) -> list[tuple[Path, str]]:
    """Return table and name of every index test to read, the compared one first.

    ``against`` names those that it is compared with; None stands for all others, in the order of the tables, and between
    different patients for the same one.
    """
    held = {path: _index_tests_in(path) for path in paths}
    if len(held) < len(paths):
        raise UserError("--predictions names a table twice: name each once")
    if unpaired:
        if len(paths) < 2:
            raise UserError(
                "--unpaired compares the patients of two tables, and --predictions names one: give one table for "
                "each set of patients, the compared one first"
            )
        wanted = [(path, name) for path in paths[1:] for name in against or [index_test]]
        found = [(paths[0], index_test), *wanted]
        lacking = [(path, name) for path, name in found if name not in held[path]]
        if lacking:
            path, name = lacking[0]
            raise UserError(f"{path} holds no index test {name!r}; it holds: {', '.join(held[path])}")
        return found
    if against is None:
        against = [n for n in dict.fromkeys(n for names in held.values() for n in names) if n != index_test]
        if not against:
            raise UserError(f"the tables hold no index test but {index_test!r}: nothing to compare it with")
    if not against:
        raise UserError(
            "--against is missing: name the index tests to compare with (or --unpaired for other patients)"
        )
    names = [index_test, *against]
    if len(set(names)) < len(names):
        raise UserError(
            f"an index test cannot be compared with itself, nor twice: {', '.join(names)}; with --unpaired it is "
            "compared between different patients"
        )
    return [(_only_table_of(name, held), name) for name in names]


def with_same_classes(tables: Sequence[Predictions], names: Sequence[tuple[Path, str]]) -> list[Predictions]:
    """Give all tables the classes of the first one that declares them, or else all that are seen in any."""
    declared = next((p.classes for p in tables if p.declared), None)
    if declared is None:
        seen = sorted({name for p in tables for name in p.classes})
        return [replace(p, classes=seen) for p in tables]
    return [
        p
        if p.declared and p.classes == declared
        else replace(
            check_predictions(p.table, declared, f"{path} ({name})"),
            has_patients=p.has_patients,
            notes=p.notes,
        )
        for p, (path, name) in zip(tables, names, strict=True)
    ]


def locks_of(paths: Sequence[Path], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the locks by their index test."""
    locks: dict[str, dict[str, Any]] = {}
    for path in paths:
        lock = read_lock(path)
        name = str(lock.get("index_test"))
        if name not in names:
            raise UserError(
                f"{path} was locked for index test {name!r}, and these are compared: {', '.join(dict.fromkeys(names))}; "
                "leave the lock out, or give that of an index test among them"
            )
        if name in locks:
            raise UserError(f"{path} is a second lock for index test {name!r}: give one")
        locks[name] = lock
    return locks


def check_apart(first: Subject, other: Subject) -> None:
    """Refuse patients who stand on both sides."""
    if not (first.predictions.has_patients and other.predictions.has_patients):
        return
    people = [s.predictions.table[["cohort", "patient_id"]].drop_duplicates() for s in (first, other)]
    both = people[0].merge(people[1])
    if len(both):
        raise UserError(
            enumerate_problems(
                f"{len(both)} patients stand in both tables, so the two are not independent (compare them without "
                "--unpaired; people of two hospitals with equal numbers need a column 'cohort'):",
                [f"patient {p!r} of cohort {c!r}" for c, p in both.itertuples(index=False)],
            )
        )


def _only_table_of(name: str, held: Mapping[Path, Sequence[str]]) -> Path:
    holding = [path for path, names in held.items() if name in names]
    if len(holding) == 1:
        return holding[0]
    if holding:
        raise UserError(
            f"index test {name!r} stands in {len(holding)} tables ({', '.join(map(str, holding))}): give the one that "
            "holds the patients to compare on"
        )
    raise UserError(
        enumerate_problems(
            f"no table holds index test {name!r}:",
            [f"{path} holds {', '.join(names)}" for path, names in held.items()],
        )
    )


def _index_tests_in(path: Path) -> list[str]:
    """Return the index tests' names; what is wrong with the rows, `read_predictions` will say."""
    table = read_rows(path, ["index_test"])
    return sorted(set(table["index_test"].fillna("").astype(str))) if "index_test" in table else [_UNNAMED]
