"""Calibration against statsmodels, against scikit-learn's Brier score and against what holds by construction."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from marrowflow.statistics.calibration import (
    BIASED,
    BINNED,
    CLIPPED_AT,
    METRICS,
    REGRESSIONS,
    measure_calibration,
    out_of_fold_recalibrated,
)
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.curves import calibration_bins
from marrowflow.statistics.evaluation import Question


def measured(p, y, patient, **more):
    n, patients = len(p), patient.max() + 1
    sample = Sample("case", ["no", "yes"], patient, y.astype(int), y.astype(int), None, patients, n)
    return measure_calibration(sample, [Question("", y, p)], **more)[0]


def number(values, metric):
    return values[metric, "", None]


def simulated(seed, n=600, patients=30, spread=1.5, levels=None):
    """Overconfident probabilities of rows that cluster in patients; few distinct ones with ``levels``."""
    rng = np.random.default_rng(seed)
    patient = np.append(np.arange(patients), rng.integers(0, patients, n - patients))
    eta = spread * (rng.normal(size=patients)[patient] + rng.normal(size=n)) - 1
    y = rng.random(n) < expit(eta)
    p = expit(1.5 * eta + 0.4)
    return (p if levels is None else (np.floor(p * levels) + 0.5) / levels), y, patient


def by_statsmodels(p, y, weights):
    """Calibration intercept and slope of weighted rows."""
    x, kept = logit(p), weights > 0
    both = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial(), freq_weights=weights)
    large = sm.GLM(
        y[kept],
        np.ones(kept.sum()),
        family=sm.families.Binomial(),
        freq_weights=weights[kept],
        offset=x[kept],
    )
    return large.fit(tol=1e-12).params[0], both.fit(tol=1e-12).params[1]


@pytest.mark.parametrize("levels", [None, 20])
def test_regressions_are_those_of_statsmodels(levels):
    p, y, patient = simulated(0, levels=levels)
    found = measured(p, y, patient).estimates()
    expected = by_statsmodels(p, y.astype(float), np.ones(len(p)))
    assert [number(found, m) for m in REGRESSIONS] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("levels", "error"), [(20, 1e-8), (None, 0.01)])
def test_replicates_are_fitted_as_if_to_their_rows(levels, error):
    """Exactly with few distinct scores; else to a hundredth of the replicates' standard deviation."""
    p, y, patient = simulated(1, 2000, levels=levels)
    weights = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=40)
    values = measured(p, y, patient).values(weights)
    expected = np.array([by_statsmodels(p, y.astype(float), w[patient].astype(float)) for w in weights])
    for metric, theirs in zip(REGRESSIONS, expected.T, strict=True):
        assert number(values, metric) == pytest.approx(theirs, abs=error * theirs.std())


def test_a_resample_of_everyone_is_the_sample():
    found = measured(*simulated(2))
    values = found.values(np.ones((1, 30), dtype=int))
    for metric in METRICS:
        assert number(values, metric)[0] == pytest.approx(number(found.estimates(), metric), abs=1e-12)


@given(st.integers(0, 2**32), st.sampled_from([7, 40, 600]), st.sampled_from([None, 3, 12]))
@settings(deadline=None, max_examples=40)
def test_the_parts_add_up_to_the_brier_score(seed, n, levels):
    p, y, patient = simulated(seed, n, 7, levels=levels)
    found = measured(p, y, patient)
    weights = np.random.default_rng(seed).multinomial(7, np.full(7, 1 / 7), size=5)
    parts = {m: number(found.values(weights), m) for m in BINNED}
    total = parts["brier_reliability"] - parts["brier_resolution"]
    total += parts["brier_uncertainty"] + parts["brier_within_bin"]
    for i, w in enumerate(weights):
        rows = np.repeat(np.arange(n), w[patient])
        assert total[i] == pytest.approx(np.mean((p[rows] - y[rows]) ** 2), abs=1e-12)
    assert number(found.estimates(), "brier_reliability") >= 0
    if y.any() and not y.all():
        whole = sum(
            sign * number(found.estimates(), f"brier_{part}")
            for part, sign in (("reliability", 1), ("resolution", -1), ("uncertainty", 1), ("within_bin", 1))
        )
        assert whole == pytest.approx(brier_score_loss(y, p), abs=1e-12)


