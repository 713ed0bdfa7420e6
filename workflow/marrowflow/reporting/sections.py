"""The parts that the study's page and each hospital's page have in common.

Each function turns files of the results tree into blocks of a page, and writes the figures and the
numbers behind them into the page's folder ``figures/``.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from marrowflow import __version__
from marrowflow.choices.threshold import locked_threshold
from marrowflow.config import (
    LEAKY,
    About,
    Accuracy,
    ClassName,
    Endpoint,
    Identifier,
    Protocol,
    Report,
    Section,
    Unit,
)
from marrowflow.errors import UserError
from marrowflow.files import sha256_of, write_json, write_table
from marrowflow.images.store import open_store
from marrowflow.predictions import ENSEMBLE, NO_REFERENCE, PROBABILITY
from marrowflow.reporting import drawing, figures, page, tables
from marrowflow.reporting.accuracy_figures import Asked, Drawing, endpoint_drawings
from marrowflow.reporting.flow import Flow, Question, draw, trace
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, Results, read_json
from marrowflow.statistics.endpoints import CLASSES, FEW_PATIENTS

SURROGATE = (
    "No patient identifiers: near-duplicate clusters stand in for patients; "
    "intervals are clustered by surrogate groups."
)
NO_ANSWER = ("indeterminate", "not_done")
"""Columns of the confusion table that are no class."""

_WIDE = 760.0  # pixels of a flow diagram on a screen or on paper
_FIGURE_SOFTWARE = ("numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "matplotlib", "jinja2", "pillow")
_TRAINING_SOFTWARE = ("torch", "torchvision", "timm", "opencv-python-headless")
_RULES = {
    "youden": "largest sensitivity + specificity − 1 (Youden)",
    "sensitivity": "highest specificity at a sensitivity of at least {value}",
    "specificity": "highest sensitivity at a specificity of at least {value}",
    "fixed": "fixed beforehand at {value}",
}


class CommonOptions(Section):
    """The sections of the configuration that every report reads."""

    study: About
    classes: list[ClassName]
    units: list[Unit]
    endpoints: dict[Identifier, Endpoint]
    report: Report = Report()
    accuracy: Accuracy = Accuracy()
    index_tests: list[str]
    """All `<model>-<colour>`, the primary one first."""
    protocols: list[Protocol]
    """Protocols that ran; the one that the study is reported under first."""


@dataclass(frozen=True)
class Reporter:
    """What all parts of one page need: the options, the results, and where the page lies."""

    options: CommonOptions
    results: Results
    surrogate: frozenset[str] = frozenset()
    """Cohorts without patient identifiers (`DEVELOPMENT` too, where one of its cohorts is)."""

    @property
    def folder(self) -> Path:
        """Where figures and the numbers behind them go."""
        return self.results.out / "figures"

    @property
    def unit(self) -> Unit:
        """The primary unit of analysis."""
        return self.options.units[0]

    @property
    def endpoints(self) -> list[str]:
        """Names of all endpoints: the yes/no ones in the order of the configuration, then all classes.

        With two classes a yes/no endpoint asks the same, and the accuracy step measures it alone.
        """
        named = list(self.options.endpoints)
        return named if named and len(self.options.classes) <= 2 else [*named, CLASSES]

    def tests(self, protocol: Protocol) -> list[IndexTest]:
        """All index tests under a protocol, the primary one first."""
        return [IndexTest(protocol, name) for name in self.options.index_tests]

    def sources(self, *paths: Path) -> dict[str, str]:
        """Return link text and link of each file that is there."""
        return {path.name: self.results.href(path) for path in paths if path.exists()}

    def noun(self, cohort: str) -> str:
        """Return what stands for a patient in a cohort."""
        return tables.SURROGATES if cohort in self.surrogate else tables.PATIENTS

    def common_noun(self, cohorts: Iterable[str]) -> str:
        """Return what stands for a patient in a table or figure of several cohorts."""
        nouns = sorted({self.noun(cohort) for cohort in cohorts})
        return " or ".join(nouns) or tables.PATIENTS

    def remarks(self, cohort: str) -> list[str]:
        """Return what every table of a cohort's accuracy must say."""
        return [SURROGATE] if cohort in self.surrogate else []

    def common_remarks(self, names: Mapping[str, str]) -> list[str]:
        """Return what a table or figure of several cohorts (id → name) must say, and of which of them."""
        surrogate = [name for cohort, name in names.items() if cohort in self.surrogate]
        return [f"{', '.join(surrogate)}: {SURROGATE[0].lower()}{SURROGATE[1:]}"] if surrogate else []

    def question(self, test: IndexTest) -> Question:
        """Return the primary endpoint with its locked threshold; the classification where there is none."""
        unit: Unit = "patient" if "patient" in self.options.units else "case"
        classes = tuple(self.options.classes)
        if not self.options.endpoints:
            return Question(CLASSES, classes, unit=unit)
        name, endpoint = next(iter(self.options.endpoints.items()))
        threshold = locked_threshold(self.results.lock(test), name, endpoint.positive, unit)
        return Question(name, classes, tuple(endpoint.positive), threshold, unit)

    def draw(
        self,
        canvas: Canvas,
        stem: str,
        caption: str,
        alternative: str,
        sources: Mapping[str, str],
        leaky: bool,
    ) -> page.Figure:
        """Write a figure in its three formats and return it for the page."""
        saved = drawing.save(canvas, self.folder, stem)
        return page.Figure(caption, alternative, saved, None, sources, leaky)


