"""Figures of diagnostic accuracy: ROC, precision and recall, calibration, decision curve, predictive values, confusion.

A figure has one panel for a yes/no endpoint, and one a class for the classification into classes. Nothing
is estimated here: every number that is drawn was given. `accuracy_figures` fills them from the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator, MultipleLocator

from marrowflow.reporting.drawing import (
    INK,
    LEADING,
    PALETTE,
    QUIET,
    SIZE,
    WIDTH,
    Entry,
    Grid,
    Head,
    Sheet,
    legend_height,
    ruled,
    shortened,
    styled,
    text_width,
    unit_axis,
    wrapped,
)

_FIRST: dict[str, Any] = {"color": PALETTE[0], "linestyle": "-"}
_SECOND: dict[str, Any] = {"color": PALETTE[1], "linestyle": "--"}
_REFERENCE: dict[str, Any] = {"color": "#777777", "linewidth": 1.0, "linestyle": (0, (2, 3))}
_BEFORE: dict[str, Any] = {"color": "#8a8a8a", "linestyle": "--", "linewidth": 1.3, "marker": "s", "ms": 3.2}
_POINT: dict[str, Any] = {
    "color": INK,
    "linestyle": "none",
    "marker": "o",
    "ms": 6,
    "mfc": "white",
    "mew": 1.4,
}
_ALPHA = 0.2
_LEAST_NET_BENEFIT = 0.25  # how far below 0 a decision curve is shown, as a share of what lies above


@dataclass(frozen=True)
class Measured:
    """A number with its interval; NaN where there is none."""

    estimate: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Band:
    """Pointwise limits, float64 [points] each; NaN where an interval was suppressed."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Line:
    """A curve, float64 [points] each, and its band, which may have points of its own."""

    x: np.ndarray
    y: np.ndarray
    band: Band | None = None


@dataclass(frozen=True)
class Curve:
    """A class's ROC, or precision by recall.

    Attributes
    ----------
    name, n, value
        The class, how many units of how many are of it, and the area under the curve in words.
    line
        What is drawn.
    point
        The operating point, x and y.
    level
        Prevalence: the precision of a test that tells nothing apart; NaN draws none.
    """

    name: str
    n: str
    value: str
    line: Line
    point: tuple[Measured, Measured] | None = None
    level: float = float("nan")


def roc(
    curves: Sequence[Curve], title: str, subtitle: str, leaky: bool = False, band: str = "", point: str = ""
) -> Canvas:
    """Draw ROC curves (x: 1 − specificity, y: sensitivity) with the diagonal of no discrimination.

    `band` and `point` say in the legend what the bands and the operating points are.
    """

    def draw(axes: Axes, curve: Curve) -> None:
        axes.plot([0, 1], [0, 1], zorder=1, **_REFERENCE)
        _draw(axes, curve.line, _FIRST)

    entries: list[Entry] = [(band, _shade(_FIRST))] if any(_has_band(c.line) for c in curves) else []
    entries += [(point, _POINT)] if any(c.point for c in curves) else []
    entries.append(("no discrimination", _REFERENCE))
    return _squares(curves, draw, ("1 − specificity", "sensitivity"), entries, title, subtitle, leaky)


def precision_recall(
    curves: Sequence[Curve], title: str, subtitle: str, leaky: bool = False, point: str = ""
) -> Canvas:
    """Draw precision (y) against recall (x) in steps, with the prevalence; `point` is as in `roc`."""

    def draw(axes: Axes, curve: Curve) -> None:
        axes.axhline(curve.level, zorder=1, **_REFERENCE)
        _draw(axes, curve.line, _FIRST, drawstyle="steps-post")

    level = f" {curves[0].level:.3f}" if len(curves) == 1 else ""
    entries: list[Entry] = [(point, _POINT)] if any(c.point for c in curves) else []
    entries.append((f"prevalence{level}: precision without discrimination", _REFERENCE))
    return _squares(
        curves, draw, ("recall (sensitivity)", "precision (PPV)"), entries, title, subtitle, leaky
    )


def _squares(
    curves: Sequence[Curve],
    draw: Callable[[Axes, Curve], None],
    names: tuple[str, str],
    entries: Sequence[Entry],
    title: str,
    subtitle: str,
    leaky: bool,
) -> Canvas:
    """Draw one panel from 0 to 1 a curve; several say their areas above themselves, one in the legend."""
    single = len(curves) == 1
    whole: list[Entry] = [(curves[0].value if single else "each class against all others", _FIRST), *entries]
    with styled():
        grid = Grid([Head("", [c.n]) if single else Head(c.name, [c.n, c.value]) for c in curves])
        sheet = Sheet.start(title, subtitle, grid.height + legend_height(whole), leaky)
        for i, (curve, (left, top)) in enumerate(zip(curves, grid.places(sheet), strict=True)):
            axes = sheet.panel(left, grid.side, grid.side, top)
            draw(axes, curve)
            if curve.point:
                _cross(axes, *curve.point)
            unit_axis(axes, "x", grid.ticks())
            unit_axis(axes, "y", grid.ticks())
            ruled(axes)
            grid.label(axes, i, *names)
        sheet.legend(whole, grid.height)
    return sheet.figure


