"""The step as it is run: its tables against oracles, scikit-learn on the same resamples, and hand counts."""

import json

import numpy as np
import pandas as pd
import pytest
from oracles import clustered_small
from sklearn import metrics as sk

from marrowflow.choices.threshold import digest_of
from marrowflow.errors import UserError
from marrowflow.statistics.accuracy import main
from marrowflow.statistics.bootstrap import draw_weights
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.evaluation import evaluate_binary, evaluate_classes

COLUMNS = (
    "endpoint,metric,class,unit,estimate,low,high,method,primary,n_cases,n_patients,"
    "numerator,denominator,replicates,undefined,seed"
)


def run(tmp_path, table, *arguments, **sections):
    """Run the step on a table; return its tables by name."""
    tmp_path.mkdir(exist_ok=True)
    path, out = tmp_path / "p.csv", tmp_path / "out"
    table.to_csv(path, index=False)
    sections = {"accuracy": {"replicates": 200}, **sections}
    main(["--predictions", str(path), "--out", str(out), "--options", json.dumps(sections), *arguments])
    return {
        f.stem: pd.read_csv(f, keep_default_na=False, na_values={"estimate": [""], "low": [""], "high": [""]})
        for f in out.glob("*.csv")
    }


def primary(tables, metric, name="", **where):
    rows = tables["metrics"].query("primary and metric == @metric and `class` == @name")
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1, rows
    return rows.iloc[0]


@pytest.fixture
def small():
    rows = clustered_small()
    return pd.DataFrame(
        {
            "patient_id": rows["patient"],
            "truth": np.where(rows["y"] == 1, "AML", "other"),
            "predicted": np.where(rows["s1"] >= 0.5, "AML", "other"),
            "p_AML": rows["s1"],
            "p_other": 1 - rows["s1"],
        }
    )


