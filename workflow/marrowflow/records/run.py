"""The record of a run: code, configuration, software, devices, seeds, costs and the checksums of all inputs.

Its times differ from run to run, and so do its bytes. No path outside the project and no name of a machine or a
person is in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import pandas as pd

from marrowflow import __version__
from marrowflow.cohorts.table import Cohort
from marrowflow.config import Study
from marrowflow.provenance import PACKAGE
from marrowflow.records import software
from marrowflow.records.benchmarks import summed
from marrowflow.records.jobs import code_now
from marrowflow.records.lineage import Lineage, is_inside, moment, options_digest

ABOUT = (
    "What ran, on what, with what. It holds times, and is therefore not the same byte for byte when the same study "
    "runs again; the results are."
)
_UNITS = {"seconds": "s", "memory": "MiB", "times": "UTC"}
SEEDS = ("seed", "seeds")


def run_record(
    study: Study,
    cohorts: Sequence[Cohort],
    lineage: Lineage,
    root: Path,
    snakemake: str,
    configfiles: Sequence[str],
) -> dict[str, Any]:
    """Return the record of a run, ready for JSON.

    Parameters
    ----------
    study
        The validated configuration, with its defaults.
    cohorts
        The cohort table.
    lineage
        All files and jobs.
    root
        The study's folder of results.
    snakemake
        Version of Snakemake that ran.
    configfiles
        The configuration files that it was given.
    """
    configuration = without_places(study.model_dump(mode="json"))
    started = [job.started for job in lineage.jobs.jobs if job.started is not None]
    ended = [job.ended for job in lineage.jobs.jobs if job.ended is not None]
    return {
        "about": ABOUT,
        "study": {"key": study.study.key, "title": study.study.title},
        "marrowflow": __version__,
        "source": software.commit(PACKAGE.parents[1]),
        "code": _code(lineage),
        "command": {
            "workflow": "Snakefile",
            "configfiles": [c if is_inside(c) else Path(c).name for c in configfiles],
            "snakemake": snakemake,
        },
        "machine": software.machine(),
        "environments": software.environments(lineage.jobs),
        "trained_with": _trained_with(lineage, root),
        "devices": _devices(lineage, root),
        "seeds": dict(_seeds(configuration)),
        "configuration": configuration,
        "assumed": {
            place: {"value": _at(configuration, place), "why": why}
            for place, why in sorted(study.assumed.items())
        },
        "started": moment(min(started, default=None)),
        "ended": moment(max(ended, default=None)),
        "costs": _costs(lineage),
        "inputs": _inputs(study, cohorts, lineage, root),
        "options": {
            options_digest(job): without_places(_loaded(job.options))
            for job in lineage.jobs.jobs
            if job.options
        },
        "records": {
            "jobs": len(lineage.jobs.jobs),
            "files": len(lineage.entries),
            "notes": list(lineage.jobs.notes),
            "odd_files": {entry.name: entry.note for entry in lineage.entries if _is_odd(entry.note)},
        },
    }


def without_places(value: Any) -> Any:
    """Return a value of the configuration in which paths that leave the project are reduced to their last name."""
    if isinstance(value, dict):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    if isinstance(value, str) and "\n" not in value and _leaves(value):
        return f"(outside the project)/{PureWindowsPath(value).name}"
    return value


def parameter_text(parameter: str) -> str:
    """Return a job's parameter without places, also those within a JSON text."""
    value = _loaded(parameter) if parameter.startswith(("{", "[")) else parameter
    told = without_places(value)
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)


def _leaves(text: str) -> bool:
    """Whether a text is a path out of the project; POSIX or Windows."""
    return re.match(r"(?:/[^\s/]|~/|[A-Za-z]:[\\/]|\\\\|\.\.[\\/])", text) is not None


def _code(lineage: Lineage) -> dict[str, Any]:
    """Return each rule's step with the digests of its code when its jobs ran, the digest now, and whether they agree.

    ``same`` is None where that cannot be told: where the code that ran is unknown.
    """
    modules: dict[str, str] = {}
    digests: dict[str, set[str]] = defaultdict(set)
    for job in lineage.jobs.jobs:
        modules[job.rule] = job.module
        digests[job.rule].add(job.code or "unknown")
    found = {}
    for rule, module in sorted(modules.items()):
        now, known = code_now(module), digests[rule] - {"unknown"}
        if known - {now}:
            same: bool | None = False
        else:
            same = True if known == digests[rule] else None
        found[rule] = {
            "module": module,
            "ran": sorted(digests[rule]),
            "now": now or ("no such module" if module else "unknown"),
            "same": same,
        }
    return found


