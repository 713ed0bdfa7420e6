"""Two annotators: boxes matched as torchvision and all permutations have it, κ as statsmodels has it, and a case counted by hand."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from statsmodels.stats.inter_rater import cohens_kappa, to_table
from torchvision.ops import box_iou

from marrowflow.cells.agreement import BY_BOTH, SAME, agreement, cohen_kappa, consensus, iou, matched
from marrowflow.cells.annotations import COLUMNS, EDGES


def drawn(annotator, *boxes):
    return pd.DataFrame(
        [(case, annotator, kind, *map(float, edges)) for case, kind, *edges in boxes], columns=COLUMNS
    )


# On image 1: a cell that both call a blast, shifted by 2 px; one called differently; one of A's alone. On image 2: one of B's alone.
A = drawn("A", ("1", "blast", 0, 0, 20, 20), ("1", "blast", 50, 0, 70, 20), ("1", "band", 0, 50, 20, 70))
B = drawn("B", ("1", "blast", 2, 0, 22, 20), ("1", "band", 50, 0, 70, 20), ("2", "band", 5, 5, 25, 25))


def some_boxes(chance, count):
    corner = chance.uniform(0, 60, (count, 2))
    return np.hstack([corner, corner + chance.uniform(10, 40, (count, 2))])


def test_intersection_over_union_is_torchvisions():
    chance = np.random.default_rng(0)
    one, other = some_boxes(chance, 30), some_boxes(chance, 40)
    expected = box_iou(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    np.testing.assert_allclose(iou(one, other), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_no_other_matching_has_a_larger_sum(seed):
    """Against all matchings of five boxes with six."""
    chance = np.random.default_rng(seed)
    first = some_boxes(chance, 5)
    second = np.vstack([first + chance.normal(0, 3, first.shape), some_boxes(chance, 1)])
    one, other = (
        drawn(n, *(("1", "a", *row) for row in boxes)) for n, boxes in (("A", first), ("B", second))
    )
    both = iou(first, second)
    both = np.where(both >= SAME, both, 0)
    best = max(sum(both[i, j] for i, j in enumerate(order)) for order in permutations(range(6), 5))
    pairs = matched(one, other)
    assert pairs["iou"].sum() == pytest.approx(best)
    assert sorted(pairs.loc[pairs["one"] >= 0, "one"]) == list(range(5))
    assert sorted(pairs.loc[pairs["other"] >= 0, "other"]) == list(range(6))


def test_a_case_counted_by_hand():
    """A shift of 2 of 20 px: 18 · 20 common of 2 · 400 − 360, an IoU of 360/440."""
    table = agreement(A, B).set_index("type")
    assert table.loc["", ["n_one", "n_other", "n_both", "n_matched"]].tolist() == [3, 3, 2, 2]
    assert table.loc["", "f1"] == pytest.approx(2 * 2 / 6)
    assert table.loc["", "observed"] == 0.5
    assert table.loc["", "iou_median"] == pytest.approx((360 / 440 + 1) / 2)
    assert table.loc["blast", ["n_one", "n_other", "n_both", "n_matched"]].tolist() == [2, 1, 1, 2]
    assert table.loc["blast", "f1"] == pytest.approx(2 / 3)
    assert table.loc["blast", "iou_median"] == pytest.approx(360 / 440)
    # Of two cells one is called alike; A says blast of all, so that chance expects as much: κ is 0.
    assert table.loc["", "kappa"] == pytest.approx(0)
    assert table.loc["band", "n_both"] == 0
    assert np.isnan(table.loc["band", "iou_median"])


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_statsmodels(seed):
    chance = np.random.default_rng(seed)
    one = chance.choice(["a", "b", "c"], 60)
    other = np.where(chance.random(60) < 0.6, one, chance.choice(["a", "b", "c", "d"], 60))
    assert cohen_kappa(one, other) == pytest.approx(
        cohens_kappa(to_table(np.column_stack([one, other]))[0]).kappa
    )
    assert np.isnan(cohen_kappa(np.array(["a", "a"]), np.array(["a", "a"])))


def test_types_decide_between_boxes_that_lie_alike():
    one = drawn("A", ("1", "blast", 0, 0, 20, 20), ("1", "band", 0, 0, 20, 20))
    other = drawn("B", ("1", "band", 0, 0, 20, 20), ("1", "blast", 0, 0, 20, 20))
    kept, left = consensus(one, other, "both")
    assert sorted(kept["type"]) == ["band", "blast"]
    assert left.empty


def test_a_consensus_keeps_what_both_say_and_lists_the_rest():
    kept, left = consensus(A, B, "both")
    assert kept[["case_id", "annotator", "type"]].to_numpy().tolist() == [["1", BY_BOTH, "blast"]]
    assert kept[EDGES].to_numpy().tolist() == [[1, 0, 21, 20]]
    assert left["reason"].tolist() == [
        "called blast (A) and band (B)", "drawn by A alone", "drawn by B alone",
    ]  # fmt: skip
    assert left["case_id"].tolist() == ["1", "1", "2"]
    kept, left = consensus(A, B, "first")
    pd.testing.assert_frame_equal(kept, A)
    assert left.empty
