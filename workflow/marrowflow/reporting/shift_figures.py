"""A hospital over development: small multiples of patients' colour, and patients in the network's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from marrowflow.reporting.drawing import (
    LEADING,
    PALETTE,
    WIDTH,
    Entry,
    Sheet,
    legend_height,
    ruled,
    styled,
)

COLOURS = {"L_mean": "L", "a_mean": "a", "b_mean": "b"}
"""Columns that are drawn, and their names."""

_GREY, _OWN = "#9a9a9a", PALETTE[0]
_BINS = 16
_PANEL, _HEIGHT, _FOOT = 118.0, 74.0, 22.0  # pixels from panel to panel, of a panel, and of its tick labels


def colour_figure(
    colour: pd.DataFrame, recipes: Sequence[str], hospital: str, title: str, subtitle: str
) -> Canvas:
    """Draw how patients' mean colour is distributed on both sides: a row a recipe, a column an axis of colour.

    Parameters
    ----------
    colour
        ``side`` (development, hospital), ``recipe`` and `COLOURS`, a row a patient and recipe.
    recipes
        In the order of the rows. A column has one scale, so that recipes can be compared.
    hospital
        Its name.
    title, subtitle
        Of the figure.
    """
    entries: list[Entry] = [
        ("development", {"color": _GREY, "linewidth": 7, "linestyle": "-", "alpha": 0.6}),
        (hospital, {"color": _OWN, "linewidth": 1.8, "linestyle": "-"}),
    ]
    each = LEADING + _HEIGHT + _FOOT + 6
    with styled():
        below = len(recipes) * each + LEADING + 4 + legend_height(entries)
        sheet = Sheet.start(title, subtitle, below, leaky=False)
        for i, recipe in enumerate(recipes):
            sheet.write([f"recipe {recipe}"], 2, i * each, bold=1)
            own = colour[colour["recipe"].eq(recipe)]
            for j, (column, name) in enumerate(COLOURS.items()):
                axes = sheet.panel(6 + j * _PANEL, _PANEL - 12, _HEIGHT, i * each + LEADING + 2)
                edges = _edges(colour[column])
                sides = [own.loc[own["side"].eq(side), column] for side in ("development", "hospital")]
                heights = [np.histogram(side, edges)[0] / max(1, len(side)) for side in sides]
                axes.stairs(heights[0], edges, fill=True, color=_GREY, alpha=0.6)
                axes.stairs(heights[1], edges, color=_OWN, linewidth=1.8)
                axes.set(xlim=(edges[0], edges[-1]), yticks=[], ylim=(0, None))
                axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
                axes.tick_params(length=2, pad=2)
                axes.spines["left"].set_visible(False)
                if i == len(recipes) - 1:
                    axes.set_xlabel(name, labelpad=1)
        sheet.legend(entries, len(recipes) * each + LEADING)
    return sheet.figure


def projection_figure(
    points: pd.DataFrame,
    components: pd.DataFrame,
    hospital: str,
    title: str,
    subtitle: str,
    leaky: bool = False,
) -> Canvas:
    """Draw patients of both sides on the first two principal components of development.

    Parameters
    ----------
    points
        ``side``, ``component_1``, ``component_2``; the second may be missing.
    components
        Share of variance that each explains in development.
    hospital
        Its name.
    title, subtitle, leaky
        Of the figure.
    """
    styles: dict[str, dict[str, Any]] = {
        "development": {"marker": "o", "color": _GREY, "ms": 5, "mew": 0, "alpha": 0.75},
        "hospital": {"marker": "^", "color": _OWN, "ms": 5.5, "mfc": "none", "mew": 1.3},
    }
    entries: list[Entry] = [
        (name, {**styles[side], "linestyle": "none"})
        for side, name in (("development", "development"), ("hospital", hospital))
    ]
    side = 272.0
    with styled():
        sheet = Sheet.start(title, subtitle, side + 46 + legend_height(entries), leaky)
        axes = sheet.panel(62, WIDTH - 74, side, 4)
        second = "component_2" if "component_2" in points else "component_1"
        for name, style in styles.items():
            own = points[points["side"].eq(name)]
            axes.plot(own["component_1"], own[second], linestyle="none", **style)
        explained = components.set_index("component")["development"]
        axes.set_xlabel(f"component 1 ({100 * explained[1]:.0f} % of development’s variance)")
        if second in points and 2 in explained:
            axes.set_ylabel(f"component 2 ({100 * explained[2]:.0f} %)")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(0.06)
        ruled(axes)
        sheet.legend(entries, side + 46)
    return sheet.figure


def _edges(values: pd.Series) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    room = 0.02 * (high - low) or 0.5
    return np.linspace(low - room, high + room, _BINS + 1)
