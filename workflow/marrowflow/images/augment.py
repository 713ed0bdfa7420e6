"""Draw the plan of augmented training images of one fold, and apply plans to pixels.

A plan is a table, not a copy: one row a training sample of one epoch, with its parent image and the
parameters of its transform. It is drawn after the split, for training cases only, and is applied while
training: on a GPU by `marrowflow.learning.preparation`; on a CPU by `apply`, which rounds to whole levels, and
which `marrowflow.images.materialise` calls too. Columns:

================ ======= ======================================================================
case_id          string  the parent image
label            string  its class
partition        string  train; in a division of samples also validation and test (see below)
copy             int64   number of the draw within its transform, from 0
transform        string  original, one of `EIGHT`, or ``mixed`` (plan balanced)
angle            float64 rotation, degrees, anticlockwise
shift_x, shift_y float64 shift to the right and down, as a share of the side
shear            float64 degrees; a row y below the centre moves y·tan(shear) to the right
zoom             float64 factor, 1 or more
flip_h, flip_v   bool    left and right, top and bottom exchanged
whiten           bool    patch ZCA (see `marrowflow.images.whitening`), after the geometry
seed             int64   the row's own key, for whatever else is drawn at random for the sample
================ ======= ======================================================================

Which samples there are (off, eight, balanced) is told in `marrowflow.splits.samples`. The order of the
geometry is flip, rotate, shear, zoom, shift, all about the image's centre; one affine matrix and one
interpolation for all of them (`matrices`). What comes in from outside repeats the edge.

Every number is drawn from a hash of (seed, fold, case, transform, copy): a row does not depend on which
other cases there are, nor on their order.

Under ``as_published`` with ``augmented: true`` the table of folds names samples, not images, as divided by
`marrowflow.splits.partition`. The plan then holds all of them, each in its partition, and a sample is the same
picture in every fold, as pictures are that were made once, before they were divided.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Augmentation, ClassName, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.images.whitening import Whitening, apply_whitening
from marrowflow.splits.samples import DRAWN_ONCE, MIXED, SAMPLE, TRAIN, samples_of, targeted_names

log = logging.getLogger(__name__)

COLUMNS = (
    "case_id",
    "label",
    "partition",
    "copy",
    "transform",
    "angle",
    "shift_x",
    "shift_y",
    "shear",
    "zoom",
    "flip_h",
    "flip_v",
    "whiten",
    "seed",
)


class Options(Section):
    """What the plan depends on."""

    augmentation: Augmentation = Augmentation()
    classes: list[ClassName]


def draw_plan(
    folds: pd.DataFrame, fold: int, augmentation: Augmentation, classes: Sequence[str]
) -> pd.DataFrame:
    """Draw the plan of one fold.

    Parameters
    ----------
    folds
        Table of `marrowflow.splits.partition`; of images, only this fold's partition ``train`` is augmented; of
        samples, all of this fold's are drawn.
    fold
        Which fold.
    augmentation
        Plan, ranges and seed.
    classes
        The study's classes.

    Returns
    -------
    DataFrame
        The columns above; cases in the order of ``folds``, an image's rows next to each other.

    Raises
    ------
    UserError
        No training case in this fold; a target for a class or type without training images.
    """
    here = folds[folds["fold"] == fold]
    train = here[here["partition"] == TRAIN]
    if train.empty:
        known = sorted(folds["fold"].unique().tolist())
        raise UserError(f"fold {fold} has no training case; the table has folds {known}")
    if set(SAMPLE) <= set(folds):
        return _with_parameters(here.reset_index(drop=True), augmentation, DRAWN_ONCE)
    samples = samples_of(train, augmentation, fold, targeted_names(folds, augmentation, classes))
    return _with_parameters(samples.assign(partition=TRAIN), augmentation, fold)


def matrices(plan: pd.DataFrame, size: int) -> np.ndarray:
    """Return each row's map from output pixel to input pixel: float64 [rows, 2, 3].

    ``[x_in, y_in] = M @ [x_out, y_out, 1]`` in pixel coordinates: the centre of the first pixel is 0, that
    of the last is ``size - 1``, and the image's centre lies at ``(size - 1) / 2``. (For
    ``torch.nn.functional.affine_grid`` with ``align_corners=False`` the same point x is at
    ``(2 x + 1) / size - 1``.)
    """
    angle, shear = (np.deg2rad(plan[name].to_numpy(np.float64)) for name in ("angle", "shear"))
    cos, sin = np.cos(angle), np.sin(angle)
    # Inverses, read from output to input: unshift, unzoom, unshear, rotate back, flip.
    # With y downwards, an anticlockwise turn by a maps input (x, y) to (x cos a + y sin a, y cos a - x sin a).
    rotate_back = _stacked([[cos, -sin], [sin, cos]])
    unshear = _stacked([[np.ones_like(shear), -np.tan(shear)], [np.zeros_like(shear), np.ones_like(shear)]])
    linear = rotate_back @ unshear / plan["zoom"].to_numpy(np.float64)[:, None, None]
    for row, name in enumerate(("flip_h", "flip_v")):
        linear[:, row] *= np.where(plan[name].to_numpy(bool), -1.0, 1.0)[:, None]
    centre = (size - 1) / 2
    moved = centre + size * plan[["shift_x", "shift_y"]].to_numpy(np.float64)
    offset = centre - np.einsum("nij,nj->ni", linear, moved)
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def apply(images: np.ndarray, plan: pd.DataFrame, whitening: Whitening | None = None) -> np.ndarray:
    """Transform each image as its row of the plan says.

    Parameters
    ----------
    images
        uint8 [rows, size, size, 3], RGB: the parent of each row.
    plan
        As many rows.
    whitening
        Fitted on the fold's training images; needed where the plan whitens.

    Returns
    -------
    ndarray
        uint8, same shape; bilinear between pixels, edges repeated outwards.
    """
    if plan["whiten"].any() and whitening is None:
        raise ValueError("this plan whitens: a Whitening fitted on its training images is needed")
    size = images.shape[1]
    result = np.empty_like(images)
    for i, matrix in enumerate(matrices(plan, size)):
        if np.array_equal(matrix, [[1, 0, 0], [0, 1, 0]]):
            result[i] = images[i]
            continue
        result[i] = cv2.warpAffine(
            images[i],
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    whitened = plan["whiten"].to_numpy(bool)
    if whitening is not None and whitened.any():
        result[whitened] = apply_whitening(result[whitened], whitening)
    return result


def main(argv: Sequence[str]) -> None:
    """Draw the plan of one fold."""
    parser = step_parser("images.augment", "Draw the augmentation plan of one fold's training images.")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet of splits.partition"
    )
    parser.add_argument("--fold", type=int, required=True, help="number of the fold")
    parser.add_argument("--out", type=Path, required=True, help="plan.parquet")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    plan = draw_plan(pd.read_parquet(args.folds), args.fold, options.augmentation, options.classes)
    for label in options.classes:
        rows = plan[plan["label"] == label]
        log.info("%s: %d images, %d samples an epoch", label, rows["case_id"].nunique(), len(rows))
    write_table(args.out, plan)


def _with_parameters(samples: pd.DataFrame, augmentation: Augmentation, fold: int) -> pd.DataFrame:
    """Fill in each sample's parameters from its own hash."""
    words = _hashed(samples, augmentation.seed, fold)
    share = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53  # [rows, 8], uniform on [0, 1)
    both_sides = 2 * share - 1
    transform = samples["transform"].to_numpy(object)
    mixed = transform == MIXED

    def where(name: str, value: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
        return np.where(mixed | (transform == name), value, otherwise)

    plan = samples.assign(
        angle=where("rotate", augmentation.rotation * both_sides[:, 1]),
        shift_x=where("width_shift", augmentation.shift * both_sides[:, 2]),
        shift_y=where("height_shift", augmentation.shift * both_sides[:, 3]),
        shear=where("shear", augmentation.shear * both_sides[:, 4]),
        # Zooming in by a share z shows the middle 1 - z of the side.
        zoom=where("zoom", 1 / (1 - augmentation.zoom * share[:, 5]), 1.0),
        flip_h=(transform == "flip_h") | (mixed & (share[:, 6] < 0.5)),
        flip_v=(transform == "flip_v") | (mixed & (share[:, 7] < 0.5)),
        whiten=transform == "whiten",
        seed=(words[:, 0] >> np.uint64(1)).astype(np.int64),
    )
    return plan[list(COLUMNS)]


def _hashed(samples: pd.DataFrame, seed: int, fold: int) -> np.ndarray:
    """Return eight independent words of each sample: uint64 [rows, 8]."""
    digests = b"".join(
        blake2b(f"{seed}|{fold}|{case}|{transform}|{copy}".encode()).digest()
        for case, transform, copy in zip(
            samples["case_id"], samples["transform"], samples["copy"], strict=True
        )
    )
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 8)


def _stacked(entries: list[list[np.ndarray]]) -> np.ndarray:
    """Turn a 2×2 of arrays [rows] into one array [rows, 2, 2]."""
    return np.moveaxis(np.asarray(entries), -1, 0)
