"""Note when the workflow first took up an external hospital, before any of its images is read.

    python -m marrowflow cohorts.arrival --cohort NAME --manifest PATH --note results/<study>/state/arrivals/NAME.json \\
        --out arrival.json

The intake of an external hospital waits for this note, so that none of its images was read earlier than the time in it. The
time belongs to the hospital's name: other images under the same name keep the older one, which claims less. Reports
compare it with the time at which the study's choices were sealed (``choices.seal``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marrowflow.cli import existing_file, step_parser
from marrowflow.errors import UserError
from marrowflow.files import sha256_of, write_json
from marrowflow.first_time import first_time

log = logging.getLogger(__name__)


def note_arrival(cohort: str, manifest: Path, note: Path) -> dict[str, Any]:
    """Return the content of ``arrival.json``: the hospital, its manifest's checksum, and since when it is known.

    Parameters
    ----------
    cohort
        Its name in the cohort table.
    manifest
        Its manifest; only its checksum is taken.
    note
        Where the time is kept, one file a hospital; written where it is missing.

    Raises
    ------
    UserError
        A name that cannot stand in a cohort table; a note that holds no time.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", cohort):
        raise UserError(
            f"--cohort {cohort!r} may hold only letters, digits and underscores; give the name in the cohort table"
        )
    return {"cohort": cohort, "manifest_sha256": sha256_of(manifest), "noted_at": first_time(note)}


def main(argv: Sequence[str]) -> None:
    """Write ``arrival.json`` of one external hospital."""
    parser = step_parser("cohorts.arrival", "Note when an external hospital was first taken up.")
    parser.add_argument("--cohort", required=True, help="the cohort's name")
    parser.add_argument("--manifest", type=existing_file, required=True, help="its manifest (CSV or TSV)")
    parser.add_argument("--note", type=Path, required=True, help="where the time is kept from run to run")
    parser.add_argument("--out", type=Path, required=True, help="arrival.json to write")
    args = parser.parse_args(argv)
    found = note_arrival(args.cohort, args.manifest, args.note)
    write_json(args.out, found)
    log.info("%s was first taken up at %s", args.cohort, found["noted_at"])
