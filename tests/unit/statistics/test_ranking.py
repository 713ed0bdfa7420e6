"""AUC and average precision of resamples against scikit-learn on the same resamples, and published variances."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import clustered_small
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import average_precision_score, roc_auc_score

from marrowflow.statistics import ranking as module
from marrowflow.statistics.intervals import auc_delong
from marrowflow.statistics.ranking import rank

MATRIX, PASSES = 10**9, 0


@st.composite
def clustered(draw, most=40):
    """Tied scores of rows in a few patients, with both classes."""
    n = draw(st.integers(2, most))
    levels = draw(st.sampled_from([1, 3, 20]))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    patient = numbers.integers(0, draw(st.integers(1, 8)), n)
    patient = np.unique(patient, return_inverse=True)[1]
    y = numbers.random(n) < 0.4
    y[:2] = [True, False]
    return numbers.integers(0, levels, n) / levels, y, patient


def resampled(seed, patients, times=6):
    return np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=times)


def auc_of(scores, y, patient, weights):
    rows = np.repeat(np.arange(len(y)), weights[patient])
    return roc_auc_score(y[rows], scores[rows]) if len(set(y[rows])) == 2 else np.nan


def ap_of(scores, y, patient, weights):
    rows = np.repeat(np.arange(len(y)), weights[patient])
    return average_precision_score(y[rows], scores[rows]) if y[rows].any() else np.nan


@given(clustered(), st.sampled_from([MATRIX, PASSES]))
@settings(deadline=None, max_examples=150)
def test_resamples_equal_scikit_learn(data, entries):
    scores, y, patient = data
    patients = patient.max() + 1
    ranked = rank(scores, y, patient, patients, entries)
    assert (ranked.pairs is None) == (entries == PASSES)
    weights = resampled(len(y), patients)
    expected = [auc_of(scores, y, patient, w) for w in weights]
    assert ranked.auc(weights) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    expected = [ap_of(scores, y, patient, w) for w in weights]
    assert ranked.average_precision(weights) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(clustered())
@settings(deadline=None, max_examples=100)
def test_pairs_are_counted_one_by_one(data):
    scores, y, patient = data
    patients = patient.max() + 1
    ranked = rank(scores, y, patient, patients, MATRIX)
    brute = np.zeros((patients, patients))
    for i in np.flatnonzero(y):
        for j in np.flatnonzero(~y):
            brute[patient[i], patient[j]] += 1 + np.sign(scores[i] - scores[j])
    # A block on the diagonal is larger than these: a folded matrix is K itself, of all patients.
    counted = brute if ranked.folded else brute[ranked.positives > 0][:, ranked.negatives > 0]
    assert (ranked.pairs == counted).all()
    for by in (ranked, rank(scores, y, patient, patients, PASSES)):
        assert (by.won == brute.sum(axis=1)).all()
        assert (by.lost == brute.sum(axis=0)).all()
        assert (by.own == np.diag(brute)).all()


@pytest.mark.parametrize("fold", [4, 128])
@pytest.mark.parametrize("levels", [4, 400, 10**9])
def test_both_ways_agree_on_many_rows(levels, fold, monkeypatch):
    """Long ties, short ties and none; blocks and parts of several sizes; K folded and whole."""
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 500)
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", 300)
    monkeypatch.setattr(module, "_FOLD", fold)
    rng = np.random.default_rng(levels)
    n, patients = 3000, 25
    patient = rng.integers(0, patients, n)
    y = rng.random(n) < 0.3
    scores = np.floor((rng.random(n) + 0.2 * y) * levels)
    weights = resampled(1, patients, 20)
    by_matrix, by_passes = (rank(scores, y, patient, patients, e) for e in (MATRIX, PASSES))
    assert by_matrix.folded
    assert by_matrix.auc(weights) == pytest.approx(by_passes.auc(weights), abs=1e-13)
    assert by_matrix.auc(weights)[0] == pytest.approx(auc_of(scores, y, patient, weights[0]), abs=1e-12)


@given(clustered())
@settings(deadline=None, max_examples=60)
def test_leaving_a_patient_out(data):
    scores, y, patient = data
    patients = patient.max() + 1
    ranked = rank(scores, y, patient, patients, PASSES)
    without = np.ones((patients, patients), dtype=int) - np.eye(patients, dtype=int)
    expected = [auc_of(scores, y, patient, w) for w in without]
    assert ranked.auc_without_each() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(clustered())
@settings(deadline=None, max_examples=40)
def test_influence_is_the_derivative_by_the_weights(data):
    scores, y, patient = data
    patients = patient.max() + 1
    pull = rank(scores, y, patient, patients, PASSES).average_precision_influence()
    step = 1e-5
    for p in range(patients):
        up, down = (
            average_precision_score(y, scores, sample_weight=1 + sign * step * (patient == p))
            for sign in (1, -1)
        )
        assert pull[p] == pytest.approx((up - down) / (2 * step), abs=1e-6)


@given(clustered(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_what_must_not_and_what_must_change_the_auc(data, random):
    scores, y, patient = data
    patients = patient.max() + 1
    everyone = np.ones((1, patients), dtype=int)
    ranked = rank(scores, y, patient, patients, MATRIX)
    auc = ranked.auc(everyone)[0]
    shuffled = np.array(random.sample(range(len(y)), len(y)))
    again = rank(np.exp(3 * scores[shuffled]), y[shuffled], patient[shuffled], patients, MATRIX)
    assert again.auc(everyone)[0] == auc
    assert again.auc_variance()[1] == pytest.approx(ranked.auc_variance()[1], nan_ok=True)
    assert rank(scores, ~y, patient, patients, MATRIX).auc(everyone)[0] == pytest.approx(1 - auc)
    tied = rank(np.zeros(len(y)), y, patient, patients, MATRIX)
    assert tied.auc(everyone)[0] == 0.5
    assert tied.average_precision(everyone)[0] == pytest.approx(y.mean())


@pytest.mark.parametrize(
    ("score", "auc", "variance"), [("s1", 0.88125, 0.007450405714), ("s2", 0.90625, 0.004510631137)]
)
def test_obuchowski_variance(score, auc, variance):
    table = clustered_small()
    patient = pd.factorize(table["patient"])[0]
    for entries in (MATRIX, PASSES):
        found = rank(table[score], table["y"] == 1, patient, 10, entries).auc_variance()
        assert found == pytest.approx((auc, variance), abs=1e-11)


@pytest.mark.parametrize(
    ("column", "auc", "low", "high"),
    [
        ("mean radius", 0.937516516040, 0.917020670853, 0.958012361227),
        ("mean texture", 0.775824480736, 0.737145937812, 0.814503023660),
        ("worst concave points", 0.966703662597, 0.952163464581, 0.981243860613),
    ],
)
def test_one_row_a_patient_gives_the_interval_of_delong(column, auc, low, high):
    data = load_breast_cancer()
    scores = data.data[:, list(data.feature_names).index(column)]
    n = len(scores)
    found, variance = rank(scores, data.target == 0, np.arange(n), n, MATRIX).auc_variance()
    assert found == pytest.approx(auc, abs=1e-11)
    interval = auc_delong(found, variance, 0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-10)


def test_one_sided_questions_have_no_ranking():
    assert rank(np.array([0.1, 0.2]), np.array([True, True]), np.array([0, 1]), 2, MATRIX) is None
