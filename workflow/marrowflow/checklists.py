"""Reporting checklists: their items, what answers each, and the texts that only the team can give.

STARD 2015 (Bossuyt et al., BMJ 351:h5527) with STARD-AI 2025, TRIPOD+AI 2024 (Collins et al., BMJ 385:e078378) and CLAIM
2024 (Tejani et al., Radiol Artif Intell 6:e240300). ``resources/checklists/<name>.csv`` hold the publications' numbers of
the items and topics in our own words, never the publications' sentences.

The workflow reads them while it is being parsed, so that a required checklist with a text missing stops a run before its
first job. This module must therefore stay light: no pandas.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marrowflow.cohorts.delimited import read_delimited
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.study_texts import About, Texts

FOLDER = Path("resources/checklists")
"""Where the checklists lie, relative to the folder that a run starts in."""

TITLES = {
    "stard": "STARD-AI 2025, with STARD 2015",
    "tripod_ai": "TRIPOD+AI 2024",
    "claim": "CLAIM 2024",
}
"""Names of the checklists as the configuration has them, and as people know them, in the order of the page."""

MANUSCRIPT = "W"
"""Fill of an item that no run can answer: it is written in the manuscript."""

DATA_OR_TEXT = frozenset({"severity"})
"""Keys of texts that are not needed where the data answer the item; whether they do is known only after the intake."""

_OF_STUDY = "study."
_SOURCES = "sources"


@dataclass(frozen=True)
class Item:
    """A row of a checklist.

    Attributes
    ----------
    number
        In the publication; of STARD in STARD-AI 2025.
    stard2015
        The number in STARD 2015; empty where it has none, and in the other checklists.
    section
        Part of the publication that it belongs to.
    topic
        What it is about, in our words.
    fill
        A: from the data; M: from the data and a text of the team; T: a text; `MANUSCRIPT`: neither.
    keys
        Dotted keys of the configuration whose texts answer it.
    evidence
        Names of what a run can say about it (see `reporting.evidence`).
    """

    number: str
    stard2015: str
    section: str
    topic: str
    fill: str
    keys: tuple[str, ...]
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Checklist:
    """A checklist with its items in the publication's order."""

    name: str
    items: tuple[Item, ...]

    @property
    def title(self) -> str:
        """What it is called."""
        return TITLES[self.name]

    @property
    def answerable(self) -> tuple[Item, ...]:
        """Items that a run can answer."""
        return tuple(item for item in self.items if item.fill != MANUSCRIPT)


def read_checklist(path: Path) -> Checklist:
    """Read ``<name>.csv`` (item, stard2015, section, topic, fill, key, evidence; several keys stand apart by blanks)."""
    table = read_delimited(path)
    rows = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    items = (
        Item(
            row["item"],
            row["stard2015"],
            row["section"],
            row["topic"],
            row["fill"],
            tuple(row["key"].split()),
            tuple(row["evidence"].split()),
        )
        for row in rows
    )
    return Checklist(path.stem, tuple(items))


def text_of(key: str, about: About, texts: Texts) -> str:
    """Return the text of a dotted key, in one line; empty where the team gave none.

    Shares of classes (``study.intended_prevalence``) are spelt out: ``healthy 70%, AML 30%``.
    """
    here: Any = about if key.startswith(_OF_STUDY) else texts
    for part in key.removeprefix(_OF_STUDY).split("."):
        here = getattr(here, part)
    if isinstance(here, Mapping):
        return ", ".join(f"{name} {100 * share:.3g}%" for name, share in here.items())
    return " ".join(str(here).split())


def description_of(key: str) -> str:
    """Return what belongs in a key, as the configuration's reference says it."""
    model: Any = About if key.startswith(_OF_STUDY) else Texts
    *above, last = key.removeprefix(_OF_STUDY).split(".")
    for part in above:
        model = model.model_fields[part].annotation
    return str(model.model_fields[last].description)


def missing_keys(
    texts: Texts,
    about: About,
    checklists: Iterable[Checklist],
    answered: Collection[str] = DATA_OR_TEXT,
) -> list[str]:
    """Return the keys of texts that checklists need and that the team did not give.

    Parameters
    ----------
    texts, about
        The team's sentences.
    checklists
        The required ones.
    answered
        Keys that need no text, as the data answer their items. Before a run none of `DATA_OR_TEXT` is missed.

    Returns
    -------
    list of str
        Dotted keys, each once, in the order of the checklists.
    """
    wanted = [key for checklist in checklists for item in checklist.answerable for key in item.keys]
    return [
        key for key in dict.fromkeys(wanted) if key not in answered and not text_of(key, about, texts).strip()
    ]


def missing_sources(checklists: Iterable[Checklist], sources: Mapping[str, str]) -> list[str]:
    """Return the cohorts (of cohort → source) without a source, if a checklist asks where the data come from."""
    asked = any(_SOURCES in item.evidence for checklist in checklists for item in checklist.answerable)
    return [cohort for cohort, source in sources.items() if asked and not source.strip()]


def refuse_incomplete(
    texts: Texts,
    about: About,
    checklists: Sequence[Checklist],
    sources: Mapping[str, str],
    answered: Collection[str] = DATA_OR_TEXT,
) -> None:
    """Raise `UserError` unless the required checklists have all that only the team knows.

    The error names every missing key and what belongs there. `sources` are the cohorts' sources, of the cohort table; for
    the others see `missing_keys`.
    """
    problems = [f"{key}: {description_of(key)}" for key in missing_keys(texts, about, checklists, answered)]
    problems += [
        f"the cohort table's column source, cohort {cohort}: where its images come from (routine, collected, open data)"
        for cohort in missing_sources(checklists, sources)
    ]
    if problems:
        names = ", ".join(checklist.title for checklist in checklists)
        heading = (
            f"report.require: {names} cannot be complete. Give what is missing, or take it off the list:"
        )
        raise UserError(enumerate_problems(heading, problems, most=len(problems)))
