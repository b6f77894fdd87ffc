"""Symmetry of a crystal: move atoms onto it, and write files that carry it."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from adit_model.quality.plausible import plausible
from adit_model.systems import AtomicSystem

SYMMETRY, MOVED = 0.1, 0.2  # angstrom: what counts as equivalent, and how far atoms may be moved
FILE_SYMPREC, EXACT = 0.01, 1e-3  # angstrom: symmetry that a file carries; after moving onto it
SUFFIXES = {"cif": ".cif", "poscar": ".vasp"}
CELLS = ("as-made", "refined", "primitive", "conventional")


class Symmetrised(NamedTuple):
    """A symmetrised crystal, atoms in the same order in the same cell, and how far they moved."""

    system: AtomicSystem
    space_group: int
    symbol: str
    moved: float


def symmetrise(
    system: AtomicSystem, tolerance: float = SYMMETRY, most: float = MOVED
) -> Symmetrised | None:
    """Move atoms and cell of a crystal onto its symmetry; None if it is better left as it is.

    It is left if spglib finds only P1, if an atom would move by more than ``most``, or if the
    result would not be plausible.

    Parameters
    ----------
    system : AtomicSystem
        A crystal.
    tolerance : float
        Distance in angstrom within which spglib counts atoms as equivalent.
    most : float
        Largest move of an atom in angstrom, the common shift and the strain of the cell aside.
    """
    refined = _refined(system, tolerance)
    if refined is None:
        return None
    after, number, symbol = refined
    moved = largest_move(system, after)
    if moved > most or not plausible(after).plausible:
        return None
    return Symmetrised(after, number, symbol, moved)


def largest_move(before: AtomicSystem, after: AtomicSystem) -> float:
    """Largest move of an atom of a crystal in angstrom, less the mean move of all.

    In fractional coordinates and the mean of both cells, as
    :func:`~adit_model.quality.relax.relaxation_rmsd` takes it.
    """
    assert before.cell is not None and after.cell is not None
    moves = after.frac_coords - before.frac_coords
    moves -= moves[0]
    moves -= np.round(moves)
    moves -= moves.mean(axis=0)
    metric = 0.5 * (before.cell @ before.cell.T + after.cell @ after.cell.T)
    return float(np.sqrt(np.einsum("ni,ij,nj->n", moves, metric, moves).max()))


def crystal_text(
    crystal: Any, format: str = "cif", cell: str = "as-made", symprec: float = FILE_SYMPREC
) -> str:
    """Write a crystal as the text of a CIF or POSCAR file that carries its space group.

    As made, all atoms are written, and the first line names the space group, as in each POSCAR. A
    CIF of another cell has the operations of the group and the atoms that are not equivalent,
    but for centred groups in a cell that is not the conventional one: programs read these
    differently.

    Parameters
    ----------
    crystal : AtomicSystem, pymatgen Structure, ase.Atoms
        What to write.
    format : str
        ``"cif"`` or ``"poscar"``.
    cell : str
        ``"as-made"`` keeps all as it is. In the others atoms and axes are moved onto the symmetry:
        ``"refined"`` keeps the setting, ``"primitive"`` and ``"conventional"`` give the
        standard cells.
    symprec : float
        Distance in angstrom within which spglib counts atoms as equivalent.

    Raises
    ------
    ValueError
        If ``format`` or ``cell`` is unknown, or ``symprec`` is not positive.
    """
    if format not in SUFFIXES:
        raise ValueError(f"format must be one of {', '.join(SUFFIXES)}, got {format!r}")
    if cell not in CELLS:
        raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
    if not symprec > 0:
        raise ValueError(f"symprec must be positive, got {symprec}")
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter
    from pymatgen.io.vasp import Poscar
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    system = AtomicSystem.from_any(crystal)
    structure, group = system.to_structure(), "P1 (1)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if refined := _refined(system, symprec):
            moved, number, symbol = refined
            group = f"{symbol} ({number})"
            if cell != "as-made":
                structure = _origin_on_grid(moved).to_structure()
        if cell in ("primitive", "conventional"):
            found = SpacegroupAnalyzer(structure, symprec=EXACT if refined else symprec)
            structure = getattr(found, f"get_{cell}_standard_structure")()
        if format == "poscar":
            title = f"{system.formula} {group} within {symprec:g} angstrom"
            return Poscar(structure.get_sorted_structure(), title).get_str()
        primitive = cell != "as-made" and group.startswith("P")
        if refined and (cell == "conventional" or primitive):
            text = str(CifWriter(structure, symprec=EXACT, refine_struct=False))
            if len(Structure.from_str(text, fmt="cif")) == len(structure):
                return text
        return f"# space group {group} within {symprec:g} angstrom\n{CifWriter(structure)}"


def _origin_on_grid(system: AtomicSystem) -> AtomicSystem:
    """Shift a symmetric crystal so that translations of its operations are twenty-fourths."""
    import spglib

    assert system.cell is not None
    given: Any = (system.cell, system.frac_coords, system.numbers)
    found: Any = spglib.get_symmetry_dataset(given, symprec=EXACT)
    origin = np.asarray(found.origin_shift)
    shift = np.linalg.solve(found.transformation_matrix, origin - np.round(24 * origin) / 24)
    positions = system.positions + shift @ system.cell
    return AtomicSystem(system.numbers, positions, system.cell, system.info)


def _refined(system: AtomicSystem, symprec: float) -> tuple[AtomicSystem, int, str] | None:
    """Crystal moved onto its symmetry, number and symbol of the space group; None for P1."""
    import spglib
    from ase.spacegroup.symmetrize import IntermediateDatasetError, get_symmetrized_atoms

    try:
        atoms, found = get_symmetrized_atoms(system.to_atoms(), symprec, EXACT)
    except (
        *(spglib.SpglibError, IntermediateDatasetError, AssertionError),
        *(ValueError, AttributeError, TypeError),
    ):
        return None  # spglib finds none, as of atoms on one spot, or not the same twice
    if found.number == 1:
        return None
    after = AtomicSystem(system.numbers, atoms.get_positions(), atoms.cell.array, system.info)
    return after, int(found.number), str(found.international)
