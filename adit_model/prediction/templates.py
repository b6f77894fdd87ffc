"""Structure types of known crystals as templates: the elements asked for in place of their own.

This is how structures are guessed without a generator (Kusaba et al., Comput. Mater. Sci. 211,
111496, 2022), and what one has to be compared with.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from adit_model.data.dataset import AtomicDataset


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
        Mean difference of the elements' Mendeleev numbers, over the atoms.
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


def fitting(known: AtomicDataset, numbers: np.ndarray, *, any_units: bool = False) -> np.ndarray:
    """Find crystals with the stoichiometry of a composition, but not the composition itself.

    Parameters
    ----------
    known : AtomicDataset
        Known crystals.
    numbers : numpy.ndarray
        Atomic numbers of the composition.
    any_units : bool
        Whether cells of other numbers of formula units fit, too.

    Returns
    -------
    numpy.ndarray
        Their places, ascending.
    """
    wanted, elements = stoichiometry(numbers), set(np.asarray(numbers).tolist())
    unit = len(numbers) // np.gcd.reduce(wanted)
    sizes = known.sizes % unit == 0 if any_units else known.sizes == len(numbers)
    found = []
    for i in np.flatnonzero(known.periodic & sizes).tolist():
        row = known.numbers[known.offsets[i] : known.offsets[i + 1]]
        scale = len(row) / len(numbers)
        if stoichiometry(row) == tuple(scale * k for k in wanted) and set(row.tolist()) != elements:
            found.append(i)
    return np.array(found, dtype=np.int64)


def templates(
    known: AtomicDataset, numbers: np.ndarray, *, any_units: bool = False
) -> Iterator[Template]:
    """Put the elements of a composition into known crystals, those of the nearest elements first.

    Each structure type comes once, as the nearest crystal has it; the same are what the one matcher
    finds equal (:mod:`adit_model.quality.matching`).

    Parameters
    ----------
    known, numbers, any_units
        As of :func:`fitting`.
    """
    from adit_model.quality.matching import structure_matcher

    found = []
    for i in fitting(known, numbers, any_units=any_units).tolist():
        row = known.numbers[known.offsets[i] : known.offsets[i + 1]].astype(np.int64)
        distance, exchange = _exchange(row, np.asarray(numbers))
        found.append((distance, i, exchange))
    matcher = structure_matcher("pymatgen")
    kept: list = []
    for distance, i, exchange in sorted(found, key=lambda item: item[:2]):
        source = known[i]
        swapped = np.array([exchange[z] for z in source.numbers.tolist()])
        system = scaled(AtomicSystem(swapped, source.positions, source.cell))
        structure = system.to_structure()
        if any(matcher.fit(structure, other) for other in kept):
            continue
        kept.append(structure)
        name = str(known.ids[i])
        info = {"source": f"structure type of {source.formula} ({name})"}
        system = AtomicSystem(system.numbers, system.positions, system.cell, info)
        yield Template(name, source.formula, distance, system)


def _exchange(old: np.ndarray, new: np.ndarray) -> tuple[float, dict[int, int]]:
    """Assign elements of equal amounts so that they differ least; the mean difference, and how."""
    from scipy.optimize import linear_sum_assignment

    scale = len(old) // len(new) if len(old) >= len(new) else len(old) / len(new)
    before, after = Counter(old.tolist()), Counter(new.tolist())
    rows, columns = list(before), list(after)
    place = mendeleev_numbers()
    apart = np.abs(place[rows][:, None] - place[columns][None]).astype(float)
    amounts = np.array([before[z] for z in rows])
    fits = amounts[:, None] == np.array([after[z] for z in columns])[None] * scale
    cost = np.where(fits, apart * amounts[:, None], 1e9)
    chosen = linear_sum_assignment(cost)
    total = float(cost[chosen].sum()) / len(old)
    return total, {rows[i]: columns[k] for i, k in zip(*chosen, strict=True)}


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
