"""The prediction table: the one thing that stands between what sees pixels and what does statistics.

One row a case and index test. Columns (see `COLUMNS`):

========== ======= =====================================================================
case_id    string  unique within an index test; ``<cohort>/<path of the image>`` for images, and
                   ``<that>#<transform><copy>`` for the samples made of one
patient_id string  the cluster of the statistics, within its cohort; ``<cohort>/<id in the manifest>``
cohort     string  hospital; equal patient_ids of two cohorts are two people
truth      string  a class, or ``missing`` / ``inconclusive`` (no usable reference standard)
predicted  string  the index test's class (left empty: that of the largest probability); empty if not ok
p_<class>  float64 one column a class, in the order of the study's classes; sum 1 unless one-vs-rest
index_test string  ``<model>-<colour>``, or a reader's or product's name
fold       int64   fold that tested this case; -1 for an ensemble of all folds' networks
partition  string  validation, test, unlabelled (development: without a usable reference) or external
status     string  ok, indeterminate (done without a usable result), not_done
reason     string  why the status is not ok; else empty
========== ======= =====================================================================

Only ``truth`` and either ``predicted`` or probabilities are needed; `read_predictions` fills the rest.
Blanks around a truth or a prediction are taken off, and whole numbers written 1.0, as a program does that met an empty
field, are read as 1. Of two classes one probability column is enough: the other's is 1 - p.
Further columns are kept. Three kinds of them have a meaning:

``patient_source``
    ``manifest`` where ``patient_id`` names a patient (also where it is left empty), ``surrogate`` where it names a group
    of near-duplicate images.
``parent``
    The image's own ``case_id``, where the cases are samples of images: where augmented images were divided. An image
    that is a case itself is its own parent.
``endpoint_<name>``
    The index test's own probability, float64, that the yes/no endpoint of that name is present: of a network that has a
    head for it. It is the endpoint's score, in the place of the sum over its positive classes. Like p_<class> it is a
    number from 0 to 1 wherever the status is ok; or an index test has none at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.prediction_columns import (
    COLUMNS,
    ENDPOINT,
    ENSEMBLE,
    INCONCLUSIVE,
    MANIFEST,
    MISSING,
    NO_REFERENCE,
    PATIENT_SOURCE,
    PROBABILITY,
    STATUSES,
    SUM_TOLERANCE,
    SURROGATE,
    nearest,
    same_number,
)
from marrowflow.prediction_files import read_rows
from marrowflow.prediction_problems import (
    check_columns,
    class_problems,
    first_row,
    notes_on_classes,
    value_problems,
)

__all__ = [
    "COLUMNS",
    "ENDPOINT",
    "ENSEMBLE",
    "INCONCLUSIVE",
    "MANIFEST",
    "MISSING",
    "NO_REFERENCE",
    "PATIENT_SOURCE",
    "PROBABILITY",
    "STATUSES",
    "SURROGATE",
    "Predictions",
    "check_predictions",
    "nearest",
    "read_predictions",
    "same_number",
    "sums_off",
    "write_predictions",
]

_TEXT = (
    "case_id",
    "patient_id",
    "cohort",
    "truth",
    "predicted",
    "index_test",
    "partition",
    "status",
    "reason",
    PATIENT_SOURCE,
)
_WHOLE = re.compile(r"([+-]?\d+)\.0+")


@dataclass(frozen=True)
class Predictions:
    """A checked prediction table.

    Attributes
    ----------
    table
        All of `COLUMNS` filled, then ``p_<class>`` (float64) for each of `classes` that has one, then
        ``endpoint_<name>`` (float64) for each of `endpoints`, then further columns.
    classes
        Class names: those asked for; else those of the probability columns, in their order; else the sorted
        names seen.
    declared
        False where `classes` are no more than the names seen, so that there may be others.
    has_probabilities
        False where only labels were given.
    has_patients
        False where each row was made its own patient for want of ``patient_id``.
    one_vs_rest
        True where probabilities are per class and do not sum to 1.
    notes
        What was taken for granted and may be a mistake, one sentence each.
    """

    table: pd.DataFrame
    classes: list[str]
    declared: bool
    has_probabilities: bool
    has_patients: bool
    one_vs_rest: bool
    notes: tuple[str, ...] = ()

    @property
    def probabilities(self) -> np.ndarray:
        """Array [cases, classes] of float64; raises KeyError where labels only were given."""
        return self.table[[PROBABILITY + c for c in self.classes]].to_numpy(np.float64)

    @property
    def endpoints(self) -> list[str]:
        """Names of the endpoints that the index test answers by a probability of their own."""
        return [c.removeprefix(ENDPOINT) for c in self.table if c.startswith(ENDPOINT)]


def read_predictions(path: Path, classes: Sequence[str] = (), index_test: str | None = None) -> Predictions:
    """Read a table (.parquet, .csv or .tsv) and check it; see `read_rows` and `check_predictions`."""
    return check_predictions(read_rows(path, _TEXT), classes, str(path), index_test)


def check_predictions(
    table: pd.DataFrame,
    classes: Sequence[str] = (),
    source: str = "prediction table",
    index_test: str | None = None,
) -> Predictions:
    """Fill what may be left out, and refuse what cannot be counted.

    Parameters
    ----------
    table
        Rows of predictions; needs ``truth`` and ``predicted`` or ``p_<class>`` columns.
    classes
        The study's classes in order; empty takes them from the table: the probability columns'
        order, or else the sorted names seen.
    source
        Named in errors.
    index_test
        Keep its rows only, before anything else is checked: of several index tests one may have labels
        alone. Its probability columns without any value are left out. None keeps all rows.
        An endpoint's column without any value is left out in either case.

    Raises
    ------
    UserError
        No rows; no truth; neither prediction nor probabilities; a column of the contract in another spelling; unknown
        class names, or none at all; names that are reserved or differ in writing only; a probability that is no number,
        outside 0..1, or missing where the status is ok; an unknown status or fold; a row without patient among others
        with; a case twice for one index test; no row of ``index_test``.
    """
    table = table.copy().reset_index(drop=True)
    table.columns = pd.Index([str(c) for c in table.columns])
    if table.empty:
        raise UserError(f"{source} has no rows: nothing to measure")
    check_columns(list(table.columns), source)
    named = [c for c in table.columns if c.startswith(PROBABILITY)]
    own = [c for c in table.columns if c.startswith(ENDPOINT)]
    has_patients = "patient_id" in table
    given = table[[*named, *own]].copy()
    table = _filled(table, [*named, *own], source)
    for name in ("truth", "predicted"):
        table[name] = _label_text(table[name], [*classes, *(c[len(PROBABILITY) :] for c in named)])
    notes: list[str] = []
    other = _other_class(table, named, classes)
    if other is not None:
        notes.append(f"the only probability column is {named[0]!r}: {other!r} has 1 - {named[0]}")
        table[PROBABILITY + other] = 1 - table[named[0]]
        named = [*named, PROBABILITY + other]
    columns = named
    if index_test is not None:
        table = _rows_of(table, index_test, source)
        columns = _with_values(table, table, named)
    kept = [*columns, *_with_values(table, given, own)]
    table = table.drop(columns=[c for c in [*named, *own] if c not in kept])
    own = [c for c in own if c in kept]
    declared = list(classes) or [c[len(PROBABILITY) :] for c in columns or named]
    seen = sorted({*table["truth"], *table["predicted"]} - {"", *NO_REFERENCE})
    known = declared or seen
    if not known:
        raise UserError(f"{source}: no row has a truth or a prediction, so nothing can be counted")
    in_file = [c for c in columns if c in given]
    problems = class_problems(table, columns, in_file, known)
    if not classes:
        notes += notes_on_classes(table, columns, known)
    table["predicted"] = _predicted(table, [PROBABILITY + c for c in known if PROBABILITY + c in columns])
    problems += value_problems(table, given, columns, in_file, own)
    if problems:
        raise UserError(enumerate_problems(f"{source} cannot be used:", problems))
    off = sums_off(table, columns)
    if len(off):
        notes.append(
            f"probabilities do not sum to 1 (row {off.index[0] + 1}: {off.iloc[0]:.4g}): taken as one-vs-rest"
        )
    ordered = [*(PROBABILITY + c for c in known if columns), *own]
    others = [c for c in table.columns if c not in {*COLUMNS, *ordered}]
    return Predictions(
        table=table[[*COLUMNS, *ordered, *others]].reset_index(drop=True),
        classes=known,
        declared=bool(declared),
        has_probabilities=bool(columns),
        has_patients=has_patients,
        one_vs_rest=bool(len(off)),
        notes=tuple(note if index_test is None else f"{index_test}: {note}" for note in notes),
    )


def write_predictions(path: Path, table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Check a table against the contract and write it whole, with its columns in the contract's order."""
    write_table(path, check_predictions(table, classes, str(path)).table)