def three_classes(n=240, patients=60, seed=0):
    """Every patient has one class, so that both units can be counted."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) % patients
    truth = rng.integers(0, 3, patients)[patient]
    logits = 1.2 * np.eye(3)[truth] + rng.normal(size=(patients, 3))[patient] + rng.normal(size=(n, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = np.array(["AML", "ALL", "CML"])
    return pd.DataFrame(
        {
            "patient_id": [f"P{i:02}" for i in patient],
            "truth": names[truth],
            "predicted": names[p.argmax(axis=1)],
            **{f"p_{name}": p[:, i] for i, name in enumerate(names)},
        }
    )


def test_oracles_of_the_small_table(small, tmp_path):
    tables = run(tmp_path, small, "--unit", "case", "--positive", "AML")
    assert ",".join(tables["metrics"].columns) == COLUMNS
    expected = {
        "auc": 0.88125,
        "average_precision": 0.8364699627857523,
        "brier": 0.14598076923076925,
        "mcc": 0.5367450401216932,
        "f1": 0.7272727272727273,
        "sensitivity": 8 / 10,
        "specificity": 12 / 16,
        "ppv": 8 / 12,
        "npv": 12 / 14,
    }
    for metric, value in expected.items():
        row = primary(tables, metric)
        assert row["estimate"] == pytest.approx(value, abs=1e-12), metric
        assert (row["n_cases"], row["n_patients"], row["endpoint"]) == (26, 10, "AML")
    row = primary(tables, "sensitivity")
    assert (row["method"], row["numerator"], row["denominator"]) == ("wilson_neff", "8", "10")
    assert (primary(tables, "auc")["method"], primary(tables, "auc")["replicates"]) == ("jackknife_logit", 0)
    assert (primary(tables, "f1")["method"], primary(tables, "f1")["replicates"]) == ("bootstrap_bca", 200)
    logit = tables["metrics"].query("method == 'obuchowski_logit'").iloc[0]
    half = 1.959963984540054 * np.sqrt(0.007450405714) / (0.88125 * 0.11875)
    middle = np.log(0.88125 / 0.11875)
    assert logit["low"] == pytest.approx(1 / (1 + np.exp(half - middle)), abs=1e-9)
    # One primary row a metric; no exact interval, because patients have several cases.
    assert (tables["metrics"].groupby("metric")["primary"].sum() == 1).all()
    assert not tables["metrics"]["method"].isin(["clopper_pearson", "wilson", "delong"]).any()
    counts = tables["confusion"].set_index(["truth", "predicted"])["n"]
    assert counts["AML", "positive"] == 8
    assert counts["other", "positive"] == 4
    assert "6 patients of positive" in " ".join(tables["warnings"]["warning"])


def as_sample(table, classes):
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


def test_replicates_equal_scikit_learn():
    classes = ["AML", "ALL", "CML"]
    sample = as_sample(three_classes(), classes)
    weights = next(draw_weights(sample.n_patients, 12, 0))
    binary = evaluate_binary(sample, ["AML", "ALL"], sample.predicted != 2).values(weights)
    several = evaluate_classes(sample).values(weights)
    for b, w in enumerate(weights):
        rows = np.repeat(np.arange(len(sample.truth)), w[sample.patient])
        truth, answer, p = sample.truth[rows], sample.predicted[rows], sample.probabilities[rows]
        y, score = truth != 2, p[:, :2].sum(axis=1)
        for (metric, value), expected in zip(
            [(k[0], v[b]) for k, v in binary.items() if k[0] in ("auc", "brier", "sensitivity", "ppv")],
            [
                sk.recall_score(y, answer != 2),
                sk.precision_score(y, answer != 2),
                sk.brier_score_loss(y, score),
                sk.roc_auc_score(y, score),
            ],
            strict=True,
        ):
            assert value == pytest.approx(expected, abs=1e-12), metric
        assert several["accuracy", ""][b] == sk.accuracy_score(truth, answer)
        assert several["mcc", ""][b] == pytest.approx(sk.matthews_corrcoef(truth, answer), abs=1e-12)
        assert several["average_precision", "CML"][b] == pytest.approx(
            sk.average_precision_score(truth == 2, p[:, 2]), abs=1e-12
        )
        assert several["sensitivity", "ALL"][b] == sk.recall_score(truth == 1, answer == 1)
        for average in ("macro", "micro"):
            expected = {
                "auc": sk.roc_auc_score(truth, p, multi_class="ovr", average=average),
                "average_precision": sk.average_precision_score(np.eye(3)[truth], p, average=average),
                "sensitivity": sk.recall_score(truth, answer, average=average),
                "ppv": sk.precision_score(truth, answer, average=average),
                "f1": sk.f1_score(truth, answer, average=average),
            }
            found = {metric: several[metric, average][b] for metric in expected}
            assert found == pytest.approx(expected, abs=1e-12)


def test_micro_rows_count_every_answer_once(tmp_path):
    table = three_classes()
    tables = run(tmp_path, table, "--unit", "case")
    whole = primary(tables, "accuracy")
    for metric in ("sensitivity", "ppv"):
        row = primary(tables, metric, "micro")
        same = ["estimate", "low", "high", "method", "numerator", "denominator"]
        assert row[same].tolist() == whole[same].tolist()
    assert primary(tables, "auc", "micro")["method"] == "jackknife_logit"


def test_all_endpoints_and_units_in_one_call(tmp_path):
    table = three_classes()
    tables = run(tmp_path, table, endpoints={"acute": {"positive": ["AML", "ALL"]}})
    metrics = tables["metrics"]
    assert set(zip(metrics["endpoint"], metrics["unit"], strict=True)) == {
        (e, u) for e in ("acute", "classes") for u in ("patient", "case")
    }
    assert metrics.groupby(["endpoint", "unit", "metric", "class"])["primary"].sum().eq(1).all()
    accuracy = primary(tables, "accuracy", endpoint="classes", unit="case")
    assert accuracy["estimate"] == pytest.approx((table["truth"] == table["predicted"]).mean())
    mean = table.groupby("patient_id")[["p_AML", "p_ALL", "p_CML"]].mean()
    truth = table.groupby("patient_id")["truth"].first()
    right = mean.idxmax(axis=1).str[2:] == truth
    row = primary(tables, "accuracy", endpoint="classes", unit="patient")
    assert (row["numerator"], row["denominator"]) == (str(right.sum()), "60")
    assert (row["n_cases"], row["n_patients"]) == (240, 60)
    auc = primary(tables, "auc", endpoint="acute", unit="patient")
    assert auc["estimate"] == pytest.approx(sk.roc_auc_score(truth != "CML", mean["p_AML"] + mean["p_ALL"]))
    methods = set(metrics.query("unit == 'patient'")["method"])
    assert {"clopper_pearson", "wilson", "delong", "obuchowski_logit"} <= methods
    for name in ("roc", "pr", "calibration"):
        assert set(tables[name]["class"]) == {"", "AML", "ALL", "CML"}, name
    assert tables["confusion"].query("endpoint == 'classes' and unit == 'case'")["n"].sum() == 240


def test_seed_decides_every_byte(tmp_path):
    table = three_classes(60, 20)
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, table, accuracy={"replicates": 100, "seed": seed})
        files.append((tmp_path / name / "out" / "metrics.csv").read_bytes())
    assert files[0] == files[1] != files[2]


def test_lock_decides_at_its_unit(tmp_path):
    table = three_classes()
    lock = {
        "index_test": "net-raw",
        "endpoints": {
            "aml": {"positive": ["AML"], "patient": {"threshold": 0.2}, "case": {"threshold": 0.7}}
        },
    }
    (tmp_path / "threshold.json").write_text(json.dumps({**lock, "digest": digest_of(lock)}))
    tables = run(tmp_path, table, "--positive", "AML", "--lock", str(tmp_path / "threshold.json"))
    of_case = ((table["p_AML"] >= 0.7) & (table["truth"] == "AML")).sum()
    assert primary(tables, "sensitivity", unit="case")["numerator"] == str(of_case)
    mean = table.groupby("patient_id").agg({"p_AML": "mean", "truth": "first"})
    of_patient = ((mean["p_AML"] >= 0.2) & (mean["truth"] == "AML")).sum()
    assert primary(tables, "sensitivity", unit="patient")["numerator"] == str(of_patient)
    assert "locked for index test 'net-raw'" in tables["warnings"]["warning"].iloc[0]
    with pytest.raises(UserError, match="labels only"):
        run(
            tmp_path,
            table[["patient_id", "truth", "predicted"]],
            "--lock",
            str(tmp_path / "threshold.json"),
        )


def test_cases_without_truth_or_answer_are_tabulated_and_not_counted(small, tmp_path):
    whole = run(tmp_path / "a", small, "--unit", "case", "--positive", "AML")
    more = pd.concat(
        [
            small.assign(status="ok"),
            pd.DataFrame(
                {
                    "patient_id": ["P01", "P98", "P99", "P97"],
                    "truth": ["AML", "missing", "inconclusive", "inconclusive"],
                    "predicted": [None, "AML", "other", None],
                    "p_AML": [None, 0.8, 0.1, None],
                    "p_other": [None, 0.2, 0.9, None],
                    "status": ["indeterminate", "ok", "ok", "not_done"],
                }
            ),
        ]
    )
    tables = run(tmp_path / "b", more, "--unit", "case", "--positive", "AML")
    pd.testing.assert_frame_equal(tables["metrics"], whole["metrics"])
    counts = tables["confusion"].set_index(["truth", "predicted"])["n"]
    assert counts.sum() == 30
    assert counts["AML", "indeterminate"] == 1
    assert counts["missing", "positive"] == 1
    assert counts["inconclusive", "negative"] == 1
    assert counts["inconclusive", "not_done"] == 1


def test_labels_only_say_what_is_left_out(small, tmp_path):
    tables = run(tmp_path, small[["patient_id", "truth", "predicted"]], "--unit", "case", "--positive", "AML")
    assert primary(tables, "sensitivity")["estimate"] == 0.8
    assert not set(tables["metrics"]["metric"]) & {"auc", "brier", "average_precision"}
    warned = tables["warnings"].query("warning.str.contains('needs probabilities')")
    assert set(warned["metric"]) == {"auc", "brier", "average_precision"}
    assert tables["roc"].empty
    assert list(tables["roc"].columns) == ["endpoint", "unit", "class", "fpr", "tpr", "threshold"]


def test_absent_class_is_undefined_and_not_nought(tmp_path):
    table = three_classes().query("truth != 'CML'")
    tables = run(tmp_path, table, "--unit", "case")
    for metric, name in (("sensitivity", "CML"), ("auc", "CML"), ("auc", "macro"), ("balanced_accuracy", "")):
        row = primary(tables, metric, name)
        assert np.isnan(row["estimate"])
        assert row["method"] == "none"
        assert len(tables["warnings"].query("metric == @metric and `class` == @name")) == 1
    assert primary(tables, "sensitivity", "AML")["method"] == "wilson_neff"


def test_one_patient_has_estimates_and_no_intervals(tmp_path):
    table = three_classes(12, 1).assign(truth=["AML", "ALL", "CML"] * 4)
    tables = run(tmp_path, table, "--unit", "case", "--positive", "AML")
    assert set(tables["metrics"]["method"]) == {"none"}
    assert tables["metrics"]["low"].isna().all()
    assert primary(tables, "sensitivity")["denominator"] == "4"


def test_nothing_to_count_has_no_estimates(tmp_path):
    tables = run(tmp_path, three_classes(12, 6).assign(truth="missing"))
    assert tables["metrics"]["estimate"].isna().all()
    assert set(tables["metrics"]["n_patients"]) == {0}
    assert tables["confusion"].query("unit == 'case'")["n"].sum() == 12


def test_class_in_one_patient_has_no_clustered_interval(tmp_path):
    table = three_classes(40, 20)
    table["truth"] = np.where(table["patient_id"] == "P00", "AML", "ALL")
    tables = run(tmp_path, table, "--unit", "case", "--positive", "AML")
    assert primary(tables, "sensitivity")["method"] == "none"
    assert primary(tables, "auc")["method"] == "none"
    assert primary(tables, "specificity")["method"] == "wilson_neff"


def test_rows_without_patients_are_their_own(small, tmp_path):
    tables = run(tmp_path, small.drop(columns="patient_id"), "--unit", "case", "--positive", "AML")
    row = primary(tables, "sensitivity")
    assert row["n_patients"] == 26
    assert "no patient_id" in tables["warnings"]["warning"].iloc[0]


def test_perfect_test_gets_no_zero_width_interval(tmp_path):
    table = three_classes()
    for name in ("AML", "ALL", "CML"):
        table[f"p_{name}"] = (table["truth"] == name).astype(float)
    table["predicted"] = table["truth"]
    metrics = run(tmp_path, table, "--unit", "patient", "--positive", "AML")["metrics"]
    assert (metrics["low"] < metrics["high"]).eq(metrics["method"] != "none").all()
    assert set(metrics.query("metric == 'sensitivity'")["method"]) == {
        "wilson_neff",
        "clopper_pearson",
        "wilson",
    }


def test_endpoint_of_unknown_or_all_classes_is_refused(small, tmp_path):
    with pytest.raises(UserError, match="'CML' is no class"):
        run(tmp_path, small, "--positive", "CML")
    with pytest.raises(UserError, match="nothing is left"):
        run(tmp_path, small, "--positive", "AML", "other")


def labels(truth, predicted):
    return pd.DataFrame(
        {"patient_id": [f"p{i}" for i in range(len(truth))], "truth": truth, "predicted": predicted}
    )


def test_labels_of_one_class_only(tmp_path):
    ill = labels(["AML"] * 8, ["AML"] * 8)
    tables = run(tmp_path / "a", ill, "--unit", "case", "--positive", "AML")
    row = primary(tables, "sensitivity")
    assert (row["estimate"], row["numerator"], row["method"]) == (1.0, "8", "wilson_neff")
    for metric in ("specificity", "npv", "mcc", "lr_positive"):
        row = primary(tables, metric)
        assert np.isnan(row["estimate"])
        assert row["method"] == "none"
        assert len(tables["warnings"].query("metric == @metric")) == 1
    # The only class that is seen is the negative one.
    asked = {"ill": {"positive": ["AML"]}}
    tables = run(tmp_path / "b", labels(["well"] * 8, ["well"] * 8), "--unit", "case", endpoints=asked)
    assert primary(tables, "specificity")["estimate"] == 1.0
    assert np.isnan(primary(tables, "sensitivity")["estimate"])
    assert "class 'AML' stands in no row, as truth or as prediction" in set(tables["warnings"]["warning"])
    tables = run(tmp_path / "c", ill, "--unit", "patient")
    assert primary(tables, "accuracy", endpoint="classes")["estimate"] == 1.0
    with pytest.raises(UserError, match="'AML' is no class"):
        run(tmp_path / "d", labels(["well"], ["well"]), "--positive", "AML", classes=["well", "ALL"])
    with pytest.raises(UserError, match="nothing is left"):
        run(tmp_path / "e", ill, "--positive", "AML", classes=["AML"])


def test_labels_without_any_truth(tmp_path):
    tables = run(tmp_path / "a", labels(["missing"] * 4, ["AML"] * 3 + ["ALL"]), "--positive", "AML")
    assert tables["metrics"]["estimate"].isna().all()
    counts = tables["confusion"].query("unit == 'case'").set_index(["truth", "predicted"])["n"]
    assert (counts["missing", "positive"], counts["missing", "negative"]) == (3, 1)
    nothing = labels(["missing"] * 4, [""] * 4).assign(status="not_done")
    with pytest.raises(UserError, match="nothing can be counted"):
        run(tmp_path / "b", nothing, "--positive", "AML")


def test_reader_with_labels_beside_a_network(small, tmp_path):
    case = [f"c{i}" for i in range(len(small))]
    reader = small[["patient_id", "truth"]].assign(predicted=small["truth"], index_test="reader")
    both = pd.concat([small.assign(index_test="network", case_id=case), reader.assign(case_id=case)])
    chosen = ("--unit", "case", "--positive", "AML", "--index-test")
    assert primary(run(tmp_path / "a", both, *chosen, "reader"), "sensitivity")["estimate"] == 1.0
    network = run(tmp_path / "b", both, *chosen, "network")
    alone = run(tmp_path / "c", small, *chosen[:-1])
    pd.testing.assert_frame_equal(network["metrics"], alone["metrics"])


def test_patients_by_vote_are_told(small, tmp_path):
    table = small.assign(predicted=np.where(small["p_AML"] >= 0.7, "AML", "other"))
    other = int(((small["p_AML"] >= 0.5) & (small["p_AML"] < 0.7)).sum())
    several = int((small.groupby("patient_id").size() > 1).sum())
    truth = small.groupby("patient_id")["truth"].transform("first")
    warned = run(tmp_path, table.assign(truth=truth), "--unit", "patient", "--positive", "AML")["warnings"]
    (line,) = [w for w in warned["warning"] if "majority of 'predicted'" in w]
    assert f"in {other} rows: the class of {several} patients" in line


def test_ratios_have_the_log_interval_where_no_resample_has_an_end(tmp_path):
    truth = ["AML"] * 40 + ["well"] * 40
    predicted = ["AML"] * 30 + ["well"] * 10 + ["AML"] + ["well"] * 39
    tables = run(tmp_path, labels(truth, predicted), "--unit", "case", "--positive", "AML")
    # The one false positive is in no resample with chance (79/80)^80 = .37: the bootstrap has no upper limit.
    row = primary(tables, "lr_positive")
    half = 1.959963984540054 * np.sqrt(1 / 30 - 1 / 40 + 1 - 1 / 40)
    assert (row["method"], row["estimate"]) == ("log_robust", pytest.approx(30))
    assert (row["low"], row["high"]) == pytest.approx((30 / np.exp(half), 30 * np.exp(half)))
    beside = tables["metrics"].query("metric in ['lr_positive', 'dor']")
    assert set(beside["method"]) == {"log_robust", "mover_wilson_neff"}
    assert not len(tables["warnings"].query("metric == 'lr_positive'"))


def test_ratios_with_an_empty_cell(tmp_path):
    truth = ["AML"] * 40 + ["well"] * 40
    arguments = ("--unit", "case", "--positive", "AML")
    tables = run(tmp_path / "a", labels(truth, ["AML"] * 45 + ["well"] * 35), *arguments)
    row = primary(tables, "lr_negative")
    assert (row["estimate"], row["low"], row["method"]) == (0, 0, "mover_wilson_neff")
    # A sensitivity of 40/40 may be .91, a specificity of 35/40 .74.
    assert 0.05 < row["high"] < (1 - 0.91) / 0.74
    tables = run(tmp_path / "b", labels(truth, ["well"] * 40 + ["AML"] * 5 + ["well"] * 35), *arguments)
    row = primary(tables, "dor")
    assert (row["estimate"], row["method"]) == (0, "none")
    told = tables["warnings"].query("metric == 'dor'")["warning"].tolist()
    assert told == ["no interval of this ratio: a cell of the table is empty, and a limit infinite"]


def test_ratios_of_clustered_cases_agree_with_the_predictive_values(tmp_path):
    """LR+ and the PPV at a prevalence are one another's functions, and so are their limits."""
    table = three_classes()
    tables = run(
        tmp_path,
        table,
        "--unit",
        "case",
        "--positive",
        "AML",
        accuracy={"replicates": 100, "prevalences": [0.2]},
    )
    ratio = primary(tables, "lr_positive")
    values = tables["predictive_values"].query("primary and metric == 'ppv_at_prevalence'").iloc[0]
    for limit in ("estimate", "low", "high"):
        odds = ratio[limit] * 0.2 / 0.8
        assert values[limit] == pytest.approx(odds / (1 + odds))
    assert ratio["method"] == values["method"] == "mover_wilson_neff"
    assert primary(tables, "balanced_accuracy")["method"] == "mover_wilson_neff"


