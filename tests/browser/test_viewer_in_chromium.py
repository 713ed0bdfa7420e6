"""The pages of zoomable slides as a reader's browser shows them, from a disk and without a network."""

import cv2
import numpy as np
import pandas as pd
import pytest
from painted_slides import write_pyramid

from marrowflow.viewer.build import build


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One slide, red on the left and blue on the right, with a map whose upper half is attended to."""
    folder = tmp_path_factory.mktemp("viewer")
    picture = np.zeros((1200, 1600, 3), np.uint8)
    picture[:, :800, 0] = 220
    picture[:, 800:, 2] = 220
    write_pyramid(folder / "s.tif", picture, 0.5)
    (folder / "maps").mkdir()
    square = np.zeros((384, 384), np.uint8)
    square[48:192] = 255
    for name in ("1", "1_control", "1_percentile"):
        cv2.imwrite(str(folder / f"maps/{name}.png"), square)
    cases = pd.DataFrame(
        [
            {
                "case_id": "h/<b>s.tif", "image": "h/<b>s.tif", "predicted": "AML", "truth": "CML", "confidence": "0.8",
                "map": "maps/1.png", "control": "maps/1_control.png", "percentile": "maps/1_percentile.png",
            }
        ]
    )  # fmt: skip
    out = folder / "pages"
    slides = {"h/<b>s.tif": (folder / "s.tif", (folder / "s.tif").stat().st_size, 0.5)}
    assert build("Painted.", cases, folder / "maps", slides, out) == [1]
    return out


def screen(page):
    """Return the slide's part of the screen, uint8 [rows, columns, 3], RGB."""
    shot = page.locator("#slide").screenshot()
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    ).astype(int)


def colour(page, x, y):
    """Return the colour of a place, as shares of the slide's part of the screen."""
    seen = screen(page)
    return seen[int(seen.shape[0] * y), int(seen.shape[1] * x)]


@pytest.mark.parametrize("viewport", [{"width": 1200, "height": 800}, {"width": 390, "height": 780}])
def test_a_slide_is_shown_zoomed_and_measured(pages, visit, viewport):
    seen = visit(pages / "1.html", viewport)
    page = seen.page
    page.wait_for_selector("body[data-open=yes]")
    page.wait_for_timeout(800)
    left, right = colour(page, 0.4, 0.5), colour(page, 0.6, 0.5)
    assert left[0] > 180 and left[2] < 60
    assert right[2] > 180 and right[0] < 60
    assert "predicted AML (80%), reference CML; shown at 0.5 µm a pixel, its finest level" in page.inner_text(
        "header"
    )
    assert "Painted." in page.inner_text("header")
    bar = page.inner_text("#scale span")
    page.click("#closer")
    page.click("#closer")
    page.click("#closer")
    page.wait_for_timeout(1500)
    assert page.inner_text("#scale span") != bar
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("viewport", [{"width": 1200, "height": 800}, {"width": 1200, "height": 400}])
def test_the_bar_is_as_long_as_it_says(pages, visit, viewport):
    """The slide is 1,600 pixels of .5 µm wide."""
    page = visit(pages / "1.html", viewport).page
    page.wait_for_selector("body[data-open=yes]")
    page.wait_for_timeout(800)
    told = float(page.inner_text("#scale span").split()[0])
    length = page.evaluate("document.querySelector('#scale div').getBoundingClientRect().width")
    seen = screen(page)
    row = seen[seen.shape[0] // 2]
    wide = int(((row.max(axis=1) > 100) & (row.min(axis=1) < 60)).sum())
    assert told / length == pytest.approx(800 / wide, rel=0.03)


def test_a_map_lies_where_it_was_attended(pages, visit):
    page = visit(pages / "1.html").page
    page.wait_for_selector("body[data-open=yes]")
    page.wait_for_timeout(800)
    before = colour(page, 0.4, 0.3), colour(page, 0.4, 0.7)
    page.check("input[value=map]")
    page.wait_for_selector("body[data-map=map]")
    page.wait_for_timeout(800)
    after = colour(page, 0.4, 0.3), colour(page, 0.4, 0.7)
    assert after[0][1] > before[0][1] + 60  # the yellow of the largest value
    assert np.abs(after[1] - before[1]).max() < 25
    page.check("input[value='']")
    page.wait_for_timeout(500)
    assert np.abs(colour(page, 0.4, 0.3) - before[0]).max() < 25


def test_the_list_links_to_each_slide_and_escapes_its_name(pages, visit):
    page = visit(pages / "index.html").page
    assert page.inner_text("li") == "h/<b>s.tif: predicted AML (80%), reference CML"
    assert page.get_attribute("li a", "href") == "1.html"
    assert (pages / "LICENSE.txt").read_text().count("CodePlex") >= 2
