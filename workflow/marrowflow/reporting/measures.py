"""Tables beside an endpoint's metrics, in the primary unit: units without an answer, operating points, predictive values,
calibration and differential counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from marrowflow.reporting import page, tables
from marrowflow.reporting.accuracy_figures import BEFORE, Asked
from marrowflow.reporting.notes import compact, interval_note, row_of, sentence, warning_notes
from marrowflow.reporting.reporter import unit_title
from marrowflow.reporting.tables import Table

ANALYSES = {"left_out": "left out", "counted_as_errors": "counted as errors", "worst_case": "worst case"}
_PROPORTIONS = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
_OPERATING = {
    "sensitivity_at_specificity": "sensitivity at specificity",
    "specificity_at_sensitivity": "specificity at sensitivity",
    "partial_auc": "partial AUC from specificity",
}
_PREDICTIVE = {"ppv_at_prevalence": "PPV", "npv_at_prevalence": "NPV"}
_BRIER_PARTS = {
    "brier_reliability": "reliability",
    "brier_resolution": "resolution",
    "brier_uncertainty": "uncertainty",
    "brier_within_bin": "within bins",
}
_CALIBRATION = {
    "calibration_slope": "slope",
    "calibration_intercept": "intercept",
    "observed_expected": "observed / expected",
    "ece": "expected calibration error",
    **{metric: f"Brier: {part}" for metric, part in _BRIER_PARTS.items()},
}
_SCORES = {
    "uncalibrated": "before calibration",
    "as_given": "calibrated",
    "recalibrated_out_of_fold": "recalibrated out of fold",
}
_OF_BEFORE = ", before calibration"
_WITHOUT_INTERVAL = ("ece", "brier_reliability", "brier_resolution")  # of any probabilities, for one reason
_NOT_RECALIBRATED = "no recalibration"
_SIGNS = {"brier_resolution": -1}


@dataclass(frozen=True)
class Beside:
    """What the tables are of.

    Attributes
    ----------
    asked
        Endpoint, unit and classes, and where the accuracy step's tables are had from; what is not there it notes.
    who, noun
        Whose numbers, and what stands for patients there.
    n
        ``n = 40 patients (160 images)``.
    warnings
        ``warnings.csv``, or None.
    sources
        Returns links to a file of the accuracy step.
    """

    asked: Asked
    who: str
    noun: str
    n: str
    warnings: pd.DataFrame | None
    sources: Callable[[str], Mapping[str, str]]

    def title(self, what: str) -> str:
        """Return a table's title."""
        return f"{self.who}: {what}, {self.asked.endpoint}, {unit_title(self.asked.unit, self.noun)}"

    @property
    def units(self) -> str:
        """What stands for the units of analysis."""
        return self.asked.counted

    @property
    def by_class(self) -> bool:
        """True for the classification into all classes, each then against the rest."""
        return any(self.asked.classes)

    @property
    def columns(self) -> list[str]:
        """Headings of columns with one class each, or of the only one."""
        return [name or f"estimate ({self.asked.interval})" for name in self.asked.classes]

    def notes(
        self, rows: pd.DataFrame, titles: Mapping[str, str], *first: str, warned: bool = True
    ) -> list[str]:
        """Return a table's footnotes: its own, n, how intervals were made; if `warned`, what is missing."""
        made = interval_note(rows, titles, self.asked.confidence, self.noun)
        return [
            *first,
            f"{'Each class against the rest. ' if self.by_class else ''}{self.n}. {made}",
            *(warning_notes(self.warnings, rows, titles, self.noun) if warned else ()),
        ]

    def table(
        self, what: str, header: Sequence[str], body: Sequence[Sequence[str]], notes: Sequence[str], file: str
    ) -> Table:
        """Return a table whose cells may break in lines."""
        return Table(self.title(what), header, body, (), notes, self.sources(file), self.asked.leaky)


def three_analyses(beside: Beside) -> list[page.Block]:
    """Return accuracy three ways: a table, or a sentence where they coincide; nothing where no file has them."""
    rows = beside.asked.rows("indeterminate.csv")
    if rows.empty:
        return []
    units, sources = beside.units, beside.sources("indeterminate.csv")
    if rows.groupby(["metric", "class"])["denominator"].nunique().max() == 1:
        said = (
            f"No {tables.one_of(units)} with a reference lacks an answer, and none with an answer lacks a reference: the three "
            "ways of counting such (left out, counted as errors, worst case) coincide."
        )
        return [page.Text([said], sources=sources)]
    wanted = [(metric, "") for metric in _PROPORTIONS]
    if beside.by_class:
        wanted = [("accuracy", ""), *((m, name) for name in beside.asked.classes for m in _PROPORTIONS[:2])]
    body = [
        [
            tables.metric_title(metric, name),
            *(compact(row_of(rows, metric=metric, of=name, analysis=a)) for a in ANALYSES),
        ]
        for metric, name in wanted
    ]
    without = rows["method"].eq("none").any() or rows["low"].isna().any()
    notes = [
        f"Left out: only {units} with an answer and a reference count, as everywhere else.",
        f"Counted as errors: {units} with a reference but no answer count as not right in sensitivity, specificity and "
        "accuracy; PPV and NPV are those of the answers given (intention to diagnose).",
        "Worst case: what is unknown speaks against the index test: no answer is the wrong one, and an answer "
        "without a reference is wrong. Those with neither stay out.",
        f"In brackets: numerator/denominator, in {units}. "
        + interval_note(rows, tables.METRICS, beside.asked.confidence, beside.noun)
        + (f" None from fewer than two {beside.noun}." if without else ""),
    ]
    if beside.by_class:
        notes.append("PPV, NPV and accuracy of each class stand in the file.")
    return [
        beside.table("accuracy three ways", ["metric", *ANALYSES.values()], body, notes, "indeterminate.csv")
    ]


