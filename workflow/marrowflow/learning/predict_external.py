"""Apply the locked networks and calibration to one external hospital; nothing is fitted here.

The mean of all folds' networks answers: uncalibrated in the raw table, which ensembles of several models average, and at the
locked temperature in the final one. Images that the intake
excluded are not in the table; images whose reference standard is missing or inconclusive are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.choices.threshold import read_lock
from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import ClassName, Model, Section, read_options
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.learning.batches import PackedPixels
from marrowflow.learning.device import choose_device
from marrowflow.learning.ensemble import answered, load_networks, mean_answers, truth_of
from marrowflow.learning.feature_cache import FeatureCache
from marrowflow.learning.lock import finished
from marrowflow.predictions import ENSEMBLE, write_predictions


class Options(Section):
    """What a prediction depends on, besides the networks and the lock."""

    model: Model
    classes: list[ClassName]


def predict_external(
    options: Options,
    models: Sequence[Path],
    inventory: pd.DataFrame,
    store: Sequence[Path],
    lock: dict[str, Any],
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
    lock
        Of `read_lock`; it must be this index test's, and is applied by `finished`.
    index_test
        Name of the index test.
    features
        The study's folder of kept features.

    Raises
    ------
    UserError
        The lock is of another index test or other classes; no included image.
    """
    for name, ours in (("index_test", index_test), ("classes", list(options.classes))):
        if lock[name] != ours:
            raise UserError(
                f"--lock was fixed for {name} {lock[name]!r}, not {ours!r}; give this index test's own"
            )
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
    parser = step_parser("learning.predict_external", "Predict an external cohort by the locked networks.")
    add_folders(parser, "--models", "folder of each fold's network")
    parser.add_argument(
        "--inventory", type=existing_file, required=True, help="inventory.parquet of the cohort"
    )
    add_folders(parser, "--store", "packed pixels of the cohort")
    parser.add_argument("--lock", type=existing_file, required=True, help="threshold.json of learning.lock")
    parser.add_argument("--index-test", required=True, help="name of the index test, <model>-<colour>")
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the study's folder of kept features"
    )
    parser.add_argument("--raw", type=Path, required=True, help="table of uncalibrated answers to write")
    parser.add_argument("--out", type=Path, required=True, help="prediction table to write")
    args = parser.parse_args(argv)
    options, lock = read_options(Options, args.options), read_lock(args.lock)
    inventory = pd.read_parquet(args.inventory)
    raw = predict_external(options, args.models, inventory, args.store, lock, args.index_test, args.features)
    write_table(args.raw, raw)
    write_predictions(args.out, finished(raw, lock, options.classes), options.classes)
