"""Manifests: what a good one becomes, and that each fault is told with its row, column and remedy."""

import posixpath
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.cohorts.manifest import read_label_map, read_manifest
from marrowflow.errors import UserError

CLASSES = ["AML", "ALL", "normal"]


@pytest.fixture
def folder(tmp_path):
    """A cohort's folder with four files to name; a manifest never opens them."""
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "sub/c.jpg", "d e'é=1+1.jpg"):
        (site / name).write_bytes(b"")
    (tmp_path / "outside.jpg").write_bytes(b"")
    return site


def write(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def fault(folder: Path, text: str, **options) -> str:
    path = write(folder, text)
    with pytest.raises(UserError) as caught:
        read_manifest(path, CLASSES, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_full_row(folder):
    text = (
        "image,patient_id,label,age,sex,mpp,index_date,eligible,reference,stain,slide_id\n"
        "a.jpg, P1 ,AML,61.5,F,.25,2021-03-04,YES,flow cytometry, Giemsa ,S1\n"
        "sub/c.jpg,P2,,,,,,clotted sample,inconclusive,,\n"
    )
    table = read_manifest(write(folder, text), CLASSES)
    assert table["patient_id"].tolist() == ["P1", "P2"]
    assert table["label"].tolist() == ["AML", ""]
    assert table["reference_status"].tolist() == ["ok", "inconclusive"]
    assert table["eligible"].tolist() == ["yes", "clotted sample"]
    assert table["sex"].tolist() == ["female", ""]
    assert table["stain"].tolist() == [" Giemsa ", ""]
    assert table["age"].dtype == table["mpp"].dtype == np.float64
    assert table["age"][0] == 61.5
    assert np.isnan(table["mpp"][1])


def test_tabs_byte_order_mark_blank_lines_and_carriage_returns(folder):
    path = folder / "manifest.tsv"
    path.write_bytes(b'\xef\xbb\xbfimage\tlabel\r\na.jpg\tAML\r\n\r\n"b.jpg"\tALL\r\n')
    table = read_manifest(path, CLASSES)
    assert table["image"].tolist() == ["a.jpg", "b.jpg"]
    assert "patient_id" not in table


def test_odd_file_names_pass(folder):
    assert (
        read_manifest(write(folder, "image,label\nd e'é=1+1.jpg,AML\n"), CLASSES)["image"][0]
        == "d e'é=1+1.jpg"
    )


def test_reference_decides_whether_a_label_is_needed(folder):
    text = "image,label,reference\na.jpg,,missing\nb.jpg,AML,Inconclusive\nsub/c.jpg,ALL,\n"
    table = read_manifest(write(folder, text), CLASSES)
    assert table["label"].tolist() == ["", "", "ALL"]
    assert table["reference_status"].tolist() == ["missing", "inconclusive", "ok"]
    assert table["type"].tolist() == ["", "", "ALL"]
    assert table["manifest_label"].tolist() == ["", "AML", "ALL"]


def test_images_of_a_class_that_the_study_lacks_are_refused_until_they_are_called_ineligible(folder):
    """ALL-IDB1 as it was published on: 49 images of ALL, and 59 of healthy people that a study of leukaemias has no class for."""
    for i in range(108):
        (folder / f"{i}.jpg").write_bytes(b"")
    leukaemias = "".join(f"{i}.jpg,ALL,\n" for i in range(49))
    told = fault(
        folder, "image,label,eligible\n" + leukaemias + "".join(f"{i}.jpg,healthy,\n" for i in range(49, 108))
    )
    assert "row 51 (and 58 more), column 'label': 'healthy' is none of the study's classes" in told
    assert "in column 'eligible'" in told
    ruled_out = "".join(f"{i}.jpg,healthy,no class of the study\n" for i in range(49, 108))
    table = read_manifest(write(folder, "image,label,eligible\n" + leukaemias + ruled_out), CLASSES)
    assert table["eligible"].value_counts().to_dict() == {"no class of the study": 59, "yes": 49}
    assert table["reference_status"].value_counts().to_dict() == {"missing": 59, "ok": 49}
    assert table.loc[table["eligible"].ne("yes"), "label"].eq("").all()
    assert table["manifest_label"].value_counts().to_dict() == {"healthy": 59, "ALL": 49}


def test_an_ineligible_case_needs_no_label(folder):
    table = read_manifest(write(folder, "image,label,eligible\na.jpg,,under 18\nb.jpg,AML,\n"), CLASSES)
    assert table["reference_status"].tolist() == ["missing", "ok"]


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("image,label\na.jpg,AML\nb.jpg,AMLL\n", "row 3, column 'label'", "nearest: 'AML'"),
        ("image,label\na.jpg,\n", "row 2, column 'label'", "missing or inconclusive"),
        ("image,label,reference\na.jpg,XYZ,missing\n", "row 2, column 'label'", "'XYZ'"),
        ("image,label\na.jpg,AML\na.jpg,AML\n", "row 3, column 'image'", "row 2 already"),
        ("image,label\na.jpg,AML\n./a.jpg,AML\n", "row 3, column 'image'", "row 2 already"),
        ("image,label\n../outside.jpg,AML\n", "row 2, column 'image'", "leaves the manifest's folder"),
        ("image,label\nsub/../../outside.jpg,AML\n", "row 2, column 'image'", "leaves the manifest's folder"),
        ("image,label\n..\\outside.jpg,AML\n", "row 2, column 'image'", "leaves the manifest's folder"),
        ("image,label\n/etc/hostname,AML\n", "row 2, column 'image'", "absolute"),
        ("image,label\nC:\\a.jpg,AML\n", "row 2, column 'image'", "absolute"),
        ("image,label\n\\\\server\\a.jpg,AML\n", "row 2, column 'image'", "absolute"),
        ("image,label\n ,AML\n", "row 2, column 'image'", "blank"),
        ("image,label\nno.jpg,AML\n", "row 2, column 'image'", "does not exist"),
        ("image,label\nA.JPG,AML\n", "row 2, column 'image'", "there is 'a.jpg'"),
        ("image,label\nsub\\c.jpg,AML\n", "row 2, column 'image'", "write / between folders"),
        ("image,label\nsub,AML\n", "row 2, column 'image'", "not a file"),
        ("image,label\nnowhere/c.jpg,AML\n", "row 2, column 'image'", "cannot be listed"),
        ("image,label,patient_id\na.jpg,AML,P\nb.jpg,AML,\n", "row 3, column 'patient_id'", "every row"),
        ("image,label,age\na.jpg,AML,-1\n", "row 2, column 'age'", "'-1'"),
        ("image,label,age\na.jpg,AML,nan\n", "row 2, column 'age'", "'nan'"),
        ("image,label,age\na.jpg,AML,old\n", "row 2, column 'age'", "'old'"),
        ("image,label,mpp\na.jpg,AML,0\n", "row 2, column 'mpp'", "above 0"),
        ('image,label,mpp\na.jpg,AML,"0,25"\n', "row 2, column 'mpp'", "decimal point"),
        ("image,label,sex\na.jpg,AML,x\n", "row 2, column 'sex'", "female, male"),
        ("image,label,index_date\na.jpg,AML,04.03.2021\n", "row 2, column 'index_date'", "YYYY-MM-DD"),
        (
            "image,label,reference_date\na.jpg,AML,2021-02-30\n",
            "row 2, column 'reference_date'",
            "YYYY-MM-DD",
        ),
        ("image,label,birth_date\na.jpg,AML,x\n", "row 1, column 'birth_date'", "allow_identifiers"),
        ("image,label,status,manifest_status\na.jpg,AML,x,y\n", "'status' and 'manifest_status'", "rename"),
        ("image,label,manifest_label\na.jpg,AML,x\n", "'label' and 'manifest_label'", "rename"),
        ("image,label,Patient_ID\na.jpg,AML,P\n", "row 1, column 'Patient_ID'", "rename it to 'patient_id'"),
        ("image,label,patient\na.jpg,AML,P\n", "row 1, column 'patient'", "'patient_id'"),
        ("image,label,Label\na.jpg,AML,x\n", "row 1", "differ only in case"),
        ("image,label,\na.jpg,AML,x\n", "row 1", "column 3 has no name"),
        ("image_path,label\na.jpg,AML\n", "row 1: column 'image' is missing", "nearest: 'image_path'"),
        ("image;label\na.jpg;AML\n", "row 1: column 'image' is missing", "image;label"),
        ("image,label\na.jpg,AML,x\n", "row 2", "3 cells under 2 columns"),
        ("image,label\n", "header", "no row follows"),
        ('image,label\n"a.jpg,AML\n', "row 2", "quotes"),
    ],
)
def test_each_fault_names_row_column_and_remedy(folder, text, place, said):
    told = fault(folder, text)
    assert place in told
    assert said in told


