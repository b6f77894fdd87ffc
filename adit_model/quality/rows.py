"""One row for each structure: its measures, its validity, whether it is unique and novel."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adit_model.files import atomic_path
from adit_model.quality.cells import CellStore, fingerprint, measure_systems
from adit_model.quality.crystals import judge_novel, judge_unique
from adit_model.quality.measures import CHUNK, FAILED, MEASURES, Measure
from adit_model.quality.molecules import canonical_smiles_set
from adit_model.quality.sources import Entry, Reference
from adit_model.systems import CRYSTAL, DOMAINS, MOLECULE, AtomicSystem

HEAD = ("index", "id", "domain", "formula", "num_atoms", "decoded", "valid", "reason")
TAIL = ("unique", "novel")
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How to run.

    Parameters
    ----------
    store : CellStore
        Where finished parts are kept.
    workers : int
        Worker processes.
    progress : bool
        Show progress bars.
    measures : tuple of Measure
        What to measure.
    """

    store: CellStore
    workers: int = 1
    progress: bool = False
    measures: tuple[Measure, ...] = MEASURES

    def of(self, domain: str) -> tuple[Measure, ...]:
        """Measures of one domain."""
        return tuple(measure for measure in self.measures if measure.domain == domain)

    def title(self, text: str) -> str | None:
        """Title of a progress bar, None if there shall be none."""
        return text if self.progress else None


def make_rows(entries: Sequence[Entry], reference: Reference | None, options: Options) -> list[Row]:
    """Measure all entries.

    Parameters
    ----------
    entries : sequence of Entry
        Crystals, molecules or both.
    reference : Reference, optional
        Known structures, which are not novel.
    options : Options
        How to run.

    Returns
    -------
    list of dict
        In the order of the entries. A cell is a value, None where the question does not arise
        (no system, not valid, no reference), or a text with the reason why it could not be
        answered. Keys beyond those of :func:`columns_of` hold what distributions are made of.
    """
    rows: list[Row] = [
        {
            **dict.fromkeys(HEAD + TAIL),
            "index": i,
            "id": entry.id,
            "domain": entry.domain,
            "formula": entry.formula,
            "num_atoms": entry.num_atoms,
            "decoded": entry.system is not None,
            "valid": False,
            "reason": entry.reason,
        }
        for i, entry in enumerate(entries)
    ]
    for domain in DOMAINS:
        chosen = [i for i, entry in enumerate(entries) if _has(entry, domain)]
        systems = [entries[i].system for i in chosen]
        found = measure_systems(
            [system for system in systems if system is not None],
            options.of(domain),
            options.store,
            workers=options.workers,
            progress=options.title(f"{domain}s"),
        )
        for i, cells in zip(chosen, found, strict=True):
            rows[i].update(cells)
            parts = (
                ("structural", "compositional") if domain == CRYSTAL else ("bonded", "connected")
            )
            rows[i]["valid"] = all(cells.get(part) is True for part in parts)
    _compare_crystals(rows, entries, reference, options)
    _compare_molecules(rows, reference, options)
    return rows


def _has(entry: Entry, domain: str) -> bool:
    return entry.system is not None and entry.domain == domain


def _compare_crystals(
    rows: list[Row], entries: Sequence[Entry], reference: Reference | None, options: Options
) -> None:
    chosen = [row["index"] for row in rows if row["valid"] and row["domain"] == CRYSTAL]
    systems: list[AtomicSystem] = [entries[i].system for i in chosen]
    if not systems:
        return
    settings: dict[str, Any] = {"workers": options.workers, "progress": options.progress}
    key = f"unique {fingerprint(systems)}"
    verdicts = options.store.read(key)
    if verdicts is None:
        verdicts = judge_unique(systems, **settings)
        options.store.write(key, verdicts)
    _fill(rows, chosen, "unique", verdicts)
    if reference is None or reference.crystals is None:
        return
    known = dataset_hash(reference)
    for start in range(0, len(systems), CHUNK):
        part = systems[start : start + CHUNK]
        key = f"novel {known} {fingerprint(part)}"
        verdicts = options.store.read(key)
        if verdicts is None:
            verdicts = judge_novel(part, reference.crystals, **settings)
            options.store.write(key, verdicts)
        _fill(rows, chosen[start : start + CHUNK], "novel", verdicts)


def _fill(rows: list[Row], chosen: list[int], column: str, verdicts: list[bool | str]) -> None:
    for i, verdict in zip(chosen, verdicts, strict=True):
        rows[i][column] = verdict if isinstance(verdict, bool) else f"{FAILED}{verdict}"


def dataset_hash(reference: Reference) -> str:
    """Hash of the reference's crystals."""
    digest = hashlib.sha256()
    dataset = reference.crystals
    assert dataset is not None
    for array in (dataset.numbers, dataset.positions, dataset.cells, dataset.sizes):
        digest.update(array.tobytes())
    return digest.hexdigest()


def _compare_molecules(rows: list[Row], reference: Reference | None, options: Options) -> None:
    valid = [row for row in rows if row["valid"] and row["domain"] == MOLECULE]
    seen: set[str] = set()
    for row in valid:
        row["unique"] = row["smiles"] not in seen
        seen.add(row["smiles"])
    if valid and reference is not None and reference.molecules is not None:
        known = _known_smiles(reference, options)
        for row in valid:
            row["novel"] = row["smiles"] not in known


def _known_smiles(reference: Reference, options: Options) -> set[str]:
    if reference.smiles is not None:
        digest = hashlib.sha256("\n".join(reference.smiles).encode()).hexdigest()
        known = options.store.read(f"smiles {digest}")
        if known is None:
            known = sorted(canonical_smiles_set(reference.smiles))
            options.store.write(f"smiles {digest}", known)
        return set(known)
    assert reference.molecules is not None
    bonds = tuple(measure for measure in MEASURES if measure.name == "bonds")
    found = measure_systems(
        list(reference.molecules),
        bonds,
        options.store,
        workers=options.workers,
        progress=options.title("reference molecules"),
    )
    return {cells["smiles"] for cells in found if cells["bonded"] is True}


def asked_columns(
    domain: str, reference: Reference | None, measures: Sequence[Measure]
) -> set[str]:
    """Columns that hold answers for a domain: of measures that can be taken, and ``novel``."""
    asked = {
        column
        for measure in measures
        if measure.domain == domain and measure.missing is None
        for column in measure.columns
    }
    if reference is not None:
        known = reference.crystals if domain == CRYSTAL else reference.molecules
        asked |= {"novel"} if known is not None else set()
    return asked


def columns_of(rows: Sequence[Row], measures: Sequence[Measure]) -> list[str]:
    """Columns of the table: those of the domains that occur."""
    domains = {row["domain"] for row in rows}
    middle = [
        column for measure in measures if measure.domain in domains for column in measure.columns
    ]
    return [*HEAD, *middle, *TAIL]


def write_rows(path: Path, rows: Sequence[Row], measures: Sequence[Measure]) -> None:
    """Write the table as CSV; an empty cell is a question that does not arise."""
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns_of(rows, measures), extrasaction="ignore")
        table.writeheader()
        for row in rows:
            table.writerow({name: _text(value) for name, value in row.items()})


def _text(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
