"""Networks that answer for a slide from the features of its tiles, written from the published equations.

With n tiles of F features, C classes, hidden width H and attention width A, and σ the logistic function::

    hidden      h_k = ReLU(W₁ z_k + b₁), a second layer likewise where there are two     [n, H]
    attention   e_bk = w_b · (tanh(V h_k) ⊙ σ(U h_k)), a_b = softmax over the tiles       [branches, n]
    vectors     s_b = Σ_k a_bk h_k                                                        [branches, H]
    answer      one branch a class: logit_c = u_c · s_c; one branch in all: logits = U' s

==============  ===================================================================================  ======
`kind`          what it is                                                                           source
==============  ===================================================================================  ======
wang2022        two layers, A = 384, one branch and classifier a class, instance clustering          [1]_
clam_mb         one layer, A = 256, one branch and classifier a class, instance clustering           [2]_
clam_sb         one layer, A = 256, one branch for all classes, instance clustering                  [2]_
gated           one layer, A = 256, one branch, no clustering: attention alone                       [3]_
max             one layer; a class's logit is its largest over the tiles, that tile has attention 1  [2]_
mean            one layer; the logits of the mean hidden tile, all have attention 1 / n
==============  ===================================================================================  ======

Parameters, so that the weights of another implementation can be laid in by name (`torch.nn.Linear` stores [out, in]):

=======================================  ============  =====================================================
name                                     shape         CLAM's name for it
=======================================  ============  =====================================================
``hidden.0.weight``                      [H, F]        ``attention_net.0.weight``
``hidden.1.weight`` (two layers)         [H, H]        –
``tanh.weight``                          [A, H]        ``attention_net.3.attention_a.0.weight``
``gate.weight``                          [A, H]        ``attention_net.3.attention_b.0.weight``
``attention.weight``                     [branches, A] ``attention_net.3.attention_c.weight``
``classifier.weight``                    [C, H]        the rows of ``classifiers.<c>.weight`` (several branches),
                                                       ``classifiers.weight`` (one)
``instances.weight``                     [C, 2, H]     ``instance_classifiers.<c>.weight``, stacked
=======================================  ============  =====================================================

each with its ``bias`` of the first dimensions.

References
----------
.. [1] Wang et al. (2022), as read in the study's configuration.
.. [2] Lu et al. (2021), "Data-efficient and weakly supervised computational pathology on whole-slide images", Nature
   Biomedical Engineering 5: 555-570, Methods.
.. [3] Ilse et al. (2018), "Attention-based deep multiple instance learning", ICML, eq. 7 and 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from marrowflow.study_slides import Aggregation

AT_ONCE = 16_384
"""Tiles computed at once. In training what lies between the features and the attention is computed again on the way
back for bags of more tiles, so that a bag's memory is its hidden tiles and not all that led to them."""


class Answer(NamedTuple):
    """What a bag's network says.

    Attributes
    ----------
    logits
        [C].
    attention
        [branches, n]: before the softmax over the tiles. For ``max`` [C, n], each tile's logits.
    vectors
        [branches, H]: the slide's vector in each branch.
    hidden
        [n, H].
    """

    logits: torch.Tensor
    attention: torch.Tensor
    vectors: torch.Tensor
    hidden: torch.Tensor


