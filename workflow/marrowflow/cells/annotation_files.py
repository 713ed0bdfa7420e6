"""Boxes round cells as annotation programs save them, read into one form.

==================  =======================================================================================
format              what is read
==================  =======================================================================================
Pascal VOC          a folder of ``.xml``, one an image: ``filename``, ``object/name``, ``object/bndbox``
COCO                one ``.json``: ``images``, ``annotations`` (``bbox``: left, top, width, height), ``categories``
YOLO                a folder of ``.txt``, one an image of the same stem, and ``classes.txt`` (or ``obj.names``) beside them:
                    number of the class, then middle, width and height as shares of the image
LabelMe             a folder of ``.json``, one an image: ``imagePath``, ``shapes`` (rectangles, and polygons as their bounds)
QuPath              a folder of ``.geojson``, one an image of the same stem: polygons as their bounds;
                    ``properties.classification.name``
CSV                 columns ``image`` (or ``image_path``), ``type`` (or ``label``), ``xmin``, ``ymin``, ``xmax``, ``ymax``
==================  =======================================================================================

Edges count pixels from the image's upper left corner, and lie between pixels: 0 to 640 is the whole width of 640 pixels. VOC
counts pixels from 1 and names the last one inside, so that its 1 to 640 is the same; so does a CSV made of it, if it is said
(``counts_from_one``). All others are as here. Nothing is checked but that the files can be read: see
`marrowflow.cells.annotations`.

Sources: Everingham 2010 (VOC development kit, 1-based pixel coordinates); COCO data format (cocodataset.org, format-data);
Ultralytics' and Darknet's text format; LabelMe's JSON; QuPath's GeoJSON export.
"""

from __future__ import annotations

import json
import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marrowflow.cohorts.delimited import read_delimited
from marrowflow.errors import UserError, enumerate_problems

FORMATS = ("voc", "coco", "yolo", "labelme", "qupath", "csv")
_SUFFIXES = {"voc": ".xml", "yolo": ".txt", "labelme": ".json", "qupath": ".geojson"}
_NAMES = ("classes.txt", "obj.names")


class Annotated(NamedTuple):
    """One box: its image as the file names it, its type, its edges in pixels, and where it stands."""

    image: str
    type: str
    left: float
    top: float
    right: float
    bottom: float
    place: str


Sides = tuple[int, int]
"""Width and height in pixels."""
Size = Callable[[str], Sides | None]
"""Width and height of the image that is named so; None where there is no such image."""


class _Fault(Exception):
    """What is wrong with a file; the message is a sentence."""


def read_annotations(
    path: Path, kind: str, size_of: Size, counts_from_one: bool = False
) -> tuple[list[Annotated], dict[str, Sides | None]]:
    """Read all boxes of one annotator.

    Parameters
    ----------
    path
        A file (COCO, CSV) or a folder of files.
    kind
        One of `FORMATS`.
    size_of
        Of YOLO, whose files hold shares of an image: its size by its stem.
    counts_from_one
        The CSV's edges are VOC's.

    Returns
    -------
    boxes, images
        The boxes in the order of the files; and the names of all images that were annotated, those without a cell too, with
        the size that the file says they have (None where it says none). A CSV names no image without a cell.

    Raises
    ------
    UserError
        A folder without such files, or files that are none of this kind, each with what is wrong.
    """
    if kind in _SUFFIXES:
        files = _files(path, kind)
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"{path} is no file; annotations of kind {kind} are one file")
    boxes: list[Annotated] = []
    images: dict[str, Sides | None] = {}
    problems = []
    names = _class_names(path) if kind == "yolo" else []
    for file in files:
        try:
            named, found = _read(file, kind, size_of, names, counts_from_one)
        except _Fault as fault:
            problems.append(f"{file.name}: {fault}")
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            what = f"{type(error).__name__}: {error}"
            problems.append(
                f"{file.name}: not as {kind} files are ({what}); export it anew, or name its kind"
            )
            continue
        images |= named
        boxes += found
    if problems:
        raise UserError(enumerate_problems(f"annotations in {path} cannot be used:", problems))
    return boxes, images


def _files(folder: Path, kind: str) -> list[Path]:
    suffix = _SUFFIXES[kind]
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; annotations of kind {kind} are a folder of {suffix} files")
    files = sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() == suffix and not (kind == "yolo" and p.name in _NAMES)
    )
    if not files:
        raise UserError(f"{folder} holds no {suffix} file, and annotations of kind {kind} are such files")
    return files