def endpoint_title(options: CommonOptions, name: str) -> str:
    """Return an endpoint as a heading names it: ``AML (AML against all others)``."""
    if name == CLASSES:
        return f"all classes ({', '.join(options.classes)})"
    return f"{name} ({' or '.join(options.endpoints[name].positive)} against all others)"


def unit_title(unit: str, noun: str = tables.PATIENTS) -> str:
    """Return how a unit of analysis is called in headings, where `noun` stands for patients."""
    return f"per {noun[:-1].replace('s or ', ' or ')}" if unit == "patient" else "per image"


def stem(*parts: str) -> str:
    """Return a figure's file name from words that are safe in paths."""
    return "_".join(parts)


# Flow and cross-tabulation


def flow_of(reporter: Reporter, test: IndexTest, cohort: str, development: bool) -> Flow:
    """Trace one cohort through the study with an index test's primary endpoint."""
    results = reporter.results
    folder = DEVELOPMENT if development else cohort
    table = results.predictions(test, folder, reporter.options.classes).table
    untested = "not in a test set of any fold" if development else "no prediction"
    return trace(
        results.inventory(cohort), table[table["cohort"].eq(cohort)], reporter.question(test), untested
    )


def ensemble_footnote(reporter: Reporter, test: IndexTest, cohort: str) -> str:
    """Say who answered for development cases without a reference standard; empty where there are none."""
    table = reporter.results.predictions(test, DEVELOPMENT, reporter.options.classes).table
    rows = table["cohort"].eq(cohort) & table["fold"].eq(ENSEMBLE) & table["truth"].isin(NO_REFERENCE)
    if not rows.any():
        return ""
    return (
        f"The {rows.sum()} images without a usable reference standard were answered by the mean of the networks of "
        "all folds."
    )


