"""Simulate how often the summary of several hospitals' sensitivities, and its prediction interval, hold what they promise.

    PYTHONPATH=workflow python tests/benchmarks/simulate_pooling.py --simulations 2000 --seed 0

Hospitals' true logits are normal about 2.2 (.90) with standard deviation τ; each has 20 to 150 patients with the condition.
A line of the table is the coverage of the 95 % interval of the mean and of the true value of one more hospital.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.special import expit, stdtrit

from marrowflow.statistics.intervals import wilson
from marrowflow.statistics.pooled import on_logit_scale, pool

MIDDLE, FEWEST, MOST = 2.2, 20, 150
NORMAL = float(stdtrit(np.inf, 0.975))


def covered(hospitals: int, tau: float, rng: np.random.Generator) -> tuple[bool, bool]:
    """Return whether both intervals of one simulated study hold the truth."""
    n = rng.integers(FEWEST, MOST, hospitals)
    truth = MIDDLE + tau * rng.normal(size=hospitals)
    right = rng.binomial(n, expit(truth))
    values = []
    for x, m in zip(right, n, strict=True):
        row = wilson(int(x), int(m), 0.95)
        values.append(on_logit_scale(x / m, row.low, row.high, row.method, NORMAL))
    logits, errors = np.array(values).T
    found = pool(logits, errors**2, 0.95)
    another = MIDDLE + tau * rng.normal()
    return found.low <= MIDDLE <= found.high, found.predicted[0] <= another <= found.predicted[1]


def table(simulations: int, seed: int) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield "| τ | hospitals | mean | another hospital |"
    yield "| --- | --- | --- | --- |"
    for tau in (0.0, 0.3, 0.6, 1.0):
        for hospitals in (3, 4, 5, 8, 12):
            rng = np.random.default_rng([seed, hospitals, round(10 * tau)])
            held = np.mean([covered(hospitals, tau, rng) for _ in range(simulations)], axis=0)
            yield f"| {tau:g} | {hospitals} | {held[0]:.2f} | {held[1]:.2f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for line in table(arguments.simulations, arguments.seed):
        print(line, flush=True)
