"""How an external hospital differs from development: case mix, quality, colour, and what the network makes of its images (a step).

    python -m marrowflow statistics.shift --options '{"accuracy": {…}, "classes": […], "subgroups": {…}}'
        --development-inventories I.parquet … --inventory I.parquet
        --development-appearance <recipe>/appearance.parquet … --appearance <recipe>/appearance.parquet …
        --development-embeddings E.parquet … --embedding E.parquet --out DIR
    → DIR/characteristics.csv, domain.csv, projection.csv, components.csv, colour.csv

Tables alone are read, and no prediction or threshold depends on what is found. Every patient counts once: numbers are
means over a patient's included images, shares are of the patient's images.

``characteristics.csv``: group (classes, patients, quality, colour), variable, level (of a category), recipe (of colour),
kind (mean, share), development and hospital (mean or share), their standard deviations over patients, difference
(standardised, see `marrowflow.statistics.standardised`; hospital less development, and without sign for a category), chance
(what its absolute value stays below in 95 of 100 studies without a difference: 1.96 √(1/n + 1/n′), for a number or one
level), and numbers of patients who have a value. A category has a line without level for all of its levels together.

``domain.csv``: features (colour of a recipe, quality, network), comparison (hospital: against development;
development_halves: the same among development patients alone), within (empty, or class: only patients of a class are
compared), the AUC with its interval, method, reason of what is missing, numbers of patients and images, folds, divisions or
halvings, and seed; see `marrowflow.statistics.domain`. Images that a network was trained on are left out of its features. Where
that leaves none, the lines have no estimate, and the reason says so.

``projection.csv``: each patient's place on the first two principal components of the network's features, standardised
and fitted on development patients; no line where these are fewer than `marrowflow.statistics.domain.FEWEST` or do not vary.
``components.csv``: share of variance that each component explains on either side, empty for a hospital that does not vary.
``colour.csv``: each patient's mean colour by recipe.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet
from scipy.sparse import coo_array
from threadpoolctl import threadpool_limits

from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.config import Accuracy, ClassName, Section, Subgroups, read_options
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_table
from marrowflow.statistics.domain import (
    DIVISIONS,
    FEWEST,
    FOLDS,
    HALVINGS,
    Separation,
    Units,
    separation,
    separation_of_halves,
)
from marrowflow.statistics.standardised import standardised_difference, standardised_difference_of_shares

log = logging.getLogger(__name__)

COLOUR, QUALITY, NETWORK = "colour", "quality", "network"
HOSPITAL, HALVES = "hospital", "development_halves"
CLASS = "class"

NUMBERS = ("age", "mpp")
"""Manifest columns that are numbers."""
CATEGORIES = ("sex", "magnification")
"""Manifest columns that are categories, beside those of the study's subgroups."""
QUALITIES = ("focus", "brightness", "saturated")
"""The intake's measures of each image."""

CHARACTERISTICS = (
    "group",
    "variable",
    "level",
    "recipe",
    "kind",
    "development",
    "hospital",
    "development_sd",
    "hospital_sd",
    "difference",
    "chance",
    "n_development",
    "n_hospital",
)
DOMAIN = (
    "features",
    "recipe",
    "comparison",
    "within",
    "n_features",
    "estimate",
    "low",
    "high",
    "method",
    "reason",
    "n_development",
    "n_hospital",
    "images_development",
    "images_hospital",
    "folds",
    "divisions",
    "halvings",
    "seed",
)

_TRAINED_ON = "trained_on"
_QUANTILE = 1.959963984540054  # of the normal distribution, two-sided at 5 %
_ROWS_AT_ONCE = 2048  # of an embedding: 21 MB of 1,280 features in double precision
_COMPONENTS = 2
_NONE_UNSEEN = "no development image that the network was not trained on"


class Options(Section):
    """Sections of the configuration that the step uses."""

    accuracy: Accuracy = Accuracy()
    classes: list[ClassName]
    subgroups: Subgroups = Subgroups()


