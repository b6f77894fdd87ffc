"""Training data out of stores of task documents, the Materials Project and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monty.json import MontyDecoder, MontyEncoder, MSONable

from adit_model.data.collect import collect
from adit_model.data.dataset import AtomicDataset
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from maggma.core import Store
    from pymatgen.core import Molecule, Structure

# Where task documents keep the relaxed structure, in order of preference.
RELAXED = (
    "output.optimized_molecule",  # Q-Chem
    "output.mol_or_struct",  # ASE and force fields
    "output.structure",  # VASP, CP2K
    "output.molecule",
    "structure",
    "molecule",
)
ID_KEYS = ("material_id", "molecule_id", "task_id", "uuid")
FAILED = ("failed", "error", "unsuccessful", "fizzled")

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
        ``{"energy": "output.energy_per_atom"}``.
    converged : bool
        Leave out documents that say they failed or did not converge.
    name : str, optional
        Name of the data.

    Returns
    -------
    StoreData
        The structures in canonical form, and for each the properties asked for.

    Raises
    ------
    ValueError
        If no document fits the query, or none holds a structure that can be used.
    """
    opened = _open(store)
    paths = _property_paths(properties)
    found: dict[str, dict[str, Any]] = {}
    opened.connect()  # and not closed: a store in memory would lose its documents
    documents = list(_documents(opened, query))
    if not documents:
        raise ValueError(f"no document of {opened.name} fits the query {dict(query or {})}")
    items = list(_items(documents, paths, found, converged))
    if not items:
        raise ValueError(
            f"{len(documents)} documents of {opened.name} fit the query {dict(query or {})}, none "
            f"is a task document with a structure: looked for {', '.join(RELAXED)}"
        )
    dataset = collect(items, name or str(opened.name))
    kept = set(dataset.ids.tolist())
    return StoreData(dataset, {key: value for key, value in found.items() if key in kept})


def from_documents(
    documents: Iterable[Any],
    *,
    converged: bool = True,
    name: str = "documents",
) -> AtomicDataset:
    """Read structures out of objects: pymatgen, ASE, task documents, lists of any of these.

    Raises
    ------
    ValueError
        If there is nothing that can be used.
    """
    plain = [(str(i), document) for i, document in enumerate(_flatten(documents))]
    return collect(list(_items(plain, {}, {}, converged)), name)


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

    def read(self) -> StoreData:
        """Read the store; see :func:`from_store`."""
        return from_store(
            json.loads(str(self.store)),
            self.query,
            self.properties,
            converged=self.converged,
        )


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


def _open(store: Store | Mapping[str, Any]) -> Any:
    if isinstance(store, Mapping):
        store = MontyDecoder().process_decoded(dict(store))
    if not hasattr(store, "query"):
        raise TypeError(
            f"store must be a Maggma store or its as_dict(), got {type(store).__name__}"
        )
    return store


def _property_paths(properties: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    if isinstance(properties, str):
        raise TypeError(f"properties must be a list or a dict of paths, got {properties!r}")
    if isinstance(properties, Mapping):
        return dict(properties)
    return {path: path for path in properties or ()}


def _documents(store: Any, query: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Task documents of a store, each with an id; of a replaced job the last output alone."""
    latest: dict[str, Any] = {}
    plain = 0
    for document in store.query(dict(query or {})):
        if "output" in document and {"uuid", "index"} <= set(document):
            known = latest.get(document["uuid"])
            if known is None or known["index"] < document["index"]:
                latest[document["uuid"]] = document
        else:
            plain += 1
            name = _id(document) or str(document.get("_id", plain))
            yield name, document
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


def _id(document: Any) -> str:
    return next((str(_at(document, key)) for key in ID_KEYS if _at(document, key)), "")


def _at(document: Any, path: str) -> Any:
    """Value at a dotted path of nested dictionaries or objects, None where it ends."""
    for key in path.split("."):
        document = (
            document.get(key) if isinstance(document, Mapping) else getattr(document, key, None)
        )
        if document is None:
            return None
    return document


def _items(
    documents: Iterable[tuple[str, Any]],
    paths: Mapping[str, str],
    found: dict[str, dict[str, Any]],
    converged: bool,
) -> Iterator[Item]:
    for name, document in documents:
        structure = _relaxed(document)
        if structure is None:
            continue  # a document of another kind
        reason = _fault(document) if converged else None
        if reason is None:
            item = _system(structure)
            found[name] = {key: _at(document, path) for key, path in paths.items()}
        yield name, (item if reason is None else reason)


def _relaxed(document: Any) -> Any:
    if _is_structure(document):
        return document
    values = (_at(document, path) for path in RELAXED)
    return next((value for value in values if _is_structure(value)), None)


def _is_structure(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "sites" in value and value.get("@class") in (
            None,
            "Structure",
            "Molecule",
            "IStructure",
            "IMolecule",
        )
    return hasattr(value, "sites") or type(value).__module__.startswith("ase.atoms")


def _fault(document: Any) -> str | None:
    """Why a task document's structure is not relaxed, by its own words."""
    if _is_structure(document):
        return None
    state = _at(document, "state")
    text = str(getattr(state, "value", state)).lower()
    if text in FAILED:
        return f"its state is {text}"
    if _at(document, "is_force_converged") is False:
        return "its forces did not converge"
    if _at(document, "converged") is False or _at(document, "output.converged") is False:
        return "it did not converge"
    return None


def _system(structure: Any) -> AtomicSystem | str:
    try:
        if isinstance(structure, Mapping):
            structure = _from_dict(structure)
        return AtomicSystem.from_any(structure)
    except Exception as error:  # the readers raise any type on malformed documents
        return f"{type(error).__name__}: {error}"


def _from_dict(value: Mapping[str, Any]) -> Structure | Molecule:
    from pymatgen.core import Molecule, Structure

    kind = Structure if "lattice" in value else Molecule
    return kind.from_dict(dict(value))
