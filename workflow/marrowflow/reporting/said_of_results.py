"""What accuracy, flow, comparisons and locks answer of a checklist, in sentences of counts and estimates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.config import CLASSES
from marrowflow.reporting import tables
from marrowflow.reporting.comparisons import TESTS
from marrowflow.reporting.ground import Ground, Say, called
from marrowflow.reporting.locked import (
    calibration_statement,
    development_answers,
    fitted_on,
    networks_of,
)
from marrowflow.reporting.notes import interval_note
from marrowflow.reporting.reporter import unit_title
from marrowflow.reporting.results import DEVELOPMENT, read_csv

NO_EXTERNAL = "No external hospital."
EVERYBODY = "all"
"""Variable of subgroups.csv whose only group is everybody."""
_LARGEST = 3  # variables of which it is said how far a hospital differs


def _row(ground: Ground, folder: str, endpoint: str, metric: str, of: str) -> dict[str, Any] | None:
    metrics = ground.table(folder, "metrics.csv")
    return tables.primary_row(metrics, endpoint, ground.reporter.unit, metric, of)


def _estimate(ground: Ground, folder: str, endpoint: str, metric: str, of: str) -> str:
    row = _row(ground, folder, endpoint, metric, of)
    warnings = ground.table(folder, "warnings.csv")
    why = tables.warnings_of(warnings, endpoint, ground.reporter.unit, metric, of)
    return f"{tables.metric_title(metric, of)} {tables.estimate_with_interval(row, why)}"


def _n(ground: Ground, folder: str, endpoint: str, metric: str, of: str) -> str:
    row = _row(ground, folder, endpoint, metric, of)
    column = "n_patients" if ground.reporter.unit == "patient" else "n_cases"
    return f"n\u00a0=\u00a0{tables.whole(row[column]) if row else tables.MISSING} {ground.counted(folder)}"


def _said(
    ground: Ground, endpoint: str, asked: Sequence[tuple[str, str]], folders: Iterable[str]
) -> list[str]:
    """Return what an endpoint's metrics are on some sets of patients: its question first, then a sentence each."""
    names = ground.measured
    lines = [
        f"{names[folder][0].upper()}{names[folder][1:]}: "
        f"{', '.join(_estimate(ground, folder, endpoint, *one) for one in asked)}; {_n(ground, folder, endpoint, *asked[0])}."
        for folder in folders
    ]
    confidence = f"{ground.reporter.options.accuracy.confidence:.0%} intervals"
    return [f"Endpoint {ground.question(endpoint)}, {confidence}.", *lines] if lines else []


def headline(ground: Ground) -> Say:
    """Return the first metric of the first endpoint, with interval and n."""
    endpoint = ground.reporter.endpoints[0]
    return [
        f"Index test {ground.test.name}.",
        *_said(ground, endpoint, tables.headline(endpoint)[:1], ground.measured),
    ]


def primary(ground: Ground) -> Say:
    """Return the headline metrics of the first endpoint on all sets of patients."""
    endpoint = ground.reporter.endpoints[0]
    return _said(ground, endpoint, tables.headline(endpoint), ground.measured)


def metrics(ground: Ground) -> Say:
    """Return the headline metrics of all endpoints on all sets of patients."""
    return [
        line
        for endpoint in ground.reporter.endpoints
        for line in _said(ground, endpoint, tables.headline(endpoint), ground.measured)
    ]


def internal(ground: Ground) -> Say:
    """Return the headline metrics of the first endpoint on development data, out of fold."""
    endpoint = ground.reporter.endpoints[0]
    return _said(ground, endpoint, tables.headline(endpoint), [DEVELOPMENT])


def external(ground: Ground) -> Say:
    """Return the headline metrics of the first endpoint at each external hospital."""
    endpoint = ground.reporter.endpoints[0]
    hospitals = [cohort.name for cohort in ground.external]
    return _said(ground, endpoint, tables.headline(endpoint), hospitals) or [NO_EXTERNAL]


def hospitals(ground: Ground) -> Say:
    """Return at which external hospital the first metric of the first endpoint is lowest and highest."""
    endpoint = ground.reporter.endpoints[0]
    metric, of = tables.headline(endpoint)[0]
    rows = {c.hospital: _row(ground, c.name, endpoint, metric, of) for c in ground.external}
    values = {name: float(row["estimate"]) for name, row in rows.items() if row is not None}
    values = {name: value for name, value in values.items() if value == value}
    if not ground.external or not values:
        return [NO_EXTERNAL] if not ground.external else []
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    asked = f"{tables.metric_title(metric, of)} of {ground.question(endpoint)}"
    if len(values) == 1:
        return [f"{asked}, at one external hospital: {tables.number(values[low])} ({low})."]
    return [
        f"{asked}, at {len(values)} external hospitals: lowest "
        f"{tables.number(values[low])} ({low}), highest {tables.number(values[high])} ({high})."
    ]


