"""What a chemist believes passes, what is broken does not, and no input does any harm."""
# ruff: noqa: E501 (one structure a line)

from __future__ import annotations

import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.cell import Cell
from ase.spacegroup import crystal
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from adit_model.quality.plausible import plausible
from adit_model.systems import AtomicSystem


def built(symbols, basis, group, *cellpar, setting=1):
    """A crystal of its space group, primitive."""
    cell = [*cellpar, 90, 90, 90][:6]
    return crystal(
        symbols, basis, spacegroup=group, cellpar=cell, primitive_cell=True, setting=setting
    )


def hexagonal(a, c):
    return (a, a, c, 90, 90, 120)


KNOWN = {
    # oxides, silicates, carbonates
    "Fe3O4": lambda: built(["Fe", "Fe", "O"], [(0.125,) * 3, (0.5,) * 3, (0.2549,) * 3], 227, *[8.396] * 3, setting=2),
    "Co3O4": lambda: built(["Co", "Co", "O"], [(0.125,) * 3, (0.5,) * 3, (0.2631,) * 3], 227, *[8.084] * 3, setting=2),
    "quartz": lambda: built(["Si", "O"], [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)], 154, *hexagonal(4.913, 5.405)),
    "rutile": lambda: built(["Ti", "O"], [(0, 0, 0), (0.3053, 0.3053, 0)], 136, 4.594, 4.594, 2.959),
    "perovskite": lambda: built(["Sr", "Ti", "O"], [(0, 0, 0), (0.5,) * 3, (0.5, 0.5, 0)], 221, *[3.905] * 3),
    "calcite": lambda: built(["Ca", "C", "O"], [(0, 0, 0), (0, 0, 0.25), (0.2573, 0, 0.25)], 167, *hexagonal(4.99, 17.06)),
    "UO2": lambda: bulk("UO2", "fluorite", 5.47),
    # salts
    "NaCl": lambda: bulk("NaCl", "rocksalt", 5.64),
    "CsCl": lambda: bulk("CsCl", "cesiumchloride", 4.12),
    "K2PtCl6": lambda: built(["K", "Pt", "Cl"], [(0.25,) * 3, (0, 0, 0), (0.24, 0, 0)], 225, *[9.755] * 3),
    # borides
    "MgB2": lambda: built(["Mg", "B"], [(0, 0, 0), (1 / 3, 2 / 3, 0.5)], 191, *hexagonal(3.086, 3.524)),
    "HfB2": lambda: built(["Hf", "B"], [(0, 0, 0), (1 / 3, 2 / 3, 0.5)], 191, *hexagonal(3.141, 3.47)),
    "LaB6": lambda: built(["La", "B"], [(0, 0, 0), (0.1975, 0.5, 0.5)], 221, *[4.157] * 3),
    # carbides, carbon
    "CaC2": lambda: built(["Ca", "C"], [(0, 0, 0), (0, 0, 0.4068)], 139, 3.88, 3.88, 6.37),
    "WC": lambda: built(["W", "C"], [(0, 0, 0), (1 / 3, 2 / 3, 0.5)], 187, *hexagonal(2.906, 2.837)),
    "diamond": lambda: bulk("C", "diamond", 3.567),
    "graphite": lambda: built(["C", "C"], [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25)], 194, *hexagonal(2.461, 6.708)),
    # hydrides, hydrogen, nitrogen, noble gases
    "PdH": lambda: bulk("PdH", "rocksalt", 4.09),
    "MgH2": lambda: built(["Mg", "H"], [(0, 0, 0), (0.304, 0.304, 0)], 136, 4.517, 4.517, 3.021),
    "LaH10": lambda: built(["La", "H", "H"], [(0.5,) * 3, (0.12,) * 3, (0.25,) * 3], 225, *[5.1] * 3),
    "H2": lambda: built(["H"], [(0.0566,) * 3], 205, *[5.338] * 3),
    "N2": lambda: built(["N"], [(0.0535,) * 3], 205, *[5.661] * 3),
    "Ar": lambda: bulk("Ar", "fcc", 5.26),
    # metals and intermetallics
    "Cs": lambda: bulk("Cs", "bcc", 6.14),
    "Os": lambda: bulk("Os", "hcp", 2.735, 4.319),
    "Ni3Al": lambda: built(["Al", "Ni"], [(0, 0, 0), (0.5, 0.5, 0)], 221, *[3.572] * 3),
    "MgZn2": lambda: built(["Mg", "Zn", "Zn"], [(1 / 3, 2 / 3, 0.062), (0, 0, 0), (0.8305, 0.661, 0.25)], 194, *hexagonal(5.221, 8.567)),
    # chalcogenides
    "FeS2": lambda: built(["Fe", "S"], [(0, 0, 0), (0.3851,) * 3], 205, *[5.417] * 3),
    "PdTe2": lambda: built(["Pd", "Te"], [(0, 0, 0), (1 / 3, 2 / 3, 0.25)], 164, *hexagonal(4.036, 5.13)),
    "GaAs": lambda: bulk("GaAs", "zincblende", 5.653),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_compounds_are_plausible_in_any_cell(name):
    atoms = KNOWN[name]()
    assert plausible(atoms) == (True, None)
    skewed = make_supercell(atoms, [[1, 0, 0], [3, 1, 0], [-2, 5, 1]])
    assert plausible(skewed).plausible
    assert plausible(atoms.repeat((1, 1, 2))).plausible


