"""Boxes as six programs save them: one picture's cells written by hand in each format, faults, and the smears of ../shared/data."""

import json

import numpy as np
import pandas as pd
import pytest
from project import ROOT

from marrowflow.cells.annotation_files import FORMATS, read_annotations
from marrowflow.cells.annotations import EDGES, Names, check
from marrowflow.errors import UserError

BCCD = ROOT.parent / "shared/data/bccd"
TYPES = ["blast", "lymphocyte"]
SIZE = (640, 480)
# Two cells of one image: pixels 101 to 150 across and 51 to 90 down, counted from 1, and the image's lower right corner.
BOXES = [("blast", 100.0, 50.0, 150.0, 90.0), ("lymphocyte", 600.0, 440.0, 640.0, 480.0)]


def voc(name, boxes):
    objects = "".join(
        f"<object><name>{t}</name><bndbox><xmin>{a:g}</xmin><ymin>{b:g}</ymin><xmax>{c:g}</xmax><ymax>{d:g}</ymax></bndbox></object>"
        for t, a, b, c, d in boxes
    )
    return f"<annotation><filename>{name}</filename>{objects}</annotation>"


def ring(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def write(folder, kind):
    """Write the two cells of smear.jpg, and smear2.jpg without any, as a program of this kind does."""
    folder.mkdir(exist_ok=True)
    if kind == "voc":
        inclusive = [(t, a + 1, b + 1, c, d) for t, a, b, c, d in BOXES]
        (folder / "smear.xml").write_text(voc("smear.jpg", inclusive))
        (folder / "smear2.xml").write_text(voc("smear2.jpg", []))
        return folder
    if kind == "coco":
        value = {
            "images": [{"id": 7, "file_name": "smear.jpg"}, {"id": 9, "file_name": "smear2.jpg"}],
            "categories": [{"id": 1, "name": "blast"}, {"id": 4, "name": "lymphocyte"}],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 1, "bbox": [100, 50, 50, 40]},
                {"id": 2, "image_id": 7, "category_id": 4, "bbox": [600, 440, 40, 40]},
            ],
        }
        (folder / "coco.json").write_text(json.dumps(value))
        return folder / "coco.json"
    if kind == "yolo":
        (folder / "classes.txt").write_text("blast\nlymphocyte\n")
        # (125/640, 70/480, 50/640, 40/480) and (620/640, 460/480, 40/640, 40/480), to six decimals.
        (folder / "smear.txt").write_text(
            "0 0.195313 0.145833 0.078125 0.083333\n1 0.968750 0.958333 0.062500 0.083333\n"
        )
        (folder / "smear2.txt").write_text("")
        return folder
    if kind == "labelme":
        shapes = [
            {"label": "blast", "shape_type": "rectangle", "points": [[150, 90], [100, 50]]},
            {"label": "lymphocyte", "shape_type": "polygon", "points": ring(600, 440, 640, 480)},
        ]
        (folder / "a.json").write_text(json.dumps({"imagePath": "..\\images\\smear.jpg", "shapes": shapes}))
        (folder / "b.json").write_text(json.dumps({"imagePath": "smear2.jpg", "shapes": []}))
        return folder
    if kind == "qupath":
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring(*edges)]},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": name, "color": [1, 2, 3]},
                },
            }
            for name, *edges in BOXES
        ]
        (folder / "smear.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        (folder / "smear2.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
        return folder
    (folder / "boxes.csv").write_text(
        "image_path,label,xmin,ymin,xmax,ymax\nimages/smear.jpg,blast,100,50,150,90\nimages/smear.jpg,lymphocyte,600,440,640,480\n"
    )
    return folder / "boxes.csv"


def inventory(images=("images/smear.jpg", "images/smear2.jpg", "images/smear3.jpg")):
    rows = [
        {"case_id": f"h/{image}", "image": image, "width": SIZE[0], "height": SIZE[1]} for image in images
    ]
    return pd.DataFrame(rows).assign(status="included", reason="")


def checked(path, kind, types=TYPES, type_map=None, cases=None, **options):
    boxes, images = read_annotations(
        path, kind, lambda stem: SIZE if stem.startswith("smear") else None, **options
    )
    return check(boxes, images, inventory() if cases is None else cases, types, type_map or {}, "A", 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_cells_in_every_format(tmp_path, kind):
    found = checked(write(tmp_path / "a", kind), kind)
    assert found.problems == []
    assert found.boxes["case_id"].tolist() == ["h/images/smear.jpg"] * 2
    assert found.boxes["type"].tolist() == [name for name, *_ in BOXES]
    expected = [list(box[1:]) for box in BOXES]
    assert found.boxes[EDGES].to_numpy() == pytest.approx(np.array(expected), abs=0.005)
    # An image without a cell was annotated too, where the format can say so.
    assert found.images == ["h/images/smear.jpg", "h/images/smear2.jpg"][: 1 if kind == "csv" else 2]


def test_faults_are_told_all_at_once_with_their_place(tmp_path):
    (tmp_path / "b.csv").write_text(
        "image,type,xmin,ymin,xmax,ymax\n"
        "smear.jpg,blast,10,10,30,30\n"
        "other.jpg,blast,10,10,30,30\n"
        "other.jpg,blast,40,10,60,30\n"
        "smear.jpg,blasst,10,10,40,30\n"
        "smear2.jpg,blast,600,10,700,30\n"
    )
    found = checked(tmp_path / "b.csv", "csv")
    assert found.problems == [
        "'other.jpg' is no image of the manifest; correct its name, or delete its annotations",
        "b.csv, row 6: left 600, top 10, right 700, bottom 30 lies outside of its image of 640 x 480 px; draw it anew, or see "
        "whether the annotations are of a resized image",
        "b.csv, row 5: 'blasst' is none of the study's types (blast, lymphocyte); correct it, or map it in the table that "
        "type_map: names",
    ]
    assert checked(tmp_path / "b.csv", "csv", type_map={"blasst": "blast"}).boxes["type"].tolist() == [
        "blast",
        "blast",
    ]


def test_slips_of_the_hand_are_left_out_and_listed(tmp_path):
    (tmp_path / "b.csv").write_text(
        "image,type,xmin,ymin,xmax,ymax\n"
        "smear.jpg,blast,10,10,30,30\n"
        "smear.jpg,blast,50,50,50,60\n"
        "smear.jpg,blast,60,60,50,70\n"
        "smear.jpg,blast,10,10,12,30\n"
        "smear.jpg,blast,10,10,30,30\n"
        "smear.jpg,lymphocyte,10,10,30,30\n"
        "smear.jpg,blast,-0.5,470,30,480.9\n"
    )
    found = checked(tmp_path / "b.csv", "csv")
    assert found.problems == []
    assert found.left_out["reason"].tolist() == [
        "without area: 0 x 10 px", "without area: -10 x 10 px", "2 x 20 px", "drawn twice",
    ]  # fmt: skip
    assert found.left_out["place"].tolist() == [f"b.csv, row {i}" for i in (3, 4, 5, 6)]
    # Two types on one box are two answers; an edge off by less than a pixel is rounding.
    assert len(found.boxes) == 3
    assert found.boxes[EDGES].iloc[2].tolist() == [0, 470, 30, 480]


@pytest.mark.parametrize(
    ("kind", "file", "text", "told"),
    [
        ("voc", "a.xml", "<annotation><filename>smear.jpg</filename><object>", "no XML"),
        ("voc", "a.xml", "<annotation><object/></annotation>", "filename is missing"),
        ("voc", "a.xml", voc("smear.jpg", [("blast", 1, 1, 9, 9)]).replace("bndbox", "box"), "object 1 has no bndbox"),
        ("coco", "a.json", '{"images": []}', "it has no annotations, categories"),
        ("yolo", "smear.txt", "7 .5 .5 .1 .1", "line 1: '7 .5 .5 .1 .1' is no class number"),
        ("yolo", "nobody.txt", "0 .5 .5 .1 .1", "no image of this name is in the manifest"),
        ("labelme", "a.json", '{"imagePath": "smear.jpg", "shapes": [{"label": "a", "shape_type": "point", "points": []}]}', "is a point"),
        ("qupath", "smear.geojson", '{"geometry": {"type": "Polygon", "coordinates": []}}', "feature 1 has no class"),
        ("csv", "a.csv", "image,kind,xmin\na,b,1\n", "columns label, ymin, xmax, ymax are missing"),
        ("csv", "a.csv", "image,type,xmin,ymin,xmax,ymax\na,b,1,2,3,x\n", "row 2: 1, 2, 3, x are no four numbers"),
    ],
)  # fmt: skip
def test_files_that_are_not_of_their_kind_are_told_by_name(tmp_path, kind, file, text, told):
    (tmp_path / "classes.txt").write_text("blast\n")
    (tmp_path / file).write_text(text)
    path = tmp_path / file if kind in ("coco", "csv") else tmp_path
    with pytest.raises(UserError, match=rf"{file}: .*{told}"):
        checked(path, kind)


def test_a_folder_without_such_files_is_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.xml file"):
        checked(tmp_path, "voc")
    with pytest.raises(UserError, match="is no folder"):
        checked(tmp_path / "none", "labelme")
    with pytest.raises(UserError, match=r"neither classes\.txt nor obj\.names"):
        (tmp_path / "smear.txt").write_text("")
        checked(tmp_path, "yolo")


@pytest.mark.parametrize(
    ("named", "manifest", "found"),
    [
        ("1.jpg", ["P1/1.jpg"], ["P1/1.jpg"]),
        ("images/1.jpg", ["1.jpg"], ["1.jpg"]),
        ("P1/1.jpg", ["P1/1.jpg", "P2/1.jpg"], ["P1/1.jpg"]),
        # Another patient's folder is never taken for this one's.
        ("P2/1.jpg", ["P1/1.jpg"], []),
        ("1.jpg", ["P1/1.jpg", "P2/1.jpg"], ["P1/1.jpg", "P2/1.jpg"]),
        # A stem with a dot is no file of a kind called .2.
        ("P1.2", ["P1.jpg", "P1.2.jpg"], ["P1.2.jpg"]),
        ("P1.2", ["P1.jpg"], []),
        ("P1", ["P1.jpg", "P1.2.jpg"], ["P1.jpg"]),
        # Paths of the annotator's own machine.
        ("/home/anna/export/1.jpg", ["images/1.jpg"], ["images/1.jpg"]),
        ("C:\\anna\\P2\\1.jpg", ["P1/1.jpg", "P2/1.jpg"], ["P2/1.jpg"]),
        ("../images/P1/1.jpg", ["P1/1.jpg", "P2/1.jpg"], ["P1/1.jpg"]),
        ("/home/anna/1.jpg", ["P1/1.jpg", "P2/1.jpg"], ["P1/1.jpg", "P2/1.jpg"]),
    ],
)
def test_images_go_by_the_names_that_annotators_programs_give_them(named, manifest, found):
    assert Names(inventory(manifest)).cases(named) == [f"h/{image}" for image in found]


def test_a_name_of_several_images_and_boxes_of_another_size_are_told(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps({"imagePath": "1.jpg", "imageWidth": 640, "imageHeight": 480, "shapes": []})
    )
    (tmp_path / "b.json").write_text(
        json.dumps({"imagePath": "2.jpg", "imageWidth": 320, "imageHeight": 240, "shapes": []})
    )
    (tmp_path / "c.json").write_text(json.dumps({"imagePath": "3.jpg", "shapes": []}))
    found = checked(tmp_path, "labelme", cases=inventory(["P/1.jpg", "Q/1.jpg", "2.jpg"]))
    assert found.problems == [
        "'1.jpg' may be any of 2 images of the manifest (h/P/1.jpg, h/Q/1.jpg); name its folder too",
        "'2.jpg': the annotations are of an image of 320 x 240 px, this one has 640 x 480: it was resized or turned; export the "
        "annotations of the image that is in the manifest",
        # An image without a cell that nobody knows would make the other annotator's cells stand unopposed.
        "'3.jpg' is no image of the manifest; correct its name, or delete its annotations",
    ]


def test_boxes_of_excluded_images_are_left_out_with_their_reason(tmp_path):
    cases = inventory()
    cases.loc[0, ["status", "reason", "width", "height"]] = ["excluded", "unreadable: truncated", 0, 0]
    found = checked(write(tmp_path / "a", "csv"), "csv", cases=cases)
    assert found.problems == []
    assert found.boxes.empty
    assert found.images == []
    assert found.left_out["reason"].tolist() == ["image excluded: unreadable: truncated"] * 2


def test_what_other_programs_write_beside_is_read_or_refused(tmp_path):
    """Marks of encoding, QuPath's old and derived classes, crowds, numbers that are none."""
    marked = tmp_path / "marked"
    marked.mkdir()
    (marked / "classes.txt").write_text("\ufeffblast\r\nlymphocyte\r\n")
    (marked / "smear.txt").write_text("\ufeff0 0.5 0.5 0.1 0.1\r\n")
    assert checked(marked, "yolo").boxes["type"].tolist() == ["blast"]
    geometry = {"type": "Polygon", "coordinates": [ring(10, 10, 50, 50)]}
    for number, name in enumerate(("blast", {"names": ["blast", "CD3"]})):
        folder = tmp_path / f"q{number}"
        folder.mkdir()
        (folder / "smear.geojson").write_text(
            json.dumps({"type": "Feature", "geometry": geometry, "properties": {"classification": name}})
        )
        kinds = checked(folder, "qupath", type_map={"blast: CD3": "blast"}).boxes["type"]
        assert kinds.tolist() == ["blast"]
    coco = json.loads(write(tmp_path / "c", "coco").read_text())
    coco["annotations"][1]["iscrowd"] = 1
    (tmp_path / "crowd.json").write_text(json.dumps(coco))
    with pytest.raises(UserError, match=r"annotation 2 \(id 2\) is a crowd of cells"):
        checked(tmp_path / "crowd.json", "coco")
    coco["images"][1]["id"] = 7
    (tmp_path / "twice.json").write_text(json.dumps(coco))
    with pytest.raises(UserError, match="two images have one id"):
        checked(tmp_path / "twice.json", "coco")
    (tmp_path / "nan.csv").write_text("image,type,xmin,ymin,xmax,ymax\nsmear.jpg,blast,nan,1,20,20\n")
    assert "are no edges of a box" in checked(tmp_path / "nan.csv", "csv").problems[0]
    latin = tmp_path / "latin"
    latin.mkdir()
    (latin / "classes.txt").write_bytes("Lymphozyt, groß".encode("latin-1"))
    (latin / "smear.txt").write_text("")
    with pytest.raises(UserError, match=r"classes\.txt is no UTF-8 text"):
        checked(latin, "yolo")


@pytest.mark.real
@pytest.mark.skipif(not BCCD.is_dir(), reason=f"no real smears at {BCCD.relative_to(ROOT.parent)}")
def test_the_real_sets_boxes_by_both_of_its_formats():
    """Counts as the set's own description gives them: 4,155 red, 372 white, 361 platelets, of these two without area."""
    listed = pd.read_csv(BCCD / "manifest.csv")
    cases = listed.assign(
        case_id="h/" + listed["image_path"], image=listed["image_path"], status="included", reason=""
    )
    found = {}
    for kind, path in (("voc", BCCD / "annotations"), ("csv", BCCD / "boxes.csv")):
        boxes, images = read_annotations(path, kind, lambda _: None, counts_from_one=True)
        one = check(boxes, images, cases, ["RBC", "WBC", "Platelets"], {}, "A", 2)
        assert one.problems == []
        assert len(one.images) == 364
        assert one.left_out[["case_id", "type"]].to_numpy().tolist() == [
            ["h/images/BloodImage_00338.jpg", "RBC"],
            ["h/images/BloodImage_00343.jpg", "RBC"],
        ]
        counts = pd.concat([one.boxes, one.left_out])["type"].value_counts().to_dict()
        assert counts == {"RBC": 4155, "WBC": 372, "Platelets": 361}
        found[kind] = one.boxes.sort_values(["case_id", *EDGES], ignore_index=True)
    pd.testing.assert_frame_equal(found["voc"], found["csv"])
