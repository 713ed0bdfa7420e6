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
    found = corrected(np.array([n, of - n]), confusion, TYPES[:2], 0.95, 50, 0)
    expected = (n / of + 0.95 - 1) / (0.9 + 0.95 - 1)
    assert found.shares[0] == pytest.approx(min(1, max(0, expected)), abs=1e-6)
    assert found.shares.sum() == pytest.approx(1)


def test_networks_that_never_err_change_nothing():
    own = np.array([20, 30, 50])
    found = corrected(own, np.array([np.diag([40, 50, 60])] * 6), TYPES, 0.95, 4000, 0)
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
    assert corrected(own, confusion, TYPES, 0.95, 5, 0).shares == pytest.approx(expected, abs=1e-6)


def test_the_interval_is_as_wide_as_the_delta_methods():
    """Many patients with independent cells: Rogan and Gladen's variance, for p and for both error rates."""
    chance = np.random.default_rng(1)
    se, sp, q, n = 0.85, 0.9, 0.4, 400
    rows = [[chance.multinomial(10, [se, 1 - se]), chance.multinomial(10, [1 - sp, sp])] for _ in range(60)]
    confusions = np.array(rows)
    found = corrected(np.array([round(q * n), n - round(q * n)]), confusions, TYPES[:2], 0.95, 4000, 0)
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
    found = corrected(np.array([10, 10, 20]), confusion, TYPES, 0.95, 20, 0)
    assert found.patients.tolist() == [1, 1, 0]
    assert found.shares[2] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        # Nothing is ever called band; rows that are alike; two types that are taken for each other.
        ([[340, 0, 20], [0, 0, 24], [7, 0, 713]], "band is said of cells of"),
        ([[50, 50, 0], [50, 50, 0], [0, 0, 9]], "blast is said of cells of band as often as of its own"),
        ([[40, 60, 0], [50, 50, 0], [0, 0, 9]], "blast is said of cells of band as often as of its own"),
        ([[51, 49, 0], [49, 51, 0], [0, 0, 9]], "tell some types apart too seldom"),
    ],
)
def test_types_that_are_not_told_apart_have_no_corrected_shares(rows, told):
    found = corrected(np.array([20, 0, 80]), np.array([rows] * 12), TYPES, 0.95, 10, 0)
    assert told in found.reason
    assert np.isnan(np.concatenate([found.shares, found.low, found.high])).all()


def test_a_count_of_none_is_as_uncertain_as_wilson_has_it():
    confusions = np.array([np.diag([40, 60, 50])] * 8)
    found = corrected(np.array([0, 40, 60]), confusions, TYPES, 0.95, 200, 0)
    low, high = proportion_confint(0, 100, method="wilson")
    assert found.shares[0] == pytest.approx(0, abs=1e-6)
    assert (found.low[0], found.high[0]) == pytest.approx((low, high), abs=1e-6)


def test_few_cells_of_few_patients_are_less_sure_than_many():
    """Recognised 9 of 10 and 900 of 1,000, each in one patient: a patient cannot be drawn otherwise than he is."""
    others = [[[0, 0, 0], [5, 90, 5], [0, 10, 90]]] * 8
    widths = []
    for cells in (10, 1000):
        one = [[[9 * cells // 10, cells // 10, 0], [0, 0, 0], [0, 0, 0]]]
        found = corrected(np.array([300, 300, 400]), np.array(one + others), TYPES, 0.95, 400, 0)
        widths.append(found.high[0] - found.low[0])
    assert widths[0] > 1.5 * widths[1]
