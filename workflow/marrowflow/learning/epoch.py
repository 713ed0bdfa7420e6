"""One pass over batches: a training step each, or their validation loss.

A number is read from the device only now and then: on a GPU each reading waits until all of its work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from marrowflow.learning.outcomes import Criterion

Batches = Iterable[tuple[Any, torch.Tensor]]

LOOK_EVERY = 50
"""Batches between two looks at whether the loss still is a number."""


class NonFiniteLoss(Exception):
    """The loss is NaN or infinite; ``batch`` is the number, from 0, of the first batch where it was."""

    def __init__(self, batch: int) -> None:
        super().__init__(f"batch {batch}")
        self.batch = batch


def train_epoch(
    network: Callable[[torch.Tensor], torch.Tensor],
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    criterion: Criterion,
    precision: AbstractContextManager[Any],
    micro_batch: int | None = None,
) -> tuple[float, float]:
    """Take one step a batch; return the loss and the accuracy of the epoch, as seen while training.

    Parameters
    ----------
    network
        In training mode; maps inputs to logits.
    batches
        Inputs and class numbers.
    optimiser, criterion
        The step's rule, and the loss.
    precision
        Context in which the network computes.
    micro_batch
        Compute at most so many images at once. Their gradients add up to the whole batch's.

    Raises
    ------
    NonFiniteLoss
        At the latest at the end of the pass.
    """
    tally = _Tally(criterion)
    for inputs, targets in batches:
        totals = criterion.totals(targets)
        sums = torch.zeros_like(totals)
        right = torch.zeros_like(targets[0])
        optimiser.zero_grad(set_to_none=True)
        for some_inputs, some_targets in _parts(inputs, targets, micro_batch):
            with precision:
                logits = network(some_inputs)
            part = criterion.sums(logits.float(), some_targets)
            criterion.combined(part, totals).backward()
            sums += part.detach()
            right += criterion.right(logits.detach(), some_targets)
        optimiser.step()
        tally.add(sums, totals, right, len(targets))
    return tally.means()


@torch.no_grad()
def validate(
    module: nn.Module, batches: Batches, criterion: Criterion, precision: AbstractContextManager[Any]
) -> tuple[float, float]:
    """Return loss and accuracy by the criterion of the training; raise `NonFiniteLoss` as that does."""
    module.eval()
    tally = _Tally(criterion)
    for inputs, targets in batches:
        with precision:
            logits = module(inputs)
        sums = criterion.sums(logits.float(), targets)
        tally.add(sums, criterion.totals(targets), criterion.right(logits, targets), len(targets))
    return tally.means()


def _parts(inputs: Any, targets: torch.Tensor, most: int | None) -> Batches:
    """Divide a batch into parts of nearly equal size: batch normalisation should see no small rest."""
    if most is None or len(targets) <= most:
        return [(inputs, targets)]
    parts = -(-len(targets) // most)
    return zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True)


class _Tally:
    """Sums over a pass, on the device."""

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion
        self._sums, self._totals = torch.zeros(
            2, criterion.heads, dtype=torch.float64, device=criterion.device
        )
        self._right, self._finite = torch.zeros(2, dtype=torch.int64, device=criterion.device)
        self._images = self._batches = 0

    def add(self, sums: torch.Tensor, totals: torch.Tensor, right: torch.Tensor, images: int) -> None:
        self._sums += sums
        self._totals += totals
        self._right += right
        # A sum never becomes finite again, so this counts the batches before the first bad one.
        self._finite += self._sums.isfinite().all()
        self._images += images
        self._batches += 1
        if self._batches % LOOK_EVERY == 0:
            self._look()

    def means(self) -> tuple[float, float]:
        self._look()
        loss = float(self._criterion.combined(self._sums, self._totals))
        return loss, int(self._right) / self._images

    def _look(self) -> None:
        finite = int(self._finite)
        if finite < self._batches:
            raise NonFiniteLoss(finite)
