"""Runs that are interrupted, killed, starved of disk or of their images: old results or new ones, and the next run finishes.

Real processes on a small study (`little_study`). Killed trainings by themselves are in test_interrupted_training.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from broken_runs import Run, checksums
from little_study import CONFIGURATION, write_study
from project import copy_project, planned, snakemake

from marrowflow.files import part_of
from marrowflow.images.store import open_store

RESULTS = "results/little"
WEIGHTS = f"{RESULTS}/training/sound/resnet/raw/0/model.safetensors"
STORE = f"{RESULTS}/images/home/raw/store.json"
PAGE = f"{RESULTS}/report/index.html"
INVENTORY = f"{RESULTS}/cohorts/home/inventory.parquet"
LARGE = 2_000_000  # bytes of a large image, at least
STATE = "state/train_fold/sound/resnet/raw/0"

# What a run says of when and how long; the pages print costs and the time of the seal, the descriptions all of it.
TIMED = {
    "locked/seal.json",
    "report/index.html",
    "report/figures/cells.csv",
    "run.json",
    "lineage.csv",
    "lineage.html",
    "ro-crate-metadata.json",
    *(f"training/sound/resnet/raw/{fold}/cost.json" for fold in (0, 1)),
}

root_only = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can mount a small disk, and this is not root"
)


def results(project: Path) -> dict[str, str]:
    """Return the checksums of all results; logs and benchmarks are none, nor is what trainings keep for going on."""
    return checksums(project / RESULTS, without=("logs", "benchmarks", "state"))


def is_part(path: str) -> bool:
    """Return whether a file or one of its folders is being written beside its place."""
    return any(part.startswith(".") and ".part" in part for part in Path(path).parts)


def parts(project: Path) -> list[str]:
    return [path for path in checksums(project / RESULTS) if is_part(path)]


def torn(project: Path, *known: dict[str, str]) -> list[str]:
    """Return results that are neither of the known ones, by their checksums: half-written ones."""
    return [
        path
        for path, checksum in results(project).items()
        if path not in TIMED and not is_part(path) and checksum not in [k.get(path) for k in known]
    ]


def log(project: Path, name: str) -> str:
    return (project / RESULTS / "logs" / f"{name}.log").read_text()


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """Starts runs and leaves none behind."""
    runs = []

    def started(project: Path, *arguments: str) -> Run:
        runs.append(Run(project, *arguments))
        return runs[-1]

    yield started
    for run in runs:
        run.stop()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, nothing of which has run."""
    project = copy_project(tmp_path_factory.mktemp("fresh") / "marrowflow")
    write_study(project)
    return project


@pytest.fixture(scope="module")
def whole(fresh: Path) -> Path:
    """The study after an unbroken run."""
    project = fresh.with_name("whole")
    shutil.copytree(fresh, project)
    snakemake(project, "--cores", "2")
    return project


@pytest.fixture(scope="module")
def known(whole: Path) -> dict[str, str]:
    """The results of the unbroken run."""
    return results(whole)


