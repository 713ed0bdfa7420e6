"""A fold's training as a step: its files, its promise of equal bytes, and what it refuses."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from small_study import CLASSES, NETWORK, make_study, options_text, with_model

import marrowflow
from marrowflow.config import Augmentation
from marrowflow.errors import UserError
from marrowflow.images.augment import draw_plan
from marrowflow.learning import feature_cache, features, fold_samples, train
from marrowflow.learning.checkpoint import Checkpoint

OUTPUTS = ["card.json", "history.csv", "model.safetensors"]  # the same bytes every time


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_study(tmp_path_factory.mktemp("study"))


def arguments(study: dict[str, Path], out: Path, options: str, *more: str) -> list[str]:
    inputs = [
        "--folds",
        str(study["folds"]),
        "--stores",
        str(study["store"] / "pixels.npy"),
        str(study["store"]),
    ]
    state = ["--state", str(out.with_name(out.name + "_state")), "--features", str(out.with_name("features"))]
    return ["--options", options, "--fold", "0", *inputs, *state, "--out", str(out), *more]


def plan_file(study: dict[str, Path], path: Path, augmentation: Augmentation) -> str:
    draw_plan(pd.read_parquet(study["folds"]), 0, augmentation, CLASSES).to_parquet(path)
    return str(path)


def test_a_training_with_its_plan_writes_the_same_bytes_twice(study: dict[str, Path], tmp_path: Path) -> None:
    plan = plan_file(study, tmp_path / "plan.parquet", Augmentation(plan="eight", copies=1))
    options = options_text(epochs=2, dropout=0.2)
    for name in ("one", "two"):
        train.main(arguments(study, tmp_path / name, options, "--plan", plan))
    for output in OUTPUTS:
        one, two = (tmp_path / name / output for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), output
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted([*OUTPUTS, "cost.json"])
    assert not (tmp_path / "one_state").exists()
    card = json.loads((tmp_path / "one/card.json").read_text())
    trained = pd.read_parquet(study["folds"]).query("fold == 0 and partition == 'train'")
    # 1 original, 5 drawn once each, 2 flips and 1 whitening.
    assert card["samples_an_epoch"] == 9 * len(trained)
    assert card["data"]["train"]["red"]["images"] == int((trained["label"] == "red").sum())
    assert card["versions"]["opencv"] == cv2.__version__
    assert card["versions"]["torchvision"] == torchvision.__version__.partition("+")[0]
    assert card["weights"] == {"source": "random", "sha256": "", "licence": ""}
    cost = json.loads((tmp_path / "one/cost.json").read_text())
    assert (cost["images"], cost["epochs"]) == (2 * 9 * len(trained), 2)
    assert cost["device_seconds"] > 0


def test_it_learns_colours(tmp_path: Path) -> None:
    larger = make_study(tmp_path, n=120)
    train.main(arguments(larger, tmp_path / "out", options_text(epochs=15, rate=0.01)))
    history = pd.read_csv(tmp_path / "out/history.csv")
    assert list(history.columns) == [
        "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "rate",
    ]  # fmt: skip
    assert history["validation_accuracy"].max() > 0.8  # 1/3 by chance


def test_seed_and_fold_make_other_networks(study: dict[str, Path], tmp_path: Path) -> None:
    first = tmp_path / "first"
    train.main(arguments(study, first, options_text(epochs=1)))
    train.main(arguments(study, tmp_path / "seed", options_text(epochs=1, seed=1)))
    in_fold_1 = arguments(study, tmp_path / "fold", options_text(epochs=1))
    in_fold_1[in_fold_1.index("--fold") + 1] = "1"
    train.main(in_fold_1)
    contents = {(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "seed", "fold")}
    assert len(contents) == 3


def test_killed_and_resumed_ends_as_if_unbroken(study: dict[str, Path], tmp_path: Path) -> None:
    options = options_text(epochs=10, dropout=0.2, patience=None)
    unbroken = tmp_path / "unbroken"
    train.main(arguments(study, unbroken, options))
    out = tmp_path / "killed"
    state = tmp_path / "killed_state"
    command = [sys.executable, "-m", "marrowflow", "learning.train", *arguments(study, out, options)]
    environment = {**os.environ, "PYTHONPATH": str(Path(marrowflow.__file__).parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(state.glob("*/training.pt")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    kept = torch.load(next(state.glob("*/training.pt")), weights_only=True)
    assert 1 <= len(kept["history"]) < 10

    other = tmp_path / "killed_other"
    changed = arguments(study, other, options_text(epochs=1))
    changed[changed.index("--state") + 1] = str(tmp_path / "copied_state")
    (tmp_path / "copied_state").mkdir()
    for folder in state.iterdir():
        (tmp_path / "copied_state" / folder.name).mkdir()
        (tmp_path / "copied_state" / folder.name / "training.pt").write_bytes(
            (folder / "training.pt").read_bytes()
        )
    train.main(changed)
    assert len(pd.read_csv(other / "history.csv")) == 1  # the state of other options was not gone on from

    resumed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "going on from the state" in resumed.stderr
    for output in OUTPUTS:
        assert (out / output).read_bytes() == (unbroken / output).read_bytes(), output
    assert not state.exists()


def test_frozen_changes_the_last_layer_only(study: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(3)
    start = timm.create_model(NETWORK).state_dict()
    save_file(start, tmp_path / "start.safetensors")
    options = json.loads(options_text(epochs=40, rate=0.01))
    options["model"] |= {"mode": "frozen", "weights": str(tmp_path / "start.safetensors")}
    train.main(arguments(study, tmp_path / "out", json.dumps(options)))
    ours = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(ours[name], start[name]) for name in start if not name.startswith("fc."))
    card = json.loads((tmp_path / "out/card.json").read_text())
    assert card["parameters"]["trainable"] == 96 * 3 + 3
    # The whole network, run by hand on the validation images, has the loss that its head was trained to.
    history = pd.read_csv(tmp_path / "out/history.csv").set_index("epoch")
    module = timm.create_model(NETWORK, num_classes=3).eval()
    module.load_state_dict(ours)
    folds = pd.read_parquet(study["folds"]).query("fold == 0 and partition == 'validation'")
    rows = pd.read_parquet(study["store"] / "index.parquet").set_index("case_id").loc[folds["case_id"], "row"]
    images = np.load(study["store"] / "pixels.npy")[rows.to_numpy()]
    targets = torch.tensor([CLASSES.index(label) for label in folds["label"]])
    with torch.no_grad():
        logits = module(torch.from_numpy((images.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5).float())
    loss = float(torch.nn.functional.cross_entropy(logits, targets))
    assert loss == pytest.approx(history.loc[card["best_epoch"], "validation_loss"], rel=1e-4)
    # Its head starts from zeros, which answer 1/3 for each class: a loss of ln 3.
    assert history["validation_loss"].min() < np.log(3)


def test_the_cost_of_features_is_this_jobs_over_all_its_runs(
    study: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves on by a thousand seconds when features are computed, and at nothing else."""
    torch.manual_seed(3)
    save_file(timm.create_model(NETWORK).state_dict(), tmp_path / "start.safetensors")
    options = with_model({"mode": "frozen", "weights": str(tmp_path / "start.safetensors")}, epochs=1)
    now = 0.0

    def computed(*arguments: object) -> Iterator[torch.Tensor]:
        nonlocal now
        now += 1000
        yield from features.computed_features(*arguments)  # type: ignore[arg-type]

    def seconds(out: Path) -> float:
        return float(json.loads((out / "cost.json").read_text())["device_seconds"])

    monkeypatch.setattr(feature_cache, "computed_features", computed)
    monkeypatch.setattr(feature_cache, "time", SimpleNamespace(perf_counter=lambda: now))
    with monkeypatch.context() as broken:
        broken.setattr(train, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments(study, tmp_path / "first", options))
    train.main(arguments(study, tmp_path / "first", options))
    assert 1000 <= seconds(tmp_path / "first") < 2000  # though the run that ended found all features
    train.main(arguments(study, tmp_path / "second", options))
    assert seconds(tmp_path / "second") < 1000  # the first job's
    card, other = ((tmp_path / name / "card.json").read_bytes() for name in ("first", "second"))
    assert card == other


