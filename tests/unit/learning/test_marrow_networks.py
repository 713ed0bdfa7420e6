"""The networks of bt5153: their published numbers, Keras's habits, and what their pretrained parts are fed."""

import logging
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from marrowflow.config import Model
from marrowflow.errors import UserError
from marrowflow.learning.backbones import build, rebuild
from marrowflow.learning.marrow_networks import (
    BASES,
    CNN,
    MARROW_NETWORKS,
    PRE_CNN1,
    PRE_CNN2,
    VIT,
    XceptionLike,
    convolution_head,
    marrow_network,
)
from marrowflow.learning.preparation import Preparation

PRETRAINED = (PRE_CNN1, PRE_CNN2, VIT)


@pytest.fixture
def small_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put networks of half a million parameters in the place of Inception-V3 and ViT-B/32."""
    for name in (PRE_CNN1, PRE_CNN2):
        monkeypatch.setitem(BASES, name, "test_resnet")
    monkeypatch.setitem(BASES, VIT, "test_vit")


def as_keras_counts(module: nn.Module) -> int:
    """Return all numbers of a network, running means and variances among them."""
    return sum(
        t.numel() for name, t in module.state_dict().items() if not name.endswith("num_batches_tracked")
    )


def test_the_cnn_has_the_published_number_of_parameters() -> None:
    def convolution(side: int, given: int, made: int) -> int:
        return side * side * given * made + made

    def separable(given: int, made: int) -> int:
        return 9 * given + given * made + made

    widths = [64, 128, 256, 512, 728]
    blocks = [separable(g, m) + separable(m, m) + convolution(1, g, m) for g, m in pairwise(widths)]
    normalised = 32 + 64 + 2 * sum(widths[1:]) + 1024
    layers = (
        convolution(3, 3, 32) + convolution(3, 32, 64) + sum(blocks) + separable(728, 1024) + (1024 * 5 + 5)
    )
    assert layers + 2 * normalised == 2_778_013
    assert layers + 4 * normalised == 2_786_749
    module = XceptionLike(5, dropout=0.5)
    assert sum(p.numel() for p in module.parameters()) == 2_778_013
    assert as_keras_counts(module) == 2_786_749


def test_the_convolutional_heads_have_the_numbers_of_their_docstring() -> None:
    # 3×3 convolutions of 128 channels with a bias each, 4 numbers a normalised channel, 5 outputs.
    one = 9 * 2048 * 128 + 128 + 4 * 128 + 128 * 5 + 5
    two = one + 9 * 128 * 128 + 128 + 4 * 128
    found = [as_keras_counts(convolution_head(2048, 5, 0.0, n)) for n in (1, 2)]
    assert found == [one, two]
    assert all(f"{n:,}" in (convolution_head.__doc__ or "") for n in found)


def test_a_side_of_250_is_halved_five_times_and_rounded_up() -> None:
    with torch.device("meta"):
        module = XceptionLike(5, 0.0)
        x = module.stem(torch.empty(1, 3, 250, 250))
        sides = [x.shape[-1]]
        for block in module.blocks:
            x = block(x)
            sides.append(x.shape[-1])
    assert sides == [125, 63, 32, 16, 8]


def test_a_stride_of_two_pads_an_even_side_at_its_far_end() -> None:
    module = XceptionLike(5, 0.0)
    first = module.stem[0]
    nn.init.ones_(first.weight)
    x = torch.zeros(1, 3, 4, 4)
    x[0, 0] = torch.arange(16.0).view(4, 4)
    # Windows of 3×3 start at rows and columns 0 and 2; the second of them reach one place beyond the edge.
    expected = torch.tensor(
        [
            [0 + 1 + 2 + 4 + 5 + 6 + 8 + 9 + 10, 2 + 3 + 6 + 7 + 10 + 11],
            [8 + 9 + 10 + 12 + 13 + 14, 10 + 11 + 14 + 15],
        ]
    )
    assert torch.equal(first(x)[0, 0], expected.float())
    pool = module.blocks[0].separable[-1]
    # Below zero throughout: a padding of zeros would win.
    assert pool(x[:, :1] - 20)[0, 0].tolist() == [[-10, -9], [-6, -5]]


def test_weights_start_as_in_keras() -> None:
    torch.manual_seed(0)
    module = XceptionLike(5, 0.0)
    limit = math.sqrt(6 / (1024 + 5))
    assert 0.95 * limit < float(module.classifier.weight.detach().abs().max()) <= limit
    # Keras counts 9 inputs a channel and 9 × 728 outputs for a depthwise convolution.
    depthwise = module.last[0][0].weight
    limit = math.sqrt(6 / (9 + 9 * 728))
    assert 0.95 * limit < float(depthwise.detach().abs().max()) <= limit
    assert not module.classifier.bias.any()
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    # Keras's momentum of .99 is the share that is kept, PyTorch's the share that is new.
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize(("profile", "new"), [("as_published", 0.01), ("corrected", 0.1)])
def test_corrected_statistics_follow_a_short_training(profile: str, new: float) -> None:
    module = marrow_network(CNN, 5, 0.0, profile).module
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {new}
    # After n steps on constant batches the statistics are (1 - new)^n of the start's and else the batch's.
    norm = norms[0].train()
    for _ in range(40):
        norm(torch.full((2, norm.num_features, 1, 1), 5.0))
    torch.testing.assert_close(
        norm.running_mean, torch.full((norm.num_features,), 5.0 * (1 - (1 - new) ** 40))
    )


@pytest.mark.parametrize("network", MARROW_NETWORKS)
def test_they_answer_as_timms_networks_do(small_bases: None, network: str) -> None:
    built = marrow_network(network, 4, 0.5, "corrected")
    module = built.module.eval()
    x = torch.rand(2, 3, built.input_size, built.input_size)
    with torch.no_grad():
        features = module.forward_features(x)
        before = module.forward_head(features, pre_logits=True)
        logits = module(x)
        last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
        assert before.dim() == 2
        assert torch.equal(last(before), logits)
        assert torch.equal(module.forward_head(features), logits)
    assert logits.shape == (2, 4)
    # Where all of a head of several layers is new, no single linear layer may be taken for it.
    assert isinstance(module.get_classifier(), nn.Linear) == (network == CNN)
    again = rebuild(network, 4, built.input_size, "corrected")
    again.load_state_dict(module.state_dict())


@pytest.mark.parametrize(
    ("network", "profile", "black", "white"),
    [
        (CNN, "as_published", 0, 1),
        (CNN, "corrected", 0, 1),
        (PRE_CNN1, "as_published", 0, 255),
        (PRE_CNN1, "corrected", -1, 1),
        (PRE_CNN2, "as_published", 0, 255),
        (PRE_CNN2, "corrected", -1, 1),
        (VIT, "as_published", 0, 255),
        (VIT, "corrected", -1, 1),
    ],
)
def test_levels_that_a_network_is_fed(network: str, profile: str, black: float, white: float) -> None:
    with torch.device("meta"):
        built = marrow_network(network, 5, 0.0, profile)
    pixels = torch.from_numpy(np.array([[[[0] * 3, [255] * 3]] * 2], np.uint8))
    x = Preparation(2, built.mean, built.std)(pixels)
    assert x[0, :, 0, 0].tolist() == pytest.approx([black] * 3)
    assert x[0, :, 0, 1].tolist() == pytest.approx([white] * 3)
    assert built.input_size == (128 if network == VIT else 250)


@pytest.mark.parametrize(("profile", "scale"), [("as_published", 1 / 255), ("corrected", 1.0)])
def test_the_published_rescaling_stands_behind_inception(
    small_bases: None, profile: str, scale: float
) -> None:
    module = rebuild(PRE_CNN1, 5, 64, profile).eval()
    x = 255 * torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(module.forward_features(x), module.base.forward_features(x) * scale)


def test_the_pretrained_parts_are_inception_and_vit() -> None:
    with torch.device("meta"):
        inception, second, vit = (marrow_network(n, 5, 0.0, "corrected").module for n in PRETRAINED)
    # Inception-V3 has 23,834,568 parameters with its 1000 classes, ViT-B/32 88,224,232 with 7×7 places instead of 4×4.
    assert sum(p.numel() for p in inception.base.parameters()) == 23_834_568 - 1000 * 2049
    assert sum(p.numel() for p in vit.base.parameters()) == 88_224_232 - 1000 * 769 - (49 - 16) * 768
    assert [sum(isinstance(m, nn.Conv2d) for m in n.head) for n in (inception, second)] == [1, 2]
    # Normalisation of 768, 768 → 11, normalisation of 11, 11 → 5.
    assert sum(p.numel() for p in vit.head.parameters()) == 2 * 768 + 768 * 11 + 11 + 2 * 11 + 11 * 5 + 5


@pytest.mark.parametrize("network", PRETRAINED)
def test_given_weights_are_the_bases_and_the_head_is_new(
    small_bases: None, network: str, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    given = timm.create_model(BASES[network]).state_dict()
    save_file(given, tmp_path / "base.safetensors")
    model = Model.model_validate({"network": network, "weights": str(tmp_path / "base.safetensors")})
    one, other = (build(model, 3, seed) for seed in (0, 1))
    ours = one.module.state_dict()
    kept = {n: t for n, t in ours.items() if n.startswith("base.") and "pos_embed" not in n}
    assert kept
    assert all(torch.equal(t, given[n.removeprefix("base.")]) for n, t in kept.items())
    assert set(one.head) == {n for n, _ in one.module.named_parameters() if n.startswith("head.")}
    # The last layer starts from zero, those before it at random.
    *before, last = (m for m in one.module.head.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    assert not last.weight.any()
    assert all(m.weight.any() for m in before)
    assert any(not torch.equal(ours[n], other.module.state_dict()[n]) for n in one.head)


def test_a_network_of_the_study_is_a_starting_point_itself(small_bases: None, tmp_path: Path) -> None:
    trained = rebuild(PRE_CNN1, 7, 64)
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    model = Model.model_validate({"network": PRE_CNN1, "weights": str(tmp_path / "trained.safetensors")})
    ours = build(model, 3, 0).module
    assert torch.equal(ours.base.conv1[0].weight, trained.base.conv1[0].weight)
    assert ours.head[-1].weight.shape == (3, 128)


def test_imagenet_means_the_bases_weights_and_the_cnn_has_none(
    small_bases: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "marrowflow")
    create, asked = timm.create_model, []

    def offline(name: str, pretrained: bool = False, **more: object) -> nn.Module:
        if pretrained:
            asked.append(name)
        return create(name, **more)

    monkeypatch.setattr(timm, "create_model", offline)
    backbone = build(Model.model_validate({"network": PRE_CNN2}), 3, 0)
    assert asked == ["test_resnet"]
    assert (backbone.licence, "licence: apache-2.0" in caplog.text) == ("apache-2.0", True)
    with pytest.raises(UserError, match="no weights of bt5153/cnn are published"):
        build(Model.model_validate({"network": CNN}), 3, 0)