def flow_blocks(
    reporter: Reporter, test: IndexTest, cohort: str, hospital: str, flow: Flow, footnote: str = ""
) -> list[page.Block]:
    """Draw the diagram, narrow and wide, write its numbers, and tabulate index test by reference."""
    name = stem("flow", cohort, *leaky_suffix(test))
    title = f"{hospital}: flow of {flow.noun}"
    tree, crosstab = reporter.folder / f"{name}.json", reporter.folder / f"crosstab{name[4:]}.csv"
    write_json(
        tree,
        {
            "cohort": cohort,
            "index_test": test.name,
            "protocol": test.protocol,
            "endpoint": flow.question.name,
            "counted": flow.noun,
            "flow": flow.root.as_dict(),
        },
    )
    write_table(crosstab, flow.crosstab.rename_axis("index_test").reset_index())
    root = flow.root
    eligible = root["Eligible"]
    alternative = drawing.alternative_text(
        title,
        f"{root.patients} potentially eligible, {root['Excluded'].patients} excluded, {eligible.patients} eligible, "
        f"{eligible['No index test'].patients} without index test",
        [f"index test {arm.label} {arm.patients}" for arm in eligible["Index test"].boxes],
    )
    question = flow.question
    cut = f" at the locked threshold {tables.number(question.threshold)}" if question.positive else ""
    below = "images" if root.smears is None else "smears and images"
    diagram = page.Figure(
        f"Flow of {flow.noun} through {hospital} (index test {test.name}, endpoint {question.name}{cut}). "
        f"Counted in {flow.noun}{'' if flow.noun == 'images' else f'; second line: {below}'}. {footnote}".strip(),
        alternative,
        drawing.embedded(draw(flow, leaky=test.leaky), f"{name}_narrow"),
        drawing.save(draw(flow, _WIDE, test.leaky), reporter.folder, name),
        reporter.sources(tree, reporter.results.inventory_path(cohort)),
        test.leaky,
    )
    table = tables.crosstab_table(
        flow.crosstab,
        bool(question.positive),
        flow.noun,
        f"{hospital}: index test {test.name} by reference standard, endpoint {question.name}",
        reporter.sources(crosstab),
        test.leaky,
    )
    return [diagram, table]


def leaky_suffix(test: IndexTest) -> list[str]:
    """Return what file names of a leaky protocol end with."""
    return ["as_published"] if test.leaky else []


# Accuracy


def accuracy_sections(
    reporter: Reporter, test: IndexTest, cohort: str, who: str, anchor: str
) -> list[page.Section]:
    """Return one section an endpoint: its metrics in every unit, its figures in the primary unit."""
    results = reporter.results
    metrics = results.accuracy(test, cohort, "metrics.csv")
    if metrics is None:
        return [
            page.Section(
                "Accuracy",
                anchor,
                [missing(results.accuracy_path(test, cohort, "metrics.csv"), results)],
                leaky=test.leaky,
            )
        ]
    warnings = results.accuracy(test, cohort, "warnings.csv")
    sources = reporter.sources(
        *(results.accuracy_path(test, cohort, n) for n in ("metrics.csv", "warnings.csv"))
    )
    sections = []
    for endpoint in reporter.endpoints:
        blocks: list[page.Block] = [
            tables.metrics_table(
                metrics,
                warnings,
                endpoint,
                unit,
                reporter.options.classes,
                f"{who}: {endpoint}, {unit_title(unit, reporter.noun(cohort))}",
                reporter.options.accuracy.confidence,
                sources,
                test.leaky,
                reporter.remarks(cohort),
                reporter.noun(cohort),
            )
            for unit in reporter.options.units
        ]
        blocks += endpoint_figures(reporter, test, cohort, who, endpoint, metrics)
        title = f"Endpoint {endpoint_title(reporter.options, endpoint)}"
        sections.append(page.Section(title, f"{anchor}-{endpoint}", blocks, leaky=test.leaky))
    return sections


