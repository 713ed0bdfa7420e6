"""Whole pages, rendered from a small fake results tree."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reporting_fixture import COHORTS, Tree, external_options, write_tree

from marrowflow.choices.threshold import digest_of
from marrowflow.config import LEAKY
from marrowflow.errors import UserError
from marrowflow.files import write_json
from marrowflow.predictions import check_predictions, write_predictions
from marrowflow.reporting import external, study
from marrowflow.reporting.errors_shown import error_blocks
from marrowflow.reporting.limitations import limitations
from marrowflow.reporting.locked import (
    calibration_statement,
    ensemble_statements,
    fitting_statement,
    lock_blocks,
)
from marrowflow.reporting.page import Gallery, Text
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.reporter import SURROGATE, CommonOptions, Reporter
from marrowflow.reporting.results import IndexTest, Results
from marrowflow.reporting.sections import development_footnote
from marrowflow.reporting.study_options import Options


class Reader(HTMLParser):
    """Collects what a browser would fetch or run, the text, and the sections' stamps."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.alternatives: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "a":
            self.links.append(values["href"] or "")
        self.fetched += [v for k, v in attrs if k in ("src", "srcset") and v]
        if tag == "img":
            self.alternatives.append(values.get("alt") or "")
        if values.get("id"):
            self.ids.append(values["id"] or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def render_external(tree: Tree, out: Path, cohort: str, **changes: object) -> str:
    options = external_options(tree.options) | changes
    argv = ["--options", json.dumps(options), "--results", str(tree.results), "--cohort", cohort]
    argv += ["--primary", str(tree.primary), "--manifest", "manifest.csv"]
    argv += ["--development", json.dumps({"alpha": COHORTS["alpha"][1]})]
    external.main([*argv, "--hospital", "Hospital <X>", "--source", "routine", "--out", str(out)])
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return write_tree(tmp_path_factory.mktemp("study"), ("as_published", "sound"))


@pytest.fixture(scope="module")
def index(tree: Tree) -> str:
    out = tree.results / "report"
    argv = ["--options", json.dumps(tree.options), "--results", str(tree.results)]
    argv += ["--primary", str(tree.primary)]
    study.main([*argv, "--cohorts", str(tree.cohorts), "--out", str(out)])
    return (out / "index.html").read_text(encoding="utf-8")


PRIMARY = Primary("lite-raw", "declared")

# The smallest page: one protocol, one index test, classes only, one unit.
SMALL = {"protocols": ["sound"], "index_tests": ["lite-raw"], "endpoints": {}, "units": ["patient"]}


@pytest.fixture(scope="module")
def gamma(tree: Tree) -> str:
    return render_external(tree, tree.results / "external" / "gamma", "gamma", **SMALL)


def test_the_page_is_self_contained(index: str, gamma: str) -> None:
    for html in (index, gamma):
        reader = Reader(html)
        assert (
            not {"link", "iframe", "object", "base"} & set(reader.tags) and reader.tags.count("script") == 1
        )
        assert all(u.startswith(("data:image/svg+xml,", "data:image/jpeg;base64,")) for u in reader.fetched)
        assert "http" not in "".join(reader.links) and "@import" not in html
        assert all(reader.alternatives) and len(reader.alternatives) > 5
        assert len(reader.ids) == len(set(reader.ids))


def test_links_lead_to_files_and_sections(index: str, tree: Tree) -> None:
    reader = Reader(index)
    for link in reader.links:
        if link.startswith("#"):
            assert link[1:] in reader.ids
        elif not link.endswith("report.html") and "lineage.html#" not in link:  # may be written later
            assert (tree.results / "report" / link).is_file(), link


def test_words_of_the_user_are_escaped(index: str, gamma: str) -> None:
    assert "<smears>" not in index and "Leukaemia from &lt;smears&gt; &amp; networks" in index
    assert "<b>" not in index and "&lt;b&gt;Hospital C&lt;/b&gt;" in index
    assert "&lt;b&gt;Hospital C&lt;/b&gt;: differences of lite-raw from each other" in index
    assert "Hospital &lt;X&gt;" in gamma and "Hospital &lt;X&gt;: accuracy three ways" in gamma


def test_notice_surrogates_and_limitations_are_printed(index: str, gamma: str) -> None:
    for html in (index, gamma):
        text = Reader(html).text
        assert "Demo images are painted." in text and SURROGATE in text
    assert "One development cohort" in index
    assert "surrogate groups with healthy 4, AML 4, ALL 3, CML 4" in Reader(gamma).text


def test_everything_of_the_leaky_protocol_is_stamped_and_nothing_else(index: str) -> None:
    parts = re.split(r'<section id="', index)
    for part in parts[1:]:
        anchor = part.partition('"')[0]
        # a section that only holds other sections has its stamp under its heading
        leaky = "as_published" in anchor or anchor == "optimism"
        cards = "Model card" in part
        assert (LEAKY in part) == leaky or cards or anchor == "limitations", anchor
    assert index.count(f'<span class="stamp">{LEAKY}</span>') > 20


def test_figures_of_the_leaky_protocol_do_not_overwrite_those_of_the_sound_one(
    index: str, tree: Tree
) -> None:
    folder = tree.results / "report" / "figures"
    stems = {p.stem for p in folder.glob("*.svg")}
    assert {"flow_alpha", "flow_alpha_as_published", "forest", "forest_as_published"} <= stems
    for stem in stems:
        assert (folder / f"{stem}.pdf").stat().st_size > 1000 and (
            folder / f"{stem}.png"
        ).stat().st_size > 1000


def test_flow_numbers_stand_beside_the_figure(index: str, tree: Tree) -> None:
    flow = json.loads((tree.results / "report" / "figures" / "flow_beta.json").read_text())["flow"]
    inventory = pd.read_parquet(tree.results / "cohorts" / "beta" / "inventory.parquet")
    assert flow["patients"] == inventory["patient_id"].nunique() and flow["images"] == len(inventory)
    excluded = next(b for b in flow["boxes"] if b["label"] == "Excluded")
    assert excluded["patients"] == 1 and excluded["images"] == inventory["status"].eq("excluded").sum()
    crosstab = pd.read_csv(tree.results / "report" / "figures" / "crosstab_beta.csv", index_col=0)
    assert crosstab.loc["total", "total"] == 29 and crosstab.loc["not done", "total"] == 1


def test_printed_estimates_are_those_of_the_table(index: str, tree: Tree) -> None:
    for cohort in ("development", "beta", "gamma"):
        path = tree.results / "accuracy" / "sound" / "lite" / "raw" / cohort / "metrics.csv"
        metrics = pd.read_csv(path)
        row = metrics[
            metrics["primary"] & metrics["metric"].eq("auc") & metrics["endpoint"].eq("leukaemia")
        ].iloc[0]
        assert f"{row['estimate']:.3f}" in Reader(index).text


def lines_of(html: str, title: str) -> dict[str, list[str]]:
    """Return a table's cells by the first one of their line."""
    table = html.partition(f"<figcaption>{title}</figcaption>")[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:]]
    return {row[0]: row[1:] for row in rows}


