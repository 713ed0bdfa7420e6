"""Let every fold's aggregator answer for the development slides that it was not trained on (a step).

The table is that of ``learning.predict``: each network answers for its fold's validation and test slides, and all of them
for included slides without a usable reference standard. Slides are answered for whole, whatever region of them was trained
on. A slide without a tile at this tiling is ``not_done``, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import ClassName, Section, Training, read_options
from marrowflow.files import write_table
from marrowflow.learning.device import choose_device
from marrowflow.learning.ensemble import answered, truth_of
from marrowflow.learning.fold_samples import answered_samples, refuse_other_folds
from marrowflow.predictions import ENSEMBLE, PATIENT_SOURCE
from marrowflow.slides.answers import answers, load_aggregators, marked
from marrowflow.slides.arguments import add_bags, add_trained
from marrowflow.slides.bags import Bags

UNLABELLED = "unlabelled"


class Options(Section):
    """What a prediction depends on, besides the networks and the bags."""

    training: Training
    classes: list[ClassName]


def predict_development(
    options: Options,
    models: Sequence[Path],
    folds: pd.DataFrame,
    inventories: pd.DataFrame,
    bags: Bags,
    index_test: str,
) -> pd.DataFrame:
    """Return the raw prediction table of the development cohorts; a case may recur in several folds.

    Raises
    ------
    UserError
        Folds without a network, or networks without a fold.
    """
    device = choose_device(options.training.threads)
    networks = load_aggregators(models, options.classes, bags, device)
    refuse_other_folds([network.fold for network in networks], folds)
    sources = inventories.set_index("case_id")[PATIENT_SOURCE]
    parts = []
    for network in networks:
        cases = answered_samples(folds[folds["fold"] == network.fold], None)
        cases = cases.assign(
            truth=cases["label"], **{PATIENT_SOURCE: sources.loc[cases["case_id"]].to_numpy()}
        )
        given = answers([network], bags, cases["case_id"].tolist(), device)
        parts.append(answered(cases, given, options.classes, index_test, network.fold))
    included = inventories[inventories["status"] == "included"]
    cases = included.assign(truth=truth_of(included), partition=UNLABELLED)
    cases = cases[included["reference_status"] != "ok"]
    if len(cases):
        given = answers(networks, bags, cases["case_id"].tolist(), device)
        parts.append(answered(cases, given, options.classes, index_test, ENSEMBLE))
    return marked(pd.concat(parts, ignore_index=True), bags)


def main(argv: Sequence[str]) -> None:
    """Predict the development slides out of fold."""
    parser = step_parser("slides.predict", "Predict development slides by aggregators that did not see them.")
    add_trained(parser)
    parser.add_argument(
        "--inventories", type=existing_file, nargs="+", required=True, help="inventory.parquet of each cohort"
    )
    add_bags(parser, "bags.parquet of the development cohorts")
    parser.add_argument("--index-test", required=True, help="name of the index test, <aggregator>-<tiling>")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    args = parser.parse_args(argv)
    inventories = pd.concat([pd.read_parquet(path) for path in args.inventories], ignore_index=True)
    table = predict_development(
        read_options(Options, args.options),
        args.models,
        pd.read_parquet(args.folds),
        inventories,
        Bags(args.bags, args.features),
        args.index_test,
    )
    write_table(args.out, table)
