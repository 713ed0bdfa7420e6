"""From packed pixels to a network's input: uint8 to the device, everything else there.

Images lie as uint8 [N, S, S, 3] in one store a cohort. A batch is gathered as it is, moved, and only
on the device warped as its row of the plan says, whitened, resized to the network's input and
normalised. Moving bytes instead of floats is a quarter of the traffic, and on a GPU a fold that fits
lies there whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import affine_grid, conv2d, grid_sample, interpolate, pad

from marrowflow.cli import progress
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.images.augment import matrices
from marrowflow.images.store import open_store
from marrowflow.images.whitening import Whitening

RESIDENT_SHARE = 0.4
"""A fold's pixels stay on the GPU when they take at most this share of its free memory."""

_AHEAD = 2
_CHUNK = 1024


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

    def gather(self, numbers: np.ndarray) -> np.ndarray:
        """Return uint8 [n, S, S, 3], RGB, in the order of ``numbers``."""
        pixels = np.empty((len(numbers), self.size, self.size, 3), np.uint8)
        owner = np.searchsorted(self._starts, numbers, side="right") - 1
        for i in np.unique(owner):
            here = np.flatnonzero(owner == i)
            pixels[here] = self._stores[i].gather(numbers[here] - self._starts[i])
        return pixels


@dataclass(frozen=True)
class Preparation:
    """What is done to a batch on the device before the network sees it.

    Attributes
    ----------
    input_size
        Side of the network's input in pixels.
    mean, std
        Of R, G, B on the scale 0..1.
    whitening
        Fitted on the fold's training images; needed where the plan whitens.
    """

    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: Whitening | None = None

    @torch.no_grad()
    def __call__(
        self, pixels: torch.Tensor, theta: torch.Tensor | None = None, whitened: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return float32 [n, 3, side, side] in channels-last order.

        Parameters
        ----------
        pixels
            uint8 [n, S, S, 3], RGB.
        theta
            float32 [n, 2, 3] of `normalised_maps`; None leaves the geometry alone.
        whitened
            bool [n]: which images to whiten after the warp.
        """
        x = pixels.permute(0, 3, 1, 2).float()
        if theta is not None:
            grid = affine_grid(theta, list(x.shape), align_corners=True)
            x = grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)
        if whitened is not None and bool(whitened.any()):
            x[whitened] = self._whiten(x[whitened])
        if x.shape[-1] != self.input_size:
            # Antialiasing averages over all pixels that a smaller one covers; it does nothing when enlarging.
            x = interpolate(x, size=(self.input_size, self.input_size), mode="bilinear", antialias=True)
        mean, std = _per_channel(self.mean, x.device), _per_channel(self.std, x.device)
        return ((x / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def _whiten(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the patch ZCA (formula in `marrowflow.images.whitening`) to levels 0..255."""
        if self.whitening is None:
            raise ValueError("this plan whitens: a Whitening fitted on its training images is needed")
        kernel = torch.from_numpy(self.whitening.kernel).to(x)
        edge = kernel.shape[-1] // 2
        centred = x / 255 - torch.from_numpy(self.whitening.mean).to(x).view(1, 3, 1, 1)
        response = conv2d(pad(centred, (edge, edge, edge, edge), mode="replicate"), kernel)
        return (self.whitening.offset + self.whitening.gain * response).clamp(0, 255)


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    # Kept, because each copy to a GPU waits until all of its work is done.
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def normalised_maps(plan: pd.DataFrame, size: int) -> np.ndarray:
    """Return the plan's maps in the coordinates of ``affine_grid(…, align_corners=True)``: float64 [n, 2, 3].

    There the centres of the first and the last pixel lie at -1 and 1, so with c = (size - 1) / 2 the
    pixel map ``M = [A t]`` becomes ``[A, (A c + t - c) / c]``.
    """
    pixel_maps = matrices(plan, size)
    linear, offset = pixel_maps[:, :, :2], pixel_maps[:, :, 2]
    centre = (size - 1) / 2
    moved = (linear.sum(axis=2) * centre + offset - centre) / centre
    return np.concatenate([linear, moved[:, :, None]], axis=2)


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
    """

    def __init__(
        self,
        pixels: PackedPixels,
        case_ids: Sequence[str],
        targets: np.ndarray,
        prepare: Preparation,
        device: torch.device,
        plan: pd.DataFrame | None = None,
    ) -> None:
        self.targets = torch.tensor(targets, dtype=torch.int64, device=device)
        self._pixels, self._prepare, self._device = pixels, prepare, device
        self._numbers = pixels.numbers(case_ids)
        self._theta = self._whitened = None
        if plan is not None:
            maps = normalised_maps(plan, pixels.size).astype(np.float32)
            self._theta = torch.from_numpy(maps).to(device)
            if plan["whiten"].any():
                self._whitened = torch.tensor(plan["whiten"].tolist(), device=device)
        self._resident = self._place = None
        distinct, place = np.unique(self._numbers, return_inverse=True)
        if _fits(len(distinct) * 3 * pixels.size**2, device):
            self._resident = _moved(pixels, distinct, device)
            self._place = torch.from_numpy(place).to(device)

    def __len__(self) -> int:
        return len(self._numbers)

    def batches(
        self, chunks: Sequence[np.ndarray], title: str = ""
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield inputs float32 [n, 3, side, side] and targets int64 [n] of each chunk of sample numbers.

        With a title a progress bar of that name counts the batches.
        """
        sources = self._on_device(chunks) if self._resident is not None else self._from_disk(chunks)
        shown = progress(sources, title, len(chunks), "batches") if title else sources
        for chosen, pixels in shown:
            theta = None if self._theta is None else self._theta[chosen]
            whitened = None if self._whitened is None else self._whitened[chosen]
            yield self._prepare(pixels, theta, whitened), self.targets[chosen]

    def _on_device(self, chunks: Sequence[np.ndarray]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        assert self._resident is not None and self._place is not None
        for chosen in on_device(chunks, self._device):
            yield chosen, self._resident[self._place[chosen]]

    def _from_disk(self, chunks: Sequence[np.ndarray]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Gather the next batches in a thread while the device works on the one before."""

        def read(chunk: np.ndarray) -> torch.Tensor:
            pixels = torch.from_numpy(self._pixels.gather(self._numbers[chunk]))
            return pixels.pin_memory() if self._device.type == "cuda" else pixels

        with ThreadPoolExecutor(max_workers=1) as reader:
            following = iter(chunks)
            waiting = [reader.submit(read, chunk) for chunk in islice(following, _AHEAD)]
            for chosen in on_device(chunks, self._device):
                pixels = waiting.pop(0).result()
                waiting += [reader.submit(read, later) for later in islice(following, 1)]
                yield chosen, pixels.to(self._device, non_blocking=True)


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
    order = np.random.default_rng(list(key)).permutation(n)
    chunks = [order[rows] for rows in in_order(n, batch_size)]
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [np.concatenate(chunks[-2:])]
    return chunks


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