def csv_of(tree: Tree, name: str, cohort: str = "development") -> pd.DataFrame:
    path = tree.results / "accuracy" / "sound" / "lite" / "raw" / cohort / f"{name}.csv"
    table = pd.read_csv(path, dtype={"class": str}).fillna({"class": ""})
    return table[table["unit"].eq("case" if name == "differential" else "patient")]


def spelt(row: Mapping[str, Any]) -> str:
    share = f"\u00a0[{row['numerator']}/{row['denominator']}]" if "numerator" in row else ""
    limits = f"{row['low']:.3f}\u00a0to\u00a0{row['high']:.3f}"
    limits = "no\u00a0interval" if row["method"] == "none" else limits
    return f"{row['estimate']:.3f}{share} ({limits})".replace("-", "−")


@pytest.mark.parametrize(
    ("title", "file", "line", "place", "wanted"),
    [
        ("accuracy three ways, leukaemia, per patient", "indeterminate", "specificity", 2,
         {"metric": "specificity", "analysis": "worst_case", "endpoint": "leukaemia"}),
        ("accuracy three ways, leukaemia, per patient", "indeterminate", "accuracy", 1,
         {"metric": "accuracy", "analysis": "counted_as_errors", "endpoint": "leukaemia"}),
        ("accuracy three ways, classes, per patient", "indeterminate", "sensitivity (AML)", 0,
         {"metric": "sensitivity", "analysis": "left_out", "class": "AML"}),
        ("operating points, leukaemia, per patient", "operating_points", "specificity at sensitivity 0.9", 0,
         {"metric": "specificity_at_sensitivity", "at": 0.9, "endpoint": "leukaemia"}),
        ("operating points, leukaemia, per patient", "operating_points", "partial AUC from specificity 0.8", 0,
         {"metric": "partial_auc", "at": 0.8, "endpoint": "leukaemia"}),
        ("operating points, classes, per patient", "operating_points", "sensitivity at specificity 0.95", 3,
         {"metric": "sensitivity_at_specificity", "at": 0.95, "class": "CML"}),
        ("PPV and NPV by prevalence, leukaemia, per patient", "predictive_values", "0.05", 0,
         {"metric": "ppv_at_prevalence", "at": 0.05, "endpoint": "leukaemia"}),
        ("NPV by prevalence, classes, per patient", "predictive_values", "0.5", 2,
         {"metric": "npv_at_prevalence", "at": 0.5, "class": "ALL"}),
        ("PPV by prevalence, classes, per patient", "predictive_values", "0.2", 0,
         {"metric": "ppv_at_prevalence", "at": 0.2, "class": "healthy"}),
        ("calibration, leukaemia, per patient", "calibration_measures", "intercept", 0,
         {"metric": "calibration_intercept", "endpoint": "leukaemia", "scores": "as_given"}),
        ("calibration, leukaemia, per patient", "calibration_measures", "observed / expected", 0,
         {"metric": "observed_expected", "endpoint": "leukaemia", "scores": "as_given"}),
        ("calibration, calibrated, classes, per patient", "calibration_measures", "Brier: resolution", 1,
         {"metric": "brier_resolution", "class": "AML", "scores": "as_given"}),
        ("differential count, classes, per image", "differential", "ALL", 1,
         {"class": "ALL", "source": "predicted"}),
        ("differential count, classes, per image", "differential", "healthy", 0,
         {"class": "healthy", "source": "truth"}),
    ],
)  # fmt: skip
def test_tables_beside_the_metrics_print_the_files(
    index: str, tree: Tree, title: str, file: str, line: str, place: int, wanted: dict[str, object]
) -> None:
    table = csv_of(tree, file)
    for column, value in wanted.items():
        table = table[table[column].eq(value)]
    if "primary" in table:
        table = table[table["primary"]]
    (row,) = table.to_dict("records")
    assert lines_of(index, f"Development: {title}")[line][place] == spelt(row)


