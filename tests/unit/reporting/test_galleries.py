"""Pictures of errors and undecided cases, with their maps, on a page."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from reporting_fixture import CLASSES, external_options, options_of

from marrowflow.choices.threshold import digest_of
from marrowflow.files import write_json, write_table
from marrowflow.images.store import StoreWriter
from marrowflow.predictions import write_predictions
from marrowflow.reporting.errors_shown import error_blocks, gallery_notes, gallery_sections, undecided_blocks
from marrowflow.reporting.page import Gallery, Text
from marrowflow.reporting.primary import Primary
from marrowflow.reporting.reporter import CommonOptions, Reporter
from marrowflow.reporting.results import IndexTest, Results
from marrowflow.reporting.saliency_shown import overlaid

TEST = IndexTest("sound", "lite-raw")
ERRORS = [("beta/1", "healthy", (0.1, 0.9, 0.0, 0.0)), ("beta/2", "AML", (0.6, 0.2, 0.1, 0.1))]
RIGHT = ("beta/3", "AML", (0.3, 0.7, 0.0, 0.0))
OPEN = ("beta/4", "inconclusive", (0.0, 0.0, 0.4, 0.6))


@dataclass(frozen=True)
class Page:
    """A little study, and the reporter of one of its pages."""

    root: Path

    def reporter(self, **report: object) -> Reporter:
        options = external_options(options_of()) | {"report": {"errors_shown": 6, **report}}
        results = Results(self.root, self.root / "report")
        return Reporter(CommonOptions.model_validate(options), results, Primary("lite-raw", "declared"))

    def gallery(self, show=error_blocks, **report: object) -> Gallery:
        (block,) = show(self.reporter(**report), TEST, "beta")
        assert isinstance(block, Gallery)
        return block

    def note(self, **report: object) -> Text:
        (block,) = gallery_notes(self.reporter(**report), TEST, "beta")
        assert isinstance(block, Text)
        return block


def write_cases(root: Path, cases: list[dict], **columns: object) -> None:
    """Write cases.csv with maps that are dark on the left and full on the right; controls the other way round."""
    folder = root / "explanations" / "sound" / "beta"
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, case in enumerate(cases, 1):
        row = {
            "image": case["case_id"], "method": "Grad-CAM at the last feature maps", "grid": "4 x 4", "networks": 3,
            "correlation": 0.25, "mean_correlation": 0.25, "map": f"maps/{i}.png", "control": f"maps/{i}_control.png",
            "reason": "", **columns, **case,
        }  # fmt: skip
        rows.append(row)
        grey = np.zeros((16, 16), np.uint8)
        grey[:, 8:] = 255
        Image.fromarray(grey).save(folder / "maps" / f"{i}.png")
        Image.fromarray(grey[:, ::-1]).save(folder / "maps" / f"{i}_control.png")
    write_table(folder / "cases.csv", pd.DataFrame(rows))


def little_study(root: Path, answers: list[tuple]) -> Page:
    cases = [case for case, *_ in answers]
    table = pd.DataFrame(
        {
            "case_id": cases,
            "patient_id": cases,
            "cohort": "beta",
            "truth": [truth for _, truth, _ in answers],
            **{f"p_{c}": [p[i] for *_, p in answers] for i, c in enumerate(CLASSES)},
            "index_test": TEST.name,
        }
    )
    write_predictions(root / "predictions" / TEST.folder / "beta" / "predictions.parquet", table, CLASSES)
    positive = ["AML", "ALL", "CML"]
    lock = {"endpoints": {"leukaemia": {"positive": positive, "case": {"threshold": 0.62}}}}
    write_json(root / "locked" / TEST.folder / "threshold.json", lock | {"digest": digest_of(lock)})
    with StoreWriter(root / "images" / "beta" / "raw", cases, 32, {"recipe": {}}) as writer:
        for row in range(len(cases)):
            writer.put(row, np.full((32, 32, 3), 200, np.uint8))
    return Page(root)


@pytest.fixture
def study(tmp_path: Path) -> Page:
    return little_study(tmp_path, [*ERRORS, RIGHT, OPEN])


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_a_map_hides_as_much_of_the_image_as_it_is_large():
    image = np.full((2, 3, 3), 100, np.uint8)
    values = np.array([[0, 255, 51]] * 2, np.uint8)
    found = overlaid(image, values)
    assert (found[:, 0] == 100).all()
    yellow, green = (255 * np.array(matplotlib.colormaps["viridis"](v)[:3]) for v in (1.0, 0.2))
    np.testing.assert_allclose(found[0, 1], 0.25 * 100 + 0.75 * yellow, atol=0.51)
    np.testing.assert_allclose(found[0, 2], 0.85 * 100 + 0.15 * green, atol=0.51)


def test_an_error_stands_beside_its_map_and_the_control(study):
    write_cases(
        study.root, [{"case_id": "beta/1", "kind": "error"}, {"case_id": "beta/4", "kind": "inconclusive"}]
    )
    first, second = study.gallery().thumbnails
    assert [p.label for p in first.pictures] == ["image", "Grad-CAM", "random weights"]
    assert first.lines == [
        "predicted AML (90%)",
        "reference healthy",
        "beta/1",
        "correlation with the control 0.250",
    ]
    image, own, control = (pixels(p.uri).astype(int) for p in first.pictures)
    # JPEG changes a level or two; where the maps are dark the image is as it was.
    assert np.abs(own[:, :12] - image[:, :12]).max() < 8 and np.abs(control[:, 20:] - image[:, 20:]).max() < 8
    assert (
        np.abs(own[:, 20:] - image[:, 20:]).max() > 50 and np.abs(control[:, :12] - image[:, :12]).max() > 50
    )
    # The table has no row of the second one.
    assert [p.label for p in second.pictures] == [""]
    (open_case,) = study.gallery(undecided_blocks).thumbnails
    assert open_case.lines[:3] == ["predicted CML (60%)", "reference inconclusive", "beta/4"]
    assert len(open_case.pictures) == 3
    assert set(study.gallery().sources) == {"predictions.parquet", "cases.csv"}


def test_a_case_without_a_map_says_why(study):
    row = {
        "case_id": "beta/1",
        "kind": "error",
        "map": "",
        "control": "",
        "reason": "lite has no map: one place",
    }
    write_cases(study.root, [row], correlation=np.nan, mean_correlation=np.nan)
    first = study.gallery().thumbnails[0]
    assert len(first.pictures) == 1 and first.lines[-1] == "lite has no map: one place"
    note = study.note()
    assert note.paragraphs == ["No map shows where the networks looked.", "lite has no map: one place"]


@pytest.mark.parametrize(
    ("mean", "tone", "told"), [(0.25, "note", "does not make a map right"), (0.5, "warning", "resemble")]
)
def test_the_page_says_when_maps_resemble_those_of_networks_that_learnt_nothing(study, mean, tone, told):
    write_cases(study.root, [{"case_id": "beta/1", "kind": "error"}], mean_correlation=mean)
    note = study.note()
    assert note.tone == tone and told in note.paragraphs[1]
    assert f"Its mean is {mean:.3f} (n = 1 images)" in note.paragraphs[1]
    assert (
        "on a grid of 4 × 4 places" in note.paragraphs[0]
        and "the mean over the 3 networks" in note.paragraphs[0]
    )


def test_maps_of_samples_are_said_to_be_of_the_image(study):
    write_cases(study.root, [{"case_id": "beta/1#rotate0", "image": "beta/1", "kind": "error"}], networks=1)
    text = study.note().paragraphs[0]
    assert "not of its augmented sample" in text and "the one network that answered" in text


def test_maps_may_be_left_out(study):
    write_cases(study.root, [{"case_id": "beta/1", "kind": "error"}])
    assert gallery_notes(study.reporter(saliency=False), TEST, "beta") == []
    gallery = study.gallery(saliency=False)
    assert [len(t.pictures) for t in gallery.thumbnails] == [1, 1]
    assert set(gallery.sources) == {"predictions.parquet"}


def test_maps_that_were_asked_for_and_are_not_there_are_printed_as_missing(study):
    assert (
        study.note().tone == "warning" and "explanations/sound/beta/cases.csv" in study.note().paragraphs[0]
    )


def test_no_picture_at_all_when_none_is_wanted(study):
    write_cases(study.root, [{"case_id": "beta/1", "kind": "error"}])
    reporter = study.reporter(errors_shown=0)
    assert gallery_sections(reporter, TEST, "beta", "errors-sound") == []
    for show in (gallery_notes, error_blocks, undecided_blocks):
        (block,) = show(reporter, TEST, "beta")
        assert block == Text(["No patient image is printed (report.errors_shown is 0)."])


def test_sections_are_called_what_they_show(study, tmp_path):
    wrong, undecided = gallery_sections(study.reporter(), TEST, "beta", "errors-sound")
    assert (wrong.title, wrong.anchor) == ("Most confident errors", "errors-sound-wrong")
    assert (undecided.title, undecided.anchor) == ("Inconclusive images", "errors-sound-undecided")
    (gallery,) = undecided.blocks
    assert gallery.caption.startswith(
        "The index test came to no result, or the reference standard did not (n = 1 images)"
    )
    decided = little_study(tmp_path / "decided", [*ERRORS, RIGHT])
    undecided = gallery_sections(decided.reporter(), TEST, "beta", "errors-sound")[1]
    assert undecided.title == "Answers nearest to the cut-off"
    (gallery,) = undecided.blocks
    assert "None of the images is inconclusive" in gallery.caption
    assert "the 3 answers nearest to the locked threshold of leukaemia, 0.620" in gallery.caption
    # Scores .9, .4 and .7.
    assert [t.lines[2:] for t in gallery.thumbnails] == [
        ["beta/3", "0.080 from the cut-off"],
        ["beta/2", "0.220 from the cut-off"],
        ["beta/1", "0.280 from the cut-off"],
    ]
