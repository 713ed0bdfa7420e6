"""What the log of every step tells: the command, where and with what it ran, what it read, and what it wrote.

The log is standard error, which the rules redirect into a file. Its first line can be pasted into a shell. Its last
line is ``done``, or the error, or that the step was interrupted; a log that ends otherwise is of a process that was
killed from outside. Times and places stand in logs only, because results of equal inputs are equal bytes. Of the
environment's variables none is told but the batch system's number of the job.
"""

from __future__ import annotations

import os
import platform
import resource
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

from marrowflow.cli import in_time
from marrowflow.files import in_bytes, written_files

# The packages of requirements.txt by the names that they are imported by.
PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "cv2": "opencv-python-headless",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "matplotlib": "matplotlib",
    "yaml": "pyyaml",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
    "PIL": "pillow",
    "tqdm": "tqdm",
    "pydantic": "pydantic",
    "safetensors": "safetensors",
    "simplejpeg": "simplejpeg",
    "rocrate": "rocrate",
    "threadpoolctl": "threadpoolctl",
    "openslide": "openslide-python",
    "openslide_bin": "openslide-bin",
}

_FLAGS_SHOWN, _FILES_SHOWN, _WRITTEN_SHOWN = 8, 3, 20


class Terminated(KeyboardInterrupt):
    """The system or a batch system asked the process to end (SIGTERM)."""


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM, so that a step that is asked to end tidies up as it does after ctrl-C.

    Only the first one counts: batch systems send several, and the next must not stop the tidying up.
    """

    def raise_once(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def job_name(argv: Sequence[str]) -> str:
    """Return a step's name and what it is about: the folder that it writes into, without ``results/<study>/``.

    Parameters
    ----------
    argv
        The step's name and its arguments.
    """
    places = _after_flags(argv[1:]).get("--out", [])
    if not places:
        return argv[0]
    path = Path(places[0])
    parts = (path.parent if path.suffix else path).parts
    return " ".join(filter(None, [argv[0], "/".join(parts[2:] if parts[:1] == ("results",) else parts)]))


class StepLog:
    """The first and the last lines of one step's log.

    Parameters
    ----------
    argv
        The step's name and its arguments.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self._started = time.monotonic()

    def begin(self) -> None:
        """Write the command, when and where it runs, and the files that it was given."""
        _say(shlex.join(["python", "-m", "marrowflow", *self._argv]))
        _say(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {_place()}, in {Path.cwd()}")
        for line in _given(_after_flags(self._argv[1:])):
            _say(line)

    def loaded(self) -> None:
        """Write the versions of Python and of the packages that the step's module has imported."""
        _say(f"Python {platform.python_version()}, " + ", ".join(_versions()))

    def done(self) -> None:
        """Write which files were written, the time and the memory that it took, and that it succeeded."""
        self._cost()
        _say("done")

    def failed(self, error: str = "") -> None:
        """Write the error last; without one, what there is to tell before the interpreter writes a traceback."""
        self._cost()
        if error and not _say(error):
            with suppress(OSError):  # a log on a full disk: the terminal is left
                print(error, flush=True)

    def interrupted(self, by: KeyboardInterrupt) -> None:
        """Write that the step was told to end, and by what."""
        self._cost()
        signalled = (
            "SIGTERM: by the system, a batch system or a user" if isinstance(by, Terminated) else "ctrl-C"
        )
        _say(f"interrupted ({signalled}); the same command begins anew, or goes on where it kept its state")

    def _cost(self) -> None:
        for line in _wrote(written_files()):
            _say(line)
        _say(
            f"took {in_time(time.monotonic() - self._started)}, at most {in_bytes(_peak_memory())} of memory"
        )


def _say(line: str) -> bool:
    """Write a line into the log; return whether it is there. A disk that is full of results must not cost them too."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        return False
    return True


def _after_flags(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each flag; those before the first flag under the empty name."""
    values: dict[str, list[str]] = {}
    flag = ""
    for argument in arguments:
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            values.setdefault(flag, []).extend([value] if equals else [])
        else:
            values.setdefault(flag, []).append(argument)
    return values


def _given(flags: dict[str, list[str]]) -> Iterator[str]:
    """Yield a line for each flag with files or folders that exist, up to a number of flags."""
    given = {}
    for flag, values in flags.items():
        # Options are JSON, and the place for results is not read.
        found = [] if flag in {"--options", "--out"} else [v for v in values if v and os.path.exists(v)]  # noqa: PTH110
        if found:
            given[flag] = list(dict.fromkeys(found))
    for flag in list(given)[:_FLAGS_SHOWN]:
        yield f"given {flag}: {_listed([Path(v) for v in given[flag]], _FILES_SHOWN)}"
    others = [Path(v) for flag in list(given)[_FLAGS_SHOWN:] for v in given[flag]]
    if others:
        yield f"given otherwise: {_total(others)}"


def _wrote(files: Sequence[Path]) -> Iterator[str]:
    shown = files if len(files) <= _WRITTEN_SHOWN else files[: _WRITTEN_SHOWN - 1]
    for path in shown:
        yield f"wrote {_sized(path)}"
    if len(shown) < len(files):
        yield f"wrote {_total(files[len(shown) :])} more"


def _listed(paths: Sequence[Path], most: int) -> str:
    if len(paths) <= most:
        return ", ".join(map(_sized, paths))
    return f"{_total(paths)}, the first {_sized(paths[0])}"


def _sized(path: Path) -> str:
    if path.is_dir():
        return f"{_relative(path)}/"
    return f"{_relative(path)} ({in_bytes(_size(path))})"


def _total(paths: Sequence[Path]) -> str:
    folders = sum(path.is_dir() for path in paths)
    files = len(paths) - folders
    parts = [f"{files} files of {in_bytes(sum(map(_size, paths)))}"] if files else []
    parts += [f"{folders} folders"] if folders else []
    return " and ".join(parts)


def _size(path: Path) -> int:
    with suppress(OSError):
        return 0 if path.is_dir() else path.stat().st_size
    return 0


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _place() -> str:
    """Return the machine, the batch system's job and the cores that may be used."""
    job = os.environ.get("SLURM_JOB_ID", "")
    parts = [f"on {platform.node()}", f"process {os.getpid()}"]
    parts += [f"SLURM job {job}"] if job.isdigit() else []
    return ", ".join([*parts, f"{_cores()} of {os.cpu_count()} cores usable"])


def _cores() -> int | None:
    # Only Linux knows what a process may use of the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _versions() -> Iterator[str]:
    for name, distribution in PACKAGES.items():
        if name not in sys.modules:
            continue
        # The module's own word first: conda and pip call some packages by different names, and torch tells its build.
        found = vars(sys.modules[name]).get("__version__")
        if found is None:
            try:
                found = version(distribution)
            except PackageNotFoundError:
                found = "of unknown version"
        yield f"{distribution} {found}"


def _peak_memory() -> int:
    """Return the most bytes of memory that the process held at one time."""
    with suppress(OSError, StopIteration):
        # Linux counts what the parent held before this program was started into getrusage's figure, but not here.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
