"""Windows over large images: what they cover, and that cells in several of them are counted once."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marrowflow.cells.windows import Detections, Window, merged, windows


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(64, 900), st.floats(0, 0.6))
def test_windows_cover_every_pixel_and_overlap_enough(width, height, side, share):
    overlap = int(share * side)
    found = windows(width, height, side, overlap)
    covered = np.zeros((height, width), bool)
    for w in found:
        covered[w.top : w.bottom, w.left : w.right] = True
        assert 0 <= w.left < w.right <= width
        assert w.right - w.left == min(side, width)
    assert covered.all()
    for edges in (sorted({(w.left, w.right) for w in found}), sorted({(w.top, w.bottom) for w in found})):
        assert all(one[1] - two[0] >= overlap for one, two in itertools.pairwise(edges))


def test_windows_counted_by_hand():
    assert windows(640, 480, 800, 100) == [Window(0, 0, 640, 480)]
    # 1,000 px in windows of 400 that share 100: at 0, 300 and 600.
    assert [w.left for w in windows(1000, 300, 400, 100)] == [0, 300, 600]
    with pytest.raises(ValueError, match="cannot overlap"):
        windows(10, 10, 5, 5)


def detections(*rows):
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_cells_of_several_windows_are_counted_once():
    """Two windows of 400 over 700 px, sharing 100."""
    left, right = windows(700, 400, 400, 100)
    found = merged(
        [
            # A cell of its own; one that both see; one that the border at 400 cuts; one at the image's own edge.
            (left, detections((10, 10, 60, 60, 0.9, 1), (310, 100, 360, 150, 0.7, 1), (370, 200, 400, 250, 0.95, 1), (0, 300, 40, 340, 0.6, 2))),
            (right, detections((12, 101, 61, 149, 0.8, 1), (70, 200, 120, 250, 0.85, 1), (350, 350, 400, 400, 0.5, 2))),
        ],
        700,
        400,
    )  # fmt: skip
    assert found.scores.tolist() == pytest.approx([0.9, 0.85, 0.8, 0.6, 0.5])
    assert found.boxes[1].tolist() == [370, 200, 420, 250]
    assert found.boxes[2].tolist() == [312, 101, 361, 149]
    assert found.types.tolist() == [1, 1, 1, 2, 2]


def test_a_cell_that_both_windows_cut_is_counted_all_the_same():
    """97 of the 100 px that the windows share: near a border of either, and whole in both."""
    left, right = windows(700, 400, 400, 100)
    both = [(left, detections((302, 50, 399, 150, 0.9, 1))), (right, detections((2, 50, 99, 150, 0.8, 1)))]
    found = merged(both, 700, 400)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.boxes.tolist() == [[302, 50, 399, 150]]


def test_a_fragment_that_stops_short_of_the_border_is_no_cell():
    left, right = windows(700, 400, 400, 100)
    found = merged(
        [(left, detections((370, 200, 397, 250, 0.99, 1))), (right, detections((70, 200, 150, 250, 0.6, 1)))],
        700,
        400,
    )
    assert found.boxes.tolist() == [[370, 200, 450, 250]]
    # A small cell inside of a large one's box stays: neither lies near a border.
    (whole,) = windows(300, 300, 400, 0)
    assert (
        len(merged([(whole, detections((10, 10, 110, 110, 0.9, 1), (80, 80, 100, 100, 0.8, 2)))], 300, 300))
        == 2
    )


def test_a_cell_has_one_type_and_none_is_none():
    left, right = windows(700, 400, 400, 100)
    found = merged(
        [(left, detections((320, 10, 360, 50, 0.7, 1))), (right, detections((21, 10, 60, 50, 0.8, 2)))],
        700,
        400,
    )
    assert found.types.tolist() == [2]
    assert len(merged([], 300, 300)) == 0
