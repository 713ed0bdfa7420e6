"""Agreement of two measurements, against published tables and algebra."""

import numpy as np
import pytest
from scipy.stats import t

from marrowflow.statistics.method_comparison import intraclass_correlation, limits_of_agreement

# Shrout and Fleiss 1979, table 2: six targets rated by four judges; ICC(2,1) = .29 (table 4).
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)
# Bland and Altman 1986, Lancet 1:307, table: peak expiratory flow (l/min), first readings of the Wright and of the mini meter.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_shrout_and_fleiss():
    """The estimate is printed there; the interval is McGraw and Wong's, as R's irr and psych print it: .02 to .76."""
    estimate, low, high = intraclass_correlation(SHROUT_FLEISS)
    assert round(estimate, 2) == 0.29
    assert (round(low, 2), round(high, 2)) == (0.02, 0.76)


def test_bland_and_altman():
    """Printed: mean difference −2.1 l/min, SD 38.8; standard error of the mean 9.4, of the limits 16.3 (by 3 s²/n)."""
    found = limits_of_agreement(WRIGHT, MINI)
    assert found.n == 17
    assert round(found.bias[0], 1) == -2.1
    sd = (found.upper[0] - found.lower[0]) / (2 * 1.959964)
    assert round(sd, 1) == 38.8
    quantile = t.ppf(0.975, 16)
    assert round((found.bias[2] - found.bias[1]) / 2 / quantile, 1) == 9.4
    # Their 3 s²/n stands for (1 + 1.96²/2) s²/n, with n for n - 1.
    assert (found.upper[2] - found.upper[1]) / 2 / quantile == pytest.approx(16.3, abs=0.4)
    # Rounded there to −80 and 76, from 2 SD; ours are 1.96.
    assert found.lower[0] == pytest.approx(-79.7 + 0.04 * 38.8, abs=0.2)


def test_a_rater_who_adds_a_constant_disagrees():
    """Of absolute agreement: bias counts. Both rank alike, and ICC is var / (var + bias²/2) in the limit of many patients."""
    values = np.random.default_rng(0).normal(0, 1, 20000)
    estimate, low, high = intraclass_correlation(np.column_stack([values, values + 1]))
    assert estimate == pytest.approx(1 / (1 + 0.5), abs=0.01)
    assert low < estimate < high or np.isnan(low)


def test_rounding_is_no_difference():
    """Seven patients that both rate .1; a constant between two raters, which rounding makes vary."""
    assert np.isnan(intraclass_correlation(np.full((7, 2), 0.1))).all()
    first = np.array([0.1, 0.2, 0.3, 0.7, 1.1])
    assert np.isnan(limits_of_agreement(first, first + 0.1).trend)


def test_raters_who_agree_or_oppose_each_other_altogether():
    values = np.array([1.0, 2, 3, 5])
    estimate, low, high = intraclass_correlation(np.column_stack([values, values]))
    assert estimate == 1
    assert np.isnan([low, high]).all()
    assert np.isnan(intraclass_correlation(np.array([[1.0, 2], [2, 1]]))).all()
    estimate, *limits = intraclass_correlation(np.column_stack([values, -values]))
    assert estimate < 0.3
    assert np.isnan(limits).all() or limits[0] <= estimate <= limits[1]


def test_pairs_that_one_did_not_measure_are_left_out():
    found = limits_of_agreement([1, 2, np.nan, 4], [1, 1, 3, np.nan])
    assert found.n == 2
    assert found.bias[0] == 0.5
    with pytest.raises(ValueError, match="two patients"):
        limits_of_agreement([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="no missing rating"):
        intraclass_correlation(np.array([[1, np.nan], [1, 2]]))
