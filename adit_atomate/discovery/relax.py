"""The stage of the discovery flow that relaxes: in chunks, and one failure costs one structure."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from jobflow import CURRENT_JOB, Flow, Job, JobConfig, Maker, OnMissing, Response, job
from pymatgen.core import Molecule, Structure

from adit_atomate.discovery.documents import (
    NOT_RELAXED,
    ADiTRelaxation,
    ADiTSampleFate,
    ADiTStageDoc,
)
from adit_atomate.discovery.engines import check_engine, unknown_elements
from adit_atomate.discovery.stages import (
    STAGE_DATA,
    check_workers,
    close_stage,
    flatten,
    open_samples,
    pending,
    structure_of,
    systems_of,
)
from adit_atomate.task_documents import FAILED, no_output, read_relaxation

logger = logging.getLogger(__name__)

ASE_DATA = ["trajectory", "ionic_steps"]
ANY_INPUT = JobConfig(on_missing_references=OnMissing.NONE)


def chgnet_relax_maker() -> Maker:
    """CHGNet relaxation of cell and atoms, forces below 0.05 eV/angstrom in at most 500 steps."""
    from atomate2.forcefields.jobs import ForceFieldRelaxMaker

    return ForceFieldRelaxMaker(
        name="CHGNet relax",
        force_field_name="CHGNet",
        relax_kwargs={"fmax": 0.05, "final_atoms_object_file": None},
        ionic_step_data=("energy",),
    )


def xtb_relax_maker() -> Maker:
    """GFN2-xTB relaxation, forces below 0.05 eV/angstrom in at most 500 steps of BFGS."""
    from atomate2.ase.jobs import GFNxTBRelaxMaker

    return GFNxTBRelaxMaker(
        name="GFN2-xTB relax",
        calculator_kwargs={"method": "GFN2-xTB", "verbosity": 0},
        relax_kwargs={"fmax": 0.05, "final_atoms_object_file": None},
        optimizer_kwargs={"optimizer": "BFGS"},
        ionic_step_data=("energy",),
    )


@dataclass
class ADiTRelaxStageMaker(Maker):
    """Relax structures with any relaxation Maker; what fails is recorded and loses no other.

    Makers that run an ASE calculator get many structures in one job, which loads the model once;
    a structure that raises is noted, and the job goes on. If a whole job is lost (its process was
    killed, its output could not be stored), its structures are tried again one by one. Other
    Makers get one job or flow for each structure.

    A structure that did not converge, or came apart, ends its way here like one that raised.

    Parameters
    ----------
    name : str
        Name of the jobs.
    relax_maker : Maker
        Makes a job or flow of one structure or molecule, with a task document as its output. A
        ``GFNxTBRelaxMaker`` is given charge and spin of each molecule unless it sets them itself.
    chunk_size : int
        Structures in each job, for Makers that run an ASE calculator.
    """

    name: str = "ADiT relax"
    relax_maker: Maker = field(default_factory=chgnet_relax_maker)
    chunk_size: int = 20

    def make(self, structures: list[Any], samples: list[Any]) -> Flow:
        """Make a flow that relaxes all samples that are still on their way.

        Parameters
        ----------
        structures, samples : list
            See :mod:`adit_atomate.discovery.stages`.

        Raises
        ------
        ValueError
            If ``chunk_size`` is not positive.
        ImportError
            If the Maker's engine is not installed.
        """
        if isinstance(self.chunk_size, bool) or self.chunk_size < 1:
            raise ValueError(f"chunk_size must be a positive integer, got {self.chunk_size!r}")
        check_engine(self.relax_maker, "relax_maker")
        start = self.fan_out(structures, samples)
        collect = self.collect(structures, samples, start.output)
        start.name = f"{self.name} (fan out)"
        collect.name = f"{self.name} (collect)"
        return Flow([start, collect], output=collect.output, name=self.name)

    @job
    def fan_out(self, structures: list[Any], samples: list[Any]) -> Response:
        """Start the relaxations."""
        started = time.time()
        flat, coming = flatten(structures), pending(open_samples(samples))
        todo = [s for s in coming if not self._unknown(s, flat)]
        maker = self.relax_maker
        jobs: list[Job | Flow] = []
        parts: list[dict[str, Any]] = []
        if runs_ase(maker):
            chunks = [todo[i : i + self.chunk_size] for i in range(0, len(todo), self.chunk_size)]
            for i, chunk in enumerate(chunks, 1):
                mine = [structure_of(s, flat) for s in chunk]
                run = relax_chunk(maker, mine)
                run.name = f"{maker.name} {i}/{len(chunks)}"
                gather = gather_chunk(maker, mine, run.output, run.uuid)
                gather.name = f"{self.name} (gather {i}/{len(chunks)})"
                jobs += [run, gather]
                parts.append({"indices": [s.index for s in chunk], "results": gather.output})
        else:
            for i, sample in enumerate(todo, 1):
                one = maker.make(structure_of(sample, flat))
                one.append_name(f" {i}/{len(todo)}")
                jobs.append(one)
                uuid = one.output.uuid if isinstance(one, Job) else one.jobs[-1].uuid
                parts.append({"indices": [sample.index], "document": one.output, "uuid": uuid})
        output = {"started": started, "parts": parts}
        if not jobs:
            return Response(output=output)
        return Response(replace=Flow(jobs, output=output, name=self.name))

    def _unknown(self, sample: ADiTSampleFate, structures: Sequence[Any]) -> list[str]:
        symbols = {site.specie.symbol for site in structure_of(sample, structures)}
        return unknown_elements(self.relax_maker, symbols)

    @job(output_schema=ADiTStageDoc, data=STAGE_DATA, config=ANY_INPUT)
    def collect(
        self, structures: list[Any], samples: list[Any], fanned: dict[str, Any] | None
    ) -> ADiTStageDoc:
        """Put the results together."""
        flat, opened = flatten(structures), open_samples(samples)
        coming = pending(opened)
        by_index = {sample.index: sample for sample in coming}
        relaxed: list[Structure | Molecule | None] = [None] * len(flat)
        fanned = fanned or {"started": time.time(), "parts": []}
        for part in fanned["parts"]:
            mine = [by_index[i] for i in part["indices"]]
            initial = [structure_of(s, flat) for s in mine]
            if "results" in part:
                results = part["results"] or [None] * len(mine)
            else:
                relaxation, structure = read_relaxation(part["document"], initial[0], part["uuid"])
                results = [{"relaxation": relaxation, "structure": structure}]
            for sample, result in zip(mine, results, strict=True):
                _record(sample, result and result["relaxation"])
                if result and sample.structure_index is not None:
                    relaxed[sample.structure_index] = result["structure"]
        for sample in coming:
            if sample.relaxation is None:
                unknown = self._unknown(sample, flat)
                reason = (
                    f"{self.relax_maker.name} does not know {', '.join(unknown)}"
                    if unknown
                    else "its relaxation was never started: the log of the fan-out job says why"
                )
                _record(sample, ADiTRelaxation(state=FAILED, reason=reason))
        _check_molecules(coming, relaxed)
        return close_stage(
            "relaxation",
            fanned["started"],
            len(coming),
            opened,
            relaxed,
            maker=self.relax_maker.name,
            chunk_size=self.chunk_size if runs_ase(self.relax_maker) else 1,
            relaxation_seconds=sum(
                s.relaxation.seconds or 0.0 for s in coming if s.relaxation is not None
            ),
        )


def runs_ase(maker: Maker) -> bool:
    """Whether a Maker runs an ASE calculator in the job's own process."""
    from atomate2.ase.jobs import AseMaker

    return isinstance(maker, AseMaker) and hasattr(type(maker).make, "original")


