"""Pack the index test that is reported first into one folder, for hospitals that do not run the workflow.

    python -m marrowflow learning.package --options '{…}' --primary primary.json --locks … --networks … --stores …
        --metrics … --out results/<study>/package

The folder holds the networks of all folds (of all members of an ensemble), the locked calibration and cut-offs, the
preprocessing, a model card, licences, a requirement list, the code that applies it, and checksums of all that (see
``learning.bundle``). ``learning.apply`` is what the other hospital runs.

It is the sound protocol's index test, also in a study that reports a published, leaky one first: cut-offs and accuracy of
a leaky protocol are of no use to anybody else. Nothing external is in a package, so that a new hospital changes none, and
no image: a colour recipe that aims at an image is packed with what was measured on it.
"""

from __future__ import annotations

import ast
import json
import logging
import math
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from marrowflow import __version__
from marrowflow.choices.primary import read_decision
from marrowflow.choices.threshold import read_lock
from marrowflow.cli import existing_file, progress, step_parser
from marrowflow.config import (
    About,
    Accuracy,
    ClassName,
    ColourRecipe,
    Endpoint,
    Identifier,
    Images,
    Intake,
    Model,
    Section,
    Texts,
    Unit,
    read_options,
)
from marrowflow.errors import UserError
from marrowflow.files import note_written, sha256_of, write_json, write_text
from marrowflow.images.fitted import fitted_target
from marrowflow.learning import bundle
from marrowflow.learning.package_words import CODE_LICENCE, licence_warnings, licences, readme
from marrowflow.learning.requirements import requirement_list
from marrowflow.provenance import NAME, code_digest, sources_of
from marrowflow.provenance import PACKAGE as SOURCES

log = logging.getLogger(__name__)

STEPS = ("learning.apply", "statistics.accuracy")
"""What a package can do by itself."""
SHOWN = ("auc", "sensitivity", "specificity", "accuracy", "balanced_accuracy")
"""Metrics in the model card."""


class Options(Section):
    """What a package says and does, besides the networks."""

    study: About
    texts: Texts
    classes: list[ClassName]
    endpoints: dict[Identifier, Endpoint]
    units: list[Unit]
    intake: Intake = Intake()
    images: Images = Images()
    colour: dict[Identifier, ColourRecipe]
    models: dict[Identifier, Model]
    members: dict[Identifier, list[Identifier]] = Field(default={})
    accuracy: Accuracy = Accuracy()


class Parts:
    """The files of all index tests, of which those of one are packed.

    Parameters
    ----------
    locks, networks, stores, metrics
        As the workflow lays them: ``<protocol>/<model>/<colour>/threshold.json``, ``…/<fold>/model.safetensors``,
        ``<cohort>/<colour>/store.json``, ``<protocol>/<model>/<colour>/development/metrics.csv``.
    label_map
        The table from finer labels to classes, where the study has one.
    """

    def __init__(
        self,
        locks: Sequence[Path],
        networks: Sequence[Path],
        stores: Sequence[Path],
        metrics: Sequence[Path],
        label_map: Path | None = None,
    ) -> None:
        self._locks, self._networks, self._stores, self._metrics = locks, networks, stores, metrics
        self.label_map = label_map

    def lock(self, protocol: str, name: str) -> Path:
        """Return the lock of an index test; raise `UserError` where it was not given."""
        return _the_one(self._locks, (protocol, *name.split("-")), "--locks")

    def metrics(self, protocol: str, name: str) -> Path:
        """Return the development metrics of an index test; raise `UserError` where they were not given."""
        return _the_one(self._metrics, (protocol, *name.split("-"), "development"), "--metrics")

    def networks(self, protocol: str, model: str, colour: str) -> list[Path]:
        """Return a model's networks in the order of the folds; raise `UserError` where there is none."""
        place = (protocol, model, colour)
        found = [path for path in self._networks if path.parent.parts[-4:-1] == place]
        if not found:
            raise UserError(
                f"--networks holds none of {'/'.join(place)}; give the model.safetensors of its folds"
            )
        return sorted(found, key=lambda path: int(path.parent.name))

    def recipe(self, colour: str) -> tuple[dict[str, Any], str | None]:
        """Return the recipe that development images were corrected by, and the checksum of its target's image."""
        stores = [path for path in self._stores if path.parent.name == colour]
        if not stores:
            raise UserError(
                f"--stores holds none of the recipe {colour!r}; give the store.json of development"
            )
        abouts = [json.loads(path.read_text(encoding="utf-8")) for path in stores]
        for path, about in zip(stores, abouts, strict=True):
            if any(about[key] != abouts[0][key] for key in ("recipe", "target_sha256", "size", "fit")):
                raise UserError(
                    f"{path} was made by another recipe than {stores[0]}; correct both cohorts anew"
                )
        return abouts[0]["recipe"], abouts[0]["target_sha256"]


