"""Progress that can be read: of one job on a terminal, and of several that share one."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from project import ROOT

from marrowflow import cli
from marrowflow.cli import in_time, progress

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that is set by hand."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(cli, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def taking(clock: SimpleNamespace, seconds: float, items: int) -> Iterator[int]:
    """Items that take so many seconds each."""
    for item in range(items):
        clock.seconds += seconds
        yield item


def test_lines_tell_the_job_the_rate_and_the_time_left(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_job", "learning.train training/sound/a/raw/2")
    assert list(progress(taking(clock, 6, 10), "fold 2 epoch 3/9", 10, "batches")) == list(range(10))
    # The time of an item is that of what is done with it, too: the line comes after it.
    begin = "learning.train training/sound/a/raw/2: fold 2 epoch 3/9: "
    assert capsys.readouterr().out.splitlines() == [
        f"{begin}3/10 batches, 6.0 s each, 42 s left",
        f"{begin}6/10 batches, 6.0 s each, 24 s left",
        f"{begin}9/10 batches, 6.0 s each, 6.0 s left",
        f"{begin}10/10 batches, 6.0 s each, done in 1 min 00 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "rate"), [(0.01, "100 images/s"), (0.2, "5.0 images/s"), (2.5, "2.5 s each")]
)
def test_rates_are_told_in_readable_numbers(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str], seconds: float, rate: str
) -> None:
    list(progress(taking(clock, seconds, 20), "read", unit="images"))
    assert f"read: 20 images, {rate}, done in " in capsys.readouterr().out.splitlines()[-1]


def test_one_item_is_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(["sound"], "report", unit="protocol")) == ["sound"]
    assert list(progress([], "report", unit="protocol")) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_times_are_told_in_units(seconds: float, text: str) -> None:
    assert in_time(seconds) == text


JOB = """
import sys, time
from marrowflow import cli
cli.start_logging(sys.argv[1])
cli._LINE_EVERY = 0
for _ in cli.progress(range(200), "epoch 1", unit="batches"):
    time.sleep(0.0005)
"""


def on_a_terminal(jobs: list[str], log: int | None) -> str:
    """Return what jobs that run at once write to one terminal; their messages go to ``log``, or to it as well."""
    ours, theirs = pty.openpty()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, job], stdout=theirs, stderr=log or theirs, env=ENVIRONMENT
        )
        for job in jobs
    ]
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65536):
            parts.append(part)
    except OSError:  # how Linux tells that the last writer closed a terminal
        pass
    assert [process.wait(30) for process in started] == [0] * len(jobs)
    os.close(ours)
    return b"".join(parts).decode()


def test_jobs_that_share_a_terminal_write_whole_lines() -> None:
    text = on_a_terminal(["job one", "job two"], subprocess.DEVNULL)
    lines = text.replace("\r\n", "\n").splitlines()
    assert len(lines) == 400
    assert all(re.match(r"job (one|two): epoch 1: \d+/200 batches, ", line) for line in lines), lines
    assert "\r" not in text.replace("\r\n", "")  # no bar, which would overwrite the other job's
    order = [line[:7] for line in lines]
    assert order != sorted(order)  # they did run at once


def test_a_step_run_by_hand_draws_a_bar() -> None:
    text = on_a_terminal(["job one"], None)
    assert "epoch 1: 100%" in text
    assert "\r" in text.replace("\r\n", "")
