from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from atomate2.ase.jobs import EmtRelaxMaker
from jobflow import Flow, JobStore, Maker, OnMissing, job, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder
from pymatgen.core import Lattice, Molecule, Structure

from adit_atomate import (
    ADiTDiscoveryMaker,
    ADiTGenerateMaker,
    ADiTMoleculeDiscoveryMaker,
    ADiTRelaxStageMaker,
)
from adit_atomate.discovery.documents import ADiTCrystalCandidateDoc, ADiTDiscoveryDoc
from adit_atomate.discovery.flow import take_structures
from adit_atomate.discovery.stages import ADiTScreenMaker, ADiTUniquenessMaker

FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.51]]
STATIC = EmtRelaxMaker(name="EMT static", steps=1, relax_kwargs={"final_atoms_object_file": None})


def fcc(symbol: str, a: float) -> Structure:
    return Structure(Lattice.cubic(a), [symbol] * 4, FCC)


def emt(**options) -> EmtRelaxMaker:
    return EmtRelaxMaker(
        relax_kwargs={"fmax": 0.05, "final_atoms_object_file": None},
        ionic_step_data=("energy",),
        **options,
    )


def here(maker, chunk_size: int = 20) -> ADiTRelaxStageMaker:
    """The stage that relaxes as it is, in this process."""
    return ADiTRelaxStageMaker(
        relax_maker=maker,
        chunk_size=chunk_size,
        symmetrise=None,
        time_limit=None,
        memory_limit=None,
    )


CRYSTALS = [
    fcc("Cu", 3.6),
    fcc("Cu", 3.65),  # again
    fcc("Al", 4.0),
    fcc("Ag", 4.1),
    Structure(Lattice.cubic(3), ["Au", "Au"], [[0, 0, 0], [0.01, 0, 0]]),  # atoms in one place
    fcc("Na", 5.0),  # EMT does not know it
    fcc("Pt", 3.9),
]
# energies of these elements' fcc crystals by EMT, to within the forces' tolerance
ELEMENTS = {"Cu": -0.0070, "Al": -0.0048, "Ag": -0.0002, "Pt": -0.0001}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, clean_dir):
    for name in ("REFERENCE", "HULL", "CONFIG_FILE"):
        monkeypatch.delenv(f"ADIT_{name}", raising=False)
    monkeypatch.setenv("HOME", str(clean_dir))


def discover(maker: ADiTDiscoveryMaker, structures=None, n=None) -> tuple[ADiTDiscoveryDoc, Flow]:
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    flow = maker.make(n=n, structures=structures)
    run_locally(flow, store=store, log=False)
    output = store.get_output(flow.output.uuid, load=True)
    return MontyDecoder().process_decoded(output), flow


@pytest.fixture(scope="module")
def makers() -> ADiTDiscoveryMaker:
    return ADiTDiscoveryMaker(
        generate_maker=None, novelty_maker=None, relax_maker=here(emt(), 3), keep=2
    )


@pytest.fixture(scope="module")
def finished(makers):
    """The whole way of the crystals: document and flow."""
    return discover(replace(makers, dft_maker=STATIC), CRYSTALS)


def test_each_sample_is_accounted_for(finished, job_names):
    document, _ = finished
    assert [s.fate for s in document.samples] == [
        "kept",
        "duplicate",
        "kept",
        "not among the best",
        "not plausible",
        "not relaxed",
        "not among the best",
    ]
    assert document.samples[1].duplicate_of == 0
    assert "apart" in document.samples[4].reason
    assert "Na" in document.samples[5].reason
    assert document.samples[3].reason == "rank 3 of 4, 2 are kept"
    assert sum(document.fates.values()) == document.n == 7
    assert document.funnel == {
        "samples": 7,
        "decoded": 7,
        "plausible": 6,
        "unique": 5,
        "novel": None,
        "relaxed": 4,
        "unique, relaxed": 4,
        "novel, relaxed": None,
        "kept": 2,
        "DFT": 2,
    }
    text = document.summary()
    assert "7 samples" in text and "not asked" in text and "relaxation" in text
    assert [t.stage for t in document.timings][-1] == "DFT"
    assert set(job_names) >= {
        "ADiT given structures",
        "ADiT relax fan out",
        "EMT relaxation 1/2",
        "EMT relaxation read 2/2",
        "ADiT relax collect",
        "ADiT uniqueness relaxed",
        "ADiT DFT fan out",
        "EMT static 2/2",
        "EMT static read 1/2",
        "ADiT DFT collect",
    }


