"""Which cases are shown, and in which order, against lists made by hand."""

import numpy as np
import pandas as pd
import pytest

from marrowflow.choices.threshold import digest_of
from marrowflow.config import Endpoint
from marrowflow.predictions import check_predictions
from marrowflow.shown_cases import Question, choose_cases

CLASSES = ["healthy", "AML", "ALL"]
POSITIVE = ["AML", "ALL"]


def question(classes=CLASSES, positive=POSITIVE, threshold=0.5, units=("patient", "case")):
    lock = {"endpoints": {"leukaemia": {"positive": positive, "case": {"threshold": threshold}}}}
    return Question(
        classes,
        {"leukaemia": Endpoint(positive=positive)},
        units,
        lock | {"digest": digest_of(lock)},
    )


def table(rows, classes=CLASSES, **columns):
    """A prediction table of (case, truth, probabilities, status)."""
    frame = pd.DataFrame(
        {
            "case_id": [case for case, *_ in rows],
            "truth": [truth for _, truth, *_ in rows],
            "status": [row[3] if len(row) > 3 else "ok" for row in rows],
            **{f"p_{c}": [p[i] if p else np.nan for _, _, p, *_ in rows] for i, c in enumerate(classes)},
            **columns,
        }
    )
    return check_predictions(frame, classes).table


def cases(rows):
    return rows["case_id"].tolist()


FOUR_WRONG = [
    ("d", "AML", (0.5, 0.2, 0.3)),
    ("c", "AML", (0.9, 0.1, 0.0)),
    ("right", "healthy", (0.99, 0.01, 0.0)),
    ("a", "healthy", (0.2, 0.6, 0.2)),
    ("b", "healthy", (0.2, 0.2, 0.6)),
    ("nobody knows", "missing", (0.2, 0.2, 0.6)),
]


def test_errors_come_by_their_probability_and_then_by_name():
    chosen = choose_cases(table(FOUR_WRONG), question(), 12)
    assert cases(chosen.errors) == ["c", "a", "b", "d"]
    assert chosen.errors["confidence"].tolist() == [0.9, 0.6, 0.6, 0.5]
    assert (chosen.n_errors, chosen.n_answered, chosen.n_inconclusive) == (4, 5, 0)
    assert chosen.decided_at is None
    assert cases(choose_cases(table(FOUR_WRONG), question(), 2).errors) == ["c", "a"]


def test_of_two_classes_the_locked_threshold_says_what_is_an_error():
    two = ["healthy", "AML"]
    rows = [("a", "healthy", (0.7, 0.3)), ("b", "AML", (0.6, 0.4)), ("c", "AML", (0.9, 0.1))]
    chosen = choose_cases(table(rows, two), question(two, ["AML"], 0.2), 12)
    assert cases(chosen.errors) == ["c", "a"]
    assert chosen.errors["predicted"].tolist() == ["healthy", "AML"]
    np.testing.assert_allclose(chosen.errors["confidence"], [0.9, 0.3])
    assert chosen.decided_at.threshold == 0.2
    # A head of its own answers in the place of the class's probability.
    headed = table(rows, two, endpoint_leukaemia=[0.1, 0.9, 0.3])
    assert choose_cases(headed, question(two, ["AML"], 0.2), 12).errors.empty
    # Where images have no cut-off of their own, the larger probability decides.
    assert cases(choose_cases(table(rows, two), question(two, ["AML"], 0.2, ["patient"]), 12).errors) == [
        "c",
        "b",
    ]


def test_without_an_inconclusive_case_the_closest_answers_take_the_place():
    # Scores .5, .1, .01, .8, .8; the one without a reference is no answer that could be right.
    chosen = choose_cases(table(FOUR_WRONG), question(threshold=0.7), 12)
    assert chosen.kind == "closest" and chosen.closest_to.endpoint == "leukaemia"
    assert cases(chosen.undecided) == ["a", "b", "d", "c", "right"]
    np.testing.assert_allclose(chosen.undecided["distance"], [0.1, 0.1, 0.2, 0.6, 0.69])


def test_without_a_cut_off_the_closest_are_close_to_the_next_class():
    asked = Question(CLASSES, {}, ["case"], {"endpoints": {}})
    chosen = choose_cases(table(FOUR_WRONG), asked, 3)
    assert chosen.closest_to is None
    assert cases(chosen.undecided) == ["d", "a", "b"]
    np.testing.assert_allclose(chosen.undecided["distance"], [0.2, 0.4, 0.4])


def test_inconclusive_cases_are_those_of_either_test():
    rows = [
        ("sure", "inconclusive", (0.9, 0.1, 0.0)),
        ("surer", "inconclusive", (0.0, 0.05, 0.95)),
        ("z", "AML", None, "indeterminate"),
        ("y", "missing", None, "indeterminate"),
        ("not done", "AML", None, "not_done"),
        ("lost", "missing", (0.4, 0.3, 0.3)),
        ("wrong", "AML", (0.6, 0.2, 0.2)),
    ]
    chosen = choose_cases(table(rows), question(), 12)
    assert chosen.kind == "inconclusive"
    assert cases(chosen.undecided) == ["y", "z", "surer", "sure"]
    assert chosen.n_inconclusive == 4
    assert cases(choose_cases(table(rows), question(), 3).undecided) == ["y", "z", "surer"]
    both = chosen.both()
    assert cases(both) == ["wrong", "y", "z", "surer", "sure"]
    assert both["kind"].tolist() == ["error", *["inconclusive"] * 4]
    assert both["predicted"].tolist() == ["healthy", "", "", "ALL", "healthy"]


@pytest.mark.parametrize("gallery", ["errors", "undecided"])
def test_an_image_is_shown_once_however_many_samples_were_made_of_it(gallery):
    rows = [
        ("i#1", "AML", (0.6, 0.4, 0.0)),
        ("i#2", "AML", (0.8, 0.2, 0.0)),
        ("j#1", "AML", (0.7, 0.3, 0.0)),
    ]
    parents = ["i", "i", "j"]
    chosen = choose_cases(table(rows, parent=parents), question(threshold=0.5), 12)
    shown = getattr(chosen, gallery)
    expected = {"errors": (["i#2", "j#1"], ["i", "j"]), "undecided": (["i#1", "j#1"], ["i", "j"])}[gallery]
    assert (cases(shown), shown["image"].tolist()) == expected
    assert chosen.n_errors == 3
