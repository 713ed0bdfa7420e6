"""Standardised differences against algebra by hand, the published formulas, and invariances."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.statistics.standardised import standardised_difference, standardised_difference_of_shares

COUNTS = st.integers(2, 6).flatmap(
    lambda k: st.tuples(*[st.lists(st.integers(1, 60), min_size=k, max_size=k) for _ in range(2)])
)


def test_of_means_by_hand():
    """Means 3 and 7, variances 1 and 7: d = −4 / √4."""
    a, b = [2, 3, 4], [7 - math.sqrt(7), 7, 7 + math.sqrt(7)]
    assert standardised_difference(a, b) == pytest.approx(-2, abs=1e-12)
    assert standardised_difference(b, a) == pytest.approx(2, abs=1e-12)


def test_missing_values_are_left_out():
    assert standardised_difference([2, 3, np.nan, 4], [5, 6, 7]) == standardised_difference(
        [2, 3, 4], [5, 6, 7]
    )


def test_means_without_spread():
    assert standardised_difference([0.1] * 3, [0.1] * 4) == 0
    assert standardised_difference([0.2] * 3, [0.1] * 4) == math.inf
    assert standardised_difference([0.1] * 3, [0.2] * 4) == -math.inf
    assert math.isnan(standardised_difference([1], [1, 2]))
    assert math.isnan(standardised_difference([], [1, 2]))


def test_of_two_shares_by_hand():
    """.5 and .2: .3 / √((.25 + .16) / 2)."""
    expected = 0.3 / math.sqrt(0.205)
    assert standardised_difference_of_shares([5, 5], [2, 8]) == pytest.approx(expected, abs=1e-12)
    assert standardised_difference_of_shares([20, 80], [50, 50]) == pytest.approx(expected, abs=1e-12)


def test_of_three_shares_by_hand():
    """Shares .5 .3 .2 and .3 .3 .4: S of the first two is .23 −.12 / −.12 .21, so d² = .2² · .21 / (.23 · .21 − .12²)."""
    expected = math.sqrt(0.04 * 0.21 / 0.0339)
    assert standardised_difference_of_shares([5, 3, 2], [3, 3, 4]) == pytest.approx(expected, abs=1e-12)


@given(COUNTS, st.integers(0, 5))
@settings(deadline=None, max_examples=80)
def test_of_shares_equals_the_published_form(counts, left_out):
    """With any one category left out, S inverted: what Yang and Dalton print."""
    a, b = (np.asarray(x, dtype=float) for x in counts)
    p, q = a / a.sum(), b / b.sum()
    kept = np.arange(len(p)) != left_out % len(p)
    s = sum(np.diag(x[kept]) - np.outer(x[kept], x[kept]) for x in (p, q)) / 2
    difference = (p - q)[kept]
    expected = math.sqrt(difference @ np.linalg.inv(s) @ difference)
    assert standardised_difference_of_shares(a, b) == pytest.approx(expected, rel=1e-8, abs=1e-7)


def test_a_category_that_nobody_is_in_changes_nothing():
    assert standardised_difference_of_shares([5, 0, 3, 2], [3, 0, 3, 4]) == pytest.approx(
        standardised_difference_of_shares([5, 3, 2], [3, 3, 4]), abs=1e-12
    )


def test_shares_without_variance():
    assert standardised_difference_of_shares([4, 0], [7, 0]) == 0
    assert standardised_difference_of_shares([4, 0], [0, 7]) == math.inf
    assert standardised_difference_of_shares([4, 4, 0], [0, 0, 7]) == math.inf
    assert math.isnan(standardised_difference_of_shares([0, 0], [0, 7]))


def test_counts_that_do_not_fit():
    with pytest.raises(ValueError, match="same categories"):
        standardised_difference_of_shares([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="not negative"):
        standardised_difference_of_shares([1, -2], [1, 2])
