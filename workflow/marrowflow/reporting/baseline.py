"""Table 1: who was studied, by partition and hospital (STARD 2015, items 20 and 21; STARD-AI 2025, items 25, 26 and 28).

Counted from the inventories, as the flow diagram is. All values are of included images and of patients with at least one; a
patient's own value is the first that is not empty. ``figures/baseline.csv`` has each printed number by itself.

Each external hospital is set against all development patients by standardised differences (`statistics.standardised`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np
import pandas as pd

from marrowflow.files import write_table
from marrowflow.predictions import INCONCLUSIVE
from marrowflow.reporting import page
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.tables import MISSING, PATIENTS, SURROGATES, Table
from marrowflow.statistics.standardised import standardised_difference, standardised_difference_of_shares

SHOWN_LEVELS = 8
"""Values of a text column with a row of their own; the rarer ones are counted together."""

PARTITIONS = ("train", "validation", "test")
COLUMNS = (
    "characteristic", "level", "group", "role", "n", "of", "median", "q1", "q3", "from", "to", "negative", "missing",
    "images", "difference", "shown",
)  # fmt: skip
"""Of ``baseline.csv``: one row a line of the table and group; `shown` is the printed cell, `difference` stands once for each
characteristic and external hospital."""

_NOTHING = "–"
_HYPHEN = "\u2011"
_INDENT = "\u2003"  # of a level below the name of its characteristic; the page keeps it
_TEXTS = {
    "severity": "severity",
    "scanner": "scanner",
    "stain": "stain",
    "magnification": "magnification",
}
_QUALITY = {
    "focus": ("focus measure, mean of a {one}", 1.0),
    "brightness": ("brightness (0 to 255), mean of a {one}", 1.0),
    "saturated": ("saturated pixels in %, mean of a {one}", 100.0),
}

Role = Literal["development", "partition", "hospital", "external"]


@dataclass(frozen=True)
class Group:
    """The images behind one column of the table.

    Attributes
    ----------
    name, heading
        In the file, and above the column.
    role
        All of development, a partition or a hospital of it, or an external hospital.
    inventory
        Rows of the intake, those of excluded images among them.
    """

    name: str
    heading: str
    role: Role
    inventory: pd.DataFrame

    @cached_property
    def kept(self) -> pd.DataFrame:
        """Included images."""
        return self.inventory[self.inventory["status"].eq("included")]

    @cached_property
    def patients(self) -> pd.Index:
        """Patients with an included image, in the order of the manifest."""
        return pd.Index(self.kept["patient_id"].drop_duplicates())

    @property
    def surrogate(self) -> bool:
        """True where near-duplicate clusters stand in for patients."""
        return bool(self.inventory["patient_source"].eq("surrogate").any())

    def own(self, column: str) -> pd.Series:
        """Return each patient's first value of a column that is not empty, by patient; NaN of those without one."""
        values = known(self.kept, column)
        return values.dropna().groupby(self.kept["patient_id"]).first().reindex(self.patients)

    def contradicting(self, column: str) -> int:
        """Return how many patients have images with different values of a column."""
        values = known(self.kept, column)
        return int((values.dropna().groupby(self.kept["patient_id"]).nunique() > 1).sum())