@job(data=ASE_DATA)
def relax_chunk(maker: Maker, structures: list[Structure | Molecule]) -> list[dict[str, Any]]:
    """Run an ASE Maker on many structures in this process.

    Returns
    -------
    list of dict
        ``document``, None where the calculation raised, with the ``reason``; ``seconds``.
    """
    results = []
    for structure in structures:
        result = attempt(maker, structure)
        results.append(result)
        if result["document"] is None:  # nothing of a failure is carried over
            maker = cast(Maker, type(maker).from_dict(maker.as_dict()))
    return results


def attempt(maker: Maker, structure: Structure | Molecule) -> dict[str, Any]:
    """Run an ASE Maker on one structure in this process, and note what it raises."""
    started = time.perf_counter()
    document = reason = None
    try:
        mine = for_molecule(maker, structure) if isinstance(structure, Molecule) else maker
        document = type(mine).make.original(mine, structure)  # type: ignore[attr-defined]
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        logger.warning("%s of %s failed: %s", maker.name, structure.formula, reason)
    return {
        "document": document,
        "reason": reason,
        "seconds": time.perf_counter() - started,
    }


def for_molecule(maker: Maker, molecule: Molecule) -> Maker:
    """Give a GFN-xTB Maker the charge and spin of a molecule, unless it sets them itself.

    atomate2 passes neither on, so that every molecule would be neutral and closed-shell.
    """
    from atomate2.ase.jobs import GFNxTBRelaxMaker

    if not isinstance(maker, GFNxTBRelaxMaker):
        return maker
    given = {key: value for key, value in maker.calculator_kwargs.items() if value is not None}
    own = {"charge": int(molecule.charge), "multiplicity": int(molecule.spin_multiplicity)}
    return replace(maker, calculator_kwargs={**own, **given})