@dataclass(frozen=True)
class Sources:
    """One side's tables, of one cohort or of several below one another.

    Attributes
    ----------
    inventory
        Included rows only.
    appearance
        Recipe → ``case_id`` and how the stored images look.
    embeddings
        Files of ``learning.embed``.
    """

    inventory: pd.DataFrame
    appearance: Mapping[str, pd.DataFrame]
    embeddings: Sequence[Path]

    @classmethod
    def read(
        cls, inventories: Sequence[Path], appearance: Sequence[Path], embeddings: Sequence[Path]
    ) -> Sources:
        """Read tables; a table of appearance is of the recipe that its folder is named after."""
        inventory = pd.concat([pd.read_parquet(path) for path in inventories], ignore_index=True)
        by_recipe: dict[str, list[pd.DataFrame]] = {}
        for path in appearance:
            by_recipe.setdefault(path.resolve().parent.name, []).append(pd.read_parquet(path))
        return cls(
            inventory[inventory["status"] == "included"].reset_index(drop=True),
            {recipe: pd.concat(tables, ignore_index=True) for recipe, tables in by_recipe.items()},
            embeddings,
        )


@dataclass(frozen=True)
class Sums:
    """Features added up over the images of each patient and class.

    Attributes
    ----------
    patient, label
        Object [groups]; the label is empty where the reference standard is missing or inconclusive.
    images
        Int64 [groups].
    total
        Float64 [groups, features]; no group, and maybe no feature, where no image has features.
    """

    patient: np.ndarray
    label: np.ndarray
    images: np.ndarray
    total: np.ndarray

    def means(self, by_class: bool) -> tuple[pd.DataFrame, np.ndarray]:
        """Return patients, or patients of each class, with their number of images, and their mean features."""
        kept = self.label != "" if by_class else np.ones(len(self.label), bool)
        keys = pd.DataFrame({"patient": self.patient[kept], "label": self.label[kept] if by_class else ""})
        group, found = pd.factorize(pd.MultiIndex.from_frame(keys), sort=True)
        # A sum in one order, whatever is asked: adding up by groups does not depend on the rows of others.
        images, total = np.zeros(len(found), np.int64), np.zeros((len(found), self.total.shape[1]))
        np.add.at(images, group, self.images[kept])
        np.add.at(total, group, self.total[kept])
        table = pd.DataFrame(list(found), columns=["patient", "label"]).assign(images=images)
        return table, total / images[:, None]


def add_up(inventory: pd.DataFrame, chunks: Iterable[tuple[Sequence[str], np.ndarray]]) -> Sums:
    """Add features up over the images of each patient and class.

    Parameters
    ----------
    inventory
        Columns ``case_id``, ``patient_id``, ``label``, ``reference_status``.
    chunks
        Cases and their features [cases, features]; a row with NaN is left out. Any number of rows in all: no more than
        a chunk is held.

    Raises
    ------
    UserError
        A case that the inventory does not include.
    """
    label = inventory["label"].where(inventory["reference_status"] == "ok", "")
    keys = pd.MultiIndex.from_arrays([inventory["patient_id"], label])
    group, found = pd.factorize(keys, sort=True)
    number = pd.Series(group, index=inventory["case_id"])
    images, total = np.zeros(len(found), np.int64), None
    for cases, rows in chunks:
        known = ~np.isnan(rows).any(axis=1)
        of = number.reindex(np.asarray(cases, dtype=object)[known])
        if of.isna().any():
            heading = "a table holds cases that the inventory does not include; both must come from one run:"
            raise UserError(enumerate_problems(heading, of.index[of.isna()].tolist()))
        places = of.to_numpy(np.int64)
        images += np.bincount(places, minlength=len(found))
        once = np.ones(len(places))
        chosen = coo_array((once, (places, np.arange(len(places)))), shape=(len(found), len(places)))
        added = chosen.tocsr() @ rows[known].astype(np.float64)
        total = added if total is None else total + added
    if total is None:
        total = np.zeros((len(found), 0))
    kept = images > 0
    patient, labels = (np.asarray(found.get_level_values(i), dtype=object)[kept] for i in (0, 1))
    return Sums(patient, labels, images[kept], total[kept])