def make_package(options: Options, primary: Path, parts: Parts, out: Path) -> str:
    """Write the package, whole or not at all.

    Parameters
    ----------
    options
        The sections of the configuration.
    primary
        Which index test is reported first, and under which protocol that was chosen.
    parts
        The files to choose from.
    out
        The package's folder; a package that stood there before is replaced.

    Returns
    -------
    str
        The package's digest.

    Raises
    ------
    UserError
        A file of the index test that is missing or was changed after it was locked; a colour target other than the one
        that development was corrected by; a folder that holds something else than a package, or cannot be written to.
    """
    decision = read_decision(primary)
    name, protocol = decision["index_test"], decision["protocol"]
    model, colour = name.split("-")
    lock_path = parts.lock(protocol, name)
    lock = read_lock(lock_path)
    members = {
        member: parts.networks(protocol, member, colour) for member in options.members.get(model, [model])
    }
    with _replaced(out) as beside:
        cards = _networks(members, beside)
        write_json(beside / bundle.PREPROCESSING, _preprocessing(options, parts, colour))
        shutil.copyfile(lock_path, beside / bundle.LOCK)
        if parts.label_map is not None:
            shutil.copyfile(parts.label_map, beside / bundle.LABEL_MAP)
        sections = options.model_dump(mode="json", include={"accuracy", "classes", "endpoints", "units"})
        write_json(beside / bundle.ACCURACY, sections)
        card = _card(options, name, protocol, lock, cards, parts)
        write_json(beside / bundle.CARD, card)
        write_text(beside / bundle.REQUIREMENTS, requirement_list(next(iter(cards.values()))[0]["versions"]))
        write_text(beside / bundle.README, readme(card))
        write_text(beside / bundle.LICENCES, licences(card))
        _code(beside / bundle.CODE)
        digest = bundle.sign(beside, card)
    for warning in licence_warnings(card):
        log.warning("%s", warning)
    return digest


def packed_sources() -> list[Path]:
    """Return the files of the program that a package needs, sorted."""
    found = {SOURCES / name for name in ("__init__.py", "__main__.py", "config.py")}
    # Digests do not follow what config imports; a package needs it.
    for name in ("config", "__main__"):
        tree = ast.parse((SOURCES / f"{name}.py").read_text(encoding="utf-8"))
        imported = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        for module in imported:
            if module.startswith(f"{NAME}."):
                found.update(sources_of(module.removeprefix(f"{NAME}.")))
    for step in STEPS:
        found.update(sources_of(step))
    return sorted(found)


