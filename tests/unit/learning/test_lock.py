"""Locked choices against hand counts and against a grid search of the temperature."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marrowflow.choices.threshold import digest_of, read_lock
from marrowflow.errors import UserError
from marrowflow.learning.lock import Options, lock_choices, main

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
    nothing = {"method": "none", "temperature": None, "by_fold": {}, "fitted_on": None, "n_cases": 0}
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
