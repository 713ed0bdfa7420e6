"""Kinds of errors, counted by hand on a small confusion."""

import pandas as pd
import pytest

from marrowflow.cells.maturation import KINDS, errors, kinds
from marrowflow.errors import UserError

TYPES = ["stem", "blast", "band", "neutrophil", "normoblast", "artefact"]
LINEAGES = {
    "granulopoiesis": ["stem", "blast", "band", "neutrophil"],
    "erythropoiesis": ["stem", "normoblast"],
}


@pytest.mark.parametrize(
    ("true", "said", "kind"),
    [
        ("band", "band", "right"),
        ("band", "neutrophil", "neighbouring stage"),
        ("neutrophil", "band", "neighbouring stage"),
        ("blast", "neutrophil", "other stage"),
        ("stem", "neutrophil", "other stage"),
        # A stem cell stands at the head of both lineages.
        ("stem", "normoblast", "neighbouring stage"),
        ("band", "normoblast", "other lineage"),
        ("artefact", "band", "other lineage"),
        ("artefact", "artefact", "right"),
    ],
)
def test_kinds(true, said, kind):
    assert KINDS[kinds(TYPES, LINEAGES)[TYPES.index(true), TYPES.index(said)]] == kind


def test_errors_are_counted_by_kind():
    cells = [
        [5, 1, 0, 2, 1, 0],
        [0, 9, 3, 1, 0, 0],
        [0, 0, 7, 2, 0, 4],
        [0, 0, 0, 8, 0, 0],
        [1, 0, 0, 0, 6, 0],
        [0, 0, 0, 0, 0, 3],
    ]
    table = errors(pd.DataFrame(cells, TYPES, TYPES), LINEAGES).set_index("type")
    assert table.loc["stem"].tolist() == [9, 5, 2, 2, 0]
    assert table.loc["blast"].tolist() == [13, 9, 3, 1, 0]
    assert table.loc["band"].tolist() == [13, 7, 2, 0, 4]
    assert table.loc[""].tolist() == [53, 38, 8, 3, 4]


def test_lineages_that_cannot_be_are_refused():
    with pytest.raises(UserError, match=r"lineages\.a: bandd is none"):
        kinds(TYPES, {"a": ["bandd"]})
    with pytest.raises(UserError, match="twice"):
        kinds(TYPES, {"a": ["band", "blast", "band"]})
