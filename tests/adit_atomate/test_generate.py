from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import fields, replace

import numpy as np
import pytest
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Molecule, Structure

from adit_atomate import ADiTGenerateDoc, ADiTGenerateMaker
from adit_atomate.stores import JobStoreError
from adit_model.conditions.condition import Condition
from adit_model.model import ADiT
from adit_model.quality.records import count_records
from adit_model.sampling.request import Request


@pytest.fixture(scope="module")
def maker(tiny_checkpoint) -> ADiTGenerateMaker:
    return ADiTGenerateMaker(checkpoint=str(tiny_checkpoint), check_validity=False)


@pytest.fixture(scope="module")
def finished(maker):
    """One run of 20 samples of both domains: the job, its document and its store."""
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    job = replace(maker, check_validity=True).make(n=20)
    responses = run_locally(job, store=store, ensure_success=True)
    return job, responses[job.uuid][1].output, store


# what a job gives


def test_structures_are_those_of_the_model(finished, tiny_checkpoint):
    document = finished[1]
    systems = [s.system for s in ADiT.load(tiny_checkpoint).sample(20, progress=False)]
    systems = [system for system in systems if system is not None]
    assert 10 < len(systems) < 20  # some of this model's cells are unphysical
    assert [len(s) for s in document.structures] == [len(system) for system in systems]
    for structure, system in zip(document.structures, systems, strict=True):
        np.testing.assert_allclose(structure.cart_coords, system.positions)
        assert structure.properties["index"] == system.info["index"]
        assert isinstance(structure, Structure if system.is_periodic else Molecule)


def test_structures_are_divided_by_domain(finished):
    document = finished[1]
    assert document.crystals == [s for s in document.structures if isinstance(s, Structure)]
    assert document.molecules == [s for s in document.structures if isinstance(s, Molecule)]
    assert document.crystals and document.molecules


def test_a_record_for_each_sample(finished):
    document = finished[1]
    assert [record.index for record in document.samples] == list(range(20))
    for record in document.samples:
        if record.decoded:
            structure = document.structures[record.structure_index]
            assert structure.properties["index"] == record.index
            assert len(structure) == record.num_atoms
        else:
            assert record.structure_index is None
            assert record.plausible is False
            assert "cell angles" in record.reason
        assert record.plausible is (record.reason is None)


def test_counts_follow_from_the_records(finished):
    document = finished[1]
    assert set(document.counts) == {"crystal", "molecule"}
    for domain, count in document.counts.items():
        records = [record for record in document.samples if record.domain == domain]
        assert count.requested == len(records) == 10
        assert count.decoded == sum(record.decoded for record in records)
        assert count.plausible == sum(record.plausible for record in records)
    assert document.counts["crystal"].plausible < document.counts["crystal"].decoded
    assert 0 < document.counts["crystal"].decoded < 10
    # Random weights make nothing plausible: of these records two are said to be.
    crystals = [record for record in document.samples if record.domain == "crystal"]
    decoded = [record for record in crystals if record.decoded]
    said = [r.model_copy(update={"plausible": True, "reason": None}) for r in decoded[:2]]
    (count,) = count_records([*said, *(r for r in crystals if r not in decoded[:2])]).values()
    assert (count.requested, count.decoded, count.plausible) == (10, len(decoded), 2)


def test_provenance(finished, tiny_checkpoint):
    document = finished[1]
    model = ADiT.load(tiny_checkpoint)
    assert document.checkpoint.hash == model.checkpoint_hash
    assert document.checkpoint.name == str(tiny_checkpoint)
    sampling = {
        "num_steps": 3,
        "solver": "euler",
        "guidance_scale": 1.0,
        "noise_scale": 1.0,
        "symmetry": "asked",
        "step_focus": 0.0,
        "even_electrons": False,
    }
    assert document.request == Request(20, sampling=sampling)
    assert document.device in ("cpu", "cuda:0", "cuda")
    assert document.versions["adit-atomate"]
    assert min(document.timings.model_dump().values()) > 0


