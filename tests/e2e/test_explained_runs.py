"""What was said before a run is what it then does: run for real on copies of the finished demo.

test_demo.py adds an external hospital, and test_only_what_changed.py counts many more changes by dry runs.
"""

import os
import re

import pytest
import yaml
from explained import explain, jobs_said, last_run
from project import DELTA, add_cohort, copy_project, planned, replace, snakemake

NETWORKS = "results/demo/training/**/model.safetensors"
NOT_TOUCHED = (NETWORKS, "results/demo/locked/**/threshold.json", "results/demo/predictions/**/*.parquet")


def written(project, *patterns):
    """Return when files were last written."""
    return {path: path.stat().st_mtime_ns for pattern in patterns for path in project.glob(pattern)}


def run_as_said(project):
    """Run what was explained; return the explanation and what the run printed."""
    said = explain(project).stdout
    printed = snakemake(project, "--cores", "2").stdout
    assert last_run(project) == jobs_said(said)
    assert planned(project) == {}
    assert explain(project).stdout.startswith("Nothing to do")
    return said, printed


def test_touch_copy_threads_and_memory_run_nothing(finished, tmp_path):
    project = copy_project(tmp_path / "elsewhere" / "renamed", finished, keep_times=False)
    for path in project.rglob("*"):
        if path.is_file() and ".snakemake" not in path.parts:
            os.utime(path)
    before = written(project, "results/**/*")
    done = snakemake(
        project, "--cores", "1", "--set-threads", "train_fold=1", "--set-resources", "train_fold:mem_mb=9999"
    )
    assert "Nothing to be done" in done.stdout
    assert last_run(project) == {}
    assert written(project, "results/**/*") == before


def test_edited_statistics_measure_and_report_anew_and_train_nothing(copy):
    before = written(copy, *NOT_TOUCHED)
    assert len(before) > 9
    bootstrap = copy / "workflow/marrowflow/statistics/bootstrap.py"
    bootstrap.write_text(bootstrap.read_text() + "\nADDED_BY_A_TEST = True\n")
    said, printed = run_as_said(copy)
    assert "; nothing trains." in said
    assert "9 accuracy tables" in said
    assert written(copy, *NOT_TOUCHED) == before
    # On the terminal: stages and the end, and no job's details.
    assert re.search(r"^\d\d:\d\d:\d\d  statistics done: 9 accuracy tables", printed, re.M)
    assert re.search(rf"^\d\d:\d\d:\d\d  done: {sum(last_run(copy).values())} jobs in ", printed, re.M)
    assert "rule measure_accuracy" not in printed


def test_a_hospital_and_a_page_taken_away_make_the_summary_anew_and_train_nothing(copy):
    table = copy / "resources/cohorts.tsv"
    table.write_text("".join(line for line in table.open() if not line.startswith("gamma\t")))
    for reader in ("consultant", "resident"):
        replace(copy / "config.yaml", f", gamma: resources/demo/gamma/{reader}.csv", "")
    (copy / "results/demo/external/beta/report.html").unlink()
    before = written(copy, *NOT_TOUCHED, "results/demo/accuracy/**/*")
    said, _ = run_as_said(copy)
    assert "; nothing trains." in said
    assert "hospital gamma is no longer in the study" in said
    assert "what earlier runs made is no longer there" in said
    assert written(copy, *NOT_TOUCHED, "results/demo/accuracy/**/*") == before


def test_a_development_hospital_and_an_edited_training_train_what_was_said(copy):
    """With one network of the demo, fewer epochs and fewer replicates: what changes is the same, in less time."""
    config = yaml.safe_load((copy / "config.yaml").read_text())
    del config["models"]["lite0_frozen"]
    config["training"]["epochs"] = 2
    config["accuracy"]["replicates"] = 100
    config["report"]["errors_shown"] = 0
    (copy / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    add_cohort(copy, DELTA.replace("external", "development"))
    before = written(copy, NETWORKS)
    untouched = written(copy, "results/demo/cohorts/alpha/*", "results/demo/images/alpha/**/*.npy")
    said, _ = run_as_said(copy)
    assert "; 3 networks train (3 of lite0_finetune-corrected): about " in said
    assert "- hospital delta (Hospital D (painted)) is new: " in said
    assert "the setting training.epochs: 8 → 2, of lite0_finetune" in said
    after = written(copy, NETWORKS)
    trained = {path.relative_to(copy).parts[4] for path in before if before[path] != after[path]}
    assert trained == {"lite0_finetune"}
    assert written(copy, "results/demo/cohorts/alpha/*", "results/demo/images/alpha/**/*.npy") == untouched


def test_a_failed_job_is_told_at_once_and_at_the_end(copy):
    audit = copy / "workflow/marrowflow/reporting/audit.py"
    audit.write_text(audit.read_text() + "\nraise RuntimeError('broken by a test')\n")
    done = snakemake(copy, "--cores", "2", "results/demo/audit.json", check=False)
    assert done.returncode == 1
    assert done.stdout.count("RuntimeError: broken by a test") == 2
    assert done.stdout.count("results/demo/logs/audit_figures.log") == 2
    assert "FAILED audit_figures" in done.stdout
    assert "set -euo pipefail" not in done.stdout
    assert max((copy / ".snakemake/log").glob("*.log")).read_text().count("set -euo pipefail") == 1


@pytest.mark.parametrize("own", ["--printshellcmds", "--quiet"])
def test_who_asks_for_snakemakes_own_output_gets_it(copy, own):
    (copy / "results/demo/audit.json").unlink()
    printed = snakemake(copy, "--cores", "2", "results/demo/audit.json", own).stdout
    assert ("rule audit_figures:" in printed) == (own == "--printshellcmds")
    assert not re.search(r"^\d\d:\d\d:\d\d  ", printed, re.M)
