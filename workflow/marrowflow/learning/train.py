"""Train one model on one fold: from packed pixels, a split and a plan to weights, history and a card.

Writes ``model.safetensors`` (all that prediction needs), ``history.csv``, ``card.json`` and ``cost.json`` when
training is done; the curves are drawn by the report, so that a change of a plot retrains nothing. The same
options, inputs and machine type give the same bytes, whether or not the run was interrupted; the cost alone
differs from run to run, and no other file holds a time.

A model is one network; with ``head: one_vs_rest`` it is one yes/no network a class, trained one after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import Field
from torch import nn

from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import Augmentation, ClassName, Head, Model, Protocol, Section, read_options
from marrowflow.files import sha256_of, write_json, write_table
from marrowflow.images.store import PackedPixels
from marrowflow.learning.backbones import Backbone, OneVsRest, build
from marrowflow.learning.batches import ImageSamples
from marrowflow.learning.card import Trained, card, cost, history, note, versions
from marrowflow.learning.checkpoint import Checkpoint, fingerprint
from marrowflow.learning.device import choose_device, device_name, keyed_seed, trains_in_bfloat16
from marrowflow.learning.feature_cache import FeatureCache, sample_features
from marrowflow.learning.features import Extractor, FeatureSamples
from marrowflow.learning.fold_samples import (
    class_numbers,
    counts,
    divides_samples,
    fitted_whitening,
    fold_rows,
    training_samples,
    validation_samples,
)
from marrowflow.learning.loop import Fit, fit
from marrowflow.learning.outcomes import Outcomes
from marrowflow.learning.preparation import Preparation
from marrowflow.learning.weight_files import write_weights
from marrowflow.provenance import code_digest

log = logging.getLogger(__name__)


class Options(Section):
    """What a training depends on."""

    model: Model
    augmentation: Augmentation = Augmentation()
    classes: list[ClassName]
    heads: dict[str, Head] = Field(default={})
    """The outcomes that the model learns together; empty where it learns the classes alone."""


@dataclass(frozen=True)
class _Part:
    """The samples of one side of a fold; where a plan may change their images, its rows."""

    rows: pd.DataFrame
    planned: bool

    @property
    def plan(self) -> pd.DataFrame | None:
        return self.rows if self.planned else None

    @property
    def case_ids(self) -> list[str]:
        return self.rows["case_id"].tolist()


class _Job:
    """One model on one fold: what all of its networks share."""

    def __init__(
        self,
        options: Options,
        fold: int,
        rows: pd.DataFrame,
        plan: pd.DataFrame | None,
        pixels: PackedPixels,
        features: Path,
    ) -> None:
        self.options, self.fold, self.rows, self.pixels = options, fold, rows, pixels
        self.training = options.model.training
        self.outcomes = Outcomes(options.classes, options.model.head, options.heads)
        self.device = choose_device(self.training.threads)
        self.bfloat16 = trains_in_bfloat16(self.training, self.device)
        self.cache = FeatureCache(features)
        self._whitening = fitted_whitening(plan, pixels, options.augmentation)
        self.train = _Part(training_samples(rows, plan, fold), plan is not None)
        self.validation = _Part(validation_samples(rows, plan), divides_samples(rows))
        if self.validation.rows.empty:
            log.info("fold %d has no validation images: all epochs run, and the last one is kept", fold)

    def network(self, outcomes: Outcomes) -> Backbone:
        """Return a network with its starting weights, on the device."""
        number = [self.options.classes.index(outcomes.positive_class)] if outcomes.positive_class else []
        seed = keyed_seed(self.training.seed, self.fold, *number)
        backbone = build(self.options.model, outcomes.outputs, seed)
        backbone.module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return backbone

    def preparation(self, backbone: Backbone) -> Preparation:
        """Return what is done to a batch before the network sees it."""
        return Preparation(backbone.input_size, backbone.mean, backbone.std, self._whitening)

    def images(self, part: _Part, backbone: Backbone) -> ImageSamples | None:
        """Return a part's images, prepared for a network; None where there are none."""
        if part.rows.empty:
            return None
        targets = class_numbers(part.rows, self.options.classes)
        prepare = self.preparation(backbone)
        return ImageSamples(self.pixels, part.case_ids, targets, prepare, self.device, part.plan)

    def features(
        self, part: _Part, extractor: Extractor, checkpoint: Checkpoint, name: str
    ) -> FeatureSamples | None:
        """Return what a frozen network sees of a part's images; None where there are none."""
        if part.rows.empty:
            return None
        found = sample_features(
            self.cache, extractor, self.pixels, part.case_ids, part.plan, self.device, checkpoint, name
        )
        targets = torch.tensor(class_numbers(part.rows, self.options.classes), device=self.device)
        return FeatureSamples(found, targets, part.case_ids)

    def fitted(
        self,
        module: nn.Module,
        train: ImageSamples | FeatureSamples,
        validation: ImageSamples | FeatureSamples | None,
        outcomes: Outcomes,
        checkpoint: Checkpoint,
        bfloat16: bool,
    ) -> Fit:
        """Train one network, or the last layer of one."""
        name = (
            f"training_{self.options.classes.index(outcomes.positive_class)}"
            if outcomes.positive_class
            else "training"
        )
        return fit(
            module,
            train,
            validation,
            outcomes,
            self.training,
            self.fold,
            checkpoint,
            bfloat16,
            name=name,
        )