def _draw(axes: Axes, line: Line, style: dict[str, Any], **how: Any) -> None:
    if line.band is not None and _has_band(line):
        axes.fill_between(
            line.band.x,
            line.band.low,
            line.band.high,
            color=style["color"],
            alpha=_ALPHA,
            linewidth=0,
            zorder=1.5,
        )
    axes.plot(line.x, line.y, **style, **how)


def _has_band(line: Line) -> bool:
    """Return whether a band covers anything: two neighbouring points with limits."""
    if line.band is None:
        return False
    known = np.isfinite(line.band.low) & np.isfinite(line.band.high)
    return bool((known[1:] & known[:-1]).any())


def _shade(style: dict[str, Any]) -> dict[str, Any]:
    """Return how a legend shows the band of a line."""
    return {
        "color": style["color"],
        "alpha": _ALPHA,
        "linewidth": 10,
        "linestyle": "-",
        "solid_capstyle": "butt",
    }


def _cross(axes: Axes, x: Measured, y: Measured) -> None:
    """Mark a point and draw both of its intervals through it."""
    bars = (([x.low, x.high], [y.estimate] * 2), ([x.estimate] * 2, [y.low, y.high]))
    for bar in bars:
        if np.isfinite(bar).all():
            axes.plot(*bar, color=INK, linewidth=1.1, zorder=3)
    axes.plot([x.estimate], [y.estimate], zorder=4, clip_on=False, **_POINT)


@dataclass(frozen=True)
class Calibration:
    """Predicted against observed probability of one class.

    Attributes
    ----------
    name, lines
        The class, and what is written under its name: n, slope, intercept.
    bins
        Columns n, mean_predicted, observed, low, high; shares 0..1, one row a point.
    histogram
        Columns low, high (edges of a bin), positives, negatives; None draws the n of each bin instead.
    before
        Bins of the probabilities before calibration; None draws none.
    """

    name: str
    lines: Sequence[str]
    bins: pd.DataFrame
    histogram: pd.DataFrame | None = None
    before: pd.DataFrame | None = None


def calibration(
    panels: Sequence[Calibration], title: str, subtitle: str, leaky: bool = False, interval: str = "interval"
) -> Canvas:
    """Draw the observed share against the mean predicted probability, above how the predictions are spread.

    The curve of the probabilities before calibration lies behind, without intervals.
    Counts with the condition point up and those without it down, each to a scale of its own: both are seen
    however rare the condition is.
    """
    counted = any(p.histogram is not None for p in panels)
    compared = any(p.before is not None for p in panels)
    calibrated = ", calibrated" if compared else ""
    entries: list[Entry] = [
        (f"observed share and its {interval}{calibrated}", {**_FIRST, "marker": "o", "ms": 4}),
        *([("before calibration", _BEFORE)] if compared else []),
        ("perfect calibration", _REFERENCE),
    ]
    if counted:
        bar = {"linestyle": "-", "linewidth": 10, "solid_capstyle": "butt"}
        entries += [
            ("n with the condition (up)", {"color": PALETTE[1], **bar}),
            ("n without it (down; scale of its own)", {"color": PALETTE[5], **bar}),
        ]
    else:
        entries.append(("n of each point", {"color": QUIET, "linestyle": "-", "linewidth": 3}))
    with styled():
        below = 60.0 if len(panels) == 1 else 44.0
        grid = Grid([Head("" if len(panels) == 1 else p.name, p.lines) for p in panels], below)
        sheet = Sheet.start(title, subtitle, grid.height + legend_height(entries), leaky)
        for i, (panel, (left, top)) in enumerate(zip(panels, grid.places(sheet), strict=True)):
            axes = sheet.panel(left, grid.side, grid.side, top)
            axes.plot([0, 1], [0, 1], zorder=1, **_REFERENCE)
            if panel.before is not None:
                axes.plot(
                    panel.before["mean_predicted"],
                    panel.before["observed"],
                    clip_on=False,
                    zorder=2,
                    **_BEFORE,
                )
            _points(axes, panel.bins)
            unit_axis(axes, "x", grid.ticks())
            unit_axis(axes, "y", grid.ticks())
            axes.set_xticklabels([])
            ruled(axes)
            grid.label(axes, i, "", "observed share")
            axes = sheet.panel(left, grid.side, below - 8, top + grid.side + 8)
            if panel.histogram is None:
                _sticks(axes, panel.bins)
            else:
                _histogram(axes, panel.histogram)
            unit_axis(axes, "x", grid.ticks())
            ruled(axes, "x")
            grid.label(axes, i, "predicted probability", "n")
        sheet.legend(entries, grid.height)
    return sheet.figure


