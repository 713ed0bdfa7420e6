"""What every step's command line has in common: its parser, its messages, its progress bar.

Messages go to standard error, which the rules redirect into the job's log. Progress goes to
standard output, which stays on the terminal, so that a run shows how far it is.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

# A bar that is not drawn on a terminal (a batch system's log) prints a line this often, in seconds.
_LINE_EVERY = 15.0


def step_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m marrowflow <module>`` with the ``--options`` that all steps take."""
    parser = argparse.ArgumentParser(prog=f"python -m marrowflow {module}", description=description)
    parser.add_argument(
        "--options",
        default="{}",
        metavar="JSON",
        help="the sections of the study's configuration that this step uses, as one JSON object",
    )
    return parser


def start_logging() -> None:
    """Send messages of level INFO and above to standard error, one line each."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield ``items`` and show how many of ``total`` are done, in ``unit`` a second, on standard output.

    On a terminal this is a bar; elsewhere a line every few seconds and one at the end.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stdout.isatty():
        yield from tqdm(items, desc=what, total=total, unit=unit, file=sys.stdout, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= _LINE_EVERY:
            last = now
            print(_progress_line(what, done, total, unit, now - start), flush=True)
    print(_progress_line(what, done, total, unit, time.monotonic() - start), flush=True)


def _progress_line(what: str, done: int, total: int | None, unit: str, seconds: float) -> str:
    of = f"/{total}" if total is not None else ""
    rate = f", {done / seconds:.0f} {unit}/s" if seconds > 0.05 else ""
    return f"{what}: {done}{of} {unit}{rate}"


def existing_file(text: str) -> Path:
    """``type=`` for an argument that names a file which must exist."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no such file: {path}")
    return path


def add_folders(parser: argparse.ArgumentParser, flag: str, what: str) -> None:
    """Add an argument for one or more folders, each named by itself or by files in it.

    Rules know files, not folders: several files of one folder name it once.
    """
    parser.add_argument(
        flag, type=_folder_of, nargs="+", action=_UniqueFolders, required=True, metavar="DIR", help=what
    )


def _folder_of(text: str) -> Path:
    path = Path(text)
    if path.is_file():
        return path.parent
    if path.is_dir():
        return path
    raise argparse.ArgumentTypeError(f"no such file or folder: {path}")


class _UniqueFolders(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, list(dict.fromkeys(values)))
