"""The training loop: epochs over batches, early stopping on validation loss, the best epoch kept.

Everything random in an epoch (order, dropout) is keyed by (seed, fold, epoch) and not drawn from a
generator that runs on from epoch to epoch. A run that resumes at any epoch therefore repeats the
unbroken one, and no generator's state needs to be kept. An epoch that runs out of memory begins anew
from the state that it started from, with fewer images at once.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from marrowflow.config import Training
from marrowflow.errors import UserError
from marrowflow.learning.batches import balanced, in_order, shuffled
from marrowflow.learning.checkpoint import Checkpoint
from marrowflow.learning.device import keyed_seed
from marrowflow.learning.epoch import NonFiniteLoss, train_epoch, validate
from marrowflow.learning.faults import compiling, halved, non_finite_loss, release, unless_too_large
from marrowflow.learning.outcomes import Criterion, Outcomes

log = logging.getLogger(__name__)

HISTORY = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "rate")


class Samples(Protocol):
    """What the loop draws batches from: images, features of images, or bags of tiles."""

    @property
    def targets(self) -> torch.Tensor:
        """Return the class numbers, int64 [samples], on the device of the batches."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def case_ids(self, chosen: np.ndarray) -> list[str]:
        """Return the images' ids by their sample numbers."""

    def batches(self, chunks: Sequence[np.ndarray], title: str = "") -> Iterator[tuple[Any, torch.Tensor]]:
        """Yield inputs and targets of each chunk of sample numbers; inputs divide by ``tensor_split``, as tensors do."""


