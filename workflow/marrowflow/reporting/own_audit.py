"""The arithmetic audit of our own tables: every proportion against its counts, and against the cross-tabulation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from marrowflow.config import CLASSES
from marrowflow.reporting import tables
from marrowflow.reporting.results import read_csv
from marrowflow.statistics.attainable import counts_of, printed

_NO_ANSWER = ("indeterminate", "not_done")
_NO_REFERENCE = ("missing", "inconclusive")
_COLUMNS = (
    *("endpoint", "unit", "metric", "class", "method", "primary", "estimate", "low", "high"),
    *("n_cases", "n_patients", "numerator", "denominator"),
)
_CLOSE = 1e-9


def audit_accuracy(path: Path) -> tuple[list[str], int]:
    """Check one ``metrics.csv`` with the ``confusion.csv`` beside it.

    Checked are: numerator and denominator are whole and give the estimate; the number as the reports print it can come from
    that denominator; the estimate lies in its closed-form interval; no more patients than cases; numerators and
    denominators are the sums of the cross-tabulation's cells.

    Returns
    -------
    problems, checked
        A sentence for each thing that is wrong, and how many rows were checked.
    """
    metrics, confusion = read_csv(path), read_csv(path.with_name("confusion.csv"))
    if metrics is None or confusion is None:
        return [f"{'metrics.csv' if metrics is None else 'confusion.csv'} is missing or empty"], 0
    lacking = [name for name in _COLUMNS if name not in metrics]
    if lacking:
        return [f"metrics.csv has no column {lacking[0]}"], 0
    problems, checked = [], 0
    for row in metrics.to_dict("records"):
        checked += 1
        problems += [f"{_place(row)}: {text}" for text in _row_problems(row)]
    proportions = metrics[metrics["primary"] & metrics["denominator"].notna()]
    for (endpoint, unit), rows in proportions.groupby(["endpoint", "unit"], sort=False):
        counted = confusion[confusion["endpoint"].eq(endpoint) & confusion["unit"].eq(unit)]
        if counted.empty:
            problems.append(f"{endpoint} {unit}: not cross-tabulated")
            continue
        expected = dict(_expected(counted, str(endpoint), rows))
        for row in rows.to_dict("records"):
            own = expected.get((row["metric"], row["class"]))
            found = (int(row["numerator"]), int(row["denominator"]))
            if own is not None:
                checked += 1
                if own != found:
                    problems.append(
                        f"{_place(row)}: {found[0]}/{found[1]} here, and {own[0]}/{own[1]} by the cross-tabulation"
                    )
    return problems, checked


def _place(row: dict[str, object]) -> str:
    return " ".join(str(row[c]) for c in ("endpoint", "unit", "metric", "class", "method") if row[c] != "")


def _row_problems(row: dict[str, float]) -> Iterator[str]:
    if row["n_patients"] > row["n_cases"]:
        yield f"{row['n_patients']:g} patients of {row['n_cases']:g} cases"
    k, n, estimate = row["numerator"], row["denominator"], row["estimate"]
    if n != n:
        return
    if k != int(k) or n != int(n) or not 0 <= k <= n:
        yield f"{k:g}/{n:g} is no share of whole units"
        return
    if n == 0:
        return
    if abs(estimate - k / n) > _CLOSE:
        yield f"{estimate} is not {k:g}/{n:g}"
    shown = tables.number(estimate)
    if int(k) not in counts_of(printed(shown), int(n)):
        yield f"{shown}, as it is printed, is not {k:g}/{n:g}"
    low, high = row["low"], row["high"]
    if (
        low == low
        and not str(row["method"]).startswith("bootstrap")
        and not low - _CLOSE <= estimate <= high + _CLOSE
    ):
        yield f"{estimate} lies outside {low} to {high}"


def _expected(
    counted: pd.DataFrame, endpoint: str, rows: pd.DataFrame
) -> Iterator[tuple[tuple[str, str], tuple[int, int]]]:
    """Yield (metric, class) and numerator and denominator of it, as the cross-tabulation has them."""
    usable = counted[~counted["truth"].isin(_NO_REFERENCE) & ~counted["predicted"].isin(_NO_ANSWER)]
    cells = usable.pivot_table(index="truth", columns="predicted", values="n", aggfunc="sum", sort=False)
    total = int(cells.to_numpy().sum())
    if endpoint != CLASSES:
        yield from _expected_of_two(cells, total, rows)
        return
    hits = {name: int(cells.loc[name, name]) for name in cells.index}
    yield ("accuracy", ""), (sum(hits.values()), total)
    for name, hit in hits.items():
        truly, said = int(cells.loc[name].sum()), int(cells[name].sum())
        yield ("sensitivity", name), (hit, truly)
        yield ("ppv", name), (hit, said)
        yield ("specificity", name), (total - truly - said + hit, total - truly)
        yield ("npv", name), (total - truly - said + hit, total - said)


def _expected_of_two(
    cells: pd.DataFrame, total: int, rows: pd.DataFrame
) -> Iterator[tuple[tuple[str, str], tuple[int, int]]]:
    """Which classes are positive does not stand in the table: sensitivity's denominator says how many units are."""
    own = rows[rows["class"].eq("")].set_index("metric")
    if not {"sensitivity", "specificity"} <= set(own.index):
        return
    tp, present = (int(own.loc["sensitivity", name]) for name in ("numerator", "denominator"))
    said = {name: int(cells[name].sum()) if name in cells else 0 for name in ("positive", "negative")}
    tn, absent = tp + total - present - said["positive"], total - present
    yield ("specificity", ""), (tn, absent)
    yield ("accuracy", ""), (tp + tn, total)
    yield ("ppv", ""), (tp, said["positive"])
    yield ("npv", ""), (tn, said["negative"])
