"""Whole pages, rendered from a small fake results tree."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from reporting_fixture import Tree, external_options, write_tree

from marrowflow.errors import UserError
from marrowflow.reporting import external, study
from marrowflow.reporting.figures import LEAKY
from marrowflow.reporting.page import Text
from marrowflow.reporting.results import IndexTest, Results
from marrowflow.reporting.sections import SURROGATE, CommonOptions, Reporter, error_blocks


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
    external.main([*argv, "--hospital", "Hospital <X>", "--source", "routine", "--out", str(out)])
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return write_tree(tmp_path_factory.mktemp("study"), ("as_published", "sound"))


@pytest.fixture(scope="module")
def index(tree: Tree) -> str:
    out = tree.results / "report"
    argv = ["--options", json.dumps(tree.options), "--results", str(tree.results)]
    study.main([*argv, "--cohorts", str(tree.cohorts), "--out", str(out)])
    return (out / "index.html").read_text(encoding="utf-8")


# The smallest page: one protocol, one index test, classes only, one unit.
SMALL = {"protocols": ["sound"], "index_tests": ["lite-raw"], "endpoints": {}, "units": ["patient"]}


@pytest.fixture(scope="module")
def gamma(tree: Tree) -> str:
    return render_external(tree, tree.results / "external" / "gamma", "gamma", **SMALL)


def test_the_page_is_self_contained(index: str, gamma: str) -> None:
    for html in (index, gamma):
        reader = Reader(html)
        assert not {"script", "link", "iframe", "object"} & set(reader.tags)
        assert all(
            u.startswith(("data:image/svg+xml;base64,", "data:image/jpeg;base64,")) for u in reader.fetched
        )
        assert "http" not in "".join(reader.links) and "@import" not in html and "url(" not in html
        assert all(reader.alternatives) and len(reader.alternatives) > 5
        assert len(reader.ids) == len(set(reader.ids))


def test_links_lead_to_files_and_sections(index: str, tree: Tree) -> None:
    reader = Reader(index)
    for link in reader.links:
        if link.startswith("#"):
            assert link[1:] in reader.ids
        elif not link.endswith("report.html"):  # a hospital's page may be written later
            assert (tree.results / "report" / link).is_file(), link


def test_words_of_the_user_are_escaped(index: str, gamma: str) -> None:
    assert "<smears>" not in index and "Leukaemia from &lt;smears&gt; &amp; networks" in index
    assert "<b>" not in index and "&lt;b&gt;Hospital C&lt;/b&gt;" in index
    assert "Hospital &lt;X&gt;" in gamma


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


def test_no_patient_image_is_printed_when_none_is_wanted(tree: Tree, tmp_path: Path) -> None:
    options = CommonOptions.model_validate(external_options(tree.options) | {"report": {"errors_shown": 0}})
    reporter = Reporter(options, Results(tree.results, tmp_path))
    (block,) = error_blocks(reporter, IndexTest("sound", "lite-raw"), "beta")
    assert isinstance(block, Text) and "No patient image is printed" in block.paragraphs[0]


def test_the_same_inputs_give_the_same_bytes(gamma: str, tree: Tree) -> None:
    # Rendered again at the same depth below the results, so that links are the same.
    again = render_external(tree, tree.results / "external" / "again", "gamma", **SMALL)
    assert again == gamma
    one, two = (tree.results / "external" / name / "figures" for name in ("gamma", "again"))
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in two.iterdir())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_missing_tables_are_printed_as_missing(tree: Tree, tmp_path: Path) -> None:
    copy = Tree(Path(shutil.copytree(tree.results, tmp_path / "fake")), tree.cohorts, tree.options)
    (copy.results / "accuracy" / "sound" / "lite" / "raw" / "beta" / "metrics.csv").unlink()
    text = Reader(render_external(copy, tmp_path / "out", "beta", **SMALL)).text
    assert "missing: ../fake/accuracy/sound/lite/raw/beta/metrics.csv" in text
    (copy.results / "locked" / "sound" / "lite" / "raw" / "threshold.json").unlink()
    with pytest.raises(UserError, match="no locked threshold at"):
        render_external(copy, tmp_path / "out", "beta", **SMALL)


def test_an_index_test_must_be_a_model_and_a_colour(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="<model>-<colour>"):
        render_external(tree, tmp_path, "beta", index_tests=["lite"])
