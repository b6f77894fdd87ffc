from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from adit_model.data.dataset import AtomicDataset
from adit_model.data.duplicates import find_duplicates, mean_distances
from adit_model.systems import AtomicSystem


def system(atoms) -> AtomicSystem:
    return AtomicSystem.from_atoms(atoms)


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), repeat=st.tuples(*[st.integers(1, 2)] * 3))
def test_distances_do_not_depend_on_the_description_of_a_crystal(seed, repeat):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    random = np.random.default_rng(seed)
    other = atoms.repeat(repeat)
    other = other[random.permutation(len(other))]
    other.positions += random.normal(size=3)
    turned = AtomicSystem(
        other.numbers, other.positions @ rotation(seed), np.array(other.cell) @ rotation(seed)
    )
    np.testing.assert_allclose(mean_distances(turned), mean_distances(system(atoms)), rtol=1e-6)


def test_distances_are_those_of_the_lattice():
    fcc = mean_distances(system(bulk("Cu", a=3.6)))
    np.testing.assert_allclose(fcc[0, :12], 3.6 / np.sqrt(2))  # twelve nearest neighbours
    np.testing.assert_allclose(fcc[0, 12:18], 3.6)  # six second ones
    water = mean_distances(system(molecule("H2O")))
    assert water.shape == (2, 2)  # H and O, two neighbours each
    np.testing.assert_allclose(water[1], 0.969, atol=0.001)  # O-H of ASE's G2 geometry


def test_equal_and_different_structures():
    salt = bulk("NaCl", "rocksalt", a=5.64)
    rattled = salt.copy()
    rattled.rattle(0.005, seed=1)
    methanol = molecule("CH3OH")
    moved = methanol.copy()
    moved.rotate(70, (1, 2, 3))
    moved.translate((1, 2, 3))
    mirrored = moved.copy()
    mirrored.positions[:, 0] *= -1
    names = {
        "salt": salt,
        "cube": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        "rattled": rattled,
        "expanded": bulk("NaCl", "rocksalt", a=5.8),
        "cesium chloride": bulk("NaCl", "cesiumchloride", a=3.5),
        "methanol": methanol,
        "moved": moved,
        "mirrored": mirrored,
        "ethanol": molecule("CH3CH2OH"),
        "ether": molecule("CH3OCH3"),
    }
    dataset = AtomicDataset.from_systems([system(atoms) for atoms in names.values()])
    labels = list(names)
    found = {labels[i]: labels[j] for i, j in find_duplicates(dataset).items()}
    assert found == {
        "cube": "salt",
        "rattled": "salt",
        "moved": "methanol",
        "mirrored": "methanol",
    }


@pytest.mark.data
def test_duplicates_are_equal_for_pymatgen_too(data_dir, tmp_path):
    import pandas as pd
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from adit_model.data.crystal_csv import load_crystal_csv

    pd.read_csv(data_dir / "carbon_24.csv.gz", nrows=150).to_csv(tmp_path / "carbon.csv")
    dataset = load_crystal_csv(tmp_path / "carbon.csv", progress=False)
    assert len(dataset) == 150
    found = find_duplicates(dataset)
    assert len(found) > 10
    matcher = StructureMatcher()
    for i, j in found.items():
        assert matcher.fit(dataset[i].to_structure(), dataset[j].to_structure())
