"""Which weights the networks started from, and under which licence these come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from marrowflow import licences
from marrowflow.config import Model
from marrowflow.reporting import tables
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.results import IndexTest, read_json


@dataclass(frozen=True)
class Weights:
    """Where a network's first weights came from, and their licence (empty where there is none to have)."""

    source: str
    licence: str

    def __str__(self) -> str:
        return f"{self.source} ({self.licence})" if self.licence else self.source

    @property
    def non_commercial(self) -> bool:
        """True where the licence keeps commerce out."""
        return licences.non_commercial(self.licence)


def weights_of(reporter: Reporter, network: IndexTest) -> Weights:
    """Return the weights that a network started from: as the card of its first fold says, else as configured.

    The licence of a local file is the one that the configuration gives (see `configured_licence`).
    """
    model = reporter.options.networks[network.model]
    if model.mode == "scratch":
        return Weights("random", "")
    card = read_json(reporter.results.training_path(network, "0", "card.json")) or {}
    said = card.get("weights") or {}
    configured = model.weights if model.weights == "imagenet" else f"file {PurePosixPath(model.weights).name}"
    licence = str(configured_licence(model) or said.get("licence") or f"licence {tables.MISSING}")
    return Weights(str(said.get("source") or configured), licence)


def configured_licence(model: Model) -> str:
    """Return the licence that the configuration gives of a local file of weights; empty where it gives none.

    Training is not told of it, so that it can be corrected without training again: a card that was written before does
    not have it.
    """
    return model.licence if model.weights not in ("imagenet", "none") else ""


def non_commercial(reporter: Reporter, tests: Iterable[IndexTest]) -> dict[str, list[str]]:
    """Return the licences that keep commerce out → the models whose weights are under them."""
    found: dict[str, list[str]] = {}
    for test in tests:
        for network in reporter.networks(test):
            weights = weights_of(reporter, network)
            models = found.setdefault(weights.licence, []) if weights.non_commercial else []
            if network.model not in models:
                models.append(network.model)
    return found
