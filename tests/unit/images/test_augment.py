import cv2
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from scipy.ndimage import affine_transform

from marrowflow.config import Augmentation
from marrowflow.errors import UserError
from marrowflow.images.augment import COLUMNS, apply, draw_plan, main, matrices
from marrowflow.images.whitening import apply_whitening, fit_patch_zca

CLASSES = ["AML", "ALL"]
IDENTITY = {
    "angle": 0.0,
    "shift_x": 0.0,
    "shift_y": 0.0,
    "shear": 0.0,
    "zoom": 1.0,
    "flip_h": False,
    "flip_v": False,
    "whiten": False,
}


def folds(aml: int = 10, all_: int = 4) -> pd.DataFrame:
    labels = ["AML"] * aml + ["ALL"] * all_
    table = pd.DataFrame({"case_id": [f"x/{i:03}.png" for i in range(len(labels))], "label": labels})
    held_out = pd.DataFrame({"case_id": ["x/t.png", "x/v.png"], "label": ["AML", "ALL"]})
    table["type"], held_out["type"] = table["label"], held_out["label"]
    return pd.concat(
        [
            table.assign(fold=0, partition="train"),
            held_out.assign(fold=0, partition=["test", "validation"]),
            table.assign(fold=1, partition="test"),
            held_out.assign(fold=1, partition="train"),
        ],
        ignore_index=True,
    )


def row(**changes) -> pd.DataFrame:
    return pd.DataFrame([{**IDENTITY, **changes}])


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def test_off_is_each_training_image_once():
    plan = draw_plan(folds(), 0, Augmentation(), CLASSES)
    assert tuple(plan.columns) == COLUMNS
    assert plan["case_id"].tolist() == [f"x/{i:03}.png" for i in range(14)]
    for name, value in IDENTITY.items():
        assert (plan[name] == value).all()
    assert plan["seed"].dtype == np.int64 and plan["seed"].nunique() == 14


@pytest.mark.parametrize(("copies", "per_image"), [(1, 9), (3, 19)])
def test_eight_makes_no_picture_twice(copies, per_image):
    plan = draw_plan(folds(), 0, Augmentation(plan="eight", copies=copies), CLASSES)
    assert len(plan) == 14 * per_image
    assert not plan.duplicated(["case_id", *IDENTITY]).any()
    kinds = plan.groupby("case_id")["transform"].value_counts().unstack()
    assert (kinds[["rotate", "width_shift", "height_shift", "shear", "zoom"]] == copies).all(axis=None)
    assert (kinds[["original", "whiten", "flip_h", "flip_v"]] == 1).all(axis=None)


def test_each_transform_changes_its_own_parameter_within_its_range():
    config = Augmentation(plan="eight", copies=50, rotation=35, shift=0.35, shear=20, zoom=0.35)
    plan = draw_plan(folds(), 0, config, CLASSES)
    limits = {"rotate": ("angle", 35), "width_shift": ("shift_x", 0.35), "height_shift": ("shift_y", 0.35)}
    limits |= {"shear": ("shear", 20)}
    for transform, (name, limit) in limits.items():
        drawn = plan.loc[plan["transform"] == transform, name]
        assert drawn.abs().max() <= limit
        # 700 uniform draws on ±limit: mean 0, deviation limit / √3.
        assert abs(drawn.mean()) < 0.1 * limit
        assert drawn.std() == pytest.approx(limit / 3**0.5, rel=0.05)
        assert (plan.loc[plan["transform"] != transform, name] == 0).all()
    # The visible share of the side is uniform on .65..1.
    visible = 1 / plan.loc[plan["transform"] == "zoom", "zoom"]
    assert visible.min() >= 0.65 and visible.max() <= 1
    assert visible.mean() == pytest.approx(0.825, abs=0.02)


