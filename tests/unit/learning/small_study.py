"""A development cohort small enough to train on in a second: squares of a class's own colour, with noise."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from marrowflow.images.store import StoreWriter

CLASSES = ["red", "green", "blue"]
# A ResNet of .4 million parameters: 96 features, mean and deviation .5, input of any size.
NETWORK = "test_resnet"


def colour_images(n: int, size: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Return uint8 [n, size, size, 3] of noise with a square of the class's colour, and the classes."""
    generator = np.random.default_rng(seed)
    images = generator.integers(60, 140, (n, size, size, 3), dtype=np.uint8)
    labels = [CLASSES[i % len(CLASSES)] for i in range(n)]
    for image, label in zip(images, labels, strict=True):
        top, left = generator.integers(0, size // 2, 2)
        image[top : top + size // 2, left : left + size // 2, CLASSES.index(label)] += 70
    return images, labels


def write_store(folder: Path, case_ids: list[str], images: np.ndarray) -> Path:
    with StoreWriter(folder, case_ids, images.shape[1], {"recipe": "none"}) as writer:
        for row, image in enumerate(images):
            writer.put(row, image)
    return folder


def make_study(folder: Path, n: int = 36, size: int = 32, folds: int = 2) -> dict[str, Path]:
    """Write a store, an inventory and a table of k folds; the last three images have no usable reference."""
    images, labels = colour_images(n, size)
    cases = [f"a/{i:03}.png" for i in range(n)]
    status = ["ok"] * (n - 3) + ["missing", "missing", "inconclusive"]
    inventory = pd.DataFrame(
        {
            "case_id": cases,
            "cohort": "a",
            "patient_id": [f"a/p{i // 2}" for i in range(n)],
            "patient_source": ["surrogate" if i // 2 == 3 else "manifest" for i in range(n)],
            "label": [label if s == "ok" else "" for label, s in zip(labels, status, strict=True)],
            "reference_status": status,
            "status": "included",
        }
    )
    known = inventory[inventory["reference_status"] == "ok"][["case_id", "patient_id", "cohort", "label"]]
    known["type"] = known["label"]
    place = np.arange(len(known)) // len(CLASSES)
    parts = []
    for fold in range(folds):
        partition = np.where(place % folds == fold, "test", np.where(place % 5 == 4, "validation", "train"))
        parts.append(known.assign(fold=fold, group=known["patient_id"], partition=partition))
    paths = {
        "store": write_store(folder / "store", cases, images),
        "inventory": folder / "inventory.parquet",
        "folds": folder / "folds.parquet",
    }
    inventory.to_parquet(paths["inventory"])
    pd.concat(parts, ignore_index=True).to_parquet(paths["folds"])
    return paths


def options_text(**training: object) -> str:
    """Return the options of a short training from random weights."""
    return with_model({}, **training)


def with_model(
    model: dict[str, object], sections: dict[str, object] | None = None, **training: object
) -> str:
    """Return the options of a short training of a model with keys of its own, and further sections."""
    shared = {"epochs": 3, "batch_size": 8, "threads": 1, "rate": 1e-3}
    basis = {"network": NETWORK, "mode": "scratch", "input_size": 32, "training": {**shared, **training}}
    return json.dumps({"model": {**basis, **model}, "classes": CLASSES, **(sections or {})})
