"""Images that show the same thing: byte for byte, or recompressed, resized or slightly relit.

Two images are duplicates when their checksums are equal, or when

1. their perceptual hashes differ in at most ``distance`` bits, and
2. their thumbnails confirm it: the correlation of the two 16 x 16 grey images is at least `CONFIRMED`.

The second condition is there because single cells centred on a pale ground look alike to a hash. Among
the 27,558 cells of the NIH malaria smears (Rajaraman et al. 2018, at 50 x 50 pixels) 167 pairs are within
3 bits, none of one patient, chained into 143 clusters of up to six; their correlations reach .989. Copies
of these cells and of 360-pixel white cells (Acevedo et al. 2020), saved as JPEG of quality 20, halved,
brightened, darkened or given another contrast or gamma, correlate to .994 and more.

Not found: copies that are turned, mirrored, or cropped by more than about a hundredth of the side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

CONFIRMED = 0.99
"""Least correlation of two thumbnails that confirms a pair of like hashes."""

_HASH_BITS = 64
_PAIRS_AT_ONCE = 1 << 16


def cluster_inventory(inventory: pd.DataFrame, distance: int) -> pd.Series:
    """Number the duplicate clusters of one inventory, or of several laid under one another.

    Parameters
    ----------
    inventory
        With the columns ``sha256``, ``phash`` (16 hexadecimal digits) and ``thumb`` (256 bytes), which are
        empty for images that could not be read: these stay by themselves, or with their exact copies.
    distance
        Largest number of bits, 0 to 15, in which the hashes of near duplicates differ.

    Returns
    -------
    pandas.Series
        int64 named ``cluster`` on the inventory's index; clusters are numbered in order of appearance.
    """
    clusters = near_duplicate_clusters(
        inventory["sha256"].tolist(), inventory["phash"].tolist(), inventory["thumb"].tolist(), distance
    )
    return pd.Series(clusters, index=inventory.index, name="cluster")


def near_duplicate_clusters(
    sha256: Sequence[str], phash: Sequence[str], thumb: Sequence[bytes], distance: int
) -> np.ndarray:
    """Return the cluster number of each image, int64; see `cluster_inventory` for the arguments.

    Clusters are the connected components of the pairs: A and C are together when both resemble B. Pairs whose ends are
    together already are not looked at: a thousand frames of one film are half a million pairs, and one cluster.
    """
    component = _united(np.arange(len(sha256)), _same_checksum(sha256))
    images = _comparable(sha256, phash, thumb)
    for pairs in _like_pairs(images.hashes, distance):
        one, other = component[images.positions[pairs]].T
        apart = pairs[one != other]
        confirmed = apart[_confirmed(images.thumbs, images.thumbs, apart)]
        if len(confirmed):
            component = _united(component, images.positions[confirmed])
    return pd.factorize(component)[0].astype(np.int64)


def duplicate_pairs(left: pd.DataFrame, right: pd.DataFrame, distance: int) -> pd.DataFrame:
    """Find the images of ``right`` that duplicate one of ``left``, such as external ones seen in development.

    Only images of different sides are compared, and an image of ``right`` only with those that come before the
    duplicate found for it so far: a film on one side is not compared with itself, one on both sides once for
    each frame of ``right``.

    Parameters
    ----------
    left, right
        Inventories, with ``case_id`` beside the columns that `cluster_inventory` needs.
    distance
        Largest number of differing bits of near duplicates.

    Returns
    -------
    pandas.DataFrame
        ``left``, ``right`` (case ids) and ``kind`` (``checksum`` or ``near``): each image of ``right`` that has
        a duplicate once, with the first that it has in ``left``; in the order of ``left``, then of ``right``.
    """
    known, new = (
        _comparable(table["sha256"].tolist(), table["phash"].tolist(), table["thumb"].tolist())
        for table in (left, right)
    )
    first = _first_positions(left["sha256"].tolist())
    nowhere = len(left)
    same_file = np.asarray(
        [first.get(value, nowhere) if value else nowhere for value in right["sha256"]], np.int64
    )
    partner = same_file.copy()
    partner[new.positions] = _first_near(known, new, same_file[new.positions], distance)
    # Each image answers for its exact copies.
    partner = partner[right["sha256"].map(_first_positions(right["sha256"].tolist())).to_numpy(np.int64)]
    rows = np.flatnonzero(partner < nowhere)
    rows = rows[np.argsort(partner[rows], kind="stable")]
    found = partner[rows]
    return pd.DataFrame(
        {
            "left": left["case_id"].to_numpy()[found],
            "right": right["case_id"].to_numpy()[rows],
            "kind": np.where(found == same_file[rows], "checksum", "near"),
        },
        dtype="str",
    )


def _first_positions(values: Sequence[str]) -> dict[str, int]:
    first: dict[str, int] = {}
    for position, value in enumerate(values):
        first.setdefault(value, position)
    return first


def _same_checksum(sha256: Sequence[str]) -> np.ndarray:
    """Pair each image with the first one of its checksum, int64, shape (pairs, 2)."""
    first = _first_positions(sha256)
    pairs = [(first[value], i) for i, value in enumerate(sha256) if value and first[value] != i]
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def _united(component: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the component of each image after some pairs have been joined to those there are."""
    count = len(component)
    # An image and the component that it is in so far are two nodes.
    one = np.concatenate([np.arange(count), pairs[:, 0]])
    other = np.concatenate([component + count, pairs[:, 1]])
    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(2 * count, 2 * count))
    return connected_components(links, directed=False)[1][:count]


