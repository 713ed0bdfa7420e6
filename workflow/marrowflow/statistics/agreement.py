"""Agreement of two index tests, or two readers, with each other: no truth is needed.

Weighted κ takes the classes as equally spaced steps in their declared order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.config import Accuracy
from marrowflow.statistics.bootstrap import Bootstrapped, Interval, resample
from marrowflow.statistics.intervals import clopper_pearson, wilson, wilson_clustered
from marrowflow.statistics.metrics import ratio
from marrowflow.statistics.rows import Place

AGREEMENT_COLUMNS = (
    "endpoint",
    "metric",
    "unit",
    "index_test",
    "against",
    "estimate",
    "low",
    "high",
    "method",
    "primary",
    "numerator",
    "denominator",
    "n_cases",
    "n_patients",
    "replicates",
    "undefined",
    "seed",
)

_UNDEFINED = "undefined: a denominator is 0 in this sample"


@dataclass(frozen=True)
class Agreement:
    """Answers of two index tests to the same units, ready to be resampled.

    Attributes
    ----------
    cells
        Float64 [patients, k, k]: each patient's units by the answer of the first (rows) and of the second.
    binary
        True where the two answers are negative and positive, in this order.
    n_cases
        Cases behind the units.
    alone
        True where no patient has more than one unit.
    """

    cells: np.ndarray
    binary: bool
    n_cases: int
    alone: bool

    def estimates(self) -> dict[str, float]:
        """Return each measure of agreement of the sample; NaN where undefined."""
        return {metric: float(value) for metric, value in self._measures(self.cells.sum(axis=0)).items()}

    def values(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return each measure [resamples] for patients' counts [resamples, patients]; NaN where undefined."""
        patients, k, _ = self.cells.shape
        drawn = np.asarray(weights, dtype=np.float64) @ self.cells.reshape(patients, k * k)
        return self._measures(drawn.reshape(-1, k, k))

    def influence(self) -> dict[str, np.ndarray]:
        """Return each patient's pull on each measure, float64 [patients]; see `bootstrap_intervals`."""
        left_out = self._measures(self.cells.sum(axis=0) - self.cells)
        return {metric: value.mean() - value for metric, value in left_out.items()}

    def _measures(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        return agreement_measures(cells, self.binary)


def agreement_measures(cells: np.ndarray, binary: bool) -> dict[str, np.ndarray]:
    """Return the measures of agreement of k×k tables of two readers' answers.

    Parameters
    ----------
    cells
        Float64 [..., k, k]: rows are the answers of the first, columns those of the second.
    binary
        True where k is 2 and the answers are negative and positive, in this order.

    Returns
    -------
    dict
        ``agreement`` and ``kappa``; of a binary table ``positive_agreement`` and ``negative_agreement``, else
        ``kappa_linear`` and ``kappa_quadratic``, each [...]. NaN where undefined.

    Notes
    -----
    κ = 1 − Σ v o / Σ v e with the disagreements v, the observed shares o and those expected of the two margins, e:
    v is 1 off the diagonal (Cohen 1960, Educ Psychol Meas 20:37), |i − j| or (i − j)² (Cohen 1968, Psychol Bull
    70:213). Positive agreement is 2a / (2a + b + c) and negative agreement 2d / (2d + b + c), with a the units that
    both call positive and d those that both call negative (Cicchetti and Feinstein 1990, J Clin Epidemiol 43:551).
    """
    c = np.asarray(cells, dtype=np.float64)
    k, n = c.shape[-1], c.sum((-2, -1))
    expected = c.sum(-1)[..., :, None] * c.sum(-2)[..., None, :]
    apart = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))

    def kappa(disagreement: np.ndarray) -> np.ndarray:
        return 1 - ratio(n * (disagreement * c).sum((-2, -1)), (disagreement * expected).sum((-2, -1)))

    found = {
        "agreement": ratio(np.trace(c, axis1=-2, axis2=-1), n),
        "kappa": kappa((apart > 0).astype(np.float64)),
    }
    if not binary:
        return found | {"kappa_linear": kappa(apart), "kappa_quadratic": kappa(apart**2)}
    apart_by_one = c[..., 0, 1] + c[..., 1, 0]
    for name, i in (("positive_agreement", 1), ("negative_agreement", 0)):
        found[name] = ratio(2 * c[..., i, i], 2 * c[..., i, i] + apart_by_one)
    return found


