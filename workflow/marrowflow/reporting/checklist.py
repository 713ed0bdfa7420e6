"""Reporting checklists on a page: every item with what the run and the team say about it, linked to where it stands.

Text comes from the configuration and from results, never from here: a missing text is printed as NOT PROVIDED with its key,
what a run has not done as "not done".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from marrowflow.checklists import DATA_OR_TEXT, MANUSCRIPT, Checklist, Item, refuse_incomplete, text_of
from marrowflow.config import Texts
from marrowflow.files import write_table
from marrowflow.reporting import page, tables
from marrowflow.reporting.about import NOT_PROVIDED, PLACES
from marrowflow.reporting.evidence import EVIDENCE, NOT_DONE, place_of, said
from marrowflow.reporting.ground import Ground, Say

_SOURCES = "sources"
_TEAM = "The team: "


@dataclass(frozen=True)
class Answer:
    """What a page says about an item.

    Attributes
    ----------
    item
        Of the checklist.
    data
        What the run says, in sentences; "not done" where it has nothing to say; none where it is not asked.
    team
        What the team says, a text a key, or NOT PROVIDED with the key; none where it is not asked.
    lacking
        The keys, or what else the team would have to give.
    undone
        True where a part of what the run could say was not done.
    place
        Anchor of the section that answers it; empty where the page has none.
    """

    item: Item
    data: tuple[str, ...]
    team: tuple[str, ...]
    lacking: tuple[str, ...]
    undone: bool
    place: str


def anchors_of(sections: Iterable[page.Section]) -> set[str]:
    """Return the anchors of sections and of all below them."""
    found = set()
    for section in sections:
        found |= {section.anchor, *anchors_of(section.sections)}
    return found


def answers(checklist: Checklist, ground: Ground, texts: Texts, anchors: Collection[str]) -> list[Answer]:
    """Answer the items of a checklist that a run can answer.

    Parameters
    ----------
    checklist
        With the items.
    ground
        The run as the page sees it.
    texts
        The team's sentences, beside those of ``ground.reporter.options.study``.
    anchors
        Of the page's sections: no item is linked to another.
    """
    names = dict.fromkeys(name for item in checklist.answerable for name in item.evidence)
    return _answers(checklist, ground, texts, anchors, said(list(names), ground))


def _answers(
    checklist: Checklist, ground: Ground, texts: Texts, anchors: Collection[str], known: Mapping[str, Say]
) -> list[Answer]:
    return [_answer(item, ground, texts, anchors, known) for item in checklist.answerable]


def _answer(
    item: Item, ground: Ground, texts: Texts, anchors: Collection[str], known: Mapping[str, Say]
) -> Answer:
    about = ground.reporter.options.study
    sentences = [line for name in item.evidence for line in known[name] or [EVIDENCE[name].absent] if line]
    undone = any(not known[name] and NOT_DONE in EVIDENCE[name].absent for name in item.evidence)
    given = {key: text_of(key, about, texts) for key in item.keys}
    lacking = [key for key, text in given.items() if not text and key not in _answered(known)]
    team = [text or NOT_PROVIDED + key for key, text in given.items() if text or key in lacking]
    if _SOURCES in item.evidence:
        # The cohort table, and not the configuration, has them: they are the team's words all the same.
        unknown = [f"source ({c.hospital})" for c in ground.cohorts if not c.source.strip()]
        team, sentences = [*known[_SOURCES], *(NOT_PROVIDED + text for text in unknown)], []
        lacking, undone = unknown, False
    place = _place(item, ground, anchors)
    return Answer(item, tuple(sentences), tuple(team), tuple(lacking), undone, place)


def _answered(known: Mapping[str, Say]) -> set[str]:
    """Return the keys of texts that are not needed, as the data answer for them."""
    return {key for key in DATA_OR_TEXT if known.get(key)}


def _place(item: Item, ground: Ground, anchors: Collection[str]) -> str:
    """Return where an item is answered: by the team's text if that is all of it, else by the results."""
    texts = [PLACES[key] for key in item.keys if PLACES.get(key) in anchors]
    shown = [place for name in item.evidence if (place := place_of(name, ground, anchors))]
    return next(iter([*texts, *shown] if item.fill == "T" else [*shown, *texts]), "")