def _costs(lineage: Lineage) -> dict[str, Any]:
    jobs = lineage.jobs.jobs
    rules = sorted({job.rule for job in jobs})
    return {
        "units": _UNITS,
        "source": "benchmarks/<rule>/….tsv, as Snakemake samples them; the describing job itself is not over yet",
        "rules": {
            rule: summed(lineage.costs[job.outputs] for job in jobs if job.rule == rule) for rule in rules
        },
        "all": summed(lineage.costs[job.outputs] for job in jobs),
    }


def _inputs(study: Study, cohorts: Sequence[Cohort], lineage: Lineage, root: Path) -> dict[str, Any]:
    """Return the checksums of all that came from outside: tables, manifests, images, weights."""
    configured: dict[str, list[str]] = {
        "cohort table": [study.cohorts],
        "label map": [study.label_map] if study.label_map else [],
        "weights": sorted(
            {
                m.weights
                for m in study.models.values()
                if m.mode != "scratch" and m.weights not in ("imagenet", "none")
            }
        ),
        "colour targets": sorted({recipe.target for recipe in study.colour.values() if recipe.target}),
        "readers": sorted({path for reader in study.readers.values() for path in _tables(reader.table)}),
    }
    found: dict[str, Any] = {
        kind: [_file(path, lineage) for path in paths] for kind, paths in configured.items()
    }
    found["cohorts"] = {
        cohort.name: {
            "role": cohort.role,
            "manifest": _file(cohort.manifest, lineage),
            "images": images_of(root / "cohorts" / cohort.name / "inventory.parquet"),
        }
        for cohort in cohorts
    }
    return found


def _tables(table: str | Mapping[str, str]) -> Sequence[str]:
    """Return a reader's tables: one, or one a cohort."""
    return [table] if isinstance(table, str) else list(table.values())


def images_of(inventory: Path) -> dict[str, Any] | None:
    """Sum up the images of an inventory; None when there is none.

    Returns
    -------
    dict
        ``images``, ``included``, ``bytes``, and ``sha256``: the SHA-256 of the images' own SHA-256, one a line in the
        order of the manifest (an image that could not be read is an empty line).
    """
    if not inventory.is_file():
        return None
    table = pd.read_parquet(inventory, columns=["sha256", "bytes", "status"])
    lines = "".join(f"{digest}\n" for digest in table["sha256"].fillna(""))
    return {
        "images": len(table),
        "included": int(table["status"].eq("included").sum()),
        "bytes": int(table["bytes"].fillna(0).sum()),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "sha256_of": "the images' SHA-256 (column sha256 of the inventory), one a line in the order of the manifest",
    }


def _file(path: str, lineage: Lineage) -> dict[str, Any]:
    name = lineage.names.of(path)
    entry = lineage.by_name.get(name)
    if entry is None or not entry.sha256:
        return {
            "file": name,
            "sha256": None,
            "note": "not read by any recorded job" if entry is None else entry.note,
        }
    return {"file": name, "sha256": entry.sha256, "bytes": entry.size}


def _devices(lineage: Lineage, root: Path) -> list[dict[str, Any]]:
    """Return the devices that trained, each with its number of networks and seconds."""
    networks: dict[str, list[float]] = defaultdict(list)
    for cost in _trainings(lineage, root, "cost.json"):
        networks[str(cost.get("device", "unknown"))].append(float(cost.get("device_seconds") or 0.0))
    return [
        {"device": device, "networks": len(seconds), "training_seconds": round(sum(seconds), 3)}
        for device, seconds in sorted(networks.items())
    ]


def _trained_with(lineage: Lineage, root: Path) -> dict[str, list[str]]:
    """Return the versions that the networks' cards name: more than one where they were trained at different times."""
    versions: dict[str, set[str]] = defaultdict(set)
    for card in _trainings(lineage, root, "card.json"):
        for name, version in (card.get("versions") or {}).items():
            versions[name].add(str(version))
    return {name: sorted(found) for name, found in sorted(versions.items())}


def _trainings(lineage: Lineage, root: Path, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield what the study's networks tell; those that an earlier configuration left on disk do not count."""
    upstream = {entry.path for entry in lineage.entries if entry.upstream}
    for path in sorted((root / "training").glob(f"*/*/*/*/{name}")):
        if path.as_posix() not in upstream:
            continue
        content = _loaded(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            yield content


def _seeds(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every seed of the configuration with its place."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        here = f"{place}.{key}" if place else str(key)
        if key in SEEDS:
            yield here, item
        else:
            yield from _seeds(item, here)


def _at(configuration: Any, place: str) -> Any:
    for part in place.split("."):
        configuration = configuration[part]
    return configuration


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_odd(note: str) -> bool:
    return note.startswith(("changed since", "no longer", "no record"))
