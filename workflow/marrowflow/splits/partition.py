"""Divide the development cases into training, validation and test sets, fold by fold.

Protocol ``sound``
    What is dealt is the *group*: patients joined by near duplicates (of any cohort) to one whole. Groups
    never cross.
Protocol ``as_published``
    What is dealt is the image, as the study was published. The column ``group`` still says which images
    belong together, so that `marrowflow.splits.leakage` can count what leaks.

Strata are (cohort, label). A group with several labels (an infected patient has infected and healthy
cells) stands in the stratum of its most frequent one; among equals, of the first in the study's order.

Inside a stratum the groups stand in the order of a keyed hash of their name and are dealt out in turn:

kfold
    Fold i tests every k-th group. The first group's fold comes from a hash of the stratum, so that many
    small strata do not all fill fold 0 first.
monte_carlo, holdout
    The first ones in the order are tested on; each repeat has an order of its own.

Validation is dealt likewise from the groups that are not tested on, in a second order. A share of n
groups is rounded to the nearest whole number (a half upwards), at least 1 and at most n - 1; a stratum of
one group gives none, it trains.

A group's name is its smallest patient id, a stratum lies within one cohort, and every number above is
found from the stratum alone. So adding a cohort, or a class with patients of its own, moves nobody. What
spans cohorts is dealt in each of them by itself, and goes where its part in the first of them goes (in the
order of the inventories): cohorts added later do not move it either. One exception cannot be helped: an
image of a new cohort that is a near duplicate of two groups makes them one, and one of the two follows.

Protocol ``as_published``, scheme ``column``: the manifest column says it. Where it names no validation
images, they are dealt from its training images by the rule above.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from marrowflow.cli import existing_file, step_parser
from marrowflow.cohorts.duplicates import cluster_inventory
from marrowflow.config import AsPublished, ClassName, Protocol, Section, Splits, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.splits.keyed import keyed_hash, keyed_order

log = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTITIONS = (TRAIN, VALIDATION, TEST)
COLUMNS = ("fold", "case_id", "patient_id", "group", "cohort", "label", "partition")

_WORDS = {"train": TRAIN, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "test": TEST}

Strata = Mapping[tuple[str, str], Sequence[str]]
"""(cohort, label) → names of what is dealt there."""


class Options(Section):
    """What the division depends on."""

    splits: Splits = Splits()
    classes: list[ClassName]
    distance: int
    """Of near duplicates, in bits: the study's intake.near_duplicate_distance."""


def read_cases(inventories: Sequence[Path]) -> pd.DataFrame:
    """Read inventories and keep what can be trained and tested on: included, with a usable reference.

    ``manifest_row`` is added: the row's number in its manifest, from 1.
    """
    tables = [pd.read_parquet(path) for path in inventories]
    whole = pd.concat(
        [table.assign(manifest_row=np.arange(1, len(table) + 1)) for table in tables], ignore_index=True
    )
    usable = (whole["status"] == "included") & (whole["reference_status"] == "ok")
    if not usable.any():
        raise UserError(
            f"none of the {len(whole)} development images is included and has a reference standard; "
            "the column reason of the inventories says why images were excluded"
        )
    return whole[usable].reset_index(drop=True)


