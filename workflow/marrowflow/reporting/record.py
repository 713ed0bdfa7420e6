"""What a page was made from: software, checksums, the networks' cards."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from marrowflow import __version__
from marrowflow.files import sha256_of
from marrowflow.reporting import page, tables
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.results import IndexTest, read_json
from marrowflow.reporting.weights import configured_licence

_SOFTWARE = ("numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "matplotlib", "jinja2", "pillow")


def record_section(reporter: Reporter, tests: Iterable[IndexTest], cohorts: Sequence[str]) -> page.Section:
    """Return versions of the software, the models' cards and the checksums of what was reported on."""
    software = [f"marrowflow {__version__}", f"Python {platform.python_version()}"]
    software += list(filter(None, map(_version, _SOFTWARE)))
    rows, cards = [], dict[IndexTest, tables.Table]()
    for test in tests:
        digest = reporter.results.lock(test).get("digest", tables.MISSING)
        rows.append([test.protocol, test.name, "locked threshold", str(digest)[:12]])
        for cohort in cohorts:
            path = reporter.results.predictions_path(test, cohort)
            rows.append(
                [
                    test.protocol,
                    test.name,
                    f"predictions, {cohort}",
                    sha256_of(path)[:12] if path.is_file() else tables.MISSING,
                ]
            )
        if not reporter.members(test):
            cards[test] = _card(reporter, test)
    shown, rest = reporter.upright(cards)
    checks = tables.Table(
        "Checksums (SHA-256, first 12 digits) of what this page reports on",
        ["protocol", "index test", "file", "checksum"],
        rows,
    )
    statement = (
        f"Versions in the environment that wrote this page: {', '.join(software)}. "
        "Those that trained are in the model cards."
    )
    folded = [page.Folded(f"{len(rest)} more model cards", rest)] if rest else []
    return page.Section(
        "Software and run record", "record", [page.Text([statement]), checks, *shown, *folded]
    )


def _card(reporter: Reporter, test: IndexTest) -> tables.Table:
    path = reporter.results.training_path(test, "0", "card.json")
    card, notes = read_json(path) or {}, []
    licence = configured_licence(reporter.options.networks[test.model])
    if licence and "weights" in card:
        card["weights"] |= {"licence": licence}
        notes.append("weights.licence: as the configuration gives it; training was not told of it.")
    lines = [[key, str(value)] for key, value in _scalars(card)]
    title = f"Model card of {test.name}, fold 0"
    return tables.Table(title, ["key", "value"], lines, (), notes, reporter.sources(path), test.leaky)


def _version(name: str) -> str:
    """Return a package's name and version; empty where this environment, which is the page's own, does without it."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def _scalars(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the numbers and words of a nested object with their dotted keys, sorted."""
    for key in sorted(value):
        item = value[key]
        if isinstance(item, Mapping):
            yield from _scalars(item, f"{prefix}{key}.")
        elif isinstance(item, list):
            if len(item) <= 30 and all(isinstance(i, str | int | float) for i in item):
                yield f"{prefix}{key}", ", ".join(map(str, item))
        else:
            yield f"{prefix}{key}", tables.MISSING if item is None else item
