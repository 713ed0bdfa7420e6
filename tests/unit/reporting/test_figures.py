"""Figures of accuracy: the artists hold the numbers that were given, and no text lies over another."""

import numpy as np
import pandas as pd
import pytest
from figure_checks import crowded, words_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marrowflow.config import LEAKY
from marrowflow.reporting import figures
from marrowflow.reporting.figures import Band, Line, Measured

NAN = float("nan")
LONG = [
    "neutrophil (segmented)",
    "B",
    "promyelocyte, atypical, bilobed",
    "acute lymphoblastic leukaemia of the B cell line",
    "D",
    "E",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk",
    "G",
]
GRID = np.linspace(0, 1, 11)
BAND = Band(GRID, np.sqrt(GRID) * 0.8, np.minimum(np.sqrt(GRID) * 1.2, 1))
CURVE = Line(np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.8, 1.0]), BAND)
POINT = (Measured(0.2, 0.1, 0.35), Measured(0.8, 0.6, 0.9))
BINS = pd.DataFrame(
    {
        "n": [30, 20],
        "mean_predicted": [0.1, 0.9],
        "observed": [0.2, 1.0],
        "low": [0.1, NAN],
        "high": [0.4, NAN],
    }
)
HISTOGRAM = pd.DataFrame(
    {"low": [0.0, 0.5], "high": [0.5, 1.0], "positives": [5, 20], "negatives": [12000, 8]}
)
THRESHOLDS = np.arange(1, 100) / 100
TREAT_ALL = Line(THRESHOLDS, 0.3 - 0.7 * THRESHOLDS / (1 - THRESHOLDS))


def curve(name: str = "", line: Line = CURVE, **changes: object) -> figures.Curve:
    return figures.Curve(
        name, "n = 171374 images, 40000\u00a0positive", "AUC 0.900 (0.800 to 0.950)", line, **changes
    )


def model(last: float = 0.6) -> Line:
    """Net benefit that is 0 from threshold `last` on, where the index test treats nobody."""
    y = np.where(last - THRESHOLDS > 1e-9, 0.3 * (1 - THRESHOLDS), 0.0)
    return Line(THRESHOLDS, y, Band(THRESHOLDS, y - 0.1, y + 0.1))


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    return [list(zip(*map(list, line.get_data()), strict=True)) for line in axes.lines]


def band_of(axes: Axes) -> set[tuple[float, float]]:
    (collection,) = axes.collections
    return {tuple(v) for v in collection.get_paths()[0].vertices.round(9)}


def test_roc_draws_curve_band_chance_and_the_operating_point() -> None:
    canvas = figures.roc(
        [curve(point=POINT)], "ROC", "n = 3", band="pointwise 95% interval", point="cut-off 0.62"
    )
    axes = canvas.axes[0]
    chance, drawn, across, upright, point = lines(axes)
    assert chance == [(0, 0), (1, 1)] and drawn == [(0, 0), (0.2, 0.8), (1, 1)]
    assert (
        across == [(0.1, 0.8), (0.35, 0.8)] and upright == [(0.2, 0.6), (0.2, 0.9)] and point == [(0.2, 0.8)]
    )
    given = {*zip(GRID, BAND.low, strict=True), *zip(GRID, BAND.high, strict=True)}
    assert {(round(x, 9), round(y, 9)) for x, y in given} <= band_of(axes)
    words = words_of(canvas)
    for text in (
        "n = 171374 images, 40000 positive",
        "AUC 0.900 (0.800 to 0.950)",
        "cut-off 0.62",
        "pointwise 95% i",
    ):
        assert text in words


def test_a_band_or_an_interval_that_was_suppressed_is_not_drawn_nor_explained() -> None:
    nothing = np.full(11, NAN)
    point = (Measured(0.2), Measured(0.8, 0.6, 0.9))
    canvas = figures.roc(
        [curve(line=Line(CURVE.x, CURVE.y, Band(GRID, nothing, nothing)), point=point)],
        "ROC",
        "",
        band="the band",
    )
    assert not canvas.axes[0].collections and "the band" not in words_of(canvas)
    assert len(canvas.axes[0].lines) == 4  # chance, curve, one interval, point
    without = figures.roc([curve()], "ROC", "", point="cut-off")
    assert len(without.axes[0].lines) == 2 and "cut-off" not in words_of(without)


