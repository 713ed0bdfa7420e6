"""Checklists on a page: what the results say, what the team says, and where each item leads."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reporting_fixture import COHORTS, Tree, external_options, options_of, write_tree
from test_checklist_items import LISTS, given_texts, without

from marrowflow.checklists import text_of
from marrowflow.choices.threshold import digest_of
from marrowflow.cohorts.table import Cohort
from marrowflow.config import About, Texts
from marrowflow.errors import UserError
from marrowflow.files import write_json, write_table
from marrowflow.reporting import page, tables
from marrowflow.reporting import said_of_networks as networks
from marrowflow.reporting import said_of_patients as patients
from marrowflow.reporting import said_of_results as results
from marrowflow.reporting.about import PLACES, about_sections
from marrowflow.reporting.checklist import (
    Answer,
    anchors_of,
    answers,
    checklist_sections,
    require_complete,
)
from marrowflow.reporting.evidence import IN_STUDY
from marrowflow.reporting.ground import Ground
from marrowflow.reporting.page import Facts, Section
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.reporter import CommonOptions, Reporter, surrogate_cohorts
from marrowflow.reporting.results import Results

ABOUT, TEXTS = given_texts()
STUDY_ANCHORS = {
    "cohorts", "glance-sound", "networks-sound", "flow-sound", "partitions-sound", "training-sound", "threshold-sound",
    "development-sound", "external-sound", "errors-sound", "settings", "intervals", "limitations", "record",
}  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return write_tree(tmp_path_factory.mktemp("study"))


def ground_of(root: Path, out: Path, names: tuple[str, ...] = tuple(COHORTS), **changes: Any) -> Ground:
    raw = external_options(options_of()) | {"study": ABOUT.model_dump()} | changes
    options = CommonOptions.model_validate(raw)
    found = Results(root, out)
    cohorts = [Cohort(n, COHORTS[n][0], Path(n), COHORTS[n][1], "routine") for n in names]
    inventories = {n: found.inventory(n) for n in names}
    reporter = Reporter(options, found, Primary("lite-raw", "declared"), surrogate_cohorts(inventories))
    return Ground(reporter, cohorts, inventories)


@pytest.fixture(scope="module")
def ground(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return ground_of(tree.results, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def told(ground: Ground) -> dict[str, list[Answer]]:
    """All checklists of the study's page."""
    anchors = STUDY_ANCHORS | anchors_of(about_sections(ABOUT, TEXTS))
    return {name: answers(checklist, ground, TEXTS, anchors) for name, checklist in LISTS.items()}


def by_number(found: list[Answer]) -> dict[str, Answer]:
    return {answer.item.number: answer for answer in found}


# The team's words


@pytest.mark.parametrize("name", LISTS)
def test_texts_are_those_of_the_configuration_and_no_other(told: dict[str, list[Answer]], name: str) -> None:
    for answer in told[name]:
        if answer.item.evidence == ("sources",):
            assert answer.team == tuple(f"{h}, {role}: routine." for role, h, _ in COHORTS.values())
        else:
            assert answer.team == tuple(text_of(key, ABOUT, TEXTS) for key in answer.item.keys)
        assert not answer.lacking and "NOT PROVIDED" not in " ".join((*answer.data, *answer.team))


@pytest.mark.parametrize("name", LISTS)
def test_every_missing_text_is_printed_with_its_key(ground: Ground, name: str, tmp_path: Path) -> None:
    bare = ground_of(ground.reporter.results.root, tmp_path, study={"key": "k", "title": "T"})
    for answer in answers(LISTS[name], bare, Texts(), ()):
        keys = tuple(key for key in answer.item.keys if key != "study.title")
        if answer.item.evidence != ("sources",):
            assert answer.lacking == keys
            assert [t for t in answer.team if t.startswith("NOT PROVIDED")] == [
                f"NOT PROVIDED: {k}" for k in keys
            ]
        # M: the results are printed beside it all the same
        if answer.item.fill == "M":
            assert answer.data


def test_a_hospital_without_a_source_lacks_it(ground: Ground) -> None:
    cohorts = [replace(ground.cohorts[0], source=" "), *ground.cohorts[1:]]
    answer = by_number(answers(LISTS["stard"], replace(ground, cohorts=cohorts), TEXTS, ()))["11"]
    assert answer.lacking == ("source (Hospital A & Partners)",) and not answer.data
    assert answer.team[-1] == "NOT PROVIDED: source (Hospital A & Partners)"
    assert answer.team[0] == "Hospital B, external: routine."


