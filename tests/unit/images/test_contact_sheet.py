import cv2
import numpy as np
import pandas as pd
import pytest

from marrowflow.config import Augmentation
from marrowflow.errors import UserError
from marrowflow.images.augment import draw_plan
from marrowflow.images.contact_sheet import choose_samples, describe, draw_sheet, main
from marrowflow.images.store import StoreWriter

CLASSES = ["AML", "a class with a name that is long", "ALL"]


def folds() -> pd.DataFrame:
    labels = [CLASSES[0]] * 3 + [CLASSES[1]] * 2
    cases = [f"x/{i}.png" for i in range(5)]
    return pd.DataFrame({"case_id": cases, "label": labels, "fold": 0, "partition": "train"})


def test_one_parent_a_class_and_each_transform_once():
    plan = draw_plan(folds(), 0, Augmentation(plan="eight"), CLASSES)
    rows = choose_samples(plan, CLASSES)
    assert [set(row["label"]) for row in rows] == [{CLASSES[0]}, {CLASSES[1]}]
    for row in rows:
        assert row["case_id"].nunique() == 1
        assert row["transform"].tolist() == list(dict.fromkeys(plan["transform"]))
    with pytest.raises(UserError, match="no sample"):
        choose_samples(plan, ["MDS"])


def test_balanced_shows_the_class_with_many_copies():
    plan = draw_plan(folds(), 0, Augmentation(plan="balanced", targets={"AML": 50}), CLASSES)
    rows = choose_samples(plan, CLASSES)
    assert [len(row) for row in rows] == [9, 1]


def test_parameters_are_put_into_words():
    sample = {
        "angle": -33.4,
        "shift_x": 0.1,
        "shift_y": 0.0,
        "shear": 5.0,
        "zoom": 1.25,
        "flip_h": True,
        "flip_v": True,
    }
    assert describe(sample) == "-33°; shift +0.10, +0.00; shear +5°; ×1.25; flip horizontal and vertical"


@pytest.mark.parametrize("plan", ["off", "eight", "balanced"])
def test_no_text_is_cut_off_or_overlaps(plan):
    config = Augmentation(plan=plan, targets={CLASSES[0]: 40})
    rows = choose_samples(draw_plan(folds(), 0, config, CLASSES), CLASSES)
    pictures = [np.zeros((len(row), 16, 16, 3), np.uint8) for row in rows]
    figure = draw_sheet(
        pictures, rows, "Augmentation plan “balanced”: 171374 training images, 3256106 samples an epoch"
    )
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        for other in boxes[:i]:
            assert (
                min(box.x1, other.x1) - max(box.x0, other.x0) < 1
                or min(box.y1, other.y1) - max(box.y0, other.y0) < 1
            )


def test_command_line_draws_the_pictures(tmp_path):
    pictures = np.full((5, 32, 32, 3), (255, 0, 0), np.uint8)
    with StoreWriter(tmp_path / "store", folds()["case_id"].tolist(), 32, {}) as writer:
        for i, picture in enumerate(pictures):
            writer.put(i, picture)
    draw_plan(folds(), 0, Augmentation(), CLASSES).to_parquet(tmp_path / "plan.parquet")
    out = tmp_path / "sheet.png"
    arguments = ["--plan", str(tmp_path / "plan.parquet"), "--stores", str(tmp_path / "store")]
    arguments += ["--options", '{"classes":["AML","a class with a name that is long"]}']
    main([*arguments, "--out", str(out)])
    sheet = cv2.imread(str(out))
    red = (sheet == (0, 0, 255)).all(axis=2)
    # Two tiles of 1.6 inches at 120 dots an inch; the edges may be a pixel off.
    assert red.sum() == pytest.approx(2 * 192 * 192, rel=0.03)
