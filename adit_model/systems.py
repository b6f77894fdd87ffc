"""One crystal or molecule, and its conversions to the objects of the field."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.formulas import chemical_formula

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import IMolecule, IStructure, Molecule, Structure
    from rdkit.Chem import Mol

CRYSTAL = "crystal"
MOLECULE = "molecule"
DOMAINS = (CRYSTAL, MOLECULE)
MAX_ATOMIC_NUMBER = 118
MAX_COORDINATE = 1e5  # angstrom; what lies farther out is a damaged file


@dataclass(frozen=True, eq=False)
class AtomicSystem:
    """One crystal (``cell`` given) or molecule (``cell`` is None).

    Parameters
    ----------
    numbers : numpy.ndarray
        Atomic numbers, shape (N,), 1 to 118.
    positions : numpy.ndarray
        Cartesian coordinates in angstrom, shape (N, 3).
    cell : numpy.ndarray or None
        Lattice vectors as rows in angstrom, shape (3, 3); None for a molecule.
    info : dict
        Provenance (``id``, ``source``, ...), carried along; ``charge`` and ``spin_multiplicity``
        of a molecule are read, nothing else. Nothing else of a converted object is carried: no
        site properties, oxidation states or ASE arrays.

    The arrays and the dict are copied, so a later change of the source object has no effect.

    Raises
    ------
    ValueError
        If a shape does not fit, an atomic number is out of range, a coordinate is not finite or
        beyond :data:`MAX_COORDINATE`, or the cell has no volume.
    """

    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = np.asarray(self.numbers)
        if numbers.ndim != 1 or len(numbers) == 0:
            raise ValueError(f"numbers must have shape (N,) with N >= 1, got {numbers.shape}")
        if not np.issubdtype(numbers.dtype, np.integer):
            raise ValueError(f"numbers must be integers, got dtype {numbers.dtype}")
        if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
            bad = int(((numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)).argmax())
            ghost = " (a ghost or dummy atom? remove it)" if numbers[bad] == 0 else ""
            raise ValueError(
                f"atomic numbers must lie in 1..{MAX_ATOMIC_NUMBER}, atom {bad} (from 0) has "
                f"{numbers[bad]}{ghost}"
            )
        positions = np.array(self.positions, dtype=np.float64)
        if positions.shape != (len(numbers), 3):
            raise ValueError(
                f"positions must have shape ({len(numbers)}, 3), got {positions.shape}"
            )
        if not np.isfinite(positions).all():
            bad = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
            raise ValueError(f"positions must be finite, atom {bad} has {positions[bad].tolist()}")
        if np.abs(positions).max() > MAX_COORDINATE:
            bad = int(np.abs(positions).max(axis=1).argmax())
            raise ValueError(
                f"coordinates must lie within {MAX_COORDINATE:g} angstrom, atom {bad} (from 0) has "
                f"{positions[bad].tolist()}"
            )
        object.__setattr__(self, "numbers", numbers.astype(np.int64))
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "info", dict(self.info))
        if self.cell is not None:
            cell = np.array(self.cell, dtype=np.float64)
            if cell.shape != (3, 3):
                raise ValueError(f"cell must have shape (3, 3), got {cell.shape}")
            if not np.isfinite(cell).all():
                raise ValueError(f"cell must be finite, got {cell.tolist()}")
            if np.abs(cell).max() > MAX_COORDINATE:
                raise ValueError(
                    f"cell vectors must lie within {MAX_COORDINATE:g} angstrom, got {cell.tolist()}"
                )
            if abs(np.linalg.det(cell)) < 1e-8:
                raise ValueError(f"cell must have a volume, got {cell.tolist()}")
            object.__setattr__(self, "cell", cell)

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return f"AtomicSystem({self.formula}, {self.domain}, {len(self)} atoms)"

    @property
    def domain(self) -> str:
        """``"crystal"`` or ``"molecule"``."""
        return MOLECULE if self.cell is None else CRYSTAL

    @property
    def is_periodic(self) -> bool:
        """Whether the system has a cell."""
        return self.cell is not None

    @property
    def formula(self) -> str:
        """Reduced formula (crystal) or full formula (molecule), as chemists write it."""
        counts = Counter(_symbol(z) for z in self.numbers)
        return chemical_formula(counts, reduce=self.is_periodic)

    @property
    def charge(self) -> int:
        """Charge of a molecule in elementary charges: ``info["charge"]``, 0 without it.

        Raises
        ------
        ValueError
            If it is no whole number.
        """
        value = self.info.get("charge")
        if self.is_periodic or value is None or np.ndim(value):  # an array is one of atoms
            return 0
        try:
            charge = round(float(value))
            whole = abs(float(value) - charge) < 1e-6
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise ValueError(f"the charge of a molecule must be a whole number, got {value!r}")
        return charge

    @property
    def volume(self) -> float:
        """Cell volume in cubic angstrom.

        Raises
        ------
        ValueError
            For a molecule.
        """
        return float(abs(np.linalg.det(self._require_cell())))

    @property
    def frac_coords(self) -> np.ndarray:
        """Fractional coordinates, shape (N, 3), not wrapped.

        Raises
        ------
        ValueError
            For a molecule.
        """
        return np.linalg.solve(self._require_cell().T, self.positions.T).T

    def _require_cell(self) -> np.ndarray:
        if self.cell is None:
            raise ValueError("a molecule has no cell")
        return self.cell

    # pymatgen

    @classmethod
    def from_structure(cls, structure: IStructure, **info: Any) -> AtomicSystem:
        """Read a pymatgen ``Structure``.

        Raises
        ------
        ValueError
            If a site is disordered or holds a dummy species, or the lattice is not periodic in
            all three directions.
        """
        require_full_pbc(structure.lattice.pbc)
        return cls(
            _site_numbers(structure),
            structure.cart_coords,
            structure.lattice.matrix,
            {**dict(structure.properties or {}), **info},
        )

    @classmethod
    def from_molecule(cls, molecule: IMolecule, **info: Any) -> AtomicSystem:
        """Read a pymatgen ``Molecule``.

        Raises
        ------
        ValueError
            If a site is disordered or holds a dummy species.
        """
        numbers = _site_numbers(molecule)
        found = dict(molecule.properties or {})
        if molecule.charge:
            found["charge"] = molecule.charge
        lowest = lowest_multiplicity(numbers, round(molecule.charge))
        if molecule.spin_multiplicity not in (None, lowest):
            found["spin_multiplicity"] = molecule.spin_multiplicity
        return cls(numbers, molecule.cart_coords, None, {**found, **info})

    def to_structure(self) -> Structure:
        """Return a pymatgen ``Structure``; ``info``, made JSON-able, becomes its ``properties``.

        Raises
        ------
        ValueError
            For a molecule.
        """
        from pymatgen.core import Structure

        return Structure(
            self._require_cell(),
            [_symbol(z) for z in self.numbers],
            self.positions,
            coords_are_cartesian=True,
            properties=_json_able(self.info),
        )

    def to_molecule(self, charge: int | None = None) -> Molecule:
        """Return a pymatgen ``Molecule``; ``info``, made JSON-able, becomes its ``properties``.

        Parameters
        ----------
        charge : int, optional
            By default :attr:`charge`.

        Raises
        ------
        ValueError
            For a crystal.
        """
        from pymatgen.core import Molecule

        self._require_molecule()
        return Molecule(
            [_symbol(z) for z in self.numbers],
            self.positions,
            charge=self.charge if charge is None else charge,
            spin_multiplicity=self.info.get("spin_multiplicity") if charge is None else None,
            properties=_json_able(self.info),
        )

    def to_pymatgen(self) -> Structure | Molecule:
        """Return a ``Structure`` for a crystal, a ``Molecule`` for a molecule."""
        return self.to_structure() if self.is_periodic else self.to_molecule()

    # ASE

    @classmethod
    def from_atoms(cls, atoms: Atoms, **info: Any) -> AtomicSystem:
        """Read an ``ase.Atoms``: a crystal if periodic in all directions, a molecule if in none.

        Initial charges of a molecule are summed to its charge, if ``info`` does not say it. A cell
        without periodicity is dropped, with a warning.

        Raises
        ------
        ValueError
            If it is periodic in one or two directions only.
        """
        if atoms.pbc.any():
            require_full_pbc(atoms.pbc)
        if atoms.pbc.all():
            return cls(atoms.numbers, atoms.positions, atoms.cell.array, {**atoms.info, **info})
        if atoms.cell.rank == 3:
            warnings.warn(
                "ase.Atoms with a cell and pbc=False are read as a molecule without a cell; set "
                "atoms.pbc = True for a crystal",
                stacklevel=2,
            )
        found = dict(atoms.info)
        charge = float(atoms.get_initial_charges().sum()) if atoms.has("initial_charges") else 0.0
        if round(charge) and abs(charge - round(charge)) < 0.01:
            found.setdefault("charge", round(charge))
        return cls(atoms.numbers, atoms.positions, None, {**found, **info})

    def to_atoms(self) -> Atoms:
        """Return an ``ase.Atoms`` with ``info`` copied."""
        from ase import Atoms

        return Atoms(
            numbers=self.numbers,
            positions=self.positions,
            cell=self.cell,
            pbc=self.is_periodic,
            info=dict(self.info),
        )

    # RDKit

    @classmethod
    def from_rdkit(cls, mol: Mol, conformer: int = -1, **info: Any) -> AtomicSystem:
        """Read one conformer of an RDKit molecule, all hydrogens explicit, and its charge.

        Raises
        ------
        ValueError
            If the molecule has no conformer of this id, only a flat drawing, or valences that
            nothing fills.
        """
        if mol.GetNumConformers() == 0:
            raise ValueError("the RDKit molecule has no conformer: embed it first")
        coordinates = mol.GetConformer(conformer)
        if not coordinates.Is3D():
            raise ValueError("the RDKit conformer is a 2D drawing: embed the molecule in 3D first")
        if missing := missing_hydrogens(mol):
            raise ValueError(
                f"{missing} hydrogens are missing (unfilled valences): add them, with coordinates, "
                "by Chem.AddHs(mol, addCoords=True) or the option add_hydrogens of the readers"
            )
        positions = coordinates.GetPositions()
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        if any(a.GetAtomicNum() == 1 and a.GetIsotope() > 1 for a in mol.GetAtoms()):
            warn_isotopes()
        charge = sum(atom.GetFormalCharge() for atom in mol.GetAtoms())
        return cls(numbers, positions, None, ({"charge": charge} if charge else {}) | info)

    def to_rdkit(self, charge: int | None = None, max_iterations: int = 1000) -> Mol:
        """Perceive bonds from the geometry and return an RDKit molecule.

        Parameters
        ----------
        charge : int, optional
            Total charge, by default :attr:`charge`.
        max_iterations : int
            Bound on RDKit's search over bond orders, which can otherwise take minutes.

        Raises
        ------
        ValueError
            For a crystal, or if RDKit finds no consistent bonding within ``max_iterations``.
        """
        from rdkit import Chem
        from rdkit.Chem import rdDetermineBonds

        self._require_molecule()
        mol = Chem.MolFromXYZBlock(self.to_xyz())
        if mol is None:
            raise ValueError(f"RDKit could not read the geometry of {self.formula}")
        charge = self.charge if charge is None else charge
        try:
            rdDetermineBonds.DetermineBonds(mol, charge=charge, maxIterations=max_iterations)
        except (ValueError, RuntimeError) as error:  # RuntimeError: out of iterations
            text = str(error)
            if "does not match input" in text:
                text = (
                    f"its atoms do not fit a charge of {charge:+d}: atoms or bonds are missing, or "
                    "it is an ion whose charge was not given"
                    if charge
                    else "its atoms do not fit a neutral molecule: atoms or bonds are missing, or "
                    "it is an ion whose charge was not given (charge=-1)"
                )
            raise ValueError(f"no bonding found for {self.formula}: {text}") from error
        return mol

    def to_xyz(self) -> str:
        """Return the system as plain XYZ text, coordinates in angstrom."""
        lines = [str(len(self)), self.formula]
        lines += [
            f"{_symbol(z)} {x:.6f} {y:.6f} {w:.6f}"
            for z, (x, y, w) in zip(self.numbers, self.positions, strict=True)
        ]
        return "\n".join(lines) + "\n"

    def _require_molecule(self) -> None:
        if self.is_periodic:
            raise ValueError(f"{self.formula} is a crystal, not a molecule")

    @classmethod
    def from_any(cls, obj: Any, **info: Any) -> AtomicSystem:
        """Read an ``AtomicSystem``, pymatgen, ASE or RDKit object.

        Raises
        ------
        TypeError
            If the object is none of these.
        """
        if isinstance(obj, AtomicSystem):
            return cls(obj.numbers, obj.positions, obj.cell, {**obj.info, **info})
        from ase import Atoms
        from pymatgen.core import IMolecule, IStructure

        if isinstance(obj, Atoms):
            return cls.from_atoms(obj, **info)
        if isinstance(obj, IStructure):
            return cls.from_structure(obj, **info)
        if isinstance(obj, IMolecule):
            return cls.from_molecule(obj, **info)
        if type(obj).__module__.startswith("rdkit.") and hasattr(obj, "GetNumConformers"):
            return cls.from_rdkit(obj, **info)
        raise TypeError(
            "expected an AtomicSystem, pymatgen Structure or Molecule, ase.Atoms or RDKit Mol, "
            f"got {type(obj).__module__}.{type(obj).__name__}"
        )


def as_list(structures: Any) -> list[Any]:
    """List of structures, also of one alone: pymatgen's and ASE's are sequences of their sites."""
    from ase import Atoms
    from pymatgen.core import IMolecule, IStructure

    one = isinstance(structures, AtomicSystem | Atoms | IMolecule | IStructure) or hasattr(
        structures, "GetNumConformers"
    )
    return [structures] if one else list(structures)


def lowest_multiplicity(numbers: np.ndarray, charge: int = 0) -> int:
    """Spin multiplicity of the lowest spin that the number of electrons allows, 1 or 2."""
    return 1 + (int(np.sum(numbers)) - charge) % 2


def missing_hydrogens(mol: Mol) -> int:
    """Count hydrogens that RDKit would add to a molecule; 0 where no bond is drawn."""
    if mol.GetNumBonds() == 0:
        return 0
    mol.UpdatePropertyCache(strict=False)
    return sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())


def warn_isotopes() -> None:
    """Say, once in a process, that heavy hydrogen is read as hydrogen."""
    warnings.warn("deuterium and tritium (D, T) are read as hydrogen", stacklevel=3)


def _symbol(number: int) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[int(number)]


def require_full_pbc(pbc: Sequence[bool]) -> None:
    """Raise ``ValueError`` unless a structure is periodic in all three directions."""
    if not all(pbc):
        raise ValueError(
            "pbc must be true in all directions (crystal) or in none (molecule), "
            f"got {[bool(p) for p in pbc]}"
        )


def _json_able(info: dict[str, Any]) -> dict[str, Any]:
    """Arrays as lists, MSONable objects as dicts, what else JSON does not know as text."""
    from monty.json import jsanitize

    return jsanitize(info, recursive_msonable=True)


def _site_numbers(sites: IStructure | IMolecule) -> np.ndarray:
    from pymatgen.core import DummySpecies

    numbers = []
    for i, site in enumerate(sites):
        if not site.is_ordered:
            raise ValueError(f"site {i} is disordered ({site.species_string})")
        if isinstance(site.specie, DummySpecies):  # its Z is a hash
            raise ValueError(f"site {i} holds {site.species_string}, which is no element")
        numbers.append(site.specie.Z)
    if any(getattr(s.specie, "element", s.specie).name in ("D", "T") for s in sites):
        warn_isotopes()
    return np.array(numbers, dtype=np.int64)
