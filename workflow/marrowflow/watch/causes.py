"""Why jobs run: Snakemake's reasons, job by job, gathered into what somebody changed.

A job has a reason of its own (its code, its parameters, a file), or it only follows another one. A cause is one
change, with the jobs that it concerns directly and all that follow them.
"""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marrowflow.errors import UserError
from marrowflow.provenance import PACKAGE, sources_of
from marrowflow.watch.plan import Plan, PlannedJob
from marrowflow.watch.words import hospital_in_words, listed

Key = tuple[str, ...]

_DIGEST = re.compile(r"[0-9a-f]{16}")
_ABSENT = object()
_LONGEST = 40  # characters of a value that is quoted
# Of a new job's wildcards, the first one of these that no finished job has says what is new.
_NEW = ("cohort", "reader", "model", "colour", "protocol", "fold")
# Where the sections that option strings put together (`marrowflow.option_strings`) stand in the configuration;
# {…} are a job's wildcards.
_PLACES = {
    "model": "models.{model}",
    "heads": "models.{model}.heads",
    "recipe": "colour.{colour}",
    "unit": "readers.{reader}.unit",
    "scheme": "splits.scheme",
    "distance": "intake.near_duplicate_distance",
    "errors_shown": "report.errors_shown",
    "primary": "report",
    "members": "ensembles",
    "reader_titles": "readers",
    "reader_units": "readers",
    "texts": "",
}
_OF_A_MODEL = "models.{model}."
# They follow from other sections, which tell more.
_DERIVED = ("index_tests", "protocols")


@dataclass(frozen=True)
class Cause:
    """One change.

    Attributes
    ----------
    text
        The change in words.
    jobs
        Numbers of the jobs that it concerns itself.
    reach
        These and all that follow them.
    minor
        It comes with others, and is worth no word beside them.
    """

    text: str
    jobs: frozenset[int]
    reach: frozenset[int]
    minor: bool = False


def find_causes(plan: Plan) -> tuple[list[Cause], list[Cause]]:
    """Return the changes that a plan's jobs run for, those of most jobs first.

    Returns
    -------
    tuple
        The changes without which some job would not run; and others, all of whose jobs run anyway.
    """
    concerned, models = _gathered(plan)
    follow = _followers(plan, set().union(*concerned.values()))
    code = {key[1]: jobs for key, jobs in concerned.items() if key[0] == "code"}
    changes = {key: jobs for key, jobs in concerned.items() if key[0] != "code"}
    if code:
        changes["code",] = set().union(*code.values())
    causes = []
    for key, jobs in changes.items():
        text = (
            _code_in_words(code, plan, follow)
            if key == ("code",)
            else _in_words(key, sorted(models.get(key, ())), plan)
        )
        own = _first(jobs, follow) if key[0] in ("code", "setting", "parameter") else jobs
        minor = key[0] in ("parameter", "derived")
        causes.append(Cause(text, frozenset(own), follow(jobs), minor))
    causes.sort(key=lambda cause: (-len(cause.reach), cause.minor, -len(cause.jobs), cause.text))
    chief: list[Cause] = []
    beside: list[Cause] = []
    for cause in causes:
        within = any(cause.jobs <= other.reach - other.jobs for other in chief)
        (beside if within else chief).append(cause)
    return chief, [cause for cause in beside if not cause.minor]


def _gathered(plan: Plan) -> tuple[dict[Key, set[int]], dict[Key, set[str]]]:
    """Return the jobs that each change concerns, and of changed settings the networks that they are of."""
    concerned: dict[Key, set[int]] = defaultdict(set)
    models: dict[Key, set[str]] = defaultdict(set)
    there = _there_before(plan)
    for job in plan.jobs:
        for key in _keys(job, plan, there):
            if key[0] == "setting":
                *short, model = key
                key = tuple(short)
                models[key].update(filter(None, [model]))
            concerned[key].add(job.id)
    # What the user set for all networks at once stands in the settings of each of them as well.
    for key in [key for key in concerned if key[0] == "setting" and key[1].startswith(_OF_A_MODEL)]:
        common = ("setting", key[1].removeprefix(_OF_A_MODEL), key[2])
        if common in concerned:
            concerned[common] |= concerned.pop(key)
            models[common] = models.pop(key)
    return concerned, models