def _points(axes: Axes, bins: pd.DataFrame) -> None:
    x, y = bins["mean_predicted"].to_numpy(), bins["observed"].to_numpy()
    low = np.nan_to_num(y - bins["low"].to_numpy())
    high = np.nan_to_num(bins["high"].to_numpy() - y)
    axes.errorbar(
        x,
        y,
        np.clip([low, high], 0, None),
        fmt="o-",
        ms=4,
        color=PALETTE[0],
        ecolor="#4a90c0",
        lw=1.4,
        elinewidth=1.2,
        clip_on=False,  # markers at 0 and 1 are drawn whole, and above the axes' lines
        zorder=3,
    )


def _histogram(axes: Axes, bins: pd.DataFrame) -> None:
    """Draw counts with the condition upwards and without it downwards, each as a share of its highest bar."""
    width = bins["high"] - bins["low"]
    ticks, labels = [], []
    for name, sign, colour in (("positives", 1, PALETTE[1]), ("negatives", -1, PALETTE[5])):
        highest = bins[name].max()
        shares = sign * bins[name] / max(highest, 1)
        axes.bar(bins["low"], shares, width, align="edge", color=colour, edgecolor="white", linewidth=0.4)
        ticks.append(sign)
        labels.append(_count(highest))
    axes.axhline(0, color=QUIET, linewidth=0.8)
    axes.set(ylim=(-1.06, 1.06))
    axes.set_yticks(ticks, labels)


def _sticks(axes: Axes, bins: pd.DataFrame) -> None:
    axes.vlines(bins["mean_predicted"], 0, bins["n"], color=QUIET, linewidth=3)
    highest = bins["n"].max()
    axes.set(ylim=(0, 1.06 * highest))
    axes.set_yticks([0, highest], ["0", _count(highest)])


def _count(n: float) -> str:
    """Return a count in at most four signs, so that it fits beside an axis."""
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if n >= 10 * size or n >= 1e6:
            return f"{n / size:.0f}{sign}"
    return f"{n:.0f}"


@dataclass(frozen=True)
class Decision:
    """Net benefit of one class's probability, by threshold probability, beside that of treating all."""

    name: str
    n: str
    model: Line
    treat_all: Line


def decision_curve(
    panels: Sequence[Decision], title: str, subtitle: str, leaky: bool = False, band: str = ""
) -> Canvas:
    """Draw decision curves (Vickers & Elkin 2006, Med Decis Making 26:565): model, treat all, treat none.

    Thresholds beyond which the model treats nobody are left out, and so is what lies far below 0.
    """
    entries: list[Entry] = [("treat by the index test", _FIRST)]
    if any(_has_band(p.model) for p in panels):
        entries.append((band, _shade(_FIRST)))
    entries += [("treat all", _SECOND), ("treat none", _REFERENCE)]
    last = max(_informative(p) for p in panels)
    step = 0.2 if last > 0.5 else 0.1 if last > 0.25 else 0.04
    with styled():
        grid = Grid([Head("" if len(panels) == 1 else p.name, [p.n]) for p in panels])
        sheet = Sheet.start(title, subtitle, grid.height + legend_height(entries), leaky)
        for i, (panel, (left, top)) in enumerate(zip(panels, grid.places(sheet), strict=True)):
            axes = sheet.panel(left, grid.side, grid.side, top)
            axes.axhline(0, zorder=1, **_REFERENCE)
            _draw(axes, panel.treat_all, _SECOND)
            _draw(axes, panel.model, _FIRST)
            axes.set(xlim=(0, last), ylim=_net_benefits(panel))
            axes.xaxis.set_major_locator(MultipleLocator(step if grid.single else 2.5 * step))
            axes.yaxis.set_major_locator(MaxNLocator(5 if grid.single else 2))
            ruled(axes)
            grid.label(axes, i, "threshold probability", "net benefit")
        sheet.legend(entries, grid.height)
    return sheet.figure


def _informative(panel: Decision) -> float:
    """Return the threshold up to which treating by the index test or treating all differs from treating none."""
    model, everybody = panel.model, panel.treat_all
    telling = np.append(model.x[np.abs(model.y) > 1e-12], everybody.x[everybody.y > 0])
    return min(1.0, (telling if len(telling) else model.x).max() + 0.05)


