"""Validity, uniqueness and novelty of crystals, by the definitions of CDVAE and ADiT.

CDVAE: Xie et al., ICLR 2022 (arXiv 2110.06197), appendix on metrics. ADiT: arXiv 2503.03965.
"""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.quality.pool import run_isolated
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from adit_model.data.dataset import AtomicDataset

MIN_DISTANCE = 0.5  # angstrom
MIN_VOLUME_PER_ATOM = 0.1  # cubic angstrom
MAX_ELEMENTS = 7
OXIDATION_STATES = "smact14"
MIN_MATCHING_TIME = 30.0  # seconds


@dataclass(frozen=True)
class CrystalCheck:
    """Whether a crystal is plausible.

    Parameters
    ----------
    structural : bool
        All interatomic distances, periodic images included, exceed 0.5 angstrom and the volume
        exceeds 0.1 cubic angstrom per atom.
    compositional : bool
        The composition passes SMACT, see :func:`composition_fault`.
    reason : str or None
        What is wrong; None for a valid crystal.
    timed_out : bool
        Whether SMACT reached no answer in time (the composition then counts as invalid).
    """

    structural: bool
    compositional: bool
    reason: str | None = None
    timed_out: bool = False

    @property
    def valid(self) -> bool:
        """Structurally and compositionally valid."""
        return self.structural and self.compositional


def check_crystal(system: AtomicSystem) -> CrystalCheck:
    """Check one crystal in this process, without a time limit.

    Raises
    ------
    ValueError
        For a molecule.
    """
    return _combine(structural_fault(system), composition_fault(reduced_composition(system)))


def check_crystals(
    systems: Sequence[AtomicSystem],
    *,
    workers: int = 1,
    time_limit: float = 10.0,
    progress: bool = False,
) -> list[CrystalCheck]:
    """Check many crystals; SMACT runs in worker processes, once for each composition.

    Parameters
    ----------
    systems : sequence of AtomicSystem
        Crystals.
    workers : int
        Number of worker processes.
    time_limit : float
        Seconds for one composition; without an answer by then it counts as invalid.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        If one of the systems is a molecule.
    """
    structural = [structural_fault(system) for system in systems]
    keys = [reduced_composition(system) for system in systems]
    distinct = list(dict.fromkeys(keys))
    outcomes = run_isolated(
        composition_fault,
        distinct,
        time_limit=time_limit,
        workers=workers,
        prepare=load_smact,
        progress="compositions" if progress else None,
    )
    faults = {
        key: (outcome.value if outcome.reason is None else f"SMACT: {outcome.reason}")
        for key, outcome in zip(distinct, outcomes, strict=True)
    }
    late = {key for key, outcome in zip(distinct, outcomes, strict=True) if outcome.timed_out}
    return [
        _combine(fault, faults[key], key in late)
        for fault, key in zip(structural, keys, strict=True)
    ]


def _combine(
    structural: str | None, compositional: str | None, timed_out: bool = False
) -> CrystalCheck:
    reason = "; ".join(filter(None, (structural, compositional))) or None
    return CrystalCheck(structural is None, compositional is None, reason, timed_out)


def structural_fault(system: AtomicSystem) -> str | None:
    """Say what is wrong with a crystal's geometry, None if nothing.

    Stricter than the code of CDVAE in two points, as its text has it: an atom's distance to its
    own periodic images counts, and the volume limit is per atom, not per cell.

    Raises
    ------
    ValueError
        For a molecule.
    """
    volume = system.volume / len(system)
    if not volume > MIN_VOLUME_PER_ATOM:
        return f"{volume:.3g} cubic angstrom per atom (at least {MIN_VOLUME_PER_ATOM} needed)"
    try:
        distance = min_distance(system)
    except RuntimeError as error:
        return f"the cell cannot be reduced: {error}"
    if not distance > MIN_DISTANCE:
        return f"atoms {distance:.3g} angstrom apart (more than {MIN_DISTANCE} needed)"
    return None


