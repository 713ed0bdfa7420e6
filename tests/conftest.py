"""What many tests look at and one process makes for all: the finished demo study."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from project import copy_project, snakemake


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a folder by its name as ``once(name, make)``: the first process of this run to ask for it calls `make` with it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all processes

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        assert done.exists(), f"what makes {name} failed; the process that ran it says how"
        return folder

    return made


@pytest.fixture(scope="session")
def finished(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A project whose demo study has run. Tests must not change it: they take a `copy`."""

    def run(folder: Path) -> None:
        snakemake(copy_project(folder / "marrowflow"), "--cores", "2")

    return once("finished", run) / "marrowflow"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, Snakemake's records included, that a test may change."""
    return copy_project(tmp_path / "marrowflow", finished)
