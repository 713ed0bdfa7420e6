"""Calibration before it was locked: the numbers of the same step on that table, and nothing where nothing was calibrated."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from marrowflow.choices.threshold import digest_of
from marrowflow.errors import UserError
from marrowflow.statistics.accuracy import main

CURVE, MEASURES = "calibration_uncalibrated", "calibration_measures_uncalibrated"


def lock_of(temperature: float | None, head: float | None = None) -> dict[str, Any]:
    cut = {"threshold": 0.5}
    lock: dict[str, Any] = {
        "index_test": "t",
        "calibration": {"temperature": temperature, "heads": {}},
        "endpoints": {"illness": {"positive": ["ill"], "patient": cut, "case": cut}},
    }
    if head is not None:
        lock["calibration"]["heads"] = {"illness": {"temperature": head}}
    return {**lock, "digest": digest_of(lock)}


def tables(n: int = 240) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Overconfident answers for two images a patient, and the same at temperature 2.5."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1.2, n // 2)
    ill = rng.uniform(size=n // 2) < expit(logits)
    raw = 2.5 * (np.repeat(logits, 2) + rng.normal(0, 0.2, n))

    def table(p: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "case_id": [f"a/{i}" for i in range(n)],
                "patient_id": [f"a/P{i // 2:03d}" for i in range(n)],
                "cohort": "a",
                "truth": np.where(np.repeat(ill, 2), "ill", "well"),
                "p_ill": p,
                "p_well": 1 - p,
                "index_test": "t",
            }
        )

    return table(expit(raw)), table(expit(raw / 2.5))


OPTIONS = {
    "accuracy": {"replicates": 100},
    "classes": ["ill", "well"],
    "endpoints": {"illness": {"positive": ["ill"]}},
}


def run(
    folder: Path, after: pd.DataFrame, before: pd.DataFrame | None, lock: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    folder.mkdir(parents=True)
    (folder / "lock.json").write_text(json.dumps(lock))
    after.to_parquet(folder / "after.parquet")
    arguments = ["--options", json.dumps(OPTIONS), "--predictions", str(folder / "after.parquet")]
    arguments += ["--lock", str(folder / "lock.json"), "--out", str(folder / "out")]
    if before is not None:
        before.to_parquet(folder / "before.parquet")
        arguments += ["--uncalibrated", str(folder / "before.parquet")]
    main(arguments)
    return {path.stem: pd.read_csv(path) for path in (folder / "out").glob("*.csv")}


def test_the_tables_are_those_of_the_step_on_the_uncalibrated_ones(tmp_path: Path) -> None:
    before, after = tables()
    both = run(tmp_path / "both", after, before, lock_of(2.5))
    alone = run(tmp_path / "alone", before, None, lock_of(None))
    assert CURVE not in alone and MEASURES not in alone
    pd.testing.assert_frame_equal(both[CURVE], alone["calibration"])
    measures = alone["calibration_measures"].query("scores == 'as_given'").reset_index(drop=True)
    assert set(both[MEASURES]["scores"]) == {"uncalibrated"}
    pd.testing.assert_frame_equal(both[MEASURES].drop(columns="scores"), measures.drop(columns="scores"))
    # What is measured of the calibrated probabilities does not change.
    calibrated = run(tmp_path / "calibrated", after, None, lock_of(2.5))
    for name in set(calibrated) - {"warnings"}:
        pd.testing.assert_frame_equal(both[name], calibrated[name])


def test_the_slope_before_is_that_of_statsmodels_and_the_temperature_divides_it(tmp_path: Path) -> None:
    before, after = tables()
    found = run(tmp_path / "both", after, before, lock_of(2.5))
    query = "metric == 'calibration_slope' and unit == 'case' and primary"
    slope = found[MEASURES].query(query)["estimate"].item()
    x = sm.add_constant(logit(before["p_ill"].to_numpy()))
    fitted = sm.Logit(before["truth"].eq("ill").to_numpy(float), x).fit(disp=0)
    assert slope == pytest.approx(fitted.params[1], rel=1e-6)
    given = found["calibration_measures"].query(f"{query} and scores == 'as_given'")["estimate"].item()
    assert given == pytest.approx(2.5 * slope, rel=1e-6)


@pytest.mark.parametrize(("lock", "rows"), [(lock_of(None), False), (lock_of(None, 2.5), True)])
def test_where_nothing_was_calibrated_the_tables_have_no_rows(
    tmp_path: Path, lock: dict[str, Any], rows: bool
) -> None:
    own, calibrated = ({"endpoint_illness": t["p_ill"]} for t in tables())
    before, after = tables()[0].assign(**own), tables()[0].assign(**calibrated)
    if not rows:
        before, after = tables()[0], tables()[0]
    found = run(tmp_path / "none", after, before, lock)
    assert [len(found[name]) > 0 for name in (CURVE, MEASURES)] == [rows, rows]
    assert list(found[CURVE]) == list(found["calibration"])
    assert list(found[MEASURES]) == list(found["calibration_measures"])


def test_other_cases_are_refused(tmp_path: Path) -> None:
    before, after = tables()
    with pytest.raises(UserError, match="has not the cases of --predictions in the same order"):
        run(tmp_path / "wrong", after, before.iloc[::-1], lock_of(2.5))


def test_what_has_no_interval_before_calibration_is_told(tmp_path: Path) -> None:
    """Before, the scores separate the classes, and the slope is infinite."""
    before, after = tables()
    apart = np.where(before["truth"].eq("ill"), 0.9, 0.1) + np.linspace(0, 0.05, len(before))
    found = run(tmp_path / "apart", after, before.assign(p_ill=apart, p_well=1 - apart), lock_of(2.5))
    told = found["warnings"].query("metric == 'calibration_slope' and unit == 'case'")["warning"]
    assert told.tolist() == ["undefined in this sample, before calibration"]
