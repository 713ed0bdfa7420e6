import io
import tarfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given, settings
from split_inventories import copy_image, inventory, patients, stack

from marrowflow.config import AsPublished, Augmentation, Splits
from marrowflow.errors import UserError
from marrowflow.splits.dealing import deal, share_of
from marrowflow.splits.groups import connected
from marrowflow.splits.leakage import check_folds
from marrowflow.splits.partition import COLUMNS, count_sides, main, partition

MALARIA = Path(__file__).parents[4] / "shared/data/malaria_nih50.tar"
CLASSES = ["healthy", "AML", "ALL"]


def side_of(folds: pd.DataFrame) -> dict[tuple[int, str], str]:
    return dict(zip(zip(folds["fold"], folds["case_id"], strict=True), folds["partition"], strict=True))


def hospital(cohort: str, counts: list[int], labels: list[str] | None = None) -> pd.DataFrame:
    labels = labels or CLASSES
    return inventory(
        cohort, [row for label, n in zip(labels, counts, strict=True) for row in patients(label, n, 2)]
    )


schemes = st.sampled_from(
    [
        Splits(folds=2, seed=1),
        Splits(folds=4, validation=0, seed=2),
        Splits(scheme="monte_carlo", folds=3, seed=3),
        Splits(scheme="holdout", test=0.4, seed=4),
    ]
)
sizes = st.lists(st.integers(5, 12), min_size=3, max_size=3)


@settings(deadline=None, max_examples=30)
@given(splits=schemes, old=sizes, new=sizes, name=st.sampled_from(["aaa", "zzz"]), first=st.booleans())
def test_adding_a_cohort_moves_nobody(splits, old, new, name, first):
    before, added = hospital("mid", old), hospital(name, new)
    both = stack(added, before) if first else stack(before, added)
    alone = side_of(partition(before, splits, CLASSES, 3))
    together = side_of(partition(both, splits, CLASSES, 3))
    assert {key: together[key] for key in alone} == alone


@settings(deadline=None, max_examples=20)
@given(splits=schemes, old=sizes, new=st.integers(5, 9), place=st.integers(0, 3))
def test_adding_a_class_moves_nobody(splits, old, new, place):
    before = hospital("mid", old)
    classes = [*CLASSES[:place], "CML", *CLASSES[place:]]
    both = hospital("mid", [*old, new], [*CLASSES, "CML"])
    alone = side_of(partition(before, splits, CLASSES, 3))
    together = side_of(partition(both, splits, classes, 3))
    assert {key: together[key] for key in alone} == alone


def test_a_later_cohort_with_copies_moves_nobody_of_the_first():
    before, added = hospital("mid", [8, 8, 8]), hospital("aaa", [8, 8, 8])
    both = stack(before, added)
    copy_image(both, 3, len(before) + 40)
    folds = partition(both, Splits(folds=4), CLASSES, 3)
    alone, together = side_of(partition(before, Splits(folds=4), CLASSES, 3)), side_of(folds)
    assert {key: together[key] for key in alone} == alone
    joined = folds[folds["case_id"].isin([both["case_id"][3], both["case_id"][len(before) + 40]])]
    assert joined.groupby("fold")["partition"].nunique().tolist() == [1] * 4
    assert set(joined["group"]) == {both["patient_id"][3]}


@settings(deadline=None, max_examples=30)
@given(
    splits=schemes,
    links=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=6),
    data=st.data(),
)
def test_groups_never_cross_and_order_of_rows_makes_no_difference(splits, links, data):
    table = stack(hospital("one", [6, 5, 4]), hospital("two", [5, 5, 5]))
    for source, target in links:
        copy_image(table, source, target)
    try:
        folds = partition(table, splits, CLASSES, 3)
    except UserError:
        return
    for column in ("patient_id", "group"):
        assert (folds.groupby(["fold", column])["partition"].nunique() == 1).all()
    assert check_folds(folds, table, 3, "sound")["leaks"] == dict.fromkeys(
        ["patients", "groups", "exact_duplicates", "near_duplicates"], 0
    )
    # Within a cohort rows may come in any order; the cohorts' own order stays.
    shuffled = stack(
        *(table[table["cohort"] == c].iloc[data.draw(st.permutations(range(30)))] for c in ("one", "two"))
    )
    assert side_of(partition(shuffled, splits, CLASSES, 3)) == side_of(folds)


