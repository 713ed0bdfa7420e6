"""What a run can say about the items of checklists, by name, and where on a page it stands.

The names are those in the column evidence of ``resources/checklists/*.csv``. What is said are counts and named facts of
the results; a name whose run has nothing says nothing, and the checklist prints "not done".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from marrowflow.reporting import said_of_networks as networks
from marrowflow.reporting import said_of_patients as patients
from marrowflow.reporting import said_of_results as results
from marrowflow.reporting.ground import Ground, Say

NOT_DONE = "not done"
IN_STUDY = "In the report of the study."
"""What a hospital's own page says of development."""


@dataclass(frozen=True)
class Evidence:
    """What answers an item.

    Attributes
    ----------
    say
        Returns its sentences.
    places
        Anchors of the sections that show it, the best first; ``{protocol}`` is filled in.
    of_development
        True where it is about development, of which a hospital's own page knows nothing.
    absent
        What is printed where it says nothing.
    """

    say: Callable[[Ground], Say]
    places: tuple[str, ...]
    of_development: bool = False
    absent: str = NOT_DONE


_ACCURACY = ("glance-{protocol}", "forest-{protocol}", "accuracy-{protocol}")
_PATIENTS = ("baseline", "cohorts", "cohort")
_MODEL = ("networks-{protocol}", "settings", "record")

EVIDENCE: dict[str, Evidence] = {
    "headline": Evidence(results.headline, _ACCURACY),
    "participants": Evidence(patients.participants, ("cohorts", "cohort", "flow-{protocol}")),
    "primary": Evidence(results.primary, _ACCURACY),
    "metrics": Evidence(results.metrics, _ACCURACY),
    "order_of_dates": Evidence(patients.order_of_dates, (), absent=""),
    "exclusions": Evidence(patients.exclusions, ("flow-{protocol}",)),
    "sites": Evidence(patients.sites, ("cohorts", "cohort")),
    "sources": Evidence(patients.sources, ("cohorts", "cohort")),
    "readers": Evidence(results.readers, ("readers",), absent=f"Agreement of readers: {NOT_DONE}."),
    "devices": Evidence(
        patients.devices, _PATIENTS, absent="No manifest names a scanner, magnification or resolution."
    ),
    "software": Evidence(networks.software, ("record",)),
    "preprocessing": Evidence(networks.preprocessing, ("settings", "record")),
    "model": Evidence(networks.model, _MODEL),
    "weights": Evidence(networks.weights, _MODEL),
    "training": Evidence(networks.training, ("training-{protocol}", "settings", "record")),
    "imbalance": Evidence(networks.imbalance, ("partitions-{protocol}", "settings", "record")),
    "partitions": Evidence(networks.partitions, ("partitions-{protocol}",), of_development=True),
    "threshold": Evidence(results.threshold, ("threshold-{protocol}",)),
    "intervals": Evidence(results.intervals, ("intervals",)),
    "indeterminate": Evidence(
        patients.indeterminate, ("flow-{protocol}", "development-{protocol}", "accuracy-{protocol}")
    ),
    "missing": Evidence(patients.missing, ("flow-{protocol}",)),
    "subgroups": Evidence(
        results.subgroups, ("subgroups-{protocol}",), absent=f"Accuracy by subgroup: {NOT_DONE}."
    ),
    "precision": Evidence(results.precision, _ACCURACY),
    "errors": Evidence(results.errors, ("errors-{protocol}",)),
    "flow": Evidence(results.flow, ("flow-{protocol}",)),
    "baseline": Evidence(patients.baseline, _PATIENTS),
    "severity": Evidence(patients.severity, _PATIENTS, absent="No manifest gives the severity."),
    "diagnoses": Evidence(patients.diagnoses, _PATIENTS),
    "interval": Evidence(patients.interval, _PATIENTS, absent="No manifest has the dates of both tests."),
    "prevalence": Evidence(patients.prevalence, _PATIENTS),
    "shift": Evidence(
        results.shift, ("shift", *_PATIENTS), absent=f"Comparison with the development data: {NOT_DONE}."
    ),
    "crosstab": Evidence(results.crosstab, ("flow-{protocol}",)),
    "limitations": Evidence(patients.found_limitations, ("limitations",)),
    "version": Evidence(networks.version, ("record",)),
    "outputs": Evidence(results.outputs, ("record",)),
    "hospitals": Evidence(results.hospitals, ("forest-{protocol}", "glance-{protocol}"), of_development=True),
    "unchanged": Evidence(results.unchanged, ("sealed", "threshold-{protocol}")),
    "answers": Evidence(results.answers, ("threshold-{protocol}",)),
    "events": Evidence(results.events, ("glance-{protocol}", "accuracy-{protocol}")),
    "goal": Evidence(patients.goal, ("cohorts",), of_development=True),
    "choice": Evidence(networks.choice, ("networks-{protocol}", "training-{protocol}", "record")),
    "explanations": Evidence(
        results.explanations, ("errors-{protocol}",), absent=f"Maps of where the network looked: {NOT_DONE}."
    ),
    "internal": Evidence(results.internal, ("development-{protocol}",), of_development=True),
    "external": Evidence(results.external, ("external-{protocol}", "accuracy-{protocol}")),
}


def said(names: Collection[str], ground: Ground) -> dict[str, Say]:
    """Return what the run says of each name, in sentences; none where it has nothing."""
    return {
        name: [IN_STUDY]
        if EVIDENCE[name].of_development and not ground.developed
        else EVIDENCE[name].say(ground)
        for name in names
    }


def place_of(name: str, ground: Ground, anchors: Collection[str]) -> str:
    """Return the anchor of the section that shows it, of those that the page has; empty where none does."""
    places = (place.format(protocol=ground.protocol) for place in EVIDENCE[name].places)
    return next((place for place in places if place in anchors), "")
