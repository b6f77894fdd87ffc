"""JSON of structures: pymatgen, Alexandria, matbench, JARVIS, the Materials Project, QMOF."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from adit_model.data.cif import read_cif
from adit_model.data.poscar import is_poscar, read_poscar
from adit_model.data.text import open_text
from adit_model.systems import AtomicSystem, require_full_pbc, warn_isotopes

JSON_SUFFIXES = (".json", ".jsonl")
ID_KEYS = (
    *("id", "material_id", "mat_id", "structure_id", "entry_id", "qmof_id", "jid", "mp_id"),
    *("mpid", "task_id", "name"),
)
STRUCTURE_KEYS = (
    *("structure", "molecule", "final_structure", "initial_structure", "atoms", "cif", "poscar"),
)
MAX_CHARACTERS = 4 << 30  # of a file; a packed one can be far larger than it looks
MAX_ENTRY = 1 << 28  # characters of one entry
_READ_CHARACTERS = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")
_DELIMITER = re.compile(r"\s*[],]")
_LIST_IN_OBJECT = re.compile(r'\s*\{\s*"(?:entries|structures)"\s*:\s*(?=\[)')


def read_json(path: Path) -> Iterator[tuple[str, AtomicSystem | str]]:
    """Read structures of a JSON file, also packed: one, a list, a table, or a mapping by id.

    An entry is a pymatgen ``Structure`` or ``Molecule``, the atoms of JARVIS, text of a CIF or
    POSCAR, or a mapping that holds one of these (``structure``, ``atoms``, ...), as the ``output``
    of a job's document does; its numbers come along in ``info``. Objects may also stand one a line.

    Yields
    ------
    tuple
        An id, empty where there is none, and the system or why there is none.

    Raises
    ------
    ValueError
        If the text is no JSON, or holds no such thing.
    """
    with open_text(path) as file:
        buffer = file.read(_READ_CHARACTERS)
        match = _LIST_IN_OBJECT.match(buffer)
        start = match.end() if match else 0
        if buffer[start:].lstrip().startswith("["):
            for entry in _iterate_list(file, buffer[start:], str(path)):
                yield read_entry(entry)
            return
        while more := file.read(max(_READ_CHARACTERS, len(buffer))):
            buffer += more
            if len(buffer) > MAX_ENTRY:
                raise ValueError(f"{path} is one JSON object of more than {MAX_ENTRY} characters")
    try:
        content, *others = _objects(buffer.strip())
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if others:  # one object a line
        for entry in (content, *others):
            yield read_entry(entry)
        return
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no structures but {type(content).__name__}")
    if isinstance(content.get("columns"), list) and isinstance(content.get("data"), list):
        names = [str(name) for name in content["columns"]]
        index = content.get("index") or range(len(content["data"]))
        for name, row in zip(index, content["data"], strict=False):
            values = dict(zip(names, row, strict=False)) if isinstance(row, list) else row
            found, item = read_entry(values)
            yield found or str(name), item
    elif _holder(content) is not None:
        yield read_entry(content)
    else:
        for key, entry in content.items():
            if isinstance(entry, dict):
                found, item = read_entry(entry)
                yield found or str(key), item
            else:
                yield str(key), f"holds no structure but {type(entry).__name__}"


def _objects(text: str) -> list[Any]:
    """Read the objects of a text, one or several without commas between them."""
    found: list[Any] = []
    decoder, end = json.JSONDecoder(), 0
    while end < len(text) or not found:
        value, end = decoder.raw_decode(text, end)
        found.append(value)
        end += len(text[end:]) - len(text[end:].lstrip())
    return found


def read_entry(entry: Any) -> tuple[str, AtomicSystem | str]:
    """Read one entry: its id, empty where there is none, and the system or why there is none."""
    if isinstance(entry, str):
        entry = {"cif": entry}
    if not isinstance(entry, dict):
        return "", f"the entry is no object but {type(entry).__name__}"
    parts = [entry[key] for key in ("output", "data") if isinstance(entry.get(key), dict)]
    values = {**{k: v for part in parts for k, v in part.items()}, **entry}
    name = id_of(values)
    numbers = {
        key: value
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
    }
    held = _holder(entry)
    try:
        if held is None:
            raise ValueError(f"no structure, but {', '.join(map(str, list(entry)[:8]))}")
        system = _system(held)
        return name, AtomicSystem(
            system.numbers, system.positions, system.cell, {**numbers, **system.info}
        )
    except (ValueError, RecursionError) as error:
        return name, str(error)


def _holder(entry: Mapping[str, Any]) -> Any:
    """Find what describes the structure in an entry: the entry itself or a part of it."""
    if "sites" in entry or "lattice_mat" in entry:
        return entry
    found = next((entry[key] for key in STRUCTURE_KEYS if entry.get(key)), None)
    output = entry.get("output")  # of a job's document
    return _holder(output) if found is None and isinstance(output, Mapping) else found


def _system(held: Any) -> AtomicSystem:
    if isinstance(held, str):
        if held.lstrip().startswith("{"):
            return _system(_literal(held))
        return read_poscar(held) if is_poscar(held) else read_cif(held)
    if not isinstance(held, Mapping):
        raise ValueError(f"a structure is expected, got {type(held).__name__}")
    return _jarvis(held) if "lattice_mat" in held else system_from_structure_dict(held)


def _literal(text: str) -> Any:
    """Read a mapping written as JSON, or as Python writes it, which pandas does."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError):
            raise ValueError(f"no JSON: {error}") from error


