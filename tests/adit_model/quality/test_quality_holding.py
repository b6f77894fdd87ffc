"""Samples are drawn until so many hold what was asked, and what they hold is counted."""

from __future__ import annotations

import warnings

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule

from adit_model.conditions.condition import as_condition
from adit_model.quality.conditions import held, more_verdicts
from adit_model.quality.entries import load_samples
from adit_model.quality.holding import sample_held
from adit_model.quality.rows import Options, make_rows
from adit_model.sampling.request import Request
from adit_model.sampling.sample import Sample, SamplingInterrupted
from adit_model.systems import AtomicSystem

SALT = AtomicSystem.from_atoms(bulk("NaCl", "rocksalt", a=5.64))
DENSE = AtomicSystem.from_atoms(bulk("NaCl", "rocksalt", a=0.98))
OXIDE = AtomicSystem.from_atoms(bulk("MgO", "rocksalt", a=4.2))


def made_by(kinds, calls=None):
    """Sample i is kinds[i % len(kinds)], whatever was asked."""

    def sample(request):
        if calls is not None:
            calls.append(request)
        found = []
        for i, condition in enumerate(request.conditions, request.first_index):
            system = kinds[i % len(kinds)]
            holds = condition.holds(system)
            found.append(Sample(i, 0, "crystal", 2, system, None, {}, condition, holds))
        return found

    return sample


def test_the_first_that_hold_and_are_valid():
    kinds = [OXIDE, SALT, DENSE, OXIDE, SALT]
    calls = []
    found = sample_held(made_by(kinds, calls), Request.of(4, "Cl-Na", first_index=2), workers=1)
    assert [s.index for s in found.samples] == [4, 6, 9, 11]
    assert found.tried == 10 and [r.plausible for r in found.records] == [True] * 4
    indices = [r.first_index + i for r in calls for i in range(r.n)]
    assert indices == list(range(2, 2 + len(indices)))


def test_each_of_several_conditions_is_asked_until_it_holds():
    asked = ["Cl-Na", "Mg-O", "Mg-O"]
    found = sample_held(made_by([SALT, SALT, OXIDE]), Request.of(3, asked), workers=1)
    assert sorted(str(s.condition) for s in found.samples) == sorted(asked)
    assert all(s.holds["elements"] for s in found.samples)


def test_one_that_is_rare_is_asked_for_many_times_at_once():
    asked, calls = ["Mg-O"] * 5 + ["Cl-Na"], []
    found = sample_held(made_by([OXIDE] * 40 + [SALT], calls), Request.of(6, asked), 20, workers=1)
    assert [s.index for s in found.samples] == [0, 1, 2, 3, 4, 40] and found.tried == 41
    assert len(calls) == 11  # and not one for each try


def test_the_bound_is_told_and_nothing_is_lost():
    calls = []
    with pytest.warns(UserWarning, match="2 of 3 samples hold what was asked.* after 6 tries"):
        found = sample_held(made_by([OXIDE, OXIDE, SALT], calls), Request.of(3, "Cl-Na"), 2)
    assert [s.index for s in found.samples] == [2, 5] and found.tried == 6
    with pytest.raises(ValueError, match="max_tries must be positive, got 0"):
        sample_held(made_by([SALT]), Request.of(1), 0)


def test_an_interrupt_keeps_what_holds():
    inner = made_by([SALT, OXIDE])

    def sample(request):
        if request.first_index:
            raise SamplingInterrupted(inner(request)[:2], request.n)
        return inner(request)

    with pytest.raises(SamplingInterrupted) as caught:
        sample_held(sample, Request.of(4, "Cl-Na"))
    assert [s.index for s in caught.value.samples] == [0, 2, 4]


def test_verdicts_beyond_holds():
    generator = np.random.default_rng(0)
    shaken = AtomicSystem(
        SALT.numbers, SALT.positions + generator.normal(scale=0.05, size=(2, 3)), SALT.cell
    )
    strained = AtomicSystem(
        SALT.numbers, SALT.frac_coords @ (cell := SALT.cell * [1, 1, 1.05]), cell
    )
    asked = as_condition("Cl-Na-O, spacegroup=225")
    found = more_verdicts([asked] * 4, [shaken, strained, OXIDE, None], workers=1)
    assert found[0] == {"within": True, "symmetrised": True}
    assert found[2] == {"within": False, "symmetrised": True}
    assert found[3] == {"within": False, "symmetrised": False}
    assert more_verdicts([as_condition("spacegroup=194")], [SALT]) == [{"symmetrised": False}]
    rows = [
        {"holds": asked.holds(SALT), "plausible": valid, **verdicts}
        for valid, verdicts in zip((True, False, True, False), found, strict=True)
    ]
    counts = {name: count["passed"] for name, count in held(rows).items()}
    assert counts == {
        "elements within": 2,
        "elements": 0,
        "space_group": 4,
        "space_group symmetrised": 2 + found[1]["symmetrised"],
        "all": 0,
        "all and plausible": 0,
    }
    assert (
        held([{"holds": {"elements": True}, "plausible": False}])["all and plausible"]["passed"]
        == 0
    )


@pytest.mark.parametrize("name", ["some.extxyz", "some.db"])
def test_structures_read_back_are_compared_with_what_was_asked(tmp_path, name):
    """In the order of atoms and cell of the file, though they are measured in canonical form."""
    cell = np.diag([4.0, 4.0, 8.0])
    sites = [[0, 0, 0], [0, 0, 0.5], [0.5, 0.5, 0.25], [0.5, 0.5, 0.75]]
    asked = as_condition("Cl-Na, cell=4/4/8/90/90/90, fixed=Cl@0/0/0;Cl@0/0/0.5", domain="crystal")
    atoms = AtomicSystem([17, 17, 11, 11], np.array(sites) @ cell, cell).to_atoms()
    water = molecule("H2O")
    frames = [atoms, atoms[::-1], water]
    for frame in frames[:2]:
        frame.info = {"condition": str(asked)}
    water.info = {"condition": "of the day"}  # of somebody else
    if name.endswith(".db"):
        from ase.db import connect

        with connect(tmp_path / name) as database:
            for frame in frames:
                text = frame.info["condition"]
                database.write(frame, condition=text)
    else:
        ase.io.write(tmp_path / name, frames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entries = load_samples(str(tmp_path / name))
    held_by = [entry.holds for entry in entries]
    assert held_by[0] == dict.fromkeys(("domain", "elements", "cell", "atoms"), True)
    assert held_by[1] == {**held_by[0], "atoms": False}
    assert held_by[2] == {} and entries[0].condition == asked
    rows = make_rows(entries, None, Options(measures=()))
    assert [row.get("within") for row in rows] == [True, True, None]
