"""A study of many images in twelve hospitals, through the real rules: rate, memory, growth, planning.

    python tests/benchmarks/bench_scale.py [--images 1000] [--colours raw corrected] [--folder DIR]
    python tests/benchmarks/bench_scale.py --images 10000 50000 171374 --write docs/scale.md

Paints the largest study in a temporary folder (every picture a JPEG of its own, 250 x 250 pixels), copies the workflow
there and lets Snakemake take in, correct, split and check it, and the first rows of its manifests as smaller studies.
Each job's CPU time and largest memory are the operating system's own figures for its process. The packed pixels of a few
hospitals at a time are on the disk; the folder is deleted at the end. Then the whole study is planned, with 20 networks in 5
folds and with 40, is made to look finished, and a thirteenth hospital is added: planned, taken in and corrected.

What was taken in, excluded and found twice is counted and compared with what was painted: a fast wrong run fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import simplejpeg

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from project import copy_project
from scale_study import BYTES, Study, add_hospital, name_of, paint_files, write_study

SIDE = 224
"""Of a packed picture, pixels."""
PACKED_AT_ONCE = 10e9
"""Bytes of packed pixels that may lie on the disk at a time."""
TELLING = 5000
"""Images by which two studies differ at least, for what one image more costs to show beside what a job's start costs."""
COLOURS = ["raw", "corrected"]
"""The recipes of the demo study."""
STEPS = {
    "ingest_cohort": "cohorts.intake",
    "correct_cohort": "images.correct",
    "split_patients": "splits.partition",
    "plan_augmentation": "images.augment",
    "check_leakage": "splits.leakage",
    "check_external": "splits.external_gate",
}

_MARKS = "<!-- measured: begin -->", "<!-- measured: end -->"

# Stands before the real one on the jobs' PATH, and writes down what each process used. Small, because the system counts
# what the starting process held as the started one's.
_SHIM = """#!{python} -IS
import json, os, sys
command = [{python!r}, *sys.argv[1:]]
_, status, used = os.wait4(os.posix_spawn(command[0], command, os.environ), 0)
line = json.dumps([sys.argv[1:], used.ru_utime + used.ru_stime, used.ru_maxrss])
with open({record!r}, "a") as record:
    record.write(line + "\\n")
sys.exit(os.waitstatus_to_exitcode(status))
"""
_READS_PICTURES = ("ingest", *(f"correct, {colour}" for colour in COLOURS))
_SHOWS = 0.05
"""Milliseconds an image that stand out of what the start of the same jobs costs from run to run."""


@dataclass(frozen=True)
class Job:
    """One job as the operating system saw it."""

    step: str
    arguments: list[str]
    seconds: float
    """CPU time."""
    memory: float
    """Largest resident set, MB."""


class Used(NamedTuple):
    """What a process used: CPU time in seconds, and its largest resident set in MB."""

    seconds: float
    memory: float


