"""Galleries of an index test: its most confident errors and the undecided cases, with where the networks looked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from marrowflow.images.store import open_store
from marrowflow.prediction_columns import PARENT
from marrowflow.reporting import page, tables
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.results import IndexTest
from marrowflow.reporting.saliency_shown import Explanations, explanations_of
from marrowflow.shown_cases import CONFIDENCE, DISTANCE, ERROR, IMAGE, Cut, Question, ShownCases, choose_cases

_NO_PICTURE = "No patient image is printed (report.errors_shown is 0)."


def gallery_notes(reporter: Reporter, test: IndexTest, cohort: str) -> list[page.Block]:
    """Say how the maps beside the pictures are to be read; or that there is no picture at all."""
    if reporter.options.report.errors_shown == 0:
        return [page.Text([_NO_PICTURE])]
    return explanations_of(reporter, test, cohort).notes()


def gallery_sections(reporter: Reporter, test: IndexTest, cohort: str, anchor: str) -> list[page.Section]:
    """Return a section of the most confident errors and one of the undecided cases; none where no picture is wanted."""
    if reporter.options.report.errors_shown == 0:
        return []
    galleries = _Galleries(reporter, test, cohort)
    return [
        page.Section("Most confident errors", f"{anchor}-wrong", [galleries.errors()], leaky=test.leaky),
        page.Section(
            galleries.undecided_title, f"{anchor}-undecided", [galleries.undecided()], leaky=test.leaky
        ),
    ]


def error_blocks(reporter: Reporter, test: IndexTest, cohort: str) -> list[page.Block]:
    """Show the wrong answers with the largest probability, one thumbnail an image; see `marrowflow.shown_cases`.

    Where samples of images were divided, the thumbnail is the image that the sample was made of.
    """
    if reporter.options.report.errors_shown == 0:
        return [page.Text([_NO_PICTURE])]
    return [_Galleries(reporter, test, cohort).errors()]


def undecided_blocks(reporter: Reporter, test: IndexTest, cohort: str) -> list[page.Block]:
    """Show the inconclusive cases; where there is none, the answers nearest to where they would have changed."""
    if reporter.options.report.errors_shown == 0:
        return [page.Text([_NO_PICTURE])]
    return [_Galleries(reporter, test, cohort).undecided()]


@dataclass(frozen=True)
class _Galleries:
    """Both galleries of one index test for one set of patients."""

    reporter: Reporter
    test: IndexTest
    cohort: str

    def errors(self) -> page.Block:
        chosen = self._chosen
        cut = chosen.decided_at
        how = f"at {_named(cut)}" if cut else "by the largest probability (all classes)"
        if chosen.errors.empty:
            none = f"None of {chosen.n_answered} {self._noun} was classified wrongly {how}."
            return page.Text([none], sources=self._sources)
        words = (
            f"{chosen.n_errors} of {chosen.n_answered} {self._noun} with a reference were classified wrongly {how}; "
            "the {n} most confident are shown"
        )
        return self._gallery(words, chosen.errors, ERROR)

    @property
    def undecided_title(self) -> str:
        if self._chosen.kind == "inconclusive":
            return "Inconclusive images"
        return "Answers nearest to the cut-off" if self._chosen.closest_to else "Closest answers"

    def undecided(self) -> page.Block:
        chosen = self._chosen
        if chosen.undecided.empty:
            none = f"None of the {self._noun} is inconclusive, and none has both an answer and a reference."
            return page.Text([none], sources=self._sources)
        if chosen.kind == "inconclusive":
            words = (
                "The index test came to no result, or the reference standard did not "
                f"(n = {chosen.n_inconclusive} {self._noun}); {{n}} shown, the most confident answers first"
            )
        else:
            cut = chosen.closest_to
            turn = _named(cut) if cut else "the next class (difference of the two largest probabilities)"
            words = f"None of the {self._noun} is inconclusive; shown instead are the {{n}} answers nearest to {turn}"
        return self._gallery(words, chosen.undecided, chosen.kind)

    def _gallery(self, words: str, shown: pd.DataFrame, kind: str) -> page.Gallery:
        """Return the gallery of cases; in `words` {n} stands for their number."""
        thumbnails = self._thumbnails(shown, kind)
        seen = (
            "one of each image, as it was before its augmentation"
            if self._made
            else "as the networks saw them"
        )
        absent = len(shown) - len(thumbnails)
        caption = f"{words.replace('{n}', str(len(thumbnails)))}, {seen} ({self.test.name})."
        caption += f" Picture missing: {absent}." if absent else ""
        return page.Gallery(caption, thumbnails, self._sources | self._explanations.sources)

    def _thumbnails(self, shown: pd.DataFrame, kind: str) -> list[page.Thumbnail]:
        pictures: dict[str, np.ndarray] = {}
        for name, rows in shown.groupby("cohort", sort=True):
            store = open_store(self.reporter.results.store_path(str(name), self.test.colour))
            place = dict(zip(store.index["case_id"], store.index["row"], strict=True))
            pictures |= {case: store.pixels[place[case]] for case in rows[IMAGE] if case in place}
        thumbnails = []
        for row in shown.to_dict("records"):
            if row[IMAGE] not in pictures:
                continue
            lines = self._lines(row)
            explained = self._explanations.of(row["case_id"], kind, pictures[row[IMAGE]])
            label = "image" if explained.pictures else ""
            own = page.picture(pictures[row[IMAGE]], label, f"{row['case_id']}: {lines[0]}, {lines[1]}")
            thumbnails.append(page.Thumbnail([own, *explained.pictures], [*lines, *explained.lines]))
        return thumbnails

    def _lines(self, row: Mapping[Any, Any]) -> list[str]:
        """Return what stands below a picture: answer, reference, case, and of the closest how close."""
        answer = f"predicted {row['predicted']} ({row[CONFIDENCE]:.0%})" if row["predicted"] else "no answer"
        reason = f": {row['reason']}" if row["reason"] else ""
        lines = [answer + reason, f"reference {row['truth']}", row["case_id"]]
        turn = "the cut-off" if self._chosen.closest_to else "the next class"
        return [*lines, f"{tables.number(row[DISTANCE])} from {turn}"] if DISTANCE in row else lines

    @cached_property
    def _table(self) -> pd.DataFrame:
        return self.reporter.results.predictions(self.test, self.cohort, self.reporter.options.classes).table

    @cached_property
    def _chosen(self) -> ShownCases:
        options, lock = self.reporter.options, self.reporter.results.lock(self.test)
        question = Question(options.classes, options.endpoints, options.units, lock)
        return choose_cases(self._table, question, options.report.errors_shown)

    @cached_property
    def _explanations(self) -> Explanations:
        return explanations_of(self.reporter, self.test, self.cohort)

    @property
    def _made(self) -> bool:
        return PARENT in self._table

    @property
    def _noun(self) -> str:
        return "augmented images" if self._made else "images"

    @property
    def _sources(self) -> dict[str, str]:
        return self.reporter.sources(self.reporter.results.predictions_path(self.test, self.cohort))


def _named(cut: Cut) -> str:
    return f"the locked threshold of {cut.endpoint}, {tables.number(cut.threshold)}"
