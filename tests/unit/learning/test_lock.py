"""Locked choices against hand counts, a grid search of the temperature, and scipy and scikit-learn."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax
from sklearn.metrics import log_loss as sk_log_loss
from sklearn.metrics import roc_curve

from marrowflow.choices.calibration import finished, uncalibrated
from marrowflow.choices.threshold import digest_of, read_lock
from marrowflow.errors import UserError
from marrowflow.learning.lock import Options, lock_choices, main, uncalibrated_predictions
from marrowflow.predictions import check_predictions

CLASSES = ["ill", "well"]


def rows(
    scores: list[float], truths: list[str], partition: str = "test", fold: int | list[int] = 0, first: int = 0
) -> pd.DataFrame:
    """Return raw predictions, two cases a patient."""
    n = len(scores)
    return pd.DataFrame(
        {
            "case_id": [f"a/{first + i}" for i in range(n)],
            "patient_id": [f"a/p{(first + i) // 2}" for i in range(n)],
            "cohort": "a",
            "truth": truths,
            "predicted": ["ill" if s >= 0.5 else "well" for s in scores],
            "index_test": "t",
            "fold": fold,
            "partition": partition,
            "status": "ok",
            "reason": "",
            "p_ill": scores,
            "p_well": 1 - np.asarray(scores),
        }
    )


def options(**more: Any) -> Options:
    values: dict[str, Any] = {
        "classes": CLASSES,
        "endpoints": {"illness": {"positive": ["ill"]}},
        "units": ["patient", "case"],
        "calibration": {"method": "none"},
        "scheme": "kfold",
    }
    return Options.model_validate(values | more)


SCORES = [0.9, 0.8, 0.4, 0.7, 0.6, 0.1, 0.3, 0.2]
TRUTHS = ["ill", "ill", "ill", "ill", "well", "well", "well", "well"]


def test_cutoffs_by_hand_for_cases_and_patients() -> None:
    lock, table = lock_choices(rows(SCORES, TRUTHS, fold=[0, 0, 1, 1, 0, 0, 1, 1]), options(), "t", "sound")
    found = lock["endpoints"]["illness"]
    # Cases: at .35 all four ill and three of four well are right; no other cut does as well and misses fewer.
    assert found["case"]["threshold"] == pytest.approx(0.35)
    assert (found["case"]["sensitivity"], found["case"]["specificity"], found["case"]["n"]) == (1.0, 0.75, 8)
    # Patients' means: .85, .55 ill; .35, .25 well.
    assert found["patient"]["threshold"] == pytest.approx(0.45)
    assert (found["patient"]["sensitivity"], found["patient"]["specificity"], found["patient"]["n"]) == (
        1.0,
        1.0,
        4,
    )
    assert lock["fitted_on"] == "out-of-fold test predictions"
    assert table["p_ill"].tolist() == pytest.approx(SCORES)


def log_loss(p: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    powered = p ** (1 / temperature)
    powered /= powered.sum(axis=1, keepdims=True)
    return float(-np.log(powered[np.arange(len(p)), truth]).mean())


def grid_temperature(table: pd.DataFrame) -> float:
    """Return the best temperature of a fine grid."""
    p = table[["p_ill", "p_well"]].to_numpy()
    truth = (table["truth"] == "well").to_numpy().astype(int)
    grid = np.exp(np.linspace(np.log(0.2), np.log(10), 8001))
    return float(grid[np.argmin([log_loss(p, truth, t) for t in grid])])


def overconfident(n: int, seed: int, **more: Any) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, n)
    truths = np.where(generator.uniform(size=n) < 1 / (1 + np.exp(-logits)), "ill", "well").tolist()
    return rows((1 / (1 + np.exp(-2.5 * logits))).tolist(), truths, **more)


def test_each_fold_is_calibrated_by_the_others_and_the_lock_by_all() -> None:
    folds = [overconfident(80, seed, fold=seed, first=200 * seed) for seed in range(3)]
    unlabelled = rows([0.9], ["missing"], "unlabelled", -1, first=900)
    raw = pd.concat([*folds, unlabelled], ignore_index=True)
    choices = options(calibration={"method": "temperature"}, units=["case"])
    lock, table = lock_choices(raw, choices, "t", "sound")
    assert lock["calibration"]["temperature"] == pytest.approx(grid_temperature(pd.concat(folds)), rel=2e-3)
    assert lock["calibration"]["temperature"] > 1.5  # logits were made 2.5 times too large
    others = grid_temperature(pd.concat(folds[1:]))
    used = lock["calibration"]["by_fold"]
    assert sorted(used) == ["0", "1", "2"]
    assert used["0"] == pytest.approx(others, rel=2e-3)
    assert used["2"] == pytest.approx(grid_temperature(pd.concat(folds[:2])), rel=2e-3)
    assert (lock["calibration"]["fitted_on"], lock["calibration"]["n_cases"]) == (lock["fitted_on"], 240)
    assert lock["development_answers"] == "single networks, out of fold"
    assert lock["external_answers"] == "mean of the networks of all folds"
    p = folds[0][["p_ill", "p_well"]].to_numpy() ** (1 / others)
    expected = p[:, 0] / p.sum(axis=1)
    np.testing.assert_allclose(table[table["fold"] == 0]["p_ill"], expected, atol=2e-3)
    whole = lock["calibration"]["temperature"]
    last = table.iloc[-1]
    assert (last["partition"], last["truth"]) == ("unlabelled", "missing")
    assert last["p_ill"] == pytest.approx(0.9 ** (1 / whole) / (0.9 ** (1 / whole) + 0.1 ** (1 / whole)))


def test_repeats_are_averaged_and_test_rows_choose_nothing() -> None:
    validation = rows(SCORES, TRUTHS, "validation")
    again = rows([s - 0.1 for s in SCORES], TRUTHS, "validation", fold=1)
    tested = rows([0.2, 0.9, 0.4, 0.6], ["ill", "well", "ill", "well"], fold=0, first=50)
    tested_again = rows([0.4], ["ill"], fold=1, first=50)
    raw = pd.concat([validation, tested, again, tested_again], ignore_index=True)
    lock, table = lock_choices(raw, options(scheme="monte_carlo", units=["case"]), "t", "sound")
    # Validation scores are the hand-counted ones less .05.
    assert lock["endpoints"]["illness"]["case"]["threshold"] == pytest.approx(0.30)
    assert lock["fitted_on"] == "validation predictions"
    assert lock["endpoints"]["illness"]["case"]["n"] == 8
    assert lock["development_answers"].startswith("mean of the networks")
    found = table.set_index("case_id")
    assert found["p_ill"].to_dict() == pytest.approx({"a/50": 0.3, "a/51": 0.9, "a/52": 0.4, "a/53": 0.6})
    assert found["fold"].to_dict() == {"a/50": -1, "a/51": 0, "a/52": 0, "a/53": 0}


def test_patients_of_both_kinds_have_no_cutoff(caplog: pytest.LogCaptureFixture) -> None:
    mixed = ["ill", "well", "ill", "ill", "well", "well", "well", "well"]
    lock, _ = lock_choices(rows(SCORES, mixed), options(), "t", "sound")
    assert lock["endpoints"]["illness"]["patient"] is None
    assert lock["endpoints"]["illness"]["case"]["n"] == 8
    assert "1 patients have images of both kinds" in caplog.text


def test_nothing_to_choose_on_is_an_error_that_names_the_endpoint() -> None:
    with pytest.raises(UserError, match=r"endpoint illness: .* 4 positives and 0 negatives"):
        lock_choices(rows(SCORES, ["ill"] * 8), options(), "t", "sound")
    only_test = rows(SCORES, TRUTHS)
    with pytest.raises(UserError, match=r"splits\.validation above 0"):
        lock_choices(
            only_test, options(scheme="holdout", calibration={"method": "temperature"}), "t", "sound"
        )


def test_a_fixed_cutoff_needs_no_row() -> None:
    fixed = options(scheme="holdout", threshold={"rule": "fixed", "value": 0.2})
    lock, table = lock_choices(rows(SCORES, TRUTHS), fixed, "t", "sound")
    assert lock["endpoints"]["illness"]["case"]["threshold"] == 0.2
    assert lock["endpoints"]["illness"]["case"]["sensitivity"] is None
    assert len(table) == 8


def test_a_lock_claims_no_fit_that_did_not_happen() -> None:
    nothing = {
        "method": "none",
        "kind": "softmax",
        "temperature": None,
        "by_fold": {},
        "heads": {},
        "fitted_on": None,
        "n_cases": 0,
    }
    lock, _ = lock_choices(rows(SCORES, TRUTHS), options(), "t", "sound")
    assert lock["calibration"] == nothing
    assert lock["fitted_on"] == "out-of-fold test predictions"
    fixed: dict[str, Any] = {"threshold": {"rule": "fixed", "value": 0.2}}
    lock, _ = lock_choices(rows(SCORES, TRUTHS), options(scheme="holdout", **fixed), "t", "sound")
    assert lock["calibration"] == nothing
    assert lock["fitted_on"] is None
    # The temperature may be fitted where the cut-off is not, and no endpoint means no cut-off.
    warm = options(calibration={"method": "temperature"}, scheme="holdout", **fixed)
    validation = rows(SCORES, TRUTHS, "validation", first=20)
    lock, _ = lock_choices(pd.concat([validation, rows(SCORES, TRUTHS)]), warm, "t", "sound")
    assert (lock["calibration"]["fitted_on"], lock["calibration"]["n_cases"]) == ("validation predictions", 8)
    assert lock["fitted_on"] is None
    assert lock_choices(rows(SCORES, TRUTHS), options(endpoints={}), "t", "sound")[0]["fitted_on"] is None


def test_the_digest_signs_everything_else(tmp_path: Path) -> None:
    rows(SCORES, TRUTHS, fold=[0, 1] * 4).to_parquet(tmp_path / "raw.parquet")
    main(
        ["--options", options().model_dump_json(), "--raw", str(tmp_path / "raw.parquet"), "--index-test", "t",
         "--protocol", "sound", "--out", str(tmp_path / "threshold.json"),
         "--predictions", str(tmp_path / "predictions.parquet")]
    )  # fmt: skip
    lock = read_lock(tmp_path / "threshold.json")
    rest = {key: value for key, value in lock.items() if key != "digest"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert lock["digest"] == hashlib.sha256(canonical.encode()).hexdigest() == digest_of(lock)
    lock["rule"]["rule"] = "sensitivity"
    (tmp_path / "threshold.json").write_text(json.dumps(lock))
    with pytest.raises(UserError, match="changed after it was locked"):
        read_lock(tmp_path / "threshold.json")


THREE = ["MDS", "AML", "well"]


def three_classes(n: int, seed: int, fold: int, head: str = "softmax") -> pd.DataFrame:
    """Return overconfident predictions of three classes and of a head for the endpoint mds; two cases a patient."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(generator.integers(0, 3, n // 2), 2)
    logits = 3 * (1.2 * np.eye(3)[truth] - 0.4 + generator.normal(size=(n, 3)))
    p = softmax(logits, axis=1) if head == "softmax" else expit(logits)
    return pd.DataFrame(
        {
            "case_id": [f"a/{fold}_{i}" for i in range(n)],
            "patient_id": [f"a/p{fold}_{i // 2}" for i in range(n)],
            "cohort": "a",
            "truth": np.asarray(THREE, dtype=object)[truth],
            "predicted": np.asarray(THREE, dtype=object)[p.argmax(axis=1)],
            "index_test": "t",
            "fold": fold,
            "partition": "test",
            "status": "ok",
            "reason": "",
            **{f"p_{name}": p[:, i] for i, name in enumerate(THREE)},
            "endpoint_mds": expit(5 * ((truth == 0) - 0.5 + generator.normal(size=n))),
        }
    )


