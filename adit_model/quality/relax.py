"""Relaxation of a crystal with a force field: energies, steps, how far the atoms moved.

FIRE with a Frechet cell filter, all forces (stress times volume included) below 0.1 eV/angstrom,
at most 500 steps: what atomate2's ``ForceFieldRelaxMaker`` does by default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adit_model.quality.force_fields import SUPPORTED, calculator, force_field
from adit_model.systems import AtomicSystem

FMAX, STEPS = 0.1, 500
MAX_EXPANSION = 8.0  # of the volume, after which the crystal counts as blown up
MIN_SHRINKAGE = 0.1
MIN_DISTANCE = 0.5  # angstrom, as for structural validity


class RelaxationError(ValueError):
    """The structure has no energy, or relaxes into none; the message says why."""


@dataclass(frozen=True)
class Relaxation:
    """What became of a crystal.

    Parameters
    ----------
    energy_initial, energy_final : float
        In eV/atom, on the scale of the force field.
    steps : int
        Of the optimiser.
    converged : bool
        Whether the forces fell below the limit within the steps.
    rmsd : float
        Root mean square displacement in angstrom; see :func:`relaxation_rmsd`.
    system : AtomicSystem
        The relaxed crystal, atoms in the same order.
    """

    energy_initial: float
    energy_final: float
    steps: int
    converged: bool
    rmsd: float
    system: AtomicSystem


def single_point(system: AtomicSystem, name: str) -> float:
    """Energy of a crystal in eV/atom by a force field.

    Raises
    ------
    RelaxationError
        If the structure is no crystal, has an element the force field does not know, or no energy.
    """
    atoms = _prepare(system, name)
    return _energy(atoms)


def relax(
    system: AtomicSystem, name: str = "chgnet", *, fmax: float = FMAX, steps: int = STEPS
) -> Relaxation:
    """Relax atoms and cell of a crystal.

    Parameters
    ----------
    system : AtomicSystem
        A crystal.
    name : str
        ``"chgnet"`` or ``"sevennet"``.
    fmax : float
        Largest force in eV/angstrom at which it is done.
    steps : int
        Most steps.

    Raises
    ------
    RelaxationError
        If the structure is no crystal, has an element the force field does not know, blows up or
        collapses.
    ModuleNotFoundError
        If the force field is not installed.
    """
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms = _prepare(system, name)
    initial, volume = _energy(atoms), atoms.get_volume()
    optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
    converged = False
    for converged in optimizer.irun(fmax=fmax, steps=steps):  # noqa: B007
        _check_volume(atoms.get_volume() / volume, optimizer.nsteps)
    relaxed = AtomicSystem(atoms.numbers, atoms.get_positions(), atoms.cell.array)
    final = _energy(atoms)
    _check_distances(relaxed)
    return Relaxation(
        energy_initial=initial,
        energy_final=final,
        steps=int(optimizer.nsteps),
        converged=bool(converged),
        rmsd=relaxation_rmsd(system, relaxed),
        system=relaxed,
    )


def relaxation_rmsd(before: AtomicSystem, after: AtomicSystem) -> float:
    """Root mean square displacement of the atoms in angstrom, the cell's change taken out.

    Each atom's move in fractional coordinates, by the shortest way and less the mean move of all,
    in the mean of the two cells: neither a translation, a rotation nor a strain alone counts.

    Raises
    ------
    ValueError
        If they are not two crystals of the same atoms in the same order.
    """
    if (
        before.cell is None
        or after.cell is None
        or not np.array_equal(before.numbers, after.numbers)
    ):
        raise ValueError("the displacement is that of two crystals of the same atoms in order")
    moves = after.frac_coords - before.frac_coords
    # A first atom that does not move makes the way of the others independent of the origin.
    moves -= moves[0]
    moves -= np.round(moves)
    moves -= moves.mean(axis=0)
    metric = 0.5 * (before.cell @ before.cell.T + after.cell @ after.cell.T)
    squares = np.einsum("ni,ij,nj->n", moves, metric, moves)
    return float(np.sqrt(squares.mean()))


def _prepare(system: AtomicSystem, name: str):  # type: ignore[no-untyped-def]
    from ase.data import chemical_symbols

    if not system.is_periodic:
        raise RelaxationError("only crystals have a cell to relax")
    if unknown := sorted(set(system.numbers.tolist()) - SUPPORTED):
        symbols = ", ".join(chemical_symbols[number] for number in unknown)
        raise RelaxationError(f"{force_field(name).label} does not know {symbols}")
    atoms = system.to_atoms()
    atoms.calc = calculator(name)
    return atoms


def _energy(atoms) -> float:  # type: ignore[no-untyped-def]
    energy = float(atoms.get_potential_energy()) / len(atoms)
    if not math.isfinite(energy):
        raise RelaxationError(f"the force field gives the energy {energy}")
    return energy


def _check_volume(ratio: float, step: int) -> None:
    if not MIN_SHRINKAGE <= ratio <= MAX_EXPANSION:
        what = "blew up" if ratio > 1 else "collapsed"
        raise RelaxationError(f"the cell {what}: {ratio:.2g} of its volume after {step} steps")


def _check_distances(system: AtomicSystem) -> None:
    from adit_model.quality.crystals import min_distance

    if (distance := min_distance(system)) < MIN_DISTANCE:
        raise RelaxationError(f"the atoms collapsed: {distance:.2g} angstrom apart")