def test_binned_metrics_are_those_of_the_curve():
    p, y, patient = simulated(3)
    found = measured(p, y, patient).estimates()
    bins = calibration_bins(p, y, patient, 30, 0.95)
    share, gap = bins["n"] / 600, bins["mean_predicted"] - bins["observed"]
    assert number(found, "ece") == pytest.approx((share * gap.abs()).sum())
    assert number(found, "brier_reliability") == pytest.approx((share * gap**2).sum())
    assert number(found, "brier_resolution") == pytest.approx(
        (share * (bins["observed"] - y.mean()) ** 2).sum()
    )
    assert number(found, "observed_expected") == pytest.approx(y.sum() / p.sum())


def test_perfect_by_construction():
    """Of ten rows at each k/10, k are positive: every measure of error is 0, and nothing is left within bins."""
    tenths = np.repeat(np.arange(1, 10), 10)
    y = np.tile(np.arange(10), 9) < tenths
    found = measured(tenths / 10, y, np.arange(90)).estimates()
    expected = {"calibration_slope": 1, "observed_expected": 1, "brier_uncertainty": 0.25}
    # Shares .1 to .9 about .5: (2/9)(.16 + .09 + .04 + .01).
    expected["brier_resolution"] = 2 / 9 * 0.3
    for metric in METRICS:
        assert number(found, metric) == pytest.approx(expected.get(metric, 0), abs=1e-12)


@pytest.mark.parametrize(("factor", "shift"), [(2.0, 0.0), (0.25, 0.0), (1.0, 0.7)])
def test_a_line_on_the_logit_scale_is_found_again(factor, shift):
    p, y, patient = simulated(4, spread=0.7)
    plain = measured(p, y, patient).estimates()
    bent = measured(expit(factor * logit(p) + shift), y, patient).estimates()
    slope = number(plain, "calibration_slope")
    assert number(bent, "calibration_slope") == pytest.approx(slope / factor, abs=1e-8)
    if factor == 1:
        large = number(plain, "calibration_intercept")
        assert number(bent, "calibration_intercept") == pytest.approx(large - shift, abs=1e-8)


def test_without_overlap_there_is_no_slope():
    p = np.array([0.1, 0.2, 0.3, 0.3, 0.8, 0.9])
    y = np.array([False, False, False, True, True, True])
    found = measured(p, y, np.arange(6)).estimates()
    assert np.isnan(number(found, "calibration_slope"))
    assert np.isfinite(number(found, "calibration_intercept"))
    # Patient 6 is a negative above a positive; a resample without it has no slope, one of negatives alone no intercept.
    found = measured(np.append(p, 0.5), np.append(y, False), np.arange(7))
    weights = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 2, 0], [3, 3, 1, 0, 0, 0, 0]])
    values = found.values(weights)
    assert np.isnan(number(values, "calibration_slope")).tolist() == [False, True, True]
    assert np.isnan(number(values, "calibration_intercept")).tolist() == [False, False, True]
    assert number(values, "observed_expected")[2] == 0


def test_certainty_is_clipped_for_logits_alone_and_counted():
    p, y, patient = simulated(5)
    p[:3], y[:3] = [0, 1, 1], [True, True, False]
    found = measured(p, y, patient)
    assert found.clipped == 3
    clipped = np.clip(p, CLIPPED_AT, 1 - CLIPPED_AT)
    expected = by_statsmodels(clipped, y.astype(float), np.ones(len(p)))
    assert [number(found.estimates(), m) for m in REGRESSIONS] == pytest.approx(expected, abs=1e-8)
    assert number(found.estimates(), "observed_expected") == pytest.approx(y.sum() / p.sum())


