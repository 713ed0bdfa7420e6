"""Average what the members of an ensemble answered: the mean of their probabilities is an index test of its own.

    python -m marrowflow learning.combine --options '{"classes": […]}' --tables A.parquet B.parquet
        --index-test NAME --out out_of_fold.parquet

averages raw out-of-fold tables of development cases, for ``learning.lock`` to make the ensemble's own choices on. Each member
answers by networks that did not see the case, row by row of the same folds.

    … --tables A/raw.parquet [B/raw.parquet] --lock threshold.json --index-test NAME --out predictions.parquet
        [--uncalibrated uncalibrated.parquet]

averages raw tables of an external hospital, applies the index test's own lock to the mean and writes the final table, and
beside it the same table before calibration. A network is the mean of one: itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marrowflow.choices.calibration import ROW, finished, heads_of, kind_of, refuse_repeats, uncalibrated
from marrowflow.choices.threshold import read_lock
from marrowflow.cli import add_files, existing_file, step_parser
from marrowflow.config import ClassName, Section, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.predictions import ENDPOINT, PROBABILITY, write_predictions

_SAME = ("truth", "patient_id", "cohort", "status")


class Options(Section):
    """What a mean depends on, besides the members."""

    classes: list[ClassName]


def combine(members: Mapping[str, pd.DataFrame], classes: Sequence[str], index_test: str) -> pd.DataFrame:
    """Return the mean of the members' tables, in the order of the first one's rows.

    Parameters
    ----------
    members
        Raw prediction tables by what errors call them: one, or several that are matched by case, fold and partition.
    classes
        The study's classes in order.
    index_test
        Name of the mean.

    Returns
    -------
    DataFrame
        The first table with the means of ``p_<class>`` and ``endpoint_<name>``, and the largest mean's class as ``predicted``.

    Raises
    ------
    UserError
        Members that do not answer the same questions (classes, heads, one-vs-rest or not) for the same rows, or
        hold them against different truths or patients; a member with two rows of one case, fold and partition.
    """
    _check_questions(members, classes)
    tables = _aligned(members)
    first = tables[0]
    columns = [*(PROBABILITY + c for c in classes), *(ENDPOINT + name for name in heads_of(first))]
    means = np.mean([table[columns].to_numpy(np.float64) for table in tables], axis=0)
    combined = first.assign(**dict(zip(columns, means.T, strict=True)), index_test=index_test)
    best = means[:, : len(classes)].argmax(axis=1)
    # Members agree on which cases have no answer; those of images have one for each.
    done = combined["status"].eq("ok")
    return combined.assign(predicted=np.where(done, np.asarray(classes, dtype=object)[best], ""))


def _check_questions(members: Mapping[str, pd.DataFrame], classes: Sequence[str]) -> None:
    """Refuse members whose probabilities mean different things."""
    problems = [
        f"{name} has no column {PROBABILITY + c!r}"
        for name, table in members.items()
        for c in classes
        if PROBABILITY + c not in table
    ]
    heads = {name: ", ".join(sorted(heads_of(table))) or "none" for name, table in members.items()}
    if len(set(heads.values())) > 1:
        problems += [f"{name} has heads of the endpoints: {own}" for name, own in heads.items()]
    kinds = {} if problems else {name: kind_of(table, classes) for name, table in members.items()}
    if len(set(kinds.values())) > 1:
        problems += [f"{name} answers by {kind}" for name, kind in kinds.items()]
    if problems:
        raise UserError(
            enumerate_problems("members that answer different questions cannot be averaged:", problems)
        )


def _aligned(members: Mapping[str, pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the members' rows in the order of the first one's."""
    for name, table in members.items():
        refuse_repeats(table, name)
    (first_name, first), *others = members.items()
    rows = {name: pd.MultiIndex.from_frame(table[ROW]) for name, table in members.items()}
    tables = [first.reset_index(drop=True)]
    for name, table in others:
        _check_rows(rows[first_name], rows[name], first_name, name)
        tables.append(table.iloc[rows[name].get_indexer(rows[first_name])].reset_index(drop=True))
        _check_same(tables[0], tables[-1], first_name, name)
    return tables


def _check_rows(first: pd.MultiIndex, other: pd.MultiIndex, first_name: str, name: str) -> None:
    problems = [
        f"only {holder} holds case {case!r} (fold {fold}, {partition})"
        for holder, only in ((first_name, first.difference(other)), (name, other.difference(first)))
        for case, fold, partition in only
    ]
    if problems:
        raise UserError(
            enumerate_problems(
                f"{first_name} and {name} answer for different cases ({len(problems)} rows), so that they cannot be averaged:",
                problems,
            )
        )


def _check_same(first: pd.DataFrame, other: pd.DataFrame, first_name: str, name: str) -> None:
    for column in _SAME:
        differ = first[column].ne(other[column])
        if differ.any():
            raise UserError(
                enumerate_problems(
                    f"{first_name} and {name} differ in {column} ({int(differ.sum())} rows); predict both again:",
                    [
                        f"case {case!r}: {one!r} and {two!r}"
                        for case, one, two in zip(
                            first["case_id"][differ],
                            first[column][differ],
                            other[column][differ],
                            strict=True,
                        )
                    ],
                )
            )


def main(argv: Sequence[str]) -> None:
    """Write the mean of the members' tables: raw, or with a lock applied to it."""
    parser = step_parser("learning.combine", "Average the answers of an ensemble's members.")
    add_files(parser, "--tables", "raw table of each member, or of the network itself")
    parser.add_argument(
        "--index-test", required=True, help="name of the mean, <ensemble>-<colour> or <model>-<colour>"
    )
    parser.add_argument(
        "--lock", type=existing_file, help="the index test's own threshold.json, to apply to external cases"
    )
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    parser.add_argument(
        "--uncalibrated", type=Path, help="with --lock: the same table before calibration, to write as well"
    )
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    members = {str(path): pd.read_parquet(path) for path in args.tables}
    if len(members) < len(args.tables):
        raise UserError("--tables names a table twice: it would weigh twice; name each once")
    if args.uncalibrated and args.lock is None:
        raise UserError(
            "--uncalibrated goes with --lock: what is written without a lock is uncalibrated itself"
        )
    raw = combine(members, options.classes, args.index_test)
    if args.lock is None:
        write_table(args.out, raw)
    else:
        write_predictions(args.out, finished(raw, read_lock(args.lock), options.classes), options.classes)
        if args.uncalibrated:
            write_predictions(args.uncalibrated, uncalibrated(raw, options.classes), options.classes)
