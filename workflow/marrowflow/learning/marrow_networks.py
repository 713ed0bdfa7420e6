"""The networks of the study bt5153 (lineages of bone-marrow cells), built as Keras would build them.

- ``bt5153/cnn``: an Xception-like network (Chollet 2017), trained from random weights;
- ``bt5153/pre_cnn1`` and ``bt5153/pre_cnn2``: Inception-V3 (Szegedy et al. 2016) with one or two convolutions
  on its features;
- ``bt5153/vit``: ViT-B/32 (Dosovitskiy et al. 2021) on images of 128×128 with a small dense head.

Two profiles. ``as_published`` feeds the pretrained parts levels of 0-255, as the study did: its ViT was
given unscaled images, and its rescaling by 1/255 stands behind Inception, where it scales the features.
``corrected`` feeds them what they were trained on, levels scaled to -1..1. The Xception-like network is
given levels scaled to 0..1 in both.

The study used Keras: batch normalisation has ε = 1e-3 and keeps .99 of its running statistics (.9 in the profile
``corrected``: after a few hundred steps statistics that are kept for so long are still those of the start, and a network that
has learnt well answers one class for all), weights
start from Glorot's uniform distribution and biases from 0, and a stride of 2 pads an even side at its
far end only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, cast

import timm
import torch
from timm.data import resolve_data_config
from timm.layers import Conv2dSame, create_pool2d
from torch import nn

CNN = "bt5153/cnn"
PRE_CNN1 = "bt5153/pre_cnn1"
PRE_CNN2 = "bt5153/pre_cnn2"
VIT = "bt5153/vit"

BASES = {PRE_CNN1: "inception_v3.tf_in1k", PRE_CNN2: "inception_v3.tf_in1k", VIT: "vit_base_patch32_224"}
"""The pretrained networks that these stand on, as timm names them; Keras's Inception weights are TensorFlow's."""
MARROW_NETWORKS = (CNN, PRE_CNN1, PRE_CNN2, VIT)

Triple = tuple[float, float, float]
Layers = TypeVar("Layers", bound=nn.Module)
_LEVELS: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
_SCALED: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class MarrowNetwork:
    """A network of the study, with random weights.

    Attributes
    ----------
    module
        With timm's ``forward_features``, ``forward_head`` and ``get_classifier``; the pretrained part, where
        there is one, is its ``base``.
    input_size
        Side of the study's images in pixels.
    mean, std
        Of R, G, B on the scale 0..1: the input is (pixel / 255 - mean) / std. Levels of 0-255 are mean 0 and
        std 1/255.
    """

    module: nn.Module
    input_size: int
    mean: Triple
    std: Triple


def marrow_network(network: str, outputs: int, dropout: float, profile: str) -> MarrowNetwork:
    """Return one of `MARROW_NETWORKS`.

    Parameters
    ----------
    network
        Its name.
    outputs
        Number of logits.
    dropout
        Before the last layer; the study's Xception-like network has .5.
    profile
        ``as_published`` or ``corrected``.
    """
    if network == CNN:
        return MarrowNetwork(_kept(XceptionLike(outputs, dropout), profile), 250, *_SCALED)
    published = profile == "as_published"
    base: Any
    if network == VIT:
        base = timm.create_model(BASES[network], num_classes=0, img_size=128)
        module = PretrainedWithHead(base, _kept(dense_head(base.num_features, outputs, dropout), profile))
        size = 128
    else:
        base = timm.create_model(BASES[network], num_classes=0)
        head = convolution_head(base.num_features, outputs, dropout, 1 if network == PRE_CNN1 else 2)
        module = PretrainedWithHead(base, _kept(head, profile), scale=1 / 255 if published else 1.0)
        size = 250
    trained_on = resolve_data_config({}, model=base)
    mean, std = _LEVELS if published else (trained_on["mean"], trained_on["std"])
    return MarrowNetwork(module, size, mean, std)


class SeparableConvolution(nn.Sequential):
    """A 3×3 convolution of each channel by itself, without bias, then a 1×1 convolution of all, with one."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__(
            nn.Conv2d(given, given, 3, padding=1, groups=given, bias=False), nn.Conv2d(given, made, 1)
        )


class SeparableBlock(nn.Module):
    """Two separable convolutions and a max-pooling that halves the map, beside a 1×1 convolution of stride 2."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.separable = nn.Sequential(
            nn.ReLU(),
            SeparableConvolution(given, made),
            _normalisation(made),
            nn.ReLU(),
            SeparableConvolution(made, made),
            _normalisation(made),
            create_pool2d("max", 3, stride=2, padding="same"),
        )
        self.residual = nn.Conv2d(given, made, 1, stride=2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map [n, given, h, w] to [n, made, ⌈h/2⌉, ⌈w/2⌉]."""
        return cast(torch.Tensor, self.separable(features) + self.residual(features))


