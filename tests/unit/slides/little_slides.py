"""Slides that tests paint in a moment: a square of tissue on glass, as pyramidal TIFF, and the step's files around them."""

from pathlib import Path

import numpy as np
import pandas as pd
from painted_slides import GLASS, write_pyramid

PINK = (200, 120, 170)
MPP = 0.25


def picture(
    width: int = 2048, height: int = 1536, tissue: tuple[int, int, int, int] = (512, 384, 1536, 1152)
) -> np.ndarray:
    """Return glass with tissue from (left, top) to (right, bottom); its red channel tells where a pixel lies."""
    slide = np.empty((height, width, 3), np.uint8)
    slide[:] = GLASS
    left, top, right, bottom = tissue
    part = slide[top:bottom, left:right]
    part[:] = PINK
    # Slow waves, which JPEG keeps: places differ.
    y, x = np.mgrid[top:bottom, left:right]
    part[..., 0] = 150 + 50 * np.sin(x / 60)
    part[..., 2] = 150 + 50 * np.sin(y / 45)
    return slide


def write(path: Path, mpp: float | None = MPP, **kinds: object) -> Path:
    """Write one such slide, 2,048 x 1,536 pixels at three levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pyramid(path, picture(**kinds), mpp)
    return path


def write_cohort(folder: Path, labels: list[str], **columns: list[object]) -> Path:
    """Write a slide a label, a patient each, and their manifest."""
    rows = []
    for i, label in enumerate(labels):
        write(folder / f"s{i}.tif", tissue=(256 + 128 * i, 384, 1280 + 128 * i, 1152))
        rows.append({"image": f"s{i}.tif", "patient_id": f"P{i}", "label": label})
    manifest = folder / "manifest.csv"
    pd.DataFrame(rows).assign(**columns).to_csv(manifest, index=False)
    return manifest
