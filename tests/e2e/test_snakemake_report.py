"""`snakemake --report` carries the figures of the reports, each with its caption, category and labels."""

import json
import re
import zipfile

import pytest
from project import snakemake


@pytest.fixture(scope="module")
def report(finished, tmp_path_factory):
    """The report's page, and what it lists: categories → files, and each file's labels and caption."""
    path = tmp_path_factory.mktemp("report") / "report.zip"
    snakemake(finished, "--report", str(path))
    with zipfile.ZipFile(path) as archive:
        page = archive.read("report/report.html").decode()
        names = archive.namelist()
    decoder = json.JSONDecoder()
    listed = {
        name: decoder.raw_decode(page, re.search(rf'<script id="{name}">\s*var {name} = ', page).end())[0]
        for name in ("categories", "results")
    }
    return names, _flat(listed["categories"]), listed["results"]


def _flat(categories):
    return {kind: [path for paths in of.values() for path in paths] for kind, of in categories.items()}


def test_every_figure_stands_in_it_with_caption_and_labels(finished, report):
    names, categories, results = report
    figures = {
        path.relative_to(finished).as_posix()
        for folder in ("report", "external/beta", "external/gamma")
        for path in (finished / "results/demo" / folder / "figures").glob("*.svg")
    }
    assert len(figures) > 30
    assert set(categories["Figures"]) == figures
    for path in figures:
        assert len(results[path]["caption"]) > 80, path
        assert results[path]["labels"]["figure"], path
        assert any(name.endswith(f"/{path.rpartition('/')[2]}") for name in names), path


def test_the_roc_curve_of_a_hospital_is_found_by_its_labels(report):
    _, _, results = report
    found = [
        path
        for path, about in results.items()
        if about["labels"].get("figure") == "ROC curve"
        and about["labels"]["patients"].startswith("Hospital B")
    ]
    assert found
    assert all("/external/beta/figures/roc_beta_" in path for path in found)


def test_each_caption_is_about_its_own_figure(report):
    _, _, results = report
    captions = {
        about["labels"]["figure"]: about["caption"]
        for about in results.values()
        if "figure" in about["labels"]
    }
    drawn = {kind: caption for kind, caption in captions.items() if kind != "contact sheet"}
    assert len(set(drawn.values())) == len(drawn)
    assert "pointwise" in captions["ROC curve"]


def test_reports_tables_and_locks_stand_in_it(report):
    names, categories, results = report
    assert {
        "Reports",
        "Accuracy",
        "Comparisons",
        "Locked choices",
        "Splits",
        "Augmentation",
    } <= categories.keys()
    assert {results[path]["labels"]["report"] for path in categories["Reports"]} == {
        "external validation",
        "lineage of every file",
        "study",
    }
    assert all(about["caption"] for about in results.values())
    validations = [results[p] for p in categories["Reports"] if p.endswith("external/beta/report.html")]
    assert ["Locked external validation of cohort" in about["caption"] for about in validations] == [True]
    assert any(name.endswith("index.html") for name in names)


def test_labels_of_a_category_are_the_same_so_that_they_stand_in_one_table(report):
    _, categories, results = report
    for kind in ("Figures", "Reports", "Accuracy", "Pooled accuracy", "Comparisons"):
        assert len({tuple(results[path]["labels"]) for path in categories[kind]}) == 1, kind
