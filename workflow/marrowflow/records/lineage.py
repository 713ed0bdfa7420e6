"""The lineage of a study's files: each with its checksum and the job that made it, down to the files that nobody made.

A file's name here is its path below the study's folder of results, or, of what was read from elsewhere, below the
project, or its URL; percent-encoded, so that it can stand in a link (``lineage.html#accuracy/sound/…/metrics.csv``) as it is.
Where a file outside the project lies is nobody's business: it goes by its checksum and its last name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path, PureWindowsPath
from urllib.parse import quote

import pandas as pd

from marrowflow.cli import progress
from marrowflow.cohorts.places import is_remote
from marrowflow.files import sha256_of
from marrowflow.records.benchmarks import NOT_MEASURED, Cost, benchmark_of, read_cost
from marrowflow.records.jobs import Job, Jobs

COLUMNS = [
    "file",
    "sha256",
    "digest_of",
    "bytes",
    "rule",
    "module",
    "code",
    "options",
    "part_of",
    "log",
    "wall_seconds",
    "cpu_seconds",
    "peak_memory_mib",
    "started",
    "ended",
    "upstream",
    "note",
    "inputs",
]
"""Of lineage.csv; `inputs` are files' names with a space between them."""

# What jobs keep for themselves: messages and costs stand with their job, the others are no results.
LEFT_OUT = ("benchmarks", "features", "logs", "state")
_PASSED_ON = "state"
# A folder of more files than this (augmented pictures) is one row.
_MOST_IN_A_FOLDER = 500


@dataclass(frozen=True)
class Entry:
    """One file, or one folder of many.

    Attributes
    ----------
    name
        See the module.
    path
        As Snakemake writes it.
    digest_of
        What `sha256` was taken of: ``file``; ``folder`` (lines ``<sha256>  <name>`` of its files, sorted by name);
        ``store.json`` (packed pixels, whose checksum was taken when they were written); ``fetched copy`` (what a job read
        of a remote file); empty when there is none.
    size
        Bytes; None when the file is gone.
    job
        The job that made it; None for what no job made, or whose record is missing.
    part_of
        Name of the folder that its job declared as output; empty when it is an output by itself.
    upstream
        Whether the reports were made of it: not so for what an earlier configuration left, or a target of its own.
    note
        What is odd about it.
    """

    name: str
    path: str
    sha256: str
    digest_of: str
    size: int | None
    job: Job | None
    part_of: str
    upstream: bool
    note: str = ""


@dataclass(frozen=True)
class Lineage:
    """All files of a study with what made them."""

    entries: Sequence[Entry]
    jobs: Jobs
    names: Names

    @cached_property
    def by_name(self) -> Mapping[str, Entry]:
        """Entries by name."""
        return {entry.name: entry for entry in self.entries}

    @cached_property
    def costs(self) -> Mapping[tuple[str, ...], Cost]:
        """What each job cost, by its outputs."""
        return {
            # A job that is not over yet has the table of an earlier run, if any.
            job.outputs: NOT_MEASURED if job.ended is None else read_cost(Path(benchmark_of(job.log)))
            for job in self.jobs.jobs
        }

    def inputs_of(self, job: Job) -> list[str]:
        """Return the names of what a job read."""
        return [self.names.of(path) for path in job.inputs]

    def table(self) -> pd.DataFrame:
        """Return `COLUMNS`, one row a file."""
        return pd.DataFrame([self._row(entry) for entry in self.entries], columns=COLUMNS)

    def _row(self, entry: Entry) -> dict[str, object]:
        row: dict[str, object] = {
            "file": entry.name,
            "sha256": entry.sha256,
            "digest_of": entry.digest_of,
            "bytes": pd.NA if entry.size is None else entry.size,
            "part_of": entry.part_of,
            "upstream": entry.upstream,
            "note": entry.note,
        }
        job = entry.job
        if job is None:
            return row
        cost = self.costs[job.outputs]
        return row | {
            "rule": job.rule,
            "module": job.module,
            "code": job.code,
            "options": options_digest(job),
            "log": self.names.of(job.log) if job.log else "",
            "wall_seconds": cost.seconds,
            "cpu_seconds": cost.cpu,
            "peak_memory_mib": cost.memory,
            "started": moment(job.started),
            "ended": moment(job.ended),
            # A part's inputs are those of the folder that it is part of.
            "inputs": "" if entry.part_of else " ".join(self.inputs_of(job)),
        }


class Names:
    """How files are called: see the module."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root.as_posix()}/"
        self._known: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Return the name of a path as Snakemake writes it, relative to the working directory."""
        if path not in self._known:
            self._known[path] = quote(self._plain(path), safe="/")
        return self._known[path]

    def _plain(self, path: str) -> str:
        if path.startswith(self._root):
            return path[len(self._root) :]
        if is_inside(path):
            return path
        file = Path(path)
        return f"outside/{_digest(file)[:12] if file.is_file() else 'missing'}/{PureWindowsPath(path).name}"


def is_inside(path: str) -> bool:
    """Whether a path lies below the working directory, by its text alone."""
    normal = os.path.normpath(path)
    absolute = normal.startswith(("/", "~")) or PureWindowsPath(path).is_absolute()
    return not absolute and normal.partition("/")[0] != ".."


