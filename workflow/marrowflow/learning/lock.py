"""Fix calibration and cut-offs on out-of-fold development predictions, once, and sign them.

Which predictions may be fitted on depends on how the study divides. With k folds every case is
tested once by a network that neither saw it nor chose its epoch on it: test rows. Otherwise test rows
must stay untouched, and validation rows are fitted on (their mean, where a case is validated several times).

Development probabilities are calibrated honestly: with k folds those of a fold by the temperature
fitted on the other folds. The temperature that is locked, for use on other hospitals, is fitted on all.
Cut-offs are fitted on the same calibrated probabilities that the table of development predictions shows.
The lock says on what each was fitted, or null where it was not; and which networks answer for whom: a
development case is answered by networks that did not see it, an external one by all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from marrowflow.choices.temperature import apply_temperature, fit_temperature
from marrowflow.choices.threshold import digest_of, fit_threshold
from marrowflow.cli import existing_file, step_parser
from marrowflow.config import (
    Calibration,
    ClassName,
    Endpoint,
    Identifier,
    Section,
    Threshold,
    Unit,
    read_options,
)
from marrowflow.errors import UserError
from marrowflow.files import write_json
from marrowflow.predictions import ENSEMBLE, PROBABILITY, write_predictions

log = logging.getLogger(__name__)

OUT_OF_FOLD = "single networks, out of fold"
MEAN_OUT_OF_FOLD = "mean of the networks of the folds that tested the case, out of fold"
"""Who answered for a development case: where no case was tested in several folds, and where one was."""


class Options(Section):
    """What the locked choices depend on."""

    classes: list[ClassName]
    endpoints: dict[Identifier, Endpoint]
    units: list[Unit]
    threshold: Threshold = Threshold()
    calibration: Calibration = Calibration()
    scheme: Literal["kfold", "monte_carlo", "holdout", "column"]


def lock_choices(
    raw: pd.DataFrame, options: Options, index_test: str, protocol: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit the temperature and the cut-offs, and calibrate the development predictions.

    Parameters
    ----------
    raw
        Table of ``learning.predict``.
    options
        Classes, endpoints, rules.
    index_test, protocol
        Names, written down.

    Returns
    -------
    lock
        Content of ``threshold.json``; ``digest`` signs the rest.
    predictions
        The development cohorts' final prediction table: one row a tested case (the mean over repeats),
        then the cases without a reference standard.

    Raises
    ------
    UserError
        No rows to fit on, or an endpoint without positives or without negatives.
    """
    columns = [PROBABILITY + name for name in options.classes]
    test_rows = raw[raw["partition"] == "test"]
    tested = _one_row_a_case(test_rows, columns)
    fitting = (
        tested
        if options.scheme == "kfold"
        else _one_row_a_case(raw[raw["partition"] == "validation"], columns)
    )
    temperature = _temperature(fitting, options, columns)
    by_fold: dict[int, float] = {}
    if options.scheme == "kfold" and temperature is not None:
        by_fold = _other_folds_temperatures(tested, options, columns)
        tested = fitting = _cross_calibrated(tested, by_fold, columns)
    else:
        tested, fitting = (_calibrated(t, columns, temperature) for t in (tested, fitting))
    unlabelled = _calibrated(raw[raw["fold"] == ENSEMBLE], columns, temperature)
    predictions = pd.concat([tested, unlabelled], ignore_index=True).assign(index_test=index_test)
    best = predictions[columns].to_numpy(np.float64).argmax(axis=1)
    predictions["predicted"] = np.asarray(options.classes, dtype=object)[best]
    endpoints = {
        name: _cutoffs(name, endpoint, fitting, options) for name, endpoint in options.endpoints.items()
    }
    chosen = options.threshold.rule != "fixed" and any(
        found[unit] is not None for found in endpoints.values() for unit in options.units
    )
    lock: dict[str, Any] = {
        "index_test": index_test,
        "protocol": protocol,
        "classes": options.classes,
        "calibration": {
            "method": options.calibration.method,
            "temperature": temperature,
            "by_fold": {str(fold): fitted for fold, fitted in by_fold.items()},
            "fitted_on": None if temperature is None else _fitted_on(options.scheme),
            "n_cases": 0 if temperature is None else len(fitting),
        },
        "endpoints": endpoints,
        "rule": options.threshold.model_dump(mode="json"),
        "fitted_on": _fitted_on(options.scheme) if chosen else None,
        "development_answers": MEAN_OUT_OF_FOLD if test_rows["case_id"].duplicated().any() else OUT_OF_FOLD,
        "external_answers": "mean of the networks of all folds",
    }
    return {**lock, "digest": digest_of(lock)}, predictions


def calibrated(probabilities: np.ndarray, temperature: float | None) -> np.ndarray:
    """Return the probabilities at a temperature; None, where none was fitted, leaves them."""
    return probabilities if temperature is None else apply_temperature(probabilities, temperature)


