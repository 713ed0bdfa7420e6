"""Report the whole study, all hospitals together, as a single self-contained page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.cohorts.table import Cohort, read_cohorts
from marrowflow.config import (
    Augmentation,
    Calibration,
    ColourRecipe,
    Identifier,
    Model,
    Protocol,
    Splits,
    Threshold,
    Training,
    read_options,
)
from marrowflow.files import write_table
from marrowflow.reporting import drawing, page, tables
from marrowflow.reporting.accuracy_figures import short
from marrowflow.reporting.comparisons import comparison_blocks
from marrowflow.reporting.forest import Estimate, forest
from marrowflow.reporting.locked import fitting_statement, lock_blocks
from marrowflow.reporting.methods import interval_section
from marrowflow.reporting.reporter import (
    CommonOptions,
    Reporter,
    checked_tests,
    endpoint_title,
    leaky_suffix,
    missing,
    stem,
    surrogate_cohorts,
    unit_title,
)
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, Results, read_csv, read_json
from marrowflow.reporting.sections import (
    accuracy_sections,
    banners,
    ensemble_footnote,
    error_blocks,
    flow_blocks,
    flow_of,
    limitation_section,
    limitations,
    record_section,
)
from marrowflow.reporting.training_figure import training_curves

log = logging.getLogger(__name__)

_PROTOCOLS = {
    "sound": "patients and near-duplicate clusters are never divided",
    "as_published": "divided by image as published",
}


class Options(CommonOptions):
    """What the study's report depends on."""

    splits: Splits = Splits()
    training: Training = Training()
    models: dict[Identifier, Model]
    colour: dict[Identifier, ColourRecipe]
    threshold: Threshold = Threshold()
    calibration: Calibration = Calibration()
    augmentation: Augmentation = Augmentation()


def report_study(options: Options, results: Results, cohorts: Sequence[Cohort]) -> Path:
    """Write ``index.html`` with its figures for a study.

    Parameters
    ----------
    options
        The sections of the study's configuration.
    results
        Where the results lie and where the page goes.
    cohorts
        All lines of the cohort table.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    UserError
        A cohort without inventory or predictions, or no locked threshold.
    """
    checked_tests(options)
    inventories = {c.name: results.inventory(c.name) for c in cohorts}
    surrogate = surrogate_cohorts(inventories)
    if any(c.name in surrogate and c.role == "development" for c in cohorts):
        surrogate |= {DEVELOPMENT}
    reporter = Reporter(options, results, surrogate)
    sections = [_cohort_section(reporter, cohorts, inventories)]
    for protocol in progress(options.protocols, "report of the study", unit="protocol"):
        sections += _protocol_sections(reporter, options, protocol, cohorts)
    if "as_published" in options.protocols:
        sections.append(_optimism_section(reporter))
    sections.append(_methods_section(options, reporter.common_noun(inventories)))
    roles = {c.name: c.role for c in cohorts}
    sections.append(limitation_section(limitations(reporter, inventories, roles)))
    tests = [t for protocol in options.protocols for t in reporter.tests(protocol)]
    external = [c for c in cohorts if c.role == "external"]
    sections.append(record_section(reporter, tests, [DEVELOPMENT, *(c.name for c in external)]))
    path = results.out / "index.html"
    page.write_page(
        page.Page(
            title=options.study.title,
            subtitle="Diagnostic accuracy study",
            notice=options.study.notice,
            banners=banners(inventories, options.protocols),
            facts={
                "Development": ", ".join(c.hospital for c in cohorts if c.role == "development"),
                "External validation": ", ".join(c.hospital for c in external) or "none",
                "Classes": ", ".join(options.classes),
                "Primary endpoint": endpoint_title(options, reporter.endpoints[0]),
                "Primary index test": options.index_tests[0],
                "Protocol": "; ".join(f"{p} ({_PROTOCOLS[p]})" for p in options.protocols),
            },
            sections=sections,
        ),
        path,
    )
    return path