def moved(atoms, i, j, distance):
    """The same with atom i brought near atom j."""
    atoms = atoms.copy()
    atoms.positions[i] = atoms.positions[j] + [0, 0, distance]
    return atoms


def scaled(atoms, factor):
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)
    return atoms


def boxed(atoms, *vacuum):
    atoms = atoms.copy()
    atoms.set_cell(np.diag(atoms.cell.lengths() + vacuum) if len(atoms.cell) else vacuum)
    atoms.pbc = True
    return atoms


def cubic(name, *args):
    return bulk(name, *args, cubic=True)


BROKEN = {
    "dense iron": (lambda: cubic("Fe", "fcc", 1.4), "cubic angstrom an atom"),
    "one spot": (lambda: moved(KNOWN["Fe3O4"](), 5, 3, 0.0), "on one spot"),
    "one spot across the border": (
        lambda: Atoms("NaClCl", [(0, 0, 0), (2, 2, 0.01), (2, 2, 5.63)], cell=[5.64] * 3, pbc=True),
        "on one spot",
    ),
    "oxygen in silicon": (lambda: moved(KNOWN["quartz"](), 3, 0, 0.9), "0.90 angstrom apart"),
    "short N2": (lambda: scaled(KNOWN["N2"](), 0.8), "apart"),
    "peroxide of 1 angstrom": (
        lambda: Atoms("LiO2", [(0, 0, 0), (2, 2, 0), (2, 2, 1.0)], cell=[4, 4, 4], pbc=True),
        "oxygen 1 and oxygen 2 are 1.00 angstrom apart",
    ),
    "carbon of 1 angstrom": (lambda: scaled(KNOWN["graphite"](), 0.7), "apart"),
    "squeezed salt": (lambda: scaled(KNOWN["NaCl"](), 0.55), "apart"),
    "blown up salt": (lambda: scaled(KNOWN["NaCl"](), 1.6), "no neighbour"),
    "blown up iron": (lambda: bulk("Fe", "bcc", 4.6), "no neighbour"),
    "gap": (lambda: boxed(cubic("NaCl", "rocksalt", 5.64), 0, 0, 30.0), "gap of"),
    "rod": (lambda: boxed(cubic("Cu", "fcc", 3.6), 10, 10, 0), ""),
    "slab of metal": (lambda: boxed(cubic("Au", "fcc", 4.08), 0, 0, 30.0), "gap of 32"),
    "molecule in a box": (lambda: boxed(Atoms("CO", [(0, 0, 0), (1.13, 0, 0)]), 10, 10, 10), "atom"),
    "one atom in a box": (lambda: Atoms("Fe", cell=[5.0] * 3, pbc=True), "no neighbour"),
    "flat cell": (lambda: Atoms("Cu", cell=[5, 5, 0.5], pbc=True), "its own image"),
    "needle": (lambda: Atoms("H2", [(0, 0, 0), (0, 0, 20)], cell=[0.5, 0.5, 60], pbc=True), "image"),
    "stray atom": (
        lambda: boxed(cubic("Cu", "fcc", 3.6).repeat((2, 2, 1)), 0, 0, 8) + Atoms("Cu", [(1, 1, 7.2)]),
        "no neighbour",
    ),
    "halved borides": (lambda: boxed_c(KNOWN["MgB2"](), 0.5), "too little for MgB2"),
    "not a number": (lambda: Atoms("NaCl", [(0, 0, 0), (np.nan, 0, 0)], cell=[4] * 3, pbc=True), "finite"),
    "infinite cell": (lambda: Atoms("Na", cell=[4, 4, np.inf], pbc=True), "finite"),
    "no volume": (lambda: Atoms("Na", cell=[[4, 0, 0], [0, 4, 0], [4, 4, 0]], pbc=True), "volume"),
    "dummy element": (lambda: Atoms("X2", [(0, 0, 0), (2, 2, 2)], cell=[4] * 3, pbc=True), "1..118"),
    "half periodic": (lambda: Atoms("Na", cell=[4] * 3, pbc=[1, 1, 0]), "pbc"),
}  # fmt: skip


