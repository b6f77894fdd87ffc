"""Sources of training data: stores of task documents, the Materials Project, files, objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monty.json import MontyDecoder, MontyEncoder, MSONable

from adit_atomate.task_documents import failure, final_structure, is_structure, look
from adit_model.data.collect import collect
from adit_model.data.dataset import AtomicDataset
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from maggma.core import Store

ID_KEYS = ("material_id", "molecule_id", "task_id", "uuid")
Item = tuple[str, AtomicSystem | str]


@dataclass
class StoreData:
    """Structures of a store and their properties.

    Parameters
    ----------
    dataset : AtomicDataset
        Relaxed structures; ``dataset.skipped`` says what could not be used and why.
    properties : dict
        For each id the properties asked for.
    """

    dataset: AtomicDataset
    properties: dict[str, dict[str, Any]]


def from_store(
    store: Store | Mapping[str, Any],
    query: Mapping[str, Any] | None = None,
    properties: Sequence[str] | Mapping[str, str] | None = None,
    *,
    converged: bool = True,
    name: str | None = None,
) -> StoreData:
    """Read relaxed structures and molecules out of task documents.

    The documents may be those of atomate2's force-field, ASE, VASP, CP2K and Q-Chem jobs or of
    emmet's builders, in a job store (under ``output``, single or as a list) or as they are.

    Parameters
    ----------
    store : maggma.core.Store or dict
        Any Maggma store or job store, or its ``as_dict()``.
    query : dict, optional
        Which documents, such as ``{"name": "CHGNet relax"}``.
    properties : sequence or dict, optional
        Paths into the task document, such as ``["output.energy_per_atom"]``, or names for them,
        ``{"energy": "output.energy_per_atom"}``. A path is looked for under ``output`` too.
    converged : bool
        Leave out documents that say they failed or did not converge.
    name : str, optional
        Name of the data.

    Returns
    -------
    StoreData
        The structures in canonical form, and for each the properties asked for. Those that are
        numbers are labels of the data set too.

    Raises
    ------
    ValueError
        If no document fits the query, or none holds a structure that can be used.
    TypeError
        If ``store`` is no store, or ``properties`` no list.
    """
    if isinstance(store, Mapping):
        store = MontyDecoder().process_decoded(dict(store))
    if not hasattr(store, "query"):
        raise TypeError(
            f"store must be a Maggma store or its as_dict(), got {type(store).__name__}"
        )
    if isinstance(properties, str):
        raise TypeError(f"properties must be a list or a dict of paths, got {properties!r}")
    if not isinstance(properties, Mapping):
        properties = {path: path for path in properties or ()}
    opened: Any = store
    opened.connect()  # and not closed: a store in memory would lose its documents
    asked = f"{opened.name} fit the query {dict(query or {})}"
    documents = list(_documents(opened, query))
    if not documents:
        raise ValueError(f"no documents of {asked}")
    found: dict[str, dict[str, Any]] = {}
    items = list(_items(documents, converged, properties, found))
    if not items:
        raise ValueError(
            f"{len(documents)} documents of {asked}, none is a task document with a structure"
        )
    dataset = collect(items, name or str(opened.name))
    kept = set(dataset.ids.tolist())
    return StoreData(dataset, {key: value for key, value in found.items() if key in kept})


def from_documents(
    documents: Iterable[Any],
    properties: Sequence[str] = (),
    *,
    converged: bool = True,
    name: str = "documents",
) -> AtomicDataset:
    """Read structures out of objects: pymatgen, ASE, task documents, lists of any of these.

    ``properties`` are paths as of :func:`from_store`; their numbers are labels.

    Raises
    ------
    ValueError
        If there is nothing that can be used.
    """
    named = ((str(i), document) for i, document in enumerate(_flatten(documents)))
    return collect(list(_items(named, converged, {path: path for path in properties}, {})), name)


@dataclass
class StoreSource(MSONable):
    """A store as source of training data, read when the job runs.

    Parameters
    ----------
    store : maggma.core.Store or dict
        A Maggma store or job store, or its ``as_dict()``; one in memory cannot be read by another
        process. Passwords in it are kept in the job's document.
    query : dict
        Which documents.
    properties : dict
        Names and paths of properties that are written beside the structures.
    converged : bool
        See :func:`from_store`.
    """

    store: Store | dict[str, Any] | str
    query: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    converged: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.store, str):  # as text, so that decoding a job opens no store
            plain = self.store if isinstance(self.store, Mapping) else self.store.as_dict()
            self.store = json.dumps(plain, cls=MontyEncoder)

    def read(self, properties: Sequence[str] = ()) -> StoreData:
        """Read the store, with more properties than its own; see :func:`from_store`."""
        store = json.loads(str(self.store))
        paths = {path: path for path in properties} | self.properties
        return from_store(store, self.query, paths, converged=self.converged)


@dataclass
class MaterialsProjectSource(MSONable):
    """A query to the Materials Project as source of training data; needs ``MP_API_KEY``.

    Parameters
    ----------
    max_atoms, max_energy_above_hull, filters
        See :func:`adit_model.data.download_materials_project`.
    base_url : str
        Address of the server.
    """

    max_atoms: int = 20
    max_energy_above_hull: float | None = 0.08
    filters: dict[str, Any] = field(default_factory=dict)
    base_url: str = "https://api.materialsproject.org"

    def read(self, folder: Path) -> AtomicDataset:
        """Fetch the materials into ``folder`` once and read them."""
        from adit_model.data import download_materials_project, load_crystal_csv

        key = hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]
        path = folder / f"materials-project-{key}.csv"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            download_materials_project(
                path,
                max_atoms=self.max_atoms,
                max_energy_above_hull=self.max_energy_above_hull,
                filters=self.filters,
                base_url=self.base_url,
                progress=False,
            )
        return load_crystal_csv(path, progress=False)


def read_sources(
    sources: Sequence[Any], folder: Path, properties: Sequence[str] = ()
) -> tuple[list[AtomicDataset], dict[str, dict[str, Any]]]:
    """Read each source.

    Parameters
    ----------
    sources : sequence
        As :meth:`adit_atomate.training.data.ADiTDataMaker.make` takes them.
    folder : Path
        Where downloads are kept.
    properties : sequence of str
        To look for in task documents.

    Returns
    -------
    tuple
        Data sets, and the properties that stores gave for each id.
    """
    from adit_model.data import load_source

    datasets, objects = [], []
    found_properties: dict[str, dict[str, Any]] = {}
    for source in sources:
        if isinstance(source, str):
            datasets.append(load_source(source, progress=False))
        elif isinstance(source, StoreSource):
            found = source.read(properties)
            datasets.append(found.dataset)
            found_properties |= found.properties
        elif isinstance(source, MaterialsProjectSource):
            datasets.append(source.read(folder))
        else:
            objects.append(source)
    if objects:
        datasets.append(from_documents(objects, properties, name="structures"))
    return datasets, found_properties


def _documents(store: Any, query: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Task documents of a store, each with an id; of a replaced job the last output alone."""
    latest: dict[str, Any] = {}
    for number, document in enumerate(store.query(dict(query or {})), 1):
        if "output" in document and {"uuid", "index"} <= set(document):
            known = latest.get(document["uuid"])
            if known is None or known["index"] < document["index"]:
                latest[document["uuid"]] = document
        else:
            ids = (document.get(key) for key in (*ID_KEYS, "_id"))
            yield next((str(i) for i in ids if i), str(number)), document
    for uuid, document in latest.items():
        outputs = list(_flatten([document["output"]]))
        for i, output in enumerate(outputs):
            yield uuid if len(outputs) == 1 else f"{uuid}#{i}", output


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Mapping) and "document" in value:  # of a relaxation stage
            value = value["document"]
        if isinstance(value, list | tuple):
            yield from _flatten(value)
        elif value is not None:
            yield value


def _items(
    documents: Iterable[tuple[str, Any]],
    converged: bool,
    paths: Mapping[str, str],
    found: dict[str, dict[str, Any]],
) -> Iterator[Item]:
    """Systems, or why there is none, of the documents that hold a structure."""
    for name, document in documents:
        given = is_structure(document)
        reason = failure(document) if converged and not given else None
        try:
            structure = final_structure({"structure": document} if given else document)
            if structure is None:
                continue  # a document of another kind
            values = {key: _value(document, path) for key, path in paths.items()}
            named = {key: value for key, value in values.items() if value is not None}
            item = reason or AtomicSystem.from_any(structure, **named)
        except Exception as error:  # malformed documents raise anything
            item, values = f"{type(error).__name__}: {error}", {}
        if reason is None:
            found[name] = values
        yield name, item


def _value(document: Any, path: str) -> Any:
    """Look up a path from the top of a task document, or else from its ``output``."""
    steps = path.split(".")
    value = look(document, *steps)
    return look(document, "output", *steps) if value is None else value