def endpoint_figures(
    reporter: Reporter, test: IndexTest, cohort: str, who: str, endpoint: str, metrics: pd.DataFrame
) -> list[page.Block]:
    """Draw an endpoint's curves and confusion matrix in the primary unit, and say what could not be drawn."""
    unit, noun, options = reporter.unit, reporter.noun(cohort), reporter.options
    asked = Asked(
        endpoint,
        unit,
        options.classes if endpoint == CLASSES else ("",),
        endpoint_title(options, endpoint),
        f"{who}, {test.name}, {n_text(metrics, endpoint, unit, noun)}",
        noun if unit == "patient" else "images",
        _cutoff(reporter, test, endpoint),
        options.accuracy.confidence,
        metrics,
        lambda name: reporter.results.accuracy(test, cohort, name),
        test.leaky,
    )

    def block(made: Drawing) -> page.Figure:
        paths = [reporter.results.accuracy_path(test, cohort, name) for name in made.files]
        return reporter.draw(
            made.canvas,
            stem(made.kind, cohort, endpoint, unit, *leaky_suffix(test)),
            f"{made.title}. {asked.subtitle}.",
            made.alternative,
            reporter.sources(*paths),
            test.leaky,
        )

    drawn = [block(made) for made in endpoint_drawings(asked)]
    confusion: list[page.Block] = []
    counts = asked.rows("confusion.csv")
    if not counts.empty:
        matrix = confusion_matrix(counts, options.classes)
        drawn.append(block(_confusion(asked, matrix, options.classes)))
        path = reporter.results.accuracy_path(test, cohort, "confusion.csv")
        confusion = [
            tables.confusion_table(
                matrix,
                asked.counted,
                f"{who}: confusion matrix, {endpoint}, {unit_title(unit, noun)}",
                reporter.sources(path),
                test.leaky,
            )
        ]
    notes: list[page.Block] = [page.Text(asked.lost, "warning")] if asked.lost else []
    return [*([page.Figures(drawn)] if drawn else []), *confusion, *notes]


def _cutoff(reporter: Reporter, test: IndexTest, endpoint: str) -> str:
    """Say what the operating point of an endpoint is."""
    if endpoint == CLASSES:
        return "class with the largest probability"
    positive = reporter.options.endpoints[endpoint].positive
    threshold = locked_threshold(reporter.results.lock(test), endpoint, positive, reporter.unit)
    return f"locked cut-off {tables.number(threshold)}"


def _confusion(asked: Asked, matrix: pd.DataFrame, classes: Sequence[str]) -> Drawing:
    """Draw what accuracy is made of: units with a reference and an answer; the table has the others as well."""
    title = f"Confusion matrix: {asked.question}"
    rows = [t for t in matrix.index if t in classes]
    square = matrix.loc[rows, [a for a in matrix.columns if a not in NO_ANSWER]]
    words = [
        f"reference {truth}: {', '.join(f'{n} {answer}' for answer, n in row.items())}"
        for truth, row in square.iterrows()
    ]
    return Drawing(
        "confusion",
        figures.confusion(square, title, asked.subtitle, asked.leaky),
        title,
        drawing.alternative_text(title, asked.subtitle, words),
        ["confusion.csv"],
    )


def n_text(metrics: pd.DataFrame, endpoint: str, unit: str, noun: str) -> str:
    """Return ``n = 40 patients (160 images)`` for an endpoint and unit."""
    rows = metrics[metrics["endpoint"].eq(endpoint) & metrics["unit"].eq(unit) & metrics["primary"]]
    if rows.empty:
        return f"n {tables.MISSING}"
    patients, cases = tables.whole(rows["n_patients"].max()), tables.whole(rows["n_cases"].max())
    return (
        f"n = {patients} {noun} ({cases} images)"
        if unit == "patient"
        else f"n = {cases} images of {patients} {noun}"
    )


