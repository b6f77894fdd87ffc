"""Compositions of molecules, as the denoiser is told of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
from ase.formula import Formula

HYDROGEN_LAST = 1000  # sorts after every atomic number


def sort_composition(numbers: np.ndarray) -> np.ndarray:
    """Sort atomic numbers, hydrogen last, as molecules are mostly written; shape (N,)."""
    return told_composition(numbers, np.array([len(numbers)]), np.array([False]))


def told_composition(numbers: np.ndarray, sizes: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """Sort the atomic numbers of each molecule, hydrogen last.

    Parameters
    ----------
    numbers : numpy.ndarray
        Of all atoms, shape (A,).
    sizes, periodic : numpy.ndarray
        Atoms of each system, and which are crystals, shape (S,).

    Returns
    -------
    numpy.ndarray
        Shape (A,), int64; 0 in crystals, which the denoiser is not told of.
    """
    system = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((np.where(numbers == 1, HYDROGEN_LAST, numbers), system))
    return np.where(np.repeat(periodic, sizes), 0, numbers[order]).astype(np.int64)


def composition_histogram(
    numbers: np.ndarray, sizes: np.ndarray, periodic: np.ndarray
) -> dict[str, int]:
    """Count the molecules of each Hill formula; parameters as of :func:`told_composition`."""
    told = told_composition(numbers, sizes, periodic)
    parts = np.split(told, np.cumsum(sizes)[:-1])
    counts = Counter(
        part.tobytes() for part, crystal in zip(parts, periodic, strict=True) if not crystal
    )
    formulas = {_formula(np.frombuffer(key, np.int64)): n for key, n in counts.items()}
    return dict(sorted(formulas.items()))


def _formula(numbers: np.ndarray) -> str:
    from ase.data import chemical_symbols

    return Formula.from_list([chemical_symbols[z] for z in numbers]).format("hill")


class CompositionTable:
    """Compositions to draw from, by atom count.

    Parameters
    ----------
    histogram : mapping
        Number of molecules of each formula.
    """

    def __init__(self, histogram: Mapping[str, int]) -> None:
        from ase.data import atomic_numbers

        self._rows: dict[int, list[np.ndarray]] = defaultdict(list)
        self._weights: dict[int, list[int]] = defaultdict(list)
        for formula, number in histogram.items():
            counts = Formula(formula).count()
            atoms = np.repeat([atomic_numbers[s] for s in counts], list(counts.values()))
            self._rows[len(atoms)].append(sort_composition(atoms))
            self._weights[len(atoms)].append(number)

    def draw(self, num_atoms: int, generator: np.random.Generator) -> np.ndarray | None:
        """Draw atomic numbers, shape (num_atoms,); None if no molecule has so many atoms."""
        rows = self._rows.get(num_atoms)
        if rows is None:
            return None
        weights = np.array(self._weights[num_atoms], dtype=np.float64)
        return rows[int(generator.choice(len(rows), p=weights / weights.sum()))]
