"""What pages print of readers and other products, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from marrowflow.config import ReaderShown
from marrowflow.files import write_json, write_table
from marrowflow.predictions import check_predictions
from marrowflow.reporting import page
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.readers import reader_blocks, title_of
from marrowflow.reporting.readers_figure import draw_readers
from marrowflow.reporting.reporter import CommonOptions, Reporter
from marrowflow.reporting.results import Results
from marrowflow.statistics.accuracy import measure
from marrowflow.statistics.readers import Options, measure_readers
from marrowflow.statistics.subjects import Subject

CLASSES = ["healthy", "AML", "ALL"]
ENDPOINTS = {"leukaemia": ["AML", "ALL"], "classes": None}
READERS = {
    "dr_a": ReaderShown(title="haematologist <A>"),
    "dr_b": ReaderShown(),
    "dr_c": ReaderShown(title="absent"),
}
TRUTH = ["AML"] * 6 + ["healthy"] * 4


def answers(index_test, predicted, status="ok"):
    n = len(TRUTH)
    table = pd.DataFrame(
        {
            "case_id": [f"b/{i}" for i in range(n)],
            "patient_id": [f"b/P{i}" for i in range(n)],
            "cohort": "b",
            "truth": TRUTH,
            "predicted": predicted,
            "index_test": index_test,
            "status": status,
        }
    )
    return check_predictions(table, CLASSES)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    root = tmp_path_factory.mktemp("read") / "results" / "fake"
    network = answers("net-raw", ["AML"] * 6 + ["healthy"] * 3 + ["AML"])
    a = answers("dr_a", ["AML"] * 5 + ["healthy"] * 5)
    # One of six with, and one of four without the condition, are left without an answer.
    b = answers(
        "dr_b",
        ["", *["AML"] * 5, "", *["healthy"] * 3],
        ["indeterminate", *["ok"] * 5, "indeterminate", *["ok"] * 3],
    )
    settings = {"replicates": 100}
    options = Options(classes=CLASSES, units=["patient"], accuracy=settings)
    for name, table in measure_readers(Subject(network, None), [a, b], ENDPOINTS, options).items():
        write_table(root / "comparisons/readers/b" / f"{name}.csv", table)
    for name, table in vars(measure(network, ENDPOINTS, ["patient"], options.accuracy)).items():
        write_table(root / "accuracy/sound/net/raw/b" / f"{name}.csv", table)
    write_json(root / "locked/sound/net/raw/threshold.json", {})
    common = CommonOptions.model_validate(
        {
            "study": {"key": "fake", "title": "T"},
            "classes": CLASSES,
            "units": ["patient"],
            "endpoints": {"leukaemia": {"positive": ["AML", "ALL"]}},
            "models": {"net": {"network": "resnet18"}},
            "index_tests": ["net-raw"],
            "protocols": ["sound"],
            "accuracy": settings,
        }
    )
    reporter = Reporter(common, Results(root, root / "report"), Primary("net-raw", "declared"))
    return reader_blocks(reporter, READERS, "b", "Hospital B")


def table_of(blocks, title):
    (found,) = [b for b in blocks if getattr(b, "title", "").startswith(title)]
    return found


def test_readers_are_called_by_their_titles_and_absent_ones_are_named(blocks):
    assert blocks[0].paragraphs == [
        "Readers and other products with answers for Hospital B: haematologist <A> (dr_a), dr_b.",
        "Without any: absent (dr_c).",
    ]
    assert title_of(READERS, "net-raw") == "net-raw"


def test_each_reader_is_measured_on_what_it_answered_for(blocks):
    rows = {row[0]: row[1:] for row in table_of(blocks, "Hospital B: readers and net-raw, leukaemia").rows}
    assert rows["net-raw (primary)"][0] == "10"
    assert "[6/6]" in rows["net-raw (primary)"][2] and "[3/4]" in rows["net-raw (primary)"][3]
    assert rows["haematologist <A> (dr_a)"][0] == "10" and "[5/6]" in rows["haematologist <A> (dr_a)"][2]
    # Eight of ten: five of five with, three of three without the condition.
    assert rows["dr_b"][0] == "8" and "[5/5]" in rows["dr_b"][2] and "[3/3]" in rows["dr_b"][3]


def test_what_a_reader_left_without_an_answer_is_counted_three_ways(blocks):
    rows = {
        row[0]: row[1:]
        for row in table_of(blocks, "Hospital B: leukaemia: readers’ accuracy three ways").rows
    }
    assert list(rows) == ["dr_b: sensitivity", "dr_b: specificity", "dr_b: accuracy"]
    for name, counts in {
        "sensitivity": ("5/5", "5/6"),
        "specificity": ("3/3", "3/4"),
        "accuracy": ("8/8", "8/10"),
    }.items():
        left_out, as_errors, worst = rows[f"dr_b: {name}"]
        assert f"[{counts[0]}]" in left_out and f"[{counts[1]}]" in as_errors and f"[{counts[1]}]" in worst


def test_readers_agree_with_each_other_too(blocks):
    between = [b for b in blocks if "agreement of dr_a with each other" in getattr(b, "title", "")]
    # Of the eight that both answered for, they differ in the sixth with the condition only.
    assert "[7/8]" in between[0].rows[0][2]


def test_the_figure_has_a_point_a_reader_and_says_its_numbers(blocks):
    (figures,) = [b for b in blocks if isinstance(b, page.Figures)]
    alternative = figures.figures[0].alternative
    assert "haematologist <A> (dr_a): sensitivity 0.833, specificity 1.000" in alternative
    assert "dr_b: sensitivity 1.000, specificity 1.000" in alternative


def test_a_reader_without_an_estimate_is_not_drawn():
    row = {"estimate": 0.5, "low": 0.2, "high": 0.8}
    nothing = {"estimate": np.nan, "low": np.nan, "high": np.nan}
    _, words = draw_readers(None, {"net": (row, row), "dr": (nothing, row), "no": (None, row)}, "t", "s")
    assert "net: sensitivity 0.500" in words and "dr" not in words and "no:" not in words
