"""Plausible or not: whether a chemist would believe a structure, and if not, why.

The one verdict that users see, filter by and relax by. It asks for distances, volume and
neighbours (crystals), for bonds and electrons (molecules), never for oxidation states:
intermetallics and borides are as plausible as salts. Rates of the literature (``valid``) are
another matter, see :mod:`adit_model.quality.records`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from adit_model.geometry import cell_to_parameters, unphysical_cell
from adit_model.systems import AtomicSystem

# Two atoms come no closer than the sum of these radii (angstrom), for other elements this share of
# the covalent radius: room for N2, CO, C2H2, O2 and HF, for uranyl and Ti=O.
HARD_RADII = {1: 0.33, 6: 0.54, 7: 0.51, 8: 0.54, 9: 0.55}
HARD_SHARE = 0.62
# An atom's nearest neighbour is at most so far: metals in covalent radii, else van der Waals radii
MAX_BOND = 1.45
MAX_ION_CONTACT = 0.95  # of a metal and what is none: thallium in Tl2SiF6
MAX_CONTACT = 1.25
VOLUME_RANGE = (2.5, 150.0)  # cubic angstrom an atom; LaH10 under pressure has 3, caesium 117
FILLED_RANGE = (0.2, 6.5)  # sum of the van der Waals volumes in units of the cell's
MAX_GAP = 15.0  # angstrom without an atom; monolayers that count as crystals have up to 14.4
OVERLAP = 0.3  # angstrom: below it two atoms are on one spot
BOND_FACTORS = (1.15, 1.25)  # of covalent radii; the second for a bond of hydrogen
NUM_NEIGHBORS = 64
MAX_DRAWINGS = 200  # tried
MAX_MATCHED_ATOMS = 300  # of a molecule, for its bond orders to be looked at
# Bonds of a neutral atom; what is not listed (metals) is not asked
VALENCES: dict[int, tuple[int, ...]] = {
    **dict.fromkeys((1, 9), (1,)),
    **dict.fromkeys((2, 10, 18, 36), (0,)),
    5: (3,),
    **dict.fromkeys((6, 14, 32), (4,)),
    7: (3,),
    8: (2,),
    **dict.fromkeys((15, 33), (3, 5)),
    **dict.fromkeys((16, 34), (2, 4, 6)),
    **dict.fromkeys((17, 35, 53), (1, 3, 5, 7)),
}
NONMETALS = (1, 2, *range(5, 11), *range(14, 19), *range(33, 37), *range(52, 55), 85, 86)
# Bonds that an atom of a positive or a negative ion has more than a neutral one
PLUS = {6: -1, 7: 1, 8: 1, 15: 1, 16: 1}
MINUS = {5: 1, 6: -1, 7: -1, 8: -1, 9: -1, 16: -1, 17: -1, 35: -1, 53: -1}
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


class Plausibility(NamedTuple):
    """A verdict: ``plausible``, and the ``reason`` if it is not, None if it is."""

    plausible: bool
    reason: str | None


def plausible(structure: Any) -> Plausibility:
    """Say whether a crystal or molecule is plausible, and if not, why.

    A crystal is plausible if its atoms, images included, keep the distances that elements keep,
    none is without neighbours, an atom has the volume that it has in matter, and no gap of 15
    angstrom or more cuts the cell. A molecule is plausible if it is in one piece and a chemist
    would draw it: each atom with all its bonds, no radical; charges only where they are
    usual (nitro groups, N-oxides, azides, ylides, amino acids).

    Never raises, and its time grows with the number of atoms, whatever the cell.

    Parameters
    ----------
    structure : AtomicSystem, pymatgen Structure or Molecule, ase.Atoms
        What to judge; atoms are counted from 0 in the reason.

    Returns
    -------
    Plausibility
        ``(plausible, reason)``.
    """
    try:
        system = AtomicSystem.from_any(structure)
        with np.errstate(all="ignore"):
            reason = crystal_fault(system) if system.is_periodic else molecule_fault(system)
    except (ValueError, TypeError, ArithmeticError, np.linalg.LinAlgError) as error:
        reason = str(error)
    return Plausibility(reason is None, reason)


def plausibility(system: AtomicSystem) -> dict[str, Any]:
    """Give the verdict as the cells ``plausible`` and ``plausible_reason`` of a table."""
    verdict = plausible(system)
    return {"plausible": verdict.plausible, "plausible_reason": verdict.reason}


# crystals


def crystal_fault(system: AtomicSystem) -> str | None:
    """Say why a crystal is not plausible, None if it is.

    Raises
    ------
    ValueError
        For a molecule.
    """
    volume = system.volume / len(system)
    if not VOLUME_RANGE[0] <= volume <= VOLUME_RANGE[1]:
        low, high = VOLUME_RANGE
        return f"{volume:.3g} cubic angstrom an atom (matter has {low} to {high})"
    from ase.geometry import minkowski_reduce

    try:
        cell = minkowski_reduce(system.cell)[0]
    except RuntimeError as error:
        return f"the cell cannot be reduced: {error}"
    if fault := unphysical_cell(*cell_to_parameters(cell)):
        return fault
    inverse = np.linalg.inv(cell)
    frac_coords = system.positions @ inverse
    frac_coords -= np.floor(frac_coords)
    return (
        _close_fault(system, cell, inverse, frac_coords)
        or _filling_fault(system)
        or _gap_fault(inverse, frac_coords)
    )


def _close_fault(
    system: AtomicSystem, cell: np.ndarray, inverse: np.ndarray, frac_coords: np.ndarray
) -> str | None:
    """Distances that are too short, and atoms that have no neighbour."""
    from scipy.spatial import cKDTree

    numbers = system.numbers
    hard = hard_radii(numbers)
    lengths = np.linalg.norm(cell, axis=1)
    largest = int(hard.argmax())
    if lengths.min() < 2 * hard[largest]:
        return f"{_atom(system, largest)} is {lengths.min():.2f} angstrom from its own image"
    metal, covalent, vdw = _radii(numbers)
    reach = MAX_CONTACT * 2 * float(vdw.max())
    pad = reach * np.linalg.norm(inverse, axis=0)  # in fractional coordinates
    points, owners = _images(frac_coords, pad)
    tree = cKDTree(points @ cell)
    count = min(NUM_NEIGHBORS, len(points))
    distances, near = tree.query(frac_coords @ cell, k=np.arange(1, count + 1))
    near = owners[near]
    if count == 1:
        return f"{_atom(system, 0)} has no neighbour within {reach:.1f} angstrom"
    if distances[:, 1].min() < OVERLAP:
        i = int(distances[:, 1].argmin())
        j = int(next(other for other in near[i] if other != i))  # it may be level with itself
        return _pair(system, i, j, float(distances[i, 1]), "on one spot")
    distances, near = distances[:, 1:], near[:, 1:]  # the nearest is the atom itself
    share = distances / (hard[:, None] + hard[near])
    if share.min() < 1:
        i, k = np.unravel_index(share.argmin(), share.shape)
        return _pair(system, int(i), int(near[i, k]), float(distances[i, k]))
    touching = vdw[:, None] + vdw[near]
    contact = np.where(
        metal[:, None],
        np.where(
            metal[near], MAX_BOND * (covalent[:, None] + covalent[near]), MAX_ION_CONTACT * touching
        ),
        MAX_CONTACT * touching,
    )
    alone = (distances > contact).all(axis=1)
    if alone.any():
        i = int(alone.argmax())
        return (
            f"{_atom(system, i)} has no neighbour (the nearest atom is "
            f"{distances[i, 0]:.1f} angstrom away)"
        )
    return None


def _images(frac_coords: np.ndarray, pad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractional coordinates of all images in the padded cell, shape (M, 3), and their atoms."""
    points, owners = frac_coords, np.arange(len(frac_coords))
    for axis in range(3):
        steps = np.arange(-int(np.ceil(pad[axis])), int(np.ceil(pad[axis])) + 1)
        moved = np.repeat(points, len(steps), axis=0)
        moved[:, axis] += np.tile(steps, len(points))
        kept = (moved[:, axis] >= -pad[axis]) & (moved[:, axis] <= 1 + pad[axis])
        points, owners = moved[kept], np.repeat(owners, len(steps))[kept]
    return points, owners


