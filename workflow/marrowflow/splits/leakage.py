"""The gate before any training: nobody stands on two sides of a fold.

Checked in each fold, against the inventories and not against what the split says of itself:

- no patient, no group, no exact copy (checksum) and no near-duplicate cluster in two partitions;
- each case once;
- in k-fold cross-validation, each case tested once over all folds;
- every parent of an augmentation plan is a training case of its fold.

Protocol ``sound``: a hit stops the run, and no gate is written. Protocol ``as_published`` divides patients
on purpose: what leaks is counted and written, and only the last three (which no published rule asks for)
stop it. Where it divides samples (``augmented: true``), each sample stands once, the plan and the folds
must have every sample on the same side, and one kind more is counted: parents, images whose copies stand
on two sides. ``gate.json`` holds::

    protocol, distance, n_cases, n_patients, n_groups
    leaky        true for as_published: the stamp that every output of this protocol bears
    leaks        for patients, groups, exact_duplicates, near_duplicates (and parents): n on two sides of
                 any fold
    folds        a fold: fold, n_test_cases and, for each of these, n (on two sides) and test_cases (those
                 with a like in training or validation; where samples are divided, samples)
    plans        a plan: fold, n_samples, n_parents
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.cohorts.duplicates import cluster_inventory
from marrowflow.config import Protocol, Section, Splits, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_json
from marrowflow.splits.partition import read_cases
from marrowflow.splits.samples import PARTITIONS, SAMPLE, TEST, TRAIN

log = logging.getLogger(__name__)

KINDS = {
    "patients": "patient_id",
    "groups": "group",
    "exact_duplicates": "sha256",
    "near_duplicates": "cluster",
}
"""What may not cross, and the column that identifies it."""
PARENTS = {"parents": "case_id"}
"""What crosses besides where samples are divided, and not the images that they were made of."""


class Options(Section):
    """What the gate depends on."""

    distance: int
    """Of near duplicates, in bits: the study's intake.near_duplicate_distance."""
    splits: Splits | None = None
    """If given and k-fold: each case must be tested exactly once."""


def check_folds(
    folds: pd.DataFrame,
    cases: pd.DataFrame,
    distance: int,
    protocol: Protocol,
    tested_once: bool = False,
    plans: Mapping[int, pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """Return the contents of ``gate.json``.

    Parameters
    ----------
    folds
        Table of `marrowflow.splits.partition`.
    cases
        Rows of the inventories that the folds were made from (patient_id, sha256, phash, thumb).
    distance
        Largest Hamming distance of near duplicates, bits.
    protocol
        ``sound`` stops on a leak, ``as_published`` counts it.
    tested_once
        Stop unless every case is tested exactly once over the folds.
    plans
        Augmentation plans by fold; one is asked for at a time.

    Raises
    ------
    UserError
        With examples of everything that was found.
    """
    # Only a published rule may divide samples: whatever the table says, a sound one has each image once.
    divides_samples = protocol == "as_published" and set(SAMPLE) <= set(folds)
    unit = ["case_id", *SAMPLE] if divides_samples else ["case_id"]
    problems = _misplaced(folds, cases, tested_once, unit)
    planned = []
    for fold, plan in (plans or {}).items():
        problems += _strange_rows(folds, fold, plan, unit)
        planned.append({"fold": fold, "n_samples": len(plan), "n_parents": int(plan["case_id"].nunique())})
    if problems:
        raise UserError(enumerate_problems("the folds cannot be trained on:", problems))
    identity = cases[["case_id", "patient_id", "sha256"]].assign(cluster=cluster_inventory(cases, distance))
    sides = folds[["fold", "case_id", "group", "partition"]].merge(
        identity, on="case_id", validate="many_to_one"
    )
    kinds = KINDS | PARENTS if divides_samples else KINDS
    crossing = {kind: _crossing(sides, column) for kind, column in kinds.items()}
    if divides_samples:
        # An image's own copies share its checksum and its cluster: they are counted as parents, not as duplicates of one another.
        for kind in ("exact_duplicates", "near_duplicates"):
            crossing[kind] &= sides.groupby(["fold", kinds[kind]])["case_id"].transform("nunique") > 1
    if protocol == "sound":
        _refuse_leaks(sides, crossing)
    return {
        "protocol": protocol,
        "leaky": protocol == "as_published",
        "distance": distance,
        "n_cases": int(sides["case_id"].nunique()),
        "n_patients": int(sides["patient_id"].nunique()),
        "n_groups": int(sides["group"].nunique()),
        "leaks": {
            kind: int(sides.loc[rows, column].nunique())
            for (kind, column), rows in zip(kinds.items(), crossing.values(), strict=True)
        },
        "folds": [_fold_counts(rows, kinds, crossing) for _, rows in sides.groupby("fold")],
        "plans": sorted(planned, key=itemgetter("fold")),
    }


class PlanFiles(Mapping[int, pd.DataFrame]):
    """Some columns of the plans of fold 0, of fold 1, …: each is read when it is asked for, as they may not fit the memory together."""

    def __init__(self, paths: Sequence[Path], columns: Sequence[str]) -> None:
        self._paths, self._columns = paths, list(columns)

    def __getitem__(self, fold: int) -> pd.DataFrame:
        return pd.read_parquet(self._paths[fold], columns=self._columns)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._paths)))

    def __len__(self) -> int:
        return len(self._paths)


