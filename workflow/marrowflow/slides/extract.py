"""See every tile of a cohort's slides once, and keep what the network saw (a step).

Tiles stream from the slides to the device; nothing but their features is kept. A slide that was seen before at the same
tiling, by the same network on the same kind of machine, is not seen again, whoever asks. A job that is killed goes on
from the last whole shard of the slide that it was at.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.config import Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table, written_whole
from marrowflow.learning.checkpoint import fingerprint
from marrowflow.learning.device import choose_device, device_name
from marrowflow.learning.faults import within_memory
from marrowflow.provenance import code_digest
from marrowflow.slides.arguments import add_cohort, add_features, add_state
from marrowflow.slides.bags import COLUMNS, PLACES, as_bits, read_entry, write_entry
from marrowflow.slides.reading import tile_batches
from marrowflow.slides.slide import Slide
from marrowflow.slides.slide_files import opened_as_taken_in, refuse_another
from marrowflow.slides.tile_network import TileNetwork, tile_network
from marrowflow.slides.tiles import Geometry, geometry, rows_of, within_region
from marrowflow.study_slides import Extractor, Tiling

log = logging.getLogger(__name__)

SHARD = 64
"""Batches that are kept at a time."""


class Options(Section):
    """What features depend on, beside the slides and their tiles."""

    extractor: Extractor
    tiling: Tiling


@dataclass
class Seer:
    """A network on its device that sees slides' tiles, each once for all jobs of a study.

    Attributes
    ----------
    network, device
        The network, and where it is.
    features
        The study's folder of kept features.
    state
        This job's own folder for going on.
    threads
        Regions of a slide read at a time.
    """

    network: TileNetwork
    device: torch.device
    features: Path
    state: Path
    threads: int

    def __post_init__(self) -> None:
        found = self.network
        log.info(
            "tiles seen by %s in %s: %d numbers each; weights: %s, licence: %s",
            *(found.settings.network, found.precision, found.features, found.source, found.licence),
        )
        self._recipe = _recipe(found, self.device)
        name = re.sub("[^A-Za-z0-9_.]", "_", found.settings.network)
        self._folder = self.features / f"{name}-{fingerprint(self._recipe)[:12]}"

    def see(
        self,
        path: Path,
        size: int,
        sha256: str,
        mpp: float,
        tiling: Tiling,
        tiles: pd.DataFrame,
        overlap: float | None,
        title: str,
    ) -> Path:
        """Return the entry of a slide's tiles; they are seen now where nobody has before.

        Parameters
        ----------
        path, size, sha256, mpp
            The slide, its bytes and checksum at the intake, and micrometres a pixel of its finest level.
        tiling
            How tiles are read.
        tiles
            Columns ``x`` and ``y`` of one tile at least.
        overlap
            In place of the tiling's own, where tiles were placed so.
        title
            Of the progress.

        Raises
        ------
        UserError
            A slide that is gone, damaged or another one since the intake; too little memory.
        """
        about = {
            **self._recipe,
            "weights": {
                "source": self.network.source,
                "sha256": self.network.sha256,
                "licence": self.network.licence,
            },
            "slide_sha256": sha256,
            "mpp": mpp,
            "tiling": tiling.model_dump(mode="json") | ({} if overlap is None else {"overlap": overlap}),
            "tiles_digest": _digest(tiles),
        }
        entry = self._folder / fingerprint(about)[:16]
        if read_entry(entry) is None:
            with opened_as_taken_in(path, size) as slide:
                # What is kept is found again by the checksum of the intake: it must be that slide's.
                refuse_another(path, sha256)
                self._write(slide, geometry(slide, mpp, tiling, overlap), tiles, entry, about, title)
        if read_entry(entry) is None:
            raise UserError(f"{entry} cannot be read back after writing; check the disk")
        return entry

    def _write(
        self, slide: Slide, how: Geometry, tiles: pd.DataFrame, entry: Path, about: dict[str, Any], title: str
    ) -> None:
        """See one slide's tiles, shard by shard, and keep them as an entry."""
        shards = self.state / entry.name
        # What another slide or an earlier recipe left is of no use any more.
        for old in self.state.glob("*") if self.state.is_dir() else ():
            if old.name != entry.name:
                shutil.rmtree(old, ignore_errors=True)
        parts = list(rows_of(tiles, SHARD * self.network.settings.batch_size))
        kept = [
            _kept(shards / f"{i:06d}.npy", len(part), self.network.features) for i, part in enumerate(parts)
        ]
        missing = [i for i, found in enumerate(kept) if found is None]
        if len(missing) < len(parts):
            log.info(
                "%s: going on after %d of %d shards", slide.path.name, len(parts) - len(missing), len(parts)
            )
        for i in missing:
            part = f" {i + 1} of {len(parts)}" if len(parts) > 1 else ""
            seen = _shard(self, slide, how, parts[i], f"{title}, {slide.path.name}{part}")
            with written_whole(shards / f"{i:06d}.npy") as beside:
                np.save(beside, seen)
            kept[i] = seen
        write_entry(entry, np.concatenate(kept), tiles, about)  # type: ignore[arg-type]
        shutil.rmtree(shards, ignore_errors=True)


