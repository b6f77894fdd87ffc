"""Candidates of many flows in one store: each kind once, read once, written to files."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import ase.db
import ase.io
import pytest
from jobflow import JobStore
from maggma.stores import MemoryStore
from monty.json import jsanitize
from pymatgen.core import Lattice, Molecule, Structure

from adit_atomate.discovery.candidates import CandidateBuilder, export_candidates
from adit_atomate.discovery.documents import ADiTCrystalCandidateDoc, ADiTMoleculeCandidateDoc

ROCK_SALT = {"Na": [0, 0, 0], "Cl": [0.5, 0.5, 0.5]}
START = datetime(2026, 1, 1)


def rock_salt(a=5.64, supercell=1, cation="Na"):
    lattice = Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])
    structure = Structure(lattice, [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    structure.make_supercell([supercell, 1, 1])
    return structure


def caesium_chloride(cation="Na"):
    return Structure(Lattice.cubic(3.5), [cation, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def water(angle=0.76):
    return Molecule("OHH", [[0, 0, 0], [angle, 0.59, 0], [-angle, 0.59, 0]])


def crystal(name, structure, score, **fields):
    return ADiTCrystalCandidateDoc.from_structure(
        meta_structure=structure,
        structure=structure,
        generated=structure,
        candidate_id=name,
        index=0,
        domain="crystal",
        num_atoms=len(structure),
        formula=structure.composition.reduced_formula,
        decoded=True,
        fate="kept",
        score=score,
        energy_above_hull=score,
        **fields,
    )


def molecule(name, geometry, score, smiles):
    return ADiTMoleculeCandidateDoc.from_molecule(
        meta_molecule=geometry,
        molecule=geometry,
        generated=geometry,
        candidate_id=name,
        index=0,
        domain="molecule",
        num_atoms=len(geometry),
        formula=geometry.composition.formula,
        decoded=True,
        fate="kept",
        score=score,
        smiles=smiles,
    )


def store_job(store, uuid, candidates, minutes=0, index=1):
    """Put what a discovery flow leaves into a job store, candidates in the store ``data``."""
    store.update(
        {
            "uuid": uuid,
            "index": index,
            "completed_at": (START + timedelta(minutes=minutes)).isoformat(),
            "output": {"n": 5, "candidates": jsanitize(candidates, strict=True)},
        },
        key=["uuid", "index"],
        save={"data": [["output", "candidates"]]},
    )


@pytest.fixture
def target() -> MemoryStore:
    return MemoryStore("candidates")


def build(jobs: JobStore, target, **options) -> list[dict]:
    """Run the builder as ``mrun`` does, and return what was read and what is there."""
    builder = CandidateBuilder(jobs, target, **options)
    builder.connect()
    items = list(builder.get_items())
    builder.update_targets([builder.process_item(item) for item in items])
    return items


def groups(target) -> dict[str, dict]:
    return {document["group_id"]: document for document in target.query()}


def test_equal_crystals_become_one(job_store, target):
    store_job(
        job_store,
        "a",
        [crystal("a-0", rock_salt(), 0.2), crystal("a-1", rock_salt(cation="K"), 0.1)],
    )
    store_job(job_store, "b", [crystal("b-0", rock_salt(5.7, supercell=2), 0.05)], minutes=1)
    store_job(job_store, "c", [crystal("c-0", caesium_chloride(), 0.3)], minutes=2)
    assert job_store.query_one({"uuid": "a"})["output"]["candidates"]["store"] == "data"
    build(job_store, target)
    found = groups(target)
    assert found.keys() == {"a-0", "a-1", "c-0"}
    salt = found["a-0"]
    assert [member["candidate_id"] for member in salt["members"]] == ["b-0", "a-0"]
    assert (salt["candidate_id"], salt["energy_above_hull"], salt["nsites"]) == ("b-0", 0.05, 4)
    assert salt["chemsys"] == "Cl-Na"
    assert {source["uuid"] for source in salt["sources"]} == {"a", "b"}


def test_a_damaged_document_costs_only_itself(job_store, target, caplog):
    store_job(job_store, "a", [crystal("a-0", rock_salt(), 0.2)])
    store_job(job_store, "lost", [crystal("l-0", rock_salt(cation="K"), 0.1)])
    store_job(job_store, "bad", [crystal("b-0", rock_salt(cation="K"), 0.1)], minutes=1)
    blobs = job_store.additional_stores["data"]
    blobs.remove_docs({"job_uuid": "lost"})
    (blob,) = blobs.query({"job_uuid": "bad"})
    blob["data"][0]["structure"]["lattice"] = "none"
    blobs.update(blob, key="blob_uuid")
    build(job_store, target)
    assert groups(target).keys() == {"a-0"}
    for uuid in ("lost", "bad"):
        assert f"candidates of job {uuid}, index 1, are skipped" in caplog.text


def test_tolerances_are_the_users(job_store, target):
    store_job(
        job_store, "a", [crystal("a-0", rock_salt(), 0.2), crystal("a-1", caesium_chloride(), 0.3)]
    )
    build(job_store, target, ltol=0.5, stol=1.5, angle_tol=60)
    assert groups(target).keys() == {"a-0"}


def test_molecules_are_equal_by_smiles(job_store, target):
    store_job(
        job_store,
        "a",
        [
            molecule("a-0", water(), 0.2, "O"),
            molecule("a-1", water(0.8), 0.1, "O"),
            molecule("a-2", water(), 0.1, None),
            molecule("a-3", water(), 0.1, None),
        ],
    )
    build(job_store, target)
    found = groups(target)
    assert found.keys() == {"a-0", "a-2", "a-3"}  # without SMILES nothing is known to be equal
    assert found["a-0"]["candidate_id"] == "a-1"
    assert found["a-0"]["num_members"] == 2


def test_only_new_jobs_are_read(job_store, target):
    store_job(job_store, "a", [crystal("a-0", rock_salt(), 0.2)], minutes=5)
    assert len(build(job_store, target)) == 1
    before = groups(target)
    assert build(job_store, target) == []
    assert groups(target) == before
    # It completed before the other one, but arrived later.
    store_job(job_store, "b", [crystal("b-0", rock_salt(cation="K"), 0.1)], minutes=1)
    items = build(job_store, target)
    assert [c["candidate_id"] for item in items for c in item["new"]] == ["b-0"]
    assert groups(target)["a-0"] == before["a-0"]
    assert groups(target).keys() == {"a-0", "b-0"}


def test_order_of_the_jobs_does_not_change_the_groups(job_store, target):
    documents = [
        crystal("x", rock_salt(), 0.2),
        crystal("y", rock_salt(5.7), 0.1),
        crystal("z", caesium_chloride(), 0),
    ]
    for i, document in enumerate(documents):
        store_job(job_store, f"job {i}", [document], minutes=i)
        build(job_store, target)
    other = MemoryStore("at once")
    build(job_store, other)
    members = [
        {frozenset(m["candidate_id"] for m in g["members"]) for g in groups(store).values()}
        for store in (target, other)
    ]
    assert members[0] == members[1] == {frozenset("xy"), frozenset("z")}


def test_a_job_that_ran_again_replaces_its_candidates(job_store, target):
    store_job(job_store, "a", [crystal("a-0", rock_salt(), 0.2)])
    build(job_store, target)
    calculated = crystal("a-0", rock_salt(5.6), 0.2, dft={"state": "successful", "energy": -3.0})
    store_job(job_store, "a", [calculated], minutes=9)
    build(job_store, target)
    (group,) = groups(target).values()
    assert group["num_members"] == 1
    assert group["dft"]["energy"] == -3.0


def test_a_dft_result_goes_before_a_better_score(job_store, target):
    dft = {"state": "successful", "energy": -3.0}
    store_job(job_store, "a", [crystal("a-0", rock_salt(), 0.2, dft=dft)])
    store_job(job_store, "b", [crystal("b-0", rock_salt(), 0.1, dft={"state": "failed"})])
    build(job_store, target)
    assert groups(target)["a-0"]["candidate_id"] == "a-0"


def test_other_jobs_and_empty_ones_are_passed_over(job_store, target):
    job_store.update(
        {"uuid": "x", "index": 1, "completed_at": START.isoformat(), "output": {"n": 1}}
    )
    store_job(job_store, "a", [])
    assert build(job_store, target) == []


def test_run_of_maggma(job_store, tmp_path):
    pytest.importorskip("montydb")
    from maggma.stores import MontyStore

    store_job(job_store, "a", [crystal("a-0", rock_salt(), 0.2)])
    target = MontyStore("candidates", database_path=str(tmp_path))
    CandidateBuilder(job_store, target).run(log_level=logging.WARNING)
    target.connect()
    assert [document["group_id"] for document in target.query()] == ["a-0"]


# files


@pytest.fixture
def filled(job_store, target):
    candidates = [
        crystal("a-0", rock_salt(), 0.2),
        crystal("a-1", rock_salt(cation="K"), -0.1),
        molecule("a-2", water(), 0.1, "O"),
    ]
    store_job(job_store, "a", candidates)
    build(job_store, target)
    return target


def test_folder_of_cif_files(filled, tmp_path):
    written = export_candidates(filled, tmp_path / "best", k=2)
    assert written == ["a-1", "a-2"]
    names = sorted(path.name for path in (tmp_path / "best").iterdir())
    assert names == ["1_KCl.cif", "2_H2O.xyz"]
    again = Structure.from_file(tmp_path / "best" / names[0])
    assert again.composition.reduced_formula == "KCl"
    assert again.volume == pytest.approx(5.64**3 / 4)


@pytest.mark.parametrize("format", ["extxyz", "db"])
def test_files_of_ase(filled, tmp_path, format):
    path = tmp_path / f"best.{format}"
    criteria = {"domain": "crystal"}
    assert export_candidates(filled, path, format=format, criteria=criteria) == ["a-1", "a-0"]
    if format == "db":
        rows = list(ase.db.connect(path).select(candidate_id="a-1"))
        assert [(row.formula, row.energy_above_hull) for row in rows] == [("KCl", -0.1)]
    images = ase.io.read(path, index=":")
    assert [image.get_chemical_formula() for image in images] == ["ClK", "ClNa"]
    assert images[0].cell.volume == pytest.approx(5.64**3 / 4)
    assert all(images[0].pbc)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be a positive integer or None, got 0"),
        ({"format": "pdf"}, "format must be one of cif, poscar, extxyz, db, got 'pdf'"),
        ({"criteria": {"domain": "glass"}}, "no candidate in .* matches"),
    ],
)
def test_bad_requests_write_nothing(filled, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_candidates(filled, tmp_path / "best", **options)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(filled, tmp_path):
    (tmp_path / "best.extxyz").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        export_candidates(filled, tmp_path / "best.extxyz", format="extxyz")
    with pytest.raises(ValueError, match="exists already"):
        export_candidates(filled, tmp_path)
