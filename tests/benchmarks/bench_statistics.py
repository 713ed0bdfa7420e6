"""CPU seconds of the clustered bootstrap, beside the loop over scikit-learn that it replaces.

    OMP_NUM_THREADS=1 PYTHONPATH=workflow python tests/benchmarks/bench_statistics.py

The loop is timed on a few replicates and extrapolated to all. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score
from threadpoolctl import threadpool_limits

from marrowflow.statistics.bootstrap import bootstrap_intervals, draw_weights
from marrowflow.statistics.cases import Sample
from marrowflow.statistics.evaluation import evaluate_binary, evaluate_classes

REPLICATES = 2000
SIZES = ((1_000, 100), (34_281, 945), (171_374, 945))
LOOPED = 10


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


def core(sample: Sample) -> None:
    """AUC, sensitivity, specificity, PPV, NPV and accuracy with BCa intervals of each."""
    question = evaluate_binary(sample, [sample.classes[1]], sample.predicted == 1)
    ranking = question.rankings[""]
    cells, auc = [], []
    for weights in draw_weights(sample.n_patients, REPLICATES, 0):
        cells.append(question.from_cells(weights.astype(np.float64) @ question.cells))
        auc.append(ranking.auc(weights))
    estimates = question.from_cells(question.cells.sum(axis=0))
    left_out = question.from_cells(question.cells.sum(axis=0) - question.cells)
    for metric in ("sensitivity", "specificity", "ppv", "npv", "accuracy"):
        key = (metric, "")
        values = np.concatenate([c[key] for c in cells])
        bootstrap_intervals(float(estimates[key]), values, left_out[key].mean() - left_out[key], 0.95)
    without = ranking.auc_without_each()
    bootstrap_intervals(ranking.auc_variance()[0], np.concatenate(auc), without.mean() - without, 0.95)


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


def loop(sample: Sample) -> float:
    """Return the extrapolated seconds of resampling patients and calling scikit-learn for each of the six metrics' needs."""
    rng = np.random.default_rng(0)
    truth, predicted, score = sample.truth, sample.predicted, sample.probabilities[:, 1]
    rows_of = [np.flatnonzero(sample.patient == p) for p in range(sample.n_patients)]
    start = time.process_time()
    for _ in range(LOOPED):
        rows = np.concatenate([rows_of[p] for p in rng.integers(0, sample.n_patients, sample.n_patients)])
        roc_auc_score(truth[rows], score[rows])
        confusion_matrix(truth[rows], predicted[rows])
    return (time.process_time() - start) / LOOPED * REPLICATES


def seconds(work: Callable[[Sample], None], sample: Sample, times: int = 3) -> float:
    """Return the least CPU seconds of a few runs."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        work(sample)
        spent.append(time.process_time() - start)
    return min(spent)


def main() -> None:
    """Print one line a size."""
    print(f"{REPLICATES} replicates, one thread, CPU seconds; loop extrapolated from {LOOPED} replicates")
    with threadpool_limits(limits=1):
        for rows, patients in SIZES:
            two, five = simulated(rows, patients, 2), simulated(rows, patients, 5)
            fast, slow = seconds(core, two), loop(two)
            print(
                f"{rows:>7} rows {patients:>4} patients: six metrics {fast:.3f} s, scikit-learn loop {slow:.1f} s "
                f"({slow / fast:.0f} times); all metrics {seconds(whole, two):.3f} s; "
                f"five classes, all metrics {seconds(whole, five, 1):.3f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
