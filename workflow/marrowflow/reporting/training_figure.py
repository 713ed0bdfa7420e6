"""How a network was trained: loss and accuracy by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from marrowflow.reporting.drawing import INK, PALETTE, WIDTH, Sheet, legend_height, ruled, styled

NETWORK = "network"
"""Column of a history that holds one network a class; its epochs count anew in each."""

Kept = Mapping[str, int | Mapping[str, int]]
"""Fold → the epoch whose weights were kept, or network → that epoch."""


def training_curves(
    histories: Mapping[str, pd.DataFrame],
    kept: Kept,
    title: str,
    subtitle: str,
    leaky: bool = False,
) -> Canvas:
    """Draw loss and accuracy by epoch, one line a fold, training and validation in two colours.

    Parameters
    ----------
    histories
        Fold → rows with epoch, train_loss, train_accuracy, validation_loss, validation_accuracy (NaN without
        a validation part), and maybe `NETWORK`: each of its networks then has a line of its own, thinner.
    kept
        Fold → epoch whose network was kept; it is marked. Folds may be left out.
    title, subtitle
        What is shown, and its n.
    leaky
        Stamp the figure.
    """
    height, gap = 150.0, 26.0
    lines = list(_lines(histories, kept))
    several = len(lines) > len(histories)
    thickness = 0.7 if several else 1.3
    styles: dict[str, dict[str, Any]] = {
        "train": {"color": PALETTE[0], "linestyle": "--", "linewidth": thickness},
        "validation": {"color": PALETTE[1], "linestyle": "-", "linewidth": thickness},
    }
    mark: dict[str, Any] = {
        "color": INK,
        "linestyle": "none",
        "marker": "D",
        "ms": 3 if several else 5,
        "mfc": "white",
        "mew": 0.8 if several else 1.2,
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
    with styled():
        legend = legend_height(entries)
        sheet = Sheet.start(title, subtitle, 2 * height + gap + 46 + legend, leaky)
        for i, (quantity, name) in enumerate((("loss", "loss (cross-entropy)"), ("accuracy", "accuracy"))):
            axes = sheet.panel(54, WIDTH - 66, height, 4 + i * (height + gap))
            for history, epoch in lines:
                for part, style in styles.items():
                    # A single epoch makes no line: show it as a point.
                    marker: dict[str, Any] = {"marker": "o", "ms": 4} if len(history) == 1 else {}
                    axes.plot(history["epoch"], history[f"{part}_{quantity}"], alpha=0.8, **style, **marker)
                own = history[history["epoch"].eq(epoch)]
                part = "validation" if validated else "train"
                axes.plot(own["epoch"], own[f"{part}_{quantity}"], zorder=3, clip_on=False, **mark)
            axes.set_xlim(first - 0.3, last + 0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
            axes.set_ylabel(name)
            ruled(axes)
            if quantity == "accuracy":
                axes.set(ylim=(-0.02, 1.02), xlabel="epoch")
        sheet.legend(entries, 2 * height + gap + 48)
    return sheet.figure


def _lines(histories: Mapping[str, pd.DataFrame], kept: Kept) -> Iterator[tuple[pd.DataFrame, int | None]]:
    """Yield the rows of each line with the epoch that is marked on it."""
    for fold, history in histories.items():
        epoch = kept.get(fold)
        if NETWORK not in history:
            yield history, epoch if isinstance(epoch, int) else None
            continue
        for name, own in history.groupby(NETWORK, sort=False):
            yield own, epoch.get(str(name)) if isinstance(epoch, Mapping) else epoch
