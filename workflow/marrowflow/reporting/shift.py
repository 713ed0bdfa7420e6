"""How an external hospital differs from development, as the step ``statistics.shift`` measured it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.cohorts.table import Cohort
from marrowflow.reporting import drawing, page, tables
from marrowflow.reporting.reporter import Reporter, missing, stem
from marrowflow.reporting.results import DEVELOPMENT
from marrowflow.reporting.shift_figures import colour_figure, projection_figure
from marrowflow.reporting.tables import Table

ANCHOR = "shift"

_WORDS = (
    "group",
    "variable",
    "level",
    "recipe",
    "kind",
    "features",
    "comparison",
    "within",
    "method",
    "reason",
    "side",
    "patient_id",
)
_TITLES = {
    "class": "class",
    "age": "age (years)",
    "mpp": "micrometres a pixel",
    "focus": "focus (variance of the Laplacian)",
    "brightness": "brightness (0 to 255)",
    "saturated": "saturated pixels (share)",
    "L_mean": "L, mean (lightness)",
    "a_mean": "a, mean (green to red)",
    "b_mean": "b, mean (blue to yellow)",
    "L_sd": "L, deviation within images",
    "a_sd": "a, deviation within images",
    "b_sd": "b, deviation within images",
}
_METHODS = {
    "jackknife_refitted": "leaving out a twentieth of the patients at a time, classifiers fitted anew, logit, t",
    "newcombe_neff": "Newcombe where the AUC is 0 or 1",
}
_TABLES = (
    ("Case mix", ("classes", "patients")),
    ("Image quality", ("quality",)),
    ("Colour", ("colour",)),
)
_HOW_TO_READ = (
    "The AUC is the chance that a classifier, shown one patient of this hospital and one of development, "
    "says rightly which is which: 0.5 is a guess, at 0.7 it is right for 7 of 10 such pairs, at 0.95 for 19 of "
    "20. Colour and quality say what differs in the images; the network’s features say how much of it "
    "reaches the network’s last layer, from which its answers are made.",
    "A high AUC is no loss of accuracy: what differs may be nothing that the diagnosis hangs on. It says that accuracy "
    "measured on development patients need not hold here, and where to look if it does not. A low AUC is no proof that nothing "
    "differs: the classifier is linear, and few patients teach it little.",
)


def shift_section(reporter: Reporter, cohort: str, hospital: str) -> page.Section:
    """Return the section of a hospital's page that sets it beside development.

    Parameters
    ----------
    reporter
        Of the page.
    cohort, hospital
        The external hospital's id and name.
    """
    folder = shift_folder(reporter, cohort)
    names = ("characteristics", "domain", "colour", "projection", "components")
    found = {name: _read(folder / f"{name}.csv") for name in names}
    lost = [folder / f"{name}.csv" for name in names if found[name] is None]
    if lost:
        blocks: list[page.Block] = [missing(path, reporter.results) for path in lost]
        return page.Section("How this hospital differs from development", ANCHOR, blocks)
    shown = {name: table for name, table in found.items() if table is not None}
    noun = reporter.common_noun([DEVELOPMENT, cohort])
    figures = [_colour_block(reporter, shown["colour"], folder, cohort, hospital, noun)]
    undrawn: list[page.Block] = []
    if shown["projection"].empty:
        undrawn.append(_no_projection(reporter, shown["domain"], folder, noun))
    else:
        figures.append(_projection_block(reporter, shown, folder, cohort, hospital, noun))
    words = page.Text(
        [
            f"All {noun} count once, each by the mean over its included images. Nothing in the study was chosen by this "
            "comparison.",
            *(text.replace("patient", tables.one_of(noun)) for text in _HOW_TO_READ),
        ]
    )
    blocks = [
        words,
        _domain_table(reporter, shown["domain"], folder, hospital, noun),
        page.Figures(figures),
        *undrawn,
        *_characteristics_tables(reporter, shown["characteristics"], folder, hospital, noun),
    ]
    return page.Section("How this hospital differs from development", ANCHOR, blocks)


def shift_overview(reporter: Reporter, cohorts: Sequence[Cohort]) -> page.Section:
    """Return the section of the study's page with a line for each external hospital.

    Parameters
    ----------
    reporter
        Of the page.
    cohorts
        The external hospitals.
    """
    title = "How the hospitals differ from development"
    if not cohorts:
        return page.Section(title, ANCHOR, [page.Text(["No external hospital in the cohort table."])])
    recipe = _recipe(reporter)
    lines: list[list[str | tables.Link]] = []
    lost: list[page.Block] = []
    sources: dict[str, str] = {}
    for cohort in cohorts:
        folder = shift_folder(reporter, cohort.name)
        paths = [folder / "domain.csv", folder / "characteristics.csv"]
        domain, characteristics = (_read(path) for path in paths)
        if domain is None or characteristics is None:
            lost += [missing(path, reporter.results) for path in paths if not path.is_file()]
            continue
        sources |= {f"{path.name} of {cohort.hospital}": reporter.results.href(path) for path in paths}
        report = reporter.results.root / "external" / cohort.name / "report.html"
        link = tables.Link(cohort.hospital, f"{reporter.results.href(report)}#{ANCHOR}")
        against = domain[domain["comparison"].eq("hospital") & domain["within"].eq("class")]
        asked = (("colour", recipe), ("quality", ""), ("network", ""))
        cells = [_auc(_row(against, features, of)) for features, of in asked]
        lines.append([link, *cells, _largest(characteristics)])
    noun = reporter.common_noun([DEVELOPMENT, *(cohort.name for cohort in cohorts)])
    table = Table(
        f"AUC with which a classifier tells each hospital’s {noun} from development’s, within classes",
        ["hospital", f"colour ({recipe})", "quality", "network’s features", "largest differences (d)"],
        lines,
        [],
        [
            f"0.5: {noun} cannot be told apart; 1: all can. Intervals: "
            f"{reporter.options.accuracy.confidence:.0%}. d: standardised difference, hospital less development.",
            "Each hospital’s report says what differs, and how to read it.",
        ],
        sources,
        _leaky(reporter),
    )
    return page.Section(title, ANCHOR, [*([table] if lines else []), *lost])


def shift_folder(reporter: Reporter, cohort: str) -> Path:
    """Return where the step's tables of a hospital lie."""
    return reporter.results.root / "shift" / cohort


