"""The flow diagram against counts made by hand."""

import numpy as np
import pandas as pd
import pytest
from figure_checks import crowded, words_of
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.reporting.drawing import text_width
from marrowflow.reporting.flow import (
    Box,
    Flow,
    Question,
    check,
    combine,
    crosstab_notes,
    draw,
    reason_table,
    trace,
    unasked_rows,
)
from marrowflow.statistics.cases import gather_units
from marrowflow.statistics.indeterminate import three_analyses
from marrowflow.statistics.rows import Place

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


# The study: several cohorts together


def hospital_z() -> Flow:
    """Two patients without smears: x too dark, y read as .8 and healthy, so positive and absent; z has no row."""
    inventory = pd.DataFrame([image("x", 1, excluded="too dark"), image("y", 1, "healthy"), image("z", 1)])
    rows = pd.DataFrame([answer("y", 1, (0.2, 0.5, 0.3))])
    return trace(inventory.drop(columns="slide_id"), rows, LEUKAEMIA, "not in a test set")


def test_two_cohorts_together_counted_by_hand() -> None:
    both = combine({"A": traced(), "Z": hospital_z()})
    root = both.root
    assert counts(root) == (7 + 3, None, 15 + 3)
    assert [b.label for b in root["Excluded"].boxes] == ["too dark", "out of focus"]
    assert counts(root["Excluded"]["too dark"]) == (1 + 1, None, 2 + 1)
    lost = root["Eligible"]["No index test"]
    assert [(b.label, b.patients) for b in lost.boxes] == [("network failed", 1), ("not in a test set", 1)]
    positive = root["Eligible"]["Index test"]["positive"]
    assert [leaf.patients for leaf in positive["Reference standard"].boxes] == [1, 0, 1]
    assert both.crosstab.loc["positive"].tolist() == [1, 0, 1, 1, 3]
    assert both.crosstab.loc["not in a test set"].tolist() == [0, 1, 0, 0, 1]
    assert both.crosstab.loc["total"].tolist() == [2, 3, 1, 1, 7]
    assert list(both.crosstab.index)[-1] == "total" and unasked_rows(both) == ["not in a test set"]
    assert crosstab_notes(both) == [
        "Row “not in a test set”: these patients were not given to the index test; no estimate counts them."
    ]
    assert crosstab_notes(traced()) == []
    assert both.remarks[0] == "A patient in the data of two hospitals is counted twice."
    assert "no estimate of accuracy together" in both.remarks[1]
    assert both.remarks[2:] == ("Smears are not counted: no column names those of Z.",)


def test_smears_are_added_where_every_cohort_names_them() -> None:
    assert combine({"A": traced(), "B": traced()}).root.smears == 20


def test_patients_and_surrogate_groups_together_are_called_so() -> None:
    groups = trace(
        pd.DataFrame([image("x", 1)]).assign(patient_source="surrogate"),
        pd.DataFrame([answer("x", 1)]),
        LEUKAEMIA,
    )
    both = combine({"A": traced(), "G": groups})
    assert both.noun == "patients or surrogate groups"
    assert "In G groups of near duplicates are counted in the place of patients." in both.remarks
    assert "8 patients or surrogate groups" in words_of(draw(both, 760.0)).replace("\n", " ")
    assert "1 patient or surrogate group" in words_of(draw(both, 760.0))


def test_one_cohort_alone_is_as_it_was() -> None:
    alone = combine({"A": traced()})
    assert alone.root == traced().root and alone.remarks == ()


def test_flows_of_two_questions_are_not_added() -> None:
    with pytest.raises(ValueError, match="one question"):
        combine({"A": traced(), "B": traced(Question("classes", CLASSES))})


# Accuracy three ways follows from the cross-tabulation


