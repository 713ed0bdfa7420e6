"""What a training cost, the one thing of it that differs from run to run: the content of ``cost.json``."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch

from marrowflow.learning.device import device_name
from marrowflow.learning.loop import Fit


def cost_of(fits: Collection[Fit], device: torch.device, before: float = 0.0) -> dict[str, Any]:
    """Return time on the device, over all runs that resumed one another, and what was done in it.

    Parameters
    ----------
    fits
        The course of each network's training.
    device
        Where it was.
    before
        Seconds that went into features.
    """
    seconds = before + math.fsum(f.device_seconds for f in fits)
    images = sum(f.images for f in fits)
    peaks = [f.peak_memory_mb for f in fits if f.peak_memory_mb is not None]
    return {
        "device": device_name(device),
        "device_seconds": round(seconds, 3),
        "images": images,
        "images_a_second": round(images / seconds, 2) if seconds > 0 else None,
        "epochs": sum(len(f.history) for f in fits),
        "peak_memory_mb": round(max(peaks), 1) if peaks else None,
        "resumed": max(f.resumed for f in fits),
    }
