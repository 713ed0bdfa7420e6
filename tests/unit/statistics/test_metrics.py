"""Point metrics against published tables and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from marrowflow.statistics.metrics import binary_metrics, multiclass_metrics, one_against_rest

# True positives, false positives, false negatives, true negatives, and what epiR 2.0.57 makes of them.
TABLE = (670, 202, 74, 640)
EPIR = {
    "sensitivity": 0.90053763441,
    "specificity": 0.76009501188,
    "ppv": 0.76834862385,
    "npv": 0.89635854342,
    "accuracy": 0.82597730139,
    "lr_positive": 3.75372617907,
    "lr_negative": 0.13085517473,
    "dor": 28.68611185443,
}
# Published with bt5153: erythro-, granulo-, lympho-, monopoiesis, others; rows are the truth.
BT5153 = np.array(
    [
        [5265, 179, 408, 12, 163],
        [405, 12377, 1014, 646, 1432],
        [273, 487, 5573, 147, 390],
        [8, 228, 57, 494, 21],
        [60, 1173, 553, 92, 2824],
    ]
)


def test_two_by_two_table():
    found = binary_metrics(np.array(TABLE))
    for name, value in EPIR.items():
        assert found[name] == pytest.approx(value, abs=1e-10), name


def test_published_confusion_matrix():
    found = multiclass_metrics(BT5153, list("abcde"))
    assert found["accuracy", ""] == pytest.approx(0.773986, abs=5e-7)
    assert found["mcc", ""] == pytest.approx(0.682687, abs=5e-7)
    assert found["balanced_accuracy", ""] == pytest.approx(0.7353, abs=5e-5)
    assert found["sensitivity", "macro"] == found["balanced_accuracy", ""]


@given(arrays(np.int64, (3, 3), elements=st.integers(1, 60)))
@settings(deadline=None, max_examples=60)
def test_three_classes_as_scikit_learn_counts_them(confusion):
    truth, answer = (np.repeat(i.ravel(), confusion.ravel()) for i in np.indices((3, 3)))
    found = multiclass_metrics(confusion, ["a", "b", "c"])
    expected = {
        ("accuracy", ""): sk.accuracy_score(truth, answer),
        ("mcc", ""): sk.matthews_corrcoef(truth, answer),
        ("kappa", ""): sk.cohen_kappa_score(truth, answer),
        ("balanced_accuracy", ""): sk.balanced_accuracy_score(truth, answer),
        ("f1", "macro"): sk.f1_score(truth, answer, average="macro"),
        ("ppv", "macro"): sk.precision_score(truth, answer, average="macro"),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-12), key
    recalls = sk.recall_score(truth, answer, average=None)
    assert [found["sensitivity", c] for c in "abc"] == pytest.approx(list(recalls))


@given(arrays(np.int64, 4, elements=st.integers(1, 60)))
@settings(deadline=None, max_examples=60)
def test_two_classes_as_scikit_learn_counts_them_and_flipping_mirrors(cells):
    truth = np.repeat([1, 0, 1, 0], cells)
    answer = np.repeat([1, 1, 0, 0], cells)
    found, mirrored = binary_metrics(cells), binary_metrics(cells[::-1])
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, answer), abs=1e-12)
    assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, answer), abs=1e-12)
    assert found["f1"] == pytest.approx(sk.f1_score(truth, answer))
    assert found["sensitivity"] == mirrored["specificity"]
    assert found["ppv"] == mirrored["npv"]
    assert found["mcc"] == pytest.approx(mirrored["mcc"])
    assert (binary_metrics(np.stack([cells, cells[::-1]]))["kappa"][1]) == mirrored["kappa"]


def test_nothing_over_nothing_is_undefined():
    found = binary_metrics(np.array([0, 0, 3, 5]))
    assert found["sensitivity"] == 0
    assert found["specificity"] == 1
    for name in ("ppv", "mcc", "lr_positive", "dor"):
        assert np.isnan(found[name]), name
    assert np.isnan(multiclass_metrics(np.diag([3, 4, 0]), list("abc"))["balanced_accuracy", ""])


def test_something_over_nothing_is_infinite():
    positive, negative, odds = (
        binary_metrics(np.array(cells))[name]
        for cells, name in (
            ((3, 0, 2, 5), "lr_positive"),
            ((3, 4, 2, 0), "lr_negative"),
            ((3, 0, 2, 5), "dor"),
        )
    )
    assert (positive, negative, odds) == (np.inf, np.inf, np.inf)
    assert np.isnan(binary_metrics(np.array([5, 4, 0, 0]))["lr_negative"])
    assert np.isnan(binary_metrics(np.array([0, 0, 2, 5]))["lr_positive"])


def test_accuracy_of_one_class_against_the_rest():
    # 5 + 15 right of 27 for a; two others' confusions do not count against it.
    table = np.array([[5, 1, 2], [3, 6, 0], [1, 0, 9]])
    assert multiclass_metrics(table, list("abc"))["accuracy", "a"] == 20 / 27


def test_one_against_rest_by_hand():
    assert one_against_rest(np.array([[5, 1, 2], [3, 6, 0], [1, 0, 9]]), 0).tolist() == [5, 4, 3, 15]
