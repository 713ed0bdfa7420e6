"""Groups by hand; their numbers against a count, and against the accuracy step on the same patients alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from marrowflow.choices.threshold import digest_of
from marrowflow.config import Subgroups
from marrowflow.errors import UserError
from marrowflow.statistics import accuracy
from marrowflow.statistics.subgroups import COLUMNS, Options, focus_limits, group_patients, main

NAN = float("nan")
NUMBERS = ["estimate", "low", "high"]


def inventory(rows: list[tuple], columns: list[str]) -> pd.DataFrame:
    """Images with a patient, a focus, and manifest columns."""
    table = pd.DataFrame(rows, columns=["patient_id", "focus", *columns])
    return table.assign(cohort="a", status="included")


IMAGES = inventory(
    [
        ("p1", 10.0, "F", 17.0, "Zeiss", NAN),
        ("p1", 20.0, "F", 18.0, "Leica", NAN),
        ("p2", 20.0, None, 64.0, "Leica", NAN),
        ("p2", 22.0, " M ", 65.0, "Leica", NAN),
        ("p3", 40.0, "", NAN, "Zeiss", NAN),
        ("p4", 50.0, "F", 40.0, "10", NAN),
        ("p5", NAN, "F", 90.0, "9", NAN),
    ],
    ["sex", "age", "scanner", "severity"],
)


def groups_of(settings: Subgroups, images: pd.DataFrame = IMAGES, limits=(18.0, 45.0)) -> dict[str, dict]:
    grouping = group_patients(images, settings, limits)
    assert list(grouping.groups) == [c for c in grouping.patients if c not in ("cohort", "patient_id")]
    return {
        name: dict(zip(grouping.patients["patient_id"], grouping.patients[name], strict=True))
        for name in grouping.groups
    }


def test_a_patient_is_in_the_group_that_her_images_agree_on() -> None:
    settings = Subgroups(columns=["sex", "scanner", "severity", "nowhere"], age_bands=[18, 65])
    found = groups_of(settings)
    # severity is empty throughout, and the last column is not there
    assert list(found) == ["sex", "scanner", "age", "focus"]
    assert found["sex"] == {"p1": "F", "p2": "M", "p3": "missing", "p4": "F", "p5": "F"}
    assert found["scanner"] == {"p1": "contradictory", "p2": "Leica", "p3": "Zeiss", "p4": "10", "p5": "9"}
    # p1 and p2 passed a limit between two smears; p4 is 40, in a band of its own making
    assert found["age"] == {
        "p1": "contradictory",
        "p2": "contradictory",
        "p3": "missing",
        "p4": "18 to under 65",
        "p5": "65 and over",
    }
    assert found["focus"] == {
        "p1": "lowest third (under 18)",
        "p2": "middle third (18 to under 45)",
        "p3": "middle third (18 to under 45)",
        "p4": "highest third (45 and over)",
        "p5": "missing",
    }


def test_groups_stand_in_their_order_and_empty_bands_are_there() -> None:
    grouping = group_patients(IMAGES, Subgroups(columns=["scanner"], age_bands=[18, 40, 65]), None)
    assert grouping.groups == {
        "scanner": ["9", "10", "Leica", "Zeiss", "contradictory"],
        "age": ["under 18", "18 to under 40", "40 to under 65", "65 and over", "contradictory", "missing"],
    }


def test_a_limit_begins_its_band() -> None:
    edges = inventory([(f"p{age}", 1.0, age) for age in (17.9, 18.0, 39.9, 40.0)], ["age"])
    found = groups_of(Subgroups(columns=["age"], age_bands=[18, 40]), edges, None)
    assert list(found["age"].values()) == ["under 18", "18 to under 40", "18 to under 40", "40 and over"]
    # Without bands the column is one like any other.
    assert list(groups_of(Subgroups(columns=["age"], age_bands=[]), edges, None)["age"].values()) == [
        "17.9",
        "18",
        "39.9",
        "40",
    ]


def test_excluded_images_say_nothing() -> None:
    lost = IMAGES.assign(status=["included", "excluded", *["included"] * 5])
    assert groups_of(Subgroups(columns=["scanner"]), lost)["scanner"]["p1"] == "Zeiss"
    # p1 is now 10: the thirds of 10, 21, 40, 50
    assert focus_limits(lost) == pytest.approx((21.0, 40.0))
    assert focus_limits(IMAGES.assign(focus=NAN)) is None


def study(n: int = 60, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Three images a patient: predictions, inventory and a lock; women of whom some are ill, five men, the ill in wards."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), 3)
    ill = np.arange(n) % 3 == 0
    p = np.clip(rng.normal(0.35 + 0.3 * ill[patient], 0.2), 0.01, 0.99)
    names = [f"a/P{i:02d}" for i in patient]
    cases = [f"a/{i}" for i in range(3 * n)]
    predictions = pd.DataFrame(
        {
            "case_id": cases,
            "patient_id": names,
            "cohort": "a",
            "truth": np.where(ill[patient], "ill", "well"),
            "p_ill": p,
            "p_well": 1 - p,
            "index_test": "net-raw",
        }
    )
    images = pd.DataFrame(
        {
            "case_id": cases,
            "patient_id": names,
            "cohort": "a",
            "status": "included",
            "focus": rng.normal(30, 5, n)[patient],
            "sex": np.where(patient < 5, "male", "female"),
            "severity": np.where(ill[patient], "ward", ""),
        }
    )
    cut = {"threshold": 0.5}
    lock: dict[str, Any] = {
        "index_test": "net-raw",
        "endpoints": {"illness": {"positive": ["ill"], "patient": cut, "case": cut}},
    }
    return predictions, images, {**lock, "digest": digest_of(lock)}


OPTIONS: dict[str, Any] = {
    "classes": ["ill", "well"],
    "endpoints": {"illness": {"positive": ["ill"]}},
    "units": ["patient"],
    "accuracy": {"replicates": 100},
}


def written(
    folder: Path, predictions: pd.DataFrame, images: pd.DataFrame, lock: dict[str, Any]
) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        name: str(folder / name)
        for name in ("p.parquet", "other.csv", "i.parquet", "lock.json", "primary.json")
    }
    predictions.to_parquet(paths["p.parquet"])
    predictions.assign(index_test="other").to_csv(paths["other.csv"], index=False)
    images.to_parquet(paths["i.parquet"])
    Path(paths["lock.json"]).write_text(json.dumps(lock))
    Path(paths["primary.json"]).write_text(json.dumps({"index_test": "net-raw"}))
    return paths


def run(
    folder: Path, predictions: pd.DataFrame, images: pd.DataFrame, lock: dict[str, Any], **options: Any
) -> pd.DataFrame:
    paths = written(folder, predictions, images, lock)
    main(
        [
            "--options",
            json.dumps({**OPTIONS, **options}),
            "--predictions",
            paths["other.csv"],
            paths["p.parquet"],
            "--lock",
            paths["lock.json"],
            "--primary",
            paths["primary.json"],
            "--inventories",
            paths["i.parquet"],
            "--development",
            paths["i.parquet"],
            "--out",
            str(folder / "out"),
        ]
    )
    return pd.read_csv(folder / "out" / "subgroups.csv", keep_default_na=False)


@pytest.mark.parametrize("unit", ["patient", "case"])
def test_a_group_is_measured_as_if_it_were_the_study(tmp_path: Path, unit: str) -> None:
    predictions, images, lock = study()
    table = run(tmp_path, predictions, images, lock, units=[unit])
    assert tuple(table.columns) == COLUMNS
    women = predictions[images["sex"].eq("female")]
    alone = written(tmp_path / "women", women, images, lock)
    accuracy.main(
        [
            "--options",
            json.dumps(OPTIONS),
            "--predictions",
            alone["p.parquet"],
            "--lock",
            alone["lock.json"],
            "--unit",
            unit,
            "--out",
            str(tmp_path / "women"),
        ]
    )
    whole = (
        pd.read_csv(tmp_path / "women" / "metrics.csv", keep_default_na=False)
        .query("primary")
        .set_index("metric")
    )
    found = table.query("group == 'female'").set_index("metric")
    counts = ["method", "numerator", "denominator", "n_patients", "n_cases"]
    for metric in ("auc", "sensitivity", "specificity", "ppv", "npv", "accuracy"):
        assert [str(v) for v in found.loc[metric, counts]] == [str(v) for v in whole.loc[metric, counts]]
        numbers = whole.loc[metric, NUMBERS].astype(float).tolist()
        assert found.loc[metric, NUMBERS].astype(float).tolist() == pytest.approx(numbers, rel=1e-12), metric
    # By a hand count and scikit-learn, of patients' means.
    if unit == "patient":
        people = women.groupby("patient_id").agg(p=("p_ill", "mean"), truth=("truth", "first"))
        ill = people["truth"].eq("ill")
        assert float(found.loc["auc", "estimate"]) == pytest.approx(roc_auc_score(ill, people["p"]))
        assert int(found.loc["sensitivity", "numerator"]) == (people["p"][ill] >= 0.5).sum()
        assert (
            int(found.loc["auc", "n_present"]) == ill.sum()
            and int(found.loc["auc", "n_absent"]) == (~ill).sum()
        )


def test_small_and_one_sided_groups_have_their_n_and_a_reason(tmp_path: Path) -> None:
    table = run(tmp_path, *study())
    men = table.query("group == 'male'")
    assert set(men["n_patients"]) == {5} and set(men["estimate"]) == {""}
    assert set(men["suppressed"]) == {"5 patients, fewer than 10"}
    ward = table.query("group == 'ward'").set_index("metric")
    assert ward.loc["sensitivity", "suppressed"] == "" and ward.loc["sensitivity", "denominator"] == "20"
    one_sided = ward.drop(index="sensitivity")
    assert set(one_sided["suppressed"]) == {"no patient without the condition"} and set(
        one_sided["estimate"]
    ) == {""}
    well = table.query("variable == 'severity' and group == 'missing'").set_index("metric")
    assert well.loc["specificity", "denominator"] == "40"
    assert well.loc["sensitivity", "suppressed"] == "no patient with the condition"
    # Every variable's groups are all patients.
    n = table.query("metric == 'auc'").groupby("variable")["n_patients"].sum()
    assert n.to_dict() == {"all": 60, "sex": 60, "severity": 60, "focus": 60}
    thirds = table.query("variable == 'focus' and metric == 'auc'")["n_patients"]
    assert thirds.tolist() == [20, 20, 20]


def test_all_patients_are_those_of_the_accuracy_step(tmp_path: Path) -> None:
    """With three classes: accuracy and the macro AUC, whose group without a class says which one."""
    predictions, images, lock = study()
    third = predictions["patient_id"].isin([f"a/P{i:02d}" for i in range(40, 60)]) & predictions["truth"].eq(
        "well"
    )
    predictions = predictions.assign(
        truth=predictions["truth"].mask(third, "other"),
        p_other=np.where(third, 0.3, 0.1),
        p_well=lambda t: 1 - t["p_ill"],
    )
    total = predictions[["p_ill", "p_well", "p_other"]].sum(axis=1)
    predictions[["p_ill", "p_well", "p_other"]] = predictions[["p_ill", "p_well", "p_other"]].div(
        total, axis=0
    )
    classes = ["ill", "well", "other"]
    table = run(tmp_path, predictions, images, lock, classes=classes)
    paths = written(tmp_path, predictions, images, lock)
    options = {**OPTIONS, "classes": classes}
    accuracy.main(
        [
            "--options",
            json.dumps(options),
            "--predictions",
            paths["p.parquet"],
            "--lock",
            paths["lock.json"],
            "--out",
            str(tmp_path / "all"),
        ]
    )
    metrics = pd.read_csv(tmp_path / "all" / "metrics.csv", keep_default_na=False).query("primary")
    key = ["endpoint", "metric", "class"]
    both = table.query("variable == 'all'").merge(metrics, on=key, suffixes=("", "_step"))
    assert len(both) == 8
    for column in ("method", "numerator", "denominator"):
        assert both[column].tolist() == both[f"{column}_step"].tolist()
    for column in NUMBERS:
        assert both[column].astype(float).tolist() == pytest.approx(
            both[f"{column}_step"].astype(float).tolist()
        )
    ward = table.query("group == 'ward' and endpoint == 'classes'")
    assert set(ward["suppressed"]) == {"one class only: ill"}
    well = table.query("variable == 'severity' and group == 'missing' and endpoint == 'classes'").set_index(
        "metric"
    )
    assert well.loc["auc", "suppressed"] == "no patient of ill" and well.loc["accuracy", "suppressed"] == ""


def test_patients_without_an_inventory_are_an_error(tmp_path: Path) -> None:
    predictions, images, lock = study()
    with pytest.raises(
        UserError, match="patient 'a/P00' of cohort 'a' has predictions and no included image"
    ):
        run(tmp_path, predictions, images[images["patient_id"].ne("a/P00")], lock)
    other: dict[str, Any] = {**lock, "index_test": "other"}
    with pytest.raises(UserError, match=r"no lock of net-raw, .* these are of: other"):
        run(tmp_path, predictions, images, {**other, "digest": digest_of(other)})


def test_options_are_those_of_the_configuration() -> None:
    assert Options().subgroups == Subgroups()
