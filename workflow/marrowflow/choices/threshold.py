"""Cut-offs: from development scores to the one number that is locked, and back out of its file.

A score at or above the cut-off is positive. Cut-offs lie midway between neighbouring observed
scores, so that another machine's rounding moves nobody across.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from marrowflow.config import Threshold, Unit
from marrowflow.errors import UserError


def fit_threshold(scores: ArrayLike, positive: ArrayLike, rule: Threshold) -> float:
    """Return the cut-off that ``rule`` chooses on these scores.

    Parameters
    ----------
    scores
        Float [n] in 0..1: of a case, or a patient's mean.
    positive
        Bool [n]: target condition present.
    rule
        youden: largest sensitivity + specificity. sensitivity (specificity): largest specificity
        (sensitivity) with the named one at no less than ``value``. fixed: ``value``, without a look at the scores.
        Of two cut-offs that do equally well by the rule, the lower one, which misses fewer, is taken;
        for a least specificity the higher one, which no cut-off as sensitive beats.

    Returns
    -------
    float
        Midway between two neighbouring scores; midway to 0 where all are called positive, midway to 1
        (or just above 1, where a score is 1) where none is.

    Raises
    ------
    UserError
        No positive or no negative to choose on.
    ValueError
        Shapes differ, or a score is not a number.
    """
    value = rule.value or 0.0  # None only for youden, which has no use for it
    if rule.rule == "fixed":
        return value
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if s.shape != y.shape or s.ndim != 1 or not np.isfinite(s).all():
        raise ValueError(f"needs one finite score a truth; got shapes {s.shape}, {y.shape}")
    n_positive, n_negative = int(y.sum()), int((~y).sum())
    if not n_positive or not n_negative:
        raise UserError(
            f"no cut-off can be chosen on {n_positive} positives and {n_negative} negatives: both are needed; "
            "set threshold: {rule: fixed, value: …} or check the endpoint's classes"
        )
    cuts = _cutoffs(s)
    tp = n_positive - np.searchsorted(np.sort(s[y]), cuts)
    tn = np.searchsorted(np.sort(s[~y]), cuts)
    # Integers, so that equally good cut-offs compare as equal.
    youden = tp * n_negative + tn * n_positive
    if rule.rule == "youden":
        order = np.lexsort((tp, youden))
    elif rule.rule == "sensitivity":
        order = np.lexsort((tp, tn, tp / n_positive >= value))
    else:
        order = np.lexsort((tn, tp, tn / n_negative >= value))
    return float(cuts[order[-1]])


def digest_of(lock: dict[str, Any]) -> str:
    """Return the SHA-256 of a lock without its digest, as canonical JSON (sorted keys, no spaces, UTF-8)."""
    rest = {key: value for key, value in lock.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_lock(path: Path) -> dict[str, Any]:
    """Read a ``threshold.json``; raise `UserError` where it is not one, or was changed after it was signed."""
    try:
        lock = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}; write it anew with learning.lock") from error
    if not isinstance(lock, dict) or not isinstance(lock.get("endpoints"), dict):
        raise UserError(f"{path} holds no locked cut-offs: expected an object with 'endpoints'")
    if lock.get("digest") != digest_of(lock):
        raise UserError(
            f"{path} was changed after it was locked: its digest does not fit. Choices are made on development data "
            "only; delete the file and run learning.lock again"
        )
    return lock


def locked_threshold(lock: dict[str, Any], endpoint: str, positive: Sequence[str], unit: Unit) -> float:
    """Return the cut-off that was locked for an endpoint and unit.

    The endpoint is found by its name, or else by its positive classes. Raises `UserError` where it
    was locked for other classes, or not at all.
    """
    name = _locked_name(lock, endpoint, positive)
    # null where it was not fitted: patients with images of both kinds have no truth of their own
    threshold = (lock["endpoints"][name].get(unit) or {}).get("threshold")
    if not isinstance(threshold, int | float):
        raise UserError(f"the lock has no cut-off for endpoint {name!r} and unit {unit!r}")
    return float(threshold)


def has_own_score(lock: dict[str, Any], endpoint: str, positive: Sequence[str]) -> bool:
    """Say whether an endpoint's cut-off is one of a probability of its own, and not of the sum of its classes'.

    The endpoint is found, and `UserError` raised, as by `locked_threshold`.
    """
    return _locked_name(lock, endpoint, positive) in lock.get("calibration", {}).get("heads", {})


def _locked_name(lock: dict[str, Any], endpoint: str, positive: Sequence[str]) -> str:
    same = [name for name, e in lock["endpoints"].items() if set(e.get("positive", [])) == set(positive)]
    name = endpoint if endpoint in lock["endpoints"] else next(iter(same), None)
    if name is None:
        known = ", ".join(lock["endpoints"]) or "none"
        raise UserError(f"the lock has no cut-off for endpoint {endpoint!r}; it has: {known}")
    if name not in same:
        raise UserError(
            f"endpoint {endpoint!r} was locked for {lock['endpoints'][name].get('positive')}, "
            f"not for {list(positive)}: a cut-off belongs to the classes that it was fitted for"
        )
    return str(name)


def _cutoffs(scores: np.ndarray) -> np.ndarray:
    """Return every cut-off that divides the scores differently, ascending: [distinct scores + 1]."""
    distinct = np.unique(scores)
    low, high = distinct[:-1], distinct[1:]
    middle = (low + high) / 2
    between = np.where(middle > low, middle, high)  # neighbouring floats have no middle
    top = distinct[-1]
    above = (top + 1) / 2 if (top + 1) / 2 > top else np.nextafter(top, np.inf)
    return np.concatenate([[distinct[0] / 2 if distinct[0] > 0 else distinct[0]], between, [above]])