def three_options(**more: Any) -> Options:
    values: dict[str, Any] = {
        "classes": THREE,
        "endpoints": {"mds": {"positive": ["MDS"]}, "illness": {"positive": ["MDS", "AML"]}},
        "units": ["patient", "case"],
        "scheme": "kfold",
    }
    return Options.model_validate(values | more)


def best_logit_temperature(p: pd.Series | pd.DataFrame, truth: np.ndarray) -> float:
    """Minimise scikit-learn's log loss, the mean over the questions."""
    questions = list(zip(p.to_numpy().reshape(len(p), -1).T, truth.reshape(len(p), -1).T, strict=True))

    def loss(t: float) -> float:
        return float(np.mean([sk_log_loss(y, expit(logit(q) / t)) for q, y in questions]))

    return float(minimize_scalar(loss, bounds=(0.2, 15), method="bounded", options={"xatol": 1e-8}).x)


def test_a_head_has_a_temperature_of_its_own_and_its_column_the_cutoff() -> None:
    folds = [three_classes(120, seed, seed) for seed in range(3)]
    raw = pd.concat(folds, ignore_index=True)
    lock, table = lock_choices(raw, three_options(), "t", "sound")
    calibration = lock["calibration"]
    head = calibration["heads"]["mds"]
    ill = (raw["truth"] == "MDS").to_numpy()
    assert head["temperature"] == pytest.approx(best_logit_temperature(raw["endpoint_mds"], ill), rel=1e-4)
    assert calibration["kind"] == "softmax"
    assert abs(head["temperature"] - calibration["temperature"]) > 0.3
    others = pd.concat(folds[1:])
    without = best_logit_temperature(others["endpoint_mds"], (others["truth"] == "MDS").to_numpy())
    assert head["by_fold"]["0"] == pytest.approx(without, rel=1e-4)
    assert sorted(head["by_fold"]) == sorted(calibration["by_fold"]) == ["0", "1", "2"]
    own = table[table["fold"] == 0]["endpoint_mds"]
    np.testing.assert_allclose(own, expit(logit(folds[0]["endpoint_mds"]) / without), atol=1e-4)
    # Youden's cut-off of patients' means, by scikit-learn's ROC curve of the column.
    patients = table.groupby("patient_id").agg(p=("endpoint_mds", "mean"), truth=("truth", "first"))
    fpr, tpr, cuts = roc_curve(patients["truth"] == "MDS", patients["p"], drop_intermediate=False)
    best = np.argmax(tpr - fpr)
    found = lock["endpoints"]["mds"]["patient"]
    assert (found["sensitivity"], found["specificity"]) == pytest.approx((tpr[best], 1 - fpr[best]))
    assert patients["p"][patients["p"] < cuts[best]].max() < found["threshold"] < cuts[best]
    # An endpoint without a head is still the sum of its classes.
    summed = table.groupby("patient_id")[["p_MDS", "p_AML"]].mean().sum(axis=1)
    well = (table.groupby("patient_id")["truth"].first() == "well").to_numpy()
    cut = lock["endpoints"]["illness"]["patient"]
    assert cut["specificity"] == pytest.approx((summed[well] < cut["threshold"]).mean())


