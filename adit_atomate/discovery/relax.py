"""The stage of the discovery flow that relaxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jobflow import Flow, Maker, OutputReference, Response, job
from pymatgen.core import Molecule, Structure

from adit_atomate.discovery.calculate import (
    ANY_INPUT,
    end_each,
    runs_ase,
    start_each,
    takes_many,
    unknown_elements,
    warn_if_missing,
)
from adit_atomate.discovery.documents import ADiTCalculation, ADiTSampleFate, ADiTStageDoc
from adit_atomate.discovery.stages import (
    STAGE_DATA,
    close_stage,
    flatten,
    given_samples,
    open_samples,
    pending,
    structure_of,
    systems_of,
)
from adit_atomate.settings import check_fields, check_workers
from adit_atomate.task_documents import FAILED
from adit_model.quality.symmetry import MOVED, SYMMETRY, symmetrise
from adit_model.systems import MOLECULE, AtomicSystem


def chgnet_relax_maker() -> Maker:
    """CHGNet relaxation of cell and atoms, forces below 0.05 eV/angstrom in at most 500 steps."""
    from adit_atomate.discovery.force_fields import ADiTForceFieldRelaxMaker
    from adit_model.quality.relax import FMAX

    return ADiTForceFieldRelaxMaker(
        name="CHGNet relax",
        force_field_name="CHGNet",
        relax_kwargs={"fmax": FMAX, "final_atoms_object_file": None},
        ionic_step_data=("energy",),
    )


def sevennet_relax_maker(model: str = "7net-0") -> Maker:
    """SevenNet relaxation of cell and atoms; ``"7net-l3i5"`` is a better, slower second opinion.

    Of other weights than ``"7net-0"`` the package has no energies of elements: give
    ``ADiTHullMaker(element_energies=...)`` for an energy above hull.
    """
    from adit_atomate.discovery.force_fields import ADiTForceFieldRelaxMaker
    from adit_model.quality.relax import FMAX

    return ADiTForceFieldRelaxMaker(
        name="SevenNet relax",
        force_field_name="SevenNet",
        calculator_kwargs={"model": model},
        relax_kwargs={"fmax": FMAX, "final_atoms_object_file": None},
        ionic_step_data=("energy",),
    )


def torchsim_relax_maker(model: str = "7net-0", device: str = "cuda") -> Maker:
    """SevenNet relaxation of cell and atoms by TorchSim's FIRE, a whole job's crystals at once.

    For a GPU, with a large ``chunk_size``.

    Raises
    ------
    ModuleNotFoundError
        Without Python 3.12 and the extra ``torchsim``.
    """
    try:
        from atomate2.torchsim.core import TorchSimModelType, TorchSimOptimizeMaker
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}: TorchSim needs Python 3.12 or newer and pip install 'adit-atomate[torchsim]'"
        ) from error

    from adit_model.quality.relax import FMAX, STEPS

    return TorchSimOptimizeMaker(
        name="TorchSim relax",
        optimizer="fire",
        model_type=TorchSimModelType.SEVENNET,
        model_path=model,
        model_kwargs={"device": device},
        convergence_fn_kwargs={"force_tol": FMAX, "include_cell_forces": True},
        autobatcher_dict=device != "cpu",
        max_steps=STEPS,
        init_kwargs={"cell_filter": "frechet"},
    )


def xtb_relax_maker() -> Maker:
    """GFN2-xTB relaxation, forces below 0.05 eV/angstrom in at most 500 steps of BFGS."""
    from atomate2.ase.jobs import GFNxTBRelaxMaker

    from adit_model.quality.relax import FMAX

    return GFNxTBRelaxMaker(
        name="GFN2-xTB relax",
        calculator_kwargs={"method": "GFN2-xTB", "verbosity": 0},
        relax_kwargs={"fmax": FMAX, "final_atoms_object_file": None},
        optimizer_kwargs={"optimizer": "BFGS"},
        ionic_step_data=("energy",),
    )


@dataclass
class ADiTRelaxStageMaker(Maker):
    """Relax structures with any relaxation Maker; what fails is recorded and loses no other.

    A structure that did not converge, came apart, or was stopped at a limit, ends its way here like
    one that raised.

    Parameters
    ----------
    name : str
        Name of the jobs.
    relax_maker : Maker
        Makes a job or flow of one structure or molecule, with a task document as its output. A
        ``GFNxTBRelaxMaker`` is given charge and spin of each molecule unless it sets them itself.
    chunk_size : int
        Structures in each job, for Makers that run an ASE calculator, and for TorchSim, which
        relaxes them at once; others get one each.
    time_limit, memory_limit : float or None
        Seconds for each structure, gigabytes for the process, for Makers that run an ASE
        calculator: it runs in a process of its own, which loads the model once and is stopped at a
        limit. With neither it runs in that of the job.
    symmetrise : float or None
        Crystals: tolerance in angstrom at which spglib finds the symmetry that atoms and cell are
        moved onto before; None leaves them as they are. A crystal is left, too, if an atom would
        move by more than ``max_move`` or the result is not plausible.
    max_move : float
        In angstrom, see there.
    fix_symmetry : bool
        Keep the symmetry while relaxing.
    pressure : float
        Of the relaxed crystal, in GPa.
    fix_atoms : list of str
        Elements whose atoms stay where they are; the cell does, too.

    ``fix_symmetry``, ``pressure`` and ``fix_atoms`` are for Makers that run an ASE calculator;
    others have settings of their own.

    Examples
    --------
    >>> from adit_atomate import ADiTGenerateMaker
    >>> generate = ADiTGenerateMaker(domain="crystal").make(n=4)
    >>> relax = ADiTRelaxStageMaker().make(generate.output.structures)
    >>> [job.name for job in relax.jobs]
    ['ADiT relax fan out', 'ADiT relax collect']
    """

    name: str = "ADiT relax"
    relax_maker: Maker = field(default_factory=chgnet_relax_maker)
    chunk_size: int = 20
    time_limit: float | None = 1800.0
    memory_limit: float | None = 4.0
    symmetrise: float | None = SYMMETRY
    max_move: float = MOVED
    fix_symmetry: bool = False
    pressure: float = 0.0
    fix_atoms: list[str] = field(default_factory=list)

    def make(self, structures: Any, samples: Any = None) -> Flow:
        """Make a flow that relaxes all samples that are still on their way.

        Parameters
        ----------
        structures, samples : list or OutputReference
            See :mod:`adit_atomate.discovery.stages`. Without samples all structures are relaxed.

        Returns
        -------
        Flow
            Its output is an ``ADiTStageDoc``: ``structures`` has None where the relaxation failed,
            and ``samples`` the energy, or the reason.

        Raises
        ------
        ValueError, TypeError
            If ``chunk_size`` or a limit is not positive, or the Maker is none or takes no such
            option.
        """
        check_fields(self, relax_maker=Maker)
        if isinstance(self.chunk_size, bool) or self.chunk_size < 1:
            raise ValueError(f"chunk_size must be a positive integer, got {self.chunk_size!r}")
        for name in ("time_limit", "memory_limit", "symmetrise", "max_move"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be a positive number or None, got {value!r}")
        self.engine()
        warn_if_missing(self.relax_maker, "relax_maker")
        lists = [structures]
        if samples is not None and isinstance(structures, list) and len(structures) > 1:
            lists = structures if isinstance(structures[0], OutputReference | list) else lists
        starts = []
        for i, part in enumerate(lists):
            start = self.fan_out(part, samples, i if len(lists) > 1 else None)
            start.name = f"{self.name} fan out" + (f" {i + 1}/{len(lists)}" * (len(lists) > 1))
            starts.append(start)
        collect = self.collect(structures, samples, [start.output for start in starts])
        collect.name = f"{self.name} collect"
        return Flow([*starts, collect], output=collect.output, name=self.name)

    @job
    def fan_out(
        self, structures: list[Any], samples: list[Any] | None, part: int | None = None
    ) -> Response:
        """Start the relaxations: of all structures, or of one generating job's."""
        flat, _, todo = self._open(structures, samples, part)
        chosen = [self._start(sample, flat) for sample in todo]
        limits = {"time_limit": self.time_limit, "memory_limit": self.memory_limit}
        return start_each(self.engine(), chosen, self.chunk_size, limits)

    def engine(self) -> Maker:
        """Return ``relax_maker`` with symmetry, pressure and fixed atoms as asked.

        Raises
        ------
        ValueError
            If it runs no ASE calculator, or relaxes no cell at that pressure.
        """
        if not (self.fix_symmetry or self.pressure or self.fix_atoms):
            return self.relax_maker
        maker: Any = self.relax_maker
        if not runs_ase(maker) or not hasattr(maker, "relax_cell"):
            raise ValueError(
                f"{maker.name} takes no fix_symmetry, pressure or fix_atoms: set what it has itself"
            )
        changes: dict[str, Any] = {"fix_symmetry": self.fix_symmetry or maker.fix_symmetry}
        if self.fix_atoms:
            changes["relax_cell"] = False
        if self.pressure:
            if self.fix_atoms or not maker.relax_cell:
                raise ValueError(f"a pressure of {self.pressure} GPa needs a cell that relaxes")
            from ase.units import GPa

            given = maker.relax_kwargs.get("filter_kwargs") or {}
            pressed = {**given, "scalar_pressure": self.pressure * GPa}
            changes["relax_kwargs"] = {**maker.relax_kwargs, "filter_kwargs": pressed}
        return replace(maker, **changes)

    def _start(self, sample: ADiTSampleFate, structures: Sequence[Any]) -> Structure | Molecule:
        """Return what is relaxed of a sample, and note how it was symmetrised."""
        structure = structure_of(sample, structures)
        if not isinstance(structure, Structure):
            return structure
        if self.symmetrise is not None:
            found = symmetrise(AtomicSystem.from_any(structure), self.symmetrise, self.max_move)
            if found is not None:
                structure = found.system.to_structure()
                sample.symmetrised, sample.symmetrised_move = found.symbol, found.moved
        if self.fix_atoms:  # becomes ASE's FixAtoms
            free = [[site.specie.symbol not in self.fix_atoms] * 3 for site in structure]
            structure = structure.copy(site_properties={"selective_dynamics": free})
        return structure

    @job(output_schema=ADiTStageDoc, data=STAGE_DATA, config=ANY_INPUT)
    def collect(
        self, structures: list[Any], samples: list[Any] | None, fanned: list[dict[str, Any] | None]
    ) -> ADiTStageDoc:
        """Put the results together."""
        flat, opened, todo = self._open(structures, samples)
        coming = pending(opened)
        relaxed: list[Structure | Molecule | None] = [None] * len(flat)
        sizes = [len(todo)]
        if len(fanned) > 1:
            sizes = [sum(s.part == part for s in todo) for part in range(len(fanned))]
        ended = [end_each(part, size) for part, size in zip(fanned, sizes, strict=True)]
        started = min(when for when, _ in ended)
        results = [result for _, found in ended for result in found]
        for sample, result in zip(todo, results, strict=True):
            self._start(sample, flat)
            _record(sample, result.calculation)
            assert sample.structure_index is not None
            relaxed[sample.structure_index] = result.structure
        for sample in coming:
            if sample.relaxation is None:
                unknown = ", ".join(self._unknown(sample, flat))
                reason = f"{self.relax_maker.name} does not know {unknown}"
                _record(sample, ADiTCalculation(state=FAILED, reason=reason))
        _check_relaxed(coming, relaxed)
        return close_stage(
            "relaxation",
            started,
            len(coming),
            opened,
            relaxed,
            maker=self.relax_maker.name,
            chunk_size=self.chunk_size if takes_many(self.relax_maker) else 1,
            symmetrised=sum(s.symmetrised is not None for s in coming),
            relaxation_seconds=sum(s.relaxation.seconds or 0.0 for s in coming if s.relaxation),
        )

    def _open(
        self, structures: list[Any], samples: list[Any] | None, part: int | None = None
    ) -> tuple[list[Any], list[ADiTSampleFate], list[ADiTSampleFate]]:
        """Structures, samples, and those of the samples that are to be relaxed.

        With a part, structures and samples are those of that generating job.
        """
        flat = flatten(structures)
        opened = open_samples(given_samples(flat) if samples is None else samples)
        if part is not None:
            opened = [s for s in opened if s.part == part]
            places = [s.structure_index for s in opened if s.structure_index is not None]
            flat = [None] * min(places, default=0) + flat
        return flat, opened, [s for s in pending(opened) if not self._unknown(s, flat)]

    def _unknown(self, sample: ADiTSampleFate, structures: Sequence[Any]) -> list[str]:
        symbols = {site.specie.symbol for site in structure_of(sample, structures)}
        return unknown_elements(self.relax_maker, symbols)


