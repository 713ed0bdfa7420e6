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
