"""How many patients a study needs for intervals of a wanted width, or how wide its intervals will be.

    python -m marrowflow statistics.planning --sensitivity .9 --specificity .95 --auc .92 --half-width .05 \\
        --prevalence .3 --images 10 --images-cv .7 --icc .1 .3 --out DIR

writes DIR/``planning.csv``, a row for each combination of the values given, and prints it. ``--lower-limit`` plans for the
lower limit instead; ``--patients`` turns the question round. A pilot study (``--predictions`` and ``--positive``) fills in
the images a patient and the correlations that are left out, and is described in DIR/``pilot.csv``.

A patient either has the target condition or has not, and so have all its images. Where every patient has rows of
both kinds, such as cells, plan each kind as ``--proportion`` with its own number of rows a patient.

The interval is the one that `accuracy` will print for data that turn out as expected: for proportions Wilson's on the
effective number of images with a t quantile; for an AUC the one on the logit scale with a t quantile, its variance
that of Hanley and McNeil instead of the jackknife's. Chance makes some studies' intervals wider than expected.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Accuracy, ClassName, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.predictions import read_predictions
from marrowflow.statistics.pilot import describe_pilot
from marrowflow.statistics.sample_size import (
    METRICS,
    Design,
    Target,
    expected_interval,
    patients_needed,
    textbook_size,
)

log = logging.getLogger(__name__)

COLUMNS = (
    "metric",
    "expected",
    "low",
    "high",
    "half_width",
    "method",
    "confidence",
    "target",
    "wanted",
    "prevalence",
    "images",
    "images_cv",
    "icc",
    "deff",
    "patients",
    "patients_with",
    "patients_without",
    "images_with",
    "images_without",
    "textbook_images",
    "textbook_patients",
)
"""Of ``planning.csv``: `images` are those a patient; ``_with`` and ``_without`` are numbers with and without the target
condition that are to be expected, rounded down; the textbook's images are independent ones, of those that the metric needs."""

_SHARE = "a share is given between 0 and 1: 90 % is written .9"

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "sensitivity": (lambda v: 0 <= v <= 1, _SHARE),
    "specificity": (lambda v: 0 <= v <= 1, _SHARE),
    "proportion": (lambda v: 0 <= v <= 1, _SHARE),
    "auc": (lambda v: 0 < v < 1, "an expected AUC is above 0 and below 1, such as .9"),
    "half_width": (lambda v: 0 < v < 0.5, "half the width is above 0 and below .5, such as .05"),
    "lower_limit": (lambda v: 0 < v < 1, _SHARE),
    "prevalence": (lambda v: 0 < v < 1, _SHARE),
    "images": (lambda v: 1 <= v < math.inf, "a patient has at least one image; give the mean, such as 10"),
    "images_cv": (lambda v: 0 <= v < math.inf, "a coefficient of variation is 0 or more, such as .7"),
    "icc": (lambda v: 0 <= v <= 1, "a correlation is from 0 (none) to 1 (images all alike), such as .3"),
    "patients": (lambda v: v >= 2, "an interval needs at least two patients"),
}

_COUNTS = [c for c in COLUMNS if c.startswith(("patients", "images_w", "textbook"))]

_PRINTED = [c for c in COLUMNS if c not in ("method", "confidence", "images_with", "images_without")]


class Options(Section):
    """The sections of the study that this step uses."""

    accuracy: Accuracy = Accuracy()
    classes: list[ClassName] = Field(default=[])
    """Order of the classes; empty takes the pilot table's."""


def plan(
    expected: Mapping[str, Sequence[float]],
    designs: Mapping[str, Sequence[Design]],
    wanted: Sequence[Target | int],
    confidence: float,
) -> pd.DataFrame:
    """Return a row, with `COLUMNS`, for each combination.

    Parameters
    ----------
    expected, designs
        Expected values by metric, and the designs that each metric is planned for.
    wanted
        Targets, or numbers of patients whose interval is asked for.
    confidence
        Coverage.

    Raises
    ------
    UserError
        A lower limit that is not below an expected value; patients too few for an interval.
    """
    rows = [
        _row(metric, value, design, aim, confidence)
        for metric, values in expected.items()
        for value, design, aim in product(values, designs[metric], wanted)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(_COUNTS, "Int64"))


