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


def complaint_about(table, *arguments, **named):
    with pytest.raises(UserError) as refused:
        check_predictions(table, *arguments, **named)
    return str(refused.value)


@pytest.mark.parametrize("name", ["macro", "micro", "indeterminate", "not_done", "Missing", "Inconclusive"])
def test_names_that_tables_use_otherwise_are_no_classes(name):
    labels = pd.DataFrame({"truth": ["a", "b"], "predicted": ["a", name]})
    said = complaint_about(labels)
    assert f"column 'predicted', row 2: a class cannot be called '{name}'" in said
    assert "rename the class" in said
    columns = pd.DataFrame({"truth": ["a", "a"], "p_a": [0.5, 1], f"p_{name}": [0.5, 0]})
    assert f"column 'p_{name}': a class cannot be called" in complaint_about(columns)
    declared = pd.DataFrame({"truth": ["a", "b"], "predicted": ["a", "b"]})
    assert "the option classes: a class cannot be called" in complaint_about(declared, ["a", "b", name])


def test_a_prediction_called_missing_is_told_where_it_belongs():
    said = complaint_about(pd.DataFrame({"truth": ["a", "b"], "predicted": ["a", "missing"]}))
    assert "predicted 'missing' (first in row 2)" in said
    assert "leave it empty, with a status of 'indeterminate' or 'not_done'" in said


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("AML", "aml"),
        ("acute  leukaemia", "Acute leukaemia"),
        ("1", "1.0"),
        ("7", "07"),
        ("\u00c4", "A\u0308"),
    ],
)
def test_classes_that_differ_in_writing_only_are_refused(one, other):
    labels = pd.DataFrame({"truth": [one, "b", one], "predicted": [one, "b", other]})
    said = complaint_about(labels)
    assert f"{one!r} (column 'truth', row 1)" in said
    assert f"{other!r} (column 'predicted', row 3)" in said
    assert "write them alike" in said
    # Of declared classes one is right.
    said = complaint_about(labels, [one, "b"])
    assert f"predicted {other!r} (first in row 3) is no class of" in said
    assert f"did you mean {one!r}?" in said
    assert "named twice" in complaint_about(labels, [one, other, one, "b"])


def test_blanks_around_labels_are_no_part_of_them():
    table = pd.DataFrame({"truth": ["AML ", " ALL", "\tmissing"], "predicted": ["AML", "ALL ", "AML"]})
    checked = check_predictions(table)
    assert checked.classes == ["ALL", "AML"]
    assert checked.table["truth"].tolist() == ["AML", "ALL", "missing"]
    assert checked.table["predicted"].tolist() == ["AML", "ALL", "AML"]
    blank = pd.DataFrame({"truth": ["a", "b"], "predicted": ["a", "  "]})
    assert "row 2: 'predicted' is empty" in complaint_about(blank)


@pytest.mark.parametrize(
    ("truth", "read"),
    [
        ([1, 0, None], ["1", "0", "missing"]),
        (["1.0", "0.0", "inconclusive"], ["1", "0", "inconclusive"]),
        ([12.0, -1.0, 12.0], ["12", "-1", "12"]),
        (["1.0", "0.5", "1.0"], ["1.0", "0.5", "1.0"]),
        (["1.0", "b", "1.0"], ["1.0", "b", "1.0"]),
    ],
)
def test_whole_numbers_lose_their_zero_where_all_are_such(truth, read):
    table = pd.DataFrame({"truth": truth, "predicted": [read[0], read[1], read[0]]})
    assert check_predictions(table).table["truth"].tolist() == read


