"""From tables to figures: which rows are drawn, what is said of them, and what is left out with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_checks import words_of

from marrowflow.reporting.accuracy_figures import Asked, Drawing, endpoint_drawings
from marrowflow.reporting.results import read_csv

NAN = float("nan")
Row = tuple[str, float, float, float]  # metric, estimate, low, high


def metrics(name: str = "", positives: int = 30, negatives: int = 10) -> pd.DataFrame:
    """Metrics as the accuracy step writes them, the printed rows first among others that must not be drawn."""
    rows = [
        ("auc", 0.9, 0.8, 0.95, NAN),
        ("average_precision", 0.85, 0.7, 0.92, NAN),
        ("sensitivity", 0.8, 0.6, 0.9, positives),
        ("specificity", 0.7, 0.5, 0.84, negatives),
        ("ppv", 0.75, 0.6, 0.87, 32),
    ]
    columns = ["metric", "estimate", "low", "high", "denominator"]
    table = pd.DataFrame(rows, columns=columns).assign(endpoint="AML", unit="patient", primary=True)
    table["class"] = name
    other = table.assign(estimate=0.111, low=0.1, high=0.12)
    return pd.concat(
        [other.assign(primary=False), table, other.assign(unit="case"), other.assign(endpoint="ALL")]
    )


def long(metric: str, points: list[tuple], name: str = "", **changes: object) -> pd.DataFrame:
    """Rows (at, estimate, low, high) of one of the tables by ``at``."""
    table = pd.DataFrame(points, columns=["at", "estimate", "low", "high"]).astype("float64")
    table = table.assign(endpoint="AML", unit="patient", metric=metric, primary=True)
    table["class"] = name
    return table.assign(**changes)


def here(table: pd.DataFrame, name: str = "") -> pd.DataFrame:
    table = table.assign(endpoint="AML", unit="patient")
    table["class"] = name
    return table


def tables(name: str = "") -> dict[str, pd.DataFrame]:
    band = [(0.0, 0.5, 0.3, 0.7), (1.0, 1.0, 1.0, 1.0)]
    benefit = [(0.1, 0.6, 0.5, 0.7), (0.5, 0.4, 0.2, 0.5), (0.9, 0.0, 0.0, 0.0)]
    everybody = [(0.1, 0.7, 0.6, 0.8), (0.5, 0.5, 0.4, 0.6), (0.9, -1.5, -2.0, -1.0)]
    slope, ruined = (long("calibration_slope", [(NAN, e, e - 0.2, e + 0.2)], name) for e in (0.9, 1.05))
    edges = np.linspace(0, 1, 21)
    counts = {"low": edges[:-1], "high": edges[1:], "positives": 2, "negatives": 1}
    bins = {"n": 40, "mean_predicted": [0.7], "observed": 0.75, "low": 0.6, "high": 0.85}
    return {
        "roc.csv": here(pd.DataFrame({"fpr": [0.0, 0.3, 1.0], "tpr": [0.0, 0.8, 1.0]}), name),
        "roc_band.csv": pd.concat(
            [
                long("tpr_at_fpr", band, name),
                long("tpr_at_fpr", [(0.5, 0.0, 0.0, 0.1)], name, primary=False),
                long("tpr_at_fpr", [(0.5, 0.0, 0.0, 0.1)], name, unit="case"),
            ]
        ),
        "pr.csv": here(pd.DataFrame({"recall": [1.0, 0.0], "precision": [0.75, 1.0]}), name),
        "calibration.csv": here(pd.DataFrame(bins), name),
        "calibration_uncalibrated.csv": here(pd.DataFrame(bins | {"mean_predicted": [0.95]}), name),
        "calibration_measures.csv": pd.concat(
            [ruined.assign(scores="recalibrated_out_of_fold"), slope.assign(scores="as_given")]
        ),
        "score_histogram.csv": here(pd.DataFrame(counts), name),
        # in no order: the figure sorts by threshold
        "decision.csv": pd.concat(
            [long("net_benefit", benefit[::-1], name), long("net_benefit_treat_all", everybody, name)]
        ),
        "predictive_values.csv": pd.concat(
            [
                long("ppv_at_prevalence", [(0.1, 0.3, 0.2, 0.4), (0.5, 0.7, 0.6, 0.8)], name),
                long("npv_at_prevalence", [(0.1, 0.97, 0.9, 0.99), (0.5, 0.8, 0.7, 0.9)], name),
            ]
        ),
    }


def asked(files: dict[str, pd.DataFrame], classes: tuple[str, ...] = ("",), numbers=None) -> Asked:
    words = (
        "AML",
        "patient",
        classes,
        "AML (AML against all others)",
        "Hospital B, lite-raw, n = 40 patients",
    )
    given = metrics() if numbers is None else numbers
    return Asked(*words, "patients", "locked cut-off 0.620", 0.9, given, files.get)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Drawing]:
    whole = asked(tables())
    made = {drawing.kind: drawing for drawing in endpoint_drawings(whole)}
    assert whole.lost == []
    return made


def test_all_five_figures_are_drawn_with_n(drawn: dict[str, Drawing]) -> None:
    assert list(drawn) == ["roc", "pr", "calibration", "decision", "predictive_values"]
    for drawing in drawn.values():
        assert "n = 40 patients, 30 positive" in words_of(drawing.canvas)
        assert "n = 40 patients, 30 positive" in drawing.alternative.replace("\u00a0", " ")


def test_the_operating_point_of_the_roc_is_that_of_the_printed_metrics(drawn: dict[str, Drawing]) -> None:
    *_, across, upright, point = drawn["roc"].canvas.axes[0].lines
    # 1 - specificity, whose limits change places
    assert point.get_xydata() == pytest.approx(np.array([[0.3, 0.8]]))
    assert list(across.get_xdata()) == pytest.approx([0.16, 0.5])
    assert list(upright.get_ydata()) == [0.6, 0.9]
    words = words_of(drawn["roc"].canvas)
    assert "AUC 0.900 (0.800 to 0.950)" in words and "pointwise 90% interval of sensitivity" in words
    assert "sensitivity 0.800 (0.600 to 0.900)" in drawn["roc"].alternative


def test_only_the_printed_rows_of_the_endpoint_and_unit_make_the_band(drawn: dict[str, Drawing]) -> None:
    (band,) = drawn["roc"].canvas.axes[0].collections
    assert (
        set(band.get_paths()[0].vertices[:, 0]) == {0.0, 1.0}
        and band.get_paths()[0].vertices[:, 1].min() == 0.3
    )


def test_precision_recall_has_average_precision_and_prevalence(drawn: dict[str, Drawing]) -> None:
    level, *_, point = drawn["pr"].canvas.axes[0].lines
    assert level.get_ydata() == [0.75, 0.75] and point.get_xydata().tolist() == [[0.8, 0.75]]
    assert "average precision 0.850 (0.700 to 0.920), prevalence 0.750" in drawn["pr"].alternative


def test_calibration_prints_the_slope_of_the_scores_as_given(drawn: dict[str, Drawing]) -> None:
    words = words_of(drawn["calibration"].canvas)
    assert "slope 0.900 (0.700 to 1.100)" in words and "1.05" not in words
    assert len(drawn["calibration"].canvas.axes[1].patches) == 40
    assert "predicted 0.700, observed 0.750 (0.600 to 0.850)" in drawn["calibration"].alternative


def test_the_curve_before_calibration_lies_behind_the_calibrated_one(drawn: dict[str, Drawing]) -> None:
    axes = drawn["calibration"].canvas.axes[0]
    _, before, after = axes.lines
    assert before.get_xydata().tolist() == [[0.95, 0.75]] and after.get_xydata().tolist() == [[0.7, 0.75]]
    assert before.get_linestyle() == "--" and before.get_zorder() < after.get_zorder()
    assert "before calibration" in words_of(drawn["calibration"].canvas)
    assert "before calibration predicted 0.950, observed 0.750" in drawn["calibration"].alternative
    nothing = tables() | {"calibration_uncalibrated.csv": tables()["calibration_uncalibrated.csv"].iloc[:0]}
    alone = {made.kind: made for made in endpoint_drawings(asked(nothing))}["calibration"]
    assert len(alone.canvas.axes[0].lines) == 2 and "before calibration" not in words_of(alone.canvas)


def test_decision_and_predictive_values_are_the_tables(drawn: dict[str, Drawing]) -> None:
    _, everybody, model = drawn["decision"].canvas.axes[0].lines
    assert model.get_xydata().tolist() == [[0.1, 0.6], [0.5, 0.4], [0.9, 0.0]]
    assert everybody.get_ydata().tolist() == [0.7, 0.5, -1.5]
    assert len(drawn["decision"].canvas.axes[0].collections) == 1  # only the model's band
    assert "net benefit 0.600 (0.500 to 0.700) at threshold probability 0.1" in drawn["decision"].alternative
    own, ppv, npv = drawn["predictive_values"].canvas.axes[0].lines
    assert own.get_xdata() == [0.75, 0.75]
    assert ppv.get_ydata().tolist() == [0.3, 0.7] and npv.get_ydata().tolist() == [0.97, 0.8]
    assert "NPV 0.970 (0.900 to 0.990) at prevalence 0.1" in drawn["predictive_values"].alternative


@pytest.mark.parametrize("name", sorted(tables()))
@pytest.mark.parametrize("how", ["absent", "no rows", "no columns"])
def test_a_table_that_is_not_there_costs_its_figure_and_says_so(name: str, how: str) -> None:
    files = tables()
    empty = {"no rows": files[name].iloc[:0], "no columns": pd.DataFrame()}
    files = {k: v for k, v in files.items() if k != name} | ({} if how == "absent" else {name: empty[how]})
    lacking = asked(files)
    made = [drawing.kind for drawing in endpoint_drawings(lacking)]
    kept = {  # parts of a figure
        "roc_band.csv",
        "score_histogram.csv",
        "calibration_measures.csv",
        "calibration_uncalibrated.csv",
    }
    assert len(made) == (5 if name in kept else 4)
    # Without rows in that one nothing was calibrated, and nothing is missing.
    nothing = name == "calibration_uncalibrated.csv" and how != "absent"
    assert lacking.lost == ([] if nothing else [f"missing: {name} has no rows for AML, per patient"])


def test_undefined_numbers_are_left_out_with_a_reason() -> None:
    files = tables()
    for name in ("decision.csv", "predictive_values.csv"):
        files[name] = files[name].assign(estimate=NAN, low=NAN, high=NAN)
    undefined = asked(files)
    assert [drawing.kind for drawing in endpoint_drawings(undefined)] == ["roc", "pr", "calibration"]
    assert undefined.lost == [
        "no decision curve of AML: net benefit is undefined",
        "no predictive values by prevalence of AML: they are undefined",
    ]


def test_a_decision_curve_without_treating_all_is_drawn() -> None:
    files = tables()
    alone = files["decision.csv"][files["decision.csv"]["metric"].eq("net_benefit")]
    made = {drawing.kind: drawing for drawing in endpoint_drawings(asked(files | {"decision.csv": alone}))}
    assert made["decision"].canvas.axes[0].lines[2].get_ydata().tolist() == [0.6, 0.4, 0.0]


def test_without_printed_metrics_n_and_the_operating_point_are_missing_not_wrong() -> None:
    roc, *_ = endpoint_drawings(asked(tables(), numbers=metrics().iloc[:0]))
    assert len(roc.canvas.axes[0].lines) == 2  # chance and curve
    assert "n missing" in words_of(roc.canvas) and "AUC missing" in words_of(roc.canvas)


def test_classes_have_a_panel_each_in_the_order_of_the_study() -> None:
    parts = [tables("b"), tables("a")]
    files = {name: pd.concat([part[name] for part in parts]) for name in parts[0]}
    numbers = pd.concat([metrics("a", 12, 28), metrics("b", 7, 33)])
    whole = asked(files, ("a", "b", "c"), numbers)
    made = {drawing.kind: drawing for drawing in endpoint_drawings(whole)}
    assert whole.lost == ["no ROC of c: undefined without cases of both kinds"]
    for drawing in made.values():
        words = words_of(drawing.canvas)
        assert words.index("12 positive") < words.index("7 positive")
    assert "a: AUC 0.900 (0.800 to 0.950), n = 40 patients, 12 positive; b:" in made["roc"].alternative


def test_an_empty_file_is_no_table(tmp_path: Path) -> None:
    for text in ("", "\n"):
        (tmp_path / "decision.csv").write_text(text)
        assert read_csv(tmp_path / "decision.csv") is None
