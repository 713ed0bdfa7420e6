"""The jobs that made the results, as Snakemake recorded them.

Snakemake keeps one JSON file for each output in ``.snakemake/metadata``, under the output's path in URL-safe base64;
a name too long for the file system goes on in a folder whose name begins with ``@``. It offers no public interface to
them, and jobs run in environments without Snakemake: so they are read here, and nowhere else. The format is that of
Snakemake 9 (``record_format_version`` 6).
"""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import json
import logging
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from marrowflow.cohorts.places import is_remote
from marrowflow.errors import UserError
from marrowflow.provenance import code_digest

log = logging.getLogger(__name__)

RECORD_FORMAT = 6
# What Snakemake writes as the hash of an environment that it did not set up itself.
_NO_ENVIRONMENT = hashlib.md5(usedforsecurity=False).hexdigest()
_MODULE = re.compile(r"-m marrowflow ([\w.]+)")
_DIGEST = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Job:
    """One job: what it was, what it read and what it made.

    Attributes
    ----------
    rule
        Its rule.
    outputs, inputs
        Paths as Snakemake writes them, relative to the working directory.
    log
        Its log file; empty when the rule has none.
    module
        The step that it ran, such as ``statistics.accuracy``; empty when it ran something else.
    code
        Digest of the step's code when it ran (see `marrowflow.provenance`); empty when unknown, also where it was
        given digests of several steps and none of them is that of its own step now.
    options
        Its sections of the configuration, as the JSON text that it was given; empty when it took none.
    parameters
        Its further parameters, such as a hospital's name; lists are JSON texts.
    started, ended
        Seconds since 1970; None when unknown. The end is that of the last output's last change.
    read
        SHA-256 of its inputs when it read them, as far as Snakemake looked at them.
    environment
        Text of the conda environment that Snakemake made for it; empty when the job ran in the caller's.
    """

    rule: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    log: str = ""
    module: str = ""
    code: str = ""
    options: str = ""
    parameters: tuple[str, ...] = ()
    started: float | None = None
    ended: float | None = None
    read: Mapping[str, str] = field(default_factory=dict)
    environment: str = ""


@dataclass(frozen=True)
class Jobs:
    """All jobs of a run, the one that made each path, and what could not be read."""

    jobs: Sequence[Job]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        made = {output: job for job in self.jobs for output in job.outputs}
        object.__setattr__(self, "_made", made)

    def that_made(self, path: str) -> Job | None:
        """Return the job that made a path, or made a folder that the path lies in."""
        made: Mapping[str, Job] = self._made  # type: ignore[attr-defined]
        while path not in made:
            path, slash, _ = path.rpartition("/")
            if not slash:
                return None
        return made[path]

    def upstream(self, targets: Iterable[str]) -> set[str]:
        """Return what the targets were made of: all paths that their jobs, and the jobs of their inputs, read or made."""
        found: set[str] = set()
        waiting = list(targets)
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            found.add(path)
            job = self.that_made(path)
            if job is not None:
                waiting += [*job.inputs, *job.outputs]
        return found


