"""Functions of proportions against published methods, statsmodels, and counts by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import t
from statsmodels.stats.proportion import confint_proportions_2indep

from marrowflow.statistics.intervals import log_robust, wilson_clustered
from marrowflow.statistics.movers import (
    Parts,
    difference_interval,
    mean_interval,
    mover_ratio,
    ratio_interval,
    wilson_parts,
)


def parts_of(first, second, correlation=0.0):
    """Two parts given by estimate and limits."""
    return Parts(*np.array([first, second]).T, np.array([[1, correlation], [correlation, 1]]))


def of_one_row(successes, n):
    """As many patients of one row each."""
    return (np.arange(n) < successes).astype(float), np.ones(n)


def test_difference_of_two_samples_as_newcombe_makes_it():
    """With many patients of one row, t is normal and deff 1: statsmodels' interval by the same method."""
    n = 200_000
    interval = difference_interval(of_one_row(199_900, n), of_one_row(198_000, n), False, 0.95)
    theirs = confint_proportions_2indep(199_900, n, 198_000, n, method="newcomb", compare="diff")
    assert (interval.low, interval.high) == pytest.approx(theirs, rel=1e-4)


def test_paired_difference_by_hand():
    """Newcombe's tenth method from its definition: 15 patients, one fails the first, four the second, one of them both."""
    first, m = of_one_row(14, 15)
    second = np.ones(15)
    second[[0, 1, 2, 14]] = 0
    quantile = t.ppf(0.975, 14)

    def limits(share):
        # One row a patient: the ratio estimator's variance is the binomial one times 15/14.
        n = 15 * 14 / 15
        return sorted(np.roots([1 + quantile**2 / n, -2 * share - quantile**2 / n, share**2]))

    (l1, u1), (l2, u2) = limits(14 / 15), limits(11 / 15)
    p, q, both_fail = 14 / 15, 11 / 15, 1 / 15
    phi = (both_fail - 1 / 15 * 4 / 15) / np.sqrt(p * (1 - p) * q * (1 - q))
    low = p - q - np.sqrt((p - l1) ** 2 - 2 * phi * (p - l1) * (u2 - q) + (u2 - q) ** 2)
    high = p - q + np.sqrt((u1 - p) ** 2 - 2 * phi * (u1 - p) * (q - l2) + (q - l2) ** 2)
    interval = difference_interval((first, m), (second, m), True, 0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.method == "mover_wilson_neff"


def test_a_difference_from_100_percent_reckons_with_errors_that_might_have_been():
    everyone, m = of_one_row(15, 15)
    fewer, _ = of_one_row(11, 15)
    interval = difference_interval((everyone, m), (fewer, m), True, 0.95)
    # Four discordant patients of fifteen, all on one side: McNemar's exact p is .125.
    assert interval.low < 0 < 4 / 15 < interval.high
    # No patient on whom the two differ, of fifteen: Wilson's upper limit of 0/15, with t.
    quantile = t.ppf(0.975, 14)
    same = difference_interval((fewer, m), (fewer, m), True, 0.95)
    assert (same.low, same.high) == pytest.approx(
        (-(quantile**2) / (15 + quantile**2), quantile**2 / (15 + quantile**2))
    )
    assert difference_interval((everyone[:1], m[:1]), (fewer, m), False, 0.95) is None


shares = st.floats(0.05, 0.9)


@given(shares, shares, st.floats(0.01, 0.5), st.floats(0.01, 0.5), st.floats(-0.5, 0.5))
@settings(deadline=None, max_examples=100)
def test_limits_of_a_ratio_are_where_those_of_a_difference_are_zero(x, y, share_x, share_y, correlation):
    """x - Ry has the limits of Zou and Donner 2008; the ratio's are the R at which they are 0, found by bisection."""
    x_low, x_high = x - share_x * x, x + share_y * (1 - x)
    y_low, y_high = y - share_y * y, y + min(share_x * (1 - y), 0.9 * y)

    def limit(r, sign):
        dx = x - x_low if sign < 0 else x_high - x
        dy = r * (y_high - y if sign < 0 else y - y_low)
        return x - r * y + sign * np.sqrt(dx**2 - 2 * correlation * dx * dy + dy**2)

    low, high = mover_ratio(parts_of((x, x_low, x_high), (y, y_low, y_high), correlation))
    assert low <= x / y <= high
    assert low == pytest.approx(brentq(limit, 0, x / y, args=(-1,)), rel=1e-6)
    assert high == pytest.approx(brentq(limit, x / y, 1e6, args=(1,)), rel=1e-6)


def test_a_denominator_that_may_be_nothing_bounds_no_ratio():
    limits = mover_ratio(parts_of((0.2, 0.1, 0.3), (0.0, 0.0, 0.2)))
    assert limits[1] == np.inf
    assert limits[0] == pytest.approx(np.sqrt(0.1 * 0.3) / 0.2)


def cells_of(tp, fp, fn, tn):
    """Patients of one row."""
    return np.repeat(np.eye(4), [tp, fp, fn, tn], axis=0)


@pytest.mark.parametrize("metric", ["lr_positive", "lr_negative", "dor"])
def test_ratios_of_many_rows_are_near_the_classical_ones(metric):
    interval = ratio_interval(metric, cells_of(670, 202, 74, 640), 0.95)
    classical = log_robust(metric, cells_of(670, 202, 74, 640), 0.95)
    assert np.log([interval.low, interval.high]) == pytest.approx(
        np.log([classical.low, classical.high]), abs=0.02
    )
    # The condition present and absent exchanged turns the odds ratio into itself, LR+ into 1/LR-.
    turned = {"lr_positive": "lr_negative", "lr_negative": "lr_positive", "dor": "dor"}[metric]
    mirrored = ratio_interval(turned, cells_of(640, 74, 202, 670), 0.95)
    expected = (interval.low, interval.high) if metric == "dor" else (1 / interval.high, 1 / interval.low)
    assert (mirrored.low, mirrored.high) == pytest.approx(expected)


def test_odds_ratio_of_independent_sides_by_hand():
    cells = cells_of(15, 3, 5, 17)
    sick, well = np.ones(20), np.ones(20)
    limits = []
    for called, rows in ((np.repeat([1.0, 0], [15, 5]), sick), (np.repeat([1.0, 0], [3, 17]), well)):
        # Forty patients count in I/(I-1), twenty have a denominator.
        x, m = np.concatenate([called, np.zeros(20)]), np.concatenate([rows, np.zeros(20)])
        interval = wilson_clustered(x, m, 0.95)
        limits.append(np.log([v / (1 - v) for v in (x.sum() / 20, interval.low, interval.high)]))
    (p, pl, pu), (q, ql, qu) = limits
    low, high = p - q - np.hypot(p - pl, qu - q), p - q + np.hypot(pu - p, q - ql)
    found = ratio_interval("dor", cells, 0.95)
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))


