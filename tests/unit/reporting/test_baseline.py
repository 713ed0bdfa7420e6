"""Table 1 against counts made by hand, and its differences against another library and the papers' formulae."""

import math
from pathlib import Path

import pandas as pd
import pytest
from reporting_fixture import options_of

from marrowflow.files import write_table
from marrowflow.reporting.baseline import (
    Group,
    Line,
    baseline_lines,
    baseline_section,
    baseline_table,
    development_groups,
    numbers_of,
    remarks_on,
    shown_difference,
)
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.results import Results
from marrowflow.reporting.study_options import Options
from marrowflow.reporting.tables import Table
from marrowflow.statistics.standardised import standardised_difference, standardised_difference_of_shares

CLASSES = ["healthy", "AML"]


def image(
    patient: str, n: int = 0, label: str = "AML", cohort: str = "d", **columns: object
) -> dict[str, object]:
    return {
        "case_id": f"{cohort}/{patient}{n}",
        "patient_id": f"{cohort}/{patient}",
        "patient_source": "manifest",
        "label": label,
        "reference_status": "ok",
        "status": "included",
        "slide_id": "s",
        "age": math.nan,
        "sex": "",
        "focus": 1.0,
        "brightness": 100.0,
        "saturated": 0.0,
        **columns,
    }


# Development: six patients, nine images of which one is excluded.
#   a  two images of two smears, 20 years, female, AML, severe on one image and mild on the other
#   b  two images of one smear, 40, male, AML
#   c  two images, 60, unknown sex, healthy; index test 3 days after the reference
#   e  one image, no age, female, reference missing
#   f  one image, 30, male, reference inconclusive
#   g  one image, excluded
DEVELOPMENT = pd.DataFrame(
    [
        image("a", 0, age=20, sex="female", severity="", scanner="X", focus=1, saturated=0.02, index_date="2020-01-01"),
        image("a", 1, age=20, sex="female", slide_id="t", severity="severe", scanner="X", focus=3, saturated=0.04,
              index_date="2020-01-01", reference_date="2020-01-05"),
        image("a", 2, age=20, sex="female", slide_id="t", severity="mild", scanner="X", focus=2, saturated=0.03),
        image("b", 0, age=40, sex="male", scanner="X", index_date="2020-03-01", reference_date="2020-03-07"),
        image("b", 1, age=40, sex="male", scanner="X", focus=2),
        image("c", 0, "healthy", age=60, sex="unknown", scanner="Y", saturated=0.05,
              index_date="2020-02-04", reference_date="2020-02-01"),
        image("c", 1, "healthy", age=60, sex="unknown", scanner="Y", saturated=0.05),
        image("e", 0, "", reference_status="missing", sex="female", saturated=0.01),
        image("f", 0, "", reference_status="inconclusive", age=30, sex="male"),
        image("g", 0, status="excluded", age=99, sex="male", scanner="Z"),
    ]
)  # fmt: skip
HOSPITAL = pd.DataFrame(
    [
        *(image(f"p{i}", 0, "healthy", "h", age=age, sex=sex, scanner="Y") for i, (age, sex) in
          enumerate([(70, "male"), (50, "male"), (60, "female")])),
        image("q", 0, "AML", "h", age=80, sex="male", scanner="Y"),
    ]
)  # fmt: skip
GROUPS = [
    Group("development", "Development", "development", DEVELOPMENT),
    Group("h", "Hospital H", "external", HOSPITAL),
]


def lines(groups: list[Group] | None = None, **intended: float) -> dict[tuple[str, str], Line]:
    found = baseline_lines(groups or GROUPS, CLASSES, intended)
    return {(line.characteristic.partition(",")[0], line.level): line for line in found}


def shown(group: str = "development", groups: list[Group] | None = None) -> dict[tuple[str, str], str]:
    return {key: line.cells[group].shown for key, line in lines(groups).items()}


