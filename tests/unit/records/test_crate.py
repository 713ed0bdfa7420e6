"""A run is described by files whose checksums another reader can verify, in a crate that a validator accepts."""

import json
from datetime import datetime
from pathlib import Path

import pytest
import requests
from records_fixture import ROOT, STUDY, sha256, study, write_file

from marrowflow.files import sha256_of
from marrowflow.records import describe
from marrowflow.records.crate import media_type

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
# What the published context of RO-Crate 1.1 makes of the terms that we use; any other term would be lost in silence.
SCHEMA = [
    "about", "additionalType", "contentSize", "ControlAction", "CreateAction", "CreativeWork", "Dataset", "datePublished",
    "description", "encodingFormat", "endTime", "exampleOfWork", "hasPart", "HowTo", "HowToStep", "identifier",
    "instrument", "license", "mainEntity", "mentions", "name", "object", "OrganizeAction", "position",
    "programmingLanguage", "result", "SoftwareApplication", "SoftwareSourceCode", "softwareVersion", "startTime", "step",
    "url", "valueRequired", "version", "workExample",
]  # fmt: skip
TERMS = {name: f"http://schema.org/{name}" for name in SCHEMA} | {
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "ComputerLanguage": "http://schema.org/ComputerLanguage",
    "File": "http://schema.org/MediaObject",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
    "output": "https://bioschemas.org/ComputationalWorkflow#output",
}


def described(configured=None, **changes):
    given = dict(
        study=configured or study(),
        root=ROOT,
        records=Path(".snakemake/metadata"),
        results=[ROOT / "report/index.html"],
        options="{}",
        log=f"{ROOT}/logs/describe_run.log",
        snakemake="9.27.1",
        configfiles=["config.yaml"],
    )
    describe.describe_run(**(given | changes))
    return entities()


def entities():
    return {e["@id"]: e for e in json.loads((ROOT / "ro-crate-metadata.json").read_text())["@graph"]}


def test_every_result_is_in_the_crate_with_the_checksum_of_its_bytes(run):
    found = described()
    on_disk = {
        p.relative_to(ROOT).as_posix()
        for p in ROOT.rglob("*")
        if p.is_file()
        and p.relative_to(ROOT).parts[0] not in ("benchmarks", "logs", "state")
        and p.name[0] != "."
    }
    files = {name for name, e in found.items() if "File" in e["@type"]}
    assert files == on_disk - {"ro-crate-metadata.json"}
    assert {"run.json", "lineage.csv", "lineage.html", "configuration.json", "run/Snakefile"} <= files
    for name in files - {"images/A/raw/pixels.npy"}:
        assert found[name]["sha256"] == sha256_of(ROOT / name), name
        assert found[name]["contentSize"] == str((ROOT / name).stat().st_size), name
    assert {e["@id"] for e in found["./"]["hasPart"]} == files | {"report/figures/", "run/"}


def test_each_job_is_an_action_with_what_it_read_and_made(run):
    found = described()
    (train,) = [
        e for e in found.values() if e["@type"] == "CreateAction" and e["name"] == "train sound m raw 1"
    ]
    assert {e["@id"] for e in train["object"]} == {
        "images/A/raw/pixels.npy",
        "images/A/raw/store.json",
        "#weights/x.pt",
    }
    assert {e["@id"] for e in train["result"]} == {
        f"training/sound/m/raw/1/{name}" for name in ("card.json", "cost.json", "model.safetensors")
    }
    assert datetime.fromisoformat(train["startTime"]).timestamp() == 1_000_000_040
    assert datetime.fromisoformat(train["endTime"]).timestamp() == 1_000_000_051
    assert "0123456789abcdef" in train["description"]
    (report,) = [e for e in found.values() if e["@type"] == "CreateAction" and e["name"] == "report"]
    assert {"@id": "report/figures/roc.svg"} in report["result"]


def test_what_lies_outside_the_results_is_described_and_no_file_of_the_crate(run):
    found = described()
    assert found["#weights/x.pt"] == {
        "@id": "#weights/x.pt", "@type": "CreativeWork", "name": "weights/x.pt", "sha256": sha256(b"weights"),
        "contentSize": "7",
    }  # fmt: skip
    assert not any(name.startswith(("..", "/")) for name in found)


def test_the_workflow_is_the_main_entity_and_the_run_its_action(run):
    found = described()
    assert found["./"]["mainEntity"] == {"@id": "run/Snakefile"}
    assert found["#run"]["instrument"] == {"@id": "run/Snakefile"}
    assert {e["@id"] for e in found["#run"]["result"]} == {"run.json", "report/index.html"}
    assert datetime.fromisoformat(found["#run"]["startTime"]).timestamp() == 1_000_000_000
    assert found["#snakemake"]["softwareVersion"] == "9.27.1"
    assert found["#organisation"]["result"] == {"@id": "#run"}
    assert {found[e["@id"]]["object"]["@id"] for e in found["#organisation"]["object"]} == {
        f"#job-{i}" for i in range(6)
    }
    assert found["#input-configuration"]["workExample"] == {"@id": "configuration.json"}
    assert found["configuration.json"]["exampleOfWork"] == {"@id": "#input-configuration"}
    assert (ROOT / "run/Snakefile").read_text().startswith("from snakemake")
    assert (ROOT / "run/workflow/rules/reporting.smk").is_file()


