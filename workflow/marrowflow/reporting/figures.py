"""Figures of the reports: one drawing gives SVG, PDF and PNG, the same bytes for the same numbers.

All are drawn 358 pixels wide with 11 pixel type, so that nothing is smaller on a phone of 390 pixels.
Letters are drawn as outlines: a figure looks the same where our typeface is not installed.
Colours are those of Okabe & Ito 2008 (Color Universal Design), told apart by line style as well.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from marrowflow.config import LEAKY
from marrowflow.files import written_whole

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe–Ito, strongest contrast on white first, yellow last."""

WIDTH = 358.0
"""Width of the figures in pixels: a phone's 390 without the page's margins."""

_DASHES = ("-", "--", "-.", ":")
_SIZE, _TITLE_SIZE, _LEADING = 11.0, 12.5, 15.5
_INK, _QUIET, _STAMP = "#1a1a1a", "#555555", "#a63b00"
_DPI = 72  # one unit is one pixel; PNG files have three times as many
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": _SIZE,
    "axes.labelsize": _SIZE,
    "xtick.labelsize": _SIZE,
    "ytick.labelsize": _SIZE,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
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
        """The SVG as a data URI, for an ``img``: its ids cannot collide with another figure's."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


def save(figure: Canvas, folder: Path, stem: str) -> Saved:
    """Write ``<stem>.svg``, ``.pdf`` and ``.png`` (216 dpi) into a folder, without dates or random ids."""
    saved = embedded(figure, stem)
    with written_whole(folder / f"{stem}.svg") as path:
        path.write_bytes(saved.svg)
    with mpl.rc_context(_STYLE):
        for kind, about in _UNDATED.items():
            with written_whole(folder / f"{stem}.{kind}") as path:
                figure.savefig(path, format=kind, metadata=about, dpi=3 * _DPI)
    return saved


def embedded(figure: Canvas, stem: str) -> Saved:
    """Draw a figure's SVG for a page, and write no file."""
    buffer = io.BytesIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": stem}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return Saved(buffer.getvalue(), stem)


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return how wide a line of text is drawn, in pixels."""
    return _text_width(text, size, bold)


@lru_cache(maxsize=4096)
def _text_width(text: str, size: float, bold: bool) -> float:
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def wrapped(text: str, width: float, size: float = _SIZE, bold: bool = False) -> list[str]:
    """Break a text at its spaces (not at no-break ones) into lines at most `width` pixels wide; a longer word is cut."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
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
    """Return a figure of that many pixels whose one axes has pixels as units, y downwards."""
    with mpl.rc_context(_STYLE):
        figure = Canvas(figsize=(width / _DPI, height / _DPI))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
    return figure, axes


@contextmanager
def _styled() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


@dataclass
class _Sheet:
    """A figure that is filled from its top: heading, panels, legend. Heights are in pixels."""

    figure: Canvas
    height: float
    y: float

    @classmethod
    def start(cls, title: str, subtitle: str, below: float, leaky: bool, width: float = WIDTH) -> _Sheet:
        """Begin a sheet with room for `below` pixels under its heading."""
        lines = [(LEAKY, _SIZE, "bold", _STAMP)] if leaky else []
        lines += [(t, _TITLE_SIZE, "bold", _INK) for t in wrapped(title, width - 4, _TITLE_SIZE, bold=True)]
        lines += [(t, _SIZE, "normal", _QUIET) for t in wrapped(subtitle, width - 4)]
        heading = len(lines) * _LEADING + 10
        sheet = cls(Canvas(figsize=(width / _DPI, (heading + below) / _DPI)), heading + below, heading)
        for i, (text, size, weight, colour) in enumerate(lines):
            y = 1 - ((i + 0.5) * _LEADING + 2) / sheet.height
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

    def legend(self, entries: Sequence[tuple[str, dict[str, Any]]], top: float) -> None:
        """Write a legend, one entry after the other, `top` pixels below the heading."""
        axes = self.figure.add_axes((0, 0, 1, 1), zorder=-1)
        total = self.figure.get_figwidth() * _DPI
        axes.set(xlim=(0, total), ylim=(self.height, 0))
        axes.axis("off")
        y = self.y + top
        for text, style in entries:
            x = [17] if style["linestyle"] == "none" else [4, 30]
            axes.plot(x, [y + _LEADING / 2] * len(x), **style)
            for line in wrapped(text, total - 40):
                axes.text(38, y + _LEADING / 2, line, size=_SIZE, va="center_baseline")
                y += _LEADING


