"""Point metrics from counts, for a sample or for thousands of resamples at once.

The last axes of every argument hold the counts, the leading ones are resamples. 0/0 is undefined:
NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PROPORTIONS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
"""Metrics that are a number of units out of a number of units."""

OF_EACH_CLASS = (*PROPORTIONS, "f1")
"""Metrics of each class against the rest, from counts."""

MACRO = "macro"
"""Name in the place of a class: the mean over all classes of the study, each counted once."""

MICRO = "micro"
"""Name in the place of a class: each unit asked about each class in turn, all answers in one table or ranking."""

MACRO_METRICS = ("auc", "average_precision", "sensitivity", "ppv", "f1")
"""Metrics whose mean over the classes is given (that of specificity and NPV flatters rare classes)."""

_MICRO_COUNTS = ("sensitivity", "ppv", "f1")


def proportion_cells(metric: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which of (tp, fp, fn, tn) add up to the numerator and to the denominator of a proportion."""
    return {
        "accuracy": ((0, 3), (0, 1, 2, 3)),
        "sensitivity": ((0,), (0, 2)),
        "specificity": ((3,), (1, 3)),
        "ppv": ((0,), (0, 1)),
        "npv": ((3,), (2, 3)),
    }[metric]


def binary_metrics(cells: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of a 2×2 table.

    Parameters
    ----------
    cells
        Float64 [..., 4]: true positives, false positives, false negatives, true negatives.

    Returns
    -------
    dict
        accuracy, sensitivity, specificity, ppv, npv, f1, mcc, balanced_accuracy, kappa, lr_positive,
        lr_negative and dor, each [...]; NaN where undefined. The likelihood ratios and the odds ratio are
        infinite where their denominator alone is 0.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(cells, dtype=np.float64), -1, 0)
    sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, fp + tn)
    n = tp + fp + fn + tn
    chance = (tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)
    return {
        "accuracy": ratio(tp + tn, n),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ratio(tp, tp + fp),
        "npv": ratio(tn, fn + tn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": ratio(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (fp + tn) * (fn + tn))),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "kappa": ratio(n * (tp + tn) - chance, n * n - chance),
        "lr_positive": _unbounded_ratio(sensitivity, ratio(fp, fp + tn)),
        "lr_negative": _unbounded_ratio(ratio(fn, tp + fn), specificity),
        "dor": _unbounded_ratio(tp * tn, fp * fn),
    }


def multiclass_metrics(confusion: np.ndarray, classes: Sequence[str]) -> dict[tuple[str, str], np.ndarray]:
    """Return the metrics of a k×k table, overall (class empty), a class against the rest, and macro.

    Parameters
    ----------
    confusion
        Float64 [..., k, k]; rows are the truth.
    classes
        The k names; macro means are over all of them, undefined where one of them is. Micro sensitivity, PPV and
        F1 are those of the k tables of one class against the rest, summed: all three equal the accuracy.

    Returns
    -------
    dict
        (metric, class) to [...]. MCC is the multi-class R_K of Gorodkin 2004.
    """
    c = np.asarray(confusion, dtype=np.float64)
    n, truths, answers = c.sum((-2, -1)), c.sum(-1), c.sum(-2)
    right = np.trace(c, axis1=-2, axis2=-1)
    both = (truths * answers).sum(-1)
    spread = (n * n - (truths**2).sum(-1)) * (n * n - (answers**2).sum(-1))
    recalls = ratio(np.diagonal(c, axis1=-2, axis2=-1), truths)
    found = {
        ("accuracy", ""): ratio(right, n),
        ("mcc", ""): ratio(n * right - both, np.sqrt(spread)),
        ("balanced_accuracy", ""): recalls.mean(-1),
        ("kappa", ""): ratio(n * right - both, n * n - both),
    }
    for i, name in enumerate(classes):
        binary = binary_metrics(one_against_rest(c, i))
        found |= {(m, name): binary[m] for m in OF_EACH_CLASS}
    found |= {(m, MICRO): found["accuracy", ""] for m in _MICRO_COUNTS}
    return found | macro_means(found, classes)


def macro_means(
    found: dict[tuple[str, str], np.ndarray], classes: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:
    """Return the mean over ``classes`` of each of `MACRO_METRICS` that was found for all of them."""
    return {
        (m, MACRO): np.mean([found[m, c] for c in classes], axis=0)
        for m in MACRO_METRICS
        if all((m, c) in found for c in classes)
    }


def one_against_rest(confusion: np.ndarray, index: int) -> np.ndarray:
    """Return (tp, fp, fn, tn) [..., 4] of one class in k×k tables [..., k, k]."""
    tp = confusion[..., index, index]
    fp = confusion[..., :, index].sum(-1) - tp
    fn = confusion[..., index, :].sum(-1) - tp
    return np.stack([tp, fp, fn, confusion.sum((-2, -1)) - tp - fp - fn], axis=-1)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; NaN where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    safe = np.where(denominator == 0, 1.0, denominator)
    return np.where(denominator == 0, np.nan, numerator / safe)


def _unbounded_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; infinite where the denominator alone is 0, NaN where both are."""
    quotient = ratio(numerator, denominator)
    return np.where((np.asarray(denominator) == 0) & (np.asarray(numerator) > 0), np.inf, quotient)
