"""Files that are either whole or absent, and their checksums.

A killed job must not leave something that looks complete: everything is written beside its
final name, flushed to disk and renamed. Renaming within one folder is atomic on POSIX.
What a disk does to a writer (it is full, read-only or gone) is told as a `UserError`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.errors import UserError

# In the order in which they were written; a dict because a set has none.
_written: dict[Path, None] = {}

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GONE = {errno.ENOENT, errno.ESTALE}
_ELSEWHERE = "choose another folder"
# Less than any file needs: libraries that hide the system's reason fail when this is all that is left.
_FULL = 64 * 1024  # bytes


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block succeeds.

    The temporary name (see `part_of`) keeps the suffix, because image and table writers look at it.
    On any exception the temporary file is removed and ``path`` stays as it was. Raises `UserError` where the folder
    cannot be made or written to, and where its disk is full or taken away while the block writes.
    """
    path = Path(path)
    make_folder(path.parent, path)
    beside = part_of(path)
    try:
        with disk_errors_told(path):
            clear_parts(path)
            yield beside
            check_part(path, beside)
            with beside.open("rb") as handle:
                os.fsync(handle.fileno())
            beside.replace(path)
    finally:
        # Where even that fails, what failed before is what the user must read.
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    note_written(path)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a new, empty folder beside ``path``; it takes the place of what stands there when the block succeeds.

    On any exception it is removed and ``path`` stays as it was. Raises `UserError` as `written_whole` does.
    """
    path = Path(path)
    make_folder(path.parent, path)
    beside = part_of(path, folder=True)
    try:
        with disk_errors_told(path):
            clear_parts(path, folder=True)
            beside.mkdir()
            yield beside
            shutil.rmtree(path, ignore_errors=True)
            beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    note_written(path)


def part_of(path: Path, folder: bool = False) -> Path:
    """Return where this process writes ``path``, a file or a folder, until it is whole: beside it.

    The name tells the machine and the process. Locks do not hold on all file systems that machines share, and a
    process's number means nothing on another machine: so no two writers share a part.
    """
    stem, suffix = _stem_and_suffix(path, folder)
    return path.with_name(f".{stem}.{_host()}.{os.getpid()}.part{suffix}")


def clear_parts(path: Path, folder: bool = False) -> None:
    """Delete what killed writers of ``path`` left on this machine, and what this process did, which is to write anew.

    What a living process writes stays, and so does all that stems from another machine, which alone knows its processes:
    what a writer that was killed there left stays until the same is written there again.
    """
    stem, suffix = map(re.escape, _stem_and_suffix(path, folder))
    name = re.compile(rf"\.{stem}\.{_host()}\.(\d+)\.part{suffix}")
    for found in os.listdir(path.parent):  # noqa: PTH208
        part = name.fullmatch(found)
        if part is None or _is_alive(int(part[1])):
            continue
        if folder:
            shutil.rmtree(path.parent / found, ignore_errors=True)
        else:
            with suppress(OSError):
                (path.parent / found).unlink()


def check_part(path: Path, beside: Path) -> None:
    """Raise `UserError` where the part of ``path`` is gone though its folder is there; on a full disk, its OSError."""
    if beside.exists() or not path.parent.is_dir():
        return
    if _is_full(path):  # writers that give up in silence remove what they began
        raise OSError(errno.ENOSPC, "its writer gave up")
    raise UserError(
        f"{path} cannot be written (its temporary file was removed by another process): run the same command again"
    )


def _stem_and_suffix(path: Path, folder: bool) -> tuple[str, str]:
    return (path.name, "") if folder else (path.stem, path.suffix)


def _host() -> str:
    """Return this machine's name without what would not do in a file's, its dots included."""
    return re.sub(r"[^A-Za-z0-9_-]", "", platform.node())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return process != os.getpid()


def make_folder(folder: Path, path: Path) -> None:
    """Make the folder in which ``path`` will be written; raise `UserError` where it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({_reason(error)}): {_remedy(path, error)}") from error
    if os.access(folder, os.W_OK):
        return
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise UserError(f"{path} cannot be written ({os.strerror(errno.EROFS)}): {_ELSEWHERE}")
    raise UserError(f"{path} cannot be written (no permission): choose another folder, or ask for the right")


@contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """Raise a `UserError` for what the disk does to the block that writes ``path``; other exceptions pass.

    Libraries that hide the system's reason (torch, OpenCV) are believed to have met a full disk when it is full.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and _is_the_disks(path, error):
            found = error
        elif _is_full(path):
            found = OSError(errno.ENOSPC, str(error))
        else:
            raise
        raise UserError(f"{path} cannot be written ({_reason(found)}): {_remedy(path, found)}") from error


def note_written(path: Path) -> None:
    """Note a file or folder for the log's last lines, where neither `written_whole` nor a store's writer made it."""
    _written.pop(path, None)
    _written[path] = None


def written_files() -> list[Path]:
    """Return what this process has written and what still stands there, in the order of writing."""
    return [path for path in _written if path.exists()]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as its suffix says (.parquet or .csv), without the index, whole or not at all."""
    with written_whole(path) as beside:
        if path.suffix == ".parquet":
            table.to_parquet(beside, index=False)
        elif path.suffix == ".csv":
            table.to_csv(beside, index=False)
        else:
            raise ValueError(f"no table format for {path.suffix!r}: {path}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _is_the_disks(path: Path, error: OSError) -> bool:
    """Return whether an error is one of writing ``path``, not of something else that its writer reads."""
    gone = error.errno in {*_GONE, errno.ENOTDIR} and not path.parent.is_dir()
    return gone or error.errno in {*_NO_ROOM, errno.EROFS}


def _is_full(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.parent).free < _FULL
    except OSError:
        return False


def _reason(error: OSError) -> str:
    if error.errno in _GONE:
        return "its folder is gone"
    # The system's own words, which can be looked up; libraries put theirs in their place.
    return os.strerror(error.errno) if error.errno else str(error)


def _remedy(path: Path, error: OSError) -> str:
    if error.errno in _NO_ROOM:
        return f"make room{_room(path)}, then run the same command again; what was finished before stays"
    if error.errno in _GONE:
        return "was it deleted, or its disk unmounted? Bring it back, then run the same command again"
    return _ELSEWHERE


def _room(path: Path) -> str:
    """Return how much of the disk is free, as far as the system tells."""
    try:
        usage = shutil.disk_usage(path.parent)
    except OSError:
        return ""
    return f" ({in_bytes(usage.free)} of {in_bytes(usage.total)} are free)"


def in_bytes(number: int) -> str:
    """Return a number of bytes with a decimal unit, such as ``1.2 MB``."""
    size, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 99.5 else f"{size:.1f} {unit}"
