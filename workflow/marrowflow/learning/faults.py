"""What can go wrong while a network computes, and what is done about it.

Out of memory
    An epoch is tried again with half as many images at once, down to one. Where nothing is trained the run stops:
    answers and features are rounded by how many images are sent at once, so their number stays.
A loss that is no number
    The run stops and names the images of the first batch where it was none.
A network that cannot be compiled
    The run stops; to train it uncompiled instead would give other results than were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from marrowflow.config import Training
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import in_bytes

T = TypeVar("T")


def unless_too_large(work: Callable[[], T]) -> T | None:
    """Return what ``work`` returns, or None when the device ran out of memory.

    What comes next must not run in the ``except`` block: there the exception still holds the tensors of the failed
    step (PyTorch, Frequently Asked Questions, "My out of memory exception handler can't allocate memory").
    """
    try:
        return work()
    except torch.OutOfMemoryError:
        return None


def halved(at_once: int, where: str) -> int:
    """Return half of the number of images that did not fit at once; raise `UserError` when it was one."""
    if at_once > 1:
        return at_once // 2
    raise UserError(
        f"{where}: the device's memory does not hold this network and a single image{_memory()}; set the model's input_size "
        "lower (of slides, the tilings' min_tissue higher), take a smaller network or training.precision: bfloat16, or stop what "
        "else runs on the device"
    )


@contextmanager
def within_memory(what: str, images: int) -> Iterator[None]:
    """Turn a lack of memory into a `UserError`, where the number of images at once is fixed.

    Parameters
    ----------
    what
        Is being computed, and of which network.
    images
        Computed at once.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{what}: the device's memory does not hold this network and {images} images at once, a number that is fixed "
            f"because rounding depends on it{_memory()}; set the model's input_size lower, take a smaller network, stop what else runs "
            "on the device, or compute on the CPU (CUDA_VISIBLE_DEVICES= in front of the command)"
        ) from error


def _memory() -> str:
    """Return who holds the GPU's memory, this job or other programs; empty on a CPU."""
    if not torch.cuda.is_initialized():
        return ""
    try:
        free, total = torch.cuda.mem_get_info()
        own = torch.cuda.memory_reserved()
    except RuntimeError:  # the GPU is past answering
        return ""
    others = max(0, total - free - own)
    return (
        f" (of its {in_bytes(total)} this job holds {in_bytes(own)}, other programs and the driver "
        f"{in_bytes(others)}; nvidia-smi lists them)"
    )


def release(device: torch.device) -> None:
    """Give memory that is reserved but not in use back to the GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def non_finite_loss(
    where: str, training: Training, rate: float, precision: str, cases: Sequence[str]
) -> UserError:
    """Return the error for a batch whose loss is NaN or infinite.

    Parameters
    ----------
    where
        Fold, epoch and batch.
    training
        The configuration's section.
    rate, precision
        In force in this epoch.
    cases
        The batch's images.
    """
    return UserError(
        enumerate_problems(
            f"{where}: the loss is no longer a number. Set training.rate lower, or training.precision: float32, or look at "
            f"the images of the batch, below. It ran with rate {rate:g}, optimiser {training.optimiser}, precision {precision}, "
            f"batch_size {training.batch_size}, weight_decay {training.weight_decay:g}, class_weights {training.class_weights}:",
            list(cases),
        )
    )


@contextmanager
def compiling(asked: bool) -> Iterator[None]:
    """Turn an error of the compiler into a `UserError`, where compilation was asked for."""
    if not asked:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # only where it is needed: slow to import

    try:
        yield
    except TorchDynamoException as error:
        found = str(error).partition("\n")[0]
        raise UserError(
            f"training.compile: this network cannot be compiled here ({found}); set compile: false, or install what is missing"
        ) from error
