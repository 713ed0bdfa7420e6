"""Show what a plan does: a sheet of one parent image a class with each of its transforms.

Of plan ``eight`` this is what aamds2022 shows in its figure 2, for an image of each class: the original,
rotated, ZCA-whitened, shifted in width and in height, sheared, zoomed into and flipped both ways. Drawn for every plan, so that a rotation that leaves the cell outside, or a whitening that leaves nothing
to see, is noticed before a network is trained on it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import Augmentation, ClassName, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import written_whole
from marrowflow.images.augment import apply
from marrowflow.images.store import PackedPixels
from marrowflow.images.whitening import fit_whitening
from marrowflow.splits.samples import MIXED, ORIGINAL, TRAIN

TILE = 1.6
"""Side of a picture on the sheet, inches."""
MOST_COLUMNS = 9
"""The original and eight transforms."""

# Everything is laid out in inches from the upper left corner, so that text keeps its room whatever the
# number of rows and columns; a letter of the title is about _LETTER wide.
_DOTS = 120
_EDGE, _TOP, _GAP, _CAPTION = 0.1, 0.6, 0.08, 0.56
_LETTER = 0.075
_LABEL = FontProperties(size=10, weight="bold")

TITLES = {
    ORIGINAL: "original",
    "rotate": "rotation",
    "whiten": "ZCA whitening",
    "width_shift": "width shift",
    "height_shift": "height shift",
    "shear": "shear",
    "zoom": "zoom in",
    "flip_h": "horizontal flip",
    "flip_v": "vertical flip",
    MIXED: "mixed",
}


class Options(Section):
    """What the sheet shows."""

    augmentation: Augmentation = Augmentation()
    classes: list[ClassName]


def choose_samples(plan: pd.DataFrame, classes: Sequence[str]) -> list[pd.DataFrame]:
    """Return the rows of the plan to show: one DataFrame a class that has any, its parent's samples in order.

    The parent is the first that has the most samples. Of a transform with several draws the strongest is shown,
    as a shift by a hundredth shows nothing; of ``mixed`` as many as there is room for.
    """
    chosen = []
    for label in classes:
        rows = plan[plan["label"] == label].reset_index(drop=True)
        if rows.empty:
            continue
        samples = rows.groupby("case_id", sort=False).size()
        parent = rows[rows["case_id"] == samples.idxmax()]
        # Each of the eight transforms changes one of these only.
        strength = parent[["angle", "shift_x", "shift_y", "shear"]].abs().sum(axis=1) + parent["zoom"]
        strongest = strength.groupby(parent["transform"]).idxmax()
        shown = parent[parent.index.isin(strongest) | (parent["transform"] == MIXED)]
        chosen.append(shown.head(MOST_COLUMNS))
    if not chosen:
        raise UserError(f"the plan has no sample of any of the classes {list(classes)}")
    return chosen


def draw_sheet(pictures: Sequence[np.ndarray], rows: Sequence[pd.DataFrame], title: str) -> Figure:
    """Lay out the pictures of each class in one row, captioned with what was drawn.

    Parameters
    ----------
    pictures
        For each row of the sheet, uint8 [samples, size, size, 3], RGB.
    rows
        For each row of the sheet, the plan's rows that the pictures came from.
    title
        Printed above.
    """
    labels = [textwrap.wrap(str(row["label"].iloc[0]), 16, max_lines=6, placeholder="…") for row in rows]
    start = 2 * _EDGE + max(_inches(line) for label in labels for line in label)
    width = max(start + max(len(row) for row in rows) * (TILE + _GAP) + _EDGE, 5.0)
    height = _TOP + len(rows) * (TILE + _CAPTION)
    figure = Figure(figsize=(width, height), dpi=_DOTS, facecolor="white")
    FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, text, **style)

    lines = textwrap.wrap(title, int((width - 2 * _EDGE) / _LETTER), max_lines=2, placeholder="…")
    write(_EDGE, _EDGE / 2, "\n".join(lines), va="top", fontsize=10)
    for r, (images, row, label) in enumerate(zip(pictures, rows, labels, strict=True)):
        top = _TOP + r * (TILE + _CAPTION)
        write(_EDGE, top + TILE / 2, "\n".join(label), va="center", fontproperties=_LABEL)
        for c, (image, sample) in enumerate(zip(images, row.to_dict("records"), strict=True)):
            left = start + c * (TILE + _GAP)
            axes = figure.add_axes(
                (left / width, 1 - (top + TILE) / height, TILE / width, TILE / height), frameon=False
            )
            axes.set_axis_off()
            axes.imshow(image)
            middle = left + TILE / 2
            write(middle, top - 0.03, TITLES[sample["transform"]], ha="center", va="bottom", fontsize=9)
            drawn = "\n".join(textwrap.wrap(describe(sample), 32))
            write(middle, top + TILE + 0.03, drawn, ha="center", va="top", fontsize=6.5, color="0.3")
    return figure


def describe(sample: Mapping[Any, Any]) -> str:
    """Put a row's parameters into words, as far as its title does not name them; empty for the original."""
    words = []
    if sample["angle"]:
        words.append(f"{sample['angle']:+z.0f}°")
    for name, forth, back in (("shift_x", "right", "left"), ("shift_y", "down", "up")):
        if sample[name]:
            words.append(f"{100 * abs(sample[name]):.0f} % {forth if sample[name] > 0 else back}")
    if sample["shear"]:
        words.append(f"shear {sample['shear']:+z.0f}°")
    if sample["zoom"] != 1:
        words.append(f"×{sample['zoom']:.2f}")
    flips = [name for key, name in (("flip_h", "horizontal"), ("flip_v", "vertical")) if sample[key]]
    if flips and sample["transform"] == MIXED:
        words.append(f"flip {' and '.join(flips)}")
    # A line may break between them only.
    return "; ".join(word.replace(" ", "\N{NO-BREAK SPACE}") for word in words)


def main(argv: Sequence[str]) -> None:
    """Draw the contact sheet of one fold's plan."""
    parser = step_parser(
        "images.contact_sheet", "Draw a sheet of example images with each transform of a plan."
    )
    parser.add_argument("--plan", type=existing_file, required=True, help="plan.parquet of images.augment")
    add_folders(parser, "--stores", "packed pixels of the development cohorts")
    parser.add_argument("--out", type=Path, required=True, help="sheet.png")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    plan = pd.read_parquet(args.plan)
    parents = PackedPixels(args.stores)
    whitening = fit_whitening(plan, parents.of, options.augmentation)
    rows = choose_samples(plan, options.classes)
    pictures = [apply(parents.of(row["case_id"]), row, whitening) for row in rows]
    train = plan[plan["partition"] == TRAIN]
    title = (
        f"Augmentation plan “{options.augmentation.plan}”: {train['case_id'].nunique()} training images, "
        f"{len(train)} samples an epoch"
    )
    if plan.duplicated(["case_id", "transform"]).any() and not plan["transform"].eq(MIXED).any():
        title += "; of several draws of a transform the strongest"
    with written_whole(args.out) as beside:
        draw_sheet(pictures, rows, title).savefig(beside)


def _inches(line: str) -> float:
    """Return the width of a line of a class's name."""
    return float(TextPath((0, 0), line, prop=_LABEL).get_extents().x1) / 72
