"""Show what the aggregator looked at in the slides that the reports print, beside networks of random weights (a step).

The cases and the columns of ``cases.csv`` are those of ``learning.explain``, so that reports print a slide as they print an
image; the maps are attention and no gradient. Tiles are laid anew so that they overlap (wang2022: by half), seen by the same
network, and asked of every aggregator that answered for the slide: the map is the mean of their attention, each on a scale
from 0 to 1, in the branch of the class that was answered. A class's own branch may attend to what speaks against
it: attention says where a network looked, not what it made of that.

The control is the mean over `CONTROLS` aggregators of the same kind with random weights.

Beside ``map`` and ``control`` (by min and max, as published) stand for each slide

=============== =======================================================================
percentile      the same attention as the share of tiles that had less
top, bottom     the tiles that were looked at most and least, most (or least) first
tiles           how many tiles lie on the map
overlap         the share of its side by which each overlaps the next
=============== =======================================================================

``correlation`` is the rank correlation of the map with its control over the tiles; over the pictures it would be that of
tissue with itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from marrowflow.cli import add_files, progress, step_parser
from marrowflow.config import Identifier, read_options
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
from marrowflow.learning.saliency import rank_correlation
from marrowflow.predictions import ENSEMBLE
from marrowflow.shown_cases import ATTENTION
from marrowflow.slides.aggregators import BagNetwork
from marrowflow.slides.answers import Trained, bag_within_memory, load_aggregators
from marrowflow.slides.arguments import add_bags, add_cohorts, add_state
from marrowflow.slides.bags import Bags, read_bag
from marrowflow.slides.extract import Seer, seer
from marrowflow.slides.heatmap import MINMAX, PERCENTILE, extremes, laid_out, scaled, strip
from marrowflow.slides.picture import SIDE
from marrowflow.slides.slide import Slide
from marrowflow.slides.slide_files import opened_as_taken_in
from marrowflow.slides.survey import mask_of
from marrowflow.slides.tiles import geometry, place_tiles, within_region
from marrowflow.study_slides import Extractor, Tiling

log = logging.getLogger(__name__)

SHOWN = 5
"""Tiles of either kind."""
_TILE = 96
COLUMNS = (
    "case_id", "image", "kind", "truth", "predicted", "confidence", "explained_class", "method", "grid", "networks",
    "correlation", "mean_correlation", "map", "control", "percentile", "top", "bottom", "tiles", "overlap", "reason",
)  # fmt: skip


class Options(ExplainedOptions):
    """What the maps depend on, besides the networks and their answers."""

    tilings: dict[Identifier, Tiling]
    extractor: Extractor
    map_overlap: float
    """Share of its side by which a tile of a map overlaps the next."""


class _Looked:
    """One slide with its overlapping tiles and what its networks attended to."""

    def __init__(
        self, tiles: pd.DataFrame, features: torch.Tensor, span: float, size: tuple[int, int]
    ) -> None:
        self.tiles, self.features, self.span, self.size = tiles, features, span, size

    def attention(self, networks: Sequence[BagNetwork], number: int, scale: str) -> np.ndarray:
        """Return the mean of the networks' attention for a class over the tiles, each scaled, float64 [n]."""
        each = []
        for network in networks:
            with torch.no_grad():
                answer = network(self.features)
            branch = number if len(answer.attention) > 1 else 0
            each.append(scaled(answer.attention[branch].double().cpu().numpy(), scale))
        return np.mean(each, axis=0)

    def drawn(self, values: np.ndarray) -> np.ndarray:
        """Return values as a square grey picture, uint8 [SIDE, SIDE], 255 where the value is 1."""
        scale = SIDE / max(self.size)
        side = max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))
        whole = np.nan_to_num(laid_out(values, self.tiles, self.span, self.size, side))
        square = np.zeros((SIDE, SIDE), np.uint8)
        top, left = (SIDE - side[1]) // 2, (SIDE - side[0]) // 2
        square[top : top + side[1], left : left + side[0]] = np.rint(255 * whole)
        return square


