"""CPU seconds and memory of the clustered bootstrap, beside the loop over scikit-learn that it replaces.

    OMP_NUM_THREADS=1 PYTHONPATH=workflow python tests/benchmarks/bench_statistics.py

One thread. The loop is timed on a few replicates and extrapolated to all. Memory is that of a process of its own, above
what the sample itself takes: the most that numpy and Python had allocated at a time, and the growth of the resident
set. ``bench_peers.py`` times published packages on the same samples.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score
from threadpoolctl import threadpool_limits

from marrowflow.statistics.bootstrap import Bootstrapped, bootstrap_intervals, draw_weights
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.evaluation import Evaluation, evaluate_binary, evaluate_classes

REPLICATES = 2000
SIZES = ((1_000, 100), (34_281, 945), (171_374, 945))
GROWTH = (10_000, 20_000, 40_000, 80_000, 160_000)
ROWS_A_PATIENT = 36
LOOPED = 10
MOST_MEMORY = 200
"""MB that no analysis may take beside its sample."""

SIX = ("auc", "sensitivity", "specificity", "ppv", "npv", "accuracy")


def simulated(rows: int, patients: int, classes: int, seed: int = 0) -> Sample:
    """Return rows whose class and probabilities share an effect of their patient; every class in most patients."""
    rng = np.random.default_rng(seed)
    patient = np.concatenate([np.arange(patients), rng.integers(0, patients, rows - patients)])
    truth = (rng.normal(size=(patients, classes))[patient] + rng.gumbel(size=(rows, classes))).argmax(axis=1)
    logits = 1.5 * np.eye(classes)[truth] + 0.5 * rng.normal(size=(patients, classes))[patient]
    logits += rng.normal(size=(rows, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Sample(
        unit="case",
        classes=[f"class {i}" for i in range(classes)],
        patient=patient,
        truth=truth,
        predicted=p.argmax(axis=1),
        probabilities=p,
        n_patients=patients,
        n_cases=rows,
    )


def core(sample: Sample) -> list[dict[str, Bootstrapped]]:
    """Return the intervals (BCa first) of the six metrics: of the second of two classes, or of each against the rest."""
    chosen = [1] if len(sample.classes) == 2 else range(len(sample.classes))
    questions = [evaluate_binary(sample, [sample.classes[i]], sample.predicted == i) for i in chosen]
    drawn: list[list[dict[str, np.ndarray]]] = [[] for _ in questions]
    for weights in draw_weights(sample.n_patients, REPLICATES, 0):
        w = weights.astype(np.float64)
        for question, values in zip(questions, drawn, strict=True):
            ranking = question.rankings[""]
            auc = ranking.auc(weights if ranking.pairs is None else w)
            values.append(six(question, w @ question.cells, auc))
    found = []
    for question, values in zip(questions, drawn, strict=True):
        total, ranking = question.cells.sum(axis=0), question.rankings[""]
        estimates = six(question, total, ranking.auc_variance()[0])
        left_out = six(question, total - question.cells, ranking.auc_without_each())
        found.append(
            {
                m: bootstrap_intervals(
                    float(estimates[m]),
                    np.concatenate([v[m] for v in values]),
                    left_out[m].mean() - left_out[m],
                    0.95,
                )
                for m in SIX
            }
        )
    return found


def six(question: Evaluation, cells: np.ndarray, auc: np.ndarray | float) -> dict[str, np.ndarray]:
    found = question.from_cells(cells)
    return {"auc": np.asarray(auc), **{m: found[m, ""] for m in SIX[1:]}}


def whole(sample: Sample) -> None:
    """All metrics of the classification into all classes, with average precision, or of a binary endpoint."""
    if len(sample.classes) == 2:
        evaluation = evaluate_binary(sample, [sample.classes[1]], sample.predicted == 1)
    else:
        evaluation = evaluate_classes(sample)
    drawn = [evaluation.values(w) for w in draw_weights(sample.n_patients, REPLICATES, 0)]
    influence = evaluation.influence()
    for key, estimate in evaluation.estimates().items():
        bootstrap_intervals(estimate, np.concatenate([d[key] for d in drawn]), influence[key], 0.95)


def loop(sample: Sample, looped: int = LOOPED) -> float:
    """Return the extrapolated seconds of resampling patients and calling scikit-learn for each of the six metrics' needs."""
    rng = np.random.default_rng(0)
    truth, predicted, score = sample.truth, sample.predicted, sample.probabilities[:, 1]
    rows_of = [np.flatnonzero(sample.patient == p) for p in range(sample.n_patients)]
    start = time.process_time()
    for _ in range(looped):
        rows = np.concatenate([rows_of[p] for p in rng.integers(0, sample.n_patients, sample.n_patients)])
        roc_auc_score(truth[rows], score[rows])
        confusion_matrix(truth[rows], predicted[rows])
    return (time.process_time() - start) / looped * REPLICATES


