"""Tables beside the metrics: numbers as written by hand into the files, and words where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

import pandas as pd
import pytest

from marrowflow.reporting import measures
from marrowflow.reporting.accuracy_figures import Asked
from marrowflow.reporting.page import Text
from marrowflow.reporting.tables import Table

TO = "\u00a0to\u00a0"
NONE = "no\u00a0interval"


def table_of(text: str) -> pd.DataFrame:
    """Read a table as the reports do: empty words are words, empty numbers are missing."""
    table = pd.read_csv(StringIO(text))
    words = [c for c in ("class", "metric", "warning", "endpoint", "unit", "method") if c in table]
    return table.assign(**{c: table[c].fillna("").astype(str) for c in words})


def beside(
    files: dict[str, str],
    classes: Sequence[str] = ("",),
    warnings: str = "",
    noun: str = "patients",
    unit: str = "patient",
) -> measures.Beside:
    tables = {name: table_of(text) for name, text in files.items()}
    counted = noun if unit == "patient" else "images"
    endpoint = "leukaemia" if classes == ("",) else "classes"
    asked = Asked(
        endpoint, unit, classes, "question", "who, n", counted, "cut-off", 0.95, pd.DataFrame(), tables.get
    )
    told = table_of("endpoint,metric,class,unit,warning\n" + warnings) if warnings else None
    return measures.Beside(
        asked, "Hospital <B>", noun, f"n = 25 {noun} (92 images)", told, lambda name: {name: f"x/{name}"}
    )


def cells(table: object) -> dict[str, list[str]]:
    assert isinstance(table, Table)
    return {row[0]: list(row[1:]) for row in table.rows}


THREE = "endpoint,analysis,metric,class,unit,estimate,low,high,method,numerator,denominator,n_patients\n"


def three(sensitivity: Sequence[str], endpoint: str = "leukaemia", of: str = "") -> str:
    rest = [
        f"{endpoint},{analysis},{metric},{of},patient,0.5,0.2,0.8,wilson_neff,3,6,6\n"
        for metric in ("specificity", "ppv", "npv", "accuracy")
        for analysis in ("left_out", "counted_as_errors", "worst_case")
    ]
    return "".join([*(f"{endpoint},{line}\n" for line in sensitivity), *rest])


SENSITIVITY = [
    "left_out,sensitivity,,patient,0.9,0.7,0.97,wilson_neff,18,20,25",
    "counted_as_errors,sensitivity,,patient,0.857,0.65,0.95,wilson_neff,18,21,26",
    "worst_case,sensitivity,,patient,0.818,0.61,0.93,wilson_neff,18,22,28",
]


def test_three_analyses_stand_side_by_side_with_their_denominators() -> None:
    (made,) = measures.three_analyses(beside({"indeterminate.csv": THREE + three(SENSITIVITY)}))
    assert isinstance(made, Table)
    assert made.header == ["metric", "left out", "counted as errors", "worst case"]
    assert cells(made)["sensitivity"] == [
        f"0.900\u00a0[18/20] (0.700{TO}0.970)",
        f"0.857\u00a0[18/21] (0.650{TO}0.950)",
        f"0.818\u00a0[18/22] (0.610{TO}0.930)",
    ]
    assert list(cells(made)) == ["sensitivity", "specificity", "PPV", "NPV", "accuracy"]
    words = " ".join(made.notes)
    assert all(start in words for start in ("Left out:", "Counted as errors:", "Worst case:"))
    assert "In brackets: numerator/denominator, in patients. 95% intervals: Wilson, effective n." in words
    assert made.sources == {"indeterminate.csv": "x/indeterminate.csv"}


def test_three_analyses_that_coincide_are_one_sentence() -> None:
    same = [f"{a},sensitivity,,patient,0.9,0.7,0.97,wilson_neff,18,20,25" for a in ("left_out", "worst_case")]
    (made,) = measures.three_analyses(beside({"indeterminate.csv": THREE + three(same)}))
    assert isinstance(made, Text) and len(made.paragraphs) == 1
    assert made.paragraphs[0].startswith("No patient with a reference lacks an answer") and made.sources
    (made,) = measures.three_analyses(
        beside({"indeterminate.csv": THREE + three(same)}, noun="surrogate groups")
    )
    assert isinstance(made, Text) and "No surrogate group with" in made.paragraphs[0]


def test_three_analyses_of_classes_are_accuracy_then_each_class() -> None:
    rows = [
        f"classes,{a},{m},{c},patient,0.5,,,none,{n},{d},9\n"
        for m, c, n in (
            ("accuracy", "", 7),
            ("sensitivity", "ALL", 2),
            ("specificity", "ALL", 3),
            ("ppv", "ALL", 4),
        )
        for a, d in (("left_out", 10), ("counted_as_errors", 11), ("worst_case", 12))
    ]
    (made,) = measures.three_analyses(beside({"indeterminate.csv": THREE + "".join(rows)}, ["ALL"]))
    assert list(cells(made)) == ["accuracy", "sensitivity (ALL)", "specificity (ALL)"]
    assert cells(made)["sensitivity (ALL)"][2] == f"0.500\u00a0[2/12] ({NONE})"
    assert isinstance(made, Table) and "None from fewer than two patients." in " ".join(made.notes)


MEASURE = (
    "endpoint,metric,class,at,unit,estimate,low,high,method,primary,n_cases,n_patients,replicates,undefined"
)


def test_operating_points_of_a_question_are_lines_and_those_of_classes_columns() -> None:
    head = MEASURE + "\n"
    lines = [
        "leukaemia,specificity_at_sensitivity,,0.9,patient,0.8,0.6,0.9,bootstrap_percentile,True,92,25,2000,0",
        "leukaemia,sensitivity_at_specificity,,0.95,patient,0.61,0.3,0.9,bootstrap_percentile,True,92,25,2000,0",
        "leukaemia,sensitivity_at_specificity,,0.9,patient,0.63,0.36,1,bootstrap_percentile,True,92,25,2000,0",
        "leukaemia,partial_area,,0.8,patient,0.13,0.1,0.2,bootstrap_bca,True,92,25,2000,0",
        "leukaemia,partial_auc,,0.8,patient,0.83,0.66,0.95,bootstrap_bca,True,92,25,2000,0",
        "leukaemia,sensitivity_at_specificity,,0.9,case,0.11,0.1,0.2,bootstrap_percentile,True,92,25,2000,0",
    ]
    (made,) = measures.operating_points(beside({"operating_points.csv": head + "\n".join(lines)}))
    assert list(cells(made).items()) == [
        ("sensitivity at specificity 0.9", [f"0.630 (0.360{TO}1.000)"]),
        ("sensitivity at specificity 0.95", [f"0.610 (0.300{TO}0.900)"]),
        ("specificity at sensitivity 0.9", [f"0.800 (0.600{TO}0.900)"]),
        ("partial AUC from specificity 0.8", [f"0.830 (0.660{TO}0.950)"]),
    ]
    assert isinstance(made, Table) and made.title == "Hospital <B>: operating points, leukaemia, per patient"
    assert (
        "n = 25 patients (92 images). 95% intervals: bootstrap (percentile) for specificity at sensitivity, "
        "sensitivity at specificity; bootstrap (BCa) for partial AUC." in made.notes
    )
    classes = [
        f"classes,sensitivity_at_specificity,{c},0.9,patient,{v},,,none,True,92,25,2000,0"
        for c, v in (("AML", 0.7), ("ALL", 1.0), ("CML", 1.0))
    ]
    told = "".join(
        f'classes,sensitivity_at_specificity,{c},patient,"all replicates are equal (2 rows)"\n'
        for c in ("ALL", "CML")
    )
    few = 'classes,f1,AML,patient,"no clustered interval: 1 patients of AML, at least two are needed"\n'
    (made,) = measures.operating_points(
        beside(
            {"operating_points.csv": head + "\n".join(classes)},
            ["ALL", "AML", "CML"],
            told + few,
            "surrogate groups",
        )
    )
    assert isinstance(made, Table) and made.header == ["operating point", "ALL", "AML", "CML"]
    assert cells(made)["sensitivity at specificity 0.9"] == [
        f"1.000 ({NONE})",
        f"0.700 ({NONE})",
        f"1.000 ({NONE})",
    ]
    assert "Sensitivity at specificity (ALL, CML): all replicates are equal." in made.notes
    # The accuracy step tells of too few patients with the metrics only.
    assert any(
        note.startswith("Sensitivity at specificity (AML): no clustered interval: 1 surrogate groups of AML")
        for note in made.notes
    )


def test_predictive_values_stand_by_prevalence() -> None:
    rows = [
        f"{MEASURE}",
        "leukaemia,ppv_at_prevalence,,0.2,patient,0.556,0.281,0.8,mover_wilson_neff,True,92,25,0,0",
        "leukaemia,ppv_at_prevalence,,0.05,patient,0.208,0.076,0.457,mover_wilson_neff,True,92,25,0,0",
        "leukaemia,ppv_at_prevalence,,0.05,patient,0.208,0.1,0.9,bootstrap_bca,False,92,25,2000,0",
        "leukaemia,npv_at_prevalence,,0.05,patient,0.98,0.95,0.99,mover_wilson_neff,True,92,25,0,0",
        "leukaemia,npv_at_prevalence,,0.2,patient,,,,none,True,92,25,0,0",
    ]
    (made,) = measures.predictive_values(beside({"predictive_values.csv": "\n".join(rows)}))
    assert list(cells(made).items()) == [
        ("0.05", [f"0.208 (0.076{TO}0.457)", f"0.980 (0.950{TO}0.990)"]),
        ("0.2", [f"0.556 (0.281{TO}0.800)", "undefined"]),
    ]
    assert (
        isinstance(made, Table)
        and "95% intervals: MOVER, effective n." in " ".join(made.notes)
        and made.header == ["prevalence", "PPV (95% interval)", "NPV (95% interval)"]
    )
    two = [line.replace("leukaemia", "classes").replace(",,0.", ",AML,0.") for line in rows]
    ppv, npv = measures.predictive_values(beside({"predictive_values.csv": "\n".join(two)}, ["AML"]))
    assert cells(ppv)["0.2"] == [f"0.556 (0.281{TO}0.800)"] and cells(npv)["0.2"] == ["undefined"]
    assert isinstance(ppv, Table) and ppv.title == "Hospital <B>: PPV by prevalence, classes, per patient"


def calibrated(endpoint: str, of: str, scores: str, slope: str = "0.8,0.5,1.1,bootstrap_bca") -> list[str]:
    rows = {
        "calibration_slope": slope,
        "calibration_intercept": "-0.2,-0.5,0.1,bootstrap_bca",
        "observed_expected": "1.1,0.9,1.3,bootstrap_bca",
        "ece": "0.06,,,none",
        "brier_reliability": "0.02,,,none",
        "brier_resolution": "0.1,,,none",
        "brier_uncertainty": "0.24,0.2,0.25,bootstrap_bca",
        "brier_within_bin": "-0.01,-0.02,0.01,bootstrap_bca",
    }
    return [
        f"{endpoint},{m},{of},,patient,{v},True,92,25,2000,{'150' if v is slope else '0'},{scores}\n"
        for m, v in rows.items()
    ]


BIASED = "".join(
    f"{{0}},{m},,patient,biased upwards\n" for m in ("ece", "brier_reliability", "brier_resolution")
)


def test_calibration_as_given_and_recalibrated_stand_side_by_side() -> None:
    rows = calibrated("leukaemia", "", "as_given") + calibrated(
        "leukaemia", "", "recalibrated_out_of_fold", "0.97,,,none"
    )
    told = "leukaemia,calibration_slope,,patient,150 of 2000 replicates are undefined\n" + BIASED.format(
        "leukaemia"
    )
    (made,) = measures.calibration(
        beside({"calibration_measures.csv": MEASURE + ",scores\n" + "".join(rows)}, warnings=told)
    )
    found = cells(made)
    assert found["slope"] == [f"0.800 (0.500{TO}1.100)", f"0.970 ({NONE})"]
    assert found["intercept"] == [f"−0.200 (−0.500{TO}0.100)"] * 2
    assert found["expected calibration error"] == [f"0.060 ({NONE})"] * 2
    # .02 − .10 + .24 − .01
    assert found["Brier score"] == ["0.150", "0.150"]
    assert isinstance(made, Table)
    assert "Expected calibration error, Brier: reliability, Brier: resolution: biased upwards." in made.notes
    assert made.header[1:] == ["as given (95% interval)", "recalibrated out of fold (95% interval)"]


BEFORE = "calibration_measures_uncalibrated.csv"
CURVE = "endpoint,unit,class,bin,n,mean_predicted,observed,low,high\n"


def test_before_and_after_the_locked_calibration_stand_side_by_side() -> None:
    files = {
        "calibration_measures.csv": MEASURE
        + ",scores\n"
        + "".join(
            calibrated("leukaemia", "", "as_given") + calibrated("leukaemia", "", "recalibrated_out_of_fold")
        ),
        BEFORE: MEASURE + ",scores\n" + "".join(calibrated("leukaemia", "", "uncalibrated", "0.4,,,none")),
        "calibration_uncalibrated.csv": CURVE + "leukaemia,patient,,1,25,0.7,0.6,0.4,0.8\n",
    }
    told = (
        'leukaemia,calibration_slope,,patient,"150 of 2000 replicates are undefined, before calibration"\n'
        "leukaemia,calibration_intercept,,patient,something of the calibrated ones\n"
        'leukaemia,observed_expected,,patient,"undefined in this sample, before calibration"\n'
    ) + BIASED.format("leukaemia")
    one = beside(files, warnings=told)
    (made,) = measures.calibration(one)
    assert isinstance(made, Table) and one.asked.lost == []
    assert set(made.sources) == {BEFORE, "calibration_measures.csv"}
    assert made.header[1:] == [
        "before calibration (95% interval)",
        "calibrated (95% interval)",
        "recalibrated out of fold (95% interval)",
    ]
    assert cells(made)["slope"] == [f"0.400 ({NONE})", f"0.800 (0.500{TO}1.100)", f"0.800 (0.500{TO}1.100)"]
    words = " ".join(made.notes)
    # The third column is refitted, so that nothing of the kind may be said of the table.
    assert "Nothing was refitted." not in words and "Recalibrated: logistic recalibration" in words
    assert "its interval, calibrated, stands with the metrics" in words
    assert "Before calibration, slope: 150 of 2000 replicates are undefined." in made.notes
    assert (
        "Calibrated and recalibrated out of fold, intercept: something of the calibrated ones." in made.notes
    )
    assert "Before calibration, observed / expected: undefined in this sample." in made.notes
    assert not any("sample, before calibration" in note for note in made.notes)
    # Said of all, and so once.
    assert "Expected calibration error, Brier: reliability, Brier: resolution: biased upwards." in made.notes


def test_where_nothing_is_calibrated_the_table_says_so() -> None:
    files = {
        "calibration_measures.csv": MEASURE + ",scores\n" + "".join(calibrated("leukaemia", "", "as_given")),
        BEFORE: MEASURE + ",scores\n",
        "calibration_uncalibrated.csv": CURVE,
    }
    one = beside(files)
    (made,) = measures.calibration(one)
    assert isinstance(made, Table) and one.asked.lost == []
    assert made.header[1:] == ["as given (95% interval)"]
    assert "The study calibrates nothing: as given, probabilities are the networks’ own." in made.notes


def test_what_could_not_be_recalibrated_has_no_column_and_is_named() -> None:
    why = "no recalibration: outside some fold of patients the scores separate the classes"
    one = beside(
        {
            "calibration_measures.csv": MEASURE
            + ",scores\n"
            + "".join(calibrated("leukaemia", "", "as_given"))
        },
        warnings=f"leukaemia,calibration_slope,,patient,{why}\n",
    )
    (made,) = measures.calibration(one)
    assert isinstance(made, Table) and len(made.header) == 2
    assert "Not recalibrated: outside some fold of patients the scores separate the classes." in made.notes
    rows = [
        *calibrated("classes", "AML", "as_given", "0.5,,,none"),
        *calibrated("classes", "ALL", "as_given"),
        *calibrated("classes", "ALL", "recalibrated_out_of_fold"),
    ]
    told = (
        f"classes,calibration_slope,AML,patient,{why}\n"
        "classes,calibration_slope,AML,patient,150 of 2000 replicates are undefined\n"
        "classes,calibration_slope,AML,patient,77 of 2000 replicates are undefined\n"
    )
    given, again = measures.calibration(
        beside({"calibration_measures.csv": MEASURE + ",scores\n" + "".join(rows)}, ["AML", "ALL"], told)
    )
    assert isinstance(given, Table) and isinstance(again, Table)
    assert list(given.header) == ["measure", "AML", "ALL"] and list(again.header) == ["measure", "ALL"]
    assert cells(given)["slope"] == [f"0.500 ({NONE})", f"0.800 (0.500{TO}1.100)"]
    assert "Slope (AML): 150 of 2000 replicates are undefined." in given.notes
    # 77 is the number of the other scores' row, which stands in the other table.
    assert not any("77 of" in note for note in (*given.notes, *again.notes))
    assert again.notes[-1].startswith("Not recalibrated (AML): outside some fold")
    assert not any("recalibrat" in note for note in given.notes)


def test_a_differential_count_is_of_images_by_both_sources() -> None:
    head = "endpoint,source,class,unit,estimate,low,high,method,numerator,denominator,n_patients\n"
    rows = [
        "classes,truth,AML,case,0.25,0.1,0.5,wilson_neff,20,80,21\n",
        "classes,predicted,AML,case,0.3,0.15,0.55,wilson_neff,24,80,21\n",
        "classes,truth,AML,patient,0.9,0.1,0.5,wilson_neff,9,10,21\n",
    ]
    (made,) = measures.differential(beside({"differential.csv": head + "".join(rows)}, ["AML"]))
    assert cells(made) == {
        "AML": [f"0.250\u00a0[20/80] (0.100{TO}0.500)", f"0.300\u00a0[24/80] (0.150{TO}0.550)"]
    }
    assert isinstance(made, Table) and made.title.endswith("differential count, classes, per image")
    assert "n = 80 images of 21 patients. 95% intervals: Wilson, effective n." in made.notes


@pytest.mark.parametrize("classes", [("",), ["AML"]])
def test_files_that_are_not_there_are_named_once(classes: Sequence[str]) -> None:
    nothing = beside({"operating_points.csv": MEASURE + "\n"}, classes)
    assert measures.measure_blocks(nothing, images=True) == [] and measures.three_analyses(nothing) == []
    where = "leukaemia" if classes == ("",) else "classes"
    wanted = ["operating_points", "predictive_values", "calibration_measures", "indeterminate"]
    assert set(nothing.asked.lost) == {
        *(f"missing: {name}.csv has no rows for {where}, per patient" for name in wanted),
        *([f"missing: differential.csv has no rows for {where}, per image"] if where == "classes" else []),
    }


def test_no_differential_count_where_images_are_no_unit() -> None:
    nothing = beside({}, ["AML"])
    measures.measure_blocks(nothing, images=False)
    assert not any("differential" in line for line in nothing.asked.lost)
