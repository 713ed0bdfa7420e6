"""The one text that stands for the sections of the configuration that a rule uses.

Snakemake compares ``params`` as an unnamed set of texts, so that two swapped values, or values of
unknown types, would pass unseen. One string with the names in it does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from marrowflow.config import DIAGNOSIS, Study, Texts

# Which colour recipes a model runs on decides which jobs there are, and its licence what is printed: neither what it learns.
_OF_NO_WEIGHT = ("colours", "licence")


def option_string(study: Study, names: Sequence[str], wildcards: Mapping[str, str]) -> str:
    """Return the one JSON string that stands for the sections a rule uses: sorted keys, defaults filled in.

    Parameters
    ----------
    study
        The whole configuration.
    names
        Sections by name; besides those of `Study` the ones of `derived_sections`.
    wildcards
        The job's wildcards. ``model`` and ``colour`` add the sections ``model`` and ``recipe``: one entry of
        ``models`` and of ``colour``, so that editing one retrains that one only; ``model`` adds ``heads`` as well,
        the outcomes that it learns together; ``protocol`` adds ``scheme`` and narrows ``splits`` to that protocol;
        ``reader`` adds ``unit``, for what a reader's row answers.
    """
    whole = study.model_dump(mode="json")
    known = {**whole, **derived_sections(study)}
    if wildcards.get("model") in study.models:
        model = wildcards["model"]
        known["model"] = {k: v for k, v in whole["models"][model].items() if k not in _OF_NO_WEIGHT}
        known["heads"] = heads_of(study, model)
    if wildcards.get("model") in study.aggregators:
        known |= _aggregator_of(study, wildcards["model"], wildcards["colour"])
    if "colour" in wildcards and study.slides is not None:
        known["tiling"] = whole["slides"]["tilings"][wildcards["colour"]]
    elif "colour" in wildcards:
        known["recipe"] = whole["colour"][wildcards["colour"]]
    if "reader" in wildcards:
        known["unit"] = study.readers[wildcards["reader"]].unit
    if "protocol" in wildcards:
        known["scheme"] = scheme_of(study, wildcards["protocol"])
        known["splits"] = _splits_of(whole["splits"], wildcards["protocol"])
    return json.dumps({n: known[n] for n in names}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _aggregator_of(study: Study, name: str, tiling: str) -> dict[str, Any]:
    """Return what the training of one aggregator at one tiling depends on, section by section."""
    own = study.aggregators[name]
    return {
        "aggregation": own.model_dump(mode="json", exclude={"training", "tilings", "instances"}),
        "instances": own.instances_at(tiling),
        "training": own.training.model_dump(mode="json"),
    }


def _splits_of(splits: dict[str, Any], protocol: str) -> dict[str, Any]:
    """Return what one protocol's division depends on: changing the other must not retrain its networks."""
    if protocol == "sound":
        return {key: value for key, value in splits.items() if key not in ("protocol", "as_published")}
    return {key: splits[key] for key in ("protocol", "as_published", "seed")}


def derived_sections(study: Study) -> dict[str, Any]:
    """Return the values that steps need and that follow from several sections or from a part of one."""
    return {
        # Whether pictures are written too decides which rules run, not what any of them makes.
        "augmentation": study.augmentation.model_dump(mode="json", exclude={"materialise"}),
        # Of the report's section, how many cases of a kind are explained.
        "errors_shown": study.report.errors_shown,
        # Of the intake's section, what a manifest is checked by before its first image is fetched.
        "allow_identifiers": study.intake.allow_identifiers,
        "distance": study.intake.near_duplicate_distance,
        "index_tests": study.index_tests,
        "members": {name: study.members_of(name) for name in study.ensembles},
        # Of the report's section, what decides which index test stands first.
        "primary": study.report.model_dump(mode="json", include={"primary", "choose"}),
        "protocols": list(study.splits.protocols),
        # Of the readers, what their measurement depends on: not what they are called, nor which files there are.
        "reader_titles": {
            name: reader.model_dump(mode="json", exclude={"table"}) for name, reader in study.readers.items()
        },
        "reader_units": {name: reader.unit for name, reader in study.readers.items()},
        # Of the slides' section, what each step of theirs depends on.
        **_slides_of(study),
        # Threads are part of what a network answers.
        "threads": {name: model.training.threads for name, model in study.networks.items()},
        # The team's sentences, which the reports print.
        "texts": study.model_dump(mode="json", include=set(Texts.model_fields)),
    }


def _slides_of(study: Study) -> dict[str, Any]:
    if study.slides is None:
        return {}
    whole = study.slides.model_dump(mode="json")
    return {
        "tissue": whole["tissue"],
        "tilings": whole["tilings"],
        "extractor": {key: value for key, value in whole["extractor"].items() if key not in _OF_NO_WEIGHT},
        "map_overlap": whole["map_overlap"],
        # With regions always, tiles lie within anyhow.
        "within": study.slides.regions == "training",
    }


def heads_of(study: Study, model: str) -> dict[str, dict[str, Any]]:
    """Return the outcomes that a model learns together: each with its weight, and its positive classes (None: the classes).

    Empty where the model learns the classes alone, so that an endpoint that is edited retrains nothing but its own heads.
    """
    return {
        name: {
            "weight": weight,
            "positive": None if name == DIAGNOSIS else list(study.endpoints[name].positive),
        }
        for name, weight in study.models[model].heads.items()
    }


def scheme_of(study: Study, protocol: str) -> str:
    """Return how a protocol divides: kfold, monte_carlo, holdout or column."""
    if protocol == "sound":
        return study.splits.scheme
    assert study.splits.as_published is not None  # the validator of Splits saw to it
    return study.splits.as_published.scheme
