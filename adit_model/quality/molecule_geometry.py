"""What the coordinates of a molecule say without a chemistry toolkit.

Stability by the definition of EDM (Hoogeboom et al., ICML 2022, arXiv 2203.17003, appendix C), and
bonds, angles and rings of the neighbour graph, which exist for broken geometries too.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from adit_model.quality.molecules import require_molecule
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


def stability(system: AtomicSystem) -> dict[str, Any]:
    """Count ``stable_atoms`` by the definition of EDM; ``stable`` is a molecule of such only.

    A pair of atoms is bonded if its distance is below the single bond length plus 10 pm; it is a
    double bond below that length plus 5 pm, a triple bond below that plus 3 pm. An atom is stable
    if its bond orders sum to 4 (C), 3 (N), 2 (O) or 1 (H, F). In QM9 99 % of the atoms
    and 95 % of the molecules are stable.

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
    return {"stable_atoms": stable, "stable": stable == len(system)}


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


def graph(system: AtomicSystem) -> dict[str, Any]:
    """Connect atoms closer than 1.2 times the sum of their covalent radii.

    Returns
    -------
    dict
        ``num_bonds``; ``num_rings``: independent rings (bonds - atoms + fragments);
        ``num_fragments``: connected parts; ``bond_lengths`` (angstrom) by pairs of elements such as
        ``"C-H"``; ``angles`` (degrees) by three such as ``"C-O-H"``, the centre in the middle.

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
    return {
        "num_bonds": len(first),
        "num_rings": len(first) - len(system) + fragments,
        "num_fragments": fragments,
        "bond_lengths": dict(lengths),
        "angles": dict(angles),
    }


def _symbols(system: AtomicSystem) -> list[str]:
    from ase.data import chemical_symbols

    require_molecule(system)
    return [chemical_symbols[number] for number in system.numbers]


def _distances(system: AtomicSystem) -> np.ndarray:
    return np.linalg.norm(system.positions[:, None] - system.positions[None], axis=-1)
