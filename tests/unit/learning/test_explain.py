"""Maps of the cases that are shown, against class activation maps made from the files by hand."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from small_study import CLASSES, NETWORK, colour_images, write_store

from marrowflow.choices.threshold import digest_of
from marrowflow.errors import UserError
from marrowflow.files import write_json
from marrowflow.learning import explain
from marrowflow.learning.backbones import OneVsRest
from marrowflow.learning.weight_files import write_weights
from marrowflow.predictions import write_predictions

SIDE = 96  # three places across for the small network
OPTIONS = {
    "classes": CLASSES,
    "endpoints": {"warm": {"positive": ["red"]}},
    "units": ["case"],
    "threads": {"one": 1, "two": 1, "each": 1, "small": 1},
    "members": {"both": ["one", "two"]},
    "errors_shown": 4,
}
# case, truth, probabilities of red, green and blue, fold
ANSWERS = [
    ("a/000.png", "green", (0.8, 0.1, 0.1), 0),
    ("a/001.png", "red", (0.2, 0.7, 0.1), 1),
    ("a/002.png", "red", (0.1, 0.3, 0.6), -1),
    ("a/003.png", "blue", (0.1, 0.3, 0.6), 0),
    ("a/004.png", "inconclusive", (0.3, 0.6, 0.1), -1),
]


def net(seed: int, outputs: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(NETWORK, num_classes=outputs).eval()


def learnt(seed: int, outputs: int = 3) -> torch.nn.Module:
    """A network whose maps are nowhere empty: all features speak for all classes."""
    module = net(seed, outputs)
    with torch.no_grad():
        module.get_classifier().weight.abs_()
    return module


def write_network(folder: Path, module: torch.nn.Module, fold: int, **about: object) -> Path:
    note = {
        "network": NETWORK, "profile": "corrected", "mode": "scratch", "classes": CLASSES, "head": "softmax",
        "heads": [], "input_size": SIDE, "mean": [0.5] * 3, "std": [0.5] * 3, "precision": "float32", "fold": fold,
    }  # fmt: skip
    write_weights(folder / "model.safetensors", module.state_dict(), note | about)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of two folds, one of them one network a class; answers as listed, and images."""
    root = tmp_path_factory.mktemp("study")
    images, _ = colour_images(5, SIDE)
    write_store(root / "images/a/raw", [case for case, *_ in ANSWERS], images)
    for fold in (0, 1):
        for m, model in enumerate(("one", "two")):
            write_network(root / f"training/sound/{model}/raw/{fold}", learnt(10 * m + fold), fold)
        each = OneVsRest([learnt(100 * fold + i, 1) for i in range(3)])
        write_network(root / f"training/sound/each/raw/{fold}", each, fold, head="one_vs_rest")
    # Case 2 was tested in both folds; it is the mean of both that answered.
    tested = [("a/000.png", 0), ("a/001.png", 1), ("a/002.png", 0), ("a/002.png", 1), ("a/003.png", 0)]
    folds = pd.DataFrame(tested, columns=["case_id", "fold"]).assign(partition="test")
    folds.to_parquet(root / "folds.parquet")
    for name in ("one-raw", "two-raw", "each-raw", "both-raw"):
        write_answers(root, name, ANSWERS)
    return root


def write_answers(root: Path, name: str, answers: list[tuple]) -> None:
    table = pd.DataFrame(
        {
            "case_id": [case for case, *_ in answers],
            "patient_id": [case for case, *_ in answers],
            "cohort": "a",
            "truth": [truth for _, truth, *_ in answers],
            **{f"p_{c}": [p[i] if p else np.nan for _, _, p, _ in answers] for i, c in enumerate(CLASSES)},
            "fold": [fold for *_, fold in answers],
            "index_test": name,
            "status": ["ok" if p else "indeterminate" for _, _, p, _ in answers],
            "reason": ["" if p else "almost black" for _, _, p, _ in answers],
        }
    )
    write_predictions(root / "predictions" / f"{name}.parquet", table, CLASSES)
    lock = {"index_test": name, "endpoints": {"warm": {"positive": ["red"], "case": {"threshold": 0.4}}}}
    write_json(root / "locks" / f"{name}.json", lock | {"digest": digest_of(lock)})


def run(root: Path, out: Path, primary: str = "one-raw", **options: object) -> pd.DataFrame:
    """Explain the primary index test, given the files of all."""
    write_json(out / "primary.json", {"index_test": primary})
    explain.main(
        ["--options", json.dumps(OPTIONS | options), "--primary", str(out / "primary.json"),
         "--predictions", *map(str, sorted((root / "predictions").glob("*.parquet"))),
         "--locks", *map(str, sorted((root / "locks").glob("*.json"))), "--folds", str(root / "folds.parquet"),
         "--models", *map(str, sorted(root.glob("training/*/*/*/*/model.safetensors"))),
         "--stores", *map(str, sorted(root.glob("images/*/*"))), "--out", str(out)]
    )  # fmt: skip
    return pd.read_csv(out / "cases.csv", keep_default_na=False).set_index("case_id")