def seconds(work: Callable[[Sample], object], sample: Sample, times: int = 3) -> float:
    """Return the least CPU seconds of a few runs."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        work(sample)
        spent.append(time.process_time() - start)
    return min(spent)


def memory(work: str, rows: int, patients: int, classes: int) -> tuple[float, float]:
    """Return the MB that an analysis allocates at most, and that its process grows by, each from a process of its own."""
    command = [sys.executable, __file__, "--memory", work, *map(str, (rows, patients, classes))]
    # Tracing makes every allocation larger: the resident set is read in a run without it.
    return tuple(  # type: ignore[return-value]
        float(subprocess.run([*command, how], check=True, capture_output=True, text=True).stdout)
        for how in ("traced", "resident")
    )


def measure_memory(work: str, rows: str, patients: str, classes: str, how: str) -> float:
    """Run an analysis in this process, and return the MB that it took beside the sample."""
    sample = simulated(int(rows), int(patients), int(classes))
    analyse: dict[str, Callable[[Sample], object]] = {"core": core, "whole": whole}
    if how == "traced":
        tracemalloc.start()
        analyse[work](sample)
        return tracemalloc.get_traced_memory()[1] / 1e6
    # The mark of the largest resident set is put back to the present one (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    analyse[work](sample)
    return resident("VmHWM") - before


def resident(line: str) -> float:
    """Return a line of the process's status in MB."""
    found = re.search(rf"{line}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def main() -> None:
    """Print the times of each size, how they grow, and the memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--memory", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    with threadpool_limits(limits=1):
        if args.memory:
            print(measure_memory(*args.memory))
            return
        report()


def report() -> None:
    print(f"{REPLICATES} replicates, one thread, CPU seconds; loop extrapolated from {LOOPED} replicates")
    for rows, patients in SIZES:
        two, five = simulated(rows, patients, 2), simulated(rows, patients, 5)
        fast, slow = seconds(core, two), loop(two)
        print(
            f"{rows:>7} rows {patients:>4} patients: six metrics {fast:.3f} s, scikit-learn loop {slow:.1f} s "
            f"({slow / fast:.0f} times); all metrics {seconds(whole, two):.3f} s; five classes, six metrics "
            f"{seconds(core, five):.3f} s, all metrics {seconds(whole, five, 1):.3f} s",
            flush=True,
        )
    for heading, patients_of in (
        ("945 patients", lambda rows: 945),
        (f"{ROWS_A_PATIENT} rows a patient", lambda rows: rows // ROWS_A_PATIENT),
    ):
        print(f"growth, six metrics, {heading}:")
        for rows in GROWTH:
            spent = seconds(core, simulated(rows, patients_of(rows), 2))
            print(
                f"{rows:>7} rows {patients_of(rows):>5} patients {spent:.3f} s {1e6 * spent / rows:6.2f} µs a row",
                flush=True,
            )
    rows, patients = SIZES[-1]
    print(f"memory beside the sample, {rows} rows, {patients} patients, at most {MOST_MEMORY} MB wanted:")
    for work, classes in (("core", 2), ("whole", 2), ("core", 5), ("whole", 5)):
        allocated, grown = memory(work, rows, patients, classes)
        verdict = "ok" if max(allocated, grown) <= MOST_MEMORY else "TOO MUCH"
        what = "six metrics" if work == "core" else "all metrics"
        print(
            f"{what}, {classes} classes: allocated {allocated:.0f} MB, resident set +{grown:.0f} MB  {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
