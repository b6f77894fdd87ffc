"""Structure types of known crystals as templates: the elements asked for in place of their own.

This is how structures are guessed without a generator (Kusaba et al., Comput. Mater. Sci. 211,
111496, 2022), and what one has to be compared with.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from adit_model.data.dataset import AtomicDataset

STEEPNESS = 0.15  # how fast a crystal's say falls with the distance of its elements


@dataclass(frozen=True)
class Template:
    """A known crystal with other elements.

    Parameters
    ----------
    id : str
        Of the known crystal.
    formula : str
        Its reduced formula.
    distance : float
        Sum of the differences of the elements' Mendeleev numbers.
    system : AtomicSystem
        With the elements asked for, the volume scaled to their bond lengths.
    """

    id: str
    formula: str
    distance: float
    system: AtomicSystem


def stoichiometry(numbers: np.ndarray) -> tuple[int, ...]:
    """Atoms of each element in ascending order, whatever the elements: (1, 2) of TiO2."""
    return tuple(sorted(Counter(np.asarray(numbers).tolist()).values()))


def fitting(
    known: AtomicDataset, numbers: np.ndarray, sizes: Collection[int] | None = None
) -> np.ndarray:
    """Find crystals with the stoichiometry of a composition, but not the composition itself.

    Parameters
    ----------
    known : AtomicDataset
        Known crystals.
    numbers : numpy.ndarray
        Atomic numbers of the composition.
    sizes : collection of int, optional
        Numbers of atoms that a cell may have; by default that of the composition.

    Returns
    -------
    numpy.ndarray
        Their places, ascending.
    """
    wanted, elements = stoichiometry(numbers), set(np.asarray(numbers).tolist())
    fits = np.isin(known.sizes, [len(numbers)] if sizes is None else list(sizes))
    found = []
    for i in np.flatnonzero(known.periodic & fits).tolist():
        row = known.numbers[known.offsets[i] : known.offsets[i + 1]]
        scale = len(row) / len(numbers)
        if stoichiometry(row) == tuple(scale * k for k in wanted) and set(row.tolist()) != elements:
            found.append(i)
    return np.array(found, dtype=np.int64)


def templates(
    known: AtomicDataset,
    numbers: np.ndarray,
    sizes: Collection[int] | None = None,
    *,
    space_group: int | None = None,
) -> Iterator[Template]:
    """Put the elements of a composition into known crystals, the likeliest structure first.

    A crystal is likely if its elements are near, and if other crystals of near elements have as
    many atoms and the same space group. Each structure type comes once; the same are what the one
    matcher finds equal (:mod:`adit_model.quality.matching`).

    Parameters
    ----------
    known, numbers, sizes
        As of :func:`fitting`.
    space_group : int, optional
        Number of the one that is wanted.
    """
    from adit_model.quality.matching import structure_matcher

    places = fitting(known, numbers, sizes)
    if space_group is not None:
        places = places[known.space_groups[places] == space_group]
    rows = [known.numbers[known.offsets[i] : known.offsets[i + 1]].astype(int) for i in places]
    swaps = [_exchange(row, np.asarray(numbers)) for row in rows]
    apart = np.array([distance for distance, _ in swaps])
    votes: dict[tuple[int, int], float] = {}
    kinds = [(int(known.sizes[i]), int(known.space_groups[i])) for i in places]
    for kind, vote in zip(kinds, np.exp(-2 * STEEPNESS * apart), strict=True):
        votes[kind] = votes.get(kind, 0.0) + float(vote)
    score = np.log([votes[kind] + 1e-300 for kind in kinds]) / 2 - STEEPNESS * apart
    matcher = structure_matcher("pymatgen")
    kept: dict[tuple[int, int], list] = {kind: [] for kind in kinds}
    for k in np.argsort(-score, kind="stable").tolist():
        source, (distance, exchange) = known[int(places[k])], swaps[k]
        swapped = np.array([exchange[z] for z in source.numbers.tolist()])
        structure = AtomicSystem(swapped, source.positions, source.cell).to_structure()
        if any(matcher.fit(structure, other) for other in kept[kinds[k]]):
            continue
        kept[kinds[k]].append(structure)
        name = str(known.ids[places[k]])
        info = {"source": f"structure type of {source.formula} ({name})"}
        system = scaled(AtomicSystem(swapped, source.positions, source.cell, info))
        yield Template(name, source.formula, distance, system)


def _exchange(old: np.ndarray, new: np.ndarray) -> tuple[float, dict[int, int]]:
    """Assign elements of equal amounts so that they differ least; the difference, and how."""
    from scipy.optimize import linear_sum_assignment

    scale = len(old) / len(new)
    before, after = Counter(old.tolist()), Counter(new.tolist())
    rows, columns = list(before), list(after)
    place = mendeleev_numbers()
    apart = np.abs(place[rows][:, None] - place[columns][None]).astype(float)
    amounts = np.array([before[z] for z in rows])
    fits = amounts[:, None] == np.array([after[z] for z in columns])[None] * scale
    cost = np.where(fits, apart, 1e9)
    chosen = linear_sum_assignment(cost)
    return float(cost[chosen].sum()), {rows[i]: columns[k] for i, k in zip(*chosen, strict=True)}


@functools.cache
def mendeleev_numbers() -> np.ndarray:
    """Mendeleev number of each element as pymatgen has it, shape (119,).

    Neighbours in this order (Villars et al., J. Alloys Compd. 367, 167, 2004) replace each other.
    """
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numbers = [0.0, *(float(Element.from_Z(z).mendeleev_no or np.nan) for z in range(1, 119))]
    return np.nan_to_num(np.array(numbers), nan=200.0)  # a few superheavy ones have none


def scaled(system: AtomicSystem) -> AtomicSystem:
    """Scale a crystal to the volume that pymatgen predicts from its elements' bond lengths.

    Where it predicts none, the crystal is as it was.
    """
    from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor

    assert system.cell is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements without parameters
        try:
            volume = DLSVolumePredictor().predict(system.to_structure())
        except (ValueError, TypeError, AttributeError):
            return system
    factor = float(np.cbrt(volume / system.volume))
    return AtomicSystem(
        system.numbers, system.positions * factor, system.cell * factor, system.info
    )
