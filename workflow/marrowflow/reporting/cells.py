"""The cells of a study's grid: what is known of each index test, ensembles among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from marrowflow.config import CLASSES, Protocol
from marrowflow.reporting import tables
from marrowflow.reporting.costs import Cost, cost_of
from marrowflow.reporting.reporter import Reporter, mean_of
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, read_json
from marrowflow.reporting.study_options import Options
from marrowflow.reporting.training import kept_epochs
from marrowflow.reporting.variants import seeds_of, variants_of
from marrowflow.reporting.weights import Weights, weights_of

Asked = tuple[str, str, str]
"""An endpoint, a metric and a class, as in metrics.csv."""


@dataclass(frozen=True)
class Cell:
    """One index test.

    Attributes
    ----------
    test
        Its name, colour recipe and protocol.
    network, mode
        As configured; of an ensemble whose mean it is, and no mode.
    variant, seed
        What tells it apart from others of the same network and mode; empty where nothing does.
    estimates
        Out-of-fold metrics rows in the primary unit; None where there is none.
    trained, parameters
        Numbers of parameters: those that training changes, and all; None where no card says.
    weights
        What it started from; None of an ensemble.
    epochs
        Kept epochs, fold by fold.
    cost
        None where no file tells it.
    """

    test: IndexTest
    network: str
    mode: str
    variant: str
    seed: str
    estimates: Mapping[Asked, dict[str, Any] | None]
    trained: int | None
    parameters: int | None
    weights: Weights | None
    epochs: Sequence[int]
    cost: Cost | None


def headline(reporter: Reporter) -> list[Asked]:
    """Return what all networks are compared on: accuracy, its mean over classes, and the AUC of the primary endpoint.

    Of two classes the yes/no endpoint alone is measured, and stands for the classification.
    """
    first = reporter.endpoints[0]
    whole = CLASSES if CLASSES in reporter.endpoints else first
    auc = (CLASSES, "auc", "macro") if first == CLASSES else (first, "auc", "")
    return [(whole, "accuracy", ""), (whole, "balanced_accuracy", ""), auc]


def cells_of(reporter: Reporter, options: Options, protocol: Protocol) -> list[Cell]:
    """Return all index tests under a protocol in the order of the configuration, models before ensembles."""
    variants, seeds = variants_of(options.networks), seeds_of(options.networks)
    cells = []
    for test in (IndexTest(protocol, name) for name in options.index_tests):
        metrics = reporter.results.accuracy(test, DEVELOPMENT, "metrics.csv")
        estimates = {
            (endpoint, metric, of): tables.primary_row(metrics, endpoint, reporter.unit, metric, of)
            for endpoint, metric, of in headline(reporter)
        }
        members = reporter.members(test)
        if members:
            cells.append(Cell(test, mean_of(members), "", "", "", estimates, None, None, None, (), None))
            continue
        model, folds = options.networks[test.model], reporter.results.folds(protocol)
        cards = [read_json(reporter.results.training_path(test, fold, "card.json")) or {} for fold in folds]
        sizes = cards[0].get("parameters") or {}
        cells.append(
            Cell(
                test,
                model.network,
                model.mode,
                variants[test.model],
                seeds[test.model],
                estimates,
                sizes.get("trainable"),
                sizes.get("total"),
                weights_of(reporter, test),
                [epoch for card in cards for epoch in kept_epochs(card)],
                cost_of(reporter.results, test, folds),
            )
        )
    return cells


def cell_records(reporter: Reporter, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return every number of the cells in full, one row an index test; what is not known is empty."""
    return pd.DataFrame([_record(reporter, cell) for cell in cells])


def _record(reporter: Reporter, cell: Cell) -> dict[str, Any]:
    cost, primary = cell.cost, reporter.primary
    record: dict[str, Any] = {
        "index_test": cell.test.name,
        "primary": cell.test.name == primary.index_test,
        "protocol": cell.test.protocol,
        "network": cell.network,
        "mode": cell.mode,
        "colour": cell.test.colour,
        "variant": cell.variant,
        "seed": cell.seed,
        "parameters_trained": cell.trained,
        "parameters": cell.parameters,
        "weights": cell.weights.source if cell.weights else "",
        "licence": cell.weights.licence if cell.weights else "",
        "unit": reporter.unit,
    }
    for (endpoint, metric, of), row in cell.estimates.items():
        name = "_".join(part for part in (endpoint, metric, of) if part)
        for key in ("estimate", "low", "high", "method", "numerator", "denominator", "n_cases", "n_patients"):
            record[f"{name}_{key}"] = None if row is None else row[key]
    if primary.chosen:
        record["chosen_by"] = primary.values.get(cell.test.name)
    return {
        **record,
        "epochs_kept": " ".join(map(str, cell.epochs)),
        "folds_with_cost": cost.folds if cost else None,
        "device_seconds": cost.device_seconds if cost else None,
        "images": cost.images if cost else None,
        "images_a_second": cost.images_a_second if cost else None,
        "peak_memory_mb": cost.memory_mb if cost else None,
        "device": ", ".join(cost.devices) if cost else "",
    }
