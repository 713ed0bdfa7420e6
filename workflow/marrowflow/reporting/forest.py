"""Forest plot: estimates with intervals under one another, of hospitals, of subgroups, of metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from marrowflow.reporting.drawing import (
    LEADING,
    PALETTE,
    QUIET,
    SIZE,
    WIDTH,
    Sheet,
    styled,
    tenths,
    text_width,
    wrapped,
)

_LEFT, _RIGHT = 12.0, 12.0  # pixels beside the axes, which half of a tick label needs
_MARK, _FOOT = 20.0, 24.0  # pixels of an interval, and of the tick labels
_LONG = 500.0  # pixels from which the scale is printed above the rows as well
_DIAMOND = 5.5  # pixels from a diamond's middle to its tips above and below


@dataclass(frozen=True)
class Estimate:
    """A point with its interval (NaN where there is none), and what the figure writes above it, left and right.

    `n` is what the estimate was made of, as ``4/6`` or ``n = 21``; `reason` says why there is no interval.
    """

    name: str
    n: str
    value: str
    estimate: float
    low: float
    high: float
    reason: str = ""


@dataclass(frozen=True)
class Summary(Estimate):
    """A summary of the rows above it: a diamond as wide as its interval, through the limits between which another is expected."""

    predicted: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class _Row:
    """An estimate's lines of text, wrapped so that nothing overlaps."""

    item: Estimate
    left: Sequence[str]
    reason: Sequence[str]
    mark: float

    @classmethod
    def of(cls, item: Estimate) -> _Row:
        room = WIDTH - _LEFT - _RIGHT - 8
        # Only a value that leaves no room for a name has a line of its own.
        beside = room - text_width(item.value, SIZE) - 10
        left = wrapped(f"{item.name} ({item.n.replace(' ', chr(0xA0))})", max(beside, 110))
        reason = wrapped(item.reason, room) if item.reason else []
        return cls(item, left, reason, _MARK if math.isfinite(item.estimate) else 0.0)

    @property
    def height(self) -> float:
        return (len(self.left) + len(self.reason)) * LEADING + self.mark + 4

    def draw(self, axes: Axes, y: float, shaded: bool, level: float) -> None:
        item = self.item
        if shaded:
            axes.axhspan(y, y + self.height, color="#f4f6f8", linewidth=0)
        words: dict[str, Any] = {
            "size": SIZE,
            "va": "center_baseline",
            "weight": "bold" if isinstance(item, Summary) else "normal",
            "transform": axes.get_yaxis_transform(),
        }
        for i, line in enumerate(self.left):
            axes.text(0.012, y + 9 + i * LEADING, line, **words)
        axes.text(0.99, y + 9, item.value, ha="right", **words)
        mark = y + len(self.left) * LEADING + self.mark / 2
        if self.mark and math.isfinite(level):
            # Beside the marks only: a line through the texts would be taken for one of their signs.
            ends = [mark - self.mark / 2, mark + self.mark / 2]
            axes.plot([level] * 2, ends, color="#777777", linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
        if isinstance(item, Summary):
            _diamond(axes, item, mark)
        else:
            _square(axes, item, mark)
        for i, line in enumerate(self.reason):
            axes.text(
                0.012,
                mark + self.mark / 2 + 8 + i * LEADING,
                line,
                **{**words, "weight": "normal"},
                color=QUIET,
            )


def forest(
    groups: Mapping[str, Sequence[Estimate]],
    title: str,
    subtitle: str,
    leaky: bool = False,
    level: float = math.nan,
) -> Canvas:
    """Draw groups of estimates, each under its heading, on one scale.

    The scale runs from the tenth below the least number drawn to the tenth above the largest. A dashed
    line stands at `level`, such as that of all patients.
    """
    rows = {
        "\n".join(wrapped(heading, WIDTH - _LEFT - 4, bold=True)): [_Row.of(item) for item in items]
        for heading, items in groups.items()
    }
    height = sum(_heading(heading) + sum(row.height for row in group) for heading, group in rows.items())
    items = [item for group in groups.values() for item in group]
    low, high = tenths(v for item in items for v in _numbers(item))
    with styled():
        above = LEADING if height > _LONG else 0
        sheet = Sheet.start(title, subtitle, above + height + _FOOT, leaky)
        axes = sheet.panel(_LEFT, WIDTH - _LEFT - _RIGHT, height, above)
        room = 0.02 * (high - low)
        axes.set(xlim=(low - room, high + room), ylim=(height, 0), yticks=[])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(top=above > 0, labeltop=above > 0)
        y = 0.0
        for heading, group in rows.items():
            if y:
                axes.axhline(y + 4, color=QUIET, linewidth=0.7)
            y += _heading(heading)
            words: dict[str, Any] = {"weight": "bold", "va": "bottom", "linespacing": 1.2}
            axes.text(0, y - 3, heading, transform=axes.get_yaxis_transform(), **words)
            for i, row in enumerate(group):
                row.draw(axes, y, i % 2 == 0, level)
                y += row.height
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#dcdcdc", linewidth=0.7)
        axes.set_axisbelow(True)
    return sheet.figure


def _heading(text: str) -> float:
    return 9 + LEADING * len(text.split("\n"))


def _numbers(item: Estimate) -> list[float]:
    """Return all that is drawn of an estimate."""
    ahead = item.predicted if isinstance(item, Summary) else ()
    return [item.estimate, item.low, item.high, *ahead]


def _square(axes: Axes, item: Estimate, mark: float) -> None:
    known = np.isfinite([item.low, item.high]).all()
    if known:
        axes.plot([item.low, item.high], [mark] * 2, color=PALETTE[0], linewidth=1.8)
    if np.isfinite(item.estimate):
        # A point without an interval is hollow: how sure it is, is not known.
        fill = PALETTE[0] if known else "white"
        axes.plot([item.estimate], [mark], "s", color=PALETTE[0], mfc=fill, mew=1.4, ms=6, clip_on=False)


def _diamond(axes: Axes, item: Summary, mark: float) -> None:
    axes.plot(item.predicted, [mark] * 2, color=PALETTE[1], linewidth=3.2, solid_capstyle="butt")
    corners = [item.low, item.estimate, item.high, item.estimate]
    heights = [mark, mark - _DIAMOND, mark, mark + _DIAMOND]
    axes.fill(corners, heights, color=PALETTE[0], linewidth=0, zorder=3)