def test_severity_needs_a_text_only_where_no_manifest_has_it(ground: Ground) -> None:
    _, texts = without(ABOUT, TEXTS, {"severity"})
    answer = by_number(answers(LISTS["stard"], ground, texts, ()))["26a"]
    assert answer.lacking == ("severity",) and answer.data == ("No manifest gives the severity.",)
    inventories = {**ground.inventories, "beta": ground.inventories["beta"].assign(severity="mild")}
    known = replace(ground, inventories=inventories)
    answer = by_number(answers(LISTS["stard"], known, texts, ()))["26a"]
    assert (
        not answer.lacking
        and not answer.team
        and "Hospital B, external, 20 patients with leukaemia: mild 20, none given 0." in answer.data
    )
    required = {"report": {"require": ["stard"]}}
    for where, fails in ((ground, True), (known, False)):
        reporter = ground_of(where.reporter.results.root, where.reporter.results.out, **required).reporter
        asked = replace(where, reporter=reporter)
        if fails:
            with pytest.raises(UserError, match="- severity: Distribution of the severity"):
                require_complete(asked, list(LISTS.values()), texts)
        else:
            require_complete(asked, list(LISTS.values()), texts)
    require_complete(ground, list(LISTS.values()), Texts())  # nothing is required


def test_the_sections_print_every_text_once(ground: Ground) -> None:
    sections = about_sections(ABOUT, TEXTS)
    assert [s.anchor for s in sections] == ["about", "conduct"]
    assert set(PLACES.values()) <= anchors_of(sections)

    def facts(section: Section) -> list[tuple[str, str]]:
        own = [(section.anchor, v) for b in section.blocks if isinstance(b, Facts) for v in b.items.values()]
        return [*own, *(pair for child in section.sections for pair in facts(child))]

    printed = [pair for section in sections for pair in facts(section)]
    assert sorted(printed) == sorted((place, text_of(key, ABOUT, TEXTS)) for key, place in PLACES.items())
    bare = [value for s in about_sections(About(key="k", title="T"), Texts()) for _, value in facts(s)]
    assert sorted(bare) == sorted(f"NOT PROVIDED: {key}" for key in PLACES)
    spared = about_sections(About(key="k", title="T"), Texts(), frozenset({"severity"}))
    assert "NOT PROVIDED: severity" not in [value for s in spared for _, value in facts(s)]


# Where items lead


@pytest.mark.parametrize("name", LISTS)
def test_items_lead_to_sections_of_the_page_only(told: dict[str, list[Answer]], name: str) -> None:
    # The page of this test has neither readers nor what could replace them.
    assert {a.item.number for a in told[name] if not a.place} == ({"18"} if name == "claim" else set())
    assert {a.place for a in told[name]} <= STUDY_ANCHORS | set(PLACES.values()) | {""}
    for answer in told[name]:
        if answer.item.fill == "T" and answer.item.keys:
            assert answer.place == PLACES[answer.item.keys[0]]


def test_a_page_without_sections_links_nothing(ground: Ground) -> None:
    assert not any(answer.place for answer in answers(LISTS["stard"], ground, TEXTS, ()))


def test_items_of_stard_lead_to_what_answers_them(told: dict[str, list[Answer]]) -> None:
    wanted = {
        "1": "glance-sound",
        "7": "flow-sound",
        "12": "about-2",
        "15c": "threshold-sound",
        "18": "intervals",
        "29": "cohorts",
        "30": "flow-sound",
        "33": "limitations",
        "36": "conduct",
        "40b": "record",
    }
    found = by_number(told["stard"])
    assert {number: found[number].place for number in wanted} == wanted


def test_the_better_section_is_taken_where_the_page_has_it(ground: Ground) -> None:
    anchors = STUDY_ANCHORS | {"shift", "baseline", "subgroups-sound"}
    found = by_number(answers(LISTS["stard"], ground, TEXTS, anchors))
    assert [found[n].place for n in ("29", "25", "21")] == ["shift", "baseline", "subgroups-sound"]


# What the results say


