"""Limitations that the data themselves show, one sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from marrowflow.config import LEAKY
from marrowflow.reporting import page, tables
from marrowflow.reporting.locked import development_answers, fitted_choices, networks_of
from marrowflow.reporting.reporter import SURROGATE, Reporter
from marrowflow.reporting.weights import non_commercial
from marrowflow.statistics.endpoints import FEW_PATIENTS


def limitations(
    reporter: Reporter, inventories: Mapping[str, pd.DataFrame], roles: Mapping[str, str]
) -> list[str]:
    """Return the limitations that the data themselves show, one sentence each."""
    found = []
    if reporter.options.study.notice:
        found.append(f"Notice of the study: {reporter.options.study.notice}")
    if "as_published" in reporter.options.protocols:
        found.append(
            "The protocol as_published divides by image, so images of one patient can be trained and tested on: "
            f"{LEAKY}."
        )
    development = [c for c in inventories if roles[c] == "development"]
    external = [c for c in inventories if roles[c] == "external"]
    if len(development) == 1:
        found.append("One development cohort: variation between hospitals was not seen in training.")
    if not external:
        found.append("No external validation: all estimates are from the hospitals that were trained on.")
    found += _ensemble_limitation(reporter) if external else []
    if reporter.primary.chosen:
        found.append(f"{reporter.primary.index_test} was {reporter.how_primary()}.")
    found += _licences(reporter)
    for cohort, inventory in inventories.items():
        found += _cohort_limitations(cohort, inventory, reporter.options.classes)
    return found


def _ensemble_limitation(reporter: Reporter) -> list[str]:
    test = reporter.tests(reporter.options.protocols[0])[0]
    lock = reporter.results.lock(test)
    choices = " and ".join(fitted_choices(lock))
    if not choices or networks_of(reporter, test) == 1:
        return []
    return [
        f"External scores are means of the networks of all folds, but {choices} of {test.name} "
        f"{'were' if ' and ' in choices else 'was'} fitted on development scores ({development_answers(lock)}): "
        "averaging can shift scores against the threshold."
    ]


def _licences(reporter: Reporter) -> list[str]:
    under = non_commercial(reporter, reporter.tests(reporter.options.protocols[0]))
    return [
        f"Start weights of {', '.join(models)} are licensed for non-commercial use only ({licence}): that binds whoever uses "
        "the networks made from them."
        for licence, models in under.items()
    ]


def _cohort_limitations(cohort: str, inventory: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    found = []
    noun = tables.PATIENTS
    if inventory["patient_source"].eq("surrogate").any():
        noun = tables.SURROGATES
        found.append(f"{cohort}: {SURROGATE[0].lower()}{SURROGATE[1:]}")
    kept = inventory[inventory["status"].eq("included")]
    usable = kept[kept["reference_status"].eq("ok")]
    per_class = usable.groupby("label")["patient_id"].nunique()
    few = [f"{c} {per_class.get(c, 0)}" for c in classes if 0 < per_class.get(c, 0) < FEW_PATIENTS]
    if few:
        found.append(
            f"{cohort}: fewer than {FEW_PATIENTS} {noun} with {', '.join(few)}; their intervals are unreliable."
        )
    absent = [c for c in classes if not per_class.get(c, 0)]
    if absent:
        found.append(f"{cohort}: no {noun[:-1]} with {', '.join(absent)}; nothing is known about them there.")
    states = kept.groupby("patient_id")["reference_status"].agg(lambda s: s.eq("ok").any())
    without = int((~states.astype(bool)).sum())
    if without:
        found.append(
            f"{cohort}: {without} of {len(states)} {noun} lack a usable reference standard and count in no estimate."
        )
    if "scanner" in kept:
        scanners = sorted({str(s) for s in kept["scanner"].dropna()} - {""})
        if len(scanners) == 1:
            found.append(f"{cohort}: all images come from one scanner ({scanners[0]}).")
    return found


def limitation_section(found: Sequence[str]) -> page.Section:
    """Return the section that prints limitations."""
    return page.Section(
        "Limitations found in the data",
        "limitations",
        [page.Text(found or ["None found by the checks of this report."])],
    )
