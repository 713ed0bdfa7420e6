"""Where a network looked: Grad-CAM of the last feature maps, and how alike two maps are.

Selvaraju et al. 2017 (ICCV), section 3: y is the logit of the class that is explained, before any softmax, and A_k the
k-th of the feature maps, on a grid of Z places. Then

    α_k = (1/Z) Σ_ij ∂y/∂A_kij        (equation 1)
    L   = ReLU(Σ_k α_k A_k)           (equation 2)

is large where the maps speak for the class, and 0 where they speak against it or not at all. The maps taken are the
network's last ones, in front of its pooling:

- of a convolutional network, and of a transformer that averages its tokens, what ``forward_features`` returns;
- of a transformer that reads its answer off one token, the tokens that its last block attends to: that is the last
  layer at which the places of the image still have a say. Tokens are put back on their grid; the class token and
  registers have no place on it and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import interpolate

from marrowflow.learning.marrow_networks import PretrainedWithHead

FEATURE_MAPS = "Grad-CAM at the last feature maps"
TOKENS = "Grad-CAM at the tokens that the last block attends to"


class NoMapError(Exception):
    """The network has no feature maps that its answer is made of; the message says what it has instead."""


@dataclass(frozen=True)
class Saliency:
    """Maps of images: float32 [n, h, w], 0 or more, on the network's own grid; and how they were made."""

    maps: torch.Tensor
    method: str


def grad_cam(module: nn.Module, inputs: torch.Tensor, outputs: torch.Tensor) -> Saliency:
    """Return the Grad-CAM of each image for one of the network's logits.

    Parameters
    ----------
    module
        A network in evaluation mode, with timm's ``forward_features`` and ``forward_head``.
    inputs
        float32 [n, 3, side, side], prepared for it.
    outputs
        int64 [n]: which logit is explained, image by image.

    Raises
    ------
    NoMapError
        The network has no such feature maps, or maps of a single place.
    """
    trunk = module.base if isinstance(module, PretrainedWithHead) else module
    token = getattr(trunk, "global_pool", "") == "token"
    with torch.enable_grad():
        features, logits = _by_tokens(module, trunk, inputs) if token else _by_features(module, inputs)
        # Images do not mix in evaluation mode: the gradient of the sum holds each image's own.
        (slopes,) = torch.autograd.grad(logits.gather(1, outputs[:, None]).sum(), features)
    places = [_on_grid(t, trunk) for t in (features.detach(), slopes)]
    weights = places[1].mean(dim=(2, 3), keepdim=True)
    maps = (weights * places[0]).sum(dim=1).relu()
    return Saliency(maps.float(), TOKENS if token else FEATURE_MAPS)


def enlarged(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Return maps of ``side`` × ``side``, each divided by its largest value; a map of zeros stays one.

    Parameters
    ----------
    maps
        float [n, h, w], 0 or more.
    """
    large = interpolate(maps[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]
    peak = large.amax(dim=(1, 2), keepdim=True)
    return torch.where(peak > 0, large / peak, torch.zeros_like(large))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation over all places of two maps; NaN where one of them is flat."""
    ranks = [pd.Series(np.ravel(a)).rank().to_numpy() for a in (first, second)]
    if any(np.ptp(r) == 0 for r in ranks):
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def _by_features(module: Any, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        features = module.forward_features(inputs)
    if not isinstance(features, torch.Tensor):
        raise NoMapError("its features are of several grids")
    features = features.detach().requires_grad_()
    # A copy: some heads change in place what they are given.
    return features, module.forward_head(features.clone())


def _by_tokens(
    module: nn.Module, trunk: nn.Module, inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    blocks = getattr(trunk, "blocks", None)
    norm = getattr(blocks[-1], "norm1", None) if isinstance(blocks, nn.Sequential | nn.ModuleList) else None
    if not isinstance(norm, nn.Module):
        raise NoMapError("its answer is read off one token, and its last block is of no known kind")
    taken: list[torch.Tensor] = []

    def take(_: nn.Module, __: Any, tokens: torch.Tensor) -> torch.Tensor:
        taken.append(tokens.detach().requires_grad_())
        return taken[-1]

    hook = norm.register_forward_hook(take)
    try:
        logits = module(inputs)
    finally:
        hook.remove()
    tokens = taken[0]
    if tokens.ndim == 3 and isqrt(tokens.shape[1]) ** 2 == tokens.shape[1]:
        raise NoMapError("the token that its answer is read off joins the others behind its last block")
    return tokens, logits


def _on_grid(features: torch.Tensor, trunk: nn.Module) -> torch.Tensor:
    """Return features as [n, c, h, w]; inputs are square, and so is their grid."""
    if features.ndim == 3:
        side = isqrt(features.shape[1])
        extra = features.shape[1] - side**2
        if extra not in (0, getattr(trunk, "num_prefix_tokens", 0)):
            raise NoMapError(f"its {features.shape[1]} tokens are of no square grid")
        features = features[:, extra:].transpose(1, 2).unflatten(2, (side, side))
    elif features.ndim != 4:
        raise NoMapError("its features have no places")
    elif getattr(trunk, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    if features.shape[2] * features.shape[3] == 1:
        raise NoMapError("its last feature maps are of one place, the whole image; give it larger images")
    return features
