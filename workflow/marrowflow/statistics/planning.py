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
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.special import ndtri, stdtrit

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Accuracy, ClassName, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.predictions import Predictions, read_predictions
from marrowflow.statistics.bootstrap import Interval
from marrowflow.statistics.cases import Sample, countable, gather_units, select_index_test
from marrowflow.statistics.intervals import logit_limits, ratio_variance, score_limits
from marrowflow.statistics.ranking import rank

log = logging.getLogger(__name__)

PROPORTIONS = ("sensitivity", "specificity", "proportion")
"""Metrics that are planned as proportions; ``proportion`` is one of the images of all patients, such as accuracy."""

METRICS = (*PROPORTIONS, "auc")

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


@dataclass(frozen=True)
class Design:
    """Who is examined.

    Attributes
    ----------
    prevalence
        Share of patients with the target condition; NaN where only a ``proportion`` is planned.
    images, images_cv
        Mean number of images a patient, and their coefficient of variation (population standard deviation over mean).
    icc
        Intra-patient correlation, 0 (images of a patient are like those of others) to 1 (they are all alike).
    """

    prevalence: float = math.nan
    images: float = 1.0
    images_cv: float = 0.0
    icc: float = 0.0

    @property
    def deff(self) -> float:
        """The design effect; see `design_effect`."""
        return design_effect(self.images, self.images_cv, self.icc)

    def divide(self, patients: int) -> tuple[int, int]:
        """Return how many patients with and without the target condition are to be expected, rounded down."""
        if math.isnan(self.prevalence):
            return 0, 0
        # Of the decimal number that was typed: 3 of 10 patients at .3, where floats would make it 2.
        share = Fraction(str(self.prevalence))
        return math.floor(patients * share), math.floor(patients * (1 - share))


@dataclass(frozen=True)
class Target:
    """What is wanted of an interval: a ``half_width`` no larger, or a ``lower_limit`` no lower, than `value`."""

    kind: str
    value: float

    def is_met(self, interval: Interval | None) -> bool:
        """Return whether the interval is as good as wanted; a missing one is not."""
        if interval is None:
            return False
        if self.kind == "half_width":
            return (interval.high - interval.low) / 2 <= self.value
        return interval.low >= self.value


def design_effect(images: float, images_cv: float, icc: float) -> float:
    """Return by how much clusters of unequal size raise the variance of a mean: 1 + (m (1 + CV²) - 1) ICC.

    Eldridge, Ashby and Kerry 2006, Int J Epidemiol 35:1292. With ICC = 1 it is Σm²/Σm, the design effect that
    `wilson_clustered` takes at 0 % and 100 %.
    """
    return 1 + (images * (1 + images_cv**2) - 1) * icc


def auc_variance(auc: float, n_with: float, n_without: float) -> float:
    """Return the variance of an AUC before there are data (Hanley and McNeil 1982, Radiology 143:29, eq. 1 and 2).

    [A(1-A) + (n₁-1)(Q₁-A²) + (n₂-1)(Q₂-A²)] / (n₁n₂) with Q₁ = A/(2-A) and Q₂ = 2A²/(1+A): the scores of both groups
    are taken as negative exponential, which their paper found to be on the safe side of other distributions.
    """
    a, b = _auc_parts(auc)
    return (auc * (1 - auc) + (n_with - 1) * a + (n_without - 1) * b) / (n_with * n_without)


def expected_interval(
    metric: str, expected: float, patients: int, design: Design, confidence: float
) -> Interval | None:
    """Return the interval that will be printed if everything turns out as expected.

    Parameters
    ----------
    metric
        One of `METRICS`.
    expected
        Its value, 0..1.
    patients
        Patients in all, with and without the target condition.
    design, confidence
        Who is examined; coverage.

    Returns
    -------
    Interval or None
        None where fewer than two patients of a group that the metric needs are to be expected.

    Notes
    -----
    Proportions: `wilson_clustered` with n_eff = k m / deff of the k patients in the denominator and k - 1 degrees
    of freedom; at 0 % and 100 %, where it takes images of a patient to be alike, so does this.
    AUC: logit limits of `auc_variance` with n m / deff images in either group, and a t quantile with one degree of freedom
    less than the rarer group has patients, as `auc_jackknife` takes it: the correlation is that of the images'
    placements among those of the other group, and the same in both groups. None at 0 and 1.
    """
    n_with, n_without = design.divide(patients)
    if metric == "auc":
        if min(n_with, n_without) < 2:
            return None
        effective = design.images / design.deff
        variance = auc_variance(expected, n_with * effective, n_without * effective)
        quantile = stdtrit(min(n_with, n_without) - 1, (1 + confidence) / 2)
        limits = logit_limits(expected, variance, quantile)
        return None if limits is None else Interval("jackknife_logit", *limits)
    clusters = {"sensitivity": n_with, "specificity": n_without, "proportion": patients}[metric]
    if clusters < 2:
        return None
    icc = design.icc if 0 < expected < 1 else 1.0
    n_effective = clusters * design.images / design_effect(design.images, design.images_cv, icc)
    quantile = stdtrit(clusters - 1, (1 + confidence) / 2)
    return Interval("wilson_neff", *score_limits(expected, n_effective, quantile))