def test_the_brier_score_of_parts_is_that_of_the_metrics(index: str, tree: Tree) -> None:
    metrics = csv_of(tree, "metrics")
    brier = metrics[metrics["metric"].eq("brier") & metrics["endpoint"].eq("leukaemia") & metrics["primary"]]
    made = lines_of(index, "Development: calibration, leukaemia, per patient")
    assert made["Brier score"][0] == f"{float(brier['estimate'].iloc[0]):.3f}"


@pytest.mark.parametrize(("cohort", "who"), [("development", "Development"), ("beta", "Hospital B")])
def test_differences_and_agreement_print_the_files(index: str, tree: Tree, cohort: str, who: str) -> None:
    folder = tree.results / "comparisons" / "sound" / cohort
    rows = pd.read_csv(folder / "comparisons.csv", dtype={"class": str}).fillna({"class": ""})
    rows = rows[rows["primary"] & rows["unit"].eq("patient") & rows["metric"].isin(["auc", "sensitivity"])]
    line = lines_of(
        index, f"{who}: differences of lite-raw from each other index test, leukaemia, per patient"
    )
    for place, metric in ((1, "auc"), (3, "sensitivity")):
        (row,) = rows[rows["metric"].eq(metric) & rows["endpoint"].eq("leukaemia")].to_dict("records")
        assert line["lite-corrected"][place] == spelt(row | {"estimate": row["difference"]})
        p, holm = (f"{row[k]:.3f}" for k in ("p_value", "p_holm"))
        assert line["lite-corrected"][place + 1] == f"{p} ({holm})"
    agreement = pd.read_csv(folder / "agreement.csv")
    (row,) = agreement[
        agreement["primary"] & agreement["metric"].eq("kappa") & agreement["endpoint"].eq("classes")
        & agreement["unit"].eq("patient")
    ].to_dict("records")  # fmt: skip
    line = lines_of(index, f"{who}: agreement of lite-raw with each other index test, classes, per patient")
    assert line["lite-corrected"][2] == spelt({k: v for k, v in row.items() if k != "numerator"})


