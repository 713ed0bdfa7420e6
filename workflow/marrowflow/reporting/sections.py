"""The parts that the study's page and each hospital's page have in common.

Each function turns files of the results tree into blocks of a page, and writes the figures and the
numbers behind them into the page's folder ``figures/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from marrowflow.choices.threshold import locked_threshold
from marrowflow.config import CLASSES, LEAKY, Protocol
from marrowflow.files import write_json, write_table
from marrowflow.prediction_columns import PARENT
from marrowflow.predictions import ENSEMBLE, NO_REFERENCE
from marrowflow.reporting import drawing, figures, page, tables
from marrowflow.reporting.accuracy_figures import Asked, Drawing, endpoint_drawings
from marrowflow.reporting.flow import Flow, crosstab_notes, draw, reason_table, trace
from marrowflow.reporting.measures import Beside, measure_blocks, three_analyses
from marrowflow.reporting.reporter import (
    SURROGATE,
    Reporter,
    endpoint_title,
    leaky_suffix,
    missing,
    n_text,
    stem,
    surrogate_cohorts,
    unit_title,
)
from marrowflow.reporting.results import DEVELOPMENT, IndexTest

NO_ANSWER = ("indeterminate", "not_done")
"""Columns of the confusion table that are no class."""

_WIDE = 760.0  # pixels of a flow diagram on a screen or on paper


# Flow and cross-tabulation


def flow_of(reporter: Reporter, test: IndexTest, cohort: str, development: bool) -> Flow:
    """Trace one cohort through the study with an index test's primary endpoint."""
    results = reporter.results
    folder = DEVELOPMENT if development else cohort
    table = results.predictions(test, folder, reporter.options.classes).table
    untested = "not in a test set of any fold" if development else "no prediction"
    return trace(
        results.inventory(cohort), table[table["cohort"].eq(cohort)], reporter.question(test), untested
    )


def development_footnote(reporter: Reporter, test: IndexTest, cohort: str) -> str:
    """Say how development images were answered where not each by the network that did not see it; maybe empty."""
    table = reporter.results.predictions(test, DEVELOPMENT, reporter.options.classes).table
    return " ".join(
        filter(None, [_sample_footnote(table), _ensemble_footnote(reporter, test, cohort, table)])
    )


def _sample_footnote(table: pd.DataFrame) -> str:
    """Say when an image counts as tested of which samples were divided; empty where images were."""
    if PARENT not in table:
        return ""
    return (
        "Augmented images were divided and tested: an image counts as tested where any of those made of it was, and its "
        "answer is their mean."
    )


def _ensemble_footnote(reporter: Reporter, test: IndexTest, cohort: str, table: pd.DataFrame) -> str:
    """Say who answered for development cases without a reference standard; empty where there are none."""
    rows = table["cohort"].eq(cohort) & table["fold"].eq(ENSEMBLE) & table["truth"].isin(NO_REFERENCE)
    if not rows.any():
        return ""
    whose = (
        f" of {', '.join(member.model for member in reporter.members(test))}"
        if reporter.members(test)
        else ""
    )
    return (
        f"The {rows.sum()} images without a usable reference standard were answered by the mean of the networks of "
        f"all folds{whose}."
    )


