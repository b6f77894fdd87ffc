"""Which symmetry is imposed on a crystal: that of a known one, or one that is nearly there.

As in DiffCSP++ (Jiao et al. 2024, arXiv 2402.03992), a generated crystal takes the space group and
the Wyckoff positions of a known one; its elements and cell are new, and its free coordinates, which
are the known ones at first, follow. Nothing is learned for it: each prediction of the flow is
projected onto the structures of that symmetry. A crystal without such a template can have the
symmetry imposed that its own prediction nearly has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from adit_model.canonical import electronegativity_ranks
from adit_model.conditions.atoms import composition_of
from adit_model.conditions.condition import Condition
from adit_model.conditions.crystal import SYMMETRY_TOLERANCE
from adit_model.data.phases import known_phases
from adit_model.systems import AtomicSystem

FOUND_WITHIN = (0.9, 0.6, 0.3)  # angstrom; the first tolerance at which spglib finds one
SAME_FORMULA = 20.0  # how much likelier a template of the same anonymous formula is drawn


@dataclass(frozen=True, eq=False)
class Template:
    """A crystal whose symmetry is imposed on others, in its own cell and order of atoms.

    Parameters
    ----------
    id : str
        Name of the crystal.
    space_group : int
        Number.
    numbers : numpy.ndarray
        Its atomic numbers, shape (N,).
    frac_coords : numpy.ndarray
        Exactly symmetric, shape (N, 3).
    rotations : numpy.ndarray
        Of each operation in fractional coordinates (columns), integers, shape (G, 3, 3).
    images : numpy.ndarray
        Atom that each operation brings an atom to, shape (G, N).
    """

    id: str
    space_group: int
    numbers: np.ndarray
    frac_coords: np.ndarray
    rotations: np.ndarray
    images: np.ndarray

    @property
    def orbits(self) -> np.ndarray:
        """Orbit of each atom, from 0, shape (N,)."""
        return np.unique(self.images.min(axis=0), return_inverse=True)[1]

    def projector(self) -> np.ndarray:
        """Average displacements over the operations, shape (N, 3, N, 3).

        It is the projection on the displacements that break no symmetry.
        """
        atoms = np.arange(len(self.numbers))
        result = np.zeros((len(atoms), 3, len(atoms), 3))
        for rotation, image in zip(self.rotations, self.images, strict=True):
            result[image, :, atoms] += rotation / len(self.rotations)
        return result

    def sharer(self) -> np.ndarray:
        """Make independent displacements of unit variance symmetric, shape (N, 3, N, 3).

        What the site symmetry of an atom leaves free becomes common to its orbit, at the same
        variance; the rest stays independent.
        """
        atoms, orbits = np.arange(len(self.numbers)), self.orbits
        free = [self.rotations[self.images[:, i] == i].mean(axis=0) for i in atoms]
        result = self.projector() * np.sqrt(np.bincount(orbits)[orbits])[:, None, None, None]
        result[atoms, :, atoms] += np.eye(3) - np.array(free)
        return result


def template_of(system: AtomicSystem, tolerance: float = SYMMETRY_TOLERANCE) -> Template | None:
    """Find the symmetry of a crystal with spglib, and make it exact.

    Parameters
    ----------
    system : AtomicSystem
        A crystal.
    tolerance : float
        In angstrom.

    Returns
    -------
    Template or None
        None where spglib finds no operations that permute the atoms.
    """
    import spglib

    assert system.cell is not None
    frac: np.ndarray = system.frac_coords
    cell: Any = (system.cell, frac, system.numbers)
    try:
        found = spglib.get_symmetry_dataset(cell, tolerance)
    except spglib.SpglibError:
        return None
    if found is None:
        return None
    rotations, translations = np.asarray(found.rotations), np.asarray(found.translations)
    moved = np.einsum("gij,nj->gni", rotations, frac) + translations[:, None]
    apart = moved[:, :, None] - frac  # (G, N, N, 3)
    apart = apart - np.rint(apart)
    distances = np.linalg.norm(apart @ system.cell, axis=-1)
    distances[:, system.numbers[:, None] != system.numbers] = np.inf
    images = distances.argmin(axis=2)
    if (np.sort(images, axis=1) != np.arange(len(frac))).any():
        return None
    atoms = np.arange(len(frac))
    mean = np.zeros_like(frac)
    for operation, image in zip(apart, images, strict=True):
        mean[image] += operation[atoms, image] / len(images)
    return Template(
        str(system.info.get("id", "")),
        int(found.number),
        system.numbers,
        frac + mean,
        rotations.astype(np.int64),
        images,
    )


def nearby_template(system: AtomicSystem) -> Template | None:
    """Find the symmetry that a crystal nearly has, by :data:`FOUND_WITHIN`; None without any."""
    found = (template_of(system, tolerance) for tolerance in FOUND_WITHIN)
    return next((t for t in found if t is not None and t.space_group > 1), None)


# which known crystal


@lru_cache(maxsize=4096)
def _known_template(place: int) -> Template | None:
    return template_of(known_phases().system(place))


class Templates:
    """Known crystals of the training split, to draw templates from."""

    def __init__(self) -> None:
        known = known_phases()
        self.places = known.select("train")
        self.groups = known.space_groups[self.places]
        self.sizes = known.num_atoms[self.places]
        self._barren: set[tuple[Condition, frozenset[int]]] = set()

    @cached_property
    def anonymous(self) -> list[list[int]]:
        """Amounts in the reduced formula of each, ascending."""
        known = known_phases()
        found = []
        for place in self.places:
            atoms = known.numbers[known.offsets[place] : known.offsets[place + 1]]
            counts = np.unique(atoms, return_counts=True)[1]
            found.append(sorted((counts // np.gcd.reduce(counts)).tolist()))
        return found

    def draw(
        self, condition: Condition, counts: Iterable[int], generator: np.random.Generator
    ) -> tuple[Template, np.ndarray | None] | None:
        """Draw a known crystal that fits a condition, each equally likely.

        Where a formula is asked for, those of the same anonymous formula are 20 times as likely.

        Parameters
        ----------
        condition : Condition
            Of a crystal, without cell and fixed atoms.
        counts : iterable of int
            Allowed numbers of atoms.
        generator : numpy.random.Generator
            Of the draw.

        Returns
        -------
        tuple or None
            The template, and of a formula the atomic numbers of its atoms, shape (N,); None if no
            known crystal fits.
        """
        counts = frozenset(counts)
        if (condition, counts) in self._barren:
            return None
        fits = np.isin(self.sizes, list(counts))
        if condition.space_group is not None:
            fits &= self.groups == condition.space_group
        rows = np.flatnonzero(fits)
        keys = generator.exponential(size=len(rows))
        unit = {} if condition.formula is None else composition_of(condition.formula)
        if unit:
            wanted = sorted(k // gcd(*unit.values()) for k in unit.values())
            keys[[self.anonymous[row] == wanted for row in rows]] /= SAME_FORMULA
        for row in rows[np.argsort(keys, kind="stable")]:
            template = _known_template(int(self.places[row]))
            if template is None or template.space_group != self.groups[row]:
                continue
            if len(np.unique(template.orbits)) < len(condition.elements or ()):
                continue
            if not unit:
                return template, None
            units = len(template.numbers) // sum(unit.values())
            amounts = {atomic_numbers[symbol]: k * units for symbol, k in unit.items()}
            numbers = assign_elements(template, amounts, generator)
            if numbers is not None:
                return template, numbers
        self._barren.add((condition, counts))
        return None


def assign_elements(
    template: Template, amounts: Mapping[int, int], generator: np.random.Generator
) -> np.ndarray | None:
    """Give whole orbits elements so that a composition results.

    Where the template has the same amounts, its elements are replaced, those of equal amounts in
    the order of their electronegativity; otherwise one of the ways is drawn.

    Parameters
    ----------
    template : Template
        Whose orbits are filled.
    amounts : mapping
        Atoms of each atomic number, as many as the template has in all.
    generator : numpy.random.Generator
        Of the draw.

    Returns
    -------
    numpy.ndarray or None
        Atomic numbers, shape (N,); None if no way exists.
    """
    if sum(amounts.values()) != len(template.numbers):
        return None
    own = Counter(template.numbers.tolist())
    if sorted(own.values()) == sorted(amounts.values()):
        ranks = electronegativity_ranks()
        theirs = sorted(own, key=lambda z: (own[z], ranks[z]))
        ours = sorted(amounts, key=lambda z: (amounts[z], ranks[z]))
        replaced = dict(zip(theirs, ours, strict=True))
        return np.array([replaced[z] for z in template.numbers.tolist()])
    orbits = template.orbits
    sizes = np.bincount(orbits)
    order = np.argsort(-sizes, kind="stable").tolist()
    elements = list(amounts)
    failed: set[tuple[int, ...]] = set()

    def fill(place: int, left: tuple[int, ...]) -> list[int] | None:
        if place == len(order):
            return []
        if (place, *left) in failed:
            return None
        size = int(sizes[order[place]])
        for k in generator.permutation(len(elements)).tolist():
            if left[k] >= size:
                rest = fill(place + 1, (*left[:k], left[k] - size, *left[k + 1 :]))
                if rest is not None:
                    return [elements[k], *rest]
        failed.add((place, *left))
        return None

    chosen = fill(0, tuple(amounts.values()))
    if chosen is None:
        return None
    numbers = np.zeros(len(sizes), np.int64)
    numbers[order] = chosen
    return numbers[orbits]


@lru_cache(maxsize=1)
def known_templates() -> Templates:
    """Known crystals of the training split, loaded at the first call."""
    return Templates()


def is_free(condition: Condition) -> bool:
    """Whether neither a cell nor sites are fixed: these have their own symmetry."""
    return condition.cell is None and condition.atoms is None


def is_imposed(condition: Condition, symmetry: str) -> bool:
    """Whether a template is drawn for a crystal: see ``symmetry`` of the sampling options."""
    if not is_free(condition):
        return False
    asked = symmetry in ("asked", "found") and condition.space_group is not None
    return symmetry == "known" or asked


def draw_template(
    index: int, seed: int, condition: Condition, counts: Mapping[int, int]
) -> tuple[Template, np.ndarray | None] | None:
    """Draw the template of a sample from its seed and index alone.

    Where no space group is asked for, the number of atoms is drawn first.

    Parameters
    ----------
    index, seed : int
        Which sample.
    condition : Condition
        Of a crystal.
    counts : mapping
        Allowed numbers of atoms, and how often to draw each.

    Returns
    -------
    tuple or None
        As of :meth:`Templates.draw`.
    """
    generator = np.random.default_rng([seed, index, 4])
    allowed = list(counts)
    if condition.space_group is None:
        weights = np.array(list(counts.values()), dtype=np.float64)
        allowed = [int(generator.choice(allowed, p=weights / weights.sum()))]
    return known_templates().draw(condition, allowed, generator)