def confusion_matrix(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return counts [reference, answer] from long rows, in their order.

    References that are no class, and units without an answer, stand there only if there are any.
    """
    table = rows.pivot_table(index="truth", columns="predicted", values="n", aggfunc="sum", fill_value=0)
    table = table.reindex(index=rows["truth"].unique(), columns=rows["predicted"].unique()).astype(np.int64)
    kept = [t for t in table.index if t in classes or table.loc[t].any()]
    answers = [a for a in table.columns if a not in NO_ANSWER or table[a].any()]
    return table.loc[kept, answers]


def index_test_tables(reporter: Reporter, protocol: Protocol, cohort: str, who: str) -> list[page.Block]:
    """Compare all index tests on one cohort, one table an endpoint; nothing for a single index test."""
    tests = reporter.tests(protocol)
    if len(tests) < 2:
        return []
    return [
        tables.comparison_table(
            {
                f"{t.name}{' (primary)' if i == 0 else ''}": (
                    reporter.results.accuracy(t, cohort, "metrics.csv"),
                    reporter.results.accuracy(t, cohort, "warnings.csv"),
                )
                for i, t in enumerate(tests)
            },
            "index test",
            endpoint,
            reporter.unit,
            f"{who}: all index tests, {endpoint}, {unit_title(reporter.unit, reporter.noun(cohort))}",
            {
                f"metrics.csv of {t.name}": reporter.results.href(
                    reporter.results.accuracy_path(t, cohort, "metrics.csv")
                )
                for t in tests
            },
            [
                "The primary index test was declared before the run; no result chooses it.",
                *reporter.remarks(cohort),
            ],
            tests[0].leaky,
            reporter.noun(cohort),
        )
        for endpoint in reporter.endpoints
    ]


# Locked threshold


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
    """Return how many networks an index test has: one a fold."""
    return len(list(reporter.results.training_path(test, "0", "card.json").parent.parent.glob("*/card.json")))


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
                    " + ".join(endpoint["positive"]),
                    unit_title(unit, noun),
                    *values,
                    tables.MISSING if n is None else str(n),
                ]
            )
    header = [
        "endpoint",
        "score: sum of",
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
    statements = [
        calibration_statement(lock),
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


# Errors


def error_blocks(reporter: Reporter, test: IndexTest, cohort: str) -> list[page.Block]:
    """Show the wrong predictions with the largest probability, one thumbnail an image.

    With two classes and an endpoint the answer is the one at the locked threshold of images, else the
    class with the largest probability. Order: probability of that class from high to low, then the case's id.
    """
    most = reporter.options.report.errors_shown
    if most == 0:
        return [page.Text(["No patient image is printed (report.errors_shown is 0)."])]
    path = reporter.results.predictions_path(test, cohort)
    table = reporter.results.predictions(test, cohort, reporter.options.classes).table
    countable = table[table["status"].eq("ok") & ~table["truth"].isin(NO_REFERENCE)]
    countable, how = _answered(reporter, test, countable)
    wrong = countable[countable["truth"].ne(countable["predicted"])]
    if wrong.empty:
        return [
            page.Text(
                [f"None of {len(countable)} images was classified wrongly {how}."],
                sources=reporter.sources(path),
            )
        ]
    confidence = [row[PROBABILITY + row["predicted"]] for row in wrong.to_dict("records")]
    shown = wrong.assign(confidence=confidence).sort_values(
        ["confidence", "case_id"], ascending=[False, True], kind="stable"
    )[:most]
    pictures: dict[str, np.ndarray] = {}
    for name, rows in shown.groupby("cohort", sort=True):
        store = open_store(reporter.results.store_path(str(name), test.colour))
        place = dict(zip(store.index["case_id"], store.index["row"], strict=True))
        pictures |= {case: store.pixels[place[case]] for case in rows["case_id"] if case in place}
    thumbnails, absent = [], 0
    for row in shown.to_dict("records"):
        if row["case_id"] not in pictures:
            absent += 1
            continue
        lines = [
            f"predicted {row['predicted']} ({row['confidence']:.0%})",
            f"reference {row['truth']}",
            row["case_id"],
        ]
        thumbnails.append(
            page.thumbnail(pictures[row["case_id"]], lines, f"{row['case_id']}: {lines[0]}, {lines[1]}")
        )
    caption = (
        f"{len(wrong)} of {len(countable)} images with a reference were classified wrongly {how}; "
        f"the {len(thumbnails)} most confident are shown, as the network saw them ({test.name})."
        + (f" Picture missing: {absent}." if absent else "")
    )
    return [page.Gallery(caption, thumbnails, reporter.sources(path))]


def _answered(reporter: Reporter, test: IndexTest, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return images with the answers that accuracy counts, and how they were decided."""
    options = reporter.options
    if len(options.classes) != 2 or not options.endpoints or "case" not in options.units:
        return rows, "by the largest probability (all classes)"
    name, endpoint = next(iter(options.endpoints.items()))
    threshold = locked_threshold(reporter.results.lock(test), name, endpoint.positive, "case")
    (positive,) = endpoint.positive
    (negative,) = (c for c in options.classes if c != positive)
    called = rows[PROBABILITY + positive].to_numpy(np.float64) >= threshold
    answers = np.where(called, positive, negative).astype(object)
    return rows.assign(predicted=answers), f"at the locked threshold of {name}, {tables.number(threshold)}"


# Limitations and record


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


def record_section(reporter: Reporter, tests: Iterable[IndexTest], cohorts: Sequence[str]) -> page.Section:
    """Return versions of the software, the models' cards and the checksums of what was reported on."""
    software = [f"marrowflow {__version__}", f"Python {platform.python_version()}"]
    software += [f"{name} {_version(name)}" for name in (*_FIGURE_SOFTWARE, *_TRAINING_SOFTWARE)]
    rows, cards = [], []
    for test in tests:
        digest = reporter.results.lock(test).get("digest", tables.MISSING)
        rows.append([test.protocol, test.name, "locked threshold", str(digest)[:12]])
        for cohort in cohorts:
            path = reporter.results.predictions_path(test, cohort)
            rows.append(
                [
                    test.protocol,
                    test.name,
                    f"predictions, {cohort}",
                    sha256_of(path)[:12] if path.is_file() else tables.MISSING,
                ]
            )
        path = reporter.results.training_path(test, "0", "card.json")
        card = read_json(path)
        lines = [[k, str(v)] for k, v in _scalars(card or {})]
        cards.append(
            tables.Table(
                f"Model card of {test.name}, fold 0",
                ["key", "value"],
                lines,
                (),
                (),
                reporter.sources(path),
                test.leaky,
            )
        )
    checks = tables.Table(
        "Checksums (SHA-256, first 12 digits) of what this page reports on",
        ["protocol", "index test", "file", "checksum"],
        rows,
    )
    statement = (
        f"Versions in the environment that wrote this page: {', '.join(software)}. "
        "Those that trained are in the model cards."
    )
    return page.Section("Software and run record", "record", [page.Text([statement]), checks, *cards])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not in this environment"


def _scalars(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the numbers and words of a nested object with their dotted keys, sorted."""
    for key in sorted(value):
        item = value[key]
        if isinstance(item, Mapping):
            yield from _scalars(item, f"{prefix}{key}.")
        elif isinstance(item, list):
            if len(item) <= 30 and all(isinstance(i, str | int | float) for i in item):
                yield f"{prefix}{key}", ", ".join(map(str, item))
        else:
            yield f"{prefix}{key}", tables.MISSING if item is None else item


def missing(path: Path, results: Results) -> page.Text:
    """Return the words that stand in place of a file that is not there."""
    return page.Text([f"{tables.MISSING}: {results.href(path)}"], "warning")


def banners(inventories: Mapping[str, pd.DataFrame], protocols: Sequence[Protocol]) -> list[str]:
    """Return what must be read before the first figure: surrogate patients, leaky protocol."""
    surrogate = [c for c in inventories if c in surrogate_cohorts(inventories)]
    found = [f"{SURROGATE} Cohorts: {', '.join(surrogate)}."] if surrogate else []
    if "as_published" in protocols:
        found.append(f"Sections stamped “{LEAKY}” come from a split by image, as the study was published.")
    return found


def surrogate_cohorts(inventories: Mapping[str, pd.DataFrame]) -> frozenset[str]:
    """Return the cohorts in which near-duplicate clusters stand in for patients."""
    return frozenset(c for c, table in inventories.items() if table["patient_source"].eq("surrogate").any())


def checked_tests(options: CommonOptions) -> CommonOptions:
    """Refuse options that name no index test, or one that is not ``<model>-<colour>``."""
    bad = [name for name in options.index_tests if name.count("-") != 1]
    if bad or not options.index_tests:
        raise UserError(
            f"--options: index_tests needs names like <model>-<colour>, the primary one first; found {options.index_tests}"
        )
    return options