def test_one_vs_rest_probabilities_have_one_temperature_on_their_logits() -> None:
    folds = [three_classes(120, seed, seed, "one_vs_rest") for seed in range(2)]
    raw = pd.concat(folds, ignore_index=True).drop(columns="endpoint_mds")
    lock, table = lock_choices(raw, three_options(), "t", "sound")
    columns = [f"p_{name}" for name in THREE]
    truth = raw["truth"].to_numpy()[:, None] == np.asarray(THREE, dtype=object)
    assert lock["calibration"]["kind"] == "one_vs_rest"
    assert lock["calibration"]["heads"] == {}
    whole = best_logit_temperature(raw[columns], truth)
    assert lock["calibration"]["temperature"] == pytest.approx(whole, rel=1e-4)
    of_others = best_logit_temperature(raw[columns][120:], truth[120:])
    np.testing.assert_allclose(table[columns][:120], expit(logit(raw[columns][:120]) / of_others), atol=1e-4)
    assert table["predicted"].tolist() == raw["predicted"].tolist()
    assert check_predictions(table, THREE).one_vs_rest


def test_without_calibration_the_lock_still_names_the_heads() -> None:
    raw = three_classes(60, 0, 0)
    lock, table = lock_choices(raw, three_options(calibration={"method": "none"}), "t", "sound")
    assert lock["calibration"]["heads"] == {"mds": {"temperature": None, "by_fold": {}}}
    assert table["endpoint_mds"].tolist() == raw["endpoint_mds"].tolist()
    with pytest.raises(UserError, match=r"'endpoint_mds' belongs to no endpoint .* did you mean 'MDS_'"):
        lock_choices(raw, three_options(endpoints={"MDS_": {"positive": ["MDS"]}}), "t", "sound")


