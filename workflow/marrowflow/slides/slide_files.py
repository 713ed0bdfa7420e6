"""The files of a slide: which they are, what tells them from others, and whether they are still those of the intake."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marrowflow.errors import UserError
from marrowflow.files import sha256_of
from marrowflow.slides.slide import Slide, Unreadable

_REMEDY = "put the old one back, or take the hospital's slides in anew: run with --forcerun ingest_slides"


def files_of(path: Path) -> list[Path]:
    """Return the files of a slide: of MIRAX those in the folder of its name too, of all others the one."""
    if path.suffix.lower() == ".mrxs":
        return [path, *sorted(file for file in path.with_suffix("").glob("*") if file.is_file())]
    return [path]


def size_of(path: Path) -> int:
    """Return how many bytes the files of a slide have together; raise OSError where one is not there."""
    return sum(file.stat().st_size for file in files_of(path))


def checksum_of(path: Path) -> str:
    """Return the SHA-256 of a slide: of several files that of their checksums; raise OSError where one cannot be read."""
    sums = [sha256_of(file) for file in files_of(path)]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


@contextmanager
def opened_as_taken_in(path: Path, size: int) -> Iterator[Slide]:
    """Open a slide that the intake could read; what cannot be read of it in the block is told by its name too.

    Parameters
    ----------
    path
        The slide.
    size
        Its bytes at the intake.

    Raises
    ------
    UserError
        A slide that is gone, damaged or another one.
    """
    try:
        now = size_of(path)
        if now != size:
            raise UserError(
                f"slide {path} has changed since its intake: {now:,} bytes, not {size:,}; {_REMEDY}"
            )
        with Slide(path) as slide:
            yield slide
    except (Unreadable, OSError) as error:
        raise UserError(
            f"slide {path} was readable at its intake and is not now: {error}; is its disk mounted? If so {_REMEDY}"
        ) from error


def refuse_another(path: Path, sha256: str) -> None:
    """Raise `UserError` where a slide is not the one of the intake, byte for byte."""
    if checksum_of(path) != sha256:
        raise UserError(f"slide {path} has changed since its intake; {_REMEDY}")
