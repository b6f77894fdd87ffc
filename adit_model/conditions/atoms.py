"""Number of atoms, elements and formula: what is asked, what the denoiser is told, decoding."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula as AseFormula

from adit_model.conditions.counts import Counts, allows, read_counts, runs, write_counts
from adit_model.conditions.kind import Asked, Kind, Knows
from adit_model.formulas import chemical_formula
from adit_model.systems import MOLECULE, AtomicSystem

SYMBOLS = frozenset(chemical_symbols[1:])


def check_symbol(symbol: str) -> str:
    """Return the symbol of an element.

    Raises
    ------
    ValueError
        If there is no such element.
    """
    if symbol not in SYMBOLS:
        close = symbol.capitalize()
        hint = f"did you mean {close}?" if close in SYMBOLS else "symbols are H, He, Li, ... Og"
        raise ValueError(f"{symbol!r} is no element: {hint}")
    return symbol


@lru_cache(maxsize=4096)
def composition_of(formula: str) -> dict[str, int]:
    """Atoms of each element in a formula; brackets may be used.

    Metals come first, or in carbon with hydrogen these two, whatever the order of the text:
    random numbers are dealt out in this order.

    Raises
    ------
    ValueError
        If it is no formula or an element is unknown.
    """
    text = "".join(formula.split())
    if not re.fullmatch(r"[A-Za-z0-9()]+", text):
        raise ValueError(f"{formula!r} is no formula: write it as LiMn3O4 or Ca(OH)2")
    for symbol in re.findall(r"[A-Z][a-z]?|[a-z]+", text):
        check_symbol(symbol)
    try:
        read = AseFormula(text)
        organic = {"C", "H"} <= read.count().keys()
        order = AseFormula(f"{read:hill}" if organic else f"{read:metal}").count()
        count = {**order, **read.count()}
    except ValueError as error:
        raise ValueError(f"{formula!r} is no formula: write it as LiMn3O4 or Ca(OH)2") from error
    if not count or min(count.values()) < 1:
        raise ValueError(f"{formula!r} is no formula: every element needs at least one atom")
    return count


class NumAtoms(Kind):
    """Number of atoms: exact."""

    name = "num_atoms"
    keys = ("atoms", "num_atoms")

    def read(self, value: Any) -> Counts | None:
        """See :func:`adit_model.conditions.counts.read_counts`."""
        return read_counts(value, "num_atoms")

    def write(self, value: Counts) -> list[str]:
        """``["atoms=4-12"]``."""
        return [f"{self.keys[0]}={write_counts(value)}"]

    def holds(self, value: Counts, system: AtomicSystem) -> bool:
        """Whether the system has so many."""
        return allows(value, len(system))

    def refusal(self, condition: Asked, domain: str, known: Knows) -> str | None:
        """Gaps of the histogram are gaps; of a range, what occurs is drawn."""
        have = known.sizes.get(domain, {})
        asked = condition.num_atoms
        listed = {asked} if isinstance(asked, int) else asked
        missing = sorted(set(listed) - set(have)) if isinstance(listed, set | frozenset) else []
        if missing:
            return f"no training {domain} has {runs(missing)} atoms, they have {runs(have)}"
        if not any(allows(asked, k) for k in have):
            assert asked is not None
            return f"no training {domain} has {write_counts(asked)} atoms, they have {runs(have)}"
        return None


class Elements(Kind):
    """Chemical system: these elements and no others, always; all of them, if it can be."""

    name = "elements"
    keys = ("elements",)

    def read(self, value: Any) -> tuple[str, ...] | None:
        """``"Li-P-S"`` or a sequence of symbols, in alphabetical order."""
        if value is None:
            return None
        parts = re.split(r"\s*-\s*", value.strip()) if isinstance(value, str) else list(value)
        if not parts:
            raise ValueError("elements must name at least one element")
        return tuple(sorted({check_symbol(str(part)) for part in parts}))

    def write(self, value: tuple[str, ...]) -> list[str]:
        """``["Li-P-S"]``."""
        return ["-".join(value)]

    def holds(self, value: tuple[str, ...], system: AtomicSystem) -> bool:
        """Whether the system holds all of them and no others."""
        return {chemical_symbols[z] for z in system.numbers} == set(value)

    def contradiction(self, condition: Asked) -> str | None:
        """Compare with the formula and the largest number of atoms."""
        elements, asked = condition.elements, condition.num_atoms
        if elements is None:
            return None
        if condition.formula is not None:
            found = set(composition_of(condition.formula))
            if found != set(elements):
                return (
                    f"{condition.formula} holds {'-'.join(sorted(found))}, not "
                    f"{'-'.join(elements)}: leave the elements away, the formula says them"
                )
        most = asked if isinstance(asked, int) else max(asked) if asked is not None else None
        if most is not None and most < len(elements):
            return f"{most} atoms cannot hold {len(elements)} elements: allow more atoms"
        return None

    def refusal(self, condition: Asked, domain: str, known: Knows) -> str | None:
        """Elements that no training structure of the domain holds."""
        elements = condition.elements
        if elements is None:
            return None
        return _unknown_elements(elements, domain, known)


class Formula(Kind):
    """Composition: exact, always; with ``formula_units``, of so many formula units."""

    name = "formula"
    keys = ("formula",)

    def read(self, value: Any) -> str | None:
        """``"LiMn3O4"`` or ``{"Li": 1, "Mn": 3, "O": 4}``, in one order of the elements."""
        if value is None:
            return None
        if isinstance(value, Mapping):
            for symbol, number in value.items():
                check_symbol(symbol)
                if isinstance(number, bool) or int(number) != number or number < 1:
                    raise ValueError(f"a formula needs whole numbers of atoms, got {value!r}")
            return chemical_formula({k: int(v) for k, v in value.items()})
        return chemical_formula(composition_of(str(value)))

    def write(self, value: str) -> list[str]:
        """``["LiMn3O4"]``; a bare symbol would be read as a chemical system."""
        return [f"formula={value}" if value in SYMBOLS else value]

    def holds(self, value: str, system: AtomicSystem) -> bool:
        """Whether the system is a whole number of formula units."""
        return _units_in(value, system) is not None

    def contradiction(self, condition: Asked) -> str | None:
        """Compare with the number of atoms."""
        formula = condition.formula
        if formula is None:
            if condition.formula_units is not None:
                return "units need a formula: write LiMn3O4, units=2"
            return None
        if condition.num_atoms is None:
            return None
        size, units = sum(composition_of(formula).values()), condition.formula_units
        asked = condition.num_atoms
        top = asked if isinstance(asked, int) else max(asked)
        possible = [
            k
            for k in range(1, top // size + 1)
            if allows(units, k) and allows(condition.num_atoms, k * size)
        ]
        if possible:
            return None
        unit = f"{formula} has {size} atoms a unit"
        if units is not None:
            unit += f" and {write_counts(units)} units were asked for"
        return (
            f"{unit}, which {write_counts(asked)} atoms are not: leave the number of atoms "
            "away, it follows from the formula"
        )

    def refusal(self, condition: Asked, domain: str, known: Knows) -> str | None:
        """Unknown elements, and numbers of atoms that no training structure has."""
        if condition.formula is None:
            return None
        composition = composition_of(condition.formula)
        size, units = sum(composition.values()), condition.formula_units
        if domain == MOLECULE and not allows(units, 1):
            return "a molecule is one formula unit: leave the units away"
        reason = _unknown_elements(composition, domain, known)
        if reason is not None:
            return reason
        have = known.sizes.get(domain, {})
        if isinstance(units, int) or domain == MOLECULE:
            wanted = size * (units if isinstance(units, int) else 1)
            if wanted not in have:
                return f"no training {domain} has {wanted} atoms, they have {runs(have)}"
        if not any(k % size == 0 and allows(units, k // size) for k in have):
            return (
                f"{condition.formula} has {size} atoms a unit, and no training {domain} has a "
                f"number of atoms that fits: they have {runs(have)}"
            )
        return None


class FormulaUnits(Kind):
    """Formula units in the cell: exact."""

    name = "formula_units"
    keys = ("units", "formula_units")

    def read(self, value: Any) -> Counts | None:
        """See :func:`adit_model.conditions.counts.read_counts`."""
        return read_counts(value, "units")

    def write(self, value: Counts) -> list[str]:
        """``["units=2"]``."""
        return [f"{self.keys[0]}={write_counts(value)}"]

    def holds(self, value: Counts, system: AtomicSystem) -> bool | None:
        """Not told by the structure alone: the formula says what a unit is."""
        return None


def _units_in(formula: str, system: AtomicSystem) -> int | None:
    """Count the formula units that a system is, None if it is no whole number of them."""
    unit = composition_of(formula)
    found = Counter(chemical_symbols[z] for z in system.numbers)
    units = len(system) // sum(unit.values())
    return units if units and dict(found) == {k: units * v for k, v in unit.items()} else None


def _unknown_elements(symbols: Collection[str], domain: str, known: Knows) -> str | None:
    have = known.elements.get(domain, ())
    unknown = sorted(s for s in set(symbols) if atomic_numbers[s] not in have)
    if not unknown:
        return None
    listed = [chemical_symbols[z] for z in sorted(have)]
    text = "-".join(listed)
    if len(listed) > 12 and listed == chemical_symbols[1 : len(listed) + 1]:
        text = f"{listed[0]} to {listed[-1]}"
    return f"no training {domain} holds {'-'.join(unknown)}, they hold {text}"


# what the denoiser is told


def element_order_histogram(
    numbers: np.ndarray, sizes: np.ndarray, periodic: np.ndarray
) -> dict[str, int]:
    """Count the molecules of each order of elements.

    Parameters
    ----------
    numbers : numpy.ndarray
        Of all atoms, shape (A,).
    sizes, periodic : numpy.ndarray
        Atoms of each system, and which are crystals, shape (S,).

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
    found = ((chemical_symbols[z], len(list(run))) for z, run in groupby(numbers.tolist()))
    return "".join(symbol + (str(n) if n > 1 else "") for symbol, n in found)


