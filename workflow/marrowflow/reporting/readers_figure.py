"""Readers' operating points over the ROC curve of the index test that they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from marrowflow.reporting import drawing
from marrowflow.reporting.drawing import (
    INK,
    PALETTE,
    Entry,
    Grid,
    Head,
    Sheet,
    legend_height,
    ruled,
    styled,
    unit_axis,
)

Row = Mapping[str, Any] | None
# Told apart by shape as well as by colour; the first is the curve's own index test.
_MARKERS = "osD^vP*Xhp<>"
_CURVE: dict[str, Any] = {"color": PALETTE[0], "linestyle": "-"}
_REFERENCE: dict[str, Any] = {"color": "#777777", "linewidth": 1.0, "linestyle": (0, (2, 3))}


def draw_readers(
    curve: pd.DataFrame | None,
    points: Mapping[str, tuple[Row, Row]],
    title: str,
    subtitle: str,
    leaky: bool = False,
) -> tuple[Canvas, str]:
    """Draw sensitivity against 1 − specificity of several index tests.

    Parameters
    ----------
    curve
        Columns ``fpr`` and ``tpr``, the ROC curve of the first of `points`; None or empty draws none.
    points
        By the index test's name, the one with the curve first: rows of metrics for sensitivity and specificity, or None.
    title, subtitle, leaky
        As for every figure.

    Returns
    -------
    canvas, alternative
        The figure and its words.
    """
    first = next(iter(points))
    drawn = {name: pair for name, pair in points.items() if all(_known(row) for row in pair)}
    entries: list[Entry] = []
    if curve is not None and len(curve):
        entries.append((f"ROC curve of {first}", _CURVE))
    styles = {name: _style(i, name == first) for i, name in enumerate(points)}
    entries += [(name, styles[name]) for name in drawn]
    entries.append(("no discrimination", _REFERENCE))
    with styled():
        grid = Grid([Head("", [])])
        sheet = Sheet.start(title, subtitle, grid.height + legend_height(entries), leaky)
        for left, top in grid.places(sheet):
            axes = sheet.panel(left, grid.side, grid.side, top)
            axes.plot([0, 1], [0, 1], zorder=1, **_REFERENCE)
            if curve is not None and len(curve):
                axes.plot(curve["fpr"], curve["tpr"], zorder=2, **_CURVE)
            for name, (sensitivity, specificity) in drawn.items():
                assert sensitivity is not None
                assert specificity is not None
                _cross(axes, sensitivity, specificity, styles[name])
            unit_axis(axes, "x", grid.ticks())
            unit_axis(axes, "y", grid.ticks())
            ruled(axes)
            grid.label(axes, 0, "1 − specificity", "sensitivity")
        sheet.legend(entries, grid.height)
    words = [
        f"{name}: sensitivity {a['estimate']:.3f}, specificity {b['estimate']:.3f}"
        for name, (a, b) in drawn.items()
        if a is not None and b is not None
    ]
    return sheet.figure, drawing.alternative_text(title, subtitle, words)


def _known(row: Row) -> bool:
    return row is not None and bool(np.isfinite(row["estimate"]))


def _style(i: int, own: bool) -> dict[str, Any]:
    colour = INK if own else PALETTE[1 + (i - 1) % (len(PALETTE) - 3)]
    return {
        "color": colour,
        "linestyle": "none",
        "marker": _MARKERS[i % len(_MARKERS)],
        "ms": 6.5,
        "mfc": colour if own else "white",
        "mew": 1.5,
    }


def _cross(
    axes: Axes, sensitivity: Mapping[str, Any], specificity: Mapping[str, Any], style: dict[str, Any]
) -> None:
    x, y = 1 - specificity["estimate"], sensitivity["estimate"]
    bars = (
        ([1 - specificity["high"], 1 - specificity["low"]], [y, y]),
        ([x, x], [sensitivity["low"], sensitivity["high"]]),
    )
    for bar in bars:
        if np.isfinite(bar).all():
            axes.plot(*bar, color=style["color"], linewidth=1.0, zorder=3)
    axes.plot([x], [y], zorder=4, clip_on=False, **style)
