"""Where the networks looked, as `marrowflow.learning.explain` drew it: laid over the images, and how it is to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

from marrowflow.reporting import page, tables
from marrowflow.reporting.reporter import Reporter, missing
from marrowflow.reporting.results import IndexTest
from marrowflow.shown_cases import ATTENTION

_COLOURS = "viridis"  # in order to every eye, and its greens stand out from stained cells
_COVER = 0.75  # share of the image that the colour of the largest value hides
_ALIKE = 0.5
"""Mean rank correlation from which on the page warns that the maps resemble their controls."""
_WORDS = (
    *("case_id", "image", "kind", "method", "grid", "map", "control", "reason"),
    *("percentile", "top", "bottom"),
)


@dataclass(frozen=True)
class Explained:
    """What stands beside and below a picture; both empty where there is no map."""

    pictures: Sequence[page.Picture] = ()
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Explanations:
    """The maps of one index test for one set of patients.

    Attributes
    ----------
    folder
        Where they lie.
    cases
        Its ``cases.csv``; None where no map was asked for, or the table is not there.
    instead
        What the page says where there is no table.
    sources
        Link text and link of the table.
    """

    folder: Path
    cases: pd.DataFrame | None = None
    instead: Sequence[page.Block] = ()
    sources: dict[str, str] = field(default_factory=dict)

    def of(self, case: str, kind: str, image: np.ndarray) -> Explained:
        """Return the map of a case and its control, laid over its image (uint8 [S, S, 3])."""
        if self.cases is None:
            return Explained()
        rows = self.cases[self.cases["case_id"].eq(case) & self.cases["kind"].eq(kind)]
        if rows.empty:
            return Explained()
        row = rows.iloc[0]
        reason = [row["reason"]] if row["reason"] else []
        if not row["map"]:
            return Explained((), reason)
        alike = f"correlation with the control {tables.number(row['correlation'])}"
        shown = [
            ("map", "attention" if row["method"] == ATTENTION else "Grad-CAM", "where the network looked"),
            ("control", "random weights", "where untrained networks look"),
        ]
        if row.get("percentile"):
            shown.insert(
                1, ("percentile", "attention, percentiles", "which tiles had more attention than others")
            )
        pictures = [
            page.picture(overlaid(image, _grey(self.folder / row[name])), label, f"{case}: {alternative}")
            for name, label, alternative in shown
        ]
        for name, label in (("top", "most attended"), ("bottom", "least attended")):
            if row.get(name):
                tiles = np.asarray(Image.open(self.folder / row[name]).convert("RGB"))
                pictures.append(page.picture(tiles, label, f"{case}: the {label} tiles, in this order"))
        return Explained(pictures, [alike, *reason])

    def notes(self) -> list[page.Block]:
        """Return how the maps were made and are to be read; nothing where none was asked for."""
        if self.cases is None:
            return list(self.instead)
        drawn = self.cases[self.cases["map"].ne("")]
        if drawn.empty:
            why = sorted(set(self.cases["reason"]) - {""})
            return [page.Text(["No map shows where the networks looked.", *why], sources=self.sources)]
        tone = "warning" if _resemble(drawn) else "note"
        return [page.Text([_how_made(drawn), _how_alike(drawn)], tone, self.sources)]


def explanations_of(reporter: Reporter, test: IndexTest, cohort: str) -> Explanations:
    """Read the maps of an index test for one set of patients, where the study asks for any."""
    folder = reporter.results.root / "explanations" / test.protocol / cohort
    path = folder / "cases.csv"
    if not reporter.options.report.saliency:
        return Explanations(folder)
    if not path.is_file():
        return Explanations(folder, instead=[missing(path, reporter.results)])
    cases = pd.read_csv(
        path,
        dtype=dict.fromkeys(_WORDS, "str"),
        keep_default_na=False,
        na_values={"correlation": [""], "mean_correlation": [""]},
    )
    return Explanations(folder, cases, sources=reporter.sources(path))


def overlaid(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay a map over an image: the larger its value, the more its colour hides of the image.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    values
        uint8 [h, w]; enlarged or shrunk to the image.

    Returns
    -------
    uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    fitted = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    share = np.asarray(fitted, dtype=np.float64) / 255
    colours = 255 * matplotlib.colormaps[_COLOURS](share)[..., :3]
    cover = _COVER * share[..., None]
    return np.rint(image * (1 - cover) + colours * cover).astype(np.uint8)


def _how_made(drawn: pd.DataFrame) -> str:
    methods, grids = (" and ".join(sorted(set(drawn[name]))) for name in ("method", "grid"))
    several = sorted(set(drawn["networks"]))
    whose = (
        "the one network that answered for the image"
        if several == [1]
        else f"the mean over the {several[0]} networks that answered for the image"
        if len(several) == 1
        else f"the mean over the networks that answered for the image ({' or '.join(map(str, several))})"
    )
    samples = drawn["case_id"].ne(drawn["image"]).any()
    if methods == ATTENTION:
        few, many = drawn["tiles"].min(), drawn["tiles"].max()
        return (
            f"Attention of the answered class’s branch over tiles {_laid(drawn['overlap'])} "
            f"({few if few == many else f'{few} to {many}'} a slide): from uncoloured (least of this slide) over green to yellow "
            "(most). A place’s value is the mean over the tiles that cover it, once between the slide’s smallest and largest "
            "(as published), once as the share of its tiles that had less. "
            f"Each map is {whose.replace('image', 'slide')}. Attention says where a network looked, not what it made of that."
        )
    return (
        f"{methods} (Selvaraju et al. 2017) shows where the last layers speak for the class that was answered: from "
        "uncoloured (nothing) over green to yellow (the most of this picture), "
        f"on a grid of {grids.replace(' x ', ' × ')} places, enlarged. Each map is {whose}."
        + (" It is of the image as it is shown, not of its augmented sample." if samples else "")
    )


def _laid(overlaps: pd.Series) -> str:
    """Say how the maps' tiles lie, from the shares of a side by which they overlap."""
    shares = sorted(set(overlaps))
    if shares == [0]:
        return "that lie side by side"
    named = " or ".join("half" if share == 0.5 else tables.number(share) for share in shares)
    return f"that overlap by {named} of their side"


def _how_alike(drawn: pd.DataFrame) -> str:
    """Say what the control is, and what the correlation with it tells."""
    n = int(drawn["correlation"].notna().sum())
    control = (
        "Beside it stands the same of networks of that architecture with random weights (Adebayo et al. 2018), and below it "
        "the rank correlation of the two (Spearman). Near 1, a map says more about the architecture and the image’s edges "
        "than about what was learnt."
    )
    if not n:
        return f"{control} It is defined for none of the {len(drawn)} images."
    reading = (
        "These maps resemble their controls: do not take them for what the networks learnt."
        if _resemble(drawn)
        else "A low correlation does not make a map right; and a map tells where a network looked, not why."
    )
    return f"{control} Its mean is {tables.number(drawn['mean_correlation'].iloc[0])} (n = {n} images). {reading}"


def _resemble(drawn: pd.DataFrame) -> bool:
    return bool(drawn["mean_correlation"].iloc[0] >= _ALIKE)


def _grey(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))
