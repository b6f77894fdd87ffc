"""Checks and properties of one crystal, each a function that returns the cells of its columns.

Validity is that of CDVAE (Xie et al., ICLR 2022, arXiv 2110.06197, appendix on metrics) and ADiT
(arXiv 2503.03965). It passes atoms 0.6 angstrom apart, so there is a strict set beside it, which
nearly all real crystals pass, their composition aside.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from adit_model.formulas import chemical_formula
from adit_model.quality.pool import FAILED
from adit_model.systems import AtomicSystem

MIN_DISTANCE = 0.5  # angstrom
MIN_VOLUME_PER_ATOM = 0.1  # cubic angstrom
MAX_ELEMENTS = 7
OXIDATION_STATES, STRICT_OXIDATION_STATES = "smact14", "icsd24"
MIN_DISTANCE_RATIO = 0.7  # of the sum of covalent radii
DENSITY_RANGE = (0.3, 25.0)  # g/cm^3; lithium has 0.53, osmium 22.6
VOLUME_RANGE = (4.0, 120.0)  # cubic angstrom per atom; diamond has 5.7, caesium 117
LENGTH_RANGE = (2.0, 60.0)  # angstrom, of the reduced cell
SYMMETRY_PRECISION = 0.1  # angstrom; generated structures are not relaxed
GRAMS_PER_CUBIC_CENTIMETRE = 1.66053906660  # of one dalton per cubic angstrom
# last space group of each crystal system, International Tables A
CRYSTAL_SYSTEMS = {
    "triclinic": 2,
    "monoclinic": 15,
    "orthorhombic": 74,
    "tetragonal": 142,
    "trigonal": 167,
    "hexagonal": 194,
    "cubic": 230,
}


def geometry(system: AtomicSystem) -> dict[str, Any]:
    """Check distances and volume: ``structural``, ``min_distance`` and its ratio, ``reason``.

    Raises
    ------
    ValueError
        For a molecule.
    """
    fault = structural_fault(system)
    distances: tuple[float | str, float | str]
    try:
        distances = min_distance(system), min_distance_ratio(system)
    except RuntimeError as error:
        distances = (f"{FAILED}{error}",) * 2
    return {
        "structural": fault is None,
        "min_distance": distances[0],
        "min_distance_ratio": distances[1],
        "reason": fault,
    }


def composition(system: AtomicSystem) -> dict[str, Any]:
    """Check the composition by SMACT: ``compositional``, ``reason``."""
    fault = composition_fault(reduced_composition(system.numbers))
    return {"compositional": fault is None, "reason": fault}


def structural_fault(system: AtomicSystem) -> str | None:
    """Say what is wrong with a crystal's geometry, None if nothing.

    Valid are distances above 0.5 angstrom and more than 0.1 cubic angstrom per atom. Stricter
    than the code of CDVAE in two points, as its text has it: an atom's distance to its own periodic
    images counts, and the volume limit is per atom, not per cell.

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


def min_distance_ratio(system: AtomicSystem) -> float:
    """Shortest distance in units of the two covalent radii; errors as of :func:`min_distance`."""
    from ase.data import covalent_radii

    return min_distance(system, covalent_radii[system.numbers])


