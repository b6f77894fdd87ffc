"""Cells, canonical poses and random rotations."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from ase.collections import g2
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from adit_model.geometry import (
    canonical_crystal,
    canonical_molecule,
    cell_to_parameters,
    parameters_to_cell,
    random_rotation,
    unphysical_cell,
    wrap_frac,
)

seeds = st.integers(0, 2**32 - 1)


def distances(positions: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions[:, None] - positions[None], axis=-1)


def signed_volumes(positions: np.ndarray) -> np.ndarray:
    """Signed volumes spanned by each atom triple with the first atom."""
    d = positions - positions[0]
    return np.einsum("ix,jky->ijkxy", d, np.cross(d[:, None], d[None])).trace(axis1=-2, axis2=-1)


@st.composite
def clouds(draw: st.DrawFn) -> np.ndarray:
    n = draw(st.integers(1, 9))
    elements = st.floats(-10, 10, allow_nan=False, width=32)
    return draw(arrays(np.float64, (n, 3), elements=elements))


def turned(positions: np.ndarray, rng: np.random.Generator, shift: float = 20.0) -> np.ndarray:
    return positions @ random_rotation(rng).T + rng.normal(scale=shift, size=3)


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


def test_wrapping():
    wrapped = wrap_frac(np.array([-0.25, 0.0, 0.99999, 1.0, 1.25, -1e-12, 1 - 1e-12, -3.0]))
    np.testing.assert_array_equal(wrapped[[1, 3, 5, 6, 7]], 0.0)
    np.testing.assert_allclose(wrapped[[0, 2, 4]], [0.75, 0.99999, 0.25], atol=1e-15)


# molecules


@settings(max_examples=150, deadline=None)
@given(clouds(), seeds)
def test_canonical_molecule_keeps_distances_and_chirality(positions, seed):
    for given_positions in (positions, turned(positions, np.random.default_rng(seed))):
        pose = canonical_molecule(given_positions)
        np.testing.assert_allclose(distances(pose), distances(given_positions), atol=1e-8)
        np.testing.assert_allclose(signed_volumes(pose), signed_volumes(given_positions), atol=1e-6)
        np.testing.assert_allclose(pose.mean(axis=0), 0, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), seeds)
def test_canonical_molecule_does_not_depend_on_the_input_pose(n, seed):
    rng = np.random.default_rng(seed)
    positions = rng.normal(scale=2.0, size=(n, 3))
    pose = canonical_molecule(positions)
    np.testing.assert_allclose(canonical_molecule(turned(positions, rng)), pose, atol=1e-8)
    np.testing.assert_allclose(canonical_molecule(pose), pose, atol=1e-8)


def test_canonical_molecule_axes_are_ordered_and_skewed_to_the_positive_side():
    pose = canonical_molecule(np.random.default_rng(0).normal(size=(10, 3)))
    gram = pose.T @ pose
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9)
    assert gram[0, 0] > gram[1, 1] > gram[2, 2]
    assert (np.sum(pose[:, :2] ** 3, axis=0) > 0).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_symmetric_molecules_have_one_pose(dtype):
    """All of G2, which holds linear, planar and highly symmetric molecules, in any orientation."""
    rng = np.random.default_rng(3)
    tolerance = 1e-8 if dtype is np.float64 else 2e-4
    for name in g2.names:
        positions = ase_molecule(name).positions
        pose = canonical_molecule(positions)
        for _ in range(4):
            again = canonical_molecule(turned(positions, rng, shift=3.0).astype(dtype))
            assert np.abs(again - pose).max() < tolerance, name


def test_mirror_images_stay_different():
    left = np.array([[0, 0, 0], [1.1, 0, 0], [0, 1.3, 0], [0, 0, 1.7], [-0.4, -0.5, -0.6]])
    right = left * [-1, 1, 1]
    np.testing.assert_allclose(signed_volumes(left), -signed_volumes(right), atol=1e-12)
    assert np.abs(canonical_molecule(left) - canonical_molecule(right)).max() > 0.1


@pytest.mark.parametrize(
    "positions",
    [
        [[3.0, 4, 5]],
        [[0, 0, 0], [0, 0, 1.1]],
        [[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]],
        [[1.0, 1, 1], [1, 1, 1]],
        [[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]],
        [[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]],
        [[1.0, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]],
    ],
    ids=["atom", "diatomic", "linear", "coincident", "square", "octahedron", "tetrahedron"],
)
def test_degenerate_molecules(positions):
    positions = np.array(positions)
    rng = np.random.default_rng(1)
    pose = canonical_molecule(positions)
    np.testing.assert_allclose(distances(pose), distances(positions), atol=1e-12)
    for _ in range(10):
        np.testing.assert_allclose(canonical_molecule(turned(positions, rng)), pose, atol=1e-7)


# crystals


@st.composite
def crystals(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(seeds))
    cell = parameters_to_cell(rng.uniform(3, 12, 3), np.radians(rng.uniform(65, 110, 3)))
    cell = cell @ random_rotation(rng).T
    if draw(st.booleans()):
        cell = cell[[1, 0, 2]]
    frac = rng.uniform(-2, 2, size=(draw(st.integers(1, 8)), 3))
    return frac @ cell, cell


def periodic_distances(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    return Lattice(cell).get_all_distances(
        positions @ np.linalg.inv(cell), positions @ np.linalg.inv(cell)
    )


@settings(max_examples=60, deadline=None)
@given(crystals(), seeds)
def test_canonical_crystal_is_the_same_crystal_in_one_pose(crystal, seed):
    positions, cell = crystal
    pose, new_cell = canonical_crystal(positions, cell)
    assert np.linalg.det(new_cell) == pytest.approx(abs(np.linalg.det(cell)))
    assert (np.diag(new_cell) > 0).all()
    np.testing.assert_array_equal(new_cell[np.triu_indices(3, 1)], 0)
    for new, old in zip(cell_to_parameters(new_cell), cell_to_parameters(cell), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-8)
    np.testing.assert_allclose(
        periodic_distances(pose, new_cell), periodic_distances(positions, cell), atol=1e-8
    )
    frac = pose @ np.linalg.inv(new_cell)
    assert frac.min() >= -0.015 - 1e-9
    assert frac.max() < 0.985 + 1e-9

    again, again_cell = canonical_crystal(pose, new_cell)
    np.testing.assert_allclose(again, pose, atol=1e-9)
    np.testing.assert_allclose(again_cell, new_cell, atol=1e-9)

    rng = np.random.default_rng(seed)
    rotation = random_rotation(rng)
    images = rng.integers(-2, 3, size=(len(positions), 3)) @ cell
    turned_pose, turned_cell = canonical_crystal(
        (positions + images) @ rotation.T, cell @ rotation.T
    )
    np.testing.assert_allclose(turned_pose, pose, atol=1e-7)
    np.testing.assert_allclose(turned_cell, new_cell, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(crystals())
def test_canonical_crystal_is_a_proper_rotation(crystal):
    """Up to lattice translations, so a left-handed cell does not turn the crystal to its mirror."""
    positions, cell = crystal
    pose, new_cell = canonical_crystal(positions, cell)
    rotation = np.linalg.inv(np.sign(np.linalg.det(cell)) * cell) @ new_cell
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    images = (pose - positions @ rotation) @ np.linalg.inv(new_cell)
    np.testing.assert_allclose(images, np.round(images), atol=1e-8)


def test_canonical_crystal_matches_for_pymatgen_and_tells_enantiomers_apart():
    quartz = Structure.from_spacegroup(
        "P3_121",
        Lattice.hexagonal(4.916, 5.405),
        ["Si", "O"],
        [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.2144]],
    )
    cell, numbers = quartz.lattice.matrix, list(quartz.atomic_numbers)
    for given_cell in (cell, cell[[1, 0, 2]], -cell, np.diag([1, -1, 1]) @ cell):
        pose, new_cell = canonical_crystal(quartz.cart_coords, given_cell)
        result = Structure(new_cell, numbers, pose, coords_are_cartesian=True)
        assert StructureMatcher().fit(quartz, result)
        assert space_group(result) == "P3_121"
    mirror = np.diag([-1, 1, 1])
    pose, new_cell = canonical_crystal(quartz.cart_coords @ mirror, cell @ mirror)
    assert space_group(Structure(new_cell, numbers, pose, coords_are_cartesian=True)) == "P3_221"


def space_group(structure: Structure) -> str:
    return SpacegroupAnalyzer(structure).get_space_group_symbol()


def test_sites_on_a_face_keep_their_noise_on_one_side():
    cell = 4.0 * np.eye(3)
    frac = np.array([[0, 0, 0], [1e-5, -1e-5, 0.99999], [0.5, -0.004, 1.004]])
    pose, _ = canonical_crystal(frac @ cell, cell)
    np.testing.assert_allclose(
        pose / 4.0, [[0, 0, 0], [1e-5, -1e-5, -1e-5], [0.5, -0.004, 0.004]], atol=1e-12
    )


def test_float32_crystals_keep_their_pose():
    rng = np.random.default_rng(0)
    lattice = Lattice.hexagonal(3.2, 5.2)
    frac = np.array([[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75], [0, 0, 0], [0, 0, 0.5]])
    pose, cell = canonical_crystal(frac @ lattice.matrix, lattice.matrix)
    for _ in range(20):
        rotation = random_rotation(rng)
        again, again_cell = canonical_crystal(
            (frac @ lattice.matrix @ rotation.T).astype(np.float32),
            (lattice.matrix @ rotation.T).astype(np.float32),
        )
        np.testing.assert_allclose(again, pose, atol=1e-5)
        np.testing.assert_allclose(again_cell, cell, atol=1e-5)


def test_skewed_primitive_cells_are_accepted():
    cell = Lattice.from_parameters(8, 9, 300, 4, 3, 5).matrix
    _, new_cell = canonical_crystal(np.ones((1, 3)), cell)
    np.testing.assert_allclose(Lattice(new_cell).parameters, (8, 9, 300, 4, 3, 5), rtol=1e-6)


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
