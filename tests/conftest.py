"""The finished demo study, run once for all tests that look at it."""

from pathlib import Path

import pytest
from project import copy_project, snakemake


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose demo study has run. Tests must not change it: they take a `copy`."""
    project = copy_project(tmp_path_factory.mktemp("finished") / "marrowflow")
    snakemake(project, "--cores", "2")
    return project


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, Snakemake's records included, that a test may change."""
    return copy_project(tmp_path / "marrowflow", finished)