def explain(
    options: Options,
    tiling: Tiling,
    shown: pd.DataFrame,
    networks: Sequence[Trained],
    folds: pd.DataFrame,
    slides: pd.DataFrame,
    sees: Seer,
    within: bool,
    out: Path,
) -> pd.DataFrame:
    """Draw the maps of slides and their controls into ``out/maps``, and return the table of ``cases.csv``.

    Parameters
    ----------
    options
        See `Options`.
    tiling
        Of the index test.
    shown
        Rows of a prediction table with ``image``, ``confidence`` and ``kind``.
    networks
        Aggregators of all folds (of an ensemble, of all its members).
    folds
        Table of ``splits.partition``: it says which networks a slide was tested by.
    slides
        One row a slide, by ``case_id``: ``path``, ``bytes``, ``sha256``, ``pictures``, and its row of tissue.csv.
    sees
        What sees the overlapping tiles.
    within
        Draw only tiles within a slide's region, where it has one: for networks that answer from no others.
    out
        Folder of the outputs.
    """
    (out / MAPS).mkdir(parents=True, exist_ok=True)
    attends = networks[0].network.kind != "mean"
    tested = folds[folds["partition"].eq("test")].groupby("case_id")["fold"].agg(set).to_dict()
    rows = []
    cases = shown.to_dict("records")
    for number, case in enumerate(progress(cases, "maps", len(cases), "slides"), 1):
        row = {
            **case,
            "explained_class": "",
            "map": "",
            "control": "",
            "percentile": "",
            "top": "",
            "bottom": "",
        }
        row |= {
            "method": "",
            "grid": "",
            "networks": 0,
            "correlation": float("nan"),
            "tiles": 0,
            "overlap": float("nan"),
        }
        if not case["predicted"]:
            reason = f"no answer to explain{': ' if case['reason'] else ''}{case['reason']}"
            rows.append({**row, "reason": reason})
            continue
        if not attends:
            rows.append({**row, "reason": "the mean of all tiles attends to none of them"})
            continue
        own = {case["fold"]} if case["fold"] != ENSEMBLE else tested.get(case["image"])
        asked = [one for one in networks if own is None or one.fold in own]
        rows.append(
            row
            | _explained(options, tiling, case, asked, slides.loc[case["image"]], sees, within, out, number)
        )
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    return table.assign(mean_correlation=round(table["correlation"].astype(np.float64).mean(), 6))


def _explained(
    options: Options,
    tiling: Tiling,
    case: Mapping[Any, Any],
    asked: Sequence[Trained],
    row: Any,
    sees: Seer,
    within: bool,
    out: Path,
    number: int,
) -> dict[str, Any]:
    """Draw one slide's pictures, and return its columns."""
    path, size = Path(row.path), int(row.bytes)
    with opened_as_taken_in(path, size) as slide:
        overlap, tiles = _overlapping(slide, row, tiling, options.map_overlap, within)
        how = geometry(slide, row.mpp, tiling, overlap)
        entry = sees.see(path, size, row.sha256, row.mpp, tiling, tiles, overlap, f"map {number}")
        place = list(options.classes).index(case["predicted"])
        trained = [one.network for one in asked]
        with bag_within_memory(case["image"], len(tiles)):
            seen = torch.from_numpy(np.array(read_bag(case["image"], entry).features)).to(sees.device).float()
            looked = _Looked(tiles, seen, how.span, (slide.width, slide.height))
            values = looked.attention(trained, place, MINMAX)
            control = looked.attention(_untrained(asked[0], sees.device), place, MINMAX)
            shares = looked.attention(trained, place, PERCENTILE)
        pictures = {
            "map": looked.drawn(values),
            "control": looked.drawn(control),
            "percentile": looked.drawn(shares),
        }
        top, bottom = extremes(values, tiles, how.span, SHOWN)
        strips = {
            name: strip(slide, how, tiles, chosen, _TILE)
            for name, chosen in (("top", top), ("bottom", bottom))
            if chosen
        }
    files = {}
    for name, picture in {**pictures, **strips}.items():
        file = file_name(number, name)
        write_picture(out / MAPS / file, picture)
        files[name] = f"{MAPS}/{file}"
    odd = "one tile alone has all attention, whatever it shows" if len(tiles) == 1 else ""
    return {
        **files,
        "explained_class": case["predicted"],
        "method": ATTENTION,
        "grid": f"{len(tiles)} tiles",
        "networks": len(asked),
        "correlation": round(rank_correlation(values, control), 6),
        "tiles": len(tiles),
        "overlap": overlap,
        "reason": odd,
    }