def test_development_counted_by_hand() -> None:
    found = shown()
    assert {key[0]: found[key] for key in found if not key[1]} == {
        "patients": "5",
        "smears": "6",
        "images": "9",
        "images a patient": "2 (1 to 2)",  # 3, 2, 2, 1, 1
        "patients without an included image": "1",
        "excluded images": "1",
        "age in years": "35 (27.5 to 45); missing in 1",  # 20, 30, 40, 60
        "stain": "missing",
        "magnification": "missing",
        "date of the index test": "2020‑01‑01 to 2020‑03‑01; missing in 2",
        "date of the reference standard": "2020‑01‑05 to 2020‑03‑07; missing in 2",
        "days from index test to reference standard": "4 (0.5 to 5); negative in 1; missing in 2",  # 4, 6, -3
        "focus measure": "1 (1 to 1.5)",  # means 2, 1.5, 1, 1, 1
        "brightness (0 to 255)": "100 (100 to 100)",
        "saturated pixels in %": "1 (0 to 3)",  # 3, 0, 5, 1, 0
    }
    assert {key: found[key] for key in found if key[1]} == {
        ("sex", "male"): "2 (50%)",
        ("sex", "female"): "2 (50%)",
        ("sex", "missing"): "1",
        ("reference diagnosis", "healthy"): "1 (33%) [2]",
        ("reference diagnosis", "AML"): "2 (67%) [5]",
        ("reference standard", "missing"): "1 [1]",
        ("reference standard", "inconclusive"): "1 [1]",
        ("severity", "severe"): "1 (100%)",
        ("severity", "missing"): "4",
        ("scanner", "Y"): "1 (33%)",
        ("scanner", "X"): "2 (67%)",
        ("scanner", "missing"): "2",
    }


def test_a_hospital_without_a_column_says_how_many_lack_it() -> None:
    found = shown("h")
    assert found["severity", "severe"] == "–" and found["severity", "missing"] == "4"
    assert found["date of the index test", ""] == "missing"
    assert found["sex", "missing"] == "0"


def test_differences_of_the_hospital_by_hand() -> None:
    found = lines()
    # Ages 20, 30, 40, 60: mean 37.5, variance 291.67; 50, 60, 70, 80: mean 65, variance 166.67
    age = found["age in years", ""].differences["h"]
    assert age == pytest.approx(27.5 / math.sqrt((875 / 3 + 500 / 3) / 2))
    # Male: 3/4 against 2/4 of those whose sex is known
    sex = found["sex", "male"].differences["h"]
    assert sex == pytest.approx(0.25 / math.sqrt((0.75 * 0.25 + 0.5 * 0.5) / 2))
    # AML: 1/4 against 2/3
    of = found["reference diagnosis", "healthy"].differences["h"]
    assert of == pytest.approx((2 / 3 - 1 / 4) / math.sqrt((2 / 9 + 3 / 16) / 2))
    assert math.isnan(found["severity", "severe"].differences["h"])
    assert found["sex", "female"].differences == {} and found["images", ""].differences == {}


def test_contradictions_within_a_patient_are_counted() -> None:
    assert "Patients with images that contradict each other: severity 1." in remarks_on(GROUPS)
    assert "No patient has images that contradict each other." in remarks_on([GROUPS[0], GROUPS[1]][1:])


def test_differences_of_classes_are_of_images_where_a_patient_has_several() -> None:
    cells = pd.DataFrame([image("x", 0, "healthy"), image("x", 1), image("x", 2), image("y", 3)])
    groups = [Group("development", "D", "development", cells), GROUPS[1]]
    found = lines(groups)["reference diagnosis", "healthy"]
    assert found.cells["development"].shown == "1 (50%) [1]"
    # Healthy: 3 of 4 images against 1 of 4
    assert found.differences["h"] == pytest.approx(0.5 / math.sqrt(0.1875))
    assert any("is of images" in note for note in remarks_on(groups))
    assert "Patients with images that contradict each other: reference diagnosis 1." in remarks_on(groups)