class XceptionLike(nn.Module):
    """The study's own network: a stem, four separable blocks with residuals, a separable convolution, a dense layer.

    With five outputs it has the study's 2,786,749 parameters as Keras counts them, running statistics of the
    normalisations among them, of which 2,778,013 are trained. Parameters do not tell the stride of the stem's
    second convolution, and the study's text can be read both ways; it is 1 here, as in Xception's entry flow
    (Chollet 2017, figure 5). A side of 250 becomes 125, 63, 32, 16, 8.
    """

    def __init__(self, outputs: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv2dSame(3, 32, 3, stride=2),
            _normalisation(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            _normalisation(64),
            nn.ReLU(),
        )
        widths = (64, 128, 256, 512, 728)
        self.blocks = nn.Sequential(*(SeparableBlock(given, made) for given, made in pairwise(widths)))
        self.last = nn.Sequential(SeparableConvolution(728, 1024), _normalisation(1024), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(1024, outputs)
        start_as_keras(self)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, [n, 1024, h, w]."""
        return cast(torch.Tensor, self.last(self.blocks(self.stem(images))))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return the pooled features [n, 1024], or the logits [n, outputs]."""
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.classifier(self.dropout(pooled))

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.forward_head(self.forward_features(images))


class ClassToken(nn.Module):
    """The first of a transformer's tokens, which stands for the whole image."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map [n, tokens, c] to [n, c]."""
        return tokens[:, 0]


class PretrainedWithHead(nn.Module):
    """A pretrained network without its last layer, and a new head of several layers.

    Parameters
    ----------
    base
        timm's, built with ``num_classes=0``.
    head
        Layers of which the last is the dense one that answers.
    scale
        Of the base's features before the head.
    """

    def __init__(self, base: nn.Module, head: nn.Sequential, scale: float = 1.0) -> None:
        super().__init__()
        self.base = base
        self.head = head
        self.scale = scale
        start_as_keras(head)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the base's features: a map [n, c, h, w], or [n, tokens, c] of a transformer."""
        return self.base.forward_features(images) * self.scale  # type: ignore[operator]

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return what the last dense layer sees, [n, features], or the logits [n, outputs]."""
        before = self.head[:-1](features)
        return before if pre_logits else self.head[-1](before)

    def get_classifier(self) -> nn.Module:
        """Return the whole head: all of it is new."""
        return self.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.forward_head(self.forward_features(images))


def convolution_head(given: int, outputs: int, dropout: float, convolutions: int) -> nn.Sequential:
    """Return the head of Pre-CNN1 (one convolution) or Pre-CNN2 (two) on Inception-V3's map of 2,048 channels.

    The study is known to have put "a small convolutional head" on Inception-V3; its layers and its number of
    parameters are not in our sources, so these could not be checked and are our reading: 3×3 convolutions of
    128 channels, each with normalisation and ReLU, mean over the map, dropout, dense. With five outputs that
    is 2,360,581 parameters with one convolution and 2,508,677 with two, running statistics counted.
    """
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(given, 128, 3, padding=1), _normalisation(128), nn.ReLU()]
        given = 128
    pooling = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pooling, nn.Dropout(dropout), nn.Linear(given, outputs))


def dense_head(given: int, outputs: int, dropout: float) -> nn.Sequential:
    """Return the head on ViT's class token: normalisation, 11 units with GELU, normalisation, dropout, dense.

    Assumed: the study does not describe it, and this is the head of the recipe that the Keras port of ViT
    is widely used with.
    """
    return nn.Sequential(
        ClassToken(),
        nn.BatchNorm1d(given, eps=1e-3, momentum=0.01),
        nn.Linear(given, 11),
        nn.GELU(),
        nn.BatchNorm1d(11, eps=1e-3, momentum=0.01),
        nn.Dropout(dropout),
        nn.Linear(11, outputs),
    )


def start_as_keras(module: nn.Module) -> None:
    """Draw all convolutions and dense layers from Glorot's uniform distribution and set their biases to 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _kept(new: Layers, profile: str) -> Layers:
    """Let the batch normalisation of new layers follow a short training too, unless they are as published."""
    for layer in new.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and profile == "corrected":
            layer.momentum = 0.1
    return new


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
