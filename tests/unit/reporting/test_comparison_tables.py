"""Differences and agreement of index tests: numbers as written by hand into the files."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pandas as pd

from marrowflow.reporting.comparisons import Compared, agreement_table, difference_table

TO = "\u00a0to\u00a0"
WARNINGS = pd.DataFrame(columns=["endpoint", "metric", "class", "unit", "warning"])
COMPARED = Compared(
    "a-raw", ["b-raw", "c-raw"], "leukaemia", "patient", 0.95, "B", "patients", WARNINGS, False
)
HEAD = (
    "endpoint,metric,class,unit,index_test,against,estimate,difference,low,high,method,primary,test,p_value,p_holm,"
    "n_cases,n_patients\n"
)
ROWS = """\
leukaemia,auc,,patient,a-raw,b-raw,0.9,-0.021,-0.08,0.04,jackknife_t,True,delong,0.31,0.93,160,40
leukaemia,auc,,patient,a-raw,b-raw,0.9,-0.021,-0.7,0.7,bootstrap_bca,False,,,,160,40
leukaemia,sensitivity,,patient,a-raw,b-raw,0.9,0.15,0.05,0.25,jackknife_t,True,mcnemar_exact,0.0004,0.0016,160,40
leukaemia,specificity,,patient,a-raw,b-raw,0.9,0,,,none,True,mcnemar_exact,1,1,160,40
leukaemia,accuracy,,patient,a-raw,b-raw,0.9,0.5,0.4,0.6,jackknife_t,True,mcnemar,0.5,1,160,40
leukaemia,auc,,case,a-raw,b-raw,0.9,0.7,0.6,0.8,jackknife_t,True,obuchowski,0.01,0.01,160,40
leukaemia,ppv,,patient,a-raw,b-raw,0.9,0.5,0.4,0.6,jackknife_t,True,,,,160,40
"""


def read(text: str) -> pd.DataFrame:
    table = pd.read_csv(StringIO(text))
    return table.assign(**{"class": table["class"].fillna("")} if "class" in table else {})


def warnings(*lines: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [{"endpoint": e, "metric": m, "class": c, "unit": "patient", "warning": w} for e, m, c, w in lines]
    )


def test_differences_are_printed_with_interval_and_both_p_values() -> None:
    made = difference_table(COMPARED, read(HEAD + ROWS), {})
    assert made.header == [
        "index test", "patients", "AUC: difference", "p (Holm)", "sensitivity: difference", "p (Holm)",
        "specificity: difference", "p (Holm)",
    ]  # fmt: skip
    assert made.rows[0] == [
        "b-raw", "40", f"−0.021 (−0.080{TO}0.040)", "0.310 (0.930)", f"0.150 (0.050{TO}0.250)", "<\u00a00.001 (0.002)",
        "0.000 (no\u00a0interval)", "1.000 (1.000)",
    ]  # fmt: skip
    # Nothing was written of the second one.
    assert made.rows[1] == ["c-raw", "missing", *["–"] * 6]
    (note,) = [n for n in made.notes if n.startswith("p: two-sided")]
    # Of this endpoint and unit: AUC, sensitivity, specificity, accuracy.
    assert "Holm for a family of 4 p-values" in note
    assert "DeLong’s z-test (AUC); McNemar’s exact test (sensitivity, specificity)" in note
    assert "95% intervals: leave-one-patient-out, t." in made.notes


def test_a_macro_auc_has_a_difference_and_no_test() -> None:
    rows = """\
