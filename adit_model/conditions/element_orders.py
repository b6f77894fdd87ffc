"""Elements of a molecule's atoms, in order, as the denoiser is told of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import groupby

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.symbols import string2symbols


def told_elements(numbers: np.ndarray, sizes: np.ndarray, periodic: np.ndarray) -> np.ndarray:
    """Atomic numbers of molecules, and 0 in crystals, which the denoiser is not told of.

    Parameters
    ----------
    numbers : numpy.ndarray
        Of all atoms, shape (A,).
    sizes, periodic : numpy.ndarray
        Atoms of each system, and which are crystals, shape (S,).

    Returns
    -------
    numpy.ndarray
        Shape (A,), int64.
    """
    return np.where(np.repeat(periodic, sizes), 0, numbers).astype(np.int64)


def element_order_histogram(
    numbers: np.ndarray, sizes: np.ndarray, periodic: np.ndarray
) -> dict[str, int]:
    """Count the molecules of each order of elements; parameters as of :func:`told_elements`.

    Returns
    -------
    dict
        Number of molecules by their symbols in order, ``{"C2OH6": 2, ...}`` of two ethanols with
        their hydrogens last.
    """
    parts = np.split(numbers.astype(np.int64), np.cumsum(sizes)[:-1])
    counts = Counter(
        part.tobytes() for part, crystal in zip(parts, periodic, strict=True) if not crystal
    )
    return dict(sorted((_symbols(np.frombuffer(k, np.int64)), n) for k, n in counts.items()))


def _symbols(numbers: np.ndarray) -> str:
    runs = ((chemical_symbols[z], len(list(run))) for z, run in groupby(numbers.tolist()))
    return "".join(symbol + (str(n) if n > 1 else "") for symbol, n in runs)


class ElementOrders:
    """Orders of elements to draw from, by atom count.

    Parameters
    ----------
    histogram : mapping
        As of :func:`element_order_histogram`.
    """

    def __init__(self, histogram: Mapping[str, int]) -> None:
        self._rows: dict[int, list[np.ndarray]] = defaultdict(list)
        self._weights: dict[int, list[int]] = defaultdict(list)
        for symbols, number in histogram.items():
            row = np.array([atomic_numbers[s] for s in string2symbols(symbols)])
            self._rows[len(row)].append(row)
            self._weights[len(row)].append(number)

    def draw(self, num_atoms: int, generator: np.random.Generator) -> np.ndarray | None:
        """Draw atomic numbers, shape (num_atoms,); None if no molecule has so many atoms."""
        rows = self._rows.get(num_atoms)
        if rows is None:
            return None
        weights = np.array(self._weights[num_atoms], dtype=np.float64)
        return rows[int(generator.choice(len(rows), p=weights / weights.sum()))]
