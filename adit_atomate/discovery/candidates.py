"""From job stores to one store of distinct candidates, and from there to files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maggma.core import Builder
from monty.json import MontyDecoder, jsanitize

from adit_model.quality.hull import rank_key

if TYPE_CHECKING:
    from jobflow import JobStore
    from maggma.core import Store
    from pymatgen.analysis.structure_matcher import StructureMatcher

KEY = "group_id"
MEMBER_FIELDS = ("candidate_id", "seed", "index", "checkpoint_hash", "score", "energy_above_hull")
FORMATS = ("cif", "poscar", "extxyz", "db")
VALUES = ("score", "energy_above_hull", "strain_energy_per_atom", "formation_energy_per_atom")
NAMES = ("group_id", "candidate_id", "smiles", "checkpoint_hash", "hull_source", "stability")


class CandidateBuilder(Builder):
    """Collect the candidates of all discovery flows of a job store, each kind once.

    A document of ``candidates`` is the best of all equal candidates, with all fields of its
    ``ADiTCandidateDoc``, and the others in ``members``. The best has
    a successful DFT calculation, then the lowest score. Crystals are equal if pymatgen's structure
    matcher fits one to the other (compared within a reduced formula), molecules if their canonical
    SMILES are the same.

    Running it again reads only what is new: a job counts as read by its uuid, index and time of
    completion, so documents that arrive late or were computed again are not missed.

    Parameters
    ----------
    jobs : JobStore
        Where discovery flows have left their results.
    candidates : Store
        Any Maggma store; its key becomes ``group_id``.
    ltol, stol, angle_tol : float
        Tolerances of the structure matcher: relative length, fraction of (volume per
        atom)^(1/3), degrees. The default is pymatgen's, which is stricter than the one of
        uniqueness rates in the literature: what differs a little is kept apart.
    chunk_size : int
        Formulas (crystals) and SMILES (molecules) that are written at a time.

    Examples
    --------
    >>> from jobflow import SETTINGS
    >>> from maggma.stores import MontyStore
    >>> store = MontyStore("candidates", database_path="/data/candidates")  # doctest: +SKIP
    >>> CandidateBuilder(SETTINGS.JOB_STORE, store).run()  # doctest: +SKIP
    """

    def __init__(
        self,
        jobs: JobStore,
        candidates: Store,
        ltol: float = 0.2,
        stol: float = 0.3,
        angle_tol: float = 5.0,
        chunk_size: int = 100,
    ) -> None:
        self.jobs = jobs
        self.candidates = candidates
        self.ltol = ltol
        self.stol = stol
        self.angle_tol = angle_tol
        self.candidates.key = KEY
        super().__init__(sources=[jobs], targets=[candidates], chunk_size=chunk_size)

    def get_items(self) -> Iterator[dict[str, Any]]:
        """Find candidates of jobs that were not read yet, by formula or SMILES.

        Yields
        ------
        dict
            ``new``: documents of candidates, ``known``: documents of the target they may equal.
        """
        with suppress(NotImplementedError):  # MontyDB has none
            self.candidates.ensure_index(KEY)
            self.candidates.ensure_index("kind")
        read = {
            (source["uuid"], source["index"], source["completed_at"])
            for document in self.candidates.query(properties=["sources"])
            for source in document["sources"]
        }
        kinds: dict[str, list[dict[str, Any]]] = {}
        for source in self._unread(read):
            try:
                found = [(_kind(candidate), candidate) for candidate in self._candidates(source)]
                for _, candidate in found:
                    if candidate["domain"] == "crystal":
                        _decode(candidate["structure"])
            except Exception as error:  # data that a killed run has not stored, or damaged ones
                self.logger.warning(
                    "candidates of job %s, index %s, are skipped: %s: %s; run the job again, or "
                    "remove its document",
                    source["uuid"],
                    source["index"],
                    type(error).__name__,
                    error,
                )
                continue
            for kind, candidate in found:
                kinds.setdefault(kind, []).append(candidate)
        self.total = len(kinds)
        for kind, new in sorted(kinds.items()):
            known = list(self.candidates.query({"kind": kind}))
            for document in known:
                document.pop("_id", None)
            yield {"kind": kind, "new": new, "known": known}

    def process_item(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """Put the new candidates of one kind into groups of equal ones.

        Parameters
        ----------
        item : dict
            As :meth:`get_items` gives them.

        Returns
        -------
        list of dict
            The groups that changed.
        """
        groups: dict[str, dict[str, Any]] = {group[KEY]: group for group in item["known"]}
        owners = {m["candidate_id"]: key for key, group in groups.items() for m in group["members"]}
        matcher = self._matcher()
        structures: dict[str, Any] = {}
        changed = set()
        for candidate in item["new"]:
            name = candidate["candidate_id"]
            key = owners.get(name)
            if key is None:
                key = self._find(candidate, groups, matcher, structures)
            if key is None:
                key = name
                groups[key] = {KEY: key, "kind": item["kind"], "members": [], "sources": []}
            owners[name] = key
            groups[key] = _join(groups[key], candidate)
            structures.pop(key, None)
            changed.add(key)
        now = datetime.now(UTC).replace(tzinfo=None)
        return [{**groups[key], "last_updated": now} for key in sorted(changed)]

    def update_targets(self, items: list[list[dict[str, Any]]]) -> None:
        """Write groups.

        Parameters
        ----------
        items : list
            What :meth:`process_item` gave.
        """
        documents = [document for groups in items for document in groups]
        if documents:
            self.candidates.update(documents, key=KEY)

    def _unread(self, read: set[tuple[str, int, str]]) -> Iterator[dict[str, Any]]:
        found = self.jobs.query(
            {"output.candidates": {"$exists": True}}, properties=["uuid", "index", "completed_at"]
        )
        for document in sorted(
            found, key=lambda d: (str(d["completed_at"]), d["uuid"], d["index"])
        ):
            source = {
                "uuid": document["uuid"],
                "index": document["index"],
                "completed_at": str(document["completed_at"]),
            }
            if tuple(source.values()) not in read:
                yield source

    def _candidates(self, source: dict[str, Any]) -> Iterator[dict[str, Any]]:
        document = self.jobs.query_one(
            {"uuid": source["uuid"], "index": source["index"]},
            properties=["output.candidates"],
            load=True,
        )
        assert document is not None
        for candidate in document["output"]["candidates"] or []:
            yield {**jsanitize(candidate), "sources": [source]}

    def _matcher(self) -> StructureMatcher:
        from pymatgen.analysis.structure_matcher import StructureMatcher

        return StructureMatcher(ltol=self.ltol, stol=self.stol, angle_tol=self.angle_tol)

    def _find(
        self,
        candidate: dict[str, Any],
        groups: dict[str, dict[str, Any]],
        matcher: StructureMatcher,
        structures: dict[str, Any],
    ) -> str | None:
        """Find the group a candidate of the same kind belongs to."""
        if candidate["domain"] == "molecule":  # of one kind are those with one SMILES
            return next(iter(groups), None)
        structure = _decode(candidate["structure"])
        for key, group in groups.items():
            if key not in structures:
                structures[key] = _decode(group["structure"])
            if matcher.fit(structure, structures[key]):
                return key
        return None


def _kind(candidate: dict[str, Any]) -> str:
    """Return what equal candidates have in common, and only few others."""
    if candidate["domain"] == "crystal":
        return f"crystal {candidate['formula_pretty']}"
    smiles = candidate.get("relaxed_smiles") or candidate.get("smiles")
    return f"molecule {smiles or candidate['candidate_id']}"


def _join(group: dict[str, Any], candidate: dict[str, Any]) -> dict[str, Any]:
    """Add a candidate to a group, whose fields are those of its best member."""
    name = candidate["candidate_id"]
    member = {key: candidate.get(key) for key in MEMBER_FIELDS}
    members = [m for m in group["members"] if m["candidate_id"] != name]
    members = sorted([*members, member], key=lambda m: (_score(m), m["candidate_id"]))
    sources = [s for s in group["sources"] if s not in candidate["sources"]]
    best = candidate
    if group.get("candidate_id") not in (None, name) and _quality(group) <= _quality(candidate):
        best = group
    return {
        **best,
        KEY: group[KEY],
        "kind": group["kind"],
        "members": members,
        "num_members": len(members),
        "sources": [*sources, *candidate["sources"]],
    }


def _score(document: dict[str, Any]) -> float:
    score = document.get("score")
    return math.inf if score is None else score


def _quality(document: dict[str, Any]) -> tuple[bool, float]:
    """Return what candidates of a group are sorted by, the best first."""
    dft = document.get("dft") or {}
    return dft.get("state") != "successful", _score(document)


def _decode(structure: Any) -> Any:
    return MontyDecoder().process_decoded(structure)


def export_candidates(
    store: Store,
    path: str | Path,
    k: int | None = None,
    format: str = "cif",
    criteria: dict[str, Any] | None = None,
    cell: str = "as-made",
) -> list[str]:
    """Write the best candidates, lowest score first.

    Parameters
    ----------
    store : Store
        As :class:`~adit_atomate.discovery.candidates.CandidateBuilder` fills it.
    path : str or Path
        A new or empty folder (``cif``, ``poscar``; molecules become XYZ files in it), or a new
        file.
    k : int, optional
        How many; by default all.
    format : str
        ``"cif"``; ``"poscar"``; ``"extxyz"``, one file with all; ``"db"``, a database of ASE. The
        last two carry scores (eV/atom) and ids with each structure.
    criteria : dict, optional
        A query, as ``{"domain": "crystal", "energy_above_hull": {"$lt": 0.1}}``.
    cell : str
        Of CIF and POSCAR files, see :func:`adit_model.quality.symmetry.crystal_text`.

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
    path, folder = Path(path), format in ("cif", "poscar")
    if path.is_file() or (path.is_dir() and (not folder or any(path.iterdir()))):
        raise ValueError(f"{path} exists already: choose another path")
    store.connect()
    documents = sorted(store.query(criteria), key=_rank)[:k]
    if not documents:
        raise ValueError(f"no candidate in {store.name} matches {criteria or 'any query'}")
    if folder:
        _write_folder(path, documents, format, cell)
    else:
        _write_file(path, documents, format)
    return [document[KEY] for document in documents]


