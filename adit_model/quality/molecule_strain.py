"""Strain of a molecule: what relaxation with GFN2-xTB changes.

GFN2-xTB: Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019), as in tblite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adit_model.quality.reconstruction import kabsch_rmsd
from adit_model.systems import AtomicSystem

METHOD = "GFN2-xTB"
MAX_FORCE = 0.05  # eV/angstrom, on every atom of the relaxed molecule
MAX_STEPS = 500
CHARGE = 0


@dataclass(frozen=True)
class Strain:
    """What relaxation changes.

    Parameters
    ----------
    energy : float
        Energy that the molecule loses, eV per atom.
    rmsd : float
        Of all atoms after the best rotation, angstrom.
    heavy_rmsd : float or None
        The same of all atoms but hydrogen; None if there are none.
    multiplicity : int
        1 for an even number of electrons, 2 for an odd one.
    steps : int
        Steps of the optimiser.
    """

    energy: float
    rmsd: float
    heavy_rmsd: float | None
    multiplicity: int
    steps: int


def lowest_multiplicity(numbers: np.ndarray, charge: int = CHARGE) -> int:
    """Spin multiplicity of the lowest spin that the number of electrons allows, 1 or 2."""
    return 1 + (int(np.sum(numbers)) - charge) % 2


def relaxation_strain(system: AtomicSystem) -> Strain:
    """Relax a molecule with GFN2-xTB (BFGS, forces below 0.05 eV/angstrom) at charge 0.

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

    if system.is_periodic:
        raise ValueError(f"{system.formula} is a crystal, not a molecule")
    multiplicity = lowest_multiplicity(system.numbers)
    atoms = system.to_atoms()
    atoms.calc = TBLite(method=METHOD, charge=CHARGE, multiplicity=multiplicity, verbosity=0)
    before = atoms.get_potential_energy()
    optimizer = BFGS(atoms, logfile=None)
    if not optimizer.run(fmax=MAX_FORCE, steps=MAX_STEPS):
        raise ValueError(f"{METHOD} does not relax {system.formula} within {MAX_STEPS} steps")
    heavy = system.numbers > 1
    return Strain(
        energy=float(before - atoms.get_potential_energy()) / len(system),
        rmsd=kabsch_rmsd(system.positions, atoms.positions),
        heavy_rmsd=(
            kabsch_rmsd(system.positions[heavy], atoms.positions[heavy]) if heavy.any() else None
        ),
        multiplicity=multiplicity,
        steps=int(optimizer.nsteps),
    )