def answered_by_data(ground: Ground) -> frozenset[str]:
    """Return the keys of texts that are not needed, as the data of the page's cohorts answer for them."""
    return frozenset(_answered(said(list(DATA_OR_TEXT), ground)))


def require_complete(ground: Ground, checklists: Sequence[Checklist], texts: Texts) -> None:
    """Raise `UserError` that names every missing key, unless the required checklists have all that only the team knows.

    Unlike before the run it is known by now whether the data answer for a text.
    """
    required = [c for c in checklists if c.name in ground.reporter.options.report.require]
    if required:
        sources = {cohort.name: cohort.source for cohort in ground.cohorts}
        refuse_incomplete(texts, ground.reporter.options.study, required, sources, answered_by_data(ground))


def checklist_sections(
    ground: Ground, checklists: Sequence[Checklist], texts: Texts, anchors: Collection[str]
) -> list[page.Section]:
    """Return a section a checklist, and write each as ``figures/checklist_<name>.csv`` beside the page.

    Parameters
    ----------
    ground
        The run as the page sees it.
    checklists
        In the order of the page.
    texts
        The team's sentences.
    anchors
        Of all other sections of the page (see `anchors_of`).
    """
    names = dict.fromkeys(name for c in checklists for item in c.answerable for name in item.evidence)
    known = said(list(names), ground)
    return [
        _section(ground, checklist, _answers(checklist, ground, texts, anchors, known))
        for checklist in checklists
    ]


def _section(ground: Ground, checklist: Checklist, found: Sequence[Answer]) -> page.Section:
    path = ground.reporter.folder / f"checklist_{checklist.name}.csv"
    write_table(path, pd.DataFrame([_record(checklist, answer) for answer in found]))
    lacking = list(dict.fromkeys(key for answer in found for key in answer.lacking))
    blocks: list[page.Block] = [
        page.Text(
            _summary(checklist, found, lacking),
            "warning" if lacking else "note",
            ground.reporter.sources(path),
        )
    ]
    for part, own in groupby(found, key=lambda answer: answer.item.section):
        blocks.append(
            tables.Table(
                f"{checklist.title}: {part.lower()}",
                ["item", "answer"],
                [[_first(answer), _lines(answer)] for answer in own],
            )
        )
    title = f"Checklist: {checklist.title}"
    return page.Section(title, f"checklist-{checklist.name}", blocks)


def _summary(checklist: Checklist, found: Sequence[Answer], lacking: Sequence[str]) -> list[str]:
    """Say how much of the publication is covered, what is left to the manuscript and what is missing."""
    left = [item for item in checklist.items if item.fill == MANUSCRIPT]
    whole = sum(not answer.lacking and not answer.undone for answer in found)
    without = sum(bool(answer.lacking) for answer in found)
    lack = f"; {without} lack{'s' if without == 1 else ''} a text ({', '.join(lacking)})" if lacking else ""
    answerable = f"A run can answer {len(found)} of them"
    if left:
        answerable += f"; for the manuscript: {'; '.join(f'{item.number} {item.topic}' for item in left)}"
    said = [
        f"{whole} of the {len(checklist.items)} items of {checklist.title} answered, parts counted one by one{lack}.",
        f"{answerable}.",
        "What is not marked as the team’s words comes from the results.",
    ]
    undone = [answer.item.number for answer in found if answer.undone]
    said += [f"Not done, or in part: {', '.join(undone)}."] if undone else []
    return said


def _first(answer: Answer) -> str | tables.Link:
    item = answer.item
    older = f" (2015:\u00a0{item.stard2015})" if item.stard2015 else ""
    text = f"{item.number}{older} {item.topic}"
    return tables.Link(text, f"#{answer.place}") if answer.place else text


def _lines(answer: Answer) -> str:
    """Return the sentences of results and team, a line each, those of the team marked."""
    team = (text if text.startswith(NOT_PROVIDED) else _TEAM + text for text in answer.team)
    return "\n".join([*answer.data, *team])


def _record(checklist: Checklist, answer: Answer) -> dict[str, str]:
    item = answer.item
    older = {"stard2015": item.stard2015} if checklist.name == "stard" else {}
    return {
        "item": item.number,
        **older,
        "section": item.section,
        "topic": item.topic,
        "results": " ".join(answer.data),
        "team": " ".join(answer.team),
        "missing": " ".join(answer.lacking),
        "place": answer.place,
    }
