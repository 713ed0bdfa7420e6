"""A small results tree in the formats of the steps before the reports: random but seeded, no real image in it.

Cohorts: alpha (development), beta (external, smears named), gamma (external, surrogate patients).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.choices.threshold import digest_of
from marrowflow.config import Accuracy
from marrowflow.files import write_json, write_table
from marrowflow.images.store import StoreWriter
from marrowflow.predictions import check_predictions, read_predictions, write_predictions
from marrowflow.splits.optimism import optimism_table
from marrowflow.statistics.accuracy import measure
from marrowflow.statistics.compare import Subject, compare_paired
from marrowflow.statistics.uncalibrated import measure_uncalibrated

CLASSES = ["healthy", "AML", "ALL", "CML"]
POSITIVE = ["AML", "ALL", "CML"]
ENDPOINTS = {"leukaemia": POSITIVE, "classes": None}
SETTINGS = Accuracy(replicates=100, prevalences=[0.05, 0.2, 0.5])
COHORTS = {
    "alpha": ("development", "Hospital A & Partners", 44),
    "beta": ("external", "Hospital B", 30),
    "gamma": ("external", "<b>Hospital C</b>", 18),
}
FOLDS = 3
EXTERNAL_SECTIONS = (
    "study",
    "classes",
    "units",
    "endpoints",
    "report",
    "accuracy",
    "models",
    "members",
    "index_tests",
    "protocols",
    "reader_titles",
    "subgroups",
    "texts",
)
"""What a hospital's report is told of the configuration."""
_REASONS = ["unreadable: truncated", "out of focus", "not eligible: treated before", "too dark"]


@dataclass(frozen=True)
class Tree:
    """Where the fake study lies, and its options."""

    results: Path
    cohorts: Path
    options: dict[str, Any]

    @property
    def primary(self) -> Path:
        """Which index test is reported first."""
        return self.results / "locked" / "primary.json"


def options_of(
    protocols: Sequence[str] = ("sound",), tests: Sequence[str] = ("lite-raw", "lite-corrected")
) -> dict[str, Any]:
    """Options of the study's report."""
    splits: dict[str, Any] = {"folds": FOLDS}
    if "as_published" in protocols:
        splits |= {"protocol": "as_published", "as_published": {"scheme": "kfold", "folds": FOLDS}}
    return {
        "study": {
            "key": "fake",
            "title": "Leukaemia from <smears> & networks",
            "notice": "Demo images are painted.",
        },
        "classes": CLASSES,
        "units": ["patient", "case"],
        "endpoints": {"leukaemia": {"positive": POSITIVE}},
        "report": {"primary": tests[0], "errors_shown": 6},
        "accuracy": SETTINGS.model_dump(),
        "index_tests": list(tests),
        "protocols": list(protocols),
        "splits": splits,
        "models": {"lite": {"network": "tf_efficientnet_lite0", "mode": "frozen"}},
        "members": {},
        "colour": {"raw": {"method": "none"}, "corrected": {"method": "reflection_median"}},
        "reader_titles": {},
        "subgroups": {},
        "texts": {},
    }


def external_options(options: dict[str, Any]) -> dict[str, Any]:
    """The part of the options that a hospital's report takes."""
    return {name: options[name] for name in EXTERNAL_SECTIONS}


def write_tree(folder: Path, protocols: Sequence[str] = ("sound",), seed: int = 0) -> Tree:
    """Write the whole tree below a folder."""
    rng = np.random.default_rng(seed)
    root = folder / "results" / "fake"
    options = options_of(protocols)
    inventories = {name: _inventory(name, n, rng) for name, (_, _, n) in COHORTS.items()}
    for name, inventory in inventories.items():
        write_table(root / "cohorts" / name / "inventory.parquet", inventory)
        for colour in ("raw", "corrected"):
            _store(root / "images" / name / colour, inventory, rng)
        if COHORTS[name][0] == "external":
            gate = {"n_development": 150, "n_external": len(inventory), "distance": 3, "duplicates": 0}
            write_json(root / "external" / name / "gate.json", gate)
    for protocol in protocols:
        _split(root / "splits" / protocol, protocol, inventories["alpha"])
        for test in options["index_tests"]:
            _index_test(root, protocol, test, inventories, rng)
        _comparisons(root, protocol, options["index_tests"])
    if len(protocols) > 1:
        _optimism(root, options["index_tests"])
    write_primary(root, options["index_tests"][0])
    return Tree(root, _cohort_table(folder), options)