def test_all_faults_at_once(folder):
    told = fault(
        folder, "image,label,age,dob\nx.jpg,AML,1,\na.jpg,AMLL,1,\nb.jpg,ALL,z,\nsub/c.jpg,AMLL,2,\n"
    )
    assert [line.split(":")[0].strip(" -") for line in told.splitlines()[1:]] == [
        "row 1, column 'dob'",
        "row 2, column 'image'",
        "row 3 (and 1 more), column 'label'",
        "row 4, column 'age'",
    ]


def test_links_out_of_the_folder(folder):
    (folder / "link.jpg").symlink_to(folder.parent / "outside.jpg")
    (folder / "dir").symlink_to(folder.parent)
    told = fault(folder, "image,label\nlink.jpg,AML\ndir/outside.jpg,AML\n")
    assert "row 2, column 'image': 'link.jpg' is a link out" in told
    assert "row 3, column 'image': folder 'dir' is a link out" in told


def test_links_inside_the_folder_pass(folder):
    (folder / "link.jpg").symlink_to("a.jpg")
    (folder / "dir").symlink_to("sub")
    assert len(read_manifest(write(folder, "image,label\nlink.jpg,AML\ndir/c.jpg,AML\n"), CLASSES)) == 2


def test_a_folder_reached_by_a_link_is_itself(folder):
    alias = folder.parent / "alias"
    alias.symlink_to(folder)
    write(folder, "image,label\nsub/c.jpg,AML\n")
    assert len(read_manifest(alias / "manifest.csv", CLASSES)) == 1


