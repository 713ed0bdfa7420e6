"""The training loop against a plain one, and against hand counts."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from marrowflow.config import Training
from marrowflow.errors import UserError
from marrowflow.learning.checkpoint import Checkpoint, fingerprint
from marrowflow.learning.loop import Fit, class_weights, fit
from marrowflow.learning.train import FeatureSamples

CLASSES = 3


def samples(n: int, seed: int) -> FeatureSamples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, CLASSES, (n,), generator=generator)
    features = torch.randn(n, 5, generator=generator) + targets[:, None]
    return FeatureSamples(features, targets)


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, CLASSES)


def trained(
    tmp_path: Path,
    module: nn.Module,
    train: FeatureSamples,
    validation: FeatureSamples | None,
    **training: Any,
) -> Fit:
    checkpoint = Checkpoint(tmp_path, fingerprint({"test": str(training)}))
    return fit(module, train, validation, CLASSES, Training(**training), 0, checkpoint)


@pytest.mark.parametrize(("smoothing", "weighting"), [(0.0, "none"), (0.1, "balanced")])
def test_history_is_that_of_a_plain_loop(tmp_path: Path, smoothing: float, weighting: str) -> None:
    train, validation = samples(40, 1), samples(15, 2)
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
            logits = plain(train.features[chosen])
            right += int((logits.argmax(1) == train.targets[chosen]).sum())
            optimiser.zero_grad()
            criterion(logits, train.targets[chosen]).backward()
            optimiser.step()
        with torch.no_grad():
            answers = plain(validation.features)
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
        samples(60, 1),
        samples(20, 2),
        epochs=12,
        rate=0.03,
        optimiser=optimiser,
        batch_size=10,
    ).history
    assert history[-1]["validation_loss"] < history[0]["validation_loss"]


def test_the_best_epoch_is_kept_and_patience_counts_from_it(tmp_path: Path) -> None:
    # Validation answers are the wrong ones: every step makes the validation loss worse, so the first is best.
    train = samples(40, 1)
    wrong = FeatureSamples(train.features, (train.targets + 1) % CLASSES)
    module = network()
    outcome = trained(tmp_path, module, train, wrong, epochs=20, rate=0.05, patience=3, batch_size=8)
    assert outcome.best_epoch == 1
    assert len(outcome.history) == 4
    once = network()
    trained(tmp_path, once, train, wrong, epochs=1, rate=0.05, patience=3, batch_size=8)
    assert torch.equal(module.weight, once.weight)


def test_without_validation_the_last_epoch_counts(tmp_path: Path) -> None:
    outcome = trained(tmp_path, network(), samples(20, 1), None, epochs=4, patience=1)
    assert (outcome.best_epoch, len(outcome.history)) == (4, 4)
    assert outcome.history[0]["validation_loss"] is None


def test_class_weights_by_hand() -> None:
    targets = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    # 8 samples, 2 classes present: 8 / (2 × 6) and 8 / (2 × 2); the absent class weighs 1.
    assert class_weights(targets, 3, "balanced").tolist() == pytest.approx([2 / 3, 2, 1])
    assert class_weights(targets, 3, "none").tolist() == [1, 1, 1]


def test_a_class_absent_from_validation_leaves_a_finite_loss(tmp_path: Path) -> None:
    validation = samples(10, 2)
    only_two = FeatureSamples(validation.features, validation.targets % 2)
    history = trained(
        tmp_path, network(), samples(30, 1), only_two, epochs=2, class_weights="balanced"
    ).history
    assert all(math.isfinite(row["validation_loss"]) for row in history)


def test_a_loss_that_is_no_number_stops_with_a_remedy(tmp_path: Path) -> None:
    train = samples(20, 1)
    broken = FeatureSamples(train.features * float("inf"), train.targets)
    with pytest.raises(UserError, match=r"training\.rate lower"):
        trained(tmp_path, network(), broken, None, epochs=2)
    with pytest.raises(UserError, match="at least 2"):
        trained(tmp_path, network(), samples(1, 1), None, epochs=2)


def test_resuming_after_any_epoch_repeats_the_unbroken_run(tmp_path: Path) -> None:
    train, validation = samples(40, 1), samples(15, 2)
    training = Training(epochs=6, batch_size=8, rate=0.02, patience=None)

    def module() -> nn.Module:
        first = network()
        return nn.Sequential(nn.Dropout(0.3), first)

    whole = module()
    unbroken = fit(whole, train, validation, CLASSES, training, 0, Checkpoint(tmp_path / "a", "a" * 64))

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
        fit(module(), train, validation, CLASSES, training, 0, KilledAfterThree(tmp_path / "b", "b" * 64))
    again = module()
    resumed = fit(again, train, validation, CLASSES, training, 0, Checkpoint(tmp_path / "b", "b" * 64))
    assert resumed == unbroken
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_state_of_another_fingerprint_is_not_read_and_success_deletes_it(tmp_path: Path) -> None:
    old = Checkpoint(tmp_path, fingerprint({"rate": 1, "swapped": 2}))
    old.save("training", {"x": 1})
    new = Checkpoint(tmp_path, fingerprint({"rate": 2, "swapped": 1}))
    assert new.load("training", torch.device("cpu")) is None
    (tmp_path / "a_users_file").mkdir()
    new.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a_users_file"]