def _domain_table(reporter: Reporter, domain: pd.DataFrame, folder: Path, hospital: str, noun: str) -> Table:
    rows = []
    against = domain[domain["comparison"].eq("hospital")]
    for row in against.to_dict("records"):
        alike = domain["features"].eq(row["features"]) & domain["recipe"].eq(row["recipe"])
        alike &= domain["within"].eq(row["within"]) & domain["comparison"].ne("hospital")
        (null,) = domain[alike].to_dict("records")
        counted = [
            f"{tables.whole(row[f'n_{side}'])} ({tables.whole(row[f'images_{side}'])})"
            for side in ("development", "hospital")
        ]
        title = _features_title(row["features"], row["recipe"]) + (
            ", within classes" if row["within"] else ""
        )
        rows.append([title, _auc(row), _auc(null), *counted])
    network = _row(against[against["within"].eq("")], "network", "")
    most = against["n_development"].max()
    methods = [_METHODS.get(m, m) for m in dict.fromkeys(against["method"]) if m != "none"]
    notes = [
        f"Logistic regression with a ridge penalty on the mean features of {noun}, scored out of fold; compared are pairs of "
        f"one fold, in {tables.whole(against['divisions'].max())} divisions "
        f"into {tables.whole(against['folds'].max())} folds. Within classes: only pairs of one class count, and the "
        "sides are weighed alike in each, so that a different case mix is no difference.",
        *(
            [f"{reporter.options.accuracy.confidence:.0%} intervals: {'; '.join(methods)}."]
            if methods
            else []
        ),
        f"Halves of development: the same between random halves of the development {noun}, where nothing differs: mean "
        f"(least to greatest) of {tables.whole(domain['halvings'].max())} halvings. An AUC inside that range may be chance.",
    ]
    if network is not None and network["n_development"] < most:
        notes.append(
            f"Of development, {tables.whole(network['n_development'])} of {tables.whole(most)} {noun} count for the "
            "network’s features: a network knows the images that it was trained on, and those are left out."
        )
    return Table(
        f"{hospital}: can a classifier tell its {noun} from development’s?",
        ["features", "AUC", "halves of development", f"development: {noun} (images)", "hospital"],
        rows,
        [3, 4],
        notes,
        reporter.sources(folder / "domain.csv"),
        _leaky(reporter),
    )


