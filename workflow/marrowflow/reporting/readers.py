"""Readers and other products beside the primary index test: accuracy, differences on the same units, agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from marrowflow.config import CLASSES, Identifier, ReaderShown, Unit
from marrowflow.reporting import page, tables
from marrowflow.reporting.comparisons import Compared, agreement_table, difference_table
from marrowflow.reporting.measures import ANALYSES
from marrowflow.reporting.notes import compact, interval_note, row_of
from marrowflow.reporting.readers_figure import draw_readers
from marrowflow.reporting.reporter import Reporter, missing, stem, unit_title
from marrowflow.reporting.results import read_csv
from marrowflow.reporting.tables import Table

_BINARY = (("auc", ""), ("sensitivity", ""), ("specificity", ""))
_CLASSES = (("accuracy", ""), ("balanced_accuracy", ""), ("mcc", ""), ("kappa", ""))


def reader_blocks(
    reporter: Reporter, readers: Mapping[Identifier, ReaderShown], cohort: str, who: str
) -> list[page.Block]:
    """Return the tables and figures of all readers on one cohort ("development" or an external one).

    Every endpoint is shown in the primary unit; readers who answer for patients are shown per patient, whatever the primary
    unit is.
    """
    folder = reporter.results.root / "comparisons" / "readers" / cohort
    names = ("metrics", "indeterminate", "comparisons", "agreement", "agreement_counts", "warnings")
    paths = {name: folder / f"{name}.csv" for name in (*names, "roc")}
    found = {name: read_csv(path) for name, path in paths.items()}
    metrics, warnings = found["metrics"], found["warnings"]
    if metrics is None:
        return [missing(paths["metrics"], reporter.results)]
    present = [name for name in readers if metrics["index_test"].eq(name).any()]
    blocks: list[page.Block] = [_who(readers, present, who)]
    if not present:
        return blocks
    for unit in dict.fromkeys(_unit(reporter, readers[name]) for name in present):
        own = {name: readers[name] for name in present if _unit(reporter, readers[name]) == unit}
        for endpoint in reporter.endpoints:
            blocks += _endpoint_blocks(reporter, own, cohort, who, endpoint, unit, found)
    told = (
        warnings[warnings["index_test"].eq("")]["warning"] if warnings is not None else pd.Series(dtype=str)
    )
    lost = [text for text in dict.fromkeys(told) if "they are not compared" in text]
    return [*blocks, *([page.Text([f"{text}." for text in lost], "warning")] if lost else [])]


def title_of(readers: Mapping[Identifier, ReaderShown], name: str) -> str:
    """Return what the reports call an index test: a reader's title with its key."""
    title = readers[name].title if name in readers else ""
    return f"{title} ({name})" if title else name


def _unit(reporter: Reporter, reader: ReaderShown) -> Unit:
    return "patient" if reader.unit == "patient" else reporter.unit


def _who(readers: Mapping[Identifier, ReaderShown], present: Sequence[str], who: str) -> page.Text:
    absent = [title_of(readers, name) for name in readers if name not in present]
    shown = ", ".join(title_of(readers, name) for name in present) or "none"
    words = [f"Readers and other products with answers for {who}: {shown}."]
    if absent:
        words.append(f"Without any: {', '.join(absent)}.")
    return page.Text(words, "note")


def _endpoint_blocks(
    reporter: Reporter,
    readers: Mapping[str, ReaderShown],
    cohort: str,
    who: str,
    endpoint: str,
    unit: Unit,
    found: Mapping[str, pd.DataFrame | None],
) -> list[page.Block]:
    metrics, options, noun = found["metrics"], reporter.options, reporter.noun(cohort)
    assert metrics is not None
    protocol = options.protocols[0]
    first = reporter.tests(protocol)[0]
    paths = {
        name: reporter.results.root / "comparisons" / "readers" / cohort / f"{name}.csv" for name in found
    }
    ours = reporter.results.accuracy(first, cohort, "metrics.csv")
    lines = {f"{first.name} (primary)": ours}
    lines |= {title_of(readers, name): metrics[metrics["index_test"].eq(name)] for name in readers}
    sources = reporter.sources(paths["metrics"], paths["warnings"])
    sources |= {
        f"metrics.csv of {first.name}": reporter.results.href(
            reporter.results.accuracy_path(first, cohort, "metrics.csv")
        )
    }
    title = f"{who}: readers and {first.name}, {endpoint}, {unit_title(unit, noun)}"
    blocks: list[page.Block] = [
        _accuracy_table(lines, endpoint, unit, title, options.accuracy.confidence, sources, first.leaky, noun)
    ]
    lacking = _without_answer(found["indeterminate"], readers, endpoint, unit, f"{who}: {endpoint}", noun)
    if lacking is not None:
        blocks.append(replace(lacking, sources=reporter.sources(paths["indeterminate"]), leaky=first.leaky))
    figure = _figure(reporter, readers, cohort, who, endpoint, unit, metrics, ours)
    blocks += [page.Figures([figure])] if figure else []
    warnings = found["warnings"]
    compared = Compared(
        first.name,
        list(readers),
        endpoint,
        unit,
        options.accuracy.confidence,
        who,
        noun,
        None if warnings is None else warnings.drop(columns="index_test")[warnings["index_test"].eq("")],
        first.leaky,
    )
    differences, agreement = found["comparisons"], found["agreement"]
    if differences is not None and not compared.of(differences).empty:
        blocks.append(difference_table(compared, differences, reporter.sources(paths["comparisons"])))
    if agreement is not None:
        counts = reporter.sources(paths["agreement"], paths["agreement_counts"])
        names = [first.name, *readers]
        for i, name in enumerate(names[:-1]):
            between = replace(compared, first=name, others=names[i + 1 :])
            if not between.of(agreement).empty:
                blocks.append(agreement_table(between, agreement, counts))
    return blocks


