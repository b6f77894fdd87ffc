"""Structures to evaluate, and known ones to compare them to."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adit_model.conditions.condition import Condition, as_condition
from adit_model.data.collect import canonical_item, collect
from adit_model.data.dataset import AtomicDataset
from adit_model.data.phases import KNOWN, is_known, known_molecules, known_splits
from adit_model.data.qm9 import SPLITS, load_qm9_smiles
from adit_model.data.sources import load_source
from adit_model.data.structures import holds_structures, read_structures
from adit_model.files import READY, SETTINGS, finish_results, only_run
from adit_model.quality.records import RECORDS, STRUCTURES
from adit_model.systems import AtomicSystem, as_list

if TYPE_CHECKING:
    from adit_model.sampling.sample import Sample

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Entry:
    """One structure to evaluate, or what is known of one that does not exist.

    Parameters
    ----------
    id : str
        Its name in the source.
    domain : str
        ``"crystal"``, ``"molecule"``, or ``"unknown"`` if it could not be read.
    num_atoms : int or None
        Atoms in the cell or molecule.
    formula : str
        As of :class:`~adit_model.systems.AtomicSystem`; empty if unknown.
    system : AtomicSystem or None
        None if it was not decoded or cannot be read.
    reason : str or None
        Why there is no system.
    holds : dict
        Whether it holds each thing that was asked of it, as far as that is known.
    condition : Condition
        What was asked of it.
    """

    id: str
    domain: str
    num_atoms: int | None
    formula: str
    system: AtomicSystem | None
    reason: str | None = None
    holds: dict[str, bool] = field(default_factory=dict)
    condition: Condition = field(default_factory=Condition)


def load_samples(spec: str, limit: int | None = None, progress: bool = False) -> list[Entry]:
    """Load what is to be evaluated.

    Parameters
    ----------
    spec : str
        A folder written by ``adit generate``, whose samples that could not be decoded count too;
        or anything that :func:`~adit_model.data.sources.load_source` takes. Structures of files
        whose information has a ``condition`` are compared with it.
    limit : int, optional
        Only so many, the first ones.
    progress : bool
        Show progress bars.

    Returns
    -------
    list of Entry
        What cannot be read is there too, of the domain of the others if they have only one.

    Raises
    ------
    FileNotFoundError, ValueError, DownloadError
        As ``load_source``; or if the files of ``adit generate`` do not belong together.
    """
    folder = Path(spec).expanduser()
    if spec and (folder / READY).is_dir():  # a run was killed at its end
        with only_run(folder):
            finish_results(folder)
    if spec and (folder / RECORDS).is_file() and (folder / SETTINGS).is_file():
        entries = _generated(folder)
    else:
        asked: list[AtomicSystem] = []
        if spec and holds_structures(folder):
            items = list(read_structures(folder))
            forms = [(name, canonical_item(item)) for name, item in items]
            dataset = collect(forms, folder.absolute().name, canonical=True)
            pairs = zip(items, forms, strict=True)
            asked = [
                item
                for (_, item), (_, form) in pairs
                if not isinstance(form, str) and not isinstance(item, str)
            ]
        else:
            dataset = load_source(spec, progress=progress)
        found = [_asked(system) for system in asked] or [{}] * len(dataset)
        entries = [
            replace(_entry(str(system.info["id"]), system), **more)
            for system, more in zip(dataset, found, strict=True)
        ]
        domains = {entry.domain for entry in entries}
        domain = domains.pop() if len(domains) == 1 else UNKNOWN
        entries += [Entry(i, domain, None, "", None, reason) for i, reason in dataset.skipped]
    return entries[:limit]


def with_charge(entries: Sequence[Entry], charge: int) -> list[Entry]:
    """Give a charge to the molecules that tell none."""
    found = []
    for entry in entries:
        system = entry.system
        if system is not None and not system.is_periodic and "charge" not in system.info:
            info = {**system.info, "charge": charge}
            system = AtomicSystem(system.numbers, system.positions, None, info)
        found.append(replace(entry, system=system))
    return found


def make_entries(structures: Iterable[Any]) -> list[Entry]:
    """Make entries of pymatgen, ASE or RDKit objects or ``AtomicSystem``, named by their place.

    An object that is no ordered crystal or molecule is an entry with the reason.
    """
    entries = []
    for i, structure in enumerate(as_list(structures)):
        try:
            system = AtomicSystem.from_any(structure)
            entries.append(replace(_entry(str(i), system), **_asked(system)))
        except (TypeError, ValueError) as error:
            entries.append(Entry(str(i), UNKNOWN, None, "", None, str(error)))
    return entries


def sample_entries(samples: Iterable[Sample]) -> list[Entry]:
    """Make entries of samples, those that could not be decoded included."""
    entries = []
    for sample in samples:
        name, size = str(sample.index), sample.num_atoms
        if sample.system is not None:
            entry = _entry(name, sample.system)
        else:
            entry = Entry(name, sample.domain, size, "", None, sample.fault)
        entries.append(replace(entry, holds=sample.holds, condition=sample.condition))
    return entries


def _entry(name: str, system: AtomicSystem) -> Entry:
    return Entry(name, system.domain, len(system), system.formula, system)


def _asked(system: AtomicSystem) -> dict[str, Any]:
    """Read what was asked of a structure from its information, and say whether it holds it."""
    text = system.info.get("condition")
    try:
        condition = as_condition(text) if isinstance(text, str) else Condition()
    except ValueError:  # somebody else's word
        return {}
    return {"condition": condition, "holds": condition.holds(system)}


def _generated(folder: Path) -> list[Entry]:
    import ase.io

    with open(folder / RECORDS, newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    together = folder / STRUCTURES
    frames = ase.io.read(together, index=":") if together.is_file() else []
    decoded = [row for row in table if row["decoded"] == "True"]
    if len(decoded) != len(frames):
        raise ValueError(
            f"{folder / RECORDS} lists {len(decoded)} decoded samples, {together.name} holds "
            f"{len(frames)}: generate them again, or give {together.name} itself"
        )
    systems = iter([AtomicSystem.from_atoms(atoms) for atoms in frames])
    entries = []
    for row in table:
        if row["decoded"] == "True":
            entry = _entry(row["index"], next(systems))
        else:
            size, reason = int(row["num_atoms"]), row["reason"] or None
            entry = Entry(row["index"], row["domain"], size, row["formula"], None, reason)
        holds = json.loads(row.get("holds") or "{}")
        asked = as_condition(row.get("condition") or None)
        entries.append(replace(entry, holds=holds, condition=asked))
    return entries


@dataclass(frozen=True)
class Reference:
    """Known structures.

    Parameters
    ----------
    names : list of str
        The sources, as given.
    crystals, molecules : AtomicDataset or None
        All crystals and all molecules of the sources; None where there are none.
    smiles : list of str or None
        SMILES published with the molecules; None where they have to be perceived.
    canonical : dict
        Of molecules whose geometry is not here: canonical SMILES to id.
    """

    names: list[str]
    crystals: AtomicDataset | None
    molecules: AtomicDataset | None
    smiles: list[str] | None
    canonical: dict[str, str] = field(default_factory=dict)

    @property
    def num_molecules(self) -> int:
        """How many molecules are known, with or without geometry."""
        return len(self.canonical) + (0 if self.molecules is None else len(self.molecules))

    @cached_property
    def crystals_hash(self) -> str:
        """Hash of the crystals."""
        digest = hashlib.sha256()
        if self.crystals is not None:
            for name in ("numbers", "positions", "cells", "sizes"):
                digest.update(getattr(self.crystals, name).tobytes())
        return digest.hexdigest()


def load_reference(specs: Sequence[str], progress: bool = False) -> Reference:
    """Load data to compare to: any sources of crystals, molecules or both, put together.

    Raises
    ------
    FileNotFoundError, ValueError, DownloadError
        As :func:`~adit_model.data.sources.load_source`.
    """
    sets = [load_source(spec, progress=progress) for spec in specs]
    crystals = _merge([_part(dataset, dataset.periodic) for dataset in sets])
    molecules = _merge([_part(dataset, ~dataset.periodic) for dataset in sets])
    smiles: list[str] | None = []
    canonical: dict[str, str] = {}
    for spec, dataset in zip(specs, sets, strict=True):
        if is_known(spec):
            canonical |= known_canonical(known_splits(spec))
        head, _, split = spec.partition(":")
        if head == "qm9" and split in ("", *SPLITS):
            smiles = None if smiles is None else smiles + load_qm9_smiles(split or "all")
        elif not dataset.periodic.all():
            smiles = None
    return Reference(list(specs), crystals, molecules, smiles or None, canonical)


def load_references(
    reference: Sequence[str], compare_to: Sequence[str] = (), progress: bool = False
) -> tuple[Reference | None, Reference | None]:
    """Load what novelty is judged by, and what distributions are compared to.

    Parameters
    ----------
    reference : sequence of str
        Sources of known structures; ``["known"]`` for those of the package; empty for none.
    compare_to : sequence of str
        Sources to compare distributions to; by default the reference, unless it is ``["known"]``.
    progress : bool
        Show progress bars.

    Raises
    ------
    FileNotFoundError, ValueError, DownloadError
        As :func:`~adit_model.data.sources.load_source`.
    """
    known = load_reference(reference, progress) if reference else None
    if compare_to:
        return known, load_reference(compare_to, progress)
    return known, None if list(reference) == [KNOWN] else known


def known_canonical(splits: Sequence[str]) -> dict[str, str]:
    """Map the canonical SMILES of the package's molecules, as this RDKit writes them, to ids."""
    import rdkit

    from adit_model.quality.molecules import known_smiles

    known = known_molecules()
    pairs = list(known.select(splits))
    if known.rdkit_version == rdkit.__version__:
        return {smiles: name for name, smiles in reversed(pairs)}
    return known_smiles([smiles for _, smiles in pairs], [name for name, _ in pairs])


def _part(dataset: AtomicDataset, mask: np.ndarray) -> AtomicDataset | None:
    return dataset.subset(mask) if mask.any() else None


def _merge(parts: Sequence[AtomicDataset | None]) -> AtomicDataset | None:
    present = [part for part in parts if part is not None]
    if len(present) < 2:
        return present[0] if present else None

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in present])

    return AtomicDataset(
        joined("numbers"),
        joined("positions"),
        joined("cells"),
        joined("sizes"),
        joined("ids"),
        ", ".join(part.name for part in present),
    )


def draw(dataset: AtomicDataset, number: int, seed: int = 0) -> list[AtomicSystem]:
    """Choose systems at random without repetition, all of them if there are not more."""
    order = np.random.RandomState(seed).permutation(len(dataset))[:number]
    return list(dataset.subset(np.sort(order)))
