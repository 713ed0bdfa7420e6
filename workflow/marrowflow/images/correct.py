"""Correct the colour of a cohort's images and pack them (a step).

Reads the included rows of an inventory, decodes each file, crops it where the recipe says so, corrects
its colour, makes it square and writes a store (see `marrowflow.images.store`). Only pixels travel: no
file name but the case's, no EXIF. Beside the store lies ``appearance.parquet``, mean and deviation of each stored
image's colour (see `marrowflow.images.appearance`), which no network reads. The bytes do not depend on the number of
threads.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pandas as pd

from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.cohorts.decode import Unreadable, decode
from marrowflow.config import ColourRecipe, Images, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import sha256_of, write_table
from marrowflow.images.appearance import APPEARANCE, APPEARANCE_COLUMNS, appearance, appearance_table
from marrowflow.images.colour import correct
from marrowflow.images.store import StoreWriter

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_AGAIN = "run again with --forcerun ingest_cohort, which takes the cohort in anew"


class Options(Section):
    """Sections of the configuration that the step uses."""

    images: Images = Images()
    recipe: ColourRecipe = ColourRecipe()


def main(argv: Sequence[str]) -> None:
    """Run the step."""
    parser = step_parser("images.correct", "Correct the colour of a cohort's images and pack them.")
    parser.add_argument(
        "--inventory", type=existing_file, required=True, help="inventory.parquet of the cohort"
    )
    parser.add_argument(
        "--images", type=Path, required=True, help="folder that the manifest's paths start from"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the store")
    parser.add_argument("--threads", type=int, default=1, help="images worked on at a time")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    correct_cohort(pd.read_parquet(args.inventory), args.images, args.out, options, args.threads)


def correct_cohort(
    inventory: pd.DataFrame, folder: Path, out: Path, options: Options, threads: int = 1
) -> None:
    """Write the store of a cohort's included images, and how they look, in the inventory's order.

    Parameters
    ----------
    inventory
        Columns ``case_id``, ``image``, ``sha256``, ``status``.
    folder
        What ``image`` is relative to.
    out
        Folder of the store.
    options
        Side, fit and colour recipe.
    threads
        Images worked on at a time; at most twice as many are held in memory.

    Raises
    ------
    UserError
        No image is included; an image is gone, changed since intake or no longer readable; the
        recipe's target cannot be used.
    """
    included = inventory[inventory["status"] == "included"]
    if included.empty:
        raise UserError(
            f"none of the {len(inventory)} images is included: see the reasons in the inventory's column 'reason'"
        )
    # The pool's threads are the only ones: OpenCV's own would fight with them.
    cv2.setNumThreads(1)

    def work(case: tuple[str, str]) -> tuple[np.ndarray, str, np.ndarray]:
        pixels = _read(folder / case[0], case[1])
        stored, flag = correct(pixels, options.recipe, options.images.size, options.images.fit)
        return stored, flag, appearance(stored)

    cases = list(zip(included["image"], included["sha256"], strict=True))
    flags: dict[str, int] = {}
    looks = np.empty((len(cases), len(APPEARANCE_COLUMNS)))
    with StoreWriter(out, list(included["case_id"]), options.images.size, _about(options)) as writer:
        results = _in_order(work, cases, threads)
        for row, (image, flag, looks[row]) in enumerate(progress(results, "correct", len(cases), "images")):
            writer.put(row, image, flag)
            if flag:
                flags[flag] = flags.get(flag, 0) + 1
    write_table(out / APPEARANCE, appearance_table(list(included["case_id"]), looks))
    log.info("%d images packed at %d pixels: %s", len(cases), options.images.size, out)
    for flag, count in sorted(flags.items()):
        log.warning("%d of %d images could not be treated by the whole recipe: %s", count, len(cases), flag)


def _read(path: Path, sha256: str) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"image {path} cannot be read any more ({error.strerror}): put it back, or {_AGAIN}"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"image {path} has changed since intake: put the old file back, or {_AGAIN}")
    try:
        return decode(data).pixels
    except Unreadable as error:
        raise UserError(f"image {path} was readable at intake and is not now: {error}; {_AGAIN}") from error


def _in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield ``work(item)`` in the items' order, with ``threads`` at work and at most twice as many results waiting."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                if len(waiting) == 2 * threads:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _about(options: Options) -> dict[str, Any]:
    target = options.recipe.target
    return {
        "recipe": options.recipe.model_dump(mode="json"),
        "target_sha256": sha256_of(Path(target)) if target and Path(target).is_file() else None,
        "size": options.images.size,
        "fit": options.images.fit,
        "versions": {"numpy": np.__version__, "opencv": cv2.__version__},
    }
