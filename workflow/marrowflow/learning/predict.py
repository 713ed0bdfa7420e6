"""Let every fold's network answer for the development cases that it was not trained on.

Each network answers for its fold's validation and test cases; for included images without a usable
reference standard, on which none was trained, the mean of all networks answers (fold -1, partition
``unlabelled``). Probabilities are raw: calibration is fitted on this table, in ``learning.lock``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import ClassName, Model, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.learning.batches import PackedPixels
from marrowflow.learning.device import choose_device
from marrowflow.learning.ensemble import (
    Network,
    answered,
    load_networks,
    mean_probabilities,
    probabilities,
    truth_of,
)
from marrowflow.predictions import ENSEMBLE, PATIENT_SOURCE

log = logging.getLogger(__name__)

UNLABELLED = "unlabelled"


class Options(Section):
    """What a prediction depends on, besides the networks."""

    model: Model
    classes: list[ClassName]


def predict_development(
    options: Options,
    models: Sequence[Path],
    folds: pd.DataFrame,
    inventories: pd.DataFrame,
    stores: Sequence[Path],
    index_test: str,
) -> pd.DataFrame:
    """Return the raw prediction table of the development cohorts; a case may recur in several folds.

    Parameters
    ----------
    options
        Classes, and the number of threads.
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

    Raises
    ------
    UserError
        Folds without a network, or networks without a fold.
    """
    device = choose_device(options.model.training.threads)
    networks = sorted(load_networks(models, options.classes, device), key=lambda network: network.fold)
    _refuse_other_folds(networks, folds)
    pixels = PackedPixels(stores)
    sources = inventories.set_index("case_id")[PATIENT_SOURCE]
    parts = []
    for network in networks:
        rows = folds[(folds["fold"] == network.fold) & folds["partition"].isin(["validation", "test"])]
        cases = rows.assign(truth=rows["label"], **{PATIENT_SOURCE: sources.loc[rows["case_id"]].to_numpy()})
        title = f"network of fold {network.fold}"
        answers = probabilities(network, pixels, cases["case_id"].tolist(), device, title)
        parts.append(answered(cases, answers, options.classes, index_test, network.fold))
    included = inventories[inventories["status"] == "included"]
    cases = included.assign(truth=truth_of(included), partition=UNLABELLED)
    cases = cases[included["reference_status"] != "ok"]
    if len(cases):
        log.info("%d images without a usable reference standard: answered by all networks", len(cases))
        answers = mean_probabilities(networks, pixels, cases["case_id"].tolist(), device)
        parts.append(answered(cases, answers, options.classes, index_test, ENSEMBLE))
    return pd.concat(parts, ignore_index=True)


def _refuse_other_folds(networks: Sequence[Network], folds: pd.DataFrame) -> None:
    found = [network.fold for network in networks]
    wanted = sorted(folds["fold"].unique().tolist())
    if found != wanted:
        raise UserError(f"--models holds networks of the folds {found}, the table of folds has {wanted}")


def main(argv: Sequence[str]) -> None:
    """Predict the development cohorts out of fold."""
    parser = step_parser("learning.predict", "Predict development cases by networks that did not see them.")
    add_folders(parser, "--models", "folder of each fold's network")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet of splits.partition"
    )
    parser.add_argument(
        "--inventories", type=existing_file, nargs="+", required=True, help="inventory.parquet of each cohort"
    )
    add_folders(parser, "--stores", "packed pixels of the development cohorts")
    parser.add_argument("--index-test", required=True, help="name of the index test, <model>-<colour>")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    inventories = pd.concat([pd.read_parquet(path) for path in args.inventories], ignore_index=True)
    folds = pd.read_parquet(args.folds)
    table = predict_development(options, args.models, folds, inventories, args.stores, args.index_test)
    write_table(args.out, table)