def characteristics(
    development: Sources, hospital: Sources, classes: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """Return `CHARACTERISTICS` of all variables that a side has a value of.

    Parameters
    ----------
    development, hospital
        The two sides.
    classes
        In their order.
    columns
        Manifest columns that are categories.
    """
    sides = (development.inventory, hospital.inventory)
    rows = _shares([_classes(side) for side in sides], "classes", CLASS, classes)
    for name in NUMBERS:
        rows += _means([_number(side, name) for side in sides], "patients", name)
    for name in dict.fromkeys([*CATEGORIES, *columns]):
        if name not in NUMBERS:
            rows += _shares([_words(side, name) for side in sides], "patients", name)
    counts = [side.groupby("patient_id")["case_id"].count() for side in sides]
    rows += _means(counts, "quality", "images_a_patient")
    for name in QUALITIES:
        rows += _means([_number(side, name) for side in sides], "quality", name)
    for recipe in development.appearance:
        own = [_patients_colour(side, recipe) for side in (development, hospital)]
        for name in own[0].columns.drop("images"):
            rows += _means([table[name] for table in own], "colour", name, recipe)
    return pd.DataFrame(rows, columns=list(CHARACTERISTICS))


def domain_table(
    features: Mapping[tuple[str, str], tuple[Sums, Sums]], classes: Sequence[str], settings: Accuracy
) -> pd.DataFrame:
    """Return `DOMAIN`: how well a classifier tells the hospital from development, and halves of development from each other.

    Parameters
    ----------
    features
        Kind of features and colour recipe (maybe empty) → sums of development and of the hospital.
    classes
        Of the comparison within classes.
    settings
        Confidence and seed.
    """
    rows = []
    asked = [(key, within) for key in features for within in ("", CLASS)]
    for key, within in progress(asked, "shift", unit="comparisons"):
        units, images = _units(features[key], classes if within else None)
        # Without classes all units are of one stratum: a side that is empty leaves the other's numbers as they are.
        shared = units.comparable() if within else units
        place = {"features": key[0], "recipe": key[1], "within": within, "seed": settings.seed}
        place |= {"n_features": units.features.shape[1], "folds": FOLDS}
        both = np.isin(units.stratum, np.unique(shared.stratum))
        counted = {
            f"{what}_{name}": value
            for name, side in (("development", False), ("hospital", True))
            for what, value in (
                ("n", shared.patients_of(side)),
                ("images", int(images[both & (units.hospital == side)].sum())),
            )
        }
        absent = _absent(key[0], features[key])
        found = separation(shared, settings.confidence, settings.seed)
        if absent:
            found = replace(found, reason=absent)
        rows.append({**place, "comparison": HOSPITAL, **_row(found), **counted, "divisions": DIVISIONS})
        own = units.only(~units.hospital)
        halves = separation_of_halves(units, settings.seed)
        if absent and not own.n_patients:
            halves = replace(halves, reason=absent)
        counted = {
            "n_development": own.n_patients,
            "images_development": int(images[~units.hospital].sum()),
            "n_hospital": 0,
            "images_hospital": 0,
        }
        rows.append(
            {**place, "comparison": HALVES, **_row(halves), **counted, "divisions": 1, "halvings": HALVINGS}
        )
    table = pd.DataFrame(rows, columns=list(DOMAIN))
    return table.assign(halvings=table["halvings"].fillna(0).astype(np.int64))


def project(development: Sums, hospital: Sums) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return patients' places on the first principal components of development, and the variance that these explain.

    Features are standardised by the development patients' means and deviations; those that do not vary among them count for
    nothing. A component points where its largest coefficient is positive. Both tables are empty where development has fewer
    than `FEWEST` patients, or none of their features vary.
    """
    (own, x), (other, y) = (side.means(by_class=False) for side in (development, hospital))
    if len(own) < FEWEST:
        return _no_projection()
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-9)
    if not varies.any():
        return _no_projection()
    x, y = ((side - mean)[:, varies] / deviation[varies] for side in (x, y))
    _, values, axes = np.linalg.svd(x, full_matrices=False)
    axes = axes[:_COMPONENTS][values[:_COMPONENTS] > 1e-9 * values[0]]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]
    parts = []
    for side, table, rows in (("development", own, x), (HOSPITAL, other, y)):
        places = pd.DataFrame(rows @ axes.T, columns=[f"component_{i + 1}" for i in range(len(axes))])
        named = table.rename(columns={"patient": "patient_id"})[["patient_id", "images"]]
        parts.append(pd.concat([named.assign(side=side), places], axis=1))
    explained = pd.DataFrame(
        {
            "component": np.arange(1, len(axes) + 1),
            "development": _explained(x, axes),
            HOSPITAL: _explained(y, axes),
        }
    )
    return pd.concat(parts, ignore_index=True), explained


def _explained(rows: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the share of the rows' variance along each axis, float64 [axes]; NaN where they do not vary."""
    around = rows - rows.sum(axis=0) / max(1, len(rows))
    variance = (around**2).sum()
    # Rows that are all alike differ from their mean by rounding: shares of that are of nothing.
    if variance <= 1e-18 * (rows**2).sum():
        return np.full(len(axes), np.nan)
    return ((around @ axes.T) ** 2).sum(axis=0) / variance


def _no_projection() -> tuple[pd.DataFrame, pd.DataFrame]:
    components = [f"component_{i + 1}" for i in range(_COMPONENTS)]
    points = pd.DataFrame(columns=["patient_id", "images", "side", *components])
    return points, pd.DataFrame(columns=["component", "development", HOSPITAL])


def measure_shift(options: Options, development: Sources, hospital: Sources) -> dict[str, pd.DataFrame]:
    """Return the step's tables by name; see the module.

    Raises
    ------
    UserError
        Recipes or features of one side that the other lacks; cases that an inventory does not include.
    """
    if set(development.appearance) != set(hospital.appearance):
        raise UserError(
            f"appearance is given of the recipes {sorted(development.appearance)} of development and of "
            f"{sorted(hospital.appearance)} of the hospital: give both of all recipes"
        )
    sides = (development, hospital)
    features: dict[tuple[str, str], tuple[Sums, Sums]] = {}
    for recipe in development.appearance:
        features[COLOUR, recipe] = _both(add_up(s.inventory, _columns(s.appearance[recipe])) for s in sides)
    qualities = [name for name in QUALITIES if all(name in side.inventory for side in sides)]
    if qualities:
        features[QUALITY, ""] = _both(
            add_up(s.inventory, _columns(_on_a_scale(s.inventory, qualities))) for s in sides
        )
    network = _both(add_up(s.inventory, _unseen(s.embeddings)) for s in sides)
    if network[0].total.shape[1] != network[1].total.shape[1]:
        raise UserError(
            "the embeddings of the two sides have different features: embed both with one network"
        )
    features[NETWORK, ""] = network
    projection, components = project(*network)
    return {
        "characteristics": characteristics(development, hospital, options.classes, options.subgroups.columns),
        "domain": domain_table(features, options.classes, options.accuracy),
        "projection": projection,
        "components": components,
        "colour": pd.concat(
            [
                _patients_colour(side, recipe).reset_index().assign(side=name, recipe=recipe)
                for recipe in development.appearance
                for name, side in (("development", development), (HOSPITAL, hospital))
            ],
            ignore_index=True,
        ),
    }


def _both(found: Iterable[Sums]) -> tuple[Sums, Sums]:
    development, hospital = found
    development = _as_wide_as(development, hospital)
    return development, _as_wide_as(hospital, development)


def _as_wide_as(side: Sums, other: Sums) -> Sums:
    """Give a side without images the features of the other, which alone has any."""
    return side if len(side.images) else replace(side, total=np.zeros((0, other.total.shape[1])))


def _absent(kind: str, sides: tuple[Sums, Sums]) -> str:
    """Return what is missing where a side has no image with features; empty where both have."""
    development, hospital = (len(side.images) > 0 for side in sides)
    if not development:
        return _NONE_UNSEEN if kind == NETWORK else f"no development image has measures of {kind}"
    what = "features of the network" if kind == NETWORK else f"measures of {kind}"
    return "" if hospital else f"no image of the hospital has {what}"


def _row(found: Separation) -> dict[str, Any]:
    return {
        "estimate": found.estimate,
        "low": found.interval.low,
        "high": found.interval.high,
        "method": found.interval.method,
        "reason": found.reason,
    }


def _units(sides: tuple[Sums, Sums], classes: Sequence[str] | None) -> tuple[Units, np.ndarray]:
    """Return patients of both sides (or their parts in each class), and how many images each is the mean of."""
    parts = [side.means(by_class=classes is not None) for side in sides]
    tables = pd.concat([table for table, _ in parts], ignore_index=True)
    hospital = np.repeat([False, True], [len(table) for table, _ in parts])
    patient, _ = pd.factorize(pd.MultiIndex.from_arrays([hospital, tables["patient"]]))
    numbers = {name: i for i, name in enumerate(classes or [""])}
    stratum = tables["label"].map(numbers).to_numpy(np.int64)
    features = np.concatenate([rows for _, rows in parts])
    units = Units(features, patient, hospital, stratum, int(patient.max(initial=-1)) + 1)
    return units, tables["images"].to_numpy(np.int64)


def _columns(table: pd.DataFrame) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    yield table["case_id"].tolist(), table.drop(columns="case_id").to_numpy(np.float64)


def _on_a_scale(inventory: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return measures of quality for a linear classifier: focus is a variance, and spreads over powers of ten."""
    table = inventory[["case_id", *names]]
    return table.assign(focus=np.log1p(table["focus"])) if "focus" in table else table


def _unseen(paths: Sequence[Path]) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    """Yield the features of images that the network was not trained on, a part of a file at a time."""
    for path in paths:
        with parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name not in ("case_id", _TRAINED_ON)]
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                new = ~batch.column(_TRAINED_ON).to_numpy(zero_copy_only=False).astype(bool)
                if not new.any():
                    continue
                rows = np.column_stack([batch.column(name).to_numpy() for name in names])
                cases = batch.column("case_id").to_numpy(zero_copy_only=False)
                yield cases[new], rows[new]


def _patients_colour(side: Sources, recipe: str) -> pd.DataFrame:
    """Return each patient's mean colour, and number of images, by ``patient_id``."""
    cases = side.inventory[["case_id", "patient_id"]].merge(side.appearance[recipe], on="case_id")
    by_patient = cases.drop(columns="case_id").groupby("patient_id")
    return by_patient.mean().assign(images=by_patient.size())


def _number(side: pd.DataFrame, name: str) -> pd.Series:
    """Return each patient's mean of a column, NaN where it has none."""
    values = pd.to_numeric(side[name], errors="coerce") if name in side else pd.Series(np.nan, side.index)
    return values.astype(np.float64).groupby(side["patient_id"]).mean()


def _words(side: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the share of each patient's images [patients, levels] in each level; of images without a level none."""
    if name not in side:
        return pd.DataFrame()
    words = side[name].astype("str").str.strip().where(side[name].notna(), "")
    known = words.ne("")
    return pd.crosstab(side["patient_id"][known], words[known], normalize="index")


def _classes(side: pd.DataFrame) -> pd.DataFrame:
    return _words(side.assign(label=side["label"].where(side["reference_status"] == "ok", "")), "label")


def _means(sides: Sequence[pd.Series], group: str, variable: str, recipe: str = "") -> list[dict[str, Any]]:
    """Return the row of a number, from each patient's value; none where neither side has one."""
    development, hospital = (side.dropna().to_numpy(np.float64) for side in sides)
    if not len(development) and not len(hospital):
        return []
    return [
        {
            "group": group,
            "variable": variable,
            "level": "",
            "recipe": recipe,
            "kind": "mean",
            **{
                name: _of(np.mean, x, 1) for name, x in (("development", development), ("hospital", hospital))
            },
            "development_sd": _of(_deviation, development, 2),
            "hospital_sd": _of(_deviation, hospital, 2),
            "difference": standardised_difference(hospital, development),
            "chance": _chance(len(development), len(hospital)),
            "n_development": len(development),
            "n_hospital": len(hospital),
        }
    ]


def _of(measure: Any, values: np.ndarray, fewest: int) -> float:
    return float(measure(values)) if len(values) >= fewest else float("nan")


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1))


def _shares(
    sides: Sequence[pd.DataFrame], group: str, variable: str, levels: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of a category, from the share of each patient's images in each level; none where neither has one."""
    if not any(len(side) for side in sides):
        return []
    if levels is None:
        levels = sorted({str(level) for side in sides for level in side.columns})
    patients = [len(side) for side in sides]
    counts = [side.reindex(columns=list(levels), fill_value=0.0).sum().to_numpy(np.float64) for side in sides]
    place: dict[str, Any] = {"group": group, "variable": variable, "recipe": "", "kind": "share"}
    place |= {"n_development": patients[0], "n_hospital": patients[1]}
    rows: list[dict[str, Any]] = [
        {**place, "level": "", "difference": standardised_difference_of_shares(counts[1], counts[0])}
    ]
    for i, level in enumerate(levels):
        split = [np.array([count[i], n - count[i]]) for count, n in zip(counts, patients, strict=True)]
        shares = [float(one[0] / n) if n else np.nan for one, n in zip(split, patients, strict=True)]
        apart = standardised_difference_of_shares(np.maximum(split[1], 0), np.maximum(split[0], 0))
        sign = -1.0 if shares[1] < shares[0] else 1.0
        named = {"level": level, "development": shares[0], "hospital": shares[1], "difference": sign * apart}
        rows.append({**place, **named, "chance": _chance(*patients)})
    return rows


def _chance(n: int, other: int) -> float:
    """Return the limit of a standardised difference of nothing: its variance is 1/n + 1/n′ (Hedges and Olkin 1985, section 5E)."""
    return float(_QUANTILE * np.sqrt(1 / n + 1 / other)) if n and other else float("nan")


def main(argv: Sequence[str]) -> None:
    """Measure one external hospital's shift."""
    parser = step_parser("statistics.shift", "How an external hospital differs from development.")
    for flag, what in (
        ("--development-inventories", "inventory.parquet of each development cohort"),
        ("--development-appearance", "appearance.parquet of each development cohort and recipe"),
        ("--appearance", "appearance.parquet of the hospital, of each recipe"),
        ("--development-embeddings", "embedding.parquet of each development cohort"),
    ):
        parser.add_argument(flag, type=existing_file, nargs="+", required=True, help=what)
    parser.add_argument(
        "--inventory", type=existing_file, required=True, help="inventory.parquet of the hospital"
    )
    parser.add_argument(
        "--embedding", type=existing_file, required=True, help="embedding.parquet of the hospital"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the tables")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    development = Sources.read(
        args.development_inventories, args.development_appearance, args.development_embeddings
    )
    hospital = Sources.read([args.inventory], args.appearance, [args.embedding])
    # Two threads on a busy machine make products of this size many times slower than one, and round them otherwise.
    with threadpool_limits(limits=1):
        tables = measure_shift(options, development, hospital)
    for name, table in tables.items():
        write_table(args.out / f"{name}.csv", table)
