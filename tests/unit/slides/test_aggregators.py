"""Aggregators against torchmil's with the same weights, against algebra, and at the sizes of bags that break others."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torchmil.models import ABMIL, CLAM_SB

from marrowflow.slides import aggregators
from marrowflow.slides.aggregators import BagNetwork, instance_loss, smooth_top1
from marrowflow.study_slides import Aggregation

F, C = 24, 3
KINDS = ["wang2022", "clam_mb", "clam_sb", "gated", "max", "mean"]


def network(kind, classes=C, features=F, **settings):
    torch.manual_seed(0)
    return BagNetwork(Aggregation(kind=kind, hidden=16, width=8, **settings), features, classes).eval()


def tiles(n, features=F, seed=1):
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "model"), [("gated", ABMIL), ("clam_sb", CLAM_SB)])
def test_one_branch_equals_torchmil_with_the_same_weights(kind, model):
    """torchmil tells two classes apart by one logit, ours by two: their difference is that one."""
    ours = network(kind, classes=2)
    extractor = torch.nn.Sequential(torch.nn.Linear(F, 16), torch.nn.ReLU())
    theirs = model((F,), att_dim=8, gated=True, feat_ext=extractor).eval()
    with torch.no_grad():
        for mine, other in (
            (ours.hidden[0], extractor[0]),
            (ours.tanh, theirs.pool.fc1.module),
            (ours.gate, theirs.pool.fc_gated.module),
        ):
            mine.bias.normal_()
            other.weight.copy_(mine.weight)
            other.bias.copy_(mine.bias)
        theirs.pool.fc2.weight.copy_(ours.attention.weight)
        ours.attention.bias.zero_()  # torchmil has none; it moves all scores alike, and the softmax does not see it
        theirs.classifier.module.weight.copy_(ours.classifier.weight[1:] - ours.classifier.weight[:1])
        theirs.classifier.module.bias.copy_(ours.classifier.bias[1:] - ours.classifier.bias[:1])
        bag = tiles(37)
        answer = ours(bag)
        logit, scores = theirs(bag[None], return_att=True)
    torch.testing.assert_close(answer.logits[1:] - answer.logits[:1], logit)
    torch.testing.assert_close(answer.attention[0], scores[0])


def test_a_branch_a_class_by_hand():
    """The equations of the module's docstring, in numpy."""
    ours = network("clam_mb")
    weights = {name: value.detach().double().numpy() for name, value in ours.state_dict().items()}
    bag = tiles(9).double().numpy()
    hidden = np.maximum(bag @ weights["hidden.0.weight"].T + weights["hidden.0.bias"], 0)
    gate = 1 / (1 + np.exp(-(hidden @ weights["gate.weight"].T + weights["gate.bias"])))
    gated = np.tanh(hidden @ weights["tanh.weight"].T + weights["tanh.bias"]) * gate
    scores = gated @ weights["attention.weight"].T + weights["attention.bias"]
    logits = []
    for branch in range(C):
        share = np.exp(scores[:, branch] - logsumexp(scores[:, branch]))
        logits.append(
            weights["classifier.weight"][branch] @ (share @ hidden) + weights["classifier.bias"][branch]
        )
    with torch.no_grad():
        answer = ours(torch.from_numpy(bag).float())
    np.testing.assert_allclose(answer.logits, logits, rtol=1e-5)
    np.testing.assert_allclose(answer.attention, scores.T, rtol=1e-4, atol=1e-6)


def test_the_papers_network_has_the_papers_sizes():
    """Two layers 1024 → 512 → 512, gates of width 384, five branches, classifiers and pairs of instance classifiers."""
    built = BagNetwork(Aggregation(kind="wang2022"), 1024, 5)
    shapes = {name: tuple(value.shape) for name, value in built.state_dict().items() if "weight" in name}
    assert shapes == {
        "hidden.0.weight": (512, 1024),
        "hidden.1.weight": (512, 512),
        "tanh.weight": (384, 512),
        "gate.weight": (384, 512),
        "attention.weight": (5, 384),
        "classifier.weight": (5, 512),
        "instances.weight": (5, 2, 512),
    }


