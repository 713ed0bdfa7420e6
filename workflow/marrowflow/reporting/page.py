"""Self-contained pages: sections of text, tables, figures and thumbnails in one HTML file.

Nothing comes from elsewhere: figures are embedded as data, and the page's policy (a meta tag) lets browsers run
and style nothing but the script and the style sheet that stand in it, by their digests. Without the script all
is there; it sorts and copies tables. Words come from manifests and configurations, so all of them pass through
Jinja's escaping, and those of right-to-left scripts are set apart from what stands beside them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from marrowflow.config import LEAKY
from marrowflow.files import write_text
from marrowflow.reporting.drawing import Saved
from marrowflow.reporting.tables import Link, Table

TEMPLATES = Path(__file__).parent / "templates"

# JPEG at this side and quality is a few kB a thumbnail: enough to see a cell, 60 of them stay below 1 MB.
_THUMBNAIL, _QUALITY = 168, 82

_LONG = 24  # characters of a cell whose column may not become too narrow

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]+"
)
# From a right-to-left letter to the last one before any other letter, and the bracket or quote that closes after it.
_RUN = re.compile(rf"({_RIGHT_TO_LEFT.pattern}(?:[\W\d_]*{_RIGHT_TO_LEFT.pattern})*[)\]}}»”]?)")


@dataclass(frozen=True)
class Text:
    """Paragraphs; `tone` is "plain", "note" (set apart) or "warning"."""

    paragraphs: Sequence[str]
    tone: str = "plain"
    sources: Mapping[str, str] = field(default_factory=dict)
    """Link text → href of the files that the words speak of."""

    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Facts:
    """Names and values in two columns."""

    items: Mapping[str, str]
    sources: Mapping[str, str] = field(default_factory=dict)

    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Figure:
    """A drawn figure with its words; `wide` replaces `saved` on screens and paper with room for it."""

    caption: str
    alternative: str
    saved: Saved
    wide: Saved | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    leaky: bool = False

    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Figures:
    """Figures that stand side by side where there is room."""

    figures: Sequence[Figure]

    kind: ClassVar[str] = "figures"


@dataclass(frozen=True)
class Picture:
    """A small picture as a data URI; `label` stands over it where several belong together."""

    uri: str
    label: str
    alternative: str
    wide: bool = False
    """A row of tiles, much wider than high."""


@dataclass(frozen=True)
class Thumbnail:
    """One picture, or several side by side (the image, its map, a control), and the lines under them."""

    pictures: Sequence[Picture]
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Thumbnails in a grid."""

    caption: str
    thumbnails: Sequence[Thumbnail]
    sources: Mapping[str, str] = field(default_factory=dict)

    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Folded:
    """Blocks under a line that the reader opens; on paper they are open."""

    summary: str
    blocks: Sequence[Block]

    kind: ClassVar[str] = "folded"


Block = Text | Facts | Table | Figure | Figures | Gallery | Folded


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `anchor` is unique in it. Leaky ones bear the stamp."""

    title: str
    anchor: str
    blocks: Sequence[Block]
    sections: Sequence[Section] = ()
    leaky: bool = False


@dataclass(frozen=True)
class Page:
    """A whole page: its title, what must be read before the first figure, and its sections."""

    title: str
    subtitle: str
    notice: str
    banners: Sequence[str]
    facts: Mapping[str, str]
    sections: Sequence[Section]


def write_page(page: Page, path: Path, root: Path | None = None) -> None:
    """Render a page and write it whole; the same page gives the same bytes.

    Parameters
    ----------
    page
        What stands on it.
    path
        Where it goes; its links are relative to that place.
    root
        The study's folder of results. Each source then has a second link, to how ``lineage.html`` there says
        that it was made; without a root there is none.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "sources": lambda block: list(block.sources.items()),
        "lineage": lambda href: lineage_link(href, path.parent, root) if root else "",
        "words": words,
        "plain": plain,
        "direction": direction,
        "long": lambda cell: len(cell.text if isinstance(cell, Link) else cell) > _LONG,
    }
    environment.filters.update(filters)
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8") + _margins(page.title)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    context: dict[str, Any] = {
        "page": page,
        "leaky_stamp": LEAKY,
        "style": Markup(style),
        "script": Markup(script),
        "policy": f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
    }
    write_text(path, environment.get_template("page.html").render(context))


def plain(text: str) -> str:
    """Return a text without control characters and marks of direction, which could turn round what follows them."""
    return _UNSEEN.sub("", text)


def words(text: str) -> Markup:
    """Escape a text and set its right-to-left runs apart, so that what follows a name stays where it is."""
    parts = (
        Markup("<bdi>{}</bdi>").format(part) if i % 2 else escape(part)
        for i, part in enumerate(_RUN.split(plain(text)))
    )
    return Markup("").join(parts)


def direction(text: str) -> Markup:
    """Return ``dir="rtl"`` for the tag of a text whose letters mostly run from right to left."""
    leftward = sum(map(len, _RIGHT_TO_LEFT.findall(text)))
    return Markup(' dir="rtl"') if 2 * leftward > sum(map(str.isalpha, text)) else Markup("")


def _digest(text: str) -> str:
    """Return what a content security policy names a script or style sheet by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _margins(title: str) -> str:
    """Return the style of printed pages' feet: the title and the page's number."""
    short = textwrap.shorten(plain(title), 90, placeholder="…")
    # In a string of CSS any character may stand as its code; so none can end the string or the style sheet.
    quoted = "".join(c if c.isascii() and c.isalnum() else f"\\{ord(c):x} " for c in short)
    return f"""@page {{
  @bottom-left {{ content: "{quoted}"; font: 7.5pt sans-serif; color: #555; }}
  @bottom-right {{ content: counter(page) " / " counter(pages); font: 7.5pt sans-serif; color: #555; }}
}}
"""


def lineage_link(href: str, folder: Path, root: Path) -> str:
    """Return the link to how a file was made; empty for what lies outside the results.

    Parameters
    ----------
    href
        The file's link on a page in `folder`. What lies in the page's own ``figures/`` was made as a whole.
    folder
        Where the page lies.
    root
        The study's folder of results, in which ``lineage.html`` has an anchor a path.
    """
    made = PurePath(os.path.relpath(folder / href, root))
    if made.parts[0] == os.pardir:
        return ""
    figures = PurePath(os.path.relpath(folder, root), "figures")
    made = figures if made.is_relative_to(figures) else made
    to = PurePath(os.path.relpath(root / "lineage.html", folder))
    return f"{to.as_posix()}#{quote(made.as_posix())}"


def thumbnail(image: np.ndarray, lines: Sequence[str], alternative: str) -> Thumbnail:
    """Return a thumbnail of one RGB image (uint8 [H, W, 3])."""
    return Thumbnail([picture(image, "", alternative)], lines)


def picture(image: np.ndarray, label: str, alternative: str) -> Picture:
    """Shrink an RGB image (uint8 [H, W, 3]) and embed it as JPEG."""
    small = Image.fromarray(np.ascontiguousarray(image))
    wide = small.width > 1.5 * small.height
    small.thumbnail((3 * _THUMBNAIL if wide else _THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, label, alternative, wide)
