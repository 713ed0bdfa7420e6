"""What runs again after each kind of change: exact job counts on the finished demo study.

The demo has one development hospital (alpha) and two external ones (beta, gamma), two colour recipes,
three index tests and three folds; the counts below are products of these numbers, made by hand.
"""

import os
import shutil
from pathlib import Path

import pytest
from project import DELTA, add_cohort, copy_project, planned, replace

INDEX_TESTS, FOLDS, COLOURS, EXTERNAL, READERS = 3, 3, 2, 2, 2
# The one development cohort is a set of patients of its own.
COHORTS, PATIENT_SETS = 1 + EXTERNAL, 1 + EXTERNAL

STUDY_REPORT = {"report_study": 1, "describe_run": 1, "all": 1}
REPORTS = {"report_cohort": EXTERNAL, **STUDY_REPORT}
# What is made of the accuracy tables of all hospitals.
SUMMARY = {"audit_figures": 1, "pool_hospitals": 1, **STUDY_REPORT}
ACCURACY = {
    "measure_accuracy": INDEX_TESTS * PATIENT_SETS,
    "compare_index_tests": PATIENT_SETS,
    "measure_subgroups": PATIENT_SETS,
    "measure_readers": PATIENT_SETS,
    "measure_shift": EXTERNAL,
    "package_model": 1,  # its card prints the accuracy on development patients
    **SUMMARY,
    **REPORTS,
}
# One external hospital's own jobs from its manifest on, and the study's summary.
ONE_HOSPITAL = {
    "note_arrival": 1,
    "ingest_cohort": 1,
    "correct_cohort": COLOURS,
    "check_external": 1,
    "predict_external": INDEX_TESTS,
    "apply_lock": INDEX_TESTS,
    "measure_accuracy": INDEX_TESTS,
    "compare_index_tests": 1,
    "measure_subgroups": 1,
    "take_reader": READERS,
    "measure_readers": 1,
    "embed_cohort": 1,
    "measure_shift": 1,
    "explain_cohort": 1,
    "report_cohort": 1,
    **SUMMARY,
}
# What the choices are sealed, packed and shown with.
FROM_CHOICES = {
    "explain_cohort": PATIENT_SETS,
    "measure_subgroups": PATIENT_SETS,
    "measure_readers": PATIENT_SETS,
    "seal_development": 1,
    "package_model": 1,
}
FEATURES = {"embed_cohort": COHORTS, "measure_shift": EXTERNAL}
FROM_LOCK = {
    "lock_choices": INDEX_TESTS,
    "apply_lock": INDEX_TESTS * EXTERNAL,
    **FROM_CHOICES,
    "measure_accuracy": INDEX_TESTS * PATIENT_SETS,
    "compare_index_tests": PATIENT_SETS,
    **SUMMARY,
    **REPORTS,
}
FROM_TRAINING = {
    "train_fold": INDEX_TESTS * FOLDS,
    "predict_development": INDEX_TESTS,
    "predict_external": INDEX_TESTS * EXTERNAL,
    **FEATURES,
    **FROM_LOCK,
}
# One index test's own jobs from its raw development predictions on, and those that set it beside the others.
ONE_FROM_LOCK = {
    "lock_choices": 1,
    "apply_lock": EXTERNAL,
    **FROM_CHOICES,
    "measure_accuracy": PATIENT_SETS,
    "compare_index_tests": PATIENT_SETS,
    **SUMMARY,
    **REPORTS,
}
ONE_FROM_TRAINING = {
    "train_fold": FOLDS,
    "predict_development": 1,
    "predict_external": EXTERNAL,
    **FEATURES,
    **ONE_FROM_LOCK,
}


def package(project: Path, name: str) -> Path:
    return project / "workflow/marrowflow" / name


def edit(project: Path, name: str) -> None:
    """Add a line of code to a module."""
    path = package(project, name)
    path.write_text(path.read_text() + "\nADDED_BY_A_TEST = True\n")


def test_nothing_changed_nothing_runs(finished):
    assert planned(finished) == {}


def test_a_touch_runs_nothing(copy):
    for path in copy.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)
    assert planned(copy) == {}


def test_a_plain_copy_of_the_project_runs_nothing(finished, tmp_path):
    """Without times, as `cp -r` and git do."""
    assert planned(copy_project(tmp_path / "elsewhere" / "renamed", finished, keep_times=False)) == {}


