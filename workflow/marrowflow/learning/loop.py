"""The training loop: epochs over batches, early stopping on validation loss, the best epoch kept.

Everything random in an epoch (order, dropout) is keyed by (seed, fold, epoch) and not drawn from a
generator that runs on from epoch to epoch. A run that resumes at any epoch therefore repeats the
unbroken one, and no generator's state needs to be kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from marrowflow.config import Training
from marrowflow.errors import UserError
from marrowflow.learning.batches import in_order, shuffled
from marrowflow.learning.checkpoint import Checkpoint
from marrowflow.learning.device import keyed_seed

log = logging.getLogger(__name__)

HISTORY = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "rate")
_STATE = "training"


class Samples(Protocol):
    """What the loop draws batches from: images, or features of images."""

    @property
    def targets(self) -> torch.Tensor:
        """Return the class numbers, int64 [samples], on the device of the batches."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def batches(
        self, chunks: Sequence[np.ndarray], title: str = ""
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield inputs and targets of each chunk of sample numbers."""


@dataclass(frozen=True)
class Fit:
    """The outcome of a training.

    Attributes
    ----------
    history
        One row an epoch with the keys of `HISTORY`; validation values are None without validation samples.
    best_epoch
        Epoch, counted from 1, whose weights the network has now: the lowest validation loss, or the
        last epoch without validation samples.
    """

    history: list[dict[str, Any]]
    best_epoch: int


def fit(
    module: nn.Module,
    train: Samples,
    validation: Samples | None,
    classes: int,
    training: Training,
    fold: int,
    checkpoint: Checkpoint,
    bfloat16: bool = False,
) -> Fit:
    """Train a network's parameters and leave those of the best epoch in it.

    Parameters
    ----------
    module
        On the samples' device; all of its parameters are trained.
    train, validation
        Samples; None where the split has no validation part: then all epochs run and the last counts.
    classes
        Number of outputs.
    training
        The configuration's section.
    fold
        Mixed into the seed.
    checkpoint
        Where the state is kept after each epoch, and taken from at the start.
    bfloat16
        Compute the network in bfloat16; parameters and loss stay float32.

    Raises
    ------
    UserError
        Fewer than two training samples, or a loss that is no longer a number.
    """
    if len(train) < 2:
        raise UserError(f"fold {fold} has {len(train)} training images; a network needs at least 2")
    device = train.targets.device
    weights = class_weights(train.targets, classes, training.class_weights)
    optimiser = _optimiser(module, training)
    history: list[dict[str, Any]] = []
    best: dict[str, torch.Tensor] = {}
    best_epoch = 0
    state = checkpoint.load(_STATE, device)
    if state is not None:
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        history, best, best_epoch = state["history"], state["best"], state["best_epoch"]

    while not _finished(history, best_epoch, training, validation is not None):
        epoch = len(history) + 1
        rate = _rate(training, epoch)
        for group in optimiser.param_groups:
            group["lr"] = rate
        torch.manual_seed(keyed_seed(training.seed, fold, epoch))
        chunks = shuffled(len(train), training.batch_size, (training.seed, fold, epoch))
        title = f"fold {fold} epoch {epoch}/{training.epochs}"
        precision = _precision(device, bfloat16)
        loss, accuracy = _train_epoch(
            module, train.batches(chunks, title), optimiser, weights, training, precision
        )
        row: dict[str, Any] = {"epoch": epoch, "train_loss": loss, "train_accuracy": accuracy, "rate": rate}
        row |= _validated(module, validation, weights, training, precision)
        history.append({name: row[name] for name in HISTORY})
        _refuse_nonsense(row, fold)
        log.info("%s", _line(row, fold, training.epochs))
        if validation is None or _improved(history, best_epoch):
            best_epoch = epoch
            best = {name: t.detach().clone() for name, t in module.state_dict().items()}
        checkpoint.save(
            _STATE,
            {
                "module": module.state_dict(),
                "optimiser": optimiser.state_dict(),
                "history": history,
                "best": best,
                "best_epoch": best_epoch,
            },
        )
    module.load_state_dict(best)
    return Fit(history, best_epoch)


def class_weights(targets: torch.Tensor, classes: int, rule: str) -> torch.Tensor:
    """Return float32 [classes]: 1, or for ``balanced`` n / (classes present × n of the class).

    A class without training samples weighs 1: it has a loss in validation only, and weight 0 would hide it.
    """
    counts = torch.bincount(targets, minlength=classes).float()
    if rule == "none":
        return torch.ones_like(counts)
    balanced = counts.sum() / ((counts > 0).sum() * counts)
    return torch.where(counts > 0, balanced, torch.ones_like(counts))


def _train_epoch(
    module: nn.Module,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    optimiser: torch.optim.Optimizer,
    weights: torch.Tensor,
    training: Training,
    precision: AbstractContextManager[Any],
) -> tuple[float, float]:
    """Take one step a batch; return the loss and the accuracy of the epoch, as seen while training."""
    module.train()
    tally = _Tally(weights.device)
    for inputs, targets in batches:
        with precision:
            logits = module(inputs)
        loss = cross_entropy(
            logits.float(), targets, weights, reduction="sum", label_smoothing=training.label_smoothing
        )
        weight = weights[targets].sum()
        optimiser.zero_grad(set_to_none=True)
        (loss / weight).backward()
        optimiser.step()
        tally.add(loss, weight, logits, targets)
    return tally.means()


@torch.no_grad()
def _validated(
    module: nn.Module,
    validation: Samples | None,
    weights: torch.Tensor,
    training: Training,
    precision: AbstractContextManager[Any],
) -> dict[str, float | None]:
    """Return loss and accuracy on the validation samples, by the same criterion as in training."""
    if validation is None:
        return {"validation_loss": None, "validation_accuracy": None}
    module.eval()
    tally = _Tally(weights.device)
    for inputs, targets in validation.batches(in_order(len(validation), training.batch_size)):
        with precision:
            logits = module(inputs)
        loss = cross_entropy(
            logits.float(), targets, weights, reduction="sum", label_smoothing=training.label_smoothing
        )
        tally.add(loss, weights[targets].sum(), logits, targets)
    loss_mean, accuracy = tally.means()
    return {"validation_loss": loss_mean, "validation_accuracy": accuracy}


class _Tally:
    """Sums over an epoch, kept on the device: reading a number from a GPU waits for all of its work."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(
        self, loss: torch.Tensor, weight: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor
    ) -> None:
        right = (logits.detach().argmax(dim=1) == targets).sum()
        seen = torch.full((), len(targets), device=loss.device)
        self._sums += torch.stack([x.detach().double() for x in (loss, weight, right, seen)])

    def means(self) -> tuple[float, float]:
        loss, weight, right, seen = self._sums.tolist()
        return loss / weight, right / seen


