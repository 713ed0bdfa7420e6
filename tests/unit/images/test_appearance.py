"""Mean and deviation of an image's colour against CIE's formulas in double precision, and published colours."""

import numpy as np
import pytest

from marrowflow.images.appearance import APPEARANCE_COLUMNS, appearance, appearance_table


def cielab(levels):
    """L*a*b* of sRGB levels [..., 3]: IEC 61966-2-1, its matrix by primaries and white, CIE 15."""
    v = np.asarray(levels, np.float64) / 255
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    xy = np.array([[0.64, 0.33], [0.30, 0.60], [0.15, 0.06], [0.3127, 0.3290]])
    xyz = np.column_stack([xy[:, 0], xy[:, 1], 1 - xy.sum(axis=1)]) / xy[:, 1:]
    primaries, white = xyz[:3].T, xyz[3]
    matrix = primaries * np.linalg.solve(primaries, white)
    t = light @ (matrix / white[:, None]).T
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1
    )


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((255, 255, 255), (100, 0, 0)),
    ],
)
def test_published_colours(level, expected):
    """sRGB's red, blue and white under D65, as colour tables print them (two decimals)."""
    found = appearance(np.full((4, 5, 3), level, np.uint8))
    np.testing.assert_allclose(found[:3], expected, atol=0.06)
    np.testing.assert_allclose(found[3:], 0, atol=1e-4)


@pytest.mark.parametrize("low", [0, 90])
def test_pixels_by_the_formulas(low):
    pixels = np.random.default_rng(low).integers(low, 256, (24, 40, 3), dtype=np.uint8)
    lab = cielab(pixels).reshape(-1, 3)
    np.testing.assert_allclose(appearance(pixels), [*lab.mean(axis=0), *lab.std(axis=0)], atol=0.05)


def test_dark_levels_are_on_the_straight_part_of_the_curve():
    pixels = np.repeat(np.arange(12, dtype=np.uint8)[:, None, None], 3, axis=2)
    np.testing.assert_allclose(appearance(pixels)[0], cielab(pixels)[..., 0].mean(), atol=0.01)


def test_the_tables_columns():
    table = appearance_table(["b", "a"], np.arange(12.0).reshape(2, 6))
    assert list(table) == ["case_id", *APPEARANCE_COLUMNS]
    assert table.iloc[1].tolist() == ["a", 6, 7, 8, 9, 10, 11]
    assert (table.dtypes[1:] == np.float64).all()
