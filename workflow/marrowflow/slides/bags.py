"""A slide's tiles as numbers: one array and one table of coordinates a slide, kept under the key of all that shaped them.

Features are costly, and belong to a slide, a tiling and a network, not to a study's run: they lie in a folder that all
jobs share, an entry a slide::

    <network>-<12 digits of the recipe's key>/<16 digits of the slide's own key>/
        features.npy    float16 [n, F], in the order of the table
        tiles.parquet   x, y of each tile, in pixels of the slide's finest level
        about.json      all that the keys stand for, the shape, both files' checksums

An entry is written beside its place and renamed: it is whole, or it is not there. A cohort's *bags* are a table of the
entries of its slides at one tiling (``bags.parquet``), which is what rules know. Which tiles lie in a slide's region stands there
and not in the entry: a region is the study's, and may be drawn anew without a tile being seen again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import folder_written_whole, sha256_of, write_json, write_table

FEATURES, TILES, ABOUT = "features.npy", "tiles.parquet", "about.json"
PLACES = ["x", "y"]
"""Columns of an entry's tiles.parquet, int32."""
COLUMNS = ("case_id", "tiles", "reason", "entry", "features_sha256", "tiles_sha256", "inside")
"""Of bags.parquet: the slide; its number of tiles, 0 with the reason why there is none; its entry, relative to the
folder of all features; checksums of the entry's files; which tiles lie in the slide's region by half or more, a bit each, the
first the highest (nothing where all do)."""
_FILES = {"features": FEATURES, "tiles": TILES}
_REMEDY = "delete the table of bags that names it and run again: what is missing is computed anew"


@dataclass(frozen=True)
class Bag:
    """A slide's tiles.

    Attributes
    ----------
    case_id
        The slide.
    features
        float16 [n, F], mapped read-only.
    tiles
        Columns `PLACES`, one row a tile.
    """

    case_id: str
    features: np.ndarray
    tiles: pd.DataFrame

    def __len__(self) -> int:
        return len(self.tiles)


def as_bits(inside: np.ndarray) -> bytes:
    """Return bools [n] as the column ``inside`` holds them."""
    return b"" if inside.all() else np.packbits(inside).tobytes()


def read_entry(entry: Path) -> dict[str, Any] | None:
    """Return what a whole entry says of itself; None where there is none."""
    try:
        about = json.loads((entry / ABOUT).read_text(encoding="utf-8"))
        shape = list(np.load(entry / FEATURES, mmap_mode="r").shape)
    except (OSError, EOFError, ValueError):
        return None
    whole = isinstance(about, dict) and about.get("shape") == shape and (entry / TILES).is_file()
    return about if whole else None


def write_entry(entry: Path, features: np.ndarray, tiles: pd.DataFrame, about: Mapping[str, Any]) -> None:
    """Write an entry beside its place, and rename the whole folder.

    Parameters
    ----------
    entry
        Its folder; one that is there is replaced.
    features
        float16 [n, F].
    tiles
        Columns `PLACES` of n rows; others are left out.
    about
        What shaped them.
    """
    with folder_written_whole(entry) as beside:
        np.save(beside / FEATURES, features)
        write_table(beside / TILES, tiles[PLACES])
        found = {f"{name}_sha256": sha256_of(beside / file) for name, file in _FILES.items()}
        write_json(beside / ABOUT, {**about, "shape": list(features.shape), **found})


def read_bag(case_id: str, entry: Path) -> Bag:
    """Return a slide's bag from its entry; raise `UserError` where it cannot be read."""
    try:
        return Bag(case_id, _features(case_id, entry), pd.read_parquet(entry / TILES))
    except (OSError, ValueError) as error:
        raise UserError(f"{case_id}: {entry} cannot be read ({error}); {_REMEDY}") from error


def _features(case_id: str, entry: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(entry / FEATURES, mmap_mode="r"))
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{case_id}: {entry} cannot be read ({error}); {_REMEDY}") from error


