"""Resampling of patients, and BCa against scipy's on the same replicates."""

import numpy as np
import pytest
from scipy import stats

from marrowflow.statistics import bootstrap as module
from marrowflow.statistics.bootstrap import bootstrap_intervals, draw_weights


def drawn(*args):
    return np.concatenate(list(draw_weights(*args)))


def test_weights_are_whole_resamples_and_unbiased():
    weights = drawn(7, 4000, 3)
    assert (weights.sum(axis=1) == 7).all()
    # A count is binomial (7, 1/7): mean 1, variance 6/7; the mean of 4000 has an error of .015.
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)
    assert weights.var() == pytest.approx(6 / 7, rel=0.03)


def test_weights_depend_on_the_seed_and_not_on_the_portions(monkeypatch):
    whole = drawn(10, 101, 5)
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", 70)
    assert (drawn(10, 101, 5) == whole).all()
    assert (drawn(10, 101, 6) != whole).any()


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bca_as_scipy(confidence):
    x = np.random.default_rng(1).exponential(size=35)
    theirs = stats.bootstrap(
        (x,), np.mean, n_resamples=1999, method="BCa", confidence_level=confidence, rng=2
    )
    left_out = (x.sum() - x) / (len(x) - 1)
    ours = bootstrap_intervals(
        x.mean(), theirs.bootstrap_distribution, left_out.mean() - left_out, confidence
    )
    bca = next(i for i in ours.intervals if i.method == "bootstrap_bca")
    assert (bca.low, bca.high) == pytest.approx(theirs.confidence_interval, abs=1e-12)


def test_follows_a_monotone_transformation():
    rng = np.random.default_rng(0)
    replicates, pull = rng.normal(size=1001), rng.normal(size=20)
    plain = bootstrap_intervals(0.1, replicates, pull, 0.95)
    log = bootstrap_intervals(np.exp(0.1), np.exp(replicates), pull, 0.95)
    for a, b in zip(plain.intervals, log.intervals, strict=True):
        # The limits lie between two replicates, whose middle a curve does not keep exactly.
        assert np.exp([a.low, a.high]) == pytest.approx([b.low, b.high], rel=2e-3)


def test_undefined_replicates_are_dropped_and_counted():
    replicates = np.linspace(0, 1, 100)
    replicates[::20] = np.nan
    kept = bootstrap_intervals(0.5, replicates, np.array([1.0, -1.0]), 0.9)
    assert kept.undefined == 5
    percentile = next(i for i in kept.intervals if i.method == "bootstrap_percentile")
    assert percentile.low == pytest.approx(np.quantile(replicates[~np.isnan(replicates)], 0.05))
    replicates[1] = np.nan
    too_many = bootstrap_intervals(0.5, replicates, np.array([1.0, -1.0]), 0.9)
    assert too_many.intervals == []
    assert "6 of 100" in too_many.problem


def test_no_zero_width_interval():
    assert bootstrap_intervals(1.0, np.ones(100), np.zeros(5), 0.95).intervals == []


@pytest.mark.parametrize(("centre", "step"), [(0.0, 2e-17), (0.15333, 3e-17), (5.0 / 7, 1e-16), (1e6, 1e-9)])
def test_rounding_is_no_width(centre, step):
    """Replicates that are equal in exact arithmetic, with pulls that are rounding too."""
    rng = np.random.default_rng(3)
    replicates, pull = centre + step * rng.integers(-5, 6, 200), step * rng.normal(size=40)
    found = bootstrap_intervals(centre, replicates, pull, 0.95)
    assert found.intervals == []
    assert "no width" in found.problem


def test_small_numbers_have_their_intervals():
    """A Brier score of 1e-8 is one: only what is beyond the precision of 1 is rounding."""
    rng = np.random.default_rng(4)
    replicates, pull = rng.exponential(size=500), rng.normal(size=40)
    plain = bootstrap_intervals(0.7, replicates, pull, 0.95).intervals
    small = bootstrap_intervals(0.7e-8, 1e-8 * replicates, 1e-8 * pull, 0.95).intervals
    assert [i.method for i in small] == ["bootstrap_bca", "bootstrap_percentile"]
    for a, b in zip(plain, small, strict=True):
        assert (1e8 * b.low, 1e8 * b.high) == pytest.approx((a.low, a.high), rel=1e-6)


@pytest.mark.filterwarnings("error")
def test_pulls_of_single_precision_do_not_vanish():
    """Their cubes are less than the least number of single precision."""
    rng = np.random.default_rng(5)
    replicates, pull = 1e-6 * rng.normal(size=500), rng.exponential(size=30) - 1
    tiny = (1e-16 * pull).astype(np.float32)
    assert (tiny**3 == 0).all()
    plain, found = (bootstrap_intervals(0.0, replicates, p, 0.95).intervals for p in (pull, tiny))
    assert [i.method for i in found] == ["bootstrap_bca", "bootstrap_percentile"]
    assert (found[0].low, found[0].high) == pytest.approx((plain[0].low, plain[0].high), rel=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [0.0, 1e-17, np.nan])
def test_pulls_that_are_rounding_tell_no_acceleration(scale):
    replicates = np.random.default_rng(6).normal(0.5, 0.1, 500)
    pull = scale * np.array([1.0, -2.0, 1.0, 8.0])
    found = bootstrap_intervals(0.5, replicates, pull, 0.95)
    assert [i.method for i in found.intervals] == ["bootstrap_percentile"]
    assert "BCa" in found.problem


def test_limits_that_are_equal_are_no_interval():
    # 97.2 % of the replicates are the estimate. BCa, whose bias correction is Φ⁻¹(.486) = -.035, reads the shares .021 and .971.
    replicates = np.append(np.zeros(972), np.linspace(1, 2, 28))
    found = bootstrap_intervals(0.0, replicates, np.array([1.0, -1.0]), 0.95)
    assert [i.method for i in found.intervals] == ["bootstrap_percentile"]
    assert found.intervals[0].high > 1
    found = bootstrap_intervals(0.0, np.append(np.zeros(980), np.ones(20)), np.array([1.0, -1.0]), 0.95)
    assert found.intervals == []
    assert "no width" in found.problem


def test_percentile_where_bca_is_undefined():
    ours = bootstrap_intervals(2.0, np.linspace(0, 1, 100), np.array([1.0, -1.0]), 0.95)
    assert [i.method for i in ours.intervals] == ["bootstrap_percentile"]
    assert "BCa" in ours.problem


def test_infinite_replicates_rank_above_all_others():
    replicates = np.arange(1.0, 101.0)
    pull = np.array([1.0, -2.0, 0.5])
    whole = bootstrap_intervals(40.0, replicates, pull, 0.9)
    beyond = bootstrap_intervals(40.0, np.where(replicates > 99, np.inf, replicates), pull, 0.9)
    # Limits depend on ranks below the infinite ones only.
    assert beyond == whole
    assert beyond.undefined == 0
    assert len(beyond.intervals) == 2


def test_an_infinite_limit_is_no_interval():
    replicates = np.arange(1.0, 101.0)
    replicates[-6:] = np.inf
    found = bootstrap_intervals(50.5, replicates, np.array([1.0, -1.0]), 0.9)
    assert found.intervals == []
    assert found.problem == "the upper limit is infinite"
    assert found.undefined == 0
    # BCa reads lower quantiles of an estimate that lies below the median; only the percentile limit is lost.
    below = bootstrap_intervals(40.0, replicates, np.array([1.0, -1.0]), 0.9)
    assert [i.method for i in below.intervals] == ["bootstrap_bca"]
    assert below.problem == ""
