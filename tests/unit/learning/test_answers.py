"""Models with other answers than one softmax, trained and asked: two heads, one-vs-rest, frozen ones, divided samples."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from small_study import CLASSES, NETWORK, make_study, with_model

from marrowflow.config import AsPublished, Augmentation, Splits
from marrowflow.errors import UserError
from marrowflow.images.augment import apply, draw_plan
from marrowflow.images.store import PackedPixels
from marrowflow.images.whitening import fit_patch_zca, fitting_cases
from marrowflow.learning import predict, train
from marrowflow.learning.ensemble import answers, load_networks
from marrowflow.learning.feature_cache import FeatureCache
from marrowflow.prediction_columns import PARENT
from marrowflow.splits.partition import partition

HEADS = {"warm": {"weight": 0.3, "positive": ["red"]}, "diagnosis": {"weight": 0.7, "positive": None}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_study(tmp_path_factory.mktemp("study"))


def trained(study: dict[str, Path], folder: Path, options: str, fold: str = "0", *more: str) -> Path:
    out = folder / fold
    train.main(
        ["--options", options, "--fold", fold, "--folds", str(study["folds"]), "--stores", str(study["store"]),
         "--state", str(folder / "state" / fold), "--features", str(folder / "features"), "--out", str(out), *more]
    )  # fmt: skip
    return out


def predicted(study: dict[str, Path], folder: Path, options: str, *more: str) -> pd.DataFrame:
    kept = {key: value for key, value in json.loads(options).items() if key != "heads"}
    folds = sorted(pd.read_parquet(study["folds"])["fold"].unique())
    predict.main(
        ["--options", json.dumps(kept), "--models", *(str(folder / str(fold)) for fold in folds),
         "--folds", str(study["folds"]), "--inventories", str(study["inventory"]), "--stores", str(study["store"]),
         "--features", str(folder / "features"), "--index-test", "small-raw", "--out", str(folder / "raw.parquet"), *more]
    )  # fmt: skip
    return pd.read_parquet(folder / "raw.parquet")


def image_of(study: dict[str, Path], case: str) -> np.ndarray:
    row = pd.read_parquet(study["store"] / "index.parquet").set_index("case_id").loc[case, "row"]
    return np.load(study["store"] / "pixels.npy")[row]


def logits_by_hand(state: dict[str, torch.Tensor], image: np.ndarray) -> np.ndarray:
    """Return a network's logits of one image, from its tensors alone."""
    module = timm.create_model(NETWORK, num_classes=len(state["fc.bias"])).eval()
    module.load_state_dict(state)
    x = (image.transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5
    with torch.no_grad():
        return module(torch.from_numpy(x).float())[0].double().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_two_heads_answer_each_their_own_question(study, tmp_path):
    options = with_model({"heads": {"warm": 0.3, "diagnosis": 0.7}}, {"heads": HEADS})
    for fold in ("0", "1"):
        trained(study, tmp_path, options, fold)
    raw = predicted(study, tmp_path, options)
    row = raw[(raw["fold"] == 1) & (raw["partition"] == "test")].iloc[2]
    logits = logits_by_hand(load_file(tmp_path / "1/model.safetensors"), image_of(study, row["case_id"]))
    # Outputs stand in the order of the heads' names: diagnosis with its three classes, then warm.
    told_apart = np.exp(logits[:3]) / np.exp(logits[:3]).sum()
    np.testing.assert_allclose(row[[f"p_{c}" for c in CLASSES]].astype(float), told_apart, atol=1e-5)
    assert row["endpoint_warm"] == pytest.approx(sigmoid(logits[3]), abs=1e-5)
    card = json.loads((tmp_path / "0/card.json").read_text())
    assert [head["name"] for head in card["heads"]] == ["diagnosis", "warm"]


def test_two_heads_learn_by_the_weighted_sum_of_their_losses(study, tmp_path):
    """The validation loss of the history, computed anew from the kept weights by torch's own functions."""
    options = with_model({"heads": {"warm": 0.3, "diagnosis": 0.7}}, {"heads": HEADS}, epochs=2)
    out = trained(study, tmp_path, options)
    state = load_file(out / "model.safetensors")
    cases = pd.read_parquet(study["folds"]).query("fold == 0 and partition == 'validation'")
    logits = torch.tensor(
        np.stack([logits_by_hand(state, image_of(study, case)) for case in cases["case_id"]])
    )
    number = torch.tensor([CLASSES.index(label) for label in cases["label"]])
    whole = 0.7 * torch.nn.functional.cross_entropy(logits[:, :3], number)
    whole += 0.3 * torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 3], (number == 0).double())
    history = pd.read_csv(out / "history.csv").set_index("epoch")
    best = json.loads((out / "card.json").read_text())["best_epoch"]
    assert history.loc[best, "validation_loss"] == pytest.approx(float(whole), rel=1e-4)


def test_one_vs_rest_is_a_network_for_each_class(study, tmp_path):
    options = with_model({"head": "one_vs_rest"}, epochs=2)
    for fold in ("0", "1"):
        trained(study, tmp_path, options, fold)
    raw = predicted(study, tmp_path, options)
    row = raw[(raw["fold"] == 0) & (raw["partition"] == "test")].iloc[4]
    state = load_file(tmp_path / "0/model.safetensors")
    own = [
        {name.removeprefix(f"{k}."): tensor for name, tensor in state.items() if name.startswith(f"{k}.")}
        for k in range(3)
    ]
    image = image_of(study, row["case_id"])
    by_hand = sigmoid(np.array([logits_by_hand(tensors, image)[0] for tensors in own]))
    np.testing.assert_allclose(row[[f"p_{c}" for c in CLASSES]].astype(float), by_hand, atol=1e-5)
    assert row["predicted"] == CLASSES[by_hand.argmax()]
    history = pd.read_csv(tmp_path / "0/history.csv")
    assert list(history["network"]) == [name for name in CLASSES for _ in range(2)]
    card = json.loads((tmp_path / "0/card.json").read_text())
    one = sum(p.numel() for p in timm.create_model(NETWORK, num_classes=1).parameters())
    assert card["parameters"] == {"total": 3 * one, "trainable": 3 * one}
    assert card["epochs_run"] == dict.fromkeys(CLASSES, 2)


