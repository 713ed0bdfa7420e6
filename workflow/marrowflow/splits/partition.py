"""Divide the development cases into training, validation and test sets, fold by fold.

Protocol ``sound``
    What is dealt is the *group*: patients joined by near duplicates (of any cohort) to one whole. Groups
    never cross.
Protocol ``as_published``
    What is dealt is the image, as the study was published. The column ``group`` still says which images
    belong together, so that `marrowflow.splits.leakage` can count what leaks.
Protocol ``as_published`` with ``augmented: true``
    What is dealt is the sample: an image's original and each of its augmented copies (aamds2022 augmented
    first and then divided). The table then has one row a fold and sample, and two more columns,
    ``transform`` and ``copy``, that tell an image's samples apart; copies of one image stand on several sides.

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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import AsPublished, Augmentation, ClassName, Protocol, Section, Splits, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.splits.dealing import Strata, deal, share_of
from marrowflow.splits.groups import group_patients
from marrowflow.splits.keyed import keyed_order
from marrowflow.splits.samples import (
    DRAWN_ONCE,
    PARTITIONS,
    SAMPLE,
    TEST,
    TRAIN,
    VALIDATION,
    sample_names,
    samples_of,
    targeted_names,
)
from marrowflow.splits.shortage import refuse_empty_sides, refuse_scarce_classes

log = logging.getLogger(__name__)

COLUMNS = ("fold", "case_id", "patient_id", "group", "cohort", "label", "type", "partition")
"""Of folds.parquet; ``type`` is the manifests' own label, before the label map."""

_WORDS = {"train": TRAIN, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "test": TEST}


class Options(Section):
    """What the division depends on."""

    splits: Splits = Splits()
    classes: list[ClassName]
    distance: int
    """Of near duplicates, in bits: the study's intake.near_duplicate_distance."""
    augmentation: Augmentation = Augmentation()
    """Which samples there are, where samples are divided (as_published.augmented)."""


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
    augmentation: Augmentation | None = None,
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
        ``as_published`` deals images, or their augmented copies, by the scheme of ``splits.as_published``.
    augmentation
        Which copies there are; needed where they are dealt.

    Returns
    -------
    DataFrame
        `COLUMNS`; fold int64 from 0, one row a fold and case, in the order of ``cases`` within each fold. Where
        samples are dealt, one row a fold and sample, with the columns `marrowflow.splits.samples.SAMPLE`.

    Raises
    ------
    UserError
        A class with too few patients for the scheme (and what would be possible); a label that is no
        class; a split column that is missing, holds other words, or leaves training or test empty;
        samples to be dealt where nothing is augmented.
    """
    _refuse_other_labels(cases, classes)
    part, group = group_patients(cases, distance)
    cases = cases.assign(group=group)
    rule: Splits | AsPublished = splits
    unit, dealt_by = group, part
    names: tuple[str, ...] = COLUMNS
    if protocol == "as_published":
        if splits.as_published is None:
            raise UserError("protocol as_published needs splits.as_published: it says how the paper split")
        rule = splits.as_published
        unit = dealt_by = cases["case_id"]
        if rule.augmented:
            cases, names = _with_copies(cases, augmentation, classes), (*COLUMNS, *SAMPLE)
            unit = dealt_by = sample_names(cases)
    if isinstance(rule, AsPublished) and rule.scheme == "column":
        sides = [_by_column(cases, rule, splits.seed, classes)]
    else:
        refuse_scarce_classes(cases, unit, rule, classes)
        dealt = deal(_strata(cases, dealt_by, classes), rule, splits.seed)
        sides = [unit.map(side) for side in dealt]
    folds = pd.concat(
        [cases.assign(fold=fold, partition=side) for fold, side in enumerate(sides)], ignore_index=True
    )[list(names)]
    refuse_empty_sides(count_sides(folds, classes), rule, classes)
    return folds


def count_sides(folds: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count cases, patients and groups of each fold, partition and class, zeros included; where samples are dealt, those are the cases."""
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
    folds = partition(
        cases, options.splits, options.classes, options.distance, args.protocol, options.augmentation
    )
    counts = count_sides(folds, options.classes)
    _log_groups(folds[folds["fold"] == 0])
    for (fold, side), rows in counts.groupby(["fold", "partition"], sort=False):
        listed = ", ".join(
            f"{r.label} {r.n_patients} patients ({r.n_cases} images)" for r in rows.itertuples()
        )
        log.info("fold %s, %s: %s", fold, side, listed)
    write_table(args.out, folds)
    write_table(args.counts, counts)


def _with_copies(
    cases: pd.DataFrame, augmentation: Augmentation | None, classes: Sequence[str]
) -> pd.DataFrame:
    """Return one row a sample instead of one an image, with the columns `SAMPLE`."""
    if augmentation is None or augmentation.plan == "off":
        raise UserError(
            "splits.as_published.augmented: true divides augmented images, and augmentation.plan is off; set "
            "plan: eight or balanced, or augmented: false to divide the images themselves"
        )
    samples = samples_of(cases, augmentation, DRAWN_ONCE, targeted_names(cases, augmentation, classes))
    images = cases[["case_id", "patient_id", "group", "cohort", "label", "type"]]
    return samples[["case_id", *SAMPLE]].merge(images, on="case_id", validate="many_to_one")


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
