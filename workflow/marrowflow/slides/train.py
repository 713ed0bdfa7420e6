"""Train one aggregator on one fold: from bags and a split to weights, history and a card (a step).

Writes what ``learning.train`` writes, for the same readers: ``model.safetensors`` (all that prediction needs),
``history.csv``, ``card.json`` and ``cost.json``. The same options, inputs and machine type give the same bytes, whether or
not the run was interrupted; the cost alone differs from run to run.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import LEAKY, ClassName, Protocol, Section, Training, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import sha256_of, write_json, write_table
from marrowflow.learning.checkpoint import Checkpoint, fingerprint
from marrowflow.learning.cost import cost_of
from marrowflow.learning.device import choose_device, device_name, keyed_seed, trains_in_bfloat16
from marrowflow.learning.fold_samples import class_numbers, counts, fold_rows
from marrowflow.learning.loop import HISTORY, Fit, fit
from marrowflow.learning.outcomes import Outcomes
from marrowflow.learning.weight_files import write_weights
from marrowflow.provenance import code_digest
from marrowflow.slides.aggregators import BagNetwork
from marrowflow.slides.arguments import add_bags, add_state
from marrowflow.slides.bags import Bags
from marrowflow.slides.samples import BagCriterion, BagSamples, BagTrainee, ClusteringCriterion
from marrowflow.splits.samples import TRAIN, VALIDATION
from marrowflow.study_slides import Aggregation

log = logging.getLogger(__name__)


class Options(Section):
    """What a training depends on."""

    aggregation: Aggregation
    training: Training
    instances: int
    """Tiles on either side of the instance clustering at this tiling."""
    within: bool
    """Train on the tiles within a slide's region, where it has one."""
    classes: list[ClassName]


def train_fold(
    options: Options,
    fold: int,
    folds: Path,
    tables: Sequence[Path],
    features: Path,
    state: Path,
    out: Path,
    protocol: Protocol = "sound",
) -> None:
    """Train, and write the outputs into ``out``.

    Parameters
    ----------
    options
        See `Options`.
    fold
        Number of the fold.
    folds
        Table of ``splits.partition``.
    tables
        ``bags.parquet`` of the development cohorts.
    features
        The study's folder of kept features.
    state
        Keeps what an interrupted run has done.
    out
        Folder of the outputs.
    protocol
        Written down.

    Raises
    ------
    UserError
        Inputs that do not belong together; no training slide with a tile; a training that fails (see `loop.fit`).
    """
    device = choose_device(options.training.threads)
    bags = Bags(tables, features)
    rows = fold_rows(pd.read_parquet(folds), fold, options.classes)
    rows = _with_tiles(rows, bags, options)
    outcomes = Outcomes(options.classes)
    train = _samples(rows, TRAIN, bags, options, device)
    validation = _samples(rows, VALIDATION, bags, options, device)
    if train is None:
        raise UserError(
            f"fold {fold}: no training slide has a tile; see column reason of the tilings' slides.csv"
        )
    if validation is None:
        log.info("fold %d has no validation slides: all epochs run, and the last one is kept", fold)
    torch.manual_seed(keyed_seed(options.training.seed, fold))
    network = BagNetwork(options.aggregation, bags.features, len(options.classes)).to(device)
    most = options.instances if options.aggregation.clusters else 0
    checkpoint = Checkpoint(
        state,
        fingerprint(
            {
                "options": options.model_dump(mode="json"),
                "fold": fold,
                "code": code_digest("slides.train"),
                "folds": sha256_of(folds),
                "bags": bags.digest,
                "versions": _versions(),
                "device": device_name(device),
            }
        ),
    )
    bfloat16 = trains_in_bfloat16(options.training, device)
    criterion = (
        ClusteringCriterion(outcomes, train.targets, options.training, options.aggregation.bag_weight)
        if most
        else BagCriterion(outcomes, train.targets, options.training)
    )
    trainee = BagTrainee(network, most)
    fitted = fit(
        trainee,
        train,
        validation,
        outcomes,
        options.training,
        fold,
        checkpoint,
        bfloat16,
        criterion=criterion,
    )
    note = {
        "aggregation": options.aggregation.model_dump(mode="json"),
        "classes": list(options.classes),
        "features": bags.features,
        "fold": fold,
        "precision": "bfloat16" if bfloat16 else "float32",
        "recipe": bags.recipe,
    }
    write_table(out / "history.csv", pd.DataFrame(fitted.history, columns=list(HISTORY)))
    write_json(out / "cost.json", cost_of([fitted], device))
    card = _card(options, network, bags, fitted, fold, protocol) | {
        "data": counts(rows, options.classes),
        "tiles": _tiles(rows, bags, options.within),
        "samples_an_epoch": len(train),
        "options": options.model_dump(mode="json"),
        "code": code_digest("slides.train"),
        "versions": _versions(),
        "device": device_name(device),
    }
    write_json(out / "card.json", card)
    write_weights(out / "model.safetensors", network.state_dict(), note)
    checkpoint.discard()