@pytest.fixture
def again(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished study."""
    return Path(shutil.copytree(whole, tmp_path / "again"))


# --- one study, broken again and again until it is done ----------------------------------------------------------


@dataclass
class Stop:
    """What was found after a run was broken off."""

    code: int
    said: str
    torn: list[str]
    parts: list[str]
    quiet: bool  # no process of it was left


@dataclass
class Story:
    """The stops of one study by name, and the study when it was done."""

    stops: dict[str, Stop]
    project: Path
    refused: str
    training_log: str


@pytest.fixture(scope="module")
def story(fresh: Path, known: dict[str, str]) -> Iterator[Story]:
    project = fresh.with_name("broken")
    shutil.copytree(fresh, project)
    stops: dict[str, Stop] = {}
    runs: list[Run] = []

    def run(*arguments: str) -> Run:
        runs.append(Run(project, *arguments))
        return runs[-1]

    def note(name: str, code: int, patience: float = 15) -> None:
        quiet = runs[-1].gone(patience)
        stops[name] = Stop(code, runs[-1].said, torn(project, known), parts(project), quiet)

    def made(*places: str) -> Callable[[], object]:
        return lambda: any(list((project / RESULTS).glob(place)) for place in places)

    try:
        run().until_job("cohorts.intake")
        note("ctrl-C in ingest", runs[-1].interrupt())
        run().until_job("images.correct", made("images/home/raw/.pixels.*.part.npy"))
        note("ctrl-C in correct", runs[-1].interrupt())

        run("--", WEIGHTS).until_job("learning.train", made(f"{STATE}/*/training.pt"))
        job = runs[-1].job("learning.train")
        assert job is not None
        job.kill()
        note("kill -9 of a job", runs[-1].end())
        epochs = log(project, "train_fold/sound/resnet/raw/0").count("epoch ")
        assert epochs < CONFIGURATION["training"]["epochs"], "the training had ended before it was killed"

        run("--", WEIGHTS).until_job("learning.train", made(f"{STATE}/*/.training.*.part.pt"))
        note("ctrl-C in training", runs[-1].interrupt())

        run("--", WEIGHTS).until_job("learning.train", made(f"{STATE}/*/.training.*.part.pt"))
        runs[-1].kill_scheduler()
        note("kill -9 of the scheduler", -9, patience=30)
        orphan_log = log(project, "train_fold/sound/resnet/raw/0")
        refused = run()
        assert refused.end() != 0
        refusal = refused.said  # before the next run prints over it
        snakemake(project, "--unlock")

        # What a kill in the middle of writing leaves; the one below comes at that moment by chance only.
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        half = part_of(project / WEIGHTS)
        half = half.with_name(half.name.replace(f".{os.getpid()}.", f".{dead.pid}."))
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"half")
        run("--", WEIGHTS).until_job("learning.train", made("training/sound/resnet/raw/0/model.safetensors"))
        training_log = log(project, "train_fold/sound/resnet/raw/0")
        runs[-1].kill_all()
        note("kill -9 of all", -9)
        snakemake(project, "--unlock")

        run().until_job("reporting.study", made("report/figures/*"))
        note("ctrl-C in a report", runs[-1].interrupt())
        run().until_job("reporting.study", made("report/figures/*"))
        runs[-1].kill_all()
        note("kill -9 of all in a report", -9)
        snakemake(project, "--unlock")
        snakemake(project, "--cores", "2")
        yield Story(stops, project, refusal, orphan_log + training_log)
    finally:
        for started in runs:
            started.stop()


def test_no_stop_leaves_anything_half_written(story: Story) -> None:
    assert {name: stop.torn for name, stop in story.stops.items() if stop.torn} == {}


def test_no_stop_leaves_a_process(story: Story) -> None:
    assert [name for name, stop in story.stops.items() if not stop.quiet] == []


def test_ctrl_c_says_so_and_tidies_up(story: Story) -> None:
    for name, stop in story.stops.items():
        if name.startswith("ctrl-C"):
            assert stop.code == 1, name
            assert "Terminating processes on user request" in stop.said, name
            assert "Traceback" not in stop.said, name
            assert stop.parts == [], name


def test_a_killed_job_is_named_with_its_log(story: Story) -> None:
    stop = story.stops["kill -9 of a job"]
    assert stop.code == 1
    assert "FAILED train_fold" in stop.said
    assert f"{RESULTS}/logs/train_fold/sound/resnet/raw/0.log" in stop.said


def test_a_job_ends_with_its_scheduler(story: Story) -> None:
    assert "the run that started this step" in story.training_log
    # and the next run is told what to do about the lock
    assert "Directory cannot be locked" in story.refused
    assert "--unlock" in story.refused


def test_the_training_went_on_from_its_state(story: Story) -> None:
    assert story.training_log.count("going on from the state of an interrupted run") == 2
    assert "epoch 1/" not in story.training_log


def test_the_study_ends_like_an_unbroken_one(story: Story, whole: Path, known: dict[str, str]) -> None:
    found = results(story.project)
    assert set(found) == set(known)
    assert {path for path in found if found[path] != known[path]} <= TIMED
    assert parts(story.project) == []
    assert not (story.project / RESULTS / "state/train_fold").exists() or not list(
        (story.project / RESULTS / "state/train_fold").rglob("*.pt")
    )
    assert planned(story.project) == {}


# --- two runs at once ---------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_and_the_first_one_finishes(
    again: Path, known: dict[str, str], start: Callable[..., Run]
) -> None:
    first = start(again, "--forcerun", "train_fold", "--", WEIGHTS)
    first.until_job("learning.train")
    job = first.job("learning.train")
    assert job is not None
    job.suspend()  # so that it is still at work when the others have ended
    second = snakemake(again, "--cores", "2", check=False)
    # Another study in the same folder reads and writes files of its own alone.
    other = yaml.safe_load((again / "config.yaml").read_text())
    other["study"]["key"] = "other"
    (again / "other.yaml").write_text(yaml.safe_dump(other))
    snakemake(again, "--cores", "1", "--configfile", "other.yaml", "--", INVENTORY.replace("little", "other"))
    job.resume()
    assert first.end() == 0
    assert second.returncode == 1
    assert "Directory cannot be locked" in second.stdout
    assert "jobs to do" not in second.stdout
    assert results(again)[WEIGHTS.removeprefix(f"{RESULTS}/")] == known[WEIGHTS.removeprefix(f"{RESULTS}/")]
    assert torn(again, known) == []
    assert (again / "results/other/cohorts/home/inventory.parquet").read_bytes() == (
        again / INVENTORY
    ).read_bytes()


# --- a cohort's folder that is gone -------------------------------------------------------------------------------


def test_a_folder_that_is_not_there(again: Path, known: dict[str, str]) -> None:
    folder = again / "images/home"
    folder.rename(folder.with_name("away"))
    # What is finished needs no images;
    assert planned(again) == {}
    assert results(again) == known
    # what is not is refused before anything runs.
    shutil.rmtree((again / STORE).parent)
    (again / INVENTORY).unlink()
    done = snakemake(again, "--cores", "2", "--", STORE, check=False)
    assert done.returncode == 1
    assert "Missing input files for rule ingest_cohort" in done.stdout
    assert "images/home/manifest.csv" in done.stdout
    assert torn(again, known) == []


def test_a_folder_that_goes_while_it_is_read(
    again: Path, known: dict[str, str], start: Callable[..., Run]
) -> None:
    folder = again / "images/home"
    count = write_large_images(folder, 300)
    away = folder.with_name("away")

    run = start(again, "--", INVENTORY)
    run.until_job("cohorts.intake", lambda: "Python 3" in log(again, "ingest_cohort/home"))
    job = run.job("cohorts.intake")
    assert job is not None
    so_far = job.io_counters().read_chars
    run.until(lambda: job.io_counters().read_chars > so_far + 20 * LARGE, "images being read")
    folder.rename(away)
    assert run.end() == 1
    assert "images/home/" in run.said
    assert "put it back" in run.said or "Bring it back" in run.said
    assert not (again / INVENTORY).exists()
    assert torn(again, known) == []

    away.rename(folder)
    run = start(again, "--", STORE)
    run.until_job("images.correct", lambda: list((again / STORE).parent.glob(".pixels.*.part.npy")))
    assert set(pd.read_parquet(again / INVENTORY)["status"]) == {"included"}
    folder.rename(away)
    assert run.end() == 1
    assert "images/home/" in run.said
    assert "put it back" in run.said or "Bring it back" in run.said
    assert not (again / STORE).exists()
    assert parts(again) == []

    away.rename(folder)
    snakemake(again, "--cores", "2", "--", STORE)
    assert len(open_store((again / STORE).parent, verify=True).index) == count


def write_large_images(folder: Path, number: int) -> int:
    """Add rows to a manifest that name one large image again and again; return the number of all rows."""
    noise = np.random.default_rng(9).integers(0, 256, (1000, 1000, 3), np.uint8)
    cv2.imwrite(str(folder / "large.png"), noise)
    assert (folder / "large.png").stat().st_size > LARGE
    rows = pd.read_csv(folder / "manifest.csv")
    names = [f"large_{i}.png" for i in range(number)]
    for name in names:
        (folder / name).hardlink_to(folder / "large.png")
    more = pd.DataFrame({"image": names, "patient_id": "p0", "label": "red"})
    pd.concat([rows, more]).to_csv(folder / "manifest.csv", index=False)
    return len(rows) + number


# --- disks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], None]]:
    """Mounts a disk of so many bytes on a folder."""
    mounted = []

    def mount(folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def leave(folder: Path, free: int) -> None:
    """Fill a disk with one file, but for so many bytes."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    room = shutil.disk_usage(folder).free - free
    assert room > 0
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room)


