"""Features of stored images, computed once for all jobs of a study.

Frozen networks differ from fold to fold, seed to seed and class to class in their last layer only. The
features of the images as they are therefore belong to the pixels and to the rest of the network. They
are kept in a folder that all jobs share, an entry a store and network::

    <network>-<12 digits of its key>/
        features.npy   float32 [N, F], in the order of the store's rows
        about.json     what they were computed from: all that the key stands for

The key covers all that can change a bit of them, and the store is always gone through in its own order
in batches of one size: it does not matter which job computes them. Jobs that start together wait for
the one that does.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from marrowflow.errors import UserError
from marrowflow.files import clear_parts, disk_errors_told, make_folder, note_written, part_of, write_json
from marrowflow.images.store import PackedPixels
from marrowflow.learning.checkpoint import Checkpoint, fingerprint
from marrowflow.learning.device import device_name
from marrowflow.learning.features import BATCH, Extractor, computed_features
from marrowflow.learning.pretrained import tensors_sha256
from marrowflow.provenance import code_digest
from marrowflow.splits.samples import ORIGINAL

log = logging.getLogger(__name__)

FEATURES, ABOUT = "features.npy", "about.json"


class FeatureCache:
    """Features of stored images as they are, shared by all jobs of a study.

    Parameters
    ----------
    folder
        Of the entries; made if missing. It may be deleted at any time: features are then computed anew.

    Attributes
    ----------
    seconds
        Time that this job has spent in computing features, for entries and for images that a plan changes. What it
        waited for another job, and what it found, is not in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        self.seconds = 0.0

    def of(
        self, extractor: Extractor, pixels: PackedPixels, case_ids: Sequence[str], device: torch.device
    ) -> torch.Tensor:
        """Return float32 [cases, features] on the device, in the order of ``case_ids``.

        Whichever store holds one of the cases is looked up, or gone through whole.

        Raises
        ------
        UserError
            The network does not end in one linear layer on its features; a case that no store holds.
        """
        numbers = pixels.numbers(case_ids)
        found = np.empty((len(numbers), extractor.head.in_features), np.float32)
        about, first = _about(extractor, device), 0
        for digest, held in pixels.contents():
            here = np.flatnonzero((first <= numbers) & (numbers < first + len(held)))
            if len(here):
                own = {**about, "store_sha256": digest}
                entry = self._entry(extractor, pixels, held, own, device)
                found[here] = entry[numbers[here] - first]
            first += len(held)
        return torch.from_numpy(found).to(device)

    def _entry(
        self,
        extractor: Extractor,
        pixels: PackedPixels,
        held: Sequence[str],
        about: dict[str, Any],
        device: torch.device,
    ) -> np.ndarray:
        """Return a store's features, float32 [N, F], mapped from the file."""
        key = fingerprint(about)
        shape = (len(held), extractor.head.in_features)
        entry = self._folder / f"{re.sub('[^A-Za-z0-9_.]', '_', extractor.network)}-{key[:12]}"
        known = _read(entry, key)
        if known is not None:
            return known
        make_folder(self._folder, entry)
        with _locked(self._folder / f".{entry.name}.lock"):
            known = _read(entry, key)  # another job may have computed it meanwhile
            if known is None:
                parts = computed_features(extractor, pixels, held, None, device)
                with self.timed(device):
                    _write(entry, parts, shape, {**about, "shape": list(shape), "key": key})
                known = _read(entry, key)
        if known is None:
            raise UserError(
                f"{entry} cannot be read back after writing; check the disk, or delete the folder"
            )
        return known

    @contextmanager
    def timed(self, device: torch.device) -> Iterator[None]:
        """Add the time of a computation to `seconds`."""
        started = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds += time.perf_counter() - started


