"""How often the intervals cover the truth where images cluster in patients: simulated, nominal 95 %.

    PYTHONPATH=workflow python tests/benchmarks/simulate_coverage.py --simulations 10000 --out docs/coverage.csv
    PYTHONPATH=workflow python tests/benchmarks/simulate_coverage.py --out docs/coverage.csv --print
    PYTHONPATH=workflow python tests/benchmarks/simulate_coverage.py --out docs/coverage.csv --write docs/statistics.md

The first simulates and writes the table, the same for any number of workers (4 minutes on two cores; 1 with
the 2,000 data sets a scenario that it takes when left alone). The others only read it: one prints it as Markdown, the other
puts that between the lines `BEGIN` and `END` of the documentation.

**Data.** A score is δ·positive + √ρ·(effect of the patient) + √(1 - ρ)·(effect of the image), both effects standard
normal, so that within each class scores have variance 1 and correlate by ρ within a patient: .5 strong, .1 weak, 0 none.
Two index tests score the same images: the effects of a patient on the two scores correlate by .5, and so do those of an image.
Patients have 1 + negative-binomial many images, 10 on average with a coefficient of variation of .7.

- design ``patient``: the truth is the patient's. Half of the patients are positive, and sensitivity rests on them alone.
- design ``image``: the truth is the image's, as with cells. Every patient has 1 + negative-binomial many images of
  each kind, 5 on average, with one effect of the patient on all of them.

**Truth**, exact by construction. The AUC is the probability that a positive image scores higher than a negative one of
another patient: Φ(δ/√2) = .92 of the first index test and .85 of the second. The sensitivities are the shares of positive
images above the cut-offs δ - Φ⁻¹(.84) and δ - Φ⁻¹(.986) of the first and δ - Φ⁻¹(.75) and δ - Φ⁻¹(.95) of the second.
Differences are .92 - .85, .84 - .75 and .986 - .95. The sample's AUC counts pairs within patients as well, in design ``image`` one in N of all. The
effect of the patient cancels in them, so that they are easier, Φ(δ/√(2(1 - ρ))), and raise the expected AUC by at most
.0038 (ρ = .5, N = 15), the second index test's by .0052, so that their difference loses .0015. This bias counts against
the intervals.

**Columns.** ``coverage`` is the share of the data sets with an interval in which it covers the truth (limits included),
``covered_of_all`` the share of all data sets, where no interval covers nothing. ``primary`` is what reports print. At an
AUC of exactly 1 that is ``newcombe_neff``, which is counted under ``jackknife_logit`` here. ``delong``, ``wilson`` and
``wald`` take each image for a patient; ``wald`` is (b - c)/n ± z √(b + c - (b - c)²/n) / n with b and c of the n positive
images that only the one, and only the other index test finds. All data sets of a scenario are resampled by the same
weights, as every run with one seed is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from marrowflow.cli import progress
from marrowflow.files import write_table, write_text
from marrowflow.statistics.bootstrap import Interval, bootstrap_intervals, draw_weights
from marrowflow.statistics.intervals import (
    auc_delong,
    auc_jackknife,
    auc_logit,
    auc_separated,
    difference_jackknife,
    difference_wald,
    wilson,
    wilson_clustered,
)
from marrowflow.statistics.movers import difference_interval
from marrowflow.statistics.ranking import Ranking, rank

CONFIDENCE = 0.95
REPLICATES = 2000
AUCS = (0.92, 0.85)
SENSITIVITIES = ((0, 0.84), (0, 0.986), (1, 0.75), (1, 0.95))
"""Index test, 0 or 1, and its true sensitivity."""
BETWEEN_TESTS = 0.5
"""How the effects on the two index tests' scores correlate."""
DESIGNS = ("patient", "image")
PATIENTS = (100, 30, 15)
CORRELATIONS = {0.5: "strong", 0.1: "weak", 0.0: "none"}