@root_only
def test_a_full_disk(
    again: Path, known: dict[str, str], start: Callable[..., Run], small_disk: Callable[[Path, int], None]
) -> None:
    disk = again / "results"
    disk.rename(again / "kept")
    small_disk(disk, 80_000_000)
    shutil.copytree(again / "kept", disk, dirs_exist_ok=True)

    def fails(rule: str, place: str, free: int, target: str) -> None:
        leave(disk, free)
        run = start(again, "--", target)
        assert run.end() == 1
        assert f"FAILED {rule}" in run.said
        assert f"{RESULTS}/{place}" in run.said
        assert "cannot be written" in run.said
        assert "No space left on device" in run.said
        assert "make room" in run.said
        assert torn(again, known) == []
        assert parts(again) == []

    # Taken away beforehand: Snakemake would make room by doing so itself.
    shutil.rmtree(again / RESULTS / "report")
    fails("report_study", "report/", 100_000, PAGE)
    (disk / "ballast").unlink()
    snakemake(again, "--cores", "2", "--", PAGE)
    assert torn(again, known) == []
    for folder in ("cohorts", "images", "training"):
        shutil.rmtree(again / RESULTS / folder)
    # Each of these makes what the one before could not.
    fails("ingest_cohort", "cohorts/home/inventory.parquet", 14_000, STORE)
    fails("correct_cohort", "images/home/raw/pixels.npy", 400_000, STORE)
    fails("train_fold", f"{STATE}/", 2_500_000, WEIGHTS)
    (disk / "ballast").unlink()
    snakemake(again, "--cores", "2", "--", WEIGHTS)
    assert torn(again, known) == []
    assert (again / WEIGHTS).is_file()


