"""The step as it is run: differences against published p-values, scikit-learn on the same resamples, and hand counts."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import clustered_small
from scipy import stats
from sklearn import metrics as sk
from sklearn.datasets import load_breast_cancer
from statsmodels.stats.multitest import multipletests

from marrowflow.choices.threshold import digest_of
from marrowflow.config import Accuracy
from marrowflow.errors import UserError
from marrowflow.statistics.bootstrap import draw_weights
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.compare import main
from marrowflow.statistics.differences import COMPARISON_COLUMNS, _bootstrap, comparison_rows, measure_side
from marrowflow.statistics.evaluation import evaluate_binary, evaluate_classes
from marrowflow.statistics.rows import Place

SETTINGS = Accuracy(replicates=200)


def of_scores(patient, truth, scores, name, cut=0.5):
    """Return a prediction table of a yes/no question."""
    return pd.DataFrame(
        {
            "case_id": [f"c{i}" for i in range(len(truth))],
            "patient_id": [f"P{p}" for p in patient],
            "cohort": "north",
            "truth": np.where(truth, "AML", "well"),
            "predicted": np.where(scores >= cut, "AML", "well"),
            "p_AML": scores,
            "p_well": 1 - scores,
            "index_test": name,
        }
    )


def small():
    rows = clustered_small()
    patient, truth = rows["patient"].factorize()[0], rows["y"].to_numpy() == 1
    return [of_scores(patient, truth, rows[s].to_numpy(), n) for s, n in (("s1", "one"), ("s2", "two"))]


def several(seed=0, n=240, patients=60, names=("one", "two")):
    """Index tests of unequal strength; every patient has one class of three."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) % patients
    truth = rng.integers(0, 3, patients)[patient]
    classes = np.array(["AML", "ALL", "CML"])
    found = []
    for i, name in enumerate(names):
        logits = (1.4 - 0.6 * i) * np.eye(3)[truth] + rng.normal(size=(patients, 3))[patient]
        logits += rng.normal(size=(n, 3))
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        table = {
            "case_id": [f"c{j}" for j in range(n)],
            "patient_id": [f"P{j:02}" for j in patient],
            "cohort": "north",
            "truth": classes[truth],
            "predicted": classes[p.argmax(axis=1)],
            **{f"p_{c}": p[:, j] for j, c in enumerate(classes)},
            "index_test": name,
        }
        found.append(pd.DataFrame(table))
    return found


