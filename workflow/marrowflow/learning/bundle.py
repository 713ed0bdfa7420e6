"""The files of a model package, and the proof that they are those that were packed.

A package is a folder (see ``learning.package``). ``checksums.sha256`` lists the SHA-256 of every file in it but two, in the
form that ``sha256sum -c`` reads; ``package.json`` holds the checksum of that list, which stands for the whole package: its
*digest*. What runs from the package may compile its code, so compiled modules below ``code/`` are not looked at.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from marrowflow.cli import progress
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import sha256_of, write_json, write_text

PACKAGE, CHECKSUMS = "package.json", "checksums.sha256"
CARD, PREPROCESSING, LOCK = "card.json", "preprocessing.json", "threshold.json"
LABEL_MAP, REQUIREMENTS, ACCURACY = "label_map.csv", "requirements.txt", "accuracy.json"
CODE, NETWORKS = "code", "networks"
FORMAT = 1
"""Of the package; a reader refuses any other."""

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def sign(folder: Path, card: dict[str, Any]) -> str:
    """Write the list of checksums and ``package.json`` into a folder that is otherwise complete; return the digest."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(_names(folder))]
    write_text(folder / CHECKSUMS, "".join(lines))
    digest = sha256_of(folder / CHECKSUMS)
    write_json(folder / PACKAGE, _label(card, digest))
    return digest


def verified_card(folder: Path) -> tuple[dict[str, Any], str]:
    """Compare a package with its checksums, and return its card and its digest.

    Raises
    ------
    UserError
        No package, one of another format, or one that was changed: with the name of every file that is missing, changed
        or added.
    """
    listed = _listed(folder)
    label = _json(folder / PACKAGE)
    digest = sha256_of(folder / CHECKSUMS)
    problems = []
    if label.get("digest") != digest:
        problems.append(
            f"{CHECKSUMS} was changed: its SHA-256 is {digest}, {PACKAGE} says {label.get('digest')}"
        )
    present = _names(folder)
    problems += [f"{name} is missing" for name in sorted(set(listed) - present)]
    problems += [f"{name} was added: it is not in {CHECKSUMS}" for name in sorted(present - set(listed))]
    for name in progress(sorted(present & set(listed)), "verify package", unit="files"):
        found = sha256_of(folder / name)
        if found != listed[name]:
            problems.append(f"{name} was changed: its SHA-256 is {found}, not {listed[name]}")
    if not problems:
        card = _json(folder / CARD)
        if label == _label(card, digest):
            return card, digest
        problems.append(f"{PACKAGE} was changed: it does not say what {CARD} says")
    raise UserError(
        enumerate_problems(
            f"{folder} is not the package that was made, and nothing was done with it:", problems
        )
        + "\nget the package anew from those who made it, and compare the digest that they tell you"
    )


def _label(card: dict[str, Any], digest: str) -> dict[str, Any]:
    known = ("study", "index_test", "marrowflow", "python")
    return {"format": FORMAT, "digest": digest, **{name: card[name] for name in known}}


def _names(folder: Path) -> set[str]:
    """Return all files of a package but the two that say what it holds."""
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    compiled = {name for name in names if name.parts[0] == CODE and "__pycache__" in name.parts}
    return {name.as_posix() for name in names - compiled} - {PACKAGE, CHECKSUMS}


def _listed(folder: Path) -> dict[str, str]:
    for name in (PACKAGE, CHECKSUMS):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is no whole package: it has no {name}; name the folder that learning.package wrote"
            )
    if _json(folder / PACKAGE).get("format") != FORMAT:
        raise UserError(
            f"{folder / PACKAGE} is not of format {FORMAT}, which this program reads; run the package's own code "
            f"(PYTHONPATH={folder / CODE})"
        )
    listed = {}
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise UserError(f"{folder / CHECKSUMS}: {line!r} is no checksum and name; get the package anew")
        listed[found[2]] = found[1]
    return listed


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}; get the package anew") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object; get the package anew")
    return value
