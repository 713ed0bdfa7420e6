"""Curves against the areas under them and against counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from marrowflow.statistics.curves import calibration_bins, pr_points, roc_points


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    y = rng.random(300) < 0.3
    return np.round(np.clip(0.3 * y + rng.random(300) * 0.7, 0, 1), 2), y, rng.integers(0, 40, 300)


def test_areas(scored):
    scores, y, _ = scored
    roc = roc_points(scores, y)
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(roc_auc_score(y, scores))
    for _, point in roc.iterrows():
        assert point["tpr"] == pytest.approx((scores[y] >= point["threshold"]).mean())
        assert point["fpr"] == pytest.approx((scores[~y] >= point["threshold"]).mean())
    pr = pr_points(scores, y)
    area = -(np.diff(pr["recall"]) * pr["precision"].iloc[:-1]).sum()
    assert area == pytest.approx(average_precision_score(y, scores), abs=0.02)


@given(st.integers(0, 2**32), st.integers(2, 60), st.sampled_from([1, 2, 8, 10**9]))
@settings(deadline=None, max_examples=100)
def test_points_are_those_of_scikit_learn(seed, n, levels):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.4
    y[:2] = [True, False]
    scores = np.floor(levels * rng.random(n)) / levels - 0.3
    fpr, tpr, threshold = roc_curve(y, scores)
    for name, theirs in (("fpr", fpr), ("tpr", tpr), ("threshold", threshold)):
        assert roc_points(scores, y)[name].tolist() == theirs.tolist()
    precision, recall, threshold = precision_recall_curve(y, scores, drop_intermediate=True)
    for name, theirs in (
        ("recall", recall),
        ("precision", precision),
        ("threshold", np.append(threshold, np.inf)),
    ):
        assert pr_points(scores, y)[name].tolist() == theirs.tolist()


def test_bins_divide_the_rows(scored):
    scores, y, patient = scored
    bins = calibration_bins(scores, y, patient, 40, 0.95)
    assert bins["n"].sum() == 300
    assert (bins["n"] * bins["observed"]).sum() == pytest.approx(y.sum())
    assert (bins["n"] * bins["mean_predicted"]).sum() == pytest.approx(scores.sum())
    assert len(bins) == 10
    assert bins["mean_predicted"].is_monotonic_increasing
    assert ((bins["low"] <= bins["observed"]) & (bins["observed"] <= bins["high"])).all()


def test_ties_share_a_bin_and_one_sided_data_have_no_curve():
    tied = calibration_bins(np.full(30, 0.4), np.arange(30) < 12, np.arange(30), 30, 0.95)
    assert tied["n"].tolist() == [30]
    assert tied["observed"].tolist() == [0.4]
    assert roc_points(np.array([0.1, 0.9]), np.array([True, True])).empty
    assert pr_points(np.array([0.1, 0.9]), np.array([False, False])).empty
    assert calibration_bins(np.zeros(0), np.zeros(0, bool), np.zeros(0, int), 0, 0.95).empty
