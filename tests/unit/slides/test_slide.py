"""Slides read by region: against the pixels that were written, and at the edges of files."""

import cv2
import numpy as np
import pandas as pd
import pytest
from dicom_slide import NAME, write_dicom
from little_slides import MPP, picture, write

from marrowflow.slides.intake import take_slides
from marrowflow.slides.scale import Unscaled, micrometres_a_pixel
from marrowflow.slides.slide import Slide, Unreadable, read_shrunk

JPEG = 6  # levels by which JPEG changes these waves at most


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("slide") / "s.tif")


def test_what_a_file_says_of_itself(path):
    with Slide(path) as slide:
        assert (slide.width, slide.height, slide.frames, slide.format) == (2048, 1536, 3, "generic-tiff")
        assert [level.downsample for level in slide.levels] == [1, 4, 16]
        assert slide.mpp == pytest.approx((MPP, MPP))
        assert [slide.nearest_level(d) for d in (0.5, 1, 3.9, 4, 4.1, 15.9, 100)] == [0, 0, 0, 1, 1, 2, 2]


def test_a_region_is_what_was_written_there(path):
    written = picture()
    with Slide(path) as slide:
        for x, y, width, height in ((0, 0, 64, 32), (600, 500, 300, 200), (1000, 700, 1, 1)):
            found = slide.read(x, y, width, height)
            assert found.shape == (height, width, 3)
            assert np.abs(found.astype(int) - written[y : y + height, x : x + width]).max() <= JPEG


def test_beyond_the_slide_there_is_glass(path):
    with Slide(path) as slide:
        found = slide.read(2000, 1500, 100, 100)
        assert (found[36:] == 255).all()
        assert (found[:, 48:] == 255).all()
        assert (slide.read(-50, -50, 40, 40) == 255).all()


def test_a_shrunk_region_is_the_mean_over_its_area(path):
    written = cv2.resize(picture()[400:1040, 520:1160], (80, 80), interpolation=cv2.INTER_AREA)
    with Slide(path) as slide:
        found = read_shrunk(slide, 520, 400, (640, 640), (80, 80))
    assert np.abs(found.astype(int) - written).mean() < 1.5


def test_a_micrograph_is_a_small_slide(tmp_path):
    photograph = picture(640, 480, (100, 100, 500, 400))
    cv2.imwrite(str(tmp_path / "m.png"), cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR))
    with Slide(tmp_path / "m.png") as slide:
        assert (slide.width, slide.height, slide.format, slide.mpp) == (640, 480, "PNG", None)
        np.testing.assert_array_equal(slide.read(90, 90, 50, 60), photograph[90:150, 90:140])
        assert (slide.read(620, 470, 40, 40)[10:] == 255).all()


def test_a_dicom_slide_is_read_and_its_patient_is_not(tmp_path):
    written = picture()
    write_dicom(tmp_path / "s.dcm", written, MPP)
    with Slide(tmp_path / "s.dcm") as slide:
        assert (slide.width, slide.height, slide.format) == (2048, 1536, "dicom")
        assert slide.mpp == pytest.approx((MPP, MPP))
        found = slide.read(600, 500, 300, 200)
    assert np.abs(found.astype(int) - written[500:700, 600:900]).max() <= JPEG
    taken = take_slides(pd.DataFrame({"image": ["s.dcm"], "eligible": ["yes"]}), tmp_path, 1, "intake")
    assert taken["unreadable"].tolist() == [""]
    assert NAME not in taken.to_csv()


@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_a_damaged_slide_has_a_reason(path, tmp_path, cut):
    damaged = tmp_path / "d.tif"
    damaged.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(Unreadable):
        Slide(damaged).read(0, 0, 10, 10)


def test_the_size_of_pixels_by_the_file_or_by_the_manifest(path, tmp_path):
    with Slide(path) as slide:
        assert micrometres_a_pixel(slide, float("nan")) == pytest.approx(MPP)
        assert micrometres_a_pixel(slide, 0.252) == pytest.approx(MPP)
        with pytest.raises(Unscaled, match=r"the file says 0.25 µm a pixel, column 'mpp' 0.5"):
            micrometres_a_pixel(slide, 0.5)
    # 72 dots an inch, which every picture has, are no size of a microscope's pixels.
    with Slide(write(tmp_path / "silent.tif", mpp=None)) as silent:
        with pytest.raises(Unscaled, match="column 'mpp'"):
            micrometres_a_pixel(silent, float("nan"))
        assert micrometres_a_pixel(silent, 0.3) == 0.3
        with pytest.raises(Unscaled, match="which no microscope has"):
            micrometres_a_pixel(silent, 250.0)
