"""Correct the colour of one image, and bring it to the side at which it is packed.

`correct` is what the step uses; `perfect_reflection`, `adaptive_median`, `reinhard` and `macenko` are
its methods, and `marrowflow.images.crop` goes before them. All take and return uint8 RGB, never raise on odd pixels and never let a NaN through: an
image that a method cannot handle comes back as it was, with the reason as its *flag*.

The first two are exact: bit for bit what the plain definitions give (tests/unit/images/test_colour.py
holds those), an order of magnitude quicker (tests/benchmarks/bench_colour.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from marrowflow.cohorts.decode import Unreadable, decode
from marrowflow.config import ColourRecipe
from marrowflow.errors import UserError
from marrowflow.images.crop import contour_crop

Fit = Literal["stretch", "pad", "crop"]

ALMOST_BLACK = 16
"""A white point below this grey level in any channel asks for a gain above 16: fewer than four of the eight bits hold signal."""

# Rows worked on at a time: all intermediate planes of a band stay in the processor's cache.
_BAND = 128
# Windows gathered at a time: 49 bytes each, in the cache as well.
_GATHERED = 8192
# Above this share of unresolved samples the median of a whole band costs less than gathering their windows.
_WHOLE_ABOVE = {5: 0.012, 7: 0.35}
# Above this share the count of saturated samples, two box filters, costs less than gathering.
_COUNTED_ABOVE = 0.012


def correct(image: np.ndarray, recipe: ColourRecipe, size: int, fit: Fit) -> tuple[np.ndarray, str]:
    """Crop an image and correct its colour as a recipe says, and make it square.

    Cropping comes first, then the colour, which so sees the cell and not the glass about it, and the
    resizing last; except for ``order: fast`` of reflection_median, which is median, resizing, reflection.

    Parameters
    ----------
    image
        uint8 [height, width, 3], RGB.
    recipe
        Crop, method and its parameters. A target file is read once a process.
    size
        Side of the result in pixels.
    fit
        How an oblong image becomes square: ``stretch``, ``pad`` (edge pixels repeated) or ``crop`` (centre).
        What was cropped by its contour is square already.

    Returns
    -------
    image
        uint8 [size, size, 3], RGB.
    flag
        Why the image was left whole or in the colours it came in, or ""; both are joined by "; ". The
        median of reflection_median is applied either way.

    Raises
    ------
    UserError
        The recipe's target cannot be read or shows no stain.
    """
    if recipe.crop == "none":
        return _coloured(image, recipe, size, fit)
    cell, left_whole = contour_crop(image, recipe.min_contour)
    corrected, left_coloured = _coloured(cell, recipe, size, fit)
    return corrected, "; ".join(filter(None, (left_whole, left_coloured)))


def _coloured(image: np.ndarray, recipe: ColourRecipe, size: int, fit: Fit) -> tuple[np.ndarray, str]:
    """Correct the colour by the recipe's method and make the image square."""
    if recipe.method == "reflection_median" and recipe.order == "fast":
        median = adaptive_median(image, recipe.max_window)
        corrected, flag = perfect_reflection(_scaled(median, size, fit), recipe.fraction)
        return _padded(corrected, size), flag
    flag = ""
    if recipe.method == "reflection_median":
        image, flag = perfect_reflection(image, recipe.fraction)
        image = adaptive_median(image, recipe.max_window)
    elif recipe.method == "reinhard":
        image, flag = reinhard(image, reinhard_target(recipe.target))
    elif recipe.method == "macenko":
        image, flag = macenko(image, macenko_target(recipe.target))
    return _padded(_scaled(image, size, fit), size), flag


# ---------------------------------------------------------------- perfect reflection (huang2020)