def min_distance(system: AtomicSystem, radii: np.ndarray | None = None) -> float:
    """Shortest distance in a crystal between atoms, or an atom and its own image, in angstrom.

    Parameters
    ----------
    system : AtomicSystem
        A crystal.
    radii : numpy.ndarray, optional
        Radius of each atom, shape (N,); distances are then taken in units of the two radii's sum.

    Raises
    ------
    RuntimeError
        If the cell is so distorted that its Minkowski reduction fails.
    ValueError
        For a molecule.
    """
    from ase.geometry import find_mic, minkowski_reduce

    if system.cell is None:
        raise ValueError(f"{system.formula} is a molecule, not a crystal")
    halves = np.full(len(system), 0.5) if radii is None else radii
    cell = minkowski_reduce(system.cell)[0]
    shortest = np.linalg.norm(cell, axis=1).min() / (2 * halves.max())  # to its own image
    first, second = np.triu_indices(len(system), k=1)
    if len(first):
        distances = find_mic(system.positions[first] - system.positions[second], cell)[1]
        shortest = min(shortest, (distances / (halves[first] + halves[second])).min())
    return float(shortest)


def reduced_composition(system: AtomicSystem) -> tuple[tuple[int, int], ...]:
    """Atomic numbers, ascending, with their counts divided by the greatest common divisor."""
    return _reduced(system.numbers)


def _reduced(numbers: np.ndarray) -> tuple[tuple[int, int], ...]:
    elements, counts = np.unique(numbers, return_counts=True)
    counts = counts // np.gcd.reduce(counts)
    return tuple(zip(elements.tolist(), counts.tolist(), strict=True))


@functools.lru_cache(maxsize=65_536)
def composition_fault(
    composition: tuple[tuple[int, int], ...], oxidation_states: str = OXIDATION_STATES
) -> str | None:
    """Say why SMACT refuses a composition, None if it does not.

    Valid are elements, alloys (only metals), and compositions that some oxidation states make
    neutral with every anion more electronegative than every cation. The oxidation states are
    those of SMACT up to version 2.6 (``smact14``), which CDVAE, ADiT and the works they compare to
    used; later versions default to other lists. More than seven elements count as invalid, as
    the enumeration may not end.

    Parameters
    ----------
    composition : tuple
        Atomic numbers with counts, from :func:`reduced_composition`.
    oxidation_states : str
        SMACT's name of the list of oxidation states.
    """
    from ase.data import chemical_symbols
    from pymatgen.core import Composition
    from smact.screening import smact_validity

    counts = {chemical_symbols[number]: count for number, count in composition}
    formula = "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in counts.items())
    if len(counts) > MAX_ELEMENTS:
        return f"{formula} has {len(counts)} elements (at most {MAX_ELEMENTS})"
    try:
        with warnings.catch_warnings():  # elements without electronegativity
            warnings.simplefilter("ignore")
            passed = smact_validity(
                Composition(counts),
                use_pauling_test=True,
                include_alloys=True,
                oxidation_states_set=oxidation_states,
            )
    except KeyError as error:  # elements beyond lawrencium
        return f"SMACT has no data for {formula}: {error}"
    return None if passed else f"SMACT finds no neutral, electronegativity-ordered {formula}"


def load_smact() -> None:
    """Import what :func:`composition_fault` needs."""
    composition_fault(((11, 1), (17, 1)))


