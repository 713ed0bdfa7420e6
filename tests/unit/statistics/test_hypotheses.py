"""P-values against statsmodels, DeLong's and Obuchowski's published methods, and tests by brute force."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import clustered_small
from scipy import stats
from sklearn.datasets import load_breast_cancer
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests

from marrowflow.statistics.hypotheses import (
    clustered_mcnemar,
    holm,
    mcnemar,
    paired_proportions,
    rao_scott,
    wald,
)
from marrowflow.statistics.ranking import rank

SMALL = clustered_small()
PATIENT = SMALL["patient"].factorize()[0]
TRUTH = SMALL["y"].to_numpy() == 1
S1, S2 = SMALL["s1"].to_numpy(), SMALL["s2"].to_numpy()


def pulls_of(scores, truth, patient):
    return rank(scores, truth, patient, patient.max() + 1, 10**9).auc_pulls()


def test_two_correlated_aucs_of_clustered_rows():
    a, b = pulls_of(S1, TRUTH, PATIENT), pulls_of(S2, TRUTH, PATIENT)
    variance = a.minus(b).variance()
    assert variance == pytest.approx(0.002587654622, abs=1e-12)
    assert wald("obuchowski", 0.88125 - 0.90625, variance).p == pytest.approx(0.623102194923, abs=1e-11)
    assert a.variance() == pytest.approx(0.007450405714, abs=1e-12)
    assert b.variance() == pytest.approx(0.004510631137, abs=1e-12)


@pytest.mark.parametrize(
    ("column", "z", "p"),
    [("mean texture", 7.308787404733, None), ("worst concave points", -2.418018048112, 0.0156053027772)],
)
def test_delong_paired(column, z, p):
    """Mean radius against another column, as pROC tests them."""
    data = load_breast_cancer()
    columns = [list(data.feature_names).index(name) for name in ("mean radius", column)]
    people = np.arange(len(data.target))
    ranked = [rank(data.data[:, c], data.target == 0, people, len(people), 10**9) for c in columns]
    variance = ranked[0].auc_pulls().minus(ranked[1].auc_pulls()).variance()
    difference = ranked[0].auc_variance()[0] - ranked[1].auc_variance()[0]
    assert difference / np.sqrt(variance) == pytest.approx(z, abs=1e-9)
    expected = 2 * stats.norm.sf(abs(z)) if p is None else p
    assert wald("delong", difference, variance).p == pytest.approx(expected, rel=1e-9)


def test_mcnemar_with_150_against_86():
    found = mcnemar(150, 86)
    assert found.name == "mcnemar"
    assert found.p == pytest.approx(stats.chi2.sf(17.35593220339, 1), rel=1e-10)
    assert found.p == pytest.approx(3.0992934410e-05, rel=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=80)
def test_mcnemar_as_statsmodels(b, c):
    found = mcnemar(b, c)
    assert found.name == ("mcnemar_exact" if b + c < 25 else "mcnemar")
    theirs = their_mcnemar([[7, b], [c, 5]], exact=b + c < 25, correction=False)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-10)
    assert mcnemar(c, b).p == pytest.approx(found.p, rel=1e-12)


def test_25_discordant_units_are_enough_for_the_approximation():
    assert (mcnemar(4, 20).name, mcnemar(5, 20).name) == ("mcnemar_exact", "mcnemar")


def proportions(seed, patients=7):
    """Numerators of two tests and denominators of clustered units."""
    rng = np.random.default_rng(seed)
    n = rng.integers(0, 5, patients)
    n[0] = 2
    return rng.binomial(n, 0.7), rng.binomial(n, 0.5), n


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_clustered_proportions_as_obuchowski_writes_them(seed):
    """Variances and covariance of the two ratios about their common mean, term by term."""
    x, y, n = (v.astype(float) for v in proportions(seed))
    clusters, total = (n > 0).sum(), n.sum()
    mean = (x.sum() + y.sum()) / (2 * total)
    u, v = (x - n * mean) / total, (y - n * mean) / total
    variance = clusters / (clusters - 1) * ((u**2).sum() + (v**2).sum() - 2 * (u * v).sum())
    found = paired_proportions(x, y, n)
    assert paired_proportions(y, x, n).p == found.p
    if n.max() > 1:
        assert found.name == "obuchowski_1998"
        if variance > 1e-20:
            statistic = ((x.sum() - y.sum()) / total) ** 2 / variance
            assert found.p == pytest.approx(stats.chi2.sf(statistic, 1), rel=1e-9)
        else:
            assert found.p == 1


def test_variance_under_the_hypothesis_is_that_of_all_exchanges():
    """If the two tests are alike, any patient's answers may be exchanged: Σd² is the variance of Σd over all ways."""
    d = np.array([2.0, -1, 1, 0, 3, 1, -2])
    sums = np.array([(d * signs).sum() for signs in product([1, -1], repeat=len(d))])
    statistic = 6 / 7 * d.sum() ** 2 / sums.var()
    assert clustered_mcnemar(d, 7).p == pytest.approx(stats.chi2.sf(statistic, 1), rel=1e-12)


