"""The size of a plan: a formula of hospitals, networks, recipes and folds, in which the number of images does not occur."""

import pytest
import yaml
from project import add_cohort, copy_project, planned

FOLDS, MODELS, RECIPES = 5, 10, 2
DEVELOPED, EXTERNAL = 4, 8


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Twelve hospitals and 20 networks: ten models, each on both colour recipes."""
    project = copy_project(tmp_path_factory.mktemp("large") / "marrowflow")
    (project / "resources/cohorts.tsv").write_text("cohort\trole\tmanifest\thospital\tsource\n")
    for number in range(DEVELOPED + EXTERNAL):
        take_up(project, number, "development" if number < DEVELOPED else "external")
    config = {
        "study": {"key": "large", "title": "Many"},
        "cohorts": "resources/cohorts.tsv",
        "classes": ["healthy", "AML"],
        "colour": {"raw": {"method": "none"}, "corrected": {"method": "reflection_median"}},
        "splits": {"folds": FOLDS},
        "grid": {
            "networks": {f"network{i}": {"network": "resnet18"} for i in range(MODELS // 2)},
            "modes": ["scratch", "finetune"],
        },
        "report": {"primary": "network0_scratch-raw"},
    }
    (project / "config.yaml").write_text(yaml.safe_dump(config))
    return project


def take_up(project, number, role):
    add_cohort(project, f"h{number}\t{role}\tdata/h{number}/manifest.csv\tHospital {number}\tpainted\n")
    fill(project, number, 10)


def fill(project, number, images):
    """Give a hospital so many images; planning looks at none, so they may be empty."""
    folder = project / f"data/h{number}"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:04}.jpg" for i in range(images)]
    for name in names:
        (folder / name).touch()
    rows = [f"{name},p{i // 3},healthy" for i, name in enumerate(names)]
    (folder / "manifest.csv").write_text("\n".join(["image,patient_id,label", *rows]) + "\n")


def jobs_of(developed, external):
    """Jobs of a whole study by rule, counted by hand."""
    hospitals, networks = developed + external, MODELS * RECIPES
    # Development counts as one set of patients, and each external hospital as one.
    sets = 1 + external
    once = "split_patients check_leakage choose_primary seal_development package_model audit_figures pool_hospitals"
    return {
        "ingest_cohort": hospitals,
        "correct_cohort": hospitals * RECIPES,
        "embed_cohort": hospitals,
        "draw_contact_sheet": RECIPES,
        "plan_augmentation": FOLDS,
        "train_fold": networks * FOLDS,
        "predict_development": networks,
        "lock_choices": networks,
        "predict_external": networks * external,
        "apply_lock": networks * external,
        "measure_accuracy": networks * sets,
        "compare_index_tests": sets,
        "measure_subgroups": sets,
        "explain_cohort": sets,
        "note_arrival": external,
        "check_external": external,
        "measure_shift": external,
        "report_cohort": external,
        **dict.fromkeys([*once.split(), "report_study", "describe_run", "all"], 1),
    }


def test_jobs_do_not_depend_on_the_number_of_images(project):
    few = planned(project)
    assert few == jobs_of(DEVELOPED, EXTERNAL)
    # As docs/scale.md has it.
    n, f, r, e, h = MODELS * RECIPES, FOLDS, RECIPES, EXTERNAL, DEVELOPED + EXTERNAL
    assert sum(few.values()) == n * (f + 2) + n * (3 * e + 1) + 2 * h + r * (h + 1) + f + 7 * e + 13 == 764
    for number in range(DEVELOPED + EXTERNAL):
        fill(project, number, 1000)
    assert planned(project) == few


def test_one_hospital_more_is_the_same_number_of_jobs_more_whatever_its_size(project):
    take_up(project, DEVELOPED + EXTERNAL, "external")
    jobs = planned(project)
    assert jobs == jobs_of(DEVELOPED, EXTERNAL + 1)
    # Three for each network (answers, locked choices, accuracy), one a recipe, and nine of its own.
    assert sum(jobs.values()) - 764 == 3 * MODELS * RECIPES + RECIPES + 9
