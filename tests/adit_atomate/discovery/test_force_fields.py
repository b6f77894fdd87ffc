"""Relaxation by atomate2's force fields with this package's optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.io.ase import AseAtomsAdaptor

from adit_atomate.discovery.relax import ADiTRelaxStageMaker, chgnet_relax_maker

pytest.importorskip("chgnet")


def relaxed(maker, structure):
    return type(maker).make.original(maker, structure)


@pytest.fixture
def salt():
    """Rock salt in its cell of two atoms, strained, one atom moved."""
    atoms = bulk("MgO", "rocksalt", 4.25)
    atoms.positions[0] += [0.2, 0.0, 0.05]
    atoms.set_cell(1.03 * atoms.cell, scale_atoms=True)
    return AseAtomsAdaptor.get_structure(atoms)


def test_the_minimum_is_that_of_atomate2_in_fewer_steps(salt):
    from atomate2.forcefields.jobs import ForceFieldRelaxMaker
    from chgnet.model import CHGNet

    maker = chgnet_relax_maker()
    maker = type(maker).from_dict(maker.as_dict())  # as in a job store
    usual = ForceFieldRelaxMaker(
        force_field_name="CHGNet",
        relax_kwargs=maker.relax_kwargs,
        ionic_step_data=maker.ionic_step_data,
    )
    mine, theirs = relaxed(maker, salt), relaxed(usual, salt)
    assert mine.forcefield_name == theirs.forcefield_name == "MLFF.CHGNet"
    assert mine.output.energy == pytest.approx(theirs.output.energy, abs=0.004)
    assert mine.is_force_converged and theirs.is_force_converged
    assert 0 < mine.output.n_steps < theirs.output.n_steps
    assert mine.input.optimizer_kwargs == {"optimizer": "CrystalBFGS"}
    assert type(maker.calculator.model) is not CHGNet


def test_pressure_fixed_atoms_and_symmetry_hold(salt):
    pressed = ADiTRelaxStageMaker(pressure=20.0).engine()
    free, dense = (relaxed(maker, salt).structure for maker in (chgnet_relax_maker(), pressed))
    assert 0.8 * free.volume < dense.volume < 0.96 * free.volume
    held = ADiTRelaxStageMaker(fix_atoms=["O"]).engine()
    marked = salt.copy(site_properties={"selective_dynamics": [[True] * 3, [False] * 3]})
    after = relaxed(held, marked).structure
    np.testing.assert_allclose(after.lattice.matrix, salt.lattice.matrix)
    np.testing.assert_allclose(after[1].coords, salt[1].coords)
    assert not np.allclose(after[0].coords, salt[0].coords, atol=0.05)
    cubic = AseAtomsAdaptor.get_structure(bulk("MgO", "rocksalt", 4.5))
    same = relaxed(ADiTRelaxStageMaker(fix_symmetry=True).engine(), cubic).structure
    assert same.get_space_group_info(symprec=1e-4)[1] == 225
    assert same.volume < 0.9 * cubic.volume
