"""What every figure of the reports is made with: paper, palette, type, and files.

One drawing gives SVG, PDF and PNG, the same bytes for the same numbers. All figures are 358 pixels wide with
11 pixel type, so that nothing is smaller on a phone of 390 pixels. Letters are drawn as outlines: a figure
looks the same where our typeface is not installed. Words of a user are never taken for mathematics, and are put
into the order of reading where they run from right to left. Colours are told apart by line style as well.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter

from marrowflow.config import LEAKY
from marrowflow.files import written_whole
from marrowflow.reporting.scripts import drawable, in_reading_order

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#A86030", "#6090F0", "#000000", "#604860")
"""Five colours of Okabe & Ito 2008 (Color Universal Design), and three for their orange, sky blue and yellow.

Those are fainter on white than the contrast of 3 : 1 that WCAG 2.2 (1.4.11) asks of graphics. Ours were searched for it, and
are told apart as well as the originals by readers with deuteranopia and protanopia (tests/unit/reporting/test_contrast.py).
"""

WIDTH = 358.0
"""Width of the figures in pixels: a phone's 390 without the page's margins."""

SIZE, LEADING = 11.0, 15.5
"""Size of all type but titles, and the distance of lines, in pixels."""

INK, QUIET = "#1a1a1a", "#555555"

_STAMP = "#a63b00"
_IN_ORDER = "words are in the order of reading"
_TITLE_SIZE = 12.5
_COLUMN = 179.0  # pixels from one panel of two to the next
_DPI = 72  # one unit is one pixel; PNG files have three times as many
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SIZE,
    "ytick.labelsize": SIZE,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.7,
    "text.parse_math": False,
    "svg.fonttype": "path",
    "pdf.fonttype": 3,
    "figure.dpi": _DPI,
}

_UNDATED: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Saved:
    """A drawn figure: its SVG, and its files' name without the ending."""

    svg: bytes
    stem: str

    @property
    def uri(self) -> str:
        """The SVG as a data URI, for an ``img``: its ids cannot collide with another figure's, and nothing in it can run.

        It stands in a page as it is, between double quotes: it has none of its own, nor any ``<``, ``>`` or ``&``.
        """
        return "data:image/svg+xml," + quote(_compact(self.svg.decode("utf-8")), safe=_PLAIN)


def save(figure: Canvas, folder: Path, stem: str) -> Saved:
    """Write ``<stem>.svg``, ``.pdf`` and ``.png`` (216 dpi) into a folder, without dates or random ids."""
    saved = embedded(figure, stem)
    with written_whole(folder / f"{stem}.svg") as path:
        path.write_bytes(saved.svg)
    with mpl.rc_context(_STYLE), _as_seen(figure):
        for kind, about in _UNDATED.items():
            with written_whole(folder / f"{stem}.{kind}") as path:
                figure.savefig(path, format=kind, metadata=about, dpi=3 * _DPI)
    return saved


def embedded(figure: Canvas, stem: str) -> Saved:
    """Draw a figure's SVG for a page, and write no file."""
    buffer = io.BytesIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": stem}), _as_seen(figure):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Saved(buffer.getvalue(), stem)


@contextmanager
def _as_seen(figure: Canvas) -> Iterator[None]:
    """Let a figure hold its words as they are drawn, from left to right, none of them mathematics; then as they were."""
    if figure.get_label() == _IN_ORDER:
        yield
        return
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [f for f in (axis.get_major_formatter() for axis in axes) if isinstance(f, FuncFormatter)]
    words = [(text, text.get_text(), text.get_parse_math()) for text in figure.findobj(Text)]
    labels = [(formatter, formatter.func) for formatter in ticks]
    for text, told, _ in words:
        text.set(text=_lines_as_seen(told), parse_math=False)
    for formatter, told_of in labels:
        formatter.func = _told_as_seen(told_of)
    try:
        yield
    finally:
        for text, told, mathematics in words:
            text.set(text=told, parse_math=mathematics)
        for formatter, told_of in labels:
            formatter.func = told_of


def _told_as_seen(told_of: Callable[..., str]) -> Callable[..., str]:
    return lambda value, place: _lines_as_seen(told_of(value, place))


def _lines_as_seen(text: str) -> str:
    if text.isascii():
        return text
    return "\n".join(in_reading_order(drawable(line)) for line in text.split("\n"))


# What stands in a data URI, and between double quotes in a page, as it is: beside letters and digits all that means nothing there.
_PLAIN = " !'()*+,-./:;=?@_|~"