def _filling_fault(system: AtomicSystem) -> str | None:
    filled = float((4 / 3 * np.pi * _radii(system.numbers)[2] ** 3).sum() / system.volume)
    low, high = FILLED_RANGE
    if low <= filled <= high:
        return None
    return (
        f"{system.volume / len(system):.3g} cubic angstrom an atom is too "
        f"{'much' if filled < low else 'little'} for {system.formula}"
    )


def _gap_fault(inverse: np.ndarray, frac_coords: np.ndarray) -> str | None:
    """Find layers without an atom: a slab or a cluster in vacuum."""
    for plane in itertools.product((-1, 0, 1), repeat=3):
        if plane <= (0, 0, 0):
            continue
        spacing = 1 / float(np.linalg.norm(inverse @ plane))
        if spacing < MAX_GAP:
            continue
        heights = np.sort((frac_coords @ plane) % 1.0)
        gap = spacing * float(np.diff([*heights, heights[0] + 1]).max())
        if gap >= MAX_GAP:
            return f"a gap of {gap:.1f} angstrom (less than {MAX_GAP:g} needed)"
    return None


def hard_radii(numbers: np.ndarray) -> np.ndarray:
    """Radii, shape (N,) in angstrom, whose sums two atoms do not come closer than."""
    from ase.data import covalent_radii

    radii = HARD_SHARE * covalent_radii[numbers]
    for number, radius in HARD_RADII.items():
        radii[numbers == number] = radius
    return radii


