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

# What the lines of progress of this process begin with.
_job = ""

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


def start_logging(job: str = "") -> None:
    """Send messages of level INFO and above to standard error, one line each.

    Parameters
    ----------
    job
        What lines of progress begin with, where several jobs write to one terminal.
    """
    global _job
    _job = job
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield ``items`` and show how many of ``total`` are done, how fast, and how long the rest takes, on standard output.

    On a terminal this is a bar; in a job, whose messages go to its log, and elsewhere a line every few seconds and one
    at the end, which begins with the job. A single item is no progress and gives no line.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    # The bars of several jobs would overwrite each other; a job is known by its redirected messages.
    if sys.stdout.isatty() and sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, unit=unit, file=sys.stdout, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= _LINE_EVERY and done != total:
            last = now
            _print_line(what, _progress(done, total, unit, now - start))
    if done > 1:
        _print_line(what, _progress(done, total, unit, time.monotonic() - start, ended=True))


def _print_line(what: str, progress: str) -> None:
    # Written at once, end of line and all, so that jobs that share a terminal do not write into each other's lines.
    sys.stdout.write(": ".join(filter(None, [_job, what, progress])) + "\n")
    sys.stdout.flush()


def _progress(done: int, total: int | None, unit: str, seconds: float, ended: bool = False) -> str:
    """Return such as ``12/40 images, 3.0 images/s, 9 s left``."""
    of = f"/{total}" if total is not None else ""
    parts = [f"{done}{of} {unit}"]
    if seconds > 0.05:
        rate = done / seconds
        digits = 0 if rate >= 9.95 else 1
        parts.append(f"{rate:.{digits}f} {unit}/s" if rate >= 0.95 else f"{in_time(1 / rate)} each")
    if ended:
        parts.append(f"done in {in_time(seconds)}")
    elif total is not None:
        parts.append(f"{in_time((total - done) * seconds / done)} left")
    return ", ".join(parts)


def in_time(seconds: float) -> str:
    """Return seconds in the units that are read at a glance, such as ``3.2 s``, ``4 min 10 s`` or ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def existing_file(text: str) -> Path:
    """``type=`` for an argument that names a file which must exist."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"no such file: {path}")
    return path


def add_files(parser: argparse.ArgumentParser, flag: str, what: str) -> None:
    """Add an argument for one or more files that must exist."""
    parser.add_argument(flag, type=existing_file, nargs="+", required=True, metavar="FILE", help=what)


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