def sums_off(table: pd.DataFrame, columns: Sequence[str], tolerance: float = SUM_TOLERANCE) -> pd.Series:
    """Return the sums of class probabilities that are not 1, of the rows with an answer; empty but for one-vs-rest."""
    sums = table.loc[table["status"].eq("ok"), list(columns)].sum(axis=1).astype(np.float64)
    return sums[(sums - 1).abs() > tolerance] if columns else sums.iloc[:0]


def _text(column: pd.Series, empty: str) -> pd.Series:
    return column.astype("object").where(column.notna(), empty).astype(str).replace("", empty)


def _label_text(labels: pd.Series, declared: Sequence[str]) -> pd.Series:
    """Return labels without blanks around them, and whole numbers that all are written 1.0 as 1.

    A column of integers with an empty field is written so by pandas, R and spreadsheets.
    """
    labels = labels.str.strip()
    names = pd.Series(labels.unique())
    names = names[~names.isin(["", *NO_REFERENCE])]
    if not names.str.fullmatch(_WHOLE).all() or any(_WHOLE.fullmatch(c) for c in declared):
        return labels
    return labels.replace({name: _WHOLE.sub(r"\1", name) for name in names})


def _other_class(table: pd.DataFrame, named: list[str], classes: Sequence[str]) -> str | None:
    """Return the class beside the one that has the only probability column, where there are two in all."""
    if len(named) != 1:
        return None
    found = set(classes) or {*table["truth"], *table["predicted"]} - {"", *NO_REFERENCE}
    own = named[0][len(PROBABILITY) :]
    return next(iter(found - {own})) if own in found and len(found) == 2 else None