class Row(NamedTuple):
    """A step of one study."""

    images: int
    seconds: float
    largest: int
    """Images of the largest job."""
    memory: float
    """Of the largest job, MB."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000], help="of the studies, ascending")
    parser.add_argument("--colours", nargs="+", default=COLOURS, choices=COLOURS)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to build")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--write", type=Path, help="page whose tables between the marks are written anew")
    args = parser.parse_args()
    studies = [Study(images) for images in sorted(args.images)]
    _ask_for_room(args.folder, studies[-1])
    with tempfile.TemporaryDirectory(prefix="scale_", dir=args.folder) as folder:
        tables = list(Bench(Path(folder), studies, args.colours, args.cores).run())
    if args.write:
        before, _, rest = args.write.read_text().partition(_MARKS[0])
        after = rest.partition(_MARKS[1])[2]
        lines = [_MARKS[0], "", *(f"    {line}".rstrip() for line in tables), "", _MARKS[1]]
        args.write.write_text(before + "\n".join(lines) + after)


class Bench:
    """All measurements, in one folder that holds the painted files and a copy of the workflow."""

    def __init__(self, folder: Path, studies: list[Study], colours: list[str], cores: int) -> None:
        self.images, self.project = folder / "images", folder / "project"
        self.studies, self.colours, self.cores = studies, colours, cores
        self.record = folder / "jobs.jsonl"
        self.said = folder / "said.txt"
        self.bin = folder / "bin"
        copy_project(self.project)
        self.bin.mkdir()
        shim = self.bin / "python"
        shim.write_text(_SHIM.format(python=sys.executable, record=str(self.record)))
        shim.chmod(0o755)

    def run(self) -> Iterator[str]:
        """Measure everything; print and yield the tables line by line."""
        for line in self._tables():
            print(line, flush=True)
            yield line

    def _tables(self) -> Iterator[str]:
        start = time.perf_counter()
        written = paint_files(self.images, self.studies[-1], self.cores)
        total = self.studies[-1].total
        yield f"{total:,} JPEG files painted, {written / total:,.0f} bytes each, {time.perf_counter() - start:.0f} s"
        yield f"packed pixels of one colour recipe: {total * SIDE * SIDE * 3 / 1e9:.1f} GB"
        limit = _decode_limit(self.images, self.studies[-1])
        yield f"decode limit (simplejpeg, decode only): {limit:,.0f} images/s a core"
        yield ""
        yield f"{'whole step':22}{'images':>9}{'jobs':>6}{'CPU s':>8}{'images/s':>10}{'of limit':>9}{'largest job':>13}{'MB':>6}"
        rows: dict[str, list[Row]] = defaultdict(list)
        for study in self.studies:
            config = write_study(self.project, self.images, study, 5, COLOURS)
            for name, jobs, images, largest in self._measured(study, config):
                seconds, memory = sum(job.seconds for job in jobs), max(job.memory for job in jobs)
                rows[name].append(Row(images, seconds, largest, memory))
                rate = images / seconds
                yield (
                    f"{name:22}{images:9,}{len(jobs):6}{seconds:8.1f}{rate:10,.0f}{rate / limit:9.2f}{largest:13,}{memory:6.0f}"
                )
        yield ""
        yield f"{'one image more':22}{'from':>9}{'to':>9}{'ms':>8}{'images/s':>10}{'of limit':>9}{'bytes':>9}"
        for name, measured in rows.items():
            for less, more in pairwise(measured):
                if more.images - less.images < TELLING:
                    continue
                # As many jobs in both: what a job costs before its first image is gone from the difference.
                one = (more.seconds - less.seconds) / (more.images - less.images)
                memory = (more.memory - less.memory) * 1e6 / (more.largest - less.largest)
                cost = f"{1000 * one:.2f}" if 1000 * one >= _SHOWS else f"<{_SHOWS}"
                rates = f"{1 / one:10,.0f}{1 / one / limit:9.2f}" if name in _READS_PICTURES else " " * 19
                yield f"{name:22}{less.images:9,}{more.images:9,}{cost:>8}{rates}{memory:9,.0f}"
        yield ""
        yield from self._plans()

    def _measured(self, study: Study, config: Path) -> Iterator[tuple[str, list[Job], int, int]]:
        """Run the steps of one study; yield each with its jobs, its images and those of its largest job."""
        results = self.project / "results" / f"scale_{study.total}"
        sizes = study.sizes
        external = [name for name in sizes if name not in study.developed]
        inventories = {name: results / f"cohorts/{name}/inventory.parquet" for name in sizes}
        jobs = self._snakemake(config, *inventories.values())
        yield "ingest", _of(jobs, "ingest_cohort"), study.total, max(sizes.values())
        included = _check_inventories(study, inventories)
        for colour in self.colours:
            jobs = []
            for some in _portions(included):
                stores = [results / f"images/{name}/{colour}" for name in some]
                jobs += self._snakemake(config, *(store / "store.json" for store in stores))
                for name, store in zip(some, stores, strict=True):
                    _check_store(store, included[name])
                    # Rows were counted and looked at; the next ones need the room.
                    (store / "pixels.npy").unlink()
            yield (
                f"correct, {colour}",
                _of(jobs, "correct_cohort"),
                sum(included.values()),
                max(included.values()),
            )
        developed = sum(included[name] for name in study.developed)
        jobs = self._snakemake(config, results / "splits/sound/gate.json")
        for rule in ("split_patients", "plan_augmentation", "check_leakage"):
            yield rule, _of(jobs, rule), developed, developed
        _check_folds(study, results / "splits/sound/folds.parquet", developed)
        jobs = self._snakemake(config, *(results / f"external/{name}/gate.json" for name in external))
        compared = [included[name] + developed for name in external]
        yield "check_external", _of(jobs, "check_external"), sum(compared), max(compared)

    def _plans(self) -> Iterator[str]:
        """Plan the studies; add a thirteenth hospital to the largest one."""
        yield f"{'snakemake -n':30}{'images':>9}{'jobs':>7}{'CPU s':>8}{'wall s':>8}{'MB':>6}"
        for study in self.studies:
            for networks in (5, 10):
                config = write_study(self.project, self.images, study, networks, COLOURS)
                name = f"{2 * len(COLOURS) * networks} networks in 5 folds"
                yield self._planned(name, study.total, config, "--forceall")
        study = self.studies[-1]
        config = write_study(self.project, self.images, study, 5, COLOURS)
        self._feign_results(config)
        yield self._planned("finished", study.total, config)
        added = add_hospital(self.project, self.images, study)
        yield self._planned("a thirteenth hospital", study.total, config)
        yield ""
        results = self.project / "results" / f"scale_{study.total}"
        targets = [results / f"images/{added}/{colour}/store.json" for colour in COLOURS]
        start = time.perf_counter()
        jobs = self._snakemake(config, *targets)
        rows = len(pd.read_parquet(results / f"cohorts/{added}/inventory.parquet"))
        yield (
            f"the thirteenth hospital's intake and correction, executed: {len(jobs)} jobs, {rows:,} images, "
            f"{sum(job.seconds for job in jobs):.0f} CPU s, {time.perf_counter() - start:.0f} s"
        )

    def _feign_results(self, config: Path) -> None:
        """Write an empty file for each result of the study that is missing, and let Snakemake take them for its own."""
        summary, _ = self._call(config, "--summary", "--cores", "1")
        for line in summary.splitlines()[1:]:
            path = self.project / line.split("\t")[0]
            if path.exists() or not line.startswith("results/"):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.touch()
            else:
                path.mkdir()
        self._call(config, "--touch", "--cores", "1")

    def _planned(self, name: str, images: int, config: Path, *arguments: str) -> str:
        start = time.perf_counter()
        output, used = self._call(config, "--dry-run", "--cores", str(self.cores), *arguments)
        seconds = time.perf_counter() - start
        found = re.search(r"^total +(\d+)$", output, re.M)
        jobs = int(found[1]) if found else 0
        return f"{name:30}{images:9,}{jobs:7,}{used.seconds:8.1f}{seconds:8.1f}{used.memory:6.0f}"

    def _snakemake(self, config: Path, *targets: Path) -> list[Job]:
        """Make some files by the rules; return the jobs that ran."""
        self.record.write_text("")
        names = [str(target.relative_to(self.project)) for target in targets]
        self._call(config, "--cores", str(self.cores), *names)
        jobs = []
        for line in self.record.read_text().splitlines():
            arguments, seconds, memory = json.loads(line)
            if arguments[:2] == ["-m", "marrowflow"]:
                jobs.append(Job(arguments[2], arguments, seconds, memory * 1024 / 1e6))
        return jobs

    def _call(self, config: Path, *arguments: str) -> tuple[str, Used]:
        """Run Snakemake in the project; return what it said and used."""
        environment = {**os.environ, "PATH": f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
        command = [str(self.bin / "python"), "-m", "snakemake", "--configfile", str(config), *arguments]
        with self.said.open("w") as said:
            process = subprocess.run(
                command,
                cwd=self.project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                check=False,
            )
        output = self.said.read_text()
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{output[-5000:]}")
        _, seconds, memory = json.loads(self.record.read_text().splitlines()[-1])
        return output, Used(seconds, memory * 1024 / 1e6)


def _ask_for_room(folder: Path, study: Study) -> None:
    """Stop where the painted files and the packed pixels of a few hospitals would not fit."""
    largest = max(PACKED_AT_ONCE, max(study.sizes.values()) * SIDE * SIDE * 3)
    packed = min(largest, study.total * SIDE * SIDE * 3 * 2)
    needed, free = study.total * BYTES + packed, shutil.disk_usage(folder).free
    print(f"up to {needed / 1e9:.1f} GB are needed in {folder}, {free / 1e9:.1f} GB are free")
    if free < 1.1 * needed:
        sys.exit("not enough: name another --folder, or ask for fewer --images")


def _decode_limit(folder: Path, study: Study) -> float:
    """Return how many of the painted files a core decodes a second, all else left out; best of three."""
    hospital, size = next(iter(study.sizes.items()))
    data = [(folder / hospital / name_of(i)).read_bytes() for i in range(min(size, 1000))]
    whole = [item for item in data if item.endswith(b"\xff\xd9")]
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for item in whole:
            simplejpeg.decode_jpeg(item, "RGB")
        best = min(best, time.process_time() - start)
    return len(whole) / best


def _of(jobs: list[Job], rule: str) -> list[Job]:
    return [job for job in jobs if job.step == STEPS[rule]]


def _portions(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Yield hospitals whose packed pixels may lie on the disk together."""
    some: list[str] = []
    for name, size in sizes.items():
        if some and sum(sizes[other] for other in some) + size > PACKED_AT_ONCE / (SIDE * SIDE * 3):
            yield some
            some = []
        some.append(name)
    yield some


