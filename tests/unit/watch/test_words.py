"""Rules, jobs and times in words."""

import re

import pytest
from project import ROOT

from marrowflow.watch.plan import PlannedJob
from marrowflow.watch.words import STAGES, counted_by_rule, job_in_words, listed, stage_of, time_in_words


def test_every_rule_of_the_workflow_has_a_stage_and_a_word_for_what_it_makes():
    files = sorted((ROOT / "workflow/rules").glob("*.smk"))
    rules = {name for file in files for name in re.findall(r"^rule (\w+):", file.read_text(), re.M)}
    assert len(rules) > 30
    assert {name for stage in STAGES.values() for name in stage} == rules


def test_a_rule_without_a_word_is_called_by_its_name():
    assert stage_of("stain_slides") == "other"
    jobs = [PlannedJob(1, "stain_slides"), PlannedJob(2, "report_study"), PlannedJob(3, "stain_slides")]
    assert counted_by_rule(jobs) == "1 study report, 2 of stain_slides"


def test_a_job_is_told_by_its_rule_and_wildcards_and_its_hospital_by_name():
    job = PlannedJob(7, "measure_accuracy", {"protocol": "sound", "model": "m", "cohort": "beta"})
    assert job_in_words(job, {"beta": "St. Bee"}) == (
        "measure_accuracy: protocol sound, model m, hospital beta (St. Bee)"
    )
    assert job_in_words(PlannedJob(8, "report_study"), {}) == "report_study"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (59 * 60 + 20, "59 min"),
        (59 * 60 + 40, "1 h"),
        (3 * 3600 + 5 * 60, "3 h 5 min"),
        (47 * 3600, "47 h"),
        (50 * 3600, "2 d 2 h"),
        (72 * 3600, "3 d"),
    ],
)
def test_times_are_told_as_people_say_them(seconds, words):
    assert time_in_words(seconds) == words


def test_a_long_list_is_cut():
    assert listed("abcdef", 4) == "a, b, c, d and 2 more"
    assert listed("abcd", 4) == "a, b, c, d"