def test_a_candidate_has_its_provenance(finished):
    document, flow = finished
    first = document.candidates[0]
    assert isinstance(first, ADiTCrystalCandidateDoc)
    assert first.candidate_id == f"{flow.jobs[0].uuid}-0"
    assert (first.formula_pretty, first.chemsys, first.nsites) == ("Cu", "Cu", 4)
    assert first.symmetry.number == 225  # relaxation put the displaced atom back
    assert first.relaxation.state == "successful"
    assert 0 < first.relaxation.rmsd < 0.1 and first.relaxation.num_steps > 1
    assert first.relaxation.energy < first.relaxation.initial_energy
    volume = first.structure.volume / first.generated.volume - 1
    assert first.relaxation.volume_change == pytest.approx(volume)
    assert first.dft.state == "successful"
    assert first.dft.energy == pytest.approx(first.relaxation.energy)
    assert first.job_uuids["dft"] == first.dft.uuid != first.job_uuids["relax"]


def test_ranked_by_energy_above_hull(makers):
    rank = replace(makers.rank_maker, element_energies={**ELEMENTS, "Ag": -0.5})
    quick = replace(makers, screen_maker=None, uniqueness_maker=None)
    crystals = [CRYSTALS[i] for i in (0, 2, 3, 6)]
    document, _ = discover(replace(quick, rank_maker=rank, keep=None), crystals)
    energies = [c.energy_above_hull for c in document.candidates]
    assert energies == sorted(energies)
    assert document.candidates[-1].formula_pretty == "Ag"
    assert energies[-1] == pytest.approx(0.5, abs=1e-3)
    assert energies[0] == pytest.approx(0.0, abs=1e-3)
    assert document.candidates[0].hull_source == "known phases (partial)"
    assert [c.rank for c in document.candidates] == [1, 2, 3, 4]
    near = document.near_hull
    assert (near.count, near.of, near.bound) == (3, 4, "upper bound")
    assert near.stability["unstable"] == 1 and near.stability["unknown"] == 0
    assert near.competitors_known == 4  # of a pure element the elements are all there is
    assert document.ranking[-1].stability == "unstable"
    assert "0 unknown; hull: known phases (partial)" in document.summary()


@dataclass
class BrokenDocumentMaker(EmtRelaxMaker):
    """Its document of silver cannot be stored, so the whole job is lost."""

    @job(data=["trajectory", "ionic_steps"])
    def make(self, structure, prev_dir=None):
        document = EmtRelaxMaker.make.original(self, structure)
        return object() if structure[0].specie.symbol == "Ag" else document


def test_structures_of_a_lost_job_are_tried_one_by_one(makers, job_names):
    quick = replace(makers, screen_maker=None, uniqueness_maker=None)
    crystals = [CRYSTALS[i] for i in (0, 3, 2)]
    document, _ = discover(replace(quick, relax_maker=here(BrokenDocumentMaker(), 3)), crystals)
    copper, silver, aluminium = document.samples
    assert silver.fate == "not relaxed"
    assert "left no output" in silver.reason
    assert {copper.fate, aluminium.fate} == {"kept"}
    assert len({sample.relaxation.uuid for sample in document.samples}) == 3
    assert "EMT relaxation again 2/3" in job_names


def test_unconverged_relaxations_end_there(makers):
    document, _ = discover(replace(makers, relax_maker=here(emt(steps=2))), [fcc("Cu", 4.2)])
    assert document.samples[0].fate == "not relaxed"
    assert "not converged after" in document.samples[0].reason


