"""Points of the ROC, precision–recall and calibration curves, as the reports draw them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from marrowflow.statistics.intervals import wilson_clustered

MOST_BINS = 10
"""Bins of a calibration curve; fewer where they would hold less than `LEAST_ROWS` rows each."""

LEAST_ROWS = 5


def roc_points(scores: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """Return fpr, tpr and threshold (positive at or above it; inf for the first), without points on a straight line.

    Empty where there is no positive or no negative.
    """
    if not positive.any() or positive.all():
        return pd.DataFrame({"fpr": [], "tpr": [], "threshold": []}, dtype=np.float64)
    fpr, tpr, threshold = roc_curve(positive, scores)
    return pd.DataFrame({"fpr": fpr, "tpr": tpr, "threshold": threshold})


def pr_points(scores: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """Return recall, precision and threshold (inf for the last, conventional point: recall 0, precision 1).

    Empty where there is no positive.
    """
    if not positive.any():
        return pd.DataFrame({"recall": [], "precision": [], "threshold": []}, dtype=np.float64)
    precision, recall, threshold = precision_recall_curve(positive, scores, drop_intermediate=True)
    return pd.DataFrame({"recall": recall, "precision": precision, "threshold": np.append(threshold, np.inf)})


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
    wanted = max(1, min(MOST_BINS, len(scores) // LEAST_ROWS))
    edges = np.unique(np.quantile(scores, np.arange(1, wanted) / wanted)) if len(scores) else np.zeros(0)
    place = np.searchsorted(edges, scores, side="right")
    rows = []
    for number, chosen in enumerate(np.unique(place), start=1):
        inside = place == chosen
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