@contextmanager
def _replaced(out: Path) -> Iterator[Path]:
    """Yield a new folder beside ``out``: it takes the place of the package there, or goes if the block fails."""
    out = out.resolve()
    beside, before = (out.with_name(f".{out.name}.{state}") for state in ("part", "before"))
    if out.is_file():
        raise UserError(f"--out {out} is a file; choose a folder")
    try:
        if before.is_dir() and not out.exists():  # a job was killed between the two renames below
            before.rename(out)
        if out.exists() and (others := bundle.foreign(out)):
            raise UserError(
                f"--out {out} holds {', '.join(others[:5])}, which is of no package and would be deleted; choose another "
                "folder, or move that away"
            )
        for left in (beside, before):  # by a killed job
            shutil.rmtree(left, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        if out.exists():
            out.rename(before)
        beside.rename(out)
        note_written(out)
        shutil.rmtree(before, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"the package cannot be written to {out} ({error}): mend that, or choose another folder"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _networks(members: Mapping[str, Sequence[Path]], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Copy the networks with their cards; return each model's cards."""
    files = [(model, path) for model, paths in members.items() for path in paths]
    cards: dict[str, list[dict[str, Any]]] = {model: [] for model in members}
    for model, path in progress(files, "pack", unit="networks"):
        target = folder / bundle.NETWORKS / model / path.parent.name
        target.mkdir(parents=True)
        shutil.copyfile(path, target / path.name)
        card = _public(json.loads(path.with_name("card.json").read_text(encoding="utf-8")))
        write_json(target / "card.json", card)
        cards[model].append(card)
    return cards


def _public(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training's card without the path that its weights were read from."""
    model = card["options"]["model"]
    named = {**model, "weights": Path(model["weights"]).name}
    return {**card, "options": {**card["options"], "model": named}}


def _preprocessing(options: Options, parts: Parts, colour: str) -> dict[str, Any]:
    recipe = options.colour[colour]
    corrected_by, target_sha256 = parts.recipe(colour)
    if recipe.model_dump(mode="json") != corrected_by:
        raise UserError(
            f"colour.{colour} of the configuration is not the recipe that development images were corrected by; correct "
            "them anew (images.correct)"
        )
    if target_sha256 is not None and sha256_of(Path(str(recipe.target))) != target_sha256:
        raise UserError(
            f"colour.{colour}.target: {recipe.target} is another image than the one that development images were corrected "
            "towards; put that one back, or correct them anew"
        )
    return {
        "intake": options.intake.model_dump(mode="json"),
        "images": options.images.model_dump(mode="json"),
        "recipe": {**corrected_by, "target": None},
        "target": fitted_target(recipe),
        "target_sha256": target_sha256,
    }


def _card(
    options: Options,
    name: str,
    protocol: str,
    lock: Mapping[str, Any],
    cards: Mapping[str, list[dict[str, Any]]],
    parts: Parts,
) -> dict[str, Any]:
    about, texts = options.study, options.texts
    first = next(iter(cards.values()))[0]
    colour = name.partition("-")[2]
    return {
        "study": about.key,
        "title": about.title,
        "notice": about.notice,
        "index_test": name,
        "protocol": protocol,
        "intended_use": about.intended_use,
        "end_user": about.end_user,
        "acquisition": texts.acquisition,
        "limitations": texts.limitations,
        "classes": list(options.classes),
        "endpoints": {key: endpoint.model_dump() for key, endpoint in options.endpoints.items()},
        "units": list(options.units),
        "labels": "classes" if parts.label_map is None else "label_map",
        "colour": f"{colour}: {options.colour[colour].method}",
        "members": [_member(model, options.models[model], own) for model, own in cards.items()],
        "start_weights": _start_weights(options.models, cards),
        "lock_digest": lock["digest"],
        "cutoffs_fitted_on": lock["fitted_on"],
        "development_answers": lock["development_answers"],
        "accuracy": _accuracy(parts.metrics(protocol, name)),
        "marrowflow": __version__,
        "python": ".".join(str(first["versions"].get("python", platform.python_version())).split(".")[:2]),
        "code": {step: code_digest(step) for step in STEPS},
    }


def _member(model: str, section: Model, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the card says of one model: whose threads its answers are rounded by, and what it was trained on."""
    return {
        "model": model,
        "network": section.network,
        "mode": section.mode,
        "threads": section.training.threads,
        "folds": [{"fold": card["fold"], "data": card["data"]} for card in cards],
    }


def _start_weights(
    models: Mapping[str, Model], cards: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the weights that training started from, each once; a configured licence stands before the card's."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for model, own in cards.items():
        section = models[model]
        configured = section.licence if section.weights not in ("imagenet", "none") else ""
        said = own[0]["weights"]
        key = (str(said["source"]), str(configured or said["licence"]), str(said["sha256"]))
        found.setdefault(key, []).append(model)
    return [
        {"source": source, "licence": licence, "sha256": sha256, "models": using}
        for (source, licence, sha256), using in found.items()
    ]


def _accuracy(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the development metrics that a model card prints."""
    words = dict.fromkeys(("endpoint", "metric", "class", "unit"), "str")
    table = pd.read_csv(
        path, dtype=words, keep_default_na=False, na_values={"estimate": [""], "low": [""], "high": [""]}
    )
    chosen = table["primary"] & table["metric"].isin(SHOWN) & table["class"].isin(["", "macro"])
    rows = []
    for row in table[chosen].to_dict("records"):
        interval = {
            key: None if math.isnan(row[key]) else float(row[key]) for key in ("estimate", "low", "high")
        }
        counts = {key: int(row[key]) for key in ("n_patients", "n_cases")}
        rows.append(
            {key: row[key] for key in ("endpoint", "unit", "metric", "class", "method")} | interval | counts
        )
    return rows


def _code(folder: Path) -> None:
    for source in packed_sources():
        target = folder / NAME / source.relative_to(SOURCES)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    write_text(folder / "LICENSE", CODE_LICENCE)


def _the_one(paths: Iterable[Path], place: tuple[str, ...], flag: str) -> Path:
    for path in paths:
        if path.parent.parts[-len(place) :] == place:
            return path
    raise UserError(f"{flag} holds none of {'/'.join(place)}; give the file of the index test that is packed")


def main(argv: Sequence[str]) -> None:
    """Write the package of the index test that is reported first."""
    parser = step_parser("learning.package", "Pack the index test that is reported first.")
    parser.add_argument("--primary", type=existing_file, required=True, help="primary.json")
    for flag, what in (
        ("--locks", "threshold.json of each index test"),
        ("--networks", "model.safetensors of each fold's network; its card.json lies beside it"),
        ("--stores", "store.json of each development cohort and colour recipe"),
        ("--metrics", "metrics.csv of each index test on development patients"),
    ):
        parser.add_argument(flag, type=existing_file, nargs="+", required=True, metavar="FILE", help=what)
    parser.add_argument("--label-map", type=existing_file, help="CSV with the columns label and class")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the package")
    args = parser.parse_args(argv)
    options = read_options(Options, args.options)
    parts = Parts(args.locks, args.networks, args.stores, args.metrics, args.label_map)
    digest = make_package(options, args.primary, parts, args.out)
    log.info("%s packed, digest %s", args.out, digest)
