"""Report the whole study, all hospitals together, as a single self-contained page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from marrowflow.checklists import Checklist, read_checklist
from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.cohorts.table import Cohort, read_cohorts
from marrowflow.config import Protocol, read_options
from marrowflow.reporting import page, tables
from marrowflow.reporting.about import about_sections
from marrowflow.reporting.baseline import baseline_section
from marrowflow.reporting.checklist import (
    anchors_of,
    answered_by_data,
    checklist_sections,
    require_complete,
)
from marrowflow.reporting.comparisons import comparison_blocks
from marrowflow.reporting.errors_shown import gallery_notes, gallery_sections
from marrowflow.reporting.flow import combine
from marrowflow.reporting.glance import glance_blocks
from marrowflow.reporting.ground import Ground
from marrowflow.reporting.limitations import limitation_section, limitations
from marrowflow.reporting.locked import lock_blocks
from marrowflow.reporting.networks import network_blocks
from marrowflow.reporting.partitions import PROTOCOLS, partition_blocks
from marrowflow.reporting.pooled import pooled_blocks
from marrowflow.reporting.primary import Primary, primary_of
from marrowflow.reporting.published import assumed_section, published_section
from marrowflow.reporting.readers import reader_blocks
from marrowflow.reporting.record import record_section
from marrowflow.reporting.reporter import (
    Reporter,
    endpoint_title,
    missing,
    surrogate_cohorts,
    unit_title,
)
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, Results, read_csv, read_json
from marrowflow.reporting.sections import (
    accuracy_sections,
    banners,
    development_footnote,
    flow_blocks,
    flow_of,
)
from marrowflow.reporting.settings import settings_section
from marrowflow.reporting.shift import shift_overview
from marrowflow.reporting.study_options import Options
from marrowflow.reporting.subgroups import subgroup_blocks
from marrowflow.reporting.training import training_blocks

log = logging.getLogger(__name__)

WHOLE = "all"
"""Stands for all cohorts together in the names of files; no cohort may be called so."""


def report_study(
    options: Options,
    results: Results,
    cohorts: Sequence[Cohort],
    primary: Primary,
    checklists: Sequence[Checklist],
) -> Path:
    """Write ``index.html`` with its figures for a study.

    Parameters
    ----------
    options
        The sections of the study's configuration.
    results
        Where the results lie and where the page goes.
    cohorts
        All lines of the cohort table.
    primary
        The index test that is reported first.
    checklists
        Reporting checklists to answer.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    UserError
        A cohort without inventory or predictions; no locked threshold; a primary index test that is none of the study's; a
        required checklist with a text missing.
    """
    inventories = {c.name: results.inventory(c.name) for c in cohorts}
    surrogate = surrogate_cohorts(inventories)
    if any(c.name in surrogate and c.role == "development" for c in cohorts):
        surrogate |= {DEVELOPMENT}
    reporter = Reporter(options, results, primary, surrogate)
    ground = Ground(reporter, cohorts, inventories)
    require_complete(ground, checklists, options.texts)
    external = [c for c in cohorts if c.role == "external"]
    sections = [
        _cohort_section(cohorts),
        baseline_section(
            reporter,
            {c.name: c.hospital for c in cohorts if c.role == "development"},
            {c.name: c.hospital for c in external},
        ),
    ]
    for protocol in progress(options.protocols, "report of the study", unit="protocol"):
        sections += _protocol_sections(reporter, options, protocol, cohorts)
    sections.append(shift_overview(reporter, external))
    if options.reader_titles:
        sections.append(_reader_section(reporter, external))
    if "as_published" in options.protocols:
        sections.append(_optimism_section(reporter))
    sections += filter(None, [published_section(reporter, options), assumed_section(options)])
    sections.append(settings_section(reporter, options, reporter.common_noun(inventories)))
    roles = {c.name: c.role for c in cohorts}
    sections.append(limitation_section(limitations(reporter, inventories, roles)))
    tests = [t for protocol in options.protocols for t in reporter.tests(protocol)]
    sections += about_sections(options.study, options.texts, answered_by_data(ground))
    record = record_section(reporter, tests, [DEVELOPMENT, *(c.name for c in external)])
    record = replace(record, blocks=[*record.blocks, *_audit_note(results)])
    sections += checklist_sections(ground, checklists, options.texts, anchors_of([*sections, record]))
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
                "Primary index test": f"{primary.index_test}, {reporter.how_primary()}",
                "Protocol": "; ".join(f"{p} ({PROTOCOLS[p]})" for p in options.protocols),
            },
            sections=[*sections, record],
        ),
        path,
        results.root,
    )
    return path


def _cohort_section(cohorts: Sequence[Cohort]) -> page.Section:
    origin = tables.Table(
        "Where the images come from",
        ["cohort", "hospital", "role", "source"],
        [[c.name, c.hospital, c.role, c.source or tables.MISSING] for c in cohorts],
    )
    return page.Section("Cohorts", "cohorts", [origin])


def _audit_note(results: Results) -> list[page.Block]:
    """Say what the arithmetic audit checked; a study with a finding has no page."""
    path = results.root / "audit.json"
    audit = read_json(path)
    if audit is None:
        return []
    words = (
        f"Arithmetic audit: {audit['checks']} checks of all accuracy tables, each proportion against whole counts and against "
        "its cross-tabulation; nothing was found."
    )
    return [page.Text([words], sources={path.name: results.href(path)})]


def _reader_section(reporter: Reporter, external: Sequence[Cohort]) -> page.Section:
    where = {DEVELOPMENT: "Development", **{c.name: c.hospital for c in external}}
    below = [
        page.Section(
            who, f"readers-{name}", reader_blocks(reporter, reporter.options.reader_titles, name, who)
        )
        for name, who in where.items()
    ]
    return page.Section("Readers and other products", "readers", [], below)


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

    traced = {c.name: flow_of(reporter, test, c.name, c.role == "development") for c in cohorts}
    whole = combine({c.hospital: traced[c.name] for c in cohorts}) if len(cohorts) > 1 else None
    flows = []
    for cohort in cohorts:
        developed = cohort.role == "development"
        flow = traced[cohort.name]
        footnote = development_footnote(reporter, test, cohort.name) if developed else ""
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
        section("Results at a glance", "glance", glance_blocks(reporter, test, external)),
        section("All networks", "networks", network_blocks(reporter, options, protocol)),
        section(
            f"Flow of {reporter.common_noun(c.name for c in cohorts)} and cross-tabulation",
            "flow",
            flow_blocks(reporter, test, WHOLE, "All hospitals together", whole, " ".join(whole.remarks))
            if whole
            else [],
            flows,
        ),
        section("Partitions and leakage gate", "partitions", partition_blocks(reporter, test)),
        section("Training", "training", training_blocks(reporter, options, protocol)),
        section("Locked threshold", "threshold", lock_blocks(reporter, test, [c.hospital for c in external])),
        section("Accuracy on development data, out of fold", "development", [], development),
        section(
            "Subgroups, development",
            "subgroups",
            subgroup_blocks(reporter, test, DEVELOPMENT, "Development", options.subgroups),
        ),
        section("External validation", "external", _external_blocks(reporter, test, external)),
        section("Hospitals together", "forest", pooled_blocks(reporter, test, external)),
        section("Comparison of index tests", "comparison", alone, compared),
        section(
            "Most confident errors and undecided cases, development",
            "errors",
            gallery_notes(reporter, test, DEVELOPMENT),
            gallery_sections(reporter, test, DEVELOPMENT, f"errors-{protocol}"),
        ),
    ]


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
    found: dict[IndexTest, page.Block] = {}
    for test in reporter.tests("as_published"):
        path = reporter.results.optimism_path(test)
        table = read_csv(path)
        if table is None:
            found[test] = missing(path, reporter.results)
            continue
        title = f"{test.name}: as published beside sound"
        noun = reporter.noun(DEVELOPMENT)
        found[test] = tables.optimism_table(table, title, reporter.sources(path), noun)
    shown, rest = reporter.upright(found)
    folded = [page.Folded(f"{len(rest)} more index tests: as published beside sound", rest)] if rest else []
    return page.Section("Optimism of the published protocol", "optimism", [*shown, *folded], leaky=True)


def main(argv: Sequence[str]) -> None:
    """Write the report of the study into ``--out``."""
    parser = step_parser("reporting.study", "Report the whole study.")
    parser.add_argument("--results", type=Path, required=True, help="the study's folder of results")
    parser.add_argument(
        "--primary",
        type=existing_file,
        required=True,
        help="which index test is reported first (primary.json)",
    )
    parser.add_argument("--cohorts", type=existing_file, required=True, help="the cohort table")
    parser.add_argument(
        "--checklists", type=existing_file, nargs="*", default=[], help="reporting checklists (.csv)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of index.html and figures/")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    results = Results(args.results, args.out)
    checklists = [read_checklist(path) for path in args.checklists]
    path = report_study(options, results, read_cohorts(args.cohorts), primary_of(args.primary), checklists)
    log.info("wrote %s", path)
