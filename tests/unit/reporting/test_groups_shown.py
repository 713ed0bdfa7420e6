"""Hospitals together, and subgroups, as pages show them: from files written by hand to marks, cells and words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from figure_checks import crowded, words_of
from matplotlib.figure import Figure
from reporting_fixture import external_options, options_of

from marrowflow.config import Subgroups
from marrowflow.reporting import page, pooled, subgroups
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.reporter import CommonOptions, Reporter
from marrowflow.reporting.results import IndexTest, Results
from marrowflow.reporting.tables import Table

TO = "\u00a0to\u00a0"
TEST = IndexTest("sound", "lite-raw")
LONG = "Universitätsklinikum Carl Gustav Carus an der Technischen Universität Dresden"
ASKED = Subgroups(columns=["sex", "grade", "fever"], age_bands=[40], quality=False, min_patients=10)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Canvases as they are saved."""
    found: list[Figure] = []
    draw = Reporter.draw

    def noted(self: Reporter, canvas: Figure, *args: Any, **kwargs: Any) -> page.Figure:
        found.append(canvas)
        return draw(self, canvas, *args, **kwargs)

    monkeypatch.setattr(Reporter, "draw", noted)
    return found


def reporter_of(folder: Path, surrogate: frozenset[str] = frozenset()) -> Reporter:
    options = CommonOptions.model_validate(external_options(options_of()))
    return Reporter(options, Results(folder, folder / "report"), Primary("lite-raw", "declared"), surrogate)


def cells(table: Table) -> dict[str, list[str]]:
    return {row[0]: list(row[1:]) for row in table.rows}


def tables_in(blocks: list[page.Block]) -> list[Table]:
    inner = [b for block in blocks for b in (block.blocks if isinstance(block, page.Folded) else [block])]
    return [block for block in inner if isinstance(block, Table)]


POOLED = """endpoint,metric,class,unit,kind,cohort,estimate,low,high,method,n_cases,n_patients,numerator,denominator,logit,se,weight,hospitals,tau2,i2,predicted_low,predicted_high,reason
leukaemia,auc,,patient,development,development,0.95,0.9,0.98,jackknife_logit,400,100,,,,,,,,,,,
leukaemia,auc,,patient,hospital,h1,0.9,0.8,0.95,jackknife_logit,200,50,,,2.2,0.4,,,,,,,"not pooled: 2 hospitals with an interval, at least 3 are needed"
leukaemia,auc,,patient,hospital,h2,0.8,,,none,80,20,,,,,,,,,,,no interval at this hospital
leukaemia,sensitivity,,patient,development,development,0.9,0.8,0.95,wilson_neff,400,100,45,50,,,,,,,,,
leukaemia,sensitivity,,patient,hospital,h1,0.8,0.6,0.91,wilson_neff,200,50,20,25,1.4,0.5,0.62,,,,,,
leukaemia,sensitivity,,patient,hospital,h2,1.0,0.7,1.0,wilson_neff,80,20,10,10,3.0,1.4,0.38,,,,,,
leukaemia,sensitivity,,patient,summary,,0.85,0.61,0.95,reml_hartung_knapp,280,70,,35,1.7,0.3,,2,0.214,0.37,0.25,0.99,
"""


def hospitals(folder: Path, text: str, names: dict[str, str], **more: Any) -> list[page.Block]:
    path = folder / "pooled" / "sound" / "pooled.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    external: Any = [SimpleNamespace(name=name, hospital=who) for name, who in names.items()]
    return pooled.pooled_blocks(reporter_of(folder, **more), TEST, external)