def test_accuracy_of_each_class(tmp_path):
    table = three_classes()
    tables = run(tmp_path, table, "--unit", "case")
    right = (table["truth"].eq("CML") == table["predicted"].eq("CML")).sum()
    row = primary(tables, "accuracy", "CML")
    assert (row["numerator"], row["denominator"], row["method"]) == (str(right), "240", "wilson_neff")
    assert row["estimate"] == right / 240
    assert row["low"] < right / 240 < row["high"]


def test_classes_without_spread_are_told(tmp_path):
    table = three_classes()
    sure = table["truth"].eq("CML")
    for name in ("AML", "ALL", "CML"):
        table.loc[sure, f"p_{name}"] = float(name == "CML")
    table.loc[sure, "predicted"] = "CML"
    tables = run(tmp_path / "a", table, "--unit", "case")
    told = tables["warnings"].query("warning.str.contains('variance counted as 0')")
    assert set(zip(told["metric"], told["class"], strict=True)) == {
        ("auc", "macro"),
        ("average_precision", "macro"),
    }
    # Means of proportions reckon with the errors that might have been.
    for metric, name in (("balanced_accuracy", ""), ("sensitivity", "macro"), ("ppv", "macro")):
        assert primary(tables, metric, name)["method"] == "mover_wilson_neff"
    expected = "1 class at 0 % or 100 %: variance counted as 0, the interval is too narrow"
    assert set(told["warning"]) == {expected}
    usual = run(tmp_path / "c", three_classes(), "--unit", "case")["warnings"]
    assert not usual["warning"].str.contains("variance counted as 0").any()


