"""The parts that the study's page and each hospital's page have in common.

Each function turns files of the results tree into blocks of a page, and writes the figures and the
numbers behind them into the page's folder ``figures/``.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from marrowflow import __version__
from marrowflow.choices.threshold import locked_threshold
from marrowflow.config import LEAKY, Protocol
from marrowflow.files import sha256_of, write_json, write_table
from marrowflow.images.store import open_store
from marrowflow.predictions import ENSEMBLE, NO_REFERENCE, PROBABILITY
from marrowflow.reporting import drawing, figures, page, tables
from marrowflow.reporting.accuracy_figures import Asked, Drawing, endpoint_drawings
from marrowflow.reporting.flow import Flow, draw, trace
from marrowflow.reporting.locked import development_answers, fitted_choices, networks_of
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
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, read_json
from marrowflow.statistics.endpoints import CLASSES, FEW_PATIENTS

NO_ANSWER = ("indeterminate", "not_done")
"""Columns of the confusion table that are no class."""

_WIDE = 760.0  # pixels of a flow diagram on a screen or on paper
_FIGURE_SOFTWARE = ("numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "matplotlib", "jinja2", "pillow")
_TRAINING_SOFTWARE = ("torch", "torchvision", "timm", "opencv-python-headless")


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


def ensemble_footnote(reporter: Reporter, test: IndexTest, cohort: str) -> str:
    """Say who answered for development cases without a reference standard; empty where there are none."""
    table = reporter.results.predictions(test, DEVELOPMENT, reporter.options.classes).table
    rows = table["cohort"].eq(cohort) & table["fold"].eq(ENSEMBLE) & table["truth"].isin(NO_REFERENCE)
    if not rows.any():
        return ""
    return (
        f"The {rows.sum()} images without a usable reference standard were answered by the mean of the networks of "
        "all folds."
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
        [f"index test {arm.label} {arm.patients}" for arm in eligible["Index test"].boxes],
    )
    question = flow.question
    cut = f" at the locked threshold {tables.number(question.threshold)}" if question.positive else ""
    below = "images" if root.smears is None else "smears and images"
    diagram = page.Figure(
        f"Flow of {flow.noun} through {hospital} (index test {test.name}, endpoint {question.name}{cut}). "
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
    return [diagram, table]


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


# Errors


def error_blocks(reporter: Reporter, test: IndexTest, cohort: str) -> list[page.Block]:
    """Show the wrong predictions with the largest probability, one thumbnail an image.

    With two classes and an endpoint the answer is the one at the locked threshold of images, else the
    class with the largest probability. Order: probability of that class from high to low, then the case's id.
    """
    most = reporter.options.report.errors_shown
    if most == 0:
        return [page.Text(["No patient image is printed (report.errors_shown is 0)."])]
    path = reporter.results.predictions_path(test, cohort)
    table = reporter.results.predictions(test, cohort, reporter.options.classes).table
    countable = table[table["status"].eq("ok") & ~table["truth"].isin(NO_REFERENCE)]
    countable, how = _answered(reporter, test, countable)
    wrong = countable[countable["truth"].ne(countable["predicted"])]
    if wrong.empty:
        return [
            page.Text(
                [f"None of {len(countable)} images was classified wrongly {how}."],
                sources=reporter.sources(path),
            )
        ]
    confidence = [row[PROBABILITY + row["predicted"]] for row in wrong.to_dict("records")]
    shown = wrong.assign(confidence=confidence).sort_values(
        ["confidence", "case_id"], ascending=[False, True], kind="stable"
    )[:most]
    pictures: dict[str, np.ndarray] = {}
    for name, rows in shown.groupby("cohort", sort=True):
        store = open_store(reporter.results.store_path(str(name), test.colour))
        place = dict(zip(store.index["case_id"], store.index["row"], strict=True))
        pictures |= {case: store.pixels[place[case]] for case in rows["case_id"] if case in place}
    thumbnails, absent = [], 0
    for row in shown.to_dict("records"):
        if row["case_id"] not in pictures:
            absent += 1
            continue
        lines = [
            f"predicted {row['predicted']} ({row['confidence']:.0%})",
            f"reference {row['truth']}",
            row["case_id"],
        ]
        thumbnails.append(
            page.thumbnail(pictures[row["case_id"]], lines, f"{row['case_id']}: {lines[0]}, {lines[1]}")
        )
    caption = (
        f"{len(wrong)} of {len(countable)} images with a reference were classified wrongly {how}; "
        f"the {len(thumbnails)} most confident are shown, as the network saw them ({test.name})."
        + (f" Picture missing: {absent}." if absent else "")
    )
    return [page.Gallery(caption, thumbnails, reporter.sources(path))]


def _answered(reporter: Reporter, test: IndexTest, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return images with the answers that accuracy counts, and how they were decided."""
    options = reporter.options
    if len(options.classes) != 2 or not options.endpoints or "case" not in options.units:
        return rows, "by the largest probability (all classes)"
    name, endpoint = next(iter(options.endpoints.items()))
    threshold = locked_threshold(reporter.results.lock(test), name, endpoint.positive, "case")
    (positive,) = endpoint.positive
    (negative,) = (c for c in options.classes if c != positive)
    called = rows[PROBABILITY + positive].to_numpy(np.float64) >= threshold
    answers = np.where(called, positive, negative).astype(object)
    return rows.assign(predicted=answers), f"at the locked threshold of {name}, {tables.number(threshold)}"


# Limitations and record


