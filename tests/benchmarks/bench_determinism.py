"""Time what it costs that a training repeats itself bit by bit: steps with deterministic algorithms, and without.

    PYTHONPATH=workflow python tests/benchmarks/bench_determinism.py [--device cpu|cuda] [--network NAME] [--size N]

Both run the training loop's own pass over the same batches on the device, in turns, after a warm-up of each:

deterministic   as every job computes (`learning.device.choose_device`)
free            any kernel may be taken, and on a GPU cuDNN tries which is fastest

Precision is the job's in both: float32 on a CPU, bfloat16 on a GPU. cuBLAS has its fixed workspace in both: it reads that
setting once.
"""

import argparse
import os
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before torch makes a GPU's context

import timm
import torch

from marrowflow.config import Training
from marrowflow.learning.epoch import Batches, train_epoch
from marrowflow.learning.outcomes import Outcomes

CLASSES = ["a", "b", "c", "d"]
KINDS = {"deterministic": True, "free": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96, help="side of the network's input")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=4, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device(args.device)
    module = timm.create_model(args.network, num_classes=len(CLASSES)).train()
    module.to(device, memory_format=torch.channels_last)
    targets = torch.arange(args.batch, device=device) % len(CLASSES)
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    batches = [(images.contiguous(memory_format=torch.channels_last), targets)] * args.batches

    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(args.rounds + 1):
        for kind, deterministic in KINDS.items():
            torch.use_deterministic_algorithms(deterministic, warn_only=device.type == "cuda")
            torch.backends.cudnn.benchmark = not deterministic
            seconds[kind].append(timed(module, batches, device))
    # The first round warms up and is left out.
    step = {kind: statistics.median(values[1:]) / args.batches for kind, values in seconds.items()}
    print(f"{args.network}, {args.size} px, batch {args.batch}, {device}: median of {args.rounds} rounds")
    for kind, value in step.items():
        print(f"{kind:15}{1000 * value:10.1f} ms a step{args.batch / value:10.1f} images/s")
    print(f"deterministic takes {step['deterministic'] / step['free']:.2f} times as long as free")


def timed(module: torch.nn.Module, batches: Batches, device: torch.device) -> float:
    """Return the seconds of one pass."""
    optimiser = torch.optim.Adam(module.parameters(), 1e-4)
    criterion = Outcomes(CLASSES).criterion(torch.arange(len(CLASSES), device=device), Training())
    precision: AbstractContextManager[Any] = (
        torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    )
    start = time.perf_counter()
    train_epoch(module, batches, optimiser, criterion, precision)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
