"""The step that sets a hospital beside development: hand counts, patients once, algebra, and what stops it."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from marrowflow.__main__ import main as run
from marrowflow.errors import UserError
from marrowflow.statistics import domain, shift
from marrowflow.statistics.shift import Sources, Sums, add_up, characteristics, measure_shift, project

LOOKS = ["L_mean", "a_mean", "b_mean", "L_sd", "a_sd", "b_sd"]


def inventory(cohort, patients, images=2, **columns):
    n = len(patients) * images
    table = pd.DataFrame(
        {
            "case_id": [f"{cohort}/{i}.png" for i in range(n)],
            "patient_id": np.repeat([f"{cohort}/{p}" for p in patients], images),
            "label": "AML",
            "reference_status": "ok",
            "status": "included",
            "focus": 50.0,
            "brightness": 180.0,
            "saturated": 0.0,
        }
    )
    return table.assign(**columns)


def looks(table, value=0.0):
    return pd.DataFrame({"case_id": table["case_id"], **dict.fromkeys(LOOKS, value)})


def side(table, path=None):
    return Sources(table, {"raw": looks(table)}, [] if path is None else [path])


def line(table, variable, level=""):
    (row,) = table[table["variable"].eq(variable) & table["level"].eq(level)].to_dict("records")
    return row


def test_patients_count_once_whatever_images_they_have():
    """Patients of means 10, 20 and 40, the last with four images; and of 30 and 50."""
    development = inventory("d", "aabc", 1).assign(focus=[5.0, 15, 20, 40])
    development = pd.concat(
        [development, development.iloc[3:].assign(case_id="d/9.png", focus=40.0)], ignore_index=True
    )
    hospital = inventory("h", "xy", 1).assign(focus=[30.0, 50])
    table = characteristics(side(development), side(hospital), ["AML"], [])
    row = line(table, "focus")
    assert (row["development"], row["hospital"]) == (pytest.approx(70 / 3), 40)
    assert (row["n_development"], row["n_hospital"]) == (3, 2)
    spread = math.sqrt((700 / 3 + 200) / 2)  # variances of 10, 20, 40 and of 30, 50
    assert row["difference"] == pytest.approx((40 - 70 / 3) / spread)
    assert row["chance"] == pytest.approx(1.96 * math.sqrt(1 / 3 + 1 / 2), rel=1e-4)
    assert line(table, "images_a_patient")["development"] == pytest.approx(5 / 3)


def test_shares_of_classes_are_the_patients():
    """Development: one patient AML, one half AML and half ALL, one without a reference; hospital: one of each."""
    development = inventory("d", "abc").assign(label=["AML", "AML", "AML", "ALL", "AML", "AML"])
    development.loc[4:, "reference_status"] = "missing"
    hospital = inventory("h", "xy").assign(label=["AML", "AML", "ALL", "ALL"])
    table = characteristics(side(development), side(hospital), ["ALL", "AML", "CML"], [])
    assert [row["level"] for row in table[table["variable"].eq("class")].to_dict("records")] == [
        "",
        "ALL",
        "AML",
        "CML",
    ]
    shares = {
        name: (line(table, "class", name)["development"], line(table, "class", name)["hospital"])
        for name in ("AML", "ALL", "CML")
    }
    assert shares == {"AML": (0.75, 0.5), "ALL": (0.25, 0.5), "CML": (0, 0)}
    row = line(table, "class")
    assert (row["n_development"], row["n_hospital"]) == (2, 2)
    expected = 0.25 / math.sqrt((0.25 * 0.75 + 0.25) / 2)
    assert row["difference"] == pytest.approx(expected)
    assert line(table, "class", "AML")["difference"] == pytest.approx(-expected)
    assert line(table, "class", "ALL")["difference"] == pytest.approx(expected)


def test_values_that_are_missing_count_for_nothing():
    development = inventory("d", "abc", 1, age=["40", "", "50"], sex=["F", None, " F "], scanner="A")
    hospital = inventory("h", "xy", 1, age=["", ""], scanner=["A", "B"])
    table = characteristics(side(development), side(hospital), ["AML"], ["sex", "scanner"])
    age, sex = line(table, "age"), line(table, "sex", "F")
    assert (age["development"], age["n_development"], age["n_hospital"]) == (45, 2, 0)
    assert np.isnan([age["hospital"], age["difference"], age["chance"]]).all()
    assert (sex["development"], sex["n_development"], sex["n_hospital"]) == (1, 2, 0)
    assert math.isnan(line(table, "sex")["difference"])
    assert line(table, "scanner", "B")["hospital"] == 0.5
    assert "magnification" not in set(table["variable"])


def test_features_are_added_up_by_patient_and_class_in_any_portions():
    table = inventory("d", "abc").assign(label=["AML", "ALL", "AML", "AML", "ALL", "ALL"])
    table.loc[5, "reference_status"] = "inconclusive"
    rows = np.random.default_rng(0).normal(0, 1, (6, 3))
    rows[2, 1] = np.nan
    cases = table["case_id"].tolist()
    found = add_up(table, iter([(cases[4:], rows[4:]), (cases[:4], rows[:4])]))
    assert list(zip(found.patient, found.label, found.images, strict=True)) == [
        ("d/a", "ALL", 1), ("d/a", "AML", 1), ("d/b", "AML", 1), ("d/c", "", 1), ("d/c", "ALL", 1)
    ]  # fmt: skip
    patients, means = found.means(by_class=False)
    assert patients["images"].tolist() == [2, 1, 2]
    np.testing.assert_allclose(means, [rows[:2].mean(axis=0), rows[3], rows[4:].mean(axis=0)])
    parts, means = found.means(by_class=True)
    assert parts["label"].tolist() == ["ALL", "AML", "AML", "ALL"]
    np.testing.assert_allclose(means, rows[[1, 0, 3, 4]])
    with pytest.raises(UserError, match="d/x"):
        add_up(table, iter([(["d/x"], rows[:1])]))


def sums(rows):
    n = len(rows)
    return Sums(
        np.array([f"p{i:03}" for i in range(n)], object), np.full(n, "", object), np.full(n, 2), 2 * rows
    )


def test_projection_equals_scikit_learn():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (30, 8)) * np.arange(1, 9) + 5, rng.normal(1, 2, (12, 8))
    x[:, 0] += 2 * x[:, 1]
    points, components = project(sums(x), sums(y))
    scaler = StandardScaler().fit(x)
    pca = PCA(n_components=2).fit(scaler.transform(x))
    for name, rows in (("development", x), ("hospital", y)):
        found = points.loc[points["side"].eq(name), ["component_1", "component_2"]].to_numpy()
        np.testing.assert_allclose(np.abs(found), np.abs(pca.transform(scaler.transform(rows))), atol=1e-10)
    np.testing.assert_allclose(components["development"], pca.explained_variance_ratio_)
    assert ((components["hospital"] > 0) & (components["hospital"] < 1)).all()


def embedding(path, table, rows, trained_on=False):
    columns = {f"f{i}": column for i, column in enumerate(np.asarray(rows, np.float32).T)}
    pd.DataFrame({"case_id": table["case_id"], "trained_on": trained_on, **columns}).to_parquet(path)
    return path


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Twenty-six development patients in two cohorts and a hospital of twelve whose features differ in one place."""
    monkeypatch.setattr(domain, "DIVISIONS", 1)
    monkeypatch.setattr(domain, "GROUPS", 3)
    monkeypatch.setattr(domain, "HALVINGS", 2)
    rng = np.random.default_rng(2)
    paths = {}
    for name, n in (("d1", 14), ("d2", 12), ("h", 12)):
        table = inventory(name, [f"{i:02}" for i in range(n)], 3)
        table["label"] = np.where(np.arange(len(table)) // 3 % 2, "AML", "ALL")
        table["focus"] = rng.gamma(3, 20, len(table))
        (tmp_path / name / "raw").mkdir(parents=True)
        paths[name] = tmp_path / name
        table.to_parquet(paths[name] / "inventory.parquet")
        shown = looks(table).assign(**{c: rng.normal(0, 1, len(table)) for c in LOOKS})
        shown.to_parquet(paths[name] / "raw" / "appearance.parquet")
        rows = rng.normal(0, 1, (len(table), 5))
        rows[:, 1] += 6 * (name == "h")
        embedding(paths[name] / "embedding.parquet", table, rows)
    return paths


def arguments(study, out):
    own = ("d1", "d2")
    return [
        "statistics.shift", "--options", json.dumps({"classes": ["AML", "ALL", "CML"]}),
        "--development-inventories", *(str(study[c] / "inventory.parquet") for c in own),
        "--inventory", str(study["h"] / "inventory.parquet"),
        "--development-appearance", *(str(study[c] / "raw" / "appearance.parquet") for c in own),
        "--appearance", str(study["h"] / "raw" / "appearance.parquet"),
        "--development-embeddings", *(str(study[c] / "embedding.parquet") for c in own),
        "--embedding", str(study["h"] / "embedding.parquet"), "--out", str(out),
    ]  # fmt: skip


def test_command_line(study, tmp_path):
    for out in ("one", "two"):
        assert run(arguments(study, tmp_path / out)) == 0
    names = {"characteristics.csv", "domain.csv", "projection.csv", "components.csv", "colour.csv"}
    assert {p.name for p in (tmp_path / "one").iterdir()} == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    table = pd.read_csv(tmp_path / "one" / "domain.csv", keep_default_na=False)
    keys = table[["features", "recipe", "comparison", "within"]].itertuples(index=False)
    expected = [
        (features, recipe, comparison, within)
        for features, recipe in (("colour", "raw"), ("quality", ""), ("network", ""))
        for within in ("", "class")
        for comparison in ("hospital", "development_halves")
    ]
    assert [tuple(key) for key in keys] == expected
    found = table.set_index(["features", "comparison", "within"])
    network = found.loc[("network", "hospital", "")]
    assert (network["n_development"], network["n_hospital"], network["n_features"]) == (26, 12, 5)
    assert (network["images_development"], network["images_hospital"]) == (78, 36)
    assert float(network["estimate"]) > 0.9
    assert float(found.loc[("colour", "hospital", ""), "estimate"]) < 0.9
    assert len(pd.read_csv(tmp_path / "one" / "projection.csv")) == 38
    colour = pd.read_csv(tmp_path / "one" / "colour.csv")
    assert colour.groupby("side").size().to_dict() == {"development": 26, "hospital": 12}


def test_images_that_the_network_was_trained_on_are_left_out(study, tmp_path):
    table = pd.read_parquet(study["d1"] / "inventory.parquet")
    path = study["d1"] / "embedding.parquet"
    known = np.arange(len(table)) < 3 * 4 + 1  # four patients and one image of the fifth
    shown = pd.read_parquet(path).assign(trained_on=known)
    shown.loc[known, "f0"] = 1e6
    shown.to_parquet(path)
    assert run(arguments(study, tmp_path / "out")) == 0
    found = pd.read_csv(tmp_path / "out" / "domain.csv").query(
        "features == 'network' and comparison == 'hospital'"
    )
    assert found["n_development"].tolist() == [22, 22]
    assert found["images_development"].tolist() == [78 - 13] * 2
    points = pd.read_csv(tmp_path / "out" / "projection.csv").set_index("patient_id")
    assert "d1/03" not in points.index
    assert points.loc["d1/04", "images"] == 2
    assert points["component_1"].abs().max() < 100


def test_recipes_and_features_of_both_sides(study, tmp_path):
    tables = {name: pd.read_parquet(study[name] / "inventory.parquet") for name in ("d1", "h")}
    sides = [side(tables[name], study[name] / "embedding.parquet") for name in ("d1", "h")]
    options = shift.Options(classes=["AML", "ALL"])
    other = Sources(sides[1].inventory, {"corrected": looks(tables["h"])}, sides[1].embeddings)
    with pytest.raises(UserError, match=r"\['raw'\] of development and of \['corrected'\]"):
        measure_shift(options, sides[0], other)
    embedding(study["h"] / "embedding.parquet", tables["h"], np.zeros((36, 4)))
    with pytest.raises(UserError, match="embed both with one network"):
        measure_shift(options, *sides)


UNSEEN = "no development image that the network was not trained on"


def measured(study, out):
    assert run(arguments(study, out)) == 0
    tables = {name: pd.read_csv(out / f"{name}.csv") for name in ("domain", "projection", "components")}
    table = tables["domain"].fillna({"within": ""})
    domain_rows = table.set_index(["features", "comparison", "within"]).sort_index()
    assert list(tables["projection"]) == ["patient_id", "images", "side", "component_1", "component_2"]
    assert list(tables["components"]) == ["component", "development", "hospital"]
    return domain_rows, tables["projection"], tables["components"]


def knows(path, unseen=0):
    """Mark all images as trained on, but those of the first patients, of three each."""
    shown = pd.read_parquet(path)
    shown.assign(trained_on=np.arange(len(shown)) >= 3 * unseen).to_parquet(path)


def without_rows(path):
    pd.read_parquet(path).iloc[:0].to_parquet(path)


@pytest.mark.parametrize("remove", [knows, without_rows])
def test_networks_that_know_all_of_development_stop_nothing(study, tmp_path, remove):
    for cohort in ("d1", "d2"):
        remove(study[cohort] / "embedding.parquet")
    found, points, components = measured(study, tmp_path / "out")
    network = found.loc["network"]
    assert len(network) == 4
    assert network["reason"].tolist() == [UNSEEN] * 4
    assert network[["estimate", "low", "high"]].isna().all(axis=None)
    assert (network["n_development"].eq(0) & network["images_development"].eq(0)).all()
    whole = network.loc[("hospital", "")]
    assert (whole["n_hospital"], whole["images_hospital"], whole["n_features"]) == (12, 36, 5)
    assert points.empty and components.empty
    assert found.loc[["colour", "quality"], "estimate"].notna().all()


def test_a_cohort_that_the_network_knows_leaves_the_others(study, tmp_path):
    knows(study["d1"] / "embedding.parquet")
    found, points, _ = measured(study, tmp_path / "out")
    whole = found.loc[("network", "hospital", "")]
    assert (whole["n_development"], whole["images_development"]) == (12, 36)
    assert whole["estimate"] > 0.9
    sides = points.assign(cohort=points["patient_id"].str.split("/").str[0]).groupby(["side", "cohort"])
    assert sides.size().to_dict() == {("development", "d2"): 12, ("hospital", "h"): 12}


@pytest.mark.parametrize(("unseen", "words"), [(1, "1 patient"), (2, "2 patients"), (9, "9 patients")])
def test_fewer_development_patients_than_the_least_are_not_projected(study, tmp_path, unseen, words):
    knows(study["d1"] / "embedding.parquet")
    knows(study["d2"] / "embedding.parquet", unseen)
    found, points, components = measured(study, tmp_path / "out")
    whole = found.loc[("network", "hospital", "")]
    assert whole["reason"] == f"suppressed: {words} of development, fewer than 10"
    assert whole["n_development"] == unseen
    assert points.empty and components.empty


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("patients", [0, 1])
def test_a_hospital_of_no_or_one_patient_has_no_variance(study, tmp_path, patients):
    path = study["h"] / "embedding.parquet"
    pd.read_parquet(path).iloc[: 3 * patients].to_parquet(path)
    found, points, components = measured(study, tmp_path / "out")
    reason = ("no image of the hospital has features of the network",
              "suppressed: 1 patient of the hospital, fewer than 10")[patients]  # fmt: skip
    whole = found.loc[("network", "hospital", "")]
    assert (whole["reason"], whole["n_development"], whole["n_hospital"]) == (reason, 26, patients)
    assert found.loc[("network", "development_halves"), "estimate"].notna().all()
    assert points.groupby("side").size().get("hospital", 0) == patients
    assert components["hospital"].isna().all() and components["development"].between(0, 1).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [0, 1, 9])
