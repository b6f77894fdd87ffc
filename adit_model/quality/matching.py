"""Which crystals are the same: the one matcher behind unique, novel, known and reconstructed.

The same are two crystals that pymatgen's ``StructureMatcher.fit`` finds equal with the tolerances
of CDVAE and ADiT: ltol 0.3, stol 0.5, 10 degrees, cells made primitive and volumes scaled to agree.
These are loose: two atoms of rock salt and of zincblende pass for the same. Whether a crystal came
back from an autoencoder is asked with tight ones, too, and polymorphs are told apart by pymatgen's
own, which lie between.
Molecules are the same by their canonical SMILES.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.quality.crystals import reduced_composition
from adit_model.quality.pool import run_isolated
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from adit_model.data.dataset import AtomicDataset

TOLERANCES: Mapping[str, Mapping[str, Any]] = {
    "loose": {"ltol": 0.3, "stol": 0.5, "angle_tol": 10.0},
    "pymatgen": {"ltol": 0.2, "stol": 0.3, "angle_tol": 5.0},
    "tight": {"ltol": 0.05, "stol": 0.1, "angle_tol": 5.0, "scale": False},
}
MIN_MATCHING_TIME = 30.0  # seconds
PAIR_TIME = 2.0  # seconds for each pair of crystals of one composition


@functools.cache
def structure_matcher(tolerances: str = "loose") -> StructureMatcher:
    """Build pymatgen's matcher with some of :data:`TOLERANCES`."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    return StructureMatcher(**TOLERANCES[tolerances])


def distance(first: AtomicSystem, second: AtomicSystem, tolerances: str = "loose") -> float | None:
    """How far the atoms of two crystals are apart, None if the crystals are not the same.

    Parameters
    ----------
    first, second : AtomicSystem
        Crystals.
    tolerances : str
        Of :data:`TOLERANCES`; the tight ones do not scale volumes.

    Returns
    -------
    float or None
        Root mean square distance in units of (volume per atom)^(1/3).
    """
    if min(system.volume / len(system) for system in (first, second)) < 1e-3:
        return None  # pymatgen would search without end
    matcher = structure_matcher(tolerances)
    pair = first.to_structure(), second.to_structure()
    if not matcher.fit(*pair):
        return None
    found = matcher.get_rms_dist(*pair)
    return None if found is None else float(found[0])


@dataclass(frozen=True)
class KnownMatch:
    """A known crystal that is the same as another.

    Parameters
    ----------
    id : str
        ``info["id"]`` of the known crystal.
    distance : float
        See :func:`distance`.
    """

    id: str
    distance: float


def first_equal(
    structures: Sequence[AtomicSystem],
    *,
    tolerances: str = "loose",
    workers: int = 1,
    time_limit: float = PAIR_TIME,
    progress: bool = False,
) -> list[int | str]:
    """Find for each crystal the first one that is the same; a unique one is its own first.

    Only crystals of the same reduced composition are compared.

    Parameters
    ----------
    structures : sequence of AtomicSystem
        Crystals.
    tolerances : str
        Of :data:`TOLERANCES`.
    workers : int
        Number of worker processes.
    time_limit : float
        Seconds for each pair of crystals of one composition, 30 at least for all its pairs.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of int or str
        Places in ``structures``. A text says why a crystal could not be compared: then no crystal
        of its composition but the first counts as unique, so that a failure never adds one.
    """
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, system in enumerate(structures):
        groups[reduced_composition(system.numbers)].append(i)
    first: list[int | str] = list(range(len(structures)))
    shared = [members for members in groups.values() if len(members) > 1]
    outcomes = run_isolated(
        functools.partial(_first_equal, tolerances),
        [[structures[i] for i in members] for members in shared],
        time_limit=[
            max(MIN_MATCHING_TIME, time_limit * len(members) * (len(members) - 1) / 2)
            for members in shared
        ],
        workers=workers,
        prepare=structure_matcher,
        progress="uniqueness" if progress else None,
    )
    for members, outcome in zip(shared, outcomes, strict=True):
        for k, i in enumerate(members[1:], start=1):
            first[i] = outcome.reason or members[outcome.value[k]]
    return first


def _first_equal(tolerances: str, systems: list[AtomicSystem]) -> list[int]:
    matcher = structure_matcher(tolerances)
    structures = [system.to_structure() for system in systems]
    first: list[int] = []
    for i, structure in enumerate(structures):
        kept = (k for k in dict.fromkeys(first) if matcher.fit(structure, structures[k]))
        first.append(next(kept, i))
    return first


def known_crystals(
    structures: Sequence[AtomicSystem],
    reference: AtomicDataset | Iterable[AtomicSystem],
    *,
    tolerances: str = "loose",
    workers: int = 1,
    time_limit: float = PAIR_TIME,
    progress: bool = False,
) -> list[KnownMatch | str | None]:
    """Find the nearest known crystal that is the same as each crystal; those without are novel.

    Only references of the same reduced composition are compared.

    Parameters
    ----------
    structures : sequence of AtomicSystem
        Crystals to judge.
    reference : AtomicDataset or iterable of AtomicSystem
        Known crystals, such as the training set, with ``info["id"]``. Molecules among them are
        passed over.
    tolerances : str
        Of :data:`TOLERANCES`.
    workers : int
        Number of worker processes.
    time_limit : float
        Seconds for each reference a crystal is compared to, 30 at least for all of them.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of KnownMatch, None or str
        None where no known crystal is the same; a text says why a crystal could not be compared,
        and such a crystal does not count as novel.
    """
    keys = [reduced_composition(system.numbers) for system in structures]
    known = _by_composition(reference, set(keys))
    matches: list[KnownMatch | str | None] = [None] * len(structures)
    suspects = [i for i, key in enumerate(keys) if key in known]
    outcomes = run_isolated(
        functools.partial(_nearest, tolerances),
        [(structures[i], known[keys[i]]) for i in suspects],
        time_limit=[max(MIN_MATCHING_TIME, time_limit * len(known[keys[i]])) for i in suspects],
        workers=workers,
        prepare=structure_matcher,
        progress="known crystals" if progress else None,
    )
    for i, outcome in zip(suspects, outcomes, strict=True):
        matches[i] = outcome.value if outcome.reason is None else outcome.reason
    return matches


def _nearest(tolerances: str, item: tuple[AtomicSystem, list[AtomicSystem]]) -> KnownMatch | None:
    system, references = item
    distances = [
        (distance(system, other, tolerances), str(other.info.get("id"))) for other in references
    ]
    found = [KnownMatch(name, value) for value, name in distances if value is not None]
    return min(found, key=lambda match: match.distance, default=None)


def _by_composition(
    reference: AtomicDataset | Iterable[AtomicSystem], wanted: set[Any]
) -> dict[Any, list[AtomicSystem]]:
    """Group the reference crystals by reduced composition, only the wanted ones."""
    from adit_model.data.dataset import AtomicDataset

    known: dict[Any, list[AtomicSystem]] = defaultdict(list)
    if isinstance(reference, AtomicDataset):
        for i in np.flatnonzero(reference.periodic).tolist():
            numbers = reference.numbers[reference.offsets[i] : reference.offsets[i + 1]]
            if (key := reduced_composition(numbers)) in wanted:
                known[key].append(reference[i])
    else:
        for system in reference:
            if system.is_periodic and (key := reduced_composition(system.numbers)) in wanted:
                known[key].append(system)
    return dict(known)
