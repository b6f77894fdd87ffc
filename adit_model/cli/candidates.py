"""What ``adit predict`` and ``adit complete`` write and print: ranked candidates."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model.files import csv_row, new_results
from adit_model.quality.records import SETTINGS, STRUCTURES
from adit_model.quality.symmetry import crystal_text

if TYPE_CHECKING:
    from adit_model.prediction.candidates import Candidate

TABLE, SUMMARY = "candidates.csv", "summary.txt"
WRITTEN = (TABLE, SUMMARY, STRUCTURES, SETTINGS)
FOLDER, BESIDE = "candidates", "known"
PRINTED = 12  # lines of the table on the screen
COLUMNS = (  # of the table on the screen
    ("rank", "rank"),
    ("energy_per_atom", "eV/atom"),
    ("above_lowest", "above lowest"),
    ("num_atoms", "atoms"),
    ("space_group", "group"),
    ("smiles", "SMILES"),
    ("samples", "samples"),
    ("known", "same as"),
    ("source", "source"),
)


def add_candidate_arguments(parser: argparse.ArgumentParser, number: int, relax: str) -> None:
    """Add what both commands take beside the options of sampling."""
    add = parser.add_argument
    add(
        "--candidates",
        type=int,
        default=number,
        metavar="N",
        help="structures to generate (default %(default)s)",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    add(
        "--relax",
        default=relax or None,
        metavar="ENGINE",
        help="chgnet or sevennet (crystals), xtb (molecules), none "
        f"(default {relax or 'chgnet for crystals, xtb for molecules'})",
    )


def write_candidates(
    folder: Path,
    candidates: Sequence[Candidate],
    rows: Sequence[dict[str, Any]],
    run: dict[str, Any],
    summary: str,
    beside: Sequence[Candidate] = (),
) -> None:
    """Write structures, the table, the settings and the summary; those of an earlier run go.

    Crystals are CIF files, with their symmetry where they were symmetrised; molecules XYZ files.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    with new_results(folder) as new:
        _write(new, candidates, rows, run, summary, beside)


def _write(
    folder: Path,
    candidates: Sequence[Candidate],
    rows: Sequence[dict[str, Any]],
    run: dict[str, Any],
    summary: str,
    beside: Sequence[Candidate],
) -> None:
    import ase.io

    together, files = [], {}
    for name, group in ((FOLDER, candidates), (BESIDE, beside)):
        for place, candidate in enumerate(group, 1):
            path = folder / name / _file_name(place, candidate)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_text(candidate))
            files[id(candidate)] = str(path.relative_to(folder))
            atoms = candidate.system.to_atoms()
            atoms.info = {"source": candidate.source, "rank": place if name == FOLDER else -1}
            if candidate.energy is not None:
                atoms.info["energy_per_atom"] = candidate.energy
            together.append(atoms)
    if together:
        ase.io.write(folder / STRUCTURES, together, format="extxyz")
    with open(folder / TABLE, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["rank"])
        table.writeheader()
        table.writerows(csv_row(row) for row in rows)
    (folder / SETTINGS).write_text(json.dumps(run, indent=2) + "\n")
    (folder / SUMMARY).write_text(summary + "\n")


def _file_name(place: int, candidate: Candidate) -> str:
    what = candidate.known if candidate.known and candidate.index is None else ""
    if candidate.system.is_periodic:
        group = f"_sg{candidate.space_group}" if candidate.space_group else ""
        return f"{place:02d}_{candidate.system.formula}{group}{'_' + what if what else ''}.cif"
    return f"{place:02d}_{candidate.system.formula}.xyz"


def _text(candidate: Candidate) -> str:
    if not candidate.system.is_periodic:
        return candidate.system.to_xyz()
    cell = "as-made" if candidate.moved is None else "conventional"
    return crystal_text(candidate.system, cell=cell)


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print the first lines of the table, without the columns that are empty."""
    shown = rows[:PRINTED]
    columns = [(key, head) for key, head in COLUMNS if any(r[key] is not None for r in shown)]
    cells = [[head for _, head in columns]]
    cells += [[_cell(r[key]) for key, _ in columns] for r in shown]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    for line in cells:
        print("  ".join(t.rjust(w) for t, w in zip(line, widths, strict=True)).rstrip())
    if len(rows) > PRINTED:
        print(f"and {len(rows) - PRINTED} more, see {TABLE}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
