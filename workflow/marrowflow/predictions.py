"""The prediction table: the one thing that stands between what sees pixels and what does statistics.

One row a case and index test. Columns (see `COLUMNS`):

========== ======= =====================================================================
case_id    string  unique within an index test; ``<cohort>/<path of the image>`` for images
patient_id string  the cluster of the statistics, within its cohort; ``<cohort>/<id in the manifest>``
cohort     string  hospital; equal patient_ids of two cohorts are two people
truth      string  a class, or ``missing`` / ``inconclusive`` (no usable reference standard)
predicted  string  the index test's class (left empty: that of the largest probability); empty if not ok
p_<class>  float64 one column a class, in the order of the study's classes; sum 1 unless one-vs-rest
index_test string  ``<model>-<colour>``, or a reader's or product's name
fold       int64   fold that tested this case; -1 for an ensemble of all folds' networks
partition  string  validation, test (development) or external
status     string  ok, indeterminate (done without a usable result), not_done
reason     string  why the status is not ok; else empty
========== ======= =====================================================================

Only ``truth`` and either ``predicted`` or probabilities are needed; `read_predictions` fills the rest.
Blanks around a truth or a prediction are taken off, and whole numbers written 1.0, as a program does that met an empty
field, are read as 1. Of two classes one probability column is enough: the other's is 1 - p.
Further columns are kept. One of them has a meaning: ``patient_source`` is ``manifest`` where ``patient_id``
names a patient (also where it is left empty), ``surrogate`` where it names a group of near-duplicate images.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marrowflow.config import RESERVED_CLASSES
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.prediction_files import read_rows

PROBABILITY = "p_"
STATUSES = ("ok", "indeterminate", "not_done")
MISSING, INCONCLUSIVE = "missing", "inconclusive"
NO_REFERENCE = (MISSING, INCONCLUSIVE)
PATIENT_SOURCE = "patient_source"
MANIFEST, SURROGATE = "manifest", "surrogate"
COLUMNS = (
    "case_id",
    "patient_id",
    "cohort",
    "truth",
    "predicted",
    "index_test",
    "fold",
    "partition",
    "status",
    "reason",
)
ENSEMBLE = -1
"""Value of ``fold`` for predictions by the mean of all folds' networks."""

# Probabilities are stored as float64 but made in float32; their sum may be this far from 1.
SUM_TOLERANCE = 1e-3

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
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


@dataclass(frozen=True)
class Predictions:
    """A checked prediction table.

    Attributes
    ----------
    table
        All of `COLUMNS` filled, then ``p_<class>`` (float64) for each of `classes` that has one.
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
    named = [c for c in table.columns if c.startswith(PROBABILITY)]
    _check_columns(list(table.columns), source)
    has_patients = "patient_id" in table
    given = table[named].copy()
    table = _filled(table, named, source)
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
        columns = _with_values(table, named)
        table = table.drop(columns=[c for c in named if c not in columns])
    declared = list(classes) or [c[len(PROBABILITY) :] for c in columns or named]
    seen = sorted({*table["truth"], *table["predicted"]} - {"", *NO_REFERENCE})
    known = declared or seen
    if not known:
        raise UserError(f"{source}: no row has a truth or a prediction, so nothing can be counted")
    in_file = [c for c in columns if c in given]
    problems = _unusable_names(table, in_file, known) + _unknown_classes(table, columns, known)
    if not classes:
        notes += _notes_on_classes(table, columns, known)
    table["predicted"] = _predicted(table, [PROBABILITY + c for c in known if PROBABILITY + c in columns])
    unreadable = _unreadable(table, given[in_file])
    problems += _unreadable_problems(unreadable, given)
    problems += _bad_rows(table, columns, in_file, unreadable.any(axis=1))
    if problems:
        raise UserError(enumerate_problems(f"{source} cannot be used:", problems))
    off = _sums_off(table, columns)
    if len(off):
        notes.append(
            f"probabilities do not sum to 1 (row {off.index[0] + 1}: {off.iloc[0]:.4g}): taken as one-vs-rest"
        )
    ordered = [PROBABILITY + c for c in known] if columns else []
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


def same_writing(name: str) -> str:
    """Return what a name has in common with others that a reader would take for the same: 'AML ' and 'aml', 1 and 1.0."""
    plain = " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
    return str(float(plain)) if _NUMBER.fullmatch(plain) else plain


def same_number(name: str, other: str) -> bool:
    """Say whether two names are one number, such as 1 and 1.0."""
    plain = name.strip()
    return bool(_NUMBER.fullmatch(plain)) and same_writing(plain) == same_writing(other)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that was probably meant, or nothing."""
    by_writing = {same_writing(k): k for k in known}
    near = difflib.get_close_matches(same_writing(name), by_writing, n=1)
    return f"; did you mean {by_writing[near[0]]!r}?" if near else ""


