"""The simulation behind the documentation's coverage table: what it takes for true, and what the table promises."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks.simulate_coverage import (
    CORRELATIONS,
    DESIGNS,
    METHODS,
    PATIENTS,
    SENSITIVITIES,
    SHIFT,
    Scenario,
    draw_images,
    render,
    simulate,
)
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

TABLE = Path(__file__).parents[3] / "docs" / "coverage.csv"


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_truth_of_the_simulated_data(design, correlation):
    """One image a class and patient, of many patients: independent pairs that scikit-learn and counting agree on."""
    images = draw_images(Scenario(design, 40_000, correlation), np.random.default_rng(1))
    key = images.patient * 2 + images.positive
    _, first = np.unique(key, return_index=True)
    truth, score = images.positive[first], images.score[first]
    assert roc_auc_score(truth, score) == pytest.approx(0.92, abs=0.005)
    for true in SENSITIVITIES:
        error = np.sqrt(true * (1 - true) / truth.sum())
        assert (score[truth] >= SHIFT - norm.ppf(true)).mean() == pytest.approx(true, abs=4 * error)
    assert score[~truth].std() == pytest.approx(1, abs=0.02)
    sizes = np.bincount(images.patient)
    assert sizes.mean() == pytest.approx(10, rel=0.02)
    # Rows of one patient and class correlate by ρ.
    order = np.lexsort((np.arange(len(key)), key))
    pairs = np.flatnonzero(np.diff(key[order]) == 0)[::2]
    shifted = images.score - SHIFT * images.positive
    a, b = shifted[order][pairs], shifted[order][pairs + 1]
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(correlation, abs=0.03)


def test_workers_do_not_change_the_table():
    one, two = simulate(3, seed=5, workers=1), simulate(3, seed=5, workers=2)
    pd.testing.assert_frame_equal(one, two)
    assert not one.equals(simulate(3, seed=6, workers=2))
    assert render(one).count("\n| ") == 3 * (2 + len(DESIGNS) * len(PATIENTS) * len(CORRELATIONS))


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(TABLE)


def test_table_is_complete(table):
    cells = len(DESIGNS) * len(PATIENTS) * len(CORRELATIONS)
    quantities = len(METHODS["auc"]) + 2 * len(METHODS["sensitivity"])
    assert len(table) == cells * quantities
    assert table["simulations"].ge(2000).all()
    assert table["covered_of_all"].to_numpy() == pytest.approx(
        (table["coverage"] * (1 - table["share_without_interval"])).to_numpy(), abs=2e-5
    )


@pytest.mark.parametrize(("patients", "least"), [(100, 0.93), (30, 0.92), (15, 0.92)])
def test_printed_intervals_cover(table, patients, least):
    printed = table[table["primary"] & (table["patients"] == patients)]
    assert printed["covered_of_all"].min() >= least