@pytest.mark.parametrize("metric", REGRESSIONS)
def test_influence_is_the_derivative_by_a_patients_weight(metric):
    p, y, patient = simulated(6, 200, 6)
    pull = number(measured(p, y, patient).influence(), metric)
    assert pull.sum() == pytest.approx(0, abs=1e-9)
    for q in range(6):
        up, down = (
            by_statsmodels(p, y.astype(float), 1 + sign * 1e-4 * (patient == q))[REGRESSIONS.index(metric)]
            for sign in (1, -1)
        )
        assert pull[q] == pytest.approx((up - down) / 2e-4, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("metric", BINNED)
def test_other_influence_leaves_one_out(metric):
    found = measured(*simulated(7))
    left_out = number(found.values(1 - np.eye(30, dtype=int)), metric)
    assert number(found.influence(), metric) == pytest.approx(left_out.mean() - left_out, abs=1e-12)


@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=15)
def test_order_is_nothing_and_drawn_twice_is_there_twice(seed, random):
    p, y, patient = simulated(seed, 120, 8)
    found = measured(p, y, patient).estimates()
    order = np.array(random.sample(range(120), 120))
    again = measured(p[order], y[order], patient[order]).estimates()
    assert list(again.values()) == pytest.approx(list(found.values()), abs=1e-8, nan_ok=True)
    twice = np.concatenate([np.arange(120), np.flatnonzero(patient == 3)])
    copied = measured(p[twice], y[twice], patient[twice]).estimates()
    weights = 1 + (np.arange(8) == 3)[None]
    drawn = measured(p, y, patient).values(weights)
    # Bins are those of the sample, which a copied patient moves; no bin enters these.
    for metric in (*REGRESSIONS, "observed_expected", "brier_uncertainty"):
        assert number(drawn, metric)[0] == pytest.approx(number(copied, metric), abs=1e-8, nan_ok=True)


def test_sparse_and_dense_tables_give_the_same(monkeypatch):
    p, y, patient = simulated(8, 300, 100)
    weights = np.random.default_rng(1).multinomial(100, np.full(100, 0.01), size=9)
    found = [measured(p, y, patient)]
    monkeypatch.setattr("marrowflow.statistics.tallies._SPARSE_COST", 10**9)
    found.append(measured(p, y, patient))
    assert [hasattr(f._fits.points.rows, "tocsr") for f in found] == [True, False]
    for metric in METRICS:
        sparse, dense = (number(f.values(weights), metric) for f in found)
        assert sparse == pytest.approx(dense, abs=1e-10)
        sparse, dense = (number(f.influence(), metric) for f in found)
        assert sparse == pytest.approx(dense, abs=1e-10)


def test_scores_that_only_rank_have_no_calibration():
    _, y, patient = simulated(9)
    sample = Sample("case", ["no", "yes"], patient, y.astype(int), y.astype(int), None, 30, 600)
    unfit = [Question("", y, None), Question("", y, y * 3.0, is_probability=False)]
    assert measure_calibration(sample, unfit) == []


def test_recalibration_helps_and_never_sees_its_own_patients():
    p, y, patient = simulated(10, 3000, 60)
    better = out_of_fold_recalibrated(p, y, patient)
    found = measured(better, y, patient, recalibrated=True).estimates()
    assert found["calibration_slope_recalibrated", "", None] == pytest.approx(1, abs=0.05)
    assert found["calibration_intercept_recalibrated", "", None] == pytest.approx(0, abs=0.05)
    # With every patient in a fold of its own: the fit of the others, by statsmodels.
    alone = out_of_fold_recalibrated(p, y, patient, folds=60)
    for q in (0, 17):
        rest = patient != q
        fit = sm.GLM(y[rest], sm.add_constant(logit(p[rest])), family=sm.families.Binomial()).fit(tol=1e-12)
        expected = expit(fit.params[0] + fit.params[1] * logit(p[patient == q]))
        assert alone[patient == q] == pytest.approx(expected, abs=1e-8)
    turned = np.where(patient == 17, ~y, y)
    again = out_of_fold_recalibrated(p, turned, patient, folds=60)
    assert again[patient == 17] == pytest.approx(alone[patient == 17], abs=1e-12)
    assert (again[patient != 17] != alone[patient != 17]).all()


def test_no_recalibration_from_separated_rows():
    p = np.linspace(0.1, 0.9, 20)
    assert out_of_fold_recalibrated(p, p > 0.5, np.arange(20)) is None


def test_resamples_that_nearly_lack_overlap_still_converge():
    """One tied pair overlaps by little among thousands: the slope is large and finite, and found by halved steps."""
    x = np.concatenate([np.linspace(-16, -0.1, 2000), np.linspace(0.1, 16, 2000), [-0.2, 0.2]])
    y = np.concatenate([np.zeros(2000, bool), np.ones(2000, bool), [True, False]])
    found = measured(expit(x), y, np.arange(4002)).estimates()
    expected = by_statsmodels(np.clip(expit(x), 1e-7, 1 - 1e-7), y.astype(float), np.ones(4002))
    assert number(found, "calibration_slope") == pytest.approx(expected[1], rel=1e-6)


def level(x, y, n):
    """Intercept at which the mean of expit(intercept + x) is that of y, rows counting n times: by bisection."""
    return brentq(lambda a: n @ (expit(a + x) - y), -60, 60, xtol=1e-13)