def _text(column: pd.Series, empty: str) -> pd.Series:
    return column.astype("object").where(column.notna(), empty).astype(str).replace("", empty)


def _check_columns(found: list[str], source: str) -> None:
    """Refuse a table that lacks what is needed, or has it in another spelling, which would be passed over."""
    lacking = {_folded(name): name for name in (*COLUMNS, PATIENT_SOURCE) if name not in found}
    misspelt = {name: lacking[_folded(name)] for name in found if _folded(name) in lacking}
    problems = [
        f"column {name!r}: rename it to {meant!r} if it is that, or else to something less alike"
        for name, meant in misspelt.items()
    ]
    probable = [name for name in found if name.strip().startswith(PROBABILITY)]
    for name in probable:
        label = name.strip().removeprefix(PROBABILITY).strip()
        if not label:
            problems.append(f"column {name!r} names no class: call it {PROBABILITY}<class>, or delete it")
        elif name != PROBABILITY + label:
            problems.append(f"column {name!r}: rename it to {PROBABILITY + label!r}, without blanks")
    known = {*found, *misspelt.values()}
    if "truth" not in known:
        problems.append(f"no column 'truth'; found: {', '.join(found)}")
    if "predicted" not in known and not probable:
        capitals = [name for name in found if name.startswith(PROBABILITY.upper())]
        hint = f" (rename {capitals[0]!r} to {PROBABILITY + capitals[0][2:]!r})" if capitals else ""
        problems.append(
            f"neither a column 'predicted' nor probability columns 'p_<class>'{hint}; found: {', '.join(found)}"
        )
    if problems:
        raise UserError(enumerate_problems(f"{source} cannot be used:", problems))


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


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


def _unusable_names(table: pd.DataFrame, columns: list[str], known: list[str]) -> list[str]:
    """Tell of class names that tables use otherwise, and of those that a reader would take for one."""
    reserved = {
        **dict.fromkeys(RESERVED_CLASSES, "an average over classes: rename the class"),
        **dict.fromkeys(
            STATUSES[1:],
            "a case without an answer: put it in the column 'status' and leave 'predicted' empty, or rename the class",
        ),
        **{name: f"a truth that is not known: write {name!r}, or rename the class" for name in NO_REFERENCE},
    }
    problems = [
        f"{_where(table, columns, name)}: a class cannot be called {name!r}, which stands for {reserved[name.casefold()]}"
        for name in known
        if name.casefold() in reserved
    ]
    alike: dict[str, str] = {}
    for name in known:
        first = alike.setdefault(same_writing(name), name)
        if first != name:
            problems.append(
                f"classes {first!r} ({_where(table, columns, first)}) and {name!r} ({_where(table, columns, name)}) differ "
                "in writing only: write them alike, or rename one"
            )
    if len(set(known)) < len(known):
        problems.append(f"a class is named twice among {known}: name each once")
    return problems


def _where(table: pd.DataFrame, columns: list[str], name: str) -> str:
    """Say where a class name stands."""
    if PROBABILITY + name in columns:
        return f"column {PROBABILITY + name!r}"
    for column in ("truth", "predicted"):
        rows = table[column].eq(name)
        if rows.any():
            return f"column {column!r}, row {_first(rows)}"
    return "the option classes"