def _legend_height(texts: Sequence[str]) -> float:
    return _LEADING * sum(len(wrapped(text, WIDTH - 40)) for text in texts) + 6


def _line_style(index: int) -> dict[str, Any]:
    return {
        "color": PALETTE[index % (len(PALETTE) - 1)],
        "linestyle": _DASHES[(index // (len(PALETTE) - 1) + index) % len(_DASHES)],
    }


@dataclass(frozen=True)
class Curve:
    """A line of a figure: its points and what the legend says."""

    label: str
    x: np.ndarray
    y: np.ndarray


def roc(curves: Sequence[Curve], title: str, subtitle: str, leaky: bool = False) -> Canvas:
    """Draw ROC curves (x: 1 − specificity, y: sensitivity) with the diagonal of no discrimination."""
    return _unit_square(
        curves, title, subtitle, leaky, ("1 − specificity (false-positive rate)", "sensitivity"), "roc"
    )


def precision_recall(curves: Sequence[Curve], title: str, subtitle: str, leaky: bool = False) -> Canvas:
    """Draw precision (y) against recall (x)."""
    return _unit_square(curves, title, subtitle, leaky, ("recall (sensitivity)", "precision (PPV)"), "pr")


def _unit_square(
    curves: Sequence[Curve], title: str, subtitle: str, leaky: bool, axis: tuple[str, str], kind: str
) -> Canvas:
    side = 292.0
    with _styled():
        legend = _legend_height([c.label for c in curves])
        sheet = _Sheet.start(title, subtitle, side + 52 + legend, leaky)
        axes = sheet.panel(54, side, side, 4)
        for i, curve in enumerate(curves):
            axes.plot(
                curve.x, curve.y, drawstyle="steps-post" if kind == "pr" else "default", **_line_style(i)
            )
        if kind == "roc":
            axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.9, linestyle=(0, (2, 3)), zorder=0)
        _unit_axes(axes)
        axes.set(xlabel=axis[0], ylabel=axis[1])
        sheet.legend([(c.label, _line_style(i)) for i, c in enumerate(curves)], side + 50)
    return sheet.figure


def _unit_axes(axes: Axes, ticks: Sequence[float] = (0, 0.2, 0.4, 0.6, 0.8, 1)) -> None:
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), xticks=ticks, yticks=ticks)
    axes.set_xticklabels([f"{t:g}" for t in ticks])
    axes.set_yticklabels([f"{t:g}" for t in ticks])
    axes.grid(color="#e3e3e3", linewidth=0.7)
    axes.set_axisbelow(True)


