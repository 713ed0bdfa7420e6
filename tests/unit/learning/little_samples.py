"""Points of three classes in five dimensions, and a linear network: a training in milliseconds."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

CLASSES = ["healthy", "MDS", "AML"]


@dataclass(frozen=True)
class Points:
    """What the loop draws from: inputs float32 [n, 5] and class numbers int64 [n]."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self):
        return len(self.inputs)

    def batches(self, chunks, title=""):
        for chosen in map(torch.from_numpy, chunks):
            yield self.inputs[chosen], self.targets[chosen]

    def case_ids(self, chosen: np.ndarray) -> list[str]:
        return [f"a/{i:03}.png" for i in chosen]


def points(n: int, seed: int) -> Points:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, len(CLASSES), (n,), generator=generator)
    return Points(torch.randn(n, 5, generator=generator) + targets[:, None], targets)


def network(outputs: int = len(CLASSES)) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, outputs)