def picture(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def activation(module: torch.nn.Module, image: np.ndarray, output: int) -> np.ndarray:
    """Class activation map of a network that ends in a mean and a linear layer, enlarged, its largest value 1."""
    x = torch.from_numpy((image.transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5).float()
    with torch.no_grad():
        features = module.forward_features(x)[0].double().numpy()
    weights = module.get_classifier().weight[output].detach().double().numpy()
    small = np.maximum(np.einsum("k,khw->hw", weights, features), 0)
    large = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return large / large.max() if large.max() > 0 else large


def grey(maps: list[np.ndarray]) -> np.ndarray:
    mean = np.mean(maps, axis=0)
    return 255 * mean / mean.max()


def image_of(root: Path, case: str) -> np.ndarray:
    row = pd.read_parquet(root / "images/a/raw/index.parquet").set_index("case_id").loc[case, "row"]
    return np.load(root / "images/a/raw/pixels.npy")[row]


def trained(root: Path, model: str, fold: int) -> torch.nn.Module:
    module = net(0)
    module.load_state_dict(load_file(root / f"training/sound/{model}/raw/{fold}/model.safetensors"))
    return module


@pytest.mark.parametrize(
    ("case", "output", "folds"), [("a/000.png", 0, [0]), ("a/001.png", 1, [1]), ("a/002.png", 2, [0, 1]), ("a/004.png", 1, [0, 1])]
)  # fmt: skip
def test_the_networks_that_answered_are_explained(study, tmp_path, case, output, folds):
    row = run(study, tmp_path).loc[case]
    image = image_of(study, case)
    expected = grey([activation(trained(study, "one", fold), image, output) for fold in folds])
    np.testing.assert_allclose(picture(tmp_path / row["map"]), expected, atol=1.01)
    assert (row["networks"], row["grid"], row["explained_class"]) == (len(folds), "3 x 3", CLASSES[output])
    assert row["predicted"] == CLASSES[output]


def test_the_control_is_the_same_of_networks_that_learnt_nothing(study, tmp_path):
    row = run(study, tmp_path).loc["a/002.png"]
    image = image_of(study, "a/002.png")
    control = picture(tmp_path / row["control"])
    # Weights drawn as timm draws them, from the seeds 0 to 4.
    np.testing.assert_allclose(
        control, grey([activation(net(seed), image, 2) for seed in range(5)]), atol=1.01
    )
    drawn = picture(tmp_path / row["map"])
    assert not np.array_equal(control, drawn)
    assert float(row["correlation"]) == pytest.approx(
        spearmanr(control.ravel(), drawn.ravel()).statistic, abs=1e-6
    )


def test_an_ensemble_is_explained_by_its_members(study, tmp_path):
    row = run(study, tmp_path, "both-raw").loc["a/001.png"]
    image = image_of(study, "a/001.png")
    expected = grey([activation(trained(study, model, 1), image, 1) for model in ("one", "two")])
    np.testing.assert_allclose(picture(tmp_path / row["map"]), expected, atol=1.01)
    assert row["networks"] == 2


def test_one_vs_rest_is_explained_by_the_network_of_the_class(study, tmp_path):
    row = run(study, tmp_path, "each-raw").loc["a/002.png"]
    image = image_of(study, "a/002.png")
    expected = grey([activation(learnt(100 * fold + 2, 1), image, 0) for fold in (0, 1)])
    np.testing.assert_allclose(picture(tmp_path / row["map"]), expected, atol=1.01)


def another(study: Path, root: Path, answers: list[tuple], folds: pd.DataFrame) -> Path:
    """The study's networks and images with other answers."""
    root.mkdir()
    for name in ("training", "images"):
        (root / name).symlink_to(study / name)
    folds.to_parquet(root / "folds.parquet")
    write_answers(root, "one-raw", answers)
    return root


def test_other_hospitals_are_answered_by_all_folds(study, tmp_path):
    folds = pd.read_parquet(study / "folds.parquet")
    answers = [("a/003.png", "red", (0.1, 0.3, 0.6), -1)]
    elsewhere = another(study, tmp_path / "study", answers, folds[folds["case_id"] != "a/003.png"])
    table = run(elsewhere, tmp_path)
    # One answer: an error, and the closest to the cut-off, as nothing is inconclusive.
    assert table["kind"].tolist() == ["error", "closest"] and table["networks"].tolist() == [2, 2]
    image = image_of(study, "a/003.png")
    expected = grey([activation(trained(study, "one", fold), image, 2) for fold in (0, 1)])
    for name in table["map"]:
        np.testing.assert_allclose(picture(tmp_path / name), expected, atol=1.01)


def test_the_table_lists_the_cases_in_the_order_of_the_page(study, tmp_path):
    table = run(study, tmp_path)
    assert table["kind"].to_dict() == {
        "a/000.png": "error", "a/001.png": "error", "a/002.png": "error", "a/004.png": "inconclusive",
    }  # fmt: skip
    assert table["map"].tolist() == [f"maps/{n}.png" for n in (1, 2, 3, 4)]
    assert table["control"].tolist() == [f"maps/{n}_control.png" for n in (1, 2, 3, 4)]
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == sorted(
        Path(name).name for name in [*table["map"], *table["control"]]
    )
    mean = table["correlation"].astype(float).mean()
    assert table["mean_correlation"].tolist() == [pytest.approx(mean, abs=1e-6)] * 4


def test_the_same_inputs_give_the_same_bytes(study, tmp_path):
    contents = []
    for name in ("first", "second"):
        run(study, tmp_path / name)
        files = sorted((tmp_path / name).rglob("*.*"))
        contents.append([(p.name, p.read_bytes()) for p in files])
    assert contents[0] == contents[1] and len(contents[0]) == 10


def test_a_case_without_an_answer_has_no_map(study, tmp_path):
    answers = [("a/000.png", "green", None, -1), *ANSWERS[1:2]]
    folder = another(study, tmp_path / "study", answers, pd.read_parquet(study / "folds.parquet"))
    table = run(folder, tmp_path)
    row = table.loc["a/000.png"]
    assert (row["map"], row["networks"], row["correlation"]) == ("", 0, "")
    assert row["reason"] == "no answer to explain: almost black"
    assert table.loc["a/001.png", "map"] == "maps/1.png"


def test_a_network_without_maps_gives_its_reason(tmp_path):
    images, _ = colour_images(5, 32)
    write_store(tmp_path / "images/a/raw", [case for case, *_ in ANSWERS], images)
    for fold in (0, 1):
        write_network(tmp_path / f"training/sound/one/raw/{fold}", net(fold), fold, input_size=32)
    folds = pd.DataFrame({"case_id": ["a/000.png"], "fold": [0], "partition": ["test"]})
    folds.to_parquet(tmp_path / "folds.parquet")
    write_answers(tmp_path, "one-raw", ANSWERS)
    table = run(tmp_path, tmp_path / "out")
    assert set(table["map"]) == {""} and set(table["mean_correlation"]) == {""}
    assert all(
        reason.startswith("one has no map: its last feature maps are of one place")
        for reason in table["reason"]
    )
    assert not list((tmp_path / "out/maps").iterdir())


@pytest.mark.parametrize(
    ("about", "outputs", "logit"),
    [
        # A frozen one-vs-rest model is one network with a logit a class.
        ({"mode": "frozen", "head": "one_vs_rest"}, 3, 2),
        # Heads stand in the order of their names: the endpoint's logit comes before the classes'.
        ({"heads": [{"name": "cold", "weight": 0.5, "positive": ["blue"]},
                    {"name": "diagnosis", "weight": 0.5, "positive": None}]}, 4, 3),
    ],
)  # fmt: skip
def test_the_logit_of_the_class_is_explained(study, tmp_path, about, outputs, logit):
    folder = tmp_path / "study"
    module = learnt(5, outputs)
    write_network(folder / "training/sound/one/raw/0", module, 0, **about)
    (folder / "images").symlink_to(study / "images")
    pd.read_parquet(study / "folds.parquet")[:0].to_parquet(folder / "folds.parquet")
    write_answers(folder, "one-raw", [("a/003.png", "red", (0.1, 0.3, 0.6), -1)])
    run(folder, tmp_path)
    expected = grey([activation(module, image_of(study, "a/003.png"), logit)])
    np.testing.assert_allclose(picture(tmp_path / "maps/1.png"), expected, atol=1.01)


def test_what_is_not_given_is_named(study, tmp_path):
    folder = another(study, tmp_path / "study", ANSWERS, pd.read_parquet(study / "folds.parquet"))
    with pytest.raises(UserError, match="no lock of lost-raw, the primary index test"):
        run(folder, tmp_path, "lost-raw")
    for name in ("small-raw", "one-other"):
        write_answers(folder, name, ANSWERS)
        with pytest.raises(UserError, match=f"no network of {name}"):
            run(folder, tmp_path, name)
    (folder / "predictions/one-raw.parquet").unlink()
    with pytest.raises(UserError, match="no table of one-raw, the primary index test"):
        run(folder, tmp_path)


def test_a_fold_without_a_network_is_named(study, tmp_path):
    folder = tmp_path / "study"
    write_network(folder / "training/sound/one/raw/0", net(0), 0)
    (folder / "images").symlink_to(study / "images")
    pd.read_parquet(study / "folds.parquet").to_parquet(folder / "folds.parquet")
    write_answers(folder, "one-raw", ANSWERS)
    with pytest.raises(UserError, match=r"no network of one of the folds \[1\]"):
        run(folder, tmp_path)