def partition(
    cases: pd.DataFrame,
    splits: Splits,
    classes: Sequence[str],
    distance: int,
    protocol: Protocol = "sound",
) -> pd.DataFrame:
    """Divide the cases.

    Parameters
    ----------
    cases
        Rows of the development cohorts' inventories, as `read_cases` returns them.
    splits
        Scheme, folds, shares and seed.
    classes
        The study's classes in order.
    distance
        Largest Hamming distance of near duplicates' perceptual hashes, bits.
    protocol
        ``as_published`` deals images, by the scheme of ``splits.as_published``.

    Returns
    -------
    DataFrame
        `COLUMNS`; fold int64 from 0, one row a fold and case, in the order of ``cases`` within each fold.

    Raises
    ------
    UserError
        A class with too few patients for the scheme (and what would be possible); a label that is no
        class; a split column that is missing, holds other words, or leaves training or test empty.
    """
    _refuse_other_labels(cases, classes)
    part, group = group_patients(cases, distance)
    rule: Splits | AsPublished = splits
    unit, dealt_by = group, part
    if protocol == "as_published":
        if splits.as_published is None:
            raise UserError("protocol as_published needs splits.as_published: it says how the paper split")
        rule = splits.as_published
        unit = dealt_by = cases["case_id"]
    if isinstance(rule, AsPublished) and rule.scheme == "column":
        sides = [_by_column(cases, rule, splits.seed, classes)]
    else:
        _refuse_scarce_classes(cases, unit, rule, classes)
        dealt = deal(_strata(cases, dealt_by, classes), rule, splits.seed)
        sides = [unit.map(side) for side in dealt]
    columns = cases[["case_id", "patient_id", "cohort", "label"]].assign(group=group)
    folds = pd.concat(
        [columns.assign(fold=fold, partition=side) for fold, side in enumerate(sides)], ignore_index=True
    )[list(COLUMNS)]
    _refuse_empty_sides(folds, rule, classes)
    return folds


def group_patients(cases: pd.DataFrame, distance: int) -> tuple[pd.Series, pd.Series]:
    """Join patients that share a near-duplicate cluster.

    Returns
    -------
    part
        Each case's group when only its own cohort is looked at, named by its smallest patient id.
    group
        Each case's group over all cohorts, named by its part in the first cohort of ``cases``.
    """
    parts = [
        connected(rows["patient_id"], cluster_inventory(rows, distance))
        for _, rows in cases.groupby("cohort", sort=False)
    ]
    part = pd.concat(parts).reindex(cases.index)
    if len(parts) == 1:
        return part, part
    whole = connected(part, cluster_inventory(cases, distance))
    rank = pd.factorize(cases["cohort"])[0]
    first = pd.DataFrame({"rank": rank, "part": part, "whole": whole}).sort_values(["rank", "part"])
    return part, whole.map(first.groupby("whole")["part"].first())


