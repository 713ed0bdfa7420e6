"""How far a run is: what has ended, what runs, what failed and how long the rest will take, as lines of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from marrowflow.records.benchmarks import read_cost
from marrowflow.watch.durations import Durations, time_left
from marrowflow.watch.plan import Plan, PlannedJob
from marrowflow.watch.words import (
    by_stage,
    counted_by_rule,
    job_in_brief,
    job_in_words,
    jobs_in_words,
    listed,
    stage_of,
    time_in_words,
)

TAIL = 20
"""Lines of a failed job's log that are shown."""
_CLUSTERS_TAIL = 5  # lines of a cluster's log: it says of the job what the job could not
_ERRORS_IN = 200  # last lines of a log in which a step's error is looked for
_WIDEST = 300  # of such a line, in characters
_LONGEST = 2000  # of a cluster's message, in characters
_LAST_BYTES = 65536  # in which those lines are looked for
_SURE_AFTER = 20.0  # seconds of ended jobs from which on this run's pace is believed


@dataclass(frozen=True)
class Failure:
    """A job that failed, and how Snakemake or a cluster worded it."""

    job: PlannedJob
    logs: Sequence[str]  # the job's own before a cluster's
    message: str = ""


class Progress:
    """A run, event by event. Times are seconds of one clock.

    Parameters
    ----------
    plan
        All jobs of the run.
    durations
        What they are expected to take.
    start
        When the run began.
    """

    def __init__(self, plan: Plan, durations: Durations, start: float) -> None:
        self.plan, self.durations, self.start = plan, durations, start
        self.jobs = {job.id: job for job in plan.jobs}
        self.running: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.failed: dict[int, Failure] = {}
        self.interrupted = False
        self._began: dict[str, float] = {}
        self._expected = self._taken = 0.0

    def started(self, ids: Iterable[object], now: float) -> None:
        """Note that jobs were started; numbers of other things, such as groups of jobs, are passed over."""
        for id_ in ids:
            if isinstance(id_, int) and id_ in self.jobs:
                self.running[id_] = now
                self._began.setdefault(stage_of(self.jobs[id_].rule), now)

    def finished(self, id_: object, now: float) -> str:
        """Note that a job ended well; return a line when it was the last one of its stage, else nothing."""
        if not isinstance(id_, int) or id_ not in self.jobs or id_ in self.ended:
            return ""
        job = self.jobs[id_]
        self.ended[id_] = now
        self.failed.pop(id_, None)
        since = self.running.pop(id_, None)
        if since is not None:
            self._learn(job, now - since)
        stage = stage_of(job.rule)
        of_stage = by_stage(self.plan.jobs)[stage]
        if any(other.id not in self.ended for other in of_stage):
            return ""
        took = time_in_words(now - self._began.get(stage, now))
        return f"{stage} done: {counted_by_rule(of_stage)} in {took}"

    def failure(self, id_: object, logs: Sequence[str], message: str = "") -> Failure | None:
        """Note that a job failed, and may be tried again; one that was stopped with the run has not failed."""
        if not isinstance(id_, int) or id_ not in self.jobs:
            return None
        self.running.pop(id_, None)
        if self.interrupted:
            return None
        self.failed[id_] = Failure(self.jobs[id_], logs, message)
        return self.failed[id_]

    def opening(self) -> str:
        """Return what lies ahead: jobs by stage, and for how long."""
        stages = ", ".join(f"{stage} {len(jobs)}" for stage, jobs in by_stage(self.plan.jobs).items())
        return f"{jobs_in_words(len(self.jobs))} to do ({stages}); {self._left(list(self.jobs.values()), {})}"

    def line(self, now: float) -> str:
        """Return how far the run is, in one line."""
        rest = [job for id_, job in self.jobs.items() if id_ not in self.ended]
        ages = {id_: now - since for id_, since in self.running.items()}
        # A cluster's jobs may still wait in its queue: nobody tells when they began.
        ran = ages if self.plan.cores is not None else {}
        told = f"{len(self.ended)} of {jobs_in_words(len(self.jobs))} done"
        if self.failed:
            told += f", {len(self.failed)} failed"
        if rest:
            told += f"; {self._left(rest, ran)}"
        told += self._of_stages(rest, ran)
        if ages:
            runs = [f"{job_in_brief(self.jobs[id_])} {time_in_words(age)}" for id_, age in ages.items()]
            told += f"; {'running' if self.plan.cores is not None else 'submitted'}: {listed(runs, 3)}"
        return told

    def closing(self, now: float) -> list[str]:
        """Return how the run ended, the failed jobs once more."""
        took = time_in_words(now - self.start)
        if len(self.ended) == len(self.jobs):
            return [f"done: {jobs_in_words(len(self.jobs))} in {took}"]
        how = "interrupted" if self.interrupted else "stopped"
        lines = [f"{how} after {took}: {len(self.ended)} of {jobs_in_words(len(self.jobs))} done"]
        if self.failed:
            lines[0] += f", {len(self.failed)} failed:"
        for failure in self.failed.values():
            lines.append(f"  {job_in_words(failure.job, self.plan.hospitals)}")
            lines += [f"    log: {path}" for path in failure.logs]
            lines += [f"    {line}" for line in _gist(failure)]
        return lines

    def _of_stages(self, rest: Sequence[PlannedJob], ages: Mapping[int, float]) -> str:
        """Return the time left of each stage, where there are several and something is known of them."""
        known, unknown = [], []
        for stage, jobs in by_stage(rest).items():
            seconds, unheard = time_left(jobs, self.plan, self.durations, ages)
            if unheard:
                unknown.append(stage)
            else:
                known.append(f"{stage} {time_in_words(seconds * self._pace())}")
        if not known or len(known) + len(unknown) == 1:
            return ""
        return f" ({', '.join(known)}{'; unknown: ' if unknown else ''}{', '.join(unknown)})"

    def _left(self, jobs: Sequence[PlannedJob], ages: Mapping[int, float]) -> str:
        seconds, unknown = time_left(jobs, self.plan, self.durations, ages)
        if unknown and not seconds:
            return "time left unknown, for want of an earlier run"
        waiting = "" if self.plan.cores is not None else ", waiting in the queue not counted"
        return f"{'at least' if unknown else 'about'} {time_in_words(seconds * self._pace())} left{waiting}"

    def _learn(self, job: PlannedJob, seconds: float) -> None:
        """Compare this run with earlier ones; on a cluster by a job's benchmark, without its time in the queue."""
        if self.plan.cores is None:
            seconds = read_cost(Path(job.benchmark)).seconds
            if math.isnan(seconds):
                return
        expected = self.durations.of(job)
        if expected is not None:
            self._expected += expected
            self._taken += seconds
        self.durations.add(job.rule, seconds)

    def _pace(self) -> float:
        """Return how much longer this run's jobs take than expected, as soon as enough of them have ended."""
        return self._taken / self._expected if self._expected >= _SURE_AFTER else 1.0


