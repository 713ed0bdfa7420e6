"""From the tables of the accuracy step to the figures of one endpoint, and their numbers in words.

A table that is not there, or has nothing on the endpoint, costs its figure (or the part of it that it
would have given) and leaves a line that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from marrowflow.reporting import figures, tables
from marrowflow.reporting.drawing import alternative_text
from marrowflow.reporting.figures import Band, Line, Measured

BEFORE = {"calibration": "calibration_uncalibrated", "measures": "calibration_measures_uncalibrated"}
"""Files that say what their siblings say, of the probabilities before calibration; without rows where nothing is calibrated."""

_NOWHERE = Line(np.zeros(0), np.zeros(0))
_ALSO_SAID = (0.1, 0.2, 0.5)
"""Threshold probabilities and prevalences whose values stand in the alternative texts."""


@dataclass(frozen=True)
class Asked:
    """What is to be drawn, and where its tables are had from.

    Attributes
    ----------
    endpoint, unit, classes
        Which rows of the tables; `classes` in the study's order, or ``("",)`` for a yes/no endpoint.
    question, subtitle
        The endpoint as titles name it; whose answers, and n.
    counted
        What a unit is called: patients, surrogate groups, images.
    cutoff
        What the operating point is, such as ``locked cut-off 0.620``.
    confidence
        Coverage of the intervals.
    metrics
        ``metrics.csv``, whole.
    read
        Returns a table of the accuracy step by its file's name, or None.
    leaky
        Stamp the figures.
    """

    endpoint: str
    unit: str
    classes: Sequence[str]
    question: str
    subtitle: str
    counted: str
    cutoff: str
    confidence: float
    metrics: pd.DataFrame
    read: Callable[[str], pd.DataFrame | None]
    leaky: bool = False
    lost: list[str] = field(default_factory=list)
    """What was left out and why; grows as figures are drawn."""

    def rows(self, name: str) -> pd.DataFrame:
        """Return a table's primary rows on the endpoint; empty, with a line in `lost`, where there are none."""
        table = self.read(name)
        if table is not None and {"endpoint", "unit"} <= set(table):
            table = table[table["endpoint"].eq(self.endpoint) & table["unit"].eq(self.unit)]
            if "primary" in table:
                table = table[table["primary"]]
            if not table.empty:
                return table
        self.lost.append(
            f"{tables.MISSING}: {name} has no rows for {self.endpoint}, per "
            f"{'image' if self.unit == 'case' else self.counted[:-1]}"
        )
        return pd.DataFrame({"class": pd.Series(dtype=object), "metric": pd.Series(dtype=object)})

    @property
    def calibrated(self) -> bool:
        """Say whether the study calibrates: the accuracy step then measured the probabilities before calibration, too."""
        table = self.read(f"{BEFORE['calibration']}.csv")
        return table is None or not table.empty

    def metric(self, metric: str, name: str) -> dict[str, Any] | None:
        """Return the printed row of a metric of one class."""
        return tables.primary_row(self.metrics, self.endpoint, self.unit, metric, name)

    def measured(self, metric: str, name: str) -> Measured:
        """Return a metric of one class as figures take it."""
        row = self.metric(metric, name)
        return Measured(*(float(row[k]) for k in ("estimate", "low", "high"))) if row else Measured(np.nan)

    def sizes(self, name: str) -> tuple[float, float]:
        """Return how many units have a class and how many were counted; NaN where no table says so."""
        found = [self.metric(metric, name) for metric in ("sensitivity", "specificity")]
        having, others = (float(row["denominator"]) if row else np.nan for row in found)
        return having, having + others

    def n(self, name: str) -> str:
        """Return ``n = 42 patients, 12 positive``."""
        having, total = self.sizes(name)
        if total != total:
            return f"n {tables.MISSING}"
        return f"n\u00a0=\u00a0{total:.0f} {self.counted}, {having:.0f}\u00a0positive"

    @property
    def interval(self) -> str:
        """What an interval is called."""
        return f"{self.confidence:.0%} interval"


@dataclass(frozen=True)
class Drawing:
    """A drawn figure: its file's name, its title, the same in words, and the tables that it was made from."""

    kind: str
    canvas: Canvas
    title: str
    alternative: str
    files: Sequence[str]


def endpoint_drawings(asked: Asked) -> list[Drawing]:
    """Draw ROC, precision–recall, calibration, decision curve and predictive values of an endpoint.

    What cannot be drawn is named in ``asked.lost``.
    """
    figures_of = (_roc, _precision_recall, _calibration, _decision, _predictive)
    return [drawing for make in figures_of if (drawing := make(asked)) is not None]


def short(row: Mapping[str, Any] | None) -> str:
    """Return estimate and interval for a legend."""
    if row is None:
        return tables.MISSING
    return _short(Measured(*(float(row[k]) for k in ("estimate", "low", "high"))))


