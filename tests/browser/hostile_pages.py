"""Pages to look at: of a plain study, of a hostile one, and one with every kind of block."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[1] / "unit" / "reporting"))
import reporting_fixture

from marrowflow.config import Accuracy
from marrowflow.reporting import drawing, external, page, study, tables

# Legal names of classes and hospitals that break a page which does not escape, isolate or wrap them.
CLASSES = ["<script>alert(1)<b>", 'a"><img src=x onerror=alert(1)>', "לוקמיה חריפה 😀", "C" * 80]
HOSPITALS = {
    "alpha": '"><img src=x onerror=alert(document.domain)>',
    "beta": "مستشفى الملك فيصل (الرياض) 🏥",
    "gamma": "</style></script><script>alert('gamma')</script> {{ 7*7 }} $\\frac{1}{2}$ \u202eevil",
}
UNBROKEN, SENTENCE = "r" * 300, ("'\"><svg onload=alert(2)> a reason of many words, " * 7)[:300].strip()
REASONS = [UNBROKEN, SENTENCE, "מטופל שטופל בעבר", "😀 too dark & <i>blurred</i>"]
TITLE = "</title><script>alert('title')</script> Leukaemia שלום & <b>more</b>"
NOTICE = "';alert(String.fromCharCode(88))//\"><body onload=alert(3)> הודעה: " + "n" * 200


def write_pages(folder: Callable[[str], Path]) -> dict[str, Path]:
    """Write all pages, each study into a `folder` by its name, and return their paths by name."""
    quick = Accuracy(replicates=100, prevalences=[0.1])
    with patch.object(reporting_fixture, "SETTINGS", quick), patch.object(drawing, "save", _embedded_only):
        tree = reporting_fixture.write_tree(folder("plain"))
        found = {f"plain {kind}": path for kind, path in _report(tree, "beta").items()}
        with patch.multiple(reporting_fixture, **_hostile()):
            tree = reporting_fixture.write_tree(folder("hostile"), ("as_published", "sound"))
            _write_cohorts(tree.cohorts)
            about = tree.options["study"] | {"title": TITLE, "notice": NOTICE, "abstract": SENTENCE}
            tree = replace(tree, options=tree.options | {"study": about})
            found |= {f"hostile {kind}": path for kind, path in _report(tree, "gamma").items()}
    found["blocks"] = _every_block(folder("blocks"))
    return found


def _report(tree: reporting_fixture.Tree, cohort: str) -> dict[str, Path]:
    """Write the study's page and one hospital's."""
    argv = ["--results", str(tree.results), "--primary", str(tree.primary)]
    whole, one = tree.results / "report", tree.results / "external" / cohort
    tree = replace(tree, options=tree.options | {"units": ["patient"]})
    study.main(
        [*argv, "--options", json.dumps(tree.options), "--cohorts", str(tree.cohorts), "--out", str(whole)]
    )
    options = ["--options", json.dumps(reporting_fixture.external_options(tree.options))]
    named = {name: hospital for name, (_, hospital, _) in reporting_fixture.COHORTS.items()}
    line = ["--cohort", cohort, "--hospital", named[cohort], "--source", "routine <br> 2020"]
    line += ["--manifest", f"{cohort}.csv", "--development", json.dumps({"alpha": named["alpha"]})]
    external.main([*argv, *options, *line, "--out", str(one)])
    return {"study": whole / "index.html", "external": one / "report.html"}


def _embedded_only(figure: Figure, folder: Path, stem: str) -> drawing.Saved:
    """Draw what the page shows; the other formats, which take most of the time, are empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "pdf", "png"):
        (folder / f"{stem}.{kind}").touch()
    return drawing.embedded(figure, stem)