def test_surrogate_groups_are_not_called_patients(small, tmp_path):
    source = np.where(small["patient_id"] == small["patient_id"].iloc[0], "surrogate", "manifest")
    arguments = ("--unit", "case", "--positive", "AML")
    tables = run(tmp_path / "a", small.assign(patient_source=source), *arguments)
    row = tables["warnings"].iloc[0]
    assert row["warning"] == "no patient identifiers: clusters are surrogate groups of near duplicates"
    assert row[["endpoint", "metric", "class", "unit"]].tolist() == [""] * 4
    assert "6 surrogate groups of positive: estimates are coarse under 30" in set(
        tables["warnings"]["warning"]
    )
    named = run(tmp_path / "b", small.assign(patient_source="manifest"), *arguments)["warnings"]
    assert not named["warning"].str.contains("surrogate").any()


def test_equal_numbers_of_two_hospitals_are_not_one_cluster(small, tmp_path):
    twice = pd.concat([small.assign(cohort="north"), small.assign(cohort="south")])
    tables = run(tmp_path, twice, "--unit", "case", "--positive", "AML")
    assert set(tables["metrics"]["n_patients"]) == {20}


def test_a_leaky_protocol_is_stamped(tmp_path):
    lock = {
        "protocol": "as_published",
        "endpoints": {"aml": {"positive": ["AML"], "case": {"threshold": 0.5}}},
    }
    (tmp_path / "threshold.json").write_text(json.dumps({**lock, "digest": digest_of(lock)}))
    arguments = ["--positive", "AML", "--unit", "case", "--lock", str(tmp_path / "threshold.json")]
    warnings = run(tmp_path, three_classes(), *arguments)["warnings"]
    assert warnings["warning"].str.startswith("leaky protocol").sum() == 1


