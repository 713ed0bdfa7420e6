"""Comparison of index tests with each other: differences of their accuracy, and their agreement.

    python -m marrowflow statistics.compare --predictions A.parquet B.parquet --index-test A --against B
        --unit patient --positive AML --out DIR

compares A with B on the units that both have, and writes to DIR ``comparisons.csv`` (A − B of every metric, with
interval and p-value), ``agreement.csv`` and ``agreement_counts.csv`` (A with B, for which no truth is needed) and
``warnings.csv``. Units without a truth, or without an answer of either, are left out of the comparison.

    python -m marrowflow statistics.compare --unpaired --predictions HERE.parquet THERE.parquet --index-test A --out DIR

compares A on the patients of the first table with A (or the tests of ``--against``) on the other patients of each
further table, and writes ``comparisons.csv`` and ``warnings.csv``.

A lock belongs to the index test that it names. An index test without one decides by its predicted class.
Where neither the options nor probability columns name the classes, they are those seen in any of the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from marrowflow.choices.threshold import read_lock
from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Accuracy, Unit, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.prediction_files import read_rows
from marrowflow.predictions import Predictions, check_predictions, read_predictions
from marrowflow.statistics.agreement import AGREEMENT_COLUMNS, agreement_rows, count_agreement
from marrowflow.statistics.cases import Units, gather_units, people
from marrowflow.statistics.differences import (
    COMPARISON_COLUMNS,
    Measured,
    comparison_rows,
    measure_side,
    with_holm,
)
from marrowflow.statistics.endpoints import (
    Endpoints,
    Options,
    add_question_arguments,
    answers_of,
    choose_endpoints,
    evaluate,
    has_surrogates,
    warn_of_few,
    warn_of_table,
    warn_of_votes,
    with_classes_of,
)
from marrowflow.statistics.pairing import Pair, match, take
from marrowflow.statistics.rows import WARNING_COLUMNS, Place

_COUNT_COLUMNS = ("endpoint", "unit", "index_test", "against", "answer", "answer_against", "n")
_NO_ANSWER = ("indeterminate", "not_done")
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


@dataclass(frozen=True)
class Paired:
    """What a comparison on the same patients writes: one table a file, named as the files are."""

    comparisons: pd.DataFrame
    agreement: pd.DataFrame
    agreement_counts: pd.DataFrame
    warnings: pd.DataFrame


@dataclass(frozen=True)
class Unpaired:
    """What a comparison of different patients writes."""

    comparisons: pd.DataFrame
    warnings: pd.DataFrame


def compare_paired(
    first: Subject, others: Sequence[Subject], endpoints: Endpoints, units: Sequence[Unit], settings: Accuracy
) -> Paired:
    """Compare an index test with each of the others, on the units that the two have in common.

    Parameters
    ----------
    first, others
        Index tests of the same classes.
    endpoints, units
        What to compare, in which units of analysis.
    settings
        Confidence, replicates and seed.

    Raises
    ------
    UserError
        Two tests have no unit in common, a unit two truths or a case two patients; a lock that does not fit.
    """
    notes: list[dict[str, str]] = []
    _warn_of_subjects([first, *others], notes, paired=True)
    compared, agreed, counted = [], [], []
    for unit in units:
        for other in others:
            pair = match(first.predictions, other.predictions, unit)
            _warn_of_left_out(pair, first.name, other.name, Place("", unit, notes))
            for rows in (pair.first, pair.second):
                warn_of_votes(rows, Place("", unit, notes))
            for name, positive in endpoints.items():
                place = Place(name, unit, notes)
                sides = ((first, pair.first), (other, pair.second))
                a, b = (
                    _measure(s, take(rows, pair.countable), positive, place, settings) for s, rows in sides
                )
                compared.append(comparison_rows(a, b, paired=True, place=place, settings=settings))
                answers = [answers_of(rows, name, positive, s.lock) for s, rows in sides]
                names = (first.name, other.name)
                agreed.append(_agreement(pair, answers, names, positive, place, settings))
                counted.append(_agreement_counts(pair, answers, names, positive, place))
    return Paired(
        comparisons=with_holm(_joined(compared, COMPARISON_COLUMNS)),
        agreement=_joined(agreed, AGREEMENT_COLUMNS),
        agreement_counts=_joined(counted, _COUNT_COLUMNS),
        warnings=_warnings(notes),
    )


def compare_unpaired(
    first: Subject, others: Sequence[Subject], endpoints: Endpoints, units: Sequence[Unit], settings: Accuracy
) -> Unpaired:
    """Compare an index test on its patients with each of the others on other patients.

    Arguments as for `compare_paired`. The second side's resamples come from the next seed, so that the two are independent.

    Raises
    ------
    UserError
        A patient on both sides; a lock that does not fit.
    """
    notes: list[dict[str, str]] = []
    _warn_of_subjects([first, *others], notes, paired=False)
    for other in others:
        _check_apart(first, other)
    next_seed = settings.model_copy(update={"seed": settings.seed + 1})
    compared = []
    for unit in units:
        gathered = [gather_units(s.predictions.table, s.predictions.classes, unit) for s in (first, *others)]
        for rows in gathered:
            warn_of_votes(rows, Place("", unit, notes))
        for name, positive in endpoints.items():
            place = Place(name, unit, notes)
            side = _measure(first, take(gathered[0], gathered[0].countable), positive, place, settings)
            for other, rows in zip(others, gathered[1:], strict=True):
                against = _measure(other, take(rows, rows.countable), positive, place, next_seed)
                compared.append(comparison_rows(side, against, paired=False, place=place, settings=settings))
    return Unpaired(with_holm(_joined(compared, COMPARISON_COLUMNS)), _warnings(notes))


def main(argv: Sequence[str]) -> None:
    """Run the step; see the module."""
    args = _parser().parse_args(argv)
    options = read_options(Options, args.options)
    names = _wanted(args.predictions, args.index_test, args.against, args.unpaired)
    tables = _same_classes([read_predictions(path, options.classes, name) for path, name in names], names)
    endpoints = choose_endpoints(options, tables[0].classes, args.positive)
    notes: list[dict[str, str]] = []
    tables = [with_classes_of(endpoints, table, notes) for table in tables]
    locks = _locks(args.lock, [name for _, name in names])
    subjects = [Subject(p, locks.get(name)) for p, (_, name) in zip(tables, names, strict=True)]
    units = [args.unit] if args.unit else options.units
    compare = compare_unpaired if args.unpaired else compare_paired
    # Two threads on a busy machine make products of this size many times slower than one.
    with threadpool_limits(limits=1):
        found = compare(subjects[0], subjects[1:], endpoints, units, options.accuracy)
    found = replace(found, warnings=_warnings([*notes, *found.warnings.to_dict("records")]))
    for name, table in vars(found).items():
        write_table(args.out / f"{name}.csv", table)


def _parser() -> argparse.ArgumentParser:
    parser = step_parser("statistics.compare", "Differences between index tests, and their agreement.")
    parser.add_argument(
        "--predictions",
        type=existing_file,
        nargs="+",
        required=True,
        metavar="FILE",
        help="prediction tables (.parquet, .csv or .tsv) that hold the index tests",
    )
    parser.add_argument("--index-test", required=True, metavar="NAME", help="the one that is compared")
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="NAME",
        help="those that it is compared with; with --unpaired, left out, the same one",
    )
    parser.add_argument(
        "--unpaired",
        action="store_true",
        help="the patients of the first table against those of each further table, who are others",
    )
    add_question_arguments(parser, "compared")
    parser.add_argument(
        "--lock",
        type=existing_file,
        nargs="+",
        default=[],
        metavar="FILE",
        help="threshold.json files whose cut-offs decide, each for the index test that it names",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the tables")
    return parser


def _wanted(
    paths: Sequence[Path], index_test: str, against: Sequence[str], unpaired: bool
) -> list[tuple[Path, str]]:
    """Return table and name of every index test to read, the compared one first."""
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


def _same_classes(tables: Sequence[Predictions], names: Sequence[tuple[Path, str]]) -> list[Predictions]:
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


def _locks(paths: Sequence[Path], names: Sequence[str]) -> dict[str, dict[str, Any]]:
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


def _check_apart(first: Subject, other: Subject) -> None:
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


def _measure(
    subject: Subject, rows: Units, positive: Sequence[str] | None, place: Place, settings: Accuracy
) -> Measured:
    answers = answers_of(rows, place.endpoint, positive, subject.lock)
    evaluation = evaluate(rows, answers, positive, subject.predictions.one_vs_rest, place)
    clusters = "surrogate groups" if has_surrogates(subject.predictions.table) else "patients"
    warn_of_few(evaluation, positive, clusters, place)
    cohort = "+".join(sorted(set(rows.table["cohort"])))
    what = " ".join(["bootstrap", place.endpoint, place.unit, subject.name])
    return measure_side(evaluation, subject.name, cohort, settings, what)


def _agreement(
    pair: Pair,
    answers: Sequence[np.ndarray],
    names: tuple[str, str],
    positive: Sequence[str] | None,
    place: Place,
    settings: Accuracy,
) -> pd.DataFrame:
    rows = take(pair.first, pair.answered)
    outcomes = [False, True] if positive is not None else rows.classes
    codes = {outcome: i for i, outcome in enumerate(outcomes)}
    first, second = (pd.Series(a[pair.answered]).map(codes).to_numpy(np.int64) for a in answers)
    patient = people(rows.table)[0]
    n_cases = int(rows.table["cases"].sum())
    counted = count_agreement(first, second, len(outcomes), patient, n_cases, binary=positive is not None)
    return agreement_rows(counted, names, place, settings)


def _agreement_counts(
    pair: Pair,
    answers: Sequence[np.ndarray],
    names: tuple[str, str],
    positive: Sequence[str] | None,
    place: Place,
) -> pd.DataFrame:
    """Cross-tabulate the matched units, those without an answer too; cells of 0 are written."""
    outcomes = [*(("positive", "negative") if positive is not None else pair.first.classes), *_NO_ANSWER]
    named = []
    for rows, answer in zip((pair.first, pair.second), answers, strict=True):
        status = rows.table["status"].to_numpy(dtype=object)
        given = answer if positive is None else np.where(answer, "positive", "negative")
        named.append(np.where(status == "ok", given, status))
    counts = pd.crosstab(named[0], named[1]).reindex(index=outcomes, columns=outcomes, fill_value=0)
    return pd.DataFrame(
        {
            "endpoint": place.endpoint,
            "unit": place.unit,
            "index_test": names[0],
            "against": names[1],
            "answer": np.repeat(outcomes, len(outcomes)),
            "answer_against": np.tile(outcomes, len(outcomes)),
            "n": counts.to_numpy().ravel(),
        }
    )


def _warn_of_subjects(subjects: Sequence[Subject], notes: list[dict[str, str]], paired: bool) -> None:
    nowhere = Place("", "", notes)
    first, *others = (s.predictions for s in subjects)
    # A case is the patient's whom either table of a pair names.
    lent = paired and (first.has_patients or all(p.has_patients for p in others))
    for subject in subjects:
        told = replace(subject.predictions, has_patients=lent or subject.predictions.has_patients)
        warn_of_table(told, told.table, subject.lock, nowhere)
        if any(s.lock for s in subjects) and subject.lock is None and told.has_probabilities:
            nowhere.warn(f"{subject.name} has probabilities and no lock: its predicted class decides")
    if paired and not first.declared and len(first.classes) > 2:
        nowhere.warn("the classes were not declared: weighted kappa takes their names in alphabetical order")


def _warn_of_left_out(pair: Pair, first: str, second: str, place: Place) -> None:
    reasons = {
        f"only {first} has": pair.unmatched[0],
        f"only {second} has": pair.unmatched[1],
        "without an answer of both": int((~pair.answered).sum()),
        "without a truth": int((pair.answered & ~pair.countable).sum()),
    }
    told = [f"{n} {reason}" for reason, n in reasons.items() if n]
    if told:
        place.warn(f"{first} against {second}: {place.unit}s left out of the comparison: {', '.join(told)}")


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))


def _warnings(notes: list[dict[str, str]]) -> pd.DataFrame:
    """Return the warnings, each once: one index test may be told the same beside several others."""
    return pd.DataFrame(notes, columns=list(WARNING_COLUMNS)).drop_duplicates(ignore_index=True)
