"""Rates and distances of a set of rows, as plain numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adit_model.quality.distances import (
    CRYSTAL_NUMBERS,
    MOLECULE_NUMBERS,
    compare,
    mean,
    numbers,
)
from adit_model.quality.measures import FAILED, NOT_INSTALLED
from adit_model.quality.molecule_routes import POSEBUSTERS_CHECKS
from adit_model.quality.sources import UNKNOWN
from adit_model.quality.training_tables import SIZE_BINS
from adit_model.systems import CRYSTAL, DOMAINS

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Rate:
    """A share of structures.

    Parameters
    ----------
    name : str
        Key in the summary.
    label : str
        What the report calls it.
    columns : tuple of str
        Flags that have to be true.
    base : str or None
        Flag of those it is a share of; None for all samples, undecoded ones included.
    answered : bool
        Whether it is a share of those that have an answer, instead.
    """

    name: str
    label: str
    columns: tuple[str, ...]
    base: str | None = None
    answered: bool = False


CRYSTAL_RATES = (
    Rate("structural", "structurally valid", ("structural",)),
    Rate("compositional", "compositionally valid", ("compositional",)),
    Rate("valid", "valid (both)", ("valid",)),
    Rate("unique", "unique (of valid)", ("unique",), "valid"),
    Rate("novel", "novel (of valid)", ("novel",), "valid"),
    Rate("vun", "valid, unique and novel", ("valid", "unique", "novel")),
    Rate("strict", "strict set", ("strict",)),
    Rate("neutral", "strict: charge neutral", ("neutral",)),
    Rate("separated", "strict: atoms separated", ("separated",)),
    Rate("dense", "strict: density and volume", ("dense",)),
    Rate("sane_lattice", "strict: lattice", ("sane_lattice",)),
)
MOLECULE_RATES = (
    Rate("valid", "valid (RDKit bonds, one fragment)", ("valid",)),
    Rate("closed_shell", "closed shell, uncharged (of valid)", ("closed_shell",), "valid"),
    Rate("unique", "unique (of valid)", ("unique",), "valid"),
    Rate("novel", "novel (of valid)", ("novel",), "valid"),
    Rate("vun", "valid, unique and novel", ("valid", "unique", "novel")),
    Rate("fragment_valid", "largest fragment valid, RDKit", ("fragment_valid",)),
    Rate("open_babel_valid", "largest fragment valid, Open Babel", ("open_babel_valid",)),
    Rate("open_babel_whole", "the same, and all atoms in it", ("open_babel_whole",)),
    Rate("stable", "molecule stable (EDM)", ("stable",)),
    *(
        Rate(f"pb_{name}", f"PoseBusters: {name.replace('_', ' ')}", (f"pb_{name}",), answered=True)
        for name in POSEBUSTERS_CHECKS
    ),
    Rate("pb_all", "PoseBusters: all of them", ("pb_all",), answered=True),
    Rate("pb_passed", "PoseBusters: bonds and all of them, of all samples", ("pb_all",)),
)
# (column, label) of measures of molecules that are summarised by their median and mean
STRAIN_NUMBERS = (
    ("xtb_energy_drop", "energy drop (eV/atom)"),
    ("xtb_rmsd", "RMSD, all atoms (angstrom)"),
    ("xtb_rmsd_heavy", "RMSD, heavy atoms (angstrom)"),
)
RATES = {CRYSTAL: CRYSTAL_RATES, "molecule": MOLECULE_RATES}


def summarise(
    rows: Sequence[Row],
    asked: Mapping[str, Collection[str]],
    reference: Mapping[str, Sequence[Row]] | None = None,
) -> dict[str, Any]:
    """Count, average and compare.

    Parameters
    ----------
    rows : sequence of dict
        From :func:`~adit_model.quality.rows.make_rows`.
    asked : mapping
        From a domain to the columns that were filled; a rate of any other column is None.
    reference : mapping, optional
        From a domain to measured reference structures.

    Returns
    -------
    dict
        ``"crystals"`` and ``"molecules"``, where there are any, each with ``count``, ``decoded``,
        ``rates`` (each with ``passed``, ``of`` and ``share``; None where nothing was asked),
        ``by_num_atoms`` (the same for each range of sizes), ``means``, ``distances`` (see
        :func:`~adit_model.quality.distances.compare`) and ``failed`` (for each column how many
        cells hold a reason, and the first). Molecules also have ``stable_atoms``, and ``strain``
        where it was asked for: medians and means of all and of the valid. ``"unreadable"``
        counts what is of neither domain.
    """
    result: dict[str, Any] = {}
    for domain in DOMAINS:
        mine = [row for row in rows if row["domain"] == domain]
        if not mine:
            continue
        columns = CRYSTAL_NUMBERS if domain == CRYSTAL else MOLECULE_NUMBERS
        decoded = [row for row in mine if row["decoded"]]
        part: dict[str, Any] = {
            "count": len(mine),
            "decoded": len(decoded),
            "rates": rates(domain, mine, asked[domain]),
            "by_num_atoms": {
                label: {"count": len(members), "rates": rates(domain, members, asked[domain])}
                for label, members in by_size(mine).items()
            },
            "means": {name: mean(numbers(decoded, name)) for name, _ in columns},
            "failed": _failed(mine),
        }
        if domain != CRYSTAL:
            part["stable_atoms"] = _stable_atoms(mine)
            if "xtb_rmsd" in asked[domain]:
                part["strain"] = _strain(mine)
        if reference and reference.get(domain):
            part["distances"] = compare(domain, decoded, reference[domain], len(mine))
        result[f"{domain}s"] = part
    if unreadable := sum(row["domain"] == UNKNOWN for row in rows):
        result["unreadable"] = unreadable
    return result


def rates(
    domain: str, rows: Sequence[Row], asked: Collection[str]
) -> dict[str, dict[str, Any] | None]:
    """Take all rates of a domain; a cell that is empty or holds a reason does not pass."""
    return {rate.name: _rate(rate, rows, asked) for rate in RATES[domain]}


def _rate(rate: Rate, rows: Sequence[Row], asked: Collection[str]) -> dict[str, Any] | None:
    base = [row for row in rows if rate.base is None or row.get(rate.base) is True]
    if rate.answered:
        base = [row for row in base if all(isinstance(row.get(c), bool) for c in rate.columns)]
    if not base or not set(rate.columns) <= {*asked, "valid", "unique"}:
        return None
    passed = sum(all(row.get(column) is True for column in rate.columns) for row in base)
    return {"passed": passed, "of": len(base), "share": passed / len(base)}


def _stable_atoms(rows: Sequence[Row]) -> dict[str, Any] | None:
    known = [row for row in rows if isinstance(row.get("stable_atoms"), int)]
    if not known:
        return None
    passed, total = (sum(row[name] for row in known) for name in ("stable_atoms", "num_atoms"))
    return {"passed": passed, "of": total, "share": passed / total}


def _strain(rows: Sequence[Row]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for group, members in (("all", rows), ("valid", [row for row in rows if row["valid"]])):
        result[group] = {"relaxed": len(numbers(members, "xtb_rmsd")), "of": len(members)}
        for column, _ in STRAIN_NUMBERS:
            values = numbers(members, column)
            result[group][column] = {
                "median": float(np.median(values)) if values else None,
                "mean": mean(values),
            }
    return result


def by_size(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Split rows by their number of atoms, into the ranges the field uses and one for the rest."""
    largest = max((row["num_atoms"] or 0 for row in rows), default=0)
    last = SIZE_BINS[-1][1]
    bins = [*SIZE_BINS, *([(last + 1, largest)] if largest > last else [])]
    return {
        f"{low}-{high}" if low < high else str(low): [
            row for row in rows if low <= (row["num_atoms"] or 0) <= high
        ]
        for low, high in bins
    }


def _failed(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        for column, value in row.items():
            if isinstance(value, str) and value.startswith((FAILED, NOT_INSTALLED)):
                entry = found.setdefault(column, {"count": 0, "first": value})
                entry["count"] += 1
    return found