def train_fold(
    options: Options,
    fold: int,
    folds: Path,
    plan: Path | None,
    stores: Sequence[Path],
    state: Path,
    features: Path,
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
    plan
        Of ``images.augment``; None takes each training image once.
    stores
        Packed pixels of the development cohorts.
    state
        Keeps what an interrupted run has done.
    features
        Keeps features of frozen networks, for all jobs of the study.
    out
        Folder of the outputs.
    protocol
        Written down.

    Raises
    ------
    UserError
        Inputs that do not belong together; weights that cannot be had; a training that fails (see `loop.fit`).
    """
    rows = fold_rows(pd.read_parquet(folds), fold, options.classes)
    plan_rows = None if plan is None else pd.read_parquet(plan)
    pixels = PackedPixels(stores)
    job = _Job(options, fold, rows, plan_rows, pixels, features)
    frozen = options.model.mode == "frozen"
    first = job.network(job.outcomes if frozen else job.outcomes.networks()[0])
    checkpoint = Checkpoint(
        state,
        fingerprint(
            {
                "options": options.model_dump(mode="json"),
                "fold": fold,
                "code": code_digest("learning.train"),
                "folds": sha256_of(folds),
                "plan": "" if plan is None else sha256_of(plan),
                "stores": pixels.digests,
                "weights": first.sha256,
                "versions": versions(),
                "device": device_name(job.device),
            }
        ),
    )
    trained = (
        _train_last_layers(job, first, checkpoint) if frozen else _train_networks(job, first, checkpoint)
    )
    _write_outputs(job, trained, out, protocol)
    checkpoint.discard()


def _train_networks(job: _Job, first: Backbone, checkpoint: Checkpoint) -> Trained:
    """Train all parameters of the model's network, or of each of its networks in turn."""
    train, validation = job.images(job.train, first), job.images(job.validation, first)
    assert train is not None  # fold_rows saw to it
    modules: list[nn.Module] = []
    fits: dict[str, Fit] = {}
    asked = job.outcomes.networks()
    for outcomes in asked:
        backbone = first if outcomes is asked[0] else job.network(outcomes)
        fits[outcomes.positive_class] = job.fitted(
            backbone.module, train, validation, outcomes, checkpoint, job.bfloat16
        )
        modules.append(backbone.module)
        if len(asked) > 1:
            # Done: its place on the device is the next one's.
            backbone.module.cpu()
    return Trained(first, modules[0] if len(asked) == 1 else OneVsRest(modules), fits, 0.0, job.bfloat16)


def _train_last_layers(job: _Job, backbone: Backbone, checkpoint: Checkpoint) -> Trained:
    """Train the last layer alone, on features that are computed once.

    In one-vs-rest each class's own row of the layer is trained by itself: the rest is common to all networks.
    """
    module, network = backbone.module, backbone.network
    extractor = Extractor(module, network, job.options.model.profile, job.preparation(backbone), job.bfloat16)
    train = job.features(job.train, extractor, checkpoint, "features_train")
    validation = job.features(job.validation, extractor, checkpoint, "features_validation")
    seconds = _over_all_runs(job.cache.seconds, checkpoint, job.device)
    assert train is not None  # fold_rows saw to it
    fits: dict[str, Fit] = {}
    for number, outcomes in enumerate(job.outcomes.networks()):
        last = extractor.head
        if outcomes.positive_class:
            # Starts at zero, as every last layer on given features does (see `backbones.build`).
            last = nn.Linear(last.in_features, 1, device=job.device)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        head = nn.Sequential(nn.Dropout(job.training.dropout), last)
        fits[outcomes.positive_class] = job.fitted(
            head, train, validation, outcomes, checkpoint, bfloat16=False
        )
        if outcomes.positive_class:
            with torch.no_grad():
                extractor.head.weight[number] = last.weight[0]
                extractor.head.bias[number] = last.bias[0]
    return Trained(backbone, module, fits, seconds, job.bfloat16)


def _over_all_runs(seconds: float, checkpoint: Checkpoint, device: torch.device) -> float:
    """Return the time that went into features in this run and in those that it resumed."""
    name = "features_seconds"
    before = checkpoint.load(name, device)
    together = seconds + (before["seconds"] if before else 0.0)
    checkpoint.save(name, {"seconds": together})
    return together


def _write_outputs(job: _Job, trained: Trained, out: Path, protocol: Protocol) -> None:
    model, outcomes = job.options.model, job.outcomes
    write_table(out / "history.csv", history(trained))
    write_json(out / "cost.json", cost(trained, job.device))
    told: dict[str, Any] = card(trained, model, outcomes, job.fold, protocol) | {
        "data": counts(job.rows, job.options.classes),
        "samples_an_epoch": len(job.train.rows),
        "options": job.options.model_dump(mode="json"),
        "code": code_digest("learning.train"),
        "versions": versions(),
        "device": device_name(job.device),
    }
    write_json(out / "card.json", told)
    weights = out / "model.safetensors"
    write_weights(weights, trained.module.state_dict(), note(trained, model, outcomes, job.fold))


def main(argv: Sequence[str]) -> None:
    """Train one model on one fold."""
    parser = step_parser("learning.train", "Train one model on one fold; resumes an interrupted run.")
    parser.add_argument("--fold", type=int, required=True, help="number of the fold")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet of splits.partition"
    )
    parser.add_argument("--protocol", choices=["sound", "as_published"], default="sound")
    parser.add_argument("--plan", type=existing_file, help="plan.parquet; left out: each training image once")
    add_folders(parser, "--stores", "packed pixels of the development cohorts")
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="this job's own folder for resuming"
    )
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the study's folder of kept features"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the outputs")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    train_fold(
        options,
        args.fold,
        args.folds,
        args.plan,
        args.stores,
        args.state,
        args.features,
        args.out,
        args.protocol,
    )
