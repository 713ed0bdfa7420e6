"""Forest plot: what was given is drawn, in its order, and nothing lies over anything."""

import numpy as np
import pytest
from figure_checks import crowded, words_of

from marrowflow.reporting.forest import Estimate, Summary, forest

NAN = float("nan")
LONG = "Universitätsklinikum Carl Gustav Carus an der Technischen Universität Dresden"


def test_no_whiskers_without_an_interval_and_the_reason_stands_there() -> None:
    rows = [
        Estimate("B", "n = 9", "0.9 (no interval)", 0.9, NAN, NAN, "9 % of the replicates are undefined"),
        Estimate("C", "n = 8", "0.8 (0.7 to 0.9)", 0.8, 0.7, 0.9),
        Estimate("D", "0/0", "undefined", NAN, NAN, NAN, "no negative patients"),
    ]
    canvas = forest({"AUC": rows}, "Accuracy by hospital", "per patient")
    lines = canvas.axes[0].lines
    assert [line.get_xdata().tolist() for line in lines] == [[0.9], [0.7, 0.9], [0.8]]
    hollow, _, full = lines
    assert hollow.get_mfc() == "white" and full.get_mfc() == full.get_color()
    for words in ("B (n = 9)", "9 % of the replicates are undefined", "D (0/0) undefined no negative"):
        assert words in words_of(canvas)
    assert not crowded(canvas)


def test_rows_stand_under_their_headings_from_top_to_bottom() -> None:
    groups = {
        "Sex": [Estimate(n, "n = 9", "0.8", 0.8, 0.7, 0.9) for n in ("female", "male")],
        "Age": [Estimate("60 and older", "n = 9", "0.8", 0.8, 0.7, 0.9)],
    }
    texts = forest(groups, "Subgroups", "").axes[0].texts
    # y counts from the top; a row's value stands beside its name
    order = [t.get_text() for t in sorted(texts, key=lambda t: t.get_position()[1]) if t.get_text() != "0.8"]
    names = [
        "Sex",
        "female (n\u00a0=\u00a09)",
        "male (n\u00a0=\u00a09)",
        "Age",
        "60 and older (n\u00a0=\u00a09)",
    ]
    assert order == names


@pytest.mark.parametrize(
    ("numbers", "limits"),
    [
        ([(0.9, 0.7, 1.0)], (0.7, 1.0)),
        ([(0.3, 0.3, 0.3)], (0.2, 0.4)),
        ([(-0.05, NAN, NAN)], (-0.1, 0.0)),
        ([], (0, 1)),
    ],
)
def test_the_scale_holds_every_number(numbers: list[tuple], limits: tuple[float, float]) -> None:
    rows = [Estimate("B", "n = 9", "", *three) for three in numbers]
    low, high = forest({"AUC": rows}, "Accuracy", "").axes[0].get_xlim()
    margin = 0.02 * (limits[1] - limits[0])
    assert np.allclose((low, high), (limits[0] - margin, limits[1] + margin))


@pytest.mark.parametrize("leaky", [False, True])
def test_twenty_five_rows_do_not_overlap_on_a_phone(leaky: bool) -> None:
    kinds = [
        ("Hospital B", "0.857 (0.402 to 0.998)", 0.402, 0.998, ""),
        (LONG, "0.857 (0.402 to 0.998)", 0.402, 0.998, ""),
        (
            LONG,
            "0.857 (no interval)",
            NAN,
            NAN,
            "no clustered interval: 1 patients of positive, two are needed",
        ),
    ]
    rows = [Estimate(n, f"{i}/171374", v, 0.857, a, b, why) for i in range(8) for n, v, a, b, why in kinds]
    last = Estimate("nobody", "n = 0", "undefined", NAN, NAN, NAN, "undefined: a denominator is 0")
    canvas = forest({"Hospital": rows[:12], LONG: [*rows[12:], last]}, LONG, LONG, leaky)
    assert not crowded(canvas)
    assert canvas.get_figwidth() * 72 == 358
    assert words_of(canvas).count("0.857") == 24 and words_of(canvas).count("two are needed") == 8


def test_a_summary_is_a_diamond_through_the_limits_of_another_hospital() -> None:
    rows = [
        Estimate("B", "18/20", "0.9 (0.7 to 0.97)", 0.9, 0.7, 0.97),
        Summary("3 hospitals", "n = 113", "0.8 (0.6 to 0.9)", 0.8, 0.6, 0.9, predicted=(0.35, 0.98)),
    ]
    axes = forest({"External hospitals": rows}, "Sensitivity", "").axes[0]
    *_, bar = axes.lines
    assert bar.get_xdata().tolist() == [0.35, 0.98]
    (diamond,) = [
        p
        for p in axes.patches
        if len(p.get_xy()) == 5 and p.get_xy()[:, 0].tolist() == [0.6, 0.8, 0.9, 0.8, 0.6]
    ]
    heights = diamond.get_xy()[:4, 1]
    assert heights[0] == heights[2] == bar.get_ydata()[0] and heights[1] < heights[0] < heights[3]
    # The scale holds the limits of another hospital, too.
    assert axes.get_xlim() == pytest.approx((0.3 - 0.014, 1.0 + 0.014))


def test_a_level_stands_beside_the_marks_only() -> None:
    rows = [Estimate("B", "n = 9", "0.8", 0.8, 0.7, 0.9), Estimate("C", "n = 3", "suppressed", NAN, NAN, NAN)]
    axes = forest({"Sex": rows}, "Subgroups", "", level=0.77).axes[0]
    levels = [line for line in axes.lines if set(line.get_xdata()) == {0.77}]
    assert len(levels) == 1
    texts = sorted(t.get_position()[1] for t in axes.texts if t.get_text() == "0.8")
    assert min(levels[0].get_ydata()) > texts[0]
