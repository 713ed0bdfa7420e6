"""Pages of a study of eight index tests, whose primary one is the last of the file: the mean of two networks."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from reporting_fixture import CLASSES, Tree, external_options, write_primary, write_tree

from marrowflow.choices.threshold import digest_of
from marrowflow.files import write_json
from marrowflow.predictions import check_predictions
from marrowflow.reporting import external, study
from marrowflow.reporting.flow import Question, trace
from marrowflow.reporting.locked import lock_blocks
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.reporter import CommonOptions, Reporter
from marrowflow.reporting.results import IndexTest, Results

MODELS = [f"lite_seed{i}" for i in range(7)]
ENSEMBLE = "both"


def copy_of(tree: Tree, source: str, name: str, trained: bool) -> None:
    """Give a model's results another name; an ensemble has no training."""
    for part in ("accuracy", "predictions", "locked", *(["training"] if trained else [])):
        folder = tree.results / part / "sound"
        shutil.copytree(folder / source / "raw", folder / name / "raw")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    made = write_tree(tmp_path_factory.mktemp("grid"))
    for name in MODELS:
        copy_of(made, "lite", name, trained=True)
    copy_of(made, "lite", ENSEMBLE, trained=False)
    options = made.options | {
        "models": {name: {"network": "resnet50", "training": {"seed": i}} for i, name in enumerate(MODELS)},
        "members": {ENSEMBLE: MODELS[2:4]},
        "index_tests": [f"{name}-raw" for name in (*MODELS, ENSEMBLE)],
        "endpoints": {},
        "units": ["patient"],
        "published": [{"index_test": f"{ENSEMBLE}-raw", "metric": "accuracy", "value": 0.9}],
        "assumed": {"threshold.rule": "not given"},
        "threshold": {"rule": "youden"},
    }
    values = [{"index_test": name, "estimate": 0.5} for name in options["index_tests"]]
    choice = {
        "how": "chosen",
        "metric": "accuracy",
        "endpoint": "classes",
        "unit": "patient",
        "values": values,
    }
    write_primary(made.results, f"{ENSEMBLE}-raw", **choice)
    return Tree(made.results, made.cohorts, options)


