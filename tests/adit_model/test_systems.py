"""AtomicSystem: what it refuses, and round trips through pymatgen, ASE and RDKit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.spacegroup import crystal as ase_crystal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymatgen.core import DummySpecies, IMolecule, IStructure, Lattice, Molecule, Structure
from rdkit import Chem
from rdkit.Chem import AllChem

from adit_model.systems import AtomicSystem

coordinates = st.floats(-30, 30, allow_nan=False, width=64)


@st.composite
def systems(draw: st.DrawFn) -> AtomicSystem:
    n = draw(st.integers(1, 6))
    numbers = draw(arrays(np.int64, n, elements=st.integers(1, 103)))
    # Distinct integer sites plus a small offset: pymatgen refuses coincident atoms in some calls.
    positions = 2.0 * np.arange(n)[:, None] + draw(arrays(np.float64, (n, 3), elements=coordinates))
    if draw(st.booleans()):
        return AtomicSystem(numbers, positions, None, {"id": "m"})
    cell = np.diag([4.0, 5.0, 6.0]) + draw(
        arrays(np.float64, (3, 3), elements=st.floats(-1.2, 1.2, width=64))
    )
    if draw(st.booleans()):
        cell = cell[[1, 0, 2]]  # left-handed
    return AtomicSystem(numbers, positions, cell, {"id": "c"})


def assert_same(a: AtomicSystem, b: AtomicSystem, atol: float = 1e-9) -> None:
    assert a.numbers.tolist() == b.numbers.tolist()
    np.testing.assert_allclose(a.positions, b.positions, atol=atol)
    assert a.is_periodic == b.is_periodic
    if a.cell is not None:
        np.testing.assert_allclose(a.cell, b.cell, atol=atol)


@settings(max_examples=40, deadline=None)
@given(systems())
def test_pymatgen_and_ase_round_trips(system):
    for back in (
        AtomicSystem.from_any(system.to_pymatgen()),
        AtomicSystem.from_any(system.to_atoms()),
        AtomicSystem.from_any(system),
    ):
        assert_same(system, back)
        assert back.info == system.info


def test_left_handed_cell_is_kept():
    cell = np.array([[0, 4.0, 0], [3.0, 0, 0], [0, 0, 5.0]])
    system = AtomicSystem(np.array([11, 17]), np.array([[0, 0, 0], [1.5, 2, 2.5]]), cell)
    assert np.linalg.det(system.cell) < 0
    assert system.volume == pytest.approx(60.0)
    np.testing.assert_allclose(system.frac_coords[1], [0.5, 0.5, 0.5])
    structure = system.to_structure()
    np.testing.assert_allclose(structure.frac_coords[1], [0.5, 0.5, 0.5])
    assert_same(AtomicSystem.from_structure(structure), system)


def test_frac_coords_match_pymatgen_and_are_not_wrapped():
    structure = Structure(
        Lattice.from_parameters(3, 4, 5, 70, 80, 100), ["Na", "Cl"], [[0.1, -0.2, 0.3], [1.4, 0, 0]]
    )
    np.testing.assert_allclose(
        AtomicSystem.from_structure(structure).frac_coords, structure.frac_coords, atol=1e-12
    )


def test_immutable_pymatgen_objects_are_read():
    structure = IStructure(Lattice.cubic(4), ["Po"], [[0, 0, 0]])
    assert AtomicSystem.from_any(structure).numbers.tolist() == [84]
    molecule = IMolecule(["C", "O"], [[0, 0, 0], [0, 0, 1.1]])
    assert AtomicSystem.from_any(molecule, id="co").info["id"] == "co"


def test_oxidation_states_and_isotopes_read_as_elements():
    structure = Structure(Lattice.cubic(4), ["Na+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert AtomicSystem.from_structure(structure).numbers.tolist() == [11, 17]
    with pytest.warns(UserWarning, match=r"deuterium and tritium \(D, T\) are read as hydrogen"):
        heavy = AtomicSystem.from_molecule(Molecule(["D"], [[0, 0, 0]]))
    assert heavy.numbers.tolist() == [1]


@pytest.mark.parametrize(
    ("species", "message"),
    [
        ({"Fe": 0.5}, r"site 0 is disordered \(Fe:0.5\)"),
        ({"Fe": 0.5, "Ni": 0.5}, "site 0 is disordered"),
        (DummySpecies("X"), "site 0 holds X0[+], which is no element"),
    ],
)
def test_disordered_and_dummy_sites_are_refused(species, message):
    with pytest.raises(ValueError, match=message):
        AtomicSystem.from_structure(Structure(Lattice.cubic(3), [species], [[0, 0, 0]]))
    with pytest.raises(ValueError, match=r"1\.\.118"):
        AtomicSystem.from_atoms(Atoms("XO", [[0, 0, 0], [0, 0, 1]]))


def test_partial_periodicity_is_refused():
    lattice = Lattice(3 * np.eye(3), pbc=(True, True, False))
    with pytest.raises(ValueError, match=r"got \[True, True, False\]"):
        AtomicSystem.from_structure(Structure(lattice, ["Fe"], [[0, 0, 0]]))
    with pytest.raises(ValueError, match=r"got \[False, False, True\]"):
        AtomicSystem.from_atoms(Atoms("Fe", cell=[3, 3, 3], pbc=[0, 0, 1]))


def test_molecule_in_a_box_is_a_molecule():
    with pytest.warns(UserWarning, match="pbc=False"):
        system = AtomicSystem.from_atoms(Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], cell=[9, 9, 9]))
    assert system.domain == "molecule"
    assert system.to_atoms().cell.rank == 0
    assert not system.to_atoms().pbc.any()


def test_periodic_atoms_without_a_cell_are_refused():
    with pytest.raises(ValueError, match="volume"):
        AtomicSystem.from_atoms(Atoms("Fe", pbc=True))


@pytest.mark.parametrize(
    ("numbers", "positions", "cell", "message"),
    [
        ([], np.zeros((0, 3)), None, "N >= 1"),
        ([[6]], [[0, 0, 0]], None, r"\(1, 1\)"),
        ([6.0], [[0, 0, 0]], None, "integers"),
        ([0], [[0, 0, 0]], None, "atom 0 .* has 0 .a ghost"),
        ([119], [[0, 0, 0]], None, "atom 0 .* has 119"),
        ([6], [[0, 0]], None, r"\(1, 3\), got \(1, 2\)"),
        ([6, 1], [[0, 0, 0], [0, np.nan, 0]], None, "atom 1 has"),
        ([6, 1], [[0, 0, np.inf], [0, 0, 0]], None, "atom 0 has"),
        ([6], [[0, 0, 0]], np.eye(2), r"\(3, 3\)"),
        ([6], [[0, 0, 0]], [[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]], "cell must be finite"),
        ([6], [[0, 0, 0]], [[1, 0, 0], [2, 0, 0], [0, 0, 1]], "volume"),
    ],
)
def test_bad_input_is_refused_with_its_value(numbers, positions, cell, message):
    with pytest.raises(ValueError, match=message):
        AtomicSystem(np.array(numbers), np.array(positions), cell)


def test_later_changes_of_the_source_have_no_effect():
    atoms = Atoms("Fe", [[1.0, 1, 1]], cell=[3, 3, 3], pbc=True, info={"id": "a"})
    system = AtomicSystem.from_atoms(atoms)
    atoms.positions += 1.0
    atoms.cell *= 2.0
    atoms.numbers[:] = 8
    atoms.info["id"] = "b"
    assert_same(system, AtomicSystem(np.array([26]), np.ones((1, 3)), 3 * np.eye(3)), atol=0)
    assert system.info == {"id": "a"}
    given_info = {"id": "c"}
    direct = AtomicSystem(np.array([1]), np.zeros((1, 3)), info=given_info)
    given_info["id"] = "d"
    assert direct.info == {"id": "c"}


def test_info_reaches_pymatgen_as_json_and_ase_as_it_is():
    atoms = ase_crystal("Na", [(0, 0, 0)], spacegroup=225, cellpar=[5] * 3 + [90] * 3)
    atoms.info |= {
        "forces": np.arange(3.0),
        "energy": np.float64(-1.5),
        "path": Path("a/b"),
        "lattice": Lattice.cubic(2),
        7: "key",
    }
    system = AtomicSystem.from_atoms(atoms, id="mp-1")
    assert system.to_atoms().info["spacegroup"] is atoms.info["spacegroup"]
    assert "id" not in atoms.info
    dumped = json.loads(json.dumps(system.to_structure().as_dict()))["properties"]
    assert dumped["forces"] == [0.0, 1.0, 2.0]
    assert dumped["energy"] == -1.5
    assert dumped["path"] == "a/b"
    assert dumped["7"] == "key"
    assert dumped["id"] == "mp-1"
    assert Lattice.from_dict(dumped["lattice"]) == Lattice.cubic(2)
    molecule = AtomicSystem(np.array([1]), np.zeros((1, 3)), info={"x": np.ones(2)}).to_molecule()
    assert json.loads(json.dumps(molecule.as_dict()))["properties"] == {"x": [1.0, 1.0]}


def test_properties_survive_pymatgen_serialization():
    structure = Structure(Lattice.cubic(4), ["Po"], [[0, 0, 0]], properties={"id": "mp-7", "e": 1})
    system = AtomicSystem.from_any(structure, e=2)
    assert system.info == {"id": "mp-7", "e": 2}
    assert structure.properties == {"id": "mp-7", "e": 1}
    assert Structure.from_dict(system.to_structure().as_dict()).properties == system.info


def test_formula_does_not_depend_on_the_order_of_the_atoms():
    positions = np.arange(12.0).reshape(4, 3)
    for numbers in ([11, 17, 11, 17], [17, 17, 11, 11]):
        system = AtomicSystem(np.array(numbers), positions, 20 * np.eye(3))
        assert system.formula == "NaCl"
        assert repr(system) == "AtomicSystem(NaCl, crystal, 4 atoms)"
    for numbers in ([8, 6, 1, 1], [1, 6, 1, 8]):
        assert AtomicSystem(np.array(numbers), positions).formula == "CH2O"
    assert AtomicSystem(np.array([6, 6, 1, 1]), positions).formula == "C2H2"


def test_crystal_and_molecule_are_not_mixed_up():
    crystal = AtomicSystem(np.array([26]), np.zeros((1, 3)), 3 * np.eye(3))
    molecule = AtomicSystem(np.array([2]), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="Fe is a crystal"):
        crystal.to_molecule()
    with pytest.raises(ValueError, match="Fe is a crystal"):
        crystal.to_rdkit()
    for wrong in (lambda: molecule.volume, lambda: molecule.frac_coords, molecule.to_structure):
        with pytest.raises(ValueError, match="no cell"):
            wrong()


@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1O", "C#N", "N[C@@H](C)C(=O)O", "O=C=O"])
def test_rdkit_round_trip_recovers_bonds_and_chirality(smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=1) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    system = AtomicSystem.from_any(mol, id=smiles)
    back = system.to_rdkit()
    Chem.AssignStereochemistryFrom3D(back)
    assert Chem.MolToSmiles(Chem.RemoveHs(back)) == Chem.CanonSmiles(smiles)
    assert_same(AtomicSystem.from_any(back), system, atol=1e-6)


def test_rdkit_failures_are_value_errors():
    far = AtomicSystem(np.array([6, 6]), np.array([[0, 0, 0], [0, 0, 5.0]]))
    with pytest.raises(ValueError, match="no bonding found for C2"):
        far.to_rdkit()
    with pytest.raises(ValueError, match=r"no bonding found for HO: .*Iterations"):
        AtomicSystem(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 1.0]])).to_rdkit(
            max_iterations=1
        )
    assert AtomicSystem(np.array([2]), np.zeros((1, 3))).to_rdkit().GetNumAtoms() == 1


def test_rdkit_needs_a_3d_conformer():
    mol = Chem.MolFromSmiles("CCO")
    with pytest.raises(ValueError, match="no conformer"):
        AtomicSystem.from_any(mol)
    AllChem.Compute2DCoords(mol)
    with pytest.raises(ValueError, match="2D drawing"):
        AtomicSystem.from_any(mol)


def test_other_objects_are_refused_by_type():
    for wrong in ("POSCAR", None, Lattice.cubic(3), Chem.GetPeriodicTable()):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            AtomicSystem.from_any(wrong)


def test_xyz_text():
    water = AtomicSystem.from_atoms(ase_molecule("H2O"))
    lines = water.to_xyz().splitlines()
    assert lines[:2] == ["3", "H2O"]
    assert [line.split()[0] for line in lines[2:]] == ["O", "H", "H"]
    np.testing.assert_allclose(
        [[float(x) for x in line.split()[1:]] for line in lines[2:]], water.positions, atol=1e-6
    )


def test_import_is_light():
    code = (
        "import sys, adit_model.systems; "
        "heavy = {'torch', 'pymatgen', 'rdkit', 'ase'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