def _compact(svg: str) -> str:
    """Say the same in fewer bytes: no metadata or comments, places to a hundredth of a pixel, short names of glyphs.

    A figure's file keeps matplotlib's own words; this is for the copy that a page carries.
    """
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s+", " ", svg).replace("> <", "><")
    svg = re.sub(r'(?<= d=")[^"]*|translate\([^)]*\)|(?<= [xy]=")[^"]*', lambda m: _rounded(m[0]), svg)
    # Most of a figure is its glyphs' places, in hundredths of the type's size.
    svg = re.sub(
        r'(<use [^>]*) transform="translate\((\S+) 0\)"/>', lambda m: f'{m[1]} x="{float(m[2]):.0f}"/>', svg
    )
    svg = re.sub(
        r' id="(?:figure|patch|axes|matplotlib\.axis|[a-z]+tick|text|line2d|[A-Za-z]+Collection)_\d+"',
        "",
        svg,
    )
    svg = svg.replace("DejaVuSans-Bold-", "b").replace("DejaVuSans-", "g")
    return svg.replace("xlink:href", "href").replace('"', "'")


def _rounded(places: str) -> str:
    places = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), places)
    return re.sub(r" ?([A-Za-z]) ?", r"\1", places) if places[:1] in ("M", " ") else places


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return how wide a line of text is drawn, in pixels."""
    return _text_width(text, size, bold)


@lru_cache(maxsize=4096)
def _text_width(text: str, size: float, bold: bool) -> float:
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(_drawable(text), font, ismath=False)[0])


def _drawable(text: str) -> str:
    return text if text.isascii() and text.isprintable() else drawable(text)


def wrapped(text: str, width: float, size: float = SIZE, bold: bool = False) -> list[str]:
    """Break a text at its spaces (not at no-break ones) into lines at most `width` pixels wide; a longer word is cut."""
    lines: list[str] = []
    line = ""
    for word in _drawable(text).split(" "):
        for part in _parts(word, width, size, bold):
            longer = f"{line} {part}".strip()
            if line and text_width(longer, size, bold) > width:
                lines.append(line)
                longer = part
            line = longer
    return [*lines, line]


def _parts(word: str, width: float, size: float, bold: bool) -> list[str]:
    if text_width(word, size, bold) <= width:
        return [word]
    fits = max((n for n in range(1, len(word)) if text_width(word[:n] + "-", size, bold) <= width), default=1)
    return [word[:fits] + "-", *_parts(word[fits:], width, size, bold)] if fits < len(word) else [word]


def blank(width: float, height: float) -> tuple[Canvas, Axes]:
    """Return a figure of that many pixels whose one axes has pixels as units, y downwards.

    What is written there is drawn as it is: whoever writes has put it into the order of reading.
    """
    with mpl.rc_context(_STYLE):
        figure = Canvas(figsize=(width / _DPI, height / _DPI), label=_IN_ORDER)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
    return figure, axes


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the reports' style, and leave the style of everybody else as it was."""
    with mpl.rc_context(_STYLE):
        yield


Entry = tuple[str, dict[str, Any]]
"""A line of a legend: its words, and the style of what it explains."""


@dataclass
class Sheet:
    """A figure that is filled from its top: heading, panels, legend. Heights are in pixels."""

    figure: Canvas
    height: float
    y: float

    @classmethod
    def start(cls, title: str, subtitle: str, below: float, leaky: bool, width: float = WIDTH) -> Sheet:
        """Begin a sheet with room for `below` pixels under its heading."""
        lines = [(t, SIZE, "bold", _STAMP) for t in wrapped(LEAKY, width - 4, bold=True)] if leaky else []
        lines += [(t, _TITLE_SIZE, "bold", INK) for t in wrapped(title, width - 4, _TITLE_SIZE, bold=True)]
        lines += [(t, SIZE, "normal", QUIET) for t in wrapped(subtitle, width - 4)]
        heading = len(lines) * LEADING + 10
        sheet = cls(Canvas(figsize=(width / _DPI, (heading + below) / _DPI)), heading + below, heading)
        for i, (text, size, weight, colour) in enumerate(lines):
            y = 1 - ((i + 0.5) * LEADING + 2) / sheet.height
            sheet.figure.text(
                2 / width, y, text, size=size, weight=weight, color=colour, va="center_baseline"
            )
        return sheet

    def panel(self, left: float, width: float, height: float, top: float) -> Axes:
        """Add axes `top` pixels below the heading."""
        total = self.figure.get_figwidth() * _DPI
        return self.figure.add_axes(
            (
                left / total,
                1 - (self.y + top + height) / self.height,
                width / total,
                height / self.height,
            )
        )

    def write(self, lines: Sequence[str], left: float, top: float, bold: int = 0) -> None:
        """Write lines under one another, `top` pixels below the heading; the first `bold` ones are."""
        width = self.figure.get_figwidth() * _DPI
        for i, text in enumerate(lines):
            y = 1 - (self.y + top + (i + 0.5) * LEADING) / self.height
            weight = "bold" if i < bold else "normal"
            self.figure.text(left / width, y, text, size=SIZE, weight=weight, va="center_baseline")

    def legend(self, entries: Sequence[Entry], top: float) -> None:
        """Write a legend, one entry after the other, `top` pixels below the heading."""
        axes = self.figure.add_axes((0, 0, 1, 1), zorder=-1)
        total = self.figure.get_figwidth() * _DPI
        axes.set(xlim=(0, total), ylim=(self.height, 0))
        axes.axis("off")
        y = self.y + top
        for text, style in entries:
            x = [17] if style["linestyle"] == "none" else [4, 30]
            axes.plot(x, [y + LEADING / 2] * len(x), **style)
            for line in wrapped(text, total - 40):
                axes.text(38, y + LEADING / 2, line, size=SIZE, va="center_baseline")
                y += LEADING


