"""What the log of a step begins and ends with, whatever happens to the step: real processes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from project import ROOT

from marrowflow import files, step_log
from marrowflow.step_log import StepLog, job_name

TABLE = pd.DataFrame(
    {
        "case_id": ["a", "b", "c", "d"],
        "patient_id": ["p", "q", "r", "s"],
        "truth": ["AML", "AML", "CML", "CML"],
        "predicted": ["AML", "CML", "CML", "CML"],
    }
)
OPTIONS = json.dumps({"accuracy": {"replicates": 100}})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "it's a table.csv"
    TABLE.to_csv(path, index=False)
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "SECRET_TOKEN": "hunter2"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "marrowflow", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def accuracy(table: Path) -> list[str]:
    return ["statistics.accuracy", "--predictions", table.name, "--options", OPTIONS, "--out", "out"]


def test_the_log_of_a_step_that_succeeds(table: Path, tmp_path: Path) -> None:
    ballast = np.ones(75_000_000)  # 600 MB of this process, which are not the step's
    done = run(tmp_path, *accuracy(table))
    del ballast
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert shlex.split(lines[0]) == ["python", "-m", "marrowflow", *accuracy(table)]
    host = os.uname().nodename
    assert re.match(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, on {host}, process \d+, ", lines[1])
    assert lines[1].endswith(f", in {tmp_path}")
    assert lines[2] == f"given --predictions: {table.name} ({table.stat().st_size} bytes)"
    used = lines[3].removeprefix("Python ").split(", ")
    assert used[0] == ".".join(map(str, sys.version_info[:3]))
    assert f"pandas {version('pandas')}" in used
    assert f"numpy {version('numpy')}" in used
    assert not any(name.startswith("torch") for name in used)  # statistics need none
    written = {line.removeprefix("wrote ").partition(" (")[0] for line in lines if line.startswith("wrote ")}
    assert written == {f"out/{path.name}" for path in (tmp_path / "out").iterdir()}
    metrics = (tmp_path / "out" / "metrics.csv").stat().st_size
    assert any(re.fullmatch(rf"wrote out/metrics.csv \({files.in_bytes(metrics)}\)", line) for line in lines)
    took = re.fullmatch(r"took ([\d.]+) s, at most (\d+) MB of memory", lines[-2])
    assert took is not None
    assert 30 < int(took[2]) < 600  # pandas alone takes more than the one
    assert lines[-1] == "done"
    assert "hunter2" not in done.stderr


def test_the_first_line_does_the_same_again(table: Path, tmp_path: Path) -> None:
    first = run(tmp_path, *accuracy(table))
    results = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    line = first.stderr.splitlines()[0]
    pasted = line.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
    subprocess.run(["bash", "-c", pasted], cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == results


def test_an_error_comes_last(table: Path, tmp_path: Path) -> None:
    table.write_text("case_id,truth\na,AML\n")
    failed = run(tmp_path, *accuracy(table))
    assert failed.returncode == 1
    lines = failed.stderr.splitlines()
    assert lines[0].startswith("python -m marrowflow statistics.accuracy")
    (told,) = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    assert lines[told - 1].startswith("took ")
    assert all(line.startswith("  - ") for line in lines[told + 1 :])
    assert "done" not in lines


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, which stands for a full disk")
@pytest.mark.parametrize("spoilt", [False, True])
def test_a_log_that_cannot_be_written_hides_no_error_and_costs_no_result(
    table: Path, tmp_path: Path, spoilt: bool
) -> None:
    if spoilt:
        table.write_text("case_id,truth\na,AML\n")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "marrowflow", *accuracy(table)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
        )
    assert ("error: " in done.stdout) == spoilt
    assert (tmp_path / "out" / "metrics.csv").exists() == (not spoilt)
    assert done.returncode == int(spoilt)


def test_a_refused_usage_comes_last(tmp_path: Path) -> None:
    failed = run(tmp_path, "statistics.accuracy", "--predictions", "none.csv", "--out", "out")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].endswith("no such file: none.csv")


def test_a_bug_ends_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from types import SimpleNamespace

    from marrowflow import __main__ as command

    def bug(_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(command.importlib, "import_module", lambda _: SimpleNamespace(main=bug))
    with pytest.raises(KeyError, match="a bug"):
        command.main(["statistics.accuracy"])
    assert capsys.readouterr().err.splitlines()[-1].startswith("took ")


def test_help_is_only_help(tmp_path: Path) -> None:
    told = run(tmp_path, "statistics.accuracy", "--help")
    assert told.returncode == 0
    assert told.stdout.startswith("usage: python -m marrowflow statistics.accuracy")
    assert told.stderr == ""


SLOW = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from marrowflow import __main__ as command
from marrowflow.files import written_whole

def main(argv):
    with written_whole(Path("result.csv")) as beside:
        beside.write_text("half")
        try:
            print("writing", flush=True)
            time.sleep(60)
        finally:
            time.sleep(0.5)
            print("tidied up", flush=True)

command.importlib.import_module = lambda _: SimpleNamespace(main=main)
sys.exit(command.main(["statistics.accuracy"]))
"""


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGINT, 130, "interrupted (ctrl-C); "), (signal.SIGTERM, 143, "interrupted (SIGTERM: ")],
)
def test_a_step_that_is_told_to_end_tidies_up_and_says_so(
    tmp_path: Path, number: signal.Signals, status: int, told: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    (part,) = [path.name for path in tmp_path.iterdir()]
    assert re.fullmatch(rf"\.result\.[A-Za-z0-9_-]*\.{process.pid}\.part\.csv", part)
    process.send_signal(number)
    if number == signal.SIGTERM:  # batch systems send several
        time.sleep(0.1)
        process.send_signal(number)
    rest, log = process.communicate(timeout=30)
    assert rest == "tidied up\n"
    assert process.returncode == status
    assert log.splitlines()[-1].startswith(told)
    assert "Traceback" not in log
    assert list(tmp_path.iterdir()) == []


def test_many_inputs_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["reporting.study", "--options", "{" + "x" * 5000, "--out", "out"]
    (tmp_path / "out").mkdir()
    for flag in range(12):
        argv.append(f"--flag{flag}")
        for file in range(200):
            path = tmp_path / f"{flag}_{file}.csv"
            path.write_bytes(bytes(10))
            argv.append(path.name)
    StepLog(argv).begin()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 12
    assert lines[2] == "given --flag0: 200 files of 2.0 kB, the first 0_0.csv (10 bytes)"
    assert lines[-1] == "given otherwise: 800 files of 8.0 kB"
    assert not any(line.startswith(("given --out", "given --options")) for line in lines)


def test_files_that_went_are_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state that was kept for resuming, say; and a file that was written twice is told once."""
    monkeypatch.setattr(files, "_written", {})
    for name in ("kept.csv", "gone.csv", "kept.csv"):
        files.write_text(tmp_path / name, name)
    (tmp_path / "gone.csv").unlink()
    (tmp_path / "pictures").mkdir()
    files.note_written(tmp_path / "pictures")
    StepLog(["images.materialise"]).done()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"wrote {tmp_path / 'kept.csv'} (8 bytes)", f"wrote {tmp_path / 'pictures'}/"]
    assert lines[2].startswith("took ")


def test_many_written_files_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "_written", {})
    for number in range(50):
        files.write_text(tmp_path / f"{number}.csv", "x")
    StepLog(["statistics.accuracy"]).done()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 22
    assert lines[19] == "wrote 31 files of 31 bytes more"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["learning.train", "--out", "results/demo/training/sound/a/raw/2"], "learning.train training/sound/a/raw/2"),
        (["cohorts.intake", "--out", "results/demo/cohorts/beta/inventory.parquet"], "cohorts.intake cohorts/beta"),
        (["reporting.audit", "--out", "results/demo/audit.json"], "reporting.audit"),
        (["statistics.accuracy", "--out=tables", "--unit", "case"], "statistics.accuracy tables"),
        (["records.describe"], "records.describe"),
    ],
)  # fmt: skip
def test_a_job_is_named_by_its_step_and_what_it_is_about(argv: list[str], expected: str) -> None:
    assert job_name(argv) == expected


def test_the_packages_are_those_of_the_requirements() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert set(step_log.PACKAGES.values()) == pinned
    importable = packages_distributions()
    for name, distribution in step_log.PACKAGES.items():
        assert name in importable, f"{distribution} is imported by another name"
