"""What the networks' cards, the split and the packed pixels answer of a checklist, in sentences of counts and names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from marrowflow import __version__
from marrowflow.config import Model
from marrowflow.reporting import tables
from marrowflow.reporting.ground import Ground, Say
from marrowflow.reporting.reporter import mean_of
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, read_json
from marrowflow.reporting.training import kept_epochs
from marrowflow.reporting.weights import weights_of

_PARTS = {"train": "trained on", "validation": "validated on", "test": "tested on"}
_CORRECTION = ("fraction", "max_window", "order")


def _networks(ground: Ground) -> list[IndexTest]:
    return ground.reporter.networks(ground.test)


def _model(ground: Ground, network: IndexTest) -> Model:
    return ground.reporter.options.networks[network.model]


def model(ground: Ground) -> Say:
    """Return each network with its size, mode and start weights; of an ensemble, what it is the mean of."""
    members = ground.reporter.members(ground.test)
    found = [f"{ground.test.name}: {mean_of(members)}."] if members else []
    for network in _networks(ground):
        cards = ground.cards(network)
        configured = _model(ground, network)
        found.append(
            f"{network.name}: {configured.network}, {_size(next(iter(cards.values()), {}))}{configured.mode}; "
            f"{len(cards)} network{'s' if len(cards) != 1 else ''}, one a fold."
        )
    return [*found, *weights(ground)]


def _size(card: Mapping[str, Any]) -> str:
    size = card.get("parameters")
    return f"{size['total']:,} parameters ({size['trainable']:,} trained), " if size else ""


def weights(ground: Ground) -> Say:
    """Return which weights each network started from, with licence and checksum."""
    found = []
    for network in _networks(ground):
        card = next(iter(ground.cards(network).values()), {})
        digest = (card.get("weights") or {}).get("sha256")
        checked = f", SHA-256 {str(digest)[:12]}" if digest else ""
        found.append(f"Start weights of {network.model}: {weights_of(ground.reporter, network)}{checked}.")
    return found


def training(ground: Ground) -> Say:
    """Return how each network was trained and which epochs were kept."""
    found = []
    for network in _networks(ground):
        how = _model(ground, network).training
        epochs = [epoch for card in ground.cards(network).values() for epoch in kept_epochs(card)]
        kept = f"; epochs kept {', '.join(map(str, epochs))}" if epochs else ""
        stop = "" if how.patience is None else f", patience {how.patience}"
        found.append(
            f"{network.model}: {how.optimiser}, rate {how.rate:g}, {how.schedule}; batches of {how.batch_size}; at most "
            f"{how.epochs} epochs{stop}{kept}."
        )
    return found


def imbalance(ground: Ground) -> Say:
    """Return the classes that the first fold was trained on, and what was done about their numbers."""
    found = []
    for network in _networks(ground):
        card = next(iter(ground.cards(network).values()), {})
        trained = (card.get("data") or {}).get("train") or {}
        counts = ", ".join(f"{name} {n['images']}" for name, n in sorted(trained.items()))
        how = _model(ground, network).training
        plan = ((card.get("options") or {}).get("augmentation") or {}).get("plan")
        augmented = f", augmentation {plan} ({card['samples_an_epoch']} samples an epoch)" if plan else ""
        weighted = how.class_weights
        given = (
            ", ".join(f"{k} {v:g}" for k, v in weighted.items())
            if isinstance(weighted, Mapping)
            else weighted
        )
        found.append(
            f"{network.model}: {f'training images of fold 0: {counts}; ' if counts else ''}class weights {given}, "
            f"batches {how.batches}{augmented}."
        )
    return found


def partitions(ground: Ground) -> Say:
    """Return the sizes of the partitions over the folds, what is never divided, and what the leakage gate found."""
    results, noun = ground.reporter.results, ground.reporter.noun(DEVELOPMENT)
    path = results.split_path(ground.protocol, "folds.parquet")
    found = []
    if path.is_file():
        # Not the counts by class: a patient with images of two classes is one patient.
        rows = pd.read_parquet(path, columns=["fold", "partition", "patient_id"])
        sizes = rows.groupby(["partition", "fold"])["patient_id"].agg(["nunique", "size"])
        parts = [
            f"{words} {_range(sizes.loc[part, 'nunique'])} {noun} ({_range(sizes.loc[part, 'size'])} images)"
            for part, words in _PARTS.items()
            if part in sizes.index
        ]
        n = rows["fold"].nunique()
        found.append(f"{n} fold{'s' if n != 1 else ''}, each {', '.join(parts)}.")
        if ground.protocol == "sound":
            found.append(f"{noun.capitalize()} and near-duplicate clusters are never divided.")
    gate = read_json(results.split_path(ground.protocol, "gate.json"))
    if gate is not None:
        leaks = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in gate.get("leaks", {}).items())
        found.append(f"Leakage gate before training, on two sides of a fold: {leaks}.")
    return found


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def preprocessing(ground: Ground) -> Say:
    """Return how the pixels that the networks read were made."""
    results, colour = ground.reporter.results, ground.test.colour
    # The networks' own pixels where the page is about development too.
    cohort = min(ground.cohorts, key=lambda own: own.role != "development")
    store = read_json(results.store_path(cohort.name, colour) / "store.json")
    if store is None:
        return []
    recipe = store.get("recipe") or {}
    method = str(recipe.get("method", tables.MISSING))
    settings = [
        f"{key} {recipe[key]}" for key in _CORRECTION if method == "reflection_median" and key in recipe
    ]
    settings += [f"crop {recipe['crop']}"] if recipe.get("crop", "none") != "none" else []
    settings += [f"target {recipe['target']}"] if recipe.get("target") else []
    side = f"; stored at {store['size']} × {store['size']} pixels" if "size" in store else ""
    fit = f", {store['fit']}" if "fit" in store else ""
    how = f" ({', '.join(settings)})" if settings else ""
    found = [f"Colour recipe {colour}: {method}{how}{side}{fit}."]
    for network in _networks(ground):
        size = next(iter(ground.cards(network).values()), {}).get("input_size")
        found += [f"Input of {network.model}: {size} × {size} pixels."] if size else []
    return found


def software(ground: Ground) -> Say:
    """Return the software that trained the networks."""
    versions: dict[str, str] = {}
    for network in _networks(ground):
        for card in ground.cards(network).values():
            versions |= card.get("versions") or {}
    return (
        [f"Trained with {', '.join(f'{name} {versions[name]}' for name in sorted(versions))}."]
        if versions
        else []
    )


def choice(ground: Ground) -> Say:
    """Return how the index test that is reported first became so."""
    return [f"{ground.reporter.primary.index_test}: {ground.reporter.how_primary()}.", *training(ground)]


def version(ground: Ground) -> Say:
    """Return the version of the workflow, and the digest of the code that trained."""
    codes = sorted(
        {str(card["code"]) for n in _networks(ground) for card in ground.cards(n).values() if "code" in card}
    )
    trained = f"; digest of the code that trained {', '.join(codes)}" if codes else ""
    return [f"marrowflow {__version__}{trained}."]
