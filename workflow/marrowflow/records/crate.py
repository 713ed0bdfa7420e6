"""A run as an RO-Crate: the files with their checksums, the workflow, and one action for every job.

RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) in the profiles Process, Workflow and Provenance Run Crate 0.5
(https://w3id.org/ro/wfrun; Leo et al. 2024, doi:10.1371/journal.pone.0309210). What lies outside the folder of results
cannot be a file of the crate: it is described by its name and checksum.
"""

from __future__ import annotations

import mimetypes
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from marrowflow import __version__
from marrowflow.config import Study
from marrowflow.files import sha256_of, write_json
from marrowflow.records.jobs import Job
from marrowflow.records.lineage import Entry, Lineage, moment, options_digest

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
# RO-Crate 1.1 is older than schema.org's property.
_SHA256 = "http://schema.org/sha256"
_MEDIA_TYPES = {
    ".npy": "application/octet-stream",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/octet-stream",
    ".smk": "text/x-python",
    "": "text/x-python",  # Snakefile
}


def write_crate(
    study: Study,
    lineage: Lineage,
    root: Path,
    workflow: str,
    snakemake: str,
    inputs: Mapping[str, str],
    results: Mapping[str, str],
    ended: float,
    out: Path,
) -> None:
    """Write ``ro-crate-metadata.json``.

    Parameters
    ----------
    study
        The configuration: the title, the notice and the terms of use come from it.
    lineage
        All files and jobs; files that were written since it was made get their checksum here.
    root
        The study's folder of results, which is the crate.
    workflow
        The Snakefile's copy, by its path below the root.
    snakemake
        Version of Snakemake that ran.
    inputs, results
        What the whole run took and gave: a word for each, and the file by its path below the root.
    ended
        When the last job ended, in seconds since 1970.
    out
        The crate's metadata file.
    """
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms["sha256"] = _SHA256
    crate.name = study.study.title
    crate.description = study.study.notice or f"Results of the marrowflow study {study.study.key}"
    crate.license = _terms(crate, study)
    crate.root_dataset["conformsTo"] = [
        crate.add(
            ContextEntity(
                crate, uri, {"@type": "CreativeWork", "name": name, "version": uri.rpartition("/")[2]}
            )
        )
        for uri, name in PROFILES.items()
    ]
    files = _Files(crate, lineage, root, workflow, snakemake)
    for entry in lineage.entries:
        if entry.path != out.as_posix():
            files.add(entry)
    main = crate.mainEntity
    main["input"] = [_parameter(crate, "input", word, files.of(path)) for word, path in inputs.items()]
    main["output"] = [_parameter(crate, "output", word, files.of(path)) for word, path in results.items()]
    _describe_jobs(crate, main, lineage, files, snakemake, inputs, results, ended)
    write_json(out, crate.metadata.generate())


def media_type(path: Path) -> str:
    """Return a file's media type by its suffix."""
    return (
        _MEDIA_TYPES.get(path.suffix)
        or mimetypes.guess_type(path.name, strict=False)[0]
        or "application/octet-stream"
    )


