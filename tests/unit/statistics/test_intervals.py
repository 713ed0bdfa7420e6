"""Closed-form intervals against published values and algebra."""

import numpy as np
import pytest
from oracles import clustered_small
from scipy.special import expit, logit
from scipy.stats import t

from marrowflow.statistics.intervals import (
    auc_delong,
    auc_logit,
    clopper_pearson,
    log_robust,
    logit_t,
    ratio_variance,
    welch_freedom,
    wilson,
    wilson_clustered,
)


@pytest.fixture
def small():
    return clustered_small()


def sums(table, numerator, denominator):
    """Patients' counts of two masks."""
    return tuple(
        mask.groupby(table["patient"]).sum().to_numpy(float)
        for mask in (numerator & denominator, denominator)
    )


@pytest.mark.parametrize(
    ("x", "n", "exact", "score"),
    [
        (0, 20, (0, 0.1684334710), (0, 0.1611251581)),
        (20, 20, (0.8315665290, 1), (0.8388748419, 1)),
        (47, 50, (0.8345180534, 0.9874514122), (0.8378290831, 0.9793850297)),
        (402, 884, (0.4215582182, 0.4882465585), (0.4221923023, 0.4877015203)),
        (670, 744, (0.87674617680, 0.9210922996), (0.87693191250, 0.9200284498)),
        (640, 842, (0.72977646320, 0.7885803246), (0.73011176253, 0.7877157753)),
    ],
)
def test_independent_proportions(x, n, exact, score):
    interval = clopper_pearson(x, n, 0.95)
    assert (interval.low, interval.high) == pytest.approx(exact, abs=1e-9)
    interval = wilson(x, n, 0.95)
    assert (interval.low, interval.high) == pytest.approx(score, abs=1e-9)


def test_ratio_standard_errors_as_survey_gives_them(small):
    y, d = small["y"] == 1, small["s1"] >= 0.5
    expected = {
        "sensitivity": (d, y, 0.163299316186),
        "specificity": (~d, ~y, 0.096036921430),
        "ppv": (y, d, 0.130945700220),
        "npv": (~y, ~d, 0.138581964541),
        "accuracy": (y == d, y | ~y, 0.084490926985),
    }
    for name, (numerator, denominator, error) in expected.items():
        variance = ratio_variance(*sums(small, numerator, denominator))
        assert np.sqrt(variance) == pytest.approx(error, abs=1e-11), name


def test_logit_interval_as_survey_gives_it(small):
    interval = logit_t(*sums(small, small["s1"] >= 0.5, small["y"] == 1), 0.95)
    assert (interval.low, interval.high) == pytest.approx((0.224907226640, 0.982187529600), abs=1e-10)
    assert logit_t(np.array([2.0, 2]), np.array([2.0, 2]), 0.95) is None
    assert logit_t(np.array([1.0, 1]), np.array([2.0, 2]), 0.95) is None
    assert logit_t(np.array([1.0, 0]), np.array([2.0, 0]), 0.95) is None


def one_row_each(tp, fp, fn, tn):
    """The four counts as patients of one row."""
    return np.repeat(np.eye(4), [tp, fp, fn, tn], axis=0)


@pytest.mark.parametrize(
    ("metric", "low", "high"),
    [
        ("lr_positive", 3.32068843551, 4.2432346488),
        ("lr_negative", 0.10506432351, 0.1629770809),
        ("dor", 21.51819165664, 38.2417364087),
    ],
)
def test_ratios_of_one_row_a_patient_as_epir_gives_them(metric, low, high):
    interval = log_robust(metric, one_row_each(670, 202, 74, 640), 0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)


def width(interval):
    return np.log(interval.high / interval.low)


@pytest.mark.parametrize("metric", ["lr_positive", "lr_negative", "dor"])
def test_ratios_of_clusters(metric):
    """Repeated rows add nothing; what a patient gains on one side it may lose on the other."""
    cells = one_row_each(20, 4, 5, 21)
    repeated = log_robust(metric, 3 * cells, 0.95)
    once = log_robust(metric, cells, 0.95)
    # Twice fifty patients make the t quantile and I/(I-1) nearly normal's and 1.
    assert width(once) < width(repeated) < 1.06 * width(once)
    # One row of each cell a patient: every resample has the same ratio.
    assert log_robust(metric, np.ones((10, 4)), 0.95) is None
    # A cell that is empty has no logarithm, and one patient no spread.
    assert log_robust(metric, one_row_each(20, 0, 0, 21) * 2, 0.95) is None
    assert log_robust(metric, np.array([[3.0, 1, 2, 4]]), 0.95) is None


