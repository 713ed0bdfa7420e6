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


def test_one_vs_rest_networks_have_a_thin_line_each() -> None:
    of = {"AML": history(5, True), "ALL": history(3, True)}
    folds = {
        fold: pd.concat([rows.assign(network=name) for name, rows in of.items()], ignore_index=True)
        for fold in ("0", "1")
    }
    canvas = training_curves(folds, {"0": {"AML": 4, "ALL": 2}}, "Accuracy and loss", "n = 2 folds")
    lines = [line for line in canvas.axes[0].lines if line.get_marker() != "D"]
    assert sorted(len(line.get_xdata()) for line in lines) == [3, 3, 3, 3, 5, 5, 5, 5]
    assert all(line.get_linewidth() < 1 for line in lines)
    marks = [line for line in canvas.axes[0].lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert [m.get_xdata().tolist() for m in marks] == [[4], [2]]
    plain = training_curves({"0": history(5, True)}, {}, "Accuracy and loss", "")
    assert plain.axes[0].lines[0].get_linewidth() > 1
