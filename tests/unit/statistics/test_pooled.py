"""Random-effects summaries against metafor's published example, statsmodels, and the algebra of the intervals."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import norm, t
from statsmodels.stats.meta_analysis import combine_effects

from marrowflow.errors import UserError
from marrowflow.statistics.intervals import auc_jackknife, wilson_clustered
from marrowflow.statistics.pooled import COLUMNS, main, on_logit_scale, pool

# BCG trials (Colditz et al. 1994, JAMA 271:698), as metafor ships them: ill and well of the vaccinated, of the others.
BCG = np.array(
    [
        (4, 119, 11, 128),
        (6, 300, 29, 274),
        (3, 228, 11, 209),
        (62, 13536, 248, 12619),
        (33, 5036, 47, 5761),
        (180, 1361, 372, 1079),
        (8, 2537, 10, 619),
        (505, 87886, 499, 87892),
        (29, 7470, 45, 7232),
        (17, 1699, 65, 1600),
        (186, 50448, 141, 27197),
        (5, 2493, 3, 2338),
        (27, 16886, 29, 17825),
    ],
    dtype=float,
).T


def log_risk_ratios() -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d = BCG
    return np.log(a / (a + b) * (c + d) / c), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)


def test_the_summary_of_the_bcg_trials_is_that_of_metafor() -> None:
    """metafor's README prints: REML .3132, I² 92.22 %, -.7145, Knapp and Hartung's se .1808, -1.1084 to -.3206."""
    found = pool(*log_risk_ratios(), 0.95)
    assert found.tau2 == pytest.approx(0.3132, abs=5e-5)
    assert found.i2 == pytest.approx(0.9222, abs=5e-5)
    assert (found.mean, found.se) == pytest.approx((-0.7145, 0.1808), abs=5e-5)
    assert (found.low, found.high) == pytest.approx((-1.1084, -0.3206), abs=5e-5)
    # It also prints .14 to 1.76 as the limits of another trial's risk ratio, with 12 degrees of freedom; ours have 11.
    ahead = np.subtract(found.predicted, found.mean) * t.ppf(0.975, 12) / t.ppf(0.975, 11) + found.mean
    assert np.exp(ahead) == pytest.approx([0.14, 1.76], abs=5e-3)


def test_given_its_variance_between_trials_statsmodels_has_the_same_interval() -> None:
    y, v = log_risk_ratios()
    found = pool(y, v, 0.9)
    # What differs from trial to trial is then part of the variances: theirs is the one of REML.
    whole = combine_effects(y, v + found.tau2, method_re="dl", use_t=True, alpha=0.1)
    assert whole.mean_effect_fe == pytest.approx(found.mean, rel=1e-12)
    assert whole.sd_eff_w_fe_hksj == pytest.approx(found.se, rel=1e-12)
    assert whole.conf_int(alpha=0.1)[2] == pytest.approx((found.low, found.high), rel=1e-9)
    assert found.weights == pytest.approx(whole.weights_rel_fe, rel=1e-12)


def test_equal_variances_have_the_variance_between_hospitals_in_closed_form() -> None:
    y, v = np.array([0.1, 0.9, 1.4, 2.2]), np.full(4, 0.2)
    assert pool(y, v, 0.95).tau2 == pytest.approx(y.var(ddof=1) - 0.2, abs=1e-6)
    alike = pool(y / 10, v, 0.95)
    assert (alike.tau2, alike.i2) == (0.0, 0.0)


def test_hospitals_that_agree_by_chance_are_not_surer_than_their_sizes() -> None:
    y, v = np.array([1.0, 1.001, 0.999]), np.array([0.3, 0.4, 0.5])
    found = pool(y, v, 0.95)
    assert found.high - found.mean == pytest.approx(t.ppf(0.975, 2) / np.sqrt((1 / v).sum()))
    assert found.predicted[1] - found.mean == pytest.approx(t.ppf(0.975, 1) / np.sqrt((1 / v).sum()))


@pytest.mark.parametrize("seed", range(8))
def test_the_restricted_likelihood_has_no_larger_value_elsewhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(3, 9))
    y, v = rng.normal(0, rng.uniform(0, 2), k), rng.uniform(0.01, 2, k) ** 2

    def minus(tau2: float) -> float:
        # The density of k - 1 contrasts (Harville 1974), by their covariance.
        contrasts = np.eye(k)[1:] - np.eye(k)[0]
        s = contrasts @ np.diag(v + tau2) @ contrasts.T
        z = contrasts @ y
        return float(z @ np.linalg.solve(s, z) + np.linalg.slogdet(s)[1])

    at = pool(y, v, 0.95).tau2
    parts = [minimize_scalar(minus, bounds=b, method="bounded").fun for b in ((0, 0.1), (0.1, 1), (1, 40))]
    assert minus(at) <= min(*parts, minus(0.0)) + 1e-7


@pytest.mark.parametrize(("x", "n"), [(8, 10), (27, 54), (1, 30), (399, 400)])
def test_the_standard_error_of_a_proportion_is_that_of_its_logit(x: int, n: int) -> None:
    ones = (np.arange(n) < x).astype(float)
    row = wilson_clustered(ones, np.ones(n), 0.95)
    assert row is not None
    found = on_logit_scale(x / n, row.low, row.high, row.method, t.ppf(0.975, n - 1))
    # The variance is the ratio estimator's, with n - 1 for n.
    expected = (np.log(x / (n - x)), np.sqrt(n / (n - 1) * (1 / x + 1 / (n - x))))
    assert found == pytest.approx(expected, rel=1e-9)


def test_clustered_rows_count_for_as_many_as_they_are_worth() -> None:
    """Ten patients of four images that are all alike are ten units, not forty."""
    m = np.full(10, 4.0)
    x = m * (np.arange(10) < 7)
    row = wilson_clustered(x, m, 0.95)
    assert row is not None
    _, se = on_logit_scale(0.7, row.low, row.high, row.method, t.ppf(0.975, 9))
    # The ratio estimator's I/(I - 1) makes nine of the ten.
    assert se == pytest.approx(np.sqrt(1 / (9 * 0.7 * 0.3)))


def test_the_standard_error_of_an_auc_is_that_of_its_interval() -> None:
    left_out = np.array([0.88, 0.9, 0.91, 0.9, 0.93, 0.89])
    row = auc_jackknife(0.9, left_out, 3, 0.95)
    assert row is not None
    _, se = on_logit_scale(0.9, row.low, row.high, row.method, t.ppf(0.975, 2))
    variance = 5 / 6 * ((left_out - left_out.mean()) ** 2).sum()
    assert se == pytest.approx(np.sqrt(variance) / 0.09)


@pytest.mark.parametrize("method", ["wilson_neff", "newcombe_neff"])
def test_a_hundred_per_cent_counts_as_half_an_error_more(method: str) -> None:
    n, q = 20, norm.ppf(0.975)
    limit = n / (n + q**2)
    assert on_logit_scale(1.0, limit, 1.0, method, q) == pytest.approx(
        (np.log(20.5 / 0.5), np.sqrt(1 / 20.5 + 2))
    )
    assert on_logit_scale(0.0, 0.0, 1 - limit, method, q) == pytest.approx(
        (-np.log(20.5 / 0.5), np.sqrt(1 / 20.5 + 2))
    )


def metrics_of(tp: int, fn: int, tn: int, fp: int, auc: tuple[float, float, float]) -> pd.DataFrame:
    """Rows of metrics.csv of a hospital whose patients are the units, and rows that must not be taken."""
    rows = []
    n = tp + fn + tn + fp
    for metric, x, m in (
        ("sensitivity", tp, tp + fn),
        ("specificity", tn, tn + fp),
        ("accuracy", tp + tn, n),
    ):
        i = wilson_clustered((np.arange(m) < x).astype(float), np.ones(m), 0.95)
        assert i is not None
        rows.append((metric, x / m, i.low, i.high, i.method, x, m))
    rows.append(("auc", *auc, "jackknife_logit", None, None))
    columns = ["metric", "estimate", "low", "high", "method", "numerator", "denominator"]
    table = pd.DataFrame(rows, columns=columns).assign(
        endpoint="AML", unit="patient", primary=True, n_patients=n, n_cases=4 * n
    )
    table["class"] = ""
    other = table.assign(estimate=0.5, low=0.4, high=0.6)
    return pd.concat([other.assign(primary=False), table, other.assign(unit="case")])


HOSPITALS = {
    "a": (40, 10, 45, 5, (0.9, 0.8, 0.955)),
    "b": (18, 2, 20, 10, (0.92, 0.75, 0.98)),
    "c": (30, 0, 33, 7, (0.88, np.nan, np.nan)),
}


def run(folder: Path, hospitals: list[str]) -> pd.DataFrame:
    for name, counts in {"development": (50, 5, 50, 5, (0.97, 0.9, 0.99)), **HOSPITALS}.items():
        path = folder / "lite" / "raw" / name / "metrics.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        metrics_of(*counts).to_csv(path, index=False)
    (folder / "primary.json").write_text(json.dumps({"index_test": "lite-raw"}))
    out = folder / "out" / "pooled.csv"
    main(
        [
            "--primary",
            str(folder / "primary.json"),
            "--accuracy",
            str(folder),
            "--out",
            str(out),
            "--cohorts",
            *hospitals,
        ]
    )
    return pd.read_csv(out, keep_default_na=False, na_values={"estimate": [""], "weight": [""]})


def test_hospitals_are_pooled_and_development_is_not(tmp_path: Path) -> None:
    table = run(tmp_path, ["a", "b", "c"])
    assert tuple(table.columns) == COLUMNS and set(table["unit"]) == {"patient"}
    rows = table[table["metric"].eq("sensitivity")].set_index("cohort")
    assert list(rows["kind"]) == ["development", "hospital", "hospital", "hospital", "summary"]
    # By hand: 40/50, 18/20, and 30/30 as 30.5 to .5.
    y = np.array([np.log(4), np.log(9), np.log(61)])
    v = np.array([50 / 49 * (1 / 40 + 1 / 10), 20 / 19 * (1 / 18 + 1 / 2), 1 / 30.5 + 2])
    assert rows.loc[["a", "b", "c"], "logit"].astype(float).tolist() == pytest.approx(y.tolist(), rel=1e-6)
    assert rows.loc[["a", "b", "c"], "se"].astype(float).tolist() == pytest.approx(
        np.sqrt(v).tolist(), rel=1e-6
    )
    weights = 1 / (v + float(rows.loc["", "tau2"]))
    assert rows.loc["", "estimate"] == pytest.approx(float(expit((weights * y).sum() / weights.sum())))
    assert rows.loc[["a", "b", "c"], "weight"].tolist() == pytest.approx((weights / weights.sum()).tolist())
    assert np.isnan(rows.loc["development", "weight"]) and rows.loc["", "denominator"] == "100"
    assert (rows["reason"] == "").all()


def test_a_metric_without_three_intervals_is_not_pooled_and_says_so(tmp_path: Path) -> None:
    rows = run(tmp_path, ["a", "b", "c"]).query("metric == 'auc'").set_index("cohort")
    assert list(rows.index) == ["development", "a", "b", "c"]
    assert rows.loc["a", "reason"] == "not pooled: 2 hospitals with an interval, at least 3 are needed"
    assert rows.loc["c", "reason"] == "no interval at this hospital"
    # 50 positives and 50 negatives: the interval was made with 49 degrees of freedom.
    half = (logit(0.955) - logit(0.8)) / 2
    assert float(rows.loc["a", "se"]) == pytest.approx(half / t.ppf(0.975, 49))
    few = run(tmp_path, ["a", "b"])
    assert not few["kind"].eq("summary").any() and few.query("cohort == 'b'")["reason"].ne("").all()
    assert set(run(tmp_path, [])["kind"]) == {"development"}


def test_a_hospital_that_was_not_measured_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no metrics at .*nowhere.metrics\.csv"):
        run(tmp_path, ["a", "nowhere"])
