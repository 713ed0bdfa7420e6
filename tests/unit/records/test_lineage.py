"""Every file has its checksum and what made it; the chain of one file can be told and checked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from records_fixture import ROOT, record_path, sha256, write_benchmark, write_file, write_record

from marrowflow import lineage as chain_of
from marrowflow.errors import UserError
from marrowflow.files import write_table
from marrowflow.provenance import PACKAGE, code_digest
from marrowflow.records import lineage as lineage_module
from marrowflow.records.benchmarks import NOT_MEASURED
from marrowflow.records.jobs import Job, read_jobs
from marrowflow.records.lineage import COLUMNS, Names, trace
from marrowflow.records.page import size_text, write_lineage_page

METADATA = Path(".snakemake/metadata")
PAGE = f"{ROOT}/report/index.html"


def traced(unwritten=()):
    return trace(read_jobs(METADATA, str(ROOT)), ROOT, [PAGE], unwritten)


def table():
    return traced().table().fillna("").set_index("file")


def test_each_file_has_the_checksum_of_its_bytes(run):
    rows = table()
    assert list(traced().table().columns) == COLUMNS
    assert rows.loc["training/sound/m/raw/1/model.safetensors", "sha256"] == sha256(b"network 1")
    assert rows.loc["report/index.html", "bytes"] == len("<p>page")
    assert rows.loc["weights/x.pt", "sha256"] == sha256(b"weights")


def test_packed_pixels_have_the_checksum_that_was_taken_when_they_were_written(run):
    rows = table()
    assert rows.loc["images/A/raw/pixels.npy", "sha256"] == "ab" * 32
    assert rows.loc["images/A/raw/pixels.npy", "digest_of"] == "store.json"
    assert rows.loc["images/A/raw/store.json", "digest_of"] == "file"


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"sha256": 5}'])
def test_without_that_checksum_the_pixels_themselves_are_read(run, broken):
    write_file(f"{ROOT}/images/A/raw/store.json", broken)
    assert table().loc["images/A/raw/pixels.npy", "sha256"] == sha256(b"pixels")


def test_what_jobs_keep_for_themselves_is_left_out(run):
    assert {name.partition("/")[0] for name in table().index} == {
        "cohorts", "data", "images", "report", "resources", "training", "weights",
    }  # fmt: skip


def test_a_row_names_rule_step_code_options_inputs_costs_and_times(run):
    row = table().loc["training/sound/m/raw/1/model.safetensors"]
    assert (row["rule"], row["module"], row["code"]) == ("train", "step.train", "0123456789abcdef")
    assert row["options"] == sha256(b'{"units":["case"]}')[:12]
    assert row["inputs"].split() == ["images/A/raw/pixels.npy", "images/A/raw/store.json", "weights/x.pt"]
    assert (row["wall_seconds"], row["cpu_seconds"], row["peak_memory_mib"]) == (11.0, 20.5, 201.5)
    # 10**9 seconds after 1970 began.
    assert row["started"] == "2001-09-09T01:47:20+00:00"
    assert row["ended"] == "2001-09-09T01:47:31+00:00"
    assert row["log"] == "logs/train/sound/m/raw/1.log"


def test_a_figure_is_part_of_the_folder_that_its_job_declared(run):
    rows = table()
    figure = rows.loc["report/figures/roc.svg"]
    assert (figure["rule"], figure["part_of"], figure["inputs"]) == ("report", "report/figures", "")
    assert figure["upstream"]
    assert rows.loc["report/figures", "inputs"].split()[0] == "resources/cohorts.tsv"
    assert not any("snakemake_timestamp" in name for name in rows.index)


def test_a_folder_of_very_many_files_is_one_row(run, monkeypatch):
    monkeypatch.setattr(lineage_module, "_MOST_IN_A_FOLDER", 2)
    for i in (2, 10, 1):
        write_file(f"{ROOT}/report/figures/p{i}.png", str(i))
    rows = table()
    listed = "".join(
        f"{sha256(content)}  {name}\n"
        for name, content in (("p1.png", b"1"), ("p10.png", b"10"), ("p2.png", b"2"), ("roc.svg", b"<svg/>"))
    )
    assert rows.loc["report/figures", "sha256"] == sha256(listed.encode())
    assert rows.loc["report/figures", "digest_of"] == "folder"
    assert not any(name.startswith("report/figures/") for name in rows.index)


def test_what_is_odd_is_said(run):
    write_file(f"{ROOT}/by_hand.csv", "x")
    write_file("weights/x.pt", b"other weights")
    Path(f"{ROOT}/cohorts/A/inventory.parquet").unlink()
    write_record(f"{ROOT}/left.csv", "left", [], "left")
    write_file(f"{ROOT}/left.csv", "x")
    write_record(f"{ROOT}/deleted.csv", "left", [], "deleted")
    rows = table()
    assert rows.loc["by_hand.csv", "note"] == "no record of what made it"
    assert rows.loc["weights/x.pt", "note"] == "changed since it was read by train"
    assert rows.loc["cohorts/A/inventory.parquet", "note"] == "no longer on disk"
    assert rows.loc["cohorts/A/inventory.parquet", "sha256"] == ""
    assert not rows.loc["left.csv", "upstream"]
    assert rows.loc["report/index.html", "note"] == ""
    assert "deleted.csv" not in rows.index


def test_nothing_is_known_of_a_run_without_records_and_nothing_fails(run):
    for file in METADATA.rglob("*"):
        file.unlink()
    rows = table()
    assert (rows["rule"] == "").all()
    assert rows.loc["report/index.html", "note"] == "no record of what made it"
    assert rows.loc["report/index.html", "sha256"] == sha256(b"<p>page")


def test_what_is_written_later_has_a_row_without_checksum(run):
    write_file(f"{ROOT}/lineage.csv", "of an earlier run")
    rows = traced([f"{ROOT}/lineage.csv"]).table().set_index("file")
    assert rows.loc["lineage.csv", "sha256"] == ""
    assert "ro-crate-metadata.json" in rows.loc["lineage.csv", "note"]


def test_a_job_that_is_not_over_has_not_the_costs_of_an_earlier_run(run):
    write_benchmark("describe", "5", "5", "5")
    own = Job("describe", (f"{ROOT}/run.json",), (PAGE,), f"{ROOT}/logs/describe.log", started=1.0)
    lineage = trace(read_jobs(METADATA, str(ROOT), own), ROOT, own.outputs, own.outputs)
    assert repr(lineage.costs[own.outputs]) == repr(NOT_MEASURED)
    assert lineage.costs[(f"{ROOT}/cohorts/A/inventory.parquet",)].seconds == 1.5


def test_names_can_stand_in_a_link_and_tell_no_place(run, tmp_path):
    names = Names(ROOT)
    secret = tmp_path.parent / "anna's disk" / "m anifest.csv"
    write_file(str(secret), "x")
    assert names.of(f"{ROOT}/a b/ü.csv") == "a%20b/%C3%BC.csv"
    assert names.of("data/x.csv") == "data/x.csv"
    assert names.of(str(secret)) == f"outside/{sha256(b'x')[:12]}/m%20anifest.csv"
    assert names.of("../gone/x.csv") == "outside/missing/x.csv"
    assert names.of("data/../../x.csv") == "outside/missing/x.csv"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, ""),
        (0, "0 bytes"),
        (999, "999 bytes"),
        (47_023, "47 kB"),
        (18_800_000, "18.8 MB"),
        (2e9, "2 GB"),
    ],
)
def test_sizes_in_words(size, text):
    assert size_text(size) == text


def page_of(lineage, path):
    write_lineage_page(lineage, "T <b>", path)
    return path.read_text()


def test_the_page_has_a_place_for_every_file_and_no_link_that_leads_nowhere(run):
    lineage = traced()
    page = page_of(lineage, ROOT / "lineage.html")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {entry.name for entry in lineage.entries} <= set(ids)
    links = re.findall(r'href="#([^"]+)"', page)
    assert set(links) <= set(ids)
    assert {"data/A/manifest.csv", "weights/x.pt"} <= set(links)
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert "T &lt;b&gt;" in page


def test_the_page_tells_what_the_table_tells(run):
    page = page_of(traced(), ROOT / "lineage.html")
    article = page.split("<h3>train sound/m/raw/1</h3>")[1].split("</article>")[0]
    for text in (
        "step.train",
        "0123456789abcdef",
        "11.0 s, 20.5 s of CPU, 202 MiB at most",
        "2001-09-09 01:47:20 to 2001-09-09 01:47:31 UTC",
        sha256(b"network 1"),
    ):
        assert text in article
    assert "checksum taken when it was written" in page


def lineage_written(run):
    write_table(ROOT / "lineage.csv", traced().table())
    return chain_of.read_lineage(ROOT)


def told(run, name="report/index.html"):
    chain = chain_of.Chain(ROOT, lineage_written(run))
    return list(chain.lines(name)), chain


def test_a_chain_goes_down_to_the_manifest(run):
    lines, _ = told(run)
    assert lines[0] == f"report/index.html   {sha256(b'<p>page')[:12]} as recorded"
    assert lines[1].startswith("  made by report (step.report, code 0123456789abcdef")
    manifest = next(line for line in lines if "data/A/manifest.csv" in line)
    # report → model → pixels → inventory → manifest, two steps of two spaces each.
    assert len(manifest) - len(manifest.lstrip()) == 4 * 4
    assert sum("pixels.npy" in line for line in lines) == 2
    assert sum("pixels.npy   (above)" in line for line in lines) == 1


def test_a_changed_and_a_missing_file_are_found(run):
    rows = lineage_written(run)
    write_file("data/A/manifest.csv", "changed")
    Path(f"{ROOT}/training/sound/m/raw/0/model.safetensors").unlink()
    chain = chain_of.Chain(ROOT, rows)
    lines = list(chain.lines("report/index.html"))
    assert any(line.strip().endswith("CHANGED") and "manifest.csv" in line for line in lines)
    assert any(line.strip().endswith("missing") and "0/model.safetensors" in line for line in lines)
    # page, two networks, pixels, store.json, inventory, manifest, weights, cohort table; packed pixels do not match
    # the checksum that the fixture gives them.
    assert chain.states == {"as recorded": 6, "CHANGED": 2, "missing": 1}
    assert chain.verdict().startswith("6 of 9 files have their recorded checksum, 2 CHANGED, 1 missing;")


def test_code_is_compared_with_that_of_now(run):
    step = "statistics.accuracy"
    for code, said in ((code_digest(step), "as now"), ("0" * 16, f"NOW {code_digest(step)}")):
        record = record_path(f"{ROOT}/cohorts/A/inventory.parquet")
        content = json.loads(record.read_text())
        record.write_text(
            json.dumps(content | {"shellcmd": f"python -m marrowflow {step} --x", "params": [repr(code)]})
        )
        lines, chain = told(run, "cohorts/A/inventory.parquet")
        assert said in lines[1]
        assert ("ingest" in chain.changed_code) == (said != "as now")


def test_code_that_is_not_known_is_not_said_to_have_changed(run):
    digests = [repr("0" * 16), repr("f" * 16)]
    for step in ("choices.seal", "no.such.step"):
        command = f"python -m marrowflow {step}"
        inventory = f"{ROOT}/cohorts/A/inventory.parquet"
        write_record(
            inventory, "ingest", ["data/A/manifest.csv"], "ingest/A", params=digests, shellcmd=command
        )
        lines, chain = told(run, "cohorts/A/inventory.parquet")
        assert f"({step}, code unknown)" in lines[1]
        assert chain.verdict().endswith("; code unknown: ingest.")


def test_no_place_is_told_within_a_parameter(run):
    for kind, parameter in (
        ("json", '{"A": "/home/anna/m.csv"}'),
        ("text", '["../anna/m.csv"]'),
        ("list", ["/home/anna/m.csv"]),
    ):
        write_record(f"{ROOT}/{kind}.csv", kind, [], kind, params=[repr(parameter)])
    page = page_of(traced(), ROOT / "lineage.html")
    assert "anna" not in page
    assert page.count("(outside the project)/m.csv") == 3


def test_a_figures_chain_is_that_of_its_folder(run):
    lines, _ = told(run, "report/figures/roc.svg")
    assert any("data/A/manifest.csv" in line for line in lines)


def test_a_file_is_found_by_any_of_its_names(run):
    rows = lineage_written(run)
    for name in (
        "report/index.html",
        f"{ROOT}/report/index.html",
        str((ROOT / "report/index.html").resolve()),
    ):
        assert chain_of.name_in(rows, ROOT, name) == "report/index.html"
    assert chain_of.name_in(rows, ROOT, "data/A/manifest.csv") == "data/A/manifest.csv"


def test_an_unknown_file_and_a_missing_table_say_what_to_do(run):
    rows = lineage_written(run)
    with pytest.raises(UserError, match=r"report/index\.html"):
        chain_of.name_in(rows, ROOT, "index.html")
    with pytest.raises(UserError, match=r"snakemake --cores 1"):
        chain_of.read_lineage(Path("results/none"))


def test_the_command_prints_the_chain(run):
    lineage_written(run)
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    command = [
        sys.executable,
        "-m",
        "marrowflow",
        "lineage",
        "--root",
        str(ROOT),
        "--file",
        "report/index.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[0].startswith("report/index.html")
    # The fixture's steps do not exist: their code is not that of now.
    assert done.stdout.splitlines()[-1].endswith("code changed since: correct, ingest, report, train.")


def test_lineage_is_the_same_for_the_same_files(run):
    pd.testing.assert_frame_equal(traced().table(), traced().table())