def render(tree: Tree) -> str:
    out = tree.results / "report"
    argv = [
        "--options",
        json.dumps(tree.options),
        "--results",
        str(tree.results),
        "--primary",
        str(tree.primary),
    ]
    study.main([*argv, "--cohorts", str(tree.cohorts), "--out", str(out)])
    return (out / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def index(tree: Tree) -> str:
    return render(tree)


@pytest.fixture(scope="module")
def beta(tree: Tree) -> str:
    out = tree.results / "external" / "beta"
    argv = ["--options", json.dumps(external_options(tree.options)), "--results", str(tree.results)]
    argv += ["--primary", str(tree.primary), "--cohort", "beta", "--hospital", "Hospital B"]
    argv += ["--manifest", "manifest.csv", "--development", json.dumps({"alpha": "Hospital A"})]
    external.main([*argv, "--out", str(out)])
    return (out / "report.html").read_text(encoding="utf-8")


def text_of(html: str) -> str:
    words: list[str] = []
    parser = HTMLParser()
    parser.handle_data = words.append  # type: ignore[method-assign]
    parser.feed(html)
    return re.sub(r"\s+", " ", " ".join(words))


def section(html: str, anchor: str) -> str:
    return html.partition(f'<section id="{anchor}')[2].partition("</section>")[0]


def test_both_pages_name_the_primary_one_and_how_it_was_chosen(index: str, beta: str) -> None:
    said = "both-raw, chosen on development data, out of fold, as the best of 8 by accuracy, per patient; its own"
    for html in (index, beta):
        assert said in text_of(html.partition("<nav")[0])
        assert "both-raw was chosen on development data" in text_of(section(html, "limitations"))
    said = "The primary index test was chosen on development data, out of fold, as the best of 8"
    assert said in text_of(section(index, "comparison-sound-beta"))
    assert said in text_of(section(beta, "comparison-sound"))
    assert "index test both-raw, endpoint classes" in text_of(beta)  # the flow diagram is the primary one's
    assert "both-raw (primary)" in text_of(section(index, "networks-sound"))


def test_an_ensemble_is_called_a_mean_and_has_no_training_of_its_own(
    index: str, beta: str, tree: Tree
) -> None:
    mean = "mean of the probabilities of lite_seed2 and lite_seed3"
    for html in (index, beta):
        text = text_of(html)
        assert f"both-raw answers by the {mean}." in text
        assert "mean of the networks of all folds (6 networks)" in text  # 2 members of 3 folds
        assert "training/sound/both" not in html and "Model card of both" not in text
        assert text.count("Model card of") == len(MODELS)
    training = text_of(section(index, "training-sound"))
    assert f"both-raw is the {mean}: nothing was trained for it itself." in training
    assert "of all folds of lite_seed2, lite_seed3." in text_of(section(index, "flow-sound-alpha"))
    assert "<td>lite_seed2, lite_seed3</td>" in section(index, "settings")


def test_of_many_networks_only_the_primary_ones_curves_stand_open(index: str) -> None:
    training = section(index, "training-sound")
    upright, _, folded = training.partition("<details>")
    assert re.findall(r"Accuracy and loss: (lite_seed\d)-raw\. n", text_of(upright)) == [
        "lite_seed2",
        "lite_seed3",
    ]
    assert "Accuracy and loss of 5 more networks" in text_of(folded)
    assert len(re.findall(r"Accuracy and loss: lite_seed\d-raw\. n", text_of(folded))) == 5
    assert "5 more model cards" in text_of(section(index, "record"))


def test_published_and_assumed_values_have_their_sections(index: str, tree: Tree) -> None:
    path = tree.results / "accuracy" / "sound" / ENSEMBLE / "raw" / "development" / "metrics.csv"
    rows = pd.read_csv(path, dtype={"class": str}).fillna({"class": ""})
    (row,) = rows[
        rows["primary"] & rows["metric"].eq("accuracy") & rows["class"].eq("") & rows["unit"].eq("patient")
        & rows["endpoint"].eq("classes")
    ].to_dict("records")  # fmt: skip
    published = text_of(section(index, "published"))
    assert (
        f"0.9 {row['estimate']:.3f} ({row['low']:.3f} to {row['high']:.3f}) {row['denominator']:.0f}"
        in published
    )
    assert "threshold.rule youden not given" in text_of(section(index, "assumed"))


def test_only_costs_differ_from_run_to_run(index: str, tree: Tree) -> None:
    def files() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (tree.results / "report" / "figures").iterdir()}

    before = files()
    path = tree.results / "training" / "sound" / "lite_seed0" / "raw" / "0" / "cost.json"
    kept = path.read_text(encoding="utf-8")
    write_json(path, json.loads(kept) | {"device_seconds": 9876.0})
    other, after = render(tree), files()
    path.write_text(kept, encoding="utf-8")
    assert [name for name in before if before[name] != after[name]] == ["cells.csv"]
    # 10 + 3, 11 + 3 and 12 + 3 seconds a fold in the fixture, and 900 images each
    lines = zip(index.splitlines(), other.splitlines(), strict=True)
    assert [(a, b) for a, b in lines if a != b] == [
        ('<td class="n">42</td>', '<td class="n">9905</td>'),
        ('<td class="n">64</td>', '<td class="n">0.3</td>'),
    ]


def test_an_endpoint_with_a_head_is_answered_by_it(tree: Tree, tmp_path: Path) -> None:
    inventory = pd.read_parquet(tree.results / "cohorts" / "beta" / "inventory.parquet")
    path = tree.results / "predictions" / "sound" / "lite" / "raw" / "beta" / "predictions.parquet"
    table = pd.read_parquet(path)
    head = table.assign(endpoint_leukaemia=table["p_healthy"].where(table["status"].eq("ok")))
    question = Question("leukaemia", tuple(CLASSES), ("AML", "ALL", "CML"), 0.6, "patient")
    flow = trace(inventory, check_predictions(head, CLASSES).table, question)
    answered = head[head["status"].eq("ok")]
    score = answered.groupby("patient_id")["endpoint_leukaemia"].mean()
    positive = flow.root["Eligible"]["Index test"]["positive"].patients
    assert positive == (score >= 0.6).sum()
    assert positive != trace(inventory, table, question).root["Eligible"]["Index test"]["positive"].patients

    lock = json.loads((tree.results / "locked" / "sound" / "lite" / "raw" / "threshold.json").read_text())
    lock["calibration"]["heads"] = {"leukaemia": {"temperature": 1.7, "by_fold": {}}}
    write_json(
        tmp_path / "locked" / "sound" / "lite" / "raw" / "threshold.json", lock | {"digest": digest_of(lock)}
    )
    options = external_options(tree.options) | {
        "models": {"lite": {"network": "x"}},
        "index_tests": ["lite-raw"],
    }
    reporter = Reporter(
        CommonOptions.model_validate(options), Results(tmp_path, tmp_path), Primary("lite-raw", "first")
    )
    text, printed = lock_blocks(reporter, IndexTest("sound", "lite-raw"), ["B"])
    assert (
        "Endpoint leukaemia was answered by a head of the network of its own, calibrated at temperature 1.700."
        in (text.paragraphs)
    )
    assert printed.rows[0][1] == "own head (leukaemia)"