def test_settings_reach_the_model(maker, tiny_checkpoint, job_store):
    options = {
        "domain": "molecule",
        "seed": 5,
        "num_steps": 2,
        "solver": "heun",
        "guidance_scale": 1.0,
        "noise_scale": 0.5,
        "symmetry": "free",
        "num_atoms": (3, 4),
        "random_rotation": True,
    }
    job = replace(maker, **options, batch_atoms=4).make(n=4)
    document = run_locally(job, store=job_store, ensure_success=True)[job.uuid][1].output
    samples = ADiT.load(tiny_checkpoint).sample(4, **options, progress=False)
    assert len(document.structures) == 4
    for structure, sample in zip(document.structures, samples, strict=True):
        np.testing.assert_allclose(structure.cart_coords, sample.system.positions, atol=1e-5)
    assert document.crystals == []
    assert {record.plausible for record in document.samples} == {None}
    assert document.counts["molecule"].plausible is None
    assert document.request == Request.of(4, **options, step_focus=0.0, even_electrons=False)
    assert document.samples[0].condition == "molecule, atoms=3-4"
    assert document.samples[0].holds == {"domain": True, "num_atoms": True}
    assert document.structures[0].properties["condition"] == "molecule, atoms=3-4"


def test_shares_of_what_was_asked_and_guidance_by_kind(maker, job_store, tiny_checkpoint):
    maker = replace(maker, domain="crystal", condition="Li-O, atoms=2-4", guidance_scale="1")
    job = maker.make(n=4)
    document = run_locally(job, store=job_store, ensure_success=True)[job.uuid][1].output
    decoded = sum(record.decoded for record in document.samples)
    assert document.tried == 4 and document.holds["elements within"].passed == decoded
    assert {"elements", "num_atoms", "all", "all and plausible"} <= set(document.holds)
    assert document.holds["elements"].passed == decoded  # all of them
    with pytest.raises(ValueError, match="acts on nothing for space_group"):
        replace(maker, guidance_scale={"space_group": 2}).make(n=1)


def test_a_training_report_samples_what_was_asked(tiny_checkpoint):
    from adit_atomate.training.report import ADiTTrainReportMaker

    maker = ADiTTrainReportMaker(n=3, condition="O-Li, atoms=2")
    assert maker.condition == "Li-O, atoms=2"
    summary = maker._sample(ADiT.load(tiny_checkpoint))
    assert set(summary) == {"crystals"} and summary["crystals"]["count"] == 3
    assert summary["crystals"]["holds"]["elements"]["of"] == 3


# what the store keeps


def test_large_parts_go_to_the_additional_store(finished):
    job, document, store = finished
    raw = store.query_one({"uuid": job.uuid})["output"]
    for part in ("structures", "samples"):
        assert raw[part]["store"] == "data"
    assert store.additional_stores["data"].count() == 2  # each structure once
    assert raw["counts"]["crystal"]["requested"] == 10
    loaded = store.get_output(job.uuid, load=True)
    again = MontyDecoder().process_decoded(loaded)
    assert isinstance(again, ADiTGenerateDoc)
    assert again == document


def test_size_of_the_main_document_does_not_grow(maker, job_store):
    """So any number of samples stays below MongoDB's 16 MB."""
    sizes = []
    for n in (4, 400):
        job = maker.make(n=n)
        run_locally(job, store=job_store, ensure_success=True)
        document = job_store.query_one({"uuid": job.uuid})
        sizes.append(len(json.dumps(document, default=str)))
    assert abs(sizes[1] - sizes[0]) < 100
    assert sizes[1] < 3000


def test_the_document_holds_no_training_text(job_store):
    """The bundled weights know thousands of formulas; of these a document says the hash alone."""
    job = ADiTGenerateMaker(num_steps=1, num_atoms=3, check_validity=False).make(n=1)
    run_locally(job, store=job_store, ensure_success=True)
    document = job_store.query_one({"uuid": job.uuid})["output"]
    assert document["checkpoint"]["licence"] == "MIT"
    assert len(document["checkpoint"]["hash"]) == 64
    assert len(json.dumps(document, default=str)) < 3000


