"""What ``adit predict``, ``complete`` and ``discover`` share: ranked candidates in a folder."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adit_model import __version__
from adit_model.cli.generate import check_folder
from adit_model.files import csv_row, new_results, output_folder
from adit_model.quality.records import SETTINGS, STRUCTURES
from adit_model.quality.symmetry import crystal_text

if TYPE_CHECKING:
    from adit_model.model import ADiT
    from adit_model.prediction.candidates import Candidate

TABLE, SUMMARY, PICTURE = "candidates.csv", "summary.txt", "candidates.png"
WRITTEN = (TABLE, SUMMARY, PICTURE, STRUCTURES, SETTINGS)
FOLDER, BESIDE = "candidates", "known"
PRINTED = 12  # lines of the table on the screen
COLUMNS = (  # of the table on the screen
    ("rank", "rank"),
    ("formula", "formula"),
    ("energy_above_hull", "above hull"),
    ("formation_energy", "formation"),
    ("stability", "stability"),
    ("energy_per_atom", "eV/atom"),
    ("above_lowest", "above lowest"),
    ("num_atoms", "atoms"),
    ("space_group", "group"),
    ("smiles", "SMILES"),
    ("samples", "samples"),
    ("known", "same as"),
    ("source", "source"),
)


@dataclass
class Results:
    """What a command found, to be written and printed.

    Parameters
    ----------
    candidates, beside : sequence of Candidate
        The ranked ones, and known crystals beside them.
    rows : list of dict
        The table.
    run : dict
        Settings, as JSON.
    summary : str
        A few lines.
    picture : bool
        Draw the candidates.
    """

    candidates: Sequence[Candidate]
    rows: list[dict[str, Any]]
    run: dict[str, Any]
    summary: str
    beside: Sequence[Candidate] = field(default_factory=list)
    picture: bool = False


def run_command(
    args: argparse.Namespace, work: Callable[[ADiT], Results], resume: bool = False
) -> int:
    """Load the weights, do the work, write what it found into ``--out``, and print the best.

    Parameters
    ----------
    args : argparse.Namespace
        With ``out``, ``overwrite``, ``checkpoint`` and ``device``.
    work : callable
        Takes the model.
    resume : bool
        The folder holds an unfinished run to go on with.

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    ValueError, OSError
        If the folder cannot be written or holds files already.
    """
    check_folder(args.out, args.overwrite or resume, WRITTEN)
    with output_folder(args.out, alone=True):
        check_folder(args.out, args.overwrite or resume, WRITTEN)  # another may have come first
        from adit_model.model import ADiT

        model = ADiT.load(args.checkpoint, device=args.device)
        found = work(model)
        run = {
            "adit_atomate": __version__,
            "checkpoint": args.checkpoint,
            "checkpoint_hash": model.checkpoint_hash,
            **found.run,
        }
        write_candidates(args.out, found, run)
    print_rows(found.rows)
    print(found.summary)
    print(f"written to {args.out}")
    return 0


def limits(args: argparse.Namespace) -> dict[str, Any]:
    """Return what limits sampling and relaxation among the arguments."""
    return {
        "workers": args.workers,
        "batch_atoms": args.batch_atoms,
        "progress": not args.quiet,
    }


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


def write_candidates(folder: Path, found: Results, run: dict[str, Any]) -> None:
    """Write structures, the table, the settings and the summary; those of an earlier run go.

    Crystals are CIF files, with their symmetry where they were symmetrised; molecules XYZ files.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    with new_results(folder) as new:
        _write(new, found, run)


def _write(folder: Path, found: Results, run: dict[str, Any]) -> None:
    import ase.io

    together = []
    for name, group in ((FOLDER, found.candidates), (BESIDE, found.beside)):
        for place, candidate in enumerate(group, 1):
            path = folder / name / _file_name(place, candidate)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_text(candidate))
            atoms = candidate.system.to_atoms()
            atoms.info = {"source": candidate.source, "rank": place if name == FOLDER else -1}
            if candidate.energy is not None:
                atoms.info["energy_per_atom"] = candidate.energy
            together.append(atoms)
    if together:
        ase.io.write(folder / STRUCTURES, together, format="extxyz")
    with open(folder / TABLE, "w", newline="") as file:
        table = csv.DictWriter(file, list(found.rows[0]) if found.rows else ["rank"])
        table.writeheader()
        table.writerows(csv_row(row) for row in found.rows)
    (folder / SETTINGS).write_text(json.dumps(run, indent=2) + "\n")
    (folder / SUMMARY).write_text(found.summary + "\n")
    if found.picture and found.candidates:
        from adit_model.drawing import formula_title, plot_grid

        systems = [candidate.system for candidate in found.candidates]
        titles = [f"{k}: {formula_title(s.formula)}" for k, s in enumerate(systems, 1)]
        plot_grid(systems, folder / PICTURE, titles=titles)


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
    columns = [(key, head) for key, head in COLUMNS if any(r.get(key) is not None for r in shown)]
    if len({r.get("formula") for r in rows}) == 1:
        columns = [column for column in columns if column[0] != "formula"]
    cells = [[head for _, head in columns]]
    cells += [[_cell(r.get(key)) for key, _ in columns] for r in shown]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    for line in cells:
        print("  ".join(t.rjust(w) for t, w in zip(line, widths, strict=True)).rstrip())
    if len(rows) > PRINTED:
        print(f"and {len(rows) - PRINTED} more, see {TABLE}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