class _Comparable(NamedTuple):
    """The images that may have near duplicates."""

    positions: np.ndarray
    """Of each among all images, int64 [n]."""
    hashes: np.ndarray
    """uint64 [n]."""
    thumbs: np.ndarray
    """uint8, one a row."""


def _comparable(sha256: Sequence[str], phash: Sequence[str], thumb: Sequence[bytes]) -> _Comparable:
    """Return the first image of each checksum, without those that are unreadable or even."""
    first = _first_positions(sha256)
    # An even thumbnail has no content to compare: an empty field is a duplicate of nothing but its copies.
    rows = [
        i
        for i, (value, digits, pixels) in enumerate(zip(sha256, phash, thumb, strict=True))
        if digits and first[value] == i and pixels.count(pixels[0]) < len(pixels)
    ]
    hashes = np.frombuffer(bytes.fromhex("".join(phash[i] for i in rows)), ">u8").astype(np.uint64)
    thumbs = np.frombuffer(b"".join(thumb[i] for i in rows), np.uint8)
    return _Comparable(np.asarray(rows, np.int64), hashes, thumbs.reshape(len(rows), -1 if rows else 0))


def _first_near(known: _Comparable, new: _Comparable, limit: np.ndarray, distance: int) -> np.ndarray:
    """Return the position of the first of ``known`` that each of ``new`` is a near duplicate of.

    Only positions below ``limit`` (int64, one for each of ``new``) are looked at; where none is found, it is returned.
    """
    partner = limit.copy()
    for low, high in _bands(distance):
        keys = _band(known.hashes, low, high)
        order = np.argsort(keys, kind="stable")
        wanted = _band(new.hashes, low, high)
        start, stop = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
        at, step = np.arange(len(wanted)), 0
        # The stable order lets positions ascend within a bucket: past the partner found there is no better one.
        while len(at := at[start[at] + step < stop[at]]):
            other = order[start[at] + step]
            before = known.positions[other] < partner[at]
            at, other = at[before], other[before]
            near = np.bitwise_count(known.hashes[other] ^ new.hashes[at]) <= distance
            pairs = np.column_stack([other[near], at[near]])
            confirmed = pairs[_confirmed(known.thumbs, new.thumbs, pairs)]
            partner[confirmed[:, 1]] = known.positions[confirmed[:, 0]]
            step += 1
    return partner


def _like_pairs(hashes: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Yield all pairs i < j of hashes (uint64) that differ in at most ``distance`` bits, int64, shape (pairs, 2).

    Each pair comes at least once; at a time never more than one for each hash.

    Of ``distance + 1`` bands of bits at least one is equal in such a pair, so that only hashes within
    one band's bucket are compared: sorted by the band, each with its neighbours ever further down.
    """
    count = len(hashes)
    for low, high in _bands(distance):
        band = _band(hashes, low, high)
        order = np.argsort(band, kind="stable")
        keys, ordered = band[order], hashes[order]
        at, step = np.arange(count - 1), 1
        while len(at):
            at = at[: np.searchsorted(at, count - step)]
            at = at[keys[at] == keys[at + step]]
            near = at[np.bitwise_count(ordered[at] ^ ordered[at + step]) <= distance]
            if len(near):
                yield np.sort(np.column_stack([order[near], order[near + step]]), axis=1)
            step += 1


def _bands(distance: int) -> Iterator[tuple[int, int]]:
    """Yield the first bit of each of ``distance + 1`` bands, and the bit after its last."""
    return itertools.pairwise(np.linspace(0, _HASH_BITS, distance + 2).astype(int).tolist())


def _band(hashes: np.ndarray, low: int, high: int) -> np.ndarray:
    return (hashes << np.uint64(_HASH_BITS - high)) >> np.uint64(_HASH_BITS - high + low)


def _confirmed(left: np.ndarray, right: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return for each pair whether its thumbnails correlate to at least `CONFIRMED`.

    The first of a pair is a row of ``left``, the second one of ``right`` (uint8 both).
    """
    verdicts = [np.empty(0, bool)]
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        one, other = (_centred(thumbs[part[:, side]]) for side, thumbs in enumerate((left, right)))
        scale = np.sqrt((one * one).sum(1) * (other * other).sum(1))
        verdicts.append((one * other).sum(1) >= CONFIRMED * scale)
    return np.concatenate(verdicts)


def _centred(thumbs: np.ndarray) -> np.ndarray:
    values = thumbs.astype(np.float32)
    return values - values.mean(axis=1, keepdims=True)
