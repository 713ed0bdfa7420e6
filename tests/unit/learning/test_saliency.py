"""Grad-CAM against algebra, against class activation maps, and against another library's ranks."""

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from marrowflow.learning.backbones import rebuild
from marrowflow.learning.saliency import (
    FEATURE_MAPS,
    TOKENS,
    NoMapError,
    enlarged,
    grad_cam,
    rank_correlation,
)


class Tiny(nn.Module):
    """Feature maps that are the image's own channels, some places of them shut off; mean, then a linear layer."""

    def __init__(self, weights: list[list[float]], open_places: torch.Tensor) -> None:
        super().__init__()
        self.weights, self.open_places = torch.tensor(weights), open_places

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.open_places

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=(2, 3)) @ self.weights.T


def cam(module: nn.Module, features: torch.Tensor, output: int) -> np.ndarray:
    """Class activation map (Zhou et al. 2016) of a network that ends in a mean and a linear layer: w_c · A."""
    weights = module.get_classifier().weight[output].detach().numpy()
    return np.einsum("k,nkhw->nhw", weights, features.detach().numpy())


def test_a_map_by_hand():
    image = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[4.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])[None]
    module = Tiny([[1.0, -2.0, 5.0], [-1.0, 0.0, 0.0]], torch.ones(2, 2))
    # Of the mean of 4 places each has a quarter: (A_1 - 2 A_2) / 4 = (-7, 2, 3, -4) / 4, without what is below 0.
    found = grad_cam(module, image, torch.tensor([0]))
    torch.testing.assert_close(found.maps, torch.tensor([[[0.0, 0.5], [0.75, 0.0]]]))
    # The other logit sees nothing but against itself.
    assert not grad_cam(module, image, torch.tensor([1])).maps.any()


def test_where_a_network_does_not_look_its_map_is_zero():
    left = torch.zeros(6, 6)
    left[:, :3] = 1
    module = Tiny([[1.0, 0.5, 2.0]], left)
    maps = grad_cam(module, torch.rand(4, 3, 6, 6) + 0.1, torch.zeros(4, dtype=torch.int64)).maps
    assert (maps[:, :, :3] > 0).all()
    assert not maps[:, :, 3:].any()


def test_each_image_is_explained_for_its_own_logit():
    module = Tiny([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], torch.ones(3, 3))
    images = torch.rand(2, 3, 3, 3)
    maps = grad_cam(module, images, torch.tensor([1, 0])).maps
    torch.testing.assert_close(maps, torch.stack([images[0, 1], images[1, 0]]) / 9)


@pytest.mark.parametrize("network", ["test_resnet", "torchvision/squeezenet1_1", "bt5153/cnn"])
def test_of_mean_and_linear_layer_it_is_the_class_activation_map(network):
    torch.manual_seed(0)
    module = rebuild(network, 5, 96).eval()
    images = torch.randn(3, 3, 96, 96)
    for output in range(5):
        found = grad_cam(module, images, torch.full((3,), output))
        expected = cam(module, module.forward_features(images), output)
        places = expected[0].size
        assert places > 1 and found.method == FEATURE_MAPS
        np.testing.assert_allclose(found.maps, np.maximum(expected, 0) / places, atol=1e-6)


def test_channels_may_come_last():
    torch.manual_seed(0)
    module = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=4, img_size=32, window_size=2,
        embed_dim=8, depths=(1, 1), num_heads=(1, 2),
    ).eval()  # fmt: skip
    images = torch.randn(2, 3, 32, 32)
    features = module.forward_features(images)
    assert features.shape == (2, 4, 4, 16)
    nn.init.normal_(module.get_classifier().weight)
    expected = cam(module, features.permute(0, 3, 1, 2), 2)
    found = grad_cam(module, images, torch.tensor([2, 2]))
    np.testing.assert_allclose(found.maps, np.maximum(expected, 0) / 16, atol=1e-5)


def test_a_transformer_that_reads_one_token_is_explained_where_its_last_block_reads_the_others():
    torch.manual_seed(1)
    module = timm.create_model("test_vit", num_classes=3).eval()
    images = torch.randn(2, 3, 160, 160)
    found = grad_cam(module, images, torch.tensor([2, 0]))
    kept = []
    module.blocks[-1].norm1.register_forward_hook(
        lambda _, __, tokens: (tokens.retain_grad(), kept.append(tokens))[0]
    )
    logits = module(images)
    (logits[0, 2] + logits[1, 0]).backward()
    # The first of 101 tokens is the class's; the others are the rows of the grid.
    tokens, slopes = (t.detach().numpy()[:, 1:] for t in (kept[0], kept[0].grad))
    expected = np.maximum(np.einsum("nk,ntk->nt", slopes.mean(axis=1), tokens), 0).reshape(2, 10, 10)
    assert expected.any() and found.method == TOKENS
    np.testing.assert_allclose(found.maps, expected, atol=1e-8, rtol=1e-4)


def test_a_transformer_that_averages_its_tokens_is_explained_at_its_last_ones():
    torch.manual_seed(0)
    module = timm.create_model("test_vit2", num_classes=3).eval()
    images = torch.randn(1, 3, 160, 160)
    found = grad_cam(module, images, torch.tensor([1]))
    assert found.method == FEATURE_MAPS and found.maps.shape == (1, 10, 10)
    features = module.forward_features(images).detach().requires_grad_()
    module.forward_head(features)[0, 1].backward()
    extra = features.shape[1] - 100
    weights = features.grad[0, extra:].mean(dim=0)
    expected = (features.detach()[0, extra:] @ weights).relu().reshape(10, 10)
    torch.testing.assert_close(found.maps[0], expected, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(
    ("network", "side", "told"),
    [
        ("test_resnet", 32, "one place"),
        ("cait_xxs24_224", 224, "behind its last block"),
        ("tnt_s_legacy_patch16_224", 224, "no known kind"),
    ],
)
def test_a_network_without_feature_maps_says_so(network, side, told):
    module = rebuild(network, 2, side).eval()
    with pytest.raises(NoMapError, match=told):
        grad_cam(module, torch.zeros(1, 3, side, side), torch.tensor([0]))


def test_maps_are_enlarged_between_the_centres_of_their_places():
    maps = torch.tensor([[[0.0, 2.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    large = enlarged(maps, 4)
    # Centres at .5 and 1.5 of 2; those of 4 pixels at .25, .75, 1.25, 1.75: weights 0, 1/4, 3/4, 1.
    torch.testing.assert_close(large[0], torch.tensor([[0.0, 0.25, 0.75, 1.0]]).expand(4, 4))
    assert not large[1].any()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40))
@settings(deadline=None)
def test_ranks_correlate_as_in_scipy(pairs):
    first, second = np.array(pairs).T
    found = rank_correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
