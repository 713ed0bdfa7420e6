"""A study of whole slides, painted small, from its manifests to its pages: two hospitals, two magnifications."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from little_slide_study import CLASSES, STUDY
from painted_slides import write_pyramid
from painted_studies import paint
from project import copy_project, planned, snakemake

CONFIG = ("--configfile", "resources/slides.yaml")


def manifest(project: Path, cohort: str) -> pd.DataFrame:
    return pd.read_csv(project / f"resources/slides/{cohort}/manifest.csv", dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def project(once):
    """The study, run once: among its slides one of clear glass, and one that is damaged."""

    def run(folder):
        copied = copy_project(folder / "marrowflow")
        paint("wang2022", copied / "resources/slides", patients=4, images=2)
        first = manifest(copied, "first")
        slides = copied / "resources/slides/first"
        (slides / first["image"][0]).write_bytes((slides / first["image"][0]).read_bytes()[:1000])
        write_pyramid(slides / first["image"][1], np.full((1024, 1024, 3), 243, np.uint8), 0.1)
        (copied / "resources/slides.yaml").write_text(yaml.safe_dump(STUDY))
        snakemake(copied, "--cores", "2", *CONFIG)

    return once("little_slides", run) / "marrowflow"


@pytest.fixture(scope="module")
def results(project):
    return project / "results/little"


def test_every_slide_is_answered_for_or_has_a_reason(project, results):
    first = manifest(project, "first")
    inventory = pd.read_parquet(results / "cohorts/first/inventory.parquet")
    assert inventory["status"].tolist() == ["excluded", *["included"] * 19]
    assert inventory["reason"][0].startswith("unreadable: ")
    raw = pd.read_parquet(results / "predictions/sound/paper/x40/out_of_fold.parquet")
    glass = raw[raw["case_id"] == f"first/{first['image'][1]}"]
    assert set(glass["status"]) <= {"not_done"}
    assert set(glass["reason"]) <= {"no tissue"}
    second = pd.read_parquet(results / "predictions/sound/paper/x40/second/predictions.parquet")
    assert len(second) == 20
    done = second[second["status"] == "ok"]
    assert done[[f"p_{name}" for name in CLASSES]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert set(done["predicted"]) <= set(CLASSES)
    assert set(second.loc[second["status"] != "ok", "reason"]) <= {"no tissue"}


def test_tiles_and_bags_agree_and_tilings_differ(results):
    counts = {}
    for cohort in ("first", "second"):
        for tiling in ("x10", "x40"):
            slides = pd.read_csv(results / f"tiles/{cohort}/{tiling}/slides.csv")
            tiles = pd.read_parquet(results / f"tiles/{cohort}/{tiling}/tiles.parquet")
            bags = pd.read_parquet(results / f"bags/{cohort}/{tiling}/bags.parquet")
            assert slides["tiles"].tolist() == bags["tiles"].tolist()
            assert len(tiles) == bags["tiles"].sum()
            counts[cohort, tiling] = bags["tiles"].median()
    # A tile of 32 px at 1 µm is as wide as two of 64 px at .25 µm.
    assert counts["first", "x40"] > 2 * counts["first", "x10"]


def test_no_patient_stands_on_two_sides(results):
    folds = pd.read_parquet(results / "splits/sound/folds.parquet")
    sides = folds.groupby(["fold", "patient_id"])["partition"].nunique()
    assert (sides == 1).all()


def test_a_network_says_what_it_is(results):
    card = json.loads((results / "training/sound/paper/x40/0/card.json").read_text())
    assert card["network"] == "wang2022 on resnet18"
    assert card["extractor"]["stage"] == 1
    assert card["tiles"]["train"]["fewest"] >= 1


def test_the_pages_stand_and_show_slides(results):
    page = (results / "report/index.html").read_text()
    for text in ("paper-x40", "most attended", "attention, percentiles", "Tilings", "0.25 µm a pixel (40×)"):
        assert text in page
    assert (results / "external/second/report.html").is_file()
    assert (results / "ro-crate-metadata.json").is_file()
    maps = pd.read_csv(results / "explanations/sound/second/cases.csv", keep_default_na=False)
    assert (maps["map"] != "").any()


def test_a_finished_study_has_nothing_to_do(project):
    assert planned(project, *CONFIG) == {}


def test_another_hospital_trains_nothing(project, tmp_path):
    copied = copy_project(tmp_path / "marrowflow", project)
    third = copied / "resources/slides/third"
    third.mkdir()
    rows = manifest(copied, "second").iloc[:2]
    shutil.copytree(copied / "resources/slides/second/slides", third / "slides")
    rows.to_csv(third / "manifest.csv", index=False)
    table = copied / "resources/slides/cohorts.tsv"
    line = table.read_text().splitlines()[-1].split("\t")
    added = ["third", "external", str(third / "manifest.csv"), "Third", line[4]]
    table.write_text(table.read_text() + "\t".join(added) + "\n")
    jobs = planned(copied, *CONFIG)
    assert jobs["extract_features"] == 2
    assert not {"train_slides", "lock_choices", "seal_development"} & jobs.keys()


def test_keys_of_images_are_refused(project, tmp_path):
    copied = copy_project(tmp_path / "marrowflow", project)
    for key, value, told in (
        ("models", {"a": {"network": "resnet18"}}, "list aggregators:"),
        ("augmentation", {"plan": "eight"}, "is of studies of images"),
        ("aggregators", {"a": {"tilings": ["x20"]}}, "aggregators.a.tilings"),
    ):
        (copied / "bad.yaml").write_text(yaml.safe_dump({**STUDY, key: value}))
        said = snakemake(copied, "--dry-run", "--configfile", "bad.yaml", check=False)
        assert said.returncode != 0
        assert told in said.stdout


def test_wang2022_at_its_shape(tmp_path):
    """Five classes, 129 and 30 patients, three magnifications: small slides, small tiles, and a small network for them."""
    project = copy_project(tmp_path / "marrowflow")
    paint("wang2022", project / "data/wang2022", images=2)
    config = yaml.safe_load((project / "resources/studies/wang2022.yaml").read_text())
    for tiling in config["slides"]["tilings"].values():
        tiling["size"] = 64
    config["slides"]["extractor"] = {"network": "resnet10t", "weights": "none", "stage": 1}
    config["splits"]["folds"] = 2
    config["training"]["epochs"] = 2
    config["aggregators"] = {name: config["aggregators"][name] for name in ("paper", "max")}
    config["accuracy"]["replicates"] = 200
    config["report"]["errors_shown"] = 2
    del config["assumed"]["aggregators.clam_mb"]
    # The table names the manifests of the project that painted them.
    config["cohorts"] = str(project / "data/wang2022/cohorts.tsv")
    (project / "small.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    snakemake(project, "--cores", "2", "--configfile", "small.yaml")
    results = project / "results/wang2022"
    numbers = {"first": (129, [45, 16, 25, 23, 20]), "second": (30, [10, 4, 6, 6, 4])}
    for cohort, (patients, by_class) in numbers.items():
        inventory = pd.read_parquet(results / f"cohorts/{cohort}/inventory.parquet")
        assert inventory["patient_id"].nunique() == patients
        assert inventory["label"].value_counts()[CLASSES].tolist() == by_class
    # The same division for all magnifications, so that differences are paired.
    compared = pd.read_csv(results / "comparisons/sound/development/comparisons.csv")
    assert {"paper-x40", "paper-x100", "max-x10", "max-x40", "max-x100"} <= set(compared["against"])
    page = (results / "report/index.html").read_text()
    for text in ("0.986", "mean of five divisions", "paper-x100"):
        assert text in page
    shutil.rmtree(results)