@dataclass
class FailsForCopperMaker(Maker):
    """A calculation that is no ASE Maker and fails for one element."""

    name: str = "fails for copper"

    @job
    def make(self, structure):
        if structure[0].specie.symbol == "Cu":
            raise RuntimeError("no copper")
        return {"output": {"energy": -1.0}, "structure": structure, "state": "successful"}


@dataclass
class RaisesForCopperMaker(EmtRelaxMaker):
    """An ASE Maker that raises for one element."""

    def run_ase(self, mol_or_struct, prev_dir=None):
        if mol_or_struct[0].specie.symbol == "Cu":
            raise RuntimeError("no copper")
        return super().run_ase(mol_or_struct, prev_dir)


@pytest.mark.parametrize(
    ("maker", "reason"),
    [
        (FailsForCopperMaker(), "left no output"),
        (RaisesForCopperMaker(), "RuntimeError: no copper"),
    ],
)
def test_a_failing_calculation_loses_no_other(makers, maker, reason):
    bare = replace(makers, screen_maker=None, uniqueness_maker=None, relax_maker=None)
    document, _ = discover(replace(bare, dft_maker=maker), [fcc("Cu", 3.6), fcc("Al", 4.0)])
    assert [c.dft.state for c in document.candidates] == ["failed", "successful"]
    assert reason in document.candidates[0].dft.reason
    assert document.funnel["DFT"] == 1