def failure_lines(failure: Failure, hospitals: Mapping[str, str]) -> list[str]:
    """Return what to show of a failed job: what it was, what a cluster said of it and how each of its logs ends."""
    lines = [f"FAILED {job_in_words(failure.job, hospitals)}"]
    lines += [f"  {line}" for line in _readable(failure.message[:_LONGEST])]
    most = TAIL
    for path in failure.logs:
        last = tail(path, most)
        lines.append(f"  log: {path}{'' if last else ' (empty or missing)'}")
        lines += [f"  | {line}" for line in last]
        if last:
            most = _CLUSTERS_TAIL
    return lines


def _gist(failure: Failure) -> list[str]:
    """Return what a cluster said first, and a step's error in full; without one, the last line of each log."""
    lines = _readable(failure.message)[:1]
    for path in failure.logs:
        last = tail(path, _ERRORS_IN)
        error = next((n for n, line in enumerate(last) if line.startswith("error:")), None)
        if error is not None:
            return [*lines, *last[error:][:TAIL]]
        lines += last[-1:]
    return [line.strip() for line in lines]


def tail(path: str, lines: int) -> list[str]:
    """Return a log's last lines, none where there is no such file; what a terminal could take for a command is left out."""
    try:
        with open(path, "rb") as handle:  # noqa: PTH123 - a path as Snakemake writes it
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - _LAST_BYTES))
            text = handle.read().decode(errors="replace")
    except OSError:
        return []
    return [line[:_WIDEST] for line in _readable(text)][-lines:]


def _readable(text: str) -> list[str]:
    clean = "".join(c if c in "\n\t" or c.isprintable() else "\n" if c == "\r" else "" for c in text)
    return [line.rstrip() for line in clean.split("\n") if line.strip()]