def test_two_answers_of_one_network_for_a_case_are_refused() -> None:
    once = rows(SCORES, TRUTHS, fold=[0, 0, 1, 1, 0, 0, 1, 1])
    raw = pd.concat([once, once.iloc[[2, 2]]], ignore_index=True)
    with pytest.raises(UserError, match=r"--raw holds several rows") as refused:
        lock_choices(raw, options(), "t", "sound")
    assert str(refused.value).splitlines()[1:] == ["  - case 'a/2' (fold 1, test)"]


@pytest.mark.parametrize("head", ["softmax", "one_vs_rest"])
def test_finished_applies_the_lock_and_fits_nothing(head: str) -> None:
    lock, _ = lock_choices(
        three_classes(100, 0, 0, head).assign(fold=[0, 1] * 50), three_options(), "t", "sound"
    )
    external = three_classes(10, 9, -1, head).assign(partition="external", predicted="")
    done = finished(external, lock, THREE)
    t, own = lock["calibration"]["temperature"], lock["calibration"]["heads"]["mds"]["temperature"]
    p = external[[f"p_{name}" for name in THREE]].to_numpy()
    expected = softmax(np.log(p) / t, axis=1) if head == "softmax" else expit(logit(p) / t)
    np.testing.assert_allclose(done[[f"p_{name}" for name in THREE]], expected, rtol=1e-9)
    np.testing.assert_allclose(done["endpoint_mds"], expit(logit(external["endpoint_mds"]) / own), rtol=1e-9)
    assert done["predicted"].tolist() == [THREE[i] for i in p.argmax(axis=1)]
    assert list(done.columns) == list(external.columns)
    # One case at a time gives the same: nothing is taken from the hospital.
    alone = finished(external.iloc[[3]], lock, THREE)
    pd.testing.assert_frame_equal(alone, done.iloc[[3]])


