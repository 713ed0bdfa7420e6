"""What the words say before a run, for each kind of change to the finished demo; test_only_what_changed has the counts."""

import json
import re

from explained import explain, jobs_said
from project import DELTA, add_cohort, copy_project, replace, snakemake
from test_only_what_changed import (
    ACCURACY,
    FOLDS,
    FROM_TRAINING,
    INDEX_TESTS,
    ONE_FROM_TRAINING,
    ONE_HOSPITAL,
    SUMMARY,
    edit,
)

NOTHING = "Nothing to do: every result is there and made of what is there now.\n"


def jobs(planned):
    """Return a plan's counts without its target, which is no job."""
    return {rule: count for rule, count in planned.items() if rule != "all"}


def why(text):
    """Return the lines that tell the causes."""
    return [line[2:] for line in text.splitlines() if line.startswith("- ")]


def said(project, planned, *arguments):
    """Return the first line and the causes, when the words speak of exactly the planned jobs and fit on a screen."""
    text = explain(project, *arguments).stdout
    assert jobs_said(text) == jobs(planned)
    lines = text.splitlines()
    assert len(lines) <= 20
    number = sum(jobs(planned).values())
    assert lines[0].startswith(f"{number} job{'s' * (number > 1)} will run; ")
    assert re.fullmatch(r"All of it takes about [\w ]+ on 2 cores, by earlier runs\.", lines[1])
    return lines[0].split("; ", 1)[1], why(text)


def test_a_plain_copy_with_other_threads_and_memory_has_nothing_to_do(finished, tmp_path):
    project = copy_project(tmp_path / "elsewhere", finished, keep_times=False)
    other = ("--set-threads", "train_fold=1", "--set-resources", "train_fold:mem_mb=9999")
    assert explain(project, *other).stdout == NOTHING


def test_an_external_hospital(copy):
    add_cohort(copy, DELTA)
    planned = {"paint_hospital": 1, **ONE_HOSPITAL}
    trains, causes = said(copy, planned)
    follow = len(jobs(SUMMARY))
    own = sum(jobs(planned).values()) - follow
    assert trains == "nothing trains."
    assert causes == [f"hospital delta (Hospital D (painted)) is new: {own} jobs, and {follow} that follow"]


def test_a_development_hospital(copy):
    add_cohort(copy, DELTA.replace("external", "development"))
    text = explain(copy).stdout
    assert re.match(
        r"\d+ jobs will run; 9 networks train \(3 of lite0_finetune-corrected, 3 of lite0_frozen-corrected,"
        r" 3 of lite0_frozen-raw\): about [\w ]+ by earlier runs\.\n",
        text,
    )
    assert jobs_said(text)["train_fold"] == INDEX_TESTS * FOLDS
    assert jobs_said(text)["ingest_cohort"] == 1
    assert why(text)[0].startswith("hospital delta (Hospital D (painted)) is new: ")


def test_edited_statistics(copy):
    edit(copy, "statistics/bootstrap.py")
    trains, causes = said(copy, ACCURACY)
    assert trains == "nothing trains."
    assert len(causes) == 1
    assert re.match(r"the code of \d+ steps changed \(", causes[0])
    assert "statistics.accuracy" in causes[0] or "more" in causes[0]


def test_an_edited_training_option(copy):
    replace(copy / "config.yaml", "  epochs: 8\n", "  epochs: 4\n")
    trains, causes = said(copy, ONE_FROM_TRAINING)
    assert trains.startswith("3 networks train (3 of lite0_finetune-corrected): about ")
    follow = sum(jobs(ONE_FROM_TRAINING).values()) - FOLDS
    assert (
        causes[0]
        == f"the setting training.epochs: 8 → 4, of lite0_finetune: {FOLDS} jobs, and {follow} that follow"
    )


def test_a_hospital_taken_away(copy):
    table = copy / "resources/cohorts.tsv"
    table.write_text("".join(line for line in table.open() if not line.startswith("gamma\t")))
    for reader in ("consultant", "resident"):
        replace(copy / "config.yaml", f", gamma: resources/demo/gamma/{reader}.csv", "")
    trains, causes = said(copy, SUMMARY)
    assert trains == "nothing trains."
    assert causes[0].startswith("hospital gamma is no longer in the study: ")


def test_a_page_taken_away(copy):
    (copy / "results/demo/external/beta/report.html").unlink()
    trains, causes = said(copy, {"report_cohort": 1, "describe_run": 1})
    assert (trains, causes) == (
        "nothing trains.",
        ["what earlier runs made is no longer there: 1 job, and 1 that follows"],
    )


def test_what_is_forced(copy):
    trains, causes = said(copy, FROM_TRAINING, "--forcerun", "train_fold")
    assert trains.startswith("9 networks train ")
    assert causes[0].startswith(f"asked for on the command line: {INDEX_TESTS * FOLDS} jobs, and ")


def test_one_target_only(copy):
    edit(copy, "reporting/external.py")
    _, causes = said(copy, {"report_cohort": 1}, "results/demo/external/beta/report.html")
    assert causes == ["the code of reporting.external changed: 1 job"]


def test_a_mistake_in_the_configuration_is_told_as_by_snakemake(copy):
    replace(copy / "config.yaml", "  epochs: 8\n", "  epoch: 8\n")
    done = explain(copy, check=False)
    assert done.returncode == snakemake(copy, "-n", check=False).returncode == 1
    assert done.stdout == ""
    assert "training.epoch" in done.stderr and "epochs" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_machines_read_is_left_as_it_is(copy):
    add_cohort(copy, DELTA)
    graph = snakemake(copy, "--d3dag").stdout
    assert json.loads(graph[graph.index("{") : graph.rindex("}") + 1])["nodes"]
    dry = snakemake(copy, "-n", "--cores", "2").stdout
    assert "\nrule paint_hospital:\n" in dry
    assert not re.search(r"^\d\d:\d\d:\d\d  ", dry + graph, re.M)
