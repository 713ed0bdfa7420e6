"""Correct the colour of one TAR archive's images, and pack them as a part of their hospital's store.

    python -m marrowflow images.shard --options '{"images": {…}, "recipe": {…}}' \\
        --measured cells_000.parquet --archive cells_000.tar --out DIR --threads N

The archive is read where it lies, member by member; nothing is unpacked. ``images.correct`` brings the parts together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import read_options
from marrowflow.images.correct import Options, pack_archive


def main(argv: Sequence[str]) -> None:
    """Write the part of one archive."""
    parser = step_parser("images.shard", "Correct the colour of one archive's images and pack them.")
    parser.add_argument(
        "--measured", type=existing_file, required=True, help="the archive's table of measures"
    )
    parser.add_argument("--archive", type=existing_file, required=True, help="an uncompressed TAR archive")
    parser.add_argument("--out", type=Path, required=True, help="folder of the part")
    parser.add_argument("--threads", type=int, default=1, help="images worked on at a time")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    pack_archive(pd.read_parquet(args.measured), args.archive, args.out, options, args.threads)
