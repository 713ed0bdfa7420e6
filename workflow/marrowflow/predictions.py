"""The prediction table: the one thing that stands between what sees pixels and what does statistics.

One row a case and index test. Columns (see `REQUIRED` and `OPTIONAL`):

========== ======= =====================================================================
case_id    string  unique within an index test; ``<cohort>/<path of the image>`` for images
patient_id string  the cluster of the statistics; ``<cohort>/<id in the manifest>``
cohort     string  hospital
truth      string  a class, or ``missing`` / ``inconclusive`` (no usable reference standard)
predicted  string  the class with the largest probability; empty where the test was not done
p_<class>  float64 one column a class, in the order of the study's classes; sum 1 unless one-vs-rest
index_test string  ``<model>-<colour>``, or a reader's or product's name
fold       int64   fold that tested this case; -1 for an ensemble of all folds' networks
partition  string  validation, test (development) or external
status     string  ok, indeterminate (done without a usable result), not_done
reason     string  why the status is not ok; else empty
========== ======= =====================================================================

Only ``truth`` and either ``predicted`` or probabilities are needed; `read_predictions` fills the rest.
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
        Class names, in the order of the probability columns, then any seen only as truth or prediction.
    has_probabilities
        False where only labels were given.
    has_patients
        False where each row was made its own patient for want of ``patient_id``.
    one_vs_rest
        True where probabilities are per class and do not sum to 1.
    """

    table: pd.DataFrame
    classes: list[str]
    has_probabilities: bool
    has_patients: bool
    one_vs_rest: bool

    @property
    def probabilities(self) -> np.ndarray:
        """Array [cases, classes] of float64; raises KeyError where labels only were given."""
        return self.table[[PROBABILITY + c for c in self.classes]].to_numpy(np.float64)


def read_predictions(path: Path, classes: Sequence[str] = ()) -> Predictions:
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
        ]
        table = pd.read_csv(path, dtype=dict.fromkeys(text, "str"), keep_default_na=False, na_values=[""])
    else:
        raise UserError(f"{path}: a prediction table is .parquet or .csv, not {path.suffix!r}")
    return check_predictions(table, classes, str(path))


def check_predictions(
    table: pd.DataFrame, classes: Sequence[str] = (), source: str = "prediction table"
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

    Raises
    ------
    UserError
        No rows; no truth; neither prediction nor probabilities; unknown class names; a probability
        outside 0..1, or one missing where the status is ok; an unknown status; a case twice for one index test.
    """
    table = table.copy().reset_index(drop=True)
    if table.empty:
        raise UserError(f"{source} has no rows: nothing to measure")
    columns = [c for c in table.columns if c.startswith(PROBABILITY)]
    if "truth" not in table:
        raise UserError(f"{source} has no column 'truth'; found: {', '.join(map(str, table.columns))}")
    if "predicted" not in table and not columns:
        raise UserError(f"{source} needs a column 'predicted' or probability columns 'p_<class>'")
    has_patients = "patient_id" in table
    table["truth"] = _text(table["truth"], MISSING)
    known = list(classes) or [c[len(PROBABILITY) :] for c in columns]
    if not known:
        seen = {*table["truth"], *_text(table["predicted"], "")} - {"", *NO_REFERENCE}
        known = sorted(seen)
    problems = _unknown_classes(table, columns, known)
    table = _filled(table, known, columns)
    problems += _bad_rows(table, columns)
    if problems:
        raise UserError(enumerate_problems(f"{source} cannot be used:", problems))
    done = table["status"] == "ok"
    sums = table.loc[done, columns].sum(axis=1).to_numpy(np.float64) if columns else np.ones(0)
    ordered = [PROBABILITY + c for c in known] if columns else []
    return Predictions(
        table=table[[*COLUMNS, *ordered, *(c for c in table.columns if c not in {*COLUMNS, *ordered})]],
        classes=known,
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
        problems += [f"class {c!r} has no column 'p_{c}'" for c in known if PROBABILITY + c not in columns]
    for name, allowed in (("truth", {*known, *NO_REFERENCE}), ("predicted", {*known, ""})):
        if name in table:
            values = _text(table[name], "")
            for value in sorted(set(values) - allowed - {""}):
                row = int(values.eq(value).to_numpy().argmax()) + 1
                problems.append(f"{name} {value!r} (first in row {row}) is no class of {known}")
    return problems


def _filled(table: pd.DataFrame, known: list[str], columns: list[str]) -> pd.DataFrame:
    rows = [str(i + 1) for i in range(len(table))]
    defaults = {
        "case_id": rows,
        "cohort": "",
        "index_test": "index test",
        "fold": ENSEMBLE,
        "partition": "",
        "status": "ok",
        "reason": "",
    }
    for name, value in defaults.items():
        if name not in table:
            table[name] = value
    if "patient_id" not in table:
        table["patient_id"] = table["case_id"]
    for name in ("case_id", "patient_id", "cohort", "index_test", "partition", "reason"):
        table[name] = _text(table[name], "")
    table["status"] = _text(table["status"], "ok")
    table["fold"] = table["fold"].fillna(ENSEMBLE).astype(np.int64)
    for name in columns:
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
    if "predicted" not in table:
        p = table[[PROBABILITY + c for c in known if PROBABILITY + c in table]].to_numpy(np.float64)
        best = np.asarray(known, dtype=object)[np.where(np.isnan(p), -1.0, p).argmax(axis=1)]
        table["predicted"] = np.where(table["status"].eq("ok").to_numpy(), best, "")
    table["predicted"] = _text(table["predicted"], "")
    return table


def _bad_rows(table: pd.DataFrame, columns: list[str]) -> list[str]:
    problems = []
    unknown = ~table["status"].isin(STATUSES)
    if unknown.any():
        problems.append(
            f"status {table['status'][unknown].iloc[0]!r} in row {_first(unknown)}: one of {STATUSES}"
        )
    done = table["status"].eq("ok")
    if columns:
        p = table[columns].to_numpy(np.float64)
        lost = done.to_numpy() & np.isnan(p).any(axis=1)
        outside = done.to_numpy() & ((p < 0) | (p > 1)).any(axis=1)
        if lost.any():
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
    no_patient = table["patient_id"].eq("")
    if no_patient.any():
        problems.append(f"row {_first(no_patient)}: 'patient_id' is empty ({int(no_patient.sum())} rows)")
    twice = table.duplicated(["case_id", "index_test"])
    if twice.any():
        case = table["case_id"][twice].iloc[0]
        problems.append(f"row {_first(twice)}: case {case!r} stands twice for one index test")
    return problems


def _first(mask: pd.Series | np.ndarray) -> int:
    return int(np.asarray(mask).argmax()) + 1