def run(tmp_path, tables, *arguments, **sections):
    """Run the step on tables; return what it wrote, by name."""
    tmp_path.mkdir(exist_ok=True)
    paths = [tmp_path / f"{i}.csv" for i in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        table.to_csv(path, index=False)
    sections = {"accuracy": {"replicates": 200}, **sections}
    out = tmp_path / "out"
    main(
        ["--predictions", *map(str, paths), "--out", str(out), "--options", json.dumps(sections), *arguments]
    )
    text = dict.fromkeys(["class", "test", "cohort", "against_cohort", "metric", "unit", "endpoint"], "str")
    return {f.stem: pd.read_csv(f, dtype=text).fillna({c: "" for c in text}) for f in out.glob("*.csv")}


PAIRED = ("--index-test", "one", "--against", "two")
OF_CASES = (*PAIRED, "--unit", "case", "--positive", "AML")


def primary(tables, metric, name="", **where):
    rows = tables["comparisons"].query("primary and metric == @metric and `class` == @name")
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1, rows
    return rows.iloc[0]


def warned(tables):
    return " | ".join(tables["warnings"]["warning"])


def test_small_clustered_table_against_obuchowski(tmp_path):
    tables = run(tmp_path, small(), *OF_CASES)
    assert set(tables) == {"comparisons", "agreement", "agreement_counts", "warnings"}
    assert list(tables["comparisons"].columns) == list(COMPARISON_COLUMNS)
    row = primary(tables, "auc")
    assert (row["estimate"], row["estimate_against"]) == pytest.approx((0.88125, 0.90625))
    assert row["difference"] == pytest.approx(-0.025)
    assert (row["test"], row["method"]) == ("jackknife_t", "jackknife_t")
    assert (row["n_cases"], row["n_patients"], row["n_cases_against"]) == (26, 10, 26)
    assert (row["cohort"], row["against_cohort"]) == ("north", "north")
    beside = tables["comparisons"].query("method == 'obuchowski'").iloc[0]
    half = stats.norm.ppf(0.975) * np.sqrt(0.002587654622)
    assert (beside["low"], beside["high"]) == pytest.approx((-0.025 - half, -0.025 + half), abs=1e-9)
    assert (beside["test"], beside["p_value"]) == ("obuchowski", pytest.approx(0.623102194923, abs=1e-11))
    assert beside["replicates"] == 0
    # By hand: of the ten diseased units the second test finds one more of P3 and loses none.
    row = primary(tables, "sensitivity")
    assert (row["estimate"], row["estimate_against"], row["test"]) == (0.8, 0.8, "obuchowski_1998")
    methods = set(tables["comparisons"]["method"])
    assert methods == {
        "jackknife_t",
        "mover_wilson_neff",
        "bootstrap_bca",
        "bootstrap_percentile",
        "obuchowski",
        "none",
    }
    others = tables["comparisons"].query("not primary and method != 'obuchowski'")
    assert others["p_value"].isna().all()
    assert others["test"].eq("").all()


def test_one_case_a_patient_against_delong_and_mcnemar(tmp_path):
    data = load_breast_cancer()
    ill = data.target == 0
    names = list(data.feature_names)
    tables = []
    for name, column in (("one", "mean radius"), ("two", "worst concave points")):
        scores = data.data[:, names.index(column)]
        tables.append(of_scores(np.arange(len(ill)), ill, scores / (1.1 * scores.max()), name))
    found = run(tmp_path, tables, *OF_CASES)
    row = found["comparisons"].query("method == 'delong'").iloc[0]
    assert (row["metric"], row["test"], row["class"]) == ("auc", "delong", "")
    assert row["p_value"] == pytest.approx(0.0156053027772, rel=1e-9)
    assert set(found["comparisons"].query("metric == 'auc'")["method"]) == {
        "jackknife_t",
        "bootstrap_bca",
        "bootstrap_percentile",
        "delong",
    }
    first, second = (t["predicted"].eq("AML") & ill for t in tables)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    row = primary(found, "sensitivity")
    assert row["test"] == "mcnemar"
    assert row["p_value"] == pytest.approx(stats.chi2.sf((b - c) ** 2 / (b + c), 1), rel=1e-9)
    assert row["difference"] == pytest.approx((b - c) / ill.sum())
    for metric in ("ppv", "npv", "f1", "mcc", "brier", "balanced_accuracy", "kappa"):
        assert np.isnan(primary(found, metric)["p_value"]), metric
        expected = "mover_wilson_neff" if metric in ("ppv", "npv") else "bootstrap_bca"
        assert primary(found, metric)["method"] == expected, metric


def sample_of(table):
    classes = ["AML", "ALL", "CML"]
    codes = {c: i for i, c in enumerate(classes)}
    patient = pd.factorize(table["patient_id"])[0]
    return Sample(
        "case",
        classes,
        patient,
        table["truth"].map(codes).to_numpy(),
        table["predicted"].map(codes).to_numpy(),
        table[[f"p_{c}" for c in classes]].to_numpy(),
        patient.max() + 1,
        len(table),
    )


def test_replicates_of_differences_equal_scikit_learn():
    samples = [sample_of(t) for t in several(n=120, patients=30)]
    settings = Accuracy(replicates=100, seed=5)
    binary, classes = (
        [measure_side(evaluated(s), "a", "b", settings, "test") for s in samples]
        for evaluated in (lambda s: evaluate_binary(s, ["AML"], s.predicted == 0), evaluate_classes)
    )

    def difference(pair, key):
        return pair[0].replicates[key] - pair[1].replicates[key]

    (weights,) = draw_weights(30, 100, 5)
    for b in range(0, 100, 9):
        expected = {}
        for s, sign in zip(samples, (1, -1), strict=True):
            rows = np.repeat(np.arange(120), weights[b][s.patient])
            truth, answer, p = s.truth[rows], s.predicted[rows], s.probabilities[rows]
            for key, value in {
                "auc": sk.roc_auc_score(truth == 0, p[:, 0]),
                "sensitivity": sk.recall_score(truth == 0, answer == 0),
                "ppv": sk.precision_score(truth == 0, answer == 0),
                "brier": sk.brier_score_loss(truth == 0, p[:, 0]),
                "average_precision": sk.average_precision_score(truth == 0, p[:, 0]),
            }.items():
                expected[key, "binary"] = expected.get((key, "binary"), 0) + sign * value
            for key, value in {
                ("mcc", ""): sk.matthews_corrcoef(truth, answer),
                ("f1", "macro"): sk.f1_score(truth, answer, average="macro"),
                ("auc", "macro"): sk.roc_auc_score(truth, p, multi_class="ovr"),
            }.items():
                expected[key] = expected.get(key, 0) + sign * value
        for key, value in expected.items():
            found = difference(binary, (key[0], "")) if key[1] == "binary" else difference(classes, key)
            assert found[b] == pytest.approx(value, abs=1e-12), key


def test_bca_of_two_samples_as_scipy():
    """Brier scores, means of skewed errors, of different patients; scipy's resamples in the place of ours."""
    rng = np.random.default_rng(3)
    squares, sides = [], []
    for size, power in ((12, 6), (45, 2)):
        error = rng.random(size) ** power
        ill = np.arange(size) % 2 == 0
        p = np.where(ill, 1 - error, error)
        codes = (~ill).astype(int), (p < 0.5).astype(int)
        sample = Sample(
            "case", ["AML", "well"], np.arange(size), *codes, np.stack([p, 1 - p], axis=1), size, size
        )
        sides.append(measure_side(evaluate_binary(sample, ["AML"], p >= 0.5), "a", "b", SETTINGS, "test"))
        squares.append(error**2)
    theirs = stats.bootstrap(
        squares,
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        n_resamples=1999,
        method="BCa",
        rng=np.random.default_rng(2),
    )
    key = ("brier", "")
    drawn = theirs.bootstrap_distribution
    a, b = replace(sides[0], replicates={key: drawn}), replace(sides[1], replicates={key: np.zeros(1999)})
    ours = next(i for i in _bootstrap(a, b, key, False, 0.95).intervals if i.method == "bootstrap_bca")
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval, abs=1e-12)


