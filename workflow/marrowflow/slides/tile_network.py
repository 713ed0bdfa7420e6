"""The network that sees each tile once: any of timm's, whole or cut after a stage, with given weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from marrowflow.config import Model, Training
from marrowflow.errors import UserError
from marrowflow.learning.backbones import build
from marrowflow.learning.preparation import Preparation
from marrowflow.learning.pretrained import tensors_sha256
from marrowflow.study_slides import Extractor

_PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Of networks that the literature of whole slides uses; a cut in another place would be another extractor.
_KNOWN = {("resnet50", 3): 1024}


@dataclass(frozen=True)
class TileNetwork:
    """An extractor on its device.

    Attributes
    ----------
    module
        In evaluation mode; nothing of it is trained.
    settings
        The configuration's section.
    prepare
        From tiles to the network's input.
    precision
        float32, float16 or bfloat16: that of its arithmetic.
    features
        Numbers a tile.
    source, sha256, licence
        Of its weights, as in `marrowflow.learning.backbones.Backbone`.
    tensors
        Checksum of the tensors that it computes with.
    """

    module: nn.Module
    settings: Extractor
    prepare: Preparation
    precision: str
    features: int
    source: str
    sha256: str
    licence: str
    tensors: str

    @torch.no_grad()
    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return the features of tiles (uint8 [n, size, size, 3], RGB, on the device): float16 [n, F]."""
        inputs = self.prepare(tiles)
        dtype = _PRECISIONS[self.precision]
        with torch.autocast(tiles.device.type, dtype=dtype, enabled=dtype != torch.float32):
            return _seen(self.module, inputs, self.settings.stage).float().half()

    def about(self) -> dict[str, Any]:
        """Return what its features depend on, beside the tiles, the machine and the versions."""
        return {
            "network": self.settings.network,
            "stage": self.settings.stage,
            "weights_sha256": self.tensors,
            "input_size": self.prepare.input_size,
            "mean": list(self.prepare.mean),
            "std": list(self.prepare.std),
            "precision": self.precision,
            "batch": self.settings.batch_size,
        }


def tile_network(settings: Extractor, size: int, device: torch.device) -> TileNetwork:
    """Build an extractor for tiles of so many pixels a side.

    Raises
    ------
    UserError
        Weights that cannot be had or do not match; a stage that the network does not have.
    """
    random = settings.weights == "none"
    model = Model(
        network=settings.network,
        mode="scratch" if random else "frozen",
        weights=settings.weights,
        licence=settings.licence,
        input_size=settings.input_size or size,
        training=Training(),
    )
    backbone = build(model, outputs=1, seed=0)
    module = backbone.module.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepare = Preparation(backbone.input_size, backbone.mean, backbone.std)
    with torch.no_grad():
        blank = torch.zeros(1, 3, backbone.input_size, backbone.input_size, device=device)
        features = _checked(module, blank, settings).shape[1]
    wanted = _KNOWN.get((settings.network.partition(".")[0], settings.stage or 0), features)
    if features != wanted:
        raise UserError(
            f"slides.extractor: {settings.network} cut after stage {settings.stage} gives {features} numbers, not {wanted}: "
            "these are other weights or another timm than the study was written for"
        )
    own = {name: t for name, t in module.state_dict().items() if name not in backbone.head}
    return TileNetwork(
        module,
        settings,
        prepare,
        _precision(settings, device),
        features,
        backbone.source,
        backbone.sha256,
        backbone.licence,
        tensors_sha256(own),
    )


def _precision(settings: Extractor, device: torch.device) -> str:
    if settings.precision == "auto":
        return "float16" if device.type == "cuda" else "float32"
    return settings.precision


def _seen(module: nn.Module, inputs: torch.Tensor, stage: int | None) -> torch.Tensor:
    """Return a network's features [n, F]: the mean over its maps after a stage, or what its last layer sees."""
    if stage is None:
        return module.forward_head(module.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
    maps = module.forward_intermediates(  # type: ignore[operator]
        inputs, indices=[stage], stop_early=True, intermediates_only=True, output_fmt="NCHW"
    )
    return maps[-1].mean(dim=(2, 3))


def _checked(module: nn.Module, blank: torch.Tensor, settings: Extractor) -> torch.Tensor:
    if settings.stage is not None and not hasattr(module, "forward_intermediates"):
        raise UserError(
            f"slides.extractor.stage: {settings.network} cannot be cut after a stage; set stage: null for what its last layer "
            "sees"
        )
    try:
        return _seen(module, blank, settings.stage)
    except (AssertionError, IndexError, ValueError) as error:
        raise UserError(
            f"slides.extractor.stage: {settings.network} has no stage {settings.stage} ({error}); set a smaller number, or null"
        ) from error
