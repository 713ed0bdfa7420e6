"""The index test that is reported first, against tables whose best one is seen at a glance."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from marrowflow.choices.primary import main, read_decision, read_primary
from marrowflow.errors import UserError

COLUMNS = ["endpoint", "metric", "class", "unit", "estimate", "primary"]


def metrics(accuracy: Path, index_test: str, *rows: tuple[Any, ...], cohort: str = "development") -> Path:
    """Write a table of metrics; rows are (endpoint, metric, class, unit, estimate[, primary])."""
    path = accuracy.joinpath(*index_test.split("-"), cohort, "metrics.csv")
    path.parent.mkdir(parents=True)
    table = pd.DataFrame([(*row, True)[:6] for row in rows], columns=COLUMNS)
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def accuracy(tmp_path: Path) -> Path:
    """Three index tests: b has the best macro AUC of patients, c of images; c and a are better in all that must not count."""
    root = tmp_path / "accuracy" / "sound"
    for name, patient, case, aml, brier in (
        ("a-raw", 0.7, 0.7, 0.9, 0.3),
        ("b-raw", 0.9, 0.8, 0.9, 0.5),
        ("c-raw", 0.8, 0.95, None, 0.2),
    ):
        metrics(
            root,
            name,
            ("classes", "auc", "NA", "patient", 0.99 if name == "a-raw" else 0.5),
            ("classes", "auc", "micro", "patient", 0.99 if name == "a-raw" else 0.5),
            ("classes", "auc", "macro", "patient", patient),
            ("classes", "auc", "macro", "patient", 0.99 if name == "c-raw" else 0.5, False),
            ("classes", "auc", "macro", "case", case),
            ("classes", "brier", "", "patient", brier),
            ("aml", "auc", "", "patient", aml),
            ("aml", "mcc", "", "patient", None),
        )
    return root


def choose(accuracy: Path, units: tuple[str, ...] = ("patient", "case"), **declared: Any) -> dict[str, Any]:
    tests = declared.pop("index_tests", ["a-raw", "b-raw", "c-raw"])
    options = {"index_tests": tests, "primary": declared, "units": units}
    out = accuracy.parent / "primary.json"
    main(["--options", json.dumps(options), "--accuracy", str(accuracy), "--out", str(out)])
    decision = json.loads(out.read_text())
    assert read_decision(out) == decision and read_primary(out) == decision["index_test"]
    return decision


def test_declared_before_first_and_neither_looks_at_results(tmp_path: Path) -> None:
    nowhere = tmp_path / "sound"
    first = choose(nowhere, primary=None, choose=None)
    assert first == {
        "index_test": "a-raw", "how": "first", "metric": None, "endpoint": None, "unit": None,
        "values": [], "protocol": "sound",
    }  # fmt: skip
    declared = choose(nowhere, primary="c-raw")
    assert (declared["index_test"], declared["how"]) == ("c-raw", "declared")
    with pytest.raises(UserError, match=r"'d-raw' is none of a-raw, b-raw, c-raw"):
        choose(nowhere, primary="d-raw")


def test_the_best_macro_average_of_the_primary_unit_is_chosen(accuracy: Path) -> None:
    found = choose(accuracy, choose={"metric": "auc"})
    assert found == {
        "index_test": "b-raw",
        "how": "chosen",
        "metric": "auc",
        "endpoint": "classes",
        "unit": "patient",
        "values": [
            {"index_test": "a-raw", "estimate": 0.7},
            {"index_test": "b-raw", "estimate": 0.9},
            {"index_test": "c-raw", "estimate": 0.8},
        ],
        "protocol": "sound",
    }
    assert choose(accuracy, ("case", "patient"), choose={})["index_test"] == "c-raw"
    # The smallest Brier score; of the whole, where there is no average over classes.
    assert choose(accuracy, choose={"metric": "brier"})["index_test"] == "c-raw"


def test_of_equals_the_first_wins_and_the_undefined_never(accuracy: Path) -> None:
    found = choose(accuracy, choose={"metric": "auc", "endpoint": "aml"})
    assert found["index_test"] == "a-raw"
    assert [value["estimate"] for value in found["values"]] == [0.9, 0.9, None]
    turned = ["c-raw", "b-raw", "a-raw"]
    found = choose(accuracy, index_tests=turned, choose={"metric": "auc", "endpoint": "aml"})
    assert found["index_test"] == "b-raw"
    assert [value["index_test"] for value in found["values"]] == turned
    for choice in ({"metric": "mcc", "endpoint": "aml"}, {"metric": "auc", "endpoint": "mds"}):
        with pytest.raises(UserError, match=r"no index test has a value .* measured are aml, classes"):
            choose(accuracy, choose=choice)


def test_no_metrics_but_those_of_development_patients_are_read(accuracy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"d-raw: no file .*development/metrics\.csv"):
        metrics(accuracy, "d-raw", ("classes", "auc", "macro", "patient", 1), cohort="hospital")
        choose(accuracy, index_tests=["a-raw", "d-raw"], choose={})
    # An external table under a development name.
    link = accuracy / "d" / "raw" / "development"
    link.symlink_to(accuracy / "d" / "raw" / "hospital")
    with pytest.raises(UserError, match=r"d-raw: .* leads to .*hospital/metrics\.csv"):
        choose(accuracy, index_tests=["a-raw", "d-raw"], choose={})
    # A name that walks out of its own folder.
    with pytest.raises(UserError, match="index_tests"):
        choose(accuracy, index_tests=["a-raw", "d-raw/hospital/.."], choose={})
    leaky = accuracy.rename(accuracy.with_name("as_published"))
    with pytest.raises(UserError, match="under the protocol sound"):
        choose(leaky, choose={})
    # Links on the way to all results are nobody's business.
    (tmp_path / "sound").symlink_to(leaky)
    assert choose(tmp_path / "sound", choose={})["index_test"] == "b-raw"


def test_a_file_that_names_no_index_test_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "primary.json"
    for text, said in (
        ("{", "not valid JSON"),
        ("[]", "names no index test"),
        ('{"how": "first"}', "names no"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            read_primary(path)
