"""Epochs that go wrong: out of memory, a loss that is no number, no compiler, no room for the state."""

import logging
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from little_samples import CLASSES, Points, network, points
from torch import nn

from marrowflow.config import Head, Training
from marrowflow.errors import UserError
from marrowflow.learning import epoch, faults
from marrowflow.learning.checkpoint import Checkpoint
from marrowflow.learning.loop import Fit, fit
from marrowflow.learning.outcomes import Outcomes

TRAINING = Training(
    epochs=3, batch_size=13, rate=0.01, class_weights="balanced", label_smoothing=0.1, patience=None
)

ALL_CLASSES = Outcomes(CLASSES)


class Small(nn.Module):
    """A network on a device that holds at most ``most`` images, from the given call of a training on."""

    def __init__(self, inner: nn.Module, most: int, after: int = 0) -> None:
        super().__init__()
        self.inner, self.most, self.after = inner, most, after
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if len(x) > self.most and self.calls > self.after:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def fitted(
    folder: Path,
    module: nn.Module,
    training: Training = TRAINING,
    outcomes: Outcomes = ALL_CLASSES,
    checkpoint: type[Checkpoint] = Checkpoint,
    train: Points | None = None,
    validation: Points | None = None,
) -> Fit:
    train = train or points(42, 1)
    validation = validation or points(15, 2)
    outcome = fit(module, train, validation, outcomes, training, 0, checkpoint(folder, "a" * 64))
    # Else the last epoch's weights, which tests compare, would not be those that are left in the network.
    assert outcome.best_epoch == training.epochs
    return outcome


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("most, expected", [(6, 6), (4, 3), (1, 1)])
def test_smaller_parts_end_with_the_weights_of_whole_batches(
    tmp_path: Path, optimiser: str, most: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    heads = {"mds": Head(weight=0.3, positive=["MDS"]), "diagnosis": Head(weight=0.7)}
    outcomes, training = (
        Outcomes(CLASSES, heads=heads),
        TRAINING.model_copy(update={"optimiser": optimiser}),
    )
    plain = network(4)
    whole = fitted(tmp_path / "whole", plain, training, outcomes)
    # The third batch is the first that does not fit: two steps must be undone.
    small = Small(network(4), most, after=2)
    with caplog.at_level(logging.WARNING):
        parts = fitted(tmp_path / "parts", small, training, outcomes)
    assert (whole.micro_batch, parts.micro_batch) == (None, expected)
    assert "Batch normalisation" in caplog.text
    torch.testing.assert_close(small.inner.weight, plain.weight)
    for ours, theirs in zip(parts.history, whole.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert parts.images == whole.images


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_an_epoch_can_begin_anew_twice(tmp_path: Path, optimiser: str) -> None:
    """The steps of the second attempt must be undone as well as those of the first."""

    class Shrinking(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # 4 batches and 2 of validation in the first epoch, 2 batches in the second; then some parts of 6 and less fit.
            self.most = 99 if self.calls < 8 else 6 if self.calls < 14 else 3
            return super().forward(x)

    training = TRAINING.model_copy(update={"optimiser": optimiser})
    plain, small = network(), Shrinking(network(), 99)
    fitted(tmp_path / "whole", plain, training)
    assert fitted(tmp_path / "parts", small, training).micro_batch == 3
    torch.testing.assert_close(small.inner.weight, plain.weight)


def test_an_epoch_begun_anew_is_that_of_a_run_that_began_with_it(tmp_path: Path) -> None:
    """With dropout and batch normalisation, whose state must go back too, and Adam's."""

    def module(most: int, after: int) -> Small:
        return Small(nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.4), network()), most, after)

    # Four batches and two of validation an epoch: the late one runs out of memory in the third batch of the second epoch.
    late, early = module(6, after=8), module(6, after=0)
    first = fitted(tmp_path / "late", late)
    assert first.micro_batch == 6

    class FromEpochTwo(Checkpoint):
        """What a run that has always had small parts would take over after the first epoch of the late one."""

        def load(self, name: str, device: torch.device) -> dict[str, Any] | None:
            whole = module(99, after=0)
            fitted(tmp_path / "one", whole, TRAINING.model_copy(update={"epochs": 1}))
            state = Checkpoint(tmp_path / "one", "a" * 64).load(name, device)
            assert state is not None
            return state | {"micro_batch": 6, "validation_batch": 6}

    second = fitted(tmp_path / "early", early, checkpoint=FromEpochTwo)
    assert [row["train_loss"] for row in second.history] == [row["train_loss"] for row in first.history]
    for name, tensor in early.inner.state_dict().items():
        assert torch.equal(tensor, late.inner.state_dict()[name]), name


def test_a_resumed_run_goes_on_with_the_smaller_parts(tmp_path: Path) -> None:
    unbroken = network()
    expected = fitted(tmp_path / "unbroken", Small(unbroken, 4))

    class Killed(Exception):
        pass

    class KilledAfterOne(Checkpoint):
        def save(self, name: str, state: Any) -> None:
            super().save(name, state)
            raise Killed

    with pytest.raises(Killed):
        fitted(tmp_path / "killed", Small(network(), 4), checkpoint=KilledAfterOne)
    resumed = Small(network(), 99)  # there is room again: the parts stay as they were
    assert fitted(tmp_path / "killed", resumed) == expected
    assert expected.micro_batch == 3
    assert torch.equal(resumed.inner.weight, unbroken.weight)


def test_validation_alone_out_of_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class SmallInValidation(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) if self.training else super().forward(x)

    plain = network()
    whole = fitted(tmp_path / "whole", plain)
    small = SmallInValidation(network(), 4)
    with caplog.at_level(logging.WARNING):
        parts = fitted(tmp_path / "parts", small)
    assert torch.equal(small.inner.weight, plain.weight)
    assert parts.micro_batch is None
    assert caplog.text.count("in validation") == 2  # 13, 6, 3: and never again
    for ours, theirs in zip(parts.history, whole.history, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_one_image_that_does_not_fit_is_an_error_with_remedies(tmp_path: Path, training: bool) -> None:
    class Full(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if self.training == training else self.inner(x)

    with pytest.raises(UserError, match=r"fold 0 epoch 1.*input_size lower") as error:
        fitted(tmp_path, Full(network(), 0))
    assert "bfloat16" in str(error.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    class Broken(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fitted(tmp_path, Broken(5, 3))


def spoilt(n: int, number: int, value: float) -> Points:
    clean = points(n, 1)
    inputs = clean.inputs.clone()
    inputs[number, 2] = value
    return Points(inputs, clean.targets)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_images_of_the_first_bad_batch_are_named(tmp_path: Path, value: float) -> None:
    order = np.random.default_rng([TRAINING.seed, 0, 1]).permutation(42)
    third = order[26:39]
    with pytest.raises(UserError, match=r"training\.rate lower") as error:
        fitted(tmp_path, network(), train=spoilt(42, int(third[4]), value))
    message = str(error.value)
    assert "fold 0 epoch 1, training batch 3 of 4" in message
    assert sorted(f"a/{i:03}.png" for i in third) == sorted(
        line.strip(" -") for line in message.splitlines()[1:]
    )
    assert "rate 0.01" in message and "float32" in message and "batch_size 13" in message


def test_images_are_named_in_validation_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="epoch 1, validation batch 2 of 2") as error:
        fitted(tmp_path, network(), validation=spoilt(15, 14, float("nan")))
    assert [line.strip(" -") for line in str(error.value).splitlines()[1:]] == ["a/013.png", "a/014.png"]
    assert not list(tmp_path.rglob("*.pt"))  # nothing to go on from is kept of such an epoch


def test_a_bad_batch_is_noticed_before_the_end_of_a_long_epoch(tmp_path: Path) -> None:
    counted = Small(network(), 99)
    long = TRAINING.model_copy(update={"batch_size": 2})
    bad = int(np.random.default_rng([TRAINING.seed, 0, 1]).permutation(400)[10])
    with pytest.raises(UserError, match="training batch 6 of 200"):
        fitted(tmp_path, counted, long, train=spoilt(400, bad, float("nan")))
    assert counted.calls == epoch.LOOK_EVERY


def torn(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])


def zeroed(path: Path, content: bytes) -> None:
    """As some file systems leave a file after a power cut."""
    path.write_bytes(bytes(len(content)))


def emptied(path: Path, content: bytes) -> None:
    path.write_bytes(b"")


def foreign(path: Path, content: bytes) -> None:
    path.write_bytes(b"not a state\n")


@pytest.mark.parametrize("damage", [torn, zeroed, emptied, foreign])
def test_a_damaged_state_is_passed_over_with_a_warning(
    tmp_path: Path, damage: Callable[[Path, bytes], None], caplog: pytest.LogCaptureFixture
) -> None:
    whole = network()
    expected = fitted(tmp_path, whole)
    kept = next(tmp_path.rglob("training.pt"))
    damage(kept, kept.read_bytes())
    again = network()
    with caplog.at_level(logging.WARNING):
        assert fitted(tmp_path, again) == expected
    assert "damaged" in caplog.text and str(kept) in caplog.text
    assert torch.equal(whole.weight, again.weight)


def test_a_state_that_does_not_fit_the_disk_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    """The process's largest file stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match=r"training\.pt.*make room"):
            fitted(tmp_path, network())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.fixture
def compiler() -> None:
    """A C++ compiler, and no network compiled in this process. Kernels of earlier runs of the tests may be used."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU, and there is none here")
    torch.compiler.reset()


def test_a_compiled_training_learns_the_same_and_resumes(tmp_path: Path, compiler: None) -> None:
    compiled = TRAINING.model_copy(update={"compile": True, "epochs": 2, "schedule": "constant"})
    plain, ours = network(), network()
    train = points(26, 1)  # two batches of one size: each size takes seconds to compile
    expected = fitted(tmp_path / "plain", plain, compiled.model_copy(update={"compile": False}), train=train)
    outcome = fitted(tmp_path / "compiled", ours, compiled, train=train)
    torch.testing.assert_close(ours.weight, plain.weight)
    assert outcome.best_epoch == expected.best_epoch
    state = Checkpoint(tmp_path / "compiled", "a" * 64).load("training", torch.device("cpu"))
    assert state is not None
    assert list(state["best"]) == ["weight", "bias"]  # a compiled module would call them _orig_mod.weight
    fitted(tmp_path / "parts", network(), compiled.model_copy(update={"epochs": 1}), train=train)
    resumed = network()
    assert fitted(tmp_path / "parts", resumed, compiled, train=train) == outcome
    assert torch.equal(resumed.weight, ours.weight)


def test_without_a_compiler_the_run_stops(
    tmp_path: Path, compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    with pytest.raises(UserError, match=r"No working C\+\+ compiler.*compile: false"):
        fitted(tmp_path, network(), TRAINING.model_copy(update={"compile": True}))


def test_too_little_memory_tells_who_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program on the GPU is the usual reason for a network that fitted yesterday."""
    gigabyte = 10**9
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 * gigabyte, 80 * gigabyte))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 9 * gigabyte)
    told = r"of its 80\.0 GB this job holds 9\.0 GB, other programs and the driver 70\.0 GB; nvidia-smi"
    with pytest.raises(UserError, match=told):
        faults.halved(1, "epoch 1")
    with pytest.raises(UserError, match=told), faults.within_memory("features", 8):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def dead() -> tuple[int, int]:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "mem_get_info", dead)
    with pytest.raises(UserError, match="a single image; set the model's input_size"):
        faults.halved(1, "epoch 1")
