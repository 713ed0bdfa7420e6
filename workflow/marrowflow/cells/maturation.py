"""The order in which cells mature, and what kind of error it is to take one type for another.

    lineages:
      granulopoiesis: [myeloblast, promyelocyte, myelocyte, metamyelocyte, band, neutrophil]
      erythropoiesis: [proerythroblast, erythroblast]

===================  ========================================================================
kind                 the type that was said
===================  ========================================================================
right                is the true one
neighbouring stage   stands before or behind it in a lineage: two experts often differ so too
other stage          is of its lineage, further off
other lineage        is of none of its lineages
===================  ========================================================================

A type may stand in several lineages, as a stem cell does; the mildest kind counts. One in no lineage is a lineage of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from marrowflow.errors import UserError

KINDS = ("right", "neighbouring stage", "other stage", "other lineage")


def kinds(types: Sequence[str], lineages: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Return the place in `KINDS` of taking each type (row) for each other one (column): int64 [types, types].

    Raises
    ------
    UserError
        A lineage that names an unknown type, or one twice.
    """
    place = {name: i for i, name in enumerate(types)}
    found = np.full((len(types), len(types)), KINDS.index("other lineage"))
    for name, stages in lineages.items():
        if unknown := [stage for stage in stages if stage not in place]:
            raise UserError(
                f"lineages.{name}: {', '.join(unknown)} is none of the study's types; correct it, or take it out"
            )
        if len(set(stages)) < len(stages):
            raise UserError(f"lineages.{name}: a type stands twice; cells do not mature backwards")
        for i, one in enumerate(stages):
            for j, other in enumerate(stages):
                kind = min(abs(i - j), KINDS.index("other stage"))
                at = place[one], place[other]
                found[at] = min(found[at], kind)
    np.fill_diagonal(found, KINDS.index("right"))
    return found


def errors(confusion: pd.DataFrame, lineages: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return how many cells of each type were told right, and wrong in which way.

    Parameters
    ----------
    confusion
        int64 [types, types]: true types as the index, those that were said as the columns, in the same order.
    lineages
        Types in the order in which they mature.

    Returns
    -------
    DataFrame
        One row a type and a last one, ``""``, for all: ``type``, ``n``, and a column a kind with its number of cells.
    """
    types = confusion.index.tolist()
    if types != confusion.columns.tolist():
        raise ValueError("rows and columns of a confusion are the same types in the same order")
    kind, cells = kinds(types, lineages), confusion.to_numpy(np.int64)
    table = pd.DataFrame({name: np.where(kind == i, cells, 0).sum(axis=1) for i, name in enumerate(KINDS)})
    table.insert(0, "n", cells.sum(axis=1))
    table.insert(0, "type", types)
    whole = {"type": "", **table.drop(columns="type").sum().to_dict()}
    return pd.concat([table, pd.DataFrame([whole])], ignore_index=True)
