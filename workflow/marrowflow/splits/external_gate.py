"""The gate before an external validation: no image of the new hospital was seen in development.

An external image that is a copy of a development image, byte for byte or as a confirmed near duplicate,
makes the validation less than external. The run stops and names both; the user says in the manifest
that the image is not eligible, so that it is counted as an exclusion in the flow diagram.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.cohorts.duplicates import duplicate_pairs
from marrowflow.config import Section, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_json

log = logging.getLogger(__name__)

_WORDS = {"checksum": "the same file as", "near": "a near duplicate of"}


class Options(Section):
    """What the gate depends on."""

    distance: int
    """Of near duplicates, in bits: the study's intake.near_duplicate_distance."""


def check_external(development: pd.DataFrame, external: pd.DataFrame, distance: int) -> dict[str, Any]:
    """Return the contents of ``gate.json``: the numbers of images compared.

    Parameters
    ----------
    development, external
        Inventories; only included rows are compared, those without a reference standard too.
    distance
        Largest Hamming distance of near duplicates, bits.

    Raises
    ------
    UserError
        For every external image that duplicates one of development.
    """
    seen, new = (table[table["status"] == "included"] for table in (development, external))
    pairs = duplicate_pairs(seen, new, distance)
    if len(pairs):
        problems = [f"{pair.right} is {_WORDS[str(pair.kind)]} {pair.left}" for pair in pairs.itertuples()]
        raise UserError(
            enumerate_problems("external images that stand in a development cohort:", problems)
            + "\nwrite `duplicate of <the development image>` into the column eligible of their manifest: they are "
            "then left out and counted as exclusions"
        )
    return {"n_development": len(seen), "n_external": len(new), "distance": distance, "duplicates": 0}


def main(argv: Sequence[str]) -> None:
    """Compare one external cohort with all of development; write ``gate.json``, or stop."""
    parser = step_parser("splits.external_gate", "Stop if an external image was seen in development.")
    parser.add_argument("--development", type=existing_file, nargs="+", required=True, help="inventories")
    parser.add_argument(
        "--external", type=existing_file, required=True, help="inventory of one external cohort"
    )
    parser.add_argument("--out", type=Path, required=True, help="gate.json")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    development = pd.concat([pd.read_parquet(path) for path in args.development], ignore_index=True)
    gate = check_external(development, pd.read_parquet(args.external), options.distance)
    log.info("%(n_external)d external images, none among %(n_development)d of development", gate)
    write_json(args.out, gate)
