"""Check a manifest whose images lie in archives, before the first archive is opened or fetched.

    python -m marrowflow cohorts.check --options '{"allow_identifiers": […], "classes": […]}' \\
        --cohort NAME --manifest PATH [--label-map PATH] --out checked.json

An unknown label or a column that looks like a name is found here, and not after hours of fetching. Whether each image is in
one archive is known when all were read, and checked by the intake.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from marrowflow.cli import step_parser
from marrowflow.cohorts.image_paths import path_problems
from marrowflow.cohorts.manifest import add_manifest, read_label_map, read_manifest
from marrowflow.config import ClassName, Section, read_options
from marrowflow.files import sha256_of, write_json

log = logging.getLogger(__name__)


class Options(Section):
    """What of the configuration a manifest is checked by: with more, other limits would fetch all archives anew."""

    allow_identifiers: tuple[str, ...] = ()
    classes: list[ClassName]


def main(argv: Sequence[str]) -> None:
    """Write the number of images and the checksum of a manifest that is in order."""
    parser = step_parser("cohorts.check", "Check a manifest before any of its archives is read.")
    add_manifest(parser)
    parser.add_argument("--out", required=True, type=Path, help="the note to write (.json)")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    mapped = read_label_map(args.label_map, options.classes) if args.label_map else {}
    table = read_manifest(
        args.manifest, options.classes, mapped, options.allow_identifiers, look_up=path_problems
    )
    log.info("%s: the manifest is in order and lists %d images", args.cohort, len(table))
    write_json(args.out, {"images": len(table), "manifest_sha256": sha256_of(args.manifest)})
