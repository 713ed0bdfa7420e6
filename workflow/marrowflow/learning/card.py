"""What a trained model tells of itself: its card, the course of its training, what it cost, and the note in its weights."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import cv2
import pandas as pd
import torch
from torch import nn

from marrowflow.config import DIAGNOSIS, LEAKY, Model, Protocol
from marrowflow.learning.backbones import Backbone, parameter_counts
from marrowflow.learning.cost import cost_of
from marrowflow.learning.loop import HISTORY, Fit
from marrowflow.learning.outcomes import Outcomes

NETWORK = "network"
"""Column of the history that says which of several networks an epoch was of, by the class that it is asked for."""


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes
    ----------
    backbone
        The network, or the first of several, as it was built.
    module
        What answers: the network, or all of them.
    fits
        The course of each network's training, by the class that it is asked for; under "" where there is one network.
    feature_seconds
        Time that was spent in computing features for a frozen network's training, over all runs that resumed one
        another; 0 where another job had computed them, and for other modes.
    bfloat16
        Whether the network's arithmetic was bfloat16.
    """

    backbone: Backbone
    module: nn.Module
    fits: dict[str, Fit]
    feature_seconds: float
    bfloat16: bool


def card(trained: Trained, model: Model, outcomes: Outcomes, fold: int, protocol: Protocol) -> dict[str, Any]:
    """Return what ``card.json`` says of a model; of several networks, epochs are given by the class asked for."""
    backbone, fits = trained.backbone, trained.fits
    sizes = parameter_counts(backbone, model.mode)
    networks = len(trained.module) if isinstance(trained.module, nn.ModuleList) else 1
    fitted = [f.micro_batch for f in fits.values() if f.micro_batch is not None]
    return {
        "protocol": protocol,
        "stamp": LEAKY if protocol == "as_published" else "",
        "network": backbone.network,
        "profile": model.profile,
        "mode": model.mode,
        "fold": fold,
        "classes": list(outcomes.classes),
        "head": outcomes.head,
        "heads": heads(outcomes),
        "weights": {"source": backbone.source, "sha256": backbone.sha256, "licence": backbone.licence},
        "parameters": {name: networks * number for name, number in sizes.items()},
        "input_size": backbone.input_size,
        "mean": backbone.mean,
        "std": backbone.std,
        "epochs_run": _of_all({name: len(f.history) for name, f in fits.items()}),
        "best_epoch": _of_all({name: f.best_epoch for name, f in fits.items()}),
        "micro_batch": min(fitted, default=None),
    }


def history(trained: Trained) -> pd.DataFrame:
    """Return ``history.csv``: one row an epoch; of several networks one below the other, named in `NETWORK`."""
    tables = [
        pd.DataFrame(f.history, columns=list(HISTORY)).assign(**{NETWORK: name})
        for name, f in trained.fits.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    return table.drop(columns=NETWORK) if "" in trained.fits else table


def cost(trained: Trained, device: torch.device) -> dict[str, Any]:
    """Return ``cost.json``: time on the device, over all runs that resumed one another, and what was done in it."""
    return cost_of(trained.fits.values(), device, trained.feature_seconds)


def note(trained: Trained, model: Model, outcomes: Outcomes, fold: int) -> dict[str, Any]:
    """Return what the file of weights says of itself: all that prediction needs beside the tensors."""
    backbone = trained.backbone
    return {
        "network": backbone.network,
        "profile": model.profile,
        "mode": model.mode,
        "classes": list(outcomes.classes),
        "head": outcomes.head,
        "heads": heads(outcomes),
        "input_size": backbone.input_size,
        "mean": backbone.mean,
        "std": backbone.std,
        "precision": "bfloat16" if trained.bfloat16 else "float32",
        "fold": fold,
        "weights_sha256": backbone.sha256,
    }


def heads(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Return the heads in the order of the outputs; none where the classes are told apart alone."""
    return [
        {
            "name": name,
            "weight": outcomes.heads[name].weight,
            "positive": None if name == DIAGNOSIS else outcomes.heads[name].positive,
        }
        for name in (outcomes.places() if outcomes.heads else ())
    ]


def versions() -> dict[str, str]:
    """Return the versions of what a training computes with."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy", "safetensors")},
        "opencv": cv2.__version__,
    }


def _of_all(by_network: dict[str, int]) -> int | dict[str, int]:
    return by_network.get("", by_network)
