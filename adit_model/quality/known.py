"""Which known structure a generated one is, and how near."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adit_model.quality.crystals import (
    _budget,
    _references,
    reduced_composition,
    structure_matcher,
)
from adit_model.quality.molecules import canonical_smiles
from adit_model.quality.pool import run_isolated
from adit_model.systems import AtomicSystem

if TYPE_CHECKING:
    from adit_model.data.dataset import AtomicDataset


@dataclass(frozen=True)
class KnownMatch:
    """A known crystal that the structure matcher finds equal.

    Parameters
    ----------
    id : str
        ``info["id"]`` of the known crystal.
    distance : float
        RMS distance of the atoms, in units of (volume per atom)^(1/3).
    """

    id: str
    distance: float


def known_crystals(
    structures: Sequence[AtomicSystem],
    reference: AtomicDataset | Iterable[AtomicSystem],
    *,
    workers: int = 1,
    time_limit: float = 2.0,
    progress: bool = False,
) -> list[KnownMatch | str | None]:
    """Find the nearest known crystal of each crystal.

    The crystals without one are those that
    :func:`~adit_model.quality.crystals.novel_crystals` calls novel.

    Parameters
    ----------
    structures : sequence of AtomicSystem
        Crystals.
    reference : AtomicDataset or iterable of AtomicSystem
        Known crystals, each with ``info["id"]``. Molecules among them are passed over.
    workers, time_limit, progress
        As of :func:`~adit_model.quality.crystals.novel_crystals`.

    Returns
    -------
    list of KnownMatch, None or str
        None where no known crystal matches; a text says why a crystal could not be compared.
    """
    keys = [reduced_composition(system) for system in structures]
    known = _references(reference, set(keys))
    matches: list[KnownMatch | str | None] = [None] * len(structures)
    suspects = [i for i, key in enumerate(keys) if key in known]
    outcomes = run_isolated(
        _nearest,
        [(structures[i], known[keys[i]]) for i in suspects],
        time_limit=[_budget(time_limit, len(known[keys[i]])) for i in suspects],
        workers=workers,
        prepare=structure_matcher,
        progress="known crystals" if progress else None,
    )
    for i, outcome in zip(suspects, outcomes, strict=True):
        matches[i] = outcome.value if outcome.reason is None else outcome.reason
    return matches


def _nearest(item: tuple[AtomicSystem, list[AtomicSystem]]) -> KnownMatch | None:
    system, references = item
    matcher, structure = structure_matcher(), system.to_structure()
    found = []
    for other in references:
        distance = matcher.get_rms_dist(structure, other.to_structure())
        if distance is not None:
            found.append(KnownMatch(str(other.info.get("id")), float(distance[0])))
    return min(found, key=lambda match: match.distance, default=None)


def known_smiles(smiles: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
    """Map canonical SMILES to the id of the first molecule that has it.

    Parameters
    ----------
    smiles : sequence of str
        In any form; made canonical by :func:`~adit_model.quality.molecules.canonical_smiles`.
    ids : sequence of str
        Name of each.

    Raises
    ------
    ValueError
        If one cannot be read, or the numbers differ.
    """
    from rdkit import Chem, rdBase

    known: dict[str, str] = {}
    with rdBase.BlockLogs():
        for text, name in zip(smiles, ids, strict=True):
            mol = Chem.MolFromSmiles(text)
            if mol is None:
                raise ValueError(f"RDKit cannot read the reference SMILES {text!r} of {name}")
            known.setdefault(canonical_smiles(mol), str(name))
    return known
