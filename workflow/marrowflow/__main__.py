"""``python -m marrowflow STEP [ARGUMENTS]``: run one step, as the rules do.

STEP is a module's name without the package (``statistics.accuracy``); its ``main`` takes the
remaining arguments. ``python -m marrowflow`` alone lists the steps.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

from marrowflow.cli import start_logging
from marrowflow.errors import UserError

PACKAGE = Path(__file__).parent


def steps() -> dict[str, str]:
    """Return each module that has a ``main`` with the first line of its docstring, without importing any."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.stem != "__main__" and any(
            isinstance(n, ast.FunctionDef) and n.name == "main" for n in tree.body
        ):
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            found[name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def main(argv: list[str]) -> int:
    """Run the step that ``argv[0]`` names; return the exit status (0 done, 1 user's error, 2 usage, 130 interrupted)."""
    if not argv or argv[0] in {"-h", "--help"}:
        print("usage: python -m marrowflow STEP [ARGUMENTS]   (STEP --help tells its arguments)\n")
        for name, summary in steps().items():
            print(f"  {name:24} {summary}")
        return 0 if argv else 2
    if argv[0] not in steps():
        print(f"error: no step named {argv[0]!r}; `python -m marrowflow --help` lists them", file=sys.stderr)
        return 2
    start_logging()
    try:
        importlib.import_module(f"marrowflow.{argv[0]}").main(argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
