"""Real runs of Snakemake that a test may break: in a session of their own, watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from marrowflow.files import sha256_of


class Run:
    """Snakemake under way in a project, as a terminal starts it: all of its jobs are in one process group."""

    def __init__(self, project: Path, *arguments: str) -> None:
        self.project, self._terminal = project, project / "terminal.txt"
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment |= {"MPLBACKEND": "Agg"}
        with self._terminal.open("wb") as terminal:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
                cwd=project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Tests that run in the background have it ignored, and hand that on.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._terminal.read_text(errors="replace")

    def job(self, step: str) -> psutil.Process | None:
        """Return the Python process of a step that is under way, whoever its parent is now."""
        for process in self._of_its_session():
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            if "python" in Path((command or [""])[0]).name and command[2:4] == ["marrowflow", step]:
                return process
        return None

    def until(self, happens: Callable[[], object], what: str) -> None:
        """Wait until something happens while the run is under way."""
        deadline = time.monotonic() + 900
        while not happens():
            assert self._process.poll() is None, f"it ended before {what}:\n{self.said}"
            assert time.monotonic() < deadline, f"no sign of {what}:\n{self.said}"
            time.sleep(0.005)

    def until_job(self, step: str, happens: Callable[[], object] = lambda: True) -> None:
        """Wait until a step is under way, and something has happened since."""
        self.until(lambda: self.job(step) is not None and happens(), step)

    def interrupt(self) -> int:
        """Press ctrl-C; return the exit code."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.end()

    def kill_scheduler(self) -> None:
        """Kill Snakemake and leave its jobs alone."""
        self._process.kill()
        self._process.wait()

    def kill_all(self) -> None:
        """Kill Snakemake with its jobs, as the loss of the machine would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        return self._process.wait(timeout=900)

    def gone(self, seconds: float) -> bool:
        """Return whether all of its processes end within so many seconds."""
        deadline = time.monotonic() + seconds
        while self._of_its_session():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def stop(self) -> None:
        """Leave nothing behind, whatever has failed."""
        for process in self._of_its_session():
            process.kill()
        self._process.wait()

    def _of_its_session(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self._process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, ProcessLookupError):
                continue
        return found


def checksums(folder: Path, without: Sequence[str] = ()) -> dict[str, str]:
    """Return the checksum of each file below a folder by its path, but for parts of the path in ``without``."""
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not set(path.relative_to(folder).parts) & set(without)
    }
