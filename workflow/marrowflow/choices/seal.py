"""Seal what was fixed on development data: the checksum of every choice and network, and when they were sealed.

    python -m marrowflow choices.seal --root results/<study> --primary locked/primary.json --locks … --networks …
        --stores … --folds … --inventories … --notes results/<study>/state/seal --out locked/seal.json

All paths are those of development files: a fold of any other cohort than those sealed is refused, and so is the inventory
of a cohort that no fold is of, such as an external hospital's.

``seal.json`` holds

- ``files``: part, path below ``--root``, SHA-256 and size of each file. Parts: primary (which index test is reported first),
  threshold (cut-offs and calibration), network and card (one a fold), preprocessing (``store.json``: the colour recipe, its
  target's checksum, the checksum of the corrected pixels), folds, inventory;
- ``code``: digests of the steps that another hospital's images pass through;
- ``cohorts``: images and patients of each sealed inventory; ``divided``: what each protocol divided;
- ``sealed_at``: when this very content was first sealed, kept in ``--notes`` under the content's digest: to seal the same
  content again gives the same bytes;
- ``digest``: SHA-256 of the rest as canonical JSON. A team that deposits it (in a registry, with an editor) can show later
  that nothing was changed since.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.choices.primary import read_decision
from marrowflow.choices.threshold import digest_of, read_lock
from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import sha256_of, write_json
from marrowflow.first_time import first_time
from marrowflow.provenance import code_digest

log = logging.getLogger(__name__)

APPLIED = ("cohorts.intake", "images.correct", "learning.predict_external", "learning.combine")
"""The steps that another hospital's images pass through, from its manifest to its predictions."""

_AGAIN = (
    "put the sealed file back, or seal anew (snakemake --forcerun seal_development), which is then dated anew"
)


def seal(root: Path, parts: Mapping[str, Sequence[Path]], notes: Path) -> dict[str, Any]:
    """Return the content of ``seal.json``.

    Parameters
    ----------
    root
        The study's folder of results.
    parts
        The files of each part: ``primary``, ``threshold``, ``network``, ``card``, ``preprocessing``, ``folds``, ``inventory``.
    notes
        Folder in which the times of seals are kept.

    Raises
    ------
    UserError
        A file outside ``root``; a lock that was changed after it was signed; a fold of a cohort whose inventory is not
        sealed, or an inventory of a cohort that stands in no fold.
    """
    read_decision(parts["primary"][0])
    for path in parts["threshold"]:
        read_lock(path)
    cohorts = _cohorts(parts["inventory"])
    divided = {path.parent.name: _divided(path, cohorts) for path in parts["folds"]}
    _all_divided(cohorts, divided)
    content: dict[str, Any] = {
        "files": _described(root, parts),
        "code": {module: code_digest(module) for module in APPLIED},
        "cohorts": cohorts,
        "divided": divided,
    }
    sealed_at = first_time(notes / f"{digest_of(content)}.json")
    sealed = {**content, "sealed_at": sealed_at}
    return {**sealed, "digest": digest_of(sealed)}


def read_seal(path: Path) -> dict[str, Any]:
    """Read a ``seal.json``; raise `UserError` where it is none, or was changed after it was written."""
    try:
        sealed = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}; seal anew with choices.seal") from error
    if not isinstance(sealed, dict) or not {"files", "sealed_at", "digest"} <= set(sealed):
        raise UserError(f"{path} is no seal: expected an object with 'files', 'sealed_at' and 'digest'")
    if sealed["digest"] != digest_of(sealed):
        raise UserError(f"{path} was changed after it was written: its digest does not fit; {_AGAIN}")
    return sealed