BESIDE = {
    "calibration_measures": ["metric", "class", "unit", "scores"],
    "decision": ["metric", "class", "unit", "at"],
    "predictive_values": ["metric", "class", "unit", "at"],
    "operating_points": ["metric", "class", "unit", "at"],
    "roc_band": ["metric", "class", "unit", "at"],
}


def test_one_row_of_each_number_beside_the_metrics_is_printed(tmp_path):
    tables = run(tmp_path, three_classes(), "--positive", "AML", "CML")
    for name, keys in BESIDE.items():
        rows = tables[name]
        assert len(rows), name
        assert (rows.groupby(keys)["primary"].sum() == 1).all(), name
        printed = rows[rows["primary"] & rows["metric"].ne("net_benefit_treat_all")]
        assert printed["method"].ne("none").mean() > 0.5, name
    assert set(tables["calibration_measures"]["scores"]) == {"as_given", "recalibrated_out_of_fold"}
    points = tables["operating_points"].query("primary")
    assert set(zip(points["metric"], points["at"].astype(float), strict=True)) == {
        ("sensitivity_at_specificity", 0.9),
        ("sensitivity_at_specificity", 0.95),
        ("specificity_at_sensitivity", 0.9),
        ("specificity_at_sensitivity", 0.95),
        ("partial_auc", 0.8),
        ("partial_area", 0.8),
    }
    # An estimate that resampling would only worsen has no interval, and that is told.
    biased = tables["calibration_measures"].query("metric == 'ece'")
    assert set(biased["method"]) == {"none"}
    assert tables["warnings"].query("metric == 'ece'")["warning"].str.contains("biased upwards").all()


