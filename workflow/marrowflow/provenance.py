"""What a result was made from: the digest of a step's module and of all that it imports.

The rules put it into ``params``, because Snakemake sees no edit in an imported module.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from marrowflow.errors import UserError

PACKAGE = Path(__file__).parent
NAME = PACKAGE.name

# What counts as code beside Python. By name, so that a stray file of an editor or a file manager retrains nothing.
TEMPLATES = (".html", ".css")
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
    parts = module.split(".")
    if _file_of(parts, package) is None:
        raise UserError(f"there is no module {package.name}.{module} in {package}")
    found: set[Path] = set()
    waiting = list(_files_on_the_way(parts, package))
    while waiting:
        path = waiting.pop()
        if path in found or path in {package / name for name in NOT_FOLLOWED}:
            continue
        found.add(path)
        found.update(_data_beside(path, package))
        waiting.extend(_imports(path, package))
    return sorted(found)


def _imports(path: Path, package: Path) -> Iterable[Path]:
    """Yield the package's files that a file imports."""
    here = path.relative_to(package).with_suffix("").parts
    folder = here[:-1]  # both for a module and for an __init__, relative imports start at its folder
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            targets = [name[1:] for name in names if name[0] == package.name]
        elif isinstance(node, ast.ImportFrom):
            base = _base_of(node, folder, package.name)
            if base is None:
                continue
            targets = [base, *([*base, alias.name] for alias in node.names)]
        else:
            continue
        for target in targets:
            yield from _files_on_the_way(target, package)


def _files_on_the_way(parts: Sequence[str], package: Path) -> Iterable[Path]:
    """Yield the files that importing ``a.b.c`` runs: those of ``a``, ``a.b`` and ``a.b.c``."""
    for depth in range(1, len(parts) + 1):
        file = _file_of(parts[:depth], package)
        if file is not None:
            yield file


def _base_of(node: ast.ImportFrom, folder: tuple[str, ...], package: str) -> list[str] | None:
    """Return where ``from X import …`` looks, as parts below the package; None for other packages."""
    parts = node.module.split(".") if node.module else []
    if node.level:
        return [*folder[: len(folder) - node.level + 1], *parts]
    return parts[1:] if parts and parts[0] == package else None


def _file_of(parts: Sequence[str], package: Path) -> Path | None:
    if not parts:
        return None
    path = package.joinpath(*parts)
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _data_beside(path: Path, package: Path) -> list[Path]:
    """Return the templates below a module's folder; none for the package's own folder."""
    if path.parent == package:
        return []
    return [f for f in path.parent.rglob("*") if f.suffix in TEMPLATES and not f.name.startswith(".")]
