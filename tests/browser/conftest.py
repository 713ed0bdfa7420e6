"""Pages as a reader's browser shows them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hostile_pages import write_pages
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, sync_playwright

DESK = ViewportSize(width=1200, height=900)


def chromium() -> str | None:
    """Return the browser of this machine, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("MARROWFLOW_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip(
            "no Chromium on the PATH (chromium, chromium-browser, google-chrome); or name it in MARROWFLOW_CHROMIUM"
        )
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=quiet)
        yield running
        running.close()


@dataclass
class Visit:
    """An opened page, and all that a reader should not meet on it."""

    page: Page
    fetched: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Open a page as ``visit(path, viewport, **context)``; dialogs, errors and requests are noted and fail the test."""
    contexts = []
    visits: list[Visit] = []

    def opened(path: Path, viewport: ViewportSize = DESK, **options: object) -> Visit:
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        seen = Visit(context.new_page())
        visits.append(seen)

        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                seen.troubles.append(message.text)

        seen.page.on("console", said)
        seen.page.on("pageerror", lambda error: seen.troubles.append(str(error)))
        seen.page.on("dialog", lambda dialog: (seen.troubles.append(dialog.message), dialog.dismiss()))
        seen.page.on("request", lambda request: seen.fetched.append(request.url))
        seen.page.goto(path.as_uri())
        return seen

    yield opened
    for context in contexts:
        context.close()
    for seen in visits:
        assert seen.troubles == []
        assert {url for url in seen.fetched if not url.startswith("data:")} <= {seen.fetched[0]}


@pytest.fixture(scope="session")
def pages(once: Callable[[str, Callable[[Path], object]], Path]) -> dict[str, Path]:
    """Paths of all pages by name."""

    def write(folder: Path) -> None:
        paths = write_pages(lambda name: folder / name)
        places = {name: str(path.relative_to(folder)) for name, path in paths.items()}
        (folder / "pages.json").write_text(json.dumps(places))

    folder = once("pages", write)
    return {name: folder / place for name, place in json.loads((folder / "pages.json").read_text()).items()}
