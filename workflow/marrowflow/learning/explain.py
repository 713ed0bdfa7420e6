"""Show where the networks looked in the cases that the reports print, beside networks of random weights.

    python -m marrowflow learning.explain --options '{…}' --primary primary.json --predictions … --locks …
        --folds folds.parquet --models results/<study>/training/<protocol>/<model>/<colour>/<fold> …
        --stores results/<study>/images/<cohort>/<colour> … --out DIR

Of all index tests that are given the one that ``primary.json`` names is explained; networks and stores are known by their paths.
The cases are those of `marrowflow.shown_cases`. The class that is explained is the one that was answered.

Each case has one map, the mean of the maps of the networks that answered for it: of the fold's own network where the
case was tested in one fold, of those of all folds that tested it, or else, at other hospitals and without a reference,
of all folds'; of an ensemble, of its members' networks. One-vs-rest models are explained by the class's own network,
models of several heads by the logit of the class. Each network's map (`marrowflow.learning.saliency`) is enlarged and
divided by its largest value first, so that all networks weigh the same. Images are taken as they are stored, also where
an augmented sample of one was the case.

Beside it stands a control (the model randomisation test of Adebayo et al. 2018, NeurIPS): the same mean over `CONTROLS`
networks of the same architecture with random weights. One alone would not do: for a class picked at random about every
third untrained network has a map of zeros. A map that is much like its control tells more of the
architecture and of the image's edges than of what the network learnt; ``correlation`` says how alike they are.

``DIR/cases.csv`` has one row a case shown:

=================== =================================================================================
case_id, image      the case, and the image that is shown (another one for augmented samples only)
kind                error, inconclusive or closest
truth, predicted    as in the prediction table; predicted at the locked threshold where that decides
confidence          probability of ``predicted``
explained_class     the class whose map it is; empty where there is none
method, grid        how the maps were made, and their places before they were enlarged
networks            over how many networks the mean was taken
correlation         Spearman's, over all pixels of ``map`` and ``control``; empty where one of them is flat
mean_correlation    the mean of that column, the same in all rows
map, control        files below DIR: 8-bit grey, 255 where the network looked most
reason              why there is no map, or what is odd about it
=================== =================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from marrowflow.cli import add_folders, progress, step_parser
from marrowflow.config import DIAGNOSIS, Identifier, read_options
from marrowflow.errors import UserError
from marrowflow.explained_cases import (
    CONTROLS,
    MAPS,
    ExplainedOptions,
    add_explained,
    explained_cases,
    file_name,
    write_picture,
)
from marrowflow.files import write_table
from marrowflow.images.store import PackedPixels
from marrowflow.learning.backbones import OneVsRest, rebuild
from marrowflow.learning.batches import in_order
from marrowflow.learning.device import choose_device
from marrowflow.learning.ensemble import Network, load_networks
from marrowflow.learning.faults import within_memory
from marrowflow.learning.features import BATCH
from marrowflow.learning.saliency import NoMapError, enlarged, grad_cam, rank_correlation
from marrowflow.learning.weight_files import read_metadata
from marrowflow.predictions import ENSEMBLE

log = logging.getLogger(__name__)

LARGEST = 168
"""Side of a map in pixels, where the images are not smaller: as large as the reports print it."""
_NOTHING = {"method": "", "grid": "", "networks": 0, "correlation": float("nan")}
COLUMNS = (
    "case_id",
    "image",
    "kind",
    "truth",
    "predicted",
    "confidence",
    "explained_class",
    "method",
    "grid",
    "networks",
    "correlation",
    "mean_correlation",
    "map",
    "control",
    "reason",
)


class Options(ExplainedOptions):
    """What the maps depend on, besides the networks and their answers."""

    threads: dict[Identifier, int]
    """Threads of each model's arithmetic; they belong to the result."""


