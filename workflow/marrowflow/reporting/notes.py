"""Footnotes that compact tables have in common: how their intervals were made, and why some are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from marrowflow.reporting import tables

NO_INTERVAL = "no\u00a0interval"

# How many levels of a metric a warning speaks of; the table shows which.
_LEVELS = re.compile(r" \(\d+ rows\)$")
_UNDEFINED = re.compile(r"(\d+) of \d+ replicates are undefined")
# What stands for a class with too few patients: the accuracy step says it of a metric that needs both kinds.
_TOO_FEW, _NEEDS_BOTH = "no clustered interval", "f1"


def compact(row: Mapping[str, Any] | None) -> str:
    """Return ``estimate [numerator/denominator] (low to high)``, an en dash where there is no row.

    Why an interval is missing is said below the table, by `warning_notes`.
    """
    if row is None:
        return "–"
    lacking = row["estimate"] == row["estimate"] and row["low"] != row["low"]
    return f"{tables.estimate(row)} ({NO_INTERVAL})" if lacking else tables.estimate_with_interval(row)


def row_of(rows: pd.DataFrame, **wanted: object) -> dict[str, Any] | None:
    """Return the first row with the wanted values in its columns (``of`` stands for ``class``), or None."""
    chosen = pd.Series(True, index=rows.index)
    for column, value in wanted.items():
        chosen &= rows["class" if column == "of" else column].eq(value)
    found = rows[chosen]
    return None if found.empty else {str(k): v for k, v in found.iloc[0].items()}


def interval_note(rows: pd.DataFrame, titles: Mapping[str, str], confidence: float, noun: str) -> str:
    """Say how the intervals of some rows were made: ``95% intervals: Wilson, effective n.``

    Parameters
    ----------
    rows
        Primary rows with ``metric`` and ``method``; those without an interval are passed over.
    titles
        Names of the metrics; they are named only where the methods differ.
    """
    made = rows[rows["method"].ne("none")]
    if made.empty:
        return "No intervals."
    metrics = {
        method: list(dict.fromkeys(titles.get(metric, metric) for metric in own["metric"]))
        for method, own in made.groupby("method", sort=False)
    }
    parts = [
        tables.method_title(str(method), noun) + (f" for {', '.join(of)}" if len(metrics) > 1 else "")
        for method, of in metrics.items()
    ]
    return f"{confidence:.0%} intervals: {'; '.join(parts)}."


def warning_notes(
    warnings: pd.DataFrame | None, rows: pd.DataFrame, titles: Mapping[str, str], noun: str
) -> list[str]:
    """Return what must be said of a table's numbers, each text once, with the metrics and classes that it is about.

    Parameters
    ----------
    warnings
        ``warnings.csv``.
    rows
        The printed rows, of one endpoint and unit; of a class with too few patients to group, the reason
        stands with the metrics and is repeated.
    titles
        Names of the metrics.
    """
    found: dict[str, dict[str, list[str]]] = {}
    if warnings is None or rows.empty:
        return []
    endpoint, unit = str(rows["endpoint"].iloc[0]), str(rows["unit"].iloc[0])
    for key, own in rows.groupby(["metric", "class"], sort=False):
        metric, name = map(str, key)
        texts = [
            text for text in tables.warnings_of(warnings, endpoint, unit, metric, name) if _is_of(text, own)
        ]
        if not texts and own["method"].eq("none").any():
            of_both = tables.warnings_of(warnings, endpoint, unit, _NEEDS_BOTH, name)
            texts = [text for text in of_both if text.startswith(_TOO_FEW)]
        for text in dict.fromkeys(_LEVELS.sub("", t).replace(tables.PATIENTS, noun) for t in texts):
            found.setdefault(text, {}).setdefault(titles.get(metric, metric), []).append(name)
    return [f"{_subjects(about)}: {text}." for text, about in found.items()]


def sentence(text: str) -> str:
    """Begin a text with a capital, but for κ, whose capital is another letter to the eye."""
    return text if text.startswith("κ") else text[0].upper() + text[1:]


def _is_of(text: str, rows: pd.DataFrame) -> bool:
    """Say whether a warning of a metric and class is of these rows, where other rows of the two stand in another table."""
    counted = _UNDEFINED.search(text)
    return counted is None or bool(rows["undefined"].eq(int(counted[1])).any())


def _subjects(about: Mapping[str, Sequence[str]]) -> str:
    """Return ``slope, intercept (AML, ALL); ECE (AML)`` of metrics and their classes."""
    together: dict[str, list[str]] = {}
    for metric, names in about.items():
        together.setdefault(", ".join(name for name in names if name), []).append(metric)
    parts = [", ".join(metrics) + (f" ({names})" if names else "") for names, metrics in together.items()]
    return sentence("; ".join(parts))
