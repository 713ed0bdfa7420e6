"""Take in the cells that were drawn on a hospital's images: check them, and let two annotators agree (a step).

    python -m marrowflow cells.intake --options '{"types": ["blast", "lymphocyte"], "min_side": 3, "consensus": "both"}'
        --inventory inventory.parquet --boxes anna=boxes/anna --boxes ben=boxes/ben --kind voc [--type-map CSV]
        --out DIR

DIR receives ``boxes.parquet``, the boxes that the study goes by (`marrowflow.cells.annotations.COLUMNS`); ``left_out.csv``, every
box that is not among them, with its place and the reason; ``images.csv``, which images were annotated by whom; and of two annotators
``agreement.csv`` (`marrowflow.cells.agreement`), over the images that both annotated. On images that one of them annotated alone
that one's boxes stand.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from pydantic import Field

from marrowflow.cells.agreement import Rule, agreement, consensus
from marrowflow.cells.annotation_files import FORMATS, read_annotations
from marrowflow.cells.annotations import EDGES, LEFT_OUT, Checked, Names, check
from marrowflow.cli import existing_file, step_parser
from marrowflow.cohorts.manifest import read_label_map
from marrowflow.config import Section, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table

log = logging.getLogger(__name__)

BOXES, LIST, IMAGES, AGREEMENT = "boxes.parquet", "left_out.csv", "images.csv", "agreement.csv"


class Options(Section):
    """What is taken for a cell."""

    types: list[str] = Field(min_length=1)
    """The study's types of cells."""
    min_side: float = Field(3, ge=0)
    """Pixels: a box that is narrower or lower is a slip of the hand."""
    consensus: Rule = "both"
    """Of two annotators: what both say, or the first one's boxes."""


def take_in(
    options: Options,
    inventory: pd.DataFrame,
    drawn: Mapping[str, Path],
    kind: str,
    type_map: Path | None,
    counts_from_one: bool,
) -> dict[str, pd.DataFrame]:
    """Return the tables of the step by their files' names.

    Parameters
    ----------
    options
        See `Options`.
    inventory
        Of the hospital: ``case_id``, ``image``, ``width``, ``height``, ``status``, ``reason``.
    drawn
        One or two annotators' files or folders by the annotator's name.
    kind
        One of `FORMATS`.
    type_map
        CSV with the columns ``label`` and ``class``: the annotators' names of types, and the study's.
    counts_from_one
        See `read_annotations`.

    Raises
    ------
    UserError
        Files that cannot be read; with every box that must be corrected.
    """
    if not 1 <= len(drawn) <= 2:
        raise UserError(f"--boxes names {len(drawn)} annotators; one or two are compared: name each once")
    known = read_label_map(type_map, options.types) if type_map else {}
    names, sides = Names(inventory), inventory.set_index("case_id")[["width", "height"]]

    def size_of(image: str) -> tuple[int, int] | None:
        cases = names.cases(image)
        return (int(sides.loc[cases[0], "width"]), int(sides.loc[cases[0], "height"])) if cases else None

    found: dict[str, Checked] = {}
    problems = []
    for name, path in drawn.items():
        boxes, images = read_annotations(path, kind, size_of, counts_from_one)
        found[name] = check(boxes, images, inventory, options.types, known, name, options.min_side)
        problems += [f"{name}: {problem}" for problem in found[name].problems]
    if problems:
        raise UserError(enumerate_problems("boxes that cannot be used:", problems))
    for name, one in found.items():
        if one.boxes.empty:
            raise UserError(
                f"--boxes {name}={drawn[name]}: no box is left of {len(one.left_out)}; see that they are of these images"
            )
    left_out = pd.concat([one.left_out for one in found.values()], ignore_index=True)
    images = pd.DataFrame(
        {
            "case_id": inventory["case_id"],
            **{n: inventory["case_id"].isin(c.images) for n, c in found.items()},
        }
    )
    first, *second = found.values()
    if not second:
        return {BOXES: first.boxes, LIST: left_out, IMAGES: images}
    both = set(first.images) & set(second[0].images)
    for name, one in found.items():
        if lonely := len(set(one.images) - both):
            told = "; a CSV does not tell images without a cell from others" if kind == "csv" else ""
            log.warning("%d of %d images were annotated by %s alone%s", lonely, len(one.images), name, told)
    mine, theirs = (one.boxes[one.boxes["case_id"].isin(both)] for one in (first, second[0]))
    alone = [one.boxes[~one.boxes["case_id"].isin(both)] for one in (first, second[0])]
    kept, open_ = consensus(mine, theirs, options.consensus)
    return {
        BOXES: pd.concat([kept, *alone], ignore_index=True).astype(dict.fromkeys(EDGES, "float64")),
        LIST: pd.concat([left_out, open_], ignore_index=True)[LEFT_OUT],
        IMAGES: images,
        AGREEMENT: agreement(mine, theirs),
    }


def _annotator(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)


def main(argv: Sequence[str]) -> None:
    """Take in the cells of one hospital."""
    parser = step_parser("cells.intake", "Check the cells that were drawn on a hospital's images.")
    parser.add_argument(
        "--inventory", type=existing_file, required=True, help="inventory.parquet of the hospital"
    )
    parser.add_argument(
        "--boxes",
        type=_annotator,
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="an annotator and their file or folder; once or twice",
    )
    parser.add_argument("--kind", choices=FORMATS, required=True, help="how they were saved")
    parser.add_argument("--type-map", type=existing_file, help="CSV with the columns label and class")
    parser.add_argument(
        "--counts-from-one",
        action="store_true",
        help="a CSV's edges count pixels from 1 and name the last one inside, as Pascal VOC's do",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the tables")
    args = parser.parse_args(argv)
    drawn = dict(args.boxes)
    if len(drawn) < len(args.boxes):
        raise UserError("--boxes names an annotator twice; give each another name")
    columns = ["case_id", "image", "width", "height", "status", "reason"]
    inventory = pd.read_parquet(args.inventory, columns=columns)
    tables = take_in(
        read_options(Options, args.options), inventory, drawn, args.kind, args.type_map, args.counts_from_one
    )
    for name, table in tables.items():
        write_table(args.out / name, table)
    reasons = tables[LIST]["reason"].value_counts()
    for reason, count in reasons.items():
        log.warning("%d boxes left out: %s", count, reason)
    log.info(
        "%d boxes on %d images: %s", len(tables[BOXES]), tables[BOXES]["case_id"].nunique(),
        ", ".join(f"{name} {count}" for name, count in tables[BOXES]["type"].value_counts().items()),
    )  # fmt: skip
