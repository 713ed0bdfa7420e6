"""Networks by name, with their starting weights and what their input must look like.

A network is any that timm knows, with or without a tag of its weights, ``torchvision/squeezenet1_1``, or
one of bt5153's. Whatever it is, it has timm's three methods: ``forward_features``,
``forward_head(…, pre_logits=True)`` and ``get_classifier``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import timm
import torch
from timm.data import resolve_data_config
from torch import nn

from marrowflow.config import Model
from marrowflow.errors import UserError
from marrowflow.learning.marrow_networks import BASES, MARROW_NETWORKS, PretrainedWithHead, marrow_network
from marrowflow.learning.matching import load_all_but_head
from marrowflow.learning.pretrained import starting_weights
from marrowflow.learning.squeezenet import SQUEEZENET, SqueezeNet

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Backbone:
    """A network ready to be trained or to predict.

    Attributes
    ----------
    module
        The network; maps float32 [n, 3, side, side] to logits [n, outputs].
    network
        Its name, as in the configuration.
    input_size
        Side of its input in pixels.
    mean, std
        Of R, G, B on the scale 0..1: the input is (pixel / 255 - mean) / std.
    head
        Names of the parameters that start anew when weights are given: the last layer's, or those of a head of
        several layers.
    source
        Where its weights come from, in words.
    sha256
        Of the file of weights, or of the downloaded tensors; empty for random weights.
    licence
        Of the weights, "not stated" where nobody states one; empty for random weights.
    """

    module: nn.Module
    network: str
    input_size: int
    mean: Triple
    std: Triple
    head: tuple[str, ...]
    source: str
    sha256: str
    licence: str


class OneVsRest(nn.ModuleList):
    """Networks of one logit each, one a class, that answer as one network."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits side by side in the order of the networks: [n, networks]."""
        return torch.cat([network(images) for network in self], dim=1)


def build(model: Model, outputs: int, seed: int) -> Backbone:
    """Build a network with the weights that the configuration names and a new last layer.

    Parameters
    ----------
    model
        The configuration's section.
    outputs
        Number of logits.
    seed
        Of all random initial weights.

    Raises
    ------
    UserError
        Unknown network or tag; weights that are missing, cannot be had, or do not match; an input size that
        the network cannot take.
    """
    _refuse_unknown(model.network)
    weights = None if model.mode == "scratch" else starting_weights(model, _published(model.network))
    torch.manual_seed(seed)
    module, native, mean, std = _create(model.network, outputs, model.training.dropout, model.profile)
    size = model.input_size or native
    _set_input_size(module, model.network, size, native)
    head = _head_names(module)
    if weights is None:
        return Backbone(module, model.network, size, mean, std, head, "random", "", "")
    trunk = _trunk(module)
    load_all_but_head(trunk, weights.state, head if trunk is module else (), weights.source)
    _empty_last_layer(module)
    return Backbone(
        module, model.network, size, mean, std, head, weights.source, weights.sha256, weights.licence
    )


def rebuild(network: str, outputs: int, input_size: int, profile: str = "corrected") -> nn.Module:
    """Return the bare network that `build` would return, for the state of a trained one to be loaded."""
    _refuse_unknown(network)
    module, native, _, _ = _create(network, outputs, 0.0, profile)
    _set_input_size(module, network, input_size, native)
    return module


def parameter_counts(backbone: Backbone, mode: str) -> dict[str, int]:
    """Return how many parameters there are in all, and how many the training changes."""
    sizes = {name: p.numel() for name, p in backbone.module.named_parameters()}
    trained = [n for name, n in sizes.items() if mode != "frozen" or name in backbone.head]
    return {"total": sum(sizes.values()), "trainable": sum(trained)}


def _refuse_unknown(network: str) -> None:
    if network == SQUEEZENET or network in MARROW_NETWORKS:
        return
    if not timm.is_model(network):
        known = [*timm.list_models(), SQUEEZENET, *MARROW_NETWORKS]
        near = difflib.get_close_matches(network, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"network {network!r} is not one that timm {timm.__version__} knows{hint}")
    try:
        timm.get_pretrained_cfg(network)
    except RuntimeError as error:
        architecture, _, tag = network.partition(".")
        tags = [name.partition(".")[2] for name in timm.list_models(f"{architecture}.*", pretrained=True)]
        raise UserError(
            f"network {network!r}: timm {timm.__version__} knows no weights {tag!r} of {architecture}, only "
            f"{', '.join(tags) or 'none'}"
        ) from error


def _published(network: str) -> str | None:
    """Return the network whose published weights a network starts from; None where there are none."""
    if network in MARROW_NETWORKS:
        return BASES.get(network)
    return network


def _create(
    network: str, outputs: int, dropout: float, profile: str
) -> tuple[nn.Module, int, Triple, Triple]:
    """Return a network with random weights, the side of its usual input, and its mean and deviation."""
    if network == SQUEEZENET:
        return SqueezeNet(outputs, dropout), 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if network in MARROW_NETWORKS:
        built = marrow_network(network, outputs, dropout, profile)
        return built.module, built.input_size, built.mean, built.std
    module = timm.create_model(network, num_classes=outputs, drop_rate=dropout)
    data = resolve_data_config({}, model=module)
    return module, data["input_size"][-1], data["mean"], data["std"]


def _trunk(module: nn.Module) -> nn.Module:
    """Return the part of a network that weights are given for."""
    return module.base if isinstance(module, PretrainedWithHead) else module


def _set_input_size(module: nn.Module, network: str, size: int, native: int) -> None:
    trunk = _trunk(module)
    if size == native or not getattr(trunk, "pretrained_cfg", {}).get("fixed_input_size", False):
        return
    if not hasattr(trunk, "set_input_size"):
        raise UserError(
            f"{network} takes images of {native}×{native} only; leave the model's input_size: out"
        )
    trunk.set_input_size(img_size=(size, size))  # type: ignore[operator]


def _last_layers(module: nn.Module) -> tuple[nn.Module, ...]:
    last = module.get_classifier()  # type: ignore[operator]
    return last if isinstance(last, tuple) else (last,)  # a distilled transformer has two


def _head_names(module: nn.Module) -> tuple[str, ...]:
    own = {id(p) for layer in _last_layers(module) for p in layer.parameters()}
    return tuple(name for name, p in module.named_parameters() if id(p) in own)


def _empty_last_layer(module: nn.Module) -> None:
    """Start a new last layer on trained features from zero (Kolesnikov et al. 2020, Big Transfer, section 3.3).

    The networks' own random starts differ by more than tenfold in size; a large one takes epochs to unlearn.
    In a head of several layers only the last one does: behind a layer of zeros nothing would learn.
    """
    for layer in _last_layers(module):
        for parameter in (layer[-1] if isinstance(layer, nn.Sequential) else layer).parameters():
            nn.init.zeros_(parameter)
