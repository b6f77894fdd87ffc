"""Relaxation: of crystals by a force field, of molecules by GFN2-xTB; how far the atoms moved.

Crystals: FIRE with a Frechet cell filter, all forces (stress times volume included) below the
limit. Molecules: BFGS; GFN2-xTB is that of Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15,
1652 (2019), as in tblite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.quality.crystals import structural_fault
from adit_model.quality.force_fields import SUPPORTED, calculator, force_field
from adit_model.quality.molecules import require_molecule
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from ase import Atoms

FMAX, STEPS = 0.05, 500  # largest force in eV/angstrom at which it is done, most steps
MAX_EXPANSION, MIN_SHRINKAGE = 8.0, 0.1  # of the volume: beyond, a crystal blew up or collapsed
METHOD, CHARGE = "GFN2-xTB", 0


class RelaxationError(ValueError):
    """The structure has no energy, or relaxes into none; the message says why."""


@dataclass(frozen=True)
class Relaxation:
    """A relaxed crystal.

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
    return _energy(_prepare(system, name))


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
        if fault := volume_fault(atoms.get_volume() / volume):
            raise RelaxationError(f"{fault} after {optimizer.nsteps} steps")
    relaxed = AtomicSystem(atoms.numbers, atoms.get_positions(), atoms.cell.array)
    final = _energy(atoms)
    if fault := relaxation_fault(system, relaxed):
        raise RelaxationError(fault)
    return Relaxation(
        energy_initial=initial,
        energy_final=final,
        steps=int(optimizer.nsteps),
        converged=bool(converged),
        rmsd=relaxation_rmsd(system, relaxed),
        system=relaxed,
    )


def volume_fault(ratio: float) -> str | None:
    """Say that a cell blew up or collapsed, by its volume relative to before; None if neither."""
    if MIN_SHRINKAGE <= ratio <= MAX_EXPANSION:
        return None
    return f"the cell {'blew up' if ratio > 1 else 'collapsed'}: {ratio:.2g} of its volume"


def relaxation_fault(before: AtomicSystem, after: AtomicSystem) -> str | None:
    """Say why a crystal relaxed to none: it blew up or collapsed; None if it did not."""
    if fault := volume_fault(after.volume / before.volume):
        return fault
    fault = structural_fault(after)
    return None if fault is None else f"the atoms collapsed: {fault}"


def relaxation_rmsd(before: AtomicSystem, after: AtomicSystem) -> float:
    """Root mean square displacement of the atoms in angstrom on relaxation.

    Molecules: after the best rotation, :func:`kabsch_rmsd`. Crystals: each atom's move in
    fractional coordinates, by the shortest way and less the mean move of all, in the mean of both
    cells, so that neither a translation, a rotation nor a strain alone counts.

    Raises
    ------
    ValueError
        If they are not two crystals or two molecules of the same atoms in the same order.
    """
    if before.domain != after.domain or not np.array_equal(before.numbers, after.numbers):
        raise ValueError("the displacement is that of two structures of the same atoms in order")
    if before.cell is None or after.cell is None:
        return kabsch_rmsd(before.positions, after.positions)
    moves = after.frac_coords - before.frac_coords
    # A first atom that does not move makes the way of the others independent of the origin.
    moves -= moves[0]
    moves -= np.round(moves)
    moves -= moves.mean(axis=0)
    metric = 0.5 * (before.cell @ before.cell.T + after.cell @ after.cell.T)
    squares = np.einsum("ni,ij,nj->n", moves, metric, moves)
    return float(np.sqrt(squares.mean()))


def kabsch_rmsd(first: np.ndarray, second: np.ndarray) -> float:
    """RMSD of two point sets after the best translation and proper rotation.

    Kabsch, Acta Cryst. A 32, 922 (1976). A mirror image does not match; points are in order.

    Parameters
    ----------
    first, second : numpy.ndarray
        Coordinates, shape (N, 3).
    """
    first = first - first.mean(axis=0)
    second = second - second.mean(axis=0)
    left, _, right = np.linalg.svd(second.T @ first)
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    return float(np.sqrt(np.mean(np.sum((second @ left @ right - first) ** 2, axis=1))))


def strain(system: AtomicSystem) -> dict[str, Any]:
    """Relax a molecule with GFN2-xTB (BFGS, forces below 0.05 eV/angstrom) at charge 0.

    Returns
    -------
    dict
        ``xtb_energy_drop``: eV per atom that it loses; ``xtb_rmsd``: of all atoms after the best
        rotation, angstrom; ``xtb_rmsd_heavy``: the same without hydrogen, None of nothing;
        ``xtb_multiplicity``: 1 for an even number of electrons, 2 for an odd one; ``xtb_steps``.

    Raises
    ------
    ImportError
        If tblite is not installed.
    ValueError
        For a crystal, or if the relaxation does not converge.
    RuntimeError
        If the electronic structure does not converge.
    """
    from ase.optimize import BFGS
    from tblite.ase import TBLite

    require_molecule(system)
    multiplicity = lowest_multiplicity(system.numbers)
    atoms = system.to_atoms()
    atoms.calc = TBLite(method=METHOD, charge=CHARGE, multiplicity=multiplicity, verbosity=0)
    before = atoms.get_potential_energy()
    optimizer = BFGS(atoms, logfile=None)
    if not optimizer.run(fmax=FMAX, steps=STEPS):
        raise ValueError(f"{METHOD} does not relax {system.formula} within {STEPS} steps")
    heavy = system.numbers > 1
    return {
        "xtb_energy_drop": float(before - atoms.get_potential_energy()) / len(system),
        "xtb_rmsd": kabsch_rmsd(system.positions, atoms.positions),
        "xtb_rmsd_heavy": (
            kabsch_rmsd(system.positions[heavy], atoms.positions[heavy]) if heavy.any() else None
        ),
        "xtb_multiplicity": multiplicity,
        "xtb_steps": int(optimizer.nsteps),
    }


def lowest_multiplicity(numbers: np.ndarray, charge: int = CHARGE) -> int:
    """Spin multiplicity of the lowest spin that the number of electrons allows, 1 or 2."""
    return 1 + (int(np.sum(numbers)) - charge) % 2


def _prepare(system: AtomicSystem, name: str) -> Atoms:
    from ase.data import chemical_symbols

    if not system.is_periodic:
        raise RelaxationError("only crystals have a cell to relax")
    if unknown := sorted(set(system.numbers.tolist()) - SUPPORTED):
        symbols = ", ".join(chemical_symbols[number] for number in unknown)
        raise RelaxationError(f"{force_field(name).label} does not know {symbols}")
    atoms = system.to_atoms()
    atoms.calc = calculator(name)
    return atoms


def _energy(atoms: Atoms) -> float:
    energy = float(atoms.get_potential_energy()) / len(atoms)
    if not math.isfinite(energy):
        raise RelaxationError(f"the force field gives the energy {energy}")
    return energy