def test_declared_classes_keep_their_zero():
    table = pd.DataFrame({"truth": [1.0, 0.0], "p_0.0": [0.25, 0.5], "p_1.0": [0.75, 0.5]})
    assert check_predictions(table).table["truth"].tolist() == ["1.0", "0.0"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("truth,predicted\na,a,c\nb,b,c\n", "line 2: number of fields is 3, and the header names 2 columns"),
        ("truth,predicted\na,a\n\nb\n", "line 4: number of fields is 1, and the header names 2 columns"),
        ('truth,predicted\n"a\nb",a\nb,b,c\n', "line 4: number of fields is 3"),
        ('truth,predicted\na,a\nb,"b\n', "quotation mark"),
        ("truth;predicted\na;a\n", "contains ';'"),
        ("truth\tpredicted\na\ta\n", "contains a tab"),
        ("truth,predicted,predicted\na,a,b\n", "column 'predicted' stands twice"),
        ("Truth, predicted\na,a\n", "column 'Truth': rename it to 'truth'"),
        ("Truth, predicted\na,a\n", "column ' predicted': rename it to 'predicted'"),
        ("truth,predicted,Patient ID\na,a,1\n", "column 'Patient ID': rename it to 'patient_id'"),
        ("truth, p_a,p_ b\na,.5,.5\n", "column ' p_a': rename it to 'p_a', without blanks"),
        ("truth, p_a,p_ b\na,.5,.5\n", "column 'p_ b': rename it to 'p_b', without blanks"),
        ("truth,p_a,p_\na,.5,.5\n", "column 'p_' names no class"),
        ("truth,P_a,P_b\na,.5,.5\n", "rename 'P_a' to 'p_a'"),
        ("label,predicted\na,a\n", "no column 'truth'; found: label, predicted"),
    ],
)
def test_files_that_cannot_be_read_as_they_were_meant(tmp_path, content, said):
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(UserError) as refused:
        read_predictions(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "truth,predicted\na,a\nä,ä\n".encode("latin-1"), "line 3: byte 0xe4 is not UTF-8"),
        ("t.csv", "truth,predicted\na,a\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
        ("t.parquet", b"not Parquet", "cannot be read as Parquet"),
        ("t.parquet", b"", "cannot be read as Parquet"),
        ("t.tsv", b"truth,predicted\na,a\n", "contains a comma"),
        ("t.xlsx", b"", ".csv (commas) or .tsv (tabs), not '.xlsx'"),
    ],
)
def test_damaged_files_and_other_encodings_are_refused(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_predictions(path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("T.CSV", "truth,predicted\n01,NA\nNA,01\n"),
        ("t.tsv", "truth\tpredicted\n01\tNA\nNA\t01\n"),
        ("bom.csv", "\ufefftruth,predicted\r\n01,NA\r\n\r\nNA,01\r\n"),
    ],
)
def test_tables_of_other_programs_are_read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode())
    table = read_predictions(path).table
    assert table[["truth", "predicted"]].to_numpy().tolist() == [["01", "NA"], ["NA", "01"]]


@pytest.mark.parametrize(
    ("p_a", "p_b", "said", "remedy"),
    [
        ([90, 20], [10, 80], "row 1: a probability is outside 0..1 (p_a is 90; 2 rows)", "divide by 100"),
        ([0.5, 3.5], [0.5, -3.5], "row 2: a probability is outside 0..1", "(x - min)/(max - min)"),
        ([0.5, np.inf], [0.5, 0], "row 2: a probability is outside 0..1 (p_a is inf", "not inf"),
        (["0.5", "90%"], ["0.5", "10%"], "row 2: p_a '90%' is no number (1 rows)", "write 0.9 for 90%"),
        (["0.5", "0,9"], ["0.5", "0,1"], "row 2: p_b '0,1' is no number (1 rows)", "decimal point"),
        (["0.5", "NA"], [0.5, 0.5], "row 2: p_a 'NA' is no number", "between 0 and 1"),
    ],
)
def test_scores_that_are_no_probabilities(p_a, p_b, said, remedy):
    table = pd.DataFrame({"truth": ["a", "b"], "p_a": p_a, "p_b": p_b})
    complaint = complaint_about(table)
    assert said in complaint
    assert remedy in complaint
    assert ("divide by 100" in complaint) == (remedy == "divide by 100")
    assert "is missing" not in complaint
    # Where there is no answer, nobody reads it.
    if said.startswith("row 2"):
        done = table.assign(status=["ok", "not_done"])
        assert check_predictions(done).table["status"].tolist() == ["ok", "not_done"]


def test_of_two_classes_one_probability_is_enough():
    table = pd.DataFrame({"truth": ["AML", "well", "missing"], "p_AML": [0.75, 0.25, 0.5]})
    checked = check_predictions(table)
    assert checked.classes == ["AML", "well"]
    assert checked.probabilities[:, 1].tolist() == [0.25, 0.75, 0.5]
    assert checked.table["predicted"].tolist() == ["AML", "well", "AML"]
    assert (checked.declared, checked.one_vs_rest, len(checked.notes)) == (True, False, 1)
    # The order of declared classes is theirs, and one that does not occur may be meant.
    controls = table.assign(truth="well")
    assert check_predictions(controls, ["well", "AML"]).probabilities[0].tolist() == [0.25, 0.75]
    assert "the only probability column and no other class occurs" in complaint_about(
        table.assign(truth="AML")
    )
    assert "the only probability column" in complaint_about(controls)
    three = table.assign(truth=["AML", "well", "ALL"])
    assert "it is enough of two classes only" in complaint_about(three)
    scores = complaint_about(table.assign(p_AML=[3.5, -2, 0]))
    assert "(p_AML is 3.5; 2 rows); rescale scores" in scores


def test_a_readers_labels_beside_a_network_with_one_probability(reader_and_network):
    table = reader_and_network.drop(columns="p_ALL")
    reader = check_predictions(table, index_test="reader")
    assert (reader.classes, reader.has_probabilities) == (["AML", "ALL"], False)
    network = check_predictions(table, index_test="network")
    assert network.probabilities[:, 1] == pytest.approx([0.1, 0.4, 0.8])
    assert network.notes == ("network: the only probability column is 'p_AML': 'ALL' has 1 - p_AML",)


