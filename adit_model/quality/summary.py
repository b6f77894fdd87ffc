"""Rates and distances of a set of rows, as plain numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adit_model.quality.conditions import held
from adit_model.quality.distances import CRYSTAL_NUMBERS, MOLECULE_NUMBERS, compare, numbers
from adit_model.quality.entries import UNKNOWN
from adit_model.quality.measures import NOT_INSTALLED
from adit_model.quality.pool import FAILED
from adit_model.quality.tables import spread, tally
from adit_model.systems import CRYSTAL, DOMAINS

Row = Mapping[str, Any]
SIZE_BINS = ((1, 4), (5, 8), (9, 12), (13, 16), (17, 20))


@dataclass(frozen=True)
class Rate:
    """A share of structures.

    Parameters
    ----------
    name : str
        Key in the summary.
    label, meaning : str
        What reports call it, and what passes.
    columns : tuple of str
        Flags that have to be true.
    base : str or None
        Flag of those it is a share of; None for all samples, undecoded ones included.
    answered : bool
        Whether it is a share of those that have an answer, instead.
    """

    name: str
    label: str
    meaning: str
    columns: tuple[str, ...]
    base: str | None = None
    answered: bool = False


def _rate(name: str, label: str, meaning: str, base: str | None = None) -> Rate:
    """Make a rate of the column of its name."""
    return Rate(name, label, meaning, (name,), base)


_VUN = Rate("vun", "valid, unique and novel", "all three", ("valid", "unique", "novel"))
CRYSTAL_RATES = (
    _rate("plausible", "plausible", "no atoms too near or alone, the volume of matter, no gap"),
    _rate(
        "structural",
        "structurally valid",
        "all distances above 0.5 angstrom; only collapsed cells fail",
    ),
    _rate(
        "compositional",
        "compositionally valid",
        "SMACT finds charges that cancel; elements and alloys pass",
    ),
    _rate("valid", "valid (both)", "both of these"),
    _rate("unique", "unique (of valid)", "the first of those that are the same", "valid"),
    _rate("novel", "novel (of valid)", "the same as no structure of the reference", "valid"),
    _VUN,
    _rate("strict", "strict set", "the next four together"),
    _rate(
        "neutral",
        "strict: charge neutral",
        "charges cancel with oxidation states seen in the ICSD",
    ),
    _rate(
        "separated",
        "strict: atoms apart",
        "no two atoms nearer than 0.7 times the sum of their covalent radii",
    ),
    _rate(
        "dense", "strict: density and volume", "0.3 to 25 g/cm^3, 4 to 120 cubic angstrom per atom"
    ),
    _rate("sane_lattice", "strict: lattice", "reduced lattice vectors of 2 to 60 angstrom"),
    _rate("triclinic", "triclinic", "space group 1 or 2 within 0.1 angstrom: no symmetry is left"),
    _rate("metals_only", "metals only", "all elements are metals: compositionally valid as such"),
)
_POSEBUSTERS = {
    "loaded": "RDKit can load it",
    "sanitization": "RDKit's sanitisation",
    "inchi": "it has an InChI",
    "connected": "one piece",
    "no_radicals": "no radical",
    "bond_lengths": "between heavy atoms, within 25 % of distance geometry's bounds",
    "bond_angles": "the same for distances over two bonds",
    "steric_clash": "the same for more distant atoms, 30 % below the bounds",
    "aromatic_rings_flat": "atoms within 0.25 angstrom of a plane; passes if none is there",
    "other_rings_not_flat": "six-rings at least 0.05 angstrom off; passes if none is there",
    "double_bonds_flat": "atoms within 0.25 angstrom of a plane; passes if none is there",
    "internal_energy": "UFF, at most 100 times the mean of RDKit's conformers",
}
MOLECULE_RATES = (
    _rate("plausible", "plausible", "in one piece, and drawn without radicals or odd charges"),
    _rate(
        "valid",
        "valid (RDKit bonds, one fragment)",
        "RDKit finds bonds at the molecule's charge, and they join all atoms",
    ),
    _rate(
        "closed_shell",
        "closed shell (of valid)",
        "an even number of electrons and no radical centre",
        "valid",
    ),
    _rate(
        "unique", "unique (of valid)", "the first with its SMILES, stereochemistry aside", "valid"
    ),
    _rate("novel", "novel (of valid)", "the SMILES is not in the reference", "valid"),
    _VUN,
    _rate(
        "fragment_valid",
        "largest fragment valid, RDKit",
        "RDKit finds bonds for the largest connected part",
    ),
    _rate(
        "open_babel_valid",
        "largest fragment valid, Open Babel",
        "the same with Open Babel's bonds, as published: nearly all pass",
    ),
    _rate(
        "open_babel_whole",
        "the same, and all atoms in it",
        "and that part has all atoms and no radical",
    ),
    _rate("stable", "molecule stable (EDM)", "all atoms have their valence by EDM's bond lengths"),
    *(
        Rate(f"pb_{k}", f"PoseBusters: {k.replace('_', ' ')}", text, (f"pb_{k}",), answered=True)
        for k, text in _POSEBUSTERS.items()
    ),
    Rate(
        "pb_all",
        "PoseBusters: all of them",
        "of the molecules with a verdict, each check that gave one",
        ("pb_all",),
        answered=True,
    ),
    Rate(
        "pb_passed",
        "PoseBusters: bonds and all of them, of all samples",
        "RDKit finds bonds, and each check that gave a verdict passes",
        ("pb_all",),
    ),
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
        ``holds`` (see :func:`~adit_model.quality.conditions.held`), ``by_num_atoms`` (the rates for
        each range of sizes), ``means``, ``distances`` (see
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
            "holds": held(mine),
            "by_num_atoms": {
                label: {"count": len(members), "rates": rates(domain, members, asked[domain])}
                for label, members in by_size(mine).items()
            },
            "means": {name: spread(numbers(decoded, name)).get("mean") for name, _ in columns},
            "failed": _failed(mine),
        }
        if domain != CRYSTAL:
            known = [row for row in mine if isinstance(row.get("stable_atoms"), int)]
            passed, of = (sum(row[name] for row in known) for name in ("stable_atoms", "num_atoms"))
            part["stable_atoms"] = tally(passed, of) if known else None
            if "xtb_rmsd" in asked[domain]:
                part["strain"] = {
                    "all": _strain(mine),
                    "valid": _strain([row for row in mine if row["valid"]]),
                }
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
    found: dict[str, dict[str, Any] | None] = {}
    for rate in RATES[domain]:
        base = [row for row in rows if rate.base is None or row.get(rate.base) is True]
        if rate.answered:
            base = [row for row in base if all(isinstance(row.get(c), bool) for c in rate.columns)]
        passed = sum(all(row.get(column) is True for column in rate.columns) for row in base)
        taken = base and set(rate.columns) <= {*asked, "valid", "unique"}
        found[rate.name] = tally(passed, len(base)) if taken else None
    return found


def _strain(rows: Sequence[Row]) -> dict[str, Any]:
    result: dict[str, Any] = {"relaxed": len(numbers(rows, "xtb_rmsd")), "of": len(rows)}
    for column, _ in STRAIN_NUMBERS:
        found = spread(numbers(rows, column))
        result[column] = {"median": found.get("median"), "mean": found.get("mean")}
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
