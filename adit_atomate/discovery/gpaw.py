"""DFT with GPAW, for those who have no licence for another code: an optional package, GPL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atomate2.ase.jobs import AseRelaxMaker

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def _pbe() -> dict[str, Any]:
    return {
        "mode": {"name": "pw", "ecut": 600},
        "xc": "PBE",
        "kpts": {"density": 4.0, "gamma": True},
        "occupations": {"name": "fermi-dirac", "width": 0.05},
        "txt": "gpaw.txt",
    }


@dataclass
class GPAWRelaxMaker(AseRelaxMaker):
    """Relax a crystal with PBE in GPAW, cell included, without spin polarisation.

    For ``dft_maker`` of a discovery flow. Install it with ``pip install gpaw gpaw-data`` (needs
    libxc and BLAS with their headers).

    Parameters
    ----------
    name : str
        Name of the jobs.
    calculator_kwargs : dict
        Arguments of :class:`gpaw.GPAW`; they replace the defaults, a plane-wave cutoff of 600 eV
        and 4 k-points per 1/angstrom. Below about 600 eV the stress of a fixed basis set (Pulay)
        makes relaxed cells too small.
    relax_kwargs, optimizer_kwargs, steps, relax_cell, ionic_step_data, store_trajectory
        As for :class:`atomate2.ase.jobs.AseRelaxMaker`.
    """

    name: str = "GPAW relax"
    calculator_kwargs: dict = field(default_factory=_pbe)
    steps: int = 100

    def _get_calculator(self) -> Calculator:
        try:
            from gpaw import GPAW
        except ImportError as error:
            raise ImportError(
                "GPAW is not installed: pip install gpaw gpaw-data (needs libxc and BLAS)"
            ) from error
        calculator: Any = GPAW(**self.calculator_kwargs)
        return calculator


@dataclass
class GPAWStaticMaker(GPAWRelaxMaker):
    """Energy, forces and stress of a crystal with PBE in GPAW; see :class:`GPAWRelaxMaker`."""

    name: str = "GPAW static"
    steps: int = 1