def tabulated(question: Question) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trace patients of every kind; return the cross-tabulation, and the statistics' counts by analysis."""
    inventory, rows = [], []
    kinds = [
        # label, reference, status, probabilities of healthy, AML and ALL; how many patients
        ("AML", "ok", "ok", (0.1, 0.8, 0.1), 5),
        ("AML", "ok", "ok", (0.8, 0.1, 0.1), 2),
        ("ALL", "ok", "ok", (0.1, 0.7, 0.2), 3),
        ("healthy", "ok", "ok", (0.9, 0.1, 0.0), 7),
        ("healthy", "ok", "ok", (0.2, 0.1, 0.7), 4),
        ("AML", "ok", "indeterminate", (0, 0, 0), 1),
        ("healthy", "ok", "indeterminate", (0, 0, 0), 2),
        ("ALL", "ok", "not_done", (0, 0, 0), 3),
        ("healthy", "ok", "not_done", (0, 0, 0), 1),
        ("", "missing", "ok", (0.1, 0.8, 0.1), 2),
        ("", "inconclusive", "ok", (0.9, 0.1, 0.0), 3),
        ("", "missing", "not_done", (0, 0, 0), 1),
        ("", "inconclusive", "indeterminate", (0, 0, 0), 1),
        ("AML", "ok", "", (0, 0, 0), 6),  # trained on: no row
    ]
    for k, (label, reference, status, p, n) in enumerate(kinds):
        for i in range(n):
            inventory.append(image(f"k{k}_{i}_", 1, label, reference))
            if status:
                truth = label if reference == "ok" else reference
                rows.append(answer(f"k{k}_{i}_", 1, p, status) | {"truth": truth, "cohort": "c"})
    flow = trace(pd.DataFrame(inventory), pd.DataFrame(rows), question, "not in a test set")
    units = gather_units(pd.DataFrame(rows), CLASSES, "patient")
    if question.positive:
        answers = units.score(question.name, question.positive) >= question.threshold
    else:
        answers = units.table["predicted"].to_numpy(object)
    found = three_analyses(
        units, answers, question.positive or None, Place(question.name, "patient", []), 0.95
    )
    return flow.crosstab, found[found["class"].eq("")].set_index(["analysis", "metric"])


def fraction(found: pd.DataFrame, analysis: str, metric: str) -> tuple[int, int]:
    row = found.loc[(analysis, metric)]
    return row["numerator"], row["denominator"]


def test_three_analyses_of_a_yes_no_endpoint_follow_from_the_crosstab() -> None:
    table, found = tabulated(LEUKAEMIA)
    # columns: absent, present, inconclusive, not done, total
    assert table.loc["negative"].tolist() == [7, 2, 3, 0, 12]
    assert table.loc["positive"].tolist() == [4, 8, 0, 2, 14]
    assert table.loc["inconclusive"].tolist() == [2, 1, 1, 0, 4]
    assert table.loc["not done"].tolist() == [1, 3, 0, 1, 5]
    assert table.loc["not in a test set"].tolist() == [0, 6, 0, 0, 6]
    assert table.loc["total"].tolist() == [14, 20, 4, 3, 41]
    expected = {
        # by hand from the rows above; those in no test set are in none
        ("left_out", "sensitivity"): (8, 10),
        ("left_out", "specificity"): (7, 11),
        ("left_out", "accuracy"): (15, 21),
        ("left_out", "ppv"): (8, 12),
        ("left_out", "npv"): (7, 9),
        ("counted_as_errors", "sensitivity"): (8, 10 + 1 + 3),
        ("counted_as_errors", "specificity"): (7, 11 + 2 + 1),
        ("counted_as_errors", "accuracy"): (15, 21 + 4 + 3),
        ("counted_as_errors", "ppv"): (8, 12),
        ("worst_case", "sensitivity"): (8, 14 + 3),
        ("worst_case", "specificity"): (7, 14 + 2),
        ("worst_case", "accuracy"): (15, 28 + 3 + 2),
        ("worst_case", "ppv"): (8, 12 + 3 + 2),
        ("worst_case", "npv"): (7, 9 + 4 + 3),
    }
    assert {key: fraction(found, *key) for key in expected} == expected


