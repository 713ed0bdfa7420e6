"""A copy of the project in a temporary folder, and Snakemake run in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "config.yaml", "profiles", "workflow", "envs", "resources")
# What is compiled or half written, and what a dry run beside us may be writing.
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*.part*", "iocache")

# The line that the README tells a newcomer to add.
DELTA = "delta\texternal\tresources/demo/delta/manifest.csv\tHospital D (painted)\tpainted by this project\n"


def copy_project(target: Path, source: Path = ROOT, keep_times: bool = True) -> Path:
    """Copy a project, with its results and Snakemake's records where it has them."""
    target.mkdir(parents=True)
    copy = shutil.copy2 if keep_times else shutil.copy
    for part in (*PARTS, "results", ".snakemake"):
        path = source / part
        if source == ROOT and part in ("results", ".snakemake"):
            continue
        if path.is_dir():
            shutil.copytree(path, target / part, copy_function=copy, ignore=LEFT_OUT)
        elif path.is_file():
            copy(path, target / part)
    return target


def snakemake(project: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a project with this interpreter's environment; fail with its whole output."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MPLBACKEND": "Agg",
    }
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout[-20_000:]
    return done


def planned(project: Path, *arguments: str) -> dict[str, int]:
    """Return the number of jobs of each rule that a dry run would do; empty when there is nothing to do."""
    output = snakemake(project, "-n", "--cores", "2", *arguments).stdout
    if "Nothing to be done" in output:
        return {}
    table = re.search(r"^Job stats:\n.*?\n-.*?\n(.*?)^total", output, re.M | re.S)
    assert table, output
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table[1], re.M)}


def add_cohort(project: Path, line: str) -> None:
    """Add a line to the project's cohort table."""
    with (project / "resources/cohorts.tsv").open("a") as table:
        table.write(line)


def replace(path: Path, old: str, new: str) -> None:
    """Replace a text that stands in a file exactly once."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))
