"""Readers and other products: from their sheet to a prediction table, and what is measured of it."""

import numpy as np
import pandas as pd
import pytest

from marrowflow.choices.threshold import digest_of
from marrowflow.errors import UserError
from marrowflow.files import write_json
from marrowflow.predictions import check_predictions, write_predictions
from marrowflow.readers import Options, take_in
from marrowflow.readers import main as take
from marrowflow.statistics.endpoints import choose_endpoints
from marrowflow.statistics.readers import Options as Measured
from marrowflow.statistics.readers import main as measure_step
from marrowflow.statistics.readers import measure_readers
from marrowflow.statistics.subjects import Subject

CLASSES = ["healthy", "AML"]


def inventory(**changes):
    """Three patients: one with two images, one whose reference is missing, one excluded."""
    table = pd.DataFrame(
        {
            "case_id": ["b/1.png", "b/2.png", "b/3.png", "b/4.png"],
            "cohort": "b",
            "image": ["1.png", "2.png", "3.png", "4.png"],
            "patient_id": ["b/P1", "b/P1", "b/P2", "b/P3"],
            "patient_source": "manifest",
            "label": ["AML", "AML", "", "healthy"],
            "reference_status": ["ok", "ok", "missing", "ok"],
            "status": ["included", "included", "included", "excluded"],
        }
    )
    return table.assign(**changes)


def sheet(**columns):
    return pd.DataFrame(columns)


def taken(answers, unit="case", stock=None):
    return take_in(
        answers, inventory() if stock is None else stock, "dr_a", Options(classes=CLASSES, unit=unit), "A.csv"
    )


def test_a_sheet_by_image_becomes_a_prediction_table_in_the_manifests_order():
    table = taken(
        sheet(cohort="b", image=["3.png", "2.png", "1.png"], predicted=["healthy", "AML", "healthy"])
    )
    assert table["case_id"].tolist() == ["b/1.png", "b/2.png", "b/3.png"]
    assert table["patient_id"].tolist() == ["b/P1", "b/P1", "b/P2"]
    assert table["truth"].tolist() == ["AML", "AML", "missing"]
    assert table["predicted"].tolist() == ["healthy", "AML", "healthy"]
    assert set(table["index_test"]) == {"dr_a"}
    assert set(table["partition"]) == {"reader"}


def test_a_prediction_table_is_taken_as_it_is_with_its_probabilities():
    table = taken(sheet(case_id=["b/1.png", "b/2.png"], p_healthy=[0.3, 0.9], p_AML=[0.7, 0.1]))
    assert table["predicted"].tolist() == ["AML", "healthy"]
    assert table["p_AML"].tolist() == [0.7, 0.1]


def test_a_reader_of_patients_has_one_row_a_patient_with_the_reference_of_its_images():
    table = taken(sheet(cohort="b", patient_id=["P2", "P1"], predicted=["AML", "AML"]), "patient")
    assert table["patient_id"].tolist() == ["b/P1", "b/P2"]
    assert table["truth"].tolist() == ["AML", "missing"]


def test_a_reader_may_say_that_there_is_no_answer():
    answers = sheet(
        cohort="b",
        image=["1.png", "2.png"],
        predicted=["", "AML"],
        status=["indeterminate", "ok"],
        reason=["smudged", ""],
    )
    table = taken(answers)
    assert table["status"].tolist() == ["indeterminate", "ok"]
    assert table["reason"].tolist() == ["smudged", ""]


def test_what_the_study_excluded_and_other_hospitals_do_not_count():
    answers = sheet(cohort=["b", "b", "c"], image=["4.png", "1.png", "9.png"], predicted="AML")
    assert taken(answers)["case_id"].tolist() == ["b/1.png"]


def test_a_reader_who_read_nothing_here_gives_a_table_without_rows():
    table = taken(sheet(cohort=["c"], image=["9.png"], predicted=["AML"]))
    assert table.empty
    assert {"case_id", "truth", "predicted", "index_test"} <= set(table)


