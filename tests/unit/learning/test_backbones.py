"""Networks by name and their starting weights."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_study import NETWORK

from marrowflow.config import Model
from marrowflow.errors import UserError
from marrowflow.files import sha256_of
from marrowflow.learning.backbones import SQUEEZENET, build, parameter_counts, rebuild


def scratch(network: str, **more: object) -> Model:
    return Model.model_validate({"network": network, "mode": "scratch", **more})


@pytest.fixture
def weight_file(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model(NETWORK).state_dict(), path)
    return path


def from_file(path: Path, mode: str = "finetune", network: str = NETWORK) -> Model:
    return Model.model_validate({"network": network, "mode": mode, "weights": str(path)})


@pytest.mark.parametrize(
    ("network", "published"),
    [
        ("resnet50", 25_557_032),
        ("densenet121", 7_978_856),
        (
            SQUEEZENET,
            1_235_496,
        ),  # torchvision's documentation; its 1×1 convolution has a linear layer's weights
    ],
)
def test_parameter_counts_as_published(network: str, published: int) -> None:
    counts = parameter_counts(build(scratch(network), 1000, 0), "finetune")
    assert counts == {"total": published, "trainable": published}


def test_frozen_trains_the_last_layer_only() -> None:
    # resnet50: 2048 features to 4 classes, with a bias each.
    assert parameter_counts(build(scratch("resnet50"), 4, 0), "frozen")["trainable"] == 2048 * 4 + 4


def test_all_but_the_head_comes_from_the_file(weight_file: Path) -> None:
    backbone = build(from_file(weight_file), 3, seed=1)
    torch.manual_seed(5)
    given = timm.create_model(NETWORK).state_dict()
    ours = backbone.module.state_dict()
    assert backbone.head == ("fc.weight", "fc.bias")
    assert ours["fc.weight"].shape == (3, 96)
    assert not ours["fc.weight"].any()
    for name, tensor in given.items():
        if name not in backbone.head:
            assert torch.equal(ours[name], tensor), name
    assert backbone.sha256 == sha256_of(weight_file)


def test_weights_that_do_not_match_are_refused_by_name(weight_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: .*\n"):
        build(from_file(weight_file, network="resnet18"), 3, 0)
    state = dict(timm.create_model(NETWORK).state_dict())
    state["layer1.0.bn1.weight"] = torch.ones(7)
    save_file(state, tmp_path / "shape.safetensors")
    with pytest.raises(UserError, match=r"layer1\.0\.bn1\.weight is \[7\], the network's is \[32\]"):
        build(from_file(tmp_path / "shape.safetensors"), 3, 0)
    with pytest.raises(UserError, match="no file of weights"):
        build(from_file(tmp_path / "none.safetensors"), 3, 0)


def test_unknown_network_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"did you mean .*resnet50"):
        build(scratch("resnet_50"), 3, 0)


def test_imagenet_without_a_network_is_an_error_and_no_random_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", "/nonexistent")
    model = Model.model_validate({"network": "test_byobnet.r160_in1k", "mode": "finetune"})
    with pytest.raises(UserError, match="put a file of its weights"):
        build(model, 3, 0)


def test_scratch_is_keyed_by_its_seed() -> None:
    one, same, other = (build(scratch(NETWORK), 3, seed).module.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.0.weight"], other["conv1.0.weight"])


def test_input_statistics_are_the_networks_own() -> None:
    lite0 = build(scratch("tf_efficientnet_lite0"), 3, 0)
    assert (lite0.input_size, lite0.mean, lite0.std) == (224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    resnet = build(scratch("resnet18"), 3, 0)
    assert (resnet.mean, resnet.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_transformer_takes_another_input_size() -> None:
    backbone = build(scratch("vit_tiny_patch16_224", input_size=96), 3, 0)
    assert backbone.module(torch.zeros(1, 3, 96, 96)).shape == (1, 3)
    again = rebuild("vit_tiny_patch16_224", 3, 96)
    again.load_state_dict(backbone.module.state_dict())


def test_squeezenet_features_are_torchvisions(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    theirs = squeezenet1_1(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "squeezenet.pth")
    ours = build(from_file(tmp_path / "squeezenet.pth", network=SQUEEZENET), 4, 0).module.eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = ours.forward_head(ours.forward_features(x), pre_logits=True)
        expected = theirs.features(x).mean(dim=(2, 3))
        assert torch.allclose(features, expected, atol=1e-6)
        assert ours(x).shape == (2, 4)
