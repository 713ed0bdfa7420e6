"""Images read out of an uncompressed TAR archive by their place in it; nothing is ever unpacked to disk.

Only plain files count. Links, devices and other kinds of members are never followed, and a name that is absolute or goes
upwards by ``..`` is nobody's image: whatever an archive holds, nothing is read but bytes of the archive itself.

An archive that was cut short is refused as a whole, also where the cut falls between two members: an archive ends with a
block of zeros (POSIX.1-2017, pax, "ustar Interchange Format"), and here it must.
"""

from __future__ import annotations

import errno
import os
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from marrowflow.errors import UserError

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK": "zip",
}


@dataclass(frozen=True)
class Member:
    """One file in an open archive; read as `pathlib.Path` reads one.

    Attributes
    ----------
    archive
        The archive's path, for messages.
    name
        Path within the archive, ``/`` between folders.
    """

    archive: Path
    name: str
    handle: int
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """Return the file's bytes; safe from several threads.

        Raises
        ------
        UserError
            The disk fails, or the archive became shorter: a fault of the archive, not of one image.
        """
        parts, done = [], 0
        try:
            while done < self.size:
                part = os.pread(self.handle, self.size - done, self.offset + done)
                if not part:
                    raise OSError(errno.EIO, "it became shorter while it was read")
                parts.append(part)
                done += len(part)
        except OSError as error:
            raise UserError(
                f"archive {self.archive} cannot be read at {self.name} ({error.strerror}): see to its disk, and run again"
            ) from error
        return b"".join(parts)

    def __str__(self) -> str:
        return f"{self.name} of {self.archive}"


class Archive:
    """An open archive with an index of its plain files; a context manager.

    Attributes
    ----------
    files : Mapping[str, list[Member]]
        Its plain files by their normal path (``./a/b.png`` is ``a/b.png``), in the archive's order. Names that are absolute or
        hold ``..`` are left out.
    others : Mapping[str, str]
        What else goes by a path: its kind, such as "a link".
    unsafe : int
        Members that were left out for their names.

    Raises
    ------
    UserError
        No such file; compressed, cut short or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> Archive:
        try:
            self._file = self.path.open("rb")
        except OSError as error:
            raise UserError(
                f"archive {self.path} cannot be opened ({error.strerror}): put it there, or correct the column 'shards' of "
                "the cohort table"
            ) from error
        try:
            self._index()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def of(self, image: str) -> list[Member]:
        """Return the plain files that go by an image's path; more than one where the archive repeats itself."""
        return self.files.get(posixpath.normpath(image), [])

    def _index(self) -> None:
        files: dict[str, list[Member]] = {}
        others: dict[str, str] = {}
        self.unsafe, self._size = 0, os.fstat(self._file.fileno()).st_size
        for info in self._members():
            if info.name.startswith("/") or ".." in info.name.split("/"):
                self.unsafe += 1
            elif info.isreg() and not info.issparse():
                name = posixpath.normpath(info.name)
                found = Member(self.path, name, self._file.fileno(), info.offset_data, info.size)
                files.setdefault(name, []).append(found)
            elif not info.isdir():
                others[posixpath.normpath(info.name)] = _kind(info)
        self.files: Mapping[str, list[Member]] = files
        self.others: Mapping[str, str] = others

    def _members(self) -> Iterator[tarfile.TarInfo]:
        """Yield all members, and see to it that the archive is whole."""
        end = 0
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for info in tar:
                    # A forged size below zero sends the library back, to the same member for ever.
                    if info.size < 0 or tar.offset <= end or tar.offset > self._size:
                        raise tarfile.ReadError("unexpected end of data")
                    end = tar.offset
                    yield info
                end = tar.offset
        # Damaged headers make the library raise errors of many kinds.
        except (tarfile.TarError, ValueError, OverflowError, OSError) as error:
            raise self._damaged(str(error)) from error
        # So do forged ones: a chain of thousands for one member, or one that is said to be larger than the memory.
        except (RecursionError, MemoryError) as error:
            raise self._damaged("a header without end") from error
        if os.pread(self._file.fileno(), tarfile.BLOCKSIZE, end) != bytes(tarfile.BLOCKSIZE):
            raise self._damaged("no end mark where the last member ends")

    def _damaged(self, reason: str) -> UserError:
        start = os.pread(self._file.fileno(), 8, 0)
        kind = next((name for mark, name in _COMPRESSED.items() if start.startswith(mark)), None)
        if kind:
            return UserError(
                f"archive {self.path} is compressed ({kind}); images are compressed already: pack them into an "
                "uncompressed .tar (python -m marrowflow cohorts.shards)"
            )
        return UserError(
            f"archive {self.path} ({self._size} bytes) is no whole TAR archive: {reason}. Was its copy cut short? Put the "
            "whole file there and run again"
        )


def _kind(info: tarfile.TarInfo) -> str:
    if info.islnk():
        return "a hard link (tar --hard-dereference packs the file)"
    if info.issym():
        return "a link"
    return "a sparse file" if info.issparse() else "no plain file"