def test_copies_of_rows_are_no_new_evidence():
    """Every unit thrice in its patient: McNemar would count them; the clustered test must not."""
    first, second = np.repeat([1.0, 0.0, 1.0], [30, 12, 20]), np.repeat([0.0, 1.0, 1.0], [30, 12, 20])
    once = paired_proportions(first, second, np.ones(62))
    thrice = paired_proportions(3 * first, 3 * second, np.full(62, 3.0))
    assert (once.name, thrice.name) == ("mcnemar", "obuchowski_1998")
    plain = stats.chi2.isf(once.p, 1)
    assert stats.chi2.isf(thrice.p, 1) == pytest.approx(plain * 61 / 62, rel=1e-9)
    assert mcnemar(90, 36).p < thrice.p / 50


def test_the_same_answers_have_p_1():
    x, _, n = proportions(3)
    assert paired_proportions(x, x, n).p == 1
    assert paired_proportions(np.ones(4), np.ones(4), np.ones(4)).p == 1
    assert wald("delong", 0.0, 0.0).p == 1
    assert np.isnan(wald("delong", 0.1, 0.0).p)
    assert rao_scott(np.ones(5), np.ones(5), np.ones(8), np.ones(8)).p == 1


def test_independent_rows_of_different_patients_as_pearson():
    x, y = np.repeat([1.0, 0.0], [40, 20]), np.repeat([1.0, 0.0], [30, 50])
    found = rao_scott(x, np.ones(60), y, np.ones(80))
    table = np.array([[40, 20], [30, 50]])
    # The ratio estimator's variance is I/(I-1) times the binomial one, and the counts are divided by that.
    shrunk = table * np.array([[59 / 60], [79 / 80]])
    assert found.p == pytest.approx(stats.chi2_contingency(shrunk, correction=False).pvalue, rel=1e-10)
    swapped = rao_scott(y, np.ones(80), x, np.ones(60))
    assert swapped.p == pytest.approx(found.p, rel=1e-12)


def test_identical_rows_of_a_patient_count_once():
    x, y = np.repeat([1.0, 0.0], [40, 20]), np.repeat([1.0, 0.0], [30, 50])
    once = rao_scott(x, np.ones(60), y, np.ones(80))
    clustered = rao_scott(4 * x, np.full(60, 4.0), 4 * y, np.full(80, 4.0))
    assert clustered.p == pytest.approx(once.p, rel=1e-10)
    # A side at 100 % is taken as patients whose rows are all alike.
    y = np.repeat([1.0, 0.0], [27, 3])
    sure = rao_scott(np.full(20, 4.0), np.full(20, 4.0), 4 * y, np.full(30, 4.0))
    shrunk = np.array([[20.0, 0.0], [27.0, 3.0]]) * np.array([[1.0], [29 / 30]])
    assert sure.p == pytest.approx(stats.chi2_contingency(shrunk, correction=False).pvalue, rel=1e-10)


@given(st.lists(st.integers(0, 40).map(lambda n: n / 40), min_size=1, max_size=9))
@settings(deadline=None, max_examples=30)
def test_holm_as_statsmodels(p):
    assert holm(np.array(p)) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-15)
    with_gaps = holm(np.array([np.nan, *p, np.nan]))
    assert np.isnan(with_gaps[[0, -1]]).all()
    assert with_gaps[1:-1] == pytest.approx(holm(np.array(p)))
