"""A small slice of each study of real smears, whole: needs the image sets of ../shared/data."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from attention_cells import attention_of, cell_predictions
from project import ROOT, copy_project, snakemake
from real_data import MARROW_TYPES, convert

SHARED = ROOT.parent / "shared/data"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real smears at {SHARED.relative_to(ROOT.parent)}"),
]


def run(tmp_path: Path, study: str, limit: int, models: list[str]) -> Path:
    """Convert a slice, cut the study down to some models on one recipe and two epochs, run it; return its results."""
    project = copy_project(tmp_path / "marrowflow")
    convert(study, SHARED, project / "data" / study, limit)
    table = project / "data" / study / "cohorts.tsv"
    table.write_text(table.read_text().replace(f"{project}/", ""))
    config = yaml.safe_load((project / f"resources/studies/{study}.yaml").read_text())
    config["splits"]["folds"] = 2
    config["accuracy"] = {"replicates": 200}
    config["models"] = {name: config["models"][name] for name in models}
    config["published"] = []
    targets = config["augmentation"].get("targets", {})
    config["augmentation"]["targets"] = {name: min(number, 2 * limit) for name, number in targets.items()}
    for model in config["models"].values():
        model["colours"] = [next(iter(config["colour"]))]
        model.setdefault("training", {})["epochs"] = 2
    path = project / "slice.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(project, "--cores", "2", "--configfile", "slice.yaml")
    results = project / "results" / config["study"]["key"]
    assert (results / "report/index.html").is_file()
    return results


def test_white_cells_of_three_sites(tmp_path):
    results = run(tmp_path, "wbc_sites", 12, ["lite0_finetune", "squeezenet_frozen"])
    for cohort in ("tecom", "cellavision"):
        page = (results / "external" / cohort / "report.html").read_text()
        assert "surrogate" in page
        metrics = pd.concat(pd.read_csv(p) for p in results.glob(f"accuracy/sound/*/*/{cohort}/metrics.csv"))
        assert metrics["estimate"].notna().any()
        assert set(metrics["unit"]) == {"case"}
    # one and three basophils outside: no interval is clustered over fewer than two patients
    few = metrics[(metrics["class"] == "basophil") & (metrics["metric"] == "sensitivity")]
    assert len(few)
    shutil.rmtree(results)


def test_malaria_beside_its_leaky_split(tmp_path):
    results = run(tmp_path, "malaria", 300, ["resnet10_scratch"])
    assert "leaky protocol" in (results / "report/index.html").read_text()
    optimism = pd.concat(pd.read_csv(p) for p in results.glob("optimism/*/*/optimism.csv"))
    assert {"leaky", "sound", "optimism"} <= set(optimism.columns)
    assert (optimism["leaky"] - optimism["sound"] - optimism["optimism"]).abs().max() < 1e-12
    shutil.rmtree(results)


def test_marrow_lineages_of_real_cells(tmp_path):
    results = run(tmp_path, "bt5153_barcelona", 12, ["cnn"])
    card = pd.read_json(results / "training/sound/cnn/raw/0/card.json", typ="series")
    # The published network: its trainable parameters, whatever the side of its input.
    assert card["parameters"] == {"total": 2_778_013, "trainable": 2_778_013}
    inventory = pd.read_parquet(results / "cohorts/barcelona/inventory.parquet")
    assert inventory["type"].value_counts().to_dict() == dict.fromkeys(MARROW_TYPES.values(), 12)
    assert inventory["label"].value_counts()["granulopoiesis"] == 7 * 12
    table = pd.read_parquet(results / "predictions/sound/cnn/raw/development/predictions.parquet")
    assert len(table) == len(MARROW_TYPES) * 12
    shutil.rmtree(results)


def test_malaria_by_the_patients_label(tmp_path):
    """Twenty patients: what is attended to is scored against what each cell is, which no step was told."""
    project = copy_project(tmp_path / "marrowflow")
    convert("malaria_slides", SHARED, project / "data/malaria_slides", 10)
    table = project / "data/malaria_slides/cohorts.tsv"
    table.write_text(table.read_text().replace(f"{project}/", ""))
    config = yaml.safe_load((project / "resources/studies/malaria_slides.yaml").read_text())
    config["splits"]["folds"] = 2
    config["accuracy"] = {"replicates": 200}
    config["training"]["epochs"] = 5
    config["slides"]["extractor"] |= {"network": "resnet10t", "weights": "none", "stage": 2, "input_size": 48}
    config["aggregators"] = {"gated": config["aggregators"]["gated"]}
    (project / "slice.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(project, "--cores", "2", "--configfile", "slice.yaml")
    results = project / "results/malaria_slides"
    assert (results / "report/index.html").is_file()
    cells = pd.read_csv(project / "data/malaria_slides/nih/cells.csv")
    tiles = pd.read_parquet(results / "tiles/nih/cells/tiles.parquet")
    # A tile is a cell: the same corners, none more and none less.
    own = cells.assign(case_id="nih/" + cells["image"])[["case_id", "x", "y"]]
    both = own.merge(tiles[["case_id", "x", "y"]], how="outer", indicator=True)
    assert (both["_merge"] == "both").all()
    table = attention_of(results, "gated-cells", "infected", tmp_path)
    scored = cell_predictions(table, cells, "relative")
    assert len(scored) == len(cells)
    assert scored["p_parasitised"].between(0, 1).all()
    assert scored.groupby("patient_id")["attention"].sum().to_numpy() == pytest.approx(1)
    shutil.rmtree(results)