def patients_needed(metric: str, expected: float, target: Target, design: Design, confidence: float) -> int:
    """Return the smallest number of patients in all whose `expected_interval` meets the target.

    The limits close in on `expected` with every patient more, so that doubling and halving find the exact number.
    A lower limit must lie below `expected`, and a half-width above 0.
    """

    def is_enough(patients: int) -> bool:
        return target.is_met(expected_interval(metric, expected, patients, design, confidence))

    most = 2
    while not is_enough(most):
        most *= 2
    return bisect_left(range(most + 1), True, lo=most // 2, key=is_enough)


def textbook_size(
    metric: str, expected: float, target: Target, design: Design, confidence: float
) -> tuple[int, int] | None:
    """Return the number that the normal approximation gives, for comparison with published figures.

    Returns
    -------
    tuple or None
        Independent images of those that the metric needs (for an AUC, of both groups together), and patients in all with
        `Design.deff`; rounded up, each from the exact number. None for an expected 0 or 1, where the approximation has no width.

    Notes
    -----
    Proportions: z² p(1-p) / w², divided by the share of patients in the denominator (Buderer 1996, Acad Emerg Med
    3:895). AUC: the number with z² Var(A) = w² for `auc_variance`. w is the half-width, or the distance from
    the lower limit.
    """
    if expected in (0, 1):
        return None
    margin = target.value if target.kind == "half_width" else expected - target.value
    precision = (margin / ndtri((1 + confidence) / 2)) ** 2
    pi = design.prevalence
    if metric == "auc":
        # Var(A) = (c + n e) / (π (1-π) n²), solved for n.
        a, b = _auc_parts(expected)
        c, e, s = expected * (1 - expected) - a - b, pi * a + (1 - pi) * b, pi * (1 - pi) * precision
        images, share = (e + math.sqrt(e**2 + 4 * s * c)) / (2 * s), 1.0
    else:
        images = expected * (1 - expected) / precision
        share = {"sensitivity": pi, "specificity": 1 - pi, "proportion": 1.0}[metric]
    return math.ceil(images), math.ceil(images * design.deff / design.images / share)


def anova_icc(successes: np.ndarray, images: np.ndarray) -> float:
    """Return the intra-patient correlation of a yes/no outcome, by the analysis of variance estimator.

    Parameters
    ----------
    successes, images
        Float64 [patients]: images with the outcome, and images; patients without an image are left out.

    Returns
    -------
    float
        (MSB - MSW) / (MSB + (m₀ - 1) MSW) with m₀ = (N - Σm²/N) / (k - 1); may be negative. NaN where all outcomes are
        equal, where no patient has two images, or where there are fewer than two patients.

    Notes
    -----
    Ridout, Demétrio and Firth 1999, Biometrics 55:137, where it is among the estimators that did well for yes/no
    outcomes; m₀ for unequal m as in Donner and Koval 1980, Biometrics 36:19.
    """
    x, m = successes[images > 0], images[images > 0]
    n, k = m.sum(), len(m)
    if k < 2 or n == k:
        return math.nan
    shares, share = x / m, x.sum() / n
    between = (m * (shares - share) ** 2).sum() / (k - 1)
    within = (m * shares * (1 - shares)).sum() / (n - k)
    typical = (n - (m**2).sum() / n) / (k - 1)
    total = between + (typical - 1) * within
    return float((between - within) / total) if total > 0 else math.nan


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
            `anova_icc`; for an AUC the correlation that gives its `deff` by `design_effect`.

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


def _auc_parts(auc: float) -> tuple[float, float]:
    """Return Q₁ - A² and Q₂ - A²."""
    return auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2


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
        "icc": anova_icc(x, m),
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
