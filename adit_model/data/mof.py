"""Metal-organic frameworks of the QMOF database (Rosen et al., Matter 4, 1578, 2021)."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from adit_model.data.cif import read_cif
from adit_model.data.collect import collect
from adit_model.data.dataset import AtomicDataset
from adit_model.data.json_files import JSON_SUFFIXES, read_json
from adit_model.data.structures import load_structures, reading
from adit_model.data.text import check_packing, inner_name
from adit_model.systems import AtomicSystem

MAX_ATOMS = 150  # the subset QMOF150 of Joshi et al. (arXiv 2503.03965)
NESTED_ARCHIVES = ("relaxed_structures.zip", "qmof_database.zip")
MAX_CIF = 20 << 20  # bytes of one CIF file; a packed one can be far larger than it looks
MAX_NESTED = 8 << 30  # bytes of an archive in an archive
# What zipfile raises on damaged members, beside ValueError
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError)


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
    elif inner_name(path).endswith(JSON_SUFFIXES):
        items = ((name or str(i), item) for i, (name, item) in enumerate(read_json(path)))
    else:
        raise ValueError(f"{path} is no zip archive of CIF files and no JSON file of QMOF")
    bar = tqdm(items, desc="reading QMOF", unit="framework", disable=not progress)
    with reading(path):
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
            info = archive.getinfo(nested[0])
            check_packing(f"{nested[0]} of {name}", info.compress_size, info.file_size)
            if info.file_size > MAX_NESTED:
                raise ValueError(f"{nested[0]} of {name} is larger than {MAX_NESTED >> 30} GiB")
            with tempfile.TemporaryFile() as unpacked:
                with archive.open(nested[0]) as packed:
                    shutil.copyfileobj(packed, unpacked)
                yield from _from_zip(unpacked, f"{name}/{nested[0]}")
            return
        for member in files:
            try:
                if (size := archive.getinfo(member).file_size) > MAX_CIF:
                    raise ValueError(f"{size} bytes, more than a CIF file of one crystal has")
                text = archive.read(member).decode("utf-8", "replace")
                item: AtomicSystem | str = read_cif(text)
            except (*BROKEN, ValueError, RuntimeError) as error:
                item = str(error) or type(error).__name__
            yield Path(member).stem, item
