"""Patients from cases, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from marrowflow.errors import UserError
from marrowflow.predictions import check_predictions
from marrowflow.statistics.cases import countable, gather_units, select_index_test
from marrowflow.statistics.pairing import take

CASES = pd.DataFrame(
    [
        # Two cases, one of them without a truth: the patient has the other's truth and the mean of both.
        ("a", "AML", "AML", 0.9, 0.1, "ok"),
        ("a", "missing", "ALL", 0.3, 0.7, "ok"),
        # One case was not done: the other is the patient's answer.
        ("b", "ALL", "ALL", 0.2, 0.8, "ok"),
        ("b", "ALL", "", None, None, "not_done"),
        # No answer at all; indeterminate says more than not done.
        ("c", "AML", "", None, None, "not_done"),
        ("c", "AML", "", None, None, "indeterminate"),
        # No truth at all; inconclusive says more than missing.
        ("d", "missing", "AML", 0.6, 0.4, "ok"),
        ("d", "inconclusive", "AML", 0.6, 0.4, "ok"),
    ],
    columns=["patient_id", "truth", "predicted", "p_AML", "p_ALL", "status"],
)


def gathered(table, unit):
    predictions = check_predictions(table)
    return gather_units(predictions.table, predictions.classes, unit)


def test_patients_by_hand():
    units = gathered(CASES, "patient")
    rows = units.table.set_index("patient_id")
    assert rows["truth"].to_dict() == {"a": "AML", "b": "ALL", "c": "AML", "d": "inconclusive"}
    assert rows["predicted"].to_dict() == {"a": "AML", "b": "ALL", "c": "", "d": "AML"}
    assert rows["status"].to_dict() == {"a": "ok", "b": "ok", "c": "indeterminate", "d": "ok"}
    assert rows["cases"].to_dict() == {"a": 2, "b": 1, "c": 0, "d": 2}
    assert units.probabilities[:2].tolist() == [pytest.approx([0.6, 0.4]), pytest.approx([0.2, 0.8])]


def test_only_truth_with_answer_is_countable():
    patients, cases = (countable(gathered(CASES, unit)) for unit in ("patient", "case"))
    assert (patients.n_patients, patients.n_cases, len(patients.truth)) == (2, 3, 2)
    assert patients.one_case_clusters
    # a's first case, b's first case.
    assert (cases.n_patients, cases.n_cases, cases.truth.tolist()) == (2, 2, [0, 1])


def test_majority_of_labels_and_its_ties():
    table = pd.DataFrame(
        {
            "patient_id": list("aaabb"),
            "truth": ["x", "x", "x", "y", "y"],
            "predicted": ["y", "x", "x", "y", "x"],
        }
    )
    units = gathered(table, "patient")
    assert units.table["predicted"].tolist() == ["x", "x"]
    assert units.tied_votes == 1
    assert units.probabilities is None


def test_patient_with_two_truths_is_named():
    table = pd.DataFrame({"patient_id": ["p7", "p7"], "truth": ["AML", "ALL"], "predicted": ["AML", "ALL"]})
    with pytest.raises(UserError, match=r"--unit case[\s\S]*'p7': ALL, AML"):
        gathered(table, "patient")
    assert len(gathered(table, "case").table) == 2


def test_several_index_tests_need_a_choice():
    table = pd.DataFrame(
        {"truth": ["x", "y"] * 2, "predicted": ["x", "y"] * 2, "index_test": ["r1", "r1", "r2", "r2"]}
    )
    table["case_id"] = ["1", "2", "1", "2"]
    predictions = check_predictions(table)
    with pytest.raises(UserError, match=r"r1, r2.*--index-test"):
        select_index_test(predictions, None)
    with pytest.raises(UserError, match="no index test 'r3'"):
        select_index_test(predictions, "r3")
    assert len(select_index_test(predictions, "r2")) == 2


def test_equal_numbers_of_two_cohorts_are_two_people():
    table = pd.DataFrame(
        {
            "cohort": ["north", "north", "south", "", ""],
            "patient_id": ["1", "1", "1", "1", "1"],
            "case_id": list("abcde"),
            "truth": ["x", "x", "y", "x", "x"],
            "predicted": ["x", "x", "y", "y", "y"],
        }
    )
    patients = gathered(table, "patient")
    assert patients.table["cohort"].tolist() == ["", "north", "south"]
    assert patients.table["truth"].tolist() == ["x", "x", "y"]
    cases = countable(gathered(table, "case"))
    assert (cases.n_patients, cases.patient.tolist()) == (3, [1, 1, 2, 0, 0])


def votes(*predicted):
    """Two patients, of three cases and of one; the mean probability says y of the first, x of the second."""
    return pd.DataFrame(
        {
            "patient_id": list("aaab"),
            "truth": ["x", "x", "x", "y"],
            "predicted": predicted,
            "p_x": [0.6, 0.6, 0.1, 0.7],
            "p_y": [0.4, 0.4, 0.9, 0.3],
        }
    )


def test_predictions_by_the_largest_probability_take_the_largest_mean():
    for table in (votes("x", "x", "y", "x"), votes("x", "x", "y", "x").drop(columns="predicted")):
        units = gathered(table, "patient")
        assert units.table["predicted"].tolist() == ["y", "x"]
        assert (units.other_rule, units.voted, units.tied_votes) == (0, 0, 0)


def test_predictions_by_another_rule_are_kept_and_not_made_anew():
    # Called x at .65 and above: the first patient never, and its first case only by a slip.
    units = gathered(votes("x", "y", "y", "y"), "patient")
    assert units.table["predicted"].tolist() == ["y", "y"]
    assert (units.other_rule, units.voted) == (2, 1)
    units = gathered(votes("x", "x", "x", "x"), "patient")
    assert units.table["predicted"].tolist() == ["x", "x"]
    assert (units.other_rule, units.voted) == (1, 1)
    assert units.probabilities[0].tolist() == pytest.approx([1.3 / 3, 1.7 / 3])


def test_one_answered_case_is_the_patients_answer():
    table = votes("x", "x", "y", "y").iloc[[0, 3]].assign(predicted=["y", "y"])
    assert gathered(table, "patient").table["predicted"].tolist() == ["y", "y"]


def test_equally_large_probabilities_are_no_other_rule():
    table = votes("x", "x", "y", "y").assign(p_x=[0.6, 0.6, 0.1, 0.5], p_y=[0.4, 0.4, 0.9, 0.5])
    units = gathered(table, "patient")
    assert units.other_rule == 0
    assert units.table["predicted"].tolist() == ["y", "y"]


def test_an_endpoints_own_probability_of_a_patient_is_the_mean_over_answered_cases():
    table = CASES.assign(endpoint_aml=[0.25, 0.75, 0.5, 0.9, None, None, 1, 0])
    patients = gathered(table, "patient")
    found = dict(zip(patients.table["patient_id"], patients.endpoints["aml"], strict=True))
    assert np.isnan(found.pop("c"))
    assert found == {"a": 0.5, "b": 0.5, "d": 0.5}
    assert gathered(table, "case").endpoints["aml"][:3].tolist() == [0.25, 0.75, 0.5]
    # Its own where there is one, else the sum over the positive classes.
    assert patients.score("aml", ["AML"])[0] == 0.5
    assert patients.score("ill", ["AML"])[0] == pytest.approx(0.6)
    assert patients.score("ill", ["AML", "ALL"])[1] == pytest.approx(1)
    labels = gathered(table.drop(columns=["p_AML", "p_ALL"]), "case")
    assert labels.score("ill", ["AML"]) is None
    assert labels.score("aml", ["AML"])[1] == 0.75


def test_rows_that_are_taken_keep_their_endpoints():
    units = gathered(CASES.assign(endpoint_aml=[0.25, 0.75, 0.5, 0.9, None, None, 1, 0]), "case")
    assert take(units, [6, 0]).endpoints["aml"].tolist() == [1, 0.25]