@dataclass(frozen=True)
class Fit:
    """The outcome of a training. What it cost differs from run to run, and is left out when two are compared.

    Attributes
    ----------
    history
        One row an epoch with the keys of `HISTORY`; validation values are None without validation samples.
    best_epoch
        Epoch, counted from 1, whose weights the network has now: the lowest validation loss, or the
        last epoch without validation samples.
    micro_batch
        Images computed at once since the device ran out of memory; None where it never did.
    device_seconds
        Time in epochs, validation included, summed over all runs that resumed one another. What was lost of an
        epoch by an interruption is not in it.
    images
        Training images seen in whole epochs; repeats count.
    resumed
        How many times the training went on from a kept state.
    peak_memory_mb
        Most memory in use on the GPU, MiB, over all runs; None on a CPU.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    micro_batch: int | None = None
    device_seconds: float = field(default=0.0, compare=False)
    images: int = field(default=0, compare=False)
    resumed: int = field(default=0, compare=False)
    peak_memory_mb: float | None = field(default=None, compare=False)


def fit(
    module: nn.Module,
    train: Samples,
    validation: Samples | None,
    outcomes: Outcomes,
    training: Training,
    fold: int,
    checkpoint: Checkpoint,
    bfloat16: bool = False,
    *,
    name: str = "training",
    criterion: Criterion | None = None,
) -> Fit:
    """Train a network's parameters and leave those of the best epoch in it.

    Parameters
    ----------
    module
        On the samples' device, with as many outputs as ``outcomes`` has; all of its parameters are trained.
    train, validation
        Samples; None where the split has no validation part: then all epochs run and the last counts.
    outcomes
        What the outputs mean. In one-vs-rest each network is fitted by itself, with its own of `Outcomes.networks`.
    training
        The configuration's section.
    fold
        Mixed into the seed.
    checkpoint
        Where the state is kept after each epoch, and taken from at the start.
    bfloat16
        Compute the network in bfloat16; parameters and loss stay float32.
    name
        The state's name in the checkpoint; networks that one job trains need one each.
    criterion
        The loss in training, where it is another than the outcomes' own; validation has theirs in any case.

    Raises
    ------
    UserError
        Fewer than two training samples; a loss that is no longer a number; a device whose memory does not hold one image;
        a network that cannot be compiled; a state that cannot be written.
    """
    if len(train) < 2:
        raise UserError(f"fold {fold} has {len(train)} training images; a network needs at least 2")
    run = _Run(module, train, validation, outcomes, training, fold, bfloat16, criterion)
    kept = checkpoint.load(name, torch.device("cpu"))
    if kept is not None:
        run.go_on_from(kept)
    while not run.finished():
        run.epoch()
        checkpoint.save(name, run.state)
    return run.finish()


class _Run:
    """A training under way.

    Attributes
    ----------
    state
        All that the next epoch depends on, in the computer's own memory: the network, the optimiser, what has
        happened so far. A new one after each epoch; none is changed.
    """

    def __init__(
        self,
        module: nn.Module,
        train: Samples,
        validation: Samples | None,
        outcomes: Outcomes,
        training: Training,
        fold: int,
        bfloat16: bool,
        criterion: Criterion | None = None,
    ) -> None:
        self._module, self._train, self._validation = module, train, validation
        self._training, self._fold = training, fold
        self._title = f"fold {fold}" + (
            f", {outcomes.positive_class} against the rest," if outcomes.positive_class else ""
        )
        self._device = train.targets.device
        self._bfloat16 = bfloat16
        # Every size of batch is compiled by itself: a kernel for all sizes rounds in another way, and a run that
        # resumes meets the sizes in another order.
        self._network: Callable[[torch.Tensor], torch.Tensor] = (
            torch.compile(module, dynamic=False) if training.compile else module
        )
        self._optimiser = _optimiser(module, training)
        self._checked_by = outcomes.criterion(train.targets, training)
        self._criterion = criterion or self._checked_by
        self._groups = (
            outcomes.groups(train.targets).cpu().numpy() if training.batches == "balanced" else None
        )
        self.state: dict[str, Any] = {
            "module": _on_host(module.state_dict()),
            "optimiser": _on_host(self._optimiser.state_dict()),
            "history": [],
            "best": {},
            "best_epoch": 0,
            "micro_batch": None,
            "validation_batch": training.batch_size,
            "device_seconds": 0.0,
            "images": 0,
            "resumed": 0,
            "peak_memory_mb": None,
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Take over what an earlier run kept."""
        self.state = state | {"resumed": state["resumed"] + 1}
        self._restore()

    def finished(self) -> bool:
        """Return whether all epochs have run, or the patience is over."""
        done = len(self.state["history"])
        if done >= self._training.epochs:
            return True
        patience = self._training.patience
        return (
            self._validation is not None
            and patience is not None
            and done - self.state["best_epoch"] >= patience
        )

    def epoch(self) -> None:
        """Run one more epoch, and make the state new."""
        started = time.perf_counter()
        epoch = len(self.state["history"]) + 1
        rate = _rate(self._training, epoch)
        chunks = self._chunks(epoch)
        loss, accuracy = self._trained(epoch, rate, chunks)
        row: dict[str, Any] = {"epoch": epoch, "train_loss": loss, "train_accuracy": accuracy, "rate": rate}
        row["validation_loss"], row["validation_accuracy"] = self._validated(epoch)
        log.info("%s", _line(row, self._title, self._training.epochs))
        history = [*self.state["history"], {name: row[name] for name in HISTORY}]
        weights = _on_host(self._module.state_dict())
        news: dict[str, Any] = {"module": weights, "history": history}
        if self._validation is None or _improved(history, self.state["best_epoch"]):
            news |= {"best": weights, "best_epoch": epoch}
        news["optimiser"] = _on_host(self._optimiser.state_dict())
        news["images"] = self.state["images"] + sum(map(len, chunks))
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            peak = torch.cuda.max_memory_allocated(self._device) / 2**20
            news["peak_memory_mb"] = max(peak, self.state["peak_memory_mb"] or 0.0)
        news["device_seconds"] = self.state["device_seconds"] + time.perf_counter() - started
        self.state = self.state | news

    def finish(self) -> Fit:
        """Leave the best epoch's weights in the network, and return the outcome."""
        state = self.state
        self._module.load_state_dict(state["best"])
        of_cost = ("micro_batch", "device_seconds", "images", "resumed", "peak_memory_mb")
        return Fit(state["history"], state["best_epoch"], **{name: state[name] for name in of_cost})

    def _chunks(self, epoch: int) -> list[np.ndarray]:
        key = (self._training.seed, self._fold, epoch)
        if self._groups is not None:
            return balanced(self._groups, self._training.batch_size, key)
        return shuffled(len(self._train), self._training.batch_size, key)

    def _trained(self, epoch: int, rate: float, chunks: list[np.ndarray]) -> tuple[float, float]:
        """Train one epoch, with as many images at once as the memory holds."""
        where = f"{self._title} epoch {epoch}"

        def attempt() -> tuple[float, float]:
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            torch.manual_seed(keyed_seed(self._training.seed, self._fold, epoch))
            batches = self._train.batches(chunks, f"{where}/{self._training.epochs}")
            self._module.train()
            with self._named(epoch, "training", self._train, chunks), compiling(self._training.compile):
                return train_epoch(
                    self._network,
                    batches,
                    self._optimiser,
                    self._criterion,
                    self._precision(),
                    self.state["micro_batch"],
                )

        while (means := unless_too_large(attempt)) is None:
            at_once = halved(self.state["micro_batch"] or max(map(len, chunks)), where)
            log.warning(
                "%s: out of memory; the epoch begins anew, %d images at a time with their gradients added up. "
                "Batch normalisation then takes its statistics from so many images",
                *(where, at_once),
            )
            self.state = self.state | {"micro_batch": at_once}
            self._restore()
            if self._training.compile:
                torch.compiler.reset()  # beyond a number of sizes, networks are silently no longer compiled
        return means

    def _validated(self, epoch: int) -> tuple[float, float] | tuple[None, None]:
        """Return loss and accuracy on the validation samples, with as many images at once as the memory holds."""
        if self._validation is None:
            return None, None
        samples, where = self._validation, f"{self._title} epoch {epoch}"

        def attempt() -> tuple[float, float]:
            chunks = in_order(len(samples), self.state["validation_batch"])
            with self._named(epoch, "validation", samples, chunks):
                return validate(self._module, samples.batches(chunks), self._checked_by, self._precision())

        while (means := unless_too_large(attempt)) is None:
            at_once = halved(min(self.state["validation_batch"], len(samples)), where)
            log.warning(
                "%s: out of memory in validation; it begins anew, %d images at a time", where, at_once
            )
            self.state = self.state | {"validation_batch": at_once}
            release(self._device)
        return means

    def _restore(self) -> None:
        """Bring the network and the optimiser to the state."""
        self._optimiser.zero_grad(set_to_none=True)
        self._module.load_state_dict(self.state["module"])
        # The optimiser takes tensors over as they are and would write into the state.
        self._optimiser.load_state_dict(copy.deepcopy(self.state["optimiser"]))
        release(self._device)

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, dtype=torch.bfloat16) if self._bfloat16 else nullcontext()

    @contextmanager
    def _named(self, epoch: int, part: str, samples: Samples, chunks: list[np.ndarray]) -> Iterator[None]:
        """Tell a user which images made a loss that is no number."""
        try:
            yield
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UserError(
                f"{self._title} epoch {epoch}: batch normalisation has no deviation of one value, and a batch of this network "
                "holds one image that it shrinks to one pixel; set training.batch_size to 2 or more, or a larger input_size"
            ) from error
        except NonFiniteLoss as error:
            where = f"{self._title} epoch {epoch}, {part} batch {error.batch + 1} of {len(chunks)}"
            rate, precision = _rate(self._training, epoch), "bfloat16" if self._bfloat16 else "float32"
            cases = samples.case_ids(chunks[error.batch])
            raise non_finite_loss(where, self._training, rate, precision, cases) from error


def _on_host(value: Any) -> Any:
    """Return a copy of nested tensors in the computer's own memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_host(inner) for inner in value)
    return value


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


def _improved(history: list[dict[str, Any]], best_epoch: int) -> bool:
    if best_epoch == 0:
        return True
    return history[-1]["validation_loss"] < history[best_epoch - 1]["validation_loss"]


def _line(row: dict[str, Any], title: str, epochs: int) -> str:
    text = (
        f"{title} epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.4f}, "
        f"accuracy {row['train_accuracy']:.3f}"
    )
    if row["validation_loss"] is None:
        return text
    return f"{text}; validation {row['validation_loss']:.4f}, {row['validation_accuracy']:.3f}"
