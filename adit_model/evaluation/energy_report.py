"""The part of a report that is about energies of crystals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adit_model.evaluation.energies import METASTABLE, NUMBERS, RATES
from adit_model.evaluation.tables import number, percent, share, table

PARTIAL = (
    "**The hull is partial**: known phases are missing from it, so each energy above it is a lower "
    "bound on the true one, and the shares of stable and metastable crystals are upper bounds."
)
WHOLE = "The hull holds all phases that its source knows."
DEFINITIONS = f"""\
Relaxation of atoms and cell: FIRE, Frechet cell filter, forces below 0.1 eV/angstrom, at most 500
steps. *Stable*: relaxed, at most 0 eV/atom above the hull; *metastable*: at most {METASTABLE}.
*S.U.N.*, *M.S.U.N.*: besides, the relaxed crystal is unique and novel. All are shares of all
samples, valid or not; a relaxation that failed counts as not passed. *RMSD*: of the atoms in
fractional coordinates, their mean move and the change of the cell taken out.
"""


def energy_lines(energies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write what :func:`~adit_model.evaluation.energies.summarise_energies` found as Markdown."""
    lines: list[str] = []
    for part in energies.values():
        lines += [f"### Crystals: energies by {part['model']}", ""]
        hull = part["hull"]
        lines += [
            f"Hull: {hull['source']}; {hull['compounds']} compounds; energy scale: "
            f"{part['scale']}. {WHOLE if hull['complete'] else PARTIAL}",
            "",
        ]
        body = [(label, share(part["rates"][key])) for key, label, _ in RATES]
        lines += table(("", "share"), body)
        values = [
            (label, str(found["count"]), number(found.get("median")), number(found.get("mean")))
            for column, label in NUMBERS
            for found in [part["numbers"][column]]
        ]
        lines += table(("", "crystals", "median", "mean"), values)
        bins = {label: group for label, group in part["by_num_atoms"].items() if group["count"]}
        counts = ("samples", *(str(group["count"]) for group in bins.values()))
        sizes = [
            (label, *(percent(group["rates"][key]) for group in bins.values()))
            for key, label, _ in RATES
        ]
        lines += table(("per cent, by number of atoms", *bins), [counts, *sizes])
    return [*lines, DEFINITIONS] if lines else lines