def test_both_sides_below_the_least_are_named(study, tmp_path, n):
    for cohort in ("d1", "d2"):
        path = study[cohort] / "inventory.parquet"
        table = pd.read_parquet(path)
        kept = np.arange(len(table)) < (3 * n if cohort == "d1" else 0)
        table.assign(status=np.where(kept, "included", "excluded")).to_parquet(path)
        for name in ("embedding", "raw/appearance"):
            rows = pd.read_parquet(study[cohort] / f"{name}.parquet")
            rows[kept].to_parquet(study[cohort] / f"{name}.parquet")
    for name in ("embedding", "raw/appearance"):
        path = study["h"] / f"{name}.parquet"
        pd.read_parquet(path).iloc[:3].to_parquet(path)
    table = pd.read_parquet(study["h"] / "inventory.parquet")
    table.iloc[:3].assign(label="CML").to_parquet(study["h"] / "inventory.parquet")
    found, points, _ = measured(study, tmp_path / "out")
    reason = (
        f"suppressed: {n} patient{'s' * (n > 1)} of development and 1 patient of the hospital, fewer than 10"
    )
    expected = {
        "colour": reason if n else "no development image has measures of colour",
        "quality": reason if n else "no development image has measures of quality",
        "network": reason if n else UNSEEN,
    }
    assert found["reason"].xs(("hospital", ""), level=(1, 2)).to_dict() == expected
    assert found["estimate"].isna().all() and points.empty


@pytest.mark.filterwarnings("error")
def test_nothing_to_compare_within_classes(study, tmp_path):
    for cohort in ("d1", "d2", "h"):
        path = study[cohort] / "inventory.parquet"
        pd.read_parquet(path).assign(reference_status="missing").to_parquet(path)
    found, _, _ = measured(study, tmp_path / "out")
    assert found.xs("class", level="within")["estimate"].isna().all()
    assert found.loc[("network", "hospital", ""), "estimate"] > 0.9


@pytest.mark.filterwarnings("error")
def test_features_that_do_not_vary_are_not_projected():
    points, components = project(sums(np.full((12, 4), 3.0)), sums(np.eye(4)))
    assert points.empty and components.empty
    rows = np.random.default_rng(0).normal(0, 1, (12, 4))
    points, components = project(sums(rows), sums(np.full((3, 4), 0.1)))
    assert len(points) == 15 and components["hospital"].isna().all()
