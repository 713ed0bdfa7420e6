"""The description of a whole run: run.json, lineage.csv, lineage.html and an RO-Crate.

It runs last, when Snakemake has recorded all other jobs; see `run`, `lineage`, `page` and `crate` for what each holds.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marrowflow.cli import step_parser
from marrowflow.cohorts.table import Cohort, read_cohorts
from marrowflow.config import Study, read_options
from marrowflow.files import write_json, write_table, write_text
from marrowflow.provenance import PACKAGE, code_digest
from marrowflow.records.crate import write_crate
from marrowflow.records.jobs import Job, read_jobs
from marrowflow.records.lineage import Names, is_inside, trace
from marrowflow.records.page import write_lineage_page
from marrowflow.records.run import run_record, without_places

RULE, STEP = "describe_run", "records.describe"


@dataclass(frozen=True)
class Outputs:
    """What is written, below the study's folder of results."""

    root: Path

    @property
    def configuration(self) -> Path:
        """The configuration that ran, with its defaults."""
        return self.root / "configuration.json"

    @property
    def sources(self) -> Path:
        """Copies of the workflow's rules and of the cohort table."""
        return self.root / "run"

    @property
    def record(self) -> Path:
        """The run's record."""
        return self.root / "run.json"

    @property
    def table(self) -> Path:
        """The lineage as a table."""
        return self.root / "lineage.csv"

    @property
    def page(self) -> Path:
        """The lineage as a page."""
        return self.root / "lineage.html"

    @property
    def crate(self) -> Path:
        """The crate's metadata."""
        return self.root / "ro-crate-metadata.json"


def describe_run(
    study: Study,
    root: Path,
    records: Path,
    results: Sequence[Path],
    options: str,
    log: str,
    snakemake: str,
    configfiles: Sequence[str],
) -> None:
    """Describe a finished run; called in the folder in which Snakemake ran.

    Parameters
    ----------
    study
        The validated configuration.
    root
        The study's folder of results, relative to the working directory.
    records
        Snakemake's records of its jobs (``.snakemake/metadata``).
    results
        What the run was for: its reports.
    options, log
        Of the job that describes, which Snakemake records only when it is over.
    snakemake
        Version of Snakemake.
    configfiles
        Configuration files that Snakemake was given.
    """
    out, cohorts = Outputs(root), read_cohorts(Path(study.cohorts))
    write_json(out.configuration, without_places(study.model_dump(mode="json")))
    _copy_sources(PACKAGE.parents[1], Path(study.cohorts), cohorts, Names(root), out.sources)
    later = [out.record, out.table, out.page, out.crate]
    own = Job(
        RULE,
        tuple(sorted(path.as_posix() for path in (out.configuration, out.sources, *later))),
        tuple(sorted(path.as_posix() for path in results)),
        log,
        STEP,
        code_digest(STEP),
        options,
        started=time.time(),
    )
    jobs = read_jobs(records, root.as_posix(), own)
    lineage = trace(jobs, root, own.outputs, [path.as_posix() for path in later])
    write_json(out.record, run_record(study, cohorts, lineage, root, snakemake, configfiles))
    write_table(out.table, lineage.table())
    write_lineage_page(lineage, study.study.title, out.page)
    below = {path: lineage.names.of(path.as_posix()) for path in (out.configuration, out.record, *results)}
    write_crate(
        study,
        lineage,
        root,
        "run/Snakefile",
        snakemake,
        {"configuration": below[out.configuration], "cohort table": "run/cohorts.tsv"},
        {"run record": below[out.record], **{below[path]: below[path] for path in results}},
        time.time(),
        out.crate,
    )


def _copy_sources(project: Path, table: Path, cohorts: Sequence[Cohort], names: Names, folder: Path) -> None:
    """Copy the workflow's rules and the cohort table; manifests outside the project lose their place."""
    shutil.rmtree(folder, ignore_errors=True)
    for source in (project / "Snakefile", *sorted((project / "workflow/rules").glob("*.smk"))):
        write_text(folder / source.relative_to(project), source.read_text(encoding="utf-8"))
    text = table.read_text(encoding="utf-8-sig")
    for manifest in {cohort.manifest for cohort in cohorts}:
        if not is_inside(manifest):
            text = text.replace(manifest, names.of(manifest))
    write_text(folder / "cohorts.tsv", text)


def main(argv: Sequence[str]) -> None:
    """Describe a run; ``--options`` is the whole configuration."""
    parser = step_parser(STEP, "Describe a finished run: its record, the lineage of its files, an RO-Crate.")
    parser.add_argument("--root", type=Path, required=True, help="the study's folder of results")
    parser.add_argument("--records", type=Path, required=True, help="Snakemake's records of its jobs")
    parser.add_argument(
        "--results", type=Path, nargs="+", required=True, help="what the run was for: its reports"
    )
    parser.add_argument("--log", default="", help="this job's log")
    parser.add_argument("--snakemake", default="", help="version of Snakemake")
    parser.add_argument(
        "--configfiles", nargs="*", default=[], help="configuration files that Snakemake was given"
    )
    args = parser.parse_args(argv)
    study = read_options(Study, args.options)
    describe_run(
        study, args.root, args.records, args.results, args.options, args.log, args.snakemake, args.configfiles
    )