def main(argv: Sequence[str]) -> None:
    """Check the folds, and plans if given; write ``gate.json``, or stop."""
    parser = step_parser(
        "splits.leakage", "Stop the run if a patient or a copy stands on two sides of a fold."
    )
    parser.add_argument("--protocol", choices=["sound", "as_published"], default="sound")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet of splits.partition"
    )
    parser.add_argument(
        "--inventories", type=existing_file, nargs="+", required=True, help="of the development cohorts"
    )
    parser.add_argument(
        "--plans",
        type=existing_file,
        nargs="*",
        default=[],
        help="plan.parquet of fold 0, of fold 1, …, all of them",
    )
    parser.add_argument("--out", type=Path, required=True, help="gate.json")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    rule = options.splits and (options.splits if args.protocol == "sound" else options.splits.as_published)
    folds = pd.read_parquet(args.folds)
    number = folds["fold"].nunique()
    if args.plans and len(args.plans) != number:
        parser.error(f"--plans: {len(args.plans)} given for {number} folds; give one for each, in order")
    gate = check_folds(
        folds,
        read_cases(args.inventories),
        options.distance,
        args.protocol,
        tested_once=rule is not None and rule.scheme == "kfold",
        plans=PlanFiles(args.plans, [name for name in ("case_id", *SAMPLE, "partition") if name in folds]),
    )
    found = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in gate["leaks"].items())
    log.info("%s: %s on two sides of a fold", args.protocol, found)
    write_json(args.out, gate)


def _misplaced(folds: pd.DataFrame, cases: pd.DataFrame, tested_once: bool, unit: Sequence[str]) -> list[str]:
    """Find cases that are unknown, left out, doubled in a fold, in no known partition or tested again.

    Of samples, a plan may leave out all of an image.
    """
    problems = []
    known, used = set(cases["case_id"]), set(folds["case_id"])
    problems += [f"case {case} stands in no inventory" for case in sorted(used - known)]
    for fold, rows in folds.groupby("fold"):
        left_out = known - set(rows["case_id"]) if list(unit) == ["case_id"] else set()
        problems += [f"fold {fold}: case {case} was left out" for case in sorted(left_out)]
    twice = folds[folds.duplicated(["fold", *unit])]
    problems += [f"fold {r.fold}: case {r.case_id} stands there more than once" for r in twice.itertuples()]
    odd = folds[~folds["partition"].isin(PARTITIONS)]
    problems += [f"fold {r.fold}: case {r.case_id} is in {r.partition!r}" for r in odd.itertuples()]
    if tested_once:
        times = folds["partition"].eq(TEST).groupby(folds["case_id"]).sum()
        problems += [
            f"case {case} is tested {n} times over all folds" for case, n in times[times != 1].items()
        ]
    return problems


def _strange_rows(folds: pd.DataFrame, fold: int, plan: pd.DataFrame, unit: Sequence[str]) -> list[str]:
    """Find rows of a plan that stand on another side than their fold has them on, and samples that it lacks.

    A plan of images is for training alone, and may leave some out.
    """
    of_samples = len(unit) > 1
    here = folds.loc[folds["fold"] == fold, [*unit, "partition"]]
    # Of images, a row for all copies of one: they have one place each.
    sides = plan[[*unit, "partition"]].drop_duplicates()
    both = sides.merge(here, on=list(unit), how="outer", suffixes=("", "_there"))
    both = both.fillna({"partition": "", "partition_there": "no case"})
    planned, lacking = both[both["partition"] != ""], both[both["partition"] == ""]
    wrong = planned["partition"] != planned["partition_there"]
    if not of_samples:
        wrong |= planned["partition"] != TRAIN
    problems = [
        f"the plan of fold {fold} augments {row.case_id} for {row.partition}, which is {row.partition_there} there"
        for row in planned[wrong].drop_duplicates("case_id").itertuples()
    ]
    if of_samples:
        problems += [
            f"the plan of fold {fold} lacks a copy of {case}" for case in lacking["case_id"].unique()
        ]
    return problems


def _crossing(sides: pd.DataFrame, column: str) -> pd.Series:
    """Mark the rows whose value of ``column`` stands in two partitions of their fold."""
    return sides.groupby(["fold", column])["partition"].transform("nunique") > 1


def _refuse_leaks(sides: pd.DataFrame, crossing: Mapping[str, pd.Series]) -> None:
    problems = []
    for kind, column in KINDS.items():
        for (fold, value), rows in sides[crossing[kind]].groupby(["fold", column]):
            first = rows.drop_duplicates("partition")
            where = " and ".join(f"{r.case_id} in {r.partition}" for r in first.itertuples())
            named = f" {value}" if column in ("patient_id", "group") else ""
            problems.append(f"fold {fold}, {kind.replace('_', ' ')}{named}: {where}")
    if problems:
        raise UserError(
            enumerate_problems("patients or copies of images stand on two sides of a fold:", problems)
            + "\nnothing was trained; delete folds.parquet and run again, so that the split is made anew"
        )


def _fold_counts(
    rows: pd.DataFrame, kinds: Mapping[str, str], crossing: Mapping[str, pd.Series]
) -> dict[str, Any]:
    tested = rows["partition"] == TEST
    counts: dict[str, Any] = {"fold": int(rows["fold"].iloc[0]), "n_test_cases": int(tested.sum())}
    for kind, column in kinds.items():
        hit = crossing[kind].loc[rows.index]
        counts[kind] = {"n": int(rows.loc[hit, column].nunique()), "test_cases": int((hit & tested).sum())}
    return counts
