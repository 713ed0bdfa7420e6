"""Files are whole or absent; steps tell users what is wrong without a traceback."""

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from marrowflow.cli import progress
from marrowflow.errors import UserError
from marrowflow.files import sha256_of, write_json, write_table, written_whole

WORKFLOW = Path(__file__).parents[2] / "workflow"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "result.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as beside:
        beside.write_text("half")
        raise RuntimeError("killed")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.csv"]


def test_machines_do_not_share_a_name(tmp_path, monkeypatch):
    """Their processes may have one number."""
    names = set()
    for host in ("node-1.cluster", "node-2.cluster"):
        monkeypatch.setattr(platform, "node", lambda host=host: host)
        with written_whole(tmp_path / "table.csv") as beside:
            beside.write_text("x")
            names.add(beside.name)
    assert names == {f".table.node-{number}cluster.{os.getpid()}.part.csv" for number in (1, 2)}


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    monkeypatch.setattr(platform, "node", lambda: "node-1.cluster")
    left = tmp_path / f".table.node-1cluster.{dead.pid}.part.csv"
    others = [
        tmp_path / f".table.node-1cluster.{os.getppid()}.part.csv",
        tmp_path / f".other.node-1cluster.{dead.pid}.part.csv",
        tmp_path
        / f".table.node-2cluster.{dead.pid}.part.csv",  # of another machine, where that number may live
    ]
    for path in (left, *others):
        path.write_text("half")
    write_table(tmp_path / "table.csv", pd.DataFrame({"a": [1]}))
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "table.csv"])


def test_a_folder_that_cannot_be_made_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"cannot be written .*choose another folder"):
        write_table(tmp_path / "file" / "t.csv", pd.DataFrame({"x": [1]}))


def test_tables_and_json_are_written_under_folders_that_are_made(tmp_path):
    write_table(tmp_path / "a" / "t.csv", pd.DataFrame({"x": [1]}))
    write_json(tmp_path / "b" / "v.json", {"b": 1, "a": 2})
    assert (tmp_path / "a" / "t.csv").read_text() == "x\n1\n"
    assert (tmp_path / "b" / "v.json").read_text().index('"a"') < (
        tmp_path / "b" / "v.json"
    ).read_text().index('"b"')
    with pytest.raises(ValueError):
        write_json(tmp_path / "b" / "nan.json", {"x": float("nan")})
    assert not (tmp_path / "b" / "nan.json").exists()


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()


def test_progress_counts_what_it_yields(capsys):
    assert list(progress(range(3), "reading", unit="images")) == [0, 1, 2]
    assert "reading: 3/3 images" in capsys.readouterr().out


def run_step(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "marrowflow", *arguments],
        cwd=WORKFLOW,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_lists_its_steps_and_refuses_others():
    assert "statistics.accuracy" in run_step("--help").stdout
    unknown = run_step("statistics.acuracy")
    assert unknown.returncode == 2
    assert "no step named 'statistics.acuracy'" in unknown.stderr


def test_explain_needs_no_package_but_snakemake():
    """Where each rule has its own environment, Snakemake is alone in the one that a user calls."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "marrowflow", "explain", "--help"],  # no site-packages
        cwd=WORKFLOW,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "nothing is run" in done.stdout, done.stderr


def test_what_answers_on_the_terminal_writes_no_log():
    done = run_step("reference", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    refused = run_step("lineage", "nowhere/results.csv", "--results", "nowhere")
    assert refused.returncode != 0
    assert "took" not in refused.stderr


def test_a_users_error_is_one_message_without_a_traceback():
    failed = run_step("statistics.accuracy", "--predictions", "nowhere.csv", "--options", "{}", "--out", "x")
    assert failed.returncode != 0
    assert "nowhere.csv" in failed.stderr
    assert "Traceback" not in failed.stderr