def seer(extractor: Extractor, size: int, features: Path, state: Path, threads: int) -> Seer:
    """Return a `Seer` on this job's device for tiles of so many pixels a side."""
    device = choose_device(extractor.threads)
    return Seer(tile_network(extractor, size, device), device, features, state, threads)


def extract(
    options: Options,
    inventory: pd.DataFrame,
    images: Path,
    placed: pd.DataFrame,
    tiles: pd.DataFrame,
    sees: Seer,
) -> pd.DataFrame:
    """See the tiles of a cohort's slides, and return its table of bags (`marrowflow.slides.bags.COLUMNS`).

    Parameters
    ----------
    options
        Network and tiling.
    inventory
        Of the cohort.
    images
        Folder that its slides lie in.
    placed, tiles
        Tables of ``slides.place``: one row a slide, one row a tile.
    sees
        What sees them.

    Raises
    ------
    UserError
        A slide that is gone or damaged since the intake; weights that cannot be had; too little memory.
    """
    own = dict(tuple(tiles.groupby("case_id", sort=False)))
    known = inventory.set_index("case_id")
    rows = []
    for number, slide in enumerate(placed.itertuples(index=False), 1):
        if slide.tiles == 0:
            rows.append((slide.case_id, 0, slide.reason, "", "", "", b""))
            continue
        here = own[slide.case_id].reset_index(drop=True)
        name, size, checksum = known.loc[slide.case_id, ["image", "bytes", "sha256"]]
        title = f"slide {number} of {len(placed)}"
        entry = sees.see(images / name, int(size), checksum, slide.mpp, options.tiling, here, None, title)
        about = read_entry(entry) or {}
        sums = about["features_sha256"], about["tiles_sha256"]
        inside = as_bits(within_region(here))
        rows.append((slide.case_id, len(here), "", str(entry.relative_to(sees.features)), *sums, inside))
    shutil.rmtree(sees.state, ignore_errors=True)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"tiles": "int64"})


def _shard(sees: Seer, slide: Slide, how: Geometry, tiles: pd.DataFrame, title: str) -> np.ndarray:
    """Return the features of some tiles, float16 [n, F]."""
    network = sees.network
    batch = network.settings.batch_size
    total = -(-len(tiles) // batch)
    read = progress(tile_batches(slide, how, tiles, batch, sees.threads), title, total, "batches")
    with within_memory(f"features of {network.settings.network}", batch):
        return np.concatenate([part.cpu().numpy() for part in _sent(network, sees.device, read)])


def _sent(
    network: TileNetwork, device: torch.device, batches: Iterator[np.ndarray]
) -> Iterator[torch.Tensor]:
    """Yield what the network sees of each batch; a GPU works on one while the next is moved and the last fetched."""
    waiting: list[torch.Tensor] = []
    for pixels in batches:
        tiles = torch.from_numpy(pixels)
        if device.type == "cuda":
            tiles = tiles.pin_memory().to(device, non_blocking=True)
        waiting.append(network(tiles))
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def _kept(path: Path, rows: int, features: int) -> np.ndarray | None:
    """Return a shard that an interrupted run kept; None where there is none, or none of this shape."""
    try:
        found = np.load(path)
    except (OSError, EOFError, ValueError):
        return None
    return found if found.shape == (rows, features) and found.dtype == np.float16 else None


def _recipe(network: TileNetwork, device: torch.device) -> dict[str, Any]:
    """Return all that a tile's features depend on, to the bit, beside its pixels."""
    return {
        "extractor": network.about(),
        "device": device_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "code": [code_digest(module) for module in ("slides.tile_network", "slides.reading")],
        "versions": {
            name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "openslide-python")
        },
    }


def _digest(tiles: pd.DataFrame) -> str:
    """Return a checksum of where tiles lie."""
    return hashlib.sha256(np.ascontiguousarray(tiles[PLACES].to_numpy("<i4")).data).hexdigest()


def main(argv: Sequence[str]) -> None:
    """See the tiles of one cohort's slides."""
    parser = step_parser("slides.extract", "See each tile of a cohort's slides once, and keep its features.")
    add_cohort(parser)
    parser.add_argument("--placed", type=existing_file, required=True, help="slides.csv of slides.place")
    parser.add_argument("--tiles", type=existing_file, required=True, help="tiles.parquet of slides.place")
    add_features(parser)
    add_state(parser)
    parser.add_argument("--threads", type=int, default=1, help="regions of a slide read at a time")
    parser.add_argument("--out", type=Path, required=True, help="table of bags to write (.parquet)")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    bags = extract(
        options,
        pd.read_parquet(args.inventory),
        args.images,
        pd.read_csv(args.placed, keep_default_na=False),
        pd.read_parquet(args.tiles),
        seer(options.extractor, options.tiling.size, args.features, args.state, args.threads),
    )
    log.info("%d slides, %d tiles", len(bags), bags["tiles"].sum())
    write_table(args.out, bags)
