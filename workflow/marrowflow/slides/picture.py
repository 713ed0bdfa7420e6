"""Pack a small picture of each slide, with its mask and tiles, for the reports (a step).

The store is that of images (`marrowflow.images.store`), so that reports show a slide where they would show an image. What a
slide's colour is like is measured on its picture without the drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.images.appearance import APPEARANCE, appearance, appearance_table
from marrowflow.images.store import StoreWriter
from marrowflow.study_slides import Tiling

SIDE = 384
"""Of a packed picture, pixels; an oblong slide is laid on white."""


class Options(Section):
    """Written down with the store."""

    tiling: Tiling


def pack(options: Options, placed: pd.DataFrame, overviews: Path, pictures: Path, out: Path) -> None:
    """Write the store of a cohort's slides, and what they look like, in the order of ``placed``.

    Parameters
    ----------
    options
        The tiling.
    placed, overviews
        Table and folder of ``slides.place``.
    pictures
        Folder of ``slides.survey``.
    out
        Folder of the store.
    """
    cases = placed["case_id"].tolist()
    about = {
        "recipe": {"method": "slide", **options.tiling.model_dump(mode="json")},
        "size": SIDE,
        "fit": "pad",
    }
    looks = []
    with StoreWriter(out, cases, SIDE, about) as writer:
        for row, number in enumerate(placed["number"]):
            writer.put(row, squared(_read(overviews / f"{number}.png")))
            looks.append(appearance(_read(pictures / f"{number}.png")))
    write_table(out / APPEARANCE, appearance_table(cases, np.array(looks)))


def squared(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return a picture shrunk or enlarged into a white square: uint8 [side, side, 3]."""
    scale = side / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


def _read(path: Path) -> np.ndarray:
    found = cv2.imread(str(path))
    if found is None:
        raise UserError(f"{path} cannot be read; delete its folder and run again")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def main(argv: Sequence[str]) -> None:
    """Pack the pictures of one cohort's slides."""
    parser = step_parser("slides.picture", "Pack a small picture of each slide for the reports.")
    parser.add_argument("--placed", type=existing_file, required=True, help="slides.csv of slides.place")
    parser.add_argument(
        "--overviews", type=Path, required=True, metavar="DIR", help="overviews of slides.place"
    )
    parser.add_argument(
        "--pictures", type=Path, required=True, metavar="DIR", help="pictures of slides.survey"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the store")
    args = parser.parse_args(argv)
    placed = pd.read_csv(args.placed, keep_default_na=False)
    pack(read_options(Options, args.options), placed, args.overviews, args.pictures, args.out)
