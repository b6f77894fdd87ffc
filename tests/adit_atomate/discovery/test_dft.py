"""Generated structures through real engines: CHGNet, GPAW, GFN2-xTB, and VASP's input."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from jobflow import Flow, run_locally
from monty.io import zopen
from pymatgen.core import Structure

from adit_atomate import ADiTGenerateMaker
from adit_model.model import ADiT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def crystals() -> list[Structure]:
    """Small crystals of the bundled weights, valid or not."""
    samples = ADiT.load("default").sample(
        40, domain="crystal", seed=5, num_atoms=(2, 4), num_steps=20, progress=False
    )
    return [sample.system.to_structure() for sample in samples if sample.system is not None]


PSEUDOPOTENTIALS = Path("/usr/share/abinit/psp/Pseudodojo_nc_sr_04_pbe_standard_psp8")  # Debian


def sensible(structure: Structure) -> bool:
    """Whether atoms are as far apart, and the cell as small, as in a solid."""
    distances = structure.distance_matrix[structure.distance_matrix > 1e-6]
    return min([*distances, *structure.lattice.abc]) > 1.6 and structure.volume < 40 * len(
        structure
    )


@pytest.mark.slow
def test_every_generated_crystal_is_input_for_vasp(crystals, clean_dir):
    from atomate2.vasp.sets.core import RelaxSetGenerator

    assert len(crystals) > 30
    for structure in crystals:
        files = RelaxSetGenerator().get_input_set(structure, potcar_spec=True)
        assert len(files["POSCAR"].structure) == len(structure)
        assert files["INCAR"]["ENCUT"] > 0
        assert len(files["POTCAR.spec"].split()) == len(files["POSCAR"].site_symbols)


@pytest.mark.slow
def test_chgnet_and_gpaw(crystals, job_store, clean_dir):
    """generate -> CHGNet relaxation -> PBE in GPAW."""
    pytest.importorskip("gpaw", reason="GPAW is not installed: pip install gpaw gpaw-data")
    pytest.importorskip("chgnet", reason="CHGNet is not installed")
    from atomate2.forcefields.jobs import ForceFieldRelaxMaker

    from adit_atomate.discovery.gpaw import GPAWStaticMaker

    chosen = min(filter(sensible, crystals), key=lambda s: (len(s), sum(s.atomic_numbers)))
    relax = ForceFieldRelaxMaker(force_field_name="CHGNet", steps=30).make(chosen)
    static = GPAWStaticMaker(
        calculator_kwargs={
            "mode": {"name": "pw", "ecut": 300},
            "xc": "PBE",
            "kpts": (2, 2, 2),
            "occupations": {"name": "fermi-dirac", "width": 0.1},
            "convergence": {"energy": 1e-3, "density": 1e-2},
            "txt": "gpaw.txt",
        }
    ).make(relax.output.structure)
    flow = Flow([relax, static])
    responses = run_locally(flow, store=job_store, ensure_success=True, create_folders=True)
    relaxed, calculated = responses[relax.uuid][1].output, responses[static.uuid][1].output
    assert calculated.state.value == "successful"
    assert calculated.structure.matches(relaxed.structure)  # static: nothing moved
    energy = calculated.output.energy / len(chosen)  # GPAW counts from free atoms
    assert -12 < energy < 5
    assert "PBE" in next(clean_dir.rglob("gpaw.txt")).read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("abinit") is None, reason="ABINIT is not installed: apt abinit")
@pytest.mark.skipif(not PSEUDOPOTENTIALS.is_dir(), reason="no PseudoDojo: apt abinit-data")
def test_abinit(job_store, clean_dir):
    """generate -> PBE in ABINIT, through atomate2's own Maker."""
    pytest.importorskip("abipy", reason="abipy is not installed: pip install atomate2[abinit]")
    from atomate2.abinit.jobs.core import StaticMaker
    from atomate2.abinit.sets.core import StaticSetGenerator

    files = {path.stem.split("-")[0]: path for path in PSEUDOPOTENTIALS.glob("*.psp8")}
    model = ADiT.load("default")
    options = {"domain": "crystal", "seed": 5, "num_atoms": (2, 4), "num_steps": 20}
    generated = (
        sample.system.to_structure()
        for start in range(0, 3000, 200)
        for sample in model.sample(200, first_index=start, progress=False, **options)
        if sample.system is not None
    )
    chosen = next(
        c for c in generated if sensible(c) and {e.symbol for e in c.composition} <= set(files)
    )
    maker = StaticMaker(
        input_set_generator=StaticSetGenerator(
            pseudos=[str(files[e.symbol]) for e in chosen.composition],
            factory_kwargs={
                "ecut": 10,
                "kppa": 20,
                "spin_mode": "unpolarized",
                "smearing": "fermi_dirac: 0.1 eV",
            },
            user_abinit_settings={"nstep": 60, "chksymtnons": 0},
        )
    )
    job = maker.make(chosen)
    responses = run_locally(job, store=job_store, ensure_success=True, create_folders=True)
    calculated = responses[job.uuid][1].output
    assert calculated.state.value == "successful"
    assert calculated.structure.matches(chosen)
    text = zopen(next(clean_dir.rglob("run.abo*")), "rt", encoding="utf-8").read()
    (energy,) = re.findall(r"etotal\s+(\S+)\n", text)  # what ABINIT itself reports at its end
    assert float(energy) < 0
    assert calculated.output.energy == pytest.approx(float(energy) * 27.211386, rel=1e-6)


@pytest.mark.slow
def test_molecules_and_gfn2_xtb(job_store, clean_dir):
    """generate -> relaxation with GFN2-xTB, all molecules in one job."""
    pytest.importorskip("tblite", reason="tblite is not installed")
    from atomate2.ase.jobs import GFNxTBRelaxMaker

    generate = ADiTGenerateMaker(domain="molecule", seed=1, num_atoms=(6, 12), num_steps=50)
    generated = generate.make(n=4)
    relax = GFNxTBRelaxMaker(
        calculator_kwargs={"method": "GFN2-xTB", "verbosity": 0},
        steps=100,
        relax_kwargs={"fmax": 0.1},
    ).make(generated.output.molecules)
    flow = Flow([generated, relax])
    responses = run_locally(flow, store=job_store, ensure_success=True, create_folders=True)
    molecules = responses[generated.uuid][1].output.molecules
    relaxed = responses[relax.uuid][1].output
    assert len(relaxed) == len(molecules) == 4
    for document, molecule in zip(relaxed, molecules, strict=True):
        assert document.output.mol_or_struct.composition == molecule.composition
        assert document.output.energy <= document.output.ionic_steps[0].energy + 1e-3
