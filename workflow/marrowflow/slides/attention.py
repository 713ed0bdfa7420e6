"""What each tile of the slides that were tested on was attended to: a table for those who know what the tiles show.

    python -m marrowflow slides.attention --options '{"classes": […], "training": {…}}' --class NAME
        --models results/<study>/training/<protocol>/<aggregator>/<tiling>/<fold> … --folds folds.parquet
        --bags bags.parquet … --features results/<study>/features --out attention.parquet

No rule runs it. Each slide is asked of the network of the fold that tested it, as in ``slides.predict``; one tested in
several folds has the mean.

================ ===================================================================================
case_id, x, y    the tile, as in tiles.parquet
share            its attention in the class's branch: the softmax over the slide's tiles
relative         share × number of the slide's tiles: 1 where all tiles are attended to alike
evidence         the class's classifier on the tile alone times its share: what it adds to the logit
================ ===================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from marrowflow.cli import step_parser
from marrowflow.config import read_options
from marrowflow.config_problems import not_among
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.learning.device import choose_device
from marrowflow.slides.answers import Trained, asked, load_aggregators
from marrowflow.slides.arguments import add_bags, add_trained
from marrowflow.slides.bags import Bags
from marrowflow.slides.predict import Options
from marrowflow.splits.samples import TEST


def attention_table(
    options: Options, name: str, models: Sequence[Path], folds: pd.DataFrame, bags: Bags
) -> pd.DataFrame:
    """Return the attention of all tiles of tested slides, in a class's branch.

    Raises
    ------
    UserError
        No such class; networks without attention, of other classes or other features.
    """
    if name not in options.classes:
        raise UserError(f"--class {not_among(name, options.classes)}")
    device = choose_device(options.training.threads)
    networks = load_aggregators(models, options.classes, bags, device)
    if networks[0].network.kind == "mean":
        raise UserError("the mean of all tiles attends to none of them: there is no table of it")
    tested = folds[folds["partition"] == TEST]
    parts = []
    for network in networks:
        cases = tested.loc[tested["fold"] == network.fold, "case_id"].tolist()
        cases = [case for case, n in zip(cases, bags.counts(cases), strict=True) if n]
        for case, scores in zip(
            cases, _scores(network, options.classes.index(name), bags, cases, device), strict=True
        ):
            tiles = bags.of(case).tiles.assign(case_id=case)
            parts.append(tiles.assign(share=scores[0], relative=scores[0] * len(tiles), evidence=scores[1]))
    table = pd.concat(parts, ignore_index=True)
    return table.groupby(["case_id", "x", "y"], sort=False, as_index=False).mean()


@torch.no_grad()
def _scores(
    trained: Trained, number: int, bags: Bags, cases: Sequence[str], device: torch.device
) -> list[tuple[np.ndarray, np.ndarray]]:
    network = trained.network
    found = []
    for answer in asked(trained, bags, cases, device):
        share = network.tile_scores(answer, number if len(answer.attention) > 1 else 0)
        said = answer.hidden @ network.classifier.weight[number]
        found.append((share.double().cpu().numpy(), (share * said).double().cpu().numpy()))
    return found


def main(argv: Sequence[str]) -> None:
    """Write the attention of all tiles of tested slides."""
    parser = step_parser("slides.attention", "What each tile of the tested slides was attended to.")
    parser.add_argument("--class", dest="name", required=True, help="whose branch")
    add_trained(parser)
    add_bags(parser, "bags.parquet of the development cohorts")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    args = parser.parse_args(argv)
    table = attention_table(
        read_options(Options, args.options),
        args.name,
        args.models,
        pd.read_parquet(args.folds),
        Bags(args.bags, args.features),
    )
    write_table(args.out, table)
