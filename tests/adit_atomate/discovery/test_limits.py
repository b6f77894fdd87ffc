"""Relaxations that are stopped, symmetrised first, or kept symmetric."""

from __future__ import annotations

import json
import os
import resource
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from ase.build import bulk
from atomate2.ase.jobs import EmtRelaxMaker
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import DummySpecies, Element, Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from adit_atomate import ADiTDiscoveryMaker, ADiTRelaxStageMaker
from adit_atomate.discovery.relax import torchsim_relax_maker
from adit_atomate.discovery.torchsim import _converged, relax_batch

FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
QUICK = {"fmax": 0.05, "final_atoms_object_file": None}


def fcc(symbol: str, a: float, shake: float = 0.0) -> Structure:
    structure = Structure(Lattice.cubic(a), [symbol] * 4, FCC)
    structure.translate_sites([3], np.array([0.5, 0.3, 0.8]) * shake / a)
    return structure


@dataclass
class HungryMaker(EmtRelaxMaker):
    """An EMT relaxation that takes all memory for silver, and all time for gold."""

    def run_ase(self, mol_or_struct, prev_dir=None):
        symbol = mol_or_struct[0].specie.symbol
        taken = []
        while symbol == "Ag":
            taken.append(np.ones(10_000_000))
        if symbol == "Au":
            time.sleep(600)
        return super().run_ase(mol_or_struct, prev_dir)


def relaxed(stage: ADiTRelaxStageMaker, structures):
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    flow = stage.make(structures)
    run_locally(flow, store=store, ensure_success=True, log=False)
    return MontyDecoder().process_decoded(store.get_output(flow.output.uuid, load=True))


def test_what_is_stopped_says_why_and_the_others_go_on(clean_dir):
    stage = ADiTRelaxStageMaker(
        relax_maker=HungryMaker(relax_kwargs=QUICK), time_limit=30.0, memory_limit=1.5
    )
    document = relaxed(stage, [fcc("Ag", 4.1), fcc("Cu", 3.6), fcc("Au", 4.1), fcc("Pt", 3.9)])
    silver, copper, gold, platinum = document.samples
    assert silver.reason == "stopped: more than 1.5 GB of memory"
    assert gold.reason == "stopped: no result within 30 s"
    assert {silver.fate, gold.fate} == {"not relaxed"}
    assert copper.relaxation.state == platinum.relaxation.state == "successful"
    assert [s is None for s in document.structures] == [True, False, True, False]


def test_symmetrised_first_where_it_moves_little(clean_dir):
    crystals = [fcc("Cu", 3.65, shake=0.05), fcc("Cu", 3.65, shake=0.4)]
    stage = ADiTRelaxStageMaker(relax_maker=EmtRelaxMaker(relax_kwargs=QUICK), time_limit=None)
    stage = replace(stage, memory_limit=None)
    near, far = relaxed(stage, crystals).samples
    assert near.symmetrised == "Fm-3m" and 0.02 < near.symmetrised_move < 0.05
    assert far.symmetrised is None is far.symmetrised_move
    plain, _ = relaxed(replace(stage, symmetrise=None), crystals).samples
    assert plain.symmetrised is None
    assert near.relaxation.num_steps <= plain.relaxation.num_steps
    assert near.relaxation.energy == pytest.approx(plain.relaxation.energy, abs=0.01)


def test_symmetry_pressure_and_atoms_are_kept(clean_dir):
    stage = ADiTRelaxStageMaker(
        relax_maker=EmtRelaxMaker(relax_kwargs=QUICK), time_limit=None, memory_limit=None
    )
    tetragonal = AseAtomsAdaptor.get_structure(bulk("Cu", "bct", 2.5, c=3.9))
    free = relaxed(stage, [tetragonal]).structures[0]
    kept = relaxed(replace(stage, fix_symmetry=True), [tetragonal]).structures[0]
    assert kept.get_space_group_info(0.01)[1] in (139, 225)
    pressed = relaxed(replace(stage, pressure=20.0), [tetragonal]).structures[0]
    assert pressed.volume < 0.95 * free.volume
    alloy = Structure(Lattice.cubic(3.8), ["Cu", "Au", "Au", "Au"], FCC)
    alloy.translate_sites([0, 3], [0, 0, 0.04])
    held = relaxed(replace(stage, fix_atoms=["Cu"], symmetrise=None), [alloy]).structures[0]
    assert held.lattice == alloy.lattice
    assert np.allclose(held[0].coords, alloy[0].coords)
    assert not np.allclose(held[3].coords, alloy[3].coords, atol=1e-3)
    with pytest.raises(ValueError, match="needs a cell that relaxes"):
        replace(stage, fix_atoms=["Cu"], pressure=1.0).make([alloy])
    with pytest.raises(ValueError, match="memory_limit must be a positive number or None, got -1"):
        replace(stage, memory_limit=-1).make([alloy])