def explain(
    options: Options,
    shown: pd.DataFrame,
    networks: Mapping[str, Sequence[Path]],
    folds: pd.DataFrame,
    pixels: PackedPixels,
    out: Path,
) -> pd.DataFrame:
    """Draw the maps of cases and their controls into ``out/maps``, and return the table of ``cases.csv``.

    Parameters
    ----------
    options
        See `Options`.
    shown
        Rows of a prediction table with ``image``, ``confidence`` and ``kind``.
    networks
        Folders of ``learning.train``, one a fold, by the model's name.
    folds
        Table of ``splits.partition``: it says which networks a case was tested by.
    pixels
        Where the images lie.
    out
        Folder of the outputs.

    Raises
    ------
    UserError
        Networks of other classes, or two of one fold; an image that no store holds; too little memory.
    """
    answered = shown["predicted"].ne("").to_numpy()
    atlas = _Atlas(shown[answered], folds, pixels)
    for model, folders in networks.items():
        atlas.add(model, folders, options)
    found = iter(atlas.cases)
    (out / MAPS).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (case, has_answer) in enumerate(zip(shown.to_dict("records"), answered, strict=True), 1):
        about = next(found).about(atlas.without) if has_answer else _unanswered(case["reason"])
        for name, picture in about.pictures.items():
            write_picture(out / MAPS / file_name(number, name), picture)
        files = {name: f"{MAPS}/{file_name(number, name)}" for name in about.pictures}
        explained = case["predicted"] if about.pictures else ""
        rows.append(
            {**case, **about.columns, "explained_class": explained, "map": "", "control": "", **files}
        )
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    return table.assign(mean_correlation=round(table["correlation"].astype(np.float64).mean(), 6))


@dataclass(frozen=True)
class _About:
    """What is told of one case: columns of ``cases.csv``, and its pictures by the name of their column."""

    columns: dict[str, Any]
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class _Case:
    """Sums of one case's maps, float64 [side, side], each map with a largest value of 1."""

    trained: np.ndarray
    untrained: np.ndarray
    networks: int = 0
    grids: dict[str, str] = field(default_factory=dict)
    """Places of the maps before they were enlarged, by the method that made them."""

    def about(self, without: Sequence[str]) -> _About:
        """Return what is told of the case; `without` says which models have no maps."""
        if not self.networks:
            return _About({**_NOTHING, "reason": "; ".join(without)})
        pictures = {"map": _picture(self.trained), "control": _picture(self.untrained)}
        empty = [
            f"the {name} is empty: no place speaks for the class"
            for name, picture in pictures.items()
            if not picture.any()
        ]
        columns = {
            "method": "; ".join(self.grids),
            "grid": "; ".join(self.grids.values()),
            "networks": self.networks,
            "correlation": round(rank_correlation(*pictures.values()), 6),
            "reason": "; ".join([*without, *empty]),
        }
        return _About(columns, pictures)


class _Atlas:
    """The maps of all cases that were answered, filled model by model.

    Parameters
    ----------
    shown
        Rows of a prediction table with ``image`` and ``predicted``.
    folds
        Table of ``splits.partition``.
    pixels
        Where the images lie.

    Attributes
    ----------
    cases
        In the order of the rows.
    without
        Which models have no maps, and why.
    """

    def __init__(self, shown: pd.DataFrame, folds: pd.DataFrame, pixels: PackedPixels) -> None:
        self._classes = shown["predicted"].to_numpy()
        self._folds = _folds_of(shown, folds)
        self._images = pixels.of(shown["image"])
        self._side = min(LARGEST, pixels.size)
        empty = np.zeros((self._side, self._side))
        self.cases = [_Case(empty, empty) for _ in self._folds]
        self.without: list[str] = []

    def add(self, model: str, folders: Sequence[Path], options: Options) -> None:
        """Add the maps of a model's networks and of their untrained counterparts."""
        device = choose_device(options.threads[model])
        networks = load_networks(folders, options.classes, device)
        for network in networks:
            network.module.requires_grad_(False)
        self._refuse_other_folds(model, {network.fold for network in networks})
        everybody = np.ones(len(self.cases), dtype=bool)
        try:
            for network in progress(networks, f"maps of {model}", unit="networks"):
                asked = np.array([f is None or network.fold in f for f in self._folds], dtype=bool)
                for case, large in self._maps(network, asked, device):
                    case.trained = case.trained + large
                    case.networks += 1
            untrained = _untrained(folders[0], networks[0], device)
            for network in progress(untrained, f"controls of {model}", CONTROLS, "networks"):
                for case, large in self._maps(network, everybody, device):
                    case.untrained = case.untrained + large
        except NoMapError as error:
            self.without.append(f"{model} has no map: {error}")

    def _refuse_other_folds(self, model: str, given: set[int]) -> None:
        missing = sorted(set().union(*(folds or () for folds in self._folds)) - given)
        if missing:
            raise UserError(
                f"--models holds no network of {model} of the folds {missing}, which answered for cases shown"
            )

    def _maps(
        self, network: Network, asked: np.ndarray, device: torch.device
    ) -> Iterator[tuple[_Case, np.ndarray]]:
        """Yield the enlarged map of each case that a network is asked for, for the class that was answered."""
        for name in sorted(set(self._classes[asked])):
            module, output = _logit_of(network, name)
            places = np.flatnonzero(asked & (self._classes == name))
            for chunk in in_order(len(places), BATCH):
                part = places[chunk]
                with within_memory(f"maps of the network of fold {network.fold}", BATCH):
                    inputs = network.prepare(torch.from_numpy(self._images[part]).to(device))
                    outputs = torch.full((len(part),), output, device=device)
                    saliency = grad_cam(module, inputs, outputs)
                    large = enlarged(saliency.maps, self._side).cpu().numpy()
                height, width = saliency.maps.shape[1:]
                for place, own in zip(part, large, strict=True):
                    self.cases[place].grids[saliency.method] = f"{height} x {width}"
                    yield self.cases[place], own


