"""The training loop against a plain one, and against hand counts."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little_samples import CLASSES, Points, network, points
from torch import nn

from marrowflow.config import Head, Training
from marrowflow.errors import UserError
from marrowflow.learning import loop
from marrowflow.learning.batches import balanced, shuffled
from marrowflow.learning.checkpoint import Checkpoint, fingerprint
from marrowflow.learning.loop import Fit, fit
from marrowflow.learning.outcomes import Outcomes


def trained(
    tmp_path: Path,
    module: nn.Module,
    train: Points,
    validation: Points | None,
    **training: Any,
) -> Fit:
    checkpoint = Checkpoint(tmp_path, fingerprint({"test": str(training)}))
    return fit(module, train, validation, Outcomes(CLASSES), Training(**training), 0, checkpoint)


@pytest.mark.parametrize(("smoothing", "weighting"), [(0.0, "none"), (0.1, "balanced")])
def test_history_is_that_of_a_plain_loop(tmp_path: Path, smoothing: float, weighting: str) -> None:
    train, validation = points(40, 1), points(15, 2)
    epochs, rate = 5, 0.05
    ours = trained(
        tmp_path,
        network(),
        train,
        validation,
        epochs=epochs,
        rate=rate,
        batch_size=8,
        optimiser="sgd",
        schedule="cosine",
        weight_decay=0.01,
        label_smoothing=smoothing,
        class_weights=weighting,
        patience=None,
        seed=7,
    ).history

    plain = network()
    counts = torch.bincount(train.targets)
    weights = 40 / (3 * counts.float()) if weighting == "balanced" else torch.ones(3)
    criterion = nn.CrossEntropyLoss(weights, label_smoothing=smoothing)
    optimiser = torch.optim.SGD(plain.parameters(), lr=rate, momentum=0.9, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs)
    for epoch in range(epochs):
        order = np.random.default_rng([7, 0, epoch + 1]).permutation(40)
        right = 0
        for start in range(0, 40, 8):
            chosen = torch.from_numpy(order[start : start + 8])
            logits = plain(train.inputs[chosen])
            right += int((logits.argmax(1) == train.targets[chosen]).sum())
            optimiser.zero_grad()
            criterion(logits, train.targets[chosen]).backward()
            optimiser.step()
        with torch.no_grad():
            answers = plain(validation.inputs)
        assert ours[epoch]["epoch"] == epoch + 1
        assert ours[epoch]["rate"] == pytest.approx(scheduler.get_last_lr()[0])
        assert ours[epoch]["train_accuracy"] == right / 40
        assert ours[epoch]["validation_loss"] == pytest.approx(
            float(criterion(answers, validation.targets)), rel=1e-5
        )
        assert ours[epoch]["validation_accuracy"] == int((answers.argmax(1) == validation.targets).sum()) / 15
        scheduler.step()


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "radam", "sgd"])
def test_every_optimiser_learns(tmp_path: Path, optimiser: str) -> None:
    history = trained(
        tmp_path,
        network(),
        points(60, 1),
        points(20, 2),
        epochs=12,
        rate=0.03,
        optimiser=optimiser,
        batch_size=10,
    ).history
    assert history[-1]["validation_loss"] < history[0]["validation_loss"]


def test_the_best_epoch_is_kept_and_patience_counts_from_it(tmp_path: Path) -> None:
    # Validation answers are the wrong ones: every step makes the validation loss worse, so the first is best.
    train = points(40, 1)
    wrong = Points(train.inputs, (train.targets + 1) % len(CLASSES))
    module = network()
    outcome = trained(tmp_path, module, train, wrong, epochs=20, rate=0.05, patience=3, batch_size=8)
    assert outcome.best_epoch == 1
    assert len(outcome.history) == 4
    once = network()
    trained(tmp_path, once, train, wrong, epochs=1, rate=0.05, patience=3, batch_size=8)
    assert torch.equal(module.weight, once.weight)


def test_without_validation_the_last_epoch_counts(tmp_path: Path) -> None:
    outcome = trained(tmp_path, network(), points(20, 1), None, epochs=4, patience=1)
    assert (outcome.best_epoch, len(outcome.history)) == (4, 4)
    assert outcome.history[0]["validation_loss"] is None


def test_a_class_absent_from_validation_leaves_a_finite_loss(tmp_path: Path) -> None:
    validation = points(10, 2)
    only_two = Points(validation.inputs, validation.targets % 2)
    history = trained(
        tmp_path, network(), points(30, 1), only_two, epochs=2, class_weights="balanced"
    ).history
    assert all(math.isfinite(row["validation_loss"]) for row in history)


def test_one_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2"):
        trained(tmp_path, network(), points(1, 1), None, epochs=2)


def test_resuming_after_any_epoch_repeats_the_unbroken_run(tmp_path: Path) -> None:
    train, validation = points(40, 1), points(15, 2)
    training = Training(epochs=6, batch_size=8, rate=0.02, patience=None)

    def module() -> nn.Module:
        first = network()
        return nn.Sequential(nn.Dropout(0.3), first)

    whole = module()
    unbroken = fit(
        whole, train, validation, Outcomes(CLASSES), training, 0, Checkpoint(tmp_path / "a", "a" * 64)
    )

    class Killed(Exception):
        pass

    class KilledAfterThree(Checkpoint):
        saved = 0

        def save(self, name: str, state: Any) -> None:
            super().save(name, state)
            self.saved += 1
            if self.saved == 3:
                raise Killed

    with pytest.raises(Killed):
        fit(
            module(),
            train,
            validation,
            Outcomes(CLASSES),
            training,
            0,
            KilledAfterThree(tmp_path / "b", "b" * 64),
        )
    again = module()
    resumed = fit(
        again, train, validation, Outcomes(CLASSES), training, 0, Checkpoint(tmp_path / "b", "b" * 64)
    )
    assert resumed == unbroken
    assert (unbroken.resumed, resumed.resumed) == (0, 1)
    assert unbroken.images == resumed.images == 6 * 40
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_state_of_another_fingerprint_is_not_read_and_success_deletes_it(tmp_path: Path) -> None:
    old = Checkpoint(tmp_path, fingerprint({"rate": 1, "swapped": 2}))
    old.save("training", {"x": 1})
    new = Checkpoint(tmp_path, fingerprint({"rate": 2, "swapped": 1}))
    assert new.load("training", torch.device("cpu")) is None
    (tmp_path / "a_users_file").mkdir()
    new.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a_users_file"]


def test_a_state_keeps_what_the_parts_before_it_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of seconds that each reading moves on by one: an epoch reads it at its start and its end."""
    seconds = iter(range(1000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(seconds)))
    train, checkpoint = points(40, 1), Checkpoint(tmp_path, "a" * 64)

    def fitted(epochs: int) -> Fit:
        return fit(
            network(), train, None, Outcomes(CLASSES), Training(epochs=epochs, patience=None), 0, checkpoint
        )

    assert fitted(2).device_seconds == 2
    further = fitted(5)
    assert (further.device_seconds, further.images, further.resumed) == (5, 200, 1)
    assert further.peak_memory_mb is None