def _cohort_section(
    reporter: Reporter, cohorts: Sequence[Cohort], inventories: dict[str, pd.DataFrame]
) -> page.Section:
    results = reporter.results
    sources = {f"inventory of {c.name}": results.href(results.inventory_path(c.name)) for c in cohorts}
    overview = tables.overview_table(
        inventories, reporter.options.classes, {c.name: f"{c.hospital} ({c.role})" for c in cohorts}, sources
    )
    origin = tables.Table(
        "Where the images come from",
        ["cohort", "hospital", "role", "source"],
        [[c.name, c.hospital, c.role, c.source or tables.MISSING] for c in cohorts],
    )
    return page.Section("Cohorts", "cohorts", [overview, origin])


def _protocol_sections(
    reporter: Reporter, options: Options, protocol: Protocol, cohorts: Sequence[Cohort]
) -> list[page.Section]:
    test = reporter.tests(protocol)[0]
    external = [c for c in cohorts if c.role == "external"]
    suffix = f", protocol {protocol}" if len(options.protocols) > 1 else ""

    def section(
        title: str, name: str, blocks: Sequence[page.Block], below: Sequence[page.Section] = ()
    ) -> page.Section:
        return page.Section(title + suffix, f"{name}-{protocol}", blocks, below, test.leaky)

    flows = []
    for cohort in cohorts:
        developed = cohort.role == "development"
        flow = flow_of(reporter, test, cohort.name, developed)
        footnote = ensemble_footnote(reporter, test, cohort.name) if developed else ""
        blocks = flow_blocks(reporter, test, cohort.name, cohort.hospital, flow, footnote)
        flows.append(
            page.Section(cohort.hospital, f"flow-{protocol}-{cohort.name}", blocks, leaky=test.leaky)
        )
    development = accuracy_sections(reporter, test, DEVELOPMENT, "Development", f"development-{protocol}")
    compared = [
        page.Section(
            who,
            f"comparison-{protocol}-{name}",
            comparison_blocks(reporter, protocol, name, who),
            leaky=test.leaky,
        )
        for name, who in [(DEVELOPMENT, "Development"), *((c.name, c.hospital) for c in external)]
        if len(options.index_tests) > 1
    ]
    alone = [] if compared else comparison_blocks(reporter, protocol, DEVELOPMENT, "Development")
    return [
        section("Results at a glance", "glance", _glance_blocks(reporter, test, external)),
        section(
            f"Flow of {reporter.common_noun(c.name for c in cohorts)} and cross-tabulation", "flow", [], flows
        ),
        section("Partitions and leakage gate", "partitions", _partition_blocks(reporter, test)),
        section("Training", "training", _training_blocks(reporter, options, protocol)),
        section("Locked threshold", "threshold", lock_blocks(reporter, test, [c.hospital for c in external])),
        section("Accuracy on development data, out of fold", "development", [], development),
        section("External validation", "external", _external_blocks(reporter, test, external)),
        section("Comparison of index tests", "comparison", alone, compared),
        section("Most confident errors, development", "errors", error_blocks(reporter, test, DEVELOPMENT)),
    ]


def _glance_blocks(reporter: Reporter, test: IndexTest, external: Sequence[Cohort]) -> list[page.Block]:
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


def _partition_blocks(reporter: Reporter, test: IndexTest) -> list[page.Block]:
    path = reporter.results.split_path(test.protocol, "counts.csv")
    counts = read_csv(path)
    blocks: list[page.Block] = []
    if counts is None:
        blocks.append(missing(path, reporter.results))
    else:
        noun = reporter.noun(DEVELOPMENT)
        title = f"{noun.capitalize()} and images by fold ({_PROTOCOLS[test.protocol]})"
        blocks.append(
            tables.counts_table(
                counts, reporter.options.classes, title, reporter.sources(path), test.leaky, noun
            )
        )
    return [*blocks, *_gate_blocks(reporter, test)]


