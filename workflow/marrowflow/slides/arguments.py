"""Arguments that several steps of whole slides take."""

from __future__ import annotations

import argparse
from pathlib import Path

from marrowflow.cli import add_files, add_folders, existing_file


def add_cohort(parser: argparse.ArgumentParser) -> None:
    """Add one cohort: its inventory, and where its slides lie."""
    parser.add_argument(
        "--inventory", type=existing_file, required=True, help="inventory.parquet of the cohort"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its manifest")


def add_cohorts(parser: argparse.ArgumentParser) -> None:
    """Add the cohorts of one set of patients: their inventories, and where their slides lie."""
    add_files(parser, "--inventories", "inventory.parquet of these patients' cohorts")
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of their manifests, in the same order",
    )


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add where features are kept."""
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="the study's folder of kept features"
    )


def add_bags(parser: argparse.ArgumentParser, what: str) -> None:
    """Add tables of bags, and where their features are kept."""
    add_files(parser, "--bags", what)
    add_features(parser)


def add_trained(parser: argparse.ArgumentParser) -> None:
    """Add the networks of all folds, and what they were trained by."""
    add_folders(parser, "--models", "folder of each fold's network")
    parser.add_argument(
        "--folds", type=existing_file, required=True, help="folds.parquet of splits.partition"
    )


def add_state(parser: argparse.ArgumentParser) -> None:
    """Add where a job keeps what it has done."""
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="this job's own folder for going on"
    )
