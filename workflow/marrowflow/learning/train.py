"""Train one network on one fold: from packed pixels, a split and a plan to weights, history and a card.

Writes ``model.safetensors`` (all that prediction needs), ``history.csv`` and ``card.json`` when
training is done; the curves are drawn by the report, so that a change of a plot retrains nothing. The same options, inputs and machine type give the same bytes,
whether or not the run was interrupted; hence no file holds a time.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import LEAKY, Augmentation, ClassName, Model, Protocol, Section, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import sha256_of, write_json, write_table
from marrowflow.images.whitening import Whitening, fit_patch_zca, fitting_cases
from marrowflow.learning.backbones import Backbone, build, parameter_counts
from marrowflow.learning.batches import ImageSamples, PackedPixels, Preparation, in_order, on_device
from marrowflow.learning.checkpoint import Checkpoint, fingerprint
from marrowflow.learning.device import choose_device, keyed_seed, trains_in_bfloat16
from marrowflow.learning.loop import HISTORY, Fit, fit
from marrowflow.learning.weights import write_weights
from marrowflow.provenance import code_digest

log = logging.getLogger(__name__)


class Options(Section):
    """What a training depends on."""

    model: Model
    augmentation: Augmentation = Augmentation()
    classes: list[ClassName]


@dataclass(frozen=True)
class FeatureSamples:
    """Features of images, computed once, in the place of the images.

    Attributes
    ----------
    features
        float32 [samples, features].
    targets
        int64 [samples].
    """

    features: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)

    def batches(
        self, chunks: Sequence[np.ndarray], title: str = ""
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield features and targets of each chunk; too fast for a bar, so the title is not used."""
        for chosen in on_device(chunks, self.features.device):
            yield self.features[chosen], self.targets[chosen]


def training_cases(folds: pd.DataFrame, fold: int, classes: Sequence[str]) -> pd.DataFrame:
    """Return a fold's rows; raise `UserError` for an unknown fold, unknown labels, or no training case."""
    rows = folds[folds["fold"] == fold].reset_index(drop=True)
    if rows.empty:
        raise UserError(f"--fold {fold}: the table of folds has {sorted(folds['fold'].unique().tolist())}")
    unknown = sorted(set(rows["label"]) - set(classes))
    if unknown:
        raise UserError(
            f"labels in the table of folds that are none of the classes {list(classes)}: {unknown}; "
            "both must come from one configuration"
        )
    trained = rows.loc[rows["partition"] == "train", "label"]
    if trained.empty:
        raise UserError(f"fold {fold} has no training case; use fewer folds, or smaller shares for test")
    for name in classes:
        if name not in set(trained):
            log.warning("fold %d trains on no image of class %s: it cannot learn it", fold, name)
    return rows


def planned_samples(rows: pd.DataFrame, plan: pd.DataFrame | None, fold: int) -> pd.DataFrame:
    """Return ``case_id`` and ``label`` of an epoch's samples: the plan's, or each training image once.

    Raises
    ------
    UserError
        The plan augments an image that this fold does not train on, which would leak.
    """
    train = rows[rows["partition"] == "train"]
    if plan is None:
        return train
    strangers = sorted(set(plan["case_id"]) - set(train["case_id"]))
    if strangers:
        raise UserError(
            enumerate_problems(
                f"the plan augments images that fold {fold} does not train on; draw it from this table of folds:",
                strangers,
            )
        )
    return plan


def train_fold(
    options: Options,
    fold: int,
    folds: Path,
    plan: Path | None,
    stores: Sequence[Path],
    state: Path,
    out: Path,
    protocol: Protocol = "sound",
) -> None:
    """Train, and write the three outputs into ``out``; ``state`` keeps what an interrupted run has done."""
    training, classes = options.model.training, options.classes
    rows = training_cases(pd.read_parquet(folds), fold, classes)
    plan_rows = None if plan is None else pd.read_parquet(plan)
    samples = planned_samples(rows, plan_rows, fold)
    device = choose_device(training.threads)
    pixels = PackedPixels(stores)
    backbone = build(options.model, len(classes), keyed_seed(training.seed, fold))
    backbone.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
                "weights": backbone.sha256,
                "versions": _versions(),
                "device": _device_name(device),
            }
        ),
    )
    number = {name: i for i, name in enumerate(classes)}
    whitening = _whitening(plan_rows, pixels, options.augmentation)
    prepare = Preparation(backbone.input_size, backbone.mean, backbone.std, whitening)
    train = ImageSamples(
        pixels, samples["case_id"].tolist(), _targets(samples, number), prepare, device, plan_rows
    )
    chosen = rows[rows["partition"] == "validation"]
    validation = None
    if len(chosen):
        validation = ImageSamples(
            pixels, chosen["case_id"].tolist(), _targets(chosen, number), prepare, device
        )
    else:
        log.info("fold %d has no validation images: all epochs run and the last one's weights are kept", fold)

    bfloat16 = trains_in_bfloat16(training, device)
    if options.model.mode == "frozen":
        outcome = _fit_head(backbone, train, validation, options, fold, checkpoint, bfloat16)
    else:
        outcome = fit(backbone.module, train, validation, len(classes), training, fold, checkpoint, bfloat16)
    _write_outputs(options, fold, rows, backbone, outcome, len(train), device, out, protocol)
    checkpoint.discard()


