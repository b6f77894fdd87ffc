"""Structures a user already has: lists of objects, ASE databases, files and folders of files."""

from __future__ import annotations

import io
import re
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from adit_model.data.cif import read_cif, split_cif
from adit_model.data.collect import collect
from adit_model.data.dataset import AtomicDataset
from adit_model.systems import AtomicSystem

Item = tuple[str, AtomicSystem | str]

CIF_SUFFIXES = (".cif",)
XYZ_SUFFIXES = (".xyz", ".extxyz")
POSCAR_SUFFIXES = (".vasp", ".poscar")
SDF_SUFFIXES = (".sdf", ".mol")
FILE_SUFFIXES = CIF_SUFFIXES + XYZ_SUFFIXES + POSCAR_SUFFIXES + SDF_SUFFIXES
ID_KEYS = ("id", "material_id", "name")
_POSCAR_NAME = re.compile(r"(POSCAR|CONTCAR)([._-].*)?$", re.IGNORECASE)


def load_structures(
    source: str | Path | Iterable[Any],
    name: str | None = None,
    max_atoms: int | None = None,
    progress: bool = True,
) -> AtomicDataset:
    """Load crystals and molecules from objects, a file or a folder.

    Parameters
    ----------
    source : str, Path or iterable
        Objects (``AtomicSystem``, pymatgen, ASE, RDKit); or the path of an ASE database (``.db``),
        of one file (CIF, XYZ, extended XYZ, SDF, POSCAR), or of a folder that is searched for such
        files, subfolders included. Files may hold many structures.
    name : str, optional
        Name of the data set; by default that of the file or folder.
    max_atoms : int, optional
        Leave out systems larger than that in canonical form; they are listed in ``skipped``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    AtomicDataset
        In canonical form (:func:`~adit_model.canonical.canonicalise`), so the order of atoms and
        the cell may be others than in the source. Systems are named by ``id``, ``material_id`` or
        ``name`` in their own information if it is there, else by file and number. What cannot be
        read, is disordered, has an unphysical cell or is periodic in one or two directions only,
        is in ``skipped`` with the reason, and one warning counts it.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    ValueError
        If the file type is unknown, or nothing can be read.
    """
    from tqdm import tqdm

    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        items, default = read_structures(path), path.absolute().name
    else:
        items, default = _from_objects(source), "structures"
    name = default if name is None else name
    bar = tqdm(items, desc=f"reading {name}", unit="structure", disable=not progress)
    return collect(bar, name, max_atoms)


def read_one(path: str | Path) -> AtomicSystem:
    """Read the one structure of a file as it is: its own cell, order and coordinates.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If its type is unknown, it cannot be read, or it holds none or several.
    """
    path = Path(path).expanduser()
    if path.is_dir() or path.suffix.lower() == ".db":
        raise ValueError(f"{path} holds many structures: give a file of one")
    items = [item for _, item in read_structures(path)]
    if len(items) != 1:
        raise ValueError(f"{path} holds {len(items)} structures: give a file of one")
    if isinstance(items[0], str):
        raise ValueError(f"{path} cannot be used: {items[0]}")
    return items[0]


def is_structure_file(path: Path) -> bool:
    """Whether :func:`load_structures` reads files with such a name."""
    return path.suffix.lower() in FILE_SUFFIXES or bool(_POSCAR_NAME.match(path.name))


def system_from_structure_dict(structure: dict[str, Any]) -> AtomicSystem:
    """Read the dictionary form of a pymatgen ``Structure`` without pymatgen.

    Raises
    ------
    ValueError
        If it is no such dictionary, or a site is disordered or holds no element.
    """
    from ase.data import atomic_numbers

    try:
        cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
        sites = structure["sites"]
        frac = np.array([site["abc"] for site in sites], dtype=np.float64)
        species = [site["species"] for site in sites]
        if any(len(s) != 1 or float(s[0]["occu"]) != 1.0 for s in species):
            raise ValueError("the structure is disordered")
        numbers = np.array([atomic_numbers[s[0]["element"]] for s in species], dtype=np.int64)
    except (KeyError, TypeError, IndexError) as error:
        reason = f"{type(error).__name__} {error}"
        raise ValueError(f"not the dictionary of a pymatgen Structure: {reason}") from error
    return AtomicSystem(numbers, frac @ cell, cell)


def holds_structures(path: Path) -> bool:
    """Whether :func:`read_structures` takes it: a folder, or a file by its name."""
    return path.is_dir() or (
        path.is_file() and (path.suffix.lower() == ".db" or is_structure_file(path))
    )


def read_structures(path: Path) -> Iterator[Item]:
    """Read files of structures as they are: an id of each, and a system or why there is none.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_structures`.
    """
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file or folder {path}")
    if path.suffix.lower() == ".db":
        return _from_ase_db(path)
    if is_structure_file(path):
        return _from_file(path, path.stem)
    raise ValueError(
        f"cannot tell what {path.name} holds; known are .db, {', '.join(FILE_SUFFIXES)}, "
        "POSCAR, CONTCAR and folders of these"
    )