def boxed_c(atoms, factor):
    atoms = atoms.copy()
    cell = atoms.cell.array.copy()
    cell[2] *= factor
    atoms.set_cell(cell, scale_atoms=True)
    return atoms


@pytest.mark.parametrize("name", BROKEN)
def test_broken_crystals_are_not(name):
    make, words = BROKEN[name]
    found = plausible(make())
    assert not found.plausible
    assert any(word in found.reason for word in words.split("|")), found.reason


def from_smiles(smiles):
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    if AllChem.MMFFHasAllMoleculeParams(mol):
        AllChem.MMFFOptimizeMolecule(mol)
    return AtomicSystem.from_rdkit(mol, charge=0)  # as a generated molecule, which tells none


def without(smiles, symbol):
    """The molecule less its last atom of an element."""
    atoms = from_smiles(smiles).to_atoms()
    del atoms[max(i for i, s in enumerate(atoms.symbols) if s == symbol)]
    return atoms


SOUND = (
    *("C", "O", "C#C", "N#N", "OO", "c1ccccc1", "C1=CC2CC1C=C2", "C[N+](=O)[O-]", "CN=[N+]=[N-]"),
    *("[C-]#[N+]C", "C=[N+]=[N-]", "C[N+](C)(C)[O-]", "CC#[N+][O-]", "NCC(=O)O", "CS(=O)(=O)O"),
    *("C[N+](C)(C)CC(=O)[O-]", "CS(C)=O", "OP(=O)(O)O", "FC(F)(F)F", "c1cc[nH]c1", "C12C3C4C1C5C4C3C25"),
    *("Clc1ccccc1Br", "O=C=O", "c1ccc2ccccc2c1", "CC(=O)Oc1ccccc1C(=O)O", "C=C=C=C", "OB(O)O", "S=C=S"),
)  # fmt: skip


@pytest.mark.parametrize("smiles", SOUND)
def test_molecules_that_chemists_draw_are_plausible(smiles):
    assert plausible(from_smiles(smiles)) == (True, None)


