"""The jobs that Snakemake is going to run, and its reasons, as plain values.

The one place that looks into Snakemake's workflow, which is handed to it when the Snakefile is read; nothing of
Snakemake is imported. Its log records name jobs and events, but tell a reason as one text in which commas
separate file names and values alike; the objects behind it keep them apart. The names are those of Snakemake 9.27.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

LAST_RULE = "describe_run"
"""The rule whose job ends a run."""

_MODULE = re.compile(r"-m marrowflow ([\w.]+)")


@dataclass(frozen=True)
class Reason:
    """Why a job runs: Snakemake's own findings.

    Attributes
    ----------
    asked
        The user forced it.
    unfinished
        Its outputs are those of an interrupted job.
    missing
        Outputs that are not there and are needed.
    once_made
        Those of ``missing`` that an earlier job made.
    updated
        Inputs with another content than the one that was read.
    follows
        Another job of the plan makes one of its inputs.
    added, removed
        Inputs that it did not have when it ran last, and had then.
    instead
        Parts of the paths in ``removed``, each with what stands in its place in the path of an input that is still read.
    rule_changed
        The text of its rule's command is another one.
    environment_changed
        Its software environment is another one.
    old, new
        Values of parameters when it ran last, and now, without those that stand in both; as Python spells them.
    """

    asked: bool = False
    unfinished: bool = False
    missing: Sequence[str] = ()
    once_made: Sequence[str] = ()
    updated: Sequence[str] = ()
    follows: bool = False
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    rule_changed: bool = False
    environment_changed: bool = False
    old: Sequence[str] = ()
    new: Sequence[str] = ()


@dataclass(frozen=True)
class PlannedJob:
    """One job that will run.

    Attributes
    ----------
    id
        Snakemake's number of it, unique in the run.
    rule, wildcards
        Its rule, and the values of its wildcards by name.
    module
        The step that it runs, such as ``statistics.accuracy``; empty when it runs something else.
    needs
        Numbers of the planned jobs that must end before it starts.
    threads, gpus
        What it occupies.
    benchmark, logs
        Paths as Snakemake writes them; an empty benchmark for none.
    parameters
        Its parameters by name, as Python spells them.
    reason
        Why it runs; None unless it was asked for.
    """

    id: int
    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    module: str = ""
    needs: Sequence[int] = ()
    threads: int = 1
    gpus: int = 0
    benchmark: str = ""
    logs: Sequence[str] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    reason: Reason | None = None


@dataclass(frozen=True)
class Plan:
    """All jobs that will run, and what is known of those that need not.

    Attributes
    ----------
    jobs
        Those that will run; targets without a command of their own are left out.
    hospitals
        Each cohort's hospital.
    cores, gpus, slots
        How much may be occupied at a time; None for no limit. ``slots`` counts jobs, on a cluster.
    settled
        Wildcard values, as ``name=value``, that jobs have which need not run.
    paths
        Every part of every path that jobs, running or not, read or write.
    codes
        Each step's digest of code, as now.
    finished_before
        Whether an earlier run came to its end.
    """

    jobs: Sequence[PlannedJob]
    hospitals: Mapping[str, str] = field(default_factory=dict)
    cores: int | None = None
    gpus: int | None = None
    slots: int | None = None
    settled: Sequence[str] = ()
    paths: Sequence[str] = ()
    codes: Mapping[str, str] = field(default_factory=dict)
    finished_before: bool = False

    def to_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that `to_json` wrote."""
        raw = json.loads(text)
        jobs = [
            PlannedJob(**{**job, "reason": Reason(**job["reason"]) if job["reason"] else None})
            for job in raw.pop("jobs")
        ]
        return cls(jobs, **raw)


def read_plan(workflow: Any, hospitals: Mapping[str, str], reasons: bool = False) -> Plan:
    """Read the jobs that Snakemake is going to run, once it has decided on them.

    Parameters
    ----------
    workflow
        The object of that name in a Snakefile.
    hospitals
        Each cohort's hospital.
    reasons
        Whether to read why each job runs, and what earlier runs left; it takes a look at Snakemake's records.
    """
    dag = workflow.dag
    planned = [job for job in dag.needrun_jobs() if not job.rule.norun]
    numbers = {job: dag.jobid(job) for job in planned}
    cores, gpus, nodes = (_capacity(workflow, name) for name in ("_cores", "gpu", "_nodes"))
    # On a cluster each job has cores of its own. A dry run does not know that it stands for one; its limit of jobs tells.
    local = workflow.local_exec and not (workflow.dryrun and nodes is not None)
    plan = Plan(
        [_job(job, numbers, workflow, reasons) for job in planned],
        dict(hospitals),
        cores=cores if local else None,
        gpus=gpus,
        slots=None if local else nodes,
    )
    return _with_records(plan, planned, workflow) if reasons else plan


