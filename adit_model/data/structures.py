"""Structures a user already has: lists of objects, ASE databases, files and folders of files."""

from __future__ import annotations

import io
import logging
import re
import sqlite3
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adit_model.data.cif import read_cif, split_cif
from adit_model.data.collect import collect
from adit_model.data.dataset import AtomicDataset
from adit_model.data.json_files import JSON_SUFFIXES, id_of, read_json
from adit_model.data.poscar import read_poscar
from adit_model.data.text import PACKINGS, UNPACKING, inner_name, open_binary, open_text, read_text
from adit_model.data.xyz import (
    charge_and_multiplicity,
    comment_charge,
    plain_frame,
    xyz_frames,
)
from adit_model.files import READY, SETTINGS, UNFINISHED
from adit_model.systems import AtomicSystem, as_list

logger = logging.getLogger(__name__)

Item = tuple[str, AtomicSystem | str]

CIF_SUFFIXES = (".cif", ".mcif")
XYZ_SUFFIXES = (".xyz", ".extxyz")
POSCAR_SUFFIXES = (".vasp", ".poscar")
SDF_SUFFIXES = (".sdf", ".mol")
ASE_FORMATS = {".pdb": "proteindatabank", ".ent": "proteindatabank", ".traj": "traj"}
FILE_SUFFIXES = (
    *(CIF_SUFFIXES + XYZ_SUFFIXES + POSCAR_SUFFIXES + SDF_SUFFIXES),
    *(*ASE_FORMATS, *JSON_SUFFIXES),
)
_POSCAR_NAME = re.compile(r"(POSCAR|CONTCAR)([._-].*)?$", re.IGNORECASE)
_RUN_NAME = re.compile(r"(vasprun.*\.xml|XDATCAR)$", re.IGNORECASE)
# A folder of `adit generate` or `predict`: all in one file, each once more in folders beside it
SAMPLES = "samples.extxyz"
COPIES = ("crystals", "molecules", "candidates", "known", UNFINISHED, READY)