def write_primary(root: Path, name: str, **chosen: Any) -> Path:
    """Write which index test is reported first: declared, unless `chosen` says by what."""
    nothing = {"how": "declared", "metric": None, "endpoint": None, "unit": None, "values": []}
    path = root / "locked" / "primary.json"
    write_json(path, {"index_test": name, "protocol": "sound"} | nothing | chosen)
    return path


def _inventory(cohort: str, patients: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for p in range(patients):
        label = CLASSES[p % 4]
        status = "missing" if p == 5 else "inconclusive" if p == 6 else "ok"
        surrogate = cohort == "gamma"
        name = f"surrogate_{hashlib.sha256(str(p).encode()).hexdigest()[:12]}" if surrogate else f"P{p:03d}"
        age, sex = int(rng.integers(2, 88)), "FM"[p % 2]
        for i in range(int(rng.integers(2, 6))):
            # Patient 8 loses all images, 9 and 10 some; the rest now and then one.
            lost = p == 8 or (p in (9, 10) and i == 0) or rng.random() < 0.02
            image = f"{label}/p{p:03d}_{i}.png"
            rows.append(
                {
                    "case_id": f"{cohort}/{image}",
                    "cohort": cohort,
                    "image": image,
                    "patient_id": f"{cohort}/{name}",
                    "patient_source": "surrogate" if surrogate else "manifest",
                    "label": label if status == "ok" else "",
                    "reference_status": status,
                    "status": "excluded" if lost else "included",
                    "reason": _REASONS[(p + i) % 4] if lost else "",
                    "age": str(age) if p % 7 else "",
                    "sex": sex if p % 11 else "",
                    "scanner": "one scanner",
                }
            )
            if cohort == "beta":
                rows[-1]["slide_id"] = f"s{i // 2}"
    return pd.DataFrame(rows)


def _store(folder: Path, inventory: pd.DataFrame, rng: np.random.Generator) -> None:
    cases = inventory.loc[inventory["status"].eq("included"), "case_id"].tolist()
    yy, xx = np.mgrid[:32, :32]
    with StoreWriter(folder, cases, 32, {"recipe": {}}) as writer:
        for row in range(len(cases)):
            image = np.full((32, 32, 3), 230, np.uint8)
            centre, radius = rng.integers(8, 24, 2), rng.integers(4, 9)
            cell = (xx - centre[0]) ** 2 + (yy - centre[1]) ** 2 < radius**2
            image[cell] = [120, 60 + int(rng.integers(60)), 150]
            writer.put(row, image)


def _split(folder: Path, protocol: str, inventory: pd.DataFrame) -> None:
    kept = inventory[inventory["status"].eq("included") & inventory["reference_status"].eq("ok")]
    counts = []
    for fold in range(FOLDS):
        order = kept["patient_id"].str[-3:].astype(int) % FOLDS
        for partition, part in (
            ("train", kept[order != fold]),
            ("test", kept[order == fold]),
        ):
            for label, rows in part.groupby("label"):
                n = rows["patient_id"].nunique()
                counts.append(
                    {
                        "fold": fold,
                        "partition": partition,
                        "label": label,
                        "n_cases": len(rows),
                        "n_patients": n,
                        "n_groups": n,
                    }
                )
    write_table(folder / "counts.csv", pd.DataFrame(counts))
    leaky = protocol == "as_published"
    kinds = (
        {"patients": 31, "groups": 31, "exact_duplicates": 0, "near_duplicates": 2}
        if leaky
        else dict.fromkeys(("patients", "groups", "exact_duplicates", "near_duplicates"), 0)
    )
    folds = [
        {"fold": f, "n_test_cases": 40, **{k: {"n": n, "test_cases": n} for k, n in kinds.items()}}
        for f in range(FOLDS)
    ]
    gate = {
        "protocol": protocol,
        "leaky": leaky,
        "distance": 3,
        "n_cases": len(kept),
        "n_patients": kept["patient_id"].nunique(),
        "n_groups": kept["patient_id"].nunique(),
        "leaks": kinds,
        "folds": folds,
        "plans": [],
    }
    write_json(folder / "gate.json", gate)


def predictions_of(
    inventory: pd.DataFrame, test: str, rng: np.random.Generator, sharpness: float
) -> pd.DataFrame:
    """Predictions of included images: mostly right, patient 11 not done, 12 indeterminate."""
    rows = inventory[inventory["status"].eq("included")].reset_index(drop=True)
    number = rows["image"].str.extract(r"p(\d+)_")[0].astype(int).to_numpy()
    true = rows["image"].str.partition("/")[0].map({c: i for i, c in enumerate(CLASSES)}).to_numpy()
    logits = rng.normal(0, 1, (len(rows), 4)) + rng.normal(0, 0.8, (number.max() + 1, 4))[number]
    logits[np.arange(len(rows)), true] += sharpness
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    status = np.where(number == 11, "not_done", np.where(number == 12, "indeterminate", "ok"))
    table = pd.DataFrame(
        {
            "case_id": rows["case_id"],
            "patient_id": rows["patient_id"],
            "cohort": rows["cohort"],
            "truth": rows["label"].where(rows["reference_status"].eq("ok"), rows["reference_status"]),
            "predicted": np.where(status == "ok", np.asarray(CLASSES, dtype=object)[p.argmax(axis=1)], ""),
            **{f"p_{c}": p[:, i] for i, c in enumerate(CLASSES)},
            "index_test": test,
            "fold": -1,
            "partition": "test" if rows["cohort"].iloc[0] == "alpha" else "external",
            "status": status,
            "reason": np.where(
                status == "not_done",
                "network gave no number",
                np.where(status == "indeterminate", "image almost black", ""),
            ),
        }
    )
    table.loc[table["status"].ne("ok"), [f"p_{c}" for c in CLASSES]] = np.nan
    return table


def _index_test(
    root: Path, protocol: str, test: str, inventories: dict[str, pd.DataFrame], rng: np.random.Generator
) -> None:
    model, _, colour = test.partition("-")
    where = Path(protocol) / model / colour
    lock = _lock(protocol, test)
    write_json(root / "locked" / where / "threshold.json", lock)
    for name, inventory in inventories.items():
        cohort = "development" if name == "alpha" else name
        sharpness = (2.2 if protocol == "sound" else 3.2) - 0.4 * (cohort != "development")
        table = predictions_of(inventory, test, rng, sharpness)
        write_predictions(root / "predictions" / where / cohort / "predictions.parquet", table, CLASSES)
        checked = check_predictions(table, CLASSES)
        found = vars(measure(checked, ENDPOINTS, ["patient", "case"], SETTINGS, lock))
        # As if the locked calibration had changed nothing.
        before = measure_uncalibrated(checked, checked, ENDPOINTS, ["patient", "case"], SETTINGS, lock)
        for kind, content in {**before, **found}.items():
            write_table(root / "accuracy" / where / cohort / f"{kind}.csv", content)
    for fold in range(FOLDS):
        folder = root / "training" / where / str(fold)
        history = _history(rng)
        write_table(folder / "history.csv", history)
        write_json(
            folder / "card.json",
            {
                "network": "tf_efficientnet_lite0",
                "fold": fold,
                "data": {"train": {c: {"images": 20 + fold, "patients": 5} for c in CLASSES}},
                "best_epoch": int(history["epoch"][history["validation_loss"].idxmin()]),
                "parameters": {"total": 3413024, "trainable": 5124},
                "weights": {"source": "timm tf_efficientnet_lite0.in1k", "licence": "apache-2.0"},
                "versions": {"torch": "2.12.1"},
            },
        )
        seconds = 10.0 + fold + len(colour)
        cost = {"device": "fake GPU", "device_seconds": seconds, "images": 900, "images_a_second": 300.0}
        write_json(folder / "cost.json", cost | {"epochs": 9, "peak_memory_mb": 512.5, "resumed": 0})


def _comparisons(root: Path, protocol: str, tests: Sequence[str]) -> None:
    for name, (role, _, _) in COHORTS.items():
        cohort = "development" if role == "development" else name
        subjects = []
        for test in tests:
            where = Path(protocol) / Path(*test.split("-"))
            path = root / "predictions" / where / cohort / "predictions.parquet"
            lock = json.loads((root / "locked" / where / "threshold.json").read_text(encoding="utf-8"))
            subjects.append(Subject(read_predictions(path, CLASSES), lock))
        found = compare_paired(subjects[0], subjects[1:], ENDPOINTS, ["patient", "case"], SETTINGS)
        for kind, content in vars(found).items():
            write_table(root / "comparisons" / protocol / cohort / f"{kind}.csv", content)


def _lock(protocol: str, test: str) -> dict[str, Any]:
    lock = {
        "index_test": test,
        "protocol": protocol,
        "classes": CLASSES,
        "calibration": {
            "method": "temperature",
            "temperature": 1.31,
            "fitted_on": "out-of-fold test predictions",
            "n_cases": 150,
            "by_fold": {"0": 1.25, "1": 1.3, "2": 1.4},
        },
        "endpoints": {
            "leukaemia": {
                "positive": POSITIVE,
                "patient": {
                    "threshold": 0.62,
                    "sensitivity": 0.9,
                    "specificity": 0.8,
                    "n": 41,
                    "n_positive": 30,
                },
                "case": {
                    "threshold": 0.55,
                    "sensitivity": 0.88,
                    "specificity": 0.79,
                    "n": 150,
                    "n_positive": 110,
                },
            }
        },
        "rule": {"rule": "youden", "value": None},
        "fitted_on": "out-of-fold test predictions",
        "development_answers": "single networks, out of fold",
        "external_answers": "mean of the networks of all folds",
    }
    return {**lock, "digest": digest_of(lock)}


def _history(rng: np.random.Generator) -> pd.DataFrame:
    epochs = np.arange(1, int(rng.integers(9, 14)))
    noise = rng.normal(0, 0.03, (4, len(epochs)))
    return pd.DataFrame(
        {
            "epoch": epochs,
            "train_loss": 1.3 * np.exp(-epochs / 4) + 0.1 + noise[0],
            "train_accuracy": 1 - 0.7 * np.exp(-epochs / 4) - np.abs(noise[1]),
            "validation_loss": 1.3 * np.exp(-epochs / 5) + 0.3 + noise[2],
            "validation_accuracy": 0.9 - 0.6 * np.exp(-epochs / 4) - np.abs(noise[3]),
            "rate": 1e-3,
            "seconds": 1.0,
        }
    )


def _optimism(root: Path, tests: Sequence[str]) -> None:
    for test in tests:
        model, _, colour = test.partition("-")
        sides = [
            pd.read_csv(
                root / "accuracy" / p / model / colour / "development" / "metrics.csv", dtype={"class": "str"}
            ).fillna({"class": ""})
            for p in ("as_published", "sound")
        ]
        write_table(root / "optimism" / model / colour / "optimism.csv", optimism_table(*sides))


def _cohort_table(folder: Path) -> Path:
    path = folder / "cohorts.tsv"
    lines = ["cohort\trole\tmanifest\thospital\tsource"]
    for name, (role, hospital, _) in COHORTS.items():
        lines.append(f"{name}\t{role}\tdata/{name}/manifest.csv\t{hospital}\troutine smears 2019 to 2021")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
