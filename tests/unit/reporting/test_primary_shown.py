"""Which index test stands first, and what the pages say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_made_grid import TESTS, grid_options, reporter_of
from reporting_fixture import write_primary

from marrowflow.errors import UserError
from marrowflow.files import write_json
from marrowflow.reporting.primary import Primary, primary_of

CHOICE = {
    "how": "chosen",
    "metric": "auc",
    "endpoint": "leukaemia",
    "unit": "case",
    "values": [{"index_test": "a-raw", "estimate": 0.8}, {"index_test": "b-raw", "estimate": None}],
}


def test_a_chosen_one_says_by_what_and_that_it_flatters(tmp_path: Path) -> None:
    found = primary_of(write_primary(tmp_path, "a-raw", **CHOICE))
    assert found.chosen and found.values["a-raw"] == 0.8 and found.values["b-raw"] != found.values["b-raw"]
    assert found.statement("per image") == (
        "chosen on development data, out of fold, as the best of 2 by AUC (leukaemia), per image; its own development "
        "estimate is therefore a little too good, the external hospitals’ is not"
    )
    classes = primary_of(write_primary(tmp_path, "a-raw", **CHOICE | {"endpoint": "classes"}))
    assert "by macro AUC, per" in classes.statement("per image")


@pytest.mark.parametrize(
    ("how", "words"), [("declared", "declared before the run"), ("first", "none was declared")]
)
def test_one_that_no_result_chose_says_so(tmp_path: Path, how: str, words: str) -> None:
    found = primary_of(write_primary(tmp_path, "a-raw", how=how))
    assert words in found.statement("per patient") and not found.chosen


def test_a_file_that_does_not_say_it_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "primary.json", {"index_test": "a-raw", "how": "guessed"})
    with pytest.raises(UserError, match="how a-raw became"):
        primary_of(tmp_path / "primary.json")


def test_the_primary_one_stands_first_and_the_others_keep_their_order(tmp_path: Path) -> None:
    reporter = reporter_of(tmp_path, grid_options(), Primary("lite-raw", "declared"))
    assert [t.name for t in reporter.tests("sound")] == ["lite-raw", *(t for t in TESTS if t != "lite-raw")]
    both = next(t for t in reporter.tests("sound") if t.model == "both")
    assert [t.name for t in reporter.networks(both)] == ["dense_seed0-raw", "dense_seed1-raw"]


def test_index_tests_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'other-raw' is none of"):
        reporter_of(tmp_path, grid_options(), Primary("other-raw", "declared"))
    with pytest.raises(UserError, match="'lost-raw' is of none of the models and ensembles"):
        reporter_of(tmp_path, grid_options(index_tests=["lost-raw"]))
