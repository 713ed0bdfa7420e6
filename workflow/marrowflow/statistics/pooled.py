"""What several external hospitals say together: a random-effects summary of the primary index test's accuracy.

    python -m marrowflow statistics.pooled --options '{"accuracy": {…}, "units": […]}' --primary primary.json
        --accuracy results/<study>/accuracy/<protocol> --cohorts beta gamma … --out pooled.csv

reads the ``metrics.csv`` of the primary index test for ``development`` and each external cohort, and writes in the primary unit,
for every endpoint and each of `METRICS` that it has, a row for development (never pooled), one a hospital, and, where at
least `FEWEST` hospitals have an interval, one for the summary of the hospitals, with `COLUMNS`.

Sensitivity and specificity are those of one locked cut-off, and are summarised one by one.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, ndtri, stdtrit

from marrowflow.choices.primary import DEVELOPMENT, read_primary
from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Accuracy, Section, Unit, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table

log = logging.getLogger(__name__)

FEWEST = 3
"""Hospitals that make a summary: of two, a variance between them cannot be told from chance."""

MACRO = "macro"
"""As in metrics.csv: an average over the classes."""
METRICS = (("auc", ""), ("auc", MACRO), ("sensitivity", ""), ("specificity", ""), ("accuracy", ""))
METHOD = "reml_hartung_knapp"

COLUMNS = (
    "endpoint",
    "metric",
    "class",
    "unit",
    "kind",
    "cohort",
    "estimate",
    "low",
    "high",
    "method",
    "n_cases",
    "n_patients",
    "numerator",
    "denominator",
    "logit",
    "se",
    "weight",
    "hospitals",
    "tau2",
    "i2",
    "predicted_low",
    "predicted_high",
    "reason",
)
"""``kind`` is development, hospital or summary; ``logit`` and ``se`` are what was pooled, ``weight`` is a hospital's share;
``hospitals`` to ``predicted_high`` are of the summary, whose counts are sums; ``reason`` says why a hospital was not pooled."""

_GIVEN = ("estimate", "low", "high", "method", "n_cases", "n_patients", "numerator", "denominator")
_WHOLE = ("n_cases", "n_patients", "numerator", "denominator", "hospitals")
_STEPS = 200
_NO_INTERVAL = "no interval at this hospital"


class Options(Section):
    """The sections of the study that this step uses."""

    accuracy: Accuracy = Accuracy()
    units: list[Unit] = Field(default=["patient", "case"], min_length=1)


@dataclass(frozen=True)
class Pooled:
    """A random-effects summary, on the scale of what was pooled.

    Attributes
    ----------
    mean, se
        Of the distribution of hospitals; ``se`` is Hartung and Knapp's.
    low, high
        Interval of the mean.
    predicted
        Limits between which another hospital of the same kind is expected.
    tau2, i2
        Variance between hospitals, and its share in the variance of a typical hospital's estimate.
    weights
        Float64 [hospitals], summing to 1.
    """

    mean: float
    se: float
    low: float
    high: float
    predicted: tuple[float, float]
    tau2: float
    i2: float
    weights: np.ndarray


def pool(estimates: np.ndarray, variances: np.ndarray, confidence: float) -> Pooled:
    """Summarise estimates of several hospitals with their variances, float64 [hospitals], by random effects.

    Notes
    -----
    τ² by restricted maximum likelihood, w = 1/(v + τ²), mean Σwy/Σw. Its variance is max(1, q)/Σw with
    q = Σw(y − mean)²/(k − 1), its quantile that of t with k − 1 degrees of freedom: Hartung and Knapp 2001, Stat Med
    20:3875, with the variance never smaller than were q 1 (Röver, Knapp and Friede 2015, BMC Med Res Methodol 15:99), because
    a few hospitals may agree by chance.
    Prediction: mean ± t(k − 2)·√(τ² + variance), Higgins, Thompson and Spiegelhalter 2009 (J R Stat Soc A 172:137), with
    that variance. I² = τ²/(τ² + s²), s² the typical v of Higgins and Thompson 2002, Stat Med 21:1539, equation 9.
    """
    k = len(estimates)
    tau2 = _reml(estimates, variances)
    weights = 1 / (variances + tau2)
    mean = float((weights * estimates).sum() / weights.sum())
    scale = float((weights * (estimates - mean) ** 2).sum() / (k - 1))
    variance = max(1.0, scale) / weights.sum()
    half = stdtrit(k - 1, (1 + confidence) / 2) * np.sqrt(variance)
    ahead = stdtrit(k - 2, (1 + confidence) / 2) * np.sqrt(tau2 + variance)
    fixed = 1 / variances
    typical = (k - 1) * fixed.sum() / (fixed.sum() ** 2 - (fixed**2).sum())
    return Pooled(
        mean,
        float(np.sqrt(variance)),
        float(mean - half),
        float(mean + half),
        (float(mean - ahead), float(mean + ahead)),
        tau2,
        float(tau2 / (tau2 + typical)),
        weights / weights.sum(),
    )


def on_logit_scale(
    estimate: float, low: float, high: float, method: str, quantile: float
) -> tuple[float, float]:
    """Return logit and standard error of a proportion or AUC from its interval.

    Parameters
    ----------
    estimate, low, high, method
        A printed row of ``metrics.csv``.
    quantile
        That the interval was made with.

    Notes
    -----
    Wilson's limits are the logit ± 2 asinh(quantile·se/2) with se = 1/√(n p (1 − p)) (Newcombe 2001, Am Stat 55:200), from which
    se follows; on effective numbers it is the clustered one. Other intervals here are logit ± quantile·se. At 0 and 1 the
    limit that is left tells on how many independent units, n = quantile²·low/(1 − low), Wilson's interval would be the
    same; ½ is added to n and to 0, as of an empty cell (Gart and Zweifel 1967, Biometrika 54:181).
    """
    if estimate in (0.0, 1.0):
        inner = low if estimate == 1 else 1 - high
        n = quantile**2 * inner / (1 - inner)
        size = float(np.log((n + 0.5) / 0.5))
        return (size if estimate == 1 else -size), float(np.sqrt(1 / (n + 0.5) + 1 / 0.5))
    half = (logit(high) - logit(low)) / 2
    se = 2 * np.sinh(half / 2) / quantile if method.startswith("wilson") else half / quantile
    return float(logit(estimate)), float(se)


def pool_hospitals(
    metrics: dict[str, pd.DataFrame], development: pd.DataFrame, unit: Unit, confidence: float
) -> pd.DataFrame:
    """Return the rows of ``pooled.csv``.

    Parameters
    ----------
    metrics
        ``metrics.csv`` by external cohort.
    development
        That of development.
    unit
        The unit of analysis.
    confidence
        Coverage of all intervals.
    """
    rows: list[dict[str, Any]] = []
    for endpoint in dict.fromkeys(development["endpoint"]):
        for metric, name in METRICS:
            place = {"endpoint": endpoint, "metric": metric, "class": name, "unit": unit}
            own = _printed(development, **place)
            if own is None:
                continue
            given = {cohort: _printed(table, **place) for cohort, table in metrics.items()}
            rows.append({**place, "kind": DEVELOPMENT, "cohort": DEVELOPMENT, **own})
            hospitals = [
                {
                    **place,
                    "kind": "hospital",
                    "cohort": cohort,
                    **_with_logit(row, metrics[cohort], confidence),
                }
                for cohort, row in given.items()
            ]
            rows += [*hospitals, *_summary(hospitals, place, confidence)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(_WHOLE, "Int64"))


def _summary(
    hospitals: Sequence[dict[str, Any]], place: dict[str, Any], confidence: float
) -> list[dict[str, Any]]:
    """Return the summary's row, and write each hospital's weight into its own; no row of fewer than `FEWEST`."""
    usable = [row for row in hospitals if not row["reason"]]
    if len(usable) < FEWEST:
        for row in usable:
            row["reason"] = (
                f"not pooled: {len(usable)} hospitals with an interval, at least {FEWEST} are needed"
            )
        return []
    found = pool(
        np.array([row["logit"] for row in usable]), np.array([row["se"] for row in usable]) ** 2, confidence
    )
    for row, weight in zip(usable, found.weights, strict=True):
        row["weight"] = float(weight)
    low, high = found.predicted
    return [
        {
            **place,
            "kind": "summary",
            "cohort": "",
            **{
                n: float(expit(v))
                for n, v in (("estimate", found.mean), ("low", found.low), ("high", found.high))
            },
            "method": METHOD,
            **{name: sum(row[name] for row in usable) for name in ("n_cases", "n_patients", "denominator")},
            "logit": found.mean,
            "se": found.se,
            "hospitals": len(usable),
            "tau2": found.tau2,
            "i2": found.i2,
            "predicted_low": float(expit(low)),
            "predicted_high": float(expit(high)),
            "reason": "",
        }
    ]


def _with_logit(row: dict[str, Any] | None, metrics: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """Return what a hospital's row says, with logit and standard error or the reason why it has none."""
    if row is None or np.isnan(row["estimate"]) or np.isnan(row["low"]):
        return {**(row or {"method": "none"}), "reason": _NO_INTERVAL}
    quantile = _quantile(row, metrics, confidence)
    values = on_logit_scale(row["estimate"], row["low"], row["high"], row["method"], quantile)
    return {**row, **dict(zip(("logit", "se"), values, strict=True)), "reason": ""}