def _optimiser(module: nn.Module, training: Training) -> torch.optim.Optimizer:
    parameters = list(module.parameters())
    common: dict[str, Any] = {"lr": training.rate, "weight_decay": training.weight_decay}
    if training.optimiser == "adam":
        return torch.optim.Adam(parameters, **common)
    if training.optimiser == "adamw":
        return torch.optim.AdamW(parameters, **common)
    if training.optimiser == "radam":
        return torch.optim.RAdam(parameters, **common)
    return torch.optim.SGD(parameters, momentum=0.9, **common)


def _rate(training: Training, epoch: int) -> float:
    """Return the learning rate of an epoch counted from 1 (cosine: Loshchilov and Hutter 2017, eq. 5, one period)."""
    if training.schedule == "constant":
        return training.rate
    return training.rate * (1 + math.cos(math.pi * (epoch - 1) / training.epochs)) / 2


def _precision(device: torch.device, bfloat16: bool) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()


def _finished(history: list[dict[str, Any]], best_epoch: int, training: Training, validated: bool) -> bool:
    if len(history) >= training.epochs:
        return True
    return validated and training.patience is not None and len(history) - best_epoch >= training.patience


def _improved(history: list[dict[str, Any]], best_epoch: int) -> bool:
    if best_epoch == 0:
        return True
    return history[-1]["validation_loss"] < history[best_epoch - 1]["validation_loss"]


def _refuse_nonsense(row: dict[str, Any], fold: int) -> None:
    losses = [row["train_loss"], row["validation_loss"]]
    if not all(loss is None or math.isfinite(loss) for loss in losses):
        raise UserError(
            f"fold {fold}, epoch {row['epoch']}: the loss is no longer a number; "
            "set training.rate lower, or training.precision: float32"
        )


def _line(row: dict[str, Any], fold: int, epochs: int) -> str:
    text = f"fold {fold} epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.3f}"
    if row["validation_loss"] is None:
        return text
    return f"{text}; validation {row['validation_loss']:.4f}, {row['validation_accuracy']:.3f}"
