"""What makes a prediction table unusable, each problem with its row or column and a remedy; and what may be a mistake.

Rows are numbered from 1 as in the file: the tables that are looked at keep their rows' places as index.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from marrowflow.config import RESERVED_CLASSES
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.prediction_columns import (
    COLUMNS,
    ENDPOINT,
    MANIFEST,
    NO_REFERENCE,
    PATIENT_SOURCE,
    PROBABILITY,
    STATUSES,
    SUM_TOLERANCE,
    SURROGATE,
    nearest,
    same_writing,
)


def check_columns(found: list[str], source: str) -> None:
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
    problems += _misspelt_endpoints(found)
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


def class_problems(
    table: pd.DataFrame, columns: list[str], in_file: list[str], known: list[str]
) -> list[str]:
    """Tell of class names that cannot be used, and of names in the table that are none of the classes.

    Parameters
    ----------
    table
        Rows with all of `COLUMNS`.
    columns, in_file
        Its probability columns, and those of them that the file holds.
    known
        The classes.
    """
    return _unusable_names(table, in_file, known) + _unknown_classes(table, columns, known)


def notes_on_classes(table: pd.DataFrame, columns: list[str], known: list[str]) -> list[str]:
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


def value_problems(
    table: pd.DataFrame, given: pd.DataFrame, columns: list[str], in_file: list[str], own: list[str]
) -> list[str]:
    """Tell of answers that cannot be counted: probabilities, statuses, patients, cases.

    Parameters
    ----------
    table, columns, in_file
        As for `class_problems`; what was given as a number and is none reads as NaN.
    given
        The columns of probabilities as the file has them, of all its rows.
    own
        Columns of endpoints' own probabilities.
    """
    unreadable = _unreadable(table, given[[*in_file, *own]])
    return [
        *_unreadable_problems(unreadable, given),
        *_status_problems(table),
        *_probability_problems(table, columns, in_file, unreadable[in_file].any(axis=1)),
        *(problem for name in own for problem in _endpoint_problems(table, name, unreadable[name])),
        *_row_problems(table, unreadable[in_file].any(axis=1)),
    ]


def first_row(mask: pd.Series) -> int:
    """Return the number of the first row, from 1, that is true; the index holds the places in the file."""
    return int(mask.idxmax()) + 1


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _misspelt_endpoints(found: list[str]) -> list[str]:
    problems = []
    for name in found:
        plain = name.strip()
        if not plain.casefold().startswith(ENDPOINT):
            continue
        endpoint = plain[len(ENDPOINT) :].strip()
        if not endpoint:
            problems.append(f"column {name!r} names no endpoint: call it {ENDPOINT}<name>, or delete it")
        elif name != ENDPOINT + endpoint:
            problems.append(
                f"column {name!r}: rename it to {ENDPOINT + endpoint!r} if it is an endpoint's probability, or else to "
                "something less alike"
            )
    return problems


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
            return f"column {column!r}, row {first_row(rows)}"
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
            row = first_row(table[column].eq(value))
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


def _status_problems(table: pd.DataFrame) -> list[str]:
    unknown = ~table["status"].isin(STATUSES)
    if not unknown.any():
        return []
    status = table["status"][unknown].iloc[0]
    return [f"status {status!r} in row {first_row(unknown)}: one of {STATUSES}{nearest(status, STATUSES)}"]


def _probability_problems(
    table: pd.DataFrame, columns: list[str], in_file: list[str], unreadable: pd.Series
) -> list[str]:
    if not columns:
        return []
    problems = []
    done, p = table["status"].eq("ok"), table[columns]
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
            f"row {first_row(lost)}: a probability is missing though status is ok ({lost.sum()} rows)"
        )
    if outside.any():
        problems.append(_outside_problem(table.loc[done, in_file], outside))
    return problems


def _endpoint_problems(table: pd.DataFrame, name: str, unreadable: pd.Series) -> list[str]:
    """Tell of an endpoint's own probabilities; an index test may have all of them, or none."""
    problems = []
    done, p = table["status"].eq("ok"), table[name]
    has_it = (done & (p.notna() | unreadable)).groupby(table["index_test"]).transform("any")
    lost = done & has_it & p.isna() & ~unreadable
    outside = done & ((p < 0) | (p > 1))
    remedy = "; rename the column if it is no probability of an endpoint"
    if lost.any():
        problems.append(
            f"row {first_row(lost)}: {name} is missing though status is ok ({lost.sum()} rows){remedy}"
        )
    if outside.any():
        problems.append(
            f"row {first_row(outside)}: {name} is {p[outside.idxmax()]:g}, outside 0..1 ({outside.sum()} rows){remedy}"
        )
    return problems


def _row_problems(table: pd.DataFrame, unreadable: pd.Series) -> list[str]:
    """Tell of rows without a prediction or a patient, and of cases that stand twice."""
    problems = []
    empty = table["status"].eq("ok") & table["predicted"].eq("") & ~unreadable
    if empty.any():
        problems.append(
            f"row {first_row(empty)}: 'predicted' is empty though status is ok ({int(empty.sum())} rows)"
        )
    if PATIENT_SOURCE in table:
        other = ~table[PATIENT_SOURCE].isin([MANIFEST, SURROGATE])
        if other.any():
            problems.append(
                f"row {first_row(other)}: {PATIENT_SOURCE} {table[PATIENT_SOURCE][other].iloc[0]!r} "
                f"is neither {MANIFEST} nor {SURROGATE}"
            )
    no_patient = table["patient_id"].eq("")
    if no_patient.any():
        problems.append(
            f"row {first_row(no_patient)}: 'patient_id' is empty ({int(no_patient.sum())} rows); name the patient, or leave the "
            "column out to count each row as its own"
        )
    twice = table.duplicated(["case_id", "index_test"])
    if twice.any():
        case = table["case_id"][twice].iloc[0]
        problems.append(f"row {first_row(twice)}: case {case!r} stands twice for one index test")
    return problems


def _outside_problem(p: pd.DataFrame, outside: pd.Series) -> str:
    """Tell of values outside 0..1, and what to do with what they seem to be; ``p`` holds the answered rows."""
    row = p.loc[outside.idxmax()]
    name = (row - 0.5).abs().idxmax()
    found = f"row {first_row(outside)}: a probability is outside 0..1 ({name} is {row[name]:g}; {outside.sum()} rows)"
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
