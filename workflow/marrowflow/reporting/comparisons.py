"""The index tests of a study beside one another: their accuracy, their differences, and how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from marrowflow.config import CLASSES, Protocol, Unit
from marrowflow.reporting import page, tables
from marrowflow.reporting.notes import compact, interval_note, row_of, sentence
from marrowflow.reporting.reporter import Reporter, missing, unit_title
from marrowflow.reporting.results import IndexTest, read_csv
from marrowflow.reporting.tables import Table

TESTS = {
    "jackknife_t": "t-test by leaving patients out",
    "delong": "DeLong’s z-test",
    "obuchowski": "Obuchowski’s z-test",
    "mcnemar": "McNemar’s χ²",
    "mcnemar_exact": "McNemar’s exact test",
    "obuchowski_1998": "Obuchowski’s clustered McNemar test",
    "rao_scott": "Rao and Scott’s χ²",
}
"""Names of the tests as people write them."""

_BINARY = (("auc", ""), ("sensitivity", ""), ("specificity", ""))
_CLASSES = (("accuracy", ""), ("auc", "macro"))
_AGREEMENT = {"agreement": "agreement", "kappa": "κ"}


@dataclass(frozen=True)
class Compared:
    """Which index tests are compared on what, and the words for it.

    Attributes
    ----------
    first, others
        Names of the index tests.
    endpoint, unit, confidence
        Which rows of the tables, and the coverage of their intervals.
    who, noun
        Whose patients, and what stands for patients there.
    warnings
        ``warnings.csv`` of the comparison, or None.
    leaky
        Stamp the tables.
    """

    first: str
    others: Sequence[str]
    endpoint: str
    unit: Unit
    confidence: float
    who: str
    noun: str
    warnings: pd.DataFrame | None
    leaky: bool

    @property
    def counted(self) -> str:
        """What stands for the units of analysis."""
        return self.noun if self.unit == "patient" else "images"

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table's primary rows on the first index test, endpoint and unit."""
        return table[
            table["primary"]
            & table["index_test"].eq(self.first)
            & table["endpoint"].eq(self.endpoint)
            & table["unit"].eq(self.unit)
        ]

    def title(self, what: str) -> str:
        """Return a table's title."""
        return f"{self.who}: {what}, {self.endpoint}, {unit_title(self.unit, self.noun)}"

    def warned(
        self, pairs: Sequence[tuple[str, str]], titles: Mapping[str, str], whole: bool = True
    ) -> list[str]:
        """Return the warnings about some metrics and classes, and about the `whole` endpoint, each text once."""
        found: dict[tuple[str, str], list[str]] = {}

        def note(about: str, texts: Sequence[str]) -> None:
            # "A against B: few" and "A against C: few" become "against B, against C: few".
            for text in texts:
                subject, _, said = text.replace(tables.PATIENTS, self.noun).partition(": ")
                found.setdefault((about, said), []).append(subject.removeprefix(f"{self.first} "))

        if whole:
            note("Warning", tables.wide_warnings(self.warnings, self.endpoint, self.unit, self.noun))
        for metric, name in pairs:
            title = titles[metric] + (f" ({name})" if name else "")
            note(title, tables.warnings_of(self.warnings, self.endpoint, self.unit, metric, name))
        return [
            f"{sentence(about)}: {', '.join(subjects)}{f': {said}' if said else ''}."
            for (about, said), subjects in found.items()
        ]


def comparison_blocks(reporter: Reporter, protocol: Protocol, cohort: str, who: str) -> list[page.Block]:
    """Compare the first index test with each other on one cohort, endpoint by endpoint, in the primary unit."""
    first, *others = reporter.tests(protocol)
    if not others:
        return [page.Text([f"{first.name} is the only index test: there is nothing to compare it with."])]
    paths = {
        name: reporter.results.comparison_path(protocol, cohort, f"{name}.csv")
        for name in ("comparisons", "agreement", "agreement_counts", "warnings")
    }
    found = {name: read_csv(paths[name]) for name in ("comparisons", "agreement", "warnings")}
    differences, agreement = found["comparisons"], found["agreement"]
    blocks: list[page.Block] = []
    for endpoint in reporter.endpoints:
        compared = Compared(
            first.name,
            [t.name for t in others],
            endpoint,
            reporter.unit,
            reporter.options.accuracy.confidence,
            who,
            reporter.noun(cohort),
            found["warnings"],
            first.leaky,
        )
        blocks.append(_estimates(reporter, [first, *others], cohort, who, endpoint))
        if differences is not None:
            sources = reporter.sources(paths["comparisons"], paths["warnings"])
            blocks.append(difference_table(compared, differences, sources))
        if agreement is not None:
            sources = reporter.sources(paths["agreement"], paths["agreement_counts"])
            blocks.append(agreement_table(compared, agreement, sources))
    lost = [paths[name] for name in ("comparisons", "agreement") if found[name] is None]
    return [*blocks, *(missing(path, reporter.results) for path in lost)]


