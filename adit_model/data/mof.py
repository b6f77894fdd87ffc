"""Metal-organic frameworks of the QMOF database (Rosen et al., Matter 4, 1578, 2021)."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from adit_model.data.cif import read_cif
from adit_model.data.collect import collect
from adit_model.data.dataset import AtomicDataset
from adit_model.data.structures import load_structures, system_from_structure_dict
from adit_model.systems import AtomicSystem

MAX_ATOMS = 150  # the subset QMOF150 of Joshi et al. (arXiv 2503.03965)
NESTED_ARCHIVES = ("relaxed_structures.zip", "qmof_database.zip")
_READ_CHARACTERS = 1 << 20
_BETWEEN = re.compile(r"[\s,]*")
_DELIMITER = re.compile(r"\s*[],]")


def load_qmof(
    path: str | Path, max_atoms: int | None = MAX_ATOMS, progress: bool = True
) -> AtomicDataset:
    """Load QMOF structures.

    Parameters
    ----------
    path : str or Path
        ``relaxed_structures.zip`` or a folder of its CIF files, the archives on Figshare that
        contain it, or ``qmof_structure_data.json`` (also ``.json.gz``), all as published.
    max_atoms : int, optional
        Leave out larger frameworks; 150 by default.
    progress : bool
        Show a progress bar.

    Returns
    -------
    AtomicDataset
        Named by ``qmof_id``; what cannot be read is in ``skipped``.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    ValueError
        If it is none of these formats, or nothing can be read.
    """
    from tqdm import tqdm

    path = Path(path).expanduser()
    if path.is_dir():
        return load_structures(path, "QMOF", max_atoms, progress)
    if not path.is_file():
        raise FileNotFoundError(f"no file or folder {path}")
    if zipfile.is_zipfile(path):
        items = _from_zip(path, str(path))
    elif path.name.endswith((".json", ".json.gz")):
        items = _from_json(path)
    else:
        raise ValueError(f"{path} is no zip archive of CIF files and no JSON file of QMOF")
    bar = tqdm(items, desc="reading QMOF", unit="framework", disable=not progress)
    return collect(bar, "QMOF", max_atoms)


def _from_zip(file: Path | IO[bytes], name: str) -> Iterator[tuple[str, AtomicSystem | str]]:
    """Read the CIF files of an archive, or of the archives that the published record nests."""
    with zipfile.ZipFile(file) as archive:
        members = archive.namelist()
        files = sorted(m for m in members if m.lower().endswith(".cif"))
        nested = [m for m in members if Path(m).name in NESTED_ARCHIVES]
        if not files and not nested:
            raise ValueError(f"{name} holds no CIF files but {members[:10]}")
        if not files:
            with tempfile.TemporaryFile() as unpacked:
                with archive.open(nested[0]) as packed:
                    shutil.copyfileobj(packed, unpacked)
                yield from _from_zip(unpacked, f"{name}/{nested[0]}")
            return
        for member in files:
            try:
                text = archive.read(member).decode("utf-8", "replace")
                item: AtomicSystem | str = read_cif(text)
            except (ValueError, RuntimeError, zipfile.BadZipFile) as error:
                item = str(error)
            yield Path(member).stem, item


def _from_json(path: Path) -> Iterator[tuple[str, AtomicSystem | str]]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for i, entry in enumerate(iterate_json_list(file, str(path))):
            if not isinstance(entry, dict):
                yield str(i), f"the entry is no object but {type(entry).__name__}"
                continue
            try:
                item: AtomicSystem | str = system_from_structure_dict(entry.get("structure", {}))
            except ValueError as error:
                item = str(error)
            yield str(entry.get("qmof_id", i)), item


def iterate_json_list(file: TextIO, name: str) -> Iterator[Any]:
    """Decode the entries of one long JSON list one by one, since all at once may fill the memory.

    Raises
    ------
    ValueError
        If the text is no JSON list, or ends before the list does.
    """
    decoder = json.JSONDecoder()
    buffer = file.read(_READ_CHARACTERS).lstrip()
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
        else:
            # The first digits of a number are a number too, so look past the entry.
            if _DELIMITER.match(buffer, end):
                yield entry
                start = end
                continue
            reason = "the list does not end"
        # Doubling keeps the total work proportional to the size of the entry.
        more = file.read(max(_READ_CHARACTERS, len(buffer) - start))
        if not more:
            raise ValueError(f"{name} is no complete JSON list: {reason}")
        buffer, start = buffer[start:] + more, 0
