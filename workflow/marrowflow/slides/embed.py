"""Where the aggregator that is reported first sees each slide of a cohort: its slide vector (a step).

The vector is the network's of fold 0, in the branch of the class that it answers: a weighted mean of the slide's hidden
tiles, so that vectors of different branches lie in one space. Slides without a tile are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from marrowflow.choices.primary import read_primary
from marrowflow.cli import add_folders, existing_file, step_parser
from marrowflow.config import ClassName, Identifier, Section, read_options
from marrowflow.embedding_file import write_embedding
from marrowflow.errors import UserError
from marrowflow.learning.device import choose_device
from marrowflow.slides.answers import Trained, asked, load_aggregators
from marrowflow.slides.arguments import add_bags
from marrowflow.slides.bags import Bags
from marrowflow.splits.samples import TRAIN

FOLD = 0
"""The fold whose network is asked."""


class Options(Section):
    """What the choice of the network depends on, besides the index test that is reported first."""

    classes: list[ClassName]
    members: dict[Identifier, list[Identifier]] = {}  # noqa: RUF012 (pydantic copies it)
    """Aggregators of each ensemble, by the ensemble's name."""
    threads: dict[Identifier, int]
    """Threads of each aggregator's arithmetic; they belong to the result."""


def embed(
    options: Options,
    index_test: str,
    models: Sequence[Path],
    tables: Sequence[Path],
    folds: pd.DataFrame,
    features: Path,
    out: Path,
) -> None:
    """Write the vectors of a cohort's slides, in the order of its table of bags.

    Parameters
    ----------
    options
        See `Options`.
    index_test
        That is reported first, ``<aggregator>-<tiling>``.
    models
        Folders ``<aggregator>/<tiling>/0`` of ``slides.train``; the one that is wanted among them.
    tables
        ``<tiling>/bags.parquet`` of the cohort; the one that is wanted among them.
    folds
        Table of ``splits.partition`` that the networks were trained by.
    features
        The study's folder of kept features.
    out
        Table to write (`marrowflow.embedding_file`).

    Raises
    ------
    UserError
        No such network or table among those given; networks of other classes or another fold.
    """
    name, _, tiling = index_test.partition("-")
    name = options.members.get(name, [name])[0]
    folder = _only([f for f in models if f.parts[-3:-1] == (name, tiling)], "--models", f"{name}/{tiling}")
    table = _only([t for t in tables if t.parent.name == tiling], "--bags", tiling)
    bags = Bags([table], features)
    device = choose_device(options.threads[name])
    (network,) = load_aggregators([folder], options.classes, bags, device)
    if network.fold != FOLD:
        raise UserError(f"{folder} holds the network of fold {network.fold}; give that of fold {FOLD}")
    known = pd.read_parquet(table)
    cases = known.loc[known["tiles"] > 0, "case_id"].tolist()
    trained = folds.loc[(folds["fold"] == FOLD) & (folds["partition"] == TRAIN), "case_id"]
    write_embedding(
        out, cases, pd.Series(cases).isin(trained).to_numpy(), _vectors(network, bags, cases, device)
    )


def _vectors(
    network: Trained, bags: Bags, cases: Sequence[str], device: torch.device
) -> Iterator[np.ndarray]:
    """Yield float32 [1, H] of consecutive slides."""
    for answer in asked(network, bags, cases, device):
        branch = int(answer.logits.argmax()) if len(answer.vectors) > 1 else 0
        yield answer.vectors[branch : branch + 1].float().cpu().numpy()


def _only(found: Sequence[Path], flag: str, wanted: str) -> Path:
    if len(found) != 1:
        raise UserError(f"{flag} names {len(found)} of {wanted}, the one that is wanted: name it once")
    return found[0]


def main(argv: Sequence[str]) -> None:
    """Write the slide vectors of one cohort."""
    parser = step_parser(
        "slides.embed", "Slide vectors of a cohort in the aggregator reported first, fold 0."
    )
    parser.add_argument(
        "--primary", type=existing_file, required=True, help="primary.json of choices.primary"
    )
    add_folders(parser, "--models", "folders <aggregator>/<tiling>/0 of the networks of fold 0")
    add_bags(parser, "bags.parquet of the cohort, one a tiling")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet that the networks were trained by"
    )
    parser.add_argument("--out", type=Path, required=True, help="embedding.parquet to write")
    args = parser.parse_args(argv)
    embed(
        read_options(Options, args.options),
        read_primary(args.primary),
        args.models,
        args.bags,
        pd.read_parquet(args.folds),
        args.features,
        args.out,
    )
