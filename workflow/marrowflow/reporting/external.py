"""Report one hospital's locked external validation as a single self-contained page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.config import Protocol, read_options
from marrowflow.reporting import page, tables
from marrowflow.reporting.comparisons import comparison_blocks
from marrowflow.reporting.errors_shown import error_blocks
from marrowflow.reporting.limitations import limitation_section, limitations
from marrowflow.reporting.locked import lock_blocks
from marrowflow.reporting.methods import interval_section
from marrowflow.reporting.primary import Primary, primary_of
from marrowflow.reporting.record import record_section
from marrowflow.reporting.reporter import CommonOptions, Reporter, missing, surrogate_cohorts
from marrowflow.reporting.results import Results, read_json
from marrowflow.reporting.sections import accuracy_sections, banners, flow_blocks, flow_of

log = logging.getLogger(__name__)


def report_external(
    options: CommonOptions, results: Results, cohort: str, hospital: str, source: str, primary: Primary
) -> Path:
    """Write ``report.html`` with its figures for one external cohort.

    Parameters
    ----------
    options
        The sections of the study's configuration.
    results
        Where the results lie and where the page goes.
    cohort, hospital, source
        The cohort's line of the cohort table.
    primary
        The index test that is reported first.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    UserError
        No inventory, predictions or locked threshold, or a primary index test that is none of the study's.
    """
    inventory = {cohort: results.inventory(cohort)}
    reporter = Reporter(options, results, primary, surrogate_cohorts(inventory))
    overview = tables.overview_table(
        inventory, options.classes, {cohort: hospital}, reporter.sources(results.inventory_path(cohort))
    )
    title = f"{reporter.noun(cohort).capitalize()} and images"
    sections = [page.Section(title, "cohort", [overview, _gate_note(results, cohort)])]
    for protocol in progress(options.protocols, f"report of {cohort}", unit="protocol"):
        sections += _protocol_sections(reporter, protocol, cohort, hospital)
    tests = [t for protocol in options.protocols for t in reporter.tests(protocol)]
    sections.append(interval_section(options, reporter.noun(cohort)))
    sections.append(limitation_section(limitations(reporter, inventory, {cohort: "external"})))
    sections.append(record_section(reporter, tests, [cohort]))
    path = results.out / "report.html"
    page.write_page(
        page.Page(
            title=f"{options.study.title}: {hospital}",
            subtitle="External validation",
            notice=options.study.notice,
            banners=banners(inventory, options.protocols),
            facts={
                "Hospital": f"{hospital} (cohort {cohort})",
                "Source of the images": source or tables.MISSING,
                "Primary index test": f"{primary.index_test}, {reporter.how_primary()}",
                "Protocol": ", ".join(options.protocols),
                "Role": "external: no choice was made on these data",
            },
            sections=sections,
        ),
        path,
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
    test = reporter.tests(protocol)[0]
    suffix = f", protocol {protocol}" if len(reporter.options.protocols) > 1 else ""
    flow = flow_of(reporter, test, cohort, development=False)

    def section(
        title: str, name: str, blocks: Sequence[page.Block], below: Sequence[page.Section] = ()
    ) -> page.Section:
        return page.Section(title + suffix, f"{name}-{protocol}", blocks, below, test.leaky)

    compared = comparison_blocks(reporter, protocol, cohort, hospital)
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
        section("Comparison of index tests", "comparison", compared),
        section("Most confident errors", "errors", error_blocks(reporter, test, cohort)),
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
    parser.add_argument("--hospital", required=True, help="its name in the report")
    parser.add_argument("--source", default="", help="where its images come from")
    parser.add_argument("--out", type=Path, required=True, help="folder of report.html and figures/")
    args = parser.parse_args(argv)
    options = read_options(CommonOptions, args.options)
    results, primary = Results(args.results, args.out), primary_of(args.primary)
    path = report_external(options, results, args.cohort, args.hospital, args.source, primary)
    log.info("wrote %s", path)
