"""Telling a hospital from development: exact where algebra is, .5 where nothing differs, blind to case mix within classes."""

from itertools import product

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from marrowflow.statistics import domain
from marrowflow.statistics.domain import FEWEST, FOLDS, Units, separation, separation_of_halves


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer fits, of the same kind."""
    monkeypatch.setattr(domain, "DIVISIONS", 2)
    monkeypatch.setattr(domain, "GROUPS", 5)
    monkeypatch.setattr(domain, "HALVINGS", 8)


def units(x, hospital, patient=None, stratum=None):
    n = len(x)
    patient = np.arange(n) if patient is None else patient
    stratum = np.zeros(n, np.int64) if stratum is None else np.asarray(stratum)
    return Units(np.asarray(x, float), patient, np.asarray(hospital, bool), stratum, int(patient.max()) + 1)


def drawn(seed, development=40, hospital=20, features=6, shift=0.0):
    rng = np.random.default_rng(seed)
    side = np.arange(development + hospital) < hospital
    x = rng.normal(0, 1, (len(side), features))
    x[:, 0] += shift * side
    return units(x, side)


def by_hand(u, fold):
    """Out-of-fold scores by scikit-learn, and the mean AUC of folds weighted by their pairs."""
    won = pairs = 0.0
    for own in range(FOLDS):
        shown = fold != own
        y = u.hospital[shown]
        w = np.where(y, len(y) / 2 / y.sum(), len(y) / 2 / (~y).sum())
        mean = np.average(u.features[shown], axis=0, weights=w)
        sd = np.sqrt(np.average((u.features[shown] - mean) ** 2, axis=0, weights=w))
        model = LogisticRegression(C=1 / u.features.shape[1], max_iter=1000, tol=1e-6)
        model.fit((u.features[shown] - mean) / sd, y, w)
        truth = u.hospital[~shown]
        n = truth.sum() * (~truth).sum()
        won += n * roc_auc_score(truth, model.predict_proba((u.features[~shown] - mean) / sd)[:, 1])
        pairs += n
    return won / pairs


def test_pairs_are_those_of_one_fold():
    u = drawn(3, shift=1.0)
    fold = domain._dealt(u, FOLDS, [0, 0])
    assert domain._auc(u, [fold]) == pytest.approx(by_hand(u, fold), abs=1e-12)


def test_a_shift_is_found_and_separated_sides_have_no_zero_width():
    found = separation(drawn(1, shift=1.5), 0.95, 0)
    assert 0.7 < found.estimate < 0.95
    assert found.interval.method == "jackknife_refitted"
    assert found.interval.low < found.estimate < found.interval.high
    apart = separation(drawn(1, shift=40), 0.95, 0)
    assert (apart.estimate, apart.interval.method, apart.interval.high) == (1, "newcombe_neff", 1)
    assert 0.8 < apart.interval.low < 1


def test_nothing_differs_on_average():
    """Unbiased: the mean over many samples of nothing is .5 within its standard error; pooled scores would be below."""
    found = [domain._auc(u, [domain._dealt(u, FOLDS, [0])]) for u in (drawn(s, 16, 12, 8) for s in range(80))]
    assert np.mean(found) == pytest.approx(0.5, abs=3 * np.std(found) / np.sqrt(len(found)))
    assert np.std(found) < 0.2


def test_no_patient_is_scored_by_a_classifier_that_saw_it(monkeypatch):
    """Two units a patient in two strata: their patient's fold is one, whatever the strata are."""
    patient = np.repeat(np.arange(30), 2)
    u = units(np.random.default_rng(0).normal(0, 1, (60, 3)), patient < 12, patient, np.tile([0, 1], 30))
    for key in range(5):
        fold = domain._dealt(u, FOLDS, [key])
        assert (fold[::2] == fold[1::2]).all()
        for side, part in product((True, False), range(FOLDS)):
            mine = np.unique(patient[(u.hospital == side) & (fold == part)])
            assert abs(len(mine) - (12 if side else 18) / FOLDS) < 1