def _from_folder(folder: Path) -> Iterator[Item]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and is_structure_file(p))
    if not files:
        raise ValueError(
            f"the folder {folder} holds no {', '.join(FILE_SUFFIXES)}, POSCAR or CONTCAR file"
        )
    for path in files:
        relative = path.relative_to(folder)
        stem = relative if _POSCAR_NAME.match(path.name) else relative.with_suffix("")
        yield from _from_file(path, stem.as_posix())


def _from_file(path: Path, stem: str) -> Iterator[Item]:
    """Read all structures of one file; those after the first are named ``stem#1`` and so on."""
    suffix = path.suffix.lower()
    if suffix in CIF_SUFFIXES:
        read = _from_cif
    elif suffix in XYZ_SUFFIXES:
        read = _from_xyz
    elif suffix in SDF_SUFFIXES:
        read = _from_sdf
    else:
        read = _from_poscar
    try:
        for i, (name, item) in enumerate(read(path)):
            yield name or (stem if i == 0 else f"{stem}#{i}"), item
    except (OSError, UnicodeDecodeError) as error:
        yield stem, f"{path} cannot be read: {error}"


def _from_objects(objects: Iterable[Any]) -> Iterator[Item]:
    for i, obj in enumerate(objects):
        try:
            system = AtomicSystem.from_any(obj)
        except (TypeError, ValueError) as error:
            yield str(i), str(error)
        else:
            yield _id_of(system.info) or str(i), system


def _from_ase_db(path: Path) -> Iterator[Item]:
    from ase.db import connect

    if path.read_bytes()[:15] != b"SQLite format 3":
        raise ValueError(f"{path} is no ASE database: it is not an SQLite file")
    try:
        with connect(path, type="db") as database:
            for row in database.select():
                row_id = _id_of(row.key_value_pairs) or str(row.id)
                yield row_id, _convert(row.toatoms, **row.key_value_pairs)
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} is no readable ASE database: {error}") from error


def _from_cif(path: Path) -> Iterator[tuple[str, AtomicSystem | str]]:
    for block in split_cif(path.read_text(encoding="utf-8", errors="replace")):
        try:
            yield "", read_cif(block)
        except ValueError as error:
            yield "", str(error)


def _from_poscar(path: Path) -> Iterator[tuple[str, AtomicSystem | str]]:
    from ase.io import read

    yield "", _convert(lambda: read(path, format="vasp"))


def _from_sdf(path: Path) -> Iterator[tuple[str, AtomicSystem | str]]:
    from rdkit import Chem

    with open(path, "rb") as file:
        for mol in Chem.ForwardSDMolSupplier(file, removeHs=False, sanitize=False):
            if mol is None:
                yield "", "RDKit cannot read the record"
                continue
            title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
            try:
                yield title, AtomicSystem.from_rdkit(mol, **mol.GetPropsAsDict())
            except ValueError as error:
                yield title, str(error)


def _from_xyz(path: Path) -> Iterator[tuple[str, AtomicSystem | str]]:
    """Read plain or extended XYZ frame by frame, so that a bad frame costs only itself."""
    with open(path, encoding="utf-8") as file:
        for frame, reason in _xyz_frames(file):
            system = reason or _read_xyz_frame(frame)
            yield "" if isinstance(system, str) else _id_of(system.info), system


def _xyz_frames(file: TextIO) -> Iterator[tuple[str, str]]:
    """Cut a file into frames by their atom counts; a last ``("", reason)`` says why it stopped."""
    number = 0
    while head := file.readline():
        number += 1
        if not head.strip():
            continue
        try:
            count = int(head)
        except ValueError:
            count = 0
        if count < 1:
            reason = f"expected a number of atoms, got {head.strip()!r}; the rest is not read"
            yield "", f"line {number}: {reason}"
            return
        lines = list(islice(file, count + 1))
        if len(lines) < count + 1:
            found = max(len(lines) - 1, 0)
            yield "", f"line {number}: {count} atoms announced, the file ends after {found}"
            return
        number += len(lines)
        yield head + "".join(lines), ""


def _read_xyz_frame(frame: str) -> AtomicSystem | str:
    from ase.io import read

    extended = _convert(lambda: read(io.StringIO(frame), format="extxyz"))
    if isinstance(extended, str) and "Lattice=" not in frame:
        # A free-text comment line can look like a broken extended one.
        plain = _convert(lambda: read(io.StringIO(frame), format="xyz"))
        return extended if isinstance(plain, str) else plain
    return extended


def _convert(read: Any, **info: Any) -> AtomicSystem | str:
    """Read one ``ase.Atoms`` with what was calculated; a string says why it cannot be used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            atoms = read()
            results = {} if atoms.calc is None else atoms.calc.results
            return AtomicSystem.from_atoms(atoms, **{**results, **info})
        except Exception as error:  # the readers of ASE raise any type on malformed text
            return f"{type(error).__name__}: {error}"


def _id_of(info: dict[str, Any]) -> str:
    return next((str(info[key]) for key in ID_KEYS if info.get(key) not in (None, "")), "")