def limitations(
    reporter: Reporter, inventories: Mapping[str, pd.DataFrame], roles: Mapping[str, str]
) -> list[str]:
    """Return the limitations that the data themselves show, one sentence each."""
    found = []
    if reporter.options.study.notice:
        found.append(f"Notice of the study: {reporter.options.study.notice}")
    if "as_published" in reporter.options.protocols:
        found.append(
            "The protocol as_published divides by image, so images of one patient can be trained and tested on: "
            f"{LEAKY}."
        )
    development = [c for c in inventories if roles[c] == "development"]
    external = [c for c in inventories if roles[c] == "external"]
    if len(development) == 1:
        found.append("One development cohort: variation between hospitals was not seen in training.")
    if not external:
        found.append("No external validation: all estimates are from the hospitals that were trained on.")
    found += _ensemble_limitation(reporter) if external else []
    for cohort, inventory in inventories.items():
        found += _cohort_limitations(cohort, inventory, reporter.options.classes)
    return found


def _ensemble_limitation(reporter: Reporter) -> list[str]:
    test = reporter.tests(reporter.options.protocols[0])[0]
    lock = reporter.results.lock(test)
    choices = " and ".join(fitted_choices(lock))
    if not choices or networks_of(reporter, test) == 1:
        return []
    return [
        f"External scores are means of the networks of all folds, but {choices} of {test.name} "
        f"{'were' if ' and ' in choices else 'was'} fitted on development scores ({development_answers(lock)}): "
        "averaging can shift scores against the threshold."
    ]


def _cohort_limitations(cohort: str, inventory: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    found = []
    noun = tables.PATIENTS
    if inventory["patient_source"].eq("surrogate").any():
        noun = tables.SURROGATES
        found.append(f"{cohort}: {SURROGATE[0].lower()}{SURROGATE[1:]}")
    kept = inventory[inventory["status"].eq("included")]
    usable = kept[kept["reference_status"].eq("ok")]
    per_class = usable.groupby("label")["patient_id"].nunique()
    few = [f"{c} {per_class.get(c, 0)}" for c in classes if 0 < per_class.get(c, 0) < FEW_PATIENTS]
    if few:
        found.append(
            f"{cohort}: fewer than {FEW_PATIENTS} {noun} with {', '.join(few)}; their intervals are unreliable."
        )
    absent = [c for c in classes if not per_class.get(c, 0)]
    if absent:
        found.append(f"{cohort}: no {noun[:-1]} with {', '.join(absent)}; nothing is known about them there.")
    states = kept.groupby("patient_id")["reference_status"].agg(lambda s: s.eq("ok").any())
    without = int((~states.astype(bool)).sum())
    if without:
        found.append(
            f"{cohort}: {without} of {len(states)} {noun} lack a usable reference standard and count in no estimate."
        )
    if "scanner" in kept:
        scanners = sorted({str(s) for s in kept["scanner"].dropna()} - {""})
        if len(scanners) == 1:
            found.append(f"{cohort}: all images come from one scanner ({scanners[0]}).")
    return found


def limitation_section(found: Sequence[str]) -> page.Section:
    """Return the section that prints limitations."""
    return page.Section(
        "Limitations found in the data",
        "limitations",
        [page.Text(found or ["None found by the checks of this report."])],
    )


def record_section(reporter: Reporter, tests: Iterable[IndexTest], cohorts: Sequence[str]) -> page.Section:
    """Return versions of the software, the models' cards and the checksums of what was reported on."""
    software = [f"marrowflow {__version__}", f"Python {platform.python_version()}"]
    software += [f"{name} {_version(name)}" for name in (*_FIGURE_SOFTWARE, *_TRAINING_SOFTWARE)]
    rows, cards = [], []
    for test in tests:
        digest = reporter.results.lock(test).get("digest", tables.MISSING)
        rows.append([test.protocol, test.name, "locked threshold", str(digest)[:12]])
        for cohort in cohorts:
            path = reporter.results.predictions_path(test, cohort)
            rows.append(
                [
                    test.protocol,
                    test.name,
                    f"predictions, {cohort}",
                    sha256_of(path)[:12] if path.is_file() else tables.MISSING,
                ]
            )
        path = reporter.results.training_path(test, "0", "card.json")
        card = read_json(path)
        lines = [[k, str(v)] for k, v in _scalars(card or {})]
        cards.append(
            tables.Table(
                f"Model card of {test.name}, fold 0",
                ["key", "value"],
                lines,
                (),
                (),
                reporter.sources(path),
                test.leaky,
            )
        )
    checks = tables.Table(
        "Checksums (SHA-256, first 12 digits) of what this page reports on",
        ["protocol", "index test", "file", "checksum"],
        rows,
    )
    statement = (
        f"Versions in the environment that wrote this page: {', '.join(software)}. "
        "Those that trained are in the model cards."
    )
    return page.Section("Software and run record", "record", [page.Text([statement]), checks, *cards])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not in this environment"


def _scalars(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the numbers and words of a nested object with their dotted keys, sorted."""
    for key in sorted(value):
        item = value[key]
        if isinstance(item, Mapping):
            yield from _scalars(item, f"{prefix}{key}.")
        elif isinstance(item, list):
            if len(item) <= 30 and all(isinstance(i, str | int | float) for i in item):
                yield f"{prefix}{key}", ", ".join(map(str, item))
        else:
            yield f"{prefix}{key}", tables.MISSING if item is None else item


def banners(inventories: Mapping[str, pd.DataFrame], protocols: Sequence[Protocol]) -> list[str]:
    """Return what must be read before the first figure: surrogate patients, leaky protocol."""
    surrogate = [c for c in inventories if c in surrogate_cohorts(inventories)]
    found = [f"{SURROGATE} Cohorts: {', '.join(surrogate)}."] if surrogate else []
    if "as_published" in protocols:
        found.append(f"Sections stamped “{LEAKY}” come from a split by image, as the study was published.")
    return found