def _gate_blocks(reporter: Reporter, test: IndexTest) -> list[page.Block]:
    """State what the leakage gate found before training, in words; fold by fold where something leaked."""
    path = reporter.results.split_path(test.protocol, "gate.json")
    gate = read_json(path)
    if gate is None:
        return [missing(path, reporter.results)]
    leaks: dict[str, int] = gate.get("leaks", {})
    noun = reporter.noun(DEVELOPMENT)
    kinds = {kind: noun if kind == "patients" else kind.replace("_", " ") for kind in leaks}
    found = ", ".join(f"{n} {kinds[kind]}" for kind, n in leaks.items()) or tables.MISSING
    statement = (
        f"Leakage gate, before any training: on two sides of a fold stood {found} "
        f"(of {gate.get('n_patients', tables.MISSING)} {noun} and {gate.get('n_cases', tables.MISSING)} images; "
        f"near duplicates differ in at most {gate.get('distance', tables.MISSING)} of 64 bits)."
    )
    leaked = any(leaks.values())
    blocks: list[page.Block] = [
        page.Text([statement], "warning" if leaked else "note", reporter.sources(path))
    ]
    if leaked:
        rows = [
            [str(f["fold"]), str(f["n_test_cases"]), *(f"{f[k]['n']} ({f[k]['test_cases']})" for k in leaks)]
            for f in gate["folds"]
        ]
        header = ["fold", "test images", *kinds.values()]
        notes = ["Cells: how many stand on two sides (test images with a like in training or validation)."]
        title = "What leaks, by fold"
        blocks.append(
            tables.Table(title, header, rows, range(1, 6), notes, reporter.sources(path), test.leaky)
        )
    return blocks


def _training_blocks(reporter: Reporter, options: Options, protocol: Protocol) -> list[page.Block]:
    """Draw each index test's accuracy and loss by epoch, all folds in one figure."""
    rule = options.splits if protocol == "sound" else options.splits.as_published
    folds = rule.folds if rule is not None and rule.scheme in ("kfold", "monte_carlo") else 1
    drawn: list[page.Figure] = []
    lost: list[page.Block] = []
    for test in reporter.tests(protocol):
        histories, cards = {}, {}
        for fold in map(str, range(folds)):
            path = reporter.results.training_path(test, fold, "history.csv")
            history = read_csv(path)
            if history is None or history.empty:
                lost.append(missing(path, reporter.results))
            else:
                histories[fold] = history
                cards[fold] = read_json(reporter.results.training_path(test, fold, "card.json")) or {}
        if histories:
            drawn.append(_training_figure(reporter, test, histories, cards))
    return [page.Figures(drawn), *lost] if drawn else lost


def _training_figure(
    reporter: Reporter, test: IndexTest, histories: dict[str, pd.DataFrame], cards: dict[str, dict[str, Any]]
) -> page.Figure:
    file = stem("curves", test.name, *leaky_suffix(test))
    path = reporter.folder / f"{file}.csv"
    write_table(
        path, pd.concat([h.assign(fold=int(fold)) for fold, h in histories.items()], ignore_index=True)
    )
    title = f"Accuracy and loss: {test.name}"
    subtitle = (
        f"n = {len(histories)} fold{'s' if len(histories) > 1 else ''}, one line each; {_trained_on(cards)}"
    )
    kept = {fold: card["best_epoch"] for fold, card in cards.items() if "best_epoch" in card}
    return reporter.draw(
        training_curves(histories, kept, title, subtitle, test.leaky),
        file,
        f"{title}. {subtitle}.",
        drawing.alternative_text(title, subtitle),
        reporter.sources(path),
        test.leaky,
    )


def _trained_on(cards: dict[str, dict[str, Any]]) -> str:
    """Return how many images the networks were trained on, as their cards say."""
    sizes = [
        sum(count["images"] for count in card["data"]["train"].values())
        for card in cards.values()
        if "data" in card
    ]
    if not sizes:
        return f"number of training images {tables.MISSING}"
    few, many = min(sizes), max(sizes)
    return (
        f"{few if few == many else f'{few} to {many}'} training images{' a fold' if len(cards) > 1 else ''}"
    )