def test_the_family_of_the_adjustment_is_counted(index: str, tree: Tree) -> None:
    rows = pd.read_csv(tree.results / "comparisons" / "sound" / "beta" / "comparisons.csv")
    printed = rows[rows["primary"] & rows["unit"].eq("patient") & rows["endpoint"].eq("classes")]
    family = printed["p_value"].notna().sum()
    section = index.partition('id="comparison-sound-beta"')[2].partition("</section>")[0]
    assert f"for a family of {family} p-values" in Reader(section).text


def test_a_single_index_test_has_nothing_to_be_compared_with(gamma: str) -> None:
    section = gamma.partition('id="comparison-sound"')[2].partition("</section>")[0]
    assert "lite-raw is the only index test" in Reader(section).text and "<table>" not in section


def test_the_threshold_is_stated(index: str, tree: Tree) -> None:
    lock = json.loads((tree.results / "locked" / "sound" / "lite" / "raw" / "threshold.json").read_text())
    text = Reader(index).text
    assert f"Digest {lock['digest'][:12]}; applied unchanged to Hospital B, <b>Hospital C</b>." in text
    assert "at a threshold fitted on the same out-of-fold predictions" in text


def test_errors_are_the_most_confident_ones_first(index: str, tree: Tree) -> None:
    table = pd.read_parquet(
        tree.results / "predictions" / "sound" / "lite" / "raw" / "development" / "predictions.parquet"
    )
    wrong = table[
        table["status"].eq("ok")
        & table["truth"].isin(["healthy", "AML", "ALL", "CML"])
        & table["truth"].ne(table["predicted"])
    ]
    worst = wrong.assign(
        p=wrong.filter(like="p_").drop(columns="patient_id", errors="ignore").max(axis=1)
    ).nlargest(6, "p")["case_id"]
    section = index.partition('id="errors-sound"')[2].partition("</section>")[0]
    assert re.findall(r"<span>(alpha/[^<]+)</span>", section) == worst.tolist()


def test_errors_of_samples_show_the_images_that_they_were_made_of(tree: Tree, tmp_path: Path) -> None:
    path = Path("predictions") / "sound" / "lite" / "raw" / "development" / "predictions.parquet"
    table = pd.read_parquet(tree.results / path)
    table = table[table["status"].eq("ok")]
    samples = pd.concat(
        [table.assign(case_id=table["case_id"] + f"#rotate{i}", parent=table["case_id"]) for i in range(2)]
    )
    write_predictions(tmp_path / path, samples, tree.options["classes"])
    shutil.copytree(tree.results / "images", tmp_path / "images")
    shutil.copytree(tree.results / "locked", tmp_path / "locked")
    test = IndexTest("sound", "lite-raw")
    options = tree.options | {"report": {"errors_shown": 6}}
    found = []
    for root in (tree.results, tmp_path):
        reporter = Reporter(Options.model_validate(options), Results(root, tmp_path), PRIMARY)
        (block,) = error_blocks(reporter, test, "development")
        assert isinstance(block, Gallery) and len(block.thumbnails) == 6
        found.append(block)
    plain, sampled = found
    names = [thumbnail.lines[2] for thumbnail in sampled.thumbnails]
    # One of each image, of equals the first; the pictures are the same.
    assert names == [f"{thumbnail.lines[2]}#rotate0" for thumbnail in plain.thumbnails]
    assert [t.pictures[0].uri for t in sampled.thumbnails] == [t.pictures[0].uri for t in plain.thumbnails]
    wrong, of = map(int, re.findall(r"\d+", plain.caption)[:2])
    assert sampled.caption.startswith(f"{2 * wrong} of {2 * of} augmented images with a reference")
    assert "Picture missing" not in sampled.caption
    assert "Augmented images were divided" in development_footnote(reporter, test, "alpha")
    assert "Augmented" not in development_footnote(
        Reporter(Options.model_validate(options), Results(tree.results, tmp_path), PRIMARY), test, "alpha"
    )