def test_ratio_of_clusters_is_the_delta_method():
    """The same variance by leaving patients out: the infinitesimal jackknife, differentiated numerically."""
    cells = np.random.default_rng(0).integers(0, 6, (40, 4)).astype(float)

    def log_ratio(weights):
        tp, fp, fn, tn = weights @ cells
        return np.log(tp / (tp + fn)) - np.log(fp / (fp + tn))

    step = 1e-6
    pull = [
        (log_ratio(1 + step * unit) - log_ratio(1 - step * unit)) / (2 * step) for unit in np.eye(len(cells))
    ]
    error = np.sqrt(40 / 39 * np.sum(np.square(pull)))
    interval = log_robust("lr_positive", cells, 0.95)
    assert np.sqrt(interval.low * interval.high) == pytest.approx(np.exp(log_ratio(np.ones(40))))
    # Welch's degrees of freedom lie between those of the smaller side and of both.
    assert t.ppf(0.975, 78) * error < width(interval) / 2 < t.ppf(0.975, 39) * error * (1 + 1e-9)


def test_welch_degrees_of_freedom():
    # Equal variances from equally many give both sides' degrees of freedom; one without variance gives the other's.
    assert welch_freedom((2.0, 11), (2.0, 11)) == pytest.approx(20)
    assert welch_freedom((2.0, 8), (0.0, 30)) == pytest.approx(7)
    assert welch_freedom((2.0, 1), (1.0, 30)) is None


def test_degrees_of_freedom_are_patients_with_a_denominator(small):
    """The published logit-t interval of the same variance fixes the t quantile that Wilson uses as well."""
    x, m = sums(small, small["s1"] >= 0.5, small["y"] == 1)
    share, quantile = x.sum() / m.sum(), t.ppf(0.975, (m > 0).sum() - 1)
    half = quantile * np.sqrt(ratio_variance(x, m)) / (share * (1 - share))
    assert expit(logit(share) - half) == pytest.approx(0.224907226640, abs=1e-10)
    n_eff = share * (1 - share) / ratio_variance(x, m)
    interval = wilson_clustered(x, m, 0.95)
    # Wilson's limits are where the score test with this quantile is at its critical value.
    for limit in (interval.low, interval.high):
        assert abs(share - limit) / np.sqrt(limit * (1 - limit) / n_eff) == pytest.approx(quantile)


def test_clusters_of_alike_rows_count_once():
    """Rows repeated five times carry no more than one row each."""
    x, m = np.array([1.0, 1, 1, 0, 1, 1, 0, 1]), np.ones(8)
    one, five = wilson_clustered(x, m, 0.95), wilson_clustered(5 * x, 5 * m, 0.95)
    assert (five.low, five.high) == pytest.approx((one.low, one.high))
    # 100 %: n_eff = (Σm)²/Σm², a number of patients when all have as many rows.
    all_right = wilson_clustered(5 * m, 5 * m, 0.95)
    assert all_right.high == 1
    assert all_right.low == pytest.approx(8 / (8 + t.ppf(0.975, 7) ** 2))


def test_negative_correlation_does_not_narrow():
    x, m = np.ones(10), np.full(10, 2.0)
    interval = wilson_clustered(x, m, 0.95)
    quantile = t.ppf(0.975, 9)
    assert abs(0.5 - interval.low) / np.sqrt(interval.low * (1 - interval.low) / 20) == pytest.approx(
        quantile
    )


def test_no_clustered_interval_from_one_patient():
    assert wilson_clustered(np.array([3.0, 0.0]), np.array([4.0, 0.0]), 0.95) is None


def test_auc_at_its_limits_has_no_interval():
    assert auc_logit(1.0, 0.0, 0.95) is None
    assert auc_delong(1.0, 0.0, 0.95) is None
    assert auc_delong(0.95, 0.01, 0.95).high == 1
