"""Numbers beside structures become labels, whatever the source."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from pymatgen.core import Lattice, Structure

from adit_model.data import load_source
from adit_model.data.dataset import AtomicDataset
from adit_model.data.prepare import check_labels
from adit_model.data.structures import load_structures

NAN = float("nan")


def crystals():
    """Copper with a bulk modulus, rock salt without."""
    copper, salt = bulk("Cu"), bulk("NaCl", "rocksalt", a=5.64)
    copper.info |= {"bulk_modulus": 137, "K (GPa)": 1.5, "note": "soft", "stable": True, "index": 4}
    copper.calc = SinglePointCalculator(copper, energy=-3.7)
    return [copper, salt]


def as_extxyz(folder):
    write(folder / "x.extxyz", crystals())
    return folder / "x.extxyz"


def as_database(folder):
    with connect(folder / "x.db") as database:
        for atoms in crystals():
            keys = {"bulk_modulus": 137.0, "k_gpa": 1.5} if "bulk_modulus" in atoms.info else {}
            database.write(atoms, key_value_pairs=keys)
    return folder / "x.db"


@pytest.mark.parametrize("make", [as_extxyz, as_database])
def test_keys_of_files_are_labels(make, tmp_path):
    data = load_source(str(make(tmp_path)), progress=False)
    assert set(data.labels) == {"bulk_modulus", "k_gpa", "energy"}
    for name, value in (("bulk_modulus", 137), ("k_gpa", 1.5), ("energy", -3.7)):
        np.testing.assert_allclose(data.labels[name], [value, NAN], rtol=1e-6)


def test_properties_of_objects_are_labels(tmp_path):
    lattice = Lattice.cubic(4.2)
    structure = Structure(lattice, ["Cs"], [[0, 0, 0]], properties={"hardness": np.float64(0.2)})
    data = load_structures([structure, molecule("H2O")], progress=False)
    np.testing.assert_allclose(data.labels["hardness"], [0.2, NAN], rtol=1e-6)
    data.save(tmp_path / "x.npz")
    again = AtomicDataset.load(tmp_path / "x.npz")
    np.testing.assert_array_equal(again.labels["hardness"], data.labels["hardness"])


def test_tags_of_sdf_files_are_labels(tmp_path):
    from rdkit import Chem
    from rdkit.Chem import AllChem

    mol = Chem.AddHs(Chem.MolFromSmiles("CO"))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    mol.SetProp("Gap", "9.5")
    with Chem.SDWriter(str(tmp_path / "x.sdf")) as writer:
        writer.write(mol)
    data = load_source(str(tmp_path / "x.sdf"), progress=False)
    np.testing.assert_allclose(data.labels["gap"], [9.5])


def test_a_label_that_is_not_there_lists_those_that_are(tmp_path):
    data = load_source(str(as_extxyz(tmp_path)), progress=False)
    check_labels(data, ["bulk_modulus"])
    with pytest.raises(ValueError, match="'bulk_modulos'; there are bulk_modulus, energy, k_gpa"):
        check_labels(data, ["bulk_modulos"])
