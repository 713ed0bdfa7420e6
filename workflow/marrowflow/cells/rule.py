"""Rules by which a differential count becomes a diagnosis: declared in the configuration, applied to one patient at a time.

    rules:
      ALL: {types: [lymphoblast], above: 0.2}
      APL: {types: [promyelocyte], above: 0.2, strict: false}
      AMKL: {types: [megakaryoblast], among: [myeloblast, monoblast, megakaryoblast], above: 0.5}
      metastasis: {types: [foreign cell], at_least: 5, min_cells: 500}

A rule answers positive, negative or inconclusive. Inconclusive is an answer of its own (STARD's arm of that name), with its
reason: too few cells, or a share whose interval holds the cut-off, within which the count says nothing. At 70 cells the
interval of a share of 20 % reaches from 12 to 31 %.

Cells that were seen are not taken back by more cells: a rule of `at_least` is positive as soon as there are so many, however few
cells there are in all; only for a negative answer `min_cells` must have been looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import pandas as pd
from pydantic import Field, model_validator
from scipy.stats import binomtest

from marrowflow.errors import UserError, enumerate_problems
from marrowflow.section import Section

Result = Literal["positive", "negative", "inconclusive"]


class Rule(Section):
    """When a patient's cells speak for a diagnosis."""

    types: list[str] = Field(min_length=1)
    """Types of cells that speak for it; they are added up."""
    among: list[str] | None = Field(default=None, min_length=1)
    """Types that the share is one of; null takes all that count. Holds `types` too."""
    above: float | None = Field(default=None, gt=0, lt=1)
    """Positive where their share is larger. For a single cell to be enough say at_least: 1."""
    strict: bool = True
    """false: or as large."""
    at_least: int | None = Field(default=None, ge=1)
    """In place of `above`: positive where there are so many such cells."""
    min_cells: int = Field(default=100, ge=1)
    """With fewer cells in the denominator the rule is inconclusive."""
    grey_zone: Literal["interval", "none"] | tuple[float, float] = "interval"
    """Where a share is inconclusive: interval, its interval holds the cut-off; none; or from one share to another."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of that interval (Wilson's)."""

    @model_validator(mode="after")
    def _one_cut_off(self) -> Rule:
        if (self.above is None) == (self.at_least is None):
            raise ValueError("give either above: (a share) or at_least: (a number of cells)")
        for name, listed in (("types", self.types), ("among", self.among or [])):
            if len(set(listed)) < len(listed):
                raise ValueError(f"{name}: a type stands twice; its cells would count twice")
        if self.among is not None and (absent := [name for name in self.types if name not in self.among]):
            raise ValueError(f"among: must hold the rule's own types too; {', '.join(absent)} is missing")
        if self.at_least is not None and self.grey_zone not in ("interval", "none"):
            raise ValueError("grey_zone: a rule of at_least counts cells, and has no share to be between two")
        if not isinstance(self.grey_zone, str):
            low, high = self.grey_zone
            if self.above is None or not 0 <= low <= self.above <= high <= 1:
                raise ValueError("grey_zone: [low, high] must hold the cut-off, and lie between 0 and 1")
        return self


def refuse_unknown(rules: Mapping[str, Rule], types: Sequence[str]) -> None:
    """Raise `UserError` where a rule names a type that is none of those that count."""
    problems = [
        f"rules.{name}: {kind!r} is none of the types that count ({', '.join(types)}); correct it"
        for name, rule in rules.items()
        for kind in dict.fromkeys([*rule.types, *(rule.among or ())])
        if kind not in types
    ]
    if problems:
        raise UserError(enumerate_problems("rules that cannot be used:", problems))


class Answer(NamedTuple):
    """What a rule says of a patient: the result with its reason, and the share with its numbers and interval (NaN without a cell)."""

    result: Result
    reason: str
    n: int
    of: int
    share: float
    low: float
    high: float


def answer(rule: Rule, counted: pd.Series) -> Answer:
    """Return what a rule says of a patient.

    Parameters
    ----------
    rule
        The rule.
    counted
        int64: the patient's cells by type, all types that count.

    The rule's types are among those that count: see `refuse_unknown`.
    """
    n = int(counted[rule.types].sum())
    of = int((counted if rule.among is None else counted[rule.among]).sum())
    share, low, high = float("nan"), 0.0, 1.0
    if of:
        share = n / of
        low, high = map(float, binomtest(n, of).proportion_ci(rule.confidence, method="wilson"))
    result, reason = _decided(rule, n, of, share, low, high)
    return Answer(result, reason, n, of, share, *((low, high) if of else (float("nan"),) * 2))


def _decided(rule: Rule, n: int, of: int, share: float, low: float, high: float) -> tuple[Result, str]:
    if rule.at_least is not None and n >= rule.at_least:
        return "positive", ""
    if of < rule.min_cells:
        return "inconclusive", f"{of} cells, of which {rule.min_cells} are needed"
    if rule.above is None:
        return "negative", ""
    if rule.grey_zone == "interval" and low <= rule.above <= high:
        return "inconclusive", f"the interval of {share:.1%}, {low:.1%} to {high:.1%}, holds the cut-off"
    if not isinstance(rule.grey_zone, str) and rule.grey_zone[0] <= share <= rule.grey_zone[1]:
        return "inconclusive", f"{share:.1%} lies between {rule.grey_zone[0]:.1%} and {rule.grey_zone[1]:.1%}"
    positive = share > rule.above or (share == rule.above and not rule.strict)
    return ("positive" if positive else "negative"), ""
