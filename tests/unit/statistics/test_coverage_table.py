"""The simulation behind the documentation's coverage table: what it takes for true, and what the table promises."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks import simulate_coverage
from benchmarks.simulate_coverage import (
    BEGIN,
    CORRELATIONS,
    CUTS,
    DESIGNS,
    END,
    METHODS,
    PATIENTS,
    QUANTITIES,
    REPLICATES,
    SHIFTS,
    Scenario,
    divide,
    draw_images,
    intervals,
    render,
    simulate,
)
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from marrowflow.config import Accuracy
from marrowflow.statistics.bootstrap import draw_weights
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.differences import comparison_rows, measure_side
from marrowflow.statistics.evaluation import evaluate_binary
from marrowflow.statistics.rows import Place

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_truth_of_the_simulated_data(design, correlation):
    """One image a class and patient, of many patients: independent pairs that scikit-learn and counting agree on."""
    images = draw_images(Scenario(design, 40_000, correlation), np.random.default_rng(1))
    key = images.patient * 2 + images.positive
    _, first = np.unique(key, return_index=True)
    truth, scores = images.positive[first], images.scores[:, first]
    for score, auc in zip(scores, (0.92, 0.85), strict=True):
        assert roc_auc_score(truth, score) == pytest.approx(auc, abs=0.006)
        assert score[~truth].std() == pytest.approx(1, abs=0.02)
    for score, cut, true in [
        (scores[0], CUTS[0], 0.84),
        (scores[0], CUTS[1], 0.986),
        (scores[1], CUTS[2], 0.75),
    ]:
        error = np.sqrt(true * (1 - true) / truth.sum())
        assert (score[truth] >= cut).mean() == pytest.approx(true, abs=4 * error)
    sizes = np.bincount(images.patient)
    assert sizes.mean() == pytest.approx(10, rel=0.02)
    # Rows of one patient and class correlate by ρ, two scores of one row by a half, of two rows of a patient by ρ/2.
    order = np.lexsort((np.arange(len(key)), key))
    pairs = np.flatnonzero(np.diff(key[order]) == 0)[::2]
    one, two = images.scores - np.outer(SHIFTS, images.positive)
    a, b = order[pairs], order[pairs + 1]
    for x, y, expected in (
        (one[a], one[b], correlation),
        (two[a], two[b], correlation),
        (one[a], two[a], 0.5),
        (one[a], two[b], correlation / 2),
    ):
        assert np.corrcoef(x, y)[0, 1] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_of_differences_are_those_of_the_comparison(design):
    """What the package prints for the same two index tests, run on them as a comparison."""
    images = draw_images(Scenario(design, 30, 0.5), np.random.default_rng(3))
    weights = np.concatenate(list(draw_weights(30, REPLICATES, 0)))
    found = intervals(images, weights.astype(np.float64))
    sides = []
    for score, cut in zip(images.scores, (CUTS[0], CUTS[2]), strict=True):
        called = score >= cut
        sample = Sample(
            unit="case",
            classes=["AML", "well"],
            patient=images.patient,
            truth=np.where(images.positive, 0, 1),
            predicted=np.where(called, 0, 1),
            probabilities=np.stack([score, -score], axis=1),
            n_patients=30,
            n_cases=len(score),
        )
        evaluation = evaluate_binary(sample, ["AML"], called)
        sides.append(measure_side(evaluation, "a", "north", Accuracy(replicates=REPLICATES, seed=0), "test"))
    settings = Accuracy(replicates=REPLICATES, seed=0)
    rows = comparison_rows(*sides, True, Place("AML", "case", []), settings)
    for metric, key in (
        ("auc", ("auc_difference", 0.07)),
        ("sensitivity", ("sensitivity_difference", 0.09)),
    ):
        printed = rows[(rows["metric"] == metric) & (rows["class"] == "")].set_index("method")
        mine = {i.method: (i.low, i.high) for i in found[key] if i is not None}
        assert set(mine) == set(METHODS[key[0]])
        assert printed.index[printed["primary"]].tolist() == [METHODS[key[0]][0]]
        # Of a proportion the comparison prints one closed form only.
        assert set(printed.index) == set(mine) - {"delong", "wald"} - (
            {"jackknife_t"} if metric == "sensitivity" else set()
        )
        for method in printed.index:
            assert mine[method] == pytest.approx(printed.loc[method, ["low", "high"]].tolist(), abs=1e-12)


def test_naive_differences_take_images_for_patients():
    """Wald's interval by the discordant images, DeLong's by the placements of each image, both counted out."""
    images = draw_images(Scenario("image", 30, 0.1), np.random.default_rng(4))
    weights = np.concatenate(list(draw_weights(30, 100, 0))).astype(np.float64)
    found = intervals(images, weights)
    z, ill = norm.ppf(0.975), images.positive
    first, second = (s[ill] >= c for s, c in zip(images.scores, (CUTS[0], CUTS[2]), strict=True))
    b, c, n = (first & ~second).sum(), (second & ~first).sum(), ill.sum()
    half = z * np.sqrt(b + c - (b - c) ** 2 / n) / n
    interval = next(i for i in found["sensitivity_difference", 0.09] if i is not None and i.method == "wald")
    assert (interval.low, interval.high) == pytest.approx(((b - c) / n - half, (b - c) / n + half))
    won = [np.greater.outer(s[ill], s[~ill]).astype(float) for s in images.scores]
    gained = won[0] - won[1]
    half = z * np.sqrt(sum(gained.mean(axis=k).var(ddof=1) / gained.shape[1 - k] for k in (0, 1)))
    interval = next(i for i in found["auc_difference", 0.07] if i is not None and i.method == "delong")
    assert (interval.low, interval.high) == pytest.approx((gained.mean() - half, gained.mean() + half))


def test_workers_do_not_change_the_table():
    one, two = simulate(3, seed=5, workers=1), simulate(3, seed=5, workers=2)
    pd.testing.assert_frame_equal(one, two)
    assert not one.equals(simulate(3, seed=6, workers=2))
    text = render(one)
    assert text.count("\n| ") == len(QUANTITIES) * (2 + len(DESIGNS) * len(PATIENTS) * len(CORRELATIONS))
    assert all(text.count(f"**{title}**\n") == 1 for title in QUANTITIES.values())


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(DOCS / "coverage.csv")


def test_table_is_complete(table):
    cells = len(DESIGNS) * len(PATIENTS) * len(CORRELATIONS)
    assert len(table) == cells * sum(len(METHODS[name]) for name, _ in QUANTITIES)
    assert not table.duplicated(
        ["design", "patients", "correlation", "quantity", "true_value", "method"]
    ).any()
    assert table["simulations"].ge(2000).all()
    assert table["covered_of_all"].to_numpy() == pytest.approx(
        (table["coverage"] * (1 - table["share_without_interval"])).to_numpy(), abs=2e-5
    )


@pytest.mark.parametrize(("patients", "least"), [(100, 0.93), (30, 0.92), (15, 0.92)])
@pytest.mark.parametrize(("quantity", "true"), QUANTITIES)
def test_printed_intervals_cover(table, quantity, true, patients, least):
    printed = table[table["primary"] & (table["quantity"] == quantity) & (table["true_value"] == true)]
    of_size = printed[printed["patients"] == patients]
    assert len(of_size) == len(DESIGNS) * len(CORRELATIONS)
    assert of_size["covered_of_all"].min() >= least


def test_documentation_shows_the_table(table):
    _, shown, _ = divide((DOCS / "statistics.md").read_text(encoding="utf-8"))
    assert shown == render(table)


def test_writing_replaces_what_stands_between_the_lines(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}replaced\n{END}\nafter\n", encoding="utf-8")
    argv = ["simulate_coverage.py", "--out", str(DOCS / "coverage.csv"), "--write", str(page)]
    monkeypatch.setattr("sys.argv", argv)
    simulate_coverage.main()
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n{BEGIN}```\n")
    assert text.endswith(f" |\n{END}\nafter\n")
    assert "replaced" not in text
    simulate_coverage.main()
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("page", ["", BEGIN, END + BEGIN, BEGIN + END + END, BEGIN + BEGIN + END])
def test_a_page_without_both_lines_is_refused(page):
    with pytest.raises(ValueError, match="coverage: end"):
        divide(page)
