"""How far two annotators agree on where cells are and of what type, and the boxes that both stand behind.

Two boxes of an image are of one cell when their intersection over union (IoU) is at least `SAME`; cells are matched one to
one so that the sum of IoU is the largest possible (the assignment problem; scipy's linear_sum_assignment), whatever their types;
of equal sums the one with more equal types.

Of matched cells: the share that both call the same, Cohen's κ over all types, κ of each type against all others, and the IoU's
median and quartiles. Of all: each type's share found by the other (of A's boxes matched by B and of the same type, and the
other way round), whose harmonic mean is the F1 of one annotator against the other, and symmetrical.

The consensus (`consensus`) keeps a cell where both drew a box of one type, at the mean of their edges; where the types differ,
or one drew a box alone, it goes by the rule that the study states:

=============  ======================================================================
rule           kept
=============  ======================================================================
both           cells that both drew with the same type; all others are listed as open
first          the first annotator's boxes and types; the second's are for agreement
=============  ======================================================================
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import cohen_kappa_score

from marrowflow.cells.annotations import COLUMNS, EDGES

SAME = 0.5
_TIE = 1e-6
Rule = Literal["both", "first"]
BY_BOTH = "consensus"
"""The annotator of boxes that two agree on."""


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes, float64 [n, m].

    Parameters
    ----------
    one, other
        float64 [n, 4] and [m, 4]: left, top, right, bottom; each has an area.
    """
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    end = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(end - corner, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    return common / (areas[0][:, None] + areas[1][None, :] - common)


def matched(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return which boxes of two annotators are of one cell.

    Parameters
    ----------
    one, other
        Tables of boxes (`marrowflow.cells.annotations.COLUMNS`) of the images that both annotated.

    Returns
    -------
    DataFrame
        One row a cell: ``case_id``; ``one`` and ``other``, the boxes' places in the tables, -1 where only one drew it;
        ``iou``, NaN then.
    """
    places = [dict(tuple(pd.Series(range(len(t))).groupby(t["case_id"].to_numpy()))) for t in (one, other)]
    rows = []
    for case in dict.fromkeys([*one["case_id"], *other["case_id"]]):
        mine, theirs = (found.get(case, pd.Series(dtype=int)).to_numpy(int) for found in places)
        both = iou(one[EDGES].to_numpy(float)[mine], other[EDGES].to_numpy(float)[theirs])
        alike = one["type"].to_numpy(object)[mine][:, None] == other["type"].to_numpy(object)[theirs][None, :]
        # What is no match may not push a match aside: it counts nothing. Types decide between sums that are equal.
        gain = np.where(both >= SAME, both + _TIE * alike, 0)
        left, right = linear_sum_assignment(gain, maximize=True)
        pairs = [(i, j) for i, j in zip(left, right, strict=True) if both[i, j] >= SAME]
        rows += [(case, mine[i], theirs[j], both[i, j]) for i, j in pairs]
        rows += [(case, mine[i], -1, np.nan) for i in sorted(set(range(len(mine))) - {i for i, _ in pairs})]
        rows += [
            (case, -1, theirs[j], np.nan) for j in sorted(set(range(len(theirs))) - {j for _, j in pairs})
        ]
    table = pd.DataFrame(rows, columns=["case_id", "one", "other", "iou"])
    return table.astype({"one": "int64", "other": "int64", "iou": "float64"})


def agreement(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return how far two annotators agree, a row for all types together (``type`` empty) and one a type.

    Returns
    -------
    DataFrame
        ``type``; ``n_one`` and ``n_other``, boxes; ``n_both``, cells that both drew (and, of a type, that both called it);
        ``f1``; ``n_matched``, cells that both drew and one at least called so; ``observed``, share of all cells that both drew in
        which both say the same of the type; ``kappa``, NaN where chance alone would have them agree; ``iou_median``, ``iou_low``,
        ``iou_high``, quartiles over ``n_both``.
    """
    pairs = matched(one, other)
    both = pairs[(pairs["one"] >= 0) & (pairs["other"] >= 0)]
    mine = one["type"].to_numpy(object)[both["one"]]
    theirs = other["type"].to_numpy(object)[both["other"]]
    overlap = both["iou"].to_numpy()
    rows = []
    for kind in ["", *sorted({*one["type"], *other["type"]})]:
        if kind:
            said, told = mine == kind, theirs == kind
            drawn = (int((one["type"] == kind).sum()), int((other["type"] == kind).sum()))
            same = said & told
        else:
            said, told = mine, theirs
            drawn = (len(one), len(other))
            same = np.ones(len(both), bool)
        found = overlap[same]
        quartiles = np.quantile(found, [0.5, 0.25, 0.75]) if len(found) else np.full(3, np.nan)
        rows.append(
            {
                "type": kind,
                "n_one": drawn[0],
                "n_other": drawn[1],
                "n_both": int(same.sum()),
                "f1": 2 * same.sum() / sum(drawn) if sum(drawn) else np.nan,
                "n_matched": int((said | told).sum()) if kind else len(both),
                "observed": float((said == told).mean()) if len(both) else np.nan,
                "kappa": cohen_kappa(said, told),
                **dict(zip(("iou_median", "iou_low", "iou_high"), quartiles.tolist(), strict=True)),
            }
        )
    return pd.DataFrame(rows)


def cohen_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Return Cohen's κ of two ratings [n]; NaN where chance alone would have all agree (Cohen 1960)."""
    if len({*one, *other}) < 2:
        return float("nan")
    return float(cohen_kappa_score(one, other))


def consensus(one: pd.DataFrame, other: pd.DataFrame, rule: Rule) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the boxes that the study goes by (`COLUMNS`), and those that stay open with the reason (``reason``)."""
    if rule == "first":
        return one[COLUMNS].reset_index(drop=True), one[COLUMNS].iloc[:0].assign(reason="")
    kept, left = [], []
    for row in matched(one, other).itertuples(index=False):
        if row.one < 0 or row.other < 0:
            drawn = one.iloc[row.one] if row.other < 0 else other.iloc[row.other]
            left.append({**drawn[COLUMNS], "reason": f"drawn by {drawn['annotator']} alone"})
            continue
        mine, theirs = one.iloc[row.one], other.iloc[row.other]
        if mine["type"] != theirs["type"]:
            names = " and ".join(f"{t['type']} ({t['annotator']})" for t in (mine, theirs))
            left.append({**mine[COLUMNS], "reason": f"called {names}"})
        else:
            edges = (mine[EDGES].to_numpy(float) + theirs[EDGES].to_numpy(float)) / 2
            kept.append((row.case_id, BY_BOTH, mine["type"], *edges))
    return pd.DataFrame(kept, columns=COLUMNS), pd.DataFrame(left, columns=[*COLUMNS, "reason"])
