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


EIGHT = [
    "original",
    "rotation",
    "ZCA whitening",
    "width shift",
    "height shift",
    "shear",
    "zoom in",
    "horizontal flip",
    "vertical flip",
]


def folds() -> pd.DataFrame:
    labels = [CLASSES[0]] * 3 + [CLASSES[1]] * 2
    cases = [f"x/{i}.png" for i in range(5)]
    return pd.DataFrame({"case_id": cases, "label": labels, "fold": 0, "partition": "train"})


def words(text: str) -> str:
    """Spaces that break and spaces that do not look alike."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


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


def test_strongest_draw_of_each_transform_is_shown():
    plan = draw_plan(folds(), 0, Augmentation(plan="eight", copies=5), CLASSES)
    shown = choose_samples(plan, CLASSES)[0].set_index("transform")
    drawn = plan[plan["case_id"] == shown["case_id"].iloc[0]]
    for transform, name in [
        ("rotate", "angle"),
        ("width_shift", "shift_x"),
        ("shear", "shear"),
        ("zoom", "zoom"),
    ]:
        assert abs(shown.loc[transform, name]) == drawn[name].abs().max()


def test_parameters_are_put_into_words():
    sample = {
        "transform": "mixed",
        "angle": -33.4,
        "shift_x": 0.1,
        "shift_y": -0.25,
        "shear": 5.0,
        "zoom": 1.25,
        "flip_h": True,
        "flip_v": True,
    }
    assert (
        words(describe(sample)) == "-33°; 10 % right; 25 % up; shear +5°; ×1.25; flip horizontal and vertical"
    )
    still = {"angle": 0.0, "shift_x": 0.0, "shift_y": 0.0, "shear": 0.0, "zoom": 1.0}
    assert describe(sample | still | {"transform": "flip_h", "flip_v": False}) == ""


@pytest.mark.parametrize("plan", ["off", "eight", "balanced"])
@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_no_text_is_cut_off_or_overlaps(plan, number):
    names = ["AML", "a class with a name that is long", *"ABCDE", "W" * 40][:number]
    table = pd.DataFrame({"case_id": [f"x/{i}.png" for i in range(number)], "label": names, "fold": 0})
    config = Augmentation(plan=plan, targets={names[0]: 40, names[-1]: 6}, rotation=180)
    rows = choose_samples(draw_plan(table.assign(partition="train"), 0, config, names), names)
    assert len(rows) == number
    pictures = [np.zeros((len(row), 16, 16, 3), np.uint8) for row in rows]
    title = "Augmentation plan “balanced”: 171374 training images, 3256106 samples an epoch; the strongest"
    figure = draw_sheet(pictures, rows, title)
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


def test_each_row_is_the_published_figure():
    plan = draw_plan(folds(), 0, Augmentation(plan="eight"), CLASSES)
    rows = choose_samples(plan, CLASSES)
    figure = draw_sheet([np.zeros((len(row), 8, 8, 3), np.uint8) for row in rows], rows, "plan")
    written = [text.get_text() for text in figure.texts]
    assert [text for text in written if text in EIGHT] == 2 * EIGHT
    assert len(figure.axes) == 2 * 9
    # Each name stands above a picture's middle.
    names = [text for text in figure.texts if text.get_text() in EIGHT]
    for text, axes in zip(names, figure.axes, strict=True):
        box = axes.get_position()
        assert text.get_position()[0] == pytest.approx((box.x0 + box.x1) / 2)
        assert 0 < text.get_position()[1] - box.y1 < 0.05


def test_whitening_on_the_sheet_comes_from_training_images_alone(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [cv2.GaussianBlur(rng.integers(0, 256, (32, 32, 3), np.uint8), (0, 0), 1.5) for _ in range(5)]
    sides = ["train", "train", "validation", "train", "test"]
    draw_plan(folds().assign(partition=sides), 0, Augmentation(plan="eight"), CLASSES).to_parquet(
        tmp_path / "plan.parquet"
    )
    sheets = []
    for changed in (None, 2, 4, 1):
        held = [np.flip(p) if i == changed else p for i, p in enumerate(pictures)]
        with StoreWriter(tmp_path / "store", folds()["case_id"].tolist(), 32, {}) as writer:
            for i, picture in enumerate(held):
                writer.put(i, np.ascontiguousarray(picture))
        out = tmp_path / "sheet.png"
        arguments = ["--plan", str(tmp_path / "plan.parquet"), "--stores", str(tmp_path / "store")]
        options = '{"augmentation":{"plan":"eight"},"classes":["AML","a class with a name that is long"]}'
        main([*arguments, "--out", str(out), "--options", options])
        sheets.append(cv2.imread(str(out)))
    # Images 0 and 3 are the parents shown; 2 and 4 are not trained on, 1 is and is not shown.
    np.testing.assert_array_equal(sheets[0], sheets[1])
    np.testing.assert_array_equal(sheets[0], sheets[2])
    assert (sheets[0] != sheets[3]).any()


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