def difference_table(compared: Compared, differences: pd.DataFrame, sources: Mapping[str, str]) -> Table:
    """Return one line an index test: differences of the headline metrics, first minus other, with their p-values."""
    rows = compared.of(differences)
    family = int(rows["p_holm"].notna().sum())
    wanted = _CLASSES if compared.endpoint == CLASSES else _BINARY
    shown = pd.concat([rows[rows["metric"].eq(m) & rows["class"].eq(c)] for m, c in wanted])
    tested = {pair for pair in wanted if shown.loc[_is(shown, pair), "p_holm"].notna().any()}
    header = ["index test", compared.counted]
    for pair in wanted:
        header.append(f"{tables.metric_title(*pair)}: difference")
        header += ["p (Holm)"] if pair in tested else []
    body = []
    for other in compared.others:
        own = shown[shown["against"].eq(other)]
        n = own["n_patients" if compared.unit == "patient" else "n_cases"].max()
        line = [other, tables.MISSING if own.empty else tables.whole(n)]
        for pair in wanted:
            row = row_of(own, metric=pair[0], of=pair[1])
            line.append(compact(row and row | {"estimate": row["difference"]}))
            line += [_both(row)] if pair in tested else []
        body.append(line)
    notes = [
        f"{compared.first} minus the index test of the line: above 0 the first does better. Counted are {compared.counted} with "
        "a reference and an answer of both.",
        interval_note(shown, tables.METRICS, compared.confidence, compared.noun),
        _tests_note(shown, wanted, tested, family),
        *compared.warned(wanted, tables.METRICS),
    ]
    return Table(
        compared.title(f"differences of {compared.first} from each other index test"),
        header,
        body,
        [1],  # p-values may wrap: three differences with theirs are as wide as the page
        notes,
        sources,
        compared.leaky,
    )


def agreement_table(compared: Compared, agreement: pd.DataFrame, sources: Mapping[str, str]) -> Table:
    """Return one line an index test: percent agreement with the first, and κ."""
    rows = compared.of(agreement)
    shown = rows[rows["metric"].isin(list(_AGREEMENT))].assign(**{"class": ""})
    body = []
    for other in compared.others:
        own = shown[shown["against"].eq(other)]
        n = row_of(own, metric="agreement")
        cells = (compact(row_of(own, metric=metric)) for metric in _AGREEMENT)
        body.append([other, tables.whole(n["denominator"]) if n else tables.MISSING, *cells])
    lacking = [(str(m), "") for m in shown.loc[shown["method"].eq("none"), "metric"].unique()]
    notes = [
        f"Agreement of the answers with each other: no reference is needed, and all {compared.counted} that both answered "
        f"count. In brackets: agreeing/all, in {compared.counted}.",
        interval_note(shown, _AGREEMENT, compared.confidence, compared.noun),
        *compared.warned(lacking, _AGREEMENT, whole=False),
    ]
    return Table(
        compared.title(f"agreement of {compared.first} with each other index test"),
        ["index test", compared.counted, *_AGREEMENT.values()],
        body,
        [1],
        notes,
        sources,
        compared.leaky,
    )


def p_value(p: float) -> str:
    """Return a p-value with three decimals; below .001 it is only said that it is."""
    return "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def _both(row: Mapping[str, Any] | None) -> str:
    """Return ``p (adjusted p)``, an en dash where there is no test."""
    if row is None or row["p_value"] != row["p_value"]:
        return "–"
    return f"{p_value(row['p_value'])} ({p_value(row['p_holm'])})"


def _is(rows: pd.DataFrame, pair: tuple[str, str]) -> pd.Series:
    return rows["metric"].eq(pair[0]) & rows["class"].eq(pair[1])


def _tests_note(
    shown: pd.DataFrame,
    wanted: Sequence[tuple[str, str]],
    tested: set[tuple[str, str]],
    family: int,
) -> str:
    """Name the test of each metric, the family of the adjustment, and what has no test."""
    metrics: dict[str, list[str]] = {}
    for pair in wanted:
        for test in dict.fromkeys(shown.loc[_is(shown, pair) & shown["p_holm"].notna(), "test"]):
            metrics.setdefault(str(test), []).append(tables.metric_title(*pair))
    if not metrics:
        return "No p-values."
    named = "; ".join(f"{TESTS.get(test, test)} ({', '.join(of)})" for test, of in metrics.items())
    untested = [tables.metric_title(*pair) for pair in wanted if pair not in tested]
    return (
        f"p: two-sided, {named}; in parentheses adjusted by Holm for a family of {family} p-values: all pairs, metrics and "
        "classes of this endpoint and unit. Intervals are not adjusted. "
        "The tests of counts are not made of the interval’s variance: near the limit the two can disagree."
        + (f" No test of {', '.join(untested)}." if untested else "")
    )


def _estimates(reporter: Reporter, tests: Sequence[IndexTest], cohort: str, who: str, endpoint: str) -> Table:
    """Return the headline metrics of all index tests, each on all units that it answered."""
    results, noun = reporter.results, reporter.noun(cohort)
    files = {t: results.accuracy_path(t, cohort, "metrics.csv") for t in tests}
    measured = {
        f"{t.name}{' (primary)' if i == 0 else ''}": (
            results.accuracy(t, cohort, "metrics.csv"),
            results.accuracy(t, cohort, "warnings.csv"),
        )
        for i, t in enumerate(tests)
    }
    return tables.comparison_table(
        measured,
        "index test",
        endpoint,
        reporter.unit,
        f"{who}: all index tests, {endpoint}, {unit_title(reporter.unit, noun)}",
        {f"metrics.csv of {t.name}": results.href(path) for t, path in files.items()},
        [
            f"The primary index test was {reporter.how_primary()}.",
            *reporter.remarks(cohort),
        ],
        tests[0].leaky,
        noun,
    )