def test_networks_of_one_job_keep_their_states_apart(tmp_path: Path) -> None:
    train, checkpoint = points(40, 1), Checkpoint(tmp_path, "a" * 64)
    training = Training(epochs=2, batch_size=8)
    for outcomes in Outcomes(CLASSES, "one_vs_rest").networks():
        module = network(1)
        outcome = fit(module, train, None, outcomes, training, 0, checkpoint, name=outcomes.positive_class)
        assert outcome.resumed == 0
        alone = network(1)
        fit(
            alone,
            train,
            None,
            outcomes,
            training,
            0,
            Checkpoint(tmp_path / outcomes.positive_class, "b" * 64),
        )
        assert torch.equal(module.weight, alone.weight)
        again = network(1)
        outcome = fit(again, train, None, outcomes, training, 0, checkpoint, name=outcomes.positive_class)
        assert outcome.resumed == 1
        assert torch.equal(again.weight, module.weight)


def test_one_class_against_the_rest_and_two_heads_learn(tmp_path: Path) -> None:
    train, validation = points(200, 1), points(60, 2)
    heads = {"mds": Head(weight=0.5, positive=["MDS"]), "diagnosis": Head(weight=0.5)}
    for outcomes in (Outcomes(CLASSES, "one_vs_rest").networks()[2], Outcomes(CLASSES, heads=heads)):
        training = Training(epochs=25, batch_size=20, rate=0.03, batches="balanced")
        module = network(outcomes.outputs)
        history = fit(
            module, train, validation, outcomes, training, 0, Checkpoint(tmp_path, "a" * 64), name=str(heads)
        ).history
        (tmp_path / ("a" * 64) / f"{heads}.pt").unlink()
        assert max(row["validation_accuracy"] for row in history) > 0.75
        with torch.no_grad():
            logits = module(validation.inputs)
        by_hand = logits[:, 0] > 0 if outcomes.positive_class else logits[:, :3].argmax(1)
        truth = validation.targets == 2 if outcomes.positive_class else validation.targets
        best = min(history, key=lambda row: row["validation_loss"])
        assert best["validation_accuracy"] == pytest.approx(float((by_hand == truth).double().mean()))


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 1),
    batch=st.integers(1, 20),
    key=st.integers(0, 1000),
)
def test_balanced_batches_hold_the_classes_in_equal_numbers(sizes: list[int], batch: int, key: int) -> None:
    groups = np.random.default_rng(key).permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    chunks = balanced(groups, batch, (key, 0, 1))
    assert list(map(len, chunks)) == list(map(len, shuffled(len(groups), batch, (key, 0, 1))))
    for chunk in chunks:
        held = [int((groups[chunk] == group).sum()) for group in np.unique(groups)]
        assert max(held) - min(held) <= 1
    drawn = np.concatenate(chunks)
    per_class = [int((groups[drawn] == group).sum()) for group in np.unique(groups)]
    assert max(per_class) - min(per_class) <= 1  # the odd places go round
    for group in np.unique(groups):
        times = np.bincount(drawn[groups[drawn] == group], minlength=len(groups))[groups == group]
        assert times.max() - times.min() <= 1  # each once before any twice


