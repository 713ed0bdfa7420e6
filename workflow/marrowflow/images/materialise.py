"""Write the pictures of a plan as PNG files, for those who want files; training does not need them.

Training on a CPU makes the same pictures, whole levels and all, and resizes them for the network. On a GPU it
warps, whitens and resizes without rounding in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import pandas as pd

from marrowflow.cli import add_folders, existing_file, progress, step_parser
from marrowflow.config import Augmentation, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import folder_written_whole
from marrowflow.images.augment import apply
from marrowflow.images.store import PackedPixels
from marrowflow.images.whitening import fit_whitening

# Rows of a plan that are warped at a time: 256 of 224×224×3 are 38 MB.
_BATCH = 256


class Options(Section):
    """What the pictures depend on, beside the plan."""

    augmentation: Augmentation = Augmentation()


def materialise(plan: pd.DataFrame, parents: PackedPixels, augmentation: Augmentation, folder: Path) -> None:
    """Write every row of the plan as ``<folder>/<case_id>/<transform>_<copy>.png``.

    The folder appears under its name when all pictures are in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: remove it, or name another folder for the pictures")
    whitening = fit_whitening(plan, parents.of, augmentation)
    with folder_written_whole(folder) as beside:
        for rows in progress(list(_batches(plan)), "materialise", unit="batches"):
            pictures = apply(parents.of(rows["case_id"]), rows, whitening)
            for picture, case, transform, copy in zip(
                pictures, rows["case_id"], rows["transform"], rows["copy"], strict=True
            ):
                path = beside / case / f"{transform}_{copy}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
                    raise UserError(f"{path} could not be written: is the disk full, or the name too long?")


def main(argv: Sequence[str]) -> None:
    """Write a plan's pictures into a new folder."""
    parser = step_parser("images.materialise", "Write the augmented pictures of a plan as PNG files.")
    parser.add_argument("--plan", type=existing_file, required=True, help="plan.parquet of images.augment")
    add_folders(parser, "--stores", "packed pixels of the development cohorts")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the pictures")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    materialise(pd.read_parquet(args.plan), PackedPixels(args.stores), options.augmentation, args.out)


def _batches(plan: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for start in range(0, len(plan), _BATCH):
        yield plan.iloc[start : start + _BATCH]
