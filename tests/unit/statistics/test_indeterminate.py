"""Accuracy three ways and differential shares against hand counts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.predictions import check_predictions
from marrowflow.statistics.cases import countable, gather_units
from marrowflow.statistics.differential import shares
from marrowflow.statistics.indeterminate import three_analyses
from marrowflow.statistics.rows import Place

# Truth, answer and how many: 14 units have both, 3 have no answer, 5 no reference, 1 neither.
COUNTS = [
    ("AML", "AML", 5),
    ("AML", "well", 1),
    ("well", "well", 6),
    ("well", "AML", 2),
    ("AML", "", 1),
    ("well", "", 2),
    ("missing", "AML", 2),
    ("inconclusive", "well", 3),
    ("missing", "", 1),
]


def table(counts=COUNTS):
    rows = [(truth, answer) for truth, answer, n in counts for _ in range(n)]
    return pd.DataFrame(
        {
            "truth": [truth for truth, _ in rows],
            "predicted": [answer for _, answer in rows],
            "status": ["ok" if answer else "indeterminate" for _, answer in rows],
        }
    )


def analysed(rows, positive=("AML",)):
    checked = check_predictions(rows, ["AML", "well"])
    units = gather_units(checked.table, checked.classes, "case")
    answers = units.table["predicted"].to_numpy(object)
    if positive:
        answers = np.isin(answers.astype(str), positive)
    found = three_analyses(units, answers, positive or None, Place("AML", "case", []), 0.95)
    return found.set_index(["analysis", "metric", "class"])


def test_three_analyses_by_hand():
    found = analysed(table())
    expected = {
        ("left_out", "sensitivity"): (5, 6),
        ("left_out", "specificity"): (6, 8),
        ("left_out", "ppv"): (5, 7),
        ("left_out", "npv"): (6, 7),
        ("left_out", "accuracy"): (11, 14),
        ("counted_as_errors", "sensitivity"): (5, 7),
        ("counted_as_errors", "specificity"): (6, 10),
        ("counted_as_errors", "ppv"): (5, 7),
        ("counted_as_errors", "npv"): (6, 7),
        ("counted_as_errors", "accuracy"): (11, 17),
        # Two positive answers without a reference are false positives, three negative ones false negatives.
        ("worst_case", "sensitivity"): (5, 7 + 3),
        ("worst_case", "specificity"): (6, 10 + 2),
        ("worst_case", "ppv"): (5, 7 + 2 + 2),
        ("worst_case", "npv"): (6, 7 + 1 + 3),
        ("worst_case", "accuracy"): (11, 22),
    }
    assert len(found) == len(expected)
    for (analysis, metric), (numerator, denominator) in expected.items():
        row = found.loc[analysis, metric, ""]
        assert (row["numerator"], row["denominator"]) == (numerator, denominator), (analysis, metric)
        assert row["estimate"] == numerator / denominator
        assert row["low"] < row["estimate"] < row["high"]
        assert row["method"] == "wilson_neff"
    assert found.loc["worst_case", "sensitivity", ""]["n_patients"] == 22


def test_classes_against_the_rest_agree_with_the_binary_endpoint():
    several, binary = analysed(table(), positive=()), analysed(table())
    for (analysis, metric, _), row in binary.iterrows():
        columns = ["estimate", "low", "high", "numerator", "denominator"]
        assert several.loc[analysis, metric, "AML"][columns].tolist() == row[columns].tolist()
        if metric == "accuracy":
            assert several.loc[analysis, metric, ""][columns].tolist() == row[columns].tolist()


def test_nothing_left_out_is_three_times_the_same():
    found = analysed(table(COUNTS[:4])).reset_index()
    values = found.groupby(["metric", "class"])[["estimate", "low", "high"]].nunique()
    assert (values == 1).all(axis=None)


@given(st.lists(st.integers(0, 6), min_size=9, max_size=9).filter(lambda n: n[0] + n[1] and n[2] + n[3]))
@settings(deadline=None, max_examples=40)
def test_each_analysis_is_harder_than_the_one_before(numbers):
    found = analysed(table([(t, a, n) for (t, a, _), n in zip(COUNTS, numbers, strict=True)]))
    for metric in ("sensitivity", "specificity", "accuracy"):
        left, errors, worst = (
            found.loc[a, metric, ""]["estimate"] for a in ("left_out", "counted_as_errors", "worst_case")
        )
        assert left >= errors >= worst
    total = sum(numbers) - numbers[8]
    assert found.loc["worst_case", "accuracy", ""]["denominator"] == total


def test_no_answer_at_all_is_undefined_or_nought():
    found = analysed(table([("AML", "", 3), ("well", "", 2)]))
    assert np.isnan(found.loc["left_out", "sensitivity", ""]["estimate"])
    assert found.loc["left_out", "sensitivity", ""]["method"] == "none"
    assert found.loc["counted_as_errors", "sensitivity", ""]["estimate"] == 0
    assert np.isnan(found.loc["counted_as_errors", "ppv", ""]["estimate"])
    assert found.loc["worst_case", "ppv", ""]["estimate"] == 0


def test_shares_are_sums_over_sums():
    rows = pd.DataFrame(
        {
            "patient_id": ["P1"] * 8 + ["P2"] * 2 + ["P3"] * 2,
            "truth": ["AML"] * 6 + ["well"] * 2 + ["well"] * 2 + ["missing", "well"],
            "predicted": ["AML"] * 4 + ["well"] * 4 + ["AML"] * 2 + ["AML", "well"],
        }
    )
    checked = check_predictions(rows, ["AML", "well"])
    sample = countable(gather_units(checked.table, checked.classes, "case"))
    found = shares(sample, Place("classes", "case", []), 0.95).set_index(["source", "class"])
    # 11 units count; the mean of the patients' shares would be (6/8 + 0 + 0)/3.
    assert found.loc["truth", "AML"]["estimate"] == 6 / 11
    assert found.loc["predicted", "AML"]["estimate"] == 6 / 11
    assert (found.loc["predicted", "well"]["numerator"], found.loc["predicted", "well"]["denominator"]) == (
        5,
        11,
    )
    assert found.groupby("source")["estimate"].sum().tolist() == pytest.approx([1, 1])
    # All twelve of one patient: no spread between patients can be seen.
    alone = countable(gather_units(checked.table.assign(patient_id="P1"), checked.classes, "case"))
    assert set(shares(alone, Place("classes", "case", []), 0.95)["method"]) == {"none"}
