"""What a page is put together from: escaped words, links to how files were made, pictures, policy."""

import base64
import hashlib
import html
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from marrowflow.reporting import page
from marrowflow.reporting.tables import Link, Table

ROOT = Path("results/demo")


@pytest.mark.parametrize(
    ("href", "folder", "wanted"),
    [
        ("../accuracy/sound/lite/raw/beta/metrics.csv", "report",
         "../lineage.html#accuracy/sound/lite/raw/beta/metrics.csv"),
        ("../../locked/primary.json", "external/beta", "../../lineage.html#locked/primary.json"),
        ("gate.json", "external/beta", "../../lineage.html#external/beta/gate.json"),
        ("figures/forest.csv", "report", "../lineage.html#report/figures"),
        ("figures/forest.csv", "external/beta", "../../lineage.html#external/beta/figures"),
        ("../report/index.html", "report", "../lineage.html#report/index.html"),
        ("../images/a b#c.json", "report", "../lineage.html#images/a%20b%23c.json"),
        ("../../../resources/cohorts.tsv", "report", ""),
    ],
)  # fmt: skip
def test_each_source_leads_to_how_it_was_made(href: str, folder: str, wanted: str) -> None:
    assert page.lineage_link(href, ROOT / folder, ROOT) == wanted
    # Wherever the study lies, and whichever way its folder is spelt.
    assert page.lineage_link(href, Path("/a") / ROOT / folder, Path("/a") / ROOT) == wanted
    assert page.lineage_link(href, ROOT.absolute() / folder, ROOT) == wanted


class Words(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags = "", []
        self.feed(text)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


@given(
    st.text(
        st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("<>&\"'אבجد() 12")), max_size=60
    )
)
def test_words_stay_the_words_that_they_are(text: str) -> None:
    made = Words(str(page.words(text)))
    assert html.unescape(made.text) == page.plain(text) and set(made.tags) <= {"bdi"}


def test_only_right_to_left_runs_are_set_apart() -> None:
    assert page.words("Ward <3> & 12") == "Ward &lt;3&gt; &amp; 12"
    assert page.words("at שלום (בית 7), n = 30") == "at <bdi>שלום (בית</bdi> 7), n = 30"
    assert page.words("مستشفى الملك (الرياض): n = 30") == "<bdi>مستشفى الملك (الرياض)</bdi>: n = 30"
    assert page.plain("a\u202eb\u2067c\x00d\te\nf") == "abcd\te\nf"


def test_a_text_runs_as_most_of_its_letters_do() -> None:
    assert page.direction("שלום: n = 3") == ' dir="rtl"' and page.direction("שלום לכולם 😀") == ' dir="rtl"'
    assert page.direction("Hospital שלום") == page.direction("") == page.direction("12 %") == ""


@pytest.fixture
def written(tmp_path: Path) -> str:
    grey = np.full((300, 200, 3), 99, np.uint8)
    pair = page.Thumbnail([page.picture(grey, x, f"{x} of case 1") for x in ("image", "map")], ["case 1"])
    alone = page.thumbnail(grey, ["case 2"], "case 2")
    rows = [[Link("to <it>", "#a"), "1"], ["plain_name", Link("x" * 30, "../b.csv")]]
    blocks = [Table("T", ["k", "v" * 30], rows, [1]), page.Gallery("G", [pair, alone], {"b.csv": "../b.csv"})]
    whole = page.Page('"; } </style><x>', "S", "", [], {}, [page.Section("A", "a", blocks)])
    page.write_page(whole, tmp_path / "report" / "index.html", tmp_path)
    return (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_cells_may_be_links(written: str) -> None:
    assert re.search(r'<th scope="row">\s*<a href="#a">to &lt;it&gt;</a>\s*</th>', written)
    assert re.search(r'<td class="n">\s*<a href="\.\./b\.csv">x{30}</a>\s*</td>', written)
    assert f'<th scope="col" class="n long">{"v" * 30}</th>' in written and "plain_<wbr>name" in written


def test_pictures_that_belong_together_stand_side_by_side(written: str) -> None:
    several, alone = re.findall(
        r"<li( class=\"several\")?>\s*<div class=\"pictures\">(.*?)</li>", written, re.DOTALL
    )
    assert several[0] and not alone[0]
    assert re.findall(r'class="label">(\w+)<', several[1]) == ["image", "map"] and "label" not in alone[1]
    assert re.findall(r'alt="([^"]+)"', several[1] + alone[1]) == [
        "image of case 1",
        "map of case 1",
        "case 2",
    ]


def test_a_source_tells_how_it_was_made(written: str) -> None:
    (how,) = re.findall(r'<a class="how" href="([^"]+)" title="how made: b.csv">', written)
    assert how == "../lineage.html#b.csv" and '<span class="unseen">how made: b.csv</span>' in written


def test_the_policy_names_the_style_and_script_that_stand_in_the_page(written: str) -> None:
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', written)[0])
    for tag in ("style", "script"):
        (told,) = re.findall(rf"<{tag}>(.*?)</{tag}>", written, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(told.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and " style=" not in written


def test_a_title_cannot_end_the_style_sheet_that_prints_it(written: str) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", written, re.DOTALL)
    (told,) = re.findall(r'@bottom-left \{ content: "([^"]*)"', style)
    assert re.sub(r"\\([0-9a-f]+) ", lambda m: chr(int(m[1], 16)), told) == '"; } </style><x>'


@pytest.mark.parametrize("size", [(40, 60), (400, 600)])
def test_a_picture_is_small_and_keeps_its_shape(size: tuple[int, int]) -> None:
    made = page.picture(np.full((*size, 3), 200, np.uint8), "", "a")
    with Image.open(BytesIO(base64.b64decode(made.uri.partition(",")[2]))) as image:
        assert max(image.size) == min(168, 600, max(size)) and image.size[0] * 2 == image.size[1] * 3
