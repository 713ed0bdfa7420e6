"""Fix calibration and cut-offs on out-of-fold development predictions, once, and sign them.

Which predictions may be fitted on depends on how the study divides. With k folds every case is
tested once by a network that neither saw it nor chose its epoch on it: test rows. Otherwise test rows
must stay untouched, and validation rows are fitted on (their mean, where a case is validated several times).

Development probabilities are calibrated honestly: with k folds those of a fold by the temperature
fitted on the other folds. The temperature that is locked, for use on other hospitals, is fitted on all.
Cut-offs are fitted on the same calibrated probabilities that the table of development predictions shows.
Beside them stand, where ``--uncalibrated`` asks for it, the same rows with the networks' own probabilities.
The lock says on what each was fitted, or null where it was not; and which networks answer for whom: a
development case is answered by networks that did not see it, an external one by all of them.

An endpoint with a head of its own (column ``endpoint_<name>``) has a temperature of its own, and its cut-off is one of that
column; the cut-off of any other is one of the sum of its positive classes' probabilities. ``calibration`` in the lock names
the heads, and the kind of class probabilities: softmax, or one_vs_rest, whose temperature acts on the logit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from marrowflow.choices.calibration import (
    Scale,
    answered,
    fit_scale,
    heads_of,
    kind_of,
    refuse_repeats,
    rescaled,
    uncalibrated,
)
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
from marrowflow.predictions import ENDPOINT, ENSEMBLE, PROBABILITY, nearest, write_predictions

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
        A case has two rows of one fold and partition; no rows to fit on; an endpoint without positives or without
        negatives.
    """
    refuse_repeats(raw, "--raw")
    heads = _heads(raw, options)
    repeated = raw.loc[raw["partition"] == "test", "case_id"].duplicated().any()
    tested = _one_row_a_case(raw, "test", options)
    fitting = answered(tested if options.scheme == "kfold" else _one_row_a_case(raw, "validation", options))
    scale = _scale(fitting, raw, heads, options)
    by_fold: dict[int, Scale] = {}
    if options.scheme == "kfold" and scale.classes is not None:
        by_fold = {
            fold: _scale(fitting[fitting["fold"] != fold], raw, heads, options)
            for fold in sorted(tested["fold"].unique().tolist())
        }
        tested = _cross_rescaled(tested, by_fold, options.classes)
        fitting = answered(tested)
    else:
        tested, fitting = (rescaled(table, scale, options.classes) for table in (tested, fitting))
    unlabelled = rescaled(raw[raw["fold"] == ENSEMBLE], scale, options.classes)
    predictions = pd.concat([tested, unlabelled], ignore_index=True).assign(index_test=index_test)
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
        "calibration": _calibration(scale, by_fold, len(fitting), options),
        "endpoints": endpoints,
        "rule": options.threshold.model_dump(mode="json"),
        "fitted_on": _fitted_on(options.scheme) if chosen else None,
        "development_answers": MEAN_OUT_OF_FOLD if repeated else OUT_OF_FOLD,
        "external_answers": "mean of the networks of all folds",
    }
    return {**lock, "digest": digest_of(lock)}, predictions


def uncalibrated_predictions(raw: pd.DataFrame, options: Options, index_test: str) -> pd.DataFrame:
    """Return the development predictions of `lock_choices` with the networks' own probabilities; arguments as there."""
    merged = [_one_row_a_case(raw, "test", options), raw[raw["fold"] == ENSEMBLE]]
    tables = [uncalibrated(table, options.classes) for table in merged]
    return pd.concat(tables, ignore_index=True).assign(index_test=index_test)


def _heads(raw: pd.DataFrame, options: Options) -> dict[str, list[str]]:
    """Return the positive classes of the endpoints with a column of their own."""
    heads = heads_of(raw)
    unknown = [name for name in heads if name not in options.endpoints]
    if unknown:
        raise UserError(
            f"column {ENDPOINT + unknown[0]!r} belongs to no endpoint of the configuration"
            f"{nearest(unknown[0], options.endpoints)}; predict again with the present configuration"
        )
    return {name: options.endpoints[name].positive for name in heads}


def _one_row_a_case(raw: pd.DataFrame, partition: str, options: Options) -> pd.DataFrame:
    """Return the mean of each case's rows of a partition, in the order of their first; fold -1 where they are of several."""
    rows = raw[raw["partition"] == partition]
    columns = [*(PROBABILITY + name for name in options.classes), *(ENDPOINT + n for n in heads_of(raw))]
    grouped = rows.groupby("case_id", sort=False)
    merged = grouped.first()
    merged[columns] = grouped[columns].mean()
    merged["fold"] = merged["fold"].where(grouped.size() == 1, ENSEMBLE).astype(np.int64)
    return merged.reset_index()[rows.columns]


def _scale(fitting: pd.DataFrame, raw: pd.DataFrame, heads: dict[str, list[str]], options: Options) -> Scale:
    """Fit the temperatures on some rows; ``raw`` holds all, and tells of what kind the probabilities are."""
    kind = kind_of(raw, options.classes)
    if options.calibration.method == "none":
        return Scale(kind, None, dict.fromkeys(heads))
    if fitting.empty:
        raise UserError(
            f"there is no {_fitted_on(options.scheme)} row to fit the temperature on; set splits.validation above 0, "
            "or calibration: {method: none}"
        )
    return fit_scale(fitting, options.classes, heads, kind)


def _cross_rescaled(tested: pd.DataFrame, by_fold: dict[int, Scale], classes: Sequence[str]) -> pd.DataFrame:
    """Rescale each fold by what was fitted on the others, so that no row helps to choose its own temperature."""
    parts = [rescaled(tested[tested["fold"] == fold], scale, classes) for fold, scale in by_fold.items()]
    return pd.concat(parts).sort_index()


def _calibration(scale: Scale, by_fold: dict[int, Scale], n_cases: int, options: Options) -> dict[str, Any]:
    """Return what the lock says of the temperatures."""
    fitted = scale.classes is not None
    return {
        "method": options.calibration.method,
        "kind": scale.kind,
        "temperature": scale.classes,
        "by_fold": {str(fold): other.classes for fold, other in by_fold.items()},
        "heads": {
            name: {
                "temperature": temperature,
                "by_fold": {str(fold): other.heads[name] for fold, other in by_fold.items()},
            }
            for name, temperature in scale.heads.items()
        },
        "fitted_on": _fitted_on(options.scheme) if fitted else None,
        "n_cases": n_cases if fitted else 0,
    }


def _cutoffs(name: str, endpoint: Endpoint, fitting: pd.DataFrame, options: Options) -> dict[str, Any]:
    summed = [PROBABILITY + positive for positive in endpoint.positive]
    cases = pd.DataFrame(
        {
            "patient_id": fitting["patient_id"],
            "score": fitting[ENDPOINT + name] if ENDPOINT + name in fitting else fitting[summed].sum(axis=1),
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
    parser.add_argument(
        "--uncalibrated", type=Path, help="the same table before calibration, to write as well"
    )
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    raw = pd.read_parquet(args.raw)
    lock, predictions = lock_choices(raw, options, args.index_test, args.protocol)
    write_predictions(args.predictions, predictions, options.classes)
    if args.uncalibrated:
        before = uncalibrated_predictions(raw, options, args.index_test)
        write_predictions(args.uncalibrated, before, options.classes)
    write_json(args.out, lock)
    log.info("locked %s (%s): digest %s", args.index_test, args.protocol, lock["digest"])