def perfect_reflection(image: np.ndarray, fraction: float = 0.05) -> tuple[np.ndarray, str]:
    """Scale each channel so that the brightest pixels become white (Huang et al. 2020, preprocessing).

    The brightest pixels are all whose R+G+B is at least the k-th largest, k = ceil(fraction · pixels):
    ties at the limit all belong, so that the result depends on no order of pixels. ``fraction`` is taken
    as the decimal number that it prints as (0.07 of 100 pixels are 7). Their mean colour is the white
    point w, and a value v becomes min(255, v·255/w) rounded to the nearest level, halves up; whole
    numbers throughout, so that the result is the same on every machine.

    Parameters
    ----------
    image
        uint8 [height, width, 3], RGB.
    fraction
        Share of pixels, in (0, 1].

    Returns
    -------
    image
        uint8 [height, width, 3]. The input itself where it is flagged.
    flag
        "almost black" when the white point is below `ALMOST_BLACK` in a channel, else "".
    """
    count, totals = _brightest(image, math.ceil(Fraction(str(fraction)) * (image.size // 3)))
    if min(totals) < ALMOST_BLACK * count:
        return image, "almost black"
    levels = np.arange(256, dtype=np.int64)[:, None]
    total = np.array(totals, dtype=np.int64)
    table = np.minimum(255, (2 * 255 * count * levels + total) // (2 * total)).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, 3)), ""


def _brightest(image: np.ndarray, k: int) -> tuple[int, list[int]]:
    """Return the number of pixels no darker than the k-th brightest, and the sum of each channel over them."""
    sums = np.empty(image.shape[:2], np.uint16)
    counts = np.zeros(766, np.int64)
    for rows in _bands(len(image)):
        red, green, blue = cv2.split(image[rows])
        sums[rows] = cv2.add(cv2.add(red, green, dtype=cv2.CV_16U), blue, dtype=cv2.CV_16U)
        # OpenCV counts in float32, exact up to 2^24: a band is far below that, a slide may not be.
        counts += cv2.calcHist([sums[rows]], [0], None, [766], [0, 766]).ravel().astype(np.int64)
    at_least = counts[::-1].cumsum()[::-1]
    threshold = int(np.flatnonzero(at_least >= k)[-1])
    count = int(at_least[threshold])
    means = cv2.mean(image, _between(sums, threshold, 765))[:3]
    # The mean is a float64 next to total/count; the total is a whole number, so rounding finds it.
    return count, [round(mean * count) for mean in means]


# ---------------------------------------------------------------- adaptive median


def adaptive_median(image: np.ndarray, max_window: int = 7) -> np.ndarray:
    """Take out impulses by the adaptive median filter, a channel at a time.

    Gonzalez & Woods, Digital Image Processing, 3rd ed., section 5.3.3. For each sample the window grows
    from 3 by 2 up to ``max_window``. Level A: when the window's median lies strictly between its minimum
    and maximum, go to level B, else grow. Level B: keep the sample if it lies strictly between minimum
    and maximum, else take the median. When the largest window fails level A, take its median. The
    image's edges are replicated.

    Parameters
    ----------
    image
        uint8 [height, width] or [height, width, channels].
    max_window
        Side of the largest window, 3, 5 or 7 pixels.

    Returns
    -------
    uint8, the image's shape.

    Notes
    -----
    Exact without a whole 7×7 median, which alone would cost 155 ms at 1920×1200×3: samples that the
    smaller windows leave unresolved are settled by counting where the answer is plain, and only the rest
    has its windows gathered.
    """
    margin = max_window // 2
    padded = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    filtered = np.empty((len(image), image.size // len(image)), np.uint8)
    for rows in _bands(len(image)):
        filtered[rows] = _Band(padded[rows.start : rows.stop + 2 * margin], margin).filtered(max_window)
    return filtered.reshape(image.shape)


class _Band:
    """Some rows of an image with a margin all round, and how far the filter has come on them.

    OpenCV's filters take interleaved channels as they are; everything else here sees samples, not
    pixels: planes of uint8 [rows, width · channels]. Masks are 255 where they hold.
    """

    def __init__(self, padded: np.ndarray, margin: int) -> None:
        self.padded = padded
        self.margin = margin
        self.step = padded[0, 0].size  # from one pixel of a row to the next
        self.image = self._inner(padded)
        self.out = np.empty_like(self.image)
        self.unresolved = np.full_like(self.image, 255)

    def filtered(self, max_window: int) -> np.ndarray:
        """Return the filtered rows, uint8 [rows, width · channels]."""
        self._filter_whole(3)
        for window in range(5, max_window + 1, 2):
            if window == 7 and self._share_unresolved() > _COUNTED_ABOVE:
                self._settle_saturated(window)
            share = self._share_unresolved()
            if share > _WHOLE_ABOVE[window]:
                self._filter_whole(window)
            elif share:
                self._filter_gathered(window)
        return self.out

    def _share_unresolved(self) -> float:
        return cv2.countNonZero(self.unresolved) / self.unresolved.size

    def _inner(self, plane: np.ndarray) -> np.ndarray:
        """Cut off the margin and lay the channels side by side."""
        down, along = self.margin, self.margin * self.step
        return np.ascontiguousarray(plane.reshape(len(plane), -1)[down:-down, along:-along])

    def _filter_whole(self, window: int) -> None:
        """Settle what this window settles, by OpenCV's filters over the whole band."""
        element = np.ones((window, window), np.uint8)
        low = self._inner(cv2.erode(self.padded, element))
        high = self._inner(cv2.dilate(self.padded, element))
        median = self._inner(cv2.medianBlur(self.padded, window))
        extreme = cv2.bitwise_or(_equal(self.image, low), _equal(self.image, high))
        stuck = cv2.bitwise_or(_equal(median, low), _equal(median, high))
        # Where the median is stuck at an extreme it is taken for now: no larger window may follow.
        replaced = cv2.bitwise_or(extreme, stuck)
        cv2.copyTo(self.image, self.unresolved, self.out)
        cv2.copyTo(median, cv2.bitwise_and(replaced, self.unresolved), self.out)
        cv2.bitwise_and(self.unresolved, stuck, self.unresolved)
        if window == 5:
            # 25 equal samples are the majority of 49: at 7 too the median is the sample itself.
            self._settle(_equal(low, high))

    def _settle_saturated(self, window: int) -> None:
        """Settle samples in whose window 0 or 255 holds the majority: it is median and extreme at once."""
        for value in (0, 255):
            ones = _between(self.padded.reshape(len(self.padded), -1), value, value) & 1
            held = cv2.boxFilter(
                ones.reshape(self.padded.shape), cv2.CV_8U, (window, window), normalize=False
            )
            majority = _between(self._inner(held), window * window // 2 + 1, window * window)
            majority = cv2.bitwise_and(majority, self.unresolved)
            self.out[majority != 0] = value
            self._settle(majority)

    def _settle(self, mask: np.ndarray) -> None:
        cv2.bitwise_and(self.unresolved, cv2.bitwise_not(mask), self.unresolved)

    def _filter_gathered(self, window: int) -> None:
        """Settle what this window settles, looking at the windows of unresolved samples only."""
        row, inset = self.padded[0].size, self.margin - window // 2
        offsets = [dy * row + dx * self.step for dy in range(window) for dx in range(window)]
        samples = self.padded.reshape(-1)
        image, out, unresolved = (p.reshape(-1) for p in (self.image, self.out, self.unresolved))
        found = np.flatnonzero(self.unresolved != 0)
        for start in range(0, len(found), _GATHERED):
            where = found[start : start + _GATHERED]
            y, x = np.divmod(where, self.image.shape[1])
            first = (y + inset) * row + x + inset * self.step
            windows = np.empty((len(offsets), len(where)), np.uint8)
            for samples_there, offset in zip(windows, offsets, strict=True):
                np.take(samples[offset:], first, out=samples_there, mode="clip")
            low, median, high = windows.min(axis=0), _median(windows), windows.max(axis=0)
            resolved = (low < median) & (median < high)
            kept = resolved & (low < image[where]) & (image[where] < high)
            out[where] = np.where(kept, image[where], median)
            unresolved[where[resolved]] = 0


def _median(windows: np.ndarray) -> np.ndarray:
    """Return the median of each column of uint8 [n, columns], n odd: the largest level that most samples reach, found bit by bit."""
    median = np.zeros(windows.shape[1], np.uint8)
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        candidate = median | np.uint8(bit)
        reached = np.add.reduce((windows >= candidate).view(np.uint8), axis=0, dtype=np.uint8)
        median = np.where(reached > len(windows) // 2, candidate, median)
    return median


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return cv2.compare(a, b, cv2.CMP_EQ)


def _between(plane: np.ndarray, low: int, high: int) -> np.ndarray:
    """Return 255 where low <= plane <= high; one channel."""
    return cv2.inRange(plane, np.array([low]), np.array([high]))


def _bands(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _BAND):
        yield slice(start, min(start + _BAND, rows))


# ---------------------------------------------------------------- Reinhard


@dataclass(frozen=True)
class ReinhardTarget:
    """Mean and standard deviation of each channel of lαβ (natural logarithm of LMS of RGB in 0-255), float64 [3]."""

    mean: np.ndarray
    deviation: np.ndarray


# Reinhard et al. 2001, equation 4: RGB to LMS; and equations 5 and 6: log LMS to lαβ.
_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])

# lαβ of the region of TCGA-A2-A3XS-DX1 to which Amgad et al. (Bioinformatics 2019) normalised theirs: a breast
# section in H&E. No values are published for May-Grünwald-Giemsa: name a target for smears.
_REINHARD_PUBLISHED = ReinhardTarget(
    np.array([8.74108109, -0.12440419, 0.0444982]), np.array([0.6135447, 0.10989545, 0.0286032])
)
# A channel that varies less is flat or grey: one grey level at 200 is 0.005 in log space.
_LEAST_DEVIATION = 1e-3
# exp of more is far above white, and of much more infinite.
_LARGEST_LOG = 8.0


def reinhard(image: np.ndarray, target: ReinhardTarget) -> tuple[np.ndarray, str]:
    """Give an image the mean and standard deviation that the target has in each channel of lαβ.

    Reinhard et al., Color transfer between images, IEEE CG&A 2001, equations 4 to 11. Statistics are over
    the whole image, as in the paper. An LMS value below one grey level counts as one, so that the
    logarithm of black is finite.

    Parameters
    ----------
    image
        uint8 [height, width, 3], RGB.
    target
        From `reinhard_target`.

    Returns
    -------
    image
        uint8 [height, width, 3]. The input itself where it is flagged.
    flag
        "no colour variation" for a flat or a grey image, else "".
    """
    logs = _log_lms(image)
    source = _lab_statistics(logs)
    if source.deviation.min() < _LEAST_DEVIATION:
        return image, "no colour variation"
    # Log LMS → lαβ → scaled and shifted → log LMS is one affine map.
    scale = np.diag(target.deviation / source.deviation)
    back = np.linalg.inv(_LAB)
    shift = back @ (target.mean - scale @ source.mean)
    logs = cv2.transform(logs, np.column_stack([back @ scale @ _LAB, shift]))
    lms = cv2.exp(np.minimum(logs, _LARGEST_LOG))
    return _to_levels(cv2.transform(lms, np.linalg.inv(_LMS))), ""


@functools.cache
def reinhard_target(path: str | None) -> ReinhardTarget:
    """Return the statistics of a target image, or the published ones for None.

    Raises
    ------
    UserError
        The file cannot be read, or is flat or grey.
    """
    if path is None:
        return _REINHARD_PUBLISHED
    target = _lab_statistics(_log_lms(_read_target(path)))
    if target.deviation.min() < _LEAST_DEVIATION:
        raise UserError(f"colour target {path} has no colour variation; name an image of a stained smear")
    return target


def _log_lms(image: np.ndarray) -> np.ndarray:
    return cv2.log(np.maximum(cv2.transform(image.astype(np.float32), _LMS), 1))


def _lab_statistics(logs: np.ndarray) -> ReinhardTarget:
    mean, deviation = cv2.meanStdDev(cv2.transform(logs, _LAB))
    return ReinhardTarget(mean.ravel(), deviation.ravel())


# ---------------------------------------------------------------- Macenko


@dataclass(frozen=True)
class MacenkoTarget:
    """Two stains, and how much of each there is.

    Attributes
    ----------
    stains
        float64 [3, 2]: optical density in R, G, B of each stain as a unit vector.
    concentrations
        float64 [2]: 99th percentile of each stain's concentration.
    """

    stains: np.ndarray
    concentrations: np.ndarray


# Haematoxylin and eosin, as in the authors' and all later implementations. No values are published for
# May-Grünwald-Giemsa: name a target for smears.
_MACENKO_PUBLISHED = MacenkoTarget(
    np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]]), np.array([1.9705, 1.0308])
)
# Light that empty glass lets through, in grey levels; the published concentrations go with it.
_LIGHT = 240.0
# Optical density (natural logarithm) that a stained pixel has in each channel, and the percentile of
# angles that stands for the extreme one: β and α of the paper.
_LEAST_DENSITY = 0.15
_EXTREME = 1.0
# One per cent of fewer pixels is not a pixel.
_LEAST_PIXELS = 100
# Stain vectors nearer to each other, in radians (3 degrees), cannot be told apart; H and E are 0.39 apart.
_LEAST_ANGLE = 0.05

_DENSITY = np.log(_LIGHT / (np.arange(256) + 1.0)).astype(np.float32)


def macenko(image: np.ndarray, target: MacenkoTarget) -> tuple[np.ndarray, str]:
    """Give an image the target's two stains, and as much of each as the target has.

    Macenko et al., A method for normalizing histology slides for quantitative analysis, ISBI 2009, section 2.
    Optical densities OD = ln(240 / (v + 1)); of the stained pixels' densities the plane of the two largest singular
    vectors; in it the 1st and 99th percentiles of the angle are the stains; concentrations by least
    squares, scaled so that their 99th percentiles equal the target's.

    Two departures, for smears. That percentile is over the stained pixels, not over all: most of a smear is
    empty glass. Stains are paired with the target's by their colour; to call the one that takes more red
    haematoxylin, as usual, mixes up the stains of May-Grünwald-Giemsa, which take about as much of it.

    Parameters
    ----------
    image
        uint8 [height, width, 3], RGB.
    target
        From `macenko_target`.

    Returns
    -------
    image
        uint8 [height, width, 3]. The input itself where it is flagged.
    flag
        "no stained pixels", "a single stain", or "".
    """
    source = _stains_of(image)
    if isinstance(source, str):
        return image, source
    source = _paired(source, target)
    scale = np.diag(target.concentrations / source.concentrations)
    # Density → concentrations → scaled → density under the target's stains is one linear map.
    change = target.stains @ scale @ np.linalg.pinv(source.stains)
    logs = cv2.transform(_density(image), -change)
    return _to_levels(_LIGHT * cv2.exp(np.minimum(logs, _LARGEST_LOG)) - 1), ""


@functools.cache
def macenko_target(path: str | None) -> MacenkoTarget:
    """Return the stains of a target image, or the published ones for None.

    Raises
    ------
    UserError
        The file cannot be read, or does not show two stains.
    """
    if path is None:
        return _MACENKO_PUBLISHED
    target = _stains_of(_read_target(path))
    if isinstance(target, str):
        raise UserError(f"colour target {path}: {target}; name an image of a stained smear")
    return target


def _stains_of(image: np.ndarray) -> MacenkoTarget | str:
    """Return the two stains of an image, or why they cannot be found."""
    density = _density(image).reshape(-1, 3)
    stained = density[(density >= _LEAST_DENSITY).all(axis=1)]
    if len(stained) < _LEAST_PIXELS:
        return "no stained pixels"
    # OpenCV for all sums: in one order, whatever number of threads a BLAS would take.
    vectors = np.linalg.eigh(np.asarray(cv2.mulTransposed(stained, True, dtype=cv2.CV_64F))).eigenvectors
    first, second = vectors[:, 2], vectors[:, 1]
    first = first * np.sign(first.sum())  # densities are positive, and so is their main direction
    along, aside = _mapped(stained, np.stack([first, second]))
    angles = np.arctan2(aside, along)
    low, high = np.percentile(angles, [_EXTREME, 100 - _EXTREME])
    if high - low < _LEAST_ANGLE:
        return "a single stain"
    pair = [np.cos(angle) * first + np.sin(angle) * second for angle in (low, high)]
    # In one order, whichever sign the second vector came with.
    stains = np.column_stack(pair if pair[0][0] > pair[1][0] else pair[::-1])
    most = np.percentile(_mapped(stained, np.linalg.pinv(stains)), 100 - _EXTREME, axis=1)
    if most.min() <= 0:
        return "a single stain"
    return MacenkoTarget(stains, most)


def _paired(source: MacenkoTarget, target: MacenkoTarget) -> MacenkoTarget:
    """Return the source with its stains in the order in which they are most like the target's (sum of cosines)."""
    likeness = source.stains.T @ target.stains
    if np.trace(likeness) >= np.trace(likeness[::-1]):
        return source
    return MacenkoTarget(source.stains[:, ::-1], source.concentrations[::-1])


def _mapped(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return ``matrix @ vector`` of each row of float32 [n, 3] as float32 [len(matrix), n]."""
    return np.asarray(cv2.transform(vectors[:, None], matrix))[:, 0].T


def _density(image: np.ndarray) -> np.ndarray:
    return cv2.LUT(image, _DENSITY)


# ---------------------------------------------------------------- shared


def _read_target(path: str) -> np.ndarray:
    try:
        return decode(Path(path).read_bytes()).pixels
    except OSError as error:
        raise UserError(
            f"colour target {path} cannot be read: {error.strerror}; correct `target:`"
        ) from error
    except Unreadable as error:
        raise UserError(f"colour target {path} is no readable image: {error}; correct `target:`") from error


def _to_levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _scaled(image: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """Bring an image to its final scale: its longer side to ``size`` for pad, else both sides."""
    height, width = image.shape[:2]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if fit != "pad":
        return _resized(image, size, size)
    longer = max(height, width)
    return _resized(image, max(1, round(height * size / longer)), max(1, round(width * size / longer)))


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrink by INTER_AREA, which does not alias, and enlarge by INTER_LINEAR, which does not overshoot.

    An image may need one along its height and the other along its width; OpenCV would take one for both.
    """
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    for (rows, columns), method in ((smaller, cv2.INTER_AREA), ((height, width), cv2.INTER_LINEAR)):
        if image.shape[:2] != (rows, columns):
            image = cv2.resize(image, (columns, rows), interpolation=method)
    return image


def _padded(image: np.ndarray, size: int) -> np.ndarray:
    """Make an image square by repeating its edge pixels to both sides."""
    down, across = size - image.shape[0], size - image.shape[1]
    if not down and not across:
        return image
    return cv2.copyMakeBorder(
        image, down // 2, down - down // 2, across // 2, across - across // 2, cv2.BORDER_REPLICATE
    )
