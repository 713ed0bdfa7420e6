"""Networks that find cells: torchvision's detectors, with anchors and input as a study asks for.

===========================  ============================================================================================
network                      source
===========================  ============================================================================================
retinanet_resnet50_fpn       torchvision's RetinaNet (Lin 2017) on ResNet50 and a feature pyramid of levels 3 to 7
retinanet_vgg16_fpn          the same on VGG16 (zhou2021): the pyramid stands on its third, fourth and fifth stage, pooled, whose
                             strides of 8, 16 and 32 are those of ResNet50's second to fourth
ssd300_vgg16                 torchvision's SSD (Liu 2016): input 300 x 300, its own anchors
ssdlite320_mobilenet_v3      torchvision's SSDlite on MobileNetV3 large (Howard 2019): input 320 x 320, made for CPUs
===========================  ============================================================================================

A network is asked for types of cells; number 0 of torchvision's classes is the background, and the study's first type is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torchvision.models import resnet50, vgg16
from torchvision.models.detection import RetinaNet, ssd300_vgg16, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from marrowflow.section import Section

Network = Literal["retinanet_resnet50_fpn", "retinanet_vgg16_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3"]
_INPUT = 800, 1333
_CHANNELS = 256
# The poolings behind the stages, by their place in torchvision's VGG16, with their channels.
_VGG_STAGES = {"16": 256, "23": 512, "30": 512}
_RESNET_STAGES = {"layer2": 512, "layer3": 1024, "layer4": 2048}


class Detector(Section):
    """How cells are found."""

    network: Network = "retinanet_resnet50_fpn"
    """retinanet_resnet50_fpn, retinanet_vgg16_fpn (zhou2021's two), ssd300_vgg16, or for CPUs ssdlite320_mobilenet_v3."""
    input_size: tuple[int, int] | None = None
    """RetinaNet's: images are scaled so that the shorter side has the first number of pixels, and the longer one not more than the second; null: [800, 1333]."""
    anchors: list[float] | None = Field(default=None, min_length=5, max_length=5)
    """RetinaNet's anchors: their sides in pixels of the scaled image, one for each of five levels; null: 32, 64, 128, 256, 512."""
    ratios: list[float] | None = Field(default=None, min_length=1)
    """Height by width of RetinaNet's anchors; null: .5, 1, 2. Cells are round, and [1.0] is often enough."""
    detections: int = Field(default=300, ge=1)
    """Most cells an image, or a window of one."""
    nms: float = Field(default=0.5, gt=0, lt=1)
    """Boxes of one type that overlap by more (IoU) are one cell."""

    @model_validator(mode="after")
    def _sizes_make_sense(self) -> Detector:
        shorter, longer = self.input_size or _INPUT
        if not 64 <= shorter <= longer:
            raise ValueError("input_size: [shorter, longer], the shorter at least 64")
        if any(size <= 0 for size in self.anchors or ()) or any(ratio <= 0 for ratio in self.ratios or ()):
            raise ValueError("anchors and ratios are larger than 0")
        if self.network.startswith("ssd") and (self.anchors or self.ratios or self.input_size):
            raise ValueError(
                f"{self.network} has anchors and an input of its own; leave anchors, ratios and input_size out"
            )
        return self


def build(settings: Detector, types: int, seed: int) -> nn.Module:
    """Return a detector of so many types, its weights random by the seed.

    In training it takes images (float32 [3, H, W], 0 to 1) and targets (``boxes`` float32 [n, 4], ``labels`` int64 [n] from 1) and
    returns its losses; else it returns ``boxes``, ``scores`` and ``labels`` an image.
    """
    torch.manual_seed(seed)
    own: dict[str, Any] = {"detections_per_img": settings.detections, "nms_thresh": settings.nms}
    if settings.network == "ssd300_vgg16":
        return ssd300_vgg16(weights=None, weights_backbone=None, num_classes=types + 1, **own)
    if settings.network == "ssdlite320_mobilenet_v3":
        return ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=types + 1, **own
        )
    backbone = _resnet() if settings.network == "retinanet_resnet50_fpn" else _vgg()
    shorter, longer = settings.input_size or _INPUT
    generator = _anchors(settings.anchors or (32, 64, 128, 256, 512), settings.ratios or (0.5, 1, 2))
    return RetinaNet(
        backbone, types + 1, min_size=shorter, max_size=longer, anchor_generator=generator, **own
    )


def _resnet() -> BackboneWithFPN:
    return _pyramid(resnet50(weights=None), _RESNET_STAGES)


def _vgg() -> BackboneWithFPN:
    return _pyramid(vgg16(weights=None).features, _VGG_STAGES)


def _pyramid(body: nn.Module, stages: dict[str, int]) -> BackboneWithFPN:
    names = {name: str(i) for i, name in enumerate(stages)}
    channels = list(stages.values())
    blocks = LastLevelP6P7(_CHANNELS, _CHANNELS)
    return BackboneWithFPN(body, names, channels, _CHANNELS, extra_blocks=blocks)


def _anchors(sides: Sequence[float], ratios: Sequence[float]) -> AnchorGenerator:
    # Three sizes a level, a third of an octave apart (Lin 2017).
    sizes = tuple(tuple(side * 2 ** (third / 3) for third in range(3)) for side in sides)
    return AnchorGenerator(sizes, (tuple(ratios),) * len(sizes))
