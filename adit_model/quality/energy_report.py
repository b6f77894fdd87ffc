"""The part of a report that is about energies of crystals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adit_model.quality.definitions import ENERGY_DEFINITIONS, ENERGY_MEANINGS
from adit_model.quality.energies import NUMBERS, RATES
from adit_model.quality.hull import FAR_BELOW
from adit_model.quality.tables import interval, number, percent, share, table

PARTIAL = (
    "**The hull is partial**: known phases are missing from it, so each energy above it is a lower "
    "bound on the true one, and the shares of stable and metastable crystals are upper bounds."
)
WHOLE = "The hull holds all phases that its source knows."


def trust(found: Mapping[str, int]) -> str:
    """Say how far a partial hull is to be trusted for these crystals."""
    return (
        f"How far to trust it, of {found['of']} crystals with an energy above hull: "
        f"{found['elements_only']} with only pure elements to compete with, as this hull knows no "
        "compound that does, so that it is the formation energy; and "
        f"{found['far_below']} more than {-FAR_BELOW} eV/atom below the hull, which tells of "
        "missing phases or of a failing force field rather than of a discovery."
    )


def energy_lines(energies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write what :func:`~adit_model.quality.energies.summarise_energies` found as Markdown."""
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
        taken = [(key, label) for key, label, _ in RATES if part["rates"][key]]
        body = [
            (label, share(rate), interval(rate), ENERGY_MEANINGS[key])
            for key, label in taken
            for rate in [part["rates"][key]]
        ]
        lines += table(("", "share", "95 %", "what passes"), body, texts=1)
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
            for key, label in taken
        ]
        lines += table(("per cent, by number of atoms", *bins), [counts, *sizes])
    return [*lines, ENERGY_DEFINITIONS] if lines else lines
