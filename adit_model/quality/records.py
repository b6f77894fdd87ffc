"""The verdict on a structure, and the record of a sample: one form for samples, documents and rows.

*Decoded* is a sample with a physical structure. *Plausible* is one that a chemist would believe,
see :mod:`adit_model.quality.plausible`: the verdict that users see and that discovery filters by.
*Valid*, in the tables of an evaluation, is what the literature calls so: a crystal is
``structural`` and ``compositional`` (``smact_valid`` in a record), a molecule ``bonded`` and
``connected``.
*Novel* is one that is the same as none of a reference, see :mod:`adit_model.quality.matching`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from adit_model.files import SETTINGS as SETTINGS
from adit_model.systems import CRYSTAL, DOMAINS, AtomicSystem

if TYPE_CHECKING:
    from adit_model.sampling.sample import Sample

# Files of a folder of samples beside SETTINGS: a record of each, the structures that were decoded
RECORDS, STRUCTURES = "summary.csv", "samples.extxyz"
VALID_IF = {CRYSTAL: ("structural", "compositional"), "molecule": ("bonded", "connected")}
_SAMPLES_PER_WORKER = 200


class Verdict(BaseModel):
    """Whether a structure is plausible, and what the checks of the literature say."""

    plausible: bool | None = Field(
        None,
        description="Whether a chemist would believe it: distances, volume, neighbours of a "
        "crystal; one piece, all bonds, no radical of a molecule. None if it was not asked for.",
    )
    reason: str | None = Field(None, description="Why it is not decoded or not plausible.")
    smact_valid: bool | None = Field(
        None,
        description="Crystals: valid in the sense of the literature, structural and compositional. "
        "SMACT's rule refuses Fe3O4, MgB2 and LaB6.",
    )
    structural: bool | None = Field(
        None,
        description="Crystals: all distances, periodic images included, exceed 0.5 angstrom and "
        "the volume exceeds 0.1 cubic angstrom per atom.",
    )
    compositional: bool | None = Field(
        None, description="Crystals: SMACT finds a neutral, electronegativity-ordered composition."
    )
    bonded: bool | None = Field(
        None, description="Molecules: RDKit perceives bonds for its charge."
    )
    connected: bool | None = Field(None, description="Molecules: all atoms are in one fragment.")
    closed_shell: bool | None = Field(
        None, description="Molecules: an even number of electrons, and no radical centre."
    )
    smiles: str | None = Field(
        None, description="Molecules: canonical SMILES without stereochemistry and hydrogens."
    )
    space_group: int | None = Field(
        None, description="Crystals: number of the space group that spglib finds within symprec."
    )
    symprec: float | None = Field(None, description="Crystals: its tolerance in angstrom.")
    min_distance: float | None = Field(
        None, description="Crystals: shortest distance, periodic images included, in angstrom."
    )
    volume_per_atom: float | None = Field(None, description="Crystals: in cubic angstrom.")


class SampleRecord(Verdict):
    """One sample: whether it was decoded, is plausible, and holds what was asked."""

    index: int = Field(
        description="Number of the sample: `first_index` of the request for its first one, 0 by "
        "default. With the seed it names the sample."
    )
    domain: str = Field(description="'crystal' or 'molecule'.")
    num_atoms: int = Field(description="Atoms in the cell or molecule.")
    formula: str = Field(description="Reduced formula (crystal) or full formula (molecule).")
    decoded: bool = Field(description="Whether the decoder gave a physical structure.")
    condition: str = Field("", description="What was asked for, as text.")
    holds: dict[str, bool] = Field(
        default_factory=dict,
        description="Whether the sample is so, for each part of the condition.",
    )
    targets: dict[str, float] = Field(
        default_factory=dict,
        description="Value of each property it was made for; of a range, the one drawn from it.",
    )
    estimates: dict[str, float] = Field(
        default_factory=dict,
        description="Of the same properties, what the weights estimate of the structure.",
    )


COLUMNS = (
    *("index", "domain", "num_atoms", "formula", "decoded"),
    *Verdict.model_fields,
    *("condition", "holds", "targets", "estimates"),
)


def is_valid(domain: str, cells: Mapping[str, Any]) -> bool:
    """Whether a structure is valid in the sense of the literature, by the cells of its measures."""
    return all(cells.get(part) is True for part in VALID_IF[domain])


def verdict_of(domain: str, cells: Mapping[str, Any]) -> Verdict:
    """Make the verdict of the cells that the measures filled.

    A cell that holds a text, since its check failed or ran out of time, has not passed.
    """
    from adit_model.quality.crystals import SYMMETRY_PRECISION

    found = {
        name: value if isinstance(value, bool) else False
        for name in ("structural", "compositional", "bonded", "connected", "closed_shell")
        if (value := cells.get(name)) is not None
    }
    smiles = cells.get("smiles") if cells.get("bonded") is True else None
    measured = {
        name: round(value, 4)
        for name in ("space_group", "min_distance", "volume_per_atom")
        if isinstance(value := cells.get(name), int | float)
    }
    if "space_group" in measured:
        measured["symprec"] = SYMMETRY_PRECISION
    plausible = cells["plausible"] is True
    reason = cells["plausible_reason"]
    return Verdict(
        plausible=plausible,
        reason=None if plausible else str(reason),
        smact_valid=is_valid(domain, cells) if domain == CRYSTAL else None,
        smiles=smiles,
        **found,
        **measured,
    )


def check_systems(
    systems: Sequence[AtomicSystem],
    *,
    workers: int | None = None,
    time_limit: float = 10.0,
    progress: bool = False,
) -> list[Verdict]:
    """Check whether crystals and molecules are plausible and valid, in worker processes.

    Parameters
    ----------
    systems : sequence of AtomicSystem
        Crystals, molecules or both.
    workers : int, optional
        Worker processes; by default the available cores, fewer for few systems.
    time_limit : float
        Seconds for each check of one system; without an answer by then it has not passed.
    progress : bool
        Show progress bars.

    Returns
    -------
    list of Verdict
        In order.
    """
    from adit_model.quality.cells import measure_systems
    from adit_model.quality.measures import PLAUSIBLE, PROPERTIES, SYMMETRY, VALIDITY

    measures = (*PLAUSIBLE, *VALIDITY, PROPERTIES, SYMMETRY)
    verdicts: dict[int, Verdict] = {}
    for domain in DOMAINS:
        chosen = [i for i, system in enumerate(systems) if system.domain == domain]
        found = measure_systems(
            [systems[i] for i in chosen],
            [measure for measure in measures if measure.domain == domain],
            workers=worker_count(len(systems)) if workers is None else workers,
            time_limit=time_limit,
            progress=f"{domain}s" if progress else None,
        )
        for i, cells in zip(chosen, found, strict=True):
            verdicts[i] = verdict_of(domain, cells)
    return [verdicts[i] for i in range(len(systems))]


def worker_count(number: int) -> int:
    """Worker processes that pay for a number of checks: the available cores, fewer for few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 1 + number // _SAMPLES_PER_WORKER)


