"""What was measured of the images in a cohort's archives: one table an archive, brought together by the intake.

A table has the columns ``image`` (as the manifest writes it) and those of `marrowflow.cohorts.taken.Taken`, one row for each
image of the manifest that the archive holds, in the manifest's order. What the manifest does not list is not read.
"""

from __future__ import annotations

import logging
import posixpath
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from marrowflow.cohorts.archive import Archive, Member
from marrowflow.cohorts.manifest import read_images
from marrowflow.cohorts.taken import FIELDS, Taken, take_in
from marrowflow.errors import UserError, enumerate_problems

log = logging.getLogger(__name__)

# Where no archive holds any image pandas cannot know what the columns would have held.
_TYPES = {"image": "str", **{name: type(value).__name__ for name, value in Taken()._asdict().items()}}
_DTYPES = {"int": "int64", "float": "float64", "str": "str", "bytes": "object"}


@dataclass(frozen=True)
class Measured:
    """The tables of all archives of a cohort, laid under one another.

    Attributes
    ----------
    table
        Their rows.
    holders
        The archives that hold each image, by its normal path; one that holds it twice is there twice.
    """

    table: pd.DataFrame
    holders: Mapping[str, Sequence[str]]

    def rows_of(self, images: Sequence[str]) -> pd.DataFrame:
        """Return the fields of `Taken` for images, in their order; each is in one archive."""
        place = {image: row for row, image in enumerate(self.table["image"])}
        return self.table.iloc[[place[image] for image in images]][FIELDS].reset_index(drop=True)


def measure_archive(archive: Path, manifest: Path, threads: int = 1) -> pd.DataFrame:
    """Read, fingerprint and measure the images of an archive that the manifest lists; return the archive's table.

    Raises
    ------
    UserError
        The archive or the manifest cannot be read; an image that is listed is a link, or is no plain file.
    """
    listed = dict(zip(*read_images(manifest), strict=True))
    with Archive(archive) as opened:
        _refuse_others(opened, listed, manifest)
        found = [(image, member) for image in listed for member in opened.of(image)]
        _tell(opened, found)
        members = [member for _, member in found]
        taken = take_in(members, threads, f"measure {archive.name}")
    taken.insert(0, "image", [image for image, _ in found])
    return taken.astype({name: _DTYPES[kind] for name, kind in _TYPES.items()})


def read_measured(tables: Sequence[Path]) -> Measured:
    """Read the tables of a cohort's archives, each named like its archive."""
    frames = {f"{path.stem}.tar": pd.read_parquet(path) for path in tables}
    holders: dict[str, list[str]] = defaultdict(list)
    for name, frame in frames.items():
        for image in frame["image"]:
            holders[posixpath.normpath(image)].append(name)
    return Measured(pd.concat(frames.values(), ignore_index=True), holders)


def _refuse_others(archive: Archive, listed: Mapping[str, int], manifest: Path) -> None:
    problems = [
        f"row {line}, column 'image': {image!r} is {archive.others[name]} in {archive.path}, which is not followed; pack "
        "the file itself"
        for image, line in listed.items()
        if (name := posixpath.normpath(image)) in archive.others and not archive.of(image)
    ]
    if problems:
        raise UserError(enumerate_problems(f"{manifest} cannot be used:", problems))


def _tell(archive: Archive, found: Sequence[tuple[str, Member]]) -> None:
    held = sum(len(members) for members in archive.files.values())
    log.info("%s: %d of its %d files are listed in the manifest", archive.path, len(found), held)
    ignored = held - len(found) + len(archive.others) + archive.unsafe
    if ignored:
        log.warning(
            "%s: %d members that the manifest does not list were not read (%d of them links or no plain files, %d with "
            "absolute names or '..')", archive.path, ignored, len(archive.others), archive.unsafe,
        )  # fmt: skip
    if not found:
        log.warning("%s: no image of the manifest is in this archive", archive.path)