def test_bca_of_a_paired_difference_as_scipy():
    """The difference of two Brier scores of the same patients is the mean of the patients' differences."""
    rng = np.random.default_rng(4)
    error = rng.random((2, 25)) ** [[4], [2]]
    ill = np.arange(25) % 2 == 0
    sides = []
    for e in error:
        p = np.where(ill, 1 - e, e)
        sample = Sample(
            "case",
            ["AML", "well"],
            np.arange(25),
            (~ill).astype(int),
            (p < 0.5).astype(int),
            np.stack([p, 1 - p], axis=1),
            25,
            25,
        )
        sides.append(measure_side(evaluate_binary(sample, ["AML"], p >= 0.5), "a", "b", SETTINGS, "test"))
    theirs = stats.bootstrap(
        (error[0] ** 2 - error[1] ** 2,),
        np.mean,
        n_resamples=1999,
        method="BCa",
        rng=np.random.default_rng(2),
    )
    key = ("brier", "")
    a = replace(sides[0], replicates={key: theirs.bootstrap_distribution})
    b = replace(sides[1], replicates={key: np.zeros(1999)})
    ours = next(i for i in _bootstrap(a, b, key, True, 0.95).intervals if i.method == "bootstrap_bca")
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval, abs=1e-12)


def test_independent_sides_are_wider_than_paired_ones():
    """What two tests of the same patients share cancels only on the same resamples."""
    first, second = small()
    sample = [sample_of_yes_no(t) for t in (first, second)]
    evaluated = [evaluate_binary(s, ["AML"], s.predicted == 0) for s in sample]
    a, b = (measure_side(e, "a", "b", Accuracy(replicates=2000), "test") for e in evaluated)
    other = measure_side(evaluated[1], "a", "b", Accuracy(replicates=2000, seed=1), "test")
    key = ("auc", "")
    together = np.nanstd(a.replicates[key] - b.replicates[key])
    apart = np.nanstd(a.replicates[key] - other.replicates[key])
    # Their variances by Obuchowski's method: .00259 together, .00745 + .00451 apart.
    assert together == pytest.approx(np.sqrt(0.002587654622), rel=0.2)
    assert apart == pytest.approx(np.sqrt(0.007450405714 + 0.004510631137), rel=0.2)


def sample_of_yes_no(table):
    codes = {"AML": 0, "well": 1}
    patient = pd.factorize(table["patient_id"])[0]
    return Sample(
        "case",
        ["AML", "well"],
        patient,
        table["truth"].map(codes).to_numpy(),
        table["predicted"].map(codes).to_numpy(),
        table[["p_AML", "p_well"]].to_numpy(),
        patient.max() + 1,
        len(table),
    )


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_exchanging_the_two_turns_the_sign_and_keeps_the_p_value(seed):
    sides = [
        measure_side(evaluate_classes(sample_of(t)), name, "north", SETTINGS, "test")
        for t, name in zip(several(seed, n=60, patients=20), ("one", "two"), strict=True)
    ]
    there = comparison_rows(*sides, True, Place("e", "case", []), SETTINGS)
    back = comparison_rows(*sides[::-1], True, Place("e", "case", []), SETTINGS)
    assert there["difference"].to_numpy() == pytest.approx(-back["difference"].to_numpy(), nan_ok=True)
    assert there["p_value"].to_numpy() == pytest.approx(back["p_value"].to_numpy(), nan_ok=True)
    assert there["method"].tolist() == back["method"].tolist()
    assert there["low"].to_numpy() == pytest.approx(-back["high"].to_numpy(), abs=1e-9, nan_ok=True)


def test_a_copy_under_another_name_differs_by_nothing(tmp_path):
    first, _ = several()
    tables = run(tmp_path, [first, first.assign(index_test="two")], *PAIRED)
    rows = tables["comparisons"]
    assert rows["difference"].eq(0).all()
    # None of the units differs, which proportions have an interval for: 0 out of so many.
    assert set(rows.loc[rows["method"].ne("none"), "metric"]) <= {
        "accuracy",
        "sensitivity",
        "specificity",
        "ppv",
        "npv",
    }
    assert set(rows["method"]) == {"none", "mover_wilson_neff"}
    tested = rows["test"] != ""
    assert rows.loc[tested, "p_value"].eq(1).all()
    assert rows.loc[tested, "p_holm"].eq(1).all()
    assert tables["agreement"].query("primary")["estimate"].eq(1).all()
    assert "no width" in warned(tables)


