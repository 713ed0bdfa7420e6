"""The temperatures of an index test: fitted on one table of raw predictions, applied to another.

Class probabilities have one temperature, and each endpoint that the index test answers by itself (``endpoint_<name>``) has
its own, as each is fitted on a truth of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from marrowflow.choices.temperature import (
    apply_logit_temperature,
    apply_temperature,
    fit_logit_temperature,
    fit_temperature,
)
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.predictions import ENDPOINT, PROBABILITY, sums_off

Kind = Literal["softmax", "one_vs_rest"]
"""softmax: a case's class probabilities sum to 1; one_vs_rest: each answers a yes/no question."""

ROW = ["case_id", "fold", "partition"]
"""What tells a row of raw predictions from all others."""

# Networks' own probabilities, before they are stored anywhere, sum to 1 but for rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Scale:
    """Temperatures; None where none was fitted, which leaves probabilities as they are.

    Attributes
    ----------
    kind
        Of the class probabilities.
    classes
        Their temperature.
    heads
        That of each endpoint with a probability of its own.
    """

    kind: Kind
    classes: float | None
    heads: dict[str, float | None]


def kind_of(table: pd.DataFrame, classes: Sequence[str]) -> Kind:
    """Tell from raw class probabilities whether they are answers to one question or to one question each."""
    off = sums_off(answered(table), [PROBABILITY + name for name in classes], _ROUNDING)
    return "one_vs_rest" if len(off) else "softmax"


def answered(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have an answer: a slide without a tile has none, and no probabilities."""
    return table[_done(table)]


def _done(table: pd.DataFrame) -> np.ndarray:
    return table["status"].eq("ok").to_numpy() if "status" in table else np.ones(len(table), bool)


def heads_of(table: pd.DataFrame) -> list[str]:
    """Return the endpoints that have a probability of their own, in the order of the columns."""
    return [c.removeprefix(ENDPOINT) for c in table if c.startswith(ENDPOINT)]


def fit_scale(
    table: pd.DataFrame, classes: Sequence[str], heads: Mapping[str, Sequence[str]], kind: Kind
) -> Scale:
    """Fit all temperatures on cases with a truth; one-vs-rest class probabilities share one.

    Parameters
    ----------
    table
        At least one row, all with a truth and probabilities.
    classes
        Names in order.
    heads
        Positive classes of each endpoint with a column of its own.
    kind
        Of the class probabilities.
    """
    truth = table["truth"].to_numpy(dtype=object)
    p = table[[PROBABILITY + name for name in classes]].to_numpy(np.float64)
    own = truth[:, None] == np.asarray(classes, dtype=object)
    if kind == "softmax":
        of_classes = fit_temperature(p, own.argmax(axis=1))
    else:
        of_classes = fit_logit_temperature(p, own)
    return Scale(
        kind,
        of_classes,
        {
            name: fit_logit_temperature(table[ENDPOINT + name], np.isin(truth, positive))
            for name, positive in heads.items()
        },
    )


def rescaled(table: pd.DataFrame, scale: Scale, classes: Sequence[str]) -> pd.DataFrame:
    """Return the table with its probabilities at their temperatures, and ``predicted``: the class with the largest.

    Rows without an answer stay as they are.
    """
    table = table.copy()
    columns = [PROBABILITY + name for name in classes]
    rows = _done(table)
    p = table.loc[rows, columns].to_numpy(np.float64)
    # Before rescaling, which keeps the order, but may round two probabilities near 0 or 1 to one.
    table.loc[rows, "predicted"] = np.asarray(classes, dtype=object)[p.argmax(axis=1)]
    table.loc[rows, columns] = _at(p, scale.classes, scale.kind)
    for name, temperature in scale.heads.items():
        own = ENDPOINT + name
        table.loc[rows, own] = _at(table.loc[rows, own], temperature, "one_vs_rest")
    return table


def uncalibrated(raw: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return raw predictions as they are, with ``predicted`` as in `rescaled`: what calibration is shown beside.

    Rows, their order and ``predicted`` are those of the calibrated table; no cut-off belongs to these probabilities.
    """
    return rescaled(raw, Scale(kind_of(raw, classes), None, dict.fromkeys(heads_of(raw))), classes)


def finished(raw: pd.DataFrame, lock: dict[str, Any], classes: Sequence[str]) -> pd.DataFrame:
    """Apply a lock to raw predictions of other hospitals; nothing is fitted.

    Parameters
    ----------
    raw
        Prediction table with uncalibrated ``p_<class>``, and ``endpoint_<name>`` of the endpoints with heads.
    lock
        Of `read_lock`.
    classes
        The study's classes in order.

    Returns
    -------
    DataFrame
        The table with probabilities at the locked temperatures, and ``predicted``.

    Raises
    ------
    UserError
        The lock is of another index test, of other classes, of other heads, or of another kind of probabilities.
    """
    found: dict[str, Any] = {
        "classes": list(classes),
        "index_test": ", ".join(sorted(set(raw["index_test"]))),
        "heads": sorted(heads_of(raw)),
    }
    locked = {**lock, "heads": sorted(lock["calibration"]["heads"])}
    for name, ours in found.items():
        if locked[name] != ours:
            raise UserError(
                f"--lock was fixed for {name} {locked[name]!r}, not {ours!r}; give this index test's own"
            )
    calibration = lock["calibration"]
    # Not the reverse: one-vs-rest probabilities that all are near 0 or 1 may sum to 1.
    if calibration["kind"] == "softmax" and kind_of(raw, classes) == "one_vs_rest":
        raise UserError(
            "--lock was fixed for class probabilities that sum to 1, and these do not (one-vs-rest networks); give this "
            "index test's own"
        )
    heads = {name: head["temperature"] for name, head in calibration["heads"].items()}
    return rescaled(raw, Scale(calibration["kind"], calibration["temperature"], heads), classes)


def refuse_repeats(raw: pd.DataFrame, name: str) -> None:
    """Refuse a table of raw predictions in which a network answers twice for a case; ``name`` is what the error calls it.

    Raises
    ------
    UserError
        Two rows of one case, fold and partition.
    """
    repeated = raw[raw.duplicated(ROW)].drop_duplicates(ROW)
    if len(repeated):
        raise UserError(
            enumerate_problems(
                f"{name} holds several rows of one case, fold and partition; predict again:",
                [
                    f"case {case!r} (fold {fold}, {partition})"
                    for case, fold, partition in repeated[ROW].itertuples(index=False)
                ],
            )
        )


def _at(probabilities: ArrayLike, temperature: float | None, kind: Kind) -> np.ndarray:
    """Return probabilities (float64, same shape) at a temperature; None, where none was fitted, leaves them."""
    if temperature is None:
        return np.asarray(probabilities, dtype=np.float64)
    apply = apply_temperature if kind == "softmax" else apply_logit_temperature
    return apply(probabilities, temperature)
