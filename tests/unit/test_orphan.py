"""A step ends with the run that started it, and tidies up; by itself it goes on. Real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import marrowflow
from marrowflow.orphan import RUN

STEP = """
import signal, sys, time
from pathlib import Path
from marrowflow import orphan
from marrowflow.files import written_whole
from marrowflow.step_log import Terminated, ending_in_order

orphan._GRACE = 0.2
with ending_in_order():
    try:
        orphan.end_with_run()
        with written_whole(Path(sys.argv[1])) as beside:
            beside.write_text("half")
            if "deaf" in sys.argv:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("writing", flush=True)
            time.sleep(float(sys.argv[2]))
    except Terminated:
        sys.exit(143)
"""


@pytest.fixture
def run() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for Snakemake's."""
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def step(path: Path, run: int | None, seconds: float = 300, *more: str) -> subprocess.Popen[str]:
    """Start a step that writes for so long."""
    environment = {**os.environ, "PYTHONPATH": str(Path(marrowflow.__file__).parents[1])}
    environment.pop(RUN, None)
    if run is not None:
        environment[RUN] = str(run)
    return subprocess.Popen(
        [sys.executable, "-c", STEP, str(path), str(seconds), *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_it_writes(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"


def test_it_ends_with_the_run_and_tidies_up(tmp_path: Path, run: subprocess.Popen[bytes]) -> None:
    process = step(tmp_path / "table.csv", run.pid)
    until_it_writes(process)
    assert len(list(tmp_path.iterdir())) == 1
    run.send_signal(signal.SIGKILL)  # not waited for: a dead process that nobody has asked after is dead
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert f"the run that started this step (process {run.pid}) has ended" in said
    assert list(tmp_path.iterdir()) == []


def test_it_ends_even_if_it_does_not_listen(tmp_path: Path, run: subprocess.Popen[bytes]) -> None:
    process = step(tmp_path / "table.csv", run.pid, 300, "deaf")
    until_it_writes(process)
    run.kill()
    assert process.wait(timeout=120) == 143
    assert not (tmp_path / "table.csv").exists()


def test_it_does_not_begin_when_the_run_is_gone(tmp_path: Path, run: subprocess.Popen[bytes]) -> None:
    run.kill()
    run.wait()
    assert step(tmp_path / "table.csv", run.pid).wait(timeout=120) == 143
    assert list(tmp_path.iterdir()) == []


def test_a_step_of_a_run_that_is_gone_says_so_as_it_does_later(
    tmp_path: Path, run: subprocess.Popen[bytes]
) -> None:
    run.kill()
    run.wait()
    (tmp_path / "p.csv").write_text("")
    ended = subprocess.run(
        [sys.executable, "-m", "marrowflow", "statistics.accuracy", "--predictions", "p.csv", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(marrowflow.__file__).parents[1]), RUN: str(run.pid)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 143
    lines = ended.stderr.splitlines()
    assert lines[0].startswith("python -m marrowflow statistics.accuracy")
    assert f"the run that started this step (process {run.pid}) has ended: so does the step" in lines
    assert lines[-1].startswith("interrupted (SIGTERM")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("watched", [True, False])
def test_otherwise_it_goes_on(watched: bool, tmp_path: Path, run: subprocess.Popen[bytes]) -> None:
    process = step(tmp_path / "table.csv", run.pid if watched else None, 0.5)
    if not watched:
        run.kill()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "table.csv").read_text() == "half"
