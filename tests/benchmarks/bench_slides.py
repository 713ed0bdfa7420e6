"""Whole slides: tissue and tiles of a slide of 60,000 x 40,000 pixels, tiles read against OpenSlide alone, features, epochs.

    PYTHONPATH=workflow python tests/benchmarks/bench_slides.py [--folder DIR] [--threads 2] [--tiles 4000]

Paints a slide (a pyramid of JPEG tiles, 600 MB) in a temporary folder. Every ratio is of two measurements in one run:

survey        tissue found and the slide pictured, and tiles placed: seconds, cores busy, largest memory of the process; then
              the same of a file without a pyramid, which must be read whole
read          tiles as the network sees them, against OpenSlide's read_region of the same regions and nothing else
features      the network fed from the slide, against the same network on one batch that lies on the device
epoch         training on bags as they lie on the disk, against the same bags on the device
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import openslide
import pandas as pd
import simplejpeg
import tifffile
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from marrowflow.config import Training
from marrowflow.demo.hospitals import HOSPITALS
from marrowflow.demo.smear import draw_patient, paint_field
from marrowflow.learning.device import choose_device, device_name
from marrowflow.learning.outcomes import Outcomes
from marrowflow.slides import place, survey
from marrowflow.slides.aggregators import BagNetwork
from marrowflow.slides.bags import COLUMNS, Bags, write_entry
from marrowflow.slides.extract import _sent
from marrowflow.slides.reading import tile_batches
from marrowflow.slides.samples import BagSamples, BagTrainee, ClusteringCriterion
from marrowflow.slides.slide import Slide
from marrowflow.slides.tile_network import tile_network
from marrowflow.slides.tiles import geometry
from marrowflow.study_slides import Aggregation, Extractor, Tiling, Tissue

WIDTH, HEIGHT, MPP, TILE = 61_440, 40_960, 0.25, 256
TILING = Tiling(magnification=40)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to paint")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--tiles", type=int, default=4000, help="to read; of these a tenth are seen by the network on a CPU"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slides_", dir=args.folder) as folder:
        pyramid, flat = Path(folder) / "pyramid.tif", Path(folder) / "flat.tif"
        paint(pyramid, (1, 4, 16))
        paint(flat, (1,))
        print(
            f"{WIDTH:,} x {HEIGHT:,} pixels, {pyramid.stat().st_size / 1e6:,.0f} MB, {args.threads} threads"
        )
        for name, path in (("pyramid", pyramid), ("one level", flat)):
            print(in_a_process(surveyed, path, Path(folder) / name.replace(" ", "_"), args.threads, name))
        print(read_rates(pyramid, args.tiles, args.threads))
        print(feature_rates(pyramid, args.tiles, args.threads))
        print(epoch_rates(Path(folder), args.threads))


def paint(path: Path, downsamples: tuple[int, ...]) -> None:
    """Write a slide of glass with tissue in its middle three quarters; a few painted tiles are repeated."""
    chance = np.random.default_rng(0)
    camera = dataclasses.replace(HOSPITALS["alpha"], width=512, height=512, resolution=1 / MPP)
    fields = [paint_field(camera, draw_patient("AML", chance), chance) for _ in range(4)]
    cut = [f[y : y + TILE, x : x + TILE] for f in fields for y in (0, TILE) for x in (0, TILE)]
    empty = jpeg(np.full((TILE, TILE, 3), 243, np.uint8))

    def tiles(painted: list[bytes], width: int, height: int) -> Iterator[bytes]:
        across, down = -(-width // TILE), -(-height // TILE)
        for y in range(down):
            for x in range(across):
                inside = down / 8 <= y < down * 7 / 8 and across / 8 <= x < across * 7 / 8
                yield painted[chance.integers(len(painted))] if inside else empty

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for downsample in downsamples:
            painted = [jpeg(mosaic(tile, downsample)) for tile in cut]
            width, height, dots = WIDTH // downsample, HEIGHT // downsample, 1e4 / (MPP * downsample)
            file.write(
                tiles(painted, width, height), shape=(height, width, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="ycbcr",
                subsampling=(2, 2), compression="jpeg", subfiletype=int(downsample > 1), resolution=(dots, dots),
                resolutionunit="CENTIMETER", software=None, metadata=None,
            )  # fmt: skip


def mosaic(tile: np.ndarray, downsample: int) -> np.ndarray:
    """Return a tile as it looks from afar, beside others like it: a level's tile spans as many of the finest."""
    small = cv2.resize(tile, (TILE // downsample, TILE // downsample), interpolation=cv2.INTER_AREA)
    return np.tile(small, (downsample, downsample, 1))


def jpeg(tile: np.ndarray) -> bytes:
    pixels = np.ascontiguousarray(tile)
    return simplejpeg.encode_jpeg(pixels, quality=85, colorspace="RGB", colorsubsampling="420")


def in_a_process(work: Callable[..., str], *arguments: object) -> str:
    """Run in a process of its own, whose memory is then its own too."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def inventory(path: Path) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "case_id": "h/s",
                "image": path.name,
                "bytes": path.stat().st_size,
                "status": "included",
                "mpp": MPP,
            }
        ]
    )


def surveyed(path: Path, folder: Path, threads: int, name: str) -> str:
    imported = memory("VmRSS")
    started, used = time.perf_counter(), time.process_time()
    folder.mkdir()
    options = survey.Options(tissue=Tissue())
    table = survey.survey(options, inventory(path), path.parent, False, threads, folder / "pictures")
    between, busy = time.perf_counter(), time.process_time()
    own = place.Options(tiling=TILING)
    _, tiles = place.place(own, inventory(path), path.parent, table, folder / "pictures", False, folder / "o")
    return (
        f"survey, {name}: {between - started:.1f} s, {(busy - used) / (between - started):.1f} cores busy; "
        f"{len(tiles):,} tiles placed in {time.perf_counter() - between:.1f} s; at most {memory('VmHWM') - imported:.0f} MB beside "
        f"the program's own {imported:.0f}"
    )


def memory(line: str) -> float:
    """Return a process's own memory in MB, from Linux's table (getrusage counts what its parent held)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(next(text for text in lines if text.startswith(line)).split()[1]) * 1024 / 1e6


def placed(path: Path, most: int) -> pd.DataFrame:
    """Return tiles of the middle of the slide, rows of neighbours, as placing gives them."""
    span = round(TILING.size * TILING.resolution / MPP)
    across = WIDTH // span
    rows = max(1, most // (across // 2))
    y, x = np.mgrid[HEIGHT // span // 4 : HEIGHT // span // 4 + rows, across // 4 : across * 3 // 4]
    return pd.DataFrame({"x": x.ravel() * span, "y": y.ravel() * span})


def compared(ours: Callable[[], object], theirs: Callable[[], object], times: int) -> tuple[float, float]:
    """Return the median seconds of two pieces of work, done in turns: a machine's speed changes as it goes."""
    found: tuple[list[float], list[float]] = [], []
    for _ in range(times):
        for work, each in zip((ours, theirs), found, strict=True):
            started = time.perf_counter()
            work()
            each.append(time.perf_counter() - started)
    return float(np.median(found[0])), float(np.median(found[1]))


def read_rates(path: Path, most: int, threads: int) -> str:
    tilings = (TILING, Tiling(magnification=20), Tiling(magnification=40, overlap=0.5))
    return "\n".join(read_rate(path, tiling, most, threads) for tiling in tilings)


def read_rate(path: Path, tiling: Tiling, most: int, threads: int) -> str:
    with Slide(path) as slide:
        how = geometry(slide, MPP, tiling)
        tiles = (
            (placed(path, most) * how.stride / (TILING.size * TILING.resolution / MPP)).round().astype(int)
        )
        tiles = tiles[(tiles["x"] < WIDTH - how.span) & (tiles["y"] < HEIGHT - how.span)]
        corners = [tuple(corner) for corner in tiles[["x", "y"]].to_numpy().tolist()]

        def ours() -> None:
            for _ in tile_batches(slide, how, tiles, 64, threads):
                pass

        def raw() -> None:
            size = (how.read, how.read)
            with openslide.OpenSlide(path) as scan, ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(lambda corner: scan.read_region(corner, how.level, size), corners):
                    pass

        mine, theirs = compared(ours, raw, 7)
    name = f"{tiling.magnification:g}x{', half overlapping' if tiling.overlap else ''}"
    return f"read, {name}: {len(tiles) / mine:,.0f} tiles/s, OpenSlide alone {len(tiles) / theirs:,.0f}: ratio {theirs / mine:.2f}"


def feature_rates(path: Path, most: int, threads: int) -> str:
    device = choose_device(threads)
    number = most if device.type == "cuda" else max(256, most // 10)
    batch = 256 if device.type == "cuda" else 32
    network = tile_network(Extractor(weights="none", batch_size=batch, threads=threads), TILING.size, device)
    with Slide(path) as slide:
        how = geometry(slide, MPP, TILING)
        tiles = placed(path, number).iloc[: number // batch * batch]
        constant = next(iter(tile_batches(slide, how, tiles, batch, threads)))
        resident = torch.from_numpy(constant).to(device)

        def streamed() -> None:
            for part in _sent(network, device, tile_batches(slide, how, tiles, batch, threads)):
                part.cpu()

        def limit() -> None:
            for _ in range(len(tiles) // batch):
                network(resident).cpu()

        limit()
        mine, theirs = compared(streamed, limit, 3)
    return (
        f"features, resnet50 to its third stage, {network.precision} on {device_name(device)}: {len(tiles) / mine:,.0f} tiles/s, "
        f"on one batch {len(tiles) / theirs:,.0f}: ratio {theirs / mine:.2f}"
    )


def epoch_rates(folder: Path, threads: int) -> str:
    device = choose_device(threads)
    chance, rows = np.random.default_rng(0), []
    for i in range(40):
        n = int(chance.integers(1000, 3000))
        entry = f"made-0/{i:016d}"
        tiles = pd.DataFrame({"x": np.arange(n), "y": 0})
        about = {"extractor": {}, "weights": {}}
        write_entry(
            folder / "features" / entry, chance.normal(size=(n, 1024)).astype(np.float16), tiles, about
        )
        told = json.loads((folder / "features" / entry / "about.json").read_text())
        rows.append((f"h/{i}", n, "", entry, told["features_sha256"], told["tiles_sha256"], b""))
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(folder / "bags.parquet")
    bags = Bags([folder / "bags.parquet"], folder / "features")
    targets, cases = np.arange(40) % 5, [row[0] for row in rows]
    samples = BagSamples(bags, cases, targets, device, within=False)
    trainee = BagTrainee(BagNetwork(Aggregation(), 1024, 5).to(device), 8).train()
    outcomes = Outcomes(list("abcde"))
    criterion = ClusteringCriterion(outcomes, samples.targets, Training(), 0.7)
    optimiser = torch.optim.Adam(trainee.parameters(), 2e-4)
    chunks = [np.array([i]) for i in range(40)]
    resident = [(inputs, truths) for inputs, truths in samples.batches(chunks)]

    def run(batches) -> None:
        for inputs, truths in batches:
            optimiser.zero_grad(set_to_none=True)
            logits = trainee(inputs)
            criterion.combined(criterion.sums(logits, truths), criterion.totals(truths)).backward()
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run(resident)
    mine, theirs = compared(lambda: run(samples.batches(chunks)), lambda: run(resident), 5)
    tiles = sum(row[1] for row in rows)
    return (
        f"epoch, 40 bags of {tiles:,} tiles on {device_name(device)}: {mine:.2f} s, of bags on the device {theirs:.2f} s: ratio "
        f"{theirs / mine:.2f}"
    )


if __name__ == "__main__":
    main()
