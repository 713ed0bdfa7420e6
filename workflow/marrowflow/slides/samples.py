"""Bags drawn one after the other, and the loss that they are trained by.

A fold whose bags are small enough lies on the device whole. Of any other, a bag's features are read from the disk and moved
while the bag before is worked on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import nn

from marrowflow.cli import progress
from marrowflow.config import Training
from marrowflow.learning.outcomes import Criterion, Outcomes
from marrowflow.slides.aggregators import BagNetwork, instance_loss
from marrowflow.slides.bags import Bags

RESIDENT_SHARE = 0.4
"""Bags stay on a GPU when they take at most this share of its free memory."""
RESIDENT_HOST = 2e9
"""Bytes of bags that stay in the computer's own memory where there is no GPU; as float32 they are twice their files."""
_AHEAD = 2


class Batch(tuple[list[torch.Tensor], torch.Tensor]):
    """Some bags and their classes: a list of float32 [n, F], and int64 [bags]."""

    __slots__ = ()

    def tensor_split(self, parts: int) -> list[Batch]:
        """Divide the bags into parts of nearly equal number, as `torch.Tensor.tensor_split` divides rows."""
        bags, truths = self
        places = np.array_split(np.arange(len(bags)), parts)
        return [Batch(([bags[i] for i in place], truths[place[0] : place[-1] + 1])) for place in places]


class BagSamples:
    """Bags with their classes (a `marrowflow.learning.loop.Samples`).

    Parameters
    ----------
    bags
        Where they lie.
    case_ids
        The slides; each has a tile at least.
    targets
        int64 [bags]: class numbers.
    device
        Where they are wanted.
    within
        Take only the tiles in a slide's region, where it has one.
    """

    def __init__(
        self, bags: Bags, case_ids: Sequence[str], targets: np.ndarray, device: torch.device, within: bool
    ) -> None:
        self.targets = torch.from_numpy(np.array(targets, np.int64)).to(device)
        self._bags, self._case_ids, self._device = bags, list(case_ids), device
        # Which tiles of each bag; None takes them all.
        self._inside = [bags.within_region(case) if within else None for case in self._case_ids]
        tiles = bags.counts(self._case_ids) if not within else [len(i) for i in self._inside if i is not None]
        size = 4 * int(np.sum(tiles)) * bags.features
        room = RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else RESIDENT_HOST
        self._resident: list[torch.Tensor] | None = None
        if size <= room:
            self._resident = [self._moved(i).float() for i in range(len(self._case_ids))]

    def __len__(self) -> int:
        return len(self._case_ids)

    def case_ids(self, chosen: np.ndarray) -> list[str]:
        """Return the slides' ids by their sample numbers."""
        return [self._case_ids[i] for i in chosen]

    def batches(self, chunks: Sequence[np.ndarray], title: str = "") -> Iterator[tuple[Batch, torch.Tensor]]:
        """Yield bags and classes of each chunk of sample numbers; with a title, progress of that name."""
        drawn = self._drawn([int(i) for chunk in chunks for i in chunk])
        for chunk in progress(chunks, title, len(chunks), "bags") if title else chunks:
            truths = self.targets[torch.from_numpy(np.asarray(chunk))]
            yield Batch(([next(drawn) for _ in chunk], truths)), truths

    def _drawn(self, numbers: Sequence[int]) -> Iterator[torch.Tensor]:
        """Yield bags in order, some read ahead by a thread."""
        if self._resident is not None:
            for i in numbers:
                yield self._resident[i]
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            following = iter(numbers)
            waiting: deque[Future[torch.Tensor]] = deque(
                reader.submit(self._moved, i) for i in islice(following, _AHEAD)
            )
            while waiting:
                found = waiting.popleft().result()
                waiting.extend(reader.submit(self._moved, i) for i in islice(following, 1))
                yield found.float()

    def _moved(self, number: int) -> torch.Tensor:
        # As float16: half of the way; made float32 where it is used.
        return torch.from_numpy(self._read(number)).to(self._device)

    def _read(self, number: int) -> np.ndarray:
        features, inside = self._bags.features_of(self._case_ids[number]), self._inside[number]
        return np.array(features) if inside is None or len(inside) == len(features) else features[inside]


class BagTrainee(nn.Module):
    """A bag's network as the training loop sees it: batches of bags to rows of logits.

    While it trains, a last column is each bag's instance loss, 0 for bags of one tile.

    Parameters
    ----------
    network
        What is trained.
    most
        Tiles on either side of the instance clustering; 0 for networks that do not cluster.
    """

    def __init__(self, network: BagNetwork, most: int) -> None:
        super().__init__()
        self.network, self._most = network, most

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return float32 [bags, C], or [bags, C + 1] while training a network that clusters."""
        bags, truths = batch
        return torch.stack([self._one(bag, truth) for bag, truth in zip(bags, truths, strict=True)])

    def _one(self, bag: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        answer = self.network(bag)
        if not self.training or not self._most:
            return answer.logits
        loss = instance_loss(self.network, answer, truth, self._most)
        own = answer.logits.new_zeros(1) if loss is None else loss.reshape(1)
        return torch.cat([answer.logits, own.to(answer.logits)])


class BagCriterion(Criterion):
    """The loss of bags. Its mean is over their number, with class weights whose mean over the training bags is 1.

    Images' losses are divided by the weights of their batch. Of a step that holds a single bag its weight would cancel, and no
    class would weigh more than another.
    """

    def __init__(self, outcomes: Outcomes, targets: torch.Tensor, training: Training) -> None:
        super().__init__(outcomes, targets, training)
        self._weights = self._weights / self._weights[targets].mean()

    def totals(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the number of bags, [1]."""
        return torch.full_like(self._weights[:1], len(targets))


class ClusteringCriterion(BagCriterion):
    """The weighted sum of a bag's own loss and of its instance clustering.

    Parameters
    ----------
    outcomes, targets, training
        As of `Criterion`.
    bag_weight
        Of the bag's own loss; the rest is the clustering's.
    """

    def __init__(
        self, outcomes: Outcomes, targets: torch.Tensor, training: Training, bag_weight: float
    ) -> None:
        super().__init__(outcomes, targets, training)
        self._shares = torch.tensor([bag_weight, 1 - bag_weight], device=self.device)

    @property
    def heads(self) -> int:
        """Two: the bags' own loss, and the clustering."""
        return 2

    def sums(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return both losses, summed over the bags: [2]; the last column of the logits is the clustering's."""
        return torch.cat([super().sums(logits[:, :-1], targets), logits[:, -1:].sum(dim=0)])

    def totals(self, targets: torch.Tensor) -> torch.Tensor:
        """Return what each sum is divided by, [2]: the number of bags."""
        return super().totals(targets).repeat(2)

    def right(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return how many diagnoses are right."""
        return super().right(logits[:, :-1], targets)