def features_of(backbone: Backbone, samples: ImageSamples, batch_size: int, bfloat16: bool) -> FeatureSamples:
    """Return what a network's last layer sees of each sample, computed once.

    Raises
    ------
    UserError
        The network's last layer is not a linear one on these features.
    """
    module, device = backbone.module.eval(), samples.targets.device
    head = _linear_head(backbone)
    parts: list[torch.Tensor] = []
    with torch.no_grad():
        for inputs, _ in samples.batches(in_order(len(samples), batch_size), "features"):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
                features = module.forward_head(module.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
            if not parts and not bfloat16:
                _refuse_other_heads(backbone, head(features), module(inputs))
            parts.append(features.float())
    return FeatureSamples(torch.cat(parts), samples.targets)


def _fit_head(
    backbone: Backbone,
    train: ImageSamples,
    validation: ImageSamples | None,
    options: Options,
    fold: int,
    checkpoint: Checkpoint,
    bfloat16: bool,
) -> Fit:
    """Train the last layer alone, on features that are computed once and kept for a run that resumes."""
    training = options.model.training
    kept = checkpoint.load("features", train.targets.device)
    if kept is None:
        kept = {"train": features_of(backbone, train, training.batch_size, bfloat16).features}
        if validation is not None:
            kept["validation"] = features_of(backbone, validation, training.batch_size, bfloat16).features
        checkpoint.save("features", kept)
    head = nn.Sequential(nn.Dropout(training.dropout), _linear_head(backbone))
    return fit(
        head,
        FeatureSamples(kept["train"], train.targets),
        None if validation is None else FeatureSamples(kept["validation"], validation.targets),
        len(options.classes),
        training,
        fold,
        checkpoint,
    )


def _linear_head(backbone: Backbone) -> nn.Linear:
    head = backbone.module.get_classifier()  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"mode: frozen trains one linear last layer, and {backbone.network} has none; use mode: finetune"
        )
    return head


def _refuse_other_heads(backbone: Backbone, from_features: torch.Tensor, logits: torch.Tensor) -> None:
    if not torch.allclose(from_features, logits, rtol=1e-3, atol=1e-4):
        raise UserError(
            f"mode: frozen: {backbone.network} does more between its features and its answer than one linear "
            "layer; use mode: finetune"
        )


def _whitening(
    plan: pd.DataFrame | None, pixels: PackedPixels, augmentation: Augmentation
) -> Whitening | None:
    """Fit the whitening on the plan's parents, all of them training images; None where nothing is whitened."""
    if plan is None or not plan["whiten"].any():
        return None
    cases = fitting_cases(plan["case_id"].tolist(), augmentation.seed)
    images = pixels.gather(pixels.numbers(cases))
    return fit_patch_zca(images, augmentation.zca_epsilon, seed=augmentation.seed)


def _targets(rows: pd.DataFrame, number: dict[str, int]) -> np.ndarray:
    return rows["label"].map(number).to_numpy(np.int64)


def _write_outputs(
    options: Options,
    fold: int,
    rows: pd.DataFrame,
    backbone: Backbone,
    outcome: Fit,
    samples: int,
    device: torch.device,
    out: Path,
    protocol: Protocol,
) -> None:
    write_table(out / "history.csv", pd.DataFrame(outcome.history, columns=list(HISTORY)))
    write_json(out / "card.json", _card(options, fold, rows, backbone, outcome, samples, device, protocol))
    note = {
        "network": backbone.network,
        "classes": options.classes,
        "input_size": backbone.input_size,
        "mean": backbone.mean,
        "std": backbone.std,
        "fold": fold,
    }
    write_weights(out / "model.safetensors", backbone.module.state_dict(), note)


def _card(
    options: Options,
    fold: int,
    rows: pd.DataFrame,
    backbone: Backbone,
    outcome: Fit,
    samples: int,
    device: torch.device,
    protocol: Protocol,
) -> dict[str, Any]:
    return {
        "protocol": protocol,
        "stamp": LEAKY if protocol == "as_published" else "",
        "network": backbone.network,
        "mode": options.model.mode,
        "fold": fold,
        "classes": options.classes,
        "weights": {"source": backbone.source, "sha256": backbone.sha256},
        "parameters": parameter_counts(backbone, options.model.mode),
        "input_size": backbone.input_size,
        "mean": backbone.mean,
        "std": backbone.std,
        "data": _counts(rows, options.classes),
        "samples_an_epoch": samples,
        "epochs_run": len(outcome.history),
        "best_epoch": outcome.best_epoch,
        "options": options.model_dump(mode="json"),
        "code": code_digest("learning.train"),
        "versions": _versions(),
        "device": _device_name(device),
    }


def _counts(rows: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Return images and patients of each partition and class."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for partition in ("train", "validation", "test"):
        part = rows[rows["partition"] == partition]
        counts[partition] = {
            name: {
                "images": int((part["label"] == name).sum()),
                "patients": int(part.loc[part["label"] == name, "patient_id"].nunique()),
            }
            for name in classes
        }
    return counts


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "timm", "numpy", "safetensors")
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def main(argv: Sequence[str]) -> None:
    """Train one network on one fold."""
    parser = step_parser("learning.train", "Train one network on one fold; resumes an interrupted run.")
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
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the three outputs")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    train_fold(options, args.fold, args.folds, args.plan, args.stores, args.state, args.out, args.protocol)