def trace(jobs: Jobs, root: Path, targets: Iterable[str], unwritten: Iterable[str] = ()) -> Lineage:
    """Take the checksum of every result and of all that they were made of, and find what made each.

    Parameters
    ----------
    jobs
        The jobs that Snakemake recorded.
    root
        The study's folder of results, relative to the working directory.
    targets
        Paths that the run was for; what they were made of is upstream.
    unwritten
        Paths that will be written after this: they get a row without a checksum.
    """
    names, unwritten, upstream = Names(root), set(unwritten), jobs.upstream(targets)
    folders = {output for job in jobs.jobs for output in job.outputs if Path(output).is_dir()}
    large = {f for f in folders if sum(1 for _ in _files_below(Path(f))) > _MOST_IN_A_FOLDER}
    on_disk = [path.as_posix() for path in _results(root)]
    single = {path for path in on_disk if not any(path.startswith(f"{folder}/") for folder in large)}
    # What an earlier configuration made and somebody deleted is of no interest; what the reports are made of is.
    passed_on = {
        p for job in jobs.jobs for p in (*job.outputs, *job.inputs) if p in upstream or Path(p).exists()
    }
    readings = _readings(jobs)
    entries = []
    for path in progress(sorted(single | folders | passed_on | unwritten), "checksums", unit="files"):
        job = jobs.that_made(path)
        part_of = next((o for o in job.outputs if path.startswith(f"{o}/")), "") if job else ""
        if path in unwritten:
            taken = _Taken(note="written after this table; its checksum stands in ro-crate-metadata.json")
        elif path in folders - large:
            taken = _Taken(note="a folder, whose files have rows of their own")
        elif is_remote(path):
            taken = _fetched({read for _, read in readings[path]})
        elif path.startswith(f"{root.as_posix()}/{_PASSED_ON}/") and not Path(path).exists():
            taken = _Taken(note="handed from job to job and not kept")
        else:
            taken = _take(Path(path))
        note = taken.note
        if taken.sha256 and (readers := {rule for rule, read in readings[path] if read != taken.sha256}):
            note = f"changed since it was read by {', '.join(sorted(readers))}"
        elif job is None and not note and path in single:
            note = "no record of what made it"
        entries.append(
            Entry(
                names.of(path),
                path,
                taken.sha256,
                taken.of,
                taken.size,
                job,
                names.of(part_of) if part_of else "",
                path in upstream or part_of in upstream,
                note,
            )
        )
    return Lineage(sorted(entries, key=lambda entry: entry.name), jobs, names)


def options_digest(job: Job) -> str:
    """Return 12 digits of the SHA-256 of a job's options, by which run.json has their text; empty without options."""
    return hashlib.sha256(job.options.encode()).hexdigest()[:12] if job.options else ""


def moment(seconds: float | None) -> str:
    """Return a time as ISO 8601 in UTC, to the second; empty when it is unknown."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class _Taken:
    """A checksum, what it is of, and the size in bytes."""

    sha256: str = ""
    of: str = ""
    size: int | None = None
    note: str = ""


def _take(path: Path) -> _Taken:
    if path.is_dir():
        files = sorted(_files_below(path))
        lines = "".join(f"{_digest(f)}  {f.relative_to(path).as_posix()}\n" for f in files)
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return _Taken(
            digest, "folder", sum(f.stat().st_size for f in files), f"a folder of {len(files)} files"
        )
    if not path.is_file():
        return _Taken(note="no longer on disk")
    size = path.stat().st_size
    packed = _packed_digest(path) if path.name == "pixels.npy" else None
    return _Taken(packed, "store.json", size) if packed else _Taken(_digest(path), "file", size)


def _digest(path: Path) -> str:
    """Return a file's SHA-256; an archive of images is asked for more than once, and is read once."""
    now = path.stat()
    return _digest_of(path, now.st_ino, now.st_size, now.st_mtime_ns)


@cache
def _digest_of(path: Path, *state: int) -> str:
    return sha256_of(path)


def _fetched(digests: set[str]) -> _Taken:
    """Return what is known of a remote file: what the jobs read of it, when they did."""
    where = "on remote storage; not kept here"
    if len(digests) == 1:
        return _Taken(next(iter(digests)), "fetched copy", note=where)
    return _Taken(
        note=f"{where}; " + ("changed between the jobs that read it" if digests else "no checksum was taken")
    )


def _packed_digest(pixels: Path) -> str | None:
    """Return the checksum that was taken of packed pixels when they were written: they may be hundreds of GB."""
    try:
        digest = json.loads((pixels.parent / "store.json").read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def _readings(jobs: Jobs) -> Mapping[str, list[tuple[str, str]]]:
    """Return who read each path, by rule, and with which checksum."""
    readings: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for job in jobs.jobs:
        for path, digest in job.read.items():
            readings[path].append((job.rule, digest))
    return readings


def _results(root: Path) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name not in LEFT_OUT:
            yield from _files_below(path)
        elif path.is_file() and not path.name.startswith("."):
            yield path


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder; names that begin with a dot are marks of Snakemake and half-written files."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if not name.startswith("."))
