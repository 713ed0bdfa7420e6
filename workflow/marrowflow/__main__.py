"""``python -m marrowflow STEP [ARGUMENTS]``: run one step, as the rules do.

STEP is a module's name without the package (``statistics.accuracy``); its ``main`` takes the
remaining arguments. ``python -m marrowflow`` alone lists the steps.
"""

from __future__ import annotations

import ast
import gc
import importlib
import logging
import re
import sys
from pathlib import Path
from types import ModuleType

from marrowflow.errors import UserError

PACKAGE = Path(__file__).parent
ANSWERS = {"explain", "lineage", "reference"}
"""What is no step of a study, but answers on the terminal. `explain` does so where Snakemake alone is installed."""


def steps() -> dict[str, str]:
    """Return each module that has a ``main`` with the first line of its docstring, without importing any."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        summary = _summary(path)
        if summary is not None:
            found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = summary
    return found


def _summary(path: Path) -> str | None:
    """Return the first line of a module's docstring; None where the module has no ``main``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
    if path.stem == "__main__" or not has_main:
        return None
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _is_step(name: str) -> bool:
    """Return whether a step has this name, without reading all modules: every job asks."""
    path = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
    return bool(re.fullmatch(r"\w+(\.\w+)*", name)) and path.is_file() and _summary(path) is not None


def main(argv: list[str]) -> int:
    """Run the step that ``argv[0]`` names; return the exit status.

    0 done, 1 user's error, 2 usage, 130 interrupted, 143 ended by SIGTERM.
    """
    if not argv or argv[0] in {"-h", "--help"}:
        print("usage: python -m marrowflow STEP [ARGUMENTS]   (STEP --help tells its arguments)\n")
        for name, summary in steps().items():
            print(f"  {name:24} {summary}")
        return 0 if argv else 2
    if not _is_step(argv[0]):
        print(f"error: no step named {argv[0]!r}; `python -m marrowflow --help` lists them", file=sys.stderr)
        return 2
    if {"-h", "--help"} & set(argv):
        importlib.import_module(f"marrowflow.{argv[0]}").main(argv[1:])
    return _answer(argv) if argv[0] in ANSWERS else _run(argv)


def _answer(argv: list[str]) -> int:
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        importlib.import_module(f"marrowflow.{argv[0]}").main(argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(argv: list[str]) -> int:
    """Run a step, so that SIGTERM and the end of its run end it in order."""
    from marrowflow.cli import start_logging
    from marrowflow.step_log import ending_in_order, job_name

    start_logging(job_name(argv))
    with ending_in_order():
        return _logged(argv)


def _logged(argv: list[str]) -> int:
    """Run a step between the first and the last lines of its log; an error comes last, whatever it is."""
    from marrowflow.orphan import end_with_run
    from marrowflow.step_log import StepLog, Terminated

    log = StepLog(argv)
    try:
        log.begin()
        end_with_run()
        module = _imported(argv[0])
        log.loaded()
        module.main(argv[1:])
    except UserError as error:
        log.failed(f"error: {error}")
        return 1
    except KeyboardInterrupt as error:
        log.interrupted(error)
        return 143 if isinstance(error, Terminated) else 130
    except SystemExit as end:
        if end.code != 2:  # a usage that was refused has been told; nothing may come after it
            log.failed()
        raise
    except Exception:  # a bug, whose traceback is printed when it has left the program
        log.failed()
        raise
    log.done()
    return 0


def _imported(step: str) -> ModuleType:
    """Import a step's module. Garbage is not looked for meanwhile: imports make none, and it takes a fifth of their time."""
    gc.disable()
    try:
        return importlib.import_module(f"marrowflow.{step}")
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
