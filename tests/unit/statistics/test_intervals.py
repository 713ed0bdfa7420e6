"""Closed-form intervals against published values and algebra."""

import numpy as np
import pytest
from oracles import clustered_small
from scipy.special import expit, logit
from scipy.stats import f_oneway, norm, t
from sklearn.datasets import load_breast_cancer

from marrowflow.statistics.intervals import (
    auc_delong,
    auc_jackknife,
    auc_logit,
    auc_separated,
    clopper_pearson,
    intraclass_correlation,
    log_robust,
    logit_t,
    ratio_variance,
    welch_freedom,
    wilson,
    wilson_clustered,
)
from marrowflow.statistics.ranking import rank


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


def test_correlation_of_rows_is_that_of_the_analysis_of_variance():
    """F of the rows grouped by patient: ρ = (F - 1) / (F + m₀ - 1), with m₀ counted by hand."""
    rows = [[1, 1, 0], [1, 1, 1, 1, 1], [0, 0], [1, 0, 1, 1]]
    x, m = (np.array([f(r) for r in rows], dtype=float) for f in (sum, len))
    f = f_oneway(*rows).statistic
    typical = (14 - (9 + 25 + 4 + 16) / 14) / 3
    expected = (f - 1) / (f + typical - 1)
    assert intraclass_correlation(x, m) == pytest.approx(expected)
    # Patients without a row say nothing.
    assert intraclass_correlation(np.append(x, 0), np.append(m, 0)) == pytest.approx(expected)
    assert intraclass_correlation(np.array([2.0, 0]), np.array([2.0, 2])) == 1
    # The least there can be, where every patient of four rows has two of either: -1/(4 - 1).
    assert intraclass_correlation(np.full(10, 2.0), np.full(10, 4.0)) == pytest.approx(-1 / 3)
    for alone, equal in (((1, 0, 1), (1, 1, 1)), ((2, 3), (2, 3)), ((1, 0), (3, 0))):
        assert np.isnan(intraclass_correlation(np.array(alone, float), np.array(equal, float)))


def test_correlation_counts_where_the_ratio_estimator_misses_it():
    """Large patients that happen to have the mean share hide the correlation from the residuals of the sums."""
    x, m = np.array([10.0, 10, 3, 0, 3, 0]), np.array([20.0, 20, 3, 3, 3, 3])
    assert x.sum() / m.sum() == 0.5
    ratio = ratio_variance(x, m) / (0.25 / m.sum())
    model = 1 + ((m**2).sum() / m.sum() - 1) * intraclass_correlation(x, m)
    assert ratio < 1 < model
    interval, quantile = wilson_clustered(x, m, 0.95), t.ppf(0.975, 5)
    error = np.sqrt(interval.low * (1 - interval.low) / (m.sum() / model))
    assert abs(0.5 - interval.low) / error == pytest.approx(quantile)


def test_jackknife_of_a_mean_is_its_standard_error():
    """Leaving out one of n numbers gives s²/n, so the limits are those of Student's t on the logit scale."""
    values = np.array([0.9, 1.0, 0.7, 0.8, 0.95, 0.6])
    left_out = (values.sum() - values) / 5
    half = t.ppf(0.95, 3) * values.std(ddof=1) / np.sqrt(6) / (values.mean() * (1 - values.mean()))
    interval = auc_jackknife(values.mean(), left_out, 4, 0.9)
    assert interval.low == pytest.approx(expit(logit(values.mean()) - half))
    assert interval.high == pytest.approx(expit(logit(values.mean()) + half))


def test_jackknife_is_a_little_wider_than_delong():
    """One row a patient: each part of pROC's variance grows by m/(m - 1), less 1/P of the whole."""
    data = load_breast_cancer()
    malignant, radius = data.target == 0, data.data[:, 0]
    ranking = rank(radius, malignant, np.arange(569), 569, 0)
    interval = auc_jackknife(0.937516516040, ranking.auc_without_each(), 212, 0.95)
    half = (logit(interval.high) - logit(interval.low)) / 2
    error = half / t.ppf(0.975, 211) * 0.937516516040 * (1 - 0.937516516040)
    published = (0.958012361227 - 0.917020670853) / 2 / norm.ppf(0.975)
    assert 357 / 356 < error**2 / published**2 * 569 / 568 < 212 / 211


def test_no_jackknife_where_the_auc_stands_still_or_is_undefined():
    assert auc_jackknife(1.0, np.ones(4), 2, 0.95) is None
    assert auc_jackknife(0.9, np.full(4, 0.9), 2, 0.95) is None
    assert auc_jackknife(0.9, np.array([0.9, np.nan, 0.8]), 1, 0.95) is None


def hanley_mcneil(theta, n):
    """Variance of Hanley and McNeil 1982 with n of each kind."""
    q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
    return (theta * (1 - theta) + (n - 1) * (q1 - theta**2) + (n - 1) * (q2 - theta**2)) / n**2


@pytest.mark.parametrize("n", [2, 8, 50])
def test_separated_classes_get_a_score_interval(n):
    interval = auc_separated(1.0, np.ones(n), np.ones(n), 0.95)
    assert interval.high == 1
    assert 1 - interval.low == pytest.approx(norm.ppf(0.975) * np.sqrt(hanley_mcneil(interval.low, n)))
    mirrored = auc_separated(0.0, np.ones(n), np.ones(n), 0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((0, 1 - interval.low))
    # Patients of five images that are all alike count once, and so do patients of the other class.
    repeated = auc_separated(1.0, np.append(5 * np.ones(n), 0), np.ones(n), 0.95)
    assert repeated.low == pytest.approx(interval.low)


def test_separated_unequal_classes():
    """m = 1, n = 3 by hand: k = 1, and 3 (1 - θ) = z² θ {1 + (1 - θ)/(2 - θ) + θ/(1 + θ)}."""
    low = auc_separated(1.0, np.array([4.0]), np.array([1.0, 1, 1]), 0.95).low
    bracket = 1 + (1 - low) / (2 - low) + low / (1 + low)
    assert 3 * (1 - low) == pytest.approx(norm.ppf(0.975) ** 2 * low * bracket)
    assert auc_separated(0.99, np.ones(3), np.ones(3), 0.95) is None


def test_obuchowski_on_the_logit_scale():
    """s1 of the small clustered table: .88125 with the published variance."""
    interval = auc_logit(0.88125, 0.007450405714, 0.95)
    half = 1.959963984540 * 0.0863157326 / (0.88125 * 0.11875)
    assert logit(interval.low) == pytest.approx(np.log(0.88125 / 0.11875) - half, abs=1e-8)
    assert logit(interval.high) == pytest.approx(np.log(0.88125 / 0.11875) + half, abs=1e-8)


def test_auc_at_its_limits_has_no_interval_from_a_variance():
    assert auc_logit(1.0, 0.0, 0.95) is None
    assert auc_delong(1.0, 0.0, 0.95) is None
    assert auc_delong(0.95, 0.01, 0.95).high == 1