@settings(deadline=None, max_examples=40)
@given(number=st.integers(2, 40), folds=st.integers(2, 9), share=st.sampled_from([0.0, 0.2, 0.5]))
def test_kfold_deals_evenly_and_tests_each_once(number, folds, share):
    names = [f"p{i}" for i in range(number)]
    dealt = deal({("a", "x"): names}, Splits(folds=folds, validation=share), 7)
    tested = Counter(name for side in dealt for name, part in side.items() if part == "test")
    assert tested == dict.fromkeys(names, 1)
    per_fold = [Counter(side.values()) for side in dealt]
    assert {c["test"] for c in per_fold} <= {number // folds, -(-number // folds)}
    for count in per_fold:
        rest = number - count["test"]
        assert abs(count["validation"] - share * rest) <= (0.5 if share * rest >= 1 else 1)


def test_small_strata_start_in_different_folds():
    strata = {(f"hospital{i}", "x"): [f"hospital{i}/p"] for i in range(200)}
    dealt = deal(strata, Splits(folds=5), 0)
    sizes_of_folds = [Counter(side.values())["test"] for side in dealt]
    assert sum(sizes_of_folds) == 200
    assert max(sizes_of_folds) < 70  # all 200 if every stratum began in fold 0; 40 ± 6 by chance


def test_share_is_rounded_to_nearest_within_limits():
    table = {
        (1, 0.5): 0,
        (2, 0.1): 1,
        (2, 0.9): 1,
        (3, 0.2): 1,
        (8, 0.2): 2,
        (10, 0.25): 3,
        (302, 0.25): 76,
        (9, 0): 0,
    }
    assert {key: share_of(*key) for key in table} == table


def test_huang2020_test_set_has_the_published_size():
    # 1,322 images, 75/25 by image: 991 and 331 (Huang 2020).
    counts = {"healthy": 380, "AML": 400, "ALL": 302, "CML": 240}
    table = inventory("h", [(f"p{i % 112}", label) for label, n in counts.items() for i in range(n)])
    splits = Splits(
        protocol="as_published", as_published=AsPublished(scheme="holdout", test=0.25, validation=0)
    )
    folds = partition(table, splits, list(counts), 3, "as_published")
    assert folds["partition"].value_counts().to_dict() == {"train": 991, "test": 331}
    leaks = check_folds(folds, table, 3, "as_published")["leaks"]
    assert leaks["patients"] > 100 and leaks["exact_duplicates"] == 0


def test_connected_agrees_with_closure_by_hand():
    patient = pd.Series(["d", "c", "c", "b", "a", "e"])
    cluster = pd.Series([0, 0, 1, 1, 2, 3])
    assert connected(patient, cluster).tolist() == ["b", "b", "b", "b", "a", "e"]


def test_group_of_several_labels_stands_with_its_most_frequent_one():
    # Ten patients of mostly AML and ten of mostly healthy images: each half of a two-fold split gets five of each.
    rows = [(f"a{i}", label) for i in range(10) for label in ("AML", "AML", "healthy")]
    rows += [(f"h{i}", label) for i in range(10) for label in ("healthy", "healthy", "AML")]
    folds = partition(inventory("x", rows), Splits(folds=2), ["healthy", "AML"], 3)
    tested = folds[(folds["partition"] == "test") & (folds["fold"] == 0)]["patient_id"].unique()
    assert Counter(name[2] for name in tested) == {"a": 5, "h": 5}


def test_tie_of_labels_goes_to_the_first_class():
    rows = [(f"t{i}", label) for i in range(4) for label in ("AML", "healthy")] + patients("AML", 4)
    table = inventory("x", rows)
    tied = {f"x/t{i}" for i in range(4)}
    for classes, expected in ((["healthy", "AML"], [2, 2]), (["AML", "healthy"], None)):
        folds = partition(table, Splits(folds=2, validation=0), classes, 3)
        tested = folds[folds["partition"] == "test"].groupby("fold")["patient_id"].apply(set)
        counts = [len(group & tied) for group in tested]
        assert sum(counts) == 4
        if expected:  # a stratum of their own: dealt two and two
            assert counts == expected
        assert [len(group) for group in tested] == [4, 4]


def test_scarce_class_is_named_with_what_is_possible():
    table = hospital("x", [9, 9, 3])
    with pytest.raises(
        UserError, match=r"class 'ALL' has 3 patients.*folds: 3; or scheme: holdout"
    ) as caught:
        partition(table, Splits(folds=5), CLASSES, 3)
    assert "'AML'" not in str(caught.value)
    assert partition(table, Splits(folds=3), CLASSES, 3)["fold"].nunique() == 3
    assert partition(table, Splits(scheme="holdout"), CLASSES, 3)["fold"].nunique() == 1


def test_near_duplicates_that_use_up_a_class_are_named():
    table = hospital("x", [9, 9, 5])
    copy_image(table, 36, 39)
    with pytest.raises(UserError, match=r"5 patients in 4 groups \(near duplicates join patients\)"):
        partition(table, Splits(folds=5), CLASSES, 3)


def test_class_of_one_patient_allows_no_scheme():
    with pytest.raises(UserError, match=r"'ALL' has 1 patients. No scheme is possible"):
        partition(hospital("x", [9, 9, 1]), Splits(folds=5), CLASSES, 3)


def test_patients_scattered_one_a_hospital_stop_a_holdout():
    tables = [hospital(f"h{i}", [9, 9, 1]) for i in range(4)]
    with pytest.raises(UserError, match="fold 0: nothing of 'ALL' in test"):
        partition(stack(*tables), Splits(scheme="holdout"), CLASSES, 3)


def test_label_outside_the_classes_is_refused():
    with pytest.raises(UserError, match=r"'ALL': 10 images, the first x/0020\.png"):
        partition(hospital("x", [5, 5, 5]), Splits(folds=2), ["healthy", "AML"], 3)


def as_column(**keys) -> Splits:
    return Splits(protocol="as_published", as_published=AsPublished(scheme="column", column="split", **keys))


def test_column_scheme_follows_the_manifest():
    words = ["train", "Val", "test", "validation", "train", " test "] * 5
    table = hospital("x", [5, 5, 5]).assign(split=words)
    folds = partition(table, as_column(), CLASSES, 3, "as_published")
    expected = ["train", "validation", "test", "validation", "train", "test"] * 5
    assert folds["partition"].tolist() == expected
    assert folds["group"].tolist() == table["patient_id"].tolist()


def test_column_without_validation_gives_some_of_its_training_images():
    table = hospital("x", [10, 10, 10]).assign(split=["train", "train", "train", "test"] * 15)
    folds = partition(table, as_column(validation=0.2), CLASSES, 3, "as_published")
    # 15 training images of each class of 20: a fifth is 3.
    assert folds[folds["partition"] == "validation"]["label"].value_counts().to_dict() == dict.fromkeys(
        CLASSES, 3
    )
    assert (folds["partition"] == "test").sum() == 15


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"] * 29 + ["holdout"], "'holdout' in 1 rows, first in row 30 of the manifest of x"),
        (["train"] * 29 + [None], "'' in 1 rows, first in row 30"),
        (["train"] * 30, "no usable image into test"),
    ],
)
def test_bad_split_columns_are_refused(words, message):
    table = hospital("x", [5, 5, 5]).assign(split=words)
    with pytest.raises(UserError, match=message):
        partition(table, as_column(), CLASSES, 3, "as_published")


