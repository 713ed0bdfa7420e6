"""Differential counts: each class's share of all units, by the reference standard and by the index test.

A laboratory's differential is Σ cells of a type / Σ cells counted, over all patients of the table. The ratio of sums
is taken, never the mean of the patients' ratios, which would let a patient with ten cells count as one with a thousand.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from marrowflow.statistics.cases import Sample
from marrowflow.statistics.rows import PROPORTION_COLUMNS, Place, proportion_row

SHARE_COLUMNS = ("endpoint", "source", "class", "unit", *PROPORTION_COLUMNS)


def shares(sample: Sample, place: Place, confidence: float) -> pd.DataFrame:
    """Return the share of each class, with `SHARE_COLUMNS`.

    ``source`` is ``truth`` or ``predicted``, both of the same units: those with a truth and an answer. Intervals are
    Wilson's on the effective sample size (`wilson_clustered`); ``none`` where there are fewer than two patients.
    """
    per_patient = np.bincount(sample.patient, minlength=sample.n_patients)
    rows = []
    for source, answers in (("truth", sample.truth), ("predicted", sample.predicted)):
        for i, name in enumerate(sample.classes):
            counts = np.bincount(sample.patient[answers == i], minlength=sample.n_patients)
            rows.append(
                {
                    "endpoint": place.endpoint,
                    "source": source,
                    "class": name,
                    "unit": place.unit,
                    **proportion_row(counts, per_patient, confidence),
                }
            )
    return pd.DataFrame(rows, columns=list(SHARE_COLUMNS))