def reduced_composition(numbers: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Atomic numbers, ascending, with their counts divided by the greatest common divisor."""
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
    formula = chemical_formula(counts)
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


def strict(system: AtomicSystem) -> dict[str, Any]:
    """Check whether a crystal looks like a real one.

    Returns
    -------
    dict
        ``neutral``: SMACT with the oxidation states observed in the ICSD. ``separated``: distances
        of at least 0.7 times the sum of covalent radii (Cordero et al., Dalton Trans. 2008, 2832,
        as in ASE). ``dense``: 0.3 to 25 g/cm^3 and 4 to 120 cubic angstrom per atom.
        ``sane_lattice``: vectors of the Minkowski-reduced cell of 2 to 60 angstrom. ``strict``: all
        of them, and ``strict_reason``, what is wrong.

    Raises
    ------
    ValueError
        For a molecule.
    """
    neutral = composition_fault(reduced_composition(system.numbers), STRICT_OXIDATION_STATES)
    try:
        separated, lattice = _separation_fault(system), _lattice_fault(system)
    except RuntimeError as error:
        separated = lattice = f"the cell cannot be reduced: {error}"
    dense = _density_fault(system)
    faults = (neutral, separated, dense, lattice)
    return {
        "strict": not any(faults),
        "neutral": neutral is None,
        "separated": separated is None,
        "dense": dense is None,
        "sane_lattice": lattice is None,
        "strict_reason": "; ".join(dict.fromkeys(fault for fault in faults if fault)) or None,
    }


def _separation_fault(system: AtomicSystem) -> str | None:
    ratio = min_distance_ratio(system)
    if ratio >= MIN_DISTANCE_RATIO:
        return None
    return f"atoms at {ratio:.2f} of their covalent radii (at least {MIN_DISTANCE_RATIO} needed)"


def _density_fault(system: AtomicSystem) -> str | None:
    density, volume = mass_density(system), system.volume / len(system)
    if not DENSITY_RANGE[0] <= density <= DENSITY_RANGE[1]:
        low, high = DENSITY_RANGE
        return f"density {density:.3g} g/cm^3 (between {low} and {high} needed)"
    if not VOLUME_RANGE[0] <= volume <= VOLUME_RANGE[1]:
        low, high = VOLUME_RANGE
        return f"{volume:.3g} cubic angstrom per atom (between {low} and {high} needed)"
    return None


def _lattice_fault(system: AtomicSystem) -> str | None:
    from ase.geometry import minkowski_reduce

    lengths = np.linalg.norm(minkowski_reduce(system.cell)[0], axis=1)
    low, high = LENGTH_RANGE
    if low <= lengths.min() and lengths.max() <= high:
        return None
    return (
        f"reduced lattice vectors of {lengths.min():.3g} to {lengths.max():.3g} angstrom "
        f"(between {low} and {high} needed)"
    )


def mass_density(system: AtomicSystem) -> float:
    """Density of a crystal in g/cm^3; ValueError for a molecule."""
    from ase.data import atomic_masses

    mass = float(atomic_masses[system.numbers].sum())
    return GRAMS_PER_CUBIC_CENTIMETRE * mass / system.volume


def properties(system: AtomicSystem) -> dict[str, Any]:
    """Take density (g/cm^3), volume per atom (angstrom^3), and what the elements are."""
    from pymatgen.core import Element

    elements = set(system.numbers.tolist())
    return {
        "density": mass_density(system),
        "volume_per_atom": system.volume / len(system),
        "num_elements": len(elements),
        "metals_only": all(Element.from_Z(z).is_metal for z in elements),
    }


def symmetry(system: AtomicSystem) -> dict[str, Any]:
    """Find the space group within 0.1 angstrom: ``space_group``, and ``triclinic`` if 1 or 2."""
    number = space_group(system)
    return {"space_group": number, "triclinic": crystal_system(number) == "triclinic"}


def space_group(system: AtomicSystem, precision: float = SYMMETRY_PRECISION) -> int:
    """Space group number found by spglib.

    Parameters
    ----------
    system : AtomicSystem
        A crystal.
    precision : float
        Distance in angstrom within which atoms count as equivalent.

    Raises
    ------
    ValueError
        For a molecule, or if spglib finds none.
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer, SymmetryUndeterminedError

    structure = system.to_structure()
    try:
        return int(SpacegroupAnalyzer(structure, symprec=precision).get_space_group_number())
    except (SymmetryUndeterminedError, TypeError) as error:
        raise ValueError(f"spglib finds no space group of {system.formula}: {error}") from error


def crystal_system(number: int) -> str:
    """Crystal system of a space group, ``"triclinic"`` to ``"cubic"``.

    Raises
    ------
    ValueError
        If there is no such space group.
    """
    if number >= 1:
        for name, last in CRYSTAL_SYSTEMS.items():
            if number <= last:
                return name
    raise ValueError(f"space groups are numbered 1 to 230, got {number}")


def amounts(system: AtomicSystem) -> dict[str, int]:
    """Count the atoms of each element, by symbol."""
    from ase.data import chemical_symbols

    numbers, counts = np.unique(system.numbers, return_counts=True)
    return {chemical_symbols[n]: int(k) for n, k in zip(numbers, counts, strict=True)}
