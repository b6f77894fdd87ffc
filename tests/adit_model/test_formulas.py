"""Formulas as chemists write them, the same wherever they appear."""

from __future__ import annotations

import pytest

from adit_model.conditions.atoms import composition_of
from adit_model.conditions.condition import Condition
from adit_model.formulas import chemical_formula
from adit_model.systems import AtomicSystem

FORMULAS = (
    *("SiO2", "YB4", "PdTe2", "PbTe", "LiFePO4", "BaMo4O10", "MgB2", "LaB6", "Fe3O4", "K2PtCl6"),
    *("SiC", "GaAs", "TiNi3", "NH3", "H2O", "OF2", "HF", "CO2", "C2H6O", "CH4", "CHN"),
)


@pytest.mark.parametrize("formula", FORMULAS)
def test_as_chemists_write_them(formula):
    counts = composition_of(formula)
    assert chemical_formula(counts) == formula
    assert chemical_formula(dict(reversed(counts.items()))) == formula
    assert str(Condition(formula=formula, domain="crystal")) == f"crystal, {formula}"


def test_a_crystal_is_reduced_and_a_molecule_is_not():
    from ase import Atoms

    cell = Atoms("O4Si2", positions=[[i, 0, 0] for i in range(6)], cell=[9, 9, 9], pbc=True)
    assert AtomicSystem.from_atoms(cell).formula == "SiO2"
    assert AtomicSystem.from_atoms(Atoms("O2H2", [[i, 0, 0] for i in range(4)])).formula == "H2O2"


def test_the_order_in_which_random_numbers_are_dealt_out_does_not_follow_the_text():
    assert list(composition_of("SiO2")) == list(composition_of("O2Si")) == ["O", "Si"]
    assert list(composition_of("OH6C2")) == ["C", "H", "O"]
