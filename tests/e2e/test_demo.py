"""The demo study, run whole: what came out is compared with what was painted and with other libraries."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pytest
from explained import last_run
from project import DELTA, add_cohort, planned, replace, snakemake
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from marrowflow.files import sha256_of

CLASSES = ["healthy", "AML", "ALL", "CML"]
TESTS = [("lite0_finetune", "corrected"), ("lite0_frozen", "corrected"), ("lite0_frozen", "raw")]
COHORTS = ["development", "beta", "gamma"]
METRICS = [
    "endpoint",
    "metric",
    "class",
    "unit",
    "estimate",
    "low",
    "high",
    "method",
    "primary",
    "n_cases",
    "n_patients",
    "numerator",
    "denominator",
    "replicates",
    "undefined",
    "seed",
]


def table(project, *parts):
    path = project.joinpath("results/demo", *parts)
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def manifest(project, cohort):
    return pd.read_csv(project / f"resources/demo/{cohort}/manifest.csv")


def predictions(project, model, colour, cohort):
    return table(project, "predictions/sound", model, colour, cohort, "predictions.parquet")


def primary(metrics, **where):
    """Return the one primary row of a metric."""
    rows = metrics[metrics["primary"].astype(bool)]
    for column, value in where.items():
        rows = rows[rows[column].fillna("") == value]
    assert len(rows) == 1, (where, rows)
    return rows.iloc[0]


@pytest.mark.parametrize("cohort", ["alpha", "beta", "gamma"])
def test_every_line_of_the_manifest_stands_in_the_inventory(finished, cohort):
    inventory = table(finished, "cohorts", cohort, "inventory.parquet")
    assert inventory["image"].tolist() == manifest(finished, cohort)["image"].tolist()
    assert inventory["case_id"].is_unique
    assert (inventory["reason"] != "").eq(inventory["status"] == "excluded").all()


def test_what_was_planted_is_found(finished):
    inventory = table(finished, "cohorts/alpha/inventory.parquet")
    assert inventory["reason"].str.contains("unreadable").any(), "the truncated file"
    assert inventory["reason"].str.contains("not eligible").any()
    assert {"missing", "inconclusive"} <= set(inventory["reference_status"])
    assert 16 in set(inventory["bit_depth"])
    assert 1 in set(inventory["channels"])
    included = inventory[inventory["status"] == "included"]
    twice = included[included.duplicated("sha256", keep=False)]
    assert twice["patient_id"].nunique() > 1, "the exact duplicate across patients"
    folds = table(finished, "splits/sound/folds.parquet")
    groups = folds.drop_duplicates("patient_id").groupby("group")["patient_id"].nunique()
    assert groups.max() >= 2, "duplicates bind their patients together"


def test_each_patient_is_tested_once_and_never_trained_on_then(finished):
    folds = table(finished, "splits/sound/folds.parquet")
    sides = folds.groupby(["fold", "patient_id"])["partition"].nunique()
    assert (sides == 1).all()
    tested = folds[folds["partition"] == "test"].groupby("case_id").size()
    assert (tested == 1).all()
    assert set(tested.index) == set(folds["case_id"])


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize(("model", "colour"), TESTS)
def test_the_prediction_table_keeps_its_contract(finished, model, colour, cohort):
    rows = predictions(finished, model, colour, cohort)
    needed = [
        "case_id",
        "patient_id",
        "cohort",
        "truth",
        "predicted",
        "index_test",
        "fold",
        "partition",
        "status",
    ]
    assert set(needed) <= set(rows.columns)
    p = rows[[f"p_{c}" for c in CLASSES]].to_numpy()
    assert np.allclose(p.sum(axis=1), 1, atol=1e-6)
    assert rows["index_test"].unique().tolist() == [f"{model}-{colour}"]
    assert rows["case_id"].is_unique
    hospital = "alpha" if cohort == "development" else cohort
    inventory = table(finished, "cohorts", hospital, "inventory.parquet")
    assert set(rows["case_id"]) == set(inventory.loc[inventory["status"] == "included", "case_id"])


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize(("model", "colour"), TESTS)
def test_metrics_are_what_scikit_learn_says(finished, model, colour, cohort):
    metrics = table(finished, "accuracy/sound", model, colour, cohort, "metrics.csv")
    assert list(metrics.columns) == METRICS
    rows = predictions(finished, model, colour, cohort)
    rows = rows[rows["truth"].isin(CLASSES)]
    score = rows[["p_AML", "p_ALL", "p_CML"]].sum(axis=1)
    sick = rows["truth"] != "healthy"
    image = primary(metrics, endpoint="leukaemia", metric="auc", unit="case", **{"class": ""})
    assert image["estimate"] == pytest.approx(roc_auc_score(sick, score), abs=1e-12)
    assert image["n_cases"] == len(rows)
    patients = pd.DataFrame({"sick": sick, "score": score}).groupby(rows["patient_id"]).mean()
    whole = primary(metrics, endpoint="leukaemia", metric="auc", unit="patient", **{"class": ""})
    assert whole["estimate"] == pytest.approx(roc_auc_score(patients["sick"], patients["score"]), abs=1e-12)
    assert whole["n_patients"] == len(patients)
    balanced = primary(metrics, endpoint="classes", metric="balanced_accuracy", unit="case", **{"class": ""})
    assert balanced["estimate"] == pytest.approx(
        balanced_accuracy_score(rows["truth"], rows["predicted"]), abs=1e-12
    )


@pytest.mark.parametrize("cohort", COHORTS)
def test_sensitivity_and_specificity_are_counted_at_the_locked_threshold(finished, cohort):
    lock = json.loads(
        (finished / "results/demo/locked/sound/lite0_finetune/corrected/threshold.json").read_text()
    )
    rows = predictions(finished, "lite0_finetune", "corrected", cohort)
    rows = rows[rows["truth"].isin(CLASSES)]
    metrics = table(finished, "accuracy/sound/lite0_finetune/corrected", cohort, "metrics.csv")
    scores = rows.assign(
        score=rows[["p_AML", "p_ALL", "p_CML"]].sum(axis=1), sick=(rows["truth"] != "healthy").astype(float)
    )
    units = {"case": scores, "patient": scores.groupby("patient_id")[["score", "sick"]].mean()}
    for unit, answers in units.items():
        positive = answers["score"] >= lock["endpoints"]["leukaemia"][unit]["threshold"]
        for name, among in (("sensitivity", answers["sick"] == 1), ("specificity", answers["sick"] == 0)):
            row = primary(metrics, endpoint="leukaemia", metric=name, unit=unit, **{"class": ""})
            hits = (positive == (name == "sensitivity"))[among].sum()
            assert (row["numerator"], row["denominator"]) == (hits, among.sum())


def test_the_demo_is_neither_chance_nor_perfect(finished):
    for cohort in COHORTS:
        metrics = table(finished, "accuracy/sound/lite0_finetune/corrected", cohort, "metrics.csv")
        accuracy = primary(metrics, endpoint="classes", metric="accuracy", unit="case", **{"class": ""})
        assert 0.35 < accuracy["estimate"] < 0.97, cohort


class Links(HTMLParser):
    """Collects what a page would load or point to."""

    def __init__(self):
        super().__init__()
        self.loaded, self.links = [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in ("iframe", "object") or (tag == "script" and "src" in attributes):
            self.loaded.append(tag)
        if tag in ("img", "link"):
            self.loaded.append(attributes.get("src") or attributes.get("href") or "")
        if tag == "a":
            self.links.append(attributes.get("href", ""))


@pytest.mark.parametrize(
    "page", ["report/index.html", "external/beta/report.html", "external/gamma/report.html"]
)
def test_a_page_stands_by_itself_and_its_links_lead_to_files(finished, page):
    path = finished / "results/demo" / page
    text = path.read_text()
    links = Links()
    links.feed(text)
    assert all(source.startswith("data:") for source in links.loaded)
    files = [urlsplit(link) for link in links.links if not link.startswith("#")]
    assert files
    made = 0
    for link in files:
        file = path.parent / unquote(link.path)
        assert file.is_file(), link
        if link.fragment:
            there = file.read_text()
            assert f'id="{link.fragment}"' in there or f'id="{unquote(link.fragment)}"' in there, link
            made += file.name == "lineage.html"
    # Each number's source leads to what made it.
    assert made > 50
    assert "painted by a program" in text


def test_the_flow_diagram_counts_the_patients_of_the_manifest(finished):
    for cohort in ("beta", "gamma"):
        patients = manifest(finished, cohort)["patient_id"].nunique()
        flow = (finished / "results/demo/external" / cohort / f"figures/flow_{cohort}.json").read_text()
        assert re.search(rf"\b{patients}\b", flow)


def test_a_fourth_hospital_runs_for_real_and_trains_nothing(copy):
    trained = {p: p.stat().st_mtime_ns for p in copy.glob("results/demo/training/**/model.safetensors")}
    locked = {p: p.read_bytes() for p in copy.glob("results/demo/locked/**/threshold.json")}
    assert len(trained) == 9
    add_cohort(copy, DELTA)
    snakemake(copy, "--cores", "2")
    ran = last_run(copy)
    assert ran["ingest_cohort"] == 1
    assert "train_fold" not in ran
    assert {p: p.stat().st_mtime_ns for p in trained} == trained
    assert {p: p.read_bytes() for p in locked} == locked
    assert (copy / "results/demo/external/delta/report.html").is_file()
    assert "Hospital D (painted)" in (copy / "results/demo/report/index.html").read_text()
    assert planned(copy) == {}


def test_other_cores_give_the_same_bytes(copy):
    target = "results/demo/training/sound/lite0_frozen/raw/0/model.safetensors"
    before = sha256_of(copy / target)
    snakemake(copy, "--cores", "1", "--force", target)
    assert sha256_of(copy / target) == before


def test_a_killed_training_resumes_to_the_same_weights(copy):
    target = "results/demo/training/sound/lite0_finetune/corrected/0/model.safetensors"
    before = sha256_of(copy / target)
    (copy / target).unlink()
    running = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--force", target],
        cwd=copy,
        env={**os.environ, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    state = copy / "results/demo/state/train_fold/sound/lite0_finetune/corrected/0"
    deadline = time.monotonic() + 120
    # a state is renamed to its name when it is whole; what is still being written begins with a dot
    while not list(state.glob("*/[!.]*.pt")) and time.monotonic() < deadline:
        assert running.poll() is None, "training ended before it could be killed"
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (copy / target).exists()
    snakemake(copy, "--unlock")
    snakemake(copy, "--cores", "2", target)
    assert sha256_of(copy / target) == before
    log = (copy / "results/demo/logs/train_fold/sound/lite0_finetune/corrected/0.log").read_text()
    assert "going on from the state of an interrupted run" in log
    assert "epoch 1/8" not in log


def test_an_image_replaced_after_intake_stops_the_run(copy):
    image = copy / "resources/demo/beta" / manifest(copy, "beta")["image"].iloc[0]
    image.write_bytes(image.read_bytes() + b"\0")
    done = snakemake(copy, "--cores", "2", "--forcerun", "correct_cohort", check=False)
    assert done.returncode != 0
    assert "--forcerun ingest_cohort" in done.stdout


def test_a_class_with_too_few_patients_stops_before_training(copy):
    replace(copy / "config.yaml", "  folds: 3\n", "  folds: 40\n")
    done = snakemake(copy, "--cores", "2", check=False)
    assert done.returncode != 0
    ran = last_run(copy)
    assert ran["split_patients"] == 1
    assert "train_fold" not in ran
    assert "class 'healthy' has 11 patients. Possible: scheme: kfold with folds: 2 to 11" in done.stdout