def test_terms_of_use_are_the_teams_or_said_to_be_missing(run):
    assert described()["#terms-of-use"]["description"] == "On request."
    assert "availability.data" in described(study(availability={}))["#terms-of-use"]["description"]


def test_a_run_without_records_is_described_too(run):
    for file in Path(".snakemake").rglob("*"):
        if file.is_file():
            file.unlink()
    found = described(records=Path("nowhere"))
    assert found["report/index.html"]["sha256"] == sha256_of(ROOT / "report/index.html")
    assert "missing" in json.loads((ROOT / "run.json").read_text())["records"]["notes"][0]


def test_describing_twice_describes_the_same(run):
    def without_times():
        found = json.loads((ROOT / "run.json").read_text())
        return {key: value for key, value in found.items() if key != "ended"}

    described()
    first, rows = without_times(), (ROOT / "lineage.csv").read_text().count("\n")
    described()
    # Snakemake removes a job's outputs before it runs again; here the crate and the tables of the first time lie about.
    assert without_times() == first
    assert (ROOT / "lineage.csv").read_text().count("\n") == rows


def test_no_place_is_told(run, tmp_path):
    outside = tmp_path.parent / "anna" / "manifest.csv"
    write_file(str(outside), "image,label\n1.png,a\n")
    write_file(
        "resources/cohorts.tsv",
        f"cohort\trole\tmanifest\thospital\tsource\nA\tdevelopment\t{outside}\tH\tS\n",
    )
    described(study(label_map="/home/anna/map.csv"), configfiles=["/home/anna/study.yaml"])
    name = f"outside/{sha256(outside.read_bytes())[:12]}/manifest.csv"
    assert name in (ROOT / "run/cohorts.tsv").read_text()
    for path in (
        "run.json",
        "lineage.csv",
        "lineage.html",
        "configuration.json",
        "ro-crate-metadata.json",
        "run/cohorts.tsv",
    ):
        text = (ROOT / path).read_text()
        assert "anna" not in text, path
        assert str(tmp_path) not in text, path


def test_the_command_writes_all(run):
    describe.main(
        [
            *("--options", json.dumps(STUDY), "--root", str(ROOT), "--records", ".snakemake/metadata"),
            *("--results", f"{ROOT}/report/index.html", "--log", f"{ROOT}/logs/describe_run.log"),
            *("--snakemake", "9.27.1", "--configfiles", "config.yaml"),
        ]
    )
    assert json.loads((ROOT / "run.json").read_text())["command"]["configfiles"] == ["config.yaml"]
    assert json.loads((ROOT / "configuration.json").read_text())["study"]["key"] == "s"
    rows = (ROOT / "lineage.csv").read_text()
    assert "\nrun.json," in rows
    assert "describe_run,records.describe," in rows


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "text/csv"),
        ("a.html", "text/html"),
        ("a.svg", "image/svg+xml"),
        ("a.json", "application/json"),
        ("a.parquet", "application/vnd.apache.parquet"),
        ("a.safetensors", "application/octet-stream"),
        ("a.unheard_of", "application/octet-stream"),
    ],
)
def test_media_types(name, kind):
    assert media_type(Path(name)) == kind


def test_only_terms_of_the_published_context_are_used(run):
    described()
    document = json.loads((ROOT / "ro-crate-metadata.json").read_text())
    assert document["@context"] == [CONTEXT, {"sha256": "http://schema.org/sha256"}]
    kinds = {
        k for e in document["@graph"] for k in ([e["@type"]] if isinstance(e["@type"], str) else e["@type"])
    }
    used = kinds | {key for e in document["@graph"] for key in e if not key.startswith("@")}
    assert used - {"sha256"} <= set(TERMS)


@pytest.mark.parametrize("profile", ["workflow-run-crate-0.5", "provenance-run-crate-0.5"])
def test_a_validator_accepts_the_crate(run, monkeypatch, profile):
    """roc-validator, without a network: the only thing that it asks for is RO-Crate's context."""
    services = pytest.importorskip("rocrate_validator.services")

    def answer(self, request, **_):
        assert request.url == CONTEXT, request.url
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.headers["Content-Type"] = "application/ld+json"
        response._content = json.dumps({"@context": TERMS}).encode()
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", answer)
    described()
    settings = services.ValidationSettings(rocrate_uri=str(ROOT), profile_identifier=profile, no_cache=True)
    assert [str(issue.message) for issue in services.validate(settings).get_issues()] == []
    broken = json.loads((ROOT / "ro-crate-metadata.json").read_text())
    broken["@graph"] = [e for e in broken["@graph"] if e["@id"] != "#run"]
    (ROOT / "ro-crate-metadata.json").write_text(json.dumps(broken))
    assert services.validate(settings).get_issues() != []
