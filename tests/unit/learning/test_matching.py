"""Files of feature extractors in the wrappings they are published in; made here from a small transformer of timm's."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from marrowflow.config import Model
from marrowflow.errors import UserError
from marrowflow.learning.backbones import build
from marrowflow.learning.matching import load_all_but_head

# .4 million parameters: 10×10 patches of 16 pixels, 64 features, a class token.
VIT = "test_vit"
State = dict[str, torch.Tensor]


def transformer(seed: int, **more: object) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(VIT, num_classes=0, **more)


@pytest.fixture(scope="module")
def published() -> State:
    return dict(transformer(1).state_dict())


def under(prefix: str, state: State) -> State:
    return {prefix + name: t for name, t in state.items()}


def loaded(state: State, **more: object) -> State:
    module = transformer(2, **more)
    load_all_but_head(module, state, (), "test")
    return dict(module.state_dict())


def assert_equal(ours: State, given: State) -> None:
    assert set(ours) == set(given)
    assert all(torch.equal(ours[name], given[name]) for name in given)


DINO_HEAD = {"mlp.0.weight": torch.ones(3, 64), "last_layer.weight_g": torch.ones(3, 1)}

WRAPPED: dict[str, Callable[[State], State]] = {
    "plain": lambda s: s,
    "parallel": lambda s: under("module.", s),
    "compiled": lambda s: under("_orig_mod.", s),
    "backbone": lambda s: under("backbone.", s),
    "model": lambda s: under("model.", s),
    "encoder": lambda s: under("encoder.", s),
    "parallel backbone": lambda s: under("module.backbone.", s),
    "classifier": lambda s: s | {"head.weight": torch.ones(5, 64), "head.bias": torch.ones(5)},
    "dino": lambda s: under("backbone.", s) | under("head.", DINO_HEAD),
    "dinov2": lambda s: (
        under("backbone.", s)
        | {"backbone.mask_token": torch.ones(1, 64)}
        | under("dino_head.", DINO_HEAD)
        | under("ibot_head.", DINO_HEAD)
    ),
    "teacher and student": lambda s: (
        under("student.backbone.", {name: t + 1 for name, t in s.items()})
        | under("student.dino_head.", DINO_HEAD)
        | under("teacher.backbone.", s)
        | under("teacher.dino_head.", DINO_HEAD)
    ),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrappings_are_taken_off(published: State, wrap: Callable[[State], State]) -> None:
    assert_equal(loaded(wrap(published)), published)


def test_what_is_left_aside_is_counted(published: State, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "marrowflow")
    loaded(WRAPPED["dinov2"](published))
    assert (
        f"{len(published)} tensors loaded, left aside: 2 of dino_head, 2 of ibot_head, 1 of mask_token"
        in caplog.text
    )


def test_position_embeddings_of_another_grid_are_resampled(published: State) -> None:
    ours = loaded(under("backbone.", published), img_size=96)
    given = published["pos_embed"]
    # One place for the class token, then 10×10 places of the file and 6×6 of this network, row by row.
    grid = given[:, 1:].reshape(1, 10, 10, 64).permute(0, 3, 1, 2)
    smaller = nn.functional.interpolate(grid, size=(6, 6), mode="bicubic", antialias=True)
    expected = torch.cat([given[:, :1], smaller.permute(0, 2, 3, 1).reshape(1, 36, 64)], dim=1)
    assert torch.allclose(ours["pos_embed"], expected, atol=1e-6)
    assert_equal(ours | {"pos_embed": given}, published)


def test_registers_of_dinov2_are_read_by_timms_conversion() -> None:
    network = "vit_small_patch14_reg4_dinov2"
    module = timm.create_model(network, num_classes=0, img_size=28, depth=1)
    torch.manual_seed(3)
    own = {name: torch.randn_like(t) for name, t in module.state_dict().items()}
    # As it is published: the class token has a position embedding of its own, and timm adds the two.
    first = torch.randn(1, 1, 384)
    theirs = own | {
        "pos_embed": torch.cat([first, own["pos_embed"]], dim=1),
        "mask_token": torch.zeros(1, 384),
    }
    theirs["register_tokens"] = theirs.pop("reg_token")
    load_all_but_head(module, under("backbone.", theirs), (), "test")
    assert_equal(dict(module.state_dict()), own | {"cls_token": own["cls_token"] + first})


def without(state: State, name: str) -> State:
    return {n: t for n, t in state.items() if n != name}


REFUSED: dict[str, tuple[Callable[[State], State], str]] = {
    "one missing": (lambda s: under("module.", without(s, "norm.bias")), "missing: norm.bias"),
    "one outside the prefix": (
        lambda s: under("module.", without(s, "norm.bias")) | {"norm.bias": s["norm.bias"]},
        "missing: norm.bias",
    ),
    "a layer too many": (
        lambda s: s | {"blocks.9.norm1.weight": torch.ones(64)},
        r"unexpected: blocks\.9\.norm1",
    ),
    "a stranger beside": (
        lambda s: under("backbone.", s) | {"decoder.weight": torch.ones(1)},
        r"unexpected: decoder\.weight",
    ),
    "an unknown prefix": (lambda s: under("trunk.", s), "missing: cls_token"),
    "patches of another size": (
        lambda s: s | {"patch_embed.proj.weight": torch.ones(64, 3, 14, 14)},
        r"patch_embed\.proj\.weight is \[64, 3, 14, 14\], the network's is \[64, 3, 16, 16\]",
    ),
    "positions of another width": (
        lambda s: s | {"pos_embed": torch.ones(1, 50, 32)},
        r"pos_embed is \[1, 50, 32\]",
    ),
    "positions on no square": (
        lambda s: s | {"pos_embed": torch.ones(1, 48, 64)},
        r"pos_embed is \[1, 48, 64\]",
    ),
    "a whole student beside half a teacher": (
        lambda s: under("student.", s) | under("teacher.", without(s, "norm.bias")),
        "missing: norm.bias",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_all_else_is_refused_and_nothing_is_loaded(
    published: State, change: Callable[[State], State], message: str
) -> None:
    module = transformer(2)
    with pytest.raises(UserError, match=message):
        load_all_but_head(module, change(published), (), "test")
    assert_equal(dict(module.state_dict()), dict(transformer(2).state_dict()))


def test_counters_of_old_files_may_be_missing_but_no_statistics() -> None:
    module = timm.create_model("test_resnet", num_classes=0)
    own = dict(module.state_dict())
    old = {name: t for name, t in own.items() if not name.endswith("num_batches_tracked")}
    load_all_but_head(module, old, (), "test")
    with pytest.raises(UserError, match="running_mean"):
        load_all_but_head(module, without(old, "bn1.running_mean"), (), "test")


def test_torchvisions_inception_loads_without_its_auxiliary_answer() -> None:
    theirs = torchvision.models.inception_v3(weights=None, aux_logits=True, init_weights=False).state_dict()
    module = timm.create_model("inception_v3", num_classes=0)
    load_all_but_head(module, theirs, (), "test")
    ours = module.state_dict()
    assert all(torch.equal(t, theirs[name]) for name, t in ours.items())
    assert {name.split(".")[0] for name in set(theirs) - set(ours)} == {"AuxLogits", "fc"}


def test_a_published_file_becomes_a_network(published: State, tmp_path: Path) -> None:
    teacher = under("backbone.", published) | under("dino_head.", DINO_HEAD)
    torch.save({"teacher": teacher, "optimizer": {"lr": 0.1}, "epoch": 5}, tmp_path / "marrow.pth")
    model = {"network": VIT, "weights": str(tmp_path / "marrow.pth"), "input_size": 160}
    backbone = build(Model.model_validate(model), 3, seed=0)
    ours = dict(backbone.module.state_dict())
    assert backbone.head == ("head.weight", "head.bias")
    assert not ours["head.weight"].any()
    assert_equal({name: ours[name] for name in published}, published)


def test_another_input_size_resamples_the_files_positions_once(published: State, tmp_path: Path) -> None:
    # The file is of 6×6 patches and so is the network that is asked for; on the way lies timm's own size of 10×10.
    small = dict(transformer(1, img_size=96).state_dict())
    torch.save(small, tmp_path / "small.pth")
    model = {"network": VIT, "weights": str(tmp_path / "small.pth"), "input_size": 96}
    ours = build(Model.model_validate(model), 3, seed=0).module.state_dict()
    assert torch.equal(ours["pos_embed"], small["pos_embed"])