def test_missing_split_column_is_refused():
    with pytest.raises(UserError, match="no manifest has a column 'split'"):
        partition(hospital("x", [5, 5, 5]), as_column(), CLASSES, 3, "as_published")


def test_as_published_kfold_tests_each_image_once():
    table = hospital("x", [10, 10, 10])
    splits = Splits(protocol="as_published", as_published=AsPublished(scheme="kfold", folds=5))
    folds = partition(table, splits, CLASSES, 3, "as_published")
    tested = folds[folds["partition"] == "test"]
    assert sorted(tested["case_id"]) == sorted(table["case_id"])
    assert (tested.groupby(["fold", "label"]).size() == 4).all()


def of_samples(**rule) -> Splits:
    published = AsPublished(augmented=True, **rule)
    return Splits(protocol="as_published", as_published=published)


EIGHT = Augmentation(plan="eight", copies=3)


def test_samples_are_divided_by_class_and_images_cross():
    table = hospital("x", [5, 3, 2])  # 10, 6 and 4 images of 19 samples each
    folds = partition(table, of_samples(test=0.3, validation=0.2), CLASSES, 3, "as_published", EIGHT)
    assert list(folds.columns) == [*COLUMNS, "transform", "copy"]
    assert len(folds) == 20 * 19
    assert not folds.duplicated(["fold", "case_id", "transform", "copy"]).any()
    counts = count_sides(folds, CLASSES).set_index(["label", "partition"])["n_cases"]
    # Of 190, 114 and 76: test 57, 34 (34.2) and 23 (22.8); validation 27 (26.6), 16 and 11 (10.6) of the rest.
    for label, test, validation, whole in (
        ("healthy", 57, 27, 190), ("AML", 34, 16, 114), ("ALL", 23, 11, 76)
    ):  # fmt: skip
        assert counts[label].to_dict() == {
            "train": whole - test - validation, "validation": validation, "test": test
        }  # fmt: skip
    # An image misses the test set with probability .7 ** 19, about one in a thousand.
    assert folds.groupby("case_id")["partition"].nunique().min() == 3