def test_charge_and_spin_reach_xtb():
    """A neutral H3O has one hydrogen atom (-10.7 eV) more than water, H3O+ only a proton."""
    pytest.importorskip("tblite")
    water = Molecule(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    ring = [[0, 0, 0.1], [0.96, 0, -0.1], [-0.48, 0.83, -0.1], [-0.48, -0.83, -0.1]]
    hydronium = Molecule(["O", "H", "H", "H"], ring, charge=1)
    methyl = Molecule(["C", "H", "H", "H"], [[0, 0, 0], *(np.array(ring[1:]) * 1.12)])
    maker = ADiTMoleculeDiscoveryMaker(screen_maker=None, uniqueness_maker=None, novelty_maker=None)
    document, _ = discover(maker, [water, hydronium, methyl])
    by_index = {candidate.index: candidate for candidate in document.candidates}
    states = {i: (c.charge, c.spin_multiplicity) for i, c in by_index.items()}
    assert states == {0: (0, 1), 1: (1, 1), 2: (0, 2)}
    difference = by_index[1].relaxation.energy - by_index[0].relaxation.energy
    assert -3 < difference < 0
    strains = [candidate.strain_energy_per_atom for candidate in document.candidates]
    assert strains == sorted(strains) and strains[0] > 0


def test_novelty_names_the_known_crystal(makers, tmp_path):
    from adit_atomate.discovery.stages import ADiTNoveltyMaker

    (tmp_path / "known").mkdir()
    fcc("Al", 4.1).to(filename=str(tmp_path / "known" / "mine.cif"))
    novelty = ADiTNoveltyMaker(reference=str(tmp_path / "known"))
    quick = replace(makers, screen_maker=None, relax_maker=None, novelty_maker=novelty)
    document, _ = discover(quick, [CRYSTALS[0], CRYSTALS[2]])
    aluminium = document.samples[1]
    assert (aluminium.fate, aluminium.novel) == ("known", False)
    assert "mine" in aluminium.nearest_known
    assert 0 <= aluminium.nearest_known_distance < 0.1
    assert document.samples[0].novel is True


def test_nothing_given_compares_to_the_known_crystals_and_molecules():
    """A maker as it is, but for what takes time: rock salt and water are known."""
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.7), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    new = Structure(Lattice.cubic(3.9), ["Cs", "Au", "Cl"], [[0] * 3, [0.5] * 3, [0.5, 0, 0.5]])
    crystals = ADiTDiscoveryMaker(screen_maker=None, relax_maker=None)
    document, _ = discover(crystals, [salt, new])
    assert [s.fate for s in document.samples] == ["known", "kept"]
    assert document.samples[0].nearest_known == "mp-22862"
    assert document.details["novelty"]["reference"] == ["known"]
    assert document.details["novelty"]["size"] == {"crystals": 19_702, "molecules": 130_744}
    assert document.details["ranking"]["hull"] == "known phases (partial)"
    water = Molecule(["O", "H", "H"], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    molecules = ADiTMoleculeDiscoveryMaker(screen_maker=None, relax_maker=None)
    document, _ = discover(molecules, [water])
    assert document.samples[0].nearest_known == "gdb_3"
    from adit_atomate.discovery.stages import ADiTNoveltyMaker

    for none in (None, "none"):
        maker = replace(crystals, rank_maker=None, novelty_maker=ADiTNoveltyMaker(reference=none))
        assert len(maker.make(structures=[salt]).jobs) == 3  # given, uniqueness, candidates


def test_stages_can_be_left_out(makers):
    bare = replace(
        makers, screen_maker=None, uniqueness_maker=None, relax_maker=None, rank_maker=None
    )
    document, flow = discover(replace(bare, keep=None), CRYSTALS)
    assert document.fates == {"kept": 7}
    assert len(flow.jobs) == 2
    assert document.candidates[0].structure == CRYSTALS[0]


def test_generation_is_the_first_stage(makers, tiny_checkpoint):
    generate = ADiTGenerateMaker(checkpoint=str(tiny_checkpoint), domain="crystal", seed=3)
    document, _ = discover(replace(makers, generate_maker=generate), n=10)
    assert document.n == sum(document.fates.values()) == 10
    assert document.fates["not decoded"] == 10 - document.funnel["decoded"] > 0


def test_a_condition_reaches_the_generator(makers, tiny_checkpoint):
    generate = ADiTGenerateMaker(checkpoint=str(tiny_checkpoint), domain="crystal")
    maker = replace(makers, generate_maker=generate, condition="Li-O, atoms=2")
    assert maker.make(n=3).jobs[0].maker.condition == "Li-O, atoms=2"
    assert ADiTDiscoveryMaker.from_dict(maker.as_dict()).condition == "Li-O, atoms=2"
    with pytest.raises(ValueError, match="condition 'Li-O, atoms=2' needs a generate_maker"):
        replace(maker, generate_maker=None).make(structures=CRYSTALS)


def test_updates_reach_nested_makers_and_survive_json(makers):
    maker = replace(makers, dft_maker=STATIC)
    changed = maker.update_kwargs({"steps": 7}, class_filter=EmtRelaxMaker)
    assert (changed.relax_maker.relax_maker.steps, changed.dft_maker.steps) == (7, 7)
    again = ADiTDiscoveryMaker.from_dict(maker.as_dict())
    assert again.as_dict() == maker.as_dict()
    flow = maker.make(structures=CRYSTALS)
    flow.update_maker_kwargs({"steps": 9}, class_filter=EmtRelaxMaker)
    nested = [
        part
        for job_, _ in flow.iterflow()
        for part in (
            getattr(job_.maker, "relax_maker", None),
            getattr(job_.maker, "dft_maker", None),
        )
        if part is not None
    ]
    assert nested and {part.steps for part in nested} == {9}


def test_collectors_run_without_the_failed(makers):
    flow = replace(makers, dft_maker=STATIC).make(structures=CRYSTALS)
    collectors = [j for j, _ in flow.iterflow() if j.name.endswith("collect")]
    assert len(collectors) == 2
    assert all(j.config.on_missing_references == OnMissing.NONE for j in collectors)


@pytest.mark.parametrize(
    ("change", "request_", "error", "message"),
    [
        ({}, {}, ValueError, "give either n"),
        ({}, {"n": 3}, ValueError, "generate_maker is None"),
        ({}, {"structures": []}, ValueError, "structures is empty"),
        ({"keep": 0}, {"structures": CRYSTALS}, ValueError, "keep must be"),
        ({"rank_maker": 5}, {"structures": CRYSTALS}, TypeError, "rank_maker must be a Maker"),
        (
            {"chunk_size": 0, "relax_maker": emt()},
            {"structures": CRYSTALS},
            ValueError,
            "chunk_size must be",
        ),
        ({"generate_maker": ADiTGenerateMaker()}, {"n": 3}, ValueError, "of one domain"),
    ],
)
def test_wrong_requests_are_refused_before_any_work(makers, change, request_, error, message):
    with pytest.raises(error, match=message):
        replace(makers, **change).make(**request_)


def test_missing_files_are_errors_before_any_work(makers):
    from adit_atomate.discovery.rank import ADiTHullMaker
    from adit_atomate.discovery.stages import ADiTNoveltyMaker

    with pytest.raises(ValueError, match=r"nowhere.csv.* is no file"):
        replace(makers, novelty_maker=ADiTNoveltyMaker(reference="nowhere.csv")).make(
            structures=CRYSTALS
        )
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv"):
        replace(makers, rank_maker=ADiTHullMaker(hull="nowhere.csv")).make(structures=CRYSTALS)


def test_an_engine_is_needed_where_the_jobs_run(makers, monkeypatch, caplog):
    """Not where the flow is made; where it is missing, each structure says so."""
    chgnet = pytest.importorskip("atomate2.forcefields.jobs").ForceFieldRelaxMaker
    bare = replace(makers, screen_maker=None, uniqueness_maker=None, rank_maker=None)
    maker = replace(bare, relax_maker=here(chgnet(name="CHGNet relax", force_field_name="CHGNet")))
    monkeypatch.setattr("adit_atomate.discovery.calculate.find_spec", lambda name: None)

    def missing(self):
        raise ImportError("No module named chgnet")

    monkeypatch.setattr(chgnet, "_get_calculator", missing)
    document, _ = discover(maker, [fcc("Cu", 3.6), fcc("Al", 4.0)])
    assert "needs chgnet: pip install 'adit-atomate[chgnet]'" in caplog.text
    for sample in document.samples:
        assert sample.fate == "not relaxed"
        assert sample.reason == "CHGNet relax needs chgnet: pip install 'adit-atomate[chgnet]'"


def test_a_list_of_structures_without_samples(job_store):
    """The list mode of atomate2's Makers ends with the first that raises; this one does not."""
    crystals = [fcc("Cu", 3.6), fcc("Na", 5.0), fcc("Al", 4.0)]
    with pytest.raises(NotImplementedError, match="Na"):
        run_locally(emt().make(crystals), store=job_store, raise_immediately=True, log=False)
    flow = ADiTRelaxStageMaker(relax_maker=emt()).make(crystals)
    run_locally(flow, store=job_store, ensure_success=True)
    output = MontyDecoder().process_decoded(job_store.get_output(flow.output.uuid, load=True))
    assert [s is None for s in output.structures] == [False, True, False]
    assert [s.relaxation.state for s in output.samples] == ["successful", "failed", "successful"]
    assert "Na" in output.samples[1].reason


def test_other_weights_of_a_force_field_have_no_energies_of_elements():
    from atomate2.forcefields.jobs import ForceFieldRelaxMaker

    from adit_atomate.discovery.calculate import _other_weights

    usual = ForceFieldRelaxMaker(force_field_name="SevenNet")
    other = ForceFieldRelaxMaker(
        force_field_name="SevenNet", calculator_kwargs={"model": "7net-l3i5"}
    )
    assert (_other_weights(usual), _other_weights(other)) == (None, "7net-l3i5")
    assert _other_weights(emt()) is None


def test_unknown_stabilities_come_after_those_near_the_hull():
    from adit_atomate.discovery.documents import ADiTSampleFate
    from adit_atomate.discovery.rank import rank

    def fate(index, score, stability=None):
        return ADiTSampleFate(
            index=index,
            structure_index=index,
            domain="crystal",
            num_atoms=1,
            formula="Cu",
            decoded=True,
            score=score,
            stability=stability,
        )

    samples = [
        fate(0, None),
        fate(1, -3.2, "unknown"),
        fate(2, 0.3),
        fate(3, 0.1),
        fate(4, -0.5, "unknown"),
        fate(5, -0.05),
    ]
    assert [s.index for s in rank(samples)] == [5, 3, 1, 4, 2, 0]


def test_what_lies_far_below_or_has_no_hull_is_unknown(makers, tmp_path):
    from adit_atomate.discovery.rank import ADiTHullMaker

    table = tmp_path / "hull.csv"
    cif = fcc("Cu", 3.6).to(fmt="cif").replace('"', '""')
    header = "material_id,formula,formation_energy_per_atom,e_above_hull,cif"
    table.write_text(f'{header}\nmp-522,Cu1 Au1,-0.05,0.0,"{cif}"\n')
    bound = {"Cu": 1.0, "Au": 0.1}  # copper: 1 eV/atom below
    alloy = Structure(fcc("Cu", 3.9).lattice, ["Cu", "Cu", "Au", "Au"], fcc("Cu", 3.9).frac_coords)
    crystals = [fcc("Cu", 3.6), fcc("Au", 4.06), alloy]
    for hull, known in ((str(table), True), (None, False), ("none", False)):
        maker = ADiTHullMaker(hull=hull, element_energies=bound)
        document, _ = discover(replace(makers, screen_maker=None, rank_maker=maker), crystals)
        copper, _, mixed = document.samples
        assert copper.energy_above_hull < -0.5, copper.hull_reason
        assert copper.stability == "unknown" and "below the hull" in copper.notes[0]
        assert mixed.known_phases == int(known) and mixed.competitors_known is known
        assert (mixed.energy_above_hull is None) != known
        assert mixed.formation_energy_per_atom < -0.3 and mixed.stability == "unknown"
        assert mixed.score < -0.3  # ranked all the same
        near = document.near_hull
        assert (near.count, near.of, near.stability["unknown"]) == (0, 3, 3)
        assert near.bound == ("upper bound" if known else "unknown")
        assert (near.null is not None) == known
        assert ("real compounds put that far above it" in document.summary()) == known


@pytest.mark.parametrize(
    ("calculator", "name"), [("MLFF.CHGNet", "chgnet"), ("MLFF.SevenNet", "sevennet")]
)
def test_elements_have_the_energies_that_the_evaluation_takes(calculator, name):
    from adit_atomate.discovery.documents import ADiTCalculation, ADiTSampleFate
    from adit_atomate.discovery.rank import ADiTHullMaker
    from adit_model.quality.force_fields import element_references

    salt = Structure(Lattice.cubic(3.4), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    elements = element_references(name).energies
    energy = (elements["Cs"] + elements["Cl"]) / 2 - 2.0

    def placed(calculator):
        sample = ADiTSampleFate(
            index=0,
            structure_index=0,
            domain="crystal",
            num_atoms=2,
            formula="CsCl",
            decoded=True,
            relaxation=ADiTCalculation(
                state="successful", energy_per_atom=energy, calculator=calculator
            ),
        )
        job_ = ADiTHullMaker(hull=None).make([salt], [sample])
        return run_locally(job_, log=False, ensure_success=True)[job_.uuid][1].output.samples[0]

    assert placed(calculator).formation_energy_per_atom == pytest.approx(-2.0)
    assert placed(calculator).energy_above_hull is None
    other = placed(f"{calculator} 7net-l3i5")
    assert other.energy_above_hull is None
    assert other.hull_reason.endswith("7net-l3i5: give element_energies")


def test_the_materials_project_may_be_named_in_a_list():
    from adit_atomate.discovery.rank import ADiTHullMaker

    for hull in ("mp", ["mp"], ["materials-project"]):
        maker = ADiTHullMaker(hull=hull).make([], []).maker
        assert maker._files() == [] and maker.hull == ([hull] if isinstance(hull, str) else hull)
    with pytest.raises(ValueError, match="of files or of the Materials Project"):
        ADiTHullMaker(hull=["mp", "mine.csv"]).make([], [])


def test_an_energy_that_no_compound_has_is_not_ranked(makers):
    from adit_atomate.discovery.rank import ADiTHullMaker

    crystals = [Structure(Lattice.cubic(2.6), [symbol], [[0, 0, 0]]) for symbol in ("Cu", "Au")]
    wrong = ADiTHullMaker(element_energies={"Cu": 50.0, "Au": 0.0})
    document, _ = discover(replace(makers, screen_maker=None, rank_maker=wrong), crystals)
    by_formula = {c.formula_pretty: c for c in document.candidates}
    assert [c.rank for c in document.candidates] == [1, 2]
    assert by_formula["Cu"].rank == 2 and by_formula["Cu"].energy_above_hull is None
    assert "lower than any compound has" in by_formula["Cu"].hull_reason
    assert by_formula["Au"].energy_above_hull is not None


@pytest.mark.slow
def test_chgnet_with_broken_and_unknown_crystals(makers, tmp_path):
    """A hull of NaCl alone: by CHGNet it lies on it, to within the force field's error."""
    pytest.importorskip("chgnet")
    from adit_atomate.discovery.rank import ADiTHullMaker
    from adit_atomate.discovery.relax import chgnet_relax_maker

    rock_salt = [[0, 0, 0], [0.5, 0.5, 0.5]]
    primitive = Lattice([[0, 2.9, 2.9], [2.9, 0, 2.9], [2.9, 2.9, 0]])
    crystals = [
        Structure(primitive, ["Na", "Cl"], rock_salt),
        Structure(Lattice.cubic(3), ["Au", "Au"], [[0, 0, 0], [0.01, 0, 0]]),
        Structure(primitive, ["Rn", "O"], rock_salt),
        Structure(primitive, ["Am", "O"], rock_salt),
    ]
    cif = crystals[0].to(fmt="cif").replace('"', '""')
    header = "material_id,formula,formation_energy_per_atom,e_above_hull,cif"
    # Materials Project, mp-22862, MP2020-corrected
    (tmp_path / "hull.csv").write_text(f'{header}\nmp-22862,Na1 Cl1,-2.1096,0.0,"{cif}"\n')
    maker = replace(
        makers,
        screen_maker=None,
        relax_maker=replace(chgnet_relax_maker(), steps=40),
        rank_maker=ADiTHullMaker(hull=str(tmp_path / "hull.csv")),
    )
    document, _ = discover(maker, crystals)
    salt, broken, radon, americium = document.samples
    assert (salt.fate, salt.relaxation.state) == ("kept", "successful")
    assert abs(salt.energy_above_hull) < 0.05
    assert salt.competing_phases == ["NaCl"] and salt.hull_complete is False
    assert broken.fate == "not relaxed" and broken.reason
    assert radon.reason == "CHGNet relax does not know Rn"
    assert americium.reason == "CHGNet relax does not know Am"


def test_structures_of_several_jobs_are_relaxed_part_by_part(job_store):
    """No job starts the relaxations of more than one generating job."""

    def relax(parts):
        sources = [take_structures(part) for part in parts]
        shapes = [source.output.structures for source in sources]
        screen = ADiTScreenMaker().make(shapes, [source.output.samples for source in sources])
        unique = ADiTUniquenessMaker().make(shapes, screen.output.samples)
        stage = here(emt(), 2).make(shapes, unique.output.samples)
        flow = Flow([*sources, screen, unique, stage])
        responses = run_locally(flow, store=job_store, log=False)
        *starts, collect = stage.jobs
        output = responses[collect.uuid][1].output
        made = [responses[start.uuid][1].replace for start in starts]
        chunks = [part.jobs[:-1:2] if part else [] for part in made]
        sizes = [sum(len(chunk.function_args[1]) for chunk in part) for part in chunks]
        told = [
            (s.structure_index, s.fate, s.reason, getattr(s.relaxation, "energy", None))
            for s in output.samples
        ]
        return sizes, told, output.structures

    whole, told, structures = relax([CRYSTALS])
    assert whole == [5]  # one of the seven is implausible, one repeats another
    assert relax([CRYSTALS[:3], CRYSTALS[3:]]) == ([2, 3], told, structures)
    assert relax([CRYSTALS[:6], [CRYSTALS[4]], CRYSTALS[6:]])[0] == [4, 0, 1]
