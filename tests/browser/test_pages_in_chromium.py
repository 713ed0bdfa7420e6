"""What a reader meets: with mouse, keyboard or screen reader, at a desk, on a phone, on paper."""

from __future__ import annotations

import base64
import io
import itertools
import math
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from hostile_pages import CLASSES, HOSPITALS, NOTICE, NUMBERS, SENTENCE, TITLE, UNBROKEN
from PIL import Image
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

from marrowflow.config import LEAKY
from marrowflow.reporting import drawing, figures
from marrowflow.reporting.tables import Link

pytestmark = pytest.mark.browser

PAGES = ["plain study", "plain external", "hostile study", "hostile external", "blocks"]
PHONE = {"width": 390, "height": 844}
A4 = 688  # CSS pixels of a sheet's width between its margins


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_screen(visit, pages: dict[str, Path], name: str, width: int) -> None:
    page = visit(pages[name], {"width": width, "height": 844}).page
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert not cut_off(page)


def cut_off(page: Page) -> list[str]:
    """Return texts that end right of the page's edge without a scrolling box around them."""
    return page.evaluate("""() => [...document.querySelectorAll("body *")]
        .filter((e) => e.getClientRects().length && !e.closest(".scroll, .unseen, .skip"))
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
        .map((e) => e.tagName + " " + e.textContent.slice(0, 60))""")


@pytest.mark.parametrize("name", PAGES)
def test_pictures_are_drawn_and_described_and_headings_are_in_order(
    visit, pages: dict[str, Path], name: str
) -> None:
    page = visit(pages[name]).page
    pictures = page.evaluate("""() => Promise.all([...document.images].map(async (image) => {
        await image.decode();
        return [image.alt, image.naturalWidth, image.src.slice(0, 11)];
    }))""")
    assert len(pictures) >= 5
    assert all(alt and width > 20 and src == "data:image/" for alt, width, src in pictures)
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.get_attribute("html", "lang") == "en"


def test_a_figure_on_a_page_looks_like_its_file(browser: Browser) -> None:
    line = figures.Line(np.linspace(0, 1, 30), np.linspace(0, 1, 30) ** 0.3)
    curves = [
        figures.Curve(f"{name[:20]} ({i})", "n = 3 patients, 1 positive", "AUC 0.800", line)
        for i, name in enumerate(CLASSES)
    ]
    saved = drawing.embedded(figures.roc(curves, " ".join(CLASSES), "n = 3"), "roc")
    original = "data:image/svg+xml;base64," + base64.b64encode(saved.svg).decode("ascii")
    page = browser.new_page(viewport={"width": 400, "height": 700})
    seen = []
    for uri in (original, saved.uri):
        page.set_content(f'<body style="margin: 0"><img width="358" src="{uri}">')
        page.evaluate("document.images[0].decode()")
        with Image.open(io.BytesIO(page.screenshot())) as picture:
            seen.append(np.asarray(picture.convert("L"), dtype=float))
    page.close()
    difference = np.abs(seen[0] - seen[1])
    # Places are rounded to a hundredth of a pixel: here and there an edge is another grey.
    assert seen[0].std() > 20 and difference.max() < 100 and difference.mean() < 0.5


@pytest.mark.parametrize("name", PAGES)
def test_links_resolve(visit, pages: dict[str, Path], name: str) -> None:
    page = visit(pages[name]).page
    hrefs = page.evaluate("[...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids)) and len(hrefs) > 10
    for href in hrefs:
        path, _, anchor = href.partition("#")
        if not path:
            assert anchor in ids, href
        elif Path(path).name not in ("lineage.html", "report.html"):  # written by other steps
            assert (pages[name].parent / path).is_file(), href
    contents = page.evaluate("[...document.querySelectorAll('nav a')].map((a) => a.hash.slice(1))")
    assert contents == page.evaluate("[...document.querySelectorAll('section')].map((s) => s.id)")


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("plain study", 1200),
        ("plain external", 390),
        ("hostile external", 1200),
        ("blocks", 390),
        ("blocks", 1200),
    ],
)
def test_axe_finds_nothing_serious(visit, pages: dict[str, Path], name: str, width: int) -> None:
    page = visit(pages[name], {"width": width, "height": 844}).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    found = Axe().run(page).response["violations"]
    assert [
        (v["id"], v["impact"], v["nodes"][0]["html"][:200])
        for v in found
        if v["impact"] in ("serious", "critical")
    ] == []