classes,accuracy,,patient,a-raw,b-raw,0.9,0.1,-0.1,0.3,jackknife_t,True,mcnemar_exact,0.25,0.25,160,40
classes,auc,macro,patient,a-raw,b-raw,0.9,0.05,0.01,0.09,bootstrap_bca,True,,,,160,40
classes,auc,AML,patient,a-raw,b-raw,0.9,0.9,0.01,0.09,jackknife_t,True,delong,,,160,40
"""
    made = difference_table(replace(COMPARED, endpoint="classes", others=["b-raw"]), read(HEAD + rows), {})
    assert made.header == [
        "index test",
        "patients",
        "accuracy: difference",
        "p (Holm)",
        "AUC (macro): difference",
    ]
    assert made.rows == [
        ["b-raw", "40", f"0.100 (−0.100{TO}0.300)", "0.250 (0.250)", f"0.050 (0.010{TO}0.090)"]
    ]
    assert any(note.endswith("No test of AUC (macro).") for note in made.notes)
    assert any("leave-one-patient-out, t for accuracy; bootstrap (BCa) for AUC" in n for n in made.notes)


def test_images_are_counted_where_they_are_the_unit() -> None:
    made = difference_table(replace(COMPARED, unit="case", noun="surrogate groups"), read(HEAD + ROWS), {})
    assert made.header[1] == "images" and made.rows[0][1] == "160"
    assert made.rows[0][2] == f"0.700 (0.600{TO}0.800)"
    assert "Obuchowski’s z-test (AUC)" in " ".join(made.notes)
    assert "leave-one-group-out, t" in " ".join(made.notes) and "patient" not in " ".join(made.notes)


def test_warnings_that_agree_are_one_line() -> None:
    told = warnings(
        ("", "", "", "a-raw against b-raw: patients left out of the comparison: 2 without a truth"),
        ("", "", "", "a-raw against c-raw: patients left out of the comparison: 2 without a truth"),
        ("leukaemia", "", "", "9 patients of negative: few"),
        ("leukaemia", "specificity", "", "a-raw against b-raw: all replicates are equal"),
        ("leukaemia", "kappa", "", "a-raw against b-raw: of what is not printed"),
    )
    made = difference_table(replace(COMPARED, warnings=told), read(HEAD + ROWS), {})
    assert list(made.notes[3:]) == [
        "Warning: against b-raw, against c-raw: patients left out of the comparison: 2 without a truth.",
        "Warning: 9 patients of negative: few.",
        "Specificity: against b-raw: all replicates are equal.",
    ]


def test_no_rows_are_said_to_be_missing() -> None:
    made = difference_table(COMPARED, read(HEAD + ROWS).iloc[:0], {})
    assert [row[1] for row in made.rows] == ["missing", "missing"]
    assert made.notes[1:] == ["No intervals.", "No p-values."]


def test_agreement_is_printed_with_kappa() -> None:
    text = """\
endpoint,metric,unit,index_test,against,estimate,low,high,method,primary,numerator,denominator,n_cases,n_patients
leukaemia,agreement,patient,a-raw,b-raw,0.837,0.694,0.921,wilson_neff,True,36,43,170,43
leukaemia,kappa,patient,a-raw,b-raw,0.612,0.331,0.846,bootstrap_bca,True,,,170,43
leukaemia,positive_agreement,patient,a-raw,b-raw,0.9,0.8,0.95,bootstrap_bca,True,,,170,43
leukaemia,agreement,patient,a-raw,c-raw,1,0.9,1,wilson_neff,True,43,43,170,43
leukaemia,kappa,patient,a-raw,c-raw,1,,,none,True,,,170,43
"""
    told = warnings(
        ("leukaemia", "kappa", "", "a-raw against c-raw: all replicates are equal"),
        ("leukaemia", "", "", "9 patients of negative: few"),
    )
    made = agreement_table(replace(COMPARED, warnings=told), read(text), {})
    assert made.rows == [
        ["b-raw", "43", f"0.837\u00a0[36/43] (0.694{TO}0.921)", f"0.612 (0.331{TO}0.846)"],
        ["c-raw", "43", f"1.000\u00a0[43/43] (0.900{TO}1.000)", "1.000 (no\u00a0interval)"],
    ]
    # Agreement needs no truth, so that few patients without the condition are no matter.
    assert made.notes[1:] == [
        "95% intervals: Wilson, effective n for agreement; bootstrap (BCa) for κ.",
        "κ: against c-raw: all replicates are equal.",
    ]
