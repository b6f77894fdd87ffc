"""Candidates: what is screened out, joined, ranked and symmetrised."""

from __future__ import annotations

import pytest
from ase.build import molecule
from small_crystals import caesium_chloride, rocksalt

from adit_model.prediction.candidates import (
    Candidate,
    choose_engine,
    closest_ratio,
    described,
    fault_of,
    joined,
    symmetrised,
    too_close,
)
from adit_model.quality.symmetry import largest_move
from adit_model.systems import AtomicSystem


def test_collapsed_cells_and_close_atoms_are_screened_out():
    assert fault_of(rocksalt()) is None and too_close(rocksalt()) is None
    assert "implausible" in str(fault_of(rocksalt(a=3.6)))
    assert too_close(rocksalt(a=3.6)) is None  # a relaxation may make it one
    assert "covalent radii" in str(too_close(rocksalt(noise=1.0, seed=1)))
    assert "cubic angstrom an atom" in str(too_close(rocksalt(a=2.3)))
    assert "cubic angstrom an atom" in str(too_close(rocksalt(a=14.0)))
    ethanol = AtomicSystem.from_atoms(molecule("CH3CH2OH"))
    assert fault_of(ethanol) is None and too_close(ethanol) is None
    squeezed = AtomicSystem(ethanol.numbers, 0.4 * ethanol.positions)
    assert closest_ratio(squeezed) == pytest.approx(0.4 * closest_ratio(ethanol))
    assert "covalent radii" in str(too_close(squeezed))


def test_equal_crystals_are_joined_and_the_lowest_comes_first():
    candidates = [
        Candidate(caesium_chloride(), index=0, energy=-3.2),
        Candidate(rocksalt(noise=0.02), index=1, energy=-3.39),
        Candidate(rocksalt(), index=2, energy=-3.4),
        Candidate(rocksalt(a=2), index=3, fault="implausible"),
    ]
    found = joined(candidates)
    assert [c.index for c in found] == [2, 0]
    assert found[0].samples == (2, 1)
    bare = [Candidate(c.system, index=c.index, fault=c.fault) for c in candidates]
    assert [c.samples for c in joined(bare)] == [(1, 2), (0,)]  # what more samples agree on


def test_molecules_are_joined_by_their_smiles():
    names = ("CH3CH2OH", "CH3OCH3", "CH3CH2OH")
    systems = [AtomicSystem.from_atoms(molecule(name)) for name in names]
    candidates = described([Candidate(s, index=i) for i, s in enumerate(systems)])
    assert [c.smiles for c in candidates] == ["CCO", "COC", "CCO"]
    assert [c.samples for c in joined(candidates)] == [(0, 2), (1,)]


def test_symmetrising_moves_little_or_nothing_at_all():
    shaken = Candidate(rocksalt(noise=0.03, seed=1), space_group=1)
    found = symmetrised(shaken, 0.2, 0.2)
    assert found.space_group == 225
    assert found.moved == pytest.approx(largest_move(shaken.system, found.system))
    assert 0 < found.moved < 0.2
    assert found.system.numbers.tolist() == [11, 17]
    assert symmetrised(shaken, 0.2, 0.5 * found.moved) is shaken  # it would move too far
    far = Candidate(rocksalt(noise=0.5, seed=1))
    assert symmetrised(far, 0.01) is far


def test_engines_are_checked_before_any_work(monkeypatch):
    assert choose_engine("none", "crystal") == "none"
    assert choose_engine(None, "molecule") == "xtb"
    with pytest.raises(ValueError, match="crystals are relaxed by chgnet or sevennet or 7net-l3i5"):
        choose_engine("xtb", "crystal")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        choose_engine("chgnet", "crystal")
    with pytest.raises(ModuleNotFoundError, match=r"adit-atomate\[xtb\]"):
        choose_engine("xtb", "molecule")
