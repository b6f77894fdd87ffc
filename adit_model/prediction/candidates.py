"""Candidates: structures that are screened, relaxed, joined where equal, and ranked by energy."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adit_model.quality.crystals import amounts, min_distance_ratio, space_group
from adit_model.quality.plausible import VOLUME_RANGE, plausible
from adit_model.quality.pool import run_isolated
from adit_model.quality.relax import (
    METHOD,
    XTB,
    Relaxation,
    relax,
    relaxation_rmsd,
    require_engine,
)
from adit_model.quality.symmetry import MOVED, SYMMETRY, symmetrise
from adit_model.systems import CRYSTAL, MOLECULE, AtomicSystem

NONE = "none"  # in place of an engine: nothing is relaxed
ENGINES = {CRYSTAL: "chgnet", MOLECULE: XTB}
CLOSEST = 0.5  # of the sum of covalent radii: closer atoms are not worth a relaxation
RELAX_TIME = 900.0  # seconds; 500 steps of 20 atoms take about 200
GENERATED = "generated"
POLYMORPHS = "pymatgen"  # tolerances of the matcher that tell polymorphs apart
BESIDE = 5  # known crystals that are shown beside the candidates


@dataclass(frozen=True)
class Candidate:
    """A structure on its way through screening, relaxation and ranking.

    Parameters
    ----------
    system : AtomicSystem
        As it is now.
    source : str
        ``"generated"``, ``"sites by geometry"``, or which known crystal it is or was made from;
        two of them, if such became one.
    index : int or None
        Of the sample or structure type.
    fault : str or None
        Why it is not among the ranked.
    energy : float or None
        In eV/atom, of the engine it was relaxed with.
    steps, converged, rmsd
        Of the relaxation; see :class:`~adit_model.quality.relax.Relaxation`.
    samples : tuple of int
        Indices of the samples and structure types that became this structure, its own first.
    space_group : int or None
        Within 0.1 angstrom, or the tolerance that was asked for.
    moved : float or None
        Largest move of an atom in angstrom when the structure was symmetrised; None if it was not.
    smiles : str or None
        Of a molecule.
    known : str or None
        Id of the known crystal or molecule that is the same.
    likely : int or None
        Place among the structure types or sites, the likeliest first; None of generated ones.
    """

    system: AtomicSystem
    source: str = GENERATED
    index: int | None = None
    fault: str | None = None
    energy: float | None = None
    steps: int | None = None
    converged: bool | None = None
    rmsd: float | None = None
    samples: tuple[int, ...] = ()
    space_group: int | None = None
    moved: float | None = None
    smiles: str | None = None
    known: str | None = None
    likely: int | None = None


def choose_engine(name: str | None, domain: str) -> str:
    """Return what relaxes: the default of the domain for None; checked.

    Raises
    ------
    ValueError, ModuleNotFoundError
        See :func:`~adit_model.quality.relax.require_engine`.
    """
    engine = ENGINES[domain] if name is None else name
    if engine != NONE:
        require_engine(engine, domain)
    return engine


def engine_label(engine: str) -> str:
    """Name and version of what relaxes."""
    from adit_model.quality.force_fields import force_field

    return METHOD if engine == XTB else force_field(engine).label


def fault_of(system: AtomicSystem) -> str | None:
    """Say why a structure is not plausible (:mod:`adit_model.quality.plausible`), None if it is."""
    reason = plausible(system).reason
    return None if reason is None else f"implausible: {reason}"


def too_close(system: AtomicSystem, closest: float = CLOSEST) -> str | None:
    """Say why a structure is not worth a relaxation, None if it is.

    A relaxation parts atoms that are somewhat too close; force fields go astray where atoms are
    closer than half the sum of their covalent radii, or the volume is that of no matter.
    """
    low, high = VOLUME_RANGE
    if system.is_periodic and not low <= (volume := system.volume / len(system)) <= high:
        return f"implausible: {volume:.3g} cubic angstrom an atom"
    try:
        ratio = closest_ratio(system)
    except RuntimeError as error:
        return f"implausible: the cell cannot be reduced: {error}"
    if ratio >= closest:
        return None
    needed = f"(at least {closest:.2g} needed)"
    return f"implausible: atoms at {ratio:.2f} of their covalent radii {needed}"


def closest_ratio(system: AtomicSystem) -> float:
    """Shortest distance in units of the two covalent radii; infinite of one atom alone."""
    if system.is_periodic:
        return min_distance_ratio(system)
    from ase.data import covalent_radii
    from scipy.spatial.distance import pdist

    if len(system) < 2:
        return math.inf
    radii = covalent_radii[system.numbers]
    first, second = np.triu_indices(len(system), k=1)
    return float((pdist(system.positions) / (radii[first] + radii[second])).min())


def relaxed(
    candidates: Sequence[Candidate],
    engine: str,
    *,
    first: Sequence[np.ndarray] | None = None,
    workers: int | None = None,
    progress: str | None = None,
) -> list[Candidate]:
    """Relax the candidates that have no fault; one that fails has the reason as its fault.

    Parameters
    ----------
    candidates : sequence of Candidate
        Of one domain.
    engine : str
        See :func:`~adit_model.quality.relax.relax`.
    first : sequence of numpy.ndarray, optional
        Which atoms of each relax first, while the others are held; then all do, in the cell as it
        is. Without, all atoms and the cell relax.
    workers : int, optional
        Worker processes; one without.
    progress : str, optional
        Title of a progress bar; none without it.
    """
    result = list(candidates)
    todo = [i for i, candidate in enumerate(candidates) if candidate.fault is None]
    outcomes = run_isolated(
        functools.partial(_relax, engine),
        [(candidates[i].system, first[i] if first else None) for i in todo],
        time_limit=RELAX_TIME,
        workers=workers or 1,
        prepare=functools.partial(_load, engine),
        progress=progress,
    )
    for i, outcome in zip(todo, outcomes, strict=True):
        if outcome.reason is not None:
            result[i] = replace(candidates[i], fault=f"not relaxed: {outcome.reason}")
            continue
        found: Relaxation = outcome.value
        info, after = candidates[i].system.info, found.system
        system = AtomicSystem(after.numbers, after.positions, after.cell, info)
        result[i] = replace(
            candidates[i],
            system=system,
            energy=found.energy_final,
            steps=found.steps,
            converged=found.converged,
            rmsd=found.rmsd,
            fault=_energy_fault(system, engine, found.energy_final),
        )
    return result


def _relax(engine: str, item: tuple[AtomicSystem, np.ndarray | None]) -> Relaxation:
    system, first = item
    if first is None:
        return relax(system, engine)
    part = relax(system, engine, moving=first)
    whole = relax(part.system, engine, cell=False)
    return replace(
        whole,
        energy_initial=part.energy_initial,
        steps=part.steps + whole.steps,
        rmsd=relaxation_rmsd(system, whole.system),
    )


def _load(engine: str) -> None:
    from adit_model.quality.force_fields import calculator

    if engine == XTB:
        import tblite.ase  # noqa: F401
    else:
        calculator(engine)


def _energy_fault(system: AtomicSystem, engine: str, energy: float) -> str | None:
    """Whether the energy is one that no crystal has, as force fields give of collapsed ones."""
    from adit_model.quality.force_fields import FORCE_FIELDS, element_references

    if engine not in FORCE_FIELDS:  # no energies of the elements
        return None
    from adit_model.quality.hull import check_formation_energy

    try:
        references = element_references(engine)
        check_formation_energy(references.formation_energy(amounts(system), energy))
    except ValueError as error:
        return f"not relaxed: {error}"
    return None


def described(candidates: Sequence[Candidate], workers: int | None = None) -> list[Candidate]:
    """Find the space groups of crystals, the SMILES of molecules; what has none has a fault."""
    result = list(candidates)
    sound = [i for i, candidate in enumerate(candidates) if candidate.fault is None]
    crystals = [i for i in sound if candidates[i].system.is_periodic]
    for i in crystals:
        try:
            result[i] = replace(candidates[i], space_group=space_group(candidates[i].system))
        except ValueError as error:
            result[i] = replace(candidates[i], fault=str(error))
    molecules = [i for i in sound if not candidates[i].system.is_periodic]
    if molecules:
        from adit_model.quality.records import check_systems

        verdicts = check_systems([candidates[i].system for i in molecules], workers=workers)
        for i, verdict in zip(molecules, verdicts, strict=True):
            fault = None if verdict.plausible else str(verdict.reason)
            result[i] = replace(candidates[i], smiles=verdict.smiles, fault=fault)
    return result


def joined(candidates: Iterable[Candidate], workers: int | None = None) -> list[Candidate]:
    """Join those that are the same and rank what is left.

    The lowest energy comes first; without energies structure types and sites by geometry, the
    likeliest first, and then what most samples agree on. The same are
    crystals by the one matcher with pymatgen's own tolerances, which tell polymorphs apart
    (:mod:`adit_model.quality.matching`), molecules by SMILES.

    Parameters
    ----------
    candidates : iterable of Candidate
        Of one domain; those with a fault are left out.
    workers : int, optional
        Worker processes; one without.
    """
    from adit_model.quality.matching import first_equal

    sound = [candidate for candidate in candidates if candidate.fault is None]
    sound.sort(key=_order)
    if sound and sound[0].system.is_periodic:
        first: list[Any] = list(
            first_equal([c.system for c in sound], tolerances=POLYMORPHS, workers=workers or 1)
        )
        first = [k if isinstance(k, int) else i for i, k in enumerate(first)]
    else:
        places: dict[Any, int] = {}
        first = [places.setdefault(c.smiles or i, i) for i, c in enumerate(sound)]
    members: dict[int, list[int]] = {}
    for i, k in enumerate(first):
        members.setdefault(k, []).append(i)
    kept = [
        replace(
            sound[k],
            source=_sources([sound[i].source for i in places_]),
            samples=tuple(n for i in places_ for n in _samples(sound[i])),
        )
        for k, places_ in members.items()
    ]
    return sorted(kept, key=lambda c: (*_order(c)[:2], -len(c.samples), *_order(c)[2:]))


def _sources(sources: Sequence[str]) -> str:
    """Where the first of equal ones is from, and the other way if one of them is from there."""
    other = [s for s in sources if (s == GENERATED) != (sources[0] == GENERATED)]
    return " and ".join([sources[0], *other[:1]])


def _samples(candidate: Candidate) -> tuple[int, ...]:
    if candidate.samples:
        return candidate.samples
    return () if candidate.index is None else (candidate.index,)


def _order(candidate: Candidate) -> tuple[float, float, int]:
    energy = 0.0 if candidate.energy is None else candidate.energy
    likely = math.inf if candidate.likely is None else candidate.likely
    return energy, likely, -1 if candidate.index is None else candidate.index


def symmetrised(
    candidate: Candidate, tolerance: float = SYMMETRY, most: float = MOVED
) -> Candidate:
    """Move the atoms and the cell of a crystal to where its space group has them.

    The space group is what spglib finds within ``tolerance``. It stays as it was if it is P1, if
    an atom moves by more than ``most``, or if what comes out looks like no crystal.

    Parameters
    ----------
    candidate : Candidate
        A crystal.
    tolerance : float
        Distance in angstrom within which atoms count as equivalent.
    most : float
        Largest move of an atom in angstrom, the common shift and the strain of the cell aside.
    """
    found = symmetrise(candidate.system, tolerance, most)
    if found is None:
        return candidate
    return replace(candidate, system=found.system, space_group=found.space_group, moved=found.moved)


def row(candidate: Candidate, lowest: float | None = None) -> dict[str, Any]:
    """Return a line of the table of candidates.

    Parameters
    ----------
    candidate : Candidate
        Ranked or not.
    lowest : float, optional
        Energy in eV/atom that ``above_lowest`` is relative to.
    """
    energy = candidate.energy
    return {
        "source": candidate.source,
        "formula": candidate.system.formula,
        "num_atoms": len(candidate.system),
        "energy_per_atom": energy,
        "above_lowest": None if energy is None or lowest is None else energy - lowest,
        "space_group": candidate.space_group,
        "smiles": candidate.smiles,
        "known": candidate.known,
        "samples": len(candidate.samples),
        "index": candidate.index,
        "converged": candidate.converged,
        "rmsd": candidate.rmsd,
        "moved": candidate.moved,
        "fault": candidate.fault,
    }