def _characteristics_tables(
    reporter: Reporter, table: pd.DataFrame, folder: Path, hospital: str, noun: str
) -> list[page.Block]:
    notes = [
        f"d: standardised difference, hospital less development: the difference of the means over {noun}, in units of "
        "their standard deviation (Austin 2009); of a category with several levels the distance of all shares (Yang and Dalton "
        "2012), which has no sign. Often |d| below 0.1 is called negligible and 0.2 small: these are habits, not tests. "
        "By chance: what |d| stays below in 95 of 100 studies of this size without a difference. Number: mean (standard "
        "deviation); category: share. ∞: neither side varies, and they differ.",
    ]
    found: list[page.Block] = []
    for name, groups in _TABLES:
        own = table[table["group"].isin(groups)]
        if own.empty:
            continue
        several = own["recipe"].nunique() > 1
        rows = []
        for variable in _by_difference(own[own["level"].eq("")]):
            title = _variable_title(variable, noun) + (f", {variable['recipe']}" if several else "")
            whole = own["variable"].eq(variable["variable"]) & own["recipe"].eq(variable["recipe"])
            rows.append(_line(title, variable))
            rows += [
                _line(f"\u2003{level['level']}", level)
                for level in own[whole & own["level"].ne("")].to_dict("records")
            ]
        header = ["", "development", "hospital", "d", "by chance", f"{noun} (development, hospital)"]
        found.append(
            Table(
                f"{hospital} beside development: {name[0].lower()}{name[1:]}",
                header,
                rows,
                [1, 2, 3, 4, 5],
                notes,
                reporter.sources(folder / "characteristics.csv"),
            )
        )
        notes = []  # said once, under the first table
    return found


def _by_difference(variables: pd.DataFrame) -> list[dict[str, Any]]:
    """Return variables, those that differ most first; those without a difference last."""
    size = variables["difference"].abs().fillna(-1)
    return variables.loc[size.sort_values(ascending=False, kind="stable").index].to_dict("records")


def _line(title: str, row: dict[str, Any]) -> list[str]:
    cells = []
    for side in ("development", "hospital"):
        value, spread = row[side], row[f"{side}_sd"]
        if value != value:
            cells.append("" if row["kind"] == "share" and not row["level"] else tables.MISSING)
        elif row["kind"] == "share":
            cells.append(f"{100 * value:.1f}\u00a0%")
        else:
            cells.append(tables.number(value) + (f" ({tables.number(spread)})" if spread == spread else ""))
    d = "–" if row["difference"] != row["difference"] else tables.number(row["difference"], 2)
    chance = "–" if row["chance"] != row["chance"] else tables.number(row["chance"], 2)
    n = f"{tables.whole(row['n_development'])}, {tables.whole(row['n_hospital'])}"
    return [title, *cells, d, chance, "" if row["level"] else n]


def _colour_block(
    reporter: Reporter, colour: pd.DataFrame, folder: Path, cohort: str, hospital: str, noun: str
) -> page.Figure:
    own = _recipe(reporter)
    # What the primary index test sees stands last: before and after.
    recipes = [r for r in dict.fromkeys(colour["recipe"]) if r != own] + [own]
    recipes = [r for r in recipes if r in set(colour["recipe"])]
    title = f"{hospital}: colour beside development"
    counts = colour[colour["recipe"].eq(recipes[-1])]["side"].value_counts()
    subtitle = (
        f"Mean L, a and b of {counts.get('development', 0)} {noun} of development and "
        f"{counts.get('hospital', 0)} of the hospital. Height: share of them."
    )
    caption = (
        f"{title}, by colour recipe ({own} is what the primary index test sees). L: lightness, 0 black to 100 white; a: green to "
        f"red; b: blue to yellow (CIE units). {subtitle}"
    )
    return reporter.draw(
        colour_figure(colour, recipes, hospital, title, subtitle),
        stem("shift_colour", cohort),
        caption,
        drawing.alternative_text(title, subtitle, [f"recipe {recipe}" for recipe in recipes]),
        reporter.sources(folder / "colour.csv"),
        leaky=False,
    )