def main(argv: Sequence[str]) -> None:
    """Run the step; see the module."""
    args = _parser().parse_args(argv)
    options = read_options(Options, args.options)
    expected = {metric: getattr(args, metric) for metric in METRICS if getattr(args, metric)}
    _check(args, expected)
    pilot = None
    if args.predictions:
        predictions = read_predictions(args.predictions, options.classes, args.index_test)
        pilot = describe_pilot(predictions, args.positive, args.index_test)
        _show("The pilot:", pilot)
    designs = {metric: _designs(args, metric, pilot) for metric in expected}
    wanted = [Target("half_width", w) for w in args.half_width]
    wanted += [Target("lower_limit", w) for w in args.lower_limit]
    table = plan(expected, designs, wanted or args.patients, options.accuracy.confidence)
    _show(f"Expected intervals, confidence {options.accuracy.confidence:g}:", table[_PRINTED])
    if pilot is not None:
        write_table(args.out / "pilot.csv", pilot)
    write_table(args.out / "planning.csv", table)


def _row(
    metric: str, expected: float, design: Design, aim: Target | int, confidence: float
) -> dict[str, Any]:
    textbook = None
    if isinstance(aim, Target):
        if aim.kind == "lower_limit" and aim.value >= expected:
            raise UserError(
                f"--lower-limit {aim.value:g} is not below the expected {metric} of {expected:g}: no number of patients "
                "is enough; choose a lower limit, or expect more"
            )
        patients = patients_needed(metric, expected, aim, design, confidence)
        textbook = textbook_size(metric, expected, aim, design, confidence)
    else:
        patients = aim
    interval = expected_interval(metric, expected, patients, design, confidence)
    if interval is None:
        raise UserError(
            f"--patients {patients} at a prevalence of {design.prevalence:g} leaves fewer than two patients to count "
            f"{metric} in: no interval; examine more patients"
        )
    n_with, n_without = design.divide(patients)
    divided = not math.isnan(design.prevalence)
    return {
        "metric": metric,
        "expected": expected,
        "low": interval.low,
        "high": interval.high,
        "half_width": (interval.high - interval.low) / 2,
        "method": interval.method,
        "confidence": confidence,
        "target": aim.kind if isinstance(aim, Target) else "",
        "wanted": aim.value if isinstance(aim, Target) else math.nan,
        "prevalence": design.prevalence,
        "images": design.images,
        "images_cv": design.images_cv,
        "icc": design.icc,
        "deff": design.deff,
        "patients": patients,
        "patients_with": n_with if divided else None,
        "patients_without": n_without if divided else None,
        "images_with": math.floor(n_with * design.images) if divided else None,
        "images_without": math.floor(n_without * design.images) if divided else None,
        "textbook_images": textbook[0] if textbook else None,
        "textbook_patients": textbook[1] if textbook else None,
    }


def _designs(args: argparse.Namespace, metric: str, pilot: pd.DataFrame | None) -> list[Design]:
    """Return the designs that a metric is planned for: as the flags say, else the pilot, else one image a patient."""
    known = pd.DataFrame() if pilot is None else pilot.set_index("metric")
    if pilot is not None and metric not in known.index:
        raise UserError(
            "the pilot has labels only, and says nothing about an AUC: leave --auc out, or add probabilities"
        )
    of_pilot = {} if pilot is None else known.loc[metric].to_dict()
    images = args.images or [of_pilot.get("images", 1.0)]
    cvs = (
        args.images_cv
        if args.images_cv is not None
        else [0.0 if args.images else of_pilot.get("images_cv", 0.0)]
    )
    prevalence = math.nan if args.prevalence is None else args.prevalence
    found = []
    for m, cv in product(images, cvs):
        iccs = args.icc or [_icc_of(of_pilot, metric, alone=m == 1 and cv == 0)]
        found += [Design(prevalence, m, cv, icc) for icc in iccs]
    return found


