"""The device that a job computes on, and the settings that make it repeat itself bit by bit."""

from __future__ import annotations

import hashlib
import os

import torch

from marrowflow.config import Training


def choose_device(threads: int) -> torch.device:
    """Return the first GPU, or else the CPU, with deterministic kernels and full float32.

    Parameters
    ----------
    threads
        Of the CPU; they decide in which order sums are rounded, so they belong to the result.
    """
    # cuBLAS reads this when the first GPU context is made; without it its sums differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads)
    # On a GPU a few layers have no deterministic kernel at all; there a warning in the log has to do.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    return device


def trains_in_bfloat16(training: Training, device: torch.device) -> bool:
    """Return whether the network's arithmetic is bfloat16 while training (parameters stay float32)."""
    return training.precision == "bfloat16" or (training.precision == "auto" and device.type == "cuda")


def keyed_seed(*key: int) -> int:
    """Return a seed of 63 bits for a key such as (seed, fold, epoch); different keys have unrelated seeds."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
