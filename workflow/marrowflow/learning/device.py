"""The device that a job computes on, and the settings that make it repeat itself bit by bit.

Jobs that run at once on a machine with several GPUs take one each. A GPU is taken by a lock on a file of its
own in /tmp; the system takes the lock back when the process ends, however it ends. Not in $TMPDIR, which batch
systems set to another folder for each job: locks in different folders do not keep jobs apart. Where a job has a /tmp of
its own as well (a container, or a cluster that gives each job one), its GPUs must be its own too, as batch systems see to
by showing a job only those that it was given.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from marrowflow.config import Training
from marrowflow.errors import UserError

log = logging.getLogger(__name__)

TAKEN_GPU = "MARROWFLOW_GPU"
"""Environment variable with the name of the GPU that this process took: processes that it starts share the GPU
instead of waiting for it for ever."""

_COMMON = Path("/tmp")
_LOOK_EVERY = 2.0  # seconds


def choose_device(threads: int) -> torch.device:
    """Return a GPU that no other job has, or else the CPU, with deterministic kernels and full float32.

    Waits while other jobs have all GPUs. The GPU is this process's until it ends.

    Parameters
    ----------
    threads
        Of the CPU; they decide in which order sums are rounded, so they belong to the result.
    """
    # cuBLAS reads this when the first GPU context is made; without it its sums differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = _own_device()
    torch.set_num_threads(threads)
    # On a GPU a few layers have no deterministic kernel at all; there a warning in the log has to do.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    if device.type == "cuda":
        # Fused attentions add up their gradients in another order each time, and at most warn; the plain one is left.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def device_name(device: torch.device) -> str:
    """Return a GPU's name, or cpu with its widest vector instructions: sums are rounded by both."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


def claim(names: Sequence[str], folder: Path) -> str:
    """Take one of several things that only one process may have at a time, for the life of this process.

    Waits while others have all of them, and says so once.

    Parameters
    ----------
    names
        What there is, the preferred ones first.
    folder
        Where the locks lie, files ``marrowflow-<name>.lock``: on a disk of this machine, open to all of its users.

    Returns
    -------
    str
        The one that was taken.

    Raises
    ------
    UserError
        No lock can be made or read there: to wait would be to wait for ever.
    """
    waited = False
    while True:
        for name in names:
            if _locked(folder / f"marrowflow-{name.replace('/', '_')}.lock"):
                return name
        if not waited:
            log.info(
                "other jobs have %s (locks in %s): waiting for one to be free", " and ".join(names), folder
            )
            waited = True
        time.sleep(_LOOK_EVERY)


def trains_in_bfloat16(training: Training, device: torch.device) -> bool:
    """Return whether the network's arithmetic is bfloat16 while training (parameters stay float32)."""
    return training.precision == "bfloat16" or (training.precision == "auto" and device.type == "cuda")


def keyed_seed(*key: int) -> int:
    """Return a seed of 63 bits for a key such as (seed, fold, epoch); different keys have unrelated seeds."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@cache
def _own_device() -> torch.device:
    """Return this process's device; found once, because its lock is held for good."""
    if not torch.cuda.is_available():
        log.info("no GPU was found: computing on the CPU")
        return torch.device("cpu")
    names = _gpu_names()
    name = os.environ.get(TAKEN_GPU)
    if name not in names:
        name = claim(names, _lock_folder())
        os.environ[TAKEN_GPU] = name
    device = torch.device("cuda", names.index(name))
    try:
        torch.cuda.set_device(device)
        torch.cuda.mem_get_info(device)  # the first thing that needs memory there
    except RuntimeError as error:
        raise UserError(
            f"GPU {name} cannot be used ({str(error).partition(chr(10))[0]}): another program than this workflow has it or "
            "fills its memory (nvidia-smi lists them); end that, or show this run the other GPUs only "
            "(CUDA_VISIBLE_DEVICES in front of the command; empty, it computes on the CPU)"
        ) from error
    log.info("computing on GPU %s (%s)", name, torch.cuda.get_device_name(device))
    return device


def _gpu_names() -> list[str]:
    """Return the names of the GPUs that this process sees: their UUIDs.

    Numbers would not do: a batch system's CUDA_VISIBLE_DEVICES gives the same number to different GPUs.
    """
    names = [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]
    # Of a GPU that is divided (MIG), a process sees one part, and older versions of CUDA give it the whole one's UUID:
    # then a job in one part would wait for the job in another.
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if len(names) == 1 and shown.startswith("MIG-"):
        return [shown.removeprefix("MIG-")]
    return names


def _lock_folder() -> Path:
    """Return where all jobs of this machine look for locks."""
    return _COMMON if os.access(_COMMON, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _locked(path: Path) -> bool:
    """Lock a file for the life of this process, unless another one has it."""
    while True:
        handle = _opened(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        if _is_still_there(path, handle):
            return True  # the handle stays open; programs that this one starts do not inherit it
        os.close(handle)  # tidied away in between: others lock the file that stands there now


def _is_still_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _opened(path: Path) -> int:
    """Open a lock's file, and make it if need be.

    In a folder that all may write to, Linux refuses to open another user's file with leave to create it
    (fs.protected_regular), so the two are tried apart.
    """
    try:
        while True:
            try:
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                _make(path)
    except OSError as error:
        raise UserError(
            f"{path}: the lock that keeps other jobs off this GPU cannot be used ({error.strerror}). Have the file removed "
            f"or its folder opened for all users, or set {TAKEN_GPU}={path.stem.removeprefix('marrowflow-')} to take that GPU "
            "without a lock"
        ) from error


def _make(path: Path) -> None:
    """Make a lock's file that all users can read from its first moment on, whatever this user's mask is."""
    handle, beside = tempfile.mkstemp(prefix=f".{path.stem}.", dir=path.parent)
    try:
        os.fchmod(handle, 0o644)
        os.link(beside, path)
    except FileExistsError:
        pass  # another job was faster
    finally:
        os.close(handle)
        Path(beside).unlink()
