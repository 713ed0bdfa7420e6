"""Snakemake's records on a terminal: made as Snakemake makes them, through a logger with its own handlers."""

import io
import logging
import re
from types import SimpleNamespace

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from marrowflow.watch import console as module
from marrowflow.watch.console import Console, attach, event_of
from marrowflow.watch.plan import Plan, PlannedJob


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Run:
    """A logger with a terminal and a log file as Snakemake sets them up, and a console that watches."""

    def __init__(self, jobs, gpus=0, **limits):
        self.terminal_text, self.file_text, self.clock = io.StringIO(), io.StringIO(), Clock()
        self.logger = logging.Logger("snakemake", logging.INFO)
        # The log file's handler comes first in Snakemake's own order or last; it must not matter.
        self.terminal = ColorizingTextHandler(nocolor=True, stream=self.terminal_text)
        self.file = logging.StreamHandler(self.file_text)
        for handler in (self.terminal, self.file):
            handler.addFilter(DefaultFilter(None, False, False, False, False))
            handler.setFormatter(DefaultFormatter(None, show_failed_logs=True))
            self.logger.addHandler(handler)
        plan = Plan(jobs, {"beta": "St. Bee"}, **{"cores": 2, **limits})
        self.console = Console(lambda: plan, self.terminal, self.clock, lambda: gpus)
        self.terminal.addFilter(self.console.leaves)
        self.logger.addHandler(self.console)

    def log(self, event, message=None, level=logging.INFO, **extra):
        self.logger.log(level, message, extra={"event": event, **extra} if event else extra)

    def start(self):
        self.log(LogEvent.RUN_INFO, "Job stats:\njob count", stats={"total": 1})

    def fail(self, jobid, log, **other):
        record = {
            "rule_name": "r",
            "rule_msg": None,
            "jobid": jobid,
            "input": [],
            "output": ["o"],
            "log": [str(log)],
            "conda_env": None,
            "container_img": None,
            "aux": {},
            "indent": False,
            "shellcmd": "python -m marrowflow r",
        }
        self.log(LogEvent.JOB_ERROR, "Error in rule r", logging.ERROR, **{**record, **other})

    def lines(self):
        text = self.terminal_text.getvalue()
        return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in text.splitlines()]


def training(*ids):
    return [
        PlannedJob(n, "train_fold", {"fold": str(n)}, gpus=1, benchmark="none/benchmarks/train_fold/x.tsv")
        for n in ids
    ]


@pytest.fixture
def run():
    made = []

    def start(jobs, **limits):
        made.append(Run(jobs, **limits))
        return made[-1]

    yield start
    for each in made:
        each.console.close()


def test_a_run_is_told_in_few_lines_and_the_log_file_keeps_all(run):
    watched = run([*training(1, 2), PlannedJob(0, "report_study", needs=[1, 2])])
    watched.log(None, "Building DAG of jobs...")
    watched.start()
    for jobid in (1, 2):
        watched.log(None, "Select jobs to execute...")
        watched.log(LogEvent.JOB_STARTED, "Execute 1 jobs...", jobs=[jobid])
        watched.clock.now += 10
        watched.log(LogEvent.JOB_FINISHED, f"Finished jobid: {jobid} (Rule: train_fold)", job_id=jobid)
        watched.log(LogEvent.PROGRESS, None, done=jobid, total=3)
    watched.log(None, "Complete log(s): /here")
    watched.console.close()
    assert watched.lines() == [
        "Building DAG of jobs...",
        "3 jobs to do (training 2, reports 1); time left unknown, for want of an earlier run",
        "no GPU on this machine: 2 networks train on its CPU",
        "training done: 2 networks in 20 s",
        "2 of 3 jobs done; time left unknown, for want of an earlier run",
        "Complete log(s): /here",
        "stopped after 20 s: 2 of 3 jobs done",
    ]
    kept = watched.file_text.getvalue()
    for text in (
        "Job stats:",
        "Execute 1 jobs...",
        "Finished jobid: 1",
        "2 of 3 steps (67%) done",
        "Complete log(s)",
    ):
        assert text in kept


def test_lines_come_at_most_every_fifteen_seconds_while_jobs_end(run):
    watched = run(training(*range(100)))
    watched.start()
    for jobid in range(60):
        watched.log(LogEvent.JOB_STARTED, "Execute 1 jobs...", jobs=[jobid])
        watched.clock.now += 1
        watched.log(LogEvent.JOB_FINISHED, "Finished", job_id=jobid)
    told = [line.split(" jobs done")[0] for line in watched.lines() if " jobs done" in line]
    assert told == ["15 of 100", "30 of 100", "45 of 100", "60 of 100"]


