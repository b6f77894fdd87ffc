import importlib.util

import ase.build
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.spatial.transform import Rotation

from adit_model.quality.molecules import (
    canonical_smiles,
    canonical_smiles_set,
    check_molecule,
    check_molecules,
    novel_molecules,
    unique_molecules,
)
from adit_model.systems import AtomicSystem


def named(name):
    return AtomicSystem.from_atoms(ase.build.molecule(name))


def embedded(smiles, seed=7):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=seed) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return AtomicSystem.from_rdkit(mol)


def moved(system, seed=0, mirrored=False):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(system))
    positions = system.positions @ Rotation.random(random_state=seed).as_matrix().T
    if mirrored:
        positions = -positions
    return AtomicSystem(system.numbers[order], (positions + rng.normal(size=3))[order])


def water_dimer():
    water = named("H2O")
    return AtomicSystem(
        np.tile(water.numbers, 2),
        np.concatenate([water.positions, water.positions + np.array([0, 0, 3.0])]),
    )


@pytest.mark.parametrize(
    ("name", "smiles"),
    [
        ("H2", "[H][H]"),
        ("H2O", "O"),
        ("CH4", "C"),
        ("C6H6", "c1ccccc1"),
        ("CO2", "O=C=O"),
        ("HCN", "C#N"),
        ("CH3CONH2", "CC(N)=O"),
        ("cyclobutene", "C1=CCC1"),
    ],
)
def test_known_molecules_are_valid(name, smiles):
    check = check_molecule(named(name))
    assert check.valid and check.bonded and check.connected and check.closed_shell
    assert check.smiles == smiles
    assert check.reason is None


@pytest.mark.parametrize(
    "smiles",
    ["CC(=O)Oc1ccccc1", "N=CO", "N=C1OCCC1", "C#CC1CN1", "O=c1cc[nH]cn1", "FC1C2OC12", "CC=NO"],
)
def test_perceived_and_given_smiles_agree(smiles):
    check = check_molecule(embedded(smiles))
    assert check.valid
    assert {check.smiles} == canonical_smiles_set([smiles])


@pytest.mark.parametrize("name", ["C6H6", "CH3CONH2", "C4H4NH"])
def test_motion_mirror_and_order_of_atoms_do_not_matter(name):
    system = named(name)
    for seed in range(3):
        assert check_molecule(moved(system, seed, mirrored=seed == 1)) == check_molecule(system)


def test_stereoisomers_are_one_molecule():
    for one, other in (("C/C=C/O", "C/C=C\\O"), ("C[C@H](N)O", "C[C@@H](N)O")):
        assert check_molecule(embedded(one)).smiles == check_molecule(embedded(other)).smiles
    with_hydrogen = Chem.MolFromSmiles("[H]/N=C/O")
    assert canonical_smiles(with_hydrogen) == "N=CO"


def test_a_water_dimer_is_not_connected():
    check = check_molecule(water_dimer())
    assert check.bonded and not check.connected and not check.valid
    assert check.reason == "2 fragments: O.O"


def test_a_torn_molecule_is_not_connected():
    methane = named("CH4")
    check = check_molecule(AtomicSystem(methane.numbers, 1.8 * methane.positions))
    assert not check.connected and not check.closed_shell and not check.valid
    assert check.reason == "5 fragments: [C-4].[H+].[H+].[H+].[H+]"


@pytest.mark.parametrize("name", ["CH3", "OH", "NH2", "CH3O", "NO"])
def test_radicals_are_not_bonded(name):
    check = check_molecule(named(name))
    assert not check.bonded and not check.valid
    assert check.smiles is None
    assert "no bonding found" in check.reason


@pytest.mark.parametrize("number", [1, 6, 8])
def test_a_lone_atom_is_not_saturated_with_hydrogens(number):
    check = check_molecule(AtomicSystem(np.array([number]), np.zeros((1, 3))))
    assert not check.valid
    assert check.reason is not None


def test_atoms_on_one_spot_are_not_a_molecule():
    assert not check_molecule(AtomicSystem(np.array([6, 1, 1, 1, 1]), np.zeros((5, 3)))).valid


def test_zwitterions_are_valid_but_not_counted_as_uncharged():
    check = check_molecule(embedded("[NH3+]CC(=O)[O-]"))
    assert check.valid and not check.closed_shell
    assert "+" in check.smiles and "-" in check.smiles


def test_crystals_are_refused():
    crystal = AtomicSystem(np.array([11]), np.zeros((1, 3)), np.eye(3))
    with pytest.raises(ValueError, match="crystal, not a molecule"):
        check_molecule(crystal)
    with pytest.raises(ValueError, match="crystal, not a molecule"):
        check_molecules([named("H2O"), crystal])


def test_many_molecules_give_the_answers_of_single_ones():
    systems = [named("H2O"), water_dimer(), named("C6H6")]
    assert check_molecules(systems) == [check_molecule(system) for system in systems]
    assert check_molecules(systems, workers=2) == check_molecules(systems)


def test_without_an_answer_in_time_a_molecule_is_invalid():
    water = named("H2O")  # 2,000 of them take RDKit about a second
    places = 5.0 * np.arange(2000)[:, None, None] * np.array([1.0, 0.0, 0.0])
    many = AtomicSystem(np.tile(water.numbers, 2000), (water.positions + places).reshape(-1, 3))
    (check,) = check_molecules([many], time_limit=0.01)
    assert not check.valid and check.timed_out
    assert "no result within" in check.reason


def test_unique_and_novel_are_counted_among_valid_molecules():
    benzene = named("C6H6")
    systems = [benzene, water_dimer(), moved(benzene), named("H2O"), water_dimer()]
    checks = [check_molecule(system) for system in systems]
    assert unique_molecules(checks).tolist() == [True, False, False, True, False]
    known = canonical_smiles_set(["C1=CC=CC=C1", "CCO"])
    assert known == {"c1ccccc1", "CCO"}
    assert novel_molecules(checks, known).tolist() == [False, False, False, True, False]


def test_a_reference_that_cannot_be_read_is_an_error():
    with pytest.raises(ValueError, match="'C1CC'"):
        canonical_smiles_set(["C", "C1CC"])


@pytest.mark.slow
def test_real_molecules_are_valid_and_found_in_the_published_smiles():
    if importlib.util.find_spec("qm9pack") is None:
        pytest.skip("QM9 needs the extra 'data'")
    from adit_model.data.qm9 import load_qm9, load_qm9_smiles

    chosen = np.random.default_rng(0).choice(100_000, 1000, replace=False)
    systems = list(load_qm9("train", progress=False).subset(chosen))
    published = load_qm9_smiles("train")
    checks = check_molecules(systems)
    assert np.mean([check.valid for check in checks]) == pytest.approx(0.95, abs=0.02)
    known = canonical_smiles_set(published[i] for i in chosen)
    missed = [published[i] for i in chosen[novel_molecules(checks, known)]]
    # Charge-separated molecules can be drawn in several ways, and RDKit may find another one.
    assert all("+" in smiles for smiles in missed), missed
    assert len(missed) <= 0.005 * len(checks)