def test_transform_without_range_is_left_out():
    plan = draw_plan(folds(), 0, Augmentation(plan="eight", rotation=0, shear=0), CLASSES)
    assert len(plan) == 14 * (1 + 3 * 3 + 3)
    assert not set(plan["transform"]) & {"rotate", "shear"}


@settings(deadline=None, max_examples=20)
@given(
    plan=st.sampled_from(["off", "eight"]),
    keep=st.sets(st.integers(0, 13), min_size=1),
    seed=st.integers(0, 99),
)
def test_rows_do_not_depend_on_other_cases_or_their_order(plan, keep, seed):
    table = folds()
    config = Augmentation(plan=plan, seed=seed)
    whole = draw_plan(table, 0, config, CLASSES)
    some = table.iloc[sorted(keep, reverse=True)]
    expected = whole[whole["case_id"].isin(some["case_id"])]
    drawn = draw_plan(some, 0, config, CLASSES)
    order = ["case_id", "transform", "copy"]
    pd.testing.assert_frame_equal(
        drawn.sort_values(order, ignore_index=True), expected.sort_values(order, ignore_index=True)
    )


def test_folds_and_seeds_draw_anew():
    table = pd.concat([folds().query("fold == 0"), folds().query("fold == 0").assign(fold=1)])
    angles = [
        draw_plan(table, fold, Augmentation(plan="eight", seed=seed), CLASSES)["angle"].to_numpy()
        for fold, seed in ((0, 0), (1, 0), (0, 1))
    ]
    rotated = angles[0] != 0
    assert all((a[rotated] != b[rotated]).all() for a, b in ((angles[0], angles[1]), (angles[0], angles[2])))


def test_balanced_reaches_its_targets_evenly():
    config = Augmentation(plan="balanced", targets={"AML": 6, "ALL": 11})
    plan = draw_plan(folds(aml=10, all_=4), 0, config, CLASSES)
    assert plan["label"].value_counts().to_dict() == {"ALL": 11, "AML": 6}
    aml, all_ = plan[plan["label"] == "AML"], plan[plan["label"] == "ALL"]
    assert (aml["transform"] == "original").all() and aml["case_id"].is_unique
    assert sorted(all_["case_id"].value_counts()) == [2, 3, 3, 3]  # 7 copies over 4 images
    assert (all_.groupby("case_id")["transform"].apply(lambda t: (t == "original").sum()) == 1).all()
    mixed = all_[all_["transform"] == "mixed"]
    assert (mixed[["angle", "shift_x", "shift_y", "shear"]] != 0).all(axis=None)
    assert not mixed.duplicated(["case_id", "copy"]).any()


def test_balanced_draws_each_flip_half_the_time_and_any_rotation():
    config = Augmentation(plan="balanced", targets={"ALL": 2004}, rotation=180, shift=0.25, shear=5, zoom=0)
    mixed = draw_plan(folds(), 0, config, CLASSES).query("transform == 'mixed'")
    assert len(mixed) == 2000
    for name in ("flip_h", "flip_v"):
        assert mixed[name].mean() == pytest.approx(0.5, abs=0.05)
    assert np.corrcoef(mixed["flip_h"], mixed["flip_v"])[0, 1] == pytest.approx(0, abs=0.08)
    assert np.histogram(mixed["angle"], bins=4, range=(-180, 180))[0] == pytest.approx([500] * 4, abs=80)
    assert (mixed["zoom"] == 1).all()


def test_balanced_keeps_the_same_images_when_others_come():
    config = Augmentation(plan="balanced", targets={"AML": 6})
    few = set(draw_plan(folds(aml=10), 0, config, CLASSES).query("label == 'AML'")["case_id"])
    more = folds(aml=10)
    extra = more.iloc[:1].assign(case_id="x/extra.png")
    many = set(draw_plan(pd.concat([more, extra]), 0, config, CLASSES).query("label == 'AML'")["case_id"])
    assert len(few & many) >= 5