def system_from_structure_dict(structure: Mapping[str, Any]) -> AtomicSystem:
    """Read the dictionary form of a pymatgen ``Structure`` or ``Molecule`` without pymatgen.

    Raises
    ------
    ValueError
        If it is no such dictionary, it is periodic in one or two directions only, or a site is
        disordered or holds no element.
    """
    try:
        sites = structure["sites"]
        species = [site["species"] for site in sites]
        if any(len(s) != 1 or float(s[0]["occu"]) != 1.0 for s in species):
            raise ValueError("the structure is disordered")
        numbers = _numbers([s[0]["element"] for s in species])
        if "lattice" not in structure:
            positions = np.array([site["xyz"] for site in sites], dtype=np.float64)
            charge = structure.get("charge")
            return AtomicSystem(numbers, positions, None, {"charge": charge} if charge else {})
        require_full_pbc(structure["lattice"].get("pbc") or (True, True, True))
        cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
        frac = np.array([site["abc"] for site in sites], dtype=np.float64)
        return AtomicSystem(numbers, frac @ cell, cell)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__} {error}"
        raise ValueError(f"not the dictionary of a pymatgen Structure: {reason}") from error


def _jarvis(atoms: Mapping[str, Any]) -> AtomicSystem:
    try:
        cell = np.array(atoms["lattice_mat"], dtype=np.float64)
        positions = np.array(atoms["coords"], dtype=np.float64)
        numbers = _numbers([str(symbol).strip() for symbol in atoms["elements"]])
        positions = positions if atoms.get("cartesian") else positions @ cell
        return AtomicSystem(numbers, positions, cell)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the atoms of JARVIS: {type(error).__name__} {error}") from error


def _numbers(symbols: list[str]) -> np.ndarray:
    from ase.data import atomic_numbers

    if any(symbol in ("D", "T") for symbol in symbols):
        warn_isotopes()
        symbols = ["H" if symbol in ("D", "T") else symbol for symbol in symbols]
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)


def id_of(values: Mapping[str, Any]) -> str:
    """Name of a structure: the first of :data:`ID_KEYS` that is there; empty without one."""
    found = (values[key] for key in ID_KEYS if isinstance(values.get(key), str | int))
    return next((str(value) for value in found if value not in ("", True, False)), "")


def iterate_json_list(file: TextIO, name: str) -> Iterator[Any]:
    """Decode the entries of one long JSON list one by one, since all at once may fill the memory.

    Raises
    ------
    ValueError
        If the text is no JSON list, or ends before the list does.
    """
    return _iterate_list(file, file.read(_READ_CHARACTERS), name)


def _iterate_list(file: TextIO, buffer: str, name: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    buffer = buffer.lstrip()
    total = len(buffer)
    if not buffer.startswith("["):
        raise ValueError(f"{name} is no JSON list, it starts with {buffer[:20]!r}")
    start = 1
    while True:
        start = _BETWEEN.match(buffer, start).end()  # type: ignore[union-attr]
        if buffer.startswith("]", start):
            return
        try:
            entry, end = decoder.raw_decode(buffer, start)
        except json.JSONDecodeError as error:
            reason = str(error)
        except RecursionError as error:
            raise ValueError(f"{name} nests too deeply for an entry of structures") from error
        else:
            # The first digits of a number are a number too, so look past the entry.
            if _DELIMITER.match(buffer, end):
                yield entry
                start = end
                continue
            reason = "the list does not end"
        # Doubling keeps the total work proportional to the size of the entry.
        more = file.read(max(_READ_CHARACTERS, len(buffer) - start))
        total += len(more)
        if not more:
            raise ValueError(f"{name} is no complete JSON list: {reason}")
        if len(buffer) - start > MAX_ENTRY or total > MAX_CHARACTERS:
            raise ValueError(f"{name} is too large, {total} characters and more: divide it")
        buffer, start = buffer[start:] + more, 0
