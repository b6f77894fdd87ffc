"""Equal structures, whatever their cell, origin, orientation and order of atoms."""

from __future__ import annotations

import logging
from collections import defaultdict

import numpy as np

from adit_model.data.dataset import AtomicDataset
from adit_model.systems import AtomicSystem

logger = logging.getLogger(__name__)

NEIGHBORS = 24
COUNTED = 500  # structures that are compared in a few seconds
FEW = 20  # structures that are hardly enough to train on


def find_duplicates(dataset: AtomicDataset, tolerance: float = 0.01) -> dict[int, int]:
    """Find structures that equal an earlier one.

    Structures of the same reduced formula are compared by :func:`mean_distances`. Crystals that
    differ in volume alone are different, and mirror images are equal.

    Parameters
    ----------
    dataset : AtomicDataset
        Crystals and molecules.
    tolerance : float
        Largest relative difference of any mean distance.

    Returns
    -------
    dict
        Index of each duplicate to that of the structure it equals.
    """
    groups: dict[tuple[bool, tuple[int, ...]], list[int]] = defaultdict(list)
    for i in range(len(dataset)):
        periodic = bool(dataset.periodic[i])
        numbers = dataset.numbers[dataset.offsets[i] : dataset.offsets[i + 1]]
        elements, counts = np.unique(numbers, return_counts=True)
        if periodic:  # a cell equals its supercell
            counts = counts // np.gcd.reduce(counts)
        groups[periodic, (*elements.tolist(), *counts.tolist())].append(i)
    duplicates: dict[int, int] = {}
    for members in groups.values():
        kept: list[int] = []
        table = np.empty((len(members), 0))
        for i in members if len(members) > 1 else []:
            distances = mean_distances(dataset[i]).ravel()
            if not kept:
                table = np.empty((len(members), len(distances)))
            difference = np.abs(table[: len(kept)] / distances - 1.0).max(axis=1, initial=0.0)
            equal = np.flatnonzero(difference < tolerance)
            if len(equal):
                duplicates[i] = kept[int(equal[0])]
            else:
                table[len(kept)] = distances
                kept.append(i)
    return duplicates


def warn_few(dataset: AtomicDataset) -> None:
    """Log how many structures are distinct, if they are few or some are equal.

    Sets of more than :data:`COUNTED` structures are not compared.
    """
    if len(dataset) > COUNTED:
        return
    distinct = len(dataset) - len(find_duplicates(dataset))
    if distinct < len(dataset) or distinct < FEW:
        logger.warning("%s: %d structures, %d distinct", dataset.name, len(dataset), distinct)


def mean_distances(system: AtomicSystem, neighbors: int = NEIGHBORS) -> np.ndarray:
    """Mean distance to the first, second, ... neighbour of the atoms of each element.

    These are the average minimum distances of Widdowson et al. (MATCH 87, 529, 2022), for each
    element by itself: they do not depend on the cell that describes a crystal, and change little
    when atoms move a little.

    Parameters
    ----------
    system : AtomicSystem
        Crystal or molecule.
    neighbors : int
        How many neighbours; in a molecule no more than it has.

    Returns
    -------
    numpy.ndarray
        Shape (elements, neighbours), elements ascending, in angstrom; 1 for a lone atom.
    """
    if system.cell is None:
        if len(system) == 1:
            return np.ones((1, 1))
        vectors = system.positions[:, None] - system.positions[None]
        distances = np.sort(np.linalg.norm(vectors, axis=-1), axis=1)[:, 1 : neighbors + 1]
    else:
        distances = _periodic_distances(system, neighbors)
    distances = np.maximum(distances, 1e-6)
    return np.stack(
        [distances[system.numbers == z].mean(axis=0) for z in np.unique(system.numbers)]
    )


def _periodic_distances(system: AtomicSystem, neighbors: int) -> np.ndarray:
    from scipy.spatial import cKDTree

    cell = np.asarray(system.cell, dtype=np.float64)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    frac = system.frac_coords - np.floor(system.frac_coords)
    positions = frac @ cell
    radius = 1.2 * (3 * (neighbors + 1) * system.volume / (4 * np.pi * len(system))) ** (1 / 3)
    while True:
        reach = np.ceil(radius / heights).astype(int)
        ranges = [np.arange(-n, n + 1) for n in reach]
        shifts = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3) @ cell
        images = (positions[None] + shifts[:, None]).reshape(-1, 3)
        if len(images) > neighbors:
            distances, _ = cKDTree(images).query(positions, k=neighbors + 1)
            if distances.max() <= radius:  # farther images cannot be nearer
                return distances[:, 1:]
        radius *= 1.5
