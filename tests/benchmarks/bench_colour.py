"""Time the colour correction beside its naive forms: milliseconds an image of 1920×1200 and their ratios.

    PYTHONPATH=workflow python tests/benchmarks/bench_colour.py [--image FILE …]

Without --image a smear is painted from a fixed seed. CPU time of one thread; the best of several
rounds. "limit" is the figure measured once, on an idle machine, for the best known algorithm, in
milliseconds; ours should stay within 1.3 of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from marrowflow.cohorts.decode import decode
from marrowflow.images.colour import adaptive_median, perfect_reflection

WIDTH, HEIGHT = 1920, 1200
CROP = 96  # the double loop runs on a crop of this side; its time is scaled by the number of pixels
LIMITS = {"clean": 12.8, "impulses": 16.2, "reflected": 100.0, "reflection": 11.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--image", type=Path, action="append", default=[], help="tile these instead of painting"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the best counts")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    clean = tiled(args.image) if args.image else painted()
    versions = {"clean": clean, "impulses": with_impulses(clean), "reflected": perfect_reflection(clean)[0]}
    print(f"{'adaptive median, ms':22}{'loop':>10}{'whole':>8}{'ours':>8}{'limit':>8}{'ours/limit':>12}"
          f"{'loop/ours':>11}{'whole/ours':>12}")  # fmt: skip
    for name, image in versions.items():
        crop = np.ascontiguousarray(image[:CROP, :CROP])
        loop = best(lambda c=crop: looped_median(c), 1) * image.size / crop.size
        whole = best(lambda i=image: whole_median(i), 2)
        ours = best(lambda i=image: adaptive_median(i), args.rounds)
        limit = LIMITS[name]
        print(f"{name:22}{loop:10.0f}{whole:8.1f}{ours:8.1f}{limit:8.1f}{ours / limit:12.2f}"
              f"{loop / ours:11.0f}{whole / ours:12.1f}")  # fmt: skip
    naive = best(lambda: numpy_reflection(clean), args.rounds)
    ours = best(lambda: perfect_reflection(clean), args.rounds)
    limit = LIMITS["reflection"]
    print(
        f"\n{'perfect reflection, ms':22}{'numpy':>10}{'ours':>8}{'limit':>8}{'ours/limit':>12}{'numpy/ours':>12}"
    )
    print(f"{'clean':22}{naive:10.1f}{ours:8.1f}{limit:8.1f}{ours / limit:12.2f}{naive / ours:12.1f}")


def best(work: Callable[[], object], rounds: int) -> float:
    """Return the least CPU time of several calls, milliseconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def painted() -> np.ndarray:
    """Return a smooth field with sensor noise, uint8 [1200, 1920, 3]."""
    rng = np.random.default_rng(0)
    field = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 12)
    field = cv2.normalize(field, None, 60, 235, cv2.NORM_MINMAX)
    return np.clip(field + rng.normal(0, 4, field.shape), 0, 255).astype(np.uint8)


def tiled(files: list[Path]) -> np.ndarray:
    """Return images laid side by side until 1920×1200 are full."""
    tiles = [
        cv2.resize(decode(f.read_bytes()).pixels, (320, 300), interpolation=cv2.INTER_AREA) for f in files
    ]
    rows = [np.hstack([tiles[(6 * y + x) % len(tiles)] for x in range(6)]) for y in range(4)]
    return np.ascontiguousarray(np.vstack(rows))


def with_impulses(image: np.ndarray) -> np.ndarray:
    """Set a tenth of the samples to 0 and a tenth to 255."""
    draw = np.random.default_rng(1).random(image.shape)
    return np.where(draw < 0.1, 0, np.where(draw > 0.9, 255, image)).astype(np.uint8)


def looped_median(image: np.ndarray) -> np.ndarray:
    """Filter by a double loop with numpy inside."""
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="edge")
    result = np.empty_like(image)
    for y, x, c in np.ndindex(*image.shape):
        for reach in (1, 2, 3):
            window = padded[y + 3 - reach : y + 4 + reach, x + 3 - reach : x + 4 + reach, c]
            low, median, high = window.min(), np.median(window), window.max()
            if low < median < high:
                break
        kept = low < median < high and low < image[y, x, c] < high
        result[y, x, c] = image[y, x, c] if kept else median
    return result


def whole_median(image: np.ndarray) -> np.ndarray:
    """Filter by OpenCV at sizes 3, 5 and 7, each over the whole image."""
    result = np.empty_like(image)
    open_ = np.ones(image.shape, bool)
    for window in (3, 5, 7):
        element = np.ones((window, window), np.uint8)
        low = cv2.erode(image, element, borderType=cv2.BORDER_REPLICATE)
        high = cv2.dilate(image, element, borderType=cv2.BORDER_REPLICATE)
        median = cv2.medianBlur(image, window)
        settled = (low < median) & (median < high)
        kept = settled & (low < image) & (image < high)
        np.copyto(result, np.where(kept, image, median), where=open_)
        open_ &= ~settled
    return result


def numpy_reflection(image: np.ndarray) -> np.ndarray:
    """Scale to the mean of the brightest 5 % by numpy alone."""
    sums = image.sum(axis=2, dtype=np.uint16)
    k = -(-sums.size // 20)
    white = image[sums >= np.partition(sums.ravel(), -k)[-k]].mean(axis=0)
    return np.clip(np.rint(image * (255 / white)), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
