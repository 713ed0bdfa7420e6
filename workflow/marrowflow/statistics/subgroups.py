"""Accuracy of the primary index test in subgroups of one set of patients.

    python -m marrowflow statistics.subgroups --options '{"subgroups": {…}, …}' --predictions P1 [P2 …] --lock L1 [L2 …]
        --primary primary.json --inventories I1 [I2 …] --development D1 [D2 …] --out DIR

writes ``DIR/subgroups.csv`` with `COLUMNS`: all patients together, then each group of each variable, in the primary unit.
Variables are the manifest columns of ``subgroups.columns``, ``age`` in bands, and ``focus`` in thirds.

A group is a property of the patient: the first value that an included image of hers has. Where her images have several
she is in the group `CONTRADICTORY`, where they have none in `MISSING`; both are counted like any other. A patient's focus is the
mean over her images. The limits of its thirds come from the development patients (``--development``) and are the same for
every hospital. A column that a hospital does not have, or never fills in, is left out there.

Estimates and intervals are those of ``metrics.csv``. None is given of a group with fewer than ``subgroups.min_patients``
patients that could be counted, and where all of them have the condition, or none, only sensitivity, or specificity: the other
metrics then say nothing of the index test. ``suppressed`` says why an estimate, or its interval, is missing.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from marrowflow.choices.primary import read_primary
from marrowflow.choices.primary_files import primary_files
from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.config import Accuracy, Subgroups, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.predictions import Predictions, read_predictions
from marrowflow.statistics import endpoints as asked
from marrowflow.statistics.cases import Units, gather_units
from marrowflow.statistics.endpoints import Endpoints, answers_of, choose_endpoints, evaluate, warn_of_table
from marrowflow.statistics.metrics import MACRO
from marrowflow.statistics.pairing import take
from marrowflow.statistics.rows import Place, metric_rows

log = logging.getLogger(__name__)

ALL = "all"
"""The variable whose only group is everybody."""
AGE, FOCUS = "age", "focus"
MISSING, CONTRADICTORY = "missing", "contradictory"

COLUMNS = (
    "variable",
    "group",
    "endpoint",
    "metric",
    "class",
    "unit",
    "estimate",
    "low",
    "high",
    "method",
    "n_cases",
    "n_patients",
    "n_present",
    "n_absent",
    "numerator",
    "denominator",
    "suppressed",
)
"""``n_present`` and ``n_absent`` are units with and without the condition of a yes/no endpoint."""

YES_NO = tuple((metric, "") for metric in ("auc", "sensitivity", "specificity", "ppv", "npv", "accuracy"))
CLASSES = (("accuracy", ""), ("auc", MACRO))
"""(metric, class) of the rows of a yes/no endpoint and of the classification."""

_PATIENT = ["cohort", "patient_id"]
_TOO_FEW = "no interval from fewer than two patients"
_WHOLE = ("n_cases", "n_patients", "n_present", "n_absent", "numerator", "denominator")


class Options(asked.Options):
    """The sections of the study that this step uses."""

    subgroups: Subgroups = Subgroups()


@dataclass(frozen=True)
class Grouping:
    """Who is in which group.

    Attributes
    ----------
    patients
        One row a patient with an included image: ``cohort``, ``patient_id``, and a column of groups for each variable.
    groups
        The groups of each variable in their order, those without a patient too where limits define them.
    """

    patients: pd.DataFrame
    groups: dict[str, list[str]]


def focus_limits(development: pd.DataFrame) -> tuple[float, float] | None:
    """Return what divides the development patients in thirds by their images' mean focus; None without any focus."""
    means = _mean_focus(_included(development)).dropna()
    if means.empty:
        return None
    # Rounded to what is printed, so that a reader with the numbers finds the same groups.
    low, high = (float(f"{limit:.3g}") for limit in np.quantile(means, [1 / 3, 2 / 3]))
    return low, high


def group_patients(
    inventory: pd.DataFrame, settings: Subgroups, limits: tuple[float, float] | None
) -> Grouping:
    """Put the patients of an inventory into the groups of each variable.

    Parameters
    ----------
    inventory
        Rows of one or several cohorts.
    settings
        Columns, age bands, and whether quality makes groups.
    limits
        Of `focus_limits`; None makes no groups by focus.
    """
    included = _included(inventory)
    patients = included[_PATIENT].drop_duplicates().sort_values(_PATIENT, ignore_index=True)
    keys = pd.MultiIndex.from_frame(patients)
    found: dict[str, pd.Series] = {}
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(settings.columns):
        if name in included and not (name == AGE and settings.age_bands):
            texts = included[name].map(_text)
            found[name], groups[name] = _of_patients(texts, included), sorted(set(texts) - {""}, key=_natural)
    if settings.age_bands and AGE in included:
        ages = pd.to_numeric(included[AGE], errors="coerce")
        groups[AGE] = _band_names(settings.age_bands)
        found[AGE] = _of_patients(_cut(ages, settings.age_bands, groups[AGE]), included)
    if settings.quality and limits is not None:
        groups[FOCUS] = _third_names(limits)
        found[FOCUS] = _cut(_mean_focus(included), limits, groups[FOCUS]).replace("", MISSING)
    for name, values in found.items():
        of_patients = values.reindex(keys).fillna(MISSING).to_numpy(object)
        if (of_patients == MISSING).all():
            del groups[name]
            continue
        patients[name] = of_patients
        groups[name] += [g for g in (CONTRADICTORY, MISSING) if g in of_patients and g not in groups[name]]
    return Grouping(patients, {name: groups[name] for name in found if name in groups})


