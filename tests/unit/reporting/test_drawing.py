"""What all figures share: the same bytes, no style left behind, text within its room."""

import base64
import hashlib
import warnings
from collections import Counter
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

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


HOSTILE = [
    "$\\frac{1}{2}$ of $x_i",
    "<script>&amp;\"'",
    "שלום (בית) 12",
    "مستشفى",
    "😀🏥李",
    "a\nb\tc\u202ed",
]


def test_words_of_a_user_are_drawn_without_a_warning_and_are_no_mathematics(tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sheet = drawing.Sheet.start(" ".join(HOSTILE), "n = 3", 60, leaky=False)
        axes = sheet.panel(40, 200, 20, 0)
        axes.set_xticks(range(len(HOSTILE)), HOSTILE)
        before = [text.get_text() for text in sheet.figure.findobj(Text)]
        saved = drawing.save(sheet.figure, tmp_path, "hostile")
    told = saved.svg.decode()
    # Matplotlib notes what it drew, escaped, in comments.
    assert "<!-- $\\frac{1}{2}$ of $x_i -->" in told and "<script" not in told and "mathtext" not in told
    assert "<!-- 12 (תיב) םולש -->" in told or "<!-- (תיב) םולש 12 -->" in told
    assert "<!-- ﻰﻔﺸﺘﺴﻣ -->" in told and "😀□□" in told and "\u202e" not in told
    # The figure itself keeps the words as they were told.
    assert [text.get_text() for text in sheet.figure.findobj(Text)] == before


def test_text_that_cannot_be_drawn_has_the_width_of_what_is() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawing.text_width("🏥", 11) == drawing.text_width("□", 11) > 0
    assert drawing.wrapped("one\ntwo\tthree", 400) == ["one two three"]


def test_a_page_carries_a_figure_in_fewer_bytes(tmp_path) -> None:
    saved = drawing.save(small(), tmp_path, "roc")
    kind, _, data = saved.uri.partition(",")
    assert kind == "data:image/svg+xml" and not set(data) & set('"<>&#')
    carried = ElementTree.fromstring(unquote(data))
    original = ElementTree.fromstring(saved.svg)

    def shown(root: ElementTree.Element) -> Counter:
        return Counter(
            e.tag for e in root.iter() if e.tag.rpartition("}")[2] in ("path", "use", "rect", "g", "clipPath")
        )

    assert shown(carried) == shown(original) and len(data) < 0.6 * len(base64.b64encode(saved.svg))
    # Every reference leads to what it names.
    ids = {e.get("id") for e in carried.iter()}
    named = {e.get("href", "#").removeprefix("#") for e in carried.iter() if e.tag.endswith("use")}
    assert named and named <= ids
