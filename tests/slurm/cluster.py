"""A real SLURM of three simulated nodes on this machine, and Snakemake run on it.

``slurm-local.sh`` of ../shared/hpc installs and starts it; it needs root. One machine holds one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from project import ROOT

T = TypeVar("T")

SCRIPT = ROOT.parent / "shared/hpc/slurm-local.sh"
# Ingestion asks for 4 processors; training for 8 GB, and 8 more each time it is tried again. What is not there is only counted.
SIZE = {"NODES": "3", "CPUS": "4", "MEM_MB": "40000", "GPUS": "1"}
PROFILE = ["--workflow-profile", "profiles/slurm"]
# No more at a time than a small machine can do, and looks at the queue as often as its short jobs end.
SMALL = ["--jobs", "4", "--slurm-init-seconds-before-status-checks", "5"]
PATIENCE = 600
"""Seconds until something that must happen counts as not happening, on a machine with other work."""


def missing() -> str:
    """Return why no SLURM can be started here; empty where one can."""
    if os.geteuid() != 0:
        return "SLURM is started by root only"
    return "" if SCRIPT.is_file() else f"there is no {SCRIPT}"


def slurm(*arguments: str) -> str:
    """Run a command of SLURM, or ``slurm-local.sh``; return what it prints."""
    done = subprocess.run(
        arguments,
        env={**os.environ, **SIZE},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def started() -> Iterator[None]:
    """Start a SLURM; stop it whatever happens."""
    # What an earlier, killed run has left.
    slurm(str(SCRIPT), "stop")
    try:
        slurm(str(SCRIPT), "start")
        yield
    finally:
        slurm(str(SCRIPT), "stop")


def wait_for(found: Callable[[], T], what: str, every: float = 0.2) -> T:
    """Return the first answer that is not empty, asked for every so many seconds."""
    deadline = time.monotonic() + PATIENCE
    while not (answer := found()):
        assert time.monotonic() < deadline, f"in {PATIENCE} s not seen: {what}"
        time.sleep(every)
    return answer


@dataclass
class Job:
    """A job of Snakemake's in SLURM's queue."""

    number: str
    node: str

    def field(self, name: str) -> str:
        """Return a field of what SLURM knows about the job; empty where it has none."""
        found = re.search(rf"\b{name}=(\S+)", slurm("scontrol", "show", "job", self.number))
        return found[1] if found else ""


class Run:
    """Snakemake on the simulated cluster, in a process group of its own, as a terminal gives it one."""

    def __init__(self, project: Path, *arguments: str) -> None:
        self.project = project
        self._log = project / "snakemake.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *PROFILE, *SMALL, *arguments],
                cwd=project,
                env={
                    **os.environ,
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "MPLBACKEND": "Agg",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Tests that were started in the background would pass on that ctrl-C is ignored there.
                preexec_fn=_heed_ctrl_c,
            )

    @property
    def output(self) -> str:
        """Everything that it has said so far."""
        return self._log.read_text()

    def jobs(self, rule: str, state: str) -> list[Job]:
        """Return the rule's jobs that are in a state of SLURM's."""
        lines = slurm("squeue", "--noheader", "--states", state, "--format", "%i|%N|%k|%Z").splitlines()
        return [
            Job(number, node)
            for number, node, comment, folder in (line.split("|") for line in lines)
            if Path(folder) == self.project and comment.startswith(f"rule_{rule}")
        ]

    def running(self, rule: str) -> Job:
        """Wait until a job of the rule runs."""
        return wait_for(lambda: self.alive() and self.jobs(rule, "RUNNING"), f"a job of {rule}")[0]

    def alive(self) -> bool:
        """Fail with all that it said where it has ended."""
        assert self.process.poll() is None, self.output[-20_000:]
        return True

    def finish(self) -> str:
        """Wait for its end, which must be a good one; return what it said."""
        assert self.process.wait(PATIENCE) == 0, self.output[-20_000:]
        return self.output

    def stop(self) -> None:
        """End it and its jobs; for the end of a test that failed half-way."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for line in slurm("squeue", "--noheader", "--format", "%i|%Z").splitlines():
            number, folder = line.split("|")
            if Path(folder) == self.project:
                slurm("scancel", number)


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def training_process(project: Path) -> int:
    """Return the process that trains in a project."""

    def found() -> list[int]:
        return [
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and _trains(path, project)
        ]

    return wait_for(found, "a process that trains")[0]


def _trains(process: Path, project: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")
        return command[2:4] == [b"marrowflow", b"learning.train"] and (process / "cwd").readlink() == project
    except OSError:  # it has ended meanwhile
        return False
