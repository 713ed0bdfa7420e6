"""What a page's checklists stand on: the cohorts that the page may speak of, and the index test that it reports first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from marrowflow.cohorts.table import Cohort
from marrowflow.config import Protocol
from marrowflow.reporting import tables
from marrowflow.reporting.flow import Flow
from marrowflow.reporting.reporter import Reporter, endpoint_title, unit_title
from marrowflow.reporting.results import DEVELOPMENT, IndexTest, read_json
from marrowflow.reporting.sections import flow_of

Say = Sequence[str]
"""Sentences, each a count or a named fact of the run; none where the run has nothing to say."""


@dataclass(frozen=True)
class Ground:
    """The run as one page sees it.

    Attributes
    ----------
    reporter
        Options, results and the primary index test.
    cohorts
        Lines of the cohort table that the page is about; a hospital's own page has that hospital only.
    inventories
        Of these cohorts.
    """

    reporter: Reporter
    cohorts: Sequence[Cohort]
    inventories: Mapping[str, pd.DataFrame]
    _tables: dict[tuple[str, str], pd.DataFrame | None] = field(default_factory=dict, init=False, repr=False)
    _flows: dict[str, Flow] = field(default_factory=dict, init=False, repr=False)

    @property
    def protocol(self) -> Protocol:
        """The sound protocol: a checklist quotes no figure of a leaky one where there is another."""
        protocols = self.reporter.options.protocols
        return "sound" if "sound" in protocols else protocols[0]

    @property
    def test(self) -> IndexTest:
        """The primary index test."""
        return self.reporter.tests(self.protocol)[0]

    @property
    def developed(self) -> bool:
        """True where the page is about development too."""
        return any(cohort.role == "development" for cohort in self.cohorts)

    @property
    def external(self) -> list[Cohort]:
        """External hospitals of the page."""
        return [cohort for cohort in self.cohorts if cohort.role == "external"]

    @property
    def measured(self) -> dict[str, str]:
        """Sets of patients whose accuracy was measured → what they are called; development's are pooled."""
        own = {DEVELOPMENT: "development, out of fold"} if self.developed else {}
        return {**own, **{cohort.name: cohort.hospital for cohort in self.external}}

    @property
    def lock(self) -> Mapping[str, Any]:
        """The choices that were fixed on development data."""
        return self.reporter.results.lock(self.test)

    def kept(self, cohort: Cohort) -> pd.DataFrame:
        """Return the included images of a cohort."""
        inventory = self.inventories[cohort.name]
        return inventory[inventory["status"].eq("included")]

    def patients(self, cohort: Cohort) -> pd.DataFrame:
        """Return the first included image of each patient of a cohort."""
        return self.kept(cohort).drop_duplicates("patient_id")

    def table(self, folder: str, name: str) -> pd.DataFrame | None:
        """Return a table of the accuracy step on one set of patients, or None; read once."""
        if (folder, name) not in self._tables:
            self._tables[folder, name] = self.reporter.results.accuracy(self.test, folder, name)
        return self._tables[folder, name]

    def flow(self, cohort: Cohort) -> Flow:
        """Return a cohort's way through the study; traced once."""
        if cohort.name not in self._flows:
            developed = cohort.role == "development"
            self._flows[cohort.name] = flow_of(self.reporter, self.test, cohort.name, developed)
        return self._flows[cohort.name]

    def cards(self, network: IndexTest) -> dict[str, dict[str, Any]]:
        """Return what each fold's training tells of itself, as far as it is there."""
        results = self.reporter.results
        paths = {
            fold: results.training_path(network, fold, "card.json")
            for fold in results.folds(network.protocol)
        }
        return {fold: read_json(path) or {} for fold, path in paths.items() if path.is_file()}

    def counted(self, folder: str) -> str:
        """Return what stands for the primary unit of analysis."""
        return self.reporter.noun(folder) if self.reporter.unit == "patient" else "images"

    def question(self, endpoint: str) -> str:
        """Return an endpoint with the unit that it is asked of: ``AML (AML against all others), per patient``."""
        noun = self.reporter.common_noun(self.measured)
        return f"{endpoint_title(self.reporter.options, endpoint)}, {unit_title(self.reporter.unit, noun)}"


def called(cohort: Cohort) -> str:
    """Return a hospital with its role: ``Hospital A, development``."""
    return f"{cohort.hospital}, {cohort.role}"


def one_or(count: int, noun: str) -> str:
    """Return a count with its noun, in the singular for one."""
    return f"{count} {tables.one_of(noun) if count == 1 else noun}"
