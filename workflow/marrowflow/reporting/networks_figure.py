"""All index tests of a study in one figure: what network, training mode and colour recipe bring (as huang2020's figure 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from marrowflow.reporting.drawing import (
    INK,
    LEADING,
    PALETTE,
    QUIET,
    SIZE,
    WIDTH,
    Entry,
    Sheet,
    legend_height,
    styled,
    tenths,
    text_width,
    wrapped,
)

WIDE = 760.0
"""Width in pixels at which panels stand side by side."""

_MODES = {"scratch": PALETTE[1], "frozen": PALETTE[0], "finetune": PALETTE[2], "": PALETTE[6]}
_MODE_WORDS = {
    "scratch": "scratch: from random weights",
    "frozen": "frozen: new last layer on given features",
    "finetune": "finetune: given weights, all trained",
    "": "mean of several networks",
}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_AIR = 5.0  # pixels of a row beside its text
_HEAD, _FOOT = 21.0, 24.0  # pixels of a panel's name, and of its tick labels
_LONG = 500.0  # pixels from which the scale is printed above the rows as well
_LABELS = (90.0, 138.0, 236.0)  # least width of the labels, most beside a phone's panel, most elsewhere
_SHADE, _RULE = "#f4f6f8", "#dcdcdc"


@dataclass(frozen=True)
class Dot:
    """A row of the figure.

    Attributes
    ----------
    group
        Heading that it stands under: its network. Rows of one heading follow one another.
    label
        Tells it from the others there.
    mode, recipe
        Its colour (empty: a mean of several networks), and its marker.
    values
        Of each panel: estimate, lower and upper limit; NaN where there is none.
    primary
        Its label is bold, and says so.
    """

    group: str
    label: str
    mode: str
    recipe: str
    values: Sequence[tuple[float, float, float]]
    primary: bool = False

    @property
    def words(self) -> str:
        """Its label as it is written."""
        return f"{self.label} (primary)" if self.primary else self.label


def dots(
    rows: Sequence[Dot],
    panels: Sequence[str],
    title: str,
    subtitle: str,
    width: float = WIDTH,
    leaky: bool = False,
) -> Canvas:
    """Draw estimates with their intervals, one row an index test under the heading of its network, one panel a metric.

    From `WIDE` pixels on the panels stand side by side and share the labels; on a phone they stand under one another. Each
    panel has a scale of its own, from the tenth below its least number to the tenth above its largest.
    """
    beside = width >= WIDE
    columns = len(panels) if beside else 1
    most = _LABELS[2] if beside else _LABELS[1]
    widest = max(text_width(row.words, SIZE, bold=row.primary) for row in rows) + 14
    labels = min(max(widest, _LABELS[0]), most)
    layout = _Layout.of(rows, labels, width)
    recipes = list(dict.fromkeys(row.recipe for row in rows))
    markers = {recipe: _MARKERS[i % len(_MARKERS)] for i, recipe in enumerate(recipes)}
    entries = _entries(rows, markers)
    head = _HEAD + (LEADING if layout.height > _LONG else 0)
    each = head + layout.height + _FOOT + 8
    lines = math.ceil(len(panels) / columns)
    room = (width - labels - 6) / columns
    with styled():
        below = lines * each + legend_height(entries) + 4
        sheet = Sheet.start(title, subtitle, below, leaky, width)
        for i, name in enumerate(panels):
            top = (i // columns) * each + head
            left = labels + (i % columns) * room
            if i % columns == 0:
                layout.write_labels(sheet.panel(0, labels, layout.height, top), labels)
            axes = sheet.panel(left + 4, room - 18, layout.height, top)
            sheet.write(wrapped(name, room - 4, bold=True)[:1], left + 4, top - head + 2, bold=1)
            layout.draw(axes, i, markers, ticks=3 if beside else 5)
        sheet.legend(entries, lines * each + 2)
    return sheet.figure


@dataclass(frozen=True)
class _Layout:
    """Where each heading and each row stands, from the top, in pixels."""

    headings: Sequence[tuple[float, Sequence[str]]]
    rows: Sequence[tuple[float, float, Sequence[str], Dot]]
    height: float

    @classmethod
    def of(cls, rows: Sequence[Dot], labels: float, width: float) -> _Layout:
        headings, places, y = [], [], 0.0
        for group, members in groupby(rows, key=lambda row: row.group):
            lines = wrapped(group, width - 8, bold=True)
            headings.append((y + 4, lines))
            y += 6 + len(lines) * LEADING
            for row in members:
                words = wrapped(row.words, labels - 12, bold=row.primary)
                height = len(words) * LEADING + _AIR
                places.append((y, height, words, row))
                y += height
        return cls(headings, places, y)

    def write_labels(self, axes: Axes, width: float) -> None:
        """Write headings and labels; headings run on over the panels."""
        axes.set(xlim=(0, width), ylim=(self.height, 0))
        axes.axis("off")
        axes.set_zorder(2)
        words: dict[str, Any] = {"size": SIZE, "va": "center_baseline", "clip_on": False}
        for top, lines in self.headings:
            for i, line in enumerate(lines):
                axes.text(2, top + (i + 0.5) * LEADING, line, weight="bold", **words)
        for n, (top, height, lines, row) in enumerate(self.rows):
            if n % 2 == 0:
                axes.axhspan(top, top + height, color=_SHADE, linewidth=0)
            weight = "bold" if row.primary else "normal"
            for i, line in enumerate(lines):
                y = top + (i + 0.5) * LEADING + _AIR / 2
                axes.text(8, y, line, weight=weight, **words)

    def draw(self, axes: Axes, panel: int, markers: dict[str, str], ticks: int) -> None:
        """Draw one metric of all rows."""
        low, high = tenths([value for _, _, _, row in self.rows for value in row.values[panel]])
        room = 0.02 * (high - low)
        axes.set(xlim=(low - room, high + room), ylim=(self.height, 0), yticks=[])
        axes.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
        above = self.height > _LONG
        axes.tick_params(length=2, pad=2, top=above, labeltop=above)
        axes.spines["left"].set_visible(False)
        for n, (top, height, _, row) in enumerate(self.rows):
            if n % 2 == 0:
                axes.axhspan(top, top + height, color=_SHADE, linewidth=0)
            self._mark(axes, top + height / 2, row, row.values[panel], markers[row.recipe])
        axes.grid(axis="x", color=_RULE, linewidth=0.7)
        axes.set_axisbelow(True)

    @staticmethod
    def _mark(axes: Axes, y: float, row: Dot, values: tuple[float, float, float], marker: str) -> None:
        estimate, low, high = values
        colour = _MODES[row.mode]
        known = bool(np.isfinite([low, high]).all())
        if known:
            axes.plot([low, high], [y, y], color=colour, linewidth=1.6)
        if np.isfinite(estimate):
            axes.plot([estimate], [y], **_marker(marker, colour, known), zorder=3, clip_on=False)
        else:
            words: dict[str, Any] = {"size": SIZE, "va": "center_baseline", "color": QUIET}
            axes.text(0.02, y, "missing", transform=axes.get_yaxis_transform(), **words)


def _marker(marker: str, colour: str, filled: bool) -> dict[str, Any]:
    return {
        "color": colour,
        "linestyle": "none",
        "marker": marker,
        "ms": 6,
        "mew": 1.3,
        "mfc": colour if filled else "white",
    }


def _entries(rows: Sequence[Dot], markers: dict[str, str]) -> list[Entry]:
    """Return the legend: modes by colour, and recipes by marker where there are several."""
    used = {row.mode for row in rows}
    entries: list[Entry] = [
        (_MODE_WORDS[mode], {"color": colour, "linestyle": "-", "linewidth": 2.4})
        for mode, colour in _MODES.items()
        if mode in used
    ]
    if len(markers) > 1:
        entries += [(f"colour recipe {name}", _marker(m, INK, filled=True)) for name, m in markers.items()]
    return entries
