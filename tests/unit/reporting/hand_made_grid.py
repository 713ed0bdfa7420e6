"""A study of several models in which every number of the accuracy step was written down by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from reporting_fixture import options_of

from marrowflow.files import write_json, write_table
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.results import Results
from marrowflow.reporting.study_options import Options

NETWORK = "tf_efficientnet_lite0"
DENSE = "densenet121"
MODELS: dict[str, dict[str, Any]] = {
    "dense_scratch": {"network": DENSE, "mode": "scratch"},
    "dense_seed0": {"network": DENSE, "training": {"seed": 0}},
    "dense_seed1": {"network": DENSE, "training": {"seed": 1}},
    "lite": {
        "network": NETWORK,
        "mode": "frozen",
        "weights": "w/lite.safetensors",
        "licence": "CC BY-NC 4.0",
    },
    "lite_w19": {"network": NETWORK, "mode": "frozen", "heads": {"leukaemia": 0.1, "diagnosis": 0.9}},
}
MEMBERS = {"both": ["dense_seed0", "dense_seed1"]}
TESTS = [f"{name}-raw" for name in (*MODELS, *MEMBERS)]


def grid_options(**changes: Any) -> Options:
    """The options of the study's report, two folds."""
    options = options_of() | {
        "models": MODELS,
        "members": MEMBERS,
        "index_tests": TESTS,
        "splits": {"folds": 2},
    }
    return Options.model_validate(options | changes)


def reporter_of(root: Path, options: Options, primary: Primary | None = None) -> Reporter:
    """A reporter whose page lies in ``report`` below the results; the split made two folds."""
    for protocol in options.protocols:
        counts = pd.DataFrame({"fold": [0, 0, 1, 1], "partition": ["train", "test"] * 2, "n_cases": 9})
        write_table(root / "splits" / protocol / "counts.csv", counts)
    first = primary or Primary(options.index_tests[0], "first")
    return Reporter(options, Results(root, root / "report"), first)


def metrics_row(metric: str, estimate: float, **changes: Any) -> dict[str, Any]:
    """One row of metrics.csv: of 40 patients and 160 images, the interval .1 to either side."""
    return {
        "endpoint": "classes",
        "metric": metric,
        "class": "",
        "unit": "patient",
        "estimate": estimate,
        "low": estimate - 0.1,
        "high": estimate + 0.1,
        "method": "wilson_neff",
        "primary": True,
        "n_cases": 160,
        "n_patients": 40,
        "numerator": None,
        "denominator": None,
    } | changes


def write_metrics(
    root: Path,
    test: str,
    rows: Sequence[Mapping[str, Any]],
    cohort: str = "development",
    protocol: str = "sound",
) -> None:
    """Write an index test's metrics.csv."""
    model, _, colour = test.partition("-")
    write_table(root / "accuracy" / protocol / model / colour / cohort / "metrics.csv", pd.DataFrame(rows))


def headline_rows(accuracy: float) -> list[dict[str, Any]]:
    """Accuracy of 40 patients, balanced accuracy .01 below it and the AUC of leukaemia .02 above it; a row that nobody prints."""
    share = {"numerator": round(accuracy * 40), "denominator": 40}
    return [
        metrics_row("accuracy", 0.123, primary=False),
        metrics_row("accuracy", accuracy, **share),
        metrics_row("balanced_accuracy", accuracy - 0.01),
        metrics_row("auc", accuracy + 0.02, endpoint="leukaemia", method="jackknife_logit"),
    ]


def write_training(root: Path, test: str, fold: str, cost: Mapping[str, Any] | None, **card: Any) -> None:
    """Write a fold's card, and its cost where there is one."""
    model, _, colour = test.partition("-")
    folder = root / "training" / "sound" / model / colour / fold
    write_json(folder / "card.json", card)
    if cost is not None:
        write_json(folder / "cost.json", {"device": "GPU A", "resumed": 0, "epochs": 9} | dict(cost))