def test_balanced_class_without_target_keeps_its_number():
    plan = draw_plan(folds(aml=10, all_=4), 0, Augmentation(plan="balanced", targets={"ALL": 8}), CLASSES)
    assert plan["label"].value_counts().to_dict() == {"AML": 10, "ALL": 8}


def test_targets_of_types_leave_the_label_the_class():
    table = folds(aml=10, all_=4)
    table["type"] = [f"{label}{i % 2}" for i, label in enumerate(table["label"])]
    config = Augmentation(plan="balanced", targets_of="types", targets={"AML0": 9, "AML1": 2, "ALL1": 7})
    plan = draw_plan(table, 0, config, CLASSES)
    # AML0, AML1, ALL0 and ALL1 train on 5, 5, 2 and 2 images.
    assert plan["label"].value_counts().to_dict() == {"AML": 11, "ALL": 9}
    types = plan["case_id"].map(table[table["fold"] == 0].set_index("case_id")["type"])
    assert types.value_counts().to_dict() == {"AML0": 9, "AML1": 2, "ALL0": 2, "ALL1": 7}
    with pytest.raises(UserError, match="did you mean 'AML0'"):
        draw_plan(table, 0, config.model_copy(update={"targets": {"AML00": 1}}), CLASSES)


def divided(fold_count: int = 2) -> pd.DataFrame:
    """Return folds of samples: five of one image, dealt anew in each fold."""
    samples = pd.DataFrame(
        {
            "case_id": "x/0.png",
            "label": "AML",
            "type": "AML",
            "transform": ["original", "rotate", "rotate", "whiten", "zoom"],
            "copy": [0, 0, 1, 0, 0],
        }
    )
    sides = [
        ["train", "test", "train", "validation", "test"],
        ["test", "train", "train", "train", "validation"],
    ]
    return pd.concat(
        [samples.assign(fold=f, partition=sides[f]) for f in range(fold_count)], ignore_index=True
    )


def test_divided_samples_are_all_drawn_each_on_its_side_and_the_same_in_every_fold():
    config = Augmentation(plan="eight")
    plans = [draw_plan(divided(), fold, config, CLASSES) for fold in (0, 1)]
    assert plans[0]["partition"].tolist() == ["train", "test", "train", "validation", "test"]
    assert plans[1]["partition"].tolist() == ["test", "train", "train", "train", "validation"]
    pd.testing.assert_frame_equal(plans[0].drop(columns="partition"), plans[1].drop(columns="partition"))
    # They are the pictures that a plan of the undivided image has.
    image = pd.DataFrame(
        {"case_id": ["x/0.png"], "label": "AML", "type": "AML", "fold": 0, "partition": "train"}
    )
    whole = draw_plan(image, 0, config, CLASSES)
    both = plans[0].drop(columns="partition").merge(whole)
    assert len(both) == 5


def test_undivided_plans_are_for_training():
    for plan in ("off", "eight", "balanced"):
        assert (draw_plan(folds(), 0, Augmentation(plan=plan), CLASSES)["partition"] == "train").all()


@pytest.mark.parametrize(
    ("fold", "targets", "message"),
    [
        (7, {}, r"fold 7 has no training case; the table has folds \[0, 1\]"),
        (0, {"MDS": 5}, "5 images wanted, but fold 0 trains on none"),
    ],
)
def test_impossible_plans_are_refused(fold, targets, message):
    with pytest.raises(UserError, match=message):
        draw_plan(folds(), fold, Augmentation(plan="balanced", targets=targets), [*CLASSES, "MDS"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, lambda a: a),
        ({"flip_h": True}, lambda a: a[:, ::-1]),
        ({"flip_v": True}, lambda a: a[::-1]),
        ({"angle": 90.0}, np.rot90),
        ({"angle": 180.0}, lambda a: a[::-1, ::-1]),
        ({"angle": -90.0, "flip_h": True}, lambda a: np.rot90(a[:, ::-1], -1)),
        ({"shift_x": 0.25}, lambda a: np.concatenate([np.repeat(a[:, :1], 12, 1), a[:, :-12]], 1)),
        ({"shift_y": -0.25}, lambda a: np.concatenate([a[12:], np.repeat(a[-1:], 12, 0)], 0)),
    ],
)
def test_exact_cases_equal_numpy(image, changes, expected):
    np.testing.assert_array_equal(apply(image[None], row(**changes))[0], expected(image))


