"""Features of a frozen network: what its last layer sees of an image.

A frozen network answers ``last layer(features)``, and only its last layer is trained. Its images are
therefore sent through it once (`marrowflow.learning.feature_cache` keeps what came out), and epochs run on
the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from marrowflow.errors import UserError
from marrowflow.images.store import PackedPixels
from marrowflow.learning.batches import ImageSamples, in_order, on_device
from marrowflow.learning.faults import within_memory
from marrowflow.learning.preparation import Preparation

BATCH = 32
"""Images sent at once through a network that is not trained. Fixed, because rounding depends on it; larger batches
are no faster on a CPU."""


@dataclass(frozen=True)
class Extractor:
    """A network whose features are wanted, with its preparation of images.

    Attributes
    ----------
    module
        On the device; with timm's ``forward_features``, ``forward_head`` and ``get_classifier``.
    network, profile
        Its name and profile, as in the configuration.
    prepare
        Its preparation.
    bfloat16
        Compute features in bfloat16, as the network would have been trained.
    """

    module: nn.Module
    network: str
    profile: str
    prepare: Preparation
    bfloat16: bool = False

    @property
    def precision(self) -> str:
        """Name of the numbers that it computes with."""
        return "bfloat16" if self.bfloat16 else "float32"

    @property
    def head(self) -> nn.Linear:
        """Return the last layer; raise `UserError` for a network that does not end in one linear layer."""
        head = self.module.get_classifier()  # type: ignore[operator]
        if not isinstance(head, nn.Linear):
            raise UserError(
                f"mode: frozen trains one linear last layer, and {self.network} has none; use mode: finetune"
            )
        return head


@dataclass(frozen=True)
class FeatureSamples:
    """Features of images, computed once, in the place of the images.

    Attributes
    ----------
    features
        float32 [samples, features].
    targets
        int64 [samples].
    cases
        The images' ids.
    """

    features: torch.Tensor
    targets: torch.Tensor
    cases: Sequence[str]

    def __len__(self) -> int:
        return len(self.features)

    def case_ids(self, chosen: np.ndarray) -> list[str]:
        """Return the images' ids by their sample numbers."""
        return [self.cases[i] for i in chosen]

    def batches(
        self, chunks: Sequence[np.ndarray], title: str = ""
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield features and targets of each chunk; too fast for a bar, so the title is not used."""
        for chosen in on_device(chunks, self.features.device):
            yield self.features[chosen], self.targets[chosen]


@torch.no_grad()
def computed_features(
    extractor: Extractor,
    pixels: PackedPixels,
    case_ids: Sequence[str],
    plan: pd.DataFrame | None,
    device: torch.device,
) -> Iterator[torch.Tensor]:
    """Yield the features of samples, float32 [n, features], in consecutive batches of `BATCH`.

    Parameters
    ----------
    extractor
        The network.
    pixels
        Where the images lie.
    case_ids
        One a sample.
    plan
        Rows as many as samples; None takes the images as they are.
    device
        Where the features are wanted.

    Raises
    ------
    UserError
        The network does not end in one linear layer on its features; the device's memory does not hold a batch.
    """
    module, targets = extractor.module.eval(), np.zeros(len(case_ids), np.int64)
    samples = ImageSamples(pixels, case_ids, targets, extractor.prepare, device, plan, resident=False)
    what = f"features of {extractor.network} in {extractor.precision}"
    with within_memory(what, BATCH):
        for i, (inputs, _) in enumerate(samples.batches(in_order(len(samples), BATCH), "features")):
            if i == 0:
                _refuse_other_heads(extractor, inputs[:2])
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=extractor.bfloat16):
                features = _before_head(module, inputs)
            yield features.float()


def _before_head(module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return module.forward_head(module.forward_features(inputs), pre_logits=True)  # type: ignore[operator]


def _refuse_other_heads(extractor: Extractor, inputs: torch.Tensor) -> None:
    """Refuse a network that does more than one linear layer between its features and its answer.

    The last layer is made to say something arbitrary: it must be what the network answers, and what the
    layer was given must be the features. Weights are not asked, since a new last layer is all zeros.
    """
    module, seen = extractor.module, list[tuple[torch.Tensor, torch.Tensor]]()

    def speak(_: nn.Module, arguments: tuple[torch.Tensor], answer: torch.Tensor) -> torch.Tensor:
        said = torch.linspace(-1.5, 2.5, answer.numel()).to(answer).view_as(answer)
        seen.append((arguments[0], said))
        return said

    hook = extractor.head.register_forward_hook(speak)
    try:
        answer = module(inputs)
    finally:
        hook.remove()
    features = _before_head(module, inputs)
    if len(seen) == 1:
        given, said = seen[0]
        alike = given.shape == features.shape and torch.allclose(given, features, rtol=1e-3, atol=1e-4)
        if alike and answer.shape == said.shape and torch.equal(answer, said):
            return
    raise UserError(
        f"mode: frozen: {extractor.network} does more between its features and its answer than one linear "
        "layer; use mode: finetune"
    )
