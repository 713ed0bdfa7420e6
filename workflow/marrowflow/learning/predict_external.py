"""Let the networks answer for one external hospital; nothing is fitted here.

The mean of all folds' networks answers, uncalibrated: ``learning.combine`` applies the locked choices, so that other choices
ask no network again. Images that the intake excluded are not in the table; images whose reference standard is missing or
inconclusive are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import ClassName, Model, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.images.store import PackedPixels
from marrowflow.learning.device import choose_device
from marrowflow.learning.ensemble import answered, load_networks, mean_answers, truth_of
from marrowflow.learning.feature_cache import FeatureCache
from marrowflow.predictions import ENSEMBLE


class Options(Section):
    """What a prediction depends on, besides the networks."""

    model: Model
    classes: list[ClassName]


def predict_external(
    options: Options,
    models: Sequence[Path],
    inventory: pd.DataFrame,
    store: Sequence[Path],
    index_test: str,
    features: Path,
) -> pd.DataFrame:
    """Return the raw prediction table of one cohort, one row an included image.

    Parameters
    ----------
    options
        Classes, and the number of threads.
    models
        One folder of ``learning.train`` for each fold.
    inventory
        Of the cohort.
    store
        Its packed pixels.
    index_test
        Name of the index test.
    features
        The study's folder of kept features.

    Raises
    ------
    UserError
        No included image; networks of other classes.
    """
    cases = inventory[inventory["status"] == "included"]
    if cases.empty:
        raise UserError("the inventory has no included image: nothing to predict; see its column reason")
    cases = cases.assign(truth=truth_of(cases), partition="external")
    device = choose_device(options.model.training.threads)
    networks = load_networks(models, options.classes, device)
    given = mean_answers(
        networks, PackedPixels(store), cases["case_id"].tolist(), device, FeatureCache(features)
    )
    return answered(cases, given, options.classes, index_test, ENSEMBLE)


def main(argv: Sequence[str]) -> None:
    """Predict one external cohort."""
    parser = step_parser(
        "learning.predict_external", "Predict an external cohort by the networks of all folds."
    )
    add_folders(parser, "--models", "folder of each fold's network")
    parser.add_argument(
        "--inventory", type=existing_file, required=True, help="inventory.parquet of the cohort"
    )
    add_folders(parser, "--store", "packed pixels of the cohort")
    parser.add_argument("--index-test", required=True, help="name of the index test, <model>-<colour>")
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the study's folder of kept features"
    )
    parser.add_argument("--out", type=Path, required=True, help="table of uncalibrated answers to write")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    inventory = pd.read_parquet(args.inventory)
    raw = predict_external(options, args.models, inventory, args.store, args.index_test, args.features)
    write_table(args.out, raw)
