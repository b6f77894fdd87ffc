"""The optimiser that relaxes crystals: BFGS that knows how soft a cell is.

ASE's BFGS begins with one curvature, 70 eV/angstrom^2, for atoms and cell alike. The cell of
``FrechetCellFilter`` is some hundred times softer, so that it would crawl. Here it begins with
that of an isotropic elastic solid, as in ASE's ``CellAwareBFGS``; forces and stress converge
together, as with any other optimiser of ASE.
"""

from __future__ import annotations

from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.optimize.cellawarebfgs import calculate_isotropic_elasticity_tensor
from ase.units import GPa

ATOMS = 30.0  # eV/angstrom^2, curvature along the atoms
BULK_MODULUS, POISSON = 100 * GPa, 0.25


class CrystalBFGS(BFGS):
    """BFGS for the atoms of a crystal, and for its cell in a ``FrechetCellFilter``."""

    def initialize(self) -> None:
        """Set the first guess at the curvature."""
        self.alpha = ATOMS
        super().initialize()
        if isinstance(self.atoms, FrechetCellFilter):
            solid = calculate_isotropic_elasticity_tensor(
                BULK_MODULUS, POISSON, suppress_rotation=2 * BULK_MODULUS
            ).reshape(9, 9)
            scale = self.atoms.atoms.get_volume() / self.atoms.exp_cell_factor**2
            self.H0[-9:, -9:] = scale * solid