SHIFTS = [np.sqrt(2) * norm.ppf(auc) for auc in AUCS]
CUTS = [SHIFTS[test] - norm.ppf(true) for test, true in SENSITIVITIES]

Quantity = tuple[str, float]
"""(name, true value), as in the table."""
Key = tuple[str, float, str]
"""(name, true value, method)."""

QUANTITIES: dict[Quantity, str] = {
    ("auc", 0.92): "AUC .92",
    ("auc_difference", 0.07): "Difference of AUCs .92 − .85",
    ("sensitivity", 0.84): "Sensitivity .84",
    ("sensitivity", 0.986): "Sensitivity .986",
    ("sensitivity_difference", 0.09): "Difference of sensitivities .84 − .75",
    ("sensitivity_difference", 0.036): "Difference of sensitivities .986 − .95",
}
METHODS = {
    "auc": ("jackknife_logit", "obuchowski_logit", "bootstrap_bca", "bootstrap_percentile", "delong"),
    "auc_difference": ("jackknife_t", "obuchowski", "bootstrap_bca", "bootstrap_percentile", "delong"),
    "sensitivity": ("wilson_neff", "bootstrap_bca", "bootstrap_percentile", "wilson"),
    "sensitivity_difference": (
        "mover_wilson_neff",
        "jackknife_t",
        "bootstrap_bca",
        "bootstrap_percentile",
        "wald",
    ),
}
NAIVE = ("delong", "wilson", "wald")

BEGIN, END = "<!-- coverage: begin -->\n", "<!-- coverage: end -->\n"

_MOST_ENTRIES = 1_000_000
_DATA_SETS_A_BLOCK = 100
# The negative binomial's shape: with the mean of 10 the images of a patient have a coefficient of variation of .7.
_SHAPE = 2.025


class Scenario(NamedTuple):
    """How data sets are made; ``correlation`` is ρ of the module's text."""

    design: str
    patients: int
    correlation: float


class Block(NamedTuple):
    """Data sets that one worker makes and measures, and the seed of their random numbers."""

    scenario: Scenario
    data_sets: int
    seed: tuple[int, int, int]


class Images(NamedTuple):
    """One data set: patient, int64 [images]; truth, bool [images]; the index tests' scores, float64 [2, images]."""

    patient: np.ndarray
    positive: np.ndarray
    scores: np.ndarray


class Ranked(NamedTuple):
    """One index test's AUC on a data set.

    ``naive`` takes each image for a patient, ``replicates`` are float64 [resamples], ``left_out`` float64 [patients].
    """

    ranking: Ranking
    naive: Ranking
    replicates: np.ndarray
    left_out: np.ndarray

    @property
    def fewest(self) -> int:
        """Patients of the rarer class."""
        return self.ranking.auc_pulls().fewest


class Found(NamedTuple):
    """Positive images above a cut-off on a data set.

    ``above`` is bool [positive images], ``found`` and ``positives`` are counts, float64 [patients], ``replicates``
    float64 [resamples], ``left_out`` float64 [patients].
    """

    above: np.ndarray
    found: np.ndarray
    positives: np.ndarray
    replicates: np.ndarray
    left_out: np.ndarray


def draw_images(scenario: Scenario, generator: np.random.Generator) -> Images:
    """Return one data set, as the module describes it."""
    design, n, correlation = scenario
    if design == "patient":
        sizes = _sizes(generator, n, 10)
        patient = np.repeat(np.arange(n), sizes)
        positive = patient % 2 == 0
    else:
        sizes = _sizes(generator, 2 * n, 5)
        patient = np.repeat(np.arange(2 * n) % n, sizes)
        positive = np.repeat(np.arange(2 * n) < n, sizes)
    of_patients, of_images = generator.normal(size=n), generator.normal(size=len(patient))
    # The second index test has random numbers of its own, so that the first is what it would be alone.
    (other,) = generator.spawn(1)
    effects = [(of_patients, of_images), (_alike(of_patients, other), _alike(of_images, other))]
    scores = [
        shift * positive + np.sqrt(correlation) * shared[patient] + np.sqrt(1 - correlation) * own
        for shift, (shared, own) in zip(SHIFTS, effects, strict=True)
    ]
    return Images(patient, positive, np.stack(scores))