def _class_names(folder: Path) -> list[str]:
    for name in _NAMES:
        if (folder / name).is_file():
            try:
                return _text_of(folder / name).split("\n")
            except ValueError as error:
                raise UserError(f"{folder / name} is no UTF-8 text ({error}); save it as such") from error
    raise UserError(
        f"{folder} holds neither {' nor '.join(_NAMES)}, which name YOLO's classes, one a line; put the file there"
    )


def _read(
    file: Path, kind: str, size_of: Size, names: list[str], counts_from_one: bool
) -> tuple[dict[str, Sides | None], list[Annotated]]:
    """Return the images that a file annotates with their stated sizes, and their boxes."""
    if kind == "csv":
        boxes = list(_csv(file, counts_from_one))
        return dict.fromkeys(box.image for box in boxes), boxes
    if kind == "coco":
        return _coco(file)
    readers: dict[str, Callable[[], tuple[str, Sides | None, Iterator[Annotated]]]] = {
        "voc": lambda: _voc(file),
        "yolo": lambda: (file.stem, None, _yolo(file, names, size_of(file.stem))),
        "labelme": lambda: _labelme(file),
        "qupath": lambda: (file.stem, None, _qupath(file)),
    }
    image, size, found = readers[kind]()
    return {image: size}, list(found)


def _text_of(file: Path) -> str:
    # Editors of Windows begin a file with a mark of its encoding.
    return file.read_text(encoding="utf-8-sig")


def _size(width: Any, height: Any) -> Sides | None:
    """Return what a file says of its image's size; None where it says nothing, or 0 by 0 as some programs do."""
    sides = int(float(width or 0)), int(float(height or 0))
    return sides if min(sides) > 0 else None


def _voc(file: Path) -> tuple[str, Sides | None, Iterator[Annotated]]:
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise _Fault(f"no XML ({error}); export it anew") from error
    image = _text(root, "filename")

    def boxes() -> Iterator[Annotated]:
        for number, one in enumerate(root.iter("object"), 1):
            box = one.find("bndbox")
            if box is None:
                raise _Fault(f"object {number} has no bndbox; draw its box, or delete the object")
            edges = [_text(box, name) for name in ("xmin", "ymin", "xmax", "ymax")]
            try:
                left, top, right, bottom = map(float, edges)
            except ValueError:
                raise _Fault(
                    f"object {number}: {', '.join(edges)} are no four numbers; draw the box anew"
                ) from None
            place = f"{file.name}, object {number}"
            yield Annotated(image, _text(one, "name"), left - 1, top - 1, right, bottom, place)

    return image, _size(root.findtext("size/width"), root.findtext("size/height")), boxes()


def _text(element: ElementTree.Element, name: str) -> str:
    found = element.findtext(name)
    if found is None or not found.strip():
        raise _Fault(f"{name} is missing; export the file anew as Pascal VOC")
    return found.strip()


def _coco(file: Path) -> tuple[dict[str, Sides | None], list[Annotated]]:
    value = json.loads(_text_of(file))
    if missing := [name for name in ("images", "annotations", "categories") if name not in value]:
        raise _Fault(f"it has no {', '.join(missing)}; export it anew as COCO")
    images = {one["id"]: str(one["file_name"]) for one in value["images"]}
    if len(images) < len(value["images"]):
        raise _Fault("two images have one id; export it anew")
    sizes = {str(one["file_name"]): _size(one.get("width"), one.get("height")) for one in value["images"]}
    types = {one["id"]: str(one["name"]) for one in value["categories"]}
    boxes = []
    for number, one in enumerate(value["annotations"], 1):
        place = f"{file.name}, annotation {number} (id {one.get('id')})"
        for key, known in (("image_id", images), ("category_id", types)):
            if one[key] not in known:
                raise _Fault(
                    f"annotation {number} (id {one.get('id')}): {key} {one[key]} is not listed; export the file anew"
                )
        if one.get("iscrowd"):
            raise _Fault(
                f"annotation {number} (id {one.get('id')}) is a crowd of cells (iscrowd); draw a box a cell, or delete it"
            )
        left, top, width, height = map(float, one["bbox"])
        image, kind = images[one["image_id"]], types[one["category_id"]]
        boxes.append(Annotated(image, kind, left, top, left + width, top + height, place))
    return sizes, boxes


