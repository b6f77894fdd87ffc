"""Force fields whose weights ship in their package, and the energies of elements on their scale.

CHGNet 0.3.0 (Deng et al., Nat. Mach. Intell. 5, 1031, 2023) was trained on MP2020-corrected
energies, SevenNet-0 (Park et al., J. Chem. Theory Comput. 20, 4857, 2024) on uncorrected ones:
total energies of oxides differ by tenths of an eV/atom, and neither the elements nor the hull of
one may be used with the other. Energies of elements are in JSON files beside this module, made by
``benchmarks/element_references.py``.

So SevenNet-0 is compared to known phases of its own energies only.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from adit_model.quality.hull import MP2020

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

# MPtrj, which both were trained on, has 89 elements: up to plutonium, without these.
_UNKNOWN = frozenset({84, 85, 86, 87, 88})
SUPPORTED = frozenset(range(1, 95)) - _UNKNOWN


@dataclass(frozen=True)
class ForceField:
    """A force field.

    Parameters
    ----------
    name : str
        What it is called on the command line and in columns.
    label : str
        Name and version of the weights.
    package, module : str
        As pip and as Python call what it needs.
    scale : str
        Energy scale of its formation energies; see :class:`~adit_model.quality.hull.Hull`.
    """

    name: str
    label: str
    package: str
    module: str
    scale: str

    def require(self) -> None:
        """Raise ``ModuleNotFoundError`` with the way to install it if it is not."""
        if importlib.util.find_spec(self.module) is None:
            raise ModuleNotFoundError(
                f"{self.label} needs the package {self.package}: "
                f"pip install 'adit-atomate[{'chgnet' if self.module == 'chgnet' else 'sevennet'}]'"
            )


CHGNET = ForceField("chgnet", "CHGNet 0.3.0", "chgnet", "chgnet", MP2020)
SEVENNET = ForceField(
    "sevennet", "SevenNet-0 (11 July 2024)", "sevenn", "sevenn", "SevenNet-0, uncorrected PBE"
)
FORCE_FIELDS = {force_field.name: force_field for force_field in (CHGNET, SEVENNET)}
# Relax, as a second opinion; without energies of the elements they rank by total energy alone
L3I5 = ForceField(
    "7net-l3i5", "SevenNet-l3i5", "sevenn", "sevenn", "SevenNet-l3i5, uncorrected PBE"
)
RELAXING = {**FORCE_FIELDS, L3I5.name: L3I5}


def force_field(name: str) -> ForceField:
    """Look a force field up.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    if name not in RELAXING:
        raise ValueError(f"force fields are {', '.join(RELAXING)}, got {name!r}")
    return RELAXING[name]


@functools.cache
def calculator(name: str) -> Calculator:
    """Load a force field on the CPU, once for each process.

    Raises
    ------
    ModuleNotFoundError, ValueError
        If its package is not installed, or it is unknown.
    """
    import contextlib
    import io

    force_field(name).require()
    if name == CHGNET.name:
        from adit_model.quality.chgnet import chgnet_calculator

        return chgnet_calculator("cpu")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator

        weights = "7net-l3i5" if name == L3I5.name else "7net-0"
        return SevenNetCalculator(weights, device="cpu")


@dataclass(frozen=True)
class ElementReferences:
    """Energies of the elements' lowest known phases by one force field.

    Parameters
    ----------
    label : str
        The force field.
    scale : str
        Its energy scale.
    energies : dict
        From a symbol to an energy in eV/atom.
    """

    label: str
    scale: str
    energies: Mapping[str, float]

    def formation_energy(self, composition: Any, energy_per_atom: float) -> float:
        """Energy of a structure relative to its elements, in eV/atom.

        Parameters
        ----------
        composition : mapping
            From an element or a symbol to its amount, such as a pymatgen ``Composition``.
        energy_per_atom : float
            By the same force field, in eV/atom.

        Raises
        ------
        ValueError
            If an element has no reference, or the energy is not finite.
        """
        amounts = {str(symbol): float(amount) for symbol, amount in composition.items()}
        if missing := sorted(amounts.keys() - self.energies.keys()):
            raise ValueError(f"no energy of {', '.join(missing)} by {self.label}")
        if not math.isfinite(energy_per_atom):
            raise ValueError(f"the energy is {energy_per_atom}")
        reference = sum(amount * self.energies[symbol] for symbol, amount in amounts.items())
        return energy_per_atom - reference / sum(amounts.values())


def force_field_of(calculator: str | None) -> ForceField | None:
    """Return the force field of a calculator as atomate2 names it, None if it is another."""
    return FORCE_FIELDS.get((calculator or "").rpartition(".")[2].lower())


def references_for(calculator: str | None) -> ElementReferences | None:
    """Energies of the elements for a calculator as atomate2 names it, None if there are none.

    Parameters
    ----------
    calculator : str or None
        Such as ``"CHGNet"``, ``"MLFF.SevenNet"``; see ``forcefield_name`` of its documents. By
        default atomate2 runs the weights that the energies are of.
    """
    found = force_field_of(calculator)
    return None if found is None else element_references(found.name)


@functools.cache
def element_references(name: str) -> ElementReferences:
    """Read the table that the package has for a force field.

    Raises
    ------
    ValueError
        If the force field is unknown, the package has no table for it, or one that was made with
        another version of it.
    """
    found = force_field(name)
    if name not in FORCE_FIELDS:
        raise ValueError(f"there are no energies of the elements by {found.label}")
    text = files("adit_model.quality").joinpath(f"elements_{name}.json").read_text("utf-8")
    table = json.loads(text)
    if table["model"] != found.label or table["scale"] != found.scale:
        raise ValueError(
            f"elements_{name}.json is of {table['model']} ({table['scale']}), "
            f"not of {found.label} ({found.scale}): make it again"
        )
    energies = {symbol: entry["energy_per_atom"] for symbol, entry in table["elements"].items()}
    return ElementReferences(found.label, found.scale, energies)
