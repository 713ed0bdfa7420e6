"""A run on the terminal: how far it is instead of every detail of every job, which the log file in ``.snakemake/log`` keeps.

Listens to the records that Snakemake logs, and takes from its terminal those that it words itself. Whoever wants to see
Snakemake's own output (``--verbose``, ``--printshellcmds``, ``--debug-dag``), or less of it (``--quiet``), gets that,
unchanged; dry runs and all that runs no job are left alone as well. Should a record look different from what is
known here, Snakemake's own output comes back, and the run goes on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from marrowflow.watch.devices import count_gpus, said_of_devices
from marrowflow.watch.durations import read_durations
from marrowflow.watch.plan import Plan, read_plan
from marrowflow.watch.progress import Progress, failure_lines

PLAN_FILE = "MARROWFLOW_PLAN"
"""Environment variable with the path of a file that a dry run writes its plan to; see `marrowflow.explain`."""

LINE_EVERY = 15.0
"""Seconds between two lines while jobs end."""
_SIGN_OF_LIFE = 120.0  # seconds after which a line comes though no job has ended
_LOGGER = "snakemake.logging"
_TERMINAL = "DefaultStreamHandler"
# Told here in other words, or of use only to those who look for a fault: they find it in the log file.
_WORDED_HERE = {
    "workflow_started",
    "run_info",
    "resources_info",
    "shellcmd",
    "job_info",
    "job_started",
    "job_finished",
    "job_error",
    "group_info",
    "group_error",
    "progress",
}
_INTERRUPTED = "Terminating processes on user request"
_OF_NO_USE = ("Select jobs to execute", "Using shell:", "Conda environments: ignored", "Elapsed time:")


def attach(workflow: Any, hospitals: Mapping[str, str]) -> None:
    """Watch the run that this reading of the Snakefile belongs to.

    Does nothing in the processes of single jobs, and nothing where Snakemake's log is not the one that is known here.

    Parameters
    ----------
    workflow
        The object of that name in a Snakefile.
    hospitals
        Each cohort's hospital.
    """
    try:
        settings = workflow.logger_manager.settings
        if not workflow.is_main_process:
            return
        logger = logging.getLogger(_LOGGER)
        if settings.dryrun:
            if PLAN_FILE in os.environ:
                logger.addHandler(PlanWriter(workflow, hospitals, Path(os.environ[PLAN_FILE])))
            return
        terminal = next((h for h in logger.handlers if h.name == _TERMINAL), None)
        own = settings.quiet or settings.verbose or settings.printshellcmds or settings.debug_dag
        if own or not isinstance(terminal, logging.StreamHandler):
            return
    except AttributeError as error:
        logging.getLogger(__name__).debug("not watched: %s", error)
        return
    console = Console(lambda: _plan_of_run(workflow, hospitals), terminal)
    terminal.addFilter(console.leaves)
    logger.addHandler(console)


def _plan_of_run(workflow: Any, hospitals: Mapping[str, str]) -> Plan:
    """Return what will run; nothing where outputs are only touched."""
    return Plan([]) if workflow.touch else read_plan(workflow, hospitals)


class PlanWriter(logging.Handler):
    """Writes what a dry run would do, and why, as soon as it is known."""

    def __init__(self, workflow: Any, hospitals: Mapping[str, str], path: Path) -> None:
        super().__init__()
        self._workflow, self._hospitals, self._path = workflow, hospitals, path

    def emit(self, record: logging.LogRecord) -> None:
        """Write an empty plan when a workflow starts, and the whole one when Snakemake counts its jobs."""
        try:
            if event_of(record) == "workflow_started":
                self._write(Plan([]))
            elif event_of(record) == "run_info":
                self._write(read_plan(self._workflow, self._hospitals, reasons=True))
        except Exception:
            # Who waits for the plan finds none and says so.
            self._path.unlink(missing_ok=True)

    def _write(self, plan: Plan) -> None:
        self._path.write_text(plan.to_json(), encoding="utf-8")


class Console(logging.Handler):
    """Turns Snakemake's records into lines on a terminal.

    Parameters
    ----------
    plan
        Returns what will run, once Snakemake has decided on it.
    terminal
        What Snakemake writes its own messages with, `leaves` as filter.
    clock
        Seconds; another one in tests.
    gpus
        Counts this machine's GPUs.
    """

    def __init__(
        self,
        plan: Callable[[], Plan],
        terminal: logging.StreamHandler[TextIO],
        clock: Callable[[], float] = time.monotonic,
        gpus: Callable[[], int] = count_gpus,
    ) -> None:
        super().__init__()
        self._plan, self._terminal, self._clock, self._gpus = plan, terminal, clock, gpus
        self._progress: Progress | None = None
        self._printed = 0.0
        self._stale = False
        self._broken = False
        self._ended = threading.Event()

    def leaves(self, record: logging.LogRecord) -> bool:
        """Return whether a record stays on Snakemake's own terminal; a filter for its handler."""
        if self._broken:
            return True
        event = event_of(record)
        if event == "error":
            # A job that failed is told of by itself; this one repeats its whole command.
            return "CalledProcessError" not in record.getMessage()
        return event not in _WORDED_HERE and not str(record.msg).startswith(_OF_NO_USE)

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a record."""
        if self._broken:
            return
        try:
            self._note(record)
        except Exception:
            self._give_up()
            # It was held back before it turned out that nobody here can read it.
            self._terminal.handle(record)

    def close(self) -> None:
        """Say how the run ended. Snakemake closes its log's handlers last of all."""
        with self.lock or threading.RLock():
            first, progress = not self._ended.is_set(), self._progress
            self._ended.set()
            if first and progress is not None and not self._broken:
                try:
                    self._print(progress.closing(self._clock()))
                except Exception:
                    self._give_up()
        super().close()

    def _note(self, record: logging.LogRecord) -> None:
        event, now = event_of(record), self._clock()
        if event == "run_info" and self._progress is None:
            self._open(now)
        if self._progress is None:
            return
        if event == "job_started":
            self._progress.started(record.jobs, now)  # type: ignore[attr-defined]
        elif event == "job_finished":
            self._stale = True
            if last_of_stage := self._progress.finished(record.job_id, now):  # type: ignore[attr-defined]
                self._print([last_of_stage])
            self._tell(now)
        elif event == "job_error":
            self._tell_failure(record)
        elif str(record.msg).startswith(_INTERRUPTED):
            self._progress.interrupted = True

    def _open(self, now: float) -> None:
        plan = self._plan()
        if not plan.jobs:
            return
        self._progress = Progress(plan, read_durations(plan.jobs), now)
        self._printed = now
        self._print([self._progress.opening()])
        # On a cluster the jobs run on other machines.
        if plan.cores is not None and any(job.gpus for job in plan.jobs):
            devices = said_of_devices(plan, self._gpus())
            self._print([devices] if devices else [])
        threading.Thread(target=self._keep_telling, daemon=True, name="watch").start()

    def _keep_telling(self) -> None:
        while not self._ended.wait(1.0):
            with self.lock or threading.RLock():
                if self._ended.is_set() or self._broken:
                    return
                try:
                    self._tell(self._clock())
                except Exception:
                    self._give_up()

    def _tell(self, now: float) -> None:
        """Print a line when it is time for one."""
        since = now - self._printed
        if self._progress and (since >= _SIGN_OF_LIFE or (self._stale and since >= LINE_EVERY)):
            self._printed, self._stale = now, False
            self._print([self._progress.line(now)])

    def _tell_failure(self, record: Any) -> None:
        assert self._progress is not None
        failure = self._progress.failure(
            record.jobid, [str(path) for path in record.log], record.rule_msg or ""
        )
        if failure is not None:
            self._print(failure_lines(failure, self._progress.plan.hospitals))

    def _print(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        # A job's progress bar may stand half drawn in this line.
        stream = self._terminal.stream
        start = "\r\x1b[K" if stream.isatty() and os.environ.get("TERM") != "dumb" else ""
        stream.write(f"{start}{time.strftime('%H:%M:%S')}  " + "\n          ".join(lines) + "\n")
        stream.flush()

    def _give_up(self) -> None:
        """Leave the terminal to Snakemake: watching must never stop a run."""
        self._broken = True
        logging.getLogger(__name__).debug("no longer watched", exc_info=True)


def event_of(record: logging.LogRecord) -> str:
    """Return the name of what Snakemake logs; empty for a plain message."""
    return str(getattr(record, "event", None) or "")