@dataclass(frozen=True)
class Cell:
    """A printed value and the numbers in it, named as in `COLUMNS`."""

    shown: str
    numbers: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A row of the table: what it is of, a cell for each group, and differences by external group (its first line only)."""

    characteristic: str
    level: str
    cells: Mapping[str, Cell]
    differences: Mapping[str, float] = field(default_factory=dict)
    intended: str = ""


def baseline_section(
    reporter: Reporter, development: Mapping[str, str], external: Mapping[str, str]
) -> page.Section:
    """Return the section of Table 1 and write ``baseline.csv`` beside the page's figures.

    Parameters
    ----------
    reporter
        Where the inventories and the sound protocol's folds lie.
    development, external
        Hospitals by cohort. A hospital's own page names itself alone as external, so that no other one's files are read.
    """
    results = reporter.results
    inventories = {cohort: results.inventory(cohort) for cohort in (*development, *external)}
    folds_path = results.split_path("sound", "folds.parquet")
    folds = pd.read_parquet(folds_path) if folds_path.is_file() else None
    groups, notes = development_groups(
        {cohort: inventories[cohort] for cohort in development}, development, folds
    )
    groups += [
        Group(cohort, hospital, "external", inventories[cohort]) for cohort, hospital in external.items()
    ]
    lines = baseline_lines(groups, reporter.options.classes, reporter.options.study.intended_prevalence)
    path = reporter.folder / "baseline.csv"
    write_table(path, numbers_of(lines, groups))
    sources = {
        **reporter.sources(path),
        **{f"inventory of {cohort}": results.href(results.inventory_path(cohort)) for cohort in inventories},
        **reporter.sources(folds_path),
    }
    table = baseline_table(groups, lines, [*notes, *remarks_on(groups)], sources)
    return page.Section("Baseline characteristics", "baseline", [table])


def development_groups(
    inventories: Mapping[str, pd.DataFrame], hospitals: Mapping[str, str], folds: pd.DataFrame | None
) -> tuple[list[Group], list[str]]:
    """Return the columns of development, and what must be said of its partitions.

    Parameters
    ----------
    inventories, hospitals
        By cohort.
    folds
        Of the sound protocol (``case_id``, ``fold``, ``partition``), or None.

    Returns
    -------
    list of Group
        All together; each partition, where patients were divided once; each hospital, where there are several.
    list of str
        Footnotes.
    """
    whole = pd.concat(list(inventories.values()), ignore_index=True)
    groups, notes = [Group("development", "Development", "development", whole)], []
    if folds is None:
        notes.append("Partitions: missing.")
    elif folds["fold"].nunique() == 1:
        for name in PARTITIONS:
            cases = folds.loc[folds["partition"].eq(name), "case_id"]
            part = whole[whole["case_id"].isin(cases)]
            if len(part):
                groups.append(Group(f"development/{name}", f"Development, {name}", "partition", part))
        notes.append("Partitions hold the included images with a usable reference standard.")
    else:
        notes.append(_tested_often(folds))
    if len(inventories) > 1:
        groups += [Group(name, hospitals[name], "hospital", own) for name, own in inventories.items()]
    return groups, notes


def _tested_often(folds: pd.DataFrame) -> str:
    """Say how often each patient was in a test set, where there are several folds."""
    tests = folds[folds["partition"].eq("test")].groupby("patient_id")["fold"].nunique()
    often = tests.reindex(folds["patient_id"].unique(), fill_value=0)
    n = folds["fold"].nunique()
    if often.eq(1).all():
        return (
            f"No columns for partitions: in {n} folds every development patient with a usable reference standard is tested "
            "once and serves for training or validation in the other folds."
        )
    return (
        f"No columns for partitions: in {n} divisions a development patient with a usable reference standard is tested "
        f"{often.min()} to {often.max()} times."
    )


def baseline_lines(
    groups: Sequence[Group], classes: Sequence[str], intended: Mapping[str, float] | None = None
) -> list[Line]:
    """Return all lines of the table, in its order.

    Parameters
    ----------
    groups
        One a column; the first is the one that external hospitals are set against.
    classes
        The study's, in order.
    intended
        Share of each class among the patients for whom the test is meant.
    """
    noun = _noun(groups)
    one = noun[:-1]
    lines = [
        _counted(groups, noun, lambda g: len(g.patients)),
        _counted(groups, "smears", _smears),
        _counted(groups, "images", lambda g: len(g.kept)),
        _measured(groups, f"images a {one}", lambda g: g.kept.groupby("patient_id").size().astype(float)),
        _counted(groups, f"{noun} without an included image", _lost),
        _counted(groups, "excluded images", lambda g: len(g.inventory) - len(g.kept)),
        _measured(groups, "age in years", lambda g: pd.to_numeric(g.own("age"), errors="coerce")),
        *_levels(groups, "sex", "sex", noun),
        *_class_lines(groups, classes, intended or {}, noun),
    ]
    for column, title in _TEXTS.items():
        lines += _levels(groups, column, title, noun)
    lines += [
        _dated(groups, "date of the index test", "index_date"),
        _dated(groups, "date of the reference standard", "reference_date"),
        _measured(groups, "days from index test to reference standard", days_between, signed=True),
    ]
    for column, (title, factor) in _QUALITY.items():
        lines.append(_measured(groups, title.format(one=one), partial(_means, column=column, factor=factor)))
    return lines


def baseline_table(
    groups: Sequence[Group], lines: Sequence[Line], notes: Sequence[str], sources: Mapping[str, str]
) -> Table:
    """Return the lines as a page prints them: a column a group, after each external one its difference.

    The levels of a characteristic stand below its name, with which its difference stands.
    """
    intended = any(line.intended for line in lines)
    header = ["characteristic"]
    for group in groups:
        header += [group.heading, *(["standardised difference"] if group.role == "external" else [])]
    body: list[list[str]] = []
    before = ""
    for line in lines:
        if line.level and line.characteristic != before:
            blank = {group.name: Cell("") for group in groups}
            body.append(_row(line.characteristic, groups, replace(line, cells=blank, intended=""), intended))
        above = replace(line, differences={}) if line.level else line
        title = _INDENT + line.level if line.level else line.characteristic
        body.append(_row(title, groups, above, intended))
        before = line.characteristic
    return Table(
        "Table 1. Baseline characteristics by partition and hospital",
        header + (["intended use"] if intended else []),
        body,
        (),
        notes,
        sources,
    )


def _row(title: str, groups: Sequence[Group], line: Line, intended: bool) -> list[str]:
    row = [title]
    for group in groups:
        row.append(line.cells[group.name].shown)
        if group.role == "external":
            row.append(shown_difference(line.differences.get(group.name)))
    return row + ([line.intended] if intended else [])


def numbers_of(lines: Sequence[Line], groups: Sequence[Group]) -> pd.DataFrame:
    """Return every number of the table, one row a line and group, with `COLUMNS`."""
    rows = [
        {
            "characteristic": line.characteristic,
            "level": line.level,
            "group": group.name,
            "role": group.role,
            **line.cells[group.name].numbers,
            "difference": line.differences.get(group.name),
            "shown": line.cells[group.name].shown,
        }
        for line in lines
        for group in groups
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("n", "of", "negative", "missing", "images"), "Int64"))


def remarks_on(groups: Sequence[Group]) -> list[str]:
    """Return what the table must say of its numbers."""
    noun = _noun(groups)
    surrogate = [g.heading for g in groups if g.surrogate and g.role != "partition"]
    # Hospitals of development are in its own column already.
    apart = [g for g in groups if g.role in ("development", "external")]
    columns = ("age", "sex", *_TEXTS, "index_date", "reference_date")
    differing = {c.replace("_", " "): sum(g.contradicting(c) for g in apart) for c in columns}
    differing["reference diagnosis"] = sum(_several_classes(g) for g in apart)
    found = ", ".join(f"{name} {n}" for name, n in differing.items() if n)
    notes = [
        f"Included images, and {noun} with at least one, unless the row says otherwise. Medians with lower and upper quartile "
        f"in brackets; percentages are of {noun} with a value. A {noun[:-1]}’s value is the first that is not empty.",
        f"{noun.capitalize()} with images that contradict each other: {found}."
        if found
        else f"No {noun[:-1]} has images that contradict each other.",
    ]
    if any(g.role == "external" for g in groups):
        notes.append(
            f"Standardised difference: the hospital against all development {noun}; {MISSING} values are left out. Continuous: "
            "difference of means over the root of the mean variance (Austin 2009). Categories, all levels at once and without "
            "sign: Mahalanobis distance of the shares (Yang & Dalton 2012); ∞ where no variance allows the difference."
        )
        if any(_several_classes(g) for g in apart):
            notes.append(
                f"The difference of reference diagnoses is of images, because a {noun[:-1]} may have several."
            )
    if surrogate and noun == PATIENTS:
        notes.append(
            f"In {', '.join(surrogate)} surrogate groups of near duplicates are counted as patients."
        )
    return notes


def shown_difference(value: float | None) -> str:
    """Return a standardised difference for the table, with two decimals; nothing where the line has none."""
    if value is None:
        return ""
    if math.isnan(value):
        return _NOTHING
    # Adding zero takes the sign off a zero.
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−").replace("inf", "∞")


# Lines


def known(images: pd.DataFrame, column: str) -> pd.Series:
    """Return a column's values as text, NaN where there is none; a sex that is unknown is none."""
    if column not in images:
        return pd.Series(np.nan, index=images.index, dtype=object)
    raw = images[column]
    values = raw.astype(object).where(raw.notna(), "").map(str).str.strip()
    empty = values.eq("") | (values.eq("unknown") if column == "sex" else False)
    return values.astype(object).mask(empty, np.nan)