def test_repeats_divide_the_same_samples_anew():
    table = hospital("x", [5, 3, 2])
    targets = Augmentation(plan="balanced", targets={"healthy": 4, "AML": 30})
    rule = of_samples(scheme="monte_carlo", folds=3, test=0.3)
    folds = partition(table, rule, CLASSES, 3, "as_published", targets)
    name = folds["case_id"] + folds["transform"] + folds["copy"].astype(str)
    first, second, third = (set(name[folds["fold"] == fold]) for fold in range(3))
    assert first == second == third and len(first) == 4 + 30 + 4
    tested = [frozenset(name[(folds["fold"] == f) & (folds["partition"] == "test")]) for f in range(3)]
    assert len(set(tested)) == 3


@settings(deadline=None, max_examples=10)
@given(old=sizes, new=sizes, name=st.sampled_from(["aaa", "zzz"]))
def test_adding_a_cohort_moves_no_sample(old, new, name):
    before = hospital("mid", old)
    rule = of_samples(test=0.3)
    keys = ["case_id", "transform", "copy"]
    alone = partition(before, rule, CLASSES, 3, "as_published", EIGHT).set_index(keys)["partition"]
    both = partition(stack(before, hospital(name, new)), rule, CLASSES, 3, "as_published", EIGHT).set_index(
        keys
    )["partition"]
    assert both[alone.index].equals(alone)


def test_dividing_samples_needs_a_plan_that_makes_some():
    for plan in (None, Augmentation()):
        with pytest.raises(UserError, match=r"augmentation\.plan is off; set plan: eight or balanced"):
            partition(hospital("x", [5, 5, 5]), of_samples(), CLASSES, 3, "as_published", plan)


def test_sound_division_beside_one_of_samples_is_by_patient():
    folds = partition(hospital("x", [5, 5, 5]), of_samples(), CLASSES, 3, "sound", EIGHT)
    assert list(folds.columns) == list(COLUMNS)
    assert len(folds) == 30 * 5


