"""Drug-like molecules with conformers: GEOM (Axelrod et al., Sci. Data 9, 185, 2022)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from adit_model.data.collect import collect
from adit_model.data.dataset import AtomicDataset
from adit_model.data.structures import load_structures
from adit_model.systems import AtomicSystem

_LARGEST_BATCH = 2**31 - 1


def load_geom(
    path: str | Path,
    conformers: int = 1,
    max_atoms: int | None = None,
    max_molecules: int | None = None,
    progress: bool = True,
) -> AtomicDataset:
    """Load GEOM conformers, hydrogens included.

    Parameters
    ----------
    path : str or Path
        ``drugs_crude.msgpack`` (or ``qm9_crude.msgpack``), also inside its ``.tar.gz``, as
        published: a stream of maps from SMILES to ``{"conformers": [{"geom_id", "totalenergy",
        "xyz": [[Z, x, y, z], ...]}, ...]}``, angstrom and hartree. Or an SDF or (extended) XYZ
        file, of which every record is taken. Pickles are refused, since they can run code.
    conformers : int
        Most conformers of a molecule, lowest energy first.
    max_atoms : int, optional
        Leave out larger molecules; they are listed in ``skipped``.
    max_molecules : int, optional
        Stop after so many molecules.
    progress : bool
        Show a progress bar.

    Returns
    -------
    AtomicDataset
        Named ``geom_<geom_id>``; what cannot be read is in ``skipped`` by its SMILES.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is none of these formats, nothing can be read, or a number is not positive.
    ImportError
        If ``msgpack`` is not installed.
    """
    from tqdm import tqdm

    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    for name, value in (("conformers", conformers), ("max_molecules", max_molecules)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value}")
    if path.suffix in (".pickle", ".pkl"):
        raise ValueError(
            f"{path} is a pickle, which can run any code when read: use drugs_crude.msgpack, or "
            "convert the file to SDF where it came from"
        )
    if path.suffix == ".msgpack" or path.name.endswith((".tar.gz", ".tgz", ".tar")):
        items = _conformers(_molecules(path), conformers, max_molecules)
        bar = tqdm(items, desc="reading GEOM", unit="conformer", disable=not progress)
        return collect(bar, "GEOM", max_atoms)
    return load_structures(path, "GEOM", max_atoms, progress)


def _molecules(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".msgpack":
        with open(path, "rb") as file:
            yield from _unpack(file, path, path.stat().st_size)
        return
    try:
        # Streaming: the archive holds one file of some 50 GB.
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                opened = archive.extractfile(member) if member.isfile() else None
                if opened is not None and member.name.endswith(".msgpack"):
                    yield from _unpack(opened, path, member.size)
                    return
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no readable tar archive: {error}") from error
    raise ValueError(f"{path} holds no .msgpack file")


def _unpack(file: IO[bytes], path: Path, size: int) -> Iterator[tuple[str, Any]]:
    try:
        import msgpack
    except ImportError as error:
        raise ImportError(
            "GEOM is read with the package msgpack, which is not installed: pip install msgpack"
        ) from error

    unpacker = msgpack.Unpacker(file, strict_map_key=False, max_buffer_size=_LARGEST_BATCH)
    try:
        for batch in unpacker:
            if not isinstance(batch, dict):
                raise ValueError(f"{path} is no GEOM file: a map expected, got {type(batch)}")
            yield from batch.items()
    except (msgpack.UnpackException, UnicodeDecodeError, TypeError) as error:
        raise ValueError(f"{path} is no msgpack file: {error}") from error
    if unpacker.tell() < size:
        raise ValueError(f"{path} is cut off: {size - unpacker.tell()} bytes hold no whole map")


def _conformers(
    molecules: Iterator[tuple[str, Any]], most: int, max_molecules: int | None
) -> Iterator[tuple[str, AtomicSystem | str]]:
    for i, (smiles, record) in enumerate(molecules):
        if max_molecules is not None and i >= max_molecules:
            return
        try:
            ranked = sorted(record["conformers"], key=lambda c: c["totalenergy"])
        except (KeyError, TypeError) as error:
            yield str(smiles), f"no conformers with energies: {type(error).__name__} {error}"
            continue
        for k, conformer in enumerate(ranked[:most]):
            try:
                table = np.array(conformer["xyz"], dtype=np.float64)
                if table.ndim != 2 or table.shape[1] != 4:
                    raise ValueError(f"xyz must have shape (N, 4), got {table.shape}")
                numbers = table[:, 0].astype(np.int64)
                if (numbers != table[:, 0]).any():
                    raise ValueError("the first column of xyz must hold atomic numbers")
                system = AtomicSystem(numbers, table[:, 1:])
            except (KeyError, TypeError, ValueError) as error:
                yield f"{smiles}#{k}", f"{type(error).__name__}: {error}"
            else:
                yield f"geom_{conformer.get('geom_id', f'{i}_{k}')}", system