def _first(jobs: set[int], follow: Callable[[Iterable[int]], frozenset[int]]) -> set[int]:
    """Return those of the jobs that follow none of the others: the rest would run anyway."""
    return jobs - {later for job in jobs for later in follow([job]) if later != job} or jobs


def _followers(plan: Plan, concerned: set[int]) -> Callable[[Iterable[int]], frozenset[int]]:
    """Return what gives all jobs that run because others do: those that read what is made anew, and what they need for it."""
    linked: dict[int, list[int]] = defaultdict(list)
    for job in plan.jobs:
        for need in job.needs:
            linked[need].append(job.id)
            if need not in concerned:
                linked[job.id].append(need)

    def follow(jobs: Iterable[int]) -> frozenset[int]:
        found, waiting = set(jobs), list(jobs)
        while waiting:
            further = [id_ for id_ in linked[waiting.pop()] if id_ not in found]
            found.update(further)
            waiting += further
        return frozenset(found)

    return follow


def _there_before(plan: Plan) -> set[str]:
    """Return the wildcard values, as ``name=value``, of jobs that have run before."""
    again = (job for job in plan.jobs if job.reason and (job.reason.once_made or not job.reason.missing))
    return {*plan.settled, *(f"{name}={value}" for job in again for name, value in job.wildcards.items())}


def _keys(job: PlannedJob, plan: Plan, there: set[str]) -> Iterator[Key]:
    """Yield what was changed for a job, each thing as one key for all jobs that it concerns."""
    reason = job.reason
    if reason is None:
        return
    if reason.asked:
        yield ("asked",)
    if reason.unfinished:
        yield ("unfinished",)
    if reason.once_made:
        yield ("lost",)
    elif reason.missing:
        yield _new(job, plan, there)
    for path in reason.updated:
        yield "file", path
    if reason.removed:
        gone = {part for path in reason.removed for part in path.split("/")} - set(plan.paths)
        yield from (("gone", part, _kind(part, job, plan)) for part in sorted(gone) if "." not in part)
        if not any("." not in part for part in gone):
            yield "fewer", reason.removed[0]
    elif reason.added and not reason.follows:
        yield "more", reason.added[0]
    if reason.rule_changed:
        yield "rule", job.rule
    if reason.environment_changed:
        yield ("environment",)
    yield from _parameter_keys(job, plan)


def _kind(part: str, job: PlannedJob, plan: Plan) -> str:
    """Return what to call a part of a path that is gone, by what stands in its place elsewhere."""
    assert job.reason is not None
    hospital = job.reason.instead.get(part) in {*plan.hospitals, "development"}
    return "hospital " if hospital else ""


def _new(job: PlannedJob, plan: Plan, there: set[str]) -> Key:
    if not plan.finished_before:
        return ("unmade",)
    names = (name for name in _NEW if name in job.wildcards)
    name = next((name for name in names if f"{name}={job.wildcards[name]}" not in there), None)
    return ("new", name, job.wildcards[name]) if name else ("unmade",)


