"""Trained models, loaded to answer: probabilities of images by one fold's model or by all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from marrowflow.config import Head
from marrowflow.errors import UserError
from marrowflow.images.store import PackedPixels
from marrowflow.images.whitening import Whitening
from marrowflow.learning.backbones import OneVsRest, rebuild
from marrowflow.learning.batches import ImageSamples, in_order
from marrowflow.learning.faults import within_memory
from marrowflow.learning.feature_cache import FeatureCache, sample_features
from marrowflow.learning.features import BATCH, Extractor
from marrowflow.learning.outcomes import Outcomes
from marrowflow.learning.preparation import Preparation
from marrowflow.learning.weight_files import read_metadata, read_weights
from marrowflow.predictions import ENDPOINT, INCONCLUSIVE, MISSING, PATIENT_SOURCE, PROBABILITY


@dataclass(frozen=True)
class Network:
    """A trained model.

    Attributes
    ----------
    module
        On the device, in evaluation mode.
    fold
        The fold that it was trained on.
    outcomes
        What its outputs mean.
    prepare
        Its preparation of images.
    extractor
        How to have its features, where only its last layer was trained; else None.
    """

    module: nn.Module
    fold: int
    outcomes: Outcomes
    prepare: Preparation
    extractor: Extractor | None = None

    @property
    def columns(self) -> list[str]:
        """Names of its answers in a prediction table: classes, then endpoints with a head of their own."""
        endpoints = [name for name in self.outcomes.places() if name in self.outcomes.heads]
        return [
            *(PROBABILITY + name for name in self.outcomes.classes),
            *(ENDPOINT + name for name in endpoints if self.outcomes.heads[name].positive is not None),
        ]


def load_networks(folders: Sequence[Path], classes: Sequence[str], device: torch.device) -> list[Network]:
    """Load the ``model.safetensors`` of each folder.

    Raises
    ------
    UserError
        A file that no training wrote, models of other classes or of different heads, or two of one fold.
    """
    networks = [_load(Path(folder) / "model.safetensors", device) for folder in folders]
    for folder, network in zip(folders, networks, strict=True):
        if list(network.outcomes.classes) != list(classes):
            raise UserError(
                f"{folder}: this network answers with {list(network.outcomes.classes)}, the configuration's classes are "
                f"{list(classes)}; train it again"
            )
        if network.columns != networks[0].columns:
            raise UserError(
                f"{folder}: this network has other heads than that of {folders[0]}; train it again"
            )
    found = sorted(network.fold for network in networks)
    if len(set(found)) < len(found):
        raise UserError(f"--models: the networks are of the folds {found}; give one of each fold")
    return networks


def answers(
    network: Network,
    pixels: PackedPixels,
    case_ids: Sequence[str],
    device: torch.device,
    cache: FeatureCache,
    plan: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return a model's answers, float64, one row a case and one column for each of `Network.columns`.

    Parameters
    ----------
    network
        The model.
    pixels
        Where the images lie.
    case_ids
        The images.
    device
        Where the model is.
    cache
        Where features of frozen networks are kept: the models of all folds share them.
    plan
        What is done to each image first; None takes them as they are.

    Raises
    ------
    UserError
        A case that no store holds; the device's memory does not hold a batch.
    """
    if not len(case_ids):
        return pd.DataFrame(columns=network.columns, dtype=np.float64)
    title = f"network of fold {network.fold}"
    with torch.no_grad(), within_memory(title, BATCH):
        if network.extractor is not None:
            seen = sample_features(cache, network.extractor, pixels, case_ids, plan, device)
            # In batches: a product of all rows at once rounds each of them by how many there are.
            logits = [network.extractor.head(part) for part in seen.split(BATCH)]
        else:
            nobody = np.zeros(len(case_ids), np.int64)
            samples = ImageSamples(pixels, case_ids, nobody, network.prepare, device, plan, resident=False)
            chunks = in_order(len(case_ids), BATCH)
            logits = [network.module(inputs) for inputs, _ in samples.batches(chunks, title)]
    classes, endpoints = network.outcomes.answers(torch.cat(logits))
    table = {PROBABILITY + name: classes[:, i] for i, name in enumerate(network.outcomes.classes)}
    table |= {ENDPOINT + name: probability for name, probability in endpoints.items()}
    return pd.DataFrame(table)[network.columns]


def whitening_by(network: Network, whitening: Whitening | None) -> Network:
    """Return a model that whitens images as a plan asks for it."""
    prepare = replace(network.prepare, whitening=whitening)
    extractor = None if network.extractor is None else replace(network.extractor, prepare=prepare)
    return replace(network, prepare=prepare, extractor=extractor)


def mean_answers(
    networks: Sequence[Network],
    pixels: PackedPixels,
    case_ids: Sequence[str],
    device: torch.device,
    cache: FeatureCache,
) -> pd.DataFrame:
    """Return the mean of all models' `answers`."""
    tables = [answers(network, pixels, case_ids, device, cache) for network in networks]
    mean = np.mean([table.to_numpy() for table in tables], axis=0)
    return pd.DataFrame(mean, columns=tables[0].columns)


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
    cases: pd.DataFrame, given: pd.DataFrame, classes: Sequence[str], index_test: str, fold: int
) -> pd.DataFrame:
    """Return rows of a prediction table.

    Parameters
    ----------
    cases
        Columns ``case_id``, ``patient_id``, ``patient_source``, ``cohort``, ``truth``, ``partition``.
    given
        Their `answers`, in their order.
    classes, index_test, fold
        As in the table.
    """
    table = cases[["case_id", "patient_id", "cohort", "truth"]].reset_index(drop=True)
    likeliest = given[[PROBABILITY + name for name in classes]].to_numpy().argmax(axis=1)
    table["predicted"] = np.asarray(classes, dtype=object)[likeliest]
    table["index_test"] = index_test
    table["fold"] = np.int64(fold)
    table["partition"] = cases["partition"].to_numpy()
    table["status"] = "ok"
    table["reason"] = ""
    table[list(given.columns)] = given.to_numpy()
    table[PATIENT_SOURCE] = cases[PATIENT_SOURCE].to_numpy()
    return table


def _load(path: Path, device: torch.device) -> Network:
    state = read_weights(path)
    note = read_metadata(path)
    if not {"network", "classes", "head"} <= set(note):
        raise UserError(f"{path} is not a network that learning.train wrote: it does not say what it is")
    heads = {h["name"]: Head(weight=h["weight"], positive=h["positive"]) for h in note["heads"]}
    outcomes = Outcomes(note["classes"], note["head"], heads)
    frozen = note["mode"] == "frozen"
    # A frozen one-vs-rest model is one network: its classes differ in their row of the last layer only.
    asked = [outcomes] if frozen else outcomes.networks()
    modules = [_bare(note, one.outputs) for one in asked]
    module = modules[0] if len(modules) == 1 else OneVsRest(modules)
    module.load_state_dict(state)
    module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare = Preparation(note["input_size"], tuple(note["mean"]), tuple(note["std"]))
    # The last layer is shown the features that it was trained on.
    bfloat16 = note["precision"] == "bfloat16"
    extractor = Extractor(module, note["network"], note["profile"], prepare, bfloat16) if frozen else None
    return Network(module.eval(), note["fold"], outcomes, prepare, extractor)


def _bare(note: dict[str, Any], outputs: int) -> nn.Module:
    return rebuild(note["network"], outputs, note["input_size"], note["profile"])
