"""Cut-offs against a search over every cut-off there is, and the file they are locked in."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.choices.threshold import fit_threshold, locked_threshold, read_lock
from marrowflow.config import Threshold
from marrowflow.errors import UserError

# A coarse grid, so that ties are common; neighbouring floats, which have no middle.
SCORES = st.one_of(
    st.integers(0, 8).map(lambda i: i / 8), st.just(np.nextafter(0.5, 1)), st.floats(0, 1, width=32)
)
LOCK = {
    "endpoints": {"aml": {"positive": ["AML"], "patient": {"threshold": 0.4}, "case": {"threshold": 0.6}}}
}


@st.composite
def scored(draw):
    scores = draw(st.lists(SCORES, min_size=2, max_size=14))
    truth = draw(
        st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)).filter(
            lambda t: any(t) and not all(t)
        )
    )
    return np.array(scores), np.array(truth)


def rates(scores, truth, cut):
    called = scores >= cut
    return (called & truth).sum() / truth.sum(), (~called & ~truth).sum() / (~truth).sum()


@given(scored(), st.sampled_from(["youden", "sensitivity", "specificity"]), st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=300)
def test_no_cutoff_does_better(data, name, value):
    scores, truth = data
    rule = Threshold(rule=name, value=None if name == "youden" else value)
    sensitivity, specificity = rates(scores, truth, fit_threshold(scores, truth, rule))
    every = [rates(scores, truth, cut) for cut in [*scores, np.inf]]
    if name == "youden":
        assert sensitivity + specificity == pytest.approx(max(a + b for a, b in every), abs=1e-12)
    elif name == "sensitivity":
        assert sensitivity >= value
        assert specificity == max(b for a, b in every if a >= value)
    else:
        assert specificity >= value
        assert sensitivity == max(a for a, b in every if b >= value)


def test_cutoff_lies_midway_and_ties_go_to_the_lower_one():
    # Cut-offs .25 and .65 both give a Youden index of 1/2.
    scores, truth = np.array([0.2, 0.3, 0.6, 0.7]), np.array([False, True, False, True])
    assert fit_threshold(scores, truth, Threshold()) == pytest.approx(0.25)
    assert fit_threshold(scores, truth, Threshold(rule="specificity", value=0.9)) == pytest.approx(0.65)
    assert fit_threshold(scores, truth, Threshold(rule="fixed", value=0.9)) == 0.9


def test_nobody_positive_where_a_negative_has_the_largest_score_there_is():
    cut = fit_threshold(
        np.array([0.5, 1.0]), np.array([True, False]), Threshold(rule="specificity", value=0.9)
    )
    assert 1 < cut < 1.001


def test_one_sided_development_data_are_refused():
    with pytest.raises(UserError, match="0 positives"):
        fit_threshold(np.array([0.1, 0.2]), np.array([False, False]), Threshold())


def test_lock_is_found_by_name_or_by_classes():
    assert locked_threshold(LOCK, "aml", ["AML"], "patient") == 0.4
    assert locked_threshold(LOCK, "AML", ["AML"], "case") == 0.6
    with pytest.raises(UserError, match="belongs to the classes"):
        locked_threshold(LOCK, "aml", ["ALL"], "case")
    with pytest.raises(UserError, match="no cut-off for endpoint 'ALL'"):
        locked_threshold(LOCK, "ALL", ["ALL"], "case")


def test_file_that_is_no_lock_is_refused(tmp_path):
    path = tmp_path / "threshold.json"
    for text in ("{", json.dumps({"threshold": 0.5})):
        path.write_text(text)
        with pytest.raises(UserError, match=r"threshold\.json"):
            read_lock(path)


def test_an_unfitted_cut_off_is_an_error_and_not_a_number():
    lock = {"endpoints": {"aml": {"positive": ["AML"], "patient": None, "case": {"threshold": 0.5}}}}
    with pytest.raises(UserError, match="no cut-off for endpoint 'aml' and unit 'patient'"):
        locked_threshold(lock, "aml", ["AML"], "patient")