def precision(ground: Ground) -> Say:
    """Return the half widths that the primary intervals of the first endpoint came to have."""
    endpoint = ground.reporter.endpoints[0]
    asked = tables.headline(endpoint)
    found = []
    for folder, name in ground.measured.items():
        parts = []
        for metric, of in asked:
            row = _row(ground, folder, endpoint, metric, of)
            half = (float(row["high"]) - float(row["low"])) / 2 if row else float("nan")
            shown = tables.number(half) if half == half else "no interval"
            parts.append(f"{tables.metric_title(metric, of)} {shown}")
        found.append(f"{name}: {', '.join(parts)}; {_n(ground, folder, endpoint, *asked[0])}.")
    confidence = f"{ground.reporter.options.accuracy.confidence:.0%}"
    return [
        f"Achieved: half widths of the {confidence} intervals, {ground.question(endpoint)}.",
        *(f"{text[0].upper()}{text[1:]}" for text in found),
    ]


def events(ground: Ground) -> Say:
    """Return how many units each analysis has with and without the target condition, or of each class."""
    found = []
    for endpoint in ground.reporter.endpoints:
        classes = ground.reporter.options.classes if endpoint == CLASSES else None
        for folder, name in ground.measured.items():
            if classes:
                counts = {c: _row(ground, folder, endpoint, "sensitivity", c) for c in classes}
            else:
                counts = {
                    "with": _row(ground, folder, endpoint, "sensitivity", ""),
                    "without": _row(ground, folder, endpoint, "specificity", ""),
                }
            parts = [
                f"{what} {tables.whole(row['denominator']) if row else tables.MISSING}"
                for what, row in counts.items()
            ]
            found.append(f"{endpoint}, {name}, {ground.counted(folder)}: {', '.join(parts)}.")
    return found


def threshold(ground: Ground) -> Say:
    """Return each endpoint's cut-off, the rule and the predictions that it was fitted on, and the lock's digest."""
    lock, unit = ground.lock, ground.reporter.unit
    rule = lock.get("rule") or {}
    value = "" if rule.get("value") is None else f" {rule['value']:g}"
    where = fitted_on(lock)
    how = f"rule {rule.get('rule')}{value}, " + (f"fitted on {where}" if where else "fixed before the run")
    found = []
    for name, endpoint in lock["endpoints"].items():
        own = endpoint.get(unit) or {}
        cut = tables.number(own["threshold"]) if "threshold" in own else tables.MISSING
        n = f" (n = {own['n']})" if where and own.get("n") is not None else ""
        found.append(
            f"{name}, {unit_title(unit, ground.reporter.noun(DEVELOPMENT))}: positive from {cut} on; {how}{n}."
        )
    found = found or ["No yes/no endpoint: the answer is the class with the largest probability."]
    return [*found, f"Digest of the lock {str(lock.get('digest', tables.MISSING))[:12]}."]


def unchanged(ground: Ground) -> Say:
    """Return where the locked choices were applied unchanged."""
    names = [cohort.hospital for cohort in ground.external]
    if not names:
        return [NO_EXTERNAL]
    digest = str(ground.lock.get("digest", tables.MISSING))[:12]
    return [
        f"No updating: networks and locked choices (digest {digest}) applied unchanged to {', '.join(names)}."
    ]


def answers(ground: Ground) -> Say:
    """Return whose answers the scores are, and how they were calibrated."""
    lock = ground.lock
    n = networks_of(ground.reporter, ground.test)
    beyond = lock.get("external_answers") or "mean of the networks of all folds"
    return [
        f"Development scores: {development_answers(lock)}.",
        f"External scores: {beyond} ({n} network{'s' if n != 1 else ''}).",
        calibration_statement(lock),
    ]


def intervals(ground: Ground) -> Say:
    """Return which methods made the intervals of the headline metrics, and how index tests and readers were compared."""
    rows = [
        row
        for folder in ground.measured
        for endpoint in ground.reporter.endpoints
        for metric, of in tables.headline(endpoint)
        if (row := _row(ground, folder, endpoint, metric, of)) is not None
    ]
    accuracy = ground.reporter.options.accuracy
    if not rows:
        return []
    noun = ground.reporter.common_noun(ground.measured)
    note = interval_note(pd.DataFrame(rows), tables.METRICS, accuracy.confidence, noun)
    return [note, f"Bootstrap: {accuracy.replicates} resamples, seed {accuracy.seed}.", *_compared(ground)]


