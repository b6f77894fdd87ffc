"""The canonical form: the same structure, however it is described, gives the same arrays."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.build import molecule as ase_molecule
from ase.collections import g2
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Lattice, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from adit_model import ADiT
from adit_model.canonical import canonicalise
from adit_model.data.cif import read_cif
from adit_model.data.qm9 import load_qm9
from adit_model.geometry import WRAP_CUT, parameters_to_cell, random_rotation
from adit_model.systems import AtomicSystem

seeds = st.integers(0, 2**32 - 1)


def shuffled(system: AtomicSystem, rng: np.random.Generator) -> AtomicSystem:
    """The same structure in another order, orientation and (molecules) place."""
    order, rotation = rng.permutation(len(system)), random_rotation(rng)
    shift = 0 if system.is_periodic else rng.normal(scale=9, size=3)
    cell = None if system.cell is None else system.cell @ rotation
    return AtomicSystem(
        system.numbers[order], (system.positions @ rotation)[order] + shift, cell, system.info
    )


def described_anew(system: AtomicSystem, rng: np.random.Generator) -> AtomicSystem:
    """The same crystal in another cell (several times as large, or left-handed) and order."""
    assert system.cell is not None
    times = rng.integers(1, 3, size=3)
    images = np.array(list(np.ndindex(*times))) @ system.cell
    positions = (system.positions[:, None] + images).reshape(-1, 3)
    change = np.diag(times)
    for _ in range(5):
        i, j = rng.permutation(3)[:2]
        change[i] += rng.integers(-2, 3) * change[j]
    change[0] *= rng.choice([-1, 1])
    larger = AtomicSystem(np.repeat(system.numbers, len(images)), positions, change @ system.cell)
    frac = larger.frac_coords
    positions = (frac - np.floor(frac)) @ larger.cell
    return shuffled(AtomicSystem(larger.numbers, positions, larger.cell), rng)


def assert_same(one: AtomicSystem, other: AtomicSystem, atol: float = 1e-8) -> None:
    np.testing.assert_array_equal(one.numbers, other.numbers)
    np.testing.assert_allclose(one.positions, other.positions, atol=atol)
    if one.cell is not None:
        np.testing.assert_allclose(one.cell, other.cell, atol=atol)


def signed_volumes(positions: np.ndarray) -> np.ndarray:
    d = positions - positions[0]
    return np.einsum("ix,jky->ijkxy", d, np.cross(d[:, None], d[None])).trace(axis1=-2, axis2=-1)


def from_structure(structure: Structure) -> AtomicSystem:
    return AtomicSystem.from_structure(structure)


# molecules


@st.composite
def molecules(draw: st.DrawFn) -> AtomicSystem:
    rng = np.random.default_rng(draw(seeds))
    n = draw(st.integers(1, 12))
    numbers = rng.choice([1, 1, 6, 7, 8], size=n)
    return AtomicSystem(numbers, rng.normal(scale=1.5, size=(n, 3)), None, {"id": "x"})


@settings(max_examples=100, deadline=None)
@given(molecules(), seeds)
def test_molecules_do_not_depend_on_order_and_orientation(molecule, seed):
    other = shuffled(molecule, np.random.default_rng(seed))
    one, two = canonicalise(molecule), canonicalise(other)
    assert_same(one.system, two.system)
    assert two.system.info == {"id": "x"}
    np.testing.assert_allclose(one.system.positions.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(
        signed_volumes(two.system.positions), signed_volumes(other.positions[two.order]), atol=1e-7
    )
    assert_same(two.restore(two.system), other)
    again = canonicalise(two.system)
    np.testing.assert_array_equal(again.order, np.arange(len(other)))
    assert_same(again.system, two.system)


def test_symmetric_molecules_have_one_form():
    """All of G2: CH4, C6H6, H2O, CO2, N2 and others, linear, planar and highly symmetric."""
    rng = np.random.default_rng(3)
    for name in g2.names:
        molecule = AtomicSystem.from_atoms(ase_molecule(name))
        form = canonicalise(molecule).system
        for _ in range(4):
            assert_same(canonicalise(shuffled(molecule, rng)).system, form, atol=1e-5)


@pytest.mark.parametrize(
    ("numbers", "positions"),
    [
        ([1], [[3.0, 4, 5]]),
        ([6, 6], [[1.0, 1, 1], [1, 1, 1]]),
        ([6, 8, 8], [[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]]),
        ([5, 5, 5, 5], [[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]),
        ([16] + [9] * 6, [[0, 0, 0], *(1.56 * np.concatenate([np.eye(3), -np.eye(3)]))]),
        ([6] * 8, np.array(list(np.ndindex(2, 2, 2))) * 1.57),
        ([6, 6, 6, 6], [[1.0, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]),
    ],
    ids=["atom", "coincident", "CO2", "square", "SF6", "cube", "tetrahedron"],
)
def test_degenerate_molecules(numbers, positions):
    molecule = AtomicSystem(np.array(numbers), np.array(positions, dtype=float))
    rng = np.random.default_rng(1)
    form = canonicalise(molecule).system
    for _ in range(10):
        assert_same(canonicalise(shuffled(molecule, rng)).system, form, atol=1e-7)


def test_axes_are_ordered_and_skewed_to_the_positive_side():
    positions = np.random.default_rng(0).normal(size=(10, 3))
    pose = canonicalise(AtomicSystem(np.full(10, 6), positions)).system.positions
    gram = pose.T @ pose
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9)
    assert gram[0, 0] > gram[1, 1] > gram[2, 2]
    assert (np.sum(pose[:, :2] ** 3, axis=0) > 0).all()


def test_mirror_images_of_a_molecule_stay_different():
    numbers = np.array([6, 1, 9, 17, 35])
    left = np.array([[0, 0, 0], [1.1, 0, 0], [0, 1.3, 0], [0, 0, 1.7], [-1, -1.1, -1.2]])
    one, two = (canonicalise(AtomicSystem(numbers, x)).system for x in (left, left * [-1, 1, 1]))
    np.testing.assert_array_equal(one.numbers, two.numbers)
    assert np.abs(one.positions - two.positions).max() > 0.1


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("CH3CH2OH", "CCOHHHHHH"),
        ("CH3COOH", "COOCHHHH"),
        ("C5H5N", "CCNCCCHHHHH"),
        ("trans-butane", "CCCCHHHHHHHHHH"),
    ],
)
def test_molecules_are_walked_along_their_bonds(name, symbols):
    molecule = canonicalise(AtomicSystem.from_atoms(ase_molecule(name))).system
    found = molecule.to_atoms().get_chemical_symbols()
    assert sorted(found) == sorted(symbols)
    heavy = molecule.positions[molecule.numbers > 1]
    hydrogens = molecule.positions[molecule.numbers == 1]
    assert (molecule.numbers[: len(heavy)] > 1).all()
    parents = np.linalg.norm(hydrogens[:, None] - heavy, axis=-1).argmin(axis=1)
    assert (np.diff(parents) >= 0).all()
    distances = np.linalg.norm(heavy[:, None] - heavy, axis=-1)
    assert all(distances[i, :i].min() < 1.6 for i in range(1, len(heavy)))


# crystals


@st.composite
def crystals(draw: st.DrawFn) -> AtomicSystem:
    rng = np.random.default_rng(draw(seeds))
    cell = parameters_to_cell(rng.uniform(3, 9, 3), np.radians(rng.uniform(65, 110, 3)))
    kind = draw(st.sampled_from(["triclinic", "orthorhombic", "tetragonal", "cubic"]))
    if kind != "triclinic":
        a, b, c = rng.uniform(3, 9, 3)
        cell = np.diag({"orthorhombic": [a, b, c], "tetragonal": [a, a, c]}.get(kind, [a, a, a]))
    n = draw(st.integers(1, 6))
    frac = rng.uniform(-2, 2, size=(n, 3))
    numbers = np.concatenate([[3], rng.choice([8, 22, 56], size=n - 1)])
    return AtomicSystem(numbers, frac @ cell, cell)


@settings(max_examples=150, deadline=None)
@given(crystals(), seeds)
def test_crystals_do_not_depend_on_order_orientation_and_cell(crystal, seed):
    rng = np.random.default_rng(seed)
    one = canonicalise(crystal)
    for other in (shuffled(crystal, rng), described_anew(crystal, rng)):
        two = canonicalise(other)
        assert_same(one.system, two.system, atol=1e-7)
        restored = two.restore(two.system)
        assert_same(restored, other, atol=1e-7)
        assert np.linalg.det(two.rotation) == pytest.approx(1.0)
    cell = one.system.cell
    assert (np.diag(cell) > 0).all()
    np.testing.assert_array_equal(cell[np.triu_indices(3, 1)], 0)
    frac = one.system.frac_coords
    assert frac.min() >= -WRAP_CUT - 1e-9
    assert frac.max() < 1 - WRAP_CUT + 1e-9
    again = canonicalise(one.system)
    np.testing.assert_array_equal(again.order, np.arange(len(crystal)))
    np.testing.assert_array_equal(again.cell_transform, np.eye(3))
    assert_same(again.system, one.system)


SYMMETRIC = {
    "rock salt": (bulk("NaCl", "rocksalt", a=5.64, cubic=True), 2),
    "fcc": (bulk("Cu", cubic=True), 1),
    "bcc": (bulk("Fe", cubic=True), 1),
    "hcp": (bulk("Mg").repeat((2, 1, 3)), 2),
    "diamond": (bulk("Si", cubic=True), 2),
    "wurtzite": (bulk("ZnO", "wurtzite", a=3.25, c=5.2), 4),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_conventional_cells_become_primitive(name):
    atoms, size = SYMMETRIC[name]
    crystal = AtomicSystem.from_atoms(atoms)
    form = canonicalise(crystal).system
    assert len(form) == size
    assert form.volume / size == pytest.approx(crystal.volume / len(crystal))
    assert form.formula == crystal.formula
    rng = np.random.default_rng(2)
    for _ in range(5):
        assert_same(canonicalise(described_anew(crystal, rng)).system, form, atol=1e-7)


def test_a_perovskite_keeps_its_cell_and_is_written_as_its_formula():
    lattice = Lattice.cubic(3.905)
    frac = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0, 0], [0, 0.5, 0.5], [0.5, 0.5, 0.5]]
    structure = Structure(lattice, ["O", "O", "Sr", "O", "Ti"], frac)
    form = canonicalise(from_structure(structure)).system
    np.testing.assert_array_equal(form.numbers, [38, 22, 8, 8, 8])
    np.testing.assert_allclose(form.cell, 3.905 * np.eye(3), atol=1e-9)
    np.testing.assert_allclose(form.frac_coords[0], 0, atol=1e-9)  # the origin is kept
    x = [Element.from_Z(z).X for z in form.numbers]
    assert x == sorted(x)


def test_the_cell_is_that_of_pymatgen():
    rng = np.random.default_rng(4)
    for _ in range(40):
        cell = parameters_to_cell(rng.uniform(3, 9, 3), np.radians(rng.uniform(50, 120, 3)))
        expected = Lattice(cell).get_niggli_reduced_lattice().parameters
        form = canonicalise(AtomicSystem(np.array([6]), np.zeros((1, 3)), cell)).system
        np.testing.assert_allclose(Lattice(form.cell).parameters, expected, atol=1e-5)


def test_enantiomers_stay_different():
    quartz = Structure.from_spacegroup(
        "P3_121",
        Lattice.hexagonal(4.916, 5.405),
        ["Si", "O"],
        [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.2144]],
    )
    cell = quartz.lattice.matrix
    numbers = np.array(quartz.atomic_numbers)
    for given_cell in (cell, cell[[1, 0, 2]], -cell, np.diag([1, -1, 1]) @ cell):
        form = canonicalise(AtomicSystem(numbers, quartz.cart_coords, given_cell)).system
        assert StructureMatcher().fit(quartz, form.to_structure())
        assert space_group(form) == "P3_121"
    mirror = np.diag([-1, 1, 1])
    form = canonicalise(AtomicSystem(numbers, quartz.cart_coords @ mirror, cell @ mirror)).system
    assert space_group(form) == "P3_221"


def space_group(system: AtomicSystem) -> str:
    return SpacegroupAnalyzer(system.to_structure()).get_space_group_symbol()


def test_a_distorted_supercell_stays_one():
    atoms = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))
    atoms.positions[0, 0] += 0.05
    assert len(canonicalise(AtomicSystem.from_atoms(atoms)).system) == 4
    atoms.positions[0, 0] -= 0.048
    assert len(canonicalise(AtomicSystem.from_atoms(atoms)).system) == 2


def test_sites_on_a_face_keep_their_noise_on_one_side():
    cell = np.diag([4.0, 5, 6])
    frac = np.array([[0, 0, 0], [1e-5, -1e-5, 0.99999], [0.5, -0.004, 1.004]])
    form = canonicalise(AtomicSystem(np.array([3, 8, 9]), frac @ cell, cell)).system
    inside = (form.frac_coords > -WRAP_CUT) & (form.frac_coords < 1 - WRAP_CUT)
    assert inside.all()
    assert np.abs(form.frac_coords).max() < 0.6


def test_single_precision_crystals_keep_their_form():
    rng = np.random.default_rng(0)
    lattice = Lattice.hexagonal(3.2, 5.2)
    frac = np.array([[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75], [0, 0, 0], [0, 0, 0.5]])
    crystal = AtomicSystem(np.array([16, 16, 26, 26]), frac @ lattice.matrix, lattice.matrix)
    form = canonicalise(crystal).system
    for _ in range(20):
        turned = described_anew(crystal, rng)
        rounded = AtomicSystem(
            turned.numbers, turned.positions.astype(np.float32), turned.cell.astype(np.float32)
        )
        assert_same(canonicalise(rounded).system, form, atol=1e-5)


@pytest.mark.parametrize("length", [250.0, 1e4, 1e5])
def test_cells_too_long_for_a_crystal_are_refused_at_once(length):
    cell = np.diag([4.0, 5.0, length])
    with pytest.raises(ValueError, match="cell lengths"):
        canonicalise(AtomicSystem(np.array([6, 6]), np.array([[0.0, 0, 0], [1, 2, 3]]), cell))


def test_only_what_has_the_same_atoms_can_be_given_back():
    form = canonicalise(AtomicSystem.from_atoms(bulk("NaCl", "rocksalt", a=5.64, cubic=True)))
    with pytest.raises(ValueError, match="a crystal of 2 atoms in canonical order, got a crystal"):
        form.restore(AtomicSystem.from_atoms(bulk("Cu")))
    with pytest.raises(ValueError, match="got a molecule of 2"):
        form.restore(AtomicSystem(np.array([1, 1]), np.eye(3)[:2]))


# the model


def described_differently(system: AtomicSystem, seed: int) -> AtomicSystem:
    change = described_anew if system.is_periodic else shuffled
    return change(system, np.random.default_rng(seed))


@pytest.mark.data
@pytest.mark.skipif(find_spec("qm9pack") is None, reason="needs qm9pack")
def test_the_bundled_weights_see_structures_and_not_their_description(data_dir):
    """30 molecules of QM9 and 30 Materials Project crystals: encode, reconstruct, variations."""
    from adit_model.sampling.explore import variations

    model = ADiT.load("default", device="cpu")
    molecules = load_qm9("test", progress=False)
    table = pd.read_csv(data_dir / "crystals_test.csv.gz").iloc[::55]
    systems = [molecules[i] for i in range(0, len(molecules), 428)]
    systems += [read_cif(text) for text in table["cif"][:30]]
    others = [described_differently(system, seed) for seed, system in enumerate(systems)]
    latents, found = model.encode(systems), model.encode(others)
    forms, forms_of_others = ([canonicalise(s) for s in some] for some in (systems, others))
    copies = model.reconstruct([form.system for form in forms])
    copies_of_others = model.reconstruct(others)
    assert len(systems) == 60
    for i, (one, two) in enumerate(zip(forms, forms_of_others, strict=True)):
        np.testing.assert_allclose(found[i][two.order], latents[i][one.order], atol=1e-5)
        # a symmetric structure comes back up to its symmetry, so the other's form says where
        assert_same(copies_of_others[i], two.restore(copies[i]), atol=1e-5)
    for i in (0, 17, 30, 41):
        options = {"seed": 3, "num_steps": 6, "progress": False}
        (one,) = variations(model, systems[i], 1, strength=0.5, **options)
        (two,) = variations(model, others[i], 1, strength=0.5, **options)
        assert_same(one.system, two.system, atol=1e-5)
