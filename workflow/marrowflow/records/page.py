"""lineage.html: every file of a study with what made it, in one page that loads nothing from elsewhere.

Reports link to it by a file's name (``lineage.html#accuracy/sound/…/metrics.csv``). Files stand with the job that made
them, so that a reader who follows such a link sees both; what was read is a link to where that was made.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from marrowflow.files import write_text
from marrowflow.records.jobs import Job
from marrowflow.records.lineage import LEFT_OUT, Entry, Lineage, moment, options_digest
from marrowflow.records.run import parameter_text, without_places

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Made:
    """A job as the page shows it: its files, and what it read by folder."""

    number: int
    job: Job
    title: str
    files: Sequence[Entry]
    inputs: Mapping[str, Sequence[tuple[str, str]]]
    """Folder → (link, last name) of each file in it."""
    facts: Mapping[str, str]
    options: str
    log: str


def write_lineage_page(lineage: Lineage, title: str, path: Path) -> None:
    """Write the page whole; `title` is the study's."""
    files: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    given = []
    for entry in lineage.entries:
        if entry.job is None:
            given.append(entry)
        else:
            files[entry.job.outputs].append(entry)
    rules: dict[str, list[Made]] = defaultdict(list)
    for number, job in enumerate(lineage.jobs.jobs):
        rules[job.rule].append(_made(number, job, files[job.outputs], lineage))
    options = {options_digest(job): _spelt(job.options) for job in lineage.jobs.jobs if job.options}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["size"] = size_text
    page = environment.get_template("lineage.html").render(
        title=title,
        rules=rules,
        given=given,
        options=options,
        notes=lineage.jobs.notes,
        left_out=LEFT_OUT,
        count=len(lineage.entries),
    )
    write_text(path, page)


def size_text(size: int | None) -> str:
    """Return bytes as a reader wants them."""
    if size is None:
        return ""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


def _made(number: int, job: Job, files: Sequence[Entry], lineage: Lineage) -> Made:
    inputs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in lineage.inputs_of(job):
        folder, slash, last = name.rpartition("/")
        inputs[folder + slash].append((name, last))
    cost = lineage.costs[job.outputs]
    facts = {"step": job.module or "unknown", "code": job.code or "unknown"}
    if job.parameters:
        facts["parameters"] = ", ".join(map(parameter_text, job.parameters))
    times = [
        moment(t).replace("T", " ").removesuffix("+00:00") for t in (job.started, job.ended) if t is not None
    ]
    facts["when"] = f"{' to '.join(times)} UTC" if times else "unknown"
    measured = [
        f"{value:,.{digits}f} {unit}"
        for value, digits, unit in (
            (cost.seconds, 1, "s"),
            (cost.cpu, 1, "s of CPU"),
            (cost.memory, 0, "MiB at most"),
        )
        if not math.isnan(value)
    ]
    facts["cost"] = ", ".join(measured) or "not measured"
    name = lineage.names.of(job.log) if job.log else ""
    title = name.removeprefix("logs/").removesuffix(".log").removeprefix(job.rule).strip("/")
    return Made(number, job, title, files, inputs, facts, options_digest(job), name)


def _spelt(options: str) -> str:
    try:
        return json.dumps(without_places(json.loads(options)), indent=1, sort_keys=True, ensure_ascii=False)
    except ValueError:
        return options