def _rank(document: dict[str, Any]) -> tuple[int, float, str]:
    key = rank_key(document.get("score"), document.get("stability"))
    return *key, document[KEY]


def _structure(document: dict[str, Any]) -> Any:
    return _decode(document["structure" if document["domain"] == "crystal" else "molecule"])


def _write_folder(path: Path, documents: list[dict[str, Any]], format: str, cell: str) -> None:
    from adit_model.quality.symmetry import SUFFIXES, crystal_text
    from adit_model.systems import AtomicSystem

    path.mkdir(parents=True, exist_ok=True)
    width = len(str(len(documents)))
    for i, document in enumerate(documents, 1):
        structure = _structure(document)
        stem = f"{i:0{width}}_{AtomicSystem.from_any(structure).formula}"
        if document["domain"] == "crystal":
            text = crystal_text(structure, format, cell)
            (path / f"{stem}{SUFFIXES[format]}").write_text(text)
        else:
            structure.to(str(path / f"{stem}.xyz"))


def _write_file(path: Path, documents: list[dict[str, Any]], format: str) -> None:
    import ase.db
    import ase.io

    from adit_model.systems import AtomicSystem

    path.parent.mkdir(parents=True, exist_ok=True)
    images = []
    for document in documents:
        atoms = AtomicSystem.from_any(_structure(document)).to_atoms()
        found = ((key, document.get(key)) for key in (*VALUES, *NAMES))
        atoms.info = {key: value for key, value in found if value is not None}
        images.append(atoms)
    if format == "extxyz":
        ase.io.write(path, images, format="extxyz")
        return
    with ase.db.connect(path, type="db") as database:
        for atoms in images:
            database.write(atoms, key_value_pairs=dict(atoms.info))
