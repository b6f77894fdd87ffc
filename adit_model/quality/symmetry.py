"""Symmetrise a crystal: move atoms and cell to where the space group that spglib finds has them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from adit_model.quality.plausible import plausible
from adit_model.systems import AtomicSystem

SYMMETRY, MOVED = 0.1, 0.2  # angstrom: what counts as equivalent, and how far atoms may be moved


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
    import spglib
    from ase.spacegroup.symmetrize import IntermediateDatasetError, get_symmetrized_atoms

    try:
        atoms, found = get_symmetrized_atoms(system.to_atoms(), tolerance, 1e-3)
    except (
        *(spglib.SpglibError, IntermediateDatasetError, AssertionError),
        *(ValueError, AttributeError, TypeError),
    ):
        return None  # spglib finds none, as of atoms on one spot, or not the same twice
    if found.number == 1:
        return None
    after = AtomicSystem(system.numbers, atoms.get_positions(), atoms.cell.array, system.info)
    moved = largest_move(system, after)
    if moved > most or not plausible(after).plausible:
        return None
    return Symmetrised(after, int(found.number), str(found.international), moved)


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
