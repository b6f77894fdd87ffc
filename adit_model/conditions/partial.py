"""A partial structure: sites that are there already, around which the rest is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from adit_model.canonical import electronegativity_ranks
from adit_model.conditions.atoms import check_symbol, composition_of
from adit_model.conditions.crystal import cell_matrix
from adit_model.conditions.kind import Asked, Kind, Knows
from adit_model.conditions.properties import number_text
from adit_model.geometry import WRAP_CUT, cell_to_parameters, parameters_to_cell
from adit_model.systems import MOLECULE, AtomicSystem

Site = tuple[str, float, float, float]
SITE_TOLERANCE = 1e-6  # angstrom


class FixedAtoms(Kind):
    """Fixed sites, the first atoms of the structure: exact.

    In fractional coordinates of the condition's ``cell`` in a crystal, in angstrom in a molecule.
    No weights need to have learned it in crystals: the prediction of their latents, from which the
    flow goes on, is replaced by the latents of the fixed atoms alone.
    """

    name = "atoms"
    keys = ("fixed",)

    def read(self, value: Any) -> tuple[Site, ...] | None:
        """``[("Na", 0, 0, 0), ...]`` or ``"Na@0/0/0;Cl@0.5/0.5/0.5"``."""
        if value is None:
            return None
        if isinstance(value, str):
            value = [_site(part) for part in value.split(";")]
        sites = []
        for site in value:
            if not isinstance(site, Sequence) or len(site) != 4:
                raise ValueError(f"a fixed site is (symbol, x, y, z), got {site!r}")
            x, y, z = (float(v) + 0.0 for v in site[1:])
            if not np.isfinite([x, y, z]).all():
                raise ValueError(f"a fixed site needs finite coordinates, got {site!r}")
            sites.append((check_symbol(str(site[0])), x, y, z))
        if not sites:
            raise ValueError("fixed atoms need at least one site")
        return tuple(sites)

    def write(self, value: tuple[Site, ...]) -> list[str]:
        """``["fixed=Na@0/0/0;Cl@0.5/0.5/0.5"]``."""
        texts = [f"{s}@" + "/".join(number_text(v) for v in xyz) for s, *xyz in value]
        return ["fixed=" + ";".join(texts)]

    def holds(self, value: tuple[Site, ...], system: AtomicSystem) -> bool:
        """Whether the first atoms stand on the sites, to 1e-6 angstrom."""
        if len(system) < len(value):
            return False
        found = system.numbers[: len(value)].tolist()
        coordinates = np.array([site[1:] for site in value])
        wanted = coordinates if system.cell is None else coordinates @ system.cell
        apart = np.abs(system.positions[: len(value)] - wanted).max()
        return found == [atomic_numbers[s[0]] for s in value] and bool(apart <= SITE_TOLERANCE)

    def contradiction(self, condition: Asked) -> str | None:
        """Compare with the cell, the elements, the formula and the number of atoms."""
        if condition.atoms is None:
            return None
        fixed = fixed_elements(condition)
        if condition.domain != MOLECULE and condition.cell is None:
            return "fixed atoms of a crystal need the cell that their coordinates belong to"
        foreign = set(fixed) - set(condition.elements or fixed)
        if foreign:
            return f"the fixed atoms hold {'-'.join(sorted(foreign))}, the elements do not"
        if condition.formula is not None:
            units = condition.formula_units
            most = units if isinstance(units, int) else max(units) if units is not None else None
            room = composition_of(condition.formula)
            over = {s for s, k in fixed.items() if s not in room or (most and k > most * room[s])}
            if over:
                return f"the fixed atoms hold more {'-'.join(sorted(over))} than the formula"
        asked = condition.num_atoms
        if asked is not None:
            top = asked if isinstance(asked, int) else max(asked)
            if top < len(condition.atoms):
                return f"there are {len(condition.atoms)} fixed atoms: allow more atoms"
        return None

    def refusal(self, condition: Asked, domain: str, known: Knows) -> str | None:
        """Refuse molecules until the weights learned it: their pose follows from all atoms."""
        if condition.atoms is None or domain != MOLECULE or self.name in known.learned:
            return None
        return "these weights cannot complete a molecule: its pose follows from all its atoms"


def fixed_elements(condition: Asked) -> Counter[str]:
    """Count the fixed atoms of each element."""
    return Counter(site[0] for site in condition.atoms or ())


def fixed_part(condition: Asked) -> AtomicSystem:
    """Return the fixed atoms alone, as the networks see them.

    Those of a crystal with a along x and b in the xy plane, those of a molecule around the origin.
    """
    sites = np.array([site[1:] for site in condition.atoms])
    if condition.cell is None:
        numbers = np.array([atomic_numbers[site[0]] for site in condition.atoms])
        return AtomicSystem(numbers, sites - sites.mean(axis=0))
    cell = parameters_to_cell(*cell_to_parameters(cell_matrix(condition.cell)))
    wrapped = sites - np.floor(sites + WRAP_CUT)
    numbers = np.array([atomic_numbers[site[0]] for site in condition.atoms])
    return AtomicSystem(numbers, wrapped @ cell, cell)


def fixed_rows(condition: Asked, count: int) -> np.ndarray:
    """Place of each fixed atom among all atoms as the networks see them, shape (F,).

    Where the formula is known, atoms are in the order of the training data, by electronegativity;
    otherwise the fixed ones come first.
    """
    symbols = [site[0] for site in condition.atoms]
    if condition.formula is None:
        return np.arange(len(symbols))
    unit = composition_of(condition.formula)
    units = count // sum(unit.values())
    ranks = electronegativity_ranks()
    ordered = sorted(unit, key=lambda s: ranks[atomic_numbers[s]])
    following, start = {}, 0
    for symbol in ordered:
        following[symbol], start = start, start + units * unit[symbol]
    rows = []
    for symbol in symbols:
        rows.append(following[symbol])
        following[symbol] += 1
    return np.array(rows)


def _site(text: str) -> tuple[str, float, float, float]:
    symbol, _, numbers = text.strip().partition("@")
    try:
        x, y, z = (float(part) for part in numbers.split("/"))
    except ValueError:
        raise ValueError(f"a fixed site is written Na@0/0.5/0.5, got {text!r}") from None
    return symbol, x, y, z