def flow_blocks(
    reporter: Reporter, test: IndexTest, cohort: str, hospital: str, flow: Flow, footnote: str = ""
) -> list[page.Block]:
    """Draw the diagram, narrow and wide, write its numbers, and tabulate index test by reference."""
    name = stem("flow", cohort, *leaky_suffix(test))
    title = f"{hospital}: flow of {flow.noun}"
    tree, crosstab = reporter.folder / f"{name}.json", reporter.folder / f"crosstab{name[4:]}.csv"
    write_json(
        tree,
        {
            "cohort": cohort,
            "index_test": test.name,
            "protocol": test.protocol,
            "endpoint": flow.question.name,
            "counted": flow.noun,
            "remarks": list(flow.remarks),
            "flow": flow.root.as_dict(),
        },
    )
    write_table(crosstab, flow.crosstab.rename_axis("index_test").reset_index())
    root = flow.root
    eligible = root["Eligible"]
    alternative = drawing.alternative_text(
        title,
        f"{root.patients} potentially eligible, {root['Excluded'].patients} excluded, {eligible.patients} eligible, "
        f"{eligible['No index test'].patients} without index test",
        [
            *(f"index test {arm.label} {arm.patients}" for arm in eligible["Index test"].boxes),
            *(
                f"{left.label.lower()}, {box.label}: {box.patients} {flow.noun}, {box.images} images"
                for left in (root["Excluded"], eligible["No index test"])
                for box in left.boxes
            ),
        ],
    )
    question = flow.question
    cut = f" at the locked threshold {tables.number(question.threshold)}" if question.positive else ""
    below = "images" if root.smears is None else "smears and images"
    diagram = page.Figure(
        f"{hospital}: flow of {flow.noun} (index test {test.name}, endpoint {question.name}{cut}). "
        f"Counted in {flow.noun}{'' if flow.noun == 'images' else f'; second line: {below}'}. {footnote}".strip(),
        alternative,
        drawing.embedded(draw(flow, leaky=test.leaky), f"{name}_narrow"),
        drawing.save(draw(flow, _WIDE, test.leaky), reporter.folder, name),
        reporter.sources(tree, reporter.results.inventory_path(cohort)),
        test.leaky,
    )
    table = tables.crosstab_table(
        flow.crosstab,
        bool(question.positive),
        flow.noun,
        f"{hospital}: index test {test.name} by reference standard, endpoint {question.name}",
        reporter.sources(crosstab),
        test.leaky,
    )
    table = replace(table, notes=[*table.notes, *crosstab_notes(flow)])
    every = reason_table(flow, f"{hospital}: every reason", reporter.sources(tree), test.leaky)
    return [diagram, *([page.Folded("Every reason", [every])] if every else []), table]


# Accuracy


def accuracy_sections(
    reporter: Reporter, test: IndexTest, cohort: str, who: str, anchor: str
) -> list[page.Section]:
    """Return one section an endpoint: its metrics in every unit, its figures in the primary unit."""
    results = reporter.results
    metrics = results.accuracy(test, cohort, "metrics.csv")
    if metrics is None:
        return [
            page.Section(
                "Accuracy",
                anchor,
                [missing(results.accuracy_path(test, cohort, "metrics.csv"), results)],
                leaky=test.leaky,
            )
        ]
    warnings = results.accuracy(test, cohort, "warnings.csv")
    sources = reporter.sources(
        *(results.accuracy_path(test, cohort, n) for n in ("metrics.csv", "warnings.csv"))
    )
    sections = []
    for endpoint in reporter.endpoints:
        blocks: list[page.Block] = [
            tables.metrics_table(
                metrics,
                warnings,
                endpoint,
                unit,
                reporter.options.classes,
                f"{who}: {endpoint}, {unit_title(unit, reporter.noun(cohort))}",
                reporter.options.accuracy.confidence,
                sources,
                test.leaky,
                reporter.remarks(cohort),
                reporter.noun(cohort),
            )
            for unit in reporter.options.units
        ]
        asked = _asked(reporter, test, cohort, who, endpoint, metrics)
        blocks += endpoint_figures(reporter, test, cohort, who, asked)
        blocks += _beside(reporter, test, cohort, who, asked, warnings)
        # A file that is not there may be wanted by a figure and by a table.
        lost = list(dict.fromkeys(asked.lost))
        blocks += [page.Text(lost, "warning")] if lost else []
        title = f"Endpoint {endpoint_title(reporter.options, endpoint)}"
        sections.append(page.Section(title, f"{anchor}-{endpoint}", blocks, leaky=test.leaky))
    return sections


def _asked(
    reporter: Reporter, test: IndexTest, cohort: str, who: str, endpoint: str, metrics: pd.DataFrame
) -> Asked:
    """Return what is drawn and tabulated of an endpoint, in the primary unit."""
    unit, noun, options = reporter.unit, reporter.noun(cohort), reporter.options
    return Asked(
        endpoint,
        unit,
        options.classes if endpoint == CLASSES else ("",),
        endpoint_title(options, endpoint),
        f"{who}, {test.name}, {n_text(metrics, endpoint, unit, noun)}",
        noun if unit == "patient" else "images",
        _cutoff(reporter, test, endpoint),
        options.accuracy.confidence,
        metrics,
        lambda name: reporter.results.accuracy(test, cohort, name),
        test.leaky,
    )


