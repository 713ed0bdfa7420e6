"""Correct colour towards a target that is given as numbers, for those who do not have the target's image.

A recipe of reinhard or macenko aims at what was measured on one image. Another hospital needs the measurements and not the
image, which may be a patient's.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from marrowflow.cli import progress
from marrowflow.cohorts.decode import Unreadable, decode
from marrowflow.config import ColourRecipe, Images
from marrowflow.errors import UserError
from marrowflow.images.colour import (
    Fit,
    MacenkoTarget,
    ReinhardTarget,
    correct,
    macenko,
    macenko_target,
    reinhard,
    reinhard_target,
)
from marrowflow.images.crop import contour_crop
from marrowflow.images.store import StoreWriter

Numbers = dict[str, list]
"""A target's fields by name, as nested lists of float64."""


def fitted_target(recipe: ColourRecipe) -> Numbers | None:
    """Return what a recipe's target image measures; None for a recipe that aims at no image.

    Raises
    ------
    UserError
        The image cannot be read or shows no stain.
    """
    if recipe.target is None or recipe.method not in ("reinhard", "macenko"):
        return None
    measure = reinhard_target if recipe.method == "reinhard" else macenko_target
    return {name: value.tolist() for name, value in vars(measure(recipe.target)).items()}


def correct_as_fitted(
    image: np.ndarray, recipe: ColourRecipe, target: Numbers | None, size: int, fit: Fit
) -> tuple[np.ndarray, str]:
    """Return what `images.colour.correct` returns, bit for bit, with the target given as numbers.

    Parameters
    ----------
    image
        uint8 [height, width, 3], RGB.
    recipe
        Its own ``target`` is not looked at where ``target`` is given.
    target
        Of `fitted_target`; None where the recipe aims at no image.
    size, fit
        As for `images.colour.correct`.
    """
    if target is None:
        return correct(image, recipe, size, fit)
    cell, left_whole = contour_crop(image, recipe.min_contour) if recipe.crop == "contour" else (image, "")
    fields = {name: np.asarray(value, np.float64) for name, value in target.items()}
    if recipe.method == "reinhard":
        coloured, left_coloured = reinhard(cell, ReinhardTarget(**fields))
    else:
        coloured, left_coloured = macenko(cell, MacenkoTarget(**fields))
    square, _ = correct(coloured, ColourRecipe(method="none"), size, fit)
    return square, "; ".join(filter(None, (left_whole, left_coloured)))


def pack_as_fitted(
    inventory: pd.DataFrame,
    folder: Path,
    out: Path,
    images: Images,
    recipe: ColourRecipe,
    target: Numbers | None,
    threads: int,
) -> None:
    """Write the store of an inventory's included images, in its order, as `images.correct` does.

    Parameters
    ----------
    inventory
        Columns ``case_id``, ``image``, ``status``; at least one image is included.
    folder
        What ``image`` is relative to.
    out
        Folder of the store.
    images, recipe, target
        Side and fit, recipe, and what `correct_as_fitted` takes as its target.
    threads
        Images worked on at a time.

    Raises
    ------
    UserError
        An image that the intake read can be read no more.
    """
    included = inventory[inventory["status"] == "included"]
    about = {"recipe": recipe.model_dump(mode="json"), "size": images.size, "fit": images.fit}
    # The pool's threads are the only ones: OpenCV's own would fight with them.
    cv2.setNumThreads(1)
    with (
        StoreWriter(out, included["case_id"].tolist(), images.size, about) as writer,
        ThreadPoolExecutor(max_workers=threads) as pool,
    ):

        def work(place: tuple[int, str]) -> None:
            row, image = place
            pixels = _read(folder / image)
            writer.put(row, *correct_as_fitted(pixels, recipe, target, images.size, images.fit))

        try:
            done = pool.map(work, enumerate(included["image"]))
            for _ in progress(done, "correct", len(included), "images"):
                pass
        except BaseException:
            # Who ends the program does not wait for images that were not begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read(path: Path) -> np.ndarray:
    try:
        return decode(path.read_bytes()).pixels
    except (OSError, Unreadable) as error:
        raise UserError(
            f"image {path} was readable a moment ago and is not now ({error}): put it back and run again"
        ) from error