class Bags:
    """The bags of several cohorts at one tiling.

    Parameters
    ----------
    tables
        ``bags.parquet`` of each cohort.
    folder
        Of all features.

    Raises
    ------
    UserError
        An entry that is missing, or not the one that the table was written with.
    """

    def __init__(self, tables: Sequence[Path], folder: Path) -> None:
        self._folder = Path(folder)
        table = pd.concat([pd.read_parquet(path) for path in tables], ignore_index=True)
        self._rows = table.set_index("case_id")
        problems = [
            f"{row.Index}: {fault}" for row in self._rows[self._rows["tiles"] > 0].itertuples()
            if (fault := self._fault(row))
        ]  # fmt: skip
        if problems:
            raise UserError(enumerate_problems(f"features of slides are missing; {_REMEDY}:", problems))

        self._abouts = [
            read_entry(self._folder / e) or {} for e in self._rows.loc[self._rows["tiles"] > 0, "entry"]
        ]
        _refuse_mixture(self._abouts)

    @property
    def empty(self) -> bool:
        """Whether no slide has a tile."""
        return not self._abouts

    @property
    def features(self) -> int:
        """Numbers a tile."""
        return int(self._first["shape"][1])

    @property
    def recipe(self) -> dict[str, Any]:
        """What the network was that saw the tiles, as it describes itself."""
        return dict(self._first["extractor"])

    @property
    def weights(self) -> dict[str, str]:
        """Source, checksum and licence of that network's weights."""
        return dict(self._first["weights"])

    @property
    def digest(self) -> list[tuple[str, str, str, str]]:
        """Return the checksums of all bags, in their order, and which of their tiles lie within regions."""
        own = self._rows[["features_sha256", "tiles_sha256", "inside"]]
        return [
            (str(case), str(features), str(tiles), hashlib.sha256(inside).hexdigest())
            for case, features, tiles, inside in own.itertuples(name=None)
        ]

    def counts(self, case_ids: Sequence[str]) -> np.ndarray:
        """Return how many tiles each slide has, int64; raise `UserError` for slides that no table holds."""
        missing = sorted(set(case_ids) - set(self._rows.index))
        if missing:
            raise UserError(
                enumerate_problems("no given table of bags holds these slides; give every cohort's:", missing)
            )
        return self._rows.loc[list(case_ids), "tiles"].to_numpy(np.int64)

    def reason(self, case_id: str) -> str:
        """Return why a slide has no tiles; empty where it has some."""
        return str(self._rows.loc[case_id, "reason"])

    def of(self, case_id: str) -> Bag:
        """Return a slide's bag."""
        return read_bag(case_id, self._folder / self._rows.loc[case_id, "entry"])

    def within_region(self, case_id: str) -> np.ndarray:
        """Return the numbers of a slide's tiles that lie in its region by half or more, int64; of all where it has none."""
        count, bits = self._rows.loc[case_id, ["tiles", "inside"]]
        return (
            np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), count=count))
            if bits
            else np.arange(count)
        )

    def features_of(self, case_id: str) -> np.ndarray:
        """Return a slide's features alone: float16 [n, F], mapped read-only."""
        return _features(case_id, self._folder / self._rows.loc[case_id, "entry"])

    @property
    def _first(self) -> dict[str, Any]:
        if self.empty:
            raise UserError("no slide of these tables of bags has a tile; their column reason says why")
        return self._abouts[0]

    def _fault(self, row: Any) -> str:
        about = read_entry(self._folder / row.entry)
        if about is None:
            return f"{self._folder / row.entry} is not there, or not whole"
        if (about["features_sha256"], about["tiles_sha256"]) != (row.features_sha256, row.tiles_sha256):
            return f"{self._folder / row.entry} was made anew, and otherwise"
        return ""


def _refuse_mixture(abouts: Sequence[Mapping[str, Any]]) -> None:
    seen = {json.dumps(about["extractor"], sort_keys=True) for about in abouts}
    if len(seen) > 1:
        raise UserError(
            enumerate_problems(
                "tiles of these slides were seen by different networks, whose numbers mean different things; extract all anew:",
                sorted(seen),
            )
        )
