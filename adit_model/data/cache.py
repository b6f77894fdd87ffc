"""Where parsed data files are kept, and under which names."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from adit_model.data.dataset import AtomicDataset

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ADIT_CACHE_DIR"


def data_cache_dir(cache_dir: str | Path | None = None) -> Path:
    """Directory of parsed data files.

    Parameters
    ----------
    cache_dir : str or Path, optional
        Used as it is; by default the environment variable ``ADIT_CACHE_DIR``, else
        ``~/.cache/adit``. It is not created here.
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/adit").expanduser()


def key_from_stats(paths: list[Path], version: int) -> str:
    """Key that changes when a file is replaced: of names, sizes, modification times, version."""
    digest = hashlib.sha256(str(version).encode())
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def key_from_content(path: Path, version: str) -> str:
    """Key of a file's bytes and the version of its parser, wherever the file lies."""
    with open(path, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(f"{version}|{content}".encode()).hexdigest()[:16]


def cached_dataset(path: Path, parse: Callable[[], AtomicDataset]) -> AtomicDataset:
    """Return the data set in ``path``; if it is not there or damaged, parse and write it.

    A directory that cannot be written costs a warning and a parse each time, not the data.
    """
    if path.is_file():
        try:
            return AtomicDataset.load(path)
        except ValueError as error:
            logger.warning("parsing again, since the cached file is not usable: %s", error)
    dataset = parse()
    try:
        dataset.save(path)
    except OSError as error:
        logger.warning(
            "could not cache the parsed data in %s (%s): set %s to a writable directory",
            path,
            error,
            CACHE_VARIABLE,
        )
    return dataset