class _Files:
    """The crate's entities of files, by their name in the lineage."""

    def __init__(self, crate: ROCrate, lineage: Lineage, root: Path, workflow: str, snakemake: str) -> None:
        self._crate, self._lineage, self._root = crate, lineage, root
        self._workflow, self._snakemake = workflow, snakemake
        self._entities: dict[str, Entity] = {}

    def add(self, entry: Entry) -> None:
        """Add a file or folder as what it is: part of the crate, or something from outside."""
        path = Path(entry.path)
        if not path.is_relative_to(self._root):
            properties = {"@type": "CreativeWork", "name": entry.name, **_measures(entry)}
            self._entities[entry.name] = self._crate.add(
                ContextEntity(self._crate, f"#{entry.name}", properties)
            )
        elif path.is_dir():
            properties = {
                "name": entry.name,
                **({"description": entry.note} if entry.note else {}),
                **_measures(entry),
            }
            self._entities[entry.name] = self._crate.add_dataset(
                dest_path=f"{entry.name}/", properties=properties
            )
        elif path.is_file():
            properties = {**_measures(entry), "encodingFormat": media_type(path)}
            if not entry.sha256:
                properties |= {"sha256": sha256_of(path), "contentSize": str(path.stat().st_size)}
            if entry.name == self._workflow:
                self._entities[entry.name] = self._main(properties)
            else:
                self._entities[entry.name] = self._crate.add_file(dest_path=entry.name, properties=properties)

    def of(self, path: str) -> Entity | None:
        """Return the entity of a file by its name; None for one that is not there."""
        return self._entities.get(path)

    def all_of(self, paths: Iterable[str]) -> list[Entity]:
        """Return the entities of those paths (as Snakemake writes them) that are there."""
        found = (self._entities.get(self._lineage.names.of(path)) for path in paths)
        return [entity for entity in found if entity is not None]

    def _main(self, properties: dict[str, Any]) -> Entity:
        words = {
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": "marrowflow",
            "version": __version__,
            "conformsTo": {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
        }
        return self._crate.add_workflow(
            dest_path=self._workflow,
            main=True,
            lang="snakemake",
            lang_version=self._snakemake or None,
            properties={**properties, **words},
        )


def _measures(entry: Entry) -> dict[str, str]:
    measures = {"sha256": entry.sha256} if entry.sha256 else {}
    return measures if entry.size is None else {**measures, "contentSize": str(entry.size)}


def _terms(crate: ROCrate, study: Study) -> Entity:
    """Describe who may use the results, in the team's words."""
    stated = study.availability.data
    words = (
        stated
        or "Not stated: the configuration's availability.data is empty. Ask the authors before using the data."
    )
    properties = {"@type": "CreativeWork", "name": "Terms of use", "description": words}
    return crate.add(ContextEntity(crate, "#terms-of-use", properties))


def _parameter(crate: ROCrate, kind: str, word: str, example: Entity | None) -> Entity:
    parameter = crate.add_formal_parameter(
        word, "File", identifier=f"#{kind}-{word.replace(' ', '-')}", valueRequired=True
    )
    if example is not None:
        parameter["workExample"] = example
        example["exampleOfWork"] = parameter
    return parameter


def _describe_jobs(
    crate: ROCrate,
    main: Entity,
    lineage: Lineage,
    files: _Files,
    snakemake: str,
    inputs: Mapping[str, str],
    results: Mapping[str, str],
    ended: float,
) -> None:
    """Add the run, a step and a tool for every rule, and an action for every job."""
    jobs = lineage.jobs.jobs
    starts = [job.started for job in jobs if job.started is not None]
    run = crate.add_action(
        main,
        identifier="#run",
        object=[e for e in map(files.of, inputs.values()) if e is not None],
        result=[e for e in map(files.of, results.values()) if e is not None],
        properties=_times("The run", min(starts, default=None), ended)
        | {"description": f"{len(jobs)} jobs of the marrowflow workflow; run.json holds the record."},
    )
    rules = {}
    for position, rule in enumerate(dict.fromkeys(job.rule for job in jobs)):
        module = next(job.module for job in jobs if job.rule == rule)
        words = {"name": rule, "description": f"python -m marrowflow {module}" if module else rule}
        tool = {"@type": "SoftwareApplication", **words, "softwareVersion": __version__}
        rules[rule] = (
            crate.add(ContextEntity(crate, f"#tool-{rule}", tool)),
            crate.add(
                ContextEntity(
                    crate, f"#step-{rule}", {"@type": "HowToStep", "position": str(position), **words}
                )
            ),
        )
        rules[rule][1]["workExample"] = rules[rule][0]
    main["hasPart"] = [tool for tool, _ in rules.values()]
    main["step"] = [step for _, step in rules.values()]
    parts: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in lineage.entries:
        if entry.job is not None and entry.part_of:
            parts[entry.job.outputs].append(entry.path)
    actions, controls = [run], []
    for number, job in enumerate(jobs):
        tool, step = rules[job.rule]
        action = crate.add_action(
            tool,
            identifier=f"#job-{number}",
            object=_one_or_all(files.all_of(job.inputs)),
            result=_one_or_all(files.all_of([*job.outputs, *parts[job.outputs]])),
            properties=_times(_title(job), job.started, ended if job.ended is None else job.ended)
            | {"description": _ran(job)},
        )
        control = {"@type": "ControlAction", "name": f"Control of job {number}"}
        controls.append(crate.add(ContextEntity(crate, f"#control-{number}", control)))
        controls[-1]["instrument"], controls[-1]["object"] = step, action
        actions.append(action)
    engine = {"@type": "SoftwareApplication", "name": "Snakemake", "url": "https://snakemake.readthedocs.io/"}
    engine |= {"softwareVersion": snakemake} if snakemake else {}
    organised = crate.add(
        ContextEntity(crate, "#organisation", {"@type": "OrganizeAction", "name": "Scheduling of the jobs"})
    )
    organised["instrument"] = crate.add(ContextEntity(crate, "#snakemake", engine))
    organised["object"], organised["result"] = controls, run
    crate.root_dataset["mentions"] = [*actions, organised]


def _one_or_all(entities: Sequence[Entity]) -> Entity | Sequence[Entity]:
    """Return a single entity by itself, as RO-Crate 1.1 wants it."""
    return entities[0] if len(entities) == 1 else entities


def _title(job: Job) -> str:
    _, _, name = job.log.rpartition("/logs/")
    return name.removesuffix(".log").replace("/", " ") or job.rule


def _ran(job: Job) -> str:
    return f"{job.module or job.rule}, code {job.code or 'unknown'}, options {options_digest(job) or 'none'} of run.json"


def _times(name: str, started: float | None, ended: float | None) -> dict[str, str]:
    times = {"startTime": moment(started), "endTime": moment(ended)}
    return {"name": name, **{key: value for key, value in times.items() if value}}