def load_structures(
    source: str | Path | Iterable[Any],
    name: str | None = None,
    max_atoms: int | None = None,
    progress: bool = True,
    add_hydrogens: bool = False,
) -> AtomicDataset:
    """Load crystals and molecules from objects, a file or a folder.

    Parameters
    ----------
    source : str, Path or iterable
        Objects (``AtomicSystem``, pymatgen, ASE, RDKit), or one; or the path of an ASE database
        (``.db``), of one file (CIF, XYZ, extended XYZ, SDF, POSCAR, PDB, XDATCAR, vasprun.xml, ASE
        trajectory, JSON as of :func:`~adit_model.data.json_files.read_json`), or of a folder that
        is searched for such files, subfolders included. Files may hold many structures.
    name : str, optional
        Name of the data set; by default that of the file or folder.
    max_atoms : int, optional
        Leave out systems larger than that in canonical form; they are listed in ``skipped``.
    progress : bool
        Show a progress bar.
    add_hydrogens : bool
        Add the hydrogens that drawn molecules (SDF, RDKit) lack; otherwise these are skipped.

    Returns
    -------
    AtomicDataset
        In canonical form (:func:`~adit_model.canonical.canonicalise`), so the order of atoms and
        the cell may be others than in the source. Systems are named by ``id``, ``material_id`` or
        the like (:data:`~adit_model.data.json_files.ID_KEYS`) in their own information if it is
        there, else by file and number. What cannot be read, is disordered, has an unphysical cell
        or is periodic in one or two directions only, is in ``skipped`` with the reason, and one
        warning counts it. Others say what is doubtful (:func:`~adit_model.data.checks.doubts`).

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
        items, default = read_structures(path, add_hydrogens), path.absolute().name
    else:
        items, default = _from_objects(source, add_hydrogens), "structures"
    name = default if name is None else name
    bar = tqdm(items, desc=f"reading {name}", unit="structure", disable=not progress)
    with reading(name):
        return collect(bar, name, max_atoms)


@contextmanager
def reading(source: object) -> Iterator[None]:
    """Turn what damaged files make readers raise into ``ValueError`` that names the source."""
    try:
        yield
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is no text in UTF-8: {error}") from error
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, *UNPACKING) as error:
        raise ValueError(f"{source} cannot be read: {error}") from error
    except (RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"{source} is damaged: {type(error).__name__}") from error


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
    name = inner_name(path)
    known = _POSCAR_NAME.match(name) or _RUN_NAME.match(name)
    return bool(known) or name.endswith(FILE_SUFFIXES)


def holds_structures(path: Path) -> bool:
    """Whether :func:`read_structures` takes it: a folder, or a file by its name."""
    return path.is_dir() or (
        path.is_file() and (path.suffix.lower() == ".db" or is_structure_file(path))
    )


def read_structures(path: Path, add_hydrogens: bool = False) -> Iterator[Item]:
    """Read files of structures as they are: an id of each, and a system or why there is none.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_structures`.
    """
    if path.is_dir():
        return _from_folder(path, add_hydrogens)
    if not path.is_file():
        raise FileNotFoundError(f"no file or folder {path}")
    if path.suffix.lower() == ".db":
        return _from_ase_db(path)
    if is_structure_file(path):
        return _from_file(path, _stem(path.name), add_hydrogens)
    raise ValueError(
        f"cannot tell what {path.name} holds; known are .db, {', '.join(FILE_SUFFIXES)}, "
        "POSCAR, CONTCAR, XDATCAR, vasprun.xml, these packed (.gz, .bz2, .xz), and folders of these"
    )


def _stem(name: str) -> str:
    """Name of a file without its type and packing."""
    name = name[: len(inner_name(Path(name)))]
    ending = next((e for e in (*FILE_SUFFIXES, ".xml") if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)] or name


def _from_folder(folder: Path, add_hydrogens: bool) -> Iterator[Item]:
    found = [p for p in folder.rglob("*") if p.is_file() and is_structure_file(p)]
    runs = {p.parent for p in found if p.name == SAMPLES and (p.parent / SETTINGS).is_file()}
    for run in sorted(runs):
        logger.info("%s: %s is read, the files beside it hold the same samples", run, SAMPLES)
    left_out = {run / name for run in runs for name in (*COPIES, SETTINGS)}
    files = sorted(p for p in found if not left_out & {p, *p.parents})
    if not files:
        raise ValueError(
            f"the folder {folder} holds no {', '.join(FILE_SUFFIXES)}, POSCAR or CONTCAR file"
        )
    for path in files:
        relative = path.relative_to(folder)
        stem = relative.with_name(_stem(path.name)).as_posix()
        try:
            yield from _from_file(path, stem, add_hydrogens)
        except ValueError as error:  # one file, not the folder, is unusable
            yield stem, str(error)


def _from_file(path: Path, stem: str, add_hydrogens: bool) -> Iterator[Item]:
    """Read all structures of one file; those after the first are named ``stem#1`` and so on."""
    name = inner_name(path)
    suffix = Path(name).suffix
    read: Callable[[Path], Iterator[Item]]
    if suffix in CIF_SUFFIXES:
        read = _from_cif
    elif suffix in XYZ_SUFFIXES:
        read = _from_xyz
    elif suffix in SDF_SUFFIXES:
        read = partial(_from_sdf, add_hydrogens=add_hydrogens)
    elif suffix in JSON_SUFFIXES:
        read = read_json
    elif suffix in ASE_FORMATS or _RUN_NAME.match(name):
        read = _from_ase
    else:
        read = _from_poscar
    with reading(path):
        for i, (found, item) in enumerate(read(path)):
            yield found or (stem if i == 0 else f"{stem}#{i}"), item


def _from_objects(objects: Any, add_hydrogens: bool) -> Iterator[Item]:
    for i, obj in enumerate(as_list(objects)):
        try:
            if add_hydrogens and hasattr(obj, "GetNumConformers"):
                obj = with_hydrogens(obj)
            system = AtomicSystem.from_any(obj)
        except (TypeError, ValueError) as error:
            yield str(i), str(error)
        else:
            yield id_of(system.info) or str(i), system


def _from_ase_db(path: Path) -> Iterator[Item]:
    from ase.db import connect

    if path.read_bytes()[:15] != b"SQLite format 3":
        raise ValueError(f"{path} is no ASE database: it is not an SQLite file")
    try:
        with connect(path, type="db") as database:
            for row in database.select():
                row_id = id_of(row.key_value_pairs) or str(row.id)
                yield row_id, _convert(row.toatoms, **row.key_value_pairs)
    except (sqlite3.Error, LookupError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is no readable ASE database: {error}") from error


def _from_cif(path: Path) -> Iterator[Item]:
    for block in split_cif(read_text(path)):
        try:
            yield "", read_cif(block)
        except ValueError as error:
            yield "", str(error)


def _from_poscar(path: Path) -> Iterator[Item]:
    try:
        yield "", read_poscar(read_text(path))
    except ValueError as error:
        yield "", str(error)


def _from_ase(path: Path) -> Iterator[Item]:
    """Read the models of a file by ASE."""
    from ase.io import iread

    name = inner_name(path)
    kind = ASE_FORMATS.get(Path(name).suffix)
    if kind is None:
        kind = "vasp-xdatcar" if name == "xdatcar" else "vasp-xml"
    try:
        for atoms in iread(path, index=":", format=kind):
            if not len(atoms):  # END after the last ENDMDL of a PDB file
                continue
            if np.allclose(atoms.cell.array, np.eye(3)):  # what PDB files say of molecules
                atoms.cell, atoms.pbc = None, False
            yield "", _convert(lambda found=atoms: found)
    except Exception as error:  # the readers of ASE raise any type on malformed text
        yield "", f"{type(error).__name__}: {error}"


def _from_sdf(path: Path, add_hydrogens: bool) -> Iterator[Item]:
    from rdkit import Chem, rdBase

    with open_binary(path) as file:
        packed = path.suffix.lower() in PACKINGS  # RDKit cannot handle errors of unpacking
        stream = io.BytesIO(file.read()) if packed else file
        quiet = rdBase.BlockLogs()  # what it says is in the reasons
        for mol in Chem.ForwardSDMolSupplier(stream, removeHs=False, sanitize=False):
            if mol is None:
                yield "", "RDKit cannot read the record"
                continue
            title = mol.GetProp("_Name").strip() if mol.HasProp("_Name") else ""
            try:
                if add_hydrogens:
                    mol = with_hydrogens(mol)
                yield title, AtomicSystem.from_rdkit(mol, **mol.GetPropsAsDict())
            except (ValueError, TypeError, RuntimeError) as error:
                yield title, " ".join(str(error).split())
        del quiet


def with_hydrogens(mol: Any) -> Any:
    """Add the hydrogens that an RDKit molecule lacks, with coordinates."""
    from rdkit import Chem

    mol.UpdatePropertyCache(strict=False)
    return Chem.AddHs(mol, addCoords=True)


def _from_xyz(path: Path) -> Iterator[Item]:
    with open_text(path) as file:
        for frame, reason in xyz_frames(file):
            system = reason or _read_xyz_frame(frame)
            yield "" if isinstance(system, str) else id_of(system.info), system


def _read_xyz_frame(frame: str) -> AtomicSystem | str:
    from ase.io import read

    try:
        frame = plain_frame(frame)
    except ValueError as error:
        return str(error)
    charge = comment_charge(frame)
    told = {} if charge is None else {"charge": charge}
    extended = _convert(lambda: read(io.StringIO(frame), format="extxyz"), **told)
    if isinstance(extended, str) and "Lattice=" not in frame:
        # A free-text comment line can look like a broken extended one.
        plain = _convert(lambda: read(io.StringIO(frame), format="xyz"), **told)
        return extended if isinstance(plain, str) else plain
    if not isinstance(extended, str):
        pair = charge_and_multiplicity(frame.split("\n", 2)[1], extended.numbers)
        return replace(extended, info=pair) if pair else extended
    return extended


def _convert(read: Any, **info: Any) -> AtomicSystem | str:
    """Read one ``ase.Atoms`` with what was calculated; a string says why it cannot be used."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = read()
        results = {} if atoms.calc is None else atoms.calc.results
        return AtomicSystem.from_atoms(atoms, **{**results, **info})
    except Exception as error:  # the readers of ASE raise any type on malformed text
        return f"{type(error).__name__}: {error}"