def test_measures_beside_the_metrics_as_scikit_learn_has_them(tmp_path):
    table = three_classes()
    sections = {"accuracy": {"replicates": 200, "prevalences": [0.25], "partial_auc_from": 0.7}}
    tables = run(tmp_path, table, "--unit", "case", "--positive", "AML", **sections)
    y, score = table["truth"].eq("AML"), table["p_AML"]
    fpr, tpr, _ = sk.roc_curve(y, score)
    points = tables["operating_points"].query("primary").set_index(["metric", "at"])["estimate"]
    assert points["sensitivity_at_specificity", 0.9] == pytest.approx(tpr[fpr <= 0.1].max())
    assert points["specificity_at_sensitivity", 0.95] == pytest.approx(1 - fpr[tpr >= 0.95].min())
    assert points["partial_auc", 0.7] == pytest.approx(sk.roc_auc_score(y, score, max_fpr=0.3))
    parts = tables["calibration_measures"].query("scores == 'as_given' and primary")
    part = parts.set_index("metric")["estimate"]
    assert part["brier_reliability"] - part["brier_resolution"] + part["brier_uncertainty"] + part[
        "brier_within_bin"
    ] == pytest.approx(sk.brier_score_loss(y, score), abs=1e-12)
    # Bayes at a prevalence of a quarter, from the table's own sensitivity and specificity.
    called = table["predicted"].eq("AML")
    a, b = sk.recall_score(y, called), sk.recall_score(~y, ~called)
    values = tables["predictive_values"].query("primary").set_index(["metric", "at"])["estimate"]
    assert values["ppv_at_prevalence", 0.25] == pytest.approx(a * 0.25 / (a * 0.25 + (1 - b) * 0.75))
    net = tables["decision"].query("primary and metric == 'net_benefit'").set_index("at")["estimate"]
    treated = score >= 0.2
    assert net[0.2] == pytest.approx(((treated & y).sum() - (treated & ~y).sum() / 4) / len(y))
    bins = tables["score_histogram"]
    assert bins["positives"].sum() == y.sum()
    assert bins["negatives"].sum() == (~y).sum()
    assert bins["positives"].iloc[-1] == (y & (score >= 0.95)).sum()


