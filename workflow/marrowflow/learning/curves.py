"""Loss and accuracy over the epochs, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from marrowflow.files import written_whole

# Two colours of Okabe and Ito's palette, told apart with any colour vision; dashes tell them apart in grey.
_TRAIN = {"color": "#0072B2", "linestyle": "--", "marker": "o", "markersize": 3.5}
_VALIDATION = {"color": "#D55E00", "linestyle": "-", "marker": "s", "markersize": 3.5}


def draw_curves(
    history: Sequence[Mapping[str, Any]], best_epoch: int, title: str, sizes: Mapping[str, int], out: Path
) -> None:
    """Draw loss and accuracy of training and validation as SVG; equal histories give equal bytes.

    Parameters
    ----------
    history
        Rows of `marrowflow.learning.loop.Fit`.
    best_epoch
        The epoch whose weights were kept; marked.
    title
        Of the figure.
    sizes
        Samples an epoch of ``train`` and ``validation``, printed in the legend.
    out
        The file to write.
    """
    epochs = [row["epoch"] for row in history]
    validated = history[0]["validation_loss"] is not None
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, 2)
    for panel, name, label in zip(
        panels, ("loss", "accuracy"), ("Cross-entropy (nats)", "Accuracy (share of images)"), strict=True
    ):
        panel.plot(
            epochs,
            [row[f"train_{name}"] for row in history],
            label=f"training, n = {sizes['train']}",
            **_TRAIN,
        )
        if validated:
            values = [row[f"validation_{name}"] for row in history]
            panel.plot(epochs, values, label=f"validation, n = {sizes['validation']}", **_VALIDATION)
        panel.axvline(best_epoch, color="0.45", linewidth=1, linestyle=":", label=f"kept: epoch {best_epoch}")
        panel.set(xlabel="Epoch", ylabel=label)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        panel.grid(axis="y", color="0.9", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1.02)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    # Ids of a fixed salt and no date, so that the file changes only when the curves do.
    with mpl.rc_context({"svg.hashsalt": "curves"}), written_whole(out) as beside:
        figure.savefig(beside, format="svg", metadata={"Date": None})