def read_jobs(folder: Path, root: str, own: Job | None = None) -> Jobs:
    """Read the jobs that made a study's results, and all that these were made of.

    Parameters
    ----------
    folder
        Snakemake's records, ``.snakemake/metadata``. Missing or unreadable ones are notes, never errors.
    root
        The study's folder of results as in Snakemake's paths, such as ``results/demo``.
    own
        The job that asks, which Snakemake has not recorded yet; a record of an earlier one is left out.

    Returns
    -------
    Jobs
        In the order in which they started.
    """
    files = dict(_record_files(folder))
    if not files:
        return Jobs(
            [own] if own else [], [f"Snakemake's records are missing: there is none in {folder.name}/."]
        )
    notes: list[str] = []
    formats: set[Any] = set()
    outputs: dict[tuple[Any, ...], list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    waiting = sorted(path for path in files if path == root or path.startswith(f"{root}/"))
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        record = _read_record(files[path])
        if record is None:
            notes.append(f"The record of {path} cannot be read.")
            continue
        formats.add(record.get("record_format_version"))
        if own and record["rule"] == own.rule:
            continue
        # All outputs of a job bear the same record; its log, or else its command, tells it from others of its rule.
        key = (record["rule"], *(record.get("log") or [record.get("shellcmd")]))
        outputs[key].append((path, record))
        further = [p for p in record.get("input") or [] if p in files and p not in seen]
        seen.update(further)
        waiting += further
    for unknown in sorted(map(str, formats - {RECORD_FORMAT})):
        notes.append(
            f"Records of format {unknown} were read as those of format {RECORD_FORMAT}: check the lineage before relying on it."
        )
    for note in notes:
        log.warning(note)
    jobs = [_job(made) for made in outputs.values()]
    jobs.sort(key=lambda job: (job.started or 0.0, job.outputs))
    return Jobs([*jobs, *([own] if own else [])], sorted(notes))


@cache
def code_now(module: str) -> str:
    """Return the present digest of a step's code; empty when there is no such step."""
    try:
        return code_digest(module) if module else ""
    except UserError:
        return ""


def _record_files(folder: Path) -> Iterable[tuple[str, Path]]:
    """Yield each recorded output's path and its record's file."""
    for file in folder.rglob("*"):
        parts = file.relative_to(folder).parts
        if not file.is_file() or not all(part.startswith("@") for part in parts[:-1]):
            continue
        name = "".join([*(part[1:] for part in parts[:-1]), parts[-1]])
        try:
            yield base64.b64decode(name, altchars=b"-_", validate=True).decode(), file
        except (binascii.Error, UnicodeDecodeError):
            log.warning("%s is no record of Snakemake's", file.name)


def _read_record(file: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("rule"), str) and not record.get("incomplete")
    return record if whole else None


def _job(made: Sequence[tuple[str, dict[str, Any]]]) -> Job:
    record = made[0][1]
    starts = [r["starttime"] for _, r in made if r.get("starttime") is not None]
    ends = [r["endtime"] for _, r in made if r.get("endtime") is not None]
    logs = record.get("log") or [""]
    command = record.get("shellcmd") or ""
    module = _MODULE.search(command)
    job = Job(
        record["rule"],
        tuple(sorted(path for path, _ in made)),
        tuple(record.get("input") or ()),
        logs[0],
        module[1] if module else "",
        options=_options(command),
        started=min(starts, default=None),
        ended=max(ends, default=None),
        read=_checksums(record.get("input_checksums") or {}, record.get("input") or ()),
        environment=_environment(record),
    )
    return _with_parameters(job, record.get("params") or [])


def _checksums(recorded: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of inputs; other kinds of checksums are left out.

    Of what was fetched from elsewhere Snakemake records the checksum under the path of the copy, and the input by its URL.
    """
    urls = {url.partition("://")[2]: url for url in inputs if is_remote(url)}

    def named(path: str) -> str:
        return next((url for rest, url in urls.items() if path.endswith(f"/{rest}")), path)

    pairs = ((named(path), str(value).partition(":")) for path, value in recorded.items())
    return {path: digest for path, (kind, _, digest) in pairs if kind == "sha256"}


def _options(command: str) -> str:
    """Return what a command gives to ``--options``: among the recorded parameters other texts may look like it."""
    try:
        words = shlex.split(command)
        return words[words.index("--options") + 1]
    except (ValueError, IndexError):
        return ""


def _with_parameters(job: Job, recorded: Iterable[Any]) -> Job:
    """Tell the code's digest and the rest apart: Snakemake keeps the texts, sorted, and not their names."""
    texts = [_text(parameter) for parameter in recorded]
    code = _code_of(job.module, [text for text in texts if _DIGEST.fullmatch(text)])
    others = sorted(text for text in texts if text not in ("", code, job.options))
    return replace(job, code=code, parameters=tuple(others))


def _text(parameter: Any) -> str:
    """Return a recorded parameter, which is Python's spelling of a value, as text; empty for no value."""
    try:
        value = ast.literal_eval(str(parameter))
    except (ValueError, SyntaxError):
        value = str(parameter)
    if value in ("", None, [], {}):
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _code_of(module: str, digests: Sequence[str]) -> str:
    """Return which digest is the step's own: a step may also be given those of others, whose code it seals or packs."""
    if len(digests) == 1:
        return digests[0]
    now = code_now(module)
    return now if now in digests else ""


def _environment(record: Mapping[str, Any]) -> str:
    """Return the text of a job's conda environment, where Snakemake made one: it records the file either way."""
    if not record.get("conda_env") or record.get("software_stack_hash") in (None, _NO_ENVIRONMENT):
        return ""
    try:
        return base64.b64decode(record["conda_env"]).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