def _unknown_classes(table: pd.DataFrame, columns: list[str], known: list[str]) -> list[str]:
    problems = []
    for name in columns:
        if name[len(PROBABILITY) :] not in known:
            problems.append(
                f"column {name!r} is no class of {known}{nearest(name[len(PROBABILITY) :], known)}"
            )
    if columns:
        problems += [
            f"class {c!r} has no column 'p_{c}', or an empty one"
            for c in known
            if PROBABILITY + c not in columns
        ]
    for column, allowed in (("truth", {*known, *NO_REFERENCE}), ("predicted", {*known, ""})):
        for value in sorted(set(table[column]) - allowed):
            row = _first(table[column].eq(value))
            remedy = nearest(value, known)
            if column == "predicted" and value in NO_REFERENCE:
                remedy = "; where there is no answer leave it empty, with a status of 'indeterminate' or 'not_done'"
            problems.append(f"{column} {value!r} (first in row {row}) is no class of {known}{remedy}")
    if problems and len(columns) == 1:
        problems.append(
            f"{columns[0]!r} is the only probability column, and it is enough of two classes only: give one for each class, "
            "or rename it if it is no probability"
        )
    elif len(columns) == len(known) == 1:
        problems.append(
            f"{columns[0]!r} is the only probability column and no other class occurs, so that nothing is told apart: "
            "declare both classes (option classes), or add the other's column"
        )
    return problems


def _notes_on_classes(table: pd.DataFrame, columns: list[str], known: list[str]) -> list[str]:
    """Tell of classes that a slip of the pen may have made: nobody declared them, and they lack truths or predictions."""
    notes = []
    truths, predicted = table["truth"].value_counts(), table["predicted"].value_counts()
    for name in known:
        if columns and name not in truths.index and name not in predicted.index:
            notes.append(
                f"class {name!r} (column {PROBABILITY + name!r}) never occurs as truth or prediction by label: rename the "
                "column if it is no probability of a class"
            )
        elif not columns and name not in predicted.index:
            notes.append(f"class {name!r} occurs only as truth ({truths[name]} rows), never as prediction")
        elif not columns and name not in truths.index:
            notes.append(f"class {name!r} occurs only as prediction ({predicted[name]} rows), never as truth")
    return notes


def _rows_of(table: pd.DataFrame, index_test: str, source: str) -> pd.DataFrame:
    """Return the rows of one index test; they keep their numbers in the file as index."""
    kept = table[table["index_test"].eq(index_test)]
    if kept.empty:
        found = ", ".join(sorted(table["index_test"].unique()))
        raise UserError(f"{source} holds no index test {index_test!r}; it holds: {found}")
    return kept.copy()


def _with_values(table: pd.DataFrame, columns: list[str]) -> list[str]:
    """Return the probability columns that say something; all of them where no row has an answer."""
    done = table["status"].eq("ok")
    return [c for c in columns if not done.any() or table.loc[done, c].notna().any()]


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
            f"{source}, row {_first(wrong)}: fold '{given[wrong].iloc[0]}' is no whole number ({wrong.sum()} rows); "
            f"number the folds, or leave it empty or {ENSEMBLE} for an ensemble"
        )
    return folds.astype(np.int64)


def _unreadable(table: pd.DataFrame, given: pd.DataFrame) -> pd.DataFrame:
    """Mark what was given as a probability of an answer and is no number; bool [rows, columns of the file]."""
    text = given.loc[table.index]
    lost = (text.notna() & text.ne("")).to_numpy(bool) & table[text.columns].isna().to_numpy(bool)
    lost &= table["status"].eq("ok").to_numpy()[:, None]
    return pd.DataFrame(lost, index=text.index, columns=text.columns)


def _unreadable_problems(unreadable: pd.DataFrame, given: pd.DataFrame) -> list[str]:
    problems = []
    for name in unreadable.columns[unreadable.any()]:
        row = unreadable[name].idxmax()
        value = str(given.loc[row, name])
        remedy = "write a number between 0 and 1"
        if "%" in value:
            remedy = "write 0.9 for 90%"
        elif "," in value:
            remedy = "write a decimal point, not a comma"
        problems.append(
            f"row {row + 1}: {name} {value!r} is no number ({unreadable[name].sum()} rows); {remedy}"
        )
    return problems


