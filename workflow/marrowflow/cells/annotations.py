"""Boxes of one annotator, checked like a manifest.

What must be corrected is told all at once, each with its place and remedy: a box of an image that the manifest does not name, of
an unknown type, or outside of its image. Boxes that show no cell but a slip of the hand are left out and listed: those
without area or of less than ``min_side`` pixels, and those drawn twice. An edge less than `SLACK` pixels outside is rounding,
and is moved to the image's edge.
"""

from __future__ import annotations

import itertools
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from marrowflow.cells.annotation_files import Annotated
from marrowflow.cohorts.eligibility import INCLUDED

SLACK = 1.0
"""Pixels that an edge may lie outside of its image."""
EDGES = ["left", "top", "right", "bottom"]
COLUMNS = ["case_id", "annotator", "type", *EDGES]
"""Of a table of boxes: the image, whose box it is, the cell's type, and its edges in pixels, 0 the image's own (float64)."""
_TYPES = dict.fromkeys(EDGES, "float64") | dict.fromkeys(["case_id", "annotator", "type"], "str")
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
    images: Mapping[str, tuple[int, int] | None],
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
        Of the hospital: ``case_id``, ``image``, ``width``, ``height``, ``status``, ``reason``. Boxes of excluded images are left out.
    types
        The study's types of cells.
    type_map
        The annotators' finer or other names → type.
    annotator
        Their name.
    min_side
        Pixels; a box that is narrower or lower is a slip of the hand.
    """
    names = Names(inventory)
    table = inventory.set_index("case_id")
    excluded = table.loc[table["status"] != INCLUDED, "reason"].to_dict()
    known = {**{name: name for name in types}, **type_map}
    problems, strange = _images_problems(images, names, table, excluded)
    rows, left_out = [], []
    unknown: dict[str, list[str]] = defaultdict(list)
    seen: set[tuple[str, str, tuple[float, ...]]] = set()
    for box in boxes:
        if box.image in strange:
            continue
        case = names.cases(box.image)[0]
        if box.type not in known:
            unknown[box.type].append(box.place)
            continue
        edges = np.array([box.left, box.top, box.right, box.bottom])
        row = (case, annotator, known[box.type], *edges.tolist())
        if case in excluded:
            left_out.append((*row, box.place, f"image excluded: {excluded[case]}"))
            continue
        if not np.isfinite(edges).all():
            problems.append(
                f"{box.place}: {edges.tolist()} are no edges of a box; draw it anew, or delete it"
            )
            continue
        width, height = map(float, table.loc[case, ["width", "height"]])
        if reason := _slip(edges, min_side):
            left_out.append((*row, box.place, reason))
            continue
        if fault := _outside(edges, width, height):
            problems.append(f"{box.place}: {fault}")
            continue
        edges = np.clip(edges, 0, [width, height, width, height])
        key = (case, known[box.type], tuple(edges.tolist()))
        if reason := _slip(edges, min_side) or ("drawn twice" if key in seen else ""):
            left_out.append((*row, box.place, reason))
            continue
        seen.add(key)
        rows.append((*row[:3], *edges.tolist()))
    problems += [
        f"{places[0]}{_more(places)}: {name!r} is none of the study's types ({', '.join(types)}); correct it, or map it in the "
        "table that type_map: names"
        for name, places in unknown.items()
    ]
    annotated = {names.cases(image)[0] for image in images if image not in strange} - set(excluded)
    return Checked(
        pd.DataFrame(rows, columns=COLUMNS).astype(_TYPES),
        pd.DataFrame(left_out, columns=LEFT_OUT).astype(_TYPES),
        [case for case in inventory["case_id"] if case in annotated],
        problems,
    )


def _images_problems(
    images: Mapping[str, tuple[int, int] | None],
    names: Names,
    table: pd.DataFrame,
    excluded: Mapping[str, str],
) -> tuple[list[str], set[str]]:
    """Return what is wrong with the images that were annotated, and those whose boxes cannot be looked at."""
    problems, strange = [], set()
    for image, size in images.items():
        found = names.cases(image)
        if len(found) != 1:
            strange.add(image)
            problems.append(
                f"{image!r} is no image of the manifest; correct its name, or delete its annotations"
                if not found
                else f"{image!r} may be any of {len(found)} images of the manifest ({', '.join(found[:3])}); name its folder too"
            )
        elif size is not None and found[0] not in excluded:
            own = tuple(map(int, table.loc[found[0], ["width", "height"]]))
            if size != own:
                strange.add(image)
                problems.append(
                    f"{image!r}: the annotations are of an image of {size[0]} x {size[1]} px, this one has {own[0]} x {own[1]}: it was "
                    "resized or turned; export the annotations of the image that is in the manifest"
                )
    return problems, strange


class Names:
    """Images as annotation programs name them: by a path, a file's name, or the stem of one.

    Where both sides name folders, one path must end with the other, so that P2/1.jpg is never taken for P1/1.jpg. A path that is
    absolute, or leaves its folder, is that of the annotator's machine: of it the longest end that a manifest's path has counts, the
    file's name at least.
    """

    def __init__(self, inventory: pd.DataFrame) -> None:
        self._whole: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        self._stems: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for case, image in zip(inventory["case_id"], inventory["image"], strict=True):
            parts = _parts(image)
            self._whole[parts[-1]].append((parts, case))
            self._stems[posixpath.splitext(parts[-1])[0]].append((parts, case))

    def cases(self, image: str) -> list[str]:
        """Return the cases that an image may be: one where it is told, none where it is no image of the manifest."""
        parts = _parts(image)
        # P1.2 may be the stem of P1.2.jpg, and is no file of a kind called .2.
        found = self._whole.get(parts[-1]) or self._stems.get(parts[-1], [])
        foreign = image.startswith(("/", "\\")) or ":" in image or ".." in parts
        own = [part for part in parts[:-1] if part != ".."]
        alike = [(_alike(own, list(folders[:-1])), len(folders) - 1, case) for folders, case in found]
        if not foreign:
            alike = [one for one in alike if one[0] == min(len(own), one[1])]
        most = max((same for same, _, _ in alike), default=0)
        return [case for same, _, case in alike if same == most]


def _parts(image: str) -> tuple[str, ...]:
    return tuple(posixpath.normpath(image.replace("\\", "/")).split("/"))


def _alike(one: list[str], other: list[str]) -> int:
    """Return how many folders two paths end with alike."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


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
