"""Cells and random rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymatgen.core import Lattice

from adit_model.geometry import (
    cell_to_parameters,
    parameters_to_cell,
    random_rotation,
    unphysical_cell,
)

seeds = st.integers(0, 2**32 - 1)


# cells


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, 3, elements=st.floats(0.6, 150)),
    arrays(np.float64, 3, elements=st.floats(6, 174)),
)
def test_parameters_survive_the_round_trip_through_a_cell(lengths, degrees):
    angles = np.radians(degrees)
    if unphysical_cell(lengths, angles) is not None:
        with pytest.raises(ValueError, match="span no volume"):
            parameters_to_cell(lengths, angles)
        return
    cell = parameters_to_cell(lengths, angles)
    assert np.linalg.det(cell) > 0
    assert cell[0, 1] == cell[0, 2] == cell[1, 2] == 0
    back_lengths, back_angles = cell_to_parameters(cell)
    np.testing.assert_allclose(back_lengths, lengths, rtol=1e-9)
    np.testing.assert_allclose(back_angles, angles, atol=1e-6)
    reference = Lattice.from_parameters(*lengths, *degrees)
    assert np.linalg.det(cell) == pytest.approx(reference.volume, rel=1e-6)


def test_parameters_of_a_stack_of_cells_are_those_of_each():
    cells = np.stack([Lattice.hexagonal(3, 5).matrix, Lattice.monoclinic(3, 4, 5, 100).matrix])
    lengths, angles = cell_to_parameters(cells)
    np.testing.assert_allclose(lengths, [[3, 3, 5], [3, 4, 5]])
    np.testing.assert_allclose(np.degrees(angles), [[90, 90, 120], [90, 100, 90]])


@pytest.mark.parametrize(
    ("lengths", "degrees", "reason"),
    [
        ([0.4, 3, 3], [90, 90, 90], "lengths .*0.4.* leave 0.5..200"),
        ([3, 300, 3], [90, 90, 90], "lengths .*300"),
        ([-3, 3, 3], [90, 90, 90], "lengths .*-3"),
        ([3, 3, 3], [4, 90, 90], "angles .*4.0.* leave 5.0..175"),
        ([3, 3, 3], [90, 90, 178], "angles .*178"),
        ([3, 3, 3], [90, -60, 90], "angles .*-60"),
        ([3, 3, 3], [60, 60, 150], "span no volume"),
        ([3, 3, 3], [120, 120, 120], "span no volume"),
        ([np.nan, 3, 3], [90, 90, 90], "not finite"),
        ([3, 3, 3], [90, np.inf, 90], "not finite"),
    ],
)
def test_unphysical_cells_have_a_reason(lengths, degrees, reason):
    lengths, angles = np.array(lengths, dtype=float), np.radians(degrees)
    assert unphysical_cell(lengths, angles) is not None
    with pytest.raises(ValueError, match=reason):
        parameters_to_cell(lengths, angles)


def test_real_cells_are_physical():
    for lattice in (
        Lattice.cubic(3.2),
        Lattice.hexagonal(3, 12),
        Lattice.from_parameters(5.2, 5.2, 5.2, 134.05, 134.05, 67.0),
        Lattice.rhombohedral(20, 6.9),  # the most acute primitive cell met in the training data
    ):
        assert unphysical_cell(np.array(lattice.abc), np.radians(lattice.angles)) is None


def test_the_accepted_ranges_can_be_set():
    lengths, angles = np.array([3.0, 3, 3]), np.radians([90.0, 90, 90])
    assert "leave 4..5" in unphysical_cell(lengths, angles, length_range=(4, 5))
    assert "leave 10..80" in unphysical_cell(lengths, angles, angle_range=(10, 80))


def test_cell_parameters_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        unphysical_cell(np.ones(2), np.ones(3))


# rotations


def test_random_rotations_are_proper_and_uniform():
    rng = np.random.default_rng(0)
    rotations = np.stack([random_rotation(rng) for _ in range(4000)])
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1),
        np.broadcast_to(np.eye(3), (4000, 3, 3)),
        atol=1e-12,
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    # Haar measure: each entry is uniform in [-1, 1], with mean 0 and mean square 1/3.
    assert np.abs(rotations.mean(axis=0)).max() < 0.04
    assert np.abs((rotations**2).mean(axis=0) - 1 / 3).max() < 0.03
    quantiles = np.quantile(rotations, [0.1, 0.5, 0.9], axis=0)
    np.testing.assert_allclose(
        quantiles, np.array([-0.8, 0.0, 0.8])[:, None, None] * np.ones((3, 3)), atol=0.06
    )
    # The trace, 1 + 2 cos(angle), has the second moment 1 (uniform Euler angles would not).
    traces = np.trace(rotations, axis1=1, axis2=2)
    assert traces.mean() == pytest.approx(0.0, abs=0.06)
    assert (traces**2).mean() == pytest.approx(1.0, abs=0.08)


def test_random_rotation_is_fixed_by_its_generator():
    one, two = (random_rotation(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