def sample_features(
    cache: FeatureCache,
    extractor: Extractor,
    pixels: PackedPixels,
    case_ids: Sequence[str],
    plan: pd.DataFrame | None,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    name: str = "features",
) -> torch.Tensor:
    """Return the features of samples: the cache's for images as they are, new ones for those that a plan changes.

    Parameters
    ----------
    cache, extractor, pixels, device
        As for `FeatureCache.of`.
    case_ids
        One a sample.
    plan
        Rows as many as samples; None takes all images as they are.
    checkpoint
        Where the features of changed images are kept for a run that resumes; None keeps them nowhere.
    name
        Under which they are kept there.

    Returns
    -------
    Tensor
        float32 [samples, features].
    """
    if plan is None:
        return cache.of(extractor, pixels, case_ids, device)
    cases = np.asarray(case_ids, dtype=object)
    changed = plan["transform"].to_numpy() != ORIGINAL
    features = torch.empty((len(cases), extractor.head.in_features), device=device)
    features[np.flatnonzero(~changed)] = cache.of(extractor, pixels, cases[~changed].tolist(), device)
    if changed.any():
        kept = None if checkpoint is None else checkpoint.load(name, device)
        if kept is None:
            parts = computed_features(extractor, pixels, cases[changed].tolist(), plan[changed], device)
            with cache.timed(device):
                kept = {"changed": torch.cat(list(parts))}
            if checkpoint is not None:
                checkpoint.save(name, kept)
        features[np.flatnonzero(changed)] = kept["changed"]
    return features


def _about(extractor: Extractor, device: torch.device) -> dict[str, Any]:
    """Return all that the features depend on, to the bit, beside the pixels."""
    prepare = extractor.prepare
    return {
        "what": "what the network's last layer sees of each stored image as it is, in the order of the store",
        "network": extractor.network,
        "profile": extractor.profile,
        "weights_sha256": _base_digest(extractor),
        "input_size": prepare.input_size,
        "mean": list(prepare.mean),
        "std": list(prepare.std),
        "precision": extractor.precision,
        "batch": BATCH,
        "device": device_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        # The second covers the networks' definitions, which the first does not.
        "code": [code_digest(module) for module in ("learning.feature_cache", "learning.backbones")],
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
    }


def _base_digest(extractor: Extractor) -> str:
    """Return the checksum of all tensors but the last layer's: networks that share it share their features."""
    own = {id(parameter) for parameter in extractor.head.parameters()}
    head = {name for name, parameter in extractor.module.named_parameters() if id(parameter) in own}
    state = extractor.module.state_dict()
    return tensors_sha256({name: tensor for name, tensor in state.items() if name not in head})


def _read(entry: Path, key: str) -> np.ndarray | None:
    """Return an entry's features; None where there is none, not the whole of it, or one of another key."""
    try:
        about = json.loads((entry / ABOUT).read_text(encoding="utf-8"))
        features = np.load(entry / FEATURES, mmap_mode="r")
    except (OSError, EOFError, ValueError):  # a map longer than its file is a ValueError
        return None
    known = isinstance(about, dict) and about.get("key") == key and about.get("shape") == list(features.shape)
    return features if known else None


def _write(entry: Path, parts: Iterator[torch.Tensor], shape: tuple[int, int], about: dict[str, Any]) -> None:
    """Write an entry beside its place, and rename the whole folder."""
    # Some file systems hold no lock, so each job writes a folder of its own.
    beside = part_of(entry, folder=True)
    try:
        with disk_errors_told(entry):
            clear_parts(entry, folder=True)
            beside.mkdir()
            with (beside / FEATURES).open("wb") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for part in parts:
                    file.write(np.ascontiguousarray(part.cpu().numpy(), "<f4").data)
                file.flush()
                os.fsync(file.fileno())
        write_json(beside / ABOUT, about)
        _put(beside, entry, about["key"])
    finally:
        # Half an entry would fill the disk for ever, if no job asks for it again; a whole one has another name now.
        shutil.rmtree(beside, ignore_errors=True)


def _put(beside: Path, entry: Path, key: str) -> None:
    """Rename a folder into an entry's place, where there is not a whole one already."""
    for in_the_way in (True, False):
        try:
            beside.rename(entry)
            note_written(entry)
            return
        except OSError:
            if _read(entry, key) is not None:  # a job on another machine was faster; it wrote the same bytes
                shutil.rmtree(beside)
                return
            if not in_the_way:
                raise
            shutil.rmtree(entry, ignore_errors=True)  # damaged


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system takes back when its holder ends, however it ends."""
    with disk_errors_told(path):
        handle = path.open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another job computes these features; waiting for it (%s)", path)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            log.warning("no locks in %s (%s): jobs may compute the same features twice", path.parent, error)
        yield
