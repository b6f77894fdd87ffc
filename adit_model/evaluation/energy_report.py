"""The part of a report that is about energies of crystals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adit_model.evaluation.energies import FAR_BELOW, METASTABLE, NUMBERS, RATES
from adit_model.evaluation.tables import number, percent, share, table

PARTIAL = (
    "**The hull is partial**: known phases are missing from it, so each energy above it is a lower "
    "bound on the true one, and the shares of stable and metastable crystals are upper bounds."
)
WHOLE = "The hull holds all phases that its source knows."
DEFINITIONS = f"""\
- *Relaxation* of atoms and cell: FIRE, Frechet cell filter, *converged* when forces are below 0.1
  eV/angstrom within 500 steps.
- *Stable*: converged, at most 0 eV/atom above the hull; *metastable*: at most {METASTABLE}, the
  stable ones included. *S.U.N.*, *M.S.U.N.*: besides, the relaxed crystal is unique among the
  metastable ones and novel. All are shares of all samples, valid or not; a relaxation that failed
  or did not converge counts as not passed.
- *Formation energy*: relative to the elements by the same force field. *Energy above hull*: of
  that, relative to the mixture of known phases with the lowest energy at the composition.
- *RMSD*: root mean square displacement of the atoms, their mean move and the change of the cell
  taken out. Medians and means are of the crystals that have the number.
"""


def trust(found: Mapping[str, int]) -> str:
    """Say how far a partial hull is to be trusted for these crystals."""
    return (
        f"Of {found['of']} crystals with an energy above hull, {found['elements_only']} compete "
        "with pure elements only, since this hull knows no compound that does: there it is the "
        f"formation energy. {found['far_below']} lie more than {-FAR_BELOW} eV/atom below the "
        "hull, which tells of missing phases or of a failing force field rather than of a "
        "discovery."
    )


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
        if not hull["complete"]:
            lines += [trust(part["trust"]), ""]
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
