"""Say in plain words what a run would do, and why: ``python -m marrowflow explain [--] [ARGUMENTS OF SNAKEMAKE]``.

Asks Snakemake itself, by a dry run; nothing is run. The exit status is that of ``snakemake -n``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from marrowflow.errors import UserError
from marrowflow.watch.causes import Cause, find_causes
from marrowflow.watch.console import PLAN_FILE
from marrowflow.watch.durations import Durations, read_durations, time_left
from marrowflow.watch.plan import Plan
from marrowflow.watch.words import TRAINING, by_stage, counted_by_rule, jobs_in_words, listed, time_in_words

MOST = 6
"""Causes that are told one by one."""

# They run no job, but do something of their own, most of them in a dry run, too.
_ACTING = (
    "--archive",
    "--cleanup-metadata",
    "--cleanup-shadow",
    "--cm",
    "--conda-cleanup-envs",
    "--conda-create-envs-only",
    "--container-cleanup-images",
    "--delete-all-output",
    "--delete-temp-output",
    "--deploy-sources",
    "--draft-notebook",
    "--edit-notebook",
    "--generate-unit-tests",
    "--report",
    "--reporter",
    "--touch",
    "--unlock",
)


def ask_snakemake(arguments: Sequence[str]) -> Plan:
    """Return what a run with these arguments would do.

    Raises
    ------
    SystemExit
        With Snakemake's own status, its messages printed, when the dry run fails.
    UserError
        When Snakemake would do something by itself, or tells nothing of its plan.
    """
    asked = _as_dry_run(arguments)
    with tempfile.TemporaryDirectory(prefix="marrowflow-") as folder:
        path = Path(folder) / "plan.json"
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *asked],
            env={**os.environ, PLAN_FILE: str(path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            print(_in_brief(done.stdout), file=sys.stderr)
            raise SystemExit(done.returncode)
        try:
            return Plan.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                "Snakemake told nothing of what it plans: these arguments run no job, or this Snakemake is another "
                f"one than the pinned one. See `snakemake -n`. Its last words:\n{done.stdout.strip()[-2000:]}"
            ) from error


def _as_dry_run(arguments: Sequence[str]) -> list[str]:
    """Return Snakemake's arguments for a dry run; refuse those with which it would do something by itself."""
    # After a "--" stand targets only.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, targets = arguments[:end], arguments[end:]
    for option in options:
        name = option.partition("=")[0]
        # Snakemake takes the beginning of an option for the whole of it.
        acts = len(name) > 2 and name.startswith("--") and any(full.startswith(name) for full in _ACTING)
        if acts or name == "-t":
            raise UserError(
                f"{name} runs no job but does something by itself, and explain only says what a run would do: "
                "leave it out here, or give it to snakemake"
            )
    # Quiet, because a dry run then ends where its plan is known. Last of the options, because targets may come first.
    return [*options, "--dry-run", "--quiet", *targets]


def _in_brief(printed: str) -> str:
    """Return what a failed dry run printed, without what comes before its plan; of a bug's traceback the last line."""
    said = printed.rpartition("Building DAG of jobs...")[2].strip()
    return said.splitlines()[-1] if "Traceback (most recent call last)" in said else said


def told(plan: Plan, durations: Durations) -> list[str]:
    """Return a plan in plain words, line by line."""
    if not plan.jobs:
        return ["Nothing to do: every result is there and made of what is there now."]
    chief, beside = find_causes(plan)
    lines = [
        f"{jobs_in_words(len(plan.jobs))} will run; {_trained(plan, durations)}.",
        _time(plan, durations),
        "",
        "Why:",
    ]
    lines += [f"- {_cause(cause)}" for cause in chief[:MOST]]
    if len(chief) > MOST:
        rest = frozenset().union(*(cause.jobs for cause in chief[MOST:]))
        lines.append(f"- {len(chief) - MOST} further changes: {jobs_in_words(len(rest))}")
    if beside:
        lines.append(f"- in jobs that run anyway: {listed([cause.text for cause in beside], MOST)}")
    lines += ["", "What is made:"]
    stages = by_stage(plan.jobs)
    width = max(map(len, stages))
    return [*lines, *(f"  {stage:{width}}  {counted_by_rule(jobs)}" for stage, jobs in stages.items())]


def _cause(cause: Cause) -> str:
    after = len(cause.reach) - len(cause.jobs)
    own = jobs_in_words(len(cause.jobs))
    return f"{cause.text}: {own}" + (f", and {after} that follow{'s' * (after == 1)}" if after else "")


def _trained(plan: Plan, durations: Durations) -> str:
    """Return which networks train, and for how long."""
    jobs = [job for job in plan.jobs if job.rule in TRAINING]
    if not jobs:
        return "nothing trains"
    tests = Counter("-".join(job.wildcards.get(name, "") for name in ("model", "colour")) for job in jobs)
    which = listed([f"{count} of {test}" for test, count in sorted(tests.items())])
    trains = "1 network trains" if len(jobs) == 1 else f"{len(jobs)} networks train"
    seconds, unknown = time_left(jobs, plan, durations)
    how_long = "for how long is unknown" if unknown else f"about {time_in_words(seconds)} by earlier runs"
    return f"{trains} ({which}): {how_long}"


def _time(plan: Plan, durations: Durations) -> str:
    seconds, unknown = time_left(plan.jobs, plan, durations)
    if plan.cores is not None:
        at = f"on {plan.cores} {'core' if plan.cores == 1 else 'cores'}"
    else:
        at = f"with {plan.slots or 'all'} jobs at a time, waiting in the queue not counted"
    if not unknown:
        return f"All of it takes about {time_in_words(seconds)} {at}, by earlier runs."
    if not seconds:
        return "How long it takes is unknown: nothing of it has run before."
    return f"All of it takes at least {time_in_words(seconds)} {at}, without {listed(unknown)}, which never ran before."


def main(argv: list[str]) -> None:
    """Print what a run would do, and why."""
    parser = argparse.ArgumentParser(
        prog="python -m marrowflow explain",
        usage="%(prog)s [-h] [--] [ARGUMENTS]",
        description="Say what a run would do, and why; nothing is run. ARGUMENTS are as snakemake would be given them.",
        epilog="Example: python -m marrowflow explain -- --cores 8 --configfile my_study.yaml",
    )
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        raise SystemExit(0)
    # All others are Snakemake's own, of which argparse knows nothing.
    plan = ask_snakemake(argv[1:] if argv[:1] == ["--"] else argv)
    print("\n".join(told(plan, read_durations(plan.jobs))))
