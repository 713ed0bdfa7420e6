"""What a job costs through SLURM beside the local executor: twenty short jobs of the demo study, both ways in one run.

    PYTHONPATH=workflow python tests/benchmarks/bench_slurm.py

Starts the SLURM of ../shared/hpc on this machine (root), and stops it; without it says so and measures nothing. The jobs
write augmented pictures: ten folds, two colour recipes. Two run at a time, both ways. Columns, in seconds:

its own     the job's step itself, as its benchmark file has it (mean)
in SLURM    from SLURM's start of the job to its end (mean): two Snakemakes start inside before the step does
wall        from Snakemake's start to its end, all jobs together
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from project import copy_project, replace, snakemake
from slurm.cluster import PROFILE, missing, slurm, started

FOLDS = 10
COLOURS = ("corrected", "raw")
PICTURES = [
    f"results/demo/augmentation/sound/{fold}/pictures_{colour}" for fold in range(FOLDS) for colour in COLOURS
]
# Seconds between looks at the queue: the tests' and the profile's.
INTERVALS = (5, 20)


def prepared(folder: Path) -> Path:
    """Return a project in which nothing is left to do but the jobs that are measured."""
    project = copy_project(folder / "marrowflow")
    # Ten repeats: k folds would take ten groups of patients of each class.
    replace(project / "config.yaml", "  scheme: kfold\n", "  scheme: monte_carlo\n")
    replace(project / "config.yaml", "  folds: 3\n", f"  folds: {FOLDS}\n")
    plans = [f"results/demo/augmentation/sound/{fold}/plan.parquet" for fold in range(FOLDS)]
    stores = [f"results/demo/images/alpha/{colour}/store.json" for colour in COLOURS]
    snakemake(project, "--cores", "2", *plans, *stores)
    return project


def timed(project: Path, *arguments: str) -> tuple[float, float]:
    """Run the jobs anew; return the wall time and a step's own mean time."""
    for picture in PICTURES:
        shutil.rmtree(project / picture, ignore_errors=True)
    began = time.perf_counter()
    snakemake(project, *arguments, *PICTURES)
    wall = time.perf_counter() - began
    benchmarks = (project / "results/demo/benchmarks/materialise_plan").rglob("*.tsv")
    return wall, statistics.mean(
        float(path.read_text().splitlines()[1].split("\t")[0]) for path in benchmarks
    )


def in_slurm() -> list[int]:
    """Return the seconds that each finished job took from SLURM's start to its end."""
    lines = slurm("squeue", "--noheader", "--states", "COMPLETED", "--format", "%i %M").splitlines()
    minutes = [line.split()[1].split(":") for line in lines]
    return [60 * int(minute) + int(second) for minute, second in minutes]


def main() -> None:
    if reason := missing():
        print(f"NOT MEASURED: {reason}")
        return
    with tempfile.TemporaryDirectory() as folder:
        project = prepared(Path(folder))
        print(
            f"{len(PICTURES)} jobs, two at a time      its own  in SLURM     wall   wall beyond local, a job"
        )
        local, own = timed(project, "--cores", "2")
        print(f"local                       {own:9.1f} {'–':>9} {local:8.1f}")
        for interval in INTERVALS:
            with started():
                options = ["--jobs", "2", "--slurm-init-seconds-before-status-checks", str(interval)]
                wall, own = timed(project, *PROFILE, *options)
                inside = statistics.mean(in_slurm())
            print(
                f"SLURM, looks every {interval:2d} s     {own:9.1f} {inside:9.1f} {wall:8.1f}"
                f" {(wall - local) / len(PICTURES):10.1f}"
            )


if __name__ == "__main__":
    main()
