"""Which samples an epoch holds: every image with the copies that a plan makes of it, by name.

What each copy looks like is drawn later (`marrowflow.images.augment`). The names come first, because the
protocol ``as_published`` with ``augmented: true`` divides samples and not images (see
`marrowflow.splits.partition`).

off
    Each image once, as it is.
eight
    The eight transforms of aamds2022 beside the original: rotation, ZCA whitening, width shift, height
    shift, shear, zoom in, horizontal and vertical flip. The paper makes three of each, 24 an image. But a
    flip has one outcome, and so has whitening: made three times they are one picture three times over,
    which weighs it and adds nothing. They are made once; with `copies` c an image gives 1 + 5c + 3 samples
    (19 for c = 3). A transform whose range is set to 0 is left out for the same reason.
balanced
    The targets of bt5153, for each class or for each type (the manifests' own label, before the label
    map): of one above its target that many images are kept, by keyed hash; of one below it every image
    stands once, and the rest are ``mixed`` copies (any rotation, shift, shear and zoom within the ranges,
    each flip by the toss of a coin), spread as evenly as they go. What has no target keeps its number.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from marrowflow.config import Augmentation
from marrowflow.config_problems import not_among
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.splits.keyed import keyed_order

log = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTITIONS = (TRAIN, VALIDATION, TEST)
EIGHT = (
    "rotate",
    "whiten",
    "width_shift",
    "height_shift",
    "shear",
    "zoom",
    "flip_h",
    "flip_v",
)
ORIGINAL, MIXED = "original", "mixed"
ONE_OUTCOME = ("whiten", "flip_h", "flip_v")
SAMPLE = ("transform", "copy")
"""Columns that, beside the image's ``case_id``, tell a sample from all others."""
DRAWN_ONCE = 0
"""Fold that samples are drawn for when they are divided afterwards: all folds then share them."""


def samples_of(
    cases: pd.DataFrame, augmentation: Augmentation, fold: int, targeted: Sequence[str]
) -> pd.DataFrame:
    """Return the samples that a plan makes of some images.

    Parameters
    ----------
    cases
        Columns ``case_id``, ``label``, ``type``; one row an image.
    augmentation
        Plan, copies, targets and seed.
    fold
        Key of the choice of images of a class above its target.
    targeted
        From `targeted_names`.

    Returns
    -------
    DataFrame
        ``case_id``, ``label`` (the class), ``transform``, ``copy`` (int64, from 0); images in the order of
        ``cases``, an image's samples next to each other.

    Raises
    ------
    UserError
        A target for a class or type that no image of the study is of, or for a class that none of ``cases`` is of.
    """
    if augmentation.plan == "balanced":
        return _balanced(cases, augmentation, fold, targeted)
    transforms = [(ORIGINAL, 1), *(_eight_draws(augmentation) if augmentation.plan == "eight" else [])]
    names = [name for name, number in transforms for _ in range(number)]
    copies = [copy for _, number in transforms for copy in range(number)]
    return pd.DataFrame(
        {
            "case_id": np.repeat(cases["case_id"].to_numpy(object), len(names)),
            "label": np.repeat(cases["label"].to_numpy(object), len(names)),
            "transform": np.tile(np.asarray(names, object), len(cases)),
            "copy": np.tile(np.asarray(copies, np.int64), len(cases)),
        }
    )


def targeted_names(cases: pd.DataFrame, augmentation: Augmentation, classes: Sequence[str]) -> list[str]:
    """Return what targets may name: the study's classes, or all types among its development images."""
    return sorted(set(cases["type"])) if augmentation.targets_of == "types" else list(classes)


def sample_names(samples: pd.DataFrame) -> pd.Series:
    """Return each sample's own name, ``<case_id>#<transform><copy>``."""
    return samples["case_id"] + "#" + samples["transform"] + samples["copy"].astype(str)


def _eight_draws(augmentation: Augmentation) -> list[tuple[str, int]]:
    """Return each transform of the eight that changes the image, with its number of draws."""
    ranges = {
        "rotate": augmentation.rotation,
        "width_shift": augmentation.shift,
        "height_shift": augmentation.shift,
        "shear": augmentation.shear,
        "zoom": augmentation.zoom,
    }
    return [
        (name, 1 if name in ONE_OUTCOME else augmentation.copies)
        for name in EIGHT
        if name in ONE_OUTCOME or ranges[name] > 0
    ]


def _balanced(
    cases: pd.DataFrame, augmentation: Augmentation, fold: int, targeted: Sequence[str]
) -> pd.DataFrame:
    """Return the samples with each class, or each type, at its target."""
    column, kind = ("type", "type") if augmentation.targets_of == "types" else ("label", "class")
    unknown = [not_among(name, list(targeted)) for name in augmentation.targets if name not in targeted]
    if unknown:
        raise UserError(
            enumerate_problems(f"augmentation.targets: no development image is of this {kind}:", unknown)
        )
    members = cases.groupby(column)["case_id"].agg(list)
    mixed: dict[str, int] = {}
    for name in targeted:
        images = members.get(name, [])
        target = augmentation.targets.get(name, len(images))
        if target and not images:
            found = f"augmentation.targets.{name}: {target} images wanted, but fold {fold} trains on none of this {kind}"
            if kind == "class":
                raise UserError(found)
            # Patients are dealt by class, so that a fold may miss a type of a handful of images; its class is still there.
            log.warning("%s; its class has so many fewer", found)
        ordered = keyed_order(images, augmentation.seed, fold, "balanced")
        if images:
            even, more = divmod(max(target - len(images), 0), len(images))
            mixed |= {case: even + (i < more) for i, case in enumerate(ordered[:target])}
    kept = cases[cases["case_id"].isin(mixed)]
    rows = [1 + mixed[case] for case in kept["case_id"]]
    position = np.concatenate([np.arange(number) for number in rows])
    return pd.DataFrame(
        {
            "case_id": np.repeat(kept["case_id"].to_numpy(object), rows),
            "label": np.repeat(kept["label"].to_numpy(object), rows),
            "transform": np.where(position == 0, ORIGINAL, MIXED),
            "copy": np.maximum(position - 1, 0),
        }
    )
