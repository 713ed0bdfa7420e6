"""What a network's outputs mean: which questions it is asked, how its answers are scored, and what they say.

A network answers in one of three ways:

classes told apart
    K logits, softmax; the loss is the cross-entropy.
one class against the rest
    One logit, sigmoid; the loss is the binary cross-entropy. One-vs-rest is K such networks, and their
    K logits side by side are read as one answer.
several heads
    The classes and yes/no endpoints at once, the heads in the order of their names; the loss is the
    weighted sum of the heads' mean cross-entropies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from marrowflow.config import DIAGNOSIS, Head, Training

ClassWeights = Literal["none", "balanced"] | Mapping[str, float]


@dataclass(frozen=True)
class Outcomes:
    """What the outputs of a model's network or networks mean.

    Attributes
    ----------
    classes
        Names, in the order of the class numbers.
    head
        As in the configuration's model.
    heads
        Heads by name, `diagnosis` among them; empty for the classes alone.
    positive_class
        One-vs-rest: the class that one network tells from the rest; empty for all K networks together,
        and for every other model.
    """

    classes: Sequence[str]
    head: Literal["softmax", "one_vs_rest"] = "softmax"
    heads: Mapping[str, Head] = field(default_factory=dict)
    positive_class: str = ""

    def networks(self) -> list[Outcomes]:
        """Return the outcomes of each network that is trained: one a class in one-vs-rest, else one."""
        if self.head == "softmax" or self.positive_class:
            return [self]
        return [replace(self, positive_class=name) for name in self.classes]

    @property
    def outputs(self) -> int:
        """Number of logits."""
        if self.positive_class:
            return 1
        return len(self.classes) + sum(name != DIAGNOSIS for name in self.heads)

    def places(self) -> dict[str, slice]:
        """Return which logits are each head's, by its name in the order of the logits."""
        places: dict[str, slice] = {}
        start = 0
        for name in sorted(self.heads) or [DIAGNOSIS]:
            width = (1 if self.positive_class else len(self.classes)) if name == DIAGNOSIS else 1
            places[name] = slice(start, start + width)
            start += width
        return places

    def groups(self, targets: torch.Tensor) -> torch.Tensor:
        """Return what the network is to tell apart: the class numbers, or 1 for the class asked for and else 0."""
        return (targets == self._number).long() if self.positive_class else targets

    def answers(self, logits: torch.Tensor) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return probabilities of the classes and of the endpoints with a head of their own.

        Parameters
        ----------
        logits
            [n, outputs] of any floating type, on any device; of one-vs-rest [n, K], one network's a column.

        Returns
        -------
        numpy.ndarray
            float64 [n, K]: rows sum to 1, but in one-vs-rest, where each class has its own probability.
        dict
            float64 [n] by the endpoint's name.
        """
        heads = {name: logits[:, place].double() for name, place in self.places().items()}
        diagnosis = heads.pop(DIAGNOSIS)
        classes = diagnosis.sigmoid() if self.head == "one_vs_rest" else diagnosis.softmax(dim=1)
        endpoints = {name: logit[:, 0].sigmoid().cpu().numpy() for name, logit in heads.items()}
        return classes.cpu().numpy(), endpoints

    def class_weights(self, targets: torch.Tensor, rule: ClassWeights) -> torch.Tensor:
        """Return the weight of an image of each class in the diagnosis: float32 [K] on the targets' device.

        Parameters
        ----------
        targets
            int64 [n]: class numbers of the training images.
        rule
            none: 1. balanced: n / (groups present × n of the group) as in scikit-learn's compute_class_weight, where
            the groups are the classes, or in one network of one-vs-rest the class asked for and the rest.
            Or numbers by class name, 1 for those not named.

        Notes
        -----
        A group without training images weighs 1: it has a loss in validation only, and weight 0 would hide it.
        """
        if not isinstance(rule, str):
            return torch.tensor([rule.get(name, 1.0) for name in self.classes], device=targets.device)
        numbers = torch.arange(len(self.classes), device=targets.device)
        if rule == "none":
            return torch.ones_like(numbers, dtype=torch.float32)
        counts = torch.bincount(self.groups(targets), minlength=len(self.classes)).float()
        balanced = counts.sum() / ((counts > 0).sum() * counts)
        return torch.where(counts > 0, balanced, torch.ones_like(counts))[self.groups(numbers)]

    def criterion(self, targets: torch.Tensor, training: Training) -> Criterion:
        """Return the loss of a training on images of these classes (int64 [n], class numbers)."""
        return Criterion(self, targets, training)

    @property
    def _number(self) -> int:
        return list(self.classes).index(self.positive_class)


class Criterion:
    """The loss of a network, in sums that add up over parts of a batch and over batches.

    A head's mean loss is its sum (`sums`) over its total (`totals`). Everything stays on the device, and nothing
    waits for it.

    Parameters
    ----------
    outcomes
        What the network's outputs mean.
    targets
        int64 [n]: class numbers of the training images, on the device.
    training
        Class weights and label smoothing act on the diagnosis alone.

    Attributes
    ----------
    device
        The targets'.
    """

    def __init__(self, outcomes: Outcomes, targets: torch.Tensor, training: Training) -> None:
        self.device = device = targets.device
        self._outcomes, self._places = outcomes, outcomes.places()
        self._weights = outcomes.class_weights(targets, training.class_weights)
        self._smoothing = training.label_smoothing
        shares = [outcomes.heads[name].weight if outcomes.heads else 1.0 for name in self._places]
        self._shares = torch.tensor(shares, device=device)
        self._present = {
            name: torch.tensor([c in (head.positive or ()) for c in outcomes.classes], device=device).float()
            for name, head in outcomes.heads.items()
        }

    @property
    def heads(self) -> int:
        """Number of heads."""
        return len(self._places)

    def sums(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return each head's loss, summed over the images: [heads].

        Parameters
        ----------
        logits
            float32 [n, outputs].
        targets
            int64 [n]: class numbers.
        """
        return torch.stack(
            [
                self._diagnosis(logits[:, place], targets)
                if name == DIAGNOSIS
                else binary_cross_entropy_with_logits(
                    logits[:, place][:, 0], self._present[name][targets], reduction="sum"
                )
                for name, place in self._places.items()
            ]
        )

    def totals(self, targets: torch.Tensor) -> torch.Tensor:
        """Return what each head's sum is divided by, [heads]: the images' weights, or their number."""
        weighted = self._weights[targets].sum()
        number = torch.full_like(weighted, len(targets))
        return torch.stack([weighted if name == DIAGNOSIS else number for name in self._places])

    def combined(self, sums: torch.Tensor, totals: torch.Tensor) -> torch.Tensor:
        """Return the loss: the heads' mean losses by their weights, summed."""
        return (self._shares * sums / totals).sum()

    def right(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return how many diagnoses are right, or how many yes/no answers of one class's network."""
        diagnosis = logits[:, self._places[DIAGNOSIS]]
        said = (diagnosis[:, 0] > 0).long() if self._outcomes.positive_class else diagnosis.argmax(dim=1)
        return (said == self._outcomes.groups(targets)).sum()

    def _diagnosis(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if not self._outcomes.positive_class:
            return cross_entropy(
                logits, targets, self._weights, reduction="sum", label_smoothing=self._smoothing
            )
        # Smoothing spreads the share over both answers, as cross_entropy does over all classes.
        wanted = self._outcomes.groups(targets) * (1 - self._smoothing) + self._smoothing / 2
        return binary_cross_entropy_with_logits(logits[:, 0], wanted, self._weights[targets], reduction="sum")
