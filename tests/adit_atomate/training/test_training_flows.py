"""Flows from structures to a checkpoint, and from a checkpoint to a better one."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
from ase.build import bulk, molecule
from jobflow import Flow, Maker, run_locally
from monty.json import MontyDecoder
from pymatgen.io.ase import AseAtomsAdaptor

pytest.importorskip("lightning", reason="training needs lightning: pip install -e '.[train]'")

import torch
from training_cases import TINY, last_output, options

from adit_atomate import (
    ADiTActiveLearningMaker,
    ADiTDataMaker,
    ADiTDiscoveryMaker,
    ADiTFineTuneMaker,
    ADiTGenerateMaker,
    ADiTGenerateShardsMaker,
    ADiTRelaxStageMaker,
    ADiTTrainAutoencoderMaker,
    ADiTTrainDenoiserMaker,
    ADiTTrainMaker,
    ADiTTrainReport,
    ADiTTrainReportMaker,
    StoreSource,
    from_store,
)
from adit_atomate.discovery.documents import ADiTCrystalCandidateDoc, ADiTDiscoveryDoc
from adit_atomate.training.active_learning import collect_round
from adit_atomate.training.documents import ADiTPartRecord
from adit_atomate.training.flows import starting_weights
from adit_model.checkpoint import CheckpointError, register_checkpoint, resolve_checkpoint
from adit_model.config import ModelConfig
from adit_model.data.dataset import AtomicDataset
from adit_model.data.structures import load_structures
from adit_model.model import ADiT


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("ADIT_TRAINING_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("ADIT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ADIT_CHECKPOINT_DIR", str(tmp_path / "registered"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def old_file(tmp_path) -> str:
    structures = [
        *(molecule(name) for name in ("H2O", "CH4", "NH3", "C6H6")),
        *(bulk(name) for name in ("Si", "Cu", "Ti", "Al")),
    ]
    load_structures(structures, name="old", progress=False).save(tmp_path / "old.npz")
    return str(tmp_path / "old.npz")


def structure(name, **settings):
    return AseAtomsAdaptor.get_structure(bulk(name, **settings))


def tiny(maker, **schedule):
    return maker(**options(**schedule))


def test_from_structures_to_a_registered_checkpoint(old_file, job_store):
    flow = ADiTTrainMaker(
        data_maker=ADiTDataMaker(options={"validation_fraction": 0.4, "seed": 1}),
        autoencoder_maker=ADiTTrainAutoencoderMaker(**options(steps=4), steps_per_job=2),
        denoiser_maker=tiny(ADiTTrainDenoiserMaker, steps=4),
        report_maker=ADiTTrainReportMaker(n=3, register_as="mine"),
    ).make([old_file, structure("NaCl", crystalstructure="rocksalt", a=5.64)])
    run_locally(flow, store=job_store, ensure_success=True)
    report = ADiTTrainReport(**job_store.get_output(flow.output.uuid, load=True))
    assert set(report.stages) == {"autoencoder", "denoiser"}
    assert report.stages["autoencoder"].job_index == 2  # the last of the chain
    assert report.data.read == 9
    assert report.stages["denoiser"].data.fingerprint
    trained = ADiT.load(report.stages["denoiser"].checkpoint.path)
    assert report.checkpoint.hash == trained.checkpoint_hash
    assert report.checkpoint.name == "mine"
    for domain in ("crystals", "molecules"):
        assert report.samples[domain]["count"] == 3
    held_out = report.data.validation
    assert report.reconstruction.systems == held_out.crystals + held_out.molecules
    generate = ADiTGenerateMaker(checkpoint="mine", check_validity=False).make(n=2)
    document = last_output(run_locally(generate, store=job_store, ensure_success=True), generate)
    assert document.checkpoint.hash == trained.checkpoint_hash


def test_names_of_checkpoints(tiny_checkpoint, tmp_path):
    copy = register_checkpoint(tiny_checkpoint, "tiny-1.0")
    assert resolve_checkpoint("tiny-1.0") == copy
    assert ADiT.load("tiny-1.0").checkpoint_hash == ADiT.load(tiny_checkpoint).checkpoint_hash
    assert register_checkpoint(tiny_checkpoint, "tiny-1.0") == copy  # the same again
    with pytest.raises(CheckpointError, match="is another checkpoint: remove it or choose another"):
        register_checkpoint(resolve_checkpoint("default"), "tiny-1.0")
    for name in ("default", "../up", "a b", "", "x.safetensors"):
        with pytest.raises(CheckpointError, match="cannot name a checkpoint"):
            register_checkpoint(tiny_checkpoint, name)
    with pytest.raises(CheckpointError, match=r"one of the names default, mini, mini-2, tiny-1\.0"):
        resolve_checkpoint("tiny-2")


@pytest.mark.parametrize("autoencoder", ["frozen", "decoder", "full"])
def test_fine_tuning_trains_what_it_is_told(autoencoder, old_file, tiny_checkpoint, job_store):
    schedule = {"steps": 2, "batch_size": 4}
    flow = ADiTFineTuneMaker(
        checkpoint=str(tiny_checkpoint),
        autoencoder=autoencoder,
        data_maker=ADiTDataMaker(
            options={"validation_fraction": 0.0}, replay=[old_file], replay_fraction=0.5
        ),
        autoencoder_maker=tiny(ADiTTrainAutoencoderMaker, **schedule),
        denoiser_maker=tiny(ADiTTrainDenoiserMaker, **schedule),
        report_maker=ADiTTrainReportMaker(n=0),
    ).make([structure("Au"), structure("Ag")])
    run_locally(flow, store=job_store, ensure_success=True)
    report = ADiTTrainReport(**job_store.get_output(flow.output.uuid, load=True))
    assert report.data.replay.molecules == 4
    assert report.data.replay.crystals == 1  # a quarter of the batch against the new half
    assert report.data.crystal_fraction == pytest.approx(0.75)
    assert report.stages["denoiser"].config["training"]["crystal_fraction"] == pytest.approx(0.75)
    before, after = ADiT.load(tiny_checkpoint), ADiT.load(report.checkpoint.path)

    def moved(part):
        old, new = (model.get_submodule(part).state_dict() for model in (before, after))
        return any(not np.allclose(new[name], old[name], atol=1e-7) for name in old)

    assert moved("denoiser")
    assert moved("autoencoder.encoder") == (autoencoder == "full")
    assert moved("autoencoder.decoder") == (autoencoder != "frozen")
    assert report.stages["denoiser"].init_from.hash == before.checkpoint_hash


def test_new_elements_need_all_of_stage_1(old_file, job_store):
    first = ADiTTrainAutoencoderMaker(**options(steps=1)).make([old_file])
    second = tiny(ADiTTrainDenoiserMaker, steps=1).make([old_file], first.output.checkpoint.path)
    responses = run_locally(Flow([first, second]), store=job_store, ensure_success=True)
    trained = last_output(responses, second).checkpoint.path  # knows 59 elements
    record = {"path": "", "fingerprint": "", "crystals": 3, "molecules": 0, "atoms": 4}
    parts = [ADiTPartRecord(**record, elements={"Au": 1, "Cu": 3})]
    with pytest.raises(ValueError, match=r"has no place for Au: .* autoencoder='full'"):
        run_locally(
            starting_weights(trained, parts, "frozen"), store=job_store, raise_immediately=True
        )
    flow = ADiTFineTuneMaker(
        checkpoint=trained,
        autoencoder="full",
        data_maker=ADiTDataMaker(options={"validation_fraction": 0.0}),
        autoencoder_maker=tiny(ADiTTrainAutoencoderMaker, steps=2),
        denoiser_maker=tiny(ADiTTrainDenoiserMaker, steps=2),
        report_maker=ADiTTrainReportMaker(n=2),
    ).make([structure("Au"), old_file])
    run_locally(flow, store=job_store, ensure_success=True)
    report = ADiTTrainReport(**job_store.get_output(flow.output.uuid, load=True))
    model = ADiT.load(report.checkpoint.path)
    assert model.config.autoencoder.num_elements == 80
    dataset = AtomicDataset.load(report.data.train.path)
    assert model.reconstruct([s for s in dataset if 79 in s.numbers])


def test_data_from_everywhere(old_file, job_store, tmp_path):
    from maggma.stores import JSONStore

    from adit_atomate import StoreSource

    store = JSONStore(str(tmp_path / "tasks.json"), read_only=False, key="task_id")
    store.connect()
    nickel = {"task_id": "mp-1", "structure": structure("Ni").as_dict(), "energy": -5.5}
    store.update([nickel])
    (tmp_path / "files").mkdir()
    structure("Fe").to(filename=str(tmp_path / "files" / "iron.cif"))
    job = ADiTDataMaker(options={"validation_fraction": 0.0}).make(
        [
            old_file,
            StoreSource(store, properties={"energy": "energy"}),
            "files",
            [structure("Au"), {"structure": structure("Pt").as_dict(), "state": "failed"}],
        ]
    )
    document = last_output(run_locally(job, store=job_store, ensure_success=True), job)
    train = AtomicDataset.load(document.train_paths[0])
    assert len(train) == 11
    assert {"mp-1", "iron"} <= set(train.ids.tolist())
    assert document.dropped == {"its state is failed": 1}
    assert document.validation is None
    assert document.validation_paths == []
    assert document.train.elements["Au"] == 1
    folder = tmp_path / "runs" / f"data-{job.uuid}"
    assert (folder / "properties.csv").read_text().splitlines() == ["id,energy", "mp-1,-5.5"]
    assert (folder / "report.txt").read_text().startswith("12 entries read, 11 kept, 1 dropped")


def test_data_from_ase(job_store):
    sources = [bulk("NaCl", "rocksalt", a=5.64), [molecule("H2O"), bulk("Si")]]
    job = ADiTDataMaker(options={"validation_fraction": 0.0}).make(sources)
    document = last_output(run_locally(job, store=job_store, ensure_success=True), job)
    train = list(AtomicDataset.load(document.train_paths[0]))
    found = {tuple(sorted(system.numbers.tolist())): system for system in train}
    assert set(found) == {(11, 17), (1, 1, 8), (14, 14)}
    assert found[11, 17].volume == pytest.approx(5.64**3 / 4)
    wire = bulk("Cu")
    wire.pbc = (True, False, False)
    with pytest.raises(ValueError, match="pbc must be true in all"):
        ADiTDataMaker().make([wire])


@pytest.mark.parametrize(
    ("maker", "sources", "message"),
    [
        (ADiTDataMaker(), [], "there are no sources"),
        (ADiTDataMaker(options={"max_atom": 3}), ["x"], "unknown option 'max_atom'"),
        (ADiTDataMaker(output="here"), ["x"], "output must be an absolute path"),
        (ADiTDataMaker(replay=["x"], replay_fraction=1.0), ["x"], "replay_fraction must lie"),
        (ADiTFineTuneMaker(autoencoder="half"), ["x"], "autoencoder must be one of frozen"),
        (ADiTFineTuneMaker(checkpoint="absent"), ["x"], "no checkpoint 'absent'"),
        (ADiTActiveLearningMaker(rounds=0), [], "rounds must be a positive integer"),
    ],
)
def test_mistakes_are_found_when_the_flow_is_made(maker, sources, message):
    with pytest.raises(ValueError, match=message):
        maker.make(sources)


@pytest.mark.parametrize(
    "maker",
    [
        ADiTTrainMaker(report_maker=Maker),
        ADiTTrainMaker(data_maker="x"),
        ADiTFineTuneMaker(data_maker=ADiTTrainMaker()),
        ADiTFineTuneMaker(denoiser_maker={}),
        ADiTActiveLearningMaker(discovery_maker=5),
        ADiTActiveLearningMaker(fine_tune_maker=ADiTFineTuneMaker),
        ADiTDataMaker(options=["max_atoms"]),
        ADiTTrainAutoencoderMaker(training=3),
        ADiTTrainAutoencoderMaker(model=bulk("Cu")),
        ADiTTrainDenoiserMaker(training="fast"),
        ADiTGenerateShardsMaker(generate_maker={}),
        ADiTRelaxStageMaker(relax_maker=1.5),
    ],
)
def test_what_is_no_maker_or_no_mapping_is_refused_by_name(maker):
    given = (2,) if isinstance(maker, ADiTGenerateShardsMaker) else (["x"], "default")
    given = given if "autoencoder" in signature(maker.make).parameters else given[:1]
    with pytest.raises(TypeError, match=f" of {type(maker).__name__} must be an? "):
        maker.make(*given)


def test_rounds_of_active_learning(tiny_checkpoint, job_store, job_names):
    generate = ADiTGenerateMaker(domain="crystal", num_atoms=2, check_validity=False)
    flow = ADiTActiveLearningMaker(
        discovery_maker=ADiTDiscoveryMaker(
            generate_maker=generate,
            screen_maker=None,
            novelty_maker=None,
            relax_maker=None,
            rank_maker=None,
            keep=3,
        ),
        fine_tune_maker=ADiTFineTuneMaker(
            checkpoint=str(tiny_checkpoint),
            data_maker=ADiTDataMaker(options={"validation_fraction": 0.0}),
            denoiser_maker=tiny(ADiTTrainDenoiserMaker, steps=2, batch_size=3),
            report_maker=ADiTTrainReportMaker(n=0),
        ),
        rounds=2,
        n=12,
        hull_threshold=None,
    ).make()
    run_locally(flow, store=job_store, ensure_success=True)
    output = job_store.get_output(flow.output.uuid, load=True)
    document = MontyDecoder().process_decoded(output)
    first, second = document.rounds
    assert (first.round, second.round) == (1, 2)
    assert first.checkpoint.hash == ADiT.load(tiny_checkpoint).checkpoint_hash
    assert second.checkpoint == first.trained
    assert document.checkpoint.hash == second.trained.hash
    assert first.trained.hash != first.checkpoint.hash
    for found in (first, second):
        assert found.n == 12
        assert 12 >= found.unique >= found.candidates == found.added > 0
        assert found.plausible is found.novel is found.near_hull is None
        assert len(AtomicDataset.load(found.data)) == found.added
    training = ADiT.load(document.checkpoint.path).metadata["training"]
    assert training["data"]["crystals"] <= first.added + second.added
    assert training["data"]["crystals"] >= max(first.added, second.added)
    assert {"ADiT yield round 1", "ADiT learn round 2", "ADiT round 2"} <= set(job_names)


def test_only_candidates_with_an_energy_to_trust_are_learned_from(tiny_checkpoint):
    """Three eV/atom below a partial hull tell of what the hull lacks, and are no success."""
    gold = structure("Au")
    records = [
        {"energy_above_hull": -3.0, "stability": "unknown"},
        {"energy_above_hull": 0.05, "stability": "metastable"},
        {"energy_above_hull": 0.3, "stability": "unstable"},
        {"hull_reason": "it has no energy"},
    ]
    common = {
        "domain": "crystal",
        "num_atoms": 1,
        "formula": "Au",
        "decoded": True,
        "plausible": True,
    }
    known = {"hull_source": "mine.csv (partial)", "hull_complete": False}
    candidates = [
        ADiTCrystalCandidateDoc.from_structure(
            gold, structure=gold, generated=gold, index=i, fate="kept", **common, **known, **record
        )
        for i, record in enumerate(records)
    ]
    discovery = ADiTDiscoveryDoc(
        n=4,
        domain="crystal",
        funnel={},
        fates={"kept": 4},
        ranking=[],
        candidates=candidates,
        samples=candidates,
        timings=[],
        seconds=1.0,
        details={},
        stage_uuids={},
    )
    collect = collect_round(discovery, "discovery", 1, str(tiny_checkpoint), 0.1)
    document = last_output(run_locally(collect, ensure_success=True), collect)
    assert len(AtomicDataset.load(document.data)) == document.added == 1
    assert document.left_out == {
        "stability unknown: no known compound competes, or it lies far below the hull": 1,
        "more than 0.1 eV/atom above the hull": 1,
        "no energy above hull": 1,
    }
    near = document.near_hull
    assert (near.count, near.stability["unknown"], near.of) == (1, 1, 3)
    assert near.bound == "upper bound"


def test_a_field_of_task_documents_can_be_asked_for_after_fine_tuning(tmp_path, job_store):
    """From documents in a store, through the flow, to a sample told the new property."""
    from maggma.stores import JSONStore

    moduli = {"Cu": 137.0, "Ag": 104.0, "Al": 76.0, "Na": None}
    store = JSONStore(str(tmp_path / "tasks.json"), read_only=False, key="task_id")
    store.connect()
    for name, modulus in moduli.items():
        elastic = {"structure": structure(name).as_dict(), "elastic": {"k_vrh": modulus}}
        store.update({"task_id": name, "output": elastic}, key="task_id")
    found = from_store(store, properties={"K": "elastic.k_vrh"})
    assert found.properties["Cu"] == {"K": 137.0}
    np.testing.assert_array_equal(np.sort(found.dataset.labels["k"]), [76, 104, 137, np.nan])

    denoiser = {**TINY["denoiser"], "num_layers": 1, "properties": ()}
    model = ModelConfig.from_dict({**TINY, "denoiser": denoiser})
    ADiT(model).save(tmp_path / "start.safetensors")
    maker = ADiTFineTuneMaker(
        checkpoint=str(tmp_path / "start.safetensors"),
        properties={"elastic.k_vrh": "GPa"},
        data_maker=ADiTDataMaker(options={"validation_fraction": 0.0}),
        denoiser_maker=tiny(ADiTTrainDenoiserMaker, steps=1),
        report_maker=ADiTTrainReportMaker(n=0),
    )
    flow = maker.make([StoreSource(store)])
    run_locally(flow, store=job_store, ensure_success=True)
    report = ADiTTrainReport(**job_store.get_output(flow.output.uuid, load=True))
    known = ADiT.load(report.checkpoint.path).known.properties["elastic_k_vrh"]
    assert (known.min, known.max, known.unit) == (76.0, 137.0, "GPa")
    generate = ADiTGenerateMaker(checkpoint=report.checkpoint.path, check_validity=False)
    job = replace(generate, condition="elastic_k_vrh=100").make(n=1)
    document = last_output(run_locally(job, store=job_store, ensure_success=True), job)
    assert str(document.request.condition) == "elastic_k_vrh=100"

    lacking = replace(maker, properties=["elastic.hardness"]).make([StoreSource(store)])
    with pytest.raises(ValueError, match="named 'elastic_hardness'; there are none"):
        run_locally(lacking, store=job_store, raise_immediately=True)
    for wrong, error in (
        ({"properties": ["atoms"]}, "cannot be named 'atoms'"),
        ({"checkpoint": "mini"}, "cannot learn properties: start from checkpoint='mini-2'"),
    ):
        with pytest.raises(ValueError, match=error):
            replace(maker, **wrong).make([StoreSource(store)])


def test_a_number_beside_structures_of_any_file_is_learned(tmp_path, job_store):
    import ase.db
    import ase.io
    import pandas as pd

    rows = [("Cu", structure("Cu").to(fmt="cif"), 137.0), ("Fe", structure("Fe").to(fmt="cif"), "")]
    columns = ["material_id", "cif", "bulk_modulus"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "metals.csv", index=False)
    silver, nickel = bulk("Ag"), bulk("Ni")
    silver.info["bulk_modulus"], nickel.info["bulk_modulus"] = 104.0, float("nan")
    ase.io.write(tmp_path / "metals.extxyz", [silver, nickel])
    with ase.db.connect(tmp_path / "metals.db") as database:
        database.write(bulk("Al"), bulk_modulus=76.0)
        database.write(bulk("Ca"))
    denoiser = {**TINY["denoiser"], "num_layers": 1, "properties": ()}
    torch.manual_seed(0)
    start = ADiT(ModelConfig.from_dict({**TINY, "denoiser": denoiser}))
    start.save(tmp_path / "start.safetensors")
    maker = ADiTFineTuneMaker(
        checkpoint=str(tmp_path / "start.safetensors"),
        properties=["bulk_modulus"],
        only_conditions=True,
        data_maker=ADiTDataMaker(options={"validation_fraction": 0.0}),
        denoiser_maker=tiny(ADiTTrainDenoiserMaker, steps=2),
        report_maker=ADiTTrainReportMaker(n=0),
    )
    flow = maker.make(["metals.csv", "metals.extxyz", "metals.db"])
    run_locally(flow, store=job_store, ensure_success=True)
    report = ADiTTrainReport(**job_store.get_output(flow.output.uuid, load=True))
    told = AtomicDataset.load(report.data.train.path).labels["bulk_modulus"]
    np.testing.assert_array_equal(np.sort(told), [76, 104, 137, np.nan, np.nan, np.nan])
    model = ADiT.load(report.checkpoint.path)
    known = model.known.properties["bulk_modulus"]
    assert (known.min, known.max) == (76.0, 137.0)
    old, new = start.denoiser.state_dict(), model.denoiser.state_dict()
    changed = {name for name, value in old.items() if not torch.equal(value, new[name].cpu())}
    assert all(name.startswith("told.") for name in changed)
    with pytest.warns(UserWarning, match="bulk_modulus=500 is outside .* 76 to 137"):
        model.sample(1, "crystal, bulk_modulus=500", num_steps=2, progress=False)