def measure_subgroups(
    predictions: Predictions,
    lock: dict[str, Any],
    endpoints: Endpoints,
    grouping: Grouping,
    options: Options,
) -> pd.DataFrame:
    """Return the rows of ``subgroups.csv``.

    Parameters
    ----------
    predictions
        The primary index test's table.
    lock
        Its own; the cut-offs decide, as everywhere else.
    endpoints
        Of `choose_endpoints`.
    grouping
        Of the same patients.
    options
        The primary unit is the first of ``units``.

    Raises
    ------
    UserError
        A patient of the predictions is in no inventory; a lock that does not fit.
    """
    unit = options.units[0]
    warn_of_table(predictions, predictions.table, endpoints, lock, Place("", unit, []))
    units = gather_units(predictions.table, predictions.classes, unit)
    groups = _groups_of_units(units, grouping)
    parts = []
    for name, positive in endpoints.items():
        answers = answers_of(units, name, positive, lock)
        for variable, group, inside in progress(groups, f"subgroups {name}", unit="group"):
            rows = _group_rows(
                take(units, inside),
                answers[inside],
                positive,
                predictions.one_vs_rest,
                Place(name, unit, []),
                options,
            )
            parts += [{"variable": variable, "group": group, **row} for row in rows]
    return pd.DataFrame(parts, columns=list(COLUMNS)).astype(dict.fromkeys(_WHOLE, "Int64"))


def _groups_of_units(units: Units, grouping: Grouping) -> list[tuple[str, str, np.ndarray]]:
    """Return variable, group and which units are in it, bool [units]; all of them first."""
    known = grouping.patients.set_index(_PATIENT)
    rows = known.index.get_indexer(pd.MultiIndex.from_frame(units.table[["cohort", "patient_id"]]))
    if (rows < 0).any():
        lost = units.table[rows < 0].iloc[0]
        raise UserError(
            f"patient {lost['patient_id']!r} of cohort {lost['cohort']!r} has predictions and no included image in "
            "--inventories: give the inventories of the cohorts that were predicted"
        )
    found = [(ALL, "all patients", np.ones(len(rows), dtype=bool))]
    for variable, names in grouping.groups.items():
        of_units = known[variable].to_numpy(object)[rows]
        found += [(variable, name, of_units == name) for name in names]
    return found


def _group_rows(
    units: Units,
    answers: np.ndarray,
    positive: Sequence[str] | None,
    one_vs_rest: bool,
    place: Place,
    options: Options,
) -> Iterator[dict[str, Any]]:
    """Yield one row a metric of one group and endpoint."""
    counted = units.table[units.countable]
    truths = set(counted["truth"])
    counts = _counts(counted, positive)
    few = ""
    if counts["n_patients"] < options.subgroups.min_patients:
        n = counts["n_patients"]
        few = f"{n} patient{'' if n == 1 else 's'}, fewer than {options.subgroups.min_patients}"
    measured = {} if few else _measured(units, answers, positive, one_vs_rest, place, options.accuracy)
    for metric, name in CLASSES if positive is None else YES_NO:
        reason = few or _says_nothing(metric, truths, positive, units)
        row = measured.get((metric, name))
        yield {
            "endpoint": place.endpoint,
            "metric": metric,
            "class": name,
            "unit": place.unit,
            **counts,
            **({"method": "none"} if reason or row is None else row),
            "suppressed": reason
            or ("not measured: the table has no probabilities" if row is None else row["suppressed"]),
        }