def _with_records(plan: Plan, planned: Sequence[Any], workflow: Any) -> Plan:
    """Add what is known of the jobs that need not run, and of earlier runs."""
    needed = set(planned)
    idle = [job for job in workflow.dag.jobs if job not in needed and not job.rule.norun]
    everything = [*planned, *idle]
    files = {str(path) for job in everything for path in [*job.input, *job.output]}
    last = [path for job in everything if job.rule.name == LAST_RULE for path in job.output]
    return replace(
        plan,
        settled=sorted({f"{name}={value}" for job in idle for name, value in job.wildcards_dict.items()}),
        paths=sorted({part for path in files for part in path.split("/")}),
        codes=_codes(everything),
        finished_before=any(workflow.persistence.rule(path) is not None for path in last),
    )


def _job(job: Any, numbers: Mapping[Any, int], workflow: Any, reasons: bool) -> PlannedJob:
    gpus = job.resources.get("gpu", 0)
    return PlannedJob(
        id=numbers[job],
        rule=job.rule.name,
        wildcards={name: str(value) for name, value in job.wildcards_dict.items()},
        module=_module(job),
        needs=sorted(numbers[other] for other in workflow.dag.job_dependencies(job) if other in numbers),
        threads=int(job.threads),
        gpus=gpus if isinstance(gpus, int) else 0,
        benchmark=str(job.benchmark or ""),
        logs=[str(path) for path in job.log],
        parameters={name: repr(value) for name, value in job.params.items()} if reasons else {},
        reason=_reason(job, workflow) if reasons else None,
    )


def _reason(job: Any, workflow: Any) -> Reason:
    found, records = workflow.dag.reason(job), workflow.persistence
    made = {path for path in found.missing_output if records.rule(path) is not None}
    # What is only kept until it has been read is missed by nobody, and made again where it is needed again.
    missing = {path for path in found.missing_output if not (path in made and path.flags.get("temp"))}
    # Snakemake looks for further reasons only until it has found one: the rest of what changed is asked for here.
    changed = found.params_changed or (records.params_changed(job) if not missing else None)
    read = {path for output in job.output for path in records.input(output) or ()}
    now = {str(path) for path in records._input(job)}
    asked = found.forced and _asked_for(job, workflow)
    return Reason(
        asked=asked,
        unfinished=found.forced and not asked,
        missing=sorted(map(str, missing)),
        once_made=sorted(map(str, missing & made)),
        updated=sorted(map(str, found.updated_input - found.updated_input_run)),
        follows=bool(found.updated_input_run),
        added=sorted(now - read) if found.input_changed else [],
        removed=sorted(read - now) if found.input_changed else [],
        instead=_alike(read - now, now & read) if found.input_changed else {},
        rule_changed=bool(found.code_changed),
        environment_changed=bool(found.software_stack_changed),
        old=sorted(changed.only_old) if changed else [],
        new=sorted(changed.only_new) if changed else [],
    )


def _alike(removed: Iterable[str], kept: Iterable[str]) -> dict[str, str]:
    """Return the part in which each removed path differs from a kept one, with the kept one's, where it is only one."""
    others = [path.split("/") for path in sorted(kept)]
    found: dict[str, str] = {}
    for parts in (path.split("/") for path in sorted(removed)):
        for other in others:
            differing = [(a, b) for a, b in zip(parts, other, strict=False) if a != b]
            if len(parts) == len(other) and len(differing) == 1:
                found.setdefault(*differing[0])
    return found


def _asked_for(job: Any, workflow: Any) -> bool:
    """Return whether the user forced a job; Snakemake forces those of an interrupted run as well."""
    settings = workflow.dag_settings
    return bool(
        settings.forceall
        or (settings.forcetargets and job in workflow.dag.targetjobs)
        or not {job.rule.name, *map(str, job.output)}.isdisjoint(settings.forcerun)
    )


def _module(job: Any) -> str:
    found = _MODULE.search(job.shellcmd or "")
    return found[1] if found else ""


def _codes(jobs: Iterable[Any]) -> dict[str, str]:
    return {
        module: str(job.params.code)
        for job in jobs
        if (module := _module(job)) and hasattr(job.params, "code")
    }


def _capacity(workflow: Any, name: str) -> int | None:
    """Return how much there is of a resource; None where there is no limit."""
    value = getattr(workflow.global_resources.get(name), "value", None)
    return value if isinstance(value, int) and value < 10**6 else None
