"""Boxes of one annotator, checked like a manifest.

What must be corrected is told all at once, each with its place and remedy: a box of an image that the manifest does not name, of
an unknown type, or outside of its image. Boxes that show no cell but a slip of the hand are left out and listed: those
without area or of less than ``min_side`` pixels, and those drawn twice. An edge less than `SLACK` pixels outside is rounding,
and is moved to the image's edge.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marrowflow.cells.annotation_files import Annotated

SLACK = 1.0
"""Pixels that an edge may lie outside of its image."""
EDGES = ["left", "top", "right", "bottom"]
COLUMNS = ["case_id", "annotator", "type", *EDGES]
"""Of a table of boxes: the image, whose box it is, the cell's type, and its edges in pixels, 0 the image's own (float64)."""
LEFT_OUT = [*COLUMNS, "place", "reason"]
"""Columns of the list of boxes that are left out."""


@dataclass(frozen=True)
class Checked:
    """Boxes of one annotator after their check.

    Attributes
    ----------
    boxes
        `COLUMNS`.
    left_out
        `LEFT_OUT`.
    images
        Cases that were annotated, those without a box too, in the inventory's order.
    problems
        What must be corrected first, one sentence each.
    """

    boxes: pd.DataFrame
    left_out: pd.DataFrame
    images: list[str]
    problems: list[str]


def check(
    boxes: Iterable[Annotated],
    images: Iterable[str],
    inventory: pd.DataFrame,
    types: Sequence[str],
    type_map: Mapping[str, str],
    annotator: str,
    min_side: float,
) -> Checked:
    """Compare an annotator's boxes with the images and types of the study.

    Parameters
    ----------
    boxes, images
        From `marrowflow.cells.annotation_files.read_annotations`.
    inventory
        Of the hospital: ``case_id``, ``image``, ``width``, ``height``.
    types
        The study's types of cells.
    type_map
        The annotators' finer or other names → type.
    annotator
        Their name.
    min_side
        Pixels; a box that is narrower or lower is a slip of the hand.
    """
    names = _Names(inventory)
    size = inventory.set_index("case_id")[["width", "height"]]
    known = {**{name: name for name in types}, **type_map}
    problems: list[str] = []
    rows, left_out = [], []
    unknown: dict[str, list[str]] = defaultdict(list)
    strangers: dict[str, list[str]] = defaultdict(list)
    seen: set[tuple[str, str, tuple[float, ...]]] = set()
    for box in boxes:
        case = names.case(box.image)
        if case is None:
            strangers[box.image].append(box.place)
            continue
        if box.type not in known:
            unknown[box.type].append(box.place)
            continue
        width, height = map(float, size.loc[case])
        edges = np.array([box.left, box.top, box.right, box.bottom])
        row = (case, annotator, known[box.type], *edges.tolist())
        if reason := _slip(edges, min_side):
            left_out.append((*row, box.place, reason))
            continue
        if fault := _outside(edges, width, height):
            problems.append(f"{box.place}: {fault}")
            continue
        edges = np.clip(edges, 0, [width, height, width, height])
        key = (case, known[box.type], tuple(edges.tolist()))
        if key in seen:
            left_out.append((*row, box.place, "drawn twice"))
            continue
        seen.add(key)
        rows.append((*row[:3], *edges.tolist()))
    problems += [
        f"{places[0]}{_more(places)}: {image!r} is no image of the manifest; correct its name, or delete its annotations"
        for image, places in strangers.items()
    ]
    problems += [
        f"{places[0]}{_more(places)}: {name!r} is none of the study's types ({', '.join(types)}); correct it, or map it in the "
        "table that type_map: names"
        for name, places in unknown.items()
    ]
    annotated = {names.case(image) for image in images}
    return Checked(
        pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(EDGES, "float64")),
        pd.DataFrame(left_out, columns=LEFT_OUT),
        [case for case in inventory["case_id"] if case in annotated],
        problems,
    )


class _Names:
    """Images as annotation programs name them: by their path, their file's name, or its stem, whichever tells one alone."""

    def __init__(self, inventory: pd.DataFrame) -> None:
        self._cases: list[dict[str, set[str]]] = [defaultdict(set) for _ in range(3)]
        for case, image in zip(inventory["case_id"], inventory["image"], strict=True):
            for held, name in zip(self._cases, _spellings(image), strict=True):
                held[name].add(case)

    def case(self, image: str) -> str | None:
        """Return the case of an image; None where no name is its, or several are."""
        for held, name in zip(self._cases, _spellings(image), strict=True):
            if len(found := held.get(name, ())) == 1:
                return next(iter(found))
        return None


def _spellings(image: str) -> tuple[str, str, str]:
    path = posixpath.normpath(image.replace("\\", "/"))
    name = posixpath.basename(path)
    return path, name, posixpath.splitext(name)[0]


def _slip(edges: np.ndarray, min_side: float) -> str:
    """Return why a box shows no cell; empty where it may."""
    width, height = edges[2:] - edges[:2]
    # Whatever is not larger: not a number is none either.
    if not (width > 0 and height > 0):
        return f"without area: {width:g} x {height:g} px"
    return f"{width:g} x {height:g} px" if min(width, height) < min_side else ""


def _outside(edges: np.ndarray, width: float, height: float) -> str:
    beyond = np.concatenate([-edges[:2], edges[2:] - [width, height]])
    if beyond.max() <= SLACK:
        return ""
    told = ", ".join(f"{name} {value:g}" for name, value in zip(EDGES, edges, strict=True))
    return (
        f"{told} lies outside of its image of {width:g} x {height:g} px; draw it anew, or see whether the annotations are of a "
        "resized image"
    )


def _more(places: Sequence[str]) -> str:
    return f" (and {len(places) - 1} more)" if len(places) > 1 else ""