def test_copies_of_a_patients_cases_change_nothing(tmp_path):
    tables = small()
    twice = [pd.concat([t, t.assign(case_id=t["case_id"] + "again")]) for t in tables]
    once, doubled = run(tmp_path / "a", tables, *OF_CASES), run(tmp_path / "b", twice, *OF_CASES)
    # Copies are more alike than cases were, which a design effect of proportions, no less than 1, may notice.
    limits = once["comparisons"]["method"] == "mover_wilson_neff"
    for column, least in (("low", 0.8), ("high", 0.8)):
        before, after = (t["comparisons"].loc[limits, column] for t in (once, doubled))
        assert (after / before).between(least, 1 / least).all(), column
    sizes = ["n_cases", "n_cases_against"]
    pd.testing.assert_frame_equal(
        *(t["comparisons"][~limits].drop(columns=sizes) for t in (once, doubled)),
    )
    assert set(doubled["comparisons"]["n_cases"]) == {52}


def test_holm_over_an_endpoint_and_unit(tmp_path):
    tables = several(names=("one", "two", "three"))
    endpoints = {"acute": {"positive": ["AML", "ALL"]}}
    found = run(tmp_path, tables, "--index-test", "one", "--against", "two", "three", endpoints=endpoints)
    rows = found["comparisons"]
    assert set(rows["against"]) == {"two", "three"}
    families = rows[rows["primary"] & (rows["test"] != "")].groupby(["endpoint", "unit"])
    assert len(families) == 4
    for (endpoint, unit), family in families:
        adjusted = multipletests(family["p_value"], method="holm")[1]
        assert family["p_holm"].to_numpy() == pytest.approx(adjusted), (endpoint, unit)
        # AUC, sensitivity, specificity and accuracy of each question; of all classes together the accuracy, and two AUCs.
        assert len(family) == 2 * (4 if endpoint == "acute" else 4 * 3 + 3)
    assert set(families.get_group(("acute", "patient"))["test"]) <= {
        "jackknife_t",
        "mcnemar",
        "mcnemar_exact",
    }
    assert set(families.get_group(("acute", "case"))["test"]) == {"jackknife_t", "obuchowski_1998"}
    beside = rows[~rows["primary"]]
    assert beside["p_holm"].isna().all()
    assert set(beside["test"]) == {"", "delong", "obuchowski"}


def test_patients_are_matched_whatever_the_order_of_the_rows(tmp_path):
    first, second = several()
    same = run(tmp_path / "a", [first, second], *PAIRED)
    shuffled = second.sample(frac=1, random_state=1)
    again = run(tmp_path / "b", [first, shuffled], *PAIRED)
    pd.testing.assert_frame_equal(same["comparisons"], again["comparisons"])
    in_one = run(tmp_path / "c", [pd.concat([first, second])], *PAIRED)
    pd.testing.assert_frame_equal(same["comparisons"], in_one["comparisons"])


def test_left_out_units_are_counted(tmp_path):
    first, second = small()
    whole = run(tmp_path / "a", [first.iloc[4:], second.iloc[4:]], *OF_CASES)
    # One table without a truth is enough: it is no second truth.
    first.loc[0, "truth"] = "missing"
    first.loc[1, ["status", "predicted", "p_AML", "p_well"]] = ["not_done", None, None, None]
    second.loc[2, ["status", "predicted", "p_AML", "p_well"]] = ["indeterminate", None, None, None]
    first = first.drop(index=3).fillna({"status": "ok"})
    second = second.fillna({"status": "ok"})
    tables = run(tmp_path / "b", [first, second], *OF_CASES)
    shared = ["estimate", "estimate_against", "difference", "p_value", "n_cases", "n_patients"]
    pd.testing.assert_frame_equal(tables["comparisons"][shared], whole["comparisons"][shared])
    expected = (
        "cases left out of the comparison: 1 only two has, 2 without an answer of both, 1 without a truth"
    )
    assert expected in warned(tables)
    counts = tables["agreement_counts"].set_index(["answer", "answer_against"])["n"]
    assert counts.sum() == 25
    assert counts["not_done", "positive"] == 1
    assert counts["negative", "indeterminate"] == 1
    # The case without a truth still says whether the two agree.
    row = tables["agreement"].query("metric == 'agreement' and primary").iloc[0]
    assert (row["denominator"], row["n_cases"]) == (23, 23)
    assert row["numerator"] == counts["positive", "positive"] + counts["negative", "negative"]


