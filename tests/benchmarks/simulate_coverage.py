"""How often the intervals cover the truth where images cluster in patients: simulated, nominal 95 %.

    PYTHONPATH=workflow python tests/benchmarks/simulate_coverage.py --simulations 10000 --out docs/coverage.csv
    PYTHONPATH=workflow python tests/benchmarks/simulate_coverage.py --out docs/coverage.csv --print

The first simulates and writes the table, the same for any number of workers (9 minutes on two cores; 2 with the 2,000
data sets a scenario that it takes when left alone); the second prints the table that is there as Markdown.

**Data.** A score is δ·positive + √ρ·(effect of the patient) + √(1 - ρ)·(effect of the image), both effects standard
normal, so that within each class scores have variance 1 and correlate by ρ within a patient: .5 strong, .1 weak, 0 none.
Patients have 1 + negative-binomial many images, 10 on average with a coefficient of variation of .7.

- design ``patient``: the truth is the patient's. Half of the patients are positive, and sensitivity rests on them alone.
- design ``image``: the truth is the image's, as with cells. Every patient has 1 + negative-binomial many images of
  each kind, 5 on average, with one effect of the patient on all of them.

**Truth**, exact by construction. The AUC is the probability that a positive image scores higher than a negative one of
another patient: Φ(δ/√2) = .92. The sensitivities are the shares of positive images above the cut-offs δ - Φ⁻¹(.84) and
δ - Φ⁻¹(.986). The sample's AUC counts pairs within patients as well, in design ``image`` one in N of all. The effect of the
patient cancels in them, so that they are easier, Φ(δ/√(2(1 - ρ))), and raise the expected AUC
by at most .0038 (ρ = .5, N = 15). This bias counts against the intervals.

**Columns.** ``coverage`` is the share of the data sets with an interval in which it covers the truth (limits included),
``covered_of_all`` the share of all data sets, where no interval covers nothing. ``primary`` is what reports print. At an AUC of
exactly 1 that is ``newcombe_neff``, which is counted under ``jackknife_logit`` here. ``delong`` and
``wilson`` take each image for a patient. All data sets of a scenario are resampled by the same weights,
as every run with one seed is.
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
from marrowflow.files import write_table
from marrowflow.statistics.bootstrap import Interval, bootstrap_intervals, draw_weights
from marrowflow.statistics.intervals import (
    auc_delong,
    auc_jackknife,
    auc_logit,
    auc_separated,
    wilson,
    wilson_clustered,
)
from marrowflow.statistics.ranking import rank

CONFIDENCE = 0.95
REPLICATES = 2000
AUC = 0.92
SENSITIVITIES = (0.84, 0.986)
DESIGNS = ("patient", "image")
PATIENTS = (100, 30, 15)
CORRELATIONS = {0.5: "strong", 0.1: "weak", 0.0: "none"}

SHIFT = np.sqrt(2) * norm.ppf(AUC)
PRIMARY = ("jackknife_logit", "wilson_neff")
METHODS = {
    "auc": ("jackknife_logit", "obuchowski_logit", "bootstrap_bca", "bootstrap_percentile", "delong"),
    "sensitivity": ("wilson_neff", "bootstrap_bca", "bootstrap_percentile", "wilson"),
}

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
    """One data set: patient, int64 [images]; truth, bool [images]; score, float64 [images]."""

    patient: np.ndarray
    positive: np.ndarray
    score: np.ndarray


Key = tuple[str, float, str]
"""(quantity, true value, method)."""


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
    shared, own = generator.normal(size=n)[patient], generator.normal(size=len(patient))
    score = SHIFT * positive + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    return Images(patient, positive, score)


def auc_intervals(images: Images, weights: np.ndarray) -> Iterator[Interval | None]:
    """Yield the intervals of the AUC; `weights` are float64 [resamples, patients]."""
    ranking = rank(images.score, images.positive, images.patient, weights.shape[1], _MOST_ENTRIES)
    assert ranking is not None  # every scenario has images of both kinds
    auc, variance = ranking.auc_variance()
    left_out = ranking.auc_without_each()
    fewest = min(int((rows > 0).sum()) for rows in (ranking.positives, ranking.negatives))
    yield auc_jackknife(auc, left_out, fewest, CONFIDENCE) or _renamed(
        auc_separated(auc, ranking.positives, ranking.negatives, CONFIDENCE), "jackknife_logit"
    )
    yield auc_logit(auc, variance, CONFIDENCE)
    pull = left_out.mean() - left_out
    yield from bootstrap_intervals(auc, ranking.auc(weights), pull, CONFIDENCE).intervals
    alone = np.arange(len(images.score))
    naive = rank(images.score, images.positive, alone, len(alone), most_entries=0)
    assert naive is not None
    yield auc_delong(*naive.auc_variance(), CONFIDENCE)


def sensitivity_intervals(
    found: np.ndarray, positives: np.ndarray, weights: np.ndarray
) -> Iterator[Interval | None]:
    """Yield the intervals of a share of positive images; `found` and `positives` are counts, float64 [patients]."""
    yield wilson_clustered(found, positives, CONFIDENCE)
    n = positives.sum()
    share = found.sum() / n
    with np.errstate(invalid="ignore"):
        replicates = (weights @ found) / (weights @ positives)
        left_out = (found.sum() - found) / (n - positives)
    pull = left_out.mean() - left_out
    yield from bootstrap_intervals(share, replicates, pull, CONFIDENCE).intervals
    yield wilson(found.sum(), n, CONFIDENCE)


def measure(block: Block) -> dict[Key, np.ndarray]:
    """Return for each quantity and method the data sets with an interval, those it covers in, and the summed widths."""
    scenario = block.scenario
    generator = np.random.default_rng(block.seed)
    drawn = list(draw_weights(scenario.patients, REPLICATES, seed=block.seed[0]))
    weights = np.concatenate(drawn).astype(np.float64)
    sums = {key: np.zeros(3) for key in _keys()}
    for _ in range(block.data_sets):
        images = draw_images(scenario, generator)
        for interval in auc_intervals(images, weights):
            _add(sums, "auc", AUC, interval)
        patient, score = images.patient[images.positive], images.score[images.positive]
        positives = np.bincount(patient, minlength=scenario.patients).astype(np.float64)
        for true in SENSITIVITIES:
            above = score >= SHIFT - norm.ppf(true)
            found = np.bincount(patient, above, minlength=scenario.patients)
            for interval in sensitivity_intervals(found, positives, weights):
                _add(sums, "sensitivity", true, interval)
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
        f"{made.simulations:,} data sets a line: the Monte-Carlo error of a .95 is "
        f"{np.sqrt(0.95 * 0.05 / made.simulations):.4f}. Coverage is that of "
        "the data sets that have an interval; the share without one stands in brackets."
    ]
    for (quantity, true), rows in table.groupby(["quantity", "true_value"], sort=False):
        methods = METHODS[str(quantity)]
        heads = ["truth of the", "patients", "correlation", f"**{methods[0]}**", "mean width"]
        heads += [f"{m} (ignores patients)" if m in ("delong", "wilson") else m for m in methods[1:]]
        lines = [f"Coverage of nominal 95 % intervals, {quantity} {true:g}:", ""]
        lines += [_line(heads), _line(["---"] * len(heads))]
        for (design, patients, correlation), cell in rows.groupby(
            ["design", "patients", "correlation"], sort=False
        ):
            of = {row.method: row for row in cell.itertuples()}
            first = of[methods[0]]
            shown = [f"**{first.coverage:.3f}**", f"{first.mean_width:.3f}"]
            shown += [_coverage(of[m]) for m in methods[1:]]
            lines.append(_line([design, str(patients), CORRELATIONS[correlation], *shown]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Simulate, or print."""
    parser = argparse.ArgumentParser(description="Coverage of the intervals of clustered images.")
    parser.add_argument("--out", type=Path, required=True, help="the table, .csv")
    parser.add_argument("--simulations", type=int, default=2000, help="data sets a scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--print", action="store_true", help="print the table that is there, as Markdown")
    args = parser.parse_args()
    if args.print:
        print(render(pd.read_csv(args.out)), end="")
    else:
        write_table(args.out, simulate(args.simulations, args.seed, args.workers))


def _sizes(generator: np.random.Generator, n: int, mean: float) -> np.ndarray:
    return 1 + generator.negative_binomial(_SHAPE, _SHAPE / (_SHAPE + mean - 1), n)


def _keys() -> list[Key]:
    wanted = [("auc", AUC), *(("sensitivity", true) for true in SENSITIVITIES)]
    return [(quantity, true, method) for quantity, true in wanted for method in METHODS[quantity]]


def _renamed(interval: Interval | None, method: str) -> Interval | None:
    return None if interval is None else Interval(method, interval.low, interval.high)


def _add(sums: dict[Key, np.ndarray], quantity: str, true: float, interval: Interval | None) -> None:
    if interval is not None:
        covers = interval.low <= true <= interval.high
        sums[quantity, true, interval.method] += (1, covers, interval.high - interval.low)


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
        "primary": method in PRIMARY,
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
    missing = f" ({row.share_without_interval:.0%} without)" if row.share_without_interval >= 0.005 else ""
    return f"{row.coverage:.3f}{missing}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