def _compared(ground: Ground) -> list[str]:
    """Return the tests of the comparisons in the primary unit, and the adjustment of their p-values."""
    results, name = ground.reporter.results, "comparisons.csv"
    against = {
        "of index tests": [results.comparison_path(ground.protocol, f, name) for f in ground.measured],
        "with readers": [results.root / "comparisons" / "readers" / f / name for f in ground.measured],
    }
    found = [
        f"Comparisons {whom}, two-sided: {named}."
        for whom, paths in against.items()
        if (named := "; ".join(_tests(ground, paths)))
    ]
    if not found:
        return []
    return [
        *found,
        "Their p-values are adjusted by Holm; a family is all pairs, metrics and classes of one endpoint, unit and set of "
        "patients.",
    ]


def _tests(ground: Ground, paths: Iterable[Path]) -> list[str]:
    """Return each test with the metrics whose printed p-values it gave: ``McNemar’s exact test (accuracy)``."""
    metrics: dict[str, dict[str, None]] = {}
    for path in paths:
        table = read_csv(path)
        if table is None:
            continue
        printed = table["p_holm"].notna() & table["unit"].eq(ground.reporter.unit)
        rows = table[printed & table["endpoint"].isin(ground.reporter.endpoints)]
        for test, metric in zip(rows["test"], rows["metric"], strict=True):
            metrics.setdefault(TESTS.get(test, test), {})[tables.METRICS.get(metric, metric)] = None
    return [f"{test} ({', '.join(of)})" for test, of in metrics.items()]


def flow(ground: Ground) -> Say:
    """Return how many of each hospital were eligible, excluded and tested."""
    found = []
    for cohort in ground.cohorts:
        traced = ground.flow(cohort)
        root = traced.root
        eligible = root["Eligible"]
        n = {
            "potentially eligible": root,
            "excluded": root["Excluded"],
            "eligible": eligible,
            "without index test": eligible["No index test"],
            "with index test": eligible["Index test"],
        }
        parts = ", ".join(f"{box.patients} {what}" for what, box in n.items())
        found.append(f"{called(cohort)}, {traced.noun}: {parts}.")
    return found


def crosstab(ground: Ground) -> Say:
    """Return each hospital's answers by reference standard, row by row."""
    found = []
    for cohort in ground.cohorts:
        traced = ground.flow(cohort)
        table = traced.crosstab
        body = table.drop(index="total", columns="total")
        said = "; ".join(
            f"{answer}: {', '.join(f'{n} {truth}' for truth, n in row.items()) if row.any() else 0}"
            for answer, row in body.iterrows()
        )
        total = table.loc["total", "total"]
        found.append(
            f"{called(cohort)}, {total} {traced.noun}, index test, with results of the reference standard: {said}."
        )
    return found


def errors(ground: Ground) -> Say:
    """Return how many units were classified wrongly: images, where they are a unit of analysis."""
    reporter = ground.reporter
    endpoint = reporter.endpoints[-1]
    unit = "case" if "case" in reporter.options.units else reporter.unit
    found = []
    for folder, name in ground.measured.items():
        row = tables.primary_row(ground.table(folder, "metrics.csv"), endpoint, unit, "accuracy")
        if row is not None:
            wrong = float(row["denominator"]) - float(row["numerator"])
            noun = "images" if unit == "case" else reporter.noun(folder)
            found.append(
                f"Wrong, {endpoint}, {name}: {wrong:.0f} of {tables.whole(row['denominator'])} {noun}."
            )
    return found


def readers(ground: Ground) -> Say:
    """Return κ of each pair of readers who read the same patients."""
    found: list[str] = []
    if not ground.reporter.options.reader_titles:
        return found  # what lies there is of an earlier configuration
    for folder, name in ground.measured.items():
        place = ground.reporter.results.root / "comparisons" / "readers" / folder
        own, agreement = read_csv(place / "metrics.csv"), read_csv(place / "agreement.csv")
        if own is None or agreement is None:
            continue
        # No fold is anybody's who was not trained.
        where = DEVELOPMENT if folder == DEVELOPMENT else name
        who = set(own["index_test"])
        pairs = agreement[
            agreement["primary"]
            & agreement["metric"].eq("kappa")
            & agreement["index_test"].isin(who)
            & agreement["against"].isin(who)
        ]
        found += [
            f"κ of {row['index_test']} and {row['against']}, {row['endpoint']}, {unit_title(row['unit'])}, {where}: "
            f"{tables.number(row['estimate'])} ({tables.interval(row, ['see the table'])})."
            for row in pairs.to_dict("records")
        ]
    return found