def test_networks_of_one_vs_rest_start_apart(study, tmp_path):
    out = trained(study, tmp_path, with_model({"head": "one_vs_rest"}, epochs=1, rate=1e-9))
    state = load_file(out / "model.safetensors")
    first = next(name for name in state if name.startswith("0.") and state[name].dim() == 4)
    assert not torch.allclose(state[first], state["1" + first[1:]], atol=1e-3)


@pytest.mark.parametrize("head", ["softmax", "one_vs_rest"])
def test_a_frozen_model_answers_as_the_whole_network_does(study, tmp_path, head):
    torch.manual_seed(3)
    save_file(timm.create_model(NETWORK).state_dict(), tmp_path / "start.safetensors")
    weights = {"mode": "frozen", "weights": str(tmp_path / "start.safetensors"), "head": head}
    options = with_model(weights, epochs=5, rate=0.01)
    for fold in ("0", "1"):
        trained(study, tmp_path, options, fold)
    entries = [path for path in (tmp_path / "features").iterdir() if path.is_dir()]
    raw = predicted(study, tmp_path, options)
    # One pass through the network, for two trainings, two folds' answers and the mean of both.
    assert [path for path in (tmp_path / "features").iterdir() if path.is_dir()] == entries
    assert len(entries) == 1
    row = raw[(raw["fold"] == 1) & (raw["partition"] == "test")].iloc[1]
    logits = logits_by_hand(load_file(tmp_path / "1/model.safetensors"), image_of(study, row["case_id"]))
    by_hand = sigmoid(logits) if head == "one_vs_rest" else np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(row[[f"p_{c}" for c in CLASSES]].astype(float), by_hand, atol=1e-5)


def test_divided_samples_are_trained_on_and_answered_as_they_were_drawn(study, tmp_path):
    augmentation = Augmentation(plan="eight", copies=1)
    rule = AsPublished(scheme="holdout", test=0.3, validation=0.2, augmented=True)
    splits = Splits(protocol="as_published", as_published=rule)
    inventory = pd.read_parquet(study["inventory"])
    hashes = [f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}" for i in range(len(inventory))]
    inventory = inventory.assign(
        type=inventory["label"], sha256=inventory["case_id"], phash=hashes, thumb=[bytes(64)] * len(inventory)
    )
    cases = inventory[inventory["reference_status"] == "ok"].reset_index(drop=True)
    folds = partition(cases, splits, CLASSES, 0, "as_published", augmentation)
    plan = draw_plan(folds, 0, augmentation, CLASSES)
    paths = {**study, "folds": tmp_path / "folds.parquet"}
    folds.to_parquet(paths["folds"])
    plan.to_parquet(tmp_path / "plan.parquet")
    options = with_model({}, {"augmentation": augmentation.model_dump(mode="json")}, epochs=2)
    out = trained(paths, tmp_path, options, "0", "--plan", str(tmp_path / "plan.parquet"))
    card = json.loads((out / "card.json").read_text())
    # 33 images with a reference, 9 samples each: three tenths are tested, a fifth of the rest chooses the epoch.
    assert len(folds) == 33 * 9
    assert card["samples_an_epoch"] == int((folds["partition"] == "train").sum())
    raw = predicted(paths, tmp_path, options, "--plans", str(tmp_path / "plan.parquet"))
    tested = raw[raw["partition"] == "test"].set_index("case_id")
    assert len(tested) == int((folds["partition"] == "test").sum())
    for transform in ("rotate", "whiten"):
        name = next(n for n in tested.index if f"#{transform}" in n)
        row = plan[(plan["case_id"] == tested.loc[name, PARENT]) & (plan["transform"] == transform)]
        fitting = fitting_cases(plan.loc[plan["partition"] == "train", "case_id"].tolist(), augmentation.seed)
        images = np.stack([image_of(study, case) for case in fitting])
        whitening = fit_patch_zca(images, augmentation.zca_epsilon, seed=augmentation.seed)
        picture = apply(image_of(study, tested.loc[name, PARENT])[None], row, whitening)[0]
        logits = logits_by_hand(load_file(out / "model.safetensors"), picture)
        by_hand = np.exp(logits) / np.exp(logits).sum()
        given = tested.loc[name, [f"p_{c}" for c in CLASSES]].astype(float)
        np.testing.assert_allclose(given, by_hand, atol=1e-4)


def test_answers_that_do_not_fit_are_an_error_with_remedies(study, tmp_path, monkeypatch):
    folder = trained(study, tmp_path, with_model({}, epochs=1))
    (network,) = load_networks([folder], CLASSES, torch.device("cpu"))

    def full(images):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(network.module, "forward", full)
    pixels, cache = PackedPixels([study["store"]]), FeatureCache(tmp_path / "features")
    with pytest.raises(UserError, match=r"network of fold 0: .*32 images.*CUDA_VISIBLE_DEVICES="):
        answers(network, pixels, ["a/000.png"], torch.device("cpu"), cache)
