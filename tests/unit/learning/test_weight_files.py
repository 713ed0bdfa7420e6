"""Files of weights: what is read of them, what is refused, what is written."""

import argparse
import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from marrowflow.errors import UserError
from marrowflow.learning.weight_files import read_metadata, read_weights, write_weights


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (ran,)

    torch.save({"a": Payload()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "bad.pth")
    assert not ran.exists()


@pytest.mark.parametrize("key", ["state_dict", "model", "teacher", "student"])
def test_tensors_one_level_down_are_found(tmp_path: Path, key: str) -> None:
    arguments = argparse.Namespace(rate=0.1)
    torch.save({"epoch": 3, "args": arguments, key: {"a": torch.ones(2)}}, tmp_path / "training.pth")
    assert {name: t.tolist() for name, t in read_weights(tmp_path / "training.pth").items()} == {"a": [1, 1]}


def test_the_teacher_is_taken_before_its_student(tmp_path: Path) -> None:
    both = {"student": {"a": torch.zeros(1)}, "teacher": {"a": torch.ones(1)}}
    torch.save(both, tmp_path / "both.pth")
    assert read_weights(tmp_path / "both.pth")["a"].tolist() == [1]


@pytest.mark.parametrize(
    "content",
    [
        {"weights": {"a": torch.zeros(1)}},
        {"a": torch.zeros(1), "epoch": 3},
        {"model": {"a": [1.0]}},
        torch.zeros(1),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds no tensors by name"):
        read_weights(tmp_path / "other.pth")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "cut.safetensors")


def test_half_precision_becomes_float32_and_counters_stay(tmp_path: Path) -> None:
    torch.save({"w": torch.tensor([0.5, 2.0]).half(), "n": torch.tensor(7)}, tmp_path / "half.pth")
    state = read_weights(tmp_path / "half.pth")
    assert state["w"].tolist() == [0.5, 2.0]
    assert (state["w"].dtype, state["n"].dtype) == (torch.float32, torch.int64)


def test_equal_contents_give_equal_bytes_that_all_may_read(tmp_path: Path) -> None:
    image_like = torch.arange(24.0).view(1, 2, 3, 4)
    state = {"b": torch.ones(2), "a": image_like.contiguous(memory_format=torch.channels_last)}
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    write_weights(first, state, {"x": 1, "y": 2, "z": [3]})
    write_weights(second, dict(reversed(state.items())), json.loads('{"z": [3], "y": 2, "x": 1}'))
    assert first.read_bytes() == second.read_bytes()
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(first.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    np.testing.assert_array_equal(read_weights(first)["a"].numpy().ravel(), np.arange(24))
    assert read_metadata(first) == {"x": 1, "y": 2, "z": [3]}
