"""run.json sums what was measured, names every input, and tells no place."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from records_fixture import ROOT, sha256, study, write_benchmark, write_file, write_record

from marrowflow.cohorts.table import read_cohorts
from marrowflow.provenance import code_digest
from marrowflow.records import software
from marrowflow.records.benchmarks import NOT_MEASURED, Cost, benchmark_of, read_cost, summed
from marrowflow.records.jobs import Job, Jobs, read_jobs
from marrowflow.records.lineage import trace
from marrowflow.records.run import images_of, run_record, without_places


def recorded(configured=None):
    jobs = read_jobs(Path(".snakemake/metadata"), str(ROOT))
    lineage = trace(jobs, ROOT, [f"{ROOT}/report/index.html"])
    cohorts = read_cohorts(Path("resources/cohorts.tsv"))
    record = run_record(configured or study(), cohorts, lineage, ROOT, "9.27.1", ["config.yaml"])
    json.dumps(record, allow_nan=False)
    return record


def test_costs_are_summed_by_hand(run):
    costs = recorded()["costs"]
    assert costs["rules"]["train"] == {
        "jobs": 2,
        "measured": 2,
        "wall_seconds": 21.0,
        "cpu_seconds": 41.0,
        "longest_seconds": 11.0,
        "peak_memory_mib": 201.5,
    }
    # 1.5 + 2.25 + 10 + 11 seconds; CPU time of correct and all of report were not measured: 1.25 + 2 * 20.5.
    assert costs["all"] == {
        "jobs": 5,
        "measured": 4,
        "wall_seconds": 24.75,
        "cpu_seconds": 42.25,
        "longest_seconds": 11.0,
        "peak_memory_mib": 201.5,
    }
    assert costs["rules"]["report"]["wall_seconds"] is None


def test_a_table_of_an_earlier_run_does_not_count(run):
    before = recorded()["costs"]["all"]
    write_benchmark("train/sound/m/raw/9", "1000", "1000", "1000")
    assert recorded()["costs"]["all"] == before


@pytest.mark.parametrize("content", ["", "s\n", "s\tcpu_time\nx\ty\n", None])
def test_a_broken_table_is_not_measured(tmp_path, content):
    path = tmp_path / "b.tsv"
    if content is not None:
        path.write_text(content)
    assert repr(read_cost(path)) == repr(NOT_MEASURED)


def test_sums_of_nothing_are_not_zero():
    assert summed([NOT_MEASURED])["wall_seconds"] is None
    assert summed([Cost(1.0, float("nan"), 2.0), NOT_MEASURED])["cpu_seconds"] is None


def test_the_benchmark_stands_beside_the_log():
    assert benchmark_of("results/s/logs/a/logs.log") == "results/s/benchmarks/a/logs.tsv"
    assert benchmark_of("elsewhere/a.log") == ""


def test_start_and_end_are_those_of_the_first_and_the_last_job(run):
    record = recorded()
    assert (record["started"], record["ended"]) == ("2001-09-09T01:46:40+00:00", "2001-09-09T01:48:19+00:00")


def test_assumed_values_and_seeds_are_named_with_their_place(run):
    record = recorded()
    assert record["assumed"] == {"splits.seed": {"value": 3, "why": "the paper gives none"}}
    assert record["seeds"]["splits.seed"] == 3
    assert record["seeds"]["models.m.training.seed"] == 7
    assert record["seeds"]["accuracy.seed"] == 0
    assert record["configuration"]["splits"]["seed"] == 3


def test_every_input_has_its_checksum(run):
    inputs = recorded()["inputs"]
    manifest = b"image,label\n1.png,a\n2.png,b\n"
    assert inputs["weights"] == [{"file": "weights/x.pt", "sha256": sha256(b"weights"), "bytes": 7}]
    assert inputs["cohorts"]["A"]["manifest"] == {
        "file": "data/A/manifest.csv", "sha256": sha256(manifest), "bytes": len(manifest),
    }  # fmt: skip
    images = inputs["cohorts"]["A"]["images"]
    assert (images["images"], images["included"], images["bytes"]) == (2, 1, 42)
    assert images["sha256"] == sha256(b"11\n\n")
    assert inputs["label map"] == []


def test_readers_of_one_or_several_tables_are_inputs(run):
    readers = {"one": {"table": "readers/a.csv"}, "two": {"table": {"A": "readers/b.csv"}}}
    files = [entry["file"] for entry in recorded(study(readers=readers))["inputs"]["readers"]]
    assert files == ["readers/a.csv", "readers/b.csv"]


def test_images_of_a_cohort_that_was_not_taken_in(tmp_path):
    assert images_of(tmp_path / "inventory.parquet") is None


def test_devices_and_versions_come_from_the_networks(run):
    record = recorded()
    assert record["devices"] == [{"device": "cpu", "networks": 2, "training_seconds": 5.0}]
    assert record["trained_with"] == {"torch": ["2.0", "2.1"]}


def test_networks_that_the_study_no_longer_has_do_not_count(run):
    before = recorded()
    folder = f"{ROOT}/training/sound/m/raw/2"
    write_file(f"{folder}/cost.json", json.dumps({"device": "old", "device_seconds": 99.0}))
    write_file(f"{folder}/card.json", json.dumps({"versions": {"torch": "1.0"}}))
    for name in ("cost.json", "card.json"):
        write_record(f"{folder}/{name}", "train", ["weights/x.pt"], "train/sound/m/raw/2")
    after = recorded()
    assert after["devices"] == before["devices"]
    assert after["trained_with"] == before["trained_with"]


def test_environments_are_pins_where_conda_made_them_and_packages_elsewhere(run):
    write_record(f"{ROOT}/c.csv", "conda", [], "c", software_stack_hash="1f" * 16)
    found = recorded()["environments"]
    assert found["rules"] == {"conda": {"numpy": "2.4.6", "python": "3.12"}}
    assert found["interpreter"]["pydantic"]


def test_broken_environment_files_have_no_pins():
    for text in ("[", "name: x", "dependencies: 5", "- a"):
        assert software.pins_of(Job("r", ("o",), environment=text)) == {}
    assert software.environments(Jobs([]))["rules"] == {}


def test_code_is_compared_with_that_of_now(run):
    assert recorded()["code"]["train"] == {
        "module": "step.train", "ran": ["0123456789abcdef"], "now": "no such module", "same": False,
    }  # fmt: skip


def test_code_that_is_not_known_is_neither_the_same_nor_changed(run):
    own, others = code_digest("choices.seal"), ["0" * 16, "f" * 16]
    jobs = {"known": [own, *others], "unknown": others, "changed": others[:1], "bare": []}
    for rule, digests in jobs.items():
        command = "python -m marrowflow choices.seal" if rule != "bare" else "cp a b"
        params = sorted(map(repr, digests))
        write_record(f"{ROOT}/{rule}.json", rule, [], rule, params=params, shellcmd=command)
    code = recorded()["code"]
    assert {rule: code[rule]["same"] for rule in jobs} == {
        "known": True, "unknown": None, "changed": False, "bare": None,
    }  # fmt: skip
    assert code["known"]["ran"] == [own]
    assert code["unknown"]["ran"] == ["unknown"]
    assert (code["unknown"]["now"], code["bare"]["now"]) == (own, "unknown")


def test_no_place_is_told(run):
    places = {
        "label_map": "/home/anna/map.csv",
        "readers": {"r": {"table": "../anna/r.csv"}},
        "models": {"m": {"network": "x", "weights": r"C:\anna\x.pt"}},
    }
    text = json.dumps(recorded(study(**places)))
    assert "anna" not in text
    assert "(outside the project)/map.csv" in text
    assert "(outside the project)/x.pt" in text


def test_sentences_are_no_places():
    for text in ("/ or not", "n: 12", "see ../ there", "1/2", "..", "a\n/home/x"):
        assert without_places({"k": [text]}) == {"k": [text]}


def git(*arguments):
    options = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *options, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    if shutil.which("git") is None:
        pytest.skip("needs git")
    monkeypatch.chdir(tmp_path)
    write_file("Snakefile", "x")
    git("init", "-q")
    git("add", "Snakefile")
    git("commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout_has_its_commit(checkout):
    found = software.commit(checkout)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == {"commit": head, "dirty": False, "changed": [], "reason": ""}


def test_a_changed_or_a_new_file_of_the_workflow_is_dirt_and_a_users_own_is_not(checkout):
    write_file("notes.txt", "mine")
    assert software.commit(checkout)["dirty"] is False
    write_file("Snakefile", "y")
    write_file("envs/new one.yaml", "z")
    found = software.commit(checkout)
    assert found["dirty"] is True
    assert found["changed"] == ["Snakefile", "envs/"]


def test_no_checkout_is_said(checkout, tmp_path, monkeypatch):
    inner = checkout / "copy"
    write_file(str(inner / "Snakefile"), "x")
    found = software.commit(inner)  # in a checkout, but not of it
    assert found["commit"] == "unknown"
    assert "no git checkout" in found["reason"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "not installed" in software.commit(checkout)["reason"]
