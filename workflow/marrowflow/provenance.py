"""What a result was made from: the digest of a step's module and of all that it imports.

The rules put it into ``params``, because Snakemake sees no edit in an imported module.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from marrowflow.errors import UserError

PACKAGE = Path(__file__).parent
NAME = PACKAGE.name

# What counts as code beside Python. By name, so that a stray file of an editor or a file manager retrains nothing.
TEMPLATES = (".html", ".css", ".js")
# `config` shapes the option strings, and those are compared by themselves: a new section of the
# configuration must not retrain every network. The package's own __init__ holds its version only.
NOT_FOLLOWED = ("config.py", "__init__.py")


def code_digest(module: str, package: Path = PACKAGE) -> str:
    """Digest a step's module and everything in the package that it imports, at any depth.

    Parameters
    ----------
    module
        Name without the package, such as ``learning.train``.
    package
        Folder of the package; another one than our own in tests.

    Returns
    -------
    str
        16 hexadecimal digits; equal for equal contents, wherever the files lie and whenever they
        were touched. Templates beside a module count as its code.

    Raises
    ------
    UserError
        When there is no such module.
    """
    digest = hashlib.sha256()
    for path in sources_of(module, package):
        content = path.read_bytes().replace(b"\r\n", b"\n")
        name = path.relative_to(package).as_posix()
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def sources_of(module: str, package: Path = PACKAGE) -> list[Path]:
    """Return the files that `code_digest` reads for a module, sorted."""
    name = tuple(module.split("."))
    if _file_of(name, package) is None:
        raise UserError(f"there is no module {package.name}.{module} in {package}")
    not_followed = {package / file for file in NOT_FOLLOWED}
    found: set[Path] = set()
    seen: set[tuple[str, ...]] = {()}
    waiting = [name]
    while waiting:
        target = waiting.pop()
        if target in seen:
            continue
        seen.add(target)
        # Importing a.b.c runs a and a.b as well.
        waiting.append(target[:-1])
        path = _file_of(target, package)
        if path is None or path in not_followed:
            continue
        found.add(path)
        # Both for a module and for an __init__, relative imports start at its folder.
        folder = path.relative_to(package).parts[:-1]
        waiting.extend(_imported_names(path.read_bytes(), folder, package.name))
    for beside in {path.parent for path in found} - {package}:
        found.update(_data_in(beside))
    return sorted(found)


# Kept by content, never by name or time: Snakemake asks for the digests of forty steps, which share most of their files.
@cache
def _imported_names(source: bytes, folder: tuple[str, ...], package: str) -> tuple[tuple[str, ...], ...]:
    """Return what a file's text imports of the package, each as parts below it; a name may be no module."""
    found: dict[tuple[str, ...], None] = {}
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            found |= dict.fromkeys(name[1:] for name in names if name[0] == package)
        elif isinstance(node, ast.ImportFrom):
            base = _base_of(node, folder, package)
            if base is not None:
                found |= dict.fromkeys([base, *((*base, alias.name) for alias in node.names)])
    return tuple(found)


def _statements(tree: ast.AST) -> Iterable[ast.AST]:
    """Yield all statements at any depth; expressions, most of a tree, hold no imports and are passed over."""
    waiting = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, (ast.stmt, ast.excepthandler, ast.match_case)):
                waiting.append(node)
                yield node


def _base_of(node: ast.ImportFrom, folder: tuple[str, ...], package: str) -> tuple[str, ...] | None:
    """Return where ``from X import …`` looks, as parts below the package; None for other packages."""
    parts = tuple(node.module.split(".")) if node.module else ()
    if node.level:
        return (*folder[: len(folder) - node.level + 1], *parts)
    return parts[1:] if parts and parts[0] == package else None


def _file_of(parts: Sequence[str], package: Path) -> Path | None:
    """Return the file of a module or of a folder of modules; None where there is none of this name."""
    path = package.joinpath(*parts)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _data_in(folder: Path) -> Iterable[Path]:
    """Yield the templates below a folder of modules; those of the package's own folder belong to no module."""
    return (f for f in folder.rglob("*") if f.suffix in TEMPLATES and not f.name.startswith("."))