@pytest.mark.parametrize(
    ("answers", "unit", "words"),
    [
        (sheet(cohort="b", image=["7.png"], predicted=["AML"]), "case", ["row 1", "b/7.png", "no image"]),
        (
            sheet(cohort="b", image=["1.png", "1.png"], predicted="AML"),
            "case",
            ["rows 1, 2", "more than once"],
        ),
        (sheet(cohort="b", image=["1.png"], predicted=["aml"]), "case", ["aml", "AML"]),
        (sheet(cohort="b", image=["1.png"], answer=["AML"]), "case", ["no answers", "predicted"]),
        (sheet(name=["1.png"], predicted=["AML"]), "case", ["what was read", "cohort and image"]),
        (sheet(cohort="b", image=["1.png"], predicted=["AML"]), "patient", ["cohort and patient_id"]),
        (
            sheet(cohort=["b", ""], image=["1.png", "2.png"], predicted="AML"),
            "case",
            ["row 2", "cohort is empty"],
        ),
        (
            sheet(cohort="b", image=["1.png"], predicted=["AML"], truth=["healthy"]),
            "case",
            ["row 1", "'healthy' here", "'AML' in the manifest"],
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_row_and_a_remedy(answers, unit, words):
    with pytest.raises(UserError) as caught:
        taken(answers, unit)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_patient_with_two_references_cannot_be_answered_for_as_one():
    stock = inventory(label=["AML", "healthy", "", "healthy"])
    with pytest.raises(UserError, match="images of AML and healthy"):
        taken(sheet(cohort="b", patient_id=["P1"], predicted=["AML"]), "patient", stock)


def test_surrogate_groups_cannot_be_answered_for():
    with pytest.raises(UserError, match="near duplicates"):
        taken(
            sheet(cohort="b", patient_id=["P1"], predicted=["AML"]),
            "patient",
            inventory(patient_source="surrogate"),
        )


# What is measured

# Table of studies.md (bt5153): rows are the reference, columns the answer.
LINEAGES = ["erythro", "granulo", "lympho", "mono", "others"]
COUNTS = np.array(
    [
        [5265, 179, 408, 12, 163],
        [405, 12377, 1014, 646, 1432],
        [273, 487, 5573, 147, 390],
        [8, 228, 57, 494, 21],
        [60, 1173, 553, 92, 2824],
    ]
)


def cells_of(counts, classes, index_test):
    """One row a cell, each of a patient of its own, as a confusion matrix counts them."""
    truth, answer = (np.repeat(side, counts.ravel()) for side in np.indices(counts.shape).reshape(2, -1))
    names = np.asarray(classes, dtype=object)
    case = [f"b/{i}.png" for i in range(len(truth))]
    return pd.DataFrame(
        {
            "case_id": case,
            "cohort": "b",
            "truth": names[truth],
            "predicted": names[answer],
            "index_test": index_test,
        }
    )


def test_five_lineages_of_another_product_give_the_published_figures():
    """bt5153 reports accuracy .77 and MCC .68; the table's own arithmetic is .773986, .682687 and .7353."""
    product = check_predictions(cells_of(COUNTS, LINEAGES, "product"), LINEAGES)
    network = check_predictions(cells_of(np.diag(COUNTS.sum(axis=1)), LINEAGES, "network"), LINEAGES)
    options = Measured(classes=LINEAGES, units=["case"], accuracy={"replicates": 100})
    tables = measure_readers(Subject(network, None), [product], {"classes": None}, options)
    metrics = tables["metrics"]
    assert set(metrics["index_test"]) == {"product"}
    rows = metrics[metrics["primary"] & metrics["class"].eq("")].set_index("metric")["estimate"]
    assert rows["accuracy"] == pytest.approx(0.773986, abs=5e-7)
    assert rows["mcc"] == pytest.approx(0.682687, abs=5e-7)
    assert rows["balanced_accuracy"] == pytest.approx(0.7353, abs=5e-5)
    # A network that is always right agrees with the product where the product is right, and is ahead by the rest.
    own = tables["agreement"][tables["agreement"]["primary"]]
    agreement = own.set_index("metric")["estimate"]
    assert agreement["agreement"] == pytest.approx(0.773986, abs=5e-7)
    compared = tables["comparisons"]
    own = compared["metric"].eq("accuracy") & compared["primary"] & compared["class"].eq("")
    difference = compared[own]["difference"]
    assert difference.tolist() == pytest.approx([1 - 0.773986], abs=5e-7)


def answers_of(index_test, predicted, truth, patients=None):
    n = len(truth)
    table = pd.DataFrame(
        {
            "case_id": [f"b/{i}.png" for i in range(n)],
            "patient_id": patients or [f"b/P{i}" for i in range(n)],
            "cohort": "b",
            "truth": truth,
            "predicted": predicted,
            "index_test": index_test,
        }
    )
    return check_predictions(table, CLASSES)


def test_readers_are_compared_with_the_network_and_with_each_other_on_common_patients_only():
    truth = ["AML"] * 5 + ["healthy"] * 5
    network = answers_of("net-raw", ["AML"] * 5 + ["healthy"] * 5, truth)
    a = answers_of("dr_a", ["AML"] * 4 + ["healthy"] * 6, truth)
    b = answers_of("dr_b", ["AML"] * 5 + ["AML"] + ["healthy"] * 2, truth[:8])
    options = Measured(
        classes=CLASSES,
        units=["patient"],
        endpoints={"AML": {"positive": ["AML"]}},
        accuracy={"replicates": 100},
    )
    tables = measure_readers(Subject(network, None), [a, b], choose_endpoints(options, CLASSES, []), options)
    pairs = tables["agreement"].drop_duplicates(["index_test", "against"])[["index_test", "against"]]
    assert sorted(map(tuple, pairs.to_numpy())) == [
        ("dr_a", "dr_b"),
        ("net-raw", "dr_a"),
        ("net-raw", "dr_b"),
    ]
    agree = (
        tables["agreement"]
        .query("primary and unit == 'patient' and endpoint == 'AML'")
        .set_index(["index_test", "against", "metric"])
    )
    # dr_a and dr_b: AML/AML 4, healthy/AML 2, healthy/healthy 2 of the eight that both read
    row = agree.loc[("dr_a", "dr_b", "agreement")]
    assert (row["numerator"], row["denominator"]) == (6, 8)
    kappa = (6 / 8 - (4 * 6 + 4 * 2) / 64) / (1 - (4 * 6 + 4 * 2) / 64)
    assert agree.loc[("dr_a", "dr_b", "kappa"), "estimate"] == pytest.approx(kappa)
    sens = tables["metrics"].query("metric == 'sensitivity' and primary").set_index("index_test")
    assert (sens.loc["dr_a", "numerator"], sens.loc["dr_a", "denominator"]) == (4, 5)
    assert (sens.loc["dr_b", "numerator"], sens.loc["dr_b", "denominator"]) == (5, 5)


def test_a_reader_of_patients_is_measured_per_patient_only():
    truth = ["AML", "AML", "healthy", "healthy", "AML", "healthy"]
    patients = ["b/P0", "b/P0", "b/P1", "b/P1", "b/P2", "b/P3"]
    network = answers_of("net-raw", truth, truth, patients)
    reader = pd.DataFrame(
        {
            "case_id": ["b/P0", "b/P1", "b/P2", "b/P3"],
            "patient_id": ["b/P0", "b/P1", "b/P2", "b/P3"],
            "cohort": "b",
            "truth": ["AML", "healthy", "AML", "healthy"],
            "predicted": ["AML", "healthy", "healthy", "healthy"],
            "index_test": "dr_a",
        }
    )
    options = Measured(
        classes=CLASSES,
        units=["patient", "case"],
        endpoints={"AML": {"positive": ["AML"]}},
        reader_units={"dr_a": "patient"},
        accuracy={"replicates": 100},
    )
    tables = measure_readers(
        Subject(network, None),
        [check_predictions(reader, CLASSES)],
        choose_endpoints(options, CLASSES, []),
        options,
    )
    assert set(tables["metrics"]["unit"]) == {"patient"}
    assert set(tables["comparisons"]["unit"]) == {"patient"}


def test_readers_with_nobody_in_common_are_not_compared_and_it_is_said():
    truth = ["AML", "healthy", "AML", "healthy"]
    network = answers_of("net-raw", truth, truth)
    other = check_predictions(answers_of("dr_a", truth, truth).table.assign(cohort="c"), CLASSES)
    options = Measured(classes=CLASSES, units=["case"], accuracy={"replicates": 100})
    tables = measure_readers(Subject(network, None), [other], {"classes": None}, options)
    assert tables["comparisons"].empty
    assert any("answered for nobody" in text for text in tables["warnings"]["warning"])


def test_the_two_steps_from_a_sheet_to_the_tables(tmp_path):
    stock = inventory(status="included", reference_status="ok", label=["AML", "AML", "healthy", "healthy"])
    stock.to_parquet(tmp_path / "I.parquet")
    sheet(
        cohort=["b"] * 4,
        image=["1.png", "2.png", "3.png", "4.png"],
        predicted=["AML", "AML", "healthy", "AML"],
    ).to_csv(tmp_path / "A.csv", index=False)
    options = '{"classes":["healthy","AML"],"unit":"case"}'
    where = ["--inventories", str(tmp_path / "I.parquet")]
    take(
        [
            "--options",
            options,
            "--reader",
            "dr_a",
            "--tables",
            str(tmp_path / "A.csv"),
            *where,
            "--out",
            str(tmp_path / "dr_a.parquet"),
        ]
    )
    take(
        # Another one who read other hospitals only.
        [
            "--options",
            options,
            "--reader",
            "dr_b",
            "--tables",
            str(_elsewhere(tmp_path)),
            *where,
            "--out",
            str(tmp_path / "dr_b.parquet"),
        ]
    )
    network = pd.read_parquet(tmp_path / "dr_a.parquet").assign(
        index_test="net-raw", p_healthy=[0.1, 0.2, 0.9, 0.8], p_AML=[0.9, 0.8, 0.1, 0.2], predicted=""
    )
    write_predictions(tmp_path / "net.parquet", network, CLASSES)
    cut = {"threshold": 0.5, "sensitivity": 1.0, "specificity": 1.0, "n": 3}
    lock = {
        "index_test": "net-raw",
        "protocol": "sound",
        "classes": CLASSES,
        "calibration": {"method": "none"},
        "endpoints": {"AML": {"positive": ["AML"], "patient": cut, "case": cut}},
    }
    write_json(tmp_path / "lock.json", {**lock, "digest": digest_of(lock)})
    write_json(tmp_path / "primary.json", {"index_test": "net-raw", "how": "declared"})
    asked = '{"accuracy":{"replicates":100},"classes":["healthy","AML"],"endpoints":{"AML":{"positive":["AML"]}},"units":["patient","case"],"reader_units":{}}'
    measure_step(
        [
            "--options",
            asked,
            "--readers",
            str(tmp_path / "dr_a.parquet"),
            str(tmp_path / "dr_b.parquet"),
            "--predictions",
            str(tmp_path / "net.parquet"),
            "--lock",
            str(tmp_path / "lock.json"),
            "--primary",
            str(tmp_path / "primary.json"),
            "--out",
            str(tmp_path / "out"),
        ]
    )
    metrics = pd.read_csv(tmp_path / "out/metrics.csv")
    row = metrics.query("metric == 'specificity' and unit == 'case' and primary").iloc[0]
    assert (row["index_test"], row["numerator"], row["denominator"]) == ("dr_a", 1, 2)


def _elsewhere(folder):
    sheet(cohort=["c"], image=["1.png"], predicted=["AML"]).to_csv(folder / "B.csv", index=False)
    return folder / "B.csv"
