"""One GPU a job: real processes on lock files, and the choice of a device by hand-made GPUs."""

import logging
import multiprocessing
import os
import re
import signal
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from marrowflow.errors import UserError
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
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 1))
    monkeypatch.setattr(device, "_COMMON", tmp_path)
    monkeypatch.setattr(device, "_LOOK_EVERY", 0.02)
    monkeypatch.setenv(device.TAKEN_GPU, "GPU of another machine")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
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


def visible(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend that a process sees these GPUs only."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=names[i]))


def _compute(events: Path) -> None:
    """A job: take a GPU, note it, compute until three were taken and a moment, note the end, end with the lock held."""

    def note(text: str) -> None:
        with events.open("a") as file:  # at once, at the end of the file, whoever else writes
            file.write(text)

    index = device._own_device().index
    note(f"take {index}\n")
    until = time.monotonic() + 20
    while events.read_text().count("take") < 3 and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.05)
    note(f"leave {index}\n")
    os._exit(0)


def test_eight_jobs_on_three_gpus_never_share_one(
    tmp_path: Path, two_gpus: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    visible(monkeypatch, "gpu_a", "gpu_b", "gpu_c")
    events = tmp_path / "events"
    jobs = [PROCESSES.Process(target=_compute, args=(events,)) for _ in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
        assert job.exitcode == 0
    held: set[str] = set()
    most = taken = 0
    for line in events.read_text().splitlines():
        what, index = line.split()
        if what == "take":
            assert index not in held, "two jobs computed on one GPU"
            held.add(index)
            taken += 1
        else:
            held.remove(index)
        most = max(most, len(held))
    assert taken == 8
    assert most == 3  # and none stood idle while others waited


def _own(said: Connection) -> None:
    said.send(str(device._own_device()))
    time.sleep(60)


@contextmanager
def started_with(target: Callable[..., None]) -> Iterator[Callable[..., Connection]]:
    """Give what starts a process of ``target(*arguments, connection)`` and returns the connection; all end with the block."""
    started: list[Any] = []

    def start(*arguments: Any) -> Connection:
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=target, args=(*arguments, theirs), daemon=True)
        process.start()
        started.append(process)
        return ours

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def start_job() -> Iterator[Callable[[], Connection]]:
    """Start a process that takes a device as jobs do, and sends it once it has it."""
    with started_with(_own) as start:
        yield start


def test_a_job_of_an_allocation_takes_the_gpu_that_it_was_given(
    two_gpus: list[Any], start_job: Callable[[], Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every allocation of one GPU calls it number 0; its UUID tells it from the others'."""
    visible(monkeypatch, "gpu_a")
    assert received(start_job()) == "cuda:0"
    visible(monkeypatch, "gpu_b")
    assert received(start_job()) == "cuda:0"
    visible(monkeypatch, "gpu_a", "gpu_b")
    assert not start_job().poll(0.5)  # beside the batch system: both are taken


@pytest.mark.parametrize(
    ("first", "second"),
    [("MIG-1f5c", "MIG-2e6d"), ("MIG-GPU-63fe/3/0", "MIG-GPU-63fe/4/0")],
    ids=["by UUID", "as older drivers name them"],
)
def test_parts_of_one_gpu_are_taken_apart(
    two_gpus: list[Any],
    start_job: Callable[[], Connection],
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
) -> None:
    """CUDA may give each part the UUID of the whole."""
    visible(monkeypatch, "63fe")
    for part in (first, second):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", part)
        assert received(start_job()) == "cuda:0"
    assert not start_job().poll(0.5)  # the second part, again


def test_jobs_with_temporary_folders_of_their_own_meet_all_the_same(
    two_gpus: list[Any],
    start_job: Callable[[], Connection],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    visible(monkeypatch, "gpu_a")
    for number in range(2):
        own = tmp_path / str(number)
        own.mkdir()
        monkeypatch.setenv("TMPDIR", str(own))
        monkeypatch.setattr(device.tempfile, "tempdir", None)  # asked for anew
        assert start_job().poll(20 if number == 0 else 0.5) == (number == 0)


def test_without_a_common_folder_the_temporary_one_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "_COMMON", tmp_path / "none")
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    assert device._lock_folder() == tmp_path


NOBODY = 65534


def _as_nobody(folder: Path, said: Connection) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        said.send(claim(NAMES, folder))
    except UserError as error:
        said.send(str(error))
    time.sleep(60)


@pytest.fixture
def nobody(hold: Any) -> Iterator[Callable[[Path], Connection]]:
    """Start a process of another user that claims one of `NAMES`, in a folder that its user may reach."""
    if os.geteuid() != 0:
        pytest.skip("only root can start another user's process, and these tests run as another user")
    with started_with(_as_nobody) as start:
        yield start


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder that all may write to and that keeps each user's files from the others, as /tmp does."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        yield Path(name)


def test_users_respect_each_others_locks(common: Path, nobody: Callable[[Path], Connection]) -> None:
    before = os.umask(0o077)
    try:
        assert received(nobody(common)) == NAMES[0]  # made by another user
        assert claim(NAMES, common) == NAMES[1]  # made by this one, with a mask that lets nobody read
    finally:
        os.umask(before)
    assert not nobody(common).poll(0.5)
    assert sorted(path.name for path in common.iterdir()) == [f"marrowflow-{name}.lock" for name in NAMES]


def test_a_folder_in_which_no_lock_can_be_made_is_an_error(
    common: Path, nobody: Callable[[Path], Connection]
) -> None:
    """To wait would be to wait for ever."""
    common.chmod(0o755)
    assert re.search(r"cannot be used \(Permission denied\).*MARROWFLOW_GPU=gpu_a", received(nobody(common)))


def test_a_lock_that_cannot_be_read_is_an_error(common: Path, nobody: Callable[[Path], Connection]) -> None:
    lock = common / "marrowflow-gpu_a.lock"
    lock.touch(0o600)
    assert re.search(r"marrowflow-gpu_a\.lock.*Have the file removed", received(nobody(common)))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "marrowflow-gpu.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="Have the file removed"):
        claim(["gpu"], tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_was_tidied_away_while_it_was_taken_is_taken_anew(
    tmp_path: Path, hold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next job locks the file that stands there: this one must hold that, not one without a name."""
    real, calls = device.fcntl.flock, 0

    def flock(handle: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / "marrowflow-gpu_a.lock").unlink()
        real(handle, how)

    with monkeypatch.context() as patch:
        patch.setattr(device.fcntl, "flock", flock)
        assert claim(NAMES[:1], tmp_path) == "gpu_a"
    assert received(hold()[1]) == "gpu_b"


def test_a_gpu_that_another_program_fills_is_told(
    two_gpus: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: torch.device) -> None:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch.cuda, "set_device", full)
    with pytest.raises(
        UserError, match=r"GPU gpu_a cannot be used \(CUDA error: out of memory\).*nvidia-smi"
    ):
        device._own_device()


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