def test_what_was_taken_for_granted_is_noted():
    table = pd.DataFrame({"truth": ["a", "b"], "p_a": [0.5, 0.5], "p_b": [0.5, 0.5], "p_value": [0, 0.3]})
    value, sums = check_predictions(table).notes
    assert value.startswith("class 'value' (column 'p_value') never occurs as truth or prediction by label")
    assert sums == "probabilities do not sum to 1 (row 2: 1.3): taken as one-vs-rest"
    assert check_predictions(table, ["a", "b", "value"]).notes == (sums,)
    labels = pd.DataFrame({"truth": ["a", "b", "b"], "predicted": ["a", "a", "c"]})
    assert check_predictions(labels).notes == (
        "class 'b' occurs only as truth (2 rows), never as prediction",
        "class 'c' occurs only as prediction (1 rows), never as truth",
    )
    assert check_predictions(labels, ["a", "b", "c"]).notes == ()
    assert check_predictions(rows()).notes == ()


@pytest.mark.parametrize(("fold", "shown"), [("x", "x"), (1.5, "1.5"), (np.inf, "inf")])
def test_folds_are_whole_numbers(fold, shown):
    said = complaint_about(rows(fold=[0, fold, 1]))
    assert f"row 2: fold '{shown}' is no whole number (1 rows)" in said
    assert check_predictions(rows(fold=[0, None, 1.0])).table["fold"].tolist() == [0, -1, 1]
    assert check_predictions(rows(fold=["0", "", "1"])).table["fold"].tolist() == [0, -1, 1]


def test_a_status_in_capitals_is_told_apart():
    assert "did you mean 'ok'?" in complaint_about(rows(status=["ok", "OK", "ok"]))


def test_columns_that_are_numbers_are_kept():
    assert check_predictions(rows(x=1).rename(columns={"x": 0})).table["0"].tolist() == [1, 1, 1]


def with_endpoint(values, **columns):
    return rows(
        p_AML=[1, 0.5, 0.25], p_ALL=[0, 0.5, 0.75], note=["x", "y", "z"], endpoint_mds=values, **columns
    )


def test_an_endpoints_own_probability_is_kept_behind_the_classes():
    checked = check_predictions(with_endpoint([1, 0, 1]))
    assert checked.endpoints == ["mds"]
    assert checked.table["endpoint_mds"].dtype == np.float64
    assert checked.classes == ["AML", "ALL"]
    assert not checked.one_vs_rest
    assert list(checked.table.columns) == [*COLUMNS, "p_AML", "p_ALL", "endpoint_mds", "note"]
    assert check_predictions(rows()).endpoints == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5, None, 0.5], "row 2: endpoint_mds is missing though status is ok (1 rows)"),
        ([0.5, 0.5, 1.25], "row 3: endpoint_mds is 1.25, outside 0..1 (1 rows)"),
        ([-0.5, 0.5, 2], "row 1: endpoint_mds is -0.5, outside 0..1 (2 rows)"),
        (["0.5", "0,5", "0.5"], "row 2: endpoint_mds '0,5' is no number (1 rows); write a decimal point"),
        (["no", "no", "yes"], "row 1: endpoint_mds 'no' is no number (3 rows)"),
    ],
)
def test_an_endpoints_own_probability_is_checked_like_the_others(values, said):
    complaint = complaint_about(with_endpoint(values))
    assert said in complaint
    assert complaint.count("endpoint_mds") == 1


def test_an_index_test_has_an_endpoints_probability_or_none():
    # Without an answer nobody reads it.
    table = with_endpoint([0.5, None, 0.25], status=["ok", "indeterminate", "ok"])
    assert check_predictions(table).endpoints == ["mds"]
    assert check_predictions(with_endpoint([None, "", np.nan])).endpoints == []
    network = with_endpoint([0.5, 0.75, 0.25], index_test="network")
    other = with_endpoint([None] * 3, index_test="other")
    both = pd.concat([network, other], ignore_index=True).assign(case_id=["1", "2", "3"] * 2)
    assert check_predictions(both).endpoints == ["mds"]
    assert check_predictions(both, index_test="network").endpoints == ["mds"]
    assert check_predictions(both, index_test="other").endpoints == []
    both.loc[4, "endpoint_mds"] = 0.5
    assert "row 4: endpoint_mds is missing though status is ok (2 rows)" in complaint_about(both)


def test_columns_of_endpoints_in_another_spelling_are_refused():
    table = with_endpoint([0.5] * 3)
    for name, said in {
        " endpoint_mds": "column ' endpoint_mds': rename it to 'endpoint_mds'",
        "Endpoint_mds": "column 'Endpoint_mds': rename it to 'endpoint_mds'",
        "endpoint_ mds": "column 'endpoint_ mds': rename it to 'endpoint_mds'",
        "endpoint_": "column 'endpoint_' names no endpoint",
    }.items():
        assert said in complaint_about(table.rename(columns={"endpoint_mds": name}))


def test_an_endpoints_probability_comes_back_as_it_was_written(tmp_path):
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"table.{suffix}"
        write_predictions(path, with_endpoint([0.1, 0.2, 0.3]), ["AML", "ALL"])
        assert read_predictions(path).table["endpoint_mds"].tolist() == [0.1, 0.2, 0.3]