@job(data=[["output"]], config=ANY_INPUT)
def gather_chunk(
    maker: Maker,
    structures: list[Structure | Molecule],
    chunk: list[dict[str, Any]] | None,
    uuid: str,
) -> Any:
    """Read the results of a chunk; if it was lost, try its structures one by one."""
    if chunk is not None:
        return [
            _read(result, structure, uuid)
            for result, structure in zip(chunk, structures, strict=True)
        ]
    current = CURRENT_JOB.job
    logger.warning("%s left no output: its structures are tried one by one", uuid)
    if len(structures) == 1:
        lost = ADiTRelaxation(state=FAILED, reason=no_output(uuid), uuid=uuid)
        return [{"relaxation": lost, "structure": None}]
    jobs: list[Job] = []
    outputs = []
    for i, structure in enumerate(structures, 1):
        single = relax_chunk(maker, [structure])
        single.name = f"{maker.name} (again {i}/{len(structures)})"
        read = gather_chunk(maker, [structure], single.output, single.uuid)
        read.name = f"{current.name} {i}/{len(structures)}"
        jobs += [single, read]
        outputs.append(read.output)
    join = join_lists(outputs)
    join.name = f"{current.name} (join)"
    return Response(replace=Flow([*jobs, join], output=join.output, name=current.name))


@job(data=[["output"]], config=ANY_INPUT)
def join_lists(parts: list[Any]) -> list[Any]:
    """Join lists of one; what is missing stays None."""
    return [None if part is None else part[0] for part in parts]


def _read(result: dict[str, Any], structure: Structure | Molecule, uuid: str) -> dict[str, Any]:
    if result["document"] is None:
        failed = ADiTRelaxation(
            state=FAILED, reason=result["reason"], uuid=uuid, seconds=result["seconds"]
        )
        return {"relaxation": failed, "structure": None}
    relaxation, relaxed = read_relaxation(result["document"], structure, uuid)
    relaxation.seconds = result["seconds"]
    return {"relaxation": relaxation, "structure": relaxed}


def _record(sample: ADiTSampleFate, relaxation: ADiTRelaxation | dict[str, Any] | None) -> None:
    """Note a relaxation on its sample."""
    if relaxation is None:
        relaxation = ADiTRelaxation(state=FAILED, reason=no_output(None))
    if isinstance(relaxation, dict):
        relaxation = ADiTRelaxation(**relaxation)
    sample.relaxation = relaxation
    if relaxation.uuid:
        sample.job_uuids["relax"] = relaxation.uuid
    if relaxation.state == FAILED:
        sample.fate, sample.reason = NOT_RELAXED, relaxation.reason


def _check_molecules(
    samples: Sequence[ADiTSampleFate], relaxed: Sequence[Structure | Molecule | None]
) -> None:
    """Note the SMILES of relaxed molecules; what was a molecule and is none any more has failed."""
    from adit_model.quality.molecules import check_molecules
    from adit_model.systems import MOLECULE

    mine = [s for s in samples if s.domain == MOLECULE and s.fate != NOT_RELAXED]
    if not mine:
        return
    checks = check_molecules(systems_of(mine, relaxed), workers=check_workers(len(mine)))
    for sample, check in zip(mine, checks, strict=True):
        sample.relaxed_smiles = check.smiles
        if sample.valid and not check.valid and sample.relaxation is not None:
            reason = f"relaxed to no molecule: {check.reason}"
            sample.relaxation.state = FAILED
            sample.relaxation.reason = sample.reason = reason
            sample.fate = NOT_RELAXED
