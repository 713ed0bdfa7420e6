"""Samples by name: hand counts of each plan, with the label map of 21 types that the project ships."""

from pathlib import Path

import pandas as pd
import pytest

from marrowflow.cohorts.manifest import read_label_map
from marrowflow.config import Augmentation
from marrowflow.errors import UserError
from marrowflow.splits.samples import sample_names, samples_of, targeted_names

LABEL_MAP = Path(__file__).parents[3] / "resources/label_maps/marrow21_to_5.csv"
CLASSES = ["erythropoiesis", "granulopoiesis", "lymphopoiesis", "monopoiesis", "others"]
# bt5153: 2500 images of each type of erythropoiesis, 500 of granulopoiesis, 1250 of lymphopoiesis, and so on.
EACH = dict(zip(CLASSES, (2500, 500, 1250, 5000, 1250), strict=True))
TYPES = dict(zip(CLASSES, (2, 10, 4, 1, 4), strict=True))


def images(number: dict[str, int]) -> pd.DataFrame:
    """Return that many cases of each type, in an order in which types alternate."""
    mapped = read_label_map(LABEL_MAP, CLASSES)
    rows = [(f"x/{name}{i}.png", mapped[name], name) for name, n in number.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["case_id", "label", "type"]).sample(frac=1, random_state=0)


def balanced(targets: dict[str, int], **more) -> Augmentation:
    return Augmentation(plan="balanced", targets=targets, targets_of="types", **more)


def draw(cases: pd.DataFrame, augmentation: Augmentation, fold: int = 0) -> pd.DataFrame:
    return samples_of(cases, augmentation, fold, targeted_names(cases, augmentation, CLASSES))


def test_published_targets_of_21_types_give_5000_a_class():
    mapped = read_label_map(LABEL_MAP, CLASSES)
    # Rare types of three images, of one, and types with more images than their target.
    number = dict.fromkeys(mapped, 3) | {"KSC": 1, "NGS": 700, "EBO": 2600, "LYT": 1250}
    cases = images(number)
    samples = draw(cases, balanced({name: EACH[label] for name, label in mapped.items()}))
    assert samples["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, 5000)
    assert len(samples) == 25_000
    types = samples["case_id"].str.extract(r"x/(\D+)")[0]
    assert types.value_counts().to_dict() == {name: EACH[label] for name, label in mapped.items()}
    assert types.groupby(samples["label"]).nunique().to_dict() == TYPES
    assert (types.map(mapped) == samples["label"]).all()
    per_image = samples["case_id"].value_counts()
    # 1250 of one image; 5000 = 3·1666 + 2, so two of the three have one more.
    assert per_image["x/KSC0.png"] == 1250
    assert sorted(per_image[per_image.index.str.startswith("x/MON")]) == [1666, 1667, 1667]
    down = samples[types == "NGS"]
    assert down["case_id"].nunique() == 500 and (down["transform"] == "original").all()
    assert not sample_names(samples).duplicated().any()


def test_types_without_target_keep_their_number():
    samples = draw(images({"EBO": 4, "PEB": 3, "MON": 2}), balanced({"PEB": 10}))
    assert samples["label"].value_counts().to_dict() == {"erythropoiesis": 14, "monopoiesis": 2}


def test_images_kept_of_a_type_do_not_depend_on_other_types():
    few = draw(images({"NGS": 40}), balanced({"NGS": 7}))
    many = draw(images({"NGS": 40, "PMO": 30, "MON": 5}), balanced({"NGS": 7, "PMO": 3}))
    assert set(few["case_id"]) == set(many.loc[many["case_id"].str.contains("NGS"), "case_id"])
    assert set(draw(images({"NGS": 40}), balanced({"NGS": 7}), fold=1)["case_id"]) != set(few["case_id"])


def test_unknown_type_is_named_with_the_nearest():
    with pytest.raises(
        UserError, match=r"(?s)no development image is of this type.*'EBOO'.*did you mean 'EBO'"
    ):
        draw(images({"EBO": 2, "MON": 2}), balanced({"EBOO": 5, "MON": 2}))


def test_a_type_without_training_image_is_told_of_and_left_out(caplog):
    cases = images({"EBO": 2, "MON": 2})
    drawn = samples_of(cases[cases["type"] == "EBO"], balanced({"EBO": 3, "MON": 5}), 3, ["EBO", "MON"])
    assert len(drawn) == 3
    assert "targets.MON: 5 images wanted, but fold 3 trains on none of this type" in caplog.text


def test_a_class_without_training_image_is_refused():
    cases = images({"EBO": 2})
    augmentation = Augmentation(plan="balanced", targets={"monopoiesis": 5})
    with pytest.raises(UserError, match=r"targets\.monopoiesis: 5 images wanted, but fold 3 trains on none"):
        samples_of(cases, augmentation, 3, ["erythropoiesis", "monopoiesis"])


def test_a_samples_name_is_its_image_its_transform_and_its_copy():
    samples = draw(images({"MON": 1}), Augmentation(plan="eight", copies=2))
    names = sample_names(samples).tolist()
    assert len(set(names)) == 14
    assert names[:4] == [f"x/MON0.png#{name}" for name in ("original0", "rotate0", "rotate1", "whiten0")]
