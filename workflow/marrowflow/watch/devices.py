"""The GPUs of this machine, found without PyTorch, and what is to be said of them before a run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from marrowflow.watch.plan import Plan
from marrowflow.watch.words import TRAINING, jobs_in_words


def count_gpus(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """Return how many GPUs jobs on this machine can see.

    Parameters
    ----------
    environment
        Its ``PATH`` leads to ``nvidia-smi``; its ``CUDA_VISIBLE_DEVICES`` limits what is seen.
    devices
        Where the driver's files lie, asked where ``nvidia-smi`` does not answer.
    """
    count = _listed_by_driver(environment)
    if count is None:
        count = sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in devices.glob("nvidia*"))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return count
    # CUDA stops at the first one that is none, such as -1.
    names = [name.strip() for name in visible.split(",")]
    seen = next((n for n, name in enumerate(names) if not name or name.startswith("-")), len(names))
    return min(count, seen)


def _listed_by_driver(environment: Mapping[str, str]) -> int | None:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return len(re.findall(r"^GPU \d+:", done.stdout, re.M))


def said_of_devices(plan: Plan, gpus: int) -> str:
    """Return what to say before jobs compute with networks on this machine; empty when there is nothing to say."""
    jobs = [job for job in plan.jobs if job.gpus]
    if not jobs:
        return ""
    if not gpus:
        trained = sum(job.rule in TRAINING for job in jobs)
        if trained:
            what = "1 network trains" if trained == 1 else f"{trained} networks train"
        else:
            what = f"{jobs_in_words(len(jobs))} with networks {'runs' if len(jobs) == 1 else 'run'}"
        return f"no GPU on this machine: {what} on its CPU"
    if plan.gpus is not None and plan.gpus < gpus:
        return f"{gpus} GPUs on this machine, {plan.gpus} of them used at a time: --resources gpu={gpus} uses all"
    return ""
