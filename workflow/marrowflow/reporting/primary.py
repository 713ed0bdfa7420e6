"""Which index test is reported first, and how it came to be: as `choices.primary` wrote it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from marrowflow.choices.primary import read_decision
from marrowflow.config import CLASSES
from marrowflow.errors import UserError
from marrowflow.reporting import tables

_DECLARED = {
    "declared": "declared before the run",
    "first": "the first of the configuration, taken before the run as none was declared",
}
_AVERAGED = ("auc", "f1", "average_precision")  # of several classes; the other metrics have one value


@dataclass(frozen=True)
class Primary:
    """The index test that is reported first.

    Attributes
    ----------
    index_test
        Its name.
    how
        declared, first or chosen (on out-of-fold results of development patients).
    metric, endpoint, unit
        What it was chosen by; only when chosen.
    values
        Index test → out-of-fold estimate of that metric (NaN where it has none); only when chosen.
    """

    index_test: str
    how: str
    metric: str = ""
    endpoint: str = CLASSES
    unit: str = ""
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def chosen(self) -> bool:
        """True where results of development patients chose it."""
        return self.how == "chosen"

    @property
    def metric_title(self) -> str:
        """What it was chosen by, such as ``AUC (leukaemia)``; averages over classes are macro ones."""
        title = tables.METRICS.get(self.metric, self.metric)
        if self.endpoint != CLASSES:
            return f"{title} ({self.endpoint})"
        return f"macro {title}" if self.metric in _AVERAGED else title

    def statement(self, unit: str) -> str:
        """Say how it became the primary one, without a full stop; `unit` names the unit of the choice, as ``per patient``."""
        if not self.chosen:
            return _DECLARED[self.how]
        return (
            f"chosen on development data, out of fold, as the best of {len(self.values)} by {self.metric_title}, {unit}; its "
            "own development estimate is therefore a little too good, the external hospitals’ is not"
        )


def primary_of(path: Path) -> Primary:
    """Return what ``primary.json`` says.

    Raises
    ------
    UserError
        It does not say which index test is the primary one, or how it became so.
    """
    found = read_decision(path)
    name, how = found["index_test"], found.get("how")
    if how not in (*_DECLARED, "chosen"):
        raise UserError(
            f"{path} does not say how {name} became the primary index test: write it anew with choices.primary"
        )
    if how != "chosen":
        return Primary(name, how)
    values = {
        v["index_test"]: float("nan") if v["estimate"] is None else v["estimate"] for v in found["values"]
    }
    return Primary(name, how, found["metric"], found["endpoint"], found["unit"], values)
