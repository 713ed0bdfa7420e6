"""Figures: the same bytes, the numbers that were given, text within its room."""

import hashlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from marrowflow.reporting import figures


def curve(label: str = "AML: AUC 0.900") -> figures.Curve:
    return figures.Curve(label, np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.8, 1.0]))


def digests(folder) -> list[str]:
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())]


def test_a_figure_is_written_in_three_formats_with_the_same_bytes_each_time(tmp_path) -> None:
    for name in ("one", "two"):
        saved = figures.save(figures.roc([curve()], "ROC", "n = 3 patients"), tmp_path / name, "roc")
    assert [p.name for p in sorted((tmp_path / "one").iterdir())] == ["roc.pdf", "roc.png", "roc.svg"]
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert b"<dc:date>" not in saved.svg and b"<text" not in saved.svg


def test_no_global_figure_or_style_is_left_behind() -> None:
    before = dict(plt.rcParams)
    figures.roc([curve()], "ROC", "n = 3")
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before


def test_text_width_is_the_drawn_width() -> None:
    canvas, axes = figures.blank(400, 50)
    text = axes.text(0, 20, "Predicted chronic lymphocytic leukaemia", size=11)
    drawn = text.get_window_extent(FigureCanvasAgg(canvas).get_renderer()).width
    assert abs(figures.text_width(text.get_text(), 11) - drawn) < 4


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("abcdef-éλ", min_size=1, max_size=40), min_size=1, max_size=8))
def test_wrapped_lines_fit_and_lose_nothing(words: list[str]) -> None:
    lines = figures.wrapped(" ".join(words), 90)
    assert all(figures.text_width(line, 11) <= 90 for line in lines)
    # hyphens at line ends are ours where a word was cut
    assert "".join(lines).replace("-", "").replace(" ", "") == "".join(words).replace("-", "")


def test_a_number_keeps_its_noun() -> None:
    lines = figures.wrapped("12\u00a0images of 3\u00a0patients", 62)
    assert lines == ["12\u00a0images", "of", "3\u00a0patients"]
    assert figures.wrapped("12 images of 3 patients", 62) == ["12 images", "of 3", "patients"]


def test_confusion_prints_counts_and_row_percentages() -> None:
    counts = pd.DataFrame([[3, 1], [0, 0]], index=["AML", "ALL"], columns=["AML", "ALL"])
    axes = figures.confusion(counts, "Confusion", "n = 4").axes[0]
    assert [t.get_text() for t in axes.texts] == ["3\n75 %", "1\n25 %", "0\n–", "0\n–"]


def test_the_stamp_is_drawn_on_leaky_figures_only() -> None:
    for leaky in (False, True):
        drawn = [t.get_text() for t in figures.roc([curve()], "ROC", "n = 3", leaky).texts]
        assert (figures.LEAKY in drawn) is leaky


def history(epochs: int, validated: bool) -> pd.DataFrame:
    losses = np.linspace(1, 0.5, epochs)
    columns = {"epoch": np.arange(1, epochs + 1), "train_loss": losses, "train_accuracy": 1 - losses}
    held_out = losses + 0.1 if validated else np.full(epochs, np.nan)
    return pd.DataFrame(columns | {"validation_loss": held_out, "validation_accuracy": 0.9 - held_out})


def test_training_curves_mark_the_kept_epoch_of_each_fold() -> None:
    for validated in (True, False):
        folds = {"0": history(5, validated), "1": history(4, validated)}
        canvas = figures.training_curves(folds, {"0": 3, "1": 4}, "Accuracy and loss", "n = 2 folds")
        marks = [line for line in canvas.axes[0].lines if line.get_marker() == "D"]
        part = "validation_loss" if validated else "train_loss"
        assert [(m.get_xdata()[0], m.get_ydata()[0]) for m in marks] == [
            (3, folds["0"][part][2]),
            (4, folds["1"][part][3]),
        ]
        legend = [t.get_text() for t in canvas.axes[-1].texts]
        assert legend[-1] == f"kept epoch ({'lowest validation loss' if validated else 'the last one'})"


def test_calibration_markers_at_the_edge_are_drawn_whole() -> None:
    bins = pd.DataFrame({"n": [4], "mean_predicted": [0.9], "observed": [1.0], "low": [0.5], "high": [1.0]})
    axes = figures.calibration({"AML": bins}, "Calibration", "n = 4").axes[0]
    (marker,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert not marker.get_clip_on()


def test_forest_draws_no_whiskers_without_an_interval() -> None:
    rows = [
        figures.Estimate("B", "n = 9", "0.9 (no interval)", 0.9, np.nan, np.nan),
        figures.Estimate("C", "n = 8", "0.8 (0.7 to 0.9)", 0.8, 0.7, 0.9),
    ]
    axes = figures.forest({"AUC": rows}, "Accuracy by hospital", "per patient").axes[0]
    drawn = [line.get_xdata().tolist() for line in axes.lines]
    assert drawn == [[0.9], [0.7, 0.9], [0.8]]
