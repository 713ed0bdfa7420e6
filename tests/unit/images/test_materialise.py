import cv2
import numpy as np
import pandas as pd
import pytest

from marrowflow.config import Augmentation
from marrowflow.errors import UserError
from marrowflow.images.augment import draw_plan
from marrowflow.images.materialise import main
from marrowflow.images.store import StoreWriter
from marrowflow.images.whitening import apply_whitening, fit_patch_zca

CASES = [f"{cohort}/{i}.png" for cohort in ("a", "b") for i in range(3)]
OPTIONS = '{"augmentation":{"plan":"eight","copies":2}}'


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (6, 32, 32, 3), np.uint8)


@pytest.fixture
def stores(tmp_path, pictures) -> list[str]:
    """Two stores of three pictures each."""
    for name, first in (("a", 0), ("b", 3)):
        with StoreWriter(tmp_path / name, CASES[first : first + 3], 32, {}) as writer:
            for i in range(3):
                writer.put(i, pictures[first + i])
    return [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.fixture
def plan(tmp_path) -> pd.DataFrame:
    """Four of the six cases train."""
    sides = ["train", "train", "test", "train", "train", "validation"]
    folds = pd.DataFrame({"case_id": CASES, "label": "AML", "fold": 0, "partition": sides})
    plan = draw_plan(folds, 0, Augmentation(plan="eight", copies=2), ["AML"])
    plan.to_parquet(tmp_path / "plan.parquet")
    return plan


def test_each_row_of_the_plan_becomes_a_picture(tmp_path, plan, pictures, stores):
    out = tmp_path / "pictures"
    arguments = ["--plan", str(tmp_path / "plan.parquet"), "--options", OPTIONS, "--out", str(out)]
    main([*arguments, "--stores", *stores])
    written = {str(p.relative_to(out)) for p in out.rglob("*.png") if p.is_file()}
    assert written == {f"{r.case_id}/{r.transform}_{r.copy}.png" for r in plan.itertuples()}
    assert len(written) == 4 * 14
    whitened = apply_whitening(pictures, fit_patch_zca(pictures[[0, 1, 3, 4]], 1e-2))
    for i in (0, 1, 3, 4):
        expected = {"original": pictures[i], "flip_h": pictures[i][:, ::-1], "whiten": whitened[i]}
        for name, picture in expected.items():
            found = cv2.imread(str(out / CASES[i] / f"{name}_0.png"))
            np.testing.assert_array_equal(found[:, :, ::-1], picture)
    with pytest.raises(UserError, match="is not empty"):
        main([*arguments, "--stores", *stores])


def test_store_that_is_missing_is_named_and_nothing_is_left(tmp_path, plan, stores):
    out = tmp_path / "pictures"
    arguments = ["--plan", str(tmp_path / "plan.parquet"), "--options", OPTIONS, "--out", str(out)]
    with pytest.raises(UserError, match=r"b/0\.png"):
        main([*arguments, "--stores", stores[0]])
    assert not [path for path in tmp_path.iterdir() if "pictures" in path.name]
