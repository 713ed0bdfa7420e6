"""Accuracy–loss curves: the kept epoch of each fold."""

import numpy as np
import pandas as pd
from figure_checks import crowded

from marrowflow.reporting.training_figure import training_curves


def history(epochs: int, validated: bool) -> pd.DataFrame:
    losses = np.linspace(1, 0.5, epochs)
    columns = {"epoch": np.arange(1, epochs + 1), "train_loss": losses, "train_accuracy": 1 - losses}
    held_out = losses + 0.1 if validated else np.full(epochs, np.nan)
    return pd.DataFrame(columns | {"validation_loss": held_out, "validation_accuracy": 0.9 - held_out})


def test_training_curves_mark_the_kept_epoch_of_each_fold() -> None:
    for validated in (True, False):
        folds = {"0": history(5, validated), "1": history(4, validated)}
        canvas = training_curves(folds, {"0": 3, "1": 4}, "Accuracy and loss", "n = 2 folds")
        marks = [line for line in canvas.axes[0].lines if line.get_marker() == "D"]
        part = "validation_loss" if validated else "train_loss"
        assert [(m.get_xdata()[0], m.get_ydata()[0]) for m in marks] == [
            (3, folds["0"][part][2]),
            (4, folds["1"][part][3]),
        ]
        legend = [t.get_text() for t in canvas.axes[-1].texts]
        assert legend[-1] == f"kept epoch ({'lowest validation loss' if validated else 'the last one'})"
        assert not crowded(canvas)
