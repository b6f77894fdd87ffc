"""Space group and cell of a crystal."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np

from adit_model.conditions.kind import Asked, Kind, Knows
from adit_model.conditions.properties import number_text
from adit_model.geometry import cell_to_parameters, parameters_to_cell
from adit_model.systems import MOLECULE, AtomicSystem

SYMMETRY_TOLERANCE = 0.1  # angstrom, of space groups in training and of generated crystals


@cache
def _group_numbers() -> dict[str, int]:
    """Numbers of the space groups by short Hermann-Mauguin symbol, without blanks and _."""
    import spglib

    numbers: dict[str, int] = {}
    for hall in range(1, 531):
        group = spglib.get_spacegroup_type(hall)
        assert group is not None
        for symbol in (group.international_short, group.international.split("=")[0]):
            numbers.setdefault(_plain(symbol), int(group.number))
    return numbers


def _plain(symbol: str) -> str:
    return re.sub(r"[\s_]", "", symbol)


def space_group_of(system: AtomicSystem, tolerance: float = SYMMETRY_TOLERANCE) -> int | None:
    """Find the number with spglib at a tolerance in angstrom; None if there is none."""
    import spglib

    if system.cell is None:
        return None
    cell: Any = (system.cell, system.frac_coords, system.numbers)
    try:
        found = spglib.get_symmetry_dataset(cell, tolerance)
    except spglib.SpglibError:
        return None
    return None if found is None else int(found.number)


def symmetrised(system: AtomicSystem, tolerance: float = SYMMETRY_TOLERANCE) -> AtomicSystem | None:
    """Move atoms and cell of a crystal onto the symmetry that spglib finds.

    Parameters
    ----------
    system : AtomicSystem
        A crystal.
    tolerance : float
        How far atoms may move, in angstrom.

    Returns
    -------
    AtomicSystem or None
        Primitive cell in spglib's standard setting; None if spglib finds no symmetry.
    """
    import spglib

    if system.cell is None:
        return None
    cell: Any = (system.cell, system.frac_coords, system.numbers)
    try:
        found = spglib.standardize_cell(cell, to_primitive=True, symprec=tolerance)
    except spglib.SpglibError:
        return None
    if found is None:
        return None
    vectors, sites, numbers = (np.asarray(part) for part in found)
    return AtomicSystem(numbers, sites @ vectors, vectors, system.info)


class SpaceGroup(Kind):
    """Space group: asked for; the one that is reached is found at 0.1 angstrom."""

    name = "space_group"
    keys = ("spacegroup", "space_group")

    def read(self, value: Any) -> int | None:
        """Read a number from 1 to 230 or a short symbol (``"Fm-3m"``)."""
        if value is None:
            return None
        text = str(value).strip()
        number = int(text) if re.fullmatch(r"\d+", text) else _group_numbers().get(_plain(text))
        if isinstance(value, bool) or number is None or not 1 <= number <= 230:
            raise ValueError(
                f"{value!r} is no space group: give its number, 1 to 230, or its short symbol, "
                "such as Fm-3m or P2_1/c"
            )
        return number

    def write(self, value: int) -> list[str]:
        """``["spacegroup=225"]``."""
        return [f"{self.keys[0]}={value}"]

    def holds(self, value: int, system: AtomicSystem) -> bool:
        """Whether the group is reached at :data:`SYMMETRY_TOLERANCE`."""
        return space_group_of(system) == value

    def contradiction(self, condition: Asked) -> str | None:
        """Refuse one of a molecule."""
        if condition.space_group is not None and condition.domain == MOLECULE:
            return "a molecule has no space group: ask for crystals"
        return None

    def refusal(self, condition: Asked, domain: str, known: Knows) -> str | None:
        """Until the weights have learned it."""
        if condition.space_group is None:
            return None
        if domain == MOLECULE:
            return "a molecule has no space group"
        if self.name not in known.learned:
            return "these weights were not told the space group in training, so they cannot be now"
        return None


class Cell(Kind):
    """Fixed lattice: exact."""

    name = "cell"
    keys = ("cell",)

    def read(self, value: Any) -> tuple[float, ...] | None:
        """Six numbers (a, b, c in angstrom, alpha, beta, gamma in degrees) or a 3x3 matrix."""
        if value is None:
            return None
        if isinstance(value, str):
            value = value.split("/")
        try:
            numbers = np.array(value, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            numbers = np.zeros(0)
        if len(numbers) not in (6, 9) or not np.isfinite(numbers).all():
            raise ValueError(
                "cell must be a/b/c/alpha/beta/gamma in angstrom and degrees, or the nine numbers "
                f"of its three vectors, got {value!r}"
            )
        result = tuple(float(x) + 0.0 for x in numbers)
        if len(result) == 6:
            parameters_to_cell(numbers[:3], np.radians(numbers[3:]))
        elif np.linalg.det(numbers.reshape(3, 3)) < 1e-3:
            raise ValueError(f"cell must be right-handed and have a volume, got {value!r}")
        return result

    def write(self, value: tuple[float, ...]) -> list[str]:
        """``["cell=4/4/4/90/90/90"]``."""
        return ["cell=" + "/".join(number_text(x) for x in value)]

    def holds(self, value: tuple[float, ...], system: AtomicSystem) -> bool:
        """Whether lengths and angles agree to 1e-6."""
        if system.cell is None:
            return False
        found, wanted = (cell_to_parameters(c) for c in (system.cell, cell_matrix(value)))
        apart = np.abs(found[0] - wanted[0]).max(), np.degrees(np.abs(found[1] - wanted[1])).max()
        return bool(max(apart) <= 1e-6)

    def contradiction(self, condition: Asked) -> str | None:
        """Refuse one of a molecule."""
        if condition.cell is not None and condition.domain == MOLECULE:
            return "a molecule has no cell: ask for crystals"
        return None

    def refusal(self, condition: Asked, domain: str, known: Knows) -> str | None:
        """Until the network obeys it; that of fixed atoms it sees in them."""
        if condition.cell is None:
            return None
        if domain == MOLECULE:
            return "a molecule has no cell"
        if condition.atoms is None and self.name not in known.learned:
            return (
                "these weights were not told the cell in training, so they cannot be now, "
                "but for one with fixed atoms in it"
            )
        return None


def cell_matrix(value: tuple[float, ...]) -> np.ndarray:
    """Lattice vectors as rows, shape (3, 3), of six or nine numbers."""
    numbers = np.array(value, dtype=np.float64)
    if len(numbers) == 9:
        return numbers.reshape(3, 3)
    return parameters_to_cell(numbers[:3], np.radians(numbers[3:]))
