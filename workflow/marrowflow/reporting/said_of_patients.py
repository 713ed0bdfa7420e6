"""What the inventories and manifests answer of a checklist, in sentences of counts and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from marrowflow.cohorts.table import Cohort
from marrowflow.reporting import tables
from marrowflow.reporting.baseline import Group, Role, days_between
from marrowflow.reporting.ground import Ground, Say, called, one_or
from marrowflow.reporting.limitations import limitations
from marrowflow.reporting.results import DEVELOPMENT, read_csv

_DEVICES = {"scanner": "scanner", "magnification": "magnification", "mpp": "µm a pixel"}
_SHOWN = 5  # names of a list; of more the number is given


class ByClass(NamedTuple):
    """How often each class was found with a usable reference standard.

    Attributes
    ----------
    counts
        A class; patients, or images where a patient has images of several classes.
    total
        Of all these patients or images, each once.
    counted
        The total in words.
    """

    counts: pd.Series
    total: int
    counted: str


def participants(ground: Ground) -> Say:
    """Return how many patients and images each hospital brought in."""
    return [
        f"{called(cohort)}: {_of(ground.kept(cohort)['patient_id'].nunique(), inventory['patient_id'].nunique())} "
        f"{ground.reporter.noun(cohort.name)} and {_of(len(ground.kept(cohort)), len(inventory))} images included."
        for cohort in ground.cohorts
        for inventory in [ground.inventories[cohort.name]]
    ]


def sites(ground: Ground) -> Say:
    """Return each hospital with the dates of its tests, of included images as in Table 1."""
    return [f"{called(cohort)}: {_span(ground.kept(cohort))}." for cohort in ground.cohorts]


def _span(images: pd.DataFrame) -> str:
    found = []
    for column, name in (("index_date", "index tests"), ("reference_date", "reference standard")):
        dates = _dates(images, column).dropna()
        if len(dates):
            found.append(f"{name} from {dates.min().date()} to {dates.max().date()}")
    return ", ".join(found) or "no dates in its manifest"


def _dates(rows: pd.DataFrame, column: str) -> pd.Series:
    if column not in rows:
        return pd.Series(pd.NaT, index=rows.index, dtype="datetime64[ns]")
    return pd.to_datetime(rows[column], errors="coerce", format="ISO8601")


def order_of_dates(ground: Ground) -> Say:
    """Return what speaks against a prospective design: external patients tested before the last one of development."""
    if "prospective" not in ground.reporter.options.study.design.lower():
        return []
    development = [
        _dates(ground.kept(c), "index_date").max() for c in ground.cohorts if c.role == "development"
    ]
    if not development or pd.isna(last := max(development)):
        return []
    early = {c: _dates(ground.patients(c), "index_date").lt(last).sum() for c in ground.external}
    return [
        f"Check the word prospective: {one_or(int(n), ground.reporter.noun(cohort.name))} of {cohort.hospital} "
        f"had the index test before {last.date()}, the last one of development."
        for cohort, n in early.items()
        if n
    ]


def exclusions(ground: Ground) -> Say:
    """Return how many images were excluded at each hospital, and for which reasons."""
    found = []
    for cohort in ground.cohorts:
        inventory = ground.inventories[cohort.name]
        reasons = inventory.loc[inventory["status"].ne("included"), "reason"].replace("", "no reason given")
        parts = [f"{n} {reason}" for reason, n in reasons.value_counts(sort=False).sort_index().items()]
        found.append(
            f"{called(cohort)}: {_of(len(reasons), len(inventory))} images excluded"
            f"{': ' if parts else ''}{'; '.join(parts)}."
        )
    return found


def sources(ground: Ground) -> Say:
    """Return where each hospital's images come from, as far as the cohort table says."""
    return [f"{called(cohort)}: {cohort.source}." for cohort in ground.cohorts if cohort.source.strip()]


def devices(ground: Ground) -> Say:
    """Return what each hospital's manifest says of its devices."""
    found = []
    for cohort in ground.cohorts:
        said = [
            f"{name} {_names(values)}" if column != "mpp" else f"{_names(values)} {name}"
            for column, name in _DEVICES.items()
            if (values := _values(ground.kept(cohort), column))
        ]
        if said:
            found.append(f"{called(cohort)}: {'; '.join(said)}.")
    return found


def _values(rows: pd.DataFrame, column: str) -> list[str]:
    if column not in rows:
        return []
    given = rows[column].dropna()
    texts = given.map("{:g}".format) if pd.api.types.is_numeric_dtype(given) else given.astype(str)
    return sorted({text for text in texts if text.strip()})


