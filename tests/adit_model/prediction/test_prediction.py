"""Prediction: what is checked before work, and what samples of a formula become."""

from __future__ import annotations

import numpy as np
import pytest
from small_crystals import caesium_chloride, rocksalt

from adit_model.checkpoint import read_known, resolve_checkpoint
from adit_model.data.dataset import AtomicDataset
from adit_model.prediction.predict import judge, question
from adit_model.sampling.sample import Sample
from adit_model.systems import AtomicSystem


@pytest.fixture(scope="module")
def told():
    return read_known(resolve_checkpoint("mini-2"))


@pytest.fixture(scope="module")
def phases():
    def named(system: AtomicSystem, name: str) -> AtomicSystem:
        return AtomicSystem(system.numbers, system.positions, system.cell, {"id": name})

    potassium = rocksalt(6.6)
    potassium = AtomicSystem(np.array([19, 35]), potassium.positions, potassium.cell)
    data = AtomicDataset.from_systems(
        [named(rocksalt(), "halite"), named(rocksalt(5.7), "again"), named(potassium, "sylvite")]
    )
    data.labels["e_above_hull"] = np.array([0.0, 0.1, 0.0], np.float32)
    return data


def sampled(index: int, system: AtomicSystem | None) -> Sample:
    numbers = np.array([11, 17])
    reason = None if system is not None else "cell angles span no volume"
    return Sample(index, 0, "crystal", 2, system, reason, {"numbers": numbers})


def test_units_that_are_free_are_drawn_as_known_crystals_have_them(told, phases):
    asked = question(*told, "NaCl", 40, engine="none", phases=phases)
    conditions = [c for request in asked.requests for c in request.conditions]
    assert {c.formula_units for c in conditions} <= set(range(1, 11))
    assert {c.formula for c in conditions} == {"NaCl"}
    assert asked.types == 1  # so many fit
    free, known = asked.requests  # half of them take the symmetry of known crystals
    assert (free.n, known.n, known.first_index) == (20, 19, 20)
    assert [dict(r.sampling)["symmetry"] for r in asked.requests] == ["found", "known"]
    told_so = question(*told, "NaCl", 4, engine="none", phases=phases, symmetry="free")
    assert [r.n for r in told_so.requests] == [3]
    gapped = question(*told, "NaCl, band_gap=2", 4, engine="none", phases=phases)
    assert gapped.types == 0  # no structure type is known to have that
    with pytest.raises(ValueError, match="0 to 4 are structure types"):
        question(*told, "NaCl", 4, engine="none", phases=phases, types=5)
    few = question(*told, "NaCl, units=2", 3, engine="none", phases=phases)
    assert {c.formula_units for c in few.requests[0].conditions} == {2}


def test_a_formula_with_carbon_or_hydrogen_is_a_molecule_unless_told(told, phases):
    assert question(*told, "C6H6O", 2, engine="none").condition.domain == "molecule"
    crystal = question(*told, "crystal, CH2O", 2, engine="none", phases=phases)
    assert crystal.condition.domain == "crystal"
    assert question(*told, "Fe", 2, engine="none", phases=phases).condition.formula == "Fe"


@pytest.mark.parametrize(
    ("formula", "problem"),
    [
        ("Li40Mn3O4", "47 atoms a unit, and no training crystal"),
        ("LiXx2", "'Xx' is no element"),
        ("Li-O", "a prediction needs a formula"),
        ("C20H42", "no training molecule has 62 atoms|62 atoms a unit"),
    ],
)
def test_what_cannot_be_made_is_an_error_before_any_work(told, phases, formula, problem):
    with pytest.raises(ValueError, match=problem):
        question(*told, formula, 2, engine="none", phases=phases)


def test_samples_become_ranked_candidates_beside_known_crystals(told, phases):
    asked = question(*told, "NaCl, units=1", 5, engine="none", phases=phases, types=0)
    systems = [caesium_chloride(), rocksalt(noise=0.02), rocksalt(5.5), rocksalt(2.0), None]
    samples = [sampled(i, system) for i, system in enumerate(systems)]
    found = judge(samples, asked, phases=phases, progress=False)
    assert [c.samples for c in found.candidates] == [(1, 2), (0,)]
    assert [c.known for c in found.candidates] == ["halite", None]
    assert found.candidates[0].space_group == 225 and found.candidates[0].moved is not None
    assert found.found == {"halite": 1}  # the crystal that is the same as it is one with it
    assert found.dropped[3].startswith("implausible") and found.dropped[4].startswith("not decoded")
    assert [r["rank"] for r in found.rows()] == [1, 2, None]
    assert "halite: rank 1" in found.summary()


def test_structure_types_are_candidates_beside_samples(told, phases):
    asked = question(*told, "LiF, units=1", 4, engine="none", phases=phases, seed=1)
    assert (asked.generated, asked.types) == (2, 2)  # of three that fit
    lithium = [
        AtomicSystem(np.array([3, 9]), s.positions, s.cell)
        for s in (caesium_chloride(2.6), rocksalt(4.0, noise=0.02))
    ]
    samples = [sampled(i, system) for i, system in enumerate(lithium)]
    found = judge(samples, asked, phases=phases, progress=False)
    first, second = found.candidates  # the type and the sample that is the same are one
    assert first.source == "structure type of NaCl (halite) and generated"
    assert first.samples == (2, 1) and first.space_group == 225 and first.known is None
    assert second.source == "generated" and second.samples == (0,)
    assert found.beside == () and found.known == 0
    assert "LiF as a crystal: 2 generated, 2 structure types" in found.summary()
    assert "no crystal of this composition is known" in found.summary()
    likeliest = question(*told, "LiF, units=1", 1, engine="none", phases=phases)
    assert likeliest.requests == () and likeliest.types == 1
    (one,) = judge([], likeliest, phases=phases, progress=False).candidates
    assert one.source == "structure type of NaCl (halite)"


def test_a_type_that_a_relaxation_would_break_is_told(told, phases, monkeypatch):
    monkeypatch.setattr("adit_model.prediction.templates.scaled", lambda system: system)
    tight = AtomicDataset.from_systems(
        [AtomicSystem(np.array([1, 9]), 0.3 * rocksalt().positions, 0.3 * rocksalt().cell)]
    )
    asked = question(*told, "LiF, units=1", 1, engine="none", phases=tight)
    found = judge([], asked, phases=tight, progress=False)
    assert found.candidates == () and found.dropped[0].startswith("implausible")