def _yolo(file: Path, names: list[str], size: Sides | None) -> Iterator[Annotated]:
    if size is None:
        raise _Fault(
            "no image of this name is in the manifest, and YOLO's boxes are shares of one; name it alike"
        )
    width, height = size
    for line, text in enumerate(_text_of(file).splitlines(), 1):
        cells = text.split()
        if not cells:
            continue
        try:
            number, (across, down, wide, high) = int(cells[0]), map(float, cells[1:])
            name = names[number].strip() if number >= 0 else ""
        except (ValueError, IndexError):
            name = ""
        if not name:
            raise _Fault(
                f"line {line}: {text.strip()!r} is no class number of the list and four shares; export it anew"
            )
        left, top = (across - wide / 2) * width, (down - high / 2) * height
        edges = left, top, left + wide * width, top + high * height
        # Six decimals of a share are a few thousandths of a pixel: edges that were whole are so again.
        left, top, right, bottom = (round(edge, 2) for edge in edges)
        yield Annotated(file.stem, name, left, top, right, bottom, f"{file.name}, line {line}")


def _labelme(file: Path) -> tuple[str, Sides | None, Iterator[Annotated]]:
    value = json.loads(_text_of(file))
    # Relative to the JSON file, in the manner of the system that wrote it.
    image = posixpath.normpath(str(value["imagePath"]).replace("\\", "/"))

    def boxes() -> Iterator[Annotated]:
        for number, one in enumerate(value["shapes"], 1):
            kind = one.get("shape_type", "polygon")
            if kind not in ("rectangle", "polygon"):
                raise _Fault(f"shape {number} is a {kind}; draw a rectangle or a polygon")
            yield Annotated(image, str(one["label"]), *_bounds(one["points"]), f"{file.name}, shape {number}")

    return image, _size(value.get("imageWidth"), value.get("imageHeight")), boxes()


def _qupath(file: Path) -> Iterator[Annotated]:
    value = json.loads(_text_of(file))
    features = (
        value["features"] if isinstance(value, dict) and value.get("type") == "FeatureCollection" else value
    )
    for number, one in enumerate(features if isinstance(features, list) else [features], 1):
        geometry, properties = one["geometry"], one.get("properties") or {}
        if geometry["type"] not in ("Polygon", "MultiPolygon"):
            raise _Fault(f"feature {number} is a {geometry['type']}; draw a rectangle or a polygon")
        name = _class_of(properties.get("classification"))
        if not name:
            raise _Fault(f"feature {number} has no class; give it one in QuPath, or delete it")
        polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        corners = [corner for rings in polygons for corner in rings[0]]
        place = f"{file.name}, feature {number}"
        yield Annotated(file.stem, name, *_bounds(corners), place)


def _class_of(classification: Any) -> str:
    """Return QuPath's class: an object with a name, or with several of a derived class, or in old files the name alone."""
    if isinstance(classification, dict):
        classification = classification.get("name") or ": ".join(map(str, classification.get("names") or ()))
    return str(classification or "")


def _csv(file: Path, counts_from_one: bool) -> Iterator[Annotated]:
    table = read_delimited(file)
    columns = {}
    for name, other in (("image", "image_path"), ("type", "label")):
        found = name if name in table.header else other
        columns[name] = found
    wanted = [*columns.values(), "xmin", "ymin", "xmax", "ymax"]
    if missing := [name for name in wanted if name not in table.header]:
        raise _Fault(
            f"row 1: columns {', '.join(missing)} are missing; found: {', '.join(table.header)}. Name them image, type, xmin, ymin, "
            "xmax, ymax"
        )
    cells = [table.column(name) for name in wanted]
    for line, image, kind, *edges in zip(table.lines, *cells, strict=True):
        try:
            left, top, right, bottom = map(float, edges)
        except ValueError:
            raise _Fault(f"row {line}: {', '.join(edges)} are no four numbers; correct them") from None
        first = float(counts_from_one)
        place = f"{file.name}, row {line}"
        yield Annotated(image.strip(), kind.strip(), left - first, top - first, right, bottom, place)


def _bounds(points: Any) -> tuple[float, float, float, float]:
    corners = np.asarray(points, float)[:, :2]
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return float(left), float(top), float(right), float(bottom)
