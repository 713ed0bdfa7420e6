"""What steps that explain cases share, of images or of slides: which cases, of which index test, and how pictures are written."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from pydantic import Field

from marrowflow.choices.primary import read_primary
from marrowflow.choices.primary_files import primary_files
from marrowflow.cli import add_files, add_folders, existing_file
from marrowflow.config import ClassName, Endpoint, Identifier, Section, Unit
from marrowflow.files import written_whole
from marrowflow.predictions import read_predictions
from marrowflow.shown_cases import Question, choose_cases

MAPS = "maps"
"""Folder of the pictures below that of the table."""
CONTROLS = 5
"""Untrained networks of a control; their weights are drawn from the seeds 0, 1, …"""


class ExplainedOptions(Section):
    """What the choice of cases depends on, besides the networks' answers."""

    classes: list[ClassName]
    endpoints: dict[Identifier, Endpoint] = Field(default_factory=dict)
    units: list[Unit]
    members: dict[Identifier, list[Identifier]] = Field(default_factory=dict)
    """Networks of each ensemble, by the ensemble's name."""
    errors_shown: int = Field(ge=1)
    """Cases in each gallery of the reports."""


def add_explained(parser: argparse.ArgumentParser) -> None:
    """Add what is explained: the primary index test, its answers, its lock, its networks; and where it goes."""
    parser.add_argument(
        "--primary", type=existing_file, required=True, metavar="FILE", help="primary.json: what is explained"
    )
    add_files(parser, "--predictions", "final prediction tables of all index tests for one set of patients")
    add_files(parser, "--locks", "threshold.json of all index tests")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet of splits.partition"
    )
    add_folders(parser, "--models", "folder of each network, <model>/<colour or tiling>/<fold>")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of cases.csv and maps/"
    )


def explained_cases(options: ExplainedOptions, args: argparse.Namespace) -> tuple[str, pd.DataFrame]:
    """Return the name of the primary index test, and its cases that reports show (see `marrowflow.shown_cases`)."""
    name = read_primary(args.primary)
    path, lock = primary_files(name, args.predictions, args.locks)
    table = read_predictions(path, options.classes, name).table
    question = Question(options.classes, options.endpoints, options.units, lock)
    return name, choose_cases(table, question, options.errors_shown).both()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W], grey, or [H, W, 3], RGB, whole or not at all, as the name's suffix says."""
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    with written_whole(path) as beside:
        # Not imwrite, which does not say why it fails.
        beside.write_bytes(cv2.imencode(path.suffix, stored)[1].tobytes())


def file_name(number: int, name: str) -> str:
    """Return what a case's picture is called: the map by its number alone."""
    return f"{number}.png" if name == "map" else f"{number}_{name}.png"
