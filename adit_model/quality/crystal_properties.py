"""Properties of single crystals, and a stricter set of checks than the field's validity.

The field's structural check passes atoms 0.6 angstrom apart. The strict set asks of a crystal what
holds for all of some 1,600 real ones it was tried on, its composition aside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adit_model.quality.crystals import composition_fault, min_distance, reduced_composition
from adit_model.systems import AtomicSystem

STRICT_OXIDATION_STATES = "icsd24"
MIN_DISTANCE_RATIO = 0.7  # of the sum of covalent radii
DENSITY_RANGE = (0.3, 25.0)  # g/cm^3; lithium has 0.53, osmium 22.6
VOLUME_RANGE = (4.0, 120.0)  # cubic angstrom per atom; diamond has 5.7, caesium 117
LENGTH_RANGE = (2.0, 60.0)  # angstrom, of the reduced cell
SYMMETRY_PRECISION = 0.1  # angstrom
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


@dataclass(frozen=True)
class StrictCheck:
    """Whether a crystal looks like a real one.

    Parameters
    ----------
    neutral : bool
        The composition passes SMACT with the oxidation states observed in the ICSD
        (``icsd24``); elements and alloys pass.
    separated : bool
        All distances, periodic images included, are at least 0.7 times the sum of the two
        covalent radii (Cordero et al., Dalton Trans. 2008, 2832, as in ASE).
    dense : bool
        Density in 0.3 to 25 g/cm^3 and volume in 4 to 120 cubic angstrom per atom.
    lattice : bool
        Lattice vectors of the Minkowski-reduced cell in 2 to 60 angstrom.
    reason : str or None
        What is wrong; None for a crystal that passes.
    """

    neutral: bool
    separated: bool
    dense: bool
    lattice: bool
    reason: str | None = None

    @property
    def passed(self) -> bool:
        """All four."""
        return self.neutral and self.separated and self.dense and self.lattice


def check_strictly(system: AtomicSystem) -> StrictCheck:
    """Check a crystal against the strict set, in this process and without a time limit.

    Raises
    ------
    ValueError
        For a molecule.
    """
    neutral = composition_fault(reduced_composition(system), STRICT_OXIDATION_STATES)
    try:
        separated, lattice = _separation_fault(system), _lattice_fault(system)
    except RuntimeError as error:
        separated = lattice = f"the cell cannot be reduced: {error}"
    dense = _density_fault(system)
    faults = (neutral, separated, dense, lattice)
    reason = "; ".join(dict.fromkeys(fault for fault in faults if fault)) or None
    return StrictCheck(neutral is None, separated is None, dense is None, lattice is None, reason)


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


def min_distance_ratio(system: AtomicSystem) -> float:
    """Shortest distance in units of the two atoms' covalent radii, periodic images included.

    Raises
    ------
    RuntimeError
        If the cell is so distorted that its Minkowski reduction fails.
    ValueError
        For a molecule.
    """
    from ase.data import covalent_radii

    return min_distance(system, covalent_radii[system.numbers])


def mass_density(system: AtomicSystem) -> float:
    """Density of a crystal in g/cm^3.

    Raises
    ------
    ValueError
        For a molecule.
    """
    from ase.data import atomic_masses

    mass = float(atomic_masses[system.numbers].sum())
    return GRAMS_PER_CUBIC_CENTIMETRE * mass / system.volume


def space_group(system: AtomicSystem, precision: float = SYMMETRY_PRECISION) -> int:
    """Space group number found by spglib.

    Parameters
    ----------
    system : AtomicSystem
        A crystal.
    precision : float
        Distance in angstrom within which atoms count as equivalent; generated structures
        are not relaxed, hence the loose default.

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
