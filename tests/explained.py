"""What `python -m marrowflow explain` says of a project, as text and as numbers of jobs, and what a run then did."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from marrowflow.watch.words import STAGES


def explain(project: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Ask what a run in a project would do; standard output and error are kept apart."""
    done = ask(project, project / "workflow", "--", "--cores", "2", *arguments)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def ask(folder: Path, package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``explain`` with exactly these arguments, in a folder with a Snakefile, out of the folder that holds the package."""
    return subprocess.run(
        [sys.executable, "-m", "marrowflow", "explain", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def jobs_said(text: str) -> dict[str, int]:
    """Return how many jobs of each rule an explanation speaks of, by its words for what they make."""
    rule_of = {word: rule for rules in STAGES.values() for rule, words in rules.items() for word in words}
    lines = text.partition("What is made:\n")[2].splitlines()
    parts = [part for line in lines for part in re.split(r", (?=\d)", line.split(maxsplit=1)[1])]
    counts = [part.split(" ", 1) for part in parts]
    return {rule_of[word]: int(count) for count, word in counts}


def last_run(project: Path) -> dict[str, int]:
    """Return the number of jobs of each rule that the last run started, from the log that Snakemake keeps of it."""
    log = max((project / ".snakemake/log").glob("*.log"))
    started = Counter(re.findall(r"^(?:local)?rule (\w+):$", log.read_text(), re.M))
    return {rule: count for rule, count in started.items() if rule != "all"}