@pytest.mark.parametrize(
    ("x", "y", "n"),
    [
        # A small table recalibrated out of fold: one score lies at the clip, the others about 0.
        ([-16.118095551, 0.3165, 0.3938, 0.8399], [1, 1, 1, 0], [4, 2, 1, 1]),
        (
            [-16.118095551, -1.0986, 0, 1.0986, 16.118095551, 16.118095551],
            [1, 1, 1, 1, 1, 0],
            [6, 2, 2, 3, 1, 1],
        ),
        ([-16.118095551, 16.118095551, 16.118095551], [0, 0, 1], [50, 1, 1]),
        ([-16.1, 0, 16.1], [1, 0, 1], [9, 1, 3]),
    ],
)
def test_intercepts_far_from_the_scores_are_found(x, y, n):
    x, y, n = np.array(x), np.array(y, dtype=bool), np.array(n)
    found = measured(expit(x), y, np.arange(len(x)))
    assert number(found.values(n[None]), "calibration_intercept")[0] == pytest.approx(
        level(x, y, n), abs=1e-6
    )


at_the_clip = st.sampled_from([-16.1, -8.0, -1.5, -0.4, 0.0, 0.4, 1.5, 8.0, 16.1])


@given(st.lists(st.tuples(at_the_clip, st.booleans(), st.integers(0, 6)), min_size=3, max_size=12))
@settings(deadline=None, max_examples=150)
def test_every_resample_is_fitted_where_it_can_be(rows):
    """An intercept wherever both truths are drawn, a slope wherever they overlap; and the equations hold."""
    x, y, n = (np.array(column) for column in zip(*rows, strict=True))
    y = y.astype(bool)
    values = measured(expit(x), y, np.arange(len(x))).values(n[None])
    intercept, slope = (number(values, m)[0] for m in REGRESSIONS)
    of = measured(expit(x), y, np.arange(len(x))).estimates()
    drawn = n > 0
    fit = np.isfinite(number(of, "calibration_intercept")) and (y & drawn).any() and (~y & drawn).any()
    assert np.isfinite(intercept) == fit
    if not fit:
        return
    assert intercept == pytest.approx(level(x, y, n), abs=1e-6)
    up, down = x[y & drawn], x[~y & drawn]
    overlap = up.max() > down.min() and down.max() > up.min()
    assert np.isfinite(slope) == overlap
    if overlap:
        residual = n * (y - expit(level(slope * x, y, n) + slope * x))
        assert residual @ x == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("gap", [4e-15, 1e-14, 3e-14, 1e-13, 1e-12, 1e-11, 1e-10])
def test_a_resample_without_information_is_undefined_alone(gap):
    """Scores of three patients differ by rounding only: they overlap, and no slope can be told from another."""
    p, y, patient = simulated(11, 200, 10)
    p = np.concatenate([p, [0.01, 0.01 * (1 + gap), 0.01 * (1 + 2 * gap)]])
    y, patient = np.append(y, [True, False, True]), np.append(patient, [10, 11, 12])
    weights = np.stack([np.ones(13, dtype=int), np.append(np.zeros(10, dtype=int), [4, 4, 5])])
    values = measured(p, y, patient).values(weights)
    assert np.isnan(number(values, "calibration_slope")).tolist() == [False, True]
    assert number(values, "calibration_intercept")[1] == pytest.approx(logit(9 / 13) - logit(0.01), abs=1e-9)


def test_what_is_biased_upwards_is_named_so():
    """Calibration is perfect, one probability a bin: the truths are known. So is the bias of the resolution's, by algebra."""
    rng = np.random.default_rng(12)
    p, patient = np.repeat(np.arange(0.05, 1, 0.1), 6), np.arange(60)
    truth = {"observed_expected": 1, "brier_resolution": p.var(), "brier_uncertainty": 0.25}
    found = [measured(p, rng.random(60) < p, patient).estimates() for _ in range(400)]
    bias = {m: np.array([number(f, m) for f in found]) - truth.get(m, 0) for m in BINNED}
    assert {m for m, b in bias.items() if b.mean() > 5 * b.std() / 20} == set(BIASED)
    # Each bin's mean has the variance p (1 - p)/6, that of all 60 rows a hundredth of their sum.
    expected = (p * (1 - p)).mean() * (1 / 6 - 1 / 60)
    assert bias["brier_resolution"].mean() == pytest.approx(expected, abs=0.005)