def test_torchsim_relaxes_many_in_one_job(clean_dir):
    """Also as a queue keeps the Maker."""
    if find_spec("torch_sim") is None:
        with pytest.raises(ModuleNotFoundError, match=r"TorchSim needs Python 3\.12 or newer"):
            torchsim_relax_maker()
        pytest.skip("TorchSim is not installed")
    maker = replace(torchsim_relax_maker(device="cpu"), max_steps=20)
    maker = json.loads(json.dumps(maker, cls=MontyEncoder), cls=MontyDecoder)
    stage = ADiTRelaxStageMaker(relax_maker=maker, symmetrise=None)
    slow = Structure(Lattice.hexagonal(3.2, 8.0), ["Mg"] * 2, [[0, 0, 0], [0.2, 0.2, 0.3]])
    crystals = [fcc("Cu", 3.63), slow, fcc("Al", 4.05)]
    output = relaxed(stage, crystals)
    copper, magnesium, aluminium = (sample.relaxation for sample in output.samples)
    assert copper.state == aluminium.state == "successful"
    assert output.structures[0].volume == pytest.approx(4 * 11.8, rel=0.05)  # of PBE
    assert copper.energy_per_atom == pytest.approx(-4.09, abs=0.02)
    assert copper.calculator == "SevenNet" and copper.max_force < 0.05
    assert copper.uuid == aluminium.uuid
    assert magnesium.state == "failed" and "did not converge (largest force" in magnesium.reason


def test_each_structure_of_a_batch_that_raises_is_tried_alone():
    maker = SimpleNamespace(name="no Maker", init_kwargs=None)
    parts = relax_batch(maker, [fcc("Cu", 3.6), fcc("Al", 4.0)])
    assert [part["document"] for part in parts] == [None, None]
    assert all("Error: " in part["reason"] for part in parts)


@pytest.mark.parametrize(
    ("force", "stress", "asked", "converged"),
    [
        (0.04, 1.0, {"force_tol": 0.05}, True),
        (0.06, 0.0, {"force_tol": 0.05}, False),
        (np.nan, 0.0, {}, False),
        (0.09, 1.0, {}, True),  # TorchSim's own limit
        (0.0, 0.004, {"force_tol": 0.05, "include_cell_forces": True}, True),
        (0.0, 0.01, {"force_tol": 0.05, "include_cell_forces": True}, False),
    ],
)
def test_torchsim_tells_not_what_converged(force, stress, asked, converged):
    """Its document has forces and stress only."""
    maker = SimpleNamespace(convergence_fn="force", convergence_fn_kwargs=asked, init_kwargs={})
    forces = np.array([[force, 0, 0], [0, 0, 0]])
    assert _converged(maker, forces, stress * np.eye(3), volume=20.0) == converged


def test_dense_iron_costs_neither_memory_nor_the_good_crystal(clean_dir, monkeypatch):
    """Four iron atoms at 1.4 angstrom: CHGNet would take more than 15 GB for it."""
    pytest.importorskip("chgnet")
    from adit_atomate.discovery.relax import chgnet_relax_maker

    salt = AseAtomsAdaptor.get_structure(bulk("NaCl", "rocksalt", 5.6))
    maker = ADiTDiscoveryMaker(
        novelty_maker=None, rank_maker=None, relax_maker=replace(chgnet_relax_maker(), steps=60)
    )
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    flow = maker.make(structures=[fcc("Fe", 1.4), salt])
    started = sum(os.times()[:4])
    run_locally(flow, store=store, log=False)
    assert sum(os.times()[:4]) - started < 60, "seconds of CPU, here and in the processes"
    document = MontyDecoder().process_decoded(store.get_output(flow.output.uuid, load=True))
    iron, good = document.samples
    assert iron.fate == "not plausible" and "cubic angstrom an atom" in iron.reason
    assert good.fate == "kept" and good.relaxation.state == "successful"
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # bytes on Linux
    assert max(psutil.Process().memory_info().rss, of_children) < 4e9


def test_fuzzed_structures_are_all_accounted_for(clean_dir):
    """Cells of 0.5 to 60 angstrom, coinciding atoms, no numbers, no elements.

    ADIT_FUZZED=1000 asks for more of them.
    """
    count_all = int(os.environ.get("ADIT_FUZZED", 60))
    generator = np.random.default_rng(1)
    crystals = []
    while len(crystals) < count_all:
        lattice = Lattice(generator.normal(size=(3, 3)) * np.exp(generator.uniform(-0.7, 4.1)))
        if lattice.volume < 1e-3:
            continue
        count = int(generator.integers(1, 30))
        spread = generator.choice([0.0, 0.1, 1.0])
        sites = 0.5 + spread * generator.random((count, 3))
        if len(crystals) % 10 == 0:
            sites[0, 0] = np.nan
        numbers = generator.integers(1, 121 if len(crystals) % 10 == 5 else 119, count)
        species = [Element.from_Z(z) if z < 119 else DummySpecies(f"X{z}") for z in numbers]
        crystals.append(Structure(lattice, species, sites))
    maker = ADiTDiscoveryMaker(
        novelty_maker=None, rank_maker=None, relax_maker=EmtRelaxMaker(steps=2, relax_kwargs=QUICK)
    )
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    flow = maker.make(structures=crystals)
    run_locally(flow, store=store, log=False)
    document = MontyDecoder().process_decoded(store.get_output(flow.output.uuid, load=True))
    print(document.fates)
    assert sum(document.fates.values()) == document.n == len(crystals)
    no_numbers = [not np.isfinite(c.frac_coords).all() for c in crystals]
    no_elements = [any(isinstance(s, DummySpecies) for s in c.species) for c in crystals]
    bad = np.array(no_numbers) | np.array(no_elements)
    assert sum(no_numbers) == count_all // 10 < sum(bad) == document.fates["not decoded"]
    assert all(s.fate == "kept" or s.reason for s in document.samples)
