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
Further columns are kept. One of them has a meaning: ``patient_source`` is ``manifest`` where ``patient_id``
names a patient (also where it is left empty), ``surrogate`` where it names a group of near-duplicate images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table

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
    """

    table: pd.DataFrame
    classes: list[str]
    declared: bool
    has_probabilities: bool
    has_patients: bool
    one_vs_rest: bool

    @property
    def probabilities(self) -> np.ndarray:
        """Array [cases, classes] of float64; raises KeyError where labels only were given."""
        return self.table[[PROBABILITY + c for c in self.classes]].to_numpy(np.float64)


def read_predictions(path: Path, classes: Sequence[str] = (), index_test: str | None = None) -> Predictions:
    """Read a table (.parquet or .csv) and check it; see `check_predictions`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no prediction table at {path}")
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
    elif path.suffix == ".csv":
        # Only an empty field is missing: a class may be called NA or null.
        text = [
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
        ]
        table = pd.read_csv(path, dtype=dict.fromkeys(text, "str"), keep_default_na=False, na_values=[""])
    else:
        raise UserError(f"{path}: a prediction table is .parquet or .csv, not {path.suffix!r}")
    return check_predictions(table, classes, str(path), index_test)


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
        No rows; no truth; neither prediction nor probabilities; unknown class names, or none at all; a
        probability outside 0..1, or one missing where the status is ok; an unknown status; a case twice for
        one index test; no row of ``index_test``.
    """
    table = table.copy().reset_index(drop=True)
    if table.empty:
        raise UserError(f"{source} has no rows: nothing to measure")
    named = [c for c in table.columns if c.startswith(PROBABILITY)]
    if "truth" not in table:
        raise UserError(f"{source} has no column 'truth'; found: {', '.join(map(str, table.columns))}")
    if "predicted" not in table and not named:
        raise UserError(f"{source} needs a column 'predicted' or probability columns 'p_<class>'")
    has_patients = "patient_id" in table
    table = _filled(table, named)
    columns = named
    if index_test is not None:
        table = _rows_of(table, index_test, source)
        columns = _with_values(table, named)
        table = table.drop(columns=[c for c in named if c not in columns])
    declared = list(classes) or [c[len(PROBABILITY) :] for c in columns or named]
    known = declared or sorted({*table["truth"], *table["predicted"]} - {"", *NO_REFERENCE})
    if not known:
        raise UserError(f"{source}: no row has a truth or a prediction, so nothing can be counted")
    problems = _unknown_classes(table, columns, known)
    table["predicted"] = _predicted(table, [PROBABILITY + c for c in known if PROBABILITY + c in columns])
    problems += _bad_rows(table, columns)
    if problems:
        raise UserError(enumerate_problems(f"{source} cannot be used:", problems))
    done = table["status"] == "ok"
    sums = table.loc[done, columns].sum(axis=1).to_numpy(np.float64) if columns else np.ones(0)
    ordered = [PROBABILITY + c for c in known] if columns else []
    others = [c for c in table.columns if c not in {*COLUMNS, *ordered}]
    return Predictions(
        table=table[[*COLUMNS, *ordered, *others]].reset_index(drop=True),
        classes=known,
        declared=bool(declared),
        has_probabilities=bool(columns),
        has_patients=has_patients,
        one_vs_rest=bool((np.abs(sums - 1) > SUM_TOLERANCE).any()),
    )


def write_predictions(path: Path, table: pd.DataFrame, classes: Sequence[str]) -> None:
    """Check a table against the contract and write it whole, with its columns in the contract's order."""
    write_table(path, check_predictions(table, classes, str(path)).table)


def _text(column: pd.Series, empty: str) -> pd.Series:
    return column.astype("object").where(column.notna(), empty).astype(str).replace("", empty)


def _unknown_classes(table: pd.DataFrame, columns: list[str], known: list[str]) -> list[str]:
    problems = []
    for name in columns:
        if name[len(PROBABILITY) :] not in known:
            problems.append(f"column {name!r} is no class of {known}")
    if columns:
        problems += [
            f"class {c!r} has no column 'p_{c}', or an empty one"
            for c in known
            if PROBABILITY + c not in columns
        ]
    for name, allowed in (("truth", {*known, *NO_REFERENCE}), ("predicted", {*known, ""})):
        for value in sorted(set(table[name]) - allowed):
            row = _first(table[name].eq(value))
            problems.append(f"{name} {value!r} (first in row {row}) is no class of {known}")
    return problems


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


def _filled(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
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
    table["fold"] = table["fold"].fillna(ENSEMBLE).astype(np.int64)
    for name in columns:
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
    return table


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


def _bad_rows(table: pd.DataFrame, columns: list[str]) -> list[str]:
    problems = []
    unknown = ~table["status"].isin(STATUSES)
    if unknown.any():
        problems.append(
            f"status {table['status'][unknown].iloc[0]!r} in row {_first(unknown)}: one of {STATUSES}"
        )
    done = table["status"].eq("ok")
    if columns:
        p = table[columns]
        labels_only = _labels_only(table, columns)
        lost = done & p.isna().any(axis=1)
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
            problems.append(f"row {_first(outside)}: a probability is outside 0..1 ({outside.sum()} rows)")
    empty = done & table["predicted"].eq("")
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
        problems.append(f"row {_first(no_patient)}: 'patient_id' is empty ({int(no_patient.sum())} rows)")
    twice = table.duplicated(["case_id", "index_test"])
    if twice.any():
        case = table["case_id"][twice].iloc[0]
        problems.append(f"row {_first(twice)}: case {case!r} stands twice for one index test")
    return problems


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
