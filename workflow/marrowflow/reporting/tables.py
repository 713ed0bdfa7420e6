"""Tables of the reports: numbers that other steps wrote, put into rows that people read.

Nothing is estimated here. What is undefined says so, an interval that was suppressed says why, and
what is not there is printed as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

from marrowflow.config import CLASSES

MISSING = "missing"
PATIENTS, SURROGATES = "patients", "surrogate groups"
"""What the tables count: patients, or what stands for them where a cohort names none."""

# Held together by no-break spaces, so that an interval never breaks in two lines.
_TO = "\u00a0to\u00a0"
_SHORT = 24  # characters of a cell that is kept in one line

METRICS = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "mcc": "MCC",
    "kappa": "κ",
    "average_precision": "average precision",
    "brier": "Brier score",
    "lr_positive": "LR+",
    "lr_negative": "LR−",
    "dor": "diagnostic odds ratio",
}
"""Names of the metrics as people write them, in the order in which tables print them."""

METHODS = {
    "wilson_neff": "Wilson, effective n",
    "logit_t": "ratio estimator, logit, t",
    "jackknife_logit": "leave-one-patient-out, logit, t",
    "newcombe_neff": "Newcombe on effective patients",
    "jackknife_t": "leave-one-patient-out, t",
    "log_robust": "log scale",
    "mover_wilson_neff": "MOVER, effective n",
    "bootstrap_bca": "bootstrap (BCa)",
    "bootstrap_percentile": "bootstrap (percentile)",
    "obuchowski_logit": "Obuchowski, logit",
    "obuchowski": "Obuchowski",
    "delong": "DeLong",
    "clopper_pearson": "Clopper–Pearson",
    "wilson": "Wilson",
    "none": "none",
}
"""Names of the interval methods as people write them."""

HEADLINE_BINARY = (("auc", ""), ("sensitivity", ""), ("specificity", ""))
HEADLINE_CLASSES = (("accuracy", ""), ("balanced_accuracy", ""), ("auc", "macro"))
MEANS = HEADLINE_CLASSES[1:]
"""Those of them that are means over classes."""


@dataclass(frozen=True)
class Link:
    """A cell that leads somewhere: to a file beside the page, or to one of its anchors (``#errors-sound``)."""

    text: str
    href: str


@dataclass(frozen=True)
class Table:
    """A table as a page prints it: cells are text or links; columns in `numeric` are set flush right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    numeric: Sequence[int] = ()
    notes: Sequence[str] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    """Link text → href of the files that the numbers came from."""
    leaky: bool = False

    kind: ClassVar[str] = "table"


def number(value: Any, digits: int = 3) -> str:
    """Return a number with `digits` decimals (fewer from 10 on), or ``undefined`` for NaN."""
    value = float(value)
    if value != value:
        return "undefined"
    if abs(value) == float("inf"):
        return "∞" if value > 0 else "−∞"
    text = (
        f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
    )
    return text.replace("-", "−")


def whole(value: Any) -> str:
    """Return a count without decimals, or an en dash where there is none."""
    value = float("nan") if value == "" else float(value)
    return "–" if value != value else f"{value:.0f}"


def one_of(noun: str) -> str:
    """Return the singular of what stands for patients: ``patients or surrogate groups`` gives ``patient or surrogate group``."""
    return noun[:-1].replace("s or ", " or ")


def method_title(method: str, noun: str = PATIENTS) -> str:
    """Return an interval method's name; of surrogate groups one leaves out a group, not a patient."""
    title = METHODS.get(method, method)
    return title.replace("patient", "group") if noun == SURROGATES else title


def interval(row: Mapping[str, Any], warnings: Sequence[str] = ()) -> str:
    """Return ``low to high`` of a metrics row, or ``no interval: <reason>``."""
    low, high = float(row["low"]), float(row["high"])
    if low == low and high == high:
        return f"{number(low)}{_TO}{number(high)}"
    if float(row["estimate"]) != float(row["estimate"]):
        return "–"
    return f"no interval: {'; '.join(warnings) or 'reason not given'}"


def share(row: Mapping[str, Any]) -> str:
    """Return ``numerator/denominator`` of a metrics row; empty where the metric is no proportion."""
    text = f"{whole(row.get('numerator', ''))}/{whole(row.get('denominator', ''))}"
    return "" if text == "–/–" else text


def estimate(row: Mapping[str, Any]) -> str:
    """Return ``estimate [numerator/denominator]``; only a proportion has the brackets."""
    return number(row["estimate"]) + (f"\u00a0[{share(row)}]" if share(row) else "")


def estimate_with_interval(row: Mapping[str, Any] | None, warnings: Sequence[str] = ()) -> str:
    """Return ``estimate [numerator/denominator] (low to high)`` for a table with one cell a metric.

    Only a proportion has the brackets; without a row the text is ``missing``.
    """
    if row is None:
        return MISSING
    shown = interval(row, warnings)
    return estimate(row) if shown == "–" else f"{estimate(row)} ({shown})"


def primary_row(
    metrics: pd.DataFrame | None, endpoint: str, unit: str, metric: str, name: str = ""
) -> dict[str, Any] | None:
    """Return the metrics row that reports print for a metric and class, or None."""
    if metrics is None:
        return None
    rows = metrics[
        metrics["primary"]
        & metrics["endpoint"].eq(endpoint)
        & metrics["unit"].eq(unit)
        & metrics["metric"].eq(metric)
        & metrics["class"].eq(name)
    ]
    return None if rows.empty else {str(k): v for k, v in rows.iloc[0].items()}


def warnings_of(
    warnings: pd.DataFrame | None,
    endpoint: str,
    unit: str,
    metric: str | None = None,
    name: str | None = None,
) -> list[str]:
    """Return the accuracy step's warnings for an endpoint and unit, of one metric and class if given.

    A warning without endpoint, unit or class speaks of all of them.
    """
    if warnings is None:
        return []
    rows = warnings[warnings["endpoint"].isin(["", endpoint]) & warnings["unit"].isin(["", unit])]
    if metric is not None:
        rows = rows[rows["metric"].eq(metric)]
    if name is not None:
        rows = rows[rows["class"].isin(["", name])]
    return list(dict.fromkeys(rows["warning"]))


def metrics_table(
    metrics: pd.DataFrame,
    warnings: pd.DataFrame | None,
    endpoint: str,
    unit: str,
    classes: Sequence[str],
    title: str,
    confidence: float,
    sources: Mapping[str, str],
    leaky: bool = False,
    remarks: Sequence[str] = (),
    noun: str = PATIENTS,
) -> Table:
    """Return the primary rows of one endpoint and unit, overall values first, then class by class."""
    rows = metrics[metrics["primary"] & metrics["endpoint"].eq(endpoint) & metrics["unit"].eq(unit)]
    order = {name: i for i, name in enumerate(("", "micro", "macro", *classes))}
    metric_order = {name: i for i, name in enumerate(METRICS)}
    ranked = sorted(
        rows.to_dict("records"),
        key=lambda r: (order.get(r["class"], len(order)), metric_order.get(r["metric"], len(metric_order))),
    )
    body = []
    caveats: dict[str, list[str]] = {}
    for row in ranked:
        why = _worded(warnings_of(warnings, endpoint, unit, row["metric"], row["class"]), noun)
        # Why there is no interval stands in its cell; what is odd about one that is there, below.
        for text in why if row["high"] == row["high"] else ():
            caveats.setdefault(text, []).append(metric_title(row["metric"], row["class"]))
        body.append(
            [
                METRICS.get(row["metric"], row["metric"]),
                row["class"] or "–",
                number(row["estimate"]),
                interval(row, why),
                _unbroken(method_title(row["method"], noun)),
                share(row) or "–",
                whole(row["n_patients"]),
                whole(row["n_cases"]),
            ]
        )
    resampled = any(r["method"].startswith("bootstrap") for r in ranked)
    how = [f"The bootstrap resamples {noun} with all their images."] if resampled else []
    notes = [*remarks, *how, *(f"Warning: {text}." for text in wide_warnings(warnings, endpoint, unit, noun))]
    notes += [f"Warning, {', '.join(of)}: {text}." for text, of in caveats.items()]
    with_class = any(r["class"] for r in ranked)
    header = [
        "metric",
        "class",
        "estimate",
        f"{confidence:.0%} interval",
        "interval method",
        "numerator / denominator",
        noun,
        "images",
    ]
    if not with_class:
        header.pop(1)
        for line in body:
            line.pop(1)
    numeric = [
        i for i, name in enumerate(header) if name in {"estimate", noun, "images", "numerator / denominator"}
    ]
    return Table(title, header, body, numeric, notes, sources, leaky)


def _unbroken(text: str) -> str:
    """Keep a short text in one line; a long one would push the last columns off the page."""
    return text.replace(" ", "\u00a0") if len(text) <= _SHORT else text


def wide_warnings(warnings: pd.DataFrame | None, endpoint: str, unit: str, noun: str = PATIENTS) -> list[str]:
    """Return the warnings that no cell prints: those about a whole endpoint or class, in the cohort's noun."""
    if warnings is None:
        return []
    whole_classes = warnings[warnings["metric"].eq("")]
    found = warnings_of(whole_classes, endpoint, unit)
    if noun != PATIENTS:
        # Such a cohort's tables bear a remark of their own on the want of identifiers.
        found = [text for text in found if not text.startswith("no patient identifiers")]
    return _worded(found, noun)


def _worded(texts: Sequence[str], noun: str) -> list[str]:
    return [text.replace(PATIENTS, noun) for text in texts]


def comparison_warnings(
    rows: Mapping[str, pd.DataFrame | None], endpoint: str, unit: str, nouns: Mapping[str, str]
) -> list[str]:
    """Return what a comparison must warn of, each text once, with the cohorts that it holds for.

    Beside the warnings about a whole endpoint or class: those about the means over classes that the
    comparison prints.
    """
    means = [pair for pair in headline(endpoint) if pair in MEANS]
    where: dict[str, list[str]] = {}
    for who, warnings in rows.items():
        found = wide_warnings(warnings, endpoint, unit, nouns[who])
        for pair in means:
            texts = _worded(warnings_of(warnings, endpoint, unit, *pair), nouns[who])
            found += [f"{metric_title(*pair)}: {text}" for text in texts]
        for text in found:
            where.setdefault(text, []).append(who)
    # "6 patients of AML: few" and "5 patients of ALL: few" become "6 patients of AML, 5 patients of ALL: few".
    together: dict[tuple[str, str], list[str]] = {}
    for text, cohorts in where.items():
        subject, _, said = text.partition(": ")
        together.setdefault((", ".join(cohorts), said), []).append(subject)
    return [
        f"Warning, {who}: {', '.join(subjects)}{f': {said}' if said else ''}."
        for (who, said), subjects in together.items()
    ]


def crosstab_table(
    crosstab: pd.DataFrame,
    binary: bool,
    noun: str,
    title: str,
    sources: Mapping[str, str],
    leaky: bool = False,
) -> Table:
    """Return the cross-tabulation of index test (rows) by reference standard (columns)."""
    columns = [f"{'target ' if binary and c in ('present', 'absent') else ''}{c}" for c in crosstab.columns]
    return Table(
        title,
        ["index test", *columns],
        [
            [str(name), *(str(int(v)) for v in row)]
            for name, row in zip(crosstab.index, crosstab.to_numpy(), strict=True)
        ],
        range(1, len(columns) + 1),
        [f"Counts are {noun}. Rows: index test; columns: reference standard."],
        sources,
        leaky,
    )


def counts_table(
    counts: pd.DataFrame,
    classes: Sequence[str],
    title: str,
    sources: Mapping[str, str],
    leaky: bool = False,
    noun: str = PATIENTS,
) -> Table:
    """Return the sizes of the folds: patients (images) by fold, partition and class."""
    order = {name: i for i, name in enumerate(("train", "validation", "test"))}
    rows = []
    grouped = counts.groupby(["fold", "partition"], sort=False)
    for (fold, partition), part in sorted(grouped, key=lambda g: (g[0][0], order.get(g[0][1], 9))):
        cells = {
            r["label"]: f"{whole(r['n_patients'])} ({whole(r['n_cases'])})" for r in part.to_dict("records")
        }
        rows.append([whole(fold), str(partition), *(cells.get(c, "0 (0)") for c in classes)])
    return Table(
        title,
        ["fold", "partition", *classes],
        rows,
        range(2, 2 + len(classes)),
        [f"Cells: {noun} (images)."],
        sources,
        leaky,
    )


def confusion_table(
    counts: pd.DataFrame, noun: str, title: str, sources: Mapping[str, str], leaky: bool = False
) -> Table:
    """Return a confusion matrix (index: reference, columns: predicted) as counts of `noun` with row percentages."""
    body = []
    for name, row in zip(counts.index, counts.to_numpy(), strict=True):
        total = row.sum()
        cells = [f"{v} ({100 * v / total:.0f} %)" if total else str(v) for v in row]
        body.append([str(name), *cells, str(total)])
    header = ["reference", *(str(c).replace("_", " ") for c in counts.columns), "total"]
    notes = [f"Rows: reference; columns: index test. Counts are {noun}; percentages are of the row."]
    return Table(title, header, body, range(1, len(header)), notes, sources, leaky)


def headline(endpoint: str) -> Sequence[tuple[str, str]]:
    """Return the (metric, class) pairs that comparisons print for an endpoint."""
    return HEADLINE_CLASSES if endpoint == CLASSES else HEADLINE_BINARY


def metric_title(metric: str, name: str) -> str:
    """Return a metric's name for a heading, such as ``AUC (macro)``."""
    return METRICS.get(metric, metric) + (f" ({name})" if name else "")


def comparison_table(
    rows: Mapping[str, tuple[pd.DataFrame | None, pd.DataFrame | None]],
    what: str,
    endpoint: str,
    unit: str,
    title: str,
    sources: Mapping[str, str],
    notes: Sequence[str] = (),
    leaky: bool = False,
    noun: str = PATIENTS,
) -> Table:
    """Return one line for each name in `rows` (its metrics and warnings) with the endpoint's headline metrics.

    `noun` is what stands for patients in all lines together.
    """
    body, shares = [], False
    for name, (metrics, warnings) in rows.items():
        line = [name]
        n = None
        for metric, of in headline(endpoint):
            row = primary_row(metrics, endpoint, unit, metric, of)
            n = row["n_patients"] if row and n is None else n
            shares = shares or bool(row and share(row))
            line.append(estimate_with_interval(row, warnings_of(warnings, endpoint, unit, metric, of)))
        body.append([line[0], MISSING if n is None else whole(n), *line[1:]])
    header = [what, noun, *(metric_title(*pair) for pair in headline(endpoint))]
    counted = noun if unit == "patient" else "images"
    how = [f"In brackets: numerator/denominator, in {counted}."] if shares else []
    return Table(title, header, body, [1], [*how, *notes], sources, leaky)


def optimism_table(
    optimism: pd.DataFrame, title: str, sources: Mapping[str, str], noun: str = PATIENTS
) -> Table:
    """Return the published protocol's estimates beside the sound one's, and their difference."""
    body = []
    for row in optimism.to_dict("records"):
        sides = []
        for side in ("leaky", "sound"):
            values = {"estimate": row[side], "low": row[f"{side}_low"], "high": row[f"{side}_high"]}
            shown = number(row[side])
            if values["low"] == values["low"]:
                shown += f" ({interval(values)})"
            sides += [shown, whole(row[f"{side}_n_patients"])]
        name = METRICS.get(row["metric"], row["metric"])
        body.append(
            [name, row["class"] or "–", row["endpoint"], row["unit"], *sides, number(row["optimism"])]
        )
    header = [
        "metric",
        "class",
        "endpoint",
        "unit",
        "as published",
        noun,
        "sound",
        noun,
        "difference",
    ]
    return Table(
        title, header, body, (4, 5, 6, 7, 8), ["Difference: as published minus sound."], sources, True
    )
