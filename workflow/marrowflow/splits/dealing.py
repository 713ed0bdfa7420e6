"""Deal names out to training, validation and test, stratum by stratum; the order is told in `marrowflow.splits.partition`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from marrowflow.config import AsPublished, Splits
from marrowflow.splits.keyed import keyed_hash, keyed_order
from marrowflow.splits.samples import TEST, TRAIN, VALIDATION

Strata = Mapping[tuple[str, str], Sequence[str]]
"""(cohort, label) → names of what is dealt there."""


def deal(strata: Strata, rule: Splits | AsPublished, seed: int) -> list[dict[str, str]]:
    """Deal each stratum's names out; return one mapping a fold, from name to partition.

    Parameters
    ----------
    strata
        Names by (cohort, label), each name in one stratum; their order makes no difference.
    rule
        Scheme, folds and shares.
    seed
        Key of the hashes.
    """
    number = 1 if rule.scheme == "holdout" else rule.folds
    folds: list[dict[str, str]] = [{} for _ in range(number)]
    for (cohort, label), names in strata.items():
        in_turn = keyed_order(names, seed, 0)
        offset = keyed_hash(seed, "first fold", cohort, label)
        for fold in range(number):
            if rule.scheme == "kfold":
                tested = in_turn[(fold - offset) % number :: number]
            else:
                tested = keyed_order(names, seed, fold)[: share_of(len(names), rule.test)]
            rest = sorted(set(names).difference(tested))
            ordered = keyed_order(rest, seed, fold, "validation")
            validated = ordered[: share_of(len(rest), rule.validation)]
            folds[fold] |= dict.fromkeys(rest, TRAIN)
            folds[fold] |= dict.fromkeys(validated, VALIDATION)
            folds[fold] |= dict.fromkeys(tested, TEST)
    return folds


def share_of(number: int, share: float) -> int:
    """Round ``share * number``, a half upwards, to at least 1 and at most ``number - 1``; 0 where that cannot be."""
    if share == 0 or number < 2:
        return 0
    return min(max(math.floor(share * number + 0.5), 1), number - 1)