def _quantile(row: dict[str, Any], metrics: pd.DataFrame, confidence: float) -> float:
    """Return the quantile that a row's interval was made with.

    Patients with a denominator, or of the rarer class, are at most as many as its units and as all patients: exactly that
    where patients are the units. Of images the standard error may come out a little too large, and never too small.
    """
    level = (1 + confidence) / 2
    if row["method"] == "newcombe_neff":
        return float(ndtri(level))
    if row["metric"] == "auc":
        sides = metrics[
            metrics["metric"].isin(["sensitivity", "specificity"])
            & metrics["primary"]
            & metrics["endpoint"].eq(row["endpoint"])
            & metrics["unit"].eq(row["unit"])
            & (
                ~metrics["class"].isin([MACRO, "micro"])
                if row["class"] == MACRO
                else metrics["class"].eq(row["class"])
            )
        ]
        patients = sides["denominator"].min()
    else:
        patients = row["denominator"]
    return float(stdtrit(min(patients, row["n_patients"]) - 1, level))


def _printed(metrics: pd.DataFrame, **wanted: str) -> dict[str, Any] | None:
    """Return the primary row of a metric, or None."""
    chosen = metrics["primary"].copy()
    for column, value in wanted.items():
        chosen &= metrics[column].eq(value)
    rows = metrics[chosen]
    return None if rows.empty else {**wanted, **{name: rows[name].iloc[0] for name in _GIVEN}}