def test_no_patient_image_is_printed_when_none_is_wanted(tree: Tree, tmp_path: Path) -> None:
    options = CommonOptions.model_validate(external_options(tree.options) | {"report": {"errors_shown": 0}})
    reporter = Reporter(options, Results(tree.results, tmp_path), PRIMARY)
    (block,) = error_blocks(reporter, IndexTest("sound", "lite-raw"), "beta")
    assert isinstance(block, Text) and "No patient image is printed" in block.paragraphs[0]


def test_the_same_inputs_give_the_same_bytes(gamma: str, tree: Tree) -> None:
    # Rendered again in the same place, so that links are the same.
    folder = tree.results / "external" / "gamma"
    first = {p.name: p.read_bytes() for p in (folder / "figures").iterdir()}
    shutil.rmtree(folder / "figures")
    assert render_external(tree, folder, "gamma", **SMALL) == gamma
    assert {p.name: p.read_bytes() for p in (folder / "figures").iterdir()} == first


def test_missing_tables_are_printed_as_missing(tree: Tree, tmp_path: Path) -> None:
    copy = Tree(Path(shutil.copytree(tree.results, tmp_path / "fake")), tree.cohorts, tree.options)
    (copy.results / "accuracy" / "sound" / "lite" / "raw" / "beta" / "metrics.csv").unlink()
    text = Reader(render_external(copy, tmp_path / "out", "beta", **SMALL)).text
    assert "missing: ../fake/accuracy/sound/lite/raw/beta/metrics.csv" in text
    (copy.results / "accuracy" / "sound" / "lite" / "raw" / "gamma" / "operating_points.csv").unlink()
    (copy.results / "comparisons" / "sound" / "gamma" / "agreement.csv").unlink()
    two = SMALL | {"index_tests": ["lite-raw", "lite-corrected"]}
    text = Reader(render_external(copy, tmp_path / "out", "gamma", **two)).text
    assert "missing: operating_points.csv has no rows for classes, per surrogate group" in text
    assert "missing: ../fake/comparisons/sound/gamma/agreement.csv" in text
    assert "differences of lite-raw from each other index test" in text
    (copy.results / "locked" / "sound" / "lite" / "raw" / "threshold.json").unlink()
    with pytest.raises(UserError, match="no locked threshold at"):
        render_external(copy, tmp_path / "out", "beta", **SMALL)


def test_tables_by_threshold_become_figures_of_a_page_and_their_want_is_printed(
    tree: Tree, tmp_path: Path
) -> None:
    copy = Tree(Path(shutil.copytree(tree.results, tmp_path / "fake")), tree.cohorts, tree.options)
    folder = copy.results / "accuracy" / "sound" / "lite" / "raw" / "beta"
    head = "endpoint,metric,class,at,unit,estimate,low,high,method,primary\n"
    for name in ("roc_band", "predictive_values", "calibration_measures", "score_histogram"):
        (folder / f"{name}.csv").write_text(head)
    rows = [
        f"leukaemia,{metric},,{at},patient,{at / 2},0.01,0.9,bootstrap_percentile,True\n"
        for metric in ("net_benefit", "net_benefit_treat_all")
        for at in (0.1, 0.2)
    ]
    (folder / "decision.csv").write_text(head + "".join(rows))
    html = render_external(copy, tmp_path / "out", "beta", **SMALL | {"endpoints": tree.options["endpoints"]})
    (words,) = [a for a in Reader(html).alternatives if a.startswith("Decision curve: leukaemia")]
    assert "net benefit 0.050 (0.010 to 0.900) at threshold probability 0.1" in words
    drawn = {p.name for p in (tmp_path / "out" / "figures").glob("decision_*")}
    assert drawn == {f"decision_beta_leukaemia_patient.{kind}" for kind in ("svg", "pdf", "png")}
    assert "missing: predictive_values.csv has no rows for leukaemia, per patient" in Reader(html).text
    (roc,) = [a for a in Reader(html).alternatives if a.startswith("ROC: leukaemia")]
    assert "locked cut-off 0.620: sensitivity" in roc  # the threshold of the fixture's lock