BROKEN_MOLECULES = {
    "methyl": (lambda: without("C", "H"), "carbon 0 has three bonds"),
    "methylene": (lambda: without("[CH3]", "H"), "carbon 0 has two bonds"),
    "hydroxyl": (lambda: without("O", "H"), "oxygen 0 has one bond"),
    "phenyl": (lambda: without("c1ccccc1", "H"), "carbon"),
    "amide without its hydrogen": (
        lambda: without("O=C1CCCCN1", "H"),
        "nitrogen 6 has two bonds and no lone hydrogen",
    ),
    "nitric oxide": (lambda: Atoms("NO", [(0, 0, 0), (1.15, 0, 0)]), "needs"),
    "ammonium": (lambda: from_smiles("[NH4+]"), "bonds"),
    "acetate": (lambda: from_smiles("CC(=O)[O-]"), "needs two"),
    "two waters": (
        lambda: from_smiles("O").to_atoms() + shifted(from_smiles("O"), 5.0),
        "pieces",
    ),
    "lone hydrogen": (
        lambda: from_smiles("CO").to_atoms() + Atoms("H", [(6, 0, 0)]),
        "hydrogen 6 is bonded to nothing",
    ),
    "five bonds": (lambda: from_smiles("C").to_atoms() + Atoms("H", [(0.0, 0.0, 1.0)]), "apart|five"),
    "on one spot": (lambda: moved(from_smiles("CCO").to_atoms(), 2, 1, 0.0), "on one spot"),
    "short bond": (lambda: Atoms("CO", [(0, 0, 0), (0.9, 0, 0)]), "0.90 angstrom apart"),
    "oxonium ylide": (lambda: from_smiles("C[O+](C)[CH-]C"), "oxygen 1 has three bonds"),
    "ammonium alkoxide": (lambda: from_smiles("C[N+](C)(C)CCC[O-]"), "nobody would draw"),
    "far carbanion": (lambda: from_smiles("C[N+](C)(C)CCC[CH2-]"), "nobody would draw"),
    "divalent fluorine": (
        lambda: Atoms("CH3FH", [(0, 0, 0), (0, 1.03, -0.36), (0.89, -0.51, -0.36), (-0.89, -0.51, -0.36), (0, 0, 1.38), (0, 0, 2.35)]),
        "fluorine 4 has two bonds",
    ),
    "trivalent oxygen": (lambda: from_smiles("[OH3+]"), "oxygen 0 has three bonds"),
    "helium hydride": (lambda: Atoms("HeH", [(0, 0, 0), (0.77, 0, 0)]), "bond"),
    "sodium atom": (lambda: Atoms("Na"), "odd number of electrons"),
    "not a number": (lambda: Atoms("OH", [(0, 0, 0), (np.nan, 0, 0)]), "finite"),
    "a biradical": (lambda: from_smiles("[CH2]CC[CH2]"), "needs four"),
}  # fmt: skip


def shifted(system, distance):
    atoms = system.to_atoms()
    atoms.translate([distance, 0, 0])
    return atoms


@pytest.mark.parametrize("name", BROKEN_MOLECULES)
def test_broken_molecules_are_not(name):
    make, words = BROKEN_MOLECULES[name]
    found = plausible(make())
    assert not found.plausible
    assert any(word in found.reason for word in words.split("|")), found.reason


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.tuples(*[st.floats(0.5, 60)] * 3),
    angles=st.tuples(*[st.floats(10, 170)] * 3),
    count=st.integers(1, 60),
    spread=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
def test_any_crystal_gets_its_verdict(lengths, angles, count, spread, seed):
    generator = np.random.default_rng(seed)
    cosines = np.cos(np.radians(angles))
    assume(1 - (cosines**2).sum() + 2 * cosines.prod() > 1e-4)
    cell = Cell.fromcellpar([*lengths, *angles]).array
    started = time.perf_counter()
    found = plausible(
        Atoms(
            generator.integers(1, 119, count),
            scaled_positions=0.4 + spread * generator.random((count, 3)),
            cell=cell,
            pbc=True,
        )
    )
    assert found.plausible is (found.reason is None)
    assert time.perf_counter() - started < 10


def test_numbers_beyond_the_periodic_table_are_a_reason_not_an_error():
    lattice = Lattice.cubic(4.0)
    assert plausible(Structure(lattice, ["Na", "Cl"], [[0] * 3, [0.5] * 3])).plausible
    assert "1..118" in str(plausible(Atoms([119], cell=[4] * 3, pbc=True)).reason)
    assert "expected an AtomicSystem" in str(plausible("NaCl").reason)
    assert "disordered" in str(plausible(Structure(lattice, [{"Na": 0.5, "K": 0.5}], [[0] * 3])))


def test_thousands_of_atoms_on_one_spot_cost_little():
    positions = np.full((3000, 3), 5.0)
    started = time.perf_counter()
    crystal_found = plausible(Atoms([26] * 3000, positions, cell=[40] * 3, pbc=True))
    molecule_found = plausible(Atoms([6] * 3000, positions))
    assert time.perf_counter() - started < 5
    assert "on one spot" in crystal_found.reason and "on one spot" in molecule_found.reason
