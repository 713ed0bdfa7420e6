"""Arithmetic that printed figures must satisfy: which of them can come from whole patients at all.

A share of n whole units is one of n + 1 numbers, and rounding hides fewer of them than one thinks (the GRIM test of Brown
and Heathers 2017, Soc Psychol Personal Sci 8:363, for shares instead of means). Sensitivity, specificity and accuracy come
from one 2×2 table, or do not. An interval tells how many independent units would make it.

Figures are given as they are printed, "95.3 %" or ".953": the digits say how far they were rounded. Both ways of rounding
a half are taken for possible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from scipy.special import ndtri

from marrowflow.errors import UserError
from marrowflow.statistics.intervals import clopper_pearson, wilson

_PRINTED = re.compile(r"\s*(-?)(\d*)(?:[.,·](\d+))?\s*(%?)\s*")


@dataclass(frozen=True)
class Printed:
    """A figure as it stands in print.

    Attributes
    ----------
    text
        As printed.
    value
        Exactly, as a share: 95.3 % is 953/1000.
    half
        Half a unit of its last digit.
    """

    text: str
    value: Fraction
    half: Fraction

    def may_be(self, exact: Fraction | float) -> bool:
        """Say whether a number may have been rounded to this one."""
        return abs(Fraction(exact) - self.value) <= self.half

    def rounded(self, exact: Fraction | float) -> str:
        """Write a number with as many digits as this one."""
        percent = "%" in self.text
        digits = round(-math.log10(2 * self.half)) - (2 if percent else 0)
        return f"{float(exact) * (100 if percent else 1):.{max(digits, 0)}f}{' %' if percent else ''}"


def printed(text: str) -> Printed:
    """Read a printed figure such as ``95.3 %`` or ``.953``; raise `UserError` where it is none."""
    found = _PRINTED.fullmatch(text)
    if not found or not (found[2] or found[3]):
        raise UserError(
            f"{text!r} is no printed figure: write it in quotation marks as it is printed, such as '95.3 %' or '.953'"
        )
    digits = found[3] or ""
    value = Fraction(int((found[2] or "0") + digits), 10 ** len(digits))
    unit = Fraction(1, 10 ** len(digits)) / (100 if found[4] else 1)
    value = -value if found[1] else value
    return Printed(text.strip(), value / (100 if found[4] else 1), unit / 2)


def counts_of(share: Printed, n: int) -> range:
    """Return all k of which k/n may have been rounded to a printed share; empty where there is none."""
    low = math.ceil((share.value - share.half) * n)
    high = math.floor((share.value + share.half) * n)
    return range(max(low, 0), min(high, n) + 1)


def neighbours(share: Printed, n: int) -> tuple[int, int]:
    """Return the whole numbers on both sides of share × n."""
    k = math.floor(share.value * n)
    return max(0, min(k, n)), max(0, min(k + 1, n))


@dataclass(frozen=True)
class TwoByTwo:
    """Counts of a yes/no index test: true and false positives and negatives."""

    tp: int
    fn: int
    tn: int
    fp: int

    def shares(self) -> dict[str, Fraction | None]:
        """Return the shares by the metric's name; None where nothing is divided by."""
        parts = {
            "sensitivity": (self.tp, self.tp + self.fn),
            "specificity": (self.tn, self.tn + self.fp),
            "ppv": (self.tp, self.tp + self.fp),
            "npv": (self.tn, self.tn + self.fn),
            "accuracy": (self.tp + self.tn, self.tp + self.fn + self.tn + self.fp),
        }
        return {name: Fraction(k, n) if n else None for name, (k, n) in parts.items()}


METRICS = ("sensitivity", "specificity", "ppv", "npv", "accuracy")
"""What `tables_of` may be given."""


def tables_of(figures: Mapping[str, Printed], present: int, absent: int) -> Iterator[TwoByTwo]:
    """Yield every 2×2 table of so many patients with and without the condition that gives all printed figures.

    Parameters
    ----------
    figures
        Printed shares by name, of `METRICS`.
    present, absent
        Patients with and without the target condition.
    """
    free = Printed("", Fraction(1, 2), Fraction(1, 2))
    for tp in counts_of(figures.get("sensitivity", free), present):
        for tn in counts_of(figures.get("specificity", free), absent):
            table = TwoByTwo(tp, present - tp, tn, absent - tn)
            shares = table.shares()
            if all(
                (own := shares[name]) is not None and shown.may_be(own) for name, shown in figures.items()
            ):
                yield table


def closest_table(figures: Mapping[str, Printed], present: int, absent: int) -> TwoByTwo:
    """Return the 2×2 table whose figures are nearest to the printed ones (least largest difference)."""

    def distance(table: TwoByTwo) -> Fraction:
        shares = table.shares()
        return max(
            abs(own - shown.value) if (own := shares[name]) is not None else Fraction(1)
            for name, shown in figures.items()
        )

    every = (
        TwoByTwo(tp, present - tp, tn, absent - tn) for tp in range(present + 1) for tn in range(absent + 1)
    )
    return min(every, key=distance)


def mean_of(values: Sequence[Printed], weights: Sequence[int] | None = None) -> tuple[Fraction, Fraction]:
    """Return the least and the largest mean that printed values can have, weighted or not."""
    own = list(weights) if weights is not None else [1] * len(values)
    total = sum(own)
    low = sum((v.value - v.half) * w for v, w in zip(values, own, strict=True)) / total
    high = sum((v.value + v.half) * w for v, w in zip(values, own, strict=True)) / total
    return Fraction(low), Fraction(high)


def wald(share: float, n: float, confidence: float) -> tuple[float, float]:
    """Return the interval share ± z √(share (1 − share)/n): the one that most publications print."""
    half = float(ndtri((1 + confidence) / 2)) * math.sqrt(share * (1 - share) / n)
    return share - half, share + half


def intervals_of(k: int, n: int, confidence: float) -> dict[str, tuple[float, float]]:
    """Return the usual intervals of k of n independent units, by name."""
    score, exact = wilson(k, n, confidence), clopper_pearson(k, n, confidence)
    return {
        "Wald": wald(k / n, n, confidence),
        "Wilson": (score.low, score.high),
        "Clopper–Pearson": (exact.low, exact.high),
    }


def implied_size(share: float, half_width: float, confidence: float) -> float:
    """Return how many independent units give a Wald interval of this half width."""
    z = float(ndtri((1 + confidence) / 2))
    return share * (1 - share) * z**2 / half_width**2


def hanley_mcneil(auc: float, present: int, absent: int) -> float:
    """Return the standard error of an AUC of so many patients with and without the condition.

    Hanley and McNeil 1982, Radiology 143:29, equations 1 and 2: from exponential scores, with Q1 = A/(2 − A) and
    Q2 = 2A²/(1 + A).
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (present - 1) * (q1 - auc**2) + (absent - 1) * (q2 - auc**2)
    return math.sqrt(spread / (present * absent))