def test_an_index_test_must_be_a_model_and_a_colour(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="<model>-<colour>"):
        render_external(tree, tmp_path, "beta", index_tests=["lite"])


def lock_with(tree: Tree, **changes: object) -> dict:
    """Return the fake study's lock with some keys changed; None leaves a key out."""
    path = tree.results / "locked" / "sound" / "lite" / "raw" / "threshold.json"
    lock = json.loads(path.read_text()) | changes
    return {key: value for key, value in lock.items() if value is not None}


def test_the_fitting_statement_follows_the_lock(tree: Tree) -> None:
    assert "fitted on the same out-of-fold predictions" in fitting_statement(lock_with(tree))
    validation = fitting_statement(lock_with(tree, fitted_on="validation predictions"))
    assert (
        validation
        == "The threshold was fitted on validation predictions; development figures are of the test rows."
    )
    for fitted_on in (None, "out-of-fold test predictions"):
        fixed = lock_with(tree, rule={"rule": "fixed", "value": 0.5}, fitted_on=fitted_on)
        assert fitting_statement(fixed) == "The threshold was fixed beforehand."


def test_the_calibration_statement_follows_the_lock(tree: Tree) -> None:
    assert calibration_statement(lock_with(tree)) == (
        "Probabilities were calibrated beforehand at temperature 1.310, fitted on out-of-fold test predictions "
        "(n = 150 images)."
    )
    for fitted_on in (None, "out-of-fold test predictions"):
        none = {"method": "none", "temperature": None, "fitted_on": fitted_on, "n_cases": 150}
        assert (
            calibration_statement(lock_with(tree, calibration=none)) == "Probabilities were not calibrated."
        )
    assert "missing" in calibration_statement(lock_with(tree, calibration=None))


def test_single_networks_and_their_mean_are_told_apart(tree: Tree) -> None:
    assert ensemble_statements(lock_with(tree), 3) == [
        "External scores: mean of the networks of all folds (3 networks). Development scores: single networks, out "
        "of fold; threshold and temperature were fitted on development's.",
        "Development rows of each fold were calibrated at the temperature of the other folds: fold 0 1.250, "
        "fold 1 1.300, fold 2 1.400.",
    ]
    assert ensemble_statements(lock_with(tree), 1) == []
    fixed = {"rule": "fixed", "value": 0.5}
    nothing = lock_with(tree, rule=fixed, calibration={"method": "none", "temperature": None})
    assert ensemble_statements(nothing, 3) == [
        "External scores: mean of the networks of all folds (3 networks). Development scores: single networks, out "
        "of fold."
    ]


def test_a_lock_without_the_newer_keys_still_reads(tree: Tree) -> None:
    calibration = {"method": "temperature", "temperature": 1.3}
    old = lock_with(tree, calibration=calibration, development_answers=None, external_answers=None)
    mean, folds = ensemble_statements(old, 3)
    assert (
        "Development scores: single networks, out of fold; threshold and temperature were fitted on" in mean
    )
    assert folds == "Development rows of each fold were calibrated at the temperature of the other folds."
    (alone,) = ensemble_statements(old | {"fitted_on": "validation predictions"}, 3)
    assert alone == mean  # without k folds there are no temperatures of other folds