def test_two_truths_of_a_case_are_listed(tmp_path):
    first, second = small()
    second.loc[[0, 5], "truth"] = ["well", "AML"]
    with pytest.raises(UserError, match="2 cases have two truths") as error:
        run(tmp_path, [first, second], *OF_CASES)
    assert "'c0': 'AML' in one, 'well' in two" in str(error.value)
    assert "'c5'" in str(error.value)


def test_cases_of_two_patients_and_strangers_are_refused(tmp_path):
    first, second = small()
    with pytest.raises(UserError, match="26 cases belong to two patients"):
        run(tmp_path / "a", [first, second.assign(patient_id="P")], *OF_CASES)
    with pytest.raises(UserError, match="have no case in common") as error:
        run(tmp_path / "b", [first, second.assign(cohort="south")], *OF_CASES)
    assert "'c0' of cohort 'south'" in str(error.value)
    with pytest.raises(UserError, match="two has no column patient_id"):
        run(tmp_path / "c", [first, second.drop(columns="patient_id")], *PAIRED, "--unit", "patient")


def test_patients_of_a_table_without_them_are_those_of_the_other(tmp_path):
    first, second = small()
    whole = run(tmp_path / "a", [first, second], *OF_CASES)
    for name, tables in (
        ("b", [first, second.drop(columns="patient_id")]),
        ("c", [first.drop(columns="patient_id"), second]),
    ):
        found = run(tmp_path / name, tables, *OF_CASES)
        pd.testing.assert_frame_equal(found["comparisons"], whole["comparisons"])
        assert set(found["agreement"]["n_patients"]) == {10}
        assert "no patient_id" not in warned(found)
    reader = second[["case_id", "cohort", "truth", "predicted", "index_test"]]
    with pytest.raises(UserError, match="two has no column patient_id"):
        run(tmp_path / "reader", [first, reader], *PAIRED, "--unit", "patient")
    neither = [t.drop(columns="patient_id") for t in (first, second)]
    found = run(tmp_path / "d", neither, *OF_CASES)
    assert set(found["comparisons"]["n_patients"]) == {26}
    assert "no patient_id" in warned(found)


def write_lock(path, name, threshold):
    endpoint = {"positive": ["AML"], "case": {"threshold": threshold}}
    lock = {"index_test": name, "endpoints": {"aml": endpoint}}
    path.write_text(json.dumps({**lock, "digest": digest_of(lock)}))
    return str(path)


def test_each_lock_decides_for_its_own_index_test(tmp_path):
    first, second = small()
    locks = [write_lock(tmp_path / f"{n}.json", n, c) for n, c in (("two", 0.6), ("one", 0.3))]
    tables = run(tmp_path / "a", [first, second], *OF_CASES, "--lock", *locks)
    ill = first["truth"].eq("AML")
    row = primary(tables, "sensitivity")
    assert row["estimate"] == pytest.approx((first["p_AML"][ill] >= 0.3).mean())
    assert row["estimate_against"] == pytest.approx((second["p_AML"][ill] >= 0.6).mean())
    both = (first["p_AML"] >= 0.3) & (second["p_AML"] >= 0.6)
    counts = tables["agreement_counts"].set_index(["answer", "answer_against"])["n"]
    assert counts["positive", "positive"] == both.sum()
    # A reader without a lock decides by its label.
    reader = second[["case_id", "patient_id", "cohort", "truth", "predicted", "index_test"]]
    tables = run(tmp_path / "b", [first, reader], *OF_CASES, "--lock", locks[1])
    row = primary(tables, "sensitivity")
    assert row["estimate"] == pytest.approx((first["p_AML"][ill] >= 0.3).mean())
    assert row["estimate_against"] == pytest.approx(second["predicted"][ill].eq("AML").mean())
    assert "no lock" not in warned(tables)
    tables = run(tmp_path / "c", [first, second], *OF_CASES, "--lock", locks[1])
    assert "two has probabilities and no lock" in warned(tables)
    with pytest.raises(UserError, match="locked for index test 'three'"):
        run(tmp_path / "d", [first, second], *OF_CASES, "--lock", write_lock(tmp_path / "3", "three", 0.5))
    with pytest.raises(UserError, match="second lock for index test 'one'"):
        run(tmp_path / "e", [first, second], *OF_CASES, "--lock", locks[1], locks[1])


def test_readers_with_labels_only(tmp_path):
    labels = ["case_id", "patient_id", "cohort", "truth", "predicted", "index_test"]
    first, second = (t[labels] for t in several())
    tables = run(tmp_path / "a", [pd.concat([first, second])], *PAIRED)
    assert not set(tables["comparisons"]["metric"]) & {"auc", "brier", "average_precision"}
    assert "needs probabilities" in warned(tables)
    assert "alphabetical order" in warned(tables)
    kappa = tables["agreement"].query("metric == 'kappa_quadratic' and unit == 'case' and primary").iloc[0]
    expected = sk.cohen_kappa_score(
        first["predicted"], second["predicted"], labels=["ALL", "AML", "CML"], weights="quadratic"
    )
    assert kappa["estimate"] == pytest.approx(expected)
    # A network beside a reader: its classes, in its order, are those of both.
    network = several()[0].assign(index_test="three")
    tables = run(tmp_path / "b", [second, network], "--index-test", "two", "--against", "three")
    order = tables["agreement_counts"]["answer"].drop_duplicates().tolist()
    assert order == ["AML", "ALL", "CML", "indeterminate", "not_done"]