def intervals(images: Images, weights: np.ndarray) -> dict[Quantity, Iterator[Interval | None]]:
    """Return every interval of a data set, by what it is of; `weights` are float64 [resamples, patients]."""
    first, second = (_ranked(images, score, weights) for score in images.scores)
    high, higher, other, lower = _found(images, weights)
    return {
        ("auc", 0.92): auc_intervals(first),
        ("auc_difference", 0.07): auc_difference_intervals(first, second),
        ("sensitivity", 0.84): sensitivity_intervals(high),
        ("sensitivity", 0.986): sensitivity_intervals(higher),
        ("sensitivity_difference", 0.09): sensitivity_difference_intervals(high, other),
        ("sensitivity_difference", 0.036): sensitivity_difference_intervals(higher, lower),
    }


def auc_intervals(test: Ranked) -> Iterator[Interval | None]:
    """Yield the intervals of an AUC."""
    auc, variance = test.ranking.auc_variance()
    yield auc_jackknife(auc, test.left_out, test.fewest, CONFIDENCE) or _renamed(
        auc_separated(auc, test.ranking.positives, test.ranking.negatives, CONFIDENCE), "jackknife_logit"
    )
    yield auc_logit(auc, variance, CONFIDENCE)
    yield from bootstrap_intervals(auc, test.replicates, _pulls(test.left_out), CONFIDENCE).intervals
    yield auc_delong(*test.naive.auc_variance(), CONFIDENCE)


def auc_difference_intervals(a: Ranked, b: Ranked) -> Iterator[Interval | None]:
    """Yield the intervals of the difference of two AUCs on the same images."""
    difference = a.ranking.auc_variance()[0] - b.ranking.auc_variance()[0]
    pulls = _pulls(a.left_out - b.left_out)
    yield difference_jackknife(difference, [(pulls, a.fewest)], CONFIDENCE)
    for method, one, other in (
        ("obuchowski", a.ranking, b.ranking),
        ("delong", a.naive, b.naive),
    ):
        variance = one.auc_pulls().minus(other.auc_pulls()).variance()
        yield difference_wald(method, difference, variance, CONFIDENCE)
    yield from bootstrap_intervals(difference, a.replicates - b.replicates, pulls, CONFIDENCE).intervals


def sensitivity_intervals(test: Found) -> Iterator[Interval | None]:
    """Yield the intervals of a share of positive images."""
    found, n = test.found.sum(), test.positives.sum()
    yield wilson_clustered(test.found, test.positives, CONFIDENCE)
    yield from bootstrap_intervals(found / n, test.replicates, _pulls(test.left_out), CONFIDENCE).intervals
    yield wilson(found, n, CONFIDENCE)


def sensitivity_difference_intervals(a: Found, b: Found) -> Iterator[Interval | None]:
    """Yield the intervals of the difference of two shares of the same positive images."""
    n = a.positives.sum()
    difference = a.found.sum() / n - b.found.sum() / n
    pulls = _pulls(a.left_out - b.left_out)
    yield difference_interval((a.found, a.positives), (b.found, b.positives), True, CONFIDENCE)
    yield difference_jackknife(difference, [(pulls, int((a.positives > 0).sum()))], CONFIDENCE)
    yield from bootstrap_intervals(difference, a.replicates - b.replicates, pulls, CONFIDENCE).intervals
    of_images = a.above.astype(np.float64) - b.above
    yield difference_wald("wald", difference, of_images.var() / n, CONFIDENCE)