def legend_height(entries: Sequence[Entry]) -> float:
    """Return the pixels that `Sheet.legend` will fill."""
    return LEADING * sum(len(wrapped(text, WIDTH - 40)) for text, _ in entries) + 6


@dataclass(frozen=True)
class Head:
    """What stands above a panel: a name (empty where the figure has one panel only) and lines of text."""

    name: str
    lines: Sequence[str]


class Grid:
    """Equal panels under their heads: one as wide as the sheet, or several in two columns.

    Parameters
    ----------
    heads
        One a panel.
    below
        Pixels under a panel's square for another one that belongs to it.
    """

    def __init__(self, heads: Sequence[Head], below: float = 0) -> None:
        self.single = len(heads) == 1
        self.side = 292.0 if self.single else 118.0
        room = WIDTH - 4 if self.single else _COLUMN - 7
        self._heads = []
        for head in heads:
            name = wrapped(head.name, room, bold=True) if head.name else []
            self._heads.append((name, [part for line in head.lines for part in wrapped(line, room)]))
        rows = range(0, len(heads), 1 if self.single else 2)
        above = [max(len(n) + len(t) for n, t in self._heads[i : i + 2]) * LEADING + 8 for i in rows]
        each = self.side + below + 26  # tick labels, and air above the next head
        self._tops = [sum(above[: i + 1]) + i * each for i in range(len(above))]
        self.height = sum(above) + len(above) * each + 18
        """Pixels of all panels with their heads, tick labels and the last row's axis label."""

    def places(self, sheet: Sheet) -> Iterator[tuple[float, float]]:
        """Write each head and yield left and top of its panel, for `Sheet.panel`."""
        for i, (name, lines) in enumerate(self._heads):
            top = self._tops[i if self.single else i // 2]
            column = 0.0 if self.single else (i % 2) * _COLUMN
            above = (len(name) + len(lines)) * LEADING + 5
            sheet.write([*name, *lines], column + 2, top - above, bold=len(name))
            yield column + (54 if self.single else 50), top

    def label(self, axes: Axes, i: int, x: str, y: str) -> None:
        """Name the axes of panel `i` where nothing under it or left of it has the same names."""
        if not self.single:
            axes.tick_params(length=2, pad=2)
            axes.yaxis.labelpad = 1
        if i >= len(self._heads) - 2:
            axes.set_xlabel(x)
        if self.single or i % 2 == 0:
            axes.set_ylabel(y)

    def ticks(self) -> Sequence[float]:
        """Return where an axis from 0 to 1 has ticks."""
        return (0, 0.2, 0.4, 0.6, 0.8, 1) if self.single else (0, 0.5, 1)


def unit_axis(axes: Axes, which: str, ticks: Sequence[float]) -> None:
    """Let an axis ("x" or "y") run from 0 to 1, with room for marks at both ends."""
    axes.set(**{f"{which}lim": (-0.015, 1.015), f"{which}ticks": ticks})
    axes.set(**{f"{which}ticklabels": [f"{t:g}" for t in ticks]})


def ruled(axes: Axes, which: Literal["x", "y", "both"] = "both") -> None:
    """Rule a quiet grid behind what is drawn."""
    axes.grid(axis=which, color="#e3e3e3", linewidth=0.7)
    axes.set_axisbelow(True)


def tenths(numbers: Iterable[float]) -> tuple[float, float]:
    """Return the tenths around all numbers that are finite: below the least, above the largest; never one and the same."""
    known = [v for v in numbers if math.isfinite(v)]
    if not known:
        return 0.0, 1.0
    # Rounded first: 0.3 is 2.9999… tenths.
    low, high = (f(round(10 * v, 6)) / 10 for f, v in ((math.floor, min(known)), (math.ceil, max(known))))
    return (low, high) if low < high else (low - 0.1, high + 0.1)


def shortened(text: str, width: float) -> str:
    """Cut a text that is wider than `width` pixels, and say so by an ellipsis."""
    while len(text) > 1 and text_width(text, SIZE) > width:
        text = text[:-2].rstrip() + "…"
    return text


def alternative_text(title: str, subtitle: str, labels: Sequence[str] = ()) -> str:
    """Return one sentence for readers who do not see a figure, at most 1000 characters."""
    return textwrap.shorten(
        ". ".join([title, subtitle, "; ".join(labels)]).strip(". "), 1000, placeholder="…"
    )
