"""Means of members by hand, and what must not be averaged."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, softmax

from marrowflow.choices.threshold import digest_of
from marrowflow.errors import UserError
from marrowflow.learning.combine import combine, main
from marrowflow.predictions import read_predictions

CLASSES = ["ill", "well"]


def member(ill: list[float], name: str = "one", head: list[float] | None = None) -> pd.DataFrame:
    """Return raw rows of two cases in two folds, and of one without a reference; fold 0 validates what fold 1 tests."""
    table = pd.DataFrame(
        {
            "case_id": ["a/1", "a/2", "a/2", "a/1", "a/3"],
            "patient_id": ["a/p1", "a/p2", "a/p2", "a/p1", "a/p3"],
            "cohort": "a",
            "truth": ["ill", "well", "well", "ill", "missing"],
            "predicted": "ill",
            "index_test": name,
            "fold": [0, 0, 1, 1, -1],
            "partition": ["test", "validation", "test", "validation", "unlabelled"],
            "status": "ok",
            "reason": "",
            "p_ill": ill,
            "p_well": 1 - np.asarray(ill),
            "patient_source": "manifest",
        }
    )
    return table if head is None else table.assign(endpoint_aml=head)


ONE, TWO = [0.9, 0.2, 0.6, 0.8, 0.5], [0.5, 0.4, 0.2, 0.6, 0.1]


def test_the_mean_of_each_row_by_hand() -> None:
    first = member(ONE, head=[0.1, 0.2, 0.3, 0.4, 0.5])
    # The other member's rows in another order.
    second = member(TWO, "two", head=[0.3, 0.2, 0.1, 0.0, 0.5]).iloc[[4, 2, 0, 3, 1]].reset_index(drop=True)
    table = combine({"one": first, "two": second}, CLASSES, "both-raw")
    assert table["p_ill"].tolist() == pytest.approx([0.7, 0.3, 0.4, 0.7, 0.3])
    assert table["p_well"].tolist() == pytest.approx([0.3, 0.7, 0.6, 0.3, 0.7])
    assert table["endpoint_aml"].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.5])
    assert table["predicted"].tolist() == ["ill", "well", "well", "ill", "well"]
    assert set(table["index_test"]) == {"both-raw"}
    rest = ["case_id", "patient_id", "truth", "fold", "partition", "patient_source"]
    pd.testing.assert_frame_equal(table[rest], first[rest])
    assert list(table.columns) == list(first.columns)


def test_three_members_weigh_the_same() -> None:
    members = {str(i): member([p] * 5) for i, p in enumerate((0.1, 0.1, 0.7))}
    assert combine(members, CLASSES, "t")["p_ill"].tolist() == pytest.approx([0.3] * 5)


def test_the_mean_of_one_is_itself_under_the_name_that_is_asked_for() -> None:
    whole = member([0.1 + 0.2, 1 / 3, 0.7, 0.8, 0.5], head=[0.1, 1 / 7, 0.3, 0.4, 0.5])
    expected = whole.assign(predicted=["well", "well", "ill", "ill", "ill"], index_test="one-raw")
    pd.testing.assert_frame_equal(combine({"one": whole}, CLASSES, "one-raw"), expected, check_exact=True)


@pytest.mark.parametrize("others", [{}, {"two": member(TWO)}])
def test_two_rows_of_one_case_fold_and_partition_are_refused(others: dict[str, pd.DataFrame]) -> None:
    twice = pd.concat([member(ONE), member(TWO).iloc[[2, 3]]], ignore_index=True)
    with pytest.raises(UserError, match=r"B holds several rows") as refused:
        combine({**others, "B": twice}, CLASSES, "t")
    assert str(refused.value).splitlines()[1:] == [
        "  - case 'a/2' (fold 1, test)",
        "  - case 'a/1' (fold 1, validation)",
    ]


def test_members_that_answer_for_other_cases_are_refused() -> None:
    lacking = member(TWO).iloc[[0, 1, 4]]
    with pytest.raises(UserError, match=r"A and B answer for different cases \(2 rows\)") as refused:
        combine({"A": member(ONE), "B": lacking}, CLASSES, "t")
    assert "only A holds case 'a/2' (fold 1, test)" in str(refused.value)
    moved = member(TWO).replace({"partition": {"validation": "train"}})
    with pytest.raises(UserError, match=r"\(4 rows\)") as refused:
        combine({"A": member(ONE), "B": moved}, CLASSES, "t")
    assert "only B holds case 'a/1' (fold 1, train)" in str(refused.value)


def test_members_with_other_truths_are_refused() -> None:
    other = member(TWO).replace({"truth": {"missing": "ill"}})
    with pytest.raises(UserError, match=r"differ in truth \(1 rows\)[\s\S]*case 'a/3': 'missing' and 'ill'"):
        combine({"A": member(ONE), "B": other}, CLASSES, "t")
    other = member(TWO).replace({"patient_id": {"a/p1": "a/p9"}})
    with pytest.raises(UserError, match=r"differ in patient_id \(2 rows\)"):
        combine({"A": member(ONE), "B": other}, CLASSES, "t")


def test_members_that_answer_other_questions_are_refused() -> None:
    one_vs_rest = member(TWO).assign(p_well=0.5)
    with pytest.raises(UserError, match=r"A answers by softmax\n.*B answers by one_vs_rest"):
        combine({"A": member(ONE), "B": one_vs_rest}, CLASSES, "t")
    both = combine({"A": one_vs_rest, "B": one_vs_rest}, CLASSES, "t")
    assert both["p_well"].tolist() == [0.5] * 5
    with pytest.raises(UserError, match=r"A has heads of the endpoints: none\n.*B has .*: aml"):
        combine({"A": member(ONE), "B": member(TWO, head=[0.5] * 5)}, CLASSES, "t")
    with pytest.raises(UserError, match="B has no column 'p_well'"):
        combine({"A": member(ONE), "B": member(TWO).drop(columns="p_well")}, CLASSES, "t")


def lock(kind: str) -> dict[str, object]:
    content = {
        "index_test": "both-raw",
        "classes": CLASSES,
        "calibration": {
            "kind": kind,
            "temperature": 2.0,
            "heads": {"aml": {"temperature": 4.0, "by_fold": {}}},
        },
        "endpoints": {},
    }
    return {**content, "digest": digest_of(content)}


@pytest.mark.parametrize("kind", ["softmax", "one_vs_rest"])
def test_the_step_as_it_is_run(tmp_path: Path, kind: str) -> None:
    paths = [tmp_path / name for name in ("a.parquet", "b.parquet")]
    answers = (ONE, [0.1, 0.3, 0.5, 0.7, 0.9]), (TWO, [0.3, 0.3, 0.3, 0.3, 0.3])
    for path, (ill, head) in zip(paths, answers, strict=True):
        table = member(ill, path.stem, head)
        table = table if kind == "softmax" else table.assign(p_well=0.2)
        table.to_parquet(path)
    shared = ["--options", '{"classes": ["ill", "well"]}', "--index-test", "both-raw", "--tables"]
    main([*shared, *map(str, paths), "--out", str(tmp_path / "out_of_fold.parquet")])
    raw = pd.read_parquet(tmp_path / "out_of_fold.parquet")
    assert raw["p_ill"].tolist() == pytest.approx([0.7, 0.3, 0.4, 0.7, 0.3])

    external = [tmp_path / name for name in ("c.parquet", "d.parquet")]
    for path, whole in zip(external, paths, strict=True):
        rows = pd.read_parquet(whole).iloc[[0, 2, 4]]
        rows.assign(fold=-1, partition="external").to_parquet(path)
    (tmp_path / "threshold.json").write_text(json.dumps(lock(kind)))
    out = tmp_path / "predictions.parquet"
    before = tmp_path / "uncalibrated.parquet"
    main(
        [*shared, *map(str, external), "--lock", str(tmp_path / "threshold.json"), "--out", str(out),
         "--uncalibrated", str(before)]
    )  # fmt: skip
    done = read_predictions(out, CLASSES).table
    mean = np.array([[0.7, 0.3], [0.4, 0.6], [0.3, 0.7]])
    expected = softmax(np.log(mean) / 2, axis=1)
    if kind == "one_vs_rest":
        mean[:, 1] = 0.2
        expected = expit(logit(mean) / 2)
    np.testing.assert_allclose(done[["p_ill", "p_well"]], expected, rtol=1e-9)
    np.testing.assert_allclose(done["endpoint_aml"], expit(logit([0.2, 0.4, 0.6]) / 4), rtol=1e-9)
    assert done["predicted"].tolist() == [CLASSES[i] for i in mean.argmax(axis=1)]
    assert set(done["index_test"]) == {"both-raw"}
    own = read_predictions(before, CLASSES).table
    np.testing.assert_allclose(own[["p_ill", "p_well"]], mean, rtol=1e-9)
    np.testing.assert_allclose(own["endpoint_aml"], [0.2, 0.4, 0.6], rtol=1e-9)
    rest = ["case_id", "truth", "predicted", "index_test"]
    assert own[rest].equals(done[rest])
    with pytest.raises(UserError, match="--uncalibrated goes with --lock"):
        main([*shared, *map(str, paths), "--out", str(out), "--uncalibrated", str(before)])

    with pytest.raises(UserError, match="names a table twice"):
        main([*shared, str(paths[0]), str(paths[0]), "--out", str(tmp_path / "twice.parquet")])
    assert not (tmp_path / "twice.parquet").exists()


def test_a_network_alone_gets_its_own_lock_and_no_other(tmp_path: Path) -> None:
    raw = member(ONE, head=[0.1, 0.3, 0.5, 0.7, 0.9]).iloc[[0, 2, 4]].assign(fold=-1, partition="external")
    raw.to_parquet(tmp_path / "raw.parquet")
    own = lock("softmax")
    path, out = tmp_path / "threshold.json", tmp_path / "predictions.parquet"

    def applied(
        content: dict[str, object], classes: list[str] = CLASSES, index_test: str = "both-raw"
    ) -> None:
        path.write_text(json.dumps(content))
        main(
            ["--options", json.dumps({"classes": classes}), "--tables", str(tmp_path / "raw.parquet"),
             "--lock", str(path), "--index-test", index_test, "--out", str(out)]
        )  # fmt: skip

    with pytest.raises(UserError, match="fixed for index_test 'both-raw', not 'other-raw'"):
        applied(own, index_test="other-raw")
    with pytest.raises(UserError, match=r"fixed for classes \['ill', 'well'\], not \['well', 'ill'\]"):
        applied(own, CLASSES[::-1])
    with pytest.raises(UserError, match="changed after it was locked"):
        applied({**own, "classes": ["ill", "wel"]})
    assert not out.exists()
    applied(own)
    done = read_predictions(out, CLASSES).table
    p = np.array([0.9, 0.6, 0.5])
    assert done["p_ill"].tolist() == pytest.approx(np.sqrt(p) / (np.sqrt(p) + np.sqrt(1 - p)))
    assert done["endpoint_aml"].tolist() == pytest.approx(expit(logit([0.1, 0.5, 0.9]) / 4))


def test_the_step_needs_no_torch() -> None:
    code = "import sys, marrowflow.learning.combine, marrowflow.learning.lock; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(__file__).parents[3] / "workflow")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
