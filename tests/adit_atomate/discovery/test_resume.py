"""A local discovery that was cut off goes on, and ends as if it had not been."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from atomate2.ase.jobs import EmtRelaxMaker
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder
from pymatgen.core import Lattice, Structure

from adit_atomate import ADiTDiscoveryMaker, ADiTRelaxStageMaker, resume
from adit_atomate.discovery.rank import ADiTHullMaker
from adit_model.quality.hull import Hull

FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.51]]
CRYSTALS = [
    Structure(Lattice.cubic(a), [symbol] * 4, FCC)
    for symbol, a in (("Cu", 3.6), ("Al", 4.0), ("Ag", 4.1), ("Pt", 3.9), ("Au", 4.1))
]


@dataclass
class MortalMaker(EmtRelaxMaker):
    """An EMT relaxation that writes down what it relaxes, and dies at silver if told so."""

    def run_ase(self, mol_or_struct, prev_dir=None):
        symbol = mol_or_struct[0].specie.symbol
        if symbol == "Ag" and Path("die").exists():
            raise KeyboardInterrupt
        with open("relaxed.txt", "a") as file:
            file.write(f"{symbol} ")
        return super().run_ase(mol_or_struct, prev_dir)


@pytest.fixture
def maker() -> ADiTDiscoveryMaker:
    relax = MortalMaker(relax_kwargs={"fmax": 0.05, "final_atoms_object_file": None})
    return ADiTDiscoveryMaker(
        novelty_maker=None,
        relax_maker=ADiTRelaxStageMaker(
            relax_maker=relax, chunk_size=2, symmetrise=None, time_limit=None, memory_limit=None
        ),
    )


def told(document) -> list[tuple]:
    """What a discovery found, times and uuids aside."""
    return [
        (s.index, s.fate, s.rank, s.reason, s.relaxation.energy, s.energy_above_hull)
        for s in document.samples
    ]


def test_a_discovery_that_was_cut_off_goes_on(maker, clean_dir):
    stores = [JobStore(MemoryStore(), additional_stores={"data": MemoryStore()}) for _ in range(2)]
    whole = maker.make(structures=CRYSTALS)
    run_locally(whole, store=stores[0], log=False)
    undisturbed = MontyDecoder().process_decoded(stores[0].get_output(whole.output.uuid, load=True))
    Path("relaxed.txt").unlink()
    Path("die").touch()
    flow = maker.make(structures=CRYSTALS)
    with pytest.raises(KeyboardInterrupt):
        run_locally(flow, store=stores[1], log=False)
    Path("die").unlink()
    kept = {document["name"] for document in stores[1].query(properties=["name"])}
    assert "EMT relaxation 1/3" in kept and "EMT relaxation 2/3" not in kept
    document = resume(stores[1], log=False)
    assert told(document) == told(undisturbed)
    assert {s.fate for s in document.samples} == {"kept"}
    assert Path("relaxed.txt").read_text().split() == ["Cu", "Al", "Ag", "Pt", "Au"]
    assert document.samples[0].candidate_id == f"{flow.jobs[0].uuid}-0"
    assert told(resume(stores[1], flow.jobs[0].uuid, log=False)) == told(undisturbed)
    assert len(Path("relaxed.txt").read_text().split()) == 5  # nothing is done again


def test_a_job_killed_as_it_stored_its_data_is_done_again(maker, clean_dir):
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    flow = maker.make(structures=CRYSTALS)
    run_locally(flow, store=store, log=False)
    undisturbed = told(
        MontyDecoder().process_decoded(store.get_output(flow.output.uuid, load=True))
    )
    data = store.additional_stores["data"]
    first = flow.jobs[0].uuid
    later = {d["job_uuid"] for d in data.query(properties=["job_uuid"])} - {first}
    assert later
    data.remove_docs({"job_uuid": {"$in": list(later)}})  # jobflow stores them after the document
    assert told(resume(store, log=False)) == undisturbed
    data.remove_docs({"job_uuid": first})
    with pytest.raises(ValueError, match=r"not the structures of job .* make the flow again"):
        resume(store, log=False)


def test_without_internet_nothing_that_was_relaxed_is_lost(maker, clean_dir, monkeypatch, caplog):
    """The Materials Project is asked last: the job says how to go on, and that works."""
    monkeypatch.setenv("MP_API_KEY", "0" * 32)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setattr("adit_model.data.http.time.sleep", lambda seconds: None)
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    energies = {"Cu": 0.0, "Al": 0.0}
    rank = ADiTHullMaker(hull="mp", element_energies=energies)
    flow = replace(maker, rank_maker=rank).make(structures=CRYSTALS[:2])
    run_locally(flow, store=store)
    assert "Check the network" in caplog.text
    assert "What was relaxed is in the job store" in caplog.text
    with pytest.raises(RuntimeError, match="the discovery did not end"):
        resume(store, log=False)
    hull = Hull.of_elements()
    monkeypatch.setattr(Hull, "from_materials_project", lambda systems: hull)
    assert {s.fate for s in resume(store, log=False).samples} == {"kept"}
    assert Path("relaxed.txt").read_text().split() == ["Cu", "Al"]


def test_there_must_be_something_to_go_on_from(job_store):
    with pytest.raises(ValueError, match="no discovery to go on with: make a flow"):
        resume(job_store)
