"""What all parts of a page share: the options, the results, and how cohorts, units and endpoints are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TypeVar

import pandas as pd
from matplotlib.figure import Figure as Canvas
from pydantic import Field

from marrowflow.choices.threshold import locked_threshold
from marrowflow.config import (
    CLASSES,
    About,
    Accuracy,
    Aggregator,
    ClassName,
    Endpoint,
    Identifier,
    Model,
    Protocol,
    ReaderShown,
    Report,
    Section,
    Slides,
    Subgroups,
    Texts,
    Unit,
    as_models,
)
from marrowflow.errors import UserError
from marrowflow.reporting import drawing, page, tables
from marrowflow.reporting.flow import Question
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, Results

SURROGATE = (
    "No patient identifiers: near-duplicate clusters stand in for patients; "
    "intervals are clustered by surrogate groups."
)


_UPRIGHT = 6  # index tests that a page shows side by side; of more only the primary one
T = TypeVar("T")


class CommonOptions(Section):
    """The sections of the configuration that every report reads."""

    study: About
    classes: list[ClassName]
    units: list[Unit]
    endpoints: dict[Identifier, Endpoint]
    report: Report = Report()
    texts: Texts = Texts()
    """The team's own sentences."""
    subgroups: Subgroups = Subgroups()
    reader_titles: dict[Identifier, ReaderShown] = Field(default_factory=dict)
    """Readers and other products; not which files hold their answers."""
    accuracy: Accuracy = Accuracy()
    models: dict[Identifier, Model] = Field(default_factory=dict)
    slides: Slides | None = None
    aggregators: dict[Identifier, Aggregator] = Field(default_factory=dict)
    members: dict[Identifier, list[Identifier]] = Field(default_factory=dict)
    """Models of each ensemble, by the ensemble's name."""
    index_tests: list[str]
    """All `<model>-<colour>`, models before ensembles."""
    protocols: list[Protocol]
    """Protocols that ran; the one that the study is reported under first."""

    @property
    def networks(self) -> dict[str, Model]:
        """What was trained, by name; aggregators of slides as networks on what sees their tiles."""
        return self.models or as_models(self.slides, self.aggregators)


@dataclass(frozen=True)
class Reporter:
    """What all parts of one page need: the options, the results, and where the page lies."""

    options: CommonOptions
    results: Results
    primary: Primary
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

    def __post_init__(self) -> None:
        """Refuse options and a primary index test that do not belong together."""
        _check_tests(self.options, self.primary)

    def tests(self, protocol: Protocol) -> list[IndexTest]:
        """All index tests under a protocol, the primary one first, the others in the order of the configuration."""
        first = self.primary.index_test
        others = [name for name in self.options.index_tests if name != first]
        return [IndexTest(protocol, name) for name in (first, *others)]

    def members(self, test: IndexTest) -> list[IndexTest]:
        """Return the index tests whose mean an ensemble is; none for a network of its own."""
        models = self.options.members.get(test.model, [])
        return [IndexTest(test.protocol, f"{model}-{test.colour}") for model in models]

    def networks(self, test: IndexTest) -> list[IndexTest]:
        """Return what was trained for an index test: itself, or an ensemble's members."""
        return self.members(test) or [test]

    def upright(self, shown: Mapping[IndexTest, T]) -> tuple[list[T], list[T]]:
        """Divide what a page shows of each index test into what stands open and what is folded away.

        Of more than six index tests only what belongs to the primary one, or to its members, stands open.
        """
        first = IndexTest(self.options.protocols[0], self.primary.index_test)
        own = {first.name, *(test.name for test in self.members(first))}
        stands = [len(shown) <= _UPRIGHT or test.name in own for test in shown]
        blocks = list(shown.values())
        return list(compress(blocks, stands)), list(compress(blocks, (not s for s in stands)))

    def how_primary(self) -> str:
        """Say how the primary index test became so, without a full stop."""
        return self.primary.statement(unit_title(self.primary.unit, self.noun(DEVELOPMENT)))

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
        """Return what tables of a cohort's metrics must say."""
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
    return f"per {tables.one_of(noun)}" if unit == "patient" else "per image"


def stem(*parts: str) -> str:
    """Return a figure's file name from words that are safe in paths."""
    return "_".join(parts)


def leaky_suffix(test: IndexTest) -> list[str]:
    """Return what file names of a leaky protocol end with."""
    return ["as_published"] if test.leaky else []


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


def missing(path: Path, results: Results) -> page.Text:
    """Return the words that stand in place of a file that is not there."""
    return page.Text([f"{tables.MISSING}: {results.href(path)}"], "warning")


def surrogate_cohorts(inventories: Mapping[str, pd.DataFrame]) -> frozenset[str]:
    """Return the cohorts in which near-duplicate clusters stand in for patients."""
    return frozenset(c for c, table in inventories.items() if table["patient_source"].eq("surrogate").any())


def mean_of(members: Sequence[IndexTest]) -> str:
    """Return what an ensemble is: ``mean of the probabilities of a, b and c``."""
    *first, last = (test.model for test in members)
    return (
        f"mean of the probabilities of {', '.join(first)} and {last}" if first else f"probabilities of {last}"
    )


def _check_tests(options: CommonOptions, primary: Primary) -> None:
    bad = [name for name in options.index_tests if name.count("-") != 1]
    if bad or not options.index_tests:
        raise UserError(
            f"--options: index_tests needs names like <model>-<colour>, one or more; found {options.index_tests}"
        )
    known = {*options.networks, *options.members}
    unknown = [name for name in options.index_tests if name.partition("-")[0] not in known]
    if unknown:
        raise UserError(
            f"--options: {unknown[0]!r} is of none of the models and ensembles ({', '.join(sorted(known))})"
        )
    if primary.index_test not in options.index_tests:
        raise UserError(
            f"the primary index test {primary.index_test!r} is none of {options.index_tests}: choose anew with choices.primary"
        )