@pytest.mark.parametrize("name", [name for name in PAGES if "hostile" in name or name == "blocks"])
def test_words_of_the_user_are_words(visit, pages: dict[str, Path], name: str) -> None:
    page = visit(pages[name]).page
    assert page.evaluate("document.scripts.length") == 1 and page.evaluate("document.images.length") > 1
    assert page.evaluate("document.querySelectorAll('[onerror], [onload], svg, i, img[src=x]').length") == 0
    told = page.evaluate(
        "document.body.textContent + ' ' + [...document.images].map((image) => image.alt).join(' ')"
    )
    text = re.sub(r"\s+", " ", told)
    wanted = [*CLASSES, HOSPITALS["gamma"].replace("\u202e", ""), NOTICE]
    wanted += {"hostile study": [HOSPITALS["alpha"], HOSPITALS["beta"]], "blocks": [UNBROKEN, SENTENCE]}.get(
        name, []
    )
    assert [words for words in wanted if words not in text] == []
    assert page.title().startswith(TITLE)
    assert "\u202e" not in page.content()


def test_a_right_to_left_name_does_not_turn_round_what_follows_it(visit, pages: dict[str, Path]) -> None:
    page = visit(pages["hostile study"]).page
    heading = page.locator("h3", has_text="مستشفى").first
    assert heading.get_attribute("dir") == "rtl"
    # In an English sentence only the name is set apart: the words after it stand to its right.
    places = page.evaluate("""() => {
        const name = [...document.querySelectorAll("figcaption > bdi")]
            .find((b) => b.nextSibling && b.nextSibling.textContent.trim().length > 5 && !b.closest("[dir]"));
        const after = document.createRange();
        after.setStart(name.nextSibling, 1);
        after.setEnd(name.nextSibling, 4);
        return [name.getBoundingClientRect(), after.getBoundingClientRect()].map((r) => [r.left, r.top]);
    }""")
    (name_left, name_top), (left, top) = places
    assert left > name_left or top > name_top


def test_what_gets_into_a_page_cannot_run(visit, pages: dict[str, Path]) -> None:
    seen = visit(pages["blocks"])
    # The policy is stated, and a handler that found its way in is refused by it.
    seen.page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.ran = 1\">')"
    )
    seen.page.wait_for_timeout(200)
    assert seen.page.evaluate("window.ran") is None
    refused, seen.troubles[:] = list(seen.troubles), []
    assert len(refused) == 1 and "Content Security Policy" in refused[0]


def value(cell: str) -> float | None:
    """Read the number that a cell starts with, in Python's own way."""
    first = cell.replace("\u00a0", " ").replace("−", "-").replace(",", "").split(" ")[0]
    if first in ("missing", "undefined", "–"):
        return None
    return -1e-12 + float(first[1:]) if first.startswith("<") else float(first.replace("∞", "inf"))


def column(page: Page, number: int) -> list[str]:
    return page.evaluate(
        "n => [...document.querySelector('#sorting tbody').rows].map((row) => row.cells[n].textContent)",
        number,
    )


@pytest.mark.parametrize(("name", "place"), [("estimate", 1), ("count", 2), ("p", 3)])
def test_tables_sort_by_value(visit, pages: dict[str, Path], name: str, place: int) -> None:
    page = visit(pages["blocks"]).page
    head = page.locator("#sorting th[scope=col]").nth(place)
    cells = [str(row[place]) for row in NUMBERS.rows]
    present = [c for c in cells if value(c) is not None]
    absent = [c for c in cells if value(c) is None]
    assert absent and column(page, place) == cells
    head.get_by_role("button", name=name).click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, place) == [*sorted(present, key=value), *absent]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, place) == [*sorted(present, key=lambda c: -value(c)), *absent]
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") is None and column(page, place) == cells


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        (0, ["row 1", "row 2", "row 3", "row 4", "row 5", "row 6", "row 7", "row 9", "row 10"]),
        (4, ["0a01", "1c1c", "2bcd", "3b9f", "7d77", "8a8a", "9e1f", "10aa", "ffff"]),
        (5, ["😀", "Aachen", "berlin", "Bonn", *["Hospital 9"] * 2, *["Hospital 10"] * 2, "Zürich"]),
    ],
)
def test_words_sort_by_name_with_their_numbers_by_value(
    visit, pages: dict[str, Path], place: int, wanted: list[str]
) -> None:
    page = visit(pages["blocks"]).page
    page.locator("#sorting th[scope=col] button").nth(place).click()
    assert column(page, place) == wanted