def _sums_off(table: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Return the sums of probabilities that are not 1, of the rows with an answer."""
    sums = table.loc[table["status"].eq("ok"), columns].sum(axis=1).astype(np.float64)
    return sums[(sums - 1).abs() > SUM_TOLERANCE] if columns else sums.iloc[:0]


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


def _bad_rows(
    table: pd.DataFrame, columns: list[str], in_file: list[str], unreadable: pd.Series
) -> list[str]:
    problems = []
    unknown = ~table["status"].isin(STATUSES)
    if unknown.any():
        status = table["status"][unknown].iloc[0]
        problems.append(
            f"status {status!r} in row {_first(unknown)}: one of {STATUSES}{nearest(status, STATUSES)}"
        )
    done = table["status"].eq("ok")
    if columns:
        p = table[columns]
        labels_only = _labels_only(table, columns)
        lost = done & p.isna().any(axis=1) & ~unreadable
        outside = done & ((p < 0) | (p > 1)).any(axis=1)
        if labels_only:
            problems.append(
                f"index tests with labels only stand beside others with probabilities: {', '.join(labels_only)}; "
                "choose one index test (--index-test NAME)"
            )
        elif lost.any():
            problems.append(
                f"row {_first(lost)}: a probability is missing though status is ok ({lost.sum()} rows)"
            )
        if outside.any():
            problems.append(_outside_problem(table.loc[done, in_file], outside))
    empty = done & table["predicted"].eq("") & ~unreadable
    if empty.any():
        problems.append(
            f"row {_first(empty)}: 'predicted' is empty though status is ok ({int(empty.sum())} rows)"
        )
    if PATIENT_SOURCE in table:
        other = ~table[PATIENT_SOURCE].isin([MANIFEST, SURROGATE])
        if other.any():
            problems.append(
                f"row {_first(other)}: {PATIENT_SOURCE} {table[PATIENT_SOURCE][other].iloc[0]!r} "
                f"is neither {MANIFEST} nor {SURROGATE}"
            )
    no_patient = table["patient_id"].eq("")
    if no_patient.any():
        problems.append(
            f"row {_first(no_patient)}: 'patient_id' is empty ({int(no_patient.sum())} rows); name the patient, or leave the "
            "column out to count each row as its own"
        )
    twice = table.duplicated(["case_id", "index_test"])
    if twice.any():
        case = table["case_id"][twice].iloc[0]
        problems.append(f"row {_first(twice)}: case {case!r} stands twice for one index test")
    return problems


def _outside_problem(p: pd.DataFrame, outside: pd.Series) -> str:
    """Tell of values outside 0..1, and what to do with what they seem to be; ``p`` holds the answered rows."""
    row = p.loc[outside.idxmax()]
    name = (row - 0.5).abs().idxmax()
    found = f"row {_first(outside)}: a probability is outside 0..1 ({name} is {row[name]:g}; {outside.sum()} rows)"
    values = p.to_numpy(np.float64)
    if np.isinf(values).any():
        return f"{found}; write numbers, not inf"
    rescale = (
        "rescale scores to 0..1, e.g. by (x - min)/(max - min), and give 'predicted': AUC and rank metrics do not change; "
        "calibration and Brier then mean nothing"
    )
    if np.nanmin(values) < 0 or np.nanmax(values) > 100:
        return f"{found}; {rescale}"
    if p.shape[1] == 1:
        return f"{found}; divide percentages by 100; {rescale}"
    shares = np.abs(values.sum(axis=1) / 100 - 1) <= SUM_TOLERANCE
    return f"{found}; {'these are percentages: divide by 100' if shares.all() else rescale}"


def _labels_only(table: pd.DataFrame, columns: list[str]) -> list[str]:
    """Name the index tests whose answers have no probability at all, where there are several index tests."""
    if table["index_test"].nunique() < 2:
        return []
    done = table[table["status"].eq("ok")]
    some = done[columns].notna().any(axis=1).groupby(done["index_test"]).any()
    return sorted(some.index[~some])


def _first(mask: pd.Series) -> int:
    """Return the number of the first row, from 1, that is true; the index holds the places in the file."""
    return int(mask.idxmax()) + 1
