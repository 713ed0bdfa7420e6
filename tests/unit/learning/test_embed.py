"""Features of a cohort's images against the networks run by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from pyarrow import parquet
from safetensors.torch import load_file
from small_study import CLASSES, NETWORK, make_study, with_model

from marrowflow import embedding_file
from marrowflow.errors import UserError
from marrowflow.files import write_json
from marrowflow.learning import embed, train
from marrowflow.learning.weight_files import write_weights

MODELS = {
    "scratch": {},
    "rest": {"head": "one_vs_rest"},
    "frozen": {"mode": "frozen", "weights": "start.safetensors"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One epoch of three models on fold 0."""
    folder = tmp_path_factory.mktemp("embed")
    paths = make_study(folder)
    shutil.copytree(paths["store"], folder / "stores" / "raw")
    torch.manual_seed(5)
    write_weights(folder / "start.safetensors", timm.create_model(NETWORK).state_dict(), {})
    for name, model in MODELS.items():
        model = dict(model)
        if "weights" in model:
            model["weights"] = str(folder / model["weights"])
        train.main(
            ["--options", with_model(model, epochs=1), "--fold", "0", "--folds", str(paths["folds"]),
             "--stores", str(paths["store"]), "--state", str(folder / "state" / name),
             "--features", str(folder / "features"), "--out", str(folder / "training" / name / "raw" / "0")]
        )  # fmt: skip
    return paths | {"folder": folder}


def embedded(run: dict[str, Path], index_test: str, tmp_path: Path, **members: list[str]) -> Path:
    folder, out = run["folder"], tmp_path / "embedding.parquet"
    write_json(tmp_path / "primary.json", {"index_test": index_test})
    models = sorted((folder / "training").glob("*/raw/0/*.*"))
    embed.main(
        ["--options", json.dumps({"classes": CLASSES, "members": members}), "--primary", str(tmp_path / "primary.json"),
         "--models", *map(str, models), "--inventory", str(run["inventory"]),
         "--stores", str(folder / "stores" / "raw" / "store.json"), "--folds", str(run["folds"]),
         "--features", str(folder / "features"), "--out", str(out)]
    )  # fmt: skip
    return out


def by_hand(run: dict[str, Path], name: str, cases: list[str]) -> np.ndarray:
    """What the classifier of the network is given, seen by a hook on it, from the files alone."""
    state = load_file(run["folder"] / "training" / name / "raw" / "0" / "model.safetensors")
    if name == "rest":
        state = {k.removeprefix("0."): v for k, v in state.items() if k.startswith("0.")}
    module = timm.create_model(NETWORK, num_classes=1 if name == "rest" else len(CLASSES)).eval()
    module.load_state_dict(state)
    rows = pd.read_parquet(run["store"] / "index.parquet").set_index("case_id").loc[cases, "row"].to_numpy()
    images = (np.load(run["store"] / "pixels.npy")[rows] / 255 - 0.5) / 0.5
    seen: list[torch.Tensor] = []
    module.get_classifier().register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.no_grad():
        module(torch.from_numpy(images.transpose(0, 3, 1, 2)).float())
    return seen[0].numpy()


@pytest.mark.parametrize("name", list(MODELS))
def test_features_are_what_the_last_layer_is_given(run: dict[str, Path], name: str, tmp_path: Path) -> None:
    path = embedded(run, f"{name}-raw", tmp_path)
    table, inventory = pd.read_parquet(path), pd.read_parquet(run["inventory"])
    assert table["case_id"].tolist() == inventory["case_id"].tolist()
    features = table.drop(columns=["case_id", "trained_on"])
    assert list(features) == [f"f{i}" for i in range(features.shape[1])]
    assert (features.dtypes == np.float32).all()
    np.testing.assert_allclose(features, by_hand(run, name, table["case_id"].tolist()), rtol=1e-4, atol=1e-5)
    again = path.read_bytes()
    assert embedded(run, f"{name}-raw", tmp_path).read_bytes() == again


def test_images_that_were_trained_on_are_marked(run: dict[str, Path], tmp_path: Path) -> None:
    folds = pd.read_parquet(run["folds"])
    trained = set(folds.loc[folds["fold"].eq(0) & folds["partition"].eq("train"), "case_id"])
    assert 0 < len(trained) < 36
    table = pd.read_parquet(embedded(run, "scratch-raw", tmp_path))
    assert set(table.loc[table["trained_on"], "case_id"]) == trained
    # The features of a frozen network come from other images altogether.
    assert not pd.read_parquet(embedded(run, "frozen-raw", tmp_path))["trained_on"].any()


def test_an_ensemble_is_embedded_by_its_first_member(run: dict[str, Path], tmp_path: Path) -> None:
    own = embedded(run, "scratch-raw", tmp_path).read_bytes()
    assert embedded(run, "both-raw", tmp_path, both=["scratch", "frozen"]).read_bytes() == own
    assert embedded(run, "both-raw", tmp_path, both=["frozen", "scratch"]).read_bytes() != own


def test_what_is_not_there(run: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--models names 0 folders of other/raw"):
        embedded(run, "other-raw", tmp_path)
    with pytest.raises(UserError, match="--stores names 0 folders of blue"):
        folder = run["folder"] / "training" / "scratch"
        shutil.copytree(folder / "raw", folder / "blue")
        try:
            models = [folder / "blue" / "0"]
            embed.embed(
                embed.Options(classes=CLASSES), "scratch-blue", models, pd.read_parquet(run["inventory"]),
                [run["folder"] / "stores" / "raw"], pd.DataFrame(), tmp_path, tmp_path / "out.parquet",
            )  # fmt: skip
        finally:
            shutil.rmtree(folder / "blue")
    nobody = pd.read_parquet(run["inventory"]).assign(status="excluded")
    with pytest.raises(UserError, match="no included image: nothing to embed"):
        embed.embed(
            embed.Options(classes=CLASSES),
            "scratch-raw",
            [],
            nobody,
            [],
            pd.DataFrame(),
            tmp_path,
            tmp_path / "out",
        )


@pytest.mark.parametrize("portions", [(5,), (1, 2, 2), (3, 2)])
def test_the_table_is_written_in_groups(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, portions: tuple[int, ...]
) -> None:
    monkeypatch.setattr(embedding_file, "_GROUP", 2)
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    known = np.array([True, False, False, True, False])
    parts = iter(np.split(rows, np.cumsum(portions)[:-1]))
    embedding_file.write_embedding(tmp_path / "e.parquet", list("abcde"), known, parts)
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert table["case_id"].tolist() == list("abcde")
    assert table["trained_on"].tolist() == known.tolist()
    np.testing.assert_array_equal(table[["f0", "f1", "f2"]], rows)
    about = parquet.ParquetFile(tmp_path / "e.parquet").metadata
    assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [2, 2, 1]
