"""Packed pixels: one uint8 array a cohort and colour recipe, read at random by every network.

A store is a folder of three files::

    pixels.npy      uint8 [N, S, S, 3], RGB; mapped into memory, never read whole
    index.parquet   case_id, row (of pixels.npy), flag (of the colour correction)
    store.json      shape, dtype, size and checksums of the other two, and how they were made

``store.json`` is written last. A writer that is killed leaves a .npy that looks whole and holds rows of
zeros; without its ``store.json`` no store opens.

Measured at 224×224, 64 rows at random, against other formats: an .npy map gives 77,000 images a second and core, HDF5
100 to 27,000, a folder of JPEG files 5,400 (see tests/benchmarks/bench_store.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import (
    check_part,
    clear_parts,
    disk_errors_told,
    make_folder,
    note_written,
    part_of,
    sha256_of,
    write_json,
    write_table,
)

PIXELS, INDEX, ABOUT = "pixels.npy", "index.parquet", "store.json"
_REMEDY = "its writer was stopped or the folder was changed by hand; delete the folder and run again"


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes
    ----------
    pixels
        uint8 [N, S, S, 3], RGB, mapped read-only.
    index
        ``case_id`` (str), ``row`` (int64), ``flag`` (str), one row a case, in the order of ``pixels``.
    digest
        SHA-256 of ``pixels.npy``.
    about
        All of ``store.json``.
    """

    pixels: np.ndarray
    index: pd.DataFrame
    digest: str
    about: dict[str, Any]

    def gather(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return images by their row, in the order asked for; a row may be asked for more than once.

        They are read in the order of the file, which spares the disk where the map is not in memory.

        Parameters
        ----------
        rows
            Integers in 0..N-1.

        Returns
        -------
        uint8 [len(rows), S, S, 3], RGB; a copy.

        Raises
        ------
        IndexError
            A row is outside the store.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self.pixels):
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} asked of a store of {len(self.pixels)}")
        batch = np.empty((len(wanted), *self.pixels.shape[1:]), np.uint8)
        for place in np.argsort(wanted, kind="stable"):
            batch[place] = self.pixels[wanted[place]]
        return batch