def test_labels_only_have_predictive_values_and_no_more(small, tmp_path):
    labelled = small.drop(columns=["p_AML", "p_other"])
    tables = run(tmp_path, labelled, "--unit", "case", "--positive", "AML")
    assert len(tables["predictive_values"])
    for name in ("calibration_measures", "decision", "operating_points", "roc_band", "score_histogram"):
        assert not len(tables[name]), name
        assert len(tables[name].columns) > 5, name


def test_classes_have_differential_counts(tmp_path):
    table = three_classes()
    tables = run(tmp_path, table, "--unit", "case")
    shares = tables["differential"].set_index(["source", "class"])["numerator"].astype(int)
    assert shares["truth"].to_dict() == table["truth"].value_counts().to_dict()
    assert shares["predicted"].to_dict() == table["predicted"].value_counts().to_dict()
    assert not len(run(tmp_path / "b", table, "--unit", "case", "--positive", "AML")["differential"])


def test_integer_labels_with_an_empty_field_are_integers(tmp_path):
    """Pandas writes them 1.0 and 0.0; of the six rows with a truth 2 of 3 ill and 1 of 3 well are called rightly."""
    table = labels([1, 1, 1, 0, 0, 0, None], [1, 1, 0, 1, 1, 0, 1])
    assert table["truth"].astype(str).iloc[0] == "1.0"
    for i, positive in enumerate(("1", "1.0")):
        tables = run(tmp_path / str(i), table, "--unit", "case", "--positive", positive)
        counts = [
            primary(tables, m, endpoint=1)[["numerator", "denominator"]].tolist()
            for m in ("sensitivity", "specificity")
        ]
        assert counts == [["2", "3"], ["1", "3"]]


def test_a_lone_probability_is_the_whole_answer_to_a_yes_or_no_question(small, tmp_path):
    lone = small.drop(columns=["predicted", "p_other"])
    whole = run(tmp_path / "a", small, "--unit", "case", "--positive", "AML")
    tables = run(tmp_path / "b", lone, "--unit", "case", "--positive", "AML")
    told = set(tables["warnings"]["warning"]) - set(whole["warnings"]["warning"])
    assert told == {"the only probability column is 'p_AML': 'other' has 1 - p_AML"}
    assert primary(tables, "brier")["estimate"] == pytest.approx(0.14598076923076925, abs=1e-12)
    assert primary(tables, "auc")["estimate"] == pytest.approx(0.88125, abs=1e-12)
    assert primary(tables, "sensitivity")["numerator"] == "8"
    other = run(tmp_path / "c", lone, "--unit", "case", "--positive", "other")
    assert primary(other, "auc")["estimate"] == pytest.approx(0.88125, abs=1e-12)