def _check_inventories(study: Study, inventories: dict[str, Path]) -> dict[str, int]:
    """Stop unless every file stands there once, and the cut ones, and only they, are excluded; return the others' number."""
    included = {}
    for name, path in inventories.items():
        table = pd.read_parquet(path, columns=["case_id", "status", "reason"])
        _same(f"{name}: rows", len(table), study.sizes[name])
        _same(f"{name}: cases", table["case_id"].nunique(), study.sizes[name])
        lost = table[table["status"] == "excluded"]
        _same(f"{name}: truncated", int((lost["reason"] == "unreadable: truncated").sum()), study.cut(name))
        _same(f"{name}: excluded", len(lost), study.cut(name))
        included[name] = len(table) - len(lost)
    return included


def _check_store(store: Path, included: int) -> None:
    """Stop unless the store has a row an included image, and none of these is empty."""
    about = json.loads((store / "store.json").read_text())
    _same(f"{store}: shape", about["shape"], [included, SIDE, SIDE, 3])
    pixels = np.load(store / "pixels.npy", mmap_mode="r")
    _same(f"{store}: rows without a picture", sum(not row[::32, ::32].any() for row in pixels), 0)


def _check_folds(study: Study, folds: Path, developed: int) -> None:
    """Stop unless all development images stand in each fold, copies of one picture on one side."""
    table = pd.read_parquet(folds, columns=["fold", "case_id", "group", "partition"])
    _same("rows of the folds", len(table), 5 * developed)
    _same("tested cases", int((table["partition"] == "test").sum()), developed)
    first = table[table["fold"] == 0].set_index("case_id")
    apart = [(a, b) for a, b in study.copied() if first["group"][a] != first["group"][b]]
    _same("planted copies in another group than what they copy", len(apart), 0)


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        sys.exit(f"{what}: {found}, expected {expected}")


if __name__ == "__main__":
    main()
