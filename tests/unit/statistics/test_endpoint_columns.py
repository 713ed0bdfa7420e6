"""Endpoints that the index test answers by a probability of their own: scikit-learn on the column, and hand counts."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from marrowflow.choices.threshold import digest_of
from marrowflow.errors import UserError
from marrowflow.statistics import accuracy, compare

CLASSES = ["MDS", "AML", "well"]
ENDPOINTS = {"mds": {"positive": ["MDS"]}, "illness": {"positive": ["MDS", "AML"]}}


def network(name="net-raw", seed=0, n=120, patients=40):
    """Three classes and a head for mds that disagree, so that nothing of the one passes for the other."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) % patients
    truth = (np.arange(patients) % 3)[patient]
    logits = 0.8 * np.eye(3)[truth] + rng.normal(size=(n, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = 1 / (1 + np.exp(-(2 * (truth == 0) - 1 + rng.normal(size=patients)[patient] + rng.normal(size=n))))
    names = np.asarray(CLASSES)
    return pd.DataFrame(
        {
            "case_id": [f"c{i}" for i in range(n)],
            "patient_id": [f"P{i:02}" for i in patient],
            "cohort": "north",
            "truth": names[truth],
            "predicted": names[p.argmax(axis=1)],
            "index_test": name,
            **{f"p_{c}": p[:, i] for i, c in enumerate(CLASSES)},
            "endpoint_mds": own,
        }
    )


def run(step, tmp_path, tables, *arguments, **options):
    """Run a step on tables; return what it wrote, by name."""
    tmp_path.mkdir(exist_ok=True)
    paths = [tmp_path / f"{i}.csv" for i in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        table.to_csv(path, index=False)
    settings = {"replicates": 100, "at_specificity": [0.8], "prevalences": [0.1]}
    options = {"accuracy": settings, "classes": CLASSES, "endpoints": ENDPOINTS, **options}
    out = tmp_path / "out"
    step.main(
        ["--predictions", *map(str, paths), "--options", json.dumps(options), "--out", str(out), *arguments]
    )
    text = dict.fromkeys(["class", "endpoint", "metric", "unit", "method"], "str")
    return {f.stem: pd.read_csv(f, dtype=text).fillna({c: "" for c in text}) for f in out.glob("*.csv")}


def measured(tables, name="metrics", unit="case", endpoint="mds", column="estimate"):
    rows = tables[name].query("primary and endpoint == @endpoint and unit == @unit and `class` == ''")
    return rows.set_index("metric")[column].to_dict()


def warned(tables):
    return tables["warnings"]["warning"].tolist()


def write_lock(path, threshold, name="net-raw", heads=("mds",)):
    fitted = {unit: {"threshold": threshold} for unit in ("patient", "case")}
    lock = {
        "index_test": name,
        "calibration": {"heads": {head: {"temperature": None, "by_fold": {}} for head in heads}},
        "endpoints": {endpoint: e | fitted for endpoint, e in ENDPOINTS.items()},
    }
    path.write_text(json.dumps({**lock, "digest": digest_of(lock)}))
    return str(path)


@pytest.mark.parametrize("unit", ["case", "patient"])
def test_all_that_is_scored_is_scored_on_the_column(tmp_path, unit):
    table = network()
    tables = run(accuracy, tmp_path, [table], units=[unit])
    if unit == "patient":
        table = table.groupby("patient_id").agg({"truth": "first", "endpoint_mds": "mean"})
    y, p = table["truth"].eq("MDS").to_numpy(), table["endpoint_mds"].to_numpy()
    called = p >= 0.5
    found = measured(tables, unit=unit)
    for metric, expected in {
        "auc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "brier": sk.brier_score_loss(y, p),
        "sensitivity": sk.recall_score(y, called),
        "specificity": sk.recall_score(~y, ~called),
        "mcc": sk.matthews_corrcoef(y, called),
    }.items():
        assert found[metric] == pytest.approx(expected, abs=1e-12), metric
    calibration = tables["calibration_measures"].query("scores == 'as_given'")
    found = measured({"calibration_measures": calibration}, "calibration_measures", unit)
    assert found["observed_expected"] == pytest.approx(y.sum() / p.sum())
    curve = tables["roc"].query("endpoint == 'mds'")
    assert sk.auc(curve["fpr"], curve["tpr"]) == pytest.approx(sk.roc_auc_score(y, p))
    fpr, tpr, _ = sk.roc_curve(y, p, drop_intermediate=False)
    operating = measured(tables, "operating_points", unit)
    assert operating["sensitivity_at_specificity"] == pytest.approx(tpr[1 - fpr >= 0.8].max())
    at_half = tables["decision"].query(
        "primary and endpoint == 'mds' and metric == 'net_benefit' and at == 0.5"
    )
    assert at_half["estimate"].item() == pytest.approx(((called & y).sum() - (called & ~y).sum()) / len(y))
    histogram = tables["score_histogram"].query("endpoint == 'mds'")
    assert (
        histogram["positives"].tolist()
        == np.histogram(p[y], np.linspace(0, 1, len(histogram) + 1))[0].tolist()
    )
    counts = tables["confusion"].query("endpoint == 'mds' and truth == 'MDS'").set_index("predicted")["n"]
    assert counts["positive"] == (called & y).sum()


def test_other_endpoints_and_the_classes_do_not_see_the_column(tmp_path):
    table = network()
    with_it = run(accuracy, tmp_path / "a", [table], units=["case"])
    without = run(accuracy, tmp_path / "b", [table.drop(columns="endpoint_mds")], units=["case"])
    others = [t["metrics"].query("endpoint != 'mds'").reset_index(drop=True) for t in (with_it, without)]
    assert set(others[0]["endpoint"]) == {"illness", "classes"}
    pd.testing.assert_frame_equal(*others)
    y = table["truth"].eq("MDS")
    assert measured(without)["auc"] == pytest.approx(sk.roc_auc_score(y, table["p_MDS"]))
    assert measured(without)["sensitivity"] == pytest.approx(table["predicted"][y].eq("MDS").mean())


def test_a_lock_cuts_the_column_that_it_was_fitted_on(tmp_path):
    table = network()
    ill = table["truth"].eq("MDS")
    tables = run(accuracy, tmp_path / "a", [table], "--lock", write_lock(tmp_path / "l.json", 0.3))
    assert measured(tables)["sensitivity"] == pytest.approx((table["endpoint_mds"][ill] >= 0.3).mean())
    mean = table.groupby("patient_id").agg({"truth": "first", "endpoint_mds": "mean"})
    expected = (mean["endpoint_mds"][mean["truth"] == "MDS"] >= 0.3).mean()
    assert measured(tables, unit="patient")["sensitivity"] == pytest.approx(expected)
    summed = table["p_MDS"] + table["p_AML"]
    known = table["truth"].ne("well")
    assert measured(tables, endpoint="illness")["sensitivity"] == pytest.approx((summed[known] >= 0.3).mean())


def test_a_cutoff_of_another_score_is_refused(tmp_path):
    table = network()
    lock = write_lock(tmp_path / "a.json", 0.3)
    with pytest.raises(
        UserError, match=r"locked for a probability of the endpoint's own, .* is the sum .* MDS"
    ):
        run(accuracy, tmp_path / "a", [table.drop(columns="endpoint_mds")], "--lock", lock)
    # Called by its class on the command line it has another name, and would be another score.
    with pytest.raises(UserError, match="call the endpoint as in the configuration"):
        run(accuracy, tmp_path / "b", [table], "--lock", lock, "--positive", "MDS")
    summed = write_lock(tmp_path / "c.json", 0.3, heads=())
    with pytest.raises(UserError, match=r"locked for the sum .* is the column 'endpoint_mds'"):
        run(accuracy, tmp_path / "c", [table], "--lock", summed)
    labels = table.drop(columns=[f"p_{c}" for c in CLASSES])
    with pytest.raises(UserError, match="'illness': --lock needs its probability"):
        run(accuracy, tmp_path / "d", [labels], "--lock", lock)


def test_a_column_of_no_endpoint_is_told_and_ignored(tmp_path):
    table = network()
    odd = table.rename(columns={"endpoint_mds": "endpoint_mdss"})
    tables = run(accuracy, tmp_path / "a", [odd], units=["case"])
    said = "column 'endpoint_mdss' is not used: no endpoint of this name is asked for; did you mean 'mds'?"
    assert said in warned(tables)
    assert measured(tables)["auc"] == pytest.approx(
        sk.roc_auc_score(table["truth"].eq("MDS"), table["p_MDS"])
    )
    tables = run(accuracy, tmp_path / "b", [table], "--positive", "MDS", units=["case"])
    assert any("column 'endpoint_mds' is not used" in w for w in warned(tables))
    assert not any("not used" in w for w in warned(run(accuracy, tmp_path / "c", [table], units=["case"])))
    others = [odd, odd.assign(index_test="other")]
    tables = run(compare, tmp_path / "d", others, "--index-test", "net-raw", "--against", "other")
    assert warned(tables).count(said) == 1


def test_labels_with_one_endpoints_probability(tmp_path):
    table = network()
    labels = table.drop(columns=[f"p_{c}" for c in CLASSES])
    tables = run(accuracy, tmp_path, [labels], units=["case"])
    y = table["truth"].eq("MDS")
    assert measured(tables)["auc"] == pytest.approx(sk.roc_auc_score(y, table["endpoint_mds"]))
    assert "auc" not in measured(tables, endpoint="illness")
    told = tables["warnings"].query("metric == 'auc' and warning.str.contains('labels only')")
    assert set(told["endpoint"]) == {"illness", "classes"}


def test_one_vs_rest_probabilities_that_add_up_to_nothing_spare_the_column(tmp_path):
    table = network()
    table[[f"p_{c}" for c in CLASSES]] *= 0.9
    tables = run(
        accuracy, tmp_path, [table.assign(endpoint_illness=0.8 * table["endpoint_mds"])], units=["case"]
    )
    y = table["truth"].ne("well")
    assert measured(tables, endpoint="illness")["brier"] == pytest.approx(
        sk.brier_score_loss(y, 0.8 * table["endpoint_mds"])
    )
    p = table[[f"p_{c}" for c in CLASSES]].to_numpy()
    errors = (p - (table["truth"].to_numpy()[:, None] == CLASSES)) ** 2
    assert measured(tables, endpoint="classes")["brier"] == pytest.approx(errors.sum(axis=1).mean())
    without = run(accuracy, tmp_path / "b", [table], units=["case"])
    assert "brier" not in measured(without, endpoint="illness")


def test_differences_are_those_of_the_columns(tmp_path):
    first, second = network(), network("other", seed=1)
    locks = [write_lock(tmp_path / f"{n}.json", c, n) for n, c in (("net-raw", 0.3), ("other", 0.6))]
    pair = ("--index-test", "net-raw", "--against", "other", "--unit", "case")
    tables = run(compare, tmp_path / "a", [first, second], *pair, "--lock", *locks)
    y = first["truth"].eq("MDS")
    both = [measured(tables, "comparisons", column=c) for c in ("estimate", "estimate_against")]
    for found, table, cut in zip(both, (first, second), (0.3, 0.6), strict=True):
        assert found["auc"] == pytest.approx(sk.roc_auc_score(y, table["endpoint_mds"]))
        assert found["brier"] == pytest.approx(sk.brier_score_loss(y, table["endpoint_mds"]))
        assert found["sensitivity"] == pytest.approx((table["endpoint_mds"][y] >= cut).mean())
    agreed = (first["endpoint_mds"] >= 0.3) & (second["endpoint_mds"] >= 0.6)
    counts = (
        tables["agreement_counts"].query("endpoint == 'mds'").set_index(["answer", "answer_against"])["n"]
    )
    assert counts["positive", "positive"] == agreed.sum()
    # One with a head against one without, and no lock: half of the column against the largest class.
    plain = second.drop(columns="endpoint_mds")
    tables = run(compare, tmp_path / "b", [first, plain], *pair)
    found, against = (measured(tables, "comparisons", column=c) for c in ("estimate", "estimate_against"))
    assert found["sensitivity"] == pytest.approx((first["endpoint_mds"][y] >= 0.5).mean())
    assert against["sensitivity"] == pytest.approx(plain["predicted"][y].eq("MDS").mean())
    assert against["auc"] == pytest.approx(sk.roc_auc_score(y, plain["p_MDS"]))


def test_half_of_an_endpoints_own_probability_is_told(tmp_path):
    tables = [network(), network("other", seed=1).drop(columns="endpoint_mds")]
    lock = write_lock(tmp_path / "l.json", 0.3, "other", heads=())
    found = run(compare, tmp_path, tables, "--index-test", "net-raw", "--against", "other", "--lock", lock)
    said = "net-raw has probabilities and no lock: its predicted class decides, and 0.5 of an endpoint's own probability"
    assert said in warned(found)