def test_dangling_link_is_no_file(folder):
    (folder / "gone.jpg").symlink_to("nothing.jpg")
    assert "not a file" in fault(folder, "image,label\ngone.jpg,AML\n")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("image,label\na.jpg,AML\n".encode("utf-16"), "UTF-16"),
        ("image,label\na.jpg,AML\né.jpg,AML\n".encode("latin-1"), "row 3: byte 0xe9 is not UTF-8"),
    ],
)
def test_other_encodings(folder, data, said):
    path = folder / "manifest.csv"
    path.write_bytes(data)
    with pytest.raises(UserError, match=said):
        read_manifest(path, CLASSES)


def test_allowed_identifiers_are_kept(folder):
    path = write(folder, "image,label,initials\na.jpg,AML,XY\n")
    assert read_manifest(path, CLASSES, allow_identifiers=["initials"])["initials"].tolist() == ["XY"]


def test_columns_of_the_inventorys_names_are_kept_aside(folder):
    table = read_manifest(write(folder, "image,label,cohort,width\na.jpg,AML,north,7\n"), CLASSES)
    assert table["manifest_cohort"].tolist() == ["north"]
    assert table["manifest_width"].tolist() == ["7"]
    assert not {"cohort", "width"} & set(table.columns)


def test_a_patient_column_blank_throughout_is_none(folder):
    table = read_manifest(write(folder, "image,patient_id,label\na.jpg,,AML\nb.jpg, ,AML\n"), CLASSES)
    assert "patient_id" not in table


def test_columns_about_patients_are_no_misspelt_patient_id(folder):
    path = write(folder, "image,label,patient_age,patient_status\na.jpg,AML,3,well\n")
    assert {"patient_age", "patient_status"} <= set(read_manifest(path, CLASSES).columns)


def test_label_map(folder):
    finer = write(folder, "label,class\nM3,AML\nM2,AML\n", "map.csv")
    mapped = read_label_map(finer, CLASSES)
    table = read_manifest(write(folder, "image,label\na.jpg,M3\nb.jpg,ALL\n"), CLASSES, mapped)
    assert table["label"].tolist() == ["AML", "ALL"]
    assert table["type"].tolist() == table["manifest_label"].tolist() == ["M3", "ALL"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "label,class\nM3,AMLL\n",
            "row 2, column 'class': 'AMLL' is none of the study's classes (nearest: 'AML')",
        ),
        ("label,class\nM3,AML\nM3,ALL\n", "row 3, column 'label': 'M3' stands in a row above"),
        ("label,class\n,AML\n", "row 2, column 'label': the cell is blank"),
        ("label,klass\nM3,AML\n", "column 'class' is missing"),
    ],
)
def test_faulty_label_map(folder, text, said):
    path = write(folder, text, "map.csv")
    with pytest.raises(UserError) as caught:
        read_label_map(path, CLASSES)
    assert said in str(caught.value)


@given(
    st.text(alphabet="ab./\\~:", min_size=1, max_size=12).filter(
        lambda text: text.startswith("/") or posixpath.normpath(text).startswith("..")
    )
)
@settings(deadline=None, max_examples=60)
def test_no_spelling_leads_out(tmp_path_factory, image):
    folder = tmp_path_factory.getbasetemp() / "closed"
    folder.mkdir(exist_ok=True)
    assert "column 'image'" in fault(folder, f'image,label\n"{image}",AML\n')


def test_the_label_map_of_marrow_cells_is_the_published_one():
    """21 types in 5 classes, by the counts of bt5153's class map."""
    mapped = read_label_map(
        Path(__file__).parents[3] / "resources/label_maps/marrow21_to_5.csv",
        ["erythropoiesis", "granulopoiesis", "lymphopoiesis", "monopoiesis", "others"],
    )
    counts = {name: list(mapped.values()).count(name) for name in set(mapped.values())}
    assert counts == {
        "erythropoiesis": 2,
        "granulopoiesis": 10,
        "lymphopoiesis": 4,
        "monopoiesis": 1,
        "others": 4,
    }