def test_readers_who_know_no_truth_agree_all_the_same(tmp_path):
    tables = [t.assign(truth="missing") for t in small()]
    found = run(tmp_path, tables, *OF_CASES)
    assert found["comparisons"]["difference"].isna().all()
    assert found["comparisons"]["p_holm"].isna().all()
    row = found["agreement"].query("metric == 'agreement' and primary").iloc[0]
    same = (tables[0]["predicted"] == tables[1]["predicted"]).sum()
    assert (row["numerator"], row["denominator"], row["n_patients"]) == (same, 26, 10)


def test_absent_class_is_undefined_and_not_nought(tmp_path):
    tables = [t.query("truth != 'CML'") for t in several()]
    found = run(tmp_path, tables, *PAIRED, "--unit", "case")
    for metric, name in (("sensitivity", "CML"), ("auc", "CML"), ("auc", "macro"), ("balanced_accuracy", "")):
        row = primary(found, metric, name)
        assert np.isnan(row["difference"])
        assert row["method"] == "none"
        assert np.isnan(row["p_value"])
    assert primary(found, "sensitivity", "AML")["method"] == "mover_wilson_neff"


def test_an_infinite_ratio_has_no_interval_of_its_difference(tmp_path):
    truth = np.repeat([True, False], 40)
    scores = [np.repeat([0.9, 0.1, 0.9, 0.1], [30, 10, n, 40 - n]) for n in (1, 12)]
    tables = [of_scores(np.arange(80), truth, s, n) for s, n in zip(scores, ("one", "two"), strict=True)]
    found = run(tmp_path, tables, *OF_CASES)
    row = primary(found, "lr_positive")
    assert row["difference"] == pytest.approx(30 - 2.5)
    assert row["method"] == "none"
    assert "the ratio is infinite in" in warned(found)
    assert primary(found, "lr_negative")["method"] == "bootstrap_bca"


def test_a_side_without_spread_is_told(tmp_path):
    first, second = small()
    sure = first["truth"].eq("AML").astype(float)
    found = run(
        tmp_path, [first.assign(p_AML=sure, p_well=1 - sure, predicted=first["truth"]), second], *OF_CASES
    )
    told = found["warnings"].query("warning.str.contains('where nothing moves it')")
    # Proportions have an interval that reckons with the errors that might have been; means of them have not.
    assert "balanced_accuracy" in set(told["metric"])
    assert not {"accuracy", "sensitivity", "ppv"} & set(told["metric"])
    assert "brier" not in set(told["metric"])
    usual = run(tmp_path / "usual", small(), *OF_CASES)
    assert "where nothing moves it" not in warned(usual)


def test_a_class_in_one_patient_has_neither_interval_nor_p_value(tmp_path):
    tables = [t.assign(truth=np.where(t["patient_id"] == "P0", "AML", "well")) for t in small()]
    found = run(tmp_path, tables, *OF_CASES)
    for metric in ("auc", "sensitivity"):
        assert primary(found, metric)["method"] == "none"
        assert np.isnan(primary(found, metric)["p_value"])
    assert primary(found, "specificity")["p_value"] <= 1
    assert "1 patients of positive, at least two are needed" in warned(found)


def test_the_seed_decides_every_byte(tmp_path):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, small(), *OF_CASES, accuracy={"replicates": 100, "seed": seed})
        files.append((tmp_path / name / "out" / "comparisons.csv").read_bytes())
    assert files[0] == files[1] != files[2]


UNPAIRED = ("--unpaired", "--index-test", "one", "--unit", "case", "--positive", "AML")


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_p_value_and_interval_of_an_auc_never_contradict(seed):
    sides = [
        measure_side(evaluate_classes(sample_of(t)), name, "north", SETTINGS, "test")
        for t, name in zip(several(seed, n=60, patients=20), ("one", "two"), strict=True)
    ]
    rows = comparison_rows(*sides, True, Place("e", "case", []), SETTINGS)
    printed = rows[rows["primary"] & rows["metric"].eq("auc") & rows["method"].eq("jackknife_t")]
    excludes = (printed["low"] > 0) | (printed["high"] < 0)
    assert (printed["p_value"].lt(0.05) == excludes).all()
    assert len(printed) >= 1


