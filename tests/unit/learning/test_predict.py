"""Predictions of trained networks against the networks run by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file
from small_study import CLASSES, NETWORK, make_study, options_text

from marrowflow.errors import UserError
from marrowflow.learning import combine, lock, predict, predict_external, train

PROBABILITIES = [f"p_{name}" for name in CLASSES]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folds trained, predicted and locked."""
    folder = tmp_path_factory.mktemp("run")
    paths = make_study(folder)
    options = options_text(epochs=4)
    for fold in ("0", "1"):
        train.main(
            ["--options", options, "--fold", fold, "--folds", str(paths["folds"]), "--stores", str(paths["store"]),
             "--state", str(folder / "state" / fold), "--features", str(folder / "features"), "--out", str(folder / fold)]
        )  # fmt: skip
    short = json.dumps({key: json.loads(options)[key] for key in ("model", "classes")})
    paths |= {"folder": folder, "raw": folder / "out_of_fold.parquet", "lock": folder / "threshold.json"}
    # The folds in reverse: a network says itself which fold it is of.
    predict.main(
        ["--options", short, "--models", str(folder / "1"), str(folder / "0"), "--folds", str(paths["folds"]),
         "--inventories", str(paths["inventory"]), "--stores", str(paths["store"]),
         "--features", str(folder / "features"), "--index-test", "small-raw", "--out", str(paths["raw"])]
    )  # fmt: skip
    choices = {
        "classes": CLASSES,
        "endpoints": {"warm": {"positive": ["red"]}},
        "units": ["case"],
        "threshold": {"rule": "youden"},
        "calibration": {"method": "temperature"},
        "scheme": "kfold",
    }
    lock.main(
        ["--options", json.dumps(choices), "--raw", str(paths["raw"]), "--index-test", "small-raw",
         "--protocol", "sound", "--out", str(paths["lock"]), "--predictions", str(folder / "development.parquet")]
    )  # fmt: skip
    (folder / "options.json").write_text(short)
    return paths


def by_hand(run: dict[str, Path], fold: int, case: str) -> np.ndarray:
    """Return softmax of one network on one stored image, from the files alone."""
    module = timm.create_model(NETWORK, num_classes=3).eval()
    module.load_state_dict(load_file(run["folder"] / str(fold) / "model.safetensors"))
    row = pd.read_parquet(run["store"] / "index.parquet").set_index("case_id").loc[case, "row"]
    image = np.load(run["store"] / "pixels.npy")[row] / 255
    x = (image - 0.5) / 0.5
    with torch.no_grad():
        logits = module(torch.from_numpy(x.transpose(2, 0, 1)[None]).float())[0].double().numpy()
    return np.exp(logits) / np.exp(logits).sum()