def test_precision_recall_draws_steps_the_prevalence_and_the_operating_point() -> None:
    canvas = figures.precision_recall([curve(level=0.25, point=POINT)], "PR", "", point="cut-off 0.62")
    level, drawn, *_, point = canvas.axes[0].lines
    assert level.get_ydata() == [0.25, 0.25] and drawn.get_drawstyle() == "steps-post"
    assert point.get_xydata().tolist() == [[0.2, 0.8]] and "prevalence 0.250" in words_of(canvas)


def test_calibration_draws_points_intervals_and_counts_under_one_scale() -> None:
    panel = figures.Calibration("", ["n = 50", "slope 0.9"], BINS, HISTOGRAM)
    canvas = figures.calibration([panel], "Calibration", "", interval="95% interval")
    top, below, _ = canvas.axes
    (marks,) = [line for line in top.lines if line.get_marker() == "o"]
    assert marks.get_xydata().tolist() == [[0.1, 0.2], [0.9, 1.0]]
    assert not marks.get_clip_on()  # a marker at 1 is drawn whole
    bars = [path.vertices.tolist() for path in top.collections[0].get_paths()]
    assert np.allclose(bars[0], [[0.1, 0.1], [0.1, 0.4]]) and np.allclose(bars[1], [[0.9, 1.0]] * 2)
    assert top.get_xlim() == below.get_xlim()
    # each kind on its own scale: heights are shares of the kind's highest bar, whose count is the tick
    bars = [(p.get_x(), p.get_width(), p.get_height()) for p in below.patches]
    assert bars == [(0, 0.5, 0.25), (0.5, 0.5, 1), (0, 0.5, -1), (0.5, 0.5, -8 / 12000)]
    assert [t.get_text() for t in below.get_yticklabels()] == ["20", "12k"]
    assert "n = 50 slope 0.9" in words_of(canvas)


def test_calibration_without_a_histogram_draws_the_n_of_each_point() -> None:
    canvas = figures.calibration([figures.Calibration("", ["n = 50"], BINS)], "Calibration", "")
    sticks = [s.tolist() for s in canvas.axes[1].collections[0].get_segments()]
    assert sticks == [[[0.1, 0], [0.1, 30]], [[0.9, 0], [0.9, 20]]] and "n of each point" in words_of(canvas)


def test_a_decision_curve_is_cut_where_it_tells_nothing() -> None:
    panel = figures.Decision("", "n = 50", model(0.6), TREAT_ALL)
    canvas = figures.decision_curve([panel], "Decision curve", "", band="95% interval")
    axes = canvas.axes[0]
    none, everybody, tested = axes.lines
    assert none.get_ydata() == [0, 0]
    assert np.array_equal(everybody.get_ydata(), TREAT_ALL.y) and np.array_equal(
        tested.get_ydata(), panel.model.y
    )
    assert axes.get_xlim() == pytest.approx((0, 0.64))  # the last treated at is 0.59
    bottom, top = axes.get_ylim()
    highest = 0.3 * 0.99 + 0.1
    assert top == pytest.approx(1.06 * highest) and bottom == pytest.approx(-0.25 * highest)
    assert "n = 50" in words_of(canvas)


def test_a_useless_index_test_still_has_a_decision_curve() -> None:
    nothing = Line(THRESHOLDS, np.zeros(99))
    canvas = figures.decision_curve(
        [figures.Decision("", "n = 0 of 3", nothing, nothing)], "Decision curve", ""
    )
    assert canvas.axes[0].get_ylim()[1] > 0 and not crowded(canvas)


