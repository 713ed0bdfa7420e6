"""torchvision's SqueezeNet 1.1, with timm's methods and a last layer that can be trained anew."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

SQUEEZENET = "torchvision/squeezenet1_1"


class SqueezeNet(nn.Module):
    """torchvision's SqueezeNet 1.1 with a linear last layer after the pooling.

    The published network (Iandola et al. 2016) puts a 1×1 convolution and a ReLU before the pooling;
    the ReLU would cut off negative logits, and with it a new last layer may never start to learn.
    """

    def __init__(self, outputs: int, dropout: float) -> None:
        from torchvision.models import squeezenet1_1  # slow to import, and only this network needs it

        super().__init__()
        self.features = squeezenet1_1(weights=None).features
        # Named as torchvision's, so that the last layer of a file of weights is known as one.
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, outputs))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, [n, 512, h, w]."""
        return cast(torch.Tensor, self.features(images))

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return the pooled features [n, 512], or the logits [n, outputs]."""
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.classifier(pooled)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classifier[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.forward_head(self.forward_features(images))