def _short(value: Measured) -> str:
    if value.low != value.low or value.high != value.high:
        return f"{tables.number(value.estimate)} (no\u00a0interval)"
    limits = "\u00a0to\u00a0".join(tables.number(limit) for limit in (value.low, value.high))
    return f"{tables.number(value.estimate)} ({limits})"


def _drawing(
    asked: Asked, kind: str, canvas: Canvas, title: str, labels: Sequence[str], files: Sequence[str]
) -> Drawing:
    words = alternative_text(f"{title}: {asked.question}", asked.subtitle, labels)
    return Drawing(kind, canvas, f"{title}: {asked.question}", words, files)


def _by_class(asked: Asked, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each class that has any, in the study's order."""
    found = {name: rows[rows["class"].eq(name)] for name in asked.classes}
    return {name: own for name, own in found.items() if not own.empty}


def _titled(asked: Asked, name: str, words: str) -> str:
    return f"{name}: {words}" if name else words


def _roc(asked: Asked) -> Drawing | None:
    points = _by_class(asked, asked.rows("roc.csv"))
    if not points:
        return None
    asked.lost.extend(
        f"no ROC of {name or asked.endpoint}: undefined without cases of both kinds"
        for name in asked.classes
        if name not in points
    )
    bands = asked.rows("roc_band.csv")
    bands = bands[bands["metric"].eq("tpr_at_fpr")]
    curves = []
    for name, own in points.items():
        sensitivity, specificity = (asked.measured(m, name) for m in ("sensitivity", "specificity"))
        fpr = Measured(1 - specificity.estimate, 1 - specificity.high, 1 - specificity.low)
        band = _band(bands[bands["class"].eq(name)])
        line = Line(own["fpr"].to_numpy(), own["tpr"].to_numpy(), band)
        value = f"AUC {short(asked.metric('auc', name))}"
        curves.append(figures.Curve(name, asked.n(name), value, line, _point(asked, fpr, sensitivity)))
    canvas = figures.roc(
        curves,
        f"ROC: {asked.question}",
        asked.subtitle,
        asked.leaky,
        f"pointwise {asked.interval} of sensitivity",
        _point_words(asked, ("sensitivity", "specificity")),
    )
    labels = [_titled(asked, c.name, f"{c.value}, {c.n}") for c in curves]
    if len(curves) == 1:
        labels.append(_point_words(asked, ("sensitivity", "specificity")))
    return _drawing(asked, "roc", canvas, "ROC", labels, ["roc.csv", "roc_band.csv", "metrics.csv"])


def _precision_recall(asked: Asked) -> Drawing | None:
    points = _by_class(asked, asked.rows("pr.csv"))
    if not points:
        return None
    curves = []
    for name, own in points.items():
        having, total = asked.sizes(name)
        point = _point(asked, asked.measured("sensitivity", name), asked.measured("ppv", name))
        line = Line(own["recall"].to_numpy(), own["precision"].to_numpy())
        value = f"average precision {short(asked.metric('average_precision', name))}"
        curves.append(figures.Curve(name, asked.n(name), value, line, point, having / total))
    words = _point_words(asked, ("sensitivity", "ppv"))
    title = f"Precision and recall: {asked.question}"
    canvas = figures.precision_recall(curves, title, asked.subtitle, asked.leaky, words)
    labels = [
        _titled(asked, c.name, f"{c.value}, prevalence {tables.number(c.level)}, {c.n}") for c in curves
    ]
    if len(curves) == 1:
        labels.append(words)
    return _drawing(asked, "pr", canvas, "Precision and recall", labels, ["pr.csv", "metrics.csv"])


def _point(asked: Asked, x: Measured, y: Measured) -> tuple[Measured, Measured] | None:
    return (x, y) if np.isfinite([x.estimate, y.estimate]).all() else None


def _point_words(asked: Asked, metrics: Sequence[str]) -> str:
    """Say what the operating point is; its numbers too, where there is only one."""
    if len(asked.classes) > 1:
        return f"{asked.cutoff}, with both {asked.interval}s"
    values = [f"{tables.METRICS[m]} {short(asked.metric(m, asked.classes[0]))}" for m in metrics]
    return f"{asked.cutoff}: {', '.join(values)}"


def _calibration(asked: Asked) -> Drawing | None:
    bins = _by_class(asked, asked.rows("calibration.csv"))
    if not bins:
        return None
    histograms = asked.rows("score_histogram.csv")
    measures = asked.rows("calibration_measures.csv")
    if "scores" in measures:
        measures = measures[measures["scores"].eq("as_given")]
    compared = asked.calibrated
    before = asked.rows(f"{BEFORE['calibration']}.csv") if compared else bins[next(iter(bins))].iloc[:0]
    panels = []
    for name, own in bins.items():
        counts = histograms[histograms["class"].eq(name)]
        mine = measures[measures["class"].eq(name)].to_dict("records")
        said = [
            f"{word} {short(row)}"
            for word in ("slope", "intercept")
            for row in mine
            if row["metric"] == f"calibration_{word}"
        ]
        n = asked.n(name)
        raw = before[before["class"].eq(name)]
        panels.append(
            figures.Calibration(
                name, [n, *said], own, None if counts.empty else counts, None if raw.empty else raw
            )
        )
    title = f"Calibration: {asked.question}"
    canvas = figures.calibration(panels, title, asked.subtitle, asked.leaky, asked.interval)
    labels = [_titled(asked, p.name, ", ".join([*p.lines[1:], p.lines[0]])) for p in panels]
    if len(panels) == 1:
        labels += [
            f"predicted {tables.number(b['mean_predicted'])}, observed {_short(_row(b, 'observed'))}"
            for b in panels[0].bins.to_dict("records")
        ]
        if panels[0].before is not None:
            labels += [
                f"before calibration predicted {tables.number(b['mean_predicted'])}, observed {tables.number(b['observed'])}"
                for b in panels[0].before.to_dict("records")
            ]
    files = [
        "calibration.csv",
        f"{BEFORE['calibration']}.csv",
        "score_histogram.csv",
        "calibration_measures.csv",
    ]
    return _drawing(asked, "calibration", canvas, "Calibration", labels, files)


def _row(row: Mapping[Any, Any], name: str = "estimate") -> Measured:
    return Measured(float(row[name]), float(row["low"]), float(row["high"]))


def _decision(asked: Asked) -> Drawing | None:
    panels, labels = [], []
    for name, own in _by_class(asked, asked.rows("decision.csv")).items():
        model = _line(own[own["metric"].eq("net_benefit")])
        everybody = _line(own[own["metric"].eq("net_benefit_treat_all")])
        if not np.isfinite(model.y).any():
            asked.lost.append(f"no decision curve of {name or asked.endpoint}: net benefit is undefined")
            continue
        panels.append(figures.Decision(name, asked.n(name), model, Line(everybody.x, everybody.y)))
        said = [f"{words} at threshold probability {at:g}" for at, words in _said(model)]
        labels.append(_titled(asked, name, f"net benefit {', '.join(said)}, {asked.n(name)}"))
    if not panels:
        return None
    title = f"Decision curve: {asked.question}"
    words = f"pointwise {asked.interval} of net benefit"
    canvas = figures.decision_curve(panels, title, asked.subtitle, asked.leaky, words)
    return _drawing(asked, "decision", canvas, "Decision curve", labels, ["decision.csv"])


def _predictive(asked: Asked) -> Drawing | None:
    panels, labels = [], []
    for name, own in _by_class(asked, asked.rows("predictive_values.csv")).items():
        ppv, npv = (_line(own[own["metric"].eq(f"{m}_at_prevalence")]) for m in ("ppv", "npv"))
        if not np.isfinite([*ppv.y, *npv.y]).any():
            asked.lost.append(
                f"no predictive values by prevalence of {name or asked.endpoint}: they are undefined"
            )
            continue
        having, total = asked.sizes(name)
        panels.append(figures.Predictive(name, asked.n(name), ppv, npv, having / total))
        said = [
            f"{word} {words} at prevalence {at:g}"
            for word, line in (("PPV", ppv), ("NPV", npv))
            for at, words in _said(line)
        ]
        labels.append(_titled(asked, name, f"{', '.join(said)}, {asked.n(name)}"))
    if not panels:
        return None
    title = "Predictive values by prevalence"
    words = f"pointwise {asked.interval}"
    canvas = figures.predictive_values(
        panels, f"{title}: {asked.question}", asked.subtitle, asked.leaky, words
    )
    return _drawing(asked, "predictive_values", canvas, title, labels, ["predictive_values.csv"])


def _line(rows: pd.DataFrame) -> Line:
    """Return the curve of one metric by the column ``at``, with its band where any limit is known."""
    if rows.empty:
        return _NOWHERE
    rows = rows.sort_values("at", kind="stable")
    return Line(rows["at"].to_numpy(np.float64), rows["estimate"].to_numpy(np.float64), _band(rows))


def _band(rows: pd.DataFrame) -> Band | None:
    if rows.empty:
        return None
    rows = rows.sort_values("at", kind="stable")
    return Band(*(rows[name].to_numpy(np.float64) for name in ("at", "low", "high")))


def _said(line: Line) -> list[tuple[float, str]]:
    """Return the values of a curve that its alternative text says: nearest to `_ALSO_SAID`."""
    places = dict.fromkeys(int(np.abs(line.x - at).argmin()) for at in _ALSO_SAID if len(line.x))
    found = []
    for i in places:
        limits = (line.band.low[i], line.band.high[i]) if line.band is not None else (np.nan, np.nan)
        found.append((float(line.x[i]), _short(Measured(float(line.y[i]), *map(float, limits)))))
    return found
