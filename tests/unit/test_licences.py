"""Licences that keep commerce out, by their names on model hubs and in words."""

import pytest

from marrowflow.licences import non_commercial


@pytest.mark.parametrize(
    "licence",
    [
        "cc-by-nc-4.0",
        "CC BY-NC-SA 4.0",
        "cc-by-nc-nd-4.0",
        "cc_by_nc_4.0",
        "CC-BY-NC",
        "FAIR Noncommercial Research License",
        "PolyForm-Noncommercial-1.0.0",
        "for non-commercial use",
        "NON COMMERCIAL",
        "non_commercial",
        "non‑commercial",  # with a no-break hyphen
        "Research only",
        "research-only",
        "for research use only",
        "research_use_only",
    ],
)
def test_a_licence_that_keeps_commerce_out_is_known(licence: str) -> None:
    assert non_commercial(licence)


@pytest.mark.parametrize(
    "licence",
    [
        "",
        "apache-2.0",
        "mit",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "CC0-1.0",
        "NCSA",
        "sync",
        "ncurses licence",
        "commercial use allowed",
        "research and commercial use",
    ],
)
def test_a_licence_that_lets_commerce_in_is_not_taken_for_one(licence: str) -> None:
    assert not non_commercial(licence)