def connected(patients: pd.Series, clusters: pd.Series) -> pd.Series:
    """Return each row's component of the graph of patients and clusters, named by its smallest patient."""
    patient, cluster = (pd.factorize(column)[0] for column in (patients, clusters))
    nodes = patient.max() + cluster.max() + 2
    graph = coo_array((np.ones(len(patient)), (patient, cluster + patient.max() + 1)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][patient]
    return patients.groupby(component).transform("min")


def deal(strata: Strata, rule: Splits | AsPublished, seed: int) -> list[dict[str, str]]:
    """Deal each stratum's names out; return one mapping a fold, from name to partition.

    Parameters
    ----------
    strata
        Names by (cohort, label), each name in one stratum; their order makes no difference.
    rule
        Scheme, folds and shares.
    seed
        Key of the hashes.
    """
    number = 1 if rule.scheme == "holdout" else rule.folds
    folds: list[dict[str, str]] = [{} for _ in range(number)]
    for (cohort, label), names in strata.items():
        in_turn = keyed_order(names, seed, 0)
        offset = keyed_hash(seed, "first fold", cohort, label)
        for fold in range(number):
            if rule.scheme == "kfold":
                tested = in_turn[(fold - offset) % number :: number]
            else:
                tested = keyed_order(names, seed, fold)[: share_of(len(names), rule.test)]
            rest = sorted(set(names).difference(tested))
            ordered = keyed_order(rest, seed, fold, "validation")
            validated = ordered[: share_of(len(rest), rule.validation)]
            folds[fold] |= dict.fromkeys(rest, TRAIN)
            folds[fold] |= dict.fromkeys(validated, VALIDATION)
            folds[fold] |= dict.fromkeys(tested, TEST)
    return folds


def share_of(number: int, share: float) -> int:
    """Round ``share * number``, a half upwards, to at least 1 and at most ``number - 1``; 0 where that cannot be."""
    if share == 0 or number < 2:
        return 0
    return min(max(math.floor(share * number + 0.5), 1), number - 1)


def count_sides(folds: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count cases, patients and groups of each fold, partition and class, zeros included."""
    counts = (
        folds.groupby(["fold", "partition", "label"])
        .agg(
            n_cases=("case_id", "size"),
            n_patients=("patient_id", "nunique"),
            n_groups=("group", "nunique"),
        )
        .reindex(
            pd.MultiIndex.from_product(
                [sorted(folds["fold"].unique()), PARTITIONS, classes], names=["fold", "partition", "label"]
            ),
            fill_value=0,
        )
    )
    return counts.reset_index()


def main(argv: Sequence[str]) -> None:
    """Write the table of folds and its counts."""
    parser = step_parser("splits.partition", "Divide development patients into folds.")
    parser.add_argument("--protocol", choices=["sound", "as_published"], default="sound")
    parser.add_argument(
        "--inventories",
        type=existing_file,
        nargs="+",
        required=True,
        help="of the development cohorts, in order",
    )
    parser.add_argument("--out", type=Path, required=True, help="folds.parquet")
    parser.add_argument("--counts", type=Path, required=True, help="counts.csv")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    cases = read_cases(args.inventories)
    folds = partition(cases, options.splits, options.classes, options.distance, args.protocol)
    counts = count_sides(folds, options.classes)
    _log_groups(folds[folds["fold"] == 0])
    for (fold, side), rows in counts.groupby(["fold", "partition"], sort=False):
        listed = ", ".join(
            f"{r.label} {r.n_patients} patients ({r.n_cases} images)" for r in rows.itertuples()
        )
        log.info("fold %s, %s: %s", fold, side, listed)
    write_table(args.out, folds)
    write_table(args.counts, counts)


def _strata(cases: pd.DataFrame, unit: pd.Series, classes: Sequence[str]) -> Strata:
    """Put each unit into (its cohort, its most frequent label; among equals the first in order)."""
    rank = {label: i for i, label in enumerate(classes)}
    labels = cases.groupby([unit.rename("unit"), "cohort", "label"]).size().rename("n").reset_index()
    labels["rank"] = labels["label"].map(rank)
    chosen = labels.sort_values(["n", "rank"], ascending=[False, True]).drop_duplicates("unit")
    strata: dict[tuple[str, str], list[str]] = {}
    for name, cohort, label in zip(chosen["unit"], chosen["cohort"], chosen["label"], strict=True):
        strata.setdefault((cohort, label), []).append(name)
    return strata


def _by_column(cases: pd.DataFrame, rule: AsPublished, seed: int, classes: Sequence[str]) -> pd.Series:
    """Return each case's partition as its manifest says."""
    if rule.column not in cases:
        raise UserError(
            f"splits.as_published.column: no manifest has a column {rule.column!r}; "
            f"columns: {', '.join(map(str, cases.columns))}"
        )
    words = cases[rule.column].astype("object").where(cases[rule.column].notna(), "").astype(str)
    side = words.str.strip().str.lower().map(_WORDS)
    unknown = cases.assign(word=words)[side.isna()]
    if len(unknown):
        found = [
            f"{word!r} in {len(rows)} rows, first in row {rows['manifest_row'].iloc[0]} of the manifest of "
            f"{rows['cohort'].iloc[0]}"
            for word, rows in unknown.groupby("word", sort=False)
        ]
        heading = f"column {rule.column!r} may say train, validation (valid, val) or test; found:"
        raise UserError(enumerate_problems(heading, found))
    for needed in (TRAIN, TEST):
        if not (side == needed).any():
            raise UserError(
                f"column {rule.column!r} puts no usable image into {needed}; "
                f"its words are {', '.join(map(repr, sorted(words.unique())))}"
            )
    if not (side == VALIDATION).any():
        train = cases[side == TRAIN]
        for names in _strata(train, train["case_id"], classes).values():
            chosen = keyed_order(names, seed, 0, "validation")[: share_of(len(names), rule.validation)]
            side[cases["case_id"].isin(chosen)] = VALIDATION
    return side


def _refuse_other_labels(cases: pd.DataFrame, classes: Sequence[str]) -> None:
    other = cases[~cases["label"].isin(classes)]
    if len(other):
        found = [
            f"{label!r}: {len(rows)} images, the first {rows['case_id'].iloc[0]}"
            for label, rows in other.groupby("label")
        ]
        raise UserError(
            enumerate_problems(
                f"labels that are no class of {list(classes)} (map them with label_map):", found
            )
        )


def _refuse_scarce_classes(
    cases: pd.DataFrame, unit: pd.Series, rule: Splits | AsPublished, classes: Sequence[str]
) -> None:
    """Stop when a class has too few units for training, validation and test to hold one each."""
    if rule.scheme != "kfold" and rule.test == 0:
        raise UserError(f"splits: scheme {rule.scheme} with test: 0 tests nobody; set a share, such as 0.25")
    units, patients = (column.groupby(cases["label"]).nunique() for column in (unit, cases["patient_id"]))
    problems = []
    for label in classes:
        n, n_patients = int(units.get(label, 0)), int(patients.get(label, 0))
        if not _fits(n, rule.scheme, rule.folds, rule):
            found = f"{n_patients} patients" if isinstance(rule, Splits) else f"{n} images"
            if isinstance(rule, Splits) and n < n_patients:
                found += f" in {n} groups (near duplicates join patients)"
            problems.append(f"class {label!r} has {found}. {_possible(n, rule)}")
    if problems:
        asked = f"kfold, folds: {rule.folds}" if rule.scheme == "kfold" else rule.scheme
        raise UserError(enumerate_problems(f"too few for scheme: {asked}", problems))


def _fits(number: int, scheme: str, folds: int, rule: Splits | AsPublished) -> bool:
    """Whether each fold gets one of ``number`` to test, one to train on and, if asked for, one to validate."""
    if scheme == "kfold":
        least, most = number // folds, -(-number // folds)
    else:
        least = most = share_of(number, rule.test)
    return least >= 1 and number - most >= (2 if rule.validation > 0 else 1)


def _possible(number: int, rule: Splits | AsPublished) -> str:
    """Say which schemes ``number`` groups of a class allow."""
    folds = [k for k in range(2, number + 1) if _fits(number, "kfold", k, rule)]
    ways = []
    if folds:
        span = f"{folds[0]} to {folds[-1]}" if len(folds) > 1 else f"{folds[0]}"
        ways.append(f"scheme: kfold with folds: {span}")
    if _fits(number, "holdout", 1, rule):
        ways.append("scheme: holdout or monte_carlo")
    merge = "add patients, or merge the class into another (label_map) or take it out of classes"
    return f"Possible: {'; or '.join(ways)}; or {merge}" if ways else f"No scheme is possible: {merge}"


def _refuse_empty_sides(folds: pd.DataFrame, rule: Splits | AsPublished, classes: Sequence[str]) -> None:
    """Stop where a fold cannot be trained, validated or tested at all; warn where one class is left out.

    Over all cohorts a class may have enough patients and yet miss a fold, when each cohort has few.
    """
    counts = count_sides(folds, classes)
    wanted = [side for side in PARTITIONS if side != VALIDATION or rule.validation > 0]
    needs_all = {TRAIN} if rule.scheme in ("kfold", "column") else {TRAIN, TEST}
    problems = []
    for (fold, side), rows in counts[counts["partition"].isin(wanted)].groupby(
        ["fold", "partition"], sort=False
    ):
        absent = rows.loc[rows["n_cases"] == 0, "label"].tolist()
        if absent and (side in needs_all or len(absent) == len(classes)):
            problems.append(f"fold {fold}: nothing of {', '.join(map(repr, absent))} in {side}")
        elif absent:
            log.warning("fold %s: nothing of %s in %s", fold, ", ".join(map(repr, absent)), side)
    if problems:
        raise UserError(
            enumerate_problems("the patients of each cohort and class are too few to be dealt:", problems)
            + "\nset another splits.seed, fewer splits.folds or another splits.scheme, or add patients"
        )


def _log_groups(folds: pd.DataFrame) -> None:
    """Log how far near duplicates join patients; one group of many patients points at a distance too wide."""
    patients = folds.groupby("group")["patient_id"].nunique()
    log.info("%d patients in %d groups", folds["patient_id"].nunique(), len(patients))
    if patients.max() > max(2, 0.1 * folds["patient_id"].nunique()):
        log.warning(
            "near duplicates join %d patients to one group, that of %s; if these are not copies of images, "
            "lower intake.near_duplicate_distance",
            patients.max(),
            patients.idxmax(),
        )
