"""Measures of agreement against scikit-learn, a published table, and hand counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, f1_score

from marrowflow.config import Accuracy
from marrowflow.statistics.agreement import agreement_measures, agreement_rows, count_agreement
from marrowflow.statistics.bootstrap import draw_weights
from marrowflow.statistics.rows import Place

SETTINGS = Accuracy(replicates=200)


def rows_of(first, second, k, patient, binary=False):
    notes = []
    counted = count_agreement(
        np.asarray(first), np.asarray(second), k, np.asarray(patient), len(first), binary
    )
    table = agreement_rows(counted, ("one", "two"), Place("e", "case", notes), SETTINGS)
    return table, notes


def primary(table, metric):
    (row,) = table.query("primary and metric == @metric").to_dict("records")
    return row


def test_two_raters_of_a_hundred_patients():
    """Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, 3rd edition, table 18.1: kappa .68."""
    cells = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    found = agreement_measures(cells, binary=False)
    assert found["agreement"] == pytest.approx(0.89)
    assert found["kappa"] == pytest.approx((0.89 - 0.66) / (1 - 0.66), abs=1e-12)
    assert round(float(found["kappa"]), 2) == 0.68


@given(st.integers(2, 5), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_resamples_equal_scikit_learn(k, seed):
    rng = np.random.default_rng(seed)
    patient = np.unique(rng.integers(0, 9, 40), return_inverse=True)[1]
    first, second = rng.integers(0, k, (2, 40))
    counted = count_agreement(first, second, k, patient, 40, binary=False)
    weights = next(draw_weights(patient.max() + 1, 4, seed % 1000))
    found = counted.values(weights)
    for b, w in enumerate(weights):
        rows = np.repeat(np.arange(40), w[patient])
        x, y = first[rows], second[rows]
        assert found["agreement"][b] == pytest.approx((x == y).mean(), abs=1e-12)
        for metric, kind in (("kappa", None), ("kappa_linear", "linear"), ("kappa_quadratic", "quadratic")):
            expected = cohen_kappa_score(x, y, labels=np.arange(k), weights=kind)
            assert found[metric][b] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_the_order_of_the_classes_counts_only_where_weighted():
    rng = np.random.default_rng(4)
    cells = rng.integers(1, 30, (4, 4))
    order = [2, 0, 3, 1]
    found, turned = agreement_measures(cells, False), agreement_measures(cells[order][:, order], False)
    assert turned["kappa"] == pytest.approx(found["kappa"])
    assert turned["kappa_linear"] != pytest.approx(found["kappa_linear"], abs=1e-3)
    swapped = agreement_measures(cells.T, False)
    for metric, value in found.items():
        assert swapped[metric] == pytest.approx(value)


def test_positive_and_negative_agreement():
    first, second = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.array([1, 1, 0, 0, 0, 1, 0, 1])
    table, _ = rows_of(first, second, 2, np.arange(8), binary=True)
    # Three both positive, three both negative, two apart.
    assert primary(table, "positive_agreement")["estimate"] == pytest.approx(f1_score(first, second))
    assert primary(table, "negative_agreement")["estimate"] == pytest.approx(6 / 8)
    assert set(table["metric"]) == {"agreement", "kappa", "positive_agreement", "negative_agreement"}
    lopsided = agreement_measures(np.array([[10, 3], [1, 2]]), binary=True)
    assert lopsided["positive_agreement"] == pytest.approx(4 / 8)
    assert lopsided["negative_agreement"] == pytest.approx(20 / 24)


def test_leaving_a_patient_out():
    rng = np.random.default_rng(8)
    patient = np.repeat(np.arange(10), 4)
    first, second = rng.integers(0, 3, (2, 40))
    pull = count_agreement(first, second, 3, patient, 40, False).influence()["kappa_quadratic"]
    left = [
        cohen_kappa_score(first[patient != p], second[patient != p], weights="quadratic") for p in range(10)
    ]
    assert pull == pytest.approx(np.mean(left) - left, abs=1e-12)


def test_rows_and_their_methods():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 3, 90)
    second = np.where(rng.random(90) < 0.7, first, rng.integers(0, 3, 90))
    clustered, notes = rows_of(first, second, 3, np.repeat(np.arange(30), 3))
    assert not notes
    assert clustered.groupby("metric")["primary"].sum().eq(1).all()
    row = primary(clustered, "agreement")
    assert (row["method"], row["numerator"], row["denominator"]) == (
        "wilson_neff",
        (first == second).sum(),
        90,
    )
    assert (row["n_cases"], row["n_patients"]) == (90, 30)
    assert primary(clustered, "kappa_linear")["method"] == "bootstrap_bca"
    assert not set(clustered["method"]) & {"wilson", "clopper_pearson"}
    alone, _ = rows_of(first, second, 3, np.arange(90))
    assert {"wilson", "clopper_pearson"} <= set(alone["method"])
    # Three equal rows a patient are worth no more than one, up to the t quantile's degrees of freedom.
    thrice, _ = rows_of(np.repeat(first, 3), np.repeat(second, 3), 3, np.repeat(np.arange(90), 3))
    for metric in ("agreement", "kappa"):
        a, b = primary(alone, metric), primary(thrice, metric)
        assert (a["low"], a["high"]) == pytest.approx((b["low"], b["high"]), abs=1e-9)


def test_perfect_and_one_sided_agreement():
    same, notes = rows_of([0, 1, 2, 0, 1], [0, 1, 2, 0, 1], 3, np.arange(5))
    assert primary(same, "kappa")["estimate"] == 1
    assert primary(same, "kappa")["method"] == "none"
    assert primary(same, "agreement")["method"] == "wilson_neff"
    assert primary(same, "agreement")["low"] < 1
    assert {n["metric"] for n in notes} == {"kappa", "kappa_linear", "kappa_quadratic"}
    # One class only: chance alone would agree as well, and κ is 0/0.
    one, notes = rows_of([1, 1, 1], [1, 1, 1], 2, np.arange(3), binary=True)
    assert np.isnan(primary(one, "kappa")["estimate"])
    assert np.isnan(primary(one, "negative_agreement")["estimate"])
    assert "undefined" in notes[0]["warning"]


def test_no_unit_and_one_patient():
    none, notes = rows_of(np.zeros(0, int), np.zeros(0, int), 2, np.zeros(0, int))
    assert none["estimate"].isna().all()
    assert set(none["method"]) == {"none"}
    assert len(notes) == 4
    one, _ = rows_of([0, 1, 1], [0, 1, 0], 2, [0, 0, 0], binary=True)
    assert set(one["method"]) == {"none"}
    assert primary(one, "agreement")["estimate"] == pytest.approx(2 / 3)
