"""Results at a glance: the primary index test on development data and at every external hospital."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from marrowflow.cohorts.table import Cohort
from marrowflow.files import write_table
from marrowflow.reporting import drawing, page, tables
from marrowflow.reporting.accuracy_figures import short
from marrowflow.reporting.forest import Estimate, forest
from marrowflow.reporting.locked import fitting_statement
from marrowflow.reporting.reporter import Reporter, endpoint_title, leaky_suffix, stem, unit_title
from marrowflow.reporting.results import DEVELOPMENT, IndexTest


def glance_blocks(reporter: Reporter, test: IndexTest, external: Sequence[Cohort]) -> list[page.Block]:
    """Compare development and hospitals: forest plot of the primary endpoint, a table of each endpoint."""
    results, unit = reporter.results, reporter.unit
    names = {DEVELOPMENT: "Development", **{c.name: c.hospital for c in external}}
    metrics = {name: results.accuracy(test, name, "metrics.csv") for name in names}
    warnings = {name: results.accuracy(test, name, "warnings.csv") for name in names}
    sources = {
        f"metrics.csv of {name}": results.href(results.accuracy_path(test, name, "metrics.csv"))
        for name in names
    }
    noun = reporter.common_noun(names)
    nouns = {title: reporter.noun(name) for name, title in names.items()}
    warned = {title: warnings[name] for name, title in names.items()}
    fitting = [fitting_statement(results.lock(test))]
    blocks: list[page.Block] = [
        tables.comparison_table(
            {title: (metrics[name], warnings[name]) for name, title in names.items()},
            "data",
            endpoint,
            unit,
            f"{test.name}, {endpoint}, {unit_title(unit, noun)}: estimate ({reporter.options.accuracy.confidence:.0%} interval)",
            sources,
            [
                *(fitting if endpoint in reporter.options.endpoints else []),
                *reporter.common_remarks(names),
                *tables.comparison_warnings(warned, endpoint, unit, nouns),
            ],
            test.leaky,
            noun,
        )
        for endpoint in reporter.endpoints
    ]
    return [_forest(reporter, test, names, metrics, warnings), *blocks]


def _forest(
    reporter: Reporter,
    test: IndexTest,
    names: dict[str, str],
    metrics: dict[str, pd.DataFrame | None],
    warnings: dict[str, pd.DataFrame | None],
) -> page.Figure:
    endpoint, unit = reporter.endpoints[0], reporter.unit
    panels: dict[str, list[Estimate]] = {}
    records = []
    for metric, of in tables.headline(endpoint):
        title = tables.metric_title(metric, of)
        for name, who in names.items():
            row = tables.primary_row(metrics[name], endpoint, unit, metric, of)
            value = {k: float(row[k]) if row else float("nan") for k in ("estimate", "low", "high")}
            n = tables.whole(row["n_patients" if unit == "patient" else "n_cases"]) if row else tables.MISSING
            made_of = (tables.share(row) if row else "") or f"n = {n}"
            lacking = value["low"] != value["low"] or value["high"] != value["high"]
            why = tables.warnings_of(warnings[name], endpoint, unit, metric, of) if row and lacking else []
            reason = "; ".join(why).replace(tables.PATIENTS, reporter.noun(name))
            estimate = Estimate(who, made_of, short(row), **value, reason=reason)
            panels.setdefault(title, []).append(estimate)
            records.append({"cohort": name, "metric": metric, "class": of, "of": made_of, **value})
    file = stem("forest", *leaky_suffix(test))
    path = reporter.folder / f"{file}.csv"
    write_table(path, pd.DataFrame(records))
    title = f"Accuracy by hospital: {endpoint_title(reporter.options, endpoint)}"
    noun = reporter.common_noun(names)
    counted = noun if unit == "patient" else "images"
    remarks = reporter.common_remarks(names)
    subtitle = ". ".join(
        [
            f"{test.name}, {unit_title(unit, noun)}, {reporter.options.accuracy.confidence:.0%} intervals; "
            f"in parentheses: {counted} (numerator/denominator, or n)",
            *(text.rstrip(".") for text in remarks),
        ]
    )
    labels = [f"{metric}: {e.name} ({e.n}) {e.value}" for metric, rows in panels.items() for e in rows]
    return reporter.draw(
        forest(panels, title, subtitle, test.leaky),
        file,
        f"{title}. {subtitle}.",
        drawing.alternative_text(title, subtitle, labels),
        reporter.sources(path),
        test.leaky,
    )
