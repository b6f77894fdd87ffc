"""Reading the CIF text of one crystal: a fast reader for P1 files, pymatgen for the others."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np

from adit_model.canonical import MAX_ATOMS
from adit_model.systems import MAX_COORDINATE, AtomicSystem, warn_isotopes

_PARAMETERS = [
    re.compile(rf"^\s*_cell_{name}\s+(\S+)", re.MULTILINE)
    for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
]
MAX_LINE = 2048  # characters, of the CIF standard
_DATA_BLOCK = re.compile(r"^data_", re.MULTILINE)
_ATOM_LOOP = re.compile(
    r"^\s*loop_\s*\n((?:\s*_atom_site_[A-Za-z_]+\s*\n)+)((?:(?!\s*(?:loop_|_|data_|#|;)).*\n?)*)",
    re.MULTILINE,
)
_ATOM_TAG = re.compile(r"_atom_site_\w+")
_SYMMETRY_LOOP = re.compile(
    r"^\s*loop_\s*\n(?:\s*_(?:symmetry_equiv_pos|space_group_symop)\w*\s*\n)+"
    r"((?:(?!\s*(?:loop_|_|data_|#|;)).*\n?)*)",
    re.MULTILINE,
)
_IDENTITY = re.compile(
    r"^\s*(?:1\s+)?(['\"]?)\s*\+?x\s*,\s*\+?y\s*,\s*\+?z\s*\1\s*$", re.IGNORECASE
)
_SPACE_GROUP = re.compile(
    r"^\s*_(?:symmetry_Int_Tables_number|space_group_IT_number)\s+(\S+)", re.MULTILINE
)
_SYMBOL = re.compile(r"([A-Z][a-z]?)(?:\d*[+-]\d*)?$")


def read_cif(text: str) -> AtomicSystem:
    """Read one ordered crystal from CIF text.

    A file that lists every atom of its cell (space group P1, full occupancy), as CDVAE and pymatgen
    write them, keeps its coordinates and its order of atoms exactly; any other one is expanded by
    pymatgen, whose order it then has. The cell has the lengths and angles of the file, a along x
    and b in the xy plane.

    Raises
    ------
    ValueError
        If the text is no CIF, the crystal is disordered, or its cell has no volume.
    """
    text = _without_blanks(text)
    return _read_p1_cif(text) or read_cif_with_pymatgen(text)


def _without_blanks(text: str) -> str:
    """Leave out blank lines and long runs of blanks, which cost patterns quadratic time."""
    lines = (line if len(line) <= MAX_LINE else " ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line.rstrip() for line in lines if line and not line.isspace()) + "\n"


def split_cif(text: str) -> list[str]:
    """Cut CIF text into its data blocks that hold atoms; text without any stays whole."""
    starts = [match.start() for match in _DATA_BLOCK.finditer(text)]
    blocks = [text[a:b] for a, b in pairwise([*starts, len(text)])]
    return [block for block in blocks if "_atom_site_" in block] or [text]


def _read_p1_cif(text: str) -> AtomicSystem | None:
    """Read a P1 CIF, or return None for anything that is not certainly one."""
    # One match of each pattern, or the text is left to pymatgen.
    if len(_DATA_BLOCK.findall(text)) != 1 or not _is_p1(text):
        return None
    loops = [m for m in _ATOM_LOOP.finditer(text) if "_atom_site_fract_x" in m.group(1)]
    parameters = [pattern.findall(text) for pattern in _PARAMETERS]
    if len(loops) != 1 or any(len(found) != 1 for found in parameters):
        return None
    tags = _ATOM_TAG.findall(loops[0].group(1))
    rows = [line.split() for line in loops[0].group(2).splitlines() if line.strip()]
    if not rows or any(len(row) != len(tags) for row in rows):
        return None
    columns = dict(zip(tags, zip(*rows, strict=True), strict=True))
    names = columns.get("_atom_site_type_symbol")
    if names is None:
        return None
    try:
        values = np.array([float(found[0]) for found in parameters])
        frac = np.array([columns[f"_atom_site_fract_{axis}"] for axis in "xyz"], dtype=np.float64).T
        occupancies = [float(x) for x in columns.get("_atom_site_occupancy", ())]
        numbers = np.array([_number(name) for name in names])
    except (KeyError, ValueError):
        return None
    if any(x != 1.0 for x in occupancies) or (numbers == 0).any() or not np.isfinite(frac).all():
        return None
    if _has_coincident_atoms(frac):
        return None
    return _system(numbers, frac, values)


def _system(numbers: np.ndarray, frac: np.ndarray, parameters: np.ndarray) -> AtomicSystem:
    """Build a crystal from fractional coordinates and six parameters (angstrom, degrees)."""
    from ase.geometry import cellpar_to_cell

    lengths, angles = parameters[:3], parameters[3:]
    cosines = np.cos(np.radians(angles))
    # Squared volume of the unit parallelepiped with these angles.
    volume = 1.0 - (cosines**2).sum() + 2.0 * cosines.prod()
    if not np.isfinite(parameters).all() or (lengths <= 0).any() or volume < 1e-9:
        raise ValueError(f"no cell has the parameters {parameters.tolist()} (angstrom, degrees)")
    cell = cellpar_to_cell(parameters)
    return AtomicSystem(numbers, frac @ cell, cell)


def _is_p1(text: str) -> bool:
    symmetry = _SYMMETRY_LOOP.findall(text)
    operations = [line for block in symmetry for line in block.splitlines() if line.strip()]
    if operations:
        return len(operations) == 1 and _IDENTITY.match(operations[0]) is not None
    return not symmetry and _SPACE_GROUP.findall(text) == ["1"]


def _number(name: str) -> int:
    from ase.data import atomic_numbers

    match = _SYMBOL.match(name)
    return atomic_numbers.get(match.group(1), 0) if match else 0


def _has_coincident_atoms(frac: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Whether two atoms share a place, which pymatgen merges (same tolerance as its default)."""
    from scipy.spatial import cKDTree

    tree = cKDTree((frac % 1.0) % 1.0, boxsize=1.0)
    return len(tree.query_pairs(tolerance, p=np.inf)) > 0


