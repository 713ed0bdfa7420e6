"""One simulated SLURM for all tests of this folder, stopped at the end whatever happens."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm.cluster import Run, missing, started


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    if reason := missing():
        pytest.skip(f"NOT TESTED: {reason}")
    # A terminated test run ends like an interrupted one: with everything stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with started():
        yield


@pytest.fixture
def run(copy: Path) -> Iterator[Callable[..., Run]]:
    """Start Snakemake on the cluster in a copy of the finished project; nothing of it is left afterwards."""
    runs: list[Run] = []

    def start(*arguments: str) -> Run:
        runs.append(Run(copy, *arguments))
        return runs[-1]

    yield start
    for each in runs:
        each.stop()