def test_threads_memory_and_cores_run_nothing(finished):
    assert planned(finished, "--cores", "1") == {}
    assert (
        planned(finished, "--set-threads", "train_fold=1", "--set-resources", "train_fold:mem_mb=9999") == {}
    )


def test_a_comment_in_the_configuration_runs_nothing(copy):
    path = copy / "config.yaml"
    path.write_text("# another comment\n" + path.read_text())
    assert planned(copy) == {}


def test_an_external_hospital_runs_its_own_jobs_and_the_summary(copy):
    add_cohort(copy, DELTA)
    assert planned(copy) == {"paint_hospital": 1, **ONE_HOSPITAL}


def test_an_external_hospital_taken_away_runs_the_summary(copy):
    table = copy / "resources/cohorts.tsv"
    table.write_text("".join(line for line in table.open() if not line.startswith("gamma\t")))
    for reader in ("consultant", "resident"):
        replace(copy / "config.yaml", f", gamma: resources/demo/gamma/{reader}.csv", "")
    assert planned(copy) == SUMMARY


def test_a_development_hospital_runs_its_own_intake_and_all_folds(copy):
    add_cohort(copy, DELTA.replace("external", "development"))
    assert planned(copy) == {
        "paint_hospital": 1,
        "ingest_cohort": 1,
        "correct_cohort": COLOURS,
        "split_patients": 1,
        "plan_augmentation": FOLDS,
        "draw_contact_sheet": COLOURS,
        "check_leakage": 1,
        "check_external": EXTERNAL,
        "take_reader": READERS,
        **FROM_TRAINING,
        "embed_cohort": COHORTS + 1,
    }


def test_a_changed_manifest_of_an_external_hospital_runs_that_hospital(copy):
    manifest = copy / "resources/demo/beta/manifest.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:-1]))
    assert planned(copy) == ONE_HOSPITAL


def test_edited_statistics_run_accuracy_and_reports_only(copy):
    edit(copy, "statistics/bootstrap.py")
    assert planned(copy) == ACCURACY


def test_an_edited_comparison_runs_comparisons_and_reports_only(copy):
    edit(copy, "statistics/hypotheses.py")
    assert planned(copy) == {
        "compare_index_tests": PATIENT_SETS,
        "measure_readers": PATIENT_SETS,
        **REPORTS,
    }


def test_an_edited_page_template_runs_the_reports_only(copy):
    template = package(copy, "reporting/templates/page.html")
    template.write_text(template.read_text() + "<!-- edited -->")
    # The audit is a module of the reports, and takes a second.
    assert planned(copy) == {"audit_figures": 1, **REPORTS}


def test_an_edited_module_that_training_imports_retrains_and_takes_in_nothing(copy):
    edit(copy, "learning/batches.py")
    assert planned(copy) == FROM_TRAINING


def test_an_edited_module_that_intake_imports_runs_everything_below(copy):
    edit(copy, "cohorts/quality.py")
    jobs = planned(copy)
    assert jobs["ingest_cohort"] == COHORTS
    assert jobs["train_fold"] == INDEX_TESTS * FOLDS
    assert "paint_hospital" not in jobs


def test_edited_configuration_models_run_nothing_by_themselves(copy):
    edit(copy, "config.py")
    assert planned(copy) == {}


def test_two_swapped_hyper_parameters_retrain(copy):
    """Snakemake compares params as an unnamed set: two values that change places must not pass."""
    config = copy / "config.yaml"
    replace(config, "  weight_decay: 0.01\n", "  weight_decay: 0.2\n")
    replace(config, "  dropout: 0.2\n", "  dropout: 0.01\n")
    assert planned(copy) == FROM_TRAINING


def test_another_model_trains_that_model_only(copy):
    replace(copy / "config.yaml", "    input_size: 96\n", "    input_size: 64\n")
    assert planned(copy) == ONE_FROM_TRAINING


def test_edited_heads_of_a_model_train_that_model_only(copy):
    replace(
        copy / "config.yaml",
        "    colours: [corrected]\n",
        "    colours: [corrected]\n    heads: {leukaemia: 0.5, diagnosis: 0.5}\n",
    )
    assert planned(copy) == ONE_FROM_TRAINING


def test_another_licence_of_a_model_runs_the_reports(copy):
    replace(
        copy / "config.yaml",
        "    licence: Apache-2.0\n    # Side of",
        "    licence: another one\n    # Side of",
    )
    assert planned(copy) == {"package_model": 1, **REPORTS}


