"""Readers and other products on one set of patients: accuracy, comparison with the primary index test, agreement.

    python -m marrowflow statistics.readers --options O --readers H1.parquet H2.parquet --predictions P.parquet …
        --lock L.json … --primary primary.json --out DIR

Each table of ``--readers`` is one reader's (of `marrowflow.readers`; one without rows read nothing of these patients).
Writes to DIR ``metrics.csv``, ``confusion.csv``, ``indeterminate.csv`` and ``roc.csv`` as `statistics.accuracy` does, with
the column ``index_test`` before the others; and ``comparisons.csv``, ``agreement.csv``, ``agreement_counts.csv`` as
`statistics.compare` does, of the primary index test with each reader and of the readers with each other, always on the
units that both answered for; ``warnings.csv`` of both, with ``index_test`` where it is about one.

A reader's own metrics are of all units that the reader answered for, which need not be those of the others: differences
are between equals only in ``comparisons.csv``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd
from pydantic import Field
from threadpoolctl import threadpool_limits

from marrowflow.choices.primary import read_primary
from marrowflow.choices.primary_files import primary_files
from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Identifier, Unit, read_options
from marrowflow.files import write_table
from marrowflow.prediction_files import read_rows
from marrowflow.predictions import Predictions, read_predictions
from marrowflow.statistics.accuracy import measure
from marrowflow.statistics.agreement import AGREEMENT_COLUMNS
from marrowflow.statistics.compare import Paired, compare_paired
from marrowflow.statistics.differences import COMPARISON_COLUMNS
from marrowflow.statistics.endpoints import Endpoints, choose_endpoints
from marrowflow.statistics.endpoints import Options as Asked
from marrowflow.statistics.indeterminate import ANALYSIS_COLUMNS
from marrowflow.statistics.rows import METRIC_COLUMNS, WARNING_COLUMNS
from marrowflow.statistics.subjects import Subject

_OWN = {
    "metrics": METRIC_COLUMNS,
    "confusion": ("endpoint", "unit", "truth", "predicted", "n"),
    "indeterminate": ANALYSIS_COLUMNS,
    "roc": ("endpoint", "unit", "class", "fpr", "tpr", "threshold"),
}
"""Tables of each reader's own accuracy, and their columns where no reader has a row."""

_COUNTS = ("endpoint", "unit", "index_test", "against", "answer", "answer_against", "n")
_COMPARED = {"comparisons": COMPARISON_COLUMNS, "agreement": AGREEMENT_COLUMNS, "agreement_counts": _COUNTS}


class Options(Asked):
    """The sections of the study that this step uses."""

    reader_units: dict[Identifier, Unit] = Field(default={})
    """Whether a reader answers for images or for patients; one who is not named does for images."""


@dataclass(frozen=True)
class _Read:
    """A reader who read something here."""

    subject: Subject
    units: tuple[Unit, ...]


def measure_readers(
    primary: Subject, readers: Sequence[Predictions], endpoints: Endpoints, options: Options
) -> dict[str, pd.DataFrame]:
    """Measure each reader, compare each with the primary index test, and the readers with each other.

    Parameters
    ----------
    primary
        The index test that is reported first, with its lock.
    readers
        One prediction table each, without empty ones.
    endpoints
        What to measure.
    options
        ``accuracy``, ``units``, ``reader_units``: one who answers for patients is measured per patient only.

    Returns
    -------
    dict
        Tables by the name of their file.
    """
    found = [_Read(Subject(p, None), _units_of(p, options)) for p in readers]
    own: dict[str, list[pd.DataFrame]] = {name: [] for name in (*_OWN, "warnings")}
    for reader in found:
        tables = vars(measure(reader.subject.predictions, endpoints, reader.units, options.accuracy))
        for name, parts in own.items():
            parts.append(_named(tables[name], reader.subject.name))
    compared: list[Paired] = []
    # Readers with the same units are compared in one call: their p-values are one family.
    for units, group in groupby(sorted(found, key=lambda r: r.units), key=lambda r: r.units):
        same = [r.subject for r in group]
        pairs = [(primary, same), *((first, same[i + 1 :]) for i, first in enumerate(same[:-1]))]
        for first, others in pairs:
            apart = [o.name for o in others if not _in_common(first, o, units)]
            able = [o for o in others if o.name not in apart]
            own["warnings"] += [_nothing_in_common(first.name, name) for name in apart]
            if able:
                compared.append(compare_paired(first, able, endpoints, units, options.accuracy))
    own["warnings"] += [_named(paired.warnings, "") for paired in compared]
    result = {name: _joined(own[name], ("index_test", *columns)) for name, columns in _OWN.items()}
    for name, columns in _COMPARED.items():
        result[name] = _joined([vars(paired)[name] for paired in compared], columns)
    result["warnings"] = _joined(own["warnings"], ("index_test", *WARNING_COLUMNS)).drop_duplicates(
        ignore_index=True
    )
    return result


def _units_of(reader: Predictions, options: Options) -> tuple[Unit, ...]:
    name = str(reader.table["index_test"].iloc[0])
    return ("patient",) if options.reader_units.get(name) == "patient" else tuple(options.units)


def _in_common(first: Subject, other: Subject, units: Iterable[Unit]) -> bool:
    columns = ["cohort", *(f"{unit}_id" for unit in units)]
    return all(
        len(first.predictions.table[["cohort", c]].merge(other.predictions.table[["cohort", c]])) > 0
        for c in columns[1:]
    )


def _nothing_in_common(first: str, other: str) -> pd.DataFrame:
    text = f"{other} answered for nobody whom {first} answered for: they are not compared"
    return pd.DataFrame([dict.fromkeys(("index_test", *WARNING_COLUMNS), "") | {"warning": text}])


def _named(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table.assign(index_test=name)[["index_test", *table.columns]]


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))


def main(argv: Sequence[str]) -> None:
    """Run the step; see the module."""
    parser = step_parser("statistics.readers", "Accuracy of readers and other products, and comparison.")
    parser.add_argument("--readers", type=existing_file, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--predictions", type=existing_file, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--lock", type=existing_file, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--primary", type=existing_file, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    name = read_primary(args.primary)
    table, lock = primary_files(name, args.predictions, args.lock)
    primary = Subject(read_predictions(table, options.classes, name), lock)
    readers = [read_predictions(path, options.classes) for path in args.readers if len(read_rows(path, ()))]
    endpoints = choose_endpoints(options, primary.predictions.classes, [])
    # Two threads on a busy machine make products of this size many times slower than one.
    with threadpool_limits(limits=1):
        tables: Mapping[str, pd.DataFrame] = measure_readers(primary, readers, endpoints, options)
    for kind, table in tables.items():
        write_table(args.out / f"{kind}.csv", table)