def test_balanced_batches_change_from_epoch_to_epoch_and_repeat_by_key() -> None:
    groups = np.array([0] * 40 + [1] * 6)
    epochs = {tuple(np.concatenate(balanced(groups, 8, (0, 0, epoch)))) for epoch in (1, 2, 1, 2)}
    assert len(epochs) == 2
    seen = {i for epoch in range(12) for i in np.concatenate(balanced(groups, 8, (0, 0, epoch)))}
    assert seen == set(range(46))  # what one epoch leaves out, another draws


@pytest.mark.parametrize(("asked", "share"), [("", 1 / 3), ("AML", 1 / 2)])
def test_balanced_batches_reach_the_network(tmp_path: Path, asked: str, share: float) -> None:
    """By class; one class against the rest: as many of it as of all others together."""
    train = Points(points(60, 1).inputs, torch.tensor([0] * 36 + [1] * 18 + [2] * 6))
    outcomes = Outcomes(CLASSES, "one_vs_rest", positive_class=asked) if asked else Outcomes(CLASSES)
    held: list[float] = []

    class Noting(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            drawn = [int(train.targets[(train.inputs == row).all(dim=1)][0]) for row in x]
            held.append(drawn.count(2) / len(drawn))
            return super().forward(x)

    training = Training(epochs=1, batch_size=12, batches="balanced")
    fit(Noting(5, outcomes.outputs), train, None, outcomes, training, 0, Checkpoint(tmp_path, "a" * 64))
    assert held == pytest.approx([share] * 5)