def subgroups(ground: Ground) -> Say:
    """Return by which variables accuracy was measured in subgroups, and of how many groups none is given."""
    root = ground.reporter.results.root / "subgroups" / ground.protocol
    found = []
    for folder, name in ground.measured.items():
        rows = read_csv(root / folder / "subgroups.csv")
        if rows is None:
            continue
        groups = rows[rows["variable"].ne(EVERYBODY)].astype({"group": str})
        counts = groups.groupby("variable", sort=False)["group"].nunique()
        parts = ", ".join(f"{variable} ({n})" for variable, n in counts.items())
        given = groups.assign(given=groups["estimate"].notna()).groupby(["variable", "group"])["given"].any()
        found.append(
            f"Subgroups, {name}: {parts or 'none'}; without any estimate {int((~given).sum())} of {len(given)} groups."
        )
    return found


def shift(ground: Ground) -> Say:
    """Return how well each external hospital is told from development within classes, and what differs most."""
    if not ground.external:
        return [NO_EXTERNAL]
    found = []
    for cohort in ground.external:
        folder = ground.reporter.results.root / "shift" / cohort.name
        domain, characteristics = read_csv(folder / "domain.csv"), read_csv(folder / "characteristics.csv")
        parts = [] if domain is None else _told_apart(ground, domain)
        parts += [] if characteristics is None else _largest(characteristics)
        found += [f"{cohort.hospital}: {'; '.join(parts)}."] if parts else []
    confidence = f"{ground.reporter.options.accuracy.confidence:.0%}"
    noun = tables.one_of(ground.reporter.common_noun(ground.measured))
    return (
        [
            f"AUC with which a classifier tells a {noun} of the hospital from one of development, within classes (0.5: a guess; "
            f"{confidence} intervals), by what it is shown; d: standardised difference.",
            *found,
        ]
        if found
        else []
    )


def _told_apart(ground: Ground, domain: pd.DataFrame) -> list[str]:
    """Return the classifiers' AUC by set of features; a leaky network's features are left out where a sound one reports."""
    rows = domain[domain["comparison"].eq("hospital") & domain["within"].eq("class")]
    if ground.reporter.options.protocols[0] != ground.protocol:
        rows = rows[rows["features"].ne("network")]
    titles = {"quality": "image quality", "network": "the network’s features"}
    found = []
    for row in rows.to_dict("records"):
        title = titles.get(row["features"]) or f"{row['features']} ({row['recipe']})"
        known = row["estimate"] == row["estimate"]
        shown = f"{tables.number(row['estimate'])} ({tables.interval(row, [row['reason']])})"
        found.append(f"{title} {shown if known else row['reason']}")
    return found


def _largest(characteristics: pd.DataFrame) -> list[str]:
    """Return the variables that differ most from development, a level of one never by itself."""
    level = characteristics["level"]
    variables = characteristics[level.isna() | level.eq("")].dropna(subset=["difference"])
    size = variables["difference"].abs()
    first = variables.assign(size=size).sort_values("size", ascending=False, kind="stable").head(_LARGEST)
    parts = [f"{_variable(row)} {tables.number(row['size'], 2)}" for row in first.to_dict("records")]
    return [f"largest |d|: {', '.join(parts)}"] if parts else []


def _variable(row: Mapping[str, Any]) -> str:
    name = str(row["variable"]).replace("_", " ")
    return f"{name} ({row['recipe']})" if isinstance(row["recipe"], str) and row["recipe"] else name


def explanations(ground: Ground) -> Say:
    """Return for which sets of patients it is shown where the networks looked."""
    shown = ground.reporter.options.report
    if not (shown.saliency and shown.errors_shown):
        return []  # what lies there is of an earlier configuration
    root = ground.reporter.results.root / "explanations" / ground.protocol
    names = [name for folder, name in ground.measured.items() if (root / folder / "cases.csv").exists()]
    return [f"Maps of where the network looked: {'; '.join(names)}."] if names else []


def outputs(ground: Ground) -> Say:
    """Return how many answers of the primary index test are stored case by case."""
    results, classes = ground.reporter.results, ground.reporter.options.classes
    counts = [
        f"{name} {len(results.predictions(ground.test, folder, classes).table)}"
        for folder, name in ground.measured.items()
        if results.predictions_path(ground.test, folder).is_file()
    ]
    return (
        [f"Answers of {ground.test.name} stored case by case, with checksums: {', '.join(counts)}."]
        if counts
        else []
    )