def test_the_surest_of_sure_networks_stays_the_answer() -> None:
    """At 1 and just below 1 the logit is rounded, and the first class would win the tie."""
    lock, _ = lock_choices(
        three_classes(100, 0, 0, "one_vs_rest").assign(fold=[0, 1] * 50), three_options(), "t", "sound"
    )
    external = three_classes(2, 1, -1, "one_vs_rest").iloc[:1].assign(p_MDS=1 - 1e-15, p_AML=1.0, p_well=0.5)
    done = finished(external, lock, THREE)
    assert done["p_MDS"].item() == done["p_AML"].item()
    assert done["predicted"].item() == "AML"


def test_a_lock_of_something_else_is_refused() -> None:
    raw = three_classes(100, 0, 0).assign(fold=[0, 1] * 50)
    lock, _ = lock_choices(raw, three_options(), "t", "sound")
    for wrong, classes, said in (
        (raw.assign(index_test="u"), THREE, r"fixed for index_test 't', not 'u'"),
        (raw, THREE[::-1], r"fixed for classes \['MDS', 'AML', 'well'\], not"),
        (raw.drop(columns="endpoint_mds"), THREE, r"fixed for heads \['mds'\], not \[\]"),
        (three_classes(10, 0, 0, "one_vs_rest"), THREE, "probabilities that sum to 1"),
    ):
        with pytest.raises(UserError, match=said):
            finished(wrong, lock, classes)
    # Sure one-vs-rest networks may sum to 1.
    lock["calibration"]["kind"] = "one_vs_rest"
    assert len(finished(raw, lock, THREE)) == 100