def read_cif_with_pymatgen(text: str) -> AtomicSystem:
    """Read any CIF of one ordered crystal; slower than the reader for P1 files.

    Raises
    ------
    ValueError
        If the text is no CIF, the crystal is disordered, or its cell has no volume.
    """
    from pymatgen.io.cif import CifParser

    if fault := _fault(text):
        raise ValueError(fault)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            structures = CifParser.from_str(text).parse_structures(primitive=False)
        except Exception as error:  # pymatgen raises any type on malformed text
            reason = f"pymatgen cannot read the CIF: {' '.join(str(error).split())}"
            raise ValueError(reason) from error
    if not structures:
        raise ValueError("the CIF holds no structure")
    system = AtomicSystem.from_structure(structures[0])
    parameters = np.array(structures[0].lattice.parameters)
    return _system(system.numbers, structures[0].frac_coords, parameters)


def _fault(text: str) -> str | None:
    """Say why no structure can be made of a CIF: what is unknown in it, or contradicts itself."""
    from pymatgen.io.cif import CifFile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            blocks = [dict(block.data) for block in CifFile.from_str(text).data.values()]
        except Exception:  # pymatgen raises any type on malformed text, and again when it reads it
            return None
    found = next((b for b in blocks if any(k.startswith("_atom_site_") for k in b)), None)
    if found is None:
        return "the CIF lists no atoms (no _atom_site_ loop)"
    return _cell_fault(found) or _atom_fault(found)


def _cell_fault(block: dict[str, Any]) -> str | None:
    for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"):
        value = block.get(f"_cell_{name}")
        label = f"cell {name.replace('_', ' ')}"
        if value is None:
            return f"{label} is not given (no _cell_{name})"
        if not np.isfinite(number := _value(value)) or number <= 0:
            return f"{label} is {value!r}"
        if name.startswith("length") and number > MAX_COORDINATE:
            return f"{label} is {number:.4g} angstrom, at most {MAX_COORDINATE:g} are read"
    return None


def _atom_fault(block: dict[str, Any]) -> str | None:
    columns = {key: value for key, value in block.items() if key.startswith("_atom_site_")}
    coordinates: list[Any] = [columns.get(f"_atom_site_fract_{axis}") for axis in "xyz"]
    if not all(isinstance(c, list) and len(c) == len(coordinates[0]) for c in coordinates):
        return "the CIF lists no fractional coordinates (_atom_site_fract_x, _y, _z)"
    count = len(coordinates[0])
    if count > MAX_ATOMS:
        return f"the CIF lists {count} atoms, at most {MAX_ATOMS} are read"
    frac = np.array([[_value(x) for x in column] for column in coordinates]).T
    unknown = ~np.isfinite(frac).all(axis=1)
    if unknown.any():
        return f"{int(unknown.sum())} of {count} atoms have no coordinates"
    names: Any = columns.get("_atom_site_type_symbol") or columns.get("_atom_site_label") or []
    if any(re.match(r"[DT]([^a-z]|$)", str(name)) for name in names):
        warn_isotopes()
    formula = str(block.get("_chemical_formula_sum", ""))
    has_hydrogen = any(re.match(r"[HDT]([^a-z]|$)", str(name)) for name in names)
    if names and not has_hydrogen and re.search(r"\b[HD](?=[\d\s.]|$)", formula):
        return f"the formula is {formula}, but no hydrogen has coordinates"
    occupancies = np.array([_value(x) for x in columns.get("_atom_site_occupancy") or []])
    if len(occupancies) == count and np.isfinite(occupancies).all():
        shared: dict[tuple[float, ...], dict[str, float]] = defaultdict(dict)
        for place, name, share in zip(np.round(frac % 1.0, 4), names, occupancies, strict=False):
            shared[tuple(place.tolist())][str(name)] = float(share)  # an atom given twice is one
        for place, shares in shared.items():
            if (total := sum(shares.values())) > 1.05:
                return f"the occupancies of {', '.join(shares)} at {place} sum to {total:.4g}"
    return None


def _value(text: object) -> float:
    """Read a number, its uncertainty in brackets left out; NaN if there is none."""
    try:
        return float(str(text).split("(")[0])
    except ValueError:
        return np.nan
