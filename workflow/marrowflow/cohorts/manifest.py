"""A hospital's manifest: one row an image, checked whole before the first image is opened.

A manifest is CSV or TSV in UTF-8 and stands beside its images, or beside the TAR archives that hold them:

================  ==========================================================================
image             path relative to the manifest, ``/`` between folders
label             the class, or a finer label that the study's label map knows
patient_id        pseudonym; may be left out for the whole table, never for some rows
eligible          ``yes`` or empty; any other text is the reason why the case is not eligible
reference         method of the reference standard; ``missing`` or ``inconclusive``; may be empty
age               years, 0 to 130
sex               female, male, other, unknown (or f, m, o, u)
mpp               micrometres a pixel, above 0
index_date        ISO date of the index test; ``reference_date`` of the reference standard
================  ==========================================================================

Any other column is kept as it came (``slide_id``, ``magnification``, ``scanner``, ``severity``, …); one
whose name the inventory uses itself is kept as ``manifest_<name>``, and one whose name looks as if it
identified a person is refused. A ``patient_id`` that is blank in every row counts as left out.
"""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import pandas as pd

from marrowflow.cli import existing_file
from marrowflow.cohorts.delimited import Delimited, read_delimited
from marrowflow.cohorts.identifiers import identifying_kind
from marrowflow.cohorts.image_paths import image_problems
from marrowflow.config import RESERVED_TRUTHS
from marrowflow.errors import UserError, enumerate_problems

REQUIRED = ("image", "label")
OPTIONAL = (
    "patient_id",
    "slide_id",
    "age",
    "sex",
    "magnification",
    "mpp",
    "scanner",
    "severity",
    "index_date",
    "reference_date",
    "eligible",
    "reference",
)
RESERVED = (
    "case_id",
    "cohort",
    "patient_source",
    "type",
    "reference_status",
    "sha256",
    "phash",
    "thumb",
    "width",
    "height",
    "channels",
    "bit_depth",
    "format",
    "orientation",
    "frames",
    "bytes",
    "focus",
    "brightness",
    "saturated",
    "unreadable",
    "status",
    "reason",
)
"""Columns that intake adds, or uses on its way; a manifest's own of the same name are kept as ``manifest_<name>``."""

OLDEST = 130.0
LookUp = Callable[[Sequence[str], Sequence[int]], list[str]]
"""Paths of images and their lines → what is wrong with them, one sentence each."""

_SEXES = {"f": "female", "m": "male", "o": "other", "u": "unknown"}


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Add what a step that reads a hospital's manifest is told: the cohort, the manifest, the label map."""
    parser.add_argument("--cohort", required=True, help="the cohort's name")
    parser.add_argument("--manifest", required=True, type=existing_file, help="its manifest (CSV or TSV)")
    parser.add_argument("--label-map", type=existing_file, help="CSV with the columns label and class")


def read_manifest(
    path: Path,
    classes: Sequence[str],
    label_map: Mapping[str, str] | None = None,
    allow_identifiers: Iterable[str] = (),
    labelled: bool = True,
    look_up: LookUp | None = None,
) -> pd.DataFrame:
    """Read and check a manifest.

    Parameters
    ----------
    path
        The manifest; its folder is the one that no image may lie outside of.
    classes
        The study's class names.
    label_map
        Finer label → class, from `read_label_map`.
    allow_identifiers
        Columns that are kept though their names look identifying.
    labelled
        False lets the column ``label`` be left out: the reference standard of all cases is then missing.
    look_up
        What tells the faults of the images' paths and of what they lead to; as files below the manifest's folder if it
        is left out.

    Returns
    -------
    pandas.DataFrame
        One row an image in the manifest's order. ``image``; ``patient_id`` if the manifest has it;
        ``label``, the class after mapping, and ``type``, the label before it, both empty without a usable
        reference; ``manifest_label``, as it came; ``reference_status``, ok, missing or inconclusive;
        ``eligible``, "yes" or the reason why not; ``age`` and ``mpp`` as float64 (NaN where empty), ``sex``
        written out; other columns as they came.

    Raises
    ------
    UserError
        With every problem found, its row and column, and what to do about it.
    """
    path = Path(path)
    table = read_delimited(path)
    # A misspelt label is not one that was left out.
    if not labelled and "label" not in map(_fold, table.header):
        table = _without_reference(table)
    problems = [*_spelling_problems(table.header), *_refused_columns(table.header, set(allow_identifiers))]
    if not set(REQUIRED) <= set(table.header):
        raise UserError(enumerate_problems(f"{path} cannot be used:", problems))
    cells = {name: table.column(name) for name in table.header}
    # A file's name may begin or end with a blank; what people type in the other columns does not.
    for name in {*REQUIRED, *OPTIONAL} & set(cells) - {"image"}:
        cells[name] = [cell.strip() for cell in cells[name]]
    if not any(cells.get("patient_id", ())):
        cells.pop("patient_id", None)
    cells["eligible"] = [
        "yes" if text.casefold() in ("", "yes") else text
        for text in cells.get("eligible", [""] * len(table.rows))
    ]
    known = {*classes, *(label_map or {})}
    status = _reference_status(cells, known, len(table.rows))
    problems += [
        *(look_up or partial(image_problems, path.parent))(cells["image"], table.lines),
        *_label_problems(cells, status, table.lines, known),
        *_patient_problems(cells, table.lines),
        *_typed_problems(cells, table.lines),
    ]
    if problems:
        raise UserError(enumerate_problems(f"{path} cannot be used:", problems))
    return _typed(cells, status, label_map or {})