def operating_points(beside: Beside) -> list[page.Block]:
    """Return sensitivity at fixed specificities, the reverse and the partial AUC; nothing where no file has them."""
    rows = beside.asked.rows("operating_points.csv")
    rows = rows[rows["metric"].isin(list(_OPERATING))]
    if rows.empty:
        return []
    body = [
        [
            f"{title} {at:g}",
            *(compact(row_of(rows, metric=metric, at=at, of=name)) for name in beside.asked.classes),
        ]
        for metric, title in _OPERATING.items()
        for at in sorted(rows.loc[rows["metric"].eq(metric), "at"].unique())
    ]
    first = (
        "The largest value that any cut-off of these data attains, found anew in each resample: not the locked cut-off. "
        "Partial AUC: McClish’s standardisation, 0.5 is chance and 1 perfect."
    )
    titles = {metric: title.removesuffix(" from specificity") for metric, title in _OPERATING.items()}
    notes = beside.notes(rows, titles, first)
    header = ["operating point", *beside.columns]
    return [beside.table("operating points", header, body, notes, "operating_points.csv")]


def predictive_values(beside: Beside) -> list[page.Block]:
    """Return PPV and NPV by prevalence, of a yes/no endpoint in one table; nothing where no file has them."""
    rows = beside.asked.rows("predictive_values.csv")
    if rows.empty:
        return []
    classes = beside.asked.classes
    first = (
        "By Bayes’ theorem from sensitivity and specificity of these data, as if the target condition had the "
        "prevalence of the line, which is taken as known."
    )

    def table(what: str, header: Sequence[str], columns: Sequence[tuple[str, str]]) -> Table:
        body = [
            [f"{at:g}", *(compact(row_of(rows, metric=metric, at=at, of=name)) for metric, name in columns)]
            for at in sorted(rows["at"].unique())
        ]
        shown = rows[rows["metric"].isin([metric for metric, _ in columns])]
        notes = beside.notes(shown, _PREDICTIVE, first)
        return beside.table(what, ["prevalence", *header], body, notes, "predictive_values.csv")

    if not beside.by_class:
        header = [f"{title} ({beside.asked.interval})" for title in _PREDICTIVE.values()]
        return [table("PPV and NPV by prevalence", header, [(metric, "") for metric in _PREDICTIVE])]
    return [
        table(f"{title} by prevalence", classes, [(metric, c) for c in classes])
        for metric, title in _PREDICTIVE.items()
    ]


def calibration(beside: Beside) -> list[page.Block]:
    """Return measures of calibration: before it, with it, and after recalibration; nothing where no file has them.

    Nothing was refitted: the calibration is the locked one. A yes/no endpoint has one table, the classification one of each kind of scores.
    """
    rows = beside.asked.rows("calibration_measures.csv")
    if rows.empty:
        return []
    if beside.asked.calibrated:
        rows = pd.concat([beside.asked.rows(f"{BEFORE['measures']}.csv"), rows], ignore_index=True)
    given = [scores for scores in _SCORES if rows["scores"].eq(scores).any()]
    titles = _SCORES if "uncalibrated" in given else {**_SCORES, "as_given": "as given"}
    if beside.by_class:
        made = []
        for scores in given:
            found = set(rows.loc[rows["scores"].eq(scores), "class"])
            classes = [name for name in beside.asked.classes if name in found]
            columns = [(scores, name) for name in classes]
            what = f"calibration, {titles[scores]}"
            made.append(_calibration_table(beside, rows, what, classes, columns, titles))
    else:
        header = [f"{titles[scores]} ({beside.asked.interval})" for scores in given]
        columns = [(scores, "") for scores in given]
        made = [_calibration_table(beside, rows, "calibration", header, columns, titles)]
    *before, last = made
    return [*before, replace(last, notes=[*last.notes, *_not_recalibrated(beside)])]


