"""Where a study's results lie, and how its reports read them.

Reports only read: every number that they print was written by an earlier step, and `Results.href`
links it to that file. A table that is not there reads as None and is printed as missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.errors import EmptyDataError

from marrowflow.choices.threshold import read_lock
from marrowflow.config import Protocol
from marrowflow.errors import UserError
from marrowflow.prediction_columns import PARENT
from marrowflow.predictions import Predictions, read_predictions

DEVELOPMENT = "development"
"""Name of the pooled development cohorts in the paths of predictions and accuracy."""

# Columns of the statistics' tables that hold words; a class may be called NA or null.
_WORDS = (
    "endpoint",
    "metric",
    "class",
    "unit",
    "method",
    "warning",
    "truth",
    "predicted",
    "partition",
    "label",
    "analysis",
    "scores",
    "source",
    "index_test",
    "against",
    "cohort",
    "against_cohort",
    "test",
    "answer",
    "answer_against",
    "network",
)
_TRUE = {"true", "1", "1.0"}


@dataclass(frozen=True)
class IndexTest:
    """One network, or one mean of networks, under one protocol; `name` is ``<model>-<colour>``."""

    protocol: Protocol
    name: str

    @property
    def folder(self) -> Path:
        """``<protocol>/<model>/<colour>``, the part of the paths that stands for the index test."""
        return Path(self.protocol) / self.model / self.colour

    @property
    def model(self) -> str:
        """Name of the model, or of the ensemble."""
        return self.name.partition("-")[0]

    @property
    def colour(self) -> str:
        """Name of the colour recipe."""
        return self.name.partition("-")[2]

    @property
    def leaky(self) -> bool:
        """True where images of one patient may be on both sides of the split."""
        return self.protocol == "as_published"


@dataclass(frozen=True)
class Results:
    """The files of one study (`root`) as a page in the folder `out` sees them."""

    root: Path
    out: Path

    def href(self, path: Path) -> str:
        """Return the link from the page to a file, with forward slashes."""
        return Path(os.path.relpath(path, self.out)).as_posix()

    def inventory_path(self, cohort: str) -> Path:
        """Where the intake of a cohort lies."""
        return self.root / "cohorts" / cohort / "inventory.parquet"

    def accuracy_path(self, test: IndexTest, cohort: str, name: str) -> Path:
        """Where a table of the accuracy step lies, such as ``metrics.csv``."""
        return self.root / "accuracy" / test.folder / cohort / name

    def predictions_path(self, test: IndexTest, cohort: str) -> Path:
        """Where the final predictions for a cohort lie."""
        return self.root / "predictions" / test.folder / cohort / "predictions.parquet"

    def lock_path(self, test: IndexTest) -> Path:
        """Where the locked threshold lies."""
        return self.root / "locked" / test.folder / "threshold.json"

    def split_path(self, protocol: Protocol, name: str) -> Path:
        """Where a file of the split lies, such as ``counts.csv``."""
        return self.root / "splits" / protocol / name

    def training_path(self, test: IndexTest, fold: str, name: str) -> Path:
        """Where a file of one fold's training lies, such as ``history.csv``."""
        return self.root / "training" / test.folder / fold / name

    def store_path(self, cohort: str, colour: str) -> Path:
        """Folder of a cohort's packed pixels."""
        return self.root / "images" / cohort / colour

    def comparison_path(self, protocol: Protocol, cohort: str, name: str) -> Path:
        """Where a table of the comparison of index tests lies, such as ``comparisons.csv``."""
        return self.root / "comparisons" / protocol / cohort / name

    def optimism_path(self, test: IndexTest) -> Path:
        """Where the side-by-side table of the two protocols lies."""
        return self.root / "optimism" / Path(*test.folder.parts[1:]) / "optimism.csv"

    def inventory(self, cohort: str) -> pd.DataFrame:
        """Read a cohort's inventory; raise `UserError` where there is none."""
        path = self.inventory_path(cohort)
        if not path.is_file():
            raise UserError(f"no inventory at {path}: run the intake of cohort {cohort!r} first")
        return pd.read_parquet(path)

    def predictions(self, test: IndexTest, cohort: str, classes: Sequence[str]) -> Predictions:
        """Read the final predictions for a cohort; raise `UserError` where there are none."""
        return read_predictions(self.predictions_path(test, cohort), classes)

    def lock(self, test: IndexTest) -> dict[str, Any]:
        """Read the locked threshold; raise `UserError` where there is none."""
        path = self.lock_path(test)
        if not path.is_file():
            raise UserError(
                f"no locked threshold at {path}: lock it on development data before reporting {test.name}"
            )
        return read_lock(path)

    def folds(self, protocol: Protocol) -> list[str]:
        """Return the names of a protocol's folds, as the split counted them; raise `UserError` where it did not."""
        path = self.split_path(protocol, "counts.csv")
        counts = read_csv(path)
        if counts is None:
            raise UserError(f"no counts of the folds at {path}: divide the development patients first")
        return [str(fold) for fold in counts["fold"].astype(int).drop_duplicates()]

    def accuracy(self, test: IndexTest, cohort: str, name: str) -> pd.DataFrame | None:
        """Read a table of the accuracy step, or None."""
        return read_csv(self.accuracy_path(test, cohort, name))


def images_of(predictions: pd.DataFrame) -> pd.Series:
    """Return the image that each row of a prediction table answers for: ``parent`` of a sample of an image, else the case."""
    return predictions[PARENT if PARENT in predictions else "case_id"]


def read_csv(path: Path) -> pd.DataFrame | None:
    """Read a CSV with its words as they stand and its numbers as float64; None where there is no file or header.

    Only empty fields are missing. ``primary`` becomes a boolean.
    """
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except EmptyDataError:
        return None
    for name in table.columns:
        if name == "primary":
            table[name] = table[name].str.lower().isin(_TRUE)
        elif name not in _WORDS:
            table[name] = _numbers(table[name])
    return table


def _numbers(column: pd.Series) -> pd.Series:
    """Return a column as float64 if every field that is not empty is a number, else as it is."""
    numbers = pd.to_numeric(column.where(column.ne("")), errors="coerce")
    return numbers.astype("float64") if numbers.notna().sum() == column.ne("").sum() else column


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, or None where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
