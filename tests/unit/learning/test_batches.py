"""Batches: the device's warp, whitening and resizing against OpenCV and Pillow."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_study import write_store

from marrowflow.config import Augmentation
from marrowflow.images.augment import apply, draw_plan
from marrowflow.images.store import PackedPixels
from marrowflow.images.whitening import fit_patch_zca
from marrowflow.learning import batches
from marrowflow.learning.batches import ImageSamples, in_order, shuffled
from marrowflow.learning.preparation import Preparation, normalised_maps

CPU = torch.device("cpu")
SIZE = 64


def smooth_images(n: int, seed: int = 0) -> np.ndarray:
    """Return uint8 [n, 64, 64, 3] without fine detail, where kinds of interpolation agree."""
    noise = np.random.default_rng(seed).uniform(0, 255, (n, SIZE, SIZE, 3)).astype(np.float32)
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 4) for image in noise])
    low, high = blurred.min(), blurred.max()
    return ((blurred - low) / (high - low) * 255).astype(np.uint8)


def eight_plan(cases: list[str]) -> pd.DataFrame:
    folds = pd.DataFrame({"case_id": cases, "label": "x", "fold": 0, "partition": "train"})
    return draw_plan(folds, 0, Augmentation(plan="eight", copies=2), ["x"])


def levels(x: torch.Tensor) -> np.ndarray:
    """Return float [n, size, size, 3] in levels 0..255 of inputs prepared with mean 0 and deviation 1."""
    return x.permute(0, 2, 3, 1).numpy() * 255


def test_warp_and_whitening_are_those_of_the_plan_on_files() -> None:
    images = smooth_images(3)
    plan = eight_plan(["a", "b", "c"])
    parents = images[[("a", "b", "c").index(case) for case in plan["case_id"]]]
    whitening = fit_patch_zca(images, 1e-2)
    expected = apply(parents, plan, whitening).astype(float)
    theta = torch.from_numpy(normalised_maps(plan, SIZE)).float()
    prepare = Preparation(SIZE, (0, 0, 0), (1, 1, 1), whitening)
    whitened = torch.from_numpy(np.flatnonzero(plan["whiten"]))
    ours = levels(prepare(torch.from_numpy(parents), theta, whitened))
    assert set(plan["transform"]) >= {"rotate", "shear", "zoom", "flip_h", "whiten", "width_shift"}
    difference = np.abs(ours - expected)
    assert difference.max() < 2.5  # OpenCV rounds places to 1/32 pixel and levels to integers
    assert difference.mean() < 0.5
    flips = (plan["flip_h"] | plan["flip_v"]).to_numpy()
    np.testing.assert_allclose(ours[flips], expected[flips], atol=0.02)


def test_shrinking_is_pillows_antialiased_bilinear() -> None:
    image = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    ours = levels(Preparation(24, (0, 0, 0), (1, 1, 1))(torch.from_numpy(image[None])))[0]
    pillow = np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BILINEAR), float)
    assert np.abs(ours - pillow).max() <= 1.01


def test_normalised_and_channels_last() -> None:
    pixels = torch.full((2, SIZE, SIZE, 3), 51, dtype=torch.uint8)
    x = Preparation(SIZE, (0.1, 0.2, 0.3), (0.1, 0.2, 0.5))(pixels)
    assert x.shape == (2, 3, SIZE, SIZE)
    assert x.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(x[0, :, 0, 0].numpy(), [1.0, 0.0, -0.2], atol=1e-6)  # 51 / 255 = .2


@pytest.fixture
def two_stores(tmp_path: Path) -> tuple[list[Path], dict[str, np.ndarray]]:
    images = smooth_images(7)
    names = [f"a/{i}" for i in range(4)] + [f"b/{i}" for i in range(3)]
    folders = [
        write_store(tmp_path / "a", names[:4], images[:4]),
        write_store(tmp_path / "b", names[4:], images[4:]),
    ]
    return folders, dict(zip(names, images, strict=True))


def test_on_a_cpu_the_network_sees_what_the_plan_writes_to_files(
    two_stores: tuple[list[Path], dict[str, np.ndarray]],
) -> None:
    folders, images = two_stores
    plan = eight_plan(sorted(images))
    parents = np.stack([images[case] for case in plan["case_id"]])
    whitening = fit_patch_zca(np.stack(list(images.values())), 1e-2)
    expected = apply(parents, plan, whitening)
    prepare = Preparation(SIZE, (0, 0, 0), (1, 1, 1), whitening)
    samples = ImageSamples(
        PackedPixels(folders), plan["case_id"].tolist(), np.arange(len(plan)), prepare, CPU, plan
    )
    for inputs, targets in samples.batches(shuffled(len(plan), 5, (0, 0, 1))):
        np.testing.assert_allclose(levels(inputs), expected[targets.numpy()], atol=1e-3)


def test_pixels_kept_on_the_device_give_the_same_batches(
    two_stores: tuple[list[Path], dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, images = two_stores
    plan = eight_plan(sorted(images))
    prepare = Preparation(SIZE, (0, 0, 0), (1, 1, 1), fit_patch_zca(np.stack(list(images.values())), 1e-2))
    chunks = shuffled(len(plan), 5, (0, 0, 1))
    monkeypatch.setattr(batches, "_warps_on", lambda device: True)

    def run() -> list[torch.Tensor]:
        samples = ImageSamples(
            PackedPixels(folders), plan["case_id"].tolist(), np.arange(len(plan)), prepare, CPU, plan
        )
        return [torch.cat([x.flatten(1), t[:, None].float()], dim=1) for x, t in samples.batches(chunks)]

    from_disk = run()
    monkeypatch.setattr(batches, "_fits", lambda size, device: True)
    for one, other in zip(from_disk, run(), strict=True):
        assert torch.equal(one, other)
    parents = np.stack([images[case] for case in plan["case_id"]])
    expected = apply(parents, plan, prepare.whitening).astype(float)
    for batch in from_disk:
        ours = levels(batch[:, :-1].view(-1, 3, SIZE, SIZE))
        assert np.abs(ours - expected[batch[:, -1].int().numpy()]).max() < 2.5
    targets = torch.cat(from_disk)[:, -1].numpy().astype(int)
    np.testing.assert_array_equal(targets, np.concatenate(chunks))


@settings(deadline=None)
@given(n=st.integers(2, 70), batch=st.integers(1, 20), key=st.integers(0, 1000))
def test_every_sample_once_an_epoch_and_none_alone(n: int, batch: int, key: int) -> None:
    chunks = shuffled(n, batch, (key, 0, 1))
    assert sorted(np.concatenate(chunks).tolist()) == list(range(n))
    assert all(len(chunk) <= batch + 1 for chunk in chunks)
    if batch > 1:
        assert min(map(len, chunks)) > 1
    assert np.concatenate(in_order(n, batch)).tolist() == list(range(n))


def test_order_changes_from_epoch_to_epoch_and_fold_to_fold() -> None:
    orders = {
        tuple(np.concatenate(shuffled(50, 8, key))) for key in [(0, 0, 1), (0, 0, 2), (0, 1, 1), (1, 0, 1)]
    }
    assert len(orders) == 4
    assert np.array_equal(
        np.concatenate(shuffled(50, 8, (3, 1, 4))), np.concatenate(shuffled(50, 8, (3, 1, 4)))
    )
