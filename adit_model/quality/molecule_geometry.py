"""What the coordinates of a molecule say without a chemistry toolkit.

Stability by the definition of EDM (Hoogeboom et al., ICML 2022, arXiv 2203.17003, appendix C), and
bonds, angles and rings of the neighbour graph, which exist for broken geometries too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from adit_model.systems import AtomicSystem

# Typical lengths of single, double and triple bonds in picometres, as tabulated at
# wiredchemist.com (after J. E. Huheey, Inorganic Chemistry), the source that EDM names.
SINGLE = {
    "HH": 74, "CH": 109, "HN": 101, "HO": 96, "FH": 92,
    "CC": 154, "CN": 147, "CO": 143, "CF": 135,
    "NN": 145, "NO": 140, "FN": 136,
    "OO": 148, "FO": 142, "FF": 142,
}  # fmt: skip
DOUBLE = {"CC": 134, "CN": 129, "CO": 120, "NN": 125, "NO": 121, "OO": 121}
TRIPLE = {"CC": 120, "CN": 116, "CO": 113, "NN": 110}
MARGINS = (10, 5, 3)  # picometres added to single, double and triple lengths
VALENCES = {"H": 1, "C": 4, "N": 3, "O": 2, "F": 1}
BOND_TOLERANCE = 1.2  # of the sum of covalent radii


@dataclass(frozen=True)
class StabilityCheck:
    """How many atoms have the valence that their distances to the others give them.

    Parameters
    ----------
    stable_atoms : int
        Atoms whose bond orders sum to the element's valence. In QM9, 99 % of all.
    stable : bool
        All atoms are stable. In QM9, 95 % of the molecules.
    """

    stable_atoms: int
    stable: bool


def check_stability(system: AtomicSystem) -> StabilityCheck:
    """Count stable atoms by the definition of EDM.

    A pair of atoms is bonded if its distance is below the single bond length plus 10 pm; it is a
    double bond below that length plus 5 pm, a triple bond below that plus 3 pm. An atom is stable
    if its bond orders sum to 4 (C), 3 (N), 2 (O) or 1 (H, F).

    Raises
    ------
    ValueError
        For a crystal, or an element other than these, those of QM9, for which EDM's definition
        was made.
    """
    symbols = _symbols(system)
    unknown = sorted(set(symbols) - set(VALENCES))
    if unknown:
        raise ValueError(f"EDM's stability is defined for H, C, N, O, F, not for {unknown[0]}")
    orders = _bond_orders(symbols, _distances(system)).sum(axis=1)
    stable = int((orders == np.array([VALENCES[symbol] for symbol in symbols])).sum())
    return StabilityCheck(stable, stable == len(system))


def _bond_orders(symbols: list[str], distances: np.ndarray) -> np.ndarray:
    kinds = sorted(set(symbols))
    index = np.array([kinds.index(symbol) for symbol in symbols])
    orders = np.zeros(distances.shape, dtype=int)
    for lengths, margin in zip((SINGLE, DOUBLE, TRIPLE), MARGINS, strict=True):
        limit = np.zeros((len(kinds), len(kinds)))
        for i, first in enumerate(kinds):
            for j, second in enumerate(kinds):
                pair = "".join(sorted(first + second))
                if pair in lengths:
                    limit[i, j] = (lengths[pair] + margin) / 100
        # a longer order is looked for only among those of the order below
        orders += (distances < limit[index][:, index]) & (orders == MARGINS.index(margin))
    np.fill_diagonal(orders, 0)
    return orders


@dataclass(frozen=True)
class NeighborGraph:
    """Bonds by distance alone, and what follows from them.

    Parameters
    ----------
    fragments : int
        Connected parts.
    rings : int
        Independent rings: bonds - atoms + fragments.
    bond_lengths : dict
        From a pair of elements, such as ``"C-H"``, to lengths in angstrom.
    angles : dict
        From three elements, such as ``"C-O-H"`` (the centre in the middle), to angles in degrees.
    """

    fragments: int
    rings: int
    bond_lengths: dict[str, list[float]]
    angles: dict[str, list[float]]

    @property
    def num_bonds(self) -> int:
        """Bonds of all kinds."""
        return sum(map(len, self.bond_lengths.values()))


def neighbor_graph(system: AtomicSystem) -> NeighborGraph:
    """Connect atoms closer than 1.2 times the sum of their covalent radii.

    Raises
    ------
    ValueError
        For a crystal.
    """
    from ase.data import covalent_radii
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    symbols = _symbols(system)
    distances = _distances(system)
    radii = covalent_radii[system.numbers]
    bonded = distances < BOND_TOLERANCE * (radii[:, None] + radii[None])
    np.fill_diagonal(bonded, False)
    fragments = int(connected_components(csr_array(bonded), directed=False)[0])
    lengths: dict[str, list[float]] = defaultdict(list)
    first, second = np.nonzero(np.triu(bonded))
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        lengths["-".join(sorted((symbols[i], symbols[j])))].append(float(distances[i, j]))
    angles: dict[str, list[float]] = defaultdict(list)
    for centre in range(len(system)):
        neighbors = np.flatnonzero(bonded[centre])
        arms = system.positions[neighbors] - system.positions[centre]
        arms /= np.maximum(np.linalg.norm(arms, axis=1, keepdims=True), 1e-12)
        degrees = np.degrees(np.arccos(np.clip(arms @ arms.T, -1, 1)))
        for a, b in zip(*np.triu_indices(len(neighbors), k=1), strict=True):
            ends = sorted((symbols[neighbors[a]], symbols[neighbors[b]]))
            angles[f"{ends[0]}-{symbols[centre]}-{ends[1]}"].append(float(degrees[a, b]))
    rings = len(first) - len(system) + fragments
    return NeighborGraph(fragments, rings, dict(lengths), dict(angles))


def _symbols(system: AtomicSystem) -> list[str]:
    from ase.data import chemical_symbols

    if system.is_periodic:
        raise ValueError(f"{system.formula} is a crystal, not a molecule")
    return [chemical_symbols[number] for number in system.numbers]


def _distances(system: AtomicSystem) -> np.ndarray:
    return np.linalg.norm(system.positions[:, None] - system.positions[None], axis=-1)
