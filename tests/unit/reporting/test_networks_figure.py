"""The figure of all networks: each number where it belongs, by colour and marker, and nothing over anything."""

from __future__ import annotations

import numpy as np
import pytest
from figure_checks import crowded, words_of
from matplotlib.axes import Axes

from marrowflow.reporting.drawing import PALETTE
from marrowflow.reporting.networks_figure import WIDE, Dot, dots

NAN = float("nan")
PANELS = ["accuracy", "balanced accuracy", "AUC (leukaemia)"]
LONG = "resnext101_32x8d.fb_swsl_ig1b_ft_in1k"


def grid(n: int) -> list[Dot]:
    """Of 3 networks, 3 modes, 2 recipes and variants as many rows as are asked for; the last is the primary one."""
    cells = [
        (network, mode, recipe, variant)
        for network in (LONG, "inception_v3", "densenet121")
        for variant in ("", "heads diagnosis 0.9, mds 0.1", "label_smoothing 0.1, seed 17")
        for mode in ("scratch", "frozen", "finetune")
        for recipe in ("raw", "corrected")
    ]
    cells = sorted(cells[:: max(len(cells) // n, 1)][:n], key=lambda c: c[0])
    return [
        Dot(
            network,
            ", ".join(filter(None, (mode, recipe, variant))),
            mode,
            recipe,
            [(0.5 + i / 100, 0.4 + i / 100, 0.55 + i / 100)] * 3,
            i == len(cells) - 1,
        )
        for i, (network, mode, recipe, variant) in enumerate(cells)
    ]


def panels_of(canvas: object) -> list[Axes]:
    return [a for a in canvas.axes if a.get_xlim()[1] <= 1.1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("n", [3, 18, 40])
@pytest.mark.parametrize("width", [358.0, WIDE])
def test_any_number_of_rows_can_be_read(n: int, width: float) -> None:
    canvas = dots(grid(n), PANELS, "What network and mode bring", "n = 41 patients", width, leaky=n == 40)
    assert not crowded(canvas)
    assert canvas.get_figwidth() * 72 == width
    words = words_of(canvas)
    assert words.count("(primary)") == (1 if width == WIDE else 3)
    assert all(name in words for name in PANELS)
    assert len(panels_of(canvas)) == 3


def test_numbers_stand_in_their_rows_and_panels() -> None:
    rows = [
        Dot("a", "one", "scratch", "raw", [(0.31, 0.2, 0.4), (0.32, 0.2, 0.4)]),
        Dot("a", "two", "frozen", "corrected", [(0.41, NAN, NAN), (NAN, NAN, NAN)]),
        Dot("b", "three", "", "raw", [(0.51, 0.5, 0.6), (0.52, 0.5, 0.6)]),
    ]
    canvas = dots(rows, ["accuracy", "AUC"], "Title", "")
    for place, panel in enumerate(panels_of(canvas)):
        marks = [line for line in panel.lines if len(line.get_xdata()) == 1]
        known = [row.values[place][0] for row in rows if np.isfinite(row.values[place][0])]
        assert [m.get_xdata()[0] for m in marks] == known
        heights = [m.get_ydata()[0] for m in marks]
        assert heights == sorted(heights)  # y counts from the top
        assert panel.get_ylim()[1] == 0
        limits = [line.get_xdata().tolist() for line in panel.lines if len(line.get_xdata()) == 2]
        assert limits == [[0.2, 0.4], [0.5, 0.6]]
    first, hollow, mean = [line for line in panels_of(canvas)[0].lines if len(line.get_xdata()) == 1]
    assert [m.get_color() for m in (first, hollow, mean)] == [PALETTE[1], PALETTE[0], PALETTE[6]]
    assert first.get_marker() == mean.get_marker() != hollow.get_marker()
    assert hollow.get_mfc() == "white" and first.get_mfc() == PALETTE[1]
    assert words_of(canvas).count("missing") == 1


def test_the_legend_explains_what_is_drawn_and_nothing_else() -> None:
    rows = [Dot("a", "frozen", "frozen", "raw", [(0.5, 0.4, 0.6)])]
    words = words_of(dots(rows, ["accuracy"], "Title", ""))
    assert "frozen: new last layer" in words and "scratch" not in words and "colour recipe" not in words
    both = [*rows, Dot("a", "frozen, x", "frozen", "x", [(0.5, 0.4, 0.6)])]
    assert "colour recipe raw colour recipe x" in words_of(dots(both, ["accuracy"], "Title", ""))