def _with_tiles(rows: pd.DataFrame, bags: Bags, options: Options) -> pd.DataFrame:
    """Return a fold's slides that have tiles; tell of the others, and of classes that are left without a training slide."""
    tiles = bags.counts(rows["case_id"].tolist())
    for case in rows.loc[tiles == 0, "case_id"]:
        log.warning("%s has no tile (%s): it is neither trained nor validated on", case, bags.reason(case))
    for case in rows.loc[_used(rows, bags, options.within) == 1, "case_id"]:
        log.warning(
            "%s has one tile: its attention is 1 whatever it shows, and it has no instance loss", case
        )
    kept = rows[tiles > 0].reset_index(drop=True)
    before, after = (set(part.loc[part["partition"] == TRAIN, "label"]) for part in (rows, kept))
    for name in sorted(before - after):
        log.warning("none of the training slides of class %s has a tile: it cannot be learnt", name)
    return kept


def _used(rows: pd.DataFrame, bags: Bags, within: bool) -> np.ndarray:
    """Return how many tiles of each slide are used, int64: those of its region where it is trained or validated on within that."""
    tiles = bags.counts(rows["case_id"].tolist()).copy()
    if within:
        for place, (case, partition) in enumerate(zip(rows["case_id"], rows["partition"], strict=True)):
            if partition in (TRAIN, VALIDATION):
                tiles[place] = len(bags.within_region(case))
    return tiles


def _samples(
    rows: pd.DataFrame, partition: str, bags: Bags, options: Options, device: torch.device
) -> BagSamples | None:
    """Return the bags of one side of a fold; None where there are none."""
    part = rows[rows["partition"] == partition]
    if part.empty:
        return None
    cases = part["case_id"].tolist()
    if options.within:
        empty = [case for case in cases if not len(bags.within_region(case))]
        if empty:
            raise UserError(
                enumerate_problems(
                    "the regions of these slides hold no tile; draw them larger, lower the tiling's min_tissue, or set "
                    "slides.regions: never:",
                    empty,
                )
            )
    return BagSamples(bags, cases, class_numbers(part, options.classes), device, options.within)


def _card(
    options: Options, network: BagNetwork, bags: Bags, fitted: Fit, fold: int, protocol: Protocol
) -> dict[str, Any]:
    size = sum(parameter.numel() for parameter in network.parameters())
    return {
        "protocol": protocol,
        "stamp": LEAKY if protocol == "as_published" else "",
        "network": f"{options.aggregation.kind} on {bags.recipe['network']}",
        "profile": "corrected",
        "mode": "frozen",
        "fold": fold,
        "classes": list(options.classes),
        "head": "softmax",
        "heads": [],
        "weights": bags.weights,
        "extractor": bags.recipe,
        "parameters": {"total": size, "trainable": size},
        "input_size": bags.recipe["input_size"],
        "mean": bags.recipe["mean"],
        "std": bags.recipe["std"],
        "epochs_run": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "micro_batch": fitted.micro_batch,
    }


def _tiles(rows: pd.DataFrame, bags: Bags, within: bool) -> dict[str, dict[str, int]]:
    """Return how many tiles are used of the slides of each side: fewest, median, most, all."""
    told = {}
    for partition, part in rows.groupby("partition"):
        tiles = _used(part, bags, within)
        told[str(partition)] = {
            "fewest": int(tiles.min()),
            "median": int(np.median(tiles)),
            "most": int(tiles.max()),
            "all": int(tiles.sum()),
        }
    return told


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "safetensors")},
    }


def main(argv: Sequence[str]) -> None:
    """Train one aggregator on one fold."""
    parser = step_parser("slides.train", "Train one aggregator on one fold; resumes an interrupted run.")
    parser.add_argument("--fold", type=int, required=True, help="number of the fold")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet of splits.partition"
    )
    parser.add_argument("--protocol", choices=["sound", "as_published"], default="sound")
    add_bags(parser, "bags.parquet of the development cohorts")
    add_state(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the outputs")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    train_fold(options, args.fold, args.folds, args.bags, args.features, args.state, args.out, args.protocol)
