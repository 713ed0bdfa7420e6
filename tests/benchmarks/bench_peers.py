"""The clustered bootstrap beside what published packages offer for the same metrics, on the same samples.

    PYTHONPATH=workflow .venv-bench/bin/python tests/benchmarks/bench_peers.py

(an environment of requirements-peers.txt). AUC, sensitivity, specificity, PPV, NPV and accuracy of 2,000 replicates,
one thread, CPU seconds. Ours resamples patients and gives BCa intervals of all six. Peers are timed on a few
replicates and extrapolated to 2,000; the column "patients" says whether they can resample patients at all: those that
resample rows answer another question, with intervals that are too narrow for clustered rows.

Then known faults are shown in the same run, with our answer beside each.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version

import confidenceinterval
import numpy as np
import torch
from bench_statistics import REPLICATES, SIZES, core, seconds, simulated
from MLstatkit import Bootstrapping
from scipy.stats import bootstrap
from sklearn.metrics import confusion_matrix, roc_auc_score
from threadpoolctl import threadpool_limits
from torchmetrics import classification
from torchmetrics.wrappers import BootStrapper

from marrowflow.statistics.cases import Sample
from marrowflow.statistics.intervals import wilson_clustered

FIVE = 34_281
"""Rows of the sample of five classes."""

# scipy's BCa leaves out each row in turn, and by default lists all rows but one, for each row, at once.
MOST_BYTES = 4e9


@dataclass(frozen=True)
class Question:
    """A yes/no question: int64 truth and prediction, float64 score, int64 patient, each [rows]."""

    truth: np.ndarray
    predicted: np.ndarray
    score: np.ndarray
    patient: np.ndarray


@dataclass(frozen=True)
class Peer:
    """A way of bootstrapping a question, given the number of replicates."""

    name: str
    run: Callable[[Question, int], object]
    patients: str = "no"
    metrics: int = 6


def clustered_loop(q: Question, replicates: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    ordered = np.argsort(q.patient, kind="stable")
    rows_of = np.split(ordered, np.cumsum(np.bincount(q.patient))[:-1])
    n = len(rows_of)
    drawn = (np.concatenate([rows_of[p] for p in rng.integers(0, n, n)]) for _ in range(replicates))
    return np.quantile([six_of(q, rows) for rows in drawn], (0.025, 0.975), axis=0)


def scipy_percentile(q: Question, replicates: int) -> object:
    return _scipy(q, replicates, "percentile")


def scipy_bca(q: Question, replicates: int) -> object:
    return _scipy(q, replicates, "BCa")


def torchmetrics_bootstrapper(q: Question, replicates: int) -> list[dict[str, torch.Tensor]]:
    truth, predicted, score = (torch.from_numpy(a) for a in (q.truth, q.predicted, q.score))
    found = []
    for metric, answer in (
        (classification.BinaryAUROC(), score),
        (classification.BinaryRecall(), predicted),
        (classification.BinarySpecificity(), predicted),
        (classification.BinaryPrecision(), predicted),
        (classification.BinaryNegativePredictiveValue(), predicted),
        (classification.BinaryAccuracy(), predicted),
    ):
        wrapped = BootStrapper(
            metric,
            num_bootstraps=replicates,
            quantile=torch.tensor([0.025, 0.975], dtype=torch.float32),
            sampling_strategy="multinomial",
        )
        wrapped.update(answer, truth)
        found.append(wrapped.compute())
    return found


def confidenceinterval_percentile(q: Question, replicates: int) -> list[object]:
    how = {"method": "bootstrap_percentile", "n_resamples": replicates}
    found = [confidenceinterval.roc_auc_score(q.truth, q.score, **how)]
    for metric in ("tpr_score", "tnr_score", "ppv_score", "npv_score", "accuracy_score"):
        found.append(getattr(confidenceinterval, metric)(q.truth, q.predicted, **how))
    return found


def mlstatkit(q: Question, replicates: int) -> list[object]:
    # It takes the scores and cuts them at .5; recall and precision are means over both classes.
    with redirect_stderr(io.StringIO()):  # its progress bars
        return [
            Bootstrapping(q.truth, q.score, metric_str=metric, n_bootstraps=replicates)
            for metric in ("roc_auc", "recall", "precision", "accuracy")
        ]


PEERS = (
    Peer(f"scikit-learn {version('scikit-learn')}, loop over patients", clustered_loop, "yes"),
    Peer(f"scipy {version('scipy')}, percentile", scipy_percentile),
    Peer(f"scipy {version('scipy')}, BCa", scipy_bca),
    Peer(f"torchmetrics {version('torchmetrics')}, BootStrapper", torchmetrics_bootstrapper),
    Peer(f"confidenceinterval {version('confidenceinterval')}, percentile", confidenceinterval_percentile),
    Peer(f"MLstatkit {version('MLstatkit')}, percentile", mlstatkit, metrics=4),
)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with threadpool_limits(limits=1):
        for rows, patients in SIZES:
            compare(simulated(rows, patients, 2), timed=200 if rows <= 1000 else 5 if rows < 100_000 else 2)
        compare(simulated(FIVE, 945, 5), timed=2)
        show_faults()


def compare(sample: Sample, timed: int) -> None:
    """Print a line for us and for each peer; of more than two classes each is held against the rest."""
    classes = len(sample.classes)
    questions = [question_of(sample, i) for i in ([1] if classes == 2 else range(classes))]
    ours = seconds(core, sample, 3)
    n = len(sample.truth)
    asked = "one question" if classes == 2 else f"{classes} classes, each against the rest"
    print(f"\n{n:,} rows, {sample.n_patients} patients, {asked}, {REPLICATES:,} replicates, CPU seconds")
    print(f"{'':48}{'seconds':>10}{'ratio':>8}  {'patients':8}  {'metrics':7}  timed on replicates")
    print(f"{'ours, BCa and percentile':48}{ours:10.3f}{1:8}  {'yes':8}  {6:<7}  all")
    for peer in PEERS:
        if peer.run is scipy_bca and n**2 * 8 > MOST_BYTES:
            print(
                f"{peer.name:48}{'skipped':>10}{'':8}  {peer.patients:8}  {peer.metrics:<7}  "
                f"needs {n**2 * 8 / 1e9:,.0f} GB to leave out each row in turn"
            )
            continue
        spent = sum(extrapolated(peer, q, timed) for q in questions)
        print(
            f"{peer.name:48}{spent:10.1f}{spent / ours:8.0f}  {peer.patients:8}  {peer.metrics:<7}  {timed} and {2 * timed}",
            flush=True,
        )


def extrapolated(peer: Peer, question: Question, timed: int) -> float:
    """Return the CPU seconds of all replicates, from few and twice as many: what is done once counts once."""
    spent = []
    for replicates in (timed, 2 * timed):
        start = time.process_time()
        peer.run(question, replicates)
        spent.append(time.process_time() - start)
    each = max(0.0, spent[1] - spent[0]) / timed
    return spent[1] + each * (REPLICATES - 2 * timed)


def question_of(sample: Sample, i: int) -> Question:
    return Question(
        truth=(sample.truth == i).astype(np.int64),
        predicted=(sample.predicted == i).astype(np.int64),
        score=np.ascontiguousarray(sample.probabilities[:, i]),
        patient=sample.patient,
    )


def six_of(q: Question, rows: np.ndarray) -> np.ndarray:
    """Return the six metrics of some rows by scikit-learn; NaN where a denominator is 0."""
    truth, predicted = q.truth[rows], q.predicted[rows]
    (tn, fp), (fn, tp) = confusion_matrix(truth, predicted, labels=[0, 1])
    auc = roc_auc_score(truth, q.score[rows]) if tp + fn and tn + fp else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.array([tp, tn, tp, tn, tp + tn]) / np.array(
            [tp + fn, tn + fp, tp + fp, tn + fn, len(rows)]
        )
    return np.array([auc, *shares])


def _scipy(q: Question, replicates: int, method: str) -> object:
    rows = np.arange(len(q.truth))
    found = bootstrap(
        (rows,), lambda i: six_of(q, i), n_resamples=replicates, vectorized=False, method=method, rng=0
    )
    return found.confidence_interval


def show_faults() -> None:
    """Print what each peer answers where the right answer is known, and ours beside it."""
    # Three of thirty patients are positive: 4 % of the resamples hold no positive and have no AUC.
    truth = np.zeros(30, dtype=np.int64)
    truth[[3, 12, 21]] = 1
    score = np.linspace(0.05, 0.95, 30)[np.random.default_rng(4).permutation(30)]
    score[truth == 1] = (0.62, 0.83, 0.97)
    few = Question(truth, (score >= 0.5).astype(np.int64), score, np.arange(30))
    right = core(sample_of(few))[0]["auc"]
    print(f"\nknown faults\n30 rows of 30 patients, 3 positive: AUC {roc_auc_score(truth, score):.3f}")
    intervals = ", ".join(f"{i.method} {i.low:.3f} to {i.high:.3f}" for i in right.intervals)
    print(
        f"  ours: {intervals}; {right.undefined} of {REPLICATES} replicates undefined, counted and left out"
    )
    torch.manual_seed(0)
    wrapped = BootStrapper(
        classification.BinaryAUROC(), num_bootstraps=REPLICATES, raw=True, sampling_strategy="multinomial"
    )
    wrapped.update(torch.from_numpy(score), torch.from_numpy(truth))
    raw = wrapped.compute()["raw"].numpy()
    low, high = np.quantile(raw, (0.025, 0.975))
    print(
        f"  torchmetrics: {low:.3f} to {high:.3f}; {(raw == 0).sum()} replicates without a positive scored as AUC 0"
    )
    found = _scipy(few, REPLICATES, "percentile")
    print(f"  scipy, NaN where undefined: {found.low[0]:.3f} to {found.high[0]:.3f}")

    # Twenty of twenty positives found, one a patient.
    sure = Question(np.repeat([1, 0], 20), np.repeat([1, 0], 20), np.repeat([0.9, 0.1], 20), np.arange(40))
    _, limits = confidenceinterval.tpr_score(
        sure.truth, sure.predicted, method="bootstrap_percentile", n_resamples=REPLICATES
    )
    wilson = wilson_clustered(np.repeat([1.0, 0.0], 20), np.repeat([1.0, 0.0], 20), 0.95)
    bootstrapped = core(sample_of(sure))[0]["sensitivity"]
    print("sensitivity 20 of 20, one row a patient (exact: 0.832 to 1)")
    print(
        f"  ours: {wilson.method} {wilson.low:.3f} to {wilson.high:.3f}; no bootstrap: {bootstrapped.problem}"
    )
    print(f"  confidenceinterval, bootstrap: {limits[0]:.3f} to {limits[1]:.3f}")

    # Every row ten times over, as if each patient had ten images that are all alike.
    one = simulated(200, 200, 2)
    rows = np.repeat(np.arange(200), 10)
    q = question_of(one, 1)
    ten = Question(q.truth[rows], q.predicted[rows], q.score[rows], q.patient[rows])
    print("AUC of 200 patients with one image, and with that image ten times over (no more is known)")
    widths: dict[str, list[float]] = {"ours": [], "confidenceinterval, DeLong": []}
    for asked in (q, ten):
        interval = core(sample_of(asked))[0]["auc"].intervals[0]
        widths["ours"].append(interval.high - interval.low)
        _, (low, high) = confidenceinterval.roc_auc_score(asked.truth, asked.score)
        widths["confidenceinterval, DeLong"].append(high - low)
    for name, (once, tenfold) in widths.items():
        print(f"  {name}: width {once:.3f}, then {tenfold:.3f}")


def sample_of(q: Question) -> Sample:
    return Sample(
        unit="case",
        classes=["no", "yes"],
        patient=q.patient,
        truth=q.truth,
        predicted=q.predicted,
        probabilities=np.stack([1 - q.score, q.score], axis=1),
        n_patients=int(q.patient.max()) + 1,
        n_cases=len(q.truth),
    )


if __name__ == "__main__":
    main()