def _accuracy_table(
    lines: Mapping[str, pd.DataFrame | None],
    endpoint: str,
    unit: Unit,
    title: str,
    confidence: float,
    sources: Mapping[str, str],
    leaky: bool,
    noun: str,
) -> Table:
    """Return one line an index test, each on all that it answered for."""
    wanted = _CLASSES if endpoint == CLASSES else _BINARY
    body, shown = [], []
    for name, metrics in lines.items():
        rows = None if metrics is None else _primary_rows(metrics, endpoint, unit)
        found = [None if rows is None else row_of(rows, metric=metric, of=of) for metric, of in wanted]
        n = (
            None
            if rows is None or rows.empty
            else rows["n_patients" if unit == "patient" else "n_cases"].max()
        )
        body.append([name, tables.MISSING if n is None else tables.whole(n), *map(compact, found)])
        if rows is not None:
            shown.append(rows[rows["metric"].isin([m for m, _ in wanted]) & rows["class"].eq("")])
    counted = noun if unit == "patient" else "images"
    return Table(
        title,
        ["index test", counted, *(tables.metric_title(*pair) for pair in wanted)],
        body,
        [1],
        [
            "Each on all that it answered for; on the same ones they are compared below. An AUC needs probabilities.",
            f"In brackets: numerator/denominator, in {counted}.",
            interval_note(pd.concat(shown), tables.METRICS, confidence, noun) if shown else "No intervals.",
        ],
        sources,
        leaky,
    )


def _without_answer(
    analyses: pd.DataFrame | None,
    readers: Mapping[str, ReaderShown],
    endpoint: str,
    unit: Unit,
    about: str,
    noun: str,
) -> Table | None:
    """Return accuracy three ways of the readers who left something without an answer; None where nobody did."""
    if analyses is None:
        return None
    own = analyses[analyses["endpoint"].eq(endpoint) & analyses["unit"].eq(unit) & analyses["class"].eq("")]
    wanted = ("accuracy",) if endpoint == CLASSES else ("sensitivity", "specificity", "accuracy")
    body = []
    for name in readers:
        rows = own[own["index_test"].eq(name)]
        for metric in wanted:
            cells = [row_of(rows, metric=metric, analysis=analysis) for analysis in ANALYSES]
            if len({cell["denominator"] for cell in cells if cell}) > 1:
                body.append([f"{title_of(readers, name)}: {tables.METRICS[metric]}", *map(compact, cells)])
    if not body:
        return None
    counted = noun if unit == "patient" else "images"
    notes = [
        f"Readers who left some {counted} without an answer, or answered for some without a reference. Counted as errors: no answer "
        "is not right. Worst case: an answer without a reference is wrong too.",
        f"In brackets: numerator/denominator, in {counted}.",
    ]
    return Table(f"{about}: readers’ accuracy three ways", ["reader", *ANALYSES.values()], body, (), notes)


def _primary_rows(metrics: pd.DataFrame, endpoint: str, unit: Unit) -> pd.DataFrame:
    return metrics[metrics["primary"] & metrics["endpoint"].eq(endpoint) & metrics["unit"].eq(unit)]


def _figure(
    reporter: Reporter,
    readers: Mapping[str, ReaderShown],
    cohort: str,
    who: str,
    endpoint: str,
    unit: Unit,
    metrics: pd.DataFrame,
    ours: pd.DataFrame | None,
) -> page.Figure | None:
    """Draw the readers' operating points over the primary index test's ROC curve; None where there is no yes/no question."""
    if endpoint == CLASSES or ours is None:
        return None
    first = reporter.tests(reporter.options.protocols[0])[0]
    roc = reporter.results.accuracy(first, cohort, "roc.csv")
    curve = None
    if roc is not None:
        curve = roc[roc["endpoint"].eq(endpoint) & roc["unit"].eq(unit) & roc["class"].eq("")]
    points = {}
    for name, rows in {
        first.name: ours,
        **{title_of(readers, n): metrics[metrics["index_test"].eq(n)] for n in readers},
    }.items():
        own = _primary_rows(rows, endpoint, unit)
        points[name] = (row_of(own, metric="sensitivity", of=""), row_of(own, metric="specificity", of=""))
    noun = reporter.noun(cohort)
    title = f"Readers and {first.name}: {endpoint}, {unit_title(unit, noun)}"
    canvas, alternative = draw_readers(curve, points, title, who, first.leaky)
    paths = [
        reporter.results.root / "comparisons" / "readers" / cohort / "metrics.csv",
        reporter.results.accuracy_path(first, cohort, "roc.csv"),
    ]
    return reporter.draw(
        canvas,
        stem("readers", cohort, endpoint, unit),
        f"{title}. {who}. Curve and filled point: {first.name}, at its locked cut-off; other points: readers. "
        f"Bars: {reporter.options.accuracy.confidence:.0%} intervals of sensitivity and specificity. "
        "Each on all that it answered for.",
        alternative,
        reporter.sources(*paths),
        first.leaky,
    )
