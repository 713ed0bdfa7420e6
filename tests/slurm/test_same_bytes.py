"""The demo study through SLURM, with the profile as it is: what comes out equals the local run's, byte for byte."""

from pathlib import Path

from project import copy_project
from slurm.cluster import Run

# What tells when something happened or how long it took, and the pages and records that print or checksum it.
WITH_TIMES = {
    *("logs", "benchmarks", "state", "cost.json", "cells.csv", "seal.json", "arrival.json", "run.json"),
    *("lineage.csv", "lineage.html", "ro-crate-metadata.json", "index.html", "report.html"),
}
HOURS = 3 * 3600


def results(project: Path) -> dict[str, bytes]:
    """Return the contents of all results that hold no times, by path."""
    root = project / "results/demo"
    paths = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    return {str(path): (root / path).read_bytes() for path in paths if WITH_TIMES.isdisjoint(path.parts)}


def test_the_demo_study_through_slurm_equals_the_local_run(finished, tmp_path):
    project = copy_project(tmp_path / "marrowflow")
    run = Run(project)
    try:
        assert run.process.wait(HOURS) == 0, run.output[-20_000:]
    finally:
        run.stop()
    assert "has been submitted with SLURM jobid" in run.output
    assert "Trying to restart job" not in run.output
    local, through_slurm = results(finished), results(project)
    assert sorted(through_slurm) == sorted(local)
    assert [path for path in local if through_slurm[path] != local[path]] == []
