"""A step that a workflow started ends with the workflow's process.

Snakemake that is killed (kill -9, out of memory) leaves its jobs alive. After `--unlock` the next run starts the same jobs
again, and two processes write one output; the older one may end last and put results of an earlier configuration where
those of the present one are expected. So each step watches the process that `RUN` names. The shell that the workflow puts
between the two (``common.smk`` sets `RUN` there) does not end with it, hence no PR_SET_PDEATHSIG, which tells of a parent only.

A step in a container of its own (a rule with ``container:``) would be started by a shell in there, whose parent is not
Snakemake, and no process to watch can be seen from there. No rule of the workflow has one.

A step that is run by hand has no such process, and outlives the terminal if it is asked to. Linux 5.3 and later can watch
a process; elsewhere nothing is watched.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import suppress

RUN = "MARROWFLOW_RUN"
"""Environment variable with the process id of the run that started the step."""

# For tidying up, seconds. Nothing that comes later may be written, so then the process ends as it is.
_GRACE = 5.0


def end_with_run() -> None:
    """Send this process SIGTERM when the process that `RUN` names ends, and end it if that does not.

    To be called where SIGTERM makes the step tidy up and end. Does nothing without `RUN`, or where the system cannot
    watch a process.
    """
    run = os.environ.get(RUN, "")
    if not run.isdecimal() or not hasattr(os, "pidfd_open"):
        return
    try:
        watched = os.pidfd_open(int(run))
    except ProcessLookupError:
        _end(run)  # it ended before the step had begun
    except OSError:  # an old kernel, or a sandbox
        return
    else:
        threading.Thread(target=_watch, args=(watched, run), name="run", daemon=True).start()


def _watch(watched: int, run: str) -> None:
    select.select([watched], [], [])  # readable when the process has ended
    _end(run)


def _end(run: str) -> None:
    with suppress(OSError):  # a log on a full disk
        print(
            f"the run that started this step (process {run}) has ended: so does the step",
            file=sys.stderr,
            flush=True,
        )
    hard = threading.Timer(_GRACE, os._exit, [128 + signal.SIGTERM])
    hard.daemon = True
    hard.start()
    # To the main thread, so that whatever it waits for is interrupted.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