def test_an_ensemble_of_existing_members_asks_no_network_again(copy):
    """Its members share one colour recipe, so that it is one index test more."""
    with (copy / "config.yaml").open("a") as config:
        config.write("\nensembles: {both: {members: [lite0_finetune, lite0_frozen]}}\n")
    assert planned(copy) == {"combine_development": 1, "choose_primary": 1, **FEATURES, **ONE_FROM_LOCK}


def test_another_colour_recipe_of_a_model_trains_that_pair_only(copy):
    replace(copy / "config.yaml", "    colours: [corrected]\n", "    colours: [corrected, raw]\n")
    jobs = planned(copy)
    assert jobs["train_fold"] == FOLDS
    assert jobs["predict_development"] == 1


def test_a_published_split_trains_beside_the_sound_one(copy):
    replace(
        copy / "config.yaml",
        "  protocol: sound\n",
        "  protocol: as_published\n  as_published: {scheme: holdout, test: 0.25}\n",
    )
    jobs = planned(copy)
    assert jobs["train_fold"] == INDEX_TESTS
    assert jobs["split_patients"] == 1


def test_a_stray_file_in_the_package_runs_nothing(copy):
    (package(copy, "images") / ".DS_Store").write_bytes(b"x")
    assert planned(copy) == {}


def test_another_threshold_rule_locks_anew_and_trains_nothing(copy):
    replace(copy / "config.yaml", "  rule: youden\n", "  rule: sensitivity\n  value: 0.9\n")
    assert planned(copy) == FROM_LOCK


def test_edited_predictions_run_also_where_the_choices_are_locked_anew(copy):
    """Snakemake looks only at the inputs of what lies below a job that runs: new locks on old answers must not be."""
    replace(copy / "config.yaml", "  rule: youden\n", "  rule: sensitivity\n  value: 0.9\n")
    edit(copy, "learning/predict_external.py")
    assert planned(copy) == {**FROM_LOCK, "predict_external": INDEX_TESTS * EXTERNAL}


@pytest.mark.parametrize("module", ["choices/calibration.py", "choices/threshold.py", "learning/lock.py"])
def test_edited_code_of_the_choices_locks_anew_and_asks_no_network(copy, module):
    edit(copy, module)
    assert planned(copy) == FROM_LOCK


def test_edited_code_that_applies_the_lock_runs_the_external_hospitals_from_there(copy):
    edit(copy, "learning/combine.py")
    assert planned(copy) == {
        "apply_lock": INDEX_TESTS * EXTERNAL,
        "measure_accuracy": INDEX_TESTS * EXTERNAL,
        "compare_index_tests": EXTERNAL,
        "measure_subgroups": EXTERNAL,
        "measure_readers": EXTERNAL,
        "explain_cohort": EXTERNAL,
        # The code that a hospital's images pass through is sealed, and packed.
        "seal_development": 1,
        "package_model": 1,
        **SUMMARY,
        **REPORTS,
    }


def test_another_primary_index_test_runs_comparisons_and_reports(copy):
    replace(copy / "config.yaml", "  primary: lite0_finetune-corrected\n", "  primary: lite0_frozen-raw\n")
    assert planned(copy) == {
        "choose_primary": 1,
        "compare_index_tests": PATIENT_SETS,
        "pool_hospitals": 1,
        **FROM_CHOICES,
        **FEATURES,
        **REPORTS,
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "published: []",
            "published: [{index_test: lite0_frozen-raw, metric: auc, class_name: macro, value: 0.9}]",
        ),
        ("assumed: {}", "assumed: {training.rate: not given}"),
    ],
    ids=["published", "assumed"],
)
def test_published_and_assumed_values_run_the_studys_report_only(copy, old, new):
    config = copy / "config.yaml"
    assert config.read_text().count(f"\n{old}") == 1
    config.write_text(config.read_text().replace(f"\n{old}", f"\n{new}"))
    assert planned(copy) == STUDY_REPORT


def test_more_replicates_run_accuracy_and_reports(copy):
    replace(copy / "config.yaml", "  replicates: 2000\n", "  replicates: 1000\n")
    assert planned(copy) == ACCURACY


def test_another_title_runs_the_reports(copy):
    replace(copy / "config.yaml", '  title: "Diagnosis', '  title: "The diagnosis')
    assert planned(copy) == {"package_model": 1, **REPORTS}


def test_a_lost_network_is_trained_again(copy):
    shutil.rmtree(copy / "results/demo/training/sound/lite0_finetune/corrected/1")
    assert planned(copy, "--forcerun", "train_fold") == FROM_TRAINING