def calibration(panels: Mapping[str, pd.DataFrame], title: str, subtitle: str, leaky: bool = False) -> Canvas:
    """Draw observed share against mean predicted probability, one panel a class.

    Parameters
    ----------
    panels
        Class name → rows with n, mean_predicted, observed, low, high (all shares 0..1).
    title, subtitle
        What is shown, and its n.
    leaky
        Stamp the figure.
    """
    single = len(panels) == 1
    side, row = (292.0, 340.0) if single else (122.0, 182.0)
    rows = 1 if single else -(-len(panels) // 2)
    with _styled():
        sheet = _Sheet.start(title, subtitle, rows * row + 4, leaky)
        for i, (name, bins) in enumerate(panels.items()):
            left = 54.0 if single else 44.0 + (i % 2) * 180
            axes = sheet.panel(left, side, side, (i // 2) * row + (4 if single else 22))
            axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.9, linestyle=(0, (2, 3)), zorder=0)
            x, y = bins["mean_predicted"].to_numpy(), bins["observed"].to_numpy()
            low = np.nan_to_num(y - bins["low"].to_numpy())
            high = np.nan_to_num(bins["high"].to_numpy() - y)
            colour = PALETTE[0]
            axes.errorbar(
                x,
                y,
                np.clip([low, high], 0, None),
                fmt="o-",
                ms=4,
                color=colour,
                ecolor="#7fb2d4",
                lw=1.4,
                elinewidth=1.2,
                clip_on=False,  # markers at 0 and 1 are drawn whole, and above the axes' lines
                zorder=3,
            )
            _unit_axes(axes, (0, 0.2, 0.4, 0.6, 0.8, 1) if single else (0, 0.5, 1))
            if not single:
                axes.set_title(
                    _shortened(f"{name} (n = {int(bins['n'].sum())})", 150), size=_SIZE, loc="left", pad=5
                )
            if single or i >= len(panels) - 2:
                axes.set_xlabel("mean predicted")
            if single or i % 2 == 0:
                axes.set_ylabel("observed share")
    return sheet.figure


def confusion(counts: pd.DataFrame, title: str, subtitle: str, leaky: bool = False) -> Canvas:
    """Draw a confusion matrix: counts and row percentages.

    Parameters
    ----------
    counts
        Integers [reference, predicted], with their names.
    title, subtitle
        What is shown, and its n.
    leaky
        Stamp the figure.
    """
    references, answers = (list(map(str, names)) for names in (counts.index, counts.columns))
    numbers = counts.to_numpy()
    left = min(150.0, max(text_width(c, _SIZE) for c in references) + 34)
    cell = max(46.0, (WIDTH - left - 4) / len(answers))
    width = left + len(answers) * cell + 4
    height = max(44.0, min(cell, 64.0))
    widest = max(text_width(c, _SIZE) for c in answers)
    turned = widest > cell - 4
    foot = (min(150.0, widest) if turned else _LEADING) + 28
    totals = numbers.sum(axis=1, keepdims=True)
    share = np.divide(numbers, totals, out=np.zeros(numbers.shape), where=totals > 0)
    with _styled():
        sheet = _Sheet.start(title, subtitle, len(references) * height + foot, leaky, width)
        axes = sheet.panel(left, len(answers) * cell, len(references) * height, 2)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (i, j), n in np.ndenumerate(numbers):
            percent = f"{100 * share[i, j]:.0f} %" if totals[i, 0] else "–"
            colour = "white" if share[i, j] > 0.55 else _INK
            axes.text(j, i, f"{n}\n{percent}", ha="center", va="center", linespacing=1.25, color=colour)
        axes.set_xticks(
            range(len(answers)), [_shortened(c, 146) for c in answers], rotation=90 if turned else 0
        )
        axes.set_yticks(range(len(references)), [_shortened(c, 112) for c in references])
        axes.set(xlabel="index test", ylabel="reference")
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(answers) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(references) - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="both", length=0)
    return sheet.figure


def _shortened(text: str, width: float) -> str:
    """Cut a text that is wider than `width` pixels, and say so by an ellipsis."""
    while len(text) > 1 and text_width(text, _SIZE) > width:
        text = text[:-2].rstrip() + "…"
    return text


def training_curves(
    histories: Mapping[str, pd.DataFrame],
    kept: Mapping[str, int],
    title: str,
    subtitle: str,
    leaky: bool = False,
) -> Canvas:
    """Draw loss and accuracy by epoch, one line a fold, training and validation in two colours.

    Parameters
    ----------
    histories
        Fold → rows with epoch, train_loss, train_accuracy, validation_loss, validation_accuracy (NaN without
        a validation part).
    kept
        Fold → epoch whose network was kept; it is marked. Folds may be left out.
    title, subtitle
        What is shown, and its n.
    leaky
        Stamp the figure.
    """
    height, gap = 150.0, 26.0
    styles: dict[str, dict[str, Any]] = {
        "train": {"color": PALETTE[0], "linestyle": "--", "linewidth": 1.3},
        "validation": {"color": PALETTE[1], "linestyle": "-", "linewidth": 1.3},
    }
    mark: dict[str, Any] = {
        "color": _INK,
        "linestyle": "none",
        "marker": "D",
        "ms": 5,
        "mfc": "white",
        "mew": 1.2,
    }
    validated = any(h["validation_loss"].notna().any() for h in histories.values())
    entries = [
        ("training images (augmented where planned)", styles["train"]),
        ("validation images", styles["validation"]),
    ]
    if kept:
        entries.append((f"kept epoch ({'lowest validation loss' if validated else 'the last one'})", mark))
    last = max(float(h["epoch"].max()) for h in histories.values())
    first = min(float(h["epoch"].min()) for h in histories.values())
    with _styled():
        legend = _legend_height([text for text, _ in entries])
        sheet = _Sheet.start(title, subtitle, 2 * height + gap + 46 + legend, leaky)
        for i, (quantity, name) in enumerate((("loss", "loss (cross-entropy)"), ("accuracy", "accuracy"))):
            axes = sheet.panel(54, WIDTH - 66, height, 4 + i * (height + gap))
            for fold, history in histories.items():
                for part, style in styles.items():
                    # A single epoch makes no line: show it as a point.
                    marker: dict[str, Any] = {"marker": "o", "ms": 4} if len(history) == 1 else {}
                    axes.plot(history["epoch"], history[f"{part}_{quantity}"], alpha=0.8, **style, **marker)
                own = history[history["epoch"].eq(kept.get(fold))]
                part = "validation" if validated else "train"
                axes.plot(own["epoch"], own[f"{part}_{quantity}"], zorder=3, clip_on=False, **mark)
            axes.set_xlim(first - 0.3, last + 0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
            axes.set_ylabel(name)
            axes.grid(color="#e3e3e3", linewidth=0.7)
            if quantity == "accuracy":
                axes.set(ylim=(-0.02, 1.02), xlabel="epoch")
        sheet.legend(entries, 2 * height + gap + 48)
    return sheet.figure


@dataclass(frozen=True)
class Estimate:
    """A point with its interval (NaN where there is none), and what the figure writes above it, left and right.

    `n` is what the estimate was made of, as ``4/6`` or ``n = 21``.
    """

    name: str
    n: str
    value: str
    estimate: float
    low: float
    high: float


def forest(
    panels: Mapping[str, Sequence[Estimate]], title: str, subtitle: str, leaky: bool = False
) -> Canvas:
    """Draw estimates with intervals under one another, one panel a metric, one row a cohort, from 0 to 1."""
    row, head, foot = 36.0, 24.0, 30.0
    heights = [head + row * len(rows) + foot for rows in panels.values()]
    with _styled():
        sheet = _Sheet.start(title, subtitle, sum(heights) + 4, leaky)
        top = 0.0
        lowest = min(
            [0.0, *(e.estimate for rows in panels.values() for e in rows if e.estimate == e.estimate)]
        )
        for (metric, rows), height in zip(panels.items(), heights, strict=True):
            axes = sheet.panel(12, WIDTH - 24, row * len(rows), top + head)
            axes.set(xlim=(-1.02 if lowest < 0 else -0.02, 1.02), ylim=(row * len(rows), 0))
            axes.set_title(metric, size=_SIZE, weight="bold", loc="left", pad=5)
            for i, item in enumerate(rows):
                y = i * row
                if i % 2 == 0:
                    axes.axhspan(y, y + row, color="#f4f6f8", linewidth=0)
                room = WIDTH - 40 - text_width(item.n + item.value, _SIZE)
                words: dict[str, Any] = {
                    "size": _SIZE,
                    "va": "center_baseline",
                    "transform": axes.get_yaxis_transform(),
                }
                axes.text(0.012, y + 11, f"{_shortened(item.name, room)} ({item.n})", **words)
                axes.text(0.99, y + 11, item.value, ha="right", **words)
                if np.isfinite(item.low) and np.isfinite(item.high):
                    axes.plot([item.low, item.high], [y + 26] * 2, color=PALETTE[0], linewidth=1.8)
                if np.isfinite(item.estimate):
                    axes.plot([item.estimate], [y + 26], "s", color=PALETTE[0], ms=6)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x", color="#dcdcdc", linewidth=0.7)
            axes.set_axisbelow(True)
            top += height
    return sheet.figure


def alternative_text(title: str, subtitle: str, labels: Sequence[str] = ()) -> str:
    """Return one sentence for readers who do not see a figure, at most 600 characters."""
    return textwrap.shorten(". ".join([title, subtitle, "; ".join(labels)]).strip(". "), 600, placeholder="…")
