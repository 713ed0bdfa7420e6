"""Let the aggregators of all folds answer for one external hospital; nothing is fitted here (a step)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.learning.device import choose_device
from marrowflow.learning.ensemble import answered, truth_of
from marrowflow.predictions import ENSEMBLE
from marrowflow.slides.answers import answers, load_aggregators, marked
from marrowflow.slides.arguments import add_features
from marrowflow.slides.bags import Bags
from marrowflow.slides.predict import Options


def predict_external(
    options: Options, models: Sequence[Path], inventory: pd.DataFrame, bags: Bags, index_test: str
) -> pd.DataFrame:
    """Return the raw prediction table of one cohort, one row an included slide.

    Raises
    ------
    UserError
        No included slide; networks of other classes or other features.
    """
    cases = inventory[inventory["status"] == "included"]
    if cases.empty:
        raise UserError("the inventory has no included slide: nothing to predict; see its column reason")
    cases = cases.assign(truth=truth_of(cases), partition="external")
    device = choose_device(options.training.threads)
    networks = load_aggregators(models, options.classes, bags, device)
    given = answers(networks, bags, cases["case_id"].tolist(), device)
    return marked(answered(cases, given, options.classes, index_test, ENSEMBLE), bags)


def main(argv: Sequence[str]) -> None:
    """Predict one external cohort of slides."""
    parser = step_parser(
        "slides.predict_external", "Predict an external cohort of slides by the aggregators of all folds."
    )
    add_folders(parser, "--models", "folder of each fold's network")
    parser.add_argument(
        "--inventory", type=existing_file, required=True, help="inventory.parquet of the cohort"
    )
    parser.add_argument("--bags", type=existing_file, required=True, help="bags.parquet of the cohort")
    add_features(parser)
    parser.add_argument("--index-test", required=True, help="name of the index test, <aggregator>-<tiling>")
    parser.add_argument("--out", type=Path, required=True, help="table of uncalibrated answers to write")
    args = parser.parse_args(argv)
    table = predict_external(
        read_options(Options, args.options),
        args.models,
        pd.read_parquet(args.inventory),
        Bags([args.bags], args.features),
        args.index_test,
    )
    write_table(args.out, table)
