"""Cells that were drawn on a hospital's images, from annotators' files to the table of boxes."""

import json
import logging

import numpy as np
import pandas as pd
import pytest

from marrowflow.cells.intake import main
from marrowflow.errors import UserError

HEADER = "image,type,xmin,ymin,xmax,ymax\n"


@pytest.fixture
def site(tmp_path):
    """Three images; both annotators drew on the first, and each on one more."""
    images = ["1.jpg", "2.jpg", "3.jpg"]
    table = pd.DataFrame({"case_id": [f"h/{i}" for i in images], "image": images, "width": 100, "height": 80})
    table = table.assign(status="included", reason="")
    table.to_parquet(tmp_path / "inventory.parquet")
    (tmp_path / "anna.csv").write_text(
        HEADER
        + "1.jpg,blast,0,0,20,20\n1.jpg,band,40,40,60,60\n1.jpg,blast,70,10,70,30\n2.jpg,blast,0,0,20,20\n"
    )
    (tmp_path / "ben.csv").write_text(
        HEADER + "1.jpg,myeloblast,2,0,22,20\n1.jpg,blast,40,40,60,60\n3.jpg,band,0,0,20,20\n"
    )
    (tmp_path / "types.csv").write_text("label,class\nmyeloblast,blast\n")
    return tmp_path


def run(site, *annotators, **options):
    options = {"types": ["blast", "band"], **options}
    boxes = [text for name in annotators for text in ("--boxes", f"{name}={site}/{name}.csv")]
    main(
        [
            *(
                "--options",
                json.dumps(options),
                "--inventory",
                str(site / "inventory.parquet"),
                *boxes,
                "--kind",
                "csv",
            ),
            *("--type-map", str(site / "types.csv"), "--out", str(site / "out")),
        ]
    )
    return site / "out"


def test_two_annotators_and_what_both_say(site, caplog):
    caplog.set_level(logging.INFO)
    out = run(site, "anna", "ben")
    boxes = pd.read_parquet(out / "boxes.parquet")
    assert boxes[["case_id", "annotator", "type"]].to_numpy().tolist() == [
        ["h/1.jpg", "consensus", "blast"],
        ["h/2.jpg", "anna", "blast"],
        ["h/3.jpg", "ben", "band"],
    ]
    left = pd.read_csv(out / "left_out.csv")
    assert left["reason"].tolist() == ["without area: 0 x 20 px", "called band (anna) and blast (ben)"]
    images = pd.read_csv(out / "images.csv")
    assert images[["anna", "ben"]].to_numpy().tolist() == [[True, True], [True, False], [False, True]]
    agreed = pd.read_csv(out / "agreement.csv", keep_default_na=False)
    # On the one image that both annotated: two cells each, of which one is called alike.
    assert agreed.loc[
        agreed["type"] == "", ["n_one", "n_other", "n_both", "observed"]
    ].to_numpy().tolist() == [[2, 2, 2, 0.5]]
    assert "3 boxes on 3 images: blast 2, band 1" in caplog.text
    assert (
        "1 of 2 images were annotated by anna alone; a CSV does not tell images without a cell" in caplog.text
    )


def test_one_annotator_alone(site):
    out = run(site, "anna")
    assert len(pd.read_parquet(out / "boxes.parquet")) == 3
    assert not (out / "agreement.csv").exists()
    assert (
        pd.read_parquet(out / "boxes.parquet")[["left", "right"]].dtypes.tolist() == [np.dtype("float64")] * 2
    )


def test_every_annotators_faults_are_told_at_once(site):
    for name in ("anna", "ben"):
        path = site / f"{name}.csv"
        path.write_text(path.read_text() + "4.jpg,blast,0,0,20,20\n")
    with pytest.raises(UserError, match=r"anna: '4\.jpg' is no image(?s:.*)ben: '4\.jpg' is no image"):
        run(site, "anna", "ben")
    assert not (site / "out").exists()
    with pytest.raises(UserError, match="names an annotator twice"):
        run(site, "anna", "anna")


def test_an_annotator_of_whom_no_box_is_left_is_told(site):
    (site / "ben.csv").write_text(HEADER + "1.jpg,blast,5,5,5,5\n")
    with pytest.raises(UserError, match=r"--boxes ben=.*ben\.csv: no box is left of 1"):
        run(site, "anna", "ben")
