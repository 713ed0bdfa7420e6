import json
import weakref

import pandas as pd
import pytest
from split_inventories import copy_image, inventory, patients

from marrowflow.config import AsPublished, Augmentation, Splits
from marrowflow.errors import UserError
from marrowflow.splits.leakage import PlanFiles, check_folds, main
from marrowflow.splits.partition import partition

CLASSES = ["healthy", "AML"]
NONE = {"n": 0, "test_cases": 0}


@pytest.fixture
def cases() -> pd.DataFrame:
    """Eight patients of two images each: rows 2p and 2p + 1 are patient p's."""
    return inventory("x", patients("healthy", 4, 2) + patients("AML", 4, 2))


@pytest.fixture
def folds(cases) -> pd.DataFrame:
    return partition(cases, Splits(folds=4), CLASSES, 3)


def swap_one_image(folds: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Move one training image of fold 0 into its test set, away from its patient's other image."""
    moved = folds.copy()
    row = moved.index[(moved["fold"] == 0) & (moved["partition"] == "train")][0]
    moved.loc[row, "partition"] = "test"
    return moved, moved.loc[row, "patient_id"]


def test_sound_split_passes(folds, cases):
    gate = check_folds(folds, cases, 3, "sound", tested_once=True)
    assert not gate["leaky"]
    assert (gate["n_cases"], gate["n_patients"], gate["n_groups"]) == (16, 8, 8)
    assert [f["n_test_cases"] for f in gate["folds"]] == [4, 4, 4, 4]
    json.dumps(gate)


def test_patient_on_two_sides_stops_sound_and_is_counted_as_published(folds, cases):
    moved, patient = swap_one_image(folds)
    with pytest.raises(UserError, match=f"fold 0, patients {patient}: .* in test and .* in train"):
        check_folds(moved, cases, 3, "sound")
    gate = check_folds(moved, cases, 3, "as_published")
    assert gate["leaky"]
    assert gate["leaks"] == {"patients": 1, "groups": 1, "exact_duplicates": 0, "near_duplicates": 0}
    assert gate["folds"][0]["patients"] == {"n": 1, "test_cases": 1}
    assert all(f["patients"] == NONE for f in gate["folds"][1:])


@pytest.mark.parametrize("exact", [False, True])
def test_copies_are_found_though_the_split_did_not_know_them(folds, cases, exact):
    # Each healthy patient is tested in a fold of its own: copies of two of them cross in two folds or more.
    copy_image(cases, 0, 3, exact=exact)
    kind = "exact duplicates" if exact else "near duplicates"
    with pytest.raises(UserError, match=rf"{kind}: x/000[03].png in \w+ and x/000[03].png in"):
        check_folds(folds, cases, 3, "sound")
    leaks = check_folds(folds, cases, 3, "as_published")["leaks"]
    assert leaks == {"patients": 0, "groups": 0, "exact_duplicates": int(exact), "near_duplicates": 1}


def test_patients_are_those_of_the_inventory_not_of_the_folds(folds, cases):
    cases.loc[2, "patient_id"] = cases.loc[0, "patient_id"]
    with pytest.raises(UserError, match="patients x/healthy0"):
        check_folds(folds, cases, 3, "sound")


@pytest.mark.parametrize("protocol", ["sound", "as_published"])
def test_disordered_folds_stop_either_protocol(folds, cases, protocol):
    with pytest.raises(UserError, match=r"x/0000\.png stands there more than once"):
        check_folds(pd.concat([folds, folds.iloc[:1]]), cases, 3, protocol)
    with pytest.raises(UserError, match=r"case x/0015\.png stands in no inventory"):
        check_folds(folds, cases.iloc[:15], 3, protocol)
    with pytest.raises(UserError, match="is in 'tset'"):
        check_folds(folds.replace({"partition": {"test": "tset"}}), cases, 3, protocol)
    with pytest.raises(UserError, match="is tested 2 times"):
        check_folds(folds.replace({"fold": {3: 4}}).pipe(doubled), cases, 3, protocol, tested_once=True)


def doubled(folds: pd.DataFrame) -> pd.DataFrame:
    """Give fold 0 once more under another number."""
    return pd.concat([folds, folds[folds["fold"] == 0].assign(fold=9)])


def test_parents_of_a_plan_must_be_training_cases(folds, cases):
    fold0 = folds[folds["fold"] == 0].set_index("partition")["case_id"]
    good = pd.DataFrame({"case_id": [*fold0["train"], *fold0["train"]], "partition": "train"})
    gate = check_folds(folds, cases, 3, "sound", plans={0: good})
    assert gate["plans"] == [{"fold": 0, "n_samples": len(good), "n_parents": len(good) // 2}]
    stranger = pd.DataFrame({"case_id": ["x/else.png"], "partition": "train"})
    with pytest.raises(UserError, match=r"augments x/else\.png for train, which is no case there"):
        check_folds(folds, cases, 3, "sound", plans={0: stranger})


@pytest.mark.parametrize("protocol", ["sound", "as_published"])
@pytest.mark.parametrize("augmented_for", ["train", "test"])
def test_a_test_image_may_be_augmented_for_no_side(folds, cases, protocol, augmented_for):
    tested = folds.loc[(folds["fold"] == 0) & (folds["partition"] == "test"), "case_id"].iloc[0]
    plan = pd.DataFrame({"case_id": [tested], "partition": [augmented_for]})
    with pytest.raises(
        UserError, match=rf"fold 0 augments {tested} for {augmented_for}, which is test there"
    ):
        check_folds(folds, cases, 3, protocol, plans={0: plan})


@pytest.fixture
def samples(cases) -> pd.DataFrame:
    """The division of 16 images' 9 samples each, 3 in 10 of them tested on."""
    rule = AsPublished(augmented=True, test=0.3)
    return partition(
        cases,
        Splits(protocol="as_published", as_published=rule),
        CLASSES,
        3,
        "as_published",
        Augmentation(plan="eight", copies=1),
    )


def test_divided_samples_are_counted_as_published_and_stop_a_sound_study(samples, cases):
    gate = check_folds(samples, cases, 3, "as_published", plans={0: samples})
    sides = samples.groupby("case_id")["partition"].agg(set)
    crossing = sides[sides.map(len) > 1].index
    assert len(crossing) > 10
    assert gate["leaks"]["parents"] == len(crossing)
    # Copies of one image are no duplicates of one another; two images of the same bytes are, on whatever side.
    assert gate["leaks"]["exact_duplicates"] == gate["leaks"]["near_duplicates"] == 0
    twins = cases.assign(
        sha256=cases["sha256"].where(
            cases["case_id"] != crossing[1],
            cases["sha256"].iloc[cases.index[cases["case_id"] == crossing[0]][0]],
        )
    )
    assert check_folds(samples, twins, 3, "as_published")["leaks"]["exact_duplicates"] == 1
    assert gate["leaks"]["patients"] == 8
    tested = samples[samples["partition"] == "test"]
    assert gate["folds"][0]["n_test_cases"] == len(tested) == 2 * 22  # .3 · 72 = 21.6 of each class
    assert gate["folds"][0]["parents"] == {
        "n": len(crossing),
        "test_cases": int(tested["case_id"].isin(crossing).sum()),
    }
    assert gate["plans"] == [{"fold": 0, "n_samples": 144, "n_parents": 16}]
    with pytest.raises(UserError, match="stands there more than once"):
        check_folds(samples, cases, 3, "sound")


def test_one_image_on_two_sides_stops_a_sound_study_however_it_is_written(samples, cases):
    # One copy of each image: each case stands once, but patients cross.
    once = samples.drop_duplicates("case_id")
    with pytest.raises(UserError, match="patients or copies of images stand on two sides"):
        check_folds(once, cases, 3, "sound")


def test_plan_and_folds_must_have_every_sample_on_the_same_side(samples, cases):
    moved = samples.copy()
    moved.loc[5, "partition"] = "test" if moved.loc[5, "partition"] == "train" else "train"
    with pytest.raises(
        UserError, match=rf"fold 0 augments {moved.loc[5, 'case_id']} for \w+, which is \w+ there"
    ):
        check_folds(samples, cases, 3, "as_published", plans={0: moved})
    with pytest.raises(UserError, match=rf"fold 0 lacks a copy of {samples.loc[7, 'case_id']}"):
        check_folds(samples, cases, 3, "as_published", plans={0: samples.drop(index=7)})
    with pytest.raises(UserError, match="stands there more than once"):
        check_folds(pd.concat([samples, samples.iloc[:1]]), cases, 3, "as_published")


def test_command_line_writes_no_gate_on_a_hit(folds, cases, tmp_path):
    paths = {name: tmp_path / f"{name}.parquet" for name in ("folds", "inventory")}
    cases.drop(columns="manifest_row").to_parquet(paths["inventory"])
    plans = [str(tmp_path / f"plan{fold}.parquet") for fold in range(4)]
    for fold, plan in enumerate(plans):
        folds[(folds["fold"] == fold) & (folds["partition"] == "train")].to_parquet(plan)
    gate = tmp_path / "gate.json"
    arguments = ["--folds", str(paths["folds"]), "--inventories", str(paths["inventory"]), "--out", str(gate)]
    swap_one_image(folds)[0].to_parquet(paths["folds"])
    with pytest.raises(UserError):
        main([*arguments, "--options", '{"distance":3}'])
    assert not gate.exists()
    folds.to_parquet(paths["folds"])
    options = ["--options", '{"distance":3,"splits":{"folds":4}}']
    with pytest.raises(UserError, match="the plan of fold 0 augments"):
        main([*arguments, *options, "--plans", *reversed(plans)])
    with pytest.raises(SystemExit):
        main([*arguments, *options, "--plans", *plans[:3]])
    assert not gate.exists()
    main([*arguments, *options, "--plans", *plans])
    assert json.loads(gate.read_text())["leaks"] == {
        "exact_duplicates": 0,
        "groups": 0,
        "near_duplicates": 0,
        "patients": 0,
    }


def test_one_plan_is_in_memory_at_a_time(folds, cases, tmp_path, monkeypatch):
    """Whatever the number of folds: together the plans of a large study would not fit."""
    paths = [tmp_path / f"plan{fold}.parquet" for fold in range(4)]
    for fold, path in enumerate(paths):
        plan = folds[(folds["fold"] == fold) & (folds["partition"] == "train")]
        pd.concat([plan, plan]).to_parquet(path)
    read, living, most = PlanFiles.__getitem__, weakref.WeakSet(), []

    class Plan(pd.DataFrame):
        __hash__ = object.__hash__

    def counted(self, fold):
        plan = Plan(read(self, fold))
        assert list(plan.columns) == ["case_id", "partition"]
        living.add(plan)
        most.append(len(living))
        return plan

    monkeypatch.setattr(PlanFiles, "__getitem__", counted)
    gate = check_folds(folds, cases, 3, "sound", plans=PlanFiles(paths, ["case_id", "partition"]))
    assert len(most) == 4
    # The last one is let go when the next has come.
    assert max(most) <= 2
    sizes = folds[folds["partition"] == "train"].groupby("fold").size()
    assert [(p["fold"], p["n_samples"], p["n_parents"]) for p in gate["plans"]] == [
        (fold, 2 * n, n) for fold, n in sizes.items()
    ]


def test_a_case_that_was_left_out_is_noticed(folds, cases):
    lost = folds["case_id"].iloc[0]
    with pytest.raises(UserError, match=f"fold 0: case {lost} was left out"):
        check_folds(folds[folds["case_id"] != lost], cases, 3, "sound")