def measure(block: Block) -> dict[Key, np.ndarray]:
    """Return for each quantity and method the data sets with an interval, those it covers in, and the summed widths."""
    scenario = block.scenario
    generator = np.random.default_rng(block.seed)
    drawn = list(draw_weights(scenario.patients, REPLICATES, seed=block.seed[0]))
    weights = np.concatenate(drawn).astype(np.float64)
    sums = {key: np.zeros(3) for key in _keys()}
    for _ in range(block.data_sets):
        for (name, true), found in intervals(draw_images(scenario, generator), weights).items():
            for interval in found:
                if interval is not None:
                    covers = interval.low <= true <= interval.high
                    sums[name, true, interval.method] += (1, covers, interval.high - interval.low)
    return sums


def simulate(simulations: int, seed: int, workers: int) -> pd.DataFrame:
    """Return the table that the module describes, one row a scenario, quantity and method."""
    scenarios = [Scenario(*parts) for parts in product(DESIGNS, PATIENTS, CORRELATIONS)]
    blocks = [
        Block(scenario, min(_DATA_SETS_A_BLOCK, simulations - start), (seed, i, start))
        for i, scenario in enumerate(scenarios)
        for start in range(0, simulations, _DATA_SETS_A_BLOCK)
    ]
    totals: dict[Scenario, dict[Key, np.ndarray]] = {}
    with Pool(workers, initializer=threadpool_limits, initargs=(1,)) as pool:
        measured = progress(pool.imap(measure, blocks), "coverage", total=len(blocks), unit="blocks")
        for block, sums in zip(blocks, measured, strict=True):
            of_scenario = totals.setdefault(block.scenario, {key: np.zeros(3) for key in _keys()})
            for key, values in sums.items():
                of_scenario[key] += values
    rows = [
        _row(scenario, key, values, simulations, seed)
        for scenario, found in totals.items()
        for key, values in found.items()
    ]
    return pd.DataFrame(rows)


