"""The prediction table's contract: what is filled in, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from marrowflow.errors import UserError
from marrowflow.predictions import COLUMNS, check_predictions, read_predictions, write_predictions


def rows(**columns):
    return pd.DataFrame({"truth": ["AML", "ALL", "AML"], "predicted": ["AML", "AML", "ALL"], **columns})


def test_truth_and_prediction_are_enough():
    predictions = check_predictions(rows())
    assert predictions.classes == ["ALL", "AML"]
    assert not predictions.has_probabilities
    assert not predictions.has_patients
    assert predictions.table["patient_id"].nunique() == 3
    assert list(predictions.table.columns) == list(COLUMNS)


def test_the_prediction_follows_from_the_probabilities():
    table = pd.DataFrame(
        {"truth": ["a", "b"], "p_a": [0.9, 0.4], "p_b": [0.1, 0.6], "patient_id": ["1", "2"]}
    )
    predictions = check_predictions(table)
    assert predictions.table["predicted"].tolist() == ["a", "b"]
    assert np.array_equal(predictions.probabilities, [[0.9, 0.1], [0.4, 0.6]])
    assert not predictions.one_vs_rest
    assert predictions.has_patients


def test_probabilities_that_do_not_sum_to_one_are_one_vs_rest():
    table = pd.DataFrame({"truth": ["a", "b"], "p_a": [0.9, 0.9], "p_b": [0.8, 0.6]})
    assert check_predictions(table).one_vs_rest


def test_a_missing_truth_is_kept_as_missing():
    table = rows()
    table.loc[0, "truth"] = None
    table.loc[1, "truth"] = "inconclusive"
    assert check_predictions(table).table["truth"].tolist() == ["missing", "inconclusive", "AML"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"truth": ["AML", "ALL", "CML"], "p_AML": [1, 0, 0], "p_ALL": [0, 1, 1]},
            "truth 'CML' (first in row 3)",
        ),
        ({"p_AML": [1, 0, 2], "p_ALL": [0, 1, 1]}, "row 3: a probability is outside 0..1"),
        (
            {"p_AML": [1, np.nan, 0], "p_ALL": [0, 1, 1]},
            "row 2: a probability is missing though status is ok",
        ),
        ({"status": ["ok", "done", "ok"]}, "status 'done' in row 2"),
        ({"case_id": ["1", "2", "1"]}, "row 3: case '1' stands twice"),
        ({"patient_id": ["1", None, "1"]}, "row 2: 'patient_id' is empty"),
        ({"predicted": ["AML", None, "ALL"]}, "row 2: 'predicted' is empty"),
        ({"patient_source": ["manifest", "guess", None]}, "row 2: patient_source 'guess'"),
        ({"p_AML": [None] * 3, "p_ALL": [None] * 3}, "row 1: a probability is missing"),
    ],
)
def test_what_cannot_be_counted_is_refused(change, complaint):
    with pytest.raises(UserError) as refused:
        check_predictions(rows(**change))
    assert complaint in str(refused.value)


def test_a_case_that_was_not_tested_needs_no_probability():
    table = rows(status=["ok", "not_done", "ok"], p_AML=[0.9, None, 0.2], p_ALL=[0.1, None, 0.8])
    table.loc[1, "predicted"] = None
    assert check_predictions(table).table["status"].tolist() == ["ok", "not_done", "ok"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_comes_back_as_it_was_written(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    table = rows(p_AML=[0.75, 0.5, 0.25], p_ALL=[0.25, 0.5, 0.75], patient_id=["007", "1e5", "NA"])
    write_predictions(path, table, ["AML", "ALL"])
    again = read_predictions(path, ["AML", "ALL"])
    assert again.table["patient_id"].tolist() == ["007", "1e5", "NA"]
    assert again.table["p_AML"].tolist() == [0.75, 0.5, 0.25]


@pytest.mark.parametrize("content", ["truth,predicted\n", "predicted\nAML\n", "truth\nAML\n"])
def test_a_table_without_rows_truth_or_answers_is_refused(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(UserError):
        read_predictions(path)


def test_an_empty_prediction_beside_probabilities_is_the_largest():
    table = rows(p_AML=[0.3, 0.8, 0.5], p_ALL=[0.7, 0.2, 0.5])
    table["predicted"] = ["AML", None, ""]
    assert check_predictions(table).table["predicted"].tolist() == ["AML", "AML", "AML"]
    # Of equal probabilities the first class of the study's order is taken.
    assert check_predictions(table, ["ALL", "AML"]).table["predicted"].tolist() == ["AML", "AML", "ALL"]


@pytest.fixture
def reader_and_network():
    """Three cases of a network with probabilities, and a reader's labels of the same."""
    network = rows(index_test="network", p_AML=[0.9, 0.6, 0.2], p_ALL=[0.1, 0.4, 0.8])
    table = pd.concat([network, rows(index_test="reader")], ignore_index=True)
    return table.assign(case_id=["1", "2", "3"] * 2)


def test_an_index_test_with_labels_only_beside_one_with_probabilities(reader_and_network):
    reader = check_predictions(reader_and_network, index_test="reader")
    assert (len(reader.table), reader.has_probabilities, reader.declared) == (3, False, True)
    assert not [c for c in reader.table if c.startswith("p_")]
    assert reader.classes == ["AML", "ALL"]
    half = reader_and_network.assign(p_ALL=None)
    with pytest.raises(UserError, match="class 'ALL' has no column 'p_ALL', or an empty one"):
        check_predictions(half, ["AML", "ALL"], index_test="network")
    network = check_predictions(reader_and_network, index_test="network")
    assert network.probabilities[:, 0].tolist() == [0.9, 0.6, 0.2]
    with pytest.raises(UserError, match=r"labels only.*: reader; choose one index test"):
        check_predictions(reader_and_network)
    with pytest.raises(UserError, match=r"no index test 'r3'; it holds: network, reader"):
        check_predictions(reader_and_network, index_test="r3")


def test_errors_of_one_index_test_name_the_rows_of_the_file(reader_and_network):
    reader_and_network.loc[4, "predicted"] = None
    with pytest.raises(UserError, match=r"row 5: 'predicted' is empty"):
        check_predictions(reader_and_network, index_test="reader")
    assert len(check_predictions(reader_and_network, index_test="network").table) == 3


def test_classes_are_declared_or_merely_seen():
    assert not check_predictions(rows()).declared
    assert check_predictions(rows(), ["AML", "ALL"]).declared
    assert check_predictions(rows(p_AML=[1, 1, 0], p_ALL=[0, 0, 1])).declared
    with pytest.raises(UserError, match="nothing can be counted"):
        check_predictions(pd.DataFrame({"truth": ["missing"], "predicted": [""], "status": ["not_done"]}))
