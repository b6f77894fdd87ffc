"""One name for every source of structures: what ``adit data`` and ``adit train`` are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adit_model.data.collect import at_most, check_max_atoms
from adit_model.data.crystal_csv import load_crystal_csv
from adit_model.data.dataset import AtomicDataset
from adit_model.data.download import REMOTE_FILES, download_source
from adit_model.data.drugs import load_geom
from adit_model.data.mof import MAX_ATOMS as QMOF150_ATOMS
from adit_model.data.mof import load_qmof
from adit_model.data.phases import is_known, known_phases, known_splits
from adit_model.data.qm9 import SPLITS, load_qm9
from adit_model.data.structures import is_structure_file, load_structures
from adit_model.data.text import inner_name

FORMATS = ("csv", "npz", "db", "qmof", "geom")
HELP = """\
  known, known:train, known:val, :test    crystals of the package (Materials Project); as what is
                                          known, the molecules of QM9 too
  qm9, qm9:train, qm9:val, qm9:test       QM9 from the package qm9pack
  mp20:train, perov5:val, carbon24:test   downloaded once, then read from the cache
  mp20, qmof150, geom-drugs               downloaded once (large)
  file.csv, file.tsv, csv:FILE            crystals: a column cif or structure, an id column
  file.npz, npz:FILE                      written by `adit data ... --out file.npz`
  file.db, db:FILE                        ASE database
  file.cif, .xyz, .extxyz, .sdf, POSCAR   one or many structures; also .pdb, .traj, XDATCAR
  file.json, .jsonl                       pymatgen, Alexandria, matbench, JARVIS
                                          all of these also as .gz, .bz2, .xz
  folder/                                 all such files in it
  qmof:PATH                               QMOF zip, folder or JSON
  geom:FILE, file.msgpack                 GEOM conformers"""


def load_source(
    spec: str,
    *,
    max_atoms: int | None = None,
    cache_dir: str | Path | None = None,
    workers: int = 1,
    progress: bool = True,
    add_hydrogens: bool = False,
) -> AtomicDataset:
    """Load a data set by its name or path.

    Parameters
    ----------
    spec : str
        A data set (``"qm9:train"``, ``"mp20:train"``), a path whose name says its format
        (``"x.csv.gz"``, ``"x.db"``, ``"folder/"``), or a format and a path (``"csv:x.txt"``); see
        :data:`HELP` for all.
    max_atoms : int, optional
        Leave out larger systems; they are listed in ``skipped``.
    cache_dir : str or Path, optional
        Directory of parsed and downloaded files; see
        :func:`~adit_model.data.cache.data_cache_dir`.
    workers : int
        Processes that parse, where a format allows it.
    progress : bool
        Show progress bars.
    add_hydrogens : bool
        Add the hydrogens that drawn molecules (SDF) lack; otherwise these are skipped.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the spec is unknown, or nothing can be read.
    DownloadError
        If a data set has to be fetched and cannot be.
    """
    check_max_atoms(max_atoms)

    def load_csv(path: str | Path) -> AtomicDataset:
        return load_crystal_csv(path, cache_dir, max_atoms, workers, progress)

    def load_objects(path: str | Path) -> AtomicDataset:
        return load_structures(path, None, max_atoms, progress, add_hydrogens)

    def load_mofs(path: str | Path) -> AtomicDataset:
        return load_qmof(path, max_atoms=max_atoms, progress=progress)

    def load_conformers(path: str | Path) -> AtomicDataset:
        return load_geom(path, max_atoms=max_atoms, progress=progress)

    def load_arrays(path: str | Path) -> AtomicDataset:
        dataset = AtomicDataset.load(Path(path).expanduser())
        return dataset if max_atoms is None else at_most(dataset, max_atoms)

    formats: dict[str, Callable[[str | Path], AtomicDataset]] = {
        "csv": load_csv,
        "npz": load_arrays,
        "db": load_objects,
        "qmof": load_mofs,
        "geom": load_conformers,
    }
    head, colon, rest = spec.partition(":")
    if head == "qm9" and (not colon or rest in SPLITS):
        dataset = load_qm9(rest or "all", cache_dir, progress)
        return dataset if max_atoms is None else at_most(dataset, max_atoms)
    if is_known(spec):
        phases = known_phases()
        dataset = phases.dataset(phases.select(known_splits(spec)))
        return dataset if max_atoms is None else at_most(dataset, max_atoms)
    if colon and rest and head in formats:
        return formats[head](rest)
    # A file or folder of that name goes before a download.
    path = Path(spec).expanduser()
    if spec in REMOTE_FILES and not path.exists():
        folder = None if cache_dir is None else Path(cache_dir) / "downloads"
        file = download_source(spec, folder, progress=progress)
        if file.suffix == ".csv":
            return load_csv(file)
        if spec == "qmof150":
            return load_qmof(file, max_atoms=max_atoms or QMOF150_ATOMS, progress=progress)
        return load_mofs(file) if spec == "qmof" else load_conformers(file)
    name = inner_name(path)
    if name.endswith((".csv", ".tsv")):
        return load_csv(path)
    if name.endswith(".npz"):
        return load_arrays(path)
    if name.endswith(".msgpack"):
        return load_conformers(path)
    if (spec and path.is_dir()) or name.endswith(".db") or is_structure_file(path):
        return load_objects(path)
    if path.is_file() and name.endswith((".zip", ".tar", ".tgz")):
        raise ValueError(f"{spec} is an archive: unpack it, and give the folder of its files")
    missing = "" if spec and path.exists() else ", and there is no file or folder of that name"
    raise ValueError(
        f"unknown data source {spec!r}{missing}. Known are names such as qm9:train and mp20:train, "
        "files and folders: `adit data --help` lists all"
    )


def absolute_source(spec: str) -> str:
    """Return the spec of a source with an absolute path, if it holds one; nothing is read.

    Raises
    ------
    ValueError
        If there is no such file, folder or data set.
    """
    path = Path(spec).expanduser()
    if spec and path.exists():
        return str(path.resolve())
    head, colon, rest = spec.partition(":")
    if spec in REMOTE_FILES or (head == "qm9" and (not colon or rest in SPLITS)):
        return spec
    if is_known(spec):
        known_splits(spec)
        return spec
    if rest and head in FORMATS and Path(rest).expanduser().exists():
        return f"{head}:{Path(rest).expanduser().resolve()}"
    raise ValueError(
        f"unknown data source {spec!r}, and there is no file or folder of that name. Known are "
        "names such as qm9:train and mp20:train: `adit data --help` lists all"
    )