@root_only
def test_results_that_cannot_be_written(
    again: Path, known: dict[str, str], small_disk: Callable[[Path, int], None]
) -> None:
    disk = again / "results"
    disk.rename(again / "kept")
    small_disk(disk, 80_000_000)
    shutil.copytree(again / "kept", disk, dirs_exist_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    done = snakemake(again, "--cores", "2", "--forcerun", "correct_cohort", "--", STORE, check=False)
    assert done.returncode == 1
    assert "Write-protected output files for rule correct_cohort" in done.stdout
    assert STORE in done.stdout
    assert results(again) == known
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert planned(again) == {}


@root_only
def test_snakemakes_own_records_on_a_full_disk(
    again: Path, known: dict[str, str], small_disk: Callable[[Path, int], None]
) -> None:
    records = again / ".snakemake"
    records.rename(again / "kept")
    small_disk(records, 20_000_000)
    shutil.copytree(again / "kept", records, dirs_exist_ok=True)
    leave(records, 0)
    done = snakemake(again, "--cores", "2", "--forcerun", "correct_cohort", "--", STORE, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stdout
    assert torn(again, known) == []
    (records / "ballast").unlink()
    snakemake(again, "--unlock")
    snakemake(again, "--cores", "2", "--", STORE)
    assert torn(again, known) == []