def test_three_analyses_of_all_classes_follow_from_the_crosstab() -> None:
    table, found = tabulated(Question("classes", CLASSES))
    # columns: healthy, AML, ALL, inconclusive, not done, total
    assert table.loc["healthy"].tolist() == [7, 2, 0, 3, 0, 12]
    assert table.loc["AML"].tolist() == [0, 5, 3, 0, 2, 10]
    assert table.loc["ALL"].tolist() == [4, 0, 0, 0, 0, 4]
    assert table.loc["inconclusive"].tolist() == [2, 1, 0, 1, 0, 4]
    assert table.loc["not done"].tolist() == [1, 0, 3, 0, 1, 5]
    # right: 7 + 5 + 0 of 21 with both; 7 without an answer; 5 without a reference
    assert fraction(found, "left_out", "accuracy") == (12, 21)
    assert fraction(found, "counted_as_errors", "accuracy") == (12, 28)
    assert fraction(found, "worst_case", "accuracy") == (12, 33)


def test_who_has_an_answer_for_one_image_has_the_reference_of_that_image() -> None:
    # Of a holdout: x was trained on with image 1; image 2, without a reference, was answered. The accuracy step knows row 2 only.
    inventory = pd.DataFrame([image("x", 1, "AML"), image("x", 2, reference="missing")])
    flow = trace(inventory, pd.DataFrame([answer("x", 2)]), LEUKAEMIA, "not in a test set")
    assert flow.crosstab.loc["positive", "not done"] == 1


def test_a_failed_image_tells_more_than_one_without_a_row() -> None:
    inventory = pd.DataFrame([image("x", n) for n in (1, 2, 3)])
    rows = pd.DataFrame([answer("x", 3, status="not_done", reason="network failed")])
    flow = trace(inventory, rows, LEUKAEMIA, "not in a test set")
    assert [box.label for box in flow.root["Eligible"]["No index test"].boxes if box.patients] == [
        "network failed"
    ]
    assert flow.crosstab.loc["not done", "total"] == 1 and unasked_rows(flow) == []


# What is drawn


LONG_CLASSES = (
    "healthy donors without haematological disease",
    "acute myeloid leukaemia",
    "acute lymphoblastic leukaemia (B and T)",
    "chronic myeloid leukaemia in chronic phase",
    "myelodysplastic_syndrome_with_excess_blasts",
    "Pneumonoultramicroscopicsilicovolcanoconiosis",
)
LONG_REASONS = [
    f"not eligible: criterion {i}, {'the smear was made a day after the aspiration, ' * 7}"[:292]
    + f" (end {i})"
    for i in range(8)
]
ODD_REASONS = [
    "not eligible: נדגם לאחר טיפול (3 ימים)",
    "not eligible: عينة متخثرة 😀👩‍⚕️",
    "costs $x^2$",
    "line\nbreak\tand tab",
    "検体不良",
    "<b>&amp;",
    "W" * 120,
    "\u202eturned round",
]