def test_rotation_agrees_with_opencv_about_the_centre(image):
    forward = cv2.getRotationMatrix2D((23.5, 23.5), 33.0, 1.25)
    expected = cv2.invertAffineTransform(forward)
    np.testing.assert_allclose(matrices(row(angle=33.0, zoom=1.25), 48)[0], expected, atol=1e-9)


def test_shear_moves_lower_rows_to_the_right():
    # At 45° a row y below the centre moves y to the right: output (x + y, y) shows input (x, y).
    matrix = matrices(row(shear=45.0), 11)[0]
    np.testing.assert_allclose(matrix @ [5 + 3 + 2, 5 + 3, 1], [5 + 2, 5 + 3], atol=1e-12)


def test_order_is_flip_rotate_shear_zoom_shift():
    sample = row(angle=30.0, shift_x=0.1, shift_y=-0.2, shear=20.0, zoom=1.5, flip_h=True)
    x, y = np.array([4.0, 2.0])  # from the centre, y downwards
    x = -x
    a, s = np.deg2rad(30), np.deg2rad(20)
    x, y = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    x = x + np.tan(s) * y
    x, y = 1.5 * x + 0.1 * 32, 1.5 * y - 0.2 * 32
    centre = (32 - 1) / 2
    back = matrices(sample, 32)[0] @ [x + centre, y + centre, 1]
    np.testing.assert_allclose(back, [4 + centre, 2 + centre], atol=1e-9)


def test_apply_agrees_with_scipy(image):
    plan = draw_plan(folds(), 0, Augmentation(plan="balanced", targets={"ALL": 12}), CLASSES)
    plan = plan[plan["transform"] == "mixed"]
    pictures = apply(np.repeat(image[None], len(plan), 0), plan)
    for picture, matrix in zip(pictures, matrices(plan, 48), strict=True):
        swapped = matrix[::-1, [1, 0, 2]]  # scipy counts rows before columns
        expected = np.stack(
            [
                affine_transform(
                    image[..., c].astype(float), swapped[:, :2], swapped[:, 2], order=1, mode="nearest"
                )
                for c in range(3)
            ],
            axis=-1,
        )
        # OpenCV interpolates at steps of 1/32 pixel.
        assert np.abs(picture - expected).max() < 4
        assert np.abs(picture - expected).mean() < 0.6


def test_apply_whitens_only_the_rows_that_say_so(image):
    whitening = fit_patch_zca(image[None], 1e-2)
    plan = pd.concat([row(), row(whiten=True)])
    plain, white = apply(np.stack([image, image]), plan, whitening)
    np.testing.assert_array_equal(plain, image)
    np.testing.assert_array_equal(white, apply_whitening(image[None], whitening)[0])
    with pytest.raises(ValueError, match="needed"):
        apply(np.stack([image, image]), plan)


def test_command_line(tmp_path):
    folds().to_parquet(tmp_path / "folds.parquet")
    out = tmp_path / "plan.parquet"
    arguments = ["--folds", str(tmp_path / "folds.parquet"), "--fold", "1", "--out", str(out)]
    main([*arguments, "--options", '{"augmentation":{"plan":"eight","copies":2},"classes":["AML","ALL"]}'])
    plan = pd.read_parquet(out)
    assert set(plan["case_id"]) == {"x/t.png", "x/v.png"}
    assert len(plan) == 2 * 14