def open_store(folder: Path, verify: bool = False) -> Store:
    """Open a store, after a check that its files belong together.

    Parameters
    ----------
    folder
        Where `StoreWriter` wrote it.
    verify
        Compare the checksum of all pixels too (about 2 GB a second); otherwise their shape and size.

    Raises
    ------
    UserError
        A file is missing, cut short or not the one that ``store.json`` describes.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        # A plain view of the map: np.memmap makes a Python object of each row that is read.
        pixels = np.asarray(np.load(folder / PIXELS, mmap_mode="r"))
        index = pd.read_parquet(folder / INDEX)
        found = {
            "shape": list(pixels.shape),
            "dtype": str(pixels.dtype),
            "bytes": (folder / PIXELS).stat().st_size,
            "index_sha256": sha256_of(folder / INDEX),
        }
        if verify:
            found["sha256"] = sha256_of(folder / PIXELS)
        digest = about["sha256"]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no whole store of pixels ({error}): {_REMEDY}") from error
    for name, value in found.items():
        if about.get(name) != value:
            raise UserError(f"{folder}: {name} is {value}, but {ABOUT} says {about.get(name)}: {_REMEDY}")
    return Store(pixels, index, digest, about)


class PackedPixels:
    """The stored images of several cohorts under one numbering.

    Parameters
    ----------
    folders
        One store a cohort, all of one image size.

    Raises
    ------
    UserError
        Stores of different image sizes.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._stores = [open_store(folder) for folder in folders]
        self.digests = [(store.digest, store.about["index_sha256"]) for store in self._stores]
        sizes = {str(f): s.pixels.shape[1] for f, s in zip(folders, self._stores, strict=True)}
        if len(set(sizes.values())) > 1:
            found = [f"{folder}: {size} pixels" for folder, size in sizes.items()]
            raise UserError(
                enumerate_problems("stores of different image sizes cannot be mixed; rebuild them:", found)
            )
        self.size: int = next(iter(sizes.values()))
        self._starts = np.cumsum([0, *(len(s.pixels) for s in self._stores)])
        self._number = {
            case: int(start) + int(row)
            for start, store in zip(self._starts, self._stores, strict=False)
            for case, row in zip(store.index["case_id"], store.index["row"], strict=True)
        }

    def numbers(self, case_ids: Iterable[str]) -> np.ndarray:
        """Return each case's number, int64; raise `UserError` for cases that no store holds."""
        cases = list(case_ids)
        missing = sorted({case for case in cases if case not in self._number})
        if missing:
            heading = "no given store holds these cases; give every cohort's:"
            raise UserError(enumerate_problems(heading, missing))
        return np.fromiter((self._number[case] for case in cases), np.int64, len(cases))

    def gather(self, numbers: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return uint8 [n, S, S, 3], RGB, in the order of ``numbers``, written into ``out`` if given."""
        pixels = np.empty((len(numbers), self.size, self.size, 3), np.uint8) if out is None else out
        owner = np.searchsorted(self._starts, numbers, side="right") - 1
        rows = numbers - self._starts[owner]
        # In the order of the files, which spares the disk; image by image, which numpy copies 40 times faster than
        # by an array of places.
        for place in np.argsort(numbers, kind="stable"):
            pixels[place] = self._stores[owner[place]].pixels[rows[place]]
        return pixels

    def of(self, case_ids: Iterable[str]) -> np.ndarray:
        """Return the images of cases, as `gather` does; a case may be asked for more than once."""
        return self.gather(self.numbers(case_ids))

    def contents(self) -> list[tuple[str, list[str]]]:
        """Return each store's digest and its cases in the order of its rows, which is that of their numbers."""
        return [(s.digest, s.index.sort_values("row")["case_id"].tolist()) for s in self._stores]


class StoreWriter:
    """Fill a new store row by row, from any number of threads; a context manager.

    ::

        with StoreWriter(folder, case_ids, size=224, about={"recipe": …}) as writer:
            writer.put(row, image, flag)  # any order, any thread, each row once

    The store appears when the block ends without an exception and every row was put; until then a
    store that stood there before stays as it is.

    Parameters
    ----------
    folder
        Of the store; made if missing.
    case_ids
        Of the rows, in order; none for a part of a store whose archive holds no readable image.
    size
        Side of the images in pixels.
    about
        What ``store.json`` should record besides shape, type and checksums.
    """

    def __init__(self, folder: Path, case_ids: Sequence[str], size: int, about: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.case_ids = list(case_ids)
        self.shape = (len(self.case_ids), size, size, 3)
        self.about = dict(about)
        self.flags: list[str | None] = [None] * len(self.case_ids)
        # A file for each writer: two in one file would mix their pixels. What a killed one left, many GB perhaps, the
        # next one on the same machine deletes; until then it stays.
        self.beside = part_of(self.folder / PIXELS)

    def __enter__(self) -> StoreWriter:
        make_folder(self.folder, self.folder / PIXELS)
        header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
        with disk_errors_told(self.folder / PIXELS):
            clear_parts(self.folder / PIXELS)
            self._file = self.beside.open("wb")
        try:
            with disk_errors_told(self.folder / PIXELS):
                np.lib.format.write_array_header_1_0(self._file, header)
                self._file.flush()
                self._start = self._file.tell()
        except BaseException:
            self._drop()
            raise
        return self

    def put(self, row: int, image: np.ndarray, flag: str = "") -> None:
        """Write one image, uint8 [S, S, 3], and its flag. Safe from several threads for different rows."""
        if image.shape != self.shape[1:] or image.dtype != np.uint8:
            raise ValueError(f"row {row}: expected uint8 {self.shape[1:]}, got {image.dtype} {image.shape}")
        if not 0 <= row < self.shape[0]:
            raise IndexError(f"row {row} of a store of {self.shape[0]}")
        # Written, not mapped: a full disk is then an error here and not a bus error that ends the process.
        data = np.ascontiguousarray(image).data.cast("B")
        place = self._start + row * image.size
        with disk_errors_told(self.folder / PIXELS):
            while data:
                written = os.pwrite(self._file.fileno(), data, place)
                data, place = data[written:], place + written
        self.flags[row] = flag

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._drop()
            return
        try:
            with disk_errors_told(self.folder / PIXELS):
                self._finish()
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        """Remove what is no store. Where even that fails, what failed before is what the user must read."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.beside.unlink(missing_ok=True)

    def _finish(self) -> None:
        missing = [case for case, flag in zip(self.case_ids, self.flags, strict=True) if flag is None]
        if missing:
            raise RuntimeError(f"{len(missing)} rows were never put, the first of case {missing[0]!r}")
        os.fsync(self._file.fileno())
        self._file.close()
        check_part(self.folder / PIXELS, self.beside)
        digest = sha256_of(self.beside)
        # From here to the last line no store.json stands in the folder, so nothing half new can be opened.
        (self.folder / ABOUT).unlink(missing_ok=True)
        self.beside.replace(self.folder / PIXELS)
        index = pd.DataFrame(
            {"case_id": self.case_ids, "row": np.arange(len(self.case_ids)), "flag": self.flags}
        )
        note_written(self.folder / PIXELS)
        write_table(self.folder / INDEX, index)
        about = {
            **self.about,
            "shape": list(self.shape),
            "dtype": "uint8",
            "bytes": (self.folder / PIXELS).stat().st_size,
            "sha256": digest,
            "index_sha256": sha256_of(self.folder / INDEX),
        }
        write_json(self.folder / ABOUT, about)
