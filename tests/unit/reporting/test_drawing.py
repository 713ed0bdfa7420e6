"""What all figures share: the same bytes, no style left behind, text within its room."""

import hashlib

import matplotlib.pyplot as plt
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from marrowflow.reporting import drawing, figures


def small() -> Figure:
    line = figures.Line(np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.8, 1.0]))
    return figures.roc([figures.Curve("", "n = 3 patients, 1 positive", "AUC 0.800", line)], "ROC", "n = 3")


def digests(folder) -> list[str]:
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())]


def test_a_figure_is_written_in_three_formats_with_the_same_bytes_each_time(tmp_path) -> None:
    for name in ("one", "two"):
        saved = drawing.save(small(), tmp_path / name, "roc")
    assert [p.name for p in sorted((tmp_path / "one").iterdir())] == ["roc.pdf", "roc.png", "roc.svg"]
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert b"<dc:date>" not in saved.svg and b"<text" not in saved.svg


def test_no_global_figure_or_style_is_left_behind() -> None:
    before = dict(plt.rcParams)
    small()
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before


def test_text_width_is_the_drawn_width() -> None:
    canvas, axes = drawing.blank(400, 50)
    text = axes.text(0, 20, "Predicted chronic lymphocytic leukaemia", size=11)
    drawn = text.get_window_extent(FigureCanvasAgg(canvas).get_renderer()).width
    assert abs(drawing.text_width(text.get_text(), 11) - drawn) < 4


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("abcdef-éλ", min_size=1, max_size=40), min_size=1, max_size=8))
def test_wrapped_lines_fit_and_lose_nothing(words: list[str]) -> None:
    lines = drawing.wrapped(" ".join(words), 90)
    assert all(drawing.text_width(line, 11) <= 90 for line in lines)
    # hyphens at line ends are ours where a word was cut
    assert "".join(lines).replace("-", "").replace(" ", "") == "".join(words).replace("-", "")


def test_a_number_keeps_its_noun() -> None:
    lines = drawing.wrapped("12\u00a0images of 3\u00a0patients", 62)
    assert lines == ["12\u00a0images", "of", "3\u00a0patients"]
    assert drawing.wrapped("12 images of 3 patients", 62) == ["12 images", "of 3", "patients"]


def test_an_alternative_text_is_one_line_that_ends() -> None:
    text = drawing.alternative_text("ROC", "n = 3", ["AUC 0.900 (0.850\u00a0to\u00a00.950)", "\nn = 2"])
    assert text == "ROC. n = 3. AUC 0.900 (0.850 to 0.950); n = 2"
    assert len(drawing.alternative_text("ROC", "n = 3", ["AUC 0.900"] * 500)) <= 1000
