"""Trained aggregators, loaded to answer: probabilities of slides by one fold's network or by all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from marrowflow.cli import progress
from marrowflow.errors import UserError
from marrowflow.learning.outcomes import Outcomes
from marrowflow.learning.weight_files import read_metadata, read_weights
from marrowflow.predictions import PROBABILITY
from marrowflow.slides.aggregators import Answer, BagNetwork
from marrowflow.slides.bags import Bags
from marrowflow.study_slides import Aggregation

NOT_DONE = "not_done"


@dataclass(frozen=True)
class Trained:
    """A trained aggregator.

    Attributes
    ----------
    network
        On the device, in evaluation mode.
    fold
        The fold that it was trained on.
    outcomes
        What its outputs mean.
    recipe
        The network whose features it was trained on, as that describes itself.
    """

    network: BagNetwork
    fold: int
    outcomes: Outcomes
    recipe: dict[str, Any]


def load_aggregators(
    folders: Sequence[Path], classes: Sequence[str], bags: Bags, device: torch.device
) -> list[Trained]:
    """Load the ``model.safetensors`` of each folder, in the order of their folds.

    Raises
    ------
    UserError
        A file that ``slides.train`` did not write, networks of other classes or other features, or two of one fold.
    """
    found = []
    for folder in folders:
        path = Path(folder) / "model.safetensors"
        state, note = read_weights(path), read_metadata(path)
        if not {"aggregation", "classes", "recipe"} <= set(note):
            raise UserError(
                f"{path} is not an aggregator that slides.train wrote: it does not say what it is"
            )
        if list(note["classes"]) != list(classes):
            raise UserError(
                f"{folder}: this network answers with {note['classes']}, the configuration's classes are {list(classes)}; "
                "train it again"
            )
        if not bags.empty and note["recipe"] != bags.recipe:
            raise UserError(
                f"{folder}: this network was trained on features of {note['recipe']}, these slides were seen by {bags.recipe}; "
                "extract or train again"
            )
        network = BagNetwork(Aggregation(**note["aggregation"]), note["features"], len(classes))
        network.load_state_dict(state)
        found.append(Trained(network.to(device).eval(), note["fold"], Outcomes(classes), note["recipe"]))
    folds = sorted(one.fold for one in found)
    if len(set(folds)) < len(folds):
        raise UserError(f"--models: the networks are of the folds {folds}; give one of each fold")
    return sorted(found, key=lambda one: one.fold)


@torch.no_grad()
def asked(trained: Trained, bags: Bags, case_ids: Sequence[str], device: torch.device) -> Iterator[Answer]:
    """Yield a network's answer for each of some slides, whole; each has a tile at least."""
    title = f"network of fold {trained.fold}"
    for case in progress(case_ids, title, len(case_ids), "slides"):
        tiles = torch.from_numpy(np.array(bags.features_of(case))).to(device).float()
        with bag_within_memory(case, len(tiles)):
            answer = trained.network(tiles)
        yield answer


@contextmanager
def bag_within_memory(case: str, tiles: int) -> Iterator[None]:
    """Turn a lack of memory for a slide's so many tiles into a `UserError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"slide {case}: the device's memory does not hold its {tiles:,} tiles at once; set a higher slides.tilings.*.min_tissue or "
            "a lower magnification, stop what else runs on the device, or compute on the CPU (CUDA_VISIBLE_DEVICES= in front of "
            "the command)"
        ) from error


def answers(
    networks: Sequence[Trained], bags: Bags, case_ids: Sequence[str], device: torch.device
) -> pd.DataFrame:
    """Return the mean of the networks' probabilities, one row a slide: float64, NaN for slides without tiles."""
    classes = networks[0].outcomes.classes
    table = np.full((len(case_ids), len(classes)), np.nan)
    known = np.flatnonzero(bags.counts(case_ids) > 0)
    if len(known):
        cases, each = [case_ids[int(i)] for i in known], []
        for trained in networks:
            logits = [answer.logits.float() for answer in asked(trained, bags, cases, device)]
            each.append(trained.outcomes.answers(torch.stack(logits))[0])
        table[known] = np.mean(each, axis=0)
    return pd.DataFrame(table, columns=[PROBABILITY + name for name in classes])


def marked(table: pd.DataFrame, bags: Bags) -> pd.DataFrame:
    """Return a prediction table in which slides without tiles are not done, with the reason."""
    none = bags.counts(table["case_id"].tolist()) == 0
    table.loc[none, "status"] = NOT_DONE
    table.loc[none, "reason"] = [bags.reason(case) for case in table.loc[none, "case_id"]]
    table.loc[none, "predicted"] = ""
    return table
