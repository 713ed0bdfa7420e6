"""What the figures of the reports are called in ``snakemake --report``, by their files' names.

A file is ``<kind>[_<cohort>][_<outcome>][_<unit>][_as_published].svg``; see `marrowflow.reporting.reporter.stem`. Read
while the workflow is parsed, so it stays light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

KINDS = {
    "calibration": "calibration",
    "confusion": "confusion matrix",
    "curves": "training curves",
    "decision": "decision curve",
    "flow": "flow of patients",
    "forest": "forest plot",
    "networks": "all networks",
    "pooled": "hospitals pooled",
    "pr": "precision-recall curve",
    "predictive_values": "predictive values",
    "readers": "readers",
    "roc": "ROC curve",
    "shift_colour": "shift of colour",
    "shift_features": "shift of features",
    "subgroups": "subgroups",
}
"""Kinds of figures in words; another kind is called by its file's name."""
_DEVELOPMENT = {"development": "development, out of fold"}
_OUTCOMES = {"classes": "all classes"}
_UNITS = {"patient": "patients", "case": "images"}


def figure_labels(hospitals: Mapping[str, str]) -> Callable[[Any], dict[str, str]]:
    """Return a function of a figure's wildcards (``figure``, its name) that gives its labels.

    Parameters
    ----------
    hospitals
        Names of the hospitals by cohort.
    """
    return lambda wildcards: labels_of(wildcards.figure, hospitals)


def labels_of(figure: str, hospitals: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of one figure: what it shows, of whom, about what, counted how, under which protocol.

    All figures have the same labels, so that they stand in one table; what does not apply is a dash.
    """
    rest, leaky = _without(figure, "as_published")
    kind = next((k for k in _longest_first(KINDS) if rest == k or rest.startswith(f"{k}_")), "")
    rest = rest.removeprefix(kind).removeprefix("_")
    places = {**hospitals, **_DEVELOPMENT}
    cohort = next((c for c in _longest_first(places) if rest == c or rest.startswith(f"{c}_")), "")
    rest = rest.removeprefix(cohort).removeprefix("_")
    unit = next((u for u in _UNITS if rest == u or rest.endswith(f"_{u}")), "")
    outcome = _without(rest, unit)[0] if unit else rest
    if not kind:
        kind, outcome = outcome.replace("_", " ") or figure, ""
    return {
        "figure": KINDS.get(kind, kind),
        "patients": places.get(cohort, "–"),
        "outcome or index test": _OUTCOMES.get(outcome, outcome) or "–",
        "unit": _UNITS.get(unit, "–"),
        "protocol": "as published, leaky" if leaky else "sound",
    }


def _without(text: str, last: str) -> tuple[str, bool]:
    """Return a name without its last part, and whether it had it."""
    if text == last:
        return "", True
    return text.removesuffix(f"_{last}"), text.endswith(f"_{last}")


def _longest_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=len, reverse=True)