@pytest.mark.parametrize("head", ["softmax", "one_vs_rest"])
def test_before_calibration_the_same_rows_have_the_networks_own_probabilities(head: str) -> None:
    folds = [three_classes(60, seed, seed, head) for seed in range(3)]
    unlabelled = three_classes(4, 9, -1, head).assign(partition="unlabelled", truth="missing")
    raw = pd.concat([*folds[::-1], unlabelled], ignore_index=True)
    _, after = lock_choices(raw, three_options(), "t", "sound")
    before = uncalibrated_predictions(raw.assign(predicted=""), three_options(), "t")
    numbers = [*(f"p_{name}" for name in THREE), "endpoint_mds"]
    assert list(before.columns) == list(after.columns)
    rest = [c for c in before if c not in numbers]
    pd.testing.assert_frame_equal(before[rest], after[rest])
    pd.testing.assert_frame_equal(before[numbers], raw[numbers])
    assert (before[numbers] - after[numbers]).abs().min(axis=1).max() > 1e-3


def test_repeats_before_calibration_are_averaged_as_they_are_after() -> None:
    tested = rows([0.2, 0.9], ["ill", "well"], fold=0, first=50)
    again = rows([0.4], ["ill"], fold=1, first=50)
    raw = pd.concat([rows(SCORES, TRUTHS, "validation"), tested, again], ignore_index=True)
    choices = options(scheme="monte_carlo", units=["case"], calibration={"method": "temperature"})
    before = uncalibrated_predictions(raw, choices, "t")
    assert before.set_index("case_id")["p_ill"].to_dict() == pytest.approx({"a/50": 0.3, "a/51": 0.9})
    assert before["case_id"].tolist() == lock_choices(raw, choices, "t", "sound")[1]["case_id"].tolist()


def test_the_step_writes_both_tables_and_the_lock_leads_from_one_to_the_other(tmp_path: Path) -> None:
    three_classes(60, 0, 0).assign(fold=[0, 1] * 30).to_parquet(tmp_path / "raw.parquet")
    written = {name: str(tmp_path / name) for name in ("lock.json", "after.parquet", "before.parquet")}
    main(
        ["--options", three_options().model_dump_json(), "--raw", str(tmp_path / "raw.parquet"), "--index-test", "t",
         "--protocol", "sound", "--out", written["lock.json"], "--predictions", written["after.parquet"],
         "--uncalibrated", written["before.parquet"]]
    )  # fmt: skip
    lock = read_lock(tmp_path / "lock.json")
    before, after = (pd.read_parquet(written[f"{name}.parquet"]) for name in ("before", "after"))
    assert before["case_id"].equals(after["case_id"]) and not before["p_MDS"].equals(after["p_MDS"])
    # The locked temperature leads from the one table of a hospital to the other.
    external = three_classes(10, 5, -1).assign(partition="external", predicted="")
    own = uncalibrated(external, THREE)
    columns = [f"p_{name}" for name in THREE]
    p = own[columns].to_numpy() ** (1 / lock["calibration"]["temperature"])
    expected = p / p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(finished(external, lock, THREE)[columns], expected, rtol=1e-9)
    assert own["predicted"].tolist() == finished(external, lock, THREE)["predicted"].tolist()
