"""Take a hospital's slides in: open each, look at it from afar, and say which are included (a step).

    python -m marrowflow slides.intake --options '{"intake": {…}, "classes": […]}' \\
        --cohort NAME --manifest PATH [--label-map PATH] --out inventory.parquet --threads N

The inventory is that of images (`marrowflow.cohorts.intake`), one row a slide. Fingerprints, focus and light are those of
the whole slide at most `SIDE` pixels wide or high; ``mpp`` is the size of a pixel of the finest level, by the file or by
the manifest. What else the manifest says of a slide travels on; what its file says does not.

================  ==========================================================================
column            of a slide
================  ==========================================================================
mpp               micrometres a pixel; by the file, or by the manifest where the file is silent
region            path of a mask relative to the manifest; optional (`marrowflow.slides.regions`)
frames            levels that the file stores
format            the scanner's maker, as OpenSlide calls it, or the kind of picture
sha256, bytes     of MIRAX slides those of all files together; of DICOM those of the file that the manifest names
================  ==========================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pandas as pd

from marrowflow.cli import progress, step_parser
from marrowflow.cohorts.image_paths import image_problems
from marrowflow.cohorts.intake import Options, make_inventory, summarise
from marrowflow.cohorts.manifest import add_manifest
from marrowflow.cohorts.taken import FIELDS, Taken, fault_of_one_file, taken_of
from marrowflow.config import read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.slides.scale import Unscaled, micrometres_a_pixel
from marrowflow.slides.slide import Slide, Unreadable
from marrowflow.slides.slide_files import checksum_of, size_of
from marrowflow.slides.tissue import seen_from_afar

SIDE = 2048
"""Longest side at which a slide is measured, pixels."""


def take_slides(table: pd.DataFrame, folder: Path, threads: int, what: str) -> pd.DataFrame:
    """Open and measure each slide of a manifest once; return the fields of `Taken`, and ``mpp``.

    Parameters
    ----------
    table
        The manifest's rows: ``image``, perhaps ``mpp`` and ``region``.
    folder
        The manifest's.
    threads
        Slides at a time; a single slide is read by all of them.
    what
        Name of the progress.

    Raises
    ------
    UserError
        With every slide whose size of pixels is unknown or contradictory, or whose region mask is not there.
    """
    stated = table["mpp"] if "mpp" in table else pd.Series(math.nan, index=table.index)
    wanted = list(zip(table["image"], stated, table["eligible"] == "yes", strict=True))
    few = max(1, threads // max(1, len(wanted)))

    def take(one: tuple[str, float, bool]) -> tuple[Taken, float, str]:
        image, mpp, eligible = one
        return _take_one(folder / image, mpp, few, eligible)

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        found = list(progress(pool.map(take, wanted), what, len(wanted), "slides"))
    problems = [
        f"{image}: {fault}" for image, (_, _, fault) in zip(table["image"], found, strict=True) if fault
    ]
    if "region" in table:
        named = table["region"].str.strip() != ""
        lines = (table.index[named] + 2).tolist()
        regions = table.loc[named, "region"].tolist()
        # One mask may serve several slides: each is looked for once.
        first = {region: line for region, line in zip(reversed(regions), reversed(lines), strict=True)}
        told = image_problems(folder, list(first), list(first.values()))
        problems += [text.replace("column 'image'", "column 'region'") for text in told]
    if problems:
        raise UserError(enumerate_problems(f"the slides in {folder} cannot be used:", problems))
    taken = pd.DataFrame([one for one, _, _ in found], columns=FIELDS)
    return taken.assign(mpp=[mpp for _, mpp, _ in found])


def _take_one(path: Path, stated: float, threads: int, eligible: bool) -> tuple[Taken, float, str]:
    """Return what was taken of a slide, its micrometres a pixel, and what is wrong with those."""
    checksum, size = "", 0
    try:
        checksum, size = checksum_of(path), size_of(path)
        with Slide(path) as slide:
            longest = max(slide.width, slide.height)
            seen = seen_from_afar(slide, max(1.0, longest / SIDE), threads)
            try:
                mpp, fault = micrometres_a_pixel(slide, stated), ""
            except Unscaled as error:
                # A slide that is not looked at needs no scale.
                mpp, fault = math.nan, str(error) if eligible else ""
            return taken_of(slide, seen, checksum, size), mpp, fault
    except Unreadable as error:
        return Taken(sha256=checksum, bytes=size, unreadable=str(error)), math.nan, ""
    except OSError as error:
        return Taken(unreadable=fault_of_one_file(error, f"slide {path}")), math.nan, ""


def main(argv: Sequence[str]) -> None:
    """Run the step."""
    parser = step_parser("slides.intake", "Check a manifest of slides, open them and write the inventory.")
    add_manifest(parser)
    parser.add_argument("--out", required=True, type=Path, help="the inventory to write (.parquet)")
    parser.add_argument("--threads", type=int, default=1, help="slides read at a time")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    cv2.setNumThreads(1)
    inventory = make_inventory(
        args.cohort, args.manifest, options, args.label_map, args.threads, take=take_slides
    )
    summarise(inventory, args.cohort)
    write_table(args.out, inventory)