def _against(groups: Sequence[Group], measure: Callable[[Group, Group], float]) -> dict[str, float]:
    """Return the difference of each external hospital to the first group."""
    return {g.name: measure(g, groups[0]) for g in groups if g.role == "external"}


def _counted(
    groups: Sequence[Group], title: str, count: Callable[[Group], int | None], level: str = ""
) -> Line:
    counts = {g.name: count(g) for g in groups}
    return Line(
        title, level, {name: Cell(MISSING if n is None else str(n), {"n": n}) for name, n in counts.items()}
    )


def _measured(
    groups: Sequence[Group], title: str, values: Callable[[Group], pd.Series], signed: bool = False
) -> Line:
    """Return a line of medians and quartiles (linear between values), with what is missing and (if `signed`) negative."""
    of = {g.name: values(g) for g in groups}
    cells = {}
    for name, own in of.items():
        there = own.dropna().to_numpy(np.float64)
        missing = len(own) - len(there)
        if not len(there):
            cells[name] = Cell(MISSING, {"n": 0, "missing": missing})
            continue
        q1, median, q3 = np.percentile(there, [25, 50, 75])
        negative = int((there < 0).sum())
        shown = f"{_short(median)} ({_short(q1)} to {_short(q3)})"
        shown += f"; negative in {negative}" if signed else ""
        shown += f"; {MISSING} in {missing}" if missing else ""
        numbers = {"n": len(there), "median": median, "q1": q1, "q3": q3, "missing": missing}
        cells[name] = Cell(shown, numbers | ({"negative": negative} if signed else {}))
    return Line(
        title, "", cells, _against(groups, lambda g, d: standardised_difference(of[g.name], of[d.name]))
    )