def structure_matcher() -> StructureMatcher:
    """Build pymatgen's matcher with the tolerances of CDVAE and ADiT.

    These are ltol 0.3, stol 0.5 and 10 degrees; cells are made primitive and volumes scaled to
    agree, the matcher's defaults.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10.0)


def unique_crystals(
    structures: Sequence[AtomicSystem],
    *,
    workers: int = 1,
    time_limit: float = 2.0,
    progress: bool = False,
) -> np.ndarray:
    """Mark the first crystal of each group that the structure matcher finds equal.

    Only crystals of the same reduced composition are compared. A composition whose comparison
    fails or takes too long counts as one group, so that a failure never raises the number.

    Parameters
    ----------
    structures : sequence of AtomicSystem
        Crystals.
    workers : int
        Number of worker processes.
    time_limit : float
        Seconds for each pair of crystals of one composition, 30 at least for all its pairs.
    progress : bool
        Show a progress bar.

    Returns
    -------
    numpy.ndarray
        Shape (N,), bool.
    """
    verdicts = judge_unique(structures, workers=workers, time_limit=time_limit, progress=progress)
    return np.array([verdict is True for verdict in verdicts], dtype=bool)


def judge_unique(
    structures: Sequence[AtomicSystem],
    *,
    workers: int = 1,
    time_limit: float = 2.0,
    progress: bool = False,
) -> list[bool | str]:
    """Tell as :func:`unique_crystals` which crystals are unique, or why that is not known.

    Returns
    -------
    list of bool or str
        A text says why a crystal could not be compared.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, system in enumerate(structures):
        groups[reduced_composition(system)].append(i)
    unique: list[bool | str] = [False] * len(structures)
    shared = []
    for members in groups.values():
        unique[members[0]] = True
        if len(members) > 1:
            shared.append(members)
    outcomes = run_isolated(
        _distinct,
        [[structures[i] for i in members] for members in shared],
        time_limit=[
            _budget(time_limit, len(members) * (len(members) - 1) // 2) for members in shared
        ],
        workers=workers,
        prepare=structure_matcher,
        progress="uniqueness" if progress else None,
    )
    for members, outcome in zip(shared, outcomes, strict=True):
        if outcome.reason is not None:
            for i in members[1:]:
                unique[i] = outcome.reason
        for k in outcome.value or []:
            unique[members[k]] = True
    return unique


def _budget(time_limit: float, comparisons: int) -> float:
    return max(MIN_MATCHING_TIME, time_limit * comparisons)


def _distinct(systems: list[AtomicSystem]) -> list[int]:
    """Return the indices of the systems that match none before them."""
    matcher = structure_matcher()
    kept: list[tuple[int, Any]] = []
    for i, system in enumerate(systems):
        structure = system.to_structure()
        if not any(matcher.fit(structure, other) for _, other in kept):
            kept.append((i, structure))
    return [i for i, _ in kept]


def novel_crystals(
    structures: Sequence[AtomicSystem],
    reference: AtomicDataset | Iterable[AtomicSystem],
    *,
    workers: int = 1,
    time_limit: float = 2.0,
    progress: bool = False,
) -> np.ndarray:
    """Mark the crystals that the structure matcher finds in no reference.

    Only references of the same reduced composition are compared. Where the comparison fails or
    takes too long, the crystal counts as not novel.

    Parameters
    ----------
    structures : sequence of AtomicSystem
        Crystals to judge.
    reference : AtomicDataset or iterable of AtomicSystem
        Known crystals, such as the training set. Molecules among them are passed over.
    workers : int
        Number of worker processes.
    time_limit : float
        Seconds for each reference a crystal is compared to, 30 at least for all of them.
    progress : bool
        Show a progress bar.

    Returns
    -------
    numpy.ndarray
        Shape (N,), bool.
    """
    verdicts = judge_novel(
        structures, reference, workers=workers, time_limit=time_limit, progress=progress
    )
    return np.array([verdict is True for verdict in verdicts], dtype=bool)


def judge_novel(
    structures: Sequence[AtomicSystem],
    reference: AtomicDataset | Iterable[AtomicSystem],
    *,
    workers: int = 1,
    time_limit: float = 2.0,
    progress: bool = False,
) -> list[bool | str]:
    """Tell as :func:`novel_crystals` which crystals are novel, or why that is not known.

    Returns
    -------
    list of bool or str
        A text says why a crystal could not be compared.
    """
    keys = [reduced_composition(system) for system in structures]
    known = _references(reference, set(keys))
    novel: list[bool | str] = [key not in known for key in keys]
    suspects = [i for i, verdict in enumerate(novel) if not verdict]
    outcomes = run_isolated(
        _matches_none,
        [(structures[i], known[keys[i]]) for i in suspects],
        time_limit=[_budget(time_limit, len(known[keys[i]])) for i in suspects],
        workers=workers,
        prepare=structure_matcher,
        progress="novelty" if progress else None,
    )
    for i, outcome in zip(suspects, outcomes, strict=True):
        novel[i] = bool(outcome.value) if outcome.reason is None else outcome.reason
    return novel


def _references(
    reference: AtomicDataset | Iterable[AtomicSystem], wanted: set[Any]
) -> dict[Any, list[AtomicSystem]]:
    """Group the reference crystals by reduced composition, only the wanted ones."""
    from adit_model.data.dataset import AtomicDataset

    known: dict[Any, list[AtomicSystem]] = defaultdict(list)
    if isinstance(reference, AtomicDataset):
        for i in np.flatnonzero(reference.periodic).tolist():
            key = _reduced(reference.numbers[reference.offsets[i] : reference.offsets[i + 1]])
            if key in wanted:
                known[key].append(reference[i])
    else:
        for system in reference:
            if system.is_periodic and (key := reduced_composition(system)) in wanted:
                known[key].append(system)
    return dict(known)


def _matches_none(item: tuple[AtomicSystem, list[AtomicSystem]]) -> bool:
    system, references = item
    matcher, structure = structure_matcher(), system.to_structure()
    return not any(matcher.fit(structure, other.to_structure()) for other in references)
