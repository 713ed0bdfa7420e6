"""The most confident errors of an index test, with their pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from marrowflow.choices.threshold import locked_threshold
from marrowflow.images.store import open_store
from marrowflow.prediction_columns import PARENT
from marrowflow.predictions import ENDPOINT, NO_REFERENCE, PROBABILITY
from marrowflow.reporting import page, tables
from marrowflow.reporting.reporter import Reporter
from marrowflow.reporting.results import IndexTest, images_of


def error_blocks(reporter: Reporter, test: IndexTest, cohort: str) -> list[page.Block]:
    """Show the wrong predictions with the largest probability, one thumbnail an image.

    Where samples of images were divided, the thumbnail is the image that the sample was made of. With two classes and an endpoint the answer is the one at the locked threshold of images, else the
    class with the largest probability. Order: probability of that class from high to low, then the case's id.
    """
    most = reporter.options.report.errors_shown
    if most == 0:
        return [page.Text(["No patient image is printed (report.errors_shown is 0)."])]
    path = reporter.results.predictions_path(test, cohort)
    table = reporter.results.predictions(test, cohort, reporter.options.classes).table
    countable = table[table["status"].eq("ok") & ~table["truth"].isin(NO_REFERENCE)]
    countable, how = _answered(reporter, test, countable)
    countable = countable.assign(image=images_of(countable))
    made = PARENT in countable
    noun = "augmented images" if made else "images"
    wrong = countable[countable["truth"].ne(countable["predicted"])]
    if wrong.empty:
        return [
            page.Text(
                [f"None of {len(countable)} {noun} was classified wrongly {how}."],
                sources=reporter.sources(path),
            )
        ]
    ordered = wrong.sort_values(["confidence", "case_id"], ascending=[False, True], kind="stable")
    shown = ordered.drop_duplicates("image")[:most]
    pictures: dict[str, np.ndarray] = {}
    for name, rows in shown.groupby("cohort", sort=True):
        store = open_store(reporter.results.store_path(str(name), test.colour))
        place = dict(zip(store.index["case_id"], store.index["row"], strict=True))
        pictures |= {case: store.pixels[place[case]] for case in rows["image"] if case in place}
    thumbnails, absent = [], 0
    for row in shown.to_dict("records"):
        if row["image"] not in pictures:
            absent += 1
            continue
        lines = [
            f"predicted {row['predicted']} ({row['confidence']:.0%})",
            f"reference {row['truth']}",
            row["case_id"],
        ]
        thumbnails.append(
            page.thumbnail(pictures[row["image"]], lines, f"{row['case_id']}: {lines[0]}, {lines[1]}")
        )
    seen = "one of each image, as it was before its augmentation" if made else "as the networks saw them"
    caption = (
        f"{len(wrong)} of {len(countable)} {noun} with a reference were classified wrongly {how}; "
        f"the {len(thumbnails)} most confident are shown, {seen} ({test.name})."
        + (f" Picture missing: {absent}." if absent else "")
    )
    return [page.Gallery(caption, thumbnails, reporter.sources(path))]


def _answered(reporter: Reporter, test: IndexTest, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return images with the answers that accuracy counts, their probability (`confidence`), and how they were decided."""
    options = reporter.options
    if len(options.classes) != 2 or not options.endpoints or "case" not in options.units:
        confidence = [row[PROBABILITY + row["predicted"]] for row in rows.to_dict("records")]
        return rows.assign(confidence=confidence), "by the largest probability (all classes)"
    name, endpoint = next(iter(options.endpoints.items()))
    threshold = locked_threshold(reporter.results.lock(test), name, endpoint.positive, "case")
    (positive,) = endpoint.positive
    (negative,) = (c for c in options.classes if c != positive)
    own = ENDPOINT + name
    score = rows[own if own in rows else PROBABILITY + positive].to_numpy(np.float64)
    called = score >= threshold
    answers = np.where(called, positive, negative).astype(object)
    return (
        rows.assign(predicted=answers, confidence=np.where(called, score, 1 - score)),
        f"at the locked threshold of {name}, {tables.number(threshold)}",
    )