def count_agreement(
    first: np.ndarray, second: np.ndarray, k: int, patient: np.ndarray, n_cases: int, binary: bool
) -> Agreement:
    """Count the answers ``first`` and ``second``, int64 [units] in 0..k-1, of units of patients 0.. [units]."""
    n_patients = int(patient.max()) + 1 if len(patient) else 0
    flat = np.bincount((patient * k + first) * k + second, minlength=n_patients * k * k)
    cells = flat.reshape(n_patients, k, k).astype(np.float64)
    return Agreement(cells, binary, n_cases, alone=len(patient) == n_patients)


def agreement_rows(
    agreement: Agreement, names: tuple[str, str], place: Place, settings: Accuracy
) -> pd.DataFrame:
    """Return the rows of ``agreement.csv``, with `AGREEMENT_COLUMNS`, for two index tests' ``names``.

    One row of a measure is primary: of the agreement, a proportion, Wilson's interval on the effective number of
    units; else BCa, or the percentile interval where BCa is undefined, or a row with the method ``none``.
    """
    estimates = agreement.estimates()
    n_patients = len(agreement.cells)
    too_few = "no clustered interval from fewer than two patients" if n_patients < 2 else ""
    wanted = [metric for metric, value in estimates.items() if not np.isnan(value) and not too_few]
    what = f"bootstrap agreement {place.endpoint} {place.unit}"
    resampled = resample([agreement], wanted, n_patients, settings, what)
    rows: list[dict[str, Any]] = []
    for metric, estimate in estimates.items():
        bootstrapped = resampled.get(metric, Bootstrapped([], 0))
        problem = (_UNDEFINED if np.isnan(estimate) else "") or too_few
        closed = (
            _intervals(agreement, settings.confidence)
            if metric == "agreement" and not np.isnan(estimate)
            else []
        )
        found = [*closed, *bootstrapped.intervals]
        if problem or not found:
            found.insert(0, Interval("none", np.nan, np.nan))
        problem = problem or ("" if closed else bootstrapped.problem)
        if problem:
            place.warn(f"{names[0]} against {names[1]}: {problem}", (metric, ""))
        counts = (agreement.cells.trace(axis1=1, axis2=2).sum(), agreement.cells.sum())
        for i, interval in enumerate(found):
            drawn = metric in resampled and interval.method.startswith(("bootstrap", "none"))
            rows.append(
                {
                    "endpoint": place.endpoint,
                    "metric": metric,
                    "unit": place.unit,
                    "index_test": names[0],
                    "against": names[1],
                    "estimate": estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "method": interval.method,
                    "primary": i == 0,
                    "numerator": counts[0] if metric == "agreement" else np.nan,
                    "denominator": counts[1] if metric == "agreement" else np.nan,
                    "n_cases": agreement.n_cases,
                    "n_patients": n_patients,
                    "replicates": settings.replicates if drawn else 0,
                    "undefined": bootstrapped.undefined if drawn else 0,
                    "seed": settings.seed,
                }
            )
    whole = {"numerator": "Int64", "denominator": "Int64"}
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS)).astype(whole)


def _intervals(agreement: Agreement, confidence: float) -> list[Interval]:
    """Return the intervals of the percent agreement in closed form, the clustered one first."""
    units = agreement.cells.sum(axis=(1, 2))
    agreed = agreement.cells.trace(axis1=1, axis2=2)
    found = [wilson_clustered(agreed, units, confidence)]
    if agreement.alone:
        x, n = int(agreed.sum()), int(units.sum())
        found += [clopper_pearson(x, n, confidence), wilson(x, n, confidence)]
    return [interval for interval in found if interval is not None]
