"""Tables of the reports: what is undefined, suppressed or missing is said in words."""

import numpy as np
import pandas as pd

from marrowflow.reporting import tables
from marrowflow.reporting.results import read_csv
from marrowflow.reporting.sections import confusion_matrix

TO = "\u00a0to\u00a0"


def metrics(**changes: object) -> pd.DataFrame:
    row = {
        "endpoint": "AML", "metric": "sensitivity", "class": "", "unit": "patient", "estimate": 0.9, "low": 0.8, "high": 0.95,
        "method": "wilson_neff", "primary": True, "n_cases": 100, "n_patients": 40, "numerator": 18, "denominator": 20,
        "replicates": 0, "undefined": 0, "seed": 0,
    }  # fmt: skip
    return pd.DataFrame([row | changes])


def printed(table: pd.DataFrame, warnings: pd.DataFrame | None = None) -> list[list[str]]:
    made = tables.metrics_table(table, warnings, "AML", "patient", ["AML"], "title", 0.95, {})
    return [list(row) for row in made.rows]


def test_a_row_prints_estimate_interval_method_share_and_both_n() -> None:
    assert printed(metrics()) == [
        ["sensitivity", "0.900", f"0.800{TO}0.950", "Wilson,\u00a0effective\u00a0n", "18/20", "40", "100"]
    ]


def compared(warnings: pd.DataFrame | None = None, noun: str = "patients", **changes: object) -> tables.Table:
    table = pd.concat([metrics(), metrics(metric="auc", numerator=np.nan, denominator=np.nan)])
    return tables.comparison_table(
        {"B": (table.assign(**changes), warnings)}, "data", "AML", "patient", "title", {}, noun=noun
    )


def test_a_comparison_prints_the_share_of_proportions_only() -> None:
    made = compared()
    assert made.rows[0] == [
        "B", "40", f"0.900 (0.800{TO}0.950)", f"0.900\u00a0[18/20] (0.800{TO}0.950)", "missing",
    ]  # fmt: skip
    assert made.notes == ["In brackets: numerator/denominator, in patients."]


def test_surrogate_groups_stand_for_patients_in_headers_and_notes() -> None:
    assert compared(noun="surrogate groups").header[1] == "surrogate groups"
    warnings = pd.DataFrame(
        [
            warning("", "", "no patient identifiers: clusters are surrogate groups of near duplicates"),
            warning("AML", "", "9 patients of positive: estimates are coarse under 30"),
        ]
    )
    made = tables.metrics_table(
        metrics(method="bootstrap_bca"), warnings, "AML", "patient", ["AML"], "t", 0.95, {}, False, ["Remark."],
        "surrogate groups",
    )  # fmt: skip
    assert "surrogate groups" in made.header and "patients" not in made.header
    assert made.notes == [
        "Remark.",
        "The bootstrap resamples surrogate groups with all their images.",
        "Warning: 9 surrogate groups of positive: estimates are coarse under 30.",
    ]


def warning(endpoint: str, metric: str, text: str, name: str = "") -> dict[str, str]:
    unit = "patient" if endpoint else ""
    return {"endpoint": endpoint, "metric": metric, "class": name, "unit": unit, "warning": text}


def test_a_comparison_warns_of_each_thing_once() -> None:
    few = [warning("classes", "", f"{n} patients of {c}: few", c) for n, c in ((5, "AML"), (6, "ALL"))]
    macro = warning("classes", "auc", "2 classes at 0 % or 100 %: too narrow", "macro")
    own = warning("classes", "auc", "of one class only", "AML")
    rows = {
        "B": pd.DataFrame([*few, macro, own]),
        "C": pd.DataFrame([*few, macro]),
        "D": pd.DataFrame(few),
        "E": None,
    }
    found = tables.comparison_warnings(rows, "classes", "patient", dict.fromkeys(rows, "patients"))
    assert found == [
        "Warning, B, C, D: 5 patients of AML, 6 patients of ALL: few.",
        "Warning, B, C: AUC (macro): 2 classes at 0 % or 100 %: too narrow.",
    ]


def test_only_primary_rows_are_printed() -> None:
    both = pd.concat([metrics(), metrics(primary=False, method="bootstrap_bca", low=0.1)])
    assert len(printed(both)) == 1


def test_undefined_and_suppressed_are_said() -> None:
    undefined = printed(metrics(estimate=np.nan, low=np.nan, high=np.nan, method="none"))[0]
    assert undefined[1:3] == ["undefined", "–"]
    warnings = pd.DataFrame(
        [
            {
                "endpoint": "AML",
                "metric": "sensitivity",
                "class": "",
                "unit": "patient",
                "warning": "one patient only",
            },
            {
                "endpoint": "AML",
                "metric": "npv",
                "class": "",
                "unit": "patient",
                "warning": "of another metric",
            },
        ]
    )
    suppressed = printed(metrics(low=np.nan, high=np.nan, method="none"), warnings)[0]
    assert suppressed[2] == "no interval: one patient only"
    assert printed(metrics(low=np.nan, high=np.nan, method="none"))[0][2] == "no interval: reason not given"


def test_overall_values_stand_before_classes_in_the_studys_order() -> None:
    rows = [
        metrics(**{"class": c, "metric": m})
        for c, m in (("ALL", "auc"), ("", "kappa"), ("AML", "ppv"), ("AML", "auc"), ("macro", "auc"))
    ]
    made = tables.metrics_table(pd.concat(rows), None, "AML", "patient", ["AML", "ALL"], "t", 0.95, {})
    assert [(r[0], r[1]) for r in made.rows] == [
        ("κ", "–"), ("AUC", "macro"), ("AUC", "AML"), ("PPV", "AML"), ("AUC", "ALL"),
    ]  # fmt: skip


def test_numbers() -> None:
    assert [tables.number(x) for x in (0.12345, -0.5, 12.34, 1234.5, float("nan"), float("inf"))] == [
        "0.123", "−0.500", "12.3", "1234", "undefined", "∞",
    ]  # fmt: skip


def test_a_class_called_na_stays_a_class(tmp_path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("endpoint,class,estimate,primary\nclasses,NA,,True\nclasses,null,0.5,False\n")
    table = read_csv(path)
    assert table["class"].tolist() == ["NA", "null"]
    assert np.isnan(table["estimate"][0]) and table["primary"].tolist() == [True, False]
    assert read_csv(tmp_path / "absent.csv") is None


def test_confusion_keeps_order_and_drops_only_what_is_empty() -> None:
    cells = {("AML", "positive"): 3, ("AML", "indeterminate"): 1, ("healthy", "negative"): 2}
    rows = pd.DataFrame(
        [
            {"truth": t, "predicted": p, "n": cells.get((t, p), 0)}
            for t in ("healthy", "AML", "inconclusive", "missing")
            for p in ("positive", "negative", "indeterminate", "not_done")
        ]
    )
    matrix = confusion_matrix(rows, ["healthy", "AML"])
    assert matrix.index.tolist() == ["healthy", "AML"]
    assert matrix.columns.tolist() == ["positive", "negative", "indeterminate"]
    assert matrix.to_numpy().tolist() == [[0, 2, 0], [3, 0, 1]]
