"""One row for each structure: its record, its measures, whether it is unique and novel."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adit_model.data.dataset import AtomicDataset
from adit_model.files import atomic_path, csv_row
from adit_model.quality.cells import CellStore, fingerprint, measure_systems
from adit_model.quality.conditions import more_verdicts
from adit_model.quality.entries import Entry, Reference
from adit_model.quality.matching import first_equal, known_crystals
from adit_model.quality.measures import BONDS, CHUNK, MEASURES, PLAUSIBLE, Measure
from adit_model.quality.molecules import known_smiles
from adit_model.quality.pool import FAILED
from adit_model.quality.records import is_valid
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
    time_limit : float or None
        Seconds for one structure, in place of the measures' own.
    """

    store: CellStore = field(default_factory=CellStore)
    workers: int = 1
    progress: bool = False
    measures: tuple[Measure, ...] = MEASURES
    time_limit: float | None = None

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
        In the order of the entries. A cell is a value, None where the column does not apply
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
            **({"plausible": False} if PLAUSIBLE[0] in options.measures else {}),
            "reason": entry.reason,
            "holds": entry.holds,
        }
        for i, entry in enumerate(entries)
    ]
    more = more_verdicts(
        [entry.condition for entry in entries],
        [entry.system for entry in entries],
        workers=options.workers,
        **({} if options.time_limit is None else {"time_limit": options.time_limit}),
    )
    for row, verdicts in zip(rows, more, strict=True):
        row.update(verdicts)
    for domain in DOMAINS:
        chosen = {
            i: entry.system
            for i, entry in enumerate(entries)
            if entry.system is not None and entry.domain == domain
        }
        found = measure_systems(
            list(chosen.values()),
            options.of(domain),
            options.store,
            workers=options.workers,
            time_limit=options.time_limit,
            progress=options.title(f"{domain}s"),
        )
        for i, cells in zip(chosen, found, strict=True):
            rows[i].update(cells)
            rows[i]["valid"] = is_valid(domain, cells)
        valid = [rows[i] for i in chosen if rows[i]["valid"]]
        if valid and domain == CRYSTAL:
            compare_crystals(valid, [chosen[row["index"]] for row in valid], reference, options)
        elif valid:
            _compare_molecules(valid, reference, options)
    return rows


def compare_crystals(
    rows: Sequence[Row],
    crystals: Sequence[AtomicSystem],
    reference: Reference | None,
    options: Options,
    prefix: str = "",
) -> None:
    """Say which crystals are unique among themselves, and which are not in the reference.

    Parameters
    ----------
    rows : sequence of dict
        Of the crystals; ``unique`` and ``novel`` are filled in.
    crystals : sequence of AtomicSystem
        Of equal ones the first is the unique one.
    reference : Reference, optional
        Known structures; without crystals there, nothing is said about novelty.
    options : Options
        How to run.
    prefix : str
        Of the names of the columns.
    """
    settings: dict[str, Any] = {"workers": options.workers, "progress": options.progress}
    firsts = options.store.verdicts(
        f"first equal {fingerprint(crystals)}", lambda: first_equal(crystals, **settings)
    )
    for i, (row, first) in enumerate(zip(rows, firsts, strict=True)):
        row[f"{prefix}unique"] = f"{FAILED}{first}" if isinstance(first, str) else first == i
    if reference is None or (known := reference.crystals) is None:
        return
    for start in range(0, len(crystals), CHUNK):
        part = crystals[start : start + CHUNK]
        novel = options.store.verdicts(
            f"novel {reference.crystals_hash} {fingerprint(part)}",
            functools.partial(_novel, part, known, settings),
        )
        for row, verdict in zip(rows[start : start + CHUNK], novel, strict=True):
            row[f"{prefix}novel"] = f"{FAILED}{verdict}" if isinstance(verdict, str) else verdict


def _novel(
    crystals: Sequence[AtomicSystem], known: AtomicDataset, settings: dict[str, Any]
) -> list[bool | str]:
    matches = known_crystals(crystals, known, **settings)
    return [match if isinstance(match, str) else match is None for match in matches]


def _compare_molecules(rows: Sequence[Row], reference: Reference | None, options: Options) -> None:
    seen: set[str] = set()
    for row in rows:
        row["unique"] = row["smiles"] not in seen
        seen.add(row["smiles"])
    if reference is not None and reference.num_molecules:
        known = known_molecules(reference, options)
        for row in rows:
            row["novel"] = row["smiles"] not in known


def known_molecules(reference: Reference, options: Options) -> dict[str, str]:
    """Map the canonical SMILES of a reference's molecules to the id of the first that has it.

    Raises
    ------
    ValueError
        If it holds no molecules, or a published SMILES cannot be read.
    """
    if not reference.num_molecules:
        raise ValueError(f"the reference {reference.names} holds no molecules")
    if reference.molecules is None:
        return reference.canonical
    ids = [str(name) for name in reference.molecules.ids]
    smiles = reference.smiles
    if smiles is None:
        cells = measure_systems(
            list(reference.molecules),
            [BONDS],
            options.store,
            workers=options.workers,
            progress=options.title("reference molecules"),
        )
        bonded = [(c["smiles"], i) for c, i in zip(cells, ids, strict=True) if c["bonded"] is True]
        return reference.canonical | dict(reversed(bonded))
    digest = hashlib.sha256("\n".join([*smiles, *ids]).encode()).hexdigest()
    known = options.store.read(f"smiles {digest}")
    if known is None:
        known = known_smiles(smiles, ids)
        options.store.write(f"smiles {digest}", known)
    return reference.canonical | known


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
        known = reference.num_molecules if domain == MOLECULE else reference.crystals is not None
        asked |= {"novel"} if known else set()
    return asked


def columns_of(rows: Sequence[Row], measures: Sequence[Measure]) -> list[str]:
    """Columns of the table: those of the domains that occur."""
    domains = {row["domain"] for row in rows}
    middle = [
        column for measure in measures if measure.domain in domains for column in measure.columns
    ]
    holds = ["holds"] if any(row["holds"] for row in rows) else []
    holds += [name for name in ("within", "symmetrised") if any(name in row for row in rows)]
    return [*HEAD, *holds, *middle, *TAIL]


def write_rows(path: Path, rows: Sequence[Row], measures: Sequence[Measure]) -> None:
    """Write the table as CSV; an empty cell does not apply to its structure."""
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns_of(rows, measures), extrasaction="ignore")
        table.writeheader()
        for row in rows:
            table.writerow(csv_row({name: _text(value) for name, value in row.items()}))


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value)
    return f"{value:.6g}" if isinstance(value, float) else value
