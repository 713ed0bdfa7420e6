"""Self-contained pages: sections of text, tables, figures and thumbnails in one HTML file.

No script and nothing from elsewhere: figures are embedded as data, everything else is text. All of it
passes through Jinja's escaping, because words come from manifests and configurations.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from marrowflow.config import LEAKY
from marrowflow.files import write_text
from marrowflow.reporting.drawing import Saved
from marrowflow.reporting.tables import Table

TEMPLATES = Path(__file__).parent / "templates"

# JPEG at this side and quality is a few kB a thumbnail: enough to see a cell, 60 of them stay below 1 MB.
_THUMBNAIL, _QUALITY = 168, 82


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
class Thumbnail:
    """A picture as a data URI, and the lines under it."""

    uri: str
    lines: Sequence[str]
    alternative: str


@dataclass(frozen=True)
class Gallery:
    """Thumbnails in a grid."""

    caption: str
    thumbnails: Sequence[Thumbnail]
    sources: Mapping[str, str] = field(default_factory=dict)

    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Folded:
    """Blocks under a line that the reader opens; on paper the line alone stands there."""

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


def write_page(page: Page, path: Path) -> None:
    """Render a page and write it whole; the same page gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sources"] = lambda block: list(block.sources.items())
    context: dict[str, Any] = {"page": page, "leaky_stamp": LEAKY}
    write_text(path, environment.get_template("page.html").render(context))


def thumbnail(image: np.ndarray, lines: Sequence[str], alternative: str) -> Thumbnail:
    """Shrink an RGB image (uint8 [S, S, 3]) and embed it as JPEG."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(uri, lines, alternative)