def test_types_travel_beside_classes():
    table = hospital("x", [5, 5, 5])
    table["type"] = table["label"] + "_" + (table.index % 3).astype(str)
    folds = partition(table, Splits(folds=2), CLASSES, 3)
    assert folds[folds["fold"] == 1]["type"].tolist() == table["type"].tolist()


def test_command_line_leaves_out_excluded_and_unreferenced(tmp_path):
    table = hospital("x", [5, 5, 5])
    table.loc[0, "status"] = "excluded"
    table.loc[1, "reference_status"] = "missing"
    path = tmp_path / "inventory.parquet"
    table.drop(columns="manifest_row").to_parquet(path)
    options = '{"splits":{"folds":2},"classes":["healthy","AML","ALL"],"distance":3}'
    outputs = [str(tmp_path / name) for name in ("folds.parquet", "counts.csv")]
    main(["--options", options, "--inventories", str(path), "--out", outputs[0], "--counts", outputs[1]])
    folds, counts = pd.read_parquet(outputs[0]), pd.read_csv(outputs[1])
    assert set(folds["case_id"]) == set(table["case_id"][2:])
    assert list(folds.columns) == list(COLUMNS)
    assert list(counts.columns) == ["fold", "partition", "label", "n_cases", "n_patients", "n_groups"]
    assert len(counts) == 2 * 3 * 3
    assert counts.groupby(["fold", "label"])["n_patients"].sum().unstack().loc[0].to_dict() == {
        "healthy": 4,
        "AML": 5,
        "ALL": 5,
    }


def test_counts_hold_zeros():
    folds = partition(hospital("x", [6, 6, 6]), Splits(folds=2, validation=0), CLASSES, 3)
    counts = count_sides(folds, CLASSES)
    assert (counts.loc[counts["partition"] == "validation", "n_cases"] == 0).all()
    assert counts["n_cases"].sum() == 2 * 36


def test_command_line_divides_samples(tmp_path):
    path = tmp_path / "inventory.parquet"
    hospital("x", [5, 5, 5]).drop(columns="manifest_row").to_parquet(path)
    options = (
        '{"splits":{"protocol":"as_published","as_published":{"augmented":true,"test":0.3}},'
        '"augmentation":{"plan":"eight","copies":1},"classes":["healthy","AML","ALL"],"distance":3}'
    )
    outputs = [str(tmp_path / name) for name in ("folds.parquet", "counts.csv")]
    arguments = ["--protocol", "as_published", "--inventories", str(path), "--options", options]
    main([*arguments, "--out", outputs[0], "--counts", outputs[1]])
    assert len(pd.read_parquet(outputs[0])) == pd.read_csv(outputs[1])["n_cases"].sum() == 30 * 9


@pytest.mark.real
def test_malaria_patients_of_two_labels():
    if not MALARIA.is_file():
        pytest.skip(f"no {MALARIA}")
    with tarfile.open(MALARIA) as archive:
        name = next(n for n in archive.getnames() if n.endswith("manifest.csv"))
        member = archive.extractfile(name)
        assert member is not None
        manifest = pd.read_csv(io.BytesIO(member.read()), dtype=str)
    table = inventory("nih", zip(manifest["patient_id"], manifest["label"], strict=True))
    classes = sorted(manifest["label"].unique())
    folds = partition(table, Splits(folds=5), classes, 3)
    check_folds(folds, table, 3, "sound", tested_once=True)
    tested = folds[folds["partition"] == "test"].groupby("fold")["patient_id"].nunique()
    assert tested.sum() == 200 and tested.max() - tested.min() <= 2
    # The upstream split leaks: all 200 patients are on both sides (README of the data).
    upstream = table.assign(split=manifest["upstream_split"].replace("valid", "test"))
    published = partition(upstream, as_column(validation=0), classes, 3, "as_published")
    assert check_folds(published, upstream, 3, "as_published")["leaks"]["patients"] == 200