def _measured(
    units: Units,
    answers: np.ndarray,
    positive: Sequence[str] | None,
    one_vs_rest: bool,
    place: Place,
    settings: Accuracy,
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the printed row of each metric and class, as the accuracy step gives it, without resamples."""
    evaluation = evaluate(units, answers, positive, one_vs_rest, place)
    table = metric_rows(evaluation, {}, place, settings)
    wanted = ["estimate", "low", "high", "method", "numerator", "denominator"]
    reasons: dict[tuple[str, str], str] = {}
    for warning in place.warnings:
        reasons.setdefault((warning["metric"], warning["class"]), warning["warning"])
    found = {}
    for row in table[table["primary"]].to_dict("records"):
        key = (str(row["metric"]), str(row["class"]))
        lacking = np.isnan(row["estimate"]) or np.isnan(row["low"])
        found[key] = {
            **{column: row[column] for column in wanted},
            "suppressed": reasons.get(key, _TOO_FEW) if lacking else "",
        }
    return found


def _says_nothing(metric: str, truths: set[str], positive: Sequence[str] | None, units: Units) -> str:
    """Say why a metric says nothing of the index test in a group with these truths, or return an empty string."""
    noun = "patient" if units.unit == "patient" else "image"
    if positive is None:
        lacking = [name for name in units.classes if name not in truths]
        if len(truths) == 1:
            return f"one class only: {next(iter(truths))}"
        return f"no {noun} of {', '.join(lacking)}" if metric == "auc" and lacking else ""
    present, absent = bool(truths & set(positive)), bool(truths - set(positive))
    if present == absent or metric == ("sensitivity" if present else "specificity"):
        return ""
    return f"no {noun} {'without' if present else 'with'} the condition"


def _counts(counted: pd.DataFrame, positive: Sequence[str] | None) -> dict[str, Any]:
    """Return how many patients, cases and, of a yes/no endpoint, units with and without the condition were counted."""
    found: dict[str, Any] = {
        "n_patients": len(counted[_PATIENT].drop_duplicates()),
        "n_cases": int(counted["cases"].sum()),
    }
    if positive is not None:
        present = int(counted["truth"].isin(positive).sum())
        found |= {"n_present": present, "n_absent": len(counted) - present}
    return found


def _included(inventory: pd.DataFrame) -> pd.DataFrame:
    return inventory[inventory["status"].eq("included")]


def _mean_focus(included: pd.DataFrame) -> pd.Series:
    return included.groupby(_PATIENT)["focus"].mean()


def _of_patients(values: pd.Series, rows: pd.DataFrame) -> pd.Series:
    """Return each patient's value of texts by image, where "" is none; patients without any are left out."""
    known = values.ne("")
    grouped = values[known].groupby([rows.loc[known, name] for name in _PATIENT])
    return grouped.first().mask(grouped.nunique().gt(1), CONTRADICTORY)


def _cut(values: pd.Series, limits: Sequence[float], names: Sequence[str]) -> pd.Series:
    """Name the part that each number is in; each part begins with its limit, and NaN is in none ("")."""
    parts = np.asarray([*names, ""], dtype=object)[np.digitize(values.fillna(0), limits)]
    return pd.Series(np.where(values.isna(), "", parts), index=values.index, dtype=object)


def _band_names(bands: Sequence[float]) -> list[str]:
    between = [f"{low:g} to under {high:g}" for low, high in pairwise(bands)]
    return [f"under {bands[0]:g}", *between, f"{bands[-1]:g} and over"]


def _third_names(limits: tuple[float, float]) -> list[str]:
    low, high = limits
    return [
        f"lowest third (under {low:.3g})",
        f"middle third ({low:.3g} to under {high:.3g})",
        f"highest third ({high:.3g} and over)",
    ]


def _text(value: Any) -> str:
    """Return a manifest's value as it was written; "" for none."""
    if pd.isna(value):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).strip()


def _natural(text: str) -> tuple[float, str]:
    """Sort numbers by their size, before words."""
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def main(argv: Sequence[str]) -> None:
    """Run the step; see the module."""
    args = _parser().parse_args(argv)
    options = read_options(Options, args.options)
    name = read_primary(args.primary)
    table, lock = primary_files(name, args.predictions, args.lock)
    predictions = read_predictions(table, options.classes, name)
    endpoints = choose_endpoints(options, predictions.classes, [])
    grouping = group_patients(
        _joined(args.inventories), options.subgroups, focus_limits(_joined(args.development))
    )
    # Two threads on a busy machine make products of this size many times slower than one.
    with threadpool_limits(limits=1):
        measured = measure_subgroups(predictions, lock, endpoints, grouping, options)
    write_table(args.out / "subgroups.csv", measured)
    log.info("%s: %s", name, ", ".join(grouping.groups) or "no variable makes groups")


def _joined(paths: Sequence[Path]) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def _parser() -> argparse.ArgumentParser:
    parser = step_parser(
        "statistics.subgroups", "Accuracy of the primary index test in subgroups of patients."
    )
    files: Mapping[str, str] = {
        "--predictions": "final prediction tables of one set of patients, one an index test",
        "--lock": "threshold.json of each index test",
        "--inventories": "inventories of the same patients",
        "--development": "inventories of the development cohorts, whose focus sets the limits",
    }
    for flag, what in files.items():
        parser.add_argument(flag, type=existing_file, nargs="+", required=True, metavar="FILE", help=what)
    parser.add_argument(
        "--primary", type=existing_file, required=True, help="primary.json that names the index test"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the table")
    return parser
