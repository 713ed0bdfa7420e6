"""Images a second of the training loop, beside what the step alone can do and a loop that reads picture files.

    PYTHONPATH=workflow python tests/benchmarks/bench_training.py [--device cpu|cuda] [--network NAME] [--size N]

Three ways of feeding the same step of the same network with the same images:

constant batch    one batch that lies on the device: the most that any feeding can reach
this loop         packed uint8 pixels, prepared on the device; as they are, and warped by a plan
picture files     JPEG files through ImageFolder, Pillow and a DataLoader, as torchvision's reference training does

Rounds of the three take turns, and the medians are printed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import timm
import torch
from torch.nn.functional import cross_entropy
from torchvision import datasets, transforms

from marrowflow.config import Augmentation
from marrowflow.images.augment import draw_plan
from marrowflow.images.store import StoreWriter
from marrowflow.learning.batches import ImageSamples, PackedPixels, Preparation, shuffled

Batch = tuple[torch.Tensor, torch.Tensor]
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLASSES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96, help="side of the network's input")
    parser.add_argument("--stored", type=int, default=224, help="side of the stored images")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        feeds = make_feeds(Path(folder), args, device)
        step = make_step(args.network, device)
        rates: dict[str, list[float]] = {name: [] for name in feeds}
        for _ in range(args.rounds + 1):
            for name, feed in feeds.items():
                rates[name].append(images_a_second(feed, step, device))
    print(
        f"{args.network}, {args.size} px from {args.stored} px, batch {args.batch}, {args.images} images, {device}"
    )
    # The first round warms up and is left out.
    medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{name:28}{rate:10.1f} images/s{rate / medians['constant batch']:8.2f} of the step alone")


def make_feeds(
    folder: Path, args: argparse.Namespace, device: torch.device
) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Return, by name, functions that start an epoch of batches on the device."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (args.images, 16, 16, 3), dtype=np.uint8)
    images = [cv2.resize(c, (args.stored, args.stored), interpolation=cv2.INTER_CUBIC) for c in coarse]
    names = [f"a/{i:05}" for i in range(args.images)]
    targets = np.arange(args.images) % CLASSES
    with StoreWriter(folder / "store", names, args.stored, {}) as writer:
        for row, image in enumerate(images):
            writer.put(row, image)
    for i, image in enumerate(images):
        path = folder / "files" / str(targets[i]) / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    pixels = PackedPixels([folder / "store"])
    prepare = Preparation(args.size, MEAN, STD)
    folds = pd.DataFrame({"case_id": names, "label": "x", "fold": 0, "partition": "train"})
    every = Augmentation(plan="balanced", targets={"x": 2 * args.images}, rotation=180, shift=0.1)
    plan = draw_plan(folds, 0, every, ["x"]).query("transform == 'mixed'").reset_index(drop=True)
    as_they_are = ImageSamples(pixels, names, targets, prepare, device)
    warped = ImageSamples(
        pixels, plan["case_id"].tolist(), np.zeros(len(plan), np.int64), prepare, device, plan
    )
    chunks = shuffled(args.images, args.batch, (0, 0, 0))
    one = next(as_they_are.batches(chunks))
    return {
        "constant batch": lambda: iter([one] * len(chunks)),
        "this loop, as they are": lambda: as_they_are.batches(chunks),
        "this loop, warped by a plan": lambda: warped.batches(chunks),
        "picture files, as they are": picture_files(folder / "files", args, device, warp=False),
        "picture files, warped": picture_files(folder / "files", args, device, warp=True),
    }


def picture_files(
    folder: Path, args: argparse.Namespace, device: torch.device, warp: bool
) -> Callable[[], Iterator[Batch]]:
    """Return a DataLoader over a folder of JPEG files, with one random affine map an image if asked for."""
    affine = [transforms.RandomAffine(180, (0.1, 0.1), (1, 1.5), 35, transforms.InterpolationMode.BILINEAR)]
    to_input = [transforms.Resize(args.size), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    dataset = datasets.ImageFolder(folder, transforms.Compose([*(affine if warp else []), *to_input]))
    loader = torch.utils.data.DataLoader(
        dataset,
        args.batch,
        shuffle=True,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        pin_memory=device.type == "cuda",
    )

    def batches() -> Iterator[Batch]:
        for x, y in loader:
            x = x.to(device, non_blocking=True, memory_format=torch.channels_last)
            yield x, y.to(device, non_blocking=True)

    return batches


def make_step(network: str, device: torch.device) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Return one training step; bfloat16 on a GPU, as `precision: auto` has it."""
    module = (
        timm.create_model(network, num_classes=CLASSES).to(device, memory_format=torch.channels_last).train()
    )
    optimiser = torch.optim.Adam(module.parameters(), 1e-4)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = module(x)
        loss = cross_entropy(logits.float(), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def images_a_second(
    feed: Callable[[], Iterator[Batch]],
    step: Callable[[torch.Tensor, torch.Tensor], None],
    device: torch.device,
) -> float:
    start, seen = time.perf_counter(), 0
    for x, y in feed():
        step(x, y)
        seen += len(x)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return seen / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
