"""What became of each sample: one flat record for tables and documents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.systems import CRYSTAL, MOLECULE, AtomicSystem

if TYPE_CHECKING:
    from adit_model.quality.crystals import CrystalCheck
    from adit_model.quality.molecules import MoleculeCheck
    from adit_model.sampling.sample import Sample

_SAMPLES_PER_WORKER = 200


@dataclass(frozen=True)
class SampleRecord:
    """One sample.

    Parameters
    ----------
    index : int
        Number of the sample in its run.
    domain : str
        ``"crystal"`` or ``"molecule"``.
    num_atoms : int
        Atoms in the cell or molecule.
    formula : str
        Reduced (crystal) or full (molecule) formula in Hill order.
    decoded : bool
        Whether the decoder gave a physical structure.
    valid : bool or None
        Whether it passes the checks of its domain; None if they were not asked for.
    reason : str or None
        Why it is not decoded or not valid.
    structural, compositional : bool or None
        The two parts of a crystal's validity, see
        :class:`~adit_model.quality.crystals.CrystalCheck`; None for molecules.
    bonded, connected, closed_shell : bool or None
        Parts of a molecule's validity, see
        :class:`~adit_model.quality.molecules.MoleculeCheck`; None for crystals.
    smiles : str or None
        Canonical SMILES of a molecule whose bonds could be perceived.
    condition : str
        What was asked for, as text.
    holds : dict
        Whether the sample is so, for each part of it.
    """

    index: int
    domain: str
    num_atoms: int
    formula: str
    decoded: bool
    valid: bool | None = None
    reason: str | None = None
    structural: bool | None = None
    compositional: bool | None = None
    bonded: bool | None = None
    connected: bool | None = None
    closed_shell: bool | None = None
    smiles: str | None = None
    condition: str = ""
    holds: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class DomainCounts:
    """How many samples of one domain reached which stage.

    Parameters
    ----------
    requested : int
        Samples asked for.
    decoded : int
        Samples that are a physical structure.
    valid : int or None
        Samples that pass the checks; None if these were not asked for.
    """

    requested: int
    decoded: int
    valid: int | None

    def __str__(self) -> str:
        text = f"{self.requested} requested, {self.decoded} decoded"
        if self.valid is None:
            return f"{text}, not checked"
        return f"{text}, {self.valid} valid ({100 * self.valid / self.requested:.1f} %)"


def record_samples(
    samples: Sequence[Sample],
    check: bool = True,
    workers: int | None = None,
    time_limit: float = 10.0,
    progress: bool = False,
) -> list[SampleRecord]:
    """Describe samples, and check whether they are valid.

    Parameters
    ----------
    samples : sequence of Sample
        From :meth:`adit_model.model.ADiT.sample`.
    check : bool
        Run the validity checks; without, only undecodable samples are known to be invalid.
    workers : int, optional
        Worker processes of the checks; by default the available cores, fewer for few samples.
    time_limit : float
        Seconds for the check of one sample; without an answer by then it counts as invalid.
    progress : bool
        Show progress bars.

    Returns
    -------
    list of SampleRecord
        One for each sample, in order.
    """
    checks = _check(samples, workers, time_limit, progress) if check else {}
    return [_record(sample, checks.get(i)) for i, sample in enumerate(samples)]


def count_records(records: Sequence[SampleRecord]) -> dict[str, DomainCounts]:
    """Count the samples of each domain that occurs."""
    counts = {}
    for domain in (CRYSTAL, MOLECULE):
        mine = [record for record in records if record.domain == domain]
        if mine:
            checked = all(record.valid is not None for record in mine)
            counts[domain] = DomainCounts(
                requested=len(mine),
                decoded=sum(record.decoded for record in mine),
                valid=sum(bool(record.valid) for record in mine) if checked else None,
            )
    return counts


def _check(
    samples: Sequence[Sample], workers: int | None, time_limit: float, progress: bool
) -> dict[int, CrystalCheck | MoleculeCheck]:
    from adit_model.quality.crystals import check_crystals
    from adit_model.quality.molecules import check_molecules

    if workers is None:
        workers = worker_count(len(samples))
    checks: dict[int, CrystalCheck | MoleculeCheck] = {}
    for domain, run in ((CRYSTAL, check_crystals), (MOLECULE, check_molecules)):
        found = {
            i: sample.system
            for i, sample in enumerate(samples)
            if sample.domain == domain and sample.system is not None
        }
        if found:
            results = run(
                list(found.values()), workers=workers, time_limit=time_limit, progress=progress
            )
            checks.update(zip(found, results, strict=True))
    return checks


def _record(sample: Sample, check: CrystalCheck | MoleculeCheck | None) -> SampleRecord:
    verdict: dict[str, Any] = {}
    if check is not None:
        verdict = {"valid": check.valid, **asdict(check)}
        del verdict["timed_out"]
    elif sample.system is None:
        verdict = {"valid": False, "reason": sample.reason}
    return SampleRecord(
        index=sample.index,
        domain=sample.domain,
        num_atoms=sample.num_atoms,
        formula=_formula(sample),
        decoded=sample.system is not None,
        condition=str(sample.condition),
        holds=sample.holds,
        **verdict,
    )


def _formula(sample: Sample) -> str:
    if sample.system is not None:
        return sample.system.formula
    numbers = np.asarray(sample.decoded["numbers"])
    cell = np.eye(3) if sample.domain == CRYSTAL else None
    return AtomicSystem(numbers, np.zeros((len(numbers), 3)), cell).formula


def worker_count(number: int) -> int:
    """Worker processes that pay for a number of checks: the available cores, fewer for few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 1 + number // _SAMPLES_PER_WORKER)
