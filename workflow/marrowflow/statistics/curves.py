"""Points of the ROC, precision–recall and calibration curves, as the reports draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from marrowflow.statistics.evaluation import Evaluation
from marrowflow.statistics.intervals import wilson_clustered
from marrowflow.statistics.rows import Place

_OF_CURVES = {
    "roc": ("fpr", "tpr", "threshold"),
    "pr": ("recall", "precision", "threshold"),
    "calibration": ("bin", "n", "mean_predicted", "observed", "low", "high"),
    "score_histogram": ("low", "high", "positives", "negatives"),
}
CURVES = {kind: ("endpoint", "unit", "class", *columns) for kind, columns in _OF_CURVES.items()}
"""Kinds of curves, and the columns of their files."""

MOST_BINS = 10
"""Bins of a calibration curve; fewer where they would hold less than `LEAST_ROWS` rows each."""

LEAST_ROWS = 5

HISTOGRAM_BINS = 20


def curve_rows(kind: str, evaluation: Evaluation, place: Place, confidence: float) -> pd.DataFrame:
    """Return one kind of curve for each of the endpoint's yes/no questions that has scores, with the columns of `CURVES`."""
    sample = evaluation.sample
    found = []
    for question in evaluation.questions:
        if question.score is None or (
            kind in ("calibration", "score_histogram") and not question.is_probability
        ):
            continue
        if kind == "roc":
            points = roc_points(question.score, question.positive)
        elif kind == "pr":
            points = pr_points(question.score, question.positive)
        elif kind == "score_histogram":
            points = score_histogram(question.score, question.positive)
        else:
            points = calibration_bins(
                question.score, question.positive, sample.patient, sample.n_patients, confidence
            )
        points.insert(0, "endpoint", place.endpoint)
        points.insert(1, "unit", place.unit)
        points.insert(2, "class", question.name)
        found.append(points)
    return joined(found, CURVES[kind])


def joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Join tables; where all are empty, and do not tell the types of their columns, return no rows of ``columns``."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))


def roc_points(scores: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """Return fpr, tpr and threshold (positive at or above it; inf for the first), without points half-way between others.

    Empty where there is no positive or no negative.
    """
    if not positive.any() or positive.all():
        return pd.DataFrame({"fpr": [], "tpr": [], "threshold": []}, dtype=np.float64)
    threshold, tp, fp = _counts_at_cut_offs(scores, positive)
    bends = (np.diff(tp, 2) != 0) | (np.diff(fp, 2) != 0)
    kept = np.concatenate([[True], bends, [True]])[: len(tp)]
    return pd.DataFrame(
        {
            "fpr": np.append(0.0, fp[kept] / fp[-1]),
            "tpr": np.append(0.0, tp[kept] / tp[-1]),
            "threshold": np.append(np.inf, threshold[kept]),
        }
    )


def pr_points(scores: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """Return recall, precision and threshold (inf for the last, conventional point: recall 0, precision 1).

    Points between others of the same recall are left out. Empty where there is no positive.
    """
    if not positive.any():
        return pd.DataFrame({"recall": [], "precision": [], "threshold": []}, dtype=np.float64)
    threshold, tp, fp = _counts_at_cut_offs(scores, positive)
    moves = np.diff(tp) > 0
    kept = np.concatenate([[True], moves[:-1] | moves[1:], [True]])[: len(tp)]
    threshold, tp, fp = (v[kept][::-1] for v in (threshold, tp, fp))
    return pd.DataFrame(
        {
            "recall": np.append(tp / tp[0], 0.0),
            "precision": np.append(tp / (tp + fp), 1.0),
            "threshold": np.append(threshold, np.inf),
        }
    )


def score_histogram(scores: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """Return how many positives and negatives score in each of `HISTOGRAM_BINS` equal parts of 0 to 1.

    Columns low, high, positives, negatives. A bin holds its lower edge, the last one both.
    """
    edges = np.arange(HISTOGRAM_BINS + 1) / HISTOGRAM_BINS
    counts = [np.histogram(scores[side], edges)[0] for side in (positive, ~positive)]
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "positives": counts[0], "negatives": counts[1]}
    )


def calibration_bins(
    scores: np.ndarray, positive: np.ndarray, patient: np.ndarray, n_patients: int, confidence: float
) -> pd.DataFrame:
    """Return mean prediction and observed share in bins of about equally many rows.

    Parameters
    ----------
    scores, positive, patient
        Float64, bool and int64 [rows]. Equal scores are never divided, so that bins may be fewer.
    n_patients
        Patients are 0..``n_patients`` - 1.
    confidence
        Coverage of the observed shares' intervals (Wilson, clustered); NaN where a bin holds one patient.

    Returns
    -------
    DataFrame
        bin (from 1), n, mean_predicted, observed, low, high.
    """
    place = bin_of(scores)
    rows = []
    for number in range(1, int(place.max(initial=-1)) + 2):
        inside = place == number - 1
        m = np.bincount(patient[inside], minlength=n_patients).astype(np.float64)
        x = np.bincount(patient[inside & positive], minlength=n_patients).astype(np.float64)
        interval = wilson_clustered(x, m, confidence)
        rows.append(
            {
                "bin": number,
                "n": int(inside.sum()),
                "mean_predicted": scores[inside].mean(),
                "observed": positive[inside].mean(),
                "low": interval.low if interval else np.nan,
                "high": interval.high if interval else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=["bin", "n", "mean_predicted", "observed", "low", "high"])


def bin_of(scores: np.ndarray) -> np.ndarray:
    """Return each row's bin of a calibration curve, int64 [rows] from 0 on without gaps."""
    wanted = max(1, min(MOST_BINS, len(scores) // LEAST_ROWS))
    edges = np.unique(np.quantile(scores, np.arange(1, wanted) / wanted)) if len(scores) else np.zeros(0)
    return np.unique(np.searchsorted(edges, scores, side="right"), return_inverse=True)[1]


def _counts_at_cut_offs(
    scores: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct scores from the highest on, and the positives and negatives at or above each."""
    order = np.argsort(-scores, kind="stable")
    ordered, true = scores[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    tp = np.cumsum(true)[last]
    return ordered[last], tp, last + 1 - tp