def verify_seal(sealed: Mapping[str, Any], root: Path) -> int:
    """Compare every sealed file and step with what is there now, and return the number of files.

    Raises
    ------
    UserError
        With every file that is missing or changed, and every step whose code is another: expected, found, what to do.
    """
    problems = []
    for file in sealed["files"]:
        path = Path(root) / file["path"]
        found = sha256_of(path) if path.is_file() else None
        if found != file["sha256"]:
            state = f"its SHA-256 is {found}" if found else "it is missing"
            problems.append(f"{path} ({file['part']}): sealed with SHA-256 {file['sha256']}, now {state}")
    for module, expected in sealed["code"].items():
        found = code_digest(module)
        if found != expected:
            problems.append(f"code of {module}: sealed with digest {expected}, now it is {found}")
    if problems:
        raise UserError(
            enumerate_problems(
                f"what was sealed at {sealed['sealed_at']} is no longer what is there:", problems
            )
            + f"\n{_AGAIN}"
        )
    return len(sealed["files"])


def _described(root: Path, parts: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    files = [(part, path) for part, paths in parts.items() for path in paths]
    described = []
    for part, path in progress(files, "seal", unit="files"):
        if not path.resolve().is_relative_to(root.resolve()):
            raise UserError(
                f"{path} lies outside of --root {root}: a seal is of one study's results; correct the path"
            )
        name = path.resolve().relative_to(root.resolve()).as_posix()
        described.append(
            {"part": part, "path": name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
        )
    return sorted(described, key=lambda file: file["path"])


def _cohorts(inventories: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return the numbers of images and patients of each cohort."""
    found = {}
    for path in inventories:
        table = pd.read_parquet(path, columns=["cohort", "patient_id", "status"])
        included = table[table["status"] == "included"]
        found[str(table["cohort"].iloc[0])] = {
            "images": len(table),
            "included": len(included),
            "patients": int(included["patient_id"].nunique()),
        }
    return dict(sorted(found.items()))


def _divided(folds: Path, cohorts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a table of folds divides; refuse one with a cohort that is not sealed."""
    table = pd.read_parquet(folds, columns=["case_id", "patient_id", "cohort"])
    others = sorted(set(table["cohort"]) - set(cohorts))
    if others:
        raise UserError(
            f"{folds} divides images of {', '.join(others)}, whose inventory is not among --inventories "
            f"({', '.join(cohorts)}): only development cohorts are divided and sealed; divide anew with splits.partition"
        )
    return {
        "cohorts": sorted(set(table["cohort"])),
        "images": int(table["case_id"].nunique()),
        "patients": int(table["patient_id"].nunique()),
    }


def _all_divided(cohorts: Mapping[str, Any], divided: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse cohorts of which no protocol divides an image."""
    others = sorted(set(cohorts).difference(*(found["cohorts"] for found in divided.values())))
    if others:
        raise UserError(
            f"--inventories names {', '.join(others)}, in no division (--folds): only development cohorts, which are divided, "
            "are sealed; leave out the inventories of the others"
        )


def main(argv: Sequence[str]) -> None:
    """Write the seal of a study's development."""
    parser = step_parser("choices.seal", "Seal what was fixed on development data.")
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="the study's folder of results"
    )
    parser.add_argument(
        "--primary", type=existing_file, required=True, help="primary.json of choices.primary"
    )
    for flag, what in (
        ("--locks", "threshold.json of each index test"),
        ("--networks", "model.safetensors of each fold's network; its card.json lies beside it"),
        ("--stores", "store.json of each development cohort and colour recipe"),
        ("--folds", "folds.parquet of each protocol"),
        ("--inventories", "inventory.parquet of each development cohort"),
    ):
        parser.add_argument(flag, type=existing_file, nargs="+", required=True, metavar="FILE", help=what)
    parser.add_argument(
        "--notes", type=Path, required=True, metavar="DIR", help="where times are kept from run to run"
    )
    parser.add_argument("--out", type=Path, required=True, help="seal.json to write")
    args = parser.parse_args(argv)
    parts = {
        "primary": [args.primary],
        "threshold": args.locks,
        "network": args.networks,
        "card": [path.with_name("card.json") for path in args.networks],
        "preprocessing": args.stores,
        "folds": args.folds,
        "inventory": args.inventories,
    }
    sealed = seal(args.root, parts, args.notes)
    write_json(args.out, sealed)
    log.info(
        "%d files sealed at %s, digest %s", len(sealed["files"]), sealed["sealed_at"], sealed["digest"][:12]
    )
