"""The best candidates of a store as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monty.json import MontyDecoder

from adit_atomate.ranking import rank_key

if TYPE_CHECKING:
    from ase import Atoms
    from maggma.core import Store
    from pymatgen.core import Molecule, Structure

FORMATS = ("cif", "extxyz", "db")
VALUES = ("score", "energy_above_hull", "strain_energy_per_atom", "formation_energy_per_atom")
NAMES = ("group_id", "candidate_id", "smiles", "checkpoint_hash", "hull_source")


def export_candidates(
    store: Store,
    path: str | Path,
    k: int | None = None,
    format: str = "cif",
    criteria: dict[str, Any] | None = None,
) -> list[str]:
    """Write the best candidates, lowest score first.

    Parameters
    ----------
    store : Store
        As :class:`~adit_atomate.builders.CandidateBuilder` fills it.
    path : str or Path
        A new or empty folder (``cif``; molecules become XYZ files in it), or a new file.
    k : int, optional
        How many; by default all.
    format : str
        ``"cif"``; ``"extxyz"``, one file with all; ``"db"``, a database of ASE. The last two carry
        scores (eV/atom) and ids with each structure.
    criteria : dict, optional
        A query, as ``{"domain": "crystal", "energy_above_hull": {"$lt": 0.1}}``.

    Returns
    -------
    list of str
        ``group_id`` of what was written, in order.

    Raises
    ------
    ValueError
        If k or the format is out of range, nothing matches, or the path exists already.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k <= 0):
        raise ValueError(f"k must be a positive integer or None, got {k!r}")
    path = Path(path)
    if path.is_file() or (path.is_dir() and (format != "cif" or any(path.iterdir()))):
        raise ValueError(f"{path} exists already: choose another path")
    store.connect()
    documents = sorted(store.query(criteria), key=_rank)[:k]
    if not documents:
        raise ValueError(f"no candidate in {store.name} matches {criteria or 'any query'}")
    structures = [MontyDecoder().process_decoded(_structure(d)) for d in documents]
    if format == "cif":
        _write_folder(path, documents, structures)
    else:
        _write_file(path, documents, structures, format)
    return [document["group_id"] for document in documents]


def _rank(document: dict[str, Any]) -> tuple[int, float, str]:
    key = rank_key(document.get("score"), document.get("hull_doubtful", False))
    return *key, document["group_id"]


def _structure(document: dict[str, Any]) -> Any:
    return document["structure" if document["domain"] == "crystal" else "molecule"]


def _write_folder(
    path: Path, documents: list[dict[str, Any]], structures: list[Structure | Molecule]
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    width = len(str(len(documents)))
    for i, (document, structure) in enumerate(zip(documents, structures, strict=True), 1):
        formula = re.sub(r"\W", "", structure.composition.reduced_formula)
        suffix = "cif" if document["domain"] == "crystal" else "xyz"
        structure.to(str(path / f"{i:0{width}}_{formula}.{suffix}"))


def _write_file(
    path: Path,
    documents: list[dict[str, Any]],
    structures: list[Structure | Molecule],
    format: str,
) -> None:
    import ase.db
    import ase.io
    from pymatgen.io.ase import AseAtomsAdaptor

    path.parent.mkdir(parents=True, exist_ok=True)
    images: list[Atoms] = []
    for document, structure in zip(documents, structures, strict=True):
        structure = structure.copy()
        structure.properties = {}
        for name in structure.site_properties:
            structure.remove_site_property(name)
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.calc = None
        atoms.info = {
            key: document[key] for key in (*VALUES, *NAMES) if document.get(key) is not None
        }
        images.append(atoms)
    if format == "extxyz":
        ase.io.write(path, images, format="extxyz")
        return
    with ase.db.connect(path, type="db") as database:
        for atoms in images:
            database.write(atoms, key_value_pairs=dict(atoms.info))
