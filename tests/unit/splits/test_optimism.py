import numpy as np
import pandas as pd
import pytest

from marrowflow.errors import UserError
from marrowflow.splits.optimism import main, optimism_table

COLUMNS = [
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
]


def metrics(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


PUBLISHED = metrics(
    ("AML", "auc", "", "patient", 0.99, 0.97, 1.0, "bootstrap_bca", True, 80, 20),
    ("AML", "auc", "", "patient", 0.99, 0.96, 1.0, "delong", False, 80, 20),
    ("AML", "auc", "", "case", 0.98, 0.95, 1.0, "bootstrap_bca", True, 80, 20),
    ("classes", "f1", "NA", "case", 0.9, 0.8, 0.95, "bootstrap_bca", True, 80, 20),
)
SOUND = metrics(
    ("AML", "auc", "", "case", 0.90, 0.80, 0.95, "bootstrap_bca", True, 81, 21),
    ("AML", "auc", "", "patient", 0.85, 0.75, 0.93, "bootstrap_bca", True, 81, 21),
    ("classes", "f1", "macro", "case", 0.7, 0.6, 0.8, "bootstrap_bca", True, 81, 21),
)


def test_primary_rows_are_set_side_by_side():
    table = optimism_table(PUBLISHED, SOUND)
    assert table[["metric", "class", "unit"]].agg("|".join, axis=1).tolist() == [
        "auc||patient",
        "auc||case",
        "f1|NA|case",
        "f1|macro|case",
    ]
    np.testing.assert_allclose(table["optimism"], [0.14, 0.08, np.nan, np.nan])
    first = table.iloc[0]
    assert (first["leaky_low"], first["leaky_high"], first["sound_low"], first["sound_high"]) == (
        0.97,
        1,
        0.75,
        0.93,
    )
    assert (first["leaky_n_patients"], first["sound_n_cases"]) == (20, 81)


def test_table_without_or_with_two_primary_rows_is_refused():
    with pytest.raises(UserError, match="sound table of metrics has no row marked primary"):
        optimism_table(PUBLISHED, SOUND.assign(primary=False))
    with pytest.raises(UserError, match="two primary rows of AML, auc, , patient"):
        optimism_table(PUBLISHED.assign(primary=True), SOUND)


def test_command_line_keeps_a_class_called_na(tmp_path):
    PUBLISHED.to_csv(tmp_path / "p.csv", index=False)
    SOUND.to_csv(tmp_path / "s.csv", index=False)
    out = tmp_path / "optimism.csv"
    main(["--published", str(tmp_path / "p.csv"), "--sound", str(tmp_path / "s.csv"), "--out", str(out)])
    lines = out.read_text().splitlines()
    assert lines[0].startswith("endpoint,metric,class,unit,leaky,leaky_low,leaky_high")
    assert any(line.startswith("classes,f1,NA,case,0.9,") for line in lines)