def test_case_mix_is_no_shift_within_classes():
    """The class decides the feature, and the sides differ in their classes only."""
    rng = np.random.default_rng(5)
    side = np.repeat([False, True], [60, 40])
    stratum = np.concatenate([np.repeat([0, 1], [48, 12]), np.repeat([0, 1], [8, 32])])
    x = rng.normal(0, 1, (100, 4))
    x[:, 0] += 4 * stratum
    crude = separation(units(x, side), 0.95, 0)
    within = separation(units(x, side, stratum=stratum), 0.95, 0)
    assert crude.estimate > 0.7 > within.estimate
    assert within.interval.low < 0.5 < within.interval.high
    x[:, 1] += 3 * side
    assert separation(units(x, side, stratum=stratum), 0.95, 0).estimate > 0.9


def test_sides_weigh_alike_in_each_stratum():
    hospital = np.array([0, 0, 0, 1, 0, 1, 1, 0], bool)
    stratum = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    expected = [4 / 6] * 3 + [2, 1.5, 0.75, 0.75, 0]
    np.testing.assert_allclose(domain._weights(hospital, stratum), expected, rtol=1e-15)


def test_strata_of_one_side_are_left_out():
    u = units(np.zeros((5, 1)), [0, 1, 0, 1, 1], stratum=[0, 0, 1, 2, 0]).comparable()
    assert (u.n_patients, u.stratum.tolist(), u.hospital.tolist()) == (3, [0, 0, 0], [False, True, True])


@pytest.mark.parametrize(
    ("development", "hospital", "where"), [(40, 9, "the hospital"), (9, 30, "development")]
)
def test_few_patients_are_not_judged(development, hospital, where):
    found = separation(drawn(0, development, hospital), 0.95, 0)
    assert found.reason == f"suppressed: 9 patients of {where}, fewer than {FEWEST}"
    assert np.isnan([found.estimate, found.interval.low]).all()
    assert separation(drawn(0, 10, 10), 0.95, 0).reason == ""


def test_halves_of_development():
    u = drawn(2, 40, 20, shift=30)
    halves = separation_of_halves(u, 0)
    assert halves.interval.low <= 0.5 <= halves.interval.high
    assert halves.estimate == pytest.approx(0.5, abs=0.15)
    assert (
        separation_of_halves(drawn(2, 19, 40), 0).reason
        == "suppressed: 9 patients of half of development, fewer than 10"
    )


def test_features_that_do_not_vary_say_nothing():
    u = drawn(4, shift=1.0)
    more = units(np.column_stack([u.features, np.full((60, 6), 0.1)]), u.hospital)
    fold = domain._dealt(u, FOLDS, [0])
    # Twelve features halve the prior's variance: another penalty, so the ranks may move a little and no more.
    assert domain._auc(more, [fold]) == pytest.approx(domain._auc(u, [fold]), abs=0.1)
    assert np.isfinite(domain._scores(more, fold)).all()


def test_the_same_seed_gives_the_same_numbers():
    u = drawn(6, 15, 12, shift=0.7)
    assert separation(u, 0.95, 3) == separation(u, 0.95, 3)
    assert separation(u, 0.95, 3) != separation(u, 0.95, 4)


def test_pairs_are_those_of_one_stratum(monkeypatch):
    """Scores that rise with the stratum, where the hospital has more: only pairs within count, by brute force."""
    rng = np.random.default_rng(7)
    hospital, stratum = rng.random(50) < 0.5, rng.integers(0, 3, 50)
    stratum = np.where(hospital, np.maximum(stratum, 1), stratum)
    u = units(rng.normal(0, 1, (50, 1)), hospital, stratum=stratum)
    scores = np.round(rng.normal(0, 1, 50) + 3 * stratum, 1)
    monkeypatch.setattr(domain, "_scores", lambda *_: scores)
    fold = domain._dealt(u, FOLDS, [0])
    pairs = [
        (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2
        for i in np.flatnonzero(hospital)
        for j in np.flatnonzero(~hospital)
        if fold[i] == fold[j] and stratum[i] == stratum[j]
    ]
    assert domain._auc(u, [fold]) == pytest.approx(np.mean(pairs), abs=1e-12)