def endpoint_figures(
    reporter: Reporter, test: IndexTest, cohort: str, who: str, asked: Asked
) -> list[page.Block]:
    """Draw an endpoint's curves and cross-tabulate it; what could not be drawn is noted in ``asked.lost``."""

    def sources(files: Iterable[str]) -> dict[str, str]:
        return reporter.sources(*(reporter.results.accuracy_path(test, cohort, name) for name in files))

    def block(made: Drawing) -> page.Figure:
        return reporter.draw(
            made.canvas,
            stem(made.kind, cohort, asked.endpoint, asked.unit, *leaky_suffix(test)),
            f"{made.title}. {asked.subtitle}.",
            made.alternative,
            sources(made.files),
            test.leaky,
        )

    drawn = [block(made) for made in endpoint_drawings(asked)]
    counts = asked.rows("confusion.csv")
    if counts.empty:
        return [page.Figures(drawn)] if drawn else []
    classes = reporter.options.classes
    matrix = confusion_matrix(counts, classes)
    drawn.append(block(_confusion(asked, matrix, classes)))
    table = tables.confusion_table(
        matrix,
        asked.counted,
        f"{who}: confusion matrix, {asked.endpoint}, {unit_title(asked.unit, reporter.noun(cohort))}",
        sources(["confusion.csv"]),
        test.leaky,
    )
    return [page.Figures(drawn), table]


def _beside(
    reporter: Reporter,
    test: IndexTest,
    cohort: str,
    who: str,
    asked: Asked,
    warnings: pd.DataFrame | None,
) -> list[page.Block]:
    """Return the tables that stand beside an endpoint's metrics, in the primary unit."""
    noun, results = reporter.noun(cohort), reporter.results
    beside = Beside(
        asked,
        who,
        noun,
        n_text(asked.metrics, asked.endpoint, asked.unit, noun),
        warnings,
        lambda name: reporter.sources(results.accuracy_path(test, cohort, name)),
    )
    return [*three_analyses(beside), *measure_blocks(beside, "case" in reporter.options.units)]


def _cutoff(reporter: Reporter, test: IndexTest, endpoint: str) -> str:
    """Say what the operating point of an endpoint is."""
    if endpoint == CLASSES:
        return "class with the largest probability"
    positive = reporter.options.endpoints[endpoint].positive
    threshold = locked_threshold(reporter.results.lock(test), endpoint, positive, reporter.unit)
    return f"locked cut-off {tables.number(threshold)}"


def _confusion(asked: Asked, matrix: pd.DataFrame, classes: Sequence[str]) -> Drawing:
    """Draw what accuracy is made of: units with a reference and an answer; the table has the others as well."""
    title = f"Confusion matrix: {asked.question}"
    rows = [t for t in matrix.index if t in classes]
    square = matrix.loc[rows, [a for a in matrix.columns if a not in NO_ANSWER]]
    words = [
        f"reference {truth}: {', '.join(f'{n} {answer}' for answer, n in row.items())}"
        for truth, row in square.iterrows()
    ]
    return Drawing(
        "confusion",
        figures.confusion(square, title, asked.subtitle, asked.leaky),
        title,
        drawing.alternative_text(title, asked.subtitle, words),
        ["confusion.csv"],
    )


def confusion_matrix(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return counts [reference, answer] from long rows, in their order.

    References that are no class, and units without an answer, stand there only if there are any.
    """
    table = rows.pivot_table(index="truth", columns="predicted", values="n", aggfunc="sum", fill_value=0)
    table = table.reindex(index=rows["truth"].unique(), columns=rows["predicted"].unique()).astype(np.int64)
    kept = [t for t in table.index if t in classes or table.loc[t].any()]
    answers = [a for a in table.columns if a not in NO_ANSWER or table[a].any()]
    return table.loc[kept, answers]


# Banners


def banners(inventories: Mapping[str, pd.DataFrame], protocols: Sequence[Protocol]) -> list[str]:
    """Return what must be read before the first figure: surrogate patients, leaky protocol."""
    surrogate = [c for c in inventories if c in surrogate_cohorts(inventories)]
    found = [f"{SURROGATE} Cohorts: {', '.join(surrogate)}."] if surrogate else []
    if "as_published" in protocols:
        found.append(f"Sections stamped “{LEAKY}” come from a split by image, as the study was published.")
    return found
