"""Differential counts: pooled over fields, Wilson's interval as statsmodels has it, and errors corrected as algebra has it."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from marrowflow.cells.differential import corrected, counts

TYPES = ["blast", "band", "lymphocyte"]


def cells(*fields):
    """Return cells of one patient: of each field so many of each type."""
    rows = [
        ("P", f"f{i}", name)
        for i, field in enumerate(fields)
        for name, n in zip([*TYPES, "smudge"], field, strict=True)
        for _ in range(n)
    ]
    return pd.DataFrame(rows, columns=["patient_id", "case_id", "type"])


def test_fields_are_added_up_and_never_averaged():
    """One field of two blasts, one of 1 in 98: 3 of 100, where the fields' mean would be 50.5 %. Smudges count nowhere."""
    table = counts(cells((2, 0, 0, 5), (1, 60, 37, 0)), TYPES, 0.95).set_index("type")
    assert table.loc["blast", ["n", "of", "share", "images"]].tolist() == [3, 100, 0.03, 2]
    assert table["n"].tolist() == [3, 60, 37]
    low, high = proportion_confint(3, 100, method="wilson")
    assert table.loc["blast", ["low", "high"]].tolist() == pytest.approx([low, high])


def test_patients_stand_apart():
    both = pd.concat([cells((1, 1, 0, 0)), cells((0, 0, 4, 1)).assign(patient_id="Q")])
    table = counts(both, TYPES, 0.95)
    assert table.groupby("patient_id")["of"].first().to_dict() == {"P": 2, "Q": 4}
    assert table.groupby("patient_id")["share"].sum().tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("n", "of"), [(30, 100), (5, 100), (2, 100), (97, 100)])
def test_two_types_are_rogan_and_gladens(n, of):
    """Of sick cells 90 of 100 are recognised, of others 190 of 200."""
    confusion = np.array([[[90, 10], [10, 190]]])
    found = corrected(np.array([n, of - n]), confusion, 0.95, 50, 0)
    expected = (n / of + 0.95 - 1) / (0.9 + 0.95 - 1)
    assert found.shares[0] == pytest.approx(min(1, max(0, expected)), abs=1e-6)
    assert found.shares.sum() == pytest.approx(1)


def test_networks_that_never_err_change_nothing():
    own = np.array([20, 30, 50])
    found = corrected(own, np.array([np.diag([40, 50, 60])] * 6), 0.95, 4000, 0)
    assert found.shares == pytest.approx(own / 100, abs=1e-6)
    # What is left is the chance of so many cells: the binomial's quantiles.
    half = 1.96 * np.sqrt(0.2 * 0.8 / 100)
    assert [found.low[0], found.high[0]] == pytest.approx([0.2 - half, 0.2 + half], abs=0.015)


def test_three_types_are_solved_as_numpy_solves_them():
    """Shares inside the simplex: the equations have an exact solution, which least squares then is."""
    confusion = np.array([[[80, 15, 5], [10, 80, 10], [0, 20, 80]]])
    truth = np.array([0.5, 0.2, 0.3])
    own = np.round(confusion[0].T / 100 @ truth * 1_000_000).astype(int)
    expected = np.linalg.solve(confusion[0].T / 100, own / own.sum())
    assert corrected(own, confusion, 0.95, 5, 0).shares == pytest.approx(expected, abs=1e-6)


def test_the_interval_is_as_wide_as_the_delta_methods():
    """Many patients with independent cells: Rogan and Gladen's variance, for p and for both error rates."""
    chance = np.random.default_rng(1)
    se, sp, q, n = 0.85, 0.9, 0.4, 400
    rows = [[chance.multinomial(10, [se, 1 - se]), chance.multinomial(10, [1 - sp, sp])] for _ in range(60)]
    confusions = np.array(rows)
    found = corrected(np.array([round(q * n), n - round(q * n)]), confusions, 0.95, 4000, 0)
    m = confusions.sum(axis=0)
    se, sp = m[0, 0] / m[0].sum(), m[1, 1] / m[1].sum()
    youden = se + sp - 1
    p = (q + sp - 1) / youden
    variance = q * (1 - q) / n + p**2 * se * (1 - se) / 600 + (1 - p) ** 2 * sp * (1 - sp) / 600
    width = 2 * 1.96 * np.sqrt(variance) / youden
    assert found.high[0] - found.low[0] == pytest.approx(width, rel=0.12)
    assert found.low[0] < p < found.high[0]


def test_a_type_that_no_other_patient_has_is_said_to_be_taken_as_recognised():
    confusion = np.array([[[90, 10, 0], [10, 90, 0], [0, 0, 0]]])
    found = corrected(np.array([10, 10, 20]), confusion, 0.95, 20, 0)
    assert found.assumed.tolist() == [False, False, True]
    assert found.shares[2] == pytest.approx(0.5, abs=1e-6)
