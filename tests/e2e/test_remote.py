"""A hospital whose images lie on a server: S3 (moto's server) and HTTP, both real processes on the loopback interface."""

import re
from pathlib import Path

import pandas as pd
import pytest
from little_study import write_cohort, write_study
from project import add_cohort, copy_project, planned, snakemake
from storage_servers import KEY, SECRET, free_port, http_server, s3_environment, s3_server, upload

from marrowflow.cohorts.shards import pack_shards

ARCHIVES = 3
INVENTORY = "results/little/cohorts/far/inventory.parquet"
STORE = [
    f"results/little/images/far/raw/{name}"
    for name in ("pixels.npy", "index.parquet", "store.json", "appearance.parquet")
]
PREDICTIONS = "results/little/predictions/sound/resnet/raw/far/predictions.parquet"
# All jobs up to the predictions of a hospital that is new.
NEW = {
    "note_arrival": 1,
    "check_manifest": 1,
    "measure_shard": ARCHIVES,
    "correct_shard": ARCHIVES,
    "ingest_cohort": 1,
    "correct_cohort": 1,
    "check_external": 1,
    "predict_external": 1,
    "apply_lock": 1,
}


@pytest.fixture(scope="module")
def developed(tmp_path_factory) -> Path:
    """A project whose networks are trained and whose choices are locked; nothing external was read."""
    project = copy_project(tmp_path_factory.mktemp("developed") / "marrowflow")
    write_study(project)
    table = project / "resources/cohorts.tsv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{header}\tshards", *(f"{line}\t" for line in lines)]) + "\n")
    snakemake(project, "--cores", "2", "develop")
    return project


@pytest.fixture(scope="module")
def far(tmp_path_factory) -> tuple[Path, Path]:
    """A third hospital, as a folder and packed into archives."""
    folder = tmp_path_factory.mktemp("far")
    write_cohort(folder / "images", 12, seed=7)
    cut = folder / "images" / "3_0.png"
    cut.write_bytes(cut.read_bytes()[:-300])
    names = pack_shards(folder / "images/manifest.csv", folder / "packed", 10)
    assert len(names) == ARCHIVES
    return folder / "images", folder / "packed"


@pytest.fixture(scope="module")
def local(developed, far, tmp_path_factory) -> Path:
    """The project with the hospital as a plain folder, up to its predictions."""
    project = copy_project(tmp_path_factory.mktemp("local") / "marrowflow", developed)
    add_cohort(project, f"far\texternal\t{far[0]}/manifest.csv\tFar\tmade by a test\t\n")
    snakemake(project, "--cores", "2", PREDICTIONS)
    return project


def fetched(output: str) -> list[str]:
    return re.findall(r"^Retrieving from storage: \S+/(\w+\.tar)$", output, re.M)


def most_held(output: str) -> int:
    """Return how many archives lay on disk at a time, by Snakemake's own messages."""
    held, most = set(), 0
    for verb, name in re.findall(r"^(Retrieving from|Removing local copy of).*/(\w+\.tar)", output, re.M):
        held = held | {name} if verb.startswith("Retr") else held - {name}
        most = max(most, len(held))
    return most


def copies(project: Path) -> list[Path]:
    return [path for path in (project / ".snakemake/storage").rglob("*") if path.is_file()]


