"""A study that runs whole in half a minute: a hospital of coloured squares, one small network, two folds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import yaml

CLASSES = ["red", "blue"]
# Of a patient: two, so that what is counted is the patient.
IMAGES = 2

CONFIGURATION = {
    "study": {"key": "little", "title": "Squares", "notice": "These images show squares of colour."},
    "cohorts": "resources/cohorts.tsv",
    "classes": CLASSES,
    "endpoints": {"blue": {"positive": ["blue"]}},
    "images": {"size": 64},
    "colour": {"raw": {"method": "none"}},
    "splits": {"folds": 2, "validation": 0.25},
    "augmentation": {"plan": "off"},
    "training": {"epochs": 30, "batch_size": 8, "threads": 1, "patience": None, "precision": "float32"},
    "models": {"resnet": {"network": "test_resnet", "mode": "scratch", "input_size": 64}},
    "accuracy": {"replicates": 100},
    "report": {"primary": "resnet-raw", "errors_shown": 0, "saliency": False},
}


def write_study(project: Path, patients: int = 24) -> None:
    """Write the study's configuration, cohort table, manifest and images into a copy of the project."""
    (project / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION, sort_keys=False))
    write_cohort(project / "images/home", patients, seed=0)
    (project / "resources/cohorts.tsv").write_text(
        "cohort\trole\tmanifest\thospital\tsource\n"
        "home\tdevelopment\timages/home/manifest.csv\tHospital home\tmade by a test\n"
    )


def write_cohort(folder: Path, patients: int, seed: int) -> None:
    """Write one hospital's manifest and PNG images, 96 x 96: noise with a square of the class's colour."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        label = CLASSES[patient % len(CLASSES)]
        for number in range(IMAGES):
            image = generator.integers(40, 200, (96, 96, 3), dtype=np.uint8)
            top, left = generator.integers(0, 48, 2)
            image[top : top + 48, left : left + 48, {"red": 2, "blue": 0}[label]] += 50  # OpenCV's order
            name = f"{patient}_{number}.png"
            cv2.imwrite(str(folder / name), image)
            rows.append({"image": name, "patient_id": f"p{patient}", "label": label})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