def _overlapping(
    slide: Slide, row: Any, tiling: Tiling, wanted: float, within: bool
) -> tuple[float, pd.DataFrame]:
    """Return a map's tiles and their overlap; the tiling's own where that alone leaves a tile.

    A small piece of tissue may fill a tile of one grid, and no tile of the other.
    """
    mask, region = mask_of(Path(row.pictures), row), mask_of(Path(row.pictures), row, "region")
    assert mask is not None  # every slide has one
    for overlap in (wanted, tiling.overlap):
        tiles = place_tiles(slide, geometry(slide, row.mpp, tiling, overlap), mask, tiling.min_tissue, region)
        if within:
            tiles = tiles[within_region(tiles)].reset_index(drop=True)
        if len(tiles):
            break
    return overlap, tiles


def _untrained(like: Trained, device: torch.device) -> list[BagNetwork]:
    """Return aggregators of the same kind with random weights."""
    found = []
    for seed in range(CONTROLS):
        torch.manual_seed(seed)
        network = BagNetwork(like.network.settings, like.network.features, like.network.classes)
        found.append(network.to(device).eval())
    return found


def main(argv: Sequence[str]) -> None:
    """Explain the slides that the reports show."""
    parser = step_parser(
        "slides.explain", "Show what the aggregators looked at in the slides that reports print."
    )
    add_explained(parser)
    add_cohorts(parser)
    add_files(parser, "--tissue", "tissue.csv of these patients, in the same order")
    add_bags(parser, "bags.parquet of these patients, <cohort>/<tiling>")
    add_state(parser)
    parser.add_argument("--within", action="store_true", help="only tiles within a slide's region")
    parser.add_argument("--threads", type=int, default=1, help="regions of a slide read at a time")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    name, shown = explained_cases(options, args)
    model, _, tiling = name.partition("-")
    tables = [file for file in args.bags if file.parent.name == tiling]
    if not tables:
        raise UserError(
            f"--bags holds no table of the tiling {tiling!r}; give <cohort>/{tiling}/bags.parquet"
        )
    sees = seer(options.extractor, options.tilings[tiling].size, args.features, args.state, args.threads)
    bags = Bags(tables, args.features)
    networks = [
        network
        for member in options.members.get(model, [model])
        for network in load_aggregators(
            [folder for folder in args.models if folder.parts[-3:-1] == (member, tiling)],
            options.classes,
            bags,
            sees.device,
        )
    ]
    folds = pd.read_parquet(args.folds, columns=["fold", "case_id", "partition"])
    slides = _slides(args.inventories, args.tissue, args.images)
    chosen = options.tilings[tiling]
    cases = explain(options, chosen, shown, networks, folds, slides, sees, args.within, args.out)
    write_table(args.out / "cases.csv", cases)
    log.info("%s: %d maps of %d slides shown", name, int(cases["map"].ne("").sum()), len(cases))


def _slides(inventories: Sequence[Path], tissue: Sequence[Path], images: Sequence[Path]) -> pd.DataFrame:
    """Return where each slide lies and what was found on it, by its id."""
    tables = []
    for inventory, surveyed, folder in zip(inventories, tissue, images, strict=True):
        known = pd.read_parquet(inventory).set_index("case_id")
        table = pd.read_csv(surveyed).set_index("case_id")
        table["path"] = [str(folder / known["image"][case]) for case in table.index]
        table[["bytes", "sha256"]] = known.loc[table.index, ["bytes", "sha256"]]
        table["pictures"] = str(surveyed.parent / "pictures")
        tables.append(table)
    return pd.concat(tables)