def _dated(groups: Sequence[Group], title: str, column: str) -> Line:
    """Return a line of first and last dates."""
    cells = {}
    for g in groups:
        dates = g.own(column)
        there = dates.dropna()
        missing = len(dates) - len(there)
        if there.empty:
            cells[g.name] = Cell(MISSING, {"n": 0, "missing": missing})
            continue
        # A date must not break at its hyphens.
        first, last = (str(date).replace("-", _HYPHEN) for date in (there.min(), there.max()))
        shown = f"{first} to {last}" + (f"; {MISSING} in {missing}" if missing else "")
        numbers = {"n": len(there), "from": there.min(), "to": there.max(), "missing": missing}
        cells[g.name] = Cell(shown, numbers)
    return Line(title, "", cells)


def _levels(groups: Sequence[Group], column: str, title: str, noun: str) -> list[Line]:
    """Return a line for each value of a text column, the commonest first, then one of those without a value."""
    own = {g.name: g.own(column) for g in groups}
    apart = [own[g.name] for g in groups if g.role in ("development", "external")]
    counts = pd.concat(apart).value_counts()
    ranked = sorted(counts.index, key=lambda value: (-counts[value], value))
    title = f"{title}, {noun} (%)"
    if not ranked:
        return [
            Line(title, "", {g.name: Cell(MISSING, {"n": 0, "missing": len(own[g.name])}) for g in groups})
        ]
    differences = _against(
        groups,
        lambda g, d: standardised_difference_of_shares(
            *([int(own[x.name].eq(v).sum()) for v in ranked] for x in (g, d))
        ),
    )
    most = len(ranked) if len(ranked) <= SHOWN_LEVELS else SHOWN_LEVELS - 1
    rows = [(value, [value]) for value in ranked[:most]]
    if ranked[most:]:
        rows.append((f"{len(ranked) - most} others", ranked[most:]))
    lines: list[Line] = []
    for name, values in rows:
        cells = {
            g.name: _share(int(own[g.name].isin(values).sum()), int(own[g.name].notna().sum()))
            for g in groups
        }
        lines.append(Line(title, name, cells, {} if lines else differences))
    if any(values.isna().any() for values in own.values()):
        lines.append(_counted(groups, title, lambda g: int(own[g.name].isna().sum()), MISSING))
    return lines


