"""Hospitals under one another: each one's accuracy, their random-effects summary, and where another is expected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.cohorts.table import Cohort
from marrowflow.reporting import drawing, page, tables
from marrowflow.reporting.accuracy_figures import short
from marrowflow.reporting.forest import Estimate, Summary, forest
from marrowflow.reporting.notes import interval_note, sentence
from marrowflow.reporting.reporter import Reporter, endpoint_title, leaky_suffix, missing, stem, unit_title
from marrowflow.reporting.results import DEVELOPMENT, IndexTest
from marrowflow.reporting.tables import Table

_WORDS = {"endpoint", "metric", "class", "unit", "kind", "cohort", "method", "reason"}


def pooled_blocks(reporter: Reporter, test: IndexTest, external: Sequence[Cohort]) -> list[page.Block]:
    """Draw a forest plot a metric of the primary endpoint, over all hospitals, and tabulate every endpoint's.

    Of fewer than three hospitals there is no summary, and a sentence says so.
    """
    path = reporter.results.root / "pooled" / test.protocol / "pooled.csv"
    table = read_table(path, _WORDS)
    if table is None:
        return [missing(path, reporter.results)]
    names = {DEVELOPMENT: "Development", **{cohort.name: cohort.hospital for cohort in external}}
    if not external:
        return [page.Text(["No external hospital in the cohort table."])]
    sources = reporter.sources(path)
    first = table[table["endpoint"].eq(reporter.endpoints[0])]
    figures = [
        _figure(reporter, test, own, names, sources)
        for _, own in first.groupby(["metric", "class"], sort=False)
    ]
    return [
        *_few(table, sources),
        page.Figures(figures),
        *(_table(reporter, test, own, names, sources) for _, own in table.groupby("endpoint", sort=False)),
    ]


def read_table(path: Path, words: set[str]) -> pd.DataFrame | None:
    """Read a CSV of which some columns are words, whatever they look like, and the others numbers; None without a file."""
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.assign(
        **{str(name): pd.to_numeric(table[name]).astype("float64") for name in table if name not in words}
    )


def _few(table: pd.DataFrame, sources: Mapping[str, str]) -> list[page.Block]:
    """Say that nothing is pooled where no metric is."""
    if table["kind"].eq("summary").any():
        return []
    words = f"The hospitals’ results stand side by side, and are not summarised. {_why(table).capitalize()}."
    return [page.Text([words.removesuffix(" .")], "note", sources)]


def _figure(
    reporter: Reporter,
    test: IndexTest,
    rows: pd.DataFrame,
    names: Mapping[str, str],
    sources: Mapping[str, str],
) -> page.Figure:
    """Draw one metric: development above a line, hospitals and their summary below it."""
    records = rows.to_dict("records")
    endpoint, metric = records[0]["endpoint"], tables.metric_title(records[0]["metric"], records[0]["class"])
    estimates = {
        kind: [_estimate(row, names, reporter) for row in records if row["kind"] == kind]
        for kind in (DEVELOPMENT, "hospital", "summary")
    }
    noun = reporter.common_noun(names)
    confidence = f"{reporter.options.accuracy.confidence:.0%}"
    title = f"{sentence(metric)} by hospital: {endpoint_title(reporter.options, endpoint)}"
    about = [f"{test.name}, {unit_title(reporter.unit, noun)}, {confidence} intervals"]
    if estimates["summary"]:
        about.append(
            f"diamond: random-effects mean; bar through it: {confidence} prediction interval, where another hospital is "
            "expected"
        )
    elif why := _why(rows):
        about.append(why)
    subtitle = ". ".join(["; ".join(about), *(text.rstrip(".") for text in reporter.common_remarks(names))])
    groups = {
        "Development (not pooled)": estimates[DEVELOPMENT],
        "External hospitals": [*estimates["hospital"], *estimates["summary"]],
    }
    labels = [
        f"{e.name} ({e.n}) {e.value} {e.reason}".strip() for of_kind in estimates.values() for e in of_kind
    ]
    suffix = [records[0]["class"]] if records[0]["class"] else []
    return reporter.draw(
        forest(groups, title, subtitle, test.leaky),
        stem("pooled", endpoint, records[0]["metric"], *suffix, *leaky_suffix(test)),
        f"{title}. {subtitle}.",
        drawing.alternative_text(title, subtitle, labels),
        sources,
        test.leaky,
    )


def _estimate(row: Mapping[str, Any], names: Mapping[str, str], reporter: Reporter) -> Estimate:
    n = tables.whole(row["n_patients" if reporter.unit == "patient" else "n_cases"])
    made_of = tables.share(row) or f"n = {n}"
    estimate, low, high = (float(row[name]) for name in ("estimate", "low", "high"))
    if row["kind"] == "summary":
        predicted = (float(row["predicted_low"]), float(row["predicted_high"]))
        name = f"{row['hospitals']:.0f} hospitals"
        # The units that a proportion was made of, such as the patients with the condition.
        n = n if math.isnan(row["denominator"]) else tables.whole(row["denominator"])
        ahead = f"another hospital: {_limits(row)}"
        return Summary(name, f"n = {n}", short(row), estimate, low, high, ahead, predicted=predicted)
    # Why nothing is pooled is said once for all; here what is of this hospital alone.
    reason = str(row["reason"]) if math.isnan(low) else ""
    return Estimate(names.get(row["cohort"], row["cohort"]), made_of, short(row), estimate, low, high, reason)


def _limits(row: Mapping[str, Any]) -> str:
    """Return the prediction interval."""
    return "\u00a0to\u00a0".join(tables.number(row[f"predicted_{side}"]) for side in ("low", "high"))


def _table(
    reporter: Reporter,
    test: IndexTest,
    rows: pd.DataFrame,
    names: Mapping[str, str],
    sources: Mapping[str, str],
) -> Table:
    """Tabulate an endpoint: metrics by column, hospitals by line, then the summary and what there is to say of it."""
    endpoint = str(rows["endpoint"].iloc[0])
    pairs = list(dict.fromkeys(zip(rows["metric"], rows["class"], strict=True)))
    columns = [rows[rows["metric"].eq(metric) & rows["class"].eq(name)] for metric, name in pairs]
    body = []
    for cohort, who in names.items():
        cells = [own[own["cohort"].eq(cohort)].to_dict("records") for own in columns]
        n = next((row["n_patients"] for cell in cells for row in cell), float("nan"))
        body.append([who, tables.whole(n), *(_cell(row[0]) if row else "–" for row in cells)])
    summaries = [own[own["kind"].eq("summary")].to_dict("records") for own in columns]
    if any(summaries):
        n = max(row["n_patients"] for cell in summaries for row in cell)
        for what, words in _SUMMARY.items():
            body.append(
                [
                    what,
                    tables.whole(n) if what == _MEAN else "",
                    *(words(cell[0]) if cell else "–" for cell in summaries),
                ]
            )
    noun = reporter.common_noun(names)
    confidence = reporter.options.accuracy.confidence
    own_rows = rows[rows["kind"].ne("summary")].assign(primary=True)
    notes = [
        f"Hospitals: {interval_note(own_rows, tables.METRICS, confidence, noun)} In brackets: numerator/denominator; "
        "weight in the mean, where there is one.",
        *_method_notes(rows, confidence),
        *reporter.common_remarks(names),
        *_not_pooled(rows, names),
    ]
    header = ["data", noun, *(tables.metric_title(*pair) for pair in pairs)]
    title = f"{test.name}, {endpoint}, {unit_title(reporter.unit, noun)}: hospitals{' and their summary' if rows['kind'].eq('summary').any() else ''}"
    return Table(title, header, body, [1], notes, sources, test.leaky)


def _cell(row: Mapping[str, Any]) -> str:
    shown = tables.estimate_with_interval(row, ["see below"])
    return shown if math.isnan(row["weight"]) else f"{shown}; weight\u00a0{row['weight']:.0%}"


_MEAN = "random-effects mean"
_SUMMARY = {
    _MEAN: short,
    "prediction interval": _limits,
    "I²": lambda row: f"{row['i2']:.0%}",
    "τ² (logit scale)": lambda row: tables.number(row["tau2"]),
}


def _method_notes(rows: pd.DataFrame, confidence: float) -> list[str]:
    if not rows["kind"].eq("summary").any():
        return [f"No summary. {_why(rows).capitalize()}.".removesuffix(" .")]
    return [
        f"Random-effects mean over hospitals on the logit scale: variance between hospitals by REML, {confidence:.0%} interval by "
        "Hartung and Knapp, never narrower than sampling error alone. Development is not part of it.",
        f"Prediction interval: where the value of another hospital of this kind is expected with {confidence:.0%}; of few "
        "hospitals it is wide, or a rough guess. I²: share of the variance that lies between hospitals.",
    ]


def _why(rows: pd.DataFrame) -> str:
    """Return why nothing was pooled, as the file says it of hospitals that have an interval."""
    reasons = rows.loc[rows["kind"].eq("hospital") & rows["low"].notna(), "reason"]
    return str(reasons.iloc[0]) if len(reasons) else ""


def _not_pooled(rows: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """Say which hospitals lack an interval and so are not part of a summary."""
    lacking = rows[rows["kind"].eq("hospital") & rows["low"].isna()]
    found: dict[str, list[str]] = {}
    for row in lacking.to_dict("records"):
        metric = tables.metric_title(row["metric"], row["class"])
        found.setdefault(metric, []).append(names.get(row["cohort"], row["cohort"]))
    return [f"{metric}: no interval, and so not pooled: {', '.join(who)}." for metric, who in found.items()]