def _net_benefits(panel: Decision) -> tuple[float, float]:
    """Return the limits of net benefit: all that is above 0, and a quarter as much below it."""
    high = panel.model.band.high if panel.model.band is not None else panel.model.y
    values = np.concatenate([panel.model.y, panel.treat_all.y, high])
    top = max(0.02, float(np.nanmax(values)))
    low = panel.model.band.low if panel.model.band is not None else panel.model.y
    bottom = float(np.nanmin(np.concatenate([panel.model.y, panel.treat_all.y, low])))
    return max(min(bottom, -0.05 * top), -_LEAST_NET_BENEFIT * top), 1.06 * top


@dataclass(frozen=True)
class Predictive:
    """PPV and NPV of one class by prevalence; `own` is the prevalence in the study."""

    name: str
    n: str
    ppv: Line
    npv: Line
    own: float = float("nan")


def predictive_values(
    panels: Sequence[Predictive], title: str, subtitle: str, leaky: bool = False, band: str = ""
) -> Canvas:
    """Draw PPV and NPV by the prevalence at which the test would be used, and mark the study's own."""
    own = f" ({panels[0].own:.3f})" if len(panels) == 1 else ""
    entries: list[Entry] = [("PPV", _FIRST), ("NPV", _SECOND)]
    if any(_has_band(line) for p in panels for line in (p.ppv, p.npv)):
        entries.append((band, _shade({"color": QUIET})))
    if any(np.isfinite(p.own) for p in panels):
        entries.append((f"prevalence in this study{own}", _REFERENCE))
    with styled():
        grid = Grid([Head("" if len(panels) == 1 else p.name, [p.n]) for p in panels])
        sheet = Sheet.start(title, subtitle, grid.height + legend_height(entries), leaky)
        for i, (panel, (left, top)) in enumerate(zip(panels, grid.places(sheet), strict=True)):
            axes = sheet.panel(left, grid.side, grid.side, top)
            if np.isfinite(panel.own):
                axes.axvline(panel.own, zorder=1, **_REFERENCE)
            _draw(axes, panel.ppv, _FIRST)
            _draw(axes, panel.npv, _SECOND)
            unit_axis(axes, "x", grid.ticks())
            unit_axis(axes, "y", grid.ticks())
            ruled(axes)
            grid.label(axes, i, "prevalence", "predictive value")
        sheet.legend(entries, grid.height)
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
    totals = numbers.sum(axis=1, keepdims=True)
    share = np.divide(numbers, totals, out=np.zeros(numbers.shape), where=totals > 0)
    percents = [[f"{100 * s:.0f} %" if n else "–" for s in row] for row, n in zip(share, totals, strict=True)]
    rows = [_broken(name, 112 if len(answers) < 6 else 70, 3) for name in references]
    left = max(text_width(line, SIZE) for lines in rows for line in lines) + 34
    cells = [*(text for row in percents for text in row), str(numbers.max(initial=0))]
    narrowest = max(text_width(text, SIZE) for text in cells) + 2
    cell = max(narrowest, (WIDTH - left - 4) / len(answers))
    width = left + len(answers) * cell + 4
    height = max(44.0, min(cell, 64.0))
    turned = max(text_width(c, SIZE) for c in answers) > cell - 4
    columns = [_broken(name, 120, 2) if turned else [name] for name in answers]
    longest = max(text_width(line, SIZE) for lines in columns for line in lines)
    foot = (longest if turned else LEADING) + 28
    with styled():
        sheet = Sheet.start(title, subtitle, len(references) * height + foot, leaky, width)
        axes = sheet.panel(left, len(answers) * cell, len(references) * height, 2)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (i, j), n in np.ndenumerate(numbers):
            colour = "white" if share[i, j] > 0.7 else "black"
            axes.text(
                j, i, f"{n}\n{percents[i][j]}", ha="center", va="center", linespacing=1.25, color=colour
            )
        axes.set_xticks(range(len(answers)), ["\n".join(c) for c in columns], rotation=90 if turned else 0)
        axes.set_yticks(range(len(references)), ["\n".join(r) for r in rows])
        axes.set(xlabel="index test", ylabel="reference")
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(answers) - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(len(references) - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="both", length=0)
    return sheet.figure


def _broken(text: str, width: float, most: int) -> list[str]:
    """Break a name in lines of at most `width` pixels; after `most` lines it is cut, and an ellipsis says so."""
    lines = wrapped(text, width)
    return (
        lines if len(lines) <= most else [*lines[: most - 1], shortened(" ".join(lines[most - 1 :]), width)]
    )
