"""QM9: 130,831 small organic molecules with B3LYP/6-31G(2df,p) geometries.

The data set is that of Ramakrishnan et al., Sci. Data 1, 140022 (2014), as packed in the
``qm9pack`` package from PyPI, which leaves out the 3,054 molecules that fail the consistency check.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adit_model.data.cache import cached_dataset, data_cache_dir, key_from_stats
from adit_model.data.dataset import AtomicDataset
from adit_model.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

PARSER_VERSION = 2
PARTS = ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv")
SPLITS = ("train", "val", "test", "all")
NUM_TRAIN, NUM_VAL = 100_000, 18_000
SPLIT_SEED = 0
COLUMNS = ("Index", "SMILES", "N_atoms", "Elements", "XYZ_Ang")
HARTREE = 27.211386245988  # eV (CODATA 2018)
LABELS = {  # name: column, factor to debye, bohr^3, eV, cal/mol/K
    "mu": ("Dipole_debye", 1.0),
    "alpha": ("Polarizability_bohr3", 1.0),
    "homo": ("HOMO_au", HARTREE),
    "lumo": ("LUMO_au", HARTREE),
    "gap": ("HOMO_LUMO_gap_au", HARTREE),
    "cv": ("Heatcapacity_Cv_cal_mol_K", 1.0),
}
# QM9 holds five elements, each of a one-letter symbol.
SYMBOL_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}


def load_qm9(
    split: str = "train",
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> AtomicDataset:
    """Load QM9, all hydrogens included, atoms and geometries as published.

    The first call parses the CSV files (five to ten seconds) into one array file in the cache
    directory; later calls read that.

    Parameters
    ----------
    split : str
        ``"train"`` (100,000 molecules), ``"val"`` (18,000), ``"test"`` (the rest, 12,831) or
        ``"all"``. The sizes of the first two are those of the field; the members come from
        :func:`qm9_split`, so they are fixed, but are not those of other works.
    cache_dir : str or Path, optional
        Directory of parsed files; see :func:`~adit_model.data.cache.data_cache_dir`.
    progress : bool
        Show a progress bar while parsing.

    Returns
    -------
    AtomicDataset
        Molecules with ids ``gdb_1`` to ``gdb_133885``, in ascending order of id, with the labels
        ``mu`` (debye), ``alpha`` (bohr^3), ``homo``, ``lumo``, ``gap`` (eV) and ``cv`` (cal/mol/K).

    Raises
    ------
    ImportError
        If ``qm9pack`` is not installed.
    ValueError
        If there is no such split, or the installed CSV files are not those of QM9.
    """
    _check_split(split)
    paths = qm9_files()
    key = key_from_stats(paths, PARSER_VERSION)
    cache = data_cache_dir(cache_dir) / f"qm9-{key}.npz"
    dataset = cached_dataset(cache, lambda: read_qm9_files(paths, progress=progress))
    if split == "all":
        return dataset
    return dataset.subset(qm9_split(split, len(dataset)), name=f"QM9 {split}")


def load_qm9_smiles(split: str = "train", cache_dir: str | Path | None = None) -> list[str]:
    """SMILES of QM9 in the order of :func:`load_qm9`, as published (from GDB-17, not canonical).

    Raises
    ------
    ImportError
        If ``qm9pack`` is not installed.
    ValueError
        If there is no such split.
    """
    _check_split(split)
    paths = qm9_files()
    key = key_from_stats(paths, PARSER_VERSION)
    cache = data_cache_dir(cache_dir) / f"qm9-{key}.smi"
    if cache.is_file():
        smiles = cache.read_text(encoding="ascii").split("\n")
    else:
        smiles = [s for path in paths for s in _read_part(path, ["SMILES"])["SMILES"]]
        try:
            write_atomic(cache, "\n".join(smiles))
        except OSError as error:
            logger.warning("could not cache the SMILES in %s: %s", cache, error)
    if split == "all":
        return smiles
    return [smiles[i] for i in qm9_split(split, len(smiles))]


def qm9_split(split: str, num_molecules: int = 130_831) -> np.ndarray:
    """Ascending row indices of one split.

    The rows are permuted by ``numpy.random.RandomState(0)``, whose stream NumPy keeps frozen; the
    first 100,000 train, the next 18,000 validate, the rest test.

    Raises
    ------
    ValueError
        If there is no such split, or no molecule would be left for testing.
    """
    _check_split(split)
    if num_molecules <= NUM_TRAIN + NUM_VAL:
        raise ValueError(
            f"QM9 splits need more than {NUM_TRAIN + NUM_VAL} molecules, got {num_molecules}"
        )
    order = np.random.RandomState(SPLIT_SEED).permutation(num_molecules)
    parts = {
        "train": order[:NUM_TRAIN],
        "val": order[NUM_TRAIN : NUM_TRAIN + NUM_VAL],
        "test": order[NUM_TRAIN + NUM_VAL :],
        "all": order,
    }
    return np.sort(parts[split])


def qm9_files() -> list[Path]:
    """Find the CSV files of the installed ``qm9pack``, without importing it.

    Its helper module needs ``pkg_resources``, which current setuptools no longer ship.

    Raises
    ------
    ImportError
        If the package or one of its files is missing.
    """
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "QM9 is read from the package qm9pack, which is not installed: "
            "pip install 'adit-atomate[data]'"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    paths = [folder / part for part in PARTS]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ImportError(
            f"qm9pack in {folder.parent} lacks {missing}: "
            "pip install --force-reinstall 'adit-atomate[data]'"
        )
    return paths


def read_qm9_files(paths: list[Path], progress: bool = False) -> AtomicDataset:
    """Parse CSV files in the format of ``qm9pack``.

    Parameters
    ----------
    paths : list of Path
        Files with at least the columns ``Index``, ``SMILES``, ``N_atoms``, ``Elements``
        (``"['C','H']"``) and ``XYZ_Ang`` (``"[[x,y,z],[x,y,z]]"``, angstrom).
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        If a column is missing or a row's counts contradict each other.
    """
    from tqdm import tqdm

    numbers, positions, sizes, ids = [], [], [], []
    labels: dict[str, list[np.ndarray]] = {name: [] for name in LABELS}
    for path in tqdm(paths, desc="parsing QM9", unit="file", disable=not progress):
        columns = [column for column, _ in LABELS.values()]
        frame = _read_part(path, ["Index", "N_atoms", "Elements", "XYZ_Ang", *columns])
        part_sizes = frame["N_atoms"].to_numpy(dtype=np.int32)
        numbers.append(_parse_elements(frame["Elements"], part_sizes, path))
        positions.append(_parse_positions(frame["XYZ_Ang"], part_sizes, path))
        sizes.append(part_sizes)
        ids.append(np.char.add("gdb_", frame["Index"].to_numpy().astype(str)))
        for name, (column, factor) in LABELS.items():
            if column in frame:
                labels[name].append(frame[column].to_numpy(np.float64) * factor)
    all_sizes = np.concatenate(sizes)
    return AtomicDataset(
        np.concatenate(numbers),
        np.concatenate(positions),
        np.full((len(all_sizes), 3, 3), np.nan, dtype=np.float32),
        all_sizes,
        np.concatenate(ids),
        "QM9",
        labels={
            name: np.concatenate(parts)
            for name, parts in labels.items()
            if len(parts) == len(sizes)
        },
    )


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"QM9 has the splits {', '.join(SPLITS)}, got {split!r}")


def _read_part(path: Path, columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    header = pd.read_csv(path, nrows=0)
    missing = [name for name in COLUMNS if name not in header.columns]
    if missing:
        raise ValueError(
            f"{path} lacks the columns {missing}, it has {list(header.columns)}: "
            "is it a file of qm9pack?"
        )
    # "N" (ammonia) and the like are SMILES, not missing values.
    known = [name for name in columns if name in header.columns]
    return pd.read_csv(path, usecols=known, keep_default_na=False)


def _parse_elements(column: pd.Series, sizes: np.ndarray, path: Path) -> np.ndarray:
    """Atomic numbers of all rows, shape (A,), int16."""
    counts = column.str.count(",").to_numpy() + 1
    _check_rows(counts == sizes, path, "the number of elements is not N_atoms")
    text = "".join(column).translate(str.maketrans("", "", "[]', \""))
    table = np.zeros(128, dtype=np.int16)
    for symbol, number in SYMBOL_NUMBERS.items():
        table[ord(symbol)] = number
    codes = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8)
    numbers = table[np.minimum(codes, 127)]
    if len(numbers) != int(sizes.sum()) or (numbers == 0).any():
        unknown = sorted({chr(c) for c in codes[numbers == 0].tolist()})
        raise ValueError(
            f"{path}: expected {int(sizes.sum())} elements out of {sorted(SYMBOL_NUMBERS)}, "
            f"found {len(numbers)}, of which unknown: {unknown}"
        )
    return numbers


def _parse_positions(column: pd.Series, sizes: np.ndarray, path: Path) -> np.ndarray:
    """Coordinates of all rows in angstrom, shape (A, 3), float32."""
    counts = column.str.count(",").to_numpy() + 1
    _check_rows(counts == 3 * sizes, path, "the number of coordinates is not 3 x N_atoms")
    text = ",".join(column).translate(str.maketrans("", "", "[] "))
    try:
        values = np.array(text.split(","), dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: a coordinate is no number: {error}") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: {int((~np.isfinite(values)).sum())} coordinates are not finite")
    return values.reshape(-1, 3).astype(np.float32)


def _check_rows(good: np.ndarray, path: Path, problem: str) -> None:
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise ValueError(f"{path}, data row {row + 1}: {problem}")
