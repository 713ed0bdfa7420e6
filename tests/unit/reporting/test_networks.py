"""All networks of a study: the tables and cells.csv against numbers written down by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hand_made_grid import (
    TESTS,
    grid_options,
    headline_rows,
    metrics_row,
    reporter_of,
    write_metrics,
    write_training,
)

from marrowflow.config import Model
from marrowflow.reporting.cells import cell_records, cells_of
from marrowflow.reporting.networks import network_blocks
from marrowflow.reporting.page import Figure, Text
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.tables import Table
from marrowflow.reporting.variants import seeds_of, variants_of

ACCURACIES = dict(zip(TESTS, (0.5, 0.6, 0.625, 0.7, 0.75, 0.65), strict=True))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grid")
    for name, accuracy in ACCURACIES.items():
        write_metrics(root, name, headline_rows(accuracy))
    first = {"device_seconds": 30.0, "images": 1000, "images_a_second": 50.0, "peak_memory_mb": 700.0}
    second = {"device_seconds": 12.5, "images": 500, "images_a_second": 100.0, "peak_memory_mb": None}
    sizes = {"parameters": {"total": 6_957_956, "trainable": 4100}}
    timm = {"weights": {"source": "timm densenet121.ra_in1k", "licence": "apache-2.0"}}
    write_training(root, "dense_seed0-raw", "0", first, best_epoch=8, **sizes, **timm)
    write_training(root, "dense_seed0-raw", "1", second, best_epoch=12, **sizes, **timm)
    write_training(root, "dense_seed1-raw", "0", first, best_epoch={"AML": 3, "ALL": 5}, **sizes, **timm)
    write_training(root, "dense_seed1-raw", "1", None, best_epoch={"AML": 4, "ALL": 4})
    return root


def tables_of(root: Path, primary: Primary | None = None, **changes: object) -> tuple[Table, Table, str]:
    options = grid_options(**changes)
    text, *_, accuracy, cost = network_blocks(reporter_of(root, options, primary), options, "sound")
    assert isinstance(accuracy, Table) and isinstance(cost, Table) and isinstance(text, Text)
    return accuracy, cost, text.paragraphs[0]


def column(table: Table, name: str) -> dict[str, str]:
    place = list(table.header).index(name)
    return {row[0]: row[place] for row in table.rows}


def test_each_index_test_has_a_row_with_its_metrics_in_the_order_of_the_file(root: Path) -> None:
    table, _, _ = tables_of(root, Primary("lite-raw", "declared"))
    assert [row[0] for row in table.rows] == [t + (" (primary)" if t == "lite-raw" else "") for t in TESTS]
    accuracy = column(table, "accuracy")
    assert accuracy["dense_seed1-raw"] == "0.625 (0.525\u00a0to\u00a00.725)"
    assert column(table, "balanced accuracy")["dense_seed1-raw"] == "0.615 (0.515\u00a0to\u00a00.715)"
    assert column(table, "AUC (leukaemia)")["both-raw"] == "0.670 (0.570\u00a0to\u00a00.770)"
    assert column(table, "patients")["both-raw"] == "40"
    assert column(table, "network")["both-raw"] == "mean of 2 models"
    assert "both: mean of the probabilities of dense_seed0 and dense_seed1." in table.notes
    made = column(table, "trained as")
    assert made["both-raw"] == "raw"
    assert made["dense_seed1-raw"] == "finetune, raw, seed 1"
    assert made["dense_scratch-raw"] == "scratch, raw"
    assert "heads diagnosis 0.9, leukaemia 0.1" in made["lite_w19-raw"]
    assert any("best of 6 is so partly by chance" in note for note in table.notes)


def test_costs_are_added_up_over_the_folds_and_an_ensemble_has_none(root: Path) -> None:
    _, cost, _ = tables_of(root)
    assert column(cost, "device-seconds")["dense_seed0-raw"] == "42"  # 30 + 12.5, half to even
    # 1500 images in 42.5 s, whatever rates the files say: 35.3 a second; the mean of the folds' would be 36.7
    assert column(cost, "images/s")["dense_seed0-raw"] == "35"
    assert any("stands with the training that computed them" in note for note in cost.notes)
    assert column(cost, "device-seconds")["dense_seed1-raw"] == "30 (1 of 2 folds)"
    assert column(cost, "parameters trained")["dense_seed0-raw"] == "4,100"
    assert column(cost, "epochs kept")["dense_seed0-raw"] == "8\u00a0to\u00a012"
    assert column(cost, "epochs kept")["dense_seed1-raw"] == "3\u00a0to\u00a05"  # one a class and fold
    start = column(cost, "start weights (licence)")
    assert start["dense_seed0-raw"] == "timm densenet121.ra_in1k (apache-2.0)"
    assert start["lite-raw"] == "file lite.safetensors (CC BY-NC 4.0)"  # of a local file: as configured
    assert start["dense_scratch-raw (primary)"] == "random"
    assert "Device: GPU A." in cost.notes and "device" not in cost.header
    (ensemble,) = [row for row in cost.rows if row[0] == "both-raw"]
    assert set(ensemble[1:]) == {"–"}


def test_several_devices_have_a_column(tmp_path: Path) -> None:
    cost = {"device_seconds": 4.25, "images": 10, "images_a_second": 9.0}
    write_training(tmp_path, "lite-raw", "0", cost | {"device": "cpu"})
    write_training(tmp_path, "lite-raw", "1", cost)
    table = tables_of(tmp_path)[1]
    assert column(table, "device")["lite-raw"] == "cpu, GPU A" and not any(
        "Device:" in n for n in table.notes
    )
    # 20 images in 8.5 s
    assert column(table, "device-seconds")["lite-raw"] == "8.5"
    assert column(table, "images/s")["lite-raw"] == "2.4"


def test_a_training_that_took_no_time_has_no_rate(tmp_path: Path) -> None:
    write_training(tmp_path, "lite-raw", "0", {"device_seconds": 0.0, "images": 0, "images_a_second": None})
    assert column(tables_of(tmp_path)[1], "images/s")["lite-raw"] == "–"


def test_images_are_counted_where_they_are_the_unit(tmp_path: Path) -> None:
    write_metrics(tmp_path, "lite-raw", [metrics_row("accuracy", 0.5, unit="case")])
    table = tables_of(tmp_path, units=["case", "patient"])[0]
    assert column(table, "images")["lite-raw"] == "160" and "patients" not in table.header


def test_the_csv_beside_the_page_has_every_number_in_full(root: Path) -> None:
    options = grid_options()
    table = cell_records(reporter_of(root, options), cells_of(reporter_of(root, options), options, "sound"))
    tables_of(root)
    read = pd.read_csv(root / "report" / "figures" / "cells.csv").set_index("index_test")
    assert read.index.tolist() == TESTS and len(table) == len(TESTS)
    assert read["classes_accuracy_estimate"].to_dict() == pytest.approx(ACCURACIES)
    assert read.loc["lite-raw", "leukaemia_auc_high"] == pytest.approx(0.82)
    assert read.loc["dense_seed0-raw", ["device_seconds", "images", "peak_memory_mb"]].tolist() == [
        42.5,
        1500,
        700,
    ]
    assert read.loc["dense_seed0-raw", "epochs_kept"] == "8 12" and pd.isna(read.loc["both-raw", "images"])
    assert read["primary"].sum() == 1 and read.loc["dense_scratch-raw", "primary"]


def test_the_page_says_how_the_primary_one_was_chosen_and_by_which_values(root: Path) -> None:
    values = {name: accuracy / 2 for name, accuracy in ACCURACIES.items()} | {"lite-raw": float("nan")}
    chosen = Primary("lite_w19-raw", "chosen", "mcc", "classes", "patient", values)
    table, _, said = tables_of(root, chosen)
    assert said == (
        "Primary index test: lite_w19-raw, chosen on development data, out of fold, as the best of 6 by MCC, per patient; its "
        "own development estimate is therefore a little too good, the external hospitals’ is not."
    )
    by = column(table, "MCC: chosen by")
    assert by["lite_w19-raw (primary)"] == "0.375" and by["lite-raw"] == "undefined"
    # A headline metric needs no column of its own.
    known = Primary("lite_w19-raw", "chosen", "auc", "leukaemia", "patient", values)
    assert not any("chosen by" in name for name in tables_of(root, known)[0].header)
    assert tables_of(root)[2].endswith("taken before the run as none was declared.")


def test_of_two_classes_the_endpoint_stands_for_the_classification(root: Path) -> None:
    options = {"classes": ["healthy", "AML"], "endpoints": {"leukaemia": {"positive": ["AML"]}}}
    table, _, _ = tables_of(root, **options)
    assert list(table.header)[-3:] == ["accuracy", "balanced accuracy", "AUC"]
    assert column(table, "accuracy")["lite-raw"] == "missing"  # the files have that of classes
    table, _, _ = tables_of(root, endpoints={}, units=["case"])
    assert list(table.header)[-1] == "AUC (macro)" and "No estimates." in table.notes


def test_the_alternative_text_begins_with_the_primary_one(root: Path) -> None:
    options = grid_options()
    blocks = network_blocks(reporter_of(root, options, Primary("lite-raw", "declared")), options, "sound")
    (figure,) = [b for b in blocks if isinstance(b, Figure)]
    assert "n = 40 patients" in figure.caption and figure.wide is not None
    words = "lite-raw: accuracy 0.700, balanced accuracy 0.690, AUC (leukaemia) 0.720; dense_scratch-raw: accuracy 0.500"
    assert words in figure.alternative
    alone = grid_options(index_tests=["lite-raw"])
    assert not any(isinstance(b, Figure) for b in network_blocks(reporter_of(root, alone), alone, "sound"))


def test_a_variant_is_what_models_of_one_network_and_mode_do_not_share() -> None:
    smooth = {"training": {"label_smoothing": 0.1, "seed": 4}}
    models = {
        name: Model.model_validate({"network": "bt5153/vit"} | keys)
        for name, keys in {
            "plain": {},
            "smooth": smooth,
            "alone": smooth | {"mode": "scratch"},
            "raw": {"profile": "as_published", "head": "one_vs_rest", "mode": "frozen"},
        }.items()
    }
    assert variants_of(models) == {
        "plain": "label_smoothing 0.0",
        "smooth": "label_smoothing 0.1",
        "alone": "",
        "raw": "profile as_published; one yes/no network a class",
    }
    assert seeds_of(models) == {"plain": "0", "smooth": "4", "alone": "", "raw": ""}