def _class_lines(
    groups: Sequence[Group], classes: Sequence[str], intended: Mapping[str, float], noun: str
) -> list[Line]:
    """Return a line a class and one for each kind of unusable reference, counted in patients and images."""
    title = f"reference diagnosis, {noun} (%) [images]"
    usable = {g.name: g.kept[g.kept["reference_status"].eq("ok")] for g in groups}
    by_image = any(_several_classes(g) for g in groups)

    def counts(group: Group) -> list[int]:
        own = usable[group.name]
        of = [own[own["label"].eq(name)] for name in classes]
        return [len(rows) if by_image else rows["patient_id"].nunique() for rows in of]

    differences = _against(groups, lambda g, d: standardised_difference_of_shares(counts(g), counts(d)))
    lines: list[Line] = []
    for name in classes:
        cells = {}
        for g in groups:
            own = usable[g.name]
            rows = own[own["label"].eq(name)]
            share = _share(rows["patient_id"].nunique(), own["patient_id"].nunique())
            cells[g.name] = Cell(f"{share.shown} [{len(rows)}]", {**share.numbers, "images": len(rows)})
        wanted = f"{100 * intended[name]:.3g}%" if name in intended else ""
        lines.append(Line(title, name, cells, {} if lines else differences, wanted))
    for status in (MISSING, INCONCLUSIVE):
        cells = {}
        for g in groups:
            rows = g.kept[g.kept["reference_status"].eq(status)]
            n = rows["patient_id"].nunique()
            cells[g.name] = Cell(f"{n} [{len(rows)}]", {"n": n, "images": len(rows)})
        lines.append(Line(f"reference standard, {noun} [images]", status, cells))
    return lines


def _share(n: int, of: int) -> Cell:
    """Return a count with its percentage; no value at all prints as nothing."""
    return Cell(f"{n} ({100 * n / of:.0f}%)" if of else _NOTHING, {"n": n, "of": of})


def _several_classes(group: Group) -> int:
    """Return how many patients have images of more than one class."""
    usable = group.kept[group.kept["reference_status"].eq("ok")]
    return int((usable.groupby("patient_id")["label"].nunique() > 1).sum())


def _smears(group: Group) -> int | None:
    """Count named smears, whose ids need be unique within a patient only; None where no image names one."""
    slides = known(group.kept, "slide_id")
    named = pd.DataFrame({"patient": group.kept["patient_id"], "slide": slides}).dropna()
    return len(named.drop_duplicates()) or None


def _lost(group: Group) -> int:
    return group.inventory["patient_id"].nunique() - len(group.patients)


def days_between(group: Group) -> pd.Series:
    """Return days from index test to reference standard, by patient: of the first image with both dates."""
    start, stop = (
        pd.to_datetime(known(group.kept, c), errors="coerce") for c in ("index_date", "reference_date")
    )
    days = (stop - start).dt.days.astype(np.float64)
    return days.dropna().groupby(group.kept["patient_id"]).first().reindex(group.patients)


def _means(group: Group, column: str, factor: float) -> pd.Series:
    """Return each patient's mean over included images, times a factor."""
    if column not in group.kept:
        return pd.Series(np.nan, index=group.patients)
    means = group.kept[column].astype(np.float64).groupby(group.kept["patient_id"]).mean()
    return factor * means.reindex(group.patients)


def _noun(groups: Sequence[Group]) -> str:
    return SURROGATES if all(g.surrogate for g in groups) else PATIENTS


def _short(value: float) -> str:
    """Return a number with about three digits, and none behind the point that say nothing."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return ("0" if text == "-0" else text).replace("-", "−")
