"""Published values beside ours, and assumed ones: against numbers written down by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hand_made_grid import grid_options, metrics_row, reporter_of, write_metrics

from marrowflow.config import LEAKY
from marrowflow.files import write_table
from marrowflow.reporting.page import Section
from marrowflow.reporting.published import assumed_section, published_section
from marrowflow.reporting.tables import Table

TEST = "dense_seed0-raw"
ROWS = [
    metrics_row("accuracy", 0.643, primary=False),
    metrics_row("accuracy", 0.75, numerator=30, denominator=40),
    metrics_row("accuracy", 0.7, unit="case", numerator=112, denominator=160),
    metrics_row("auc", 0.9, **{"class": "macro"}),
    metrics_row("auc", 0.8, **{"class": "AML"}),
    metrics_row("f1", float("nan"), **{"class": "ALL"}),
    metrics_row("kappa", 0.4, low=None, high=None, method="none"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_metrics(tmp_path, TEST, ROWS)
    warning = {
        "endpoint": "classes",
        "metric": "f1",
        "class": "ALL",
        "unit": "patient",
        "warning": "no patient of ALL",
    }
    path = tmp_path / "accuracy" / "sound" / "dense_seed0" / "raw" / "development" / "warnings.csv"
    write_table(path, pd.DataFrame([warning]))
    return tmp_path


def table_of(root: Path, *published: dict[str, Any], **changes: Any) -> Table:
    values = [{"index_test": TEST, "metric": "accuracy", "value": 0.5} | value for value in published]
    options = grid_options(published=values, **changes)
    section = published_section(reporter_of(root, options), options)
    assert isinstance(section, Section)
    (table,) = section.blocks
    assert isinstance(table, Table)
    return table


def test_ours_stands_beside_the_published_value_with_interval_n_and_difference(root: Path) -> None:
    table = table_of(
        root,
        {"value": 0.774, "low": 0.7, "high": 0.84, "where": "Table 2 <test>"},
        {"value": 0.4548, "unit": "case"},
        {"metric": "auc", "class_name": "macro", "value": 0.9},
        {"metric": "kappa", "value": 0.4004},
    )
    assert list(table.header) == [
        "index test and metric",
        "published",
        "ours",
        "n",
        "difference",
        "where it stands",
    ]
    assert table.rows[0] == [
        f"{TEST}: accuracy, all classes, per patient",
        "0.774 (0.7\u00a0to\u00a00.84)",
        "0.750 (0.650\u00a0to\u00a00.850)",
        "40",
        "−0.024",
        "Table 2 <test>",
    ]
    assert table.rows[1][1:5] == ["0.4548", "0.700 (0.600\u00a0to\u00a00.800)", "160", "+0.245"]
    assert "per image" in table.rows[1][0] and table.rows[1][5] == "–"
    assert table.rows[2][3:5] == ["40", "0.000"]
    assert table.rows[3][2:5] == ["0.400 (no interval)", "40", "0.000"]
    read = pd.read_csv(root / "report" / "figures" / "published.csv")
    assert read["difference"].tolist() == pytest.approx([0.75 - 0.774, 0.7 - 0.4548, 0.0, -0.0004])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"index_test": "lite-raw"}, "missing: there is no ../accuracy/sound/lite/raw/development/metrics.csv"),
        ({"cohort": "beta"}, "missing: there is no ../accuracy/sound/dense_seed0/raw/beta/metrics.csv"),
        ({"metric": "mcc"}, "missing: metrics.csv has no metric mcc of classes"),
        ({"endpoint": "leukaemia"}, "missing: metrics.csv has no endpoint leukaemia"),
        ({"metric": "auc", "unit": "case"}, "missing: metrics.csv has no metric auc of classes"),
        ({"metric": "auc", "class_name": "micro"}, "missing: metrics.csv has auc of class macro, AML, not of micro"),
        ({"metric": "auc"}, "missing: metrics.csv has auc of class macro, AML, not of none"),
        ({"metric": "f1", "class_name": "ALL"}, "missing: undefined; no patient of ALL"),
    ],
)  # fmt: skip
def test_what_is_missing_says_why(root: Path, value: dict[str, Any], why: str) -> None:
    (row,) = table_of(root, value).rows
    assert row[2:5] == [why, "–", "–"]


def test_a_warning_that_says_undefined_is_not_said_twice(root: Path) -> None:
    path = root / "accuracy" / "sound" / "dense_seed0" / "raw" / "development" / "warnings.csv"
    pd.read_csv(path).assign(warning="undefined: a denominator is 0").to_csv(path, index=False)
    (row,) = table_of(root, {"metric": "f1", "class_name": "ALL"}).rows
    assert row[2] == "missing: undefined: a denominator is 0"


def test_both_protocols_stand_side_by_side_with_the_stamp(root: Path) -> None:
    write_metrics(root, TEST, [metrics_row("accuracy", 0.95)], protocol="as_published")
    table = table_of(root, {"value": 0.953}, protocols=["as_published", "sound"])
    assert table.leaky and f"ours, as_published ({LEAKY})" in table.header and "ours, sound" in table.header
    assert [table.rows[0][i] for i in (2, 4, 5, 7)] == [
        "0.950 (0.850\u00a0to\u00a01.050)",
        "−0.003",
        "0.750 (0.650\u00a0to\u00a00.850)",
        "−0.203",
    ]
    assert not table_of(root, {}).leaky


def test_without_published_or_assumed_values_there_is_no_section(root: Path) -> None:
    options = grid_options()
    assert published_section(reporter_of(root, options), options) is None and assumed_section(options) is None


def test_assumed_values_are_those_of_the_configuration() -> None:
    options = grid_options(
        assumed={
            "training.rate": "not given",
            "splits.seed": "ours",
            "models.lite_w19.heads": "tried",
            "training.patience": "all epochs",
            "augmentation.plan": "none stated",
            "images.size": "not passed",
        },
        training={"rate": 0.0003, "patience": None},
        augmentation={"plan": "off"},
    )
    section = assumed_section(options)
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    rows = {row[0]: list(row[1:]) for row in table.rows}
    assert rows["training.rate"] == ["0.0003", "not given"]
    assert rows["splits.seed"][0] == "0"  # a default of the configuration
    assert rows["models.lite_w19.heads"][0] == '{"leukaemia": 0.1, "diagnosis": 0.9}'
    assert rows["training.patience"][0] == "null" and rows["augmentation.plan"][0] == "off"
    # A default of ours would not be the study's value.
    assert rows["images.size"][0] == "missing: the report is not told of images"
