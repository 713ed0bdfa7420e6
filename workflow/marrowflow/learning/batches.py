"""Packed pixels drawn in batches, so that the network never waits for them.

Images lie as uint8 [N, S, S, 3] in one store a cohort. On a GPU a batch is moved as it is, a quarter of
the traffic of floats, and warped, whitened, resized and normalised there (`marrowflow.learning.preparation`);
a fold that fits lies there whole, any other is moved on a stream of its own beside the work. Nothing on
the way reads a value back from the GPU, which would wait until all of its work is done.

On a CPU a thread gathers the next batch, and warps and whitens it by OpenCV, just as
`marrowflow.images.augment` does for files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import pandas as pd
import torch

from marrowflow.cli import progress
from marrowflow.images.augment import apply
from marrowflow.images.store import PackedPixels
from marrowflow.learning.preparation import Preparation, normalised_maps

RESIDENT_SHARE = 0.4
"""A fold's pixels stay on the GPU when they take at most this share of its free memory."""

_AHEAD = 2
_CHUNK = 1024


class ImageSamples:
    """Images with their classes, drawn in batches: a partition's, or one for each row of a plan.

    Parameters
    ----------
    pixels
        Where the images lie.
    case_ids
        One a sample; with a plan, the parents in its order.
    targets
        int64 [samples]: class numbers.
    prepare
        The network's preparation.
    device
        Where batches are wanted.
    plan
        Rows as many as samples; None takes the images as they are.
    resident
        Keep the pixels on a GPU where they fit. Of no use when each sample is drawn once.
    """

    def __init__(
        self,
        pixels: PackedPixels,
        case_ids: Sequence[str],
        targets: np.ndarray,
        prepare: Preparation,
        device: torch.device,
        plan: pd.DataFrame | None = None,
        resident: bool = True,
    ) -> None:
        self.targets = torch.tensor(targets, dtype=torch.int64, device=device)
        self._pixels, self._prepare, self._device = pixels, prepare, device
        self._case_ids, self._numbers = list(case_ids), pixels.numbers(case_ids)
        self._plan = self._theta = self._whiten = None
        if plan is not None and _warps_on(device):
            maps = normalised_maps(plan, pixels.size).astype(np.float32)
            self._theta = torch.from_numpy(maps).to(device)
            self._whiten = plan["whiten"].to_numpy(bool) if plan["whiten"].any() else None
        elif plan is not None:
            self._plan = plan
        self._resident = self._place = None
        distinct, place = np.unique(self._numbers, return_inverse=True)
        if resident and _fits(len(distinct) * 3 * pixels.size**2, device):
            self._resident = _moved(pixels, distinct, device)
            self._place = torch.from_numpy(place).to(device)

    def __len__(self) -> int:
        return len(self._numbers)

    def case_ids(self, chosen: np.ndarray) -> list[str]:
        """Return the images' ids by their sample numbers."""
        return [self._case_ids[i] for i in chosen]

    def batches(
        self, chunks: Sequence[np.ndarray], title: str = ""
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield inputs float32 [n, 3, side, side] and targets int64 [n] of each chunk of sample numbers.

        With a title a progress bar of that name counts the batches.
        """
        sources = self._from_device(chunks) if self._resident is not None else self._from_disk(chunks)
        drawn = zip(on_device(chunks, self._device), sources, self._to_whiten(chunks), strict=True)
        for chosen, pixels, whitened in progress(drawn, title, len(chunks), "batches") if title else drawn:
            theta = None if self._theta is None else self._theta[chosen]
            yield self._prepare(pixels, theta, whitened), self.targets[chosen]

    def _to_whiten(self, chunks: Sequence[np.ndarray]) -> Sequence[torch.Tensor | None]:
        """Return of each chunk which of its places are whitened on the device."""
        whiten = self._whiten
        if whiten is None:
            return [None] * len(chunks)
        return on_device([np.flatnonzero(whiten[chunk]) for chunk in chunks], self._device)

    def _from_device(self, chunks: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        assert self._resident is not None and self._place is not None
        for chosen in on_device(chunks, self._device):
            yield self._resident[self._place[chosen]]

    def _from_disk(self, chunks: Sequence[np.ndarray]) -> Iterator[torch.Tensor]:
        """Gather and move the next batches in a thread while the device works on the one before."""
        moves = _Moves(self._device)

        def start(chunk: np.ndarray) -> tuple[torch.Tensor, torch.cuda.Event | None]:
            return moves.start(self._read(chunk))

        with ThreadPoolExecutor(max_workers=1) as reader:
            following = iter(chunks)
            waiting = [reader.submit(start, chunk) for chunk in islice(following, _AHEAD)]
            while waiting:
                started = waiting.pop(0).result()
                waiting += [reader.submit(start, chunk) for chunk in islice(following, 1)]
                yield moves.finish(*started)

    def _read(self, chunk: np.ndarray) -> torch.Tensor:
        """Return uint8 [n, S, S, 3] in memory that a GPU can copy from by itself."""
        shape = (len(chunk), self._pixels.size, self._pixels.size, 3)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        self._pixels.gather(self._numbers[chunk], pixels.numpy())
        if self._plan is None:
            return pixels
        return torch.from_numpy(apply(pixels.numpy(), self._plan.iloc[chunk], self._prepare.whitening))


class _Moves:
    """Moves of batches to a GPU on a stream of their own; on a CPU nothing is to be moved."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        if self._stream is None:
            return pixels, None
        with torch.cuda.stream(self._stream):
            moved = pixels.to(self._stream.device, non_blocking=True)
            return moved, self._stream.record_event()

    def finish(self, moved: torch.Tensor, arrived: torch.cuda.Event | None) -> torch.Tensor:
        if arrived is not None:
            main = torch.cuda.current_stream(moved.device)
            main.wait_event(arrived)
            # The memory belongs to the other stream: it must not be used anew before the main one has read it.
            moved.record_stream(main)
        return moved


def on_device(chunks: Sequence[np.ndarray], device: torch.device) -> Sequence[torch.Tensor]:
    """Return the chunks of sample numbers as tensors, moved at once: a GPU would wait at every single move."""
    if not chunks:
        return []
    together = torch.from_numpy(np.concatenate(chunks)).to(device)
    return together.split([len(chunk) for chunk in chunks])


def in_order(n: int, batch_size: int) -> list[np.ndarray]:
    """Divide sample numbers 0..n-1 into consecutive chunks."""
    return [np.arange(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


def shuffled(n: int, batch_size: int, key: Sequence[int]) -> list[np.ndarray]:
    """Divide sample numbers 0..n-1 into chunks, in an order of their own for each key.

    A last chunk of one sample joins the chunk before it: batch normalisation has no deviation of one.
    """
    return _divided(np.random.default_rng(list(key)).permutation(n), batch_size)


def balanced(groups: np.ndarray, batch_size: int, key: Sequence[int]) -> list[np.ndarray]:
    """Draw as many chunks as `shuffled` makes, each with all groups in numbers that differ by one at most.

    The places left over when a chunk is shared out go round the groups. Every sample of a group is drawn before
    any of it is drawn again; of a group larger than its share some are left out.

    Parameters
    ----------
    groups
        int64 [n]: each sample's class, or whatever is to be balanced.
    batch_size
        Samples a chunk.
    key
        Of the order, as in `shuffled`.
    """
    generator = np.random.default_rng(list(key))
    members = [np.flatnonzero(groups == group) for group in generator.permutation(np.unique(groups))]
    drawn = np.empty(len(groups), np.int64)
    for turn, own in enumerate(members):
        places = drawn[turn :: len(members)]
        rounds = -(-len(places) // len(own))
        places[:] = np.concatenate([generator.permutation(own) for _ in range(rounds)])[: len(places)]
    # Mixed once more, so that parts of a chunk hold all groups too.
    return [generator.permutation(chunk) for chunk in _divided(drawn, batch_size)]


def _divided(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    chunks = [order[rows] for rows in in_order(len(order), batch_size)]
    # A last one alone is what batch normalisation has no statistics of; who asks for batches of one has none anyway.
    if batch_size > 1 and len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [np.concatenate(chunks[-2:])]
    return chunks


def _warps_on(device: torch.device) -> bool:
    return device.type != "cpu"


def _fits(size: int, device: torch.device) -> bool:
    # In the computer's own memory the system keeps what is read of a store; a second copy would gain nothing.
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return size <= RESIDENT_SHARE * free


def _moved(pixels: PackedPixels, numbers: np.ndarray, device: torch.device) -> torch.Tensor:
    moved = torch.empty((len(numbers), pixels.size, pixels.size, 3), dtype=torch.uint8, device=device)
    for rows in in_order(len(numbers), _CHUNK):
        moved[rows[0] : rows[-1] + 1] = torch.from_numpy(pixels.gather(numbers[rows])).to(device)
    return moved