def _radii(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether metals, covalent radii (Cordero 2008), van der Waals radii (Alvarez 2013)."""
    from ase.data import covalent_radii
    from ase.data.vdw_alvarez import vdw_radii

    known = np.full(len(covalent_radii), np.nan)
    known[: len(vdw_radii)] = vdw_radii[: len(known)]
    vdw = np.where(np.isfinite(known), known, 2.5)[numbers]
    metal = ~np.isin(numbers, NONMETALS)
    return metal, covalent_radii[numbers], vdw


def _atom(system: AtomicSystem, i: int) -> str:
    from ase.data import atomic_names

    return f"{atomic_names[system.numbers[i]].lower()} {i}"


def _pair(system: AtomicSystem, i: int, j: int, distance: float, note: str = "") -> str:
    i, j = min(i, j), max(i, j)
    if i == j:
        return f"{_atom(system, i)} is {distance:.2f} angstrom from its own image"
    text = f"{_atom(system, i)} and {_atom(system, j)} are {distance:.2f} angstrom apart"
    return f"{text}: {note}" if note else text


# molecules


def molecule_fault(system: AtomicSystem) -> str | None:
    """Say why a molecule is not plausible, None if it is."""
    from scipy.spatial import cKDTree

    numbers, positions = system.numbers, system.positions
    tree = cKDTree(positions)
    if len(system) > 1:
        distances, near = tree.query(positions, k=2)
        i = int(distances[:, 1].argmin())
        if distances[i, 1] < OVERLAP:
            j = int(near[i, 1] if near[i, 1] != i else near[i, 0])
            return _pair(system, i, j, float(distances[i, 1]), "on one spot")
    _, covalent, _ = _radii(numbers)
    pairs = tree.query_pairs(2 * BOND_FACTORS[1] * float(covalent.max()), output_type="ndarray")
    first, second = pairs[np.lexsort(pairs.T[::-1])].T if len(pairs) else np.empty((2, 0), int)
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    hard = hard_radii(numbers)
    share = distances / (hard[first] + hard[second])
    if len(share) and share.min() < 1:
        k = int(share.argmin())
        return _pair(system, int(first[k]), int(second[k]), float(distances[k]))
    factor = np.where((numbers[first] == 1) | (numbers[second] == 1), *BOND_FACTORS[::-1])
    bonded = distances < factor * (covalent[first] + covalent[second])
    bonds = list(zip(first[bonded].tolist(), second[bonded].tolist(), strict=True))
    return _pieces_fault(system, bonds) or _drawing_fault(system, bonds)


def _pieces_fault(system: AtomicSystem, bonds: Sequence[tuple[int, int]]) -> str | None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = zip(*bonds, strict=True) if bonds else ((), ())
    graph = coo_array((np.ones(len(bonds)), (first, second)), shape=(len(system), len(system)))
    count, labels = connected_components(graph, directed=False)
    if count == 1:
        return None
    sizes = np.bincount(labels)
    smallest = np.flatnonzero(labels == sizes.argmin())
    if len(smallest) == 1:
        return f"{_atom(system, int(smallest[0]))} is bonded to nothing"
    word = _word(count)
    return f"{word} pieces: atoms {', '.join(map(str, smallest[:8]))} are bonded to no others"


def _drawing_fault(system: AtomicSystem, bonds: Sequence[tuple[int, int]]) -> str | None:
    """Look for a drawing in which each atom has its bonds; charges only where they are usual."""
    numbers = system.numbers.tolist()
    neighbors: list[list[int]] = [[] for _ in numbers]
    for i, j in bonds:
        neighbors[i].append(j)
        neighbors[j].append(i)
    unknown = [z not in VALENCES for z in numbers]
    if any(unknown) or len(numbers) > MAX_MATCHED_ATOMS:
        electrons = sum(numbers) - system.charge
        return f"an odd number of electrons ({electrons})" if electrons % 2 else None
    if system.charge:
        return _ion_fault(numbers, neighbors, system.charge)
    for i, z in enumerate(numbers):
        most = VALENCES[z][-1] + (z == 7)  # ammonium
        if len(neighbors[i]) > most:
            return f"{_atom(system, i)} has {_bonds(len(neighbors[i]))} (at most {_word(most)})"
    usual = [_valence(z, len(near)) for z, near in zip(numbers, neighbors, strict=True)]
    lacking = _lacking(numbers, usual, neighbors)
    if not lacking or any(
        not _lacking(numbers, valences, neighbors) for valences in _higher_valences(usual, numbers)
    ):
        return None
    charges = _charges(numbers, usual, neighbors)
    if charges is not None:
        pairs = [
            f"{_atom(system, plus)} (+) and {_atom(system, minus)} (-)" for plus, minus in charges
        ]
        unusual = [
            pair
            for pair, (plus, minus) in zip(pairs, charges, strict=True)
            if not _usual_charges(numbers, neighbors, plus, minus)
        ]
        return f"drawn only with charges that nobody would draw: {unusual[0]}" if unusual else None
    i = lacking[0]
    text = f"{_atom(system, i)} has {_bonds(len(neighbors[i]))}"
    if len(neighbors[i]) > usual[i]:
        return f"{text} (at most {_word(usual[i])})"
    hydrogens = sum(numbers[j] == 1 for j in neighbors[i])
    lone = "" if hydrogens else " and no lone hydrogen"
    return f"{text}{lone}: it needs {_word(usual[i])}, a bond or a hydrogen is missing"


def _ion_fault(
    numbers: Sequence[int], neighbors: Sequence[Sequence[int]], charge: int
) -> str | None:
    """Look for a drawing of an ion: as many charged atoms more as its charge."""
    carriers = PLUS if charge > 0 else MINUS
    usual = [_valence(z, len(near)) for z, near in zip(numbers, neighbors, strict=True)]
    places = [i for i, z in enumerate(numbers) if z in carriers]
    for chosen in itertools.islice(itertools.combinations(places, abs(charge)), MAX_DRAWINGS):
        valences = list(usual)
        for i in chosen:
            valences[i] += carriers[numbers[i]]
        if not _lacking(numbers, valences, neighbors) or _charges(numbers, valences, neighbors):
            return None
    return f"no drawing of its bonds has a charge of {charge:+d}"


def _valence(number: int, count: int) -> int:
    """Return the smallest number of bonds that a neutral atom with ``count`` neighbours has."""
    return next((v for v in VALENCES[number] if v >= count), VALENCES[number][-1])


def _higher_valences(usual: Sequence[int], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Valences with those of sulfur, phosphorus, chlorine and the like raised."""
    raised = [i for i, z in enumerate(numbers) if usual[i] < VALENCES[z][-1]]
    options = [[v for v in VALENCES[numbers[i]] if v >= usual[i]] for i in raised]
    for chosen in itertools.islice(itertools.product(*options), 1, MAX_DRAWINGS):
        valences = list(usual)
        for i, valence in zip(raised, chosen, strict=True):
            valences[i] = valence
        yield valences


def _lacking(
    numbers: Sequence[int], valences: Sequence[int], neighbors: Sequence[Sequence[int]]
) -> list[int]:
    """Atoms that multiple bonds cannot give as many bonds as their valence; empty if all have them.

    Multiple bonds are a perfect matching of the free valences of neighbours. Where there is none,
    the heavier atom gets its bonds first: C=O before C=N.
    """
    import networkx as nx

    free = [valence - len(near) for valence, near in zip(valences, neighbors, strict=True)]
    if min(free) < 0:
        return [i for i, count in enumerate(free) if count < 0]
    graph = nx.Graph()
    graph.add_nodes_from((i, k) for i, count in enumerate(free) for k in range(count))
    graph.add_edges_from(
        ((i, k), (j, m), {"weight": 100 + max(numbers[i], numbers[j])})
        for i, near in enumerate(neighbors)
        for j in near
        if i < j
        for k in range(free[i])
        for m in range(free[j])
    )
    matched = {node for pair in nx.max_weight_matching(graph, True) for node in pair}
    return sorted({i for i, _ in graph.nodes if (i, _) not in matched})


def _charges(
    numbers: Sequence[int], usual: Sequence[int], neighbors: Sequence[Sequence[int]]
) -> list[tuple[int, int]] | None:
    """Pairs of a positive and a negative atom that let all atoms have their bonds; None if none.

    Positive atoms have a bond more, negative ones a bond less. Neighbours come first, then what
    chemists draw as salts.
    """
    plus = [
        i
        for i, z in enumerate(numbers)
        if z in (7, 8, 15, 16) and len(neighbors[i]) <= usual[i] + 1
    ]
    minus = [
        i for i, z in enumerate(numbers) if z in (5, 6, 7, 8, 16) and len(neighbors[i]) <= usual[i]
    ]
    pairs = [(p, m) for p in plus for m in minus if p != m]
    pairs.sort(key=lambda pair: not _usual_charges(numbers, neighbors, *pair))
    for count in (1, 2, 3):
        for chosen in itertools.islice(itertools.combinations(pairs, count), MAX_DRAWINGS):
            if len({i for pair in chosen for i in pair}) < 2 * count:
                continue
            valences = list(usual)
            for p, m in chosen:
                valences[p] += 1
                valences[m] -= 1
            if not _lacking(numbers, valences, neighbors):
                return list(chosen)
    return None


def _usual_charges(
    numbers: Sequence[int], neighbors: Sequence[Sequence[int]], plus: int, minus: int
) -> bool:
    """Whether a chemist would draw two charges: a dipole of neighbours, or an inner salt.

    Dipoles: a positive nitrogen beside a negative oxygen (nitro group, N-oxide, nitrone), nitrogen
    (azide, diazo) or carbon (isocyanide, ylide), the same of phosphorus and sulfur; carbon
    monoxide. Salts: an ammonium, amidinium or betaine with a carboxylate, sulfonate, phosphate.
    """
    if plus in neighbors[minus]:
        return numbers[plus] != 8 or len(numbers) == 2
    acid = (
        numbers[minus] in (8, 16)
        and len(neighbors[minus]) == 1
        and any(
            numbers[other] in (8, 16) and len(neighbors[other]) == 1
            for centre in neighbors[minus]
            for other in neighbors[centre]
            if other != minus
        )
    )
    return acid and numbers[plus] == 7


def _bonds(count: int) -> str:
    return "one bond" if count == 1 else f"{_word(count)} bonds"


def _word(count: int) -> str:
    return NUMBER_WORDS[count] if count < len(NUMBER_WORDS) else str(count)
