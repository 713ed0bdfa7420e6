"""Make the pages on which readers zoom into the slides that the reports show, with their maps (a step).

::

    index.html               the slides, with links
    <number>.html            a slide with its tiles, its maps and all code, one file; the number is that of its map
    LICENSE.txt              of OpenSeadragon, which zooms

A slide is shown at its finest level, or so much smaller that `PIXELS` are not exceeded; the page says which.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.config import Section, read_options
from marrowflow.files import folder_written_whole
from marrowflow.slides.arguments import add_cohorts
from marrowflow.slides.slide import Slide
from marrowflow.slides.slide_files import opened_as_taken_in
from marrowflow.slides.tissue import seen_from_afar

HERE = Path(__file__).parent
PIXELS = 36e6
"""Most pixels of the finest level of a page: about 15 MB."""
TILE = 512
_QUALITY = 80
_COLOURS = "viridis"
_COVER = 0.85
MAPS = {
    "map": "attention (min to max)",
    "percentile": "attention (percentiles)",
    "control": "random weights",
}


class Options(Section):
    """What the pages say beside what the maps say themselves."""

    study: dict[str, Any]
    """The configuration's section; its notice is printed."""


def build(
    notice: str, cases: pd.DataFrame, maps: Path, slides: Mapping[str, tuple[Path, int, float]], out: Path
) -> list[int]:
    """Write the pages into a folder, and return the numbers of the slides on them.

    Parameters
    ----------
    notice
        Printed on every page; may be empty.
    cases
        ``cases.csv`` of ``slides.explain``.
    maps
        Its folder.
    slides
        File, its bytes at the intake, and micrometres a pixel of each slide, by its ``image``.
    out
        Folder of the pages; replaced whole.

    Raises
    ------
    UserError
        A slide that cannot be read, or is not the one of the intake.
    """
    # A slide may be shown twice, as an error and as one of the closest answers.
    drawn = cases[cases["map"] != ""].drop_duplicates("image")
    shown: list[dict[str, Any]] = []
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    with folder_written_whole(out) as beside:
        shutil.copyfile(HERE / "vendor/LICENSE.txt", beside / "LICENSE.txt")
        for row in progress(drawn.to_dict("records"), "pages", len(drawn), "slides"):
            number = int(Path(row["map"]).stem)
            told = _told(row)
            slide, shrunk = _slide(row, maps, *slides[row["image"]])
            page = templates.get_template("viewer.html").render(
                title=row["image"], said=f"{told}; {shrunk}", notice=notice, maps=_maps_of(row).items(),
                library=_code("vendor/openseadragon.min.js"), slide=Markup(slide), viewer=_code("viewer.js"),
                alternative=f"{row['image']}, {told}: zoom with the wheel, two fingers or + and -",
            )  # fmt: skip
            (beside / f"{number}.html").write_text(page, encoding="utf-8")
            shown.append({"number": number, "image": row["image"], "told": told})
        index = templates.get_template("index.html").render(slides=shown, notice=notice)
        (beside / "index.html").write_text(index, encoding="utf-8")
    return [slide["number"] for slide in shown]


def _told(row: Mapping[Any, Any]) -> str:
    return f"predicted {row['predicted']} ({float(row['confidence']):.0%}), reference {row['truth']}"


def _maps_of(row: Mapping[Any, Any]) -> dict[str, str]:
    return {key: name for key, name in MAPS.items() if row.get(key)}


def _code(name: str) -> Markup:
    # Ours, or published as it is: not a reader's text.
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _slide(row: Mapping[Any, Any], maps: Path, file: Path, at_intake: int, mpp: float) -> tuple[str, str]:
    """Return a slide's tiles and maps as a statement of JavaScript, and at what size they show it."""
    with opened_as_taken_in(file, at_intake) as slide:
        size, shrink = slide.width, max(1.0, math.sqrt(slide.width * slide.height / PIXELS))
        whole = round(slide.width / shrink), round(slide.height / shrink)
        levels = math.ceil(math.log2(max(whole))) + 1
        tiles = dict(_pyramid(slide, whole, levels))
    content = {
        "width": whole[0],
        "height": whole[1],
        "tile": TILE,
        "levels": levels,
        "wide": size * mpp,
        "tiles": tiles,
        "maps": {key: _coloured(maps.parent / row[key], whole) for key in _maps_of(row)},
    }
    at = f"shown at {mpp * shrink:.2g} µm a pixel"
    # All of it numbers, keys of ours and base 64: nothing that could end the script.
    return f"const slide = {json.dumps(content)};", at if shrink > 1 else f"{at}, its finest level"


def _pyramid(slide: Slide, whole: tuple[int, int], levels: int) -> Iterator[tuple[str, str]]:
    """Yield name and JPEG of each tile, level by level; level 0 is one pixel (Deep Zoom).

    The slide is read once, in blocks, and each level is averaged from the finer one: cut from a slide without levels of its
    own, a coarse tile would ask for all of its pixels.
    """
    seen = seen_from_afar(slide, slide.width / whole[0])
    for level in reversed(range(levels)):
        half = 2 ** (levels - 1 - level)
        width, height = math.ceil(whole[0] / half), math.ceil(whole[1] / half)
        if seen.shape[1::-1] != (width, height):
            seen = cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA)
        for x in range(math.ceil(width / TILE)):
            for y in range(math.ceil(height / TILE)):
                tile = seen[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
                yield f"{level}_{x}_{y}", _text(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR))


def _coloured(path: Path, whole: tuple[int, int]) -> str:
    """Return a square map as a picture of the slide's proportions, clear where nothing was attended to."""
    values = np.asarray(Image.open(path).convert("L"))
    side = len(values)
    scale = side / max(whole)
    width, height = max(1, round(whole[0] * scale)), max(1, round(whole[1] * scale))
    top, left = (side - height) // 2, (side - width) // 2
    share = values[top : top + height, left : left + width] / 255
    colours = np.rint(255 * matplotlib.colormaps[_COLOURS](share)).astype(np.uint8)
    colours[..., 3] = np.rint(255 * _COVER * (share > 0))
    return _text(".png", cv2.cvtColor(colours, cv2.COLOR_RGBA2BGRA))


def _text(kind: str, picture: np.ndarray) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if kind == ".jpg" else []
    data = cv2.imencode(kind, picture, options)[1].tobytes()
    name = "jpeg" if kind == ".jpg" else "png"
    return f"data:image/{name};base64,{base64.b64encode(data).decode('ascii')}"


def main(argv: Sequence[str]) -> None:
    """Make the pages of the slides that one set of patients' report shows."""
    parser = step_parser("viewer.build", "Make pages on which readers zoom into slides with their maps.")
    parser.add_argument("--cases", type=existing_file, required=True, help="cases.csv of slides.explain")
    add_cohorts(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the pages")
    args = parser.parse_args(argv)
    slides: dict[str, tuple[Path, int, float]] = {}
    for inventory, folder in zip(args.inventories, args.images, strict=True):
        table = pd.read_parquet(inventory, columns=["case_id", "image", "bytes", "mpp"])
        slides |= {
            row.case_id: (folder / str(row.image), int(row.bytes), float(row.mpp))
            for row in table.itertuples(index=False)
        }
    cases = pd.read_csv(args.cases, keep_default_na=False)
    notice = str(read_options(Options, args.options).study.get("notice", ""))
    build(notice, cases, args.cases.parent / "maps", slides, args.out)
