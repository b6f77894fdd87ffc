from __future__ import annotations

import csv
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from jobflow import Flow, JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from adit_atomate import ADiTEvaluateDoc, ADiTEvaluateMaker, ADiTGenerateMaker
from adit_atomate.stores import JobStoreError
from adit_model.data.dataset import AtomicDataset
from adit_model.systems import AtomicSystem

QUICK = ["posebusters", "open-babel", "fragment"]


def salt(first="Na", second="Cl", a=5.64):
    lattice = Lattice(a / 2 * (1 - np.eye(3)))
    return Structure(lattice, [first, second], [[0, 0, 0], [0.5, 0.5, 0.5]])


def water(stretch=1.0):
    hydrogens = [[0.9572, 0, 0], [-0.24, 0.9266, 0]]
    return Molecule("OHH", [[0, 0, 0], *(stretch * np.array(hydrogens))])


@pytest.fixture(scope="module")
def maker():
    return ADiTEvaluateMaker(skip=QUICK, plot=False)


def run(job, store, **options):
    return run_locally(job, store=store, raise_immediately=True, **options)


@pytest.fixture(scope="module")
def finished(maker, tiny_checkpoint, tmp_path_factory):
    """Samples of both domains, generated and evaluated: both documents and the folder."""
    folder = tmp_path_factory.mktemp("flow")
    generate = ADiTGenerateMaker(checkpoint=str(tiny_checkpoint)).make(n=16)
    evaluate = replace(maker, folder=str(folder / "here"), plot=True).make(
        generate.output.structures, generate.output.samples
    )
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    responses = run_locally(Flow([generate, evaluate]), store=store, raise_immediately=True)
    return responses[generate.uuid][1].output, responses[evaluate.uuid][1].output, store


def test_every_sample_of_a_generating_job_has_a_row(finished):
    generated, document, _ = finished
    assert [row["id"] for row in document.rows] == [str(i) for i in range(16)]
    for row, record in zip(document.rows, generated.samples, strict=True):
        assert row["domain"] == record.domain
        assert row["formula"] == record.formula
        assert (row["decoded"], row["plausible"] is True) == (record.decoded, record.plausible)
    assert not all(record.decoded for record in generated.samples)
    for domain, counts in generated.counts.items():
        assert document.counts[domain] == counts
        assert document.rates[domain]["plausible"].of == counts.requested
        assert document.rates[domain]["plausible"].passed == counts.plausible


def test_what_was_asked_is_counted_and_reported(maker, job_store, clean_dir):
    """Samples of a job carry what they hold into rows, summary and report."""
    holds = [{"elements": True}, {"elements": False}]
    samples = [
        {"index": i, "structure_index": place, "domain": "crystal", "num_atoms": 2,
         "formula": "NaCl", "reason": None if place == 0 else "no cell", "holds": held}
        for i, (place, held) in enumerate(zip((0, None), holds, strict=True))
    ]  # fmt: skip
    job = maker.make([salt()], samples)
    document = run(job, job_store)[job.uuid][1].output
    assert [row["holds"] for row in document.rows] == holds
    assert document.summary["crystals"]["holds"]["elements"]["passed"] == 1
    assert "| elements | 50.0 % (1/2) |" in document.report