def _folds_of(shown: pd.DataFrame, folds: pd.DataFrame) -> list[set[int] | None]:
    """Return whose networks answered for each case: its fold's, those of all folds that tested it, or None for all."""
    tested = folds[folds["partition"].eq("test")].groupby("case_id")["fold"].agg(set).to_dict()
    return [
        {fold} if fold != ENSEMBLE else tested.get(case)
        for case, fold in zip(shown["case_id"], shown["fold"], strict=True)
    ]


def _logit_of(network: Network, name: str) -> tuple[nn.Module, int]:
    """Return the network that answers for a class, and which of its logits does."""
    number = list(network.outcomes.classes).index(name)
    if isinstance(network.module, OneVsRest):
        return network.module[number], 0
    return network.module, network.outcomes.places()[DIAGNOSIS].start + number


def _untrained(folder: Path, trained: Network, device: torch.device) -> Iterator[Network]:
    """Yield networks of the same architecture with random weights."""
    note = read_metadata(folder / "model.safetensors")
    each = isinstance(trained.module, OneVsRest)
    outputs = 1 if each else trained.outcomes.outputs
    for seed in range(CONTROLS):
        torch.manual_seed(seed)
        module = rebuild(note["network"], outputs, note["input_size"], note["profile"])
        module.eval().requires_grad_(False)
        for weights in module.parameters():
            # Some architectures start their last layer from zero, and would look nowhere.
            if weights.ndim > 1 and not weights.any():
                nn.init.normal_(weights, std=0.01)
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Untrained, all classes' networks are alike.
        yield replace(trained, module=OneVsRest([module] * len(trained.outcomes.classes)) if each else module)


def _picture(total: np.ndarray) -> np.ndarray:
    """Return a sum of maps as uint8, its largest value 255; zeros stay zeros."""
    peak = total.max()
    return np.rint(total * (255 / peak if peak > 0 else 0)).astype(np.uint8)


def _unanswered(reason: str) -> _About:
    return _About({**_NOTHING, "reason": f"no answer to explain{': ' if reason else ''}{reason}"})


def main(argv: Sequence[str]) -> None:
    """Explain the cases that the reports show."""
    parser = step_parser(
        "learning.explain", "Show where the networks looked in the cases that reports print."
    )
    add_explained(parser)
    add_folders(parser, "--stores", "packed pixels of these patients, <cohort>/<colour>")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    name, shown = explained_cases(options, args)
    model, _, colour = name.partition("-")
    networks = {
        member: _networks_of(member, colour, args.models) for member in options.members.get(model, [model])
    }
    stores = [folder for folder in args.stores if folder.name == colour]
    if not stores:
        raise UserError(
            f"--stores holds no packed pixels of the colour recipe {colour!r}; give <cohort>/{colour}"
        )
    folds = pd.read_parquet(args.folds, columns=["fold", "case_id", "partition"])
    cases = explain(options, shown, networks, folds, PackedPixels(stores), args.out)
    write_table(args.out / "cases.csv", cases)
    log.info("%s: %d maps of %d cases shown", name, int(cases["map"].ne("").sum()), len(cases))


def _networks_of(model: str, colour: str, folders: Sequence[Path]) -> list[Path]:
    found = [folder for folder in folders if folder.parts[-3:-1] == (model, colour)]
    if not found:
        raise UserError(f"--models holds no network of {model}-{colour}: give {model}/{colour}/<fold>")
    return found