MOST_ATOMS = 100_000  # of a system that a file can name; guards the memory of its reader
_RUN = re.compile(r"([A-Z][a-z]?)(\d*)")


class ElementOrders:
    """Orders of elements to draw from, by number of atoms.

    Parameters
    ----------
    histogram : mapping
        As of :func:`element_order_histogram`.
    """

    def __init__(self, histogram: Mapping[str, int]) -> None:
        self._rows: dict[int, list[np.ndarray]] = defaultdict(list)
        self._weights: dict[int, list[int]] = defaultdict(list)
        self._kept: dict[Any, ElementOrders] = {}
        self.histogram = histogram
        found: set[str] = set()
        for symbols, number in histogram.items():
            pieces = _RUN.findall(symbols)
            repeats = [int(k or 1) for _, k in pieces]
            if not pieces or sum(repeats) > MOST_ATOMS or number < 1:
                raise ValueError(f"{number} molecules {symbols[:40]!r} are no order of elements")
            found.update(symbol for symbol, _ in pieces)
            row = np.repeat([atomic_numbers[symbol] for symbol, _ in pieces], repeats)
            self._rows[len(row)].append(row)
            self._weights[len(row)].append(number)
        self.elements = frozenset(found)

    def draw(self, num_atoms: int, generator: np.random.Generator) -> np.ndarray | None:
        """Draw atomic numbers, shape (num_atoms,); None if no molecule has so many atoms."""
        rows = self._rows.get(num_atoms)
        if rows is None:
            return None
        weights = np.array(self._weights[num_atoms], dtype=np.float64)
        return rows[int(generator.choice(len(rows), p=weights / weights.sum()))]

    @property
    def counts(self) -> dict[int, int]:
        """Molecules of each number of atoms."""
        return {k: sum(weights) for k, weights in sorted(self._weights.items())}

    def of_elements(self, symbols: Collection[str]) -> ElementOrders:
        """Those that hold all of the elements and no others; if there are none, no others."""
        wanted = frozenset(symbols)
        if wanted not in self._kept:
            held = {k: frozenset(s for s, _ in _RUN.findall(k)) for k in self.histogram}
            kept = {k: n for k, n in self.histogram.items() if held[k] == wanted}
            kept = kept or {k: n for k, n in self.histogram.items() if held[k] <= wanted}
            self._kept[wanted] = ElementOrders(kept)
        return self._kept[wanted]

    def of_formula(self, formula: str) -> ElementOrders:
        """Those of one composition."""
        if formula not in self._kept:
            wanted = composition_of(formula)
            size = sum(wanted.values())
            numbers = sorted(atomic_numbers[s] for s, k in wanted.items() for _ in range(k))
            kept = {
                _symbols(row): n
                for row, n in zip(
                    self._rows.get(size, []), self._weights.get(size, []), strict=True
                )
                if sorted(row.tolist()) == numbers
            }
            self._kept[formula] = ElementOrders(kept)
        return self._kept[formula]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the ``numbers`` (A,), ``sizes`` (R,) and ``counts`` (R,) of R orders, packed.

        ``numbers`` are the atomic numbers of one order after the other (uint8), ``sizes`` their
        lengths and ``counts`` their molecules (int32), by size.
        """
        sizes = sorted(self._rows)
        rows = [row for size in sizes for row in self._rows[size]]
        counts = [number for size in sizes for number in self._weights[size]]
        return {
            "numbers": np.concatenate(rows or [np.zeros(0)]).astype(np.uint8),
            "sizes": np.array([len(row) for row in rows], np.int32),
            "counts": np.array(counts, np.int32),
        }

    @classmethod
    def from_arrays(
        cls, numbers: np.ndarray, sizes: np.ndarray, counts: np.ndarray
    ) -> ElementOrders:
        """Read what :meth:`to_arrays` gives.

        Raises
        ------
        ValueError
            If the arrays do not fit each other.
        """
        fit = numbers.ndim == sizes.ndim == counts.ndim == 1 and len(sizes) == len(counts)
        if not fit or (sizes < 1).any() or sizes.sum(dtype=np.int64) != len(numbers):
            raise ValueError("the arrays of the orders of elements do not fit each other")
        if len(numbers) and not 1 <= numbers.min() <= numbers.max() < len(chemical_symbols):
            raise ValueError("an order of elements holds an atomic number that does not exist")
        rows = np.split(numbers, np.cumsum(sizes)[:-1])
        return cls({_symbols(r): int(n) for r, n in zip(rows, counts, strict=True)})


def shuffled_order(formula: str, generator: np.random.Generator) -> np.ndarray:
    """Atomic numbers of a formula: hydrogens last, the others in random order, shape (N,)."""
    composition = composition_of(formula)
    heavy = [atomic_numbers[s] for s, k in composition.items() for _ in range(k) if s != "H"]
    return np.array([*generator.permutation(heavy), *[1] * composition.get("H", 0)], np.int64)


# decoding


@dataclass(frozen=True, eq=False)
class ElementChoice:
    """How the elements of one decoded structure are chosen.

    Parameters
    ----------
    numbers : numpy.ndarray or None
        Atomic number that each atom has, 0 where it is free, shape (N,); None: all are free.
    composition : numpy.ndarray or None
        Atomic numbers of all atoms together in any order, shape (N,): they are assigned so that
        the sum of the log-probabilities is largest.
    allowed : numpy.ndarray or None
        Atomic numbers that free atoms may have; each occurs at least once.
    orbits : numpy.ndarray or None
        Atoms with equal numbers get one element, shape (N,); by default each has its own.
    even : numpy.ndarray or None
        The atomic numbers get an even sum, as those of a neutral molecule without an unpaired
        electron have, by changing one of them to one of these. It acts where neither composition
        nor orbits are given.
    """

    numbers: np.ndarray | None = None
    composition: np.ndarray | None = None
    allowed: np.ndarray | None = None
    orbits: np.ndarray | None = None
    even: np.ndarray | None = None

    def choose(self, logits: np.ndarray) -> np.ndarray:
        """Choose the elements whose log-probabilities have the largest sum.

        Parameters
        ----------
        logits : numpy.ndarray
            Shape (N, E), column 0 is no element.

        Returns
        -------
        numpy.ndarray
            Atomic numbers, shape (N,).

        Raises
        ------
        ValueError
            If the orbits cannot make up the composition, or hold all allowed elements.
        """
        logits = logits.astype(np.float64)
        logits[:, 0] = -np.inf
        scores = np.nan_to_num(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        scores[:, 0] = -np.inf
        given = np.zeros(len(scores), np.int64) if self.numbers is None else self.numbers
        result, free = given.astype(np.int64), np.flatnonzero(given == 0)
        if not len(free):
            return result
        group = (
            np.arange(len(free))
            if self.orbits is None
            else np.unique(self.orbits[free], return_inverse=True)[1]
        )
        sizes = np.bincount(group)
        together = np.zeros((len(sizes), scores.shape[1]))
        np.add.at(together, group, scores[free])
        if self.composition is not None:
            rest = Counter(self.composition.tolist())
            rest.subtract(given[given > 0].tolist())
            chosen = _composed(together, sizes, {z: k for z, k in rest.items() if k})
        elif self.allowed is not None:
            chosen = _all_of(together, self.allowed, np.setdiff1d(self.allowed, given))
        else:
            chosen = together.argmax(axis=1)
        result[free] = chosen[group]
        if self.even is None or self.composition is not None or self.orbits is not None:
            return result
        return self._evened(result, free, scores, self.even) if result.sum() % 2 else result

    def _evened(
        self, numbers: np.ndarray, free: np.ndarray, scores: np.ndarray, among: np.ndarray
    ) -> np.ndarray:
        """Change the element of one atom, where that costs least and keeps all that must occur."""
        cost = scores[free, numbers[free]][:, None] - scores[free]  # (F, E)
        elements = np.arange(scores.shape[1])
        cost[(elements - numbers[free][:, None]) % 2 == 0] = np.inf
        cost[:, ~np.isin(elements, among)] = np.inf
        if self.allowed is not None:
            cost[:, ~np.isin(elements, self.allowed)] = np.inf
            amounts = np.bincount(numbers, minlength=scores.shape[1])
            needed = np.isin(numbers[free], self.allowed) & (amounts[numbers[free]] == 1)
            cost[needed] = np.inf
        if not np.isfinite(cost).any():
            return numbers
        atom, element = np.unravel_index(cost.argmin(), cost.shape)
        numbers = numbers.copy()
        numbers[free[atom]] = element
        return numbers


def _composed(scores: np.ndarray, sizes: np.ndarray, count: Mapping[int, int]) -> np.ndarray:
    """Assign elements to groups of atoms so that they make up a composition, shape (G,)."""
    from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp

    if (sizes == 1).all():
        slots = np.array(sorted(z for z, k in count.items() for _ in range(k)))
        rows, columns = linear_sum_assignment(scores[:, slots], maximize=True)
        return slots[columns[rows.argsort()]]
    elements = np.array(sorted(count))
    groups, kinds = len(sizes), len(elements)
    one = np.kron(np.eye(groups), np.ones(kinds))  # each group has one element
    amounts = np.kron(sizes, np.eye(kinds))  # (kinds, groups * kinds)
    wanted = [count[z] for z in elements.tolist()]
    found = milp(
        -scores[:, elements].reshape(-1),
        integrality=np.ones(groups * kinds),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one, 1, 1), LinearConstraint(amounts, wanted, wanted)],
    )
    if found.x is None:
        text = chemical_formula({chemical_symbols[z]: k for z, k in count.items()})
        raise ValueError(f"orbits of {sizes.tolist()} atoms cannot make up {text}")
    return elements[found.x.reshape(groups, kinds).argmax(axis=1)]


def _all_of(scores: np.ndarray, allowed: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Choose an allowed element for each group of atoms, each needed one for some, shape (G,)."""
    from scipy.optimize import linear_sum_assignment

    best = allowed[scores[:, allowed].argmax(axis=1)]
    if not set(needed.tolist()) - set(best.tolist()):
        return best
    if len(needed) > len(scores):
        raise ValueError(f"{len(scores)} orbits cannot hold {len(needed)} more elements")
    loss = scores[np.arange(len(best)), best][:, None] - scores[:, needed]
    rows, columns = linear_sum_assignment(loss)
    best[rows] = needed[columns]
    return best
