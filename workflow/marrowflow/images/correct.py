"""Correct the colour of a cohort's images and pack them (a step).

Reads the included rows of an inventory, decodes each file, crops it where the recipe says so, corrects
its colour, makes it square and writes a store (see `marrowflow.images.store`). Only pixels travel: no
file name but the case's, no EXIF. Beside the store lies ``appearance.parquet``, mean and deviation of each stored
image's colour (see `marrowflow.images.appearance`), which no network reads. The bytes do not depend on the number of
threads.

Images in archives were corrected before, one archive at a time (``images.shard``); ``--parts`` takes what that made, and the
store is the same byte for byte as that of the same images in a folder.
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
from marrowflow.cohorts.archive import Archive
from marrowflow.cohorts.decode import Unreadable, decode
from marrowflow.cohorts.taken import Source
from marrowflow.config import ColourRecipe, Images, Section, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import sha256_of, write_table
from marrowflow.images.appearance import APPEARANCE, APPEARANCE_COLUMNS, appearance, appearance_table
from marrowflow.images.colour import correct
from marrowflow.images.store import Store, StoreWriter, open_store

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_AGAIN = "run again with --forcerun ingest_cohort, which takes the cohort in anew"
_ANEW = "run again with --forcerun measure_shard, which reads the archives anew"


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
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="folder that the manifest's paths start from")
    source.add_argument(
        "--parts", type=Path, nargs="+", help="store.json of each archive's images, if images are in archives"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the store")
    parser.add_argument("--threads", type=int, default=1, help="images worked on at a time")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    inventory = pd.read_parquet(args.inventory)
    if args.images is None:
        gather_parts(inventory, [path.parent for path in args.parts], args.out, options)
    else:
        correct_cohort(inventory, args.images, args.out, options, args.threads)


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
    included = _included(inventory)
    sources = [folder / image for image in included["image"]]
    pack(sources, list(included["sha256"]), list(included["case_id"]), out, options, _AGAIN, threads)


def gather_parts(inventory: pd.DataFrame, parts: Sequence[Path], out: Path, options: Options) -> None:
    """Write the store of a cohort whose images were packed archive by archive, in the inventory's order.

    Parameters
    ----------
    inventory
        Columns ``case_id``, ``image``, ``sha256``, ``status``.
    parts
        Folders that `pack_archive` wrote with the same options.
    out
        Folder of the store.
    options
        Side, fit and colour recipe.

    Raises
    ------
    UserError
        No image is included; a part is damaged, was made with other options, or holds other images than were measured.
    """
    included = _included(inventory)
    place: dict[str, tuple[Store, int, np.ndarray]] = {}
    for folder in parts:
        part, looks = _open_part(folder, options)
        place |= {
            checksum: (part, row, looks[row])
            for checksum, row in zip(part.index["case_id"], part.index["row"], strict=True)
        }
    missing = [
        image for image, sha in zip(included["image"], included["sha256"], strict=True) if sha not in place
    ]
    if missing:
        heading = f"{len(missing)} images are not what was measured in their archives; {_ANEW}:"
        raise UserError(enumerate_problems(heading, missing))

    def stored() -> Iterator[tuple[np.ndarray, str, np.ndarray]]:
        for checksum in included["sha256"]:
            part, row, look = place[checksum]
            yield part.pixels[row], part.index["flag"].iat[row], look

    _write(stored(), list(included["case_id"]), out, options)


def pack_archive(
    measured: pd.DataFrame, archive: Path, out: Path, options: Options, threads: int = 1
) -> None:
    """Write a store of an archive's readable images, each under its checksum: a part for `gather_parts`.

    All that can be read are packed, because which of them are included is judged later, with the limits of that day.

    Parameters
    ----------
    measured
        The archive's table (see `marrowflow.cohorts.measured`).
    archive, out
        The archive, and the folder to write.
    options, threads
        As in `correct_cohort`.

    Raises
    ------
    UserError
        The archive is damaged or another one than was measured; the recipe's target cannot be used.
    """
    # Copies of one image are packed once.
    readable = measured[measured["unreadable"] == ""].drop_duplicates("sha256")
    with Archive(archive) as opened:
        gone = [image for image in readable["image"] if not opened.of(image)]
        if gone:
            raise UserError(
                enumerate_problems(f"archive {archive} has changed since it was measured; {_ANEW}:", gone)
            )
        sources = [opened.of(image)[0] for image in readable["image"]]
        checksums = list(readable["sha256"])
        pack(sources, checksums, checksums, out, options, _ANEW, threads)


def pack(
    sources: Sequence[Source],
    checksums: Sequence[str],
    case_ids: Sequence[str],
    out: Path,
    options: Options,
    remedy: str,
    threads: int = 1,
) -> None:
    """Correct images and write their store; ``remedy`` says what to do about one that has changed."""
    # The pool's threads are the only ones: OpenCV's own would fight with them.
    cv2.setNumThreads(1)

    def work(case: tuple[Source, str]) -> tuple[np.ndarray, str, np.ndarray]:
        pixels = _read(case[0], case[1], remedy)
        stored, flag = correct(pixels, options.recipe, options.images.size, options.images.fit)
        return stored, flag, appearance(stored)

    _write(_in_order(work, zip(sources, checksums, strict=True), threads), case_ids, out, options)


def _write(
    results: Iterable[tuple[np.ndarray, str, np.ndarray]],
    case_ids: Sequence[str],
    out: Path,
    options: Options,
) -> None:
    """Write a store and its appearance from (pixels, flag, appearance) of each case, in order."""
    flags: dict[str, int] = {}
    looks = np.empty((len(case_ids), len(APPEARANCE_COLUMNS)))
    with StoreWriter(out, case_ids, options.images.size, _about(options)) as writer:
        for row, (image, flag, looks[row]) in enumerate(
            progress(results, "correct", len(case_ids), "images")
        ):
            writer.put(row, image, flag)
            if flag:
                flags[flag] = flags.get(flag, 0) + 1
    write_table(out / APPEARANCE, appearance_table(list(case_ids), looks))
    log.info("%d images packed at %d pixels: %s", len(case_ids), options.images.size, out)
    for flag, count in sorted(flags.items()):
        log.warning(
            "%d of %d images could not be treated by the whole recipe: %s", count, len(case_ids), flag
        )


def _included(inventory: pd.DataFrame) -> pd.DataFrame:
    included = inventory[inventory["status"] == "included"]
    if included.empty:
        raise UserError(
            f"none of the {len(inventory)} images is included: see the reasons in the inventory's column 'reason'"
        )
    return included


def _open_part(folder: Path, options: Options) -> tuple[Store, np.ndarray]:
    part = open_store(folder, verify=True)
    made = {name: part.about[name] for name in _about(options)}
    if made != _about(options):
        raise UserError(f"{folder} was made with other options or versions; delete the folder and run again")
    looks = pd.read_parquet(folder / APPEARANCE)
    return part, looks[list(APPEARANCE_COLUMNS)].to_numpy()


def _read(path: Source, sha256: str, remedy: str) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"image {path} cannot be read any more ({error.strerror}): put it back, or {remedy}"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"image {path} has changed since intake: put the old file back, or {remedy}")
    try:
        return decode(data).pixels
    except Unreadable as error:
        raise UserError(f"image {path} was readable at intake and is not now: {error}; {remedy}") from error


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
