"""A job store on disk, and checks of any before a job spends hours on what could not be kept."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock
from jobflow import JobStore
from maggma.stores import MontyStore

if TYPE_CHECKING:
    from maggma.core import Store

logger = logging.getLogger(__name__)

DATA = "data"  # name of the additional store that large parts go to
MONGO_LIMIT = 16 * 1024 * 1024  # bytes of one document


class JobStoreError(RuntimeError):
    """The job store cannot keep the results of a job; the text says what to change."""


class SharedMontyStore(MontyStore):
    """A MontyStore of SQLite that processes may connect to, and so make, at the same moment.

    Each connection of montydb writes its settings anew, and reads them: another process could find
    them empty. Here they wait for each other, and the file has its table from the start.
    """

    def connect(self, force_reset: bool = False) -> None:
        """Connect, one process after the other.

        Raises
        ------
        JobStoreError
            If a file is damaged or cannot be written.
        """
        folder = Path(self.database_path)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "connect.lock"):
            super().connect(force_reset)
            _make_table(self)


def disk_store(folder: str | Path) -> JobStore:
    """Make a job store of SQLite files in a folder, for all that runs on one machine.

    Parameters
    ----------
    folder : str or Path
        Is made; several processes may do so at once.

    Returns
    -------
    JobStore
        For ``run_locally(flow, store=...)``.

    Raises
    ------
    RuntimeError
        If MontyDB is missing: install the extra ``store``.

    Examples
    --------
    >>> from adit_atomate import disk_store
    >>> store = disk_store("results")
    """
    path = str(Path(folder).expanduser().absolute())
    data = SharedMontyStore(DATA, database_path=path)
    documents = SharedMontyStore("outputs", database_path=path)
    return JobStore(documents, additional_stores={DATA: data})


def check_job_store(store: JobStore, num_bytes: int = 0) -> None:
    """Check that a job store can keep results, by writing and removing a small document.

    The files of a MontyStore are made first, which is done again where a process was killed as it
    made them, and by processes that start at once.

    Parameters
    ----------
    store : JobStore
        A connected store.
    num_bytes : int
        Estimated size of the largest part.

    Raises
    ------
    JobStoreError
        If there is no such additional store, one of the stores cannot be written, or the additional
        store is a plain ``MongoStore`` and the part exceeds MongoDB's limit of 16 MB.
    """
    stores: dict[str, Store] = getattr(store, "additional_stores", {})
    try:
        large = stores[DATA]  # jobflow's default store makes it here
    except KeyError:
        known = ", ".join(map(repr, stores)) or "none"
        raise JobStoreError(
            f"the job store has no additional store {DATA!r} (it has {known}): add one under "
            "additional_stores of JOB_STORE in jobflow.yaml, or JobStore(..., additional_stores="
            f"{{{DATA!r}: store}})"
        ) from None
    if type(large).__name__ in ("MongoStore", "MongoURIStore") and num_bytes > MONGO_LIMIT:
        raise JobStoreError(
            f"the additional store {DATA!r} is a {type(large).__name__}, which keeps at most "
            f"16 MB in one piece, but about {num_bytes / 1e6:.0f} MB are to be stored: use a "
            "GridFSStore, or several jobs"
        )
    for part in {id(s): s for s in (store.docs_store, *stores.values())}.values():
        _make_table(part)
    name = f"adit-write-test-{uuid4()}"
    _try_to_write(store.docs_store, "the document store", {"uuid": name, "index": 0}, "uuid")
    _try_to_write(
        large, f"the additional store {DATA!r}", {"blob_uuid": name, "data": []}, "blob_uuid"
    )


def _make_table(store: Store) -> None:
    if not isinstance(store, MontyStore) or store.storage != "sqlite":
        return
    folder = Path(store.database_path) / store.database_name
    path = folder / f"{store.collection_name}.collection"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60)) as database, database:
            database.execute(  # as montydb does, which fails where the table is there
                "CREATE TABLE IF NOT EXISTS [documents]"
                "(k text NOT NULL, v text NOT NULL, PRIMARY KEY(k))"
            )
    except (sqlite3.Error, OSError) as error:
        raise JobStoreError(
            f"{path} of the job store cannot be used ({error}): if it is damaged, move it away"
        ) from error


def _try_to_write(store: Store, what: str, document: dict[str, Any], key: str) -> None:
    if getattr(store, "read_only", False):
        raise JobStoreError(f"{what} of the job store ({store.name}) is set to read_only")
    if type(store).__module__.startswith("jobflow_remote."):
        return  # a worker's own file, from which nothing can be removed again
    try:
        store.update([document], key=key)
    except Exception as error:
        raise JobStoreError(
            f"{what} of the job store ({store.name}) cannot be written: {error}"
        ) from error
    try:
        store.remove_docs({key: document[key]})
    except Exception as error:
        logger.warning("%s keeps the test document %s: %s", what, document[key], error)
