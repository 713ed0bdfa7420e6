"""Which code and which software made the results: the commit, the machine's kind, the versions of all packages."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from marrowflow.records.jobs import Job, Jobs

# What a run depends on beside its data; a user's other files in the checkout make no difference.
_WATCHED = ("Snakefile", "config.yaml", "envs", "profiles", "resources", "workflow")
_MOST_NAMED = 50


def commit(project: Path) -> dict[str, Any]:
    """Return the commit that is checked out, and whether what the workflow reads differs from it.

    Returns
    -------
    dict
        ``commit`` (40 digits or "unknown"), ``dirty`` (None when unknown), ``changed`` (files that differ or that the
        commit does not have) and ``reason`` (why it is unknown, else empty).
    """
    unknown: dict[str, Any] = {"commit": "unknown", "dirty": None, "changed": []}
    try:
        if _git(project, "ls-files", "--error-unmatch", "Snakefile") is None:
            return unknown | {
                "reason": "the workflow's folder is no git checkout, or its Snakefile is not in it"
            }
        head = _git(project, "rev-parse", "HEAD")
        status = _git(project, "status", "--porcelain", "-z", "--", *_WATCHED)
    except FileNotFoundError:
        return unknown | {"reason": "git is not installed where the run was described"}
    if head is None or status is None:
        return unknown | {"reason": "git cannot read the checkout"}
    changed = sorted(line[3:] for line in status.split("\0") if line[2:3] == " ")
    return {"commit": head.strip(), "dirty": bool(changed), "changed": changed[:_MOST_NAMED], "reason": ""}


def machine() -> dict[str, Any]:
    """Return the kind of machine that described the run; not its name."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def environments(jobs: Jobs) -> dict[str, Any]:
    """Return the packages that each rule's jobs ran with.

    Returns
    -------
    dict
        ``interpreter``: name → version of all packages where the run was described, which are those of every rule not
        under ``rules``; ``rules``: rule → name → pin, of rules whose jobs ran in conda environments of their own.
    """
    pins = {job.rule: pins_of(job) for job in jobs.jobs if job.environment}
    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return {
        "interpreter": dict(sorted(found.items(), key=lambda item: item[0].lower())),
        "rules": dict(sorted(pins.items())),
    }


def pins_of(job: Job) -> dict[str, str]:
    """Return the pins of a job's conda environment, as its file gives them."""
    try:
        listed = yaml.safe_load(job.environment)["dependencies"]
    except (yaml.YAMLError, KeyError, TypeError):
        return {}
    if not isinstance(listed, list):
        return {}
    pairs = (text.partition("=") for text in listed if isinstance(text, str))
    return {name.strip(): pin.strip("= ") for name, _, pin in pairs}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints; None when it fails. Locks are left alone: a run may be watched by another git."""
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None
