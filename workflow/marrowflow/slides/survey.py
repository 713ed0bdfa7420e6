"""Look at each slide of a cohort from afar: its tissue, its region mask, and a small picture of it (a step).

Written beside one another, ``<number>`` being the slide's place among the included ones, from 0::

    tissue.csv                 one row an included slide (`COLUMNS`)
    slides/<number>.png        the slide, at most `SIDE` pixels wide or high
    slides/<number>_mask.png   what is looked at: 255 tissue, 0 not; at the tissue's own downsample
    slides/<number>_region.png the region likewise, where the slide has one
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from marrowflow.cli import progress, step_parser
from marrowflow.cohorts.eligibility import INCLUDED
from marrowflow.config import Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import folder_written_whole, write_table
from marrowflow.slides.arguments import add_cohort
from marrowflow.slides.regions import read_region
from marrowflow.slides.slide import Slide
from marrowflow.slides.slide_files import opened_as_taken_in
from marrowflow.slides.tissue import Mask, find_tissue, seen_from_afar
from marrowflow.study_slides import Tissue

log = logging.getLogger(__name__)

SIDE = 1024
"""Longest side of a slide's small picture, pixels."""
COLUMNS = ("case_id", "number", "mpp", "downsample", "threshold", "tissue", "region_downsample", "region")
"""Of tissue.csv: the slide; its number; micrometres a pixel of its finest level; how much smaller its mask is; Otsu's
threshold, empty where nothing was parted; share of the slide that is tissue; how much smaller its region mask is and
share of the slide inside it, empty without one."""


class Options(Section):
    """What the masks depend on."""

    tissue: Tissue = Tissue()


class _Job(NamedTuple):
    number: int
    case_id: str
    path: Path
    size: int
    mpp: float
    region: Path | None


def survey(
    options: Options, inventory: pd.DataFrame, images: Path, regions: bool, threads: int, folder: Path
) -> pd.DataFrame:
    """Write the pictures of a cohort's included slides into a folder, and return their table.

    Parameters
    ----------
    options
        How tissue is found.
    inventory
        Of the cohort.
    images
        Folder of its manifest.
    regions
        Whether region masks are read.
    threads
        Regions read at a time.
    folder
        Of the pictures; replaced whole.

    Raises
    ------
    UserError
        A slide or a region mask that cannot be read.
    """
    included = inventory[inventory["status"] == INCLUDED]
    named = included["region"] if regions and "region" in included else pd.Series("", index=included.index)
    jobs = [
        _Job(i, case, images / image, int(size), mpp, images / region.strip() if region.strip() else None)
        for i, (case, image, size, mpp, region) in enumerate(
            zip(*(included[name] for name in ("case_id", "image", "bytes", "mpp")), named, strict=True)
        )
    ]
    few = max(1, threads // max(1, len(jobs)))
    with folder_written_whole(folder) as beside, ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        looked = pool.map(lambda job: _look(options.tissue, job, few, beside), jobs)
        rows = list(progress(looked, "slides", len(jobs), "slides"))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def mask_of(folder: Path, row: Any, what: str = "mask") -> Mask | None:
    """Return a slide's mask as `survey` wrote it, ``mask`` or ``region``; None where it has no region.

    Parameters
    ----------
    folder
        Of the pictures.
    row
        The slide's row of tissue.csv.
    what
        Which of the two.
    """
    downsample = float(row.downsample if what == "mask" else row.region_downsample)
    if np.isnan(downsample):
        return None
    path = folder / f"{row.number}_{what}.png"
    found = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if found is None:
        raise UserError(f"{path} cannot be read; delete its folder and run again")
    return Mask(found > 0, downsample, float(row.threshold))


def _look(tissue: Tissue, job: _Job, threads: int, folder: Path) -> tuple[Any, ...]:
    with opened_as_taken_in(job.path, job.size) as slide:
        # A micrograph that is smaller than the mask would be is looked at as it is.
        downsample = min(tissue.downsample, max(1.0, min(slide.width, slide.height) / 16))
        seen = seen_from_afar(slide, downsample, threads)
        mask = find_tissue(seen, downsample, job.mpp, tissue)
        region = None
        if job.region is not None:
            region = read_region(job.region, slide, mask.inside.shape, downsample)
        small = _small(slide, seen, threads)
    _write(folder / f"{job.number}.png", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    _write(folder / f"{job.number}_mask.png", mask.inside.astype(np.uint8) * 255)
    if not mask.inside.any():
        log.warning("%s: no tissue was found on it", job.case_id)
    drawn = (np.nan, np.nan)
    if region is not None:
        _write(folder / f"{job.number}_region.png", region.inside.astype(np.uint8) * 255)
        drawn = (region.downsample, float(region.inside.mean()))
    return (job.case_id, job.number, job.mpp, downsample, mask.threshold, float(mask.inside.mean()), *drawn)


def _small(slide: Slide, seen: np.ndarray, threads: int) -> np.ndarray:
    """Return a slide's small picture, out of what was seen of it where that is large enough."""
    if max(seen.shape[:2]) < SIDE:
        return seen_from_afar(slide, max(1.0, max(slide.width, slide.height) / SIDE), threads)
    scale = SIDE / max(seen.shape[:2])
    size = max(1, round(seen.shape[1] * scale)), max(1, round(seen.shape[0] * scale))
    return cv2.resize(seen, size, interpolation=cv2.INTER_AREA)


def _write(path: Path, picture: np.ndarray) -> None:
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"{path} was not written")


def main(argv: Sequence[str]) -> None:
    """Look at one cohort's slides from afar."""
    parser = step_parser("slides.survey", "Find the tissue on a cohort's slides, and picture them.")
    add_cohort(parser)
    parser.add_argument("--regions", action="store_true", help="read the masks that the column region names")
    parser.add_argument("--threads", type=int, default=1, help="regions of slides read at a time")
    parser.add_argument(
        "--pictures", type=Path, required=True, metavar="DIR", help="folder of pictures to write"
    )
    parser.add_argument("--out", type=Path, required=True, help="tissue.csv to write")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    table = survey(
        read_options(Options, args.options),
        pd.read_parquet(args.inventory),
        args.images,
        args.regions,
        args.threads,
        args.pictures,
    )
    log.info("%d slides, %d without tissue", len(table), int((table["tissue"] == 0).sum()))
    write_table(args.out, table)
