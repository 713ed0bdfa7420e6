"""A small finished run, as Snakemake leaves it: files, records, benchmarks. Written by hand; no Snakemake has run."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pandas as pd

from marrowflow.config import Study, load_study

ROOT = Path("results/s")
OPTIONS = '{"units":["case"]}'
LONG = "a_name_that_is_far_too_long_for_one_record_of_a_file_system_" * 4

STUDY = {
    "study": {"key": "s", "title": "T"},
    "classes": ["a", "b"],
    "models": {"m": {"network": "x", "weights": "weights/x.pt", "training": {"seed": 7}}},
    "splits": {"seed": 3},
    "assumed": {"splits.seed": "the paper gives none"},
    "availability": {"data": "On request."},
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def study(**changes) -> Study:
    return load_study({**STUDY, **changes})


def record_path(output: str) -> Path:
    """Where Snakemake 9 keeps an output's record: base64, cut every 254 characters, all but the last with an @."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    pieces = [name[i : i + 254] for i in range(0, len(name), 254)]
    return Path(".snakemake/metadata", *(f"@{piece}" for piece in pieces[:-1]), pieces[-1])


def write_record(output: str, rule: str, inputs: list[str], job: str, **changes) -> None:
    record = {
        "rule": rule,
        "input": sorted(inputs),
        "log": [f"{ROOT}/logs/{job}.log"],
        "shellcmd": f"python -m marrowflow step.{rule} --options '{OPTIONS}' 2> {ROOT}/logs/{job}.log",
        "params": sorted([repr("0123456789abcdef"), repr(OPTIONS), repr("Hospital A")]),
        "record_format_version": 6,
        "conda_env": base64.b64encode(b"dependencies:\n  - numpy =2.4.6\n  - python =3.12\n").decode(),
        "software_stack_hash": "d41d8cd98f00b204e9800998ecf8427e",
        "starttime": 1_000_000_000.0,
        "endtime": 1_000_000_010.0,
        "incomplete": False,
        "input_checksums": {},
    }
    path = record_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record | changes))


def write_file(path: str, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def write_benchmark(job: str, wall: str, cpu: str, memory: str) -> None:
    columns = [
        "s",
        "h:m:s",
        "max_rss",
        "max_vms",
        "max_uss",
        "max_pss",
        "io_in",
        "io_out",
        "mean_load",
        "cpu_time",
    ]
    row = [wall, "0:00:00", memory, *["1"] * 6, cpu]
    write_file(f"{ROOT}/benchmarks/{job}.tsv", "\t".join(columns) + "\n" + "\t".join(row) + "\n")


def write_run() -> None:
    """Write the run into the working directory: ingest → correct → train (two folds) → report with a folder of figures."""
    write_file(
        "resources/cohorts.tsv",
        "cohort\trole\tmanifest\thospital\tsource\nA\tdevelopment\tdata/A/manifest.csv\tH\tS\n",
    )
    write_file("data/A/manifest.csv", "image,label\n1.png,a\n2.png,b\n")
    write_file("weights/x.pt", b"weights")
    inventory = f"{ROOT}/cohorts/A/inventory.parquet"
    Path(inventory).parent.mkdir(parents=True)
    pd.DataFrame({"sha256": ["11", ""], "bytes": [30, 12], "status": ["included", "excluded"]}).to_parquet(
        inventory
    )
    write_record(inventory, "ingest", ["data/A/manifest.csv"], "ingest/A")
    write_benchmark("ingest/A", "1.5", "1.25", "100.0")
    pixels, store = f"{ROOT}/images/A/raw/pixels.npy", f"{ROOT}/images/A/raw/store.json"
    write_file(pixels, b"pixels")
    write_file(store, json.dumps({"sha256": "ab" * 32}))
    for path in (pixels, store):
        write_record(
            path, "correct", [inventory], "correct/A/raw", starttime=1_000_000_020.0, endtime=1_000_000_030.0
        )
    write_benchmark("correct/A/raw", "2.25", "NA", "-")
    models = []
    for fold in "01":
        folder = f"{ROOT}/training/sound/m/raw/{fold}"
        models.append(f"{folder}/model.safetensors")
        write_file(models[-1], f"network {fold}")
        write_file(f"{folder}/cost.json", json.dumps({"device": "cpu", "device_seconds": 2.5}))
        write_file(f"{folder}/card.json", json.dumps({"versions": {"torch": f"2.{fold}"}}))
        for name in ("model.safetensors", "cost.json", "card.json"):
            write_record(
                f"{folder}/{name}",
                "train",
                [pixels, store, "weights/x.pt"],
                f"train/sound/m/raw/{fold}",
                starttime=1_000_000_040.0,
                endtime=1_000_000_050.0 + int(fold),
                input_checksums={"weights/x.pt": "sha256:" + sha256(b"weights")},
            )
        write_benchmark(f"train/sound/m/raw/{fold}", f"{10 + int(fold)}.0", "20.5", f"{200 + int(fold)}.5")
    page, figures = f"{ROOT}/report/index.html", f"{ROOT}/report/figures"
    write_file(page, "<p>page")
    write_file(f"{figures}/roc.svg", "<svg/>")
    write_file(f"{figures}/.snakemake_timestamp", "")
    for path in (page, figures):
        write_record(
            path,
            "report",
            [*models, "resources/cohorts.tsv"],
            "report",
            starttime=1_000_000_060.0,
            endtime=1_000_000_099.0,
        )
    write_file(f"{ROOT}/logs/ingest/A.log", "done")
    write_file(f"{ROOT}/state/train/half.pt", b"half")