def crowd(reasons: list[str], question: Question) -> Flow:
    """Sixty-six patients: the first are excluded for one reason each, of the others some end in every way."""
    inventory, rows = [], []
    for p in range(66):
        why = reasons[p] if p < len(reasons) else ""
        reference = "missing" if p % 9 == 0 else "inconclusive" if p % 11 == 0 else "ok"
        inventory.append(image(f"p{p}", 0, LONG_CLASSES[p % 6], reference, why))
        status = "indeterminate" if p % 5 == 1 else "not_done" if p % 5 == 2 else "ok"
        shares = (
            np.roll([0.75, 0.05, 0.05, 0.05, 0.05, 0.05], p % 6 + p % 4 // 3)
            if status == "ok"
            else [np.nan] * 6
        )
        if not why:
            rows.append(
                {
                    "case_id": f"c/p{p}0",
                    "patient_id": f"c/p{p}",
                    "predicted": LONG_CLASSES[int(np.argmax(shares))] if status == "ok" else "",
                    "status": status,
                    "reason": reasons[p % len(reasons)] if status == "not_done" else "",
                    **{f"p_{c}": v for c, v in zip(LONG_CLASSES, shares, strict=True)},
                }
            )
    return trace(pd.DataFrame(inventory), pd.DataFrame(rows), question)


@pytest.mark.parametrize("reasons", [LONG_REASONS, ODD_REASONS], ids=["long", "odd"])
@pytest.mark.parametrize("width", [358.0, 760.0])
@pytest.mark.parametrize(
    "question",
    [Question("classes", LONG_CLASSES), Question("leukaemia", LONG_CLASSES, LONG_CLASSES[1:], 0.5)],
    ids=["classes", "yes_no"],
)
@pytest.mark.filterwarnings("error")  # matplotlib warns of glyphs that it lacks
def test_eight_reasons_and_six_long_classes_are_legible(
    reasons: list[str], width: float, question: Question
) -> None:
    canvas = draw(crowd(reasons, question), width)
    assert crowded(canvas) == []
    boxes = [p.get_bbox() for p in canvas.axes[0].patches if hasattr(p, "get_width")]
    for i, one in enumerate(boxes):
        assert one.x0 >= 0 and one.x1 <= width
        for other in boxes[i + 1 :]:
            assert one.x1 <= other.x0 or other.x1 <= one.x0 or one.y1 <= other.y0 or other.y1 <= one.y0
    assert "other reasons" not in words_of(canvas)


def test_every_word_of_eight_long_reasons_is_drawn() -> None:
    drawn = words_of(draw(crowd(LONG_REASONS, Question("classes", LONG_CLASSES)), 760.0))
    drawn = " ".join(drawn.split())
    assert [reason for reason in LONG_REASONS if " ".join(reason.split()) not in drawn] == []


def test_beyond_eight_reasons_the_rest_is_added_up_and_listed_elsewhere() -> None:
    reasons = [f"reason {i:02d}" for i in range(11)]
    flow = crowd(reasons, LEUKAEMIA_OF_SIX)
    drawn = words_of(draw(flow, 760.0))
    # Eleven patients for eleven reasons: seven are drawn, four added up.
    assert "4 other reasons (each in the JSON file): 4 patients, 4 smears, 4 images" in drawn
    table = reason_table(flow, "t", {})
    assert table is not None and table.header == ["left as", "reason", "patients", "smears", "images"]
    excluded = [row for row in table.rows if row[0] == "Excluded"]
    assert [row[1] for row in excluded] == reasons and sum(int(row[2]) for row in excluded) == 11


LEUKAEMIA_OF_SIX = Question("leukaemia", LONG_CLASSES, LONG_CLASSES[1:], 0.5)


def test_reasons_are_listed_only_where_the_diagram_does_not_print_each() -> None:
    assert reason_table(crowd(LONG_REASONS, LEUKAEMIA_OF_SIX), "t", {}) is None
    odd = reason_table(crowd(ODD_REASONS, LEUKAEMIA_OF_SIX), "t", {})
    assert odd is not None and "検体不良" in [row[1] for row in odd.rows]


def test_who_lacks_the_reference_leaves_the_arms_line() -> None:
    axes = draw(traced(), 760.0).axes[0]
    texts = {t.get_text(): t.get_position() for t in axes.texts if t.get_text()}
    # The box stands to the right of the arm's and of the next box's edge, so that the line passes it.
    assert texts["No reference standard"][0] > texts["Reference standard"][0]


def test_a_reason_from_right_to_left_is_drawn_in_the_order_of_reading() -> None:
    inventory = pd.DataFrame([image("x", 1, excluded="\u05d0\u05d1\u05d2"), image("y", 1)])
    drawn = words_of(draw(trace(inventory, pd.DataFrame([answer("y", 1)]), LEUKAEMIA), 760.0))
    assert "\u05d2\u05d1\u05d0" in drawn and "\u05d0\u05d1\u05d2" not in drawn
