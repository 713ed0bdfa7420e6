"""What a pilot study's prediction table says of images a patient, and of how alike they are."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.errors import UserError
from marrowflow.predictions import Predictions
from marrowflow.statistics.cases import Sample, countable, gather_units, select_index_test
from marrowflow.statistics.intervals import intraclass_correlation, ratio_variance
from marrowflow.statistics.ranking import rank

log = logging.getLogger(__name__)


def describe_pilot(
    predictions: Predictions, positive: Sequence[str], index_test: str | None = None
) -> pd.DataFrame:
    """Return what a pilot study says about clusters.

    Parameters
    ----------
    predictions
        A checked prediction table with patients.
    positive
        Classes in which the target condition is present.
    index_test
        Which rows to take, where the table holds several index tests.

    Returns
    -------
    DataFrame
        A row for each of `METRICS` (``proportion`` is accuracy; AUC where there are probabilities) with columns

        estimate
            Of the pilot.
        patients, images, images_cv
            Patients in the denominator, their mean number of images, its coefficient of variation.
        deff
            Ratio-estimator variance over binomial variance; for an AUC, the variance of Obuchowski 1997 over that
            of DeLong et al. 1988, which takes all images as independent. NaN at 0 and 1.
        icc
            `intraclass_correlation`; for an AUC the correlation that gives its `deff` by `design_effect`.

    Raises
    ------
    UserError
        No patients; an unknown positive class, or all of them; a group without an image.
    """
    if not predictions.has_patients:
        raise UserError(
            "the pilot's prediction table has no column 'patient_id': how alike the images of one patient are cannot be "
            "seen in it; add the column, or leave --predictions out and give --icc and --images"
        )
    unknown = [c for c in positive if c not in predictions.classes]
    if unknown:
        raise UserError(
            f"--positive {unknown[0]!r} is no class of the pilot; its classes: {', '.join(predictions.classes)}"
        )
    table = select_index_test(predictions, index_test)
    sample = countable(gather_units(table, predictions.classes, "case"))
    columns = [sample.classes.index(c) for c in positive]
    truth, answer = np.isin(sample.truth, columns), np.isin(sample.predicted, columns)
    if not truth.any() or truth.all():
        found = "none" if not truth.any() else "all"
        raise UserError(
            f"of the pilot's {len(truth)} images with a truth and an answer, {found} are of {', '.join(positive)}: "
            "a pilot needs both kinds; check --positive, or leave --predictions out and give --icc and --images"
        )
    mixed = len(np.intersect1d(sample.patient[truth], sample.patient[~truth]))
    if mixed:
        log.warning(
            "%d of the pilot's %d patients have images with and without the target condition, and a plan by --prevalence "
            "takes a patient to be one or the other: plan each kind as --proportion, with its own --images and --icc",
            mixed,
            sample.n_patients,
        )
    denominators = {"sensitivity": truth, "specificity": ~truth, "proportion": np.ones_like(truth)}
    rows = [_pilot_proportion(m, sample, truth == answer, rows) for m, rows in denominators.items()]
    if sample.probabilities is not None:
        rows.append(_pilot_auc(sample, truth, sample.probabilities[:, columns].sum(axis=1)))
    return pd.DataFrame(rows)


def _pilot_proportion(metric: str, sample: Sample, right: np.ndarray, counted: np.ndarray) -> dict[str, Any]:
    m = np.bincount(sample.patient[counted], minlength=sample.n_patients).astype(np.float64)
    x = np.bincount(sample.patient[counted & right], minlength=sample.n_patients).astype(np.float64)
    share = x.sum() / m.sum()
    binomial = share * (1 - share) / m.sum()
    deff = ratio_variance(x, m) / binomial if 0 < share < 1 and len(m) > 1 else math.nan
    return {
        "metric": metric,
        "estimate": share,
        **_sizes(m),
        "deff": deff,
        "icc": intraclass_correlation(x, m),
    }


def _pilot_auc(sample: Sample, truth: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    ranking = rank(score, truth, sample.patient, sample.n_patients, 0)
    alone = rank(score, truth, np.arange(len(truth)), len(truth), 0)
    assert ranking is not None and alone is not None  # both kinds are there
    auc, clustered = ranking.auc_variance()
    independent = alone.auc_variance()[1]
    deff = clustered / independent if independent > 0 else math.nan
    m = np.concatenate([ranking.positives, ranking.negatives])
    alike = (m**2).sum() / m.sum() - 1
    return {
        "metric": "auc",
        "estimate": auc,
        **_sizes(m),
        "patients": sample.n_patients,
        "deff": deff,
        "icc": (deff - 1) / alike if alike > 0 else math.nan,
    }


def _sizes(images: np.ndarray) -> dict[str, Any]:
    m = images[images > 0]
    return {"patients": len(m), "images": m.mean(), "images_cv": m.std() / m.mean()}
