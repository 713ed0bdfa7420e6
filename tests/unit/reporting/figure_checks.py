"""What is really drawn of a figure's text, and where."""

from __future__ import annotations

from unittest.mock import patch

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def words_of(canvas: Figure) -> str:
    """All text of a figure, with ordinary spaces."""
    return " ".join(text for text, _ in _drawn(canvas)).replace("\u00a0", " ")


def crowded(canvas: Figure) -> list[str]:
    """Texts that lie over one another or leave the canvas by more than a pixel."""
    texts = _drawn(canvas)
    width, height = canvas.get_size_inches() * canvas.dpi
    found = [
        f"{text!r} leaves the canvas"
        for text, box in texts
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for i, (one, a) in enumerate(texts):
        for other, b in texts[i + 1 :]:
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
                found.append(f"{one!r} lies over {other!r}")
    return found


def _drawn(canvas: Figure) -> list[tuple[str, Bbox]]:
    agg = FigureCanvasAgg(canvas)
    drawn: list[Text] = []
    draw = Text.draw

    def noted(self: Text, renderer: object, *args: object, **kwargs: object) -> None:
        if self.get_visible() and self.get_text().strip():
            drawn.append(self)
        draw(self, renderer, *args, **kwargs)

    with patch.object(Text, "draw", noted):
        agg.draw()
    return [(text.get_text(), text.get_window_extent(agg.get_renderer())) for text in drawn]