def test_a_failed_job_is_told_at_once_and_again_at_the_end_and_not_its_whole_command(run, tmp_path):
    log = tmp_path / "1.log"
    log.write_text("".join(f"line {n}\n" for n in range(30)) + "error: disk full\n")
    watched = run(training(1, 2))
    watched.start()
    watched.log(LogEvent.JOB_STARTED, "Execute 1 jobs...", jobs=[1])
    watched.log(
        LogEvent.ERROR,
        "RuleException:\nCalledProcessError in file x:\nCommand 'python -m marrowflow --options {…}' returned 1.",
        logging.ERROR,
        exception="RuleException",
    )
    watched.fail(1, log)
    watched.log(
        LogEvent.ERROR,
        "WorkflowError:\nAt least one job did not complete successfully.",
        logging.ERROR,
        exception="WorkflowError",
    )
    watched.console.close()
    text = watched.terminal_text.getvalue()
    assert text.count("train_fold: fold 1") == 2
    assert text.count("error: disk full") == 2
    assert text.count(str(log)) == 2
    assert "line 11\n" in text and "line 10\n" not in text
    assert "--options" not in text
    assert "At least one job did not complete successfully." in text
    assert text.rstrip().endswith("error: disk full")
    assert "line 10\n" in watched.file_text.getvalue() and "--options" in watched.file_text.getvalue()


def test_jobs_that_are_stopped_with_the_run_have_not_failed(run, tmp_path):
    watched = run(training(1, 2))
    watched.start()
    watched.log(LogEvent.JOB_STARTED, "Execute 1 jobs...", jobs=[1])
    watched.clock.now += 30
    watched.log(None, "Terminating processes on user request, this might take some time.")
    watched.fail(1, tmp_path / "1.log")
    watched.console.close()
    assert "FAILED" not in watched.terminal_text.getvalue()
    assert watched.lines()[-1] == "interrupted after 30 s: 0 of 2 jobs done"


def test_a_record_that_looks_different_gives_the_terminal_back_to_snakemake(run):
    watched = run(training(1, 2))
    watched.start()
    watched.log(LogEvent.JOB_STARTED, "Execute 1 jobs...")  # without its jobs
    watched.log(LogEvent.JOB_FINISHED, "Finished jobid: 1 (Rule: train_fold)", job_id=1)
    watched.log(LogEvent.PROGRESS, None, done=1, total=2)
    watched.console.close()
    lines = watched.lines()
    assert "Execute 1 jobs..." in lines
    assert "Finished jobid: 1 (Rule: train_fold)" in lines
    assert "1 of 2 steps (50%) done" in lines
    assert not [line for line in lines if line.startswith("stopped")]


def test_a_plan_that_cannot_be_read_leaves_snakemakes_own_output(run):
    def broken():
        raise AttributeError("no dag")

    watched = run([])
    watched.console._plan = broken
    watched.start()
    watched.log(LogEvent.PROGRESS, None, done=1, total=2)
    assert watched.lines()[0] == "Job stats:"
    assert "1 of 2 steps (50%) done" in watched.lines()


@pytest.mark.parametrize(
    ("gpus", "cores", "said"), [(0, 2, 1), (1, 2, 0), (2, 2, 1), (0, None, 0), (2, None, 0)]
)
def test_devices_are_told_once_and_not_of_a_cluster(run, gpus, cores, said):
    watched = run(training(1, 2), gpus=gpus, cores=cores)
    watched.console._plan = lambda: Plan(training(1, 2), cores=cores, gpus=1)
    watched.start()
    watched.start()
    assert watched.terminal_text.getvalue().count("on this machine") == said


def test_nothing_to_do_and_touched_files_say_nothing(run):
    watched = run([])
    watched.start()
    watched.console.close()
    assert watched.lines() == []


def workflow(**settings):
    given = {
        "dryrun": False,
        "quiet": None,
        "verbose": False,
        "printshellcmds": False,
        "debug_dag": False,
        **settings,
    }
    return SimpleNamespace(
        is_main_process=True, logger_manager=SimpleNamespace(settings=SimpleNamespace(**given))
    )


@pytest.fixture
def snakemakes_logger(monkeypatch):
    """A logger of its own in place of Snakemake's, with the handler of its terminal."""
    monkeypatch.setattr(module, "_LOGGER", "watched-in-a-test")
    logger = logging.getLogger("watched-in-a-test")
    terminal = logging.StreamHandler(io.StringIO())
    terminal.name = module._TERMINAL
    logger.addHandler(terminal)
    yield logger
    logger.handlers.clear()


def test_a_plain_run_is_watched(snakemakes_logger):
    attach(workflow(), {})
    assert [type(handler) for handler in snakemakes_logger.handlers] == [logging.StreamHandler, Console]
    assert snakemakes_logger.handlers[0].filters


@pytest.mark.parametrize(
    "settings",
    [
        {"dryrun": True},
        {"quiet": {"rules"}},
        {"verbose": True},
        {"printshellcmds": True},
        {"debug_dag": True},
    ],
    ids=str,
)
def test_who_asked_for_another_output_gets_it_unchanged(snakemakes_logger, settings):
    attach(workflow(**settings), {})
    assert len(snakemakes_logger.handlers) == 1
    assert not snakemakes_logger.handlers[0].filters


def test_single_jobs_and_unknown_loggers_are_not_watched(snakemakes_logger):
    job = workflow()
    job.is_main_process = False
    attach(job, {})
    attach(SimpleNamespace(is_main_process=True), {})
    snakemakes_logger.handlers[0].name = "another"
    attach(workflow(), {})
    assert len(snakemakes_logger.handlers) == 1


def test_events_are_known_by_snakemakes_names():
    assert event_of(logging.makeLogRecord({"event": LogEvent.JOB_ERROR})) == "job_error"
    assert event_of(logging.makeLogRecord({})) == ""
    assert {str(event) for event in LogEvent} >= module._WORDED_HERE
