"""The converter of real smears: counts from the sources' own tables, bytes as they came."""

import tarfile
from pathlib import Path

import pandas as pd
import pytest
import real_data
from real_data import ROOT, STUDIES, WHITE_CELLS, convert, missing

from marrowflow.config import read_study

SHARED = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.real


def _need(study: str) -> None:
    lacking = missing(study, SHARED)
    if lacking:
        pytest.skip(f"real smears are not here: {lacking[0]}")


def _read(path: Path, **options) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, **options)


@pytest.fixture(scope="module")
def malaria(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _need("malaria")
    out = tmp_path_factory.mktemp("real") / "malaria"
    convert("malaria", SHARED, out, limit_per_class=150)
    return out


def test_white_cells_of_three_sources_have_the_sources_counts(tmp_path):
    _need("wbc_sites")
    table = _read(convert("wbc_sites", SHARED, tmp_path / "wbc"), sep="\t")

    assert table[["cohort", "role"]].to_numpy().tolist() == [
        ["barcelona", "development"],
        ["tecom", "external"],
        ["cellavision", "external"],
    ]
    manifests = {row.cohort: _read(Path(row.manifest)) for row in table.itertuples()}
    # Counted in the sources' label files; 360 of each type were taken from Acevedo 2020.
    assert manifests["tecom"]["label"].value_counts()[list(WHITE_CELLS)].tolist() == [176, 53, 48, 22, 1]
    assert manifests["cellavision"]["label"].value_counts()[list(WHITE_CELLS)].tolist() == [33, 37, 15, 12, 3]
    assert (manifests["barcelona"]["label"].value_counts()[list(WHITE_CELLS)] == 360).all()
    assert all("patient_id" not in manifest for manifest in manifests.values())


def test_cells_of_barcelona_are_eleven_of_the_21_marrow_types_in_five_lineages(tmp_path):
    _need("bt5153_barcelona")
    convert("bt5153_barcelona", SHARED, tmp_path / "cells")
    manifest = _read(tmp_path / "cells/barcelona/manifest.csv")
    lineages = _read(ROOT / "resources/label_maps/marrow21_to_5.csv").set_index("label")["class"]
    # Added up by hand from the source's fine labels; 25 "IG" and 3 "NEUTROPHIL" have no type.
    assert manifest["label"].map(lineages).value_counts().to_dict() == {
        "erythropoiesis": 360,
        "granulopoiesis": 360 + 360 + 120 + 136 + 79 + 178 + 179,
        "lymphopoiesis": 360,
        "monopoiesis": 360,
        "others": 360,
    }


def test_images_are_copied_byte_for_byte(tmp_path):
    _need("wbc_sites")
    convert("wbc_sites", SHARED, tmp_path / "wbc", limit_per_class=2)

    manifest = _read(tmp_path / "wbc/barcelona/manifest.csv")
    for image, label in zip(manifest["image"], manifest["label"], strict=True):
        original = SHARED / "pbc/images" / label / Path(image).name
        assert (tmp_path / "wbc/barcelona" / image).read_bytes() == original.read_bytes()


def test_malaria_cells_keep_their_bytes_patients_and_labels(malaria):
    manifest = _read(malaria / "nih/manifest.csv")
    with tarfile.open(SHARED / "malaria_nih50.tar") as archive:
        for row in manifest.iloc[::60].itertuples():
            folder = {"parasitised": "Parasitized", "uninfected": "Uninfected"}[row.label]
            member = archive.extractfile(f"malaria_nih50/images/{folder}/{Path(row.image).name}")
            assert (malaria / "nih" / row.image).read_bytes() == member.read()
            # The authors' file names begin with the patient's number.
            assert Path(row.image).name.startswith(row.patient_id)


def test_a_limited_slice_is_the_same_each_time_and_spread_over_patients(malaria, tmp_path):
    manifest = _read(malaria / "nih/manifest.csv")
    assert manifest["label"].value_counts().to_dict() == {"parasitised": 150, "uninfected": 150}
    assert manifest.loc[manifest["label"] == "uninfected", "patient_id"].nunique() > 100
    assert set(manifest["upstream_split"]) == {"train", "test"}

    convert("malaria", SHARED, tmp_path / "again", limit_per_class=150)
    again = tmp_path / "again/nih/manifest.csv"
    assert again.read_bytes() == (malaria / "nih/manifest.csv").read_bytes()


@pytest.mark.parametrize("key", STUDIES)
def test_the_studies_name_what_the_converter_writes(key, tmp_path):
    _need(key)
    study = read_study(ROOT / f"resources/studies/{key}.yaml")
    table = _read(convert(key, SHARED, tmp_path / "data" / key, limit_per_class=10), sep="\t")

    assert (study.study.key, study.cohorts) == (key, f"data/{key}/cohorts.tsv")
    development = _read(Path(table.loc[table["role"] == "development", "manifest"].item()))
    classes = development["label"]
    if study.label_map is not None:
        classes = classes.map(_read(ROOT / study.label_map).set_index("label")["class"])
    assert set(classes) == set(study.classes)
    if study.splits.as_published is not None:
        assert set(development[study.splits.as_published.column]) == {"train", "test"}
    laid = [model.weights for model in study.models.values() if model.weights.startswith("data/")]
    assert all((tmp_path / weights).is_file() for weights in laid)


def test_missing_material_is_named(tmp_path, capsys):
    assert real_data.main(["malaria", "--shared", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "malaria_nih50.tar" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