def _reml(estimates: np.ndarray, variances: np.ndarray) -> float:
    """Return the τ² of largest restricted likelihood.

    Beyond the larger of squared range and largest variance its derivative is negative; up to there it is looked for on a
    grid, because it may have two maxima, and then between the neighbours of the best.
    """

    def loss(tau2: float) -> float:
        weights = 1 / (variances + tau2)
        mean = (weights * estimates).sum() / weights.sum()
        squares = (weights * (estimates - mean) ** 2).sum()
        return float(squares + np.log(weights.sum()) - np.log(weights).sum())

    most = max(float(np.ptp(estimates)) ** 2, float(variances.max()))
    grid = most * np.concatenate([[0.0], np.geomspace(1e-6, 1.0, _STEPS)])
    best = int(np.argmin([loss(tau2) for tau2 in grid]))
    around = (grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)])
    found = float(minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-12}).x)
    return found if loss(found) < loss(grid[best]) else float(grid[best])


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"no metrics at {path}: measure the accuracy of the primary index test there first")
    words = ("endpoint", "metric", "class", "unit", "method")
    # Only an empty number is missing: a class may be called NA.
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(words, "str"),
        keep_default_na=False,
        na_values={name: [""] for name in (*_GIVEN[:3], *_GIVEN[4:])},
    )


def main(argv: Sequence[str]) -> None:
    """Run the step; see the module."""
    args = _parser().parse_args(argv)
    options = read_options(Options, args.options)
    model, _, colour = read_primary(args.primary).partition("-")
    folder = args.accuracy / model / colour
    metrics = {cohort: _read(folder / cohort / "metrics.csv") for cohort in args.cohorts}
    table = pool_hospitals(
        metrics, _read(folder / DEVELOPMENT / "metrics.csv"), options.units[0], options.accuracy.confidence
    )
    write_table(args.out, table)
    log.info("%d hospitals, %d summaries", len(metrics), int(table["kind"].eq("summary").sum()))


def _parser() -> argparse.ArgumentParser:
    parser = step_parser("statistics.pooled", "Random-effects summary over external hospitals.")
    parser.add_argument(
        "--primary", type=existing_file, required=True, help="primary.json that names the index test"
    )
    parser.add_argument(
        "--accuracy",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder <model>/<colour>/<cohort>/metrics.csv lie in",
    )
    parser.add_argument("--cohorts", nargs="*", default=[], metavar="NAME", help="the external cohorts")
    parser.add_argument("--out", type=Path, required=True, help="pooled.csv to write")
    return parser
