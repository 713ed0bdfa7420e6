"""Measure the images of one TAR archive, once, for the intake of its hospital.

    python -m marrowflow cohorts.measure --manifest PATH --archive cells_000.tar --out cells_000.parquet --threads N

The archive is read where it lies, member by member; nothing is unpacked. It takes no options: other limits of the intake judge
the same measures, and no archive is fetched again for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marrowflow.cli import existing_file, step_parser
from marrowflow.cohorts.measured import measure_archive
from marrowflow.files import write_table


def main(argv: Sequence[str]) -> None:
    """Write the table of one archive."""
    parser = step_parser("cohorts.measure", "Measure the images of one archive that the manifest lists.")
    parser.add_argument("--manifest", required=True, type=existing_file, help="the cohort's manifest")
    parser.add_argument("--archive", required=True, type=existing_file, help="an uncompressed TAR archive")
    parser.add_argument("--out", required=True, type=Path, help="the table to write (.parquet)")
    parser.add_argument("--threads", type=int, default=1, help="images read at a time")
    args = parser.parse_args(argv)
    write_table(args.out, measure_archive(args.archive, args.manifest, args.threads))