def _hostile() -> dict[str, Any]:
    """Return what the fake study is made of, with hostile names; of one index test, so that it is quick."""
    cohorts = reporting_fixture.COHORTS.items()
    return {
        "CLASSES": CLASSES,
        "POSITIVE": CLASSES[1:],
        "ENDPOINTS": {"leukaemia": CLASSES[1:], "classes": None},
        "COHORTS": {name: (role, HOSPITALS[name], n) for name, (role, _, n) in cohorts},
        "_REASONS": REASONS,
        "_comparisons": lambda *_: None,
        "options_of": partial(reporting_fixture.options_of, tests=("lite-raw",)),
    }


def _write_cohorts(path: Path) -> None:
    """Write the cohort table anew: cells with quotes in them are enclosed in quotes."""
    lines = [["cohort", "role", "manifest", "hospital", "source"]]
    lines += [[n, r, f"{n}.csv", h, NOTICE] for n, (r, h, _) in reporting_fixture.COHORTS.items()]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(lines)


NUMBERS = tables.Table(
    "Values to be sorted (n = 9)",
    ["name", "estimate", "count", "p", "digest", "hospital"],
    [
        ["row 1", "0.91 (0.80\u00a0to\u00a00.97)", "12 (30%)", "<0.001", "3b9f", "Hospital 10"],
        ["row 2", "missing", "9 (22%)", "0.05", "0a01", "Hospital 9"],
        ["row 3", "−0.50", "1,322", "0.001", "ffff", "Zürich"],
        ["row 4", "0.88", "100 (99%)", "–", "10aa", "Hospital 10"],
        ["row 5", "undefined", "missing", "1.000", "2bcd", "😀"],
        ["row 6", "∞", "7", "0.2", "9e1f", "berlin"],
        ["row 7", "0.88 (0.70\u00a0to\u00a00.90)", "007", "0.30", "7d77", "Hospital 9"],
        ["row 10", "2.0e-3", "11", "0.10", "8a8a", "Aachen"],
        ["row 9", "-4", "8 of 40", "0.04", "1c1c", tables.Link("Bonn", "#folded")],
    ],
    numeric=[1, 2],
    notes=["A note about the n = 9 rows."],
)


def _every_block(results: Path) -> Path:
    """Write a page with every kind of block; among them what stands folded away."""
    folder = results / "report"
    grey = np.full((40, 60, 3), 90, np.uint8)
    sheet = drawing.Sheet.start(TITLE, "; ".join([*CLASSES, *HOSPITALS.values()]), 20, leaky=True)
    saved = _embedded_only(sheet.figure, folder / "figures", "drawn")
    figure = page.Figure(TITLE, SENTENCE, saved, None, {"drawn.csv": "figures/drawn.csv"}, leaky=True)
    (folder / "figures" / "drawn.csv").write_text("x\n")
    shown = page.Thumbnail(
        [page.picture(grey, label, f"{label} of {CLASSES[1]}") for label in ("image", "map", "control")],
        [CLASSES[1], CLASSES[2], UNBROKEN],
    )
    wide = tables.Table(UNBROKEN, ["metric", *CLASSES, UNBROKEN], [[SENTENCE, *CLASSES, UNBROKEN]] * 30)
    sections = [
        page.Section("Sorting", "sorting", [NUMBERS, wide]),
        page.Section(
            "Pictures",
            "pictures",
            [page.Gallery(SENTENCE, [shown, page.thumbnail(grey, ["one"], "a grey field")]), page.Figures([figure] * 2)],
            [page.Section(HOSPITALS["beta"], "below", [page.Facts({CLASSES[0]: UNBROKEN})], leaky=True)],
        ),
        page.Section("Folded", "folded", [page.Folded("More of it", [page.Text(["Kept words", NOTICE], "warning")])]),
    ]  # fmt: skip
    facts = {"Hospital": HOSPITALS["gamma"], "Class": CLASSES[2]}
    whole = page.Page(TITLE, "Blocks", NOTICE, [SENTENCE], facts, sections)
    page.write_page(whole, folder / "index.html", results)
    return folder / "index.html"
