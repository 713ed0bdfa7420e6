"""All index tests of a study in one place: what each is, how accurate it is out of fold, and what it cost.

The tables round; ``cells.csv`` beside the page has every number in full (see `cells`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marrowflow.config import CLASSES, Protocol
from marrowflow.files import write_table
from marrowflow.reporting import drawing, page, tables
from marrowflow.reporting.cells import Asked, Cell, cell_records, cells_of, headline
from marrowflow.reporting.networks_figure import WIDE, Dot, dots
from marrowflow.reporting.notes import compact, interval_note
from marrowflow.reporting.reporter import Reporter, leaky_suffix, stem, unit_title
from marrowflow.reporting.results import DEVELOPMENT
from marrowflow.reporting.study_options import Options
from marrowflow.reporting.tables import Table

_NONE = "–"


def network_blocks(reporter: Reporter, options: Options, protocol: Protocol) -> list[page.Block]:
    """Return how the primary index test became so, a figure and two tables of all index tests; write ``cells.csv``."""
    cells = cells_of(reporter, options, protocol)
    suffix = leaky_suffix(cells[0].test)
    path = reporter.folder / f"{stem('cells', *suffix)}.csv"
    write_table(path, cell_records(reporter, cells))
    first = reporter.primary.index_test
    blocks: list[page.Block] = [
        page.Text(
            [f"Primary index test: {first}, {reporter.how_primary()}{_elsewhere(reporter, cells[0])}."],
            "note",
        )
    ]
    if len(cells) > 1:
        blocks.append(_figure(reporter, cells, stem("networks", *suffix), path))
    return [*blocks, accuracy_table(reporter, cells, path), cost_table(reporter, cells, path)]


def _elsewhere(reporter: Reporter, cell: Cell) -> str:
    """Say under which protocol the choice was made where this is another one."""
    return ", under the sound protocol" if reporter.primary.chosen and cell.test.leaky else ""


def accuracy_table(reporter: Reporter, cells: Sequence[Cell], path: Path) -> Table:
    """Return one line an index test: what it is, and the headline metrics out of fold."""
    asked, noun, primary = headline(reporter), reporter.noun(DEVELOPMENT), reporter.primary
    # The choice was made under the sound protocol, and its values are of that one.
    extra = primary.chosen and not cells[0].test.leaky and not _shown(reporter, asked)
    counted, column = _counted(reporter)
    header = ["index test", "network", "trained as", counted]
    start = len(header) - 1
    header += [_title(reporter, *one) for one in asked]
    header += [f"{primary.metric_title}: chosen by"] if extra else []
    body = []
    for cell in cells:
        members = reporter.members(cell.test)
        network = f"mean of {len(members)} models" if members else cell.network
        line = [_name(reporter, cell), network, _made(cell)]
        rows = [cell.estimates[one] for one in asked]
        known = [row[column] for row in rows if row is not None]
        line += [tables.whole(known[0]) if known else tables.MISSING]
        line += [tables.MISSING if row is None else _plain(row) for row in rows]
        if extra:
            line.append(tables.number(primary.values.get(cell.test.name, float("nan"))))
        body.append(line)
    title = f"All index tests on development data, out of fold, {unit_title(reporter.unit, noun)}"
    notes = _accuracy_notes(reporter, cells)
    return Table(title, header, body, [start], notes, reporter.sources(path), cells[0].test.leaky)


def _made(cell: Cell) -> str:
    """Return how a network was trained, as short as a table needs it."""
    seed = f"seed {cell.seed}" if cell.seed else ""
    return ", ".join(part for part in (cell.mode, cell.test.colour, cell.variant, seed) if part)


def _accuracy_notes(reporter: Reporter, cells: Sequence[Cell]) -> list[str]:
    noun = reporter.noun(DEVELOPMENT)
    given = [row for cell in cells for row in cell.estimates.values() if row is not None]
    confidence = reporter.options.accuracy.confidence
    made = interval_note(pd.DataFrame(given), tables.METRICS, confidence, noun) if given else "No estimates."
    means = {cell.test.model: cell.network for cell in cells if reporter.members(cell.test)}
    chance = f"Intervals are not widened for the number of index tests: the best of {len(cells)} is so partly by chance."
    return [
        "Accuracy counts all together (micro); balanced accuracy is the mean of the classes’ sensitivities (macro).",
        made,
        *(f"{name}: {what}." for name, what in means.items()),
        *([chance] if len(cells) > 1 else []),
        *reporter.remarks(DEVELOPMENT),
    ]


def cost_table(reporter: Reporter, cells: Sequence[Cell], path: Path) -> Table:
    """Return one line an index test: the size of its network, what it started from, and what the training took."""
    devices = list(dict.fromkeys(name for cell in cells if cell.cost for name in cell.cost.devices))
    header = [
        "index test",
        "parameters trained",
        "parameters",
        "start weights (licence)",
        "epochs kept",
        "device-seconds",
        "images/s",
        *(["device"] if len(devices) > 1 else []),
    ]
    body = []
    for cell in cells:
        cost = cell.cost
        line = [
            _name(reporter, cell),
            _NONE if cell.trained is None else f"{cell.trained:,}",
            _NONE if cell.parameters is None else f"{cell.parameters:,}",
            _NONE if cell.weights is None else str(cell.weights),
            _span(cell.epochs),
            cost.seconds_text if cost else _NONE,
            cost.rate_text if cost else _NONE,
            ", ".join(cost.devices) if cost else _NONE,
        ]
        body.append(line[: len(header)])
    notes = [
        "Device-seconds: the training of all folds, validation and features of frozen networks included, added up; images/s: "
        "training images in that time (of a frozen network, their features). The time of features stands with the training that computed them, and not with later "
        "ones that found them kept. Both differ from run to run, as no other number of this page does.",
        *([f"Device: {devices[0]}."] if len(devices) == 1 else []),
        *(["Ensembles are not trained: their members are."] if any(c.weights is None for c in cells) else []),
    ]
    title = "All index tests: size, start weights and cost of training"
    return Table(title, header, body, (1, 2, 5, 6), notes, reporter.sources(path), cells[0].test.leaky)


def _figure(reporter: Reporter, cells: Sequence[Cell], file: str, path: Path) -> page.Figure:
    asked, noun = headline(reporter), reporter.noun(DEVELOPMENT)
    recipes = list(dict.fromkeys(cell.test.colour for cell in cells))
    groups = list(dict.fromkeys(map(_group, cells)))
    rows = [
        Dot(
            _group(cell),
            _label(cell, len(recipes) > 1),
            cell.mode,
            cell.test.colour,
            [_limits(cell.estimates[one]) for one in asked],
            cell.test.name == reporter.primary.index_test,
        )
        for cell in sorted(cells, key=lambda cell: groups.index(_group(cell)))
    ]
    panels = [_title(reporter, *one) for one in asked]
    title = "What network, mode and colour recipe bring"
    counted, column = _counted(reporter)
    counts = sorted({int(row[column]) for c in cells for row in c.estimates.values() if row is not None})
    n = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else tables.MISSING
    leaky = cells[0].test.leaky
    subtitle = (
        f"Development, out of fold, {unit_title(reporter.unit, noun)}, n = {n} {counted}; "
        f"lines: {reporter.options.accuracy.confidence:.0%} intervals; a hollow mark has none"
    )
    words = [
        f"{cell.test.name}: "
        + ", ".join(
            f"{panel} {_spoken(cell.estimates[one])}" for panel, one in zip(panels, asked, strict=True)
        )
        for cell in sorted(cells, key=lambda c: c.test.name != reporter.primary.index_test)
    ]
    return page.Figure(
        f"{title}: {len(cells)} index tests. {subtitle}.",
        drawing.alternative_text(title, subtitle, words),
        drawing.embedded(dots(rows, panels, title, subtitle, leaky=leaky), f"{file}_narrow"),
        drawing.save(dots(rows, panels, title, subtitle, WIDE, leaky), reporter.folder, file),
        reporter.sources(path),
        leaky,
    )


def _group(cell: Cell) -> str:
    return cell.network if cell.mode else "means of several networks"


def _label(cell: Cell, with_recipe: bool) -> str:
    """Return what tells a row of the figure from the others under its heading."""
    seed = f"seed {cell.seed}" if cell.seed else ""
    recipe = cell.test.colour if with_recipe else ""
    parts = [cell.mode or cell.test.model, recipe, cell.variant, seed]
    return ", ".join(part for part in parts if part)


def _counted(reporter: Reporter) -> tuple[str, str]:
    """Return what the units of analysis are called, and the column of metrics.csv that counts them."""
    patients = reporter.unit == "patient"
    return (reporter.noun(DEVELOPMENT), "n_patients") if patients else ("images", "n_cases")


def _plain(row: Mapping[str, Any]) -> str:
    """Return ``estimate (low to high)``; the file has numerators and denominators."""
    return compact({**row, "numerator": "", "denominator": ""})


def _limits(row: Mapping[str, Any] | None) -> tuple[float, float, float]:
    return (
        (float("nan"),) * 3
        if row is None
        else (float(row["estimate"]), float(row["low"]), float(row["high"]))
    )


def _spoken(row: Mapping[str, Any] | None) -> str:
    return tables.MISSING if row is None else tables.number(row["estimate"])


def _name(reporter: Reporter, cell: Cell) -> str:
    return f"{cell.test.name}{' (primary)' if cell.test.name == reporter.primary.index_test else ''}"


def _title(reporter: Reporter, endpoint: str, metric: str, of: str) -> str:
    """Return a column's heading: the metric, and the endpoint where it is not the classification."""
    title = tables.metric_title(metric, of)
    return title if endpoint == CLASSES or CLASSES not in reporter.endpoints else f"{title} ({endpoint})"


def _shown(reporter: Reporter, asked: Sequence[Asked]) -> bool:
    """Say whether what the primary index test was chosen by is one of the headline metrics."""
    primary = reporter.primary
    same = any((endpoint, metric) == (primary.endpoint, primary.metric) for endpoint, metric, _ in asked)
    return same and primary.unit == reporter.unit


def _span(epochs: Sequence[int]) -> str:
    """Return ``8`` or ``8 to 12``; an en dash where no card says."""
    if not epochs:
        return _NONE
    few, many = min(epochs), max(epochs)
    return str(few) if few == many else f"{few}\u00a0to\u00a0{many}"