def test_each_fold_answers_for_what_it_did_not_train_on(run: dict[str, Path]) -> None:
    raw, folds = pd.read_parquet(run["raw"]), pd.read_parquet(run["folds"])
    answered = raw[raw["fold"] >= 0].set_index(["fold", "case_id"])
    expected = folds[folds["partition"] != "train"].set_index(["fold", "case_id"])
    assert sorted(answered.index) == sorted(expected.index)
    assert (answered["partition"] == expected["partition"].reindex(answered.index)).all()
    assert (answered["truth"] == expected["label"].reindex(answered.index)).all()
    np.testing.assert_allclose(raw[PROBABILITIES].sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("fold", [0, 1])
def test_probabilities_are_the_networks(run: dict[str, Path], fold: int) -> None:
    raw = pd.read_parquet(run["raw"])
    row = raw[(raw["fold"] == fold) & (raw["partition"] == "test")].iloc[3]
    np.testing.assert_allclose(
        row[PROBABILITIES].astype(float), by_hand(run, fold, row["case_id"]), atol=1e-5
    )


def test_cases_without_a_reference_get_the_mean_of_all_networks(run: dict[str, Path]) -> None:
    raw = pd.read_parquet(run["raw"])
    rows = raw[raw["fold"] == -1].set_index("case_id")
    assert rows["truth"].to_dict() == {
        "a/033.png": "missing",
        "a/034.png": "missing",
        "a/035.png": "inconclusive",
    }
    assert set(rows["partition"]) == {"unlabelled"}
    mean = (by_hand(run, 0, "a/034.png") + by_hand(run, 1, "a/034.png")) / 2
    np.testing.assert_allclose(rows.loc["a/034.png", PROBABILITIES].astype(float), mean, atol=1e-5)


def test_surrogate_groups_are_known_as_such_to_the_end(run: dict[str, Path], tmp_path: Path) -> None:
    predict_external.main(external_arguments(run, run["inventory"], tmp_path / "p.parquet"))
    for path in (run["raw"], run["folder"] / "development.parquet", tmp_path / "p.parquet"):
        table = pd.read_parquet(path)
        # Patient 3 has no name in the inventory of the small study.
        assert set(table.loc[table["patient_source"] == "surrogate", "case_id"]) == {"a/006.png", "a/007.png"}
        assert set(table["patient_source"]) == {"manifest", "surrogate"}


def external_arguments(run: dict[str, Path], inventory: Path, out: Path) -> list[str]:
    return [
        "--options", (run["folder"] / "options.json").read_text(),
        "--models", str(run["folder"] / "0/model.safetensors"), str(run["folder"] / "1/model.safetensors"),
        "--inventory", str(inventory), "--store", str(run["store"]),
        "--features", str(out.with_name("features")), "--index-test", "small-raw", "--out", str(out),
    ]  # fmt: skip


def test_an_external_cohort_gets_the_locked_temperature(run: dict[str, Path], tmp_path: Path) -> None:
    inventory = pd.read_parquet(run["inventory"])
    inventory.loc[2, "status"] = "excluded"
    inventory.to_parquet(tmp_path / "inventory.parquet")
    predict_external.main(external_arguments(run, tmp_path / "inventory.parquet", tmp_path / "raw.parquet"))
    combine.main(
        ["--options", json.dumps({"classes": CLASSES}), "--tables", str(tmp_path / "raw.parquet"),
         "--lock", str(run["lock"]), "--index-test", "small-raw", "--out", str(tmp_path / "p.parquet")]
    )  # fmt: skip
    table = pd.read_parquet(tmp_path / "p.parquet").set_index("case_id")
    assert len(table) == 35
    assert "a/002.png" not in table.index
    assert set(table["partition"]) == {"external"}
    assert set(table["fold"]) == {-1}
    assert table.loc["a/035.png", "truth"] == "inconclusive"
    assert table.loc["a/000.png", "truth"] == "red"
    temperature = json.loads(run["lock"].read_text())["calibration"]["temperature"]
    mean = (by_hand(run, 0, "a/005.png") + by_hand(run, 1, "a/005.png")) / 2
    powered = mean ** (1 / temperature)
    expected = powered / powered.sum()
    np.testing.assert_allclose(table.loc["a/005.png", PROBABILITIES].astype(float), expected, atol=1e-5)
    raw = pd.read_parquet(tmp_path / "raw.parquet").set_index("case_id")
    np.testing.assert_allclose(raw.loc["a/005.png", PROBABILITIES].astype(float), mean, atol=1e-5)


def test_networks_must_be_those_of_the_folds(run: dict[str, Path], tmp_path: Path) -> None:
    options = (run["folder"] / "options.json").read_text()
    common = ["--folds", str(run["folds"]), "--inventories", str(run["inventory"]), "--stores", str(run["store"]),
              "--features", str(tmp_path / "features"), "--index-test", "small-raw", "--out", str(tmp_path / "raw.parquet")]  # fmt: skip
    with pytest.raises(UserError, match=r"folds \[0\].*\[0, 1\]"):
        predict.main(["--options", options, "--models", str(run["folder"] / "0"), *common])
    renamed = json.loads(options) | {"classes": ["red", "green", "violet"]}
    with pytest.raises(UserError, match="violet"):
        predict.main(["--options", json.dumps(renamed), "--models", str(run["folder"] / "0"), *common])