def test_one_column_sorts_at_a_time_and_equals_keep_their_order(visit, pages: dict[str, Path]) -> None:
    page = visit(pages["blocks"]).page
    heads = page.locator("#sorting figure:first-of-type th[scope=col]")
    for place in (5, 1):
        heads.nth(place).locator("button").click()
    assert [heads.nth(i).get_attribute("aria-sort") for i in range(6)] == [None, "ascending", *[None] * 4]
    equal = [
        row for row, estimate in zip(column(page, 0), column(page, 1), strict=True) if "0.88" in estimate
    ]
    assert equal == ["row 4", "row 7"]


def test_a_real_table_sorts_by_its_estimates(visit, pages: dict[str, Path]) -> None:
    page = visit(pages["plain study"]).page
    table = page.locator("section[id^=development] table").first
    heads = table.locator("th[scope=col]").all_inner_texts()
    table.get_by_role("button", name="estimate", exact=True).click()
    cells = table.locator(f"tbody tr td:nth-child({heads.index('estimate') + 1})").all_inner_texts()
    numbers = [value(cell) for cell in cells if value(cell) is not None]
    assert len(numbers) > 8 and numbers == sorted(numbers) and not math.isnan(numbers[0])


@pytest.mark.parametrize("clipboard", [True, False])
def test_a_table_is_copied_with_its_title_and_notes(visit, pages: dict[str, Path], clipboard: bool) -> None:
    page = visit(pages["blocks"], permissions=["clipboard-read", "clipboard-write"]).page
    page.evaluate("navigator.clipboard.writeText('something else')")
    if not clipboard:
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('none')); }")
    button = page.get_by_role("button", name=f"Copy table: {NUMBERS.title}")
    button.click()
    page.get_by_role("status").get_by_text("Table copied").wait_for(state="attached")
    told = [[c.text if isinstance(c, Link) else c for c in row] for row in NUMBERS.rows]
    lines = ["\t".join(cell.replace("\u00a0", " ") for cell in row) for row in [NUMBERS.header, *told]]
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(
        [NUMBERS.title, *lines, *NUMBERS.notes, ""]
    )
    assert button.evaluate("e => e === document.activeElement")


def test_all_that_can_be_used_is_reached_by_keyboard_and_seen(visit, pages: dict[str, Path]) -> None:
    page = visit(pages["blocks"], PHONE).page
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("e => e === document.activeElement && e.getBoundingClientRect().left >= 0")
    reached = []
    for _ in range(page.evaluate("document.querySelectorAll('a, button, summary, .scroll').length") + 2):
        page.keyboard.press("Tab")
        kind, outline = page.evaluate("""() => {
            const e = document.activeElement;
            return [[e.tagName, e.className].join("."), getComputedStyle(e).outlineStyle];
        }""")
        reached.append(kind)
        assert kind == "BODY." or outline == "solid", kind
    assert {"SUMMARY.", "BUTTON.", "BUTTON.copy", "DIV.scroll", "A.", "A.how", "A.up"} <= set(reached)


def test_the_skip_link_skips_and_folded_parts_open_by_keyboard(visit, pages: dict[str, Path]) -> None:
    page = visit(pages["blocks"]).page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "results"
    page.locator("main summary").focus()
    assert not page.get_by_text("Kept words").is_visible()
    page.keyboard.press("Enter")
    assert page.get_by_text("Kept words").is_visible()


def test_a_wide_table_scrolls_by_keyboard_on_a_phone(visit, pages: dict[str, Path]) -> None:
    page = visit(pages["blocks"], PHONE).page
    box = page.locator(".scroll").nth(1)
    box.focus()
    # A busy machine's browser may lose a key that is pressed before it has drawn the focus.
    for _ in range(20):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(250)
        if box.evaluate("element => element.scrollLeft") > 0:
            break
    assert box.evaluate("element => element.scrollLeft") > 0