def test_difference_of_aucs_leaves_patients_out(tmp_path):
    one, two = small()
    row = primary(run(tmp_path, [one, two], *OF_CASES), "auc")

    def difference(kept):
        ill = one["truth"].eq("AML")[kept]
        return sk.roc_auc_score(ill, one["p_AML"][kept]) - sk.roc_auc_score(ill, two["p_AML"][kept])

    without = np.array([difference(one["patient_id"] != p) for p in one["patient_id"].unique()])
    # Six patients have diseased units, nine others: five degrees of freedom.
    error = np.sqrt(9 / 10 * ((without - without.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, 5) * error
    assert (row["low"], row["high"]) == pytest.approx((-0.025 - half, -0.025 + half), abs=1e-9)
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(0.025 / error, 5))


def test_two_hospitals_add_delongs_variances(tmp_path):
    """Radius in one hospital, texture in another: intervals of pROC give the two standard errors."""
    data = load_breast_cancer()
    ill, names = data.target == 0, list(data.feature_names)
    tables = []
    for cohort, column in (("north", "mean radius"), ("south", "mean texture")):
        scores = data.data[:, names.index(column)]
        table = of_scores(np.arange(len(ill)), ill, scores / scores.max(), "one")
        tables.append(table.assign(cohort=cohort))
    found = run(tmp_path, tables, *UNPAIRED)
    assert set(found) == {"comparisons", "warnings"}
    row = found["comparisons"].query("method == 'delong'").iloc[0]
    errors = [(0.958012361227 - 0.937516516040), (0.814503023660 - 0.775824480736)]
    difference = 0.937516516040 - 0.775824480736
    z = difference / (np.hypot(*errors) / stats.norm.ppf(0.975))
    assert row["p_value"] == pytest.approx(2 * stats.norm.sf(z), rel=1e-6)
    assert row["low"] == pytest.approx(difference - np.hypot(*errors), abs=1e-8)
    beside = row
    row = primary(found, "auc")
    assert (row["index_test"], row["cohort"], row["against"], row["against_cohort"]) == (
        "one",
        "north",
        "one",
        "south",
    )
    assert row["low"] == pytest.approx(beside["low"], abs=0.02)
    assert primary(found, "sensitivity")["test"] == "rao_scott"


def test_clustered_hospitals_and_their_sizes(tmp_path):
    first, second = small()
    second = second.assign(index_test="one", cohort="south").query("patient_id != 'P4'")
    found = run(tmp_path, [first, second], *UNPAIRED)
    row = found["comparisons"].query("method == 'obuchowski'").iloc[0]
    assert (row["metric"], row["test"]) == ("auc", "obuchowski")
    assert (row["n_cases"], row["n_patients"]) == (26, 10)
    assert (row["n_cases_against"], row["n_patients_against"]) == (24, 9)
    ill = second["truth"].eq("AML")
    assert row["estimate_against"] == pytest.approx(sk.roc_auc_score(ill, second["p_AML"]))
    swapped = run(tmp_path / "b", [second, first], *UNPAIRED)
    mirrored = swapped["comparisons"].query("method == 'obuchowski'").iloc[0]
    assert mirrored["p_value"] == pytest.approx(row["p_value"], rel=1e-12)
    two = run(tmp_path / "c", [first, second.assign(index_test="two")], *UNPAIRED, "--against", "two")
    assert primary(two, "auc")["against"] == "two"
    assert two["comparisons"].query("method == 'obuchowski'").iloc[0]["p_value"] == row["p_value"]


def test_the_two_sides_are_drawn_independently(tmp_path):
    first, _ = small()
    found = run(tmp_path, [first, first.assign(cohort="south")], *UNPAIRED)
    row = primary(found, "auc")
    assert (row["difference"], row["p_value"], row["method"]) == (0, 1, "jackknife_t")
    # Obuchowski's variance of the one AUC, twice.
    half = stats.norm.ppf(0.975) * np.sqrt(2 * 0.007450405714)
    beside = found["comparisons"].query("metric == 'auc' and method == 'bootstrap_bca'").iloc[0]
    assert beside["high"] - beside["low"] == pytest.approx(2 * half, rel=0.25)


def test_either_side_may_have_too_few_patients(tmp_path):
    first, second = small()
    second = second.assign(index_test="one", cohort="south")
    second["truth"] = np.where(second["patient_id"] == "P0", "AML", "well")
    for name, tables in (("a", [first, second]), ("b", [second, first])):
        found = run(tmp_path / name, tables, *UNPAIRED)
        assert primary(found, "sensitivity")["method"] == "none"
        assert np.isnan(primary(found, "sensitivity")["p_value"])
        assert primary(found, "specificity")["method"] == "mover_wilson_neff"


def test_a_patient_of_both_hospitals_is_refused(tmp_path):
    first, second = small()
    second = second.assign(index_test="one")
    with pytest.raises(UserError, match="10 patients stand in both tables") as error:
        run(tmp_path / "a", [first, second], *UNPAIRED)
    assert "patient 'P0' of cohort 'north'" in str(error.value)
    with pytest.raises(UserError, match="names one"):
        run(tmp_path / "b", [first], *UNPAIRED)


def test_wrong_flags_are_told(tmp_path, capsys):
    first, second = small()
    both = [first, second]
    for i, (arguments, message) in enumerate(
        [
            (("--index-test", "one"), "--against is missing"),
            (("--index-test", "one", "--against", "one"), "cannot be compared with itself"),
            (("--index-test", "one", "--against", "reader"), "no table holds index test 'reader'"),
            (("--unpaired", "--index-test", "one"), "1.csv holds no index test 'one'; it holds: two"),
            ((*PAIRED, "--positive", "CML"), "'CML' is no class"),
        ]
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / str(i), both, *arguments)
    with pytest.raises(UserError, match="'one' stands in 2 tables"):
        run(tmp_path / "twice", [first, first, second], *PAIRED)
    with pytest.raises(SystemExit):
        run(tmp_path / "flag", both, *PAIRED, "--unit", "cell")
    assert "invalid choice: 'cell'" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds index test"):
        run(tmp_path / "unnamed", [t.drop(columns="index_test") for t in both], *PAIRED)


def test_tables_of_other_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be used"):
        run(tmp_path, [small()[0], several()[1]], *PAIRED, "--unit", "case")


def test_a_lone_probability_is_compared_as_the_whole_table_is(tmp_path):
    first, second = small()
    whole = run(tmp_path / "a", [first, second], *PAIRED, "--unit", "case", "--positive", "AML", "AML")
    lone = [first.drop(columns="p_well"), second.drop(columns="p_AML")]
    tables = run(tmp_path / "b", lone, *PAIRED, "--unit", "case", "--positive", "AML")
    pd.testing.assert_frame_equal(tables["comparisons"], whole["comparisons"], atol=1e-12)
    told = tables["warnings"]["warning"].tolist()
    assert told.count("one: the only probability column is 'p_AML': 'well' has 1 - p_AML") == 1
    assert told.count("two: the only probability column is 'p_well': 'AML' has 1 - p_well") == 1


def test_a_slip_in_positive_or_a_damaged_table_is_told(tmp_path):
    first, second = (t.drop(columns=["p_AML", "p_well"]) for t in small())
    with pytest.raises(UserError, match=r"--positive: 'AMl' is no class .* did you mean 'AML'"):
        run(tmp_path / "a", [first, second], *PAIRED, "--unit", "case", "--positive", "AMl")
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"not Parquet")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        main(["--predictions", str(damaged), *PAIRED, "--out", str(tmp_path / "out")])


