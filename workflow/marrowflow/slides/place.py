"""Lay a tiling's tiles over a cohort's slides (a step).

::

    tiles.parquet          one row a tile: case_id and `marrowflow.slides.tiles.COLUMNS`
    slides.csv             one row an included slide (`COLUMNS`)
    overviews/<number>.png the slide with its mask's outline and its tiles
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.config import Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import folder_written_whole, write_table
from marrowflow.slides.arguments import add_cohort
from marrowflow.slides.slide_files import opened_as_taken_in
from marrowflow.slides.survey import mask_of
from marrowflow.slides.tiles import COLUMNS as TILE_COLUMNS
from marrowflow.slides.tiles import Geometry, TooCoarse, geometry, place_tiles, within_region
from marrowflow.study_slides import Tiling

log = logging.getLogger(__name__)

COLUMNS = (
    "case_id", "number", "tiles", "in_region", "reason", "mpp", "resolution", "level", "downsample", "resampled", "span", "stride",
)  # fmt: skip
"""Of slides.csv: the slide and its number; its tiles, and those that lie in its region by half or more; why it has none;
micrometres a pixel of its finest level and of the tiles; the level that is read, how much smaller it is, and pixels read
for one seen; side of a tile and the way to the next, in pixels of the finest level."""

NO_TISSUE = "no tissue"
TOO_SMALL = "smaller than one tile"
NOT_IN_REGION = "no tissue within its region"

# Blue and orange of Okabe and Ito (2008), told apart by all eyes; as OpenCV orders channels.
_MASK, _TILE = (178, 114, 0), (0, 159, 230)


class Options(Section):
    """What tiles depend on, beside the slides and their masks."""

    tiling: Tiling


def place(
    options: Options,
    inventory: pd.DataFrame,
    images: Path,
    surveyed: pd.DataFrame,
    pictures: Path,
    within: bool,
    folder: Path,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of slides and tiles of a cohort, and draw the overviews.

    Parameters
    ----------
    options
        The tiling.
    inventory
        Of the cohort.
    images
        Folder of its manifest.
    surveyed, pictures
        Table and folder of ``slides.survey``.
    within
        Keep only tiles within the region, where a slide has one.
    folder
        Of the overviews; replaced whole.
    """
    tiling = options.tiling
    files = inventory.set_index("case_id")[["image", "bytes"]]
    rows, tables = [], []
    with folder_written_whole(folder) as beside:
        for row in progress(list(surveyed.itertuples(index=False)), "slides", len(surveyed), "slides"):
            name, size = files.loc[row.case_id]
            placed, tiles = _placed(tiling, row, images / name, int(size), pictures, within)
            _draw(row, pictures, tiles, placed, beside / f"{row.number}.png")
            rows.append(placed)
            tables.append(tiles.assign(case_id=row.case_id))
    whole = pd.concat(tables, ignore_index=True)[["case_id", *TILE_COLUMNS]]
    return pd.DataFrame(rows, columns=list(COLUMNS)), whole.astype(TILE_COLUMNS)


def _placed(
    tiling: Tiling, row: Any, path: Path, size: int, pictures: Path, within: bool
) -> tuple[dict[str, Any], pd.DataFrame]:
    none = pd.DataFrame({name: [] for name in TILE_COLUMNS}).astype(TILE_COLUMNS)
    told: dict[str, Any] = {
        "case_id": row.case_id,
        "number": row.number,
        "mpp": row.mpp,
        "resolution": tiling.resolution,
    }
    try:
        with opened_as_taken_in(path, size) as slide:
            how = geometry(slide, row.mpp, tiling)
            mask, region = mask_of(pictures, row), mask_of(pictures, row, "region")
            assert mask is not None  # every slide has one
            tiles = place_tiles(slide, how, mask, tiling.min_tissue, region)
            fits = min(slide.width, slide.height) >= how.span - 0.5
    except TooCoarse as error:
        return told | {"tiles": 0, "in_region": 0, "reason": str(error)}, none
    inside = within_region(tiles)
    reason = NOT_IN_REGION if len(tiles) else NO_TISSUE if fits else TOO_SMALL
    if within:
        tiles = tiles[inside].reset_index(drop=True)
    if len(tiles):
        reason = ""
    told |= {"tiles": len(tiles), "in_region": int(inside.sum()), "reason": reason}
    return told | _read_how(how), tiles


def _read_how(how: Geometry) -> dict[str, Any]:
    return {
        "level": how.level,
        "downsample": how.downsample,
        "resampled": how.resampled,
        "span": how.span,
        "stride": how.stride,
    }


def _draw(row: Any, pictures: Path, tiles: pd.DataFrame, placed: dict[str, Any], path: Path) -> None:
    """Draw a slide with its mask's outline (blue) and its tiles (orange)."""
    picture = cv2.imread(str(pictures / f"{row.number}.png"))
    mask = mask_of(pictures, row)
    if picture is None or mask is None:
        raise UserError(f"{pictures / f'{row.number}.png'} cannot be read; delete its folder and run again")
    # How many pixels of the finest level one of the picture stands for.
    scale = mask.downsample * mask.inside.shape[1] / picture.shape[1]
    large = cv2.resize(mask.inside.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(tiles):
        side = placed["span"] / scale
        shade = picture.copy()
        for x, y in tiles[["x", "y"]].to_numpy() / scale:
            corner, other = (round(x), round(y)), (round(x + side), round(y + side))
            cv2.rectangle(shade, corner, other, _TILE, 1 if side >= 4 else cv2.FILLED)
        picture = cv2.addWeighted(shade, 0.7, picture, 0.3, 0)
    cv2.drawContours(picture, outlines, -1, _MASK, 2)
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"{path} was not written")


def main(argv: Sequence[str]) -> None:
    """Lay tiles over one cohort's slides."""
    parser = step_parser("slides.place", "Lay a tiling's tiles over a cohort's slides.")
    add_cohort(parser)
    parser.add_argument("--tissue", type=existing_file, required=True, help="tissue.csv of slides.survey")
    parser.add_argument(
        "--pictures", type=Path, required=True, metavar="DIR", help="pictures of slides.survey"
    )
    parser.add_argument("--within", action="store_true", help="only tiles within a slide's region")
    parser.add_argument(
        "--overviews", type=Path, required=True, metavar="DIR", help="folder of overviews to write"
    )
    parser.add_argument("--slides", type=Path, required=True, help="slides.csv to write")
    parser.add_argument("--out", type=Path, required=True, help="tiles.parquet to write")
    args = parser.parse_args(argv)
    slides, tiles = place(
        read_options(Options, args.options),
        pd.read_parquet(args.inventory),
        args.images,
        pd.read_csv(args.tissue),
        args.pictures,
        args.within,
        args.overviews,
    )
    for reason, count in slides.loc[slides["tiles"] == 0, "reason"].value_counts().items():
        log.warning("%d slides have no tile: %s", count, reason)
    log.info("%d slides, %d tiles", len(slides), len(tiles))
    write_table(args.slides, slides)
    write_table(args.out, tiles)
