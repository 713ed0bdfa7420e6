"""Each rule's environment holds all that its code imports: those without PyTorch (`make test-environments`).

The steps before the training do their work in them; those after it can only be imported, because what they read comes
from networks (`make test-environments-torch` runs them all).
"""

import re
from pathlib import Path

import pytest
from own_environments import (
    MODULES,
    WITHOUT_TORCH,
    Bench,
    assert_at_home,
    assert_imported,
    every_import,
    notes,
)
from project import ROOT, copy_project

# Everything that needs no network of neurons.
TARGETS = [
    "results/demo/augmentation/contact_sheet_corrected.png",
    "results/demo/splits/sound/gate.json",
    "results/demo/external/beta/gate.json",
    "results/demo/external/beta/arrival.json",
    "results/demo/images/beta/raw/store.json",
    "results/demo/readers/consultant/beta/predictions.parquet",
    "results/demo/augmentation/sound/0/pictures_raw",
]
DONE = {
    "paint_hospital",
    "note_arrival",
    "ingest_cohort",
    "correct_cohort",
    "split_patients",
    "check_leakage",
    "check_external",
    "plan_augmentation",
    "draw_contact_sheet",
    "materialise_plan",
    "take_reader",
}


@pytest.fixture(scope="module")
def stocked(bench: Bench) -> Bench:
    bench.stock(WITHOUT_TORCH)
    return bench


@pytest.fixture(scope="module")
def imported(stocked: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the project in which every rule's imports have run, and what Snakemake said."""
    project = copy_project(tmp_path_factory.mktemp("imports") / "marrowflow")
    return project, every_import(stocked, project, WITHOUT_TORCH)


@pytest.mark.parametrize("rule", WITHOUT_TORCH)
def test_all_that_a_rule_imports_comes_from_its_environment(rule: str, imported: tuple[Path, str]) -> None:
    assert_imported(rule, *imported)


@pytest.fixture(scope="module")
def prepared(stocked: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the demo study has run as far as it goes without PyTorch."""
    project = copy_project(tmp_path_factory.mktemp("prepared") / "marrowflow")
    done = stocked.snakemake(project, *TARGETS)
    assert done.returncode == 0, done.stdout[-10_000:]
    return project


@pytest.mark.parametrize("rule", sorted(DONE))
def test_a_step_does_its_work_in_its_environment(rule: str, prepared: Path) -> None:
    jobs = [note for note in notes(prepared, "__main__.py") if note["argv"][1] == MODULES[rule]]
    assert jobs
    for job in jobs:
        assert_at_home(job, [rule], prepared)


def test_snakemake_alone_plans_the_study(stocked: Bench, tmp_path: Path) -> None:
    # The README promises that whoever has conda needs Snakemake, and none of the packages of the steps.
    pins = (ROOT / "requirements-dev.txt").read_text().splitlines()
    (snakemake,) = [pin for pin in pins if pin.startswith("snakemake==")]
    done = stocked.snakemake(
        copy_project(tmp_path / "marrowflow"), "--dry-run", python=stocked.alone(snakemake)
    )
    assert done.returncode == 0, done.stdout[-5_000:]
    assert re.search(r"^train_fold +9$", done.stdout, re.M), done.stdout[-5_000:]
