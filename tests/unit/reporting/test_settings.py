"""What the page says of the rules of division."""

from __future__ import annotations

from typing import Any

import pytest

from marrowflow.config import AsPublished, Splits
from marrowflow.reporting.settings import split_words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({}, "kfold, 5 folds, validation share 0.2"),
        ({"scheme": "monte_carlo", "folds": 20, "test": 0.3}, "monte_carlo, 20 repeats, test share 0.3, validation share 0.2"),
        ({"scheme": "holdout", "validation": 0}, "holdout, test share 0.25, validation share 0"),
    ],
)  # fmt: skip
def test_a_rule_is_printed_with_the_keys_that_it_uses(rule: dict[str, Any], words: str) -> None:
    assert split_words(Splits.model_validate(rule)) == words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            {"scheme": "holdout", "test": 0.3, "augmented": True},
            "holdout, test share 0.3, validation share 0.2, divides augmented images, copies of one image on both sides "
            "(augmented: true)",
        ),
        ({"scheme": "kfold", "folds": 4}, "kfold, 4 folds, validation share 0.2, divides images"),
        (
            {"scheme": "column", "column": "set"},
            "column set, validation share 0.2 where it names no validation, divides images",
        ),
    ],
)
def test_the_published_rule_says_what_it_divides(rule: dict[str, Any], words: str) -> None:
    assert split_words(AsPublished.model_validate(rule)) == words