def test_the_lock_is_printed_as_it_was_fitted(tree: Tree, tmp_path: Path) -> None:
    fixed = lock_with(tree, rule={"rule": "fixed", "value": 0.62}, fitted_on=None)
    validation = lock_with(tree, fitted_on="validation predictions")
    options = CommonOptions.model_validate(external_options(tree.options))
    for name, lock in (("fixed", fixed), ("validation", validation)):
        path = tmp_path / name / "locked" / "sound" / "lite" / "raw" / "threshold.json"
        write_json(path, lock | {"digest": digest_of(lock)})
        reporter = Reporter(options, Results(tmp_path / name, tmp_path), PRIMARY)
        text, table = lock_blocks(reporter, IndexTest("sound", "lite-raw"), ["B"])
        if name == "fixed":
            assert text.paragraphs[0] == "Rule: fixed beforehand at 0.62." and not table.notes
        else:
            assert "Fitted on: validation predictions of the development cohorts." in text.paragraphs[0]
            assert "are of the validation predictions" in table.notes[0]
        assert not any("same out-of-fold" in paragraph for paragraph in text.paragraphs) and table.rows


def test_the_mean_of_networks_is_a_limitation_of_external_scores_only(tree: Tree, tmp_path: Path) -> None:
    options = CommonOptions.model_validate(external_options(tree.options))
    reporter = Reporter(options, Results(tree.results, tmp_path), PRIMARY)
    inventory = {"beta": reporter.results.inventory("beta")}
    line = "External scores are means of the networks of all folds, but threshold and temperature of lite-raw were"
    assert any(text.startswith(line) for text in limitations(reporter, inventory, {"beta": "external"}))
    assert not any("means of" in text for text in limitations(reporter, inventory, {"beta": "development"}))


def glance_of(html: str) -> str:
    return Reader(html.partition('id="glance-sound"')[2].partition("</section>")[0]).text


def test_a_proportion_stands_with_its_numerator_and_denominator(index: str, tree: Tree) -> None:
    confusion = pd.read_csv(
        tree.results / "accuracy" / "sound" / "lite" / "raw" / "beta" / "confusion.csv", keep_default_na=False
    )
    rows = confusion[confusion["endpoint"].eq("leukaemia") & confusion["unit"].eq("patient")]
    negative = rows[rows["truth"].eq("healthy") & rows["predicted"].isin(["positive", "negative"])]
    share = f"{negative.loc[negative['predicted'].eq('negative'), 'n'].sum()}/{negative['n'].sum()}"
    assert f"[{share}]" in glance_of(index)
    counted = rows[
        ~rows["truth"].isin(["missing", "inconclusive"]) & rows["predicted"].isin(["positive", "negative"])
    ]
    forest = pd.read_csv(tree.results / "report" / "figures" / "forest.csv")
    made_of = forest[forest["cohort"].eq("beta")].set_index("metric")["of"]
    assert made_of["specificity"] == share and made_of["auc"] == f"n = {counted['n'].sum()}"


def test_the_glance_repeats_warnings_and_the_surrogate_remark(index: str) -> None:
    text = glance_of(index)
    assert "of negative: estimates are coarse under 30" in text
    assert text.count(f"<b>Hospital C</b>: n{SURROGATE[1:]}") == 3  # two tables and the forest's caption
    assert "patients or surrogate groups" in text and "per patient or surrogate group" in text


def test_a_surrogate_cohort_has_no_patients_in_its_own_report(gamma: str) -> None:
    # The locked threshold is of development, which has patients, and Table 1 sets the two side by side.
    for anchor in ("threshold-sound", "baseline"):
        gamma = re.sub(rf'<section id="{anchor}".*?</section>', "", gamma, flags=re.DOTALL)
    text = Reader(gamma).text
    assert "The bootstrap resamples surrogate groups" in text and "per surrogate group" in text
    assert "leaving out one surrogate group at a time" in text and "leave-one-group-out, logit, t" in text
    for phrase in ("resamples patients", "per patient", "n patients", "Flow of patients"):
        assert phrase not in text
    assert re.search(r"\d surrogate groups of (healthy|negative|AML)", text)
    assert not re.search(r"<th[^>]*>[^<.]*patients", gamma)  # keys of model cards have dots


def test_an_external_report_states_its_gate(gamma: str, tree: Tree) -> None:
    inventory = pd.read_parquet(tree.results / "cohorts" / "gamma" / "inventory.parquet")
    words = f"none of its {len(inventory)} images is a copy or near duplicate of the 150 development images"
    assert words in Reader(gamma).text and 'href="gate.json"' in gamma