def test_files_say_what_the_document_says(finished):
    from pathlib import Path

    _, document, _ = finished
    folder = Path(document.folder)
    assert folder.name == "here"
    assert (folder / "report.md").read_text() == document.report
    assert json.loads((folder / "summary.json").read_text()) == document.summary
    with open(folder / "rows.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == list(document.rows[0])
    for line, row in zip(table, document.rows, strict=True):
        assert line["valid"] == str(row["valid"])
    assert (folder / "crystals_distributions.png").is_file()
    assert str(folder.parent) not in document.report


def test_rows_go_to_the_additional_store_and_rates_can_be_queried(finished):
    _, document, store = finished
    query = {"name": "ADiT evaluate", "output.rates.molecule.valid.of": 8}
    found = store.query_one(query)
    assert found["output"]["rows"]["store"] == "data"
    assert found["output"]["counts"]["crystal"]["requested"] == 8
    assert store.query_one({**query, "output.rates.molecule.valid.of": 9}) is None
    again = MontyDecoder().process_decoded(store.get_output(found["uuid"], load=True))
    assert isinstance(again, ADiTEvaluateDoc) and again == document


def test_a_store_on_disk_is_queried_anew(maker, clean_dir):
    pytest.importorskip("montydb")
    from maggma.stores import MontyStore

    def open_store():
        path = str(clean_dir / "store")
        store = JobStore(
            MontyStore("outputs", database_path=path),
            additional_stores={"data": MontyStore("blobs", database_path=path)},
        )
        store.connect()
        return store

    job = maker.make([salt(), salt("Li", "F", 4.03), water()])
    store = open_store()
    document = run(job, store)[job.uuid][1].output
    store.close()
    (found,) = open_store().query({"output.rates.crystal.valid.share": {"$gte": 0.9}}, load=True)
    assert found["uuid"] == job.uuid
    assert [row["formula"] for row in found["output"]["rows"]] == ["NaCl", "LiF", "H2O"]
    assert found["output"]["rows"] == document.rows
    assert found["output"]["report"].startswith("# Evaluation")


def test_known_structures_by_the_reference(maker, job_store, clean_dir):
    known = [AtomicSystem.from_structure(salt()), AtomicSystem.from_molecule(water())]
    AtomicDataset.from_systems(known).save("known.npz")
    given = replace(maker, reference=["known.npz"], compare_to=["npz:known.npz"])
    structures = [salt(), salt("Li", "F", 4.03), salt(a=5.5), water(), water(1.02)]
    job = given.make(structures)
    document = run(job, job_store, create_folders=True)[job.uuid][1].output
    assert [row["unique"] for row in document.rows] == [True, True, False, True, False]
    assert [row["novel"] for row in document.rows] == [False, True, False, False, False]
    assert document.rates["crystal"]["novel"].share == pytest.approx(1 / 3)
    assert document.summary["reference"] == ["known.npz"]
    assert document.summary["crystals"]["distances"]["reference"] == 1
    assert document.rates["molecule"]["open_babel_valid"] is None


def test_a_path_gives_the_rows_of_the_command_line(maker, job_store, clean_dir):
    from adit_model.cli.main import main

    AtomicDataset.from_systems([AtomicSystem.from_structure(salt())]).save("salts.npz")
    job = maker.make("salts.npz")
    document = run(job, job_store, create_folders=True)[job.uuid][1].output
    assert main(["evaluate", "salts.npz", "--out", "out", "--no-plot", "--quiet"]) == 0
    with open("out/rows.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    (row,) = document.rows
    assert float(line["density"]) == pytest.approx(row["density"], rel=1e-5)
    assert line["formula"] == row["formula"] and line["space_group"] == str(row["space_group"])


def test_structures_of_several_jobs(maker, job_store, clean_dir):
    groups = [[salt(), water()], [salt("Li", "F", 4.03)]]
    record = {"domain": "crystal", "num_atoms": 2, "formula": "?", "reason": "no cell"}
    samples = [
        [{**record, "index": i, "structure_index": i} for i in (0, 1)],
        [{**record, "index": i, "structure_index": place} for i, place in ((2, None), (3, 0))],
    ]
    job = maker.make(groups, samples)
    rows = run(job, job_store)[job.uuid][1].output.rows
    assert [row["formula"] for row in rows] == ["NaCl", "H2O", "?", "LiF"]
    assert rows[2]["decoded"] is False and rows[2]["reason"] == "no cell"
    job = maker.make(groups)
    assert [row["formula"] for row in run(job, job_store)[job.uuid][1].output.rows] == [
        "NaCl", "H2O", "LiF"
    ]  # fmt: skip


def test_what_is_no_ordered_structure_is_a_row_with_the_reason(maker, job_store, clean_dir):
    disordered = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    job = maker.make([disordered, salt()])
    document = run(job, job_store)[job.uuid][1].output
    assert [row["decoded"] for row in document.rows] == [False, True]
    assert document.rows[0]["reason"]
    assert document.summary["unreadable"] == 1


def test_a_second_run_goes_on_in_its_folder(maker, job_store, clean_dir):
    from adit_model.quality.run import KEPT

    given = replace(maker, folder="here")
    structures = [salt(), salt("Li", "F", 4.03)]
    first = given.make(structures)
    document = run(first, job_store)[first.uuid][1].output
    kept = {p: p.stat().st_mtime_ns for p in (clean_dir / "here" / KEPT).glob("*.json")}
    assert kept
    second = given.make(structures)
    again = run(second, job_store, create_folders=True)[second.uuid][1].output
    assert again.rows == document.rows and again.folder == document.folder
    assert {p: p.stat().st_mtime_ns for p in (clean_dir / "here" / KEPT).glob("*.json")} == kept


def test_two_jobs_in_one_place_write_to_two_folders(maker, job_store, clean_dir):
    jobs = [maker.make([salt()]), maker.make([salt("Li", "F", 4.03)])]
    responses = run(Flow(jobs), job_store)
    folders = [responses[job.uuid][1].output.folder for job in jobs]
    assert folders == [str(clean_dir / "adit_evaluation" / job.uuid) for job in jobs]


def test_no_place_for_the_rows(maker, clean_dir):
    store = JobStore(MemoryStore())
    store.connect()
    with pytest.raises(JobStoreError, match="no additional store 'data'"):
        maker.make([salt()]).run(store)
    assert not list(clean_dir.iterdir())


def test_maker_and_job_survive_json(maker, job_store, clean_dir):
    original = replace(maker, compare_number=5, folder="here")
    assert json.loads(json.dumps(original, cls=MontyEncoder), cls=MontyDecoder) == original
    job = json.loads(json.dumps(maker.make([salt()]), cls=MontyEncoder), cls=MontyDecoder)
    assert run(job, job_store)[job.uuid][1].output.rates["crystal"]["valid"].passed == 1


@pytest.mark.slow
def test_energies_by_a_force_field(maker, job_store, clean_dir):
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    known = AtomicDataset.from_systems([AtomicSystem.from_structure(salt("K", "Cl", 6.3))])
    known.save("known.npz")
    cif = salt().to(fmt="cif")
    (clean_dir / "hull.csv").write_text(
        "material_id,formula,formation_energy_per_atom,e_above_hull,cif\n"
        f'mp-1,Na1 Cl1,-2.1096,0.0,"{cif}"\n'
    )
    structures = [salt(), salt(a=5.3), salt("Rn", "O", 5), water()]
    given = replace(
        maker, reference=["known.npz"], energies=["chgnet"], hull=["hull.csv"], folder="here"
    )
    job = given.make(structures)
    document = run(job, job_store, create_folders=True)[job.uuid][1].output
    found = document.energies["chgnet"]
    assert found.hull.source == "hull.csv (partial)" and not found.hull.complete
    assert found.rates["converged"].passed == 2 and found.rates["converged"].of == 3
    assert found.rates["metastable"].share == pytest.approx(2 / 3)
    assert found.rates["msun"].passed == 1  # the squeezed one relaxes to the other
    assert found.numbers["above_hull"].median == pytest.approx(0, abs=0.05)
    assert found.numbers["above_hull_initial"].mean > found.numbers["above_hull"].mean + 0.02
    assert found.trust.of == found.trust.stable + found.trust.metastable == 2
    assert found.trust.competitors_known == 2 and found.trust.elements_only == 0
    assert found.null is not None and found.null["of"] == 1
    rows = document.rows
    assert rows[2]["chgnet_stable"] == "failed: CHGNet 0.3.0 does not know Rn"
    assert rows[3].get("chgnet_energy") is None
    assert "energies by CHGNet 0.3.0" in document.report
    query = {"output.energies.chgnet.rates.msun.share": {"$gt": 0.3}}
    assert job_store.query_one(query)["uuid"] == job.uuid

    # The same hull as computed entries; what was relaxed is taken from the folder.
    entries = [
        ComputedEntry(formula, energy)
        for formula, energy in (("Na", -1.0), ("Cl", -2.0), ("NaCl", -3.0 - 2 * 2.1096))
    ]
    second = replace(given, hull=entries).make(structures)
    second = json.loads(json.dumps(second, cls=MontyEncoder), cls=MontyDecoder)
    again = run(second, job_store, create_folders=True)[second.uuid][1].output
    assert again.energies["chgnet"].rates == found.rates
    assert again.energies["chgnet"].hull.source == "3 compositions of entries"
    for row, other in zip(rows[:2], again.rows, strict=False):
        assert other["chgnet_above_hull"] == pytest.approx(row["chgnet_above_hull"], abs=1e-6)


def test_without_energies_there_are_none(finished):
    assert finished[1].energies == {}


def test_a_force_field_is_needed_where_the_job_runs(monkeypatch, job_store, clean_dir):
    """Not where it is made; there it says so before any work."""
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "sevenn" else real(name)
    )
    job = ADiTEvaluateMaker(energies=["sevennet"]).make([salt()])
    with pytest.raises(ValueError, match=r"sevenn is not installed \(pip install .*\[sevennet\]"):
        run(job, job_store)
    assert not list(clean_dir.iterdir())


@pytest.mark.parametrize(
    ("options", "structures", "error", "message"),
    [
        ({"reference": ["nowhere.npz"]}, [], ValueError, "unknown data source 'nowhere.npz'"),
        ({"compare_to": ["qm9:tset"]}, [], ValueError, "unknown data source 'qm9:tset'"),
        ({"reference": "mp20:train"}, [], TypeError, "reference must be a list, got 'mp20:train'"),
        ({"skip": ["everything"]}, [], ValueError, "cannot skip 'everything'"),
        ({"compare_number": 0}, [], ValueError, "compare_number must be positive, got 0"),
        ({"folder": "file"}, [], ValueError, "file is a file, not a folder"),
        ({}, "nowhere/", ValueError, "unknown data source 'nowhere/'"),
        ({"energies": ["xtb"]}, [], ValueError, "chgnet, sevennet, 7net-l3i5, got 'xtb'"),
        ({"energies": "chgnet"}, [], TypeError, "energies must be a list, got 'chgnet'"),
        ({"hull": ["mp"]}, [], ValueError, "a hull is of use with energies only"),
        (
            {"energies": ["chgnet"], "hull": ["nowhere.csv"]},
            [],
            FileNotFoundError,
            "no file nowhere.csv",
        ),
        ({"energies": ["chgnet"], "hull": ["mp", "file"]}, [], ValueError, "not of both"),
        ({"energies": ["sevennet"], "hull": ["mp"]}, [], ValueError, "those of SevenNet-0"),
        (
            {"energies": ["chgnet", "sevennet"], "hull": [ComputedEntry("Na", -1)]},
            [],
            ValueError,
            "scale of one force field",
        ),
    ],
)
def test_mistakes_are_told_before_there_is_a_job(clean_dir, options, structures, error, message):
    (clean_dir / "file").write_text("")
    with pytest.raises(error, match=message):
        ADiTEvaluateMaker(**options).make(structures)


def test_names_of_data_sets_are_left_as_they_are():
    maker = ADiTEvaluateMaker(reference=["mp20:train", "qm9"]).make([]).maker
    assert maker.reference == ["mp20:train", "qm9"]


def test_every_option_is_documented():
    for option in fields(ADiTEvaluateMaker):
        assert option.name in ADiTEvaluateMaker.__doc__
