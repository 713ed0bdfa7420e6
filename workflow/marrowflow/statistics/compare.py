"""Comparison of index tests with each other: differences of their accuracy, and their agreement.

    python -m marrowflow statistics.compare --predictions A.parquet B.parquet --index-test A --against B
        --unit patient --positive AML --out DIR

compares A with B on the units that both have, and writes to DIR ``comparisons.csv`` (A − B of every metric, with
interval and p-value), ``agreement.csv`` and ``agreement_counts.csv`` (A with B, for which no truth is needed) and
``warnings.csv``. Units without a truth, or without an answer of either, are left out of the comparison.

    python -m marrowflow statistics.compare --unpaired --predictions HERE.parquet THERE.parquet --index-test A --out DIR

compares A on the patients of the first table with A (or the tests of ``--against``) on the other patients of each
further table, and writes ``comparisons.csv`` and ``warnings.csv``.

In either case ``--primary FILE`` takes the place of ``--index-test`` and ``--against``: FILE is the ``primary.json`` of
``choices.primary``, which says what is compared, with all other index tests of the tables in the tables' order.

A lock belongs to the index test that it names. An index test without one decides by its predicted class, and of an
endpoint that it has a probability for (column ``endpoint_<name>``) by whether that is .5 or more.
Where neither the options nor probability columns name the classes, they are those seen in any of the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from marrowflow.choices.primary import read_primary
from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Accuracy, Unit, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.predictions import read_predictions
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
    EVEN,
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
from marrowflow.statistics.subjects import Subject, check_apart, find_subjects, locks_of, with_same_classes

_COUNT_COLUMNS = ("endpoint", "unit", "index_test", "against", "answer", "answer_against", "n")
_NO_ANSWER = ("indeterminate", "not_done")


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
    _warn_of_subjects([first, *others], endpoints, notes, paired=True)
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
    _warn_of_subjects([first, *others], endpoints, notes, paired=False)
    for other in others:
        check_apart(first, other)
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
    names = find_subjects(args.predictions, *_asked(args), args.unpaired)
    tables = with_same_classes([read_predictions(path, options.classes, name) for path, name in names], names)
    endpoints = choose_endpoints(options, tables[0].classes, args.positive)
    notes: list[dict[str, str]] = []
    tables = [with_classes_of(endpoints, table, notes) for table in tables]
    locks = locks_of(args.lock, [name for _, name in names])
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
    compared = parser.add_mutually_exclusive_group(required=True)
    compared.add_argument("--index-test", metavar="NAME", help="the one that is compared")
    compared.add_argument(
        "--primary",
        type=existing_file,
        metavar="FILE",
        help="primary.json that says which one it is; it is compared with all others of the tables",
    )
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


def _asked(args: argparse.Namespace) -> tuple[str, list[str] | None]:
    """Return the index test to compare and those to compare it with; None stands for all others."""
    if args.primary is None:
        return args.index_test, args.against
    if args.against:
        raise UserError(
            "--primary compares with all index tests of the tables: leave --against out, or give --index-test instead"
        )
    return read_primary(args.primary), None


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


def _warn_of_subjects(
    subjects: Sequence[Subject], endpoints: Endpoints, notes: list[dict[str, str]], paired: bool
) -> None:
    nowhere = Place("", "", notes)
    first, *others = (s.predictions for s in subjects)
    # A case is the patient's whom either table of a pair names.
    lent = paired and (first.has_patients or all(p.has_patients for p in others))
    for subject in subjects:
        told = replace(subject.predictions, has_patients=lent or subject.predictions.has_patients)
        warn_of_table(told, told.table, endpoints, subject.lock, nowhere)
        if any(s.lock for s in subjects) and subject.lock is None and told.has_probabilities:
            own = f", and {EVEN:g} of an endpoint's own probability" if told.endpoints else ""
            nowhere.warn(f"{subject.name} has probabilities and no lock: its predicted class decides{own}")
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