def rows_of(*rows: tuple[Any, ...]) -> pd.DataFrame:
    columns = ["endpoint", "metric", "class", "unit", "estimate", "low", "high", "numerator", "denominator"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(method="wilson_neff", primary=True, n_cases=90, n_patients=20)


@pytest.fixture(scope="module")
def by_hand(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The tree with tables of development and beta that were made by hand."""
    root = Path(shutil.copytree(tree.results, tmp_path_factory.mktemp("hand") / "fake"))
    folder = root / "accuracy" / "sound" / "lite" / "raw"
    none = float("nan")
    for cohort, auc in (("development", 0.91), ("beta", 0.84), ("gamma", none)):
        interval = (none, none) if auc != auc else (auc - 0.08, auc + 0.04)
        metrics = rows_of(
            ("leukaemia", "auc", "", "patient", auc, *interval, none, none),
            ("leukaemia", "sensitivity", "", "patient", 0.8, 0.5, 0.9, 8, 10),
            ("leukaemia", "specificity", "", "patient", 0.7, 0.4, 0.85, 7, 10),
            ("classes", "accuracy", "", "case", 0.9, 0.8, 0.95, 81, 90),
            *(("classes", "sensitivity", c, "patient", 0.5, 0.2, 0.8, 1, 2) for c in ("healthy", "AML")),
        )
        write_table(folder / cohort / "metrics.csv", metrics)
        counts = [("AML", "positive", 7), ("AML", "indeterminate", 2), ("inconclusive", "negative", 3),
                  ("healthy", "negative", 9), ("healthy", "not_done", 1)]  # fmt: skip
        confusion = pd.DataFrame(counts, columns=["truth", "predicted", "n"])
        write_table(folder / cohort / "confusion.csv", confusion.assign(endpoint="leukaemia", unit="patient"))
        three = rows_of(
            ("leukaemia", "accuracy", "", "patient", 0.9, 0.7, 1, 9, 10),
            ("leukaemia", "accuracy", "", "patient", 0.75, 0.5, 1, 9, 12),
            ("leukaemia", "sensitivity", "", "patient", 0.2, 0.1, 1, 1, 5),
        ).assign(analysis=["left_out", "counted_as_errors", "left_out"])
        write_table(folder / cohort / "indeterminate.csv", three)
    return ground_of(root, tmp_path_factory.mktemp("out"))


def plain(sentences: Any) -> str:
    return " ".join(sentences).replace("\u00a0", " ")


def test_estimates_are_those_of_the_tables(by_hand: Ground, tmp_path: Path) -> None:
    asked = "leukaemia (AML or ALL or CML against all others), per patient or surrogate group"
    assert plain(results.headline(by_hand)) == (
        f"Index test lite-raw. Endpoint {asked}, 95% intervals. "
        "Development, out of fold: AUC 0.910 (0.830 to 0.950); n = 20 patients. "
        "Hospital B: AUC 0.840 (0.760 to 0.880); n = 20 patients. "
        "<b>Hospital C</b>: AUC undefined; n = 20 surrogate groups."
    )
    assert "sensitivity 0.800 [8/10] (0.500 to 0.900), specificity 0.700 [7/10]" in plain(
        results.internal(by_hand)
    )
    assert "Hospital B: AUC 0.840" in plain(results.external(by_hand))
    assert "Development" not in plain(results.external(by_hand))
    assert plain(results.precision(by_hand)).startswith(
        f"Achieved: half widths of the 95% intervals, {asked}. "
        "Development, out of fold: AUC 0.060, sensitivity 0.200, specificity 0.225; n = 20 patients."
    )
    assert "<b>Hospital C</b>: AUC no interval, sensitivity 0.200" in plain(results.precision(by_hand))
    assert (
        plain(results.hospitals(by_hand))
        == (
            f"AUC of {asked}, at one external hospital: 0.840 (Hospital B)."  # none of Hospital C; development is no hospital
        )
    )
    gamma = by_hand.reporter.results.accuracy_path(by_hand.test, "gamma", "metrics.csv")
    root = Path(shutil.copytree(by_hand.reporter.results.root, tmp_path / "fake"))
    copied = root / gamma.relative_to(by_hand.reporter.results.root)
    known = rows_of(("leukaemia", "auc", "", "patient", 0.77, 0.7, 0.8, float("nan"), float("nan")))
    write_table(copied, known)
    assert plain(results.hospitals(ground_of(root, tmp_path))) == (
        f"AUC of {asked}, at 2 external hospitals: lowest 0.770 (<b>Hospital C</b>), highest 0.840 (Hospital B)."
    )
    assert results.events(by_hand)[:2] == [
        "leukaemia, development, out of fold, patients: with 10, without 10.",
        "leukaemia, Hospital B, patients: with 10, without 10.",
    ]
    assert "classes, Hospital B, patients: healthy 2, AML 2, ALL missing, CML missing." in results.events(
        by_hand
    )
    assert results.errors(by_hand)[1] == "Wrong, classes, Hospital B: 9 of 90 images."


def test_indeterminate_and_missing_answers_are_counted(by_hand: Ground) -> None:
    assert plain(patients.indeterminate(by_hand)[:1]) == (
        "Development, out of fold, of 22 patients: index test indeterminate in 2, reference standard inconclusive in 3; "
        "accuracy left out 0.900 [9/10], counted as errors 0.750 [9/12]."
    )
    assert "Index test not done, Hospital B: 1 of 22 patients." in patients.missing(by_hand)
    assert len(patients.indeterminate(by_hand)) == 3  # nobody read


def test_what_readers_could_not_decide_is_counted_beside(by_hand: Ground, tmp_path: Path) -> None:
    root = Path(shutil.copytree(by_hand.reporter.results.root, tmp_path / "fake"))
    counts = [
        ("h1", "leukaemia", "patient", "AML", "indeterminate", 2),
        ("h1", "leukaemia", "patient", "missing", "indeterminate", 1),
        ("h1", "leukaemia", "patient", "AML", "positive", 6),
        ("h2", "leukaemia", "patient", "AML", "positive", 8),
        ("h2", "leukaemia", "case", "AML", "indeterminate", 30),
        ("h2", "classes", "patient", "AML", "indeterminate", 4),
    ]
    columns = ["index_test", "endpoint", "unit", "truth", "predicted", "n"]
    for folder in ("beta", "development"):
        path = root / "comparisons" / "readers" / folder / "confusion.csv"
        write_table(path, pd.DataFrame(counts, columns=columns))
    assert patients.indeterminate(ground_of(root, tmp_path / "out"))[3:] == [
        "Readers, development, indeterminate, patients: h1 3 of 9, h2 0 of 8.",
        "Readers, Hospital B, indeterminate, patients: h1 3 of 9, h2 0 of 8.",
    ]


def test_intervals_name_the_methods_of_all_sets_and_the_tests(by_hand: Ground, tmp_path: Path) -> None:
    root = Path(shutil.copytree(by_hand.reporter.results.root, tmp_path / "fake"))
    shutil.rmtree(root / "comparisons")
    here = ground_of(root, tmp_path / "out")
    assert len(results.intervals(here)) == 2 and "Newcombe" not in results.intervals(here)[0]
    path = here.reporter.results.accuracy_path(here.test, "gamma", "metrics.csv")
    metrics = pd.read_csv(path)
    write_table(
        path, metrics.assign(method=metrics["method"].mask(metrics["metric"].eq("auc"), "newcombe_neff"))
    )
    rows = [
        ("leukaemia", "auc", "patient", True, "jackknife_t", 0.4),
        ("leukaemia", "auc", "patient", False, "delong", None),  # not printed
        ("leukaemia", "accuracy", "patient", True, "mcnemar_exact", 0.1),
        ("leukaemia", "sensitivity", "patient", True, "mcnemar_exact", 1.0),
        ("leukaemia", "f1", "patient", True, "", None),  # without a test
        ("classes", "accuracy", "case", True, "obuchowski_1998", 0.2),  # of another unit
    ]
    table = pd.DataFrame(rows, columns=["endpoint", "metric", "unit", "primary", "test", "p_holm"])
    write_table(root / "comparisons" / "sound" / "gamma" / "comparisons.csv", table)
    write_table(root / "comparisons" / "readers" / "beta" / "comparisons.csv", table.iloc[2:3])
    note, _, *compared = results.intervals(ground_of(root, tmp_path / "out"))
    assert "Wilson" in note and "Newcombe" in note
    assert compared == [
        "Comparisons of index tests, two-sided: t-test by leaving patients out (AUC); McNemar’s exact test (accuracy, "
        "sensitivity).",
        "Comparisons with readers, two-sided: McNemar’s exact test (accuracy).",
        "Their p-values are adjusted by Holm; a family is all pairs, metrics and classes of one endpoint, unit and set of "
        "patients.",
    ]


def test_answers_are_tabulated_with_and_without_an_endpoint(ground: Ground, tmp_path: Path) -> None:
    for endpoints, answers_ in (
        ({"leukaemia": {"positive": ["AML", "ALL", "CML"]}}, "negative"),
        ({}, "healthy"),
    ):
        here = ground_of(ground.reporter.results.root, tmp_path, endpoints=endpoints)
        for cohort, said in zip(here.cohorts, results.crosstab(here), strict=True):
            table = here.flow(cohort).crosstab
            row = table.loc[answers_].drop("total")
            assert (
                row.any() and f"{answers_}: {', '.join(f'{n} {truth}' for truth, n in row.items())}" in said
            )


def test_the_lock_is_quoted(ground: Ground) -> None:
    lock = ground.lock
    assert results.threshold(ground) == [
        "leukaemia, per patient: positive from 0.620 on; rule youden, fitted on out-of-fold test predictions (n = 41).",
        f"Digest of the lock {lock['digest'][:12]}.",
    ]
    assert plain(results.unchanged(ground)) == (
        f"No updating: networks and locked choices (digest {lock['digest'][:12]}) applied unchanged to Hospital B, "
        "<b>Hospital C</b>."
    )
    assert "External scores: mean of the networks of all folds (3 networks)." in results.answers(ground)


def test_a_cut_off_that_was_fixed_is_not_said_to_be_fitted(ground: Ground, tmp_path: Path) -> None:
    root = tmp_path / "fake"
    for stage in ("locked", "cohorts"):
        shutil.copytree(ground.reporter.results.root / stage, root / stage)
    here = ground_of(root, tmp_path)
    lock = {k: v for k, v in here.lock.items() if k != "digest"} | {"rule": {"rule": "fixed", "value": 0.5}}
    write_json(here.reporter.results.lock_path(here.test), lock | {"digest": digest_of(lock)})
    assert results.threshold(here)[0].endswith(
        "positive from 0.620 on; rule fixed 0.5, fixed before the run."
    )


def test_figures_are_never_those_of_the_leaky_protocol(ground: Ground, tmp_path: Path) -> None:
    root = ground.reporter.results.root
    both = ground_of(root, tmp_path, protocols=["as_published", "sound"])
    assert both.test.protocol == "sound" and results.metrics(both) == results.metrics(ground)


def test_cards_and_partitions_are_quoted(ground: Ground) -> None:
    assert networks.model(ground)[0] == (
        "lite-raw: tf_efficientnet_lite0, 3,413,024 parameters (5,124 trained), frozen; 3 networks, one a fold."
    )
    assert networks.weights(ground) == [
        "Start weights of lite: timm tf_efficientnet_lite0.in1k (apache-2.0)."
    ]
    assert networks.software(ground) == ["Trained with torch 2.12.1."]
    assert (
        "lite: training images of fold 0: ALL 20, AML 20, CML 20, healthy 20; class weights none"
        in networks.imbalance(ground)[0]
    )


def test_partitions_count_each_patient_once(ground: Ground, tmp_path: Path) -> None:
    root = tmp_path / "fake"
    for stage in ("splits", "cohorts"):
        shutil.copytree(ground.reporter.results.root / stage, root / stage)
    # P1 has images of two classes; in the second fold one patient fewer is trained on.
    rows = [(0, "train", "P1", "AML"), (0, "train", "P1", "ALL"), (0, "train", "P2", "AML"), (0, "test", "P3", "AML"),
            (1, "train", "P3", "AML"), (1, "test", "P1", "AML"), (1, "test", "P1", "ALL")]  # fmt: skip
    table = pd.DataFrame(rows, columns=["fold", "partition", "patient_id", "label"])
    write_table(root / "splits" / "sound" / "folds.parquet", table)
    assert networks.partitions(ground_of(root, tmp_path)) == [
        "2 folds, each trained on 1 to 2 patients (1 to 3 images), tested on 1 patients (1 to 2 images).",
        "Patients and near-duplicate clusters are never divided.",
        "Leakage gate before training, on two sides of a fold: 0 exact duplicates, 0 groups, 0 near duplicates, 0 patients.",
    ]


def inventory_by_hand() -> pd.DataFrame:
    """Four patients; three images of the first, one of which is out of focus; the last is excluded altogether."""
    rows = [
        ("P1", "AML", "ok", "included", "", "61", "F", "mild", "2020-01-05", "2020-01-08"),
        ("P1", "AML", "ok", "included", "", "61", "F", "mild", "2020-01-05", "2020-01-08"),
        ("P1", "AML", "ok", "excluded", "out of focus", "61", "F", "mild", "2020-01-05", "2020-01-08"),
        ("P2", "healthy", "ok", "included", "", "", "M", "", "2021-03-01", "2021-02-27"),
        ("P3", "AML", "missing", "included", "", "30", "M", "", "2019-12-31", ""),
        ("P4", "AML", "ok", "excluded", "not eligible: treated", "50", "M", "severe", "2018-01-01", ""),
    ]
    columns = ["patient_id", "label", "reference_status", "status", "reason", "age", "sex", "severity", "index_date",
               "reference_date"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(patient_source="manifest", scanner="X1", mpp=[0.2, 0.2, 0.2, 0.25, 0.25, 0.3])


@pytest.fixture
def few(ground: Ground) -> Ground:
    return replace(ground, cohorts=[ground.cohorts[1]], inventories={"beta": inventory_by_hand()})


def test_patients_are_counted_from_the_inventory(few: Ground) -> None:
    assert (
        plain(patients.participants(few))
        == "Hospital B, external: 3 of 4 patients and 4 of 6 images included."
    )
    assert plain(patients.exclusions(few)) == (
        "Hospital B, external: 2 of 6 images excluded: 1 not eligible: treated; 1 out of focus."
    )
    assert plain(patients.sites(few)) == (
        "Hospital B, external: index tests from 2019-12-31 to 2021-03-01, reference standard from 2020-01-08 to 2021-02-27."
    )
    assert plain(patients.devices(few)) == "Hospital B, external: scanner X1; 0.2, 0.25 µm a pixel."
    assert patients.missing(few)[0] == (
        "Hospital B, external, missing of 3 patients: reference standard 1, age 1, sex 0."
    )
    assert plain(patients.baseline(few)) == (
        "Hospital B, external: patients 3; age in years, median 45.5, range 30 to 61; sex F 1, M 2."
    )
    assert (
        plain(patients.severity(few))
        == "Hospital B, external, 1 patient with leukaemia: mild 1, none given 0."
    )
    assert plain(patients.diagnoses(few)) == (
        "Hospital B, external, 2 patients: with leukaemia AML 1, ALL 0, CML 0; without healthy 1."
    )
    assert plain(patients.interval(few)) == (
        "Hospital B, external: reference standard -2 to 3 days after the index test, median 0.5 (2 of 3 patients)."
    )
    assert plain(patients.prevalence(few)) == (
        "Hospital B, external, observed in 2 patients: healthy 1 (50.0%), AML 1 (50.0%), ALL 0 (0.0%), CML 0 (0.0%)."
    )


def test_a_patient_of_several_classes_is_one_patient(ground: Ground, tmp_path: Path) -> None:
    # P2 has a healthy cell and one of AML; P5 two classes, both of leukaemia.
    more = [
        ("P2", "AML", "ok", "included", "mild"),
        ("P5", "ALL", "ok", "included", "grave"),
        ("P5", "CML", "missing", "included", "grave"),
    ]
    columns = ["patient_id", "label", "reference_status", "status", "severity"]
    inventory = pd.concat([inventory_by_hand(), pd.DataFrame(more, columns=columns)], ignore_index=True)
    mixed = replace(ground, cohorts=[ground.cohorts[1]], inventories={"beta": inventory})
    counted = "5 images of 3 patients (1 with images of several classes, which is why images are counted)"
    assert plain(patients.prevalence(mixed)) == (
        f"Hospital B, external, observed in {counted}: healthy 1 (20.0%), AML 3 (60.0%), ALL 1 (20.0%), CML 0 (0.0%)."
    )
    assert plain(patients.diagnoses(mixed)) == (
        f"Hospital B, external, {counted}: with leukaemia AML 3, ALL 1, CML 0; without healthy 1."
    )
    # Neither P2, whose references contradict each other, nor P3, who has none.
    assert plain(patients.severity(mixed)) == (
        "Hospital B, external, 2 patients with leukaemia: grave 1, mild 1, none given 0."
    )
    whole = ground_of(ground.reporter.results.root, tmp_path, endpoints={})
    assert plain(patients.severity(replace(mixed, reporter=whole.reporter))) == (
        "Hospital B, external, 4 patients: grave 1, mild 2, none given 1."
    )


def test_what_a_manifest_does_not_have_is_not_said(ground: Ground) -> None:
    bare = inventory_by_hand().drop(
        columns=["severity", "index_date", "reference_date", "scanner", "mpp", "age", "sex"]
    )
    poor = replace(ground, cohorts=[ground.cohorts[1]], inventories={"beta": bare})
    assert not patients.severity(poor) and not patients.interval(poor) and not patients.devices(poor)
    assert plain(patients.sites(poor)) == "Hospital B, external: no dates in its manifest."
    found = by_number(answers(LISTS["stard"], poor, TEXTS, ()))
    assert found["27"].data == ("No manifest has the dates of both tests.",)


@pytest.mark.parametrize(
    ("design", "warned"), [("Prospective cohort.", True), ("Retrospective.", False), ("", False)]
)
def test_a_prospective_study_is_held_against_its_dates(ground: Ground, design: str, warned: bool) -> None:
    inventories = {
        "alpha": inventory_by_hand().assign(index_date="2020-06-01"),
        "beta": inventory_by_hand(),
    }
    study = ABOUT.model_dump() | {"design": design}
    reporter = ground_of(ground.reporter.results.root, ground.reporter.results.out, study=study).reporter
    held = replace(ground, reporter=reporter, cohorts=ground.cohorts[:2], inventories=inventories)
    said = patients.order_of_dates(held)
    words = (
        "Check the word prospective: 2 patients of Hospital B had the index test before 2020-06-01, the last one of "
        "development."
    )
    assert list(said) == ([words] if warned else [])
    assert by_number(answers(LISTS["stard"], held, TEXTS, ()))["5"].data == tuple(said)


def test_what_was_not_done_is_printed_so(told: dict[str, list[Answer]]) -> None:
    found = by_number(told["stard"])
    assert found["21"].data == ("Accuracy by subgroup: not done.",) and found["21"].undone
    assert found["29"].data == ("Comparison with the development data: not done.",)
    assert not found["12"].data and not found["12"].undone  # who annotated is no agreement of readers
    assert by_number(told["claim"])["18"].data == ("Agreement of readers: not done.",)
    assert found["23"].data[0] == "Accuracy by subgroup: not done." and len(found["23"].data) > 1
    assert not found["31"].undone


def test_what_was_done_elsewhere_is_found(tree: Tree, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree.results, tmp_path / "fake"))
    write_table(root / "explanations/sound/beta/cases.csv", pd.DataFrame({"a": [1]}))
    groups = [
        ("all", "all", 0.9),
        ("sex", "F", 0.9),
        ("sex", "F", 0.8),
        ("sex", "M", None),
        ("age", "18", 0.7),
    ]
    write_table(
        root / "subgroups/sound/beta/subgroups.csv",
        pd.DataFrame(groups, columns=["variable", "group", "estimate"]),
    )
    readers = root / "comparisons" / "readers" / "beta"
    write_table(readers / "metrics.csv", pd.DataFrame({"index_test": ["h1", "h2"]}))
    pair = {"endpoint": "classes", "metric": "kappa", "unit": "patient", "estimate": 0.61, "low": 0.4, "high": 0.8,
            "primary": True}  # fmt: skip
    pairs = [pair | {"index_test": "lite-raw", "against": "h1"}, pair | {"index_test": "h1", "against": "h2"}]
    write_table(readers / "agreement.csv", pd.DataFrame(pairs))
    done = ground_of(root, tmp_path / "out", reader_titles={"h1": {}, "h2": {}})
    # What lies there of readers whom the configuration no longer names is not told.
    assert results.readers(ground_of(root, tmp_path / "out")) == []
    assert results.subgroups(done) == [
        "Subgroups, Hospital B: sex (2), age (1); without any estimate 1 of 3 groups."
    ]
    assert results.explanations(done) == ["Maps of where the network looked: Hospital B."]
    assert (
        plain(results.readers(done))
        == "κ of h1 and h2, classes, per patient, Hospital B: 0.610 (0.400 to 0.800)."
    )


def test_shift_is_quoted_within_classes(tree: Tree, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree.results, tmp_path / "fake"))
    nan, inf = float("nan"), float("inf")
    domain = [
        ("colour", "raw", "hospital", "", 0.99, 0.9, 1.0, ""),
        ("colour", "raw", "hospital", "class", 0.91, 0.8, 0.95, ""),
        ("colour", "raw", "development_halves", "class", 0.5, 0.4, 0.6, ""),
        ("quality", "", "hospital", "class", nan, nan, nan, "too few patients"),
        ("network", "", "hospital", "class", 0.7, nan, nan, "one fold only"),
    ]
    columns = ["features", "recipe", "comparison", "within", "estimate", "low", "high", "reason"]
    write_table(root / "shift/gamma/domain.csv", pd.DataFrame(domain, columns=columns))
    variables = [
        ("age", "", "", 0.1),
        ("sex", "", "", nan),
        ("scanner", "", "", inf),
        ("scanner", "A", "", -inf),  # a level is no variable
        ("L_mean", "", "raw", -2.3178),
        ("focus", "", "", -0.5),
    ]
    table = pd.DataFrame(variables, columns=["variable", "level", "recipe", "difference"])
    write_table(root / "shift/gamma/characteristics.csv", table)
    network = "; the network’s features 0.700 (no interval: one fold only)"
    for protocols, shown in ((["sound"], network), (["as_published", "sound"], "")):
        lead, said = results.shift(ground_of(root, tmp_path / "out", protocols=protocols))
        assert lead.startswith(
            "AUC with which a classifier tells a patient or surrogate group of the hospital"
        )
        assert "within classes (0.5: a guess; 95% intervals)" in lead
        assert plain([said]) == (
            f"<b>Hospital C</b>: colour (raw) 0.910 (0.800 to 0.950); image quality too few patients{shown}; "
            "largest |d|: scanner ∞, L mean (raw) 2.32, focus 0.50."
        )


def test_a_hospital_reads_nothing_of_development_or_of_other_hospitals(tree: Tree, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree.results, tmp_path / "fake"))
    shutil.rmtree(root / "comparisons")
    (root / "splits" / "sound" / "gate.json").unlink()  # it may know how many folds there are
    for name in ("alpha", "gamma"):
        shutil.rmtree(root / "cohorts" / name)
        shutil.rmtree(root / "images" / name)
    for stage in ("accuracy", "predictions"):
        for name in ("development", "gamma"):
            for folder in list((root / stage).glob(f"*/*/*/{name}")):
                shutil.rmtree(folder)
    alone = ground_of(root, tmp_path / "out", ("beta",))
    for checklist in LISTS.values():
        for answer in answers(checklist, alone, TEXTS, ()):
            own = {"partitions", "hospitals", "goal", "internal"} & set(answer.item.evidence)
            assert [s for s in answer.data if s == IN_STUDY] == [IN_STUDY] * len(own)
            said = " ".join(answer.data)
            assert (
                "Hospital A" not in said
                and "Hospital C" not in said
                and "evelopment, out of fold" not in said
            )


# The page


def test_sections_tables_and_files(ground: Ground, told: dict[str, list[Answer]]) -> None:
    anchors = STUDY_ANCHORS | anchors_of(about_sections(ABOUT, TEXTS))
    lists = list(LISTS.values())
    sections = checklist_sections(ground, lists, TEXTS, anchors)
    assert [s.anchor for s in sections] == ["checklist-stard", "checklist-tripod_ai", "checklist-claim"]
    for section, checklist in zip(sections, lists, strict=True):
        found = told[checklist.name]
        rows = [row for block in section.blocks if isinstance(block, tables.Table) for row in block.rows]
        # All words are given: those of the team are marked, and every other is from the results.
        assert [row[1] for row in rows] == [
            "\n".join([*a.data, *(f"The team: {t}" for t in a.team)]) for a in found
        ]
        for row, answer in zip(rows, found, strict=True):
            first = row[0]
            words = first.text if isinstance(first, tables.Link) else first
            assert words.startswith(answer.item.number) and words.endswith(answer.item.topic)
            if answer.place:
                assert isinstance(first, tables.Link) and first.href == f"#{answer.place}"
        file = ground.reporter.folder / f"checklist_{checklist.name}.csv"
        written = pd.read_csv(file, dtype=str, keep_default_na=False)
        assert written["item"].tolist() == [a.item.number for a in found]
        assert written["team"].tolist() == [" ".join(a.team) for a in found]
    (first, *_), (tripod, *_), (claim, *_) = (section.blocks for section in sections)
    # The tree has no subgroups, shift, readers and maps.
    for block, words, can, undone in (
        (first, "45 of the 48 items of STARD-AI 2025, with STARD 2015", 48, "21, 23, 29"),
        (tripod, "42 of the 52 items of TRIPOD+AI 2024", 46, "14, 16, 20c, 23a"),
        (claim, "40 of the 44 items of CLAIM 2024", 43, "18, 30, 31"),
    ):
        assert isinstance(block, page.Text) and block.tone == "note"
        assert block.paragraphs[0] == f"{words} answered, parts counted one by one."
        assert block.paragraphs[1].startswith(f"A run can answer {can} of them")
        assert block.paragraphs[-1] == f"Not done, or in part: {undone}."
    assert isinstance(tripod, page.Text) and "; for the manuscript: 3c known inequ" in tripod.paragraphs[1]
    assert isinstance(first, page.Text) and first.paragraphs[1] == "A run can answer 48 of them."


def test_what_is_missing_stands_above_the_tables(ground: Ground, tmp_path: Path) -> None:
    here = ground_of(ground.reporter.results.root, tmp_path)
    _, texts = without(ABOUT, TEXTS, {"funding", "ethics"})
    (section,) = checklist_sections(here, [LISTS["stard"]], texts, ())
    text = section.blocks[0]
    assert isinstance(text, page.Text) and text.tone == "warning"
    assert text.paragraphs[0] == (
        "43 of the 48 items of STARD-AI 2025, with STARD 2015 answered, parts counted one by one; 2 lack a text (ethics, "
        "funding)."
    )
    _, texts = without(ABOUT, TEXTS, {"analyses"})
    (section,) = checklist_sections(here, [LISTS["stard"]], texts, ())
    text = section.blocks[0]
    # 21 lacks its text and is not done: it is counted once.
    assert isinstance(text, page.Text) and text.paragraphs[0].startswith("45 of the 48 items")
    assert text.paragraphs[0].endswith("; 1 lacks a text (analyses).")


def test_words_of_the_team_are_escaped_on_the_page(ground: Ground, tmp_path: Path) -> None:
    about, texts = given_texts("<script>alert(1)</script> &")
    here = ground_of(ground.reporter.results.root, tmp_path, study=about.model_dump())
    others = about_sections(about, texts)
    sections = [*others, *checklist_sections(here, list(LISTS.values()), texts, anchors_of(others))]
    page.write_page(page.Page("T", "S", "", [], {}, sections), tmp_path / "index.html")
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; funding" in html
    assert 'href="#conduct"' in html and 'id="conduct"' in html
