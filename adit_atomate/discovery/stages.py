"""Stages of the discovery flow that judge structures: screening, uniqueness, novelty.

A stage is a Maker with ``make(structures, samples)``. ``structures`` is a list, or a list of lists
as several jobs made them; ``samples`` has a record for each sample of the flow, whose
``structure_index`` is the place of its structure. The job's output is an
``ADiTStageDoc`` with all samples: those that ended in the stage have
a fate other than "pending", and the later stages pass over them. Any Maker like that can take the
place of these.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jobflow import Job, Maker, job

from adit_atomate.discovery.documents import ADiTSampleFate, ADiTStageDoc, ADiTStageTiming
from adit_atomate.documents import ADiTSampleRecord
from adit_atomate.settings import ADiTSettings, check_workers
from adit_model.data.phases import without_none
from adit_model.data.sources import absolute_source

if TYPE_CHECKING:
    from pymatgen.core import Molecule, Structure

    from adit_model.quality.entries import Reference
    from adit_model.systems import AtomicSystem

STAGE_DATA = [["output", "samples"], ["output", "structures"]]


def flatten(structures: Sequence[Any]) -> list[Structure | Molecule | None]:
    """Join the structures of several jobs."""
    if any(isinstance(part, list) for part in structures):
        return [structure for part in structures for structure in part]
    return list(structures)


def open_samples(samples: Sequence[Any]) -> list[ADiTSampleFate]:
    """Read the samples of a stage, or of one or more generating jobs (one list for each)."""
    parts = samples if any(isinstance(part, list) for part in samples) else [samples]
    opened: list[ADiTSampleFate] = []
    offset = 0
    for place, part in enumerate(parts):
        count = 0
        for record in part:
            sample = ADiTSampleFate(**record.model_dump())
            if len(parts) > 1:
                sample.part = place
            if sample.structure_index is not None:
                sample.structure_index += offset
                count += 1
            if not sample.decoded:
                sample.fate = "not decoded"
            opened.append(sample)
        offset += count
    return opened


def given_samples(structures: Iterable[Structure | Molecule | None]) -> list[ADiTSampleRecord]:
    """Make a record of each given structure; what is no ordered structure counts as not decoded."""
    from pymatgen.core import Structure

    from adit_model.systems import AtomicSystem

    records = []
    for i, structure in enumerate(structures):
        if structure is None:
            raise TypeError(f"structure {i} is None")
        reason, formula = None, structure.composition.reduced_formula
        try:
            formula = AtomicSystem.from_any(structure).formula
        except ValueError as error:
            reason = str(error)
        records.append(
            ADiTSampleRecord(
                index=i,
                structure_index=i,
                domain="crystal" if isinstance(structure, Structure) else "molecule",
                num_atoms=len(structure),
                formula=formula,
                decoded=reason is None,
                plausible=None if reason is None else False,
                reason=reason,
            )
        )
    return records


def pending(samples: Iterable[ADiTSampleFate]) -> list[ADiTSampleFate]:
    """Return the samples that are still on their way."""
    return [sample for sample in samples if sample.fate == "pending"]


def close_stage(
    stage: str,
    started: float,
    num_in: int,
    samples: list[ADiTSampleFate],
    structures: list[Structure | Molecule | None] | None = None,
    **details: Any,
) -> ADiTStageDoc:
    """Make the document of a stage that ends now.

    Parameters
    ----------
    stage : str
        Its name.
    started : float
        When it began, as ``time.time()`` says.
    num_in : int
        Samples that came in.
    samples : list of ADiTSampleFate
        All samples of the flow.
    structures : list, optional
        New structures, by ``structure_index``.
    **details
        What to remember of it.
    """
    timing = ADiTStageTiming(
        stage=stage,
        started_at=started,
        seconds=time.time() - started,
        num_in=num_in,
        num_out=len(pending(samples)),
    )
    return ADiTStageDoc(timing=timing, samples=samples, structures=structures, details=details)


def systems_of(
    samples: Iterable[ADiTSampleFate], structures: Sequence[Structure | Molecule | None]
) -> list[AtomicSystem]:
    """Convert the structures of samples, each named by the index of its sample."""
    from adit_model.systems import AtomicSystem

    return [AtomicSystem.from_any(structure_of(s, structures), id=str(s.index)) for s in samples]


def structure_of(
    sample: ADiTSampleFate, structures: Sequence[Structure | Molecule | None]
) -> Structure | Molecule:
    """Return the structure of a sample."""
    place = sample.structure_index
    structure = None if place is None else structures[place]
    if structure is None:
        raise ValueError(f"sample {sample.index} has no structure")
    return structure


@dataclass
class ADiTScreenMaker(Maker):
    """Let only plausible structures go on: nothing else is worth a relaxation, or safe in one.

    Parameters
    ----------
    name : str
        Name of the jobs.
    smact_valid : bool
        Of crystals, let only those go on that are valid in the sense of the literature, too: SMACT
        must find charges that cancel, which it does not for Fe3O4, MgB2 and LaB6.
    closed_shell : bool
        Of molecules, let only those go on that have no formal charges, as nitro groups have.

    See Also
    --------
    adit_model.quality.plausible : what is plausible.
    """

    name: str = "ADiT screen"
    smact_valid: bool = False
    closed_shell: bool = False

    @job(output_schema=ADiTStageDoc, data=STAGE_DATA)
    def make(self, structures: list[Any], samples: list[Any]) -> ADiTStageDoc:
        """Check those that the generating job has not checked; what is not plausible ends here.

        Parameters
        ----------
        structures, samples : list
            See :mod:`adit_atomate.discovery.stages`.
        """
        started = time.time()
        flat, opened = flatten(structures), open_samples(samples)
        coming = pending(opened)
        check_samples([s for s in coming if s.plausible is None], flat)
        for sample in coming:
            if not sample.plausible:
                sample.fate = "not plausible"
            elif self.smact_valid and sample.smact_valid is False:
                sample.fate = "not plausible"
                sample.reason = f"SMACT finds no charges that cancel for {sample.formula}"
            elif self.closed_shell and sample.closed_shell is False:
                sample.fate = "not plausible"
                sample.reason = f"formal charges: {sample.smiles}"
        return close_stage(
            "screening",
            started,
            len(coming),
            opened,
            smact_valid=self.smact_valid,
            closed_shell=self.closed_shell,
        )


def check_samples(
    samples: list[ADiTSampleFate], structures: Sequence[Structure | Molecule | None]
) -> None:
    """Fill in whether samples are plausible, and valid."""
    from adit_model.quality.records import check_systems

    verdicts = check_systems(
        systems_of(samples, structures),
        workers=check_workers(len(samples)),
        time_limit=ADiTSettings().CHECK_TIME_LIMIT,
    )
    for sample, verdict in zip(samples, verdicts, strict=True):
        for name, value in verdict:
            setattr(sample, name, value)


@dataclass
class ADiTUniquenessMaker(Maker):
    """Let only the first of equal structures go on.

    Crystals are compared by pymatgen's structure matcher with the tolerances of CDVAE (see
    :mod:`adit_model.quality.matching`), molecules by their canonical SMILES. A crystal
    whose comparison fails goes on, with a note.

    Parameters
    ----------
    name : str
        Name of the jobs.
    """

    name: str = "ADiT uniqueness"

    @job(output_schema=ADiTStageDoc, data=STAGE_DATA)
    def make(self, structures: list[Any], samples: list[Any]) -> ADiTStageDoc:
        """Compare the samples to each other.

        Parameters
        ----------
        structures, samples : list
            See :mod:`adit_atomate.discovery.stages`.
        """
        from adit_model.systems import CRYSTAL

        started = time.time()
        flat, opened = flatten(structures), open_samples(samples)
        coming = pending(opened)
        _compare_crystals([s for s in coming if s.domain == CRYSTAL], flat)
        first: dict[str, int] = {}
        for sample in coming:
            if sample.domain == CRYSTAL:
                continue
            smiles = _smiles(sample, flat)
            if smiles is None:
                sample.unique = None
                sample.notes.append("not compared: RDKit finds no bonds, so there is no SMILES")
                continue
            sample.unique = first.setdefault(smiles, sample.index) == sample.index
            sample.duplicate_of = None if sample.unique else first[smiles]
        for sample in coming:
            if sample.unique is False:
                sample.fate = "duplicate"
                sample.reason = f"equal to sample {sample.duplicate_of}"
        return close_stage("uniqueness", started, len(coming), opened)


def _compare_crystals(
    samples: list[ADiTSampleFate], structures: Sequence[Structure | Molecule | None]
) -> None:
    from adit_model.quality.matching import first_equal

    systems = systems_of(samples, structures)
    firsts = first_equal(systems, workers=check_workers(len(systems)))
    for i, (sample, first) in enumerate(zip(samples, firsts, strict=True)):
        if isinstance(first, str):
            sample.unique = None
            sample.notes.append(f"not compared to the other samples: {first}")
        else:
            sample.unique = first == i
            sample.duplicate_of = None if first == i else samples[first].index


def _smiles(
    sample: ADiTSampleFate, structures: Sequence[Structure | Molecule | None]
) -> str | None:
    """Return the SMILES a molecule is compared by: that of the latest geometry."""
    if sample.relaxed_smiles is None and sample.smiles is None and sample.plausible is None:
        check_samples([sample], structures)
    return sample.relaxed_smiles or sample.smiles


@dataclass
class ADiTNoveltyMaker(Maker):
    """Let only structures go on that known data do not hold.

    Compared as :class:`ADiTUniquenessMaker` does. A crystal whose comparison fails goes on, with a
    note.

    Parameters
    ----------
    name : str
        Name of the jobs.
    reference : str, list of str or None
        Known structures, any of the sources of :func:`adit_model.data.sources.load_source`: a CSV
        file with CIFs, a folder, ``"mp20:train"``, ``"qm9:train"``. By default the setting
        ``ADIT_REFERENCE``, which is ``"known"``, the crystals and molecules of the package, unless
        set. None or ``"none"`` leaves the stage out of a discovery.
    """

    name: str = "ADiT novelty"
    reference: str | list[str] | None = field(default_factory=lambda: ADiTSettings().REFERENCE)

    def make(self, structures: list[Any], samples: list[Any]) -> Job:
        """Make a job that compares the samples to the reference.

        Parameters
        ----------
        structures, samples : list
            See :mod:`adit_atomate.discovery.stages`.

        Raises
        ------
        ValueError
            If there is no reference, or none of that name.
        """
        return replace(self, reference=self.sources())._make(structures, samples)

    def sources(self) -> list[str]:
        """Return the sources with absolute paths.

        Raises
        ------
        ValueError
            If there is none, or none of that name.
        """
        given = without_none(self.reference)
        if not given:
            raise ValueError(
                "novelty needs a reference: give ADiTNoveltyMaker(reference=...) or ADIT_REFERENCE"
            )
        return [absolute_source(source) for source in given]

    @job(output_schema=ADiTStageDoc, data=STAGE_DATA)
    def _make(self, structures: list[Any], samples: list[Any]) -> ADiTStageDoc:
        from adit_model.quality.entries import load_reference
        from adit_model.systems import CRYSTAL

        started = time.time()
        flat, opened = flatten(structures), open_samples(samples)
        coming = pending(opened)
        reference = load_reference(self.sources())
        crystals = [s for s in coming if s.domain == CRYSTAL]
        molecules = [s for s in coming if s.domain != CRYSTAL]
        if crystals:
            _find_crystals(crystals, flat, reference)
        if molecules:
            _find_molecules(molecules, flat, reference)
        for sample in coming:
            if sample.novel is False:
                sample.fate = "known"
                sample.reason = f"known as {sample.nearest_known}"
        sizes = {
            "crystals": 0 if reference.crystals is None else len(reference.crystals),
            "molecules": reference.num_molecules,
        }
        return close_stage(
            "novelty", started, len(coming), opened, reference=reference.names, size=sizes
        )


def _find_crystals(
    samples: list[ADiTSampleFate],
    structures: Sequence[Structure | Molecule | None],
    reference: Reference,
) -> None:
    from adit_model.quality.matching import KnownMatch, known_crystals

    if reference.crystals is None:
        raise ValueError(f"the reference {reference.names} holds no crystals")
    matches = known_crystals(
        systems_of(samples, structures), reference.crystals, workers=check_workers(len(samples))
    )
    for sample, match in zip(samples, matches, strict=True):
        if isinstance(match, str):
            sample.novel = None
            sample.notes.append(f"not compared to the reference: {match}")
            continue
        sample.novel = match is None
        if isinstance(match, KnownMatch):
            sample.nearest_known = match.id
            sample.nearest_known_distance = match.distance


def _find_molecules(
    samples: list[ADiTSampleFate],
    structures: Sequence[Structure | Molecule | None],
    reference: Reference,
) -> None:
    from adit_model.quality.rows import Options, known_molecules

    workers = check_workers(reference.num_molecules)
    known = known_molecules(reference, Options(workers=workers))
    for sample in samples:
        smiles = _smiles(sample, structures)
        sample.novel = None if smiles is None else smiles not in known
        sample.nearest_known = None if smiles is None else known.get(smiles)