def test_the_primary_index_test_is_compared_with_all_others(tmp_path):
    tables = several(names=("one", "two", "three"))
    primary_file = tmp_path / "primary.json"
    primary_file.write_text(json.dumps({"index_test": "two", "how": "chosen"}))
    found = run(tmp_path / "a", tables, "--primary", str(primary_file))
    asked = run(tmp_path / "b", tables, "--index-test", "two", "--against", "one", "three")
    assert set(found) == set(asked)
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, asked[name])
    pairs = found["comparisons"][["index_test", "against"]].drop_duplicates()
    # In the order of the tables, of which one may hold several.
    assert pairs.to_numpy().tolist() == [["two", "one"], ["two", "three"]]
    turned = run(tmp_path / "c", [pd.concat(tables[1:]), tables[0]], "--primary", str(primary_file))
    assert list(dict.fromkeys(turned["comparisons"]["against"])) == ["three", "one"]


def test_the_primary_index_test_between_hospitals(tmp_path):
    here, there = small()
    there = there.assign(index_test="one", cohort="south", case_id="s" + there["case_id"])
    primary_file = tmp_path / "primary.json"
    primary_file.write_text(json.dumps({"index_test": "one"}))
    found = run(tmp_path / "a", [here, there], "--unpaired", "--unit", "case", "--primary", str(primary_file))
    asked = run(tmp_path / "b", [here, there], "--unpaired", "--unit", "case", "--index-test", "one")
    pd.testing.assert_frame_equal(found["comparisons"], asked["comparisons"])


def test_a_primary_index_test_that_cannot_be_compared(tmp_path, capsys):
    first, second = small()
    primary_file = tmp_path / "primary.json"
    primary_file.write_text(json.dumps({"index_test": "one"}))
    chosen = ("--primary", str(primary_file))
    with pytest.raises(UserError, match="leave --against out"):
        run(tmp_path / "a", [first, second], *chosen, "--against", "two")
    with pytest.raises(UserError, match="the tables hold no index test but 'one'"):
        run(tmp_path / "b", [first], *chosen)
    with pytest.raises(UserError, match="no table holds index test 'one'"):
        run(tmp_path / "c", [second], *chosen)
    for arguments in (("--index-test", "one", *chosen), ()):
        with pytest.raises(SystemExit):
            run(tmp_path / "d", [first, second], *arguments)
    assert "one of the arguments --index-test --primary is required" in capsys.readouterr().err
