"""The description of a whole run as an RO-Crate: its files with checksums, configuration, software.

RO-Crate 1.1, https://w3id.org/ro/crate/1.1.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from rocrate.rocrate import ROCrate

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Study, read_options
from marrowflow.files import sha256_of, write_json


def describe_run(study: Study, files: Sequence[Path], root: Path, configuration: Path, out: Path) -> None:
    """Write the configuration that ran, and an RO-Crate of the run's results.

    Parameters
    ----------
    study
        The validated configuration, with its defaults.
    files
        Results to describe, all below ``root``; each gets its size, SHA-256 and media type.
    root
        The study's result folder, which becomes the crate.
    configuration
        Where the configuration is written (JSON, below ``root``); part of the crate.
    out
        The crate's ``ro-crate-metadata.json``.
    """
    write_json(configuration, study.model_dump(mode="json"))
    crate = ROCrate()
    crate.name = study.study.title
    crate.description = study.study.notice or f"Results of the marrowflow study {study.study.key}"
    for path in sorted({*files, configuration}):
        crate.add_file(
            dest_path=path.relative_to(root).as_posix(),
            properties={
                "contentSize": str(path.stat().st_size),
                "sha256": sha256_of(path),
                "encodingFormat": _MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
            },
        )
    crate.root_dataset["runtimePlatform"] = f"Python {platform.python_version()} on {platform.system()}"
    crate.root_dataset["softwareRequirements"] = sorted(
        {f"{d.metadata['Name']} {d.version}" for d in distributions() if d.metadata["Name"]}
    )
    write_json(out, crate.metadata.generate())


_MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
}


def main(argv: Sequence[str]) -> None:
    """Describe a run; ``--options`` is the whole configuration."""
    parser = step_parser("crate", "Describe a run as an RO-Crate.")
    parser.add_argument("--root", type=Path, required=True, help="the study's result folder")
    parser.add_argument(
        "--configuration", type=Path, required=True, help="where the configuration is written"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("files", type=existing_file, nargs="+")
    args = parser.parse_args(argv)
    study = read_options(Study, args.options)
    describe_run(study, args.files, args.root, args.configuration, args.out)
