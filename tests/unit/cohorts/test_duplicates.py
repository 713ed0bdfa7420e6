"""Duplicates: the search against all pairs, copies found, like-looking cells kept apart."""

import hashlib
import itertools

import cv2
import networkx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.cohorts import duplicates
from marrowflow.cohorts.duplicates import cluster_inventory, duplicate_pairs
from marrowflow.cohorts.quality import measure

_BASE = np.random.default_rng(0).integers(0, 200, (2, 256))
THUMBS = [
    *(picture.astype(np.uint8).tobytes() for picture in (_BASE[0], _BASE[0] + 20, _BASE[1], 0 * _BASE[0])),
    b"",
]
"""Two of one picture, one of another, an even one, and none: an image that could not be read."""


def cell(seed: int, side: int = 120) -> np.ndarray:
    """A blob with inner structure on a pale ground."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (side, side, 3)), (0, 0), side / 15)
    image = 215 + 0 * noise
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side // 3, 1, -1)
    image[mask > 0] = (140 + 40 * noise / noise.std())[mask > 0]
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(
        cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR
    )


def inventory(images: list[np.ndarray], cohort: str = "a") -> pd.DataFrame:
    rows = []
    for number, pixels in enumerate(images):
        quality = measure(pixels)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        rows.append((f"{cohort}/{number}", digest, f"{quality.phash:016x}", quality.thumb))
    return pd.DataFrame(rows, columns=["case_id", "sha256", "phash", "thumb"])


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=0, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=17)), max_size=12),
    st.integers(0, 15),
)
@settings(deadline=None, max_examples=200)
def test_like_hashes_are_those_of_all_pairs(hashes, edits, distance):
    for index, bits in edits:
        if index < len(hashes):
            hashes.append(hashes[index] ^ sum(1 << bit for bit in bits))
    expected = [
        (i, j)
        for (i, a), (j, b) in itertools.combinations(enumerate(hashes), 2)
        if (a ^ b).bit_count() <= distance
    ]
    found = [
        tuple(pair)
        for some in duplicates._like_pairs(np.array(hashes, np.uint64), distance)
        for pair in some.tolist()
    ]
    assert sorted(set(found)) == expected


@pytest.mark.parametrize(
    "copy",
    [
        lambda p: p.copy(),
        lambda p: jpeg(p, 90),
        lambda p: jpeg(p, 40),
        lambda p: cv2.subtract(p, (12, 12, 12, 0)),
        lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda p: cv2.resize(p, (224, 224), interpolation=cv2.INTER_CUBIC),
    ],
    ids=["same", "jpeg 90", "jpeg 40", "darker", "half", "larger"],
)
def test_copies_are_bound_and_cells_are_not(copy):
    cells = [cell(seed) for seed in range(6)]
    clusters = cluster_inventory(inventory([*cells, *map(copy, cells)]), 3)
    assert clusters.tolist() == [*range(6), *range(6)]
    assert clusters.dtype == np.int64


def test_equal_hashes_without_equal_pictures_are_not_bound():
    table = inventory([cell(0), cell(1)])
    table["phash"] = table["phash"][0]
    assert cluster_inventory(table, 3).tolist() == [0, 1]


def test_pictures_alike_but_hashes_too_far_apart_are_not_bound():
    table = inventory([cell(0), jpeg(cell(0), 90)])
    table.loc[1, "phash"] = f"{int(table['phash'][0], 16) ^ 0b1111:016x}"
    assert cluster_inventory(table, 3).tolist() == [0, 1]
    assert cluster_inventory(table, 4).tolist() == [0, 0]


def test_unreadable_and_even_images_join_only_their_copies():
    table = inventory([np.full((50, 50, 3), v, np.uint8) for v in (0, 10, 10)])
    unreadable = pd.DataFrame(
        {"case_id": list("wxyz"), "sha256": ["", "", "f", "f"], "phash": "", "thumb": [b""] * 4}
    )
    both = pd.concat([table, unreadable], ignore_index=True)
    assert cluster_inventory(both, 3).tolist() == [0, 1, 1, 2, 3, 4, 4]


def test_clusters_are_connected_components():
    rng = np.random.default_rng(0)
    base = cell(0)
    table = inventory([base] * 40)
    table["sha256"] = [f"{i:064x}" for i in range(40)]
    start = int(table["phash"][0], 16)
    hashes = [
        start ^ sum(1 << int(b) for b in rng.choice(14, rng.integers(0, 8), replace=False)) for _ in range(40)
    ]
    table["phash"] = [f"{h:016x}" for h in hashes]
    graph = networkx.Graph()
    graph.add_nodes_from(range(40))
    pairs = itertools.combinations(range(40), 2)
    graph.add_edges_from((i, j) for i, j in pairs if (hashes[i] ^ hashes[j]).bit_count() <= 1)
    clusters = cluster_inventory(table, 1)
    found = {frozenset(members.tolist()) for members in clusters.groupby(clusters).indices.values()}
    assert found == {frozenset(c) for c in networkx.connected_components(graph)}
    assert 1 < len(found) < 40


def film(frames: int, cohort: str) -> pd.DataFrame:
    """Frames that are all alike, and no two the same file."""
    table = pd.concat([inventory([cell(0)])] * frames, ignore_index=True)
    table["case_id"] = table["sha256"] = [f"{cohort}/{i}" for i in range(frames)]
    return table


@pytest.fixture
def compared(monkeypatch):
    """Numbers of pairs whose thumbnails were compared, one a call."""
    numbers = []

    def counted(left, right, pairs):
        numbers.append(len(pairs))
        return confirmed(left, right, pairs)

    confirmed = duplicates._confirmed
    monkeypatch.setattr(duplicates, "_confirmed", counted)
    return numbers


def test_a_film_of_many_frames_is_compared_once_a_frame(compared):
    """Frames of one film are all pairs alike, n (n - 1) / 2 of them; a cluster of n needs n - 1."""
    frames = 300
    assert cluster_inventory(film(frames, "a"), 3).tolist() == [0] * frames
    assert sum(compared) == frames - 1
    assert max(compared) < frames


@pytest.mark.parametrize("swapped", [False, True], ids=["left", "right"])
def test_a_film_on_one_side_is_not_compared_with_itself(compared, swapped):
    sides = [film(300, "dev"), inventory([cell(seed) for seed in range(1, 5)], "ext")]
    assert duplicate_pairs(*sides[:: -1 if swapped else 1], 3).empty
    assert sum(compared) == 0


def test_a_look_alike_of_a_film_is_compared_with_its_frames_only_one_at_a_time(compared):
    development, external = film(30, "dev"), inventory([cell(1), cell(2)], "ext")
    external["phash"] = development["phash"][0]
    assert duplicate_pairs(development, external, 0).empty
    assert compared == [2] * 30


def test_a_film_on_both_sides_is_compared_once_a_frame(compared):
    development, external = film(300, "dev"), film(200, "ext")
    found = duplicate_pairs(development, external, 3)
    assert found["left"].unique().tolist() == ["dev/0"]
    assert found["right"].tolist() == external["case_id"].tolist()
    assert sum(compared) == len(external)


def test_a_look_alike_between_two_clusters_is_looked_at_until_they_are_one():
    """Two of a bucket that are together do not hide a third that is not: joined later, through another band."""
    table = pd.concat([inventory([cell(0)])] * 3, ignore_index=True)
    table["sha256"] = list("abc")
    start = int(table["phash"][0], 16)
    # The first two differ in both bands, the third from each of them in one.
    table["phash"] = [f"{start ^ edit:016x}" for edit in (0, 1 << 63 | 1, 1)]
    assert cluster_inventory(table, 1).tolist() == [0, 0, 0]
    assert cluster_inventory(table.iloc[:2], 1).tolist() == [0, 1]


def test_the_index_is_kept_and_the_order_of_rows_does_not_matter():
    table = inventory([cell(0), cell(1), jpeg(cell(0), 80), cell(1)])
    shuffled = table.iloc[[3, 2, 1, 0]]
    together = cluster_inventory(shuffled, 3)
    assert together.index.tolist() == [3, 2, 1, 0]
    assert together[0] == together[2] != together[1] == together[3]


def test_pairs_between_inventories():
    development = inventory([cell(0), cell(1), cell(0), cell(3)], "dev")
    external = inventory([cell(5), jpeg(cell(0), 80), cell(3), jpeg(cell(0), 80)], "ext")
    found = duplicate_pairs(development, external, 3)
    assert list(found.itertuples(index=False, name=None)) == [
        ("dev/0", "ext/1", "near"),
        ("dev/0", "ext/3", "near"),
        ("dev/3", "ext/2", "checksum"),
    ]
    assert duplicate_pairs(development, external.iloc[:1], 3).empty


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 63), max_size=3), st.sampled_from(THUMBS)), min_size=1, max_size=8
    ),
    st.lists(st.integers(0, 7), max_size=10),
    st.lists(st.integers(0, 7), max_size=10),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=300)
def test_first_duplicates_are_those_of_all_pairs(files, left, right, distance):
    def table(numbers: list[int], cohort: str) -> pd.DataFrame:
        rows = []
        for row, number in enumerate(numbers):
            bits, thumb = files[number % len(files)]
            phash = f"{sum(1 << bit for bit in bits):016x}" if thumb else ""
            rows.append((f"{cohort}/{row}", f"{number % len(files)}", phash, thumb))
        return pd.DataFrame(rows, columns=["case_id", "sha256", "phash", "thumb"])

    def kind(one, other) -> str:
        if one.sha256 == other.sha256:
            return "checksum"
        if min(len(set(one.thumb)), len(set(other.thumb))) < 2:
            return ""
        alike = np.corrcoef([list(one.thumb), list(other.thumb)])[0, 1] >= 0.99
        bits = (int(one.phash, 16) ^ int(other.phash, 16)).bit_count()
        return "near" if alike and bits <= distance else ""

    development, external = table(left, "dev"), table(right, "ext")
    pairs = [
        (one.case_id, other.case_id, kind(one, other))
        for one in development.itertuples()
        for other in external.itertuples()
        if kind(one, other)
    ]
    first = {pair[1]: pair for pair in reversed(pairs)}
    found = duplicate_pairs(development, external, distance)
    assert list(found.itertuples(index=False, name=None)) == [
        pair for pair in pairs if first[pair[1]] == pair
    ]