def _parameter_keys(job: PlannedJob, plan: Plan) -> Iterator[Key]:
    """Tell the changed parameters apart: the digest of code, the sections of the configuration, and others."""
    assert job.reason is not None
    old, new = [_value(text) for text in job.reason.old], [_value(text) for text in job.reason.new]
    for digest in new:
        if isinstance(digest, str) and _DIGEST.fullmatch(digest):
            modules = [module for module, code in plan.codes.items() if code == digest]
            yield "code", job.module if job.module in modules or not modules else modules[0]
    was, now = (next(filter(None, map(_sections, values)), {}) for values in (old, new))
    for place, before, after in _differences(was, now, ()):
        yield _setting(job, place, before, after)
    names = [name for name, text in job.parameters.items() if text in job.reason.new]
    for name in names:
        value = _value(job.parameters[name])
        if not _sections(value) and not (isinstance(value, str) and _DIGEST.fullmatch(value)):
            yield "parameter", job.rule, name


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _sections(value: Any) -> dict[str, Any]:
    """Return what an option string holds; nothing where a value is none."""
    try:
        found = json.loads(value) if isinstance(value, str) and value.startswith("{") else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _differences(was: Any, now: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted({*was, *now}):
            yield from _differences(was.get(name, _ABSENT), now.get(name, _ABSENT), (*place, name))
    elif was != now:
        yield place, was, now


def _setting(job: PlannedJob, place: Sequence[str], before: Any, after: Any) -> Key:
    """Return the key of a setting: its place, what became of it, and the network that it is of."""
    section, *rest = place
    if section in _DERIVED:
        return "derived", section
    if section == "threads" and rest:  # of each network
        section, rest = "models", [*rest, "training", "threads"]
    # One place for a setting that several networks have in common.
    wildcards = {**job.wildcards, "model": "{model}"}
    start = _PLACES.get(section, section).format_map(defaultdict(lambda: "?", wildcards))
    model = job.wildcards.get("model", "") if "{model}" in start else ""
    if section == "models" and len(rest) > 1:
        model, *rest = rest
        start = "models.{model}"
    return "setting", ".".join(filter(None, [start, *rest])), _change(before, after), model


def _change(before: Any, after: Any) -> str:
    """Return what became of a value, for the end of a sentence that names its place."""
    if before is _ABSENT:
        return " is new" if isinstance(after, dict) else f": not set before, now {_quoted(after)}"
    if after is _ABSENT:
        return " is gone"
    old, new = _quoted(before), _quoted(after)
    return f": {old} → {new}" if max(len(old), len(new)) <= _LONGEST else " changed"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _in_words(key: Key, models: Sequence[str], plan: Plan) -> str:
    kind, *rest = key
    match kind:
        case "asked":
            return "asked for on the command line"
        case "unfinished":
            return "an interrupted run left their files unfinished"
        case "lost":
            return "what earlier runs made is no longer there"
        case "unmade":
            return "not made yet" if plan.finished_before else "the study has not been run to its end yet"
        case "new":
            return f"{_named(rest[0], rest[1], plan)} is new"
        case "gone":
            return f"{rest[1]}{rest[0]} is no longer in the study"
        case "file":
            return f"{rest[0]} changed"
        case "fewer":
            return f"files are no longer read, such as {rest[0]}"
        case "more":
            return f"further files are read, such as {rest[0]}"
        case "rule":
            return f"the command of rule {rest[0]} changed"
        case "environment":
            return "software environments changed"
        case "setting":
            return f"the setting {_of_models(rest[0], rest[1], models)}"
        case "parameter":
            return f"the parameter {rest[1]} of {rest[0]} changed"
        case _:
            return f"the list of {rest[0].replace('_', ' ')} changed"


def _named(wildcard: str, value: str, plan: Plan) -> str:
    if wildcard == "cohort":
        return hospital_in_words(value, plan.hospitals)
    names = {"model": "network", "colour": "colour recipe"}
    return f"{names.get(wildcard, wildcard)} {value}"


def _of_models(place: str, change: str, models: Sequence[str]) -> str:
    if not place.startswith(_OF_A_MODEL):
        return f"{place}{change}{f', of {listed(models)}' if models else ''}"
    if len(models) == 1:
        return f"{place.replace('{model}', models[0])}{change}"
    return f"{place.removeprefix(_OF_A_MODEL)}{change}, of {listed(models)}"


def _code_in_words(
    code: Mapping[str, set[int]], plan: Plan, follow: Callable[[Iterable[int]], frozenset[int]]
) -> str:
    steps = sorted(code, key=lambda step: (-len(follow(code[step])), step))
    if len(steps) == 1:
        return f"the code of {steps[0]} changed"
    shared = _shared_by(steps, plan)
    hint = f"; what these share and no other step uses: {', '.join(shared)}" if 0 < len(shared) <= 3 else ""
    return f"the code of {len(steps)} steps changed ({listed(steps)}{hint})"


def _shared_by(steps: Sequence[str], plan: Plan) -> list[str]:
    """Return the sources that all steps of changed code have in common and no step of the same code has."""
    unsure = {job.module for job in plan.jobs if job.reason and job.reason.missing}
    same = set(plan.codes) - set(steps) - unsure
    try:
        common = set.intersection(*(set(sources_of(step)) for step in steps))
        others = set().union(*(sources_of(step) for step in same))
    except UserError:
        return []
    return sorted(path.relative_to(PACKAGE).as_posix() for path in common - others)
