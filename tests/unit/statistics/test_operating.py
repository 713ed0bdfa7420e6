"""Operating points of resamples against scikit-learn's curve of the same rows, with ties and patients."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from marrowflow.statistics.bootstrap import bootstrap_intervals
from marrowflow.statistics.operating import BAND, operating_points
from marrowflow.statistics.ranking import rank

LEVELS = (0.0, 0.5, 0.8, 0.9, 0.95)


@st.composite
def clustered(draw):
    """Tied scores of rows in a few patients, with both classes."""
    n = draw(st.integers(2, 50))
    levels = draw(st.sampled_from([1, 3, 10, 10**6]))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    patient = np.unique(numbers.integers(0, draw(st.integers(1, 8)), n), return_inverse=True)[1]
    y = numbers.random(n) < 0.4
    y[:2] = [True, False]
    return np.floor(levels * (numbers.random(n) + 0.3 * y)) / levels, y, patient


def points_of(scores, y, patient, specificities=LEVELS, sensitivities=LEVELS):
    ranking = rank(scores, y, patient, patient.max() + 1, 0)
    return operating_points({"": ranking}, specificities, sensitivities)[0]


def drawn(patients, times=5):
    return np.random.default_rng(patients).multinomial(patients, np.full(patients, 1 / patients), size=times)


def curve_of(scores, y):
    """False positives and true positives at each attainable cut-off, as integers, by scikit-learn."""
    fpr, tpr, _ = roc_curve(y, scores, drop_intermediate=False)
    return np.rint(fpr * (~y).sum()).astype(int), np.rint(tpr * y.sum()).astype(int)


def height_at(fp, tp, limit):
    """Height of the joined points above ``limit`` false positives, the upper end of a vertical part."""
    last = max(k for k in range(len(fp)) if fp[k] <= limit)
    if fp[last] == limit:
        return tp[last]
    return tp[last] + (limit - fp[last]) / (fp[last + 1] - fp[last]) * (tp[last + 1] - tp[last])


@given(clustered())
@settings(deadline=None, max_examples=60)
def test_resamples_equal_scikit_learn(data):
    scores, y, patient = data
    weights = drawn(patient.max() + 1)
    values = points_of(*data).values(weights)
    for i, w in enumerate(weights):
        rows = np.repeat(np.arange(len(y)), w[patient])
        truth, score = y[rows], scores[rows]
        if truth.all() or not truth.any():
            assert all(np.isnan(v[i]) for v in values.values())
            continue
        fp, tp = curve_of(score, truth)
        n, m = int((~truth).sum()), int(truth.sum())
        for at in LEVELS:
            level = Fraction(str(at))
            best = max(t for f, t in zip(fp, tp, strict=True) if n - f >= level * n)
            assert values["sensitivity_at_specificity", "", at][i] == pytest.approx(best / m, abs=1e-12)
            fewest = min(f for f, t in zip(fp, tp, strict=True) if t >= level * m)
            assert values["specificity_at_sensitivity", "", at][i] == pytest.approx(1 - fewest / n, abs=1e-12)
            theirs = roc_auc_score(truth, score, max_fpr=float(1 - level))
            assert values["partial_auc", "", at][i] == pytest.approx(theirs, abs=1e-12)
        for at in BAND:
            expected = height_at(fp, tp, Fraction(str(at)) * n) / m
            assert values["tpr_at_fpr", "", at][i] == pytest.approx(float(expected), abs=1e-12)


def test_by_hand():
    """Positives 9 7 7 3, negatives 8 7 5 4 2: cut-offs 9 8 7 5 4 3 2."""
    scores = np.array([9, 7, 7, 3, 8, 7, 5, 4, 2.0])
    y = np.arange(9) < 4
    found = points_of(scores, y, np.arange(9), (1.0, 0.8, 0.6), (0.25, 0.5, 1.0)).estimates()
    assert [found["sensitivity_at_specificity", "", at] for at in (1.0, 0.8, 0.6)] == [0.25, 0.25, 0.75]
    assert [found["specificity_at_sensitivity", "", at] for at in (0.25, 0.5, 1.0)] == [1.0, 0.6, 0.2]
    # The curve: (0, 1/4), (.2, 1/4), (.4, 3/4), flat to .8, up to 1.
    assert found["tpr_at_fpr", "", 0.3] == pytest.approx(0.5)
    assert found["tpr_at_fpr", "", 0.8] == 1.0
    assert found["partial_area", "", 0.6] == pytest.approx(0.2 / 4 + 0.2 / 2)
    assert found["partial_area", "", 1.0] == 0
    assert np.isnan(found["partial_auc", "", 1.0])


@pytest.mark.parametrize("n", [10, 20, 70, 1000])
@pytest.mark.parametrize("at", [0.1, 0.3, 0.7, 0.9, 0.95])
def test_rounding_bars_no_cut_off_at_the_level(n, at):
    """With distinct scores every k/n is attained, so that the level itself is reached wherever n·at is whole."""
    scores = np.arange(2 * n) // 2 + np.tile([0.5, 0.0], n)
    y = np.tile([True, False], n)
    points = points_of(scores, y, np.arange(2 * n), (at,), (at,)).estimates()
    least = -(-Fraction(str(at)) * n // 1)
    # From the top on each positive stands right above a negative: k false positives go with k + 1 true ones.
    assert points["sensitivity_at_specificity", "", at] == pytest.approx((n - least + 1) / n)
    assert points["specificity_at_sensitivity", "", at] == pytest.approx((n - least + 1) / n)


@given(clustered(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_what_must_change_nothing(data, random):
    scores, y, patient = data
    found = points_of(*data).estimates()
    order = np.array(random.sample(range(len(y)), len(y)))
    assert points_of(np.exp(3 * scores[order]), y[order], patient[order]).estimates() == found
    # A patient who is drawn twice is a patient whose rows are there twice.
    copied = np.concatenate([np.arange(len(y)), np.flatnonzero(patient == 0)])
    twice = points_of(scores[copied], y[copied], patient[copied]).estimates()
    weights = 1 + (np.arange(patient.max() + 1) == 0)[None]
    assert {k: v[0] for k, v in points_of(*data).values(weights).items()} == twice
    # The other side of the same coin: turned scores and truths swap the rates.
    turned = points_of(-scores, ~y, patient).estimates()
    for at in LEVELS:
        ours = found["sensitivity_at_specificity", "", at]
        assert turned["specificity_at_sensitivity", "", at] == pytest.approx(ours, abs=1e-12)
    assert found["sensitivity_at_specificity", "", 0.0] == found["specificity_at_sensitivity", "", 0.0] == 1
    heights = [found["tpr_at_fpr", "", at] for at in BAND]
    assert np.diff(heights).min() >= -1e-12
    # McClish: the whole area is its own standard.
    assert found["partial_auc", "", 0.0] == pytest.approx(found["partial_area", "", 0.0])


@given(clustered(), st.sampled_from([0.363, 0.7391, 0.0213]))
@settings(deadline=None, max_examples=40)
def test_influence_of_the_area_is_the_derivative_by_a_patients_weight(data, at):
    """At rates that no count of so few rows meets; at a corner there are two derivatives."""
    scores, y, patient = data

    def area(weights):
        fpr, tpr, _ = roc_curve(y, scores, sample_weight=weights, drop_intermediate=False)
        inside = fpr < 1 - at
        end = np.interp(1 - at, fpr, tpr)
        return np.trapezoid(np.append(tpr[inside], end), np.append(fpr[inside], 1 - at))

    pull = points_of(*data, (at,), ()).influence()["partial_auc", "", at]
    assert pull.sum() == pytest.approx(0, abs=1e-12)
    for q in range(patient.max() + 1):
        up, down = (area(1 + sign * 1e-6 * (patient == q)) for sign in (1, -1))
        assert pull[q] == pytest.approx((up - down) / 2e-6, abs=1e-6)


def test_steps_get_percentile_intervals_and_areas_bca():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 40, 800)
    y = rng.random(800) < 0.4
    points = points_of(rng.normal(size=800) + y, y, patient)
    values, estimates, pull = points.values(drawn(40, 300)), points.estimates(), points.influence()
    for metric, method in (("partial_auc", "bca"), ("sensitivity_at_specificity", "percentile")):
        key = (metric, "", 0.9)
        found = bootstrap_intervals(estimates[key], values[key], pull[key], 0.95)
        assert found.intervals[0].method == f"bootstrap_{method}"
        assert found.intervals[0].low < estimates[key] < found.intervals[0].high


def test_portions_are_joined_in_their_order(monkeypatch):
    data = np.random.default_rng(1).random(30), np.arange(30) % 3 == 0, np.arange(30) % 7
    whole = points_of(*data).values(drawn(7, 11))
    monkeypatch.setattr("marrowflow.statistics.tallies._ENTRIES_AT_ONCE", 60)
    for key, values in points_of(*data).values(drawn(7, 11)).items():
        assert (values == whole[key]).all()


def test_one_sided_questions_have_no_operating_points():
    assert operating_points({"": None}, LEVELS, LEVELS) == []


def test_products_of_many_rows_do_not_overflow():
    """60,000 negatives above 60,000 positives: 3.6 thousand million pairs, all of them lost; and the other way round."""
    y = np.arange(120_000) < 60_000
    for scores, area in ((~y, 0.0), (y, 1.0)):
        found = points_of(scores.astype(float), y, np.arange(120_000) % 9, (0.0, 0.5), ()).estimates()
        assert found["partial_auc", "", 0.0] == area
        assert found["partial_area", "", 0.5] == area / 2
