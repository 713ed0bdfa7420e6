"""Trained networks, loaded to answer: class probabilities of images by one fold's network or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from marrowflow.errors import UserError
from marrowflow.learning.backbones import rebuild
from marrowflow.learning.batches import ImageSamples, PackedPixels, Preparation, in_order
from marrowflow.learning.weights import read_metadata, read_weights
from marrowflow.predictions import INCONCLUSIVE, MISSING, PATIENT_SOURCE, PROBABILITY

# Larger batches are no faster on a CPU; rounding depends on it, so it is fixed.
BATCH = 32


@dataclass(frozen=True)
class Network:
    """A trained network.

    Attributes
    ----------
    module
        On the device, in evaluation mode.
    fold
        The fold that it was trained on.
    classes
        Names of its outputs, in order.
    prepare
        Its preparation of images.
    """

    module: nn.Module
    fold: int
    classes: list[str]
    prepare: Preparation


def load_networks(folders: Sequence[Path], classes: Sequence[str], device: torch.device) -> list[Network]:
    """Load the ``model.safetensors`` of each folder.

    Raises
    ------
    UserError
        A file that no training wrote, networks of other classes, or two of one fold.
    """
    networks = [_load(Path(folder) / "model.safetensors", device) for folder in folders]
    for folder, network in zip(folders, networks, strict=True):
        if network.classes != list(classes):
            raise UserError(
                f"{folder}: this network answers with {network.classes}, the configuration's classes are "
                f"{list(classes)}; train it again"
            )
    found = sorted(network.fold for network in networks)
    if len(set(found)) < len(found):
        raise UserError(f"--models: the networks are of the folds {found}; give one of each fold")
    return networks


def probabilities(
    network: Network, pixels: PackedPixels, case_ids: Sequence[str], device: torch.device, title: str
) -> np.ndarray:
    """Return the softmax of a network's answers: float64 [cases, classes], each row summing to 1."""
    samples = ImageSamples(pixels, case_ids, np.zeros(len(case_ids), np.int64), network.prepare, device)
    with torch.no_grad():
        parts = [
            network.module(inputs).double().softmax(dim=1)
            for inputs, _ in samples.batches(in_order(len(case_ids), BATCH), title)
        ]
    return torch.cat(parts).cpu().numpy() if parts else np.empty((0, len(network.classes)))


def mean_probabilities(
    networks: Sequence[Network], pixels: PackedPixels, case_ids: Sequence[str], device: torch.device
) -> np.ndarray:
    """Return the mean of all networks' probabilities: float64 [cases, classes]."""
    answers = [
        probabilities(network, pixels, case_ids, device, f"network of fold {network.fold}")
        for network in networks
    ]
    return np.mean(answers, axis=0)


def truth_of(inventory: pd.DataFrame) -> pd.Series:
    """Return each row's class, or ``missing`` / ``inconclusive`` where the reference standard gave none.

    Raises
    ------
    UserError
        A status of the reference that is not known.
    """
    status = inventory["reference_status"]
    unknown = sorted(set(status) - {"ok", MISSING, INCONCLUSIVE})
    if unknown:
        raise UserError(f"inventory: reference_status {unknown} is not ok, {MISSING} or {INCONCLUSIVE}")
    return inventory["label"].where(status == "ok", status)


def answered(
    cases: pd.DataFrame, answers: np.ndarray, classes: Sequence[str], index_test: str, fold: int
) -> pd.DataFrame:
    """Return rows of a prediction table.

    Parameters
    ----------
    cases
        Columns ``case_id``, ``patient_id``, ``patient_source``, ``cohort``, ``truth``, ``partition``.
    answers
        Float64 [cases, classes].
    classes, index_test, fold
        As in the table.
    """
    table = cases[["case_id", "patient_id", "cohort", "truth"]].reset_index(drop=True)
    table["predicted"] = np.asarray(classes, dtype=object)[answers.argmax(axis=1)]
    table["index_test"] = index_test
    table["fold"] = np.int64(fold)
    table["partition"] = cases["partition"].to_numpy()
    table["status"] = "ok"
    table["reason"] = ""
    for i, name in enumerate(classes):
        table[PROBABILITY + name] = answers[:, i]
    table[PATIENT_SOURCE] = cases[PATIENT_SOURCE].to_numpy()
    return table


def _load(path: Path, device: torch.device) -> Network:
    state = read_weights(path)
    note = read_metadata(path)
    if "network" not in note or "classes" not in note:
        raise UserError(f"{path} is not a network that learning.train wrote: it does not say what it is")
    module = rebuild(note["network"], len(note["classes"]), note["input_size"])
    module.load_state_dict(state)
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare = Preparation(note["input_size"], tuple(note["mean"]), tuple(note["std"]))
    return Network(module.eval(), note["fold"], note["classes"], prepare)