def test_s3(developed, local, far, tmp_path, monkeypatch):
    project, port = copy_project(tmp_path / "marrowflow", developed), free_port()
    for name, value in s3_environment(f"http://127.0.0.1:{port}").items():
        monkeypatch.setenv(name, value)
    manifest = "s3://smears/hospital/manifest.csv"
    add_cohort(project, f"far\texternal\t{manifest}\tFar\tmade by a test\tmanifest_{{0..2}}.tar\n")
    with s3_server(tmp_path / "moto.log", port) as url:
        upload(url, "smears", far[1], "hospital")
        assert planned(project, PREDICTIONS) == NEW  # and nothing trains
        output = snakemake(project, "--cores", "2", PREDICTIONS).stdout
        # Each archive is fetched once, for all that is made of it, and is gone before the next one comes.
        assert sorted(fetched(output)) == ["manifest_0.tar", "manifest_1.tar", "manifest_2.tar"]
        assert most_held(output) == 1
        assert copies(project) == []
        assert not list((project / "results/little/state").rglob("pixels.npy"))
        for path in [INVENTORY, *STORE, PREDICTIONS]:
            assert (project / path).read_bytes() == (local / path).read_bytes(), path
        reasons = pd.read_parquet(project / INVENTORY)["reason"]
        assert reasons[reasons != ""].tolist() == ["unreadable: truncated"]
        assert planned(project, PREDICTIONS) == {}
        # One archive is replaced by itself: newer, so its hospital is taken in anew, and nobody else.
        (tmp_path / "new").mkdir()
        (tmp_path / "new/manifest_1.tar").write_bytes((far[1] / "manifest_1.tar").read_bytes())
        upload(url, "smears", tmp_path / "new", "hospital")
        again = {name: count for name, count in NEW.items() if name not in ("note_arrival", "check_manifest")}
        assert planned(project, PREDICTIONS) == again | {"measure_shard": 1}
        (tmp_path / "new/manifest_1.tar").write_bytes((far[1] / "manifest_1.tar").read_bytes()[:20_000])
        upload(url, "smears", tmp_path / "new", "hospital")
        stopped = snakemake(project, "--cores", "2", PREDICTIONS, check=False)
        assert stopped.returncode == 1
        assert re.search(r"manifest_1\.tar \(20000 bytes\) is no whole TAR archive", stopped.stdout)
        assert copies(project) == []
        # The whole archive again, and a manifest with a new reason: the hospital anew.
        upload(url, "smears", far[1], "hospital")
        assert planned(project, PREDICTIONS) == NEW
    down = snakemake(project, "--cores", "2", PREDICTIONS, check=False)
    assert down.returncode == 1
    assert re.search(r"s3://smears/hospital/\S+\s+EndpointConnectionError: Could not connect", down.stdout)
    assert (project / PREDICTIONS).read_bytes() == (local / PREDICTIONS).read_bytes()
    for path in [*(project / "results").rglob("*"), *(project / ".snakemake/metadata").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            assert KEY.encode() not in content and SECRET.encode() not in content, path


def test_http(developed, local, far, tmp_path):
    project, port = copy_project(tmp_path / "marrowflow", developed), free_port()
    log = tmp_path / "http.log"
    manifest = f"http://127.0.0.1:{port}/manifest.csv"
    add_cohort(project, f"far\texternal\t{manifest}\tFar\tmade by a test\tmanifest_{{0..2}}.tar\n")
    with http_server(far[1], log, port):
        snakemake(project, "--cores", "2", *STORE)
        assert copies(project) == []
        for path in [INVENTORY, *STORE]:
            assert (project / path).read_bytes() == (local / path).read_bytes(), path
        assert planned(project, *STORE) == {}
    requests = re.findall(r'"GET /(\S+) HTTP/1.1" 200', log.read_text())
    assert sorted(requests) == ["manifest.csv", "manifest_0.tar", "manifest_1.tar", "manifest_2.tar"]
    down = snakemake(project, "--cores", "2", *STORE, check=False)
    assert down.returncode == 1
    assert re.search(rf"Failed to check existence of http://127\.0\.0\.1:{port}/", down.stdout)


def test_archives_on_this_disk(developed, local, far, tmp_path):
    project = copy_project(tmp_path / "marrowflow", developed)
    add_cohort(project, f"far\texternal\t{far[1]}/manifest.csv\tFar\tmade by a test\tmanifest_{{0..2}}.tar\n")
    snakemake(project, "--cores", "2", *STORE)
    for path in [INVENTORY, *STORE]:
        assert (project / path).read_bytes() == (local / path).read_bytes(), path
    # Other limits judge the same measures: no archive is measured anew.
    config = project / "config.yaml"
    config.write_text(config.read_text() + "intake: {min_brightness: 1}\n")
    assert planned(project, INVENTORY) == {"ingest_cohort": 1}


def test_a_missing_plugin_is_named(developed, tmp_path):
    project = copy_project(tmp_path / "marrowflow", developed)
    add_cohort(project, "far\texternal\ts3://smears/manifest.csv\tFar\tmade by a test\tx.tar\n")
    common = project / "workflow/rules/common.smk"
    # As it is where Snakemake is installed without it.
    common.write_text(
        common.read_text().replace(
            'snakemake_storage_plugin_{plugin}"', 'snakemake_storage_plugin_{plugin}_gone"', 1
        )
    )
    done = snakemake(project, "-n", check=False)
    assert done.returncode == 1
    assert "pip install snakemake-storage-plugin-s3" in done.stdout
