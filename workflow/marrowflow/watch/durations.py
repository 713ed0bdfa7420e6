"""How long jobs take, from the benchmarks of this study's earlier runs, and how long the rest of a run will."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from marrowflow.records.benchmarks import read_cost
from marrowflow.watch.plan import Plan, PlannedJob


class Durations:
    """What a job of each rule takes, in seconds of wall time.

    A job that ran before is expected to take what it took last; another one the median of its rule's; where no
    earlier run has any, the median of the rule's jobs that ended in this run.
    """

    def __init__(self, earlier: Mapping[str, Mapping[str, float]]) -> None:
        """Take the seconds of earlier jobs: by rule, then by the path of the benchmark."""
        self._earlier = earlier
        self._now: dict[str, list[float]] = defaultdict(list)

    def add(self, rule: str, seconds: float) -> None:
        """Note a job that ended in this run."""
        self._now[rule].append(seconds)

    def of(self, job: PlannedJob) -> float | None:
        """Return what a job is expected to take; None when nothing is known of its rule."""
        earlier = self._earlier.get(job.rule, {})
        if job.benchmark in earlier:
            return earlier[job.benchmark]
        seconds = list(earlier.values()) or self._now.get(job.rule, [])
        return median(seconds) if seconds else None


def read_durations(jobs: Iterable[PlannedJob], folder: Path | None = None) -> Durations:
    """Read the benchmarks that lie in a study's results for the rules of these jobs.

    All rules write ``<results>/benchmarks/<rule>.tsv`` or ``<results>/benchmarks/<rule>/….tsv``.

    Parameters
    ----------
    jobs
        The jobs that will run.
    folder
        What the paths are relative to; the working directory when left out.
    """
    places = {}
    for job in jobs:
        before, found, _ = job.benchmark.partition("/benchmarks/")
        if found:
            places[job.rule] = f"{before}/benchmarks/{job.rule}"
    return Durations({rule: _measured(place, folder or Path()) for rule, place in places.items()})


def _measured(place: str, folder: Path) -> dict[str, float]:
    files = [folder / f"{place}.tsv", *(folder / place).rglob("*.tsv")]
    costs = ((file.relative_to(folder).as_posix(), read_cost(file).seconds) for file in files)
    return {path: seconds for path, seconds in costs if not math.isnan(seconds)}


def time_left(
    jobs: Sequence[PlannedJob], plan: Plan, durations: Durations, running: Mapping[int, float] | None = None
) -> tuple[float, Collection[str]]:
    """Return how long jobs will take from now, as Snakemake could schedule them, and the rules of unknown length.

    Jobs start as soon as what they need is made and cores, GPUs and slots are free, those first that most time
    depends on. Jobs of unknown length count as none.

    Parameters
    ----------
    jobs
        Those that have not ended.
    plan
        Says how much may be occupied at a time.
    durations
        What jobs take.
    running
        How long the jobs that run now have been running, in seconds, by their number.

    Returns
    -------
    tuple
        Seconds of wall time, and the rules of which nothing is known.
    """
    running = running or {}
    expected = {job.id: durations.of(job) for job in jobs}
    unknown = sorted({job.rule for job in jobs if expected[job.id] is None})
    seconds = {id_: max(0.0, (known or 0.0) - running.get(id_, 0.0)) for id_, known in expected.items()}
    return _Schedule(jobs, plan, seconds, running).length(), unknown


class _Schedule:
    """Plays a run through on paper."""

    def __init__(
        self,
        jobs: Sequence[PlannedJob],
        plan: Plan,
        seconds: Mapping[int, float],
        running: Mapping[int, float],
    ) -> None:
        self.seconds, self.running = seconds, running
        self.jobs = {job.id: job for job in jobs}
        self.waits = {job.id: {need for need in job.needs if need in self.jobs} for job in jobs}
        self.feeds: dict[int, list[int]] = defaultdict(list)
        for id_, needs in self.waits.items():
            for need in needs:
                self.feeds[need].append(id_)
        limits = (plan.cores, plan.gpus, plan.slots)
        self.limits = [math.inf if limit is None else limit for limit in limits]
        self.tails: dict[int, float] = {}
        for id_ in reversed(self._in_order()):
            self.tails[id_] = seconds[id_] + max(
                (self.tails[after] for after in self.feeds[id_]), default=0.0
            )

    def _in_order(self) -> list[int]:
        waits = {id_: len(needs) for id_, needs in self.waits.items()}
        ready = [id_ for id_, count in waits.items() if not count]
        for id_ in ready:
            for after in self.feeds[id_]:
                waits[after] -= 1
                if not waits[after]:
                    ready.append(after)
        return ready

    def _wants(self, id_: int) -> tuple[float, ...]:
        job = self.jobs[id_]
        wanted = (job.threads, job.gpus, 1)
        # Snakemake scales a job down to what there is.
        return tuple(min(want, limit) for want, limit in zip(wanted, self.limits, strict=True))

    def length(self) -> float:
        free = list(self.limits)
        waits = {id_: len(needs) for id_, needs in self.waits.items()}
        # Those that can start, by what they want: of a kind that finds no room, none need be looked at.
        ready: dict[tuple[float, ...], list[tuple[bool, float, int]]] = defaultdict(list)
        for id_, count in waits.items():
            if not count:
                # What runs already comes first.
                entry = (id_ not in self.running, -self.tails[id_], id_)
                heapq.heappush(ready[self._wants(id_)], entry)
        busy: list[tuple[float, int, tuple[float, ...]]] = []
        now = 0.0
        while True:
            while (wants := _first(ready, free)) is not None:
                id_ = heapq.heappop(ready[wants])[2]
                free = [left - want for want, left in zip(wants, free, strict=True)]
                heapq.heappush(busy, (now + self.seconds[id_], id_, wants))
            if not busy:
                return now
            now, ended, freed = heapq.heappop(busy)
            free = [left + want for left, want in zip(free, freed, strict=True)]
            for after in self.feeds[ended]:
                waits[after] -= 1
                if not waits[after]:
                    heapq.heappush(ready[self._wants(after)], (True, -self.tails[after], after))


def _first(
    ready: Mapping[tuple[float, ...], Sequence[tuple[bool, float, int]]], free: Sequence[float]
) -> tuple[float, ...] | None:
    """Return what the job wants that starts next; None when nothing that is ready finds room."""
    fitting = [
        wants
        for wants, entries in ready.items()
        if entries and all(want <= left for want, left in zip(wants, free, strict=True))
    ]
    return min(fitting, key=lambda wants: ready[wants][0], default=None)