def _record(sample: ADiTSampleFate, relaxation: ADiTCalculation) -> None:
    """Note a relaxation on its sample."""
    sample.relaxation = relaxation
    if relaxation.uuid:
        sample.job_uuids["relax"] = relaxation.uuid
    if relaxation.state == FAILED:
        sample.fate, sample.reason = "not relaxed", relaxation.reason


def _check_relaxed(
    samples: Sequence[ADiTSampleFate], relaxed: Sequence[Structure | Molecule | None]
) -> None:
    """Note the SMILES of relaxed molecules; what was plausible and is no more has failed."""
    from adit_model.quality.molecules import bonds
    from adit_model.quality.plausible import plausible
    from adit_model.quality.pool import run_isolated

    mine = [s for s in samples if s.fate != "not relaxed"]
    for sample, system in zip(mine, systems_of(mine, relaxed), strict=True):
        verdict = plausible(system)
        if sample.plausible and not verdict.plausible and sample.relaxation is not None:
            sample.relaxation.state = FAILED
            sample.relaxation.reason = f"no more plausible when relaxed: {verdict.reason}"
            _record(sample, sample.relaxation)
    molecules = [s for s in mine if s.domain == MOLECULE]
    found = run_isolated(bonds, systems_of(molecules, relaxed), workers=check_workers(len(mine)))
    for sample, outcome in zip(molecules, found, strict=True):
        sample.relaxed_smiles = (outcome.value or {}).get("smiles")