def test_hospitals_stand_below_development_and_above_their_summary(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    blocks = hospitals(tmp_path, POOLED, {"h1": "Hospital One", "h2": LONG})
    auc, sensitivity = drawn
    words = words_of(sensitivity)
    parts = [
        "Development (not pooled)",
        "45/50",
        "External hospitals",
        "20/25",
        "10/10",
        "2 hospitals (n = 35)",
    ]
    assert [words.index(part) for part in parts] == sorted(words.index(part) for part in parts)
    assert "another hospital: 0.250 to 0.990" in words and "prediction interval" in words
    assert "not pooled: 2 hospitals with an interval" in words_of(auc) and "diamond" not in words_of(auc)
    assert "no interval at this hospital" in words_of(auc)
    # Said once for all, not with each hospital.
    assert words_of(auc).count("at least 3 are needed") == 1
    assert not crowded(auc) and not crowded(sensitivity)
    files = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert {
        f"pooled_leukaemia_{m}.{kind}" for m in ("auc", "sensitivity") for kind in ("svg", "png", "pdf")
    } <= files
    (figures,) = [block for block in blocks if isinstance(block, page.Figures)]
    assert "2 hospitals (n = 35) 0.850" in figures.figures[1].alternative.replace("\u00a0", " ")
    (table,) = tables_in(blocks)
    found = cells(table)
    assert found["Hospital One"] == [
        "50",
        f"0.900 (0.800{TO}0.950)",
        f"0.800\u00a0[20/25] (0.600{TO}0.910); weight\u00a062%",
    ]
    assert found["random-effects mean"] == ["70", "–", f"0.850 (0.610{TO}0.950)"]
    assert found["prediction interval"] == ["", "–", f"0.250{TO}0.990"]
    assert found["I²"] == ["", "–", "37%"] and found["τ² (logit scale)"] == ["", "–", "0.214"]
    assert f"AUC: no interval, and so not pooled: {LONG}." in table.notes
    assert table.sources == {"pooled.csv": "../pooled/sound/pooled.csv"}


def test_fewer_than_three_hospitals_are_shown_and_the_page_says_why_not_pooled(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    alone = "\n".join(line for line in POOLED.splitlines() if "sensitivity" not in line) + "\n"
    note, *blocks = hospitals(tmp_path, alone, {"h1": "Hospital One", "h2": "Two"})
    assert isinstance(note, page.Text) and note.paragraphs[0].endswith(
        "Not pooled: 2 hospitals with an interval, at least 3 are needed."
    )
    (table,) = tables_in(blocks)
    assert list(cells(table)) == ["Development", "Hospital One", "Two"]
    assert len(drawn) == 1
    (nothing,) = hospitals(tmp_path, alone, {})
    assert isinstance(nothing, page.Text) and nothing.paragraphs == [
        "No external hospital in the cohort table."
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (told,) = pooled.pooled_blocks(reporter_of(tmp_path), TEST, [])
    assert isinstance(told, page.Text) and told.paragraphs == ["missing: ../pooled/sound/pooled.csv"]
    (told,) = subgroups.subgroup_blocks(reporter_of(tmp_path), TEST, "beta", "B", ASKED)
    assert isinstance(told, page.Text)
    assert told.paragraphs == ["missing: ../subgroups/sound/beta/subgroups.csv"]


HEADER = "variable,group,endpoint,metric,class,unit,estimate,low,high,method,n_cases,n_patients,n_present,n_absent,numerator,denominator,suppressed"
GROUPS = {
    # variable, group, patients, with, without: AUC, sensitivity, specificity
    ("all", "all patients", 40, 25, 15): ("0.9,0.8,0.95", "0.8,0.6,0.9", "0.9,0.7,0.98"),
    ("sex", "female", 31, 20, 11): ("0.92,0.8,0.97", "0.85,0.6,0.95", "0.91,0.6,0.99"),
    ("sex", "contradictory", 9, 5, 4): (",,", ",,", ",,"),
    ("grade", "1", 12, 12, 0): (",,", "0.75,0.4,0.93", ",,"),
    ("grade", "missing", 28, 13, 15): ("0.88,,", "0.7,0.4,0.9", "0.9,0.7,0.98"),
    ("age", "under 40", 0, 0, 0): (",,", ",,", ",,"),
    ("age", "40 and over", 40, 25, 15): ("0.9,0.8,0.95", "0.8,0.6,0.9", "0.9,0.7,0.98"),
}


def groups_csv(groups: dict[tuple, tuple]) -> str:
    lines = [HEADER]
    for (variable, group, n, present, absent), values in groups.items():
        for metric, value in zip(("auc", "sensitivity", "specificity"), values, strict=True):
            why = ""
            if value.startswith(","):
                why = f'"{n} patients, fewer than 10"' if n < 10 else "no patient without the condition"
            elif value.endswith(",,"):
                why = "no clustered interval: 1 patients of negative"
            below = {"auc": "", "sensitivity": present, "specificity": absent}[metric]
            counts = "," if value == ",," or metric == "auc" else f"{below},{below}"
            method = "none" if value == ",," else "wilson_neff"
            lines.append(
                f'{variable},"{group}",leukaemia,{metric},,patient,{value},{method},{4 * n},{n},{present},{absent},{counts},{why}'
            )
    return "\n".join(lines) + "\n"


def groups_of(folder: Path, groups: dict[tuple, tuple], **more: Any) -> list[page.Block]:
    path = folder / "subgroups" / "sound" / "beta" / "subgroups.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = [
        f"all,all patients,classes,{m},{c},patient,0.7,0.6,0.8,wilson_neff,160,40,,,28,40,"
        for m, c in (("accuracy", ""), ("auc", "macro"))
    ]
    path.write_text(groups_csv(groups) + "\n".join(classes) + "\n", encoding="utf-8")
    return subgroups.subgroup_blocks(reporter_of(folder, **more), TEST, "beta", "Hospital B", ASKED)


def test_subgroups_stand_under_their_variable_and_suppressed_ones_are_named(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    blocks = groups_of(tmp_path, GROUPS)
    auc, sensitivity, specificity = drawn
    words = words_of(auc)
    order = [
        "Overall",
        "all patients (n = 40)",
        "Sex",
        "female (n = 31)",
        "several values (n = 9) suppressed",
    ]
    order += ["Grade", "1 (n = 12)", "not recorded (n = 28)", "Age in years", "under 40 (n = 0) suppressed"]
    assert [words.index(part) for part in order] == sorted(words.index(part) for part in order)
    assert "no patient without the condition" in words and "1 patients of negative" in words
    assert "groups of fewer than 10 patients are suppressed" in words
    # Of those that are not suppressed, 12 of 12 have sensitivity and no specificity.
    assert "1 (12/12)" in words_of(sensitivity) and "1 (12/12)" not in words_of(specificity)
    assert not any(crowded(canvas) for canvas in drawn)
    texts = [block.paragraphs[0] for block in blocks if isinstance(block, page.Text)]
    assert texts == ["Not recorded of any patient: fever."]
    (folded,) = [block for block in blocks if isinstance(block, page.Folded)]
    assert folded.summary == "All metrics of the 6 subgroups"
    table, classes = tables_in(blocks)
    assert list(table.header) == [
        "subgroup",
        "patients",
        "images",
        "with / without the condition",
        "AUC",
        "sensitivity",
        "specificity",
    ]
    found = cells(table)
    assert found["sex: female"][:4] == ["31", "124", "20 / 11", f"0.920 (0.800{TO}0.970)"]
    assert found["sex: several values"] == ["9", "36", "5 / 4", "–", "–", "–"]
    assert found["grade: 1"][3:] == ["–", f"0.750\u00a0[12/12] (0.400{TO}0.930)", "–"]
    assert found["grade: not recorded"][3] == "0.880 (no\u00a0interval)"
    assert list(classes.header) == ["subgroup", "patients", "images", "accuracy", "AUC (macro)"]


def test_surrogate_groups_are_not_called_patients(tmp_path: Path, drawn: list[Figure]) -> None:
    blocks = groups_of(tmp_path, GROUPS, surrogate=frozenset({"beta"}))
    assert "groups of fewer than 10 surrogate groups are suppressed" in words_of(drawn[0])
    table, _ = tables_in(blocks)
    assert table.header[1] == "surrogate groups" and "all surrogate groups" in cells(table)


def test_twenty_five_subgroups_with_long_names_do_not_overlap(tmp_path: Path, drawn: list[Figure]) -> None:
    many = {("department", f"{LONG} {i}", 30, 20, 10): GROUPS["sex", "female", 31, 20, 11] for i in range(25)}
    groups_of(tmp_path, {**GROUPS, **many})
    assert all(words_of(canvas).count("Dresden") == 25 and not crowded(canvas) for canvas in drawn)


def test_twelve_hospitals_do_not_overlap(tmp_path: Path, drawn: list[Figure]) -> None:
    one = POOLED.splitlines()[5]
    more = "\n".join(one.replace("h1", f"x{i}") for i in range(12))
    names = {"h1": "Hospital One", "h2": LONG, **{f"x{i}": f"{LONG} {i}" for i in range(12)}}
    hospitals(tmp_path, POOLED + more + "\n", names)
    assert not crowded(drawn[1]) and words_of(drawn[1]).count("Dresden") == 13


def test_without_any_variable_there_is_a_sentence(tmp_path: Path) -> None:
    first = next(iter(GROUPS.items()))
    told, lacking = groups_of(tmp_path, dict([first]))
    assert isinstance(told, page.Text) and told.paragraphs == ["No subgroup can be formed."]
    assert isinstance(lacking, page.Text) and lacking.paragraphs[0].endswith(
        "sex, grade, fever, age in years."
    )
