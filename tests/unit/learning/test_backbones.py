"""Networks by name and their starting weights."""

import logging
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from small_study import NETWORK

from marrowflow.config import Model
from marrowflow.errors import UserError
from marrowflow.files import sha256_of
from marrowflow.learning.backbones import OneVsRest, build, parameter_counts, rebuild
from marrowflow.learning.pretrained import NOT_STATED, licence_of
from marrowflow.learning.squeezenet import SQUEEZENET
from marrowflow.learning.weight_files import write_weights


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


def efficientnet_without_attention() -> torch.nn.Module:
    """Return EfficientNet-B0 without its squeeze-and-excitation: Lite0 at 224 pixels (same widths and depths)."""
    module = torchvision.models.efficientnet_b0(weights=None)
    for block in module.modules():
        for name, child in list(block.named_children()):
            if isinstance(child, torchvision.ops.SqueezeExcitation):
                setattr(block, name, torch.nn.Identity())
    return module


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPEN, NON_COMMERCIAL, NONE = "apache-2.0", "cc-by-nc-4.0", "not stated"


@pytest.mark.parametrize(
    ("network", "parameters", "theirs", "side", "statistics", "licence"),
    [
        ("inception_v3", 23_834_568, "inception_v3", 299, HALF, OPEN),
        ("resnet50", 25_557_032, "resnet50", 224, IMAGENET, OPEN),
        ("resnet50.fb_swsl_ig1b_ft_in1k", 25_557_032, "resnet50", 224, IMAGENET, NON_COMMERCIAL),
        ("densenet121", 7_978_856, "densenet121", 224, IMAGENET, OPEN),
        ("resnext50_32x4d", 25_028_904, "resnext50_32x4d", 224, IMAGENET, OPEN),
        (
            "resnext50_32x4d.fb_swsl_ig1b_ft_in1k",
            25_028_904,
            "resnext50_32x4d",
            224,
            IMAGENET,
            NON_COMMERCIAL,
        ),
        ("resnext101_32x8d", 88_791_336, "resnext101_32x8d", 224, IMAGENET, "bsd-3-clause"),
        (
            "resnext101_32x8d.fb_swsl_ig1b_ft_in1k",
            88_791_336,
            "resnext101_32x8d",
            224,
            IMAGENET,
            NON_COMMERCIAL,
        ),
        ("vit_base_patch32_224", 88_224_232, "vit_b_32", 224, HALF, OPEN),
        ("efficientnet_lite0", 4_652_008, "efficientnet_b0", 224, IMAGENET, OPEN),
        ("tf_efficientnet_lite0", 4_652_008, "efficientnet_b0", 224, HALF, OPEN),
        # Its 1×1 convolution has the linear layer's weights.
        (SQUEEZENET, 1_235_496, "squeezenet1_1", 224, IMAGENET, NONE),
    ],
)
def test_networks_of_the_studies_by_name(
    network: str, parameters: int, theirs: str, side: int, statistics: tuple[object, object], licence: str
) -> None:
    with torch.device("meta"):
        backbone = build(scratch(network), 1000, 0)
        if theirs == "efficientnet_b0":
            published = efficientnet_without_attention()
        else:
            # Inception's auxiliary answer is of use in training only, and only from random weights.
            more = {"aux_logits": False, "init_weights": False} if theirs == "inception_v3" else {}
            published = torchvision.models.get_model(theirs, weights=None, **more)
    counts = parameter_counts(backbone, "finetune")
    assert counts == {"total": parameters, "trainable": parameters}
    assert sum(p.numel() for p in published.parameters()) == parameters
    assert (backbone.input_size, (backbone.mean, backbone.std)) == (side, statistics)
    assert licence_of(network) == licence


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


def test_unknown_weights_of_a_known_network_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"no weights 'fb_swsl' of resnext101_32x8d, only .*fb_swsl_ig1b_ft_in1k"
    ):
        build(scratch("resnext101_32x8d.fb_swsl"), 3, 0)
    with pytest.raises(UserError, match=r"did you mean .*bt5153/pre_cnn1"):
        build(scratch("bt5153/pre_cnn"), 3, 0)


@pytest.mark.parametrize(
    ("stated", "noted", "licence", "warned"),
    [
        ("", None, NOT_STATED, False),
        ("", "Apache-2.0", "Apache-2.0", False),
        ("CC BY-NC-SA 4.0", "Apache-2.0", "CC BY-NC-SA 4.0", True),
        ("research only, non-commercial", None, "research only, non-commercial", True),
        ("lent by Smears Inc. for this study", None, "lent by Smears Inc. for this study", False),
    ],
)
def test_licence_of_a_file(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    stated: str,
    noted: str | None,
    licence: str,
    warned: bool,
) -> None:
    caplog.set_level(logging.INFO, "marrowflow")
    path = tmp_path / "weights.safetensors"
    write_weights(path, timm.create_model(NETWORK).state_dict(), {} if noted is None else {"licence": noted})
    model = {"network": NETWORK, "weights": str(path), "licence": stated}
    assert build(Model.model_validate(model), 3, 0).licence == licence
    assert f"licence: {licence}" in caplog.text
    assert [r.levelname for r in caplog.records].count("WARNING") == int(warned)


def test_non_commercial_weights_of_timm_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **more: create(name, **more))
    model = Model.model_validate({"network": "resnet18.fb_swsl_ig1b_ft_in1k"})
    backbone = build(model, 3, 0)
    assert backbone.licence == "cc-by-nc-4.0"
    assert "timm/resnet18.fb_swsl_ig1b_ft_in1k" in backbone.source
    assert "no commercial use" in caplog.text


def test_random_weights_have_no_licence() -> None:
    backbone = build(scratch(NETWORK), 3, 0)
    assert (backbone.source, backbone.sha256, backbone.licence) == ("random", "", "")


def test_one_vs_rest_answers_with_a_column_a_network() -> None:
    networks = [rebuild(NETWORK, 1, 32) for _ in range(3)]
    together = OneVsRest(networks).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        answers = together(x)
        assert answers.shape == (2, 3)
        for column, network in enumerate(networks):
            assert torch.equal(answers[:, column], network(x)[:, 0])
    assert {name.split(".")[0] for name in together.state_dict()} == {"0", "1", "2"}


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