def _one_row_a_case(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return the mean of each case's rows, in the order of their first; fold -1 where there were several."""
    grouped = rows.groupby("case_id", sort=False)
    merged = grouped.first()
    merged[columns] = grouped[columns].mean()
    merged["fold"] = merged["fold"].where(grouped.size() == 1, ENSEMBLE).astype(np.int64)
    return merged.reset_index()[rows.columns]


def _temperature(fitting: pd.DataFrame, options: Options, columns: list[str]) -> float | None:
    if options.calibration.method == "none":
        return None
    if fitting.empty:
        raise UserError(
            f"there is no {_fitted_on(options.scheme)} row to fit the temperature on; set splits.validation above 0, "
            "or calibration: {method: none}"
        )
    truth = fitting["truth"].map({name: i for i, name in enumerate(options.classes)})
    return fit_temperature(fitting[columns].to_numpy(np.float64), truth.to_numpy(np.int64))


def _calibrated(table: pd.DataFrame, columns: list[str], temperature: float | None) -> pd.DataFrame:
    if table.empty:
        return table
    table = table.copy()
    table[columns] = calibrated(table[columns].to_numpy(np.float64), temperature)
    return table


def _other_folds_temperatures(tested: pd.DataFrame, options: Options, columns: list[str]) -> dict[int, float]:
    """Fit each fold's temperature on the other folds, so that no row helps to choose its own."""
    found = {}
    for fold in sorted(tested["fold"].unique().tolist()):
        temperature = _temperature(tested[tested["fold"] != fold], options, columns)
        assert temperature is not None  # the caller asks only where one is fitted
        found[fold] = temperature
    return found


def _cross_calibrated(
    tested: pd.DataFrame, temperatures: dict[int, float], columns: list[str]
) -> pd.DataFrame:
    parts = [
        _calibrated(tested[tested["fold"] == fold], columns, fitted) for fold, fitted in temperatures.items()
    ]
    return pd.concat(parts).sort_index()


def _cutoffs(name: str, endpoint: Endpoint, fitting: pd.DataFrame, options: Options) -> dict[str, Any]:
    columns = [PROBABILITY + positive for positive in endpoint.positive]
    cases = pd.DataFrame(
        {
            "patient_id": fitting["patient_id"],
            "score": fitting[columns].sum(axis=1),
            "positive": fitting["truth"].isin(endpoint.positive),
        }
    )
    found: dict[str, Any] = {"positive": endpoint.positive}
    for unit in options.units:
        found[unit] = _cutoff(name, unit, cases, options)
    return found


def _cutoff(name: str, unit: Unit, cases: pd.DataFrame, options: Options) -> dict[str, Any] | None:
    """Fit one cut-off and say how it does where it was fitted; None where patients have no single truth."""
    if unit == "patient":
        patients = cases.groupby("patient_id")
        divided = int((patients["positive"].nunique() > 1).sum())
        if divided:
            log.warning(
                "endpoint %s: %d patients have images of both kinds, so there is no cut-off for patients",
                name,
                divided,
            )
            return None
        cases = patients.agg(score=("score", "mean"), positive=("positive", "first"))
    scores, positive = cases["score"].to_numpy(np.float64), cases["positive"].to_numpy(bool)
    if options.threshold.rule != "fixed" and (positive.all() or not positive.any()):
        raise UserError(
            f"endpoint {name}: its cut-off for each {unit} cannot be chosen on {int(positive.sum())} positives and "
            f"{int((~positive).sum())} negatives ({_fitted_on(options.scheme)}); both are needed. Check the endpoint's "
            "positive classes, add cases, or set threshold: {rule: fixed, value: …}"
        )
    threshold = fit_threshold(scores, positive, options.threshold)
    called = scores >= threshold
    return {
        "threshold": threshold,
        "sensitivity": float(called[positive].mean()) if positive.any() else None,
        "specificity": float((~called[~positive]).mean()) if not positive.all() else None,
        "n": len(scores),
        "n_positive": int(positive.sum()),
    }


def _fitted_on(scheme: str) -> str:
    return "out-of-fold test predictions" if scheme == "kfold" else "validation predictions"


def main(argv: Sequence[str]) -> None:
    """Lock the choices of one index test, and write its development predictions."""
    parser = step_parser("learning.lock", "Fix calibration and cut-offs on development predictions.")
    parser.add_argument("--raw", type=existing_file, required=True, help="table of learning.predict")
    parser.add_argument("--index-test", required=True, help="name of the index test, <model>-<colour>")
    parser.add_argument("--protocol", choices=["sound", "as_published"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="threshold.json to write")
    parser.add_argument(
        "--predictions", type=Path, required=True, help="development prediction table to write"
    )
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    lock, predictions = lock_choices(pd.read_parquet(args.raw), options, args.index_test, args.protocol)
    write_predictions(args.predictions, predictions, options.classes)
    write_json(args.out, lock)
    log.info("locked %s (%s): digest %s", args.index_test, args.protocol, lock["digest"])
