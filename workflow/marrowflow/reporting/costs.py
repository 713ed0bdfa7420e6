"""What training an index test's networks took: the only numbers of a page that change from run to run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from marrowflow.reporting.results import IndexTest, Results, read_json


@dataclass(frozen=True)
class Cost:
    """The training of some of a network's folds.

    Attributes
    ----------
    folds, of
        How many folds tell of their cost, and how many there are.
    device_seconds
        Their training, validation and features of frozen networks included, added up.
    images
        Training images that they saw.
    images_a_second
        `images` by `device_seconds`; NaN where the training took no time that a clock saw.
    devices
        Names, each once.
    memory_mb
        Largest peak of the device's memory; NaN where no fold says.
    """

    folds: int
    of: int
    device_seconds: float
    images: int
    images_a_second: float
    devices: Sequence[str]
    memory_mb: float

    @property
    def seconds_text(self) -> str:
        """``1234``, and how many folds it is of where some are missing."""
        shown = _short(self.device_seconds)
        return shown if self.folds == self.of else f"{shown} ({self.folds} of {self.of} folds)"

    @property
    def rate_text(self) -> str:
        """Images a second, or an en dash."""
        return _short(self.images_a_second) if self.images_a_second == self.images_a_second else "–"


def cost_of(results: Results, network: IndexTest, folds: Sequence[str]) -> Cost | None:
    """Add up the ``cost.json`` of a network's folds; None where there is none."""
    read = [read_json(results.training_path(network, fold, "cost.json")) for fold in folds]
    found = [cost for cost in read if cost is not None]
    if not found:
        return None
    images = sum(int(cost["images"]) for cost in found)
    # Not from the rates of cost.json, which are rounded.
    seconds = math.fsum(float(cost["device_seconds"]) for cost in found)
    peaks = [float(cost["peak_memory_mb"]) for cost in found if cost.get("peak_memory_mb") is not None]
    return Cost(
        len(found),
        len(folds),
        seconds,
        images,
        images / seconds if seconds else float("nan"),
        list(dict.fromkeys(str(cost["device"]) for cost in found)),
        max(peaks, default=float("nan")),
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