def test_the_flow_says_what_its_lines_count_and_who_answered(index: str, tree: Tree) -> None:
    text = Reader(index).text
    assert text.count("second line: smears and images.") == 2  # beta names smears, under both protocols
    assert text.count("second line: images.") == 6  # the two others, and all together
    table = pd.read_parquet(
        tree.results / "predictions" / "sound" / "lite" / "raw" / "development" / "predictions.parquet"
    )
    n = table["truth"].isin(["missing", "inconclusive"]).sum()
    footnote = (
        f"The {n} images without a usable reference standard were answered by the mean of the networks of all"
    )
    assert text.count(footnote) == 2  # development's flow only, under both protocols


def test_training_and_interval_methods_are_described(index: str) -> None:
    text = Reader(index).text
    assert "n = 3 folds, one line each; 80 to 88 training images a fold" in text
    methods = Reader(index.partition('id="intervals"')[2].partition("</section>")[0]).text
    assert "Wilson’s score interval on the effective n" in methods and "docs/statistics.md" in methods
    assert "leaving out one patient or surrogate group at a time, on the logit scale" in methods
    assert "BCa bootstrap of patients or surrogate groups, 100 resamples, seed 0" in methods
    # What the page says of each method is what the tables' words promise.
    assert "interval method" in text and "leave-one-patient-out, logit, t" in text


def test_errors_of_two_classes_are_those_at_the_locked_threshold(tree: Tree, tmp_path: Path) -> None:
    options = external_options(tree.options) | {"classes": ["healthy", "AML"], "report": {"errors_shown": 6}}
    options["endpoints"] = {"aml": {"positive": ["AML"]}}
    cases = pd.read_parquet(tree.results / "images" / "beta" / "raw" / "index.parquet")["case_id"][:4]
    root = tmp_path / "fake"
    shutil.copytree(tree.results / "images" / "beta", root / "images" / "beta")
    # Truth, probability of AML; at 0.2 the first and third are wrong, at 0.5 the second and third.
    rows = [("healthy", 0.3), ("AML", 0.4), ("AML", 0.1), ("healthy", 0.05)]
    table = pd.DataFrame(
        {
            "case_id": cases,
            "patient_id": cases,
            "cohort": "beta",
            "truth": [t for t, _ in rows],
            "p_healthy": [1 - p for _, p in rows],
            "p_AML": [p for _, p in rows],
            "index_test": "lite-raw",
        }
    )
    path = root / "predictions" / "sound" / "lite" / "raw" / "beta" / "predictions.parquet"
    write_predictions(path, check_predictions(table, options["classes"]).table, options["classes"])
    lock = {"endpoints": {"aml": {"positive": ["AML"], "case": {"threshold": 0.2}}}}
    write_json(
        root / "locked" / "sound" / "lite" / "raw" / "threshold.json", lock | {"digest": digest_of(lock)}
    )

    def shown(**changes: object) -> tuple[str, list[str]]:
        reporter = Reporter(CommonOptions.model_validate(options | changes), Results(root, tmp_path), PRIMARY)
        (block,) = error_blocks(reporter, IndexTest("sound", "lite-raw"), "beta")
        assert isinstance(block, Gallery)
        return block.caption, [thumbnail.lines[2] for thumbnail in block.thumbnails]

    caption, wrong = shown()
    assert wrong == [cases[2], cases[0]] and "wrongly at the locked threshold of aml, 0.200" in caption
    caption, wrong = shown(endpoints={})
    assert wrong == [cases[2], cases[1]] and "wrongly by the largest probability (all classes)" in caption
    # An endpoint with a head of its own is answered by it: only the third is called AML now, which it is.
    headed = check_predictions(table, options["classes"]).table.assign(endpoint_aml=[0.1, 0.15, 0.3, 0.1])
    write_predictions(path, headed, options["classes"])
    reporter = Reporter(CommonOptions.model_validate(options), Results(root, tmp_path), PRIMARY)
    (block,) = error_blocks(reporter, IndexTest("sound", "lite-raw"), "beta")
    assert isinstance(block, Gallery)
    assert [t.lines[0] for t in block.thumbnails] == ["predicted healthy (85%)"]
