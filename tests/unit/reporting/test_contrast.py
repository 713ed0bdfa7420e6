"""Colours of figures and pages against white, and against one another, by the published formulas."""

import itertools
import re

import numpy as np
import pytest

from marrowflow.reporting import drawing, page

# Machado, Oliveira & Fernandes 2009 (A physiologically-based model for simulation of color vision deficiency), severity 1.
SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def linear(colour: str) -> np.ndarray:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    value = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(colour: str, paper: str = "#ffffff") -> float:
    """WCAG 2.2, definition of contrast ratio."""
    dark, light = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (colour, paper))
    return light / dark


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of linear sRGB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(palette: tuple[str, ...], seen: str) -> float:
    places = [lab(SEEN[seen] @ linear(colour)) for colour in palette]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(places, 2))


def test_the_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000") == pytest.approx(21) and contrast("#767676") == pytest.approx(4.54, abs=0.01)


def test_lines_of_figures_are_seen_on_white() -> None:
    assert min(map(contrast, drawing.PALETTE)) >= 3 > min(map(contrast, OKABE_ITO))


@pytest.mark.parametrize("seen", SEEN)
def test_colours_are_told_apart_as_well_as_those_of_okabe_and_ito(seen: str) -> None:
    best = min(nearest(OKABE_ITO, "protanopia"), nearest(OKABE_ITO, "deuteranopia"))
    assert nearest(drawing.PALETTE, seen) >= best > 15


def test_text_of_figures_is_read_on_white() -> None:
    assert min(map(contrast, (drawing.INK, drawing.QUIET, drawing._STAMP))) >= 4.5


def test_text_of_pages_is_read_on_all_their_papers() -> None:
    style = (page.TEMPLATES / "page.css").read_text(encoding="utf-8")
    inks = dict(re.findall(r"--(ink|quiet|link|stamp): (#[0-9a-f]{3,6})", style))
    papers = {"#ffffff", *re.findall(r"background: (#[0-9a-f]{3,6})", style)}
    assert len(inks) == 4 and len(papers) > 4
    assert min(contrast(ink, paper) for ink in inks.values() for paper in papers) >= 4.5
