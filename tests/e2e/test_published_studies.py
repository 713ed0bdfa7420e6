"""Each published study, whole, on painted material of its classes, image size and hospitals: smaller, and both protocols.

The configurations are those of resources/studies; only their size is cut down, and pretrained weights, which need a
download, are replaced by a file of random ones. Figures mean nothing here: the shape of the results does.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import yaml
from painted_studies import MARROW_TYPES, paint
from project import ROOT, copy_project, snakemake

from marrowflow.config import load_study

TINY = "test_resnet"  # timm's network for tests: 160 px, .5 million parameters


def run(tmp_path: Path, key: str, patients: int, images: int | None, change) -> Path:
    """Paint, cut the configuration down, run it as published (and sound beside it); return the results."""
    project = copy_project(tmp_path / "marrowflow")
    table = paint(key.removesuffix("_types"), project / "data" / key.removesuffix("_types"), patients, images)
    table.write_text(table.read_text().replace(f"{project}/", ""))
    config = yaml.safe_load((ROOT / f"resources/studies/{key}.yaml").read_text())
    # Small enough to run, large enough that every class stands in every part.
    config["splits"] |= {"protocol": "as_published", "folds": 2, "validation": 0.4}
    config["accuracy"]["replicates"] = 100
    config["training"] |= {"epochs": 1, "threads": 1}
    change(config, project)
    kept = load_study({**config, "published": []}).index_tests
    config["published"] = [row for row in config["published"] if row["index_test"] in kept]
    (project / "small.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(project, "--cores", "2", "--configfile", "small.yaml")
    results = project / "results" / config["study"]["key"]
    page = (results / "report/index.html").read_text()
    assert "leaky protocol" in page
    check_published(results, config["published"])
    return results


def check_published(results: Path, published: list[dict]) -> None:
    """Every published value has ours beside it under both protocols; so few images may leave it undefined, and no more."""
    path = results / "report/figures/published.csv"
    if not published:
        assert not path.exists()
        return
    rows = pd.read_csv(path, keep_default_na=False)
    assert len(rows) == 2 * len(published)
    for _, own in rows.groupby("protocol"):
        assert own["metric"].tolist() == [value["metric"] for value in published]
    lost = rows[rows["missing"].ne("")]
    assert lost["missing"].str.startswith("undefined").all(), lost["missing"].tolist()
    assert rows["estimate"].ne("").equals(rows["missing"].eq(""))
    assert rows["estimate"].ne("").any()


def images_counted(box: dict) -> dict[str, int]:
    """Return the images of a flow diagram that were tested, and the eligible ones that were not."""
    eligible = next(child for child in box["boxes"] if child["label"] == "Eligible")
    return {child["label"]: child["images"] for child in eligible["boxes"]}


def random_weights(network: str, path: Path) -> str:
    torch.save(timm.create_model(network).state_dict(), path)
    return path.name


def metrics(results: Path, test: str, cohort: str = "development", protocol: str = "sound") -> pd.DataFrame:
    return pd.read_csv(results / "accuracy" / protocol / test.replace("-", "/") / cohort / "metrics.csv")


def test_huang2020(tmp_path):
    def smaller(config, project):
        weights = random_weights(TINY, project / "tiny.pth")
        config["images"]["size"] = 64
        config["grid"]["networks"] = {"densenet121": {"network": TINY, "weights": weights, "input_size": 64}}
        # From scratch trains another study below.
        config["grid"]["modes"] = ["frozen", "finetune"]
        config["assumed"].pop("grid.modes")

    results = run(tmp_path, "huang2020", 4, 1, smaller)
    cells = [f"densenet121_{mode}-{c}" for mode in ("frozen", "finetune") for c in ("raw", "corrected")]
    inventories = [pd.read_parquet(p) for p in results.glob("cohorts/*/inventory.parquet")]
    assert len(inventories) == 3
    assert {(1920, 1200)} == {
        *zip(*(pd.concat(inventories)[side] for side in ("width", "height")), strict=True)
    }
    for cell in cells:
        rows = metrics(results, cell)
        whole = rows[(rows["endpoint"] == "classes") & (rows["metric"] == "accuracy") & rows["primary"]]
        # 3 hospitals x 4 classes x 4 patients with an image each, tested once
        assert whole.set_index("unit")["n_cases"].to_dict() == {"patient": 48, "case": 48}
    primary = json.loads((results / "locked/primary.json").read_text())
    assert (primary["index_test"], primary["how"]) == ("densenet121_finetune-corrected", "declared")
    listed = pd.read_csv(results / "report/figures/cells.csv")
    assert sorted(set(listed["index_test"])) == sorted(cells)


def test_bt5153(tmp_path):
    def smaller(config, project):
        weights = random_weights("inception_v3", project / "inception.pth")
        config["images"]["size"] = 96
        config["models"]["cnn"]["input_size"] = 48
        config["grid"]["networks"] = {
            "pre_cnn1": {
                "network": "bt5153/pre_cnn1",
                "input_size": 96,
                "weights": weights,
                "colours": ["raw"],
            }
        }
        config["ensembles"]["cnns"]["colours"] = ["raw"]
        config["assumed"] = {
            place: why
            for place, why in config["assumed"].items()
            if not place.startswith("grid.networks.") or place.startswith("grid.networks.pre_cnn1.")
        }
        types = pd.read_csv(ROOT / config["label_map"]).groupby("class")["label"].size()
        classes = pd.read_csv(ROOT / config["label_map"]).set_index("label")["class"]
        # 20 images of each lineage: a number that the numbers of its types divide
        config["augmentation"]["targets"] = {
            t: int(20 // types[classes[t]]) for t in config["augmentation"]["targets"]
        }

    results = run(tmp_path, "bt5153", 12, None, smaller)
    inventory = pd.read_parquet(results / "cohorts/marrow/inventory.parquet")
    assert inventory["type"].value_counts().to_dict() == dict.fromkeys(MARROW_TYPES, 12)
    assert set(inventory["patient_source"]) == {"surrogate"}
    assert set(inventory["width"]) == {250}
    # Each type that the fold trains on at its target: 20 of a lineage, shared by its types.
    folds = pd.read_parquet(results / "splits/sound/folds.parquet").query(
        "fold == 0 and partition == 'train'"
    )
    trained = folds.drop_duplicates("type").groupby("label").size()
    types = {"erythropoiesis": 2, "granulopoiesis": 10, "lymphopoiesis": 4, "monopoiesis": 1, "others": 4}
    plan = pd.read_parquet(results / "augmentation/sound/0/plan.parquet")
    expected = {name: trained[name] * 20 // types[name] for name in types}
    assert plan["label"].value_counts().to_dict() == expected
    # the mean of its members' probabilities, case by case
    columns = [f"p_{name}" for name in load_classes("bt5153")]
    parts = [
        pd.read_parquet(results / f"predictions/sound/{model}/raw/out_of_fold.parquet")
        .set_index(["case_id", "fold", "partition"])[columns]
        .sort_index()
        for model in ("cnn", "pre_cnn1_finetune_corrected", "cnns")
    ]
    assert ((parts[0] + parts[1]) / 2 - parts[2]).abs().to_numpy().max() < 1e-12
    assert set(metrics(results, "cnns-raw")["unit"]) == {"case"}


def test_bt5153_types(tmp_path):
    def smaller(config, project):
        config["images"]["size"] = 48
        config["models"]["cnn_one_vs_rest"] |= {
            "network": "test_efficientnet",
            "profile": "corrected",
            "input_size": 32,
        }

    results = run(tmp_path, "bt5153_types", 5, None, smaller)
    table = pd.read_parquet(results / "predictions/sound/cnn_one_vs_rest/raw/development/predictions.parquet")
    columns = [f"p_{name}" for name in load_classes("bt5153_types")]
    assert len(columns) == 21
    assert (table[columns].sum(axis=1) - 1).abs().max() > 1e-3
    assert (table[columns].idxmax(axis=1).str[2:] == table["predicted"]).all()
    history = pd.read_csv(results / "training/sound/cnn_one_vs_rest/raw/0/history.csv")
    assert list(history["network"]) == load_classes("bt5153_types")


def test_aamds2022(tmp_path):
    def smaller(config, project):
        weights = random_weights(TINY, project / "tiny.pth")
        config["images"]["size"] = 64
        config["grid"]["networks"]["resnet50"] = {"network": TINY, "weights": weights, "input_size": 64}
        config["grid"]["variants"].pop("w28")
        config["augmentation"]["copies"] = 1

    results = run(tmp_path, "aamds2022", 6, 1, smaller)
    test = "resnet50_finetune_w19-raw"
    table = pd.read_parquet(
        results / "predictions/sound/resnet50_finetune_w19/raw/hospital/predictions.parquet"
    )
    assert len(table) == 18
    assert table["endpoint_mds"].between(0, 1).all()
    # a head of its own, not the class's share
    assert (table["endpoint_mds"] - table["p_MDS"]).abs().max() > 1e-6
    # 8 transforms of one draw beside the original: 9 of each image, divided as if they were strangers
    published = pd.read_parquet(
        results / "predictions/as_published/resnet50_finetune_w19/raw/out_of_fold.parquet"
    )
    tested = published[published["partition"] == "test"]
    assert len(tested) == pytest.approx(0.3 * 18 * 9, abs=3)
    assert tested["patient_id"].nunique() < len(tested)
    # The flow counts images, of which any copy was tested; a patient has one.
    primary = json.loads((results / "locked/primary.json").read_text())
    model = primary["index_test"].removesuffix("-raw")
    table = pd.read_parquet(results / f"predictions/as_published/{model}/raw/out_of_fold.parquet")
    images = table.loc[table["partition"] == "test", "case_id"].str.partition("#")[0].nunique()
    assert 12 < images <= 18
    for name, tested in (("flow_bank_as_published", images), ("flow_bank", 18)):
        flow = json.loads((results / f"report/figures/{name}.json").read_text())
        assert flow["index_test"] == primary["index_test"]
        assert images_counted(flow["flow"]) == {"No index test": 18 - tested, "Index test": tested}
    rows = metrics(results, test, "hospital")
    assert set(rows["endpoint"]) == {"mds", "classes"}
    assert primary["how"] == "chosen"
    values = {
        name: metrics(results, f"resnet50_finetune_{name}-raw")
        .query("endpoint == 'mds' and metric == 'auc' and unit == 'patient' and primary")["estimate"]
        .item()
        for name in ("w55", "w19")
    }
    assert primary["index_test"] == f"resnet50_finetune_{max(values, key=values.get)}-raw"


def load_classes(key: str) -> list[str]:
    return yaml.safe_load((ROOT / f"resources/studies/{key}.yaml").read_text())["classes"]
