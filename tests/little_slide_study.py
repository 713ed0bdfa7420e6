"""A study of whole slides that runs whole in minutes: two tilings, two kinds of aggregator, two divisions, a small network."""

from typing import Any

CLASSES = ["AML", "CML", "ALL", "CLL", "MM"]
STUDY: dict[str, Any] = {
    "study": {"key": "little", "title": "Painted slides", "notice": "Painted."},
    "cohorts": "resources/slides/cohorts.tsv",
    "classes": CLASSES,
    "units": ["patient"],
    "endpoints": {"myeloid": {"positive": ["AML", "CML"]}},
    "slides": {
        "tilings": {
            "x10": {"magnification": 10, "size": 32},
            "x40": {"magnification": 40, "size": 64, "min_tissue": 0.1},
        },
        "extractor": {"network": "resnet18", "weights": "none", "stage": 1, "batch_size": 64},
    },
    "splits": {"scheme": "monte_carlo", "folds": 2, "test": 0.3, "validation": 0.3},
    "training": {"epochs": 3, "batch_size": 1, "rate": 0.001, "schedule": "constant", "patience": 20},
    "aggregators": {
        "paper": {"kind": "wang2022", "hidden": 32, "width": 16, "instances": {"x10": 2, "x40": 8}},
        "max": {"kind": "max", "hidden": 32, "tilings": ["x40"]},
    },
    "accuracy": {"replicates": 100},
    "report": {"primary": "paper-x40", "errors_shown": 2},
}
