"""Two index tests on the same units: which unit of the one is which of the other.

A case is known by its cohort and ``case_id``, a patient by its cohort and ``patient_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from marrowflow.config import Unit
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.predictions import NO_REFERENCE, Predictions
from marrowflow.statistics.cases import Units, gather_units


@dataclass(frozen=True)
class Pair:
    """The units that two index tests both hold, row by row the same, with or without truths and answers.

    Attributes
    ----------
    first, second
        The units as each index test has them, with the same patients.
    unmatched
        Units that only the first, and only the second has.
    """

    first: Units
    second: Units
    unmatched: tuple[int, int]

    @property
    def answered(self) -> np.ndarray:
        """Bool [rows]: both index tests have an answer."""
        return (self.first.table["status"].eq("ok") & self.second.table["status"].eq("ok")).to_numpy()

    @property
    def countable(self) -> np.ndarray:
        """Bool [rows]: both have a truth and an answer."""
        return self.first.countable & self.second.countable


def match(first: Predictions, second: Predictions, unit: Unit) -> Pair:
    """Match the units of two tables of one index test each, of the same classes.

    A case whose patient only one of the tables names is that patient's. Units are in the order of ``first``.

    Raises
    ------
    UserError
        No unit in common; a unit with two truths; a case of two patients; patients asked for, and only one
        table names them.
    """
    names = [_name(p) for p in (first, second)]
    if unit == "patient" and first.has_patients != second.has_patients:
        without = names[0] if second.has_patients else names[1]
        raise UserError(
            f"{without} has no column patient_id, so its patients cannot be matched: add the column, or use --unit case"
        )
    units = [gather_units(p.table, p.classes, unit) for p in (first, second)]
    keys = [_keys(p, u) for p, u in zip((first, second), units, strict=True)]
    places = keys[0].merge(keys[1], on=["cohort", "id"], suffixes=("_first", "_second"))
    if places.empty:
        of_each = [f"{name}: {_example(k)}" for name, k in zip(names, keys, strict=True)]
        raise UserError(
            f"{names[0]} and {names[1]} have no {unit} in common ({'; '.join(of_each)}): give both tables the same "
            f"'cohort' and '{unit}_id'"
        )
    both = [take(u, places[f"place_{s}"]) for u, s in zip(units, ("first", "second"), strict=True)]
    _check_truths(both[0].table, both[1].table, places, unit, names)
    if first.has_patients and second.has_patients:
        _check_patients(both[0].table, both[1].table, places, names)
    elif second.has_patients:
        both[0] = _of_patients(both[0], both[1])
    both[1] = _of_patients(both[1], both[0])
    return Pair(both[0], both[1], (len(keys[0]) - len(places), len(keys[1]) - len(places)))


def take(units: Units, rows: Sequence[int] | np.ndarray | pd.Series) -> Units:
    """Return some rows of the units, by place or by a bool for each."""
    chosen = np.asarray(rows)
    places = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
    return replace(
        units,
        table=units.table.iloc[places].reset_index(drop=True),
        probabilities=None if units.probabilities is None else units.probabilities[places],
        endpoints={name: own[places] for name, own in units.endpoints.items()},
    )


def _name(predictions: Predictions) -> str:
    return str(predictions.table["index_test"].iloc[0])


def _keys(predictions: Predictions, units: Units) -> pd.DataFrame:
    """Return each unit's ``cohort`` and ``id``, and its ``place``."""
    by = predictions.table["case_id"] if units.unit == "case" else units.table["patient_id"]
    return pd.DataFrame(
        {
            "cohort": units.table["cohort"].to_numpy(),
            "id": by.to_numpy(),
            "place": np.arange(len(units.table)),
        }
    )


def _example(keys: pd.DataFrame) -> str:
    return f"{len(keys)}, the first {keys['id'].iloc[0]!r} of cohort {keys['cohort'].iloc[0]!r}"


def _of_patients(units: Units, owner: Units) -> Units:
    same = owner.table[["cohort", "patient_id"]]
    return replace(units, table=units.table.assign(cohort=same["cohort"], patient_id=same["patient_id"]))


def _check_truths(
    first: pd.DataFrame, second: pd.DataFrame, places: pd.DataFrame, unit: Unit, names: Sequence[str]
) -> None:
    known = ~first["truth"].isin(NO_REFERENCE) & ~second["truth"].isin(NO_REFERENCE)
    _refuse(
        known & first["truth"].ne(second["truth"]),
        [first["truth"], second["truth"]],
        places,
        names,
        f"{unit}s have two truths: both index tests must be held against one reference standard",
    )


def _check_patients(
    first: pd.DataFrame, second: pd.DataFrame, places: pd.DataFrame, names: Sequence[str]
) -> None:
    _refuse(
        first["patient_id"].ne(second["patient_id"]),
        [first["patient_id"], second["patient_id"]],
        places,
        names,
        "cases belong to two patients: give both tables the same patient_id",
    )


def _refuse(
    wrong: pd.Series, values: Sequence[pd.Series], places: pd.DataFrame, names: Sequence[str], what: str
) -> None:
    if not wrong.any():
        return
    problems = [
        f"{places['id'].iloc[i]!r}: {values[0].iloc[i]!r} in {names[0]}, {values[1].iloc[i]!r} in {names[1]}"
        for i in np.flatnonzero(wrong)
    ]
    raise UserError(enumerate_problems(f"{len(problems)} {what}:", problems))
