"""A folder outside the project for a channel and environments of several GB; it goes when the tests end."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_environments import Bench, bench_or_skip


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The tools and the stand-in for conda, with a channel that is empty still."""
    with tempfile.TemporaryDirectory(prefix="environments_") as folder:
        yield bench_or_skip(Path(folder))
