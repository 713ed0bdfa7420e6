"""The flow diagram against counts made by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.reporting.drawing import text_width
from marrowflow.reporting.flow import Box, Flow, Question, check, draw, trace

CLASSES = ("healthy", "AML", "ALL")
LEUKAEMIA = Question("leukaemia", CLASSES, ("AML", "ALL"), 0.5)


def image(
    patient: str, n: int, label: str = "AML", reference: str = "ok", excluded: str = "", slide: str = "s"
) -> dict[str, str]:
    return {
        "case_id": f"c/{patient}{n}",
        "patient_id": f"c/{patient}",
        "patient_source": "manifest",
        "label": label if reference == "ok" else "",
        "reference_status": reference,
        "status": "excluded" if excluded else "included",
        "reason": excluded,
        "slide_id": slide,
    }


def answer(
    patient: str, n: int, p: tuple[float, ...] = (0.2, 0.5, 0.3), status: str = "ok", reason: str = ""
) -> dict:
    done = status == "ok"
    return {
        "case_id": f"c/{patient}{n}",
        "patient_id": f"c/{patient}",
        "predicted": CLASSES[int(np.argmax(p))] if done else "",
        "status": status,
        "reason": reason,
        **{f"p_{c}": v if done else np.nan for c, v in zip(CLASSES, p, strict=True)},
    }


# Seven patients, fifteen images:
#   a  out of focus twice, too dark once            -> excluded, out of focus (2 of 3)
#   b  too dark once, out of focus once (a tie)     -> excluded, too dark (first in the manifest)
#   d  one image out of focus, two read: scores .8 and .1, mean .45 < .5 -> negative, AML -> present
#   e  one image, not done                          -> no index test
#   f  no usable result (indeterminate, not done)   -> inconclusive, healthy -> absent
#   g  score .9, reference missing                  -> positive, no reference standard
#   h  score .5, exactly the threshold, reference inconclusive -> positive, inconclusive
INVENTORY = [
    image("a", 1, excluded="too dark"),
    image("a", 2, excluded="out of focus", slide="t"),
    image("a", 3, excluded="out of focus", slide="t"),
    image("b", 1, excluded="too dark"),
    image("b", 2, excluded="out of focus"),
    image("d", 1, slide="s"),
    image("d", 2, slide="t"),
    image("d", 3, excluded="out of focus", slide="u"),
    image("e", 1),
    image("f", 1, "healthy"),
    image("f", 2, "healthy"),
    image("g", 1, reference="missing"),
    image("g", 2, reference="missing"),
    image("h", 1, reference="inconclusive"),
    image("h", 2, reference="inconclusive"),
]
PREDICTIONS = [
    answer("d", 1, (0.2, 0.5, 0.3)),
    answer("d", 2, (0.9, 0.05, 0.05)),
    answer("e", 1, status="not_done", reason="network failed"),
    answer("f", 1, status="indeterminate", reason="almost black"),
    answer("f", 2, status="not_done", reason="network failed"),
    answer("g", 1, (0.1, 0.6, 0.3)),
    answer("g", 2, (0.1, 0.3, 0.6)),
    answer("h", 1, (0.5, 0.25, 0.25)),
    answer("h", 2, (0.5, 0.25, 0.25)),
]


def traced(question: Question = LEUKAEMIA) -> Flow:
    return trace(pd.DataFrame(INVENTORY), pd.DataFrame(PREDICTIONS), question)


def counts(box: Box) -> tuple[int, int | None, int]:
    return box.patients, box.smears, box.images


def test_every_box_of_seven_patients_counted_by_hand() -> None:
    root = traced().root
    assert counts(root) == (7, 10, 15)
    assert counts(root["Excluded"]) == (2, 4, 6)
    assert counts(root["Excluded"]["too dark"]) == (1, 2, 2)
    assert counts(root["Excluded"]["out of focus"]) == (1, 2, 4)
    eligible = root["Eligible"]
    assert counts(eligible) == (5, 6, 9)
    assert counts(eligible["No index test"]["network failed"]) == (1, 1, 2)
    tested = eligible["Index test"]
    assert counts(tested) == (4, 5, 7)
    assert counts(tested["negative"]["Reference standard"]["present"]) == (1, 2, 2)
    assert counts(tested["positive"]) == (2, 2, 4)
    assert counts(tested["positive"]["No reference standard"]["reference missing"]) == (1, 1, 2)
    assert counts(tested["positive"]["Reference standard"]["inconclusive"]) == (1, 1, 2)
    assert counts(tested["inconclusive"]["Reference standard"]["absent"]) == (1, 1, 1)


def test_crosstab_counted_by_hand() -> None:
    table = traced().crosstab
    assert list(table.columns) == ["absent", "present", "inconclusive", "not done", "total"]
    assert table.loc["negative"].tolist() == [0, 1, 0, 0, 1]
    assert table.loc["positive"].tolist() == [0, 0, 1, 1, 2]
    assert table.loc["inconclusive"].tolist() == [1, 0, 0, 0, 1]
    assert table.loc["not done"].tolist() == [0, 1, 0, 0, 1]
    assert table.loc["total"].tolist() == [1, 2, 1, 1, 5]


def test_many_classes_have_one_arm_each() -> None:
    # d: mean (.55, .275, .175) -> healthy; g: mean (.1, .45, .45), the first of the equals -> AML; h -> healthy
    tested = traced(Question("classes", CLASSES)).root["Eligible"]["Index test"]
    assert [b.label for b in tested.boxes] == ["healthy", "AML", "ALL", "inconclusive"]
    assert [b.patients for b in tested.boxes] == [2, 1, 0, 1]
    assert tested["healthy"]["Reference standard"]["AML"].patients == 1


def test_counted_by_image_where_there_is_no_patient_level_analysis() -> None:
    flow = traced(Question("leukaemia", CLASSES, ("AML", "ALL"), 0.5, "case"))
    arms = flow.root["Eligible"]["Index test"]
    assert flow.noun == "images"
    # d1 .8, g1 .9, g2 .9, h1 and h2 .5 are positive; d2 .1 is negative; f1 has no usable result
    assert [b.patients for b in arms.boxes] == [1, 5, 1]
    assert flow.root.patients == 15


# Three patients, five images of which samples were made: d1 has two that were read (.8 and .9) and one that was not, d2 one
# (.3); e1 has no sample that was read; f1 stands in no test set; g1 is a case itself.
SAMPLED = [image("d", 1), image("d", 2), image("e", 1), image("f", 1), image("g", 1)]
SAMPLES = [
    answer("d", 1, (0.2, 0.5, 0.3)) | {"case_id": "c/d1#original0", "parent": "c/d1"},
    answer("d", 1, (0.1, 0.5, 0.4)) | {"case_id": "c/d1#rotate0", "parent": "c/d1"},
    answer("d", 1, status="not_done", reason="failed") | {"case_id": "c/d1#rotate1", "parent": "c/d1"},
    answer("d", 2, (0.7, 0.2, 0.1)) | {"case_id": "c/d2#zoom1", "parent": "c/d2"},
    answer("e", 1, status="not_done", reason="failed") | {"case_id": "c/e1#zoom0", "parent": "c/e1"},
    answer("g", 1, (0.9, 0.1, 0.0)) | {"parent": "c/g1"},
]


@pytest.mark.parametrize(("threshold", "positive"), [(0.6, 1), (0.7, 0)])
def test_an_image_is_tested_where_a_sample_of_it_is(threshold: float, positive: int) -> None:
    question = Question("leukaemia", CLASSES, ("AML", "ALL"), threshold)
    eligible = trace(pd.DataFrame(SAMPLED), pd.DataFrame(SAMPLES), question, "no test set").root["Eligible"]
    assert (eligible["No index test"]["failed"].patients, eligible["No index test"]["failed"].images) == (
        1,
        1,
    )
    assert eligible["No index test"]["no test set"].images == 1
    arms = eligible["Index test"]
    assert (arms.patients, arms.images) == (2, 3)
    # d: the mean over samples, (.8 + .9 + .3) / 3 = .667; over images it would be .575
    assert arms["positive"].patients == positive


def test_images_that_samples_were_made_of_are_counted_by_themselves() -> None:
    question = Question("leukaemia", CLASSES, ("AML", "ALL"), 0.84, "case")
    tested = trace(pd.DataFrame(SAMPLED), pd.DataFrame(SAMPLES), question).root["Eligible"]["Index test"]
    # d1: (.8 + .9) / 2 = .85; d2 .3; g1 .1
    assert [arm.images for arm in tested.boxes] == [2, 1, 0]


def test_contradicting_references_of_one_patient_are_inconclusive() -> None:
    inventory = pd.DataFrame([image("x", 1, "AML"), image("x", 2, "healthy")])
    flow = trace(inventory, pd.DataFrame([answer("x", 1), answer("x", 2)]), LEUKAEMIA)
    assert flow.root["Eligible"]["Index test"]["positive"]["Reference standard"]["inconclusive"].patients == 1


def test_surrogate_groups_and_untested_images_are_called_so() -> None:
    inventory = (
        pd.DataFrame([image("x", 1), image("y", 1)])
        .assign(patient_source="surrogate")
        .drop(columns="slide_id")
    )
    flow = trace(inventory, pd.DataFrame([answer("x", 1)]), LEUKAEMIA, untested="never in a test set")
    assert flow.noun == "surrogate groups"
    assert flow.root["Eligible"]["No index test"]["never in a test set"].patients == 1
    assert flow.root.smears is None


def test_check_finds_a_parent_that_is_not_its_parts() -> None:
    flow = traced()
    flow.root["Excluded"]["too dark"].images += 1
    with pytest.raises(AssertionError, match="Excluded: 6 images, parts 7"):
        check(flow)


def test_check_finds_a_margin_that_is_not_the_diagrams() -> None:
    flow = traced()
    flow.crosstab.loc["positive", "total"] += 1
    with pytest.raises(AssertionError, match="arm positive differs"):
        check(flow)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from(CLASSES),
            st.sampled_from(["ok", "missing", "inconclusive"]),
            st.sampled_from(["", "", "dark", "blurred"]),
            st.sampled_from(["ok", "indeterminate", "not_done", "absent"]),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_sums_hold_whatever_is_lost(rows: list[tuple]) -> None:
    inventory = [image(f"p{p}_", i, label, ref, why) for i, (p, label, ref, why, _, _) in enumerate(rows)]
    answers = [
        answer(f"p{p}_", i, (1 - x, x / 2, x / 2), status)
        for i, (p, _, _, why, status, x) in enumerate(rows)
        if status != "absent" and not why
    ]
    empty = [answer("nobody", 0)]
    predictions = pd.DataFrame(answers or empty).iloc[: len(answers)]
    flow = trace(pd.DataFrame(inventory), predictions, LEUKAEMIA)  # asserts every sum itself
    assert flow.root.images == len(rows)
    assert flow.root.patients == len({row[0] for row in rows})


@pytest.mark.parametrize("width", [358.0, 760.0])
def test_drawn_boxes_hold_their_text_and_do_not_overlap(width: float) -> None:
    classes = tuple(f"class number {i} of six" for i in range(6))
    inventory, answers = [], []
    for p in range(60):
        why = f"a reason of many words, the {p}th" if p < 11 else ""
        row = image(f"p{p}", 0, classes[p % 6], "missing" if p % 9 == 0 else "ok", why)
        inventory.append(row)
        if not why:
            shares = {f"p_{c}": float(i == p % 6) for i, c in enumerate(classes)}
            answers.append(
                {
                    "case_id": row["case_id"],
                    "patient_id": row["patient_id"],
                    "predicted": classes[p % 6],
                    "status": "ok",
                    "reason": "",
                    **shares,
                }
            )
    flow = trace(pd.DataFrame(inventory), pd.DataFrame(answers), Question("classes", classes))
    axes = draw(flow, width).axes[0]
    boxes = [p.get_bbox() for p in axes.patches if hasattr(p, "get_width")]
    assert len(boxes) > 20
    for i, one in enumerate(boxes):
        assert one.x0 >= 0 and one.x1 <= width
        for other in boxes[i + 1 :]:
            apart = one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0
            assert apart
    for text in axes.texts:
        if not text.get_text():
            continue  # arrows are annotations without text
        x, y = text.get_position()
        holder = next(b for b in boxes if b.x0 <= x <= b.x1 and b.y0 <= y <= b.y1)
        assert x + text_width(text.get_text(), 11, text.get_weight() == "bold") <= holder.x1