def test_clam_has_the_published_number_of_parameters():
    """CLAM's network of 1,024 features, 512 and 256 with two classes has 790,791 parameters with one branch [Lu et al., repository]."""
    one = BagNetwork(Aggregation(kind="clam_sb"), 1024, 2)
    counted = 1024 * 512 + 512 + 2 * (512 * 256 + 256) + (256 + 1) + 2 * (512 + 1) + 2 * 2 * (512 + 1)
    assert sum(p.numel() for p in one.parameters()) == counted == 790_791


def test_max_takes_the_tile_that_speaks_loudest_for_each_class():
    ours, bag = network("max"), tiles(6)
    with torch.no_grad():
        each = torch.stack([ours(one[None]).logits for one in bag])
        torch.testing.assert_close(ours(bag).logits, each.max(dim=0).values)


def test_mean_is_linear_behind_the_hidden_layer():
    ours, bag = network("mean"), tiles(6)
    with torch.no_grad():
        each = torch.stack([ours(one[None]).logits for one in bag])
        torch.testing.assert_close(ours(bag).logits, each.mean(dim=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bag_of_one_tile_and_the_order_of_tiles(kind):
    ours, bag = network(kind), tiles(5)
    with torch.no_grad():
        assert torch.isfinite(ours(bag[:1]).logits).all()
        torch.testing.assert_close(ours(bag).logits, ours(bag.flip(0)).logits)
    with pytest.raises(ValueError, match="without tiles"):
        ours(bag[:0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_bag_in_parts_gives_the_same_answer_and_gradient(kind, monkeypatch):
    whole, bag = network(kind).train(), tiles(50)
    for module in whole.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    parts = copy.deepcopy(whole)
    expected = whole(bag).logits
    expected.square().sum().backward()
    monkeypatch.setattr(aggregators, "AT_ONCE", 7)
    found = parts(bag).logits
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_smooth_top1_is_its_formula_and_goes_to_the_hinge():
    chance = np.random.default_rng(0)
    scores, truth = chance.normal(size=(40, 4)), chance.integers(4, size=40)
    margin = np.ones((40, 4))
    margin[np.arange(40), truth] = 0
    own = scores[np.arange(40), truth]
    found = smooth_top1(torch.from_numpy(scores), torch.from_numpy(truth))
    np.testing.assert_allclose(found, logsumexp(scores + margin, axis=1) - own)
    hinge = (scores + margin).max(axis=1) - own
    nearly = smooth_top1(torch.from_numpy(scores), torch.from_numpy(truth), tau=1e-3)
    np.testing.assert_allclose(nearly, hinge, atol=5e-3)


@pytest.mark.parametrize(("n", "most", "k"), [(2, 8, 1), (3, 8, 1), (7, 8, 3), (16, 8, 8), (100, 8, 8)])
def test_instances_are_the_most_and_the_least_attended_of_the_true_class(n, most, k):
    ours, truth = network("wang2022"), torch.tensor(2)
    with torch.no_grad():
        answer = ours(tiles(n))
        order = np.argsort(answer.attention[2].numpy(), kind="stable")
        said = answer.hidden @ ours.instances.weight[2].T + ours.instances.bias[2]
        evidence = smooth_top1(said[order[-k:].copy()], torch.ones(k, dtype=torch.int64))
        other = smooth_top1(said[order[:k].copy()], torch.zeros(k, dtype=torch.int64))
        expected = torch.cat([evidence, other]).mean()
        found = instance_loss(ours, answer, truth, most)
    torch.testing.assert_close(found, expected)


def test_a_bag_of_one_tile_has_no_instance_loss():
    ours = network("clam_sb")
    assert instance_loss(ours, ours(tiles(1)), torch.tensor(0), 8) is None


def test_what_is_attended_learns_from_the_instance_loss():
    ours = network("clam_sb").train()
    instance_loss(ours, ours(tiles(10)), torch.tensor(1), 3).backward()
    assert ours.instances.weight.grad[1].abs().sum() > 0
    assert ours.instances.weight.grad[[0, 2]].abs().sum() == 0
    assert ours.hidden[0].weight.grad.abs().sum() > 0
