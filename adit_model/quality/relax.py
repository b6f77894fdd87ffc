"""Relaxation: of crystals by a force field, of molecules by GFN2-xTB; how far the atoms moved.

Crystals: :class:`~adit_model.quality.optimizer.CrystalBFGS` with a Frechet cell filter, all forces
(stress times volume included) below the limit. Molecules: BFGS; GFN2-xTB is that of Bannwarth,
Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019), as in tblite.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.quality.crystals import structural_fault
from adit_model.quality.force_fields import RELAXING, SUPPORTED, calculator, force_field
from adit_model.quality.molecules import require_molecule
from adit_model.systems import CRYSTAL, AtomicSystem, lowest_multiplicity

if TYPE_CHECKING:
    from ase import Atoms

FMAX, STEPS = 0.05, 500  # largest force in eV/angstrom at which it is done, most steps
MAX_EXPANSION, MIN_SHRINKAGE = 8.0, 0.1  # of the volume: beyond, a crystal blew up or collapsed
XTB, METHOD = "xtb", "GFN2-xTB"


class RelaxationError(ValueError):
    """The structure has no energy, or relaxes into none; the message says why."""


@dataclass(frozen=True)
class Relaxation:
    """A relaxed structure.

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
        The relaxed structure, atoms in the same order.
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
    system: AtomicSystem,
    name: str = "chgnet",
    *,
    fmax: float = FMAX,
    steps: int = STEPS,
    moving: np.ndarray | None = None,
    cell: bool = True,
) -> Relaxation:
    """Relax atoms and cell of a crystal by a force field, or a molecule by GFN2-xTB.

    Parameters
    ----------
    system : AtomicSystem
        A crystal; a molecule for ``"xtb"``.
    name : str
        ``"chgnet"``, ``"sevennet"``, ``"7net-l3i5"`` or ``"xtb"``.
    fmax : float
        Largest force in eV/angstrom at which it is done.
    steps : int
        Most steps.
    moving : numpy.ndarray, optional
        Which atoms move, bool of shape (N,); the others and the cell stay as they are.
    cell : bool
        Relax the cell of a crystal, too.

    Raises
    ------
    RelaxationError
        If it is no structure for this, has an element the force field does not know, blows up or
        collapses.
    ModuleNotFoundError
        If the force field is not installed.
    """
    from ase.constraints import FixAtoms
    from ase.filters import FrechetCellFilter
    from ase.optimize import BFGS

    from adit_model.quality.optimizer import CrystalBFGS

    atoms = _prepare_molecule(system) if name == XTB else _prepare(system, name)
    if moving is not None:
        atoms.set_constraint(FixAtoms(mask=~np.asarray(moving, dtype=bool)))
    initial = _energy(atoms)
    scales = cell and moving is None and system.is_periodic
    start = atoms.get_volume() if scales else 1.0
    relaxing: Any = FrechetCellFilter(atoms) if scales else atoms
    optimizer = (CrystalBFGS if system.is_periodic else BFGS)(relaxing, logfile=None)
    converged = False
    for converged in optimizer.irun(fmax=fmax, steps=steps):  # noqa: B007
        if scales and (fault := volume_fault(atoms.get_volume() / start)):
            raise RelaxationError(f"{fault} after {optimizer.nsteps} steps")
    relaxed = AtomicSystem(
        atoms.numbers, atoms.get_positions(), atoms.cell.array if system.is_periodic else None
    )
    final = _energy(atoms)
    if system.is_periodic and (fault := relaxation_fault(system, relaxed)):
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
    """Relax a molecule with GFN2-xTB (BFGS, forces below 0.05 eV/angstrom) at its charge.

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
    require_molecule(system)
    found = relax(system, XTB, steps=STEPS)
    if not found.converged:
        raise ValueError(f"{METHOD} does not relax {system.formula} within {STEPS} steps")
    heavy = system.numbers > 1
    before, after = system.positions, found.system.positions
    return {
        "xtb_energy_drop": found.energy_initial - found.energy_final,
        "xtb_rmsd": found.rmsd,
        "xtb_rmsd_heavy": kabsch_rmsd(before[heavy], after[heavy]) if heavy.any() else None,
        "xtb_multiplicity": lowest_multiplicity(system.numbers, system.charge),
        "xtb_steps": found.steps,
    }


def require_engine(name: str, domain: str) -> None:
    """Check that something relaxes structures of a domain, and is installed.

    Raises
    ------
    ValueError
        If there is no such engine, or it is for the other domain.
    ModuleNotFoundError
        If it is not installed; the text says how to install it.
    """
    engines = tuple(RELAXING) if domain == CRYSTAL else (XTB,)
    if name not in engines:
        raise ValueError(f"{domain}s are relaxed by {' or '.join(engines)}, got {name!r}")
    if domain == CRYSTAL:
        force_field(name).require()
    elif importlib.util.find_spec("tblite") is None:
        raise ModuleNotFoundError(
            f"{METHOD} needs the package tblite: pip install 'adit-atomate[{XTB}]'"
        )


def _prepare_molecule(system: AtomicSystem) -> Atoms:
    from tblite.ase import TBLite

    if system.is_periodic:
        raise RelaxationError(f"{METHOD} relaxes molecules, {system.formula} is a crystal")
    atoms = system.to_atoms()
    lowest = lowest_multiplicity(system.numbers, system.charge)
    multiplicity = int(system.info.get("spin_multiplicity") or lowest)
    atoms.calc = TBLite(method=METHOD, charge=system.charge, multiplicity=multiplicity, verbosity=0)
    return atoms


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
