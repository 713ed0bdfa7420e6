"""A study of smears in files: an ensemble of two small models, trained, locked and packed, and a second hospital's images."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from small_study import CLASSES, NETWORK, colour_images

from marrowflow.cohorts import intake
from marrowflow.files import write_json
from marrowflow.images import correct
from marrowflow.learning import combine, lock, package, predict, predict_external, train

MODELS = {"one": 0, "two": 1}  # and their seeds
INDEX_TEST = "both-stained"
SIDE = 40
ENDPOINTS = {"warm": {"positive": ["red", "green"]}}


@dataclass(frozen=True)
class Packed:
    """Where the study lies, what its package was told, and the second hospital's manifest."""

    root: Path
    options: dict
    manifest: Path

    @property
    def package(self) -> Path:
        return self.root / "package"

    def file(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)


def write_hospital(folder: Path, n: int, seed: int, **columns: list[str]) -> Path:
    """Write a hospital's images, two a patient, and its manifest."""
    images, labels = colour_images(n, SIDE + 8, seed)
    (folder / "images").mkdir(parents=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"images/{i:03}.png"), image[..., ::-1])
    # Patients of one class each: images i and i + 3.
    patients = [f"p{i // 6 * 3 + i % 3}" for i in range(n)]
    names = [f"images/{i:03}.png" for i in range(n)]
    table = pd.DataFrame({"image": names, "patient_id": patients, "label": labels}).assign(**columns)
    table.to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def model(name: str) -> dict:
    training = {"epochs": 2, "batch_size": 8, "threads": 1, "rate": 1e-3, "seed": MODELS[name]}
    return {"network": NETWORK, "mode": "scratch", "input_size": 32, "training": training}


def write_study(folder: Path) -> Packed:
    """Run the workflow's steps, from the manifests to the package."""
    root = folder / "results"
    manifest = write_hospital(folder / "a", 36, 0)
    recipe = {"method": "reinhard", "target": str(folder / "a/images/004.png")}
    shared = {"classes": CLASSES, "endpoints": ENDPOINTS, "units": ["patient", "case"]}
    images = {"size": SIDE}
    take_in(root, "a", manifest, recipe, images)
    inventory = pd.read_parquet(root / "cohorts/a/inventory.parquet")
    known = inventory[["case_id", "patient_id", "cohort", "label", "type"]].assign(
        group=inventory["patient_id"]
    )
    place = np.arange(len(known)) // 6
    folds = [
        known.assign(
            fold=f, partition=np.where(place % 2 == f, "test", np.where(place > 3, "validation", "train"))
        )
        for f in (0, 1)
    ]
    (root / "splits/sound").mkdir(parents=True)
    pd.concat(folds, ignore_index=True).to_parquet(root / "splits/sound/folds.parquet")
    for name in MODELS:
        _train(root, name)
    tables = [str(root / f"predictions/sound/{name}/stained/out_of_fold.parquet") for name in MODELS]
    raw = str(root / "predictions/sound/both/stained/out_of_fold.parquet")
    only_classes = json.dumps({"classes": CLASSES})
    combine.main(["--options", only_classes, "--tables", *tables, "--index-test", INDEX_TEST, "--out", raw])
    locked = root / "locked/sound/both/stained/threshold.json"
    lock.main(
        ["--options", json.dumps({**shared, "scheme": "kfold"}), "--raw", raw, "--index-test", INDEX_TEST, "--protocol",
         "sound", "--out", str(locked), "--predictions", str(root / "development.parquet")]
    )  # fmt: skip
    write_json(root / "locked/primary.json", {"index_test": INDEX_TEST, "protocol": "sound"})
    _write_metrics(root / "accuracy/sound/both/stained/development/metrics.csv")
    options = {
        **shared,
        "study": {"key": "small", "title": "Squares", "intended_use": "None."},
        "texts": {},
        "images": images,
        "colour": {"stained": recipe},
        "models": {name: model(name) for name in MODELS},
        "members": {"both": list(MODELS)},
    }
    second = write_hospital(folder / "b", 13, 1, eligible=["yes"] * 12 + ["treated before"])
    (folder / "b/images/002.png").write_bytes(b"cut short")
    packed = Packed(root, options, second)
    pack(packed)
    return packed


