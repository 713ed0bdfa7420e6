"""One GPU a job: real processes on lock files, and the choice of a device by hand-made GPUs."""

import logging
import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from marrowflow.learning import device
from marrowflow.learning.device import claim

# Forked, because a fresh interpreter takes seconds to import torch; a lock belongs to the process all the same.
PROCESSES = multiprocessing.get_context("fork")
NAMES = ["gpu_a", "gpu_b"]


def _hold(names: list[str], folder: Path, said: Connection) -> None:
    said.send(claim(names, folder))
    time.sleep(60)


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], tuple[Any, Connection]]]:
    """Start a process that claims one of `NAMES` and keeps it; it sends the name once it has it."""
    monkeypatch.setattr(device, "_LOOK_EVERY", 0.02)
    started: list[Any] = []

    def start() -> tuple[Any, Connection]:
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=_hold, args=(NAMES, tmp_path, theirs), daemon=True)
        process.start()
        started.append(process)
        return process, ours

    yield start
    for process in started:
        process.kill()
        process.join()


def received(connection: Connection) -> str:
    assert connection.poll(20), "no process claimed a name"
    return str(connection.recv())


def test_each_process_gets_one_of_its_own_and_the_next_waits_for_a_killed_one(hold: Any) -> None:
    (_, first), (second_process, second) = hold(), hold()
    taken = received(first), received(second)
    assert sorted(taken) == NAMES
    _, third = hold()
    assert not third.poll(0.5)  # both are taken: it waits
    os.kill(second_process.pid, signal.SIGKILL)
    assert received(third) == taken[1]


def test_waiting_is_said_once(
    hold: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    holders = [hold(), hold()]
    names = [received(connection) for _, connection in holders]
    looks = 0

    def look(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            holders[0][0].kill()
            holders[0][0].join()

    monkeypatch.setattr(device, "time", SimpleNamespace(sleep=look))
    with caplog.at_level(logging.INFO):
        assert claim(NAMES, tmp_path) == names[0]
    assert looks == 3
    assert len(caplog.records) == 1
    assert "other jobs have gpu_a and gpu_b" in caplog.text


def test_locks_can_be_used_by_all_users_whatever_the_mask_of_the_first(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        claim(["gpu"], tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "marrowflow-gpu.lock").stat().st_mode) & 0o444 == 0o444


def test_a_started_program_does_not_keep_the_lock(tmp_path: Path, hold: Any) -> None:
    """A job's child that outlives it must not keep its GPU."""

    def job() -> None:
        claim(NAMES[:1], tmp_path)
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "3")
        os.kill(os.getpid(), signal.SIGKILL)

    process = PROCESSES.Process(target=job)
    process.start()
    process.join()
    _, connection = hold()
    started = time.monotonic()
    assert received(connection) == NAMES[0]
    assert time.monotonic() - started < 2


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """Let the device be found again, in the test and after it."""
    device._own_device.cache_clear()
    yield
    device._own_device.cache_clear()


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> list[Any]:
    """Pretend that this machine has the GPUs `NAMES`; return those that were made the current one."""
    current: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=NAMES[i]))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "pretended")
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv(device.TAKEN_GPU, "GPU of another machine")
    return current


def test_a_job_computes_on_the_gpu_that_it_took(hold: Any, two_gpus: list[Any]) -> None:
    assert received(hold()[1]) == "gpu_a"
    second = torch.device("cuda", 1)
    assert device._own_device() == second
    assert device._own_device() == second  # it does not wait for itself
    assert two_gpus == [second]
    # What it starts shares its GPU instead of waiting for it.
    device._own_device.cache_clear()
    assert device._own_device() == second


def test_without_a_gpu_the_cpu_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked_anew: None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO):
        assert device.choose_device(1) == device.choose_device(1) == torch.device("cpu")
    assert caplog.text.count("CPU") == 1
    assert torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def settings_put_back() -> Iterator[None]:
    """Put torch's settings, which hold for the process, back as they were."""
    cuda, threads = torch.backends.cuda, torch.get_num_threads()
    fused = cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()
    strict, only_warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    yield
    cuda.enable_flash_sdp(fused[0])
    cuda.enable_mem_efficient_sdp(fused[1])
    cuda.enable_cudnn_sdp(fused[2])
    torch.use_deterministic_algorithms(strict, warn_only=only_warns)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("kind", "fused"), [("cuda", False), ("cpu", True)])
def test_fused_attention_is_off_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, settings_put_back: None, kind: str, fused: bool
) -> None:
    cuda = torch.backends.cuda
    for switch in (cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_cudnn_sdp):
        switch(True)
    monkeypatch.setattr(device, "_own_device", lambda: torch.device(kind))
    assert device.choose_device(1).type == kind
    found = cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()
    assert found == (fused, fused, fused)
    assert cuda.math_sdp_enabled()  # what is left


def test_the_name_of_a_device_says_what_it_computes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Pretended {device.index}")
    assert device.device_name(torch.device("cuda", 1)) == "Pretended 1"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert device.device_name(torch.device("cpu")) == "cpu AVX512"
