"""How the networks were trained: each one's loss and accuracy by epoch, all folds in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from marrowflow.config import Protocol
from marrowflow.files import write_table
from marrowflow.reporting import drawing, page, tables
from marrowflow.reporting.reporter import Reporter, leaky_suffix, mean_of, missing, stem
from marrowflow.reporting.results import IndexTest, read_csv, read_json
from marrowflow.reporting.study_options import Options
from marrowflow.reporting.training_figure import NETWORK, training_curves


def training_blocks(reporter: Reporter, options: Options, protocol: Protocol) -> list[page.Block]:
    """Draw the curves of all networks; of many, those that the primary index test is not made of are folded away."""
    tests = reporter.tests(protocol)
    members = reporter.members(tests[0])
    trained = list(dict.fromkeys([*members, *(t for t in tests if not reporter.members(t))]))
    drawn: dict[IndexTest, page.Figure] = {}
    lost: list[page.Block] = []
    for test in trained:
        histories, cards = {}, {}
        for fold in reporter.results.folds(protocol):
            path = reporter.results.training_path(test, fold, "history.csv")
            history = read_csv(path)
            if history is None or history.empty:
                lost.append(missing(path, reporter.results))
            else:
                histories[fold] = history
                cards[fold] = read_json(reporter.results.training_path(test, fold, "card.json")) or {}
        if histories:
            drawn[test] = _figure(reporter, test, histories, cards)
    said = f"{tests[0].name} is the {mean_of(members)}: nothing was trained for it itself." if members else ""
    shown, rest = reporter.upright(drawn)
    return [
        *([page.Text([said])] if said else []),
        *([page.Figures(shown)] if shown else []),
        *(
            [page.Folded(f"Accuracy and loss of {len(rest)} more networks", [page.Figures(rest)])]
            if rest
            else []
        ),
        *lost,
    ]


def kept_epochs(card: Mapping[str, Any]) -> list[int]:
    """Return the epochs whose weights a fold kept, as its card says: one, or one a class of one-vs-rest networks."""
    kept = card.get("best_epoch")
    if kept is None:
        return []
    return [int(epoch) for epoch in (kept.values() if isinstance(kept, Mapping) else [kept])]


def _figure(
    reporter: Reporter, test: IndexTest, histories: dict[str, pd.DataFrame], cards: dict[str, dict[str, Any]]
) -> page.Figure:
    file = stem("curves", test.name, *leaky_suffix(test))
    path = reporter.folder / f"{file}.csv"
    write_table(
        path, pd.concat([h.assign(fold=int(fold)) for fold, h in histories.items()], ignore_index=True)
    )
    title = f"Accuracy and loss: {test.name}"
    networks = max(h[NETWORK].nunique() if NETWORK in h else 1 for h in histories.values())
    of = f" of {networks} yes/no networks" if networks > 1 else ""
    subtitle = f"n = {len(histories)} fold{'s' if len(histories) > 1 else ''}{of}, one line each; {_trained_on(cards)}"
    kept = {fold: card["best_epoch"] for fold, card in cards.items() if card.get("best_epoch") is not None}
    return reporter.draw(
        training_curves(histories, kept, title, subtitle, test.leaky),
        file,
        f"{title}. {subtitle}.",
        drawing.alternative_text(title, subtitle),
        reporter.sources(path),
        test.leaky,
    )


def _trained_on(cards: dict[str, dict[str, Any]]) -> str:
    """Return how many images the networks were trained on, as their cards say."""
    sizes = [
        sum(count["images"] for count in card["data"]["train"].values())
        for card in cards.values()
        if "data" in card
    ]
    if not sizes:
        return f"number of training images {tables.MISSING}"
    few, many = min(sizes), max(sizes)
    return (
        f"{few if few == many else f'{few} to {many}'} training images{' a fold' if len(cards) > 1 else ''}"
    )
