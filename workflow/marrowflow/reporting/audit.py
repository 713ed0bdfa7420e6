"""Audit of arithmetic: can the figures of a publication, or of a study of ours, come from whole patients at all?

    python -m marrowflow reporting.audit --figures resources/audits/huang2020.yaml
    python -m marrowflow reporting.audit --accuracy results/demo/accuracy --out results/demo/audit.json

The first checks figures that were copied from print (see docs/audit.md for the file), prints a line each, and ends with
status 1 if any does not fit. The second checks every ``metrics.csv`` and ``confusion.csv`` below a folder against each other
and as the reports print them; the workflow runs it on its own results before a report is written, and stops at a finding.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from marrowflow.cli import existing_file, step_parser
from marrowflow.config import Section
from marrowflow.config_problems import explain
from marrowflow.errors import UserError, enumerate_problems
from marrowflow.files import write_json
from marrowflow.reporting.own_audit import audit_accuracy
from marrowflow.statistics import attainable
from marrowflow.statistics.attainable import Printed, printed

log = logging.getLogger(__name__)

_TIGHTER = 2.0  # an interval as of this many times as many patients does not fit


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    what: str
    fits: bool
    words: str


class Share(Section):
    """A printed share of n units."""

    of: str
    printed: str
    n: int = Field(ge=1)

    def check(self) -> Finding:
        """Say whether any whole number of the n gives it."""
        share = printed(self.printed)
        found = attainable.counts_of(share, self.n)
        if found:
            which = f"{found[0]}/{self.n}" if len(found) == 1 else f"{found[0]} to {found[-1]} of {self.n}"
            return Finding(self.of, True, f"{share.text} is {which}")
        near = " and ".join(
            _quotient(share, k, self.n) for k in dict.fromkeys(attainable.neighbours(share, self.n))
        )
        return Finding(self.of, False, f"{share.text} is no k/{self.n}: {near} are nearest")


class Sum(Section):
    """Parts that must add up."""

    of: str
    parts: dict[str, int] = Field(min_length=2)
    total: int

    def check(self) -> Finding:
        """Say whether they do."""
        added = sum(self.parts.values())
        terms = " + ".join(f"{n} {name}" for name, n in self.parts.items())
        return Finding(self.of, added == self.total, f"{terms} = {added}; printed: {self.total}")


class Agreement(Section):
    """Numbers that must be one: the same thing printed in several places."""

    of: str
    places: dict[str, str] = Field(min_length=2)

    def check(self) -> Finding:
        """Say whether all places give the same."""
        words = ", ".join(f"{value} ({where})" for where, value in self.places.items())
        return Finding(self.of, len({printed(v).value for v in self.places.values()}) == 1, words)


class Together(Section):
    """Figures of one 2×2 table."""

    of: str
    # All tables are tried, and a two-by-two table of more patients attains every printed figure.
    present: int = Field(ge=1, le=2000)
    absent: int = Field(ge=1, le=2000)
    sensitivity: str | None = None
    specificity: str | None = None
    ppv: str | None = None
    npv: str | None = None
    accuracy: str | None = None

    @model_validator(mode="after")
    def _something_is_given(self) -> Together:
        if not self._figures():
            raise ValueError(f"give one or more of {', '.join(attainable.METRICS)}")
        return self

    def _figures(self) -> dict[str, Printed]:
        given = {name: getattr(self, name) for name in attainable.METRICS}
        return {name: printed(text) for name, text in given.items() if text is not None}

    def check(self) -> Finding:
        """Say which tables give all of them, or which is nearest and what each figure alone can be."""
        figures = self._figures()
        shown = ", ".join(f"{name} {figure.text}" for name, figure in figures.items())
        who = f"{self.present} with and {self.absent} without the condition"
        found = list(attainable.tables_of(figures, self.present, self.absent))
        if found:
            first, more = found[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
            return Finding(
                self.of,
                True,
                f"{shown} of {who}: TP {first.tp}, FN {first.fn}, TN {first.tn}, FP {first.fp}{more}",
            )
        alone = []
        for name, n in (
            ("sensitivity", self.present),
            ("specificity", self.absent),
            ("accuracy", self.present + self.absent),
        ):
            if name in figures and not attainable.counts_of(figures[name], n):
                near = " and ".join(
                    _quotient(figures[name], k, n) for k in attainable.neighbours(figures[name], n)
                )
                alone.append(f"{name} {figures[name].text} is no k/{n} ({near})")
        best = attainable.closest_table(figures, self.present, self.absent)
        shares = best.shares()
        nearest = ", ".join(f"{name} {figures[name].rounded(shares[name] or 0)}" for name in figures)
        why = f"; {'; '.join(alone)}" if alone else ""
        return Finding(
            self.of,
            False,
            f"no 2×2 table of {who} gives {shown}; nearest: {nearest} (TP {best.tp}, FN {best.fn}, TN {best.tn}, FP {best.fp}){why}",
        )


class Mean(Section):
    """A printed mean of printed values: plain, or weighted by the number of units of each."""

    of: str
    printed: str
    values: dict[str, str] = Field(min_length=2)
    n: dict[str, Annotated[int, Field(ge=1)]] = Field(default={})

    @model_validator(mode="after")
    def _every_value_has_its_n(self) -> Mean:
        if self.n and self.n.keys() != self.values.keys():
            raise ValueError(f"n: names {sorted(self.n)}, and values: names {sorted(self.values)}")
        return self

    def check(self) -> Finding:
        """Say whether it is their plain mean, their weighted mean, both or neither."""
        shown, values = printed(self.printed), [printed(v) for v in self.values.values()]
        kinds = {"plain (macro) mean": None} | (
            {"mean weighted by n (micro)": list(self.n.values())} if self.n else {}
        )
        said, fits = [], False
        for kind, weights in kinds.items():
            low, high = attainable.mean_of(values, weights)
            own = low - shown.half <= shown.value <= high + shown.half
            fits |= own
            said.append(
                f"{kind} {shown.rounded(low)} to {shown.rounded(high)}, {'fits' if own else 'does not fit'}"
            )
        return Finding(self.of, fits, f"{shown.text}; of the values as rounded: {'; '.join(said)}")


class Interval(Section):
    """A printed interval of a share of n independent units, or of an AUC of so many present and absent."""

    of: str
    printed: str
    low: str
    high: str
    n: int | None = Field(default=None, ge=1)
    present: int | None = Field(default=None, ge=1)
    absent: int | None = Field(default=None, ge=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _of_a_share_or_of_an_auc(self) -> Interval:
        if (self.n is None) == (self.present is None or self.absent is None):
            raise ValueError("give n: for a share, or present: and absent: for an AUC")
        return self

    def check(self) -> Finding:
        """Say which method gives the limits at that n, or how many independent units they speak of."""
        return self._share(self.n) if self.n is not None else self._auc()

    def _share(self, n: int) -> Finding:
        value, low, high = printed(self.printed), printed(self.low), printed(self.high)
        shown = f"{value.text} ({low.text} to {high.text})"
        for k in attainable.counts_of(value, n):
            for name, (lowest, highest) in attainable.intervals_of(k, n, self.confidence).items():
                if low.may_be(lowest) and high.may_be(highest):
                    return Finding(self.of, True, f"{shown} is the {name} interval of {k}/{n}")
        size = self._size(value, low, high)
        return Finding(
            self.of,
            False,
            f"{shown} is no Wald, Wilson or Clopper–Pearson interval of n = {n}; as wide as a Wald interval of about {size:.0f} independent units",
        )

    def _size(self, value: Printed, low: Printed, high: Printed) -> float:
        half = float(high.value - low.value) / 2
        if half <= 0:
            raise UserError(f"{self.of}: the interval {low.text} to {high.text} has no width")
        return attainable.implied_size(float(value.value), half, self.confidence)

    def _auc(self) -> Finding:
        assert self.present is not None
        assert self.absent is not None
        value, low, high = printed(self.printed), printed(self.low), printed(self.high)
        # The widest interval that may have been rounded to the printed one speaks for it.
        half = float(high.value + high.half - low.value + low.half) / 2
        error = attainable.hanley_mcneil(float(value.value), self.present, self.absent)
        times = (error * float(attainable.ndtri((1 + self.confidence) / 2)) / half) ** 2
        words = (
            f"{value.text} ({low.text} to {high.text}), {self.present} with and {self.absent} without the condition: as narrow as "
            f"with {times:.1f} times as many independent patients (standard error after Hanley and McNeil {error:.4f})"
        )
        return Finding(self.of, times <= _TIGHTER, words)


class Check(Section):
    """One check: exactly one of its kinds."""

    share: Share | None = None
    sum: Sum | None = None
    same: Agreement | None = None
    two_by_two: Together | None = None
    mean: Mean | None = None
    interval: Interval | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Check:
        if len(self.model_fields_set) != 1:
            raise ValueError(
                f"a check is one of {', '.join(type(self).model_fields)}; found {sorted(self.model_fields_set)}"
            )
        return self

    def finding(self) -> Finding:
        """Return what it found."""
        (name,) = self.model_fields_set
        found: Finding = getattr(self, name).check()
        return found


class Figures(Section):
    """A file of figures copied from a publication."""

    source: str
    """Which publication."""
    checks: list[Check] = Field(min_length=1)


def read_figures(path: Path) -> Figures:
    """Read a file of figures; raise `UserError` with every problem."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no figures: expected source: and checks:, see docs/audit.md")
    try:
        return Figures.model_validate(content)
    except ValidationError as error:
        problems = [explain(Figures, detail) for detail in error.errors()]
        raise UserError(enumerate_problems(f"{path} cannot be used:", problems)) from error