def test_rare_values_are_counted_together_and_compared_each() -> None:
    names = [f"scanner {i}" for i in range(10)]
    many = pd.DataFrame([image(f"p{i}", scanner=names[max(0, i - 3)]) for i in range(13)])
    groups = [Group("development", "D", "development", many), Group("h", "H", "external", many.iloc[3:])]
    found = lines(groups)
    assert [key[1] for key in found if key[0] == "scanner"] == [*names[:7], "3 others"]
    assert found["scanner", "3 others"].cells["development"].numbers == {"n": 3, "of": 13}
    each = standardised_difference_of_shares([1] * 10, [4] + [1] * 9)
    assert found["scanner", "scanner 0"].differences["h"] == pytest.approx(each)


def test_eight_values_have_a_row_each() -> None:
    some = pd.DataFrame([image(f"p{i}", scanner=f"scanner {i}") for i in range(8)])
    found = lines([Group("development", "D", "development", some)])
    assert [key[1] for key in found if key[0] == "scanner"] == [f"scanner {i}" for i in range(8)]


# Partitions


def folds_of(*partitions: dict[str, str]) -> pd.DataFrame:
    """Return the table of folds of patients a, b and c: their partition in each fold."""
    kept = DEVELOPMENT[DEVELOPMENT["status"].eq("included") & DEVELOPMENT["reference_status"].eq("ok")]
    parts = [
        kept[["case_id", "patient_id"]].assign(fold=i, partition=kept["patient_id"].str[-1].map(of))
        for i, of in enumerate(partitions)
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_holdout_has_a_column_a_partition() -> None:
    folds = folds_of({"a": "train", "b": "validation", "c": "test"})
    groups, notes = development_groups({"d": DEVELOPMENT}, {"d": "D"}, folds)
    assert [(g.name, len(g.kept)) for g in groups] == [
        ("development", 9),
        ("development/train", 3),
        ("development/validation", 2),
        ("development/test", 2),
    ]
    assert notes == ["Partitions hold the included images with a usable reference standard."]
    # A partition's patients are development's: they add nothing to the counts of contradictions.
    assert "Patients with images that contradict each other: severity 1." in remarks_on(groups)


def test_folds_have_no_columns_and_say_how_often_a_patient_is_tested() -> None:
    one = {"a": "train", "b": "train", "c": "test"}
    once = folds_of(one, {"a": "test", "b": "train", "c": "train"}, {"a": "train", "b": "test", "c": "train"})
    groups, notes = development_groups({"d": DEVELOPMENT}, {"d": "D"}, once)
    assert [g.role for g in groups] == ["development"]
    assert "in 3 folds every development patient with a usable reference standard is tested once" in notes[0]
    _, notes = development_groups({"d": DEVELOPMENT}, {"d": "D"}, folds_of(one, one))
    assert "in 2 divisions" in notes[0] and "tested 0 to 2 times" in notes[0]


def test_several_development_hospitals_have_a_column_each() -> None:
    groups, _ = development_groups({"d": DEVELOPMENT, "h": HOSPITAL}, {"d": "D", "h": "H"}, None)
    assert [(g.heading, len(g.patients)) for g in groups] == [("Development", 9), ("D", 5), ("H", 4)]


# The table and its file


def test_levels_stand_below_their_characteristic_with_the_difference_above() -> None:
    table = baseline_table(GROUPS, baseline_lines(GROUPS, CLASSES, {"AML": 0.125}), [], {})
    assert table.header == [
        "characteristic",
        "Development",
        "Hospital H",
        "standardised difference",
        "intended use",
    ]
    start = next(i for i, row in enumerate(table.rows) if str(row[0]).startswith("reference diagnosis"))
    assert [list(row) for row in table.rows[start : start + 3]] == [
        ["reference diagnosis, patients (%) [images]", "", "", "0.92", ""],
        ["\u2003healthy", "1 (33%) [2]", "3 (75%) [3]", "", ""],
        ["\u2003AML", "2 (67%) [5]", "1 (25%) [1]", "", "12.5%"],
    ]
    assert {len(row) for row in table.rows} == {5}


def test_the_file_has_the_numbers_of_every_cell() -> None:
    found = numbers_of(baseline_lines(GROUPS, CLASSES), GROUPS)
    age = found[found["characteristic"].eq("age in years") & found["group"].eq("h")].iloc[0]
    assert (age["n"], age["median"], age["q1"], age["q3"], age["missing"]) == (4, 65, 57.5, 72.5, 0)
    days = found[found["characteristic"].str.startswith("days") & found["group"].eq("development")].iloc[0]
    assert (days["n"], days["median"], days["negative"], days["missing"]) == (3, 4, 1, 2)
    aml = found[found["level"].eq("AML") & found["group"].eq("development")].iloc[0]
    assert (aml["n"], aml["of"], aml["images"], aml["shown"]) == (2, 3, 5, "2 (67%) [5]")


def test_surrogate_groups_are_called_so() -> None:
    surrogate = Group("h", "H", "external", HOSPITAL.assign(patient_source="surrogate"))
    assert baseline_lines([surrogate], CLASSES)[0].characteristic == "surrogate groups"
    both = [GROUPS[0], surrogate]
    assert baseline_lines(both, CLASSES)[0].characteristic == "patients"
    assert remarks_on(both)[-1] == "In H surrogate groups of near duplicates are counted as patients."


def test_the_section_reads_the_named_cohorts_alone_and_writes_the_file(tmp_path: Path) -> None:
    root, out = tmp_path / "results", tmp_path / "results" / "external" / "h"
    write_table(root / "cohorts" / "d" / "inventory.parquet", DEVELOPMENT)
    write_table(root / "cohorts" / "h" / "inventory.parquet", HOSPITAL)
    write_table(
        root / "splits" / "sound" / "folds.parquet", folds_of({"a": "train", "b": "train", "c": "test"})
    )
    study = options_of()["study"] | {"intended_prevalence": {"AML": 0.2}}
    options = Options(**(options_of() | {"study": study}))
    reporter = Reporter(options, Results(root, out), Primary(options.index_tests[0], "declared"))
    section = baseline_section(reporter, {"d": "D"}, {"h": "Hospital <H>"})
    (table,) = section.blocks
    assert isinstance(table, Table) and section.anchor == "baseline"
    assert table.header == [
        "characteristic", "Development", "Development, train", "Development, test", "Hospital <H>",
        "standardised difference", "intended use",
    ]  # fmt: skip
    assert [row[-1] for row in table.rows if row[-1]] == ["20%"]
    written = pd.read_csv(out / "figures" / "baseline.csv", keep_default_na=False)
    cells = [text for row in table.rows for text in row[1:5] if text]
    assert set(cells) <= set(written["shown"])
    assert list(table.sources) == ["baseline.csv", "inventory of d", "inventory of h", "folds.parquet"]


# Standardised differences

AGES = [23, 31, 45, 52, 38, 61, 70, 29], [66, 71, 58, 80, 49]


def test_a_continuous_difference_is_that_of_tableone() -> None:
    # TableOne(…, groupby, continuous=["age"], smd=True) of tableone 0.9.6 prints 1.473.
    assert round(standardised_difference(AGES[1], AGES[0]), 3) == 1.473


@pytest.mark.parametrize(
    ("development", "hospital", "expected"),
    [
        # tableone 0.9.6: Statistics()._cat_smd(prop1, prop2, n1, n2), which follows Yang & Dalton 2012
        ([18, 12, 10], [6, 9, 15], 0.6279858256227593),
        ([30, 10], [12, 18], 0.7570332986102252),
        ([5, 0, 7, 8], [2, 4, 1, 3], 1.2452553123562824),
    ],
)
def test_a_categorical_difference_is_that_of_tableone(
    development: list[int], hospital: list[int], expected: float
) -> None:
    assert standardised_difference_of_shares(hospital, development) == pytest.approx(expected, rel=1e-12)


def test_differences_as_printed() -> None:
    values = (0.126, -0.126, math.inf, -math.inf, math.nan, None, -0.0)
    assert [shown_difference(v) for v in values] == ["0.13", "−0.13", "∞", "−∞", "–", "", "0.00"]