def _names(values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more


def missing(ground: Ground) -> Say:
    """Return what is missing of the patients of each hospital, and where the index test was not done."""
    found = []
    for cohort in ground.cohorts:
        kept, group = ground.kept(cohort), _group(ground, cohort)
        absent = kept["reference_status"].eq("missing").groupby(kept["patient_id"]).all()
        parts = [f"reference standard {int(absent.sum())}"]
        parts += [f"{column} {group.own(column).isna().sum()}" for column in ("age", "sex") if column in kept]
        noun = ground.reporter.noun(cohort.name)
        found.append(f"{called(cohort)}, missing of {len(group.patients)} {noun}: {', '.join(parts)}.")
    for folder, name in ground.measured.items():
        done = _answers(ground, folder)
        if done is not None:
            n = int(done.loc[done["predicted"].eq("not_done"), "n"].sum())
            found.append(
                f"Index test not done, {name}: {_of(n, int(done['n'].sum()))} {ground.counted(folder)}."
            )
    return found


def _group(ground: Ground, cohort: Cohort) -> Group:
    """Return a cohort as Table 1 counts it: a patient's value is the first that is not empty."""
    role: Role = "external" if cohort.role == "external" else "hospital"
    return Group(cohort.name, cohort.hospital, role, ground.inventories[cohort.name])


def _answers(ground: Ground, folder: str) -> pd.DataFrame | None:
    """Return counts of the first endpoint by reference and answer, in the primary unit."""
    table = ground.table(folder, "confusion.csv")
    if table is None:
        return None
    reporter = ground.reporter
    return table[table["endpoint"].eq(reporter.endpoints[0]) & table["unit"].eq(reporter.unit)]


def indeterminate(ground: Ground) -> Say:
    """Return counts of indeterminate index tests and inconclusive references, accuracy three ways, and readers' counts."""
    found = []
    endpoint, unit = ground.reporter.endpoints[0], ground.reporter.unit
    for folder, name in ground.measured.items():
        counts = _answers(ground, folder)
        if counts is None:
            continue
        n = {
            "index test indeterminate": counts["predicted"].eq("indeterminate"),
            "reference standard inconclusive": counts["truth"].eq("inconclusive"),
        }
        parts = [f"{what} in {int(counts.loc[rows, 'n'].sum())}" for what, rows in n.items()]
        analyses = _three_ways(ground.table(folder, "indeterminate.csv"), endpoint, unit)
        found.append(
            f"{name}, of {int(counts['n'].sum())} {ground.counted(folder)}: {', '.join(parts)}"
            f"{f'; accuracy {analyses}' if analyses else ''}."
        )
    return [*(f"{text[0].upper()}{text[1:]}" for text in found), *_readers_indeterminate(ground)]


def _readers_indeterminate(ground: Ground) -> Say:
    """Return how many units each reader could not decide about, at the first endpoint in the primary unit."""
    endpoint, unit = ground.reporter.endpoints[0], ground.reporter.unit
    found = []
    for folder, name in ground.measured.items():
        path = ground.reporter.results.root / "comparisons" / "readers" / folder / "confusion.csv"
        table = read_csv(path)
        if table is None:
            continue
        rows = table[table["endpoint"].eq(endpoint) & table["unit"].eq(unit)]
        parts = [
            f"{reader} {_of(int(own.loc[own['predicted'].eq('indeterminate'), 'n'].sum()), int(own['n'].sum()))}"
            for reader, own in rows.groupby("index_test", sort=False)
        ]
        if parts:
            where = DEVELOPMENT if folder == DEVELOPMENT else name
            found.append(f"Readers, {where}, indeterminate, {ground.counted(folder)}: {', '.join(parts)}.")
    return found


def _three_ways(table: pd.DataFrame | None, endpoint: str, unit: str) -> str:
    """Return ``left out 0.878 [36/41], counted as errors …``."""
    if table is None:
        return ""
    rows = table[
        table["endpoint"].eq(endpoint)
        & table["unit"].eq(unit)
        & table["metric"].eq("accuracy")
        & table["class"].eq("")
    ]
    return ", ".join(
        f"{row['analysis'].replace('_', ' ')} {tables.estimate(row)}" for row in rows.to_dict("records")
    )


def baseline(ground: Ground) -> Say:
    """Return number, age and sex of each hospital's patients, as Table 1 counts them; of ages the range for its quartiles."""
    found = []
    for cohort in ground.cohorts:
        group = _group(ground, cohort)
        parts = [f"{ground.reporter.noun(cohort.name)} {len(group.patients)}"]
        ages = pd.to_numeric(group.own("age"), errors="coerce").dropna()
        if len(ages):
            parts.append(f"age in years, median {ages.median():g}, range {ages.min():g} to {ages.max():g}")
        parts += [f"sex {said}"] if (said := _levels(group.own("sex"))) else []
        found.append(f"{called(cohort)}: {'; '.join(parts)}.")
    return found


def _levels(values: pd.Series) -> str:
    """Return ``female 22, male 21`` of the values that are known."""
    return ", ".join(f"{name} {n}" for name, n in values.value_counts(sort=False).sort_index().items())


def severity(ground: Ground) -> Say:
    """Return the distribution of the column severity among patients with the first endpoint's target condition.

    Without a yes/no endpoint there is no target condition: all patients count.
    """
    found = []
    for cohort in ground.cohorts:
        values = _group(ground, cohort).own("severity")
        which = ""
        if positive := _positive(ground):
            values = values[values.index.isin(_with_condition(ground, cohort, positive))]
            which = f" with {ground.reporter.endpoints[0]}"
        if said := _levels(values):
            counted = one_or(len(values), ground.reporter.noun(cohort.name))
            found.append(
                f"{called(cohort)}, {counted}{which}: {said}, none given {int(values.isna().sum())}."
            )
    return found


def _with_condition(ground: Ground, cohort: Cohort, positive: Sequence[str]) -> list[str]:
    """Return the patients whose usable references are all of positive classes: of contradicting ones none is known."""
    usable = _usable(ground, cohort)
    present = usable["label"].isin(positive).groupby(usable["patient_id"]).all()
    return list(present.index[present])


def _usable(ground: Ground, cohort: Cohort) -> pd.DataFrame:
    """Return the included images with a usable reference standard."""
    kept = ground.kept(cohort)
    return kept[kept["reference_status"].eq("ok")]


def by_class(ground: Ground, cohort: Cohort) -> ByClass:
    """Return the number of patients of each class who have a usable reference standard.

    Where patients have images of several classes, images are counted: such a patient is of no single class.
    """
    usable = _usable(ground, cohort)
    by_patient = usable.groupby("patient_id")["label"].nunique()
    patients, several = len(by_patient), int((by_patient > 1).sum())
    counted = one_or(patients, ground.reporter.noun(cohort.name))
    total = patients
    if several:
        reason = f"{several} with images of several classes, which is why images are counted"
        total, counted = len(usable), f"{one_or(len(usable), 'images')} of {counted} ({reason})"
    units = usable if several else usable.drop_duplicates("patient_id")
    counts = units["label"].value_counts().reindex(ground.reporter.options.classes, fill_value=0)
    return ByClass(counts, total, counted)


def diagnoses(ground: Ground) -> Say:
    """Return the patients of each class, apart by whether the first endpoint's target condition is present."""
    positive = _positive(ground)
    found = []
    for cohort in ground.cohorts:
        counts, _, counted = by_class(ground, cohort)
        parts = {
            f"with {ground.reporter.endpoints[0]}" if positive else "all": counts[
                counts.index.isin(positive)
            ],
            "without": counts[~counts.index.isin(positive)],
        }
        if not positive:
            parts = {"diagnoses": counts}
        said = [
            f"{what} {', '.join(f'{name} {n}' for name, n in own.items())}" for what, own in parts.items()
        ]
        found.append(f"{called(cohort)}, {counted}: {'; '.join(said)}.")
    return found


def _positive(ground: Ground) -> list[str]:
    endpoint = ground.reporter.options.endpoints.get(ground.reporter.endpoints[0])
    return endpoint.positive if endpoint else []


def interval(ground: Ground) -> Say:
    """Return the days from the index test to the reference standard, where a manifest has both dates."""
    found = []
    for cohort in ground.cohorts:
        group = _group(ground, cohort)
        days = days_between(group).dropna()
        if len(days):
            found.append(
                f"{called(cohort)}: reference standard {days.min():g} to {days.max():g} days after the index test, median "
                f"{days.median():g} ({len(days)} of {len(group.patients)} {ground.reporter.noun(cohort.name)})."
            )
    return found


def prevalence(ground: Ground) -> Say:
    """Return each class's share of each hospital's patients (or images, see `by_class`) with a usable reference standard."""
    found = []
    for cohort in ground.cohorts:
        counts, total, counted = by_class(ground, cohort)
        if total:
            parts = [f"{name} {n} ({n / total:.1%})" for name, n in counts.items()]
            found.append(f"{called(cohort)}, observed in {counted}: {', '.join(parts)}.")
    return found


def found_limitations(ground: Ground) -> Say:
    """Return the limitations that the data themselves show."""
    return limitations(ground.reporter, ground.inventories, {c.name: c.role for c in ground.cohorts})


def goal(ground: Ground) -> Say:
    """Return how many index tests were developed and validated, and at how many hospitals."""
    developed = len(ground.cohorts) - len(ground.external)
    tests = len(ground.reporter.options.index_tests)
    return [
        f"{tests} index test{'s' if tests != 1 else ''} developed at {developed} and validated at "
        f"{len(ground.external)} external hospital{'s' if len(ground.external) != 1 else ''}."
    ]


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}"
