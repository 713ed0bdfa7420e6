"""Where the index test that is reported first sees each image of a cohort: its network's features (a step).

The features are the input of the last layer of one network: that of fold 0. Networks of other folds have axes of their own,
so features of several cannot be compared. Of an ensemble it is the first member's; of one-vs-rest networks that of the
first class, or the common one where only last layers were trained; networks of several heads share their features.

A network knows the images that it was trained on, and may put them where it puts no other. ``trained_on`` marks
them, so that a comparison with patients it has never seen can leave them out. Where only the last layer was trained, the
features were not, and no image is marked.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from marrowflow.choices.primary import read_primary
from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import ClassName, Identifier, Section, read_options
from marrowflow.embedding_file import write_embedding
from marrowflow.errors import UserError
from marrowflow.images.store import PackedPixels
from marrowflow.learning.backbones import OneVsRest
from marrowflow.learning.batches import ImageSamples, in_order
from marrowflow.learning.device import choose_device
from marrowflow.learning.ensemble import Network, load_networks
from marrowflow.learning.faults import within_memory
from marrowflow.learning.feature_cache import FeatureCache
from marrowflow.learning.features import BATCH
from marrowflow.splits.samples import TRAIN

log = logging.getLogger(__name__)

FOLD = 0
"""The fold whose network is asked."""


class Options(Section):
    """What the choice of the network depends on, besides the index test that is reported first."""

    classes: list[ClassName]
    members: dict[Identifier, list[Identifier]] = {}  # noqa: RUF012 (pydantic copies it)
    """Models of each ensemble, by the ensemble's name."""


def embed(
    options: Options,
    index_test: str,
    models: Sequence[Path],
    inventory: pd.DataFrame,
    stores: Sequence[Path],
    folds: pd.DataFrame,
    features: Path,
    out: Path,
) -> None:
    """Write the features of a cohort's included images, in the inventory's order.

    Parameters
    ----------
    options
        Classes, and the members of ensembles.
    index_test
        That is reported first, ``<model>-<colour>``.
    models
        Folders ``<model>/<colour>/0`` of ``learning.train``; the one that is wanted among them.
    inventory
        Of the cohort.
    stores
        Folders ``<colour>`` of the cohort's packed pixels; the one that is wanted among them.
    folds
        Table of ``splits.partition`` that the networks were trained by.
    features
        The study's folder of kept features.
    out
        Parquet to write: ``case_id``, ``trained_on`` (bool), ``f0``, ``f1``, … (float32), in groups of 8,192 rows.

    Raises
    ------
    UserError
        No included image; no such network or store among those given; networks of other classes or another fold.
    """
    cases = inventory.loc[inventory["status"] == "included", "case_id"].tolist()
    if not cases:
        raise UserError("the inventory has no included image: nothing to embed; see its column reason")
    model, _, colour = index_test.partition("-")
    model = options.members.get(model, [model])[0]
    folder = _only([f for f in models if f.parts[-3:-1] == (model, colour)], "--models", f"{model}/{colour}")
    store = _only([f for f in stores if f.name == colour], "--stores", colour)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    # As in training: threads decide in which order sums are rounded.
    device = choose_device(card["options"]["model"]["training"]["threads"])
    (network,) = load_networks([folder], options.classes, device)
    if network.fold != FOLD:
        raise UserError(f"{folder} holds the network of fold {network.fold}; give that of fold {FOLD}")
    log.info("features of %s on %s, fold %d", model, colour, FOLD)
    trained = folds.loc[(folds["fold"] == FOLD) & (folds["partition"] == TRAIN), "case_id"]
    known = pd.Series(cases).isin(trained if network.extractor is None else []).to_numpy()
    parts = _features(network, PackedPixels([store]), cases, device, FeatureCache(features))
    write_embedding(out, cases, known, parts)


def _features(
    network: Network, pixels: PackedPixels, cases: Sequence[str], device: torch.device, cache: FeatureCache
) -> Iterator[np.ndarray]:
    """Yield float32 [n, features] of consecutive images."""
    if network.extractor is not None:
        yield cache.of(network.extractor, pixels, cases, device).cpu().numpy()
        return
    module = network.module[0] if isinstance(network.module, OneVsRest) else network.module
    samples = ImageSamples(
        pixels, cases, np.zeros(len(cases), np.int64), network.prepare, device, resident=False
    )
    with torch.no_grad(), within_memory(f"network of fold {network.fold}", BATCH):
        for inputs, _ in samples.batches(in_order(len(cases), BATCH), "features"):
            before = module.forward_head(module.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
            yield before.flatten(1).float().cpu().numpy()


def _only(found: Sequence[Path], flag: str, wanted: str) -> Path:
    if len(found) != 1:
        raise UserError(
            f"{flag} names {len(found)} folders of {wanted}, the one that is wanted: name it once"
        )
    return found[0]


def main(argv: Sequence[str]) -> None:
    """Write the features of one cohort."""
    parser = step_parser(
        "learning.embed", "Features of a cohort's images in the index test reported first, fold 0."
    )
    parser.add_argument(
        "--primary", type=existing_file, required=True, help="primary.json of choices.primary"
    )
    add_folders(parser, "--models", "folders <model>/<colour>/0 of the networks of fold 0")
    parser.add_argument(
        "--inventory", type=existing_file, required=True, help="inventory.parquet of the cohort"
    )
    add_folders(parser, "--stores", "folders <colour> of the cohort's packed pixels")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet that the networks were trained by"
    )
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the study's folder of kept features"
    )
    parser.add_argument("--out", type=Path, required=True, help="embedding.parquet to write")
    args = parser.parse_args(argv)
    embed(
        read_options(Options, args.options),
        read_primary(args.primary),
        args.models,
        pd.read_parquet(args.inventory),
        args.stores,
        pd.read_parquet(args.folds),
        args.features,
        args.out,
    )