class BagNetwork(nn.Module):
    """An aggregator of one of the kinds above.

    Parameters
    ----------
    settings
        The configuration's section.
    features
        Numbers a tile, F.
    classes
        Number of classes, C.
    """

    def __init__(self, settings: Aggregation, features: int, classes: int) -> None:
        super().__init__()
        self.settings, self.kind, self.features, self.classes = settings, settings.kind, features, classes
        width = settings.hidden
        sizes = [features, *[width] * settings.layers]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.dropout = nn.Dropout(settings.dropout)
        if settings.attends:
            branches = classes if settings.branches == "classes" else 1
            self.tanh, self.gate = nn.Linear(width, settings.attention), nn.Linear(width, settings.attention)
            self.attention = nn.Linear(settings.attention, branches)
        self.classifier = nn.Linear(width, classes)
        if settings.clusters:
            self.instances = _Stacked(classes, 2, width)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                # Glorot and Bengio (2010), as CLAM starts; biases at zero.
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    @property
    def branches(self) -> int:
        """Number of rows of an answer's attention."""
        if self.kind == "max":
            return self.classes
        return self.attention.out_features if hasattr(self, "attention") else 1

    def forward(self, tiles: torch.Tensor) -> Answer:
        """Answer for one bag.

        Parameters
        ----------
        tiles
            float32 [n, F], n at least 1.
        """
        if not len(tiles):
            raise ValueError("a bag without tiles has no answer")
        hidden, scores = self._computed(tiles)
        if self.kind == "max":
            logits, where = scores.max(dim=0)
            return Answer(logits, scores.T, hidden[where], hidden)
        if self.kind == "mean":
            vectors = hidden.mean(dim=0, keepdim=True)
            return Answer(self.classifier(vectors)[0], hidden.new_zeros(1, len(tiles)), vectors, hidden)
        vectors = scores.softmax(dim=0).T @ hidden
        if len(vectors) == 1:
            logits = self.classifier(vectors)[0]
        else:
            logits = (self.classifier.weight * vectors).sum(dim=1) + self.classifier.bias
        return Answer(logits, scores.T, vectors, hidden)

    def tile_scores(self, answer: Answer, branch: int) -> torch.Tensor:
        """Return each tile's attention in a branch, [n], summing to 1: the softmax over the tiles.

        For ``max`` the branch is a class, and the softmax over tiles of its logits says which tiles come near the largest.
        """
        return answer.attention[branch].softmax(dim=0)

    def _computed(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden tiles [n, H] and scores [n, branches], computed a part of the bag at a time."""
        if len(tiles) <= AT_ONCE:
            return self._part(tiles)
        part: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = self._part
        if self.training and torch.is_grad_enabled():

            def part(some: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                # Dropout draws the same again, because the generator's state is kept with each part.
                return checkpoint(self._part, some, use_reentrant=False)

        # Of nearly equal size: a small rest would be rounded in another way than all others.
        hidden, scores = zip(*map(part, tiles.tensor_split(math.ceil(len(tiles) / AT_ONCE))), strict=True)
        return torch.cat(hidden), torch.cat(scores)

    def _part(self, tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = tiles
        for layer in self.hidden:
            hidden = self.dropout(layer(hidden).relu())
        if self.kind == "max":
            return hidden, self.classifier(hidden)
        if self.kind == "mean":
            return hidden, hidden.new_zeros(len(hidden), 1)
        gated = self.dropout(self.tanh(hidden).tanh()) * self.dropout(self.gate(hidden).sigmoid())
        return hidden, self.attention(gated)


class _Stacked(nn.Module):
    """Several linear layers of one shape, one of which is asked."""

    def __init__(self, layers: int, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layers, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(layers, outputs))
        for weight in self.weight:
            nn.init.xavier_normal_(weight)

    def forward(self, number: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return what layer ``number`` (int64 scalar) makes of inputs [n, inputs]: [n, outputs]."""
        return inputs @ self.weight[number].T + self.bias[number]


def instance_loss(network: BagNetwork, answer: Answer, truth: torch.Tensor, most: int) -> torch.Tensor | None:
    """Return the loss of instance clustering: what is most attended should look otherwise than what is least.

    In the true class's branch the k most attended tiles are to be called evidence and the k least attended not, by
    that class's instance classifier; k = min(``most``, n // 2), so that no tile is on both sides. The loss is the mean
    over the 2 k tiles of the `smooth_top1` loss.

    Parameters
    ----------
    network
        One that clusters.
    answer
        Of a bag.
    truth
        int64 scalar: number of the bag's class.
    most
        Tiles on either side, B of the paper.

    Returns
    -------
    Tensor or None
        None for a bag of fewer than two tiles.
    """
    scores = answer.attention[truth if len(answer.attention) > 1 else 0]
    k = min(most, len(scores) // 2)
    if k < 1:
        return None
    order = scores.detach().argsort(stable=True)
    chosen = torch.cat([order[-k:], order[:k]])
    said = network.instances(truth, answer.hidden[chosen])
    evidence = torch.cat([torch.ones_like(order[:k]), torch.zeros_like(order[:k])])
    return smooth_top1(said, evidence).mean()


def smooth_top1(
    scores: torch.Tensor, truth: torch.Tensor, margin: float = 1.0, tau: float = 1.0
) -> torch.Tensor:
    """Return the smooth top-1 SVM loss of each row, [n] (Berrada et al. 2018, "Smooth loss functions for deep top-k classification", ICLR, with k = 1).

    τ log Σ_j exp((s_j + α [j ≠ y]) / τ) − s_y, which goes to the multi-class hinge loss as τ goes to 0.

    Parameters
    ----------
    scores
        [n, classes].
    truth
        int64 [n].
    margin, tau
        α and τ.
    """
    own = nn.functional.one_hot(truth, scores.shape[1]).to(scores.dtype)
    largest = tau * torch.logsumexp((scores + margin * (1 - own)) / tau, dim=1)
    return largest - (scores * own).sum(dim=1)
