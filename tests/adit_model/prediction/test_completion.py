"""Completion: the host stays as it is, whatever its cell; what is wrong is told before work."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from pymatgen.core import Lattice, Structure

from adit_model import ADiT
from adit_model.checkpoint import read_known, resolve_checkpoint
from adit_model.notebook.sampler import ADiTSampler
from adit_model.prediction.complete import complete, fixed_mask, judge, read_add, task
from adit_model.prediction.hydrogens import hydrogens
from adit_model.prediction.sites import sites
from adit_model.quality.matching import distance
from adit_model.quality.records import check_systems
from adit_model.systems import AtomicSystem

SODIUM = bulk("Na", "fcc", a=5.64)


@pytest.fixture(scope="module")
def told(tiny_checkpoint):
    return read_known(resolve_checkpoint(str(tiny_checkpoint)))


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return ADiT.load(tiny_checkpoint)


def hosts() -> list[Atoms]:
    turned = bulk("Na", "fcc", a=5.64, cubic=True)[[2, 0, 3, 1]]
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    skewed = SODIUM.repeat((1, 1, 2))
    skewed.set_cell(np.array([[1, 0, 0], [1, 1, 0], [-2, 1, 1]]) @ skewed.cell.array)
    left = SODIUM.copy()
    left.set_cell(left.cell.array[[1, 0, 2]])  # left-handed
    return [SODIUM, turned, skewed, left]


@pytest.mark.parametrize("host", hosts(), ids=["primitive", "turned", "skewed", "left-handed"])
def test_host_keeps_cell_order_and_coordinates(model, told, host):
    asked = task(*told, host, {"Cl": len(host)}, 3)
    samples = model.sample(asked.request, progress=False)
    systems = [asked.restore(sample, k) for k, sample in enumerate(samples)]
    assert any(systems)
    for sample, system in zip(samples, systems, strict=True):
        if system is None:
            continue
        assert system.numbers.tolist() == [11] * len(host) + [17] * len(host)
        assert np.abs(system.positions[: len(host)] - host.positions).max() < 1e-6
        assert np.abs(system.cell - host.cell.array).max() < 1e-6
        # the same crystal as the network made, in another cell: all distances agree
        own = system.to_atoms().get_all_distances(mic=True)
        made = sample.system.to_atoms().get_all_distances(mic=True)
        assert own == pytest.approx(made, abs=1e-5)


def test_hosts_of_samples_have_origins_of_their_own(told):
    asked = task(*told, SODIUM, "Cl", 3)
    first, second, _ = (c.atoms[0][1:] for c in asked.request.conditions)
    assert np.abs(np.subtract(first, second)).max() > 0.01
    again = task(*told, SODIUM, "Cl", 1, first_index=1)
    assert again.request.conditions[0] == asked.request.conditions[1]


def test_part_of_a_host_is_made_anew(model, told):
    salt = bulk("NaCl", "rocksalt", a=5.64)
    asked = task(*told, salt, "Na2", 2, fixed="Cl")
    found = [asked.restore(s, k) for k, s in enumerate(model.sample(asked.request, progress=False))]
    for system in filter(None, found):
        assert system.numbers.tolist() == [17, 11, 11, 11]
        assert np.abs(system.positions[0] - salt.positions[1]).max() < 1e-6
    assert fixed_mask(AtomicSystem.from_atoms(salt), [1]).tolist() == [False, True]
    assert fixed_mask(AtomicSystem.from_atoms(salt), "0").tolist() == [True, False]
    assert fixed_mask(AtomicSystem.from_atoms(salt), [True, False]).tolist() == [True, False]
    with pytest.raises(ValueError, match="say the elements to add"):
        task(*told, salt, 2, 2, fixed="Cl")


def test_a_molecule_keeps_its_pose():
    ethanol = molecule("CH3CH2OH")
    heavy = ethanol[[a.symbol != "H" for a in ethanol]]
    heavy.translate((3, 1, 2))
    sampler = ADiTSampler("mini-2", num_steps=4, progress=False)
    asked = task(sampler._known, sampler._config, heavy, "H6", 2, num_steps=4)
    samples = sampler.model.sample(asked.request, progress=False)
    for k, sample in enumerate(samples):
        system = asked.restore(sample, k)
        assert np.abs(system.positions[:3] - heavy.positions).max() < 1e-6
        own = system.to_atoms().get_all_distances()
        assert own == pytest.approx(sample.system.to_atoms().get_all_distances(), abs=1e-5)


def test_sampler_takes_indices_and_says_what_is_missing(tiny_checkpoint):
    sampler = ADiTSampler(tiny_checkpoint, progress=False)
    found = sampler.complete(SODIUM, {"Cl": 1}, 4)
    assert sampler.next_index == 4
    assert sum(a.info["samples"] for a in found) + len(found.missing) == 4


@pytest.mark.parametrize(
    ("host", "add", "problem"),
    [
        (SODIUM, {"Xx": 1}, "'Xx' is no element"),
        (SODIUM, {}, "nothing is to be added"),
        (SODIUM, "0", "at least one atom"),
        (SODIUM, {"Cl": -1}, "at least one Cl"),
        (SODIUM, "Cl40", "41 atoms with what is added, these weights know crystals of at most 8"),
        (SODIUM, "Cl2", "no training crystal has 3 atoms"),
        (molecule("CO"), 1, "cannot complete a molecule"),
        (
            Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]]),
            "Li",
            "a host needs whole atoms; order it first",
        ),
    ],
)
def test_what_cannot_be_done_is_an_error_before_any_work(told, host, add, problem):
    with pytest.raises(ValueError, match=problem):
        task(*told, host, add, 2)


def test_what_is_added_has_many_forms():
    assert read_add("Li2") == read_add({"Li": 2}) == {"Li": 2}
    assert read_add("3") == read_add(3) == 3
    with pytest.raises(TypeError, match="integer"):
        read_add({"Li": 1.5})


def test_added_atoms_relax_first_and_the_lowest_wins(told):
    pytest.importorskip("chgnet")
    asked = task(*told, SODIUM, "Cl", 2, engine="chgnet", guesses=0)

    def filled(frac: float) -> AtomicSystem:
        spot = np.full((1, 3), frac) @ SODIUM.cell.array
        positions = np.concatenate([SODIUM.positions, spot])
        return AtomicSystem(np.array([11, 17]), positions, SODIUM.cell.array)

    found = judge(asked, [filled(0.44), filled(0.02), filled(0.27)], [0, 1, 2], progress=False)
    best = found.candidates[0]
    assert set(found.dropped) == {1}  # nothing relaxes two atoms that are one
    assert best.index == 0 and best.energy is not None
    apart = best.system.frac_coords[1] - best.system.frac_coords[0]
    assert apart - np.floor(apart) == pytest.approx(np.full(3, 0.5), abs=0.02)
    assert np.abs(best.system.cell - SODIUM.cell.array).max() < 1e-6


def test_guesses_keep_the_symmetry_of_the_host(told):
    asked = task(*told, SODIUM, "Cl", 3)
    assert asked.guesses == 2  # half as many as samples
    found = judge(asked, [None] * 3, [0, 1, 2], progress=False)
    assert {c.source for c in found.candidates} == {"sites by geometry"}
    best, other = (c.system for c in found.candidates)
    assert best.to_atoms().get_distance(0, 1, mic=True) == pytest.approx(2.82, abs=0.02)
    assert found.candidates[0].space_group == 225
    assert other.to_atoms().get_distance(0, 1, mic=True) == pytest.approx(2.44, abs=0.02)
    assert np.abs(best.positions[0] - SODIUM.positions[0]).max() < 1e-6
    with pytest.raises(ValueError, match="guesses are of crystals and elements that are given"):
        task(*told, SODIUM, 1, 2, guesses=1)


def without(crystal: Structure, symbol: str) -> AtomicSystem:
    kept = crystal.copy()
    kept.remove_species([symbol])
    return AtomicSystem.from_any(kept)


def test_hydrogens_return_to_their_oxygen_and_lithium_to_its_layer():
    brucite = Structure.from_spacegroup(
        "P-3m1",
        Lattice.hexagonal(3.14, 4.77),
        ["Mg", "O", "H"],
        [[0, 0, 0], [1 / 3, 2 / 3, 0.22], [1 / 3, 2 / 3, 0.42]],
    )
    (best,) = sites(without(brucite, "H"), {"H": 2}, 1)
    assert distance(best, AtomicSystem.from_any(brucite), "tight") is not None
    lengths = best.to_atoms().get_all_distances(mic=True)[3:, 1:3].min(axis=1)
    assert lengths == pytest.approx([0.97, 0.97], abs=0.01)
    layered = Structure.from_spacegroup(
        "R-3m",
        Lattice.hexagonal(2.82, 14.05),
        ["Co", "Li", "O"],
        [[0, 0, 0.5], [0, 0, 0], [0, 0, 0.24]],
    ).get_primitive_structure()
    (best,) = sites(without(layered, "Li"), {"Li": 1}, 1)
    assert distance(best, AtomicSystem.from_any(layered), "tight") is not None


def test_a_molecule_gets_its_hydrogens_back():
    names = ["CH3CH2OH", "C6H6", "C5H5N", "CH3COOH", "HCN", "CH3CONH2", "bicyclobutane"]
    whole = [AtomicSystem.from_atoms(molecule(name)) for name in names]
    filled = []
    for system in whole:
        kept = system.numbers != 1
        kept[np.flatnonzero(~kept)[2:3]] = True  # one stays
        host = AtomicSystem(system.numbers[kept], system.positions[kept])
        found = hydrogens(host, len(system) - len(host), 2)
        assert (found[0].positions[: len(host)] == host.positions).all()
        filled.append(found[0])
    wanted, made = check_systems(whole), check_systems(filled)
    assert [m.smiles for m in made] == [w.smiles for w in wanted]
    assert all(m.plausible for m in made)
    assert hydrogens(AtomicSystem([6, 8], [[0, 0, 0], [0, 0, 1.13]]), 1, 2) == []  # a radical
    carbon = molecule("CH4")[:1]
    asked = task(*read_known(resolve_checkpoint("mini-2")), carbon, "H4", 2)
    (best, *_) = judge(asked, [None] * 2, [0, 1], progress=False).candidates
    assert (best.smiles, best.source) == ("C", "sites by geometry")


def test_fewer_atoms_than_a_host_of_high_symmetry_has_sites_of():
    host = AtomicSystem.from_atoms(bulk("Na", "fcc", a=5.64, cubic=True))
    found = sites(host, {"Cl": 1, "F": 1}, 3)
    assert len(found) == 3
    for system in found:
        assert system.numbers.tolist() == [11] * 4 + [17, 9]
        assert system.to_atoms().get_all_distances(mic=True)[np.triu_indices(6, 1)].min() > 1.9


def test_complete_tells_what_became_of_each_sample(model, told):
    asked = task(*told, SODIUM, "Cl", 4)
    found = complete(model, asked, progress=False)
    kept = {i for c in found.candidates for i in c.samples}
    assert kept | set(found.dropped) == set(range(4))
    assert "Cl into Na: 4 candidates and 2 guesses" in found.summary()
