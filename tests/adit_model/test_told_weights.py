"""The weights that can be told anything, ``mini-2``: what they know, what they guarantee."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.spacegroup import crystal
from ase.spacegroup.symmetrize import check_symmetry

from adit_model.conditions.condition import Condition
from adit_model.model import ADiT

FEW = {"num_steps": 4, "progress": False, "seed": 0}


@pytest.fixture(scope="module")
def model() -> ADiT:
    return ADiT.load("mini-2", device="cpu")


def test_they_know_every_kind(model):
    assert {"space_group", "properties", "cell", "atoms", "formula"} <= set(model.known.learned)
    assert model.known.properties["band_gap"].unit == "eV"
    assert model.known.properties["mu"].domains == ("molecule",)


def test_reconstruction_keeps_cell_and_symmetry(model):
    rutile = crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.305, 0.305, 0)],
        spacegroup=136,
        cellpar=[4.59, 4.59, 2.96, 90, 90, 90],
    )
    rock_salt = bulk("NaCl", "rocksalt", a=5.64)
    for atoms, number in ((rutile, 136), (rock_salt, 225)):
        (back,) = model.reconstruct([atoms])
        assert back is not None
        again = back.to_atoms()
        assert sorted(again.numbers) == sorted(atoms.numbers)
        assert abs(again.cell.volume / atoms.cell.volume - 1) < 1e-5
        assert check_symmetry(again, symprec=0.01).number == number


def test_formula_is_exact_and_the_space_group_is_reported(model):
    for sample in model.sample(4, "NaCl, units=1-2, spacegroup=225", **FEW):
        assert set(sample.system.numbers) == {11, 17}
        assert (sample.system.numbers == 11).sum() * 2 == len(sample.system)
        assert sample.holds["formula"] and sample.holds["formula_units"]
        assert isinstance(sample.holds["space_group"], bool)


def test_telling_a_space_group_or_a_property_changes_the_sample(model):
    free, grouped, wide = (
        model.sample(1, condition, **FEW)[0].system
        for condition in (
            "crystal, atoms=6",
            "crystal, atoms=6, spacegroup=194",
            "crystal, atoms=6, volume_per_atom=40",
        )
    )
    assert not np.allclose(free.cell, grouped.cell)
    assert wide.volume > free.volume


def test_a_cell_is_exact(model):
    cell = (4.0, 4.0, 6.0, 90.0, 90.0, 120.0)
    for sample in model.sample(2, Condition(num_atoms=4, cell=cell), **FEW):
        lengths = sample.system.to_atoms().cell.cellpar()
        assert np.abs(lengths - cell).max() < 1e-6
        assert sample.holds["cell"]


def test_a_molecule_grows_around_fixed_atoms(model):
    ethanol = molecule("CH3CH2OH")
    heavy = ethanol[ethanol.numbers > 1]
    for sample in model.sample(2, Condition.completing(heavy, {"H": 6}), **FEW):
        system = sample.system
        assert sorted(system.numbers) == sorted(ethanol.numbers)
        assert np.abs(system.positions[: len(heavy)] - heavy.positions).max() < 1e-6