def _icc_of(pilot: Mapping[str, float], metric: str, alone: bool) -> float:
    icc = pilot.get("icc", math.nan)
    if math.isnan(icc):
        if alone:
            return 0.0
        why = (
            "the pilot cannot tell it (all right, all wrong, or one image a patient)"
            if pilot
            else "it is not given"
        )
        raise UserError(
            f"{metric}: with several images a patient the plan needs their intra-patient correlation, and {why}: "
            "give --icc with one value or several to compare, such as --icc 0 .1 .3 .5"
        )
    taken = min(max(icc, 0.0), 1.0)
    if taken != icc:
        log.warning("%s: the pilot's intra-patient correlation is %.3f; %g is taken", metric, icc, taken)
    return taken


def _check(args: argparse.Namespace, expected: Mapping[str, Sequence[float]]) -> None:
    """Raise `UserError` where flags are missing, contradict each other, or are out of their range."""
    if not expected:
        raise UserError(
            "nothing to plan: give --sensitivity, --specificity, --proportion or --auc, as expected"
        )
    if sum(map(bool, (args.half_width, args.lower_limit, args.patients))) != 1:
        raise UserError(
            "give one of --half-width or --lower-limit (how many patients?) and --patients (how wide an interval?)"
        )
    if args.prevalence is None and set(expected) != {"proportion"}:
        raise UserError(
            "--prevalence is needed: the share of the patients to be examined that has the target condition"
        )
    if bool(args.predictions) != bool(args.positive):
        raise UserError(
            "--predictions and --positive belong together: the pilot, and its classes with the condition"
        )
    for name, (is_valid, rule) in _RANGES.items():
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not is_valid(value):
                raise UserError(f"--{name.replace('_', '-')} {value:g}: {rule}")


def _show(heading: str, table: pd.DataFrame) -> None:
    whole = table.dropna(axis="columns", how="all")
    print(f"{heading}\n{whole.to_string(index=False, float_format='{:.4g}'.format, na_rep='')}\n")


def _parser() -> argparse.ArgumentParser:
    parser = step_parser(
        "statistics.planning", "Number of patients for intervals of a wanted width, or the reverse."
    )

    def add(flag: str, what: str, kind: type = float, **more: Any) -> None:
        parser.add_argument(
            flag, type=kind, nargs="+", default=more.get("default", []), metavar="X", help=what
        )

    add("--sensitivity", "expected sensitivity; as for all numbers but --prevalence, several make a grid")
    add("--specificity", "expected specificity")
    add("--proportion", "expected proportion of the images of all patients, such as accuracy")
    add("--auc", "expected area under the ROC curve")
    add("--half-width", "wanted half of the interval's width: how many patients?")
    add("--lower-limit", "wanted lower limit of the interval: how many patients?")
    add("--patients", "patients in all: how wide an interval?", int)
    parser.add_argument(
        "--prevalence", type=float, metavar="X", help="share of patients with the target condition"
    )
    add("--images", "mean number of images a patient; left out, the pilot's, or 1")
    add(
        "--images-cv",
        "their coefficient of variation; left out, 0, or the pilot's with its --images",
        default=None,
    )
    add("--icc", "intra-patient correlation of the outcome, 0..1; left out, the pilot's")
    parser.add_argument(
        "--predictions", type=existing_file, help="prediction table (.parquet or .csv) of a pilot study"
    )
    parser.add_argument(
        "--positive",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="the pilot's classes with the target condition",
    )
    parser.add_argument("--index-test", metavar="NAME", help="needed where the pilot's table holds several")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the tables")
    return parser