def test_a_positive_class_named_twice_counts_once(small, tmp_path):
    for i, twice in enumerate((("AML", "AML"), ("AML", "--positive", "AML"))):
        tables = run(tmp_path / str(i), small, "--unit", "case", "--positive", *twice)
        row = primary(tables, "brier")
        assert row["endpoint"] == "AML"
        assert row["estimate"] == pytest.approx(0.14598076923076925, abs=1e-12)
    asked = {"ill": {"positive": ["AML", "AML"]}}
    tables = run(tmp_path / "c", small, "--unit", "case", endpoints=asked)
    assert primary(tables, "brier")["estimate"] == pytest.approx(0.14598076923076925, abs=1e-12)


def test_positive_classes_of_repeated_flags_are_joined(tmp_path):
    table = three_classes()
    tables = run(tmp_path, table, "--unit", "case", "--positive", "AML", "--positive", "ALL")
    assert primary(tables, "sensitivity")["denominator"] == str(table["truth"].isin(["AML", "ALL"]).sum())


def test_a_positive_class_that_occurs_nowhere_must_be_declared(tmp_path):
    table = labels(["AML", "AML", "well"], ["AML", "well", "well"])
    with pytest.raises(
        UserError, match=r"'AMl' is no class .* did you mean 'AML'\?; its classes: AML, well; .* declared"
    ):
        run(tmp_path / "a", table, "--positive", "AMl")
    classes = ["AML", "well", "APL"]
    tables = run(tmp_path / "b", table, "--unit", "case", "--positive", "APL", classes=classes)
    assert primary(tables, "specificity")["numerator"] == "3"
    assert np.isnan(primary(tables, "sensitivity")["estimate"])


def test_what_was_taken_for_granted_stands_among_the_warnings(small, tmp_path):
    odd = run(tmp_path / "a", small.assign(p_value=0.25), "--unit", "case", "--positive", "AML")
    told = odd["warnings"]["warning"].tolist()
    assert told.count("probabilities do not sum to 1 (row 1: 1.25): taken as one-vs-rest") == 1
    assert any("class 'value' (column 'p_value') never occurs" in note for note in told)
    slip = run(
        tmp_path / "b",
        labels(["AML", "well"] * 3, ["AMI", "well"] * 3),
        "--unit",
        "case",
        "--positive",
        "AML",
    )
    told = slip["warnings"]["warning"].tolist()
    assert "class 'AML' occurs only as truth (3 rows), never as prediction" in told
    assert "class 'AMI' occurs only as prediction (3 rows), never as truth" in told


def test_the_order_of_the_rows_changes_nothing(tmp_path):
    """Not even what is drawn: patients are numbered by their names."""
    table = three_classes()
    arguments = ("--unit", "case", "--positive", "AML")
    there = run(tmp_path / "a", table, *arguments)["metrics"]
    shuffled = run(tmp_path / "b", table.sample(frac=1, random_state=3), *arguments)["metrics"]
    assert there["method"].tolist() == shuffled["method"].tolist()
    for column in ("estimate", "low", "high"):
        assert there[column].to_numpy() == pytest.approx(shuffled[column].to_numpy(), abs=1e-12, nan_ok=True)


def test_the_opposite_question_mirrors_the_answers(tmp_path):
    table = three_classes()
    yes = run(tmp_path / "a", table, "--unit", "case", "--positive", "AML")
    no = run(tmp_path / "b", table, "--unit", "case", "--positive", "ALL", "CML")
    turned = {"sensitivity": "specificity", "specificity": "sensitivity", "ppv": "npv", "npv": "ppv"}
    for metric in ("auc", "accuracy", "mcc", "kappa", "brier", *turned):
        a, b = primary(yes, metric), primary(no, turned.get(metric, metric))
        assert (a["estimate"], a["low"], a["high"]) == pytest.approx(
            (b["estimate"], b["low"], b["high"]), abs=1e-9
        )


def test_the_interval_of_a_macro_ppv_is_as_wide_as_its_resamples(tmp_path):
    """One row a patient: the variances of the classes' precisions add up, and none is lost on the way."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 1500)
    answer = np.where(rng.random(1500) < 0.7, truth, rng.integers(0, 3, 1500))
    names = np.array(["AML", "ALL", "CML"])
    tables = run(tmp_path, labels(names[truth].tolist(), names[answer].tolist()), "--unit", "case")
    row = primary(tables, "ppv", "macro")
    drawn = rng.integers(0, 1500, (400, 1500))
    spread = np.std([sk.precision_score(truth[i], answer[i], average="macro") for i in drawn])
    assert (row["high"] - row["low"]) / (2 * 1.96) == pytest.approx(spread, rel=0.1)
