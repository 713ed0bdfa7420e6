"""Snakemake's records are read as they are, and what is missing or odd is said."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from records_fixture import LONG, ROOT, record_path, write_file, write_record

from marrowflow.provenance import code_digest
from marrowflow.records.jobs import Job, read_jobs

METADATA = Path(".snakemake/metadata")


def jobs_of(run):
    return {(job.rule, job.outputs): job for job in read_jobs(METADATA, str(ROOT)).jobs}


def test_outputs_of_one_job_are_one_job(run):
    jobs = read_jobs(METADATA, str(ROOT))
    assert [job.rule for job in jobs.jobs] == ["ingest", "correct", "train", "train", "report"]
    assert jobs.notes == []
    train = jobs.jobs[2]
    folder = f"{ROOT}/training/sound/m/raw/0"
    assert train.outputs == (f"{folder}/card.json", f"{folder}/cost.json", f"{folder}/model.safetensors")


def test_texts_of_params_are_told_apart(run):
    job = read_jobs(METADATA, str(ROOT)).jobs[0]
    assert (job.module, job.code, job.options) == ("step.ingest", "0123456789abcdef", '{"units":["case"]}')
    assert job.parameters == ("Hospital A",)
    assert (job.started, job.ended) == (1_000_000_000.0, 1_000_000_010.0)


def job_given(*params, command="python -m marrowflow choices.seal"):
    write_record(f"{ROOT}/x.json", "x", [], "x", params=sorted(map(repr, params)), shellcmd=command)
    return read_jobs(METADATA, str(ROOT)).that_made(f"{ROOT}/x.json")


def test_the_code_is_the_digest_of_the_jobs_own_step(run):
    """A seal is given the digests of other steps, too; sorted, any of them may be the first."""
    own = code_digest("choices.seal")
    job = job_given("0" * 16, own, "f" * 16)
    assert job.code == own
    assert job.parameters == ("0" * 16, "f" * 16)


def test_which_of_several_digests_is_the_code_is_not_guessed(run):
    job = job_given("0" * 16, "f" * 16)
    assert (job.code, job.parameters) == ("", ("0" * 16, "f" * 16))
    assert job_given("0" * 16).code == "0" * 16
    assert job_given("0" * 16, "f" * 16, command=None).code == ""


def test_the_options_are_those_of_the_command(run):
    """The hospitals by cohort are JSON, too, and sort before the options where a cohort is called aachen."""
    hospitals, options = '{"aachen": "St. Mary\'s"}', '{"accuracy":{"seed":0},"title":"Mary\'s"}'
    command = f"python -m marrowflow s --options {shlex.quote(options)} --developed {shlex.quote(hospitals)} 2> x.log"
    job = job_given("0" * 16, hospitals, options, command=command)
    assert (job.options, job.parameters) == (options, (hospitals,))


@pytest.mark.parametrize("command", [None, "", "python -m marrowflow s", "s --options", "s --options 'half"])
def test_a_command_without_options_has_none(run, command):
    job = job_given("0" * 16, '{"a": 1}', command=command)
    assert (job.options, job.parameters) == ("", ('{"a": 1}',))


def test_lists_are_json_and_what_is_empty_is_left_out(run):
    assert job_given("", None, [], ["ä", "b"]).parameters == ('["ä", "b"]',)


def test_a_job_lasts_from_its_first_output_to_its_last(run):
    output = f"{ROOT}/training/sound/m/raw/0/cost.json"
    record = json.loads(record_path(output).read_text())
    for start, end, times in (
        (1_000_000_031.0, 1_000_000_041.0, (1_000_000_031.0, 1_000_000_050.0)),
        (1_000_000_045.0, 1_000_000_077.0, (1_000_000_040.0, 1_000_000_077.0)),
    ):
        record_path(output).write_text(json.dumps(record | {"starttime": start, "endtime": end}))
        job = read_jobs(METADATA, str(ROOT)).that_made(output)
        assert (job.started, job.ended) == times


def test_a_path_too_long_for_one_name_is_read(run):
    output = f"{ROOT}/{LONG}/x.csv"
    write_record(output, "far", [], "far")
    assert len(record_path(output).parts) > 3
    made = read_jobs(METADATA, str(ROOT)).that_made(output)
    assert made.rule == "far"


def test_inputs_from_outside_the_results_are_followed_and_other_studies_are_not(run):
    write_record("data/A/manifest.csv", "paint", [], "paint/A")
    write_record("results/other/x.csv", "other", [], "other")
    write_record("results/s_too/x.csv", "other", [], "other_too")
    assert {job.rule for job in read_jobs(METADATA, str(ROOT)).jobs} == {
        "paint",
        "ingest",
        "correct",
        "train",
        "report",
    }


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"rule": null}', '{"rule": "ingest", "incomplete": true}', ""]
)
def test_a_broken_record_is_a_note(run, content):
    record_path(f"{ROOT}/cohorts/A/inventory.parquet").write_text(content)
    jobs = read_jobs(METADATA, str(ROOT))
    assert jobs.notes == [f"The record of {ROOT}/cohorts/A/inventory.parquet cannot be read."]
    assert jobs.that_made(f"{ROOT}/cohorts/A/inventory.parquet") is None


def test_missing_records_are_a_note(run):
    shutil.rmtree(".snakemake")
    jobs = read_jobs(METADATA, str(ROOT))
    assert jobs.jobs == []
    assert "missing" in jobs.notes[0]


def test_a_stray_file_among_the_records_is_passed_over(run):
    write_file(".snakemake/metadata/notes.txt", "x")
    assert read_jobs(METADATA, str(ROOT)).notes == []


def test_another_format_is_a_warning_with_its_number(run):
    write_record(f"{ROOT}/new.csv", "new", [], "new", record_format_version=7)
    (note,) = read_jobs(METADATA, str(ROOT)).notes
    assert "format 7" in note
    assert "format 6" in note


def test_an_environment_counts_only_where_snakemake_made_it(run):
    write_record(f"{ROOT}/conda.csv", "conda", [], "conda", software_stack_hash="1f" * 16)
    found = {job.rule: job.environment for job in read_jobs(METADATA, str(ROOT)).jobs}
    assert found["conda"].startswith("dependencies:")
    assert found["train"] == ""


def test_only_sha256_checksums_are_taken(run):
    write_record(f"{ROOT}/n.csv", "n", ["a", "b"], "n", input_checksums={"a": "sha256:12", "b": "md5:34"})
    assert read_jobs(METADATA, str(ROOT)).that_made(f"{ROOT}/n.csv").read == {"a": "12"}


def test_the_job_that_asks_replaces_its_own_earlier_record(run):
    write_record(f"{ROOT}/run.json", "describe", ["old"], "describe")
    own = Job("describe", (f"{ROOT}/run.json",), ("new",))
    jobs = read_jobs(METADATA, str(ROOT), own)
    assert [job for job in jobs.jobs if job.rule == "describe"] == [own]


def test_upstream_is_all_that_a_target_was_made_of(run):
    write_record(f"{ROOT}/apart.csv", "apart", ["x"], "apart")
    jobs = read_jobs(METADATA, str(ROOT))
    upstream = jobs.upstream([f"{ROOT}/images/A/raw/store.json"])
    assert upstream == {
        f"{ROOT}/images/A/raw/store.json",
        f"{ROOT}/images/A/raw/pixels.npy",
        f"{ROOT}/cohorts/A/inventory.parquet",
        "data/A/manifest.csv",
    }
    assert f"{ROOT}/apart.csv" not in jobs.upstream([f"{ROOT}/report/index.html"])


def test_a_file_in_a_declared_folder_is_its_jobs(run):
    jobs = read_jobs(METADATA, str(ROOT))
    assert jobs.that_made(f"{ROOT}/report/figures/roc.svg").rule == "report"
    assert jobs.that_made(f"{ROOT}/elsewhere/roc.svg") is None