def _rows_of(table: pd.DataFrame, index_test: str, source: str) -> pd.DataFrame:
    """Return the rows of one index test; they keep their numbers in the file as index."""
    kept = table[table["index_test"].eq(index_test)]
    if kept.empty:
        found = ", ".join(sorted(table["index_test"].unique()))
        raise UserError(f"{source} holds no index test {index_test!r}; it holds: {found}")
    return kept.copy()


def _with_values(table: pd.DataFrame, given: pd.DataFrame, columns: list[str]) -> list[str]:
    """Return the columns in which ``given`` says something of a row of the table; all where no row has an answer."""
    done = table.index[table["status"].eq("ok")]
    answers = given.loc[done, columns]
    return [c for c in columns if done.empty or (answers[c].notna() & answers[c].ne("")).any()]


def _filled(table: pd.DataFrame, columns: list[str], source: str) -> pd.DataFrame:
    """Return the table with all of `COLUMNS`; an answer that was not given stays empty."""
    rows = [str(i + 1) for i in range(len(table))]
    defaults = {
        "case_id": rows,
        "cohort": "",
        "index_test": "index test",
        "fold": ENSEMBLE,
        "partition": "",
        "status": "ok",
        "reason": "",
        "predicted": "",
    }
    for name, value in defaults.items():
        if name not in table:
            table[name] = value
    if "patient_id" not in table:
        table["patient_id"] = table["case_id"]
    for name in ("case_id", "patient_id", "cohort", "predicted", "index_test", "partition", "reason"):
        table[name] = _text(table[name], "")
    if PATIENT_SOURCE in table:
        table[PATIENT_SOURCE] = _text(table[PATIENT_SOURCE], MANIFEST)
    table["truth"] = _text(table["truth"], MISSING)
    table["status"] = _text(table["status"], "ok")
    table["fold"] = _folds(table["fold"], source)
    for name in columns:
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
    return table


def _folds(column: pd.Series, source: str) -> pd.Series:
    given = column.where(column.notna(), ENSEMBLE).replace("", ENSEMBLE)
    folds = pd.to_numeric(given, errors="coerce").astype(np.float64)
    wrong = ~(np.isfinite(folds) & folds.eq(np.floor(folds)))
    if wrong.any():
        raise UserError(
            f"{source}, row {first_row(wrong)}: fold '{given[wrong].iloc[0]}' is no whole number ({wrong.sum()} rows); "
            f"number the folds, or leave it empty or {ENSEMBLE} for an ensemble"
        )
    return folds.astype(np.int64)


def _predicted(table: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Return the predictions; the class with the largest probability where none was given."""
    given = table["predicted"]
    if not columns:
        return given
    p = table[columns].to_numpy(np.float64)
    known = ~np.isnan(p).any(axis=1)
    names = np.asarray([c[len(PROBABILITY) :] for c in columns], dtype=object)
    best = names[np.where(known[:, None], p, 0.0).argmax(axis=1)]
    return given.mask(given.eq("") & table["status"].eq("ok") & known, pd.Series(best, table.index))
