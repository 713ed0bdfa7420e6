"""A study of images and one of slides, each rule in its own environment, PyTorch's included (`make test-environments-torch`)."""

import json
from pathlib import Path

import pytest
import yaml
from little_slide_study import STUDY as SLIDE_STUDY
from own_environments import MODULES, WITH_TORCH, Bench, assert_at_home, assert_imported, every_import, notes
from painted_studies import paint
from project import copy_project

# Small, and yet with something to do for every rule: fetched weights and none, two networks and their mean.
SMALL = {
    "models": {
        "frozen": {
            "network": "tf_efficientnet_lite0",
            "mode": "frozen",
            "weights": "resources/weights/tf_efficientnet_lite0.safetensors",
            "licence": "Apache-2.0",
            "input_size": 64,
            "colours": ["raw"],
            "training": {"epochs": 20, "rate": 0.003},
        },
        "scratch": {
            "network": "test_resnet",
            "mode": "scratch",
            "input_size": 64,
            "colours": ["raw"],
            "training": {"epochs": 2},
        },
    },
    "ensembles": {"both": {"members": ["frozen", "scratch"]}},
    "readers": {
        "consultant": {
            "title": "painted consultant",
            "unit": "patient",
            "table": {"beta": "resources/demo/beta/consultant.csv"},
        }
    },
}

# What only cohorts on remote storage need; here no server is at hand, and their imports alone are checked.
REMOTE = {"check_manifest", "measure_shard", "correct_shard"}
SLIDES = {rule for rule, module in MODULES.items() if module.startswith(("slides.", "viewer."))}
RUN = sorted({module for rule, module in MODULES.items() if rule not in REMOTE | SLIDES})
RUN_ON_SLIDES = sorted({module for rule, module in MODULES.items() if rule in SLIDES})


@pytest.fixture(scope="module")
def stocked(bench: Bench) -> Bench:
    bench.stock(list(MODULES))
    return bench


@pytest.fixture(scope="module")
def imported(stocked: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the project in which PyTorch's rules have imported everything, and what Snakemake said."""
    project = copy_project(tmp_path_factory.mktemp("imports") / "marrowflow")
    return project, every_import(stocked, project, WITH_TORCH)


@pytest.mark.parametrize("rule", WITH_TORCH)
def test_all_that_a_rule_imports_comes_from_its_environment(rule: str, imported: tuple[Path, str]) -> None:
    assert_imported(rule, *imported)


@pytest.fixture(scope="module")
def studied(stocked: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which a small study has run from its first job to its last."""
    project = copy_project(tmp_path_factory.mktemp("study") / "marrowflow")
    study = yaml.safe_load((project / "config.yaml").read_text()) | SMALL
    # Both protocols, pictures as files, one external hospital.
    study["splits"] |= {"protocol": "as_published", "as_published": {"scheme": "holdout"}, "folds": 2}
    study["augmentation"] |= {"materialise": True}
    study["accuracy"] |= {"replicates": 100}
    study["report"] |= {"primary": "both-raw", "errors_shown": 2}
    (project / "config.yaml").write_text(yaml.safe_dump(study))
    cohorts = (project / "resources/cohorts.tsv").read_text().splitlines(keepends=True)
    (project / "resources/cohorts.tsv").write_text("".join(cohorts[:3]))
    done = stocked.snakemake(project)
    assert done.returncode == 0, done.stdout[-10_000:]
    return project


@pytest.fixture(scope="module")
def studied_slides(stocked: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which a small study of slides has run from its first job to its last."""
    project = copy_project(tmp_path_factory.mktemp("slides") / "marrowflow")
    paint("wang2022", project / "resources/slides", patients=4, images=2)
    (project / "config.yaml").write_text(yaml.safe_dump(SLIDE_STUDY))
    done = stocked.snakemake(project)
    assert done.returncode == 0, done.stdout[-10_000:]
    return project


@pytest.mark.parametrize("module", RUN)
def test_a_step_does_its_work_in_its_environment(module: str, studied: Path) -> None:
    assert_done(module, studied)


@pytest.mark.parametrize("module", RUN_ON_SLIDES)
def test_a_step_of_slides_does_its_work_in_its_environment(module: str, studied_slides: Path) -> None:
    assert_done(module, studied_slides)


def assert_done(module: str, studied: Path) -> None:
    """Assert that a module's jobs ran in their own environments alone."""
    rules = [rule for rule, runs in MODULES.items() if runs == module]
    jobs = [note for note in notes(studied, "__main__.py") if note["argv"][1] == module]
    assert jobs
    for job in jobs:
        assert_at_home(job, rules, studied)


def test_the_studys_record_tells_the_environments_python(studied: Path) -> None:
    trained_with = json.loads((studied / "results/demo/run.json").read_text())["trained_with"]
    assert trained_with["python"]
    assert all(version.startswith("3.12.") for version in trained_with["python"])
