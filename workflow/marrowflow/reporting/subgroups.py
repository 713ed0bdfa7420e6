"""Accuracy in subgroups of patients: a forest plot of the primary endpoint, and the table of every endpoint, folded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from marrowflow.config import CLASSES, Subgroups
from marrowflow.reporting import drawing, page, tables
from marrowflow.reporting.accuracy_figures import short
from marrowflow.reporting.forest import Estimate, forest
from marrowflow.reporting.notes import compact, interval_note, sentence
from marrowflow.reporting.pooled import read_table
from marrowflow.reporting.reporter import Reporter, endpoint_title, leaky_suffix, missing, stem, unit_title
from marrowflow.reporting.results import IndexTest
from marrowflow.reporting.tables import Table

_WORDS = {"variable", "group", "endpoint", "metric", "class", "unit", "method", "suppressed"}

# Variables and groups as the file calls them.
_ALL, _AGE, _FOCUS = "all", "age", "focus"
_SEVERAL = "several values"
_TITLES = {_AGE: "age in years", _FOCUS: "image quality (mean focus)", _ALL: ""}
_GROUPS = {"missing": "not recorded", "contradictory": _SEVERAL}
_DRAWN = {CLASSES: (("accuracy", ""), ("auc", "macro"))}
_DRAWN_YES_NO = (("auc", ""), ("sensitivity", ""), ("specificity", ""))


def subgroup_blocks(
    reporter: Reporter, test: IndexTest, cohort: str, who: str, settings: Subgroups
) -> list[page.Block]:
    """Draw the primary endpoint in every subgroup, and tabulate all endpoints.

    Parameters
    ----------
    reporter, test
        The primary index test under a protocol.
    cohort, who
        ``development`` or an external cohort, and what pages call it.
    settings
        Which groups were asked for.
    """
    path = reporter.results.root / "subgroups" / test.protocol / cohort / "subgroups.csv"
    table = read_table(path, _WORDS)
    if table is None:
        return [missing(path, reporter.results)]
    sources = reporter.sources(path)
    lacking = [name for name in _asked(settings) if name not in set(table["variable"])]
    absent = (
        [
            page.Text(
                [f"Not recorded of any patient: {', '.join(_title(n) for n in lacking)}."], sources=sources
            )
        ]
        if lacking
        else []
    )
    if set(table["variable"]) == {_ALL}:
        return [page.Text(["No subgroup can be formed."], sources=sources), *absent]
    endpoint = reporter.endpoints[0]
    own = table[table["endpoint"].eq(endpoint)]
    figures = [
        _figure(reporter, test, cohort, who, own, pair, settings, sources)
        for pair in _DRAWN.get(endpoint, _DRAWN_YES_NO)
    ]
    tabulated = [
        _table(reporter, test, cohort, who, table[table["endpoint"].eq(name)], settings, sources)
        for name in reporter.endpoints
    ]
    groups = len(table[["variable", "group"]].drop_duplicates()) - 1
    return [page.Figures(figures), *absent, page.Folded(f"All metrics of the {groups} subgroups", tabulated)]


def _asked(settings: Subgroups) -> list[str]:
    return [
        *settings.columns,
        *([_AGE] if settings.age_bands else []),
        *([_FOCUS] if settings.quality else []),
    ]


def _title(variable: str) -> str:
    return _TITLES.get(variable, variable)


def _figure(
    reporter: Reporter,
    test: IndexTest,
    cohort: str,
    who: str,
    rows: pd.DataFrame,
    pair: tuple[str, str],
    settings: Subgroups,
    sources: Mapping[str, str],
) -> page.Figure:
    """Draw one metric in all groups, with a line at that of all patients."""
    metric, of = pair
    rows = rows[rows["metric"].eq(metric) & rows["class"].eq(of)]
    noun, endpoint = reporter.noun(cohort), reporter.endpoints[0]
    groups: dict[str, list[Estimate]] = {}
    for row in rows.to_dict("records"):
        name = "Overall" if row["variable"] == _ALL else sentence(_title(row["variable"]))
        groups.setdefault(name, []).append(_estimate(row, reporter, noun, settings))
    whole = rows.loc[rows["variable"].eq(_ALL), "estimate"]
    title = f"{sentence(tables.metric_title(metric, of))} in subgroups: {endpoint_title(reporter.options, endpoint)}"
    subtitle = ". ".join(
        [
            f"{who}, {test.name}, {unit_title(reporter.unit, noun)}, {reporter.options.accuracy.confidence:.0%} intervals; "
            f"dashed: all {noun}; groups of fewer than {settings.min_patients} {noun} are suppressed",
            *(text.rstrip(".") for text in reporter.remarks(cohort)),
        ]
    )
    labels = [f"{heading} {e.name} ({e.n}) {e.value}" for heading, group in groups.items() for e in group]
    return reporter.draw(
        forest(groups, title, subtitle, test.leaky, float(whole.iloc[0]) if len(whole) else math.nan),
        stem("subgroups", cohort, endpoint, metric, *([of] if of else []), *leaky_suffix(test)),
        f"{title}. {subtitle}.",
        drawing.alternative_text(title, subtitle, labels),
        sources,
        test.leaky,
    )


def _estimate(row: Mapping[str, Any], reporter: Reporter, noun: str, settings: Subgroups) -> Estimate:
    n = tables.whole(row["n_patients" if reporter.unit == "patient" else "n_cases"])
    made_of = tables.share(row) or f"n = {n}"
    estimate, low, high = (float(row[name]) for name in ("estimate", "low", "high"))
    few = row["n_patients"] < settings.min_patients
    reason = "" if few else row["suppressed"].replace(tables.PATIENTS, noun)
    value = short(row) if estimate == estimate else "suppressed" if few else "–"
    return Estimate(_group(row["group"]), made_of, value, estimate, low, high, reason)


def _group(name: str) -> str:
    return _GROUPS.get(name, name)


def _table(
    reporter: Reporter,
    test: IndexTest,
    cohort: str,
    who: str,
    rows: pd.DataFrame,
    settings: Subgroups,
    sources: Mapping[str, str],
) -> Table:
    """Tabulate an endpoint: groups by line, metrics by column; why a cell is empty stands below."""
    noun, endpoint = reporter.noun(cohort), str(rows["endpoint"].iloc[0])
    pairs = list(dict.fromkeys(zip(rows["metric"], rows["class"], strict=True)))
    body = []
    for (variable, group), own in rows.groupby(["variable", "group"], sort=False):
        first = own.iloc[0]
        name = f"all {noun}" if variable == _ALL else f"{_title(variable)}: {_group(group)}"
        counts = [tables.whole(first["n_patients"]), tables.whole(first["n_cases"])]
        if endpoint != CLASSES:
            counts.append(f"{tables.whole(first['n_present'])} / {tables.whole(first['n_absent'])}")
        body.append([name, *counts, *(_cell(row) for row in own.to_dict("records"))])
    counted = noun if reporter.unit == "patient" else "images"
    sides = [] if endpoint == CLASSES else ["with / without the condition"]
    header = ["subgroup", noun, "images", *sides, *(tables.metric_title(*pair) for pair in pairs)]
    notes = [
        *reporter.remarks(cohort),
        f"A group is a property of the {tables.one_of(noun)}: the value of the included images, “{_SEVERAL}” where "
        f"these differ; image quality is the mean focus of the images, in thirds of the development {noun}.",
        f"–: suppressed, because fewer than {settings.min_patients} {noun} were counted, or because a group without the "
        "condition, or of nobody else, says nothing of the metric; the file gives each reason.",
        f"In brackets: numerator/denominator, in {counted}. "
        + interval_note(rows, tables.METRICS, reporter.options.accuracy.confidence, noun),
        "Subgroups are described, not compared: of many groups some differ by chance, and intervals of small ones are wide.",
    ]
    title = f"{who}: subgroups, {endpoint}, {unit_title(reporter.unit, noun)}"
    return Table(title, header, body, [1, 2], notes, sources, test.leaky)


def _cell(row: Mapping[str, Any]) -> str:
    return "–" if math.isnan(row["estimate"]) else compact(row)
