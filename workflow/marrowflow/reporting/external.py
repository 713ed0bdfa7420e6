"""Report one hospital's locked external validation as a single self-contained page."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from marrowflow.checklists import Checklist, read_checklist
from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.cohorts.table import Cohort
from marrowflow.config import Protocol, read_options
from marrowflow.reporting import page, tables
from marrowflow.reporting.about import about_sections
from marrowflow.reporting.baseline import baseline_section
from marrowflow.reporting.checklist import anchors_of, answered_by_data, checklist_sections
from marrowflow.reporting.comparisons import comparison_blocks
from marrowflow.reporting.errors_shown import gallery_notes, gallery_sections
from marrowflow.reporting.ground import Ground
from marrowflow.reporting.limitations import limitation_section, limitations
from marrowflow.reporting.locked import lock_blocks
from marrowflow.reporting.methods import interval_section
from marrowflow.reporting.primary import Primary, primary_of
from marrowflow.reporting.readers import reader_blocks
from marrowflow.reporting.record import record_section
from marrowflow.reporting.reporter import CommonOptions, Reporter, missing, surrogate_cohorts
from marrowflow.reporting.results import DEVELOPMENT, Results, read_json
from marrowflow.reporting.sealed import sealed_section
from marrowflow.reporting.sections import accuracy_sections, banners, flow_blocks, flow_of
from marrowflow.reporting.shift import shift_section
from marrowflow.reporting.subgroups import subgroup_blocks

log = logging.getLogger(__name__)


def report_external(
    options: CommonOptions,
    results: Results,
    cohort: Cohort,
    development: Mapping[str, str],
    primary: Primary,
    checklists: Sequence[Checklist],
) -> Path:
    """Write ``report.html`` with its figures for one external cohort.

    Parameters
    ----------
    options
        The sections of the study's configuration.
    results
        Where the results lie and where the page goes.
    cohort
        Its line of the cohort table.
    development
        Hospitals by development cohort: what this one is set beside.
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
        No inventory, predictions or locked threshold; a primary index test that is none of the study's; a sealed file that was
        changed.
    """
    name, hospital = cohort.name, cohort.hospital
    inventory = {name: results.inventory(name)}
    developed = {c: results.inventory(c) for c in development}
    surrogate = surrogate_cohorts(inventory | developed)
    surrogate |= {DEVELOPMENT} if surrogate & set(developed) else frozenset()
    reporter = Reporter(options, results, primary, surrogate)
    ground = Ground(reporter, [cohort], inventory)
    baseline = baseline_section(reporter, development, {name: hospital})
    sections = [
        page.Section(baseline.title, baseline.anchor, [*baseline.blocks, _gate_note(results, name)]),
        sealed_section(reporter, name, hospital),
    ]
    for protocol in progress(options.protocols, f"report of {name}", unit="protocol"):
        sections += _protocol_sections(reporter, protocol, name, hospital)
    sections.append(shift_section(reporter, name, hospital))
    if options.reader_titles:
        blocks = reader_blocks(reporter, options.reader_titles, name, hospital)
        sections.append(page.Section("Readers and other products", "readers", blocks))
    tests = [t for protocol in options.protocols for t in reporter.tests(protocol)]
    sections.append(interval_section(options, reporter.noun(name)))
    sections.append(limitation_section(limitations(reporter, inventory, {name: "external"})))
    sections += about_sections(options.study, options.texts, answered_by_data(ground))
    record = record_section(reporter, tests, [name])
    sections += checklist_sections(ground, checklists, options.texts, anchors_of([*sections, record]))
    path = results.out / "report.html"
    page.write_page(
        page.Page(
            title=f"{options.study.title}: {hospital}",
            subtitle="External validation",
            notice=options.study.notice,
            banners=banners(inventory, options.protocols),
            facts={
                "Hospital": f"{hospital} (cohort {name})",
                "Source of the images": cohort.source or tables.MISSING,
                "Primary index test": f"{primary.index_test}, {reporter.how_primary()}",
                "Protocol": ", ".join(options.protocols),
                "Role": "external: no choice was made on these data",
            },
            sections=[*sections, record],
        ),
        path,
        results.root,
    )
    return path


def _gate_note(results: Results, cohort: str) -> page.Text:
    """State what the gate before the validation found: no image of this hospital was seen in development."""
    path = results.root / "external" / cohort / "gate.json"
    gate = read_json(path)
    if gate is None:
        return missing(path, results)
    words = (
        f"Gate before the external validation: {gate['duplicates'] or 'none'} of its {gate['n_external']} images is a "
        f"copy or near duplicate of the {gate['n_development']} development images "
        f"(near duplicates differ in at most {gate['distance']} of 64 bits)."
    )
    return page.Text([words], "warning" if gate["duplicates"] else "note", {path.name: results.href(path)})


def _protocol_sections(
    reporter: Reporter, protocol: Protocol, cohort: str, hospital: str
) -> list[page.Section]:
    test, options = reporter.tests(protocol)[0], reporter.options
    suffix = f", protocol {protocol}" if len(options.protocols) > 1 else ""
    flow = flow_of(reporter, test, cohort, development=False)

    def section(
        title: str, name: str, blocks: Sequence[page.Block], below: Sequence[page.Section] = ()
    ) -> page.Section:
        return page.Section(title + suffix, f"{name}-{protocol}", blocks, below, test.leaky)

    return [
        section(
            f"Flow of {flow.noun} and cross-tabulation",
            "flow",
            flow_blocks(reporter, test, cohort, hospital, flow),
        ),
        section("Locked threshold", "threshold", lock_blocks(reporter, test, [hospital])),
        section(
            "Accuracy",
            "accuracy",
            [],
            accuracy_sections(reporter, test, cohort, hospital, f"accuracy-{protocol}"),
        ),
        section(
            "Subgroups",
            "subgroups",
            subgroup_blocks(reporter, test, cohort, hospital, options.subgroups),
        ),
        section(
            "Comparison of index tests",
            "comparison",
            comparison_blocks(reporter, protocol, cohort, hospital),
        ),
        section(
            "Most confident errors and undecided cases",
            "errors",
            gallery_notes(reporter, test, cohort),
            gallery_sections(reporter, test, cohort, f"errors-{protocol}"),
        ),
    ]


def main(argv: Sequence[str]) -> None:
    """Write the report of one external cohort into ``--out``."""
    parser = step_parser("reporting.external", "Report one hospital's external validation.")
    parser.add_argument("--results", type=Path, required=True, help="the study's folder of results")
    parser.add_argument(
        "--primary",
        type=existing_file,
        required=True,
        help="which index test is reported first (primary.json)",
    )
    parser.add_argument("--cohort", required=True, help="the cohort's id")
    parser.add_argument("--manifest", type=Path, required=True, help="its manifest")
    parser.add_argument("--hospital", required=True, help="its name in the report")
    parser.add_argument("--source", default="", help="where its images come from")
    parser.add_argument(
        "--development", type=json.loads, required=True, help="hospitals by development cohort, as JSON"
    )
    parser.add_argument(
        "--checklists", type=existing_file, nargs="*", default=[], help="reporting checklists (.csv)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of report.html and figures/")
    args = parser.parse_args(argv)
    options = read_options(CommonOptions, args.options)
    results, primary = Results(args.results, args.out), primary_of(args.primary)
    cohort = Cohort(args.cohort, "external", args.manifest, args.hospital, args.source)
    checklists = [read_checklist(path) for path in args.checklists]
    path = report_external(options, results, cohort, args.development, primary, checklists)
    log.info("wrote %s", path)