def pack(packed: Packed, out: Path | None = None, **changed: object) -> None:
    """Write the package of a study to its place or another, with some options changed."""
    root = packed.root
    package.main(
        ["--options", json.dumps(packed.options | changed), "--primary", str(root / "locked/primary.json"),
         "--locks", *map(str, root.glob("locked/*/*/*/threshold.json")),
         "--networks", *map(str, root.glob("training/*/*/*/*/model.safetensors")),
         "--stores", str(root / "images/a/stained/store.json"),
         "--metrics", *map(str, root.glob("accuracy/*/*/*/development/metrics.csv")), "--out", str(out or packed.package)]
    )  # fmt: skip


def take_in(root: Path, cohort: str, manifest: Path, recipe: dict, images: dict) -> None:
    """Take one hospital in and correct its colours, as the rules do."""
    inventory = str(root / f"cohorts/{cohort}/inventory.parquet")
    intake.main(
        [
            "--options",
            json.dumps({"classes": CLASSES}),
            "--cohort",
            cohort,
            "--manifest",
            str(manifest),
            "--out",
            inventory,
        ]
    )
    correct.main(
        ["--options", json.dumps({"recipe": recipe, "images": images}), "--inventory", inventory,
         "--images", str(manifest.parent), "--out", str(root / f"images/{cohort}/stained")]
    )  # fmt: skip


def predicted_by_the_workflow(packed: Packed, cohort: str) -> Path:
    """Answer for the second hospital as the workflow does for an external one."""
    root = packed.root
    take_in(root, cohort, packed.manifest, packed.options["colour"]["stained"], packed.options["images"])
    only_classes = json.dumps({"classes": CLASSES})
    tables = []
    for name in MODELS:
        tables.append(str(root / f"predictions/sound/{name}/stained/{cohort}/raw.parquet"))
        predict_external.main(
            ["--options", json.dumps({"classes": CLASSES, "model": model(name)}),
             "--models", *map(str, sorted(root.glob(f"training/sound/{name}/stained/*"))),
             "--inventory", str(root / f"cohorts/{cohort}/inventory.parquet"), "--store", str(root / f"images/{cohort}/stained"),
             "--index-test", f"{name}-stained", "--features", str(root / "features"), "--out", tables[-1]]
        )  # fmt: skip
    out = root / f"predictions/sound/both/stained/{cohort}/predictions.parquet"
    combine.main(
        ["--options", only_classes, "--tables", *tables, "--lock", str(root / "locked/sound/both/stained/threshold.json"),
         "--index-test", INDEX_TEST, "--out", str(out)]
    )  # fmt: skip
    return out


def _train(root: Path, name: str) -> None:
    options = json.dumps({"classes": CLASSES, "model": model(name)})
    folders = [root / f"training/sound/{name}/stained/{fold}" for fold in (0, 1)]
    common = [
        "--options",
        options,
        "--folds",
        str(root / "splits/sound/folds.parquet"),
        "--features",
        str(root / "features"),
    ]
    stores = ["--stores", str(root / "images/a/stained")]
    for fold, out in enumerate(folders):
        state = str(root / f"state/{name}/{fold}")
        train.main([*common, *stores, "--fold", str(fold), "--state", state, "--out", str(out)])
    predict.main(
        [*common, *stores, "--models", *map(str, folders), "--inventories", str(root / "cohorts/a/inventory.parquet"),
         "--index-test", f"{name}-stained", "--out", str(root / f"predictions/sound/{name}/stained/out_of_fold.parquet")]
    )  # fmt: skip


def _write_metrics(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(
        "endpoint,metric,class,unit,estimate,low,high,method,primary,n_cases,n_patients\n"
        "warm,auc,,patient,0.75,0.5,0.9,bootstrap_bca,True,36,18\n"
        "warm,auc,,patient,0.75,0.4,0.95,delong,False,36,18\n"
        "warm,sensitivity,,case,,,,wilson,True,36,18\n"
    )
