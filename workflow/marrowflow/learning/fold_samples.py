"""Which samples a fold trains on, and by which its epoch is chosen: from the table of folds and the plan.

Where the protocol as published divides augmented images (see `marrowflow.splits.samples`), the table of folds
names samples, and those of all partitions stand in the plan. Everywhere else it names images, and the plan
holds training samples only.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from marrowflow.config import Augmentation
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.images.augment import COLUMNS
from marrowflow.images.store import PackedPixels
from marrowflow.images.whitening import Whitening, fit_whitening
from marrowflow.prediction_columns import PARENT
from marrowflow.splits.samples import SAMPLE, TEST, TRAIN, VALIDATION, sample_names

log = logging.getLogger(__name__)


def divides_samples(folds: pd.DataFrame) -> bool:
    """Say whether a table of folds names augmented samples and not images."""
    return set(SAMPLE) <= set(folds)


def fold_rows(folds: pd.DataFrame, fold: int, classes: Sequence[str]) -> pd.DataFrame:
    """Return a fold's rows; raise `UserError` for an unknown fold, unknown labels, or no training case."""
    rows = folds[folds["fold"] == fold].reset_index(drop=True)
    if rows.empty:
        raise UserError(f"--fold {fold}: the table of folds has {sorted(folds['fold'].unique().tolist())}")
    unknown = sorted(set(rows["label"]) - set(classes))
    if unknown:
        raise UserError(
            f"labels in the table of folds that are none of the classes {list(classes)}: {unknown}; "
            "both must come from one configuration"
        )
    trained = rows.loc[rows["partition"] == TRAIN, "label"]
    if trained.empty:
        raise UserError(f"fold {fold} has no training case; use fewer folds, or smaller shares for test")
    for name in classes:
        if name not in set(trained):
            log.warning("fold %d trains on no image of class %s: it cannot learn it", fold, name)
    return rows


def refuse_other_folds(found: Sequence[int], folds: pd.DataFrame) -> None:
    """Refuse networks of other folds (their numbers, ascending) than those of a table of folds."""
    wanted = sorted(folds["fold"].unique().tolist())
    if list(found) != wanted:
        raise UserError(
            f"--models holds networks of the folds {list(found)}, the table of folds has {wanted}"
        )


def training_samples(rows: pd.DataFrame, plan: pd.DataFrame | None, fold: int) -> pd.DataFrame:
    """Return an epoch's samples: the plan's, or each training image once.

    Returns
    -------
    DataFrame
        ``case_id`` of the image and ``label``; with a plan all of its columns.

    Raises
    ------
    UserError
        The plan augments an image that this fold does not train on, which would leak; it is not of this table of folds, or
        no plan at all; samples were divided, and there is no plan of them.
    """
    if divides_samples(rows) and plan is None:
        raise UserError("this table of folds divides augmented samples: give their --plan")
    train = rows[rows["partition"] == TRAIN]
    if plan is None:
        return train
    lacking = sorted(set(COLUMNS) - set(plan))
    if lacking:
        raise UserError(f"--plan is no plan of images.augment: it has no column {', '.join(lacking)}")
    planned = plan[plan["partition"] == TRAIN]
    strangers = sorted(set(planned["case_id"]) - set(train["case_id"]))
    if strangers:
        raise UserError(
            enumerate_problems(
                f"the plan augments images that fold {fold} does not train on; draw it from this table of folds:",
                strangers,
            )
        )
    labels = train.drop_duplicates("case_id").set_index("case_id")["label"]
    other = planned[planned["label"].ne(labels.loc[planned["case_id"]].to_numpy())]
    if len(other):
        raise UserError(
            enumerate_problems(
                "the plan calls images otherwise than the table of folds; draw it from this table of folds:",
                sorted({f"{r.case_id}: {r.label!r}, not {labels[r.case_id]!r}" for r in other.itertuples()}),
            )
        )
    lost = sorted(set(labels) - set(planned["label"]))
    if lost:
        raise UserError(
            f"the plan holds no training image of {', '.join(lost)}, on which fold {fold} trains; draw it from this table "
            "of folds"
        )
    return planned.reset_index(drop=True)


def validation_samples(rows: pd.DataFrame, plan: pd.DataFrame | None) -> pd.DataFrame:
    """Return the samples that choose the epoch, as `training_samples` does; maybe none."""
    source = plan if plan is not None and divides_samples(rows) else rows
    return source[source["partition"] == VALIDATION].reset_index(drop=True)


def answered_samples(rows: pd.DataFrame, plan: pd.DataFrame | None) -> pd.DataFrame:
    """Return what a fold's network answers for: its validation and test rows.

    Of divided samples they have the plan's columns besides, ``parent`` is the image's ``case_id``, and ``case_id`` the
    sample's own name.
    """
    answered = rows[rows["partition"].isin([VALIDATION, TEST])].reset_index(drop=True)
    if not divides_samples(rows):
        return answered
    if plan is None:
        raise UserError("this table of folds divides augmented samples: give a plan of each fold as --plans")
    key = ["case_id", *SAMPLE]
    own = plan.drop(columns=["label", "partition"])
    merged = answered.merge(own, on=key, how="left", validate="one_to_one", indicator=True)
    if (merged["_merge"] != "both").any():
        raise UserError(
            "the plan lacks samples that the table of folds names; draw it from this table of folds"
        )
    return merged.assign(**{PARENT: merged["case_id"], "case_id": sample_names(merged)}).drop(
        columns="_merge"
    )


def fitted_whitening(
    plan: pd.DataFrame | None, pixels: PackedPixels, augmentation: Augmentation
) -> Whitening | None:
    """Fit the whitening of a fold's plan; None where nothing is whitened, or there is no plan."""
    return None if plan is None else fit_whitening(plan, pixels.of, augmentation)


def counts(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Return images (or samples, where those are divided) and patients of each partition and class."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for partition in (TRAIN, VALIDATION, TEST):
        part = rows[rows["partition"] == partition]
        found[partition] = {
            name: {
                "images": int((part["label"] == name).sum()),
                "patients": int(part.loc[part["label"] == name, "patient_id"].nunique()),
            }
            for name in classes
        }
    return found


def class_numbers(rows: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Return each row's class number, int64."""
    return rows["label"].map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
