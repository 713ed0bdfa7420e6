"""What the publication reports beside what this study found, and what had to be assumed to repeat it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from marrowflow.config import CLASSES, LEAKY, Protocol, PublishedValue, Unit
from marrowflow.files import write_table
from marrowflow.reporting import page, tables
from marrowflow.reporting.reporter import Reporter, unit_title
from marrowflow.reporting.results import DEVELOPMENT, IndexTest
from marrowflow.reporting.study_options import Options


@dataclass(frozen=True)
class Ours:
    """What this study has to set beside a published value: its metrics row, or why there is none."""

    row: dict[str, Any] | None
    why: str = ""

    @property
    def estimate(self) -> float:
        """The point estimate; NaN where there is none."""
        return float("nan") if self.row is None else float(self.row["estimate"])


def published_section(reporter: Reporter, options: Options) -> page.Section | None:
    """Set each published value beside ours under every protocol, and write ``published.csv``; None where none is given."""
    if not options.published:
        return None
    found = [
        {protocol: ours_of(reporter, protocol, value) for protocol in options.protocols}
        for value in options.published
    ]
    path = reporter.folder / "published.csv"
    write_table(
        path,
        pd.DataFrame(
            [
                _record(value, _unit(reporter, value), protocol, ours)
                for value, by_protocol in zip(options.published, found, strict=True)
                for protocol, ours in by_protocol.items()
            ]
        ),
    )
    header = ["index test and metric", "published"]
    for protocol in options.protocols:
        header += [_heading(reporter, protocol), "n", "difference"]
    body = [
        _line(reporter, value, by_protocol)
        for value, by_protocol in zip(options.published, found, strict=True)
    ]
    numeric = [i for i, name in enumerate(header) if name in ("n", "difference")]
    notes = [
        "Difference: ours minus published, of the unrounded numbers. Patients, images, divisions and intervals are not the "
        "publication’s: agreement proves nothing, and neither does its want. No result of this page depends on a published value.",
        "n: units of analysis with a reference and an answer; of a proportion, its denominator.",
        *reporter.remarks(DEVELOPMENT),
    ]
    leaky = "as_published" in options.protocols
    table = tables.Table(
        f"Published values beside ours ({reporter.options.accuracy.confidence:.0%} intervals)",
        [*header, "where it stands"],
        body,
        numeric,
        notes,
        reporter.sources(path),
        leaky,
    )
    return page.Section("Published values beside ours", "published", [table])


def ours_of(reporter: Reporter, protocol: Protocol, value: PublishedValue) -> Ours:
    """Find the estimate that belongs beside a published value, or say why there is none."""
    test = IndexTest(protocol, value.index_test)
    metrics = reporter.results.accuracy(test, value.cohort, "metrics.csv")
    if metrics is None:
        path = reporter.results.accuracy_path(test, value.cohort, "metrics.csv")
        return Ours(None, f"there is no {reporter.results.href(path)}")
    unit = _unit(reporter, value)
    row = tables.primary_row(metrics, value.endpoint, unit, value.metric, value.class_name)
    if row is None:
        return Ours(None, _why(metrics, value, unit))
    if row["estimate"] != row["estimate"]:
        warnings = reporter.results.accuracy(test, value.cohort, "warnings.csv")
        said = tables.warnings_of(warnings, value.endpoint, unit, value.metric, value.class_name)
        reasons = said if any(text.startswith("undefined") for text in said) else ["undefined", *said]
        return Ours(None, "; ".join(reasons))
    return Ours(row)


def assumed_section(options: Options) -> page.Section | None:
    """List the values that the publication does not give, with what this study takes and why; None where none is marked."""
    if not options.assumed:
        return None
    rows = [[place, _value_at(options, place), reason] for place, reason in options.assumed.items()]
    table = tables.Table(
        "Assumed: values that the publication does not give", ["place", "value in this study", "reason"], rows
    )
    return page.Section("Assumed values", "assumed", [table])


def _unit(reporter: Reporter, value: PublishedValue) -> Unit:
    return value.unit or reporter.unit


def _why(metrics: pd.DataFrame, value: PublishedValue, unit: Unit) -> str:
    """Say which of the things that a row is found by the table does not have."""
    rows = metrics[metrics["primary"]]
    for column, wanted in (("endpoint", value.endpoint), ("unit", unit), ("metric", value.metric)):
        rows = rows[rows[column].eq(wanted)]
        if rows.empty:
            return f"metrics.csv has no {column} {wanted}" + (
                f" of {value.endpoint}" if column != "endpoint" else ""
            )
    known = ", ".join(str(name) or "none" for name in dict.fromkeys(rows["class"]))
    return f"metrics.csv has {value.metric} of class {known}, not of {value.class_name or 'none'}"


def _line(reporter: Reporter, value: PublishedValue, found: dict[Protocol, Ours]) -> list[str]:
    unit = unit_title(_unit(reporter, value), reporter.noun(value.cohort))
    endpoint = "all classes" if value.endpoint == CLASSES else value.endpoint
    about = f"{value.index_test}: {tables.metric_title(value.metric, value.class_name)}, {endpoint}, {unit}"
    line = [about if value.cohort == DEVELOPMENT else f"{about}, {value.cohort}"]
    limits = [_given(v) for v in (value.low, value.high) if v is not None]
    line.append(
        _given(value.value) + (f" ({f'{chr(0xA0)}to{chr(0xA0)}'.join(limits)})" if len(limits) == 2 else "")
    )
    for ours in found.values():
        if ours.row is None:
            line += [f"{tables.MISSING}: {ours.why}", "–", "–"]
            continue
        shown = tables.interval(ours.row)
        line += [
            tables.number(ours.estimate)
            + (f" ({shown})" if ours.row["low"] == ours.row["low"] else " (no interval)"),
            _n(ours.row, _unit(reporter, value)),
            _signed(ours.estimate - value.value),
        ]
    return [*line, value.where or "–"]


def _n(row: dict[str, Any], unit: Unit) -> str:
    denominator = tables.whole(row.get("denominator", ""))
    return (
        denominator
        if denominator != "–"
        else tables.whole(row["n_patients" if unit == "patient" else "n_cases"])
    )


def _heading(reporter: Reporter, protocol: Protocol) -> str:
    if len(reporter.options.protocols) == 1:
        return "ours"
    return f"ours, {protocol}" + (f" ({LEAKY})" if protocol == "as_published" else "")


def _given(value: float) -> str:
    """Return a published number with the digits that it was given with."""
    return f"{value:.10g}".replace("-", "−")


def _signed(value: float) -> str:
    # A difference that rounds to nothing has no sign.
    return tables.number(0.0) if round(value, 3) == 0 else f"{'+' if value > 0 else ''}{tables.number(value)}"


def _record(value: PublishedValue, unit: Unit, protocol: Protocol, ours: Ours) -> dict[str, Any]:
    keys: Sequence[str] = (
        "estimate",
        "low",
        "high",
        "method",
        "numerator",
        "denominator",
        "n_cases",
        "n_patients",
    )
    return {
        "index_test": value.index_test,
        "cohort": value.cohort,
        "endpoint": value.endpoint,
        "metric": value.metric,
        "class": value.class_name,
        "unit": unit,
        "published": value.value,
        "published_low": value.low,
        "published_high": value.high,
        "protocol": protocol,
        **{key: None if ours.row is None else ours.row[key] for key in keys},
        "difference": None if ours.row is None else ours.estimate - value.value,
        "missing": ours.why,
        "where": value.where,
    }


def _value_at(options: Options, place: str) -> str:
    """Return a value of the configuration by its place, as YAML would spell it."""
    section, *parts = place.split(".")
    if section not in options.model_fields_set:
        return f"{tables.MISSING}: the report is not told of {section}"
    here: Any = options.model_dump(mode="json")[section]
    for part in parts:
        if not isinstance(here, dict) or part not in here:
            return f"{tables.MISSING}: there is no {place}"
        here = here[part]
    return here if isinstance(here, str) else json.dumps(here, ensure_ascii=False)