def _projection_block(
    reporter: Reporter,
    shown: dict[str, pd.DataFrame],
    folder: Path,
    cohort: str,
    hospital: str,
    noun: str,
) -> page.Figure:
    points, components = shown["projection"], shown["components"]
    first = reporter.networks(reporter.tests(reporter.options.protocols[0])[0])[0]
    title = f"{hospital}: what the network sees, beside development"
    counts = points["side"].value_counts()
    subtitle = (
        f"Mean features (network {first.name}, fold 0) of {counts.get('development', 0)} {noun} of development "
        f"that it was not trained on, and of {counts.get('hospital', 0)} of the hospital."
    )
    caption = (
        f"{title}. {subtitle} Shown are the two directions in which development {noun} vary most; what lies apart here "
        "differs, and what does not may differ in other directions."
    )
    return reporter.draw(
        projection_figure(points, components, hospital, title, subtitle, first.leaky),
        stem("shift_features", cohort),
        caption,
        drawing.alternative_text(title, subtitle),
        reporter.sources(folder / "projection.csv", folder / "components.csv"),
        first.leaky,
    )


def _no_projection(reporter: Reporter, domain: pd.DataFrame, folder: Path, noun: str) -> page.Text:
    """Return the words in place of the figure of the network's features."""
    network = _row(domain[domain["comparison"].eq("hospital") & domain["within"].eq("")], "network", "")
    reason = "" if network is None else str(network["reason"])
    if "development" not in reason:  # of another side, or of the interval
        reason = "too few patients of development, or features that do not vary among them"
    sources = reporter.sources(folder / "projection.csv", folder / "domain.csv")
    words = f"What the network sees, beside development: no figure ({reason})."
    return page.Text([words.replace("patient", tables.one_of(noun))], sources=sources)


def _largest(characteristics: pd.DataFrame, shown: int = 3) -> str:
    """Name the variables that differ most."""
    variables = _by_difference(characteristics[characteristics["level"].eq("")])
    known = [v for v in variables if v["difference"] == v["difference"]][:shown]
    return "; ".join(
        f"{_variable_title(v, tables.PATIENTS)}{', ' + v['recipe'] if v['recipe'] else ''}\u00a0"
        f"{tables.number(v['difference'], 2)}"
        for v in known
    )


def _auc(row: dict[str, Any] | None) -> str:
    if row is None:
        return tables.MISSING
    if row["estimate"] != row["estimate"]:
        return str(row["reason"])
    if row["low"] != row["low"]:
        return f"{tables.number(row['estimate'])} ({row['reason']})"
    return f"{tables.number(row['estimate'])} ({tables.interval(row)})"


def _row(rows: pd.DataFrame, features: str, recipe: str) -> dict[str, Any] | None:
    own = rows[rows["features"].eq(features) & rows["recipe"].eq(recipe)]
    return None if own.empty else own.iloc[0].to_dict()


def _features_title(features: str, recipe: str) -> str:
    titles = {"colour": f"colour, {recipe}", "quality": "image quality", "network": "network’s features"}
    return titles[features]


def _variable_title(variable: dict[str, Any], noun: str) -> str:
    name = variable["variable"]
    if name == "images_a_patient":
        return f"images per {tables.one_of(noun)}"
    return _TITLES.get(name, name)


def _recipe(reporter: Reporter) -> str:
    return reporter.tests(reporter.options.protocols[0])[0].colour


def _leaky(reporter: Reporter) -> bool:
    return reporter.tests(reporter.options.protocols[0])[0].leaky


def _read(path: Path) -> pd.DataFrame | None:
    """Read a table of the step: words as they stand (a level may be called 40 or NA), numbers as float64."""
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in table.columns.difference(_WORDS):
        table[name] = pd.to_numeric(table[name].where(table[name].ne("")))
    return table
