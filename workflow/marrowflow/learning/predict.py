"""Let every fold's model answer for the development cases that it was not trained on.

Each model answers for its fold's validation and test cases; for included images without a usable
reference standard, on which none was trained, the mean of all models answers (fold -1, partition
``unlabelled``). Probabilities are raw: calibration is fitted on this table, in ``learning.lock``.

Where the protocol as published divides augmented images, the cases are those samples: ``case_id`` is the
sample's own name, and a column ``parent`` names its image.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import Augmentation, ClassName, Model, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.images.store import PackedPixels
from marrowflow.learning.device import choose_device
from marrowflow.learning.ensemble import (
    answered,
    answers,
    load_networks,
    mean_answers,
    truth_of,
    whitening_by,
)
from marrowflow.learning.feature_cache import FeatureCache
from marrowflow.learning.fold_samples import (
    answered_samples,
    divides_samples,
    fitted_whitening,
    refuse_other_folds,
)
from marrowflow.prediction_columns import PARENT
from marrowflow.predictions import ENSEMBLE, PATIENT_SOURCE

log = logging.getLogger(__name__)

UNLABELLED = "unlabelled"


class Options(Section):
    """What a prediction depends on, besides the networks."""

    model: Model
    augmentation: Augmentation = Augmentation()
    classes: list[ClassName]


def predict_development(
    options: Options,
    models: Sequence[Path],
    folds: pd.DataFrame,
    inventories: pd.DataFrame,
    stores: Sequence[Path],
    index_test: str,
    features: Path,
    plans: Sequence[Path] = (),
) -> pd.DataFrame:
    """Return the raw prediction table of the development cohorts; a case may recur in several folds.

    Parameters
    ----------
    options
        Classes, the number of threads, and what divided samples were made by.
    models
        One folder of ``learning.train`` for each fold.
    folds
        Table of ``splits.partition``.
    inventories
        The development cohorts' inventories, one below the other.
    stores
        Their packed pixels.
    index_test
        Name of the index test.
    features
        The study's folder of kept features.
    plans
        One a fold, in the order of the folds; read where samples were divided.

    Raises
    ------
    UserError
        Folds without a network, or networks without a fold; divided samples without plans.
    """
    device = choose_device(options.model.training.threads)
    networks = sorted(load_networks(models, options.classes, device), key=lambda network: network.fold)
    refuse_other_folds([network.fold for network in networks], folds)
    pixels, cache = PackedPixels(stores), FeatureCache(features)
    sources = inventories.set_index("case_id")[PATIENT_SOURCE]
    parts = []
    for network in networks:
        rows = folds[folds["fold"] == network.fold]
        plan = _plan_of(network.fold, folds, plans)
        cases = answered_samples(rows, plan)
        images = cases[PARENT] if plan is not None else cases["case_id"]
        cases = cases.assign(truth=cases["label"], **{PATIENT_SOURCE: sources.loc[images].to_numpy()})
        if plan is None:
            given = answers(network, pixels, images.tolist(), device, cache)
        else:
            own = whitening_by(network, fitted_whitening(plan, pixels, options.augmentation))
            given = answers(own, pixels, images.tolist(), device, cache, cases)
        part = answered(cases, given, options.classes, index_test, network.fold)
        parts.append(part if plan is None else part.assign(**{PARENT: images.to_numpy()}))
    included = inventories[inventories["status"] == "included"]
    cases = included.assign(truth=truth_of(included), partition=UNLABELLED)
    cases = cases[included["reference_status"] != "ok"]
    if len(cases):
        log.info("%d images without a usable reference standard: answered by all networks", len(cases))
        given = mean_answers(networks, pixels, cases["case_id"].tolist(), device, cache)
        part = answered(cases, given, options.classes, index_test, ENSEMBLE)
        parts.append(part.assign(**{PARENT: part["case_id"]}) if divides_samples(folds) else part)
    return pd.concat(parts, ignore_index=True)


def _plan_of(fold: int, folds: pd.DataFrame, plans: Sequence[Path]) -> pd.DataFrame | None:
    """Return a fold's plan where samples were divided, else None."""
    if not divides_samples(folds):
        return None
    order = sorted(folds["fold"].unique().tolist())
    if len(plans) != len(order):
        raise UserError(
            f"this table of folds divides augmented samples: give a plan of each of its {len(order)} folds as --plans, "
            f"not {len(plans)}"
        )
    return pd.read_parquet(plans[order.index(fold)])


def main(argv: Sequence[str]) -> None:
    """Predict the development cohorts out of fold."""
    parser = step_parser("learning.predict", "Predict development cases by networks that did not see them.")
    add_folders(parser, "--models", "folder of each fold's network")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet of splits.partition"
    )
    parser.add_argument(
        "--plans",
        type=existing_file,
        nargs="*",
        default=[],
        help="plan.parquet of each fold, in their order; needed where augmented images were divided",
    )
    parser.add_argument(
        "--inventories", type=existing_file, nargs="+", required=True, help="inventory.parquet of each cohort"
    )
    add_folders(parser, "--stores", "packed pixels of the development cohorts")
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the study's folder of kept features"
    )
    parser.add_argument("--index-test", required=True, help="name of the index test, <model>-<colour>")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    inventories = pd.concat([pd.read_parquet(path) for path in args.inventories], ignore_index=True)
    folds = pd.read_parquet(args.folds)
    table = predict_development(
        options, args.models, folds, inventories, args.stores, args.index_test, args.features, args.plans
    )
    write_table(args.out, table)
