"""Time the packed pixels: random batches from a store beside a folder of JPEG and PNG files.

    PYTHONPATH=workflow python tests/benchmarks/bench_store.py [--images 2000] [--size 224]

Images a second of CPU time on one core, batches of 64 rows at random, files in the page cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from marrowflow.cohorts.decode import decode
from marrowflow.images.store import StoreWriter, open_store

BATCH = 64
LIMIT = 77_000  # images a second that an .npy map was measured to give at 224×224


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), args.images, args.size, args.seconds)


def measure(scratch: Path, count: int, size: int, seconds: float) -> None:
    field = cv2.GaussianBlur(np.random.default_rng(0).normal(128, 900, (size * 2, size * 2, 3)), (0, 0), 6)
    field = np.clip(field, 0, 255).astype(np.uint8)
    offsets = np.random.default_rng(1).integers(0, size, (count, 2))
    images = [field[y : y + size, x : x + size] for y, x in offsets]
    start = time.process_time()
    with StoreWriter(scratch / "store", [str(i) for i in range(count)], size, {}) as writer:
        for row, image in enumerate(images):
            writer.put(row, image)
    print(f"written: {count / (time.process_time() - start):,.0f} images/s, checksum and flush included")
    store = open_store(scratch / "store")
    np.asarray(store.pixels).max()  # into the page cache
    files = {}
    for suffix in (".jpg", ".png"):
        files[suffix] = [scratch / f"{row}{suffix}" for row in range(count)]
        for path, image in zip(files[suffix], images, strict=True):
            cv2.imwrite(str(path), image)
    ways: dict[str, Callable[[np.ndarray], object]] = {
        "store, gather": store.gather,
        "store, numpy index": lambda rows: store.pixels[rows],
        "JPEG files": lambda rows: np.stack([decode(files[".jpg"][r].read_bytes()).pixels for r in rows]),
        "PNG files": lambda rows: np.stack([decode(files[".png"][r].read_bytes()).pixels for r in rows]),
    }
    rates = {name: rate(read, count, seconds) for name, read in ways.items()}
    ours = rates["store, gather"]
    print(f"{'':22}{'images/s':>12}{'ours/this':>12}")
    for name, value in rates.items():
        print(f"{name:22}{value:12,.0f}{ours / value:12.1f}")
    if size == 224:
        print(f"{'limit, .npy map':22}{LIMIT:12,}{ours / LIMIT:12.2f}")


def rate(read: Callable[[np.ndarray], object], count: int, seconds: float) -> float:
    """Return images a second over batches drawn at random."""
    rng = np.random.default_rng(2)
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        read(rng.integers(0, count, BATCH))
        done += BATCH
    return done / (time.process_time() - start)


if __name__ == "__main__":
    main()
