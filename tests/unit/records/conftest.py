"""A finished run in a folder of its own, which is the working directory, as for a job of Snakemake."""

import pytest
from records_fixture import write_run


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run()
    return tmp_path
