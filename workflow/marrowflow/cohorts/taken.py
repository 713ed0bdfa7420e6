"""What intake takes of an image: fingerprints and measures, the same wherever its bytes come from."""

from __future__ import annotations

import errno
import hashlib
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import pandas as pd

from marrowflow.cli import progress
from marrowflow.cohorts.decode import Unreadable, decode
from marrowflow.cohorts.quality import measure
from marrowflow.errors import UserError

# Small enough to keep all threads busy to the end, large enough that handing out costs nothing.
_BATCH = 32
_ROWS = 4096


# Faults of one file. All others are a disk's or a network's: the image was there when the manifest was checked, and to
# exclude what could not be read for a while would make another study, in silence.
_OF_ONE_FILE = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP}


class Source(Protocol):
    """A file on disk (`pathlib.Path`) or in an archive (`marrowflow.cohorts.archive.Member`)."""

    def read_bytes(self) -> bytes:
        """Return the file's bytes, or raise OSError."""
        ...


class Pictured(Protocol):
    """An image (`marrowflow.cohorts.decode.Decoded`) or a slide (`marrowflow.slides.slide.Slide`), as its file describes it."""

    @property
    def width(self) -> int:
        """Columns, pixels."""
        ...

    @property
    def height(self) -> int:
        """Rows, pixels."""
        ...

    @property
    def channels(self) -> int:
        """Channels in the file."""
        ...

    @property
    def bit_depth(self) -> int:
        """Bits a sample in the file."""
        ...

    @property
    def format(self) -> str:
        """Kind of file."""
        ...

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1 to 8."""
        ...

    @property
    def frames(self) -> int:
        """Frames, pages or levels in the file."""
        ...


# A name of its own, because the class below has a field called bytes.
_Thumb = bytes


class Taken(NamedTuple):
    """What one file gave, in the types of the inventory's columns; ``unreadable`` is the reason or empty."""

    sha256: str = ""
    phash: str = ""
    thumb: _Thumb = b""
    width: int = 0
    height: int = 0
    channels: int = 0
    bit_depth: int = 0
    format: str = ""
    orientation: int = 0
    frames: int = 0
    bytes: int = 0
    focus: float = np.nan
    brightness: float = np.nan
    saturated: float = np.nan
    unreadable: str = ""


FIELDS = list(Taken._fields)


def take_in(files: Sequence[Source], threads: int = 1, what: str = "intake") -> pd.DataFrame:
    """Read, fingerprint and measure each file once; return the fields of `Taken`, one row a file.

    Memory is bounded by one decoded image a thread. Progress is shown under the name ``what``.

    Raises
    ------
    UserError
        A file cannot be read, and the fault lies not with that file alone, as a refused permission does.
    """
    # The decoders' own messages name no file; intake gives every unreadable one with its reason.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # Images are what is done side by side; OpenCV's own threads would only contend.
    cv2.setNumThreads(1)
    batches = [files[start : start + _BATCH] for start in range(0, len(files), _BATCH)]
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        done = itertools.chain.from_iterable(pool.map(_take_batch, batches))
        taken = iter(progress(done, what, total=len(files), unit="images"))
        # As columns, a row takes two thirds of the memory that it takes as a tuple.
        parts = [pd.DataFrame([], columns=FIELDS)]
        while rows := list(itertools.islice(taken, _ROWS)):
            parts.append(pd.DataFrame(rows, columns=FIELDS))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _take_batch(files: Sequence[Source]) -> list[Taken]:
    return [_take_one(file) for file in files]


def _take_one(file: Source) -> Taken:
    try:
        data = file.read_bytes()
    except OSError as error:
        return Taken(unreadable=fault_of_one_file(error, f"image {file}"))
    checksum = hashlib.sha256(data).hexdigest()
    try:
        image = decode(data)
    except Unreadable as error:
        return Taken(sha256=checksum, bytes=len(data), unreadable=str(error))
    return taken_of(image, image.pixels, checksum, len(data))


def fault_of_one_file(error: OSError, what: str) -> str:
    """Return why one file is excluded; raise `UserError` where the fault lies not with that file alone.

    Parameters
    ----------
    error
        That reading it raised.
    what
        The file, for the message.
    """
    if error.errno in _OF_ONE_FILE:
        return f"cannot be opened ({error.strerror})"
    raise UserError(
        f"{what} cannot be read any more ({error.strerror or error}): was its folder moved, or its disk unmounted? "
        "Bring it back, or delete its row in the manifest, then run the same command again"
    ) from error


def taken_of(image: Pictured, pixels: np.ndarray, checksum: str, size: int) -> Taken:
    """Return the fields of a readable file.

    Parameters
    ----------
    image
        What the file said of itself.
    pixels
        uint8 RGB [H, W, 3], what is measured: of an image all of it, of a slide a smaller picture.
    checksum, size
        SHA-256 and number of the file's bytes.
    """
    quality = measure(pixels)
    return Taken(
        sha256=checksum,
        phash=f"{quality.phash:016x}",
        thumb=quality.thumb,
        width=image.width,
        height=image.height,
        channels=image.channels,
        bit_depth=image.bit_depth,
        format=image.format,
        orientation=image.orientation,
        frames=image.frames,
        bytes=size,
        focus=quality.focus,
        brightness=quality.brightness,
        saturated=quality.saturated,
    )