def record_samples(
    samples: Sequence[Sample],
    check: bool = True,
    workers: int | None = None,
    time_limit: float = 10.0,
    progress: bool = False,
) -> list[SampleRecord]:
    """Describe samples, and check whether they are plausible.

    Parameters
    ----------
    samples : sequence of Sample
        From :meth:`adit_model.model.ADiT.sample`.
    check : bool
        Run the checks; without, only undecodable samples are known not to be plausible.
    workers, time_limit, progress
        As of :func:`check_systems`.

    Returns
    -------
    list of SampleRecord
        One for each sample, in order.
    """
    verdicts: dict[int, Verdict] = {}
    if check:
        decoded = {i: s.system for i, s in enumerate(samples) if s.system is not None}
        found = check_systems(
            list(decoded.values()), workers=workers, time_limit=time_limit, progress=progress
        )
        verdicts = dict(zip(decoded, found, strict=True))
    records = []
    for i, sample in enumerate(samples):
        missing = Verdict(plausible=False, reason=sample.fault)
        verdict = verdicts.get(i, Verdict()) if sample.system is not None else missing
        records.append(
            SampleRecord(
                index=sample.index,
                domain=sample.domain,
                num_atoms=sample.num_atoms,
                formula=_formula(sample),
                decoded=sample.system is not None,
                condition=str(sample.condition),
                holds=sample.holds,
                targets=dict(sample.targets),
                estimates=dict(sample.estimates),
                **verdict.model_dump(),
            )
        )
    return records


def _formula(sample: Sample) -> str:
    if sample.system is not None:
        return sample.system.formula
    numbers = np.asarray(sample.decoded["numbers"])
    cell = np.eye(3) if sample.domain == CRYSTAL else None
    return AtomicSystem(numbers, np.zeros((len(numbers), 3)), cell).formula


class DomainCounts(BaseModel):
    """How many samples of one domain reached which stage."""

    requested: int = Field(description="Samples asked for.")
    decoded: int = Field(description="Samples that are a physical structure.")
    plausible: int | None = Field(
        None, description="Samples that are plausible; None if that was not asked for."
    )

    def __str__(self) -> str:
        text = f"{self.requested} requested, {self.decoded} decoded"
        if self.plausible is None:
            return f"{text}, not checked"
        share = 100 * self.plausible / self.requested
        return f"{text}, {self.plausible} plausible ({share:.1f} %)"


def count_records(records: Sequence[SampleRecord]) -> dict[str, DomainCounts]:
    """Count the samples of each domain that occurs."""
    counts = {}
    for domain in DOMAINS:
        mine = [record for record in records if record.domain == domain]
        if mine:
            checked = all(record.plausible is not None for record in mine)
            counts[domain] = DomainCounts(
                requested=len(mine),
                decoded=sum(record.decoded for record in mine),
                plausible=sum(bool(r.plausible) for r in mine) if checked else None,
            )
    return counts
