import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from adit_model.quality.crystals import (
    composition,
    composition_fault,
    geometry,
    min_distance,
    reduced_composition,
    structural_fault,
)
from adit_model.systems import AtomicSystem


def crystal(spacegroup, lattice, species, coords):
    structure = Structure.from_spacegroup(spacegroup, lattice, species, coords)
    return AtomicSystem.from_structure(structure.get_primitive_structure())


@pytest.fixture(scope="module")
def nacl():
    return crystal("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="module")
def cscl_type_nacl():
    return crystal("Pm-3m", Lattice.cubic(3.4), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.fixture(scope="module")
def perovskite():
    return crystal(
        "Pm-3m",
        Lattice.cubic(3.905),
        ["Sr", "Ti", "O"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]],
    )


UNIMODULAR = st.sampled_from(
    [
        np.array([[1, 3, 0], [0, 1, 0], [0, 0, 1]]),
        np.array([[1, 0, 0], [-2, 1, 5], [0, 0, 1]]),
        np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
        np.array([[2, 1, 0], [1, 1, 0], [7, -4, 1]]),
    ]
)


def disguised(system, seed, transform):
    """The same crystal in another cell, orientation, atom order and choice of images."""
    rng = np.random.default_rng(seed)
    cell = transform @ system.cell
    frac = np.linalg.solve(cell.T, system.positions.T).T
    frac = frac + rng.uniform(size=3) + rng.integers(-2, 3, size=frac.shape)
    rotation = Rotation.random(random_state=seed).as_matrix()
    order = rng.permutation(len(system))
    return AtomicSystem(system.numbers[order], (frac @ cell @ rotation)[order], cell @ rotation)


def test_rock_salt_is_valid(nacl):
    assert geometry(nacl)["structural"] and composition(nacl)["compositional"]
    assert geometry(nacl)["reason"] is composition(nacl)["reason"] is None
    assert min_distance(nacl) == pytest.approx(2.82)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), transform=UNIMODULAR)
def test_checks_do_not_depend_on_cell_orientation_order_or_images(seed, transform):
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) + 3 * np.eye(3)
    system = AtomicSystem(rng.integers(1, 60, 3), rng.uniform(size=(3, 3)) @ cell, cell)
    other = disguised(system, seed, transform)
    assert min_distance(other) == pytest.approx(min_distance(system), abs=1e-8)
    assert geometry(other)["structural"] == geometry(system)["structural"]
    assert composition(other) == composition(system)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_min_distance_is_that_of_an_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    cell = 2 * np.eye(3) + rng.normal(scale=0.4, size=(3, 3))
    positions = rng.uniform(size=(4, 3)) @ cell
    images = np.stack(np.meshgrid(*[range(-4, 5)] * 3), axis=-1).reshape(-1, 3) @ cell
    vectors = positions[:, None, None] + images - positions[None, :, None]
    distances = np.linalg.norm(vectors, axis=-1)
    expected = distances[distances > 1e-9].min()
    found = min_distance(AtomicSystem(np.full(4, 6), positions, cell))
    assert found == pytest.approx(expected, abs=1e-9)


def test_close_atoms_fail():
    cell = 5 * np.eye(3)
    close = AtomicSystem(np.array([11, 17]), [[0, 0, 0], [0.3, 0, 0]], cell)
    assert not geometry(close)["structural"] and composition(close)["compositional"]
    assert "0.3 angstrom apart" in geometry(close)["reason"]
    across = AtomicSystem(np.array([11, 17]), [[0.1, 0, 0], [4.8, 0, 0]], cell)
    assert "0.3 angstrom apart" in structural_fault(across)
    apart = AtomicSystem(np.array([11, 17]), [[0, 0, 0], [0.51, 0, 0]], cell)
    assert structural_fault(apart) is None


def test_an_atom_too_close_to_its_own_image_fails():
    system = AtomicSystem(np.array([6]), np.zeros((1, 3)), np.diag([0.4, 8.0, 8.0]))
    assert "0.4 angstrom apart" in structural_fault(system)


def test_a_cell_without_room_fails():
    flat = AtomicSystem(np.array([6]), np.zeros((1, 3)), [[3, 0, 0], [0, 3, 0], [1.5, 1.5, 0.01]])
    assert "0.09 cubic angstrom per atom" in structural_fault(flat)


def test_molecules_are_refused():
    molecule = AtomicSystem(np.array([8]), np.zeros((1, 3)))
    for function in (geometry, min_distance, structural_fault):
        with pytest.raises(ValueError, match="molecule"):
            function(molecule)


@pytest.mark.parametrize(
    ("composition", "valid"),
    [
        ({11: 1, 17: 1}, True),  # NaCl
        ({11: 1, 17: 2}, False),  # NaCl2
        ({38: 1, 22: 1, 8: 3}, True),  # SrTiO3
        ({26: 2, 8: 3}, True),  # Fe2O3
        ({26: 3, 8: 4}, False),  # Fe3O4 needs two oxidation states of iron
        ({29: 1, 30: 1}, True),  # CuZn, alloy
        ({26: 1}, True),  # an element
        ({2: 1, 10: 1}, False),  # HeNe
        ({104: 1, 8: 2}, False),  # RfO2: no data
        ({3: 1, 11: 1, 19: 1, 37: 1, 9: 1, 17: 1, 35: 1, 53: 1}, False),  # eight elements
    ],
)
def test_compositions(composition, valid):
    fault = composition_fault(tuple(sorted(composition.items())))
    assert (fault is None) == valid


def test_the_reason_names_the_formula():
    assert "NaCl2" in composition_fault(((11, 1), (17, 2)))
    many = tuple((z, 1) for z in range(3, 11))
    assert "8 elements (at most 7)" in composition_fault(many)


def test_compositions_are_reduced(perovskite, nacl):
    doubled = AtomicSystem.from_structure(perovskite.to_structure().make_supercell([2, 1, 1]))
    assert reduced_composition(doubled.numbers) == ((8, 3), (22, 1), (38, 1))
    assert reduced_composition(nacl.numbers) == ((11, 1), (17, 1))


@pytest.mark.data
def test_real_crystals_pass_smact_as_often_as_known(data_dir):
    from pymatgen.core import Composition

    from adit_model.data.crystal_csv import load_crystal_table

    formulas = load_crystal_table(data_dir / "crystals_test.csv.gz")["formula"]
    passed = []
    for formula in formulas:
        composition = Composition(formula.replace(" ", "")).reduced_composition
        counts = sorted((element.Z, int(n)) for element, n in composition.items())
        passed.append(composition_fault(tuple(counts)) is None)
    assert np.mean(passed) == pytest.approx(0.9153, abs=0.003)