def _external_blocks(reporter: Reporter, test: IndexTest, external: Sequence[Cohort]) -> list[page.Block]:
    """Print each hospital's metrics of the primary endpoint and link its own report."""
    if not external:
        return [page.Text(["No external hospital in the cohort table."])]
    endpoint, results = reporter.endpoints[0], reporter.results
    blocks: list[page.Block] = []
    for cohort in external:
        metrics = results.accuracy(test, cohort.name, "metrics.csv")
        path = results.accuracy_path(test, cohort.name, "metrics.csv")
        if metrics is None:
            blocks.append(missing(path, results))
            continue
        # The hospital's report is written beside this page, perhaps after it: linked whether there or not.
        report = results.href(results.root / "external" / cohort.name / "report.html")
        blocks.append(
            tables.metrics_table(
                metrics,
                results.accuracy(test, cohort.name, "warnings.csv"),
                endpoint,
                reporter.unit,
                reporter.options.classes,
                f"{cohort.hospital}: {endpoint}, {unit_title(reporter.unit, reporter.noun(cohort.name))}",
                reporter.options.accuracy.confidence,
                {**reporter.sources(path), f"full report of {cohort.hospital}": report},
                test.leaky,
                reporter.remarks(cohort.name),
                reporter.noun(cohort.name),
            )
        )
    return blocks


def _optimism_section(reporter: Reporter) -> page.Section:
    blocks: list[page.Block] = []
    for test in reporter.tests("as_published"):
        path = reporter.results.optimism_path(test)
        table = read_csv(path)
        if table is None:
            blocks.append(missing(path, reporter.results))
            continue
        title = f"{test.name}: as published beside sound"
        noun = reporter.noun(DEVELOPMENT)
        blocks.append(tables.optimism_table(table, title, reporter.sources(path), noun))
    return page.Section("Optimism of the published protocol", "optimism", blocks, leaky=True)


def _methods_section(options: Options, noun: str) -> page.Section:
    """Return the settings that ran, as they were configured; `noun` is what stands for patients."""
    models = [
        [
            name,
            m.network,
            m.mode,
            m.weights if m.mode != "scratch" else "none",
            ", ".join(m.colours or options.colour),
            f"{m.training.optimiser}, rate {m.training.rate:g}, {m.training.schedule}",
            f"{m.training.epochs} / {m.training.batch_size}",
            "none" if m.training.patience is None else str(m.training.patience),
        ]
        for name, m in options.models.items()
    ]
    value = "" if options.threshold.value is None else f", value {options.threshold.value:g}"
    splits = options.splits
    return page.Section(
        "Settings",
        "settings",
        [
            tables.Table(
                "Networks",
                [
                    "model",
                    "network",
                    "mode",
                    "start weights",
                    "colour",
                    "optimiser",
                    "epochs / batch",
                    "patience",
                ],
                models,
            ),
            page.Facts(
                {
                    "Split": f"{splits.scheme}, {splits.folds} folds, validation share {splits.validation:g}, seed {splits.seed}",
                    "Augmentation": options.augmentation.plan,
                    "Colour": "; ".join(
                        f"{name}: {recipe.method}" for name, recipe in options.colour.items()
                    ),
                    "Calibration": options.calibration.method,
                    "Threshold": f"{options.threshold.rule}{value}",
                    "Units of analysis": ", ".join(options.units),
                }
            ),
        ],
        [interval_section(options, noun)],
    )


def main(argv: Sequence[str]) -> None:
    """Write the report of the study into ``--out``."""
    parser = step_parser("reporting.study", "Report the whole study.")
    parser.add_argument("--results", type=Path, required=True, help="the study's folder of results")
    parser.add_argument("--cohorts", type=existing_file, required=True, help="the cohort table")
    parser.add_argument("--out", type=Path, required=True, help="folder of index.html and figures/")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    path = report_study(options, Results(args.results, args.out), read_cohorts(args.cohorts))
    log.info("wrote %s", path)
