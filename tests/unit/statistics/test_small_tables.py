"""Every table of the step from small and odd prediction tables: no error, no floating-point warning, sound intervals."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest

from marrowflow.config import Accuracy
from marrowflow.predictions import read_predictions
from marrowflow.statistics.accuracy import measure

CLASSES = ["a", "b", "c"]
STYLES = ("smooth", "ties", "certain", "partly_certain", "constant", "copies", "extreme", "perfect")
BIASED = {"ece", "brier_reliability", "brier_resolution"}


def small_table(seed):
    """2-60 rows, 1-20 patients, 2 or 3 classes; patients of one class, of several, or all of the same."""
    rng, style = np.random.default_rng(seed), STYLES[seed % len(STYLES)]
    n, patients, k = rng.integers(2, 61), rng.integers(1, 21), rng.integers(2, 4)
    patient, of_patient = rng.integers(0, patients, n), rng.integers(0, k, patients)
    truth = np.where(rng.random(n) < rng.choice([0, 0.5, 1]), of_patient[patient], rng.integers(0, k, n))
    if rng.random() < 0.1:
        truth = np.append(np.zeros(n - 1, dtype=int), k - 1)
    p = np.exp(rng.choice([0, 1, 3]) * np.eye(k)[truth] + rng.normal(size=(n, k)))
    if style == "extreme":
        p = p**20
    p /= p.sum(axis=1, keepdims=True)
    if style == "ties":
        p = (np.round(3 * p) + 1e-9) / (np.round(3 * p) + 1e-9).sum(axis=1, keepdims=True)
    elif style in ("certain", "partly_certain"):
        p = np.where(
            (rng.random(n) < (1 if style == "certain" else 0.5))[:, None], np.eye(k)[p.argmax(axis=1)], p
        )
    elif style == "constant":
        p[:] = p[0]
    elif style == "perfect":
        p = 0.9 * np.eye(k)[truth] + 0.1 / k
    elif style == "copies":
        # All patients have the same three rows (the last one perhaps fewer).
        first = np.arange(n) % min(3, n)
        truth, p, patient = truth[first], p[first], np.arange(n) // 3
    table = pd.DataFrame({"patient_id": [f"P{i}" for i in patient], "truth": np.array(CLASSES)[truth]})
    return table.assign(**{f"p_{c}": p[:, i] for i, c in enumerate(CLASSES[:k])})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(40))
def test_no_small_table_breaks_the_step_or_an_interval(seed, tmp_path):
    path = tmp_path / "p.csv"
    small_table(seed).to_csv(path, index=False)
    endpoints = {"a": ["a"]} if seed % 3 else {"classes": None}
    with contextlib.redirect_stdout(io.StringIO()):
        tables = measure(read_predictions(path, [], None), endpoints, ["case"], Accuracy(replicates=200))
    for name, table in vars(tables).items():
        if not {"metric", "method"} <= set(table):
            continue
        none = table["method"].eq("none")
        low, high, estimate = (table[c].to_numpy(np.float64) for c in ("low", "high", "estimate"))
        given = np.isfinite(low) & np.isfinite(high)
        assert (given == ~none).all(), name
        assert not table["metric"][given].isin(BIASED).any()
        # Wider than rounding, and about the estimate but for rounding.
        room = 1e-9 * np.maximum(1, np.abs(estimate))
        wrong = given & ~((high - low > 1e-12) & (low <= estimate + room) & (estimate <= high + room))
        assert not wrong.any(), table[wrong].to_string()