def test_predictive_values_mark_the_prevalence_of_the_study() -> None:
    ppv, npv = Line(GRID, GRID, BAND), Line(GRID, 1 - GRID)
    canvas = figures.predictive_values(
        [figures.Predictive("", "n = 8", ppv, npv, 0.375)], "PV", "", band="95%"
    )
    own, first, second = canvas.axes[0].lines
    assert own.get_xdata() == [0.375, 0.375] and "prevalence in this study (0.375)" in words_of(canvas)
    assert np.array_equal(first.get_ydata(), GRID) and np.array_equal(second.get_ydata(), 1 - GRID)
    assert len(canvas.axes[0].collections) == 1 and "n = 8" in words_of(canvas)


def test_confusion_prints_counts_and_row_percentages() -> None:
    counts = pd.DataFrame([[3, 1], [0, 0]], index=["AML", "ALL"], columns=["AML", "ALL"])
    axes = figures.confusion(counts, "Confusion", "n = 4").axes[0]
    assert [t.get_text() for t in axes.texts] == ["3\n75 %", "1\n25 %", "0\n–", "0\n–"]


def test_the_stamp_is_drawn_on_leaky_figures_only() -> None:
    for leaky in (False, True):
        drawn = [t.get_text() for t in figures.roc([curve()], "ROC", "n = 3", leaky).texts]
        assert (LEAKY in drawn) is leaky


def charts(names: list[str], leaky: bool) -> dict[str, Figure]:
    """Every chart with a panel a name, filled with wide words."""
    head = (
        "A title of many words: " + ", ".join(names),
        "Städtisches Klinikum, lite-raw, n = 171374 images",
        leaky,
    )
    n = "n = 171374 surrogate groups, 40000\u00a0positive"
    curves = [curve(name, point=POINT, level=0.25) for name in names]
    slope = ["slope 0.910 (0.700\u00a0to\u00a01.120)", "intercept −0.103 (−0.312\u00a0to\u00a00.121)"]
    panels = [figures.Calibration(name, [n, *slope], BINS, HISTOGRAM) for name in names]
    low = Line(THRESHOLDS, TREAT_ALL.y * 0.004)
    decisions = [
        figures.Decision(name, n, low if i % 2 else model(), TREAT_ALL) for i, name in enumerate(names)
    ]
    values = [
        figures.Predictive(name, n, Line(GRID, GRID, BAND), Line(GRID, 1 - GRID), 0.3) for name in names
    ]
    point = "locked cut-off 0.620: sensitivity 0.956 (0.846 to 0.988), specificity 1.000 (0.765 to 1.000)"
    return {
        "roc": figures.roc(curves, *head, band="pointwise 95% interval of sensitivity", point=point),
        "pr": figures.precision_recall(curves, *head, point=point),
        "calibration": figures.calibration(panels, *head, interval="95% interval"),
        "sticks": figures.calibration([figures.Calibration(name, [n], BINS) for name in names], *head),
        "decision": figures.decision_curve(decisions, *head, band="pointwise 95% interval"),
        "predictive": figures.predictive_values(values, *head, band="pointwise 95% interval"),
    }


@pytest.mark.parametrize(("names", "leaky"), [([""], True), (LONG[:3], False), (LONG, True)])
def test_no_text_lies_over_another_or_leaves_a_phone(names: list[str], leaky: bool) -> None:
    for kind, canvas in charts(names, leaky).items():
        assert not crowded(canvas), kind
        assert canvas.get_figwidth() * 72 == 358, kind
        panels = 2 * len(names) if kind in ("calibration", "sticks") else len(names)
        assert len(canvas.axes) == panels + 1, kind  # and the legend
        assert sum("40000\u00a0positive" in text.get_text() for text in canvas.texts) == len(names), kind


@pytest.mark.parametrize("names", [["healthy", "AML"], LONG[:5], LONG], ids=len)
def test_a_confusion_matrix_of_long_names_keeps_them_apart(names: list[str]) -> None:
    counts = pd.DataFrame(np.arange(len(names) ** 2).reshape(len(names), -1), index=names, columns=names)
    canvas = figures.confusion(counts, "Confusion", "n = 171374", leaky=True)
    assert not crowded(canvas) and canvas.get_figwidth() * 72 < 390