def test_contents_are_folded_on_a_phone_only(visit, pages: dict[str, Path]) -> None:
    assert visit(pages["blocks"]).page.locator("nav details").get_attribute("open") is not None
    phone = visit(pages["blocks"], PHONE).page
    assert phone.locator("nav details").get_attribute("open") is None
    phone.locator("nav summary").click()
    phone.locator("nav a", has_text="Pictures").click()
    box = phone.locator("#pictures").bounding_box()
    assert box is not None and -1 <= box["y"] < 100


@pytest.mark.parametrize("name", ["plain study", "blocks"])
def test_without_the_script_all_is_there(visit, pages: dict[str, Path], name: str) -> None:
    with_script = visit(pages[name]).page
    without = visit(pages[name], PHONE, java_script_enabled=False).page
    words = [
        re.sub(r"(?<=.)(Copy|Table copied)\n", "", page.locator("main").text_content() or "")
        for page in (with_script, without)
    ]
    assert re.sub(r"\s+", "", words[0]).replace("Copy", "") == re.sub(r"\s+", "", words[1])
    assert without.locator("nav details").get_attribute("open") is not None
    assert without.locator("button").count() == 0 and without.locator("table").count() >= 2


def sheets_of(page: Page) -> list[str]:
    """Print a page and return the words of each sheet without spaces, as lines are broken anew on paper.

    Figures keep their room but are not drawn: reading their outlines would take most of the time.
    """
    page.evaluate("[...document.images].forEach((image) => { image.style.visibility = 'hidden'; })")
    printed = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))
    box = printed.pages[0].mediabox
    assert (round(box.width / 72 * 25.4), round(box.height / 72 * 25.4)) == (210, 297)
    return [close(sheet.extract_text()) for sheet in printed.pages]


def close(text: str) -> str:
    """Leave out spaces and part ligatures."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


@pytest.mark.parametrize("name", ["plain study", "hostile external", "blocks"])
def test_the_printed_page_is_whole(visit, pages: dict[str, Path], name: str) -> None:
    page = visit(pages[name]).page
    sections = [title for title in page.locator("h2, h3").all_text_contents() if title.isascii()]
    sheets = sheets_of(page)
    assert len(sheets) > 1 and all(len(text) > 60 for text in sheets)
    text = "".join(sheets)
    assert [title for title in sections if close(title) not in text] == [] and len(sections) > 2
    assert f"1/{len(sheets)}" in sheets[0] and f"{len(sheets)}/{len(sheets)}" in sheets[-1]
    # Of links only the words are printed.
    stamps = page.locator(".stamp").count()
    assert text.count(close(LEAKY)) >= stamps and (stamps > 10) == (name == "hostile external")
    assert "howmade" not in text and "figures/" not in text and "SVG,PDF" not in text


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_paper(visit, pages: dict[str, Path], name: str) -> None:
    page = visit(pages[name], {"width": A4, "height": 1000}).page
    page.emulate_media(media="print")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= A4
    assert (
        page.evaluate("""() => [...document.querySelectorAll("main table, main img")]
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).length""")
        == 0
    )


@pytest.mark.parametrize("script", [True, False])
def test_folded_parts_and_headers_of_every_sheet_are_on_paper(
    visit, pages: dict[str, Path], script: bool
) -> None:
    page = visit(pages["blocks"], java_script_enabled=script).page
    sheets = [close(sheet.extract_text()) for sheet in PdfReader(io.BytesIO(page.pdf())).pages]
    assert "Keptwords" in "".join(sheets)
    long = [
        text
        for text in sheets
        if close(SENTENCE) in text and UNBROKEN[:40] in text and "Pictures" not in text
    ]
    assert len(long) > 3 and all("metric" in text for text in long[:-1])


def test_folded_parts_are_opened_for_printing_and_folded_again(visit, pages: dict[str, Path]) -> None:
    page = visit(pages["blocks"]).page
    for event, there in (("beforeprint", True), ("afterprint", False)):
        page.evaluate("name => dispatchEvent(new Event(name))", event)
        assert page.get_by_text("Kept words").is_visible() == there


def test_a_study_of_three_hospitals_is_below_five_megabytes(pages: dict[str, Path]) -> None:
    assert pages["hostile study"].stat().st_size < 5_000_000
