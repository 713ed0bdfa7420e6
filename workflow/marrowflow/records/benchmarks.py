"""What the jobs cost: wall time, CPU time and memory, from the tables that Snakemake writes for each.

A table (``benchmarks/<rule>/….tsv``) has the columns ``s`` (wall seconds), ``cpu_time`` (CPU seconds of the job and its
children) and ``max_rss`` (peak resident memory, MiB); a job too short to be sampled has no CPU time or memory.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cost:
    """Of one job: wall and CPU time in seconds, peak memory in MiB; NaN where it was not measured."""

    seconds: float
    cpu: float
    memory: float


NOT_MEASURED = Cost(math.nan, math.nan, math.nan)


def read_cost(path: Path) -> Cost:
    """Read a job's table; a missing or broken one is not measured, and of several rows the last one counts."""
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error):
        return NOT_MEASURED
    if not rows:
        return NOT_MEASURED
    return Cost(*(_number(rows[-1].get(column)) for column in ("s", "cpu_time", "max_rss")))


def benchmark_of(log: str) -> str:
    """Return a job's benchmark by its log: all rules write ``logs/<job>.log`` beside ``benchmarks/<job>.tsv``."""
    before, found, job = log.rpartition("/logs/")
    return f"{before}/benchmarks/{job.removesuffix('.log')}.tsv" if found else ""


def summed(costs: Iterable[Cost]) -> dict[str, Any]:
    """Sum the costs of several jobs; a sum over no measured job is None.

    Returns
    -------
    dict
        ``jobs``, ``measured`` (those with a wall time), ``wall_seconds``, ``cpu_seconds``, ``longest_seconds``
        and ``peak_memory_mib``.
    """
    costs = list(costs)
    seconds = [c.seconds for c in costs if not math.isnan(c.seconds)]
    cpu = [c.cpu for c in costs if not math.isnan(c.cpu)]
    memory = [c.memory for c in costs if not math.isnan(c.memory)]
    return {
        "jobs": len(costs),
        "measured": len(seconds),
        "wall_seconds": round(math.fsum(seconds), 2) if seconds else None,
        "cpu_seconds": round(math.fsum(cpu), 2) if cpu else None,
        "longest_seconds": max(seconds, default=None),
        "peak_memory_mib": max(memory, default=None),
    }


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
