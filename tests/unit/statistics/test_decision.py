"""Net benefit against counts and identities; predictive values against Bayes' theorem, and their intervals against roots."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.config import Accuracy
from marrowflow.statistics.bootstrap import bootstrap_intervals, resample
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.decision import THRESHOLDS, PredictiveValues, decision_curves
from marrowflow.statistics.evaluation import Question, evaluate_binary, evaluate_classes
from marrowflow.statistics.intervals import wilson_clustered

CLASSES = ["a", "b", "c"]


def sample_of(truth, predicted, patient, p=None, classes=("no", "yes")):
    n, patients = len(truth), patient.max() + 1
    return Sample("case", list(classes), patient, truth.astype(int), predicted.astype(int), p, patients, n)


def curve_of(score, y, patient):
    return decision_curves(sample_of(y, y, patient), [Question("", y, score)])[0]


def binary(tp, fp, fn, tn, pairs=1):
    """One row a patient, or ``pairs`` neighbours in the order tp, fp, fn, tn."""
    truth = np.repeat([True, False, True, False], [tp, fp, fn, tn])
    called = np.repeat([True, True, False, False], [tp, fp, fn, tn])
    patient = np.arange(len(truth)) // pairs
    return evaluate_binary(sample_of(truth, called, patient), ["yes"], called)


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    patient = np.append(np.arange(25), rng.integers(0, 25, 275))
    y = rng.random(300) < 0.3
    # Many scores are thresholds themselves.
    return np.round(np.clip(0.25 * y + 0.7 * rng.random(300), 0, 1), 2), y, patient


def drawn(patients, times=6):
    return np.random.default_rng(1).multinomial(patients, np.full(patients, 1 / patients), size=times)


def test_net_benefit_of_resamples_is_counted(scored):
    score, y, patient = scored
    found, weights = curve_of(*scored), drawn(25)
    values = found.values(weights)
    for i, w in enumerate(weights):
        rows = np.repeat(np.arange(300), w[patient])
        for t in THRESHOLDS:
            treated = score[rows] >= t
            tp, fp = (treated & y[rows]).sum(), (treated & ~y[rows]).sum()
            expected = tp / len(rows) - fp / len(rows) * t / (1 - t)
            assert values["net_benefit", "", t][i] == pytest.approx(expected, abs=1e-12)
            expected = y[rows].mean() - (1 - y[rows].mean()) * t / (1 - t)
            assert values["net_benefit_treat_all", "", t][i] == pytest.approx(expected, abs=1e-11)
    estimates = found.estimates()
    for key, value in found.values(np.ones((1, 25), dtype=int)).items():
        assert estimates[key] == pytest.approx(value[0], abs=1e-12)


def test_identities():
    y = np.arange(100) < 30
    perfect = curve_of(y.astype(float), y, np.arange(100)).estimates()
    # Who treats the sick alone gains the prevalence; to treat all is worth nothing where the threshold is the prevalence.
    assert [perfect["net_benefit", "", t] for t in THRESHOLDS] == pytest.approx([0.3] * 99)
    assert perfect["net_benefit_treat_all", "", 0.3] == pytest.approx(0, abs=1e-15)
    all_alike = curve_of(np.full(100, 0.4), y, np.arange(100)).estimates()
    for t in THRESHOLDS:
        of_all = all_alike["net_benefit_treat_all", "", t]
        assert all_alike["net_benefit", "", t] == pytest.approx(of_all if t <= 0.4 else 0)


def test_influence_is_what_leaving_out_changes():
    rng = np.random.default_rng(2)
    y, score = rng.random(40) < 0.4, rng.random(40)
    found = curve_of(score, y, np.arange(40))
    estimates, pull = found.estimates(), found.influence()
    left_out = found.values(1 - np.eye(40, dtype=int))
    for key in (("net_benefit", "", 0.2), ("net_benefit", "", 0.7)):
        assert pull[key] == pytest.approx(39 * (estimates[key] - left_out[key]), abs=1e-5)
    key = ("net_benefit_treat_all", "", 0.2)
    change = estimates[key] - left_out[key]
    assert pull[key] / pull[key][0] == pytest.approx(change / change[0], rel=1e-5)


def test_influence_goes_through_all_patients(monkeypatch, scored):
    whole = curve_of(*scored).influence()
    monkeypatch.setattr("marrowflow.statistics.decision._PATIENTS_AT_ONCE", 4)
    for key, pull in curve_of(*scored).influence().items():
        assert (pull == whole[key]).all()


def test_sparse_and_dense_counts_give_the_same(monkeypatch, scored):
    weights = drawn(25)
    monkeypatch.setattr("marrowflow.statistics.tallies._SPARSE_COST", 0)
    sparse = curve_of(*scored)
    monkeypatch.setattr("marrowflow.statistics.tallies._SPARSE_COST", 10**9)
    dense = curve_of(*scored)
    assert [hasattr(c._counts, "tocsr") for c in (sparse, dense)] == [True, False]
    assert sparse.estimates() == pytest.approx(dense.estimates())
    for key, values in sparse.values(weights).items():
        assert values == pytest.approx(dense.values(weights)[key])
        assert sparse.influence()[key] == pytest.approx(dense.influence()[key])


def test_only_probabilities_have_a_decision_curve(scored):
    score, y, patient = scored
    unfit = [Question("", y, None), Question("", y, score, is_probability=False)]
    assert decision_curves(sample_of(y, y, patient), unfit) == []


@given(st.lists(st.integers(1, 40), min_size=4, max_size=4))
@settings(deadline=None, max_examples=40)
def test_at_the_samples_prevalence_they_are_the_samples(counts):
    tp, fp, fn, tn = counts
    prevalence = (tp + fn) / sum(counts)
    found = PredictiveValues(binary(*counts), [prevalence]).estimates()
    assert found["ppv_at_prevalence", "", prevalence] == pytest.approx(tp / (tp + fp))
    assert found["npv_at_prevalence", "", prevalence] == pytest.approx(tn / (tn + fn))


def test_predictive_values_by_hand():
    """Of 100,000 people 1,000 are ill: 900 of them and 4,950 of the others are called."""
    found = PredictiveValues(binary(90, 5, 10, 95), [0.01]).estimates()
    assert found["ppv_at_prevalence", "", 0.01] == pytest.approx(900 / 5850)
    assert found["npv_at_prevalence", "", 0.01] == pytest.approx(94050 / 94150)


def test_each_class_against_the_rest():
    rng = np.random.default_rng(3)
    truth, called, patient = rng.integers(0, 3, (3, 60))
    patient = np.append(np.arange(10), rng.integers(0, 10, 50))
    found = PredictiveValues(evaluate_classes(sample_of(truth, called, patient, None, CLASSES)), [0.2])
    weights = drawn(10)
    values, left_out = found.values(weights), found.values(1 - np.eye(10, dtype=int))
    for i, name in enumerate(CLASSES):
        one = evaluate_binary(sample_of(truth == i, called == i, patient), ["yes"], called == i)
        alone = PredictiveValues(one, [0.2])
        for metric in ("ppv_at_prevalence", "npv_at_prevalence"):
            theirs = alone.values(weights)[metric, "", 0.2]
            assert values[metric, name, 0.2] == pytest.approx(theirs, nan_ok=True)
            assert found.closed_form((metric, name, 0.2), 0.9) == alone.closed_form((metric, "", 0.2), 0.9)
            without = left_out[metric, name, 0.2]
            assert found.influence()[metric, name, 0.2] == pytest.approx(without.mean() - without)


def test_undefined_without_one_side_or_without_anyone_called():
    one_sided = PredictiveValues(binary(5, 0, 5, 0), [0.1])
    assert all(np.isnan(v) for v in one_sided.estimates().values())
    assert one_sided.closed_form(("ppv_at_prevalence", "", 0.1), 0.95) is None
    never = PredictiveValues(binary(0, 0, 5, 5), [0.1])
    assert np.isnan(never.estimates()["ppv_at_prevalence", "", 0.1])
    assert never.closed_form(("ppv_at_prevalence", "", 0.1), 0.95) is None
    assert never.estimates()["npv_at_prevalence", "", 0.1] == pytest.approx(0.9)


def test_without_false_positives_the_bootstrap_has_no_width_and_the_closed_form_has():
    found = PredictiveValues(binary(18, 0, 2, 40), [0.05])
    key = ("ppv_at_prevalence", "", 0.05)
    drawn_ = found.values(drawn(60, 200))[key]
    nothing = bootstrap_intervals(1.0, drawn_, found.influence()[key], 0.95)
    assert nothing.intervals == []
    assert "no width" in nothing.problem
    interval = found.closed_form(key, 0.95)
    # Donner and Zou's limits at a numerator of 0: the upper one is u / √(l(2y - l)).
    called, sick = np.repeat([1.0, 0.0], [18, 42]), np.repeat([1.0, 0.0], [20, 40])
    u = wilson_clustered(np.zeros(60), 1 - sick, 0.95).high
    low = wilson_clustered(called, sick, 0.95).low
    ratio = u / np.sqrt(low * (2 * 0.9 - low))
    assert interval.high == 1
    assert interval.low == pytest.approx(0.05 / (0.05 + ratio * 0.95), abs=1e-9)
    assert interval.method == "mover_wilson_neff"


@given(st.lists(st.integers(0, 25), min_size=4, max_size=4).filter(any), st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=40)
def test_negatives_are_the_positives_of_the_opposite_question(counts, pairs):
    prevalence = 0.2
    plain = PredictiveValues(binary(*counts, pairs), [prevalence])
    turned = PredictiveValues(binary(*counts[::-1], pairs), [1 - prevalence])
    npv, ppv = ("npv_at_prevalence", "", prevalence), ("ppv_at_prevalence", "", 1 - prevalence)
    estimate = plain.estimates()[npv]
    assert estimate == pytest.approx(turned.estimates()[ppv], nan_ok=True)
    if pairs > 1 and sum(counts) % pairs:
        return  # Turned round, the patient with fewer rows is another one.
    interval, other = plain.closed_form(npv, 0.95), turned.closed_form(ppv, 0.95)
    assert (interval is None) == (other is None)
    if interval is not None:
        assert (interval.low, interval.high) == pytest.approx((other.low, other.high))
        assert interval.low - 1e-12 <= estimate <= interval.high + 1e-12


def test_correlated_parts_change_the_interval():
    """Patients who err on both sides or on none: sensitivity and false positives pull together."""
    truth, called = np.tile([True, False], 40), np.tile([True, False, False, True], 20)
    patient = np.arange(80) // 4
    called[:24] = truth[:24]
    together = evaluate_binary(sample_of(truth, called, patient), ["yes"], called)
    # The same patients' counts of each side, one side's patients apart from the other's.
    apart = evaluate_binary(sample_of(truth, called, patient + 20 * truth), ["yes"], called)
    key = ("ppv_at_prevalence", "", 0.2)
    linked, free = (PredictiveValues(e, [0.2]).closed_form(key, 0.95) for e in (together, apart))
    assert linked.high - linked.low > 1.05 * (free.high - free.low)


@pytest.mark.filterwarnings("error")
def test_patients_of_equal_benefit_give_no_interval():
    """A third of either patient's rows are positive, all treated at low thresholds: resamples differ by rounding only."""
    y, patient = np.tile([True, False, False], 4), np.repeat([0, 1], [9, 3])
    score = np.array([0.92, 0.42, 0.46, 0.69, 0.77, 0.49, 0.57, 0.89, 0.78, 0.83, 0.44, 0.48])
    curve = curve_of(score, y, patient)
    found = resample([curve], list(curve.estimates()), 2, Accuracy(replicates=100), "")
    assert not any(found["net_benefit_treat_all", "", t].intervals for t in THRESHOLDS)
    assert not any(found["net_benefit", "", t].intervals for t in THRESHOLDS if t <= 0.42 or t > 0.92)
    # At .5 the first patient's net benefit is 3/9 - 3/9, the other's 1/3.
    percentile = found["net_benefit", "", 0.5].intervals[-1]
    assert (percentile.low, percentile.high) == pytest.approx((0, 1 / 3), abs=1e-12)
