"""The painter against geometry and optics: areas, absorbance, the camera's numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marrowflow.demo import smear
from marrowflow.demo.hospitals import CLASSES, HOSPITALS, KINDS

CLEAN = replace(
    HOSPITALS["alpha"], vignette=0.0, noise=0.0, impulses=0.0, light_spread=0.0, light=(250, 240, 230)
)


def _grid(side: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(-side, side, step, dtype=np.float32)
    return tuple(np.meshgrid(axis, axis))


@settings(max_examples=30, deadline=None)
@given(radius=st.floats(3, 9), seed=st.integers(0, 999))
def test_a_stretched_disc_keeps_the_area_of_the_disc(radius, seed):
    dx, dy = _grid(12, 0.1)
    shape = smear._blob(dx, dy, radius, np.random.default_rng(seed), roughness=0.0, stretch=0.2)
    assert smear._coverage(shape).sum() * 0.01 == pytest.approx(np.pi * radius**2, rel=0.03)


def test_an_arc_that_closes_is_a_ring():
    dx, dy = _grid(8, 0.05)
    ring = smear._arc(dx, dy, 4.0, 1.0, 0.0, 2 * np.pi)
    assert (ring > 0).sum() * 0.0025 == pytest.approx(np.pi * (5**2 - 3**2), rel=0.01)


def test_clear_glass_is_the_lamp_and_two_layers_absorb_what_their_product_lets_through():
    density = np.zeros((CLEAN.height, CLEAN.width, 3), np.float32)
    density[:, :80] = 0.3
    density[:, :40] += 0.5
    picture = smear._photograph(density, CLEAN, np.random.default_rng(0)).astype(float)
    assert picture[:, -20:].mean((0, 1)) == pytest.approx(CLEAN.light, abs=0.5)
    # Beer and Lambert: transmittances multiply.
    assert picture[:, 5:20].mean((0, 1)) == pytest.approx(np.array(CLEAN.light) * np.exp(-0.8), abs=0.6)


def test_the_share_of_stuck_samples_is_the_cameras():
    hospital = replace(CLEAN, impulses=0.05)
    density = np.full((hospital.height, hospital.width, 3), 0.7, np.float32)
    picture = smear._photograph(density, hospital, np.random.default_rng(1))
    # 144,000 samples: the binomial standard deviation of the share is .0006.
    assert np.isin(picture, (0, 255)).mean() == pytest.approx(0.05, abs=0.003)
    assert (picture == 255).sum() == pytest.approx((picture == 0).sum(), rel=0.1)


@pytest.mark.parametrize("label", CLASSES)
def test_a_patients_mixture_is_a_distribution_with_a_burden_in_its_range(label):
    for seed in range(40):
        patient = smear.draw_patient(label, np.random.default_rng(seed))
        assert sum(patient.mixture.values()) == pytest.approx(1)
        low, high = smear.DIAGNOSES[label].burden
        assert low <= patient.burden <= high


def test_a_field_is_a_function_of_its_seed():
    patient = smear.draw_patient("AML", np.random.default_rng(3))
    hospital = HOSPITALS["gamma"]
    first, second, other = (smear.paint_field(hospital, patient, np.random.default_rng(s)) for s in (5, 5, 6))
    assert first.dtype == np.uint8
    assert first.shape == (hospital.height, hospital.width, 3)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_every_kind_of_cell_is_darker_where_its_nucleus_lies():
    for kind, cell in KINDS.items():
        field = smear._Field(CLEAN, 1.0)
        middle = CLEAN.width / CLEAN.resolution / 2, CLEAN.height / CLEAN.resolution / 2
        smear._paint_nucleated(field, *middle, cell.diameter / 2, cell, np.random.default_rng(2))
        green = field.density[..., 1]
        stained = (green > 0.05).sum() / CLEAN.resolution**2
        assert stained == pytest.approx(np.pi * (cell.diameter / 2) ** 2, rel=0.25), kind
        nucleus = (field.density[..., 0] > 0.6).sum() / CLEAN.resolution**2
        assert 0.12 * stained < nucleus < 0.95 * stained, kind


def test_a_cell_at_the_edge_is_cut_and_outside_paints_nothing():
    field = smear._Field(CLEAN, 1.0)
    smear._paint_red_cell(field, -50.0, 10.0, 3.8, 0.5, np.random.default_rng(0))
    assert not field.density.any()
    smear._paint_red_cell(field, 0.0, 20.0, 3.8, 0.0, np.random.default_rng(0))
    half = (field.density[..., 1] > 0.15).sum() / CLEAN.resolution**2
    assert half == pytest.approx(np.pi * 3.8**2 / 2, rel=0.15)