def _calibration_table(
    beside: Beside,
    rows: pd.DataFrame,
    what: str,
    header: Sequence[str],
    columns: Sequence[tuple[str, str]],
    titles: Mapping[str, str],
) -> Table:
    """Return a table of all measures with a column each of kind of scores and class; `titles` are of the scores."""

    def cell(measure: str, scores: str, name: str) -> str:
        if measure != "brier":
            return compact(row_of(rows, metric=measure, scores=scores, of=name))
        parts = {m: row_of(rows, metric=m, scores=scores, of=name) for m in _BRIER_PARTS}
        values = [_SIGNS.get(m, 1) * row["estimate"] for m, row in parts.items() if row is not None]
        return tables.number(sum(values)) if len(values) == len(parts) else "–"

    measures = [*list(_CALIBRATION)[:4], "brier", *_BRIER_PARTS]
    body = [
        [_CALIBRATION.get(m, "Brier score"), *(cell(m, scores, name) for scores, name in columns)]
        for m in measures
    ]
    kinds = list(dict.fromkeys(scores for scores, _ in columns))
    first = [
        "Slope below 1: probabilities too extreme; intercept below 0: too high on the whole. Brier score = reliability − "
        "resolution + uncertainty + within bins"
        + ("." if beside.by_class else f"; its interval, {titles['as_given']}, stands with the metrics.")
    ]
    if not beside.asked.calibrated:
        first.append("The study calibrates nothing: as given, probabilities are the networks’ own.")
    elif titles["as_given"] == _SCORES["as_given"]:
        first.append(
            "Before calibration: the networks’ own probabilities. Calibrated: with the temperature that was fitted on development "
            f"data and locked (on development {beside.noun}, with k folds, the one fitted on the other folds)."
            + ("" if "recalibrated_out_of_fold" in kinds else " Nothing was refitted.")
        )
    if "recalibrated_out_of_fold" in kinds:
        first.append(
            f"Recalibrated: logistic recalibration of each tenth of the {beside.noun}, fitted on the others; it shows "
            "what recalibration would gain, and is used nowhere else."
        )
    said: dict[str, list[str]] = {}
    for scores in kinds:
        own = rows[rows["scores"].eq(scores)]
        for note in warning_notes(_of_scores(beside.warnings, scores), own, _CALIBRATION, beside.noun):
            said.setdefault(note, []).append(titles[scores])
    shown = rows[rows["scores"].isin(kinds)]
    notes = [
        *beside.notes(shown, _CALIBRATION, *first, warned=False),
        *(
            note if len(of) == len(kinds) else f"{sentence(' and '.join(of))}, {note[0].lower()}{note[1:]}"
            for note, of in said.items()
        ),
    ]
    made = beside.table(what, ["measure", *header], body, notes, "calibration_measures.csv")
    files = beside.sources(f"{BEFORE['measures']}.csv") if "uncalibrated" in kinds else {}
    return replace(made, sources={**files, **made.sources})


def _of_scores(warnings: pd.DataFrame | None, scores: str) -> pd.DataFrame | None:
    """Keep what is said of these probabilities, before calibration or not; `_not_recalibrated` says the rest."""
    if warnings is None:
        return None
    kept = warnings[~warnings["warning"].str.startswith(_NOT_RECALIBRATED)]
    of_before = kept["warning"].str.endswith(_OF_BEFORE)
    if scores != "uncalibrated":
        return kept[~of_before]
    told = kept[of_before | kept["metric"].isin(_WITHOUT_INTERVAL)]
    return told.assign(warning=told["warning"].str.removesuffix(_OF_BEFORE))


def _not_recalibrated(beside: Beside) -> list[str]:
    """Say which questions' probabilities could not be recalibrated out of fold, and why."""
    asked, found = beside.asked, dict[str, list[str]]()
    for name in asked.classes:
        texts = tables.warnings_of(beside.warnings, asked.endpoint, asked.unit, "calibration_slope", name)
        for text in texts:
            if text.startswith(_NOT_RECALIBRATED):
                why = text.removeprefix(_NOT_RECALIBRATED).replace(tables.PATIENTS, beside.noun)
                found.setdefault(why, []).append(name)
    return [
        f"Not recalibrated{f' ({names})' if (names := ', '.join(filter(None, of))) else ''}: {why.lstrip(': ')}."
        for why, of in found.items()
    ]


def differential(beside: Beside) -> list[page.Block]:
    """Return each class's share of all images, by the reference and by the index test; nothing where no file has them."""
    images = replace(beside, asked=replace(beside.asked, unit="case", counted="images"))
    rows = images.asked.rows("differential.csv")
    if rows.empty:
        return []
    body = [
        [name, *(compact(row_of(rows, of=name, source=source)) for source in ("truth", "predicted"))]
        for name in images.asked.classes
    ]
    n, patients = rows["denominator"].max(), rows["n_patients"].max()
    notes = [
        "Share of each class among all images with a reference and an answer, in brackets counted/all. A share that "
        "agrees says nothing of single images: errors can cancel.",
        f"n = {tables.whole(n)} images of {tables.whole(patients)} {images.noun}. "
        + interval_note(rows.assign(metric="share"), {}, images.asked.confidence, images.noun),
    ]
    header = ["class", "reference standard", "index test"]
    return [images.table("differential count", header, body, notes, "differential.csv")]


def measure_blocks(beside: Beside, images: bool) -> list[page.Block]:
    """Return all tables beside the metrics of an endpoint; a differential count where `images` are a unit of analysis."""
    return [
        *operating_points(beside),
        *predictive_values(beside),
        *calibration(beside),
        *(differential(beside) if images and beside.by_class else []),
    ]