def audit_figures(figures: Figures) -> list[Finding]:
    """Run all checks, in their order."""
    found = []
    for i, check in enumerate(figures.checks, start=1):
        try:
            found.append(check.finding())
        except UserError as error:
            raise UserError(f"check {i}: {error}") from error
    return found


def main(argv: Sequence[str]) -> None:
    """Run the audit; see the module."""
    parser = step_parser("reporting.audit", "Can these figures come from whole patients?")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--figures", type=existing_file, help="figures copied from print (YAML)")
    what.add_argument(
        "--accuracy",
        type=Path,
        nargs="+",
        help="metrics.csv files with their confusion.csv beside them, or a folder that holds such at any depth",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="what was found, as JSON")
    args = parser.parse_args(argv)
    if args.figures:
        figures = read_figures(args.figures)
        found = audit_figures(figures)
        title, checked = figures.source, len(found)
    else:
        found, checked = _own(args.accuracy)
        title = "accuracy tables"
    print(f"{title}: {checked} checks, {sum(not f.fits for f in found)} do not fit")
    for finding in found:
        print(f"  {'fits        ' if finding.fits else 'DOES NOT FIT'}  {finding.what}: {finding.words}")
    bad = [f for f in found if not f.fits]
    if args.out and not (args.accuracy and bad):
        write_json(args.out, {"checks": checked, "findings": [vars(f) for f in found]})
    if bad and args.accuracy:
        raise UserError(
            enumerate_problems(
                "figures of this study do not fit together (a table was edited, or the statistics have a fault; delete it and "
                "run again, or report it):",
                [f"{f.what}: {f.words}" for f in bad],
            )
        )
    if bad:
        sys.exit(1)


def _own(places: Sequence[Path]) -> tuple[list[Finding], int]:
    found: list[Finding] = []
    checked = 0
    for path in [path for place in places for path in _tables(place)]:
        problems, n = audit_accuracy(path)
        checked += n
        found += [Finding(path.as_posix(), False, text) for text in problems]
    return found, checked


def _tables(place: Path) -> list[Path]:
    """Return the tables of metrics that a file or a folder stands for; one that is missing beside its cross-tabulation too."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise UserError(
            f"no folder {place}: name the study's results/<key>/accuracy, or its metrics.csv files"
        )
    folders = sorted({path.parent for name in ("metrics.csv", "confusion.csv") for path in place.rglob(name)})
    if not folders:
        raise UserError(f"no metrics.csv below {place}: nothing to audit")
    return [folder / "metrics.csv" for folder in folders]


def _quotient(share: Printed, k: int, n: int) -> str:
    return f"{k}/{n} = {share.rounded(attainable.Fraction(k, n))}"
