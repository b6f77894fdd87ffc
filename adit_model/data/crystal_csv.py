"""CSV files of crystals: ids, CIF text or JSON of structures, and properties.

The format is that of CDVAE (``material_id``, ``cif``; Xie et al., ICLR 2022, arXiv 2110.06197):
MP-20, Perov-5, Carbon-24, MPTS-52. Other names of columns are known.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adit_model.canonical import VERSION
from adit_model.data.cache import cached_dataset, data_cache_dir, key_from_content
from adit_model.data.collect import (
    NO_LABELS,
    at_most,
    canonical_item,
    check_max_atoms,
    collect,
    warn_unread,
)
from adit_model.data.dataset import AtomicDataset
from adit_model.data.json_files import ID_KEYS, read_entry
from adit_model.data.text import UNPACKING, inner_name, open_text, text_encoding

if TYPE_CHECKING:
    import pandas as pd

    from adit_model.systems import AtomicSystem

logger = logging.getLogger(__name__)

MAX_HEADER = 1 << 20  # characters
PARSER_VERSION = 5
ID_COLUMN, CIF_COLUMN, GROUP_COLUMN = "material_id", "cif", "spacegroup"
STRUCTURE_COLUMNS = (
    *(CIF_COLUMN, "structure", "final_structure", "relaxed_structure", "atoms", "poscar"),
)
_CHUNK = 64


def load_crystal_csv(
    path: str | Path,
    cache_dir: str | Path | None = None,
    max_atoms: int | None = None,
    workers: int = 1,
    progress: bool = True,
) -> AtomicDataset:
    """Load the crystals of a CDVAE-format CSV file, in canonical form.

    Parameters
    ----------
    path : str or Path
        ``.csv`` or ``.tsv``, also packed, separated by commas, semicolons or tabs. A column ``cif``
        or ``structure`` (:data:`STRUCTURE_COLUMNS`) holds text of a CIF or POSCAR, or JSON as of
        :func:`~adit_model.data.json_files.read_json`; ids are in ``material_id``, else in the first
        of :data:`~adit_model.data.json_files.ID_KEYS` that is there (a warning names it), else rows
        are numbered.
    cache_dir : str or Path, optional
        Directory of parsed files; see :func:`~adit_model.data.cache.data_cache_dir`.
    max_atoms : int, optional
        Leave out crystals of a larger primitive cell; they are listed in ``skipped`` too.
    workers : int
        Processes that parse.
    progress : bool
        Show a progress bar while parsing.

    Returns
    -------
    AtomicDataset
        Named by ``material_id``; its labels are the columns of numbers, its space groups the column
        ``spacegroup``, where there is one. A row that cannot be read is in ``skipped`` with the
        reason, and one warning counts them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no such CSV, has no rows or lacks a column, if no row can be read, or if
        ``max_atoms`` or ``workers`` is not positive.
    """
    check_max_atoms(max_atoms)
    if workers < 1:
        raise ValueError(f"workers must be a positive integer, got {workers}")
    path = _existing(path)
    key = key_from_content(path, f"{PARSER_VERSION}.{VERSION}")
    cache = data_cache_dir(cache_dir) / f"csv-{key}.npz"
    parsed: list[AtomicDataset] = []

    def parse() -> AtomicDataset:
        parsed.append(_parse_csv(path, workers, progress))
        return parsed[0]

    dataset = cached_dataset(cache, parse)
    dataset.name = _stem(path)
    if not parsed:  # parsing warns by itself
        warn_unread(path, len(dataset.skipped) + len(dataset), dataset.skipped)
    return dataset if max_atoms is None else at_most(dataset, max_atoms)


def load_crystal_table(path: str | Path) -> pd.DataFrame:
    """Read the properties of a CSV file of crystals: all columns but that of structures.

    Returns
    -------
    pandas.DataFrame
        One line per row of the file, indexed by ``material_id`` (str); units are those of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no such CSV, has no rows or lacks a column.
    """
    frame = _read_csv(_existing(path))
    unnamed = [name for name in frame.columns if name.startswith("Unnamed:")]
    return frame.drop(columns=[CIF_COLUMN, *unnamed]).set_index(ID_COLUMN)


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no CSV file {path}")
    return path


def _stem(path: Path) -> str:
    return path.name[: len(inner_name(path))].removesuffix(".csv").removesuffix(".tsv")


def _read_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        with open_text(path) as file:
            header = file.readline(MAX_HEADER)
        separator = next((mark for mark in ",;\t" if mark in header), ",")
        encoding = text_encoding(path)
        names = pd.read_csv(path, sep=separator, encoding=encoding, nrows=0).columns
        known = (ID_COLUMN, *ID_KEYS, *STRUCTURE_COLUMNS)
        other = {n: n.lower() for n in names if n.lower() in known and n.lower() not in names}
        kinds = {name: str for name in names if name.lower() in (ID_COLUMN, *ID_KEYS)}
        frame = pd.read_csv(path, sep=separator, dtype=kinds, encoding=encoding, low_memory=False)
        frame = frame.rename(columns=other)
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty") from error
    except (pd.errors.ParserError, UnicodeError, OSError, EOFError, *UNPACKING) as error:
        raise ValueError(f"{path} is no readable CSV file: {error}") from error
    structures = next((name for name in STRUCTURE_COLUMNS if name in frame.columns), None)
    if separator == ";":
        _read_decimal_commas(frame)
    if structures is None:
        raise ValueError(
            f"{path} lacks a column of structures ({', '.join(STRUCTURE_COLUMNS)}), it has "
            f"{list(frame.columns)[:20]} (separator {separator!r})"
        )
    if frame.empty:
        raise ValueError(f"{path} has a header and no rows")
    rows = [f"row-{i + 1}" for i in range(len(frame))]
    if ID_COLUMN not in frame.columns:
        ids = next((name for name in ID_KEYS if name in frame.columns), None)
        frame[ID_COLUMN] = rows if ids is None else frame[ids]
        taken = "numbers of rows" if ids is None else f"the column {ids!r}"
        logger.warning("%s has no column %s: ids are %s", path, ID_COLUMN, taken)
    if structures != CIF_COLUMN:
        frame = frame.rename(columns={structures: CIF_COLUMN})
    frame[ID_COLUMN] = frame[ID_COLUMN].where(frame[ID_COLUMN].notna(), rows)
    return frame


def _read_decimal_commas(frame: pd.DataFrame) -> None:
    """Turn columns of numbers as ``1,5`` into numbers."""
    import pandas as pd

    for name in frame.columns.difference([ID_COLUMN, *ID_KEYS, *STRUCTURE_COLUMNS]):
        if not pd.api.types.is_numeric_dtype(frame[name]):
            texts = frame[name].astype("string").str.replace(",", ".", regex=False)
            numbers = pd.to_numeric(texts, errors="coerce")
            if (numbers.notna() == frame[name].notna()).all():
                frame[name] = numbers.astype(float)


def _parse_csv(path: Path, workers: int, progress: bool) -> AtomicDataset:
    from tqdm import tqdm

    frame = _read_csv(path)
    ids = frame[ID_COLUMN].tolist()
    texts = frame[CIF_COLUMN].tolist()
    bar = tqdm(
        zip(ids, _read_all(texts, workers), strict=True),
        total=len(ids),
        desc=f"parsing {path.name}",
        unit="crystal",
        disable=not progress,
    )
    rows: list[int] = []  # of what could be read

    def read() -> Iterator[tuple[str, AtomicSystem | str]]:
        for row, item in enumerate(bar):
            if not isinstance(item[1], str):
                rows.append(row)
            yield item

    dataset = collect(read(), _stem(path), canonical=True)
    numbers = frame.select_dtypes("number").iloc[rows]
    if GROUP_COLUMN in numbers:
        dataset.space_groups = numbers[GROUP_COLUMN].fillna(0).to_numpy(np.int16)
    wanted = [n for n in numbers if n not in NO_LABELS and not n.startswith("Unnamed:")]
    return replace(dataset, labels={name: numbers[name].to_numpy() for name in wanted})


def _read_all(texts: list[object], workers: int) -> Iterator[AtomicSystem | str]:
    if workers == 1:
        yield from _read_chunk(texts)
        return
    chunks = [texts[i : i + _CHUNK] for i in range(0, len(texts), _CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        for results in pool.map(_read_chunk_list, chunks):
            yield from results


def _read_chunk_list(texts: list[object]) -> list[AtomicSystem | str]:
    return list(_read_chunk(texts))


def _read_chunk(texts: Iterable[object]) -> Iterator[AtomicSystem | str]:
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            yield "the column of structures is empty"
            continue
        yield canonical_item(read_entry(text)[1])
