"""The choices that were locked on development data: each index test's cut-offs and temperature, in words and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marrowflow.reporting import page, tables
from marrowflow.reporting.reporter import Reporter, mean_of, unit_title
from marrowflow.reporting.results import DEVELOPMENT, IndexTest

_RULES = {
    "youden": "largest sensitivity + specificity − 1 (Youden)",
    "sensitivity": "highest specificity at a sensitivity of at least {value}",
    "specificity": "highest sensitivity at a specificity of at least {value}",
    "fixed": "fixed beforehand at {value}",
}


def fitted_on(lock: Mapping[str, Any]) -> str:
    """Return what the cut-offs were fitted on; empty where none was fitted, as they were fixed beforehand."""
    rule = lock.get("rule") or {}
    return "" if rule.get("rule") == "fixed" else str(lock.get("fitted_on") or "")


def fitting_statement(lock: Mapping[str, Any]) -> str:
    """Say how the development figures stand to the predictions that the threshold was fitted on."""
    source = fitted_on(lock)
    if not source:
        return "The threshold was fixed beforehand."
    if source.startswith("validation"):
        return f"The threshold was fitted on {source}; development figures are of the test rows."
    return "Development sensitivity and specificity are at a threshold fitted on the same out-of-fold predictions."


def fitted_choices(lock: Mapping[str, Any]) -> list[str]:
    """Return which of the locked choices were fitted on development predictions."""
    return [
        *(["threshold"] if lock["endpoints"] and fitted_on(lock) else []),
        *(["temperature"] if _temperature(lock) is not None else []),
    ]


def _temperature(lock: Mapping[str, Any]) -> float | None:
    calibration = lock.get("calibration") or {}
    temperature = calibration.get("temperature")
    return None if calibration.get("method") == "none" else temperature


def calibration_statement(lock: Mapping[str, Any]) -> str:
    """Say how the probabilities were calibrated, or that they were not."""
    calibration = lock.get("calibration") or {}
    temperature = _temperature(lock)
    if not calibration:
        return f"Calibration of the probabilities: {tables.MISSING}."
    if temperature is None:
        return "Probabilities were not calibrated."
    return (
        f"Probabilities were calibrated beforehand at temperature {tables.number(temperature)}"
        + (f", fitted on {calibration['fitted_on']}" if calibration.get("fitted_on") else "")
        + (f" (n = {calibration['n_cases']} images)" if calibration.get("n_cases") is not None else "")
        + "."
    )


def networks_of(reporter: Reporter, test: IndexTest) -> int:
    """Return how many networks an index test has: one a fold, of an ensemble those of all its members; 0 where nothing was divided."""
    # Of the present division's folds: a folder may still hold those of an earlier one.
    if not reporter.results.split_path(test.protocol, "counts.csv").is_file():
        return 0
    paths = (
        reporter.results.training_path(network, fold, "card.json")
        for network in reporter.networks(test)
        for fold in reporter.results.folds(test.protocol)
    )
    return sum(path.is_file() for path in paths)


def head_statements(lock: Mapping[str, Any]) -> list[str]:
    """Say which endpoints were answered by a head of their own, and at which temperature."""
    heads = (lock.get("calibration") or {}).get("heads") or {}
    found = []
    for name in sorted(heads):
        temperature = heads[name].get("temperature")
        calibrated = (
            "" if temperature is None else f", calibrated at temperature {tables.number(temperature)}"
        )
        found.append(f"Endpoint {name} was answered by a head of the network of its own{calibrated}.")
    return found


def development_answers(lock: Mapping[str, Any]) -> str:
    """Return whose answers the development scores are."""
    return str(lock.get("development_answers") or "single networks, out of fold")


def ensemble_statements(lock: Mapping[str, Any], networks: int) -> list[str]:
    """Say whose answers were scored where, and at which temperature; nothing for a single network."""
    if networks == 1:
        return []
    external = lock.get("external_answers") or "mean of the networks of all folds"
    choices = " and ".join(fitted_choices(lock))
    count = f" ({networks} networks)" if networks else ""
    fitted = f"; {choices} {'were' if ' and ' in choices else 'was'} fitted on development's"
    found = [
        f"External scores: {external}{count}. Development scores: {development_answers(lock)}"
        f"{fitted if choices else ''}."
    ]
    by_fold = (lock.get("calibration") or {}).get("by_fold") or {}
    if _temperature(lock) is not None and (by_fold or not _on_validation(lock)):
        values = ", ".join(f"fold {k} {tables.number(by_fold[k])}" for k in sorted(by_fold, key=int))
        found.append(
            "Development rows of each fold were calibrated at the temperature of the other folds"
            + (f": {values}." if values else ".")
        )
    return found


def _on_validation(lock: Mapping[str, Any]) -> bool:
    calibration = lock.get("calibration") or {}
    return str(calibration.get("fitted_on") or lock.get("fitted_on")).startswith("validation")


def lock_blocks(reporter: Reporter, test: IndexTest, applied_to: Sequence[str]) -> list[page.Block]:
    """State each endpoint's threshold: value, rule, what it was fitted on, digest, where it was applied."""
    lock = reporter.results.lock(test)
    rule = lock.get("rule") or {}
    words = _RULES.get(str(rule.get("rule")), str(rule.get("rule", tables.MISSING))).format(
        value=rule.get("value")
    )
    noun = reporter.noun(DEVELOPMENT)
    heads = (lock.get("calibration") or {}).get("heads") or {}
    rows = []
    for name, endpoint in lock["endpoints"].items():
        for unit in reporter.options.units:
            fitted = endpoint.get(unit) or {}
            values = [
                _number_or_missing(fitted.get(key)) for key in ("threshold", "sensitivity", "specificity")
            ]
            n = fitted.get("n")
            rows.append(
                [
                    name,
                    f"own head ({name})" if name in heads else f"sum of {' + '.join(endpoint['positive'])}",
                    unit_title(unit, noun),
                    *values,
                    tables.MISSING if n is None else str(n),
                ]
            )
    header = [
        "endpoint",
        "score",
        "unit",
        "threshold",
        "development sensitivity",
        "development specificity",
        "n",
    ]
    source = fitted_on(lock)
    rule_statement = f"Rule: {words}." + (
        f" Fitted on: {source} of the development cohorts." if source else ""
    )
    members = reporter.members(test)
    statements = [
        *([f"{test.name} answers by the {mean_of(members)}."] if members else []),
        calibration_statement(lock),
        *head_statements(lock),
        *ensemble_statements(lock, networks_of(reporter, test)),
        f"Digest {str(lock.get('digest', tables.MISSING))[:12]}; applied unchanged to "
        + (f"{', '.join(applied_to)}." if applied_to else "no external hospital."),
    ]
    sources = reporter.sources(reporter.results.lock_path(test))
    if not rows:
        return [
            page.Text(["No yes/no endpoint: the predicted class is the one with the largest probability."]),
            page.Text(statements, "note", sources),
        ]
    # The lock describes the predictions that were fitted on, which need not be those of the test rows.
    own = ["Sensitivity, specificity and n of this table are of the validation predictions."]
    return [
        page.Text([rule_statement, *statements, fitting_statement(lock)], "note"),
        tables.Table(
            f"Locked thresholds of {test.name}",
            header,
            rows,
            (3, 4, 5, 6),
            own if source.startswith("validation") else (),
            sources,
            test.leaky,
        ),
    ]


def _number_or_missing(value: Any) -> str:
    return tables.MISSING if value is None else tables.number(value)
