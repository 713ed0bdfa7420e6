"""Stop before a split that cannot be made, and say which could."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd

from marrowflow.config import AsPublished, Splits
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.splits.dealing import share_of
from marrowflow.splits.samples import PARTITIONS, TEST, TRAIN, VALIDATION

log = logging.getLogger(__name__)


def refuse_scarce_classes(
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
            if isinstance(rule, AsPublished):
                found = f"{n} augmented images" if rule.augmented else f"{n} images"
            else:
                found = f"{n_patients} patients"
                found += f" in {n} groups (near duplicates join patients)" if n < n_patients else ""
            problems.append(f"class {label!r} has {found}. {_possible(n, rule)}")
    if problems:
        asked = f"kfold, folds: {rule.folds}" if rule.scheme == "kfold" else rule.scheme
        raise UserError(enumerate_problems(f"too few for scheme: {asked}", problems))


def refuse_empty_sides(counts: pd.DataFrame, rule: Splits | AsPublished, classes: Sequence[str]) -> None:
    """Stop where a fold cannot be trained, validated or tested at all; warn where one class is left out.

    Over all cohorts a class may have enough patients and yet miss a fold, when each cohort has few.
    """
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
