"""How fast images are taken in, beside what bare decoding allows: images a second and core.

python tests/benchmarks/bench_intake.py [--images 1000] [--threads 2]

Paints cells of 250 x 250 pixels, saves them as JPEG of quality 90 in a temporary folder and times, by CPU
time and best of three: decoding alone by simplejpeg, OpenCV and Pillow, and the whole intake (read,
checksum, decode, focus, light, perceptual hash, thumbnail). The last line is wall time on several threads.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from marrowflow.cohorts.decode import decode
from marrowflow.cohorts.intake import take_in
from marrowflow.cohorts.quality import measure

SIDE, REPEATS = 250, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = _paint(Path(folder), args.images)
        data = [path.read_bytes() for path in files]
        pixels = [decode(item).pixels for item in data[:200]]
        print(f"{len(files)} JPEG of {SIDE} x {SIDE}, {sum(map(len, data)) / len(data) / 1000:.1f} kB each")
        limit = _rate("simplejpeg, decode only", lambda: _each(simplejpeg.decode_jpeg, data), len(data))
        opencv = _rate(
            "OpenCV, decode only",
            lambda: _each(lambda d: cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR), data),
            len(data),
        )
        _rate("Pillow, decode only", lambda: _each(_pillow, data), len(data))
        _rate("measurements only", lambda: _each(measure, pixels), len(pixels))
        whole = _rate("whole intake", lambda: take_in(files), len(files))
        print(
            f"whole intake reaches {whole / limit:.2f} of simplejpeg's and {whole / opencv:.2f} of OpenCV's rate"
        )
        seconds = min(_wall(lambda: take_in(files, args.threads)) for _ in range(REPEATS))
        alone = min(_wall(lambda: take_in(files, 1)) for _ in range(REPEATS))
        print(
            f"whole intake on {args.threads} threads, wall: {len(files) / seconds:,.0f} images/s, {alone / seconds:.2f} x one thread"
        )


def _paint(folder: Path, count: int) -> list[Path]:
    """Paint one stained cell on a pale, grainy ground a file; the seed is fixed."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        image = np.full((SIDE, SIDE, 3), (225, 215, 235), np.uint8)
        centre = tuple(int(v) for v in rng.integers(SIDE // 3, 2 * SIDE // 3, 2))
        axes = tuple(int(v) for v in rng.integers(SIDE // 8, SIDE // 4, 2))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, (150, 90, 140), -1)
        cv2.circle(image, centre, min(axes) * 2 // 3, (110, 50, 90), -1)
        grain = rng.normal(0, 6, image.shape)
        image = cv2.GaussianBlur(np.clip(image + grain, 0, 255).astype(np.uint8), (0, 0), 0.8)
        path = folder / f"{number}.jpg"
        path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        files.append(path)
    return files


def _each(work: Callable, items: list) -> None:
    for item in items:
        work(item)


def _pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _rate(name: str, work: Callable[[], object], count: int) -> float:
    """Print and return images a second of CPU time, the best of `REPEATS`."""
    best = np.inf
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    print(f"{name:28}{count / best:10,.0f} images/s a core")
    return count / best


def _wall(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
