"""What the pages say of a hospital beside development: the step's numbers, in their places, and what is missing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from figure_checks import crowded, words_of
from reporting_fixture import external_options, options_of, write_primary

from marrowflow.cohorts.table import Cohort
from marrowflow.files import write_table
from marrowflow.reporting import page, tables
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.reporter import CommonOptions, Reporter
from marrowflow.reporting.results import Results
from marrowflow.reporting.shift import shift_overview, shift_section
from marrowflow.reporting.shift_figures import colour_figure, projection_figure

NAN = float("nan")
HOSPITAL = "Hospital <B> & Sons of a rather long name, department of haematology"


def characteristic(group: str, variable: str, difference: float, **more: Any) -> dict[str, Any]:
    row = {"group": group, "variable": variable, "level": "", "recipe": "", "kind": "mean", "development": 50.25,
           "hospital": 40.5, "development_sd": 3.5, "hospital_sd": 4.5, "difference": difference, "chance": 0.41,
           "n_development": 44, "n_hospital": 30}  # fmt: skip
    return row | more


def characteristics() -> pd.DataFrame:
    share = {"kind": "share", "development_sd": NAN, "hospital_sd": NAN}
    whole = share | {"development": NAN, "hospital": NAN, "chance": NAN}
    rows = [
        characteristic("classes", "class", 0.2, **whole),
        *(
            characteristic("classes", "class", d, level=name, development=p, hospital=q, **share)
            for name, d, p, q in (("AML", -0.2, 0.5, 0.4), ("NA", 0.2, 0.5, 0.6))
        ),
        characteristic("patients", "age", -0.15),
        characteristic("patients", "scanner", math.inf, **whole),
        characteristic("patients", "scanner", math.inf, level="40", development=0.0, hospital=1.0, **share),
        characteristic("quality", "focus", -0.7),
        characteristic("quality", "saturated", NAN, hospital=NAN, hospital_sd=NAN, n_hospital=0, chance=NAN),
        characteristic("quality", "brightness", 0.9),
        *(characteristic("colour", "L_mean", d, recipe=r) for d, r in ((0.3, "corrected"), (-2.5, "raw"))),
    ]
    return pd.DataFrame(rows)


def judged(features: str, recipe: str, within: str, estimate: float, **more: Any) -> dict[str, Any]:
    row = {"features": features, "recipe": recipe, "comparison": "hospital", "within": within, "n_features": 6,
           "estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.05, "method": "jackknife_refitted",
           "reason": "", "n_development": 44, "n_hospital": 30, "images_development": 150, "images_hospital": 90,
           "folds": 5, "divisions": 5, "halvings": 0, "seed": 0}  # fmt: skip
    return row | more


def domain() -> pd.DataFrame:
    rows = []
    sets = (("colour", "corrected"), ("colour", "raw"), ("quality", ""), ("network", ""))
    for i, (features, recipe) in enumerate(sets):
        for j, within in enumerate(("", "class")):
            more: dict[str, Any] = {"n_development": 21} if features == "network" else {}
            if (features, within) == ("network", "class"):
                none = "suppressed: 9 patients of development, fewer than 10"
                more |= {"estimate": NAN, "low": NAN, "high": NAN, "method": "none", "reason": none}
            rows.append(judged(features, recipe, within, 0.6 + i / 20 + j / 100) | more)
            half = {"comparison": "development_halves", "low": 0.31, "high": 0.72, "method": "halvings"}
            rows.append(judged(features, recipe, within, 0.501 + i / 100) | half | {"halvings": 20})
    return pd.DataFrame(rows)


def colour(recipes: tuple[str, ...] = ("corrected", "raw"), n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    parts = []
    for recipe in recipes:
        for side, size in (("development", n), ("hospital", n // 2 + 1)):
            values = {c: rng.normal(70, 5, size) for c in ("L_mean", "a_mean", "b_mean")}
            ids = [f"{side}/{i}" for i in range(size)]
            parts.append(
                pd.DataFrame({"patient_id": ids, **values, "images": 3, "side": side, "recipe": recipe})
            )
    return pd.concat(parts, ignore_index=True)


def projection(n: int = 21) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(n + 9)],
            "images": 2,
            "side": ["development"] * n + ["hospital"] * 9,
            "component_1": rng.normal(0, 300, n + 9),
            "component_2": rng.normal(0, 0.1, n + 9),
        }
    )


COMPONENTS = pd.DataFrame({"component": [1, 2], "development": [0.312, 0.12], "hospital": [0.2, 0.1]})


def reporter_of(root: Path, **options: Any) -> Reporter:
    whole = external_options(options_of()) | options
    write_primary(root, "lite-corrected")
    return Reporter(
        CommonOptions.model_validate(whole),
        Results(root, root / "external" / "beta"),
        Primary("lite-corrected", "declared"),
    )


@pytest.fixture
def reporter(tmp_path: Path) -> Reporter:
    made = {"characteristics": characteristics(), "domain": domain(), "colour": colour(),
            "projection": projection(), "components": COMPONENTS}  # fmt: skip
    for name, table in made.items():
        write_table(tmp_path / "shift" / "beta" / f"{name}.csv", table)
    return reporter_of(tmp_path)


def tables_of(section: page.Section) -> dict[str, tables.Table]:
    return {b.title.removeprefix(HOSPITAL): b for b in section.blocks if isinstance(b, tables.Table)}


def plain(cell: str | tables.Link) -> str:
    return str(cell).replace("\u00a0", " ")


def test_the_aucs_stand_beside_what_halves_of_development_give(reporter: Reporter) -> None:
    section = shift_section(reporter, "beta", HOSPITAL)
    assert section.anchor == "shift"
    table = tables_of(section)[": can a classifier tell its patients from development’s?"]
    rows = [[plain(cell) for cell in row] for row in table.rows]
    assert rows[0] == [
        "colour, corrected",
        "0.600 (0.500 to 0.650)",
        "0.501 (0.310 to 0.720)",
        "44 (150)",
        "30 (90)",
    ]
    assert [row[0] for row in rows[5:]] == [
        "image quality, within classes", "network’s features", "network’s features, within classes"
    ]  # fmt: skip
    assert rows[7][1] == "suppressed: 9 patients of development, fewer than 10"
    assert rows[7][2].startswith("0.531")
    notes = " ".join(table.notes)
    assert "21 of 44 patients count for the network’s features" in notes
    assert "20 halvings" in notes and "5 divisions into 5 folds" in notes


def test_what_differs_most_stands_first_and_levels_stay_with_their_variable(reporter: Reporter) -> None:
    found = tables_of(shift_section(reporter, "beta", HOSPITAL))
    mix = found[" beside development: case mix"]
    assert [plain(row[0]).strip() for row in mix.rows] == [
        "scanner",
        "40",
        "class",
        "AML",
        "NA",
        "age (years)",
    ]
    cells = {plain(row[0]).strip(): [plain(cell) for cell in row[1:]] for row in mix.rows}
    assert cells["scanner"] == ["", "", "∞", "–", "44, 30"]
    assert cells["AML"] == ["50.0 %", "40.0 %", "−0.20", "0.41", ""]
    assert cells["age (years)"] == ["50.2 (3.500)", "40.5 (4.500)", "−0.15", "0.41", "44, 30"]
    quality = found[" beside development: image quality"]
    assert [plain(row[0])[:5] for row in quality.rows] == ["brigh", "focus", "satur"]
    assert plain(quality.rows[2][2]) == "missing"
    assert [row[0] for row in found[" beside development: colour"].rows] == [
        "L, mean (lightness), raw", "L, mean (lightness), corrected"
    ]  # fmt: skip
    assert "0.1" in " ".join(mix.notes)


def test_both_figures_and_what_they_were_drawn_from(reporter: Reporter) -> None:
    (block,) = [b for b in shift_section(reporter, "beta", HOSPITAL).blocks if isinstance(b, page.Figures)]
    assert [figure.saved.stem for figure in block.figures] == ["shift_colour_beta", "shift_features_beta"]
    # The recipe of the primary index test stands last.
    assert block.figures[0].alternative.endswith("recipe raw; recipe corrected")
    assert list(block.figures[0].sources) == ["colour.csv"]
    assert list(block.figures[1].sources) == ["projection.csv", "components.csv"]
    assert "network lite-corrected, fold 0) of 21 patients" in block.figures[1].caption
    assert "9 of the hospital" in block.figures[1].caption
    assert (reporter.folder / "shift_colour_beta.svg").is_file()


def test_surrogate_groups_are_not_called_patients(reporter: Reporter) -> None:
    both = frozenset(("development", "beta"))
    named = Reporter(reporter.options, reporter.results, reporter.primary, both)
    section = shift_section(named, "beta", HOSPITAL)
    words = " ".join(t for b in section.blocks if isinstance(b, page.Text) for t in b.paragraphs)
    assert "surrogate groups count once" in words
    assert "patient" not in words


@pytest.mark.parametrize("name", ["domain", "projection"])
def test_a_file_that_is_not_there_is_named(reporter: Reporter, name: str) -> None:
    (reporter.results.root / "shift" / "beta" / f"{name}.csv").unlink()
    (block,) = shift_section(reporter, "beta", HOSPITAL).blocks
    assert isinstance(block, page.Text)
    assert f"shift/beta/{name}.csv" in block.paragraphs[0]


def test_one_line_a_hospital_on_the_studys_page(reporter: Reporter) -> None:
    cohorts = [Cohort(n, "external", Path("m"), f"Hospital {n}", "") for n in ("beta", "gamma")]
    section = shift_overview(reporter, cohorts)
    table, lost, _ = section.blocks
    assert isinstance(table, tables.Table)
    (line,) = table.rows
    assert isinstance(line[0], tables.Link)
    assert (line[0].text, line[0].href) == ("Hospital beta", "report.html#shift")
    assert [plain(cell) for cell in line[1:3]] == ["0.610 (0.510 to 0.660)", "0.710 (0.610 to 0.760)"]
    assert plain(line[3]) == "suppressed: 9 patients of development, fewer than 10"
    assert plain(line[4]) == "scanner ∞; L, mean (lightness), raw −2.50; brightness (0 to 255) 0.90"
    assert isinstance(lost, page.Text) and "shift/gamma/domain.csv" in lost.paragraphs[0]
    (block,) = shift_overview(reporter, []).blocks
    assert isinstance(block, page.Text)


UNSEEN = "no development image that the network was not trained on"
NOTHING = {"estimate": NAN, "low": NAN, "high": NAN, "method": "none"}


def without_projection(reporter: Reporter, reason: str, of: str = "network") -> None:
    folder = reporter.results.root / "shift" / "beta"
    write_table(folder / "projection.csv", projection().iloc[:0])
    write_table(folder / "components.csv", COMPONENTS.iloc[:0])
    table = domain()
    own = table["features"].eq(of) if of else table["features"].ne("")
    for name, value in (NOTHING | {"reason": reason}).items():
        table.loc[own, name] = value
    write_table(folder / "domain.csv", table)


@pytest.mark.parametrize("reason", [UNSEEN, "suppressed: 9 patients of development, fewer than 10"])
def test_the_reason_stands_in_place_of_the_figure(reporter: Reporter, reason: str) -> None:
    without_projection(reporter, reason)
    section = shift_section(reporter, "beta", HOSPITAL)
    (figures,) = [b for b in section.blocks if isinstance(b, page.Figures)]
    assert [figure.saved.stem for figure in figures.figures] == ["shift_colour_beta"]
    words = section.blocks[list(section.blocks).index(figures) + 1]
    assert isinstance(words, page.Text)
    assert words.paragraphs == [f"What the network sees, beside development: no figure ({reason})."]
    assert list(words.sources) == ["projection.csv", "domain.csv"]
    table = tables_of(section)[": can a classifier tell its patients from development’s?"]
    assert [row[1:3] for row in table.rows[6:]] == [[reason, reason]] * 2
    hospitals = [Cohort("beta", "external", Path("m"), "Hospital beta", "")]
    overview = shift_overview(reporter, hospitals).blocks[0]
    assert isinstance(overview, tables.Table)
    assert overview.rows[0][3] == reason


def test_a_reason_of_the_hospital_is_none_of_the_figure(reporter: Reporter) -> None:
    without_projection(reporter, "suppressed: 1 patient of the hospital, fewer than 10", "")
    section = shift_section(reporter, "beta", HOSPITAL)
    words = [t for b in section.blocks if isinstance(b, page.Text) for t in b.paragraphs]
    assert (
        "no figure (too few patients of development, or features that do not vary among them)." in words[-1]
    )
    table = tables_of(section)[": can a classifier tell its patients from development’s?"]
    assert not any("intervals" in note for note in table.notes)


def test_a_reason_speaks_of_surrogate_groups(reporter: Reporter) -> None:
    without_projection(reporter, "suppressed: 1 patient of development, fewer than 10")
    named = Reporter(reporter.options, reporter.results, reporter.primary, frozenset(("development", "beta")))
    blocks = shift_section(named, "beta", HOSPITAL).blocks
    words = [t for b in blocks if isinstance(b, page.Text) for t in b.paragraphs]
    assert "1 surrogate group of development" in words[-1]


@pytest.mark.parametrize("recipes", [("raw",), ("raw", "corrected", "reinhard")])
@pytest.mark.parametrize("n", [1, 40])
def test_colour_can_be_read_and_both_sides_count_the_same(recipes: tuple[str, ...], n: int) -> None:
    table = colour(recipes, n)
    canvas = colour_figure(table, recipes, HOSPITAL, "Colour beside development", "n = 40")
    assert not crowded(canvas)
    words = words_of(canvas)
    assert all(f"recipe {recipe}" in words for recipe in recipes)
    panels = [axes for axes in canvas.axes if axes.patches]
    assert len(panels) == 3 * len(recipes)
    for i, axes in enumerate(panels):
        column = ("L_mean", "a_mean", "b_mean")[i % 3]
        own = table[table["recipe"].eq(recipes[i // 3])]
        for patch, side in zip(axes.patches, ("development", "hospital"), strict=True):
            values, edges, _ = patch.get_data()
            drawn = own.loc[own["side"].eq(side), column]
            assert values.sum() == pytest.approx(1)
            assert values @ ((edges[:-1] + edges[1:]) / 2) == pytest.approx(
                drawn.mean(), abs=np.diff(edges)[0]
            )
        # One scale a column: recipes can be compared.
        assert axes.get_xlim() == panels[i % 3].get_xlim()


def test_points_stand_where_the_table_says() -> None:
    points = projection()
    canvas = projection_figure(points, COMPONENTS, HOSPITAL, "What the network sees", "n", leaky=True)
    assert not crowded(canvas)
    axes = canvas.axes[0]
    for mark, side in zip(axes.lines, ("development", "hospital"), strict=True):
        expected = points.loc[points["side"].eq(side), ["component_1", "component_2"]].to_numpy()
        np.testing.assert_array_equal(np.column_stack(mark.get_data()), expected)
    words = words_of(canvas)
    assert "component 1 (31 % of development’s variance)" in words
    assert "component 2 (12 %)" in words and "leaky protocol" in words
