"""The checklists' rows, and which texts they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from marrowflow.checklists import (
    MANUSCRIPT,
    TITLES,
    Checklist,
    description_of,
    missing_keys,
    missing_sources,
    read_checklist,
    refuse_incomplete,
    text_of,
)
from marrowflow.config import About, Study, Texts
from marrowflow.errors import UserError
from marrowflow.reporting.about import PLACES
from marrowflow.reporting.evidence import EVIDENCE

FOLDER = Path(__file__).parents[3] / "resources" / "checklists"
LISTS = {name: read_checklist(FOLDER / f"{name}.csv") for name in TITLES}

# STARD-AI 2025, STARD 2015 (Bossuyt et al., BMJ 351:h5527) and what fills the row, copied by hand from the project's table;
# but for 12, as the agreement of readers whom the index test is compared with says nothing of annotators.
STARD = """
1 1 M; 2 2 M; 3 3 T; 4 4 T; 5 5 T; 6 - T; 7 6 A; 8 7 T; 9 8 M; 10 9 T; 11 - T; 12 - T; 13 - A; 14 - M; 15a 10a A; 15b - A;
15c 12a M; 15d - T; 16a 10b T; 16b 11 T; 16c 12b T; 17a 13a T; 17b 13b T; 18 14 A; 19 15 M; 20 16 M; 21 17 M; 22 18 M; 23 - A;
24 19 A; 25 20 A; 26a 21a M; 26b 21b A; 27 22 M; 28 - M; 29 - A; 30 23 A; 31 24 A; 32 25 T; 33 26 M; 34 27 T; 35 - T; 36 28 T;
37 29 T; 38 30 T; 39 - T; 40a - M; 40b - A
"""
# Collins et al. 2024, BMJ 385:e078378: 27 items, 52 with their parts.
TRIPOD = """
1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 18a 18b 18c 18d 18e 18f 19
20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c
"""


def given_texts(value: str = "Given.") -> tuple[About, Texts]:
    """All texts of a study, each with its key in it."""

    def filled(model: type[BaseModel], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, info in model.model_fields.items():
            inner = info.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found[name] = filled(inner, f"{prefix}{name}.")
            elif inner is str:
                found[name] = f"{value} {prefix}{name}"
        return found

    about = filled(About, "study.") | {"key": "k", "intended_prevalence": {"AML": 0.25}}
    return About.model_validate(about), Texts.model_validate(filled(Texts, ""))


def leaves(model: type[BaseModel], prefix: str) -> list[str]:
    found = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += leaves(inner, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


TEXTS = leaves(Texts, "")
ABOUT = [key for key in leaves(About, "study.") if key not in ("study.key", "study.notice")]


def without(about: About, texts: Texts, keys: set[str], blank: str = "") -> tuple[About, Texts]:
    raw = {"study": about.model_dump(), **texts.model_dump()}
    for key in keys:
        here = raw
        *above, last = key.split(".")
        for part in above:
            here = here[part]
        here[last] = {} if key == "study.intended_prevalence" else blank
    return About.model_validate(raw.pop("study")), Texts.model_validate(raw)


def test_stard_has_every_row_in_order() -> None:
    wanted = [tuple(row.split()) for row in STARD.replace("\n", " ").split(";")]
    rows = [(item.number, item.stard2015 or "-", item.fill) for item in LISTS["stard"].items]
    assert rows == wanted and len(rows) == 48


def test_tripod_and_claim_have_every_item_in_order() -> None:
    assert [item.number for item in LISTS["tripod_ai"].items] == TRIPOD.split()
    assert len(TRIPOD.split()) == 52
    assert [item.number for item in LISTS["claim"].items] == [str(i) for i in range(1, 45)]


@pytest.mark.parametrize("name", TITLES)
def test_rows_are_filled_by_what_they_say(name: str) -> None:
    for item in LISTS[name].items:
        where = f"{name} {item.number}"
        assert item.section and item.topic and item.fill in ("A", "M", "T", MANUSCRIPT), where
        if item.fill == MANUSCRIPT:
            assert not item.keys and not item.evidence, where
        elif item.fill == "T":
            assert item.keys or item.evidence == ("sources",), where
        else:
            assert item.evidence, where


@pytest.mark.parametrize("name", TITLES)
def test_every_key_is_a_field_of_the_configuration(name: str) -> None:
    for item in LISTS[name].items:
        for key in item.keys:
            model: Any = Study
            for part in key.split("."):
                assert part in model.model_fields, f"{name} {item.number}: {key}"
                model = model.model_fields[part].annotation
            assert len(description_of(key)) > 10


def test_every_text_is_asked_for_and_printed_somewhere() -> None:
    asked = {key for checklist in LISTS.values() for item in checklist.items for key in item.keys}
    assert asked == {*TEXTS, *ABOUT}
    assert set(PLACES) == asked - {"study.title"}  # the title is the page's


def test_evidence_is_known_and_none_is_idle() -> None:
    named = {name for checklist in LISTS.values() for item in checklist.items for name in item.evidence}
    assert named == set(EVIDENCE)


@settings(deadline=None, max_examples=40)
@given(st.sets(st.sampled_from([*TEXTS, *ABOUT[1:]])), st.sampled_from(["", "  \n"]))
def test_all_missing_keys_are_named_and_no_other(blank: set[str], empty: str) -> None:
    about, texts = without(*given_texts(), blank, empty)
    for checklist in LISTS.values():
        wanted = {key for item in checklist.items for key in item.keys}
        assert set(missing_keys(texts, about, [checklist], answered=())) == blank & wanted
        assert set(missing_keys(texts, about, [checklist])) == blank & wanted - {"severity"}


def test_the_error_names_every_missing_key_once_with_what_belongs_there() -> None:
    nothing = About(key="k", title="A title")
    lists = [LISTS["stard"], LISTS["tripod_ai"]]
    with pytest.raises(UserError) as error:
        refuse_incomplete(Texts(), nothing, lists, {"alpha": "routine", "beta": " "})
    message = str(error.value)
    assert message.startswith(
        "report.require: STARD-AI 2025, with STARD 2015, TRIPOD+AI 2024 cannot be complete"
    )
    for key in {*TEXTS, *ABOUT} - {"severity", "study.title"}:
        assert message.count(f"- {key}: ") == 1, key
    assert "- severity: " not in message and "and 1 more" not in message
    assert "- funding: Sources of funding and other support; role of the funders." in message
    assert "column source, cohort beta" in message and "cohort alpha" not in message


def test_a_complete_study_is_not_refused() -> None:
    about, texts = given_texts()
    refuse_incomplete(texts, about, list(LISTS.values()), {"alpha": "routine"}, answered=())


def test_only_what_a_required_checklist_asks_for_is_missed() -> None:
    about, texts = without(*given_texts(), {"involvement"})
    assert missing_keys(texts, about, [LISTS["stard"], LISTS["claim"]]) == []
    assert missing_keys(texts, about, [LISTS["tripod_ai"]]) == ["involvement"]


def test_sources_are_asked_for_by_checklists_that_have_them() -> None:
    assert missing_sources([LISTS["stard"]], {"a": "", "b": "open"}) == ["a"]
    assert missing_sources([Checklist("stard", ())], {"a": ""}) == []


def test_texts_are_read_in_one_line() -> None:
    about = About(key="k", title="A\n  long title", intended_prevalence={"healthy": 0.855, "AML": 0.145})
    assert text_of("study.title", about, Texts()) == "A long title"
    assert text_of("study.intended_prevalence", about, Texts()) == "healthy 85.5%, AML 14.5%"
    texts = Texts.model_validate({"policy": {"missing": "none\nimputed"}})
    assert text_of("policy.missing", about, texts) == "none imputed"