def interrupted(*arguments: object, **named: object) -> None:
    raise KeyboardInterrupt


def test_another_generation_of_cpus_does_not_go_on_from_a_state(
    study: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    discard = Checkpoint.discard
    monkeypatch.setattr(Checkpoint, "discard", lambda self: None)
    caplog.set_level(logging.INFO, "marrowflow")
    train.main(arguments(study, tmp_path / "out", options_text(epochs=1)))
    train.main(arguments(study, tmp_path / "out", options_text(epochs=1)))
    assert caplog.text.count("going on from the state") == 1
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    monkeypatch.setattr(Checkpoint, "discard", discard)
    train.main(arguments(study, tmp_path / "out", options_text(epochs=1)))
    assert caplog.text.count("going on from the state") == 1
    assert json.loads((tmp_path / "out/card.json").read_text())["device"] == "cpu another"


def test_a_plan_of_other_patients_is_a_leak(study: dict[str, Path], tmp_path: Path) -> None:
    folds = pd.read_parquet(study["folds"])
    leaking = folds.assign(partition="train")
    draw_plan(leaking, 0, Augmentation(), CLASSES).to_parquet(tmp_path / "plan.parquet")
    with pytest.raises(UserError, match="does not train on"):
        train.main(
            arguments(study, tmp_path / "out", options_text(), "--plan", str(tmp_path / "plan.parquet"))
        )


def test_a_plan_of_another_table_of_folds_is_refused(study: dict[str, Path]) -> None:
    rows = pd.read_parquet(study["folds"]).query("fold == 0")
    plan = draw_plan(rows, 0, Augmentation(), CLASSES)
    swapped = plan.assign(label=plan["label"].replace({"red": "blue", "blue": "red"}))
    with pytest.raises(UserError, match=r"(?s)calls images otherwise.*'blue', not 'red'"):
        fold_samples.training_samples(rows, swapped, 0)
    with pytest.raises(UserError, match="holds no training image of blue, green"):
        fold_samples.training_samples(rows, plan[plan["label"] == "red"], 0)
    with pytest.raises(UserError, match="no column whiten"):
        fold_samples.training_samples(rows, plan.drop(columns="whiten"), 0)


def test_one_image_a_batch_is_too_few_for_batch_normalisation(study: dict[str, Path], tmp_path: Path) -> None:
    options = json.loads(options_text(batch_size=1, epochs=1))
    options["model"] |= {"network": "resnet18", "input_size": 32}  # 1 x 1 pixel before the last pooling
    with pytest.raises(UserError, match="batch_size to 2 or more"):
        train.main(arguments(study, tmp_path / "out", json.dumps(options)))


def test_unknown_fold_and_labels_are_refused(study: dict[str, Path]) -> None:
    folds = pd.read_parquet(study["folds"])
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        fold_samples.fold_rows(folds, 5, CLASSES)
    with pytest.raises(UserError, match="blue"):
        fold_samples.fold_rows(folds, 0, ["red", "green"])


def test_frozen_needs_a_linear_last_layer(study: dict[str, Path], tmp_path: Path) -> None:
    network = "deit_tiny_distilled_patch16_224"  # two last layers
    save_file(timm.create_model(network).state_dict(), tmp_path / "start.safetensors")
    options = json.loads(options_text())
    options["model"] = {"network": network, "mode": "frozen", "weights": str(tmp_path / "start.safetensors")}
    with pytest.raises(UserError, match="mode: finetune"):
        train.main(arguments(study, tmp_path / "out", json.dumps(options)))
    assert not (tmp_path / "out").exists()


def test_a_fold_without_validation_trains_all_epochs(study: dict[str, Path], tmp_path: Path) -> None:
    folds = pd.read_parquet(study["folds"])
    folds = folds[folds["partition"] != "validation"]
    folds.to_parquet(tmp_path / "folds.parquet")
    inputs = {**study, "folds": tmp_path / "folds.parquet"}
    train.main(arguments(inputs, tmp_path / "out", options_text(epochs=2)))
    history = pd.read_csv(tmp_path / "out/history.csv")
    assert len(history) == 2
    assert np.isnan(history["validation_loss"]).all()
