"""The files of a model package, and the proof that they are those that were packed.

A package is a folder (see ``learning.package``). ``checksums.sha256`` lists the SHA-256 of every file in it but two, in the
form that ``sha256sum -c`` reads; ``package.json`` holds the checksum of that list, which stands for the whole package: its
*digest*.

Python compiles modules that it runs and keeps the result beside them, unless it is called as ``python -B``. Such a file is no
change of the package where it is just what its module, of which the checksum is known, compiles to; any other one is.
"""

from __future__ import annotations

import json
import marshal
import re
import sys
from pathlib import Path
from typing import Any

from marrowflow.cli import progress
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import sha256_of, write_json, write_text

PACKAGE, CHECKSUMS = "package.json", "checksums.sha256"
CARD, PREPROCESSING, LOCK = "card.json", "preprocessing.json", "threshold.json"
LABEL_MAP, REQUIREMENTS, ACCURACY = "label_map.csv", "requirements.txt", "accuracy.json"
CODE, NETWORKS = "code", "networks"
README, LICENCES = "README.md", "LICENCES.md"
FORMAT = 1
"""Of the package; a reader refuses any other."""

_ALL = {
    PACKAGE,
    CHECKSUMS,
    CARD,
    PREPROCESSING,
    LOCK,
    LABEL_MAP,
    REQUIREMENTS,
    ACCURACY,
    CODE,
    NETWORKS,
    README,
    LICENCES,
}
_MARK = Path(CODE, "marrowflow", "learning", "apply.py")
"""Every package has it, and hardly any other folder."""
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def sign(folder: Path, card: dict[str, Any]) -> str:
    """Write the list of checksums and ``package.json`` into a folder that is otherwise complete; return the digest."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(_names(folder))]
    write_text(folder / CHECKSUMS, "".join(lines))
    digest = sha256_of(folder / CHECKSUMS)
    write_json(folder / PACKAGE, _label(card, digest))
    return digest


def foreign(folder: Path) -> list[str]:
    """Return the names in a folder that are not of a package: all of them where the folder is none.

    A workflow that makes a package anew removes some of its files beforehand; the rest is still one.
    """
    names = {path.name for path in folder.iterdir()}
    return sorted(names - _ALL if (folder / _MARK).is_file() else names)


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
    problems: list[str] = []
    if label.get("digest") != digest:
        problems.append(
            f"{CHECKSUMS} was changed: its SHA-256 is {digest}, {PACKAGE} says {label.get('digest')}"
        )
    present = _names(folder)
    problems += [f"{name} is missing" for name in sorted(set(listed) - present)]
    added = sorted(name for name in present - set(listed) if not _compiled(folder / name))
    problems += [f"{name} was added: it is not in {CHECKSUMS}" for name in added]
    compiled = any("__pycache__" in name for name in added)
    for name in progress(sorted(present & set(listed)), "verify package", unit="files"):
        problems += _changed(folder, name, listed[name])
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
        + ("; folders __pycache__ may be deleted: run it by python -B" if compiled else "")
    )


def _label(card: dict[str, Any], digest: str) -> dict[str, Any]:
    known = ("study", "index_test", "marrowflow", "python")
    return {"format": FORMAT, "digest": digest, **{name: card[name] for name in known}}


def _names(folder: Path) -> set[str]:
    """Return all files of a package but the two that say what it holds."""
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in files} - {PACKAGE, CHECKSUMS}


def _changed(folder: Path, name: str, expected: str) -> list[str]:
    """Return what is wrong with a listed file."""
    try:
        found = sha256_of(folder / name)
    except OSError as error:
        return [f"{name} cannot be read ({error.strerror})"]
    return [] if found == expected else [f"{name} was changed: its SHA-256 is {found}, not {expected}"]


def _compiled(path: Path) -> bool:
    """Tell whether a file is what this Python keeps of the module that it belongs to."""
    module, _, rest = path.name.partition(".")
    source = path.parent.parent / f"{module}.py"
    if path.parent.name != "__pycache__" or rest != f"{sys.implementation.cache_tag}.pyc":
        return False
    try:
        # 16 bytes of version and time stand first. To load code is not to run it.
        found = marshal.loads(path.read_bytes()[16:])
        return bool(found == compile(source.read_bytes(), source, "exec", dont_inherit=True, optimize=0))
    except (OSError, ValueError, EOFError, TypeError, SyntaxError):
        return False


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
    for line in _text(folder / CHECKSUMS).splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise UserError(f"{folder / CHECKSUMS}: {line!r} is no checksum and name; get the package anew")
        listed[found[2]] = found[1]
    return listed


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}; get the package anew") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object; get the package anew")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no text that can be read ({error}); get the package anew") from error