def render(table: pd.DataFrame) -> str:
    """Return the Markdown of the documentation: the command that made `simulate`'s table, then a table a quantity."""
    made = table.iloc[0]
    parts = [
        f"```\nPYTHONPATH=workflow python tests/benchmarks/simulate_coverage.py --simulations {made.simulations} "
        f"--seed {made.seed} --out docs/coverage.csv\n```\n\n"
        f"Coverage of nominal 95 % intervals in {made.simulations:,} data sets a line; the Monte-Carlo error of a .95 is "
        f"{_short(np.sqrt(0.95 * 0.05 / made.simulations), 4)}. In bold, and with its mean width, the interval that reports print. "
        "Coverage is that of the data sets that have an interval; the share without one stands in brackets. "
        "Differences are of two index tests on the same images; their two scores of an image correlate by .5 within a class."
    ]
    for (name, true), rows in table.groupby(["quantity", "true_value"], sort=False):
        methods = METHODS[str(name)]
        heads = ["truth of the", "patients", "correlation", f"**`{methods[0]}`**", "mean width"]
        heads += [f"`{m}` (ignores patients)" if m in NAIVE else f"`{m}`" for m in methods[1:]]
        lines = [f"**{QUANTITIES[name, true]}**", ""]
        lines += [_line(heads), _line(["---"] * len(heads))]
        for (design, patients, correlation), cell in rows.groupby(
            ["design", "patients", "correlation"], sort=False
        ):
            of = {row.method: row for row in cell.itertuples()}
            first = of[methods[0]]
            shown = [f"**{_coverage(first)}**", _short(first.mean_width, 3)]
            shown += [_coverage(of[m]) for m in methods[1:]]
            lines.append(_line([design, str(patients), CORRELATIONS[correlation], *shown]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def divide(page: str) -> tuple[str, str, str]:
    """Return what stands before, between and after the lines `BEGIN` and `END` of a page, the lines with the outer parts.

    Raises
    ------
    ValueError
        Not exactly one of either line, in this order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"one line {BEGIN.strip()} is needed, and one line {END.strip()} after it")
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return page[:start], page[start:end], page[end:]


def main() -> None:
    """Simulate, or show the table that is there."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals of clustered images.")
    parser.add_argument("--out", type=Path, required=True, help="the table, .csv")
    parser.add_argument("--simulations", type=int, default=2000, help="data sets a scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--print", action="store_true", help="print the table that is there, as Markdown")
    show.add_argument("--write", type=Path, metavar="PAGE", help="put the table that is there into this page")
    args = parser.parse_args()
    if args.print:
        print(render(pd.read_csv(args.out)), end="")
    elif args.write:
        before, _, after = divide(args.write.read_text(encoding="utf-8"))
        write_text(args.write, before + render(pd.read_csv(args.out)) + after)
    else:
        write_table(args.out, simulate(args.simulations, args.seed, args.workers))


def _sizes(generator: np.random.Generator, n: int, mean: float) -> np.ndarray:
    return 1 + generator.negative_binomial(_SHAPE, _SHAPE / (_SHAPE + mean - 1), n)


def _alike(effects: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return standard normal effects that correlate with others by `BETWEEN_TESTS`."""
    return BETWEEN_TESTS * effects + np.sqrt(1 - BETWEEN_TESTS**2) * generator.normal(size=len(effects))


def _ranked(images: Images, score: np.ndarray, weights: np.ndarray) -> Ranked:
    ranking = rank(score, images.positive, images.patient, weights.shape[1], _MOST_ENTRIES)
    alone = np.arange(len(score))
    naive = rank(score, images.positive, alone, len(alone), most_entries=0)
    assert ranking is not None  # every scenario has images of both kinds
    assert naive is not None
    return Ranked(ranking, naive, ranking.auc(weights), ranking.auc_without_each())


def _found(images: Images, weights: np.ndarray) -> list[Found]:
    """Return what is found at each of `CUTS`."""
    n, patient = weights.shape[1], images.patient[images.positive]
    positives = np.bincount(patient, minlength=n).astype(np.float64)
    above = [
        images.scores[test][images.positive] >= cut
        for (test, _), cut in zip(SENSITIVITIES, CUTS, strict=True)
    ]
    found = np.stack([np.bincount(patient, each, minlength=n) for each in above])
    drawn = weights @ np.vstack([positives, found]).T
    with np.errstate(invalid="ignore"):
        replicates = (drawn[:, 1:] / drawn[:, :1]).T
    left_out = (found.sum(axis=1, keepdims=True) - found) / (positives.sum() - positives)
    return [
        Found(a, f, positives, r, w) for a, f, r, w in zip(above, found, replicates, left_out, strict=True)
    ]


def _pulls(left_out: np.ndarray) -> np.ndarray:
    return left_out.mean() - left_out


def _keys() -> list[Key]:
    return [(name, true, method) for name, true in QUANTITIES for method in METHODS[name]]


def _renamed(interval: Interval | None, method: str) -> Interval | None:
    return None if interval is None else Interval(method, interval.low, interval.high)


def _row(
    scenario: Scenario, key: Key, sums: np.ndarray, simulations: int, seed: int
) -> dict[str, str | float | bool]:
    quantity, true, method = key
    given, covered, width = sums
    coverage = covered / given if given else np.nan
    return {
        **scenario._asdict(),
        "quantity": quantity,
        "true_value": true,
        "method": method,
        "primary": method == METHODS[quantity][0],
        "coverage": round(coverage, 5),
        "monte_carlo_se": round(float(np.sqrt(coverage * (1 - coverage) / given)), 5) if given else np.nan,
        "covered_of_all": covered / simulations,
        "mean_width": round(width / given, 5) if given else np.nan,
        "share_without_interval": round(1 - given / simulations, 5),
        "simulations": simulations,
        "replicates": REPLICATES if method.startswith("bootstrap") else 0,
        "seed": seed,
    }


def _coverage(row) -> str:
    missing = (
        f" ({100 * row.share_without_interval:.0f} % without)" if row.share_without_interval >= 0.005 else ""
    )
    return f"{_short(row.coverage, 3)}{missing}"


def _short(value: float, digits: int) -> str:
    """Return a share as statisticians write it, without the leading 0."""
    return f"{value:.{digits}f}".removeprefix("0")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