def test_an_empty_cell_leaves_a_ratio_one_limit():
    found = ratio_interval("lr_negative", cells_of(20, 5, 0, 15), 0.95)
    assert found.low == 0
    assert 0.1 < found.high < 0.5
    assert ratio_interval("lr_positive", cells_of(20, 0, 5, 15), 0.95) is None
    assert ratio_interval("dor", cells_of(20, 0, 5, 15), 0.95) is None


def test_mean_of_independent_proportions_adds_squares():
    first = (np.repeat([1.0, 0, 0], [9, 3, 10]), np.repeat([1.0, 0], [12, 10]))
    second = (np.repeat([0.0, 1, 0], [12, 6, 4]), np.repeat([0.0, 1], [12, 10]))
    one, two = (wilson_clustered(*part, 0.95) for part in (first, second))
    found = mean_interval([first, second], 0.95)
    middle = (9 / 12 + 6 / 10) / 2
    assert found.low == pytest.approx(middle - np.hypot(0.75 - one.low, 0.6 - two.low) / 2)
    assert found.high == pytest.approx(middle + np.hypot(one.high - 0.75, two.high - 0.6) / 2)
    # Fully correlated parts add up, and are their own mean.
    same = mean_interval([first, first], 0.95)
    assert (same.low, same.high) == pytest.approx((one.low, one.high))
    assert mean_interval([first, (first[0][:1], first[1][:1])], 0.95) is None


def test_correlation_of_parts_is_that_of_residuals():
    rng = np.random.default_rng(0)
    m = rng.integers(1, 6, 30).astype(float)
    a, b = rng.binomial(m.astype(int), 0.7).astype(float), rng.binomial(m.astype(int), 0.4).astype(float)
    found = wilson_parts([(a, m), (b, m)], 0.95).correlations
    residuals = a - a.sum() / m.sum() * m, b - b.sum() / m.sum() * m
    # Residuals sum to 0, so that their correlation is Pearson's.
    assert found[0, 1] == pytest.approx(np.corrcoef(*residuals)[0, 1])
    assert wilson_parts([(a, m), (b, m)], 0.95, paired=False).correlations[0, 1] == 0
    assert wilson_parts([(m, m), (b, m)], 0.95).correlations[0, 1] == 0
