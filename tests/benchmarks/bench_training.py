"""Images a second of the training loop: of its steps alone, of the whole loop, and of one that reads picture files.

    PYTHONPATH=workflow python tests/benchmarks/bench_training.py [--device cpu|cuda] [--networks NAME:SIDE …]

Each row is one network and batch size, with or without torch.compile, fed in four ways with pictures of the
same smears. The first three are epochs of `marrowflow.learning.epoch.train_epoch`, compiled as
`marrowflow.learning.loop` does it:

alone       one batch that lies on the device: the most that any feeding can reach
as they are packed pixels of --stored, prepared as `marrowflow.learning.batches` does
warped      the same with a map of its own for each image
files       torchvision's reference loop, with a step of its own: ImageFolder, JPEG files decoded by Pillow,
            RandomResizedCrop, RandomHorizontalFlip, ToTensor, Normalize, a DataLoader with worker processes

Then frozen networks, 30 epochs: ours computes features once and trains the last layer on them; the loop
over files sends every image through the network in every epoch (Resize in the place of the random crop,
which leaves it less to do). Its rate is the same in all epochs and is taken from a few.

The smears are those of ../shared/data/bccd, 640×480 JPEG, or painted ones of 1920×1200 where there are
none. Packing them is done once a study and timed apart. On a GPU the network computes in bfloat16, as
`precision: auto` has it; channels last everywhere. Rounds of the ways take turns; medians, after one
round to warm up. Measured in wall time: run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision import datasets, transforms

from marrowflow.cohorts.decode import decode
from marrowflow.config import Augmentation, Training
from marrowflow.images.augment import draw_plan
from marrowflow.images.store import PackedPixels, StoreWriter
from marrowflow.learning.batches import ImageSamples, shuffled
from marrowflow.learning.device import choose_device
from marrowflow.learning.epoch import train_epoch
from marrowflow.learning.feature_cache import FeatureCache
from marrowflow.learning.features import Extractor, FeatureSamples
from marrowflow.learning.outcomes import Criterion, Outcomes
from marrowflow.learning.preparation import Preparation

Batch = tuple[torch.Tensor, torch.Tensor]
Feed = Callable[[], Iterator[Batch]]
Epoch = Callable[[Iterator[Batch]], object]
"""Trains on all batches."""

BCCD = Path(__file__).resolve().parents[3] / "shared/data/bccd/images"
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLASSES = 4
FROZEN_EPOCHS = 30
ON_CPU = ["tf_efficientnet_lite0:96", "tf_efficientnet_lite0:224"]
ON_GPU = ["resnet50:224", "densenet121:224", "inception_v3:299", "vit_base_patch32_224:224"]


@dataclass(frozen=True)
class Smears:
    """Picture files, one folder a class, and the same pictures packed."""

    what: str
    files: Path
    packed: Path
    cases: list[str]
    targets: np.ndarray
    seconds_to_pack: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--networks", nargs="+", metavar="NAME:SIDE", help="timm's name, and the input's side"
    )
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes")
    parser.add_argument("--compile", choices=["no", "yes", "both"], help="torch.compile the network")
    parser.add_argument(
        "--stored", type=int, default=224, help="side of the packed images, at least the input's"
    )
    parser.add_argument("--smears", type=int, default=364, help="most picture files")
    parser.add_argument("--images", type=int, help="images a round")
    parser.add_argument("--workers", type=int, help="worker processes of the loop over files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    choose_device(args.threads)  # for its settings
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    networks = args.networks or (ON_GPU if on_gpu else ON_CPU)
    sizes = args.batches or ([8, 32] if on_gpu else [16])
    compiled = {"no": [False], "yes": [True], "both": [False, True]}[
        args.compile or ("both" if on_gpu else "no")
    ]
    images = args.images or (2048 if on_gpu else 96)
    workers = args.workers if args.workers is not None else (8 if on_gpu else 2)
    print(
        f"{name_of(device)}; torch {torch.__version__}; {'bfloat16' if on_gpu else 'float32'}, channels last; "
        f"{args.threads} threads, {workers} workers"
    )
    with tempfile.TemporaryDirectory() as folder:
        sides = sorted({max(args.stored, side_of(network)) for network in networks})
        smears = {side: lay_out(Path(folder) / str(side), side, args.smears) for side in sides}
        for side, laid in smears.items():
            n = len(laid.cases)
            print(
                f"{n} smears, {laid.what}; packed to {side}×{side} once, {n / laid.seconds_to_pack:.0f} images/s"
            )
        print(
            f"\n{images} images a round, median of {args.rounds} rounds; images/s, and shares of the step alone\n"
        )
        print(f"{'network':28}{'batch':>6}{'compiled':>10}{'alone':>9}{'as they are':>13}{'warped':>9}{'files':>9}"
              f"{'warped/files':>14}")  # fmt: skip
        for network in networks:
            laid = smears[max(args.stored, side_of(network))]
            for batch in sizes:
                feeds = make_feeds(laid, side_of(network), batch, images // batch * batch, workers, device)
                for with_compile in compiled:
                    epochs = make_epochs(network, laid, device, with_compile)
                    rates = rates_of(feeds, epochs, args.rounds, device)
                    alone = rates["alone"]
                    print(
                        f"{network:28}{batch:6}{'yes' if with_compile else 'no':>10}{alone:9.1f}"
                        f"{rates['as they are'] / alone:12.1%} {rates['warped'] / alone:8.1%}"
                        f"{rates['files']:9.1f}{rates['warped'] / rates['files']:14.2f}",
                        flush=True,
                    )
        print(f"\nfrozen, {FROZEN_EPOCHS} epochs; images/s, features computed once counted in ours\n")
        print(f"{'network':28}{'batch':>6}{'ours':>10}{'files':>9}{'ours/files':>12}")
        for network in networks:
            laid = smears[max(args.stored, side_of(network))]
            ours = frozen_ours(network, laid, sizes[-1], device)
            files = frozen_files(network, laid, sizes[-1], images, workers, device)
            print(f"{network:28}{sizes[-1]:6}{ours:10.1f}{files:9.1f}{ours / files:12.1f}", flush=True)


def make_feeds(
    laid: Smears, side: int, batch: int, images: int, workers: int, device: torch.device
) -> dict[str, Feed]:
    """Return, by name, functions that start an epoch of batches on the device."""
    pixels = PackedPixels([laid.packed])
    prepare = Preparation(side, MEAN, STD)
    chosen = np.arange(images) % len(laid.cases)
    cases, targets = [laid.cases[i] for i in chosen], laid.targets[chosen]
    folds = pd.DataFrame({"case_id": laid.cases, "label": "x", "type": "x", "fold": 0, "partition": "train"})
    every = Augmentation(plan="balanced", targets={"x": len(laid.cases) + images}, rotation=180, shift=0.1)
    plan = draw_plan(folds, 0, every, ["x"]).query("transform == 'mixed'").reset_index(drop=True)
    as_they_are = ImageSamples(pixels, cases, targets, prepare, device)
    warped = ImageSamples(pixels, plan["case_id"].tolist(), targets, prepare, device, plan)
    chunks = shuffled(images, batch, (0, 0, 0))
    one = next(as_they_are.batches(chunks))
    random_crop = [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip()]
    return {
        "alone": lambda: iter([one] * len(chunks)),
        "as they are": lambda: as_they_are.batches(chunks),
        "warped": lambda: warped.batches(chunks),
        "files": picture_files(laid.files, random_crop, batch, images, workers, device),
    }


def picture_files(
    folder: Path, geometry: Sequence[nn.Module], batch: int, images: int, workers: int, device: torch.device
) -> Feed:
    """Return torchvision's reference way of feeding."""
    dataset = datasets.ImageFolder(
        folder, transforms.Compose([*geometry, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    )
    loader = torch.utils.data.DataLoader(
        dataset,
        batch,
        sampler=torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=images),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )

    def batches() -> Iterator[Batch]:
        for x, y in loader:
            x = x.to(device, non_blocking=True, memory_format=torch.channels_last)
            yield x, y.to(device, non_blocking=True)

    return batches


def make_epochs(network: str, laid: Smears, device: torch.device, with_compile: bool) -> dict[str, Epoch]:
    """Return, by the name of the feed, how a network with random weights is trained on it."""
    module = random_network(network, device).train()
    optimiser = torch.optim.Adam(module.parameters(), 1e-4)
    called = torch.compile(module, dynamic=False) if with_compile else module
    criterion = criterion_of(laid, device)

    def ours(batches: Iterator[Batch]) -> object:
        return train_epoch(called, batches, optimiser, criterion, precision_on(device))

    def reference(batches: Iterator[Batch]) -> None:
        train_plainly(called, batches, optimiser, device)

    return {"alone": ours, "as they are": ours, "warped": ours, "files": reference}


def random_network(network: str, device: torch.device) -> nn.Module:
    module: nn.Module = timm.create_model(name_in(network), num_classes=CLASSES)
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_plainly(
    network: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterator[Batch],
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> None:
    for x, y in batches:
        with precision_on(device):
            logits = network(x)
        loss = cross_entropy(logits.float(), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def criterion_of(laid: Smears, device: torch.device) -> Criterion:
    outcomes = Outcomes([str(number) for number in range(CLASSES)])
    return outcomes.criterion(torch.from_numpy(laid.targets).to(device), Training())


def precision_on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def rates_of(
    feeds: dict[str, Feed], epochs: dict[str, Epoch], rounds: int, device: torch.device
) -> dict[str, float]:
    """Return each feed's median images a second, the first round left out."""
    rates: dict[str, list[float]] = {name: [] for name in feeds}
    for _ in range(rounds + 1):
        for name, feed in feeds.items():
            rates[name].append(images_a_second(feed, epochs[name], device))
    return {name: statistics.median(values[1:]) for name, values in rates.items()}


def images_a_second(feed: Feed, epoch: Epoch, device: torch.device) -> float:
    seen = 0

    def counted() -> Iterator[Batch]:
        nonlocal seen
        for x, y in feed():
            yield x, y
            seen += len(x)

    start = now(device)
    epoch(counted())
    return seen / (now(device) - start)


def frozen_ours(network: str, laid: Smears, batch: int, device: torch.device) -> float:
    """Return images a second of all epochs on features that are computed once; the network warms up before."""
    pixels = PackedPixels([laid.packed])
    module = random_network(network, device).eval()
    prepare = Preparation(side_of(network), MEAN, STD)
    extractor = Extractor(module, network, "corrected", prepare, bfloat16=device.type == "cuda")
    targets, criterion = torch.from_numpy(laid.targets).to(device), criterion_of(laid, device)
    head = nn.Sequential(nn.Dropout(Training().dropout), extractor.head)
    optimiser = torch.optim.Adam(head.parameters(), 1e-4)
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            start = now(device)
            with redirect_stdout(io.StringIO()):  # its progress would stand in the table
                features = FeatureCache(Path(folder)).of(extractor, pixels, laid.cases, device)
            samples = FeatureSamples(features, targets, laid.cases)
            head.train()
            for epoch in range(FROZEN_EPOCHS):
                batches = samples.batches(shuffled(len(samples), batch, (0, 0, epoch)))
                train_epoch(head, batches, optimiser, criterion, nullcontext())
            seconds = now(device) - start
    return FROZEN_EPOCHS * len(laid.cases) / seconds


def frozen_files(
    network: str, laid: Smears, batch: int, images: int, workers: int, device: torch.device
) -> float:
    """Return images a second of a loop over files that trains the last layer of a frozen network."""
    module = random_network(network, device).eval()
    head = module.get_classifier()  # type: ignore[operator]
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for parameter in head.parameters():
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(head.parameters(), 1e-4)

    def reference(batches: Iterator[Batch]) -> None:
        train_plainly(module, batches, optimiser, device)

    side = side_of(network)
    feed = picture_files(laid.files, [transforms.Resize((side, side))], batch, images, workers, device)
    return rates_of({"files": feed}, {"files": reference}, 1, device)["files"]


def lay_out(folder: Path, side: int, most: int) -> Smears:
    """Write the picture files, one folder a class, and pack the same pictures."""
    sources = sorted(BCCD.glob("*.jpg"))[:most] if BCCD.is_dir() else []
    what = "640×480 JPEG of bccd" if sources else "painted, 1920×1200 JPEG"
    n = len(sources) or min(most, 64)
    targets = np.arange(n) % CLASSES
    files = [folder / "files" / str(target) / f"{i:05}.jpg" for i, target in enumerate(targets)]
    for i, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(sources[i].read_bytes() if sources else painted(i))
    cases = [f"a/{i:05}" for i in range(n)]
    start = time.perf_counter()
    with StoreWriter(folder / "packed", cases, side, {}) as writer:
        for row, file in enumerate(files):
            image = decode(file.read_bytes()).pixels
            writer.put(row, cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
    return Smears(what, folder / "files", folder / "packed", cases, targets, time.perf_counter() - start)


def painted(seed: int) -> bytes:
    """Return a JPEG of 1920×1200: stained discs on a bright, noisy ground."""
    generator = np.random.default_rng(seed)
    field = np.full((1200, 1920, 3), (225, 215, 235), np.uint8)
    for x, y, radius in zip(*(generator.integers(0, top, 300) for top in (1920, 1200, 40)), strict=True):
        cv2.circle(field, (int(x), int(y)), 20 + int(radius), (150, 130, 200), -1, cv2.LINE_AA)
    noisy = field + generator.normal(0, 6, field.shape)
    return cv2.imencode(".jpg", np.clip(noisy, 0, 255).astype(np.uint8))[1].tobytes()


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(": ")[2] for line in names if line.startswith("model name")]
    return models[0] if models else platform.machine()


def name_in(network: str) -> str:
    return network.partition(":")[0]


def side_of(network: str) -> int:
    return int(network.partition(":")[2])


if __name__ == "__main__":
    main()
