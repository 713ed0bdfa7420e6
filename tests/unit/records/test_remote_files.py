"""What the records say of files on a server and of what was handed from job to job."""

import json

import pandas as pd
import pytest
from records_fixture import ROOT, sha256, study, write_file, write_record

from marrowflow import lineage as chain_of
from marrowflow.cohorts.table import read_cohorts
from marrowflow.files import write_table
from marrowflow.records.jobs import read_jobs
from marrowflow.records.lineage import trace
from marrowflow.records.run import run_record

PREFIX = ".snakemake/storage/s3"
MANIFEST, ARCHIVE = "s3://smears/b/manifest.csv", "s3://smears/b/x.tar"
INVENTORY, PART = f"{ROOT}/cohorts/B/inventory.parquet", f"{ROOT}/state/parts/B/raw/x/pixels.npy"


@pytest.fixture
def remote(run):
    """Add a hospital on S3 to the run, as Snakemake 9.27 records one: inputs by URL, checksums by the copy's path."""
    write_file(
        "resources/cohorts.tsv",
        "cohort\trole\tmanifest\thospital\tsource\tshards\n"
        f"A\tdevelopment\tdata/A/manifest.csv\tH\tS\t\nB\texternal\t{MANIFEST}\tH\tS\tx.tar\n",
    )
    write_file(INVENTORY, b"")
    pd.DataFrame({"sha256": ["11"], "bytes": [3], "status": ["included"]}).to_parquet(INVENTORY)
    read = {
        f"{PREFIX}/smears/b/manifest.csv": "sha256:" + sha256(b"m"),
        f"{PREFIX}/smears/b/x.tar": "sha256:" + sha256(b"x"),
    }
    write_record(INVENTORY, "ingest_far", [MANIFEST, ARCHIVE], "ingest/B", input_checksums=read)
    write_record(PART, "correct_far", [ARCHIVE], "correct/B", input_checksums=dict([list(read.items())[1]]))
    write_record(f"{ROOT}/report/index.html", "report", [INVENTORY, PART], "report")
    return run


def traced():
    root = ROOT
    jobs = read_jobs(root.parent.parent / ".snakemake/metadata", root.as_posix())
    return trace(jobs, root, [f"{ROOT}/report/index.html"])


def test_a_remote_file_goes_by_its_url_and_by_the_checksum_of_what_was_fetched(remote):
    rows = traced().table().set_index("file")
    manifest, archive = rows.loc["s3%3A//smears/b/manifest.csv"], rows.loc["s3%3A//smears/b/x.tar"]
    assert (manifest["sha256"], archive["sha256"]) == (sha256(b"m"), sha256(b"x"))
    assert set(rows.loc[[manifest.name, archive.name], "digest_of"]) == {"fetched copy"}
    assert manifest["note"] == "on remote storage; not kept here"
    assert manifest["upstream"]
    assert "s3%3A//smears/b/x.tar" in rows.loc["cohorts/B/inventory.parquet", "inputs"]
    assert rows.loc["state/parts/B/raw/x/pixels.npy", "note"] == "handed from job to job and not kept"


def test_jobs_that_fetched_different_bytes_are_told(remote):
    other = {f"{PREFIX}/smears/b/x.tar": "sha256:" + sha256(b"y")}
    write_record(PART, "correct_far", [ARCHIVE], "correct/B", input_checksums=other)
    row = traced().table().set_index("file").loc["s3%3A//smears/b/x.tar"]
    assert row["sha256"] == ""
    assert "changed between the jobs that read it" in row["note"]


def test_the_runs_record_names_the_manifest_and_finds_nothing_odd(remote):
    lineage = traced()
    record = run_record(
        study(cohorts="resources/cohorts.tsv"),
        read_cohorts(remote / "resources/cohorts.tsv"),
        lineage,
        ROOT,
        "9",
        [],
    )
    found = record["inputs"]["cohorts"]["B"]["manifest"]
    assert (found["file"], found["sha256"]) == ("s3%3A//smears/b/manifest.csv", sha256(b"m"))
    odd = json.dumps(record["records"]["odd_files"])
    assert "s3" not in odd and "parts" not in odd


def test_the_chain_says_that_a_remote_file_was_not_checked(remote):
    write_table(ROOT / "lineage.csv", traced().table())
    chain = chain_of.Chain(ROOT, chain_of.read_lineage(ROOT))
    lines = list(chain.lines("cohorts/B/inventory.parquet"))
    assert any(f"s3://smears/b/x.tar   {sha256(b'x')[:12]} not checked" in line for line in lines)
    assert "missing" not in chain.verdict()