def test_another_process_reads_a_persistent_store(maker, tmp_path):
    pytest.importorskip("montydb")
    from maggma.stores import MontyStore

    folder = str(tmp_path)
    store = JobStore(
        MontyStore("outputs", database_path=folder),
        additional_stores={"data": MontyStore("blobs", database_path=folder)},
    )
    job = maker.make(n=6)
    document = run_locally(job, store=store, ensure_success=True)[job.uuid][1].output
    store.close()
    code = f"""
        from jobflow import JobStore
        from maggma.stores import MontyStore
        from monty.json import MontyDecoder

        store = JobStore(
            MontyStore("outputs", database_path={folder!r}),
            additional_stores={{"data": MontyStore("blobs", database_path={folder!r})}},
        )
        store.connect()
        output = MontyDecoder().process_decoded(store.get_output({job.uuid!r}, load=True))
        print(type(output).__name__, len(output.samples), output.checkpoint.hash)
        print(*(s.formula.replace(" ", "") for s in output.structures))
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    first, second = found.stdout.splitlines()
    assert first == f"ADiTGenerateDoc 6 {document.checkpoint.hash}"
    assert second.split() == [s.formula.replace(" ", "") for s in document.structures]


@pytest.mark.parametrize("additional", [{}, {"blobs": MemoryStore()}])
def test_no_place_for_the_structures(maker, additional):
    store = JobStore(MemoryStore(), additional_stores=additional)
    store.connect()
    with pytest.raises(JobStoreError, match="no additional store 'data'"):
        maker.make(n=2).run(store)
    assert store.count() == 0


# other Makers


def test_output_goes_into_a_relaxation_as_it_is(maker, job_store, clean_dir):
    """The list of each domain resolves to what an ASE Maker of atomate2 relaxes."""
    from atomate2.ase.jobs import LennardJonesRelaxMaker

    generate = replace(maker, num_atoms=2, domain="crystal").make(n=12)
    relax = LennardJonesRelaxMaker(steps=2).make(generate.output.structures)
    responses = run_locally(Flow([generate, relax]), store=job_store, ensure_success=True)
    relaxed = responses[relax.uuid][1].output
    structures = responses[generate.uuid][1].output.structures
    assert len(relaxed) == len(structures) > 0
    assert [doc.structure.composition for doc in relaxed] == [s.composition for s in structures]


@pytest.mark.parametrize("part", ["crystals", "molecules"])
def test_parts_and_single_structures_can_be_referred_to(maker, job_store, part):
    from jobflow import job

    @job(name="count")
    def count(structures, first):
        return {"number": len(structures), "first": len(first)}

    generate = maker.make(n=20)
    counting = count(getattr(generate.output, part), generate.output.structures[0])
    responses = run_locally(Flow([generate, counting]), store=job_store, ensure_success=True)
    document = responses[generate.uuid][1].output
    assert responses[counting.uuid][1].output == {
        "number": len(getattr(document, part)),
        "first": len(document.structures[0]),
    }


def test_a_wrong_field_of_the_output_fails_when_the_flow_is_built(maker):
    with pytest.raises(AttributeError, match="does not have attribute 'structre'"):
        _ = maker.make(n=2).output.structre


def test_the_number_may_come_from_another_job(maker, job_store):
    from jobflow import job

    @job(name="decide")
    def decide(value):
        return value

    decision = decide(3)
    generate = maker.make(n=decision.output)
    responses = run_locally(Flow([decision, generate]), store=job_store, ensure_success=True)
    assert len(responses[generate.uuid][1].output.samples) == 3
    bad = decide(-3)
    generate = maker.make(n=bad.output)
    with pytest.raises(ValueError, match="n must be a positive integer, got -3"):
        run_locally(Flow([bad, generate]), store=job_store, raise_immediately=True)


# Makers and jobs as data


def test_a_maker_survives_json(maker):
    original = replace(maker, condition=Condition(elements="Li-O"), num_atoms=(2, 4), seed=2)
    again = json.loads(json.dumps(original, cls=MontyEncoder), cls=MontyDecoder)
    assert again == original
    assert (again.condition, again.num_atoms) == ("Li-O", "2-4")
    assert again.request(3) == Request.of(3, "Li-O, atoms=2-4", seed=2)


def test_a_job_survives_json(maker, job_store, finished):
    job = maker.make(n=20)
    again = json.loads(json.dumps(job, cls=MontyEncoder), cls=MontyDecoder)
    assert again.name == "ADiT generate"
    document = run_locally(again, store=job_store, ensure_success=True)[job.uuid][1].output
    assert document.structures == finished[1].structures


def test_update_kwargs(maker):
    changed = maker.update_kwargs({"seed": 9, "domain": "crystal"})
    assert (changed.seed, changed.domain) == (9, "crystal")
    assert maker.seed == 0
    assert changed.update_kwargs({"seed": 0, "domain": "both"}) == maker


def test_kwargs_of_a_job_can_be_updated(maker, job_store):
    job = maker.make(n=4)
    job.update_maker_kwargs({"seed": 9})
    document = run_locally(job, store=job_store, ensure_success=True)[job.uuid][1].output
    assert document.request.seed == 9
    job = maker.make(n=4)
    job.update_maker_kwargs({"solver": "simpson"})
    with pytest.raises(ValueError, match="simpson"):
        run_locally(job, store=job_store, raise_immediately=True)


def test_relative_path_of_a_checkpoint(tiny_checkpoint, job_store, tmp_path, monkeypatch):
    """A job runs in another folder than the one it was made in."""
    monkeypatch.chdir(tiny_checkpoint.parent)
    job = ADiTGenerateMaker(checkpoint=tiny_checkpoint.name, check_validity=False).make(n=2)
    monkeypatch.chdir(tmp_path)
    run_locally(job, store=job_store, create_folders=True, ensure_success=True)


def test_settings_of_the_machine(tiny_checkpoint, monkeypatch, job_store):
    monkeypatch.setenv("ADIT_CHECKPOINT", str(tiny_checkpoint))
    monkeypatch.setenv("ADIT_DEVICE", "cpu")
    monkeypatch.setenv("ADIT_CHECK_TIME_LIMIT", "20")
    job = ADiTGenerateMaker().make(n=2)
    document = run_locally(job, store=job_store, ensure_success=True)[job.uuid][1].output
    assert document.checkpoint.name == str(tiny_checkpoint)
    assert document.device == "cpu"


def test_the_device_setting_is_the_workers(maker, monkeypatch, job_store):
    job = maker.make(n=2)
    monkeypatch.setenv("ADIT_DEVICE", "tricorder")
    with pytest.raises(ValueError, match="unknown device 'tricorder'"):
        run_locally(job, store=job_store, raise_immediately=True)


# errors before there is a job


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (0, {}, "n must be a positive integer, got 0"),
        (-3, {}, "n must be a positive integer, got -3"),
        (2.0, {}, "n must be an integer, got 2.0"),
        ("2", {}, "n must be an integer, got '2'"),
        (True, {}, "n must be an integer, got True"),
        (2, {"domain": "protein"}, "domain must be one of crystal, molecule, both, got 'protein'"),
        (2, {"solver": "simpson"}, "solver must be one of .*, got 'simpson'"),
        (2, {"num_steps": 0}, "num_steps must be a positive integer, got 0"),
        (2, {"guidance_scale": -1.0}, "guidance_scale must lie in 0..100, got -1"),
        (2, {"seed": -1}, "seed must not be negative, got -1"),
        (2, {"batch_atoms": 0}, "batch_atoms must be positive, got 0"),
        (2, {"num_atoms": 0}, "num_atoms must be positive"),
        (
            2,
            {"num_atoms": 9, "domain": "crystal"},
            "no training crystal has 9 atoms, they have 2, 4, 8",
        ),
        (2, {"num_atoms": (5, 7), "domain": "crystal"}, "no training crystal has 5-7 atoms"),
        (2, {"condition": "Li-P-S, molecule", "domain": "crystal"}, "contradict"),
        (2, {"condition": "spacegroup=225"}, "were not told the space group"),
        (2, {"num_atoms": (5, 4)}, "must be"),
        (2, {"num_atoms": [3]}, "num_atoms lists 1 atom counts for 2 samples"),
        (2, {"num_atoms": "several"}, "num_atoms must be a number"),
        (2, {"num_atoms": 2.5}, "num_atoms must be a number .*, got 2.5"),
        (2, {"num_atoms": [2.5, 3]}, "num_atoms must be a number"),
        (2, {"device": "gpu"}, "device must be auto, cpu, cuda or cuda:1, got 'gpu'"),
        (
            2,
            {"checkpoint": "defalt"},
            "no checkpoint 'defalt': neither a file nor one of the names",
        ),
        (2, {"checkpoint": "/nowhere/x.safetensors"}, "no checkpoint '/nowhere/x.safetensors'"),
    ],
)
def test_bad_arguments(maker, n, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        replace(maker, **options).make(n=n)


def test_a_file_that_is_no_checkpoint(maker, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_text("something else altogether")
    with pytest.raises(ValueError, match="is no safetensors file"):
        replace(maker, checkpoint=str(path)).make(n=1)


def test_every_option_is_documented():
    for option in fields(ADiTGenerateMaker):
        assert option.name in ADiTGenerateMaker.__doc__


def test_every_field_of_the_documents_is_described():
    from pydantic import BaseModel

    from adit_atomate import documents as schemas

    models = [m for m in vars(schemas).values() if isinstance(m, type) and issubclass(m, BaseModel)]
    assert len(models) > 5
    for model in models:
        for name, info in model.model_fields.items():
            assert info.description, f"{model.__name__}.{name}"