def read_images(path: Path) -> tuple[list[str], list[int]]:
    """Return the images that a manifest lists, as it writes them, and the line of each; nothing else is checked.

    Raises
    ------
    UserError
        The manifest cannot be read, or has no column ``image``.
    """
    table = read_delimited(path)
    if "image" not in table.header:
        raise UserError(f"{path}, row 1: column 'image' is missing; found: {', '.join(table.header)}")
    return table.column("image"), table.lines


def read_label_map(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """Read a table with the columns ``label`` and ``class``; return label → class.

    Raises
    ------
    UserError
        A column is missing, a label is blank or stands twice, or a class is none of the study's.
    """
    path = Path(path)
    table = read_delimited(path, comment="#")
    problems = [
        f"row 1: column {name!r} is missing; found: {', '.join(table.header)}"
        for name in ("label", "class")
        if name not in table.header
    ]
    if problems:
        raise UserError(enumerate_problems(f"{path} cannot be used:", problems))
    mapped: dict[str, str] = {}
    for line, label, target in zip(table.lines, table.column("label"), table.column("class"), strict=True):
        label, target = label.strip(), target.strip()
        if not label:
            problems.append(f"row {line}, column 'label': the cell is blank; name the manifests' label")
        elif label in mapped:
            problems.append(
                f"row {line}, column 'label': {label!r} stands in a row above; delete one of them"
            )
        if target not in classes:
            problems.append(
                f"row {line}, column 'class': {target!r} is none of the study's classes"
                f"{_nearest(target, classes)}; correct it or add it to classes:"
            )
        mapped.setdefault(label, target)
    if problems:
        raise UserError(enumerate_problems(f"{path} cannot be used:", problems))
    return mapped


def _without_reference(table: Delimited) -> Delimited:
    """Return a manifest without labels as one that says of each case that its reference standard is missing."""
    kept = [i for i, name in enumerate(table.header) if name != "reference"]
    header = [*(table.header[i] for i in kept), "label", "reference"]
    rows = [[*(row[i] for i in kept), "", "missing"] for row in table.rows]
    return Delimited(header, rows, table.lines)


def _spelling_problems(header: list[str]) -> list[str]:
    """Tell which columns are missing, and which are there under another spelling."""
    problems = []
    known = (*REQUIRED, *OPTIONAL)
    absent = [name for name in known if name not in header]
    folded = {_fold(name): name for name in absent}
    mistaken = {name: folded[_fold(name)] for name in header if name not in known and _fold(name) in folded}
    for name, meant in mistaken.items():
        problems.append(f"row 1, column {name!r}: rename it to {meant!r}, as it is spelt here")
    for name in REQUIRED:
        if name in absent and name not in mistaken.values():
            near = _nearest(name, [n for n in header if n not in known])
            problems.append(f"row 1: column {name!r} is missing{near}; found: {', '.join(header)}")
    if "patient_id" in absent and "patient_id" not in mistaken.values():
        # Without patients the split rests on surrogates: too much to lose by a spelling.
        near_names = difflib.get_close_matches("patient_id", header, n=1, cutoff=0.8)
        problems += [
            f"row 1, column {n!r}: rename it to 'patient_id' if it says whose image it is, else to "
            "something less alike"
            for n in near_names
        ]
    return problems


def _refused_columns(header: list[str], allowed: set[str]) -> list[str]:
    """Tell which columns look as if they identified a person, and which names would collide."""
    problems = []
    for name in header:
        kind = identifying_kind(name)
        if name in {*RESERVED, "label"} and f"manifest_{name}" in header:
            problems.append(
                f"row 1, columns {name!r} and 'manifest_{name}': the first would be kept under the name of the "
                "second; rename or delete one"
            )
        elif kind and name not in {*allowed, *REQUIRED, *OPTIONAL}:
            problems.append(
                f"row 1, column {name!r}: looks like {kind}; delete the column, or list it under "
                "intake: allow_identifiers: if it identifies nobody"
            )
    return problems


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _nearest(found: str, known: Sequence[str]) -> str:
    by_fold = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(found.casefold(), by_fold, n=1, cutoff=0.5)
    return f" (nearest: {by_fold[near[0]]!r})" if near else ""


def _reference_status(cells: Mapping[str, list[str]], known: set[str], count: int) -> list[str]:
    """Return ok, missing or inconclusive for each row; an ineligible case need not have a label that the study knows."""
    stated = [
        text.casefold() if text.casefold() in RESERVED_TRUTHS else "ok"
        for text in cells.get("reference", [""] * count)
    ]
    return [
        "missing" if status == "ok" and label not in known and eligible != "yes" else status
        for status, label, eligible in zip(stated, cells["label"], cells["eligible"], strict=True)
    ]


def _each(column: str, values: list[str], lines: list[int], fault: Callable[[str], str | None]) -> list[str]:
    """Ask once for each distinct value what is wrong with it; name the first row and how many more."""
    first: dict[str, int] = {}
    count: dict[str, int] = defaultdict(int)
    for value, line in zip(values, lines, strict=True):
        first.setdefault(value, line)
        count[value] += 1
    problems = []
    for value, line in first.items():
        message = fault(value)
        if message:
            more = f" (and {count[value] - 1} more)" if count[value] > 1 else ""
            problems.append(f"row {line}{more}, column {column!r}: {message}")
    return problems


def _label_problems(
    cells: Mapping[str, list[str]], status: list[str], lines: list[int], known: set[str]
) -> list[str]:
    """Tell which labels are none of the study's.

    Accuracy on images whose class the study does not have would leave them out or call every answer wrong: they are refused, until
    the manifest says itself that they are not eligible.
    """
    labels = cells["label"]

    def fault(label: str) -> str | None:
        if not label:
            return "the cell is blank; give the class, or set column 'reference' to missing or inconclusive"
        if label in known:
            return None
        return (
            f"{label!r} is none of the study's classes{_nearest(label, sorted(known))}; correct the cell, map it to a class in "
            "the table that label_map: names, or, where the study has no class for it, give that as the reason in column "
            "'eligible': the image is then counted in the flow diagram, and not scored"
        )

    # Where there is no usable reference the cell may be blank; what does stand there must be known.
    asked = [
        i
        for i, (label, eligible) in enumerate(zip(labels, cells["eligible"], strict=True))
        if eligible == "yes" and (label or status[i] == "ok")
    ]
    return _each("label", [labels[i] for i in asked], [lines[i] for i in asked], fault)


def _patient_problems(cells: Mapping[str, list[str]], lines: list[int]) -> list[str]:
    if "patient_id" not in cells:
        return []

    def fault(patient: str) -> str | None:
        if patient:
            return None
        return (
            "the cell is blank; name the patient in every row, or delete the column "
            "(near duplicates then serve as surrogate patients)"
        )

    return _each("patient_id", cells["patient_id"], lines, fault)


def _typed_problems(cells: Mapping[str, list[str]], lines: list[int]) -> list[str]:
    faults = {
        "age": lambda text: _number_fault(
            text, lambda x: 0 <= x <= OLDEST, f"years between 0 and {OLDEST:.0f}"
        ),
        "mpp": lambda text: _number_fault(text, lambda x: x > 0, "micrometres a pixel, above 0"),
        "sex": _sex_fault,
        "index_date": _date_fault,
        "reference_date": _date_fault,
    }
    return [
        problem
        for name, fault in faults.items()
        if name in cells
        for problem in _each(name, cells[name], lines, fault)
    ]


def _number_fault(text: str, fits: Callable[[float], bool], wanted: str) -> str | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and fits(value):
        return None
    return f"{text!r} is not {wanted}; write a number with a decimal point, or leave the cell empty"


def _sex_fault(text: str) -> str | None:
    if text.casefold() in {"", *_SEXES, *_SEXES.values()}:
        return None
    return f"{text!r} is not known; write female, male, other or unknown, or leave the cell empty"


def _date_fault(text: str) -> str | None:
    if not text:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            date.fromisoformat(text)
            return None
    except ValueError:
        pass
    return f"{text!r} is no date of the form YYYY-MM-DD; rewrite it, or leave the cell empty"


def _typed(cells: dict[str, list[str]], status: list[str], label_map: Mapping[str, str]) -> pd.DataFrame:
    cells = {f"manifest_{name}" if name in RESERVED else name: column for name, column in cells.items()}
    cells["manifest_label"] = cells["label"]
    cells["type"] = [
        label if state == "ok" else "" for label, state in zip(cells["label"], status, strict=True)
    ]
    cells["label"] = [label_map.get(name, name) for name in cells["type"]]
    cells["reference_status"] = status
    if "sex" in cells:
        cells["sex"] = [_SEXES.get(text.casefold(), text.casefold()) for text in cells["sex"]]
    table = pd.DataFrame(cells, dtype="str")
    for name in ("age", "mpp"):
        if name in table:
            table[name] = [float(text) if text else math.nan for text in cells[name]]
    return table
